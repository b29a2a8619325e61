//! Moving bytes to and from object stores: in parts and ranges, several at a time, hashed on the
//! way and within a budget of bytes in flight.

use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::multipart::PartId;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, PutMode, PutOptions, PutPayload};
use ring::digest::SHA256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;

use super::cipher::PlainDigest;
use super::transfer::{
    ByteBudget, Over, PART_BYTES, blocking, corrupted, finish_over, part_bytes, partial_in,
    unreadable,
};
use super::uploads::Upload;
use super::{Repository, storage_error};
use crate::error::{Error, ErrorKind};
use crate::job::DataFile;

/// Ranges of one object that are asked for at a time.
const RANGES: usize = 4;

pub(super) enum Sent {
    /// The object is there, and has this tag.
    New(Option<String>),
    /// The store refused it: something stands there, or another put was under way.
    Occupied(Error),
}

/// Writes the same to each of some files.
async fn write_all(
    writers: &mut [tokio::fs::File],
    targets: &[PathBuf],
    bytes: &[u8],
) -> Result<(), Error> {
    for (writer, target) in writers.iter_mut().zip(targets) {
        let written = writer.write_all(bytes).await;
        written.map_err(|e| Error::io("write", target, e))?;
    }
    Ok(())
}

impl Repository {
    /// Puts a local file of one part into an object store; `is_new`: only if there is none.
    pub(super) async fn upload_file(
        &self,
        path: &ObjectPath,
        file: &DataFile,
        from: &Path,
        is_new: bool,
        budget: &ByteBudget,
    ) -> Result<Sent, Error> {
        let source = tokio::fs::File::open(from)
            .await
            .map_err(|e| unreadable("open", from, e))?;
        let _permit = budget.take(file.bytes as usize).await;
        let mut body = Vec::with_capacity(file.bytes as usize);
        // One byte more than expected is enough to see that a file has grown.
        source
            .take(file.bytes + 1)
            .read_to_end(&mut body)
            .await
            .map_err(|e| unreadable("read", from, e))?;
        let found = hex::encode(ring::digest::digest(&SHA256, &body));
        if file.sha256 != found {
            return Err(corrupted(
                format_args!("\"{}\"", from.display()),
                file,
                &found,
                body.len() as u64,
            ));
        }
        let layout = self.layout().await?;
        let body = layout.seal(path, body.into())?;
        let mode = if is_new {
            PutMode::Create
        } else {
            PutMode::Overwrite
        };
        match self
            .store
            .put_opts(path, PutPayload::from(body), PutOptions::from(mode))
            .await
        {
            Ok(put) => Ok(Sent::New(put.e_tag)),
            Err(e @ object_store::Error::AlreadyExists { .. }) => {
                Ok(Sent::Occupied(storage_error("write", path, e)))
            }
            Err(e) => Err(storage_error("write", path, e)),
        }
    }

