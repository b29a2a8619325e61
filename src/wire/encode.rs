//! Rows as PostgreSQL's DataRow messages, text and binary.
//!
//! The type of a column is matched once a batch, not once a value: each column becomes a typed
//! view, and writing a value is one match on that view.

mod binary;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray,
    RecordBatch, StringArray,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, DurationMicrosecondType, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, IntervalUnit, SchemaRef, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, UInt32Type,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use postgres_types::Type;

use self::binary::with_length;
use crate::catalog::{field_type, pg_type};
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::session::Zone;
use crate::session::text::apart as days_apart;
use crate::session::text::{
    array_item, date, float, interval, numeric_text, record_item, time, timestamp,
};

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
    /// The types that columns are brought to before they are written, and what PostgreSQL calls
    /// them.
    types: Vec<(DataType, Type)>,
    writing: Writing,
}

/// How values are written as text.
#[derive(Clone, Copy, Debug)]
struct Writing {
    zone: Zone,
    /// The longest row, bytes. What is quoted inside records and arrays doubles with each level.
    most: usize,
}

impl Writing {
    fn check(&self, length: usize) -> Result<(), Error> {
        if length <= self.most {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("a row of the answer is longer than {} bytes", self.most),
        )
        .hint("Select fewer columns, or less of a value. The setting is row_bytes_max."))
    }
}

/// A batch, ready to be written row by row.
pub(super) struct Columns {
    columns: Vec<(Column, Format)>,
    writing: Writing,
}

enum Column {
    Bool(BooleanArray),
    Int2(PrimitiveArray<Int16Type>),
    Int4(PrimitiveArray<Int32Type>),
    Int8(PrimitiveArray<Int64Type>),
    Oid(PrimitiveArray<UInt32Type>),
    Float4(PrimitiveArray<Float32Type>),
    Float8(PrimitiveArray<Float64Type>),
    Numeric(Decimal128Array, usize),
    Text(StringArray),
    Bytea(BinaryArray),
    Date(PrimitiveArray<Date32Type>),
    Timestamp(PrimitiveArray<TimestampMicrosecondType>, bool),
    Time(PrimitiveArray<Time64MicrosecondType>),
    Interval(PrimitiveArray<IntervalMonthDayNanoType>),
    /// The number of an object, and its name.
    Reg(PrimitiveArray<UInt32Type>, StringArray),
    /// An address, from its text.
    Inet(StringArray),
    /// A number of any scale, from its text.
    Digits(StringArray),
    /// Its fields, each with the number of its type.
    Record(Vec<(Column, u32)>, ArrayRef),
    /// Of a vector the items stand apart by blanks, and the first one is number 0.
    List {
        offsets: Vec<usize>,
        nulls: ArrayRef,
        items: Box<Column>,
        oid: u32,
        is_text: bool,
        is_vector: bool,
    },
}

/// The type in which a column is written; what has no form of its own is shown as Arrow shows it.
fn written_as(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64 => data_type.clone(),
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::UInt32,
        DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            DataType::Decimal128(*p, *s)
        }
        // Their digits, which are NUMERIC all the same.
        DataType::Decimal256(..) => DataType::Utf8,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
        DataType::Dictionary(_, value) => written_as(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(
                item.as_ref()
                    .clone()
                    .with_data_type(written_as(item.data_type()))
                    .into(),
            )
        }
        _ => DataType::Utf8,
    }
}

impl RowEncoder {
    /// Rows of a schema, each of so many bytes at most.
    pub fn new(schema: &SchemaRef, formats: &[Format], zone: &str, row_bytes_max: usize) -> Self {
        let utc = Zone::Named(chrono_tz::UTC);
        Self {
            formats: formats.to_vec(),
            types: schema
                .fields()
                .iter()
                .map(|f| (written_as(f.data_type()), field_type(f)))
                .collect(),
            writing: Writing {
                zone: Zone::parse(zone).unwrap_or(utc),
                most: row_bytes_max,
            },
        }
    }

    /// Brings the columns of a batch to the types they are written in.
    pub fn columns(&self, batch: &RecordBatch) -> Result<Columns, Error> {
        let columns = batch.columns().iter().zip(&self.types).zip(&self.formats);
        let columns = columns
            .map(|((array, (wanted, pg)), format)| Ok((Column::of(array, wanted, pg)?, *format)));
        Ok(Columns {
            columns: columns.collect::<Result<_, Error>>()?,
            writing: self.writing,
        })
    }
}

