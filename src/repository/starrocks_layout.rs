//! StarRocks' own repository layout, read straight from where it is: no cluster is needed to list,
//! size or check what is there.
//!
//! The frontend and the backends of StarRocks write it; here it is read, and in `starrocks_delete`
//! a snapshot is deleted. Names carry the MD5 of their content, so a listing tells what a file
//! should be. Ids of tables and partitions stand in paths, their names only in
//! `__info_<timestamp>.<md5>`. What is damaged, half-written or somebody else's is told as what it
//! is, and fails nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use md5::{Digest, Md5};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Deserialize;

use super::location::Location;
use super::storage_error;
use crate::error::{Error, ErrorKind};
use crate::names::{RepositoryName, Timestamp};

/// The longest `__info_` file that is read into memory.
const INFO_BYTES_MAX: u64 = 256 << 20;

pub(super) const LABEL_PREFIX: &str = "__ss_";
pub(super) const INFO_PREFIX: &str = "__info_";
pub(super) const CONTENT: &str = "__ss_content";
pub(super) const PART: &str = ".part";

/// A repository that a StarRocks cluster writes.
#[derive(Clone, Debug)]
pub struct StarRocksRepository {
    name: RepositoryName,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The directory of its location, where that is on this machine.
    local: Option<PathBuf>,
    has_directories: bool,
    /// Its directory, once it has been found.
    root: tokio::sync::OnceCell<Path>,
}

/// What stands directly under one label.
#[derive(Clone, Debug, Default)]
pub struct StoredLabel {
    pub label: String,
    /// Every `__info_` file with a checksum in its name, by timestamp.
    pub infos: Vec<StoredInfo>,
    pub has_meta: bool,
    /// Whole `__meta` files; StarRocks wants one.
    pub metas: usize,
    /// Files beside them that stop StarRocks from reading the snapshot, or that are no part of one.
    pub strays: Vec<String>,
}

/// An `__info_` file.
#[derive(Clone, Debug)]
pub struct StoredInfo {
    pub timestamp: String,
    pub md5: String,
    pub bytes: u64,
    path: Path,
}

impl StoredInfo {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl StoredLabel {
    /// The state of the whole label as SHOW SNAPSHOT has it, as far as a listing tells.
    pub fn status(&self) -> String {
        match (self.infos.is_empty(), self.leftover()) {
            (true, _) => "ERROR: no snapshot".into(),
            (false, Some(part)) => format!("ERROR: Failed to get info: {part} is in the way"),
            (false, None) => "OK".into(),
        }
    }

    /// A half-written `__info_` or `__meta`: StarRocks finds two files where it wants one.
    fn leftover(&self) -> Option<&String> {
        self.strays.iter().find(|s| s.ends_with(PART))
    }
}

/// What an `__info_` file says.
#[derive(Clone, Debug, Deserialize)]
pub struct Info {
    pub name: String,
    /// The database's id, which stands in paths.
    pub id: Option<i64>,
    /// The database; empty for external catalogs.
    #[serde(default)]
    pub database: String,
    /// When the job was created, milliseconds since 1970.
    pub backup_time: i64,
    /// Tables and views, by name.
    #[serde(default)]
    pub backup_objects: BTreeMap<String, InfoTable>,
    /// The version of `__meta`; missing in very old ones.
    pub starrocks_meta_version: Option<i64>,
    /// Which cluster made it (4.2).
    pub cluster_id: Option<serde_json::Value>,
    /// When it was finished (4.2), milliseconds.
    pub finish_time: Option<i64>,
    /// How long it is kept (4.2).
    pub ttl: Option<String>,
    /// When it expires (4.2), milliseconds.
    pub expire_time: Option<i64>,
}

/// A table or view in an `__info_` file.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoTable {
    /// Its id in the cluster that wrote it.
    pub id: i64,
    /// The next value of its AUTO_INCREMENT column.
    #[serde(rename = "autoIncrementId")]
    pub auto_increment_id: Option<i64>,
    /// Its partitions, by name; none for a view.
    #[serde(default)]
    pub partitions: BTreeMap<String, InfoPartition>,
}

