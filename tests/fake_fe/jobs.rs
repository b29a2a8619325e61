//! What changes something on the fake cluster: repositories, BACKUP, RESTORE and CANCEL, in the
//! order of a frontend's checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use starkeep::statement::{
    BackupSnapshot, CancelScope, CreateRepository, ExternalCatalogs, JobKeyword, ObjectKind,
    ObjectRef, Partitions, Properties, RestoreSnapshot, Statement, parse_one,
};

use super::model::{Database, FeJob, FeSession, Model, Repository, Table, over};
use super::wire::Reply;

const BUSY: &str = "Can only run one backup or restore job of a database at same time";

type Object = (String, Vec<String>, Option<String>);

fn partitions(partitions: &Partitions) -> Vec<String> {
    match partitions {
        Partitions::Named { names, .. } => names.iter().map(ToString::to_string).collect(),
        Partitions::All | Partitions::Keyed(_) => Vec::new(),
    }
}

fn is_temporary(object: &ObjectRef) -> bool {
    let (ObjectRef::Untyped(table) | ObjectRef::Table(table)) = object else {
        return false;
    };
    matches!(&table.partitions, Partitions::Named { temporary, .. } if *temporary)
}

/// Whether a statement has a form that 3.4 brought.
fn is_new_form(statement: &Statement) -> bool {
    let typed = |objects: &Option<Vec<ObjectRef>>| {
        let mut objects = objects.iter().flatten();
        objects.any(|object| !matches!(object, ObjectRef::Untyped(_)))
    };
    match statement {
        Statement::Backup(b) => b.catalogs.is_some() || typed(&b.objects),
        Statement::Restore(r) => r.catalogs.is_some() || r.database.is_some() || typed(&r.objects),
        Statement::Cancel(c) => matches!(c.scope, CancelScope::ExternalCatalog),
        _ => false,
    }
}

fn told(done: Result<(), Reply>) -> Reply {
    done.map_or_else(|refusal| refusal, |()| Reply::done())
}

/// Where a partition is unknown, a frontend says where in the statement.
fn at_partitions(sql: &str, mut reply: Reply) -> Reply {
    let place = sql.find("PARTITION (").and_then(|from| {
        let to = from + sql[from..].find(')')?;
        Some(format!(
            "error from line 1, column {from} to line 1, column {to}."
        ))
    });
    if let (Reply::Error { message, .. }, Some(place)) = (&mut reply, place)
        && message.contains("partition[")
    {
        *message = message.replacen("error.", &place, 1);
    }
    reply
}

/// The text between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

impl Model {
    pub fn change(&mut self, session: &FeSession, sql: &str) -> Reply {
        if self.denied {
            return self.denial();
        }
        let reply = match parse_one(sql) {
            Ok(statement) if is_new_form(&statement) && !self.at_least(3, 4) => self.syntax(),
            _ if sql.starts_with("BACKUP DATABASE ") && !self.at_least(3, 4) => self.syntax(),
            Ok(Statement::Backup(backup)) => {
                at_partitions(sql, told(self.backup(session, &backup)))
            }
            Ok(Statement::Restore(restore)) => told(self.restore(&restore)),
            Ok(Statement::Cancel(cancel)) => self.cancel(&cancel.scope, cancel.kind),
            Ok(Statement::CreateRepository(create)) => self.create_repository(create),
            Ok(Statement::DropRepository(name)) => self.drop_repository(name.as_str()),
            Ok(Statement::DropSnapshot(drop)) if self.at_least(4, 2) => {
                let repository = drop.repository.as_str();
                let Some(root) = self.root(repository) else {
                    return self.refused(&format!("Repository does not exist: {repository}"));
                };
                match fs::remove_dir_all(root.join(format!("__ss_{}", drop.label))) {
                    Ok(()) => Reply::done(),
                    Err(_) => self.refused(&format!(
                        "Snapshot does not exist in repository {repository}: {}",
                        drop.label
                    )),
                }
            }
            Ok(Statement::Recover(_)) => self.recover(sql),
            Err(e) if self.analysed(&e.message).is_some() => {
                self.analysed(&e.message).expect("just seen")
            }
            _ if sql.starts_with("INSERT OVERWRITE") => self.overwrite(sql),
            _ if sql.starts_with("INSERT") => Reply::Ok { affected: 2 },
            _ => self.define(sql),
        };
        if matches!(reply, Reply::Ok { .. }) {
            self.effects.push(sql.to_owned());
        }
        reply
    }

