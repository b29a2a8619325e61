//! Operators of numbers and times as PostgreSQL has them.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::numeric::{add, div, mul, sub};
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float32Type, Float64Type,
    IntervalMonthDayNanoType, IntervalUnit, i256,
};
use datafusion::arrow::error::ArrowError;
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::failure;
use super::intervals::Scaling;
use crate::error::ErrorKind;

/// Digits after the point of a quotient.
const QUOTIENT_SCALE: i8 = 16;

/// Says, when a statement is planned, what has another type in PostgreSQL.
#[derive(Debug)]
pub(crate) struct Operators;

fn is_decimal(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..)
    )
}

fn scale_of(of: &DataType) -> Option<i8> {
    match of {
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) => {
            Some(*s)
        }
        _ => None,
    }
}

/// Whether so many digits of a product would stand after the point that few can stand before it.
fn has_too_many_digits(left: &DataType, right: &DataType) -> bool {
    let scales = scale_of(left).zip(scale_of(right));
    scales.is_some_and(|(left, right)| left + right > QUOTIENT_SCALE + 4)
}

/// Whether a quotient of such numbers is a NUMERIC.
pub(super) fn is_numeric_quotient(left: &DataType, right: &DataType) -> bool {
    let number = |of: &DataType| of.is_integer() || is_decimal(of);
    number(left) && number(right) && !(left.is_integer() && right.is_integer())
}

/// A number that is written out: its digits and how many of them stand after the point.
fn written(expr: &Expr) -> Option<(i128, i8)> {
    let Expr::Literal(value, _) = expr else {
        return None;
    };
    match value {
        ScalarValue::Int32(number) => Some(((*number)?.into(), 0)),
        ScalarValue::Int64(number) => Some(((*number)?.into(), 0)),
        ScalarValue::Decimal128(number, _, scale) if *scale >= 0 => Some(((*number)?, *scale)),
        _ => None,
    }
}

/// The place and the value of the first digit to the base of 10,000, in which PostgreSQL computes.
fn first_digit((number, scale): (i128, i8)) -> (i32, u32) {
    let digits = number.unsigned_abs().to_string();
    if number == 0 {
        return (0, 0);
    }
    let exponent = digits.len() as i32 - 1 - i32::from(scale);
    let place = exponent.div_euclid(4);
    let length = exponent.rem_euclid(4) as usize + 1;
    let digit = digits.bytes().chain(std::iter::repeat(b'0')).take(length);
    let digit = digit.fold(0, |all, digit| all * 10 + u32::from(digit - b'0'));
    (place, digit)
}

/// The quotient of two numbers that are written out, with all digits that PostgreSQL gives it: 16
/// that count, in steps of four.
fn written_quotient(left: &Expr, right: &Expr) -> Option<Expr> {
    let ((dividend, left_scale), (divisor, right_scale)) = (written(left)?, written(right)?);
    if divisor == 0 {
        return None;
    }
    let (left_place, left_digit) = first_digit((dividend, left_scale));
    let (right_place, right_digit) = first_digit((divisor, right_scale));
    let place = left_place - right_place - i32::from(left_digit <= right_digit);
    let scale = (16 - place * 4)
        .max(left_scale.into())
        .max(right_scale.into());
    let shift = u32::try_from(scale + i32::from(right_scale) - i32::from(left_scale)).ok()?;
    let dividend = i256::from_i128(dividend).checked_mul(power_of_ten(shift)?)?;
    let quotient = rounded(dividend, i256::from_i128(divisor)).ok()?;
    let scale = i8::try_from(scale).ok().filter(|scale| *scale <= 38)?;
    let value = ScalarValue::Decimal128(Some(quotient), DECIMAL128_MAX_PRECISION, scale);
    Some(Expr::Literal(value, None))
}

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawBinaryExpr>> {
        if let Some(found) = super::json::operator(&expr, schema)? {
            return Ok(PlannerResult::Planned(found));
        }
        let types = (expr.left.get_type(schema), expr.right.get_type(schema));
        let (Ok(left), Ok(right)) = types else {
            return Ok(PlannerResult::Original(expr));
        };
        let is_interval =
            |of: &DataType| matches!(of, DataType::Interval(_) | DataType::Duration(_));
        let scaled = match expr.op {
            BinaryOperator::Multiply if is_interval(&left) && right.is_numeric() => {
                Some(Scaling::Times.of(vec![expr.left.clone(), expr.right.clone()]))
            }
            BinaryOperator::Multiply if left.is_numeric() && is_interval(&right) => {
                Some(Scaling::Times.of(vec![expr.right.clone(), expr.left.clone()]))
            }
            BinaryOperator::Divide if is_interval(&left) && right.is_numeric() => {
                Some(Scaling::By.of(vec![expr.left.clone(), expr.right.clone()]))
            }
            _ => None,
        };
        if let Some(scaled) = scaled {
            return Ok(PlannerResult::Planned(scaled));
        }
        if expr.op == BinaryOperator::Divide
            && is_numeric_quotient(&left, &right)
            && let Some(quotient) = written_quotient(&expr.left, &expr.right)
        {
            return Ok(PlannerResult::Planned(quotient));
        }
        let operation = match expr.op {
            BinaryOperator::Divide if is_numeric_quotient(&left, &right) => Operation::Quotient,
            BinaryOperator::Multiply if has_too_many_digits(&left, &right) => Operation::Product,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(PlannerResult::Planned(
            operation.of(vec![expr.left, expr.right]),
        ))
    }
}

