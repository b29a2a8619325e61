//! What the catalogs speak of at one instant, and the numbers (oids) of it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use postgres_types::Type;
use starkeep_error::{Error, ErrorKind};
use starkeep_pg_semantics::text::{identifiers, quote_ident};
use twox_hash::XxHash3_64;

use super::relations::{BuiltinRelations, Relation};
use super::value::{ValueType, type_name};

/// Everything that a catalog query may ask about, as its user sees it.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// Microseconds since 1970.
    pub now: i64,
    /// When the server came up.
    pub started_at: i64,
    /// Who asks.
    pub user: String,
    /// The connection that asks.
    pub pid: i32,
    /// The cluster that is asked: PostgreSQL's database.
    pub database: String,
    /// The current StarRocks database: the first schema of the search path.
    pub current_schema: Option<String>,
    pub objects: Arc<Objects>,
    /// Name, value, default, meaning.
    pub settings: Vec<Setting>,
    /// Open connections.
    pub activity: Vec<Activity>,
    /// Prepared statements of the connection: name and text.
    pub prepared: Vec<(String, String)>,
    /// Cursors of the connection: name, text, WITH HOLD, SCROLL.
    pub cursors: Vec<(String, String, bool, bool)>,
    /// `version()`
    pub version: String,
}

/// What there is in a cluster and who may use it, as one user sees it, with its numbers. It
/// outlives the queries that ask for it, and so do the relations that were made of it.
#[derive(Debug, Default)]
pub struct Objects {
    /// Every cluster.
    pub databases: Vec<String>,
    /// The databases of the cluster: PostgreSQL's schemas.
    pub schemas: Vec<Schema>,
    /// Users and roles.
    pub roles: Vec<Role>,
    /// Who belongs to what: role and member.
    pub memberships: Vec<(String, String)>,
    oids: Oids,
    relations: Mutex<HashMap<(String, String), Arc<Relation>>>,
}

/// A database of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub name: String,
    /// Its tables and views.
    pub tables: Vec<Table>,
}

/// A table or view.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// The places of the columns that tell its rows apart; none for tables that keep duplicates.
    pub key: Vec<usize>,
    pub comment: Option<String>,
    /// The query of a view.
    pub definition: Option<String>,
    /// What the user may do with it: SELECT, INSERT, DELETE.
    pub granted: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub pg: Type,
    /// Precision and scale, or length; -1 for none.
    pub modifier: i32,
    /// Whether NULL is kept out.
    pub not_null: bool,
    /// Its default, as SQL.
    pub default: Option<String>,
    pub comment: Option<String>,
}

/// A user or role.
#[derive(Clone, Debug, Default)]
pub struct Role {
    pub name: String,
    /// Whether it may do everything.
    pub is_admin: bool,
    /// Whether it may log in.
    pub can_login: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Its name, in lower case.
    pub name: String,
    /// Its value in this session.
    pub value: String,
    /// Its value in a new one.
    pub default: String,
    /// Whether a session may change it.
    pub is_fixed: bool,
}

/// An open connection.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// Its number.
    pub pid: i32,
    pub user: String,
    pub database: String,
    /// What the client calls itself.
    pub application_name: String,
    /// Its address.
    pub client_addr: String,
    /// When it came.
    pub started_at: i64,
    /// When its statement began.
    pub query_start: Option<i64>,
    /// `active`, `idle`, `idle in transaction`
    pub state: String,
    /// The statement, if the user may see it.
    pub query: Option<String>,
}

/// Where numbers of a user's objects begin, as in PostgreSQL.
const FIRST_USER_OID: u32 = 16_384;
pub(super) const PG_CATALOG: u32 = 11;
/// As in the PostgreSQL that `builtin/` was written from.
pub(super) const INFORMATION_SCHEMA: u32 = 13_207;
/// The first of PostgreSQL's roles, the owner of everything here.
pub(super) const OWNER: u32 = 10;

/// Relations that say what happens in this moment or in this session.
const MOMENTARY: &[&str] = &[
    "pg_cursors",
    "pg_prepared_statements",
    "pg_settings",
    "pg_stat_activity",
    "pg_stat_ssl",
    "pg_stat_gssapi",
    "pg_stat_database",
];

