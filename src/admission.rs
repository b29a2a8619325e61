//! Everything that changes something: who may, what is checked, in which order; then
//! the runner, the store or the cluster does it.
//!
//! A [`Caller`] is whoever asks, with no connection needed: a session has one, and a schedule or a
//! console can have one of its own. What is checked makes nothing.

mod checks;
mod clusters;
mod define;
mod drop_stored;
mod embedded;
mod explain;
mod history;
mod jobs;
mod options;
mod restore_target;
mod staged;
mod starrocks;
mod users;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;

pub use self::clusters::open_cluster;
use crate::cluster::Cluster;
pub(crate) use crate::cluster::{no_database, unknown_database, unknown_table};
use crate::error::{Error, ErrorKind};
use crate::gateway::Gateway;
use crate::job::{JobSpec, Requester, Work};
use crate::names::*;
use crate::privilege::{Privilege, Rights, Securable};
use crate::query::{SessionFacts, tables_of};
use crate::repository::{
    CONDITIONAL_PUT_KEY, ENCRYPTION, ENCRYPTION_KEY, Location, MAX_BYTES_PER_SECOND_KEY,
};
use crate::statement::{CreateRepository, ObjectKind, ObjectRef, Qualified, Statement};
use crate::store::RepositoryRecord;

/// Something the user should know beside the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// NOTICE or WARNING.
    pub severity: &'static str,
    /// Its SQLSTATE.
    pub code: &'static str,
    pub message: String,
}

/// Who asks for something, and where.
#[derive(Debug)]
pub struct Caller {
    /// What all callers share.
    pub gateway: Arc<Gateway>,
    /// The cluster that it is asked of.
    pub cluster: Arc<dyn Cluster>,
    /// The database of names that say none.
    pub database: Option<DatabaseName>,
    /// Whose rights count.
    pub user: UserName,
    /// Who is written down as having asked for a job.
    pub requester: Requester,
    /// What there is to know beside the answer.
    pub notices: Vec<Notice>,
}

/// The location that a statement gives.
fn location_of(create: &CreateRepository) -> Location {
    Location {
        url: create.location.clone(),
        properties: create.properties.0.clone(),
    }
}

impl Caller {
    /// Carries out a statement that changes something; answers its command tag. Rows, and what a
    /// connection keeps for itself, do not come here.
    pub async fn change(&mut self, statement: &Statement) -> Result<String, Error> {
        if let Statement::CreateRepository(create) = statement {
            let location = location_of(create);
            self.require_location(&location).await?;
            if self.cluster.managed().is_err() && location.encryption_key()?.is_some() {
                return Err(Error::unsupported(
                    "\"encryption\" of a repository that a StarRocks cluster writes",
                ));
            }
        }
        if let Statement::Restore(restore) = statement
            && let Some(other) = &restore.cluster
        {
            return self.restore_elsewhere(other, restore).await;
        }
        if self.cluster.external().is_some() {
            match statement {
                Statement::Backup(backup) => return self.external_backup(backup).await,
                Statement::Restore(restore) => return self.external_restore(restore, false).await,
                Statement::Cancel(cancel) => return self.external_cancel(cancel).await,
                Statement::CreateRepository(create) => {
                    return self.external_create_repository(create).await;
                }
                Statement::DropRepository(name) => {
                    return self.external_drop_repository(name).await;
                }
                Statement::DropSnapshot(drop) => return self.external_drop_snapshot(drop).await,
                Statement::Recover(recover) => return self.external_recover(recover).await,
                _ => {}
            }
        }
        match statement {
            Statement::Backup(backup) => self.backup(backup).await,
            Statement::Restore(restore) => self.restore(restore).await,
            Statement::Cancel(cancel) => self.cancel(cancel).await,
            Statement::CreateRepository(create) => self.create_repository(create).await,
            Statement::DropRepository(name) => self.drop_repository(name).await,
            Statement::DropSnapshot(drop) => self.drop_snapshot(drop).await,
            Statement::CancelJob { id, force } => self.cancel_job(*id, *force).await,
            Statement::ControlJob { id, control } => self.control_job(*id, *control).await,
            Statement::Verify(verify) => self.verify(verify).await,
            Statement::Prune(prune) => self.prune(prune).await,
            Statement::ImportHistory(name) => self.import_history(name).await,
            Statement::WaitForJob(wait) => self.wait_for_job(wait).await,
            Statement::AlterRepository(alter) => self.alter_repository(alter).await,
            Statement::Cluster(command) => self.cluster_command(command).await,
            Statement::Recover(recover) => self.recover(recover).await,
            Statement::Define(definition) => self.define(definition).await,
            Statement::User(command) => self.user_command(command).await,
            Statement::Empty
            | Statement::Raw(_)
            | Statement::ExplainJob(_)
            | Statement::Session(_)
            | Statement::Show(_)
            | Statement::Sql(_)
            | Statement::Copy(_)
            | Statement::CopyTo(_) => Err(Error::internal(
                "a statement that changes nothing was to be admitted",
            )),
        }
    }

