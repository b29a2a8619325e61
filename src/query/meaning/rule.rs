//! The rule that puts PostgreSQL's values in the place of DataFusion's, once every type is settled.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult};
use datafusion::logical_expr::expr::{Cast, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, binary_expr};
use datafusion::optimizer::AnalyzerRule;

use super::arithmetic::{Operation, length};
use super::{casts, json, numbers};
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
pub(super) struct Meaning;

impl AnalyzerRule for Meaning {
    fn name(&self) -> &str {
        "postgresql_meaning"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        plan.transform_up_with_subqueries(in_plan)
            .map(|done| done.data)
    }
}

fn in_plan(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    json::check_plan(&plan)?;
    // What can be named, for its types alone.
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        let source = scan.source.schema();
        schema.merge(&DFSchema::try_from_qualified_schema(
            scan.table_name.clone(),
            &source,
        )?);
    }
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        // Its members are columns by their names.
        if matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let meant = expr.transform_up(|expr| meant(expr, &schema))?;
        Ok(meant.update_data(|expr| name.restore(expr)))
    })
}

fn meant(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    use datafusion::logical_expr::Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    json::check_expr(&expr)?;
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let types = (left.get_type(schema), right.get_type(schema));
            if matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
                && let (Ok(DataType::Interval(_)), Ok(DataType::Interval(_))) = &types
            {
                let (left, right) = (length(*left), length(*right));
                return Ok(Transformed::yes(binary_expr(left, op, right)));
            }
            let operation = match types {
                (Ok(left), Ok(right)) if left == right => Operation::checked(op, &left),
                _ => None,
            };
            Ok(match operation {
                Some(operation) => Transformed::yes(operation.of(vec![*left, *right])),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            })
        }
        Expr::Cast(Cast { expr, field }) => {
            let from = expr.get_type(schema);
            let differs = from.is_ok_and(|from| casts::differs(&from, field.data_type()));
            Ok(if differs {
                Transformed::yes(casts::converted(*expr, field.data_type()))
            } else {
                Transformed::no(Expr::Cast(Cast { expr, field }))
            })
        }
        Expr::ScalarFunction(mut call) => {
            let types = call.args.iter().map(|arg| arg.get_type(schema));
            let types = types.collect::<DfResult<Vec<_>>>().unwrap_or_default();
            Ok(match numbers::meant(&call.func, &types) {
                Some(meant) => {
                    call.func = meant;
                    Transformed::yes(Expr::ScalarFunction(call))
                }
                None => Transformed::no(Expr::ScalarFunction(call)),
            })
        }
        // Its rows are compared without those that are NULL outside, which NOT IN () lets pass.
        Expr::InSubquery(InSubquery {
            negated: true,
            ref subquery,
            ..
        }) if !subquery.outer_ref_columns.is_empty() => {
            let error = Error::new(
                ErrorKind::Unsupported,
                "NOT IN with a subquery that names columns from outside is not supported",
            )
            .hint("Say NOT EXISTS (SELECT … WHERE …).");
            Err(DataFusionError::External(Box::new(error)))
        }
        other => Ok(Transformed::no(other)),
    }
}
