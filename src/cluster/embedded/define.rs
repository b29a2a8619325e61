//! Definitions, each one transaction of the metastore.

use std::sync::Arc;

use rusqlite::{Transaction, params};

use super::fe::{
    self, drop_partition, drop_table, insert_partition, insert_tablet, next_ids, unknown_database,
    unknown_table,
};
use super::metastore::{Metastore, Table};
use super::{EmbeddedCluster, no_database, refuse_locked};
use crate::error::{Error, ErrorKind};
use crate::names::*;
use crate::schema::{PartitionDef, Partitioning, TableSchema, ViewDefinition};
use crate::sqlite::{sql_error, to_json};
use crate::statement::{Definition, PartitionText, Qualified};

/// What a transaction answers: notices, and the tables it touched.
type Done = Result<(Vec<String>, Vec<TableId>), Error>;

const NOTHING: Done = Ok((Vec::new(), Vec::new()));

pub(super) fn brokers(transaction: &Transaction<'_>) -> Result<Vec<(String, String)>, Error> {
    let mut select = transaction
        .prepare_cached("SELECT name, host FROM brokers ORDER BY name, host")
        .map_err(sql_error)?;
    let rows = select
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .map_err(sql_error)?;
    rows.collect::<Result<_, _>>().map_err(sql_error)
}

impl EmbeddedCluster {
    pub(super) async fn carry_out(
        &self,
        definition: &Definition,
        alive: Vec<BackendId>,
    ) -> Result<Vec<String>, Error> {
        let at = self.inner.env.now();
        let definition = definition.clone();
        let backends = self.inner.backends.len();
        self.inner
            .frontend
            .change(move |t, metastore| match definition {
                Definition::CreateDatabase {
                    name,
                    if_not_exists,
                } => create_database(t, metastore, &name, if_not_exists, at),
                Definition::DropDatabase { name, if_exists } => {
                    drop_database(t, metastore, &name, if_exists)
                }
                Definition::CreateTable {
                    table,
                    schema,
                    partitions,
                    if_not_exists,
                } => {
                    let new = NewTable {
                        table,
                        schema: *schema,
                        partitions,
                        alive,
                        backends,
                    };
                    create_table(t, metastore, new, if_not_exists, at)
                }
                Definition::DropTable { table, if_exists } => match find(metastore, &table) {
                    Ok(found) => {
                        refuse_locked(&found)?;
                        drop_table(t, &found)?;
                        Ok((Vec::new(), vec![found.id]))
                    }
                    Err(_) if if_exists => Ok((
                        vec![format!("table \"{}\" does not exist, skipping", table.name)],
                        Vec::new(),
                    )),
                    Err(e) => Err(e),
                },
                Definition::CreateView {
                    view,
                    definition,
                    or_replace,
                    if_not_exists,
                } => create_view(
                    t,
                    metastore,
                    &view,
                    &definition,
                    or_replace,
                    if_not_exists,
                    at,
                ),
                Definition::DropView { view, if_exists } => {
                    drop_view(t, metastore, &view, if_exists)
                }
                Definition::TruncateTable { table, partitions } => {
                    let table = find(metastore, &table)?;
                    truncate(t, &table, &partitions, at)
                }
                Definition::AddPartition {
                    table,
                    partitions,
                    if_not_exists,
                } => {
                    let table = find(metastore, &table)?;
                    add_partitions(t, &table, &partitions, if_not_exists, &alive, at)
                }
                Definition::DropPartition {
                    table,
                    partition,
                    if_exists,
                } => {
                    let table = find(metastore, &table)?;
                    refuse_locked(&table)?;
                    match table.partitions.iter().find(|p| p.name == partition) {
                        Some(found) if table.schema.partitioning != Partitioning::Unpartitioned => {
                            drop_partition(t, found.id)?;
                            Ok((Vec::new(), vec![table.id]))
                        }
                        Some(_) => Err(Error::new(
                            ErrorKind::InvalidDefinition,
                            "the only partition of an unpartitioned table cannot be dropped",
                        )
                        .hint("TRUNCATE TABLE empties it.")),
                        None if if_exists => Ok((
                            vec![format!(
                                "partition \"{partition}\" does not exist, skipping"
                            )],
                            Vec::new(),
                        )),
                        None => Err(unknown_partition(&partition, &table)),
                    }
                }
                Definition::AddBroker { name, hosts } => add_broker(t, &name, &hosts),
                Definition::DropBroker { name, hosts } => drop_broker(t, &name, &hosts),
            })
            .await
    }
}

