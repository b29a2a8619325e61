//! Casts whose values are others in PostgreSQL: numbers are rounded, not cut off, and texts are as
//! PostgreSQL writes them.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float32Array, StringBuilder};
use datafusion::arrow::compute::kernels::arity::unary;
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, DurationMicrosecondType, Float32Type, Float64Type,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::{failure, text};
use crate::error::ErrorKind;
use crate::query::Zone;

/// A cast to a type of whole numbers, or to text.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Converted {
    to: DataType,
    signature: Signature,
}

/// Whether a cast has other values than DataFusion's.
pub(super) fn differs(from: &DataType, to: &DataType) -> bool {
    match to {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => matches!(
            from,
            DataType::Decimal128(..) | DataType::Float32 | DataType::Float64
        ),
        DataType::Utf8 => has_other_text(from),
        DataType::Float32 => *from == DataType::Float64,
        _ => false,
    }
}

fn has_other_text(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Timestamp(..)
            | DataType::Float32
            | DataType::Float64
            | DataType::Interval(_)
            | DataType::Duration(_)
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Binary
            | DataType::List(_)
    )
}

pub(super) fn converted(expr: Expr, to: &DataType) -> Expr {
    let converted = Converted {
        to: to.clone(),
        signature: Signature::any(1, Volatility::Immutable),
    };
    ScalarUDF::from(converted).call(vec![expr])
}