/// The [`ServerFacts`] of one moment, and the relations that were made of them so far.
#[derive(Debug)]
pub struct CatalogSnapshot {
    pub(super) facts: ServerFacts,
    pub(super) builtin: Arc<BuiltinRelations>,
    relations: Mutex<HashMap<(String, String), Arc<Relation>>>,
}

/// What an oid may be the number of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Object {
    Database(String),
    Schema(String),
    Relation(String, String),
    /// The index, and the constraint, of a table's key.
    Key(String, String),
    Constraint(String, String),
    Default(String, String, String),
    Role(String),
}

/// Numbers follow from names, so that they are the same tomorrow and after a restart. Two names
/// with one number are told apart by giving the next free one to whichever comes later in order.
#[derive(Debug, Default)]
struct Oids {
    of: HashMap<Object, u32>,
    named: HashMap<u32, Object>,
}

/// The number of a name.
fn number(object: &Object, database: &str) -> u32 {
    const ROOM: u64 = (i32::MAX as u64) - FIRST_USER_OID as u64;
    FIRST_USER_OID
        + (XxHash3_64::oneshot(format!("{database}\0{object:?}").as_bytes()) % ROOM) as u32
}

/// The number of a table, unless another one has it, which no one but a [`CatalogSnapshot`] can
/// tell.
pub fn relation_oid(database: &str, schema: &str, table: &str) -> u32 {
    number(
        &Object::Relation(schema.to_owned(), table.to_owned()),
        database,
    )
}

impl Oids {
    fn add(&mut self, object: Object, database: &str) {
        let mut oid = number(&object, database);
        while self.named.contains_key(&oid) {
            oid = oid.checked_add(1).unwrap_or(FIRST_USER_OID);
        }
        self.of.insert(object.clone(), oid);
        self.named.insert(oid, object);
    }
}

impl Objects {
    /// Gives numbers to everything. `database` is the cluster.
    pub fn new(
        database: &str,
        databases: Vec<String>,
        schemas: Vec<Schema>,
        roles: Vec<Role>,
        memberships: Vec<(String, String)>,
    ) -> Self {
        let mut objects = Vec::new();
        objects.extend(databases.iter().map(|d| Object::Database(d.clone())));
        objects.extend(roles.iter().map(|r| Object::Role(r.name.clone())));
        for schema in &schemas {
            objects.push(Object::Schema(schema.name.clone()));
            for table in &schema.tables {
                let names = || (schema.name.clone(), table.name.clone());
                let make = |of: fn(String, String) -> Object| {
                    let (schema, table) = names();
                    of(schema, table)
                };
                objects.push(make(Object::Relation));
                if !table.key.is_empty() {
                    objects.push(make(Object::Key));
                    objects.push(make(Object::Constraint));
                }
                let defaults = table.columns.iter().filter(|c| c.default.is_some());
                objects.extend(defaults.map(|c| {
                    Object::Default(schema.name.clone(), table.name.clone(), c.name.clone())
                }));
            }
        }
        objects.sort();
        let mut oids = Oids::default();
        for object in objects {
            // Databases and roles are those of the gateway; the rest is the cluster's.
            let scope = if matches!(object, Object::Database(_) | Object::Role(_)) {
                ""
            } else {
                database
            };
            oids.add(object, scope);
        }
        Self {
            databases,
            schemas,
            roles,
            memberships,
            oids,
            relations: Mutex::default(),
        }
    }
}

impl CatalogSnapshot {
    /// Facts that can be asked about.
    pub fn new(facts: ServerFacts, builtin: Arc<BuiltinRelations>) -> Self {
        Self {
            facts,
            builtin,
            relations: Mutex::default(),
        }
    }

    pub(super) fn oid(&self, object: &Object) -> u32 {
        match object {
            Object::Role(name) if name == "root" => OWNER,
            Object::Schema(name) if name == "pg_catalog" => PG_CATALOG,
            Object::Schema(name) if name == "information_schema" => INFORMATION_SCHEMA,
            object => self.facts.objects.oids.of.get(object).copied().unwrap_or(0),
        }
    }

    pub(super) fn relation_oid(&self, schema: &str, table: &str) -> u32 {
        self.oid(&Object::Relation(schema.to_owned(), table.to_owned()))
    }

    pub(super) fn named(&self, oid: u32) -> Option<&Object> {
        self.facts.objects.oids.named.get(&oid)
    }

