//! Jobs, their events and their tasks.

mod estimate;
mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use self::estimate::{eta, fraction};
pub(super) use self::events::{job_events, job_tasks};
use super::super::system::{Chunks, ScanContext, ScanRequest, Sources, system_row};
use crate::cluster::CATALOGS;
use crate::error::Error;
use crate::job::{JobKind, JobRow, JobStatus, Phase, SlotStatus, TaskKind, TaskRow};
use crate::names::{ClusterName, DatabaseName, JobId, TaskId};
use crate::store::{JobFilter, JobOrder, Span};

const BY_ID: [&str; 1] = ["job_id"];
const BY_CREATION: [&str; 2] = ["created_at", "job_id"];

system_row! {
    pub JobsRow in "jobs" by BY_ID, BY_CREATION {
        job_id: Int,
        kind: Text,
        state: Text,
        status: Text,
        cluster: Text,
        db_name: Text,
        snapshot: Text,
        backup_timestamp: Text,
        repository: Text,
        objects: Texts,
        requested_by: Text,
        client_addr: Text,
        application_name: Text,
        statement: Text,
        created_at: Time,
        started_at: Time,
        snapshot_finished_at: Time,
        transfer_finished_at: Time,
        finished_at: Time,
        timeout_seconds: Int,
        tasks_total: Int,
        tasks_done: Int,
        files_total: Int,
        files_done: Int,
        bytes_total: Int,
        bytes_done: Int,
        bytes_new: Int,
        fraction_completed: Double,
        eta_at: Time,
        error_code: Text,
        error_message: Text,
        native_job_id: Int,
        native_state: Text,
        external: Bool,
        queue_position: Int,
        block_reason: Text,
        native_status: Text,
        native_created_at: Time,
        native_snapshot_finished_at: Time,
        native_transfer_finished_at: Time,
        native_finished_at: Time,
        native_unfinished_tasks: Text,
        native_progress: Text,
        native_task_errors: Text,
        paused_at: Time,
        max_bytes_per_second: Int,
        left_out: Texts,
        imported_from: Text,
    }
}

system_row! {
    pub BackupJobsRow in "backup_jobs" by BY_ID {
        job_id: Int,
        snapshot_name: Text,
        db_name: Text,
        state: Text,
        backup_objs: Text,
        create_time: Time,
        snapshot_finished_time: Time,
        upload_finished_time: Time,
        finished_time: Time,
        unfinished_tasks: Text,
        progress: Text,
        task_err_msg: Text,
        status: Text,
        timeout: Int,
        latest: Bool,
    }
}

system_row! {
    pub RestoreJobsRow in "restore_jobs" by BY_ID {
        job_id: Int,
        label: Text,
        timestamp: Text,
        db_name: Text,
        state: Text,
        allow_load: Bool,
        replication_num: Int,
        restore_objs: Text,
        create_time: Time,
        meta_prepared_time: Time,
        snapshot_finished_time: Time,
        download_finished_time: Time,
        finished_time: Time,
        unfinished_tasks: Text,
        progress: Text,
        task_err_msg: Text,
        status: Text,
        timeout: Int,
        latest: Bool,
    }
}

system_row! {
    pub JobEventsRow in "job_events" by ["job_id", "seq"] {
        job_id: Int,
        seq: Int,
        at: Time,
        from_state: Text,
        to_state: Text,
        actor: Text,
        detail: Text,
        event: Text,
    }
}

system_row! {
    pub JobTasksRow in "job_tasks" by ["job_id", "task_id"] {
        job_id: Int,
        task_id: Int,
        kind: Text,
        backend_id: Int,
        tablet_id: Int,
        state: Text,
        attempts: Int,
        files_total: Int,
        files_done: Int,
        bytes_total: Int,
        bytes_done: Int,
        error: Text,
    }
}

