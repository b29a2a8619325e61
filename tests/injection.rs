//! Every failure at every step (docs/architecture.md, "Tests"): each command fails for a while or
//! for good, with its effect landed or lost; the process dies before and after each append; CANCEL
//! arrives during each command. Whatever happens, the fixture afterwards adds up:
//! [`Fixture::check`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::{CatalogProvider, TableProvider};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use starkeep::cluster::embedded::EmbeddedCluster;
use starkeep::cluster::{
    Cluster, ClusterKind, ClusterRole, Clusters, DatabaseInfo, GoOn, JobSteps, Nodes, Proof,
    ReportProgress, StepError, Swap, Tables, Write,
};
use starkeep::env::Env;
use starkeep::error::{Error, ErrorKind};
use starkeep::job::*;
use starkeep::metrics::Metrics;
use starkeep::names::*;
use starkeep::repository::{ByteBudget, Location, Manifest, OpenRepository, Placed, Repository};
use starkeep::runner::{Runner, RunnerSettings};
use starkeep::statement::{Definition, ObjectRef, Qualified, Statement, parse_one};
use starkeep::store::*;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::faulty_store::{Fault as Meddling, FaultyStore};
use crate::support::ShiftedClock;

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
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
struct Counts {
    commands: usize,
    appends: usize,
    requests: usize,
}

/// Counts commands, appends and requests, and says when the fault is due.
#[derive(Debug)]
struct Saboteur {
    fault: Fault,
    commands: AtomicUsize,
    appends: AtomicUsize,
    requests: AtomicUsize,
    crashed: Notify,
    runner: OnceLock<Runner>,
    /// The job of this life.
    job: OnceLock<JobId>,
}

