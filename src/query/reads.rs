//! What a plan reads.

use std::borrow::Cow;
use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;

use crate::cluster::Cluster;
use crate::error::{Error, from_datafusion};
use crate::names::TableName;
use crate::statement::Qualified;

/// The cluster's tables that a plan reads, views and subqueries included, by what is read and not
/// by its name.
pub fn tables_of(
    cluster: &dyn Cluster,
    plan: &LogicalPlan,
) -> Result<BTreeSet<Qualified<TableName>>, Error> {
    let mut tables = own_tables_of(cluster, plan)?;
    for inner in subqueries_of(plan)? {
        tables.extend(tables_of(cluster, &inner)?);
    }
    Ok(tables)
}

/// The same without subqueries.
fn own_tables_of(
    cluster: &dyn Cluster,
    plan: &LogicalPlan,
) -> Result<BTreeSet<Qualified<TableName>>, Error> {
    let (mut tables, mut inlined) = (BTreeSet::new(), Vec::new());
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            tables.extend(cluster.table_of(&*provider));
            inlined.extend(provider.get_logical_plan().map(Cow::into_owned));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    for plan in inlined {
        tables.extend(tables_of(cluster, &plan)?);
    }
    Ok(tables)
}

/// The subqueries in a plan's expressions, outermost ones only.
pub fn subqueries_of(plan: &LogicalPlan) -> Result<Vec<LogicalPlan>, Error> {
    let mut found = Vec::new();
    plan.apply(|node| {
        node.apply_subqueries(|inner| {
            found.push(inner.clone());
            Ok(TreeNodeRecursion::Jump)
        })?;
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    Ok(found)
}
