//! Which values meet as which type: casts that there are, and what a comparison, CASE or list of
//! several types is computed in. Said of a plan as it was written, before DataFusion brings types
//! together in its own way.

use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{Between, Case, Cast, InList, ScalarFunction};
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, Union, cast, lit, when};

use super::arithmetic::{Operation, is_numeric_quotient};
use super::intervals::Scaling;
use super::reading::{read_as, target};
use super::type_name::type_name;
use super::{failure, times};
use crate::error::ErrorKind;

const MICROS: TimeUnit = TimeUnit::Microsecond;

fn is_float(of: &DataType) -> bool {
    matches!(of, DataType::Float32 | DataType::Float64)
}

fn is_date(of: &DataType) -> bool {
    matches!(of, DataType::Date32 | DataType::Date64)
}

fn is_text(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8
    )
}

fn is_time_type(of: &DataType) -> bool {
    is_date(of) || matches!(of, DataType::Timestamp(..))
}

/// How values come together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Meeting {
    /// Two of them are compared or computed with.
    Operator,
    /// One of them is chosen: CASE, coalesce, UNION.
    Choice,
}

/// The type that holds whole numbers of several types.
pub(super) fn wider(types: &[&DataType]) -> Option<DataType> {
    use DataType::{Int16, Int32, Int64, UInt16, UInt32, UInt64};
    let differ = types.windows(2).any(|pair| pair[0] != pair[1]);
    if !differ || !types.iter().all(|of| of.is_integer()) {
        return None;
    }
    let has = |of: &[DataType]| types.iter().any(|t| of.contains(t));
    Some(match () {
        () if has(&[Int64, UInt32, UInt64]) => Int64,
        () if has(&[Int32, UInt16]) => Int32,
        () => Int16,
    })
}

/// The one type that values of several types are brought to, where DataFusion's would be another.
pub(super) fn common(types: &[&DataType], meeting: Meeting, zone: &str) -> Option<DataType> {
    if types.windows(2).all(|pair| pair[0] == pair[1]) {
        return None;
    }
    if types.iter().all(|of| of.is_numeric()) {
        // There is no operator of a real and another number but that of double precision.
        let has_float = types.iter().any(|of| is_float(of));
        let has_double = types.iter().any(|of| **of == DataType::Float64);
        return match meeting {
            Meeting::Choice if has_float && !has_double => Some(DataType::Float32),
            _ if has_float => Some(DataType::Float64),
            Meeting::Choice => wider(types),
            Meeting::Operator => None,
        };
    }
    if types.iter().all(|of| is_time_type(of)) {
        let has_zone = |of: &&DataType| matches!(of, DataType::Timestamp(_, Some(_)));
        let shown = types.iter().any(has_zone).then(|| zone.into());
        return Some(DataType::Timestamp(MICROS, shown));
    }
    None
}

