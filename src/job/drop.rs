//! The machine that deletes a snapshot: PENDING → DELETING → FINISHED | CANCELLED | LOST.
//!
//! What goes is fixed by an event before anything is deleted, so after a crash the same goes on.
//! Deleting what is gone is fine. LOST is one that was given up while it deleted.

use serde::{Deserialize, Serialize};

use super::data::Failure;
use super::{End, IllegalEvent, Machine, Phase};
use crate::names::BackupTimestamp;

#[derive(Clone, Debug, PartialEq)]
pub enum DropState {
    /// What goes is not decided.
    Pending,
    /// Manifests are being deleted.
    Deleting { timestamps: Vec<BackupTimestamp> },
    /// They are gone.
    Finished,
    /// Some may be gone.
    Cancelled { failure: Failure },
    /// Some may be gone, or all, and a request for that may still be on its way.
    Lost { failure: Failure },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropCommand {
    /// See which backups there are, and whether they may go.
    Check,
    /// Delete their manifests.
    Delete,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropEvent {
    /// What goes is fixed.
    Checked {
        timestamps: Vec<BackupTimestamp>,
    },
    /// They are gone.
    Deleted,
    Cancelled {
        failure: Failure,
    },
    /// It was given up by force.
    Lost {
        failure: Failure,
    },
}

impl DropEvent {
    /// Its name, for `system.job_events`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Checked { .. } => "checked",
            Self::Deleted => "deleted",
            Self::Cancelled { .. } => "cancelled",
            Self::Lost { .. } => "lost",
        }
    }
}

impl Machine for DropState {
    type Command = DropCommand;
    type Event = DropEvent;

    fn commands(&self) -> Vec<DropCommand> {
        match self {
            Self::Pending => vec![DropCommand::Check],
            Self::Deleting { .. } => vec![DropCommand::Delete],
            Self::Finished | Self::Cancelled { .. } | Self::Lost { .. } => Vec::new(),
        }
    }

    /// One match: the only way a state changes.
    fn apply(&mut self, event: &DropEvent) -> Result<(), IllegalEvent> {
        use DropEvent as E;
        *self = match (&*self, event) {
            (Self::Pending, E::Checked { timestamps }) => Self::Deleting {
                timestamps: timestamps.clone(),
            },
            (Self::Deleting { .. }, E::Deleted) => Self::Finished,
            (Self::Pending | Self::Deleting { .. }, E::Cancelled { failure }) => Self::Cancelled {
                failure: failure.clone(),
            },
            (Self::Deleting { .. }, E::Lost { failure }) => Self::Lost {
                failure: failure.clone(),
            },
            (state, event) => {
                return Err(IllegalEvent {
                    phase: state.phase(),
                    event: event.name(),
                });
            }
        };
        Ok(())
    }

    fn phase(&self) -> Phase {
        match self {
            Self::Pending => Phase::Pending,
            Self::Deleting { .. } => Phase::Deleting,
            Self::Finished => Phase::Finished,
            Self::Cancelled { .. } => Phase::Cancelled,
            Self::Lost { .. } => Phase::Lost,
        }
    }

    fn end(&self) -> Option<End> {
        match self {
            Self::Pending | Self::Deleting { .. } => None,
            Self::Finished => Some(End::Finished),
            Self::Cancelled { failure } => Some(failure.end()),
            Self::Lost { .. } => Some(End::Lost),
        }
    }

    fn is_over(&self) -> bool {
        self.end().is_some()
    }

    /// What is being deleted is locked until that has ended; its own failure may end it, and nobody
    /// else.
    fn can_cancel(&self) -> bool {
        matches!(self, Self::Pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The full table: every state with every event, and what comes of it.
    #[test]
    fn every_state_takes_its_events_and_no_others() {
        let failure = || Failure::user_cancelled(None);
        let states = [
            DropState::Pending,
            DropState::Deleting {
                timestamps: Vec::new(),
            },
            DropState::Finished,
            DropState::Cancelled { failure: failure() },
            DropState::Lost { failure: failure() },
        ];
        let events = [
            DropEvent::Checked {
                timestamps: Vec::new(),
            },
            DropEvent::Deleted,
            DropEvent::Cancelled { failure: failure() },
            DropEvent::Lost { failure: failure() },
        ];
        let no = "";
        let expected = [
            ["DELETING", no, "CANCELLED", no],
            [no, "FINISHED", "CANCELLED", "LOST"],
            [no; 4],
            [no; 4],
            [no; 4],
        ];
        crate::job::machine::tests::check_table(&states, &events, &expected);
        crate::job::machine::tests::check_names(&events, DropEvent::name);
    }
}
