//! Objects that are put once.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::moving::READ_AGAIN_AFTER;
use super::{Repository, http, storage_error, transfer};
use crate::error::Error;

impl Repository {
    /// Puts an object that must not exist yet. `false`: it existed already, and is untouched.
    pub(super) async fn put_once(&self, path: &Path, body: Bytes) -> Result<bool, Error> {
        if let Some(target) = self.local_path(path) {
            return transfer::write_new_file(target, body).await;
        }
        let mode = if self.puts_on_condition {
            PutMode::Create
        } else if self.exists(path).await? {
            return Ok(false);
        } else {
            PutMode::Overwrite
        };
        let body = PutPayload::from_bytes(body);
        let mut pauses = READ_AGAIN_AFTER.iter();
        loop {
            let options = PutOptions::from(mode.clone());
            let error = match self.store.put_opts(path, body.clone(), options).await {
                Ok(_) => return Ok(true),
                Err(e @ object_store::Error::AlreadyExists { .. }) => e,
                Err(e) => return Err(storage_error("write", path, e)),
            };
            // Every conflict is told in the same words.
            if self.exists(path).await? {
                return Ok(false);
            }
            match pauses.next() {
                Some(pause) => http::pause(*pause).await,
                None => return Err(storage_error("write", path, error)),
            }
        }
    }

    pub(super) async fn exists(&self, path: &Path) -> Result<bool, Error> {
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(storage_error("look at", path, e)),
        }
    }
}
