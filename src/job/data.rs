//! The values that events and manifests carry: plans, tablets, files, failures.
//!
//! They are serialized into the journal and into manifests, so fields are added, never changed.

mod failure;

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

pub use self::failure::Failure;
use crate::names::*;
use crate::schema::{Bounds, TableSchema, ViewDefinition};

/// One immutable data file, named by its content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DataFile {
    /// Of its bytes.
    pub sha256: Sha256,
    pub bytes: u64,
    pub rows: u64,
}

/// Amounts of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub files: u64,
    pub bytes: u64,
}

impl Volume {
    pub fn of<'a>(files: impl IntoIterator<Item = &'a DataFile>) -> Self {
        files.into_iter().fold(Self::default(), |v, f| Self {
            files: v.files + 1,
            bytes: v.bytes.saturating_add(f.bytes),
        })
    }

    pub fn add(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What a finished transfer moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Everything the task was about.
    pub total: Volume,
    /// The part that was not at its destination already.
    pub new: Volume,
}

/// What a task works on and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub tablet_id: TabletId,
    pub backend_id: BackendId,
}

/// Which objects a backup takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRequest {
    /// Tables with their partitions; no partitions means all of them.
    pub objects: Vec<BackupObject>,
    #[serde(default)]
    pub views: Vec<TableName>,
    /// How long it is kept; `None` is for ever.
    #[serde(default)]
    pub ttl: Option<Ttl>,
    /// The snapshot that it follows, of an incremental backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<SnapshotLabel>,
}

/// A table in a backup request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupObject {
    pub table: TableName,
    /// Only these partitions; empty means all.
    pub partitions: Vec<PartitionName>,
}

/// Which objects a restore takes, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    pub timestamp: BackupTimestamp,
    pub objects: Vec<RestoreObject>,
    #[serde(default)]
    pub views: Vec<RestoreView>,
    /// Replicas of each tablet of a new table.
    pub replication_num: u16,
    /// Whether the statement said so; if not, a table that exists keeps its own number.
    pub replication_given: bool,
    /// Kept and shown, without effect.
    pub allow_load: bool,
    /// The database was not there: the job makes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub makes_database: bool,
}

/// A table in a restore request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreObject {
    /// Its name in the snapshot.
    pub table: TableName,
    /// Only these partitions; empty means all.
    pub partitions: Vec<PartitionName>,
    pub alias: Option<TableName>,
}

impl RestoreObject {
    /// The name it will have.
    pub fn target(&self) -> &TableName {
        self.alias.as_ref().unwrap_or(&self.table)
    }
}

/// A view in a restore request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreView {
    /// Its name in the snapshot.
    pub view: TableName,
    pub alias: Option<TableName>,
}

impl RestoreView {
    /// The name it will have.
    pub fn target(&self) -> &TableName {
        self.alias.as_ref().unwrap_or(&self.view)
    }
}

/// A view, in a backup or as a restore will make it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedView {
    pub name: TableName,
    pub definition: ViewDefinition,
}

/// Where in its plan each tablet is: table, partition, bucket. Made when it is first asked for.
#[derive(Clone, Debug, Default)]
struct Places(OnceLock<HashMap<TabletId, [usize; 3]>>);

impl Places {
    fn find(
        &self,
        tablet: TabletId,
        all: impl FnOnce() -> HashMap<TabletId, [usize; 3]>,
    ) -> Option<[usize; 3]> {
        self.0.get_or_init(all).get(&tablet).copied()
    }
}

impl PartialEq for Places {
    /// They follow from the plan.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Places {}

/// The places of tablets that are listed by table and partition.
fn places<'p>(
    tables: impl Iterator<Item: Iterator<Item: Iterator<Item = TabletId>>> + 'p,
) -> HashMap<TabletId, [usize; 3]> {
    let mut places = HashMap::new();
    for (t, partitions) in tables.enumerate() {
        for (p, tablets) in partitions.enumerate() {
            places.extend(
                tablets
                    .enumerate()
                    .map(|(bucket, tablet)| (tablet, [t, p, bucket])),
            );
        }
    }
    places
}

