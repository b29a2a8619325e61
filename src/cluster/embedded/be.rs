//! Backends: directories of immutable Parquet files, one folder a tablet.
//!
//! ```text
//! <backend>/backend.json                            who it is; a directory without it is not alive
//! <backend>/tablets/<tablet id>/<sha256>.parquet
//! <backend>/snapshot/<job uid>/<tablet id>-…        hard links that a backup holds
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::job::DataFile;
use crate::names::{BackendId, JobUid, TabletId};
use crate::repository::transfer::{PARTIAL_PREFIX, make_dir, partial_in, sync_dir};

#[derive(Serialize, Deserialize)]
struct Marker {
    /// The metastore that the directory belongs to: another one's tablets must never be taken for
    /// garbage.
    cluster: String,
    backend_id: BackendId,
}

/// All backends of the cluster.
#[derive(Debug)]
pub(super) struct Backends {
    cluster: String,
    paths: BTreeMap<BackendId, PathBuf>,
}

fn file_name(sha256: &str) -> String {
    format!("{sha256}.parquet")
}

impl Backends {
    pub fn new(cluster: String, paths: BTreeMap<BackendId, PathBuf>) -> Self {
        Self { cluster, paths }
    }

    /// The id of the cluster, unique over all.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (BackendId, &Path)> {
        self.paths.iter().map(|(id, path)| (*id, path.as_path()))
    }

    /// Makes the directory of a backend that has never been used. One that holds anybody's data is
    /// refused.
    pub fn format(&self, id: BackendId) -> Result<(), Error> {
        let path = self
            .paths
            .get(&id)
            .ok_or_else(|| Error::internal("an unknown backend"))?;
        let marker = path.join("backend.json");
        let ours = |text: Vec<u8>| {
            serde_json::from_slice::<Marker>(&text).is_ok_and(|m| m.cluster == self.cluster)
        };
        if marker.exists() && !fs::read(&marker).is_ok_and(ours) {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "backends: \"{}\" belongs to another data directory",
                    path.display()
                ),
            )
            .hint("Use the data_dir that it was made with, or an empty directory."));
        }
        make_dir(&path.join("tablets"))?;
        let marker_text = Marker {
            cluster: self.cluster.clone(),
            backend_id: id,
        };
        let text = serde_json::to_vec(&marker_text).map_err(|e| Error::internal(e.to_string()))?;
        let mut partial = partial_in(path)?;
        partial
            .write_all(&text)
            .and_then(|()| partial.as_file().sync_all())
            .map_err(|e| Error::io("write", &marker, e))?;
        partial
            .persist(&marker)
            .map_err(|e| Error::io("create", &marker, e.error))?;
        sync_dir(path)
    }

    /// Whether a backend answers, and why not.
    pub fn check(&self, id: BackendId) -> Result<(), Error> {
        let path = self.paths.get(&id).ok_or_else(|| {
            Error::new(
                ErrorKind::UndefinedObject,
                format!("backend {id} is not configured"),
            )
        })?;
        let marker = path.join("backend.json");
        let text = fs::read(&marker).map_err(|e| Error::io("read", &marker, e))?;
        match serde_json::from_slice::<Marker>(&text) {
            Ok(found) if found.backend_id == id && found.cluster == self.cluster => {}
            Ok(found) => {
                return Err(Error::new(
                    ErrorKind::Corrupted,
                    format!(
                        "\"{}\" is the directory of backend {} of another cluster, or not of {id}",
                        path.display(),
                        found.backend_id
                    ),
                ));
            }
            Err(e) => {
                return Err(Error::new(
                    ErrorKind::Corrupted,
                    format!("\"{}\" does not read: {e}", marker.display()),
                ));
            }
        }
        let tablets = path.join("tablets");
        if tablets.is_dir() {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::MissingFile,
                format!("\"{}\" is not there", tablets.display()),
            ))
        }
    }

    /// Those that answer.
    pub fn alive(&self) -> Result<Vec<BackendId>, Error> {
        self.alive_of(self.paths.keys().copied())
    }

    /// Those of some that answer. Who cannot open a file any more cannot tell.
    pub fn alive_of(
        &self,
        backends: impl IntoIterator<Item = BackendId>,
    ) -> Result<Vec<BackendId>, Error> {
        let mut alive = Vec::new();
        for id in backends {
            match self.check(id) {
                Ok(()) => alive.push(id),
                Err(e) if e.kind == ErrorKind::OutOfFiles => return Err(e),
                Err(_) => {}
            }
        }
        Ok(alive)
    }

    pub fn tablet_dir(&self, backend: BackendId, tablet: TabletId) -> Option<PathBuf> {
        Some(
            self.paths
                .get(&backend)?
                .join("tablets")
                .join(tablet.to_string()),
        )
    }

    pub fn file(&self, backend: BackendId, tablet: TabletId, file: &DataFile) -> Option<PathBuf> {
        Some(
            self.tablet_dir(backend, tablet)?
                .join(file_name(&file.sha256)),
        )
    }

    fn snapshot_dir(&self, backend: BackendId, uid: &JobUid) -> Option<PathBuf> {
        Some(
            self.paths
                .get(&backend)?
                .join("snapshot")
                .join(uid.as_str()),
        )
    }

    pub fn snapshot_file(
        &self,
        backend: BackendId,
        uid: &JobUid,
        tablet: TabletId,
        file: &DataFile,
    ) -> Option<PathBuf> {
        // All of a job in one directory: one a tablet would cost as much as a file.
        Some(
            self.snapshot_dir(backend, uid)?
                .join(format!("{tablet}-{}", file_name(&file.sha256))),
        )
    }

    /// The first replica that has the file in its full length.
    pub fn readable(
        &self,
        replicas: &[BackendId],
        tablet: TabletId,
        file: &DataFile,
    ) -> Option<PathBuf> {
        replicas
            .iter()
            .filter_map(|backend| self.file(*backend, tablet, file))
            .find(|path| fs::metadata(path).is_ok_and(|m| m.len() == file.bytes))
    }

    /// Links each file of a tablet into a job's snapshot directory, on the first of the replicas
    /// that has it; answers the backend of the first. A replica that has missed a write does not
    /// matter while another has the file.
    pub fn link_snapshot(
        &self,
        uid: &JobUid,
        tablet: TabletId,
        replicas: &[BackendId],
        files: &[DataFile],
    ) -> Result<BackendId, Error> {
        let mut chosen = None;
        for file in files {
            let (mut last, mut retryable) = (None, false);
            let linked =
                replicas
                    .iter()
                    .find(|backend| match self.link(**backend, uid, tablet, file) {
                        Ok(()) => true,
                        Err(e) => {
                            retryable |= matches!(e.kind, ErrorKind::Storage | ErrorKind::DiskFull);
                            last = Some(e);
                            false
                        }
                    });
            let Some(linked) = linked else {
                let why = last.map_or_else(|| "it has no replica".to_owned(), |e| e.to_string());
                let kind = if retryable {
                    ErrorKind::Storage
                } else {
                    ErrorKind::MissingFile
                };
                return Err(Error::new(
                    kind,
                    format!("failed to choose replica to make snapshot for tablet {tablet}"),
                )
                .detail(why));
            };
            chosen.get_or_insert(*linked);
        }
        Ok(chosen.or(replicas.first().copied()).unwrap_or(BackendId(0)))
    }

    fn link(
        &self,
        backend: BackendId,
        uid: &JobUid,
        tablet: TabletId,
        file: &DataFile,
    ) -> Result<(), Error> {
        let (Some(dir), Some(link), Some(from)) = (
            self.snapshot_dir(backend, uid),
            self.snapshot_file(backend, uid, tablet, file),
            self.file(backend, tablet, file),
        ) else {
            self.check(backend)?;
            return Err(Error::internal(
                "a backend that was checked has no directory",
            ));
        };
        let length = match fs::metadata(&from) {
            Ok(found) => found.len(),
            // A backend that is away is another matter than a file that is.
            Err(e) => {
                self.check(backend)?;
                return Err(Error::io("look at", &from, e));
            }
        };
        if length != file.bytes {
            return Err(Error::new(
                ErrorKind::Corrupted,
                format!(
                    "\"{}\" has {length} bytes where {} belong",
                    from.display(),
                    file.bytes
                ),
            ));
        }
        // Not synced: where a power failure takes a link, the replica that the pin keeps is read.
        let mut linked = fs::hard_link(&from, &link);
        if linked
            .as_ref()
            .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
        {
            self.check(backend)?;
            fs::create_dir_all(&dir).map_err(|e| Error::io("create directory", &dir, e))?;
            linked = fs::hard_link(&from, &link);
        }
        match linked {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(Error::io("link", &from, e)),
        }
    }

    /// Removes a job's snapshot directories from every backend. What a sick backend keeps, the
    /// sweep at a start removes.
    pub fn drop_snapshot(&self, uid: &JobUid) {
        for backend in self.paths.keys() {
            if let Err(e) = remove_dir(&self.snapshot_dir(*backend, uid).expect("an id of ours")) {
                tracing::warn!(backend = backend.0, error = %e, "could not remove the links of a job");
            }
        }
    }

    /// Removes a tablet, or one file of it, from every backend.
    pub fn remove(&self, tablet: TabletId, sha256: Option<&str>) -> Result<(), Error> {
        for backend in self.paths.keys() {
            // What is not ours, or away, is left alone; the sweep at a start finds what comes back.
            match self.check(*backend) {
                Ok(()) => {}
                Err(e) if e.kind == ErrorKind::OutOfFiles => return Err(e),
                Err(_) => continue,
            }
            let dir = self.tablet_dir(*backend, tablet).expect("an id of ours");
            match sha256 {
                None => remove_dir(&dir)?,
                Some(sha256) => match fs::remove_file(dir.join(file_name(sha256))) {
                    Ok(()) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(Error::io("remove", dir.join(file_name(sha256)), e)),
                },
            }
        }
        Ok(())
    }

    /// Removes what a crash left: unfinished files, files and tablets that nothing knows, snapshots
    /// of jobs that are gone. A backend that is not ours or does not answer is left alone.
    pub fn sweep(
        &self,
        known_file: impl Fn(TabletId, &str) -> bool,
        known_tablet: impl Fn(TabletId) -> bool,
        uids: &HashSet<String>,
    ) {
        for (id, root) in self.iter() {
            let swept = self
                .check(id)
                .and_then(|()| sweep_one(root, &known_file, &known_tablet, uids));
            if let Err(e) = swept {
                tracing::warn!(backend = id.0, error = %e, "a backend could not be swept");
            }
        }
    }
}