    pub(super) fn role_name(&self, oid: u32) -> Option<String> {
        match self.named(oid) {
            _ if oid == OWNER => Some("root".into()),
            Some(Object::Role(name)) => Some(name.clone()),
            _ => None,
        }
    }

    /// The schemas in which bare names are looked for: the current one behind PostgreSQL's own.
    pub(super) fn search_path(&self, implicit: bool) -> Vec<String> {
        let current = self.facts.current_schema.clone();
        let own = implicit.then(|| "pg_catalog".to_owned());
        own.into_iter()
            .chain(current.or_else(|| Some("system".into())))
            .collect()
    }

    /// A relation, made when it is first asked for; `None` if there is no such one.
    pub(super) fn relation(
        &self,
        schema: &str,
        name: &str,
    ) -> Result<Option<Arc<Relation>>, Error> {
        let key = (schema.to_owned(), name.to_owned());
        let kept = if MOMENTARY.contains(&name) {
            &self.relations
        } else {
            &self.facts.objects.relations
        };
        if let Some(known) = kept.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let Some(definition) = self.builtin.definition(schema, name) else {
            return Ok(None);
        };
        let rows = if schema == "information_schema" {
            super::information_schema::rows(self, definition)?
        } else {
            super::tables::rows(self, definition)?
        };
        let columns = definition
            .columns
            .iter()
            .map(|(n, ty)| ((*n).to_owned(), ValueType::of(ty.clone())))
            .collect();
        let relation = Arc::new(Relation { columns, rows });
        kept.lock().insert(key, relation.clone());
        Ok(Some(relation))
    }

    /// Schema and name of a relation by its number, PostgreSQL's own and indexes included.
    pub(super) fn relation_name(&self, oid: u32) -> Option<(String, String)> {
        match self.named(oid) {
            Some(Object::Relation(schema, name)) => Some((schema.clone(), name.clone())),
            Some(Object::Key(schema, table)) => Some((schema.clone(), format!("{table}_pkey"))),
            Some(_) => None,
            None => {
                let own = self.builtin.definitions.iter().find(|d| d.oid == oid)?;
                Some((own.schema.into(), own.name.into()))
            }
        }
    }

    /// What `regclass` and the like show: the name, qualified where it must be; the number if there
    /// is no name.
    pub(super) fn reg_name(&self, ty: &Type, oid: u32) -> String {
        let path = self.search_path(true);
        let name = match *ty {
            Type::REGCLASS => self.relation_name(oid).map(|(schema, name)| {
                let bare = path.contains(&schema);
                if bare {
                    quote_ident(&name)
                } else {
                    format!("{}.{}", quote_ident(&schema), quote_ident(&name))
                }
            }),
            Type::REGTYPE => Type::from_oid(oid)
                .map(|t| type_name(&t))
                .or_else(|| self.builtin.type_names.get(&oid).cloned()),
            Type::REGPROC | Type::REGPROCEDURE => self.builtin.function_names.get(&oid).cloned(),
            Type::REGNAMESPACE => match oid {
                PG_CATALOG => Some("pg_catalog".into()),
                INFORMATION_SCHEMA => Some("information_schema".into()),
                oid => match self.named(oid) {
                    Some(Object::Schema(name)) => Some(quote_ident(name)),
                    _ => None,
                },
            },
            Type::REGROLE => self.role_name(oid).map(|n| quote_ident(&n)),
            _ => None,
        };
        name.unwrap_or_else(|| {
            if oid == 0 {
                "-".into()
            } else {
                oid.to_string()
            }
        })
    }

