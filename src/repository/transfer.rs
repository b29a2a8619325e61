//! Moving bytes between local files: hashed on the way, synced before they are believed, within a
//! budget of bytes in flight.
//!
//! Between two local paths the work is a plain copy loop on a blocking thread: object_store's local
//! streams are small-chunked and never synced.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::NamedTempFile;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use super::cipher::Coding;
use super::cipher::PlainDigest;
use super::{Repository, layout};
use crate::error::{Error, ErrorKind};
use crate::job::DataFile;

/// One part of a multipart upload.
pub(super) const PART_BYTES: usize = 8 << 20;
/// An upload has no more parts than this: S3's limit.
const PARTS_MAX: u64 = 10_000;

/// The bytes of each part of an upload but the last.
pub(super) fn part_bytes(total: u64) -> usize {
    let least = total.div_ceil(PARTS_MAX).next_multiple_of(1 << 20);
    usize::try_from(least).unwrap_or(usize::MAX).max(PART_BYTES)
}

/// Longer files go in parts: of two parts the upload's beginning and end cost as many requests.
pub(super) const PARTS_AFTER_BYTES: u64 = 2 * PART_BYTES as u64;
/// One step of a local copy.
pub(super) const COPY_BYTES: usize = 1 << 20;
/// The prefix of files that are not finished; start-up deletes those it finds.
pub(crate) const PARTIAL_PREFIX: &str = ".partial-";

/// What a file is written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Nothing should be there; what is there by now is as good.
    Nothing,
    /// What is there has proved wrong.
    Damaged,
}

/// What stands in the place of a file that was to be copied.
pub(super) enum Copied {
    /// The file.
    New(fs::Metadata),
    /// What stood there before.
    Occupied,
    /// The directory has lost its mark: something else may be mounted there.
    Unmounted,
}

/// Directories whose names are known to be on disk: a file that goes into one of them needs no sync
/// of what names it.
#[derive(Debug, Default)]
pub(crate) struct SyncedDirs(Mutex<HashMap<PathBuf, DirStamp>>);

/// What tells a directory from another one of its name: device, inode, and time of creation where
/// the file system keeps it.
type DirStamp = (u64, u64, Option<SystemTime>);

impl SyncedDirs {
    fn make(&self, dir: &Path) -> Result<(), Error> {
        let stamp = || {
            let found = fs::metadata(dir).ok()?;
            Some((found.dev(), found.ino(), found.created().ok()))
        };
        if stamp().is_some_and(|stamp| self.0.lock().get(dir) == Some(&stamp)) {
            return Ok(());
        }
        make_dir(dir)?;
        if let Some(stamp) = stamp() {
            self.0.lock().insert(dir.to_owned(), stamp);
        }
        Ok(())
    }
}

/// Who is told of the bytes of a file that have been moved, as they go.
#[derive(Clone, Default)]
pub struct Moved(Option<Arc<dyn Fn(u64) + Send + Sync>>);

impl Moved {
    pub fn to(listener: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn tell(&self, bytes: u64) {
        if let Some(listener) = &self.0 {
            listener(bytes);
        }
    }
}

impl std::fmt::Debug for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Moved")
    }
}

/// How many bytes of data may be in memory at once, over all transfers.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    kib: Arc<Semaphore>,
    total_kib: u32,
}

impl ByteBudget {
    /// A budget of this many bytes; at least one part.
    pub fn new(bytes: u64) -> Self {
        let total_kib = u32::try_from(bytes / 1024)
            .unwrap_or(u32::MAX >> 4)
            .clamp(PART_BYTES as u32 / 1024, u32::MAX >> 4);
        Self {
            kib: Arc::new(Semaphore::new(total_kib as usize)),
            total_kib,
        }
    }

    /// Whether so many bytes may ever be held at once.
    pub(super) fn holds(&self, bytes: u64) -> bool {
        bytes.div_ceil(1024) <= u64::from(self.total_kib)
    }

    /// Waits until this many bytes may be held; they are given back when the permit is dropped.
    pub(super) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let kib = u32::try_from(bytes.div_ceil(1024))
            .unwrap_or(u32::MAX)
            .min(self.total_kib);
        self.kib
            .clone()
            .acquire_many_owned(kib)
            .await
            .expect("the semaphore is never closed")
    }
}

