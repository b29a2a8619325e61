//! The backup machine: PENDING → SNAPSHOTING → UPLOAD_SNAPSHOT → UPLOADING → SAVE_META →
//! UPLOAD_INFO → FINISHED | CANCELLED.
//!
//! The manifest put is the commit, so UPLOAD_INFO is the point of no return: from there nothing is
//! cancelled, only retried.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::data::*;
use super::tasks::TasksLeft;
use super::{End, IllegalEvent, Machine, Phase};
use crate::names::{BackendId, TaskId, Timestamp};

/// The phases, each with what it needs and nothing else. The names are StarRocks' own.
#[derive(Clone, Debug, PartialEq)]
pub enum BackupState {
    /// Nothing is decided yet.
    Pending,
    /// Files are being pinned.
    Snapshoting {
        plan: Arc<BackupPlan>,
        /// Tasks not done yet.
        left: TasksLeft,
    },
    /// All files are pinned.
    UploadSnapshot { plan: Arc<BackupPlan> },
    /// Files are on their way.
    Uploading {
        plan: Arc<BackupPlan>,
        tasks: Arc<Vec<TransferTask>>,
        /// Tasks not done yet.
        left: TasksLeft,
    },
    /// All files are in the repository.
    SaveMeta { plan: Arc<BackupPlan> },
    /// The manifest's content is decided; it may or may not be in the repository.
    UploadInfo {
        plan: Arc<BackupPlan>,
        manifest: ManifestDigest,
        /// The time in the manifest.
        saved_at: Timestamp,
    },
    /// The backup exists.
    Finished {
        /// Whether pins are gone.
        released: bool,
    },
    /// Whether the backup exists is not known: the job was given up past its commit.
    Lost {
        failure: Failure,
        /// Whether pins are gone.
        released: bool,
    },
    /// The backup does not and will not exist.
    Cancelled {
        failure: Failure,
        /// Whether pins are gone.
        released: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackupCommand {
    /// Fix what goes into the backup, and pin it.
    Plan,
    /// Link one tablet's files.
    Snapshot(TaskId),
    /// Divide the work.
    PlanUpload,
    /// Bring one tablet's files to the repository.
    Upload(TaskId),
    /// Fix the manifest's content.
    SaveMeta,
    /// Put the manifest.
    Publish,
    /// Let go of pins and links.
    Release,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupEvent {
    /// The content is fixed.
    Planned {
        plan: Arc<BackupPlan>,
    },
    /// One tablet's files are linked.
    Snapshoted {
        task: TaskId,
        /// The backend whose replica was taken.
        backend_id: BackendId,
    },
    UploadPlanned {
        tasks: Arc<Vec<TransferTask>>,
    },
    /// One tablet's files are in the repository.
    Uploaded {
        task: TaskId,
        transfer: Transfer,
    },
    /// The manifest's content is fixed.
    MetaSaved {
        manifest: ManifestDigest,
        /// The time in the manifest.
        saved_at: Timestamp,
    },
    /// The manifest is in the repository.
    Published,
    /// Something else stands in the manifest's place, so that it will never be there.
    Displaced {
        failure: Failure,
    },
    /// The job was given up while nobody could know whether its manifest is there.
    Lost {
        /// By whom.
        failure: Failure,
    },
    Cancelled {
        failure: Failure,
    },
    /// Pins and links are gone.
    Released,
}

impl BackupEvent {
    /// Its name, for `system.job_events`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "planned",
            Self::Snapshoted { .. } => "snapshoted",
            Self::UploadPlanned { .. } => "upload_planned",
            Self::Uploaded { .. } => "uploaded",
            Self::MetaSaved { .. } => "meta_saved",
            Self::Published => "published",
            Self::Displaced { .. } => "displaced",
            Self::Lost { .. } => "lost",
            Self::Cancelled { .. } => "cancelled",
            Self::Released => "released",
        }
    }
}

impl Machine for BackupState {
    type Command = BackupCommand;
    type Event = BackupEvent;

    fn phase(&self) -> Phase {
        match self {
            Self::Pending => Phase::Pending,
            Self::Snapshoting { .. } => Phase::Snapshoting,
            Self::UploadSnapshot { .. } => Phase::UploadSnapshot,
            Self::Uploading { .. } => Phase::Uploading,
            Self::SaveMeta { .. } => Phase::SaveMeta,
            Self::UploadInfo { .. } => Phase::UploadInfo,
            Self::Finished { .. } => Phase::Finished,
            Self::Cancelled { .. } => Phase::Cancelled,
            Self::Lost { .. } => Phase::Lost,
        }
    }

