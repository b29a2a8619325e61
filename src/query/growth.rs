//! Functions that may make more than they are given. Each is measured before it is called, and what it made counts as memory of all
//! queries for as long as it is held: DataFusion's own accounting sees what operators hold, and nothing of what expressions make.
//!
//! A value copied into every row of a batch is memory, too, so a query with long literals or with functions that multiply works in
//! smaller batches.

use std::any::Any;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, GenericListArray, GenericStringArray, OffsetSizeTrait};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::kernels::concat_elements::concat_elements_utf8;
use datafusion::arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

use crate::error::{Error, ErrorKind};

/// Results below this are not worth their accounting, bytes.
pub(super) const SMALL: usize = 1 << 20;
/// Bytes of one batch that a query with long values aims at.
pub(super) const BATCH_BYTES: usize = 256 << 20;
/// Literals from this length on count as long, bytes.
pub(super) const LONG_LITERAL: usize = 32 << 10;
/// Letters times letters that one call may compare: it cannot be given up half-way.
const WORK_MAX: usize = 1 << 35;

/// What the expressions of one statement may make.
#[derive(Debug)]
pub(super) struct ValueLimits {
    /// The longest value, bytes.
    pub value_bytes_max: usize,
    /// Constants that were computed for the statement, and where its larger results are taken from.
    pub memory: MemoryReservation,
}

/// The limits of a statement, where its functions find them.
#[derive(Clone, Debug)]
pub(super) struct Limits(pub Arc<ValueLimits>);

impl ConfigExtension for Limits {
    const PREFIX: &'static str = "values";
}

