//! Leases: what a restore still reads, named in the repository, so that no gateway prunes it though
//! its backup is dropped meanwhile.
//!
//! Whoever restores puts a lease, and then sees that the backup is still there. Whoever prunes
//! reads manifests and leases after the mark was put: what one of them names stays. So of a lease
//! and a prune one is seen by the other, as with manifests (`prune.rs`).

use std::borrow::Cow;
use std::collections::HashSet;
use std::future::ready;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::history::check_length;
use super::{Repository, layout, storage_error, transfer};
use crate::error::{Error, ErrorKind};
use crate::job::DataFile;
use crate::names::{JobUid, Sha256, Timestamp};

/// A lease that nobody has renewed for so long is over, by the repository's own clock.
pub const LEASE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// No lease is larger; what is, is none of ours.
const LEASE_BYTES_MAX: u64 = 128 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease<'a> {
    format: u32,
    job_uid: Cow<'a, JobUid>,
    /// What the objects of its files are called.
    #[serde(borrow)]
    files: Vec<&'a str>,
}

impl Repository {
    /// Names the files that a job reads from now on, or still reads.
    pub async fn put_lease(
        &self,
        job_uid: &JobUid,
        files: impl Iterator<Item = &DataFile>,
    ) -> Result<(), Error> {
        let path = layout::lease(&self.root, job_uid);
        let layout = self.layout().await?;
        let files: Vec<_> = files.map(|file| layout.object_of(&file.sha256)).collect();
        let lease = Lease {
            format: layout::FORMAT,
            job_uid: Cow::Borrowed(job_uid),
            files: files.iter().map(|file| &**file).collect(),
        };
        let body = serde_json::to_vec(&lease).map_err(|e| Error::internal(e.to_string()))?;
        check_length(&path, body.len() as u64, LEASE_BYTES_MAX)?;
        // Nothing is written where no repository is, as where a mount is away.
        self.ping().await?;
        if let Some(target) = self.local_path(&path) {
            return transfer::write_over_file(target, body.into()).await;
        }
        let put = self.store.put(&path, PutPayload::from(body)).await;
        put.map(drop).map_err(|e| storage_error("write", &path, e))
    }

    /// The job reads nothing any more; a lease that is gone already is fine.
    pub async fn end_lease(&self, job_uid: &JobUid) -> Result<(), Error> {
        self.delete_object(&layout::lease(&self.root, job_uid))
            .await
    }

    /// Those of some objects that jobs read at this time. 55000 if a lease does not read.
    pub(super) async fn leased(
        &self,
        objects: &HashSet<&str>,
        now: Timestamp,
    ) -> Result<HashSet<Sha256>, Error> {
        let mut leased = HashSet::new();
        // One after the other: each may be large.
        for lease in self.leases().await? {
            if is_over(&lease, now) {
                continue;
            }
            let path = &lease.location;
            let read = self.read_again(|| self.read_lease(&lease, objects)).await;
            match read {
                Ok(files) => leased.extend(files),
                Err(e) if e.kind == ErrorKind::MissingFile => {
                    // It has ended since it was listed, or one server of many does not know it.
                    let listed = self.leases().await?;
                    if listed.iter().any(|again| again.location == *path) {
                        return Err(e.of_kind(ErrorKind::Storage));
                    }
                }
                Err(e) if e.kind == ErrorKind::Corrupted => {
                    let message = format!("nothing is pruned while a lease does not read: {e}");
                    return Err(Error::new(ErrorKind::WrongState, message)
                        .detail(path.to_string())
                        .hint("It ends a day after it was written; if no gateway restores from this repository, delete the object."));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(leased)
    }

    async fn leases(&self) -> Result<Vec<ObjectMeta>, Error> {
        let directory = self.root.clone().join(layout::LEASES);
        let objects = self.store.list(Some(&directory));
        let objects = objects.try_filter(|object| ready(layout::is_lease(&object.location)));
        objects
            .try_collect()
            .await
            .map_err(|e| storage_error("list", &directory, e))
    }

    /// Those of some objects that a lease names. XX001 if it does not read.
    async fn read_lease(
        &self,
        object: &ObjectMeta,
        objects: &HashSet<&str>,
    ) -> Result<Vec<Sha256>, Error> {
        let path = &object.location;
        let failed = |e| storage_error("read", path, e);
        let damaged = |why: String| Error::new(ErrorKind::Corrupted, why);
        let found = self.store.get(path).await.map_err(failed)?;
        let bytes = found.meta.size;
        if bytes > LEASE_BYTES_MAX {
            return Err(damaged(format!("it has {bytes} bytes")));
        }
        let body = found.bytes().await.map_err(failed)?;
        let lease: Lease<'_> = serde_json::from_slice(&body).map_err(|e| damaged(e.to_string()))?;
        if lease.format > layout::FORMAT {
            return Err(damaged(format!("it has format {}", lease.format)));
        }
        let named = lease
            .files
            .into_iter()
            .filter(|file| objects.contains(file));
        named.map(Sha256::new).collect()
    }

    /// Deletes leases that are over.
    pub(super) async fn remove_old_leases(&self, now: Timestamp) -> Result<(), Error> {
        for lease in self.leases().await? {
            if !is_over(&lease, now) {
                continue;
            }
            // Its job may have come back since it was listed.
            match self.store.head(&lease.location).await {
                Ok(found) if is_over(&found, now) => self.delete_object(&lease.location).await?,
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(storage_error("look at", &lease.location, e)),
            }
        }
        Ok(())
    }
}

fn is_over(object: &ObjectMeta, now: Timestamp) -> bool {
    // One that is to be written tomorrow is nobody's.
    let age = now.0.abs_diff(object.last_modified.timestamp_millis());
    u128::from(age) >= LEASE_AGE_MAX.as_millis()
}
