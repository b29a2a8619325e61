//! The machine of a job that a StarRocks cluster does itself: QUEUED → PENDING → submitted →
//! watched → its end.
//!
//! The cluster's own phases are not steps of ours: they are seen, and each sight that tells
//! something new is an event. What the machine guards is the submission. What the database's slot
//! held before is fixed by an event before anything is sent, so after a crash or a lost answer our
//! job is told apart from the one before it, and a statement is not sent twice. A job whose end
//! nobody can tell any more is LOST: that is an end of its own, not a guess.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::contents::{Base, MovedPartition, Selection};
use super::data::Failure;
use super::{CancelCause, End, IllegalEvent, JobKind, Machine, Phase};
use crate::error::ErrorKind;
use crate::names::{BackupTimestamp, DatabaseName, RepositoryName, SnapshotLabel, Timestamp};

/// What is asked of a cluster, or was seen there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalRequest {
    pub kind: JobKind,
    /// Backed up from, or restored into.
    pub database: DatabaseName,
    pub label: SnapshotLabel,
    /// Where it is; `None` for a job of somebody else's, of which that is not shown.
    pub repository: Option<RepositoryName>,
    /// The statement in canonical SQL, with complete names and every convenience resolved; empty
    /// for a job of somebody else's.
    pub statement: String,
    /// `db.table` or `db.table PARTITION (p, …)`, as it was said; empty means everything.
    pub objects: Vec<String>,
    /// Whether it waits for its turn instead of being refused.
    pub queue: bool,
    /// Whether it is about external catalogs, which have a slot of their own.
    pub catalogs: bool,
    /// Restore only: the backup's timestamp as it was said.
    pub timestamp: Option<String>,
    /// The first sight of a job that somebody else submitted.
    pub external: Option<SlotStatus>,
    /// Backup only: the objects, as `db.name`, that it should take, as far as they are known.
    #[serde(default)]
    pub expected: Vec<String>,
    /// Backup only: what it follows, if it takes what has changed alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
}

impl ExternalRequest {
    /// Those of the expected objects that are not among the job's.
    pub fn left_out(&self, objects: &str) -> Vec<String> {
        not_among(&self.expected, objects)
    }
}

/// Those of some objects, as `db.name`, that are not among a backup's, as `BackupObjs` has them:
/// `[db.t], [db.uPARTITIONS (p)]`. Where that is empty, nothing is known yet.
fn not_among(expected: &[String], objects: &str) -> Vec<String> {
    if objects.is_empty() {
        return Vec::new();
    }
    let lacking = expected.iter().filter(|name| !is_taken(name, objects));
    lacking.cloned().collect()
}

/// Whether an object, as `db.name`, is among a backup's, as `BackupObjs` has them.
pub fn is_taken(name: &str, objects: &str) -> bool {
    let objects = objects.trim().trim_start_matches('[').trim_end_matches(']');
    objects.split("], [").any(|object| {
        let rest = object.strip_prefix(name).map(str::trim_start);
        let follows = ["PARTITIONS (", "TEMPORARY PARTITIONS (", "AS "];
        rest.is_some_and(|rest| rest.is_empty() || follows.iter().any(|f| rest.starts_with(f)))
    })
}

/// How long a text of a slot may be in the journal.
const TEXT_CHARS_MAX: usize = 4096;

/// A row of SHOW BACKUP or SHOW RESTORE, read. Times are the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// `JobId`; `None` before the cluster has given one.
    pub job_id: Option<i64>,
    /// `SnapshotName` or `Label`
    pub label: String,
    /// `State`, as it was written.
    pub state: String,
    /// `BackupObjs` or `RestoreObjs`
    pub objects: String,
    /// `CreateTime`
    pub created_at: Option<Timestamp>,
    /// `MetaPreparedTime` of a restore
    pub meta_prepared_at: Option<Timestamp>,
    /// `SnapshotFinishedTime`
    pub snapshot_finished_at: Option<Timestamp>,
    /// `UploadFinishedTime` or `DownloadFinishedTime`
    pub transfer_finished_at: Option<Timestamp>,
    /// `FinishedTime`
    pub finished_at: Option<Timestamp>,
    /// `UnfinishedTasks`
    pub unfinished_tasks: String,
    /// `Progress`
    pub progress: String,
    /// `TaskErrMsg`
    pub task_errors: String,
    /// `Status`
    pub status: String,
    /// `Timeout`, seconds
    pub timeout_seconds: Option<u64>,
    /// `Timestamp` of a restore
    pub timestamp: Option<String>,
    /// `AllowLoad` of a restore
    pub allow_load: Option<bool>,
    /// `ReplicationNum` of a restore
    pub replication_num: Option<u16>,
    /// Objects that the job should take and does not.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// How many tasks `UnfinishedTasks` names.
    #[serde(default)]
    pub tasks_left: u64,
    /// The most that it has named in this phase.
    #[serde(default)]
    pub tasks_most: u64,
}

