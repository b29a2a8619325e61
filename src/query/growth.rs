//! Functions that may make more than they are given. Each is measured before it is called, and what
//! it made counts as memory of all queries for as long as it is held: DataFusion's own accounting
//! sees what operators hold, and nothing of what expressions make.
//!
//! A value copied into every row of a batch is memory, too, so a query with long literals or with
//! functions that multiply works in smaller batches.

mod sizes;

use std::any::Any;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, GenericStringArray, OffsetSizeTrait,
};
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
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use self::sizes::too_long;
pub(super) use self::sizes::{Growth, count_of, growth_of, length};

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
        Err(DataFusionError::Configuration(format!(
            "there is no setting values.{key}"
        )))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// The longest value that a function may make, bytes.
pub(super) fn value_bytes_max(options: &ConfigOptions) -> usize {
    let limits = options.extensions.get::<Limits>();
    limits.map_or(SMALL, |Limits(limits)| limits.value_bytes_max)
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
    (0..array.len())
        .map(|row| length(&column, row))
        .max()
        .unwrap_or(0)
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
    Buffer::from(Bytes::from_owner(Held {
        bytes,
        _memory: memory,
    }))
}

fn held_text<O: OffsetSizeTrait>(
    text: GenericStringArray<O>,
    memory: MemoryReservation,
) -> DfResult<GenericStringArray<O>> {
    let (offsets, values, nulls) = text.into_parts();
    Ok(GenericStringArray::try_new(
        offsets,
        held(values, memory),
        nulls,
    )?)
}

fn held_list<O: OffsetSizeTrait>(
    list: GenericListArray<O>,
    memory: MemoryReservation,
) -> DfResult<GenericListArray<O>> {
    let (field, offsets, values, nulls) = list.into_parts();
    let count = offsets.len();
    let bytes = held(offsets.into_inner().into_inner(), memory);
    let offsets = datafusion::arrow::buffer::OffsetBuffer::new(
        datafusion::arrow::buffer::ScalarBuffer::new(bytes, 0, count),
    );
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
        let total = self
            .growth
            .check(&args.args, rows, self.limits.value_bytes_max)?;
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
                self.limits
                    .memory
                    .try_grow(if size >= LONG_LITERAL { size } else { 0 })?;
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
        if let [
            ColumnarValue::Scalar(ScalarValue::Utf8(a)),
            ColumnarValue::Scalar(ScalarValue::Utf8(b)),
        ] = args.args.as_slice()
        {
            let both = a.as_ref().zip(b.as_ref()).map(|(a, b)| format!("{a}{b}"));
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(both)));
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let both =
            concat_elements_utf8(arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>())?;
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
        Self {
            concatenation: Arc::new(ScalarUDF::from(Concatenation { signature })),
        }
    }
}

impl FunctionRewrite for LimitGrowth {
    fn name(&self) -> &str {
        "limit_growth"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        config: &ConfigOptions,
    ) -> DfResult<Transformed<Expr>> {
        let Some(Limits(limits)) = config.extensions.get::<Limits>() else {
            return Ok(Transformed::no(expr));
        };
        let (inner, args) = match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) => (func, args),
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::StringConcat,
                right,
            }) => {
                let whole = Expr::BinaryExpr(BinaryExpr {
                    left,
                    op: Operator::StringConcat,
                    right,
                });
                if whole.get_type(schema).ok() != Some(DataType::Utf8) {
                    return Ok(Transformed::no(whole));
                }
                let Expr::BinaryExpr(BinaryExpr { left, right, .. }) = whole else {
                    return Ok(Transformed::no(whole));
                };
                (self.concatenation.clone(), vec![*left, *right])
            }
            other => return Ok(Transformed::no(other)),
        };
        // A plan that was kept has the limits of the statement that it was made for.
        let inner = inner
            .inner()
            .downcast_ref::<Limited>()
            .map_or_else(|| inner.clone(), |limited| limited.inner.clone());
        let Some(growth) = growth_of(inner.name()) else {
            return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction {
                func: inner,
                args,
            })));
        };
        let func = Arc::new(ScalarUDF::from(Limited {
            inner,
            growth,
            limits: limits.clone(),
        }));
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction {
            func,
            args,
        })))
    }
}

/// The limited forms of the functions that may grow: those that are computed while a statement is
/// planned must be limited, too.
pub(super) fn limited_functions(state: &SessionState, limits: &Arc<ValueLimits>) -> Vec<ScalarUDF> {
    let functions = state.scalar_functions().values();
    let limited = functions.filter_map(|inner| {
        let growth = growth_of(inner.name())?;
        Some(ScalarUDF::from(Limited {
            inner: inner.clone(),
            growth,
            limits: limits.clone(),
        }))
    });
    limited.collect()
}
