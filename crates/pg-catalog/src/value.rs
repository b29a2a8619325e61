//! Values of catalog queries and their types: PostgreSQL's own, as the catalogs need them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use chrono::DateTime;
use datafusion::arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use postgres_types::{Kind, Type};

use super::snapshot::CatalogSnapshot;
use crate::{array_items, interval_text};
use starkeep_error::{Error, ErrorKind};
use starkeep_pg_semantics::datetime::{self, Clock, Zone};

/// A type; records also say their fields.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ValueType {
    pub pg: Type,
    pub fields: Option<Arc<[(String, ValueType)]>>,
}

impl ValueType {
    pub const UNKNOWN: Self = Self::of(Type::UNKNOWN);
    pub const BOOL: Self = Self::of(Type::BOOL);
    pub const INT4: Self = Self::of(Type::INT4);
    pub const INT8: Self = Self::of(Type::INT8);
    pub const TEXT: Self = Self::of(Type::TEXT);
    pub const OID: Self = Self::of(Type::OID);

    pub const fn of(pg: Type) -> Self {
        Self { pg, fields: None }
    }

    pub fn record(fields: Vec<(String, ValueType)>) -> Self {
        Self {
            pg: Type::RECORD,
            fields: Some(fields.into()),
        }
    }

    /// The type of an array's items; of a vector's, too.
    pub fn item(&self) -> Option<ValueType> {
        match self.pg {
            Type::INT2_VECTOR => Some(Self::of(Type::INT2)),
            Type::OID_VECTOR => Some(Self::OID),
            Type::ANYARRAY => Some(Self::TEXT),
            Type::RECORD_ARRAY => Some(Self {
                pg: Type::RECORD,
                fields: self.fields.clone(),
            }),
            _ => match self.pg.kind() {
                Kind::Array(item) => Some(Self::of(item.clone())),
                _ => None,
            },
        }
    }

    pub fn array(&self) -> ValueType {
        let pg = match self.pg {
            Type::UNKNOWN => Type::TEXT_ARRAY,
            Type::RECORD => {
                return Self {
                    pg: Type::RECORD_ARRAY,
                    fields: self.fields.clone(),
                };
            }
            _ => super::types::array_type(&self.pg),
        };
        Self::of(pg)
    }

    pub fn is_number(&self) -> bool {
        matches!(
            self.pg,
            Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC
        )
    }

    /// Integers and everything that is a number of an object.
    pub fn is_integer(&self) -> bool {
        matches!(
            self.pg,
            Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::XID | Type::CID
        ) || self.is_reg()
    }

    pub fn is_text(&self) -> bool {
        matches!(
            self.pg,
            Type::TEXT
                | Type::VARCHAR
                | Type::BPCHAR
                | Type::NAME
                | Type::CHAR
                | Type::UNKNOWN
                | Type::PG_NODE_TREE
                | Type::JSON
        )
    }

    /// `regclass` and the like: numbers that are shown as names.
    pub fn is_reg(&self) -> bool {
        matches!(
            self.pg,
            Type::REGCLASS
                | Type::REGTYPE
                | Type::REGPROC
                | Type::REGPROCEDURE
                | Type::REGOPER
                | Type::REGOPERATOR
                | Type::REGNAMESPACE
                | Type::REGROLE
                | Type::REGCONFIG
                | Type::REGDICTIONARY
                | Type::REGCOLLATION
        )
    }
}

/// A value. Numbers of objects are integers; what they are shown as depends on their type.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    /// Microseconds since 1970 in UTC.
    Time(i64),
    /// Microseconds.
    Span(i64),
    /// The number of the first item, and the items.
    Array(i64, Arc<[Value]>),
    Record(Arc<[Value]>),
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(text.as_ref().into())
    }

    pub fn oid(oid: u32) -> Self {
        Self::Int(oid.into())
    }

    pub fn array(items: impl IntoIterator<Item = Value>) -> Self {
        Self::Array(1, items.into_iter().collect())
    }

    /// About how many bytes it holds.
    pub fn size(&self) -> usize {
        let inside = match self {
            Self::Text(text) => text.len(),
            Self::Array(_, items) | Self::Record(items) => items.iter().map(Self::size).sum(),
            _ => 0,
        };
        inside + size_of::<Self>()
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Float(f) => Some(f.round() as i64),
            _ => None,
        }
    }

    pub fn as_oid(&self) -> u32 {
        self.as_int()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0)
    }

    pub fn as_text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Self::Array(_, items) | Self::Record(items) => items,
            _ => &[],
        }
    }

    /// The order of two values of one type; NULL is the greatest.
    pub fn compare(&self, other: &Self) -> std::cmp::Ordering {
        use std::cmp::Ordering;
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => Ordering::Greater,
            (_, Self::Null) => Ordering::Less,
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b))
            | (Self::Time(a), Self::Time(b))
            | (Self::Span(a), Self::Span(b)) => a.cmp(b),
            (Self::Int(a), Self::Float(b)) => (*a as f64).total_cmp(b),
            (Self::Float(a), Self::Int(b)) => a.total_cmp(&(*b as f64)),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Array(_, a), Self::Array(_, b)) | (Self::Record(a), Self::Record(b)) => {
                let unequal = a
                    .iter()
                    .zip(b.iter())
                    .map(|(a, b)| a.compare(b))
                    .find(|o| o.is_ne());
                unequal.unwrap_or(a.len().cmp(&b.len()))
            }
            // Types are settled before values are compared; what is left has no order.
            _ => Ordering::Equal,
        }
    }
}

