//! Functions of numbers whose values are others in PostgreSQL, and casts to NUMERIC without a
//! scale.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::arity::unary;
use datafusion::arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::failure;
use super::type_name::type_name;
use crate::error::ErrorKind;

/// Functions of floats that DataFusion answers with infinity, or with no number at all, where
/// PostgreSQL has an error.
const PARTIAL: [&str; 21] = [
    "acos", "acosh", "asin", "atanh", "cosh", "cot", "degrees", "exp", "ln", "log", "log10",
    "log2", "pow", "power", "radians", "sinh", "sqrt", "tan", "sin", "cos", "cbrt",
];

/// One of them, or `round`, as PostgreSQL has it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    inner: Arc<ScalarUDF>,
}

/// The function in place of DataFusion's, if it is another. `args` are the types of its arguments.
pub(super) fn meant(inner: &Arc<ScalarUDF>, args: &[DataType]) -> Option<Arc<ScalarUDF>> {
    let name = inner.name();
    let is_partial = PARTIAL.contains(&name);
    let is_rounding = name == "round" && matches!(args, [DataType::Float64 | DataType::Float32]);
    let is_ours = inner.inner().is::<Checked>();
    ((is_partial || is_rounding) && !is_ours).then(|| {
        Arc::new(ScalarUDF::from(Checked {
            inner: inner.clone(),
        }))
    })
}

fn floats(of: &ArrayRef) -> DfResult<Vec<Option<f64>>> {
    let wide = cast(of, &DataType::Float64)?;
    Ok(wide.as_primitive::<Float64Type>().iter().collect())
}

impl Checked {
    /// Why a value that is no finite number came of finite ones.
    fn error(&self, args: &[f64], result: f64) -> DataFusionError {
        let is_log = ["ln", "log", "log10", "log2"].contains(&self.inner.name());
        let name = self.inner.name();
        match name {
            _ if is_log && args.contains(&0.0) => {
                failure(ErrorKind::InvalidLogarithm, "cannot take logarithm of zero")
            }
            _ if is_log => failure(
                ErrorKind::InvalidLogarithm,
                "cannot take logarithm of a negative number",
            ),
            "sqrt" => failure(
                ErrorKind::InvalidPower,
                "cannot take square root of a negative number",
            ),
            "power" | "pow" if args.first() == Some(&0.0) => failure(
                ErrorKind::InvalidPower,
                "zero raised to a negative power is undefined",
            ),
            "power" | "pow" if result.is_nan() => failure(
                ErrorKind::InvalidPower,
                "a negative number raised to a non-integer power yields a complex result",
            ),
            _ if result.is_nan() => failure(ErrorKind::OutOfRange, "input is out of range"),
            _ => failure(ErrorKind::OutOfRange, "value out of range: overflow"),
        }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        if self.name() == "round" {
            return even(&args);
        }
        let given = ColumnarValue::values_to_arrays(&args.args)?;
        let result = self.inner.invoke_with_args(args).map_err(|e| match e {
            e if e.to_string().contains("square root") => self.error(&[-1.0], f64::NAN),
            other => other,
        })?;
        let shown = result
            .clone()
            .into_array(given.first().map_or(1, |a| a.len()))?;
        if !matches!(shown.data_type(), DataType::Float32 | DataType::Float64) {
            return Ok(result);
        }
        let results = floats(&shown)?;
        if results.iter().flatten().all(|r| r.is_finite()) {
            return Ok(result);
        }
        let columns = given.iter().map(floats).collect::<DfResult<Vec<_>>>()?;
        for (i, value) in results.iter().enumerate() {
            let Some(value) = value.filter(|v| !v.is_finite()) else {
                continue;
            };
            let at = |column: &Vec<Option<f64>>| column.get(i).copied().flatten();
            let row: Vec<f64> = columns.iter().filter_map(at).collect();
            if row.iter().all(|arg| arg.is_finite()) {
                return Err(self.error(&row, value));
            }
        }
        Ok(result)
    }
}

/// Rounds floats half to even.
fn even(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
    let is_scalar = matches!(args.args[..], [ColumnarValue::Scalar(_)]);
    let arrays = ColumnarValue::values_to_arrays(&args.args)?;
    let rounded: ArrayRef = match arrays[0].data_type() {
        DataType::Float32 => {
            let values = arrays[0].as_primitive::<Float32Type>();
            Arc::new(unary::<_, _, Float32Type>(values, f32::round_ties_even))
        }
        _ => {
            let values = arrays[0].as_primitive::<Float64Type>();
            Arc::new(unary::<_, _, Float64Type>(values, f64::round_ties_even))
        }
    };
    if is_scalar {
        return ScalarValue::try_from_array(&rounded, 0).map(ColumnarValue::Scalar);
    }
    Ok(ColumnarValue::Array(rounded))
}

