//! Parts of times, EXTRACT and `date_part`, and times cut off to them, `date_trunc`.

use std::sync::Arc;

use chrono::{Datelike, Duration, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, IntervalMonthDayNanoArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, DurationMicrosecondType, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use starkeep_pg_semantics::datetime::Zone;

use super::reading::session_zone;
use super::type_name::type_name;
use super::{failure, text};
use crate::error::ErrorKind;

/// Each part with its names.
const PARTS: &[(&str, &[&str])] = &[
    (
        "microseconds",
        &["microseconds", "microsecond", "us", "usec", "usecs"],
    ),
    (
        "milliseconds",
        &["milliseconds", "millisecond", "ms", "msec", "msecs"],
    ),
    ("second", &["second", "seconds", "s", "sec", "secs"]),
    ("minute", &["minute", "minutes", "m", "min", "mins"]),
    ("hour", &["hour", "hours", "h", "hr", "hrs"]),
    ("day", &["day", "days", "d"]),
    ("week", &["week", "weeks", "w"]),
    ("month", &["month", "months", "mon", "mons"]),
    ("quarter", &["quarter", "qtr"]),
    ("year", &["year", "years", "y", "yr", "yrs"]),
    ("decade", &["decade", "decades", "dec", "decs"]),
    ("century", &["century", "centuries", "c", "cent"]),
    ("millennium", &["millennium", "millennia", "mil", "mils"]),
    ("dow", &["dow"]),
    ("isodow", &["isodow"]),
    ("doy", &["doy"]),
    ("isoyear", &["isoyear"]),
    ("epoch", &["epoch"]),
    ("julian", &["julian"]),
    ("timezone", &["timezone"]),
    ("timezone_hour", &["timezone_hour"]),
    ("timezone_minute", &["timezone_minute"]),
];

pub(crate) fn part_named(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let found = PARTS
        .iter()
        .find(|(_, names)| names.contains(&name.as_str()));
    found.map(|(part, _)| *part)
}

/// The name of the function that EXTRACT of a part is a call of.
pub(crate) fn extract_name(part: &str) -> String {
    format!("extract_{part}")
}

fn not_supported(part: &str, of: &DataType) -> DataFusionError {
    failure(
        ErrorKind::Unsupported,
        format!("unit \"{part}\" not supported for type {}", type_name(of)),
    )
}

/// EXTRACT of one part, a NUMERIC.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Extract {
    part: &'static str,
    name: String,
    signature: Signature,
}

const MICROS_A_SECOND: i64 = 1_000_000;
const MICROS_A_DAY: i128 = 86_400_000_000;

impl Extract {
    pub fn all() -> impl Iterator<Item = Self> {
        PARTS.iter().map(|(part, _)| Self {
            part,
            name: extract_name(part),
            signature: Signature::any(1, Volatility::Immutable),
        })
    }

    fn scale(&self, of: &DataType) -> i8 {
        match (self.part, of) {
            ("epoch", DataType::Date32 | DataType::Date64) => 0,
            ("second" | "epoch", _) => 6,
            ("milliseconds", _) => 3,
            _ => 0,
        }
    }

    /// Of a time of day, in microseconds: unscaled.
    fn of_clock(&self, micros: i64) -> Option<i128> {
        let seconds = micros / MICROS_A_SECOND;
        let of_minute = micros % (60 * MICROS_A_SECOND);
        Some(match self.part {
            "microseconds" | "milliseconds" | "second" => of_minute.into(),
            "minute" => (seconds / 60 % 60).into(),
            "hour" => (seconds / 3600).into(),
            _ => return None,
        })
    }

    fn of_date(&self, date: NaiveDate) -> Option<i128> {
        let year = date.year();
        // There is no year 0, and no century either.
        let era = if year > 0 { year } else { year - 1 };
        let each = |years: i32| {
            if year > 0 {
                (year + years - 1) / years
            } else {
                -((1 - year + years - 1) / years)
            }
        };
        Some(match self.part {
            "day" => date.day().into(),
            "month" => date.month().into(),
            "quarter" => (date.month0() / 3 + 1).into(),
            "year" => era.into(),
            "isoyear" => date.iso_week().year().into(),
            "week" => date.iso_week().week().into(),
            "dow" => date.weekday().num_days_from_sunday().into(),
            "isodow" => date.weekday().number_from_monday().into(),
            "doy" => date.ordinal().into(),
            "decade" => year.div_euclid(10).into(),
            "century" => each(100).into(),
            "millennium" => each(1000).into(),
            "julian" => i128::from(date.num_days_from_ce()) + 1_721_425,
            _ => return None,
        })
    }

