//! Making runaway queries end: every leaf of a plan asks, before each batch, whether anyone still wants the answer.
//!
//! DataFusion gives a query up when its task is dropped at a pause; an operator that joins a million rows with a million others
//! may compute for minutes without one. It does ask its input for rows, though, and that is where the error comes from.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind};

/// The plan with every leaf wrapped.
pub(super) fn stoppable(plan: Arc<dyn ExecutionPlan>, stop: &CancellationToken) -> DfResult<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_up(|node| {
        if node.children().is_empty() {
            Ok(Transformed::yes(Arc::new(StopExec { input: node, stop: stop.clone() }) as Arc<dyn ExecutionPlan>))
        } else {
            Ok(Transformed::no(node))
        }
    });
    Ok(wrapped?.data)
}

#[derive(Debug)]
struct StopExec {
    input: Arc<dyn ExecutionPlan>,
    stop: CancellationToken,
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

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self { input: children.remove(0), stop: self.stop.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let stop = self.stop.clone();
        let rows = self.input.execute(partition, context)?;
        let schema = rows.schema();
        let checked = rows.map(move |batch| {
            if stop.is_cancelled() {
                let given_up = Error::new(ErrorKind::Cancelled, "the query was given up");
                return Err(DataFusionError::External(Box::new(given_up)));
            }
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, checked.into_stream())))
    }
}
