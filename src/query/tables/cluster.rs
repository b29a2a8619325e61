//! The connected cluster: nodes, databases, tables, columns, partitions, tablets.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::system::{ScanContext, SystemRow, system_row};
use crate::cluster::{
    BackendInfo, Cluster, ClusterRole, DatabaseInfo, NativeTable, PartitionInfo, Record, Scope,
    TableInfo,
};
use crate::error::Error;
use crate::job::Volume;
use crate::names::{BackendId, DatabaseName};
use crate::schema::{DefaultValue, Partitioning};

system_row! {
    pub FrontendsRow in "frontends" {
        name: Text,
        host: Text,
        is_leader: Bool,
        alive: Bool,
        version: Text,
        started_at: Time,
    }
}

system_row! {
    pub BackendsRow in "backends" {
        backend_id: Int,
        path: Text,
        alive: Bool,
        error: Text,
        tablets: Int,
        bytes: Int,
    }
}

system_row! {
    pub BrokersRow in "brokers" {
        name: Text,
        host: Text,
        port: Int,
        alive: Bool,
        error: Text,
    }
}

system_row! {
    pub DatabasesRow in "databases" {
        db_name: Text,
        tables: Int,
        created_at: Time,
    }
}

system_row! {
    pub TablesRow in "tables" {
        db_name: Text,
        table_name: Text,
        table_id: Int,
        model: Text,
        state: Text,
        replication_num: Int,
        partitions: Int,
        tablets: Int,
        files: Int,
        rows: Int,
        bytes: Int,
        comment: Text,
        ddl: Text,
        created_at: Time,
    }
}

system_row! {
    pub ColumnsRow in "columns" {
        db_name: Text,
        table_name: Text,
        position: Int,
        column_name: Text,
        r#type: Text,
        nullable: Bool,
        is_key: Bool,
        default_value: Text,
        extra: Text,
        comment: Text,
    }
}

system_row! {
    pub PartitionsRow in "partitions" {
        db_name: Text,
        table_name: Text,
        partition_id: Int,
        partition_name: Text,
        visible_version: Int,
        visible_version_at: Time,
        state: Text,
        kind: Text,
        partition_key: Text,
        bounds: Text,
        distribution_key: Text,
        buckets: Int,
        replication_num: Int,
        files: Int,
        rows: Int,
        bytes: Int,
    }
}

system_row! {
    pub TabletsRow in "tablets" {
        db_name: Text,
        table_name: Text,
        partition_name: Text,
        tablet_id: Int,
        bucket: Int,
        backend_id: Int,
        version: Int,
        files: Int,
        rows: Int,
        bytes: Int,
        db_id: Int,
        table_id: Int,
        partition_id: Int,
        path: Text,
    }
}

system_row! {
    pub ViewsRow in "views" {
        db_name: Text,
        view_name: Text,
        definition: Text,
        comment: Text,
        ddl: Text,
        created_at: Time,
    }
}

pub(super) async fn views(context: &ScanContext) -> Result<Vec<ViewsRow>, Error> {
    if let Some(rows) = native(context, NativeTable::Views).await? {
        return Ok(rows);
    }
    let databases = databases_of(&context.cluster).await?;
    let views = databases
        .iter()
        .flat_map(|d| d.views.iter().map(move |v| (&d.name, v)));
    Ok(views
        .map(|(database, v)| ViewsRow {
            db_name: database.to_string().into(),
            view_name: v.name.to_string().into(),
            definition: v.definition.query.clone().into(),
            comment: v.definition.comment.clone().into(),
            ddl: v.definition.ddl(v.name.as_str()).into(),
            created_at: v.created_at.into(),
        })
        .collect())
}

/// The rows as a cluster that does its work itself tells them; `None` for one whose inside is ours.
/// A cluster that is none is empty.
async fn native<R: SystemRow>(
    context: &ScanContext,
    table: NativeTable,
) -> Result<Option<Vec<R>>, Error> {
    let external = match context.cluster.role() {
        ClusterRole::Managed(_) => return Ok(None),
        ClusterRole::RepositoryOnly => return Ok(Some(Vec::new())),
        ClusterRole::External(external) => external,
    };
    let request = &context.request;
    let scope = Scope {
        database: request.text("db_name"),
        table: request
            .text("table_name")
            .or_else(|| request.text("view_name")),
        tablet: request.int("tablet_id"),
    };
    let records = external.native(table, &scope).await?;
    let row = |record: &Record| R::read(|name| record.get(name).map(|text| &**text));
    Ok(Some(records.iter().map(row).collect()))
}

