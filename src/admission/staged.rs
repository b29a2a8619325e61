//! RESTORE on a StarRocks cluster in several steps: of a snapshot that needs others, and of any with
//! `"atomic" = "true"`. All is restored beside what is there and takes its place at the end.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;

use super::Caller;
use super::checks::Checks;
use crate::chains::{Chains, Taken};
use crate::cluster::ExternalCluster;
use crate::error::{Error, ErrorKind};
use crate::job::{
    Contents, PartitionContents, StagedRequest, StagedTable, Stored, TableContents, Target, Work,
};
use crate::names::*;
use crate::privilege::{Privilege, Securable};
use crate::repository::StarRocksRepository;
use crate::statement::{ObjectKind, ObjectRef, Partitions, RestoreSnapshot};

/// Replicas of a restored table where nothing says otherwise, as in StarRocks.
const REPLICAS: u16 = 3;
/// The properties that a restore in steps knows.
const KNOWN: [&str; 3] = ["backup_timestamp", "replication_num", "timeout"];

/// A restore in steps, before it is carried out.
pub(super) struct Staging {
    pub request: StagedRequest,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Of each step, in their order: files and bytes; none where they are not known.
    pub volumes: Vec<Option<(u64, u64)>>,
    /// Which of the tables take the place of one that is there.
    pub replaces: Vec<bool>,
}

/// Whether a restore is done in steps: one that is to be, and one of a snapshot that needs others, if
/// it names tables with partitions. What comes whole each time is in the snapshot itself, and
/// restored as it stands there.
pub(super) fn is_staged(
    atomic: bool,
    chain: Option<&Taken>,
    objects: Option<&[ObjectRef]>,
) -> bool {
    let Some(taken) = chain.filter(|_| !atomic) else {
        return atomic;
    };
    let contents = &taken.contents;
    let has_parts = |name: &TableName| {
        let mut tables = contents.tables.iter();
        tables.any(|table| table.table == *name && !table.partitions.is_empty())
    };
    let is_table = |object: &ObjectRef| match object {
        ObjectRef::Untyped(t) | ObjectRef::Table(t) => has_parts(&t.table.name),
        ObjectRef::All(kind) => *kind == ObjectKind::Table,
        ObjectRef::Named { .. } => false,
    };
    objects.is_none_or(|objects| objects.iter().any(is_table))
}

fn views_of(taken: &Taken) -> Vec<String> {
    let views = taken.contents.views.iter();
    views.map(ToString::to_string).collect()
}

/// A table that is wanted: its partitions, none for all, and its name afterwards.
struct Wanted {
    name: TableName,
    partitions: Vec<PartitionName>,
    target: TableName,
}

impl Caller {
    pub(super) fn chains<'a>(&'a self, repository: &'a RepositoryName) -> Chains<'a> {
        Chains {
            store: &*self.gateway.store,
            cluster: self.cluster.name(),
            repository,
        }
    }

    /// The backup that a restore names, if others have a part of it; `backup_timestamp` is what the
    /// statement says, or `latest`.
    pub(super) async fn chain_of(&self, restore: &RestoreSnapshot) -> Result<Option<Taken>, Error> {
        let chains = self.chains(&restore.repository);
        let found = chains.find(self.external()?, &restore.label.name).await?;
        let said = restore.properties.get("backup_timestamp");
        let is_meant = |taken: &Taken| {
            said.is_some_and(|said| {
                said.eq_ignore_ascii_case("latest") || said == taken.stored.timestamp.as_str()
            })
        };
        Ok(found.filter(|taken| !taken.contents.older.is_empty() && is_meant(taken)))
    }