    /// Puts a local file into an object store in parts, several at a time; the tag of the object.
    pub(super) async fn upload_in_parts(
        &self,
        mut upload: Upload,
        path: &ObjectPath,
        file: &DataFile,
        from: &Path,
        budget: &ByteBudget,
    ) -> Result<Option<String>, Error> {
        let sent = self.send_parts(&mut upload, path, file, from, budget).await;
        let checked = sent.and_then(|(parts, found, length)| {
            if file.sha256 == found {
                Ok(parts)
            } else {
                let what = format_args!("\"{}\"", from.display()).to_string();
                Err(corrupted(what, file, &found, length))
            }
        });
        let result = match checked {
            Ok(parts) => upload.complete(parts).await,
            Err(e) => Err(e),
        };
        if result.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%path, %error, "an upload could not be given up; that is tried again when the job has ended");
        }
        result
    }

    /// Sends a file; its parts, its SHA-256 and its length.
    async fn send_parts(
        &self,
        upload: &mut Upload,
        path: &ObjectPath,
        file: &DataFile,
        from: &Path,
        budget: &ByteBudget,
    ) -> Result<(Vec<(usize, PartId)>, String, u64), Error> {
        let mut source = tokio::fs::File::open(from)
            .await
            .map_err(|e| unreadable("open", from, e))?;
        let layout = self.layout().await?;
        let (total, mut taken) = (layout.stored_bytes(file), 0);
        let part_bytes = part_bytes(total);
        let mut coding = Some(layout.sealing(path)?);
        let mut digest = PlainDigest::default();
        // What is ready to be sent and is not a whole part yet.
        let mut ready = Vec::new();
        let mut sent = Vec::new();
        let mut parts = futures::stream::FuturesUnordered::new();
        for number in 0.. {
            // Who waits for its turn holds nothing that others need, and does not starve the parts
            // that are on their way.
            let next = total.saturating_sub(taken).min(part_bytes as u64);
            taken += next;
            let mut admitted = pin!(async {
                self.pass(next).await?;
                Ok::<_, Error>(budget.take(part_bytes).await)
            });
            let permit = loop {
                tokio::select! {
                    permit = &mut admitted => break permit?,
                    Some(part) = parts.next() => {
                        let part: Result<_, Error> = part;
                        sent.push(part?);
                    }
                }
            };
            while ready.len() < part_bytes
                && let Some(mut going_on) = coding.take()
            {
                // No more than fills the part: what is over is held beside it.
                let wanted = part_bytes - ready.len();
                let mut plain = Vec::with_capacity(wanted);
                (&mut source)
                    .take(wanted as u64)
                    .read_to_end(&mut plain)
                    .await
                    .map_err(|e| unreadable("read", from, e))?;
                if plain.is_empty() {
                    ready.extend(going_on.finish(&mut digest)?);
                } else {
                    ready.extend_from_slice(&going_on.pass(&plain, &mut digest)?);
                    coding = Some(going_on);
                }
            }
            if ready.is_empty() {
                break;
            }
            let rest = ready.split_off(ready.len().min(part_bytes));
            let body = std::mem::replace(&mut ready, rest);
            let part = upload.part(number, PutPayload::from(body));
            parts.push(async move {
                let _permit = permit;
                part.await.map_err(|e| storage_error("write", path, e))
            });
        }
        while let Some(part) = parts.next().await {
            sent.push(part?);
        }
        let length = digest.length;
        Ok((sent, digest.finish(), length))
    }

    /// Brings an object to each of the targets, hashing on the way; no target exists before the
    /// hash proved right.
    pub(super) async fn download_file(
        &self,
        path: &ObjectPath,
        file: &DataFile,
        targets: Vec<PathBuf>,
        budget: &ByteBudget,
    ) -> Result<bool, Error> {
        let dirs = targets.clone();
        let partials = blocking(move || {
            dirs.iter()
                .map(|t| partial_in(t.parent().expect("a file has a directory")))
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let mut writers = Vec::with_capacity(partials.len());
        for (partial, target) in partials.iter().zip(&targets) {
            let handle = partial
                .as_file()
                .try_clone()
                .map_err(|e| Error::io("open", target, e))?;
            writers.push(tokio::fs::File::from_std(handle));
        }
        let layout = self.layout().await?;
        let (mut coding, mut digest) = (layout.opening(path), PlainDigest::default());
        let mut pieces = pin!(self.pieces(path, layout.stored_bytes(file), budget));
        while let Some((piece, permit)) = pieces.try_next().await? {
            let plain = coding.pass(&piece, &mut digest)?;
            write_all(&mut writers, &targets, &plain).await?;
            drop(permit);
        }
        let last = coding.finish(&mut digest)?;
        write_all(&mut writers, &targets, &last).await?;
        for (mut writer, target) in writers.into_iter().zip(&targets) {
            writer
                .flush()
                .await
                .map_err(|e| Error::io("write", target, e))?;
        }
        let length = digest.length;
        let found = digest.finish();
        if file.sha256 != found || length != file.bytes {
            return Err(corrupted(format_args!("\"{path}\""), file, &found, length));
        }
        blocking(move || {
            for (partial, target) in partials.into_iter().zip(&targets) {
                finish_over(partial, target, Over::Damaged)?;
            }
            Ok(true)
        })
        .await
    }

    /// The bytes of an object that should be so long, in their order: of a large one several ranges
    /// are asked for at a time. Each piece comes with its share of the budget.
    fn pieces<'r>(
        &'r self,
        path: &'r ObjectPath,
        bytes: u64,
        budget: &'r ByteBudget,
    ) -> impl Stream<Item = Result<(Bytes, OwnedSemaphorePermit), Error>> + 'r {
        let failed = |e| storage_error("read", path, e);
        let ranges = (0..bytes.max(1)).step_by(PART_BYTES);
        // One after the other: who waits for its turn holds nothing that others need, and a piece
        // that comes first is admitted first.
        let admitted = futures::stream::iter(ranges).then(move |start| async move {
            let end = (start + PART_BYTES as u64).min(bytes);
            self.pass(end - start).await?;
            let permit = budget.take((end - start) as usize).await;
            Ok::<_, Error>((start..end, permit))
        });
        let reading = admitted.map_ok(move |(range, permit)| async move {
            // Of a small object all is asked for: whether it is longer than it should be shows.
            let options = GetOptions {
                range: (bytes > PART_BYTES as u64).then(|| range.into()),
                ..GetOptions::default()
            };
            let found = self.store.get_opts(path, options).await.map_err(failed)?;
            if found.meta.size != bytes {
                let message = format!("\"{path}\" is damaged");
                let detail = format!("{} bytes instead of {bytes}", found.meta.size);
                return Err(Error::new(ErrorKind::Corrupted, message).detail(detail));
            }
            Ok((found.bytes().await.map_err(failed)?, permit))
        });
        reading.try_buffered(RANGES)
    }
}