/// Grouping and joining take NULLs for equal.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(&normal(self)) == std::mem::discriminant(&normal(other))
            && self.compare(other).is_eq()
    }
}

impl Eq for Value {}

/// A number without a fraction is the integer.
fn normal(value: &Value) -> Value {
    match value {
        Value::Float(f) if f.fract() == 0.0 && f.abs() < 9e15 => Value::Int(*f as i64),
        other => other.clone(),
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match normal(self) {
            Self::Null => state.write_u8(0),
            Self::Bool(b) => b.hash(state),
            Self::Int(n) | Self::Time(n) | Self::Span(n) => n.hash(state),
            Self::Float(f) => f.to_bits().hash(state),
            Self::Text(t) => t.hash(state),
            Self::Array(_, items) | Self::Record(items) => items.iter().for_each(|i| i.hash(state)),
        }
    }
}

/// A value as PostgreSQL shows it; names of objects come from the snapshot.
pub(super) fn show(value: &Value, ty: &ValueType, snapshot: &CatalogSnapshot) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(b) => if *b { "t" } else { "f" }.into(),
        Value::Int(n) if ty.is_reg() => snapshot.reg_name(&ty.pg, u32::try_from(*n).unwrap_or(0)),
        Value::Int(n) => n.to_string(),
        Value::Float(f) => f.to_string(),
        Value::Text(t) => t.to_string(),
        Value::Time(micros) => DateTime::from_timestamp_micros(*micros)
            .map(|t| {
                let fraction = t.timestamp_subsec_micros();
                let fraction = if fraction == 0 {
                    String::new()
                } else {
                    format!(".{fraction:06}")
                };
                let zone = if ty.pg == Type::TIMESTAMP { "" } else { "+00" };
                format!(
                    "{}{}{zone}",
                    t.format("%Y-%m-%d %H:%M:%S"),
                    fraction.trim_end_matches('0')
                )
            })
            .unwrap_or_default(),
        Value::Span(micros) => {
            let (sign, micros) = (if *micros < 0 { "-" } else { "" }, micros.unsigned_abs());
            let seconds = micros / 1_000_000;
            let fraction = micros % 1_000_000;
            let fraction = if fraction == 0 {
                String::new()
            } else {
                format!(".{fraction:06}").trim_end_matches('0').to_owned()
            };
            let days = seconds / 86_400;
            let days = match days {
                0 => String::new(),
                1 => format!("{sign}1 day "),
                n => format!("{sign}{n} days "),
            };
            format!(
                "{days}{sign}{:02}:{:02}:{:02}{fraction}",
                seconds / 3600 % 24,
                seconds / 60 % 60,
                seconds % 60
            )
        }
        Value::Array(_, items) if matches!(ty.pg, Type::INT2_VECTOR | Type::OID_VECTOR) => items
            .iter()
            .map(|i| show(i, &ValueType::INT8, snapshot))
            .collect::<Vec<_>>()
            .join(" "),
        Value::Array(_, items) => {
            let item = ty.item().unwrap_or(ValueType::TEXT);
            let shown = items.iter().map(|i| match i {
                Value::Null => "NULL".to_owned(),
                Value::Array(..) => show(i, ty, snapshot),
                i => quoted_item(&show(i, &item, snapshot), false),
            });
            format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
        }
        Value::Record(values) => {
            let fields = ty.fields.clone().unwrap_or_default();
            let shown = values.iter().enumerate().map(|(i, v)| match v {
                Value::Null => String::new(),
                v => quoted_item(
                    &show(
                        v,
                        fields.get(i).map_or(&ValueType::TEXT, |(_, ty)| ty),
                        snapshot,
                    ),
                    true,
                ),
            });
            format!("({})", shown.collect::<Vec<_>>().join(","))
        }
    }
}

