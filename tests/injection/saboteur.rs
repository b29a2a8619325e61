//! A cluster, a store and a repository that fail where they are told to.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, TableProvider};
use datafusion::execution::SessionState;
use object_store::memory::InMemory;
use starkeep::cluster::embedded::EmbeddedCluster;
use starkeep::cluster::{
    Cluster, ClusterKind, ClusterRole, DatabaseInfo, GoOn, JobSteps, Nodes, Proof, ReportProgress,
    StepError, Swap, Tables, Write,
};
use starkeep::error::{Error, ErrorKind};
use starkeep::job::*;
use starkeep::names::*;
use starkeep::repository::{Location, Manifest, OpenRepository, Placed, Repository};
use starkeep::runner::Runner;
use starkeep::statement::{Definition, ObjectRef, Qualified};
use starkeep::store::*;
use tokio::sync::Notify;

use crate::faulty_store::{Fault as Meddling, FaultyStore};

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Command {
        nth: usize,
        fatal: bool,
        landed: bool,
    },
    Crash {
        append: usize,
        after: bool,
    },
    Cancel {
        command: usize,
    },
    /// The nth append fails, though nobody dies.
    Append {
        nth: usize,
        landed: bool,
    },
    /// CANCEL arrives beside the nth request.
    CancelBeside {
        request: usize,
    },
    /// What the nth request to the repository's storage meets.
    Request {
        nth: usize,
        fault: Meddling,
    },
}

/// What a job has asked for in a life.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub commands: usize,
    pub appends: usize,
    pub requests: usize,
}

/// Counts commands, appends and requests, and says when the fault is due.
#[derive(Debug)]
pub struct Saboteur {
    pub fault: Fault,
    pub commands: AtomicUsize,
    pub appends: AtomicUsize,
    pub requests: AtomicUsize,
    pub crashed: Notify,
    pub runner: OnceLock<Runner>,
    /// The job of this life.
    pub job: OnceLock<JobId>,
}

impl Saboteur {
    pub fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault,
            commands: AtomicUsize::new(0),
            appends: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            crashed: Notify::new(),
            runner: OnceLock::new(),
            job: OnceLock::new(),
        })
    }

    /// What a request meets that could meet these.
    pub fn request(&self, could_meet: &[Meddling]) -> Meddling {
        let n = self.requests.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::CancelBeside { request } if request == n => {
                // Repositories are looked at by nobody but a job.
                if let (Some(runner), Some(job)) = (self.runner.get(), self.job.get()) {
                    let (runner, job) = (runner.clone(), *job);
                    // Where it stands by then says whether that is refused.
                    tokio::spawn(async move { runner.cancel_job(job).await });
                }
                Meddling::None
            }
            Fault::Request { nth, fault } if nth == n && could_meet.contains(&fault) => fault,
            _ => Meddling::None,
        }
    }

    pub async fn step<T>(
        &self,
        work: impl Future<Output = Result<T, StepError>>,
        job: &Job,
    ) -> Result<T, StepError> {
        let n = self.commands.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Command { nth, fatal, landed } if nth == n => {
                if landed {
                    let _ = work.await;
                }
                let error = Error::new(ErrorKind::Storage, "injected");
                Err(if fatal {
                    StepError::Fatal(error)
                } else {
                    StepError::Retry(error)
                })
            }
            Fault::Cancel { command } if command == n => {
                // The cancellation is in the journal before the effect lands, unless it was
                // refused.
                let runner = self.runner.get().expect("set before the job").clone();
                let _ = runner
                    .cancel(&job.spec.cluster, &name("d"), job.spec.kind())
                    .await;
                work.await
            }
            _ => work.await,
        }
    }
}

/// The embedded cluster with a saboteur before each step.
#[derive(Debug)]
pub struct Sabotaged(pub EmbeddedCluster, pub Arc<Saboteur>);

#[async_trait]
impl Cluster for Sabotaged {
    fn name(&self) -> &ClusterName {
        self.0.name()
    }
    fn kind(&self) -> ClusterKind {
        self.0.kind()
    }
    fn role(&self) -> ClusterRole<'_> {
        ClusterRole::Managed(self)
    }
    fn table_of(&self, provider: &dyn TableProvider) -> Option<Qualified<TableName>> {
        self.0.table_of(provider)
    }
    fn catalog(&self) -> Arc<dyn CatalogProvider> {
        self.0.catalog()
    }
}