async fn databases_of(cluster: &Arc<dyn Cluster>) -> Result<Vec<DatabaseInfo>, Error> {
    cluster.managed()?.databases().await
}

fn each_table(databases: &[DatabaseInfo]) -> impl Iterator<Item = (&DatabaseName, &TableInfo)> {
    databases
        .iter()
        .flat_map(|d| d.tables.iter().map(move |t| (&d.name, t)))
}

fn each_partition(
    databases: &[DatabaseInfo],
) -> impl Iterator<Item = (&DatabaseName, &TableInfo, &PartitionInfo)> {
    each_table(databases).flat_map(|(d, t)| t.partitions.iter().map(move |p| (d, t, p)))
}

fn volume<'a>(partitions: impl IntoIterator<Item = &'a PartitionInfo>) -> (Volume, u64) {
    let tablets = partitions.into_iter().flat_map(|p| &p.tablets);
    tablets.fold((Volume::default(), 0), |(v, rows), t| {
        (
            Volume {
                files: v.files + t.volume.files,
                bytes: v.bytes + t.volume.bytes,
            },
            rows + t.rows,
        )
    })
}

pub(super) async fn frontends(context: &ScanContext) -> Result<Vec<FrontendsRow>, Error> {
    if let Some(rows) = native(context, NativeTable::Frontends).await? {
        return Ok(rows);
    }
    let rows = context
        .cluster
        .managed()?
        .nodes()
        .await?
        .frontends
        .into_iter();
    Ok(rows
        .map(|f| FrontendsRow {
            name: f.name.into(),
            host: f.host.into(),
            is_leader: f.is_leader.into(),
            alive: true.into(),
            version: f.version.into(),
            started_at: f.started_at.into(),
        })
        .collect())
}

pub(super) async fn backends(context: &ScanContext) -> Result<Vec<BackendsRow>, Error> {
    if let Some(rows) = native(context, NativeTable::Backends).await? {
        return Ok(rows);
    }
    let managed = context.cluster.managed()?;
    let silent = managed.silent_backends().await?;
    let rows = managed.nodes().await?.backends.into_iter();
    let row = |b: BackendInfo| {
        let error = silent.get(&b.id);
        let (alive, error) = (error.is_none(), error.map(ToString::to_string));
        BackendsRow {
            backend_id: b.id.0.into(),
            path: b.path.into(),
            alive: alive.into(),
            error: error.into(),
            tablets: b.tablets.into(),
            bytes: b.bytes.into(),
        }
    };
    Ok(rows.map(row).collect())
}

pub(super) async fn brokers(context: &ScanContext) -> Result<Vec<BrokersRow>, Error> {
    if let Some(rows) = native(context, NativeTable::Brokers).await? {
        return Ok(rows);
    }
    let rows = context
        .cluster
        .managed()?
        .nodes()
        .await?
        .brokers
        .into_iter();
    Ok(rows
        .map(|(name, address)| {
            let (host, port) = address.rsplit_once(':').unwrap_or((&address, "0"));
            BrokersRow {
                name: name.into(),
                host: host.into(),
                port: port.parse::<i64>().unwrap_or(0).into(),
                ..Default::default()
            }
        })
        .collect())
}

pub(super) async fn databases(context: &ScanContext) -> Result<Vec<DatabasesRow>, Error> {
    if let Some(rows) = native(context, NativeTable::Databases).await? {
        return Ok(rows);
    }
    let rows = databases_of(&context.cluster).await?.into_iter();
    Ok(rows
        .map(|d| DatabasesRow {
            db_name: d.name.to_string().into(),
            tables: (d.tables.len() as u64).into(),
            created_at: d.created_at.into(),
        })
        .collect())
}

pub(super) async fn tables(context: &ScanContext) -> Result<Vec<TablesRow>, Error> {
    if let Some(rows) = native(context, NativeTable::Tables).await? {
        return Ok(rows);
    }
    let databases = databases_of(&context.cluster).await?;
    Ok(each_table(&databases)
        .map(|(database, t)| {
            let (volume, rows) = volume(&t.partitions);
            TablesRow {
                db_name: database.to_string().into(),
                table_name: t.name.to_string().into(),
                table_id: t.id.0.into(),
                model: t.schema.key.keywords().into(),
                state: t.state.into(),
                replication_num: i64::from(t.replication_num).into(),
                partitions: (t.partitions.len() as u64).into(),
                tablets: (t
                    .partitions
                    .iter()
                    .map(|p| p.tablets.len() as u64)
                    .sum::<u64>())
                .into(),
                files: volume.files.into(),
                rows: rows.into(),
                bytes: volume.bytes.into(),
                comment: t.schema.comment.clone().into(),
                ddl: t.ddl().into(),
                created_at: t.created_at.into(),
            }
        })
        .collect())
}