/// A value as one of another type, by PostgreSQL's implicit casts.
pub(super) fn brought(value: Expr, from: &DataType, to: &DataType, zone: &str) -> DfResult<Expr> {
    if from == to {
        return Ok(value);
    }
    Ok(match (from, to) {
        (of, to) if is_text(of) => match target(to) {
            Some(to) => read_as(value, to, zone)?,
            None => cast(value, to.clone()),
        },
        (of, DataType::Timestamp(_, Some(_))) if is_date(of) => {
            times::in_session(zone, cast(value, DataType::Timestamp(MICROS, None)))
        }
        (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => {
            times::in_session(zone, value)
        }
        _ => cast(value, to.clone()),
    })
}

fn is_text_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// Brings values together; whether anything was to be done. A text without a type takes that of the
/// others.
fn together(
    values: Vec<&mut Expr>,
    meeting: Meeting,
    schema: &DFSchema,
    zone: &str,
) -> DfResult<bool> {
    let mut typed = Vec::new();
    for value in values {
        match value.get_type(schema) {
            Ok(DataType::Null) => {}
            Ok(of) => typed.push((value, of)),
            Err(_) => return Ok(false),
        }
    }
    let (literals, others): (Vec<_>, Vec<_>) = typed
        .into_iter()
        .partition(|(value, _)| is_text_literal(value));
    let types: Vec<&DataType> = others.iter().map(|(_, of)| of).collect();
    let one = common(&types, meeting, zone);
    let shared = match (&one, types.first()) {
        (Some(one), _) => Some(one.clone()),
        (None, Some(first)) if types.iter().all(|of| of == first) => Some((*first).clone()),
        _ => None,
    };
    let mut is_changed = false;
    if let Some(one) = one {
        for (value, of) in others {
            is_changed |= of != one;
            *value = brought(value.clone(), &of, &one, zone)?;
        }
    }
    if let Some(shared) = shared
        && let Some(shared) = target(&shared)
    {
        for (value, of) in literals {
            is_changed = true;
            *value = brought(value.clone(), &of, &shared, zone)?;
        }
    }
    Ok(is_changed)
}

/// Whether PostgreSQL has a cast from one type to the other.
fn has_cast(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let is_interval = |of: &DataType| matches!(of, T::Interval(_) | T::Duration(_));
    let is_clock = |of: &DataType| matches!(of, T::Time32(_) | T::Time64(_));
    let is_list = |of: &DataType| {
        matches!(
            of,
            T::List(_) | T::LargeList(_) | T::FixedSizeList(..) | T::ListView(_)
        )
    };
    match (from, to) {
        (T::Null, _) | (T::Dictionary(..), _) => true,
        (from, to) if is_text(to) || is_text(from) && !is_list(to) || from == to => true,
        (T::Boolean, T::Int32) | (T::Int32, T::Boolean) => true,
        (from, to) if from.is_numeric() => to.is_numeric(),
        (from, to) if is_date(from) => is_time_type(to),
        (T::Timestamp(..), to) => is_time_type(to) || is_clock(to),
        (from, to) if is_clock(from) => is_clock(to) || is_interval(to),
        (from, to) if is_interval(from) => is_interval(to) || is_clock(to),
        (from, to) if is_list(from) => is_list(to),
        (T::Binary | T::LargeBinary | T::BinaryView, to) => {
            matches!(to, T::Binary | T::LargeBinary | T::BinaryView)
        }
        (T::Boolean, _) | (_, T::Boolean) => false,
        (_, T::Binary) => false,
        // Types that have no cast there have none here either, or are no types there.
        _ => !from.is_numeric() && !to.is_numeric(),
    }
}

fn casted(expr: Expr, to: DataType, from: &DataType, zone: &str) -> DfResult<Option<Expr>> {
    if !has_cast(from, &to) {
        return Err(failure(
            ErrorKind::CannotCast,
            format!("cannot cast type {} to {}", type_name(from), type_name(&to)),
        ));
    }
    if is_text(from) && target(&to).is_some() {
        return target(&to).map(|to| read_as(expr, to, zone)).transpose();
    }
    Ok(match (from, &to) {
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, None)) => {
            Some(times::in_session(zone, expr))
        }
        (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => {
            Some(times::in_session(zone, expr))
        }
        (from, DataType::Timestamp(_, Some(_))) if is_date(from) => {
            Some(brought(expr, from, &to, zone)?)
        }
        // Nanoseconds reach from 1677 to 2262 alone.
        (_, DataType::Timestamp(unit, zone)) if *unit != MICROS => {
            Some(cast(expr, DataType::Timestamp(MICROS, zone.clone())))
        }
        _ => None,
    })
}

fn is_arithmetic(op: Operator) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    matches!(op, Plus | Minus | Multiply | Divide | Modulo)
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(
        op,
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
    )
}

