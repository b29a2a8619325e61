//! Uploads in parts that a kill or an outage has left in an object store: given up once their job
//! is over.

use std::sync::Arc;

use async_trait::async_trait;

use super::Inner;
use crate::error::Error;
use crate::names::{JobId, RepositoryId};
use crate::repository::UploadLog;
use crate::store::UploadRecord;

/// Notes the uploads of one job in one repository.
#[derive(Debug)]
pub(super) struct JobUploads {
    pub inner: Arc<Inner>,
    pub job_id: JobId,
    pub repository: RepositoryId,
}

impl JobUploads {
    fn record(&self, path: &str, upload_id: &str) -> UploadRecord {
        UploadRecord {
            job_id: self.job_id,
            repository: self.repository,
            path: path.to_owned(),
            upload_id: upload_id.to_owned(),
        }
    }
}

#[async_trait]
impl UploadLog for JobUploads {
    async fn begun(&self, path: &str, upload_id: &str) -> Result<(), Error> {
        self.inner
            .store
            .note_upload(&self.record(path, upload_id))
            .await
    }

    async fn ended(&self, path: &str, upload_id: &str) -> Result<(), Error> {
        self.inner
            .store
            .forget_upload(&self.record(path, upload_id))
            .await
    }
}

/// Gives up what jobs that are over have left, or what this one has. What cannot be reached now is
/// tried again in the next round.
pub(super) async fn give_up(inner: &Inner, of: Option<JobId>) {
    let left = match inner.store.uploads().await {
        Ok(left) => left,
        Err(error) => return tracing::warn!(%error, "left uploads cannot be looked for"),
    };
    let is_over = |job: JobId| match of {
        Some(of) => of == job,
        None => !inner.drivers.lock().contains_key(&job),
    };
    for upload in left.iter().filter(|upload| is_over(upload.job_id)) {
        if let Err(error) = give_up_one(inner, upload).await {
            tracing::warn!(path = %upload.path, %error, "an upload that was left cannot be given up yet");
        }
    }
}

async fn give_up_one(inner: &Inner, upload: &UploadRecord) -> Result<(), Error> {
    let repositories = inner.store.repositories().await?;
    // With the repository goes the way to its store.
    if let Some(record) = repositories
        .iter()
        .find(|record| record.id == upload.repository)
    {
        inner
            .repository(record)?
            .abort_upload(&upload.path, &upload.upload_id)
            .await?;
    }
    inner.store.forget_upload(upload).await
}
