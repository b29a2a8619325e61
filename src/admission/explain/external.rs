//! EXPLAIN on a cluster that does its jobs itself: what it has told of tables and snapshots, what
//! stands in the bucket, and which of its own checks a statement would not pass.

use std::collections::BTreeMap;

use futures::TryStreamExt;

use super::steps::total;
use super::{refusals, told};
use crate::admission::Caller;
use crate::admission::checks::Checks;
use crate::admission::options::{take_atomic, take_base, take_queue};
use crate::admission::staged::is_staged;
use crate::cluster::{ExternalCluster, NativeTable, Scope};
use crate::error::{Error, ErrorKind};
use crate::job::{DropRequest, DroppedBackups, JobKind, Work};
use crate::names::*;
use crate::privilege::{Privilege, Securable};
use crate::query::{JobStep, Severity};
use crate::repository::Info;
use crate::statement::{
    BackupSnapshot, DropSnapshot, ObjectKind, ObjectRef, Partitions, RestoreSnapshot, Statement,
};

const BUSY: &str = "Can only run one backup or restore job of a database at same time";
/// The property of RESTORE, and what StarRocks takes without it.
const REPLICATION_NUM: &str = "replication_num";
const REPLICAS: u16 = 3;

/// A table as a statement names it: its partitions, none for all, and what it is called afterwards.
struct Named {
    table: String,
    partitions: Vec<String>,
    alias: Option<String>,
}

/// What a statement takes: every table, or some.
enum Taken {
    Every,
    Some(Vec<Named>),
}

/// The tables and views that are meant; functions have no bytes.
fn taken(objects: Option<&[ObjectRef]>) -> Taken {
    let mut named = Vec::new();
    let Some(objects) = objects else {
        return Taken::Every;
    };
    for object in objects {
        let (table, partitions, alias) = match object {
            ObjectRef::Untyped(t) | ObjectRef::Table(t) => {
                let partitions = match &t.partitions {
                    Partitions::Named { names, .. } => {
                        names.iter().map(ToString::to_string).collect()
                    }
                    Partitions::All | Partitions::Keyed(_) => Vec::new(),
                };
                (t.table.name.to_string(), partitions, &t.alias)
            }
            ObjectRef::Named {
                kind: ObjectKind::Function,
                ..
            } => continue,
            ObjectRef::Named { name, alias, .. } => (name.name.to_string(), Vec::new(), alias),
            ObjectRef::All(ObjectKind::Table) => return Taken::Every,
            ObjectRef::All(_) => continue,
        };
        named.push(Named {
            table,
            partitions,
            alias: alias.as_ref().map(ToString::to_string),
        });
    }
    Taken::Some(named)
}

/// A partition as the cluster tells it.
struct Told {
    name: String,
    kind: String,
    tablets: u64,
    bytes: u64,
    replicas: Option<u16>,
}

/// What an `__info_` file says, and how many files and bytes each table has, by its id.
type Stored = (Info, BTreeMap<i64, (u64, u64)>);

fn undefined(message: String) -> Error {
    Error::new(ErrorKind::UndefinedObject, message)
}

impl Caller {
    pub(super) async fn explain_external(
        &mut self,
        statement: &Statement,
    ) -> Result<Vec<JobStep>, Error> {
        match (statement, self.cluster.external().is_some()) {
            (Statement::Backup(backup), true) if backup.catalogs.is_none() => {
                self.explain_external_backup(backup).await
            }
            (Statement::Restore(restore), true) if restore.catalogs.is_none() => {
                self.explain_external_restore(restore, Checks::every())
                    .await
            }
            (Statement::DropSnapshot(drop), true) => self.explain_stored_drop(drop).await,
            (Statement::Prune(prune), _) => self.explain_stored_prune(prune).await,
            (Statement::Verify(verify), _) => self.explain_verify(verify).await,
            _ => Err(Error::unsupported(format_args!(
                "EXPLAIN {} on cluster \"{}\" of type {}",
                statement.verb(),
                self.cluster.name(),
                self.cluster.kind().name()
            ))),
        }
    }

    pub(super) fn explained_cluster(&self) -> Result<&dyn ExternalCluster, Error> {
        let external = self.cluster.external();
        external.ok_or_else(|| Error::internal("the cluster does its work elsewhere"))
    }

