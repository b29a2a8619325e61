//! What the catalogs of PostgreSQL say of this cluster, as the session's user sees it, and queries of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;
use tokio_util::sync::CancellationToken;

use super::{Outcome, Prepared, Rows, Session, TransactionState, located, plan_sql};
use crate::catalog::{
    Activity, Catalogs, Column, Effect, Need, Role, Schema, Setting, Snapshot, Table, World, asks_the_catalogs, field_modifier,
    field_type, has_decimals, is_without_relations, names_a_catalog, need_of,
};
use crate::cluster::{Labour, NativeTable, Scope};
use crate::error::{Error, ErrorKind};
use crate::names::{DatabaseName, TableName};
use crate::privilege::{Grant, Grantee, Privilege, Securable};
use crate::query::{SYSTEM_SCHEMA, server_version_text};
use crate::schema::{DefaultValue, KeyModel};

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
    let is_number = matches!(*pg, Type::INT2 | Type::INT4 | Type::INT8 | Type::NUMERIC | Type::FLOAT4 | Type::FLOAT8);
    let quoted = || format!("'{}'::{}", text.replace('\'', "''"), crate::catalog::sql_type_name(pg));
    match *pg {
        Type::BOOL => if matches!(text, "1" | "true") { "true" } else { "false" }.to_owned(),
        _ if is_number && text.parse::<f64>().is_ok() => text.to_owned(),
        _ => quoted(),
    }
}

impl Session {
    /// The types of a query's parameters and its columns, if it is about PostgreSQL's catalogs alone.
    pub(super) async fn describe_by_catalogs(
        &mut self,
        ast: &sql::Statement,
        text: &str,
        declared: &[Option<DataType>],
    ) -> Result<Option<(Vec<DataType>, SchemaRef)>, Error> {
        let sql::Statement::Query(query) = ast else { return Ok(None) };
        if !asks_the_catalogs(&self.gateway.statics, query) {
            return Ok(None);
        }
        let described = self.catalogs_for(query).await?.describe(query, declared);
        let is_better_planned = is_without_relations(query)
            && match &described {
                Ok(_) => has_decimals(query),
                Err(e) => matches!(e.kind, ErrorKind::Unsupported | ErrorKind::UndefinedFunction),
            };
        if is_better_planned {
            // Not the block's: nothing of it is read.
            let view = self.gateway.engine.view(&self.cluster, self.client.user.as_str());
            let state = self.gateway.engine.state(&view, &self.facts())?;
            if plan_sql(&self.gateway.engine, &state, ast).await.is_ok() {
                return Ok(None);
            }
        }
        described.map(Some).map_err(|e| located(e, ast, text))
    }

    /// Whether it names one of them beside other tables.
    pub(super) fn names_a_catalog(&self, ast: &sql::Statement) -> bool {
        names_a_catalog(&self.gateway.statics, ast)
    }

    /// The catalogs at this instant, or at that of the block.
    pub(super) async fn catalogs(&mut self) -> Result<Catalogs, Error> {
        if let Some(known) = &self.block.catalogs {
            return Ok(known.clone());
        }
        // Those who browse must come in even while the cluster is down; what was known is shown.
        let _ = self.cluster.refresh().await;
        let view = self.view();
        let state = self.gateway.engine.state(&view, &self.facts())?;
        let catalogs = Catalogs(Arc::new(Snapshot::new(self.world(&state).await?, self.gateway.statics.clone())));
        if self.block.state == TransactionState::Active {
            self.block.catalogs = Some(catalogs.clone());
        }
        Ok(catalogs)
    }

