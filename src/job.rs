//! What is to be done: jobs as pure state machines. No I/O, no async, no clock, no randomness.
//!
//! A [`Job`] is what was asked ([`JobSpec`]) plus a fold over its events. [`Job::commands`] says
//! what may be done next, in parallel; [`Job::apply`] says what an event led to, and refuses an
//! event that cannot happen in this state. All inputs that a repeated command must see again
//! (partition versions, task ids, timestamps) are fixed by an event, so doing a command twice does
//! the same thing. Clean-up is part of the machine: a cancelled job is over when it has released
//! what it held.

mod backup;
mod contents;
mod control;
mod data;
mod delta;
mod drop;
mod external;
mod journal;
mod machine;
mod phase;
mod prune;
mod record;
mod restore;
mod row;
mod spec;
mod staged;
mod tasks;
mod tell;
mod validate;
mod verify;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::backup::{BackupCommand, BackupEvent, BackupState};
pub use self::contents::{
    Base, Contents, Followed, MovedPartition, PartitionContents, Selection, Stored, TableContents,
    UNKNOWN_VERSION,
};
pub use self::control::{Control, ControlEvent, Pace, Speaker};
pub use self::data::*;
pub use self::delta::{Delta, Entry};
pub use self::drop::{DropCommand, DropEvent, DropState};
pub use self::external::{
    ExternalCommand, ExternalEvent, ExternalRequest, ExternalState, SlotIdentity, SlotStatus,
    is_same_moment, is_taken,
};
pub use self::journal::JobJournal;
pub use self::machine::Machine;
pub use self::phase::{CancelCause, End, Phase};
pub use self::prune::{
    CANDIDATES_MAX, Candidate, Prunable, PruneCommand, PruneEvent, PruneRequest, PruneState,
    Pruned, volume_of,
};
pub use self::record::Record;
pub use self::restore::{RestoreCommand, RestoreEvent, RestoreState};
pub use self::row::{JobCourse, JobRow, JobStatus, TaskRow};
pub use self::spec::{
    DropRequest, DroppedBackups, JobKind, JobSpec, Lock, LockMode, Requester, Resource, Target,
    Work,
};
pub use self::staged::{
    Join, StagedCommand, StagedContent, StagedEvent, StagedPart, StagedRequest, StagedState,
    StagedStep, StagedTable,
};
pub use self::tell::Actor;
pub use self::verify::{
    BackupName, Checked, Finding, FindingKind, Findings, PARTS_MAX, SAMPLE_ALL, TestRestore,
    VerifyCommand, VerifyEvent, VerifyLevel, VerifyPlan, VerifyReport, VerifyRequest, VerifyState,
};
use crate::error::Error;
use crate::names::{JobId, TabletId, TaskId, Timestamp};

/// Where a job stands, of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState {
    Backup(BackupState),
    Restore(RestoreState),
    External(Box<ExternalState>),
    DropSnapshot(DropState),
    Verify(VerifyState),
    Prune(PruneState),
    Staged(StagedState),
}

/// Something that happened, of any kind. The names are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEvent {
    Backup(BackupEvent),
    Restore(RestoreEvent),
    #[serde(rename = "remote")]
    External(Box<ExternalEvent>),
    DropSnapshot(DropEvent),
    Verify(VerifyEvent),
    Prune(PruneEvent),
    Staged(StagedEvent),
    /// Said to a job of any kind that is ours.
    Control(ControlEvent),
}

/// Something to do, of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobCommand {
    Backup(BackupCommand),
    Restore(RestoreCommand),
    External(ExternalCommand),
    DropSnapshot(DropCommand),
    Verify(VerifyCommand),
    Prune(PruneCommand),
    Staged(StagedCommand),
}

/// An event that cannot happen in this state: a bug, or a damaged journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} cannot happen in {phase}")]
pub struct IllegalEvent {
    pub phase: Phase,
    pub event: &'static str,
}

/// How many events a job has seen: what the next append expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u64);

