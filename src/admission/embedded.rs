//! BACKUP, RESTORE, CANCEL and repositories: checked in StarRocks' order and words, then handed to
//! the runner.

mod backups;
mod objects;

use std::sync::Arc;

use self::backups::{base_of, find_backup};
pub(super) use self::objects::refuse_catalogs;
use self::objects::{check_prefixes, chosen, refuse_twice};
use super::checks::{BackupChecked, Checks, RestoreChecked, check_is_new};
use super::{Caller, unknown_database};
use crate::cluster::ClusterRole;
use crate::error::{Error, ErrorKind};
use crate::job::{
    BackupObject, BackupRequest, DropRequest, DroppedBackups, JobKind, JobSpec, RestoreObject,
    RestoreRequest, RestoreView, Target, Work,
};
use crate::names::*;
use crate::privilege::{Privilege, Securable};
use crate::repository::{Location, Manifest, Repository};
use crate::statement::{
    BackupOptions, BackupSnapshot, CancelJob, CancelScope, CreateRepository, Definition,
    DropSnapshot, JobKeyword, ObjectRef, Recover, RestoreOptions, RestoreSnapshot,
};
use crate::store::RepositoryRecord;

impl Caller {
    pub(in crate::admission) async fn open(
        &self,
        name: &RepositoryName,
    ) -> Result<(RepositoryRecord, Arc<Repository>), Error> {
        let record = self
            .gateway
            .store
            .repository(self.cluster.name(), name)
            .await?;
        let location = Location {
            url: record.location.clone(),
            properties: record.properties.clone(),
        };
        let repository = self.gateway.open.open(&record.name, &location)?;
        Ok((record, repository))
    }

    /// Refuses a second job early, before anything remote is asked. The journal refuses it again
    /// when the job is admitted.
    async fn refuse_busy(&self, database: &DatabaseName) -> Result<(), Error> {
        match self.gateway.store.unsettled(self.cluster.name(), database).await?.first() {
            Some(_) => Err(Error::new(ErrorKind::ObjectInUse, "Can only run one backup or restore job of a database at same time")
                .hint("Wait until SHOW BACKUP and SHOW RESTORE show it FINISHED or CANCELLED, or CANCEL it.")),
            None => Ok(()),
        }
    }

    /// Submits a job whose checks passed; records one whose checks did not.
    async fn submit(
        &mut self,
        mut spec: JobSpec,
        checked: Result<Work, Error>,
        tag: &str,
        show: &str,
    ) -> Result<String, Error> {
        match checked {
            Ok(work) => spec.work = work,
            Err(error) => {
                self.record_refusal(spec, &error).await;
                return Err(error);
            }
        }
        let from = spec
            .work
            .database()
            .map(|database| format!(" FROM {database}"))
            .unwrap_or_default();
        let id = self.gateway.runner.submit(spec).await?;
        self.notice(format!("job {id} submitted; watch it with {show}{from}"));
        Ok(tag.into())
    }

    pub(super) async fn backup(&mut self, backup: &BackupSnapshot) -> Result<String, Error> {
        refuse_catalogs(backup.catalogs.as_ref())?;
        let database = self.database_or_current(backup.label.database.as_ref())?;
        let named = backup
            .objects
            .iter()
            .flatten()
            .filter_map(|object| match object {
                ObjectRef::Untyped(table) | ObjectRef::Table(table) => {
                    Some(table.table.name.clone())
                }
                _ => None,
            });
        // What a refused attempt shows: the names as they were given.
        let objects = named
            .map(|table| BackupObject {
                table,
                partitions: Vec::new(),
            })
            .collect();
        let target = Target {
            database,
            label: backup.label.name.clone(),
            repository: backup.repository.clone(),
        };
        let request = BackupRequest {
            objects,
            views: Vec::new(),
            ttl: None,
            base: None,
        };
        let mut spec = self.spec(
            None,
            Work::Backup {
                target: target.clone(),
                request,
            },
            &backup.to_string(),
        );
        let mut checks = Checks::first();
        let checked = self
            .check_backup(backup, &target.database, &mut checks)
            .await;
        let checked = checked.and_then(Checks::passed).map(|checked| {
            spec.timeout_seconds = checked.timeout_seconds.unwrap_or(spec.timeout_seconds);
            spec.max_bytes_per_second = checked.max_bytes_per_second;
            Work::Backup {
                target,
                request: checked.request,
            }
        });
        self.submit(spec, checked, "BACKUP", "SHOW BACKUP").await
    }

