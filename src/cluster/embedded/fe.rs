//! The embedded frontend: the metastore in SQLite, and its image in memory.
//!
//! Every change is one transaction; the image is replaced while the connection is still held, so
//! readers see commits in order and never half of one.

mod load;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use self::load::{load_metastore, refreshed};
use super::be::Backends;
use super::metastore::{Metastore, ReadGuard, Readers, Table};
pub(super) use crate::cluster::{unknown_database, unknown_table};
use crate::error::{Error, ErrorKind};
use crate::job::{DataFile, RestorePlan, TargetTable};
use crate::names::*;
use crate::schema::{PartitionDef, ViewDefinition};
use crate::sqlite::{open_database, sql_error, to_json, transact, transact_then};

const MIGRATIONS: &[&str] = &[
    include_str!("../../../sql/fe/001_initial.sql"),
    include_str!("../../../sql/fe/002_views.sql"),
];

/// Among the touched tables of a change: views were changed. No table has this id.
pub(super) const VIEWS: TableId = TableId(0);

#[derive(Debug)]
pub(super) struct Frontend {
    connection: Arc<Mutex<Connection>>,
    image: Arc<RwLock<Arc<Metastore>>>,
    readers: Arc<Readers>,
}

/// A new or rewritten file of a tablet.
#[derive(Clone, Debug)]
pub(super) struct NewFile {
    pub tablet: TabletId,
    pub file: DataFile,
}

/// What one INSERT or DELETE does to a table.
#[derive(Clone, Debug, Default)]
pub(super) struct TableChange {
    /// The partitions that get a new version, each with the version that the change was made from.
    pub partitions: Vec<(PartitionId, i64)>,
    pub added: Vec<NewFile>,
    pub removed: Vec<NewFile>,
}

impl Frontend {
    /// Opens the metastore, and registers backends by their paths: new ones get ids and
    /// directories, known ones must be among the given ones. `uid` names the cluster if it is new.
    pub fn open(
        path: &Path,
        backend_paths: &[PathBuf],
        uid: &str,
    ) -> Result<(Self, Backends), Error> {
        let mut connection = open_database(path, MIGRATIONS)?;
        // The name first, in a transaction of its own: directories carry it before anything else is
        // committed.
        let transaction = connection.transaction().map_err(sql_error)?;
        let known: Option<String> = transaction
            .query_row("SELECT uid FROM cluster", [], |r| r.get(0))
            .optional()
            .map_err(sql_error)?;
        let uid = match known {
            Some(uid) => uid,
            None => {
                transaction
                    .execute("INSERT INTO cluster VALUES (?1)", [uid])
                    .map_err(sql_error)?;
                uid.to_owned()
            }
        };
        transaction.commit().map_err(sql_error)?;
        let transaction = connection.transaction().map_err(sql_error)?;
        let mut backends: BTreeMap<BackendId, PathBuf> = BTreeMap::new();
        let mut new = Vec::new();
        for path in backend_paths {
            let text = path.to_string_lossy();
            let known: Option<i64> = transaction
                .query_row(
                    "SELECT backend_id FROM backends WHERE path = ?1",
                    [&text],
                    |r| r.get(0),
                )
                .optional()
                .map_err(sql_error)?;
            let id = match known {
                Some(id) => BackendId(id),
                None => {
                    let id = BackendId(next_ids(&transaction, 1)?);
                    transaction
                        .execute("INSERT INTO backends VALUES (?1, ?2)", params![id.0, text])
                        .map_err(sql_error)?;
                    new.push(id);
                    id
                }
            };
            backends.insert(id, path.clone());
        }
        {
            let mut all = transaction
                .prepare("SELECT backend_id, path FROM backends")
                .map_err(sql_error)?;
            let mut rows = all.query([]).map_err(sql_error)?;
            while let Some(row) = rows.next().map_err(sql_error)? {
                let (id, path): (i64, String) = (
                    row.get(0).map_err(sql_error)?,
                    row.get(1).map_err(sql_error)?,
                );
                if !backends.contains_key(&BackendId(id)) {
                    return Err(Error::new(
                        ErrorKind::Configuration,
                        format!("backends leaves out \"{path}\", which this data directory has data on"),
                    )
                    .hint("Name every backend that was ever configured; one that is lost is shown as not alive."));
                }
            }
        }
        let metastore = load_metastore(&transaction)?;
        let backends = Backends::new(uid, backends);
        new.into_iter().try_for_each(|id| backends.format(id))?;
        transaction.commit().map_err(sql_error)?;
        let frontend = Self {
            connection: Arc::new(Mutex::new(connection)),
            image: Arc::new(RwLock::new(Arc::new(metastore))),
            readers: Arc::default(),
        };
        Ok((frontend, backends))
    }