    /// What our grammar refuses and a frontend reads and refuses then.
    fn analysed(&self, message: &str) -> Option<Reply> {
        let coded = |code, sqlstate| Some(self.analysis_coded(code, sqlstate, message));
        match message {
            "Repository is empty" | "Repository does not empty" => coded(5064, "42000"),
            m if m.starts_with("Incorrect repository name") => coded(5063, "42000"),
            m if m.starts_with("Incorrect label name") => coded(5082, "42000"),
            m if m.starts_with("Incorrect database name") => coded(1102, "42000"),
            m if m.starts_with("You must specify") => Some(self.analysis(message)),
            m if m.contains("is forbidden in BACKUP stmt") && self.at_least(3, 4) => {
                Some(self.senseless(message))
            }
            _ => None,
        }
    }

    /// RECOVER: nothing is ever in the recycle bin but tables of the databases that are there.
    fn recover(&self, sql: &str) -> Reply {
        let name = sql.replace('`', "");
        let name = name.rsplit([' ', '.']).next().unwrap_or_default();
        let has_table = |name: &str| self.databases.values().any(|d| d.tables.contains_key(name));
        match sql.split_whitespace().nth(1) {
            Some("TABLE") if !has_table(name) && name == "nope" => self.unknown_table(name),
            Some("DATABASE") if !self.databases.contains_key(name) && name == "nope" => {
                let message = format!("Unknown database '{name}'");
                if self.at_least(3, 3) {
                    self.unknown_database_bare(name)
                } else {
                    self.refused(&message)
                }
            }
            _ => Reply::done(),
        }
    }

    /// INSERT OVERWRITE of partitions of one table from another.
    fn overwrite(&mut self, sql: &str) -> Reply {
        let plain = sql.replace('`', "");
        let names = between(&plain, "PARTITION (", ")").unwrap_or_default();
        let names: Vec<String> = names.split(", ").map(str::to_owned).collect();
        let table = |after: &str| {
            let path = plain.split(after).nth(1)?.split_whitespace().next()?;
            let (database, name) = path.split_once('.')?;
            Some((database.to_owned(), name.to_owned()))
        };
        let (Some(to), Some(from)) = (table("OVERWRITE "), table(" FROM ")) else {
            return self.syntax();
        };
        let source = self
            .databases
            .get(&from.0)
            .and_then(|d| d.tables.get(&from.1));
        let Some(source) = source.cloned() else {
            return self.unknown_table(&from.1);
        };
        let target = self
            .databases
            .get_mut(&to.0)
            .and_then(|d| d.tables.get_mut(&to.1));
        match target.map(|target| target.overwrite(&names, &source)) {
            Some(true) => Reply::Ok { affected: 1 },
            Some(false) => self.analysis("Unknown partition"),
            None => self.unknown_table(&to.1),
        }
    }