    /// What a snapshot consists of: as it was noted, or all that its `__info_` file names.
    async fn contents_of(
        &self,
        stored: &StarRocksRepository,
        backup: &Stored,
        chain: Option<&Taken>,
    ) -> Result<(Contents, Vec<String>), Error> {
        if let Some(taken) = chain.filter(|taken| !taken.has_own) {
            return Ok(((*taken.contents).clone(), views_of(taken)));
        }
        let Stored { label, timestamp } = backup;
        let found = stored.label(label.as_str()).await?;
        let mut infos = found.infos.iter();
        let info = infos.find(|info| info.timestamp == timestamp.as_str());
        let info = info.ok_or_else(|| {
            Error::new(
                ErrorKind::UndefinedObject,
                format!("Failed to get info of snapshot '{label}' because: there is no backup of that time"),
            )
        })?;
        let info = stored.info(info).await?;
        if let Some(taken) = chain {
            // What came and went between the note and the copy is as the copy has it.
            let mut contents = (*taken.contents).clone();
            for table in &mut contents.tables {
                let copied = info.backup_objects.get(table.table.as_str());
                let has = |name: &str| copied.is_some_and(|t| t.partitions.contains_key(name));
                table
                    .partitions
                    .retain(|p| p.older.is_some() || has(p.name.as_str()));
                for (name, partition) in copied.iter().flat_map(|t| &t.partitions) {
                    let name = PartitionName::new(name.as_str())?;
                    let known = table.partitions.iter().find(|p| p.name == name);
                    if known.is_some_and(|known| known.older.is_some()) {
                        let message = format!(
                            "what is known of snapshot {label} is not what is stored under its name"
                        );
                        return Err(Error::new(ErrorKind::WrongState, message).detail(format!(
                            "It has partition {name} of table {}, which was not sent.",
                            table.table
                        )));
                    }
                    if known.is_none() {
                        table.partitions.push(PartitionContents {
                            name,
                            id: partition.id,
                            version: partition.version,
                            at: String::new(),
                            older: None,
                        });
                    }
                }
            }
            return Ok((contents, views_of(taken)));
        }
        let (mut contents, mut views) = (Contents::default(), Vec::new());
        for (name, table) in &info.backup_objects {
            if table.partitions.is_empty() {
                views.push(name.clone());
                continue;
            }
            let partition = |(name, partition): (&String, &crate::repository::InfoPartition)| {
                Ok(PartitionContents {
                    name: PartitionName::new(name.as_str())?,
                    id: partition.id,
                    version: partition.version,
                    at: String::new(),
                    older: None,
                })
            };
            let partitions = table.partitions.iter().map(partition);
            contents.tables.push(TableContents {
                table: TableName::new(name.as_str())?,
                definition: String::new(),
                apart: false,
                partitions: partitions.collect::<Result<_, Error>>()?,
            });
        }
        Ok((contents, views))
    }

