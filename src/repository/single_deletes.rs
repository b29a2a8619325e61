//! S3 as some spell it: without deletions in bulk, which is all that object_store asks for.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use reqwest::{Method, StatusCode};

use super::http;

/// How long the signature of a deletion holds.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// How long to wait before a deletion that failed is tried again.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1600),
];
/// Deletions side by side.
const DELETIONS: usize = 8;
/// What is told of the answer to a deletion that failed, bytes.
const ANSWER_BYTES: usize = 500;

/// A bucket whose objects are deleted one by one as soon as it has said that it knows no other way.
#[derive(Clone, Debug)]
pub(super) struct SingleDeletes {
    store: Arc<AmazonS3>,
    client: HttpClient,
    one_by_one: Arc<AtomicBool>,
}

/// Whether a store does not do what it was asked for, and never will.
fn is_not_done(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            true
        }
        // The status stands in the text alone.
        other => {
            let text = other.to_string();
            [
                "501 Not Implemented",
                "405 Method Not Allowed",
                "NotImplemented",
            ]
            .iter()
            .any(|told| text.contains(told))
        }
    }
}

fn failed(
    path: &Path,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> object_store::Error {
    let why = why.into();
    object_store::Error::Generic {
        store: "S3",
        source: format!("Error performing DELETE of {path}: {why}").into(),
    }
}

impl SingleDeletes {
    pub fn new(store: AmazonS3, client: HttpClient) -> Self {
        Self {
            store: Arc::new(store),
            client,
            one_by_one: Arc::default(),
        }
    }

    async fn delete_one(&self, path: &Path) -> Result<()> {
        if !self.one_by_one.load(Ordering::Relaxed) {
            match self.store.delete(path).await {
                Err(e) if is_not_done(&e) => {
                    tracing::info!(error = %e, "the store has no deletions in bulk: objects are deleted one by one");
                    self.one_by_one.store(true, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        let mut pauses = PAUSES.iter();
        loop {
            let error = match self.delete_signed(path).await {
                Ok(()) => return Ok(()),
                Err((error, true)) => error,
                Err((error, false)) => return Err(error),
            };
            match pauses.next() {
                Some(pause) => http::pause(*pause).await,
                None => return Err(error),
            }
        }
    }

    /// One try; its error, and whether another one may go better. Twice is the same as once.
    async fn delete_signed(&self, path: &Path) -> Result<(), (object_store::Error, bool)> {
        let url = self
            .store
            .signed_url(Method::DELETE, path, SIGNED_FOR)
            .await
            .map_err(|e| (e, false))?;
        let request = ::http::Request::delete(url.as_str())
            .body(HttpRequestBody::empty())
            .map_err(|e| (failed(path, e), false))?;
        let answer = self
            .client
            .execute(request)
            .await
            .map_err(|e| (failed(path, e), true))?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        let body = answer.into_body().bytes().await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body[..body.len().min(ANSWER_BYTES)]).into_owned();
        let is_passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Err((failed(path, format!("{status}: {body}")), is_passing))
    }
}

impl std::fmt::Display for SingleDeletes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for SingleDeletes {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |path: Result<Path>| {
            let this = this.clone();
            async move {
                let path = path?;
                this.delete_one(&path).await?;
                Ok(path)
            }
        };
        paths.map(delete).buffered(DELETIONS).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for SingleDeletes {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.store.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        part: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        self.store.put_part(path, id, part, data).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.store.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.store.abort_multipart(path, id).await
    }
}
