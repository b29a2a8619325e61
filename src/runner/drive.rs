//! The loop that runs one job: start what the machine says, append what came of it, believe it, go
//! on.
//!
//! Order matters. Events are applied to a copy, then appended, then believed. Everything that has
//! come while one append was under way is appended together by the next, so a job of many small
//! tasks waits for few syncs. After a cancellation nothing new is started, and clean-up waits until
//! everything in flight has ended: what is deleted must not be written again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::run::{RUN_BYTES_MAX, RUN_MAX, Run, RunResult, backoff};
use super::steps::StepContext;
use super::{Inner, Request, Wish, cannot_cancel, overdue};
use crate::cluster::StepError;
use crate::env::BoxFuture;
use crate::error::{Error, ErrorKind};
use crate::job::{CancelCause, ControlEvent, Delta, Failure, Job, JobCommand, JobEvent, Queue};
use crate::names::Timestamp;

/// Events that may wait for an append before no more steps are started.
const BROUGHT_MAX: usize = 1000;
/// Why the loop stopped before the job was over.
struct Stopped;

/// What has happened, and the command that it came of, if it came of one.
type Brought = (Option<JobCommand>, JobEvent);

/// An append that is in the journal.
struct Appended {
    delta: Arc<Delta>,
    /// The job as it is in the journal.
    job: Arc<Job>,
    /// The commands that its events came of.
    commands: Vec<JobCommand>,
}

struct Drive<'a> {
    inner: &'a Arc<Inner>,
    context: Arc<StepContext>,
    job: Arc<Job>,
    in_flight: JoinSet<RunResult>,
    /// What runs tell before their last command has come to an end.
    early: (
        mpsc::UnboundedSender<RunResult>,
        mpsc::UnboundedReceiver<RunResult>,
    ),
    /// What is in `in_flight`.
    running: HashSet<JobCommand>,
    /// What may be started: neither in flight, nor with an event that is not in the journal yet.
    ready: VecDeque<JobCommand>,
    /// What has happened and is not being appended yet.
    brought: Vec<Brought>,
    appending: Option<BoxFuture<'static, Result<Appended, Stopped>>>,
    attempts: HashMap<JobCommand, u32>,
    last_error: Option<String>,
    /// Tells those who wait how the job stands.
    stands: watch::Sender<Option<Arc<Job>>>,
}

/// Runs a job until it has nothing left to do or the runner stops.
pub(super) async fn drive(
    inner: &Arc<Inner>,
    job: Job,
    mut requests: mpsc::Receiver<Request>,
    stands: watch::Sender<Option<Arc<Job>>>,
    is_fresh: bool,
) {
    let job = Arc::new(job);
    stands.send_replace(Some(job.clone()));
    let mut drive = Drive {
        inner,
        context: Arc::new(StepContext::new(inner, &job, is_fresh)),
        ready: job.commands().into(),
        job,
        in_flight: JoinSet::new(),
        early: mpsc::unbounded_channel(),
        running: HashSet::new(),
        brought: Vec::new(),
        appending: None,
        attempts: HashMap::new(),
        last_error: None,
        stands,
    };
    let turns = match drive.job.queue() {
        Queue::Transfers => Some(&inner.running),
        Queue::Verifications => Some(&inner.verifying),
        Queue::None => None,
    };
    // A job that waits for its turn can be cancelled, and its time runs.
    let (mut turn, mut permit) = (None, None);
    let (mut timer, mut deadline) = (drive.timer(None), None);
    while !drive.job.is_over() {
        let is_paused = drive.job.is_held();
        if is_paused {
            // Others may have its turn meanwhile, and its place among those who wait for one.
            (permit, turn) = (None, None);
        } else if permit.is_none() && turn.is_none() {
            turn = turns.map(|turns| Box::pin(turns.acquire()));
        }
        if drive.deadline() != deadline {
            deadline = drive.deadline();
            timer = drive.timer(deadline);
        }
        let has_turn = permit.is_some() || drive.job.is_settled() || turns.is_none();
        if has_turn && !is_paused {
            drive.start_commands();
        }
        drive.begin_append();
        let step = tokio::select! {
            biased;
            () = inner.stop.cancelled() => Err(Stopped),
            Some(request) = requests.recv() => drive.answer(request).await,
            () = &mut timer => {
                timer = drive.timer(None);
                drive.time_over().await
            }
            appended = landing(&mut drive.appending) => drive.appended(appended),
            Some(told) = drive.early.1.recv() => drive.on_told(told).await,
            Some(done) = drive.in_flight.join_next() => drive.on_step_finished(done).await,
            acquired = next_turn(&mut turn), if permit.is_none() && !is_paused => {
                permit = Some(acquired);
                turn = None;
                Ok(())
            }
        };
        if step.is_err() {
            break;
        }
    }
    drive.context.abandon.cancel();
    while drive.in_flight.join_next().await.is_some() {}
    // What is on its way into the journal gets there.
    if drive.appending.is_some() {
        let _ = landing(&mut drive.appending).await;
    }
    if drive.job.is_over() {
        inner.progress.forget(drive.job.id);
        inner.over.notify_one();
    }
}

