//! A command turned into its effect, and the effect into its event.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Inner;
use super::remote::Step;
use crate::cluster::{Progress, StepError, Swap};
use crate::error::{Error, ErrorKind};
use crate::job::*;
use crate::names::TaskId;
use crate::repository::{Location, Placed, Repository};
use crate::store::Note;

/// Carries out one command. A repository is opened for it: which one the name means is looked up each time, as its properties
/// may have been mended while the job waited.
pub(super) async fn perform(
    inner: &Arc<Inner>,
    job: &Job,
    command: JobCommand,
    attempts: u32,
    is_fresh: bool,
    abandon: &CancellationToken,
) -> Result<JobEvent, StepError> {
    let cluster = inner.cluster(&job.spec.cluster)?;
    if let (Some(request), JobCommand::Remote(command)) = (job.spec.remote(), command) {
        let gone = || Error::new(ErrorKind::Connection, format!("cluster \"{}\" does no jobs of its own", job.spec.cluster));
        let remote = cluster.remote().ok_or_else(gone)?;
        let step = Step { inner, cluster: &cluster, remote, job, request, attempts, is_fresh, abandon };
        return step.perform(command).await.map(|event| JobEvent::Remote(Box::new(event)));
    }
    let cluster = cluster.worker()?;
    let missing = || StepError::Fatal(Error::internal("a command came in a state that does not have it"));
    match (&job.state, command) {
        (JobState::Backup(state), JobCommand::Backup(command)) => {
            let event = match (command, state) {
                (BackupCommand::Plan, _) => BackupEvent::Planned { plan: Arc::new(cluster.plan_backup(job).await?) },
                (BackupCommand::Snapshot(task), BackupState::Snapshoting { plan, .. }) => {
                    BackupEvent::Snapshoted { task, backend_id: cluster.snapshot(job, plan, task).await? }
                }
                (BackupCommand::PlanUpload, BackupState::UploadSnapshot { plan }) => {
                    BackupEvent::UploadPlanned { tasks: Arc::new(cluster.plan_upload(job, plan).await?) }
                }
                (BackupCommand::Upload(task), BackupState::Uploading { plan, tasks, .. }) => {
                    let work = tasks.iter().find(|t| t.task_id == task).ok_or_else(missing)?;
                    let repository = open(inner, job).await?;
                    let progress = progress(inner, job, task, attempts, abandon);
                    BackupEvent::Uploaded { task, transfer: cluster.upload(job, plan, work, &repository, progress).await? }
                }
                (BackupCommand::SaveMeta, BackupState::SaveMeta { plan }) => {
                    let repository = open(inner, job).await?;
                    let (manifest, saved_at) = cluster.save_meta(job, plan, &repository).await?;
                    BackupEvent::MetaSaved { manifest, saved_at }
                }
                (BackupCommand::Publish, BackupState::UploadInfo { plan, saved_at, .. }) => {
                    let repository = open(inner, job).await?;
                    match cluster.publish(job, plan, *saved_at, &repository).await? {
                        Placed::Ours => BackupEvent::Published,
                        Placed::Taken(error) => BackupEvent::Displaced { failure: Failure::of(&error) },
                    }
                }
                (BackupCommand::Release, _) => {
                    cluster.release(job).await?;
                    BackupEvent::Released
                }
                _ => return Err(missing()),
            };
            Ok(JobEvent::Backup(event))
        }
        (JobState::Restore(state), JobCommand::Restore(command)) => {
            let event = match (command, state) {
                (RestoreCommand::Plan, _) => {
                    let repository = open(inner, job).await?;
                    RestoreEvent::Planned { plan: Arc::new(cluster.plan_restore(job, &repository).await?) }
                }
                (RestoreCommand::Prepare(task), RestoreState::Snapshoting { plan, .. }) => {
                    cluster.prepare(job, plan, task).await?;
                    RestoreEvent::Prepared { task }
                }
                (RestoreCommand::PlanDownload, RestoreState::Download { plan }) => {
                    RestoreEvent::DownloadPlanned { tasks: Arc::new(cluster.plan_download(job, plan).await?) }
                }
                (RestoreCommand::Download(task), RestoreState::Downloading { plan, tasks, .. }) => {
                    let work = tasks.iter().find(|t| t.task_id == task).ok_or_else(missing)?;
                    let repository = open(inner, job).await?;
                    let progress = progress(inner, job, task, attempts, abandon);
                    RestoreEvent::Downloaded { task, transfer: cluster.download(job, plan, work, &repository, progress).await? }
                }
                (RestoreCommand::Verify, RestoreState::Commit { plan }) => {
                    cluster.verify(job, plan).await?;
                    RestoreEvent::Verified
                }
                (RestoreCommand::Swap, RestoreState::Committing { plan }) => match cluster.swap(job, plan).await? {
                    Swap::Done => RestoreEvent::Swapped,
                    Swap::Refused(error) => RestoreEvent::SwapRefused { failure: Failure::of(&error) },
                },
                (RestoreCommand::Release, _) => {
                    cluster.release(job).await?;
                    RestoreEvent::Released
                }
                _ => return Err(missing()),
            };
            Ok(JobEvent::Restore(event))
        }
        _ => Err(missing()),
    }
}

async fn open(inner: &Inner, job: &Job) -> Result<Arc<Repository>, StepError> {
    let unknown = || StepError::Fatal(Error::internal("a job of ours has no repository"));
    let name = job.spec.repository.as_ref().ok_or_else(unknown)?;
    let record = inner.store.repository(&job.spec.cluster, name).await?;
    let location = Location { url: record.location, properties: record.properties };
    let repository = inner.open.open(&record.name, &location)?;
    // A mount that is gone looks like an empty directory: without its mark nothing is written or believed missing.
    repository.ping().await.map_err(|e| StepError::Retry(e.prefixed("the repository cannot be reached")))?;
    Ok(repository)
}

/// Notes what a transfer has done, and ends it between two files once the job is abandoned.
fn progress(inner: &Arc<Inner>, job: &Job, task: TaskId, attempts: u32, abandon: &CancellationToken) -> Progress {
    let (inner, id, abandon) = (inner.clone(), job.id, abandon.clone());
    Arc::new(move |done| {
        let before = inner.store.notes(id).tasks.remove(&task);
        let error = before.and_then(|n| n.error).filter(|_| attempts > 0);
        inner.store.note(id, Some(task), Note { attempts: attempts + 1, done, error, seen: None });
        if abandon.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the job was cancelled"));
        }
        Ok(())
    })
}
