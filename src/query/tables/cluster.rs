//! The connected cluster: nodes, databases, tables, columns, partitions, tablets.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::system::Type::{Bool, Int, Text, Time};
use super::super::system::{Cell, Definition, Rows, ScanRequest};
use crate::cluster::{BackendInfo, Cluster, ClusterRole, DatabaseInfo, NativeTable, PartitionInfo, Record, Scope, TableInfo};
use crate::error::Error;
use crate::job::Volume;
use crate::names::{BackendId, DatabaseName};
use crate::schema::{DefaultValue, Partitioning};

pub(super) const FRONTENDS: Definition = Definition {
    name: "frontends",
    columns: &[("name", Text), ("host", Text), ("is_leader", Bool), ("alive", Bool), ("version", Text), ("started_at", Time)],
};

pub(super) const BACKENDS: Definition = Definition {
    name: "backends",
    columns: &[("backend_id", Int), ("path", Text), ("alive", Bool), ("error", Text), ("tablets", Int), ("bytes", Int)],
};

pub(super) const BROKERS: Definition =
    Definition { name: "brokers", columns: &[("name", Text), ("host", Text), ("port", Int), ("alive", Bool), ("error", Text)] };

pub(super) const DATABASES: Definition =
    Definition { name: "databases", columns: &[("db_name", Text), ("tables", Int), ("created_at", Time)] };

pub(super) const TABLES: Definition = Definition {
    name: "tables",
    columns: &[
        ("db_name", Text),
        ("table_name", Text),
        ("table_id", Int),
        ("model", Text),
        ("state", Text),
        ("replication_num", Int),
        ("partitions", Int),
        ("tablets", Int),
        ("files", Int),
        ("rows", Int),
        ("bytes", Int),
        ("comment", Text),
        ("ddl", Text),
        ("created_at", Time),
    ],
};

pub(super) const COLUMNS: Definition = Definition {
    name: "columns",
    columns: &[
        ("db_name", Text),
        ("table_name", Text),
        ("position", Int),
        ("column_name", Text),
        ("type", Text),
        ("nullable", Bool),
        ("is_key", Bool),
        ("default_value", Text),
        ("extra", Text),
        ("comment", Text),
    ],
};

pub(super) const PARTITIONS: Definition = Definition {
    name: "partitions",
    columns: &[
        ("db_name", Text),
        ("table_name", Text),
        ("partition_id", Int),
        ("partition_name", Text),
        ("visible_version", Int),
        ("visible_version_at", Time),
        ("state", Text),
        ("kind", Text),
        ("partition_key", Text),
        ("bounds", Text),
        ("distribution_key", Text),
        ("buckets", Int),
        ("replication_num", Int),
        ("files", Int),
        ("rows", Int),
        ("bytes", Int),
    ],
};

pub(super) const TABLETS: Definition = Definition {
    name: "tablets",
    columns: &[
        ("db_name", Text),
        ("table_name", Text),
        ("partition_name", Text),
        ("tablet_id", Int),
        ("bucket", Int),
        ("backend_id", Int),
        ("version", Int),
        ("files", Int),
        ("rows", Int),
        ("bytes", Int),
        ("db_id", Int),
        ("table_id", Int),
        ("partition_id", Int),
        ("path", Text),
    ],
};

pub(super) const VIEWS: Definition = Definition {
    name: "views",
    columns: &[
        ("db_name", Text),
        ("view_name", Text),
        ("definition", Text),
        ("comment", Text),
        ("ddl", Text),
        ("created_at", Time),
    ],
};

pub(super) async fn views(cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    if let Some(rows) = native(cluster, NativeTable::Views, &VIEWS, wanted).await? {
        return Ok(rows);
    }
    let databases = databases_of(cluster).await?;
    let views = databases.iter().flat_map(|d| d.views.iter().map(move |v| (&d.name, v)));
    Ok(views
        .map(|(database, v)| {
            vec![
                database.to_string().into(),
                v.name.to_string().into(),
                v.definition.query.clone().into(),
                v.definition.comment.clone().into(),
                v.definition.ddl(v.name.as_str()).into(),
                v.created_at.into(),
            ]
        })
        .collect())
}

