//! Where backups live: a directory or bucket in the format of docs/repository-format.md.
//!
//! Objects are put once and never overwritten. Data files are named by their content, so an
//! unchanged file is never uploaded twice. A backup exists when, and only when, its manifest object
//! exists: the manifest's conditional put is the commit.

mod check;
mod cipher;
mod history;
mod http;
mod identity;
mod index;
mod layout;
mod leases;
mod location;
mod manifest;
mod moving;
mod open;
mod probe;
mod prune;
mod puts;
mod remote;
mod single_deletes;
mod starrocks_delete;
mod starrocks_layout;
mod starrocks_prune;
mod starrocks_survey;
mod survey;
mod throttle;
pub(crate) mod transfer;
mod uploads;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::sync::OnceCell;

pub use self::check::Placed;
pub use self::cipher::UserKey;
pub use self::history::{HISTORY_BYTES_MAX, ListedCopy};
pub use self::identity::RepositoryInfo;
pub use self::index::{ListedBackup, ManifestIndex, ObjectStamp};
use self::layout::Layout;
use self::location::Store;
pub use self::location::{
    CONDITIONAL_PUT_KEY, ENCRYPTION, ENCRYPTION_KEY, Location, MAX_BYTES_PER_SECOND_KEY,
    check_location, is_same_place,
};
pub use self::manifest::Manifest;
#[doc(hidden)]
pub use self::manifest::check_manifest;
pub use self::open::{Locations, OpenRepository};
pub use self::prune::{GRACE_SECONDS_MIN, PRUNE_WAIT};
pub use self::starrocks_delete::STORED_QUIET_SECONDS;
pub use self::starrocks_layout::*;
pub use self::starrocks_survey::StoredSet;
pub use self::survey::FileSet;
pub use self::throttle::{SpeedLimit, Throttle};
use self::transfer::SyncedDirs;
pub use self::transfer::{ByteBudget, Moved, hash_file};
pub use self::uploads::UploadLog;
use crate::error::{Error, ErrorKind};
use crate::job::ManifestDigest;
use crate::names::{BackupTimestamp, RepositoryName, Sha256, SnapshotLabel};

/// How many listings run at a time.
const LISTINGS: usize = 8;

/// An open repository.
#[derive(Clone, Debug)]
pub struct Repository {
    name: RepositoryName,
    store: Store,
    /// Whether the store puts an object only if there is none. Otherwise it is looked for first.
    puts_on_condition: bool,
    /// Where uploads in parts are noted while they are under way.
    uploads: Option<Arc<dyn UploadLog>>,
    throttle: Option<Throttle>,
    moved: Moved,
    /// The key that the user has given, of an encrypted repository.
    key: Option<UserKey>,
    /// Once it is known.
    layout: Arc<OnceCell<Layout>>,
    root: Path,
    /// Where the root is, if it is a local directory: there, files are written with fsync, which
    /// object_store does not do.
    local: Option<PathBuf>,
    /// Whether a file has another name while it is written, which a kill leaves.
    writes_beside: bool,
    synced_dirs: Arc<SyncedDirs>,
    /// Whether it was seen to have more data files than are listed together.
    has_many_files: Arc<AtomicBool>,
    /// Where it is, and the manifests that are known of it.
    index: Option<(Arc<str>, Arc<ManifestIndex>)>,
}

/// How the objects of data files are called.
#[derive(Clone, Debug)]
pub struct ObjectNames(Layout);

impl ObjectNames {
    /// From the repository's directory on.
    pub fn of(&self, sha256: &Sha256) -> String {
        self.0.relative(&self.0.data(sha256))
    }

    /// The object's own name, if that is how one of a data file is called.
    pub fn parse(path: &str) -> Option<Sha256> {
        let name = path.strip_prefix("data/")?.strip_suffix(".parquet")?;
        Sha256::new(name.split('/').next_back()?).ok()
    }
}

/// The backups under one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotListing {
    pub label: SnapshotLabel,
    /// Oldest first.
    pub backups: Vec<ListedBackup>,
    /// Names that look like manifests but are none.
    pub strays: Vec<String>,
}

/// Turns an object store's error into ours: what was tried, on which object.
pub(crate) fn storage_error(what: &str, path: &Path, error: object_store::Error) -> Error {
    let kind = match &error {
        // What cannot be written because something is not there lacks its bucket or its upload.
        object_store::Error::NotFound { .. } if !what.contains("writ") => ErrorKind::MissingFile,
        object_store::Error::NotImplemented { .. } => ErrorKind::Unsupported,
        _ => ErrorKind::Storage,
    };
    let full = full_disk(&error);
    let message = format!("failed to {what} \"{path}\": {error}");
    Error::new(if full { ErrorKind::DiskFull } else { kind }, message).source(error)
}