pub(super) fn unknown_partition(partition: &PartitionName, table: &Table) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("Unknown partition {partition} in table {}", table.name),
    )
    .hint(format!("See SHOW PARTITIONS FROM {}.", table.name))
}

fn find(metastore: &Metastore, table: &Qualified<TableName>) -> Result<Arc<Table>, Error> {
    let database = table.database.as_ref().ok_or_else(no_database)?;
    metastore
        .database(database.as_str())
        .ok_or_else(|| unknown_database(database))?;
    metastore
        .table(database.as_str(), table.name.as_str())
        .cloned()
        .ok_or_else(|| unknown_table(database, &table.name))
}

pub(super) fn check_database_name(name: &DatabaseName) -> Result<(), Error> {
    if ["system", "information_schema", "pg_catalog"]
        .iter()
        .any(|reserved| name.as_str().eq_ignore_ascii_case(reserved))
    {
        return Err(Error::new(
            ErrorKind::InvalidName,
            format!("the database name \"{name}\" is reserved"),
        ));
    }
    Ok(())
}

pub(super) fn create_database(
    t: &Transaction<'_>,
    metastore: &Metastore,
    name: &DatabaseName,
    if_not_exists: bool,
    at: Timestamp,
) -> Done {
    if metastore.databases.contains_key(name.as_str()) {
        if if_not_exists {
            return Ok((
                vec![format!("database \"{name}\" already exists, skipping")],
                Vec::new(),
            ));
        }
        return Err(Error::new(
            ErrorKind::DuplicateSchema,
            format!("Can't create database '{name}'; database exists"),
        ));
    }
    check_database_name(name)?;
    let id = next_ids(t, 1)?;
    t.execute(
        "INSERT INTO databases (database_id, name, created_at) VALUES (?1, ?2, ?3)",
        params![id, name.as_str(), at.0],
    )
    .map_err(sql_error)?;
    NOTHING
}

fn drop_database(
    t: &Transaction<'_>,
    metastore: &Metastore,
    name: &DatabaseName,
    if_exists: bool,
) -> Done {
    let Some(database) = metastore.databases.get(name.as_str()) else {
        if if_exists {
            return Ok((
                vec![format!("database \"{name}\" does not exist, skipping")],
                Vec::new(),
            ));
        }
        return Err(unknown_database(name));
    };
    let locks: i64 = t
        .query_row(
            "SELECT count(*) FROM restore_locks WHERE database_name = ?1",
            [name.as_str()],
            |r| r.get(0),
        )
        .map_err(sql_error)?;
    if locks > 0 {
        return Err(Error::new(
            ErrorKind::ObjectInUse,
            format!("database \"{name}\" is being restored into"),
        )
        .hint("Wait until SHOW RESTORE shows the job FINISHED, or CANCEL RESTORE."));
    }
    for table in database.tables.values() {
        drop_table(t, table)?;
    }
    t.execute("DELETE FROM views WHERE database_id = ?1", [database.id])
        .map_err(sql_error)?;
    t.execute(
        "DELETE FROM databases WHERE database_id = ?1",
        [database.id],
    )
    .map_err(sql_error)?;
    Ok((
        Vec::new(),
        database
            .tables
            .values()
            .map(|table| table.id)
            .chain([fe::VIEWS])
            .collect(),
    ))
}

fn create_view(
    t: &Transaction<'_>,
    metastore: &Metastore,
    view: &Qualified<TableName>,
    definition: &ViewDefinition,
    or_replace: bool,
    if_not_exists: bool,
    at: Timestamp,
) -> Done {
    let database = view.database.as_ref().ok_or_else(no_database)?;
    let home = metastore
        .database(database.as_str())
        .ok_or_else(|| unknown_database(database))?;
    let is_table = home.tables.contains_key(view.name.as_str());
    if is_table || (home.views.contains_key(view.name.as_str()) && !or_replace) {
        if if_not_exists {
            return Ok((
                vec![format!("view \"{}\" already exists, skipping", view.name)],
                Vec::new(),
            ));
        }
        return Err(Error::new(
            ErrorKind::DuplicateTable,
            format!("Table '{}' already exists", view.name),
        ));
    }
    refuse_reserved(t, &home.name, &view.name)?;
    fe::put_view(t, home.id, &view.name, definition, at)?;
    Ok((Vec::new(), vec![fe::VIEWS]))
}

