//! The steps of a backup.

use std::sync::Arc;

use super::{Attempt, misplaced};
use crate::cluster::{JobSteps, StepError};
use crate::error::{Error, ErrorKind};
use crate::job::{BackupCommand, BackupEvent, BackupState, Failure, transfer_task};
use crate::names::TabletId;
use crate::repository::Placed;
use crate::runner::uploads;

impl Attempt<'_> {
    pub(super) async fn backup(
        &self,
        cluster: &dyn JobSteps,
        state: &BackupState,
        command: BackupCommand,
    ) -> Result<BackupEvent, StepError> {
        let job = self.job;
        Ok(match (command, state) {
            (BackupCommand::Plan, _) => BackupEvent::Planned {
                plan: Arc::new(cluster.plan_backup(job).await?),
            },
            (BackupCommand::Snapshot(task), BackupState::Snapshoting { plan, .. }) => {
                let tablet = plan.tablet(TabletId(task.0)).ok_or_else(misplaced)?;
                BackupEvent::Snapshoted {
                    task,
                    backend_id: cluster.snapshot(job, tablet).await?,
                }
            }
            (BackupCommand::PlanUpload, BackupState::UploadSnapshot { plan }) => {
                let repository = self.mounted_repository().await?;
                match repository.mend_info().await {
                    Ok(()) => {}
                    Err(e) if e.kind == ErrorKind::WrongState => return Err(e.into()),
                    // As long as one of the two is there, the other can wait.
                    Err(error) => {
                        tracing::warn!(%error, "the objects with the repository's key could not be looked at");
                    }
                }
                BackupEvent::UploadPlanned {
                    tasks: Arc::new(cluster.plan_upload(job, plan).await?),
                }
            }
            (BackupCommand::Upload(id), BackupState::Uploading { plan, tasks, .. }) => {
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
                    .upload(job, tablet, &repository, self.progress(id))
                    .await;
                BackupEvent::Uploaded {
                    task: id,
                    transfer: self.believed(&repository, done).await?,
                }
            }
            (BackupCommand::SaveMeta, BackupState::SaveMeta { plan }) => {
                let repository = self.reached_repository().await?;
                let (manifest, saved_at) = cluster.save_meta(job, plan, &repository).await?;
                BackupEvent::MetaSaved { manifest, saved_at }
            }
            (BackupCommand::Publish, BackupState::UploadInfo { plan, saved_at, .. }) => {
                let repository = self.reached_repository().await?;
                match cluster.publish(job, plan, *saved_at, &repository).await? {
                    Placed::Ours => BackupEvent::Published,
                    Placed::Taken(error) => BackupEvent::Displaced {
                        failure: Failure::of(&error),
                    },
                }
            }
            (BackupCommand::Release, _) => {
                cluster.release(job).await?;
                uploads::give_up(&self.context.inner, Some(job.id)).await;
                BackupEvent::Released
            }
            _ => return Err(misplaced()),
        })
    }
}