    /// The partitions of a database's tables, or of one, by table.
    async fn told_partitions(
        &self,
        database: &DatabaseName,
        table: Option<&str>,
    ) -> Result<BTreeMap<String, Vec<Told>>, Error> {
        let scope = Scope {
            database: Some(database.to_string()),
            table: table.map(str::to_owned),
            tablet: None,
        };
        let rows = self.explained_cluster()?;
        let rows = rows.native(NativeTable::Partitions, &scope).await?;
        let mut tables: BTreeMap<String, Vec<Told>> = BTreeMap::new();
        for mut row in rows {
            let number = |value: Option<&String>| value.and_then(|v| v.parse::<u64>().ok());
            let told = Told {
                tablets: number(row.get("buckets")).unwrap_or_default(),
                bytes: number(row.get("bytes")).unwrap_or_default(),
                replicas: row.get("replication_num").and_then(|v| v.parse().ok()),
                name: row.remove("partition_name").unwrap_or_default(),
                kind: row.remove("kind").unwrap_or_default(),
            };
            let table = row.remove("table_name").unwrap_or_default();
            tables.entry(table).or_default().push(told);
        }
        Ok(tables)
    }

    /// What keeps the cluster from taking a job of this database now.
    async fn check_slot(
        &self,
        database: &DatabaseName,
        queue: bool,
        checks: &mut Checks,
    ) -> Result<Option<JobStep>, Error> {
        let slot = self.explained_cluster()?.slot(database).await;
        let Some(Some(slot)) = checks.take(slot)? else {
            return Ok(None);
        };
        if slot.seen.phase().is_over() {
            return Ok(None);
        }
        let detail = format!("{} {} is {}.", slot.kind, slot.seen.label, slot.seen.state);
        let busy = Error::new(ErrorKind::ObjectInUse, BUSY).detail(detail);
        if queue {
            // It would wait for its turn.
            return Ok(Some(told(Severity::Warning, database.as_str(), &busy)));
        }
        checks.fail(busy)?;
        Ok(None)
    }

    /// Whether the cluster has a repository, and may write to it.
    async fn check_told_repository(
        &self,
        name: &RepositoryName,
        writes: bool,
        checks: &mut Checks,
    ) -> Result<(), Error> {
        let known = self.explained_cluster()?.repositories().await;
        let Some(known) = checks.take(known)? else {
            return Ok(());
        };
        match known.iter().find(|r| r.name == name.as_str()) {
            None => checks.fail(undefined(format!("Repository [{name}] does not exist"))),
            Some(found) if writes && found.read_only => {
                let message = format!("Repository {name} is read only");
                checks.fail(Error::new(ErrorKind::WrongState, message))
            }
            Some(_) => Ok(()),
        }
    }

    async fn check_backends(&self, replicas: u16, checks: &mut Checks) -> Result<(), Error> {
        let alive = match self.explained_cluster()?.backends_alive().await {
            // Whoever may not see them is told by the cluster.
            Err(e) if e.kind == ErrorKind::InsufficientPrivilege => return Ok(()),
            alive => checks.take(alive)?,
        };
        let Some(alive) = alive else {
            return Ok(());
        };
        if alive < replicas {
            let message = format!("{alive} backends are alive, and {replicas} are needed");
            checks.fail(Error::new(ErrorKind::WrongState, message))?;
        }
        Ok(())
    }

