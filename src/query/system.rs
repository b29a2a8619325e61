//! Schema `system`: tables whose rows are gathered while a plan runs.

mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::{Column, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::TryStreamExt;
use parking_lot::RwLock;

pub(super) use self::row::{
    Bool, ColumnValue, Double, Int, SystemRow, Text, Texts, Time, column_name, system_row,
};
use super::tables::{self, SystemTable};
use crate::cluster::{Cluster, Clusters};
use crate::env::Env;
use crate::error::Error;
use crate::names::Timestamp;
use crate::progress::Progress;
use crate::repository::OpenRepository;
use crate::store::Store;

/// Where the system tables get their rows.
#[derive(Debug)]
pub struct Sources {
    /// Jobs, repositories, users.
    pub store: Arc<dyn Store>,
    /// What running jobs say about themselves.
    pub progress: Arc<Progress>,
    pub clusters: Arc<Clusters>,
    /// Opens repositories, to list what is in them.
    pub open: Arc<dyn OpenRepository>,
    pub env: Env,
    /// Name, value and meaning of each setting.
    pub settings: Vec<(String, String, String)>,
    /// Open sessions, by number.
    pub sessions: RwLock<BTreeMap<i32, SessionRow>>,
}

/// A row of `system.sessions`.
#[derive(Clone, Debug)]
pub struct SessionRow {
    pub user: String,
    pub cluster: String,
    pub client_addr: String,
    /// What the client calls itself.
    pub application_name: Option<String>,
    /// Since when.
    pub started_at: Timestamp,
    /// What it does: `idle` or `active`.
    pub active: bool,
    /// Whether it is inside a transaction block.
    pub in_block: bool,
    /// When the last statement began.
    pub query_started_at: Option<Timestamp>,
    /// The last statement, without secrets.
    pub statement: Option<String>,
}

/// Equalities of the query with constants, and the columns that it reads: a table may gather less.
/// DataFusion filters again.
#[derive(Clone, Debug, Default)]
pub(super) struct ScanRequest {
    equal: BTreeMap<String, ScalarValue>,
    columns: BTreeSet<String>,
}

impl ScanRequest {
    fn of(filters: &[Expr], columns: BTreeSet<String>) -> Self {
        let mut wanted = Self {
            columns,
            ..Self::default()
        };
        for filter in filters {
            // `WHERE flag` is what becomes of `WHERE flag = true`.
            if let Expr::Column(Column { name, .. }) = filter {
                wanted
                    .equal
                    .insert(name.clone(), ScalarValue::Boolean(Some(true)));
            }
            if let Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Eq,
                right,
            }) = filter
            {
                match (&**left, &**right) {
                    (Expr::Column(Column { name, .. }), Expr::Literal(value, _))
                    | (Expr::Literal(value, _), Expr::Column(Column { name, .. })) => {
                        wanted.equal.insert(name.clone(), value.clone());
                    }
                    _ => {}
                }
            }
        }
        wanted
    }

    /// These equalities and columns.
    pub fn exactly(equal: BTreeMap<String, ScalarValue>, columns: BTreeSet<String>) -> Self {
        Self { equal, columns }
    }

    /// Whether the query reads this column.
    pub fn needs(&self, column: &str) -> bool {
        self.columns.contains(column)
    }

    pub fn text(&self, column: &str) -> Option<String> {
        self.equal
            .get(column)?
            .try_as_str()
            .flatten()
            .map(str::to_owned)
    }

    pub fn is_true(&self, column: &str) -> bool {
        matches!(
            self.equal.get(column),
            Some(ScalarValue::Boolean(Some(true)))
        )
    }

    pub fn int(&self, column: &str) -> Option<i64> {
        match self.equal.get(column)? {
            ScalarValue::Int64(v) => *v,
            _ => None,
        }
    }
}

/// What a table is scanned for, and from which point of view.
#[derive(Clone, Debug)]
pub(super) struct ScanContext {
    pub sources: Arc<Sources>,
    /// The cluster that the session is connected to.
    pub cluster: Arc<dyn Cluster>,
    /// The user, who may not see everything.
    pub viewer: String,
    pub request: ScanRequest,
}

/// The schema of one cluster's point of view, for one user.
#[derive(Debug)]
pub(super) struct SystemSchema {
    sources: Arc<Sources>,
    cluster: Arc<dyn Cluster>,
    viewer: String,
}

impl SystemSchema {
    pub fn new(sources: Arc<Sources>, cluster: Arc<dyn Cluster>, viewer: &str) -> Self {
        Self {
            sources,
            cluster,
            viewer: viewer.to_owned(),
        }
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        tables::all().iter().map(|t| t.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(tables::find(name).map(|table| {
            Arc::new(Provider {
                table,
                schema: table.schema(),
                sources: self.sources.clone(),
                cluster: self.cluster.clone(),
                viewer: self.viewer.clone(),
            }) as Arc<dyn TableProvider>
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        tables::find(name).is_some()
    }
}

#[derive(Debug)]
struct Provider {
    table: &'static dyn SystemTable,
    schema: SchemaRef,
    sources: Arc<Sources>,
    cluster: Arc<dyn Cluster>,
    viewer: String,
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let names = self.schema.fields().iter().map(|f| f.name().clone());
        let columns = match projection {
            Some(projection) => projection
                .iter()
                .map(|i| self.schema.field(*i).name().clone())
                .collect(),
            None => names.collect(),
        };
        let mut request = ScanRequest::of(filters, columns);
        request.columns.extend(
            filters
                .iter()
                .flat_map(|f| f.column_refs())
                .map(|c| c.name.clone()),
        );
        let context = ScanContext {
            sources: self.sources.clone(),
            cluster: self.cluster.clone(),
            viewer: self.viewer.clone(),
            request,
        };
        let scan = Scan {
            table: self.table,
            schema: self.schema.clone(),
            context: Arc::new(context),
        };
        let exec = StreamingTableExec::try_new(
            self.schema.clone(),
            vec![Arc::new(scan)],
            projection,
            None,
            false,
            limit,
        )?;
        Ok(Arc::new(exec))
    }
}

/// One scan of a table, begun when its plan runs.
#[derive(Debug)]
struct Scan {
    table: &'static dyn SystemTable,
    schema: SchemaRef,
    context: Arc<ScanContext>,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self
            .table
            .scan(self.context.clone())
            .map_err(|e: Error| DataFusionError::External(Box::new(e)));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}
