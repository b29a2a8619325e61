//! Where each object of a repository is: the one place that spells their names.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;

use super::cipher::{Cipher, Coding};
use super::transfer::PARTIAL_PREFIX;
use crate::error::Error;
use crate::job::DataFile;
use crate::names::{BackupTimestamp, JobUid, RepositoryName, Sha256, SnapshotLabel};

/// The format that this code reads and writes.
pub(super) const FORMAT: u32 = 1;
/// The format of an encrypted repository's `__repo_info`.
pub(super) const ENCRYPTED_FORMAT: u32 = 2;

const INFO_COPY: &str = "__repo_info_copy";
/// What is about to be deleted (docs/repository-format.md, "Pruning").
const MARK: &str = "__prune";
const LABEL_PREFIX: &str = "__ss_";
pub(super) const MANIFEST_PREFIX: &str = "__info_";

/// Where copies of jobs' journals are.
pub(super) const HISTORY: &str = "__history";
const JSON: &str = ".json";

pub(super) fn history(root: &Path, uid: &JobUid) -> Path {
    root.clone().join(HISTORY).join(format!("{uid}{JSON}"))
}

/// The job whose journal an object is a copy of.
pub(super) fn uid_of(root: &Path, object: &Path) -> Option<JobUid> {
    let uid = JobUid::new(object.filename()?.strip_suffix(JSON)?).ok()?;
    (history(root, &uid) == *object).then_some(uid)
}

/// Where jobs say what they read (docs/repository-format.md, "Leases").
pub(super) const LEASES: &str = "__leases";

pub(super) fn lease(root: &Path, job_uid: &JobUid) -> Path {
    root.clone().join(LEASES).join(format!("{job_uid}{JSON}"))
}

pub(super) fn is_lease(object: &Path) -> bool {
    object.filename().is_some_and(|name| name.ends_with(JSON))
}

pub(super) fn repository_dir(name: &RepositoryName) -> String {
    format!("__starrocks_repository_{name}")
}

pub(super) fn info(root: &Path) -> Path {
    root.clone().join("__repo_info")
}

/// The same again, of an encrypted repository.
pub(super) fn info_copy(root: &Path) -> Path {
    root.clone().join(INFO_COPY)
}

pub(super) fn mark(root: &Path) -> Path {
    root.clone().join(MARK)
}

/// What is put to try a location, and taken away again.
const PROBE_PREFIX: &str = "__probe_";

pub(super) fn probe(root: &Path, name: &str) -> Path {
    root.clone().join(format!("{PROBE_PREFIX}{name}"))
}

pub(super) fn is_probe(object: &Path) -> bool {
    object
        .filename()
        .is_some_and(|name| name.starts_with(PROBE_PREFIX))
}

/// How the objects of one repository are called, and what stands in them: as they are, or under
/// names that tell nothing and encrypted.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: Path,
    cipher: Option<Arc<Cipher>>,
}

/// What an object of a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A data file, by what its object is called.
    Data(Sha256),
    /// A file that was not finished.
    Partial,
    /// A manifest, or what else a repository has.
    Other,
}

impl Layout {
    pub fn new(root: &Path, cipher: Option<Arc<Cipher>>) -> Self {
        Self {
            root: root.clone(),
            cipher,
        }
    }

    pub fn is_encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    pub fn label_dir(&self, label: &SnapshotLabel) -> Path {
        let name = match &self.cipher {
            None => label.to_string(),
            Some(cipher) => cipher.label_name(label.as_str()),
        };
        self.root.clone().join(format!("{LABEL_PREFIX}{name}"))
    }

    /// The label of a directory, if it is a label's. Characters that object stores dislike stand
    /// percent-encoded in paths.
    pub fn label_of(&self, directory: &Path) -> Option<SnapshotLabel> {
        let name = directory.filename()?.strip_prefix(LABEL_PREFIX)?;
        let label = match &self.cipher {
            None => percent_encoding::percent_decode_str(name)
                .decode_utf8()
                .ok()?
                .into_owned(),
            Some(cipher) => cipher.label_of(name)?,
        };
        SnapshotLabel::new(label).ok()
    }

    /// Whether a directory looks like a label's and is none that is known.
    pub fn is_strange_label(&self, directory: &Path) -> bool {
        let is_alike = directory
            .filename()
            .is_some_and(|name| name.starts_with(LABEL_PREFIX));
        is_alike && self.label_of(directory).is_none()
    }

    pub fn manifest(&self, label: &SnapshotLabel, timestamp: &BackupTimestamp) -> Path {
        self.label_dir(label)
            .join(format!("{MANIFEST_PREFIX}{timestamp}"))
    }

    /// What the object of a data file is called, but for where it is.
    pub fn object_of(&self, sha256: &Sha256) -> Sha256 {
        match &self.cipher {
            None => sha256.clone(),
            Some(cipher) => cipher.file_name(sha256),
        }
    }

    pub fn data(&self, sha256: &Sha256) -> Path {
        self.object(&self.object_of(sha256))
    }

    /// Data files are spread over 256 directories by the first byte of what they are called.
    pub fn object(&self, name: &Sha256) -> Path {
        self.data_dir()
            .join(&name[..2])
            .join(format!("{name}.parquet"))
    }

