//! AT TIME ZONE, and the parts of times that have a fraction.

use std::sync::Arc;

use chrono::{Duration, NaiveDateTime, TimeZone};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, DurationMicrosecondType, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::failure;
use crate::error::ErrorKind;
use crate::query::Zone;

/// What AT TIME ZONE is a call of.
pub(crate) const TIMEZONE: &str = "timezone";

/// `timezone(zone, time)`: the moment of a local time in a zone, or the local time of a moment.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Timezone {
    signature: Signature,
    /// The session's, in which moments are shown.
    session: Arc<str>,
}

impl Timezone {
    pub fn new(session: &str) -> Self {
        Self {
            signature: Signature::any(2, Volatility::Immutable),
            session: session.into(),
        }
    }
}

/// A zone by its name. PostgreSQL reads offsets with signs the other way round, so they are refused.
fn zone(name: &str) -> DfResult<chrono_tz::Tz> {
    match Zone::parse(name) {
        Some(Zone::Named(zone)) => Ok(zone),
        Some(Zone::Fixed(_)) => Err(failure(
            ErrorKind::Unsupported,
            format!("AT TIME ZONE with the offset \"{name}\" is not supported"),
        )),
        None => Err(failure(
            ErrorKind::InvalidParameter,
            format!("time zone \"{name}\" not recognized"),
        )),
    }
}

/// The moment of a local time. One that comes twice is the later one, in standard time; one that is
/// skipped is as far behind the change as it is said to be.
fn moment(local: NaiveDateTime, zone: chrono_tz::Tz) -> Option<i64> {
    if let Some(found) = zone.from_local_datetime(&local).latest() {
        return Some(found.timestamp_micros());
    }
    let before = zone
        .from_local_datetime(&(local - Duration::hours(3)))
        .latest()?;
    Some((before + Duration::hours(3)).timestamp_micros())
}

impl ScalarUDFImpl for Timezone {
    fn name(&self) -> &str {
        TIMEZONE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match &types[1] {
            // What has no type yet is a moment, as in PostgreSQL.
            DataType::Timestamp(_, Some(_)) | DataType::Null | DataType::Utf8 => {
                Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
            }
            DataType::Timestamp(_, None) | DataType::Date32 => Ok(DataType::Timestamp(
                TimeUnit::Microsecond,
                Some(self.session.clone()),
            )),
            other => Err(failure(
                ErrorKind::Unsupported,
                format!(
                    "AT TIME ZONE of {other} is not supported; cast it to timestamp or timestamptz"
                ),
            )),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let names = cast(&arrays[0], &DataType::Utf8)?;
        let names: &StringArray = names.as_string();
        let is_moment = !matches!(
            arrays[1].data_type(),
            DataType::Timestamp(_, None) | DataType::Date32
        );
        let mut times = arrays[1].clone();
        if !matches!(times.data_type(), DataType::Timestamp(..)) {
            let shown = is_moment.then(|| self.session.clone());
            times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, shown))?;
        }
        // The same number without a zone.
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let times = match times.data_type() {
            DataType::Timestamp(_, None) => times,
            _ => cast(&times, &utc)?,
        };
        let times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let mut known: Option<(&str, chrono_tz::Tz)> = None;
        let mut values = Vec::with_capacity(times.len());
        for (name, time) in names.iter().zip(times.iter()) {
            let (Some(name), Some(time)) = (name, time) else {
                values.push(None);
                continue;
            };
            let zone = match known {
                Some((same, zone)) if same == name => zone,
                _ => zone(name)?,
            };
            known = Some((name, zone));
            let out = || failure(ErrorKind::DateTimeOverflow, "timestamp out of range");
            let utc = chrono::DateTime::from_timestamp_micros(time).ok_or_else(out)?;
            values.push(Some(if is_moment {
                let local = utc.with_timezone(&zone).naive_local();
                local.and_utc().timestamp_micros()
            } else {
                moment(utc.naive_utc(), zone).ok_or_else(out)?
            }));
        }
        let values = TimestampMicrosecondArray::from(values);
        let DataType::Timestamp(_, shown) = args.return_field.data_type() else {
            return Err(DataFusionError::Internal("a time zone makes a time".into()));
        };
        let values: ArrayRef = Arc::new(values.with_timezone_opt(shown.clone()));
        Ok(ColumnarValue::Array(values))
    }
}

