//! `to_char`, `to_timestamp` and `to_date`.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Datelike};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use starkeep_pg_semantics::datetime::Zone;
use starkeep_pg_semantics::number_format::NumberPattern;
use starkeep_pg_semantics::time_format::{self, Written};

use super::failure;
use super::reading::{external, session_zone};
use crate::error::{Error, ErrorKind};

fn texts(of: &ArrayRef) -> DfResult<StringArray> {
    Ok(cast(of, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn no_function(name: &str, types: &[DataType]) -> datafusion::common::DataFusionError {
    let types: Vec<_> = types.iter().map(ToString::to_string).collect();
    failure(
        ErrorKind::UndefinedFunction,
        format!("function {name}({}) does not exist", types.join(", ")),
    )
}

fn returned(result: ArrayRef, is_scalar: bool) -> DfResult<ColumnarValue> {
    if is_scalar {
        return ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar);
    }
    Ok(ColumnarValue::Array(result))
}

fn is_scalar(args: &ScalarFunctionArgs) -> bool {
    args.args
        .iter()
        .all(|a| matches!(a, ColumnarValue::Scalar(_)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToChar {
    signature: Signature,
}

impl ToChar {
    pub fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

/// The digits of a number before and after the point, rounded to so many after it.
fn rounded_digits(value: i128, scale: usize, wanted: usize) -> (bool, String, String) {
    let mut digits = value.unsigned_abs();
    let mut scale = scale;
    if scale > wanted {
        let cut = 10_u128.pow((scale - wanted) as u32);
        digits = (digits + cut / 2) / cut;
        scale = wanted;
    }
    let text = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = text.split_at(text.len() - scale);
    (value < 0, whole.to_owned(), format!("{fraction:0<wanted$}"))
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        "to_char"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        use DataType as T;
        let [value, T::Utf8 | T::Utf8View | T::LargeUtf8 | T::Null] = types else {
            return Err(no_function("to_char", types));
        };
        let value = match value {
            T::Date32 => T::Timestamp(TimeUnit::Microsecond, None),
            T::Timestamp(_, zone) => T::Timestamp(TimeUnit::Microsecond, zone.clone()),
            T::Interval(_) | T::Duration(_) => T::Interval(IntervalUnit::MonthDayNano),
            T::Float32 | T::Float64 => T::Float64,
            T::Null => T::Null,
            T::Decimal128(..) => value.clone(),
            of if of.is_integer() => T::Decimal128(20, 0),
            _ => return Err(no_function("to_char", types)),
        };
        Ok(vec![value, T::Utf8])
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = is_scalar(&args);
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let patterns = texts(&arrays[1])?;
        let values = &arrays[0];
        let mut out = StringBuilder::new();
        match values.data_type() {
            DataType::Timestamp(_, zone) => {
                let shown = zone.as_ref().map(|_| session_zone(&args)).transpose()?;
                let values = values.as_primitive::<TimestampMicrosecondType>();
                for (value, pattern) in values.iter().zip(patterns.iter()) {
                    out.append_option(match (value, pattern) {
                        (Some(micros), Some(pattern)) => Some(time_text(micros, shown, pattern)?),
                        _ => None,
                    });
                }
            }
            DataType::Interval(_) => {
                let values = values.as_primitive::<IntervalMonthDayNanoType>();
                for (value, pattern) in values.iter().zip(patterns.iter()) {
                    out.append_option(match (value, pattern) {
                        (Some(value), Some(pattern)) => {
                            Some(interval_text(value, pattern).map_err(external)?)
                        }
                        _ => None,
                    });
                }
            }
            DataType::Decimal128(_, scale) => {
                let scale = usize::try_from(*scale).unwrap_or(0);
                let values = values.as_primitive::<Decimal128Type>();
                let mut known = HashMap::new();
                for (value, pattern) in values.iter().zip(patterns.iter()) {
                    out.append_option(match (value, pattern) {
                        (Some(value), Some(pattern)) => {
                            let pattern = number_pattern(&mut known, pattern)?;
                            let wanted = pattern.fraction_digits();
                            let (negative, whole, fraction) = rounded_digits(value, scale, wanted);
                            Some(pattern.write(negative, &whole, &fraction))
                        }
                        _ => None,
                    });
                }
            }
            DataType::Float64 => {
                let values = values.as_primitive::<Float64Type>();
                let mut known = HashMap::new();
                for (value, pattern) in values.iter().zip(patterns.iter()) {
                    out.append_option(match (value, pattern) {
                        (Some(value), Some(_)) if !value.is_finite() => {
                            let error = Error::unsupported(format_args!("to_char of {value}"));
                            return Err(external(error));
                        }
                        (Some(value), Some(pattern)) => {
                            let pattern = number_pattern(&mut known, pattern)?;
                            let wanted = pattern.fraction_digits();
                            let text = format!("{:.wanted$}", value.abs());
                            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                            Some(pattern.write(value < 0.0, whole, fraction))
                        }
                        _ => None,
                    });
                }
            }
            _ => (0..values.len()).for_each(|_| out.append_null()),
        }
        returned(Arc::new(out.finish()), is_scalar)
    }
}

fn number_pattern<'k>(
    known: &'k mut HashMap<String, NumberPattern>,
    pattern: &str,
) -> DfResult<&'k NumberPattern> {
    if !known.contains_key(pattern) {
        let read = NumberPattern::parse(pattern).map_err(external)?;
        known.insert(pattern.to_owned(), read);
    }
    Ok(&known[pattern])
}

fn time_text(micros: i64, zone: Option<Zone>, pattern: &str) -> DfResult<String> {
    let far = || failure(ErrorKind::DateTimeOverflow, "timestamp out of range");
    let Some(zone) = zone else {
        let utc = DateTime::from_timestamp_micros(micros).ok_or_else(far)?;
        let local = utc.naive_utc();
        return Ok(Written { local, zone: None }.to_char(pattern));
    };
    let (local, offset) = zone.local(micros).ok_or_else(far)?;
    let name = match zone {
        Zone::Offset(0) => "UTC".to_owned(),
        Zone::Offset(_) => String::new(),
        Zone::Named(named) => {
            let utc = DateTime::from_timestamp_micros(micros).ok_or_else(far)?;
            utc.with_timezone(&named).format("%Z").to_string()
        }
    };
    let written = Written {
        local,
        zone: Some((offset, &name)),
    };
    Ok(written.to_char(pattern))
}

/// Intervals have no names of days and months; their hours may be more than 24.
fn interval_text(
    value: datafusion::arrow::datatypes::IntervalMonthDayNano,
    pattern: &str,
) -> Result<String, Error> {
    let micros = value.nanoseconds / 1000;
    if value.months < 0 || value.days < 0 || micros < 0 {
        return Err(Error::unsupported("to_char of a negative interval"));
    }
    time_format::interval(value.months, value.days, micros, pattern)
}

/// `to_timestamp(text, pattern)`, `to_timestamp(seconds)` and `to_date(text, pattern)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct FromPattern {
    is_date: bool,
    zone: Arc<str>,
    signature: Signature,
}

impl FromPattern {
    pub fn to_date() -> Self {
        Self {
            is_date: true,
            zone: "UTC".into(),
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    pub fn to_timestamp(zone: &str) -> Self {
        Self {
            is_date: false,
            zone: zone.into(),
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for FromPattern {
    fn name(&self) -> &str {
        if self.is_date {
            "to_date"
        } else {
            "to_timestamp"
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        use DataType as T;
        match types {
            [
                T::Utf8 | T::Utf8View | T::LargeUtf8 | T::Null,
                T::Utf8 | T::Utf8View | T::LargeUtf8 | T::Null,
            ] => Ok(vec![T::Utf8, T::Utf8]),
            [of] if !self.is_date && (of.is_numeric() || *of == T::Null) => Ok(vec![T::Float64]),
            _ => Err(no_function(self.name(), types)),
        }
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(if self.is_date {
            DataType::Date32
        } else {
            DataType::Timestamp(TimeUnit::Microsecond, Some(self.zone.clone()))
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = is_scalar(&args);
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let far = || failure(ErrorKind::DateTimeOverflow, "timestamp out of range");
        let moments = |micros: TimestampMicrosecondArray| {
            Arc::new(micros.with_timezone_opt(Some(self.zone.clone()))) as ArrayRef
        };
        let [values, patterns] = &arrays[..] else {
            let seconds = arrays[0].as_primitive::<Float64Type>();
            let micros = seconds.iter().map(|seconds| match seconds {
                Some(seconds) if (seconds * 1e6).abs() < 9.2e18 => {
                    Ok(Some((seconds * 1e6).round_ties_even() as i64))
                }
                Some(_) => Err(far()),
                None => Ok(None),
            });
            return returned(moments(micros.collect::<DfResult<_>>()?), is_scalar);
        };
        let (values, patterns) = (texts(values)?, texts(patterns)?);
        let read = values.iter().zip(patterns.iter()).map(|pair| match pair {
            (Some(text), Some(pattern)) => {
                time_format::read(text, pattern).map(Some).map_err(external)
            }
            _ => Ok(None),
        });
        if self.is_date {
            let days = read
                .map(|read| Ok(read?.map(|(time, _)| time.date().num_days_from_ce() - 719_163)));
            return returned(
                Arc::new(days.collect::<DfResult<Date32Array>>()?),
                is_scalar,
            );
        }
        let session = session_zone(&args)?;
        let micros = read.map(|read| match read? {
            Some((time, offset)) => {
                let zone = offset.map_or(session, Zone::Offset);
                zone.moment(time).map(Some).ok_or_else(far)
            }
            None => Ok(None),
        });
        returned(moments(micros.collect::<DfResult<_>>()?), is_scalar)
    }
}