/// The rows as a cluster that does its work itself tells them; `None` for one whose inside is ours. A cluster that is none is empty.
async fn native(
    cluster: &Arc<dyn Cluster>,
    table: NativeTable,
    definition: &Definition,
    wanted: &ScanRequest,
) -> Result<Option<Rows>, Error> {
    let remote = match cluster.role() {
        ClusterRole::Managed(_) => return Ok(None),
        ClusterRole::RepositoryOnly => return Ok(Some(Rows::new())),
        ClusterRole::External(remote) => remote,
    };
    let scope = Scope {
        database: wanted.text("db_name"),
        table: wanted.text("table_name").or_else(|| wanted.text("view_name")),
        tablet: wanted.int("tablet_id"),
    };
    let records = remote.native(table, &scope).await?;
    let cell = |record: &Record, (name, ty): &(&str, super::super::system::Type)| {
        record.get(name).map_or(Cell::Null, |text| Cell::read(text, *ty))
    };
    let row = |record: &Record| definition.columns.iter().map(|column| cell(record, column)).collect();
    Ok(Some(records.iter().map(row).collect()))
}

async fn databases_of(cluster: &Arc<dyn Cluster>) -> Result<Vec<DatabaseInfo>, Error> {
    cluster.managed()?.databases().await
}

fn each_table(databases: &[DatabaseInfo]) -> impl Iterator<Item = (&DatabaseName, &TableInfo)> {
    databases.iter().flat_map(|d| d.tables.iter().map(move |t| (&d.name, t)))
}

fn each_partition(databases: &[DatabaseInfo]) -> impl Iterator<Item = (&DatabaseName, &TableInfo, &PartitionInfo)> {
    each_table(databases).flat_map(|(d, t)| t.partitions.iter().map(move |p| (d, t, p)))
}

fn volume<'a>(partitions: impl IntoIterator<Item = &'a PartitionInfo>) -> (Volume, u64) {
    let tablets = partitions.into_iter().flat_map(|p| &p.tablets);
    tablets.fold((Volume::default(), 0), |(v, rows), t| {
        (Volume { files: v.files + t.volume.files, bytes: v.bytes + t.volume.bytes }, rows + t.rows)
    })
}

pub(super) async fn frontends(cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    if let Some(rows) = native(cluster, NativeTable::Frontends, &FRONTENDS, wanted).await? {
        return Ok(rows);
    }
    let rows = cluster.managed()?.nodes().await?.frontends.into_iter();
    Ok(rows
        .map(|f| vec![f.name.into(), f.host.into(), f.is_leader.into(), true.into(), f.version.into(), f.started_at.into()])
        .collect())
}

pub(super) async fn backends(cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    if let Some(rows) = native(cluster, NativeTable::Backends, &BACKENDS, wanted).await? {
        return Ok(rows);
    }
    let managed = cluster.managed()?;
    let silent = managed.silent_backends().await?;
    let rows = managed.nodes().await?.backends.into_iter();
    let row = |b: BackendInfo| {
        let error = silent.get(&b.id);
        let (alive, error) = (error.is_none(), error.map(ToString::to_string));
        vec![b.id.0.into(), b.path.into(), alive.into(), error.into(), b.tablets.into(), b.bytes.into()]
    };
    Ok(rows.map(row).collect())
}

pub(super) async fn brokers(cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    if let Some(rows) = native(cluster, NativeTable::Brokers, &BROKERS, wanted).await? {
        return Ok(rows);
    }
    let rows = cluster.managed()?.nodes().await?.brokers.into_iter();
    Ok(rows
        .map(|(name, address)| {
            let (host, port) = address.rsplit_once(':').unwrap_or((&address, "0"));
            vec![name.into(), host.into(), port.parse::<i64>().unwrap_or(0).into(), Cell::Null, Cell::Null]
        })
        .collect())
}

pub(super) async fn databases(cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    if let Some(rows) = native(cluster, NativeTable::Databases, &DATABASES, wanted).await? {
        return Ok(rows);
    }
    let rows = databases_of(cluster).await?.into_iter();
    Ok(rows.map(|d| vec![d.name.to_string().into(), (d.tables.len() as u64).into(), d.created_at.into()]).collect())
}

