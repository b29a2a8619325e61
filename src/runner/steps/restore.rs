//! The steps of a restore.

use std::sync::Arc;

use super::{Attempt, misplaced};
use crate::cluster::{JobSteps, StepError, Swap};
use crate::error::{Error, ErrorKind};
use crate::job::{
    Failure, RestoreCommand, RestoreEvent, RestorePlan, RestoreState, Work, transfer_task,
};
use crate::names::TabletId;
use crate::repository::Repository;
use crate::runner::lease::{self, Lease};

impl Attempt<'_> {
    pub(super) async fn restore(
        &self,
        cluster: &dyn JobSteps,
        state: &RestoreState,
        command: RestoreCommand,
    ) -> Result<RestoreEvent, StepError> {
        let job = self.job;
        Ok(match (command, state) {
            (RestoreCommand::Plan, _) => {
                let repository = self.reached_repository().await?;
                let plan = Arc::new(cluster.plan_restore(job, &repository).await?);
                self.lease(&repository, &plan).await?;
                RestoreEvent::Planned { plan }
            }
            (RestoreCommand::Prepare(task), RestoreState::Snapshoting { plan, .. }) => {
                let tablet = plan.tablet(TabletId(task.0)).ok_or_else(misplaced)?;
                cluster.prepare(job, tablet).await?;
                RestoreEvent::Prepared { task }
            }
            (RestoreCommand::PlanDownload, RestoreState::Download { plan }) => {
                RestoreEvent::DownloadPlanned {
                    tasks: Arc::new(cluster.plan_download(job, plan).await?),
                }
            }
            (RestoreCommand::Download(id), RestoreState::Downloading { plan, tasks, .. }) => {
                let task = transfer_task(tasks, id).ok_or_else(misplaced)?;
                let lacking = || {
                    Error::internal(format!(
                        "the plan of job {} has no tablet {}",
                        job.id, task.assignment.tablet_id
                    ))
                };
                let tablet = plan.tablet(task.assignment.tablet_id).ok_or_else(lacking)?;
                let repository = self.repository().await?;
                let done = cluster
                    .download(job, tablet, &repository, self.progress(id))
                    .await;
                RestoreEvent::Downloaded {
                    task: id,
                    transfer: self.believed(&repository, done).await?,
                }
            }
            (RestoreCommand::Verify, RestoreState::Commit { plan }) => {
                cluster.verify(job, plan).await?;
                RestoreEvent::Verified
            }
            (RestoreCommand::Swap, RestoreState::Committing { plan }) => {
                match cluster.swap(job, plan).await? {
                    Swap::Done => RestoreEvent::Swapped,
                    Swap::Refused(error) => RestoreEvent::SwapRefused {
                        failure: Failure::of(&error),
                    },
                }
            }
            (RestoreCommand::Release, _) => {
                cluster.release(job).await?;
                let lease = self.context.lease.lock().take();
                lease::end(&self.context.inner, job, lease).await;
                RestoreEvent::Released
            }
            _ => return Err(misplaced()),
        })
    }

    /// Keeps what is read from a PRUNE of another gateway. Only what is still backed up after that
    /// is safe.
    async fn lease(
        &self,
        repository: &Repository,
        plan: &Arc<RestorePlan>,
    ) -> Result<(), StepError> {
        let (lease, stands) = Lease::begin(&self.context.inner, self.job, plan).await;
        *self.context.lease.lock() = Some(lease);
        let Work::Restore { target, request } = &self.job.spec.work else {
            return Err(misplaced());
        };
        if !stands
            || repository
                .is_backed_up(&target.label, &request.timestamp)
                .await?
        {
            return Ok(());
        }
        let message = format!(
            "Snapshot does not exist in repository {}: {}",
            target.repository, target.label
        );
        Err(StepError::Fatal(
            Error::new(ErrorKind::UndefinedObject, message)
                .detail("It was dropped while the restore began."),
        ))
    }
}
