//! A job as a row of `system.jobs`: everything that is known about it, flat.

use serde::{Deserialize, Serialize};

use super::data::{Assignment, BackupObject, RestoreObject, TransferTask, Volume};
use super::{
    Base, CancelCause, DropRequest, DroppedBackups, End, Failure, Job, JobKind, JobSpec, Phase,
    Requester, SlotStatus, StagedTable, Target, TaskKind, Work,
};
use crate::error::{Error, ErrorKind};
use crate::names::{
    BackendId, BackupTimestamp, JobId, PartitionName, TableName, TabletId, TaskId, Timestamp,
};

/// How a job stands, in words that do not depend on its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Admitted, not begun.
    Queued,
    /// Begun.
    Running,
    /// FINISHED.
    Succeeded,
    /// CANCELLED by an error or by its timeout.
    Failed,
    /// CANCELLED by a user.
    Cancelled,
    /// Never admitted.
    Refused,
    /// Over, and nobody can tell how it ended.
    Lost,
}

impl JobStatus {
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Refused,
        Self::Lost,
    ];

    /// Its name in `system.jobs`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

/// One row of `system.jobs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    pub job_id: JobId,
    pub kind: JobKind,
    /// Where it stands; `None` for a refused job.
    pub state: Option<Phase>,
    pub status: JobStatus,
    pub cluster: String,
    /// Its database; empty if it is about none.
    pub db_name: String,
    pub snapshot: String,
    /// The backup it makes or takes.
    pub backup_timestamp: Option<BackupTimestamp>,
    /// Its repository; `None` if that is not known.
    pub repository: Option<String>,
    /// `db.table` or `db.table PARTITION (p, …)`.
    pub objects: Vec<String>,
    /// The same in StarRocks' spelling for SHOW.
    pub native_objects: String,
    /// The user; empty if it was none of ours.
    pub requested_by: String,
    pub client_addr: Option<String>,
    pub application_name: Option<String>,
    /// The statement, without secrets.
    pub statement: String,
    /// When it was admitted or refused.
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    /// A restore's plan was made.
    pub meta_prepared_at: Option<Timestamp>,
    /// The end of SNAPSHOTING.
    pub snapshot_finished_at: Option<Timestamp>,
    /// The end of UPLOADING or DOWNLOADING.
    pub transfer_finished_at: Option<Timestamp>,
    /// FINISHED, CANCELLED or refused.
    pub finished_at: Option<Timestamp>,
    /// Seconds from creation.
    pub timeout_seconds: u64,
    /// Since when it is paused, if it is.
    #[serde(default)]
    pub paused_at: Option<Timestamp>,
    /// How long it was paused before, milliseconds.
    #[serde(default)]
    pub paused_ms: i64,
    #[serde(default)]
    pub max_bytes_per_second: Option<u64>,
    pub tasks_total: u64,
    pub tasks_done: u64,
    /// What transfers there are.
    pub planned: Volume,
    pub done: Volume,
    /// Bytes that were not at their destination already.
    pub bytes_new: u64,
    /// SQLSTATE of the end, if it was a bad one.
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// The repository that it was taken over from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_from: Option<String>,
    /// Older snapshots that have a part of what it has backed up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Whether what it has backed up is known by its partitions.
    #[serde(default)]
    pub noted: bool,
    /// The label that it was told to follow, of a backup of what has changed; empty: the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
    /// `[OK]` or `[CODE, msg: …]`.
    pub native_status: String,
    /// Restore only.
    pub allow_load: Option<bool>,
    /// Restore only.
    pub replication_num: Option<u16>,
    /// Whether somebody else submitted it.
    #[serde(default)]
    pub external: bool,
    /// The last news of a job that another cluster does.
    #[serde(default)]
    pub seen: Option<SlotStatus>,
}

/// What changes in a [`JobRow`] while its job goes on: small, whatever the job is about, and
/// written anew with each append.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobCourse {
    /// Where it stands; `None` for a refused job.
    pub state: Option<Phase>,
    pub status: JobStatus,
    /// The backup that another cluster made, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_timestamp: Option<BackupTimestamp>,
    pub started_at: Option<Timestamp>,
    /// A restore's plan was made.
    pub meta_prepared_at: Option<Timestamp>,
    /// The end of SNAPSHOTING.
    pub snapshot_finished_at: Option<Timestamp>,
    /// The end of UPLOADING or DOWNLOADING.
    pub transfer_finished_at: Option<Timestamp>,
    /// FINISHED or CANCELLED.
    pub finished_at: Option<Timestamp>,
    /// The fewest replicas that a restored table has, once there is a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_num: Option<u16>,
    pub tasks_total: u64,
    pub tasks_done: u64,
    /// What transfers there are.
    pub planned: Volume,
    pub done: Volume,
    /// Bytes that were not at their destination already.
    pub bytes_new: u64,
    /// Since when it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<Timestamp>,
    #[serde(default)]
    pub paused_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_second: Option<u64>,
    /// Why it ended badly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    #[serde(default)]
    pub noted: bool,
    /// The last news of a job that another cluster does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SlotStatus>,
}

