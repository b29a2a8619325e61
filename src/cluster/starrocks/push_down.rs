//! Which parts of a plan the cluster computes: the largest ones that it computes to the same
//! result.
//!
//! The list of what is the same is short on purpose. StarRocks divides integers into fractions,
//! counts bytes in `length` and reads `||` as OR; what is not known to be equal is computed here,
//! over rows that the cluster filters as far as that is equal. What is printed for it is in
//! `print_plan.rs`.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DfResult, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::client::Client;
use super::print_plan::{Printed, has_subquery, print_plan};
use super::scan::{StarRocksQuery, numbered};

/// Whether a plan is one table, perhaps filtered and with some of its columns: its scan does that
/// by itself, and the optimizer tells it which columns and how many rows are wanted.
fn is_one_scan(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::SubqueryAlias(alias) => is_one_scan(&alias.input),
        LogicalPlan::Filter(filter) => {
            !has_subquery(&filter.predicate) && is_one_scan(&filter.input)
        }
        LogicalPlan::Projection(p) => {
            p.expr.iter().all(|e| matches!(e, Expr::Column(_))) && is_one_scan(&p.input)
        }
        _ => false,
    }
}

/// The plan with its largest exact parts as one table each.
pub(super) fn push_down(client: &Arc<Client>, plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut count = 0;
    let changed = plan.transform_down(|node| {
        if is_one_scan(&node) {
            return Ok(Transformed::new(node, false, TreeNodeRecursion::Jump));
        }
        if matches!(node, LogicalPlan::SubqueryAlias(_)) {
            return Ok(Transformed::no(node));
        }
        let Some(printed) = print_plan(&node) else {
            return Ok(Transformed::no(node));
        };
        count += 1;
        let remote = as_table(client, &node, printed, count)?;
        Ok(Transformed::new(remote, true, TreeNodeRecursion::Jump))
    })?;
    Ok(changed.data)
}

/// The part as a table of the cluster's, under the names that the plan above it knows.
fn as_table(
    client: &Arc<Client>,
    plan: &LogicalPlan,
    printed: Printed,
    number: usize,
) -> DfResult<LogicalPlan> {
    let schema = numbered(plan.schema().as_arrow());
    let name = format!("__starrocks_{number}");
    let Printed {
        sql,
        columns,
        is_ordered,
    } = printed;
    let provider = Arc::new(StarRocksQuery {
        client: client.clone(),
        sql,
        columns,
        is_ordered,
        schema,
    });
    let columns = plan
        .schema()
        .iter()
        .enumerate()
        .map(|(i, (relation, field))| {
            let column = Column::new(Some(TableReference::bare(name.clone())), format!("c{i}"));
            Expr::Column(column).alias_qualified(relation.cloned(), field.name())
        });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::scan(name.clone(), provider_as_source(provider), None)?
        .project(columns)?
        .build()
}
