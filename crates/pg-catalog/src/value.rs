//! Values of catalog queries and their types: PostgreSQL's own, as the catalogs need them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use postgres_types::{Kind, Type};

use super::types::array_type;

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
            _ => array_type(&self.pg),
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

/// A row, in the order of its relation's columns.
pub(super) type Row = Vec<Value>;

/// Rows with their columns.
#[derive(Debug)]
pub(super) struct Relation {
    pub columns: Vec<(String, ValueType)>,
    pub rows: Vec<Row>,
}
