//! The loop that runs one job: start what the machine says, append what came of it, believe it, go on.
//!
//! Order matters. An event is applied to a copy, then appended, then believed. After a cancellation nothing new is started, and
//! clean-up waits until everything in flight has ended: what is deleted must not be written again.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::perform::perform;
use super::{CancelRequest, Inner, cannot_cancel, overdue};
use crate::cluster::StepError;
use crate::error::{Error, ErrorKind};
use crate::job::{BackupCommand, BackupEvent, Failure, Job, JobCommand, JobEvent, JobKind, JobState, RemoteEvent, RestoreCommand};

/// How long a transfer may go on once its job has ended: long enough for the file it is at, where storage answers at all.
const ABANDON_GRACE: Duration = Duration::from_secs(5);

/// Whether a step does nothing but move bytes to or from a repository, so that nothing of ours is half done when it is dropped.
fn waits_for_storage(command: JobCommand) -> bool {
    matches!(
        command,
        JobCommand::Backup(BackupCommand::Upload(_) | BackupCommand::SaveMeta | BackupCommand::Publish)
            | JobCommand::Restore(RestoreCommand::Download(_))
    )
}

/// Why the loop stopped before the job was over.
struct Stopped;

struct Drive<'a> {
    inner: &'a Arc<Inner>,
    job: Job,
    flying: JoinSet<(JobCommand, Result<JobEvent, StepError>)>,
    /// What is in `flying`.
    started: HashSet<JobCommand>,
    attempts: HashMap<JobCommand, u32>,
    last_error: Option<String>,
    /// Tells what is in flight to end.
    abandon: CancellationToken,
    /// Tells those who wait how the job stands.
    states: watch::Sender<JobState>,
    is_fresh: bool,
}

/// Runs a job until it has nothing left to do or the runner stops.
pub(super) async fn drive(
    inner: &Arc<Inner>,
    job: Job,
    mut requests: mpsc::Receiver<CancelRequest>,
    states: watch::Sender<JobState>,
    is_fresh: bool,
) {
    let mut drive = Drive {
        inner,
        job,
        flying: JoinSet::new(),
        started: HashSet::new(),
        attempts: HashMap::new(),
        last_error: None,
        abandon: inner.stop.child_token(),
        states,
        is_fresh,
    };
    // What another cluster does costs nothing here.
    let needs_turn = drive.job.spec.is_exclusive();
    // A job that waits for its turn can be cancelled, and its time runs.
    let turn = inner.running.acquire();
    tokio::pin!(turn);
    let mut permit = None;
    let mut timer = drive.timer();
    while !drive.job.commands().is_empty() {
        if permit.is_some() || drive.job.is_settled() || !needs_turn {
            drive.start_commands();
        }
        let step = tokio::select! {
            biased;
            () = inner.stop.cancelled() => Err(Stopped),
            Some(request) = requests.recv() => drive.cancel(request).await,
            () = &mut timer => {
                timer = Box::pin(std::future::pending());
                drive.time_over().await
            }
            Some(done) = drive.flying.join_next() => drive.landed(done).await,
            acquired = &mut turn, if permit.is_none() && needs_turn => {
                permit = Some(acquired.expect("the semaphore is never closed"));
                Ok(())
            }
        };
        if step.is_err() {
            break;
        }
        if timer_is_moot(&drive.job) {
            timer = Box::pin(std::future::pending());
        }
    }
    drive.abandon.cancel();
    while drive.flying.join_next().await.is_some() {}
}

/// Past the point of no return, and past the end, there is no deadline.
fn timer_is_moot(job: &Job) -> bool {
    !job.can_cancel()
}