impl ExtensionOptions for Limits {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> DfResult<()> {
        Err(DataFusionError::Configuration(format!("there is no setting values.{key}")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// How large the result of a function may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Growth {
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
    /// Some times its input.
    Some,
    /// Small, but each letter of the first may be compared with each of the second.
    Work,
}

pub(super) fn growth_of(name: &str) -> Option<Growth> {
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
        "make_array" | "array_append" | "array_prepend" | "array_concat" | "array_union" | "flatten" | "string_to_array"
        | "encode" | "decode" | "translate" | "to_hex" | "regexp_match" | "array_replace" | "array_replace_n"
        | "array_replace_all" | "array_insert" | "map" | "named_struct" | "arrays_zip" | "initcap" | "upper" | "lower" => {
            Growth::Some
        }
        "to_char" | "date_format" => Growth::Format,
        "levenshtein" | "regexp_like" | "regexp_count" | "regexp_instr" | "array_has_all" | "array_has_any" => Growth::Work,
        _ => return None,
    })
}

fn too_long(bytes: usize, most: usize) -> DataFusionError {
    let message = format!("requested length too large: {bytes} bytes, {most} at most");
    let error = Error::new(ErrorKind::LimitExceeded, message).hint("The limit is the setting value_bytes_max.");
    DataFusionError::External(Box::new(error))
}

/// The length of a text, or about that of anything else, in one row; 0 for NULL.
pub(super) fn length(value: &ColumnarValue, row: usize) -> usize {
    match value {
        ColumnarValue::Scalar(ScalarValue::Utf8(t) | ScalarValue::LargeUtf8(t) | ScalarValue::Utf8View(t)) => {
            t.as_ref().map_or(0, String::len)
        }
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

fn text(value: &ColumnarValue, row: usize) -> &str {
    match value {
        ColumnarValue::Scalar(ScalarValue::Utf8(t) | ScalarValue::LargeUtf8(t) | ScalarValue::Utf8View(t)) => {
            t.as_deref().unwrap_or_default()
        }
        ColumnarValue::Array(array) if array.is_valid(row) => match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value(row),
            DataType::LargeUtf8 => array.as_string::<i64>().value(row),
            DataType::Utf8View => array.as_string_view().value(row),
            _ => "",
        },
        _ => "",
    }
}

/// The most that `regexp_replace` makes in one row, by the matches that there are. A pattern that does not read makes nothing.
fn replaced(args: &[ColumnarValue], row: usize, most: usize) -> usize {
    let at = |i: usize| args.get(i).map_or("", |v| text(v, row));
    let (of, with, flags) = (at(0), at(2), at(3));
    let pattern = if flags.contains('i') { format!("(?i){}", at(1)) } else { at(1).to_owned() };
    let Ok(regex) = regex::Regex::new(&pattern) else { return 0 };
    // More matches than it takes to be too many need not be counted.
    let enough = most / with.len().max(1) + 1;
    let matches = if flags.contains('g') { regex.find_iter(of).take(enough).count() } else { 1 };
    // What a group names is part of its match, and matches do not overlap.
    let groups = with.bytes().filter(|b| matches!(b, b'$' | b'\\')).count();
    of.len().saturating_add(matches.saturating_mul(with.len())).saturating_add(groups.saturating_mul(of.len()))
}

/// How many items a list has in one row, and about how many bytes they take.
fn items<O: OffsetSizeTrait>(list: &GenericListArray<O>, row: usize) -> (usize, usize) {
    let count = list.value_length(row).as_usize();
    let all = list.values();
    (count, count.saturating_mul(all.get_buffer_memory_size() / all.len().max(1) + 8))
}

pub(super) fn count_of(value: &ColumnarValue, row: usize) -> (usize, usize) {
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
    if let Some(ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(step)))) = args.get(2) {
        let parts = [i64::from(step.months), i64::from(step.days), step.nanoseconds];
        if parts.iter().any(|p| *p < 0) && parts.iter().any(|p| *p > 0) {
            return usize::MAX;
        }
    }
    let at = |i: usize| args.get(i).map_or(0, |v| number(v, row));
    let (from, to) = if args.len() == 1 { (0, at(0)) } else { (at(0), at(1)) };
    let span = (i128::from(to) - i128::from(from)).unsigned_abs();
    let is_number = |v: &ColumnarValue| v.data_type().is_integer();
    let step = match args.get(2) {
        Some(step) if is_number(step) => u128::from(number(step, row).unsigned_abs()).max(1),
        // Dates count days, and no step of theirs is shorter; times may have any unit, so the finest is taken.
        _ => 1,
    };
    let is_time = args.first().is_some_and(|v| matches!(v.data_type(), DataType::Timestamp(..)));
    let step = match args.get(2) {
        Some(ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(step)))) if is_time => {
            let nanos = i128::from(step.months) * 28 * 86_400_000_000_000
                + i128::from(step.days) * 86_400_000_000_000
                + i128::from(step.nanoseconds);
            let unit = match args[0].data_type() {
                DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Second, _) => 1_000_000_000,
                DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Millisecond, _) => 1_000_000,
                DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Microsecond, _) => 1000,
                _ => 1,
            };
            (nanos.unsigned_abs() / unit).max(1)
        }
        _ => step,
    };
    usize::try_from(span / step).unwrap_or(usize::MAX).saturating_add(1)
}

impl Growth {
    /// The most that the result has in one row, bytes.
    fn bound(self, args: &[ColumnarValue], row: usize) -> usize {
        let len = |i: usize| args.get(i).map_or(0, |v| length(v, row));
        let count = |i: usize| args.get(i).map_or(0, |v| usize::try_from(number(v, row)).unwrap_or(0));
        match self {
            Self::Repeat => len(0).saturating_mul(count(1)),
            Self::Pad => count(1),
            Self::Replace => {
                let found = len(0).checked_div(len(1)).unwrap_or(len(0) + 1);
                len(0).saturating_add(found.saturating_mul(len(2)))
            }
            Self::RegexReplace => len(0).saturating_add(1).saturating_mul(len(2).saturating_add(1)),
            Self::Sum => (0..args.len()).fold(0, |sum, i| sum.saturating_add(len(i))),
            Self::Join => (1..args.len()).fold(0, |sum, i| sum.saturating_add(len(i)).saturating_add(len(0))),
            Self::JoinItems => {
                let (count, bytes) = count_of(&args[0], row);
                bytes.saturating_mul(4).saturating_add(count.saturating_mul(len(1)))
            }
            Self::RepeatItem => len(0).max(8).saturating_mul(count(1)),
            Self::Resize => {
                let (items, bytes) = count_of(&args[0], row);
                count(1).saturating_mul((bytes / items.max(1)).max(len(2)).max(8))
            }
            Self::Series => series(args, row).saturating_mul(8),
            Self::Format => len(1).saturating_mul(16),
            Self::Some => (0..args.len()).fold(0usize, |sum, i| sum.saturating_add(len(i))).saturating_mul(4),
            Self::Work => 0,
        }
    }

