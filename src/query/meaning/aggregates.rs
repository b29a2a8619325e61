//! A sum of BIGINT is NUMERIC and does not wrap; an average of whole numbers and decimals is
//! NUMERIC and has digits after the point.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::Sort as SortKey;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, ExprSchemable, GroupsAccumulator,
    ReversedUDAF, Signature, Volatility, WindowFunctionDefinition, cast,
};

use super::arithmetic::length;
use super::{failure, interval_sums};
use crate::error::ErrorKind;

/// Digits after the point that an average is computed with; it has four more.
const AVERAGE_SCALE: i8 = 12;

/// DataFusion's `avg` over arguments of other types.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

/// PostgreSQL's `avg`.
pub(super) fn average() -> AggregateUDF {
    AggregateUDF::from(Average {
        inner: avg_udaf(),
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

/// What a sum of BIGINT is computed of, so that it has room.
const SUMMED: DataType = DataType::Decimal128(20, 0);

fn widen(args: &mut [Expr], schema: &DFSchema) -> bool {
    let [summed] = args else {
        return false;
    };
    let is_bigint = summed
        .get_type(schema)
        .is_ok_and(|of| of == DataType::Int64);
    if is_bigint {
        *summed = cast(summed.clone(), SUMMED);
    }
    is_bigint
}

/// Has a sum of BIGINT computed as NUMERIC. Once types are coerced, nobody can tell it from a sum
/// of INT, which is BIGINT.
pub(super) fn widen_sum(mut expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let is_time_apart = |args: &[Expr]| {
        let of = args.first().and_then(|arg| arg.get_type(schema).ok());
        matches!(of, Some(DataType::Interval(_) | DataType::Duration(_)))
    };
    let is_total = |name: &str| name == "sum" || name == "avg";
    let is_interval = |args: &[Expr]| {
        let of = args.first().and_then(|arg| arg.get_type(schema).ok());
        matches!(of, Some(DataType::Interval(_)))
    };
    let is_extreme = |name: &str| name == "min" || name == "max";
    if let Expr::WindowFunction(f) = &expr
        && is_extreme(f.fun.name())
        && is_interval(&f.params.args)
    {
        return Err(failure(
            ErrorKind::Unsupported,
            format!("{} of intervals with OVER is not supported", f.fun.name()),
        ));
    }
    let is_changed = match &mut expr {
        Expr::AggregateFunction(f) if is_total(f.func.name()) && is_time_apart(&f.params.args) => {
            f.func = Arc::new(interval_sums::total(f.func.name() == "avg"));
            true
        }
        Expr::WindowFunction(f) if is_total(f.fun.name()) && is_time_apart(&f.params.args) => {
            let total = interval_sums::total(f.fun.name() == "avg");
            f.fun = WindowFunctionDefinition::AggregateUDF(Arc::new(total));
            true
        }
        // The first by length.
        Expr::AggregateFunction(f) if is_extreme(f.func.name()) && is_interval(&f.params.args) => {
            let ascends = f.func.name() == "min";
            let key = length(f.params.args[0].clone());
            f.params.order_by = vec![SortKey::new(key, ascends, false)];
            f.params.distinct = false;
            f.func = first_value_udaf();
            true
        }
        Expr::AggregateFunction(f) if f.func.name() == "sum" => widen(&mut f.params.args, schema),
        Expr::WindowFunction(f) if f.fun.name() == "sum" => widen(&mut f.params.args, schema),
        _ => false,
    };
    Ok(if is_changed {
        Transformed::yes(expr)
    } else {
        Transformed::no(expr)
    })
}

/// What an average of such values is computed of.
fn averaged(of: &DataType) -> Option<DataType> {
    use DataType as T;
    Some(match of {
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => {
            T::Decimal128(32, AVERAGE_SCALE)
        }
        T::Null | T::Float16 | T::Float32 | T::Float64 => T::Float64,
        T::Decimal32(p, s) | T::Decimal64(p, s) | T::Decimal128(p, s) => {
            // As many digits as there is room for beside those before the point.
            let whole = (*p as i8 - s).max(1);
            let scale = (38 - whole - 4).clamp(*s, AVERAGE_SCALE.max(*s));
            T::Decimal128((whole + scale).clamp(1, 38) as u8, scale)
        }
        T::Decimal256(..) | T::Duration(_) => of.clone(),
        T::Dictionary(_, value) => return averaged(value),
        _ => return None,
    })
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let coerced = match types {
            [of] => averaged(of),
            _ => None,
        };
        coerced.map(|of| vec![of]).ok_or_else(|| {
            let types: Vec<_> = types.iter().map(ToString::to_string).collect();
            let message = format!(
                "function {}({}) does not exist",
                self.name(),
                types.join(", ")
            );
            failure(ErrorKind::UndefinedFunction, message)
        })
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> DfResult<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> DfResult<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> DfResult<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn default_value(&self, data_type: &DataType) -> DfResult<ScalarValue> {
        self.inner.default_value(data_type)
    }
}
