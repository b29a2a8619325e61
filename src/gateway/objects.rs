//! The objects of a cluster as PostgreSQL's catalogs tell of them: gathered once for each version
//! of the cluster's names and of what the user may do, and kept for those who ask next.
//!
//! Gathering plans every view and looks at every column, which takes seconds where there are
//! thousands. It is done where queries run, once for all who wait for the same.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::TableType;
use datafusion::execution::SessionState;
use parking_lot::Mutex;
use postgres_types::Type;
use tokio::sync::OnceCell;

use super::Gateway;
use crate::catalog::{Column, Objects, Role, Schema, Table, field_modifier, field_type};
use crate::cluster::{Cluster, ClusterRole, NativeTable, Scope};
use crate::error::Error;
use crate::names::{ClusterName, DatabaseName, TableName, UserName};
use crate::privilege::{Grant, Grantee, Privilege, Rights, Securable};
use crate::query::{SYSTEM_SCHEMA, SessionFacts, view_schema};
use crate::schema::{DefaultValue, KeyModel};

/// What is kept at most: a set of objects for each user and cluster that has asked last.
const KEPT_MAX: usize = 16;

/// Objects that are kept, the one asked for last at the end.
#[derive(Debug, Default)]
pub struct KeptObjects(Mutex<Vec<(Key, Gathered)>>);

/// Gathered once, while all who want them wait.
type Gathered = Arc<OnceCell<Arc<Objects>>>;

/// Whose objects, of which state of everything that they depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    cluster: ClusterName,
    user: UserName,
    names: u64,
    /// Of users, roles, grants and clusters.
    principals: u64,
}

impl KeptObjects {
    fn cell(&self, key: Key) -> Gathered {
        let mut kept = self.0.lock();
        let cell = match kept.iter().position(|(k, _)| *k == key) {
            Some(at) => kept.remove(at).1,
            None => {
                // What was of another state is of no use any more.
                kept.retain(|(k, _)| k.cluster != key.cluster || k.user != key.user);
                if kept.len() >= KEPT_MAX {
                    kept.remove(0);
                }
                Arc::default()
            }
        };
        kept.push((key, cell.clone()));
        cell
    }
}

/// Who there is, and what they hold.
struct Principals {
    databases: Vec<String>,
    roles: Vec<Role>,
    memberships: Vec<(String, String)>,
    fingerprint: u64,
}

impl Gateway {
    async fn principals(&self) -> Result<Principals, Error> {
        let (users, named, grants) = (
            self.store.users().await?,
            self.store.roles().await?,
            self.store.grants().await?,
        );
        let databases: Vec<String> = self
            .clusters
            .all()
            .iter()
            .map(|c| c.name().to_string())
            .collect();
        let mut hasher = DefaultHasher::new();
        databases.hash(&mut hasher);
        for user in &users {
            (user.name.as_str(), user.admin).hash(&mut hasher);
        }
        for role in &named {
            role.name.as_str().hash(&mut hasher);
        }
        format!("{grants:?}").hash(&mut hasher);
        let mut roles: Vec<Role> = users
            .iter()
            .map(|u| Role {
                name: u.name.to_string(),
                is_admin: u.admin,
                can_login: true,
            })
            .collect();
        roles.extend(named.iter().map(|r| Role {
            name: r.name.to_string(),
            is_admin: false,
            can_login: false,
        }));
        let memberships =
            grants
                .into_iter()
                .filter_map(|record| match (record.grant, record.grantee) {
                    (Grant::Role(role), Grantee::User(user)) => {
                        Some((role.to_string(), user.to_string()))
                    }
                    (Grant::Role(role), Grantee::Role(member)) => {
                        Some((role.to_string(), member.to_string()))
                    }
                    _ => None,
                });
        Ok(Principals {
            databases,
            roles,
            memberships: memberships.collect(),
            fingerprint: hasher.finish(),
        })
    }

    /// The objects of a cluster as a user sees them now.
    pub async fn objects(
        self: &Arc<Self>,
        cluster: &Arc<dyn Cluster>,
        user: &UserName,
        facts: &SessionFacts,
    ) -> Result<Arc<Objects>, Error> {
        // Read before everything else: what changes meanwhile is gathered again by whoever asks
        // next.
        let names = cluster.names_version();
        let principals = self.principals().await?;
        let key = names.map(|names| Key {
            cluster: cluster.name().clone(),
            user: user.clone(),
            names,
            principals: principals.fingerprint,
        });
        let cell = key.map_or_else(Arc::default, |key| self.kept_objects.cell(key));
        if let Some(known) = cell.get() {
            return Ok(known.clone());
        }
        let rights = self.rights(user, cluster.name()).await?;
        let as_of = self.engine.as_of(cluster, user.as_str());
        let state = self.engine.state(&as_of, facts)?;
        let (gateway, cluster) = (self.clone(), cluster.clone());
        let gathered = cell.get_or_try_init(|| async move {
            let name = cluster.name().to_string();
            gateway.metrics.catalogs_gathered();
            let schemas = gateway
                .engine
                .offload(async move { schemas(&state, &cluster, &rights).await })
                .await?;
            Ok::<_, Error>(Arc::new(Objects::new(
                &name,
                principals.databases,
                schemas,
                principals.roles,
                principals.memberships,
            )))
        });
        gathered.await.cloned()
    }
}