impl Saboteur {
    fn new(fault: Fault) -> Arc<Self> {
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
    fn request(&self, could_meet: &[Meddling]) -> Meddling {
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

    async fn step<T>(
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
struct Sabotaged(EmbeddedCluster, Arc<Saboteur>);

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
struct Mortal(MemoryStore, Arc<Saboteur>);

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
struct Objects(Arc<InMemory>, Arc<Saboteur>);

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

/// What survives a crash: store, objects, and the cluster's directory.
struct Fixture {
    dir: tempfile::TempDir,
    store: MemoryStore,
    objects: Arc<InMemory>,
    /// How far its clock is ahead of the machine's, milliseconds.
    ahead: Arc<AtomicI64>,
}

/// One life of a process: a runtime with everything in it.
struct Life {
    runtime: Runtime,
    saboteur: Arc<Saboteur>,
    cluster: Arc<dyn Cluster>,
    runner: Runner,
}

fn name<N: TryFrom<String, Error = Error>>(text: &str) -> N {
    N::try_from(text.to_owned()).expect("a valid name")
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            store: MemoryStore::default(),
            objects: Arc::default(),
            ahead: Arc::default(),
        }
    }

    fn backends(&self) -> Vec<PathBuf> {
        vec![self.dir.path().join("be1"), self.dir.path().join("be2")]
    }

    fn live(&self, fault: Fault) -> Life {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let saboteur = Saboteur::new(fault);
        let env = ShiftedClock::env(&self.ahead);
        let embedded = runtime
            .block_on(EmbeddedCluster::open(
                name("embedded"),
                self.dir.path(),
                &self.backends(),
                ByteBudget::new(64 << 20),
                env.clone(),
            ))
            .expect("the cluster opens");
        let cluster: Arc<dyn Cluster> = Arc::new(Sabotaged(embedded, saboteur.clone()));
        let runner = Runner::new(
            Arc::new(Mortal(self.store.clone(), saboteur.clone())),
            Arc::new(Clusters::new([cluster.clone()])),
            Arc::new(Objects(self.objects.clone(), saboteur.clone())),
            Arc::new(Metrics::default()),
            Arc::default(),
            env,
            RunnerSettings {
                retry_first: Duration::from_millis(1),
                ..RunnerSettings::default()
            },
        );
        saboteur.runner.set(runner.clone()).expect("set once");
        Life {
            runtime,
            saboteur,
            cluster,
            runner,
        }
    }

    fn repository(&self) -> Arc<Repository> {
        Objects(self.objects.clone(), Saboteur::new(Fault::None))
            .open(
                &name("r"),
                &Location {
                    url: "/".into(),
                    properties: BTreeMap::new(),
                },
            )
            .expect("opens")
    }

    /// Everything in the fixture adds up.
    fn check(&self, context: &str, job: JobId) -> bool {
        let life = self.live(Fault::None);
        let finished = life.runtime.block_on(async {
            let job = self.store.load(job).await.expect("in the journal");
            assert!(
                job.is_settled() && job.is_over(),
                "{context}: {} is not over",
                job.phase()
            );
            assert!(
                self.store.unfinished().await.expect("listed").is_empty(),
                "{context}: something is unfinished"
            );
            let finished = job.record.failure.is_none();
            let repository = self.repository();
            // A manifest exists if and only if its backup finished, and every file it lists is
            // there and is what its name says.
            for row in self
                .store
                .jobs(&JobFilter {
                    kind: Some(starkeep::job::JobKind::Backup),
                    ..JobFilter::default()
                })
                .await
                .expect("listed")
            {
                let label: SnapshotLabel = name(&row.snapshot);
                let backups = repository.snapshot(&label).await.expect("listed").backups;
                assert_eq!(
                    backups.len(),
                    usize::from(row.status == JobStatus::Succeeded),
                    "{context}: manifests of {label}"
                );
                for backup in backups {
                    let (manifest, _) = repository
                        .manifest(&label, &backup.timestamp)
                        .await
                        .expect("reads");
                    for file in manifest.files() {
                        let path = format!(
                            "__starrocks_repository_r/data/{}/{}.parquet",
                            &file.sha256[..2],
                            file.sha256
                        );
                        let bytes = self
                            .objects
                            .get(&path.as_str().into())
                            .await
                            .expect("there")
                            .bytes()
                            .await
                            .expect("read");
                        let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
                        assert_eq!(
                            hash.as_ref(),
                            hex::decode(&*file.sha256).expect("hex"),
                            "{context}: {path}"
                        );
                    }
                }
            }
            finished
        });
        self.nothing_is_left_behind(context, &life);
        life.end();
        finished
    }

    /// No pins, no locks, no links, no half-made tablets, no unfinished files.
    fn nothing_is_left_behind(&self, context: &str, life: &Life) {
        let fe = rusqlite::Connection::open(self.dir.path().join("fe.db")).expect("opens");
        for table in [
            "pins",
            "restore_locks",
            "staged_tablets",
            "swaps",
            "garbage",
        ] {
            let count: i64 = fe
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0))
                .expect("counted");
            assert_eq!(count, 0, "{context}: {table}");
        }
        let databases = life
            .runtime
            .block_on(life.cluster.managed().expect("ours").databases())
            .expect("described");
        let known: BTreeSet<String> = databases
            .iter()
            .flat_map(|d| &d.tables)
            .flat_map(|t| &t.partitions)
            .flat_map(|p| &p.tablets)
            .map(|t| t.id.to_string())
            .collect();
        for backend in self.backends() {
            assert_eq!(
                entries(&backend.join("snapshot")),
                BTreeSet::new(),
                "{context}: links"
            );
            for tablet in entries(&backend.join("tablets")) {
                assert!(
                    known.contains(&tablet),
                    "{context}: tablet {tablet} belongs to nobody"
                );
                let partial = entries(&backend.join("tablets").join(&tablet))
                    .into_iter()
                    .find(|f| f.starts_with('.'));
                assert_eq!(partial, None, "{context}: an unfinished file");
            }
        }
    }
}

fn entries(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeSet::new();
    };
    entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

impl Life {
    /// Ends the process: its tasks are dropped wherever they are.
    fn end(self) {
        let Self {
            runtime,
            saboteur,
            cluster,
            runner,
        } = self;
        drop((cluster, runner));
        runtime.shutdown_timeout(Duration::from_secs(30));
        drop(saboteur);
    }

    fn context(&self) -> SessionContext {
        let state = SessionStateBuilder::new().with_default_features().build();
        let context = SessionContext::new_with_state(state);
        context.register_catalog("embedded", self.cluster.catalog());
        context
    }