    /// Tells something beside the answer.
    pub fn notice(&mut self, message: impl Into<String>) {
        self.notices.push(Notice {
            severity: "NOTICE",
            code: "00000",
            message: message.into(),
        });
    }

    /// The same as a warning.
    pub fn warning(&mut self, code: &'static str, message: impl Into<String>) {
        self.notices.push(Notice {
            severity: "WARNING",
            code,
            message: message.into(),
        });
    }

    fn facts(&self) -> SessionFacts {
        SessionFacts {
            user: self.user.to_string(),
            database: self.cluster.name().to_string(),
            current_schema: self.database.as_ref().map(ToString::to_string),
            time_zone: "UTC".into(),
            backend_pid: 0,
        }
    }

    /// The current database, or the one that is named, as the cluster spells it: every layer below
    /// compares names exactly.
    pub fn database_or_current(&self, named: Option<&DatabaseName>) -> Result<DatabaseName, Error> {
        named
            .or(self.database.as_ref())
            .map(|name| self.spelled(name))
            .ok_or_else(no_database)
    }

    /// A database's name as the cluster spells it; one that does not exist as it was written.
    pub fn spelled(&self, name: &DatabaseName) -> DatabaseName {
        let names = self.cluster.catalog().schema_names();
        if names.iter().any(|n| n == name.as_str()) {
            return name.clone();
        }
        let mut alike = names
            .iter()
            .filter(|n| n.eq_ignore_ascii_case(name.as_str()));
        match (alike.next(), alike.next()) {
            (Some(only), None) => DatabaseName::new(only.as_str()).unwrap_or_else(|_| name.clone()),
            _ => name.clone(),
        }
    }

    /// A table or view by its name as the cluster spells it, its database filled in.
    pub fn spelled_table(
        &self,
        table: &Qualified<TableName>,
    ) -> Result<Qualified<TableName>, Error> {
        let database = self.database_or_current(table.database.as_ref())?;
        let names = self
            .cluster
            .catalog()
            .schema(database.as_str())
            .map(|s| s.table_names())
            .unwrap_or_default();
        let exact = names.iter().any(|n| n == table.name.as_str());
        let mut alike = names
            .iter()
            .filter(|n| n.eq_ignore_ascii_case(table.name.as_str()));
        let name = match (exact, alike.next(), alike.next()) {
            (false, Some(only), None) => TableName::new(only.as_str())?,
            _ => table.name.clone(),
        };
        Ok(Qualified {
            database: Some(database),
            name,
        })
    }

    /// The rights of the caller in the cluster, now.
    pub async fn rights(&self) -> Result<Rights, Error> {
        self.gateway.rights(&self.user, self.cluster.name()).await
    }

    /// Demands one privilege; 42501 in StarRocks' words.
    pub async fn require(&self, privilege: Privilege, on: Securable) -> Result<(), Error> {
        self.rights().await?.require(privilege, &on)
    }

    /// Demands ADMIN.
    pub async fn require_admin(&self) -> Result<(), Error> {
        self.rights().await?.require_admin()
    }

    /// Demands a privilege on a table or view.
    pub async fn require_on(
        &self,
        privilege: Privilege,
        table: &Qualified<TableName>,
    ) -> Result<(), Error> {
        let Qualified { database, name } = self.spelled_table(table)?;
        self.require(privilege, Securable::Table(database, name))
            .await
    }

