//! BACKUP, RESTORE, CANCEL and repositories: checked in StarRocks' order and words, then handed to the runner.

use std::sync::Arc;

use super::{Outcome, Session};
use crate::error::{Error, ErrorKind};
use crate::job::{BackupObject, BackupRequest, JobKind, JobSpec, Request, RestoreObject, RestoreRequest};
use crate::names::*;
use crate::repository::{Location, Manifest, Repository};
use crate::statement::{
    BackupOptions, BackupSnapshot, CancelJob, CreateRepository, Definition, JobKeyword, RestoreOptions, RestoreSnapshot, TableRef,
    WhichBackup,
};
use crate::store::RepositoryRecord;

fn same_database(label: &DatabaseName, table: &TableRef) -> Result<(), Error> {
    match &table.table.database {
        Some(named) if !named.as_str().eq_ignore_ascii_case(label.as_str()) => Err(Error::new(
            ErrorKind::Syntax,
            format!("Cannot specify database name on backup objects: {named}.{}", table.table.name),
        )
        .hint("Specify the database before the label, as in BACKUP SNAPSHOT db.label.")),
        _ => Ok(()),
    }
}

impl Session {
    async fn open(&self, name: &RepositoryName) -> Result<(RepositoryRecord, Arc<Repository>), Error> {
        let record = self.gateway.store.repository(name).await?;
        let location = Location { url: record.location.clone(), properties: record.properties.clone() };
        let repository = self.gateway.open.open(&record.name, &location)?;
        Ok((record, repository))
    }

    fn spec(
        &self,
        database: &DatabaseName,
        label: &SnapshotLabel,
        repository: &RepositoryName,
        timeout: Option<u64>,
        request: Request,
        statement: String,
    ) -> JobSpec {
        JobSpec {
            uid: self.gateway.env.uuid(),
            cluster: self.cluster.name().clone(),
            database: database.clone(),
            label: label.clone(),
            repository: repository.clone(),
            timeout_seconds: timeout.unwrap_or(self.gateway.job_timeout_seconds),
            request,
            requested_by: self.client.user.to_string(),
            client_addr: Some(self.client.addr.clone()),
            application_name: self.variables.get("application_name").filter(|n| !n.is_empty()),
            statement,
        }
    }

    /// Refuses a second job early, before anything remote is asked. The journal refuses it again when the job is admitted.
    async fn refuse_busy(&self, database: &DatabaseName) -> Result<(), Error> {
        match self.gateway.store.running(self.cluster.name().as_str(), database).await? {
            Some(_) => Err(Error::new(ErrorKind::ObjectInUse, "Can only run one backup or restore job of a database at same time")
                .hint("Wait until SHOW BACKUP and SHOW RESTORE show it FINISHED or CANCELLED, or CANCEL it.")),
            None => Ok(()),
        }
    }

    /// Submits a job whose checks passed; records one whose checks did not.
    async fn submit(
        &mut self,
        mut spec: JobSpec,
        checked: Result<Request, Error>,
        tag: &str,
        show: &str,
    ) -> Result<Outcome, Error> {
        match checked {
            Ok(request) => spec.request = request,
            Err(error) => {
                self.gateway.runner.record_refusal(&spec, &error).await;
                return Err(error);
            }
        }
        let database = spec.database.clone();
        let id = self.gateway.runner.submit(spec).await?;
        self.notice(format!("job {id} submitted; watch it with {show} FROM {database}"));
        Ok(Outcome::Done(tag.into()))
    }

    pub(super) async fn backup(&mut self, backup: &BackupSnapshot) -> Result<Outcome, Error> {
        let database = self.database_or_current(backup.label.database.as_ref())?;
        let options = BackupOptions::read(&backup.properties)?;
        let named = backup.tables.as_deref().unwrap_or_default();
        let objects =
            named.iter().map(|t| BackupObject { table: t.table.name.clone(), partitions: t.partitions.clone() }).collect();
        let request = BackupRequest { objects };
        let label = &backup.label.name;
        let spec = self.spec(
            &database,
            label,
            &backup.repository,
            options.timeout_seconds,
            Request::Backup(request.clone()),
            backup.to_string(),
        );
        let checked = self.check_backup(backup, &database, request.objects).await;
        let checked = checked.map(|objects| Request::Backup(BackupRequest { objects }));
        self.submit(spec, checked, "BACKUP", "SHOW BACKUP").await
    }

