//! The steps of a verification.

use std::sync::Arc;

use super::{Attempt, misplaced};
use crate::cluster::StepError;
use crate::error::ErrorKind;
use crate::job::{VerifyCommand, VerifyEvent, VerifyRequest, VerifyState};
use crate::names::TaskId;
use crate::repository::{FileSet, Repository};

impl Attempt<'_> {
    pub(super) async fn verify(
        &self,
        request: &VerifyRequest,
        state: &VerifyState,
        command: VerifyCommand,
    ) -> Result<VerifyEvent, StepError> {
        match (command, state) {
            (VerifyCommand::Plan, VerifyState::Pending) => {
                let repository = self.reached_repository().await?;
                let planned = repository.plan_verification(request).await;
                let (plan, files) = planned.map_err(|e| match e.kind {
                    ErrorKind::UndefinedObject => StepError::Fatal(e),
                    _ => StepError::Retry(e),
                })?;
                *self.context.files.lock().await = Some(Arc::new(files));
                Ok(VerifyEvent::Planned {
                    plan: Arc::new(plan),
                })
            }
            (VerifyCommand::Check(task), VerifyState::Verifying { .. }) => {
                let repository = self.repository().await?;
                let files = self.files(state, &repository).await?;
                let TaskId(part) = task;
                let parts = self.job.record.tasks_total as u32;
                let checked = repository
                    .check_part(&files, (part as u32, parts), request, &self.job.spec.uid)
                    .await
                    .map_err(StepError::Retry)?;
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
            _ => Err(misplaced()),
        }
    }

    /// The files of the backups that are looked at: those of the plan, or after a restart read
    /// again.
    async fn files(
        &self,
        state: &VerifyState,
        repository: &Repository,
    ) -> Result<Arc<FileSet>, StepError> {
        let mut known = self.context.files.lock().await;
        if let Some(files) = &*known {
            return Ok(files.clone());
        }
        let VerifyState::Verifying { report, .. } = state else {
            return Err(misplaced());
        };
        let read = repository.files_of(&report.backups).await;
        let (files, _) = read.map_err(StepError::Retry)?;
        let files = Arc::new(files);
        *known = Some(files.clone());
        Ok(files)
    }
}
