//! The machine of a restore on another cluster that touches nothing which is there before all is
//! restored: PENDING → DOWNLOADING → COMMIT → COMMITTING → FINISHED | CANCELLED | LOST.
//!
//! Each snapshot that is needed is restored by a job of its own, into tables whose names nobody
//! else uses: one for each snapshot that has a part of a table, as no cluster restores into a table
//! of another name that is there. The parts of a table are put together. The tables take the places of the old ones by one statement each, and the old ones go. The
//! first such statement is the point of no return: from there nothing is cancelled, only retried.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::data::Failure;
use super::spec::Target;
use super::{End, IllegalEvent, Machine, Phase};
use crate::names::{BackupTimestamp, JobId, PartitionName, SnapshotLabel, TableName};

/// What is restored, of which snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedRequest {
    /// The snapshot that the statement names.
    pub target: Target,
    pub timestamp: BackupTimestamp,
    pub tables: Vec<StagedTable>,
    /// The snapshots that are restored, one after the other.
    pub steps: Vec<StagedStep>,
    pub replication_num: u16,
}

/// A table to restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedTable {
    /// As the snapshots have it.
    pub name: TableName,
    /// As it is called afterwards.
    pub target: TableName,
    /// Whether a table of that name was there when the statement was said.
    pub replaces: bool,
    /// The step whose part of it the others are put into.
    pub main: u32,
    /// The partitions that it must have in the end.
    pub partitions: Vec<PartitionName>,
}

/// A part of a table that is put into another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// Places of the table and of the step.
    pub table: usize,
    pub step: usize,
}

/// One snapshot, and what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedStep {
    pub label: SnapshotLabel,
    pub timestamp: BackupTimestamp,
    pub parts: Vec<StagedPart>,
}

/// What one snapshot gives of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedPart {
    pub table: TableName,
    /// Each with the version that it must have there, where that is known.
    pub partitions: Vec<(PartitionName, Option<i64>)>,
    /// Whether that is all that the snapshot has of the table.
    pub is_whole: bool,
}

impl StagedRequest {
    /// The parts that are put together, in their order.
    pub fn joins(&self) -> Vec<Join> {
        let mut joins = Vec::new();
        for (table, wanted) in self.tables.iter().enumerate() {
            for (step, read) in self.steps.iter().enumerate() {
                let has_part = read.parts.iter().any(|part| part.table == wanted.name);
                if has_part && step != wanted.main as usize {
                    joins.push(Join { table, step });
                }
            }
        }
        joins
    }

    /// Every snapshot that is read.
    pub fn labels(&self) -> impl Iterator<Item = &SnapshotLabel> {
        self.steps.iter().map(|step| &step.label)
    }
}

