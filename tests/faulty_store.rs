//! A store in memory whose answers somebody meddles with.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use starkeep::env::Env;

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
    /// A conflict is told (409), and nothing has happened.
    Conflict,
    /// It takes its time.
    Late,
    /// What was put in the last moments is not listed.
    Lagging,
}

/// How long a late answer takes.
const LATE: Duration = Duration::from_millis(3);
/// How far a listing may lag.
const LAG_MS: i64 = 5;

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

/// What a listing may meet.
const LISTING: &[Fault] = &[Fault::Before, Fault::Late, Fault::Lagging];

/// Whether a listing that lags has an object.
fn is_listed(found: &ObjectMeta) -> bool {
    let age = Env::system().now().0 - found.last_modified.timestamp_millis();
    age > LAG_MS
}

async fn late() {
    Env::system().clock.sleep(LATE).await;
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
        let kinds = [Fault::Before, Fault::After, Fault::Conflict, Fault::Late];
        let fault = (self.meddler)("put", path, &kinds);
        match fault {
            Fault::Before => return Err(unavailable()),
            Fault::Conflict => {
                return Err(object_store::Error::AlreadyExists {
                    path: path.to_string(),
                    source: "409".into(),
                });
            }
            Fault::Late => late().await,
            _ => {}
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
            (_, true) => &[Fault::Before, Fault::Late],
            (true, false) => &[Fault::Before, Fault::Missing, Fault::Late],
            (false, false) => &[Fault::Before, Fault::Truncated, Fault::Flipped, Fault::Late],
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
            Fault::Late => late().await,
            _ => {}
        }
        let found = self.kept.get_opts(path, options).await?;
        if !matches!(fault, Fault::Truncated | Fault::Flipped) {
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
                let kinds = [Fault::Before, Fault::After, Fault::Late];
                let fault = meddler("delete", &path, &kinds);
                match fault {
                    Fault::Before => return Err(unavailable()),
                    Fault::Late => late().await,
                    _ => {}
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
        let kept = self.kept.list(Some(&prefix));
        match (self.meddler)("list", &prefix, LISTING) {
            Fault::None => kept,
            Fault::Lagging => kept.try_filter(|found| ready(is_listed(found))).boxed(),
            Fault::Late => kept
                .then(|found| async {
                    late().await;
                    found
                })
                .boxed(),
            _ => futures::stream::iter([Err(unavailable())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let place = prefix.cloned().unwrap_or_default();
        let fault = (self.meddler)("list", &place, LISTING);
        if fault == Fault::Before {
            return Err(unavailable());
        }
        if fault == Fault::Late {
            late().await;
        }
        let mut found = self.kept.list_with_delimiter(prefix).await?;
        if fault == Fault::Lagging {
            found.objects.retain(is_listed);
        }
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.kept.copy_opts(from, to, options).await
    }
}
