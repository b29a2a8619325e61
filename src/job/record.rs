//! The course of a job, for people: times and sums.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{
    BackupEvent, BackupState, Control, ExternalEvent, ExternalState, Failure, Machine,
    MovedPartition, Phase, PruneEvent, RestoreEvent, RestoreState, Selection, SlotStatus,
    StagedEvent, Transfer, VerifyEvent, Volume, volume_of,
};
use crate::names::{BackupTimestamp, TableName, Timestamp};

/// What is known about the course of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub started_at: Option<Timestamp>,
    /// A restore's plan was made.
    pub meta_prepared_at: Option<Timestamp>,
    /// The end of SNAPSHOTING.
    pub snapshot_finished_at: Option<Timestamp>,
    /// The end of UPLOADING or DOWNLOADING.
    pub transfer_finished_at: Option<Timestamp>,
    /// FINISHED or CANCELLED.
    pub finished_at: Option<Timestamp>,
    /// Why it was cancelled, refused or lost.
    pub failure: Option<Failure>,
    /// The timestamp of a backup that another cluster made, once it is known.
    pub backup_timestamp: Option<BackupTimestamp>,
    /// When another cluster's slot was looked at before its statement was sent.
    pub looked_at: Option<Timestamp>,
    /// How often a job went back into the queue because somebody else was faster.
    pub requeues: u32,
    pub tasks_total: u64,
    pub tasks_done: u64,
    /// The fewest replicas that a restored table has, known with the plan.
    pub replication_num: Option<u16>,
    /// What the tasks so far are to move.
    pub planned: Volume,
    /// What the finished ones have moved.
    pub moved: Transfer,
    pub control: Control,
    /// What a backup of another cluster takes, as far as that was looked at.
    pub selection: Option<Arc<Selection>>,
    /// Restored tables whose dynamic partitioning is turned off until they are in their places.
    pub dynamic: BTreeSet<TableName>,
    /// What of it has moved meanwhile, once that was looked at.
    pub moved_partitions: Option<Arc<BTreeSet<MovedPartition>>>,
}

impl Record {
    fn plan_tasks(&mut self, planned: impl Iterator<Item = Volume>) {
        for volume in planned {
            self.tasks_total += 1;
            self.planned.add(volume);
        }
    }

    fn finish_task(&mut self, moved: Transfer) {
        self.tasks_done += 1;
        self.moved.total.add(moved.total);
        self.moved.new.add(moved.new);
    }

    pub(super) fn note_backup(
        &mut self,
        event: &BackupEvent,
        was: Phase,
        now: &BackupState,
        at: Timestamp,
    ) {
        match event {
            BackupEvent::Planned { plan } => {
                self.plan_tasks(plan.tablets().map(|_| Volume::default()))
            }
            BackupEvent::Snapshoted { .. } => self.finish_task(Transfer::default()),
            BackupEvent::UploadPlanned { tasks } => {
                self.plan_tasks(tasks.iter().map(|t| t.planned))
            }
            BackupEvent::Uploaded { transfer, .. } => self.finish_task(*transfer),
            BackupEvent::Cancelled { failure }
            | BackupEvent::Displaced { failure }
            | BackupEvent::Lost { failure } => {
                self.failure = Some(failure.clone());
            }
            BackupEvent::MetaSaved { .. } | BackupEvent::Published | BackupEvent::Released => {}
        }
        if was == Phase::Snapshoting && now.phase() == Phase::UploadSnapshot {
            self.snapshot_finished_at = Some(at);
        }
        if was != Phase::SaveMeta && now.phase() == Phase::SaveMeta {
            self.transfer_finished_at = Some(at);
        }
    }