    async fn explain_external_backup(
        &mut self,
        backup: &BackupSnapshot,
    ) -> Result<Vec<JobStep>, Error> {
        let mut checks = Checks::every();
        let mut backup = backup.clone();
        let queues = self.explained_cluster()?.queues();
        let queue = take_queue(&mut backup.properties, queues)?;
        let base = take_base(&mut backup.properties)?;
        let database = self.database_or_current(backup.label.database.as_ref())?;
        backup.label.database = Some(database.clone());
        let objects = backup.objects.as_deref();
        let allowed = self.check_export(&database, objects).await;
        if checks.take(allowed)?.is_none() {
            return Ok(refusals(&backup.label.name, checks));
        }
        let external = self.explained_cluster()?;
        let printed = external.render(&Statement::Backup(backup.clone())).await;
        checks.take(printed)?;
        self.check_told_repository(&backup.repository, true, &mut checks)
            .await?;
        self.check_backends(1, &mut checks).await?;
        let busy = self.check_slot(&database, queue, &mut checks).await?;
        let (repository, label) = (backup.repository.as_str(), backup.label.name.as_str());
        let known = external.snapshots(repository, Some(label)).await;
        if checks.take(known)?.is_some_and(|found| !found.is_empty()) {
            let message = format!("Snapshot with name '{label}' already exist in repository");
            checks.fail(Error::new(ErrorKind::DuplicateObject, message))?;
        }
        let there = checks.take(self.told_partitions(&database, None).await)?;
        let there = there.unwrap_or_default();
        let mut wanted = Vec::new();
        match taken(objects) {
            Taken::Every => {
                let all = there.iter();
                wanted.extend(all.map(|(table, parts)| (table.clone(), parts.iter().collect())));
            }
            Taken::Some(named) => {
                for one in named {
                    let schema = self.cluster.catalog().schema(database.as_str());
                    let is_there = schema.is_some_and(|schema| schema.table_exist(&one.table));
                    let all = there.get(&one.table).map(Vec::as_slice).unwrap_or_default();
                    if !is_there && all.is_empty() {
                        let message = format!("Incorrect table name '{}'", one.table);
                        checks.fail(Error::new(ErrorKind::UndefinedTable, message))?;
                        continue;
                    }
                    let is_named = |part: &&Told| {
                        one.partitions.is_empty() || one.partitions.contains(&part.name)
                    };
                    for missing in &one.partitions {
                        if !all.iter().any(|part| part.name == *missing) {
                            checks.fail(undefined(format!(
                                "partition[{missing}] does not exist in table {}",
                                one.table
                            )))?;
                        }
                    }
                    wanted.push((one.table, all.iter().filter(is_named).collect::<Vec<_>>()));
                }
            }
        }
        let schema = self.cluster.catalog().schema(database.as_str());
        let has_any = schema.is_some_and(|schema| !schema.table_names().is_empty());
        if objects.is_none() && wanted.is_empty() && !has_any {
            let message = format!("Database: {database} is empty");
            checks.fail(Error::new(ErrorKind::WrongState, message))?;
        }
        let changed = match &base {
            Some(base) => {
                let changed = self.changed(&backup, &database, base);
                checks.take(changed.await)?
            }
            None => None,
        };
        let pace = self.pace(JobKind::Backup, &backup.repository).await?;
        let mut steps = refusals(&backup.label.name, checks);
        steps.extend(busy);
        for (table, partitions) in &wanted {
            let bytes = partitions.iter().map(|part| part.bytes).sum();
            let is_list = partitions.iter().any(|part| part.kind == "LIST");
            let is_new = |part: &&&Told| {
                let changed = changed.as_ref();
                changed.is_none_or(|changed| changed.has(table, &part.name))
            };
            let new = partitions.iter().filter(is_new);
            let (count, new_bytes) = new.fold((0, 0), |(n, sum), p| (n + 1, sum + p.bytes));
            let note = match &changed {
                Some(changed) => changed.note(count, partitions.len()),
                None if is_list => "partitions by lists are backed up from StarRocks 3.3 on".into(),
                None => String::new(),
            };
            steps.push(JobStep {
                step: "UPLOADING",
                object: format!("{database}.{table}"),
                action: if count > 0 || partitions.is_empty() {
                    "upload"
                } else {
                    "keep"
                },
                partitions: Some(partitions.len() as u64),
                tablets: Some(partitions.iter().map(|part| part.tablets).sum()),
                bytes: Some(bytes),
                new_bytes: Some(new_bytes),
                estimated_seconds: pace.transfer(new_bytes),
                note,
                ..JobStep::default()
            });
        }
        let mut sum = total(&steps, label.to_owned(), pace.note(JobKind::Backup));
        sum.estimated_seconds = sum.new_bytes.and_then(|bytes| pace.whole(bytes));
        steps.push(sum);
        Ok(steps)
    }