/// One row of `system.job_tasks`, without its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    pub job_id: JobId,
    pub task_id: TaskId,
    pub kind: TaskKind,
    pub backend_id: BackendId,
    pub tablet_id: TabletId,
    pub finished: bool,
    pub planned: Volume,
    pub done: Volume,
}

fn objects(spec: &JobSpec) -> Vec<String> {
    let named =
        |target: &Target, table: &str, partitions: &[PartitionName], alias: Option<&TableName>| {
            let mut text = format!("{}.{table}", target.database);
            if !partitions.is_empty() {
                let names: Vec<_> = partitions.iter().map(|p| p.as_str()).collect();
                text = format!("{text} PARTITION ({})", names.join(", "));
            }
            alias.map_or(text.clone(), |alias| format!("{text} AS {alias}"))
        };
    match &spec.work {
        Work::Backup { target, request: r } => {
            let tables = r
                .objects
                .iter()
                .map(|o| named(target, o.table.as_str(), &o.partitions, None));
            tables
                .chain(r.views.iter().map(|v| named(target, v.as_str(), &[], None)))
                .collect()
        }
        Work::Restore { target, request: r } => {
            let tables = r
                .objects
                .iter()
                .map(|o| named(target, o.table.as_str(), &o.partitions, o.alias.as_ref()));
            tables
                .chain(
                    r.views
                        .iter()
                        .map(|v| named(target, v.view.as_str(), &[], v.alias.as_ref())),
                )
                .collect()
        }
        Work::External(r) => r.objects.clone(),
        Work::Staged(r) => {
            let alias = |t: &StagedTable| Some(&t.target).filter(|_| t.target != t.name).cloned();
            let tables = r.tables.iter();
            tables
                .map(|t| named(&r.target, t.name.as_str(), &[], alias(t).as_ref()))
                .collect()
        }
        Work::DropSnapshot(_) | Work::Verify(_) | Work::Prune(_) => Vec::new(),
    }
}