/// A job: what was asked, and the fold of its events.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: JobId,
    pub spec: Arc<JobSpec>,
    /// When it was admitted; also the backup's timestamp.
    pub created_at: Timestamp,
    /// How many events are in it.
    pub version: Version,
    pub state: JobState,
    /// What is known about its course.
    pub record: Record,
}

/// Jobs that take turns with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    Transfers,
    Verifications,
    /// It runs at once.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Pin a tablet's files.
    Snapshot,
    /// Bring a tablet's files to the repository.
    Upload,
    /// Make room for a tablet.
    Prepare,
    /// Bring a tablet's files from the repository.
    Download,
}

impl TaskKind {
    /// Its name in `system.job_tasks`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Upload => "upload",
            Self::Prepare => "prepare",
            Self::Download => "download",
        }
    }
}

/// The same of whichever machine it is.
macro_rules! machine {
    ($state:expr, $machine:ident => $what:expr) => {
        match $state {
            JobState::Backup($machine) => $what,
            JobState::Restore($machine) => $what,
            JobState::External($machine) => $what,
            JobState::DropSnapshot($machine) => $what,
            JobState::Verify($machine) => $what,
            JobState::Prune($machine) => $what,
            JobState::Staged($machine) => $what,
        }
    };
}

impl Job {
    /// A job as it is admitted.
    pub fn new(id: JobId, spec: JobSpec, created_at: Timestamp) -> Self {
        let state = match &spec.work {
            Work::Backup { .. } => JobState::Backup(BackupState::Pending),
            Work::Restore { .. } => JobState::Restore(RestoreState::Pending),
            Work::External(request) => JobState::External(Box::new(ExternalState::first(request))),
            Work::DropSnapshot(_) => JobState::DropSnapshot(DropState::Pending),
            Work::Verify(_) => JobState::Verify(VerifyState::Pending),
            Work::Prune(_) => JobState::Prune(PruneState::Pending),
            Work::Staged(_) => JobState::Staged(StagedState::Pending),
        };
        Self {
            id,
            spec: Arc::new(spec),
            created_at,
            version: Version(0),
            state,
            record: Record::default(),
        }
    }

    /// What may be done now, in parallel. Nothing: the job is over.
    pub fn commands(&self) -> Vec<JobCommand> {
        match &self.state {
            JobState::Backup(state) => state
                .commands()
                .into_iter()
                .map(JobCommand::Backup)
                .collect(),
            JobState::Restore(state) => state
                .commands()
                .into_iter()
                .map(JobCommand::Restore)
                .collect(),
            JobState::External(state) => state
                .commands()
                .into_iter()
                .map(JobCommand::External)
                .collect(),
            JobState::DropSnapshot(state) => state
                .commands()
                .into_iter()
                .map(JobCommand::DropSnapshot)
                .collect(),
            JobState::Verify(state) => state
                .commands()
                .into_iter()
                .map(JobCommand::Verify)
                .collect(),
            JobState::Prune(state) => state
                .commands()
                .into_iter()
                .map(JobCommand::Prune)
                .collect(),
            JobState::Staged(state) => state
                .commands()
                .into_iter()
                .map(JobCommand::Staged)
                .collect(),
        }
    }

    pub fn allows(&self, command: JobCommand) -> bool {
        match (&self.state, command) {
            (JobState::Backup(state), JobCommand::Backup(command)) => state.allows(command),
            (JobState::Restore(state), JobCommand::Restore(command)) => state.allows(command),
            (JobState::External(state), JobCommand::External(command)) => state.allows(command),
            (JobState::DropSnapshot(state), JobCommand::DropSnapshot(command)) => {
                state.allows(command)
            }
            (JobState::Verify(state), JobCommand::Verify(command)) => state.allows(command),
            (JobState::Prune(state), JobCommand::Prune(command)) => state.allows(command),
            (JobState::Staged(state), JobCommand::Staged(command)) => state.allows(command),
            _ => false,
        }
    }

