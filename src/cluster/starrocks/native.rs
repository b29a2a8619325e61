//! The system tables about a StarRocks cluster's inside, asked of the frontend when they are read.

use futures::{StreamExt, TryStreamExt};

use super::StarRocksCluster;
use super::client::frontends_of;
use super::print_statement::{identifier, literal};
use super::table::{Line, lines, parse_size};
use crate::cluster::{NativeTable, Record, Scope};
use crate::error::{Error, ErrorKind};

/// How many tables are asked about at a time.
const QUESTIONS: usize = 4;

/// Databases that StarRocks keeps for itself.
pub(super) const HIDDEN: &[&str] = &[
    "information_schema",
    "_statistics_",
    "sys",
    "starrocks_audit_db__",
    "mysql",
];

fn put(record: &mut Record, column: &'static str, value: Option<impl ToString>) {
    if let Some(value) = value {
        record.insert(column, value.to_string());
    }
}

impl StarRocksCluster {
    /// All databases, by name.
    pub(super) async fn all_database_names(&self) -> Result<Vec<String>, Error> {
        let answer = self.client.query("SHOW DATABASES").await?;
        let names = answer.rows.into_iter();
        let mut names: Vec<String> = names
            .filter_map(|row| row.into_iter().next().flatten())
            .collect();
        names.sort();
        Ok(names)
    }

    /// The databases of users, by name.
    pub(super) async fn database_names(&self) -> Result<Vec<String>, Error> {
        let mut names = self.all_database_names().await?;
        names.retain(|name| !HIDDEN.contains(&name.as_str()));
        Ok(names)
    }