/// StarRocks' spellings, in which `PARTITIONS` is glued to the table's name in BACKUP: scripts
/// match on it.
fn native_objects(spec: &JobSpec) -> String {
    let join = |names: &[PartitionName]| {
        names
            .iter()
            .map(|p| p.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let backup = |target: &Target, o: &BackupObject| match o.partitions.as_slice() {
        [] => format!("[{}.{}]", target.database, o.table),
        names => format!(
            "[{}.{}PARTITIONS ({})]",
            target.database,
            o.table,
            join(names)
        ),
    };
    let restore = |o: &RestoreObject| match o.partitions.as_slice() {
        [] => o.table.to_string(),
        // The only partition of an unpartitioned table is named like it and left out.
        [only] if only.as_str() == o.table.as_str() => o.table.to_string(),
        names => format!("{} PARTITIONS [{}]", o.table, join(names)),
    };
    let all: Vec<String> = match &spec.work {
        Work::Backup { target, request: r } => {
            let views = r.views.iter().map(|v| format!("[{}.{v}]", target.database));
            r.objects
                .iter()
                .map(|o| backup(target, o))
                .chain(views)
                .collect()
        }
        Work::Restore { request: r, .. } => r
            .objects
            .iter()
            .map(restore)
            .chain(r.views.iter().map(|v| v.view.to_string()))
            .collect(),
        Work::External(r) => r.objects.clone(),
        Work::Staged(r) => r.tables.iter().map(|t| t.name.to_string()).collect(),
        Work::DropSnapshot(_) | Work::Verify(_) | Work::Prune(_) => Vec::new(),
    };
    all.join(", ")
}

impl JobCourse {
    pub fn of(job: &Job) -> Self {
        let record = &job.record;
        let is_external = job.spec.external().is_some_and(|r| r.external.is_some());
        let status = match (job.end(), job.phase()) {
            (Some(End::Finished), _) => JobStatus::Succeeded,
            (Some(End::Cancelled(CancelCause::User | CancelCause::Dropped)), _) => {
                JobStatus::Cancelled
            }
            (Some(End::Cancelled(CancelCause::Timeout) | End::Failed), _) => JobStatus::Failed,
            (Some(End::Refused), _) => JobStatus::Refused,
            (Some(End::Lost), _) => JobStatus::Lost,
            (None, Phase::Queued) => JobStatus::Queued,
            (None, _) if record.started_at.is_some() || is_external => JobStatus::Running,
            (None, _) => JobStatus::Queued,
        };
        let seen = job.external_state().and_then(|state| {
            state
                .seen()
                .or(job.spec.external().and_then(|r| r.external.as_ref()))
        });
        Self {
            status,
            // A refused job never had a phase.
            state: (status != JobStatus::Refused).then(|| job.phase()),
            backup_timestamp: record.backup_timestamp.clone(),
            started_at: record.started_at,
            meta_prepared_at: record.meta_prepared_at,
            snapshot_finished_at: record.snapshot_finished_at,
            transfer_finished_at: record.transfer_finished_at,
            finished_at: record.finished_at,
            replication_num: record.replication_num,
            tasks_total: record.tasks_total,
            tasks_done: record.tasks_done,
            planned: record.planned,
            done: record.moved.total,
            bytes_new: record.moved.new.bytes,
            paused_at: record.control.paused_at.filter(|_| !job.is_settled()),
            paused_ms: record.control.paused_ms,
            max_bytes_per_second: job.pace(),
            failure: record.failure.clone(),
            noted: record.selection.is_some(),
            needs: match (&job.spec.work, &record.selection) {
                (Work::Staged(request), _) => request.labels().map(ToString::to_string).collect(),
                (_, Some(selection)) => {
                    let older = selection.contents.older.iter();
                    older.map(|stored| stored.label.to_string()).collect()
                }
                (_, None) => Vec::new(),
            },
            seen: seen.cloned(),
        }
    }
}

impl JobRow {
    pub fn of(job: &Job) -> Self {
        let course = JobCourse::of(job);
        let mut row = Self::blank(&job.spec, job.id, job.created_at, course.status);
        row.take(course);
        row
    }

    /// Brings the row to where the job stands.
    pub fn take(&mut self, course: JobCourse) {
        self.status = course.status;
        self.state = course.state;
        self.backup_timestamp = course.backup_timestamp.or(self.backup_timestamp.take());
        self.tasks_total = course.tasks_total;
        self.tasks_done = course.tasks_done;
        self.update_from(course.seen.as_ref());
        self.needs = course.needs;
        self.noted = course.noted;
        self.started_at = course.started_at;
        self.meta_prepared_at = course.meta_prepared_at;
        self.snapshot_finished_at = course.snapshot_finished_at;
        self.transfer_finished_at = course.transfer_finished_at;
        self.finished_at = course.finished_at;
        self.replication_num = course.replication_num.or(self.replication_num);
        self.planned = course.planned;
        self.done = course.done;
        self.bytes_new = course.bytes_new;
        self.paused_at = course.paused_at;
        self.paused_ms = course.paused_ms;
        self.max_bytes_per_second = course.max_bytes_per_second;
        if let Some(failure) = &course.failure {
            self.error_code = Some(failure.kind.sqlstate().to_owned());
            self.error_message = Some(if failure.message.is_empty() {
                "timeout".into()
            } else {
                failure.message.clone()
            });
            self.native_status = failure.status();
        }
    }

    /// The row of a job whose journal does not read.
    pub fn lost(mut self, why: String, at: Timestamp) -> Self {
        self.status = JobStatus::Lost;
        self.state = Some(Phase::Lost);
        self.finished_at = Some(at);
        self.error_code = Some(ErrorKind::Corrupted.sqlstate().to_owned());
        self.native_status = format!("[COMMON_ERROR, msg: {why}]");
        self.error_message = Some(why);
        self
    }

    /// Takes over what was seen of a job that another cluster does.
    pub fn update_from(&mut self, seen: Option<&SlotStatus>) {
        let Some(seen) = seen else { return };
        if !seen.objects.is_empty() {
            self.native_objects = seen.objects.clone();
        }
        if !seen.status.is_empty() {
            self.native_status = seen.status.clone();
        }
        self.timeout_seconds = seen.timeout_seconds.unwrap_or(self.timeout_seconds);
        self.allow_load = seen.allow_load.or(self.allow_load);
        self.replication_num = seen.replication_num.or(self.replication_num);
        if seen.tasks_most > 0 {
            self.tasks_total = seen.tasks_most;
            self.tasks_done = seen.tasks_most - seen.tasks_left.min(seen.tasks_most);
        }
        self.seen = Some(seen.clone());
    }

    /// The row of a job that was never admitted.
    pub fn refused(spec: &JobSpec, id: JobId, at: Timestamp, error: &Error) -> Self {
        let mut row = Self::blank(spec, id, at, JobStatus::Refused);
        row.finished_at = Some(at);
        row.error_code = Some(error.kind.sqlstate().to_owned());
        row.error_message = Some(error.message.clone());
        row.native_status = format!("[COMMON_ERROR, msg: {}]", error.message);
        row
    }

    fn blank(spec: &JobSpec, job_id: JobId, created_at: Timestamp, status: JobStatus) -> Self {
        let (backup_timestamp, allow_load, replication_num) = match &spec.work {
            Work::Backup { .. } => (
                Some(BackupTimestamp::of(created_at)).filter(|_| status != JobStatus::Refused),
                None,
                None,
            ),
            Work::Restore { request: r, .. } => (
                Some(r.timestamp.clone()),
                Some(r.allow_load),
                Some(r.replication_num),
            ),
            Work::External(r) => (
                r.timestamp
                    .as_ref()
                    .and_then(|t| BackupTimestamp::new(t.as_str()).ok()),
                None,
                None,
            ),
            Work::DropSnapshot(DropRequest {
                backups: DroppedBackups::Expired { timestamp },
                ..
            }) => (Some(timestamp.clone()), None, None),
            Work::Staged(r) => (
                Some(r.timestamp.clone()),
                Some(false),
                Some(r.replication_num),
            ),
            Work::DropSnapshot(_) | Work::Verify(_) | Work::Prune(_) => (None, None, None),
        };
        let (requested_by, client_addr, application_name) = match &spec.requester {
            Requester::User {
                name,
                client_addr,
                application_name,
            } => (name.clone(), client_addr.clone(), application_name.clone()),
            Requester::Expiry
            | Requester::Outside
            | Requester::Verification(_)
            | Requester::Staging(_) => (String::new(), None, None),
        };
        let external = spec.external();
        Self {
            job_id,
            kind: spec.kind(),
            state: None,
            status,
            cluster: spec.cluster.to_string(),
            db_name: spec
                .work
                .database()
                .map(ToString::to_string)
                .unwrap_or_default(),
            snapshot: spec.label().to_string(),
            backup_timestamp,
            repository: spec.work.repository().map(ToString::to_string),
            objects: objects(spec),
            native_objects: native_objects(spec),
            requested_by,
            client_addr,
            application_name,
            statement: spec.statement.clone(),
            created_at,
            started_at: None,
            meta_prepared_at: None,
            snapshot_finished_at: None,
            transfer_finished_at: None,
            finished_at: None,
            timeout_seconds: spec.timeout_seconds,
            paused_at: None,
            paused_ms: 0,
            max_bytes_per_second: spec.max_bytes_per_second,
            tasks_total: 0,
            tasks_done: 0,
            planned: Volume::default(),
            done: Volume::default(),
            bytes_new: 0,
            error_code: None,
            error_message: None,
            imported_from: None,
            needs: Vec::new(),
            noted: false,
            follows: spec.external().and_then(|r| match r.base.as_ref()? {
                Base::Latest => Some(String::new()),
                Base::Label(label) => Some(label.to_string()),
            }),
            native_status: "[OK]".into(),
            allow_load,
            replication_num,
            external: external.is_some_and(|r| r.external.is_some()),
            seen: None,
        }
    }
}

impl TaskRow {
    /// A task that is not done, and moves nothing.
    pub(super) fn new(job_id: JobId, task_id: TaskId, kind: TaskKind, on: Assignment) -> Self {
        Self {
            job_id,
            task_id,
            kind,
            backend_id: on.backend_id,
            tablet_id: on.tablet_id,
            finished: false,
            planned: Volume::default(),
            done: Volume::default(),
        }
    }

    /// A transfer that is not done.
    pub(super) fn of_transfer(job_id: JobId, kind: TaskKind, task: &TransferTask) -> Self {
        Self {
            planned: task.planned,
            ..Self::new(job_id, task.task_id, kind, task.assignment)
        }
    }
}