fn binary(mut of: BinaryExpr, schema: &DFSchema, zone: &str) -> DfResult<Transformed<Expr>> {
    use Operator::{Minus, Plus};
    let (Ok(left), Ok(right)) = (of.left.get_type(schema), of.right.get_type(schema)) else {
        return Ok(Transformed::no(Expr::BinaryExpr(of)));
    };
    let is_interval = |of: &DataType| matches!(of, DataType::Interval(_) | DataType::Duration(_));
    let moment = DataType::Timestamp(MICROS, None);
    // One whose type was not known before, of a parameter.
    if of.op == Operator::Divide && is_numeric_quotient(&left, &right) {
        return Ok(Transformed::yes(
            Operation::Quotient.of(vec![*of.left, *of.right]),
        ));
    }
    let mut is_changed = true;
    match of.op {
        Plus | Minus if is_date(&left) && is_interval(&right) => {
            of.left = Box::new(cast(*of.left, moment));
        }
        Plus if is_interval(&left) && is_date(&right) => {
            of.right = Box::new(cast(*of.right, moment));
        }
        Operator::Modulo if is_float(&left) || is_float(&right) => {
            return Err(failure(
                ErrorKind::UndefinedFunction,
                format!(
                    "operator does not exist: {} % {}",
                    type_name(&left),
                    type_name(&right)
                ),
            ));
        }
        // Dates by themselves are days apart.
        Minus if is_date(&left) && is_date(&right) => {
            let days = Expr::BinaryExpr(of);
            return Ok(Transformed::yes(cast(days, DataType::Int32)));
        }
        op if is_comparison(op)
            || is_arithmetic(op) && left.is_numeric() && right.is_numeric()
            || op == Minus && is_time_type(&left) && is_time_type(&right) && left != right =>
        {
            is_changed = together(
                vec![&mut of.left, &mut of.right],
                Meeting::Operator,
                schema,
                zone,
            )?;
        }
        _ => is_changed = false,
    }
    Ok(changed(Expr::BinaryExpr(of), is_changed))
}

/// Functions whose arguments are of one type.
const OF_ONE_TYPE: [&str; 4] = ["coalesce", "greatest", "least", "nullif"];