    /// The tables that a statement takes of a snapshot.
    fn wanted_tables(
        &self,
        restore: &RestoreSnapshot,
        contents: &Contents,
        (others, database): (&[String], &DatabaseName),
        warnings: &mut Vec<String>,
        checks: &mut Checks,
    ) -> Result<Vec<Wanted>, Error> {
        let label = &restore.label.name;
        let mut wanted = Vec::new();
        let has_rows = |table: &&TableContents| !table.partitions.is_empty();
        let all = || {
            let tables = contents.tables.iter().filter(has_rows);
            tables.map(|t| Wanted {
                name: t.table.clone(),
                partitions: Vec::new(),
                target: t.table.clone(),
            })
        };
        let all_objects = [ObjectRef::All(ObjectKind::Table)];
        for object in restore.objects.as_deref().unwrap_or(&all_objects) {
            match object {
                ObjectRef::All(ObjectKind::Table) => wanted.extend(all()),
                ObjectRef::Untyped(t) | ObjectRef::Table(t) => {
                    let name = &t.table.name;
                    let known = contents.tables.iter().find(|known| known.table == *name);
                    let Some(known) = known.filter(has_rows) else {
                        let message = format!("Table {name} does not exist in snapshot {label}");
                        checks.fail(Error::new(ErrorKind::UndefinedTable, message))?;
                        continue;
                    };
                    let partitions = match &t.partitions {
                        Partitions::Named {
                            temporary: false,
                            names,
                        } => names.clone(),
                        Partitions::All => Vec::new(),
                        Partitions::Named { .. } | Partitions::Keyed(_) => {
                            let what = "temporary partitions in a restore that is done in steps";
                            checks.fail(Error::unsupported(what))?;
                            continue;
                        }
                    };
                    let there: BTreeSet<_> = known.partitions.iter().map(|p| &p.name).collect();
                    for missing in partitions.iter().filter(|p| !there.contains(p)) {
                        let message = format!(
                            "Partition {missing} of table {name} does not exist in snapshot {label}"
                        );
                        checks.fail(Error::new(ErrorKind::UndefinedObject, message))?;
                    }
                    wanted.push(Wanted {
                        name: name.clone(),
                        partitions,
                        target: t.alias.as_ref().unwrap_or(name).clone(),
                    });
                }
                ObjectRef::Named { kind, name, .. } => {
                    let what = format!("{kind} {} in a restore that is done in steps", name.name);
                    let hint = "Restore it by a statement of its own.";
                    checks.fail(Error::unsupported(what).hint(hint))?;
                }
                ObjectRef::All(kind) => {
                    let what = format!("ALL {kind}S in a restore that is done in steps");
                    let hint = "Restore them by a statement of their own.";
                    checks.fail(Error::unsupported(what).hint(hint))?;
                }
            }
        }
        if restore.objects.is_none() {
            let empty = contents.tables.iter().filter(|t| t.partitions.is_empty());
            let left: Vec<String> = others
                .iter()
                .cloned()
                .chain(empty.map(|t| t.table.to_string()))
                .collect();
            if !left.is_empty() {
                warnings.push(format!(
                    "tables alone are restored in steps, and of those the ones that have partitions; {} can be restored by RESTORE SNAPSHOT {label} … ON (…)",
                    left.join(", ")
                ));
            }
        }
        let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
        for table in &wanted {
            if !names.insert(&table.name) {
                let message = format!("Duplicated table: {}", table.name);
                checks.fail(Error::new(ErrorKind::DuplicateTable, message))?;
            }
            if !seen.insert(&table.target) {
                let message = format!("Duplicated alias name: {}", table.target);
                checks.fail(Error::new(ErrorKind::InvalidParameter, message))?;
            }
        }
        if wanted.is_empty() {
            let message = format!("snapshot {label} has no table to restore into {database}");
            checks.fail(Error::new(ErrorKind::UndefinedTable, message))?;
        }
        Ok(wanted)
    }

    /// What is there under the names that the restored tables are to have.
    async fn check_targets(
        &self,
        wanted: &[Wanted],
        contents: &Contents,
        database: &DatabaseName,
        warnings: &mut Vec<String>,
        checks: &mut Checks,
    ) -> Result<Vec<bool>, Error> {
        let schema = self.cluster.catalog().schema(database.as_str());
        let there = |name: &TableName| {
            schema
                .as_ref()
                .is_some_and(|s| s.table_exist(name.as_str()))
        };
        let mut replaces = Vec::with_capacity(wanted.len());
        for table in wanted {
            let is_there = there(&table.target);
            replaces.push(is_there);
            if !is_there {
                continue;
            }
            if !table.partitions.is_empty() {
                let what = format!(
                    "PARTITION in a restore in steps over table {}, which is there",
                    table.target
                );
                checks.fail(Error::unsupported(what).hint(
                    "A table takes the place of another as a whole: restore the partitions AS another table, and load them from there.",
                ))?;
                continue;
            }
            // Its name and what it can be told by; a view is no table.
            let external = self.external()?;
            let target = table.target.as_str();
            let ids = external.partition_ids(database, target).await;
            if checks.take(ids.map(drop))?.is_none() {
                continue;
            }
            // It is taken away, and another one gets its name.
            for privilege in [Privilege::Drop, Privilege::Alter] {
                let on = Securable::Table(Some(database.clone()), table.target.clone());
                checks.take(self.require(privilege, on).await)?;
            }
            let there = external.contents(database, std::slice::from_ref(&table.target));
            let Some(there) = checks.take(there.await)? else {
                continue;
            };
            let known = contents
                .tables
                .iter()
                .find(|known| known.table == table.name);
            let restored: BTreeSet<&str> = known
                .iter()
                .flat_map(|known| known.partitions.iter().map(|p| p.name.as_str()))
                .collect();
            let names = there
                .iter()
                .flat_map(|t| t.partitions.iter().map(|p| p.name.as_str()));
            let gone: Vec<&str> = names.filter(|name| !restored.contains(name)).collect();
            let is_unpartitioned = gone.len() == 1 && gone[0] == table.target.as_str();
            if !gone.is_empty() && !is_unpartitioned {
                warnings.push(format!(
                    "table {database}.{} is replaced as a whole: {} of it, which the snapshot does not have, goes with the old one",
                    table.target,
                    gone.join(", ")
                ));
            }
        }
        Ok(replaces)
    }

