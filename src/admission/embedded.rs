//! BACKUP, RESTORE, CANCEL and repositories: checked in StarRocks' order and words, then handed to
//! the runner.

mod objects;

use std::sync::Arc;

use self::objects::{check_prefixes, chosen, refuse_catalogs, refuse_twice};
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
    BackupOptions, BackupSnapshot, BaseSnapshot, CancelJob, CancelScope, CreateRepository,
    Definition, DropSnapshot, JobKeyword, ObjectRef, Recover, RestoreOptions, RestoreSnapshot,
    WhichBackup,
};
use crate::store::RepositoryRecord;

impl Caller {
    async fn open(
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
        let checked = match self.check_backup(backup, &target.database).await {
            Ok((request, options)) => {
                spec.timeout_seconds = options.timeout_seconds.unwrap_or(spec.timeout_seconds);
                Ok(Work::Backup { target, request })
            }
            Err(e) => Err(e),
        };
        self.submit(spec, checked, "BACKUP", "SHOW BACKUP").await
    }

    /// StarRocks' order: what the statement says, then who may, then what is going on.
    async fn check_backup(
        &self,
        backup: &BackupSnapshot,
        database: &DatabaseName,
    ) -> Result<(BackupRequest, BackupOptions), Error> {
        if self.cluster.catalog().schema(database.as_str()).is_none() {
            return Err(unknown_database(database));
        }
        self.known_repository(&backup.repository).await?;
        let objects = backup.objects.as_deref();
        check_prefixes(database, objects)?;
        let mut request = self
            .cluster
            .managed()?
            .check_backup(database, objects)
            .await?;
        let options = BackupOptions::read(&backup.properties)?;
        request.ttl = options.ttl;

        let rights = self.rights().await?;
        rights.require(Privilege::Repository, &Securable::System)?;
        if request.objects.is_empty() && request.views.is_empty() {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("Database: {database} is empty"),
            )
            .hint("There is nothing to back up."));
        }
        for object in &request.objects {
            rights.require(
                Privilege::Export,
                &Securable::Table(Some(database.clone()), object.table.clone()),
            )?;
        }

        let (record, repository) = self.open(&backup.repository).await?;
        self.refuse_busy(database).await?;
        if record.read_only {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("Repository {} is read only", record.name),
            )
            .hint("Back up into another repository."));
        }
        let label = &backup.label.name;
        if !repository.snapshot(label).await?.backups.is_empty() {
            let hint = "Choose another label; SHOW SNAPSHOT lists those in use.";
            return Err(match options.base {
                None => {
                    let message =
                        format!("Snapshot with name '{label}' already exist in repository");
                    Error::new(ErrorKind::DuplicateObject, message).hint(hint)
                }
                Some(_) => Error::new(
                    ErrorKind::Unsupported,
                    "Currently does not support incremental backup",
                )
                .hint(hint),
            });
        }
        if let Some(base) = &options.base {
            let id = self.cluster.managed()?.id();
            request.base = base_of(&repository, base, database, id).await?;
        }
        Ok((request, options))
    }

    pub(super) async fn restore(&mut self, restore: &RestoreSnapshot) -> Result<String, Error> {
        refuse_catalogs(restore.catalogs.as_ref())?;
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
            return Err(Error::new(
                ErrorKind::IllegalClause,
                "`ON` clause is forbidden if no Database explicitly specified in Restore stmt",
            )
            .hint("USE the database to restore into, or write it before the label."));
        }
        refuse_twice(objects.unwrap_or_default())?;
        let options = RestoreOptions::read(&restore.properties)?;
        self.check_restore_privileges(target.as_ref(), objects)
            .await?;

        let (_, repository) = self.open(&restore.repository).await?;
        let label = &restore.label.name;
        let (timestamp, manifest) = find_backup(&repository, label, &options.which).await?;
        // StarRocks 3.4 takes the snapshot's own database where none is named or chosen.
        let database = target.unwrap_or_else(|| self.spelled(&manifest.database));
        let request = RestoreRequest {
            timestamp,
            objects: Vec::new(),
            views: Vec::new(),
            replication_num: options
                .replication_num
                .unwrap_or(self.cluster.managed()?.default_replication()),
            replication_given: options.replication_num.is_some(),
            allow_load: options.allow_load,
            makes_database: self.cluster.catalog().schema(database.as_str()).is_none(),
        };
        let target = Target {
            database: database.clone(),
            label: label.clone(),
            repository: restore.repository.clone(),
        };
        let refused = Work::Restore {
            target: target.clone(),
            request: request.clone(),
        };
        let spec = self.spec(options.timeout_seconds, refused, &restore.to_string());
        let checked = self
            .check_restore(restore, &target.database, &manifest)
            .await;
        let makes_database = request.makes_database;
        let checked = match checked {
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

    async fn check_restore(
        &self,
        restore: &RestoreSnapshot,
        database: &DatabaseName,
        manifest: &Manifest,
    ) -> Result<(Vec<RestoreObject>, Vec<RestoreView>), Error> {
        self.refuse_busy(database).await?;
        let objects = restore.objects.as_deref();
        check_prefixes(database, objects)?;
        if let Some((source, _)) = &restore.database
            && *source != manifest.database
        {
            let message = format!("target database: {source} is not existed in snapshot");
            return Err(Error::new(ErrorKind::UndefinedSchema, message)
                .detail(format!("the snapshot is of {}", manifest.database)));
        }
        let chosen = chosen(manifest, objects)?;
        if objects.is_some() && !chosen.1.is_empty() {
            // An untyped name may have turned out to be a view.
            self.require(
                Privilege::CreateView,
                Securable::Database(Some(database.clone())),
            )
            .await?;
        }
        if self.cluster.catalog().schema(database.as_str()).is_none() {
            self.cluster
                .managed()?
                .check_restore(database)
                .map_err(|e| {
                    Error::new(
                        e.kind,
                        format!("Can not create database: {database} in restore process"),
                    )
                    .detail(e.message)
                })?;
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
            location.create().map_err(failed)?;
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
        Ok("CREATE REPOSITORY".into())
    }
}

/// The backup that a RESTORE means, in StarRocks' words when there is none.
async fn find_backup(
    repository: &Repository,
    label: &SnapshotLabel,
    which: &WhichBackup,
) -> Result<(BackupTimestamp, Manifest), Error> {
    let wrong = |kind: ErrorKind, why: &str| {
        let message = format!(
            "Failed to get info of snapshot '{label}' because: {why}. Maybe specified wrong backup timestamp"
        );
        Error::new(kind, message).hint(format!(
            "SHOW SNAPSHOT ON {} lists the backups and their timestamps.",
            repository.name()
        ))
    };
    let timestamp = match which {
        WhichBackup::At(timestamp) => timestamp.clone(),
        WhichBackup::Latest => {
            let listed = repository.snapshot(label).await?.backups;
            listed
                .into_iter()
                .next_back()
                .map(|backup| backup.timestamp)
                .ok_or_else(|| wrong(ErrorKind::UndefinedObject, "there is no such snapshot"))?
        }
        WhichBackup::Unknown(text) => {
            return Err(wrong(
                ErrorKind::UndefinedObject,
                &format!("File does not exist: __info_{text}"),
            ));
        }
    };
    match repository.manifest(label, &timestamp).await {
        Ok((manifest, _)) => Ok((timestamp, manifest)),
        Err(e) if e.kind == ErrorKind::MissingFile => Err(wrong(
            ErrorKind::UndefinedObject,
            &format!("File does not exist: __info_{timestamp}"),
        )),
        Err(e) => Err(wrong(e.kind, &e.to_string())),
    }
}

/// The snapshot that an incremental backup follows; nothing if there is no earlier one.
async fn base_of(
    repository: &Repository,
    base: &BaseSnapshot,
    database: &DatabaseName,
    cluster_id: &str,
) -> Result<Option<SnapshotLabel>, Error> {
    let listings = match base {
        BaseSnapshot::Latest => repository.snapshots().await?,
        BaseSnapshot::Label(label) => vec![repository.snapshot(label).await?],
    };
    let mut latest = None;
    for listing in listings {
        for backup in &listing.backups {
            // One that does not read is no base; VERIFY finds it.
            let Ok(manifest) = repository.listed_manifest(&listing.label, backup).await else {
                continue;
            };
            let is_ours = manifest.cluster_id.as_deref() == Some(cluster_id);
            if is_ours && manifest.database == *database {
                latest = latest.max(Some((manifest.created_at, listing.label.clone())));
            }
        }
    }
    match (base, latest) {
        (_, Some((_, label))) => Ok(Some(label)),
        (BaseSnapshot::Latest, None) => Ok(None),
        (BaseSnapshot::Label(label), None) => Err(Error::new(
            ErrorKind::UndefinedObject,
            format!(
                "Snapshot does not exist in repository {}: {label}, of database {database} and made here",
                repository.name()
            ),
        )
        .hint("\"base\" is \"latest\", or the label of an earlier backup of the same database.")),
    }
}