#[async_trait]
impl Tables for Sabotaged {
    fn id(&self) -> &str {
        self.0.id()
    }
    async fn databases(&self) -> Result<Vec<DatabaseInfo>, Error> {
        self.0.databases().await
    }
    async fn nodes(&self) -> Result<Nodes, Error> {
        self.0.nodes().await
    }
    async fn silent_backends(&self) -> Result<BTreeMap<BackendId, Error>, Error> {
        self.0.silent_backends().await
    }
    async fn backends_for(&self, definition: &Definition) -> Result<Vec<BackendId>, Error> {
        self.0.backends_for(definition).await
    }
    async fn define(
        &self,
        definition: &Definition,
        on: Vec<BackendId>,
    ) -> Result<Vec<String>, Error> {
        self.0.define(definition, on).await
    }
    async fn tidy_up(&self) {
        Tables::tidy_up(&self.0).await;
    }
    async fn write(
        &self,
        table: &Qualified<TableName>,
        write: Write,
        lock_timeout: Option<Duration>,
        state: &SessionState,
    ) -> Result<u64, Error> {
        self.0.write(table, write, lock_timeout, state).await
    }
    async fn check_backup(
        &self,
        database: &DatabaseName,
        objects: Option<&[ObjectRef]>,
    ) -> Result<BackupRequest, Error> {
        self.0.check_backup(database, objects).await
    }
    fn backup_preview(
        &self,
        database: &DatabaseName,
        request: &BackupRequest,
    ) -> Result<BackupPlan, Error> {
        self.0.backup_preview(database, request)
    }
    async fn restore_preview(
        &self,
        database: &DatabaseName,
        request: &RestoreRequest,
        manifest: &Manifest,
    ) -> Result<Vec<Result<RestorePlan, Error>>, Error> {
        self.0.restore_preview(database, request, manifest).await
    }
    async fn prove(
        &self,
        database: &DatabaseName,
        manifest: &Manifest,
        go_on: GoOn,
    ) -> Result<Proof, Error> {
        self.0.prove(database, manifest, go_on).await
    }
    fn check_restore(&self, database: &DatabaseName) -> Result<(), Error> {
        self.0.check_restore(database)
    }
    fn default_replication(&self) -> u16 {
        self.0.default_replication()
    }
}

#[async_trait]
impl JobSteps for Sabotaged {
    async fn plan_backup(&self, job: &Job) -> Result<BackupPlan, StepError> {
        self.1.step(self.0.plan_backup(job), job).await
    }
    async fn snapshot(&self, job: &Job, tablet: &PlannedTablet) -> Result<BackendId, StepError> {
        self.1.step(self.0.snapshot(job, tablet), job).await
    }
    async fn plan_upload(
        &self,
        job: &Job,
        plan: &BackupPlan,
    ) -> Result<Vec<TransferTask>, StepError> {
        self.1.step(self.0.plan_upload(job, plan), job).await
    }
    async fn upload(
        &self,
        job: &Job,
        tablet: &PlannedTablet,
        r: &Repository,
        p: ReportProgress,
    ) -> Result<Transfer, StepError> {
        self.1.step(self.0.upload(job, tablet, r, p), job).await
    }
    async fn save_meta(
        &self,
        job: &Job,
        plan: &BackupPlan,
        r: &Repository,
    ) -> Result<(ManifestDigest, Timestamp), StepError> {
        self.1.step(self.0.save_meta(job, plan, r), job).await
    }
    async fn publish(
        &self,
        job: &Job,
        plan: &BackupPlan,
        saved_at: Timestamp,
        r: &Repository,
    ) -> Result<Placed, StepError> {
        self.1
            .step(self.0.publish(job, plan, saved_at, r), job)
            .await
    }
    async fn plan_restore(&self, job: &Job, r: &Repository) -> Result<RestorePlan, StepError> {
        self.1.step(self.0.plan_restore(job, r), job).await
    }
    async fn prepare(&self, job: &Job, tablet: &TargetTablet) -> Result<(), StepError> {
        self.1.step(self.0.prepare(job, tablet), job).await
    }
    async fn plan_download(
        &self,
        job: &Job,
        plan: &RestorePlan,
    ) -> Result<Vec<TransferTask>, StepError> {
        self.1.step(self.0.plan_download(job, plan), job).await
    }
    async fn download(
        &self,
        job: &Job,
        tablet: &TargetTablet,
        r: &Repository,
        p: ReportProgress,
    ) -> Result<Transfer, StepError> {
        self.1.step(self.0.download(job, tablet, r, p), job).await
    }
    async fn verify(&self, job: &Job, plan: &RestorePlan) -> Result<(), StepError> {
        self.1.step(self.0.verify(job, plan), job).await
    }
    async fn swap(&self, job: &Job, plan: &RestorePlan) -> Result<Swap, StepError> {
        self.1.step(self.0.swap(job, plan), job).await
    }
    async fn unlock(&self, job: &Job) -> Result<(), Error> {
        self.0.unlock(job).await
    }
    async fn release(&self, job: &Job) -> Result<(), StepError> {
        self.1.step(self.0.release(job), job).await
    }
}

