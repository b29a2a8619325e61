//! A location tried before it is trusted: every right that a backup will need, and whether the
//! store does what a commit relies on.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use super::cipher::MAGIC;
use super::{Repository, RepositoryInfo, layout, storage_error, uploads};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::names::Timestamp;

/// What S3 says when it is not a right that is missing.
const OTHER_REFUSALS: [(&str, &str); 5] = [
    (
        "SignatureDoesNotMatch",
        "The secret key is not that of the access key.",
    ),
    (
        "InvalidAccessKeyId",
        "The store does not know the access key.",
    ),
    (
        "ExpiredToken",
        "The session token has expired; give a new one.",
    ),
    (
        "RequestTimeTooSkewed",
        "The clock of this machine and that of the store are too far apart.",
    ),
    (
        "AuthorizationHeaderMalformed",
        "The store is in another region; set \"aws.s3.region\".",
    ),
];

/// What S3 calls the rights, in the order in which they are tried.
fn right_missing(error: Error, right: &str, of_s3: &str) -> Error {
    // Not every refusal is for want of a right; some come as a bad request.
    for (code, hint) in OTHER_REFUSALS {
        if error.message.contains(code) {
            return error.hint(hint);
        }
    }
    let is_refused = ["403 Forbidden", "401 Unauthorized"]
        .iter()
        .any(|s| error.message.contains(s));
    if !is_refused {
        return error;
    }
    error.hint(format!(
        "A repository takes the rights to list, read, write and delete; this is the right to {right} ({of_s3} of S3)."
    ))
}

/// A store that cannot put on condition, or will not.
fn not_on_condition(error: Error) -> Error {
    error.hint(
        "A commit puts an object only if there is none (If-None-Match). For a store that does not do that, \"conditional_put\" = \"false\" has whoever commits look first; then only one gateway may write to the repository.",
    )
}

