//! Leases: what a restore still reads, named in the repository, so that no gateway prunes it though
//! its backup is dropped meanwhile.
//!
//! Whoever restores puts a lease, and then sees that the backup is still there. Whoever prunes reads
//! manifests and leases after the mark was put: what one of them names stays. So of a lease and a
//! prune one is seen by the other, as with manifests (`prune.rs`).

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::{LISTINGS, Repository, layout, storage_error, transfer};
use crate::error::{Error, ErrorKind};
use crate::job::DataFile;
use crate::names::{Sha256, Timestamp};

/// A lease that nobody has renewed for so long is over, by the repository's own clock.
pub const LEASE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// No lease is larger; what is, is none of ours.
const LEASE_BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    format: u32,
    /// The job that reads.
    job_uid: String,
    /// What the objects of its files are called.
    files: Vec<Sha256>,
}

impl Repository {
    /// Names the files that a job reads from now on, or still reads.
    pub async fn put_lease(
        &self,
        job_uid: &str,
        files: impl Iterator<Item = &DataFile>,
    ) -> Result<(), Error> {
        let path = layout::lease(&self.root, job_uid);
        let layout = self.layout().await?;
        let lease = Lease {
            format: layout::FORMAT,
            job_uid: job_uid.to_owned(),
            files: files.map(|file| layout.object_of(&file.sha256)).collect(),
        };
        let body = serde_json::to_vec(&lease).map_err(|e| Error::internal(e.to_string()))?;
        if let Some(target) = self.local_path(&path) {
            return transfer::write_over_file(target, body.into()).await;
        }
        let put = self.store.put(&path, PutPayload::from(body)).await;
        put.map(drop).map_err(|e| storage_error("write", &path, e))
    }

    /// The job reads nothing any more; a lease that is gone already is fine.
    pub async fn end_lease(&self, job_uid: &str) -> Result<(), Error> {
        self.delete_object(&layout::lease(&self.root, job_uid))
            .await
    }

    /// The objects that jobs read at this time. 55000 if a lease does not read.
    pub(super) async fn leased(&self, now: Timestamp) -> Result<HashSet<Sha256>, Error> {
        let directory = self.root.clone().join(layout::LEASES);
        let objects: Vec<_> = self
            .store
            .list(Some(&directory))
            .try_collect()
            .await
            .map_err(|e| storage_error("list", &directory, e))?;
        let reading = objects
            .into_iter()
            .filter(|object| layout::is_lease(&object.location) && !is_over(object, now))
            .map(|object| async move { self.read_again(|| self.read_lease(&object)).await });
        let mut read =
            futures::stream::iter(reading.collect::<Vec<_>>()).buffer_unordered(LISTINGS);
        let mut leased = HashSet::new();
        while let Some(lease) = read.next().await {
            match lease {
                Ok(lease) => leased.extend(lease.files),
                // It has ended since it was listed.
                Err(e) if e.kind == ErrorKind::MissingFile => {}
                Err(e) => return Err(e),
            }
        }
        Ok(leased)
    }

    async fn read_lease(&self, object: &ObjectMeta) -> Result<Lease, Error> {
        let path = &object.location;
        let unreadable = |why: String| {
            let message = format!("nothing is pruned while a lease does not read: {why}");
            Error::new(ErrorKind::WrongState, message)
                .detail(path.to_string())
                .hint("It ends a day after it was written; if no gateway restores from this repository, delete the object.")
        };
        if object.size > LEASE_BYTES_MAX {
            return Err(unreadable(format!("it has {} bytes", object.size)));
        }
        let failed = |e| storage_error("read", path, e);
        let body = self.store.get(path).await.map_err(failed)?;
        let body = body.bytes().await.map_err(failed)?;
        let lease: Lease = serde_json::from_slice(&body).map_err(|e| unreadable(e.to_string()))?;
        if lease.format > layout::FORMAT {
            return Err(unreadable(format!("it has format {}", lease.format)));
        }
        Ok(lease)
    }

    /// Deletes leases that are over.
    pub(super) async fn remove_old_leases(&self, now: Timestamp) -> Result<(), Error> {
        let directory = self.root.clone().join(layout::LEASES);
        let failed = |e| storage_error("list", &directory, e);
        let mut objects = self.store.list(Some(&directory));
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            if layout::is_lease(&object.location) && is_over(&object, now) {
                self.delete_object(&object.location).await?;
            }
        }
        Ok(())
    }
}

fn is_over(object: &ObjectMeta, now: Timestamp) -> bool {
    let age = now.0 - object.last_modified.timestamp_millis();
    age >= LEASE_AGE_MAX.as_millis() as i64
}
