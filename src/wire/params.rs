//! Values that clients send: parameters and binary COPY fields, as typed scalars.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::ScalarValue;
use fallible_iterator::FallibleIterator;
use postgres_protocol::types;

use super::encode::{EPOCH_DAYS, EPOCH_MICROS};
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::statement::{array_items, date_before_time, interval_text};

fn invalid(data_type: &DataType) -> Error {
    Error::new(
        ErrorKind::InvalidText,
        format!("incorrect binary data format for a value of type {data_type}"),
    )
}

/// A value in text (0) or binary (1) format as a scalar of this type.
pub(super) fn decode_parameter(
    bytes: &[u8],
    format: i16,
    data_type: &DataType,
) -> Result<ScalarValue, Error> {
    match format {
        0 => {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidText,
                    "invalid byte sequence for encoding \"UTF8\"",
                )
            })?;
            decode_text(text, data_type)
        }
        1 => decode_binary(bytes, data_type),
        other => Err(Error::new(
            ErrorKind::Protocol,
            format!("unsupported format code: {other}"),
        )),
    }
}

pub(super) fn decode_text(text: &str, data_type: &DataType) -> Result<ScalarValue, Error> {
    if let DataType::List(item) = data_type {
        let items = array_items(text).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidText,
                format!("malformed array literal: \"{text}\""),
            )
        })?;
        let values = items.into_iter().map(|value| match value {
            Some(value) => decode_text(&value, item.data_type()),
            None => ScalarValue::try_from(item.data_type()).map_err(from_datafusion),
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        return Ok(ScalarValue::List(ScalarValue::new_list(
            &values,
            item.data_type(),
            true,
        )));
    }
    // Times that PostgreSQL writes with colons, and a zone after a date, are not Arrow's.
    if let (DataType::Interval(_), Some(words)) = (data_type, interval_text(text)) {
        return decode_text(&words, data_type);
    }
    if let (DataType::Date32, Some(date)) = (data_type, date_before_time(text)) {
        return decode_text(date, data_type);
    }
    if let DataType::Binary = data_type {
        let bytes = match text.strip_prefix("\\x") {
            Some(digits) => hex::decode(digits).map_err(|_| invalid(data_type))?,
            None => text.as_bytes().to_vec(),
        };
        return Ok(ScalarValue::Binary(Some(bytes)));
    }
    if matches!(
        data_type,
        DataType::Decimal128(..) | DataType::Decimal256(..)
    ) && ["nan", "inf", "infinity"].contains(
        &text
            .trim()
            .trim_start_matches(['-', '+'])
            .to_lowercase()
            .as_str(),
    ) {
        return Err(Error::unsupported(format_args!(
            "the numeric {}",
            text.trim()
        )));
    }
    if let DataType::Decimal128(_, scale) = data_type {
        // Rounding a parameter without a word would be a wrong answer.
        let fraction = text
            .trim()
            .split_once('.')
            .map_or("", |(_, f)| f)
            .trim_end_matches('0');
        if !text.contains(['e', 'E'])
            && fraction.len() > usize::try_from(*scale).unwrap_or(0)
            && is_open_numeric(data_type)
        {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("numeric parameter \"{text}\" has more digits than its context keeps"),
            )
            .hint("Cast the parameter, as in $1::decimal(38, 20)."));
        }
    }
    let trimmed = if matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    ) {
        text
    } else {
        text.trim()
    };
    let unread = |kind| {
        let message = format!("invalid input syntax for a value of type {data_type}: \"{text}\"");
        Error::new(kind, message)
    };
    let value = ScalarValue::Utf8(Some(trimmed.to_owned()))
        .cast_to(data_type)
        .map_err(|e| unread(from_datafusion(e).kind))?;
    // What Arrow cannot read is NULL for some types.
    if value.is_null() {
        return Err(unread(ErrorKind::InvalidText));
    }
    Ok(value)
}

/// NUMERIC that no column or cast gave a scale.
fn is_open_numeric(data_type: &DataType) -> bool {
    *data_type == crate::catalog::NUMERIC
}

/// One of postgres-protocol's readers, its error in our words.
fn read<'b, T, E>(
    reader: impl Fn(&'b [u8]) -> Result<T, E>,
    bytes: &'b [u8],
    data_type: &DataType,
) -> Result<T, Error> {
    reader(bytes).map_err(|_| invalid(data_type))
}