impl Repository {
    /// Tries the location (every right that a backup needs) and adopts the repository that is
    /// there, or makes one. A read-only repository is only read, so it must exist.
    pub async fn initialize(&self, read_only: bool, env: &Env) -> Result<RepositoryInfo, Error> {
        if !read_only {
            self.probe(env).await?;
        }
        let path = layout::info(&self.root);
        if let Some(info) = self.info().await? {
            if read_only {
                // A repository that cannot be listed has no snapshots to be found.
                let listed = self.store.list_with_delimiter(Some(&self.root)).await;
                listed.map_err(|e| self.list_missing(e))?;
            } else {
                self.mend_info().await?;
            }
            return Ok(info);
        }
        if read_only {
            return Err(Error::new(
                ErrorKind::MissingFile,
                format!("there is no repository {} at this location", self.name),
            )
            .hint("Create it without READ ONLY first, or correct the location."));
        }
        if self.key.is_some() {
            self.check_empty().await?;
        } else {
            self.check_not_encrypted().await?;
        }
        let id = env.uuid();
        let encryption = self
            .key
            .as_ref()
            .map(|key| key.encryption(&id))
            .transpose()?;
        let info = RepositoryInfo {
            format: match encryption {
                Some(_) => layout::ENCRYPTED_FORMAT,
                None => layout::FORMAT,
            },
            id,
            name: self.name.clone(),
            created_at: env.now(),
            encryption,
        };
        let body = serde_json::to_vec(&info).map_err(|e| Error::internal(e.to_string()))?;
        if self.put_once(&path, body.into()).await? {
            self.mend_info().await?;
            return Ok(info);
        }
        // Another gateway was faster.
        self.info()
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Storage, format!("\"{path}\" came and went")))
    }

    /// Refuses to begin an encrypted repository over what another one has left: its key would be
    /// another, and what is there would be hidden behind it.
    async fn check_empty(&self) -> Result<(), Error> {
        let listed = self.store.list_with_delimiter(Some(&self.root)).await;
        let listed = listed.map_err(|e| storage_error("list", &self.root, e))?;
        match listed.common_prefixes.first() {
            Some(left) => Err(self.lost_info(left)),
            None => Ok(()),
        }
    }

    /// Refuses to begin a plain repository over what an encrypted one has left.
    async fn check_not_encrypted(&self) -> Result<(), Error> {
        let copy = layout::info_copy(&self.root);
        if self.exists(&copy).await? {
            return Err(self.lost_info(&copy));
        }
        let failed = |e| storage_error("list", &self.root, e);
        let mut objects = self.store.list(Some(&self.root));
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            let name = object.location.filename().unwrap_or_default();
            let is_either = name.starts_with("__info_") || name.ends_with(".parquet");
            if !is_either || object.size < MAGIC.len() as u64 {
                continue;
            }
            let head = self
                .store
                .get_range(&object.location, 0..MAGIC.len() as u64);
            let head = head.await;
            let head = head.map_err(|e| storage_error("read", &object.location, e))?;
            return if head[..] == MAGIC[..] {
                Err(self.lost_info(&object.location))
            } else {
                Ok(())
            };
        }
        Ok(())
    }

    fn lost_info(&self, left: &object_store::path::Path) -> Error {
        let message = format!(
            "\"{left}\" is there, and \"{}\" is not",
            layout::info(&self.root)
        );
        Error::new(ErrorKind::WrongState, message).hint(
            "Without that object what is stored here cannot be decrypted: bring it or \"__repo_info_copy\" back, or choose another location or name.",
        )
    }

    fn list_missing(&self, error: object_store::Error) -> Error {
        let error = storage_error("list", &self.root, error);
        right_missing(error, "list", "s3:ListBucket")
    }

    async fn probe(&self, env: &Env) -> Result<(), Error> {
        let path = layout::probe(&self.root, &env.uuid());
        let content = Bytes::from(env.uuid());
        let written = self.put_once(&path, content.clone()).await.map_err(|e| {
            if e.message.contains("501 Not Implemented") || e.kind == ErrorKind::Unsupported {
                not_on_condition(e)
            } else {
                right_missing(e, "write", "s3:PutObject")
            }
        });
        if let Err(error) = written {
            // It may have been written all the same.
            let _ = self.store.delete(&path).await;
            return Err(error);
        }
        let tried = self.try_rights(&path, &content).await;
        let deleted = self.store.delete(&path).await.map_err(|e| {
            let error = storage_error("delete", &path, e);
            right_missing(error, "delete", "s3:DeleteObject").detail(format!(
                "The object \"{path}\" was written to try the location, and stays behind."
            ))
        });
        tried.and(deleted)
    }

    async fn try_rights(
        &self,
        path: &object_store::path::Path,
        content: &Bytes,
    ) -> Result<(), Error> {
        if self.put_once(path, content.clone()).await? {
            return Err(not_on_condition(Error::new(
                ErrorKind::Unsupported,
                "the store writes over an object that it was to put only if there is none",
            )));
        }
        let unread = |e| right_missing(storage_error("read", path, e), "read", "s3:GetObject");
        let found = self.store.get(path).await.map_err(unread)?;
        if found.bytes().await.map_err(unread)? != *content {
            return Err(Error::new(
                ErrorKind::Corrupted,
                format!("\"{path}\" reads back other bytes than were written"),
            ));
        }
        let listed = self.store.list_with_delimiter(Some(&self.root)).await;
        let listed = listed.map_err(|e| self.list_missing(e))?;
        if listed.objects.iter().any(|object| object.location == *path) {
            return self.try_parts(path).await;
        }
        Err(Error::new(
            ErrorKind::Storage,
            format!("\"{path}\" was written, and a listing does not have it"),
        )
        .hint("What a repository holds is known from listings; they must be up to date."))
    }

    /// Begins an upload in parts and gives it up.
    async fn try_parts(&self, path: &object_store::path::Path) -> Result<(), Error> {
        if self.local.is_some() {
            return Ok(());
        }
        let upload = uploads::begin(&self.store, path, None).await;
        let upload = upload.map_err(|e| right_missing(e, "write in parts", "s3:PutObject"))?;
        upload
            .abort()
            .await
            .map_err(|e| right_missing(e, "give up what was begun", "s3:AbortMultipartUpload"))
    }

    /// What time it is where the repository is: an object store says so of what is put there. A
    /// directory has our own clock.
    pub async fn clock(&self, env: &Env) -> Result<Timestamp, Error> {
        if self.local.is_some() {
            return Ok(env.now());
        }
        self.store_time(env).await
    }

    /// What time it is where the repository is, by an object that is put there: of a directory,
    /// too, which may be on a server with a clock of its own.
    pub(super) async fn store_time(&self, env: &Env) -> Result<Timestamp, Error> {
        let path = layout::probe(&self.root, &env.uuid());
        let put = self
            .put_once(&path, Bytes::from_static(b"what time is it"))
            .await;
        let found = match put {
            Ok(_) => {
                let found = self.store.head(&path).await;
                found.map_err(|e| storage_error("look at", &path, e))
            }
            // It may have been written all the same.
            Err(e) => Err(e),
        };
        self.store
            .delete(&path)
            .await
            .map_err(|e| storage_error("delete", &path, e))?;
        Ok(Timestamp(found?.last_modified.timestamp_millis()))
    }
}