fn filter(wanted: &ScanRequest) -> JobFilter {
    let (kind, status) = (wanted.text("kind"), wanted.text("status"));
    let kind = kind.map(|name| JobKind::ALL.into_iter().find(|kind| kind.name() == name));
    let status = status.map(|name| {
        JobStatus::ALL
            .into_iter()
            .find(|status| status.name() == name)
    });
    let ids = if kind == Some(None) || status == Some(None) {
        // No job is of such a kind, or stands so.
        Span {
            from: Some(JobId(1)),
            to: Some(JobId(0)),
        }
    } else {
        wanted.ids()
    };
    JobFilter {
        job_id: wanted.int("job_id").map(JobId),
        cluster: wanted.text("cluster"),
        snapshot: wanted.text("snapshot"),
        db_name: wanted.text("db_name"),
        kind: kind.flatten(),
        status: status.flatten(),
        ids,
        created: wanted.times("created_at"),
        order: match wanted.order {
            Some(order) if order.key == BY_CREATION => JobOrder::CreatedAt,
            _ => JobOrder::Id,
        },
        descending: wanted.descending(),
        ..JobFilter::default()
    }
}

/// Jobs of the first page, and of the largest: who wants a few takes no more.
const PAGE_ROWS: std::ops::RangeInclusive<usize> = 128..=2048;

/// Pages of jobs, read as they are taken.
fn pages(sources: Arc<Sources>, filter: JobFilter) -> Chunks<JobRow> {
    let first = JobFilter {
        limit: Some(*PAGE_ROWS.start()).filter(|_| !filter.latest),
        ..filter
    };
    stream::try_unfold((sources, Some(first)), |(sources, filter)| async move {
        let Some(filter) = filter else {
            return Ok(None);
        };
        let page = sources.store.jobs(&filter).await?;
        let next = filter
            .limit
            .filter(|limit| page.len() == *limit)
            .map(|limit| JobFilter {
                after: page.last().map(|row| (row.created_at, row.job_id)),
                limit: Some((4 * limit).min(*PAGE_ROWS.end())),
                ..filter
            });
        Ok(Some((page, (sources, next))))
    })
    .boxed()
}

pub(super) fn jobs(context: Arc<ScanContext>) -> Chunks<JobsRow> {
    let sources = context.sources.clone();
    pages(sources.clone(), filter(&context.request))
        .and_then(move |page| {
            let sources = sources.clone();
            async move {
                let mut rows = Vec::with_capacity(page.len());
                for row in page {
                    rows.push(job(&sources, row).await?);
                }
                Ok(rows)
            }
        })
        .boxed()
}

