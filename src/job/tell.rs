//! Events as sentences, and who made them: what `system.job_events` shows.

use super::{
    BackupEvent, BackupPlan, CancelCause, DropEvent, ExternalEvent, Failure, JobEvent, PruneEvent,
    RestoreEvent, RestorePlan, StagedEvent, TaskKind, Transfer, VerifyEvent, Volume, volume_of,
};
use crate::names::{TabletId, TaskId};

/// The tablet that a task is about, if it is known.
type TabletOf<'a> = &'a dyn Fn(TaskKind, TaskId) -> Option<TabletId>;

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

fn files(volume: Volume) -> String {
    format!(
        "{}, {} bytes",
        count(usize::try_from(volume.files).unwrap_or(usize::MAX), "file"),
        volume.bytes
    )
}

fn tablet(of: TabletOf<'_>, kind: TaskKind, task: TaskId) -> String {
    of(kind, task).map_or_else(
        || format!("task {task}"),
        |tablet| format!("tablet {tablet}"),
    )
}

fn moved(verb: &str, what: &str, transfer: &Transfer) -> String {
    let there = if transfer.new == transfer.total {
        String::new()
    } else if transfer.new.files == 0 {
        ", all there already".to_owned()
    } else {
        format!(", {} of them new", transfer.new.files)
    };
    format!("{verb} {what}: {}{there}", files(transfer.total))
}

fn planned_backup(plan: &BackupPlan) -> String {
    let mut volume = Volume::default();
    plan.tablets()
        .for_each(|t| volume.add(Volume::of(&t.files)));
    let views = if plan.views.is_empty() {
        String::new()
    } else {
        format!(", {}", count(plan.views.len(), "view"))
    };
    let (tables, tablets) = (
        count(plan.tables.len(), "table"),
        count(plan.tablets().count(), "tablet"),
    );
    format!("planned {tables}{views}, {tablets}: {}", files(volume))
}

fn planned_restore(plan: &RestorePlan) -> String {
    let mut volume = Volume::default();
    plan.tablets()
        .for_each(|t| volume.add(Volume::of(&t.files)));
    let views = if plan.views.is_empty() {
        String::new()
    } else {
        format!(", {}", count(plan.views.len(), "view"))
    };
    let (tables, tablets) = (
        count(plan.tables.len(), "table"),
        count(plan.tablets().count(), "tablet"),
    );
    format!("planned {tables}{views}, {tablets}: {}", files(volume))
}

fn ended(failure: &Failure) -> String {
    match failure.cause {
        Some(CancelCause::User | CancelCause::Dropped) => failure.message.clone(),
        Some(CancelCause::Timeout) if failure.message.is_empty() => "its time was over".to_owned(),
        Some(CancelCause::Timeout) => {
            format!("its time was over; the last error: {}", failure.message)
        }
        None => format!("failed: {}", failure.message),
    }
}

/// Who made something happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    User,
    /// Another system, of which it is told what it says.
    Cluster,
    Runner,
}

impl Actor {
    /// As `system.job_events` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Cluster => "cluster",
            Self::Runner => "runner",
        }
    }
}

impl JobEvent {
    /// What has happened, for people.
    pub fn sentence(&self, of: TabletOf<'_>) -> String {
        match self {
            Self::Backup(event) => event.sentence(of),
            Self::Restore(event) => event.sentence(of),
            Self::External(event) => event.sentence(),
            Self::DropSnapshot(event) => event.sentence(),
            Self::Verify(event) => event.sentence(),
            Self::Prune(event) => event.sentence(),
            Self::Staged(event) => event.sentence(),
            Self::Control(event) => event.sentence(),
        }
    }

    /// Who made it happen.
    pub fn actor(&self) -> Actor {
        let failure = match self {
            Self::Backup(
                BackupEvent::Cancelled { failure }
                | BackupEvent::Lost { failure }
                | BackupEvent::Displaced { failure },
            )
            | Self::Restore(
                RestoreEvent::Cancelled { failure } | RestoreEvent::SwapRefused { failure },
            )
            | Self::DropSnapshot(DropEvent::Cancelled { failure } | DropEvent::Lost { failure })
            | Self::Verify(VerifyEvent::Cancelled { failure })
            | Self::Prune(PruneEvent::Cancelled { failure })
            | Self::Staged(StagedEvent::Cancelled { failure } | StagedEvent::Lost { failure }) => {
                failure
            }
            Self::Staged(StagedEvent::SwapRefused { .. }) => return Actor::Cluster,
            Self::External(event) => match &**event {
                ExternalEvent::Cancelled { failure } | ExternalEvent::Lost { failure } => failure,
                ExternalEvent::Accepted { .. }
                | ExternalEvent::Refused { .. }
                | ExternalEvent::Observed { .. } => return Actor::Cluster,
                _ => return Actor::Runner,
            },
            Self::Control(event) => return event.actor(),
            // Only somebody who says FORCE leaves a mark.
            Self::Prune(PruneEvent::MarkLeft) => return Actor::User,
            _ => return Actor::Runner,
        };
        match failure.cause {
            Some(CancelCause::User | CancelCause::Dropped) => Actor::User,
            Some(CancelCause::Timeout) | None => Actor::Runner,
        }
    }
}