/// The store, which dies with the process at one append.
#[derive(Debug)]
pub struct Mortal(pub MemoryStore, pub Arc<Saboteur>);

#[async_trait]
impl Journal for Mortal {
    async fn admit(&self, spec: &JobSpec, at: Timestamp) -> Result<Job, Error> {
        let job = self.0.admit(spec, at).await?;
        let _ = self.1.job.set(job.id);
        Ok(job)
    }
    async fn check_admission(&self, spec: &JobSpec) -> Result<(), Error> {
        self.0.check_admission(spec).await
    }
    async fn refuse(&self, spec: &JobSpec, at: Timestamp, error: &Error) -> Result<JobId, Error> {
        self.0.refuse(spec, at, error).await
    }
    async fn append(&self, delta: &Arc<Delta>) -> Result<(), Error> {
        let n = self.1.appends.fetch_add(1, Ordering::SeqCst);
        if let Fault::Crash { append, after } = self.1.fault
            && append == n
        {
            if after {
                self.0.append(delta).await?;
            }
            self.1.crashed.notify_one();
            std::future::pending::<()>().await;
        }
        if let Fault::Append { nth, landed } = self.1.fault
            && nth == n
        {
            if landed {
                self.0.append(delta).await?;
            }
            return Err(Error::new(ErrorKind::Storage, "injected"));
        }
        self.0.append(delta).await
    }
    async fn load(&self, id: JobId) -> Result<Job, Error> {
        self.0.load(id).await
    }
    async fn spec(&self, id: JobId) -> Result<JobSpec, Error> {
        self.0.spec(id).await
    }
    async fn bury(&self, id: JobId, why: &Error, at: Timestamp) -> Result<(), Error> {
        self.0.bury(id, why, at).await
    }
    async fn unfinished(&self) -> Result<Vec<JobId>, Error> {
        self.0.unfinished().await
    }
    async fn unsettled(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
    ) -> Result<Vec<JobId>, Error> {
        self.0.unsettled(cluster, database).await
    }
}

