//! Rows as PostgreSQL's DataRow messages, text and binary.
//!
//! The type of a column is matched once a batch, not once a value: each column becomes a typed view, and writing a value is
//! one match on that view.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray, RecordBatch, StringArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, SchemaRef, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::types::pg_type;
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::session::Zone;

/// Days and microseconds between PostgreSQL's epoch, 2000-01-01, and 1970-01-01.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// How a column is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Binary,
}

/// What a result's columns need to be written.
pub(super) struct RowEncoder {
    formats: Vec<Format>,
    /// The types that columns are brought to before they are written.
    types: Vec<DataType>,
    zone: Zone,
}

/// A batch, ready to be written row by row.
pub(super) struct Columns {
    columns: Vec<(Column, Format)>,
    zone: Zone,
}

enum Column {
    Bool(BooleanArray),
    Int2(PrimitiveArray<Int16Type>),
    Int4(PrimitiveArray<Int32Type>),
    Int8(PrimitiveArray<Int64Type>),
    Float4(PrimitiveArray<Float32Type>),
    Float8(PrimitiveArray<Float64Type>),
    Numeric(Decimal128Array, usize),
    Text(StringArray),
    Bytea(BinaryArray),
    Date(PrimitiveArray<Date32Type>),
    Timestamp(PrimitiveArray<TimestampMicrosecondType>, bool),
    Time(PrimitiveArray<Time64MicrosecondType>),
    Interval(PrimitiveArray<IntervalMonthDayNanoType>),
    List { offsets: Vec<usize>, nulls: ArrayRef, items: Box<Column>, oid: u32, is_text: bool },
}

/// The type in which a column is written; what has no form of its own is shown as Arrow shows it.
fn written_as(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Boolean | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Float32 | DataType::Float64 => {
            data_type.clone()
        }
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => DataType::Decimal128(*p, *s),
        DataType::Decimal256(_, s) => DataType::Decimal128(38, *s),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, value) => written_as(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(item.as_ref().clone().with_data_type(written_as(item.data_type())).into())
        }
        _ => DataType::Utf8,
    }
}

impl RowEncoder {
    pub fn new(schema: &SchemaRef, formats: &[Format], zone: &str) -> Self {
        let utc = Zone::Named(chrono_tz::UTC);
        Self {
            formats: formats.to_vec(),
            types: schema.fields().iter().map(|f| written_as(f.data_type())).collect(),
            zone: Zone::parse(zone).unwrap_or(utc),
        }
    }

    /// Brings the columns of a batch to the types they are written in.
    pub fn columns(&self, batch: &RecordBatch) -> Result<Columns, Error> {
        let columns = batch.columns().iter().zip(&self.types).zip(&self.formats).map(|((array, wanted), format)| {
            let array = bring_to(array, wanted)?;
            Ok((Column::new(&array)?, *format))
        });
        Ok(Columns { columns: columns.collect::<Result<_, Error>>()?, zone: self.zone })
    }
}

