//! A store in memory whose answers somebody meddles with.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It fails, and nothing has happened.
    Before,
    /// It has happened, and fails.
    After,
    /// The answer is cut short.
    Truncated,
    /// A bit of the answer is another.
    Flipped,
    /// It is said to be not there.
    Missing,
}

/// Says what a request meets: its kind, its object, and the faults that make sense for it.
pub type Meddler = Arc<dyn Fn(&'static str, &Path, &[Fault]) -> Fault + Send + Sync>;

pub struct FaultyStore {
    pub kept: Arc<InMemory>,
    pub meddler: Meddler,
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

fn unavailable() -> object_store::Error {
    object_store::Error::Generic {
        store: "FaultyStore",
        source: "503 Slow Down".into(),
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        path: &Path,
        body: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fault = (self.meddler)("put", path, &[Fault::Before, Fault::After]);
        if fault == Fault::Before {
            return Err(unavailable());
        }
        let done = self.kept.put_opts(path, body, options).await?;
        if fault == Fault::After {
            return Err(unavailable());
        }
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.kept.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let what = if options.head { "head" } else { "get" };
        // The repository's own mark is not lost: a mount that is gone is tried elsewhere.
        let is_info = path.as_ref().ends_with("__repo_info");
        let kinds: &[Fault] = match (options.head, is_info) {
            (_, true) => &[Fault::Before],
            (true, false) => &[Fault::Before, Fault::Missing],
            (false, false) => &[Fault::Before, Fault::Truncated, Fault::Flipped],
        };
        let fault = (self.meddler)(what, path, kinds);
        match fault {
            Fault::Before | Fault::After => return Err(unavailable()),
            Fault::Missing => {
                return Err(object_store::Error::NotFound {
                    path: path.to_string(),
                    source: "404".into(),
                });
            }
            Fault::None | Fault::Truncated | Fault::Flipped => {}
        }
        let found = self.kept.get_opts(path, options).await?;
        if fault == Fault::None {
            return Ok(found);
        }
        let (meta, range, attributes) = (
            found.meta.clone(),
            found.range.clone(),
            found.attributes.clone(),
        );
        let mut bytes = found.bytes().await?.to_vec();
        if fault == Fault::Truncated {
            bytes.truncate(bytes.len() / 2);
        } else if let Some(byte) = bytes.first_mut() {
            *byte ^= 1;
        }
        let body = futures::stream::iter([Ok(bytes.into())]).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes,
        })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (kept, meddler) = (self.kept.clone(), self.meddler.clone());
        let each = paths.then(move |path| {
            let (kept, meddler) = (kept.clone(), meddler.clone());
            async move {
                let path = path?;
                let fault = meddler("delete", &path, &[Fault::Before, Fault::After]);
                if fault == Fault::Before {
                    return Err(unavailable());
                }
                kept.delete(&path).await?;
                if fault == Fault::After {
                    return Err(unavailable());
                }
                Ok(path)
            }
        });
        each.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        match (self.meddler)("list", &prefix, &[Fault::Before]) {
            Fault::None => self.kept.list(Some(&prefix)),
            _ => futures::stream::iter([Err(unavailable())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let place = prefix.cloned().unwrap_or_default();
        match (self.meddler)("list", &place, &[Fault::Before]) {
            Fault::None => self.kept.list_with_delimiter(prefix).await,
            _ => Err(unavailable()),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.kept.copy_opts(from, to, options).await
    }
}