/// What is computed in another way than DataFusion does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    /// Of floats; a division by zero is an error.
    Divide,
    /// Of decimals.
    Quotient,
    /// Of decimals that have many digits after the point.
    Product,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Computed {
    operation: Operation,
    signature: Signature,
}

impl Operation {
    /// Those that DataFusion computes without a check, by their operators and types.
    pub fn checked(op: Operator, of: &DataType) -> Option<Self> {
        match op {
            Operator::Plus if of.is_integer() => Some(Self::Add),
            Operator::Minus if of.is_integer() => Some(Self::Subtract),
            Operator::Multiply if of.is_integer() => Some(Self::Multiply),
            Operator::Divide if of.is_floating() => Some(Self::Divide),
            Operator::Plus if of.is_floating() => Some(Self::Add),
            Operator::Minus if of.is_floating() => Some(Self::Subtract),
            Operator::Multiply if of.is_floating() => Some(Self::Multiply),
            _ => None,
        }
    }

    pub fn of(self, args: Vec<Expr>) -> Expr {
        let computed = Computed {
            operation: self,
            signature: Signature::any(2, Volatility::Immutable),
        };
        ScalarUDF::from(computed).call(args)
    }
}

impl ScalarUDFImpl for Computed {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "add",
            Operation::Subtract => "subtract",
            Operation::Multiply => "multiply",
            Operation::Divide => "divide",
            Operation::Quotient => "quotient",
            Operation::Product => "product",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(match self.operation {
            Operation::Quotient | Operation::Product => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, QUOTIENT_SCALE)
            }
            _ => types[0].clone(),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = &arrays[..] else {
            return Err(DataFusionError::Internal(
                "an operator has two sides".into(),
            ));
        };
        let result = match self.operation {
            Operation::Add => finite(add(left, right), left, right),
            Operation::Subtract => finite(sub(left, right), left, right),
            Operation::Multiply => finite(mul(left, right), left, right),
            Operation::Divide => divided(left, right),
            Operation::Quotient => quotient(left, right),
            Operation::Product => product(left, right),
        }?;
        if is_scalar {
            return datafusion::common::ScalarValue::try_from_array(&result, 0)
                .map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn division_by_zero() -> DataFusionError {
    failure(ErrorKind::DivisionByZero, "division by zero")
}

/// The name of a type of whole numbers.
fn name_of(of: &DataType) -> &'static str {
    match of {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        _ => "bigint",
    }
}

fn out_of_range(error: ArrowError, of: &ArrayRef) -> DataFusionError {
    match error {
        ArrowError::ArithmeticOverflow(_) => failure(
            ErrorKind::OutOfRange,
            format!("{} out of range", name_of(of.data_type())),
        ),
        other => other.into(),
    }
}

/// The result of an operator, unless it is beyond its type: floats become infinite there, and whole
/// numbers have been refused.
fn finite(
    result: Result<ArrayRef, ArrowError>,
    left: &ArrayRef,
    right: &ArrayRef,
) -> DfResult<ArrayRef> {
    let result = result.map_err(|e| out_of_range(e, left))?;
    if !result.data_type().is_floating() {
        return Ok(result);
    }
    let floats = |of: &ArrayRef| -> DfResult<ArrayRef> { Ok(cast(of, &DataType::Float64)?) };
    let results = floats(&result)?;
    let results = results.as_primitive::<Float64Type>();
    if results.iter().flatten().all(f64::is_finite) {
        return Ok(result);
    }
    let (left, right) = (floats(left)?, floats(right)?);
    let pairs = left
        .as_primitive::<Float64Type>()
        .iter()
        .zip(right.as_primitive::<Float64Type>());
    let is_finite = |of: Option<f64>| of.is_some_and(f64::is_finite);
    let overflows = |((l, r), result): ((Option<f64>, Option<f64>), Option<f64>)| {
        result.is_some_and(f64::is_infinite) && is_finite(l) && is_finite(r)
    };
    if pairs.zip(results).any(overflows) {
        return Err(failure(
            ErrorKind::OutOfRange,
            "value out of range: overflow",
        ));
    }
    Ok(result)
}

fn divided(left: &ArrayRef, right: &ArrayRef) -> DfResult<ArrayRef> {
    let is_zero = match right.data_type() {
        DataType::Float64 => {
            let (left, right) = (
                left.as_primitive::<Float64Type>(),
                right.as_primitive::<Float64Type>(),
            );
            let mut pairs = left.iter().zip(right.iter());
            pairs.any(|(l, r)| r == Some(0.0) && l.is_some_and(|l| !l.is_nan()))
        }
        DataType::Float32 => {
            let (left, right) = (
                left.as_primitive::<Float32Type>(),
                right.as_primitive::<Float32Type>(),
            );
            let mut pairs = left.iter().zip(right.iter());
            pairs.any(|(l, r)| r == Some(0.0) && l.is_some_and(|l| !l.is_nan()))
        }
        _ => false,
    };
    if is_zero {
        return Err(division_by_zero());
    }
    finite(div(left, right), left, right)
}

/// A number as a decimal, and its scale.
fn decimal(of: &ArrayRef) -> DfResult<(Decimal128Array, i8)> {
    let (precision, scale) = match of.data_type() {
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            (*p, *s)
        }
        _ => (20, 0),
    };
    let wide = cast(of, &DataType::Decimal128(precision, scale))?;
    Ok((wide.as_primitive::<Decimal128Type>().clone(), scale))
}

