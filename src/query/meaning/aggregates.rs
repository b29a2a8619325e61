//! A sum of BIGINT is NUMERIC and does not wrap; an average of whole numbers and decimals is NUMERIC
//! and has digits after the point.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, ExprSchemable, GroupsAccumulator,
    LogicalPlan, ReversedUDAF, Signature, Union, Volatility, cast,
};

use super::failure;
use crate::error::{Error, ErrorKind};

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

/// Has sums of BIGINT computed as NUMERIC. Said of a plan as it was written: once types are coerced,
/// nobody can tell them from sums of INT, which are BIGINT.
pub(crate) fn widen_sums(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let widened = plan.transform_up_with_subqueries(|plan| {
        if let LogicalPlan::Union(union) = &plan {
            check_union(union)?;
        }
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let widened = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let widened = expr.transform_up(|expr| widen_sum(expr, &schema))?;
            Ok(widened.update_data(|expr| name.restore(expr)))
        })?;
        // What stands above a wider column is wider, too.
        widened.map_data(LogicalPlan::recompute_schema)
    });
    widened.map(|done| done.data)
}

/// Refuses a UNION that is known by the type of its first part, whole numbers, where another part
/// has fractions: they would be cut.
fn check_union(union: &Union) -> DfResult<()> {
    for (i, column) in union.schema.fields().iter().enumerate() {
        let parts = union.inputs.iter();
        let mut types = parts.filter_map(|part| Some(part.schema().fields().get(i)?.data_type()));
        let has_fractions = |of: &DataType| of.is_numeric() && !of.is_integer();
        if column.data_type().is_integer() && types.any(has_fractions) {
            let error = Error::new(
                ErrorKind::Unsupported,
                format!(
                    "UNION of whole numbers and others in column {} is not supported",
                    i + 1
                ),
            )
            .hint("Cast the column to one type in each part.");
            return Err(DataFusionError::External(Box::new(error)));
        }
    }
    Ok(())
}

/// Brings numbers of several types to one that holds them all; whether there were several. A CASE is
/// known by the type of its first value before types are coerced, and the others would be cut.
fn one_type<'e>(values: impl Iterator<Item = &'e mut Expr>, schema: &DFSchema) -> bool {
    let mut typed = Vec::new();
    for value in values {
        let Ok(of) = value.get_type(schema) else {
            return false;
        };
        if of != DataType::Null {
            typed.push((value, of));
        }
    }
    let types: Vec<DataType> = typed.iter().map(|(_, of)| of.clone()).collect();
    if !types.iter().all(DataType::is_numeric) || types.windows(2).all(|pair| pair[0] == pair[1]) {
        return false;
    }
    let Some(one) = type_union_resolution(&types) else {
        return false;
    };
    for (value, of) in typed {
        if of != one {
            *value = cast(value.clone(), one.clone());
        }
    }
    true
}

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

fn widen_sum(mut expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let is_changed = match &mut expr {
        Expr::Case(case) => {
            let values = case.when_then_expr.iter_mut().map(|(_, value)| value);
            one_type(values.chain(&mut case.else_expr).map(|v| &mut **v), schema)
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