    /// As much of the catalogs as a query needs.
    pub(super) async fn catalogs_for(&mut self, query: &sql::Query) -> Result<Catalogs, Error> {
        let world = match need_of(query) {
            Need::Objects => return self.catalogs().await,
            Need::Nothing => World::default(),
            Need::Session => World {
                now: self.gateway.env.now().micros(),
                started_at: self.gateway.started_at.micros(),
                user: self.client.user.to_string(),
                pid: self.client.pid,
                database: self.cluster.name().to_string(),
                current_schema: self.database.as_ref().map(ToString::to_string),
                settings: self.settings(),
                version: server_version_text(),
                ..World::default()
            },
        };
        Ok(Catalogs(Arc::new(Snapshot::new(world, self.gateway.statics.clone()))))
    }

    /// Answers a query of the catalogs, and does what its functions ask for.
    pub(super) async fn ask_catalogs(
        &mut self,
        query: &sql::Query,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        let catalogs = self.catalogs_for(query).await?;
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let answer = if need_of(query) == Need::Objects {
            let (query, types) = (query.clone(), prepared.parameters.clone());
            let work = async move { catalogs.answer(&query, &types, &values, stop) };
            self.gateway.engine.offload(work).await??
        } else {
            // Over before another thread would have taken it.
            catalogs.answer(query, &prepared.parameters, &values, stop)?
        };
        for effect in answer.effects {
            self.take_effect(effect).await?;
        }
        let view = self.gateway.engine.view(&self.cluster, self.client.user.as_str());
        Ok(Outcome::Rows(Rows::of(answer.batch, "SELECT", view)))
    }

    async fn take_effect(&mut self, effect: Effect) -> Result<(), Error> {
        match effect {
            Effect::Set { name, value, local } => self.set(&name, &[value], local),
            Effect::Sleep(micros) => {
                self.gateway.env.clock.sleep(Duration::from_micros(micros)).await;
                Ok(())
            }
            Effect::Cancel(pid) | Effect::Terminate(pid) => {
                let sessions = self.gateway.engine.sources().sessions.read().get(&pid).map(|s| s.user.clone());
                if sessions.is_some_and(|user| user != self.client.user.as_str()) && self.require_admin().await.is_err() {
                    let message = "must be a member of the role whose query is being canceled or an administrator";
                    return Err(Error::new(ErrorKind::InsufficientPrivilege, message));
                }
                match effect {
                    Effect::Cancel(_) => self.gateway.connections.cancel_statement(pid),
                    _ => self.gateway.connections.terminate(pid),
                }
                Ok(())
            }
        }
    }