/// A partition in an `__info_` file. From 3.4 on the tablets are in its physical partitions.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoPartition {
    pub id: i64,
    #[serde(default)]
    pub version: i64,
    /// Up to 3.3: its indexes, by name.
    #[serde(default)]
    pub indexes: BTreeMap<String, InfoIndex>,
    /// From 3.4: its physical partitions, by id.
    #[serde(default, rename = "subPartitions")]
    pub physical: BTreeMap<String, InfoPhysical>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct InfoPhysical {
    /// Its id, which stands in paths.
    pub id: i64,
    /// Its indexes, by name.
    #[serde(default)]
    pub indexes: BTreeMap<String, InfoIndex>,
}

/// An index: the base table or a rollup.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoIndex {
    pub id: i64,
    /// Its tablets, by id, each with its files where the version lists them.
    #[serde(default)]
    pub tablets: BTreeMap<String, Vec<String>>,
}

impl Info {
    pub fn created_at(&self) -> Timestamp {
        Timestamp(self.backup_time)
    }

    /// Tables, partitions and views.
    pub fn counts(&self) -> (u64, u64, u64) {
        let tables = self
            .backup_objects
            .values()
            .filter(|t| !t.partitions.is_empty());
        let (tables, partitions) = tables.fold((0, 0), |(t, p), table| {
            (t + 1, p + table.partitions.len() as u64)
        });
        (
            tables,
            partitions,
            self.backup_objects.len() as u64 - tables,
        )
    }

    /// What the ids in paths are called: tables by id, and partitions by the id that stands there.
    pub fn names(&self) -> Names<'_> {
        let mut names = Names::default();
        for (table, object) in &self.backup_objects {
            names.tables.insert(object.id, table);
            for (partition, content) in &object.partitions {
                names.partitions.insert(content.id, partition);
                names.partitions.extend(
                    content
                        .physical
                        .values()
                        .map(|p| (p.id, partition.as_str())),
                );
            }
        }
        names
    }

    /// The ids of all tablets.
    pub fn tablets(&self) -> impl Iterator<Item = i64> {
        let partitions = self
            .backup_objects
            .values()
            .flat_map(|t| t.partitions.values());
        let indexes = partitions.flat_map(|p| {
            p.indexes
                .values()
                .chain(p.physical.values().flat_map(|p| p.indexes.values()))
        });
        indexes
            .flat_map(|i| i.tablets.keys())
            .filter_map(|id| id.parse().ok())
    }

    /// The brief form that SHOW SNAPSHOT prints: names without ids and files.
    pub fn details(&self) -> String {
        let objects: serde_json::Map<String, serde_json::Value> = self
            .backup_objects
            .iter()
            .map(|(name, table)| {
                let partitions: serde_json::Map<_, _> = table
                    .partitions
                    .keys()
                    .map(|p| (p.clone(), serde_json::json!({})))
                    .collect();
                let mut object = serde_json::json!({ "partitions": partitions });
                if let Some(next) = table.auto_increment_id {
                    object["autoIncrementId"] = next.into();
                }
                (name.clone(), object)
            })
            .collect();
        let brief = serde_json::json!({
            "name": self.name,
            "database": self.database,
            "backup_time": self.backup_time,
            "backup_objects": objects,
            "starrocks_meta_version": self.starrocks_meta_version,
            "backup_result": "succeed",
        });
        serde_json::to_string_pretty(&brief).unwrap_or_default()
    }
}

/// Names of what paths call by ids.
#[derive(Clone, Debug, Default)]
pub struct Names<'a> {
    pub tables: HashMap<i64, &'a str>,
    pub partitions: HashMap<i64, &'a str>,
}

/// A file under `__ss_content`, or a stray.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its path below the repository.
    pub path: String,
    pub bytes: u64,
    /// As the store says.
    pub written_at: Timestamp,
    pub md5: Option<String>,
    pub status: FileStatus,
    pub table_id: Option<i64>,
    pub partition_id: Option<i64>,
    pub tablet_id: Option<i64>,
}

/// What a stored file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileStatus {
    /// A file of a tablet, of a label's metadata, or the repository's own.
    Whole,
    /// Its upload was begun and not finished.
    Partial,
    /// Nothing that StarRocks writes.
    Foreign,
}