fn drop_view(
    t: &Transaction<'_>,
    metastore: &Metastore,
    view: &Qualified<TableName>,
    if_exists: bool,
) -> Done {
    let database = view.database.as_ref().ok_or_else(no_database)?;
    let home = metastore
        .database(database.as_str())
        .ok_or_else(|| unknown_database(database))?;
    let Some(found) = metastore.view(database.as_str(), view.name.as_str()) else {
        if metastore
            .table(database.as_str(), view.name.as_str())
            .is_some()
        {
            return Err(Error::new(
                ErrorKind::WrongObjectType,
                format!("\"{}\" is not a view", view.name),
            )
            .hint("Use DROP TABLE."));
        }
        if if_exists {
            return Ok((
                vec![format!("view \"{}\" does not exist, skipping", view.name)],
                Vec::new(),
            ));
        }
        return Err(unknown_table(database, &view.name));
    };
    refuse_reserved(t, &home.name, &found.name)?;
    t.execute(
        "DELETE FROM views WHERE database_id = ?1 AND name = ?2",
        params![home.id, found.name.as_str()],
    )
    .map_err(sql_error)?;
    Ok((Vec::new(), vec![fe::VIEWS]))
}

struct NewTable {
    table: Qualified<TableName>,
    schema: TableSchema,
    partitions: Vec<PartitionDef>,
    alive: Vec<BackendId>,
    backends: usize,
}

fn create_table(
    t: &Transaction<'_>,
    metastore: &Metastore,
    new: NewTable,
    if_not_exists: bool,
    at: Timestamp,
) -> Done {
    let name = &new.table.name;
    let database = new.table.database.as_ref().ok_or_else(no_database)?;
    let home = metastore
        .database(database.as_str())
        .ok_or_else(|| unknown_database(database))?;
    if home.tables.contains_key(name.as_str()) || home.views.contains_key(name.as_str()) {
        if if_not_exists {
            return Ok((
                vec![format!("table \"{name}\" already exists, skipping")],
                Vec::new(),
            ));
        }
        return Err(Error::new(
            ErrorKind::DuplicateTable,
            format!("Table '{name}' already exists"),
        ));
    }
    refuse_reserved(t, &home.name, name)?;
    let mut notices = Vec::new();
    let wanted = new.schema.replication_num()?;
    let replication_num = match wanted {
        Some(n) if usize::from(n) > new.alive.len() => {
            return Err(too_few_backends(name, n, new.alive.len()));
        }
        Some(n) => n,
        None => {
            let n = new.alive.len().min(3);
            if n < 3 {
                notices.push(format!(
                    "table \"{name}\" gets {n} replicas, because {n} of {} backends are alive",
                    new.backends
                ));
            }
            n as u16
        }
    };
    if replication_num == 0 {
        return Err(too_few_backends(name, 1, 0));
    }
    let mut schema = new.schema;
    schema
        .properties
        .insert("replication_num".into(), replication_num.to_string());
    let buckets = *schema
        .distribution
        .buckets
        .get_or_insert(new.backends.max(1) as u32);
    let id = TableId(next_ids(t, 1)?);
    t.execute(
        "INSERT INTO tables (table_id, database_id, name, schema, replication_num, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![id.0, home.id, name.as_str(), to_json(&schema)?, replication_num, at.0],
    )
    .map_err(sql_error)?;
    for partition in &new.partitions {
        make_partition(t, id, partition, buckets, replication_num, &new.alive, at)?;
    }
    Ok((notices, vec![id]))
}

pub(super) fn too_few_backends(table: &TableName, wanted: u16, alive: usize) -> Error {
    Error::new(
        ErrorKind::InvalidParameter,
        format!("failed to find {wanted} different hosts to create table: {table}"),
    )
    .detail(format!(
        "\"replication_num\" is {wanted}, and {alive} backends are alive"
    ))
    .hint(format!(
        "Use PROPERTIES (\"replication_num\" = \"{}\").",
        alive.max(1)
    ))
}

/// Refuses a name that a restore has reserved.
fn refuse_reserved(
    t: &Transaction<'_>,
    database: &DatabaseName,
    table: &TableName,
) -> Result<(), Error> {
    let reserved: i64 = t
        .query_row(
            "SELECT count(*) FROM restore_locks WHERE database_name = ?1 AND table_name = ?2",
            [database.as_str(), table.as_str()],
            |r| r.get(0),
        )
        .map_err(sql_error)?;
    if reserved > 0 {
        return Err(Error::new(
            ErrorKind::ObjectInUse,
            format!("table \"{table}\" is being restored"),
        )
        .hint("Wait until SHOW RESTORE shows the job FINISHED, or CANCEL RESTORE."));
    }
    Ok(())
}

/// Where the replicas of the n-th tablet go: round and round, so that every backend gets its share.
pub(super) fn place(alive: &[BackendId], n: usize, replication_num: u16) -> Vec<BackendId> {
    (0..usize::from(replication_num).min(alive.len()))
        .map(|r| alive[(n + r) % alive.len()])
        .collect()
}