pub(super) fn corrupted(
    what: impl std::fmt::Display,
    file: &DataFile,
    found: &str,
    length: u64,
) -> Error {
    Error::new(ErrorKind::Corrupted, format!("{what} is damaged")).detail(format!(
        "expected {} bytes with SHA-256 {}, found {length} bytes with {found}",
        file.bytes, file.sha256
    ))
}

/// Checks that a source is there before a store is asked anything about it.
pub(crate) async fn find_source(from: &Path) -> Result<(), Error> {
    let path = from.to_owned();
    blocking(move || match fs::metadata(&path) {
        Ok(_) => Ok(()),
        Err(e) => Err(unreadable("look at", &path, e)),
    })
    .await
}

/// A source that cannot be read is as good as missing: another replica may have the bytes.
pub(super) fn unreadable(what: &str, path: &Path, error: std::io::Error) -> Error {
    let error = Error::io(what, path, error);
    // Too many open files say nothing about this one.
    if error.kind == ErrorKind::OutOfFiles {
        error
    } else {
        error.of_kind(ErrorKind::MissingFile)
    }
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| Error::io("sync", dir, e))
}

/// Makes a directory and its parents, and syncs what names them.
pub(crate) fn make_dir(dir: &Path) -> Result<(), Error> {
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
    if dir.is_dir() {
        // Whoever has made it may not have come to this yet. One level is enough: the levels above
        // were synced before it was made.
        return parent.map_or(Ok(()), sync_dir);
    }
    if let Some(parent) = parent {
        make_dir(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => {}
        // Another thread has made it, and has perhaps not synced yet what names it.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(Error::io("create directory", dir, e)),
    }
    parent.map_or(Ok(()), sync_dir)
}

pub(crate) fn partial_in(dir: &Path) -> Result<NamedTempFile, Error> {
    make_dir(dir)?;
    partial_within(dir)
}

/// The same in a directory that is there.
fn partial_within(dir: &Path) -> Result<NamedTempFile, Error> {
    tempfile::Builder::new()
        .prefix(PARTIAL_PREFIX)
        .tempfile_in(dir)
        .map_err(|e| gone_meanwhile(Error::io("create a file in", dir, e)))
}

/// A directory that was there a moment ago is taken away by whoever deletes its last file, and is
/// made again at the next attempt; no source is missing.
fn gone_meanwhile(error: Error) -> Error {
    if error.kind == ErrorKind::MissingFile {
        error.of_kind(ErrorKind::Storage)
    } else {
        error
    }
}

/// Gives a complete file its name: synced first, then linked, then the directory synced. `false`:
/// the name was taken.
pub(crate) fn finish(partial: NamedTempFile, target: &Path) -> Result<bool, Error> {
    finish_over(partial, target, Over::Nothing)
}

/// The same, perhaps in the place of a damaged file.
pub(super) fn finish_over(
    partial: NamedTempFile,
    target: &Path,
    over: Over,
) -> Result<bool, Error> {
    partial
        .as_file()
        .sync_all()
        .map_err(|e| Error::io("sync", target, e))?;
    let named = match over {
        Over::Nothing => partial.persist_noclobber(target),
        Over::Damaged => partial.persist(target),
    };
    let created = match named {
        Ok(_) => true,
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(gone_meanwhile(Error::io("create", target, e.error))),
    };
    sync_dir(target.parent().expect("a file has a directory"))?;
    Ok(created)
}

/// Lets go of what the system keeps in memory of a file, so that the next reading sees the disk.
pub(super) fn forget_cached(path: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(file) = File::open(path) {
        // What cannot be let go of is read from memory: no worse than without.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
}

/// Deletes a file, and its directory if that is empty now, and syncs what named them; what is gone
/// already is fine.
pub(crate) async fn remove_file_and_empty_dir(target: PathBuf) -> Result<(), Error> {
    blocking(move || {
        match fs::remove_file(&target) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("delete", &target, e)),
        }
        let dir = target.parent().expect("a file has a directory");
        sync_dir(dir)?;
        match (fs::remove_dir(dir), dir.parent()) {
            (Ok(()), Some(parent)) => sync_dir(parent),
            // Not empty, most likely; an empty directory does no harm either.
            _ => Ok(()),
        }
    })
    .await
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::internal(format!("a file operation died: {e}"))),
    }
}

/// Writes a small file that must not exist yet; `false` if it does.
pub(super) async fn write_new_file(target: PathBuf, body: Bytes) -> Result<bool, Error> {
    blocking(move || {
        let mut partial = partial_in(target.parent().expect("a file has a directory"))?;
        partial
            .write_all(&body)
            .map_err(|e| Error::io("write", &target, e))?;
        finish(partial, &target)
    })
    .await
}