async fn job(sources: &Sources, mut row: JobRow) -> Result<JobsRow, Error> {
    let mut done = row.done;
    let (seen, last_error) = sources.progress.last_words(row.job_id);
    freshen(&mut row, seen.as_ref());
    if row.status == JobStatus::Running {
        done.add(sources.progress.under_way(row.job_id));
    }
    let fraction = fraction(&row, done);
    let eta = eta(&row, fraction, sources.env.now());
    let blocked =
        last_error.filter(|_| matches!(row.status, JobStatus::Running | JobStatus::Queued));
    let position = queue_position(sources, &row).await?;
    let seen = row.seen.unwrap_or_default();
    let is_external = !seen.state.is_empty();
    let native = |text: String| Some(text).filter(|_| is_external);
    Ok(JobsRow {
        job_id: row.job_id.0.into(),
        kind: row.kind.to_string().into(),
        state: row.state.map(Phase::name).into(),
        status: row.status.name().into(),
        cluster: row.cluster.into(),
        db_name: said(row.db_name).into(),
        snapshot: row.snapshot.into(),
        backup_timestamp: row.backup_timestamp.map(String::from).into(),
        repository: row.repository.into(),
        objects: row.objects.into(),
        requested_by: said(row.requested_by).into(),
        client_addr: row.client_addr.into(),
        application_name: row.application_name.into(),
        statement: said(row.statement).into(),
        created_at: row.created_at.into(),
        started_at: row.started_at.into(),
        snapshot_finished_at: row.snapshot_finished_at.into(),
        transfer_finished_at: row.transfer_finished_at.into(),
        finished_at: row.finished_at.into(),
        timeout_seconds: row.timeout_seconds.into(),
        tasks_total: row.tasks_total.into(),
        tasks_done: row.tasks_done.into(),
        files_total: row.planned.files.into(),
        files_done: done.files.into(),
        bytes_total: row.planned.bytes.into(),
        bytes_done: done.bytes.into(),
        bytes_new: row.bytes_new.into(),
        fraction_completed: fraction.into(),
        eta_at: eta.into(),
        error_code: row.error_code.into(),
        error_message: row.error_message.into(),
        native_job_id: seen.job_id.into(),
        native_state: native(seen.state).into(),
        external: row.external.into(),
        queue_position: position.into(),
        block_reason: blocked.into(),
        native_status: native(seen.status).into(),
        native_created_at: seen.created_at.into(),
        native_snapshot_finished_at: seen.snapshot_finished_at.into(),
        native_transfer_finished_at: seen.transfer_finished_at.into(),
        native_finished_at: seen.finished_at.into(),
        native_unfinished_tasks: native(seen.unfinished_tasks).into(),
        native_progress: native(seen.progress).into(),
        native_task_errors: native(seen.task_errors).into(),
        paused_at: row.paused_at.into(),
        max_bytes_per_second: row.max_bytes_per_second.into(),
        left_out: seen.left_out.into(),
        imported_from: row.imported_from.into(),
    })
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
    let (cluster, database) = (
        ClusterName::new(row.cluster.as_str())?,
        DatabaseName::new(row.db_name.as_str())?,
    );
    let before = sources
        .store
        .unsettled(&cluster, &database)
        .await?
        .into_iter()
        .filter(|id| *id < row.job_id);
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
    let tasks = sources.store.tasks(row.job_id..=row.job_id).await?;
    let left = |kind: TaskKind| -> BTreeMap<TaskId, TaskRow> {
        tasks
            .iter()
            .filter(|t| !t.finished && t.kind == kind)
            .map(|t| (t.task_id, t.clone()))
            .collect()
    };
    let join = |parts: Vec<String>| parts.join(", ");
    columns.unfinished = match (row.state, row.kind) {
        (Some(Phase::Snapshoting), JobKind::Backup) => join(
            left(TaskKind::Snapshot)
                .values()
                .map(|t| format!("{}={}", t.tablet_id, t.backend_id))
                .collect(),
        ),
        (Some(Phase::Snapshoting), JobKind::Restore) => join(
            left(TaskKind::Prepare)
                .values()
                .map(|t| format!("{}={}", t.task_id, t.tablet_id))
                .collect(),
        ),
        (state, _) => match transfers_of(state) {
            Some(kind) => join(
                left(kind)
                    .values()
                    .map(|t| format!("{}={}", t.task_id, t.backend_id))
                    .collect(),
            ),
            None => String::new(),
        },
    };
    if let Some(kind) = transfers_of(row.state) {
        let done = |t: &TaskRow| notes.tasks.get(&t.task_id).map_or(0, |n| n.done.files);
        columns.progress = join(
            left(kind)
                .values()
                .map(|t| format!("[{}: {}/{}]", t.task_id, done(t), t.planned.files))
                .collect(),
        );
    }
    let errors = notes
        .tasks
        .iter()
        .filter_map(|(task, note)| Some(format!("[{task}: {}]", note.error.as_ref()?)));
    columns.errors = join(errors.collect());
    if let Some(error) = notes.job.and_then(|n| n.error) {
        columns.status = format!("[COMMON_ERROR, msg: {error}]");
    }
    Ok(columns)
}

/// The jobs of a kind on this cluster that were admitted, and which of them are the latest of their
/// databases, if that is asked for.
async fn admitted(
    context: Arc<ScanContext>,
    kind: JobKind,
) -> Result<Chunks<(JobRow, bool)>, Error> {
    let (sources, wanted) = (context.sources.clone(), &context.request);
    let filter = JobFilter {
        job_id: wanted.int("job_id").map(JobId),
        cluster: Some(context.cluster.name().to_string()),
        // Jobs of external catalogs are shown without a database.
        db_name: wanted.text("db_name").map(|name| {
            if name.is_empty() {
                CATALOGS.to_owned()
            } else {
                name
            }
        }),
        kind: Some(kind),
        ids: wanted.ids(),
        descending: wanted.descending(),
        ..JobFilter::default()
    };
    let of_each = JobFilter {
        job_id: None,
        ids: Span::default(),
        latest: true,
        ..filter.clone()
    };
    let mut latest = BTreeSet::new();
    let rows = if wanted.is_true("latest") {
        let mut rows = sources.store.jobs(&of_each).await?;
        latest.extend(rows.iter().map(|row| row.job_id));
        if filter.descending {
            rows.reverse();
        }
        stream::once(async { Ok(rows) }).boxed()
    } else {
        if wanted.needs("latest") {
            let rows = sources.store.jobs(&of_each).await?;
            latest.extend(rows.iter().map(|row| row.job_id));
        }
        pages(sources.clone(), filter)
    };
    let rows = rows.map_ok(move |rows| {
        // What another gateway's cluster of the same name has done was not done by this one.
        let admitted = rows
            .into_iter()
            .filter(|row| row.state.is_some() && row.imported_from.is_none());
        admitted
            .map(|row| {
                let is_latest = latest.contains(&row.job_id);
                (as_its_users_know(&sources, row), is_latest)
            })
            .collect()
    });
    Ok(rows.boxed())
}