fn full_disk(error: &object_store::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(e) = source {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            );
        }
        source = e.source();
    }
    false
}

impl Repository {
    /// A repository in this store, under this prefix; `local` is the directory of the prefix if the
    /// store is a directory.
    pub fn new(
        name: RepositoryName,
        store: impl Into<Store>,
        prefix: &Path,
        local: Option<PathBuf>,
    ) -> Self {
        let directory = layout::repository_dir(&name);
        let root = prefix.clone().join(directory.as_str());
        Self {
            writes_beside: local.is_some(),
            local: local.map(|dir| dir.join(directory)),
            name,
            store: store.into(),
            puts_on_condition: true,
            uploads: None,
            throttle: None,
            moved: Moved::default(),
            key: None,
            layout: Arc::default(),
            root,
            synced_dirs: Arc::default(),
            has_many_files: Arc::default(),
            index: None,
        }
    }

    /// The same, noting uploads in parts while they are under way.
    pub fn with_uploads(self: &Arc<Self>, uploads: Arc<dyn UploadLog>) -> Arc<Self> {
        Arc::new(Self {
            uploads: Some(uploads),
            ..(**self).clone()
        })
    }

    /// The same, telling of the bytes that it moves.
    pub fn telling(&self, moved: Moved) -> Self {
        Self {
            moved,
            ..self.clone()
        }
    }

    /// The same with an index of manifests, in which it is known by its location: what is read from
    /// another endpoint is another's.
    pub fn indexed(self, location: &Location, index: Arc<ManifestIndex>) -> Self {
        let mut place = DefaultHasher::new();
        location.hosts().hash(&mut place);
        let key = format!("{} {} {:x}", location.url, self.root, place.finish());
        Self {
            writes_beside: location.is_file_system(),
            index: Some((key.into(), index)),
            ..self
        }
    }

    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// Where an object is on disk, for a repository in a directory.
    fn local_path(&self, path: &Path) -> Option<PathBuf> {
        let root = self.local.as_ref()?;
        let relative = path.prefix_match(&self.root)?;
        Some(relative.fold(root.clone(), |dir, part| dir.join(part.as_ref())))
    }

