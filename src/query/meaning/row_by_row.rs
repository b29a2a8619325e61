//! Functions that are computed one row at a time: those that few queries call over many rows.

use std::hash::{Hash, Hasher};

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use regex::RegexBuilder;
use starkeep_pg_semantics::interval::Interval;
use starkeep_pg_semantics::text::{format, quote_ident, quote_literal};

use super::super::growth::value_bytes_max;
use super::failure;
use super::reading::{arrow_interval, external, interval_overflow, pg_interval};
use super::type_name::type_name;
use crate::error::{Error, ErrorKind};

pub(super) type Computed = DfResult<ScalarValue>;

/// What arguments are brought to, and the type of the answer; nothing if there is no such function.
pub(super) type Typed = Option<(Vec<DataType>, DataType)>;

/// One such function.
pub(super) struct RowByRow {
    name: &'static str,
    typed: fn(&[DataType]) -> Typed,
    /// Whether NULL is the answer to any NULL.
    is_strict: bool,
    compute: fn(&[ScalarValue], &ConfigOptions) -> Computed,
    signature: Signature,
}

impl std::fmt::Debug for RowByRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for RowByRow {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for RowByRow {}

impl Hash for RowByRow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl RowByRow {
    /// One whose answer to any NULL is NULL.
    pub fn strict(
        name: &'static str,
        typed: fn(&[DataType]) -> Typed,
        compute: fn(&[ScalarValue], &ConfigOptions) -> Computed,
    ) -> Self {
        Self {
            name,
            typed,
            is_strict: true,
            compute,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    fn resolved(&self, types: &[DataType]) -> DfResult<(Vec<DataType>, DataType)> {
        (self.typed)(types).ok_or_else(|| {
            let types: Vec<_> = types.iter().map(type_name).collect();
            let message = format!(
                "function {}({}) does not exist",
                self.name,
                types.join(", ")
            );
            failure(ErrorKind::UndefinedFunction, message)
        })
    }
}

impl ScalarUDFImpl for RowByRow {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.resolved(types).map(|(args, _)| args)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.resolved(types).map(|(_, answer)| answer)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let row = |values: Vec<ScalarValue>| -> Computed {
            if self.is_strict && values.iter().any(ScalarValue::is_null) {
                return ScalarValue::try_from(args.return_type());
            }
            (self.compute)(&values, &args.config_options)
        };
        let at = |value: &ColumnarValue, i: usize| match value {
            ColumnarValue::Scalar(value) => Ok(value.clone()),
            ColumnarValue::Array(array) => ScalarValue::try_from_array(array, i),
        };
        let values = |i| {
            args.args
                .iter()
                .map(|arg| at(arg, i))
                .collect::<DfResult<_>>()
        };
        if args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)))
        {
            return row(values(0)?).map(ColumnarValue::Scalar);
        }
        let rows = (0..args.number_rows).map(|i| row(values(i)?));
        let rows = rows.collect::<DfResult<Vec<_>>>()?;
        if rows.is_empty() {
            let empty = datafusion::arrow::array::new_empty_array(args.return_type());
            return Ok(ColumnarValue::Array(empty));
        }
        ScalarValue::iter_to_array(rows).map(ColumnarValue::Array)
    }
}

fn moment(value: &ScalarValue) -> DfResult<NaiveDateTime> {
    match value {
        ScalarValue::TimestampMicrosecond(Some(micros), _) => {
            let at = DateTime::from_timestamp_micros(*micros);
            at.map(|at| at.naive_utc()).ok_or_else(out_of_range)
        }
        other => Err(unexpected(other)),
    }
}

fn out_of_range() -> DataFusionError {
    failure(ErrorKind::DateTimeOverflow, "timestamp out of range")
}

pub(super) fn unexpected(value: &ScalarValue) -> DataFusionError {
    DataFusionError::Internal(format!("unexpected {}", value.data_type()))
}

fn interval(value: &ScalarValue) -> DfResult<Interval> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(value)) => Ok(pg_interval(*value)),
        other => Err(unexpected(other)),
    }
}

fn as_interval(value: Option<Interval>) -> Computed {
    let value = value.ok_or_else(interval_overflow).and_then(arrow_interval);
    let value = value.map_err(external)?;
    Ok(ScalarValue::IntervalMonthDayNano(Some(value)))
}