    async fn check_backup(
        &self,
        backup: &BackupSnapshot,
        database: &DatabaseName,
        objects: Vec<BackupObject>,
    ) -> Result<Vec<BackupObject>, Error> {
        let (record, repository) = self.open(&backup.repository).await?;
        for table in backup.tables.iter().flatten() {
            same_database(database, table)?;
        }
        let objects = self.cluster.check_backup(database, objects, backup.tables.is_none()).await?;
        self.refuse_busy(database).await?;
        if record.read_only {
            return Err(Error::new(ErrorKind::WrongState, format!("Repository {} is read only", record.name))
                .hint("Back up into another repository."));
        }
        let label = &backup.label.name;
        if !repository.snapshot(label).await?.timestamps.is_empty() {
            return Err(Error::new(
                ErrorKind::DuplicateObject,
                format!("Snapshot with name '{label}' already exist in repository"),
            )
            .hint("Choose another label; SHOW SNAPSHOT lists those in use."));
        }
        Ok(objects)
    }

    pub(super) async fn restore(&mut self, restore: &RestoreSnapshot) -> Result<Outcome, Error> {
        let options = RestoreOptions::read(&restore.properties)?;
        let (_, repository) = self.open(&restore.repository).await?;
        let label = &restore.label.name;
        let (timestamp, manifest) = find_backup(&repository, label, &options.which).await?;
        // StarRocks 3.4 takes the snapshot's own database where none is named or chosen.
        let named = restore.label.database.clone().or_else(|| self.database.clone());
        let database = self.spelled(&named.unwrap_or_else(|| manifest.database.clone()));
        let named = restore.tables.as_deref().unwrap_or_default();
        let mut objects: Vec<RestoreObject> = named
            .iter()
            .map(|t| RestoreObject { table: t.table.name.clone(), partitions: t.partitions.clone(), alias: t.alias.clone() })
            .collect();
        if restore.tables.is_none() {
            let whole =
                |table: &crate::job::PlannedTable| RestoreObject { table: table.name.clone(), partitions: Vec::new(), alias: None };
            objects = manifest.tables.iter().map(whole).collect();
        }
        let request = RestoreRequest {
            timestamp,
            objects,
            replication_num: options.replication_num.unwrap_or_else(|| self.cluster.default_replication()),
            replication_given: options.replication_num.is_some(),
            allow_load: options.allow_load,
        };
        let spec = self.spec(
            &database,
            label,
            &restore.repository,
            options.timeout_seconds,
            Request::Restore(request.clone()),
            restore.to_string(),
        );
        let checked = self.check_restore(restore, &database, &manifest, &request).await;
        self.submit(spec, checked.map(|()| Request::Restore(request)), "RESTORE", "SHOW RESTORE").await
    }

    async fn check_restore(
        &self,
        restore: &RestoreSnapshot,
        database: &DatabaseName,
        manifest: &Manifest,
        request: &RestoreRequest,
    ) -> Result<(), Error> {
        for table in restore.tables.iter().flatten() {
            same_database(database, table)?;
        }
        for (i, object) in request.objects.iter().enumerate() {
            let before = &request.objects[..i];
            if before.iter().any(|o| o.table == object.table) {
                return Err(Error::new(ErrorKind::DuplicateTable, format!("Duplicated table: {}", object.table)));
            }
            if before.iter().any(|o| o.target() == object.target()) {
                return Err(Error::new(ErrorKind::DuplicateTable, format!("Duplicated alias name: {}", object.target())));
            }
            manifest.choose(object)?;
        }
        self.refuse_busy(database).await?;
        if self.cluster.catalog().schema(database.as_str()).is_none() {
            self.cluster.define(&Definition::CreateDatabase { name: database.clone(), if_not_exists: true }).await?;
        }
        Ok(())
    }

