//! The restore machine: PENDING → SNAPSHOTING → DOWNLOAD → DOWNLOADING → COMMIT → COMMITTING → FINISHED | CANCELLED.
//!
//! Everything before COMMITTING is made beside the old data. The swap is one catalog transaction, so COMMITTING is the point
//! of no return: from there nothing is cancelled, only retried.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::IllegalEvent;
use super::data::*;
use super::tasks::TasksLeft;
use crate::names::TaskId;

/// The phases, each with what it needs and nothing else. The names are StarRocks' own.
#[derive(Clone, Debug, PartialEq)]
pub enum RestoreState {
    /// Nothing is decided yet.
    Pending,
    /// Room is being made for tablets.
    Snapshoting {
        /// What will be made.
        plan: Arc<RestorePlan>,
        /// Tasks not done yet.
        left: TasksLeft,
    },
    /// There is room for all tablets.
    Download {
        /// What will be made.
        plan: Arc<RestorePlan>,
    },
    /// Files are on their way.
    Downloading {
        /// What will be made.
        plan: Arc<RestorePlan>,
        /// All tasks.
        tasks: Arc<Vec<TransferTask>>,
        /// Tasks not done yet.
        left: TasksLeft,
    },
    /// All files are here; they are checked once more before the swap.
    Commit {
        /// What will be made.
        plan: Arc<RestorePlan>,
    },
    /// The swap may or may not have happened.
    Committing {
        /// What will be made.
        plan: Arc<RestorePlan>,
    },
    /// The data is restored.
    Finished {
        /// Whether reservations are gone.
        released: bool,
    },
    /// The data is not and will not be restored.
    Cancelled {
        /// Why.
        failure: Failure,
        /// Whether half-made tablets and reservations are gone.
        released: bool,
    },
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RestoreCommand {
    /// Read the manifest, check, reserve, and fix what will be made.
    Plan,
    /// Make room for one tablet.
    Prepare(TaskId),
    /// Divide the work.
    PlanDownload,
    /// Bring one tablet's files here.
    Download(TaskId),
    /// Check that every file is in its place.
    Verify,
    /// Make the restored data visible.
    Swap,
    /// Let go of reservations and of what was made in vain.
    Release,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreEvent {
    /// What will be made is fixed.
    Planned {
        /// It.
        plan: Arc<RestorePlan>,
    },
    /// There is room for one tablet.
    Prepared {
        /// The task.
        task: TaskId,
    },
    /// The work is divided.
    DownloadPlanned {
        /// All tasks.
        tasks: Arc<Vec<TransferTask>>,
    },
    /// One tablet's files are here.
    Downloaded {
        /// The task.
        task: TaskId,
        /// What it moved.
        transfer: Transfer,
    },
    /// Every file is in its place.
    Verified,
    /// The restored data is visible.
    Swapped,
    /// The catalog has refused to make it visible, and would do so again.
    SwapRefused {
        /// Why.
        failure: Failure,
    },
    /// The job is not carried on.
    Cancelled {
        /// Why.
        failure: Failure,
    },
    /// Reservations and remains are gone.
    Released,
}

impl RestoreEvent {
    /// Its name, for `system.job_events`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "planned",
            Self::Prepared { .. } => "prepared",
            Self::DownloadPlanned { .. } => "download_planned",
            Self::Downloaded { .. } => "downloaded",
            Self::Verified => "verified",
            Self::Swapped => "swapped",
            Self::SwapRefused { .. } => "swap_refused",
            Self::Cancelled { .. } => "cancelled",
            Self::Released => "released",
        }
    }
}

impl RestoreState {
    /// StarRocks' name of the phase.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Snapshoting { .. } => "SNAPSHOTING",
            Self::Download { .. } => "DOWNLOAD",
            Self::Downloading { .. } => "DOWNLOADING",
            Self::Commit { .. } => "COMMIT",
            Self::Committing { .. } => "COMMITTING",
            Self::Finished { .. } => "FINISHED",
            Self::Cancelled { .. } => "CANCELLED",
        }
    }

    /// What may run now, in parallel.
    pub fn commands(&self) -> Vec<RestoreCommand> {
        match self {
            Self::Pending => vec![RestoreCommand::Plan],
            Self::Snapshoting { left, .. } => left.iter().map(RestoreCommand::Prepare).collect(),
            Self::Download { .. } => vec![RestoreCommand::PlanDownload],
            Self::Downloading { left, .. } => left.iter().map(RestoreCommand::Download).collect(),
            Self::Commit { .. } => vec![RestoreCommand::Verify],
            Self::Committing { .. } => vec![RestoreCommand::Swap],
            Self::Finished { released: false } | Self::Cancelled { released: false, .. } => vec![RestoreCommand::Release],
            Self::Finished { released: true } | Self::Cancelled { released: true, .. } => Vec::new(),
        }
    }

    /// Whether FINISHED or CANCELLED is reached.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Cancelled { .. })
    }

    /// Whether the swap cannot have happened yet.
    pub fn can_cancel(&self) -> bool {
        !self.is_settled() && !matches!(self, Self::Committing { .. })
    }

    /// Whether this may be done now.
    pub fn allows(&self, command: RestoreCommand) -> bool {
        match (self, command) {
            (Self::Snapshoting { left, .. }, RestoreCommand::Prepare(task))
            | (Self::Downloading { left, .. }, RestoreCommand::Download(task)) => left.contains(task),
            (Self::Snapshoting { .. } | Self::Downloading { .. }, _) => false,
            _ => self.commands().contains(&command),
        }
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Finished { released: true } | Self::Cancelled { released: true, .. })
    }

    /// One match: the only way a state changes. An event that cannot happen changes nothing.
    pub fn apply(&mut self, event: &RestoreEvent) -> Result<(), IllegalEvent> {
        use RestoreEvent as E;
        let next = match (&mut *self, event) {
            (Self::Pending, E::Planned { plan }) => {
                let left = TasksLeft::all(plan.prepare_tasks().map(|(task, _)| task));
                Self::snapshoting(plan.clone(), left)
            }
            (Self::Snapshoting { plan, left }, E::Prepared { task }) if left.contains(*task) => {
                left.finish(*task);
                if !left.is_empty() {
                    return Ok(());
                }
                Self::Download { plan: plan.clone() }
            }
            (Self::Download { plan }, E::DownloadPlanned { tasks }) => {
                let left = TasksLeft::all(tasks.iter().map(|t| t.task_id));
                Self::downloading(plan.clone(), tasks.clone(), left)
            }
            (Self::Downloading { plan, left, .. }, E::Downloaded { task, .. }) if left.contains(*task) => {
                left.finish(*task);
                if !left.is_empty() {
                    return Ok(());
                }
                Self::Commit { plan: plan.clone() }
            }
            (Self::Commit { plan }, E::Verified) => Self::Committing { plan: plan.clone() },
            (Self::Committing { .. }, E::Swapped) => Self::Finished { released: false },
            (Self::Committing { .. }, E::SwapRefused { failure }) => Self::Cancelled { failure: failure.clone(), released: false },
            (Self::Finished { released } | Self::Cancelled { released, .. }, E::Released) if !*released => {
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

    fn snapshoting(plan: Arc<RestorePlan>, left: TasksLeft) -> Self {
        if left.is_empty() { Self::Download { plan } } else { Self::Snapshoting { plan, left } }
    }

    fn downloading(plan: Arc<RestorePlan>, tasks: Arc<Vec<TransferTask>>, left: TasksLeft) -> Self {
        if left.is_empty() { Self::Commit { plan } } else { Self::Downloading { plan, tasks, left } }
    }
}
