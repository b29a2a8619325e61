//! A node of a plan that lets rows through and hides what DataFusion (55.2) would conclude wrongly
//! from what is below it.
//!
//! - A projection with two columns of one name passes a filter of the one on as a filter of the
//!   other: `… y RIGHT JOIN x … WHERE x.id IS NULL` found nothing.
//! - What is constant on the side of an outer join that may be missing is not constant above it, as
//!   it may be NULL there: an ORDER BY of it was left out.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result as DfResult};
use datafusion::execution::{
    SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext,
};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};

/// Puts such nodes where they are needed. It goes before the rules that conclude.
#[derive(Debug)]
pub(super) struct Hide;

/// A state whose plans have such nodes.
pub(super) fn hiding(state: SessionState) -> SessionState {
    let rules = state.physical_optimizers().iter().cloned();
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = rules.collect();
    // Which side of a join is which is settled first.
    let at = rules
        .iter()
        .position(|rule| rule.name() == "join_selection");
    rules.insert(at.map_or(0, |at| at + 1), Arc::new(Hide));
    // Projections that come together or are made anew are looked at before filters of running joins
    // are passed on.
    let last = rules
        .iter()
        .rposition(|rule| rule.name().starts_with("FilterPushdown"));
    rules.insert(last.unwrap_or(rules.len()), Arc::new(Hide));
    SessionStateBuilder::new_from_existing(state)
        .with_physical_optimizer_rules(rules)
        .build()
}

#[derive(Debug)]
struct OpaqueExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    hides_constants: bool,
}

impl OpaqueExec {
    fn new(input: Arc<dyn ExecutionPlan>, hides_constants: bool) -> Self {
        let known = input.properties();
        let properties = if hides_constants {
            Arc::new(PlanProperties::new(
                EquivalenceProperties::new(input.schema()),
                known.output_partitioning().clone(),
                known.emission_type,
                known.boundedness,
            ))
        } else {
            known.clone()
        };
        Self {
            input,
            properties,
            hides_constants,
        }
    }
}

fn has_constants(plan: &Arc<dyn ExecutionPlan>) -> bool {
    !plan.equivalence_properties().constants().is_empty()
}

/// Whether the left and the right side of a join may be missing.
fn may_be_missing(join: JoinType) -> [bool; 2] {
    [
        matches!(join, JoinType::Right | JoinType::Full),
        matches!(join, JoinType::Left | JoinType::Full),
    ]
}

fn join_type(plan: &dyn Any) -> Option<JoinType> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return Some(*join.join_type());
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        return Some(*join.join_type());
    }
    plan.downcast_ref::<SortMergeJoinExec>()
        .map(SortMergeJoinExec::join_type)
}

impl PhysicalOptimizerRule for Hide {
    fn name(&self) -> &str {
        "hide"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let hidden = plan.transform_up(|node| {
            let any = &*node as &dyn Any;
            if any.is::<ProjectionExec>() {
                let schema = node.schema();
                let mut seen = HashSet::new();
                let has_twins = !schema.fields().iter().all(|f| seen.insert(f.name()));
                return Ok(if has_twins {
                    Transformed::yes(Arc::new(OpaqueExec::new(node, false)) as Arc<_>)
                } else {
                    Transformed::no(node)
                });
            }
            let Some(join) = join_type(any) else {
                return Ok(Transformed::no(node));
            };
            let missing = may_be_missing(join);
            let children: Vec<_> = node.children().into_iter().cloned().collect();
            let mut is_changed = false;
            let children = children.into_iter().zip(missing).map(|(child, missing)| {
                if missing && has_constants(&child) {
                    is_changed = true;
                    Arc::new(OpaqueExec::new(child, true)) as Arc<dyn ExecutionPlan>
                } else {
                    child
                }
            });
            let children = children.collect();
            if is_changed {
                replace_children_if_necessary(node, children).map(Transformed::yes)
            } else {
                Ok(Transformed::no(node))
            }
        });
        hidden.map(|done| done.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl DisplayAs for OpaqueExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpaqueExec")
    }
}

impl ExecutionPlan for OpaqueExec {
    fn name(&self) -> &str {
        "OpaqueExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![!self.hides_constants]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
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
        Ok(Arc::new(Self::new(
            children.remove(0),
            self.hides_constants,
        )))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
