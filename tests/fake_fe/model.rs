//! What the frontends of the fake cluster agree on: databases, repositories, one job a database,
//! and what jobs leave in repositories. What is shown of it is in `show`, what changes it in `jobs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta};
use datafusion::arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use md5::{Digest, Md5};

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
    /// Whether it says what its partitions are.
    pub is_partitioned: bool,
    pub has_lists: bool,
    pub has_temporary_partitions: bool,
    pub replicas: u16,
    /// Of its partitions, where they are not 2.
    pub versions: Vec<i64>,
    /// Of its partitions, where they are not what follows from its own.
    pub ids: Vec<i64>,
    /// How many of the rows each of its partitions has, one after the other; the first has all where
    /// that is not said.
    pub lengths: Vec<usize>,
    /// More of what SHOW CREATE TABLE says.
    pub definition: String,
}

impl Table {
    /// Without rows, and with one column.
    pub fn empty(id: i64, replicas: u16) -> Self {
        let schema = Schema::new(vec![Field::new("id", DataType::Int64, true)]);
        let rows = RecordBatch::new_empty(schema.into());
        Self {
            replicas,
            ..table(id, &[("id", "bigint(20)")], rows, &[])
        }
    }

    pub fn is_dynamic(&self) -> bool {
        self.definition
            .contains("\"dynamic_partition.enable\" = \"true\"")
    }

    pub fn partition_id(&self, place: usize) -> i64 {
        let known = self.ids.get(place).copied();
        known.unwrap_or(self.id + 10 + place as i64)
    }

    pub fn version(&self, place: usize) -> i64 {
        self.versions.get(place).copied().unwrap_or(2)
    }

    fn rows_of(&self, place: usize) -> RecordBatch {
        if self.lengths.is_empty() {
            let rows = if place == 0 { self.rows.num_rows() } else { 0 };
            return self.rows.slice(0, rows);
        }
        let from = self.lengths[..place].iter().sum();
        self.rows.slice(from, self.lengths[place])
    }

    /// Its partitions as they are: name, id, version, rows.
    fn parts(&self) -> Vec<(String, i64, i64, RecordBatch)> {
        let part = |(i, name): (usize, &String)| {
            (
                name.clone(),
                self.partition_id(i),
                self.version(i),
                self.rows_of(i),
            )
        };
        self.partitions.iter().enumerate().map(part).collect()
    }

    fn set_parts(&mut self, parts: Vec<(String, i64, i64, RecordBatch)>) {
        let rows: Vec<&RecordBatch> = parts.iter().map(|(.., rows)| rows).collect();
        self.rows = concat_batches(&self.rows.schema(), rows).expect("of one schema");
        self.lengths = parts.iter().map(|(.., rows)| rows.num_rows()).collect();
        self.versions = parts.iter().map(|(_, _, version, _)| *version).collect();
        self.ids = parts.iter().map(|(_, id, ..)| *id).collect();
        self.partitions = parts.into_iter().map(|(name, ..)| name).collect();
    }

    /// The same with some of its partitions alone; none for all.
    fn only(&self, names: &[String]) -> Self {
        let mut table = self.clone();
        if !names.is_empty() {
            let parts = self.parts().into_iter();
            table.set_parts(parts.filter(|(name, ..)| names.contains(name)).collect());
        }
        table
    }

    /// Puts a partition where it was, or beside the others, in its next version.
    pub fn load(&mut self, name: &str, rows: RecordBatch) {
        let mut parts = self.parts();
        match parts.iter_mut().find(|(known, ..)| known == name) {
            Some(part) => (part.2, part.3) = (part.2 + 1, rows),
            None => {
                let id = self.id + 500 + parts.len() as i64;
                parts.push((name.to_owned(), id, 2, rows));
            }
        }
        self.set_parts(parts);
    }

    /// Some of its partitions become what another table has.
    pub fn overwrite(&mut self, names: &[String], from: &Self) -> bool {
        let mut parts = self.parts();
        for (name, .., rows) in from.parts() {
            let place = parts.iter_mut().find(|(known, ..)| *known == name);
            match place.filter(|_| names.contains(&name)) {
                // It is another partition by that.
                Some(part) => (part.1, part.2, part.3) = (part.1 + 7_000, 2, rows),
                None => return false,
            }
        }
        self.set_parts(parts);
        true
    }