    /// StarRocks' order: what the statement says, then who may, then what is going on.
    pub(in crate::admission) async fn check_backup(
        &self,
        backup: &BackupSnapshot,
        database: &DatabaseName,
        checks: &mut Checks,
    ) -> Result<Option<BackupChecked>, Error> {
        let is_there = self.cluster.catalog().schema(database.as_str()).is_some();
        let is_there = is_there
            .then_some(())
            .ok_or_else(|| unknown_database(database));
        let is_there = checks.take(is_there)?;
        let known = checks.take(self.known_repository(&backup.repository).await)?;
        let objects = backup.objects.as_deref();
        let prefixes = checks.take(check_prefixes(database, objects))?;
        let request = match is_there.and(prefixes) {
            Some(()) => {
                let managed = self.cluster.managed()?;
                checks.take(managed.check_backup(database, objects).await)?
            }
            None => None,
        };
        let options = checks.take(BackupOptions::read(&backup.properties))?;

        let rights = self.rights().await?;
        let is_allowed = rights.require(Privilege::Repository, &Securable::System);
        let mut is_allowed = checks.take(is_allowed)?;
        if let Some(request) = &request {
            if request.objects.is_empty() && request.views.is_empty() {
                let message = format!("Database: {database} is empty");
                let empty = Error::new(ErrorKind::WrongState, message);
                checks.fail(empty.hint("There is nothing to back up."))?;
            }
            for object in &request.objects {
                let table = Securable::Table(Some(database.clone()), object.table.clone());
                let exported = checks.take(rights.require(Privilege::Export, &table))?;
                is_allowed = is_allowed.and(exported);
            }
        }
        // What a repository holds is told to those who may back up.
        let Some(_) = known.and(is_allowed) else {
            return Ok(None);
        };
        let Some((record, repository)) = checks.take(self.open(&backup.repository).await)? else {
            return Ok(None);
        };
        checks.take(self.refuse_busy(database).await)?;
        if record.read_only {
            let message = format!("Repository {} is read only", record.name);
            let read_only = Error::new(ErrorKind::WrongState, message);
            checks.fail(read_only.hint("Back up into another repository."))?;
        }
        let is_incremental = options.as_ref().is_some_and(|o| o.base.is_some());
        let label = &backup.label.name;
        checks.take(check_is_new(&repository, label, is_incremental).await)?;
        let base = match options.as_ref().and_then(|o| o.base.as_ref()) {
            None => None,
            Some(base) => {
                let id = self.cluster.managed()?.id();
                checks
                    .take(base_of(&repository, base, database, id).await)?
                    .flatten()
            }
        };
        let Some((mut request, options)) = request.zip(options) else {
            return Ok(None);
        };
        (request.ttl, request.base) = (options.ttl, base);
        Ok(Some(BackupChecked {
            request,
            timeout_seconds: options.timeout_seconds,
            max_bytes_per_second: options.max_bytes_per_second,
            repository,
        }))
    }

    /// What a RESTORE says, who may, and which backup it means.
    pub(in crate::admission) async fn check_restore(
        &self,
        restore: &RestoreSnapshot,
        checks: &mut Checks,
    ) -> Result<Option<RestoreChecked>, Error> {
        checks.take(refuse_catalogs(restore.catalogs.as_ref()))?;
        let objects = restore.objects.as_deref();
        let clause = restore
            .database
            .as_ref()
            .map(|(database, alias)| alias.as_ref().unwrap_or(database));
        let target = restore
            .label
            .database
            .as_ref()
            .or(clause)
            .or(self.database.as_ref())
            .map(|name| self.spelled(name));
        if target.is_none() && objects.is_some() {
            let nowhere = Error::new(
                ErrorKind::IllegalClause,
                "`ON` clause is forbidden if no Database explicitly specified in Restore stmt",
            );
            checks.fail(
                nowhere.hint("USE the database to restore into, or write it before the label."),
            )?;
        }
        checks.take(refuse_twice(objects.unwrap_or_default()))?;
        let options = checks.take(RestoreOptions::read(&restore.properties))?;
        let is_allowed = self
            .check_restore_privileges(target.as_ref(), objects)
            .await;
        let is_allowed = checks.take(is_allowed)?;

        let Some(options) = is_allowed.and(options) else {
            return Ok(None);
        };
        let Some((_, repository)) = checks.take(self.open(&restore.repository).await)? else {
            return Ok(None);
        };
        let label = &restore.label.name;
        let found = find_backup(&repository, label, &options.which).await;
        let Some((timestamp, manifest)) = checks.take(found)? else {
            return Ok(None);
        };
        // StarRocks 3.4 takes the snapshot's own database where none is named or chosen.
        let database = target.unwrap_or_else(|| self.spelled(&manifest.database));
        let managed = self.cluster.managed()?;
        let request = RestoreRequest {
            timestamp,
            objects: Vec::new(),
            views: Vec::new(),
            replication_num: options
                .replication_num
                .unwrap_or(managed.default_replication()),
            replication_given: options.replication_num.is_some(),
            allow_load: options.allow_load,
            makes_database: self.cluster.catalog().schema(database.as_str()).is_none(),
        };
        Ok(Some(RestoreChecked {
            target: Target {
                database,
                label: label.clone(),
                repository: restore.repository.clone(),
            },
            request,
            manifest,
            timeout_seconds: options.timeout_seconds,
            max_bytes_per_second: options.max_bytes_per_second,
        }))
    }

