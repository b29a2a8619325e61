//! What the frontends of the fake cluster agree on: databases, repositories, one job a database,
//! and the words of each version.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta};
use datafusion::arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use md5::{Digest, Md5};
use starkeep::statement::{
    BackupSnapshot, CancelScope, JobKeyword, ObjectRef, Partitions, Properties, RestoreSnapshot,
    Statement, parse_one,
};

use super::wire::Reply;

/// Where the fake cluster's clock begins: 2026-01-01 00:00:00 UTC.
const EPOCH_SECONDS: i64 = 1_767_225_600;

#[derive(Clone)]
pub struct Table {
    pub id: i64,
    pub columns: Vec<(String, String)>,
    pub rows: RecordBatch,
    pub is_view: bool,
    /// A view with rows of its own.
    pub is_materialized: bool,
    pub partitions: Vec<String>,
    pub replicas: u16,
}

#[derive(Clone, Default)]
pub struct Database {
    pub id: i64,
    pub tables: BTreeMap<String, Table>,
}

#[derive(Clone, Debug)]
pub struct Repository {
    id: i64,
    read_only: bool,
    location: String,
    broker: Option<String>,
    created: i64,
}

#[derive(Clone, Debug)]
pub struct FeJob {
    pub id: i64,
    pub is_backup: bool,
    pub label: String,
    pub database: String,
    pub repository: String,
    pub state: &'static str,
    pub status: String,
    objects: Vec<(String, Vec<String>, Option<String>)>,
    timestamp: String,
    replication: String,
    timeout: String,
    created: i64,
    meta_prepared: Option<i64>,
    snapshot_finished: Option<i64>,
    transfer_finished: Option<i64>,
    finished: Option<i64>,
    progress: String,
    open_tasks: usize,
    ttl: Option<String>,
}

/// The session of one connection.
pub struct FeSession {
    pub database: Option<String>,
    pub offset_hours: i64,
}

pub struct Model {
    pub version: (u32, u32),
    full_version: String,
    pub databases: BTreeMap<String, Database>,
    pub repositories: BTreeMap<String, Repository>,
    /// One job a database; the external catalogs' is under the empty name.
    pub slots: BTreeMap<String, FeJob>,
    /// Every statement that arrived.
    pub statements: Vec<String>,
    /// Every statement that had its effect.
    pub effects: Vec<String>,
    pub leader: usize,
    pub backends: Vec<bool>,
    /// Refuses this user everything about jobs.
    pub denied: bool,
    /// No frontend leads: each answers what it can by itself.
    pub leaderless: bool,
    /// Whether a backup of a whole database takes materialized views.
    pub backs_up_materialized_views: bool,
    kept: BTreeMap<(String, String), BTreeMap<String, Table>>,
    next_id: i64,
    seconds: i64,
    clock_is_stopped: bool,
}

const BACKUP: &[&str] = &[
    "PENDING",
    "SNAPSHOTING",
    "UPLOAD_SNAPSHOT",
    "UPLOADING",
    "SAVE_META",
    "UPLOAD_INFO",
    "FINISHED",
];
const RESTORE: &[&str] = &[
    "PENDING",
    "SNAPSHOTING",
    "DOWNLOAD",
    "DOWNLOADING",
    "COMMIT",
    "COMMITTING",
    "FINISHED",
];

fn some(text: impl ToString) -> Option<String> {
    Some(text.to_string())
}

fn table(id: i64, columns: &[(&str, &str)], rows: RecordBatch, partitions: &[&str]) -> Table {
    Table {
        id,
        columns: columns
            .iter()
            .map(|(n, t)| ((*n).to_owned(), (*t).to_owned()))
            .collect(),
        rows,
        is_view: false,
        is_materialized: false,
        replicas: 1,
        partitions: partitions.iter().map(|p| (*p).to_owned()).collect(),
    }
}

impl Model {
    pub fn new(version: &str) -> Self {
        let mut parts = version.split('.').map(|p| p.parse().expect("a number"));
        let mut model = Self {
            version: (parts.next().expect("major"), parts.next().expect("minor")),
            full_version: version.to_owned(),
            databases: BTreeMap::new(),
            repositories: BTreeMap::new(),
            slots: BTreeMap::new(),
            statements: Vec::new(),
            effects: Vec::new(),
            leader: 0,
            backends: vec![true],
            denied: false,
            leaderless: false,
            backs_up_materialized_views: true,
            kept: BTreeMap::new(),
            next_id: 10_000,
            seconds: EPOCH_SECONDS,
            clock_is_stopped: false,
        };
        model.furnish();
        model
    }

