//! What a table is: columns, key model, partitioning and distribution, as plain values.
//!
//! A [`TableSchema`] is made by the parser, kept by the metastore, written into every manifest and
//! read back from it years later, so its serialized form is part of the repository format
//! (docs/repository-format.md): fields are added, never changed.

mod codec;
mod ddl;
mod partition;

use std::collections::BTreeMap;
use std::fmt;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use serde::{Deserialize, Serialize};

pub use self::codec::Codec;
pub use self::partition::{
    Bound, Bounds, Interval, PartitionDef, RangeKey, RangeStep, TimeUnitOfRange,
};
use crate::error::{Error, ErrorKind};

/// The hidden column of tables whose rows replace one another: `version << 32 | row number in its
/// INSERT`.
pub const SEQUENCE_COLUMN: &str = "__sequence";

/// A table's definition, without its name and without its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// In the order of `CREATE TABLE`; key columns come first.
    pub columns: Vec<Column>,
    /// What rows with equal keys mean.
    pub key: KeyModel,
    /// The names of the key columns.
    pub key_columns: Vec<String>,
    /// How rows are told apart into partitions.
    pub partitioning: Partitioning,
    /// How rows of a partition are told apart into tablets.
    pub distribution: Distribution,
    /// `PROPERTIES(…)`, kept as given.
    pub properties: BTreeMap<String, String>,
    /// `COMMENT '…'` of the table.
    pub comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name: bare names are folded to lower case, quoted ones kept.
    pub name: String,
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Whether NULL may stand in it.
    pub nullable: bool,
    /// `DEFAULT '…'`: the text of the literal, or CURRENT_TIMESTAMP.
    pub default: Option<DefaultValue>,
    /// How values of equal keys are combined (AGGREGATE KEY tables only).
    pub aggregate: Option<Aggregate>,
    /// `COMMENT '…'`.
    pub comment: Option<String>,
}

/// A view: a query under a name. Its text is PostgreSQL's language; bare table names in it are
/// those of the view's database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDefinition {
    /// `(name, …)` of CREATE VIEW; empty means the names that the query gives.
    pub columns: Vec<ViewColumn>,
    pub query: String,
    /// `COMMENT '…'` of the view.
    pub comment: Option<String>,
}

impl ViewDefinition {
    /// `CREATE VIEW …`
    pub fn ddl(&self, name: &str) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns: Vec<_> = self.columns.iter().map(|c| quoted(&c.name)).collect();
        let columns = if columns.is_empty() {
            String::new()
        } else {
            format!(" ({})", columns.join(", "))
        };
        format!("CREATE VIEW {}{columns} AS {}", quoted(name), self.query)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewColumn {
    /// Its name: bare names are folded to lower case, quoted ones kept.
    pub name: String,
    /// `COMMENT '…'`.
    pub comment: Option<String>,
}

/// A column's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultValue {
    /// A literal, cast to the column's type when used.
    Literal(String),
    /// NULL, said out loud.
    Null,
    /// The time of the INSERT.
    CurrentTimestamp,
}

/// StarRocks' column types, as far as the embedded cluster has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    Boolean,
    /// `TINYINT`, 8 bits
    TinyInt,
    /// `SMALLINT`, 16 bits
    SmallInt,
    /// `INT`, 32 bits
    Int,
    /// `BIGINT`, 64 bits
    BigInt,
    /// `LARGEINT`: 38 decimal digits here, 128 bits in StarRocks (docs/compat.md)
    LargeInt,
    /// `FLOAT`, 32 bits
    Float,
    /// `DOUBLE`, 64 bits
    Double,
    /// `DECIMAL(p, s)`, p up to 38
    Decimal {
        /// All digits.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    Date,
    /// `DATETIME`, microseconds, without a zone
    DateTime,
    /// `CHAR(n)`, n bytes
    Char(u32),
    /// `VARCHAR(n)`, n bytes
    VarChar(u32),
    String,
    /// `JSON`, kept as text
    Json,
    /// `ARRAY<…>`
    Array(Box<ColumnType>),
}

