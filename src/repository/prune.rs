//! Data files that no manifest or lease names, found and deleted: the only code that deletes data
//! of our own format.
//!
//! A gateway that is about to put a manifest may rely on such a file, because it found it there. So
//! what is to go is announced in an object, the mark, first. Whoever commits a backup looks for the
//! mark before its manifest is put and after, and as long as it lists one of the backup's files,
//! waits; then every file is looked for once more. Deletion waits after the mark, and reads every
//! manifest once more. So of a manifest and a mark one is seen by the other, and what was deleted
//! in between is brought again by whoever still has it.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::transfer::remove_file_and_empty_dir;
use super::{LISTINGS, Repository, layout, storage_error};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::job::{CANDIDATES_MAX, Candidate, DataFile, Prunable, Pruned, Volume};
use crate::names::{JobUid, Sha256, Timestamp};

/// How long the mark stands before anything is deleted, and after a deletion that was broken off:
/// for requests that are still on their way.
pub const PRUNE_WAIT: Duration = Duration::from_secs(600);
/// A mark that is older may be taken over: whoever made it deletes nothing any more.
const MARK_AGE_MAX_MS: i64 = 24 * 3600 * 1000;
/// A listing tells milliseconds and a HEAD seconds. What is written anew is later by the grace time
/// at least, which is longer.
const SAME_TIME_MS: i64 = 1000;
/// The shortest grace time.
pub const GRACE_SECONDS_MIN: u64 = 10;
/// Files that are deleted at a time.
const DELETIONS: usize = 8;
/// Files that are deleted until the mark is looked at again.
const FILES_PER_LOOK: usize = 100;

/// What the mark says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    format: u32,
    job_uid: JobUid,
    created_at: Timestamp,
    files: Vec<Sha256>,
}

/// A mark as it stands in the repository.
struct Found {
    mark: Mark,
    /// By the store's clock.
    written_at: Timestamp,
}

/// The data files among what is to go.
fn files_of(candidates: &[Candidate]) -> impl Iterator<Item = &Sha256> {
    candidates.iter().filter_map(|c| c.object.file())
}

fn unreadable(error: &Error) -> Error {
    Error::new(
        ErrorKind::WrongState,
        format!(
            "nothing is pruned while a manifest does not read: {}",
            error.message
        ),
    )
    .detail(error.detail.clone().unwrap_or_default())
    .hint("What it needs is not known. VERIFY REPOSITORY names it; DROP SNAPSHOT … FORCE drops it.")
}

impl Repository {
    /// Data files that no manifest names and that were written so long ago, by the repository's own
    /// clock. 55000 if a manifest does not read: what it needs is not known.
    pub async fn unneeded(&self, grace_seconds: u64, env: &Env) -> Result<Vec<Candidate>, Error> {
        let now = self.store_time(env).await?;
        self.unneeded_at(now, grace_seconds).await
    }