fn int(value: &ScalarValue) -> DfResult<i32> {
    match value {
        ScalarValue::Int32(Some(value)) => Ok(*value),
        other => Err(unexpected(other)),
    }
}

fn float(value: &ScalarValue) -> DfResult<f64> {
    match value {
        ScalarValue::Float64(Some(value)) => Ok(*value),
        other => Err(unexpected(other)),
    }
}

pub(super) fn text(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(text) => text.as_deref(),
        _ => None,
    }
}

pub(super) fn as_text(value: impl Into<String>) -> Computed {
    Ok(ScalarValue::Utf8(Some(value.into())))
}

fn of_interval(types: &[DataType]) -> Typed {
    matches!(
        types,
        [DataType::Interval(_) | DataType::Duration(_) | DataType::Null]
    )
    .then(|| (vec![INTERVAL], INTERVAL))
}

fn is_moment(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Utf8 | DataType::Null
    )
}

fn is_whole(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Null
    )
}

/// Whole numbers, and seconds as the last.
fn parts<const N: usize>(types: &[DataType], answer: DataType) -> Typed {
    let (seconds, whole) = types.split_last()?;
    let fits = types.len() == N
        && whole.iter().all(is_whole)
        && (seconds.is_numeric() || seconds.is_null());
    let mut brought = vec![DataType::Int32; N - 1];
    brought.push(DataType::Float64);
    fits.then_some((brought, answer))
}

fn clock(hour: i32, minute: i32, seconds: f64) -> DfResult<i64> {
    let micros = (seconds * 1e6).round();
    let is_time = (0..=24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..=60e6).contains(&micros)
        && (hour < 24 || minute == 0 && micros == 0.0);
    if !is_time {
        return Err(failure(
            ErrorKind::DateTimeOverflow,
            format!("time field value out of range: {hour}:{minute:02}:{seconds:02}"),
        ));
    }
    let minutes = i64::from(hour) * 60 + i64::from(minute);
    Ok(minutes * 60_000_000 + micros as i64)
}

fn day(args: &[ScalarValue]) -> DfResult<NaiveDate> {
    let (year, month, day) = (int(&args[0])?, int(&args[1])?, int(&args[2])?);
    // Years before the first are negative, and there is no year 0.
    let astronomical = if year < 0 { year + 1 } else { year };
    let date = (year != 0)
        .then(|| {
            let (month, day) = (u32::try_from(month).ok()?, u32::try_from(day).ok()?);
            NaiveDate::from_ymd_opt(astronomical, month, day)
        })
        .flatten();
    date.ok_or_else(|| {
        let message = format!("date field value out of range: {year}-{month:02}-{day:02}");
        failure(ErrorKind::DateTimeOverflow, message)
    })
}

fn make_timestamp(args: &[ScalarValue]) -> Computed {
    let micros = clock(int(&args[3])?, int(&args[4])?, float(&args[5])?)?;
    let midnight = day(args)?.and_time(NaiveTime::MIN).and_utc();
    Ok(ScalarValue::TimestampMicrosecond(
        Some(midnight.timestamp_micros() + micros),
        None,
    ))
}

fn make_interval(args: &[ScalarValue]) -> Computed {
    let part = |i: usize| int(&args[i]).map(i64::from);
    let months = part(0)? * 12 + part(1)?;
    let days = part(2)? * 7 + part(3)?;
    let micros = (part(4)? * 3600 + part(5)? * 60) as f64 * 1e6 + (float(&args[6])? * 1e6).round();
    let made = i32::try_from(months).ok().zip(i32::try_from(days).ok());
    let made = made.filter(|_| micros.abs() < 9.2e18);
    as_interval(made.map(|(months, days)| Interval {
        months,
        days,
        micros: micros as i64,
    }))
}