    /// Rows of a table of the frontend's information_schema, within a scope.
    async fn information(
        &self,
        table: &str,
        columns: &[&str],
        scope: &Scope,
    ) -> Result<Vec<Record>, Error> {
        let mut filters: Vec<String> = Vec::new();
        match &scope.database {
            Some(name) => filters.push(format!("TABLE_SCHEMA = {}", literal(name))),
            None => {
                let hidden: Vec<_> = HIDDEN.iter().map(|n| literal(n)).collect();
                filters.push(format!("TABLE_SCHEMA NOT IN ({})", hidden.join(", ")));
            }
        }
        if let Some(name) = &scope.table {
            filters.push(format!("TABLE_NAME = {}", literal(name)));
        }
        let sql = format!(
            "SELECT {} FROM information_schema.{table} WHERE {}",
            columns.join(", "),
            filters.join(" AND ")
        );
        let answer = self.client.query(&sql).await?;
        let read = |line: Line<'_>| {
            let mut record = Record::new();
            for column in columns {
                put(&mut record, our_name(column), line.get(&[column]));
            }
            record
        };
        Ok(lines(&answer).map(read).collect())
    }

    pub(super) async fn native_rows(
        &self,
        table: NativeTable,
        scope: &Scope,
    ) -> Result<Vec<Record>, Error> {
        match table {
            NativeTable::Frontends => self.frontends().await,
            NativeTable::Backends => self.backends().await,
            NativeTable::Brokers => self.brokers().await,
            NativeTable::Databases => {
                let names = self.database_names().await?;
                Ok(names
                    .into_iter()
                    .map(|name| Record::from([("db_name", name)]))
                    .collect())
            }
            NativeTable::Tables => self.tables(scope).await,
            NativeTable::Views => {
                let mut rows = self
                    .information(
                        "views",
                        &["TABLE_SCHEMA", "TABLE_NAME", "VIEW_DEFINITION"],
                        scope,
                    )
                    .await?;
                for row in &mut rows {
                    if let Some(name) = row.remove("table_name") {
                        row.insert("view_name", name);
                    }
                }
                self.with_ddl(rows, scope, "VIEW").await
            }
            NativeTable::Columns => {
                let columns = [
                    "TABLE_SCHEMA",
                    "TABLE_NAME",
                    "ORDINAL_POSITION",
                    "COLUMN_NAME",
                    "COLUMN_TYPE",
                    "IS_NULLABLE",
                    "COLUMN_KEY",
                    "COLUMN_DEFAULT",
                    "EXTRA",
                    "COLUMN_COMMENT",
                ];
                let mut rows = self.information("columns", &columns, scope).await?;
                for row in &mut rows {
                    let key = row.get("is_key").cloned().unwrap_or_default();
                    let is_key = !key.is_empty();
                    row.insert("key_model", key);
                    row.insert("is_key", is_key.to_string());
                    let nullable = row.get("nullable").is_some_and(|n| n == "YES");
                    row.insert("nullable", nullable.to_string());
                }
                Ok(rows)
            }
            NativeTable::Partitions => {
                let tables = self.tables_in(scope).await?;
                let questions = tables
                    .into_iter()
                    .map(|(d, t)| async move { self.partitions_of(&d, &t).await });
                futures::stream::iter(questions)
                    .buffered(QUESTIONS)
                    .try_concat()
                    .await
            }
            NativeTable::Tablets => self.tablets(scope).await,
        }
    }

    async fn frontends(&self) -> Result<Vec<Record>, Error> {
        let answer = self.client.query("SHOW FRONTENDS").await?;
        let leads = frontends_of(&answer);
        let mut out = Vec::new();
        for (line, leader) in lines(&answer).zip(leads.into_iter().map(|(_, leads)| leads)) {
            let mut record = Record::new();
            put(&mut record, "name", line.get(&["Name"]));
            put(&mut record, "host", line.get(&["IP", "Host"]));
            put(&mut record, "is_leader", Some(leader));
            put(&mut record, "alive", line.flag(&["Alive"]));
            put(&mut record, "version", line.get(&["Version"]));
            put(&mut record, "started_at", line.get(&["StartTime"]));
            out.push(record);
        }
        Ok(out)
    }

    async fn backends(&self) -> Result<Vec<Record>, Error> {
        let answer = self.client.query("SHOW BACKENDS").await?;
        Ok(lines(&answer)
            .map(|line| {
                let mut record = Record::new();
                put(&mut record, "backend_id", line.get(&["BackendId"]));
                let port = line
                    .get(&["HeartbeatPort"])
                    .map_or(String::new(), |p| format!(":{p}"));
                put(
                    &mut record,
                    "path",
                    line.get(&["IP", "Host"]).map(|host| host + &port),
                );
                put(&mut record, "alive", line.flag(&["Alive"]));
                put(
                    &mut record,
                    "error",
                    line.get(&["ErrMsg"]).filter(|e| !e.is_empty()),
                );
                put(&mut record, "tablets", line.get(&["TabletNum"]));
                put(
                    &mut record,
                    "bytes",
                    line.get(&["DataUsedCapacity"]).and_then(|t| parse_size(&t)),
                );
                record
            })
            .collect())
    }

    /// How many backends are alive.
    pub(super) async fn alive(&self) -> Result<u16, Error> {
        let alive = self
            .backends()
            .await?
            .iter()
            .filter(|r| r.get("alive").is_some_and(|a| a == "true"))
            .count();
        Ok(u16::try_from(alive).unwrap_or(u16::MAX))
    }

    async fn brokers(&self) -> Result<Vec<Record>, Error> {
        let answer = self.client.query("SHOW BROKER").await?;
        Ok(lines(&answer)
            .map(|line| {
                let mut record = Record::new();
                for (column, names) in [
                    ("name", &["Name"][..]),
                    ("host", &["IP", "Host"]),
                    ("port", &["Port"]),
                ] {
                    put(&mut record, column, line.get(names));
                }
                put(&mut record, "alive", line.flag(&["Alive"]));
                put(
                    &mut record,
                    "error",
                    line.get(&["ErrMsg"]).filter(|e| !e.is_empty()),
                );
                record
            })
            .collect())
    }

    async fn tables(&self, scope: &Scope) -> Result<Vec<Record>, Error> {
        let columns = [
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "TABLE_TYPE",
            "ENGINE",
            "TABLE_ROWS",
            "DATA_LENGTH",
            "CREATE_TIME",
            "TABLE_COMMENT",
        ];
        let mut rows = self.information("tables", &columns, scope).await?;
        rows.retain(|row| !is_view(row));
        self.with_ddl(rows, scope, "TABLE").await
    }

    /// What makes each object again; asked for only where a question is about one object.
    async fn with_ddl(
        &self,
        mut rows: Vec<Record>,
        scope: &Scope,
        kind: &str,
    ) -> Result<Vec<Record>, Error> {
        let (Some(database), Some(table)) = (&scope.database, &scope.table) else {
            return Ok(rows);
        };
        for row in &mut rows {
            let sql = format!(
                "SHOW CREATE {kind} {}.{}",
                identifier(database)?,
                identifier(table)?
            );
            match self.client.query(&sql).await {
                Ok(answer) => put(
                    row,
                    "ddl",
                    answer
                        .rows
                        .first()
                        .and_then(|r| r.get(1).cloned().flatten()),
                ),
                Err(e) if e.kind == ErrorKind::Connection => return Err(e),
                // It may have gone meanwhile.
                Err(_) => {}
            }
        }
        Ok(rows)
    }

    /// The tables within a scope: a table that is named alone is looked for in every database.
    async fn tables_in(&self, scope: &Scope) -> Result<Vec<(String, String)>, Error> {
        if let (Some(database), Some(table)) = (&scope.database, &scope.table) {
            return Ok(vec![(database.clone(), table.clone())]);
        }
        let rows = self
            .information(
                "tables",
                &["TABLE_SCHEMA", "TABLE_NAME", "TABLE_TYPE", "ENGINE"],
                scope,
            )
            .await?;
        let tables = rows.into_iter().filter(|row| !is_view(row));
        Ok(tables
            .filter_map(|mut r| Some((r.remove("db_name")?, r.remove("table_name")?)))
            .collect())
    }

    async fn partitions_of(&self, database: &str, table: &str) -> Result<Vec<Record>, Error> {
        let sql = format!(
            "SHOW PARTITIONS FROM {}.{}",
            identifier(database)?,
            identifier(table)?
        );
        let answer = match self.client.query(&sql).await {
            Ok(answer) => answer,
            // Not every table has partitions, and one may have gone meanwhile.
            Err(e) if e.kind != ErrorKind::Connection => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        Ok(lines(&answer)
            .map(|line| {
                let mut record = Record::from([
                    ("db_name", database.to_owned()),
                    ("table_name", table.to_owned()),
                ]);
                for (column, names) in [
                    ("partition_id", &["PartitionId"][..]),
                    ("partition_name", &["PartitionName"]),
                    ("visible_version", &["VisibleVersion"]),
                    ("visible_version_at", &["VisibleVersionTime"]),
                    ("state", &["State"]),
                    ("partition_key", &["PartitionKey"]),
                    ("bounds", &["Range", "List"]),
                    ("distribution_key", &["DistributionKey"]),
                    ("buckets", &["Buckets"]),
                    ("replication_num", &["ReplicationNum"]),
                    ("rows", &["RowCount"]),
                ] {
                    put(&mut record, column, line.get(names));
                }
                let kind = match (line.get(&["List"]), line.get(&["PartitionKey"])) {
                    (Some(_), _) => "LIST",
                    (None, Some(key)) if !key.is_empty() => "RANGE",
                    _ => "NONE",
                };
                put(&mut record, "kind", Some(kind));
                put(
                    &mut record,
                    "bytes",
                    line.get(&["StorageSize", "DataSize"])
                        .and_then(|t| parse_size(&t)),
                );
                record
            })
            .collect())
    }

    async fn tablets(&self, scope: &Scope) -> Result<Vec<Record>, Error> {
        let mut scope = scope.clone();
        let mut only = None;
        if let Some(id) = scope.tablet {
            let answer = self.client.query(&format!("SHOW TABLET {id}")).await?;
            let Some(line) = lines(&answer).next() else {
                return Ok(Vec::new());
            };
            let (Some(database), Some(table)) = (line.get(&["DbName"]), line.get(&["TableName"]))
            else {
                return Ok(Vec::new());
            };
            scope = Scope {
                database: Some(database),
                table: Some(table),
                tablet: None,
            };
            only = Some((
                id.to_string(),
                [
                    line.get(&["DbId"]),
                    line.get(&["TableId"]),
                    line.get(&["PartitionId"]),
                ],
                line.get(&["PartitionName"]),
            ));
        }
        let mut out = Vec::new();
        for (database, table) in self.tables_in(&scope).await? {
            for partition in self.partitions_of(&database, &table).await? {
                let Some(name) = partition.get("partition_name") else {
                    continue;
                };
                if only
                    .as_ref()
                    .is_some_and(|(_, _, wanted)| wanted.as_ref() != Some(name))
                {
                    continue;
                }
                let sql = format!(
                    "SHOW TABLET FROM {}.{} PARTITION ({})",
                    identifier(&database)?,
                    identifier(&table)?,
                    identifier(name)?
                );
                let answer = self.client.query(&sql).await?;
                for line in lines(&answer) {
                    let id = line.text("TabletId");
                    if only.as_ref().is_some_and(|(wanted, ..)| *wanted != id) {
                        continue;
                    }
                    let mut record = Record::from([
                        ("db_name", database.clone()),
                        ("table_name", table.clone()),
                        ("partition_name", name.clone()),
                        ("tablet_id", id),
                    ]);
                    put(&mut record, "partition_id", partition.get("partition_id"));
                    if let Some((_, [database_id, table_id, _], _)) = &only {
                        put(&mut record, "db_id", database_id.as_ref());
                        put(&mut record, "table_id", table_id.as_ref());
                    }
                    for (column, names) in [
                        ("backend_id", &["BackendId"][..]),
                        ("version", &["Version"]),
                        ("files", &["VersionCount"]),
                        ("rows", &["RowCount"]),
                        ("path", &["DiskRootPath"]),
                    ] {
                        put(&mut record, column, line.get(names));
                    }
                    put(
                        &mut record,
                        "bytes",
                        line.get(&["DataSize"]).and_then(|t| parse_size(&t)),
                    );
                    out.push(record);
                }
            }
        }
        Ok(out)
    }
}

/// Whether an object has no data of its own. A materialized view is called a view, too, and has an
/// engine.
fn is_view(row: &Record) -> bool {
    row.get("table_type").is_some_and(|t| t == "VIEW")
        && row.get("model").is_none_or(String::is_empty)
}

/// Our name for a column of information_schema.
fn our_name(column: &str) -> &'static str {
    match column {
        "TABLE_SCHEMA" => "db_name",
        "TABLE_NAME" => "table_name",
        "TABLE_TYPE" => "table_type",
        "ENGINE" => "model",
        "TABLE_ROWS" => "rows",
        "DATA_LENGTH" => "bytes",
        "CREATE_TIME" => "created_at",
        "TABLE_COMMENT" | "COLUMN_COMMENT" => "comment",
        "VIEW_DEFINITION" => "definition",
        "ORDINAL_POSITION" => "position",
        "COLUMN_NAME" => "column_name",
        "COLUMN_TYPE" => "type",
        "IS_NULLABLE" => "nullable",
        "COLUMN_KEY" => "is_key",
        "COLUMN_DEFAULT" => "default_value",
        _ => "extra",
    }
}