    /// CREATE and DROP of databases and tables, as much of them as anything here looks at.
    fn define(&mut self, sql: &str) -> Reply {
        let plain = sql.replace('`', "");
        let words: Vec<&str> = plain.split_whitespace().collect();
        if let ["DROP", "DATABASE", "IF", "EXISTS", name, "FORCE"] = words[..] {
            self.databases.remove(name);
            return Reply::done();
        }
        if let ["CREATE", "DATABASE", .., name] = words[..] {
            if self.databases.contains_key(name) && words.len() > 3 {
                return Reply::done();
            }
            if self.databases.contains_key(name) {
                let message = format!("Can't create database '{name}'; database exists");
                return self.exists(&message);
            }
            let id = self.id();
            self.databases.insert(
                name.to_owned(),
                Database {
                    id,
                    tables: BTreeMap::new(),
                },
            );
            return Reply::done();
        }
        let qualified = match words[..] {
            ["DROP", "TABLE", "IF", "EXISTS", name] => name,
            ["CREATE" | "DROP", "TABLE" | "VIEW", name, ..] => name,
            ["CREATE" | "DROP", "MATERIALIZED", "VIEW", name, ..] => name,
            ["ALTER", "TABLE", name, ..] => name,
            _ => return self.syntax(),
        };
        let Some((database, name)) = qualified.split_once('.') else {
            return self.syntax();
        };
        let id = self.id() + 100_000;
        self.next_id += 1_000;
        let Some(content) = self.databases.get_mut(database) else {
            return self.unknown_database(database);
        };
        match words[0] {
            "DROP" => drop(content.tables.remove(name)),
            "ALTER" if self.refuse_swaps => {
                return self.refused(&format!("Table {name}'s state is not NORMAL: ROLLUP"));
            }
            "ALTER" if words.get(3) == Some(&"SWAP") => {
                let with = words[5];
                let (Some(one), Some(other)) =
                    (content.tables.remove(name), content.tables.remove(with))
                else {
                    return self.refused(&format!("Unknown table '{with}'"));
                };
                content.tables.insert(name.to_owned(), other);
                content.tables.insert(with.to_owned(), one);
            }
            "ALTER" if words.get(3) == Some(&"RENAME") => {
                let to = words[4];
                let Some(table) = content.tables.remove(name) else {
                    return self.refused(&format!("Unknown table '{name}'"));
                };
                content.tables.insert(to.to_owned(), table);
            }
            "ALTER"
                if words.get(3) == Some(&"ADD")
                    && content.tables.get(name).is_some_and(Table::is_dynamic) =>
            {
                let message = "Cannot add/drop partition on a Dynamic Partition Table";
                return self.refused(message);
            }
            "ALTER" if words.get(3) == Some(&"ADD") && words.get(4) == Some(&"PARTITION") => {
                let Some(table) = content.tables.get_mut(name) else {
                    return self.refused(&format!("Unknown table '{name}'"));
                };
                table.add_partition(words[5]);
            }
            "ALTER" if plain.contains("dynamic_partition.enable") => {
                let Some(table) = content.tables.get_mut(name) else {
                    return self.refused(&format!("Unknown table '{name}'"));
                };
                let enable = |on: bool| format!("\"dynamic_partition.enable\" = \"{on}\"");
                let on = plain.contains(&enable(true));
                table.definition = table.definition.replace(&enable(!on), &enable(on));
            }
            "ALTER" => {
                if let Some(table) = content.tables.get_mut(name) {
                    table.has_temporary_partitions |= plain.contains("TEMPORARY PARTITION");
                }
            }
            _ => {
                let replicas = between(&plain, "'replication_num'='", "'");
                let replicas = replicas.and_then(|n| n.parse().ok()).unwrap_or(3);
                if replicas > self.backends.len() as u16 {
                    let message = "Table replication num should be less than of equal to the number of available BE nodes. You can change this default by setting the replication_num table properties. Current alive backend is";
                    let ids = (0..self.backends.len()).map(|i| (10_100 + i).to_string());
                    let ids = ids.collect::<Vec<_>>().join(",");
                    let is_analysed = self.at_least(3, 3);
                    return if is_analysed {
                        self.analysis(&format!("{message} [{ids}]."))
                    } else {
                        self.failed(&format!(
                            "{message} [{ids}]. table={name}, properties.replication_num={replicas}"
                        ))
                    };
                }
                let mut table = Table::empty(id, replicas);
                table.is_view = words[1] == "VIEW";
                table.is_materialized = words[1] == "MATERIALIZED";
                let parts = plain.split("PARTITION ").skip(1);
                let parts = parts.filter(|p| p.split_whitespace().nth(1) == Some("VALUES"));
                table.partitions = parts
                    .filter_map(|p| Some(p.split_whitespace().next()?.to_owned()))
                    .collect();
                table.has_lists = plain.contains("PARTITION BY LIST");
                table.is_partitioned = !table.partitions.is_empty();
                if !table.is_partitioned && !table.is_view {
                    table.partitions = vec![name.to_owned()];
                }
                content.tables.insert(name.to_owned(), table);
            }
        }
        Reply::done()
    }

    fn exists(&self, message: &str) -> Reply {
        if self.at_least(3, 3) {
            return Reply::error(1007, message);
        }
        self.failed(message)
    }