    /// Makes a partition without rows.
    pub fn add_partition(&mut self, name: &str) {
        let mut parts = self.parts();
        let id = self.id + 700 + parts.len() as i64;
        parts.push((name.to_owned(), id, 1, self.rows.slice(0, 0)));
        self.set_parts(parts);
    }

    /// How many rows these of its partitions have.
    pub fn count(&self, names: &[String]) -> usize {
        self.only(names).rows.num_rows()
    }

    /// Takes a partition away.
    pub fn drop_partition(&mut self, name: &str) {
        let parts = self.parts().into_iter();
        self.set_parts(parts.filter(|(known, ..)| known != name).collect());
    }
}

#[derive(Clone, Default)]
pub struct Database {
    pub id: i64,
    pub tables: BTreeMap<String, Table>,
}

#[derive(Clone, Debug)]
pub struct Repository {
    pub id: i64,
    pub read_only: bool,
    pub location: String,
    pub broker: Option<String>,
    pub created: i64,
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
    /// Table, partitions, alias.
    pub objects: Vec<(String, Vec<String>, Option<String>)>,
    pub timestamp: String,
    pub replication: String,
    pub timeout: String,
    pub created: i64,
    pub meta_prepared: Option<i64>,
    pub snapshot_finished: Option<i64>,
    pub transfer_finished: Option<i64>,
    pub finished: Option<i64>,
    pub progress: String,
    pub open_tasks: usize,
    pub ttl: Option<String>,
}

impl Default for FeJob {
    fn default() -> Self {
        Self {
            id: -1,
            is_backup: false,
            label: String::new(),
            database: String::new(),
            repository: String::new(),
            state: "PENDING",
            status: "[OK]".into(),
            objects: Vec::new(),
            timestamp: String::new(),
            replication: String::new(),
            timeout: String::new(),
            created: 0,
            meta_prepared: None,
            snapshot_finished: None,
            transfer_finished: None,
            finished: None,
            progress: String::new(),
            open_tasks: 0,
            ttl: None,
        }
    }
}

/// The session of one connection.
pub struct FeSession {
    pub database: Option<String>,
    pub offset_hours: i64,
}

pub struct Model {
    pub version: (u32, u32),
    pub full_version: String,
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
    /// Refuses to exchange names of tables.
    pub refuse_swaps: bool,
    /// Whether a backup of a whole database takes materialized views.
    pub backs_up_materialized_views: bool,
    pub brokers: Vec<String>,
    pub catalogs: Vec<String>,
    /// Where locations with a scheme are; without it a location is a directory.
    pub buckets: Option<PathBuf>,
    /// The tables of snapshots, by repository and label, and the databases that they are of.
    pub kept: BTreeMap<(String, String), BTreeMap<String, Table>>,
    pub homes: BTreeMap<(String, String), String>,
    pub next_id: i64,
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

pub fn some(text: impl ToString) -> Option<String> {
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
        is_partitioned: partitions.len() > 1,
        has_lists: false,
        has_temporary_partitions: false,
        replicas: 1,
        versions: Vec::new(),
        ids: Vec::new(),
        lengths: Vec::new(),
        definition: String::new(),
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
            backends: vec![true; 3],
            denied: false,
            leaderless: false,
            refuse_swaps: false,
            backs_up_materialized_views: true,
            brokers: vec!["hdfs_broker".into()],
            catalogs: vec!["lake".into()],
            buckets: None,
            kept: BTreeMap::new(),
            homes: BTreeMap::new(),
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

    pub fn now(&mut self) -> i64 {
        if !self.clock_is_stopped {
            self.seconds += 1;
        }
        self.seconds
    }

    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }

    pub fn id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn time(&self, session: &FeSession, seconds: Option<i64>) -> Option<String> {
        let hours = if self.at_least(4, 1) {
            8
        } else {
            session.offset_hours
        };
        let at = DateTime::from_timestamp(seconds?, 0)? + TimeDelta::hours(hours);
        Some(at.format("%Y-%m-%d %H:%M:%S").to_string())
    }

    /// Where a location is on this machine.
    pub fn directory(&self, location: &str) -> Option<PathBuf> {
        match (&self.buckets, location.split_once("://")) {
            (Some(buckets), Some((_, rest))) => Some(buckets.join(rest)),
            (None, None) if location.starts_with('/') => Some(PathBuf::from(location)),
            _ => None,
        }
    }