    fn commands(&self) -> Vec<BackupCommand> {
        match self {
            Self::Pending => vec![BackupCommand::Plan],
            Self::Snapshoting { left, .. } => left.iter().map(BackupCommand::Snapshot).collect(),
            Self::UploadSnapshot { .. } => vec![BackupCommand::PlanUpload],
            Self::Uploading { left, .. } => left.iter().map(BackupCommand::Upload).collect(),
            Self::SaveMeta { .. } => vec![BackupCommand::SaveMeta],
            Self::UploadInfo { .. } => vec![BackupCommand::Publish],
            Self::Finished { released }
            | Self::Cancelled { released, .. }
            | Self::Lost { released, .. } => {
                if *released {
                    Vec::new()
                } else {
                    vec![BackupCommand::Release]
                }
            }
        }
    }

    fn end(&self) -> Option<End> {
        match self {
            Self::Finished { .. } => Some(End::Finished),
            Self::Cancelled { failure, .. } => Some(failure.end()),
            Self::Lost { .. } => Some(End::Lost),
            _ => None,
        }
    }

    /// Whether the commit cannot have happened yet.
    fn can_cancel(&self) -> bool {
        self.end().is_none() && !matches!(self, Self::UploadInfo { .. })
    }

    fn allows(&self, command: BackupCommand) -> bool {
        match (self, command) {
            (Self::Snapshoting { left, .. }, BackupCommand::Snapshot(task))
            | (Self::Uploading { left, .. }, BackupCommand::Upload(task)) => left.contains(task),
            (Self::Snapshoting { .. } | Self::Uploading { .. }, _) => false,
            _ => self.commands().contains(&command),
        }
    }

    fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Finished { released: true }
                | Self::Cancelled { released: true, .. }
                | Self::Lost { released: true, .. }
        )
    }

    /// One match: the only way a state changes.
    fn apply(&mut self, event: &BackupEvent) -> Result<(), IllegalEvent> {
        use BackupEvent as E;
        let next = match (&mut *self, event) {
            (Self::Pending, E::Planned { plan }) => {
                let left = TasksLeft::all(plan.snapshot_tasks().map(|(task, _)| task));
                Self::snapshoting(plan.clone(), left)
            }
            (Self::Snapshoting { plan, left }, E::Snapshoted { task, .. })
                if left.contains(*task) =>
            {
                left.finish(*task);
                if !left.is_empty() {
                    return Ok(());
                }
                Self::UploadSnapshot { plan: plan.clone() }
            }
            (Self::UploadSnapshot { plan }, E::UploadPlanned { tasks }) => {
                let left = TasksLeft::all(tasks.iter().map(|t| t.task_id));
                Self::uploading(plan.clone(), tasks.clone(), left)
            }
            (Self::Uploading { plan, left, .. }, E::Uploaded { task, .. })
                if left.contains(*task) =>
            {
                left.finish(*task);
                if !left.is_empty() {
                    return Ok(());
                }
                Self::SaveMeta { plan: plan.clone() }
            }
            (Self::SaveMeta { plan }, E::MetaSaved { manifest, saved_at }) => Self::UploadInfo {
                plan: plan.clone(),
                manifest: manifest.clone(),
                saved_at: *saved_at,
            },
            (Self::UploadInfo { .. }, E::Published) => Self::Finished { released: false },
            (Self::UploadInfo { .. }, E::Displaced { failure }) => Self::Cancelled {
                failure: failure.clone(),
                released: false,
            },
            (Self::UploadInfo { .. }, E::Lost { failure }) => Self::Lost {
                failure: failure.clone(),
                released: false,
            },
            (
                Self::Finished { released }
                | Self::Cancelled { released, .. }
                | Self::Lost { released, .. },
                E::Released,
            ) if !*released => {
                *released = true;
                return Ok(());
            }
            (state, E::Cancelled { failure }) if state.can_cancel() => Self::Cancelled {
                failure: failure.clone(),
                released: false,
            },
            (state, event) => {
                return Err(IllegalEvent {
                    phase: state.phase(),
                    event: event.name(),
                });
            }
        };
        *self = next;
        Ok(())
    }
}

impl BackupState {
    fn snapshoting(plan: Arc<BackupPlan>, left: TasksLeft) -> Self {
        if left.is_empty() {
            Self::UploadSnapshot { plan }
        } else {
            Self::Snapshoting { plan, left }
        }
    }

