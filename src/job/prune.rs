//! The machine that deletes what no backup needs: PENDING → MARKING → WAITING → DELETING → CLEANING
//! → FINISHED | CANCELLED.
//!
//! What may go is fixed by an event, then announced in the repository by a mark, so that a gateway
//! which is about to put a manifest that names one of those files waits. Only after every manifest
//! that was put without a look at the mark has come is each file looked for in the manifests once
//! more, and deleted if none needs it. The mark is taken away whatever the end is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{End, Failure, IllegalEvent, Machine, Phase, Volume};
use crate::names::{RepositoryName, Sha256, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRequest {
    pub repository: RepositoryName,
    /// Files that were written later than so many seconds ago stay.
    pub grace_seconds: u64,
    /// How long the mark stands before anything is deleted, seconds.
    pub wait_seconds: u64,
    /// Only says what would go.
    pub dry_run: bool,
}

/// An object that no backup needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    #[serde(flatten)]
    pub object: Prunable,
    pub bytes: u64,
    /// When it was written, as the store says.
    pub written_at: Timestamp,
}

/// What is pruned of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prunable {
    /// A data file of our own format, by what its object is called.
    #[serde(rename = "sha256")]
    File(Sha256),
    /// A file of a repository that a StarRocks cluster writes, from the repository's directory on.
    #[serde(rename = "path")]
    Stored(String),
}

impl Prunable {
    pub fn name(&self) -> &str {
        match self {
            Self::File(sha256) => sha256,
            Self::Stored(path) => path,
        }
    }

    pub fn file(&self) -> Option<&Sha256> {
        match self {
            Self::File(sha256) => Some(sha256),
            Self::Stored(_) => None,
        }
    }

    /// Where it is, from the repository's directory on.
    pub fn path(&self) -> String {
        match self {
            Self::File(sha256) => format!("data/{}/{sha256}.parquet", &sha256[..2]),
            Self::Stored(path) => path.clone(),
        }
    }
}

/// Files of one job, at most: the rest goes with the next one.
pub const CANDIDATES_MAX: usize = 100_000;

