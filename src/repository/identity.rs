//! Whether what stands at a location is the repository that is meant, and the key that opens it.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::cipher::{Encryption, UserKey};
use super::layout::{self, Layout};
use super::{Repository, storage_error, transfer};
use crate::error::{Error, ErrorKind};
use crate::names::{RepositoryName, Timestamp};

/// `__repo_info`: who made the repository, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryInfo {
    /// The version of the format: 1, or 2 of an encrypted repository.
    pub format: u32,
    /// Unique over all repositories.
    pub id: String,
    /// Its name, also in the path.
    pub name: RepositoryName,
    /// When it was first created.
    pub created_at: Timestamp,
    /// How its objects are encrypted, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl Repository {
    /// `__repo_info` as it stands, if it is there.
    async fn info_bytes(&self) -> Result<Option<Bytes>, Error> {
        let path = layout::info(&self.root);
        let failed = |e| storage_error("read", &path, e);
        match self.store.get(&path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    pub(super) async fn info(&self) -> Result<Option<RepositoryInfo>, Error> {
        let path = layout::info(&self.root);
        let Some(body) = self.info_bytes().await? else {
            return Ok(None);
        };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let foreign = |e: serde_json::Error| {
            Error::new(ErrorKind::Unsupported, format!("failed to read repo info file: \"{path}\" is not Starkeep's: {e}")).hint(
                "A repository written by a StarRocks cluster is not read by the embedded cluster; choose another location or name.",
            )
        };
        // What a newer version says besides is not to be understood.
        let Format { format } = serde_json::from_slice(&body).map_err(foreign)?;
        if format > layout::ENCRYPTED_FORMAT {
            return Err(Error::unsupported(format_args!(
                "repository format {format} of {}",
                self.name
            ))
            .hint(format!(
                "This Starkeep reads formats up to {}; use a newer one.",
                layout::ENCRYPTED_FORMAT
            )));
        }
        let info: RepositoryInfo = serde_json::from_slice(&body).map_err(foreign)?;
        match (&info.encryption, &self.key) {
            (None, None) => {}
            // Whether it is the right key shows here, too.
            (Some(encryption), Some(key)) => drop(key.open(&info.id, encryption)?),
            (Some(_), None) => {
                let message = format!("repository {} is encrypted, and no key is given", self.name);
                return Err(Error::new(ErrorKind::InvalidAuthorization, message)
                    .hint("\"encryption.key\" is its key."));
            }
            (None, Some(_)) => {
                let message = format!("repository {} is there, and is not encrypted", self.name);
                return Err(Error::new(ErrorKind::InvalidParameter, message)
                    .hint("Leave \"encryption\" out, or choose another location or name."));
            }
        }
        Ok(Some(info))
    }

    /// How its objects are called and read. Of an encrypted one that is known once its key was
    /// opened.
    pub(super) async fn layout(&self) -> Result<&Layout, Error> {
        let layout = self.layout.get_or_try_init(|| async {
            let Some(key) = &self.key else {
                return Ok(Layout::new(&self.root, None));
            };
            let info = self.info().await?.ok_or_else(|| self.no_repository())?;
            let cipher = match &info.encryption {
                Some(encryption) => Some(key.open(&info.id, encryption)?),
                None => None,
            };
            Ok(Layout::new(&self.root, cipher))
        });
        layout.await
    }

    /// Has the repository opened by another key from now on; one that opens it already is fine.
    pub async fn change_key(&self, new: &UserKey) -> Result<(), Error> {
        let path = layout::info(&self.root);
        let with_new = Self {
            key: Some(new.clone()),
            layout: Arc::default(),
            ..self.clone()
        };
        let opens =
            |info: Option<RepositoryInfo>| info.map(drop).ok_or_else(|| self.no_repository());
        match with_new.info().await {
            Err(e) if e.kind == ErrorKind::InvalidAuthorization => {}
            other => return other.and_then(opens),
        }
        let info = self.info().await?.ok_or_else(|| self.no_repository())?;
        let (Some(encryption), Some(old)) = (&info.encryption, &self.key) else {
            return Err(Error::internal("a key is changed that there is not"));
        };
        let rewrapped = old.rewrapped(&info.id, encryption, new)?;
        // Everything else stays, what is not known here, too.
        let body = self
            .info_bytes()
            .await?
            .ok_or_else(|| self.no_repository())?;
        let broken = |e: serde_json::Error| Error::internal(e.to_string());
        let mut stored: serde_json::Value = serde_json::from_slice(&body).map_err(broken)?;
        stored["encryption"]["wrapped_key"] = rewrapped.wrapped_key.into();
        let body = serde_json::to_vec(&stored).map_err(broken)?;
        if let Some(target) = self.local_path(&path) {
            transfer::write_over_file(target, body.into()).await?;
        } else {
            let put = self.store.put(&path, PutPayload::from(body)).await;
            put.map_err(|e| storage_error("write", &path, e))?;
        }
        // Another gateway may have changed it at the same time.
        with_new.info().await.and_then(opens)
    }

    /// Checks that the repository can be reached and is there.
    pub async fn ping(&self) -> Result<(), Error> {
        let info = match &self.index {
            Some((location, index)) if self.local.is_some() => {
                let permit = index.may_look(location).await;
                let asking = self.clone();
                // Whoever gives up waiting leaves it behind, and its place taken.
                let asked = tokio::spawn(async move {
                    let _permit = permit;
                    asking.info().await
                });
                asked
                    .await
                    .map_err(|e| Error::internal(format!("a look at a directory died: {e}")))??
            }
            _ => self.info().await?,
        };
        match info {
            Some(_) => Ok(()),
            None => Err(self.no_repository()),
        }
    }

    pub(super) fn no_repository(&self) -> Error {
        Error::new(
            ErrorKind::MissingFile,
            format!("\"{}\" does not exist", layout::info(&self.root)),
        )
    }
}