/// Every database of the cluster with its tables, and the system's.
async fn schemas(state: &SessionState, cluster: &Arc<dyn Cluster>, rights: &Rights) -> Vec<Schema> {
    let details = details(&**cluster).await;
    let mut schemas = Vec::new();
    let Some(catalog) = state.catalog_list().catalog(cluster.name().as_str()) else {
        return schemas;
    };
    for schema_name in catalog.schema_names() {
        let Some(schema) = catalog.schema(&schema_name) else {
            continue;
        };
        let mut tables = Vec::new();
        for table_name in schema.table_names() {
            // Others have their turn, and whoever has given up is noticed.
            tokio::task::yield_now().await;
            // A table that went meanwhile, or that a cluster which does not answer cannot tell of,
            // is left out.
            let Ok(Some(provider)) = schema.table(&table_name).await else {
                continue;
            };
            let known = details.get(&(schema_name.clone(), table_name.clone()));
            let is_view = provider.table_type() == TableType::View && schema_name != SYSTEM_SCHEMA;
            let columns = if is_view {
                view_schema(&**cluster, &*provider)
            } else {
                provider.schema()
            };
            let mut table = table_of(&table_name, &columns, known);
            if is_view {
                table.definition = Some(
                    provider
                        .get_table_definition()
                        .unwrap_or_default()
                        .to_owned(),
                );
            }
            let mut granted = Vec::new();
            if schema_name == SYSTEM_SCHEMA {
                granted.push("SELECT");
            } else if let (Ok(database), Ok(name)) =
                (DatabaseName::new(&schema_name), TableName::new(&table_name))
            {
                let on = Securable::Table(Some(database), name);
                let words = [
                    ("INSERT", Privilege::Insert),
                    ("SELECT", Privilege::Select),
                    ("DELETE", Privilege::Delete),
                ];
                let is_table = table.definition.is_none();
                let held = words.into_iter().filter(|(word, p)| {
                    (is_table || *word == "SELECT") && rights.require(*p, &on).is_ok()
                });
                granted.extend(held.map(|(word, _)| word));
            }
            table.granted = granted;
            tables.push(table);
        }
        schemas.push(Schema {
            name: schema_name,
            tables,
        });
    }
    schemas
}

/// What is known of a table beside its columns' names and types.
#[derive(Clone, Debug, Default)]
struct Details {
    comment: Option<String>,
    /// Whether equal keys mean the same row.
    unique: bool,
    columns: HashMap<String, ColumnDetails>,
}

#[derive(Clone, Debug, Default)]
struct ColumnDetails {
    is_key: bool,
    not_null: bool,
    /// Of VARCHAR and CHAR.
    length: Option<u32>,
    default: Option<String>,
    comment: Option<String>,
}

/// A default as SQL says it: numbers bare, everything else in quotes.
fn default_text(text: &str, pg: &Type) -> String {
    if text.eq_ignore_ascii_case("current_timestamp") {
        return "CURRENT_TIMESTAMP".into();
    }
    let is_number = matches!(
        *pg,
        Type::INT2 | Type::INT4 | Type::INT8 | Type::NUMERIC | Type::FLOAT4 | Type::FLOAT8
    );
    let quoted = || {
        format!(
            "'{}'::{}",
            text.replace('\'', "''"),
            crate::catalog::sql_type_name(pg)
        )
    };
    match *pg {
        Type::BOOL => if matches!(text, "1" | "true") {
            "true"
        } else {
            "false"
        }
        .to_owned(),
        _ if is_number && text.parse::<f64>().is_ok() => text.to_owned(),
        _ => quoted(),
    }
}

