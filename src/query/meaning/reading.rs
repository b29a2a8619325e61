//! Texts read as times and intervals, in every spelling that PostgreSQL reads.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, Date32Array, IntervalMonthDayNanoArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use starkeep_pg_semantics::datetime::{self, Clock, Zone};
use starkeep_pg_semantics::interval::{Interval, interval};

use crate::error::Error;

/// A text as a value of this type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ReadAs {
    to: DataType,
    signature: Signature,
}

/// What a text is read as that is cast to this type; nothing if DataFusion reads it as PostgreSQL
/// does.
pub(super) fn target(to: &DataType) -> Option<DataType> {
    Some(match to {
        DataType::Date32 => DataType::Date32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => return None,
    })
}

/// A text as a value of this type: a literal becomes another one.
pub(super) fn read_as(text: Expr, to: DataType, zone_name: &str) -> DfResult<Expr> {
    if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &text {
        let clock = Clock {
            now: None,
            zone: zone(zone_name)?,
        };
        return read(text, &to, clock).map(lit).map_err(external);
    }
    let read = ReadAs {
        to,
        signature: Signature::any(1, Volatility::Immutable),
    };
    Ok(ScalarUDF::from(read).call(vec![text]))
}

/// One text as a value of this type.
fn read(text: &str, to: &DataType, clock: Clock) -> Result<ScalarValue, Error> {
    Ok(match to {
        DataType::Date32 => ScalarValue::Date32(Some(datetime::date(text, clock)?)),
        DataType::Timestamp(_, Some(zone)) => {
            let micros = datetime::timestamptz(text, clock)?;
            ScalarValue::TimestampMicrosecond(Some(micros), Some(zone.clone()))
        }
        DataType::Timestamp(_, None) => {
            ScalarValue::TimestampMicrosecond(Some(datetime::timestamp(text, clock)?), None)
        }
        DataType::Time64(_) => ScalarValue::Time64Microsecond(Some(datetime::time(text)?)),
        _ => {
            let value = interval(text).and_then(arrow_interval)?;
            ScalarValue::IntervalMonthDayNano(Some(value))
        }
    })
}

pub(super) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

pub(super) fn session_zone(args: &ScalarFunctionArgs) -> DfResult<Zone> {
    let name = args
        .config_options
        .execution
        .time_zone
        .as_deref()
        .unwrap_or("UTC");
    zone(name)
}

pub(super) fn zone(name: &str) -> DfResult<Zone> {
    Zone::parse(name).ok_or_else(|| DataFusionError::Internal(format!("no time zone {name}")))
}

pub(super) fn arrow_interval(read: Interval) -> Result<IntervalMonthDayNano, Error> {
    let nanos = read
        .micros
        .checked_mul(1000)
        .ok_or_else(interval_overflow)?;
    Ok(IntervalMonthDayNano::new(read.months, read.days, nanos))
}

pub(super) fn pg_interval(value: IntervalMonthDayNano) -> Interval {
    Interval {
        months: value.months,
        days: value.days,
        micros: value.nanoseconds / 1000,
    }
}

pub(super) fn interval_overflow() -> Error {
    Error::new(
        crate::error::ErrorKind::DateTimeOverflow,
        "interval out of range",
    )
}

impl ScalarUDFImpl for ReadAs {
    fn name(&self) -> &str {
        "read_as"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = matches!(args.args[..], [ColumnarValue::Scalar(_)]);
        let clock = Clock {
            now: None,
            zone: session_zone(&args)?,
        };
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = cast(&arrays[0], &DataType::Utf8)?;
        let texts = texts.as_string::<i32>().iter();
        let result: ArrayRef = match &self.to {
            DataType::Date32 => {
                let days = texts.map(|t| t.map(|t| datetime::date(t, clock)).transpose());
                Arc::new(days.collect::<Result<Date32Array, _>>().map_err(external)?)
            }
            DataType::Timestamp(_, zone) => {
                let read = |text: &str| match zone {
                    Some(_) => datetime::timestamptz(text, clock),
                    None => datetime::timestamp(text, clock),
                };
                let micros = texts.map(|t| t.map(read).transpose());
                let micros = micros.collect::<Result<TimestampMicrosecondArray, _>>();
                Arc::new(micros.map_err(external)?.with_timezone_opt(zone.clone()))
            }
            DataType::Time64(_) => {
                let micros = texts.map(|t| t.map(datetime::time).transpose());
                let micros = micros.collect::<Result<Time64MicrosecondArray, _>>();
                Arc::new(micros.map_err(external)?)
            }
            _ => {
                let read = |text: &str| interval(text).and_then(arrow_interval);
                let values = texts.map(|t| t.map(read).transpose());
                let values = values.collect::<Result<IntervalMonthDayNanoArray, _>>();
                Arc::new(values.map_err(external)?)
            }
        };
        if is_scalar {
            return ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(result))
    }
}
