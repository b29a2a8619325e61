//! The embedded cluster: one process, real tables, real files. Small and honest
//! (docs/architecture.md lists what it is not).
//!
//! The frontend (`fe`) is a metastore in SQLite with its image in memory; the backends (`be`) are
//! directories of immutable Parquet files. Queries are DataFusion plans over those files (`scan`);
//! writes add files and then move the visible version in one transaction (`ingest`). Backups pin
//! files at a fixed version by hard links, restores build beside the old data and swap in one
//! transaction.

mod backup;
mod be;
mod catalog;
mod define;
mod describe;
mod fe;
mod files;
mod ingest;
mod metastore;
mod prove;
mod restore;
mod scan;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::catalog::CatalogProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, is_true, lit, not};
use datafusion::physical_plan::{ExecutionPlanProperties, execute_stream};
use futures::TryStreamExt;
use parking_lot::Mutex;

use self::be::Backends;
use self::catalog::MetastoreCatalog;
use self::describe::{partition_info, view_info};
use self::fe::{Frontend, NewFile, TableChange};
use self::ingest::{NewFiles, Sequence, Written};
use self::metastore::{Partition, Table};
use super::*;
use crate::env::Env;
use crate::repository::ByteBudget;
use crate::repository::transfer::blocking;

/// How long a statement waits until what it has made superfluous is removed.
const TIDYING_PATIENCE: Duration = Duration::from_secs(5);

/// The cluster in this process.
#[derive(Clone, Debug)]
pub struct EmbeddedCluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: ClusterName,
    frontend: Frontend,
    backends: Arc<Backends>,
    env: Env,
    budget: ByteBudget,
    started_at: Timestamp,
    /// One writer a table at a time.
    writers: Mutex<HashMap<TableId, Arc<tokio::sync::Mutex<()>>>>,
    /// One collector of garbage at a time.
    collecting: tokio::sync::Mutex<()>,
    /// Whether something may have become garbage since the last collection began.
    has_garbage: AtomicBool,
}

/// A DataFusion error as ours: our own errors come back unchanged from where they were raised.
pub(crate) fn query_error(error: DataFusionError) -> Error {
    crate::error::from_datafusion(error)
}

fn sort_partitions(partitions: &mut [Arc<Partition>]) {
    partitions.sort_by(|a, b| {
        let lower = |p: &Partition| match p.bounds {
            Bounds::Range { lower, .. } => Some(lower),
            _ => None,
        };
        lower(a).cmp(&lower(b)).then_with(|| a.name.cmp(&b.name))
    });
}

impl EmbeddedCluster {
    /// Opens or creates the cluster in a directory, with these backends, and sweeps away what a
    /// crash left.
    pub async fn open(
        name: ClusterName,
        dir: &Path,
        backend_paths: &[PathBuf],
        budget: ByteBudget,
        env: Env,
    ) -> Result<Self, Error> {
        let (path, paths, uid) = (dir.join("fe.db"), backend_paths.to_vec(), env.uuid());
        let (frontend, backends) = blocking(move || Frontend::open(&path, &paths, &uid)).await?;
        let started_at = env.now();
        let inner = Inner {
            name,
            frontend,
            backends: Arc::new(backends),
            env,
            budget,
            started_at,
            writers: Mutex::default(),
            collecting: tokio::sync::Mutex::default(),
            has_garbage: AtomicBool::new(false),
        };
        let cluster = Self {
            inner: Arc::new(inner),
        };
        cluster.sweep().await?;
        cluster.remove_superfluous().await;
        Ok(cluster)
    }

    async fn sweep(&self) -> Result<(), Error> {
        let (held, uids) = self.inner.frontend.held().await?;
        let metastore = self.inner.frontend.metastore();
        let backends = self.inner.backends.clone();
        blocking(move || {
            let mut files: HashMap<TabletId, Vec<String>> = HashMap::new();
            for tablet in metastore
                .tables()
                .flat_map(|t| &t.partitions)
                .flat_map(|p| &p.tablets)
            {
                files.insert(
                    tablet.id,
                    tablet.files.iter().map(|f| f.sha256.to_string()).collect(),
                );
            }
            let known_file = |tablet: TabletId, sha256: &str| {
                held.contains(&tablet)
                    || files
                        .get(&tablet)
                        .is_some_and(|known| known.iter().any(|f| f == sha256))
            };
            backends.sweep(
                known_file,
                |tablet| held.contains(&tablet) || files.contains_key(&tablet),
                &uids,
            );
            Ok(())
        })
        .await
    }