    /// Where a repository is on this machine.
    pub fn root(&self, repository: &str) -> Option<PathBuf> {
        let directory = self.directory(&self.repositories.get(repository)?.location)?;
        Some(directory.join(format!("__starrocks_repository_{repository}")))
    }

    /// The same as a frontend says it.
    pub fn url(&self, repository: &str) -> String {
        let known = self.repositories.get(repository);
        let location = known.map_or("", |r| r.location.trim_end_matches('/'));
        format!("{location}/__starrocks_repository_{repository}")
    }

    /// A materialized view beside the tables.
    pub fn add_materialized_view(&mut self, database: &str, name: &str) {
        let id = self.id() + 10_000;
        let database = self.databases.get_mut(database).expect("a database");
        let mut view = database.tables["customers"].clone();
        (view.id, view.is_materialized) = (id, true);
        database.tables.insert(name.to_owned(), view);
    }

    /// Moves every job by one phase.
    pub fn tick(&mut self) {
        let names: Vec<String> = self.slots.keys().cloned().collect();
        for name in names {
            self.tick_job(&name);
        }
    }

    /// Moves the job of this database by one phase, if it is under way.
    pub fn tick_job(&mut self, database: &str) {
        let Some(mut job) = self.slots.get(database).cloned().filter(|j| !over(j)) else {
            return;
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
                if let Some(misfit) = self.misfit(&job) {
                    job.state = "CANCELLED";
                    job.status = format!("[{misfit}]");
                    job.finished = Some(now);
                } else {
                    job.meta_prepared = Some(now);
                }
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
            self.put_back(&job);
        }
        self.slots.insert(database.to_owned(), job);
    }

    /// Why a job cannot go on with what is there.
    fn misfit(&self, job: &FeJob) -> Option<String> {
        if job.is_backup {
            let tables = self.databases.get(&job.database).map(|d| &d.tables);
            let mut named = job.objects.iter().map(|(name, ..)| name);
            let gone = named.find(|name| !tables.is_some_and(|t| t.contains_key(*name)))?;
            return Some(format!("NOT_FOUND, msg: table {gone} does not exist"));
        }
        let wanted: u16 = job.replication.parse().expect("a number");
        let kept = &self.kept[&(job.repository.clone(), job.label.clone())];
        let there = &self.databases.get(&job.database)?.tables;
        for (name, partitions, alias) in &job.objects {
            let Some(table) = there.get(alias.as_ref().unwrap_or(name)) else {
                if usize::from(wanted) > self.backends.len() && !kept[name].is_view {
                    return Some(format!(
                        "COMMON_ERROR, msg: failed to find {wanted} different hosts to create table: {name}"
                    ));
                }
                continue;
            };
            if table.is_partitioned != kept[name].is_partitioned {
                return Some("COMMON_ERROR, msg: Table's partition type is different".into());
            }
            // The signature has the table's own name.
            if alias.as_ref().is_some_and(|alias| alias != name) {
                return Some(format!(
                    "COMMON_ERROR, msg: Table {name} already exist but with different schema, errMsg: Table name is inconsistent"
                ));
            }
            if table.replicas != wanted && !table.is_view {
                let partition = partitions.first().unwrap_or(name);
                return Some(format!(
                    "COMMON_ERROR, msg: Partition {partition} in table {name} has different replication num '{}' with partition in repository, which is {wanted}",
                    table.replicas
                ));
            }
        }
        None
    }

