//! Where each object of a repository is: the one place that spells their names.

use object_store::path::Path;

use crate::names::{BackupTimestamp, RepositoryName, Sha256, SnapshotLabel};

/// The format that this code reads and writes.
pub(super) const FORMAT: u32 = 1;

/// What is about to be deleted (docs/repository-format.md, "Pruning").
const MARK: &str = "__prune";
const LABEL_PREFIX: &str = "__ss_";
pub(super) const MANIFEST_PREFIX: &str = "__info_";

pub(super) fn repository_dir(name: &RepositoryName) -> String {
    format!("__starrocks_repository_{name}")
}

pub(super) fn info(root: &Path) -> Path {
    root.clone().join("__repo_info")
}

pub(super) fn mark(root: &Path) -> Path {
    root.clone().join(MARK)
}

pub(super) fn label_dir(root: &Path, label: &SnapshotLabel) -> Path {
    root.clone().join(format!("{LABEL_PREFIX}{label}"))
}

/// The label of a directory, if it is a label's. Characters that object stores dislike stand
/// percent-encoded in paths.
pub(super) fn label_of(directory: &Path) -> Option<SnapshotLabel> {
    let name = directory.filename()?.strip_prefix(LABEL_PREFIX)?;
    let decoded = percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .ok()?;
    SnapshotLabel::new(decoded).ok()
}

/// Whether a directory looks like a label's and is none that is known.
pub(super) fn is_strange_label(directory: &Path) -> bool {
    let is_alike = directory
        .filename()
        .is_some_and(|name| name.starts_with(LABEL_PREFIX));
    is_alike && label_of(directory).is_none()
}

pub(super) fn manifest(root: &Path, label: &SnapshotLabel, timestamp: &BackupTimestamp) -> Path {
    label_dir(root, label).join(format!("{MANIFEST_PREFIX}{timestamp}"))
}

/// Data files are spread over 256 directories by the first byte of their hash.
pub(super) fn data(root: &Path, sha256: &Sha256) -> Path {
    data_dir(root)
        .join(&sha256[..2])
        .join(format!("{sha256}.parquet"))
}

/// What an object of a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A data file.
    Data(Sha256),
    /// A manifest, or what else a repository has.
    Other,
}

/// What an object is, by its name; nothing if no repository has such.
pub(super) fn place_of(root: &Path, object: &Path) -> Option<Place> {
    let parts: Vec<_> = object.prefix_match(root)?.collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    match parts[..] {
        ["__repo_info" | MARK] => Some(Place::Other),
        [name] if name.starts_with("__probe_") => Some(Place::Other),
        ["data", directory, name] => {
            let sha256 = Sha256::new(name.strip_suffix(".parquet")?).ok()?;
            (sha256[..2] == *directory).then_some(Place::Data(sha256))
        }
        [label, name] if label.starts_with(LABEL_PREFIX) => {
            let timestamp = name.strip_prefix(MANIFEST_PREFIX)?;
            BackupTimestamp::new(timestamp).ok().map(|_| Place::Other)
        }
        _ => None,
    }
}

pub(super) fn data_dir(root: &Path) -> Path {
    root.clone().join("data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_told_by_their_names() {
        let root = Path::from("x");
        let sha256 = Sha256::new("ab".repeat(32)).expect("valid");
        assert_eq!(
            place_of(&root, &data(&root, &sha256)),
            Some(Place::Data(sha256.clone()))
        );
        let label = SnapshotLabel::new("a b").expect("valid");
        let timestamp = BackupTimestamp::new("2026-01-02-03-04-05-678").expect("valid");
        for ours in [info(&root), manifest(&root, &label, &timestamp)] {
            assert_eq!(place_of(&root, &ours), Some(Place::Other), "{ours}");
        }
        let elsewhere = format!("x/data/cd/{sha256}.parquet");
        for foreign in [
            "x/data/ab/readme",
            &elsewhere,
            "x/notes",
            "x/__ss_a/__info_x",
            "y/data",
        ] {
            assert_eq!(place_of(&root, &Path::from(foreign)), None, "{foreign}");
        }
    }

    #[test]
    fn labels_survive_the_way_through_a_path() {
        let root = Path::from("x");
        for label in ["nightly", "a b", "ünï", "50%", "a#b?c"] {
            let label = SnapshotLabel::new(label).expect("valid");
            let directory = label_dir(&root, &label);
            assert_eq!(label_of(&directory), Some(label));
            assert_eq!(directory.parts().count(), 2);
        }
        assert_eq!(label_of(&Path::from("x/data")), None);
    }
}