    /// The number behind a name that is written as `regclass` and the like.
    pub(super) fn reg_oid(&self, ty: &Type, text: &str) -> Result<u32, Error> {
        if let Ok(oid) = text.parse() {
            return Ok(oid);
        }
        if text == "-" {
            return Ok(0);
        }
        let found = match *ty {
            Type::REGCLASS => self.class_oid(text),
            Type::REGTYPE => self.type_oid(text),
            Type::REGPROC | Type::REGPROCEDURE => {
                let name = text.split('(').next().unwrap_or(text);
                self.builtin
                    .function(name.trim_start_matches("pg_catalog."))
            }
            Type::REGNAMESPACE => {
                let name = identifiers(text).pop().unwrap_or_default();
                Some(self.oid(&Object::Schema(name))).filter(|oid| *oid != 0)
            }
            Type::REGROLE => {
                let name = identifiers(text).pop().unwrap_or_default();
                Some(self.oid(&Object::Role(name))).filter(|oid| *oid != 0)
            }
            _ => None,
        };
        found.ok_or_else(|| match *ty {
            Type::REGCLASS => Error::new(
                ErrorKind::UndefinedTable,
                format!("relation \"{text}\" does not exist"),
            ),
            Type::REGTYPE => Error::new(
                ErrorKind::UndefinedObject,
                format!("type \"{text}\" does not exist"),
            ),
            Type::REGNAMESPACE => Error::new(
                ErrorKind::UndefinedSchema,
                format!("schema \"{text}\" does not exist"),
            ),
            Type::REGROLE => Error::new(
                ErrorKind::UndefinedObject,
                format!("role \"{text}\" does not exist"),
            ),
            _ => Error::new(
                ErrorKind::UndefinedFunction,
                format!("function \"{text}\" does not exist"),
            ),
        })
    }

    fn class_oid(&self, text: &str) -> Option<u32> {
        let parts = identifiers(text);
        let look = |schema: &str, name: &str| {
            if let Some(own) = self.builtin.definition(schema, name) {
                return Some(own.oid);
            }
            let oid = match self.relation_oid(schema, name) {
                0 => name.strip_suffix("_pkey").map_or(0, |t| {
                    self.oid(&Object::Key(schema.to_owned(), t.to_owned()))
                }),
                oid => oid,
            };
            (oid != 0).then_some(oid)
        };
        match parts.as_slice() {
            [name] => self
                .search_path(true)
                .iter()
                .find_map(|schema| look(schema, name)),
            [schema, name] => look(schema, name),
            [database, schema, name] if *database == self.facts.database => look(schema, name),
            _ => None,
        }
    }

    /// A type by what SQL calls it, or by its own name.
    pub(super) fn type_oid(&self, text: &str) -> Option<u32> {
        let text = text.trim().trim_start_matches("pg_catalog.");
        if let Some(item) = text.strip_suffix("[]") {
            return Type::from_oid(self.type_oid(item)?).map(|t| ValueType::of(t).array().pg.oid());
        }
        let bare = text.split('(').next().unwrap_or(text).trim();
        let own = match bare.to_ascii_lowercase().as_str() {
            "boolean" => "bool",
            "smallint" => "int2",
            "integer" | "int" => "int4",
            "bigint" => "int8",
            "real" => "float4",
            "double precision" | "float" => "float8",
            "decimal" => "numeric",
            "character varying" => "varchar",
            "character" => "bpchar",
            "timestamp without time zone" => "timestamp",
            "timestamp with time zone" => "timestamptz",
            "time without time zone" => "time",
            "time with time zone" => "timetz",
            _ => {
                return self
                    .builtin
                    .type_oid(&identifiers(bare).pop().unwrap_or_default());
            }
        };
        self.builtin.type_oid(own)
    }

    /// All tables with their schema, in order.
    pub(super) fn tables(&self) -> impl Iterator<Item = (&Schema, &Table)> {
        self.facts
            .objects
            .schemas
            .iter()
            .flat_map(|s| s.tables.iter().map(move |t| (s, t)))
    }

    /// The value of a setting.
    pub(super) fn setting(&self, name: &str) -> Option<&Setting> {
        let name = name.to_lowercase();
        self.facts.settings.iter().find(|s| s.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_names() {
        let builtin = Arc::new(BuiltinRelations::load().expect("the catalogs"));
        let table = |name: &str| Table {
            name: name.into(),
            ..Table::default()
        };
        let facts = |tables: Vec<Table>| ServerFacts {
            database: "embedded".into(),
            objects: Arc::new(Objects::new(
                "embedded",
                Vec::new(),
                vec![Schema {
                    name: "market".into(),
                    tables,
                }],
                Vec::new(),
                Vec::new(),
            )),
            ..ServerFacts::default()
        };
        let one = CatalogSnapshot::new(facts(vec![table("a")]), builtin.clone());
        let two = CatalogSnapshot::new(facts(vec![table("zz"), table("b"), table("a")]), builtin);
        assert_eq!(
            one.relation_oid("market", "a"),
            two.relation_oid("market", "a")
        );
        assert!(one.relation_oid("market", "a") >= FIRST_USER_OID);
    }
}