    /// Refuses a call whose result would be too long; answers the most that all its rows have, bytes.
    fn check(self, args: &[ColumnarValue], rows: usize, most: usize) -> DfResult<usize> {
        // Where all arguments are constants so is the result.
        let rows = if args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_))) { rows.min(1) } else { rows };
        let mut total = 0usize;
        for row in 0..rows {
            let bytes = self.bound(args, row);
            // A bound far above what is usually made is looked at more closely, or left to what comes of it.
            let bytes = if bytes > most && self == Self::RegexReplace { replaced(args, row, most) } else { bytes };
            if bytes > most && !matches!(self, Self::Some | Self::Format) {
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
                let error = Error::new(ErrorKind::LimitExceeded, "the texts are too long to be compared letter by letter");
                return Err(DataFusionError::External(Box::new(error)));
            }
        }
        Ok(total)
    }
}

/// A function within limits.
#[derive(Debug)]
struct Limited {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    limits: Arc<ValueLimits>,
}

impl PartialEq for Limited {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Limited {}

impl Hash for Limited {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Limited {
    /// What was made counts as memory for as long as it is held.
    fn counted(&self, made: ArrayRef, memory: MemoryReservation) -> DfResult<ArrayRef> {
        let size = made.get_array_memory_size();
        let widest = widest(&made);
        if widest > self.limits.value_bytes_max {
            return Err(too_long(widest, self.limits.value_bytes_max));
        }
        if size < SMALL {
            return Ok(made);
        }
        memory.try_resize(size)?;
        Ok(match made.data_type() {
            DataType::Utf8 => Arc::new(held_text(made.as_string::<i32>().clone(), memory)?),
            DataType::LargeUtf8 => Arc::new(held_text(made.as_string::<i64>().clone(), memory)?),
            DataType::List(_) => Arc::new(held_list(made.as_list::<i32>().clone(), memory)?),
            DataType::LargeList(_) => Arc::new(held_list(made.as_list::<i64>().clone(), memory)?),
            _ => made,
        })
    }
}

/// The most bytes that one row has.
fn widest(array: &ArrayRef) -> usize {
    let column = ColumnarValue::Array(array.clone());
    if array.get_buffer_memory_size() <= SMALL {
        return 0;
    }
    (0..array.len()).map(|row| length(&column, row)).max().unwrap_or(0)
}

/// Bytes of an array with the reservation that stands for them.
struct Held {
    bytes: Buffer,
    _memory: MemoryReservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn held(bytes: Buffer, memory: MemoryReservation) -> Buffer {
    Buffer::from(Bytes::from_owner(Held { bytes, _memory: memory }))
}

fn held_text<O: OffsetSizeTrait>(text: GenericStringArray<O>, memory: MemoryReservation) -> DfResult<GenericStringArray<O>> {
    let (offsets, values, nulls) = text.into_parts();
    Ok(GenericStringArray::try_new(offsets, held(values, memory), nulls)?)
}

fn held_list<O: OffsetSizeTrait>(list: GenericListArray<O>, memory: MemoryReservation) -> DfResult<GenericListArray<O>> {
    let (field, offsets, values, nulls) = list.into_parts();
    let count = offsets.len();
    let bytes = held(offsets.into_inner().into_inner(), memory);
    let offsets = datafusion::arrow::buffer::OffsetBuffer::new(datafusion::arrow::buffer::ScalarBuffer::new(bytes, 0, count));
    Ok(GenericListArray::try_new(field, offsets, values, nulls)?)
}

impl ScalarUDFImpl for Limited {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let mut args = args;
        let rows = args.number_rows;
        if self.growth == Growth::Pad
            && let Some(ColumnarValue::Array(width)) = args.args.get_mut(1)
            && let Some(numbers) = width.as_primitive_opt::<Int64Type>()
        {
            // A negative width is none; in a column DataFusion panics at it.
            *width = Arc::new(numbers.unary::<_, Int64Type>(|n| n.max(0)));
        }
        let total = self.growth.check(&args.args, rows, self.limits.value_bytes_max)?;
        let memory = self.limits.memory.new_empty();
        if total >= SMALL {
            memory.try_grow(total)?;
        }
        match self.inner.invoke_with_args(args)? {
            ColumnarValue::Array(made) => self.counted(made, memory).map(ColumnarValue::Array),
            ColumnarValue::Scalar(made) => {
                let size = made.size();
                if size > self.limits.value_bytes_max {
                    return Err(too_long(size, self.limits.value_bytes_max));
                }
                if size.saturating_mul(rows) > BATCH_BYTES.max(self.limits.value_bytes_max) {
                    memory.try_grow(size.saturating_mul(rows))?;
                }
                // A constant stays in the plan.
                self.limits.memory.try_grow(if size >= LONG_LITERAL { size } else { 0 })?;
                Ok(ColumnarValue::Scalar(made))
            }
        }
    }
}

/// `text || text`, as a function that can be limited.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenation {
    signature: Signature,
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(vec![DataType::Utf8; arg_types.len()])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        if let [ColumnarValue::Scalar(ScalarValue::Utf8(a)), ColumnarValue::Scalar(ScalarValue::Utf8(b))] = args.args.as_slice() {
            let both = a.as_ref().zip(b.as_ref()).map(|(a, b)| format!("{a}{b}"));
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(both)));
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let both = concat_elements_utf8(arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>())?;
        Ok(ColumnarValue::Array(Arc::new(both)))
    }
}