    /// Everything that a catalog query may ask about.
    async fn world(&self, state: &SessionState) -> Result<World, Error> {
        let sources = self.gateway.engine.sources();
        let rights = self.rights().await?;
        let details = self.details().await;
        let mut schemas = Vec::new();
        let name = self.cluster.name().to_string();
        if let Some(catalog) = state.catalog_list().catalog(&name) {
            for schema_name in catalog.schema_names() {
                let Some(schema) = catalog.schema(&schema_name) else { continue };
                let mut tables = Vec::new();
                for table_name in schema.table_names() {
                    // A table that went meanwhile, or that a cluster which does not answer cannot tell of, is left out.
                    let Ok(Some(provider)) = schema.table(&table_name).await else { continue };
                    let known = details.get(&(schema_name.clone(), table_name.clone()));
                    let is_view = provider.table_type() == TableType::View && schema_name != SYSTEM_SCHEMA;
                    let columns = if is_view { self.view_schema(&*provider) } else { provider.schema() };
                    let mut table = table_of(&table_name, &columns, known);
                    if is_view {
                        table.definition = Some(provider.get_table_definition().unwrap_or_default().to_owned());
                    }
                    let mut granted = Vec::new();
                    if schema_name == SYSTEM_SCHEMA {
                        granted.push("SELECT");
                    } else if let (Ok(database), Ok(name)) = (DatabaseName::new(&schema_name), TableName::new(&table_name)) {
                        let on = Securable::Table(Some(database), name);
                        let words = [("INSERT", Privilege::Insert), ("SELECT", Privilege::Select), ("DELETE", Privilege::Delete)];
                        let is_table = table.definition.is_none();
                        let held = words
                            .into_iter()
                            .filter(|(word, p)| (is_table || *word == "SELECT") && rights.require(*p, &on).is_ok());
                        granted.extend(held.map(|(word, _)| word));
                    }
                    table.granted = granted;
                    tables.push(table);
                }
                schemas.push(Schema { name: schema_name, tables });
            }
        }
        let users = sources.store.users().await?;
        let sees_all = users.iter().any(|u| u.admin && u.name == self.client.user);
        let mut roles: Vec<Role> =
            users.iter().map(|u| Role { name: u.name.to_string(), is_admin: u.admin, can_login: true }).collect();
        let named = sources.store.roles().await?;
        roles.extend(named.iter().map(|r| Role { name: r.name.to_string(), is_admin: false, can_login: false }));
        let memberships = sources.store.grants().await?.into_iter().filter_map(|record| match (record.grant, record.grantee) {
            (Grant::Role(role), Grantee::User(user)) => Some((role.to_string(), user.to_string())),
            (Grant::Role(role), Grantee::Role(member)) => Some((role.to_string(), member.to_string())),
            _ => None,
        });
        let sessions = sources.sessions.read().clone();
        let activity = sessions.iter().map(|(pid, s)| {
            let state = match (s.active, s.in_block) {
                (true, _) => "active",
                (false, true) => "idle in transaction",
                (false, false) => "idle",
            };
            Activity {
                pid: *pid,
                user: s.user.clone(),
                database: s.cluster.clone(),
                application_name: s.application_name.clone().unwrap_or_default(),
                client_addr: if sees_all || s.user == self.client.user.as_str() { s.client_addr.clone() } else { String::new() },
                started_at: s.started_at.micros(),
                query_start: s.query_started_at.map(|t| t.micros()),
                state: state.to_owned(),
                query: s.statement.clone().filter(|_| sees_all || s.user == self.client.user.as_str()),
            }
        });
        Ok(World {
            now: self.gateway.env.now().micros(),
            started_at: self.gateway.started_at.micros(),
            user: self.client.user.to_string(),
            pid: self.client.pid,
            database: name,
            current_schema: self.database.as_ref().map(ToString::to_string),
            databases: self.gateway.clusters.all().iter().map(|c| c.name().to_string()).collect(),
            schemas,
            roles,
            memberships: memberships.collect(),
            settings: self.settings(),
            activity: activity.collect(),
            prepared: self.prepared.iter().filter(|(n, _)| !n.is_empty()).map(|(n, p)| (n.clone(), p.text.to_string())).collect(),
            cursors: self.cursor_facts(),
            version: server_version_text(),
        })
    }

    /// Every setting, with its value in this session.
    fn settings(&self) -> Vec<Setting> {
        let mut settings = self.variables.all();
        for setting in &mut settings {
            match setting.name.as_str() {
                "search_path" => setting.value = self.database.as_ref().map(ToString::to_string).unwrap_or(setting.value.clone()),
                "transaction_isolation" => setting.value = self.isolation().to_owned(),
                _ => {}
            }
        }
        settings
    }

