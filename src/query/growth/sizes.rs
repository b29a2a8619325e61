//! How long a value can become, told from the arguments before it is made.

use std::fmt::Debug;

use datafusion::arrow::array::{Array, AsArray, GenericListArray, OffsetSizeTrait};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::ColumnarValue;

use starkeep_pg_semantics::json::normal_bytes_max;

use super::WORK_MAX;
use crate::error::{Error, ErrorKind};

/// How large the result of a function may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Growth {
    /// The first as often as the second says.
    Repeat,
    /// As long as the second says.
    Pad,
    /// Each second in the first becomes a third.
    Replace,
    /// The same by a pattern, whose third may name parts of the first.
    RegexReplace,
    /// All together.
    Sum,
    /// All but the first together, with the first between them.
    Join,
    /// The items of the first, with the second between them.
    JoinItems,
    /// A list with the first as often as the second says.
    RepeatItem,
    /// A list as long as the second says.
    Resize,
    /// Numbers or times from the first to the second.
    Series,
    /// A text with a pattern in which each letter may become a word.
    Format,
    /// JSON in one form: numbers without their exponents.
    Json,
    /// Some times its input.
    Some,
    /// Small, but each letter of the first may be compared with each of the second.
    Work,
}

pub fn growth_of(name: &str) -> Option<Growth> {
    Some(match name {
        "repeat" => Growth::Repeat,
        "lpad" | "rpad" => Growth::Pad,
        "replace" => Growth::Replace,
        "regexp_replace" => Growth::RegexReplace,
        "concat" | "overlay" | "||" => Growth::Sum,
        "concat_ws" => Growth::Join,
        "array_to_string" => Growth::JoinItems,
        "array_repeat" => Growth::RepeatItem,
        "array_resize" => Growth::Resize,
        "range" | "generate_series" => Growth::Series,
        "make_array" | "array_append" | "array_prepend" | "array_concat" | "array_union"
        | "flatten" | "string_to_array" | "encode" | "decode" | "translate" | "to_hex"
        | "regexp_match" | "array_replace" | "array_replace_n" | "array_replace_all"
        | "array_insert" | "map" | "named_struct" | "arrays_zip" | "initcap" | "upper"
        | "lower" => Growth::Some,
        "jsonb_in" => Growth::Json,
        "to_char" | "date_format" => Growth::Format,
        "levenshtein" | "regexp_like" | "regexp_count" | "regexp_instr" | "array_has_all"
        | "array_has_any" => Growth::Work,
        _ => return None,
    })
}

pub(super) fn too_long(bytes: usize, most: usize) -> DataFusionError {
    let message = format!("requested length too large: {bytes} bytes, {most} at most");
    let error = Error::new(ErrorKind::LimitExceeded, message)
        .hint("The limit is the setting value_bytes_max.");
    DataFusionError::External(Box::new(error))
}

/// The length of a text, or about that of anything else, in one row; 0 for NULL.
pub fn length(value: &ColumnarValue, row: usize) -> usize {
    match value {
        ColumnarValue::Scalar(
            ScalarValue::Utf8(t) | ScalarValue::LargeUtf8(t) | ScalarValue::Utf8View(t),
        ) => t.as_ref().map_or(0, String::len),
        ColumnarValue::Scalar(other) => other.size(),
        ColumnarValue::Array(array) if array.is_null(row) => 0,
        ColumnarValue::Array(array) => match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value_length(row) as usize,
            DataType::LargeUtf8 => array.as_string::<i64>().value_length(row) as usize,
            DataType::Utf8View => array.as_string_view().value(row).len(),
            DataType::List(_) => items(array.as_list::<i32>(), row).1,
            DataType::LargeList(_) => items(array.as_list::<i64>(), row).1,
            // What numbers and times take as text.
            _ => 32,
        },
    }
}

pub(super) fn text(value: &ColumnarValue, row: usize) -> &str {
    match value {
        ColumnarValue::Scalar(
            ScalarValue::Utf8(t) | ScalarValue::LargeUtf8(t) | ScalarValue::Utf8View(t),
        ) => t.as_deref().unwrap_or_default(),
        ColumnarValue::Array(array) if array.is_valid(row) => match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value(row),
            DataType::LargeUtf8 => array.as_string::<i64>().value(row),
            DataType::Utf8View => array.as_string_view().value(row),
            _ => "",
        },
        _ => "",
    }
}

