//! Who does the work: a cluster of databases, tables and backends, behind one trait.
//!
//! Where the work is ours ([`ManagedCluster`]), each step of a job is one method: it brings the job
//! past one phase and may be called again, before or after a crash, with the same result. The
//! runner asks one question of a failure: is it worth another try ([`StepError`]). Where it is the
//! cluster's own ([`ExternalCluster`]), a statement starts the job and looking tells how it goes.

mod detached;
pub mod embedded;
mod external;
pub mod starrocks;
mod unknown;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{CatalogProvider, Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::RwLock;

pub use self::detached::DetachedCluster;
pub use self::external::*;
pub(crate) use self::unknown::{no_database, unknown_database, unknown_table};
use crate::error::{Error, ErrorKind};
use crate::job::{
    BackupPlan, BackupRequest, Job, ManifestDigest, PlannedTablet, RestorePlan, RestoreRequest,
    TargetTablet, Transfer, TransferTask, Volume,
};
use crate::names::*;
use crate::repository::{Manifest, Placed, Repository};
use crate::scan_at_once::scan_at_once;
use crate::schema::{Bounds, PartitionDef, TableSchema, ViewDefinition};
use crate::statement::{Definition, ObjectRef, Qualified};

#[derive(Clone, Debug)]
pub enum StepError {
    /// May succeed another time.
    Retry(Error),
    /// Will not.
    Fatal(Error),
}

impl StepError {
    pub fn error(&self) -> &Error {
        match self {
            Self::Retry(e) | Self::Fatal(e) => e,
        }
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::Storage
            | ErrorKind::DiskFull
            | ErrorKind::Connection
            | ErrorKind::OutOfFiles
            | ErrorKind::InDoubt
            | ErrorKind::OutOfMemory => Self::Retry(error),
            _ => Self::Fatal(error),
        }
    }
}

/// Where a transfer reports what it has done so far; an error says that it should end.
pub type ReportProgress = Arc<dyn Fn(Volume) -> Result<(), Error> + Send + Sync>;

/// Whether what takes long is still wanted; an error says that it is not.
pub type GoOn = Arc<dyn Fn() -> Result<(), Error> + Send + Sync>;

/// A change of a table's rows.
#[derive(Debug)]
pub enum Write {
    /// The rows of a plan whose columns are the table's, in order.
    Insert(LogicalPlan),
    /// The rows for which this is true; all without it. Columns are named by the table's own name.
    Delete(Option<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterKind {
    /// In this process.
    Embedded,
    /// StarRocks, reached through its frontends.
    StarRocks,
    /// Nothing but a place for repositories whose cluster is gone.
    None,
}

impl ClusterKind {
    /// Its name in `system.clusters` and in `"type"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::StarRocks => "starrocks",
            Self::None => "none",
        }
    }
}

