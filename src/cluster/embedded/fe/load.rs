//! The metastore in memory, read from its database.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction};

use super::{VIEWS, ids};
use crate::cluster::embedded::metastore::{Database, Metastore, Partition, Table, Tablet, View};
use crate::error::Error;
use crate::job::DataFile;
use crate::names::*;
use crate::schema::TableSchema;
use crate::sqlite::{from_json, sql_error};

pub(super) fn load_metastore(transaction: &Transaction<'_>) -> Result<Metastore, Error> {
    let mut touched: Vec<TableId> = ids(transaction, "SELECT table_id FROM tables")?
        .into_iter()
        .map(TableId)
        .collect();
    touched.push(VIEWS);
    refreshed(transaction, &Metastore::default(), &touched)
}

/// The image after a transaction: the list of databases anew, the touched tables anew, everything
/// else shared. Locks are few and read as a whole.
pub(super) fn refreshed(
    transaction: &Transaction<'_>,
    before: &Metastore,
    touched: &[TableId],
) -> Result<Metastore, Error> {
    let mut metastore = Metastore {
        garbage_seen: before.garbage_seen,
        ..Metastore::default()
    };
    let newest: Option<i64> = transaction
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'garbage'",
            [],
            |r| r.get(0),
        )
        .optional()
        .map_err(sql_error)?;
    metastore.garbage_seen = metastore.garbage_seen.max(newest.unwrap_or(0));
    let mut locks = HashSet::new();
    {
        let mut select = transaction
            .prepare_cached("SELECT database_name, table_name FROM restore_locks")
            .map_err(sql_error)?;
        let mut rows = select.query([]).map_err(sql_error)?;
        while let Some(r) = rows.next().map_err(sql_error)? {
            locks.insert((
                r.get::<_, String>(0).map_err(sql_error)?,
                r.get::<_, String>(1).map_err(sql_error)?,
            ));
        }
    }
    let mut select = transaction
        .prepare_cached("SELECT database_id, name, created_at FROM databases ORDER BY name")
        .map_err(sql_error)?;
    let mut rows = select.query([]).map_err(sql_error)?;
    while let Some(r) = rows.next().map_err(sql_error)? {
        let name: String = r.get(1).map_err(sql_error)?;
        let known = before.databases.get(&name);
        let mut tables: BTreeMap<String, Arc<Table>> =
            known.map(|k| k.tables.clone()).unwrap_or_default();
        let id = r.get(0).map_err(sql_error)?;
        let views = if touched.contains(&VIEWS) {
            load_views(transaction, id)?
        } else {
            known.map(|k| k.views.clone()).unwrap_or_default()
        };
        tables.retain(|_, table| !touched.contains(&table.id));
        for (table_name, table) in &mut tables {
            let locked = locks.contains(&(name.clone(), table_name.clone()));
            if table.locked != locked {
                *table = Arc::new(Table {
                    locked,
                    ..(**table).clone()
                });
            }
        }
        let database = Database {
            id,
            name: DatabaseName::new(name.clone())?,
            created_at: Timestamp(r.get(2).map_err(sql_error)?),
            tables,
            views,
        };
        metastore.databases.insert(name, Arc::new(database));
    }
    for id in touched.iter().filter(|id| **id != VIEWS) {
        if let Some(mut table) = load_table(transaction, *id)? {
            table.locked = locks.contains(&(table.database.to_string(), table.name.to_string()));
            let database = metastore
                .databases
                .get_mut(table.database.as_str())
                .expect("a table's database was read");
            Arc::make_mut(database)
                .tables
                .insert(table.name.to_string(), Arc::new(table));
        }
    }
    metastore.names_version = before.names_version + u64::from(!metastore.has_names_of(before));
    Ok(metastore)
}

fn load_views(
    transaction: &Transaction<'_>,
    database: i64,
) -> Result<BTreeMap<String, Arc<View>>, Error> {
    let mut select = transaction
        .prepare_cached(
            "SELECT name, definition, created_at FROM views WHERE database_id = ?1 ORDER BY name",
        )
        .map_err(sql_error)?;
    let mut rows = select.query([database]).map_err(sql_error)?;
    let mut views = BTreeMap::new();
    while let Some(r) = rows.next().map_err(sql_error)? {
        let name: String = r.get(0).map_err(sql_error)?;
        let view = View {
            name: TableName::new(name.clone())?,
            definition: from_json(&r.get::<_, String>(1).map_err(sql_error)?)?,
            created_at: Timestamp(r.get(2).map_err(sql_error)?),
        };
        views.insert(name, Arc::new(view));
    }
    Ok(views)
}