    pub(super) fn note_external(
        &mut self,
        event: &ExternalEvent,
        now: &ExternalState,
        at: Timestamp,
    ) {
        if let ExternalEvent::Observed { timestamp, .. } | ExternalEvent::Confirmed { timestamp } =
            event
        {
            self.backup_timestamp = timestamp.clone().or(self.backup_timestamp.take());
        }
        match event {
            ExternalEvent::Looked { selection, .. } => {
                self.looked_at = Some(at);
                self.selection = selection.clone();
            }
            ExternalEvent::Unchanged { selection } => {
                self.selection = Some(selection.clone());
                self.moved_partitions = Some(Arc::default());
                // The cluster has given it none.
                self.backup_timestamp = Some(BackupTimestamp::of(at));
            }
            ExternalEvent::Observed {
                moved: Some(moved), ..
            } => self.moved_partitions = Some(moved.clone()),
            ExternalEvent::RequeuedBusy => self.requeues += 1,
            _ => {}
        }
        self.failure = match now {
            ExternalState::Cancelled { failure, .. }
            | ExternalState::Refused { failure }
            | ExternalState::Lost { failure, .. } => Some(failure.clone()),
            _ => None,
        };
        // Phases pass between two looks; a later one says that an earlier one is over.
        if let Some(phase) = now
            .seen()
            .map(SlotStatus::phase)
            .filter(|phase| *phase != Phase::Cancelled)
        {
            let reached = |from: Phase, slot: &mut Option<Timestamp>| {
                if phase >= from {
                    slot.get_or_insert(at);
                }
            };
            reached(Phase::Snapshoting, &mut self.meta_prepared_at);
            reached(Phase::UploadSnapshot, &mut self.snapshot_finished_at);
            reached(Phase::SaveMeta, &mut self.transfer_finished_at);
        }
    }

    pub(super) fn note_prune(&mut self, event: &PruneEvent) {
        match event {
            PruneEvent::Planned { candidates, .. } => self.planned = volume_of(candidates),
            PruneEvent::Deleted { pruned, .. } => self.moved.total = pruned.deleted,
            PruneEvent::Cancelled { failure } => self.failure = Some(failure.clone()),
            PruneEvent::Marked
            | PruneEvent::Waited
            | PruneEvent::Unmarked
            | PruneEvent::MarkLeft => {}
        }
    }

    pub(super) fn note_staged(&mut self, event: &StagedEvent, at: Timestamp) {
        match event {
            StagedEvent::Proved { steps, joins } => {
                self.meta_prepared_at = Some(at);
                self.snapshot_finished_at = Some(at);
                self.tasks_total = u64::from(*steps) + u64::from(*joins);
            }
            StagedEvent::Restored { dynamic, .. } => {
                self.tasks_done += 1;
                self.dynamic.extend(dynamic.iter().cloned());
            }
            StagedEvent::Joined { .. } => self.tasks_done += 1,
            StagedEvent::Counted { .. } => self.transfer_finished_at = Some(at),
            StagedEvent::Cancelled { failure }
            | StagedEvent::SwapRefused { failure }
            | StagedEvent::Lost { failure } => self.failure = Some(failure.clone()),
            StagedEvent::Swapped | StagedEvent::Released { .. } => {}
        }
    }

    pub(super) fn note_verify(&mut self, event: &VerifyEvent) {
        match event {
            VerifyEvent::Planned { plan } => {
                let restores = if plan.restores { plan.backups.len() } else { 0 };
                self.tasks_total = u64::from(plan.parts) + restores as u64;
                self.planned = plan.files;
            }
            VerifyEvent::Checked { checked, .. } => self.finish_task(Transfer {
                total: checked.volume,
                new: Volume::default(),
            }),
            VerifyEvent::Restored { .. } => self.tasks_done += 1,
            VerifyEvent::Cancelled { failure } => self.failure = Some(failure.clone()),
            VerifyEvent::Released => {}
        }
    }

    pub(super) fn note_restore(
        &mut self,
        event: &RestoreEvent,
        was: Phase,
        now: &RestoreState,
        at: Timestamp,
    ) {
        match event {
            RestoreEvent::Planned { plan } => {
                self.meta_prepared_at = Some(at);
                self.replication_num = plan.tables.iter().map(|t| t.replication_num).min();
                self.plan_tasks(plan.tablets().map(|_| Volume::default()));
            }
            RestoreEvent::Prepared { .. } => self.finish_task(Transfer::default()),
            RestoreEvent::DownloadPlanned { tasks } => {
                self.plan_tasks(tasks.iter().map(|t| t.planned))
            }
            RestoreEvent::Downloaded { transfer, .. } => self.finish_task(*transfer),
            RestoreEvent::Cancelled { failure } | RestoreEvent::SwapRefused { failure } => {
                self.failure = Some(failure.clone())
            }
            RestoreEvent::Verified | RestoreEvent::Swapped | RestoreEvent::Released => {}
        }
        if was == Phase::Snapshoting && now.phase() == Phase::Download {
            self.snapshot_finished_at = Some(at);
        }
        if was != Phase::Commit && now.phase() == Phase::Commit {
            self.transfer_finished_at = Some(at);
        }
    }
}
