//! Whether what a repository holds is what a backup relies on: a file that is there already is not
//! put again, so it is looked at.
//!
//! In a directory its bytes are hashed. An object store tells its length, and S3 a checksum (the
//! ETag, where that is one); what the checksum does not settle is read and hashed. Other stores are
//! believed by the length. What has proved right is not hashed again while it is what it was: the
//! same object by its tag, the same file by its times.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::path::{Path as FilePath, PathBuf};

use futures::{FutureExt, StreamExt, TryStreamExt};
use md5::{Digest, Md5};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::layout::Layout;
use super::survey::first_byte;
use super::transfer::{blocking, part_bytes, sync_dir};
use super::{LISTINGS, Manifest, Repository, storage_error};
use crate::error::{Error, ErrorKind};
use crate::job::DataFile;
use crate::names::{JobUid, Sha256};

/// How a file stands in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Whole,
    Missing,
    /// Of another length, or of other bytes.
    Wrong,
}

impl Repository {
    /// How a file stands here; `source` holds its good bytes.
    pub(super) async fn presence(
        &self,
        file: &DataFile,
        source: &FilePath,
    ) -> Result<Presence, Error> {
        let layout = self.layout().await?;
        let path = layout.data(&file.sha256);
        let stored_bytes = layout.stored_bytes(file);
        if let Some(target) = self.local_path(&path) {
            return self.presence_in_directory(file, &path, target).await;
        }
        let found = match self.store.head(&path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Presence::Missing),
            Err(e) => return Err(storage_error("look at", &path, e)),
        };
        if found.size != stored_bytes {
            return Ok(Presence::Wrong);
        }
        if self.is_known_damaged(&layout.object_of(&file.sha256)) {
            return Ok(Presence::Wrong);
        }
        let tag = found.e_tag.as_deref().map(plain_tag).unwrap_or_default();
        let Some(digest) = tag
            .split('-')
            .next()
            .filter(|d| d.len() == 32 && d.bytes().all(|b| b.is_ascii_hexdigit()))
        else {
            // A tag that is no digest tells one object from another and no more.
            if !tag.is_empty() && self.has_changed(&file.sha256, &tag) {
                if !self.has_bytes_of(&path, file).await? {
                    return Ok(Presence::Wrong);
                }
                self.note_whole(&file.sha256, &tag);
            }
            return Ok(Presence::Whole);
        };
        if self.is_known_whole(&file.sha256, &tag) {
            return Ok(Presence::Whole);
        }
        // What is encrypted is another each time, so its tag says nothing of its bytes. Neither
        // does a tag that is another digest: stores that encrypt make it of what they keep.
        let is_told = !layout.is_encrypted() && {
            let in_parts = tag.contains('-').then(|| part_bytes(file.bytes));
            let source = source.to_owned();
            let expected = blocking(move || md5_of(&source, in_parts)).await;
            expected.is_ok_and(|expected| expected == digest)
        };
        if !is_told && !self.has_bytes_of(&path, file).await? {
            return Ok(Presence::Wrong);
        }
        self.note_whole(&file.sha256, &tag);
        Ok(Presence::Whole)
    }

    /// How a file stands in a directory.
    async fn presence_in_directory(
        &self,
        file: &DataFile,
        path: &Path,
        target: PathBuf,
    ) -> Result<Presence, Error> {
        let layout = self.layout().await?;
        let stored_bytes = layout.stored_bytes(file);
        let place = target.clone();
        let found = blocking(move || match std::fs::symlink_metadata(&target) {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("look at", &target, e)),
        });
        let Some(found) = found.await? else {
            return Ok(Presence::Missing);
        };
        if !found.is_file() || found.len() != stored_bytes {
            return Ok(Presence::Wrong);
        }
        if self.is_known_damaged(&layout.object_of(&file.sha256)) {
            return Ok(Presence::Wrong);
        }
        if self.is_known_whole(&file.sha256, stamp_of(&found)) {
            return Ok(Presence::Whole);
        }
        if !self.has_bytes_of(path, file).await? {
            return Ok(Presence::Wrong);
        }
        // Whoever has written it may have been stopped before that.
        let synced = blocking(move || {
            let file = std::fs::File::open(&place).and_then(|file| file.sync_all());
            file.map_err(|e| Error::io("sync", &place, e))?;
            sync_dir(place.parent().expect("a file has a directory"))
        });
        synced.await?;
        self.note_whole(&file.sha256, stamp_of(&found));
        Ok(Presence::Whole)
    }

    /// Whether an object reads as the file that it should be.
    async fn has_bytes_of(&self, path: &Path, file: &DataFile) -> Result<bool, Error> {
        match self.digest_of(path).await {
            Ok((sha256, _)) => Ok(file.sha256 == sha256),
            // Of an encrypted one that shows before there is a hash.
            Err(e) if e.kind == ErrorKind::Corrupted => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// After a file was written into a directory, what tells it from another.
    pub(super) fn note_copied(&self, file: &DataFile, found: &std::fs::Metadata, layout: &Layout) {
        self.forget_damage(&layout.object_of(&file.sha256));
        self.note_whole(&file.sha256, stamp_of(found));
    }

    /// After a file was written here: what tells it from another, so that the next backup of it has
    /// nothing to hash.
    pub(super) async fn note_written(&self, file: &DataFile, e_tag: Option<&str>) {
        let Ok(layout) = self.layout().await else {
            return;
        };
        self.forget_damage(&layout.object_of(&file.sha256));
        let path = layout.data(&file.sha256);
        if let Some(target) = self.local_path(&path) {
            let found = blocking(move || {
                std::fs::symlink_metadata(&target).map_err(|e| Error::io("look at", &target, e))
            });
            if let Ok(found) = found.await {
                self.note_whole(&file.sha256, stamp_of(&found));
            }
        } else if let Some(tag) = e_tag {
            self.note_whole(&file.sha256, plain_tag(tag));
        }
    }

    /// Those of some files that are not here in their full length, by listings of where they are.
    pub async fn lacking<'f>(
        &self,
        files: impl Iterator<Item = &'f DataFile>,
    ) -> Result<Vec<&'f DataFile>, Error> {
        self.lacking_by(files, false).await
    }

    /// The same, and those that are not as they were when their bytes were right: what is the
    /// matter with them, only reading them tells.
    pub async fn doubtful<'f>(
        &self,
        files: impl Iterator<Item = &'f DataFile>,
    ) -> Result<Vec<&'f DataFile>, Error> {
        self.lacking_by(files, true).await
    }

    async fn lacking_by<'f>(
        &self,
        files: impl Iterator<Item = &'f DataFile>,
        strictly: bool,
    ) -> Result<Vec<&'f DataFile>, Error> {
        let layout = self.layout().await?;
        let mut by_directory: BTreeMap<u32, Vec<(Sha256, &DataFile)>> = BTreeMap::new();
        for file in files {
            let object = layout.object_of(&file.sha256);
            let alike = by_directory.entry(first_byte(&object)).or_default();
            alike.push((object, file));
        }
        let count = by_directory.values().map(Vec::len).sum();
        let together = self.listed_together(by_directory.len(), count).await?;
        let looking = by_directory.into_iter().map(|(first, files)| {
            let together = &together;
            async move {
                let are_there = match (&self.local, together) {
                    (Some(_), _) => self.are_in_directory(&files, strictly).await?,
                    (None, Some(there)) => self.are_among(there, &files, strictly).await?,
                    (None, None) => {
                        let there = self.listed_under(first).await?;
                        self.are_among(&there, &files, strictly).await?
                    }
                };
                let lacking = files.into_iter().zip(are_there);
                let lacking = lacking.filter(|(_, is_there)| !is_there);
                Ok::<Vec<_>, Error>(lacking.map(|((_, file), _)| file).collect())
            }
            .boxed()
        });
        let lacking = futures::stream::iter(looking.collect::<Vec<_>>()).buffered(LISTINGS);
        Ok(lacking.try_collect::<Vec<_>>().await?.concat())
    }

    /// Which of some files a store lists.
    async fn are_among(
        &self,
        there: &HashMap<Sha256, ObjectMeta>,
        files: &[(Sha256, &DataFile)],
        strictly: bool,
    ) -> Result<Vec<bool>, Error> {
        let layout = self.layout().await?;
        let is_there = |(object, file): &(Sha256, &DataFile)| {
            there.get(object).is_some_and(|found| {
                let tag = found.e_tag.as_deref().map(plain_tag);
                let is_doubtful = || {
                    self.is_known_damaged(object)
                        || tag.is_some_and(|tag| self.has_changed(&file.sha256, tag))
                };
                found.size == layout.stored_bytes(file) && !(strictly && is_doubtful())
            })
        };
        Ok(files.iter().map(is_there).collect())
    }

    /// The same of a directory.
    async fn are_in_directory(
        &self,
        files: &[(Sha256, &DataFile)],
        strictly: bool,
    ) -> Result<Vec<bool>, Error> {
        let layout = self.layout().await?;
        let objects = files.iter().map(|(object, _)| layout.object(object));
        let targets: Vec<_> = objects.map(|path| self.local_path(&path)).collect();
        let found = blocking(move || {
            let look = |target: PathBuf| match std::fs::symlink_metadata(&target) {
                Ok(found) => Ok(Some(found)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::io("look at", &target, e)),
            };
            let looked = targets
                .into_iter()
                .map(|target| target.map_or(Ok(None), look));
            looked.collect::<Result<Vec<_>, _>>()
        });
        let is_there = |((object, file), found): (&(Sha256, &DataFile), _)| {
            let found: Option<std::fs::Metadata> = found;
            found.is_some_and(|found| {
                let is_doubtful = || {
                    self.is_known_damaged(object)
                        || self.has_changed(&file.sha256, stamp_of(&found))
                };
                found.is_file()
                    && found.len() == layout.stored_bytes(file)
                    && !(strictly && is_doubtful())
            })
        };
        Ok(files.iter().zip(found.await?).map(is_there).collect())
    }
}