/// `regclass` and the like.
fn is_reg(pg: &Type) -> bool {
    pg.name().starts_with("reg")
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
        let shown =
            ArrayFormatter::try_new(array, &options).map_err(|e| from_datafusion(e.into()))?;
        let text =
            (0..array.len()).map(|i| (!array.is_null(i)).then(|| shown.value(i).to_string()));
        let text = if array.data_type() == &DataType::Null {
            StringArray::new_null(array.len())
        } else {
            text.collect()
        };
        return Ok(std::sync::Arc::new(text));
    }
    // What does not fit is an error: NULL in its place would be a wrong answer.
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, wanted, &options).map_err(|e| from_datafusion(e.into()))
}

impl Column {
    /// A column of a PostgreSQL type, written as an Arrow type.
    fn of(array: &ArrayRef, wanted: &DataType, pg: &Type) -> Result<Self, Error> {
        if let Some(both) = array
            .as_struct_opt()
            .filter(|s| s.num_columns() == 2 && is_reg(pg))
        {
            return Ok(Self::Reg(
                both.column(0).as_primitive().clone(),
                both.column(1).as_string().clone(),
            ));
        }
        if let (&Type::RECORD, Some(record)) = (pg, array.as_struct_opt()) {
            let fields = record
                .columns()
                .iter()
                .zip(record.fields())
                .map(|(column, field)| {
                    let pg = field_type(field);
                    Ok((
                        Self::of(column, &written_as(field.data_type()), &pg)?,
                        pg.oid(),
                    ))
                });
            return Ok(Self::Record(
                fields.collect::<Result<_, Error>>()?,
                array.clone(),
            ));
        }
        if let (&Type::RECORD_ARRAY, Some(list)) = (pg, array.as_list_opt::<i32>()) {
            let items = Self::of(list.values(), &DataType::Utf8, &Type::RECORD)?;
            return Ok(Self::list(array, items, Type::RECORD.oid(), false));
        }
        let column = Self::new(&bring_to(array, wanted)?)?;
        Ok(match (pg, column) {
            (&Type::NUMERIC, Self::Text(texts)) => Self::Digits(texts),
            (&Type::INET, Self::Text(texts)) => Self::Inet(texts),
            (
                pg,
                Self::List {
                    items, nulls, oid, ..
                },
            ) => {
                let oid = if let postgres_types::Kind::Array(item) = pg.kind() {
                    item.oid()
                } else {
                    oid
                };
                Self::list(
                    &nulls,
                    *items,
                    oid,
                    matches!(*pg, Type::INT2_VECTOR | Type::OID_VECTOR),
                )
            }
            (_, column) => column,
        })
    }

    fn list(array: &ArrayRef, items: Self, oid: u32, is_vector: bool) -> Self {
        Self::List {
            offsets: array
                .as_list::<i32>()
                .value_offsets()
                .iter()
                .map(|o| *o as usize)
                .collect(),
            nulls: array.clone(),
            is_text: matches!(items, Self::Text(_) | Self::Record(..)),
            items: Box::new(items),
            oid,
            is_vector,
        }
    }