/// Puts the limited function in the place of each that may grow, once a statement is about to run.
#[derive(Debug)]
pub(super) struct LimitGrowth {
    concatenation: Arc<ScalarUDF>,
}

impl LimitGrowth {
    pub fn new() -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { concatenation: Arc::new(ScalarUDF::from(Concatenation { signature })) }
    }
}

impl FunctionRewrite for LimitGrowth {
    fn name(&self) -> &str {
        "limit_growth"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, config: &ConfigOptions) -> DfResult<Transformed<Expr>> {
        let Some(Limits(limits)) = config.extensions.get::<Limits>() else { return Ok(Transformed::no(expr)) };
        let (inner, args) = match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) => (func, args),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                let whole = Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right });
                if whole.get_type(schema).ok() != Some(DataType::Utf8) {
                    return Ok(Transformed::no(whole));
                }
                let Expr::BinaryExpr(BinaryExpr { left, right, .. }) = whole else { return Ok(Transformed::no(whole)) };
                (self.concatenation.clone(), vec![*left, *right])
            }
            other => return Ok(Transformed::no(other)),
        };
        // A plan that was kept has the limits of the statement that it was made for.
        let inner = inner.inner().downcast_ref::<Limited>().map_or_else(|| inner.clone(), |limited| limited.inner.clone());
        let Some(growth) = growth_of(inner.name()) else {
            return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func: inner, args })));
        };
        let func = Arc::new(ScalarUDF::from(Limited { inner, growth, limits: limits.clone() }));
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
    }
}

/// The limited forms of the functions that may grow: those that are computed while a statement is planned must be limited, too.
pub(super) fn limited_functions(state: &SessionState, limits: &Arc<ValueLimits>) -> Vec<ScalarUDF> {
    let functions = state.scalar_functions().values();
    let limited = functions.filter_map(|inner| {
        let growth = growth_of(inner.name())?;
        Some(ScalarUDF::from(Limited { inner: inner.clone(), growth, limits: limits.clone() }))
    });
    limited.collect()
}