    /// What one of many commands of the same kind moves, bytes; `None` for every other command.
    pub fn bytes_moved_by(&self, command: JobCommand) -> Option<u64> {
        let of_task = |tasks: &[TransferTask], id| Some(transfer_task(tasks, id)?.planned.bytes);
        match (&self.state, command) {
            (
                JobState::Backup(BackupState::Uploading { tasks, .. }),
                JobCommand::Backup(BackupCommand::Upload(id)),
            )
            | (
                JobState::Restore(RestoreState::Downloading { tasks, .. }),
                JobCommand::Restore(RestoreCommand::Download(id)),
            ) => of_task(tasks, id),
            (_, JobCommand::Backup(BackupCommand::Snapshot(_)))
            | (_, JobCommand::Restore(RestoreCommand::Prepare(_))) => Some(0),
            _ => None,
        }
    }

    /// Whether the two are in one phase of one machine, in which the same may be done.
    pub fn is_in_phase_of(&self, other: &Self) -> bool {
        use std::mem::discriminant;
        match (&self.state, &other.state) {
            (JobState::Backup(a), JobState::Backup(b)) => discriminant(a) == discriminant(b),
            (JobState::Restore(a), JobState::Restore(b)) => discriminant(a) == discriminant(b),
            (JobState::External(a), JobState::External(b)) => {
                discriminant(&**a) == discriminant(&**b)
            }
            (JobState::DropSnapshot(a), JobState::DropSnapshot(b)) => {
                discriminant(a) == discriminant(b)
            }
            (JobState::Verify(a), JobState::Verify(b)) => discriminant(a) == discriminant(b),
            (JobState::Prune(a), JobState::Prune(b)) => discriminant(a) == discriminant(b),
            // One step after the other: each is a phase of its own.
            (JobState::Staged(a), JobState::Staged(b)) => a.commands() == b.commands(),
            _ => false,
        }
    }

    /// What an event leads to; the only way a job changes. An event that cannot happen changes
    /// nothing.
    pub fn apply(&mut self, event: &JobEvent, at: Timestamp) -> Result<(), IllegalEvent> {
        let was = self.phase();
        if let JobEvent::Control(event) = event {
            return self.apply_control(event, at);
        }
        match (&mut self.state, event) {
            (JobState::Backup(state), JobEvent::Backup(event)) => {
                state.apply(event)?;
                self.record.note_backup(event, was, state, at);
            }
            (JobState::Restore(state), JobEvent::Restore(event)) => {
                state.apply(event)?;
                self.record.note_restore(event, was, state, at);
            }
            (JobState::External(state), JobEvent::External(event)) => {
                state.apply(event)?;
                self.record.note_external(event, state, at);
            }
            (JobState::DropSnapshot(state), JobEvent::DropSnapshot(event)) => {
                state.apply(event)?;
                if let DropEvent::Cancelled { failure } | DropEvent::Lost { failure } = event {
                    self.record.failure = Some(failure.clone());
                }
            }
            (JobState::Verify(state), JobEvent::Verify(event)) => {
                state.apply(event)?;
                self.record.note_verify(event);
            }
            (JobState::Prune(state), JobEvent::Prune(event)) => {
                state.apply(event)?;
                self.record.note_prune(event);
            }
            (JobState::Staged(state), JobEvent::Staged(event)) => {
                state.apply(event)?;
                self.record.note_staged(event, at);
            }
            (_, event) => {
                return Err(IllegalEvent {
                    phase: was,
                    event: event.name(),
                });
            }
        }
        self.version = Version(self.version.0 + 1);
        self.record.started_at.get_or_insert(at);
        if self.end().is_some() {
            self.record.finished_at.get_or_insert(at);
        }
        Ok(())
    }

    fn apply_control(&mut self, event: &ControlEvent, at: Timestamp) -> Result<(), IllegalEvent> {
        let is_possible =
            !self.spec.is_elsewhere() && !self.is_settled() && self.record.control.apply(event, at);
        if !is_possible {
            return Err(IllegalEvent {
                phase: self.phase(),
                event: event.name(),
            });
        }
        self.version = Version(self.version.0 + 1);
        Ok(())
    }

    /// Whether it is paused, and not past the point from which it only goes on.
    pub fn is_held(&self) -> bool {
        self.record.control.is_paused() && self.can_cancel()
    }