    /// Deletes files that nothing reads and nothing pins.
    pub async fn collect_garbage(&self) -> Result<(), Error> {
        self.inner.has_garbage.store(true, Ordering::SeqCst);
        while self.inner.has_garbage.load(Ordering::SeqCst) {
            // Whoever is at it looks once more before it ends.
            let Ok(_one) = self.inner.collecting.try_lock() else {
                return Ok(());
            };
            self.inner.has_garbage.store(false, Ordering::SeqCst);
            self.collect_once().await?;
        }
        Ok(())
    }

    async fn collect_once(&self) -> Result<(), Error> {
        let garbage = self.inner.frontend.collectable().await?;
        if garbage.is_empty() {
            return Ok(());
        }
        let backends = self.inner.backends.clone();
        let (gone, failed) = blocking(move || {
            let (mut gone, mut failed) = (Vec::new(), None);
            for (id, tablet, sha256) in garbage {
                match backends.remove(tablet, sha256.as_deref()) {
                    Ok(()) => gone.push(id),
                    Err(e) => failed = Some(e),
                }
            }
            Ok((gone, failed))
        })
        .await?;
        self.inner.frontend.collected(gone).await?;
        failed.map_or(Ok(()), Err)
    }

    /// Garbage collection after a change: its failure is no failure of the change, and is tried
    /// again after the next one. Where storage hangs it goes on after the statement.
    async fn remove_superfluous(&self) {
        let cluster = self.clone();
        let tidying = tokio::spawn(async move {
            if let Err(e) = cluster.collect_garbage().await {
                tracing::warn!(error = %e, "could not remove data that is no longer needed");
            }
        });
        tokio::select! {
            _ = tidying => {}
            () = self.inner.env.clock.sleep(TIDYING_PATIENCE) => {}
        }
    }

    fn table(&self, table: &Qualified<TableName>) -> Result<Arc<Table>, Error> {
        let database = table.database.as_ref().ok_or_else(no_database)?;
        let metastore = self.inner.frontend.metastore();
        metastore
            .database(database.as_str())
            .ok_or_else(|| fe::unknown_database(database))?;
        metastore
            .table(database.as_str(), table.name.as_str())
            .cloned()
            .ok_or_else(|| fe::unknown_table(database, &table.name))
    }

    /// The backends that answer. Storage that hangs holds up only those who ask.
    async fn alive(&self) -> Result<Vec<BackendId>, Error> {
        let backends = self.inner.backends.clone();
        blocking(move || backends.alive()).await
    }
}

fn refuse_locked(table: &Table) -> Result<(), Error> {
    if table.locked {
        return Err(Error::new(
            ErrorKind::ObjectInUse,
            format!("Table {}'s state is not NORMAL: RESTORE", table.name),
        )
        .hint("Wait until SHOW RESTORE shows the job FINISHED, or CANCEL RESTORE."));
    }
    Ok(())
}

#[async_trait]
impl Cluster for EmbeddedCluster {
    fn name(&self) -> &ClusterName {
        &self.inner.name
    }

    fn kind(&self) -> ClusterKind {
        ClusterKind::Embedded
    }

    fn role(&self) -> ClusterRole<'_> {
        ClusterRole::Managed(self)
    }

    fn catalog(&self) -> Arc<dyn CatalogProvider> {
        let (metastore, guard) = self.inner.frontend.read();
        Arc::new(MetastoreCatalog {
            metastore,
            backends: self.inner.backends.clone(),
            guard: Arc::new(guard),
        })
    }

    fn names_version(&self) -> Option<u64> {
        Some(self.inner.frontend.metastore().names_version)
    }

    fn table_of(&self, provider: &dyn TableProvider) -> Option<Qualified<TableName>> {
        let table = scan::table_of(provider)?;
        Some(Qualified {
            database: Some(table.database.clone()),
            name: table.name.clone(),
        })
    }

    fn column_length(&self, provider: &dyn TableProvider, column: &str) -> Option<u32> {
        let (_, column) = scan::table_of(provider)?.schema.column(column)?;
        column.column_type.length()
    }
}

#[async_trait]
impl Tables for EmbeddedCluster {
    fn id(&self) -> &str {
        self.inner.backends.cluster()
    }