    fn uploading(plan: Arc<BackupPlan>, tasks: Arc<Vec<TransferTask>>, left: TasksLeft) -> Self {
        if left.is_empty() {
            Self::SaveMeta { plan }
        } else {
            Self::Uploading { plan, tasks, left }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::data::tests::{digest, plan_of, transfers};

    fn failure() -> Failure {
        Failure::user_cancelled(None)
    }

    /// The full table: every state with every event, and what comes of it.
    #[test]
    fn every_state_takes_its_events_and_no_others() {
        let plan = Arc::new(plan_of(&[11, 12]));
        let tasks = Arc::new(transfers(&[11, 12]));
        let left = |ids: &[i64]| TasksLeft::all(ids.iter().map(|id| TaskId(*id)));
        let uploading = |ids| BackupState::Uploading {
            plan: plan.clone(),
            tasks: tasks.clone(),
            left: left(ids),
        };
        let states = [
            BackupState::Pending,
            BackupState::Snapshoting {
                plan: plan.clone(),
                left: left(&[11, 12]),
            },
            BackupState::Snapshoting {
                plan: plan.clone(),
                left: left(&[11]),
            },
            BackupState::UploadSnapshot { plan: plan.clone() },
            uploading(&[1, 2]),
            uploading(&[1]),
            BackupState::SaveMeta { plan: plan.clone() },
            BackupState::UploadInfo {
                plan: plan.clone(),
                manifest: digest(),
                saved_at: Timestamp(1),
            },
            BackupState::Finished { released: false },
            BackupState::Finished { released: true },
            BackupState::Cancelled {
                failure: failure(),
                released: false,
            },
            BackupState::Cancelled {
                failure: failure(),
                released: true,
            },
            BackupState::Lost {
                failure: failure(),
                released: false,
            },
            BackupState::Lost {
                failure: failure(),
                released: true,
            },
        ];
        let events = [
            BackupEvent::Planned { plan: plan.clone() },
            BackupEvent::Planned {
                plan: Arc::new(plan_of(&[])),
            },
            BackupEvent::Snapshoted {
                task: TaskId(11),
                backend_id: BackendId(1),
            },
            BackupEvent::UploadPlanned {
                tasks: tasks.clone(),
            },
            BackupEvent::UploadPlanned {
                tasks: Arc::default(),
            },
            BackupEvent::Uploaded {
                task: TaskId(1),
                transfer: Transfer::default(),
            },
            BackupEvent::MetaSaved {
                manifest: digest(),
                saved_at: Timestamp(1),
            },
            BackupEvent::Published,
            BackupEvent::Displaced { failure: failure() },
            BackupEvent::Lost { failure: failure() },
            BackupEvent::Cancelled { failure: failure() },
            BackupEvent::Released,
        ];
        let no = "";
        let (snap, up, can, fin) = ("SNAPSHOTING", "UPLOADING", "CANCELLED", "FINISHED");
        let expected = [
            // Planned ×2, Snapshoted, UploadPlanned ×2, Uploaded, MetaSaved, Published, Displaced,
            // Lost, Cancelled, Released
            [
                snap,
                "UPLOAD_SNAPSHOT",
                no,
                no,
                no,
                no,
                no,
                no,
                no,
                no,
                can,
                no,
            ],
            [no, no, snap, no, no, no, no, no, no, no, can, no],
            [
                no,
                no,
                "UPLOAD_SNAPSHOT",
                no,
                no,
                no,
                no,
                no,
                no,
                no,
                can,
                no,
            ],
            [no, no, no, up, "SAVE_META", no, no, no, no, no, can, no],
            [no, no, no, no, no, up, no, no, no, no, can, no],
            [no, no, no, no, no, "SAVE_META", no, no, no, no, can, no],
            [no, no, no, no, no, no, "UPLOAD_INFO", no, no, no, can, no],
            [no, no, no, no, no, no, no, fin, can, "LOST", no, no],
            [no, no, no, no, no, no, no, no, no, no, no, fin],
            [no; 12],
            [no, no, no, no, no, no, no, no, no, no, no, can],
            [no; 12],
            [no, no, no, no, no, no, no, no, no, no, no, "LOST"],
            [no; 12],
        ];
        crate::job::machine::tests::check_table(&states, &events, &expected);
        crate::job::machine::tests::check_names(&events, BackupEvent::name);
    }
}