/// A table that is restored and not in its place yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedContent {
    pub rows: u64,
    /// What tells it from the table whose place it takes: the ids of its partitions.
    pub partition_ids: Vec<i64>,
    /// The same of that table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced_ids: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StagedState {
    /// Nothing is done yet.
    Pending,
    /// Snapshots are being restored.
    Staging {
        /// How many are.
        done: u32,
        of: u32,
        joins: u32,
    },
    /// Parts of tables are being put together.
    Joining { done: u32, of: u32 },
    /// All are restored; the tables are read before they take their places.
    Staged,
    /// The tables take their places.
    Swapping {
        tables: Arc<Vec<StagedContent>>,
        /// How many have.
        done: u32,
    },
    /// All are in their places.
    Finished {
        tables: Arc<Vec<StagedContent>>,
        /// Whether the old ones are gone.
        released: bool,
    },
    /// Nothing has changed.
    Cancelled {
        failure: Failure,
        /// What was to take the places, once that was tried.
        restored: Option<Arc<Vec<StagedContent>>>,
        /// Whether what was restored is gone.
        released: bool,
    },
    /// It was given up while tables took their places.
    Lost { failure: Failure },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StagedCommand {
    /// See whether everything that is needed is whole.
    Prove,
    /// Restore one of the snapshots.
    Restore(u32),
    /// Put one part of a table into another.
    Join(u32),
    /// Read what was restored.
    Count,
    /// Put one table into its place.
    Swap(u32),
    /// Drop what is not needed any more.
    Release,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StagedEvent {
    /// Every snapshot that is needed is whole. So many are restored, and so many parts joined.
    Proved {
        steps: u32,
        #[serde(default)]
        joins: u32,
    },
    /// One of them is restored, by this job.
    Restored {
        job_id: JobId,
        /// Tables whose dynamic partitioning was turned off meanwhile.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dynamic: Vec<TableName>,
    },
    /// A part of a table is in the other one.
    Joined {
        rows: u64,
    },
    /// All tables read.
    Counted {
        tables: Arc<Vec<StagedContent>>,
    },
    /// The next table is in its place.
    Swapped,
    /// The cluster would not put the first table into its place, and nothing has changed.
    SwapRefused {
        failure: Failure,
    },
    Cancelled {
        failure: Failure,
    },
    /// It was given up by force.
    Lost {
        failure: Failure,
    },
    /// These tables, which were not needed any more, are gone.
    Released {
        dropped: Vec<String>,
    },
}

impl StagedEvent {
    /// Its name, for `system.job_events`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Proved { .. } => "proved",
            Self::Restored { .. } => "restored",
            Self::Joined { .. } => "joined",
            Self::Counted { .. } => "counted",
            Self::Swapped => "swapped",
            Self::SwapRefused { .. } => "swap_refused",
            Self::Cancelled { .. } => "cancelled",
            Self::Lost { .. } => "lost",
            Self::Released { .. } => "released",
        }
    }
}

impl Machine for StagedState {
    type Command = StagedCommand;
    type Event = StagedEvent;

    fn commands(&self) -> Vec<StagedCommand> {
        match self {
            Self::Pending => vec![StagedCommand::Prove],
            Self::Staging { done, .. } => vec![StagedCommand::Restore(*done)],
            Self::Joining { done, .. } => vec![StagedCommand::Join(*done)],
            Self::Staged => vec![StagedCommand::Count],
            Self::Swapping { done, .. } => vec![StagedCommand::Swap(*done)],
            Self::Finished {
                released: false, ..
            }
            | Self::Cancelled {
                released: false, ..
            } => vec![StagedCommand::Release],
            Self::Finished { .. } | Self::Cancelled { .. } | Self::Lost { .. } => Vec::new(),
        }
    }

