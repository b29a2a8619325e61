//! The scan of a system table as DataFusion runs it: begun when its plan runs, in the order that is
//! asked of it where the table can be read so.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::{
    SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext,
};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SortOrderPushdownResult,
};
use futures::TryStreamExt;

use crate::error::Error;
use crate::query::system::{RowOrder, ScanContext, SystemTable};

/// What is read of a table.
#[derive(Clone, Debug)]
pub(super) struct SystemScan {
    pub table: &'static dyn SystemTable,
    pub context: Arc<ScanContext>,
    /// Places of columns; all of them without it.
    pub projection: Option<Vec<usize>>,
    pub limit: Option<usize>,
}

impl SystemScan {
    /// The order of the table that rows sorted like this are in.
    fn order_of(&self, sorted: &[PhysicalSortExpr]) -> Option<RowOrder> {
        let descending = sorted.first()?.options.descending;
        let schema = self.table.schema();
        let name = |column: &Column| {
            let place = match &self.projection {
                Some(projection) => *projection.get(column.index())?,
                None => column.index(),
            };
            Some(schema.fields().get(place)?.name().clone())
        };
        let is_in_order = |key: &[&str]| {
            // What comes after a whole key changes nothing.
            key.iter().zip(sorted).all(|(key, by)| {
                by.options.descending == descending
                    && by
                        .expr
                        .downcast_ref::<Column>()
                        .and_then(name)
                        .is_some_and(|column| column == *key)
            })
        };
        let key = *self.table.keys().iter().find(|key| is_in_order(key))?;
        Some(RowOrder { key, descending })
    }
}

/// A table whose rows are gathered while somebody takes them.
#[derive(Debug)]
pub(super) struct SystemExec {
    scan: SystemScan,
    rows: StreamingTableExec,
}

impl SystemExec {
    /// `sorted` is what the rows are in the order of.
    pub fn try_new(scan: SystemScan, sorted: Option<LexOrdering>) -> DfResult<Self> {
        let partition = Partition {
            table: scan.table,
            schema: scan.table.schema(),
            context: scan.context.clone(),
        };
        let rows = StreamingTableExec::try_new(
            partition.schema.clone(),
            vec![Arc::new(partition)],
            scan.projection.as_ref(),
            sorted,
            false,
            scan.limit,
        )?;
        Ok(Self { scan, rows })
    }

    fn sorted(&self) -> Option<LexOrdering> {
        self.rows.projected_output_ordering().into_iter().next()
    }
}

impl DisplayAs for SystemExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemExec: {}", self.scan.table.name())?;
        if let Some(order) = self.scan.context.request.order {
            let way = if order.descending { " DESC" } else { "" };
            write!(f, ", order={}{way}", order.key.join(&format!("{way}, ")))?;
        }
        match self.scan.limit {
            Some(limit) => write!(f, ", fetch={limit}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for SystemExec {
    fn name(&self) -> &str {
        "SystemExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.rows.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.limit
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let scan = SystemScan {
            limit,
            ..self.scan.clone()
        };
        Some(Arc::new(Self::try_new(scan, self.sorted()).ok()?))
    }

    fn try_pushdown_sort(
        &self,
        sorted: &[PhysicalSortExpr],
    ) -> DfResult<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        // A limit that is there already chose its rows in another order.
        let order = self.scan.order_of(sorted);
        let (Some(order), None) = (order, self.scan.limit) else {
            return Ok(SortOrderPushdownResult::Unsupported);
        };
        let mut context = ScanContext::clone(&self.scan.context);
        context.request.order = Some(order);
        let scan = SystemScan {
            context: Arc::new(context),
            ..self.scan.clone()
        };
        let inner = Arc::new(Self::try_new(scan, LexOrdering::new(sorted.to_vec()))?);
        Ok(SortOrderPushdownResult::Exact { inner })
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.rows.metrics()
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        self.rows.execute(partition, context)
    }
}

#[derive(Debug)]
struct Partition {
    table: &'static dyn SystemTable,
    schema: SchemaRef,
    context: Arc<ScanContext>,
}

impl PartitionStream for Partition {
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

/// Takes a sort away above filters over a table that can be read in its order: so the newest few
/// are read, and not all. DataFusion's own rule stops at a filter, since it would run on several
/// threads; reading everything to sort it costs more than that.
#[derive(Debug)]
struct OrderBelowFilters;

/// A state whose plans are so.
pub(in crate::query) fn ordering(state: SessionState) -> SessionState {
    let rules = state.physical_optimizers().iter().cloned();
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = rules.collect();
    let last = rules
        .iter()
        .position(|rule| rule.name() == "SanityCheckPlan");
    rules.insert(last.unwrap_or(rules.len()), Arc::new(OrderBelowFilters));
    SessionStateBuilder::new_from_existing(state)
        .with_physical_optimizer_rules(rules)
        .build()
}

impl PhysicalOptimizerRule for OrderBelowFilters {
    fn name(&self) -> &str {
        "order_below_filters"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let ordered = plan.transform_down(|node| {
            let (sort, fetch) = match node.downcast_ref::<SortPreservingMergeExec>() {
                Some(merge) => (merge.input().downcast_ref::<SortExec>(), merge.fetch()),
                None => {
                    let sort = node.downcast_ref::<SortExec>();
                    let sort = sort.filter(|sort| !sort.preserve_partitioning());
                    (sort, sort.and_then(ExecutionPlan::fetch))
                }
            };
            let Some(sort) = sort else {
                return Ok(Transformed::no(node));
            };
            let Some(input) = in_order(sort.input(), sort.expr().to_vec(), fetch)? else {
                return Ok(Transformed::no(node));
            };
            Ok(Transformed::yes(match fetch {
                Some(_) => Arc::new(GlobalLimitExec::new(input, 0, fetch)),
                None => input,
            }))
        });
        Ok(ordered?.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The plan with its rows in an order, if they can be read so; of the first of them no more are
/// needed.
fn in_order(
    plan: &Arc<dyn ExecutionPlan>,
    mut sorted: Vec<PhysicalSortExpr>,
    fetch: Option<usize>,
) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    if plan.is::<SystemExec>() {
        return Ok(match plan.try_pushdown_sort(&sorted)? {
            SortOrderPushdownResult::Exact { inner } => Some(inner),
            _ => None,
        });
    }
    let [input] = plan.children()[..] else {
        return Ok(None);
    };
    if plan.is::<RepartitionExec>() {
        return in_order(input, sorted, fetch);
    }
    let below = |column: &Column| -> Option<Arc<dyn PhysicalExpr>> {
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            return Some(projection.expr().get(column.index())?.expr.clone());
        }
        let filter = plan.downcast_ref::<FilterExec>()?;
        let place = match filter.projection() {
            Some(projection) => *projection.get(column.index())?,
            None => column.index(),
        };
        Some(Arc::new(Column::new(column.name(), place)))
    };
    for by in &mut sorted {
        let Some(expr) = by.expr.downcast_ref::<Column>().and_then(below) else {
            return Ok(None);
        };
        by.expr = expr;
    }
    if plan.fetch().is_some() {
        return Ok(None);
    }
    let is_filter = plan.is::<FilterExec>();
    // A filter would gather rows until it has a batch of them; what is below it may need more.
    let below = fetch.filter(|_| !is_filter);
    let Some(input) = in_order(input, sorted, below)? else {
        return Ok(None);
    };
    let ordered = replace_children_if_necessary(plan.clone(), vec![input])?;
    Ok(Some(match fetch.filter(|_| is_filter) {
        Some(_) => ordered.with_fetch(fetch).unwrap_or(ordered),
        None => ordered,
    }))
}