#[async_trait]
impl History for Mortal {
    async fn unmirrored(&self, after: JobId, limit: usize) -> Result<Vec<JobId>, Error> {
        self.0.unmirrored(after, limit).await
    }
    async fn set_mirrored(&self, id: JobId) -> Result<(), Error> {
        self.0.set_mirrored(id).await
    }
    async fn import(&self, from: &RepositoryName, jobs: Vec<JobJournal>) -> Result<u64, Error> {
        self.0.import(from, jobs).await
    }
    async fn newest_job(&self) -> Result<Option<Timestamp>, Error> {
        self.0.newest_job().await
    }
    async fn last_job(&self) -> Result<Option<JobId>, Error> {
        self.0.last_job().await
    }
    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>, Error> {
        self.0.jobs(filter).await
    }
    async fn tasks(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<TaskRow>, Error> {
        self.0.tasks(jobs).await
    }
    async fn events(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<EventRow>, Error> {
        self.0.events(jobs).await
    }
    async fn verifications(
        &self,
        jobs: RangeInclusive<JobId>,
    ) -> Result<Vec<VerificationRow>, Error> {
        self.0.verifications(jobs).await
    }
    async fn findings(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<FindingRow>, Error> {
        self.0.findings(jobs).await
    }
    async fn damaged_objects(&self) -> Result<DamagedObjects, Error> {
        self.0.damaged_objects().await
    }
}

#[async_trait]
impl Uploads for Mortal {
    async fn note_upload(&self, upload: &UploadRecord) -> Result<(), Error> {
        self.0.note_upload(upload).await
    }
    async fn forget_upload(&self, upload: &UploadRecord) -> Result<(), Error> {
        self.0.forget_upload(upload).await
    }
    async fn uploads(&self) -> Result<Vec<UploadRecord>, Error> {
        self.0.uploads().await
    }
}

#[async_trait]
impl Repositories for Mortal {
    async fn add_repository(&self, repository: &RepositoryRecord) -> Result<RepositoryId, Error> {
        self.0.add_repository(repository).await
    }
    async fn change_repository(&self, repository: &RepositoryRecord) -> Result<(), Error> {
        self.0.change_repository(repository).await
    }
    async fn remove_repository(
        &self,
        cluster: &ClusterName,
        name: &RepositoryName,
    ) -> Result<(), Error> {
        self.0.remove_repository(cluster, name).await
    }
    async fn repositories(&self) -> Result<Vec<RepositoryRecord>, Error> {
        self.0.repositories().await
    }
}

#[async_trait]
impl ClusterRegistry for Mortal {
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, Error> {
        self.0.clusters().await
    }
    async fn add_cluster(&self, cluster: &ClusterRecord) -> Result<(), Error> {
        self.0.add_cluster(cluster).await
    }
    async fn change_cluster(
        &self,
        before: &ClusterRecord,
        after: &ClusterRecord,
    ) -> Result<(), Error> {
        self.0.change_cluster(before, after).await
    }
    async fn remove_cluster(&self, name: &ClusterName) -> Result<(), Error> {
        self.0.remove_cluster(name).await
    }
}

#[async_trait]
impl Users for Mortal {
    async fn holdings(&self, name: &UserName) -> Result<Holdings, Error> {
        self.0.holdings(name).await
    }
    async fn add_user(&self, user: &UserRecord) -> Result<(), Error> {
        self.0.add_user(user).await
    }
    async fn set_password(
        &self,
        name: &UserName,
        verifier: &PasswordVerifier,
    ) -> Result<(), Error> {
        self.0.set_password(name, verifier).await
    }
    async fn set_admin(&self, name: &UserName, admin: bool) -> Result<(), Error> {
        self.0.set_admin(name, admin).await
    }
    async fn forget_object(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
        table: Option<&TableName>,
    ) -> Result<(), Error> {
        self.0.forget_object(cluster, database, table).await
    }
    async fn remove_user(&self, name: &UserName) -> Result<(), Error> {
        self.0.remove_user(name).await
    }
    async fn users(&self) -> Result<Vec<UserRecord>, Error> {
        self.0.users().await
    }
    async fn roles(&self) -> Result<Vec<RoleRecord>, Error> {
        self.0.roles().await
    }
    async fn add_role(&self, role: &RoleRecord) -> Result<(), Error> {
        self.0.add_role(role).await
    }
    async fn remove_role(&self, name: &RoleName) -> Result<(), Error> {
        self.0.remove_role(name).await
    }
    async fn grants(&self) -> Result<Vec<GrantRecord>, Error> {
        self.0.grants().await
    }
    async fn add_grants(&self, grants: &[GrantRecord]) -> Result<(), Error> {
        self.0.add_grants(grants).await
    }
    async fn remove_grants(&self, grants: &[GrantRecord]) -> Result<(), Error> {
        self.0.remove_grants(grants).await
    }
}

/// Objects that survive every crash, and what each life does to requests for them.
#[derive(Clone, Debug)]
pub struct Objects(pub Arc<InMemory>, pub Arc<Saboteur>);

impl OpenRepository for Objects {
    fn open(&self, name: &RepositoryName, _: &Location) -> Result<Arc<Repository>, Error> {
        let saboteur = self.1.clone();
        let store = FaultyStore {
            kept: self.0.clone(),
            meddler: Arc::new(move |_, _, could_meet| saboteur.request(could_meet)),
        };
        let root = object_store::path::Path::default();
        let store = Arc::new(store);
        Ok(Arc::new(Repository::new(name.clone(), store, &root, None)))
    }
}

pub fn name<N: TryFrom<String, Error = Error>>(text: &str) -> N {
    N::try_from(text.to_owned()).expect("a valid name")
}