    /// What a restore would do; `checks` say whether all that would refuse it are told, or the first
    /// one is an error.
    pub(in crate::admission) async fn explain_external_restore(
        &mut self,
        restore: &RestoreSnapshot,
        mut checks: Checks,
    ) -> Result<Vec<JobStep>, Error> {
        let mut restore = restore.clone();
        let queues = self.explained_cluster()?.queues();
        let queue = take_queue(&mut restore.properties, queues)?;
        let atomic = take_atomic(&mut restore.properties)?;
        let names_database = restore.label.database.is_some() || restore.database.is_some();
        if !names_database && self.database.is_none() {
            // Which database it is of stands in the snapshot.
            self.resolve_chain(&mut restore).await?;
        }
        let restore = &restore;
        let label = restore.label.name.clone();
        let database = self.target_database(restore).await?;
        let objects = restore.objects.as_deref();
        let allowed = self
            .check_restore_privileges(Some(&database), objects)
            .await;
        if checks.take(allowed)?.is_none() {
            return Ok(refusals(&label, checks));
        }
        let external = self.explained_cluster()?;
        let printed = external.render(&Statement::Restore(restore.clone())).await;
        checks.take(printed)?;
        self.check_told_repository(&restore.repository, false, &mut checks)
            .await?;
        let busy = self.check_slot(&database, queue, &mut checks).await?;
        let chain = self.chain_of(restore).await?;
        if is_staged(atomic, chain.as_ref(), objects) {
            let chain = chain.as_ref();
            let staged = self.explain_staged(restore, &database, chain, checks);
            return Ok(busy.into_iter().chain(staged.await?).collect());
        }
        let (info, bytes) = match self.stored_info(restore, &mut checks).await? {
            Ok(found) => found,
            Err(unread) => {
                let mut steps = refusals(&label, checks);
                steps.extend(busy.into_iter().chain(unread));
                return Ok(steps);
            }
        };
        let there = checks.take(self.told_partitions(&database, None).await)?;
        let there = there.unwrap_or_default();
        let said = restore.properties.get(REPLICATION_NUM);
        let is_auto = said.is_some_and(|n| n.eq_ignore_ascii_case("auto"));
        let replicas = said.and_then(|n| n.parse().ok()).unwrap_or(REPLICAS);
        let all = || {
            let tables = info.backup_objects.keys();
            tables.map(|table| Named {
                table: table.clone(),
                partitions: Vec::new(),
                alias: None,
            })
        };
        let wanted = match taken(objects) {
            Taken::Every => all().collect(),
            Taken::Some(named) => named,
        };
        let pace = self.pace(JobKind::Restore, &restore.repository).await?;
        let (mut rows, mut makes) = (Vec::new(), false);
        for one in wanted {
            let Some(stored) = info.backup_objects.get(&one.table) else {
                checks.fail(Error::new(
                    ErrorKind::UndefinedTable,
                    format!("Table {} does not exist in snapshot {label}", one.table),
                ))?;
                continue;
            };
            for missing in one
                .partitions
                .iter()
                .filter(|p| !stored.partitions.contains_key(*p))
            {
                checks.fail(undefined(format!(
                    "Partition {missing} of table {} does not exist in snapshot {label}",
                    one.table
                )))?;
            }
            let target = one.alias.as_ref().unwrap_or(&one.table);
            let old = there.get(target);
            makes |= old.is_none() && !stored.partitions.is_empty();
            // What the snapshot does not have stays as it is.
            let is_restored = |part: &&Told| {
                let is_meant = one.partitions.is_empty() || one.partitions.contains(&part.name);
                is_meant && stored.partitions.contains_key(&part.name)
            };
            let differs = old.into_iter().flatten().filter(is_restored);
            let differs = differs.filter_map(|part| part.replicas);
            if let Some(other) = differs.into_iter().find(|n| *n != replicas && !is_auto) {
                let message = format!(
                    "table {database}.{target} has {other} replicas, and the restore asks for {replicas}"
                );
                let hint = format!("Say \"{REPLICATION_NUM}\" = \"{other}\", or \"auto\".");
                checks.fail(Error::new(ErrorKind::WrongState, message).hint(hint))?;
            }
            let size = bytes.get(&stored.id).copied().unwrap_or_default();
            let partitions = match one.partitions.len() {
                0 => stored.partitions.len(),
                n => n,
            };
            rows.push(JobStep {
                step: "DOWNLOADING",
                object: format!("{database}.{target}"),
                action: if old.is_some() { "replace" } else { "create" },
                partitions: Some(partitions as u64),
                files: Some(size.0),
                bytes: Some(size.1),
                new_bytes: Some(size.1),
                estimated_seconds: pace.transfer(size.1),
                note: match (old.is_some(), one.partitions.is_empty()) {
                    (true, _) => "whether the definitions agree is the cluster's to see".into(),
                    (false, false) => "files and bytes are those of all its partitions".into(),
                    (false, true) => String::new(),
                },
                ..JobStep::default()
            });
        }
        let needed = if makes && !is_auto { replicas } else { 1 };
        self.check_backends(needed, &mut checks).await?;
        let mut steps = refusals(&label, checks);
        steps.extend(busy);
        steps.extend(rows);
        let mut sum = total(&steps, label.to_string(), pace.note(JobKind::Restore));
        sum.estimated_seconds = sum.new_bytes.and_then(|bytes| pace.whole(bytes));
        steps.push(sum);
        Ok(steps)
    }

