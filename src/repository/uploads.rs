//! Uploads in parts: each is noted before its first part and crossed out at its end, so that what a
//! kill or an outage leaves in the store can be given up later. Nothing else ever lists it there,
//! and its parts are paid for.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use super::{Repository, storage_error};
use crate::error::Error;

/// An object store, and its uploads in parts by their ids where it has such.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    parts: Option<Arc<dyn MultipartStore>>,
}

impl Store {
    /// A store whose uploads have ids.
    pub fn in_parts<S: ObjectStore + MultipartStore>(store: S) -> Self {
        let store = Arc::new(store);
        Self {
            objects: store.clone(),
            parts: Some(store),
        }
    }

    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        self.objects.clone()
    }
}

impl Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.objects.fmt(f)
    }
}

impl Deref for Store {
    type Target = dyn ObjectStore;

    fn deref(&self) -> &Self::Target {
        &*self.objects
    }
}

impl<S: ObjectStore> From<Arc<S>> for Store {
    fn from(objects: Arc<S>) -> Self {
        Self {
            objects,
            parts: None,
        }
    }
}

impl From<Arc<dyn ObjectStore>> for Store {
    fn from(objects: Arc<dyn ObjectStore>) -> Self {
        Self {
            objects,
            parts: None,
        }
    }
}

/// Where uploads are noted.
#[async_trait]
pub trait UploadLog: Debug + Send + Sync {
    async fn begun(&self, path: &str, upload_id: &str) -> Result<(), Error>;
    async fn ended(&self, path: &str, upload_id: &str) -> Result<(), Error>;
}

/// An upload under way.
pub(super) enum Upload {
    Noted {
        store: Arc<dyn MultipartStore>,
        path: Path,
        id: String,
        log: Option<Arc<dyn UploadLog>>,
    },
    /// Of a store that does not tell its uploads' ids.
    Plain {
        upload: Box<dyn MultipartUpload>,
        path: Path,
    },
}

pub(super) async fn begin(
    store: &Store,
    path: &Path,
    log: Option<Arc<dyn UploadLog>>,
) -> Result<Upload, Error> {
    let failed = |e| storage_error("begin to write", path, e);
    let Some(parts) = &store.parts else {
        let upload = store.put_multipart(path).await.map_err(failed)?;
        return Ok(Upload::Plain {
            upload,
            path: path.clone(),
        });
    };
    let id = parts.create_multipart(path).await.map_err(failed)?;
    let upload = Upload::Noted {
        store: parts.clone(),
        path: path.clone(),
        id,
        log,
    };
    if let Upload::Noted {
        id, log: Some(log), ..
    } = &upload
        && let Err(error) = log.begun(path.as_ref(), id).await
    {
        let _ = upload.abort().await;
        return Err(error);
    }
    Ok(upload)
}

impl Upload {
    /// Sends the next part, the first one being number 0.
    pub fn part(
        &mut self,
        number: usize,
        body: PutPayload,
    ) -> BoxFuture<'static, Result<(usize, PartId), object_store::Error>> {
        match self {
            Self::Noted {
                store, path, id, ..
            } => {
                let (store, path, id) = (store.clone(), path.clone(), id.clone());
                async move { Ok((number, store.put_part(&path, &id, number, body).await?)) }.boxed()
            }
            Self::Plain { upload, .. } => {
                let sent = upload.put_part(body);
                let nameless = PartId {
                    content_id: String::new(),
                };
                async move { sent.await.map(|()| (number, nameless)) }.boxed()
            }
        }
    }

    /// The tag of the object.
    pub async fn complete(
        &mut self,
        mut parts: Vec<(usize, PartId)>,
    ) -> Result<Option<String>, Error> {
        parts.sort_by_key(|(number, _)| *number);
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        let (done, path) = match self {
            Self::Noted {
                store, path, id, ..
            } => (store.complete_multipart(path, id, parts).await, path),
            Self::Plain { upload, path } => (upload.complete().await, path),
        };
        let put = done.map_err(|e| storage_error("finish writing", path, e))?;
        self.crossed_out().await?;
        Ok(put.e_tag)
    }

    /// Gives it up; the store forgets its parts.
    pub async fn abort(mut self) -> Result<(), Error> {
        let (done, path) = match &mut self {
            Self::Noted {
                store, path, id, ..
            } => (store.abort_multipart(path, id).await, path),
            Self::Plain { upload, path } => (upload.abort().await, path),
        };
        given_up(done, path)?;
        self.crossed_out().await
    }

    async fn crossed_out(&mut self) -> Result<(), Error> {
        match self {
            Self::Noted {
                path,
                id,
                log: Some(log),
                ..
            } => log.ended(path.as_ref(), id).await,
            Self::Noted { log: None, .. } | Self::Plain { .. } => Ok(()),
        }
    }
}

/// What the store does not know any more is given up.
fn given_up(done: Result<(), object_store::Error>, path: &Path) -> Result<(), Error> {
    match done {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(storage_error("give up writing", path, e)),
    }
}

impl Repository {
    /// Gives up an upload that somebody else has begun.
    pub async fn abort_upload(&self, path: &str, upload_id: &str) -> Result<(), Error> {
        let Some(parts) = &self.store.parts else {
            return Ok(());
        };
        // As it was noted, its parts encoded already.
        let path = Path::parse(path)
            .map_err(|e| Error::internal(format!("an upload was noted at no path: {e}")))?;
        let aborted = parts.abort_multipart(&path, &upload_id.to_owned()).await;
        given_up(aborted, &path)
    }
}