    /// The rows of a table as text, or nothing if there is no such table.
    fn rows(&self, table: &str) -> Option<String> {
        self.runtime.block_on(async {
            let frame = self
                .context()
                .sql(&format!("SELECT * FROM embedded.d.{table} ORDER BY a"))
                .await
                .ok()?;
            Some(
                pretty_format_batches(&frame.collect().await.expect("read"))
                    .expect("shown")
                    .to_string(),
            )
        })
    }

    /// The query of a view, or nothing if there is no such view.
    fn view(&self, view: &str) -> Option<String> {
        let databases = self
            .runtime
            .block_on(self.cluster.managed().expect("ours").databases())
            .expect("described");
        let views = databases.iter().flat_map(|d| &d.views);
        views
            .filter(|v| v.name.as_str() == view)
            .map(|v| v.definition.query.clone())
            .next()
    }

    fn define(&self, statement: &str) {
        let Statement::Define(definition) = parse_one(statement).expect("parses") else {
            panic!("{statement} defines nothing")
        };
        let managed = self.cluster.managed().expect("ours");
        self.runtime.block_on(async {
            let on = managed.backends_for(&definition).await.expect(statement);
            managed.define(&definition, on).await.expect(statement);
            managed.tidy_up().await;
        });
    }

    fn insert(&self, table: &str, query: &str) {
        self.runtime.block_on(async {
            let context = self.context();
            let plan = context
                .sql(query)
                .await
                .expect(query)
                .into_unoptimized_plan();
            let table = Qualified {
                database: Some(name("d")),
                name: name(table),
            };
            self.cluster
                .managed()
                .expect("ours")
                .write(&table, Write::Insert(plan), None, &context.state())
                .await
                .expect(query);
        });
    }

    fn delete_all(&self, table: &str) {
        self.runtime.block_on(async {
            let table = Qualified {
                database: Some(name("d")),
                name: name(table),
            };
            self.cluster
                .managed()
                .expect("ours")
                .write(&table, Write::Delete(None), None, &self.context().state())
                .await
                .expect("deleted");
        });
    }

    fn counts(&self) -> Counts {
        let read = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        Counts {
            commands: read(&self.saboteur.commands),
            appends: read(&self.saboteur.appends),
            requests: read(&self.saboteur.requests),
        }
    }

    fn end_of(&self, fixture: &Fixture, job: JobId) -> Option<End> {
        let loaded = self.runtime.block_on(fixture.store.load(job));
        loaded.expect("in the journal").end()
    }

    /// Submits a job and waits until it is over, or the process dies.
    fn submit(&self, work: Work, uid: &str) -> JobId {
        let spec = JobSpec {
            uid: uid.into(),
            cluster: name("embedded"),
            requester: Requester::User {
                name: "root".into(),
                client_addr: None,
                application_name: None,
            },
            statement: String::new(),
            timeout_seconds: 600,
            max_bytes_per_second: None,
            work,
        };
        self.runtime.block_on(async {
            let id = self.runner.submit(spec).await.expect("admitted");
            tokio::select! {
                () = self.runner.wait(id) => {}
                () = self.saboteur.crashed.notified() => {}
            }
            id
        })
    }
}

fn target() -> Target {
    Target {
        database: name("d"),
        label: name("l"),
        repository: name("r"),
    }
}

fn backup_request() -> Work {
    let request = BackupRequest {
        objects: vec![BackupObject {
            table: name("t"),
            partitions: Vec::new(),
        }],
        views: vec![name("v")],
        ttl: None,
        base: None,
    };
    Work::Backup {
        target: target(),
        request,
    }
}

/// A fixture with table `t` of two tablets, and a repository.
fn fixture_with_table() -> Fixture {
    let fixture = Fixture::new();
    let life = fixture.live(Fault::None);
    life.runtime.block_on(async {
        let record = RepositoryRecord {
            cluster: name("embedded"),
            id: RepositoryId(0),
            name: name("r"),
            location: "/".into(),
            broker: None,
            read_only: false,
            created_at: Timestamp(0),
            properties: BTreeMap::new(),
        };
        fixture.store.add_repository(&record).await.expect("added");
        fixture
            .repository()
            .initialize(false, &Env::system())
            .await
            .expect("made");
    });
    life.define("CREATE DATABASE d");
    life.define("CREATE TABLE d.t (a INT, b STRING) UNIQUE KEY (a) DISTRIBUTED BY HASH (a) BUCKETS 2 PROPERTIES (\"replication_num\" = \"2\")");
    life.define("CREATE VIEW d.v AS SELECT a FROM t");
    life.insert(
        "t",
        "SELECT cast(value AS int), 'first' FROM generate_series(1, 20)",
    );
    life.insert(
        "t",
        "SELECT cast(value AS int), 'second' FROM generate_series(11, 30)",
    );
    life.end();
    fixture
}