/// In which of so many equal buckets between two bounds a value lies.
fn width_bucket(args: &[ScalarValue]) -> Computed {
    let bad = |message: &str| Err(failure(ErrorKind::InvalidBuckets, message));
    let count = int(&args[3])?;
    if count <= 0 {
        return bad("count must be greater than zero");
    }
    let (value, low, high) = (float(&args[0])?, float(&args[1])?, float(&args[2])?);
    if value.is_nan() || low.is_nan() || high.is_nan() {
        return bad("operand, lower bound, and upper bound cannot be NaN");
    }
    if low.is_infinite() || high.is_infinite() {
        return bad("lower and upper bounds must be finite");
    }
    if low == high {
        return bad("lower bound cannot equal upper bound");
    }
    let (before, after) = if low < high {
        (value < low, value >= high)
    } else {
        (value > low, value <= high)
    };
    let above = count
        .checked_add(1)
        .ok_or_else(|| failure(ErrorKind::OutOfRange, "integer out of range"))?;
    Ok(ScalarValue::Int32(Some(if before {
        0
    } else if after {
        above
    } else {
        let place = (value - low) / (high - low) * f64::from(count);
        (place.floor() as i32).min(count - 1) + 1
    })))
}

/// The parts of a text between the matches of a pattern. Matches of nothing at either end, or just
/// after another match, part nothing.
fn regexp_split(args: &[ScalarValue], options: &ConfigOptions) -> Computed {
    let of = |i: usize| args.get(i).and_then(text).unwrap_or_default();
    let mut pattern = RegexBuilder::new(of(1));
    for flag in of(2).chars() {
        match flag {
            'i' => pattern.case_insensitive(true),
            'c' => pattern.case_insensitive(false),
            's' => pattern.dot_matches_new_line(true),
            other => {
                return Err(failure(
                    ErrorKind::InvalidParameter,
                    format!("invalid regular expression option: \"{other}\""),
                ));
            }
        };
    }
    let pattern = pattern.dot_matches_new_line(true).build().map_err(|e| {
        let message = format!("invalid regular expression: {e}");
        failure(ErrorKind::InvalidRegex, message)
    })?;
    let text = of(0);
    let mut parts = Vec::new();
    let mut from = 0;
    for found in pattern.find_iter(text) {
        if found.is_empty() && (found.start() == from || found.start() == text.len()) {
            continue;
        }
        parts.push(&text[from..found.start()]);
        from = found.end();
        check_length(parts.len() * size_of::<ScalarValue>(), options).map_err(external)?;
    }
    parts.push(&text[from..]);
    let parts: Vec<_> = parts.into_iter().map(as_text).collect::<DfResult<_>>()?;
    let parts = ScalarValue::new_list_nullable(&parts, &DataType::Utf8);
    Ok(ScalarValue::List(parts))
}

fn count(args: &[ScalarValue], counts: impl Fn(&ScalarValue) -> bool) -> Computed {
    let found = args.iter().filter(|value| counts(value)).count();
    Ok(ScalarValue::Int32(i32::try_from(found).ok()))
}

/// Whether a value of so many bytes may be made.
fn check_length(bytes: usize, options: &ConfigOptions) -> Result<(), Error> {
    let most = value_bytes_max(options);
    if bytes <= most {
        return Ok(());
    }
    let message = format!("requested length too large: {bytes} bytes, {most} at most");
    Err(Error::new(ErrorKind::LimitExceeded, message)
        .hint("The limit is the setting value_bytes_max."))
}

/// A text in quotes, of which each may become two.
fn quoted(value: &ScalarValue, quote: fn(&str) -> String, options: &ConfigOptions) -> Computed {
    let plain = text(value).unwrap_or_default();
    check_length(plain.len().saturating_mul(2), options).map_err(external)?;
    as_text(quote(plain))
}

fn in_words(args: &[ScalarValue], options: &ConfigOptions) -> Computed {
    let Some(pattern) = text(&args[0]) else {
        return Ok(ScalarValue::Utf8(None));
    };
    let shown = args[1..].iter().map(|arg| text(arg).map(str::to_owned));
    let shown: Vec<_> = shown.collect();
    format(pattern, &shown, |bytes| check_length(bytes, options))
        .map_err(external)
        .and_then(as_text)
}

