//! The restore machine: PENDING → SNAPSHOTING → DOWNLOAD → DOWNLOADING → COMMIT → COMMITTING →
//! FINISHED | CANCELLED.
//!
//! Everything before COMMITTING is made beside the old data. The swap is one transaction of the
//! metastore, so COMMITTING is the point of no return: from there nothing is cancelled, only
//! retried.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::data::*;
use super::tasks::TasksLeft;
use super::{End, IllegalEvent, Machine, Phase};
use crate::names::TaskId;

/// The phases, each with what it needs and nothing else. The names are StarRocks' own.
#[derive(Clone, Debug, PartialEq)]
pub enum RestoreState {
    /// Nothing is decided yet.
    Pending,
    /// Room is being made for tablets.
    Snapshoting {
        plan: Arc<RestorePlan>,
        /// Tasks not done yet.
        left: TasksLeft,
    },
    /// There is room for all tablets.
    Download { plan: Arc<RestorePlan> },
    /// Files are on their way.
    Downloading {
        plan: Arc<RestorePlan>,
        tasks: Arc<Vec<TransferTask>>,
        /// Tasks not done yet.
        left: TasksLeft,
    },
    /// All files are here; they are checked once more before the swap.
    Commit { plan: Arc<RestorePlan> },
    /// The swap may or may not have happened.
    Committing { plan: Arc<RestorePlan> },
    /// The data is restored.
    Finished {
        /// Whether reservations are gone.
        released: bool,
    },
    /// The data is not and will not be restored.
    Cancelled {
        failure: Failure,
        /// Whether half-made tablets and reservations are gone.
        released: bool,
    },
}