impl Drive<'_> {
    fn timer(&self) -> crate::env::BoxFuture<'static, ()> {
        let Some(deadline) = self.job.deadline() else { return Box::pin(std::future::pending()) };
        let left = deadline.0 - self.inner.env.now().0;
        self.inner.env.clock.sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// Starts what may run and is not running, up to the limit. Clean-up runs alone.
    fn start_commands(&mut self) {
        let commands = self.job.commands();
        if self.job.is_settled() && !self.flying.is_empty() {
            let releasing = self.started.iter().any(|c| commands.contains(c));
            if !releasing {
                return;
            }
        }
        for command in commands {
            if self.started.len() >= self.inner.settings.task_concurrency {
                break;
            }
            if self.started.insert(command) {
                self.launch(command);
            }
        }
    }

    fn launch(&mut self, command: JobCommand) {
        let attempts = self.attempts.get(&command).copied().unwrap_or(0);
        let (inner, job, abandon) = (self.inner.clone(), self.job.clone(), self.abandon.clone());
        let wait = backoff(&inner, attempts);
        let (settled, is_fresh) = (self.job.is_settled(), self.is_fresh);
        self.flying.spawn(tracing::Instrument::in_current_span(async move {
            if !wait.is_zero() {
                tokio::select! {
                    () = inner.env.clock.sleep(wait) => {}
                    () = abandon.cancelled(), if !settled => {}
                    () = inner.stop.cancelled() => {}
                }
            }
            if inner.stop.is_cancelled() || (abandon.is_cancelled() && !settled) {
                let stopped = Error::new(ErrorKind::Cancelled, "the job was cancelled");
                return (command, Err(StepError::Retry(stopped)));
            }
            let work = AssertUnwindSafe(perform(&inner, &job, command, attempts, is_fresh, &abandon)).catch_unwind();
            // Storage that hangs must hold up neither the end of the job nor that of the server.
            let given_up = async {
                if !waits_for_storage(command) {
                    std::future::pending::<()>().await;
                }
                abandon.cancelled().await;
                inner.env.clock.sleep(ABANDON_GRACE).await;
            };
            let result = tokio::select! {
                result = work => {
                    result.unwrap_or_else(|_| Err(StepError::Retry(Error::internal("a step of the job died"))))
                }
                () = given_up => Err(StepError::Retry(Error::new(ErrorKind::Cancelled, "storage did not answer before the job ended"))),
            };
            (command, result)
        }));
    }

    /// Something in flight has ended.
    async fn landed(
        &mut self,
        done: Result<(JobCommand, Result<JobEvent, StepError>), tokio::task::JoinError>,
    ) -> Result<(), Stopped> {
        // What ended because the runner stops must not be taken for the job's own end.
        if self.inner.stop.is_cancelled() {
            return Err(Stopped);
        }
        let (command, result) = done.map_err(|_| Stopped)?;
        self.started.remove(&command);
        if !self.job.commands().contains(&command) {
            return Ok(());
        }
        match result {
            Ok(event) => self.append(event).await,
            Err(StepError::Fatal(error)) if self.job.can_cancel() => {
                tracing::warn!(error = %error, state = self.job.state_name(), "the job fails");
                self.end(Failure::of(&error)).await
            }
            Err(StepError::Fatal(error) | StepError::Retry(error)) => {
                let attempts = self.attempts.entry(command).or_default();
                *attempts += 1;
                tracing::warn!(error = %error, state = self.job.state_name(), attempts, "a step failed and will be tried again");
                self.inner.metrics.retried(&self.job);
                self.last_error = Some(error.to_string());
                let mut note = self.inner.store.notes(self.job.id);
                let mut note = match command.task() {
                    Some(task) => note.tasks.remove(&task).unwrap_or_default(),
                    None => note.job.unwrap_or_default(),
                };
                note.attempts = *attempts;
                note.error = Some(error.to_string());
                self.inner.store.note(self.job.id, command.task(), note);
                Ok(())
            }
        }
    }

    async fn cancel(&mut self, request: CancelRequest) -> Result<(), Stopped> {
        if let (Some(failure), false) = (request.give_up, self.job.can_cancel()) {
            let lost = match &self.job.state {
                _ if self.job.is_settled() => None,
                JobState::Remote(_) => Some(JobEvent::Remote(Box::new(RemoteEvent::Lost { failure }))),
                JobState::Backup(_) => Some(JobEvent::Backup(BackupEvent::Lost { failure })),
                // Our own catalog knows whether the data is visible, and will tell.
                JobState::Restore(_) => {
                    let hint = "The catalog decides it as soon as it can be written; see the log for what keeps it from that.";
                    let error = cannot_cancel(self.job.spec.label.as_str(), self.job.state_name()).hint(hint);
                    let _ = request.reply.send(Err(error));
                    return Ok(());
                }
            };
            let done = match lost {
                Some(event) => {
                    let lost = self.append(event).await;
                    self.abandon.cancel();
                    lost
                }
                None => Ok(()),
            };
            let _ = request.reply.send(Ok(()));
            return done;
        }
        if !self.job.can_cancel() {
            let hint = "The commit is under way and cannot be taken back; wait until the job is over.";
            let _ = request.reply.send(Err(cannot_cancel(self.job.spec.label.as_str(), self.job.state_name()).hint(hint)));
            return Ok(());
        }
        let during = (self.job.spec.kind() == JobKind::Restore).then(|| self.job.state_name());
        let done = self.end(Failure::user_cancelled(during)).await;
        let _ = request.reply.send(match done {
            Ok(()) => Ok(()),
            Err(Stopped) => Err(Error::new(ErrorKind::Shutdown, "the server is stopping; the job was not cancelled")),
        });
        done
    }

    async fn time_over(&mut self) -> Result<(), Stopped> {
        if self.job.can_cancel() {
            tracing::warn!(state = self.job.state_name(), "the job's time is over");
            return self.end(overdue(self.last_error.as_deref())).await;
        }
        Ok(())
    }

    /// Cancels the job and tells what is in flight to end.
    async fn end(&mut self, failure: Failure) -> Result<(), Stopped> {
        self.append(self.job.cancelled(failure)).await?;
        self.abandon.cancel();
        Ok(())
    }

    /// Applies an event to a copy, appends it, then believes it. A store that fails is asked again; if the append had landed
    /// after all, the journal says so.
    async fn append(&mut self, event: JobEvent) -> Result<(), Stopped> {
        let mut failures = 0;
        loop {
            let at = self.inner.env.now();
            let next = match self.job.apply(&event, at) {
                Ok(next) => next,
                Err(e) => {
                    tracing::error!(error = %e, "an impossible event was dropped");
                    return Ok(());
                }
            };
            let error = match self.inner.store.append(self.job.version, &next, &event, at).await {
                Ok(()) => {
                    self.believe(&event, next);
                    return Ok(());
                }
                Err(e) => e,
            };
            tracing::error!(error = %error, "the journal could not be written");
            failures += 1;
            tokio::select! {
                () = self.inner.env.clock.sleep(backoff(self.inner, failures)) => {}
                () = self.inner.stop.cancelled() => return Err(Stopped),
            }
            if let Ok(stored) = self.inner.store.load(self.job.id).await
                && stored.version > self.job.version
            {
                self.believe(&event, stored);
                return Ok(());
            }
        }
    }

    fn believe(&mut self, event: &JobEvent, next: Job) {
        if next.state_name() != self.job.state_name() {
            tracing::info!(from = self.job.state_name(), to = next.state_name(), "phase");
        }
        self.inner.metrics.observe(&self.job, event, &next);
        let settles = next.is_settled() && !self.job.is_settled();
        self.job = next;
        self.states.send_replace(self.job.state.clone());
        if settles {
            self.inner.settled.send_modify(|count| *count += 1);
            self.unlock();
        }
    }
}

impl Drive<'_> {
    /// Writers get their tables when the job has ended, not when the last transfer has noticed. Releasing does it once more, in case
    /// something in flight has locked them since.
    fn unlock(&self) {
        if self.job.spec.kind() != JobKind::Restore || self.job.spec.remote().is_some() {
            return;
        }
        let (inner, job) = (self.inner.clone(), self.job.clone());
        self.inner.tasks.spawn(async move {
            let Ok(cluster) = inner.cluster(&job.spec.cluster) else { return };
            let Ok(worker) = cluster.worker() else { return };
            if let Err(error) = worker.unlock(&job).await {
                tracing::warn!(%error, "the tables of a restore stay locked until it is cleaned up");
            }
        });
    }
}

fn backoff(inner: &Inner, attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        n => inner.settings.retry_first.saturating_mul(1 << (n - 1).min(16)).min(inner.settings.retry_longest),
    }
}