    /// Files and bytes that each step reads, by the bucket's own listing.
    async fn volumes(
        &self,
        stored: &StarRocksRepository,
        request: &StagedRequest,
    ) -> Result<Vec<Option<(u64, u64)>>, Error> {
        let mut volumes = Vec::with_capacity(request.steps.len());
        for step in &request.steps {
            let found = stored.label(step.label.as_str()).await?;
            let mut infos = found.infos.iter();
            let Some(info) = infos.find(|info| info.timestamp == step.timestamp.as_str()) else {
                volumes.push(None);
                continue;
            };
            let info = stored.info(info).await?;
            let mut ids: BTreeSet<i64> = BTreeSet::new();
            for part in &step.parts {
                let table = info.backup_objects.get(part.table.as_str());
                for (name, _) in &part.partitions {
                    let partition = table.and_then(|t| t.partitions.get(name.as_str()));
                    ids.extend(partition.map(|p| p.id));
                    ids.extend(
                        partition
                            .iter()
                            .flat_map(|p| p.physical.values().map(|p| p.id)),
                    );
                }
            }
            let (mut sum, mut files) = ((0, 0), stored.files(Some(step.label.as_str())).await?);
            while let Some(file) = files.try_next().await? {
                if file.partition_id.is_some_and(|id| ids.contains(&id)) {
                    sum = (sum.0 + 1, sum.1 + file.bytes);
                }
            }
            volumes.push(Some(sum));
        }
        Ok(volumes)
    }

