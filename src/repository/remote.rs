//! Moving bytes to and from object stores: in parts and ranges, several at a time, hashed on the
//! way and within a budget of bytes in flight.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::multipart::PartId;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, PutMode, PutOptions, PutPayload};
use tokio::sync::OwnedSemaphorePermit;

use super::cipher::PlainDigest;
use super::transfer::{
    ByteBudget, COPY_BYTES, Coding, Over, PART_BYTES, Writing, blocking, corrupted, part_bytes,
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

/// A local file on its way into an object: read, hashed and sealed on threads that may block.
struct Reading {
    from: PathBuf,
    /// Once the first bytes were asked for.
    source: Option<File>,
    /// Until the file has come to its end.
    coding: Option<Coding>,
    digest: PlainDigest,
    /// What the object has next, beyond what was taken.
    ready: Vec<u8>,
}

impl Reading {
    fn of(from: &Path, coding: Coding) -> Self {
        Self {
            from: from.to_owned(),
            source: None,
            coding: Some(coding),
            digest: PlainDigest::default(),
            ready: Vec::new(),
        }
    }

    /// The next bytes of the object; fewer than were asked for are the last ones.
    async fn take(mut self, bytes: usize) -> Result<(Self, Vec<u8>), Error> {
        blocking(move || {
            self.make_ready(bytes)?;
            let rest = self.ready.split_off(self.ready.len().min(bytes));
            let taken = std::mem::replace(&mut self.ready, rest);
            Ok((self, taken))
        })
        .await
    }

    /// Beside what is ready no more than one piece is in memory.
    fn make_ready(&mut self, bytes: usize) -> Result<(), Error> {
        let from = &self.from;
        let mut source = match self.source.take() {
            Some(source) => source,
            None => File::open(from).map_err(|e| unreadable("open", from, e))?,
        };
        self.ready
            .reserve_exact(bytes.saturating_sub(self.ready.len()));
        let mut piece = Vec::new();
        while self.ready.len() < bytes
            && let Some(mut coding) = self.coding.take()
        {
            let wanted = (bytes - self.ready.len()).min(COPY_BYTES);
            piece.clear();
            piece.reserve_exact(wanted);
            Read::by_ref(&mut source)
                .take(wanted as u64)
                .read_to_end(&mut piece)
                .map_err(|e| unreadable("read", from, e))?;
            if piece.is_empty() {
                self.ready.extend(coding.finish(&mut self.digest)?);
                break;
            }
            self.ready
                .extend_from_slice(&coding.pass(&piece, &mut self.digest)?);
            self.coding = Some(coding);
        }
        self.source = Some(source);
        Ok(())
    }

    /// Whether what was read is the file that it should be.
    fn check(self, file: &DataFile) -> Result<(), Error> {
        let length = self.digest.length;
        let found = self.digest.finish();
        if file.sha256 == found {
            return Ok(());
        }
        let what = format_args!("\"{}\"", self.from.display());
        Err(corrupted(what, file, &found, length))
    }
}

/// What comes of some work, while the parts that are on their way go on.
async fn meanwhile<T, P>(
    work: impl Future<Output = Result<T, Error>>,
    parts: &mut FuturesUnordered<impl Future<Output = Result<P, Error>>>,
    sent: &mut Vec<P>,
) -> Result<T, Error> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(part) = parts.next() => sent.push(part?),
        }
    }
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
        let layout = self.layout().await?;
        let bytes = layout.stored_bytes(file) as usize;
        let _permit = budget.take(bytes).await;
        // One byte more than expected is enough to see that a file has grown.
        let reading = Reading::of(from, layout.sealing(path)?).take(bytes + 1);
        let (reading, body) = reading.await?;
        reading.check(file)?;
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
            Ok(put) => {
                self.moved.tell(file.bytes);
                Ok(Sent::New(put.e_tag))
            }
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
        let checked = sent.and_then(|(parts, reading)| reading.check(file).map(|()| parts));
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

    /// Sends a file; its parts, and what was read.
    async fn send_parts(
        &self,
        upload: &mut Upload,
        path: &ObjectPath,
        file: &DataFile,
        from: &Path,
        budget: &ByteBudget,
    ) -> Result<(Vec<(usize, PartId)>, Reading), Error> {
        let layout = self.layout().await?;
        let (total, mut taken) = (layout.stored_bytes(file), 0);
        let part_bytes = part_bytes(total);
        let mut reading = Reading::of(from, layout.sealing(path)?);
        let mut sent = Vec::new();
        let mut parts = FuturesUnordered::new();
        for number in 0.. {
            // Who waits for its turn holds nothing that others need, and does not starve the parts
            // that are on their way.
            let next = total.saturating_sub(taken).min(part_bytes as u64);
            taken += next;
            let read = async {
                self.pass(next).await?;
                // At the end one byte shows that the file has grown.
                let wanted = next.max(1) as usize;
                let permit = budget.take(wanted).await;
                let (reading, body) = reading.take(wanted).await?;
                Ok((reading, body, permit))
            };
            let (going_on, body, permit) = meanwhile(read, &mut parts, &mut sent).await?;
            reading = going_on;
            // A file that has grown is found out by what was read.
            if body.is_empty() || next == 0 {
                break;
            }
            let bytes = body.len() as u64;
            let part = upload.part(number, PutPayload::from(body));
            parts.push(async move {
                let _permit = permit;
                let part = part.await.map_err(|e| storage_error("write", path, e))?;
                self.moved.tell(bytes);
                Ok(part)
            });
        }
        while let Some(part) = parts.next().await {
            sent.push(part?);
        }
        Ok((sent, reading))
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
        let layout = self.layout().await?;
        let (coding, dirs) = (layout.opening(path), self.synced_dirs.clone());
        let begun = blocking(move || Writing::begin(targets, coding, &dirs));
        let mut pieces = pin!(self.pieces(path, layout.stored_bytes(file), budget));
        // Directories are made and synced while the first bytes come. Both are waited for: nothing
        // is made once this is over.
        let (begun, first) = tokio::join!(begun, pieces.try_next());
        let (mut writing, mut next) = (begun?, first?);
        while let Some((piece, permit)) = next {
            let bytes = piece.len() as u64;
            let writes = blocking(move || {
                writing.push(&piece)?;
                drop(permit);
                Ok(writing)
            });
            writing = writes.await?;
            self.moved.tell(bytes);
            next = pieces.try_next().await?;
        }
        let (file, path) = (file.clone(), path.clone());
        blocking(move || writing.finish(&file, format_args!("\"{path}\""), Over::Damaged)).await?;
        Ok(true)
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
