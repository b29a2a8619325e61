//! What messages call a type.

use datafusion::arrow::datatypes::DataType;

/// PostgreSQL's name of a type.
pub(super) fn type_name(of: &DataType) -> String {
    use DataType as T;
    match of {
        T::Boolean => "boolean".into(),
        T::Int8 | T::Int16 | T::UInt8 => "smallint".into(),
        T::Int32 | T::UInt16 => "integer".into(),
        T::Int64 | T::UInt32 | T::UInt64 => "bigint".into(),
        T::Float16 | T::Float32 => "real".into(),
        T::Float64 => "double precision".into(),
        T::Decimal32(..) | T::Decimal64(..) | T::Decimal128(..) | T::Decimal256(..) => {
            "numeric".into()
        }
        T::Utf8 | T::LargeUtf8 | T::Utf8View => "text".into(),
        T::Binary | T::LargeBinary | T::BinaryView => "bytea".into(),
        T::Date32 | T::Date64 => "date".into(),
        T::Time32(_) | T::Time64(_) => "time without time zone".into(),
        T::Timestamp(_, None) => "timestamp without time zone".into(),
        T::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        T::Interval(_) | T::Duration(_) => "interval".into(),
        T::List(item) | T::LargeList(item) => format!("{}[]", type_name(item.data_type())),
        T::Null => "unknown".into(),
        other => other.to_string(),
    }
}