    /// Whether the user may read what a plan reads. Everyone reads the system tables; a view is
    /// read with the rights to what it stands on.
    pub async fn check_readable(&self, plan: &LogicalPlan) -> Result<(), Error> {
        let tables = tables_of(&*self.cluster, plan)?;
        if tables.is_empty() {
            return Ok(());
        }
        let rights = self.rights().await?;
        for table in tables {
            rights.require(
                Privilege::Select,
                &Securable::Table(table.database, table.name),
            )?;
        }
        Ok(())
    }

    /// REPOSITORY, to choose where a repository is; a directory is read and written with the
    /// server's own rights, so it takes an administrator.
    async fn require_location(&self, location: &Location) -> Result<(), Error> {
        let rights = self.rights().await?;
        rights.require(Privilege::Repository, &Securable::System)?;
        if rights.is_admin() {
            return Ok(());
        }
        if !location.is_local() && !location.names_a_file() {
            // What is no location at all is told first.
            location.check()?;
            // Without keys of its own it would be reached as the server's machine, which others may
            // trust.
            if !location.brings_keys() {
                return Err(rights
                    .denied("ADMIN privilege(s)")
                    .detail(
                        "No keys are given, so the identity of the server's machine would be used.",
                    )
                    .hint(
                        "Give keys in PROPERTIES, or let an administrator create the repository.",
                    ));
            }
            location.remote_store()?;
            let allowed = &self.gateway.repository_hosts;
            if let Some(host) = location
                .hosts()
                .into_iter()
                .find(|host| !allowed.allow(host))
            {
                return Err(rights
                    .denied("ADMIN privilege(s)")
                    .detail(format!(
                        "Repositories on \"{host}\" are for administrators to create."
                    ))
                    .hint("The setting repository_hosts lists the hosts that others may name."));
            }
            return Ok(());
        }
        Err(rights
            .denied("ADMIN privilege(s)")
            .detail("A directory or a file of the server's machine is named.")
            .hint("An administrator can create the repository. Object storage takes REPOSITORY alone."))
    }

    /// Properties that say how the embedded cluster writes: where StarRocks does, none has an effect.
    fn check_starrocks_properties(
        &mut self,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let has = |key: &&str| properties.contains_key(*key);
        if let Some(key) = [ENCRYPTION, ENCRYPTION_KEY].into_iter().find(has) {
            return Err(Error::unsupported(format_args!(
                "\"{key}\" of a repository that a StarRocks cluster writes"
            ))
            .hint("StarRocks writes what it backs up as it is; encrypt the bucket."));
        }
        for key in [MAX_BYTES_PER_SECOND_KEY, CONDITIONAL_PUT_KEY]
            .into_iter()
            .filter(has)
        {
            let message =
                format!("the storage property \"{key}\" has no effect: StarRocks moves the data");
            self.warning("01000", message);
        }
        Ok(())
    }

    /// Says which properties of a location nothing reads.
    fn warn_of_unread(&mut self, location: &Location) {
        for key in location.unread_keys() {
            self.warning(
                "01000",
                format!("the storage property \"{key}\" is kept and not used for this location"),
            );
        }
    }

    fn spec(&self, timeout: Option<u64>, work: Work, statement: &str) -> JobSpec {
        JobSpec {
            uid: self.gateway.env.job_uid(),
            cluster: self.cluster.name().clone(),
            requester: self.requester.clone(),
            statement: JobSpec::kept_text(statement),
            timeout_seconds: timeout.unwrap_or(self.gateway.job_timeout_seconds),
            max_bytes_per_second: None,
            work,
        }
    }

    /// Records an attempt that was refused, if it was made by somebody who may back up at all: what
    /// others say goes to the log alone, or anybody could fill the history.
    async fn record_refusal(&self, spec: JobSpec, error: &Error) {
        let rights = self.rights().await;
        if rights.is_ok_and(|rights| {
            rights
                .require(Privilege::Repository, &Securable::System)
                .is_ok()
        }) {
            self.gateway
                .runner
                .record_refusal(&spec.abridged(), error)
                .await;
        } else {
            tracing::info!(user = %self.user, kind = %spec.kind(), %error, "a job was refused");
        }
    }

