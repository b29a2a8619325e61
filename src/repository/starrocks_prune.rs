//! What no backup needs in a repository that a StarRocks cluster writes, found and deleted: what
//! broken-off backups have left, tablets that no `__info_` file names, files that were not finished.
//!
//! StarRocks knows nothing of our marks. It uses no label anew under which anything stands, and reads
//! no tablet that an `__info_` file does not name; so what is to go concerns only a backup under way,
//! which is known by its job, and where it shows no job, by what it has just written.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{ObjectStoreExt, PutPayload};

use super::LISTINGS;
use super::layout;
use super::starrocks_layout::{LABEL_PREFIX, StarRocksRepository, StoredFile};
use super::starrocks_survey::is_marker;
use super::storage_error;
use super::transfer::blocking;
use crate::env::Env;
use crate::error::Error;
use crate::job::{CANDIDATES_MAX, Candidate, Prunable};
use crate::names::Timestamp;

/// The label that a file stands under.
fn label_of(path: &str) -> Option<&str> {
    path.split('/').next()?.strip_prefix(LABEL_PREFIX)
}

/// The groups of a label that were left alone since then, as what is to go.
fn candidates(groups: Vec<Vec<StoredFile>>, before: Timestamp) -> Vec<Candidate> {
    let is_left = |group: &Vec<StoredFile>| group.iter().all(|file| file.written_at < before);
    let files = groups.into_iter().filter(is_left).flatten();
    let candidate = |file: StoredFile| Candidate {
        object: Prunable::Stored(file.path),
        bytes: file.bytes,
        written_at: file.written_at,
    };
    files.map(candidate).collect()
}

/// Deletes a directory and those in it, as far as they are empty.
fn delete_empty(directory: &std::path::Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.for_each(|entry| delete_empty(&entry.path()));
    let _ = std::fs::remove_dir(directory);
}

impl StarRocksRepository {
    /// What no backup needs and nobody has written to since then, in labels that are not in use.
    pub async fn unneeded(
        &self,
        before: Timestamp,
        is_used: impl Fn(&str) -> bool,
    ) -> Result<Vec<Candidate>, Error> {
        let labels = self.labels().await?;
        let looking = labels
            .iter()
            .filter(|label| !is_used(label))
            .map(|label| self.unneeded_of(label).boxed());
        let mut looking = futures::stream::iter(looking.collect::<Vec<_>>()).buffered(LISTINGS);
        let mut found = Vec::new();
        while let Some(groups) = looking.try_next().await? {
            found.extend(candidates(groups, before));
            if found.len() >= CANDIDATES_MAX {
                break;
            }
        }
        found.truncate(CANDIDATES_MAX);
        Ok(found)
    }

    /// What is to go, by the label that it stands under.
    pub fn by_label(candidates: &[Candidate]) -> BTreeMap<&str, Vec<&Candidate>> {
        let mut labels: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
        for candidate in candidates {
            if let Some(label) = label_of(candidate.object.name()) {
                labels.entry(label).or_default().push(candidate);
            }
        }
        labels
    }

    /// Deletes those of some files of a label that no backup needs by now and that are what they
    /// were; the names of the others are answered. What is gone already counts as deleted.
    pub async fn delete_unneeded(
        &self,
        label: &str,
        candidates: &[&Candidate],
        before: Timestamp,
    ) -> Result<HashSet<String>, Error> {
        let unneeded: HashMap<String, Timestamp> =
            self::candidates(self.unneeded_of(label).await?, before)
                .into_iter()
                .map(|c| (c.object.name().to_owned(), c.written_at))
                .collect();
        let listed: Vec<StoredFile> = self.files(Some(label)).await?.try_collect().await?;
        let there: HashSet<&str> = listed.iter().map(|file| file.path.as_str()).collect();
        let (mut paths, mut kept) = (Vec::new(), HashSet::new());
        for candidate in candidates {
            let name = candidate.object.name();
            if unneeded.get(name) == Some(&candidate.written_at) {
                paths.push(self.path(name).await?);
            } else if there.contains(name) {
                kept.insert(name.to_owned());
            }
        }
        let others = listed.iter().filter(|file| !is_marker(file)).count();
        let goes_whole = paths.len() == others;
        self.delete_all(paths).await?;
        if goes_whole {
            self.delete_emptied(label, &listed).await?;
        }
        Ok(kept)
    }

    /// Takes away what is left of a label without files: an empty directory, and objects that stand
    /// for one, keep StarRocks from using it again.
    async fn delete_emptied(&self, label: &str, listed: &[StoredFile]) -> Result<(), Error> {
        for marker in listed.iter().filter(|file| is_marker(file)) {
            self.delete(&self.path(&marker.path).await?).await?;
        }
        let directory = self.label_path(label).await?;
        match self.local_path(&directory) {
            Some(directory) => {
                let emptied = blocking(move || {
                    delete_empty(&directory);
                    Ok(())
                });
                emptied.await?;
            }
            None => self.delete_directories(&directory).await?,
        }
        if self.labels().await?.iter().any(|left| left == label) {
            tracing::warn!(%label, "a label without files is still there, and cannot be used again");
        }
        Ok(())
    }

    /// What time it is where the repository is, by an object that is put there for a moment.
    pub async fn store_time(&self, env: &Env) -> Result<Timestamp, Error> {
        let path = layout::probe(&self.root_path().await?, &env.uuid());
        let put = self
            .store()
            .put(&path, PutPayload::from_static(b"what time is it"));
        let found = match put.await {
            Ok(_) => self.store().head(&path).await,
            Err(e) => Err(e),
        };
        // It may have been written all the same.
        self.delete(&path).await?;
        let found = found.map_err(|e| storage_error("try to write", &path, e))?;
        Ok(Timestamp(found.last_modified.timestamp_millis()))
    }
}
