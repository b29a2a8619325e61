//! Whether what stands at a location is the repository that is meant, and the key that opens it.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::cipher::{Encryption, UserKey};
use super::layout::{self, Layout};
use super::{READ_AGAIN_AFTER, Repository, http, storage_error, transfer};
use crate::error::{Error, ErrorKind};
use crate::job::FindingKind;
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

/// Whether an object that says what the repository is may be damaged. Another key looks no
/// different from a damaged one.
fn is_damage(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Corrupted | ErrorKind::Unsupported | ErrorKind::InvalidAuthorization
    )
}

impl Repository {
    /// An object that says what the repository is, as it stands, if it is there.
    async fn info_bytes(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        let failed = |e| storage_error("read", path, e);
        match self.store.get(path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    pub(super) async fn info(&self) -> Result<Option<RepositoryInfo>, Error> {
        Ok(self.found_info().await?.map(|(info, _)| info))
    }

    /// What the repository is, and the object that says so. Of an encrypted one there is a copy,
    /// which counts where `__repo_info` is lost or damaged: what it says of the key stands nowhere
    /// else.
    async fn found_info(&self) -> Result<Option<(RepositoryInfo, Bytes)>, Error> {
        let lost = match self.info_at(&layout::info(&self.root)).await {
            Ok(Some(found)) => return Ok(Some(found)),
            Err(e) if !is_damage(&e) => return Err(e),
            lost => lost,
        };
        if self.key.is_none() {
            return lost;
        }
        match self.info_at(&layout::info_copy(&self.root)).await {
            Ok(Some(copy)) => {
                tracing::warn!(repository = %self.name, "__repo_info is lost or damaged; its copy stands for it");
                Ok(Some(copy))
            }
            Err(e) if !is_damage(&e) => Err(e),
            _ => lost,
        }
    }

    async fn info_at(&self, path: &Path) -> Result<Option<(RepositoryInfo, Bytes)>, Error> {
        let Some(body) = self.info_bytes(path).await? else {
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
        Ok(Some((info, body)))
    }

    /// Writes an object that says what the repository is, whatever stands there.
    async fn write_info(&self, path: &Path, body: Bytes) -> Result<(), Error> {
        if let Some(target) = self.local_path(path) {
            return transfer::write_over_file(target, body).await;
        }
        let put = self.store.put(path, PutPayload::from(body)).await;
        put.map(drop).map_err(|e| storage_error("write", path, e))
    }

    /// What is wrong with `__repo_info` of an encrypted repository and its copy, by the object's
    /// path: they have the only key.
    pub(super) async fn info_findings(&self) -> Result<Vec<(Path, FindingKind, String)>, Error> {
        if self.key.is_none() {
            return Ok(Vec::new());
        }
        let (_, whole) = self
            .found_info()
            .await?
            .ok_or_else(|| self.no_repository())?;
        let mut findings = Vec::new();
        for path in [layout::info(&self.root), layout::info_copy(&self.root)] {
            match self.info_at(&path).await {
                Ok(Some((_, body))) if body == whole => {}
                Ok(Some(_)) => {
                    let detail = "it is not what __repo_info says".to_owned();
                    findings.push((path, FindingKind::Damaged, detail));
                }
                Ok(None) => {
                    let detail = "one of the two objects that have the repository's key".to_owned();
                    findings.push((path, FindingKind::Missing, detail));
                }
                Err(e) if is_damage(&e) => {
                    findings.push((path, FindingKind::Damaged, e.message));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(findings)
    }

    /// Writes `__repo_info` of an encrypted repository or its copy anew, if either is lost or does
    /// not read. What is of another key stays.
    pub async fn mend_info(&self) -> Result<(), Error> {
        if self.key.is_none() {
            return Ok(());
        }
        let (_, whole) = self
            .found_info()
            .await?
            .ok_or_else(|| self.no_repository())?;
        for path in [layout::info(&self.root), layout::info_copy(&self.root)] {
            let mut pauses = READ_AGAIN_AFTER.iter();
            loop {
                match self.info_at(&path).await {
                    Ok(Some(_)) => break,
                    Err(e) if e.kind == ErrorKind::InvalidAuthorization => break,
                    Err(e) if !is_damage(&e) => return Err(e),
                    Ok(None) | Err(_) => {}
                }
                // One bad answer proves nothing.
                match pauses.next().filter(|_| self.local.is_none()) {
                    Some(pause) => http::pause(*pause).await,
                    None => {
                        self.write_info(&path, whole.clone()).await?;
                        break;
                    }
                }
            }
        }
        Ok(())
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
        let body = match with_new.found_info().await {
            Ok(found) => found.ok_or_else(|| self.no_repository())?.1,
            Err(e) if e.kind == ErrorKind::InvalidAuthorization => {
                let found = self.found_info().await?;
                let (info, body) = found.ok_or_else(|| self.no_repository())?;
                let (Some(encryption), Some(old)) = (&info.encryption, &self.key) else {
                    return Err(Error::internal("a key is changed that there is not"));
                };
                let rewrapped = old.rewrapped(&info.id, encryption, new)?;
                // Everything else stays, what is not known here, too.
                let broken = |e: serde_json::Error| Error::internal(e.to_string());
                let mut stored: serde_json::Value =
                    serde_json::from_slice(&body).map_err(broken)?;
                stored["encryption"]["wrapped_key"] = rewrapped.wrapped_key.into();
                serde_json::to_vec(&stored).map_err(broken)?.into()
            }
            Err(e) => return Err(e),
        };
        // The copy first: as long as `__repo_info` is not written, the old key opens it.
        for path in [&layout::info_copy(&self.root), &path] {
            if self.info_bytes(path).await? != Some(body.clone()) {
                self.write_info(path, body.clone()).await?;
            }
        }
        // Another gateway may have changed it at the same time.
        let found = with_new.info_at(&path).await?;
        found.map(drop).ok_or_else(|| self.no_repository())
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