impl FileStatus {
    /// Its name in `system.snapshot_files`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "OK",
            Self::Partial => "PARTIAL",
            Self::Foreign => "FOREIGN",
        }
    }
}

/// A name and the MD5 after its last dot.
pub(super) fn split_md5(name: &str) -> Option<(&str, &str)> {
    let (name, md5) = name.rsplit_once('.')?;
    (md5.len() == 32 && md5.bytes().all(|b| b.is_ascii_hexdigit())).then_some((name, md5))
}

fn read_file(relative: &str, bytes: u64, written_at: Timestamp) -> StoredFile {
    let parts: Vec<&str> = relative.split('/').collect();
    let id = |prefix: &str, part: Option<&&str>| {
        part.and_then(|p| p.strip_prefix(prefix))
            .and_then(|p| p.parse::<i64>().ok())
    };
    let file = parts.last().copied().unwrap_or_default();
    let md5 = split_md5(file).map(|(_, md5)| md5.to_owned());
    // __ss_<label>/__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5/<file>.<md5>
    let ids = [
        id("__db_", parts.get(2)),
        id("__tbl_", parts.get(3)),
        id("__part_", parts.get(4)),
        id("__idx_", parts.get(5)),
    ];
    let tablet_id = id("__", parts.get(6));
    let is_content = parts.len() == 8
        && parts.get(1) == Some(&CONTENT)
        && ids.iter().all(Option::is_some)
        && tablet_id.is_some();
    let is_metadata =
        parts.len() == 2 && (file.starts_with(INFO_PREFIX) || file.starts_with("__meta"));
    let is_known = is_content || is_metadata;
    let status = match (&md5, file.ends_with(PART)) {
        (Some(_), _) if is_known => FileStatus::Whole,
        (None, true) if is_known => FileStatus::Partial,
        (None, _) if relative == "__repo_info" => FileStatus::Whole,
        _ => FileStatus::Foreign,
    };
    let of_content = |id: Option<i64>| id.filter(|_| is_content);
    StoredFile {
        path: relative.to_owned(),
        bytes,
        written_at,
        md5,
        status,
        table_id: of_content(ids[1]),
        partition_id: of_content(ids[2]),
        tablet_id: of_content(tablet_id),
    }
}

impl StarRocksRepository {
    /// The repository of this name at this location. Nothing is touched.
    pub fn new(name: RepositoryName, location: &Location) -> Result<Self, Error> {
        let (store, prefix, local) = location.connect()?;
        Ok(Self {
            name,
            store: store.objects(),
            prefix,
            local,
            has_directories: location.is_file_system(),
            root: tokio::sync::OnceCell::new(),
        })
    }

    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// Its directory.
    pub(super) async fn root_path(&self) -> Result<Path, Error> {
        self.root().await
    }

    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Whether the store has directories of its own.
    pub(super) fn has_directories(&self) -> bool {
        self.has_directories
    }

    /// Where an object is on this machine, if it is there.
    pub(super) fn local_path(&self, path: &Path) -> Option<PathBuf> {
        let below: PathBuf = path
            .prefix_match(&self.prefix)?
            .map(|p| p.as_ref().to_owned())
            .collect();
        Some(self.local.as_ref()?.join(below))
    }

    /// The directory of a label.
    pub(super) async fn label_path(&self, label: &str) -> Result<Path, Error> {
        Self::label_dir(&self.root().await?, label)
    }

    /// Where a file is, by its path below the repository.
    pub(super) async fn path(&self, relative: &str) -> Result<Path, Error> {
        let path = format!("{}/{relative}", self.root().await?);
        Path::parse(&path).map_err(|e| {
            let message = format!("\"{path}\" is no path of an object store");
            Error::new(ErrorKind::InvalidName, message).source(e)
        })
    }

    /// Its directory: the name of StarRocks' ancestor is taken where that one wrote it.
    async fn root(&self) -> Result<Path, Error> {
        self.root
            .get_or_try_init(|| self.find_root())
            .await
            .cloned()
    }

