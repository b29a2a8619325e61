//! The steps of pruning.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Attempt, misplaced};
use crate::cluster::{ExternalCluster, StepError};
use crate::error::{Error, ErrorKind};
use crate::job::{Candidate, PruneCommand, PruneEvent, PruneRequest, PruneState, Pruned, Volume};
use crate::names::Timestamp;
use crate::repository::StarRocksRepository;

/// Files of one label that are deleted until everything is looked at again.
const FILES_PER_LOOK: usize = 1000;

/// What would not be otherwise another time ends the job.
fn for_good(error: Error) -> StepError {
    match error.kind {
        ErrorKind::WrongState | ErrorKind::ObjectInUse | ErrorKind::Corrupted => {
            StepError::Fatal(error)
        }
        _ => StepError::Retry(error),
    }
}

impl Attempt<'_> {
    pub(super) async fn prune(
        &self,
        request: &PruneRequest,
        state: &PruneState,
        command: PruneCommand,
    ) -> Result<PruneEvent, StepError> {
        let env = &self.context.inner.env;
        let job_uid = &self.job.spec.uid;
        let cluster = self.context.inner.cluster(&self.job.spec.cluster)?;
        if let Some(external) = cluster.external() {
            let pruned = self.prune_starrocks(request, state, command, external);
            return pruned.await.map_err(|error| match error.kind {
                ErrorKind::UndefinedObject => StepError::Fatal(error),
                _ => for_good(error),
            });
        }
        match (command, state) {
            (PruneCommand::Plan, PruneState::Pending) => {
                let repository = self.reached_repository().await?;
                if !request.dry_run {
                    let removed = repository
                        .remove_leftovers(request.grace_seconds, env)
                        .await;
                    removed.map_err(StepError::Retry)?;
                }
                let candidates = repository.unneeded(request.grace_seconds, env).await;
                Ok(PruneEvent::Planned {
                    candidates: Arc::new(candidates.map_err(for_good)?),
                    dry_run: request.dry_run,
                })
            }
            (PruneCommand::Mark, PruneState::Marking { candidates }) => {
                let repository = self.reached_repository().await?;
                let marked = repository.put_mark(job_uid, candidates, env).await;
                marked.map_err(for_good)?;
                Ok(PruneEvent::Marked)
            }
            (PruneCommand::Wait, PruneState::Waiting { .. }) => {
                // After a restart it is waited for as long again: that is never too short.
                tokio::select! {
                    () = env.clock.sleep(Duration::from_secs(request.wait_seconds)) => {}
                    () = self.context.abandon.cancelled() => {
                        let stopped = Error::new(ErrorKind::Cancelled, "the job was cancelled");
                        return Err(StepError::Retry(stopped));
                    }
                }
                Ok(PruneEvent::Waited)
            }
            (PruneCommand::Delete, PruneState::Deleting { candidates }) => {
                let repository = self.reached_repository().await?;
                let go_on = || {
                    if self.context.abandon.is_cancelled() {
                        return Err(Error::new(ErrorKind::Cancelled, "the job was cancelled"));
                    }
                    Ok(())
                };
                let deleted = repository
                    .delete_unneeded(job_uid, candidates, env, go_on)
                    .await;
                let (pruned, kept) = deleted.map_err(for_good)?;
                Ok(PruneEvent::Deleted { pruned, kept })
            }
            (PruneCommand::Unmark, _) => {
                if let PruneState::Cancelled {
                    was_deleting: true, ..
                } = state
                {
                    // A deletion may still be on its way; until it has come, backups wait.
                    tokio::select! {
                        () = env.clock.sleep(Duration::from_secs(request.wait_seconds)) => {}
                        // The mark outlives the process, and goes after the next start.
                        () = self.context.inner.stop.cancelled() => {
                            let stopped = Error::new(ErrorKind::Shutdown, "the server is stopping");
                            return Err(StepError::Retry(stopped));
                        }
                    }
                }
                let repository = match self.reached_repository().await {
                    Ok(repository) => repository,
                    // With the repository goes the way to its mark; it is taken over after a day.
                    Err(StepError::Retry(e) | StepError::Fatal(e))
                        if e.kind == ErrorKind::UndefinedObject =>
                    {
                        return Ok(PruneEvent::Unmarked);
                    }
                    Err(e) => return Err(e),
                };
                repository.take_mark(job_uid, env).await?;
                Ok(PruneEvent::Unmarked)
            }
            _ => Err(misplaced()),
        }
    }

    /// In a repository that a StarRocks cluster writes nothing is announced: the cluster would not
    /// heed it.
    async fn prune_starrocks(
        &self,
        request: &PruneRequest,
        state: &PruneState,
        command: PruneCommand,
        external: &dyn ExternalCluster,
    ) -> Result<PruneEvent, Error> {
        let name = &request.repository;
        match (command, state) {
            (PruneCommand::Plan, PruneState::Pending) => {
                let repository = self.opened_starrocks(name, external).await?;
                // A dry run writes nothing, and asks no store what time it is there.
                let now = match request.dry_run {
                    true => self.context.inner.env.now(),
                    false => self.time_of_both(&repository).await?,
                };
                let used = self.labels_in_use(request).await?;
                let before = before(now, request);
                let unneeded = repository.unneeded(before, |label| used.contains(label));
                Ok(PruneEvent::Planned {
                    candidates: Arc::new(unneeded.await?),
                    dry_run: request.dry_run,
                })
            }
            (PruneCommand::Mark, PruneState::Marking { .. }) => Ok(PruneEvent::Marked),
            (PruneCommand::Wait, PruneState::Waiting { .. }) => Ok(PruneEvent::Waited),
            (PruneCommand::Delete, PruneState::Deleting { candidates }) => {
                self.delete_of_starrocks(request, candidates, external)
                    .await
            }
            (PruneCommand::Unmark, _) => Ok(PruneEvent::Unmarked),
            _ => Err(Error::internal(
                "a command came in a state that does not have it",
            )),
        }
    }

    async fn delete_of_starrocks(
        &self,
        request: &PruneRequest,
        candidates: &[Candidate],
        external: &dyn ExternalCluster,
    ) -> Result<PruneEvent, Error> {
        let repository = self.opened_starrocks(&request.repository, external).await?;
        let before = before(self.time_of_both(&repository).await?, request);
        let (mut pruned, mut kept) = (Pruned::default(), Vec::new());
        for (label, all) in StarRocksRepository::by_label(candidates) {
            for some in all.chunks(FILES_PER_LOOK) {
                if self.context.abandon.is_cancelled() {
                    return Err(Error::new(ErrorKind::Cancelled, "the job was cancelled"));
                }
                // A job may have begun since the last look.
                let is_used = self.labels_in_use(request).await?.contains(label);
                let spared = match is_used {
                    true => some.iter().map(|c| c.object.name().to_owned()).collect(),
                    false => repository.delete_unneeded(label, some, before).await?,
                };
                for candidate in some {
                    let volume = Volume {
                        files: 1,
                        bytes: candidate.bytes,
                    };
                    let name = candidate.object.name();
                    if spared.contains(name) {
                        pruned.kept.add(volume);
                        kept.push(name.to_owned());
                    } else {
                        pruned.deleted.add(volume);
                    }
                }
            }
        }
        Ok(PruneEvent::Deleted { pruned, kept })
    }

    /// What time it is by the store's clock and by ours: what both say is over, is.
    async fn time_of_both(&self, repository: &StarRocksRepository) -> Result<Timestamp, Error> {
        let env = &self.context.inner.env;
        Ok(repository.store_time(env).await?.min(env.now()))
    }

    /// The labels that a job is about, here or on a cluster that has the repository.
    async fn labels_in_use(&self, request: &PruneRequest) -> Result<HashSet<String>, Error> {
        let uses = self.uses_of(&request.repository).await?.into_iter();
        Ok(uses.map(|used| used.label).collect())
    }
}

/// What was written before this has had its grace time.
fn before(now: Timestamp, request: &PruneRequest) -> Timestamp {
    let grace = request.grace_seconds.saturating_mul(1000);
    Timestamp(now.0.saturating_sub_unsigned(grace))
}