    /// Its own limit of bytes a second, as it stands.
    pub fn pace(&self) -> Option<u64> {
        match self.record.control.pace {
            Some(pace) => pace.bytes_per_second(),
            None => self.spec.max_bytes_per_second,
        }
    }

    /// How a job of another cluster stands, if this is one.
    pub fn external_state(&self) -> Option<&ExternalState> {
        match &self.state {
            JobState::External(state) => Some(state),
            JobState::Backup(_)
            | JobState::Restore(_)
            | JobState::DropSnapshot(_)
            | JobState::Verify(_)
            | JobState::Prune(_)
            | JobState::Staged(_) => None,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        machine!(&self.state, state => state.phase())
    }

    /// How it ended, if it has; clean-up may still be to do.
    pub fn end(&self) -> Option<End> {
        machine!(&self.state, state => state.end())
    }

    /// Whether it has ended.
    pub fn is_settled(&self) -> bool {
        self.end().is_some()
    }

    /// Whether nothing is left to do, clean-up included.
    pub fn is_over(&self) -> bool {
        machine!(&self.state, state => state.is_over())
    }

    /// Whether a cancel can still be carried out: not once the commit may have happened.
    pub fn can_cancel(&self) -> bool {
        machine!(&self.state, state => state.can_cancel())
    }

    /// The event that cancels this kind of job.
    pub fn cancelled(&self, failure: Failure) -> JobEvent {
        match self.state {
            JobState::Backup(_) => JobEvent::Backup(BackupEvent::Cancelled { failure }),
            JobState::Restore(_) => JobEvent::Restore(RestoreEvent::Cancelled { failure }),
            JobState::External(_) => {
                JobEvent::External(Box::new(ExternalEvent::Cancelled { failure }))
            }
            JobState::DropSnapshot(_) => JobEvent::DropSnapshot(DropEvent::Cancelled { failure }),
            JobState::Verify(_) => JobEvent::Verify(VerifyEvent::Cancelled { failure }),
            JobState::Prune(_) => JobEvent::Prune(PruneEvent::Cancelled { failure }),
            JobState::Staged(_) => JobEvent::Staged(StagedEvent::Cancelled { failure }),
        }
    }

    /// Whether SHOW tells of it: not of one that was cancelled while it waited, which another
    /// cluster never saw, nor of what is a part of another job.
    pub fn is_shown(&self) -> bool {
        let never_sent = matches!(
            self.external_state(),
            Some(ExternalState::Cancelled { seen: None, .. })
        );
        !never_sent && !matches!(self.spec.requester, Requester::Staging(_))
    }

    /// The event that gives up a job that cannot be cancelled any more. `None`: it has an end all
    /// the same, which our own metastore knows as soon as it can be written.
    pub fn given_up(&self, failure: Failure) -> Option<JobEvent> {
        match self.state {
            JobState::Backup(_) => Some(JobEvent::Backup(BackupEvent::Lost { failure })),
            JobState::External(_) => Some(JobEvent::External(Box::new(ExternalEvent::Lost {
                failure,
            }))),
            JobState::DropSnapshot(_) => Some(JobEvent::DropSnapshot(DropEvent::Lost { failure })),
            JobState::Prune(_) => Some(JobEvent::Prune(PruneEvent::MarkLeft)),
            JobState::Staged(_) => Some(JobEvent::Staged(StagedEvent::Lost { failure })),
            JobState::Restore(_) | JobState::Verify(_) => None,
        }
    }

    /// Who it shares its turns with. What another cluster does costs nothing here, and deletions
    /// little. Verifications read for hours, and hold up neither backups nor restores.
    pub fn queue(&self) -> Queue {
        match self.state {
            JobState::Backup(_) | JobState::Restore(_) => Queue::Transfers,
            JobState::Verify(_) => Queue::Verifications,
            JobState::External(_)
            | JobState::DropSnapshot(_)
            | JobState::Prune(_)
            | JobState::Staged(_) => Queue::None,
        }
    }

    /// Whether the statement that began it waits until it is over.
    pub fn is_awaited(&self) -> bool {
        matches!(self.state, JobState::DropSnapshot(_))
    }

    /// Whether it keeps writers from tables of a cluster of ours.
    pub fn locks_tables(&self) -> bool {
        matches!(self.state, JobState::Restore(_))
    }

    /// What to do instead of cancelling it past the point of no return.
    pub fn past_return_hint(&self) -> &'static str {
        match self.state {
            JobState::Staged(_) => {
                "Restored tables take their places; wait, or give it up with CANCEL JOB … FORCE."
            }
            JobState::DropSnapshot(_) => {
                "What is being deleted cannot be taken back; wait, or give it up with CANCEL JOB … FORCE."
            }
            _ => "The commit is under way and cannot be taken back; wait until the job is over.",
        }
    }

