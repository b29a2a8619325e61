//! Jobs, their events and their tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::system::Type::{Bool, Double, Int, Text, Texts, Time};
use super::super::system::{Definition, Rows, ScanRequest, Sources};
use crate::cluster::{CATALOGS, Cluster};
use crate::error::Error;
use crate::job::{JobKind, JobRow, JobStatus, Phase, SlotStatus, TaskKind, TaskRow, Volume};
use crate::names::{ClusterName, DatabaseName, JobId, TaskId, Timestamp};
use crate::progress::Notes;
use crate::store::JobFilter;

pub(super) const JOBS: Definition = Definition {
    name: "jobs",
    columns: &[
        ("job_id", Int),
        ("kind", Text),
        ("state", Text),
        ("status", Text),
        ("cluster", Text),
        ("db_name", Text),
        ("snapshot", Text),
        ("backup_timestamp", Text),
        ("repository", Text),
        ("objects", Texts),
        ("requested_by", Text),
        ("client_addr", Text),
        ("application_name", Text),
        ("statement", Text),
        ("created_at", Time),
        ("started_at", Time),
        ("snapshot_finished_at", Time),
        ("transfer_finished_at", Time),
        ("finished_at", Time),
        ("timeout_seconds", Int),
        ("tasks_total", Int),
        ("tasks_done", Int),
        ("files_total", Int),
        ("files_done", Int),
        ("bytes_total", Int),
        ("bytes_done", Int),
        ("bytes_new", Int),
        ("fraction_completed", Double),
        ("eta_at", Time),
        ("error_code", Text),
        ("error_message", Text),
        ("native_job_id", Int),
        ("native_state", Text),
        ("external", Bool),
        ("queue_position", Int),
        ("block_reason", Text),
        ("native_status", Text),
        ("native_created_at", Time),
        ("native_snapshot_finished_at", Time),
        ("native_transfer_finished_at", Time),
        ("native_finished_at", Time),
        ("native_unfinished_tasks", Text),
        ("native_progress", Text),
        ("native_task_errors", Text),
    ],
};

pub(super) const BACKUP_JOBS: Definition = Definition {
    name: "backup_jobs",
    columns: &[
        ("job_id", Int),
        ("snapshot_name", Text),
        ("db_name", Text),
        ("state", Text),
        ("backup_objs", Text),
        ("create_time", Time),
        ("snapshot_finished_time", Time),
        ("upload_finished_time", Time),
        ("finished_time", Time),
        ("unfinished_tasks", Text),
        ("progress", Text),
        ("task_err_msg", Text),
        ("status", Text),
        ("timeout", Int),
        ("latest", Bool),
    ],
};

pub(super) const RESTORE_JOBS: Definition = Definition {
    name: "restore_jobs",
    columns: &[
        ("job_id", Int),
        ("label", Text),
        ("timestamp", Text),
        ("db_name", Text),
        ("state", Text),
        ("allow_load", Bool),
        ("replication_num", Int),
        ("restore_objs", Text),
        ("create_time", Time),
        ("meta_prepared_time", Time),
        ("snapshot_finished_time", Time),
        ("download_finished_time", Time),
        ("finished_time", Time),
        ("unfinished_tasks", Text),
        ("progress", Text),
        ("task_err_msg", Text),
        ("status", Text),
        ("timeout", Int),
        ("latest", Bool),
    ],
};

pub(super) const JOB_EVENTS: Definition = Definition {
    name: "job_events",
    columns: &[
        ("job_id", Int),
        ("seq", Int),
        ("at", Time),
        ("from_state", Text),
        ("to_state", Text),
        ("actor", Text),
        ("detail", Text),
    ],
};

pub(super) const JOB_TASKS: Definition = Definition {
    name: "job_tasks",
    columns: &[
        ("job_id", Int),
        ("task_id", Int),
        ("kind", Text),
        ("backend_id", Int),
        ("tablet_id", Int),
        ("state", Text),
        ("attempts", Int),
        ("files_total", Int),
        ("files_done", Int),
        ("bytes_total", Int),
        ("bytes_done", Int),
        ("error", Text),
    ],
};

fn filter(wanted: &ScanRequest) -> JobFilter {
    JobFilter {
        job_id: wanted.int("job_id").map(JobId),
        cluster: wanted.text("cluster"),
        snapshot: wanted.text("snapshot"),
        db_name: wanted.text("db_name"),
        kind: wanted.text("kind"),
        status: wanted.text("status"),
        latest: false,
    }
}