    /// One match: the only way a state changes.
    fn apply(&mut self, event: &StagedEvent) -> Result<(), IllegalEvent> {
        use StagedEvent as E;
        let joining = |done, of| match done < of {
            true => Self::Joining { done, of },
            false => Self::Staged,
        };
        let staging = |done, of, joins| match done < of {
            true => Self::Staging { done, of, joins },
            false => joining(0, joins),
        };
        *self = match (&*self, event) {
            (Self::Pending, E::Proved { steps, joins }) => staging(0, *steps, *joins),
            (Self::Staging { done, of, joins }, E::Restored { .. }) => {
                staging(done + 1, *of, *joins)
            }
            (Self::Joining { done, of }, E::Joined { .. }) => joining(done + 1, *of),
            (Self::Staged, E::Counted { tables }) => Self::Swapping {
                tables: tables.clone(),
                done: 0,
            },
            (Self::Swapping { tables, done }, E::Swapped) => {
                let (tables, done) = (tables.clone(), done + 1);
                if (done as usize) < tables.len() {
                    Self::Swapping { tables, done }
                } else {
                    Self::Finished {
                        tables,
                        released: false,
                    }
                }
            }
            (
                Self::Pending | Self::Staging { .. } | Self::Joining { .. } | Self::Staged,
                E::Cancelled { failure },
            ) => Self::Cancelled {
                failure: failure.clone(),
                restored: None,
                released: false,
            },
            (Self::Swapping { tables, done: 0 }, E::SwapRefused { failure }) => Self::Cancelled {
                failure: failure.clone(),
                restored: Some(tables.clone()),
                released: false,
            },
            (Self::Swapping { .. }, E::Lost { failure }) => Self::Lost {
                failure: failure.clone(),
            },
            (
                Self::Finished {
                    tables,
                    released: false,
                },
                E::Released { .. },
            ) => Self::Finished {
                tables: tables.clone(),
                released: true,
            },
            (
                Self::Cancelled {
                    failure,
                    restored,
                    released: false,
                },
                E::Released { .. },
            ) => Self::Cancelled {
                failure: failure.clone(),
                restored: restored.clone(),
                released: true,
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
            Self::Staging { .. } => Phase::Downloading,
            Self::Joining { .. } | Self::Staged => Phase::Commit,
            Self::Swapping { .. } => Phase::Committing,
            Self::Finished { .. } => Phase::Finished,
            Self::Cancelled { .. } => Phase::Cancelled,
            Self::Lost { .. } => Phase::Lost,
        }
    }

    fn end(&self) -> Option<End> {
        match self {
            Self::Pending
            | Self::Staging { .. }
            | Self::Joining { .. }
            | Self::Staged
            | Self::Swapping { .. } => None,
            Self::Finished { .. } => Some(End::Finished),
            Self::Cancelled { failure, .. } => Some(failure.end()),
            Self::Lost { .. } => Some(End::Lost),
        }
    }

    fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Finished { released: true, .. }
                | Self::Cancelled { released: true, .. }
                | Self::Lost { .. }
        )
    }

    fn can_cancel(&self) -> bool {
        matches!(
            self,
            Self::Pending | Self::Staging { .. } | Self::Joining { .. } | Self::Staged
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The full table: every state with every event, and what comes of it.
    #[test]
    fn every_state_takes_its_events_and_no_others() {
        let failure = || Failure::user_cancelled(None);
        let content = StagedContent {
            rows: 3,
            partition_ids: vec![7],
            replaced_ids: Vec::new(),
        };
        let tables = Arc::new(vec![content.clone(), content]);
        let states = [
            StagedState::Pending,
            StagedState::Staging {
                done: 0,
                of: 2,
                joins: 1,
            },
            StagedState::Staging {
                done: 1,
                of: 2,
                joins: 1,
            },
            StagedState::Joining { done: 0, of: 1 },
            StagedState::Staged,
            StagedState::Swapping {
                tables: tables.clone(),
                done: 0,
            },
            StagedState::Swapping {
                tables: tables.clone(),
                done: 1,
            },
            StagedState::Finished {
                tables: tables.clone(),
                released: false,
            },
            StagedState::Finished {
                tables: tables.clone(),
                released: true,
            },
            StagedState::Cancelled {
                failure: failure(),
                restored: None,
                released: false,
            },
            StagedState::Cancelled {
                failure: failure(),
                restored: None,
                released: true,
            },
            StagedState::Lost { failure: failure() },
        ];
        let events = [
            StagedEvent::Proved { steps: 2, joins: 0 },
            StagedEvent::Restored {
                job_id: JobId(2),
                dynamic: Vec::new(),
            },
            StagedEvent::Joined { rows: 3 },
            StagedEvent::Counted { tables },
            StagedEvent::Swapped,
            StagedEvent::SwapRefused { failure: failure() },
            StagedEvent::Cancelled { failure: failure() },
            StagedEvent::Lost { failure: failure() },
            StagedEvent::Released {
                dropped: Vec::new(),
            },
        ];
        let no = "";
        let expected = [
            ["DOWNLOADING", no, no, no, no, no, "CANCELLED", no, no],
            [no, "DOWNLOADING", no, no, no, no, "CANCELLED", no, no],
            [no, "COMMIT", no, no, no, no, "CANCELLED", no, no],
            [no, no, "COMMIT", no, no, no, "CANCELLED", no, no],
            [no, no, no, "COMMITTING", no, no, "CANCELLED", no, no],
            [no, no, no, no, "COMMITTING", "CANCELLED", no, "LOST", no],
            [no, no, no, no, "FINISHED", no, no, "LOST", no],
            [no, no, no, no, no, no, no, no, "FINISHED"],
            [no; 9],
            [no, no, no, no, no, no, no, no, "CANCELLED"],
            [no; 9],
            [no; 9],
        ];
        crate::job::machine::tests::check_table(&states, &events, &expected);
        crate::job::machine::tests::check_names(&events, StagedEvent::name);
    }
}