    /// Database `shop` with orders, customers and a view.
    fn furnish(&mut self) {
        let orders = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("customer", DataType::Int32, true),
            Field::new("day", DataType::Date32, true),
            Field::new("amount", DataType::Decimal128(10, 2), true),
            Field::new("weight", DataType::Float64, true),
            Field::new("note", DataType::Utf8, true),
            Field::new("paid", DataType::Boolean, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ]);
        let n = 20_i64;
        let amounts: Decimal128Array = (0..n).map(|i| Some(i128::from(i) * 150 + 99)).collect();
        let orders = RecordBatch::try_new(
            orders.into(),
            vec![
                std::sync::Arc::new(Int64Array::from_iter_values(1..=n)),
                std::sync::Arc::new(
                    (0..n as i32)
                        .map(|i| (i % 4 != 3).then_some(i % 4))
                        .collect::<Int32Array>(),
                ),
                std::sync::Arc::new(
                    (0..n as i32)
                        .map(|i| Some(20_454 + i % 5))
                        .collect::<Date32Array>(),
                ),
                std::sync::Arc::new(amounts.with_precision_and_scale(10, 2).expect("fits")),
                std::sync::Arc::new(
                    (0..n)
                        .map(|i| Some(i as f64 / 4.0))
                        .collect::<Float64Array>(),
                ),
                std::sync::Arc::new(
                    (0..n)
                        .map(|i| (i % 3 != 0).then(|| format!("it's \\ {i}")))
                        .collect::<StringArray>(),
                ),
                std::sync::Arc::new(
                    (0..n)
                        .map(|i| (i % 5 != 0).then_some(i % 2 == 0))
                        .collect::<BooleanArray>(),
                ),
                std::sync::Arc::new(
                    (0..n)
                        .map(|i| Some(1_767_225_600_000_000 + i * 3_600_000_000))
                        .collect::<TimestampMicrosecondArray>(),
                ),
            ],
        )
        .expect("a batch");
        let names = Schema::new(vec![
            Field::new("id", DataType::Int32, true),
            Field::new("name", DataType::Utf8, true),
            Field::new("tags", DataType::Utf8, true),
        ]);
        let customers = RecordBatch::try_new(
            names.into(),
            vec![
                std::sync::Arc::new(Int32Array::from(vec![0, 1, 2])),
                std::sync::Arc::new(StringArray::from(vec!["ana", "bob", "cem"])),
                std::sync::Arc::new(StringArray::from(vec!["[1,2]", "[]", "[3]"])),
            ],
        )
        .expect("a batch");
        let mut shop = Database {
            id: 10_001,
            tables: BTreeMap::new(),
        };
        let columns = [
            ("id", "bigint(20)"),
            ("customer", "int(11)"),
            ("day", "date"),
            ("amount", "decimal(10,2)"),
            ("weight", "double"),
            ("note", "varchar(100)"),
            ("paid", "tinyint(1)"),
            ("at", "datetime"),
        ];
        shop.tables.insert(
            "orders".into(),
            table(10_010, &columns, orders, &["p1", "p2"]),
        );
        let columns = [
            ("id", "int(11)"),
            ("name", "varchar(20)"),
            ("tags", "array<int(11)>"),
        ];
        shop.tables.insert(
            "customers".into(),
            table(10_020, &columns, customers.clone(), &["customers"]),
        );
        let mut view = table(10_030, &columns[..], customers, &[]);
        view.is_view = true;
        shop.tables.insert("people".into(), view);
        self.databases.insert("shop".into(), shop);
        self.databases.insert(
            "empty".into(),
            Database {
                id: 10_002,
                tables: BTreeMap::new(),
            },
        );
    }

    /// From now on everything happens in one second.
    pub fn stop_clock(&mut self) {
        self.clock_is_stopped = true;
    }

    fn now(&mut self) -> i64 {
        if !self.clock_is_stopped {
            self.seconds += 1;
        }
        self.seconds
    }

    fn at_least(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }

    fn id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    /// The words of an error of execution, in the version's wrapping.
    fn refused(&self, message: &str) -> Reply {
        let wrapped = (2, 5) <= self.version && self.version < (3, 3);
        let text = if wrapped {
            format!("Unexpected exception: {message}")
        } else {
            message.to_owned()
        };
        Reply::error(if self.at_least(3, 3) { 5064 } else { 1064 }, text)
    }

    fn unknown_database(&self, name: &str) -> Reply {
        Reply::error(
            if self.at_least(3, 3) { 5501 } else { 1049 },
            format!("Unknown database '{name}'"),
        )
    }

    fn time(&self, session: &FeSession, seconds: Option<i64>) -> Option<String> {
        let hours = if self.at_least(4, 1) {
            8
        } else {
            session.offset_hours
        };
        let at = DateTime::from_timestamp(seconds?, 0)? + TimeDelta::hours(hours);
        Some(at.format("%Y-%m-%d %H:%M:%S").to_string())
    }

    /// Answers a statement; `None` is for the query engine.
    pub fn answer(
        &mut self,
        session: &mut FeSession,
        number: usize,
        ports: &[u16],
        up: &[bool],
        sql: &str,
    ) -> Option<Reply> {
        let rows = |columns: &[&str], rows: Vec<Vec<Option<String>>>| {
            Some(Reply::Rows {
                columns: columns.iter().map(|c| (*c).into()).collect(),
                rows,
            })
        };
        let words: Vec<&str> = sql.split_whitespace().collect();
        let upper: Vec<String> = words
            .iter()
            .take(2)
            .map(|w| w.to_ascii_uppercase())
            .collect();
        let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
        let needs_leader = matches!(
            upper.as_slice(),
            ["SHOW", "FRONTENDS" | "BACKENDS" | "BACKUP"]
                | [
                    "CREATE" | "DROP" | "BACKUP" | "RESTORE" | "CANCEL" | "RECOVER",
                    _
                ]
        );
        if self.leaderless && needs_leader {
            return Some(Reply::error(
                1064,
                "java.net.ConnectException: Connection refused",
            ));
        }
        if matches!(upper.as_slice(), ["SELECT", _]) && !self.backends.contains(&true) {
            return Some(Reply::error(
                1064,
                "Backend node not found. Check if any backend node is down.backend: [10.0.0.1 alive: false inBlacklist: false] ",
            ));
        }
        let jobs = ["BACKUP", "RESTORE", "REPOSITORIES", "SNAPSHOT"];
        if self.denied && upper[0] == "SHOW" && upper.get(1).is_some_and(|w| jobs.contains(w)) {
            return Some(self.denial());
        }
        match upper.as_slice() {
            ["SHOW", "FULL"] if words.get(2).is_some_and(|w| *w == "TABLES") => {
                let name = words.last()?.trim_matches('`');
                let Some(content) = self.databases.get(name) else {
                    return Some(self.unknown_database(name));
                };
                let row = |(name, table): (&String, &Table)| {
                    let is_view = table.is_view || table.is_materialized;
                    vec![
                        some(name),
                        some(if is_view { "VIEW" } else { "BASE TABLE" }),
                    ]
                };
                rows(
                    &["Tables_in", "Table_type"],
                    content.tables.iter().map(row).collect(),
                )
            }
            ["SHOW", "VARIABLES"] => rows(
                &["Variable_name", "Value"],
                vec![vec![some("version_comment"), some(&self.full_version)]],
            ),
            ["SET", "TIME_ZONE"] => {
                session.offset_hours = 0;
                Some(Reply::done())
            }
            ["USE", _] => {
                let name = words[1].trim_matches('`').to_owned();
                if !self.databases.contains_key(&name) {
                    return Some(self.unknown_database(&name));
                }
                session.database = Some(name);
                Some(Reply::done())
            }
            ["SELECT", "CURRENT_VERSION()"] => rows(
                &["current_version()"],
                vec![vec![some(format!("{} abcdef", self.full_version))]],
            ),
            ["SHOW", "FRONTENDS"] => {
                let modern = self.at_least(2, 5);
                let (role, columns) = if modern {
                    (
                        "Role",
                        [
                            "Name",
                            "IP",
                            "QueryPort",
                            "Role",
                            "Alive",
                            "Version",
                            "StartTime",
                        ],
                    )
                } else {
                    (
                        "IsMaster",
                        [
                            "Name",
                            "IP",
                            "QueryPort",
                            "IsMaster",
                            "Alive",
                            "Version",
                            "StartTime",
                        ],
                    )
                };
                let row = |i: usize| {
                    let leads = i == self.leader;
                    let role = if role == "Role" {
                        if leads { "LEADER" } else { "FOLLOWER" }.to_owned()
                    } else {
                        leads.to_string()
                    };
                    vec![
                        some(format!("fe{i}")),
                        some("127.0.0.1"),
                        some(ports[i]),
                        some(role),
                        some(up[i]),
                        some(format!("{}-abcdef", self.full_version)),
                        some("2026-01-01 00:00:00"),
                    ]
                };
                rows(&columns, (0..ports.len()).map(row).collect())
            }
            ["SHOW", "BACKENDS"] => {
                let row = |(i, alive): (usize, &bool)| {
                    vec![
                        some(10_100 + i),
                        some("10.0.0.1"),
                        some(9050),
                        some(alive),
                        some(3),
                        some("1.500 KB"),
                        some(""),
                    ]
                };
                rows(
                    &[
                        "BackendId",
                        "IP",
                        "HeartbeatPort",
                        "Alive",
                        "TabletNum",
                        "DataUsedCapacity",
                        "ErrMsg",
                    ],
                    self.backends.iter().enumerate().map(row).collect(),
                )
            }
            ["SHOW", "BROKER"] => rows(
                &[
                    "Name",
                    "IP",
                    "Port",
                    "Alive",
                    "LastStartTime",
                    "LastUpdateTime",
                    "ErrMsg",
                ],
                vec![vec![
                    some("hdfs_broker"),
                    some("10.0.0.9"),
                    some(8000),
                    some(true),
                    None,
                    None,
                    some(""),
                ]],
            ),
            ["SHOW", "DATABASES"] => {
                let mut names: Vec<_> = self.databases.keys().map(|n| vec![some(n)]).collect();
                names.push(vec![some("information_schema")]);
                rows(&["Database"], names)
            }
            ["SHOW", "REPOSITORIES"] => {
                let row = |(name, r): (&String, &Repository)| {
                    vec![
                        some(r.id),
                        some(name),
                        self.time(session, Some(r.created)),
                        some(r.read_only),
                        some(&r.location),
                        some(r.broker.clone().unwrap_or_default()),
                        None,
                    ]
                };
                rows(
                    &[
                        "RepoId",
                        "RepoName",
                        "CreateTime",
                        "IsReadOnly",
                        "Location",
                        "Broker",
                        "ErrMsg",
                    ],
                    self.repositories.iter().map(row).collect(),
                )
            }
            ["SHOW", "BACKUP" | "RESTORE"] => Some(self.show_jobs(session, number, &words)),
            ["SHOW", "SNAPSHOT"] => Some(self.show_snapshot(session, sql, &words)),
            ["SHOW", "PARTITIONS"] => Some(self.show_partitions(&words)),
            ["SHOW", "TABLET"] => Some(self.show_tablet(sql, &words)),
            ["SHOW", "CREATE"] => {
                let name = words.last()?.replace('`', "");
                rows(
                    &["Table", "Create Table"],
                    vec![vec![some(&name), some(format!("CREATE TABLE {name} (…)"))]],
                )
            }
            ["KILL", "QUERY"] => {
                self.effects.push(sql.to_owned());
                Some(Reply::done())
            }
            [
                "CREATE" | "DROP" | "BACKUP" | "RESTORE" | "CANCEL" | "RECOVER" | "INSERT"
                | "ALTER" | "TRUNCATE",
                _,
            ] => Some(self.change(session, sql)),
            _ => None,
        }
    }

    fn denial(&self) -> Reply {
        Reply::error(
            if self.at_least(3, 3) { 5203 } else { 1252 },
            "Access denied; you need (at least one of) the REPOSITORY privilege(s) on SYSTEM for this operation.",
        )
    }

    /// A materialized view beside the tables.
    pub fn add_materialized_view(&mut self, database: &str, name: &str) {
        let id = self.id() + 10_000;
        let database = self.databases.get_mut(database).expect("a database");
        let mut view = database.tables["customers"].clone();
        (view.id, view.is_materialized) = (id, true);
        database.tables.insert(name.to_owned(), view);
    }

    fn change(&mut self, session: &FeSession, sql: &str) -> Reply {
        if self.denied {
            return self.denial();
        }
        let is_new_form = [
            "(TABLE ",
            "(VIEW ",
            "(ALL ",
            "EXTERNAL CATALOG",
            " DATABASE ",
        ]
        .iter()
        .any(|w| sql.contains(w));
        if is_new_form
            && !self.at_least(3, 4)
            && (sql.starts_with("BACKUP") || sql.starts_with("RESTORE"))
        {
            return Reply::error(
                1064,
                "Getting syntax error at line 1, column 10. Detail message: Unexpected input.",
            );
        }
        let reply = match parse_one(sql) {
            Ok(Statement::Backup(backup)) => self.backup(session, &backup),
            Ok(Statement::Restore(restore)) => self.restore(session, &restore),
            Ok(Statement::Cancel(cancel)) => {
                let name = match &cancel.scope {
                    CancelScope::Database(name) => name.to_string(),
                    CancelScope::ExternalCatalog => String::new(),
                    CancelScope::Current => {
                        return Reply::error(
                            1064,
                            "No selected database for cancel BACKUP/RESTORE",
                        );
                    }
                };
                self.cancel(&name, cancel.kind == JobKeyword::Backup)
            }
            Ok(Statement::CreateRepository(create)) => {
                let name = create.name.to_string();
                if self.repositories.contains_key(&name) {
                    return self.refused(&format!("Failed to create repository: repository with same name already exist: {name}"));
                }
                if let Some(dir) = directory(&create.location) {
                    let root = dir.join(format!("__starrocks_repository_{name}"));
                    let written = fs::create_dir_all(&root).and_then(|()| {
                        fs::write(
                            root.join("__repo_info"),
                            format!(
                                "{{\"name\":\"{name}\",\"create_time\":\"2026-01-01 08:00:00\"}}"
                            ),
                        )
                    });
                    if let Err(e) = written {
                        return self.refused(&format!(
                            "Failed to create repository: failed to list remote path: {}. msg: {e}",
                            create.location
                        ));
                    }
                }
                let (id, created) = (self.id(), self.now());
                let repository = Repository {
                    id,
                    read_only: create.read_only,
                    location: create.location,
                    broker: create.broker.map(|b| b.to_string()),
                    created,
                };
                self.repositories.insert(name, repository);
                Reply::done()
            }
            Ok(Statement::DropRepository(name)) => {
                if self
                    .slots
                    .values()
                    .any(|j| j.repository == name.as_str() && !over(j))
                {
                    return self.refused(
                        "Backup or restore job is running on this repository. Can not drop it",
                    );
                }
                match self.repositories.remove(name.as_str()) {
                    Some(_) => Reply::done(),
                    None => self.refused("Repository does not exist"),
                }
            }
            Ok(Statement::DropSnapshot(drop)) if self.at_least(4, 2) => {
                let Some(root) = self.root(drop.repository.as_str()) else {
                    return self
                        .refused(&format!("Repository does not exist: {}", drop.repository));
                };
                match fs::remove_dir_all(root.join(format!("__ss_{}", drop.label))) {
                    Ok(()) => Reply::done(),
                    Err(_) => self.refused(&format!(
                        "Snapshot does not exist in repository {}: {}",
                        drop.repository, drop.label
                    )),
                }
            }
            Ok(Statement::Recover(_)) => Reply::done(),
            _ if sql.starts_with("INSERT") => Reply::Ok { affected: 2 },
            _ if sql.starts_with("CREATE DATABASE ") => {
                let id = self.id();
                self.databases.insert(
                    sql["CREATE DATABASE ".len()..].trim().to_owned(),
                    Database {
                        id,
                        tables: BTreeMap::new(),
                    },
                );
                Reply::done()
            }
            _ => Reply::error(
                1064,
                "Getting syntax error at line 1, column 0. Detail message: Unexpected input.",
            ),
        };
        if matches!(reply, Reply::Ok { .. }) {
            self.effects.push(sql.to_owned());
        }
        reply
    }

    fn root(&self, repository: &str) -> Option<PathBuf> {
        Some(
            directory(&self.repositories.get(repository)?.location)?
                .join(format!("__starrocks_repository_{repository}")),
        )
    }

    fn check_properties(
        &self,
        properties: &Properties,
        known: &[&str],
        kind: &str,
    ) -> Option<Reply> {
        if let Some(timeout) = properties.get("timeout")
            && timeout.parse::<i64>().is_ok_and(|t| t < 600)
        {
            return Some(Reply::error(1064, "timeout must be at least 10 min"));
        }
        let unknown: Vec<_> = properties
            .0
            .keys()
            .filter(|k| !known.contains(&k.as_str()))
            .cloned()
            .collect();
        (!unknown.is_empty()).then(|| {
            Reply::error(
                1064,
                format!("Unknown {kind} job properties: [{}]", unknown.join(", ")),
            )
        })
    }

    fn backup(&mut self, session: &FeSession, backup: &BackupSnapshot) -> Reply {
        let catalogs = backup.catalogs.is_some();
        let database = match (&backup.label.database, &session.database) {
            _ if catalogs => String::new(),
            (Some(name), _) => name.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => return Reply::error(1046, "No database selected"),
        };
        if !catalogs && !self.databases.contains_key(&database) {
            return self.unknown_database(&database);
        }
        let repository = backup.repository.to_string();
        if !self.repositories.contains_key(&repository) {
            return Reply::error(1064, format!("Repository [{repository}] does not exist"));
        }
        let mut known = vec!["timeout", "type"];
        if self.at_least(4, 2) {
            known.push("ttl");
        }
        if let Some(reply) = self.check_properties(&backup.properties, &known, "backup") {
            return reply;
        }
        let mut objects = Vec::new();
        if !catalogs {
            let tables = &self.databases[&database].tables;
            match &backup.objects {
                None => objects.extend(
                    tables
                        .iter()
                        .filter(|(_, t)| !t.is_view || self.at_least(3, 4))
                        .filter(|(_, t)| !t.is_materialized || self.backs_up_materialized_views)
                        .map(|(n, _)| (n.clone(), Vec::new(), None)),
                ),
                Some(list) => {
                    for object in list {
                        match object {
                            ObjectRef::Untyped(t) | ObjectRef::Table(t) => objects.push((
                                t.table.name.to_string(),
                                partitions(&t.partitions),
                                None,
                            )),
                            ObjectRef::Named { name, .. } => {
                                objects.push((name.name.to_string(), Vec::new(), None))
                            }
                            ObjectRef::All(_) => {
                                objects.extend(tables.keys().map(|n| (n.clone(), Vec::new(), None)))
                            }
                        }
                    }
                }
            }
            for (name, partitions, _) in &objects {
                let Some(table) = tables.get(name) else {
                    return Reply::error(1064, format!("Incorrect table name '{name}'"));
                };
                if let Some(missing) = partitions.iter().find(|p| !table.partitions.contains(p)) {
                    return Reply::error(
                        1064,
                        format!("partition[{missing}] does not exist  in table{name}"),
                    );
                }
            }
            if objects.is_empty() {
                return self.refused(&format!("Database: {database} is empty"));
            }
        }
        if self.slots.get(&database).is_some_and(|j| !over(j)) {
            return self
                .refused("Can only run one backup or restore job of a database at same time");
        }
        if self.repositories[&repository].read_only {
            return self.refused(&format!("Repository {repository} is read only"));
        }
        let label = backup.label.name.to_string();
        if self
            .root(&repository)
            .is_some_and(|r| r.join(format!("__ss_{label}")).exists())
        {
            return self.refused(&format!(
                "Snapshot with name '{label}' already exist in repository"
            ));
        }
        let created = self.now();
        self.slots.insert(
            database.clone(),
            FeJob {
                id: -1,
                is_backup: true,
                label,
                database,
                repository,
                state: "PENDING",
                status: "[OK]".into(),
                objects,
                timestamp: String::new(),
                replication: String::new(),
                timeout: backup
                    .properties
                    .get("timeout")
                    .unwrap_or("86400")
                    .to_owned(),
                created,
                meta_prepared: None,
                snapshot_finished: None,
                transfer_finished: None,
                finished: None,
                progress: String::new(),
                open_tasks: 0,
                ttl: backup.properties.get("ttl").map(str::to_owned),
            },
        );
        Reply::done()
    }

    fn restore(&mut self, session: &FeSession, restore: &RestoreSnapshot) -> Reply {
        let Some(timestamp) = restore.properties.get("backup_timestamp") else {
            return Reply::error(1064, "Missing backup_timestamp property");
        };
        let known = [
            "backup_timestamp",
            "timeout",
            "allow_load",
            "replication_num",
            "meta_version",
            "starrocks_meta_version",
        ];
        if let Some(reply) = self.check_properties(&restore.properties, &known, "restore") {
            return reply;
        }
        let replication = restore
            .properties
            .get("replication_num")
            .unwrap_or("3")
            .to_owned();
        if replication.parse::<i64>().is_err() {
            return Reply::error(1064, format!("Invalid meta version format: {replication}"));
        }
        let (repository, label) = (
            restore.repository.to_string(),
            restore.label.name.to_string(),
        );
        let Some(root) = self.root(&repository) else {
            return self.refused(&format!("Repository {repository} does not exist"));
        };
        let info = info_file(&root.join(format!("__ss_{label}")), timestamp);
        if info.is_none() {
            return self.refused(&format!(
                "Failed to get info of snapshot '{label}' because: File does not exist. Maybe specified wrong backup timestamp"
            ));
        }
        let kept = self
            .kept
            .get(&(repository.clone(), label.clone()))
            .cloned()
            .unwrap_or_default();
        let clause = restore
            .database
            .as_ref()
            .map(|(source, target)| target.as_ref().unwrap_or(source).to_string());
        let Some(database) = restore
            .label
            .database
            .as_ref()
            .map(ToString::to_string)
            .or(clause)
            .or_else(|| session.database.clone())
        else {
            return Reply::error(1046, "No database selected");
        };
        if !self.databases.contains_key(&database) {
            if !self.at_least(3, 4) {
                return self.unknown_database(&database);
            }
            let id = self.id();
            self.databases.insert(
                database.clone(),
                Database {
                    id,
                    tables: BTreeMap::new(),
                },
            );
        }
        if self.slots.get(&database).is_some_and(|j| !over(j)) {
            return self
                .refused("Can only run one backup or restore job of a database at same time");
        }
        let mut objects = Vec::new();
        match &restore.objects {
            None => objects.extend(kept.keys().map(|n| (n.clone(), Vec::new(), None))),
            Some(list) => {
                for object in list {
                    match object {
                        ObjectRef::Untyped(t) | ObjectRef::Table(t) => {
                            objects.push((
                                t.table.name.to_string(),
                                partitions(&t.partitions),
                                t.alias.as_ref().map(ToString::to_string),
                            ));
                        }
                        ObjectRef::Named { name, alias, .. } => objects.push((
                            name.name.to_string(),
                            Vec::new(),
                            alias.as_ref().map(ToString::to_string),
                        )),
                        ObjectRef::All(_) => {
                            objects.extend(kept.keys().map(|n| (n.clone(), Vec::new(), None)))
                        }
                    }
                }
            }
        }
        if let Some((missing, ..)) = objects.iter().find(|(n, ..)| !kept.contains_key(n)) {
            return self.refused(&format!(
                "Table {missing} does not exist in snapshot {label}"
            ));
        }
        let created = self.now();
        self.slots.insert(
            database.clone(),
            FeJob {
                id: -1,
                is_backup: false,
                label,
                database,
                repository,
                state: "PENDING",
                status: "[OK]".into(),
                objects,
                timestamp: timestamp.to_owned(),
                replication,
                timeout: restore
                    .properties
                    .get("timeout")
                    .unwrap_or("86400")
                    .to_owned(),
                created,
                meta_prepared: None,
                snapshot_finished: None,
                transfer_finished: None,
                finished: None,
                progress: String::new(),
                open_tasks: 0,
                ttl: None,
            },
        );
        Reply::done()
    }

    fn cancel(&mut self, database: &str, backup: bool) -> Reply {
        if !database.is_empty() && !self.databases.contains_key(database) {
            return self.unknown_database(database);
        }
        let now = self.now();
        match self
            .slots
            .get_mut(database)
            .filter(|j| j.is_backup == backup)
        {
            None => self.refused(if backup {
                "No backup job is currently running"
            } else {
                "No restore is currently running"
            }),
            Some(job) if over(job) => {
                let message = format!(
                    "Failed to cancel job: Job with label {} can not be cancelled. state: {}",
                    job.label, job.state
                );
                self.refused(&message)
            }
            Some(job) => {
                job.status = if backup {
                    "[COMMON_ERROR, msg: user cancelled]".into()
                } else {
                    format!(
                        "[COMMON_ERROR, msg: user cancelled, current state: {}]",
                        job.state
                    )
                };
                job.state = "CANCELLED";
                job.finished = Some(now);
                Reply::done()
            }
        }
    }

    /// Moves every job by one phase.
    pub fn tick(&mut self) {
        let names: Vec<String> = self.slots.keys().cloned().collect();
        for name in names {
            let Some(mut job) = self.slots.get(&name).cloned().filter(|j| !over(j)) else {
                continue;
            };
            let phases = if job.is_backup { BACKUP } else { RESTORE };
            let at = phases
                .iter()
                .position(|p| *p == job.state)
                .expect("a phase");
            let now = self.now();
            job.state = phases[at + 1];
            match job.state {
                "SNAPSHOTING" => {
                    job.id = self.id();
                    job.meta_prepared = Some(now);
                }
                "UPLOAD_SNAPSHOT" | "DOWNLOAD" => job.snapshot_finished = Some(now),
                "UPLOADING" | "DOWNLOADING" => job.progress = "[10001: 1/2]".into(),
                "SAVE_META" | "COMMIT" => {
                    job.transfer_finished = Some(now);
                    job.progress = "[10001: 2/2]".into();
                }
                "FINISHED" => job.finished = Some(now),
                _ => {}
            }
            if job.is_backup {
                self.store(&job);
            } else if job.state == "FINISHED" {
                let kept = self
                    .kept
                    .get(&(job.repository.clone(), job.label.clone()))
                    .cloned()
                    .unwrap_or_default();
                if let Some(database) = self.databases.get_mut(&job.database) {
                    for (table, _, alias) in &job.objects {
                        if let Some(content) = kept.get(table) {
                            database.tables.insert(
                                alias.clone().unwrap_or_else(|| table.clone()),
                                content.clone(),
                            );
                        }
                    }
                }
            }
            self.slots.insert(name, job);
        }
    }

    /// How many tasks of its phase a job has left.
    pub fn set_open_tasks(&mut self, database: &str, open: usize) {
        self.slots.get_mut(database).expect("a job").open_tasks = open;
    }

    /// Ends a job as an error of its own would.
    pub fn break_job(&mut self, database: &str, status: &str) {
        let now = self.now();
        let job = self.slots.get_mut(database).expect("a job");
        job.state = "CANCELLED";
        job.status = status.to_owned();
        job.finished = Some(now);
    }

    /// The same tables once more under another name.
    pub fn copy_database(&mut self, from: &str, to: &str) {
        self.next_id += 1;
        let tables = self.databases[from].tables.clone();
        self.databases.insert(
            to.into(),
            Database {
                id: self.next_id,
                tables,
            },
        );
    }

    /// Another frontend takes over: a phase that is not written down begins anew, under another id.
    pub fn fail_over(&mut self) {
        for job in self.slots.values_mut() {
            job.state = match job.state {
                "SNAPSHOTING" => "PENDING",
                "UPLOADING" => "UPLOAD_SNAPSHOT",
                "DOWNLOADING" => "DOWNLOAD",
                "COMMITTING" => "COMMIT",
                other => other,
            };
            if job.state == "PENDING" {
                job.id = -1;
            }
        }
    }

    /// What a backup leaves in its repository in this phase.
    fn store(&mut self, job: &FeJob) {
        let Some(root) = self.root(&job.repository) else {
            return;
        };
        let dir = root.join(format!("__ss_{}", job.label));
        let database = self
            .databases
            .get(&job.database)
            .cloned()
            .unwrap_or_default();
        let chosen: BTreeMap<String, Table> = job
            .objects
            .iter()
            .filter_map(|(name, ..)| Some((name.clone(), database.tables.get(name)?.clone())))
            .collect();
        match job.state {
            "SAVE_META" => {
                for table in chosen.values().filter(|t| !t.is_view) {
                    for i in 0..table.partitions.len() as i64 {
                        let tablet = table.id + 100 + i;
                        let path = dir.join(format!(
                            "__ss_content/__db_{}/__tbl_{}/__part_{}/__idx_{}/__{tablet}",
                            database.id,
                            table.id,
                            table.id + 10 + i,
                            table.id + 1
                        ));
                        put(&path, "0200_0.dat", format!("rows of {tablet}").as_bytes());
                        put(&path, &format!("{tablet}.hdr"), b"header");
                    }
                }
            }
            "FINISHED" => {
                put(&dir, "__meta", b"meta");
                let millis = job.created * 1000 + 123;
                let stamp = DateTime::from_timestamp_millis(millis)
                    .expect("a time")
                    .format("%Y-%m-%d-%H-%M-%S-%3f");
                put(
                    &dir,
                    &format!("__info_{stamp}"),
                    self.info(job, &database, &chosen, millis)
                        .to_string()
                        .as_bytes(),
                );
                self.kept
                    .insert((job.repository.clone(), job.label.clone()), chosen);
            }
            _ => {}
        }
    }

    fn info(
        &self,
        job: &FeJob,
        database: &Database,
        chosen: &BTreeMap<String, Table>,
        millis: i64,
    ) -> serde_json::Value {
        let mut objects = serde_json::Map::new();
        for (name, table) in chosen {
            let mut partitions = serde_json::Map::new();
            if !table.is_view {
                for (i, partition) in table.partitions.iter().enumerate() {
                    let (id, tablet) = (table.id + 10 + i as i64, table.id + 100 + i as i64);
                    let modern = self.at_least(3, 4);
                    let files = if modern {
                        serde_json::json!([])
                    } else {
                        serde_json::json!(["0200_0.dat.x"])
                    };
                    let index = serde_json::json!({ name: { "id": table.id + 1, "schema_hash": 1, "tablets": { tablet.to_string(): files }, "tablets_order": [tablet.to_string()] } });
                    let content = if modern {
                        // The id in paths is the physical partition's.
                        serde_json::json!({ "id": id + 5000, "version": 2, "version_hash": 0, "indexes": {}, "subPartitions": { id.to_string(): { "id": id, "version": 2, "indexes": index } } })
                    } else {
                        serde_json::json!({ "id": id, "version": 2, "version_hash": 0, "indexes": index })
                    };
                    partitions.insert(partition.clone(), content);
                }
            }
            objects.insert(
                name.clone(),
                serde_json::json!({ "id": table.id, "partitions": partitions }),
            );
        }
        let mut info = serde_json::json!({
            "name": job.label, "database": job.database, "id": database.id, "backup_time": millis, "backup_result": "succeed",
            "meta_version": 92, "starrocks_meta_version": 4, "backup_objects": objects,
        });
        if self.at_least(4, 2) {
            info["cluster_id"] = 77.into();
            info["finish_time"] = (self.seconds * 1000).into();
            if let Some(ttl) = &job.ttl {
                info["ttl"] = ttl.clone().into();
            }
        }
        info
    }

    fn show_jobs(&self, session: &FeSession, number: usize, words: &[&str]) -> Reply {
        let backup = words[1].eq_ignore_ascii_case("BACKUP");
        let from = words.get(3).map(|w| w.trim_matches('`').to_owned());
        if let Some(name) = &from
            && !self.databases.contains_key(name)
        {
            return self.unknown_database(name);
        }
        let only = match (from, &session.database) {
            (Some(name), _) => Some(name),
            (None, _) if self.at_least(3, 0) => None,
            (None, Some(name)) => Some(name.clone()),
            (None, None) => return Reply::error(1046, "No database selected"),
        };
        let jobs = self.slots.values().filter(|j| {
            j.is_backup == backup
                && (j.database.is_empty() || only.as_ref().is_none_or(|n| *n == j.database))
        });
        let time = |t: Option<i64>| self.time(session, t);
        // SHOW RESTORE is answered by each frontend itself, and followers lag.
        let stale = !backup && number != self.leader;
        let open = |j: &FeJob| {
            let tasks = (0..j.open_tasks).map(|i| format!("{}=10004", 11_000 + i));
            tasks.collect::<Vec<_>>().join(", ")
        };
        let row = |j: &FeJob| {
            let id = some(if stale { -1 } else { j.id });
            let state = some(if stale { "PENDING" } else { j.state });
            let list = |open: &str, close: &str| {
                let one = |(t, p, _): &(String, Vec<String>, Option<String>)| match (
                    backup,
                    p.is_empty(),
                ) {
                    (true, true) => format!("[{}.{t}]", j.database),
                    (true, false) => format!("[{}.{t}PARTITIONS ({})]", j.database, p.join(", ")),
                    (false, true) => t.clone(),
                    (false, false) => format!("{t} PARTITIONS [{}]", p.join(", ")),
                };
                format!(
                    "{open}{}{close}",
                    j.objects.iter().map(one).collect::<Vec<_>>().join(", ")
                )
            };
            if backup {
                vec![
                    id,
                    some(&j.label),
                    some(&j.database),
                    state,
                    some(list("", "")),
                    time(Some(j.created)),
                    time(j.snapshot_finished),
                    time(j.transfer_finished),
                    time(j.finished),
                    some(open(j)),
                    some(&j.progress),
                    some(""),
                    some(&j.status),
                    some(&j.timeout),
                ]
            } else {
                vec![
                    id,
                    some(&j.label),
                    some(&j.timestamp),
                    some(&j.database),
                    state,
                    some("false"),
                    some(&j.replication),
                    some(list("", "")),
                    time(Some(j.created)),
                    time(j.meta_prepared),
                    time(j.snapshot_finished),
                    time(j.transfer_finished),
                    time(j.finished),
                    some(open(j)),
                    some(&j.progress),
                    some(""),
                    some(&j.status),
                    some(&j.timeout),
                ]
            }
        };
        let columns: &[&str] = if backup {
            &[
                "JobId",
                "SnapshotName",
                "DbName",
                "State",
                "BackupObjs",
                "CreateTime",
                "SnapshotFinishedTime",
                "UploadFinishedTime",
                "FinishedTime",
                "UnfinishedTasks",
                "Progress",
                "TaskErrMsg",
                "Status",
                "Timeout",
            ]
        } else {
            &[
                "JobId",
                "Label",
                "Timestamp",
                "DbName",
                "State",
                "AllowLoad",
                "ReplicationNum",
                "RestoreObjs",
                "CreateTime",
                "MetaPreparedTime",
                "SnapshotFinishedTime",
                "DownloadFinishedTime",
                "FinishedTime",
                "UnfinishedTasks",
                "Progress",
                "TaskErrMsg",
                "Status",
                "Timeout",
            ]
        };
        Reply::Rows {
            columns: columns.iter().map(|c| (*c).into()).collect(),
            rows: jobs.map(row).collect(),
        }
    }

    fn show_snapshot(&self, _session: &FeSession, sql: &str, words: &[&str]) -> Reply {
        let name = words[3].trim_matches('`');
        let Some(root) = self.root(name) else {
            return Reply::error(1064, format!("Repository [{name}] does not exist"));
        };
        let texts: Vec<&str> = sql.split('\'').skip(1).step_by(2).collect();
        let mut labels: Vec<String> = entries(&root)
            .into_iter()
            .filter_map(|e| Some(e.strip_prefix("__ss_")?.to_owned()))
            .collect();
        labels.retain(|l| texts.first().is_none_or(|only| only == l));
        // Asked for one by =, it has a row for what is not there; asked by IN it has none.
        if let ([only], true, false) = (&texts[..], labels.is_empty(), sql.contains(" IN (")) {
            labels.push((*only).to_owned());
        }
        let mut extra: Vec<&str> = if self.at_least(4, 2) {
            vec!["ClusterId", "FinishTime", "TTL", "ExpireTime"]
        } else {
            vec![]
        };
        if let [label, timestamp] = texts.as_slice() {
            let info = info_file(&root.join(format!("__ss_{label}")), timestamp);
            let database = info
                .and_then(|p| serde_json::from_slice::<serde_json::Value>(&fs::read(p).ok()?).ok())
                .and_then(|v| Some(v["database"].as_str()?.to_owned()));
            let status = if database.is_some() {
                "OK".to_owned()
            } else {
                format!("Failed to get info: File does not exist: {timestamp}")
            };
            let mut columns = vec!["Snapshot", "Timestamp", "Database", "Details", "Status"];
            columns.append(&mut extra);
            let mut row = vec![
                some(label),
                some(timestamp),
                database.clone(),
                database.map(|_| "{}".into()),
                some(status),
            ];
            row.resize(columns.len(), None);
            return Reply::Rows {
                columns: columns.iter().map(|c| (*c).into()).collect(),
                rows: vec![row],
            };
        }
        let mut columns = vec!["Snapshot", "Timestamp", "Status"];
        columns.append(&mut extra);
        let row = |label: &String| {
            let infos: Vec<String> = entries(&root.join(format!("__ss_{label}")))
                .into_iter()
                .filter_map(|e| Some(e.strip_prefix("__info_")?.rsplit_once('.')?.0.to_owned()))
                .collect();
            let status = if infos.is_empty() {
                "ERROR: no snapshot"
            } else {
                "OK"
            };
            let mut row = vec![some(label), some(infos.join("\n")), some(status)];
            row.resize(columns.len(), None);
            row
        };
        let rows = labels.iter().map(row).collect();
        Reply::Rows {
            columns: columns.iter().map(|c| (*c).into()).collect(),
            rows,
        }
    }

    fn find(&self, words: &[&str]) -> Option<&Table> {
        let (database, table) = words[3].split_once('.')?;
        self.databases
            .get(database.trim_matches('`'))?
            .tables
            .get(table.trim_matches('`'))
    }

    fn show_partitions(&self, words: &[&str]) -> Reply {
        let Some(table) = self.find(words) else {
            return Reply::error(1051, "Unknown table");
        };
        let columns = [
            "PartitionId",
            "PartitionName",
            "VisibleVersion",
            "VisibleVersionTime",
            "State",
            "PartitionKey",
            "Range",
            "DistributionKey",
            "Buckets",
            "ReplicationNum",
            "DataSize",
            "RowCount",
        ];
        let row = |(i, name): (usize, &String)| {
            vec![
                some(table.id + 10 + i as i64),
                some(name),
                some(2),
                some("2026-01-01 00:00:00"),
                some("NORMAL"),
                some("day"),
                some("[types: [DATE]; keys: [..]; )"),
                some("id"),
                some(1),
                some(table.replicas),
                some("1.500 KB"),
                some(10),
            ]
        };
        Reply::Rows {
            columns: columns.iter().map(|c| (*c).into()).collect(),
            rows: table.partitions.iter().enumerate().map(row).collect(),
        }
    }

    fn show_tablet(&self, sql: &str, words: &[&str]) -> Reply {
        if let Ok(id) = words[2].parse::<i64>() {
            let columns = [
                "DbName",
                "TableName",
                "PartitionName",
                "IndexName",
                "DbId",
                "TableId",
                "PartitionId",
                "IndexId",
                "IsSync",
                "DetailCmd",
            ];
            let mut row = vec![
                None,
                None,
                None,
                None,
                some(-1),
                some(-1),
                some(-1),
                some(-1),
                some(false),
                some("SHOW PROC"),
            ];
            for (database, content) in &self.databases {
                for (name, table) in &content.tables {
                    let i = id - table.id - 100;
                    if let Some(partition) = usize::try_from(i)
                        .ok()
                        .and_then(|i| table.partitions.get(i))
                    {
                        row = vec![
                            some(database),
                            some(name),
                            some(partition),
                            some(name),
                            some(content.id),
                            some(table.id),
                            some(table.id + 10 + i),
                            some(table.id + 1),
                            some(true),
                            some("SHOW PROC"),
                        ];
                    }
                }
            }
            return Reply::Rows {
                columns: columns.iter().map(|c| (*c).into()).collect(),
                rows: vec![row],
            };
        }
        let Some(table) = self.find(words) else {
            return Reply::error(1051, "Unknown table");
        };
        let only = sql
            .split_once("PARTITION (")
            .map(|(_, rest)| rest.trim_end_matches(')').trim_matches('`').to_owned());
        let columns = [
            "TabletId",
            "ReplicaId",
            "BackendId",
            "Version",
            "VersionCount",
            "RowCount",
            "DataSize",
            "State",
        ];
        let chosen = table
            .partitions
            .iter()
            .enumerate()
            .filter(|(_, p)| only.as_ref().is_none_or(|o| o == *p));
        let row = |(i, _): (usize, &String)| {
            let id = table.id + 100 + i as i64;
            vec![
                some(id),
                some(id + 1),
                some(10_100),
                some(2),
                some(3),
                some(10),
                some("512 B"),
                some("NORMAL"),
            ]
        };
        Reply::Rows {
            columns: columns.iter().map(|c| (*c).into()).collect(),
            rows: chosen.map(row).collect(),
        }
    }
}

fn over(job: &FeJob) -> bool {
    matches!(job.state, "FINISHED" | "CANCELLED")
}

fn partitions(partitions: &Partitions) -> Vec<String> {
    match partitions {
        Partitions::Named { names, .. } => names.iter().map(ToString::to_string).collect(),
        Partitions::All | Partitions::Keyed(_) => Vec::new(),
    }
}

fn directory(location: &str) -> Option<PathBuf> {
    location.starts_with('/').then(|| PathBuf::from(location))
}

fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn info_file(dir: &Path, timestamp: &str) -> Option<PathBuf> {
    let prefix = format!("__info_{timestamp}.");
    entries(dir)
        .into_iter()
        .find(|e| e.starts_with(&prefix))
        .map(|e| dir.join(e))
}

/// Writes a file as StarRocks does: its MD5 after its name.
pub fn put(dir: &Path, name: &str, content: &[u8]) {
    fs::create_dir_all(dir).expect("a directory");
    fs::write(
        dir.join(format!("{name}.{}", hex::encode(Md5::digest(content)))),
        content,
    )
    .expect("written");
}