    async fn find_root(&self) -> Result<Path, Error> {
        let old = self
            .prefix
            .clone()
            .join(format!("__palo_repository_{}", self.name));
        match self.store.head(&old.clone().join("__repo_info")).await {
            Ok(_) => Ok(old),
            Err(object_store::Error::NotFound { .. }) => Ok(self
                .prefix
                .clone()
                .join(format!("__starrocks_repository_{}", self.name))),
            Err(e) => Err(storage_error("look at", &old, e)),
        }
    }

    /// Checks that the repository can be reached and is there; answers what `__repo_info` says
    /// about its creation.
    pub async fn ping(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct RepoInfo {
            create_time: String,
        }
        let path = self.root().await?.join("__repo_info");
        let body = self.read(&path).await?;
        let info: RepoInfo = serde_json::from_slice(&body).map_err(|e| {
            Error::new(
                ErrorKind::Corrupted,
                format!("failed to read repo info file: \"{path}\": {e}"),
            )
        })?;
        Ok(info.create_time)
    }

    async fn read(&self, path: &Path) -> Result<bytes::Bytes, Error> {
        let found = self
            .store
            .get(path)
            .await
            .map_err(|e| storage_error("read", path, e))?;
        found
            .bytes()
            .await
            .map_err(|e| storage_error("read", path, e))
    }

    /// Every label, by name.
    pub async fn labels(&self) -> Result<Vec<String>, Error> {
        let root = self.root().await?;
        let listing = self
            .store
            .list_with_delimiter(Some(&root))
            .await
            .map_err(|e| storage_error("list", &root, e))?;
        let mut labels: Vec<String> = listing
            .common_prefixes
            .iter()
            .filter_map(|p| Some(p.filename()?.strip_prefix(LABEL_PREFIX)?.to_owned()))
            .collect();
        labels.sort();
        Ok(labels)
    }

    fn label_dir(root: &Path, label: &str) -> Result<Path, Error> {
        // As it is: StarRocks puts labels into paths without any encoding.
        Path::parse(format!("{root}/{LABEL_PREFIX}{label}")).map_err(|e| {
            Error::new(
                ErrorKind::InvalidName,
                format!("Incorrect label name '{label}'"),
            )
            .source(e)
        })
    }

    /// What stands directly under a label; nothing if there is no such label.
    pub async fn label(&self, label: &str) -> Result<StoredLabel, Error> {
        let directory = Self::label_dir(&self.root().await?, label)?;
        let listing = self
            .store
            .list_with_delimiter(Some(&directory))
            .await
            .map_err(|e| storage_error("list", &directory, e))?;
        let mut out = StoredLabel {
            label: label.to_owned(),
            ..StoredLabel::default()
        };
        for object in listing.objects {
            let Some(file) = object.location.filename() else {
                continue;
            };
            match split_md5(file) {
                Some((name, md5)) if name.starts_with(INFO_PREFIX) => out.infos.push(StoredInfo {
                    timestamp: name[INFO_PREFIX.len()..].to_owned(),
                    md5: md5.to_owned(),
                    bytes: object.size,
                    path: object.location.clone(),
                }),
                Some(("__meta", _)) => {
                    (out.has_meta, out.metas) = (true, out.metas + 1);
                }
                _ => out.strays.push(file.to_owned()),
            }
        }
        out.infos.sort_by(|a, b| a.timestamp.cmp(&b.timestamp));
        out.strays.sort();
        Ok(out)
    }