/// Runs a job under a fault, lives on if the process died, and checks the fixture.
fn run_backup(fault: Fault) -> Counts {
    let fixture = fixture_with_table();
    let life = fixture.live(fault);
    let before = life.rows("t");
    let job = life.submit(backup_request(), "u1");
    let counts = life.counts();
    life.end();
    recover(&fixture);
    let context = format!("backup, {fault:?}");
    let finished = fixture.check(&context, job);
    expect_outcome(&context, fault, finished);
    let life = fixture.live(Fault::None);
    assert_eq!(life.rows("t"), before, "{context}");
    life.end();
    counts
}

fn recover(fixture: &Fixture) {
    let life = fixture.live(Fault::None);
    life.runtime.block_on(async {
        let unfinished = fixture.store.unfinished().await.expect("listed");
        life.runner.recover().await.expect("recovered");
        for id in unfinished {
            life.runner.wait(id).await;
        }
    });
    life.end();
}

fn expect_outcome(context: &str, fault: Fault, finished: bool) {
    match fault {
        Fault::None
        | Fault::Crash { .. }
        | Fault::Request { .. }
        | Fault::Append { .. }
        | Fault::Command { fatal: false, .. } => {
            assert!(finished, "{context}: should finish")
        }
        // A fatal error before the commit cancels; at the commit and after it is only retried.
        // CANCEL likewise.
        Fault::Command { .. } | Fault::Cancel { .. } | Fault::CancelBeside { .. } => {}
    }
}

fn restore_request(fixture: &Fixture) -> Work {
    let backups = tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(async {
            fixture
                .repository()
                .snapshot(&name("l"))
                .await
                .expect("listed")
                .backups
        });
    let object = |alias: Option<&str>| RestoreObject {
        table: name("t"),
        partitions: Vec::new(),
        alias: alias.map(name),
    };
    let request = RestoreRequest {
        timestamp: backups[0].timestamp.clone(),
        objects: vec![object(None), object(Some("t2"))],
        views: vec![RestoreView {
            view: name("v"),
            alias: Some(name("v2")),
        }],
        replication_num: 2,
        replication_given: true,
        allow_load: false,
        makes_database: false,
    };
    Work::Restore {
        target: target(),
        request,
    }
}

/// Drops the snapshot of a backup.
fn run_drop(fault: Fault) -> Counts {
    drop_snapshot(fault, false)
}

/// The same of one whose time is over.
fn run_expiry(fault: Fault) -> Counts {
    drop_snapshot(fault, true)
}