pub(super) fn all() -> Vec<ScalarUDF> {
    use DataType::{Float64, Int32, Time64, Utf8};
    let function = RowByRow::strict;
    let functions = [
        function(
            "age",
            // Others are brought to timestamps where the session's zone is known.
            |types| match types {
                [to, from] if is_moment(to) && is_moment(from) => {
                    Some((vec![TIMESTAMP; 2], INTERVAL))
                }
                _ => None,
            },
            |args, _| {
                as_interval(Some(Interval::between(
                    moment(&args[1])?,
                    moment(&args[0])?,
                )))
            },
        ),
        function("justify_hours", of_interval, |args, _| {
            as_interval(interval(&args[0])?.justified_hours())
        }),
        function("justify_days", of_interval, |args, _| {
            as_interval(interval(&args[0])?.justified_days())
        }),
        function("justify_interval", of_interval, |args, _| {
            as_interval(interval(&args[0])?.justified())
        }),
        function(
            "make_interval",
            |types| parts::<7>(types, INTERVAL),
            |args, _| make_interval(args),
        ),
        function(
            "make_date",
            |types| {
                let are_whole = types.len() == 3 && types.iter().all(is_whole);
                are_whole.then(|| (vec![Int32; 3], DataType::Date32))
            },
            |args, _| {
                let days = day(args)?.signed_duration_since(NaiveDate::default());
                let days = i32::try_from(days.num_days()).map_err(|_| out_of_range())?;
                Ok(ScalarValue::Date32(Some(days)))
            },
        ),
        function(
            "make_timestamp",
            |types| parts::<6>(types, TIMESTAMP),
            |args, _| make_timestamp(args),
        ),
        function(
            "make_time",
            |types| parts::<3>(types, Time64(TimeUnit::Microsecond)),
            |args, _| {
                let micros = clock(int(&args[0])?, int(&args[1])?, float(&args[2])?)?;
                Ok(ScalarValue::Time64Microsecond(Some(micros)))
            },
        ),
        function(
            "width_bucket",
            |types| match types {
                [operand @ .., count] if operand.len() == 3 && is_whole(count) => {
                    let are_numbers = operand.iter().all(|of| of.is_numeric() || of.is_null());
                    are_numbers.then(|| (vec![Float64, Float64, Float64, Int32], Int32))
                }
                _ => None,
            },
            |args, _| width_bucket(args),
        ),
        function(
            "quote_ident",
            |types| matches!(types, [Utf8 | DataType::Null]).then(|| (vec![Utf8], Utf8)),
            |args, options| quoted(&args[0], quote_ident, options),
        ),
        function(
            "quote_literal",
            |types| matches!(types, [_]).then(|| (vec![Utf8], Utf8)),
            |args, options| quoted(&args[0], quote_literal, options),
        ),
        function(
            "to_hex",
            |types| match types {
                [of] if is_whole(of) && *of != DataType::Int64 => Some((vec![Int32], Utf8)),
                [DataType::Int64] => Some((vec![DataType::Int64], Utf8)),
                _ => None,
            },
            |args, _| match &args[0] {
                ScalarValue::Int32(Some(number)) => as_text(format!("{number:x}")),
                ScalarValue::Int64(Some(number)) => as_text(format!("{number:x}")),
                other => Err(unexpected(other)),
            },
        ),
        function(
            "regexp_split_to_array",
            |types| match types {
                [_, _] | [_, _, _] => {
                    let texts = DataType::List(Field::new_list_field(Utf8, true).into());
                    Some((vec![Utf8; types.len()], texts))
                }
                _ => None,
            },
            regexp_split,
        ),
        RowByRow {
            is_strict: false,
            ..function(
                "quote_nullable",
                |types| matches!(types, [_]).then(|| (vec![Utf8], Utf8)),
                |args, options| match text(&args[0]) {
                    None => as_text("NULL"),
                    Some(_) => quoted(&args[0], quote_literal, options),
                },
            )
        },
        RowByRow {
            is_strict: false,
            ..function(
                "num_nulls",
                |types| (!types.is_empty()).then(|| (types.to_vec(), Int32)),
                |args, _| count(args, ScalarValue::is_null),
            )
        },
        RowByRow {
            is_strict: false,
            ..function(
                "num_nonnulls",
                |types| (!types.is_empty()).then(|| (types.to_vec(), Int32)),
                |args, _| count(args, |value| !value.is_null()),
            )
        },
        RowByRow {
            is_strict: false,
            ..function(
                "format",
                |types| (!types.is_empty()).then(|| (vec![Utf8; types.len()], Utf8)),
                in_words,
            )
        },
    ];
    functions.into_iter().map(ScalarUDF::from).collect()
}
