//! `FETCH FIRST n ROWS WITH TIES`: the rows up to the n-th, and those that come with it in the order.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::functions_window::expr_fn::rank;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, Limit, LogicalPlan, LogicalPlanBuilder, Projection,
    ScalarFunctionArgs, ScalarUDFImpl, Signature, Sort, Volatility, cast,
};

use super::failure;
use crate::error::ErrorKind;

/// The function that marks such a number of rows, and refuses those that there cannot be.
pub(crate) const WITH_TIES: &str = "rows_with_ties";

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RowsWithTies {
    signature: Signature,
}

impl RowsWithTies {
    pub(super) fn new() -> Self {
        let signature = Signature::exact(vec![DataType::Int64], Volatility::Immutable);
        Self { signature }
    }
}

impl ScalarUDFImpl for RowsWithTies {
    fn name(&self) -> &str {
        WITH_TIES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let refused = |message: &str| failure(ErrorKind::InvalidRowCount, message);
        match args.args.as_slice() {
            [ColumnarValue::Scalar(ScalarValue::Int64(Some(rows)))] if *rows >= 0 => {
                Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(*rows))))
            }
            [ColumnarValue::Scalar(ScalarValue::Int64(Some(_)))] => {
                Err(refused("LIMIT must not be negative"))
            }
            [ColumnarValue::Scalar(_)] => Err(refused(
                "row count cannot be null in FETCH FIRST ... WITH TIES clause",
            )),
            _ => Err(DataFusionError::Internal(
                "a number of rows is no column".into(),
            )),
        }
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
