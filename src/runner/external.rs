//! The steps of a job that another cluster does: wait for the turn, look, submit once, watch.
//!
//! The rule that everything here keeps: a statement is sent only when the slot proves that it has
//! not arrived. Where the slot proves nothing any more, the repository is asked; where that does
//! not tell either, the job is lost, and says so.

mod select;
mod submit;
mod watch;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use self::submit::{Cancelled, Submitted};
use super::Inner;
use crate::chains::Chains;
use crate::cluster::{Cluster, ExternalCluster, SeenSlot, SendError, StepError};
use crate::error::{Error, ErrorKind};
use crate::job::*;
use crate::names::*;
use crate::statement::{Statement, parse_one};
use crate::store::JobFilter;

/// So many looks in a row must miss a job before it counts as forgotten, and for so many fast
/// looks' time: a frontend that has just become the leader may lag.
const MISSES: u32 = 3;
const MISSING_LOOKS: u32 = 10;
/// A statement that was not answered for so long and has left no trace is not sent again: its trace
/// may have been swept away.
const DOUBT_MS_MAX: i64 = 600_000;

/// A job, and the cluster that does it.
pub(super) struct Step<'a> {
    pub inner: &'a Arc<Inner>,
    pub cluster: &'a Arc<dyn Cluster>,
    pub external: &'a dyn ExternalCluster,
    pub job: &'a Job,
    pub request: &'a ExternalRequest,
    /// Tries of this step before this one.
    pub attempts: u32,
    /// Whether this process admitted the job. If not, an earlier one may have sent the statement.
    pub is_fresh: bool,
    pub abandon: &'a CancellationToken,
}

fn abandoned() -> StepError {
    StepError::Retry(Error::new(ErrorKind::Cancelled, "the job was cancelled"))
}

/// Whether a backup's label was taken before its statement was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LabelBefore {
    Free,
    Taken,
    Unknown,
}

/// Whether a sight in the job's slot is of this job, as far as the two of them tell.
fn is_ours(job: &Job, slot: &SeenSlot) -> bool {
    let (Some(state), Some(request)) = (job.external_state(), job.spec.external()) else {
        return false;
    };
    if slot.kind != job.spec.kind() || slot.seen.label != request.label.as_str() {
        return false;
    }
    match state {
        ExternalState::Watching {
            seen: Some(known), ..
        } => {
            let has_one_id = known.job_id.is_some() && known.job_id == slot.seen.job_id;
            known.created_at.is_none()
                || is_same_moment(known.created_at, slot.seen.created_at, has_one_id)
        }
        ExternalState::Submitting { before, .. }
        | ExternalState::Watching { before, seen: None } => {
            let wanted = request.timestamp.as_ref();
            let same_backup = wanted.is_none()
                || slot.seen.timestamp.is_none()
                || wanted == slot.seen.timestamp.as_ref();
            let was_there = before
                .as_ref()
                .is_some_and(|b| b.is_of(slot.kind, &slot.seen));
            same_backup && !was_there && names_the_same(job, request, &slot.seen)
        }
        _ => false,
    }
}

/// Whether a sight names every table that was asked for. Kinds of objects are not tables, and are
/// not told.
fn names_the_same(job: &Job, request: &ExternalRequest, seen: &SlotStatus) -> bool {
    let selection = job.record.selection.as_ref();
    if let Some(selection) = selection.filter(|selection| selection.statement.is_some()) {
        let parts = selection.contents.parts();
        let mut names = parts.iter().map(|part| part.table.as_str());
        return seen.objects.is_empty() || names.all(|name| seen.objects.contains(name));
    }
    let names = request.objects.iter().filter(|o| !o.starts_with("ALL "));
    let table = |object: &str| {
        let name = object.split_once('.').map_or(object, |(_, rest)| rest);
        name.split(" PARTITION (")
            .next()
            .unwrap_or(name)
            .split(" AS ")
            .next()
            .unwrap_or(name)
            .to_owned()
    };
    seen.objects.is_empty()
        || names
            .map(|o| table(o))
            .all(|name| seen.objects.contains(&name))
}