    fn of_time(&self, micros: i64, zone: Option<Zone>, of: &DataType) -> DfResult<i128> {
        if self.part == "epoch" {
            return Ok(micros.into());
        }
        let far = || failure(ErrorKind::DateTimeOverflow, "timestamp out of range");
        let (local, offset) = match zone {
            Some(zone) => zone.local(micros).ok_or_else(far)?,
            None => {
                let utc = chrono::DateTime::from_timestamp_micros(micros).ok_or_else(far)?;
                (utc.naive_utc(), 0)
            }
        };
        let found = match (self.part, zone) {
            ("timezone", Some(_)) => Some(offset.into()),
            ("timezone_hour", Some(_)) => Some((offset / 3600).into()),
            ("timezone_minute", Some(_)) => Some((offset % 3600 / 60).into()),
            // Of a time of day it would have a fraction.
            ("julian", _) => None,
            _ => {
                let clock = i64::from(local.num_seconds_from_midnight()) * MICROS_A_SECOND
                    + i64::from(local.and_utc().timestamp_subsec_micros());
                self.of_clock(clock).or_else(|| self.of_date(local.date()))
            }
        };
        found.ok_or_else(|| not_supported(self.part, of))
    }

    fn of_interval(&self, value: IntervalMonthDayNano, of: &DataType) -> DfResult<i128> {
        let micros = value.nanoseconds / 1000;
        let (years, months) = (value.months / 12, value.months % 12);
        Ok(match self.part {
            "epoch" => {
                // A year is 365.25 days, what is left of one months of 30.
                let days = i128::from(months) * 30 + i128::from(value.days);
                i128::from(years) * MICROS_A_DAY * 1461 / 4
                    + days * MICROS_A_DAY
                    + i128::from(micros)
            }
            "day" => value.days.into(),
            "month" => months.into(),
            "quarter" => (months / 3 + 1).into(),
            "year" => years.into(),
            "decade" => (years / 10).into(),
            "century" => (years / 100).into(),
            "millennium" => (years / 1000).into(),
            _ => self
                .of_clock(micros)
                .ok_or_else(|| not_supported(self.part, of))?,
        })
    }
}

