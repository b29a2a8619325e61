//! Who answers: DataFusion, over the cluster's tables and the system tables.
//!
//! A statement is planned against a [`View`]: one instant of the cluster's catalog with schema `system` beside it. SHOW is no
//! exception: each is a file in `sql/show/`, a query over `system.*`.

mod any_array;
mod catalogs;
mod functions;
mod lookup;
mod planner;
mod show;
mod stop;
mod system;
mod tables;
mod views;

use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};
use datafusion::common::DataFusionError;
use datafusion::common::config::Dialect;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{FunctionRegistry, SendableRecordBatchStream, SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use self::any_array::ANY_ARRAY;
use self::catalogs::{CatalogSchema, WithCatalogs};
pub use self::functions::Zone;
pub use self::functions::{SERVER_VERSION, SessionFacts, server_version_text, time_zone_name};
pub use self::lookup::{Lookup, Operand};
pub use self::show::{show_parameters, show_query};
pub use self::system::{SessionRow, Sources};
use self::views::{Nesting, PlannedSchema, ViewPlanner};
use crate::catalog::Catalogs;
use crate::cluster::Cluster;
use crate::error::{Error, from_datafusion};

/// The schema of the system tables, in every cluster.
pub const SYSTEM_SCHEMA: &str = "system";

/// Builds the state that statements are planned and run in.
///
/// Queries run on a runtime of their own: an operator that computes for seconds without a pause holds up other queries, but no
/// connection, no cancellation and no health check.
#[derive(Debug)]
pub struct QueryEngine {
    base: SessionState,
    sources: Arc<Sources>,
    workers: Option<Runtime>,
}

/// Batches between a query and the connection that takes its rows.
const CHANNEL_BATCHES: usize = 2;
/// Deep plans recurse.
const STACK_BYTES: usize = 8 << 20;

/// Limits of queries.
#[derive(Clone, Copy, Debug)]
pub struct QuerySettings {
    /// Memory of all queries together, in bytes; sorts and groupings spill beyond it.
    pub memory_bytes_max: usize,
    /// How many partitions a query is cut into.
    pub parallelism: usize,
}

/// One instant of everything a statement can name. Data files of the cluster stay readable while it is held.
#[derive(Clone, Debug)]
pub struct View {
    catalog: Arc<ViewCatalog>,
    name: String,
    /// PostgreSQL's catalogs, for the statements that name them beside other tables.
    catalogs: Option<Catalogs>,
}

impl View {
    /// The same with PostgreSQL's catalogs as tables.
    pub fn with_catalogs(mut self, catalogs: Catalogs) -> Self {
        self.catalogs = Some(catalogs);
        self
    }
}

impl QueryEngine {
    /// An engine over these sources.
    pub fn new(sources: Arc<Sources>, settings: QuerySettings) -> Result<Self, Error> {
        let pool = TrackConsumersPool::new(FairSpillPool::new(settings.memory_bytes_max), std::num::NonZeroUsize::MIN);
        let runtime: Arc<RuntimeEnv> =
            RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc().map_err(from_datafusion)?;
        let mut config =
            SessionConfig::new().with_target_partitions(settings.parallelism).with_create_default_catalog_and_schema(false);
        let options = config.options_mut();
        options.sql_parser.dialect = Dialect::PostgreSQL;
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.execution.time_zone = Some("UTC".into());
        let base = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features().build();
        let mut base = stop::asking(base);
        base.register_expr_planner(Arc::new(planner::UntypedLiterals)).map_err(from_datafusion)?;
        let workers = tokio::runtime::Builder::new_multi_thread()
            // Some more than there are parts of a query, so that one that never pauses leaves room for others.
            .worker_threads(settings.parallelism.max(1) * 2 + 2)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|e| Error::internal(format!("the query threads could not be started: {e}")))?;
        Ok(Self { base, sources, workers: Some(workers) })
    }

    /// Runs work where queries run.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.workers.as_ref().expect("there until the engine is dropped").spawn(work)
    }

    /// How many pieces of work are under way there, or were given up and have not noticed yet.
    pub fn running(&self) -> usize {
        self.workers.as_ref().map_or(0, |workers| workers.metrics().num_alive_tasks())
    }

    /// Runs work where queries run and waits for it; dropping the wait aborts the work at its next pause.
    pub async fn offload<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Error> {
        let task = AbortOnDropHandle::new(self.spawn(work));
        task.await.map_err(|e| Error::internal(format!("a query died: {e}")))
    }

    /// Runs a plan; its rows come through a short channel, and dropping the stream ends the query.
    pub async fn run(&self, state: &Arc<SessionState>, plan: &LogicalPlan) -> Result<SendableRecordBatchStream, Error> {
        let plan = plan.clone();
        let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES);
        let (opened, opening) = oneshot::channel();
        // Cancelled when the rows are dropped, or when this wait for them is.
        let stop = CancellationToken::new();
        let state = stop::until(&stop, state);
        let (stopped, stop) = (stop.clone(), stop.drop_guard());
        let task = AbortOnDropHandle::new(self.spawn(async move {
            let physical = state.create_physical_plan(&plan).await;
            let stoppable = physical.and_then(|p| stop::stoppable(p, &stopped));
            let stream = stoppable.and_then(|p| datafusion::physical_plan::execute_stream(p, state.task_ctx()));
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
        let died = |_| Error::internal("a query died");
        let schema = opening.await.map_err(died)?.map_err(from_datafusion)?;
        let rows = futures::stream::unfold(Some((receiver, task, stop)), |state| async move {
            let (mut receiver, task, stop) = state?;
            match receiver.recv().await {
                Some(batch) => Some((batch, Some((receiver, task, stop)))),
                // The end of the channel is the end of the rows only if the query has ended as it should.
                None => match task.await {
                    Ok(()) => None,
                    Err(e) => Some((Err(DataFusionError::Internal(format!("a query died: {e}"))), None)),
                },
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// The system tables' sources.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Everything a statement of this cluster can name, now, as this user sees it.
    pub fn view(&self, cluster: &Arc<dyn Cluster>, user: &str) -> View {
        let system = system::SystemSchema::new(self.sources.clone(), cluster.clone(), user);
        let catalog = ViewCatalog { user: cluster.catalog(), system: Arc::new(system) };
        View { catalog: Arc::new(catalog), name: cluster.name().to_string(), catalogs: None }
    }

    /// The state to plan and run statements of a session in, against a view.
    pub fn state(&self, view: &View, facts: &SessionFacts) -> Result<Arc<SessionState>, Error> {
        session_state(&self.base, view, facts, Nesting::default()).map(Arc::new).map_err(from_datafusion)
    }
}

/// The state to plan statements in; `nesting` is which views stand around the text that is planned.
fn session_state(
    base: &SessionState,
    view: &View,
    facts: &SessionFacts,
    nesting: Nesting,
) -> datafusion::common::Result<SessionState> {
    let mut state = base.clone();
    let config = state.config_mut();
    let options = config.options_mut();
    options.catalog.default_catalog = view.name.clone();
    options.catalog.default_schema = facts.current_schema.clone().unwrap_or_else(|| SYSTEM_SCHEMA.into());
    options.execution.time_zone = Some(facts.time_zone.clone());
    let planner = Arc::new(ViewPlanner { base: base.clone(), facts: facts.clone(), nesting });
    state.register_catalog_list(Arc::new(PlannedView { view: view.clone(), planner }));
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

/// A view of the catalog in which SQL views are planned.
#[derive(Clone, Debug)]
struct PlannedView {
    view: View,
    planner: Arc<ViewPlanner>,
}

impl CatalogProviderList for PlannedView {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![self.view.name.clone()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == self.view.name).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

#[derive(Debug)]
struct ViewCatalog {
    user: Arc<dyn CatalogProvider>,
    system: Arc<dyn SchemaProvider>,
}

impl CatalogProvider for PlannedView {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.view.catalog.user.schema_names();
        names.push(SYSTEM_SCHEMA.into());
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == SYSTEM_SCHEMA {
            return Some(self.with_catalogs(self.view.catalog.system.clone()));
        }
        if let ("pg_catalog" | "information_schema", Some(catalogs)) = (name, &self.view.catalogs) {
            return Some(Arc::new(CatalogSchema { catalogs: catalogs.clone(), name: name.to_owned() }));
        }
        let inner = self.view.catalog.user.schema(name)?;
        Some(self.with_catalogs(Arc::new(PlannedSchema { inner, view: self.view.clone(), planner: self.planner.clone() })))
    }
}

impl PlannedView {
    /// A schema in which bare names of PostgreSQL's catalogs are found, too, if the statement names any.
    fn with_catalogs(&self, schema: Arc<dyn SchemaProvider>) -> Arc<dyn SchemaProvider> {
        match &self.view.catalogs {
            Some(catalogs) => {
                Arc::new(WithCatalogs { schema, catalogs: CatalogSchema { catalogs: catalogs.clone(), name: "pg_catalog".into() } })
            }
            None => schema,
        }
    }
}