impl BackupEvent {
    fn sentence(&self, of: TabletOf<'_>) -> String {
        match self {
            Self::Planned { plan } => planned_backup(plan),
            Self::Snapshoted { task, backend_id } => {
                format!(
                    "linked the files of {} on backend {backend_id}",
                    tablet(of, TaskKind::Snapshot, *task)
                )
            }
            Self::UploadPlanned { tasks } => format!("{} to upload", count(tasks.len(), "tablet")),
            Self::Uploaded { task, transfer } => {
                moved("uploaded", &tablet(of, TaskKind::Upload, *task), transfer)
            }
            Self::MetaSaved { .. } => "fixed the manifest's content".to_owned(),
            Self::Published => "put the manifest: the backup exists".to_owned(),
            Self::Displaced { failure } => {
                format!("another's manifest is in its place: {}", failure.message)
            }
            Self::Lost { failure } => {
                format!("given up, its manifest may be there: {}", failure.message)
            }
            Self::Cancelled { failure } => ended(failure),
            Self::Released => "let go of pins and links".to_owned(),
        }
    }
}

impl RestoreEvent {
    fn sentence(&self, of: TabletOf<'_>) -> String {
        match self {
            Self::Planned { plan } => planned_restore(plan),
            Self::Prepared { task } => {
                format!("made room for {}", tablet(of, TaskKind::Prepare, *task))
            }
            Self::DownloadPlanned { tasks } => {
                format!("{} to download", count(tasks.len(), "tablet"))
            }
            Self::Downloaded { task, transfer } => moved(
                "downloaded",
                &tablet(of, TaskKind::Download, *task),
                transfer,
            ),
            Self::Verified => "looked at every file: all are in their places".to_owned(),
            Self::Swapped => "made the restored data visible".to_owned(),
            Self::SwapRefused { failure } => format!(
                "the metastore refused to make it visible: {}",
                failure.message
            ),
            Self::Cancelled { failure } => ended(failure),
            Self::Released => "let go of reservations and remains".to_owned(),
        }
    }
}

impl ExternalEvent {
    fn sentence(&self) -> String {
        match self {
            Self::TurnCame => "its turn has come".to_owned(),
            Self::Looked { before: None, .. } => {
                "looked at the database's slot: it is empty".to_owned()
            }
            Self::Looked {
                before: Some(_), ..
            } => "looked at the database's slot: it holds an older job".to_owned(),
            Self::Unchanged { selection } => match &selection.contents.base {
                Some(base) => format!("nothing has changed since snapshot {base}: nothing is sent"),
                None => "nothing is to be sent".to_owned(),
            },
            Self::Accepted { .. } => "the cluster has the job".to_owned(),
            Self::Refused { failure } => format!("the cluster refused: {}", failure.message),
            Self::RequeuedBusy => "somebody else's job came first; it waits again".to_owned(),
            Self::Observed { seen, .. } if seen.status.is_empty() => {
                format!("seen in {}", seen.state)
            }
            Self::Observed { seen, .. } => format!("seen in {}: {}", seen.state, seen.status),
            Self::Confirmed {
                timestamp: Some(timestamp),
            } => format!("its snapshot is in the repository, as of {timestamp}"),
            Self::Confirmed { timestamp: None } => "its snapshot is in the repository".to_owned(),
            Self::Lost { failure } => {
                format!("the cluster does not know it any more: {}", failure.message)
            }
            Self::Cancelled { failure } => ended(failure),
        }
    }
}

impl DropEvent {
    fn sentence(&self) -> String {
        match self {
            Self::Checked { timestamps } => {
                format!("{} to delete", count(timestamps.len(), "backup"))
            }
            Self::Deleted => "deleted their manifests".to_owned(),
            Self::Cancelled { failure } => ended(failure),
            Self::Lost { failure } => format!("lost: {}", failure.message),
        }
    }
}

impl PruneEvent {
    fn sentence(&self) -> String {
        match self {
            Self::Planned {
                candidates,
                dry_run,
            } => {
                let verb = if *dry_run {
                    "would delete"
                } else {
                    "to delete, unless needed by then"
                };
                format!("{verb}: {}", files(volume_of(candidates)))
            }
            Self::Marked => "announced what is to be deleted".to_owned(),
            Self::Waited => "waited for those who had not seen that".to_owned(),
            Self::Deleted { pruned, .. } => format!(
                "deleted {}; kept {}",
                files(pruned.deleted),
                files(pruned.kept)
            ),
            Self::Unmarked => "took the announcement away".to_owned(),
            Self::MarkLeft => {
                "left the announcement where it is; it is heeded for a day at most".to_owned()
            }
            Self::Cancelled { failure } => ended(failure),
        }
    }
}