    /// The backup that a RESTORE means, and how many files and bytes each table has in the bucket;
    /// or that this cannot be seen from here, which the cluster does not need.
    async fn stored_info(
        &self,
        restore: &RestoreSnapshot,
        checks: &mut Checks,
    ) -> Result<Result<Stored, Option<JobStep>>, Error> {
        let label = &restore.label.name;
        let Some(timestamp) = restore.properties.get("backup_timestamp") else {
            let message = "Missing backup_timestamp property";
            checks.fail(Error::new(ErrorKind::InvalidParameter, message))?;
            return Ok(Err(None));
        };
        let stored = match self.stored_repository(&restore.repository).await {
            Ok(stored) => match stored.ping().await {
                Ok(_) => stored,
                Err(e) => return Ok(Err(Some(told(Severity::Warning, label.as_str(), &e)))),
            },
            Err(e) => return Ok(Err(Some(told(Severity::Warning, label.as_str(), &e)))),
        };
        let read = async {
            let found = stored.label(label.as_str()).await?;
            let is_latest = timestamp.eq_ignore_ascii_case("latest");
            let mut infos = found.infos.iter().rev();
            let info = infos.find(|info| is_latest || info.timestamp == timestamp);
            let info = info.ok_or_else(|| {
                undefined(format!(
                    "Failed to get info of snapshot '{label}' because: there is no backup of that time"
                ))
            })?;
            let status = found.status();
            if status != "OK" {
                return Err(Error::new(ErrorKind::Corrupted, status));
            }
            let info = stored.info(info).await?;
            let mut bytes: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
            let mut files = stored.files(Some(label.as_str())).await?;
            while let Some(file) = files.try_next().await? {
                if let Some(table) = file.table_id {
                    let sum = bytes.entry(table).or_default();
                    *sum = (sum.0 + 1, sum.1 + file.bytes);
                }
            }
            Ok((info, bytes))
        };
        match read.await {
            Err(e) if matches!(e.kind, ErrorKind::Storage | ErrorKind::LimitExceeded) => {
                Ok(Err(Some(told(Severity::Warning, label.as_str(), &e))))
            }
            read => Ok(checks.take(read)?.ok_or(None)),
        }
    }

    async fn explain_stored_drop(&self, drop: &DropSnapshot) -> Result<Vec<JobStep>, Error> {
        let mut checks = Checks::every();
        let required = self.require(Privilege::Repository, Securable::System).await;
        if checks.take(required)?.is_none() {
            return Ok(refusals(&drop.label, checks));
        }
        let (name, label) = (&drop.repository, &drop.label);
        self.check_told_repository(name, true, &mut checks).await?;
        let external = self.explained_cluster()?;
        let rendered = external
            .render(&Statement::DropSnapshot(drop.clone()))
            .await;
        if rendered.is_ok() {
            let mut steps = refusals(label, checks);
            steps.push(JobStep {
                step: "DELETING",
                object: label.to_string(),
                action: "delete",
                note: "the cluster looks, and does it".into(),
                ..JobStep::default()
            });
            return Ok(steps);
        }
        let backups = DroppedBackups::All {
            cluster_id: String::new(),
            force: drop.force,
        };
        let work = Work::DropSnapshot(DropRequest {
            repository: name.clone(),
            label: label.clone(),
            backups,
        });
        self.check_locks(work, &mut checks).await?;
        let Some(stored) = checks.take(self.stored_repository(name).await)? else {
            return Ok(refusals(label, checks));
        };
        let read = async {
            let found = stored.label(label.as_str()).await?;
            let is_free = stored.is_free(&found).await?;
            let mut sum = (0, 0);
            let mut files = stored.files(Some(label.as_str())).await?;
            while let Some(file) = files.try_next().await? {
                sum = (sum.0 + 1, sum.1 + file.bytes);
            }
            Ok::<_, Error>((found, is_free, sum))
        };
        let Some((found, is_free, (files, bytes))) = checks.take(read.await)? else {
            return Ok(refusals(label, checks));
        };
        if is_free {
            let message = format!("Snapshot does not exist in repository {name}: {label}");
            checks.fail(undefined(message))?;
        } else if !drop.force {
            checks.take(stored.check_maker(&found).await)?;
        }
        for slot in checks.take(external.slots(&[]).await)?.unwrap_or_default() {
            let is_over = slot.seen.phase().is_over();
            if slot.seen.label == label.as_str() && !is_over {
                let message = format!("Can not drop snapshot {label}: a {} uses it", slot.kind);
                checks.fail(Error::new(ErrorKind::ObjectInUse, message))?;
            }
        }
        let mut steps = refusals(label, checks);
        steps.push(JobStep {
            step: "DELETING",
            object: label.to_string(),
            action: "delete",
            files: Some(files),
            bytes: Some(bytes),
            note: "nothing is shared between snapshots of this format".into(),
            ..JobStep::default()
        });
        if found.infos.is_empty() && !is_free {
            let half = Error::new(
                ErrorKind::WrongState,
                "it has no __info_ file: a backup was broken off",
            );
            steps.push(told(Severity::Info, label.as_str(), &half));
        }
        Ok(steps)
    }
}