impl ScalarUDFImpl for Extract {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Decimal128(38, self.scale(&types[0])))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = matches!(args.args[..], [ColumnarValue::Scalar(_)]);
        let [times] = ColumnarValue::values_to_arrays(&args.args)?
            .try_into()
            .map_err(|_| DataFusionError::Internal("EXTRACT takes one time".into()))?;
        let of = times.data_type().clone();
        let values: Decimal128Array = match &of {
            DataType::Timestamp(_, zone) => {
                let shown = zone.as_ref().map(|_| session_zone(&args)).transpose()?;
                let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                let times = cast(&times, &micros)?;
                let times = times.as_primitive::<TimestampMicrosecondType>();
                let part = |t: Option<i64>| t.map(|t| self.of_time(t, shown, &of)).transpose();
                times.iter().map(part).collect::<DfResult<_>>()?
            }
            DataType::Date32 | DataType::Date64 => {
                let times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
                let times = times.as_primitive::<TimestampMicrosecondType>();
                let part = |t: Option<i64>| {
                    let Some(micros) = t else { return Ok(None) };
                    if self.part == "epoch" {
                        return Ok(Some(i128::from(micros / MICROS_A_SECOND)));
                    }
                    let time = chrono::DateTime::from_timestamp_micros(micros);
                    let found = time.and_then(|t| self.of_date(t.date_naive()));
                    found.map(Some).ok_or_else(|| not_supported(self.part, &of))
                };
                times.iter().map(part).collect::<DfResult<_>>()?
            }
            DataType::Time32(_) | DataType::Time64(_) => {
                let times = cast(&times, &DataType::Time64(TimeUnit::Microsecond))?;
                let times = times.as_primitive::<Time64MicrosecondType>();
                let part = |t: Option<i64>| {
                    let Some(micros) = t else { return Ok(None) };
                    let found = match self.part {
                        "epoch" => Some(i128::from(micros)),
                        _ => self.of_clock(micros),
                    };
                    found.map(Some).ok_or_else(|| not_supported(self.part, &of))
                };
                times.iter().map(part).collect::<DfResult<_>>()?
            }
            DataType::Duration(_) => {
                let times = cast(&times, &DataType::Duration(TimeUnit::Microsecond))?;
                let times = times.as_primitive::<DurationMicrosecondType>();
                let part =
                    |t: Option<i64>| t.map(|t| self.of_interval(text::apart(t), &of)).transpose();
                times.iter().map(part).collect::<DfResult<_>>()?
            }
            DataType::Interval(_) => {
                let times = cast(&times, &DataType::Interval(IntervalUnit::MonthDayNano))?;
                let times = times.as_primitive::<IntervalMonthDayNanoType>();
                let part = |t: Option<IntervalMonthDayNano>| {
                    t.map(|t| self.of_interval(t, &of)).transpose()
                };
                times.iter().map(part).collect::<DfResult<_>>()?
            }
            DataType::Null => std::iter::repeat_n(None::<i128>, times.len()).collect(),
            other => {
                return Err(failure(
                    ErrorKind::Unsupported,
                    format!("EXTRACT from {other} is not supported; cast it to timestamp"),
                ));
            }
        };
        let values: ArrayRef = Arc::new(values.with_precision_and_scale(38, self.scale(&of))?);
        if is_scalar {
            return ScalarValue::try_from_array(&values, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(values))
    }
}

/// `date_trunc(part, time [, zone])`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Truncate {
    signature: Signature,
}