fn load_table(transaction: &Transaction<'_>, id: TableId) -> Result<Option<Table>, Error> {
    let row = transaction
        .query_row(
            "SELECT d.name, t.name, t.schema, t.replication_num, t.created_at
             FROM tables t JOIN databases d USING (database_id) WHERE t.table_id = ?1",
            [id.0],
            |r| {
                Ok((
                    r.get::<_, String>(0)?,
                    r.get::<_, String>(1)?,
                    r.get::<_, String>(2)?,
                    r.get::<_, u16>(3)?,
                    r.get::<_, i64>(4)?,
                ))
            },
        )
        .optional()
        .map_err(sql_error)?;
    let Some((database, name, schema, replication_num, created_at)) = row else {
        return Ok(None);
    };
    let schema: TableSchema = from_json(&schema)?;
    let mut partitions = Vec::new();
    let mut select = transaction
        .prepare_cached(
            "SELECT partition_id, name, bounds, version, version_at FROM partitions WHERE table_id = ?1 ORDER BY partition_id",
        )
        .map_err(sql_error)?;
    let mut rows = select.query([id.0]).map_err(sql_error)?;
    while let Some(r) = rows.next().map_err(sql_error)? {
        let partition_id = PartitionId(r.get(0).map_err(sql_error)?);
        partitions.push(Arc::new(Partition {
            id: partition_id,
            name: PartitionName::new(r.get::<_, String>(1).map_err(sql_error)?)?,
            bounds: from_json(&r.get::<_, String>(2).map_err(sql_error)?)?,
            version: r.get(3).map_err(sql_error)?,
            version_at: Timestamp(r.get(4).map_err(sql_error)?),
            tablets: load_tablets(transaction, partition_id)?,
        }));
    }
    crate::cluster::embedded::sort_partitions(&mut partitions);
    Ok(Some(Table {
        id,
        database: DatabaseName::new(database)?,
        name: TableName::new(name)?,
        schema: Arc::new(schema),
        replication_num,
        created_at: Timestamp(created_at),
        partitions,
        locked: false,
    }))
}

fn load_tablets(
    transaction: &Transaction<'_>,
    partition: PartitionId,
) -> Result<Vec<Tablet>, Error> {
    let mut tablets: Vec<Tablet> = Vec::new();
    let mut select = transaction
        .prepare_cached(
            "SELECT t.tablet_id, t.bucket, r.backend_id FROM tablets t JOIN replicas r USING (tablet_id)
             WHERE t.partition_id = ?1 ORDER BY t.bucket, r.backend_id",
        )
        .map_err(sql_error)?;
    let mut rows = select.query([partition.0]).map_err(sql_error)?;
    while let Some(r) = rows.next().map_err(sql_error)? {
        let id = TabletId(r.get(0).map_err(sql_error)?);
        let backend = BackendId(r.get(2).map_err(sql_error)?);
        match tablets.last_mut() {
            Some(last) if last.id == id => last.replicas.push(backend),
            _ => tablets.push(Tablet {
                id,
                bucket: r.get(1).map_err(sql_error)?,
                replicas: vec![backend],
                files: Vec::new(),
            }),
        }
    }
    // All at once: most tablets of a large table have few files or none.
    let places: HashMap<i64, usize> = tablets
        .iter()
        .enumerate()
        .map(|(place, tablet)| (tablet.id.0, place))
        .collect();
    let mut select = transaction
        .prepare_cached(
            "SELECT f.tablet_id, f.sha256, f.bytes, f.rows FROM tablets t JOIN files f USING (tablet_id)
             WHERE t.partition_id = ?1 ORDER BY f.tablet_id, f.file_id",
        )
        .map_err(sql_error)?;
    let mut rows = select.query([partition.0]).map_err(sql_error)?;
    while let Some(r) = rows.next().map_err(sql_error)? {
        let file = DataFile {
            sha256: Sha256::new(r.get::<_, String>(1).map_err(sql_error)?)?,
            bytes: r.get::<_, i64>(2).map_err(sql_error)? as u64,
            rows: r.get::<_, i64>(3).map_err(sql_error)? as u64,
        };
        if let Some(place) = places.get(&r.get(0).map_err(sql_error)?) {
            tablets[*place].files.push(file);
        }
    }
    Ok(tablets)
}
