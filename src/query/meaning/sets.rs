//! INTERSECT ALL and EXCEPT ALL: DataFusion joins the two sides without counting how often a row
//! comes. Equal rows of each side are numbered, and the numbers compared with the rest.

use std::sync::Arc;

use datafusion::common::{Column, JoinType, NullEquality, Result as DfResult};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder,
};

use super::by_length::measure;

/// No other column has such a name.
const ROW: &str = "\u{1}row of its kind";

/// Whether a join is INTERSECT or EXCEPT.
pub(super) fn is_set(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull
        && matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
}

fn row() -> Column {
    Column::new_unqualified(ROW)
}

/// A join whose sides are numbered, if it is one of ALL: the left side of others is distinct.
pub(super) fn counted(mut join: Join) -> DfResult<Join> {
    let is_all = is_set(&join) && !matches!(&*join.left, LogicalPlan::Distinct(Distinct::All(_)));
    if !is_all || join.left.schema().has_column(&row()) {
        return Ok(join);
    }
    join.left = Arc::new(numbered(&join.left)?);
    join.right = Arc::new(numbered(&join.right)?);
    join.on.push((Expr::Column(row()), Expr::Column(row())));
    Ok(join)
}

fn numbered(plan: &LogicalPlan) -> DfResult<LogicalPlan> {
    let mut columns: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect();
    for column in &mut columns {
        measure(column, plan.schema());
    }
    let number = row_number().partition_by(columns).build()?.alias(ROW);
    LogicalPlanBuilder::from(plan.clone())
        .window(vec![number])?
        .build()
}

/// The same without the numbers.
pub(super) fn without_counts(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let LogicalPlan::Join(join) = &plan else {
        return Ok(plan);
    };
    if !is_set(join) || !join.schema.has_column(&row()) {
        return Ok(plan);
    }
    let columns = join.schema.columns().into_iter();
    let columns: Vec<Expr> = columns.filter(|c| *c != row()).map(Expr::Column).collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}