/// What tells a file from one that was put in its place or written to since.
fn stamp_of(found: &std::fs::Metadata) -> impl Hash + use<> {
    use std::os::unix::fs::MetadataExt;
    // Devices and numbers of files change where a directory is mounted anew.
    (
        found.len(),
        (
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ),
    )
}

fn plain_tag(tag: &str) -> String {
    tag.trim_matches('"').to_ascii_lowercase()
}

/// What is read of a file at a time.
const READ_BYTES: usize = 1 << 20;

/// What S3 calls the ETag of a file that was put whole, or in parts of this size.
fn md5_of(path: &FilePath, part_bytes: Option<usize>) -> Result<String, Error> {
    use std::io::Read;
    let mut file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    let (mut whole, mut part, mut parts) = (Md5::new(), Md5::new(), Md5::new());
    let mut buffer = vec![0; READ_BYTES];
    let mut left = part_bytes.unwrap_or(usize::MAX);
    loop {
        let wanted = buffer.len().min(left);
        let read = file
            .read(&mut buffer[..wanted])
            .map_err(|e| Error::io("read", path, e))?;
        if read == 0 {
            break;
        }
        whole.update(&buffer[..read]);
        part.update(&buffer[..read]);
        left -= read;
        if left == 0 {
            parts.update(part.finalize_reset());
            left = part_bytes.unwrap_or(usize::MAX);
        }
    }
    if part_bytes.is_some_and(|whole| left < whole) {
        parts.update(part.finalize());
    }
    Ok(hex::encode(match part_bytes {
        Some(_) => parts.finalize(),
        None => whole.finalize(),
    }))
}