pub(super) async fn tables(cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    if let Some(rows) = native(cluster, NativeTable::Tables, &TABLES, wanted).await? {
        return Ok(rows);
    }
    let databases = databases_of(cluster).await?;
    Ok(each_table(&databases)
        .map(|(database, t)| {
            let (volume, rows) = volume(&t.partitions);
            vec![
                database.to_string().into(),
                t.name.to_string().into(),
                t.id.0.into(),
                t.schema.key.keywords().into(),
                t.state.into(),
                i64::from(t.replication_num).into(),
                (t.partitions.len() as u64).into(),
                (t.partitions.iter().map(|p| p.tablets.len() as u64).sum::<u64>()).into(),
                volume.files.into(),
                rows.into(),
                volume.bytes.into(),
                t.schema.comment.clone().into(),
                t.ddl().into(),
                t.created_at.into(),
            ]
        })
        .collect())
}

pub(super) async fn columns(cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    if let Some(rows) = native(cluster, NativeTable::Columns, &COLUMNS, wanted).await? {
        return Ok(rows);
    }
    let databases = databases_of(cluster).await?;
    let mut out = Rows::new();
    for (database, table) in each_table(&databases) {
        for (i, column) in table.schema.columns.iter().enumerate() {
            let default = match &column.default {
                Some(DefaultValue::Literal(text)) => Some(text.clone()),
                Some(DefaultValue::CurrentTimestamp) => Some("CURRENT_TIMESTAMP".into()),
                Some(DefaultValue::Null) | None => None,
            };
            out.push(vec![
                database.to_string().into(),
                table.name.to_string().into(),
                (i as u64 + 1).into(),
                column.name.clone().into(),
                column.column_type.to_string().into(),
                column.nullable.into(),
                (i < table.schema.key_columns.len()).into(),
                default.into(),
                column.aggregate.map(|a| a.to_string()).unwrap_or_default().into(),
                column.comment.clone().into(),
            ]);
        }
    }
    Ok(out)
}

pub(super) async fn partitions(cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    if let Some(rows) = native(cluster, NativeTable::Partitions, &PARTITIONS, wanted).await? {
        return Ok(rows);
    }
    let databases = databases_of(cluster).await?;
    Ok(each_partition(&databases)
        .map(|(database, t, p)| {
            let (volume, rows) = volume([p]);
            let kind = match t.schema.partitioning {
                Partitioning::Unpartitioned => "NONE",
                Partitioning::Range { .. } => "RANGE",
                Partitioning::List { .. } => "LIST",
            };
            vec![
                database.to_string().into(),
                t.name.to_string().into(),
                p.id.0.into(),
                p.name.to_string().into(),
                p.version.into(),
                p.version_at.into(),
                t.state.into(),
                kind.into(),
                t.schema.partition_columns().join(", ").into(),
                p.bounds.to_string().into(),
                t.schema.distribution.columns.join(", ").into(),
                (p.tablets.len() as u64).into(),
                i64::from(t.replication_num).into(),
                volume.files.into(),
                rows.into(),
                volume.bytes.into(),
            ]
        })
        .collect())
}

pub(super) async fn tablets(cluster: &Arc<dyn Cluster>, wanted: &ScanRequest) -> Result<Rows, Error> {
    if let Some(rows) = native(cluster, NativeTable::Tablets, &TABLETS, wanted).await? {
        return Ok(rows);
    }
    let databases = databases_of(cluster).await?;
    let ids: HashMap<&DatabaseName, i64> = databases.iter().map(|d| (&d.name, d.id)).collect();
    let nodes = cluster.managed()?.nodes().await?;
    let paths: HashMap<BackendId, &str> = nodes.backends.iter().map(|b| (b.id, b.path.as_str())).collect();
    let mut out = Rows::new();
    for (database, table, partition) in each_partition(&databases) {
        for tablet in &partition.tablets {
            for backend in &tablet.backends {
                out.push(vec![
                    database.to_string().into(),
                    table.name.to_string().into(),
                    partition.name.to_string().into(),
                    tablet.id.0.into(),
                    i64::from(tablet.bucket).into(),
                    backend.0.into(),
                    partition.version.into(),
                    tablet.volume.files.into(),
                    tablet.rows.into(),
                    tablet.volume.bytes.into(),
                    ids.get(database).copied().into(),
                    table.id.0.into(),
                    partition.id.0.into(),
                    paths.get(backend).copied().into(),
                ]);
            }
        }
    }
    Ok(out)
}