/// What `x::numeric` is a call of: whole numbers and decimals keep their digits, floats have 15.
pub(crate) const AS_NUMERIC: &str = "as_numeric";

/// Digits after the point of a float or a text.
const SCALE: i8 = 15;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AsNumeric {
    signature: Signature,
}

impl AsNumeric {
    pub fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

/// A decimal of the digits of a number, exactly.
fn exact(text: &str) -> DfResult<i128> {
    let bad = || {
        failure(
            ErrorKind::InvalidText,
            format!("invalid input syntax for type numeric: \"{text}\""),
        )
    };
    let far = || failure(ErrorKind::OutOfRange, "value overflows numeric format");
    let trimmed = text.trim();
    let (mantissa, exponent) = trimmed.split_once(['e', 'E']).unwrap_or((trimmed, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| bad())?;
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let fraction_digits = i32::try_from(fraction.len()).map_err(|_| far())?;
    let shift = i32::from(SCALE) + exponent - fraction_digits;
    let significant = all.trim_start_matches('0');
    let value: i128 = if significant.is_empty() {
        0
    } else {
        significant.parse().map_err(|_| far())?
    };
    if value == 0 {
        return Ok(0);
    }
    let power = 10_i128.checked_pow(shift.unsigned_abs()).ok_or_else(far)?;
    let scaled = if shift >= 0 {
        value.checked_mul(power).ok_or_else(far)?
    } else if value % power == 0 {
        value / power
    } else {
        let message = format!("a numeric of more than {SCALE} digits after the point");
        return Err(super::reading::external(
            crate::error::Error::unsupported(message).hint("Cast to NUMERIC(38, n)."),
        ));
    };
    if scaled >= 10_i128.pow(38) {
        return Err(far());
    }
    Ok(sign * scaled)
}

/// PostgreSQL's numeric of a float: its 15 first digits, 6 of a real.
fn of_float(value: f64, digits: usize) -> DfResult<i128> {
    if !value.is_finite() {
        let what = format!("a numeric that is {value}");
        return Err(super::reading::external(crate::error::Error::unsupported(
            what,
        )));
    }
    let text = format!("{value:.*e}", digits - 1);
    let exponent: i32 = text
        .split_once('e')
        .and_then(|(_, e)| e.parse().ok())
        .unwrap_or(0);
    // What lies beyond the last digit that there is room for is nothing.
    let kept = exponent + i32::from(SCALE);
    if kept < 0 {
        return Ok(0);
    }
    let kept = usize::try_from(kept).unwrap_or(0).min(digits - 1);
    exact(&format!("{value:.kept$e}"))
}

impl ScalarUDFImpl for AsNumeric {
    fn name(&self) -> &str {
        AS_NUMERIC
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        use DataType as T;
        Ok(match &types[0] {
            T::Int8 | T::UInt8 => T::Decimal128(3, 0),
            T::Int16 | T::UInt16 => T::Decimal128(5, 0),
            T::Int32 | T::UInt32 => T::Decimal128(10, 0),
            T::Int64 | T::UInt64 => T::Decimal128(20, 0),
            T::Decimal32(p, s) | T::Decimal64(p, s) | T::Decimal128(p, s) => T::Decimal128(*p, *s),
            T::Decimal256(p, s) => T::Decimal256(*p, *s),
            T::Float32 | T::Float64 | T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null => {
                T::Decimal128(38, SCALE)
            }
            other => {
                return Err(failure(
                    ErrorKind::CannotCast,
                    format!("cannot cast type {} to numeric", type_name(other)),
                ));
            }
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = matches!(args.args[..], [ColumnarValue::Scalar(_)]);
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let values = &arrays[0];
        let to = args.return_field.data_type();
        let scaled: Option<Vec<Option<i128>>> = match values.data_type() {
            DataType::Float64 | DataType::Float32 => {
                let digits = if *values.data_type() == DataType::Float32 {
                    6
                } else {
                    15
                };
                let values = floats(values)?;
                let each = values
                    .iter()
                    .map(|v| v.map(|v| of_float(v, digits)).transpose());
                Some(each.collect::<DfResult<_>>()?)
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let texts = cast(values, &DataType::Utf8)?;
                let texts = texts.as_string::<i32>();
                let each = texts.iter().map(|t| t.map(exact).transpose());
                Some(each.collect::<DfResult<_>>()?)
            }
            _ => None,
        };
        let result: ArrayRef = match scaled {
            Some(scaled) => {
                let decimals = Decimal128Array::from(scaled);
                Arc::new(decimals.with_precision_and_scale(38, SCALE)?)
            }
            None => cast(values, to)?,
        };
        if is_scalar {
            return ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(result))
    }
}