/// A part of an array or record, quoted where PostgreSQL quotes.
fn quoted_item(text: &str, in_record: bool) -> String {
    let special = |c: char| match c {
        '"' | '\\' | ',' => true,
        '{' | '}' => !in_record,
        '(' | ')' => in_record,
        c => c.is_ascii_whitespace(),
    };
    let is_null_word = !in_record && text.eq_ignore_ascii_case("null");
    if !text.is_empty() && !is_null_word && !text.contains(special) {
        return text.to_owned();
    }
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', if in_record { "\"\"" } else { "\\\"" })
    )
}

pub(super) fn invalid(ty: &ValueType, text: &str) -> Error {
    Error::new(
        ErrorKind::InvalidText,
        format!(
            "invalid input syntax for type {}: \"{text}\"",
            type_name(&ty.pg)
        ),
    )
}

/// A type as SQL spells it.
pub(super) fn type_name(pg: &Type) -> String {
    if let Kind::Array(item) = pg.kind() {
        return format!("{}[]", type_name(item));
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

const MICROS_OF_DAY: i64 = 86_400_000_000;

/// A text as a value of a type, as PostgreSQL's input functions read it.
pub(super) fn read(text: &str, ty: &ValueType, snapshot: &CatalogSnapshot) -> Result<Value, Error> {
    let bad = || invalid(ty, text);
    let trimmed = text.trim();
    if ty.is_reg() {
        return snapshot.reg_oid(&ty.pg, trimmed).map(Value::oid);
    }
    Ok(match ty.pg {
        Type::BOOL => match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Value::Bool(true),
            "f" | "false" | "n" | "no" | "off" | "0" => Value::Bool(false),
            _ => return Err(bad()),
        },
        Type::INT2 => Value::Int(trimmed.parse::<i16>().map_err(|_| bad())?.into()),
        Type::INT4 => Value::Int(trimmed.parse::<i32>().map_err(|_| bad())?.into()),
        Type::INT8 => Value::Int(trimmed.parse().map_err(|_| bad())?),
        Type::OID | Type::XID | Type::CID => {
            Value::Int(trimmed.parse::<u32>().map_err(|_| bad())?.into())
        }
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => {
            Value::Float(trimmed.parse().map_err(|_| bad())?)
        }
        // One byte of it.
        Type::CHAR => Value::text(text.chars().next().map(String::from).unwrap_or_default()),
        Type::NAME => Value::text(text.chars().take(63).collect::<String>()),
        Type::TIMESTAMPTZ | Type::TIMESTAMP => {
            // Moments are shown in UTC here, too.
            let clock = Clock {
                now: Some(snapshot.facts.now),
                zone: Zone::Offset(0),
            };
            Value::Time(if ty.pg == Type::TIMESTAMP {
                datetime::timestamp(text, clock)?
            } else {
                datetime::timestamptz(text, clock)?
            })
        }
        Type::INTERVAL => {
            let words = interval_text(trimmed);
            let parsed = parse_interval_month_day_nano(words.as_deref().unwrap_or(trimmed))
                .map_err(|_| bad())?;
            if parsed.months != 0 {
                return Err(Error::unsupported(
                    "an interval of months in a query of the catalogs",
                ));
            }
            let days = i64::from(parsed.days).checked_mul(MICROS_OF_DAY);
            let micros = days.and_then(|days| days.checked_add(parsed.nanoseconds / 1000));
            Value::Span(
                micros.ok_or_else(|| {
                    Error::new(ErrorKind::DateTimeOverflow, "interval out of range")
                })?,
            )
        }
        Type::INT2_VECTOR | Type::OID_VECTOR => {
            let items = trimmed
                .split_whitespace()
                .map(|n| n.parse().map(Value::Int).map_err(|_| bad()));
            Value::Array(0, items.collect::<Result<_, _>>()?)
        }
        _ => match ty.item() {
            Some(item) => {
                let parts = array_items(trimmed).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidText,
                        format!("malformed array literal: \"{text}\""),
                    )
                })?;
                let values = parts
                    .into_iter()
                    .map(|part| part.map_or(Ok(Value::Null), |part| read(&part, &item, snapshot)));
                Value::Array(1, values.collect::<Result<_, _>>()?)
            }
            None => Value::text(text),
        },
    })
}