/// What tells the job in a database's slot from the one before it. Its id alone is no help: it is
/// -1 at first, and another one after the frontend has failed over. Its time alone is none either:
/// it counts seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotIdentity {
    pub kind: JobKind,
    pub label: String,
    /// When the cluster says that it was submitted.
    pub created_at: Option<Timestamp>,
    #[serde(default)]
    pub job_id: Option<i64>,
    /// Its id and when it ended, if it had ended.
    #[serde(default)]
    pub ended: Option<(Option<i64>, Option<Timestamp>)>,
}

impl SlotIdentity {
    /// Whether a later sight is of the same job: what had ended does not begin again.
    pub fn is_of(&self, kind: JobKind, seen: &SlotStatus) -> bool {
        let now = seen.mark(kind);
        let has_one_id = self.job_id.is_some() && self.job_id == now.job_id;
        let may_have_gone_on = match (&self.ended, &now.ended) {
            (None, _) => true,
            (Some((id, at)), Some((id_now, at_now))) => {
                id == id_now && is_same_moment(*at, *at_now, has_one_id)
            }
            (Some(_), None) => false,
        };
        self.kind == kind
            && self.label == now.label
            && is_same_moment(self.created_at, now.created_at, has_one_id)
            && may_have_gone_on
    }
}

/// Between the zones in which versions of StarRocks show times.
const ZONES_APART_MS: u64 = 8 * 3_600_000;

/// Whether two times that a cluster has shown are one: a frontend of another version shows the same
/// one eight hours apart, which counts where the id of the job says the same.
pub fn is_same_moment(a: Option<Timestamp>, b: Option<Timestamp>, has_one_id: bool) -> bool {
    let is_shifted = |a: Timestamp, b: Timestamp| a.0.abs_diff(b.0) == ZONES_APART_MS;
    a == b || has_one_id && a.zip(b).is_some_and(|(a, b)| is_shifted(a, b))
}

impl SlotStatus {
    /// What identifies the job that was seen.
    pub fn mark(&self, kind: JobKind) -> SlotIdentity {
        let ended = self
            .phase()
            .is_over()
            .then_some((self.job_id, self.finished_at));
        SlotIdentity {
            kind,
            label: self.label.clone(),
            created_at: self.created_at,
            job_id: self.job_id,
            ended,
        }
    }

    /// The same with texts that a journal can keep: a job of a hundred thousand tablets has
    /// megabytes of them.
    pub fn abridged(&self) -> Self {
        let cut = |text: &str| match text.char_indices().nth(TEXT_CHARS_MAX) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text.to_owned(),
        };
        Self {
            objects: cut(&self.objects),
            unfinished_tasks: cut(&self.unfinished_tasks),
            progress: cut(&self.progress),
            task_errors: cut(&self.task_errors),
            status: cut(&self.status),
            ..self.clone()
        }
    }

    pub fn phase(&self) -> Phase {
        Phase::parse(&self.state)
    }

    /// Whether this says anything that the other does not. Progress, open tasks and the words of
    /// errors change all the time; that there are errors is news.
    pub fn is_news_after(&self, before: Option<&Self>) -> bool {
        let quiet = |s: &Self| {
            let task_errors = if s.task_errors.is_empty() {
                String::new()
            } else {
                "some".to_owned()
            };
            let quiet = Self {
                progress: String::new(),
                unfinished_tasks: String::new(),
                task_errors,
                ..s.abridged()
            };
            Self {
                timeout_seconds: None,
                tasks_left: 0,
                tasks_most: 0,
                ..quiet
            }
        };
        before.is_none_or(|before| quiet(before) != quiet(self))
    }

    /// Why a job that is seen CANCELLED was.
    fn failure(&self) -> Failure {
        let inner = self
            .status
            .trim()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let (code, message) = inner
            .split_once(", msg: ")
            .unwrap_or(("COMMON_ERROR", inner));
        // The cluster tells it in no other way.
        let cause = match code {
            "TIMEOUT" => Some(CancelCause::Timeout),
            _ => message
                .starts_with("user cancelled")
                .then_some(CancelCause::User),
        };
        let kind = match cause {
            Some(_) => ErrorKind::Cancelled,
            None => kind_of(code, message),
        };
        Failure {
            cause,
            ..Failure::new(super::StatusCode::parse(code), kind, message)
        }
    }
}