/// Puts a small file in the place of another.
pub(super) async fn write_over_file(target: PathBuf, body: Bytes) -> Result<(), Error> {
    blocking(move || {
        let mut partial = partial_in(target.parent().expect("a file has a directory"))?;
        partial
            .write_all(&body)
            .map_err(|e| Error::io("write", &target, e))?;
        finish_over(partial, &target, Over::Damaged).map(drop)
    })
    .await
}

/// The SHA-256 of a file, lower-case hex, and its length.
pub fn hash_file(path: &Path) -> Result<(String, u64), Error> {
    digest_file(path, Coding::Plain, |_| Ok(()))
}

/// The same of the plain bytes of a file.
/// `pass` is asked before bytes are read.
pub(super) fn digest_file(
    path: &Path,
    mut coding: Coding,
    pass: impl Fn(u64) -> Result<(), Error>,
) -> Result<(String, u64), Error> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let length = file.metadata().map(|m| m.len()).unwrap_or_default();
    let (mut digest, mut read) = (PlainDigest::default(), 0);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        pass(length.saturating_sub(read).min(COPY_BYTES as u64))?;
        let n = file
            .read(&mut buffer)
            .map_err(|e| Error::io("read", path, e))?;
        if n == 0 {
            coding.finish(&mut digest)?;
            let length = digest.length;
            return Ok((digest.finish(), length));
        }
        read += n as u64;
        coding.pass(&buffer[..n], &mut digest)?;
    }
}

/// A file that is being written to each of its targets, hashed on the way; no target exists before
/// the hash proved right.
pub(super) struct Writing {
    targets: Vec<PathBuf>,
    partials: Vec<NamedTempFile>,
    coding: Coding,
    digest: PlainDigest,
}

impl Writing {
    /// Opens a file beside each target. Whoever waits before the first bytes come keeps what is
    /// mounted there from being unmounted.
    pub fn begin(targets: Vec<PathBuf>, coding: Coding, dirs: &SyncedDirs) -> Result<Self, Error> {
        let partials = targets.iter().map(|target| {
            let dir = target.parent().expect("a file has a directory");
            dirs.make(dir)?;
            partial_within(dir)
        });
        Ok(Self {
            partials: partials.collect::<Result<_, Error>>()?,
            targets,
            coding,
            digest: PlainDigest::default(),
        })
    }

    /// Takes the next bytes, as they are stored.
    pub fn push(&mut self, stored: &[u8]) -> Result<(), Error> {
        let bytes = self.coding.pass(stored, &mut self.digest)?;
        write_all(&mut self.partials, &self.targets, &bytes)
    }

    /// Gives the targets their names; `true` if it made the last of them. `what` was read, and is
    /// XX001 if it is not the file.
    pub fn finish(
        mut self,
        file: &DataFile,
        what: impl std::fmt::Display,
        over: Over,
    ) -> Result<bool, Error> {
        let last = self.coding.finish(&mut self.digest)?;
        write_all(&mut self.partials, &self.targets, &last)?;
        let length = self.digest.length;
        let found = self.digest.finish();
        if file.sha256 != found || length != file.bytes {
            return Err(corrupted(what, file, &found, length));
        }
        let mut created = false;
        for (partial, target) in self.partials.into_iter().zip(&self.targets) {
            created = finish_over(partial, target, over)?;
        }
        Ok(created)
    }
}

/// Writes the same to each of some files.
fn write_all(
    partials: &mut [NamedTempFile],
    targets: &[PathBuf],
    bytes: &[u8],
) -> Result<(), Error> {
    for (partial, target) in partials.iter_mut().zip(targets) {
        let written = partial.write_all(bytes);
        written.map_err(|e| Error::io("write", target, e))?;
    }
    Ok(())
}