impl ScalarUDFImpl for Converted {
    fn name(&self) -> &str {
        match self.to {
            DataType::Utf8 => "as_text",
            _ => "as_whole_number",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = matches!(args.args[..], [ColumnarValue::Scalar(_)]);
        let [values] = ColumnarValue::values_to_arrays(&args.args)?
            .try_into()
            .map_err(|_| DataFusionError::Internal("a cast takes one value".into()))?;
        let result = match self.to {
            DataType::Utf8 => written(&values)?,
            DataType::Float32 => narrowed(&values)?,
            _ => whole(&values, &self.to)?,
        };
        if is_scalar {
            return ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// A real, unless the value is beyond those that there are.
fn narrowed(values: &ArrayRef) -> DfResult<ArrayRef> {
    let narrow = |value: f64| {
        let narrow = value as f32;
        let lost = if narrow.is_infinite() && value.is_finite() {
            "overflow"
        } else if narrow == 0.0 && value != 0.0 {
            "underflow"
        } else {
            return Ok(narrow);
        };
        Err(failure(
            ErrorKind::OutOfRange,
            format!("value out of range: {lost}"),
        ))
    };
    let values = values.as_primitive::<Float64Type>().iter();
    let narrowed = values.map(|value| value.map(narrow).transpose());
    let narrowed = narrowed.collect::<DfResult<Float32Array>>()?;
    Ok(Arc::new(narrowed))
}

/// Rounds: decimals half away from zero, floats half to even.
fn whole(values: &ArrayRef, to: &DataType) -> DfResult<ArrayRef> {
    let rounded: ArrayRef = match values.data_type() {
        DataType::Decimal128(_, scale) if *scale > 0 => {
            let factor = 10_i128.pow(scale.unsigned_abs().into());
            let values = values.as_primitive::<Decimal128Type>();
            let round = |v: i128| {
                let (whole, rest) = (v / factor, v % factor);
                whole
                    + if rest.abs() * 2 >= factor {
                        rest.signum()
                    } else {
                        0
                    }
            };
            let rounded = unary::<_, _, Decimal128Type>(values, round);
            Arc::new(rounded.with_precision_and_scale(38, 0)?)
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>();
            Arc::new(unary::<_, _, Float64Type>(values, f64::round_ties_even))
        }
        DataType::Float32 => {
            let values = values.as_primitive::<Float32Type>();
            Arc::new(unary::<_, _, Float32Type>(values, f32::round_ties_even))
        }
        _ => values.clone(),
    };
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(&rounded, to, &strict).map_err(|_| {
        let name = match to {
            DataType::Int8 | DataType::Int16 => "smallint",
            DataType::Int32 => "integer",
            _ => "bigint",
        };
        failure(ErrorKind::OutOfRange, format!("{name} out of range"))
    })
}

/// Values as PostgreSQL writes them.
fn written(values: &ArrayRef) -> DfResult<ArrayRef> {
    let mut builder = StringBuilder::new();
    let mut out = BytesMut::new();
    for_each_text(values, &mut out, &mut |text| match text {
        Some(text) => builder.append_value(String::from_utf8_lossy(text)),
        None => builder.append_null(),
    })?;
    Ok(Arc::new(builder.finish()))
}

type Take<'t> = &'t mut dyn FnMut(Option<&[u8]>);

fn each<T>(
    values: impl Iterator<Item = Option<T>>,
    out: &mut BytesMut,
    take: Take<'_>,
    write: impl Fn(&mut BytesMut, T),
) {
    for value in values {
        out.clear();
        match value {
            Some(value) => {
                write(out, value);
                take(Some(out));
            }
            None => take(None),
        }
    }
}

fn for_each_text(values: &ArrayRef, out: &mut BytesMut, take: Take<'_>) -> DfResult<()> {
    match values.data_type() {
        DataType::Timestamp(_, zone) => {
            let shown = zone.as_deref().map(|name| {
                let unknown = || DataFusionError::Internal(format!("no time zone {name}"));
                Zone::parse(name).ok_or_else(unknown)
            });
            let shown = shown.transpose()?;
            let values = cast(
                values,
                &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            )?;
            let values = values.as_primitive::<TimestampMicrosecondType>();
            each(values.iter(), out, take, |out, t| {
                text::timestamp(out, t, shown.as_ref())
            });
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>();
            each(values.iter(), out, take, |out, v| {
                text::float(out, &format!("{v:e}"), v, 15)
            });
        }
        DataType::Float32 => {
            let values = values.as_primitive::<Float32Type>();
            each(values.iter(), out, take, |out, v| {
                text::float(out, &format!("{v:e}"), f64::from(v), 6);
            });
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            let values = cast(values, &DataType::Time64(TimeUnit::Microsecond))?;
            each(
                values.as_primitive::<Time64MicrosecondType>().iter(),
                out,
                take,
                text::time,
            );
        }
        DataType::Duration(_) => {
            let values = cast(values, &DataType::Duration(TimeUnit::Microsecond))?;
            let values = values.as_primitive::<DurationMicrosecondType>();
            each(values.iter(), out, take, |out, v| {
                text::interval(out, text::apart(v));
            });
        }
        DataType::Interval(_) => {
            let values = cast(values, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let values = values.as_primitive::<IntervalMonthDayNanoType>();
            each(values.iter(), out, take, text::interval);
        }
        DataType::Binary => each(
            values.as_binary::<i32>().iter(),
            out,
            take,
            |out, v: &[u8]| {
                out.put_slice(b"\\x");
                out.put_slice(hex::encode(v).as_bytes());
            },
        ),
        DataType::Boolean => each(values.as_boolean().iter(), out, take, |out, v| {
            // In an array; by itself it is a word.
            out.put_slice(if v { b"t" } else { b"f" });
        }),
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            let mut texts = Vec::with_capacity(lists.len());
            for list in lists.iter() {
                texts.push(list.map(|items| array_text(&items)).transpose()?);
            }
            each(texts.into_iter(), out, take, |out, text: Vec<u8>| {
                out.put_slice(&text)
            });
        }
        _ => {
            let values = cast(values, &DataType::Utf8)?;
            each(
                values.as_string::<i32>().iter(),
                out,
                take,
                |out, v: &str| {
                    out.put_slice(v.as_bytes());
                },
            );
        }
    }
    Ok(())
}

fn array_text(items: &ArrayRef) -> DfResult<Vec<u8>> {
    let is_nested = matches!(items.data_type(), DataType::List(_));
    let (mut list, mut out) = (BytesMut::new(), BytesMut::new());
    list.put_u8(b'{');
    let mut is_first = true;
    for_each_text(items, &mut out, &mut |item| {
        if !std::mem::take(&mut is_first) {
            list.put_u8(b',');
        }
        match item {
            None => list.put_slice(b"NULL"),
            Some(item) if is_nested => list.put_slice(item),
            Some(item) => text::array_item(&mut list, item),
        }
    })?;
    list.put_u8(b'}');
    Ok(list.to_vec())
}