/// What a backup will contain: fixed when PENDING ends, at one instant of the metastore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupPlan {
    pub tables: Vec<PlannedTable>,
    #[serde(default)]
    pub views: Vec<PlannedView>,
    #[serde(skip)]
    places: Places,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTable {
    pub name: TableName,
    pub table_id: TableId,
    pub schema: TableSchema,
    /// Replicas per tablet.
    pub replication_num: u16,
    /// The chosen partitions.
    pub partitions: Vec<PlannedPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPartition {
    pub name: PartitionName,
    pub partition_id: PartitionId,
    /// The rows it takes.
    pub bounds: Bounds,
    /// The version that is backed up.
    pub version: i64,
    /// Its tablets, by bucket.
    pub tablets: Vec<PlannedTablet>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTablet {
    pub tablet_id: TabletId,
    /// The replica that is read first.
    pub backend_id: BackendId,
    /// Its files at the planned version, in the order they were written.
    pub files: Vec<DataFile>,
}

impl PlannedTablet {
    /// The tablet on its backend.
    pub fn assignment(&self) -> Assignment {
        Assignment {
            tablet_id: self.tablet_id,
            backend_id: self.backend_id,
        }
    }
}

impl BackupPlan {
    pub fn new(tables: Vec<PlannedTable>, views: Vec<PlannedView>) -> Self {
        Self {
            tables,
            views,
            places: Places::default(),
        }
    }

    pub fn tablet(&self, id: TabletId) -> Option<&PlannedTablet> {
        let all = || {
            places(self.tables.iter().map(|t| {
                t.partitions
                    .iter()
                    .map(|p| p.tablets.iter().map(|t| t.tablet_id))
            }))
        };
        let [table, partition, bucket] = self.places.find(id, all)?;
        self.tables
            .get(table)?
            .partitions
            .get(partition)?
            .tablets
            .get(bucket)
    }

    /// Every tablet, in order.
    pub fn tablets(&self) -> impl Iterator<Item = &PlannedTablet> {
        self.tables
            .iter()
            .flat_map(|t| &t.partitions)
            .flat_map(|p| &p.tablets)
    }

    /// One snapshot task a tablet; its signature is the tablet's id, as in StarRocks.
    pub fn snapshot_tasks(&self) -> impl Iterator<Item = (TaskId, &PlannedTablet)> {
        self.tablets().map(|t| (TaskId(t.tablet_id.0), t))
    }
}

/// One transfer of one tablet, to or from the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferTask {
    /// Its id, apart from the tablets' ids.
    pub task_id: TaskId,
    pub assignment: Assignment,
    pub planned: Volume,
}

/// One of the transfers of a plan, which are in the order of their ids.
pub fn transfer_task(tasks: &[TransferTask], id: TaskId) -> Option<&TransferTask> {
    tasks
        .binary_search_by_key(&id, |task| task.task_id)
        .ok()
        .map(|place| &tasks[place])
}

/// The manifest that a backup publishes, by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestDigest {
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
    pub bytes: u64,
}

/// What a restore will make: fixed when PENDING ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The manifest it was made from.
    pub manifest: ManifestDigest,
    pub tables: Vec<TargetTable>,
    /// The views, under their new names.
    #[serde(default)]
    pub views: Vec<PlannedView>,
    #[serde(skip)]
    places: Places,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetTable {
    /// Its name in the snapshot.
    pub source: TableName,
    pub name: TableName,
    /// Its id: a new one, or that of the table it goes into.
    pub table_id: TableId,
    /// Whether the table exists already.
    pub exists: bool,
    pub schema: TableSchema,
    /// Replicas per tablet.
    pub replication_num: u16,
    pub partitions: Vec<TargetPartition>,
}

/// A partition of a restore plan: made beside the one it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetPartition {
    pub name: PartitionName,
    pub partition_id: PartitionId,
    /// The partition it takes the place of.
    pub replaces: Option<PartitionId>,
    /// The rows it takes.
    pub bounds: Bounds,
    /// The version in the backup, and the visible version here.
    pub version: i64,
    /// Its tablets, by bucket.
    pub tablets: Vec<TargetTablet>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetTablet {
    pub tablet_id: TabletId,
    /// Where its replicas go.
    pub backends: Vec<BackendId>,
    pub files: Vec<DataFile>,
}

impl TargetTablet {
    /// The tablet on its first backend.
    pub fn assignment(&self) -> Assignment {
        Assignment {
            tablet_id: self.tablet_id,
            backend_id: self.backends.first().copied().unwrap_or(BackendId(0)),
        }
    }
}

impl RestorePlan {
    pub fn new(
        manifest: ManifestDigest,
        tables: Vec<TargetTable>,
        views: Vec<PlannedView>,
    ) -> Self {
        Self {
            manifest,
            tables,
            views,
            places: Places::default(),
        }
    }

    pub fn tablet(&self, id: TabletId) -> Option<&TargetTablet> {
        let all = || {
            places(self.tables.iter().map(|t| {
                t.partitions
                    .iter()
                    .map(|p| p.tablets.iter().map(|t| t.tablet_id))
            }))
        };
        let [table, partition, bucket] = self.places.find(id, all)?;
        self.tables
            .get(table)?
            .partitions
            .get(partition)?
            .tablets
            .get(bucket)
    }

    /// Every tablet, in order.
    pub fn tablets(&self) -> impl Iterator<Item = &TargetTablet> {
        self.tables
            .iter()
            .flat_map(|t| &t.partitions)
            .flat_map(|p| &p.tablets)
    }

