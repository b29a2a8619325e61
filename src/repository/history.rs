//! Copies of the journals of jobs, beside the backups: what was done with a repository is known
//! where the gateway that did it is gone.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::layout::{self, HISTORY};
use super::{Repository, storage_error};
use crate::error::{Error, ErrorKind};
use crate::names::{JobUid, Timestamp};

/// A copy that is larger is not read.
pub const HISTORY_BYTES_MAX: u64 = 32 << 20;
/// What encryption adds to it at most, as one part of it in so many.
const SEALED_PART: u64 = 1024;

/// A copy, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedCopy {
    /// Of the job.
    pub uid: JobUid,
    pub written_at: Timestamp,
    pub bytes: u64,
}

/// 54000 if an object has more bytes than that.
pub(super) fn check_length(path: &Path, bytes: u64, most: u64) -> Result<(), Error> {
    if bytes > most {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("\"{path}\" has {bytes} bytes, more than {most}"),
        ));
    }
    Ok(())
}

impl Repository {
    /// Puts the copy of a job's journal; one that is there stays, since a job is over only once.
    /// 54000 if it is too large to be read again.
    pub async fn put_history(&self, uid: &JobUid, body: Vec<u8>) -> Result<(), Error> {
        let path = layout::history(&self.root, uid);
        check_length(&path, body.len() as u64, HISTORY_BYTES_MAX)?;
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
                    uid: layout::uid_of(&self.root, &object.location)?,
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
        self.read_again(|| self.read_copy(&path)).await
    }

    async fn read_copy(&self, path: &Path) -> Result<Bytes, Error> {
        let failed = |e| storage_error("read", path, e);
        let found = self.store.get(path).await.map_err(failed)?;
        // It may be another one than was listed.
        let most = HISTORY_BYTES_MAX + HISTORY_BYTES_MAX / SEALED_PART;
        check_length(path, found.meta.size, most)?;
        let stored = found.bytes().await.map_err(failed)?;
        self.layout().await?.open(path, stored)
    }
}