fn drop_snapshot(fault: Fault, expires: bool) -> Counts {
    let context = format!("drop, expires: {expires}, {fault:?}");
    let fixture = fixture_with_table();
    let life = fixture.live(Fault::None);
    let mut backup = backup_request();
    if let Work::Backup { request, .. } = &mut backup {
        request.ttl = Ttl::parse("1 HOUR").expect("valid");
    }
    life.submit(backup, "u1");
    let cluster_id = life.cluster.managed().expect("ours").id().to_owned();
    let backups = life.runtime.block_on(async {
        let stored = fixture.repository().snapshot(&name("l")).await;
        stored.expect("listed").backups
    });
    life.end();
    fixture.ahead.store(2 * 3_600_000, Ordering::SeqCst);
    let life = fixture.live(fault);
    let backups = if expires {
        DroppedBackups::Expired {
            timestamp: backups[0].timestamp.clone(),
        }
    } else {
        DroppedBackups::All {
            cluster_id,
            force: false,
        }
    };
    let drop = Work::DropSnapshot(DropRequest {
        repository: name("r"),
        label: name("l"),
        backups,
    });
    let mut job = life.submit(drop.clone(), "u2");
    let counts = life.counts();
    life.end();
    recover(&fixture);
    let life = fixture.live(Fault::None);
    let is_refused = match life.end_of(&fixture, job) {
        Some(End::Failed) => matches!(fault, Fault::Request { .. }),
        Some(End::Cancelled(CancelCause::User)) => matches!(fault, Fault::CancelBeside { .. }),
        _ => false,
    };
    if is_refused {
        // Who waits for a deletion is told of an error, and says it again.
        job = life.submit(drop, "u2 again");
    }
    life.runtime.block_on(async {
        let dropped = fixture.store.load(job).await.expect("in the journal");
        assert_eq!(
            (dropped.end(), dropped.is_over()),
            (Some(End::Finished), true),
            "{context}"
        );
        assert!(
            fixture.store.unfinished().await.expect("listed").is_empty(),
            "{context}: something is unfinished"
        );
        let left = fixture
            .repository()
            .snapshot(&name("l"))
            .await
            .expect("listed")
            .backups;
        assert_eq!(left, [], "{context}: the manifest is gone");
    });
    // Its label is free again, and what is backed up under it is whole.
    let again = life.submit(backup_request(), "u3");
    life.runtime.block_on(async {
        assert_eq!(
            fixture
                .store
                .load(again)
                .await
                .expect("in the journal")
                .end(),
            Some(End::Finished),
            "{context}"
        );
    });
    life.end();
    counts
}

/// The data objects of the repository, and whether a prune's mark stands.
fn leftovers(fixture: &Fixture) -> (usize, bool) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let objects: Vec<String> = runtime.block_on(async {
        let listed = fixture.objects.list(None).try_collect::<Vec<_>>();
        let listed = listed.await.expect("listed").into_iter();
        listed.map(|object| object.location.to_string()).collect()
    });
    let data = objects
        .iter()
        .filter(|path| path.contains("/data/"))
        .count();
    (data, objects.iter().any(|path| path.ends_with("/__prune")))
}

/// Prunes what a dropped snapshot has left, beside another one.
fn run_prune(fault: Fault) -> Counts {
    let context = format!("prune, {fault:?}");
    let fixture = fixture_with_table();
    let life = fixture.live(Fault::None);
    life.submit(backup_request(), "u1");
    let (before, _) = leftovers(&fixture);
    life.delete_all("t");
    life.insert(
        "t",
        "SELECT cast(value AS int), 'third' FROM generate_series(1, 40)",
    );
    let mut kept = backup_request();
    if let Work::Backup { target, .. } = &mut kept {
        target.label = name("kept");
    }
    life.submit(kept, "u2");
    let cluster_id = life.cluster.managed().expect("ours").id().to_owned();
    let backups = DroppedBackups::All {
        cluster_id,
        force: false,
    };
    let drop = DropRequest {
        repository: name("r"),
        label: name("l"),
        backups,
    };
    life.submit(Work::DropSnapshot(drop), "u3");
    life.end();
    let (all, _) = leftovers(&fixture);
    assert!(
        all > before,
        "{context}: the second backup has files of its own"
    );
    let life = fixture.live(fault);
    let request = PruneRequest {
        repository: name("r"),
        grace_seconds: 0,
        wait_seconds: 0,
        dry_run: false,
    };
    let mut job = life.submit(Work::Prune(request.clone()), "u4");
    let counts = life.counts();
    life.end();
    recover(&fixture);
    let life = fixture.live(Fault::None);
    if let Fault::CancelBeside { .. } = fault
        && let Some(End::Cancelled(CancelCause::User)) = life.end_of(&fixture, job)
    {
        assert!(
            !leftovers(&fixture).1,
            "{context}: its mark is gone with it"
        );
        job = life.submit(Work::Prune(request.clone()), "u4 again");
    }
    life.runtime.block_on(async {
        let pruned = fixture.store.load(job).await.expect("in the journal");
        assert_eq!(
            (pruned.end(), pruned.is_over()),
            (Some(End::Finished), true),
            "{context}"
        );
        let unfinished = fixture.store.unfinished().await.expect("listed");
        assert!(unfinished.is_empty(), "{context}: something is unfinished");
        let repository = fixture.repository();
        let kept = repository
            .snapshot(&name("kept"))
            .await
            .expect("listed")
            .backups;
        let (manifest, _) = repository
            .manifest(&name("kept"), &kept[0].timestamp)
            .await
            .expect("reads");
        let lacking = repository
            .lacking(manifest.files())
            .await
            .expect("looked at");
        assert!(
            lacking.is_empty(),
            "{context}: a file that is needed is gone"
        );
    });
    life.end();
    if let Fault::Request {
        fault: Meddling::Missing,
        ..
    } = fault
    {
        // What was said to be gone is left to the next one.
        let life = fixture.live(Fault::None);
        life.submit(Work::Prune(request), "u5");
        life.end();
    }
    assert_eq!(leftovers(&fixture), (all - before, false), "{context}");
    counts
}