    /// One task a tablet that makes room for it.
    pub fn prepare_tasks(&self) -> impl Iterator<Item = (TaskId, &TargetTablet)> {
        self.tablets().map(|t| (TaskId(t.tablet_id.0), t))
    }
}

macro_rules! status_codes {
    ($($name:ident => $text:literal,)*) => {
        /// StarRocks' codes in the Status column.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum StatusCode { $(#[doc = $text] $name,)* }

        impl StatusCode {
            #[cfg(test)]
            pub const ALL: &'static [StatusCode] = &[$(StatusCode::$name,)*];

            /// Its name in the Status column.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The code of this name; COMMON_ERROR for one that no version up to 4.2 has.
            pub fn parse(text: &str) -> Self {
                match text { $($text => Self::$name,)* _ => Self::CommonError }
            }
        }
    };
}

status_codes! {
    CommonError => "COMMON_ERROR",
    Timeout => "TIMEOUT",
    NotFound => "NOT_FOUND",
    BadFile => "BAD_FILE",
    BadReplace => "BAD_REPLACE",
    CreateRemotePathFailed => "CREATE_REMOTE_PATH_FAILED",
    IsDir => "IS_DIR",
    IsFile => "IS_FILE",
    BadConnection => "BAD_CONNECTION",
    VersionAlreadyMerged => "OLAP_VERSION_ALREADY_MERGED",
    Unsupported => "UNSUPPORTED",
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A table of one partition with these tablets, each without files.
    fn table_of(tablets: &[i64]) -> PlannedTable {
        let tablets: Vec<_> = tablets
            .iter()
            .map(|id| serde_json::json!({"tablet_id": id, "backend_id": 1, "files": []}))
            .collect();
        let schema = serde_json::json!({
            "columns": [], "key": "duplicate", "key_columns": [], "partitioning": "unpartitioned",
            "distribution": {"columns": [], "buckets": tablets.len()}, "properties": {}, "comment": null,
        });
        let table = serde_json::json!({
            "name": "t", "table_id": 9, "schema": schema, "replication_num": 1,
            "partitions": [{"name": "t", "partition_id": 10, "bounds": "whole", "version": 1, "tablets": tablets}],
        });
        serde_json::from_value(table).expect("a table")
    }

    pub fn plan_of(tablets: &[i64]) -> BackupPlan {
        BackupPlan::new(vec![table_of(tablets)], Vec::new())
    }

    pub fn digest() -> ManifestDigest {
        ManifestDigest {
            sha256: "0".repeat(64),
            bytes: 1,
        }
    }

    pub fn target_of(tablets: &[i64]) -> RestorePlan {
        let source = table_of(tablets);
        let partition = &source.partitions[0];
        let tablet = |t: &PlannedTablet| TargetTablet {
            tablet_id: t.tablet_id,
            backends: vec![t.backend_id],
            files: Vec::new(),
        };
        let target = TargetPartition {
            name: partition.name.clone(),
            partition_id: partition.partition_id,
            replaces: None,
            bounds: partition.bounds.clone(),
            version: 1,
            tablets: partition.tablets.iter().map(tablet).collect(),
        };
        let table = TargetTable {
            source: source.name.clone(),
            name: source.name.clone(),
            table_id: source.table_id,
            exists: false,
            schema: source.schema.clone(),
            replication_num: 1,
            partitions: vec![target],
        };
        RestorePlan::new(digest(), vec![table], Vec::new())
    }

    /// Transfers of these tablets, numbered from 1.
    pub fn transfers(tablets: &[i64]) -> Vec<TransferTask> {
        let of = |(n, tablet): (usize, &i64)| TransferTask {
            task_id: TaskId(n as i64 + 1),
            assignment: Assignment {
                tablet_id: TabletId(*tablet),
                backend_id: BackendId(1),
            },
            planned: Volume { files: 1, bytes: 7 },
        };
        tablets.iter().enumerate().map(of).collect()
    }

    #[test]
    fn tablets_are_found_by_their_ids() {
        let (plan, target) = (plan_of(&[11, 13, 12]), target_of(&[11, 13, 12]));
        for id in [11, 12, 13] {
            assert_eq!(
                plan.tablet(TabletId(id)).map(|t| t.tablet_id),
                Some(TabletId(id))
            );
            assert_eq!(
                target.tablet(TabletId(id)).map(|t| t.tablet_id),
                Some(TabletId(id))
            );
        }
        assert_eq!(plan.tablet(TabletId(14)), None);
        let tasks = transfers(&[11, 12]);
        assert_eq!(
            transfer_task(&tasks, TaskId(2)).map(|t| t.assignment.tablet_id),
            Some(TabletId(12))
        );
        assert_eq!(transfer_task(&tasks, TaskId(3)), None);
    }
}