    /// The metastore at this instant, without a guard: for looking things up, not for reading
    /// files.
    pub fn metastore(&self) -> Arc<Metastore> {
        self.image.read().clone()
    }

    /// The metastore at this instant, and what keeps its files readable.
    pub fn read(&self) -> (Arc<Metastore>, ReadGuard) {
        self.readers.enter(|| self.metastore())
    }

    /// Runs a transaction; tables that it names as touched are read again into the image.
    pub async fn change<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>, &Metastore) -> Result<(T, Vec<TableId>), Error>
            + Send
            + 'static,
    {
        let (before, image) = (self.image.clone(), self.image.clone());
        transact_then(
            &self.connection,
            move |t| {
                let current = before.read().clone();
                let (out, touched) = work(t, &current)?;
                Ok((out, refreshed(t, &current, &touched)?))
            },
            move |(out, metastore)| {
                *image.write() = Arc::new(metastore);
                out
            },
        )
        .await
    }

    /// Runs a transaction that leaves the image as it is.
    pub async fn query<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        transact(&self.connection, work).await
    }

    /// Runs each of some changes by itself and takes it back: what it would come to.
    pub async fn preview<T, F>(&self, changes: Vec<F>) -> Result<Vec<Result<T, Error>>, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>, &Metastore) -> Result<T, Error> + Send + 'static,
    {
        let image = self.image.clone();
        self.query(move |t| {
            let metastore = image.read().clone();
            let previews = changes.into_iter().map(|change| {
                t.execute_batch("SAVEPOINT preview").map_err(sql_error)?;
                let came_to = change(t, &metastore);
                t.execute_batch("ROLLBACK TO preview; RELEASE preview")
                    .map_err(sql_error)?;
                Ok(came_to)
            });
            previews.collect()
        })
        .await
    }

    /// Garbage that nothing reads and nothing pins: its ids with what it is.
    pub async fn collectable(&self) -> Result<Vec<(i64, TabletId, Option<String>)>, Error> {
        let unread = self.readers.oldest(|| self.metastore().garbage_seen);
        self.query(move |t| {
            let pinned: Option<i64> = t.query_row("SELECT min(garbage_after) FROM pins", [], |r| r.get(0)).map_err(sql_error)?;
            let upto = pinned.map_or(unread, |p| p.min(unread));
            let mut select = t
                .prepare_cached("SELECT garbage_id, tablet_id, sha256 FROM garbage WHERE garbage_id <= ?1 ORDER BY garbage_id")
                .map_err(sql_error)?;
            let rows = select.query_map([upto], |r| Ok((r.get(0)?, TabletId(r.get(1)?), r.get(2)?))).map_err(sql_error)?;
            rows.collect::<Result<_, _>>().map_err(sql_error)
        })
        .await
    }

    /// Forgets garbage whose files are gone.
    pub async fn collected(&self, ids: Vec<i64>) -> Result<(), Error> {
        self.query(move |t| {
            let mut delete = t
                .prepare_cached("DELETE FROM garbage WHERE garbage_id = ?1")
                .map_err(sql_error)?;
            for id in ids {
                delete.execute([id]).map_err(sql_error)?;
            }
            Ok(())
        })
        .await
    }

    /// Tablets that exist without a table, and the jobs that hold pins: what start-up must not
    /// sweep away.
    pub async fn held(&self) -> Result<(HashSet<TabletId>, HashSet<String>), Error> {
        self.query(|t| {
            let tablets = ids(
                t,
                "SELECT tablet_id FROM staged_tablets UNION SELECT tablet_id FROM garbage",
            )?;
            let mut select = t.prepare("SELECT uid FROM pins").map_err(sql_error)?;
            let uids = select.query_map([], |r| r.get(0)).map_err(sql_error)?;
            Ok((
                tablets.into_iter().map(TabletId).collect(),
                uids.collect::<Result<_, _>>().map_err(sql_error)?,
            ))
        })
        .await
    }
}