/// A job with the times of the cluster that does it.
fn as_its_users_know(sources: &Sources, mut row: JobRow) -> JobRow {
    let (seen, _) = sources.progress.last_words(row.job_id);
    freshen(&mut row, seen.as_ref());
    if let Some(seen) = &row.seen {
        // Ours fills in what it has not said yet.
        row.created_at = seen.created_at.unwrap_or(row.created_at);
        row.meta_prepared_at = seen.meta_prepared_at;
        row.snapshot_finished_at = seen.snapshot_finished_at;
        row.transfer_finished_at = seen.transfer_finished_at;
        row.finished_at = seen.finished_at.or(row.finished_at);
    }
    if row.db_name == CATALOGS {
        row.db_name.clear();
    }
    row
}

/// Rows made of admitted jobs, a page at a time.
fn shown<R: Send + 'static>(
    context: Arc<ScanContext>,
    kind: JobKind,
    show: fn(JobRow, TaskColumns, bool) -> R,
) -> Chunks<R> {
    let sources = context.sources.clone();
    stream::once(admitted(context, kind))
        .try_flatten()
        .and_then(move |page| {
            let sources = sources.clone();
            async move {
                let mut out = Vec::with_capacity(page.len());
                for (row, latest) in page {
                    let tasks = task_columns(&sources, &row).await?;
                    out.push(show(row, tasks, latest));
                }
                Ok(out)
            }
        })
        .boxed()
}

/// A phase as the cluster that does the job spells it; one of a later version is known by its name
/// only.
fn native_state(row: &JobRow) -> Option<String> {
    match (row.state?, &row.seen) {
        (Phase::Unknown, Some(seen)) => Some(seen.state.clone()),
        (phase, _) => Some(phase.to_string()),
    }
}

pub(super) fn backup_jobs(context: Arc<ScanContext>) -> Chunks<BackupJobsRow> {
    shown(context, JobKind::Backup, |row, tasks, latest| {
        let state = native_state(&row);
        BackupJobsRow {
            job_id: row.job_id.0.into(),
            snapshot_name: row.snapshot.into(),
            db_name: row.db_name.into(),
            state: state.into(),
            backup_objs: row.native_objects.into(),
            create_time: row.created_at.into(),
            snapshot_finished_time: row.snapshot_finished_at.into(),
            upload_finished_time: row.transfer_finished_at.into(),
            finished_time: row.finished_at.into(),
            unfinished_tasks: tasks.unfinished.into(),
            progress: tasks.progress.into(),
            task_err_msg: tasks.errors.into(),
            status: tasks.status.into(),
            timeout: row.timeout_seconds.into(),
            latest: latest.into(),
        }
    })
}

pub(super) fn restore_jobs(context: Arc<ScanContext>) -> Chunks<RestoreJobsRow> {
    shown(context, JobKind::Restore, |row, tasks, latest| {
        let state = native_state(&row);
        RestoreJobsRow {
            job_id: row.job_id.0.into(),
            label: row.snapshot.into(),
            timestamp: row.backup_timestamp.map(String::from).into(),
            db_name: row.db_name.into(),
            state: state.into(),
            allow_load: row.allow_load.into(),
            replication_num: row.replication_num.map(i64::from).into(),
            restore_objs: row.native_objects.into(),
            create_time: row.created_at.into(),
            meta_prepared_time: row.meta_prepared_at.into(),
            snapshot_finished_time: row.snapshot_finished_at.into(),
            download_finished_time: row.transfer_finished_at.into(),
            finished_time: row.finished_at.into(),
            unfinished_tasks: tasks.unfinished.into(),
            progress: tasks.progress.into(),
            task_err_msg: tasks.errors.into(),
            status: tasks.status.into(),
            timeout: row.timeout_seconds.into(),
            latest: latest.into(),
        }
    })
}

/// Jobs whose events are read at a time.
const PAGE_JOBS: i64 = 128;