    /// Reads an `__info_` file and holds it against its checksum; the messages are StarRocks'.
    pub async fn info(&self, stored: &StoredInfo) -> Result<Info, Error> {
        if stored.bytes > INFO_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("\"{}\" has {} bytes", stored.path, stored.bytes),
            ));
        }
        let body = self.read(&stored.path).await?;
        let found = hex::encode(Md5::digest(&body));
        if found != stored.md5.to_ascii_lowercase() {
            let message = format!(
                "md5sum does not equal. local: {found}, remote: {}",
                stored.md5
            );
            return Err(Error::new(ErrorKind::Corrupted, message));
        }
        serde_json::from_slice(&body).map_err(|e| {
            Error::new(
                ErrorKind::Corrupted,
                format!("Failed to read info from local file: {e}"),
            )
        })
    }

    /// Every file of one label, or of the whole repository.
    pub async fn files(
        &self,
        label: Option<&str>,
    ) -> Result<BoxStream<'static, Result<StoredFile, Error>>, Error> {
        let root = self.root().await?;
        let from = match label {
            Some(label) => Self::label_dir(&root, label)?,
            None => root.clone(),
        };
        let (store, shown) = (self.store.clone(), from.clone());
        let listing = store
            .list(Some(&from))
            .map_err(move |e| storage_error("list", &shown, e));
        let relative = move |object: ObjectMeta| {
            let path = object.location.as_ref();
            let relative = path
                .strip_prefix(root.as_ref())
                .unwrap_or(path)
                .trim_start_matches('/');
            let written_at = Timestamp(object.last_modified.timestamp_millis());
            read_file(relative, object.size, written_at)
        };
        Ok(listing.map_ok(relative).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "0cc175b9c0f1b6a831c399e269772661";

    #[test]
    fn a_path_tells_what_a_file_is() {
        let content = "__ss_l/__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5/";
        for (path, status, tablet) in [
            (
                format!("{content}0200_0.dat.{MD5}"),
                FileStatus::Whole,
                Some(5),
            ),
            (format!("{content}5.hdr.part"), FileStatus::Partial, Some(5)),
            (format!("{content}5.hdr"), FileStatus::Foreign, Some(5)),
            (
                format!("{content}deeper/x.{MD5}"),
                FileStatus::Foreign,
                None,
            ),
            (
                format!("__ss_l/__ss_content/__db_x/__tbl_2/__part_3/__idx_4/__5/f.{MD5}"),
                FileStatus::Foreign,
                None,
            ),
            (format!("__ss_l/__meta.{MD5}"), FileStatus::Whole, None),
            (
                format!("__ss_l/__info_2026-01-01-00-00-00-000.{MD5}"),
                FileStatus::Whole,
                None,
            ),
            (
                "__ss_l/__info_2026-01-01-00-00-00-000.part".into(),
                FileStatus::Partial,
                None,
            ),
            ("__ss_l/notes.txt".into(), FileStatus::Foreign, None),
            ("__repo_info".into(), FileStatus::Whole, None),
        ] {
            let file = read_file(&path, 1, Timestamp(0));
            assert_eq!((file.status, file.tablet_id), (status, tablet), "{path}");
        }
    }

    #[test]
    fn both_forms_of_info_are_read() {
        let old = r#"{"name":"l","database":"d","id":1,"backup_time":1675752353143,"backup_result":"succeed","meta_version":92,
            "starrocks_meta_version":4,"backup_objects":{"t":{"id":2,"partitions":{"p":{"id":3,"version":7,"version_hash":0,
            "indexes":{"t":{"id":4,"schema_hash":1,"tablets":{"5":["a.b"]},"tablets_order":["5"]}}}}}}}"#;
        let new = r#"{"name":"l","database":"d","id":1,"backup_time":1675752353143,"backup_result":"succeed","meta_version":92,
            "starrocks_meta_version":4,"cluster_id":77,"ttl":"7 DAY","finish_time":5,"expire_time":6,
            "backup_objects":{"v":{"id":9,"partitions":{}},"t":{"id":2,"autoIncrementId":8,"partitions":{"p":{"id":3,"version":7,
            "version_hash":0,"indexes":{},"subPartitions":{"30":{"id":30,"version":7,"indexes":{"t":{"id":4,"schema_hash":1,
            "tablets":{"5":[]},"tablets_order":[5]}}}}}}}}}"#;
        let (old, new): (Info, Info) = (
            serde_json::from_str(old).expect("old"),
            serde_json::from_str(new).expect("new"),
        );
        assert_eq!((old.counts(), new.counts()), ((1, 1, 0), (1, 1, 1)));
        assert_eq!(
            (
                old.names().partitions.get(&3),
                new.names().partitions.get(&30)
            ),
            (Some(&"p"), Some(&"p"))
        );
        assert_eq!(
            (
                old.tablets().collect::<Vec<_>>(),
                new.tablets().collect::<Vec<_>>()
            ),
            (vec![5], vec![5])
        );
        assert!(
            new.details().contains("\"autoIncrementId\": 8") && !new.details().contains("\"id\""),
            "{}",
            new.details()
        );
    }
}