impl StagedEvent {
    fn sentence(&self) -> String {
        match self {
            Self::Proved { steps, .. } => {
                format!("{} needed, all whole", count(*steps as usize, "snapshot"))
            }
            Self::Restored { job_id, .. } => {
                format!("job {job_id} has restored a snapshot beside what is there")
            }
            Self::Joined { rows } => format!(
                "put a part of a table into the other one: {}",
                count(*rows as usize, "row")
            ),
            Self::Counted { tables } => {
                let rows = tables.iter().map(|table| table.rows).sum::<u64>();
                let tables = count(tables.len(), "table");
                format!(
                    "read what was restored: {tables}, {}",
                    count(rows as usize, "row")
                )
            }
            Self::Swapped => "put a table into its place".to_owned(),
            Self::SwapRefused { failure } => format!(
                "the cluster would not put it into its place: {}",
                failure.message
            ),
            Self::Cancelled { failure } => ended(failure),
            Self::Lost { failure } => format!(
                "given up, some tables may be in their places: {}",
                failure.message
            ),
            Self::Released { dropped } if dropped.is_empty() => {
                "nothing was to be dropped".to_owned()
            }
            Self::Released { dropped } => format!("dropped {}", dropped.join(", ")),
        }
    }
}

impl VerifyEvent {
    fn sentence(&self) -> String {
        match self {
            Self::Planned { plan } => {
                let found = count(plan.findings.count() as usize, "finding");
                let backups = count(plan.backups.len(), "backup");
                format!("read {backups}: {}; {found} so far", files(plan.files))
            }
            Self::Checked { checked, .. } => format!(
                "looked at {}: {}",
                files(checked.volume),
                count(checked.findings.count() as usize, "finding")
            ),
            Self::Restored { restored, .. } => match (restored.job_id, restored.took_ms) {
                (Some(job), Some(took)) => format!(
                    "job {job} restored a backup in {took} ms; read {}, {}: {}",
                    files(restored.volume),
                    count(restored.rows as usize, "row"),
                    count(restored.findings.count() as usize, "finding")
                ),
                (Some(job), None) => format!("job {job} could not restore a backup"),
                (None, _) => "a backup was dropped before it was restored".to_owned(),
            },
            Self::Cancelled { failure } => ended(failure),
            Self::Released => "dropped what was being restored".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{ControlEvent, Speaker};
    use crate::names::{BackendId, JobId};

    #[test]
    fn events_are_sentences_with_tablets_and_actors() {
        let of = |kind, task: TaskId| {
            (kind == TaskKind::Upload && task == TaskId(3)).then_some(TabletId(10_007))
        };
        let volume = |files, bytes| Volume { files, bytes };
        let uploaded = |task, new| BackupEvent::Uploaded {
            task,
            transfer: Transfer {
                total: volume(2, 1206),
                new,
            },
        };
        let told = |event: BackupEvent| JobEvent::Backup(event).sentence(&of);
        assert_eq!(
            told(uploaded(TaskId(3), volume(2, 1206))),
            "uploaded tablet 10007: 2 files, 1206 bytes"
        );
        assert_eq!(
            told(uploaded(TaskId(3), volume(1, 6))),
            "uploaded tablet 10007: 2 files, 1206 bytes, 1 of them new"
        );
        assert_eq!(
            told(uploaded(TaskId(4), volume(0, 0))),
            "uploaded task 4: 2 files, 1206 bytes, all there already"
        );
        let linked = BackupEvent::Snapshoted {
            task: TaskId(1),
            backend_id: BackendId(2),
        };
        assert_eq!(told(linked), "linked the files of task 1 on backend 2");
        // A message that only reads like a user's is none.
        let by_user = BackupEvent::Cancelled {
            failure: Failure::user_cancelled(None),
        };
        let alike = Failure {
            cause: None,
            ..Failure::user_cancelled(None)
        };
        assert_eq!(JobEvent::Backup(by_user).actor(), Actor::User);
        assert_eq!(
            JobEvent::Backup(BackupEvent::Cancelled { failure: alike }).actor(),
            Actor::Runner
        );
        let paused = |by| JobEvent::Control(ControlEvent::Paused { by });
        assert_eq!(paused(Speaker::User("u".into())).actor(), Actor::User);
        assert_eq!(
            paused(Speaker::Job { job: JobId(4) }).actor(),
            Actor::Runner
        );
        assert_eq!(
            paused(Speaker::Job { job: JobId(4) }).sentence(&of),
            "paused by job 4"
        );
        assert_eq!(
            told(BackupEvent::Cancelled {
                failure: Failure::timeout(None)
            }),
            "its time was over"
        );
    }
}
