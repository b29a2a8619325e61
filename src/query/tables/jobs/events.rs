//! Events and tasks of jobs, read by ranges of jobs.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::PAGE_JOBS;
use super::{JobEventsRow, JobTasksRow};
use crate::error::Error;
use crate::job::{Actor, JobEvent};
use crate::names::{JobId, TabletId};
use crate::progress::Notes;
use crate::query::system::{ScanContext, Sources};
use crate::query::tables::Chunks;
use crate::store::EventRow;

/// The jobs that a query is about, as ranges of numbers that are looked at one after another.
async fn job_ranges(context: &ScanContext) -> Result<Vec<RangeInclusive<JobId>>, Error> {
    let wanted = context.request.id_range();
    let last = context.sources.store.last_job().await?.map_or(0, |id| id.0);
    let (first, last) = (wanted.start().0.max(1), wanted.end().0.min(last));
    let ranges = (first..=last)
        .step_by(PAGE_JOBS as usize)
        .map(|first| JobId(first)..=JobId((first + PAGE_JOBS - 1).min(last)));
    let mut ranges: Vec<_> = ranges.collect();
    if context.request.descending() {
        ranges.reverse();
    }
    Ok(ranges)
}

/// The events of jobs, read as they are taken.
pub fn job_events(context: Arc<ScanContext>) -> Chunks<JobEventsRow> {
    by_ranges(context, |context, range| {
        async move { events_of(&context, range).await }.boxed()
    })
}

/// The tasks of jobs, read as they are taken.
pub fn job_tasks(context: Arc<ScanContext>) -> Chunks<JobTasksRow> {
    by_ranges(context, |context, range| {
        async move { tasks_of(&context.sources, range).await }.boxed()
    })
}

/// Reads the rows of a range of jobs.
type ReadRange<R> =
    fn(Arc<ScanContext>, RangeInclusive<JobId>) -> BoxFuture<'static, Result<Vec<R>, Error>>;

fn by_ranges<R: Send + 'static>(context: Arc<ScanContext>, read: ReadRange<R>) -> Chunks<R> {
    let ranges = {
        let context = context.clone();
        stream::once(async move {
            job_ranges(&context)
                .await
                .map(|ranges| stream::iter(ranges.into_iter().map(Ok)))
        })
    };
    let descending = context.request.descending();
    ranges
        .try_flatten()
        .and_then(move |range| read(context.clone(), range))
        .map_ok(move |mut rows| {
            if descending {
                rows.reverse();
            }
            rows
        })
        .boxed()
}

async fn events_of(
    context: &ScanContext,
    range: RangeInclusive<JobId>,
) -> Result<Vec<JobEventsRow>, Error> {
    let events = context.sources.store.events(range.clone()).await?;
    // Only sentences name tablets.
    let tasks = if context.request.needs("detail") {
        context.sources.store.tasks(range).await?
    } else {
        Vec::new()
    };
    let tablets: HashMap<_, TabletId> = tasks
        .iter()
        .map(|t| ((t.job_id, t.kind, t.task_id), t.tablet_id))
        .collect();
    let row = |e: EventRow| {
        let tablet = |kind, task| tablets.get(&(e.job_id, kind, task)).copied();
        // One that a later version wrote is shown as it is.
        let read = serde_json::from_str::<JobEvent>(&e.event).ok();
        JobEventsRow {
            job_id: e.job_id.0.into(),
            seq: e.seq.into(),
            at: e.at.into(),
            from_state: e.from_state.into(),
            to_state: e.to_state.into(),
            actor: read
                .as_ref()
                .map_or(Actor::Runner, JobEvent::actor)
                .name()
                .into(),
            detail: read
                .map_or_else(|| e.event.clone(), |event| event.sentence(&tablet))
                .into(),
            event: e.event.into(),
        }
    };
    Ok(events.into_iter().map(row).collect())
}

async fn tasks_of(
    sources: &Sources,
    range: RangeInclusive<JobId>,
) -> Result<Vec<JobTasksRow>, Error> {
    let mut notes: BTreeMap<JobId, Notes> = BTreeMap::new();
    let mut out = Vec::new();
    for task in sources.store.tasks(range).await? {
        let notes = notes
            .entry(task.job_id)
            .or_insert_with(|| sources.progress.notes(task.job_id));
        let note = notes.tasks.get(&task.task_id).cloned().unwrap_or_default();
        let done = if task.finished { task.done } else { note.done };
        let state = match (task.finished, note.attempts) {
            (true, _) => "finished",
            (false, 0) => "waiting",
            (false, _) => "running",
        };
        out.push(JobTasksRow {
            job_id: task.job_id.0.into(),
            task_id: task.task_id.0.into(),
            kind: task.kind.name().into(),
            backend_id: task.backend_id.0.into(),
            tablet_id: task.tablet_id.0.into(),
            state: state.into(),
            attempts: i64::from(note.attempts.max(u32::from(task.finished))).into(),
            files_total: task.planned.files.into(),
            files_done: done.files.into(),
            bytes_total: task.planned.bytes.into(),
            bytes_done: done.bytes.into(),
            error: note.error.filter(|_| !task.finished).into(),
        });
    }
    Ok(out)
}
