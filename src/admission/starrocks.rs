//! Statements on a cluster that does its work itself: completed here, then judged there.
//!
//! Only what StarRocks lacks is decided before sending: whose the statement is, what the current
//! database is, what `latest` and `auto` stand for. Everything else is the frontend's to refuse, in
//! its own words.

use std::collections::BTreeMap;

use super::Caller;
use super::checks::Checks;
use super::options::{take_atomic, take_base, take_queue};
use super::staged::is_staged;
use crate::chains::Taken;
use crate::cluster::{CATALOGS, ExternalCluster, ExternalDetails, NativeTable, Scope, SendError};
use crate::error::{Error, ErrorKind};
use crate::job::{ExternalRequest, ExternalState, JobKind, JobSpec, Work};
use crate::names::*;
use crate::privilege::{Privilege, Securable};
use crate::runner::{Cancelled, Submitted};
use crate::statement::{
    BackupSnapshot, CancelJob, CancelScope, CreateRepository, JobKeyword, ObjectRef, Partitions,
    Properties, Recover, RestoreSnapshot, Statement,
};

/// Replicas of a restored table where nothing says otherwise, as in StarRocks.
const REPLICAS: u16 = 3;

/// What a statement names, as `system.jobs` shows it.
fn shown_objects(database: &DatabaseName, objects: Option<&[ObjectRef]>) -> Vec<String> {
    let table = |t: &crate::statement::TableRef| {
        let partitions = match &t.partitions {
            Partitions::Named { names, .. } => {
                format!(
                    " PARTITION ({})",
                    names
                        .iter()
                        .map(|n| n.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
            Partitions::All | Partitions::Keyed(_) => String::new(),
        };
        let alias = t
            .alias
            .as_ref()
            .map_or(String::new(), |a| format!(" AS {a}"));
        format!("{database}.{}{partitions}{alias}", t.table.name)
    };
    let shown = |object: &ObjectRef| match object {
        ObjectRef::Untyped(t) | ObjectRef::Table(t) => table(t),
        ObjectRef::Named { name, alias, .. } => {
            format!(
                "{database}.{}{}",
                name.name,
                alias.as_ref().map_or(String::new(), |a| format!(" AS {a}"))
            )
        }
        ObjectRef::All(kind) => format!("ALL {kind}S"),
    };
    objects.unwrap_or_default().iter().map(shown).collect()
}

/// Sends a statement that was printed for the cluster.
pub(super) async fn send(cluster: &dyn ExternalCluster, sql: &str) -> Result<(), Error> {
    let sent = cluster.send(sql).await.map_err(SendError::into_error);
    sent.map_err(|e| e.printed_as(sql))
}

impl Caller {
    fn external_spec(
        &self,
        properties: &Properties,
        statement: &str,
        request: ExternalRequest,
    ) -> JobSpec {
        // The cluster judges it; this is for the table of jobs until it says.
        let timeout = properties
            .get("timeout")
            .and_then(|t| t.trim().parse().ok());
        self.spec(timeout, Work::External(Box::new(request)), statement)
    }

    /// Submits a job that may be; records one that may not, or that the cluster's version cannot
    /// do.
    async fn submit_external(
        &mut self,
        spec: JobSpec,
        allowed: Result<(), Error>,
        statement: Statement,
        tag: &str,
    ) -> Result<String, Error> {
        let checked = match allowed {
            Ok(()) => self.external()?.render(&statement).await,
            Err(e) => Err(e),
        };
        let printed = match checked {
            Ok(printed) => printed,
            Err(error) => {
                self.record_refusal(spec, &error).await;
                return Err(error);
            }
        };
        let kind = spec.kind();
        let database = spec
            .work
            .database()
            .filter(|database| database.as_str() != CATALOGS);
        let from = database
            .map(|database| format!(" FROM {database}"))
            .unwrap_or_default();
        let submitted = self.gateway.runner.submit_external(spec).await;
        match submitted.map_err(|e| e.printed_as(&printed))? {
            Submitted::Accepted(id) => {
                let show = if kind == JobKind::Restore { "SHOW RESTORE" } else { "SHOW BACKUP" };
                self.notice(format!("job {id} submitted; watch it with {show}{from}"));
                self.tell_of(id).await?;
            }
            Submitted::Queued(id) => self.notice(format!(
                "job {id} waits for its turn; SELECT queue_position, block_reason FROM system.jobs WHERE job_id = {id} tells for what, \
                 and CANCEL JOB {id} gives it up"
            )),
        }
        Ok(tag.to_owned())
    }

    /// Says what an incremental backup takes, and what a job should take and does not.
    async fn tell_of(&mut self, id: JobId) -> Result<(), Error> {
        let job = self.gateway.store.load(id).await?;
        let is_incremental = job.spec.external().is_some_and(|r| r.base.is_some());
        if let Some(selection) = job.record.selection.as_ref().filter(|_| is_incremental) {
            self.notice(selection.contents.summary());
        }
        let seen = job.external_state().and_then(ExternalState::seen);
        let left_out = seen.map_or_else(Vec::new, |seen| seen.left_out.clone());
        if !left_out.is_empty() {
            let message = format!(
                "the backup leaves out {}: StarRocks does not take them in this way",
                left_out.join(", ")
            );
            self.warning("01000", message);
        }
        Ok(())
    }

    /// EXPORT on every table that a BACKUP names, or on all that the database has.
    pub(super) async fn check_export(
        &self,
        database: &DatabaseName,
        objects: Option<&[ObjectRef]>,
    ) -> Result<(), Error> {
        let rights = self.rights().await?;
        rights.require(Privilege::Repository, &Securable::System)?;
        let all = || rights.require(Privilege::Export, &Securable::AllTablesIn(database.clone()));
        let Some(objects) = objects else { return all() };
        for object in objects {
            match object {
                ObjectRef::Untyped(t) | ObjectRef::Table(t) => {
                    rights.require(
                        Privilege::Export,
                        &Securable::Table(Some(database.clone()), t.table.name.clone()),
                    )?;
                }
                ObjectRef::All(_) => all()?,
                ObjectRef::Named { .. } => {}
            }
        }
        Ok(())
    }

    pub(super) async fn external_backup(
        &mut self,
        backup: &BackupSnapshot,
    ) -> Result<String, Error> {
        let said = backup;
        let mut backup = backup.clone();
        let queue = take_queue(&mut backup.properties, self.external()?.queues())?;
        let base = match &backup.catalogs {
            // What is no table has no versions.
            Some(_) => None,
            None => take_base(&mut backup.properties)?,
        };
        let database = match (&backup.catalogs, &backup.label.database) {
            (Some(_), _) => DatabaseName::new(CATALOGS)?,
            (None, named) => {
                let database = self.database_or_current(named.as_ref())?;
                backup.label.database = Some(database.clone());
                database
            }
        };
        let allowed = match &backup.catalogs {
            Some(_) => self.require(Privilege::Repository, Securable::System).await,
            None => {
                self.check_export(&database, backup.objects.as_deref())
                    .await
            }
        };
        let expected = match (&backup.catalogs, &allowed) {
            (None, Ok(())) if base.is_none() => {
                let named = backup.objects.as_deref();
                let expected = self.external()?.expected_objects(&database, named).await;
                // Where it cannot be told what there is, it cannot be told what is left out.
                expected.unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let request = ExternalRequest {
            expected,
            kind: JobKind::Backup,
            statement: backup.to_string(),
            objects: shown_objects(&database, backup.objects.as_deref()),
            database,
            label: backup.label.name.clone(),
            repository: Some(backup.repository.clone()),
            queue,
            catalogs: backup.catalogs.is_some(),
            timestamp: None,
            external: None,
            base,
        };
        let spec = self.external_spec(&backup.properties, &said.to_string(), request);
        self.submit_external(spec, allowed, Statement::Backup(backup), "BACKUP")
            .await
    }

    /// `looks_first`: what can be seen before the cluster is asked refuses it.
    pub(super) async fn external_restore(
        &mut self,
        restore: &RestoreSnapshot,
        looks_first: bool,
    ) -> Result<String, Error> {
        let said = restore;
        let mut restore = restore.clone();
        let queue = take_queue(&mut restore.properties, self.external()?.queues())?;
        let atomic = take_atomic(&mut restore.properties)?;
        // Which tables are there already decides which privileges are asked for, so it must be what
        // is true now.
        self.cluster.forget_names();
        self.cluster.refresh().await?;
        let chain = self.resolve_chain(&mut restore).await?;
        let timestamp = restore
            .properties
            .get("backup_timestamp")
            .map(str::to_owned);
        let database = match &restore.catalogs {
            Some(_) => DatabaseName::new(CATALOGS)?,
            None => self.target_database(&restore).await?,
        };
        if restore.catalogs.is_none() && restore.database.is_none() {
            restore.label.database = Some(database.clone());
        }
        let allowed = match &restore.catalogs {
            Some(_) => self.require(Privilege::Repository, Securable::System).await,
            None => {
                self.check_restore_privileges(Some(&database), restore.objects.as_deref())
                    .await
            }
        };
        let allowed = match allowed {
            Ok(()) if looks_first && said.catalogs.is_none() => {
                let looked = self.explain_external_restore(said, Checks::first());
                looked.await.map(drop)
            }
            allowed => allowed,
        };
        // What tables have is told to those alone who may restore over them.
        if allowed.is_ok() {
            self.resolve_replicas(&mut restore, &database, timestamp.as_deref())
                .await?;
        }
        let objects = restore.objects.as_deref();
        let is_staged = restore.catalogs.is_none() && is_staged(atomic, chain.as_ref(), objects);
        if allowed.is_ok() && is_staged {
            return self
                .staged_restore(said, &restore, &database, chain.as_ref())
                .await;
        }
        let request = ExternalRequest {
            expected: Vec::new(),
            kind: JobKind::Restore,
            statement: restore.to_string(),
            objects: shown_objects(&database, restore.objects.as_deref()),
            database,
            label: restore.label.name.clone(),
            repository: Some(restore.repository.clone()),
            queue,
            catalogs: restore.catalogs.is_some(),
            timestamp,
            external: None,
            base: None,
        };
        let spec = self.external_spec(&restore.properties, &restore.to_string(), request);
        self.submit_external(spec, allowed, Statement::Restore(restore), "RESTORE")
            .await
    }

    /// The backup that a restore names, if others have a part of it. Its timestamp becomes that of
    /// the repository, or the one that was noted if nothing is stored of it.
    pub(super) async fn resolve_chain(
        &mut self,
        restore: &mut RestoreSnapshot,
    ) -> Result<Option<Taken>, Error> {
        let chain = match &restore.catalogs {
            Some(_) => None,
            None => self.chain_of(restore).await?,
        };
        let is_named = restore.label.database.is_some() || restore.database.is_some();
        if let Some(taken) = chain
            .as_ref()
            .filter(|_| !is_named && self.database.is_none())
        {
            restore.label.database = Some(taken.database.clone());
        }
        match chain {
            Some(taken) if !taken.has_own => {
                let timestamp = taken.stored.timestamp.to_string();
                let properties = &mut restore.properties.0;
                properties.insert("backup_timestamp".into(), timestamp);
                Ok(Some(taken))
            }
            chain => {
                self.resolve_latest(restore).await?;
                let timestamp = restore.properties.get("backup_timestamp");
                Ok(chain.filter(|taken| timestamp == Some(taken.stored.timestamp.as_str())))
            }
        }
    }

    /// `"backup_timestamp" = "latest"` becomes the timestamp that the repository has now.
    pub(super) async fn resolve_latest(
        &mut self,
        restore: &mut RestoreSnapshot,
    ) -> Result<(), Error> {
        if !restore
            .properties
            .get("backup_timestamp")
            .is_some_and(|t| t.eq_ignore_ascii_case("latest"))
        {
            return Ok(());
        }
        let (repository, label) = (restore.repository.as_str(), restore.label.name.as_str());
        let found = self.external()?.snapshots(repository, Some(label)).await?;
        let latest = found
            .into_iter()
            .filter(|s| s.status == "OK")
            .flat_map(|s| s.timestamps)
            .max();
        let Some(latest) = latest else {
            let message = format!(
                "Failed to get info of snapshot '{label}' because: there is no such snapshot. Maybe specified wrong backup timestamp"
            );
            return Err(Error::new(ErrorKind::UndefinedObject, message)
                .hint(format!("See SHOW SNAPSHOT ON {repository}.")));
        };
        self.notice(format!("\"backup_timestamp\" = \"{latest}\""));
        restore
            .properties
            .0
            .insert("backup_timestamp".into(), latest);
        Ok(())
    }

    /// `"replication_num" = "auto"` becomes what the tables have that are there already, and for
    /// new ones as many as there are backends alive, three at most.
    async fn resolve_replicas(
        &mut self,
        restore: &mut RestoreSnapshot,
        database: &DatabaseName,
        timestamp: Option<&str>,
    ) -> Result<(), Error> {
        if !restore
            .properties
            .get("replication_num")
            .is_some_and(|n| n.eq_ignore_ascii_case("auto"))
        {
            return Ok(());
        }
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for table in self.restored_tables(restore, timestamp).await? {
            let there = self.cluster.catalog().schema(database.as_str());
            if !there.is_some_and(|schema| schema.table_exist(&table)) {
                continue;
            }
            let scope = Scope {
                database: Some(database.to_string()),
                table: Some(table.clone()),
                tablet: None,
            };
            let partitions = self.external()?.native(NativeTable::Partitions, &scope);
            for mut partition in partitions.await? {
                if let Some(replicas) = partition.remove("replication_num") {
                    found.insert(replicas, table.clone());
                }
            }
        }
        if found.len() > 1 {
            let each: Vec<_> = found
                .iter()
                .map(|(replicas, table)| format!("{database}.{table} has {replicas}"))
                .collect();
            let message = format!(
                "\"replication_num\" = \"auto\" has no answer: {}",
                each.join(", ")
            );
            return Err(Error::new(ErrorKind::InvalidParameter, message)
                .hint("Restore tables with other numbers of replicas one by one."));
        }
        let replicas = match found.into_keys().next() {
            Some(replicas) => replicas,
            None => {
                let alive = self.external()?.backends_alive().await.map_err(|e| {
                    if e.kind == ErrorKind::InsufficientPrivilege {
                        e.hint("Grant NODE on the cluster to its user, or say how many replicas.")
                    } else {
                        e
                    }
                });
                alive?.clamp(1, REPLICAS).to_string()
            }
        };
        self.notice(format!("\"replication_num\" = \"{replicas}\""));
        restore
            .properties
            .0
            .insert("replication_num".into(), replicas);
        Ok(())
    }

    pub(super) async fn details_of(
        &self,
        restore: &RestoreSnapshot,
        timestamp: &str,
    ) -> Result<ExternalDetails, Error> {
        let (repository, label) = (restore.repository.as_str(), restore.label.name.as_str());
        self.external()?.details(repository, label, timestamp).await
    }

    /// What tables of a snapshot are called once they are restored.
    async fn restored_tables(
        &self,
        restore: &RestoreSnapshot,
        timestamp: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        let is_all = |object: &ObjectRef| matches!(object, ObjectRef::All(_));
        let mut named = Vec::new();
        for object in restore.objects.iter().flatten() {
            match object {
                ObjectRef::Untyped(t) | ObjectRef::Table(t) => {
                    named.push(t.alias.as_ref().unwrap_or(&t.table.name).to_string());
                }
                ObjectRef::Named { .. } | ObjectRef::All(_) => {}
            }
        }
        let names_all = restore
            .objects
            .as_ref()
            .is_some_and(|o| !o.iter().any(is_all));
        let Some(timestamp) = timestamp.filter(|_| !names_all) else {
            return Ok(named);
        };
        let details = self.details_of(restore, timestamp).await?;
        // As SHOW SNAPSHOT has it: {"backup_objects": {"t": …}, …}.
        let told: serde_json::Value = details
            .details
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let objects = told.get("backup_objects").and_then(|o| o.as_object());
        named.extend(objects.into_iter().flat_map(|o| o.keys().cloned()));
        Ok(named)
    }

    pub(super) async fn external_cancel(&mut self, cancel: &CancelJob) -> Result<String, Error> {
        let (database, scope) = match &cancel.scope {
            CancelScope::ExternalCatalog => {
                (DatabaseName::new(CATALOGS)?, CancelScope::ExternalCatalog)
            }
            CancelScope::Current | CancelScope::Database(_) => {
                let named = match &cancel.scope {
                    CancelScope::Database(name) => Some(name),
                    _ => None,
                };
                let database = self.database_or_current(named)?;
                (database.clone(), CancelScope::Database(database))
            }
        };
        self.require(Privilege::Repository, Securable::System)
            .await?;
        let kind = match cancel.kind {
            JobKeyword::Backup => JobKind::Backup,
            JobKeyword::Restore => JobKind::Restore,
        };
        let cluster = self.cluster.clone();
        let runner = &self.gateway.runner;
        let cancelled = runner.cancel_external(&cluster, &database, kind, scope);
        let message = match cancelled.await? {
            Cancelled::Known(id) => format!("job {id} cancelled"),
            Cancelled::Unknown(Some(label)) => {
                format!("the {kind} of {label}, which somebody else submitted, is cancelled")
            }
            Cancelled::Unknown(None) => format!("the {kind} that runs there is cancelled"),
        };
        self.notice(message);
        Ok("CANCEL".into())
    }

    pub(super) async fn external_create_repository(
        &mut self,
        create: &CreateRepository,
    ) -> Result<String, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        self.check_starrocks_properties(&create.properties.0)?;
        let external = self.external()?;
        let sql = external
            .render(&Statement::CreateRepository(create.clone()))
            .await?;
        send(external, &sql).await?;
        let record = self.repository_record(create, self.gateway.env.now());
        self.remember(record).await?;
        Ok("CREATE REPOSITORY".into())
    }

    pub(super) async fn external_drop_repository(
        &mut self,
        name: &RepositoryName,
    ) -> Result<String, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        let external = self.external()?;
        let sql = external
            .render(&Statement::DropRepository(name.clone()))
            .await?;
        let changed = (self.cluster.name(), name);
        let _held = self.gateway.repository_changes.lock(changed).await;
        send(external, &sql).await?;
        match self
            .gateway
            .store
            .remove_repository(self.cluster.name(), name)
            .await
        {
            // It was never known here, or a job that waits names it, which the cluster will refuse
            // in its turn.
            Err(e) if matches!(e.kind, ErrorKind::UndefinedObject | ErrorKind::ObjectInUse) => {}
            done => done?,
        }
        Ok("DROP REPOSITORY".into())
    }

    pub(super) async fn external_recover(&mut self, recover: &Recover) -> Result<String, Error> {
        self.require_admin().await?;
        let recover = match recover {
            Recover::Table(table) => Recover::Table(self.completed(table)?),
            Recover::Partition(partition, table) => {
                Recover::Partition(partition.clone(), self.completed(table)?)
            }
            Recover::Database(name) => Recover::Database(name.clone()),
        };
        let external = self.external()?;
        let sql = external.render(&Statement::Recover(recover)).await?;
        send(external, &sql).await?;
        self.cluster.forget_names();
        Ok("RECOVER".into())
    }

    fn completed(
        &self,
        table: &crate::statement::Qualified<TableName>,
    ) -> Result<crate::statement::Qualified<TableName>, Error> {
        let database = Some(self.database_or_current(table.database.as_ref())?);
        Ok(crate::statement::Qualified {
            database,
            name: table.name.clone(),
        })
    }
}
