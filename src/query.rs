//! Who answers: DataFusion, over the cluster's tables and the system tables.
//!
//! A statement is planned against a [`AsOf`]: one instant of the cluster's catalog with schema
//! `system` beside it. SHOW is no exception: each is a file in `sql/show/`, a query over
//! `system.*`.

mod any_array;
mod cached_plan;
mod catalogs;
mod describe;
mod explain;
mod fence;
mod functions;
mod growth;
mod job_plan;
mod lookup;
mod meaning;
mod opaque;
mod plan;
mod planner;
mod pool;
mod position;
mod reads;
mod rewrite;
mod series;
mod share;
mod show;
mod stack;
mod stop;
mod system;
mod system_schema;
mod tables;
mod views;
mod width;

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};
use datafusion::common::DataFusionError;
use datafusion::common::config::Dialect;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{
    FunctionRegistry, SendableRecordBatchStream, SessionState, SessionStateBuilder,
};
use datafusion::functions_table::generate_series::GenerateSeriesFunc;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use self::any_array::ANY_ARRAY;
pub use self::cached_plan::{CachedPlan, PlanningContext};
use self::catalogs::{CatalogSchema, WithCatalogs};
pub use self::describe::{described_as, view_schema};
pub use self::explain::Explain;
pub use self::functions::Zone;
pub use self::functions::{SERVER_VERSION, SessionFacts, server_version_text, time_zone_name};
pub use self::job_plan::{JobStep, Severity, job_plan, job_plan_schema};
pub use self::lookup::Lookup;
pub(crate) use self::meaning::text;
pub use self::plan::{
    described, parameter_types, plan_sql, plan_statement, refuse_unknown_sql, same_shape,
    with_values,
};
pub use self::position::with_position;
pub use self::reads::{subqueries_of, tables_of};
pub use self::rewrite::to_datafusion_dialect;
pub use self::show::{filtered, show_parameters, show_query};
pub use self::stack::keep_stack_left;
pub use self::system::{SessionRow, Sources};
use self::views::{Nesting, PlannedSchema, ViewPlanner};
use crate::catalog::Catalogs;
use crate::cluster::{Cluster, task_context};
use crate::error::{Error, from_datafusion};

/// The schema of the system tables, in every cluster.
pub const SYSTEM_SCHEMA: &str = "system";

/// Builds the state that statements are planned and run in.
///
/// Queries run on a runtime of their own: an operator that computes for seconds without a pause
/// holds up other queries, but no connection, no cancellation and no health check.
#[derive(Debug)]
pub struct QueryEngine {
    base: SessionState,
    sources: Arc<Sources>,
    value_bytes_max: usize,
    statement_bytes_max: usize,
    workers: Option<Runtime>,
}

/// Batches between a query and the connection that takes its rows.
const CHANNEL_BATCHES: usize = 2;
/// Deep plans recurse.
const STACK_BYTES: usize = 8 << 20;
/// How much nicer the threads of queries are than those that answer short statements: a computation
/// that never pauses has a processor for as long as nobody else wants it, and gives it up as soon
/// as a message comes.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Lowers the priority of the calling thread. Only Linux has priorities of threads; elsewhere they
/// are those of the process.
fn be_nice() {
    // Not lower than that of who starts it, which may be such a thread itself.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(%error, "could not lower the priority of a query thread");
    }
}

/// Limits of queries.
#[derive(Clone, Debug)]
pub struct QuerySettings {
    /// Memory of all queries together, in bytes; sorts and groupings spill beyond it.
    pub memory_bytes_max: usize,
    /// Memory of one of them, bytes.
    pub statement_bytes_max: usize,
    /// The longest value that an expression makes, bytes.
    pub value_bytes_max: usize,
    /// Where sorts and groupings spill to.
    pub spill_dir: PathBuf,
    /// What all of them may spill, bytes.
    pub spill_bytes_max: u64,
    /// How many partitions a query is cut into.
    pub parallelism: usize,
}

/// What a client is told whose statement the engine panics at: it is the statement that this engine
/// cannot carry out.
fn died() -> Error {
    Error::unsupported("the statement meets a fault of the query engine, and")
        .hint("Say it in another way. The server's log has the fault; please report it with the statement.")
}

