//! A run: commands of one job that one task of the runtime carries out, one after the other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, watch};

use super::Inner;
use super::steps::StepContext;
use crate::cluster::StepError;
use crate::error::{Error, ErrorKind};
use crate::job::{Job, JobCommand, JobEvent};

/// How long a transfer may go on once its job has ended: long enough for the file it is at, where
/// storage answers at all.
const ABANDON_GRACE: Duration = Duration::from_secs(5);
/// Commands that are carried out one after the other by one task of the runtime, where there are
/// many small ones: their events come together, and are appended together.
pub(super) const RUN_MAX: usize = 16;
/// What they may move together, bytes.
pub(super) const RUN_BYTES_MAX: u64 = 1 << 20;
/// How long after its beginning a run begins no more commands, tells what it has done and gives back
/// the rest: what is slow holds up nothing else.
const RUN_TIME: Duration = Duration::from_millis(50);

pub(super) type StepResult = (JobCommand, Result<JobEvent, StepError>);

/// What came of a run of commands.
pub(super) struct RunResult {
    pub done: Vec<StepResult>,
    /// What was not begun.
    pub left: Vec<JobCommand>,
}

/// Commands, with the attempts before.
pub(super) struct Run {
    pub context: Arc<StepContext>,
    pub job: Arc<Job>,
    pub commands: Vec<(JobCommand, u32)>,
    pub mended: watch::Receiver<u64>,
    /// Takes what is done, and what others may begin, while one command takes its time.
    pub early: mpsc::UnboundedSender<RunResult>,
}

impl Run {
    pub async fn carry_out(mut self) -> RunResult {
        let clock = self.context.inner.env.clock.clone();
        let (begun, mut commands) = (
            clock.ticks(),
            std::mem::take(&mut self.commands).into_iter(),
        );
        let mut done = Vec::with_capacity(commands.len());
        while let Some((command, attempts)) = commands.next() {
            let step = perform(
                &self.context,
                &self.job,
                command,
                attempts,
                &mut self.mended,
            );
            tokio::pin!(step);
            let time_left = RUN_TIME.saturating_sub(clock.ticks() - begun);
            let has_more = !done.is_empty() || commands.len() > 0;
            let result = tokio::select! {
                result = &mut step => result,
                () = clock.sleep(time_left), if has_more => {
                    let left = commands.by_ref().map(|(command, _)| command).collect();
                    let done = std::mem::take(&mut done);
                    let _ = self.early.send(RunResult { done, left });
                    step.await
                }
            };
            // The others would fail in the same way, and nobody be told until then.
            let ends = result.is_err() || clock.ticks() - begun > RUN_TIME;
            done.push((command, result));
            if ends {
                break;
            }
        }
        let left = commands.map(|(command, _)| command).collect();
        RunResult { done, left }
    }
}

/// Carries out one command, after a pause where it has failed before.
async fn perform(
    context: &Arc<StepContext>,
    job: &Arc<Job>,
    command: JobCommand,
    attempts: u32,
    mended: &mut watch::Receiver<u64>,
) -> Result<JobEvent, StepError> {
    let (inner, abandon, settled) = (&context.inner, &context.abandon, job.is_settled());
    let wait = backoff(inner, attempts);
    if !wait.is_zero() {
        tokio::select! {
            () = inner.env.clock.sleep(wait) => {}
            _ = mended.changed() => {}
            () = abandon.cancelled(), if !settled => {}
            () = inner.stop.cancelled() => {}
        }
    }
    if inner.stop.is_cancelled() || (abandon.is_cancelled() && !settled) {
        let stopped = Error::new(ErrorKind::Cancelled, "the job was cancelled");
        return Err(StepError::Retry(stopped));
    }
    let work = AssertUnwindSafe(context.perform(job, command, attempts)).catch_unwind();
    // Storage that hangs must hold up neither the end of the job nor that of the server.
    let given_up = async {
        if !command.waits_for_storage() {
            std::future::pending::<()>().await;
        }
        abandon.cancelled().await;
        inner.env.clock.sleep(ABANDON_GRACE).await;
    };
    tokio::select! {
        result = work => result.unwrap_or_else(|_| {
            let died = Error::internal("a step of the job died");
            // Who waits for a job is told; the other kinds try again.
            Err(if job.is_awaited() && context.is_fresh {
                StepError::Fatal(died)
            } else {
                StepError::Retry(died)
            })
        }),
        () = given_up => {
            let message = "storage did not answer before the job ended";
            Err(StepError::Retry(Error::new(ErrorKind::Cancelled, message)))
        }
    }
}

pub(super) fn backoff(inner: &Inner, attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        n => inner
            .settings
            .retry_first
            .saturating_mul(1 << (n - 1).min(16))
            .min(inner.settings.retry_longest),
    }
}
