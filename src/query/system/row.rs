//! Rows of system tables: a struct a table gives the names, the types and the order of its columns.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::{Error, from_datafusion};
use crate::names::Timestamp;

/// Columns that a table can be read in the order of.
pub(in crate::query) type Key = &'static [&'static str];

/// A row of a system table; [`system_row`](crate::query::system::system_row) writes this.
pub(in crate::query) trait SystemRow:
    Clone + Debug + Default + Send + Sync + 'static
{
    /// The table's name.
    const NAME: &'static str;
    /// The orders that its rows can come in, either way; each is unique.
    const KEYS: &'static [Key];

    fn fields() -> Vec<Field>;

    fn columns(rows: &[Self]) -> Vec<ArrayRef>;

    /// A row from the texts that another system has for its columns; what does not read is NULL, as
    /// it may write anything.
    fn read<'t>(text: impl Fn(&str) -> Option<&'t str>) -> Self;

    fn schema() -> SchemaRef {
        Schema::new(Self::fields()).into()
    }

    fn batch(rows: &[Self]) -> Result<RecordBatch, Error> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Self::schema(), Self::columns(rows), &options)
            .map_err(|e| from_datafusion(e.into()))
    }
}

/// A value of a system table, or NULL.
pub(in crate::query) trait ColumnValue: Default {
    fn data_type() -> DataType;
    fn array<'r>(values: impl Iterator<Item = &'r Self>) -> ArrayRef
    where
        Self: 'r;
    fn read(text: &str) -> Self;
}

macro_rules! column_values {
    ($($(#[$doc:meta])* $name:ident($inner:ty): $data_type:expr, $array:expr, $read:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, PartialEq)]
            pub(in crate::query) struct $name(Option<$inner>);

            impl ColumnValue for $name {
                fn data_type() -> DataType {
                    $data_type
                }

                fn array<'r>(values: impl Iterator<Item = &'r Self>) -> ArrayRef {
                    let build: fn(Vec<Option<&$inner>>) -> ArrayRef = $array;
                    build(values.map(|v| v.0.as_ref()).collect())
                }

                fn read(text: &str) -> Self {
                    let read: fn(&str) -> Option<$inner> = $read;
                    Self(read(text.trim()))
                }
            }

            impl From<$inner> for $name {
                fn from(value: $inner) -> Self {
                    Self(Some(value))
                }
            }

            impl<T: Into<$name>> From<Option<T>> for $name {
                fn from(value: Option<T>) -> Self {
                    value.map_or_else(Self::default, Into::into)
                }
            }
        )*
    };
}

column_values! {
    Int(i64): DataType::Int64, |v| Arc::new(v.into_iter().map(|n| n.copied()).collect::<Int64Array>()), |t| t.parse().ok();
    Double(f64): DataType::Float64, |v| Arc::new(v.into_iter().map(|n| n.copied()).collect::<Float64Array>()), |t| t.parse().ok();
    Bool(bool): DataType::Boolean, |v| Arc::new(v.into_iter().map(|b| b.copied()).collect::<BooleanArray>()), |t| t.parse().ok();
    Text(String): DataType::Utf8, |v| Arc::new(v.into_iter().collect::<StringArray>()), |t| Some(t.to_owned());
    Time(Timestamp): DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), times, |t| {
        let parsed = chrono::NaiveDateTime::parse_from_str(t, "%Y-%m-%d %H:%M:%S%.f").ok()?;
        Some(Timestamp(parsed.and_utc().timestamp_millis()))
    };
    Texts(Vec<String>): DataType::List(Field::new_list_field(DataType::Utf8, true).into()), lists, |t| Some(vec![t.to_owned()]);
}

fn times(values: Vec<Option<&Timestamp>>) -> ArrayRef {
    let micros = values.into_iter().map(|t| t.map(|t| t.micros()));
    Arc::new(
        micros
            .collect::<TimestampMicrosecondArray>()
            .with_timezone("UTC"),
    )
}

fn lists(values: Vec<Option<&Vec<String>>>) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for value in values {
        lists.append_option(value.map(|texts| texts.iter().map(Some)));
    }
    Arc::new(lists.finish())
}

impl From<u64> for Int {
    fn from(value: u64) -> Self {
        i64::try_from(value).unwrap_or(i64::MAX).into()
    }
}

impl From<&str> for Text {
    fn from(value: &str) -> Self {
        value.to_owned().into()
    }
}

/// The row of a system table: `system_row! { pub JobsRow in "jobs" { job_id: Int, … } }`, with
/// `by ["job_id"]` before the columns if it can be read in that order.
macro_rules! system_row {
    (pub $row:ident in $name:literal $(by $($key:tt),+)? { $($column:ident: $ty:ident,)* }) => {
        #[derive(Clone, Debug, Default)]
        pub(in crate::query) struct $row { $(pub $column: $crate::query::system::$ty,)* }

        impl $crate::query::system::SystemRow for $row {
            const NAME: &'static str = $name;
            const KEYS: &'static [$crate::query::system::Key] = &[$($(&$key),+)?];

            fn fields() -> Vec<datafusion::arrow::datatypes::Field> {
                use $crate::query::system::ColumnValue;
                vec![$(datafusion::arrow::datatypes::Field::new(
                    $crate::query::system::column_name(stringify!($column)),
                    <$crate::query::system::$ty>::data_type(),
                    true,
                ),)*]
            }

            fn columns(rows: &[Self]) -> Vec<datafusion::arrow::array::ArrayRef> {
                use $crate::query::system::ColumnValue;
                vec![$(<$crate::query::system::$ty>::array(rows.iter().map(|r| &r.$column)),)*]
            }

            fn read<'t>(text: impl Fn(&str) -> Option<&'t str>) -> Self {
                use $crate::query::system::ColumnValue;
                let value = |name: &str| text($crate::query::system::column_name(name));
                Self { $($column: value(stringify!($column)).map(<$crate::query::system::$ty>::read).unwrap_or_default(),)* }
            }
        }
    };
}
pub(in crate::query) use system_row;

/// A column's name: that of its field, which Rust may not allow as it is.
pub(in crate::query) fn column_name(field: &str) -> &str {
    field.strip_prefix("r#").unwrap_or(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    system_row! {
        pub SampleRow in "samples" {
            r#type: Text,
            count: Int,
            at: Time,
            names: Texts,
        }
    }

    #[test]
    fn a_struct_gives_columns_types_and_order() {
        let schema = SampleRow::schema();
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["type", "count", "at", "names"]);
        let rows = [
            SampleRow {
                r#type: "a".into(),
                count: 7_u64.into(),
                ..SampleRow::default()
            },
            SampleRow::read(|name| {
                Some(if name == "at" {
                    "2026-01-02 03:04:05"
                } else {
                    "x"
                })
            }),
        ];
        let batch = SampleRow::batch(&rows).expect("a batch");
        assert_eq!(batch.num_rows(), 2);
        let nulls: Vec<_> = batch.columns().iter().map(|c| c.null_count()).collect();
        // Of the first row all but two; what does not read as a number in the second.
        assert_eq!(nulls, [0, 1, 1, 1]);
    }
}