/// Verifies a repository in which a file is missing.
fn run_verify(fault: Fault) -> Counts {
    let fixture = fixture_with_table();
    let life = fixture.live(Fault::None);
    life.submit(backup_request(), "u1");
    life.runtime.block_on(async {
        let listed = fixture
            .objects
            .list(None)
            .try_collect::<Vec<_>>()
            .await
            .expect("listed");
        let data = listed
            .into_iter()
            .find(|o| o.location.as_ref().contains("/data/"));
        fixture
            .objects
            .delete(&data.expect("a file").location)
            .await
            .expect("deleted");
    });
    life.end();
    verify(&fixture, VerifyLevel::Checksum, fault, &["missing"])
}

/// Verifies a backup by restoring it.
fn run_test_restore(fault: Fault) -> Counts {
    let fixture = fixture_with_table();
    let life = fixture.live(Fault::None);
    life.submit(backup_request(), "u1");
    life.end();
    let counts = verify(&fixture, VerifyLevel::Restore, fault, &[]);
    let context = format!("test restore, {fault:?}");
    let life = fixture.live(Fault::None);
    let databases = life
        .runtime
        .block_on(life.cluster.managed().expect("ours").databases());
    let databases = databases.expect("described");
    assert_eq!(databases.len(), 1, "{context}: what was restored is gone");
    fixture.nothing_is_left_behind(&context, &life);
    life.end();
    counts
}

fn verify(fixture: &Fixture, level: VerifyLevel, fault: Fault, expected: &[&str]) -> Counts {
    let context = format!("verify, {level:?}, {fault:?}");
    let life = fixture.live(fault);
    let request = VerifyRequest {
        repository: name("r"),
        label: None,
        level,
        sample: SAMPLE_ALL,
    };
    let mut job = life.submit(Work::Verify(request.clone()), "u2");
    let counts = life.counts();
    life.end();
    recover(fixture);
    let life = fixture.live(Fault::None);
    if let Fault::CancelBeside { .. } | Fault::Cancel { .. } = fault
        && let Some(End::Cancelled(CancelCause::User)) = life.end_of(fixture, job)
    {
        let rows = life.runtime.block_on(fixture.store.verifications(ALL_JOBS));
        assert_eq!(
            rows.expect("read"),
            [],
            "{context}: a cancelled one proves nothing"
        );
        job = life.submit(Work::Verify(request), "u2 again");
    }
    life.runtime.block_on(async {
        let verified = fixture.store.load(job).await.expect("in the journal");
        assert_eq!(
            (verified.end(), verified.is_over()),
            (Some(End::Finished), true),
            "{context}"
        );
        let unfinished = fixture.store.unfinished().await.expect("listed");
        assert!(unfinished.is_empty(), "{context}: something is unfinished");
        let found = fixture.store.findings(ALL_JOBS).await.expect("read");
        let kinds: Vec<_> = found.iter().map(|f| f.kind.as_str()).collect();
        // A restore that fails for good is what such a verification is there to find.
        let is_found =
            matches!(fault, Fault::Command { fatal: true, .. }) && kinds == ["not_restorable"];
        assert!(kinds == expected || is_found, "{context}: {kinds:?}");
        let rows = fixture.store.verifications(ALL_JOBS).await.expect("read");
        assert_eq!(
            rows.iter().map(|row| row.damage).collect::<Vec<_>>(),
            [kinds.len() as u64],
            "{context}"
        );
    });
    life.end();
    counts
}

