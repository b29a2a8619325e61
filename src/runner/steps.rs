//! A command turned into its effect, and the effect into its event.

mod backup;
mod drop;
mod prune;
mod restore;
mod staged;
mod test_restore;
mod test_restore_starrocks;
mod verify;

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::external::Step;
use super::lease::Lease;
use super::uploads::JobUploads;
use super::{Inner, location_of};
use crate::cluster::{ReportProgress, StepError};
use crate::error::{Error, ErrorKind};
use crate::job::{Finding, Job, JobCommand, JobEvent, JobState, StagedEvent, VerifyEvent, Work};
use crate::names::{RepositoryName, TaskId};
use crate::repository::{
    FileSet, Location, Repository, SpeedLimit, StarRocksRepository, StoredSet, Throttle,
};

/// The files that a verification looks at.
#[derive(Clone, Debug)]
enum VerifiedFiles {
    Ours(Arc<FileSet>),
    /// And what was wrong with the `__info_` files when they were read again after a restart.
    OfStarRocks(Arc<StoredSet>, Arc<Vec<Finding>>),
}

/// What the steps of one job share.
#[derive(Debug)]
pub(super) struct StepContext {
    pub inner: Arc<Inner>,
    /// Whether this process admitted the job.
    pub is_fresh: bool,
    /// Tells what is in flight to end.
    pub abandon: CancellationToken,
    /// The job's repository, once it was opened.
    repository: Mutex<Option<Arc<Repository>>>,
    /// What a verification looks at, once that was read.
    files: Mutex<Option<VerifiedFiles>>,
    /// Held by the one backup that is being restored to see whether it can be.
    restoring: Mutex<()>,
    /// What a restore reads, kept from a PRUNE of another gateway.
    lease: parking_lot::Mutex<Option<Lease>>,
    limit: SpeedLimit,
    /// The same, for those who hand it on.
    pace: watch::Sender<Option<u64>>,
    paused: watch::Sender<bool>,
}

/// One command to be carried out.
pub(super) struct Attempt<'a> {
    context: &'a Arc<StepContext>,
    job: &'a Arc<Job>,
    /// Tries before this one.
    attempts: u32,
}

impl StepContext {
    pub fn new(inner: &Arc<Inner>, job: &Job, is_fresh: bool) -> Self {
        let context = Self {
            inner: inner.clone(),
            is_fresh,
            abandon: inner.stop.child_token(),
            repository: Mutex::default(),
            files: Mutex::default(),
            restoring: Mutex::default(),
            lease: parking_lot::Mutex::default(),
            limit: SpeedLimit::new(None, &inner.env),
            pace: watch::Sender::new(job.pace()),
            paused: watch::Sender::new(false),
        };
        context.obey(job);
        if let JobState::Restore(state) = &job.state
            && let Some(plan) = state.reads()
        {
            let resumed = Lease::resume(inner, job, plan);
            *context.lease.lock() = Some(resumed);
        }
        context
    }

    /// Goes on as the job says: how fast, and whether at all.
    pub fn obey(&self, job: &Job) {
        if self.limit.get() != job.pace() {
            self.limit.set(job.pace());
        }
        let (pace, is_paused) = (job.pace(), job.is_held());
        self.pace
            .send_if_modified(|known| std::mem::replace(known, pace) != pace);
        self.paused
            .send_if_modified(|known| std::mem::replace(known, is_paused) != is_paused);
    }

    /// Waits until the job is not paused; an error once it is over.
    async fn go_on(&self) -> Result<(), StepError> {
        let mut paused = self.paused.subscribe();
        tokio::select! {
            biased;
            () = self.abandon.cancelled() => {
                let stopped = Error::new(ErrorKind::Cancelled, "the job was cancelled");
                Err(StepError::Retry(stopped))
            }
            _ = paused.wait_for(|paused| !paused) => Ok(()),
        }
    }

    /// After a failed step: its properties may be mended before the next one, so the repository is
    /// opened anew. Whoever is opening it at this moment does so already.
    pub fn forget_repository(&self) {
        if let Ok(mut known) = self.repository.try_lock() {
            *known = None;
        }
    }

    /// Carries out one command.
    pub async fn perform(
        self: &Arc<Self>,
        job: &Arc<Job>,
        command: JobCommand,
        attempts: u32,
    ) -> Result<JobEvent, StepError> {
        // With the cluster, what is left there is out of reach.
        if job.is_settled() && self.inner.clusters.get(&job.spec.cluster).is_none() {
            match &job.state {
                JobState::Staged(_) => {
                    let dropped = Vec::new();
                    return Ok(JobEvent::Staged(StagedEvent::Released { dropped }));
                }
                JobState::Verify(_) => return Ok(JobEvent::Verify(VerifyEvent::Released)),
                _ => {}
            }
        }
        let cluster = self.inner.cluster(&job.spec.cluster)?;
        if let (Some(request), JobCommand::External(command)) = (job.spec.external(), command) {
            let gone = || {
                Error::new(
                    ErrorKind::Connection,
                    format!("cluster \"{}\" does no jobs of its own", job.spec.cluster),
                )
            };
            let external = cluster.external().ok_or_else(gone)?;
            let (inner, is_fresh, abandon) = (&self.inner, self.is_fresh, &self.abandon);
            let step = Step {
                inner,
                cluster: &cluster,
                external,
                job,
                request,
                attempts,
                is_fresh,
                abandon,
            };
            return step
                .perform(command)
                .await
                .map(|event| JobEvent::External(Box::new(event)));
        }
        let attempt = Attempt {
            context: self,
            job,
            attempts,
        };
        match (&job.state, command, &job.spec.work) {
            (JobState::Backup(state), JobCommand::Backup(command), _) => attempt
                .backup(cluster.managed()?, state, command)
                .await
                .map(JobEvent::Backup),
            (JobState::Restore(state), JobCommand::Restore(command), _) => attempt
                .restore(cluster.managed()?, state, command)
                .await
                .map(JobEvent::Restore),
            (
                JobState::DropSnapshot(state),
                JobCommand::DropSnapshot(command),
                Work::DropSnapshot(request),
            ) => attempt
                .drop_snapshot(request, state, command)
                .await
                .map(JobEvent::DropSnapshot),
            (JobState::Verify(state), JobCommand::Verify(command), Work::Verify(request)) => {
                attempt
                    .verify(request, state, command)
                    .await
                    .map(JobEvent::Verify)
            }
            (JobState::Prune(state), JobCommand::Prune(command), Work::Prune(request)) => attempt
                .prune(request, state, command)
                .await
                .map(JobEvent::Prune),
            (JobState::Staged(state), JobCommand::Staged(command), Work::Staged(request)) => {
                attempt
                    .staged(request, state, command)
                    .await
                    .map(JobEvent::Staged)
            }
            _ => Err(misplaced()),
        }
    }
}