    /// Every label with its backups, by name. Objects that are no backups are skipped.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotListing>, Error> {
        let listing = self
            .store
            .list_with_delimiter(Some(&self.root))
            .await
            .map_err(|e| storage_error("list", &self.root, e))?;
        let layout = self.layout().await?;
        let labels: Vec<_> = listing
            .common_prefixes
            .iter()
            .filter_map(|prefix| layout.label_of(prefix))
            .collect();
        let listings: Vec<BoxFuture<'_, _>> = labels
            .into_iter()
            .map(|label| async move { self.snapshot(&label).await }.boxed())
            .collect();
        let mut found: Vec<SnapshotListing> = futures::stream::iter(listings)
            .buffer_unordered(LISTINGS)
            .try_collect()
            .await?;
        found.sort_by(|a, b| a.label.cmp(&b.label));
        if found.is_empty() {
            self.check_there().await?;
        }
        Ok(found)
    }

    /// A location that is away lists nothing, as an empty one does.
    async fn check_there(&self) -> Result<(), Error> {
        let location = self.local.as_ref().and_then(|root| root.parent());
        let Some(location) = location.map(std::path::Path::to_owned) else {
            return Ok(());
        };
        transfer::blocking(move || {
            std::fs::metadata(&location)
                .map(drop)
                .map_err(|e| Error::io("look at", &location, e).of_kind(ErrorKind::Storage))
        })
        .await
    }

    /// Whether anything stands under a label, an empty directory too.
    pub async fn has_label(&self, label: &SnapshotLabel) -> Result<bool, Error> {
        let listing = self
            .store
            .list_with_delimiter(Some(&self.root))
            .await
            .map_err(|e| storage_error("list", &self.root, e))?;
        let layout = self.layout().await?;
        Ok(listing
            .common_prefixes
            .iter()
            .filter_map(|prefix| layout.label_of(prefix))
            .any(|known| known == *label))
    }

    /// The backups under one label; none if there is no such label.
    pub async fn snapshot(&self, label: &SnapshotLabel) -> Result<SnapshotListing, Error> {
        let directory = self.layout().await?.label_dir(label);
        let objects: Vec<_> = self
            .store
            .list(Some(&directory))
            .try_collect()
            .await
            .map_err(|e| storage_error("list", &directory, e))?;
        let mut out = SnapshotListing {
            label: label.clone(),
            backups: Vec::new(),
            strays: Vec::new(),
        };
        for object in objects {
            let Some(name) = object
                .location
                .filename()
                .and_then(|n| n.strip_prefix(layout::MANIFEST_PREFIX))
            else {
                continue;
            };
            match BackupTimestamp::new(name) {
                Ok(timestamp) => out.backups.push(ListedBackup {
                    timestamp,
                    stamp: ObjectStamp::of(&object),
                }),
                Err(_) => out
                    .strays
                    .push(format!("{}{name}", layout::MANIFEST_PREFIX)),
            }
        }
        if out.backups.is_empty() {
            self.check_there().await?;
        }
        out.backups.sort_by(|a, b| a.timestamp.cmp(&b.timestamp));
        out.strays.sort();
        Ok(out)
    }

    /// A backup's manifest, checked against its own hash. 58P01 if there is none, XX001 if it is
    /// damaged.
    pub async fn manifest(
        &self,
        label: &SnapshotLabel,
        timestamp: &BackupTimestamp,
    ) -> Result<(Manifest, ManifestDigest), Error> {
        let path = self.layout().await?.manifest(label, timestamp);
        let read = || async {
            let body = self.manifest_bytes(label, timestamp).await?;
            Manifest::decode(&body).map_err(|e| e.detail(path.to_string()))
        };
        let (manifest, digest) = self.read_again(read).await?;
        if manifest.label != *label || manifest.timestamp != *timestamp {
            let message = format!(
                "the manifest is damaged: it is of {} at {}",
                manifest.label, manifest.timestamp
            );
            return Err(Error::new(ErrorKind::Corrupted, message).detail(path.to_string()));
        }
        Ok((manifest, digest))
    }

    async fn manifest_bytes(
        &self,
        label: &SnapshotLabel,
        timestamp: &BackupTimestamp,
    ) -> Result<Bytes, Error> {
        let path = self.layout().await?.manifest(label, timestamp);
        let found = self
            .store
            .get(&path)
            .await
            .map_err(|e| storage_error("read", &path, e))?;
        let stored = found.bytes().await;
        let stored = stored.map_err(|e| storage_error("read", &path, e))?;
        self.layout().await?.open(&path, stored)
    }

    /// Puts a manifest: the commit of a backup. Saying it twice is the same as once. What else
    /// stands in its place proves that this one never will.
    pub async fn publish(&self, manifest: &Manifest) -> Result<Placed, Error> {
        let (body, _) = manifest.encode()?;
        let layout = self.layout().await?;
        let path = layout.manifest(&manifest.label, &manifest.timestamp);
        if self.put_once(&path, layout.seal(&path, body)?).await? {
            return Ok(Placed::Ours);
        }
        // Ours, perhaps written by an older version of this program: the job is what counts.
        self.occupant(&path, manifest.label.as_str(), &manifest.job_uid)
            .await
    }

    /// Where the objects of data files are, from the repository's directory on.
    pub async fn objects(&self) -> Result<ObjectNames, Error> {
        Ok(ObjectNames(self.layout().await?.clone()))
    }

    /// Refuses to have a backup dropped that another cluster has made, in StarRocks' words.
    pub async fn check_maker(
        &self,
        label: &SnapshotLabel,
        timestamp: &BackupTimestamp,
        cluster_id: &str,
    ) -> Result<(), Error> {
        let name = &self.name;
        let maker = match self.manifest(label, timestamp).await {
            Ok((manifest, _)) => manifest.cluster_id,
            // What is damaged for good says nothing; what does not answer just now may say whose it
            // is.
            Err(e) if e.kind == ErrorKind::Corrupted => None,
            Err(e) => {
                let message = format!(
                    "Failed to delete snapshot {label} in repository {name}: {}",
                    e.message
                );
                return Err(
                    Error::new(e.kind, message).hint("Whose it is cannot be read now; try again.")
                );
            }
        };
        let why = match maker {
            Some(maker) if maker == cluster_id => return Ok(()),
            Some(maker) => {
                format!("was created by cluster {maker}, and this cluster is {cluster_id}")
            }
            None => "does not record which cluster created it".to_owned(),
        };
        let message = format!(
            "Snapshot {label} in repository {name} {why}. Use DROP SNAPSHOT ... FORCE to drop it anyway"
        );
        Err(Error::new(ErrorKind::WrongState, message))
    }

    /// Takes a backup's manifest away: after that the backup does not exist. One that is gone
    /// already is fine. Its data stays until it is pruned, because other backups may share it.
    pub async fn remove_manifest(
        &self,
        label: &SnapshotLabel,
        timestamp: &BackupTimestamp,
    ) -> Result<(), Error> {
        let path = self.layout().await?.manifest(label, timestamp);
        if let Some(target) = self.local_path(&path) {
            return transfer::remove_file_and_empty_dir(target).await;
        }
        let error = match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                self.remove_empty_directory_of(&path).await;
                return Ok(());
            }
            Err(e) => e,
        };
        // Where only the answer was lost, it is gone.
        match self.store.head(&path).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            _ => Err(storage_error("delete", &path, error)),
        }
    }
}
