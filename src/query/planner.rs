//! What PostgreSQL makes of a literal without a type: it takes the type of what it is compared
//! with.

use datafusion::arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::meaning::failure;
use crate::error::ErrorKind;

/// `paid = '1'`, which DataFusion does not compare, `day = '2024-01-02 +00'`, whose zone it does
/// not read, `ts + '1 day'`.
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
            let message = format!("invalid input syntax for type boolean: \"{text}\"");
            Err(failure(ErrorKind::InvalidText, message))
        }
    }
}

/// A literal as what it means beside a value of this type; nothing where DataFusion finds that
/// itself.
fn beside(literal: &str, other: &DataType) -> DfResult<Option<Expr>> {
    use DataType as T;
    let bad = |of: &str| {
        let message = format!("invalid input syntax for type {of}: \"{literal}\"");
        failure(ErrorKind::InvalidText, message)
    };
    let far = |of: &str| {
        let message = format!("value \"{literal}\" is out of range for type {of}");
        failure(ErrorKind::OutOfRange, message)
    };
    let trimmed = literal.trim();
    Ok(Some(match other {
        T::Boolean => boolean(literal)?,
        T::Int8 | T::Int16 | T::Int32 | T::Int64 => {
            let of = match other {
                T::Int64 => "bigint",
                T::Int32 => "integer",
                _ => "smallint",
            };
            let digits = trimmed.trim_start_matches(['-', '+']);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad(of));
            }
            let number: i64 = trimmed.parse().map_err(|_| far(of))?;
            let scalar = ScalarValue::Int64(Some(number)).cast_to(other);
            lit(scalar.map_err(|_| far(of))?)
        }
        T::Float32 | T::Float64 => {
            let number: f64 = trimmed.parse().map_err(|_| bad("double precision"))?;
            lit(number)
        }
        // Read by the cast, with the session's zone.
        T::Date32 | T::Timestamp(..) | T::Time64(_) | T::Time32(_) | T::Interval(_) => {
            cast(lit(literal), other.clone())
        }
        T::Duration(_) => cast(lit(literal), T::Interval(IntervalUnit::MonthDayNano)),
        _ => return Ok(None),
    }))
}

/// The type that a literal takes beside a value of another one: in a sum it is an interval beside a
/// time, in a difference a time.
fn meant_beside(op: &BinaryOperator, other: &DataType, is_right: bool) -> Option<DataType> {
    use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
    let is_time = matches!(other, DataType::Timestamp(..));
    match op {
        Eq | NotEq | Lt | LtEq | Gt | GtEq => Some(other.clone()),
        Plus if is_time => Some(DataType::Interval(IntervalUnit::MonthDayNano)),
        Minus if is_time || *other == DataType::Date32 => is_right.then(|| other.clone()),
        Plus | Minus | Multiply | Divide | Modulo if other.is_numeric() => Some(other.clone()),
        _ => None,
    }
}

impl ExprPlanner for UntypedLiterals {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr {
            op,
            mut left,
            mut right,
        } = expr;
        let type_of = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
        match (text(&left), text(&right)) {
            (None, Some(literal)) => {
                if let Some(of) = meant_beside(&op, &type_of(&left), true)
                    && let Some(meant) = beside(literal, &of)?
                {
                    right = meant;
                }
            }
            (Some(literal), None) => {
                if let Some(of) = meant_beside(&op, &type_of(&right), false)
                    && let Some(meant) = beside(literal, &of)?
                {
                    left = meant;
                }
            }
            _ => {}
        }
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}
