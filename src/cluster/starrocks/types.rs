//! StarRocks' column types as Arrow's, and values from their text.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, RecordBatch, RecordBatchOptions, StringBuilder, new_null_array,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use datafusion::common::{DataFusionError, Result as DfResult};
use mysql_async::{Row, Value};

use crate::error::{Error, ErrorKind};

/// Marks a column that comes as text and means something else: it is shown, and never compared by
/// the cluster on our behalf.
const OPAQUE: &str = "starkeep.opaque";

/// 128 bits have up to 39 digits, one more than a decimal of 128 bits.
const LARGEINT: DataType = DataType::Decimal256(39, 0);

/// The field for a column of this type, as `COLUMN_TYPE` spells it.
pub(super) fn field(name: &str, column_type: &str, nullable: bool) -> Field {
    let text = column_type.trim().to_ascii_lowercase();
    let base = text.split(['(', '<', ' ']).next().unwrap_or_default();
    let arguments: Vec<u8> = text
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(inner, _)| {
            inner
                .split(',')
                .filter_map(|n| n.trim().parse().ok())
                .collect()
        })
        .unwrap_or_default();
    let data_type = match base {
        "boolean" | "bool" => DataType::Boolean,
        "tinyint" if text == "tinyint(1)" => DataType::Boolean,
        "bigint" if text.contains("unsigned") => LARGEINT,
        "tinyint" | "smallint" => DataType::Int16,
        "int" | "integer" => DataType::Int32,
        "bigint" => DataType::Int64,
        "largeint" => LARGEINT,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "decimal" | "decimalv2" | "decimalv3" | "decimal32" | "decimal64" | "decimal128" => {
            match arguments.as_slice() {
                [precision @ 1..=38, scale] if scale <= precision => {
                    DataType::Decimal128(*precision, *scale as i8)
                }
                [precision @ 1..=38] => DataType::Decimal128(*precision, 0),
                _ => DataType::Decimal128(38, 9),
            }
        }
        "date" => DataType::Date32,
        "datetime" | "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "char" | "varchar" | "string" => DataType::Utf8,
        "binary" | "varbinary" => DataType::Binary,
        // JSON, ARRAY, MAP, STRUCT, HLL, BITMAP, PERCENTILE, and what later versions bring.
        _ => {
            return Field::new(name, DataType::Utf8, true)
                .with_metadata(HashMap::from([(OPAQUE.to_owned(), base.to_owned())]));
        }
    };
    Field::new(name, data_type, nullable)
}

/// Whether a column's text means something else than it says.
pub(super) fn is_opaque(field: &Field) -> bool {
    field.metadata().contains_key(OPAQUE)
}

/// Rows of text as a batch of this schema. A value that does not read as its type is an error that
/// names the column.
pub(super) fn batch(schema: &SchemaRef, rows: &[Row]) -> DfResult<RecordBatch> {
    // A table that has changed since its columns were asked for must not shift values; one without
    // columns answers a constant.
    let expected = schema.fields().len().max(1);
    if rows.iter().any(|row| row.len() != expected) {
        let error = Error::new(
            ErrorKind::WrongState,
            "the table has other columns now than it had a moment ago",
        );
        return Err(DataFusionError::External(Box::new(
            error.hint("Say it again."),
        )));
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (i, field) in schema.fields().iter().enumerate() {
        let values = rows.iter().map(|row| match row.as_ref(i) {
            Some(Value::Bytes(bytes)) => Some(bytes.as_slice()),
            _ => None,
        });
        if *field.data_type() == DataType::Binary {
            let mut builder = BinaryBuilder::new();
            values.for_each(|v| builder.append_option(v));
            columns.push(Arc::new(builder.finish()));
            continue;
        }
        let mut builder = StringBuilder::new();
        for value in values {
            match value.map(std::str::from_utf8) {
                None => builder.append_null(),
                Some(Ok(text)) => builder.append_value(text),
                Some(Err(_)) => return Err(unreadable(field, "bytes that are no UTF-8")),
            }
        }
        let text = builder.finish();
        let column = match field.data_type() {
            DataType::Utf8 => Arc::new(text) as ArrayRef,
            DataType::Null => new_null_array(&DataType::Null, rows.len()),
            other => {
                let strict = CastOptions {
                    safe: false,
                    ..CastOptions::default()
                };
                cast_with_options(&text, other, &strict)
                    .map_err(|e| unreadable(field, &e.to_string()))?
            }
        };
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(
        schema.clone(),
        columns,
        &options,
    )?)
}

fn unreadable(field: &Field, why: &str) -> DataFusionError {
    let error = Error::new(
        ErrorKind::OutOfRange,
        format!(
            "a value of column \"{}\" does not read as {}",
            field.name(),
            field.data_type()
        ),
    );
    DataFusionError::External(Box::new(error.detail(why.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_in_every_spelling() {
        for (text, data_type, opaque) in [
            ("tinyint(1)", DataType::Boolean, false),
            ("tinyint(4)", DataType::Int16, false),
            ("int(11)", DataType::Int32, false),
            ("bigint(20)", DataType::Int64, false),
            ("bigint(20) unsigned", LARGEINT, false),
            ("LARGEINT", LARGEINT, false),
            ("decimal(10,2)", DataType::Decimal128(10, 2), false),
            ("DECIMAL64(18, 4)", DataType::Decimal128(18, 4), false),
            (
                "datetime",
                DataType::Timestamp(TimeUnit::Microsecond, None),
                false,
            ),
            ("varchar(65533)", DataType::Utf8, false),
            ("array<int(11)>", DataType::Utf8, true),
            ("json", DataType::Utf8, true),
            ("bitmap", DataType::Utf8, true),
        ] {
            let field = field("c", text, true);
            assert_eq!(
                (field.data_type(), is_opaque(&field)),
                (&data_type, opaque),
                "{text}"
            );
        }
    }
}