fn function(
    mut call: ScalarFunction,
    schema: &DFSchema,
    zone: &str,
) -> DfResult<Transformed<Expr>> {
    let name = call.func.name().to_owned();
    if name == "nullif"
        && let Some(chosen) = null_if_equal(&call.args, schema, zone)?
    {
        return Ok(Transformed::yes(chosen));
    }
    if OF_ONE_TYPE.contains(&name.as_str()) {
        let is_changed = together(
            call.args.iter_mut().collect(),
            Meeting::Choice,
            schema,
            zone,
        )?;
        return Ok(changed(Expr::ScalarFunction(call), is_changed));
    }
    let mut is_changed = false;
    match name.as_str() {
        "date_trunc" => {
            if let Some(time) = call.args.get_mut(1)
                && time.get_type(schema).is_ok_and(|of| is_date(&of))
            {
                let day = cast(time.clone(), DataType::Timestamp(MICROS, None));
                *time = times::in_session(zone, day);
                is_changed = true;
            }
        }
        times::TIMEZONE => {
            if let Some(time) = call.args.get_mut(1)
                && time.get_type(schema).is_ok_and(|of| is_date(&of))
                && !call
                    .func
                    .inner()
                    .downcast_ref::<times::Timezone>()
                    .is_some_and(times::Timezone::is_session)
            {
                let day = cast(time.clone(), DataType::Timestamp(MICROS, None));
                *time = times::in_session(zone, day);
                is_changed = true;
            }
        }
        // Of moments it is computed as they are shown.
        "age" => {
            let mut types = Vec::new();
            for time in &call.args {
                types.push(time.get_type(schema)?);
            }
            // Beside one with a zone all are moments.
            let has_zone = |of: &DataType| matches!(of, DataType::Timestamp(_, Some(_)));
            let are_moments = types.iter().any(has_zone);
            let moment = DataType::Timestamp(MICROS, are_moments.then(|| zone.into()));
            for (time, of) in call.args.iter_mut().zip(types) {
                if !is_time_type(&of) && !is_text(&of) {
                    continue;
                }
                *time = brought(time.clone(), &of, &moment, zone)?;
                if are_moments {
                    *time = times::in_session(zone, time.clone());
                }
                is_changed = true;
            }
        }
        // In a SELECT list.
        "generate_series" => {
            let mut types = Vec::new();
            for bound in &call.args {
                types.push(bound.get_type(schema)?);
            }
            if !types.iter().all(|of| of.is_integer() || of.is_null()) {
                let types: Vec<_> = types.iter().map(type_name).collect();
                let what = format!("generate_series of {} in a SELECT list", types.join(", "));
                return Err(failure(
                    ErrorKind::Unsupported,
                    format!("{what} is not supported"),
                ));
            }
            let is_bigint = |of: &DataType| *of == DataType::Int64;
            if !types.iter().any(is_bigint) {
                let series = Expr::ScalarFunction(call);
                let item = Field::new_list_field(DataType::Int32, true);
                return Ok(Transformed::yes(cast(series, DataType::List(item.into()))));
            }
        }
        // That of a numeric is one.
        "signum"
            if matches!(
                call.args.first().map(|arg| arg.get_type(schema)),
                Some(Ok(DataType::Decimal128(..) | DataType::Decimal256(..)))
            ) =>
        {
            let sign = Expr::ScalarFunction(call);
            return Ok(Transformed::yes(cast(sign, DataType::Decimal128(1, 0))));
        }
        "array_has_all" | "array_has_any" => {
            if let Some(meant) = super::arrays::of_sets(&name) {
                call.func = meant;
                is_changed = true;
            }
        }
        "array_position" | "array_ndims" | "cardinality" | "regexp_count" | "regexp_instr" => {
            let place = Expr::ScalarFunction(call);
            return Ok(Transformed::yes(cast(place, DataType::Int32)));
        }
        // Here a boolean is a letter, elsewhere a word.
        "concat" | "concat_ws" | "format" => {
            for arg in &mut call.args {
                if arg.get_type(schema).is_ok_and(|of| of == DataType::Boolean) {
                    let word = cast(arg.clone(), DataType::Utf8);
                    *arg = datafusion::functions::unicode::left().call(vec![word, lit(1_i64)]);
                    is_changed = true;
                }
            }
        }
        "character_length" | "char_length" | "length"
            if matches!(
                call.args.first().map(|arg| arg.get_type(schema)),
                Some(Ok(DataType::Binary
                    | DataType::LargeBinary
                    | DataType::BinaryView))
            ) =>
        {
            call.func = datafusion::functions::string::octet_length();
            is_changed = true;
        }
        _ => {}
    }
    Ok(changed(Expr::ScalarFunction(call), is_changed))
}

/// `nullif` of two types: they are compared as one, and the answer is the first as it is.
fn null_if_equal(args: &[Expr], schema: &DFSchema, zone: &str) -> DfResult<Option<Expr>> {
    let [first, second] = args else {
        return Ok(None);
    };
    let (Ok(left), Ok(right)) = (first.get_type(schema), second.get_type(schema)) else {
        return Ok(None);
    };
    let is_typed = |expr: &Expr, of: &DataType| !of.is_null() && !is_text_literal(expr);
    if left == right || !is_typed(first, &left) || !is_typed(second, &right) {
        return Ok(None);
    }
    let equal = BinaryExpr::new(
        Box::new(first.clone()),
        Operator::Eq,
        Box::new(second.clone()),
    );
    let equal = binary(equal, schema, zone)?.data;
    let nothing = lit(ScalarValue::try_from(&left)?);
    when(equal, nothing).otherwise(first.clone()).map(Some)
}

fn changed(expr: Expr, is_changed: bool) -> Transformed<Expr> {
    if is_changed {
        Transformed::yes(expr)
    } else {
        Transformed::no(expr)
    }
}

