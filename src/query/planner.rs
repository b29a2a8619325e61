//! What PostgreSQL makes of a literal without a type: it takes the type of what it is compared
//! with.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::error::{Error, ErrorKind};
use crate::statement::date_before_time;

/// `paid = '1'`, which DataFusion does not compare, and `day = '2024-01-02 +00'`, whose zone it
/// does not read.
#[derive(Debug)]
pub(super) struct UntypedLiterals;

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text),
        _ => None,
    }
}

fn boolean(text: &str) -> DfResult<Expr> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Ok(lit(true)),
        "f" | "false" | "n" | "no" | "off" | "0" => Ok(lit(false)),
        _ => {
            let error = Error::new(
                ErrorKind::InvalidText,
                format!("invalid input syntax for type boolean: \"{text}\""),
            );
            Err(DataFusionError::External(Box::new(error)))
        }
    }
}

/// A literal as what it means beside a value of this type; nothing where DataFusion finds that
/// itself.
fn beside(literal: &str, other: &DataType) -> DfResult<Option<Expr>> {
    match (other, date_before_time(literal)) {
        (DataType::Boolean, _) => boolean(literal).map(Some),
        (DataType::Date32, Some(date)) => Ok(Some(lit(date))),
        _ => Ok(None),
    }
}

impl ExprPlanner for UntypedLiterals {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        if !matches!(expr.op, Eq | NotEq | Lt | LtEq | Gt | GtEq) {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr {
            op,
            mut left,
            mut right,
        } = expr;
        match (text(&left), text(&right)) {
            (None, Some(literal)) => {
                if let Some(meant) =
                    beside(literal, &left.get_type(schema).unwrap_or(DataType::Null))?
                {
                    right = meant;
                }
            }
            (Some(literal), None) => {
                if let Some(meant) =
                    beside(literal, &right.get_type(schema).unwrap_or(DataType::Null))?
                {
                    left = meant;
                }
            }
            _ => {}
        }
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}