fn fraction(row: &JobRow, done: Volume) -> f64 {
    match row.status {
        JobStatus::Succeeded => 1.0,
        _ if row.planned.bytes > 0 => (done.bytes as f64 / row.planned.bytes as f64).min(1.0),
        _ => 0.0,
    }
}

/// The end of the transfer if it goes on as it did so far.
fn eta(row: &JobRow, fraction: f64, now: Timestamp) -> Option<Timestamp> {
    let since = row.snapshot_finished_at.filter(|_| row.status == JobStatus::Running && fraction > 0.0)?;
    let elapsed = (now.0 - since.0).max(0) as f64;
    Some(Timestamp(now.0 + (elapsed * (1.0 - fraction) / fraction) as i64))
}

pub(super) async fn jobs(sources: &Sources, wanted: &ScanRequest) -> Result<Rows, Error> {
    let now = sources.env.now();
    let mut out = Rows::new();
    for mut row in sources.store.jobs(&filter(wanted)).await? {
        let mut done = row.done;
        let (seen, last_error) = sources.progress.last_words(row.job_id);
        freshen(&mut row, seen.as_ref());
        if row.status == JobStatus::Running {
            done.add(sources.progress.under_way(row.job_id));
        }
        let fraction = fraction(&row, done);
        let eta = eta(&row, fraction, now);
        let blocked = last_error.filter(|_| matches!(row.status, JobStatus::Running | JobStatus::Queued));
        let position = queue_position(sources, &row).await?;
        let seen = row.seen.unwrap_or_default();
        let is_remote = !seen.state.is_empty();
        let native = |text: String| Some(text).filter(|_| is_remote);
        out.push(vec![
            row.job_id.0.into(),
            row.kind.to_string().into(),
            row.state.map(Phase::name).into(),
            row.status.name().into(),
            row.cluster.into(),
            said(row.db_name).into(),
            row.snapshot.into(),
            row.backup_timestamp.map(String::from).into(),
            row.repository.into(),
            row.objects.into(),
            said(row.requested_by).into(),
            row.client_addr.into(),
            row.application_name.into(),
            said(row.statement).into(),
            row.created_at.into(),
            row.started_at.into(),
            row.snapshot_finished_at.into(),
            row.transfer_finished_at.into(),
            row.finished_at.into(),
            row.timeout_seconds.into(),
            row.tasks_total.into(),
            row.tasks_done.into(),
            row.planned.files.into(),
            done.files.into(),
            row.planned.bytes.into(),
            done.bytes.into(),
            row.bytes_new.into(),
            fraction.into(),
            eta.into(),
            row.error_code.into(),
            row.error_message.into(),
            seen.job_id.into(),
            native(seen.state).into(),
            row.external.into(),
            position.into(),
            blocked.into(),
            native(seen.status).into(),
            seen.created_at.into(),
            seen.snapshot_finished_at.into(),
            seen.transfer_finished_at.into(),
            seen.finished_at.into(),
            native(seen.unfinished_tasks).into(),
            native(seen.progress).into(),
            native(seen.task_errors).into(),
        ]);
    }
    Ok(out)
}

