//! When what is written to a directory is on the disk: each file by itself, or all files together
//! before something relies on them.
//!
//! A sync of each of many small files costs more than writing them. Where the system promises that
//! one sync of a whole file system reaches every file of it and tells of every failure, that one
//! takes their place; until then a file may be lost or cut short by a power failure, and nothing may
//! say that it is there.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::names::Sha256;

/// A file system that can be synced as a whole.
#[derive(Debug)]
pub(crate) struct FileSystem {
    /// Opened before anything is written: a failure of writing is told to those who had a file of
    /// the file system open by then.
    root: File,
    device: u64,
    /// What has been written to it since its last sync.
    unsynced: Mutex<Vec<Sha256>>,
    /// A sync has failed: what is written from now on is synced file by file.
    failed: AtomicBool,
    #[cfg(test)]
    pub is_bad: AtomicBool,
}

impl FileSystem {
    /// The one of a directory; `None` where a sync of all of it cannot be relied on.
    #[cfg(target_os = "linux")]
    pub fn of(directory: &Path) -> Option<Self> {
        let root = File::open(directory).ok()?;
        let kind = rustix::fs::fstatfs(&root).ok()?.f_type;
        let is_known = SYNCED_AS_A_WHOLE.contains(&u32::try_from(kind).ok()?);
        if !is_known || !tells_failures(rustix::system::uname().release().to_str().ok()?) {
            return None;
        }
        let device = device_of(&root).ok()?;
        Some(Self {
            root,
            device,
            unsynced: Mutex::default(),
            failed: AtomicBool::new(false),
            #[cfg(test)]
            is_bad: AtomicBool::new(false),
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub fn of(_directory: &Path) -> Option<Self> {
        None
    }

    /// Whether a file is on it, and not on another that is mounted below the directory.
    pub fn holds(&self, file: &File) -> bool {
        device_of(file).is_ok_and(|device| device == self.device)
    }

    /// Whether a sync of all of it can still be relied on.
    pub fn is_sound(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }

    /// Notes that a file is written and not synced by itself.
    pub fn writes(&self, sha256: &Sha256) {
        self.unsynced.lock().push(sha256.clone());
    }

    /// Waits until all that was written to it is on the disk. After an error the system may have
    /// dropped what it could not write, and does not say so twice: the files that were written
    /// since the last sync come back and are worth nothing.
    pub fn sync(&self) -> Result<(), (io::Error, Vec<Sha256>)> {
        let written = std::mem::take(&mut *self.unsynced.lock());
        self.sync_all().map_err(|e| {
            self.failed.store(true, Ordering::Release);
            (e, written)
        })
    }

    #[cfg(target_os = "linux")]
    fn sync_all(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.is_bad.load(Ordering::Acquire) {
            return Err(io::Error::other("the disk is bad"));
        }
        Ok(rustix::fs::syncfs(&self.root)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn sync_all(&self) -> io::Result<()> {
        self.root.sync_all()
    }
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

fn device_of(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.dev())
}

/// The kinds of file systems that do it (statfs(2)): ext2 to 4, XFS, Btrfs, F2FS, ZFS, NFS, tmpfs,
/// overlayfs. FUSE and network file systems of other kinds may answer before their server has it.
#[cfg(target_os = "linux")]
const SYNCED_AS_A_WHOLE: [u32; 8] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x2fc1_2fc1,
    0x6969,
    0x0102_1994,
    0x794c_7630,
];

/// Before Linux 5.8 a sync of a file system does not say that writing has failed (syncfs(2)).
#[cfg(target_os = "linux")]
fn tells_failures(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 8)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use object_store::local::LocalFileSystem;

    use super::*;
    use crate::error::ErrorKind;
    use crate::job::DataFile;
    use crate::names::RepositoryName;
    use crate::repository::{ByteBudget, Location, Repository, hash_file};

    #[test]
    fn old_systems_are_not_relied_on() {
        for (release, tells) in [
            ("6.18.44-generic", true),
            ("5.8.0", true),
            ("5.7.19-arch1", false),
            ("4.18.0-553.el8.x86_64", false),
            ("unknown", false),
        ] {
            assert_eq!(tells_failures(release), tells, "{release}");
        }
    }

    #[test]
    fn files_elsewhere_are_not_its_own() {
        let proc = File::open("/proc/self/status").expect("a file of another file system");
        let directory = tempfile::tempdir().expect("a directory");
        let here = tempfile::tempfile_in(directory.path()).expect("a file");
        if let Some(file_system) = FileSystem::of(directory.path()) {
            assert!(file_system.holds(&here) && !file_system.holds(&proc));
            file_system.sync().expect("synced");
        }
        assert!(FileSystem::of(Path::new("/proc")).is_none());
    }

    #[tokio::test]
    async fn what_a_failed_sync_may_have_lost_is_written_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("__starrocks_repository_r");
        std::fs::create_dir(&root).expect("its directory");
        let store: Arc<dyn ObjectStore> =
            Arc::new(LocalFileSystem::new_with_prefix(directory.path()).expect("a store"));
        let name = RepositoryName::new("r").expect("a name");
        let prefix = object_store::path::Path::default();
        let location = Location {
            url: directory.path().display().to_string(),
            properties: Default::default(),
        };
        let repository = Repository::new(name, store, &prefix, Some(directory.path().to_owned()))
            .indexed(&location, Arc::default());
        let Some(file_system) = repository.file_system() else {
            // A file system that is not relied on is synced file by file.
            return;
        };
        let source = directory.path().join("source");
        std::fs::write(&source, b"bytes").expect("written");
        let (sha256, bytes) = hash_file(&source).expect("hashed");
        let file = DataFile {
            sha256: Sha256::new(&sha256).expect("a hash"),
            bytes,
            rows: 1,
        };
        let budget = ByteBudget::new(1 << 20);
        let upload = || repository.upload(&file, &source, &budget);
        assert!(upload().await.expect("brought"), "its bytes were moved");
        assert!(!upload().await.expect("known"), "it is there");
        file_system.is_bad.store(true, Ordering::Release);
        let error = repository.make_durable().await.expect_err("no sync");
        assert_eq!(error.kind, ErrorKind::Storage);
        let lost = repository.unreliable([&file].into_iter()).await;
        assert_eq!(lost.expect("looked at"), [&file]);
        assert!(
            upload().await.expect("brought again"),
            "its bytes were moved"
        );
        assert!(repository.file_system().is_none(), "one by one from now on");
        repository.make_durable().await.expect("nothing is left");
        let lost = repository.unreliable([&file].into_iter()).await;
        assert!(lost.expect("looked at").is_empty());
    }
}