    async fn databases(&self) -> Result<Vec<DatabaseInfo>, Error> {
        let table = |t: &Arc<Table>| TableInfo {
            id: t.id,
            name: t.name.clone(),
            schema: t.schema.clone(),
            state: if t.locked { "RESTORE" } else { "NORMAL" },
            replication_num: t.replication_num,
            created_at: t.created_at,
            partitions: t.partitions.iter().map(|p| partition_info(p)).collect(),
        };
        let metastore = self.inner.frontend.metastore();
        let databases = metastore.databases.values().map(|d| DatabaseInfo {
            id: d.id,
            name: d.name.clone(),
            created_at: d.created_at,
            tables: d.tables.values().map(table).collect(),
            views: d.views.values().map(|v| view_info(v)).collect(),
        });
        Ok(databases.collect())
    }

    fn backup_preview(
        &self,
        database: &DatabaseName,
        request: &BackupRequest,
    ) -> Result<BackupPlan, Error> {
        backup::planned(&self.inner.frontend.metastore(), database, request)
    }

    async fn restore_preview(
        &self,
        database: &DatabaseName,
        request: &RestoreRequest,
        manifest: &Manifest,
    ) -> Result<Vec<Result<RestorePlan, Error>>, Error> {
        self.preview_restore(database, request, manifest).await
    }

    async fn nodes(&self) -> Result<Nodes, Error> {
        let metastore = self.inner.frontend.metastore();
        let brokers = self.inner.frontend.query(define::brokers).await?;
        let mut load: BTreeMap<BackendId, (u64, u64)> = BTreeMap::new();
        for tablet in metastore
            .tables()
            .flat_map(|t| &t.partitions)
            .flat_map(|p| &p.tablets)
        {
            for backend in &tablet.replicas {
                let entry = load.entry(*backend).or_default();
                entry.0 += 1;
                entry.1 += Volume::of(&tablet.files).bytes;
            }
        }
        let backends = self.inner.backends.iter().map(|(id, path)| {
            let (tablets, bytes) = load.get(&id).copied().unwrap_or_default();
            BackendInfo {
                id,
                path: path.display().to_string(),
                tablets,
                bytes,
            }
        });
        let frontend = FrontendInfo {
            name: "starkeep".into(),
            host: "127.0.0.1".into(),
            is_leader: true,
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.inner.started_at,
        };
        Ok(Nodes {
            frontends: vec![frontend],
            backends: backends.collect(),
            brokers,
        })
    }

    async fn silent_backends(&self) -> Result<BTreeMap<BackendId, Error>, Error> {
        let backends = self.inner.backends.clone();
        blocking(move || {
            Ok(backends
                .iter()
                .filter_map(|(id, _)| Some((id, backends.check(id).err()?)))
                .collect())
        })
        .await
    }

    async fn backends_for(&self, definition: &Definition) -> Result<Vec<BackendId>, Error> {
        match definition {
            Definition::CreateTable { .. } | Definition::AddPartition { .. } => self.alive().await,
            _ => Ok(Vec::new()),
        }
    }

    async fn define(
        &self,
        definition: &Definition,
        on: Vec<BackendId>,
    ) -> Result<Vec<String>, Error> {
        self.carry_out(definition, on).await
    }

    async fn tidy_up(&self) {
        self.remove_superfluous().await;
    }

    async fn write(
        &self,
        table: &Qualified<TableName>,
        write: Write,
        lock_timeout: Option<Duration>,
        state: &SessionState,
    ) -> Result<u64, Error> {
        self.change_rows(table, write, lock_timeout, state).await
    }

    async fn check_backup(
        &self,
        database: &DatabaseName,
        objects: Option<&[ObjectRef]>,
    ) -> Result<BackupRequest, Error> {
        backup::check(&self.inner.frontend.metastore(), database, objects)
    }

    async fn prove(
        &self,
        database: &DatabaseName,
        manifest: &Manifest,
        go_on: GoOn,
    ) -> Result<Proof, Error> {
        self.prove_restored(database, manifest, go_on).await
    }

    fn default_replication(&self) -> u16 {
        self.inner.backends.len().clamp(1, 3) as u16
    }

    fn check_restore(&self, database: &DatabaseName) -> Result<(), Error> {
        define::check_database_name(database)
    }
}

#[async_trait]
impl JobSteps for EmbeddedCluster {
    async fn plan_backup(&self, job: &Job) -> Result<BackupPlan, StepError> {
        Ok(self.backup_plan(job).await?)
    }

    async fn snapshot(&self, job: &Job, tablet: &PlannedTablet) -> Result<BackendId, StepError> {
        Ok(self.link(job, tablet).await?)
    }

    async fn plan_upload(
        &self,
        _job: &Job,
        plan: &BackupPlan,
    ) -> Result<Vec<TransferTask>, StepError> {
        let with_files = plan.tablets().filter(|t| !t.files.is_empty());
        Ok(transfer_tasks(
            with_files.map(|t| (t.assignment(), Volume::of(&t.files))),
        ))
    }