/// The most that `regexp_replace` makes in one row, by the matches that there are. A pattern that
/// does not read makes nothing.
fn replaced(args: &[ColumnarValue], row: usize, most: usize) -> usize {
    let at = |i: usize| args.get(i).map_or("", |v| text(v, row));
    let (of, with, flags) = (at(0), at(2), at(3));
    let pattern = if flags.contains('i') {
        format!("(?i){}", at(1))
    } else {
        at(1).to_owned()
    };
    let Ok(regex) = regex::Regex::new(&pattern) else {
        return 0;
    };
    // More matches than it takes to be too many need not be counted.
    let enough = most / with.len().max(1) + 1;
    let matches = if flags.contains('g') {
        regex.find_iter(of).take(enough).count()
    } else {
        1
    };
    // What a group names is part of its match, and matches do not overlap.
    let groups = with.bytes().filter(|b| matches!(b, b'$' | b'\\')).count();
    of.len()
        .saturating_add(matches.saturating_mul(with.len()))
        .saturating_add(groups.saturating_mul(of.len()))
}

/// How many items a list has in one row, and about how many bytes they take.
fn items<O: OffsetSizeTrait>(list: &GenericListArray<O>, row: usize) -> (usize, usize) {
    let count = list.value_length(row).as_usize();
    let all = list.values();
    (
        count,
        count.saturating_mul(all.get_buffer_memory_size() / all.len().max(1) + 8),
    )
}

pub fn count_of(value: &ColumnarValue, row: usize) -> (usize, usize) {
    match value {
        ColumnarValue::Scalar(ScalarValue::List(list)) if !list.is_empty() => items(list, 0),
        ColumnarValue::Scalar(ScalarValue::LargeList(list)) if !list.is_empty() => items(list, 0),
        ColumnarValue::Array(array) => match array.data_type() {
            DataType::List(_) if array.is_valid(row) => items(array.as_list::<i32>(), row),
            DataType::LargeList(_) if array.is_valid(row) => items(array.as_list::<i64>(), row),
            _ => (0, 0),
        },
        ColumnarValue::Scalar(_) => (0, 0),
    }
}

/// A whole number in one row; 0 for NULL and for what is none.
fn number(value: &ColumnarValue, row: usize) -> i64 {
    let of = |scalar: &ScalarValue| match scalar.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(Some(n))) => n,
        _ => 0,
    };
    match value {
        ColumnarValue::Scalar(scalar) => of(scalar),
        ColumnarValue::Array(array) => match array.as_primitive_opt::<Int64Type>() {
            Some(numbers) => {
                if numbers.is_valid(row) {
                    numbers.value(row)
                } else {
                    0
                }
            }
            None => ScalarValue::try_from_array(array, row).map_or(0, |scalar| of(&scalar)),
        },
    }
}

/// How many items a series has in one row. One whose step goes forth and back at once has no end.
fn series(args: &[ColumnarValue], row: usize) -> usize {
    if let Some(ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(step)))) = args.get(2)
    {
        let parts = [
            i64::from(step.months),
            i64::from(step.days),
            step.nanoseconds,
        ];
        if parts.iter().any(|p| *p < 0) && parts.iter().any(|p| *p > 0) {
            return usize::MAX;
        }
    }
    let at = |i: usize| args.get(i).map_or(0, |v| number(v, row));
    let (from, to) = if args.len() == 1 {
        (0, at(0))
    } else {
        (at(0), at(1))
    };
    let span = (i128::from(to) - i128::from(from)).unsigned_abs();
    let is_number = |v: &ColumnarValue| v.data_type().is_integer();
    let step = match args.get(2) {
        Some(step) if is_number(step) => u128::from(number(step, row).unsigned_abs()).max(1),
        // Dates count days, and no step of theirs is shorter; times may have any unit, so the
        // finest is taken.
        _ => 1,
    };
    let is_time = args
        .first()
        .is_some_and(|v| matches!(v.data_type(), DataType::Timestamp(..)));
    let step = match args.get(2) {
        Some(ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(step)))) if is_time => {
            let nanos = i128::from(step.months) * 28 * 86_400_000_000_000
                + i128::from(step.days) * 86_400_000_000_000
                + i128::from(step.nanoseconds);
            let unit = match args[0].data_type() {
                DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Second, _) => {
                    1_000_000_000
                }
                DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Millisecond, _) => {
                    1_000_000
                }
                DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Microsecond, _) => 1000,
                _ => 1,
            };
            (nanos.unsigned_abs() / unit).max(1)
        }
        _ => step,
    };
    usize::try_from(span / step)
        .unwrap_or(usize::MAX)
        .saturating_add(1)
}