    fn new(array: &ArrayRef) -> Result<Self, Error> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Int16 => Self::Int2(array.as_primitive().clone()),
            DataType::Int32 => Self::Int4(array.as_primitive().clone()),
            DataType::Int64 => Self::Int8(array.as_primitive().clone()),
            DataType::UInt32 => Self::Oid(array.as_primitive().clone()),
            DataType::Float32 => Self::Float4(array.as_primitive().clone()),
            DataType::Float64 => Self::Float8(array.as_primitive().clone()),
            DataType::Decimal128(_, scale) => Self::Numeric(
                array.as_primitive().clone(),
                usize::try_from(*scale).unwrap_or(0),
            ),
            DataType::Utf8 => Self::Text(array.as_string().clone()),
            DataType::Binary => Self::Bytea(array.as_binary().clone()),
            DataType::Date32 => Self::Date(array.as_primitive().clone()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Self::Timestamp(array.as_primitive().clone(), zone.is_some())
            }
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(array.as_primitive().clone()),
            // Times apart are whole days and the rest.
            DataType::Duration(TimeUnit::Microsecond) => {
                let apart = array.as_primitive::<DurationMicrosecondType>();
                Self::Interval(apart.iter().map(|micros| micros.map(days_apart)).collect())
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Self::Interval(array.as_primitive().clone())
            }
            DataType::List(item) => {
                let items = Column::new(array.as_list::<i32>().values())?;
                Self::list(array, items, pg_type(item.data_type()).oid(), false)
            }
            other => {
                return Err(Error::internal(format!(
                    "a column of type {other} has no form on the wire"
                )));
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(a) => a.is_null(row),
            Self::Int2(a) => a.is_null(row),
            Self::Int4(a) => a.is_null(row),
            Self::Int8(a) => a.is_null(row),
            Self::Oid(a) => a.is_null(row),
            Self::Float4(a) => a.is_null(row),
            Self::Float8(a) => a.is_null(row),
            Self::Numeric(a, _) => a.is_null(row),
            Self::Text(a) | Self::Reg(_, a) | Self::Inet(a) | Self::Digits(a) => a.is_null(row),
            Self::Bytea(a) => a.is_null(row),
            Self::Date(a) => a.is_null(row),
            Self::Timestamp(a, _) => a.is_null(row),
            Self::Time(a) => a.is_null(row),
            Self::Interval(a) => a.is_null(row),
            Self::List { nulls, .. } | Self::Record(_, nulls) => nulls.is_null(row),
        }
    }

    fn text(&self, row: usize, writing: &Writing, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        match self {
            Self::Bool(a) => out.put_slice(if a.value(row) { b"t" } else { b"f" }),
            Self::Int2(a) => out.put_slice(itoa::Buffer::new().format(a.value(row)).as_bytes()),
            Self::Int4(a) => out.put_slice(itoa::Buffer::new().format(a.value(row)).as_bytes()),
            Self::Int8(a) => out.put_slice(itoa::Buffer::new().format(a.value(row)).as_bytes()),
            Self::Oid(a) => out.put_slice(itoa::Buffer::new().format(a.value(row)).as_bytes()),
            Self::Float4(a) => float(out, &format!("{:e}", a.value(row)), a.value(row).into(), 6),
            Self::Float8(a) => float(out, &format!("{:e}", a.value(row)), a.value(row), 15),
            Self::Numeric(a, scale) => numeric_text(out, a.value(row), *scale),
            Self::Text(a) | Self::Reg(_, a) | Self::Inet(a) | Self::Digits(a) => {
                out.put_slice(a.value(row).as_bytes())
            }
            Self::Bytea(a) => {
                out.put_slice(b"\\x");
                out.put_slice(hex::encode(a.value(row)).as_bytes());
            }
            Self::Date(a) => date(out, a.value(row)),
            Self::Timestamp(a, with_zone) => {
                timestamp(out, a.value(row), with_zone.then_some(&writing.zone))
            }
            Self::Time(a) => time(out, a.value(row)),
            Self::Interval(a) => interval(out, a.value(row)),
            Self::Record(fields, _) => {
                out.put_u8(b'(');
                for (i, (field, _)) in fields.iter().enumerate() {
                    if i > 0 {
                        out.put_u8(b',');
                    }
                    if !field.is_null(row) {
                        let mut item = BytesMut::new();
                        field.text(row, writing, &mut item)?;
                        record_item(out, &item);
                        writing.check(out.len() - start)?;
                    }
                }
                out.put_u8(b')');
            }
            Self::List {
                offsets,
                items,
                is_vector: true,
                ..
            } => {
                for i in offsets[row]..offsets[row + 1] {
                    if i > offsets[row] {
                        out.put_u8(b' ');
                    }
                    items.text(i, writing, out)?;
                }
            }
            Self::List {
                offsets,
                items,
                is_text,
                ..
            } => {
                out.put_u8(b'{');
                for i in offsets[row]..offsets[row + 1] {
                    if i > offsets[row] {
                        out.put_u8(b',');
                    }
                    if items.is_null(i) {
                        out.put_slice(b"NULL");
                    } else if *is_text {
                        let mut item = BytesMut::new();
                        items.text(i, writing, &mut item)?;
                        array_item(out, &item);
                        writing.check(out.len() - start)?;
                    } else if matches!(**items, Self::Timestamp(..) | Self::Interval(_)) {
                        out.put_u8(b'"');
                        items.text(i, writing, out)?;
                        out.put_u8(b'"');
                    } else {
                        items.text(i, writing, out)?;
                    }
                }
                out.put_u8(b'}');
            }
        }
        writing.check(out.len() - start)
    }
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

    /// How many columns there are.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Writes one value as text; `false` if it is NULL.
    pub fn text(&self, column: usize, row: usize, out: &mut BytesMut) -> Result<bool, Error> {
        let (column, _) = &self.columns[column];
        if column.is_null(row) {
            return Ok(false);
        }
        column.text(row, &self.writing, out)?;
        Ok(true)
    }

    /// Refuses a row that has become so long.
    pub fn check(&self, length: usize) -> Result<(), Error> {
        self.writing.check(length)
    }

    /// Writes the number of values, and each after its length.
    pub fn values(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        let count = i16::try_from(self.columns.len())
            .map_err(|_| Error::new(ErrorKind::LimitExceeded, "too many columns"))?;
        out.put_i16(count);
        let start = out.len();
        for (column, format) in &self.columns {
            if column.is_null(row) {
                out.put_i32(-1);
                continue;
            }
            with_length(out, |out| match format {
                Format::Text => column.text(row, &self.writing, out),
                Format::Binary => column.binary(row, out),
            })?;
            self.check(out.len() - start)?;
        }
        Ok(())
    }
}