fn ids(transaction: &Transaction<'_>, query: &str) -> Result<Vec<i64>, Error> {
    let mut select = transaction.prepare_cached(query).map_err(sql_error)?;
    let rows = select.query_map([], |r| r.get(0)).map_err(sql_error)?;
    rows.collect::<Result<_, _>>().map_err(sql_error)
}

/// The first of `count` new ids in a row.
pub(super) fn next_ids(transaction: &Transaction<'_>, count: i64) -> Result<i64, Error> {
    transaction
        .query_row(
            "UPDATE next_id SET id = id + ?1 RETURNING id - ?1",
            [count],
            |r| r.get(0),
        )
        .map_err(sql_error)
}

pub(super) fn insert_partition(
    transaction: &Transaction<'_>,
    table: TableId,
    id: PartitionId,
    partition: &PartitionDef,
    version: i64,
    at: Timestamp,
) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT INTO partitions (partition_id, table_id, name, bounds, version, version_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![id.0, table.0, partition.name.as_str(), to_json(&partition.bounds)?, version, at.0],
        )
        .map_err(sql_error)?;
    Ok(())
}

pub(super) fn insert_tablet(
    transaction: &Transaction<'_>,
    partition: PartitionId,
    id: TabletId,
    bucket: usize,
    replicas: &[BackendId],
) -> Result<(), Error> {
    let insert = || {
        transaction
            .prepare_cached(
                "INSERT INTO tablets (tablet_id, partition_id, bucket) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![id.0, partition.0, bucket as i64])?;
        let mut replica = transaction
            .prepare_cached("INSERT INTO replicas (tablet_id, backend_id) VALUES (?1, ?2)")?;
        replicas
            .iter()
            .try_for_each(|backend| replica.execute([id.0, backend.0]).map(drop))
    };
    insert().map_err(sql_error)
}

pub(super) fn insert_file(
    transaction: &Transaction<'_>,
    tablet: TabletId,
    file: &DataFile,
) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "INSERT INTO files (tablet_id, sha256, bytes, rows) VALUES (?1, ?2, ?3, ?4)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                tablet.0,
                &*file.sha256,
                file.bytes as i64,
                file.rows as i64
            ])
        })
        .map_err(sql_error)?;
    Ok(())
}

/// Marks all tablets of a partition as garbage and removes the partition.
pub(super) fn drop_partition(
    transaction: &Transaction<'_>,
    partition: PartitionId,
) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT INTO garbage (tablet_id) SELECT tablet_id FROM tablets WHERE partition_id = ?1",
            [partition.0],
        )
        .map_err(sql_error)?;
    transaction
        .execute(
            "DELETE FROM partitions WHERE partition_id = ?1",
            [partition.0],
        )
        .map_err(sql_error)?;
    Ok(())
}

pub(super) fn drop_table(transaction: &Transaction<'_>, table: &Table) -> Result<(), Error> {
    for partition in &table.partitions {
        drop_partition(transaction, partition.id)?;
    }
    transaction
        .execute("DELETE FROM tables WHERE table_id = ?1", [table.id.0])
        .map_err(sql_error)?;
    Ok(())
}

pub(super) fn apply_change(
    transaction: &Transaction<'_>,
    change: &TableChange,
    at: Timestamp,
) -> Result<(), Error> {
    for new in &change.removed {
        transaction
            .execute(
                "DELETE FROM files WHERE tablet_id = ?1 AND sha256 = ?2",
                params![new.tablet.0, &*new.file.sha256],
            )
            .map_err(sql_error)?;
        transaction
            .execute(
                "INSERT INTO garbage (tablet_id, sha256) VALUES (?1, ?2)",
                params![new.tablet.0, &*new.file.sha256],
            )
            .map_err(sql_error)?;
    }
    for new in &change.added {
        insert_file(transaction, new.tablet, &new.file)?;
    }
    for (partition, _) in &change.partitions {
        transaction
            .execute("UPDATE partitions SET version = version + 1, version_at = ?2 WHERE partition_id = ?1", [partition.0, at.0])
            .map_err(sql_error)?;
    }
    Ok(())
}

