//! A snapshot in a repository that a StarRocks cluster writes, deleted from the bucket: what makes
//! it a snapshot goes first, so that one that is deleted in part is none.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::starrocks_layout::{StarRocksRepository, StoredLabel};
use super::storage_error;
use super::transfer::blocking;
use crate::error::{Error, ErrorKind};
use crate::names::Timestamp;

/// How long nothing was written to what is no backup under way: backends go on for a while with one
/// that was cancelled.
pub const STORED_QUIET_SECONDS: u64 = 10 * 60;
/// Files that are deleted until it is asked whether to go on.
const FILES_AT_A_TIME: usize = 1000;

impl StarRocksRepository {
    /// Whether nothing at all stands under a label.
    pub async fn is_free(&self, stored: &StoredLabel) -> Result<bool, Error> {
        if !stored.infos.is_empty() || stored.has_meta || !stored.strays.is_empty() {
            return Ok(false);
        }
        let mut files = self.files(Some(&stored.label)).await?;
        if files.try_next().await?.is_some() {
            return Ok(false);
        }
        // Where there are directories, an empty one keeps StarRocks from using the label again.
        Ok(!self.has_directories() || !self.labels().await?.contains(&stored.label))
    }

    /// Refuses what another cluster may have made, as StarRocks 4.2 does; a cluster of an earlier
    /// version has no number that snapshots would tell.
    pub async fn check_maker(&self, stored: &StoredLabel) -> Result<(), Error> {
        let mut maker = None;
        for info in &stored.infos {
            maker = maker.or(self.info(info).await?.cluster_id);
        }
        let why = match maker {
            None => "does not record which cluster created it".to_owned(),
            Some(id) => format!("was created by cluster {id}, and this cluster tells no number"),
        };
        let message = format!(
            "Snapshot {} in repository {} {why}. Use DROP SNAPSHOT ... FORCE to drop it anyway",
            stored.label,
            self.name()
        );
        Err(Error::new(ErrorKind::WrongState, message))
    }

    /// When something was put under a label last, by the store's clock.
    pub async fn last_put(&self, label: &str) -> Result<Option<Timestamp>, Error> {
        let directory = self.label_path(label).await?;
        let failed = |e| storage_error("list", &directory, e);
        let mut listing = self.store().list(Some(&directory)).map_err(failed);
        let mut last = None;
        while let Some(object) = listing.try_next().await? {
            last = last.max(Some(Timestamp(object.last_modified.timestamp_millis())));
        }
        Ok(last)
    }

    /// Deletes the `__info_` files of a label: what is left is no snapshot.
    pub async fn delete_infos(&self, stored: &StoredLabel) -> Result<(), Error> {
        for info in &stored.infos {
            self.delete(info.path()).await?;
        }
        Ok(())
    }

    /// Deletes everything under a label. An error if something stays, which would keep StarRocks
    /// from using it again.
    pub async fn delete_label(
        &self,
        label: &str,
        go_on: impl Fn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let directory = self.label_path(label).await?;
        let failed = |e| storage_error("list", &directory, e);
        let mut listing = self.store().list(Some(&directory)).map_err(failed);
        loop {
            go_on()?;
            let mut paths = Vec::new();
            while paths.len() < FILES_AT_A_TIME
                && let Some(object) = listing.try_next().await?
            {
                paths.push(object.location);
            }
            if paths.is_empty() {
                break;
            }
            self.delete_all(paths).await?;
        }
        self.delete_directories(&directory).await?;
        if self.labels().await?.iter().any(|left| left == label) {
            let message =
                format!("\"{directory}\" is still there after all that is in it was deleted");
            return Err(Error::new(ErrorKind::Storage, message)
                .hint("An object that stands for the directory may be left by other tools; delete it with them."));
        }
        Ok(())
    }

    pub(super) async fn delete(&self, path: &Path) -> Result<(), Error> {
        match self.store().delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(storage_error("delete", path, e)),
        }
    }

    pub(super) async fn delete_all(&self, paths: Vec<Path>) -> Result<(), Error> {
        let first = paths.first().cloned().unwrap_or_default();
        let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.store().delete_stream(paths);
        while let Some(one) = deleted.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(storage_error("delete", &first, e)),
            }
        }
        Ok(())
    }

    /// A directory that is left keeps StarRocks from using the label again.
    pub(super) async fn delete_directories(&self, label: &Path) -> Result<(), Error> {
        if let Some(path) = self.local_path(label) {
            return blocking(move || match std::fs::remove_dir_all(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("delete", &path, e))
                }
                _ => Ok(()),
            })
            .await;
        }
        if !self.has_directories() {
            return Ok(());
        }
        let mut found = vec![label.clone()];
        let mut at = 0;
        while let Some(directory) = found.get(at).cloned() {
            let listed = self.store().list_with_delimiter(Some(&directory)).await;
            match listed {
                Ok(listed) => found.extend(listed.common_prefixes),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(storage_error("list", &directory, e)),
            }
            at += 1;
        }
        // Those within others come first.
        for directory in found.iter().rev() {
            self.delete(directory).await?;
        }
        Ok(())
    }
}