/// Where queries spill to. What a killed server left there is nobody's: two servers never share a
/// data directory, and each has a directory of its own below this one.
fn spill(settings: &QuerySettings) -> Result<DiskManagerBuilder, Error> {
    let dir = &settings.spill_dir;
    std::fs::create_dir_all(dir)
        .map_err(|e| Error::io("create the directory for spilled rows", dir, e))?;
    let left = std::fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))?;
    for entry in left
        .filter_map(Result::ok)
        .filter(|e| e.file_name().to_string_lossy().starts_with(SPILL_PREFIX))
    {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "could not remove what a query has spilled");
        }
    }
    let mode = DiskManagerMode::Directories(vec![dir.clone()]);
    Ok(DiskManagerBuilder::default()
        .with_mode(mode)
        .with_max_temp_directory_size(settings.spill_bytes_max))
}

/// How DataFusion's directories of spilled rows begin.
const SPILL_PREFIX: &str = "datafusion-";

/// One instant of everything a statement can name. Data files of the cluster stay readable while it
/// is held.
#[derive(Clone, Debug)]
pub struct AsOf {
    catalog: Arc<ViewCatalog>,
    name: String,
    /// PostgreSQL's catalogs, for the statements that name them beside other tables.
    catalogs: Option<Catalogs>,
}

impl AsOf {
    /// The same with PostgreSQL's catalogs as tables.
    pub fn with_catalogs(mut self, catalogs: Catalogs) -> Self {
        self.catalogs = Some(catalogs);
        self
    }
}

impl QueryEngine {
    /// An engine over these sources.
    pub fn new(sources: Arc<Sources>, settings: QuerySettings) -> Result<Self, Error> {
        let pool = pool::SharedMemory::new(settings.memory_bytes_max);
        let runtime: Arc<RuntimeEnv> = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(spill(&settings)?)
            .build_arc()
            .map_err(from_datafusion)?;
        let mut config = SessionConfig::new()
            .with_target_partitions(settings.parallelism)
            .with_create_default_catalog_and_schema(false);
        let options = config.options_mut();
        options.sql_parser.dialect = Dialect::PostgreSQL;
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.execution.time_zone = Some("UTC".into());
        let base = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .build();
        let base = opaque::hiding(base);
        let base = system_schema::ordering(base);
        let mut base = stop::asking(base);
        base.register_function_rewrite(Arc::new(growth::LimitGrowth::new()))
            .map_err(from_datafusion)?;
        base.register_expr_planner(Arc::new(planner::UntypedLiterals))
            .map_err(from_datafusion)?;
        meaning::add_to(&mut base).map_err(from_datafusion)?;
        base.register_udtf("generate_series", Arc::new(series::Series));
        base.register_udtf(series::BIG_SERIES, Arc::new(GenerateSeriesFunc {}));
        let workers = tokio::runtime::Builder::new_multi_thread()
            // Some more than there are parts of a query, so that one that never pauses leaves room
            // for others.
            .worker_threads(settings.parallelism.max(1) * 2 + 2)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(be_nice)
            .enable_all()
            .build()
            .map_err(|e| Error::internal(format!("the query threads could not be started: {e}")))?;
        let (value_bytes_max, statement_bytes_max) =
            (settings.value_bytes_max, settings.statement_bytes_max);
        Ok(Self {
            base,
            sources,
            value_bytes_max,
            statement_bytes_max,
            workers: Some(workers),
        })
    }