    fn create_repository(&mut self, create: CreateRepository) -> Reply {
        let name = create.name.to_string();
        let broker = create.broker.map(|b| b.to_string());
        if let Some(unknown) = broker.as_ref().filter(|b| !self.brokers.contains(b)) {
            return self.analysis(&if self.at_least(3, 3) {
                format!("Unknown broker name({unknown})")
            } else {
                format!("failed to get address of broker {unknown}")
            });
        }
        if self.repositories.contains_key(&name) {
            return self.refused(&format!(
                "Failed to create repository: repository with same name already exist: {name}"
            ));
        }
        let unreached = |model: &Self, why: &str| {
            let root = create.location.trim_end_matches('/');
            model.refused(&format!(
                "Failed to create repository: failed to list remote path: {root}/__starrocks_repository_{name}/__repo_info. msg: {why}"
            ))
        };
        if let Some(why) = self.unreachable(&create.location, &create.properties) {
            return unreached(self, &why);
        }
        if let Some(dir) = self.directory(&create.location) {
            let root = dir.join(format!("__starrocks_repository_{name}"));
            let info = format!("{{\"name\":\"{name}\",\"create_time\":\"2026-01-01 08:00:00\"}}");
            let written = fs::create_dir_all(&root);
            if let Err(e) = written.and_then(|()| fs::write(root.join("__repo_info"), info)) {
                return unreached(self, &e.to_string());
            }
        }
        let (id, created) = (self.id(), self.now());
        let repository = Repository {
            id,
            read_only: create.read_only,
            location: create.location,
            broker,
            created,
        };
        self.repositories.insert(name, repository);
        Reply::done()
    }

    /// What the object store says of a location that it does not serve.
    fn unreachable(&self, location: &str, properties: &Properties) -> Option<String> {
        self.buckets.as_ref()?;
        let Some((scheme, rest)) = location.split_once("://") else {
            return Some("invalid path. scheme is null".into());
        };
        let bucket = rest.split('/').next().unwrap_or_default();
        match scheme {
            "s3" | "s3a" if properties.0.is_empty() => Some("no keys".into()),
            "s3" | "s3a" if bucket != "vault" => Some("no such bucket".into()),
            "s3" | "s3a" | "hdfs" => None,
            "bad" => Some(format!("invalid path: {location}")),
            _ => Some(format!(
                "org.apache.hadoop.fs.UnsupportedFileSystemException: No FileSystem for scheme \"{scheme}\""
            )),
        }
    }

    fn drop_repository(&mut self, name: &str) -> Reply {
        let mut jobs = self.slots.values();
        if jobs.any(|j| j.repository == name && !over(j)) {
            return self
                .refused("Backup or restore job is running on this repository. Can not drop it");
        }
        match self.repositories.remove(name) {
            Some(_) => Reply::done(),
            None => self.analysis_common("Repository does not exist"),
        }
    }

    fn check_properties(
        &self,
        properties: &Properties,
        known: &[&str],
        kind: &str,
    ) -> Result<(), Reply> {
        let is = |name: &str| properties.get(name);
        if let Some(timeout) = is("timeout") {
            match timeout.parse::<i64>() {
                Err(_) => {
                    let message = format!("Invalid timeout format: {timeout}");
                    return Err(self.analysis_common(&message));
                }
                Ok(seconds) if seconds < 600 => {
                    return Err(self.analysis_common("timeout must be at least 10 min"));
                }
                Ok(_) => {}
            }
        }
        if kind == "backup"
            && let Some(wrong) = is("type").filter(|t| !["full", "incremental"].contains(t))
        {
            return Err(self.analysis_common(&format!("Invalid backup job type: {wrong}")));
        }
        if let Some(wrong) = is("allow_load").filter(|v| !["true", "false"].contains(v)) {
            return Err(self.analysis_common(&format!("Invalid allow load value: {wrong}")));
        }
        for number in ["replication_num", "meta_version", "starrocks_meta_version"] {
            if let Some(wrong) = is(number).filter(|n| n.parse::<i64>().is_err()) {
                let message = format!("Invalid meta version format: {wrong}");
                return Err(self.analysis_common(&message));
            }
        }
        let unknown: Vec<_> = properties
            .0
            .keys()
            .filter(|k| !known.contains(&k.as_str()))
            .cloned()
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown = unknown.join(", ");
        Err(self.analysis_common(&format!("Unknown {kind} job properties: [{unknown}]")))
    }

    /// A database that is not named.
    fn nameless(&self, session: &FeSession) -> Reply {
        match (&session.database, self.at_least(3, 3)) {
            (None, _) => self.unknown_database(""),
            (Some(_), true) => {
                self.failed("Cannot read field \"dbName\" because \"<local5>\" is null")
            }
            (Some(_), false) => self.refused("Unknown database 'null'"),
        }
    }