impl ColumnType {
    /// The Arrow type that holds it, in memory and in files.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::TinyInt => DataType::Int8,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::LargeInt => DataType::Decimal128(38, 0),
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Self::Date => DataType::Date32,
            Self::DateTime => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Char(_) | Self::VarChar(_) | Self::String | Self::Json => DataType::Utf8,
            Self::Array(item) => DataType::List(Field::new_list_field(item.arrow(), true).into()),
        }
    }

    /// The limit that VARCHAR or CHAR says. STRING has one, too, that nobody thinks of.
    pub fn length(&self) -> Option<u32> {
        match self {
            Self::Char(n) | Self::VarChar(n) => Some(*n),
            _ => None,
        }
    }

    /// The longest text in bytes that fits, for the types that have a limit; of an array, in each
    /// item.
    pub fn max_bytes(&self) -> Option<u32> {
        match self {
            Self::Char(n) | Self::VarChar(n) => Some(*n),
            Self::Array(item) => item.max_bytes(),
            _ => None,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::TinyInt => f.write_str("tinyint(4)"),
            Self::SmallInt => f.write_str("smallint(6)"),
            Self::Int => f.write_str("int(11)"),
            Self::BigInt => f.write_str("bigint(20)"),
            Self::LargeInt => f.write_str("largeint(40)"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Self::Date => f.write_str("date"),
            Self::DateTime => f.write_str("datetime"),
            Self::Char(n) => write!(f, "char({n})"),
            Self::VarChar(n) => write!(f, "varchar({n})"),
            Self::String => f.write_str("string"),
            Self::Json => f.write_str("json"),
            Self::Array(item) => write!(f, "array<{item}>"),
        }
    }
}

/// What rows with equal keys mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyModel {
    /// Nothing: every row stays.
    Duplicate,
    /// The last row stays.
    Unique,
    /// The rows are combined, column by column.
    Aggregate,
    /// The last row stays; keys are NOT NULL.
    Primary,
}

impl KeyModel {
    /// The words of `CREATE TABLE`.
    pub fn keywords(self) -> &'static str {
        match self {
            Self::Duplicate => "DUPLICATE KEY",
            Self::Unique => "UNIQUE KEY",
            Self::Aggregate => "AGGREGATE KEY",
            Self::Primary => "PRIMARY KEY",
        }
    }
}

/// How values of rows with equal keys become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The last.
    Replace,
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sum => "SUM",
            Self::Min => "MIN",
            Self::Max => "MAX",
            Self::Replace => "REPLACE",
        })
    }
}

/// How rows are told apart into partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioning {
    /// One partition, named like the table.
    Unpartitioned,
    Range {
        column: String,
    },
    /// By lists of values of one or more columns.
    List {
        columns: Vec<String>,
    },
}

/// How rows of a partition are told apart into tablets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The columns whose hash decides; none means RANDOM.
    pub columns: Vec<String>,
    /// How many tablets a partition has; `None` until the cluster has decided.
    pub buckets: Option<u32>,
}

impl TableSchema {
    /// The position and definition of a column.
    pub fn column(&self, name: &str) -> Option<(usize, &Column)> {
        self.columns
            .iter()
            .enumerate()
            .find(|(_, c)| c.name == name)
    }

    /// The columns that users see, as an Arrow schema.
    pub fn arrow(&self) -> SchemaRef {
        Schema::new(self.fields()).into()
    }

    /// The columns that stand in files: those that users see, and the hidden one where the model
    /// needs it.
    pub fn file_arrow(&self) -> SchemaRef {
        let mut fields = self.fields();
        if self.has_sequence() {
            fields.push(Field::new(SEQUENCE_COLUMN, DataType::Int64, false));
        }
        Schema::new(fields).into()
    }

    /// Whether rows of this table replace one another, so that their order must be kept.
    pub fn has_sequence(&self) -> bool {
        match self.key {
            KeyModel::Duplicate => false,
            KeyModel::Unique | KeyModel::Primary => true,
            KeyModel::Aggregate => self
                .columns
                .iter()
                .any(|c| c.aggregate == Some(Aggregate::Replace)),
        }
    }

    fn fields(&self) -> Vec<Field> {
        self.columns
            .iter()
            .map(|c| Field::new(&c.name, c.column_type.arrow(), c.nullable))
            .collect()
    }

