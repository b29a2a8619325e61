//! The steps of a verification.

use std::sync::Arc;

use super::{Attempt, VerifiedFiles, misplaced};
use crate::cluster::StepError;
use crate::error::{Error, ErrorKind};
use crate::job::{
    Finding, JobState, VerifyCommand, VerifyEvent, VerifyLevel, VerifyReport, VerifyRequest,
    VerifyState,
};
use crate::names::TaskId;
use crate::repository::{FileSet, Repository, StarRocksRepository, StoredSet};

/// An object that does not read as often is a finding.
const TRIES: u32 = 3;

impl Attempt<'_> {
    pub(super) async fn verify(
        &self,
        request: &VerifyRequest,
        state: &VerifyState,
        command: VerifyCommand,
    ) -> Result<VerifyEvent, StepError> {
        let inner = &self.context.inner;
        if inner.cluster(&self.job.spec.cluster)?.managed().is_err() {
            return self.verify_starrocks(request, state, command).await;
        }
        match (command, state) {
            (VerifyCommand::Plan, VerifyState::Pending) => {
                let repository = self.reached_repository().await?;
                let env = &self.context.inner.env;
                let planned = repository
                    .plan_verification(request, self.is_tolerant(), Some(env))
                    .await;
                let (plan, files) = planned.map_err(|e| match e.kind {
                    ErrorKind::UndefinedObject => StepError::Fatal(e),
                    _ => StepError::Retry(e),
                })?;
                *self.context.files.lock().await = Some(VerifiedFiles::Ours(Arc::new(files)));
                Ok(VerifyEvent::Planned {
                    plan: Arc::new(plan),
                })
            }
            (VerifyCommand::Check(task), VerifyState::Verifying { .. }) => {
                let repository = self.mounted_repository().await?;
                if let VerifyState::Verifying { report, .. } = state
                    && repository.id().await? != report.repository_id
                {
                    let message = "another repository stands at this name by now";
                    let error = Error::new(ErrorKind::WrongState, message);
                    return Err(StepError::Fatal(error.hint("Verify it anew.")));
                }
                let (files, found_again) = self.files(state, &repository).await?;
                let TaskId(part) = task;
                let parts = (part as u32, self.parts(request));
                let uid = &self.job.spec.uid;
                let checked =
                    repository.check_part(&files, parts, request, uid, self.is_tolerant());
                let mut checked = checked.await.map_err(StepError::Retry)?;
                found_again
                    .into_iter()
                    .for_each(|finding| checked.findings.push(finding));
                let VerifyState::Verifying { report, .. } = state else {
                    return Err(misplaced());
                };
                let checked = repository.without_dropped(&report.backups, checked).await;
                let checked = checked.map_err(StepError::Retry)?;
                // What is gone with the whole repository was not lost file by file.
                if !checked.findings.is_empty() {
                    super::reach(&repository).await?;
                }
                Ok(VerifyEvent::Checked { task, checked })
            }
            (VerifyCommand::Restore(task), VerifyState::Restoring { report, .. }) => {
                let restored = self.test_restore(request, report, task).await?;
                Ok(VerifyEvent::Restored { task, restored })
            }
            (VerifyCommand::Release, VerifyState::Cancelled { .. }) => {
                self.drop_scratch().await?;
                Ok(VerifyEvent::Released)
            }
            _ => Err(misplaced()),
        }
    }

    /// The same of a repository that a StarRocks cluster writes.
    async fn verify_starrocks(
        &self,
        request: &VerifyRequest,
        state: &VerifyState,
        command: VerifyCommand,
    ) -> Result<VerifyEvent, StepError> {
        match (command, state) {
            (VerifyCommand::Plan, VerifyState::Pending) => {
                let (repository, _) = self.starrocks_repository().await?;
                let env = &self.context.inner.env;
                let planned = repository.plan_verification(request, self.is_tolerant(), Some(env));
                let (plan, files) = planned.await.map_err(|e| match e.kind {
                    ErrorKind::UndefinedObject | ErrorKind::LimitExceeded => StepError::Fatal(e),
                    _ => StepError::Retry(e),
                })?;
                let files = VerifiedFiles::OfStarRocks(Arc::new(files), Arc::default());
                *self.context.files.lock().await = Some(files);
                Ok(VerifyEvent::Planned {
                    plan: Arc::new(plan),
                })
            }
            (VerifyCommand::Check(task), VerifyState::Verifying { report, left }) => {
                let (repository, throttle) = self.starrocks_repository().await?;
                if repository.ping().await.map_err(StepError::Retry)? != report.repository_id {
                    let message = "another repository stands at this name by now";
                    let error = Error::new(ErrorKind::WrongState, message);
                    return Err(StepError::Fatal(error.hint("Verify it anew.")));
                }
                let tolerant = self.is_tolerant();
                let (files, found_again) = self.stored_files(report, &repository).await?;
                let TaskId(part) = task;
                let (parts, uid) = ((part as u32, self.parts(request)), &self.job.spec.uid);
                let how = (&throttle, tolerant);
                let checked = repository
                    .check_part(&files, parts, request, uid, how)
                    .await;
                let mut checked = checked.map_err(StepError::Retry)?;
                // Told once, with the first part that is left.
                let is_first = left.iter().next() == Some(task);
                let known = report.findings.kept();
                let new = found_again
                    .iter()
                    .filter(|f| is_first && !known.contains(f));
                new.for_each(|finding| checked.findings.push(finding.clone()));
                let checked = repository.without_dropped(&report.backups, checked).await;
                let checked = checked.map_err(StepError::Retry)?;
                // What is gone with the whole repository was not lost file by file.
                if !checked.findings.is_empty() {
                    repository.ping().await.map_err(StepError::Retry)?;
                }
                Ok(VerifyEvent::Checked { task, checked })
            }
            (VerifyCommand::Restore(task), VerifyState::Restoring { report, .. }) => {
                let cluster = self.context.inner.cluster(&self.job.spec.cluster)?;
                let restored = self
                    .test_restore_starrocks(request, report, task, &cluster)
                    .await?;
                Ok(VerifyEvent::Restored { task, restored })
            }
            (VerifyCommand::Release, VerifyState::Cancelled { .. }) => {
                self.drop_starrocks_scratch().await?;
                Ok(VerifyEvent::Released)
            }
            _ => Err(misplaced()),
        }
    }

    /// The files that are looked at: those of the plan, or after a restart read again, with what is
    /// wrong with the `__info_` files by now.
    async fn stored_files(
        &self,
        report: &VerifyReport,
        repository: &StarRocksRepository,
    ) -> Result<(Arc<StoredSet>, Arc<Vec<Finding>>), StepError> {
        let mut known = self.context.files.lock().await;
        if let Some(VerifiedFiles::OfStarRocks(files, findings)) = &*known {
            return Ok((files.clone(), findings.clone()));
        }
        let read = repository.files_of(&report.backups, self.is_tolerant());
        let (files, findings) = read.await.map_err(StepError::Retry)?;
        if files.volume() != report.files && findings.is_empty() {
            // Which files it was about is known no more.
            let message = "the snapshots have changed since they were looked at first";
            let error = Error::new(ErrorKind::WrongState, message);
            return Err(StepError::Fatal(error.hint("Verify them anew.")));
        }
        let (files, findings) = (Arc::new(files), Arc::new(findings));
        *known = Some(VerifiedFiles::OfStarRocks(files.clone(), findings.clone()));
        Ok((files, findings))
    }

    /// How many parts the files are in.
    fn parts(&self, request: &VerifyRequest) -> u32 {
        let restores = match (&self.job.state, request.level) {
            (JobState::Verify(VerifyState::Verifying { report, .. }), VerifyLevel::Restore) => {
                report.backups.len() as u64
            }
            _ => 0,
        };
        (self.job.record.tasks_total - restores) as u32
    }

    /// What was tried a few times and does not read will not read the next time either.
    fn is_tolerant(&self) -> bool {
        self.attempts >= TRIES
    }

    /// The files of the backups that are looked at: those of the plan, or after a restart read
    /// again, with what is wrong with the manifests by now.
    async fn files(
        &self,
        state: &VerifyState,
        repository: &Repository,
    ) -> Result<(Arc<FileSet>, Vec<Finding>), StepError> {
        let mut known = self.context.files.lock().await;
        if let Some(VerifiedFiles::Ours(files)) = &*known {
            return Ok((files.clone(), Vec::new()));
        }
        let VerifyState::Verifying { report, .. } = state else {
            return Err(misplaced());
        };
        let read = repository
            .files_of(&report.backups, self.is_tolerant())
            .await;
        let (files, findings, _) = read.map_err(StepError::Retry)?;
        let files = Arc::new(files);
        *known = Some(VerifiedFiles::Ours(files.clone()));
        Ok((files, findings.kept().to_vec()))
    }
}