    async fn check_restore_privileges(
        &self,
        target: Option<&DatabaseName>,
        objects: Option<&[ObjectRef]>,
    ) -> Result<(), Error> {
        let rights = self.rights().await?;
        rights.require(Privilege::Repository, &Securable::System)?;
        let (Some(objects), Some(target)) = (objects, target) else {
            return rights.require(Privilege::CreateDatabase, &Securable::Catalog);
        };
        rights.require(
            Privilege::CreateTable,
            &Securable::Database(Some(target.clone())),
        )?;
        let schema = self.cluster.catalog().schema(target.as_str());
        for object in objects {
            let name = match object {
                ObjectRef::Untyped(table) | ObjectRef::Table(table) => {
                    table.alias.as_ref().unwrap_or(&table.table.name)
                }
                // A restored view replaces one of its name, as CREATE OR REPLACE VIEW does.
                ObjectRef::Named { .. } | ObjectRef::All(ObjectKind::View) => {
                    rights.require(
                        Privilege::CreateView,
                        &Securable::Database(Some(target.clone())),
                    )?;
                    continue;
                }
                // Which tables these are is known when the snapshot is read; any of them may be
                // there already.
                ObjectRef::All(_) => {
                    for name in schema.iter().flat_map(|s| s.table_names()) {
                        rights.require(
                            Privilege::Insert,
                            &Securable::Table(Some(target.clone()), TableName::new(name)?),
                        )?;
                    }
                    continue;
                }
            };
            // By its exact name: a table of another spelling is another table, and stays.
            if schema
                .as_ref()
                .is_some_and(|s| s.table_names().iter().any(|n| n == name.as_str()))
            {
                rights.require(
                    Privilege::Insert,
                    &Securable::Table(Some(target.clone()), name.clone()),
                )?;
            }
        }
        Ok(())
    }

    /// A repository that a statement names before anything is done with it.
    pub async fn known_repository(&self, name: &RepositoryName) -> Result<RepositoryRecord, Error> {
        let known = self
            .gateway
            .store
            .find_repository(self.cluster.name(), name)
            .await?;
        known.ok_or_else(|| {
            Error::new(
                ErrorKind::UndefinedObject,
                format!("Repository [{name}] does not exist"),
            )
            .hint("See SHOW REPOSITORIES.")
        })
    }

    /// A repository of the connected cluster, as a statement describes it.
    fn repository_record(
        &self,
        create: &CreateRepository,
        created_at: Timestamp,
    ) -> RepositoryRecord {
        RepositoryRecord {
            cluster: self.cluster.name().clone(),
            id: RepositoryId(0),
            name: create.name.clone(),
            location: create.location.clone(),
            broker: create.broker.as_ref().map(ToString::to_string),
            read_only: create.read_only,
            created_at,
            properties: create.properties.0.clone(),
        }
    }

    /// Keeps how a repository is reached. One of that name may have been dropped past us.
    async fn remember(&self, record: RepositoryRecord) -> Result<(), Error> {
        let store = &self.gateway.store;
        match store.add_repository(&record).await {
            Err(e) if e.kind == ErrorKind::DuplicateObject => {
                store.change_repository(&record).await
            }
            done => done.map(drop),
        }
    }

    /// CANCEL JOB, of any cluster's.
    async fn cancel_job(&mut self, id: JobId, force: bool) -> Result<String, Error> {
        if force {
            self.require_admin().await?;
            self.gateway.runner.force(id, self.user.as_str()).await?;
            self.notice(format!("job {id} given up"));
            return Ok("CANCEL".into());
        }
        self.check_may_cancel(id).await?;
        self.gateway.runner.cancel_job(id).await?;
        self.notice(format!("job {id} cancelled"));
        Ok("CANCEL".into())
    }

    /// REPOSITORY, and EXPORT on what a backup takes.
    async fn check_may_cancel(&self, id: JobId) -> Result<(), Error> {
        let rights = self.rights().await?;
        rights.require(Privilege::Repository, &Securable::System)?;
        let spec = self.gateway.store.spec(id).await?;
        if let Work::Backup { target, request } = spec.work {
            for object in request.objects {
                rights.require(
                    Privilege::Export,
                    &Securable::Table(Some(target.database.clone()), object.table),
                )?;
            }
        }
        Ok(())
    }
}
