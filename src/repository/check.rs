//! Whether what a repository holds is what a backup relies on: a file that is there already is not
//! put again, so it is looked at.
//!
//! In a directory its bytes are hashed. An object store tells its length, and S3 a checksum (the
//! ETag, where that is one); what the checksum does not settle is read and hashed. Other stores are
//! believed by the length.

use std::collections::HashMap;
use std::path::Path as FilePath;

use futures::TryStreamExt;
use md5::{Digest, Md5};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::transfer::{PART_BYTES, blocking, hash_file};
use super::{Repository, layout, storage_error};
use crate::error::{Error, ErrorKind};
use crate::job::DataFile;

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
        let path = layout::data(&self.root, &file.sha256);
        if let Some(target) = self.local_path(&path) {
            let file = file.clone();
            return blocking(move || match std::fs::symlink_metadata(&target) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Presence::Missing),
                Err(e) => Err(Error::io("look at", &target, e)),
                Ok(found) if !found.is_file() || found.len() != file.bytes => Ok(Presence::Wrong),
                Ok(_) => Ok(if file.sha256 == hash_file(&target)?.0 {
                    Presence::Whole
                } else {
                    Presence::Wrong
                }),
            })
            .await;
        }
        let found = match self.store.head(&path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Presence::Missing),
            Err(e) => return Err(storage_error("look at", &path, e)),
        };
        if found.size != file.bytes {
            return Ok(Presence::Wrong);
        }
        let tag = found
            .e_tag
            .as_deref()
            .map(|tag| tag.trim_matches('"').to_ascii_lowercase())
            .unwrap_or_default();
        let Some(digest) = tag
            .split('-')
            .next()
            .filter(|d| d.len() == 32 && d.bytes().all(|b| b.is_ascii_hexdigit()))
        else {
            return Ok(Presence::Whole);
        };
        let (source, in_parts) = (source.to_owned(), tag.contains('-'));
        let expected = blocking(move || md5_of(&source, in_parts)).await;
        // A tag that is another digest says nothing: stores that encrypt make it of what they keep.
        if expected.is_ok_and(|expected| expected == digest) {
            return Ok(Presence::Whole);
        }
        let (found, _) = self.digest_of(&path).await?;
        Ok(if file.sha256 == found {
            Presence::Whole
        } else {
            Presence::Wrong
        })
    }

    /// Those of some files that are not here in their full length, by one listing.
    pub async fn lacking<'f>(
        &self,
        files: impl Iterator<Item = &'f DataFile>,
    ) -> Result<Vec<&'f DataFile>, Error> {
        let directory = layout::data_dir(&self.root);
        let listed = self
            .store
            .list(Some(&directory))
            .map_ok(|object| (object.location, object.size));
        let sizes: HashMap<Path, u64> = listed
            .try_collect()
            .await
            .map_err(|e| storage_error("list", &directory, e))?;
        Ok(files
            .filter(|file| sizes.get(&layout::data(&self.root, &file.sha256)) != Some(&file.bytes))
            .collect())
    }
}

/// What S3 calls the ETag of a file that was put whole, or in parts of our size.
fn md5_of(path: &FilePath, in_parts: bool) -> Result<String, Error> {
    use std::io::Read;
    let mut file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    let (mut whole, mut parts) = (Md5::new(), Md5::new());
    let mut buffer = vec![0; PART_BYTES];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file
                .read(&mut buffer[filled..])
                .map_err(|e| Error::io("read", path, e))?
            {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            break;
        }
        whole.update(&buffer[..filled]);
        parts.update(Md5::digest(&buffer[..filled]));
    }
    Ok(hex::encode(if in_parts {
        parts.finalize()
    } else {
        whole.finalize()
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
        job_uid: &str,
    ) -> Result<Placed, Error> {
        let taken = |what: &str| {
            let message = format!("Snapshot with name '{label}' already exist in repository");
            Placed::Taken(
                Error::new(ErrorKind::DuplicateObject, message)
                    .detail(format!("\"{path}\" is {what}")),
            )
        };
        if let Some(target) = self.local_path(path)
            && std::fs::symlink_metadata(&target).is_ok_and(|found| !found.is_file())
        {
            return Ok(taken("no file"));
        }
        let body = self
            .store
            .get(path)
            .await
            .map_err(|e| storage_error("read", path, e))?;
        let body = body
            .bytes()
            .await
            .map_err(|e| storage_error("read", path, e))?;
        Ok(match super::manifest::job_of(&body) {
            Some(uid) if uid == job_uid => Placed::Ours,
            Some(_) => taken("another backup's"),
            None => taken("no manifest"),
        })
    }
}