    /// The columns that decide the partition of a row.
    pub fn partition_columns(&self) -> &[String] {
        match &self.partitioning {
            Partitioning::Unpartitioned => &[],
            Partitioning::Range { column } => std::slice::from_ref(column),
            Partitioning::List { columns } => columns,
        }
    }

    /// The type of a partition column; the schema was validated, so it exists.
    pub fn partition_type(&self) -> Option<&ColumnType> {
        let first = self.partition_columns().first()?;
        self.column(first).map(|(_, c)| &c.column_type)
    }

    /// `replication_num` of the properties, where given.
    pub fn replication_num(&self) -> Result<Option<u16>, Error> {
        let Some(text) = self.properties.get("replication_num") else {
            return Ok(None);
        };
        match text.trim().parse::<u16>() {
            Ok(n) if n > 0 => Ok(Some(n)),
            _ => Err(Error::new(
                ErrorKind::InvalidParameter,
                format!("Invalid replication number: {text}"),
            )
            .hint("\"replication_num\" is a whole number from 1 to the number of backends.")),
        }
    }

    /// Checks what the grammar cannot, and puts the defaults of the model in. Errors are 42P16,
    /// 42701, 42703.
    pub fn validate(mut self) -> Result<Self, Error> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidDefinition, message);
        for (i, column) in self.columns.iter().enumerate() {
            if self.columns[..i].iter().any(|c| c.name == column.name) {
                return Err(Error::new(
                    ErrorKind::DuplicateColumn,
                    format!("Duplicate column name '{}'", column.name),
                ));
            }
            if column.name == SEQUENCE_COLUMN {
                return Err(invalid(format!(
                    "column name '{SEQUENCE_COLUMN}' is reserved"
                )));
            }
            if let Some(DefaultValue::Literal(text)) = &column.default
                && column.column_type.canonical(text).is_none()
            {
                return Err(invalid(format!(
                    "Invalid default value '{text}' for column '{}' of type {}",
                    column.name, column.column_type
                )));
            }
            if let ColumnType::Decimal { precision, scale } = column.column_type
                && (precision == 0 || precision > 38 || scale < 0 || scale as u8 > precision)
            {
                return Err(invalid(format!(
                    "DECIMAL({precision}, {scale}) of column '{}' is out of range",
                    column.name
                ))
                .hint("The precision is 1 to 38, the scale 0 to the precision."));
            }
        }
        if self.key_columns.is_empty() {
            self.key = KeyModel::Duplicate;
        }
        for (i, key) in self.key_columns.iter().enumerate() {
            let known = self.columns.iter().any(|c| &c.name == key);
            match self.columns.get_mut(i) {
                Some(column) if &column.name == key => {
                    if self.key == KeyModel::Primary {
                        column.nullable = false;
                    }
                    if matches!(column.column_type, ColumnType::Array(_) | ColumnType::Json) {
                        return Err(invalid(format!(
                            "column '{key}' of type {} cannot be a key",
                            column.column_type
                        )));
                    }
                    if column.aggregate.is_some() {
                        return Err(invalid(format!(
                            "key column '{key}' cannot have an aggregate function"
                        )));
                    }
                }
                _ if !known => {
                    return Err(Error::new(
                        ErrorKind::UndefinedColumn,
                        format!("Key column({key}) doesn't exist"),
                    ));
                }
                _ => {
                    return Err(invalid(
                        "Key columns should be a ordered prefix of the schema".into(),
                    )
                    .detail(format!(
                        "'{key}' is key column {}, but not column {} of the table",
                        i + 1,
                        i + 1
                    )));
                }
            }
        }
        for column in self.columns.iter().skip(self.key_columns.len()) {
            match (self.key, column.aggregate) {
                (KeyModel::Aggregate, None) => {
                    return Err(invalid(format!(
                        "AGG_KEYS table should specify aggregate type for non-key column[{}]",
                        column.name
                    )));
                }
                (KeyModel::Aggregate, Some(Aggregate::Sum)) if !column.column_type.is_numeric() => {
                    return Err(invalid(format!(
                        "SUM does not fit column '{}' of type {}",
                        column.name, column.column_type
                    )));
                }
                (KeyModel::Aggregate, Some(Aggregate::Min | Aggregate::Max))
                    if matches!(column.column_type, ColumnType::Array(_) | ColumnType::Json) =>
                {
                    return Err(invalid(format!(
                        "MIN and MAX do not fit column '{}' of type {}",
                        column.name, column.column_type
                    )));
                }
                (KeyModel::Aggregate, _) | (_, None) => {}
                (_, Some(_)) => {
                    return Err(invalid(format!(
                        "column '{}' has an aggregate function, but the table is no AGGREGATE KEY table",
                        column.name
                    )));
                }
            }
        }
        self.validate_partitioning()?;
        for name in &self.distribution.columns {
            match self.column(name) {
                None => {
                    return Err(Error::new(
                        ErrorKind::UndefinedColumn,
                        format!("Distribution column({name}) doesn't exist"),
                    ));
                }
                Some((i, _)) if self.key != KeyModel::Duplicate && i >= self.key_columns.len() => {
                    return Err(invalid(format!(
                        "Distribution column[{name}] is not key column"
                    )));
                }
                Some((_, c))
                    if matches!(c.column_type, ColumnType::Array(_) | ColumnType::Json) =>
                {
                    return Err(invalid(format!(
                        "Distribution column[{name}] cannot be of type {}",
                        c.column_type
                    )));
                }
                Some(_) => {}
            }
        }
        if self.distribution.columns.is_empty() && self.key != KeyModel::Duplicate {
            // Random buckets would scatter rows of one key; merging works on whole partitions, but
            // StarRocks refuses it too.
            self.distribution.columns.clone_from(&self.key_columns);
        }
        if let Some(buckets) = self.distribution.buckets
            && (buckets == 0 || buckets > 1024)
        {
            return Err(
                invalid(format!("Number of buckets {buckets} is out of range"))
                    .hint("BUCKETS is 1 to 1024."),
            );
        }
        self.replication_num()?;
        Ok(self)
    }

    fn validate_partitioning(&self) -> Result<(), Error> {
        for name in self.partition_columns() {
            let Some((i, column)) = self.column(name) else {
                return Err(Error::new(
                    ErrorKind::UndefinedColumn,
                    format!("Partition column[{name}] does not exist"),
                ));
            };
            if self.key != KeyModel::Duplicate && i >= self.key_columns.len() {
                return Err(Error::new(
                    ErrorKind::InvalidDefinition,
                    format!("Partition column[{name}] is not key column"),
                ));
            }
            let fits = match &self.partitioning {
                Partitioning::Range { .. } => matches!(
                    column.column_type,
                    ColumnType::TinyInt
                        | ColumnType::SmallInt
                        | ColumnType::Int
                        | ColumnType::BigInt
                        | ColumnType::Date
                        | ColumnType::DateTime
                ),
                _ => !matches!(
                    column.column_type,
                    ColumnType::Float
                        | ColumnType::Double
                        | ColumnType::Array(_)
                        | ColumnType::Json
                ),
            };
            if !fits {
                return Err(Error::new(
                    ErrorKind::InvalidDefinition,
                    format!(
                        "Column[{name}] of type {} cannot be a partition column",
                        column.column_type
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl ColumnType {
    /// A literal as the column spells it back, so that `1` and `01` are one INT; nothing if it does
    /// not read.
    pub fn canonical(&self, text: &str) -> Option<String> {
        if matches!(self, Self::Array(_)) {
            return Some(text.to_owned());
        }
        let typed = ScalarValue::Utf8(Some(text.to_owned()))
            .cast_to(&self.arrow())
            .ok()?;
        match typed.cast_to(&DataType::Utf8).ok()? {
            ScalarValue::Utf8(canonical) => canonical,
            _ => None,
        }
    }

    fn is_numeric(&self) -> bool {
        matches!(
            self,
            Self::TinyInt
                | Self::SmallInt
                | Self::Int
                | Self::BigInt
                | Self::LargeInt
                | Self::Float
                | Self::Double
                | Self::Decimal { .. }
        )
    }
}
