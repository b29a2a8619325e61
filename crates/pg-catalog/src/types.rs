//! Which PostgreSQL type each Arrow type is, and back.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use postgres_types::{Kind, Type};

/// The key in a field's metadata under which its PostgreSQL type stands, as a number, where Arrow's
/// type does not say it.
pub const TYPE_KEY: &str = "pg.type";
/// The same of its modifier: precision and scale, or length.
pub const MODIFIER_KEY: &str = "pg.modifier";
/// The same of the table that it comes from, as the table's number and the column's place in it:
/// `16384.1`.
pub const ORIGIN_KEY: &str = "pg.origin";

/// The precision that a NUMERIC parameter without a context gets.
pub const NUMERIC: DataType = DataType::Decimal128(38, 10);

/// The PostgreSQL type of values of an Arrow type. Only built-in types: drivers know them without
/// asking.
pub fn pg_type(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt64 => Type::INT8,
        // Nothing but the numbers of objects is this.
        DataType::UInt32 => Type::OID,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::Dictionary(_, value) => pg_type(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            array_type(&pg_type(item.data_type()))
        }
        _ => Type::TEXT,
    }
}

/// The type of a column: what its field says in so many words, else what its Arrow type means.
pub fn field_type(field: &Field) -> Type {
    let said = field
        .metadata()
        .get(TYPE_KEY)
        .and_then(|oid| Type::from_oid(oid.parse().ok()?));
    said.unwrap_or_else(|| pg_type(field.data_type()))
}

/// The modifier of a column: what its field says, else the precision and scale of its Arrow type;
/// -1 is none.
pub fn field_modifier(field: &Field) -> i32 {
    let said = field
        .metadata()
        .get(MODIFIER_KEY)
        .and_then(|m| m.parse().ok());
    said.unwrap_or_else(|| type_modifier(field.data_type()))
}

/// The type of arrays of a type. Arrays of arrays are arrays of the innermost type.
pub fn array_type(item: &Type) -> Type {
    known_array(item).unwrap_or(Type::TEXT_ARRAY)
}

/// The built-in array type of a built-in type.
pub(super) fn known_array(item: &Type) -> Option<Type> {
    Some(match *item {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::OID => Type::OID_ARRAY,
        Type::TEXT => Type::TEXT_ARRAY,
        Type::VARCHAR => Type::VARCHAR_ARRAY,
        Type::BPCHAR => Type::BPCHAR_ARRAY,
        Type::NAME => Type::NAME_ARRAY,
        Type::CHAR => Type::CHAR_ARRAY,
        Type::REGCLASS => Type::REGCLASS_ARRAY,
        Type::REGTYPE => Type::REGTYPE_ARRAY,
        Type::REGPROC => Type::REGPROC_ARRAY,
        Type::REGNAMESPACE => Type::REGNAMESPACE_ARRAY,
        Type::REGROLE => Type::REGROLE_ARRAY,
        Type::ACLITEM => Type::ACLITEM_ARRAY,
        Type::INT2_VECTOR => Type::INT2_VECTOR_ARRAY,
        Type::OID_VECTOR => Type::OID_VECTOR_ARRAY,
        Type::XID => Type::XID_ARRAY,
        Type::JSON => Type::JSON_ARRAY,
        Type::UUID => Type::UUID_ARRAY,
        Type::INET => Type::INET_ARRAY,
        ref nested if matches!(nested.kind(), postgres_types::Kind::Array(_)) => nested.clone(),
        _ => return None,
    })
}

/// The modifier that carries precision and scale of a NUMERIC; -1 is none.
pub fn type_modifier(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            ((i32::from(*precision) << 16) | i32::from(*scale)) + 4
        }
        _ => -1,
    }
}

/// The fixed length of a type's values; -1 is none.
pub fn type_size(pg: &Type) -> i16 {
    match *pg {
        Type::BOOL => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::CHAR => 1,
        Type::NAME => 64,
        Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => 8,
        Type::INTERVAL => 16,
        _ => -1,
    }
}

/// The Arrow type of a parameter that the client declares; `None` leaves it to the statement.
pub fn arrow_type(oid: u32) -> Option<DataType> {
    let pg = Type::from_oid(oid)?;
    if let postgres_types::Kind::Array(item) = pg.kind() {
        let item = arrow_type(item.oid())?;
        return Some(DataType::List(Arc::new(Field::new_list_field(item, true))));
    }
    Some(match pg {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::OID => DataType::UInt32,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::NUMERIC => NUMERIC,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::CHAR
        | Type::JSON
        | Type::UUID => DataType::Utf8,
        _ => return None,
    })
}

/// A type as SQL spells it: `character varying` for VARCHAR.
pub fn sql_type_name(pg: &Type) -> String {
    if let Kind::Array(item) = pg.kind() {
        return format!("{}[]", sql_type_name(item));
    }
    match *pg {
        Type::BOOL => "boolean",
        Type::INT2 => "smallint",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::FLOAT4 => "real",
        Type::FLOAT8 => "double precision",
        Type::VARCHAR => "character varying",
        Type::BPCHAR => "character",
        Type::CHAR => "\"char\"",
        Type::TIMESTAMP => "timestamp without time zone",
        Type::TIMESTAMPTZ => "timestamp with time zone",
        Type::TIME => "time without time zone",
        Type::TIMETZ => "time with time zone",
        Type::BIT => "bit",
        Type::VARBIT => "bit varying",
        ref other => other.name(),
    }
    .to_owned()
}