pub(super) fn decode_binary(bytes: &[u8], data_type: &DataType) -> Result<ScalarValue, Error> {
    let overflow = || {
        Error::new(
            ErrorKind::OutOfRange,
            format!("value out of range for type {data_type}"),
        )
    };
    let value = match data_type {
        DataType::Boolean => {
            ScalarValue::Boolean(Some(read(types::bool_from_sql, bytes, data_type)?))
        }
        DataType::Int8 | DataType::Int16 => {
            ScalarValue::Int16(Some(read(types::int2_from_sql, bytes, data_type)?))
        }
        DataType::Int32 => ScalarValue::Int32(Some(read(types::int4_from_sql, bytes, data_type)?)),
        DataType::UInt32 => ScalarValue::UInt32(Some(read(types::oid_from_sql, bytes, data_type)?)),
        DataType::Int64 if bytes.len() == 4 => {
            let short = read(types::int4_from_sql, bytes, data_type)?;
            ScalarValue::Int64(Some(short.into()))
        }
        DataType::Int64 => ScalarValue::Int64(Some(read(types::int8_from_sql, bytes, data_type)?)),
        DataType::Float32 => {
            ScalarValue::Float32(Some(read(types::float4_from_sql, bytes, data_type)?))
        }
        DataType::Float64 => {
            ScalarValue::Float64(Some(read(types::float8_from_sql, bytes, data_type)?))
        }
        DataType::Decimal128(..) | DataType::Decimal256(..) => {
            let text = numeric_text(bytes).ok_or_else(|| invalid(data_type))?;
            return decode_text(&text, data_type);
        }
        DataType::Binary => ScalarValue::Binary(Some(bytes.to_vec())),
        DataType::Date32 => {
            let days = read(types::date_from_sql, bytes, data_type)?;
            ScalarValue::Date32(Some(days.checked_add(EPOCH_DAYS).ok_or_else(overflow)?))
        }
        DataType::Timestamp(_, zone) => {
            let micros = read(types::timestamp_from_sql, bytes, data_type)?
                .checked_add(EPOCH_MICROS)
                .ok_or_else(overflow)?;
            // Nanoseconds reach less far.
            if matches!(data_type, DataType::Timestamp(TimeUnit::Nanosecond, _))
                && micros.checked_mul(1000).is_none()
            {
                return Err(overflow());
            }
            ScalarValue::TimestampMicrosecond(Some(micros), zone.clone())
        }
        DataType::Time64(_) | DataType::Time32(_) => {
            const DAY: i64 = 86_400_000_000;
            let micros = read(types::time_from_sql, bytes, data_type)?;
            let of_day = Some(micros).filter(|m| (0..=DAY).contains(m));
            ScalarValue::Time64Microsecond(Some(of_day.ok_or_else(overflow)?))
        }
        DataType::Interval(_) => {
            // Microseconds, days, months; postgres-protocol has no intervals.
            let (micros, days_and_months) = bytes
                .split_at_checked(8)
                .ok_or_else(|| invalid(data_type))?;
            let (days, months) = days_and_months
                .split_at_checked(4)
                .ok_or_else(|| invalid(data_type))?;
            let micros = read(types::int8_from_sql, micros, data_type)?;
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano {
                months: read(types::int4_from_sql, months, data_type)?,
                days: read(types::int4_from_sql, days, data_type)?,
                nanoseconds: micros.checked_mul(1000).ok_or_else(overflow)?,
            }))
        }
        DataType::List(item) => {
            let values = binary_items(bytes, item.data_type())?;
            ScalarValue::List(ScalarValue::new_list(&values, item.data_type(), true))
        }
        DataType::Utf8 => return decode_parameter(bytes, 0, data_type),
        other => {
            return Err(Error::unsupported(format_args!(
                "a binary value of type {other}"
            )));
        }
    };
    // A narrower type than PostgreSQL has, such as TINYINT.
    if &value.data_type() == data_type {
        Ok(value)
    } else {
        value.cast_to(data_type).map_err(from_datafusion)
    }
}

