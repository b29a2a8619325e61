//! The steps of a restore.

use std::sync::Arc;

use super::{Attempt, misplaced};
use crate::cluster::{JobSteps, StepError, Swap};
use crate::error::Error;
use crate::job::{Failure, RestoreCommand, RestoreEvent, RestoreState, transfer_task};
use crate::names::TabletId;

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
                RestoreEvent::Planned {
                    plan: Arc::new(cluster.plan_restore(job, &repository).await?),
                }
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
                RestoreEvent::Released
            }
            _ => return Err(misplaced()),
        })
    }
}