/// Nobody here asked for a job of somebody else's.
fn said(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

/// What another cluster does may have been looked at since the last event.
fn freshen(row: &mut JobRow, seen: Option<&SlotStatus>) {
    if matches!(row.status, JobStatus::Running) {
        row.update_from(seen);
    }
}

/// Which place a job that waits has, from 1.
async fn queue_position(sources: &Sources, row: &JobRow) -> Result<Option<u64>, Error> {
    if row.status != JobStatus::Queued || row.state != Some(Phase::Queued) {
        return Ok(None);
    }
    let (cluster, database) = (ClusterName::new(row.cluster.as_str())?, DatabaseName::new(row.db_name.as_str())?);
    let before = sources.store.unsettled(&cluster, &database).await?.into_iter().filter(|id| *id < row.job_id);
    let mut position = 1;
    for id in before {
        if sources.store.load(id).await?.can_cancel() {
            position += 1;
        }
    }
    Ok(Some(position))
}

/// StarRocks' three columns about tasks, from the unfinished tasks of the present phase.
struct TaskColumns {
    unfinished: String,
    progress: String,
    errors: String,
    status: String,
}

/// The kind of transfer that a phase waits for.
fn transfers_of(phase: Option<Phase>) -> Option<TaskKind> {
    match phase? {
        Phase::Uploading => Some(TaskKind::Upload),
        Phase::Downloading => Some(TaskKind::Download),
        _ => None,
    }
}

async fn task_columns(sources: &Sources, row: &JobRow) -> Result<TaskColumns, Error> {
    let mut columns = TaskColumns {
        unfinished: String::new(),
        progress: String::new(),
        errors: String::new(),
        status: row.native_status.clone(),
    };
    if let Some(seen) = &row.seen {
        columns.unfinished.clone_from(&seen.unfinished_tasks);
        columns.progress.clone_from(&seen.progress);
        columns.errors.clone_from(&seen.task_errors);
        return Ok(columns);
    }
    if row.status != JobStatus::Running {
        return Ok(columns);
    }
    let notes = sources.progress.notes(row.job_id);
    let tasks = sources.store.tasks(Some(row.job_id)).await?;
    let left = |kind: TaskKind| -> BTreeMap<TaskId, TaskRow> {
        tasks.iter().filter(|t| !t.finished && t.kind == kind).map(|t| (t.task_id, t.clone())).collect()
    };
    let join = |parts: Vec<String>| parts.join(", ");
    columns.unfinished = match (row.state, row.kind) {
        (Some(Phase::Snapshoting), JobKind::Backup) => {
            join(left(TaskKind::Snapshot).values().map(|t| format!("{}={}", t.tablet_id, t.backend_id)).collect())
        }
        (Some(Phase::Snapshoting), JobKind::Restore) => {
            join(left(TaskKind::Prepare).values().map(|t| format!("{}={}", t.task_id, t.tablet_id)).collect())
        }
        (state, _) => match transfers_of(state) {
            Some(kind) => join(left(kind).values().map(|t| format!("{}={}", t.task_id, t.backend_id)).collect()),
            None => String::new(),
        },
    };
    if let Some(kind) = transfers_of(row.state) {
        let done = |t: &TaskRow| notes.tasks.get(&t.task_id).map_or(0, |n| n.done.files);
        columns.progress = join(left(kind).values().map(|t| format!("[{}: {}/{}]", t.task_id, done(t), t.planned.files)).collect());
    }
    let errors = notes.tasks.iter().filter_map(|(task, note)| Some(format!("[{task}: {}]", note.error.as_ref()?)));
    columns.errors = join(errors.collect());
    if let Some(error) = notes.job.and_then(|n| n.error) {
        columns.status = format!("[COMMON_ERROR, msg: {error}]");
    }
    Ok(columns)
}

/// The jobs of a kind on this cluster that were admitted, newest last, and which of them are the latest of their databases, if that is asked
/// for.
async fn admitted(
    sources: &Sources,
    cluster: &Arc<dyn Cluster>,
    wanted: &ScanRequest,
    kind: JobKind,
) -> Result<Vec<(JobRow, bool)>, Error> {
    let mut filter = JobFilter {
        job_id: wanted.int("job_id").map(JobId),
        cluster: Some(cluster.name().to_string()),
        snapshot: None,
        db_name: wanted.text("db_name"),
        kind: Some(kind.to_string()),
        status: None,
        latest: wanted.is_true("latest"),
    };
    let mut latest = BTreeSet::new();
    if filter.latest {
        filter.job_id = None;
    } else if wanted.needs("latest") {
        let filter = JobFilter { job_id: None, latest: true, ..filter.clone() };
        latest.extend(sources.store.jobs(&filter).await?.iter().map(|row| row.job_id));
    }
    let mut rows = sources.store.jobs(&filter).await?;
    if filter.latest {
        latest.extend(rows.iter().map(|row| row.job_id));
    }
    rows.retain(|row| row.state.is_some());
    for row in &mut rows {
        freshen(row, sources.progress.last_words(row.job_id).0.as_ref());
        if let Some(seen) = &row.seen {
            // Its own clock is what its users know; ours fills in what it has not said yet.
            row.created_at = seen.created_at.unwrap_or(row.created_at);
            row.meta_prepared_at = seen.meta_prepared_at;
            row.snapshot_finished_at = seen.snapshot_finished_at;
            row.transfer_finished_at = seen.transfer_finished_at;
            row.finished_at = seen.finished_at.or(row.finished_at);
        }
        if row.db_name == CATALOGS {
            row.db_name.clear();
        }
    }
    let rows = rows.into_iter().map(|row| {
        let is_latest = latest.contains(&row.job_id);
        (row, is_latest)
    });
    Ok(rows.collect())
}

/// A phase as the cluster that does the job spells it; one of a later version is known by its name only.
fn native_state(row: &JobRow) -> Option<String> {
    match (row.state?, &row.seen) {
        (Phase::Unknown, Some(seen)) => Some(seen.state.clone()),
        (phase, _) => Some(phase.to_string()),
    }
}

pub(super) async fn backup_jobs(sources: &Sources, cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    let mut out = Rows::new();
    for (row, latest) in admitted(sources, cluster, wanted, JobKind::Backup).await? {
        let (tasks, state) = (task_columns(sources, &row).await?, native_state(&row));
        out.push(vec![
            row.job_id.0.into(),
            row.snapshot.into(),
            row.db_name.into(),
            state.into(),
            row.native_objects.into(),
            row.created_at.into(),
            row.snapshot_finished_at.into(),
            row.transfer_finished_at.into(),
            row.finished_at.into(),
            tasks.unfinished.into(),
            tasks.progress.into(),
            tasks.errors.into(),
            tasks.status.into(),
            row.timeout_seconds.into(),
            latest.into(),
        ]);
    }
    Ok(out)
}

pub(super) async fn restore_jobs(sources: &Sources, cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    let mut out = Rows::new();
    for (row, latest) in admitted(sources, cluster, wanted, JobKind::Restore).await? {
        let (tasks, state) = (task_columns(sources, &row).await?, native_state(&row));
        out.push(vec![
            row.job_id.0.into(),
            row.snapshot.into(),
            row.backup_timestamp.map(String::from).into(),
            row.db_name.into(),
            state.into(),
            row.allow_load.into(),
            row.replication_num.map(i64::from).into(),
            row.native_objects.into(),
            row.created_at.into(),
            row.meta_prepared_at.into(),
            row.snapshot_finished_at.into(),
            row.transfer_finished_at.into(),
            row.finished_at.into(),
            tasks.unfinished.into(),
            tasks.progress.into(),
            tasks.errors.into(),
            tasks.status.into(),
            row.timeout_seconds.into(),
            latest.into(),
        ]);
    }
    Ok(out)
}

pub(super) async fn job_events(sources: &Sources, wanted: &ScanRequest) -> Result<Rows, Error> {
    let events = sources.store.events(wanted.int("job_id").map(JobId)).await?;
    Ok(events
        .into_iter()
        .map(|e| {
            // A user's CANCEL is the one event that the runner does not decide itself.
            let actor = if e.detail.contains("\"message\":\"user cancelled") { "user" } else { "runner" };
            vec![
                e.job_id.0.into(),
                e.seq.into(),
                e.at.into(),
                e.from_state.into(),
                e.to_state.into(),
                actor.into(),
                e.detail.into(),
            ]
        })
        .collect())
}

pub(super) async fn job_tasks(sources: &Sources, wanted: &ScanRequest) -> Result<Rows, Error> {
    let mut notes: BTreeMap<JobId, Notes> = BTreeMap::new();
    let mut out = Rows::new();
    for task in sources.store.tasks(wanted.int("job_id").map(JobId)).await? {
        let notes = notes.entry(task.job_id).or_insert_with(|| sources.progress.notes(task.job_id));
        let note = notes.tasks.get(&task.task_id).cloned().unwrap_or_default();
        let done = if task.finished { task.done } else { note.done };
        let state = match (task.finished, note.attempts) {
            (true, _) => "finished",
            (false, 0) => "waiting",
            (false, _) => "running",
        };
        out.push(vec![
            task.job_id.0.into(),
            task.task_id.0.into(),
            task.kind.name().into(),
            task.backend_id.0.into(),
            task.tablet_id.0.into(),
            state.into(),
            i64::from(note.attempts.max(u32::from(task.finished))).into(),
            task.planned.files.into(),
            done.files.into(),
            task.planned.bytes.into(),
            done.bytes.into(),
            note.error.filter(|_| !task.finished).into(),
        ]);
    }
    Ok(out)
}