impl RestoreState {
    /// What is made, while files of the backup may still be read.
    pub fn reads(&self) -> Option<&Arc<RestorePlan>> {
        match self {
            Self::Snapshoting { plan, .. }
            | Self::Download { plan }
            | Self::Downloading { plan, .. } => Some(plan),
            Self::Pending
            | Self::Commit { .. }
            | Self::Committing { .. }
            | Self::Finished { .. }
            | Self::Cancelled { .. } => None,
        }
    }
}

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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreEvent {
    /// What will be made is fixed.
    Planned {
        plan: Arc<RestorePlan>,
    },
    /// There is room for one tablet.
    Prepared {
        task: TaskId,
    },
    DownloadPlanned {
        tasks: Arc<Vec<TransferTask>>,
    },
    /// One tablet's files are here.
    Downloaded {
        task: TaskId,
        transfer: Transfer,
    },
    /// Every file is in its place.
    Verified,
    /// The restored data is visible.
    Swapped,
    /// The metastore has refused to make it visible, and would do so again.
    SwapRefused {
        failure: Failure,
    },
    Cancelled {
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

impl Machine for RestoreState {
    type Command = RestoreCommand;
    type Event = RestoreEvent;

    fn phase(&self) -> Phase {
        match self {
            Self::Pending => Phase::Pending,
            Self::Snapshoting { .. } => Phase::Snapshoting,
            Self::Download { .. } => Phase::Download,
            Self::Downloading { .. } => Phase::Downloading,
            Self::Commit { .. } => Phase::Commit,
            Self::Committing { .. } => Phase::Committing,
            Self::Finished { .. } => Phase::Finished,
            Self::Cancelled { .. } => Phase::Cancelled,
        }
    }

    fn commands(&self) -> Vec<RestoreCommand> {
        match self {
            Self::Pending => vec![RestoreCommand::Plan],
            Self::Snapshoting { left, .. } => left.iter().map(RestoreCommand::Prepare).collect(),
            Self::Download { .. } => vec![RestoreCommand::PlanDownload],
            Self::Downloading { left, .. } => left.iter().map(RestoreCommand::Download).collect(),
            Self::Commit { .. } => vec![RestoreCommand::Verify],
            Self::Committing { .. } => vec![RestoreCommand::Swap],
            Self::Finished { released: false }
            | Self::Cancelled {
                released: false, ..
            } => vec![RestoreCommand::Release],
            Self::Finished { released: true } | Self::Cancelled { released: true, .. } => {
                Vec::new()
            }
        }
    }

    fn end(&self) -> Option<End> {
        match self {
            Self::Finished { .. } => Some(End::Finished),
            Self::Cancelled { failure, .. } => Some(failure.end()),
            _ => None,
        }
    }

    /// Whether the swap cannot have happened yet.
    fn can_cancel(&self) -> bool {
        self.end().is_none() && !matches!(self, Self::Committing { .. })
    }

    fn allows(&self, command: RestoreCommand) -> bool {
        match (self, command) {
            (Self::Snapshoting { left, .. }, RestoreCommand::Prepare(task))
            | (Self::Downloading { left, .. }, RestoreCommand::Download(task)) => {
                left.contains(task)
            }
            (Self::Snapshoting { .. } | Self::Downloading { .. }, _) => false,
            _ => self.commands().contains(&command),
        }
    }

    fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Finished { released: true } | Self::Cancelled { released: true, .. }
        )
    }

    /// One match: the only way a state changes.
    fn apply(&mut self, event: &RestoreEvent) -> Result<(), IllegalEvent> {
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
            (Self::Downloading { plan, left, .. }, E::Downloaded { task, .. })
                if left.contains(*task) =>
            {
                left.finish(*task);
                if !left.is_empty() {
                    return Ok(());
                }
                Self::Commit { plan: plan.clone() }
            }
            (Self::Commit { plan }, E::Verified) => Self::Committing { plan: plan.clone() },
            (Self::Committing { .. }, E::Swapped) => Self::Finished { released: false },
            (Self::Committing { .. }, E::SwapRefused { failure }) => Self::Cancelled {
                failure: failure.clone(),
                released: false,
            },
            (Self::Finished { released } | Self::Cancelled { released, .. }, E::Released)
                if !*released =>
            {
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

impl RestoreState {
    fn snapshoting(plan: Arc<RestorePlan>, left: TasksLeft) -> Self {
        if left.is_empty() {
            Self::Download { plan }
        } else {
            Self::Snapshoting { plan, left }
        }
    }

    fn downloading(plan: Arc<RestorePlan>, tasks: Arc<Vec<TransferTask>>, left: TasksLeft) -> Self {
        if left.is_empty() {
            Self::Commit { plan }
        } else {
            Self::Downloading { plan, tasks, left }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::data::tests::{digest, target_of, transfers};

    fn failure() -> Failure {
        Failure::user_cancelled(None)
    }

    /// The full table: every state with every event, and what comes of it.
    #[test]
    fn every_state_takes_its_events_and_no_others() {
        let plan = Arc::new(target_of(&[11, 12]));
        let tasks = Arc::new(transfers(&[11, 12]));
        let left = |ids: &[i64]| TasksLeft::all(ids.iter().map(|id| TaskId(*id)));
        let downloading = |ids| RestoreState::Downloading {
            plan: plan.clone(),
            tasks: tasks.clone(),
            left: left(ids),
        };
        let states = [
            RestoreState::Pending,
            RestoreState::Snapshoting {
                plan: plan.clone(),
                left: left(&[11, 12]),
            },
            RestoreState::Snapshoting {
                plan: plan.clone(),
                left: left(&[11]),
            },
            RestoreState::Download { plan: plan.clone() },
            downloading(&[1, 2]),
            downloading(&[1]),
            RestoreState::Commit { plan: plan.clone() },
            RestoreState::Committing { plan: plan.clone() },
            RestoreState::Finished { released: false },
            RestoreState::Finished { released: true },
            RestoreState::Cancelled {
                failure: failure(),
                released: false,
            },
            RestoreState::Cancelled {
                failure: failure(),
                released: true,
            },
        ];
        let none = RestorePlan::new(digest(), Vec::new(), Vec::new());
        let events = [
            RestoreEvent::Planned { plan: plan.clone() },
            RestoreEvent::Planned {
                plan: Arc::new(none),
            },
            RestoreEvent::Prepared { task: TaskId(11) },
            RestoreEvent::DownloadPlanned {
                tasks: tasks.clone(),
            },
            RestoreEvent::DownloadPlanned {
                tasks: Arc::default(),
            },
            RestoreEvent::Downloaded {
                task: TaskId(1),
                transfer: Transfer::default(),
            },
            RestoreEvent::Verified,
            RestoreEvent::Swapped,
            RestoreEvent::SwapRefused { failure: failure() },
            RestoreEvent::Cancelled { failure: failure() },
            RestoreEvent::Released,
        ];
        let no = "";
        let (snap, down, can, fin) = ("SNAPSHOTING", "DOWNLOADING", "CANCELLED", "FINISHED");
        let expected = [
            // Planned ×2, Prepared, DownloadPlanned ×2, Downloaded, Verified, Swapped, SwapRefused,
            // Cancelled, Released
            [snap, "DOWNLOAD", no, no, no, no, no, no, no, can, no],
            [no, no, snap, no, no, no, no, no, no, can, no],
            [no, no, "DOWNLOAD", no, no, no, no, no, no, can, no],
            [no, no, no, down, "COMMIT", no, no, no, no, can, no],
            [no, no, no, no, no, down, no, no, no, can, no],
            [no, no, no, no, no, "COMMIT", no, no, no, can, no],
            [no, no, no, no, no, no, "COMMITTING", no, no, can, no],
            [no, no, no, no, no, no, no, fin, can, no, no],
            [no, no, no, no, no, no, no, no, no, no, fin],
            [no; 11],
            [no, no, no, no, no, no, no, no, no, no, can],
            [no; 11],
        ];
        crate::job::machine::tests::check_table(&states, &events, &expected);
        crate::job::machine::tests::check_names(&events, RestoreEvent::name);
    }
}