    pub(super) async fn cancel(&mut self, cancel: &CancelJob) -> Result<Outcome, Error> {
        let database = self.database_or_current(cancel.database.as_ref())?;
        if self.cluster.catalog().schema(database.as_str()).is_none() {
            return Err(
                Error::new(ErrorKind::UndefinedSchema, format!("Unknown database '{database}'")).hint("See SHOW DATABASES.")
            );
        }
        let kind = match cancel.kind {
            JobKeyword::Backup => JobKind::Backup,
            JobKeyword::Restore => JobKind::Restore,
        };
        let id = self.gateway.runner.cancel(self.cluster.name(), &database, kind).await?;
        self.notice(format!("job {id} cancelled"));
        Ok(Outcome::Done("CANCEL".into()))
    }

    pub(super) async fn create_repository(&mut self, create: &CreateRepository) -> Result<Outcome, Error> {
        if let Some(broker) = &create.broker {
            let brokers = self.cluster.describe().await?.brokers;
            if !brokers.iter().any(|(name, _)| name == broker.as_str()) {
                return Err(Error::new(ErrorKind::UndefinedObject, format!("Unknown broker name({broker})"))
                    .hint("See SHOW BROKER, or leave the name out: brokers are not needed here."));
            }
        }
        let store = &self.gateway.store;
        if store.repositories().await?.iter().any(|r| r.name == create.name) {
            let message = format!("Failed to create repository: repository with same name already exist: {}", create.name);
            return Err(Error::new(ErrorKind::DuplicateObject, message)
                .hint("DROP REPOSITORY removes the name only; what is stored stays."));
        }
        let location = Location { url: create.location.clone(), properties: create.properties.0.clone() };
        let failed = |e: Error| e.prefixed("Failed to create repository");
        if !create.read_only {
            location.create().map_err(failed)?;
        }
        let repository = self.gateway.open.open(&create.name, &location).map_err(failed)?;
        let info = repository.initialize(create.read_only, &self.gateway.env).await.map_err(failed)?;
        let record = RepositoryRecord {
            id: RepositoryId(0),
            name: create.name.clone(),
            location: create.location.clone(),
            broker: create.broker.as_ref().map(ToString::to_string),
            read_only: create.read_only,
            created_at: info.created_at,
            properties: create.properties.0.clone(),
        };
        store.add_repository(&record).await?;
        Ok(Outcome::Done("CREATE REPOSITORY".into()))
    }
}

/// The backup that a RESTORE means, in StarRocks' words when there is none.
async fn find_backup(
    repository: &Repository,
    label: &SnapshotLabel,
    which: &WhichBackup,
) -> Result<(BackupTimestamp, Manifest), Error> {
    let wrong = |kind: ErrorKind, why: &str| {
        let message = format!("Failed to get info of snapshot '{label}' because: {why}. Maybe specified wrong backup timestamp");
        Error::new(kind, message).hint(format!("SHOW SNAPSHOT ON {} lists the backups and their timestamps.", repository.name()))
    };
    let timestamp = match which {
        WhichBackup::At(timestamp) => timestamp.clone(),
        WhichBackup::Latest => {
            let listed = repository.snapshot(label).await?.timestamps;
            listed.into_iter().next_back().ok_or_else(|| wrong(ErrorKind::UndefinedObject, "there is no such snapshot"))?
        }
        WhichBackup::Unknown(text) => {
            return Err(wrong(ErrorKind::UndefinedObject, &format!("File does not exist: __info_{text}")));
        }
    };
    match repository.manifest(label, &timestamp).await {
        Ok((manifest, _)) => Ok((timestamp, manifest)),
        Err(e) if e.kind == ErrorKind::MissingFile => {
            Err(wrong(ErrorKind::UndefinedObject, &format!("File does not exist: __info_{timestamp}")))
        }
        Err(e) => Err(wrong(e.kind, &e.to_string())),
    }
}