/// What pruning came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    pub deleted: Volume,
    /// What a manifest has named since, or was written anew.
    pub kept: Volume,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PruneState {
    Pending,
    Marking {
        candidates: Arc<Vec<Candidate>>,
    },
    Waiting {
        candidates: Arc<Vec<Candidate>>,
    },
    Deleting {
        candidates: Arc<Vec<Candidate>>,
    },
    /// The mark is to go, after which the job is what it says.
    Cleaning {
        pruned: Pruned,
    },
    Finished {
        pruned: Pruned,
    },
    /// `released`: there is no mark of it any more. `was_deleting`: a deletion may be on its way.
    Cancelled {
        failure: Failure,
        released: bool,
        was_deleting: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PruneCommand {
    /// See which files no manifest names.
    Plan,
    /// Announce them.
    Mark,
    /// Let those finish who have not seen the mark.
    Wait,
    /// Look once more, and delete.
    Delete,
    /// Take the mark away.
    Unmark,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PruneEvent {
    /// What may go is fixed. Of a dry run that is all.
    Planned {
        candidates: Arc<Vec<Candidate>>,
        dry_run: bool,
    },
    Marked,
    Waited,
    /// `kept`: the names of those that a backup needs by now, or that were written anew.
    Deleted {
        pruned: Pruned,
        kept: Vec<String>,
    },
    Unmarked,
    /// The mark cannot be taken away, and is left to whoever prunes next.
    MarkLeft,
    Cancelled {
        failure: Failure,
    },
}

impl PruneEvent {
    /// Its name, for `system.job_events`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "planned",
            Self::Marked => "marked",
            Self::Waited => "waited",
            Self::Deleted { .. } => "deleted",
            Self::Unmarked => "unmarked",
            Self::MarkLeft => "mark_left",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}

pub fn volume_of(candidates: &[Candidate]) -> Volume {
    let mut volume = Volume::default();
    for candidate in candidates {
        volume.add(Volume {
            files: 1,
            bytes: candidate.bytes,
        });
    }
    volume
}

impl Machine for PruneState {
    type Command = PruneCommand;
    type Event = PruneEvent;

    fn commands(&self) -> Vec<PruneCommand> {
        match self {
            Self::Pending => vec![PruneCommand::Plan],
            Self::Marking { .. } => vec![PruneCommand::Mark],
            Self::Waiting { .. } => vec![PruneCommand::Wait],
            Self::Deleting { .. } => vec![PruneCommand::Delete],
            Self::Cleaning { .. }
            | Self::Cancelled {
                released: false, ..
            } => {
                vec![PruneCommand::Unmark]
            }
            Self::Finished { .. } | Self::Cancelled { released: true, .. } => Vec::new(),
        }
    }

    /// One match: the only way a state changes.
    fn apply(&mut self, event: &PruneEvent) -> Result<(), IllegalEvent> {
        use PruneEvent as E;
        *self = match (&*self, event) {
            (
                Self::Pending,
                E::Planned {
                    candidates,
                    dry_run,
                },
            ) => {
                if *dry_run || candidates.is_empty() {
                    Self::Finished {
                        pruned: Pruned::default(),
                    }
                } else {
                    Self::Marking {
                        candidates: candidates.clone(),
                    }
                }
            }
            (Self::Marking { candidates }, E::Marked) => Self::Waiting {
                candidates: candidates.clone(),
            },
            (Self::Waiting { candidates }, E::Waited) => Self::Deleting {
                candidates: candidates.clone(),
            },
            (Self::Deleting { .. }, E::Deleted { pruned, .. }) => {
                Self::Cleaning { pruned: *pruned }
            }
            (Self::Cleaning { pruned }, E::Unmarked | E::MarkLeft) => {
                Self::Finished { pruned: *pruned }
            }
            (Self::Pending, E::Cancelled { failure }) => Self::Cancelled {
                failure: failure.clone(),
                released: true,
                was_deleting: false,
            },
            (
                state @ (Self::Marking { .. } | Self::Waiting { .. } | Self::Deleting { .. }),
                E::Cancelled { failure },
            ) => Self::Cancelled {
                failure: failure.clone(),
                released: false,
                was_deleting: matches!(state, Self::Deleting { .. }),
            },
            (
                Self::Cancelled {
                    failure,
                    released: false,
                    was_deleting,
                },
                E::Unmarked,
            ) => Self::Cancelled {
                failure: failure.clone(),
                released: true,
                was_deleting: *was_deleting,
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
            Self::Marking { .. } => Phase::Marking,
            Self::Waiting { .. } => Phase::Waiting,
            Self::Deleting { .. } => Phase::Deleting,
            Self::Cleaning { .. } => Phase::Cleaning,
            Self::Finished { .. } => Phase::Finished,
            Self::Cancelled { .. } => Phase::Cancelled,
        }
    }

    fn end(&self) -> Option<End> {
        match self {
            Self::Finished { .. } => Some(End::Finished),
            Self::Cancelled { failure, .. } => Some(failure.end()),
            Self::Pending
            | Self::Marking { .. }
            | Self::Waiting { .. }
            | Self::Deleting { .. }
            | Self::Cleaning { .. } => None,
        }
    }

    fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Finished { .. } | Self::Cancelled { released: true, .. }
        )
    }

    /// Nothing that is deleted is needed, so it may be given up between any two files.
    fn can_cancel(&self) -> bool {
        self.end().is_none() && !matches!(self, Self::Cleaning { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The full table: every state with every event, and what comes of it.
    #[test]
    fn every_state_takes_its_events_and_no_others() {
        let failure = || Failure::user_cancelled(None);
        let candidates = || {
            Arc::new(vec![Candidate {
                object: Prunable::File(Sha256::new("ab".repeat(32)).expect("valid")),
                bytes: 3,
                written_at: Timestamp(0),
            }])
        };
        let planned = |dry_run| PruneEvent::Planned {
            candidates: candidates(),
            dry_run,
        };
        let pruned = Pruned::default();
        let states = [
            PruneState::Pending,
            PruneState::Marking {
                candidates: candidates(),
            },
            PruneState::Waiting {
                candidates: candidates(),
            },
            PruneState::Deleting {
                candidates: candidates(),
            },
            PruneState::Cleaning { pruned },
            PruneState::Finished { pruned },
            PruneState::Cancelled {
                failure: failure(),
                released: false,
                was_deleting: false,
            },
            PruneState::Cancelled {
                failure: failure(),
                released: true,
                was_deleting: false,
            },
        ];
        let events = [
            planned(false),
            planned(true),
            PruneEvent::Planned {
                candidates: Arc::default(),
                dry_run: false,
            },
            PruneEvent::Marked,
            PruneEvent::Waited,
            PruneEvent::Deleted {
                pruned,
                kept: Vec::new(),
            },
            PruneEvent::Unmarked,
            PruneEvent::MarkLeft,
            PruneEvent::Cancelled { failure: failure() },
        ];
        let no = "";
        let expected = [
            [
                "MARKING",
                "FINISHED",
                "FINISHED",
                no,
                no,
                no,
                no,
                no,
                "CANCELLED",
            ],
            [no, no, no, "WAITING", no, no, no, no, "CANCELLED"],
            [no, no, no, no, "DELETING", no, no, no, "CANCELLED"],
            [no, no, no, no, no, "CLEANING", no, no, "CANCELLED"],
            [no, no, no, no, no, no, "FINISHED", "FINISHED", no],
            [no; 9],
            [no, no, no, no, no, no, "CANCELLED", no, no],
            [no; 9],
        ];
        crate::job::machine::tests::check_table(&states, &events, &expected);
        crate::job::machine::tests::check_names(&events, PruneEvent::name);
    }
}