    /// The same, if that is the time.
    pub async fn unneeded_at(
        &self,
        now: Timestamp,
        grace_seconds: u64,
    ) -> Result<Vec<Candidate>, Error> {
        let before = now
            .0
            .saturating_sub_unsigned(grace_seconds.saturating_mul(1000));
        // Listed before the manifests are read: what is put between the two is needed.
        let failed = |e| storage_error("list", &self.root, e);
        let layout = self.layout().await?;
        let directory = layout.data_dir();
        let mut objects = self.store.list(Some(&directory));
        let mut found = Vec::new();
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            let written_at = Timestamp(object.last_modified.timestamp_millis());
            if let Some(layout::Place::Data(sha256)) = layout.place_of(&object.location)
                && written_at.0 < before
            {
                found.push(Candidate {
                    object: Prunable::File(sha256),
                    bytes: object.size,
                    written_at,
                });
            }
        }
        let needed = self.needed(files_of(&found), now).await?;
        let is_needed = |c: &Candidate| c.object.file().is_some_and(|file| needed.contains(file));
        found.retain(|candidate| !is_needed(candidate));
        found.sort_by(|a, b| a.object.name().cmp(b.object.name()));
        found.truncate(CANDIDATES_MAX);
        Ok(found)
    }

    /// Deletes what was left by those who were killed: what trying the location has put, which
    /// lives for moments only, and in a directory or on HDFS files that were not finished and that
    /// nobody has written to for so long.
    pub async fn remove_leftovers(&self, grace_seconds: u64, env: &Env) -> Result<(), Error> {
        let now = self.store_time(env).await?;
        self.remove_old_leases(now).await?;
        let now = now.0;
        if self.writes_beside {
            let before = now.saturating_sub_unsigned(grace_seconds.saturating_mul(1000));
            let layout = self.layout().await?;
            let failed = |e| storage_error("list", &self.root, e);
            let mut objects = self.store.list(Some(&self.root));
            while let Some(object) = objects.try_next().await.map_err(failed)? {
                let is_partial = layout.place_of(&object.location) == Some(layout::Place::Partial);
                if is_partial && object.last_modified.timestamp_millis() < before {
                    self.delete_object(&object.location).await?;
                }
            }
        }
        let before = now - PRUNE_WAIT.as_millis() as i64;
        let listed = self.store.list_with_delimiter(Some(&self.root)).await;
        let listed = listed.map_err(|e| storage_error("list", &self.root, e))?;
        for object in listed.objects {
            let is_probe = layout::is_probe(&object.location);
            if is_probe && object.last_modified.timestamp_millis() < before {
                self.delete_object(&object.location).await?;
            }
        }
        Ok(())
    }

    /// Those of some objects that a manifest or a lease names at this time.
    async fn needed(
        &self,
        objects: impl Iterator<Item = &Sha256>,
        now: Timestamp,
    ) -> Result<HashSet<Sha256>, Error> {
        let objects: HashSet<&str> = objects.map(|object| &**object).collect();
        let layout = self.layout().await?;
        let mut needed = HashSet::new();
        let mut backups = Vec::new();
        let failed = |e| storage_error("list", &self.root, e);
        let root = self
            .store
            .list_with_delimiter(Some(&self.root))
            .await
            .map_err(failed)?;
        if let Some(unknown) = root
            .common_prefixes
            .iter()
            .find(|p| layout.is_strange_label(p))
        {
            let message = format!("\"{unknown}\" is no label that is known");
            return Err(unreadable(&Error::new(ErrorKind::Unsupported, message)));
        }
        for listing in self.snapshots().await? {
            if let Some(stray) = listing.strays.first() {
                let message = format!(
                    "\"{stray}\" of {} is no manifest that is known",
                    listing.label
                );
                return Err(unreadable(&Error::new(ErrorKind::Unsupported, message)));
            }
            backups.extend(
                listing
                    .backups
                    .into_iter()
                    .map(|b| (listing.label.clone(), b)),
            );
        }
        let reading = backups.into_iter().map(|(label, backup)| {
            async move {
                let read = self.listed_manifest(&label, &backup).await;
                (label, backup.timestamp, read)
            }
            .boxed()
        });
        let mut read =
            futures::stream::iter(reading.collect::<Vec<_>>()).buffer_unordered(LISTINGS);
        while let Some((label, timestamp, manifest)) = read.next().await {
            match manifest {
                Ok(manifest) => {
                    let named = manifest.files().map(|f| layout.object_of(&f.sha256));
                    needed.extend(named.filter(|object| objects.contains(&**object)));
                }
                // Dropped since it was listed, or lost since a listing that still has it.
                Err(e) if e.kind == ErrorKind::MissingFile => {
                    if self.is_listed(&label, &timestamp).await? {
                        return Err(unreadable(&e));
                    }
                }
                Err(e) if matches!(e.kind, ErrorKind::Corrupted | ErrorKind::Unsupported) => {
                    return Err(unreadable(&e));
                }
                Err(e) => return Err(e),
            }
        }
        // After the manifests: whoever restores names its files before it believes in its manifest.
        needed.extend(self.leased(&objects, now).await?);
        Ok(needed)
    }

    /// The mark. One bad answer proves nothing about it; one that never reads counts for as long as
    /// any other.
    async fn mark(&self, env: &Env) -> Result<Option<Found>, Error> {
        match self.read_again(|| self.read_mark()).await {
            Err(e) if e.kind == ErrorKind::Corrupted && self.is_mark_old(env).await? => Ok(None),
            read => read,
        }
    }

    /// Whether a mark stands that is so old that nothing is deleted under it any more.
    async fn is_mark_old(&self, env: &Env) -> Result<bool, Error> {
        let path = layout::mark(&self.root);
        match self.store.head(&path).await {
            Ok(found) => {
                let written_at = found.last_modified.timestamp_millis();
                Ok(self.store_time(env).await?.0 - written_at >= MARK_AGE_MAX_MS)
            }
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(storage_error("look at", &path, e)),
        }
    }

    /// The mark as it reads. That there is none is believed only if a listing has none either.
    async fn read_mark(&self) -> Result<Option<Found>, Error> {
        let path = layout::mark(&self.root);
        let failed = |e| storage_error("read", &path, e);
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(e @ object_store::Error::NotFound { .. }) => {
                let unlisted = |e| storage_error("list", &self.root, e);
                let root = self.store.list_with_delimiter(Some(&self.root)).await;
                let root = root.map_err(unlisted)?;
                let is_listed = root.objects.iter().any(|object| object.location == path);
                return if is_listed { Err(failed(e)) } else { Ok(None) };
            }
            Err(e) => return Err(failed(e)),
        };
        let written_at = Timestamp(found.meta.last_modified.timestamp_millis());
        let body = found.bytes().await.map_err(failed)?;
        let mark: Mark = serde_json::from_slice(&body).map_err(|e| {
            Error::new(
                ErrorKind::Corrupted,
                format!("the mark of a prune does not read: {e}"),
            )
            .detail(path.to_string())
            .hint("If no gateway prunes this repository, delete the object.")
        })?;
        if mark.format > layout::FORMAT {
            let message = format!(
                "the mark of a prune has format {}, and this version reads {}",
                mark.format,
                layout::FORMAT
            );
            return Err(Error::new(ErrorKind::Unsupported, message).detail(path.to_string()));
        }
        Ok(Some(Found { mark, written_at }))
    }

    /// Refuses while somebody prunes. 55006.
    pub async fn check_unmarked(&self, env: &Env) -> Result<(), Error> {
        match self.mark(env).await? {
            None => Ok(()),
            // Taken over.
            Some(found) if env.now().0 - found.written_at.0 >= MARK_AGE_MAX_MS => Ok(()),
            Some(found) => Err(self.is_being_pruned(&found)),
        }
    }

    fn is_being_pruned(&self, found: &Found) -> Error {
        let message = format!(
            "repository {} is being pruned by another gateway",
            self.name()
        );
        Error::new(ErrorKind::ObjectInUse, message)
            .detail(format!("Its mark was put by job {}.", found.mark.job_uid))
            .hint("A mark that nobody uses any more is taken over after a day.")
    }

    /// One of some files that is about to be deleted, if any is: whoever relies on them waits. Not
    /// for a mark so old that nothing is deleted under it any more.
    pub async fn marked_file<'f>(
        &self,
        files: impl Iterator<Item = &'f DataFile>,
        env: &Env,
    ) -> Result<Option<&'f DataFile>, Error> {
        let Some(Found { mark, written_at }) = self.mark(env).await? else {
            return Ok(None);
        };
        let layout = self.layout().await?;
        let marked: HashSet<&Sha256> = mark.files.iter().collect();
        let is_marked = |file: &&DataFile| marked.contains(&layout.object_of(&file.sha256));
        let Some(file) = files.into_iter().find(is_marked) else {
            return Ok(None);
        };
        let is_old = self.store_time(env).await?.0 - written_at.0 >= MARK_AGE_MAX_MS;
        Ok((!is_old).then_some(file))
    }

    /// Announces what is to be deleted. 55006 if somebody else does so already.
    pub async fn put_mark(
        &self,
        job_uid: &JobUid,
        candidates: &[Candidate],
        env: &Env,
    ) -> Result<(), Error> {
        let path = layout::mark(&self.root);
        let mark = Mark {
            format: layout::FORMAT,
            job_uid: job_uid.clone(),
            created_at: env.now(),
            files: files_of(candidates).cloned().collect(),
        };
        let body = serde_json::to_vec(&mark).map_err(|e| Error::internal(e.to_string()))?;
        let body = Bytes::from(body);
        if self.put_once(&path, body.clone()).await? {
            return Ok(());
        }
        let Some(found) = self.mark(env).await? else {
            if self.is_mark_old(env).await? {
                tracing::warn!(%path, "the mark of a prune that does not read is replaced");
                self.delete_object(&path).await?;
                if self.put_once(&path, body).await? {
                    return Ok(());
                }
            }
            return Err(Error::new(
                ErrorKind::Storage,
                format!("\"{path}\" came and went"),
            ));
        };
        if found.mark.job_uid == *job_uid {
            return Ok(());
        }
        if self.store_time(env).await?.0 - found.written_at.0 >= MARK_AGE_MAX_MS {
            tracing::warn!(%path, "the mark of a prune that was given up is taken over");
            self.delete_object(&path).await?;
            if self.put_once(&path, body).await? {
                return Ok(());
            }
        }
        Err(self.is_being_pruned(&found))
    }

    /// Takes the mark away, if it is this job's.
    pub async fn take_mark(&self, job_uid: &JobUid, env: &Env) -> Result<(), Error> {
        match self.mark(env).await {
            Ok(Some(found)) if found.mark.job_uid == *job_uid => {
                self.delete_object(&layout::mark(&self.root)).await
            }
            Ok(_) => Ok(()),
            // What does not read is not what this job has put.
            Err(e) if matches!(e.kind, ErrorKind::Corrupted | ErrorKind::Unsupported) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Deletes those files that no manifest names by now and that were not written anew; `go_on`
    /// is asked before each. What is gone already counts as deleted.
    pub async fn delete_unneeded(
        &self,
        job_uid: &JobUid,
        candidates: &[Candidate],
        env: &Env,
        go_on: impl Fn() -> Result<(), Error> + Sync,
    ) -> Result<(Pruned, Vec<String>), Error> {
        self.check_mark(job_uid, env).await?;
        let now = self.store_time(env).await?;
        let needed = self.needed(files_of(candidates), now).await?;
        let (mut pruned, mut kept) = (Pruned::default(), Vec::new());
        for some in candidates.chunks(FILES_PER_LOOK) {
            self.check_mark(job_uid, env).await?;
            let deleting = some.iter().map(|candidate| {
                let (needed, go_on) = (&needed, &go_on);
                async move {
                    go_on()?;
                    let file = candidate.object.file();
                    let file = file.filter(|sha256| !needed.contains(*sha256));
                    let deleted = match file {
                        Some(sha256) => self.delete_unchanged(sha256, candidate).await?,
                        None => false,
                    };
                    Ok::<_, Error>((candidate, deleted))
                }
                .boxed()
            });
            let mut deleted =
                futures::stream::iter(deleting.collect::<Vec<_>>()).buffer_unordered(DELETIONS);
            while let Some((candidate, is_deleted)) = deleted.try_next().await? {
                let volume = Volume {
                    files: 1,
                    bytes: candidate.bytes,
                };
                if is_deleted {
                    pruned.deleted.add(volume);
                } else {
                    pruned.kept.add(volume);
                    kept.push(candidate.object.name().to_owned());
                }
            }
        }
        kept.sort();
        Ok((pruned, kept))
    }

    /// Whether this job's mark stands and is young enough that everybody heeds it.
    async fn check_mark(&self, job_uid: &JobUid, env: &Env) -> Result<(), Error> {
        let lost = || {
            Error::new(
                ErrorKind::WrongState,
                "the mark of this job is not in the repository any more; nothing more is deleted",
            )
            .hint("PRUNE REPOSITORY begins anew.")
        };
        let found = self
            .mark(env)
            .await?
            .filter(|f| f.mark.job_uid == *job_uid)
            .ok_or_else(lost)?;
        if self.store_time(env).await?.0 - found.written_at.0 >= MARK_AGE_MAX_MS / 2 {
            return Err(lost());
        }
        Ok(())
    }

    /// Deletes a file, unless it was written anew since it was found; whether it is gone.
    async fn delete_unchanged(
        &self,
        sha256: &Sha256,
        candidate: &Candidate,
    ) -> Result<bool, Error> {
        let path = self.layout().await?.object(sha256);
        match self.store.head(&path).await {
            Ok(found) => {
                let later = found.last_modified.timestamp_millis() - candidate.written_at.0;
                if later.abs() >= SAME_TIME_MS {
                    return Ok(false);
                }
            }
            Err(object_store::Error::NotFound { .. }) => return Ok(true),
            Err(e) => return Err(storage_error("look at", &path, e)),
        }
        self.delete_object(&path).await?;
        Ok(true)
    }

    pub(super) async fn delete_object(&self, path: &Path) -> Result<(), Error> {
        if let Some(target) = self.local_path(path) {
            return remove_file_and_empty_dir(target).await;
        }
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(storage_error("delete", path, e)),
        }
        self.remove_empty_directory_of(path).await;
        Ok(())
    }

    /// HDFS has directories, and refuses to delete one that is not empty.
    pub(super) async fn remove_empty_directory_of(&self, path: &Path) {
        let mut parts: Vec<_> = path.parts().collect();
        parts.pop();
        let directory = Path::from_iter(parts);
        if self.writes_beside && directory != self.root {
            let _ = self.store.delete(&directory).await;
        }
    }
}