/// What became of a manifest that was to be put.
#[derive(Debug)]
pub enum Placed {
    /// It stands where it belongs.
    Ours,
    /// Something else stands there, so that ours never will.
    Taken(Error),
}

impl Repository {
    /// What stands in the place of a manifest, if it is not ours; the caller has been told that
    /// something does.
    pub(super) async fn occupant(
        &self,
        path: &Path,
        label: &str,
        job_uid: &JobUid,
    ) -> Result<Placed, Error> {
        let taken = |what: &str| {
            let message = format!("Snapshot with name '{label}' already exist in repository");
            Placed::Taken(
                Error::new(ErrorKind::DuplicateObject, message)
                    .detail(format!("\"{path}\" is {what}")),
            )
        };
        if let Some(target) = self.local_path(path) {
            let look = blocking(move || {
                let found = std::fs::symlink_metadata(&target);
                Ok(found.is_ok_and(|found| !found.is_file()))
            });
            if look.await? {
                return Ok(taken("no file"));
            }
        }
        // One bad answer must not have ours be taken for somebody else's.
        let read = || async {
            let failed = |e| storage_error("read", path, e);
            let stored = self.store.get(path).await.map_err(failed)?;
            let stored = stored.bytes().await.map_err(failed)?;
            let body = self.layout().await?.open(path, stored)?;
            Manifest::decode(&body).map(|_| body)
        };
        let body = match self.read_again(read).await {
            Ok(body) => body,
            Err(e) if e.kind == ErrorKind::Corrupted => return Ok(taken("no manifest")),
            Err(e) if e.kind == ErrorKind::Unsupported => return Ok(taken("another backup's")),
            Err(e) => return Err(e),
        };
        Ok(match super::manifest::job_of(&body) {
            Some(uid) if uid == *job_uid => Placed::Ours,
            Some(_) => taken("another backup's"),
            None => taken("no manifest"),
        })
    }
}