/// The swap of a restore: new tables appear, replaced partitions go, locks go. All of it, or none;
/// and only once.
pub(super) fn apply_swap(
    transaction: &Transaction<'_>,
    metastore: &Metastore,
    database: &DatabaseName,
    uid: &str,
    plan: &RestorePlan,
    at: Timestamp,
) -> Result<Vec<TableId>, Error> {
    let done: Option<i64> = transaction
        .query_row("SELECT 1 FROM swaps WHERE uid = ?1", [uid], |r| r.get(0))
        .optional()
        .map_err(sql_error)?;
    if done.is_some() {
        return Ok(Vec::new());
    }
    let home = metastore
        .database(database.as_str())
        .ok_or_else(|| unknown_database(database))?;
    for table in &plan.tables {
        if table.exists {
            // The lock kept everyone else away, so a missing table means the metastore was tampered
            // with.
            let found = metastore
                .table(database.as_str(), table.name.as_str())
                .filter(|t| t.id == table.table_id);
            found.ok_or_else(|| {
                Error::internal(format!("table {} changed under its restore", table.name))
            })?;
        } else {
            insert_table(transaction, home.id, table, at)?;
        }
        for partition in &table.partitions {
            if let Some(replaced) = partition.replaces {
                drop_partition(transaction, replaced)?;
            }
            let def = PartitionDef {
                name: partition.name.clone(),
                bounds: partition.bounds.clone(),
            };
            insert_partition(
                transaction,
                table.table_id,
                partition.partition_id,
                &def,
                partition.version,
                at,
            )?;
            for (bucket, tablet) in partition.tablets.iter().enumerate() {
                insert_tablet(
                    transaction,
                    partition.partition_id,
                    tablet.tablet_id,
                    bucket,
                    &tablet.backends,
                )?;
                for file in &tablet.files {
                    insert_file(transaction, tablet.tablet_id, file)?;
                }
            }
        }
    }
    for view in &plan.views {
        put_view(transaction, home.id, &view.name, &view.definition, at)?;
    }
    transaction
        .execute("DELETE FROM staged_tablets WHERE uid = ?1", [uid])
        .map_err(sql_error)?;
    transaction
        .execute("DELETE FROM restore_locks WHERE uid = ?1", [uid])
        .map_err(sql_error)?;
    transaction
        .execute("INSERT INTO swaps (uid) VALUES (?1)", [uid])
        .map_err(sql_error)?;
    Ok(plan
        .tables
        .iter()
        .map(|t| t.table_id)
        .chain([VIEWS])
        .collect())
}

/// Makes a view, or replaces the one of this name.
pub(super) fn put_view(
    transaction: &Transaction<'_>,
    database: i64,
    name: &TableName,
    definition: &ViewDefinition,
    at: Timestamp,
) -> Result<(), Error> {
    transaction
        .execute(
            "DELETE FROM views WHERE database_id = ?1 AND name = ?2",
            params![database, name.as_str()],
        )
        .map_err(sql_error)?;
    let id = next_ids(transaction, 1)?;
    transaction
        .execute(
            "INSERT INTO views (view_id, database_id, name, definition, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![id, database, name.as_str(), to_json(definition)?, at.0],
        )
        .map_err(sql_error)?;
    Ok(())
}

fn insert_table(
    transaction: &Transaction<'_>,
    database: i64,
    table: &TargetTable,
    at: Timestamp,
) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT INTO tables (table_id, database_id, name, schema, replication_num, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![table.table_id.0, database, table.name.as_str(), to_json(&table.schema)?, table.replication_num, at.0],
        )
        .map_err(sql_error)?;
    Ok(())
}