    /// What to do instead of pausing it, if it cannot be paused now.
    pub fn unpausable_hint(&self) -> Option<&'static str> {
        match self.state {
            // Its mark keeps backups of every gateway waiting.
            JobState::Prune(_) if self.phase() != Phase::Pending => {
                Some("Backups may wait for it; CANCEL JOB ends it.")
            }
            _ if !self.can_cancel() => Some("The commit is under way; wait until the job is over."),
            _ => None,
        }
    }

    /// What ends it when a user cancels it. SHOW RESTORE tells during which phase that was.
    pub fn user_cancelled(&self) -> Failure {
        let is_restore = self.spec.kind() == JobKind::Restore;
        Failure::user_cancelled(is_restore.then(|| self.phase()))
    }

    /// What an error is that ends the job: in StarRocks' terms where SHOW tells of it, as it is
    /// where a statement waits for it.
    pub fn failure_of(&self, error: &Error) -> Failure {
        match self.state {
            JobState::DropSnapshot(_) | JobState::Verify(_) | JobState::Prune(_) => {
                Failure::verbatim(error)
            }
            JobState::Backup(_)
            | JobState::Restore(_)
            | JobState::External(_)
            | JobState::Staged(_) => Failure::of(error),
        }
    }

    /// When its time is over: never while it is paused. Another cluster watches the time of its
    /// jobs itself.
    pub fn deadline(&self) -> Option<Timestamp> {
        let control = &self.record.control;
        let is_watched = !self.spec.is_elsewhere() && !self.is_held();
        is_watched.then(|| {
            let end = self.created_at.plus_seconds(self.spec.timeout_seconds);
            Timestamp(end.0.saturating_add(control.paused_ms))
        })
    }
}

impl JobEvent {
    /// Its name, for `system.job_events`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backup(event) => event.name(),
            Self::Restore(event) => event.name(),
            Self::External(event) => event.name(),
            Self::DropSnapshot(event) => event.name(),
            Self::Verify(event) => event.name(),
            Self::Prune(event) => event.name(),
            Self::Staged(event) => event.name(),
            Self::Control(event) => event.name(),
        }
    }
}

impl JobCommand {
    /// Whether it does nothing but move bytes to or from a repository, so that nothing of ours is
    /// half done when it is dropped.
    pub fn waits_for_storage(self) -> bool {
        matches!(
            self,
            Self::Backup(
                BackupCommand::Upload(_) | BackupCommand::SaveMeta | BackupCommand::Publish
            ) | Self::Restore(RestoreCommand::Download(_))
                | Self::DropSnapshot(_)
                | Self::Verify(VerifyCommand::Plan | VerifyCommand::Check(_))
                | Self::Prune(PruneCommand::Plan | PruneCommand::Mark | PruneCommand::Delete)
                | Self::Staged(StagedCommand::Prove)
        )
    }

    /// The task it works on, if it is one of many.
    pub fn task(self) -> Option<TaskId> {
        match self {
            Self::Backup(BackupCommand::Snapshot(task) | BackupCommand::Upload(task))
            | Self::Restore(RestoreCommand::Prepare(task) | RestoreCommand::Download(task))
            | Self::Verify(VerifyCommand::Check(task)) => Some(task),
            // Numbered anew: notes about a task of each are not of the same.
            Self::Verify(VerifyCommand::Restore(TaskId(place))) => Some(TaskId(-1 - place)),
            _ => None,
        }
    }
}