pub(super) async fn columns(context: &ScanContext) -> Result<Vec<ColumnsRow>, Error> {
    if let Some(rows) = native(context, NativeTable::Columns).await? {
        return Ok(rows);
    }
    let databases = databases_of(&context.cluster).await?;
    let mut out = Vec::new();
    for (database, table) in each_table(&databases) {
        for (i, column) in table.schema.columns.iter().enumerate() {
            let default = match &column.default {
                Some(DefaultValue::Literal(text)) => Some(text.clone()),
                Some(DefaultValue::CurrentTimestamp) => Some("CURRENT_TIMESTAMP".into()),
                Some(DefaultValue::Null) | None => None,
            };
            out.push(ColumnsRow {
                db_name: database.to_string().into(),
                table_name: table.name.to_string().into(),
                position: (i as u64 + 1).into(),
                column_name: column.name.clone().into(),
                r#type: column.column_type.to_string().into(),
                nullable: column.nullable.into(),
                is_key: (i < table.schema.key_columns.len()).into(),
                default_value: default.into(),
                extra: column
                    .aggregate
                    .map(|a| a.to_string())
                    .unwrap_or_default()
                    .into(),
                comment: column.comment.clone().into(),
            });
        }
    }
    Ok(out)
}

pub(super) async fn partitions(context: &ScanContext) -> Result<Vec<PartitionsRow>, Error> {
    if let Some(rows) = native(context, NativeTable::Partitions).await? {
        return Ok(rows);
    }
    let databases = databases_of(&context.cluster).await?;
    Ok(each_partition(&databases)
        .map(|(database, t, p)| {
            let (volume, rows) = volume([p]);
            let kind = match t.schema.partitioning {
                Partitioning::Unpartitioned => "NONE",
                Partitioning::Range { .. } => "RANGE",
                Partitioning::List { .. } => "LIST",
            };
            PartitionsRow {
                db_name: database.to_string().into(),
                table_name: t.name.to_string().into(),
                partition_id: p.id.0.into(),
                partition_name: p.name.to_string().into(),
                visible_version: p.version.into(),
                visible_version_at: p.version_at.into(),
                state: t.state.into(),
                kind: kind.into(),
                partition_key: t.schema.partition_columns().join(", ").into(),
                bounds: p.bounds.to_string().into(),
                distribution_key: t.schema.distribution.columns.join(", ").into(),
                buckets: (p.tablets.len() as u64).into(),
                replication_num: i64::from(t.replication_num).into(),
                files: volume.files.into(),
                rows: rows.into(),
                bytes: volume.bytes.into(),
            }
        })
        .collect())
}

pub(super) async fn tablets(context: &ScanContext) -> Result<Vec<TabletsRow>, Error> {
    if let Some(rows) = native(context, NativeTable::Tablets).await? {
        return Ok(rows);
    }
    let databases = databases_of(&context.cluster).await?;
    let ids: HashMap<&DatabaseName, i64> = databases.iter().map(|d| (&d.name, d.id)).collect();
    let nodes = context.cluster.managed()?.nodes().await?;
    let paths: HashMap<BackendId, &str> = nodes
        .backends
        .iter()
        .map(|b| (b.id, b.path.as_str()))
        .collect();
    let mut out = Vec::new();
    for (database, table, partition) in each_partition(&databases) {
        for tablet in &partition.tablets {
            for backend in &tablet.backends {
                out.push(TabletsRow {
                    db_name: database.to_string().into(),
                    table_name: table.name.to_string().into(),
                    partition_name: partition.name.to_string().into(),
                    tablet_id: tablet.id.0.into(),
                    bucket: i64::from(tablet.bucket).into(),
                    backend_id: backend.0.into(),
                    version: partition.version.into(),
                    files: tablet.volume.files.into(),
                    rows: tablet.rows.into(),
                    bytes: tablet.volume.bytes.into(),
                    db_id: ids.get(database).copied().into(),
                    table_id: table.id.0.into(),
                    partition_id: partition.id.0.into(),
                    path: paths.get(backend).copied().into(),
                });
            }
        }
    }
    Ok(out)
}