    async fn upload(
        &self,
        job: &Job,
        tablet: &PlannedTablet,
        repository: &Repository,
        progress: ReportProgress,
    ) -> Result<Transfer, StepError> {
        self.upload_tablet(job, tablet, repository, progress).await
    }

    async fn save_meta(
        &self,
        job: &Job,
        plan: &BackupPlan,
        repository: &Repository,
    ) -> Result<(ManifestDigest, Timestamp), StepError> {
        // Here it can still be cancelled.
        self.wait_for_prune(plan, repository).await?;
        self.fill_gaps(job, plan, repository).await?;
        let saved_at = self.inner.env.now();
        let (_, digest) =
            crate::repository::Manifest::of(job, plan, self.id(), saved_at)?.encode()?;
        Ok((digest, saved_at))
    }

    async fn publish(
        &self,
        job: &Job,
        plan: &BackupPlan,
        saved_at: Timestamp,
        repository: &Repository,
    ) -> Result<Placed, StepError> {
        self.wait_for_prune(plan, repository).await?;
        let placed = self.commit_backup(job, plan, saved_at, repository).await?;
        if let Placed::Ours = placed {
            // A prune whose mark comes after this reads the manifest. One whose mark was there may
            // have deleted what was there a moment ago: then it is brought again, under the same
            // manifest.
            self.wait_for_prune(plan, repository).await?;
            self.fill_gaps(job, plan, repository).await?;
        }
        Ok(placed)
    }

    async fn plan_restore(
        &self,
        job: &Job,
        repository: &Repository,
    ) -> Result<RestorePlan, StepError> {
        self.restore_plan(job, repository).await
    }

    async fn prepare(&self, _job: &Job, tablet: &TargetTablet) -> Result<(), StepError> {
        Ok(self.make_tablet(tablet).await?)
    }

    async fn plan_download(
        &self,
        _job: &Job,
        plan: &RestorePlan,
    ) -> Result<Vec<TransferTask>, StepError> {
        let with_files = plan.tablets().filter(|t| !t.files.is_empty());
        Ok(transfer_tasks(
            with_files.map(|t| (t.assignment(), Volume::of(&t.files))),
        ))
    }

    async fn download(
        &self,
        _job: &Job,
        tablet: &TargetTablet,
        repository: &Repository,
        progress: ReportProgress,
    ) -> Result<Transfer, StepError> {
        self.download_tablet(tablet, repository, progress).await
    }

    async fn verify(&self, _job: &Job, plan: &RestorePlan) -> Result<(), StepError> {
        Ok(self.verify_tablets(plan).await?)
    }

    async fn swap(&self, job: &Job, plan: &RestorePlan) -> Result<Swap, StepError> {
        let (uid, plan, at) = (job.spec.uid.clone(), plan.clone(), self.inner.env.now());
        let database = job.spec.target()?.database.clone();
        let swapped = self
            .inner
            .frontend
            .change(move |t, metastore| {
                let touched = fe::apply_swap(t, metastore, &database, uid.as_str(), &plan, at)?;
                Ok(((), touched))
            })
            .await;
        match swapped.map_err(StepError::from) {
            Ok(()) => Ok(Swap::Done),
            // The metastore itself refused, which rolls everything back; it would do so again.
            Err(StepError::Fatal(error)) => Ok(Swap::Refused(error)),
            Err(retry) => Err(retry),
        }
    }

    async fn unlock(&self, job: &Job) -> Result<(), Error> {
        let uid = String::from(job.spec.uid.clone());
        let unlocked = self.inner.frontend.change(move |t, _| {
            t.execute("DELETE FROM restore_locks WHERE uid = ?1", [&uid])
                .map_err(crate::sqlite::sql_error)?;
            Ok(((), Vec::new()))
        });
        unlocked.await
    }

    async fn release(&self, job: &Job) -> Result<(), StepError> {
        self.let_go(job).await?;
        self.remove_superfluous().await;
        Ok(())
    }
}

/// Transfers numbered from 1: apart from the tablets' ids, which begin at 10001.
fn transfer_tasks(
    work: impl Iterator<Item = (crate::job::Assignment, Volume)>,
) -> Vec<TransferTask> {
    work.enumerate()
        .map(|(i, (assignment, planned))| TransferTask {
            task_id: TaskId(i as i64 + 1),
            assignment,
            planned,
        })
        .collect()
}