fn binary_items(bytes: &[u8], item: &DataType) -> Result<Vec<ScalarValue>, Error> {
    let array = read(types::array_from_sql, bytes, item)?;
    let dimensions = array.dimensions().count();
    if dimensions.map_err(|_| invalid(item))? > 1 {
        return Err(Error::unsupported("an array of several dimensions"));
    }
    // Its count is the client's word: nothing is reserved by it.
    let mut values = Vec::new();
    let mut sent = array.values();
    while let Some(value) = sent.next().map_err(|_| invalid(item))? {
        values.push(match value {
            Some(value) => decode_binary(value, item)?,
            None => ScalarValue::try_from(item).map_err(from_datafusion)?,
        });
    }
    Ok(values)
}

/// The text of a binary NUMERIC, or nothing if the bytes are none.
fn numeric_text(bytes: &[u8]) -> Option<String> {
    let word = |i: usize| {
        Some(i16::from_be_bytes([
            *bytes.get(i * 2)?,
            *bytes.get(i * 2 + 1)?,
        ]))
    };
    let (count, weight, sign, scale) = (word(0)?, word(1)?, word(2)? as u16, word(3)?);
    if !matches!(sign, 0 | 0x4000)
        || count < 0
        || scale < 0
        || bytes.len() != 8 + count as usize * 2
    {
        return None;
    }
    let group = |i: i32| -> Option<i16> {
        if (0..i32::from(count)).contains(&i) {
            word(4 + i as usize).filter(|g| (0..10_000).contains(g))
        } else {
            Some(0)
        }
    };
    let mut text = String::from(if sign == 0 { "" } else { "-" });
    let weight = i32::from(weight);
    text.push_str(&if weight < 0 {
        "0".to_owned()
    } else {
        group(0)?.to_string()
    });
    for i in 1..=weight {
        text.push_str(&format!("{:04}", group(i)?));
    }
    if scale > 0 {
        let mut fraction = String::new();
        let mut i = weight + 1;
        while fraction.len() < scale as usize {
            fraction.push_str(&format!("{:04}", if i < 0 { 0 } else { group(i)? }));
            i += 1;
        }
        text.push('.');
        text.push_str(&fraction[..scale as usize]);
    }
    Some(text)
}

/// Columns of scalars as one batch of this schema.
pub(super) fn scalar_batch(
    schema: &datafusion::arrow::datatypes::SchemaRef,
    columns: Vec<Vec<ScalarValue>>,
) -> Result<datafusion::arrow::array::RecordBatch, Error> {
    let arrays = columns
        .into_iter()
        .map(|column| ScalarValue::iter_to_array(column).map_err(from_datafusion));
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    datafusion::arrow::array::RecordBatch::try_new(Arc::clone(schema), arrays)
        .map_err(|e| from_datafusion(e.into()))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn numerics_read_back() {
        for (bytes, text) in [
            (&[0, 2, 0, 0, 0, 0, 0, 2, 0, 123, 17, 148][..], "123.45"),
            (&[0, 1, 255, 254, 64, 0, 0, 5, 3, 232], "-0.00001"),
            (&[0, 0, 0, 0, 0, 0, 0, 2], "0.00"),
            (&[0, 1, 0, 2, 0, 0, 0, 0, 0, 1], "100000000"),
        ] {
            assert_eq!(numeric_text(bytes).as_deref(), Some(text));
        }
        assert_eq!(numeric_text(&[0, 9, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn an_array_may_lie_about_its_length() {
        let list = DataType::List(Field::new_list_field(DataType::Int32, true).into());
        let mut bytes = [1, 0, 23, i32::MAX, 1].map(i32::to_be_bytes).concat();
        assert!(decode_binary(&bytes, &list).is_err());
        bytes[12..16].copy_from_slice(&1i32.to_be_bytes());
        bytes.extend([4, 7].map(i32::to_be_bytes).concat());
        let array = decode_binary(&bytes, &list).expect("one item");
        assert_eq!(array.to_string(), "[7]");
    }

    #[test]
    fn malformed_binary_values_are_errors() {
        for data_type in [
            DataType::Boolean,
            DataType::Int32,
            DataType::Float64,
            DataType::Date32,
            DataType::Decimal128(10, 2),
        ] {
            for bytes in [&[][..], &[1, 2, 3], &[255; 17]] {
                assert!(
                    decode_binary(bytes, &data_type).is_err(),
                    "{data_type} {bytes:?}"
                );
            }
        }
    }
}