    /// Runs work where queries run.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.workers
            .as_ref()
            .expect("there until the engine is dropped")
            .spawn(work)
    }

    /// How many pieces of work are under way there, or were given up and have not noticed yet.
    pub fn running(&self) -> usize {
        self.workers
            .as_ref()
            .map_or(0, |workers| workers.metrics().num_alive_tasks())
    }

    /// Runs work where queries run and waits for it; dropping the wait aborts the work at its next
    /// pause.
    pub async fn offload<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let task = AbortOnDropHandle::new(self.spawn(work));
        task.await.map_err(|_| died())
    }

    /// Runs a plan; its rows come through a short channel, and dropping the stream ends the query.
    pub async fn run(
        &self,
        state: &Arc<SessionState>,
        plan: &LogicalPlan,
    ) -> Result<SendableRecordBatchStream, Error> {
        let plan = plan.clone();
        let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES);
        let (opened, opening) = oneshot::channel();
        // Cancelled when the rows are dropped, or when this wait for them is.
        let stop = CancellationToken::new();
        let state = stop::until(&stop, state);
        let (stopped, stop) = (stop.clone(), stop.drop_guard());
        let value_bytes_max = self.value_bytes_max;
        let task = AbortOnDropHandle::new(self.spawn(async move {
            let (state, physical) = planned(state, &plan, value_bytes_max).await;
            let stoppable = physical.and_then(|p| stop::stoppable(p, &stopped));
            let stream = stoppable
                .and_then(|p| datafusion::physical_plan::execute_stream(p, task_context(&state)));
            match stream {
                Ok(mut stream) => {
                    let _ = opened.send(Ok(stream.schema()));
                    while let Some(batch) = stream.next().await {
                        if sender.send(batch).await.is_err() {
                            break;
                        }
                    }
                }
                Err(e) => drop(opened.send(Err(e))),
            }
        }));
        let schema = opening
            .await
            .map_err(|_| died())?
            .map_err(from_datafusion)?;
        let rows = futures::stream::unfold(Some((receiver, task, stop)), |state| async move {
            let (mut receiver, task, stop) = state?;
            match receiver.recv().await {
                Some(batch) => Some((batch, Some((receiver, task, stop)))),
                // The end of the channel is the end of the rows only if the query has ended as it
                // should.
                None => match task.await {
                    Ok(()) => None,
                    Err(_) => Some((Err(DataFusionError::External(Box::new(died()))), None)),
                },
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// Takes some of the memory of all queries for as long as the reservation is held; 53200 if
    /// there is not enough left.
    pub fn reserve(&self, what: &str, bytes: usize) -> Result<MemoryReservation, Error> {
        let reservation = MemoryConsumer::new(what).register(&self.base.runtime_env().memory_pool);
        reservation.try_grow(bytes).map_err(from_datafusion)?;
        Ok(reservation)
    }

    /// Memory for one statement: taken as it grows, up to the share of one.
    pub fn statement_memory(&self, what: &str) -> MemoryReservation {
        MemoryConsumer::new(what).register(&self.share())
    }

    /// The share of one statement in the memory of all.
    fn share(&self) -> Arc<dyn MemoryPool> {
        Arc::new(share::Share::new(
            self.base.runtime_env().memory_pool.clone(),
            self.statement_bytes_max,
        ))
    }

    /// Takes memory that is too little to be refused.
    pub fn take(&self, what: &str, bytes: usize) -> MemoryReservation {
        let reservation = MemoryConsumer::new(what).register(&self.base.runtime_env().memory_pool);
        reservation.grow(bytes);
        reservation
    }

    /// The system tables' sources.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Everything a statement of this cluster can name, now, as this user sees it.
    pub fn as_of(&self, cluster: &Arc<dyn Cluster>, user: &str) -> AsOf {
        let system = system_schema::SystemSchema::new(self.sources.clone(), cluster.clone(), user);
        let catalog = ViewCatalog {
            user: cluster.catalog(),
            system: Arc::new(system),
        };
        AsOf {
            catalog: Arc::new(catalog),
            name: cluster.name().to_string(),
            catalogs: None,
        }
    }

    /// The state to plan and run statements of a session in, as of an instant.
    pub fn state(&self, as_of: &AsOf, facts: &SessionFacts) -> Result<Arc<SessionState>, Error> {
        let mut state =
            session_state(&self.base, as_of, facts, Nesting::default()).map_err(from_datafusion)?;
        let share = self.share();
        let memory = MemoryConsumer::new("values").register(&share);
        let limits = growth::ValueLimits {
            value_bytes_max: self.value_bytes_max,
            memory,
        };
        let limits = Arc::new(limits);
        for function in growth::limited_functions(&state, &limits) {
            state
                .register_udf(Arc::new(function))
                .map_err(from_datafusion)?;
        }
        state
            .config_mut()
            .options_mut()
            .extensions
            .insert(growth::Limits(limits));
        let all = self.base.runtime_env();
        state.config_mut().set_extension(Arc::new(RuntimeEnv {
            memory_pool: share,
            ..(**all).clone()
        }));
        Ok(Arc::new(state))
    }
}

/// The physical plan, and the state to run it in: queries with long values work in smaller batches.
async fn planned(
    mut state: SessionState,
    plan: &LogicalPlan,
    value_bytes_max: usize,
) -> (
    SessionState,
    datafusion::common::Result<Arc<dyn ExecutionPlan>>,
) {
    let optimized = state.optimize(plan).and_then(|plan| {
        let rows = width::rows_of_batch(&plan, value_bytes_max)?;
        Ok((plan, rows))
    });
    let (optimized, rows) = match optimized {
        Ok(optimized) => optimized,
        Err(error) => return (state, Err(error)),
    };
    if let Some(rows) = rows {
        let config = state.config().clone();
        let rows = config.batch_size().min(rows);
        *state.config_mut() = config.with_batch_size(rows);
    }
    let physical = state
        .query_planner()
        .create_physical_plan(&optimized, &state)
        .await;
    (state, physical)
}

/// The state to plan statements in; `nesting` is which views stand around the text that is planned.
fn session_state(
    base: &SessionState,
    as_of: &AsOf,
    facts: &SessionFacts,
    nesting: Nesting,
) -> datafusion::common::Result<SessionState> {
    let mut state = base.clone();
    let config = state.config_mut();
    let options = config.options_mut();
    options.catalog.default_catalog = as_of.name.clone();
    options.catalog.default_schema = facts
        .current_schema
        .clone()
        .unwrap_or_else(|| SYSTEM_SCHEMA.into());
    options.execution.time_zone = Some(facts.time_zone.clone());
    let planner = Arc::new(ViewPlanner {
        base: base.clone(),
        facts: facts.clone(),
        nesting,
    });
    state.register_catalog_list(Arc::new(PlannedView {
        as_of: as_of.clone(),
        planner,
    }));
    for function in functions::functions(facts) {
        state.register_udf(Arc::new(function))?;
    }
    state.mark_start_execution();
    Ok(state)
}

impl Drop for QueryEngine {
    fn drop(&mut self) {
        // A runtime must not wait for its threads inside another one.
        if let Some(workers) = self.workers.take() {
            workers.shutdown_background();
        }
    }
}

/// The catalog as of an instant, in which SQL views are planned.
#[derive(Clone, Debug)]
struct PlannedView {
    as_of: AsOf,
    planner: Arc<ViewPlanner>,
}

impl CatalogProviderList for PlannedView {
    fn register_catalog(
        &self,
        _: String,
        _: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![self.as_of.name.clone()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == self.as_of.name).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

#[derive(Debug)]
struct ViewCatalog {
    user: Arc<dyn CatalogProvider>,
    system: Arc<dyn SchemaProvider>,
}

impl CatalogProvider for PlannedView {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.as_of.catalog.user.schema_names();
        names.push(SYSTEM_SCHEMA.into());
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == SYSTEM_SCHEMA {
            return Some(self.with_catalogs(self.as_of.catalog.system.clone()));
        }
        if let ("pg_catalog" | "information_schema", Some(catalogs)) = (name, &self.as_of.catalogs)
        {
            return Some(Arc::new(CatalogSchema {
                catalogs: catalogs.clone(),
                name: name.to_owned(),
            }));
        }
        let inner = self.as_of.catalog.user.schema(name)?;
        Some(self.with_catalogs(Arc::new(PlannedSchema {
            inner,
            as_of: self.as_of.clone(),
            planner: self.planner.clone(),
        })))
    }
}

impl PlannedView {
    /// A schema in which bare names of PostgreSQL's catalogs are found, too, if the statement names
    /// any.
    fn with_catalogs(&self, schema: Arc<dyn SchemaProvider>) -> Arc<dyn SchemaProvider> {
        match &self.as_of.catalogs {
            Some(catalogs) => Arc::new(WithCatalogs {
                schema,
                catalogs: CatalogSchema {
                    catalogs: catalogs.clone(),
                    name: "pg_catalog".into(),
                },
            }),
            None => schema,
        }
    }
}
