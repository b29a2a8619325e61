//! The metastore in memory: an immutable value, replaced as a whole after each commit, and what
//! keeps its files readable.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::job::{DataFile, Volume};
use crate::names::*;
use crate::schema::{Bounds, TableSchema, ViewDefinition};

/// Everything the embedded cluster knows, at one instant.
#[derive(Clone, Debug, Default)]
pub(super) struct Metastore {
    pub databases: BTreeMap<String, Arc<Database>>,
    /// What becomes garbage later has a greater id.
    pub garbage_seen: i64,
    /// Changes with the names of databases, tables and views, and with their columns.
    pub names_version: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Database {
    pub id: i64,
    pub name: DatabaseName,
    pub created_at: Timestamp,
    pub tables: BTreeMap<String, Arc<Table>>,
    pub views: BTreeMap<String, Arc<View>>,
}

#[derive(Clone, Debug)]
pub(super) struct View {
    pub name: TableName,
    pub definition: ViewDefinition,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub id: TableId,
    pub database: DatabaseName,
    pub name: TableName,
    pub schema: Arc<TableSchema>,
    pub replication_num: u16,
    pub created_at: Timestamp,
    /// By range, or by name where there are no ranges.
    pub partitions: Vec<Arc<Partition>>,
    /// The restore that is replacing it.
    pub locked: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Partition {
    pub id: PartitionId,
    pub name: PartitionName,
    pub bounds: Bounds,
    pub version: i64,
    pub version_at: Timestamp,
    pub tablets: Vec<Tablet>,
}

#[derive(Clone, Debug)]
pub(super) struct Tablet {
    pub id: TabletId,
    pub bucket: u32,
    pub replicas: Vec<BackendId>,
    pub files: Vec<DataFile>,
}

impl Partition {
    pub fn volume(&self) -> Volume {
        Volume::of(self.tablets.iter().flat_map(|t| &t.files))
    }
}

/// The entry of this name, or else the only one that differs in case: StarRocks' names have case,
/// PostgreSQL clients fold it.
fn find<'a, T>(map: &'a BTreeMap<String, Arc<T>>, name: &str) -> Option<&'a Arc<T>> {
    map.get(name).or_else(|| {
        let mut alike = map.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        match (alike.next(), alike.next()) {
            (Some((_, only)), None) => Some(only),
            _ => None,
        }
    })
}

impl Database {
    fn has_names_of(&self, other: &Self) -> bool {
        let same_tables = || {
            self.tables
                .iter()
                .zip(&other.tables)
                .all(|((a, here), (b, there))| {
                    a == b
                        && (Arc::ptr_eq(here, there)
                            || here.id == there.id && here.schema == there.schema)
                })
        };
        let same_views = || {
            self.views
                .iter()
                .zip(&other.views)
                .all(|((a, here), (b, there))| {
                    a == b && (Arc::ptr_eq(here, there) || here.definition == there.definition)
                })
        };
        let same_count =
            self.tables.len() == other.tables.len() && self.views.len() == other.views.len();
        self.id == other.id && same_count && same_tables() && same_views()
    }

    /// A name is looked for among tables and views together: exactly, or else as the only one that
    /// differs in case.
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(self.spelled(name)?)
    }

    /// As [`Self::table`].
    pub fn view(&self, name: &str) -> Option<&Arc<View>> {
        self.views.get(self.spelled(name)?)
    }

    fn spelled<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.tables.contains_key(name) || self.views.contains_key(name) {
            return Some(name);
        }
        let names = self.tables.keys().chain(self.views.keys());
        let mut alike = names.filter(|key| key.eq_ignore_ascii_case(name));
        match (alike.next(), alike.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }
}

impl Metastore {
    /// Whether the names and columns are those of another one.
    pub fn has_names_of(&self, other: &Self) -> bool {
        self.databases.len() == other.databases.len()
            && self
                .databases
                .iter()
                .zip(&other.databases)
                .all(|((a, here), (b, there))| a == b && here.has_names_of(there))
    }

    pub fn database(&self, name: &str) -> Option<&Arc<Database>> {
        find(&self.databases, name)
    }

    pub fn table(&self, database: &str, table: &str) -> Option<&Arc<Table>> {
        self.database(database)?.table(table)
    }

    pub fn view(&self, database: &str, view: &str) -> Option<&Arc<View>> {
        self.database(database)?.view(view)
    }

    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.databases.values().flat_map(|d| d.tables.values())
    }
}

/// Who is reading: garbage newer than the oldest reader's metastore is kept.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<BTreeMap<i64, usize>>);

/// Keeps the files of one metastore value readable.
#[derive(Debug)]
pub(super) struct ReadGuard {
    readers: Arc<Readers>,
    garbage_seen: i64,
}

impl Readers {
    /// Takes the current metastore and a guard for it, as one step against [`Self::oldest`].
    pub fn enter(
        self: &Arc<Self>,
        current: impl FnOnce() -> Arc<Metastore>,
    ) -> (Arc<Metastore>, ReadGuard) {
        let mut active = self.0.lock();
        let metastore = current();
        *active.entry(metastore.garbage_seen).or_default() += 1;
        let guard = ReadGuard {
            readers: self.clone(),
            garbage_seen: metastore.garbage_seen,
        };
        (metastore, guard)
    }

    /// Garbage with an id up to this is read by nobody: neither by those who are in, nor by anyone
    /// who enters later.
    pub fn oldest(&self, current: impl FnOnce() -> i64) -> i64 {
        let active = self.0.lock();
        let now = current();
        active.keys().next().map_or(now, |oldest| now.min(*oldest))
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        let mut active = self.readers.0.lock();
        if let Some(count) = active.get_mut(&self.garbage_seen) {
            *count -= 1;
            if *count == 0 {
                active.remove(&self.garbage_seen);
            }
        }
    }
}