/// The blocking part of a local copy; `true` if it made the last of the targets.
/// `pass` is asked before bytes are read.
pub(crate) fn copy_hashed(
    file: &DataFile,
    from: &Path,
    targets: Vec<PathBuf>,
    over: Over,
    coding: Coding,
    dirs: &SyncedDirs,
    mut pass: impl FnMut(u64) -> Result<(), Error>,
) -> Result<bool, Error> {
    let mut source = File::open(from).map_err(|e| unreadable("open", from, e))?;
    let mut writing = Writing::begin(targets, coding, dirs)?;
    let piece = usize::try_from(file.bytes).unwrap_or(COPY_BYTES);
    let (mut buffer, mut read) = (vec![0; piece.clamp(1, COPY_BYTES)], 0);
    loop {
        pass(file.bytes.saturating_sub(read).min(COPY_BYTES as u64))?;
        let n = source
            .read(&mut buffer)
            .map_err(|e| unreadable("read", from, e))?;
        if n == 0 {
            break;
        }
        read += n as u64;
        writing.push(&buffer[..n])?;
    }
    writing.finish(file, format_args!("\"{}\"", from.display()), over)
}

/// Those of some paths that do not have a file of this length.
pub(super) fn missing_of(paths: Vec<PathBuf>, bytes: u64) -> Vec<PathBuf> {
    let has_it = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.len() == bytes);
    paths.into_iter().filter(|path| !has_it(path)).collect()
}

impl Repository {
    /// Copies a local file to where nothing stands, in one go.
    pub(super) async fn copy_new(
        &self,
        file: DataFile,
        from: PathBuf,
        target: PathBuf,
        coding: Coding,
        budget: &ByteBudget,
    ) -> Result<Copied, Error> {
        let (pace, dirs) = (self.pace(budget), self.synced_dirs.clone());
        let mark = self.local_path(&layout::info(&self.root));
        blocking(move || {
            let look = |path: &Path| match fs::symlink_metadata(path) {
                Ok(found) => Ok(Some(found)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::io("look at", path, e).of_kind(ErrorKind::Storage)),
            };
            if let Some(mark) = mark
                && look(&mark)?.is_none()
            {
                return Ok(Copied::Unmounted);
            }
            if look(&target)?.is_some() {
                return Ok(Copied::Occupied);
            }
            let targets = vec![target.clone()];
            if !copy_hashed(&file, &from, targets, Over::Nothing, coding, &dirs, pace)? {
                return Ok(Copied::Occupied);
            }
            let found = fs::symlink_metadata(&target);
            found
                .map(Copied::New)
                .map_err(|e| gone_meanwhile(Error::io("look at", &target, e)))
        })
        .await
    }

    /// Copies a file of the repository to those of the targets that do not have it; `check` is
    /// asked before. `false`: all of them had it.
    pub(super) async fn copy_missing(
        &self,
        file: DataFile,
        from: PathBuf,
        targets: Vec<PathBuf>,
        coding: Coding,
        budget: &ByteBudget,
        check: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) -> Result<bool, Error> {
        let (pace, dirs) = (self.pace(budget), self.synced_dirs.clone());
        blocking(move || {
            check()?;
            let missing = missing_of(targets, file.bytes);
            if missing.is_empty() {
                return Ok(false);
            }
            copy_hashed(&file, &from, missing, Over::Damaged, coding, &dirs, pace)
        })
        .await
    }

    /// What a copy asks before it reads so many bytes.
    fn pace(&self, budget: &ByteBudget) -> impl FnMut(u64) -> Result<(), Error> + Send + use<> {
        let (passing, budget, moved) = (self.passing(), budget.clone(), self.moved.clone());
        let runtime = Handle::current();
        let (mut permit, mut under_way) = (None, 0);
        move |bytes| {
            // Who waits for its turn holds nothing that others need.
            permit.take();
            moved.tell(std::mem::replace(&mut under_way, bytes));
            passing(bytes)?;
            permit = Some(runtime.block_on(budget.take(COPY_BYTES)));
            Ok(())
        }
    }

    /// Copies a local file to each of the targets, hashing on the way; no target exists before the
    /// hash proved right.
    pub(super) async fn copy_file(
        &self,
        file: DataFile,
        from: PathBuf,
        targets: Vec<PathBuf>,
        over: Over,
        coding: Coding,
        budget: &ByteBudget,
    ) -> Result<bool, Error> {
        let (pace, dirs) = (self.pace(budget), self.synced_dirs.clone());
        blocking(move || copy_hashed(&file, &from, targets, over, coding, &dirs, pace)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_has_few_enough_parts() {
        const MIB: u64 = 1 << 20;
        for (total, part) in [
            (0, 8),
            (78 << 30, 8),
            ((78 << 30) + (1 << 30), 9),
            (5 << 40, 525),
        ] {
            assert_eq!(part_bytes(total) as u64, part * MIB, "{total}");
            assert!(total.div_ceil(part_bytes(total) as u64) <= PARTS_MAX);
        }
    }
}
