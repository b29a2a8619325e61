//! What is known of a repository's objects while they are what they were: manifests that have been
//! read, and data files whose bytes have proved right. A look at a repository reads only what is
//! new.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use lru::LruCache;
use object_store::ObjectMeta;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use twox_hash::XxHash64;

use super::{Manifest, Repository};
use crate::error::Error;
use crate::names::{BackupTimestamp, Sha256, SnapshotLabel, Timestamp};

/// Manifests that are kept, bytes of what is stored: some thousand of ordinary size. Those that
/// nobody has asked for longest go first.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// What tells one state of an object from another: a listing has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStamp {
    bytes: u64,
    modified: DateTime<Utc>,
    /// Of a store that gives one; what it changes with is the store's own affair.
    etag: Option<String>,
}

impl ObjectStamp {
    /// When it was written, by the store's clock.
    pub fn written_at(&self) -> Timestamp {
        Timestamp(self.modified.timestamp_millis())
    }

    pub(super) fn of(object: &ObjectMeta) -> Self {
        Self {
            bytes: object.size,
            modified: object.last_modified,
            etag: object.e_tag.clone(),
        }
    }
}

/// A backup as a listing tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedBackup {
    pub timestamp: BackupTimestamp,
    pub stamp: ObjectStamp,
}

/// Where a manifest is: the repository's location and the object in it.
type Key = (Arc<str>, SnapshotLabel, BackupTimestamp);

/// Data files that are known to be whole, at most: some fifty megabytes.
const WHOLE_MAX: NonZeroUsize = NonZeroUsize::new(500_000).expect("not 0");

/// What is known of the objects of every repository of a process.
#[derive(Debug)]
pub struct ManifestIndex {
    manifests: Mutex<Kept>,
    /// By the repository's location and half of the file's hash, what told its object from another
    /// when its bytes were right.
    whole: Mutex<LruCache<(u64, u128), u64>>,
    /// How many looks at a directory may be under way, by its location: those at a mount that hangs
    /// have a thread each for as long as it does.
    looks: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    /// Objects whose bytes have proved wrong, whatever they say of themselves.
    damaged: Mutex<LruCache<(u64, u128), ()>>,
}

#[derive(Debug)]
struct Kept {
    manifests: LruCache<Key, (ObjectStamp, Arc<Manifest>)>,
    bytes: u64,
}

impl Default for ManifestIndex {
    fn default() -> Self {
        let kept = Kept {
            manifests: LruCache::unbounded(),
            bytes: 0,
        };
        Self {
            manifests: Mutex::new(kept),
            whole: Mutex::new(LruCache::new(WHOLE_MAX)),
            looks: Mutex::default(),
            damaged: Mutex::new(LruCache::new(WHOLE_MAX)),
        }
    }
}

/// Looks at one directory that may be under way.
const LOOKS_MAX: usize = 8;