fn power_of_ten(exponent: u32) -> Option<i256> {
    i256::from_i128(10).checked_pow(exponent)
}

/// Divides, rounding half away from zero.
fn rounded(dividend: i256, divisor: i256) -> DfResult<i128> {
    let (whole, rest) = (dividend / divisor, dividend % divisor);
    let twice = rest.wrapping_abs().checked_mul(i256::from_i128(2));
    let away = twice.ok_or_else(overflow)? >= divisor.wrapping_abs();
    let is_positive = (dividend < i256::ZERO) == (divisor < i256::ZERO);
    let one = i256::from_i128(if is_positive { 1 } else { -1 });
    let rounded = if away { whole.wrapping_add(one) } else { whole };
    let most = power_of_ten(u32::from(DECIMAL128_MAX_PRECISION)).ok_or_else(overflow)?;
    if rounded.wrapping_abs() >= most {
        return Err(overflow());
    }
    rounded.to_i128().ok_or_else(overflow)
}

fn overflow() -> DataFusionError {
    failure(ErrorKind::OutOfRange, "value overflows numeric format")
}

/// Computes a decimal of each pair.
fn decimals(
    left: &Decimal128Array,
    right: &Decimal128Array,
    compute: impl Fn(i256, i256) -> DfResult<i128>,
) -> DfResult<ArrayRef> {
    let pairs = left.iter().zip(right.iter());
    let values = pairs.map(|pair| match pair {
        (Some(l), Some(r)) => compute(i256::from_i128(l), i256::from_i128(r)).map(Some),
        _ => Ok(None),
    });
    let values = values.collect::<DfResult<Decimal128Array>>()?;
    let typed = values.with_precision_and_scale(DECIMAL128_MAX_PRECISION, QUOTIENT_SCALE)?;
    Ok(Arc::new(typed))
}