/// Restores over a damaged table and into a new one at once.
fn run_restore(fault: Fault) -> Counts {
    let fixture = fixture_with_table();
    let life = fixture.live(Fault::None);
    let backed_up = life.rows("t");
    life.submit(backup_request(), "u1");
    life.delete_all("t");
    life.define("DROP VIEW d.v");
    life.insert("t", "SELECT cast(99 AS int), 'damaged'");
    let damaged = life.rows("t");
    life.end();
    let request = restore_request(&fixture);
    let life = fixture.live(fault);
    let job = life.submit(request, "u2");
    let counts = life.counts();
    life.end();
    recover(&fixture);
    let context = format!("restore, {fault:?}");
    let finished = fixture.check(&context, job);
    expect_outcome(&context, fault, finished);
    let life = fixture.live(Fault::None);
    let (t, t2) = (life.rows("t"), life.rows("t2"));
    assert_eq!(
        life.view("v2"),
        finished.then(|| "SELECT a FROM t".to_owned()),
        "{context}: the view comes with the tables"
    );
    if finished {
        assert_eq!(
            (t, t2),
            (backed_up.clone(), backed_up),
            "{context}: all of the new"
        );
        // The restored table takes rows again.
        life.insert("t", "SELECT cast(1 AS int), 'after'");
        assert!(
            life.rows("t").expect("there").contains("after"),
            "{context}: the newest row wins after a restore"
        );
    } else {
        assert_eq!((t, t2), (damaged, None), "{context}: all of the old");
    }
    life.end();
    counts
}

/// Plays every fault that a job can meet.
fn every_fault(run: fn(Fault) -> Counts, at_least: Counts) {
    let counts = run(Fault::None);
    // What comes together is appended together, so there are no more appends for sure than the job
    // has phases.
    assert!(
        counts.commands >= at_least.commands
            && counts.appends >= at_least.appends
            && counts.requests >= at_least.requests,
        "the job has its phases: {counts:?}"
    );
    let mut faults = Vec::new();
    for nth in 0..counts.commands {
        for (fatal, landed) in [(false, false), (false, true), (true, false), (true, true)] {
            faults.push(Fault::Command { nth, fatal, landed });
        }
        faults.push(Fault::Cancel { command: nth });
    }
    for append in 0..counts.appends {
        for after in [false, true] {
            faults.push(Fault::Crash { append, after });
        }
    }
    for nth in 0..counts.appends {
        for landed in [false, true] {
            faults.push(Fault::Append { nth, landed });
        }
    }
    for nth in 0..counts.requests {
        faults.push(Fault::CancelBeside { request: nth });
        for fault in [
            Meddling::Before,
            Meddling::After,
            Meddling::Truncated,
            Meddling::Flipped,
            Meddling::Missing,
        ] {
            faults.push(Fault::Request { nth, fault });
        }
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                    run(*fault);
                }
            });
        }
    });
}

#[test]
fn a_backup_survives_every_fault() {
    let at_least = Counts {
        commands: 9,
        appends: 7,
        requests: 6,
    };
    every_fault(run_backup, at_least);
}

#[test]
fn a_restore_survives_every_fault() {
    let at_least = Counts {
        commands: 9,
        appends: 7,
        requests: 3,
    };
    every_fault(run_restore, at_least);
}

// These have no commands of the cluster: what they do, they ask of the repository.

#[test]
fn a_dropped_snapshot_stays_dropped_whatever_fails() {
    let at_least = Counts {
        commands: 0,
        appends: 2,
        requests: 3,
    };
    every_fault(run_drop, at_least);
}

#[test]
fn an_expired_snapshot_goes_whatever_fails() {
    let at_least = Counts {
        commands: 0,
        appends: 2,
        requests: 2,
    };
    every_fault(run_expiry, at_least);
}

#[test]
fn a_prune_survives_every_fault() {
    let at_least = Counts {
        commands: 0,
        appends: 2,
        requests: 6,
    };
    every_fault(run_prune, at_least);
}

#[test]
fn a_verification_survives_every_fault() {
    let at_least = Counts {
        commands: 0,
        appends: 2,
        requests: 3,
    };
    every_fault(run_verify, at_least);
}

#[test]
fn a_test_restore_survives_every_fault() {
    let at_least = Counts {
        commands: 9,
        appends: 9,
        requests: 6,
    };
    every_fault(run_test_restore, at_least);
}
