//! The backup machine: PENDING → SNAPSHOTING → UPLOAD_SNAPSHOT → UPLOADING → SAVE_META → UPLOAD_INFO → FINISHED | CANCELLED.
//!
//! The manifest put is the commit, so UPLOAD_INFO is the point of no return: from there nothing is cancelled, only retried.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::IllegalEvent;
use super::data::*;
use super::tasks::TasksLeft;
use crate::names::{BackendId, TaskId, Timestamp};

/// The phases, each with what it needs and nothing else. The names are StarRocks' own.
#[derive(Clone, Debug, PartialEq)]
pub enum BackupState {
    /// Nothing is decided yet.
    Pending,
    /// Files are being pinned.
    Snapshoting {
        /// What goes into the backup.
        plan: Arc<BackupPlan>,
        /// Tasks not done yet.
        left: TasksLeft,
    },
    /// All files are pinned.
    UploadSnapshot {
        /// What goes into the backup.
        plan: Arc<BackupPlan>,
    },
    /// Files are on their way.
    Uploading {
        /// What goes into the backup.
        plan: Arc<BackupPlan>,
        /// All tasks.
        tasks: Arc<Vec<TransferTask>>,
        /// Tasks not done yet.
        left: TasksLeft,
    },
    /// All files are in the repository.
    SaveMeta {
        /// What goes into the backup.
        plan: Arc<BackupPlan>,
    },
    /// The manifest's content is decided; it may or may not be in the repository.
    UploadInfo {
        /// What goes into the backup.
        plan: Arc<BackupPlan>,
        /// The manifest.
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
        /// What is known.
        failure: Failure,
        /// Whether pins are gone.
        released: bool,
    },
    /// The backup does not and will not exist.
    Cancelled {
        /// Why.
        failure: Failure,
        /// Whether pins are gone.
        released: bool,
    },
}

/// What may be done.
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

/// What can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupEvent {
    /// The content is fixed.
    Planned {
        /// It.
        plan: Arc<BackupPlan>,
    },
    /// One tablet's files are linked.
    Snapshoted {
        /// The task.
        task: TaskId,
        /// The backend whose replica was taken.
        backend_id: BackendId,
    },
    /// The work is divided.
    UploadPlanned {
        /// All tasks.
        tasks: Arc<Vec<TransferTask>>,
    },
    /// One tablet's files are in the repository.
    Uploaded {
        /// The task.
        task: TaskId,
        /// What it moved.
        transfer: Transfer,
    },
    /// The manifest's content is fixed.
    MetaSaved {
        /// The manifest.
        manifest: ManifestDigest,
        /// The time in the manifest.
        saved_at: Timestamp,
    },
    /// The manifest is in the repository.
    Published,
    /// Something else stands in the manifest's place, so that it will never be there.
    Displaced {
        /// What.
        failure: Failure,
    },
    /// The job was given up while nobody could know whether its manifest is there.
    Lost {
        /// By whom.
        failure: Failure,
    },
    /// The job is not carried on.
    Cancelled {
        /// Why.
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

impl BackupState {
    /// StarRocks' name of the phase.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Snapshoting { .. } => "SNAPSHOTING",
            Self::UploadSnapshot { .. } => "UPLOAD_SNAPSHOT",
            Self::Uploading { .. } => "UPLOADING",
            Self::SaveMeta { .. } => "SAVE_META",
            Self::UploadInfo { .. } => "UPLOAD_INFO",
            Self::Finished { .. } => "FINISHED",
            Self::Cancelled { .. } => "CANCELLED",
            Self::Lost { .. } => "LOST",
        }
    }

    /// What may run now, in parallel.
    pub fn commands(&self) -> Vec<BackupCommand> {
        match self {
            Self::Pending => vec![BackupCommand::Plan],
            Self::Snapshoting { left, .. } => left.iter().map(BackupCommand::Snapshot).collect(),
            Self::UploadSnapshot { .. } => vec![BackupCommand::PlanUpload],
            Self::Uploading { left, .. } => left.iter().map(BackupCommand::Upload).collect(),
            Self::SaveMeta { .. } => vec![BackupCommand::SaveMeta],
            Self::UploadInfo { .. } => vec![BackupCommand::Publish],
            Self::Finished { released } | Self::Cancelled { released, .. } | Self::Lost { released, .. } => {
                if *released {
                    Vec::new()
                } else {
                    vec![BackupCommand::Release]
                }
            }
        }
    }

    /// Whether FINISHED, CANCELLED or LOST is reached.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Cancelled { .. } | Self::Lost { .. })
    }

    /// Whether the commit cannot have happened yet.
    pub fn can_cancel(&self) -> bool {
        !self.is_settled() && !matches!(self, Self::UploadInfo { .. })
    }

    /// Whether this may be done now.
    pub fn allows(&self, command: BackupCommand) -> bool {
        match (self, command) {
            (Self::Snapshoting { left, .. }, BackupCommand::Snapshot(task))
            | (Self::Uploading { left, .. }, BackupCommand::Upload(task)) => left.contains(task),
            (Self::Snapshoting { .. } | Self::Uploading { .. }, _) => false,
            _ => self.commands().contains(&command),
        }
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Finished { released: true } | Self::Cancelled { released: true, .. } | Self::Lost { released: true, .. }
        )
    }

    /// One match: the only way a state changes. An event that cannot happen changes nothing.
    pub fn apply(&mut self, event: &BackupEvent) -> Result<(), IllegalEvent> {
        use BackupEvent as E;
        let next = match (&mut *self, event) {
            (Self::Pending, E::Planned { plan }) => {
                let left = TasksLeft::all(plan.snapshot_tasks().map(|(task, _)| task));
                Self::snapshoting(plan.clone(), left)
            }
            (Self::Snapshoting { plan, left }, E::Snapshoted { task, .. }) if left.contains(*task) => {
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
            (Self::Uploading { plan, left, .. }, E::Uploaded { task, .. }) if left.contains(*task) => {
                left.finish(*task);
                if !left.is_empty() {
                    return Ok(());
                }
                Self::SaveMeta { plan: plan.clone() }
            }
            (Self::SaveMeta { plan }, E::MetaSaved { manifest, saved_at }) => {
                Self::UploadInfo { plan: plan.clone(), manifest: manifest.clone(), saved_at: *saved_at }
            }
            (Self::UploadInfo { .. }, E::Published) => Self::Finished { released: false },
            (Self::UploadInfo { .. }, E::Displaced { failure }) => Self::Cancelled { failure: failure.clone(), released: false },
            (Self::UploadInfo { .. }, E::Lost { failure }) => Self::Lost { failure: failure.clone(), released: false },
            (Self::Finished { released } | Self::Cancelled { released, .. } | Self::Lost { released, .. }, E::Released)
                if !*released =>
            {
                *released = true;
                return Ok(());
            }
            (state, E::Cancelled { failure }) if state.can_cancel() => {
                Self::Cancelled { failure: failure.clone(), released: false }
            }
            (state, event) => return Err(IllegalEvent { state: state.name(), event: event.name() }),
        };
        *self = next;
        Ok(())
    }

    fn snapshoting(plan: Arc<BackupPlan>, left: TasksLeft) -> Self {
        if left.is_empty() { Self::UploadSnapshot { plan } } else { Self::Snapshoting { plan, left } }
    }

    fn uploading(plan: Arc<BackupPlan>, tasks: Arc<Vec<TransferTask>>, left: TasksLeft) -> Self {
        if left.is_empty() { Self::SaveMeta { plan } } else { Self::Uploading { plan, tasks, left } }
    }
}