    pub(super) async fn restore(&mut self, restore: &RestoreSnapshot) -> Result<String, Error> {
        let mut checks = Checks::first();
        let checked = self.check_restore(restore, &mut checks).await?;
        let RestoreChecked {
            target,
            request,
            manifest,
            timeout_seconds,
            max_bytes_per_second,
        } = Checks::passed(checked)?;
        let refused = Work::Restore {
            target: target.clone(),
            request: request.clone(),
        };
        let mut spec = self.spec(timeout_seconds, refused, &restore.to_string());
        spec.max_bytes_per_second = max_bytes_per_second;
        let database = target.database.clone();
        let objects = self
            .check_restored(restore, &database, &manifest, &mut checks)
            .await;
        let makes_database = request.makes_database;
        let checked = match objects.and_then(Checks::passed) {
            Ok((objects, views)) => {
                let request = RestoreRequest {
                    objects,
                    views,
                    ..request
                };
                self.forget_grants(&database, &request).await?;
                Ok(Work::Restore { target, request })
            }
            Err(error) => Err(error),
        };
        let tag = self
            .submit(spec, checked, "RESTORE", "SHOW RESTORE")
            .await?;
        // The job makes the database, too, if it is not there yet; it is made here so that SHOW
        // RESTORE FROM it can follow at once.
        if makes_database {
            let make = Definition::CreateDatabase {
                name: database,
                if_not_exists: true,
            };
            if let Err(error) = self.cluster.managed()?.define(&make, Vec::new()).await {
                tracing::warn!(%error, "the database of a restore is left to its job");
            }
        }
        Ok(tag)
    }

    /// What a restore makes begins with nothing granted on it, like everything new.
    async fn forget_grants(
        &self,
        database: &DatabaseName,
        request: &RestoreRequest,
    ) -> Result<(), Error> {
        let _held = self.gateway.grants_change.lock().await;
        let (store, cluster) = (&self.gateway.store, self.cluster.name());
        if !self.exists(database, None) {
            return store.forget_object(cluster, database, None).await;
        }
        let targets = request
            .objects
            .iter()
            .map(RestoreObject::target)
            .chain(request.views.iter().map(RestoreView::target));
        for target in targets.filter(|target| !self.exists(database, Some(target))) {
            store.forget_object(cluster, database, Some(target)).await?;
        }
        Ok(())
    }

    /// What is going on in the database, and what is taken out of the snapshot.
    pub(in crate::admission) async fn check_restored(
        &self,
        restore: &RestoreSnapshot,
        database: &DatabaseName,
        manifest: &Manifest,
        checks: &mut Checks,
    ) -> Result<Option<(Vec<RestoreObject>, Vec<RestoreView>)>, Error> {
        checks.take(self.refuse_busy(database).await)?;
        let objects = restore.objects.as_deref();
        checks.take(check_prefixes(database, objects))?;
        if let Some((source, _)) = &restore.database
            && *source != manifest.database
        {
            let message = format!("target database: {source} is not existed in snapshot");
            let other = Error::new(ErrorKind::UndefinedSchema, message);
            checks.fail(other.detail(format!("the snapshot is of {}", manifest.database)))?;
        }
        let chosen = checks.take(chosen(manifest, objects))?;
        if objects.is_some() && chosen.as_ref().is_some_and(|(_, views)| !views.is_empty()) {
            // An untyped name may have turned out to be a view.
            let into = Securable::Database(Some(database.clone()));
            checks.take(self.require(Privilege::CreateView, into).await)?;
        }
        if self.cluster.catalog().schema(database.as_str()).is_none() {
            let made = self.cluster.managed()?.check_restore(database);
            checks.take(made.map_err(|e| {
                let message = format!("Can not create database: {database} in restore process");
                Error::new(e.kind, message).detail(e.message)
            }))?;
        }
        Ok(chosen)
    }