    fn backup(&mut self, session: &FeSession, backup: &BackupSnapshot) -> Result<(), Reply> {
        let database = match (&backup.label.database, &backup.catalogs) {
            (_, Some(_)) => String::new(),
            (Some(name), None) => name.to_string(),
            (None, None) => return Err(self.nameless(session)),
        };
        if backup.catalogs.is_none() && !self.databases.contains_key(&database) {
            return Err(self.unknown_database(&database));
        }
        let repository = backup.repository.to_string();
        if !self.repositories.contains_key(&repository) {
            return Err(self.analysis_common(&format!("Repository [{repository}] does not exist")));
        }
        let objects = match &backup.catalogs {
            Some(catalogs) => self.check_catalogs(catalogs).map(|()| Vec::new()),
            None => self.objects_to_back_up(&database, backup.objects.as_deref()),
        }?;
        let mut known = vec!["timeout", "type"];
        known.extend(self.at_least(4, 2).then_some("ttl"));
        self.check_properties(&backup.properties, &known, "backup")?;
        if self.slots.get(&database).is_some_and(|j| !over(j)) {
            return Err(self.refused(if backup.catalogs.is_some() {
                "Can only run one backup or restore job of external catalog"
            } else {
                BUSY
            }));
        }
        if self.repositories[&repository].read_only {
            return Err(self.refused(&format!("Repository {repository} is read only")));
        }
        if backup.properties.get("type") == Some("incremental") {
            return Err(self.refused("Currently does not support incremental backup"));
        }
        let tables = self.databases.get(&database).map(|d| &d.tables);
        for (name, ..) in &objects {
            let table = &tables.expect("a database")[name];
            if table.is_view && !self.at_least(3, 4) {
                return Err(self.failed(&format!("Table '{name}' is not a OLAP table")));
            }
            if table.has_temporary_partitions {
                let message = "Do not support backing up table with temp partitions";
                return Err(self.refused(message));
            }
        }
        let label = backup.label.name.to_string();
        let root = self.root(&repository);
        if root.is_some_and(|r| r.join(format!("__ss_{label}")).exists()) {
            return Err(self.refused(&format!(
                "Snapshot with name '{label}' already exist in repository"
            )));
        }
        let job = FeJob {
            is_backup: true,
            label,
            repository,
            objects,
            ttl: backup.properties.get("ttl").map(str::to_owned),
            ..self.new_job(&database, &backup.properties)
        };
        self.slots.insert(database, job);
        Ok(())
    }

    fn new_job(&mut self, database: &str, properties: &Properties) -> FeJob {
        FeJob {
            database: database.to_owned(),
            timeout: properties.get("timeout").unwrap_or("86400").to_owned(),
            created: self.now(),
            ..FeJob::default()
        }
    }

    fn check_catalogs(&self, catalogs: &ExternalCatalogs) -> Result<(), Reply> {
        match catalogs {
            ExternalCatalogs::All if self.catalogs.is_empty() => {
                Err(self.analysis_common("No external catalog can be backed up"))
            }
            ExternalCatalogs::All => Ok(()),
            ExternalCatalogs::Named(names) => {
                let mut names = names.iter().map(|(name, _)| name);
                match names.find(|n| !self.catalogs.contains(n)) {
                    None => Ok(()),
                    Some(name) if name == "default_catalog" => {
                        let message = "Do not support Backup/Restore the entire default catalog";
                        Err(self.analysis_common(message))
                    }
                    Some(name) => {
                        let message = format!("external catalog {name} does not existed.");
                        Err(self.analysis_common(&message))
                    }
                }
            }
        }
    }