impl Truncate {
    pub fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

fn truncated(part: &str, time: NaiveDateTime) -> Option<NaiveDateTime> {
    let (date, clock) = (time.date(), time.time());
    let year = date.year();
    // The first year of so many.
    let first = |years: i32| (year - 1).div_euclid(years) * years + 1;
    let at = |date: Option<NaiveDate>| Some(date?.and_time(NaiveTime::MIN));
    let cut = |nanos: u32| clock.with_nanosecond(clock.nanosecond() / nanos * nanos);
    Some(match part {
        "microseconds" => time,
        "milliseconds" => date.and_time(cut(1_000_000)?),
        "second" => date.and_time(clock.with_nanosecond(0)?),
        "minute" => date.and_hms_opt(clock.hour(), clock.minute(), 0)?,
        "hour" => date.and_hms_opt(clock.hour(), 0, 0)?,
        "day" => at(Some(date))?,
        "week" => {
            let days = Duration::days(date.weekday().num_days_from_monday().into());
            at(date.checked_sub_signed(days))?
        }
        "month" => at(date.with_day(1))?,
        "quarter" => at(NaiveDate::from_ymd_opt(year, date.month0() / 3 * 3 + 1, 1))?,
        "year" => at(NaiveDate::from_ymd_opt(year, 1, 1))?,
        "decade" => at(NaiveDate::from_ymd_opt(year.div_euclid(10) * 10, 1, 1))?,
        "century" => at(NaiveDate::from_ymd_opt(first(100), 1, 1))?,
        "millennium" => at(NaiveDate::from_ymd_opt(first(1000), 1, 1))?,
        _ => return None,
    })
}

fn truncated_interval(part: &str, value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let months = |n: i32| Some(IntervalMonthDayNano::new(value.months / n * n, 0, 0));
    let nanos = |n: i64| {
        let cut = value.nanoseconds / n * n;
        Some(IntervalMonthDayNano::new(value.months, value.days, cut))
    };
    match part {
        "microseconds" => nanos(1000),
        "milliseconds" => nanos(1_000_000),
        "second" => nanos(1_000_000_000),
        "minute" => nanos(60_000_000_000),
        "hour" => nanos(3_600_000_000_000),
        "day" => Some(IntervalMonthDayNano::new(value.months, value.days, 0)),
        "month" => months(1),
        "quarter" => months(3),
        "year" => months(12),
        "decade" => months(120),
        "century" => months(1200),
        "millennium" => months(12_000),
        _ => None,
    }
}

impl ScalarUDFImpl for Truncate {
    fn name(&self) -> &str {
        "date_trunc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        use DataType as T;
        let no_function = || {
            let types: Vec<_> = types.iter().map(type_name).collect();
            let message = format!("function date_trunc({}) does not exist", types.join(", "));
            failure(ErrorKind::UndefinedFunction, message)
        };
        let is_text = |of: &DataType| matches!(of, T::Utf8 | T::Utf8View | T::LargeUtf8 | T::Null);
        let (part, time, zone) = match types {
            [part, time] => (part, time, None),
            [part, time, zone] => (part, time, Some(zone)),
            _ => return Err(no_function()),
        };
        let time = match time {
            T::Timestamp(_, zone) => T::Timestamp(TimeUnit::Microsecond, zone.clone()),
            T::Date32 | T::Date64 | T::Null => T::Timestamp(TimeUnit::Microsecond, None),
            T::Interval(_) | T::Duration(_) => T::Interval(IntervalUnit::MonthDayNano),
            _ => return Err(no_function()),
        };
        if !is_text(part) || !zone.is_none_or(is_text) {
            return Err(no_function());
        }
        let mut coerced = vec![T::Utf8, time];
        coerced.extend(zone.map(|_| T::Utf8));
        Ok(coerced)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(types[1].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let session = session_zone(&args)?;
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let parts = arrays[0].as_string::<i32>();
        let zones = arrays.get(2).map(|zones| zones.as_string::<i32>());
        let times = &arrays[1];
        let of = times.data_type().clone();
        let part_of = |name: &str| {
            part_named(name).ok_or_else(|| {
                let message = format!("unit \"{name}\" not recognized for type {}", type_name(&of));
                failure(ErrorKind::InvalidParameter, message)
            })
        };
        let result: ArrayRef = match &of {
            DataType::Timestamp(_, shown) => {
                let times = times.as_primitive::<TimestampMicrosecondType>();
                let far = || failure(ErrorKind::DateTimeOverflow, "timestamp out of range");
                let mut micros = Vec::with_capacity(times.len());
                for i in 0..times.len() {
                    let has_zone = zones.is_none_or(|zones| zones.is_valid(i));
                    if times.is_null(i) || parts.is_null(i) || !has_zone {
                        micros.push(None);
                        continue;
                    }
                    let part = part_of(parts.value(i))?;
                    let zone = match (shown, zones) {
                        (None, _) => None,
                        (Some(_), None) => Some(session),
                        (Some(_), Some(zones)) => {
                            let name = zones.value(i);
                            let unknown = || {
                                let message = format!("time zone \"{name}\" not recognized");
                                failure(ErrorKind::InvalidParameter, message)
                            };
                            Some(Zone::parse(name).ok_or_else(unknown)?)
                        }
                    };
                    let time = times.value(i);
                    let local = match zone {
                        Some(zone) => zone.local(time).map(|(local, _)| local),
                        None => {
                            chrono::DateTime::from_timestamp_micros(time).map(|t| t.naive_utc())
                        }
                    };
                    let cut = truncated(part, local.ok_or_else(far)?)
                        .ok_or_else(|| not_supported(part, &of))?;
                    micros.push(match zone {
                        Some(zone) => Some(zone.moment(cut).ok_or_else(far)?),
                        None => Some(cut.and_utc().timestamp_micros()),
                    });
                }
                let micros = TimestampMicrosecondArray::from(micros);
                Arc::new(micros.with_timezone_opt(shown.clone()))
            }
            _ => {
                let times = times.as_primitive::<IntervalMonthDayNanoType>();
                let cut = times.iter().zip(parts.iter()).map(|pair| match pair {
                    (Some(value), Some(name)) => {
                        let part = part_of(name)?;
                        let cut = truncated_interval(part, value);
                        cut.map(Some).ok_or_else(|| not_supported(part, &of))
                    }
                    _ => Ok(None),
                });
                Arc::new(cut.collect::<DfResult<IntervalMonthDayNanoArray>>()?)
            }
        };
        if is_scalar {
            return ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(result))
    }
}