    /// A restore in steps: what it reads, and what takes whose place. `measures`: with the bytes.
    pub(super) async fn plan_staging(
        &self,
        restore: &RestoreSnapshot,
        database: &DatabaseName,
        chain: Option<&Taken>,
        measures: bool,
        checks: &mut Checks,
    ) -> Result<Option<Staging>, Error> {
        for key in restore.properties.0.keys() {
            if !KNOWN.contains(&key.as_str()) {
                let what = format!("\"{key}\" of a restore that is done in steps");
                checks.fail(Error::unsupported(what))?;
            }
        }
        let said = restore.properties.get("replication_num");
        let replicas = match said.map(|n| n.parse::<u16>()) {
            None => Ok(REPLICAS),
            Some(Ok(n)) if n > 0 => Ok(n),
            Some(_) => {
                let message = format!(
                    "invalid value of \"replication_num\": \"{}\" is no number of replicas",
                    said.unwrap_or_default()
                );
                Err(Error::new(ErrorKind::InvalidParameter, message))
            }
        };
        let replicas = checks.take(replicas)?;
        let missing = || {
            Error::new(
                ErrorKind::InvalidParameter,
                "Missing backup_timestamp property",
            )
        };
        let timestamp = restore.properties.get("backup_timestamp");
        let timestamp = timestamp.ok_or_else(missing).and_then(BackupTimestamp::new);
        let stored = self.stored_repository(&restore.repository).await;
        let (Some(replication_num), Some(timestamp), Some(stored)) =
            (replicas, checks.take(timestamp)?, checks.take(stored)?)
        else {
            return Ok(None);
        };
        let backup = Stored {
            label: restore.label.name.clone(),
            timestamp,
        };
        let contents = self.contents_of(&stored, &backup, chain).await;
        let Some((contents, others)) = checks.take(contents)? else {
            return Ok(None);
        };
        let mut warnings = Vec::new();
        let wanted = self.wanted_tables(
            restore,
            &contents,
            (&others, database),
            &mut warnings,
            checks,
        )?;
        let targets = self.check_targets(&wanted, &contents, database, &mut warnings, checks);
        let replaces = targets.await?;
        let chosen: BTreeMap<&TableName, BTreeSet<&PartitionName>> = wanted
            .iter()
            .map(|table| (&table.name, table.partitions.iter().collect()))
            .collect();
        let steps = contents.steps(&backup, &chosen);
        let tables = wanted.iter().zip(&replaces).map(|(table, replaces)| {
            let parts = steps.iter().enumerate().filter_map(|(place, step)| {
                let part = step.parts.iter().find(|part| part.table == table.name)?;
                Some((place as u32, part))
            });
            let parts: Vec<_> = parts.collect();
            let largest = parts
                .iter()
                .rev()
                .max_by_key(|(_, part)| part.partitions.len());
            let names = parts.iter().flat_map(|(_, part)| &part.partitions);
            StagedTable {
                name: table.name.clone(),
                target: table.target.clone(),
                replaces: *replaces,
                main: largest.map_or(0, |(place, _)| *place),
                partitions: names.map(|(name, _)| name.clone()).collect(),
            }
        });
        let tables: Vec<_> = tables.collect();
        let request = StagedRequest {
            target: Target {
                database: database.clone(),
                label: backup.label,
                repository: restore.repository.clone(),
            },
            timestamp: backup.timestamp,
            tables,
            steps,
            replication_num,
        };
        if !request.joins().is_empty() && !self.external()?.puts_together().await? {
            let what = "a table whose partitions are in several snapshots, on StarRocks before 2.5";
            checks.fail(Error::unsupported(what))?;
        }
        let volumes = match measures {
            true => checks
                .take(self.volumes(&stored, &request).await)?
                .unwrap_or_else(|| vec![None; request.steps.len()]),
            false => Vec::new(),
        };
        Ok(Some(Staging {
            request,
            warnings,
            volumes,
            replaces,
        }))
    }

    /// Submits a restore in steps.
    pub(super) async fn staged_restore(
        &mut self,
        said: &RestoreSnapshot,
        restore: &RestoreSnapshot,
        database: &DatabaseName,
        chain: Option<&Taken>,
    ) -> Result<String, Error> {
        let mut checks = Checks::first();
        let planned = self.plan_staging(restore, database, chain, false, &mut checks);
        let staging = Checks::passed(planned.await?)?;
        for warning in staging.warnings {
            self.warning("01000", warning);
        }
        let timeout = restore.properties.get("timeout");
        let timeout = timeout.and_then(|t| t.trim().parse().ok());
        let snapshots = staging.request.steps.len();
        let work = Work::Staged(Box::new(staging.request));
        let spec = self.spec(timeout, work, &said.to_string());
        let id = self.gateway.runner.submit(spec).await?;
        let of = match snapshots {
            1 => "1 snapshot".to_owned(),
            n => format!("{n} snapshots"),
        };
        self.notice(format!(
            "job {id} submitted: {of} restored beside what is there, which takes its place at the end; watch it with SHOW RESTORE FROM {database}"
        ));
        Ok("RESTORE".into())
    }

    /// The cluster that does its jobs itself.
    pub(super) fn external(&self) -> Result<&dyn ExternalCluster, Error> {
        self.cluster
            .external()
            .ok_or_else(|| Error::internal("the cluster does its work elsewhere"))
    }
}
