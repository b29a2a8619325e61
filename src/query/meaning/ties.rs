//! `FETCH FIRST n ROWS WITH TIES`: the rows up to the n-th, and those that come with it in the
//! order.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::functions_window::expr_fn::rank;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, Limit, LogicalPlan, LogicalPlanBuilder, Projection,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Sort, Volatility, cast,
};

use super::failure;
use crate::error::ErrorKind;

/// The function that marks such a number of rows, and refuses those that there cannot be.
pub(crate) const WITH_TIES: &str = "rows_with_ties";

/// A number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RowCount {
    WithTies,
    /// Of LIMIT, where NULL is all of them.
    Fetched,
    /// Of OFFSET, where NULL is none.
    Skipped,
}

impl RowCount {
    pub(super) fn function(self) -> ScalarUDF {
        ScalarUDF::from(Rows {
            kind: self,
            signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable),
        })
    }

    /// The number, or why there cannot be so many.
    pub(super) fn of(self, rows: Expr) -> Expr {
        self.function().call(vec![rows])
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rows {
    kind: RowCount,
    signature: Signature,
}

impl ScalarUDFImpl for Rows {
    fn name(&self) -> &str {
        match self.kind {
            RowCount::WithTies => WITH_TIES,
            RowCount::Fetched => "rows_fetched",
            RowCount::Skipped => "rows_skipped",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let refused = |message: &str| Err(failure(ErrorKind::InvalidRowCount, message));
        let [ColumnarValue::Scalar(ScalarValue::Int64(rows))] = args.args.as_slice() else {
            return Err(DataFusionError::Internal(
                "a number of rows is no column".into(),
            ));
        };
        let rows = match (self.kind, rows) {
            (_, Some(rows)) if *rows >= 0 => *rows,
            (RowCount::Skipped, Some(_)) => return refused("OFFSET must not be negative"),
            (_, Some(_)) => return refused("LIMIT must not be negative"),
            (RowCount::WithTies, None) => {
                return refused("row count cannot be null in FETCH FIRST ... WITH TIES clause");
            }
            (RowCount::Fetched, None) => i64::MAX,
            (RowCount::Skipped, None) => 0,
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(rows))))
    }
}

fn is_marked(rows: &Expr) -> bool {
    matches!(rows, Expr::ScalarFunction(call) if call.name() == WITH_TIES)
}

/// A limit as it is meant.
pub(super) fn in_limit(limit: Limit) -> DfResult<LogicalPlan> {
    let Some(rows) = limit.fetch.as_deref().filter(|rows| is_marked(rows)) else {
        return Ok(LogicalPlan::Limit(limit));
    };
    let rows = match &limit.skip {
        Some(skip) => cast((**skip).clone(), DataType::Int64) + rows.clone(),
        None => rows.clone(),
    };
    let input = ranked(Arc::unwrap_or_clone(limit.input), &rows)?;
    Ok(match limit.skip {
        None => input,
        skip => LogicalPlan::Limit(Limit {
            skip,
            fetch: None,
            input: Arc::new(input),
        }),
    })
}

/// The sorted rows whose rank is no more than that.
fn ranked(plan: LogicalPlan, rows: &Expr) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Projection(shown) => {
            let input = ranked(Arc::unwrap_or_clone(shown.input), rows)?;
            Projection::try_new(shown.expr, Arc::new(input)).map(LogicalPlan::Projection)
        }
        LogicalPlan::Sort(sort) => {
            let columns = sort.input.schema().columns();
            // No column has such a name.
            let name = "\u{1}rank";
            let place = rank().order_by(sort.expr.clone()).build()?.alias(name);
            let at = cast(Expr::Column(Column::new_unqualified(name)), DataType::Int64);
            let input = LogicalPlanBuilder::from(Arc::unwrap_or_clone(sort.input))
                .window(vec![place])?
                .filter(at.lt_eq(rows.clone()))?
                .project(columns.into_iter().map(Expr::Column))?
                .build()?;
            Ok(LogicalPlan::Sort(Sort {
                input: Arc::new(input),
                ..sort
            }))
        }
        _ => Err(failure(
            ErrorKind::Unsupported,
            "FETCH … WITH TIES is not supported here",
        )),
    }
}