fn make_partition(
    t: &Transaction<'_>,
    table: TableId,
    partition: &PartitionDef,
    buckets: u32,
    replication_num: u16,
    alive: &[BackendId],
    at: Timestamp,
) -> Result<(), Error> {
    let first = next_ids(t, 1 + i64::from(buckets))?;
    let id = PartitionId(first);
    insert_partition(t, table, id, partition, 1, at)?;
    for bucket in 0..buckets as usize {
        let tablet = TabletId(first + 1 + bucket as i64);
        insert_tablet(
            t,
            id,
            tablet,
            bucket,
            &place(alive, tablet.0 as usize, replication_num),
        )?;
    }
    Ok(())
}

fn add_partitions(
    t: &Transaction<'_>,
    table: &Table,
    texts: &[PartitionText],
    if_not_exists: bool,
    alive: &[BackendId],
    at: Timestamp,
) -> Done {
    refuse_locked(table)?;
    if usize::from(table.replication_num) > alive.len() {
        return Err(too_few_backends(
            &table.name,
            table.replication_num,
            alive.len(),
        ));
    }
    let existing: Vec<PartitionDef> = table
        .partitions
        .iter()
        .map(|p| PartitionDef {
            name: p.name.clone(),
            bounds: p.bounds.clone(),
        })
        .collect();
    let named = texts.iter().find_map(|text| match text {
        PartitionText::One { name, .. } => existing.iter().find(|p| &p.name == name),
        PartitionText::Every { .. } => None,
    });
    if let (true, Some(known)) = (if_not_exists, named) {
        return Ok((
            vec![format!(
                "partition \"{}\" already exists, skipping",
                known.name
            )],
            Vec::new(),
        ));
    }
    let buckets = table.schema.distribution.buckets.unwrap_or(1);
    for partition in PartitionText::resolve(texts, &table.schema, &existing)? {
        make_partition(
            t,
            table.id,
            &partition,
            buckets,
            table.replication_num,
            alive,
            at,
        )?;
    }
    Ok((Vec::new(), vec![table.id]))
}

fn truncate(t: &Transaction<'_>, table: &Table, names: &[PartitionName], at: Timestamp) -> Done {
    refuse_locked(table)?;
    let mut change = fe::TableChange::default();
    for name in names {
        if !table.partitions.iter().any(|p| &p.name == name) {
            return Err(unknown_partition(name, table));
        }
    }
    for partition in table
        .partitions
        .iter()
        .filter(|p| names.is_empty() || names.contains(&p.name))
    {
        change.partitions.push((partition.id, partition.version));
        for tablet in &partition.tablets {
            change
                .removed
                .extend(tablet.files.iter().map(|f| fe::NewFile {
                    tablet: tablet.id,
                    file: f.clone(),
                }));
        }
    }
    fe::apply_change(t, &change, at)?;
    Ok((Vec::new(), vec![table.id]))
}

fn add_broker(t: &Transaction<'_>, name: &BrokerName, hosts: &[String]) -> Done {
    for host in hosts {
        let added = t
            .execute(
                "INSERT OR IGNORE INTO brokers (name, host) VALUES (?1, ?2)",
                [name.as_str(), host],
            )
            .map_err(sql_error)?;
        if added == 0 {
            return Err(Error::new(
                ErrorKind::DuplicateObject,
                format!("Broker({host}) has already in brokers."),
            ));
        }
    }
    NOTHING
}

fn drop_broker(t: &Transaction<'_>, name: &BrokerName, hosts: &[String]) -> Done {
    let known: i64 = t
        .query_row(
            "SELECT count(*) FROM brokers WHERE name = ?1",
            [name.as_str()],
            |r| r.get(0),
        )
        .map_err(sql_error)?;
    if known == 0 {
        return Err(Error::new(
            ErrorKind::UndefinedObject,
            format!("Unknown broker name({name})"),
        )
        .hint("See SHOW BROKER."));
    }
    if hosts.is_empty() {
        t.execute("DELETE FROM brokers WHERE name = ?1", [name.as_str()])
            .map_err(sql_error)?;
    }
    for host in hosts {
        if t.execute(
            "DELETE FROM brokers WHERE name = ?1 AND host = ?2",
            [name.as_str(), host],
        )
        .map_err(sql_error)?
            == 0
        {
            return Err(Error::new(
                ErrorKind::UndefinedObject,
                format!("Broker({host}) has not in brokers."),
            )
            .hint("See SHOW BROKER."));
        }
    }
    NOTHING
}