impl Growth {
    /// The most that the result has in one row, bytes.
    fn bound(self, args: &[ColumnarValue], row: usize) -> usize {
        let len = |i: usize| args.get(i).map_or(0, |v| length(v, row));
        let count = |i: usize| {
            args.get(i)
                .map_or(0, |v| usize::try_from(number(v, row)).unwrap_or(0))
        };
        match self {
            Self::Repeat => len(0).saturating_mul(count(1)),
            Self::Pad => count(1),
            Self::Replace => {
                let found = len(0).checked_div(len(1)).unwrap_or(len(0) + 1);
                len(0).saturating_add(found.saturating_mul(len(2)))
            }
            Self::RegexReplace => len(0)
                .saturating_add(1)
                .saturating_mul(len(2).saturating_add(1)),
            Self::Sum => (0..args.len()).fold(0, |sum, i| sum.saturating_add(len(i))),
            Self::Join => (1..args.len()).fold(0, |sum, i| {
                sum.saturating_add(len(i)).saturating_add(len(0))
            }),
            Self::JoinItems => {
                let (count, bytes) = count_of(&args[0], row);
                bytes
                    .saturating_mul(4)
                    .saturating_add(count.saturating_mul(len(1)))
            }
            Self::RepeatItem => len(0).max(8).saturating_mul(count(1)),
            Self::Resize => {
                let (items, bytes) = count_of(&args[0], row);
                count(1).saturating_mul((bytes / items.max(1)).max(len(2)).max(8))
            }
            Self::Series => series(args, row).saturating_mul(8),
            Self::Format => len(1).saturating_mul(16),
            Self::Some => (0..args.len())
                .fold(0usize, |sum, i| sum.saturating_add(len(i)))
                .saturating_mul(4),
            Self::Json => args.first().map_or(0, |v| normal_bytes_max(text(v, row))),
            Self::Work => 0,
        }
    }

    /// Refuses a call whose result would be too long; answers the most that all its rows have,
    /// bytes.
    pub(super) fn check(self, args: &[ColumnarValue], rows: usize, most: usize) -> DfResult<usize> {
        // Where all arguments are constants so is the result.
        let rows = if args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_))) {
            rows.min(1)
        } else {
            rows
        };
        let mut total = 0usize;
        for row in 0..rows {
            let bytes = self.bound(args, row);
            // A bound far above what is usually made is looked at more closely, or left to what
            // comes of it.
            let bytes = if bytes > most && self == Self::RegexReplace {
                replaced(args, row, most)
            } else {
                bytes
            };
            if bytes > most && !matches!(self, Self::Some | Self::Format | Self::Json) {
                return Err(too_long(bytes, most));
            }
            total = total.saturating_add(bytes);
        }
        if matches!(self, Self::Work | Self::RegexReplace) {
            let work = (0..rows).fold(0usize, |sum, row| {
                let len = |i: usize| args.get(i).map_or(0, |v| length(v, row));
                sum.saturating_add(len(0).saturating_mul(len(1)))
            });
            if work > WORK_MAX {
                let error = Error::new(
                    ErrorKind::LimitExceeded,
                    "the texts are too long to be compared letter by letter",
                );
                return Err(DataFusionError::External(Box::new(error)));
            }
        }
        Ok(total)
    }
}