/// The parts of times that have a fraction, by the names of the functions that EXTRACT of them is a
/// call of.
pub(crate) const EXTRACTED: [&str; 3] = ["extract_second", "extract_milliseconds", "extract_epoch"];

/// One of them: NUMERIC, of microseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Extract {
    name: &'static str,
    signature: Signature,
}

const MICROS_A_MINUTE: i64 = 60_000_000;
const MICROS_A_DAY: i128 = 86_400_000_000;

impl Extract {
    pub fn of(name: &'static str) -> Self {
        Self {
            name,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }

    fn is_epoch(&self) -> bool {
        self.name == "extract_epoch"
    }

    fn scale(&self) -> i8 {
        if self.name == "extract_milliseconds" {
            3
        } else {
            6
        }
    }

    /// Of a time of so many microseconds.
    fn part(&self, micros: i64) -> i128 {
        if self.is_epoch() {
            i128::from(micros)
        } else {
            i128::from(micros.rem_euclid(MICROS_A_MINUTE))
        }
    }
}

impl ScalarUDFImpl for Extract {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Decimal128(38, self.scale()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [times] = ColumnarValue::values_to_arrays(&args.args)?
            .try_into()
            .map_err(|_| DataFusionError::Internal("EXTRACT takes one time".into()))?;
        let values: Decimal128Array = match times.data_type() {
            DataType::Timestamp(_, zone) => {
                let times = cast(
                    &times,
                    &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
                )?;
                let times = times.as_primitive::<TimestampMicrosecondType>();
                times.iter().map(|t| t.map(|t| self.part(t))).collect()
            }
            DataType::Date32 | DataType::Date64 => {
                let times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
                let times = times.as_primitive::<TimestampMicrosecondType>();
                times.iter().map(|t| t.map(|t| self.part(t))).collect()
            }
            DataType::Time32(_) | DataType::Time64(_) => {
                let times = cast(&times, &DataType::Time64(TimeUnit::Microsecond))?;
                let times = times.as_primitive::<Time64MicrosecondType>();
                times.iter().map(|t| t.map(|t| self.part(t))).collect()
            }
            DataType::Duration(_) => {
                let times = cast(&times, &DataType::Duration(TimeUnit::Microsecond))?;
                let times = times.as_primitive::<DurationMicrosecondType>();
                let part = |t: i64| {
                    if self.is_epoch() {
                        i128::from(t)
                    } else {
                        i128::from(t % MICROS_A_MINUTE)
                    }
                };
                times.iter().map(|t| t.map(part)).collect()
            }
            DataType::Interval(_) => {
                let times = cast(&times, &DataType::Interval(IntervalUnit::MonthDayNano))?;
                let times = times.as_primitive::<IntervalMonthDayNanoType>();
                let part = |t: datafusion::arrow::datatypes::IntervalMonthDayNano| {
                    let micros = t.nanoseconds / 1000;
                    if !self.is_epoch() {
                        return i128::from(micros % MICROS_A_MINUTE);
                    }
                    // A year is 365.25 days, what is left of one months of 30.
                    let (years, months) = (i128::from(t.months / 12), i128::from(t.months % 12));
                    let days = months * 30 + i128::from(t.days);
                    years * MICROS_A_DAY * 1461 / 4 + days * MICROS_A_DAY + i128::from(micros)
                };
                times.iter().map(|t| t.map(part)).collect()
            }
            other => {
                return Err(failure(
                    ErrorKind::Unsupported,
                    format!("EXTRACT from {other} is not supported; cast it to timestamp"),
                ));
            }
        };
        let values = values.with_precision_and_scale(38, self.scale())?;
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}