    /// What a BACKUP names, in the order in which SHOW BACKUP has it.
    fn objects_to_back_up(
        &self,
        database: &str,
        listed: Option<&[ObjectRef]>,
    ) -> Result<Vec<Object>, Reply> {
        let tables = &self.databases[database].tables;
        let takes = |kind: ObjectKind| {
            let is_wanted = move |table: &Table| match kind {
                ObjectKind::Table => !table.is_view && !table.is_materialized,
                ObjectKind::View => table.is_view,
                ObjectKind::MaterializedView => {
                    table.is_materialized && self.backs_up_materialized_views
                }
                _ => false,
            };
            let named = tables.iter().filter(move |(_, table)| is_wanted(table));
            named.map(|(name, _)| (name.clone(), Vec::new(), None))
        };
        let mut objects: Vec<Object> = Vec::new();
        match listed {
            // Views are taken from 3.4 on.
            None => {
                objects.extend(takes(ObjectKind::Table));
                objects.extend(takes(ObjectKind::MaterializedView));
                if self.at_least(3, 4) {
                    objects.extend(takes(ObjectKind::View));
                }
                // Of names that differ in case only, it takes one.
                let mut seen = BTreeSet::new();
                objects.retain(|(name, ..)| seen.insert(name.to_lowercase()));
            }
            Some(list) => {
                for object in list {
                    match object {
                        ObjectRef::Untyped(t) | ObjectRef::Table(t) => {
                            let name = t.table.name.to_string();
                            objects.push((name, partitions(&t.partitions), None));
                        }
                        ObjectRef::Named { name, kind, .. } => {
                            if matches!(kind, ObjectKind::Function) {
                                return Err(self.analysis_common(&format!(
                                    "Invalid backup function(s), function name: {database}.{}",
                                    name.name
                                )));
                            }
                            objects.push((name.name.to_string(), Vec::new(), None));
                        }
                        ObjectRef::All(kind) => objects.extend(takes(*kind)),
                    }
                }
            }
        }
        let fold = |name: &str| {
            if self.at_least(3, 4) {
                name.to_owned()
            } else {
                name.to_lowercase()
            }
        };
        let mut seen = BTreeSet::new();
        for (name, partitions, _) in &objects {
            if !seen.insert(fold(name)) && tables.contains_key(name) {
                return Err(self.analysis(&format!("Duplicated table: {name}")));
            }
            let Some(table) = tables.get(name) else {
                return Err(self.analysis(&format!("Incorrect table name '{name}'")));
            };
            if let Some(missing) = partitions.iter().find(|p| !table.partitions.contains(p)) {
                let message = format!("partition[{missing}] does not exist  in table{name}");
                return Err(self.analysis(&message));
            }
            if table.has_lists && !self.at_least(3, 3) {
                let message = "List partition table does not support backup/restore job";
                return Err(self.analysis(message));
            }
        }
        if objects.is_empty() {
            return Err(self.analysis(&format!("Database: {database} is empty")));
        }
        objects.sort();
        Ok(objects)
    }

    fn restore(&mut self, restore: &RestoreSnapshot) -> Result<(), Reply> {
        let clause = restore.database.as_ref();
        let clause = clause.map(|(source, target)| target.as_ref().unwrap_or(source));
        let named = restore.label.database.as_ref().or(clause);
        let listed = restore.objects.as_deref().unwrap_or_default();
        if named.is_none() && !listed.is_empty() && self.at_least(3, 4) {
            let message =
                "`ON` clause is forbidden if no Database explicitly specified in Restore stmt";
            return Err(self.senseless(message));
        }
        self.check_names(listed)?;
        let Some(timestamp) = restore.properties.get("backup_timestamp") else {
            return Err(self.analysis_common("Missing backup_timestamp property"));
        };
        let known = [
            "backup_timestamp",
            "timeout",
            "allow_load",
            "replication_num",
            "meta_version",
            "starrocks_meta_version",
        ];
        self.check_properties(&restore.properties, &known, "restore")?;
        let (repository, label) = (
            restore.repository.to_string(),
            restore.label.name.to_string(),
        );
        if !self.repositories.contains_key(&repository) {
            return Err(self.refused(&format!("Repository {repository} does not exist")));
        }
        let database = match named {
            Some(name) => name.to_string(),
            None if self.at_least(3, 4) => self.home_of(&repository, &label),
            None => return Err(self.refused("Unknown database 'null'")),
        };
        if !self.databases.contains_key(&database) {
            if !self.at_least(3, 4) {
                return Err(self.refused(&format!("Unknown database '{database}'")));
            }
            let id = self.id();
            let tables = BTreeMap::new();
            self.databases
                .insert(database.clone(), Database { id, tables });
        }
        if self.slots.get(&database).is_some_and(|j| !over(j)) {
            return Err(self.refused(BUSY));
        }
        if let Err(missing) = self.info_of(&repository, &label, timestamp) {
            return Err(self.refused(&format!(
                "Failed to get info of snapshot '{label}' because: {missing}. Maybe specified wrong backup timestamp"
            )));
        }
        let objects = self.objects_to_restore(&repository, &label, restore.objects.as_deref())?;
        let replication = restore.properties.get("replication_num").unwrap_or("3");
        let job = FeJob {
            label,
            repository,
            objects,
            timestamp: timestamp.to_owned(),
            replication: replication.to_owned(),
            ..self.new_job(&database, &restore.properties)
        };
        self.slots.insert(database, job);
        Ok(())
    }