/// A command in a state that does not have it.
fn misplaced() -> StepError {
    StepError::Fatal(Error::internal(
        "a command came in a state that does not have it",
    ))
}

impl Attempt<'_> {
    /// What the transfers of a repository go through.
    fn throttle(&self, name: &RepositoryName, location: &Location) -> Result<Throttle, Error> {
        let (inner, spec) = (&self.context.inner, &self.job.spec);
        let pace = location.max_bytes_per_second()?;
        let of_repository = inner.limit_of(&spec.cluster, name, pace);
        Ok(Throttle {
            limits: vec![
                self.context.limit.clone(),
                of_repository,
                inner.limit.clone(),
            ],
            paused: self.context.paused.subscribe(),
            abandon: self.context.abandon.clone(),
            env: inner.env.clone(),
        })
    }

    /// The repository that a StarRocks cluster writes, with what reading it goes through.
    async fn starrocks_repository(&self) -> Result<(StarRocksRepository, Throttle), StepError> {
        let (inner, spec) = (&self.context.inner, &self.job.spec);
        let unknown = || StepError::Fatal(Error::internal("a job of ours has no repository"));
        let name = spec.work.repository().ok_or_else(unknown)?;
        let record = inner.store.repository(&spec.cluster, name).await?;
        let location = location_of(&record);
        let repository = inner.open.open_starrocks(&record.name, &location)?;
        repository.ping().await.map_err(unreached)?;
        Ok((repository, self.throttle(&record.name, &location)?))
    }

    /// The repository, looked up by its name and reached just now.
    async fn reached_repository(&self) -> Result<Arc<Repository>, StepError> {
        let (inner, spec) = (&self.context.inner, &self.job.spec);
        let unknown = || StepError::Fatal(Error::internal("a job of ours has no repository"));
        let name = spec.work.repository().ok_or_else(unknown)?;
        let record = inner.store.repository(&spec.cluster, name).await?;
        let location = location_of(&record);
        let repository = inner.open.open(&record.name, &location)?;
        reach(&repository).await?;
        let throttle = self.throttle(&record.name, &location)?;
        let repository = repository.throttled(throttle);
        Ok(repository.with_uploads(Arc::new(JobUploads {
            inner: inner.clone(),
            job_id: self.job.id,
            repository: record.id,
        })))
    }

    /// The repository for one transfer of many: opened once, and again after a failed step. A
    /// transfer looks itself whether it is still there.
    async fn repository(&self) -> Result<Arc<Repository>, StepError> {
        let mut known = self.context.repository.lock().await;
        if let Some(repository) = known.clone() {
            return Ok(repository);
        }
        let repository = self.reached_repository().await?;
        *known = Some(repository.clone());
        Ok(repository)
    }

    /// The same, of which nothing is believed missing once its directory is unmounted.
    async fn mounted_repository(&self) -> Result<Arc<Repository>, StepError> {
        let repository = self.repository().await?;
        repository.is_mounted().await.map_err(unreached)?;
        Ok(repository)
    }

    /// What a transfer found is believed only while the repository can be reached.
    async fn believed<T>(
        &self,
        repository: &Repository,
        outcome: Result<T, StepError>,
    ) -> Result<T, StepError> {
        if let Err(StepError::Fatal(_)) = &outcome {
            reach(repository).await?;
        }
        outcome
    }

    /// Notes what a transfer has done, and ends it between two files once the job is abandoned.
    fn progress(&self, task: TaskId) -> ReportProgress {
        let (context, id, attempts) = (self.context.clone(), self.job.id, self.attempts);
        Arc::new(move |done| {
            context.inner.progress.note(id, Some(task), |note| {
                (note.attempts, note.done) = (attempts + 1, done);
                note.error.take_if(|_| attempts == 0);
            });
            if context.abandon.is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "the job was cancelled"));
            }
            Ok(())
        })
    }
}

/// A mount that is gone looks like an empty directory: without its mark nothing is written or
/// believed missing.
async fn reach(repository: &Repository) -> Result<(), StepError> {
    repository.ping().await.map_err(unreached)
}

fn unreached(error: Error) -> StepError {
    StepError::Retry(error.prefixed("the repository cannot be reached"))
}