fn bring_to(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, Error> {
    if array.data_type() == wanted {
        return Ok(array.clone());
    }
    let nested = matches!(
        array.data_type(),
        DataType::Struct(_)
            | DataType::Map(..)
            | DataType::Union(..)
            | DataType::Null
            | DataType::ListView(_)
            | DataType::LargeListView(_)
    );
    if *wanted == DataType::Utf8 && nested {
        let options = FormatOptions::default();
        let shown = ArrayFormatter::try_new(array, &options).map_err(|e| from_datafusion(e.into()))?;
        let text = (0..array.len()).map(|i| (!array.is_null(i)).then(|| shown.value(i).to_string()));
        let text = if array.data_type() == &DataType::Null { StringArray::new_null(array.len()) } else { text.collect() };
        return Ok(std::sync::Arc::new(text));
    }
    cast(array, wanted).map_err(|e| from_datafusion(e.into()))
}

impl Column {
    fn new(array: &ArrayRef) -> Result<Self, Error> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Int16 => Self::Int2(array.as_primitive().clone()),
            DataType::Int32 => Self::Int4(array.as_primitive().clone()),
            DataType::Int64 => Self::Int8(array.as_primitive().clone()),
            DataType::Float32 => Self::Float4(array.as_primitive().clone()),
            DataType::Float64 => Self::Float8(array.as_primitive().clone()),
            DataType::Decimal128(_, scale) => Self::Numeric(array.as_primitive().clone(), usize::try_from(*scale).unwrap_or(0)),
            DataType::Utf8 => Self::Text(array.as_string().clone()),
            DataType::Binary => Self::Bytea(array.as_binary().clone()),
            DataType::Date32 => Self::Date(array.as_primitive().clone()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Self::Timestamp(array.as_primitive().clone(), zone.is_some()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(array.as_primitive().clone()),
            DataType::Interval(IntervalUnit::MonthDayNano) => Self::Interval(array.as_primitive().clone()),
            DataType::List(item) => {
                let list = array.as_list::<i32>();
                let items = Column::new(list.values())?;
                Self::List {
                    offsets: list.value_offsets().iter().map(|o| *o as usize).collect(),
                    nulls: array.clone(),
                    is_text: matches!(items, Self::Text(_)),
                    items: Box::new(items),
                    oid: pg_type(item.data_type()).oid(),
                }
            }
            other => return Err(Error::internal(format!("a column of type {other} has no form on the wire"))),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(a) => a.is_null(row),
            Self::Int2(a) => a.is_null(row),
            Self::Int4(a) => a.is_null(row),
            Self::Int8(a) => a.is_null(row),
            Self::Float4(a) => a.is_null(row),
            Self::Float8(a) => a.is_null(row),
            Self::Numeric(a, _) => a.is_null(row),
            Self::Text(a) => a.is_null(row),
            Self::Bytea(a) => a.is_null(row),
            Self::Date(a) => a.is_null(row),
            Self::Timestamp(a, _) => a.is_null(row),
            Self::Time(a) => a.is_null(row),
            Self::Interval(a) => a.is_null(row),
            Self::List { nulls, .. } => nulls.is_null(row),
        }
    }

    fn text(&self, row: usize, zone: &Zone, out: &mut BytesMut) {
        match self {
            Self::Bool(a) => out.put_slice(if a.value(row) { b"t" } else { b"f" }),
            Self::Int2(a) => display(out, a.value(row)),
            Self::Int4(a) => display(out, a.value(row)),
            Self::Int8(a) => display(out, a.value(row)),
            Self::Float4(a) => float(out, &format!("{:e}", a.value(row)), a.value(row).into(), 6),
            Self::Float8(a) => float(out, &format!("{:e}", a.value(row)), a.value(row), 15),
            Self::Numeric(a, scale) => numeric_text(out, a.value(row), *scale),
            Self::Text(a) => out.put_slice(a.value(row).as_bytes()),
            Self::Bytea(a) => {
                out.put_slice(b"\\x");
                out.put_slice(hex::encode(a.value(row)).as_bytes());
            }
            Self::Date(a) => date(out, a.value(row)),
            Self::Timestamp(a, with_zone) => timestamp(out, a.value(row), with_zone.then_some(zone)),
            Self::Time(a) => time(out, a.value(row)),
            Self::Interval(a) => interval(out, a.value(row)),
            Self::List { offsets, items, is_text, .. } => {
                out.put_u8(b'{');
                for i in offsets[row]..offsets[row + 1] {
                    if i > offsets[row] {
                        out.put_u8(b',');
                    }
                    if items.is_null(i) {
                        out.put_slice(b"NULL");
                    } else if *is_text {
                        let mut item = BytesMut::new();
                        items.text(i, zone, &mut item);
                        array_item(out, &item);
                    } else if matches!(**items, Self::Timestamp(..) | Self::Interval(_)) {
                        out.put_u8(b'"');
                        items.text(i, zone, out);
                        out.put_u8(b'"');
                    } else {
                        items.text(i, zone, out);
                    }
                }
                out.put_u8(b'}');
            }
        }
    }

    fn binary(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Self::Bool(a) => out.put_u8(a.value(row).into()),
            Self::Int2(a) => out.put_i16(a.value(row)),
            Self::Int4(a) => out.put_i32(a.value(row)),
            Self::Int8(a) => out.put_i64(a.value(row)),
            Self::Float4(a) => out.put_f32(a.value(row)),
            Self::Float8(a) => out.put_f64(a.value(row)),
            Self::Numeric(a, scale) => numeric_binary(out, a.value(row), *scale),
            Self::Text(a) => out.put_slice(a.value(row).as_bytes()),
            Self::Bytea(a) => out.put_slice(a.value(row)),
            Self::Date(a) => out.put_i32(a.value(row).checked_sub(EPOCH_DAYS).ok_or_else(out_of_range)?),
            Self::Timestamp(a, _) => out.put_i64(a.value(row).checked_sub(EPOCH_MICROS).ok_or_else(out_of_range)?),
            Self::Time(a) => out.put_i64(a.value(row)),
            Self::Interval(a) => {
                let v = a.value(row);
                out.put_i64(v.nanoseconds / 1000);
                out.put_i32(v.days);
                out.put_i32(v.months);
            }
            Self::List { offsets, items, oid, .. } => {
                let range = offsets[row]..offsets[row + 1];
                if range.is_empty() {
                    out.put_i32(0);
                    out.put_i32(0);
                    out.put_u32(*oid);
                    return Ok(());
                }
                if matches!(**items, Self::List { .. }) {
                    return Err(Error::unsupported("an array of arrays in binary format"));
                }
                out.put_i32(1);
                out.put_i32(range.clone().any(|i| items.is_null(i)).into());
                out.put_u32(*oid);
                out.put_i32(i32::try_from(range.len()).map_err(|_| out_of_range())?);
                out.put_i32(1);
                for i in range {
                    if items.is_null(i) {
                        out.put_i32(-1);
                    } else {
                        with_length(out, |out| items.binary(i, out))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn out_of_range() -> Error {
    Error::new(ErrorKind::OutOfRange, "value out of range for its PostgreSQL type")
}

/// Writes a value behind its length.
fn with_length(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Result<(), Error>) -> Result<(), Error> {
    let at = out.len();
    out.put_i32(0);
    write(out)?;
    let length =
        i32::try_from(out.len() - at - 4).map_err(|_| Error::new(ErrorKind::LimitExceeded, "a value is longer than 2 GiB"))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

impl Columns {
    /// Writes one DataRow. On an error nothing of the row is left in the buffer.
    pub fn row(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        out.put_u8(b'D');
        out.put_i32(0);
        let written = self.values(row, out).and_then(|()| {
            let length = i32::try_from(out.len() - start - 1);
            length.map_err(|_| Error::new(ErrorKind::LimitExceeded, "a row is longer than 2 GiB"))
        });
        match written {
            Ok(length) => {
                out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    fn values(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        let count = i16::try_from(self.columns.len()).map_err(|_| Error::new(ErrorKind::LimitExceeded, "too many columns"))?;
        out.put_i16(count);
        for (column, format) in &self.columns {
            if column.is_null(row) {
                out.put_i32(-1);
                continue;
            }
            with_length(out, |out| match format {
                Format::Text => {
                    column.text(row, &self.zone, out);
                    Ok(())
                }
                Format::Binary => column.binary(row, out),
            })?;
        }
        Ok(())
    }
}

fn display(out: &mut BytesMut, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("writing to memory does not fail");
}

/// PostgreSQL's shortest text of a float: digits up to `most` before the point, else an exponent of at least two digits.
fn float(out: &mut BytesMut, scientific: &str, value: f64, most: i32) {
    if value.is_nan() {
        return out.put_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.put_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..most).contains(&exponent) {
        // The shortest digits, with the point where it belongs.
        let negative = mantissa.starts_with('-');
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        let mut text = String::new();
        if negative {
            text.push('-');
        }
        if exponent < 0 {
            text.push_str("0.");
            text.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
            text.push_str(&digits);
        } else {
            let whole = exponent as usize + 1;
            if digits.len() <= whole {
                text.push_str(&digits);
                text.extend(std::iter::repeat_n('0', whole - digits.len()));
            } else {
                text.push_str(&digits[..whole]);
                text.push('.');
                text.push_str(&digits[whole..]);
            }
        }
        out.put_slice(text.as_bytes());
    } else {
        display(out, format_args!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()));
    }
}

fn numeric_text(out: &mut BytesMut, value: i128, scale: usize) {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.put_u8(b'-');
    }
    if scale == 0 {
        return out.put_slice(digits.as_bytes());
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    display(out, format_args!("{whole}.{fraction}"));
}

/// PostgreSQL's NUMERIC: base-10000 digits around the decimal point.
fn numeric_binary(out: &mut BytesMut, value: i128, scale: usize) {
    let groups_after = scale.div_ceil(4);
    let padding = groups_after * 4 - scale;
    let mut digits = value.unsigned_abs().to_string();
    digits.extend(std::iter::repeat_n('0', padding));
    let lead = (4 - digits.len() % 4) % 4;
    let digits = "0".repeat(lead) + &digits;
    let mut groups: Vec<i16> = (0..digits.len() / 4).map(|i| digits[i * 4..i * 4 + 4].parse().unwrap_or(0)).collect();
    let mut weight = groups.len() as i16 - groups_after as i16 - 1;
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    out.put_i16(groups.len() as i16);
    out.put_i16(if groups.is_empty() { 0 } else { weight });
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_u16(scale as u16);
    groups.into_iter().for_each(|g| out.put_i16(g));
}

fn date(out: &mut BytesMut, days: i32) {
    match chrono::NaiveDate::from_ymd_opt(1970, 1, 1).and_then(|d| d.checked_add_signed(chrono::Duration::days(days.into()))) {
        Some(date) => display(out, date.format("%Y-%m-%d")),
        None => out.put_slice(if days > 0 { b"infinity" } else { b"-infinity" }),
    }
}

fn fraction(out: &mut BytesMut, micros: u32) {
    if micros > 0 {
        let text = format!(".{micros:06}");
        out.put_slice(text.trim_end_matches('0').as_bytes());
    }
}

fn timestamp(out: &mut BytesMut, micros: i64, zone: Option<&Zone>) {
    let local = match zone {
        Some(zone) => zone.local(micros),
        None => chrono::DateTime::from_timestamp_micros(micros).map(|t| t.naive_utc()),
    };
    let Some(local) = local else {
        return out.put_slice(if micros > 0 { b"infinity" } else { b"-infinity" });
    };
    display(out, local.format("%Y-%m-%d %H:%M:%S"));
    fraction(out, local.and_utc().timestamp_subsec_micros());
    if let Some(zone) = zone {
        let offset = zone.offset_seconds(micros);
        let (sign, seconds) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        display(out, format_args!("{sign}{:02}", seconds / 3600));
        if seconds % 3600 != 0 {
            display(out, format_args!(":{:02}", seconds % 3600 / 60));
        }
    }
}

fn time(out: &mut BytesMut, micros: i64) {
    let seconds = micros / 1_000_000;
    display(out, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    fraction(out, (micros % 1_000_000).unsigned_abs() as u32);
}

/// `1 year 2 mons 3 days 04:05:06.7`
fn interval(out: &mut BytesMut, value: IntervalMonthDayNano) {
    let mut parts = Vec::new();
    let mut unit = |n: i32, one: &str| {
        if n != 0 {
            parts.push(format!("{n} {one}{}", if n == 1 { "" } else { "s" }));
        }
    };
    unit(value.months / 12, "year");
    unit(value.months % 12, "mon");
    unit(value.days, "day");
    let micros = value.nanoseconds / 1000;
    if micros != 0 || parts.is_empty() {
        let mut text = BytesMut::new();
        if micros < 0 {
            text.put_u8(b'-');
        }
        time(&mut text, micros.checked_abs().unwrap_or(i64::MAX));
        parts.push(String::from_utf8_lossy(&text).into_owned());
    }
    out.put_slice(parts.join(" ").as_bytes());
}

/// An array's text item, quoted where PostgreSQL quotes.
fn array_item(out: &mut BytesMut, item: &[u8]) {
    let plain = !item.is_empty()
        && !item.eq_ignore_ascii_case(b"null")
        && !item.iter().any(|b| matches!(b, b'{' | b'}' | b',' | b'"' | b'\\') || b.is_ascii_whitespace());
    if plain {
        return out.put_slice(item);
    }
    out.put_u8(b'"');
    for byte in item {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(f: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        f(&mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn floats_are_written_as_postgresql_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (-0.0001, "-0.0001"),
            (0.00001, "1e-05"),
            (100_000.0, "100000"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1.234_567_890_123_456_8e17, "1.2345678901234568e+17"),
            (f64::INFINITY, "Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(written(|o| float(o, &format!("{value:e}"), value, 15)), text);
        }
    }

    #[test]
    fn numerics_times_and_intervals() {
        assert_eq!(written(|o| numeric_text(o, -5, 2)), "-0.05");
        assert_eq!(written(|o| numeric_text(o, i128::MAX, 0)), i128::MAX.to_string());
        let paris = Zone::parse("Europe/Paris").expect("a zone");
        assert_eq!(written(|o| timestamp(o, 1_700_000_000_120_000, Some(&paris))), "2023-11-14 23:13:20.12+01");
        let india = Zone::parse("+05:30").expect("a zone");
        assert_eq!(written(|o| timestamp(o, 0, Some(&india))), "1970-01-01 05:30:00+05:30");
        let value = IntervalMonthDayNano { months: 14, days: 1, nanoseconds: -3_723_000_000_000 };
        assert_eq!(written(|o| interval(o, value)), "1 year 2 mons 1 day -01:02:03");
    }

    #[test]
    fn binary_numerics_have_base_10000_digits() {
        let groups = |value: i128, scale: usize| {
            let mut out = BytesMut::new();
            numeric_binary(&mut out, value, scale);
            out.chunks(2).map(|c| i16::from_be_bytes([c[0], c[1]])).collect::<Vec<_>>()
        };
        assert_eq!(groups(0, 2), [0, 0, 0, 2]);
        assert_eq!(groups(12_345, 2), [2, 0, 0, 2, 123, 4500]);
        assert_eq!(groups(-1, 5), [1, -2, 0x4000, 5, 1000]);
        assert_eq!(groups(100_000_000, 0), [1, 2, 0, 0, 1]);
    }
}
