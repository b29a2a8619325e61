//! Copies of the journals of jobs, beside the backups: what was done with a repository is known
//! where the gateway that did it is gone.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::layout::{self, HISTORY};
use super::{Repository, storage_error};
use crate::error::{Error, ErrorKind};
use crate::names::Timestamp;

/// A copy that is larger is not read.
const COPY_BYTES_MAX: u64 = 32 << 20;

/// A copy, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedCopy {
    /// Of the job.
    pub uid: String,
    pub written_at: Timestamp,
    pub bytes: u64,
}

impl Repository {
    /// Puts the copy of a job's journal; one that is there stays, since a job is over only once.
    pub async fn put_history(&self, uid: &str, body: Vec<u8>) -> Result<(), Error> {
        let path = layout::history(&self.root, uid);
        let body = self.layout().await?.seal(&path, Bytes::from(body))?;
        self.put_once(&path, body).await.map(drop)
    }

    /// The copies, in the order in which they were written.
    pub async fn history(&self) -> Result<Vec<ListedCopy>, Error> {
        let directory = self.root.clone().join(HISTORY);
        let objects: Vec<_> = self
            .store
            .list(Some(&directory))
            .try_collect()
            .await
            .map_err(|e| storage_error("list", &directory, e))?;
        let mut copies: Vec<_> = objects
            .into_iter()
            .filter_map(|object| {
                Some(ListedCopy {
                    uid: layout::uid_of(&object.location)?.to_owned(),
                    written_at: Timestamp(object.last_modified.timestamp_millis()),
                    bytes: object.size,
                })
            })
            .collect();
        copies.sort_by(|a, b| (a.written_at, &a.uid).cmp(&(b.written_at, &b.uid)));
        if copies.is_empty() {
            self.check_there().await?;
        }
        Ok(copies)
    }

    /// The bytes of a copy. 54000 if it is too large.
    pub async fn read_history(&self, copy: &ListedCopy) -> Result<Bytes, Error> {
        let path = layout::history(&self.root, &copy.uid);
        if copy.bytes > COPY_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("\"{path}\" has more than {COPY_BYTES_MAX} bytes"),
            ));
        }
        self.read_again(|| self.read_copy(&path)).await
    }

    async fn read_copy(&self, path: &Path) -> Result<Bytes, Error> {
        let failed = |e| storage_error("read", path, e);
        let found = self.store.get(path).await.map_err(failed)?;
        let stored = found.bytes().await.map_err(failed)?;
        self.layout().await?.open(path, stored)
    }
}