    pub fn data_dir(&self) -> Path {
        self.root.clone().join("data")
    }

    /// A path from the repository's directory on.
    pub fn relative(&self, path: &Path) -> String {
        let relative = path.as_ref().strip_prefix(self.root.as_ref());
        relative
            .unwrap_or(path.as_ref())
            .trim_start_matches('/')
            .to_owned()
    }

    /// What an object is, by its name; nothing if no repository has such.
    pub fn place_of(&self, object: &Path) -> Option<Place> {
        let parts: Vec<_> = object.prefix_match(&self.root)?.collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        // HDFS' client writes `.name.tmp.number`, and gives it its name at the end.
        let partial = |name: &str| {
            let of_hdfs = name.strip_prefix('.').and_then(|n| n.rsplit_once(".tmp."));
            name.starts_with(PARTIAL_PREFIX)
                || of_hdfs.is_some_and(|(_, number)| number.parse::<u32>().is_ok())
        };
        match parts[..] {
            [name] | [_, name] | ["data", _, name] if partial(name) => Some(Place::Partial),
            ["__repo_info" | INFO_COPY | MARK] => Some(Place::Other),
            [HISTORY | LEASES, name] if name.ends_with(JSON) => Some(Place::Other),
            [name] if name.starts_with(PROBE_PREFIX) => Some(Place::Other),
            ["data", directory, name] => {
                let name = Sha256::new(name.strip_suffix(".parquet")?).ok()?;
                (name[..2] == *directory).then_some(Place::Data(name))
            }
            [label, name] if label.starts_with(LABEL_PREFIX) => {
                let timestamp = name.strip_prefix(MANIFEST_PREFIX)?;
                BackupTimestamp::new(timestamp).ok().map(|_| Place::Other)
            }
            _ => None,
        }
    }

    /// How long the object of a data file is.
    pub fn stored_bytes(&self, file: &DataFile) -> u64 {
        match &self.cipher {
            None => file.bytes,
            Some(_) => Cipher::stored_bytes(file.bytes),
        }
    }

    /// A small object, as it is stored.
    pub fn seal(&self, path: &Path, plain: Bytes) -> Result<Bytes, Error> {
        match &self.cipher {
            None => Ok(plain),
            Some(cipher) => Ok(cipher.seal(&self.relative(path), &plain)?.into()),
        }
    }

    pub fn open(&self, path: &Path, stored: Bytes) -> Result<Bytes, Error> {
        match &self.cipher {
            None => Ok(stored),
            Some(cipher) => Ok(cipher.open(&self.relative(path), &stored)?.into()),
        }
    }

    /// For the bytes of a data file on their way to an object.
    pub fn sealing(&self, path: &Path) -> Result<Coding, Error> {
        match &self.cipher {
            None => Ok(Coding::Plain),
            Some(cipher) => {
                let sealer = cipher.sealer(&self.relative(path))?;
                Ok(Coding::Seal(Box::new(sealer)))
            }
        }
    }

    /// For the bytes of an object on their way to a data file.
    pub fn opening(&self, path: &Path) -> Coding {
        match &self.cipher {
            None => Coding::Plain,
            Some(cipher) => Coding::Open(Box::new(cipher.opener(&self.relative(path)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_told_by_their_names() {
        let root = Path::from("x");
        let layout = Layout::new(&root, None);
        let sha256 = Sha256::new("ab".repeat(32)).expect("valid");
        assert_eq!(
            layout.place_of(&layout.data(&sha256)),
            Some(Place::Data(sha256.clone()))
        );
        let label = SnapshotLabel::new("a b").expect("valid");
        let timestamp = BackupTimestamp::new("2026-01-02-03-04-05-678").expect("valid");
        for ours in [info(&root), layout.manifest(&label, &timestamp)] {
            assert_eq!(layout.place_of(&ours), Some(Place::Other), "{ours}");
        }
        for unfinished in [
            "x/data/ab/.partial-1",
            "x/__history/.u.json.tmp.1",
            "x/.__repo_info.tmp.12",
        ] {
            let place = layout.place_of(&Path::from(unfinished));
            assert_eq!(place, Some(Place::Partial), "{unfinished}");
        }
        let elsewhere = format!("x/data/cd/{sha256}.parquet");
        for foreign in [
            "x/data/ab/readme",
            "x/__history/.u.json.tmp.x",
            &elsewhere,
            "x/notes",
            "x/__ss_a/__info_x",
            "y/data",
        ] {
            assert_eq!(layout.place_of(&Path::from(foreign)), None, "{foreign}");
        }
    }

    #[test]
    fn labels_survive_the_way_through_a_path() {
        let layout = Layout::new(&Path::from("x"), None);
        for label in ["nightly", "a b", "ünï", "50%", "a#b?c"] {
            let label = SnapshotLabel::new(label).expect("valid");
            let directory = layout.label_dir(&label);
            assert_eq!(layout.label_of(&directory), Some(label));
            assert_eq!(directory.parts().count(), 2);
        }
        assert_eq!(layout.label_of(&Path::from("x/data")), None);
    }
}
