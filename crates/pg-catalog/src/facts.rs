//! What the catalogs speak of at one instant, and the numbers (oids) of it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use postgres_types::Type;
use twox_hash::XxHash3_64;

use super::value::Relation;

/// Everything that a catalog query may ask about, as its user sees it.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// Microseconds since 1970.
    pub now: i64,
    /// When the server came up.
    pub started_at: i64,
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
    pub databases: Vec<String>,
    /// The databases of the cluster: PostgreSQL's schemas.
    pub schemas: Vec<Schema>,
    pub roles: Vec<Role>,
    /// Who belongs to what: role and member.
    pub memberships: Vec<(String, String)>,
    oids: Oids,
    pub(super) relations: Mutex<HashMap<(String, String), Arc<Relation>>>,
}

#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub name: String,
    pub tables: Vec<Table>,
}

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

#[derive(Clone, Debug, Default)]
pub struct Activity {
    pub pid: i32,
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub client_addr: String,
    pub started_at: i64,
    /// When its statement began.
    pub query_start: Option<i64>,
    /// `active`, `idle`, `idle in transaction`
    pub state: String,
    /// The statement, if the user may see it.
    pub query: Option<String>,
}

/// Where numbers of a user's objects begin, as in PostgreSQL.
pub(super) const FIRST_USER_OID: u32 = 16_384;
pub(super) const PG_CATALOG: u32 = 11;
/// As in the PostgreSQL that `builtin/` was written from.
pub(super) const INFORMATION_SCHEMA: u32 = 13_207;
/// The first of PostgreSQL's roles, the owner of everything here.
pub(super) const OWNER: u32 = 10;

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

/// The number of a table, unless another one has it, which no one but a
/// [`crate::CatalogSnapshot`] can tell.
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

    pub(super) fn oid(&self, object: &Object) -> u32 {
        self.oids.of.get(object).copied().unwrap_or(0)
    }

    pub(super) fn named(&self, oid: u32) -> Option<&Object> {
        self.oids.named.get(&oid)
    }
}
