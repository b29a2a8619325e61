//! The names on a StarRocks cluster as DataFusion sees them: fetched at once, kept for a moment,
//! columns a database at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::TableType;
use tokio::sync::OnceCell;

use super::client::{Client, lacks_backends};
use super::native::HIDDEN;
use super::print_statement::{identifier, literal};
use super::remote_table::StarRocksTable;
use super::table::lines;
use super::types;
use crate::error::Error;
use crate::names::{DatabaseName, TableName, Timestamp};

/// All names at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub fetched_at: Option<Timestamp>,
    pub databases: BTreeMap<String, Arc<Database>>,
}

#[derive(Debug)]
pub(super) struct Database {
    name: String,
    tables: BTreeMap<String, Object>,
    /// The columns of all its tables; asked for when the first of them is read.
    columns: OnceCell<HashMap<String, SchemaRef>>,
}

impl Database {
    /// Whether there is something of this name.
    pub fn has(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Whether that is a table, as far as is known.
    pub fn is_table(&self, name: &str) -> bool {
        self.tables.get(name).is_none_or(|o| *o == Object::Table)
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Table,
    View,
    MaterializedView,
}

impl Object {
    fn kind(self) -> TableType {
        match self {
            Self::View => TableType::View,
            Self::Table | Self::MaterializedView => TableType::Base,
        }
    }
}

/// A name that cannot be said to a frontend is no use; nor is a table that no privilege could be
/// asked for.
fn sayable(name: &str) -> bool {
    super::print_statement::identifier(name).is_ok() && !name.is_empty()
}

fn is_database(name: &str) -> bool {
    sayable(name) && DatabaseName::new(name).is_ok()
}

fn is_table(name: &str) -> bool {
    sayable(name) && TableName::new(name).is_ok()
}

impl Names {
    /// Asks the frontend.
    pub async fn fetch(client: &Client, at: Timestamp) -> Result<Self, Error> {
        let mut databases: BTreeMap<String, BTreeMap<String, Object>> = BTreeMap::new();
        let listed = client.query("SHOW DATABASES").await?;
        for name in listed
            .rows
            .into_iter()
            .filter_map(|r| r.into_iter().next().flatten())
        {
            if !HIDDEN.contains(&name.as_str()) && is_database(&name) {
                databases.insert(name, BTreeMap::new());
            }
        }
        let names: Vec<String> = databases.keys().cloned().collect();
        let mut add = |database: &str, table: String, object: Object| {
            if let Some(tables) = databases.get_mut(database)
                && is_table(&table)
            {
                tables.insert(table, object);
            }
        };
        let asked = client
            .query(
                "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.tables",
            )
            .await;
        match asked {
            Ok(answer) => {
                for line in lines(&answer) {
                    let is_view = line.text("TABLE_TYPE") == "VIEW";
                    let object = match (is_view, line.text("ENGINE").is_empty()) {
                        (false, _) => Object::Table,
                        (true, true) => Object::View,
                        (true, false) => Object::MaterializedView,
                    };
                    add(&line.text("TABLE_SCHEMA"), line.text("TABLE_NAME"), object);
                }
            }
            // With no backend alive there are the lists of the frontend itself, in which
            // materialized views are views.
            Err(e) if lacks_backends(&e.message) => {
                for name in &names {
                    let listed = format!("SHOW FULL TABLES FROM {}", identifier(name)?);
                    for mut row in client.query(&listed).await?.rows {
                        let kind = row.pop().flatten();
                        let Some(table) = row.into_iter().next().flatten() else {
                            continue;
                        };
                        let is_view = kind.is_some_and(|kind| kind == "VIEW");
                        add(
                            name,
                            table,
                            if is_view { Object::View } else { Object::Table },
                        );
                    }
                }
            }
            Err(e) => return Err(e),
        }
        let database = |(name, tables): (String, BTreeMap<String, Object>)| {
            (
                name.clone(),
                Arc::new(Database {
                    name,
                    tables,
                    columns: OnceCell::new(),
                }),
            )
        };
        Ok(Self {
            fetched_at: Some(at),
            databases: databases.into_iter().map(database).collect(),
        })
    }
}

impl Database {
    /// The objects of these kinds, by name.
    pub fn objects(&self, kinds: &[Object]) -> Vec<String> {
        let named = self.tables.iter().filter(|(_, kind)| kinds.contains(kind));
        named.map(|(name, _)| name.clone()).collect()
    }

    async fn columns(&self, client: &Client) -> Result<&HashMap<String, SchemaRef>, Error> {
        self.columns
            .get_or_try_init(|| async {
                let sql = format!(
                    "SELECT TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, COLUMN_TYPE, IS_NULLABLE
                     FROM information_schema.columns WHERE TABLE_SCHEMA = {}",
                    literal(&self.name)
                );
                let answer = client.query(&sql).await?;
                let mut tables: HashMap<String, Vec<(i64, _)>> = HashMap::new();
                for line in lines(&answer) {
                    let name = line.text("COLUMN_NAME");
                    if sayable(&name) {
                        // What a statistic of the frontend calls NOT NULL is believed; a view's
                        // columns are all nullable there.
                        let nullable = line.text("IS_NULLABLE") != "NO";
                        let field = types::field(&name, &line.text("COLUMN_TYPE"), nullable);
                        let position = line.number(&["ORDINAL_POSITION"]).unwrap_or(i64::MAX);
                        tables
                            .entry(line.text("TABLE_NAME"))
                            .or_default()
                            .push((position, field));
                    }
                }
                let schema = |mut columns: Vec<(i64, _)>| {
                    columns.sort_by_key(|(position, _)| *position);
                    Arc::new(Schema::new(
                        columns
                            .into_iter()
                            .map(|(_, field)| field)
                            .collect::<Vec<_>>(),
                    ))
                };
                Ok(tables
                    .into_iter()
                    .map(|(table, columns)| (table, schema(columns)))
                    .collect())
            })
            .await
    }
}

/// The name itself, or the only one that differs from it in case alone.
fn spelled<'a, V>(names: &'a BTreeMap<String, V>, name: &str) -> Option<(&'a String, &'a V)> {
    if let Some(found) = names.get_key_value(name) {
        return Some(found);
    }
    let mut alike = names.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    match (alike.next(), alike.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// The names with the client that reads what they stand for.
#[derive(Debug)]
pub(super) struct CatalogView {
    pub names: Arc<Names>,
    pub client: Arc<Client>,
}

impl CatalogProvider for CatalogView {
    fn schema_names(&self) -> Vec<String> {
        self.names.databases.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let (_, database) = spelled(&self.names.databases, name)?;
        Some(Arc::new(DatabaseView {
            database: database.clone(),
            client: self.client.clone(),
        }))
    }
}

#[derive(Debug)]
struct DatabaseView {
    database: Arc<Database>,
    client: Arc<Client>,
}

#[async_trait]
impl SchemaProvider for DatabaseView {
    fn table_names(&self) -> Vec<String> {
        self.database.tables.keys().cloned().collect()
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(spelled(&self.database.tables, name).map(|(_, object)| object.kind()))
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let Some((name, object)) = spelled(&self.database.tables, name) else {
            return Ok(None);
        };
        let columns = self
            .database
            .columns(&self.client)
            .await
            .map_err(|e| DataFusionError::External(Box::new(e)))?;
        let Some(schema) = columns.get(name) else {
            return Ok(None);
        };
        Ok(Some(Arc::new(StarRocksTable {
            client: self.client.clone(),
            database: self.database.name.clone(),
            name: name.clone(),
            schema: schema.clone(),
            kind: object.kind(),
        })))
    }

    fn table_exist(&self, name: &str) -> bool {
        spelled(&self.database.tables, name).is_some()
    }
}