    /// Keys, comments and defaults, by database and table.
    async fn details(&self) -> HashMap<(String, String), Details> {
        match self.cluster.labour() {
            Labour::Ours(worker) => {
                let Ok(description) = worker.describe().await else { return HashMap::new() };
                let tables = description.databases.iter().flat_map(|d| d.tables.iter().map(move |t| (d, t)));
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
                                    Some(DefaultValue::CurrentTimestamp) => Some("CURRENT_TIMESTAMP".into()),
                                    _ => None,
                                },
                                comment: c.comment.clone(),
                            };
                            (c.name.clone(), details)
                        });
                        let unique = !matches!(schema.key, KeyModel::Duplicate);
                        let details = Details { comment: schema.comment.clone(), unique, columns: columns.collect() };
                        ((database.name.to_string(), table.name.to_string()), details)
                    })
                    .collect();
                for database in &description.databases {
                    for view in &database.views {
                        let columns = view.definition.columns.iter();
                        let columns = columns
                            .map(|c| (c.name.clone(), ColumnDetails { comment: c.comment.clone(), ..ColumnDetails::default() }));
                        let details =
                            Details { comment: view.definition.comment.clone(), unique: false, columns: columns.collect() };
                        all.insert((database.name.to_string(), view.name.to_string()), details);
                    }
                }
                all
            }
            Labour::Theirs(remote) => {
                let scope = Scope::default();
                let asked =
                    futures::future::join(remote.native(NativeTable::Tables, &scope), remote.native(NativeTable::Columns, &scope));
                let (tables, columns) = asked.await;
                let mut all: HashMap<(String, String), Details> = HashMap::new();
                let get =
                    |record: &crate::cluster::Record, name: &str| record.get(name).map(|t| t.to_string()).filter(|t| !t.is_empty());
                for table in tables.unwrap_or_default() {
                    let (Some(database), Some(name)) = (get(&table, "db_name"), get(&table, "table_name")) else { continue };
                    let entry = all.entry((database, name)).or_default();
                    entry.comment = get(&table, "comment");
                    entry.unique = get(&table, "model").is_some_and(|m| !m.to_uppercase().starts_with("DUP"));
                }
                for column in columns.unwrap_or_default() {
                    let names = (get(&column, "db_name"), get(&column, "table_name"), get(&column, "column_name"));
                    let (Some(database), Some(table), Some(name)) = names else { continue };
                    let details = ColumnDetails {
                        is_key: get(&column, "is_key").as_deref() == Some("true"),
                        not_null: get(&column, "nullable").as_deref() == Some("false"),
                        length: get(&column, "type").and_then(|t| length_of(&t)),
                        default: get(&column, "default_value"),
                        comment: get(&column, "comment"),
                    };
                    all.entry((database, table)).or_default().columns.insert(name, details);
                }
                all
            }
            Labour::Nobody => HashMap::new(),
        }
    }
}

/// `varchar(20)` → 20.
fn length_of(column_type: &str) -> Option<u32> {
    let lower = column_type.to_lowercase();
    let digits = lower.strip_prefix("varchar(").or_else(|| lower.strip_prefix("char("))?.strip_suffix(')')?;
    digits.parse().ok()
}

/// The longest VARCHAR that is told as such: StarRocks says VARCHAR(65533) of STRING, which clients know as text.
const VARCHAR_MAX: u32 = 65_532;

fn table_of(name: &str, schema: &SchemaRef, details: Option<&Details>) -> Table {
    let columns: Vec<Column> = schema
        .fields()
        .iter()
        .map(|field| {
            let known = details.and_then(|d| d.columns.get(field.name()));
            let length = known.and_then(|k| k.length).filter(|n| *n <= VARCHAR_MAX);
            let (pg, modifier) = match length {
                Some(n) if field_type(field) == Type::TEXT => (Type::VARCHAR, i32::try_from(n).map_or(-1, |n| n + 4)),
                _ => (field_type(field), field_modifier(field)),
            };
            Column {
                name: field.name().clone(),
                default: known.and_then(|k| k.default.as_deref()).map(|d| default_text(d, &pg)),
                not_null: known.is_some_and(|k| k.not_null),
                comment: known.and_then(|k| k.comment.clone()),
                pg,
                modifier,
            }
        })
        .collect();
    let is_key = |c: &Column| details.is_some_and(|d| d.unique && d.columns.get(&c.name).is_some_and(|k| k.is_key));
    let key = columns.iter().enumerate().filter(|(_, c)| is_key(c)).map(|(i, _)| i).collect();
    let mut table =
        Table { name: name.to_owned(), columns, key, comment: details.and_then(|d| d.comment.clone()), ..Table::default() };
    // What tells rows apart is never NULL.
    for i in &table.key {
        table.columns[*i].not_null = true;
    }
    table
}
