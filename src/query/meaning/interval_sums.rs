//! Sums and averages of intervals, and of times apart: months, days and the rest each by itself, as
//! PostgreSQL adds them.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, DurationMicrosecondType, Field, FieldRef, Int64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use starkeep_pg_semantics::interval::Interval;

use super::reading::{arrow_interval, external, interval_overflow, pg_interval};
use super::text;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Total {
    is_average: bool,
    signature: Signature,
}

/// PostgreSQL's `sum` or `avg` of intervals.
pub(super) fn total(is_average: bool) -> AggregateUDF {
    AggregateUDF::from(Total {
        is_average,
        signature: Signature::any(1, Volatility::Immutable),
    })
}

const PARTS: [&str; 4] = ["rows", "months", "days", "micros"];

impl AggregateUDFImpl for Total {
    fn name(&self) -> &str {
        if self.is_average { "avg" } else { "sum" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        Ok(Box::new(Running {
            is_average: self.is_average,
            parts: [0; 4],
        }))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> DfResult<Box<dyn Accumulator>> {
        self.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> DfResult<Vec<FieldRef>> {
        let field =
            |part: &&str| Field::new(format!("{}[{part}]", args.name), DataType::Int64, true);
        Ok(PARTS.iter().map(|part| field(part).into()).collect())
    }
}

#[derive(Debug)]
struct Running {
    is_average: bool,
    /// Rows, months, days and microseconds.
    parts: [i64; 4],
}

/// The intervals of a column, which may be times apart.
fn intervals(of: &ArrayRef) -> DfResult<Vec<Option<IntervalMonthDayNano>>> {
    if matches!(of.data_type(), DataType::Duration(_)) {
        let micros = cast(of, &DataType::Duration(TimeUnit::Microsecond))?;
        let micros = micros.as_primitive::<DurationMicrosecondType>();
        return Ok(micros.iter().map(|m| m.map(text::apart)).collect());
    }
    let values = cast(of, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    Ok(values
        .as_primitive::<IntervalMonthDayNanoType>()
        .iter()
        .collect())
}

impl Running {
    fn add(&mut self, parts: [i64; 4], sign: i64) -> DfResult<()> {
        for (sum, part) in self.parts.iter_mut().zip(parts) {
            *sum = part
                .checked_mul(sign)
                .and_then(|part| sum.checked_add(part))
                .ok_or_else(|| external(interval_overflow()))?;
        }
        Ok(())
    }

    fn each(&mut self, values: &ArrayRef, sign: i64) -> DfResult<()> {
        for value in intervals(values)?.into_iter().flatten() {
            let Interval {
                months,
                days,
                micros,
            } = pg_interval(value);
            self.add([1, months.into(), days.into(), micros], sign)?;
        }
        Ok(())
    }
}

impl Accumulator for Running {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.each(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.each(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let columns: Vec<_> = states
            .iter()
            .map(|s| s.as_primitive::<Int64Type>())
            .collect();
        for i in 0..columns[0].len() {
            let part = |n: usize| columns[n].value(i);
            self.add([part(0), part(1), part(2), part(3)], 1)?;
        }
        Ok(())
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(self
            .parts
            .map(|part| ScalarValue::Int64(Some(part)))
            .to_vec())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let [rows, months, days, micros] = self.parts;
        if rows == 0 {
            return Ok(ScalarValue::IntervalMonthDayNano(None));
        }
        let small = |n: i64| i32::try_from(n).map_err(|_| external(interval_overflow()));
        let sum = Interval {
            months: small(months)?,
            days: small(days)?,
            micros,
        };
        let result = if self.is_average {
            sum.divided(rows as f64)
                .ok_or_else(|| external(interval_overflow()))?
        } else {
            sum
        };
        let value = arrow_interval(result).map_err(external)?;
        Ok(ScalarValue::IntervalMonthDayNano(Some(value)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