impl ManifestIndex {
    /// Waits until one more look at a directory may begin.
    pub(super) async fn may_look(&self, location: &Arc<str>) -> OwnedSemaphorePermit {
        let looks = {
            let mut all = self.looks.lock();
            let of_this = all.entry(location.clone());
            of_this
                .or_insert_with(|| Arc::new(Semaphore::new(LOOKS_MAX)))
                .clone()
        };
        let permit = looks.acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    fn get(&self, key: &Key, stamp: &ObjectStamp) -> Option<Arc<Manifest>> {
        let mut kept = self.manifests.lock();
        kept.manifests
            .get(key)
            .filter(|(known, _)| known == stamp)
            .map(|(_, manifest)| manifest.clone())
    }

    fn keep(&self, key: Key, stamp: ObjectStamp, manifest: Arc<Manifest>) {
        let mut kept = self.manifests.lock();
        kept.bytes += stamp.bytes;
        if let Some((before, _)) = kept.manifests.put(key, (stamp, manifest)) {
            kept.bytes -= before.bytes;
        }
        while kept.bytes > KEPT_BYTES_MAX
            && let Some((_, (oldest, _))) = kept.manifests.pop_lru()
        {
            kept.bytes -= oldest.bytes;
        }
    }
}

fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = XxHash64::default();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Repository {
    fn key_of(location: &str, sha256: &Sha256) -> (u64, u128) {
        let half = u128::from_str_radix(&sha256[..32], 16).expect("hex digits");
        (hash_of(location), half)
    }

    /// Remembers that a file's bytes are right in an object that is told from others by this.
    pub(super) fn note_whole(&self, sha256: &Sha256, stamp: impl Hash) {
        if let Some((location, index)) = &self.index {
            let key = Self::key_of(location, sha256);
            index.whole.lock().put(key, hash_of(stamp));
        }
    }

    /// Remembers that the object of a data file is not what its name says, until it is written
    /// anew.
    pub fn note_damaged(&self, object: &Sha256) {
        if let Some((location, index)) = &self.index {
            let key = Self::key_of(location, object);
            index.whole.lock().pop(&key);
            index.damaged.lock().put(key, ());
        }
    }

    pub(super) fn is_known_damaged(&self, object: &Sha256) -> bool {
        let Some((location, index)) = &self.index else {
            return false;
        };
        index
            .damaged
            .lock()
            .contains(&Self::key_of(location, object))
    }

    /// It was written anew.
    pub(super) fn forget_damage(&self, object: &Sha256) {
        if let Some((location, index)) = &self.index {
            index.damaged.lock().pop(&Self::key_of(location, object));
        }
    }

    /// Whether a file was whole here when it was last looked at.
    pub(super) fn is_known(&self, sha256: &Sha256) -> bool {
        let Some((location, index)) = &self.index else {
            return false;
        };
        let key = Self::key_of(location, sha256);
        index.whole.lock().contains(&key)
    }

    /// Whether its bytes were right when its object was the one that is told from others by this.
    pub(super) fn is_known_whole(&self, sha256: &Sha256, stamp: impl Hash) -> bool {
        let Some((location, index)) = &self.index else {
            return false;
        };
        let key = Self::key_of(location, sha256);
        index.whole.lock().get(&key) == Some(&hash_of(stamp))
    }

    /// Whether its bytes were right in another object than the one that is told from others by
    /// this.
    pub(super) fn has_changed(&self, sha256: &Sha256, stamp: impl Hash) -> bool {
        let Some((location, index)) = &self.index else {
            return false;
        };
        let key = Self::key_of(location, sha256);
        let known = index.whole.lock().get(&key).copied();
        known.is_some_and(|known| known != hash_of(stamp))
    }

    /// The manifest of a backup that was listed, read only if it is not known as it is listed.
    pub async fn listed_manifest(
        &self,
        label: &SnapshotLabel,
        backup: &ListedBackup,
    ) -> Result<Arc<Manifest>, Error> {
        let Some((location, index)) = &self.index else {
            return Ok(Arc::new(self.manifest(label, &backup.timestamp).await?.0));
        };
        let key = (location.clone(), label.clone(), backup.timestamp.clone());
        if let Some(known) = index.get(&key, &backup.stamp) {
            return Ok(known);
        }
        let manifest = Arc::new(self.manifest(label, &backup.timestamp).await?.0);
        index.keep(key, backup.stamp.clone(), manifest.clone());
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

    use super::*;
    use crate::names::RepositoryName;
    use crate::repository::Location;
    use crate::repository::manifest::tests::sample;

    #[tokio::test]
    async fn a_manifest_is_read_again_only_when_its_object_is_another() {
        let store = Arc::new(InMemory::new());
        let name = RepositoryName::new("r").expect("a name");
        let repository = Repository::new(name, store.clone(), &Path::default(), None);
        let repository = repository.indexed(
            &Location {
                url: "memory:".into(),
                properties: Default::default(),
            },
            Arc::default(),
        );
        let written = sample();
        repository.publish(&written).await.expect("published");
        let listing = repository.snapshot(&written.label).await.expect("listed");
        let first = repository
            .listed_manifest(&written.label, &listing.backups[0])
            .await
            .expect("read");
        assert_eq!(*first, written);
        let again = repository
            .listed_manifest(&written.label, &listing.backups[0])
            .await
            .expect("known");
        assert!(Arc::ptr_eq(&first, &again));
        // Damaged since: the listing tells, and what was known does not stand for it.
        let objects: Vec<_> = futures::TryStreamExt::try_collect(store.list(None))
            .await
            .expect("listed");
        let object: &ObjectMeta = objects
            .iter()
            .find(|o| o.location.as_ref().contains("__info_"))
            .expect("the manifest");
        store
            .put(&object.location, PutPayload::from_static(b"{}"))
            .await
            .expect("written over");
        let listing = repository.snapshot(&written.label).await.expect("listed");
        assert!(
            repository
                .listed_manifest(&written.label, &listing.backups[0])
                .await
                .is_err()
        );
    }
}