    pub(super) async fn cancel(&mut self, cancel: &CancelJob) -> Result<String, Error> {
        let named = match &cancel.scope {
            CancelScope::Current => None,
            CancelScope::Database(name) => Some(name),
            CancelScope::ExternalCatalog => {
                return Err(Error::unsupported(
                    "FOR EXTERNAL CATALOG: the embedded cluster has no catalogs, so this",
                ));
            }
        };
        let database = self.database_or_current(named)?;
        if self.cluster.catalog().schema(database.as_str()).is_none() {
            return Err(unknown_database(&database));
        }
        let rights = self.rights().await?;
        rights.require(Privilege::Repository, &Securable::System)?;
        let kind = match cancel.kind {
            JobKeyword::Backup => JobKind::Backup,
            JobKeyword::Restore => JobKind::Restore,
        };
        if let Some(id) = self
            .gateway
            .store
            .unsettled(self.cluster.name(), &database)
            .await?
            .first()
            && let Work::Backup { request, .. } = self.gateway.store.spec(*id).await?.work
        {
            for object in request.objects {
                rights.require(
                    Privilege::Export,
                    &Securable::Table(Some(database.clone()), object.table),
                )?;
            }
        }
        let id = self
            .gateway
            .runner
            .cancel(self.cluster.name(), &database, kind)
            .await?;
        self.notice(format!("job {id} cancelled"));
        Ok("CANCEL".into())
    }

    pub(super) async fn drop_repository(&mut self, name: &RepositoryName) -> Result<String, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        let changed = (self.cluster.name(), name);
        let _held = self.gateway.repository_changes.lock(changed).await;
        self.gateway
            .store
            .remove_repository(self.cluster.name(), name)
            .await?;
        Ok("DROP REPOSITORY".into())
    }

    pub(super) async fn drop_snapshot(&mut self, drop: &DropSnapshot) -> Result<String, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        let cluster_id = self.cluster.managed()?.id().to_owned();
        let backups = DroppedBackups::All {
            cluster_id,
            force: drop.force,
        };
        let work = Work::DropSnapshot(DropRequest {
            repository: drop.repository.clone(),
            label: drop.label.clone(),
            backups,
        });
        self.gateway
            .runner
            .drop_snapshot(self.spec(None, work, &drop.to_string()))
            .await?;
        self.notice("the snapshot's data stays until it is pruned: other snapshots may share it");
        Ok("DROP SNAPSHOT".into())
    }

    pub(super) async fn recover(&mut self, recover: &Recover) -> Result<String, Error> {
        self.require_admin().await?;
        let what = match recover {
            Recover::Database(name) => format!("RECOVER DATABASE {name}"),
            Recover::Table(table) => format!("RECOVER TABLE {}", table.name),
            Recover::Partition(partition, table) => {
                format!("RECOVER PARTITION {partition} FROM {}", table.name)
            }
        };
        Err(Error::unsupported(what).hint(
            "The embedded cluster keeps nothing that was dropped; RESTORE it from a snapshot.",
        ))
    }

    pub(super) async fn create_repository(
        &mut self,
        create: &CreateRepository,
    ) -> Result<String, Error> {
        if matches!(self.cluster.role(), ClusterRole::RepositoryOnly) {
            return self.hold_repository(create).await;
        }
        if let Some(broker) = &create.broker {
            let brokers = self.cluster.managed()?.nodes().await?.brokers;
            if !brokers.iter().any(|(name, _)| name == broker.as_str()) {
                return Err(Error::new(
                    ErrorKind::UndefinedObject,
                    format!("Unknown broker name({broker})"),
                )
                .hint("See SHOW BROKER, or leave the name out: brokers are not needed here."));
            }
        }
        let store = self.gateway.store.clone();
        if store
            .find_repository(self.cluster.name(), &create.name)
            .await?
            .is_some()
        {
            let message = format!(
                "Failed to create repository: repository with same name already exist: {}",
                create.name
            );
            return Err(Error::new(ErrorKind::DuplicateObject, message)
                .hint("DROP REPOSITORY removes the name only; what is stored stays."));
        }
        let location = super::location_of(create);
        self.warn_of_unread(&location);
        let failed = |e: Error| e.prefixed("Failed to create repository");
        if !create.read_only {
            location.create().await.map_err(failed)?;
        }
        let repository = self
            .gateway
            .open
            .open(&create.name, &location)
            .map_err(failed)?;
        let info = repository
            .initialize(create.read_only, &self.gateway.env)
            .await
            .map_err(failed)?;
        let record = self.repository_record(create, info.created_at);
        store.add_repository(&record).await?;
        // One of its name may have been dropped.
        let pace = location.max_bytes_per_second()?;
        self.gateway
            .runner
            .pace_repository(self.cluster.name(), &create.name, pace);
        Ok("CREATE REPOSITORY".into())
    }
}