/// The kind of what a cluster ends a job with: by its code, and by the words of those that real
/// frontends have said (`tests/transcripts`).
fn kind_of(code: &str, message: &str) -> ErrorKind {
    let says = |words: &str| message.contains(words);
    let of_definitions = [
        "partition type is different",
        "with different schema",
        "different range with partition",
        "conflict range with existing",
        "Only support restore OLAP table",
    ];
    match code {
        "NOT_FOUND" if message.starts_with("table ") => ErrorKind::UndefinedTable,
        "NOT_FOUND" => ErrorKind::UndefinedObject,
        "BAD_FILE" => ErrorKind::Corrupted,
        _ if of_definitions.into_iter().any(says) => ErrorKind::WrongObjectType,
        _ if says("has different replication num") => ErrorKind::InvalidParameter,
        _ if says("different hosts to create table") => ErrorKind::WrongState,
        _ => ErrorKind::Remote,
    }
}

/// The states of a job that another cluster does.
#[derive(Clone, Debug, PartialEq)]
pub enum ExternalState {
    /// It waits for its turn. Nothing is sent.
    Queued,
    /// Its turn has come. Nothing is sent.
    Pending,
    /// The statement may have been sent, or not.
    Submitting {
        /// What the slot held before.
        before: Option<SlotIdentity>,
        /// Whether the label may have been taken before.
        label_was_taken: bool,
        /// Whether that could not be found out.
        label_unknown: bool,
    },
    Watching {
        /// What the slot held before.
        before: Option<SlotIdentity>,
        seen: Option<SlotStatus>,
    },
    Finished {
        seen: Option<SlotStatus>,
    },
    /// CANCELLED there, or here while it waited.
    Cancelled {
        failure: Failure,
        seen: Option<SlotStatus>,
    },
    /// The cluster would not have it.
    Refused {
        failure: Failure,
    },
    /// It is over, and nobody can tell how it ended.
    Lost {
        failure: Failure,
        seen: Option<SlotStatus>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExternalCommand {
    /// Wait until no other job is before it.
    AwaitTurn,
    /// Look at what the slot holds.
    Look,
    /// Send the statement, unless it has arrived already.
    Submit,
    /// Wait for news.
    Watch,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExternalEvent {
    /// No other job is before it.
    TurnCame,
    /// The slot was looked at; from now on the statement may be sent.
    Looked {
        before: Option<SlotIdentity>,
        /// Whether the repository had, or may have had, a snapshot under the backup's label
        /// already: one that is found there later proves nothing then.
        #[serde(default)]
        label_was_taken: bool,
        /// Whether that could not be found out.
        #[serde(default)]
        label_unknown: bool,
        /// What a backup takes, as far as that was looked at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        selection: Option<Arc<Selection>>,
    },
    /// Nothing has changed since the snapshot that the backup follows: nothing is sent.
    Unchanged { selection: Arc<Selection> },
    Accepted {
        /// It, if it was found there and not just taken.
        seen: Option<SlotStatus>,
    },
    /// The cluster refused the statement, in its words.
    Refused { failure: Failure },
    /// The slot was taken by somebody else, so the job waits on.
    #[serde(rename = "bounced")]
    RequeuedBusy,
    /// News.
    Observed {
        seen: SlotStatus,
        /// The backup's timestamp in the repository, once it is known.
        #[serde(default)]
        timestamp: Option<BackupTimestamp>,
        /// What has moved between the first look and the time when the cluster had fixed what it
        /// copies, once that was looked at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        moved: Option<Arc<BTreeSet<MovedPartition>>>,
    },
    /// The cluster has forgotten the job; its snapshot is in the repository.
    Confirmed {
        /// The backup's timestamp.
        timestamp: Option<BackupTimestamp>,
    },
    /// The cluster has forgotten the job, and its end cannot be told.
    Lost { failure: Failure },
    /// The user said CANCEL while it waited.
    Cancelled { failure: Failure },
}

impl ExternalEvent {
    /// Its name, for `system.job_events`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TurnCame => "turn_came",
            Self::Looked { .. } => "looked",
            Self::Unchanged { .. } => "unchanged",
            Self::Accepted { .. } => "accepted",
            Self::Refused { .. } => "refused",
            Self::RequeuedBusy => "bounced",
            Self::Observed { .. } => "observed",
            Self::Confirmed { .. } => "confirmed",
            Self::Lost { .. } => "lost",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}

impl ExternalState {
    /// Where a job begins.
    pub fn first(request: &ExternalRequest) -> Self {
        match &request.external {
            Some(seen) => Self::Watching {
                before: None,
                seen: Some(seen.clone()),
            },
            None if request.queue => Self::Queued,
            None => Self::Pending,
        }
    }

    pub fn seen(&self) -> Option<&SlotStatus> {
        match self {
            Self::Watching { seen, .. }
            | Self::Finished { seen }
            | Self::Cancelled { seen, .. }
            | Self::Lost { seen, .. } => seen.as_ref(),
            Self::Queued | Self::Pending | Self::Submitting { .. } | Self::Refused { .. } => None,
        }
    }

    /// One match: the only way a state changes.
    fn after(self, event: ExternalEvent) -> Result<Self, IllegalEvent> {
        use ExternalEvent as E;
        let illegal = IllegalEvent {
            phase: self.phase(),
            event: event.name(),
        };
        Ok(match (self, event) {
            (Self::Queued, E::TurnCame) => Self::Pending,
            (
                Self::Pending,
                E::Looked {
                    before,
                    label_was_taken,
                    label_unknown,
                    ..
                },
            ) => Self::Submitting {
                before,
                label_was_taken,
                label_unknown,
            },
            (Self::Pending, E::Unchanged { .. }) => Self::Finished { seen: None },
            (Self::Pending | Self::Submitting { .. }, E::Refused { failure }) => {
                Self::Refused { failure }
            }
            // One that has ended is watched once more: its end is worth an event of its own.
            (Self::Submitting { before, .. }, E::Accepted { seen }) => {
                Self::Watching { before, seen }
            }
            (Self::Submitting { .. }, E::RequeuedBusy) => Self::Queued,
            (state @ Self::Watching { .. }, E::Observed { seen, .. }) => state.see(seen),
            (Self::Submitting { .. }, E::Confirmed { .. }) => Self::Finished { seen: None },
            (Self::Watching { seen, .. }, E::Confirmed { .. }) => Self::Finished { seen },
            (Self::Submitting { .. }, E::Lost { failure }) => Self::Lost {
                failure,
                seen: None,
            },
            (Self::Watching { seen, .. }, E::Lost { failure }) => Self::Lost { failure, seen },
            (Self::Queued | Self::Pending, E::Cancelled { failure }) => Self::Cancelled {
                failure,
                seen: None,
            },
            _ => return Err(illegal),
        })
    }

    fn see(self, seen: SlotStatus) -> Self {
        match (self, seen.phase()) {
            (_, Phase::Finished) => Self::Finished { seen: Some(seen) },
            (_, Phase::Cancelled) => Self::Cancelled {
                failure: seen.failure(),
                seen: Some(seen),
            },
            (Self::Watching { before, .. }, _) => Self::Watching {
                before,
                seen: Some(seen),
            },
            (state, _) => state,
        }
    }
}

impl Machine for ExternalState {
    type Command = ExternalCommand;
    type Event = ExternalEvent;

    fn commands(&self) -> Vec<ExternalCommand> {
        match self {
            Self::Queued => vec![ExternalCommand::AwaitTurn],
            Self::Pending => vec![ExternalCommand::Look],
            Self::Submitting { .. } => vec![ExternalCommand::Submit],
            Self::Watching { .. } => vec![ExternalCommand::Watch],
            Self::Finished { .. }
            | Self::Cancelled { .. }
            | Self::Refused { .. }
            | Self::Lost { .. } => Vec::new(),
        }
    }

    fn apply(&mut self, event: &ExternalEvent) -> Result<(), IllegalEvent> {
        *self = self.clone().after(event.clone())?;
        Ok(())
    }

    fn phase(&self) -> Phase {
        match self {
            Self::Queued => Phase::Queued,
            Self::Pending | Self::Submitting { .. } | Self::Watching { seen: None, .. } => {
                Phase::Pending
            }
            Self::Watching {
                seen: Some(seen), ..
            } => seen.phase(),
            Self::Finished { .. } => Phase::Finished,
            Self::Cancelled { .. } => Phase::Cancelled,
            Self::Refused { .. } => Phase::Refused,
            Self::Lost { .. } => Phase::Lost,
        }
    }

    fn end(&self) -> Option<End> {
        match self {
            Self::Queued | Self::Pending | Self::Submitting { .. } | Self::Watching { .. } => None,
            Self::Finished { .. } => Some(End::Finished),
            Self::Cancelled { failure, .. } => Some(failure.end()),
            Self::Refused { .. } => Some(End::Refused),
            Self::Lost { .. } => Some(End::Lost),
        }
    }

    fn is_over(&self) -> bool {
        self.end().is_some()
    }

    /// Nothing has been sent.
    fn can_cancel(&self) -> bool {
        matches!(self, Self::Queued | Self::Pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: &str, status: &str) -> SlotStatus {
        SlotStatus {
            label: "l".into(),
            state: state.into(),
            status: status.into(),
            ..SlotStatus::default()
        }
    }

    fn failure() -> Failure {
        Failure::user_cancelled(None)
    }

    /// The full table: every state with every event, and what comes of it.
    #[test]
    fn every_state_takes_its_events_and_no_others() {
        let watching = |state: Option<&str>| ExternalState::Watching {
            before: None,
            seen: state.map(|s| seen(s, "[OK]")),
        };
        let states = [
            ExternalState::Queued,
            ExternalState::Pending,
            ExternalState::Submitting {
                before: None,
                label_was_taken: false,
                label_unknown: false,
            },
            watching(None),
            watching(Some("UPLOADING")),
            ExternalState::Finished { seen: None },
            ExternalState::Cancelled {
                failure: failure(),
                seen: None,
            },
            ExternalState::Refused { failure: failure() },
            ExternalState::Lost {
                failure: failure(),
                seen: None,
            },
        ];
        let events = [
            ExternalEvent::TurnCame,
            ExternalEvent::Looked {
                before: None,
                label_was_taken: false,
                label_unknown: false,
                selection: None,
            },
            ExternalEvent::Unchanged {
                selection: Arc::default(),
            },
            ExternalEvent::Accepted { seen: None },
            ExternalEvent::Refused { failure: failure() },
            ExternalEvent::RequeuedBusy,
            ExternalEvent::Observed {
                seen: seen("SNAPSHOTING", "[OK]"),
                timestamp: None,
                moved: None,
            },
            ExternalEvent::Observed {
                seen: seen("FINISHED", "[OK]"),
                timestamp: None,
                moved: None,
            },
            ExternalEvent::Observed {
                seen: seen("CANCELLED", "[COMMON_ERROR, msg: user cancelled]"),
                timestamp: None,
                moved: None,
            },
            ExternalEvent::Confirmed { timestamp: None },
            ExternalEvent::Lost { failure: failure() },
            ExternalEvent::Cancelled { failure: failure() },
        ];
        let no = "";
        let expected = [
            // TurnCame, Looked, Unchanged, Accepted, Refused, RequeuedBusy, Observed ×3, Confirmed, Lost,
            // Cancelled
            [
                "PENDING",
                no,
                no,
                no,
                no,
                no,
                no,
                no,
                no,
                no,
                no,
                "CANCELLED",
            ],
            [
                no,
                "PENDING",
                "FINISHED",
                no,
                "REFUSED",
                no,
                no,
                no,
                no,
                no,
                no,
                "CANCELLED",
            ],
            [
                no, no, no, "PENDING", "REFUSED", "QUEUED", no, no, no, "FINISHED", "LOST", no,
            ],
            [
                no,
                no,
                no,
                no,
                no,
                no,
                "SNAPSHOTING",
                "FINISHED",
                "CANCELLED",
                "FINISHED",
                "LOST",
                no,
            ],
            [
                no,
                no,
                no,
                no,
                no,
                no,
                "SNAPSHOTING",
                "FINISHED",
                "CANCELLED",
                "FINISHED",
                "LOST",
                no,
            ],
            [no; 12],
            [no; 12],
            [no; 12],
            [no; 12],
        ];
        crate::job::machine::tests::check_table(&states, &events, &expected);
        crate::job::machine::tests::check_names(&events, ExternalEvent::name);
    }

    #[test]
    fn a_status_says_why() {
        for (status, code, kind, message) in [
            (
                "[COMMON_ERROR, msg: user cancelled, current state: COMMIT]",
                "COMMON_ERROR",
                ErrorKind::Cancelled,
                "user cancelled, current state: COMMIT",
            ),
            ("[TIMEOUT, msg: ]", "TIMEOUT", ErrorKind::Cancelled, ""),
            (
                "[NOT_FOUND, msg: table 7 has been dropped]",
                "NOT_FOUND",
                ErrorKind::UndefinedTable,
                "table 7 has been dropped",
            ),
            (
                "[COMMON_ERROR, msg: Partition p1 in table orders has different replication num '1' with partition in repository, which is 3]",
                "COMMON_ERROR",
                ErrorKind::InvalidParameter,
                "Partition p1 in table orders has different replication num '1' with partition in repository, which is 3",
            ),
            (
                "[COMMON_ERROR, msg: Table's partition type is different]",
                "COMMON_ERROR",
                ErrorKind::WrongObjectType,
                "Table's partition type is different",
            ),
            (
                "[OLAP_VERSION_ALREADY_MERGED, msg: x]",
                "OLAP_VERSION_ALREADY_MERGED",
                ErrorKind::Remote,
                "x",
            ),
            ("odd", "COMMON_ERROR", ErrorKind::Remote, "odd"),
        ] {
            let failure = seen("CANCELLED", status).failure();
            assert_eq!(
                (failure.code.name(), failure.kind, failure.message.as_str()),
                (code, kind, message),
                "{status}"
            );
        }
    }

    #[test]
    fn what_a_backup_leaves_out_is_told_by_its_objects() {
        let expected = ["d.t", "d.t3", "d.T3", "d.v", "d.p"].map(String::from);
        for (objects, left_out) in [
            ("[d.t], [d.T3], [d.v], [d.pPARTITIONS (p1, p2)]", "d.t3"),
            ("[d.t], [d.t3], [d.T3], [d.v AS w], [d.p]", ""),
            ("[d.t3]", "d.t d.T3 d.v d.p"),
            ("", ""),
        ] {
            assert_eq!(
                not_among(&expected, objects).join(" "),
                left_out,
                "{objects}"
            );
        }
    }

    #[test]
    fn only_phase_changes_are_events() {
        let before = SlotStatus {
            progress: "[1: 2/3]".into(),
            ..seen("UPLOADING", "[OK]")
        };
        let on = SlotStatus {
            progress: "[1: 3/3]".into(),
            ..before.clone()
        };
        assert!(!on.is_news_after(Some(&before)) && on.is_news_after(None));
        assert!(
            SlotStatus {
                state: "SAVE_META".into(),
                ..on.clone()
            }
            .is_news_after(Some(&on))
        );
        let failing = SlotStatus {
            task_errors: "[1: no]".into(),
            ..on.clone()
        };
        assert!(failing.is_news_after(Some(&on)));
        assert!(
            !SlotStatus {
                task_errors: "[1: still no]".into(),
                ..on.clone()
            }
            .is_news_after(Some(&failing))
        );
        assert_eq!(
            SlotStatus {
                progress: "é".repeat(5000),
                ..on
            }
            .abridged()
            .progress
            .chars()
            .count(),
            TEXT_CHARS_MAX + 1
        );
    }

    #[test]
    fn what_has_ended_does_not_begin_again() {
        let at = |state: &str, id: Option<i64>| SlotStatus {
            created_at: Some(Timestamp(1000)),
            job_id: id,
            ..seen(state, "[OK]")
        };
        let before = at("CANCELLED", Some(7)).mark(JobKind::Backup);
        // The same label in the same second: a running one, or one that has ended under another id,
        // is another job.
        for (state, id, same) in [
            ("CANCELLED", Some(7), true),
            ("PENDING", None, false),
            ("FINISHED", Some(8), false),
        ] {
            assert_eq!(
                before.is_of(JobKind::Backup, &at(state, id)),
                same,
                "{state}"
            );
        }
        let running = at("PENDING", None).mark(JobKind::Backup);
        assert!(
            running.is_of(JobKind::Backup, &at("FINISHED", Some(9)))
                && !running.is_of(JobKind::Restore, &at("PENDING", None))
        );
    }
}
