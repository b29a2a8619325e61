//! Making runaway queries end: every leaf and every join of a plan asks, before each batch, whether
//! anyone still wants the answer; and while the plan is made, each rule of the optimizers asks
//! before it begins.
//!
//! DataFusion gives a query up when its task is dropped at a pause; an operator that joins a
//! million rows with a million others may compute for minutes without one. It does ask its input
//! for rows, though, and that is where the error comes from.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{
    SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext,
};
use datafusion::logical_expr::{ColumnarValue, LogicalPlan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, HashJoinExecBuilder, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::width::{check_unnest, check_width};
use crate::error::{Error, ErrorKind};

/// The plan with its leaves and its joins wrapped: a join may find nothing for minutes, and asks
/// its filter all the while.
pub(super) fn stoppable(
    plan: Arc<dyn ExecutionPlan>,
    stop: &CancellationToken,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let wrap_with = |node: Arc<dyn ExecutionPlan>, guard: Guard| {
        Arc::new(StopExec {
            input: node,
            stop: stop.clone(),
            guard,
        }) as Arc<dyn ExecutionPlan>
    };
    let wrap = |node: Arc<dyn ExecutionPlan>| wrap_with(node, Guard::Nothing);
    let guarded = |node: Arc<dyn ExecutionPlan>, guard: Guard| {
        let inputs = node
            .children()
            .into_iter()
            .map(|child| wrap_with(child.clone(), guard.clone()))
            .collect();
        replace_children_if_necessary(node, inputs)
    };
    let wrapped = plan.transform_up(|node| {
        let any = &*node as &dyn Any;
        if let Some(join) = any.downcast_ref::<NestedLoopJoinExec>() {
            let filter = join.filter().map(|filter| asking_filter(filter, stop));
            let join = NestedLoopJoinExecBuilder::from(join)
                .with_filter(filter)
                .build()?;
            return Ok(Transformed::yes(wrap(guarded(
                Arc::new(join),
                Guard::Width,
            )?)));
        }
        if let Some(join) = any.downcast_ref::<HashJoinExec>() {
            let filter = join.filter().map(|filter| asking_filter(filter, stop));
            let join = HashJoinExecBuilder::from(join)
                .with_filter(filter)
                .build()?;
            return Ok(Transformed::yes(wrap(guarded(
                Arc::new(join),
                Guard::Width,
            )?)));
        }
        if any.is::<CrossJoinExec>() {
            return Ok(Transformed::yes(wrap(guarded(node, Guard::Width)?)));
        }
        // Windows keep rows without counting them.
        if any.is::<WindowAggExec>() || any.is::<BoundedWindowAggExec>() {
            return guarded(node, Guard::Kept).map(Transformed::yes);
        }
        if let Some(unnest) = any.downcast_ref::<UnnestExec>() {
            let lists = unnest
                .list_column_indices()
                .iter()
                .map(|l| l.index_in_input_schema)
                .collect();
            return guarded(node, Guard::Unnest(lists)).map(Transformed::yes);
        }
        if node.children().is_empty() {
            return Ok(Transformed::yes(wrap(node)));
        }
        Ok(Transformed::no(node))
    });
    Ok(wrapped?.data)
}

fn asking_filter(filter: &JoinFilter, stop: &CancellationToken) -> JoinFilter {
    let expression = Arc::new(StopExpr {
        inner: filter.expression().clone(),
        stop: stop.clone(),
    });
    JoinFilter::new(
        expression,
        filter.column_indices().to_vec(),
        filter.schema().clone(),
    )
}

/// An expression that fails once nobody wants its value any more.
#[derive(Clone, Debug)]
struct StopExpr {
    inner: Arc<dyn PhysicalExpr>,
    stop: CancellationToken,
}

impl PartialEq for StopExpr {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for StopExpr {}

impl Hash for StopExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for StopExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for StopExpr {
    fn return_field(&self, schema: &Schema) -> DfResult<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        check(&self.stop)?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self {
            inner: children.remove(0),
            stop: self.stop.clone(),
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

fn check(stop: &CancellationToken) -> DfResult<()> {
    if stop.is_cancelled() {
        let given_up = Error::new(ErrorKind::Cancelled, "the query was given up");
        return Err(DataFusionError::External(Box::new(given_up)));
    }
    Ok(())
}

/// The token of a query, where rules find it.
#[derive(Clone, Debug)]
struct Token(CancellationToken);

impl ConfigExtension for Token {
    const PREFIX: &'static str = "stop";
}

impl ExtensionOptions for Token {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> DfResult<()> {
        Err(DataFusionError::Configuration(format!(
            "there is no setting stop.{key}"
        )))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// Changes nothing, and fails once nobody wants the plan any more.
#[derive(Debug)]
struct StopRule;

impl StopRule {
    fn check(options: &ConfigOptions) -> DfResult<()> {
        options
            .extensions
            .get::<Token>()
            .map_or(Ok(()), |token| check(&token.0))
    }
}

impl OptimizerRule for StopRule {
    fn name(&self) -> &str {
        "stop"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> DfResult<Transformed<LogicalPlan>> {
        Self::check(&config.options())?;
        Ok(Transformed::no(plan))
    }
}

impl PhysicalOptimizerRule for StopRule {
    fn name(&self) -> &str {
        "stop"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Self::check(options)?;
        Ok(plan)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A state whose optimizers stop before the next rule, once they are told by [`until`].
pub(super) fn asking(state: SessionState) -> SessionState {
    let logical = state
        .optimizers()
        .iter()
        .flat_map(|rule| [Arc::new(StopRule) as Arc<_>, rule.clone()])
        .collect();
    let physical = state
        .physical_optimizers()
        .iter()
        .flat_map(|rule| [Arc::new(StopRule) as Arc<_>, rule.clone()])
        .collect();
    let builder = SessionStateBuilder::new_from_existing(state);
    builder
        .with_optimizer_rules(logical)
        .with_physical_optimizer_rules(physical)
        .build()
}

/// The state for one query, given up when this token is cancelled.
pub(super) fn until(stop: &CancellationToken, state: &SessionState) -> SessionState {
    let mut state = state.clone();
    state
        .config_mut()
        .options_mut()
        .extensions
        .insert(Token(stop.clone()));
    state
}

#[derive(Debug)]
struct StopExec {
    input: Arc<dyn ExecutionPlan>,
    stop: CancellationToken,
    guard: Guard,
}

/// What an operator would make too much of.
#[derive(Clone, Debug)]
enum Guard {
    Nothing,
    /// Items of these columns become rows.
    Unnest(Vec<usize>),
    /// Each row may come beside many others.
    Width,
    /// Every row is kept until the last one has come.
    Kept,
}

impl DisplayAs for StopExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopExec")
    }
}

impl ExecutionPlan for StopExec {
    fn name(&self) -> &str {
        "StopExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self {
            input: children.remove(0),
            stop: self.stop.clone(),
            guard: self.guard.clone(),
        }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let (stop, guard) = (self.stop.clone(), self.guard.clone());
        let kept = MemoryConsumer::new("rows of a window").register(context.memory_pool());
        let most = context.session_config().batch_size().max(1);
        let rows = self.input.execute(partition, context)?;
        let schema = rows.schema();
        let checked = rows.map(move |batch| {
            check(&stop)?;
            let batch = batch?;
            match &guard {
                Guard::Nothing => {}
                Guard::Unnest(lists) => check_unnest(&batch, lists)?,
                Guard::Width => check_width(&batch, most)?,
                // Once as they come, and once more in what the window answers.
                Guard::Kept => kept.try_grow(2 * batch.get_array_memory_size())?,
            }
            Ok::<RecordBatch, DataFusionError>(batch)
        });
        // Leaves have batches of their own making; whoever asks for small ones has long values to
        // put beside each row.
        let cut = checked.map_ok(move |batch: RecordBatch| {
            let parts: Vec<DfResult<RecordBatch>> = match batch.num_rows() {
                rows if rows <= most => vec![Ok(batch)],
                rows => (0..rows)
                    .step_by(most)
                    .map(|at| Ok(batch.slice(at, most.min(rows - at))))
                    .collect(),
            };
            futures::stream::iter(parts)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            schema,
            cut.try_flatten(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn optimizers_stop_when_they_are_told() {
        let state = asking(SessionStateBuilder::new().with_default_features().build());
        let plan = state
            .create_logical_plan("SELECT a + 1 FROM (VALUES (1)) AS t(a) WHERE a > 0")
            .await
            .expect("plans");
        let stop = CancellationToken::new();
        let state = until(&stop, &state);
        let logical = state.optimize(&plan).expect("nobody has told them");
        let physical = state
            .query_planner()
            .create_physical_plan(&logical, &state)
            .await
            .expect("nobody has told them");
        stop.cancel();
        let given_up = |error: DataFusionError| {
            crate::error::from_datafusion(error).kind == ErrorKind::Cancelled
        };
        assert!(state.optimize(&plan).is_err_and(given_up));
        assert!(
            state
                .query_planner()
                .create_physical_plan(&logical, &state)
                .await
                .is_err_and(given_up)
        );
        drop(physical);
    }
}
