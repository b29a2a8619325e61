//! What one append to a job's journal writes: events that came together, the job after them, and
//! the rows that follow.

use super::{
    BackupEvent, BackupState, IllegalEvent, Job, JobEvent, JobState, Phase, RestoreEvent,
    RestoreState, TaskKind, TaskRow, Transfer, Version,
};
use super::{TabletId, TaskId, Timestamp};

/// Events that are appended together, or not at all.
#[derive(Clone, Debug)]
pub struct Delta {
    /// How many events the journal has before them.
    pub expected: Version,
    pub job: Job,
    pub entries: Vec<Entry>,
    /// The rows of the tasks that they added or changed, the last state of each last.
    pub tasks: Vec<TaskRow>,
}

/// An event, with the phases around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub event: JobEvent,
    pub at: Timestamp,
    pub from: Phase,
    pub to: Phase,
}

impl Delta {
    /// Nothing yet, to this job.
    pub fn of(job: &Job) -> Self {
        Self {
            expected: job.version,
            job: job.clone(),
            entries: Vec::new(),
            tasks: Vec::new(),
        }
    }

    /// Adds an event; one that cannot happen after those before it changes nothing.
    pub fn push(&mut self, event: JobEvent, at: Timestamp) -> Result<(), IllegalEvent> {
        let from = self.job.phase();
        let rows = self.job.rows_after(&event);
        self.job.apply(&event, at)?;
        self.tasks.extend(rows);
        self.entries.push(Entry {
            event,
            at,
            from,
            to: self.job.phase(),
        });
        Ok(())
    }

    pub fn one(job: &Job, event: JobEvent, at: Timestamp) -> Result<Self, IllegalEvent> {
        let mut delta = Self::of(job);
        delta.push(event, at)?;
        Ok(delta)
    }
}

impl Job {
    /// The rows of the tasks that an event will add or change; the state before it still knows what
    /// the task is about.
    fn rows_after(&self, event: &JobEvent) -> Vec<TaskRow> {
        match (&self.state, event) {
            (_, JobEvent::Backup(BackupEvent::Planned { plan })) => {
                let rows = plan.snapshot_tasks().map(|(task, t)| {
                    TaskRow::new(self.id, task, TaskKind::Snapshot, t.assignment())
                });
                rows.collect()
            }
            (_, JobEvent::Restore(RestoreEvent::Planned { plan })) => {
                let rows = plan.prepare_tasks().map(|(task, t)| {
                    TaskRow::new(self.id, task, TaskKind::Prepare, t.assignment())
                });
                rows.collect()
            }
            (_, JobEvent::Backup(BackupEvent::UploadPlanned { tasks })) => tasks
                .iter()
                .map(|task| TaskRow::of_transfer(self.id, TaskKind::Upload, task))
                .collect(),
            (_, JobEvent::Restore(RestoreEvent::DownloadPlanned { tasks })) => tasks
                .iter()
                .map(|task| TaskRow::of_transfer(self.id, TaskKind::Download, task))
                .collect(),
            (
                JobState::Backup(BackupState::Snapshoting { plan, .. }),
                JobEvent::Backup(BackupEvent::Snapshoted { task, .. }),
            ) => {
                let row = |t: &super::PlannedTablet| {
                    TaskRow::new(self.id, *task, TaskKind::Snapshot, t.assignment())
                };
                self.finished(plan.tablet(tablet_of(*task)).map(row), Transfer::default())
            }
            (
                JobState::Restore(RestoreState::Snapshoting { plan, .. }),
                JobEvent::Restore(RestoreEvent::Prepared { task }),
            ) => {
                let row = |t: &super::TargetTablet| {
                    TaskRow::new(self.id, *task, TaskKind::Prepare, t.assignment())
                };
                self.finished(plan.tablet(tablet_of(*task)).map(row), Transfer::default())
            }
            (
                JobState::Backup(BackupState::Uploading { tasks, .. }),
                JobEvent::Backup(BackupEvent::Uploaded { task, transfer }),
            ) => {
                let row = super::transfer_task(tasks, *task)
                    .map(|task| TaskRow::of_transfer(self.id, TaskKind::Upload, task));
                self.finished(row, *transfer)
            }
            (
                JobState::Restore(RestoreState::Downloading { tasks, .. }),
                JobEvent::Restore(RestoreEvent::Downloaded { task, transfer }),
            ) => {
                let row = super::transfer_task(tasks, *task)
                    .map(|task| TaskRow::of_transfer(self.id, TaskKind::Download, task));
                self.finished(row, *transfer)
            }
            _ => Vec::new(),
        }
    }

    fn finished(&self, row: Option<TaskRow>, transfer: Transfer) -> Vec<TaskRow> {
        row.map(|row| TaskRow {
            finished: true,
            done: transfer.total,
            ..row
        })
        .into_iter()
        .collect()
    }
}

/// The tablet of a task that is named by its tablet.
fn tablet_of(task: TaskId) -> TabletId {
    TabletId(task.0)
}