    /// The database that a snapshot was taken of.
    fn home_of(&self, repository: &str, label: &str) -> String {
        let key = (repository.to_owned(), label.to_owned());
        self.homes.get(&key).cloned().unwrap_or_default()
    }

    /// A table or an alias that is there twice.
    fn check_names(&self, listed: &[ObjectRef]) -> Result<(), Reply> {
        let (mut tables, mut targets) = (BTreeSet::new(), BTreeSet::new());
        for object in listed {
            let (table, alias) = match object {
                ObjectRef::Untyped(t) | ObjectRef::Table(t) => (&t.table.name, &t.alias),
                ObjectRef::Named { name, alias, .. } => (&name.name, alias),
                ObjectRef::All(_) => continue,
            };
            if !tables.insert(table.to_string()) {
                return Err(self.analysis(&format!("Duplicated table: {table}")));
            }
            let all = listed.iter().filter_map(|other| match other {
                ObjectRef::Untyped(t) | ObjectRef::Table(t) => Some(t.table.name.to_string()),
                _ => None,
            });
            if let Some(alias) = alias {
                let is_taken = all.into_iter().any(|name| name == alias.as_str());
                if !targets.insert(alias.to_string()) || is_taken {
                    return Err(self.analysis(&format!("Duplicated alias name: {alias}")));
                }
            }
        }
        Ok(())
    }

    fn objects_to_restore(
        &self,
        repository: &str,
        label: &str,
        listed: Option<&[ObjectRef]>,
    ) -> Result<Vec<Object>, Reply> {
        let key = (repository.to_owned(), label.to_owned());
        let kept = self.kept.get(&key).cloned().unwrap_or_default();
        let whole = |name: &String| (name.clone(), Vec::new(), None);
        let mut objects: Vec<Object> = Vec::new();
        for object in listed.unwrap_or(&[ObjectRef::All(ObjectKind::Table)]) {
            match object {
                _ if is_temporary(object) => {
                    return Err(self.refused("Do not support restoring temporary partitions"));
                }
                ObjectRef::Untyped(t) | ObjectRef::Table(t) => objects.push((
                    t.table.name.to_string(),
                    partitions(&t.partitions),
                    t.alias.as_ref().map(ToString::to_string),
                )),
                ObjectRef::Named { name, alias, .. } => objects.push((
                    name.name.to_string(),
                    Vec::new(),
                    alias.as_ref().map(ToString::to_string),
                )),
                ObjectRef::All(_) => objects.extend(kept.keys().map(whole)),
            }
        }
        for (name, partitions, _) in &mut objects {
            let Some(table) = kept.get(name) else {
                return Err(
                    self.refused(&format!("Table {name} does not exist in snapshot {label}"))
                );
            };
            if let Some(missing) = partitions.iter().find(|p| !table.partitions.contains(p)) {
                return Err(self.refused(&format!(
                    "Partition {missing} of table {name} does not exist in snapshot {label}"
                )));
            }
            if partitions.is_empty() && table.is_partitioned {
                *partitions = table.partitions.clone();
            }
        }
        Ok(objects)
    }

    fn cancel(&mut self, scope: &CancelScope, kind: JobKeyword) -> Reply {
        let backup = kind == JobKeyword::Backup;
        let database = match scope {
            CancelScope::Database(name) => name.to_string(),
            CancelScope::ExternalCatalog => String::new(),
            CancelScope::Current if self.at_least(3, 3) => {
                return self.senseless("No selected database for cancel BACKUP/RESTORE");
            }
            CancelScope::Current => {
                return self.refused("Cannot invoke \"org.antlr.v4.runtime.tree.ParseTree.accept(org.antlr.v4.runtime.tree.ParseTreeVisitor)\" because \"tree\" is null");
            }
        };
        if !database.is_empty() && !self.databases.contains_key(&database) {
            return self.unknown_database(&database);
        }
        let now = self.now();
        let job = self.slots.get_mut(&database);
        match job.filter(|j| j.is_backup == backup) {
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
}
