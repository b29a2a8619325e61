//! Whether what stands at a location is the repository that is meant, and the key that opens it.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::cipher::{Encryption, UserKey};
use super::layout::{self, Layout};
use super::moving::READ_AGAIN_AFTER;
use super::{Repository, http, storage_error, transfer};
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
    pub created_at: Timestamp,
    /// How its objects are encrypted, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl RepositoryInfo {
    /// How often its key was changed.
    fn generation(&self) -> u64 {
        self.encryption.as_ref().map_or(0, |e| e.generation)
    }
}

/// An object that says what the repository is, as it stands.
enum Stated {
    Missing,
    /// It does not say what it should, whatever key there is.
    Damaged(Error),
    Whole(RepositoryInfo, Bytes),
}

impl Repository {
    async fn info_bytes(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        let failed = |e| storage_error("read", path, e);
        match self.store.get(path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    /// Reads one of the objects. 0A000 if a later version has written it.
    async fn stated(&self, path: &Path) -> Result<Stated, Error> {
        let Some(body) = self.info_bytes(path).await? else {
            return Ok(Stated::Missing);
        };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let foreign = |e: serde_json::Error| {
            let message =
                format!("failed to read repo info file: \"{path}\" is not Starkeep's: {e}");
            Stated::Damaged(Error::new(ErrorKind::Unsupported, message).hint(
                "A repository written by a StarRocks cluster is not read by the embedded cluster; choose another location or name.",
            ))
        };
        // What a newer version says besides is not to be understood.
        let format = match serde_json::from_slice(&body) {
            Ok(Format { format }) => format,
            Err(e) => return Ok(foreign(e)),
        };
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
        let info: RepositoryInfo = match serde_json::from_slice(&body) {
            Ok(info) => info,
            Err(e) => return Ok(foreign(e)),
        };
        let is_whole = match &info.encryption {
            None => format != layout::ENCRYPTED_FORMAT,
            Some(encryption) => {
                format == layout::ENCRYPTED_FORMAT && !encryption.is_damaged(&info.id)
            }
        };
        Ok(if is_whole {
            Stated::Whole(info, body)
        } else {
            let message = format!("\"{path}\" is damaged: it is not what was written");
            Stated::Damaged(Error::new(ErrorKind::Corrupted, message))
        })
    }

    /// Checks that a repository is opened by the key that there is, or has none.
    fn check_key(&self, info: &RepositoryInfo) -> Result<(), Error> {
        match (&info.encryption, &self.key) {
            (None, None) => Ok(()),
            // Whether it is the right key shows here, too.
            (Some(encryption), Some(key)) => key.open(&info.id, encryption).map(drop),
            (Some(_), None) => {
                let message = format!("repository {} is encrypted, and no key is given", self.name);
                Err(Error::new(ErrorKind::InvalidAuthorization, message)
                    .hint("\"encryption.key\" is its key."))
            }
            (None, Some(_)) => {
                let message = format!("repository {} is there, and is not encrypted", self.name);
                Err(Error::new(ErrorKind::InvalidParameter, message)
                    .hint("Leave \"encryption\" out, or choose another location or name."))
            }
        }
    }

    pub(super) async fn info(&self) -> Result<Option<RepositoryInfo>, Error> {
        match self.found_info().await {
            Err(e) if e.kind == ErrorKind::InvalidAuthorization && self.key.is_some() => {
                self.opened_copy().await?.map(Some).ok_or(e)
            }
            found => Ok(found?.map(|(info, _)| info)),
        }
    }

    /// The copy, where the key opens it and not `__repo_info`: that was put back from before a change
    /// of the key, or is damaged in a way that an early version's does not tell.
    async fn opened_copy(&self) -> Result<Option<RepositoryInfo>, Error> {
        let first = self.stated(&layout::info(&self.root)).await?;
        let copy = self.stated(&layout::info_copy(&self.root)).await?;
        let (Stated::Whole(first, _), Stated::Whole(copy, _)) = (first, copy) else {
            return Ok(None);
        };
        let is_untold = first.encryption.as_ref().is_some_and(|e| e.check.is_none());
        let is_later = copy.generation() > first.generation();
        let opens = first.id == copy.id && (is_later || is_untold) && self.check_key(&copy).is_ok();
        if opens {
            tracing::warn!(repository = %self.name, "the key opens the copy of __repo_info alone");
        }
        Ok(opens.then_some(copy))
    }

    /// What the repository is, and the object that says so. Of an encrypted one there is a copy,
    /// which stands for `__repo_info` where that is lost or damaged: its key is nowhere else.
    async fn found_info(&self) -> Result<Option<(RepositoryInfo, Bytes)>, Error> {
        let lost = match self.stated(&layout::info(&self.root)).await? {
            Stated::Whole(info, body) => {
                self.check_key(&info)?;
                return Ok(Some((info, body)));
            }
            lost => lost,
        };
        if self.key.is_some()
            && let Stated::Whole(info, body) = self.stated(&layout::info_copy(&self.root)).await?
        {
            self.check_key(&info)?;
            tracing::warn!(repository = %self.name, "__repo_info is lost or damaged; its copy stands for it");
            return Ok(Some((info, body)));
        }
        match lost {
            Stated::Damaged(error) => Err(error),
            Stated::Missing | Stated::Whole(..) => Ok(None),
        }
    }

    /// Writes an object that says what the repository is, whatever stands there.
    async fn write_info(&self, path: &Path, body: Bytes) -> Result<(), Error> {
        if let Some(target) = self.local_path(path) {
            return transfer::write_over_file(target, body).await;
        }
        let put = self.store.put(path, PutPayload::from(body)).await;
        put.map(drop).map_err(|e| storage_error("write", path, e))
    }

    /// What is wrong with `__repo_info` of an encrypted repository or its copy, by the object's
    /// path: nothing else has its key. One bad answer proves nothing, nor does a key that is being
    /// changed.
    pub(super) async fn info_findings(&self) -> Result<Vec<(Path, FindingKind, String)>, Error> {
        if self.key.is_none() {
            return Ok(Vec::new());
        }
        let mut pauses = READ_AGAIN_AFTER.iter();
        loop {
            let findings = self.look_at_info().await?;
            match pauses.next().filter(|_| self.local.is_none()) {
                Some(pause) if !findings.is_empty() => http::pause(*pause).await,
                _ => return Ok(findings),
            }
        }
    }

    async fn look_at_info(&self) -> Result<Vec<(Path, FindingKind, String)>, Error> {
        let (info, copy) = (layout::info(&self.root), layout::info_copy(&self.root));
        let (first, second) = (self.stated(&info).await?, self.stated(&copy).await?);
        let mut findings = Vec::new();
        if let (Stated::Whole(_, first), Stated::Whole(_, second)) = (&first, &second)
            && first != second
        {
            for path in [&info, &copy] {
                let detail = "__repo_info and its copy differ: one is of another key or repository";
                findings.push((path.clone(), FindingKind::Damaged, detail.to_owned()));
            }
        }
        for (path, stated) in [(info, first), (copy, second)] {
            match stated {
                Stated::Whole(..) => {}
                Stated::Missing => {
                    let detail = "one of two objects that have the repository's key".to_owned();
                    findings.push((path, FindingKind::Missing, detail));
                }
                Stated::Damaged(error) => {
                    findings.push((path, FindingKind::Damaged, error.message));
                }
            }
        }
        Ok(findings)
    }

    /// Brings `__repo_info` of an encrypted repository and its copy to say the same: what is lost
    /// or damaged is written anew from the other, and a copy of an earlier key from `__repo_info`.
    /// 55000 if they are of two repositories: which of the keys is needed cannot be told.
    pub async fn mend_info(&self) -> Result<(), Error> {
        if self.key.is_none() {
            return Ok(());
        }
        let (info, copy) = (layout::info(&self.root), layout::info_copy(&self.root));
        let mut pauses = READ_AGAIN_AFTER.iter();
        loop {
            let found = self.found_info().await?;
            let (said, whole) = found.ok_or_else(|| self.no_repository())?;
            let (first, second) = (self.stated(&info).await?, self.stated(&copy).await?);
            let (path, stands) = match (first, second) {
                // Either was changed at this moment.
                (Stated::Whole(_, body), _) if body != whole => match pauses.next() {
                    Some(pause) => {
                        http::pause(*pause).await;
                        continue;
                    }
                    None => return Ok(()),
                },
                (Stated::Whole(..), Stated::Whole(_, body)) if body == whole => return Ok(()),
                (Stated::Whole(..), Stated::Whole(other, _)) if other.id != said.id => {
                    let message = format!(
                        "\"{info}\" and \"{copy}\" are of two repositories of the name {}",
                        self.name
                    );
                    return Err(Error::new(ErrorKind::WrongState, message)
                        .hint("Put that of this repository in the place of the other: what is stored here needs its key."));
                }
                // What follows is another gateway's.
                (Stated::Whole(..), Stated::Whole(later, _))
                    if later.generation() > said.generation() =>
                {
                    return Ok(());
                }
                (Stated::Whole(..), stands) => (&copy, stands),
                (stands, _) => (&info, stands),
            };
            // One bad answer proves nothing.
            if let Some(pause) = pauses.next().filter(|_| self.local.is_none()) {
                http::pause(*pause).await;
                continue;
            }
            return match stands {
                // Nobody's is written over.
                Stated::Missing => self.put_once(path, whole).await.map(drop),
                Stated::Damaged(_) | Stated::Whole(..) => self.write_info(path, whole).await,
            };
        }
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

    /// Has the repository opened by another key from now on; one that opens it already is fine. What
    /// kept the copy from following is told beside: until it does, the key before is still needed.
    pub async fn change_key(&self, new: &UserKey) -> Result<Option<Error>, Error> {
        let path = layout::info(&self.root);
        let with_new = Self {
            key: Some(new.clone()),
            layout: Arc::default(),
            ..self.clone()
        };
        match with_new.found_info().await {
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
                let rewrapped = serde_json::to_value(rewrapped).map_err(broken)?;
                for (key, value) in rewrapped.as_object().into_iter().flatten() {
                    stored["encryption"][key] = value.clone();
                }
                let body = serde_json::to_vec(&stored).map_err(broken)?;
                self.write_info(&path, body.into()).await?;
            }
            other => drop(other?.ok_or_else(|| self.no_repository())?),
        }
        // Another gateway may have changed it at the same time.
        let found = with_new.found_info().await?;
        found.map(drop).ok_or_else(|| self.no_repository())?;
        // The key is changed; its copy follows, now or with the next backup.
        Ok(with_new.mend_info().await.err())
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

    /// Checks that the directory of a repository is still there, without reading what it says of
    /// itself. 58P01 if not.
    pub async fn is_mounted(&self) -> Result<(), Error> {
        let path = layout::info(&self.root);
        let Some(target) = self.local_path(&path) else {
            return Ok(());
        };
        // Whoever gives up waiting leaves it behind, and its place taken.
        let permit = match &self.index {
            Some((location, index)) => Some(index.may_look(location).await),
            None => None,
        };
        let look = transfer::blocking(move || {
            let _permit = permit;
            match std::fs::metadata(&target) {
                Ok(_) => Ok(true),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(Error::io("look at", &target, e).of_kind(ErrorKind::Storage)),
            }
        });
        match look.await? {
            true => Ok(()),
            // Of an encrypted one the copy may stand for it.
            false => self.ping().await,
        }
    }

    pub(super) fn no_repository(&self) -> Error {
        Error::new(
            ErrorKind::MissingFile,
            format!("\"{}\" does not exist", layout::info(&self.root)),
        )
    }
}