fn quotient(left: &ArrayRef, right: &ArrayRef) -> DfResult<ArrayRef> {
    let ((left, left_scale), (right, right_scale)) = (decimal(left)?, decimal(right)?);
    let shift = i32::from(QUOTIENT_SCALE) + i32::from(right_scale) - i32::from(left_scale);
    let factor = power_of_ten(shift.unsigned_abs()).ok_or_else(overflow)?;
    decimals(&left, &right, |l, r| {
        if r == i256::ZERO {
            return Err(division_by_zero());
        }
        if shift >= 0 {
            rounded(l.checked_mul(factor).ok_or_else(overflow)?, r)
        } else {
            rounded(l, r.checked_mul(factor).ok_or_else(overflow)?)
        }
    })
}

fn product(left: &ArrayRef, right: &ArrayRef) -> DfResult<ArrayRef> {
    let ((left, left_scale), (right, right_scale)) = (decimal(left)?, decimal(right)?);
    let shift = i32::from(left_scale) + i32::from(right_scale) - i32::from(QUOTIENT_SCALE);
    let factor = power_of_ten(shift.unsigned_abs()).ok_or_else(overflow)?;
    decimals(&left, &right, |l, r| {
        rounded(l.checked_mul(r).ok_or_else(overflow)?, factor)
    })
}

/// How long an interval is, nanoseconds, by which PostgreSQL compares it: a month has 30 days.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    signature: Signature,
}

const NANOS_A_DAY: i128 = 86_400_000_000_000;

pub(super) fn length(interval: Expr) -> Expr {
    let length = Length {
        signature: Signature::any(1, Volatility::Immutable),
    };
    ScalarUDF::from(length).call(vec![interval])
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &str {
        "interval_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let intervals = cast(&arrays[0], &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>().iter();
        let lengths = intervals.map(|interval| {
            let interval = interval?;
            let days = i128::from(interval.months) * 30 + i128::from(interval.days);
            Some(days * NANOS_A_DAY + i128::from(interval.nanoseconds))
        });
        let lengths = lengths.collect::<Decimal128Array>();
        let lengths = lengths.with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?;
        Ok(ColumnarValue::Array(Arc::new(lengths)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_quotients_have_postgresqls_digits() {
        let number = |text: &str| {
            let scale = text.split_once('.').map_or(0, |(_, rest)| rest.len());
            let digits = text.replace('.', "").parse().expect("digits");
            let value = ScalarValue::Decimal128(Some(digits), 38, scale as i8);
            Expr::Literal(value, None)
        };
        for (left, right, quotient) in [
            ("2.0", "3", "0.66666666666666666667"),
            ("1", "2.0", "0.50000000000000000000"),
            ("1.0", "1", "1.00000000000000000000"),
            ("10000", "3.0", "3333.3333333333333333"),
            ("-7", "2.00", "-3.5000000000000000"),
            ("0", "7.0", "0.00000000000000000000"),
            ("99999.99", "0.0001", "999999900.00000000"),
        ] {
            let found = written_quotient(&number(left), &number(right)).expect(left);
            let scale = quotient.split_once('.').map_or(0, |(_, rest)| rest.len());
            let digits = quotient.replace('.', "").parse::<i128>().expect("digits");
            assert_eq!(
                written(&found),
                Some((digits, scale as i8)),
                "{left} / {right}"
            );
        }
    }
}