    /// What a restore that is done has brought.
    fn put_back(&mut self, job: &FeJob) {
        let key = (job.repository.clone(), job.label.clone());
        let kept = self.kept.get(&key).cloned().unwrap_or_default();
        let Some(database) = self.databases.get_mut(&job.database) else {
            return;
        };
        for (table, partitions, alias) in &job.objects {
            let Some(content) = kept.get(table) else {
                continue;
            };
            let mut content = content.only(partitions);
            content.replicas = job.replication.parse().expect("a number");
            let target = alias.clone().unwrap_or_else(|| table.clone());
            if let Some(there) = database.tables.get_mut(&target).filter(|t| !t.is_view) {
                // What is not restored stays as it is.
                let mut parts = there.parts();
                for (mut name, _, version, rows) in content.parts() {
                    if let ([only], false) = (&there.partitions[..], there.is_partitioned) {
                        name.clone_from(only);
                    }
                    match parts.iter_mut().find(|(known, ..)| *known == name) {
                        Some(part) => (part.2, part.3) = (version, rows),
                        None => {
                            self.next_id += 1;
                            parts.push((name, self.next_id + 50_000, version, rows));
                        }
                    }
                }
                there.set_parts(parts);
                continue;
            }
            self.next_id += 1_000;
            content.id = self.next_id + 50_000;
            let mut parts = content.parts();
            for (i, part) in parts.iter_mut().enumerate() {
                part.1 = content.id + 10 + i as i64;
            }
            // The only partition of a table without any is called as it is.
            if let ([only], false) = (&mut parts[..], content.is_partitioned) {
                only.0.clone_from(&target);
            }
            content.set_parts(parts);
            database.tables.insert(target, content);
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
            .filter_map(|(name, partitions, _)| {
                Some((name.clone(), database.tables.get(name)?.only(partitions)))
            })
            .collect();
        match job.state {
            // One tablet after the other: the first is there.
            "UPLOADING" | "SAVE_META" => {
                let most = if job.state == "UPLOADING" {
                    1
                } else {
                    usize::MAX
                };
                let tables = chosen.iter().filter(|(_, t)| !t.is_view);
                let tablets = tables.flat_map(|(name, table)| {
                    (0..table.partitions.len() as i64).map(move |i| (name, table, i))
                });
                for (name, table, i) in tablets.take(most) {
                    let part = table.partition_id(i as usize);
                    let tablet = part + 90;
                    let path = dir.join(format!(
                        "__ss_content/__db_{}/__tbl_{}/__part_{}/__idx_{}/__{tablet}",
                        database.id,
                        table.id,
                        part,
                        table.id + 1
                    ));
                    put(&path, "0200_0.dat", format!("rows of {tablet}").as_bytes());
                    put(&path, &header(name, tablet), b"header");
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
                let key = (job.repository.clone(), job.label.clone());
                self.homes.insert(key.clone(), job.database.clone());
                self.kept.insert(key, chosen);
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
                    let (id, version) = (table.partition_id(i), table.version(i));
                    let tablet = id + 90;
                    let modern = self.at_least(3, 4);
                    let files = if modern {
                        serde_json::json!([])
                    } else {
                        serde_json::json!([
                            named("0200_0.dat", format!("rows of {tablet}").as_bytes()),
                            named(&header(name, tablet), b"header"),
                        ])
                    };
                    let index = serde_json::json!({ name: { "id": table.id + 1, "schema_hash": 1, "tablets": { tablet.to_string(): files }, "tablets_order": [tablet.to_string()] } });
                    let content = if modern {
                        // The id in paths is the physical partition's.
                        serde_json::json!({ "id": id + 5000, "version": version, "version_hash": 0, "indexes": {}, "subPartitions": { id.to_string(): { "id": id, "version": version, "indexes": index } } })
                    } else {
                        serde_json::json!({ "id": id, "version": version, "version_hash": 0, "indexes": index })
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
}

pub fn over(job: &FeJob) -> bool {
    matches!(job.state, "FINISHED" | "CANCELLED")
}

pub fn entries(dir: &Path) -> Vec<String> {
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

pub fn info_file(dir: &Path, timestamp: &str) -> Option<PathBuf> {
    let prefix = format!("__info_{timestamp}.");
    entries(dir)
        .into_iter()
        .find(|e| e.starts_with(&prefix))
        .map(|e| dir.join(e))
}

/// Writes a file as StarRocks does: its MD5 after its name.
pub fn put(dir: &Path, name: &str, content: &[u8]) {
    fs::create_dir_all(dir).expect("a directory");
    fs::write(dir.join(named(name, content)), content).expect("written");
}

/// What describes a tablet; those of primary key tables, as `orders` is one, have something else.
fn header(table: &str, tablet: i64) -> String {
    match table {
        "orders" => "meta".into(),
        _ => format!("{tablet}.hdr"),
    }
}

fn named(name: &str, content: &[u8]) -> String {
    format!("{name}.{}", hex::encode(Md5::digest(content)))
}