/// Who does a cluster's work.
#[derive(Clone, Copy, Debug)]
pub enum ClusterRole<'a> {
    /// We do, step by step.
    Managed(&'a dyn ManagedCluster),
    /// It does: a statement starts a job, and then it is watched.
    External(&'a dyn ExternalCluster),
    /// Nobody.
    RepositoryOnly,
}

/// A cluster: a PostgreSQL database.
#[async_trait]
pub trait Cluster: Debug + Send + Sync {
    fn name(&self) -> &ClusterName;

    fn kind(&self) -> ClusterKind;

    /// Who does its work.
    fn role(&self) -> ClusterRole<'_>;

    /// Brings what [`Self::catalog`] shows up to date, as far as that is worth a round trip. One
    /// that cannot be reached keeps showing what it showed, so the error is for those who need the
    /// names to be right.
    async fn refresh(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Asks for all names again when they are next needed: they may have changed.
    fn forget_names(&self) {}

    /// A number that changes whenever the names that [`Self::catalog`] shows change, or their
    /// columns; nothing if that is not known.
    fn names_version(&self) -> Option<u64> {
        None
    }

    /// Its databases, tables and views ([`ViewSource`]) at this instant. Files that it names stay
    /// readable while it is held.
    fn catalog(&self) -> Arc<dyn CatalogProvider>;

    /// Which of its tables a provider reads; `None` for what is not the cluster's. Privileges are
    /// checked by this and not by the names in a plan, which mean different things inside views.
    fn table_of(&self, provider: &dyn TableProvider) -> Option<Qualified<TableName>>;

    /// The limit of a VARCHAR or CHAR column of one of its tables; `None` for other columns, and
    /// for texts without a limit.
    fn column_length(&self, _: &dyn TableProvider, _: &str) -> Option<u32> {
        None
    }

    /// The same plan, with the parts that the cluster computes itself with the same result as one
    /// table each.
    fn push_down(&self, plan: LogicalPlan) -> Result<LogicalPlan, Error> {
        Ok(plan)
    }
}

impl dyn Cluster {
    /// Us, if we do its work; 0A000 if not.
    pub fn managed(&self) -> Result<&dyn ManagedCluster, Error> {
        match self.role() {
            ClusterRole::Managed(managed) => Ok(managed),
            ClusterRole::External(_) | ClusterRole::RepositoryOnly => {
                Err(Error::unsupported(format_args!(
                    "this statement on cluster \"{}\" of type {}",
                    self.name(),
                    self.kind().name()
                )))
            }
        }
    }

    /// It, if it does its work itself.
    pub fn external(&self) -> Option<&dyn ExternalCluster> {
        match self.role() {
            ClusterRole::External(external) => Some(external),
            ClusterRole::Managed(_) | ClusterRole::RepositoryOnly => None,
        }
    }
}

/// The context that a statement's plans run in: with the share of memory that its state brings.
pub fn task_context(state: &SessionState) -> Arc<TaskContext> {
    let context = TaskContext::from(state);
    Arc::new(match state.config().get_extension::<RuntimeEnv>() {
        Some(runtime) => context.with_runtime(runtime),
        None => context,
    })
}

/// Every cluster of a gateway, by name. They come and go while it runs.
#[derive(Debug, Default)]
pub struct Clusters(RwLock<BTreeMap<ClusterName, Arc<dyn Cluster>>>);

impl Clusters {
    pub fn new(clusters: impl IntoIterator<Item = Arc<dyn Cluster>>) -> Self {
        Self(RwLock::new(
            clusters
                .into_iter()
                .map(|c| (c.name().clone(), c))
                .collect(),
        ))
    }

    pub fn get(&self, name: &ClusterName) -> Option<Arc<dyn Cluster>> {
        self.0.read().get(name).cloned()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<dyn Cluster>> {
        self.0.read().values().cloned().collect()
    }

    /// Adds a cluster, or puts it in the place of the one with its name.
    pub fn put(&self, cluster: Arc<dyn Cluster>) {
        self.0.write().insert(cluster.name().clone(), cluster);
    }

    /// Takes a cluster away.
    pub fn remove(&self, name: &ClusterName) {
        self.0.write().remove(name);
    }
}

/// The tables of a cluster whose inside is ours: what there is, and how it changes.
#[async_trait]
pub trait Tables: Debug + Send + Sync {
    /// The cluster's own id, unique over all clusters: stands in the manifests of its backups.
    fn id(&self) -> &str;

    /// Its databases, tables, partitions and tablets, by name.
    async fn databases(&self) -> Result<Vec<DatabaseInfo>, Error>;

    async fn nodes(&self) -> Result<Nodes, Error>;

    /// Why each backend that does not answer does not. Takes as long as the slowest of them.
    async fn silent_backends(&self) -> Result<BTreeMap<BackendId, Error>, Error>;

    /// The backends that can take what a definition makes. Asked first: one on storage that hangs
    /// must hold up nothing but this.
    async fn backends_for(&self, definition: &Definition) -> Result<Vec<BackendId>, Error>;

    /// Carries out a definition whose names are complete, on these backends. What the user should
    /// know comes back as notices.
    async fn define(
        &self,
        definition: &Definition,
        on: Vec<BackendId>,
    ) -> Result<Vec<String>, Error>;

    /// Removes what definitions have made superfluous; what takes long goes on after it has
    /// returned.
    async fn tidy_up(&self);

    /// Changes rows of a table, durably and atomically; answers how many.
    async fn write(
        &self,
        table: &Qualified<TableName>,
        write: Write,
        lock_timeout: Option<Duration>,
        state: &SessionState,
    ) -> Result<u64, Error>;

    /// Checks what a BACKUP asks for, and answers it completed, without a ttl: no objects means
    /// everything in the database, which may be nothing.
    async fn check_backup(
        &self,
        database: &DatabaseName,
        objects: Option<&[ObjectRef]>,
    ) -> Result<BackupRequest, Error>;

    /// What a BACKUP would take now; it pins nothing.
    fn backup_preview(
        &self,
        database: &DatabaseName,
        request: &BackupRequest,
    ) -> Result<BackupPlan, Error>;

    /// What a RESTORE would make now of each of its objects, or why not; it reserves nothing.
    async fn restore_preview(
        &self,
        database: &DatabaseName,
        request: &RestoreRequest,
        manifest: &Manifest,
    ) -> Result<Vec<Result<RestorePlan, Error>>, Error>;

    /// Whether a RESTORE may go into this database, which it makes if it is not there.
    fn check_restore(&self, database: &DatabaseName) -> Result<(), Error>;

    /// Reads every file of a database that was restored as a whole, and compares it with its
    /// backup.
    /// `go_on` is asked before each file.
    async fn prove(
        &self,
        database: &DatabaseName,
        manifest: &Manifest,
        go_on: GoOn,
    ) -> Result<Proof, Error>;

    /// How many replicas a restored tablet gets when RESTORE does not say.
    fn default_replication(&self) -> u16;
}

/// The steps of its jobs. Each may be done again: what it made is found, and what is there is left.
#[async_trait]
pub trait JobSteps: Debug + Send + Sync {
    /// PENDING of a backup: fixes its content at one instant and pins it.
    async fn plan_backup(&self, job: &Job) -> Result<BackupPlan, StepError>;
    /// SNAPSHOTING: pins one tablet's files; answers whose replica was taken.
    async fn snapshot(&self, job: &Job, tablet: &PlannedTablet) -> Result<BackendId, StepError>;
    /// UPLOAD_SNAPSHOT: divides the work.
    async fn plan_upload(
        &self,
        job: &Job,
        plan: &BackupPlan,
    ) -> Result<Vec<TransferTask>, StepError>;
    /// UPLOADING: brings one tablet's files to the repository.
    async fn upload(
        &self,
        job: &Job,
        tablet: &PlannedTablet,
        repository: &Repository,
        progress: ReportProgress,
    ) -> Result<Transfer, StepError>;
    /// SAVE_META: fixes the manifest's content.
    async fn save_meta(
        &self,
        job: &Job,
        plan: &BackupPlan,
        repository: &Repository,
    ) -> Result<(ManifestDigest, Timestamp), StepError>;
    /// UPLOAD_INFO: puts the manifest. This is the commit. What stands in its place proves that it
    /// will never be there.
    async fn publish(
        &self,
        job: &Job,
        plan: &BackupPlan,
        saved_at: Timestamp,
        repository: &Repository,
    ) -> Result<Placed, StepError>;

    /// PENDING of a restore: reads the manifest, checks, makes the database, reserves, and fixes
    /// what will be made.
    async fn plan_restore(
        &self,
        job: &Job,
        repository: &Repository,
    ) -> Result<RestorePlan, StepError>;
    /// SNAPSHOTING: makes room for one tablet.
    async fn prepare(&self, job: &Job, tablet: &TargetTablet) -> Result<(), StepError>;
    /// DOWNLOAD: divides the work.
    async fn plan_download(
        &self,
        job: &Job,
        plan: &RestorePlan,
    ) -> Result<Vec<TransferTask>, StepError>;
    /// DOWNLOADING: brings one tablet's files here.
    async fn download(
        &self,
        job: &Job,
        tablet: &TargetTablet,
        repository: &Repository,
        progress: ReportProgress,
    ) -> Result<Transfer, StepError>;
    /// COMMIT: checks that every file is in its place.
    async fn verify(&self, job: &Job, plan: &RestorePlan) -> Result<(), StepError>;
    /// COMMITTING: makes the restored data visible, in one transaction.
    async fn swap(&self, job: &Job, plan: &RestorePlan) -> Result<Swap, StepError>;

    /// Lets writers have the tables of a job that has come to its end: what it still has in flight
    /// touches nothing of theirs.
    async fn unlock(&self, job: &Job) -> Result<(), Error>;

    /// Lets go of everything the job held and did not make visible.
    async fn release(&self, job: &Job) -> Result<(), StepError>;
}

/// The work on a cluster that is ours: definitions, rows, and each step of a job.
pub trait ManagedCluster: Tables + JobSteps {}
impl<T: Tables + JobSteps> ManagedCluster for T {}

/// What became of the transaction that makes restored data visible.
#[derive(Debug)]
pub enum Swap {
    /// It is visible.
    Done,
    /// The transaction was refused, so it never happened, and it never will.
    Refused(Error),
}

/// What comparing restored tables with their backup has come to.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    pub volume: Volume,
    pub rows: u64,
    /// What is not as it was backed up, in words.
    pub differences: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Nodes {
    pub frontends: Vec<FrontendInfo>,
    pub backends: Vec<BackendInfo>,
    /// Broker processes: name and `host:port`.
    pub brokers: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct FrontendInfo {
    pub name: String,
    pub host: String,
    /// Whether it decides.
    pub is_leader: bool,
    pub version: String,
    pub started_at: Timestamp,
}

#[derive(Clone, Debug)]
pub struct BackendInfo {
    pub id: BackendId,
    pub path: String,
    /// How many tablets have a replica on it.
    pub tablets: u64,
    /// The bytes of those replicas.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
pub struct DatabaseInfo {
    pub id: i64,
    pub name: DatabaseName,
    pub created_at: Timestamp,
    /// Its tables, by name.
    pub tables: Vec<TableInfo>,
    /// Its views, by name.
    pub views: Vec<ViewInfo>,
}

#[derive(Clone, Debug)]
pub struct ViewInfo {
    pub name: TableName,
    pub definition: ViewDefinition,
    /// When it was made, or last replaced.
    pub created_at: Timestamp,
}

/// A view as a cluster's catalog gives it: its definition, which the query layer plans where it is
/// used.
#[derive(Debug)]
pub struct ViewSource {
    database: DatabaseName,
    definition: ViewDefinition,
}

impl ViewSource {
    pub fn new(database: DatabaseName, definition: ViewDefinition) -> Self {
        Self {
            database,
            definition,
        }
    }

    /// The database that bare names in its query belong to.
    pub fn database(&self) -> &DatabaseName {
        &self.database
    }

    pub fn definition(&self) -> &ViewDefinition {
        &self.definition
    }
}

impl ViewSource {
    fn planned(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Err(DataFusionError::Internal(
            "a view was scanned instead of planned".into(),
        ))
    }
}

impl TableProvider for ViewSource {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_table_definition(&self) -> Option<&str> {
        Some(&self.definition.query)
    }

    scan_at_once!();
}

#[derive(Clone, Debug)]
pub struct TableInfo {
    pub id: TableId,
    pub name: TableName,
    pub schema: Arc<TableSchema>,
    /// NORMAL or RESTORE.
    pub state: &'static str,
    /// Replicas per tablet.
    pub replication_num: u16,
    pub created_at: Timestamp,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionInfo>,
}

impl TableInfo {
    /// `CREATE TABLE …`
    pub fn ddl(&self) -> String {
        let partitions: Vec<PartitionDef> = self
            .partitions
            .iter()
            .map(|p| PartitionDef {
                name: p.name.clone(),
                bounds: p.bounds.clone(),
            })
            .collect();
        self.schema.ddl(self.name.as_str(), &partitions)
    }
}

#[derive(Clone, Debug)]
pub struct PartitionInfo {
    pub id: PartitionId,
    pub name: PartitionName,
    /// The rows it takes.
    pub bounds: Bounds,
    pub version: i64,
    /// Since when.
    pub version_at: Timestamp,
    /// Its tablets, by bucket.
    pub tablets: Vec<TabletInfo>,
}

#[derive(Clone, Debug)]
pub struct TabletInfo {
    pub id: TabletId,
    /// Its bucket, from 0.
    pub bucket: u32,
    /// Where its replicas are.
    pub backends: Vec<BackendId>,
    pub volume: Volume,
    /// The rows in its files.
    pub rows: u64,
}