fn sweep_one(
    root: &Path,
    known_file: &impl Fn(TabletId, &str) -> bool,
    known_tablet: &impl Fn(TabletId) -> bool,
    uids: &HashSet<String>,
) -> Result<(), Error> {
    for entry in list(&root.join("snapshot"))? {
        if !uids.contains(&entry) {
            remove_dir(&root.join("snapshot").join(entry))?;
        }
    }
    for entry in list(&root.join("tablets"))? {
        let dir = root.join("tablets").join(&entry);
        let Ok(tablet) = entry.parse().map(TabletId) else {
            continue;
        };
        if !known_tablet(tablet) {
            remove_dir(&dir)?;
            continue;
        }
        for name in list(&dir)? {
            let stale = match name.strip_suffix(".parquet") {
                Some(sha256) => !known_file(tablet, sha256),
                None => name.starts_with(PARTIAL_PREFIX),
            };
            if stale {
                let path = dir.join(name);
                fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
            }
        }
    }
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // A backend whose place in the tree is taken by something else holds nothing of ours.
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(()),
        Err(e) => Err(Error::io("remove", dir, e)),
    }
}

fn list(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(e) => return Err(Error::io("list", dir, e)),
    };
    entries
        .map(|entry| {
            Ok(entry
                .map_err(|e| Error::io("list", dir, e))?
                .file_name()
                .to_string_lossy()
                .into_owned())
        })
        .collect()
}
