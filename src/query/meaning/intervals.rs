//! Products, quotients and negatives of intervals.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, IntervalMonthDayNanoArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::failure;
use super::reading::{arrow_interval, external, interval_overflow, pg_interval};
use crate::error::ErrorKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scaling {
    Times,
    By,
    Negated,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scaled {
    scaling: Scaling,
    signature: Signature,
}

impl Scaling {
    /// Of an interval, and of the number unless it is negated.
    pub fn of(self, args: Vec<Expr>) -> Expr {
        let scaled = Scaled {
            scaling: self,
            signature: Signature::any(args.len(), Volatility::Immutable),
        };
        ScalarUDF::from(scaled).call(args)
    }
}

impl ScalarUDFImpl for Scaled {
    fn name(&self) -> &str {
        match self.scaling {
            Scaling::Times => "interval_times",
            Scaling::By => "interval_by",
            Scaling::Negated => "interval_negated",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let intervals = cast(&arrays[0], &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
        let factors = match arrays.get(1) {
            Some(factors) => cast(factors, &DataType::Float64)?,
            None => Arc::new(datafusion::arrow::array::Float64Array::from(vec![
                0.0;
                intervals
                    .len()
            ])),
        };
        let factors = factors.as_primitive::<Float64Type>();
        let scale = |(interval, factor)| -> DfResult<_> {
            let (Some(interval), Some(factor)) = (interval, factor) else {
                return Ok(None);
            };
            let interval = pg_interval(interval);
            let scaled = match self.scaling {
                Scaling::Times => interval.times(factor),
                Scaling::By if factor == 0.0 => {
                    return Err(failure(ErrorKind::DivisionByZero, "division by zero"));
                }
                Scaling::By => interval.divided(factor),
                Scaling::Negated => interval.negated(),
            };
            let scaled = scaled
                .ok_or_else(interval_overflow)
                .and_then(arrow_interval);
            scaled.map(Some).map_err(external)
        };
        let scaled = intervals.iter().zip(factors.iter()).map(scale);
        let scaled = scaled.collect::<DfResult<IntervalMonthDayNanoArray>>()?;
        if is_scalar {
            return ScalarValue::try_from_array(&scaled, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(Arc::new(scaled)))
    }
}