/// One expression, whose parts have been before.
pub(super) fn coerced(expr: Expr, schema: &DFSchema, zone: &str) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::Cast(Cast { expr, field }) => {
            let to = field.data_type().clone();
            let done = match expr.get_type(schema) {
                Ok(from) if !matches!(*expr, Expr::Placeholder(_)) => {
                    casted((*expr).clone(), to, &from, zone)?
                }
                // A parameter has the type of its cast.
                Ok(_) | Err(_) => None,
            };
            Ok(match done {
                Some(done) => Transformed::yes(done),
                None => Transformed::no(Expr::Cast(Cast { expr, field })),
            })
        }
        Expr::BinaryExpr(of) => binary(of, schema, zone),
        Expr::Negative(inner) => {
            let of = inner.get_type(schema);
            Ok(if matches!(of, Ok(DataType::Interval(_))) {
                Transformed::yes(Scaling::Negated.of(vec![*inner]))
            } else {
                Transformed::no(Expr::Negative(inner))
            })
        }
        Expr::Case(mut case) => {
            let is_changed = in_case(&mut case, schema, zone)?;
            Ok(changed(Expr::Case(case), is_changed))
        }
        Expr::InList(InList {
            mut expr,
            mut list,
            negated,
        }) => {
            let values = std::iter::once(&mut *expr).chain(&mut list).collect();
            let is_changed = together(values, Meeting::Operator, schema, zone)?;
            Ok(changed(
                Expr::InList(InList::new(expr, list, negated)),
                is_changed,
            ))
        }
        Expr::Between(Between {
            mut expr,
            negated,
            mut low,
            mut high,
        }) => {
            let is_changed = together(
                vec![&mut expr, &mut low, &mut high],
                Meeting::Operator,
                schema,
                zone,
            )?;
            let between = Between::new(expr, negated, low, high);
            Ok(changed(Expr::Between(between), is_changed))
        }
        Expr::ScalarFunction(call) => function(call, schema, zone),
        other => Ok(Transformed::no(other)),
    }
}

/// A CASE is known by the type of its first value before DataFusion brings types together, and the
/// others would be cut.
fn in_case(case: &mut Case, schema: &DFSchema, zone: &str) -> DfResult<bool> {
    let mut is_changed = {
        let thens = case
            .when_then_expr
            .iter_mut()
            .map(|(_, value)| &mut **value);
        together(
            thens
                .chain(case.else_expr.iter_mut().map(|v| &mut **v))
                .collect(),
            Meeting::Choice,
            schema,
            zone,
        )?
    };
    let mut typed = Vec::new();
    let thens = case
        .when_then_expr
        .iter_mut()
        .map(|(_, value)| &mut **value);
    for value in thens.chain(case.else_expr.iter_mut().map(|v| &mut **v)) {
        match value.get_type(schema) {
            Ok(DataType::Null) => {}
            Ok(of) => typed.push((value, of)),
            Err(_) => return Ok(is_changed),
        }
    }
    let types: Vec<DataType> = typed.iter().map(|(_, of)| of.clone()).collect();
    if types.iter().all(DataType::is_numeric)
        && let Some(one) = type_union_resolution(&types)
    {
        for (value, of) in typed {
            if of != one {
                *value = cast(value.clone(), one.clone());
                is_changed = true;
            }
        }
    }
    Ok(is_changed)
}

/// The types that the parts of a UNION are brought to, column by column; nothing for a column whose
/// parts are alike, or that is left to DataFusion.
pub(super) fn of_union(union: &Union, zone: &str) -> Vec<Option<DataType>> {
    let columns = union.schema.fields().len();
    let column = |i: usize| {
        let types = union.inputs.iter().filter_map(|part| {
            let of = part.schema().fields().get(i)?.data_type();
            (*of != DataType::Null).then_some(of)
        });
        let types: Vec<&DataType> = types.collect();
        common(&types, Meeting::Choice, zone)
    };
    (0..columns).map(column).collect()
}