/// Keys, comments and defaults, by database and table.
async fn details(cluster: &dyn Cluster) -> HashMap<(String, String), Details> {
    match cluster.role() {
        ClusterRole::Managed(managed) => {
            let Ok(databases) = managed.databases().await else {
                return HashMap::new();
            };
            let tables = databases
                .iter()
                .flat_map(|d| d.tables.iter().map(move |t| (d, t)));
            let mut all: HashMap<_, _> = tables
                .map(|(database, table)| {
                    let schema = &table.schema;
                    let columns = schema.columns.iter().map(|c| {
                        let details = ColumnDetails {
                            is_key: schema.key_columns.contains(&c.name),
                            not_null: !c.nullable,
                            length: c.column_type.length(),
                            default: match &c.default {
                                Some(DefaultValue::Literal(text)) => Some(text.clone()),
                                Some(DefaultValue::CurrentTimestamp) => {
                                    Some("CURRENT_TIMESTAMP".into())
                                }
                                _ => None,
                            },
                            comment: c.comment.clone(),
                        };
                        (c.name.clone(), details)
                    });
                    let unique = !matches!(schema.key, KeyModel::Duplicate);
                    let details = Details {
                        comment: schema.comment.clone(),
                        unique,
                        columns: columns.collect(),
                    };
                    ((database.name.to_string(), table.name.to_string()), details)
                })
                .collect();
            for database in &databases {
                for view in &database.views {
                    let columns = view.definition.columns.iter();
                    let columns = columns.map(|c| {
                        (
                            c.name.clone(),
                            ColumnDetails {
                                comment: c.comment.clone(),
                                ..ColumnDetails::default()
                            },
                        )
                    });
                    let details = Details {
                        comment: view.definition.comment.clone(),
                        unique: false,
                        columns: columns.collect(),
                    };
                    all.insert((database.name.to_string(), view.name.to_string()), details);
                }
            }
            all
        }
        ClusterRole::External(external) => {
            let scope = Scope::default();
            let asked = futures::future::join(
                external.native(NativeTable::Tables, &scope),
                external.native(NativeTable::Columns, &scope),
            );
            let (tables, columns) = asked.await;
            let mut all: HashMap<(String, String), Details> = HashMap::new();
            let get = |record: &crate::cluster::Record, name: &str| {
                record
                    .get(name)
                    .map(|t| t.to_string())
                    .filter(|t| !t.is_empty())
            };
            for table in tables.unwrap_or_default() {
                let (Some(database), Some(name)) =
                    (get(&table, "db_name"), get(&table, "table_name"))
                else {
                    continue;
                };
                let entry = all.entry((database, name)).or_default();
                entry.comment = get(&table, "comment");
            }
            for column in columns.unwrap_or_default() {
                let names = (
                    get(&column, "db_name"),
                    get(&column, "table_name"),
                    get(&column, "column_name"),
                );
                let (Some(database), Some(table), Some(name)) = names else {
                    continue;
                };
                let details = ColumnDetails {
                    is_key: get(&column, "is_key").as_deref() == Some("true"),
                    not_null: get(&column, "nullable").as_deref() == Some("false"),
                    length: get(&column, "type").and_then(|t| length_of(&t)),
                    default: get(&column, "default_value"),
                    comment: get(&column, "comment"),
                };
                let entry = all.entry((database, table)).or_default();
                // Rows of a table with a DUPLICATE KEY may be alike.
                let key_model = get(&column, "key_model").unwrap_or_default();
                entry.unique |= ["PRI", "UNI", "AGG"].contains(&key_model.as_str());
                entry.columns.insert(name, details);
            }
            all
        }
        ClusterRole::RepositoryOnly => HashMap::new(),
    }
}

/// `varchar(20)` → 20.
fn length_of(column_type: &str) -> Option<u32> {
    let lower = column_type.to_lowercase();
    let digits = lower
        .strip_prefix("varchar(")
        .or_else(|| lower.strip_prefix("char("))?
        .strip_suffix(')')?;
    digits.parse().ok()
}

/// The longest VARCHAR that is told as such: StarRocks says VARCHAR(65533) of STRING, which clients
/// know as text.
const VARCHAR_MAX: u32 = 65_532;

fn table_of(name: &str, schema: &SchemaRef, details: Option<&Details>) -> Table {
    let columns: Vec<Column> = schema
        .fields()
        .iter()
        .map(|field| {
            let known = details.and_then(|d| d.columns.get(field.name()));
            let length = known.and_then(|k| k.length).filter(|n| *n <= VARCHAR_MAX);
            let (pg, modifier) = match length {
                Some(n) if field_type(field) == Type::TEXT => {
                    (Type::VARCHAR, i32::try_from(n).map_or(-1, |n| n + 4))
                }
                _ => (field_type(field), field_modifier(field)),
            };
            Column {
                name: field.name().clone(),
                default: known
                    .and_then(|k| k.default.as_deref())
                    .map(|d| default_text(d, &pg)),
                not_null: known.is_some_and(|k| k.not_null),
                comment: known.and_then(|k| k.comment.clone()),
                pg,
                modifier,
            }
        })
        .collect();
    let is_key = |c: &Column| {
        details.is_some_and(|d| d.unique && d.columns.get(&c.name).is_some_and(|k| k.is_key))
    };
    let key = columns
        .iter()
        .enumerate()
        .filter(|(_, c)| is_key(c))
        .map(|(i, _)| i)
        .collect();
    let mut table = Table {
        name: name.to_owned(),
        columns,
        key,
        comment: details.and_then(|d| d.comment.clone()),
        ..Table::default()
    };
    // What tells rows apart is never NULL.
    for i in &table.key {
        table.columns[*i].not_null = true;
    }
    table
}
