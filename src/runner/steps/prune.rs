//! The steps of pruning.

use std::sync::Arc;
use std::time::Duration;

use super::{Attempt, misplaced};
use crate::cluster::StepError;
use crate::error::{Error, ErrorKind};
use crate::job::{PruneCommand, PruneEvent, PruneRequest, PruneState};

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
}