impl Step<'_> {
    /// Carries out one command. Leaving it half-way is as if the process had died there.
    pub(super) async fn perform(
        &self,
        command: ExternalCommand,
    ) -> Result<ExternalEvent, StepError> {
        tokio::select! {
            done = self.carry_out(command) => done,
            () = self.abandon.cancelled() => Err(abandoned()),
        }
    }

    async fn carry_out(&self, command: ExternalCommand) -> Result<ExternalEvent, StepError> {
        match command {
            ExternalCommand::AwaitTurn => self.await_turn().await,
            ExternalCommand::Look => self.look().await,
            ExternalCommand::Submit => self.submit().await,
            ExternalCommand::Watch => self.watch().await,
        }
    }

    fn note(&self, error: Option<String>, seen: Option<SlotStatus>) {
        self.inner.progress.note(self.job.id, None, |note| {
            note.error = error;
            note.seen = seen.or(note.seen.take());
        });
    }

    /// ALTER CLUSTER puts another one in its place: what waits begins anew with that.
    fn check_cluster(&self) -> Result<(), StepError> {
        let now = self.inner.cluster(&self.job.spec.cluster)?;
        if Arc::ptr_eq(&now, self.cluster) {
            return Ok(());
        }
        Err(StepError::Retry(Error::new(
            ErrorKind::Connection,
            "the cluster is reached in another way now",
        )))
    }

    /// Whether an earlier try, of this process or of one before it, may have sent the statement.
    fn may_have_been_sent(&self) -> bool {
        !self.is_fresh || self.attempts > 0
    }

    async fn await_turn(&self) -> Result<ExternalEvent, StepError> {
        // Whoever was refused although the slot looked free does not ask again at once.
        if let Some(requeues) = self.job.record.requeues.checked_sub(1) {
            let polling = self.external.polling();
            let wait = polling
                .fast
                .saturating_mul(1 << requeues.min(16))
                .min(polling.slow.max(polling.fast));
            self.note(
                Some("waits: the cluster was busy when it was sent".into()),
                None,
            );
            self.inner.env.clock.sleep(wait).await;
        }
        let poller = self.inner.poller(&self.job.spec.cluster);
        let _interest = poller.interest(&self.request.database);
        // So that what somebody else runs stands in the history while others wait for it.
        poller.poll_soon();
        let (mut polls, mut settled) = (poller.polls(), self.inner.settled.subscribe());
        loop {
            polls.borrow_and_update();
            settled.borrow_and_update();
            self.check_cluster()?;
            let Some(reason) = self.block_reason().await? else {
                return Ok(ExternalEvent::TurnCame);
            };
            self.note(Some(reason), None);
            tokio::select! {
                changed = polls.changed() => changed.map_err(|_| abandoned())?,
                changed = settled.changed() => changed.map_err(|_| abandoned())?,
            }
        }
    }

    /// Why it is not the job's turn.
    async fn block_reason(&self) -> Result<Option<String>, StepError> {
        let (cluster, database) = (&self.job.spec.cluster, &self.request.database);
        // What is a part of another job comes when that one does.
        let place = match self.job.spec.requester {
            Requester::Staging(whole) => whole,
            _ => self.job.id,
        };
        for before in self
            .inner
            .store
            .unsettled(cluster, database)
            .await?
            .into_iter()
            .filter(|id| *id < place)
        {
            // A journal that does not read is told when the server starts, and holds up nobody.
            let Ok(first) = self.inner.store.load(before).await else {
                continue;
            };
            let (id, kind, label) = (first.id, first.spec.kind(), first.spec.label());
            return Ok(Some(format!(
                "waits for job {id}, a {kind} of {label}, which is {}",
                first.phase()
            )));
        }
        Ok(match self.external.slot(database).await {
            Ok(Some(slot)) if !slot.seen.phase().is_over() => Some(format!(
                "waits for a {} of {} that somebody else submitted, which is {}",
                slot.kind, slot.seen.label, slot.seen.state
            )),
            Ok(_) => None,
            Err(e) => Some(e.to_string()),
        })
    }

    /// What an error means for a job of which nothing has been sent: to the user who waits for the
    /// verdict it is one; a job that nobody waits for outlasts what passes.
    fn give_up_or_retry(&self, error: Error) -> Result<ExternalEvent, StepError> {
        use ErrorKind as K;
        let passes = matches!(
            error.kind,
            K::Connection | K::Storage | K::Shutdown | K::TooManyConnections | K::Remote
        );
        let is_awaited = self.is_fresh && self.attempts == 0 && !self.request.queue;
        if is_awaited || !passes {
            return Ok(ExternalEvent::Refused {
                failure: Failure::of(&error),
            });
        }
        Err(StepError::Retry(error))
    }

    async fn look(&self) -> Result<ExternalEvent, StepError> {
        let selection = match self.request.kind {
            JobKind::Backup => self.select().await,
            _ => Ok(None),
        };
        let selection = match selection {
            Ok(selection) => selection,
            Err(e) => return self.give_up_or_retry(e),
        };
        let slot = match self.external.slot(&self.request.database).await {
            Ok(slot) => slot,
            Err(e) => return self.give_up_or_retry(e),
        };
        let label = match (&self.request.repository, self.request.kind) {
            (Some(repository), JobKind::Backup) => {
                let found = self
                    .external
                    .snapshots(repository.as_str(), Some(self.request.label.as_str()))
                    .await;
                match found {
                    Ok(found) if found.is_empty() => LabelBefore::Free,
                    Ok(_) => LabelBefore::Taken,
                    Err(_) => LabelBefore::Unknown,
                }
            }
            _ => LabelBefore::Free,
        };
        if let Some(selection) = &selection
            && selection.is_unchanged()
        {
            return self.record_unchanged(selection, label).await;
        }
        Ok(ExternalEvent::Looked {
            before: slot.map(|s| s.seen.mark(s.kind)),
            label_was_taken: label != LabelBefore::Free,
            label_unknown: label == LabelBefore::Unknown,
            selection,
        })
    }

    /// The end of a backup that has nothing to take. No cluster looks whether its label is in use.
    async fn record_unchanged(
        &self,
        selection: &Arc<Selection>,
        label: LabelBefore,
    ) -> Result<ExternalEvent, StepError> {
        let name = &self.request.label;
        let known = match &self.request.repository {
            Some(repository) if label == LabelBefore::Free => {
                let chains = Chains {
                    store: &*self.inner.store,
                    cluster: &self.job.spec.cluster,
                    repository,
                };
                chains.is_unchanged(self.external, name).await
            }
            _ => Ok(label == LabelBefore::Taken),
        };
        match known {
            _ if label == LabelBefore::Unknown => {
                let message = format!("whether snapshot {name} is in the repository is not known");
                self.give_up_or_retry(Error::new(ErrorKind::Remote, message))
            }
            Ok(false) => Ok(ExternalEvent::Unchanged {
                selection: selection.clone(),
            }),
            Ok(true) => {
                let message = format!("Snapshot with name '{name}' already exist in repository");
                let error = Error::new(ErrorKind::DuplicateObject, message);
                self.give_up_or_retry(error)
            }
            Err(e) => self.give_up_or_retry(e),
        }
    }

    fn statement(&self) -> Result<Statement, Error> {
        let selection = self.job.record.selection.as_ref();
        let selected = selection.and_then(|selection| selection.statement.as_deref());
        parse_one(selected.unwrap_or(&self.request.statement))
    }

    async fn submit(&self) -> Result<ExternalEvent, StepError> {
        let Some(ExternalState::Submitting { before, .. }) = self.job.external_state() else {
            return Err(StepError::Fatal(Error::internal(
                "a statement was to be sent in a state that does not have it",
            )));
        };
        let rendered = match self.statement() {
            Ok(statement) => self.external.render(&statement).await,
            Err(e) => Err(e),
        };
        let sql = match rendered {
            Ok(sql) => sql,
            // What may have been sent is not refused by anything that is found out here.
            Err(e) if self.may_have_been_sent() => return Err(StepError::Retry(e)),
            Err(e) => return self.give_up_or_retry(e),
        };
        if self.may_have_been_sent()
            && let Some(event) = self.arrived(before.as_ref(), &sql).await?
        {
            return Ok(event);
        }
        if !self.may_have_been_sent()
            && let Some(gone) = self.check_older().await?
        {
            return Ok(gone);
        }
        match self.external.send(&sql).await {
            Ok(()) => {
                // A first look, so that whoever waits for the verdict hears what is left out.
                let looked = self.external.slot(&self.request.database).await;
                let found = match looked {
                    Ok(slot) => self.ours(slot.as_ref()).await.unwrap_or_default(),
                    Err(_) => None,
                };
                let seen = found.filter(|seen| !seen.phase().is_over());
                Ok(ExternalEvent::Accepted {
                    seen: seen.map(|seen| self.completed(seen).abridged()),
                })
            }
            Err(SendError::Refused { error, busy }) => self.refused(error, busy).await,
            Err(SendError::NotSent(error)) if self.may_have_been_sent() => {
                Err(StepError::Retry(error))
            }
            Err(SendError::NotSent(error)) => self.give_up_or_retry(error),
            Err(SendError::InDoubt(error)) => Err(StepError::Retry(error)),
        }
    }

    /// Refuses a backup that follows others of which one is gone: it could not be restored. From the
    /// look on nobody can drop them from here.
    async fn check_older(&self) -> Result<Option<ExternalEvent>, StepError> {
        let selection = self.job.record.selection.as_ref();
        let (Some(selection), Some(repository)) = (selection, &self.request.repository) else {
            return Ok(None);
        };
        let chains = Chains {
            store: &*self.inner.store,
            cluster: &self.job.spec.cluster,
            repository,
        };
        for older in &selection.contents.older {
            match chains.is_stored(self.external, older).await {
                Ok(true) => {}
                Ok(false) => {
                    let message = format!(
                        "snapshot {}, which has a part of what is backed up, was dropped meanwhile",
                        older.label
                    );
                    let error = Error::new(ErrorKind::WrongState, message).hint("Say it again.");
                    let failure = Failure::of(&error);
                    return Ok(Some(ExternalEvent::Refused { failure }));
                }
                Err(e) => return self.give_up_or_retry(e).map(Some),
            }
        }
        Ok(None)
    }

    /// What a refusal means. After a lost answer it may be about our own first statement.
    async fn refused(&self, error: Error, busy: bool) -> Result<ExternalEvent, StepError> {
        if self.may_have_been_sent() {
            let slot = self
                .external
                .slot(&self.request.database)
                .await
                .map_err(StepError::Retry)?;
            if let Some(found) = self.ours(slot.as_ref()).await? {
                return Ok(ExternalEvent::Accepted { seen: Some(found) });
            }
            if busy && slot.is_none_or(|s| s.seen.phase().is_over()) {
                // Something is on its way into the slot, and it may be ours.
                return Err(StepError::Retry(error));
            }
        }
        if busy && self.request.queue {
            return Ok(ExternalEvent::RequeuedBusy);
        }
        Ok(ExternalEvent::Refused {
            failure: Failure::of(&error),
        })
    }

    /// What was seen, if it is this job and no other of ours has claimed it.
    async fn ours(&self, slot: Option<&SeenSlot>) -> Result<Option<SlotStatus>, StepError> {
        let Some(slot) = slot.filter(|s| is_ours(self.job, s)) else {
            return Ok(None);
        };
        if self
            .job
            .external_state()
            .is_some_and(|state| state.seen().is_some())
        {
            return Ok(Some(slot.seen.clone()));
        }
        let filter = JobFilter {
            cluster: Some(self.job.spec.cluster.to_string()),
            db_name: Some(self.request.database.to_string()),
            snapshot: Some(slot.seen.label.clone()),
            ..JobFilter::default()
        };
        let claims = |row: &JobRow| {
            row.job_id != self.job.id
                && row.kind == slot.kind
                && row
                    .seen
                    .as_ref()
                    .is_some_and(|seen| seen.mark(slot.kind).is_of(slot.kind, &slot.seen))
        };
        let claimed = self.inner.store.jobs(&filter).await?.iter().any(claims);
        Ok((!claimed).then(|| slot.seen.clone()))
    }

    /// What became of a statement that may have been sent; `None`: it has not arrived and will not.
    async fn arrived(
        &self,
        before: Option<&SlotIdentity>,
        sql: &str,
    ) -> Result<Option<ExternalEvent>, StepError> {
        let retry = StepError::Retry;
        let slot = self
            .external
            .slot(&self.request.database)
            .await
            .map_err(retry)?;
        if let Some(found) = self.ours(slot.as_ref()).await? {
            return Ok(Some(ExternalEvent::Accepted { seen: Some(found) }));
        }
        let is_as_before = match (&slot, before) {
            (Some(now), Some(before)) => before.is_of(now.kind, &now.seen),
            // An empty slot proves something only for a while: what had been in it is swept away
            // some day.
            (None, None) => self
                .job
                .record
                .looked_at
                .is_some_and(|at| (0..DOUBT_MS_MAX).contains(&(self.inner.env.now().0 - at.0))),
            _ => false,
        };
        if !is_as_before {
            // Ours may have come and gone before what is there now.
            let now = slot.map_or_else(
                || "nothing".to_owned(),
                |s| format!("a {} of {}", s.kind, s.seen.label),
            );
            return self
                .forgotten(&format!(
                    "the answer to the statement was lost, and the slot holds {now} now"
                ))
                .await
                .map(Some);
        }
        if self.external.is_in_flight(sql).await.map_err(retry)? {
            return Err(StepError::Retry(Error::new(
                ErrorKind::Connection,
                "the cluster is still working on the statement",
            )));
        }
        // It may have come to its end between the two looks.
        let slot = self
            .external
            .slot(&self.request.database)
            .await
            .map_err(retry)?;
        Ok(self
            .ours(slot.as_ref())
            .await?
            .map(|found| ExternalEvent::Accepted { seen: Some(found) }))
    }

    /// The end of a job of which the cluster knows no more, as far as its repository tells.
    async fn forgotten(&self, why: &str) -> Result<ExternalEvent, StepError> {
        // Whoever reads that it is over finds what it has made.
        self.cluster.forget_names();
        let spec = self.request;
        let seen = self.job.external_state().and_then(ExternalState::seen);
        let last = seen.map_or_else(|| "never".to_owned(), |s| format!("in {}", s.state));
        let (taken, unknown) = match self.job.external_state() {
            Some(ExternalState::Submitting {
                label_was_taken,
                label_unknown,
                ..
            }) => (*label_was_taken, *label_unknown),
            _ => (false, false),
        };
        let known = match (&spec.repository, spec.kind) {
            (Some(repository), JobKind::Backup) => match self.listed(repository).await? {
                Some(_) if unknown => format!(
                    "whether snapshot {} was in repository {repository} before is not known",
                    spec.label
                ),
                Some(_) if taken => format!(
                    "snapshot {} was in repository {repository} before",
                    spec.label
                ),
                Some(timestamp) => {
                    return Ok(ExternalEvent::Confirmed {
                        timestamp: BackupTimestamp::new(timestamp).ok(),
                    });
                }
                None => format!(
                    "there is no whole snapshot {} in repository {repository}",
                    spec.label
                ),
            },
            (None, JobKind::Backup) => "its repository is not known".to_owned(),
            (_, JobKind::Restore | JobKind::DropSnapshot | JobKind::Verify | JobKind::Prune) => {
                "look at the tables to see whether they were restored".to_owned()
            }
        };
        let message = format!("{why}; the job was last seen {last}; {known}");
        let failure = Failure::new(StatusCode::CommonError, ErrorKind::Remote, message);
        Ok(ExternalEvent::Lost { failure })
    }

    /// The timestamp of the job's snapshot, if it is whole: by the cluster, or by what is stored
    /// when the cluster cannot tell.
    async fn listed(&self, repository: &RepositoryName) -> Result<Option<String>, StepError> {
        let label = self.request.label.as_str();
        match self
            .external
            .snapshots(repository.as_str(), Some(label))
            .await
        {
            Ok(found) => Ok(found
                .into_iter()
                .find(|s| s.label == label && s.status == "OK")
                .and_then(|s| {
                    // What is half written is shown among them.
                    let mut times = s.timestamps.into_iter().rev();
                    times.find(|time| BackupTimestamp::new(time.as_str()).is_ok())
                })),
            Err(e) => match self
                .inner
                .stored_snapshot(&self.job.spec.cluster, repository, label)
                .await
            {
                Ok(found) => Ok(found),
                Err(_)
                    if matches!(
                        e.kind,
                        ErrorKind::Connection | ErrorKind::TooManyConnections
                    ) =>
                {
                    Err(StepError::Retry(e))
                }
                // It answers, and has no such repository any more.
                Err(_) => Ok(None),
            },
        }
    }
}