/// The append that is under way; never, if there is none.
async fn landing(
    appending: &mut Option<BoxFuture<'static, Result<Appended, Stopped>>>,
) -> Result<Appended, Stopped> {
    match appending {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// The turn that a job waits for; never, if it needs none.
async fn next_turn<T, E: std::fmt::Debug>(
    turn: &mut Option<impl Future<Output = Result<T, E>> + Unpin>,
) -> T {
    match turn {
        Some(turn) => turn.await.expect("the semaphore is never closed"),
        None => std::future::pending().await,
    }
}

/// Appends events. A store that fails is asked again; if the append is in the journal after all,
/// the journal says so.
async fn append(
    inner: Arc<Inner>,
    delta: Delta,
    commands: Vec<JobCommand>,
) -> Result<Appended, Stopped> {
    let delta = Arc::new(delta);
    let mut failures = 0;
    loop {
        let error = match inner.store.append(&delta).await {
            Ok(()) => {
                return Ok(Appended {
                    job: Arc::new(delta.job.clone()),
                    delta,
                    commands,
                });
            }
            Err(e) => e,
        };
        tracing::error!(error = %error, "the journal could not be written");
        failures += 1;
        tokio::select! {
            () = inner.env.clock.sleep(backoff(&inner, failures)) => {}
            () = inner.stop.cancelled() => return Err(Stopped),
        }
        if let Ok(stored) = inner.store.load(delta.job.id).await
            && stored.version > delta.expected
        {
            return Ok(Appended {
                job: Arc::new(stored),
                delta,
                commands,
            });
        }
    }
}

impl Drive<'_> {
    /// When the job's time is over. Past the point of no return, and past the end, it never is.
    fn deadline(&self) -> Option<Timestamp> {
        self.job.deadline().filter(|_| self.job.can_cancel())
    }

    fn timer(&self, deadline: Option<Timestamp>) -> BoxFuture<'static, ()> {
        let Some(deadline) = deadline else {
            return Box::pin(std::future::pending());
        };
        let left = deadline.0 - self.inner.env.now().0;
        self.inner
            .env
            .clock
            .sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// Starts what may run and is not running, up to the limit. Clean-up runs alone.
    fn start_commands(&mut self) {
        if self.job.is_settled() && !self.in_flight.is_empty() {
            return;
        }
        while self.in_flight.len() < self.inner.settings.task_concurrency
            && self.brought.len() < BROUGHT_MAX
        {
            let run = self.next_run();
            if run.is_empty() {
                return;
            }
            let run = Run {
                context: self.context.clone(),
                job: self.job.clone(),
                commands: run,
                mended: self.inner.mended.subscribe(),
                early: self.early.0.clone(),
            };
            self.in_flight
                .spawn(tracing::Instrument::in_current_span(run.carry_out()));
        }
    }

    /// What one task of the runtime does next, with the attempts before: one command, or several
    /// small ones where there are enough for every task.
    fn next_run(&mut self) -> Vec<(JobCommand, u32)> {
        let share = self.ready.len() / self.inner.settings.task_concurrency.max(1);
        let (mut run, mut bytes) = (Vec::new(), 0);
        while run.len() < share.clamp(1, RUN_MAX) {
            let Some(command) = self.ready.front().copied() else {
                break;
            };
            if !self.job.allows(command) || self.running.contains(&command) {
                self.ready.pop_front();
                continue;
            }
            let attempts = self.attempts.get(&command).copied().unwrap_or(0);
            // What waits before it is tried again must not hold up others.
            let moves = self.job.bytes_moved_by(command).filter(|_| attempts == 0);
            bytes += moves.unwrap_or(RUN_BYTES_MAX);
            if !run.is_empty() && (moves.is_none() || bytes > RUN_BYTES_MAX) {
                break;
            }
            self.ready.pop_front();
            self.running.insert(command);
            run.push((command, attempts));
            if moves.is_none() {
                break;
            }
        }
        run
    }

    /// Something in flight has ended, and perhaps more.
    async fn on_step_finished(
        &mut self,
        done: Result<RunResult, tokio::task::JoinError>,
    ) -> Result<(), Stopped> {
        let mut next = Some(done);
        while let Some(done) = next {
            // What ended because the runner stops must not be taken for the job's own end.
            if self.inner.stop.is_cancelled() {
                return Err(Stopped);
            }
            self.on_told(done.map_err(|_| Stopped)?).await?;
            next = self.in_flight.try_join_next();
        }
        Ok(())
    }

    async fn on_told(&mut self, told: RunResult) -> Result<(), Stopped> {
        for command in told.left.into_iter().rev() {
            self.running.remove(&command);
            self.ready.push_front(command);
        }
        for (command, result) in told.done {
            self.running.remove(&command);
            match result {
                Ok(event) => self.brought.push((Some(command), event)),
                Err(error) => self.failed(command, error).await?,
            }
        }
        Ok(())
    }

    /// A step has failed: for good, which ends the job if it still may, or for now.
    async fn failed(&mut self, command: JobCommand, error: StepError) -> Result<(), Stopped> {
        self.context.forget_repository();
        if matches!(error, StepError::Fatal(_)) {
            // What has come before it may have brought the job past the point of no return.
            self.flush().await?;
        }
        if !self.job.allows(command) {
            return Ok(());
        }
        let error = match error {
            StepError::Fatal(error) if self.job.can_cancel() => {
                tracing::warn!(error = %error, phase = %self.job.phase(), "the job fails");
                return self.end(self.job.failure_of(&error)).await;
            }
            StepError::Fatal(error) | StepError::Retry(error) => error,
        };
        self.try_again(command, &error);
        Ok(())
    }

    fn try_again(&mut self, command: JobCommand, error: &Error) {
        let attempts = self.attempts.entry(command).or_default();
        *attempts += 1;
        tracing::warn!(error = %error, phase = %self.job.phase(), attempts, "a step failed and will be tried again");
        self.inner.metrics.retried(&self.job);
        self.last_error = Some(error.to_string());
        self.inner
            .progress
            .note(self.job.id, command.task(), |note| {
                note.attempts = *attempts;
                note.error = Some(error.to_string());
            });
        self.ready.push_back(command);
    }

    /// Appends what has come, unless an append is under way.
    fn begin_append(&mut self) {
        if self.appending.is_some() || self.brought.is_empty() {
            return;
        }
        let mut delta = Delta::of(&self.job);
        let mut commands = Vec::new();
        for (command, event) in std::mem::take(&mut self.brought) {
            // What comes after the job moved on is of no use.
            if command.is_some_and(|command| !delta.job.allows(command)) {
                continue;
            }
            match delta.push(event, self.inner.env.now()) {
                Ok(()) => commands.extend(command),
                Err(e) => {
                    tracing::error!(error = %e, "an impossible event was dropped");
                    if let Some(command) = command {
                        self.try_again(command, &Error::internal(e.to_string()));
                    }
                }
            }
        }
        if !delta.entries.is_empty() {
            self.appending = Some(Box::pin(append(self.inner.clone(), delta, commands)));
        }
    }

    /// Waits until everything that has come is in the journal.
    async fn flush(&mut self) -> Result<(), Stopped> {
        loop {
            self.begin_append();
            if self.appending.is_none() {
                return Ok(());
            }
            let appended = landing(&mut self.appending).await;
            self.appended(appended)?;
        }
    }

    /// An append is in the journal, so its events are believed.
    fn appended(&mut self, appended: Result<Appended, Stopped>) -> Result<(), Stopped> {
        self.appending = None;
        let Appended {
            delta,
            job,
            commands,
        } = appended?;
        let before = std::mem::replace(&mut self.job, job);
        if self.job.phase() != before.phase() {
            tracing::info!(from = %before.phase(), to = %self.job.phase(), "phase");
        }
        self.inner.metrics.observe(&before, &delta, &self.job);
        for task in delta.tasks.iter().filter(|task| task.finished) {
            self.inner.progress.finished(self.job.id, task.task_id);
        }
        // What a command that is no task has waited for has come.
        if commands.iter().any(|command| command.task().is_none()) {
            self.last_error = None;
            self.inner
                .progress
                .note(self.job.id, None, |note| note.error = None);
        }
        if before.is_in_phase_of(&self.job) {
            // A phase goes on; what it lets be done again comes back.
            self.ready.extend(
                commands
                    .into_iter()
                    .filter(|command| self.job.allows(*command)),
            );
        } else {
            let taken = |command: &JobCommand| {
                self.running.contains(command)
                    || self
                        .brought
                        .iter()
                        .any(|(brought, _)| brought.as_ref() == Some(command))
            };
            self.ready = self
                .job
                .commands()
                .into_iter()
                .filter(|command| !taken(command))
                .collect();
        }
        self.context.obey(&self.job);
        self.stands.send_replace(Some(self.job.clone()));
        if self.job.is_settled() && !before.is_settled() {
            self.inner.settled.send_modify(|count| *count += 1);
            self.unlock();
        }
        Ok(())
    }

    /// Brings an event that no step has brought, and waits until it is in the journal.
    async fn append_now(&mut self, event: JobEvent) -> Result<(), Stopped> {
        self.brought.push((None, event));
        self.flush().await
    }

    async fn answer(&mut self, request: Request) -> Result<(), Stopped> {
        // What has come before the request counts before it.
        self.flush().await?;
        let give_up = match request.wish {
            Wish::Cancel => None,
            Wish::GiveUp { cause, failure } => Some((cause, failure)),
            Wish::Control(event) => {
                let (done, answer) = self.control(event).await;
                let _ = request.reply.send(answer);
                return done;
            }
        };
        if let (Some((cause, failure)), false) = (&give_up, self.job.can_cancel()) {
            let lost = self.job.given_up(Failure {
                cause: Some(*cause),
                ..failure.clone()
            });
            if lost.is_none() && !self.job.is_settled() {
                let hint = "The metastore decides it as soon as it can be written; see the log for what keeps it from that.";
                let error = cannot_cancel(self.job.spec.label(), self.job.phase()).hint(hint);
                let _ = request.reply.send(Err(error));
                return Ok(());
            }
            let lost = lost.filter(|_| !self.job.is_settled());
            let done = match lost {
                Some(event) => {
                    let lost = self.append_now(event).await;
                    self.context.abandon.cancel();
                    lost
                }
                None => Ok(()),
            };
            let _ = request.reply.send(Ok(()));
            return done;
        }
        if !self.job.can_cancel() {
            let error = cannot_cancel(self.job.spec.label(), self.job.phase());
            let _ = request
                .reply
                .send(Err(error.hint(self.job.past_return_hint())));
            return Ok(());
        }
        let failure = match give_up {
            Some((cause @ CancelCause::Dropped, failure)) => Failure {
                cause: Some(cause),
                ..failure
            },
            _ => self.job.user_cancelled(),
        };
        let done = self.end(failure).await;
        let _ = request.reply.send(match done {
            Ok(()) => Ok(()),
            Err(Stopped) => Err(Error::new(
                ErrorKind::Shutdown,
                "the server is stopping; the job was not cancelled",
            )),
        });
        done
    }

    /// Pauses the job, lets it go on, or changes how fast it goes.
    async fn control(&mut self, event: ControlEvent) -> (Result<(), Stopped>, Result<(), Error>) {
        let (id, phase) = (self.job.id, self.job.phase());
        let wrong = |why: &str| Error::new(ErrorKind::WrongState, format!("job {id} {why}"));
        let is_paused = self.job.record.control.is_paused();
        let refused = match &event {
            _ if self.job.is_settled() => Some(wrong(&format!("has ended: {phase}"))),
            ControlEvent::Paused { .. } if is_paused => Some(wrong("is paused already")),
            ControlEvent::Resumed { .. } if !is_paused => Some(wrong("is not paused")),
            ControlEvent::Paused { .. } => self.job.unpausable_hint().map(|hint| {
                let late = wrong(&format!("cannot be paused in {phase}"));
                late.hint(hint)
            }),
            _ => None,
        };
        if let Some(error) = refused {
            return (Ok(()), Err(error));
        }
        let done = self.append_now(JobEvent::Control(event)).await;
        let answer = match &done {
            Ok(()) => Ok(()),
            Err(Stopped) => Err(Error::new(
                ErrorKind::Shutdown,
                "the server is stopping; nothing was changed",
            )),
        };
        (done, answer)
    }

    async fn time_over(&mut self) -> Result<(), Stopped> {
        self.flush().await?;
        if self.job.can_cancel() {
            tracing::warn!(phase = %self.job.phase(), "the job's time is over");
            return self.end(overdue(self.last_error.as_deref())).await;
        }
        Ok(())
    }

    /// Cancels the job and tells what is in flight to end.
    async fn end(&mut self, failure: Failure) -> Result<(), Stopped> {
        self.append_now(self.job.cancelled(failure)).await?;
        self.context.abandon.cancel();
        Ok(())
    }
}

impl Drive<'_> {
    /// Writers get their tables when the job has ended, not when the last transfer has noticed.
    /// Releasing does it once more, in case something in flight has locked them since.
    fn unlock(&self) {
        if !self.job.locks_tables() {
            return;
        }
        let (inner, job) = (self.inner.clone(), self.job.clone());
        self.inner.tasks.spawn(async move {
            let Ok(cluster) = inner.cluster(&job.spec.cluster) else { return };
            let Ok(managed) = cluster.managed() else { return };
            if let Err(error) = managed.unlock(&job).await {
                tracing::warn!(%error, "the tables of a restore stay locked until it is cleaned up");
            }
        });
    }
}
