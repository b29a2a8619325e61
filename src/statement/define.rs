//! Definitions: CREATE/DROP DATABASE, CREATE TABLE and its parts, ALTER TABLE, ALTER SYSTEM.

mod partitions;

use super::ast::{Definition, PartitionText};
use super::lexer::{Quote, Token};
use super::parser::Parser;
use crate::error::{Error, ErrorKind};
use crate::names::BrokerName;
use crate::schema::{
    Aggregate, Bounds, Column, ColumnType, DefaultValue, Distribution, KeyModel, PartitionDef,
    Partitioning, TableSchema,
};

/// The longest VARCHAR, in bytes; also what VARCHAR without a length is.
const VARCHAR_MAX: u32 = 1_048_576;
const VARCHAR_DEFAULT: u32 = 65_533;

impl Parser<'_> {
    pub(super) fn definition(&mut self) -> Result<Definition, Error> {
        if self.eat("CREATE DATABASE") || self.eat("CREATE SCHEMA") {
            let if_not_exists = self.eat("IF NOT EXISTS");
            return Ok(Definition::CreateDatabase {
                name: self.named("a database name")?,
                if_not_exists,
            });
        }
        if self.eat("DROP DATABASE") || self.eat("DROP SCHEMA") {
            let if_exists = self.eat("IF EXISTS");
            let name = self.named("a database name")?;
            // Both mean that what is in it goes, too.
            self.eat_any(&["FORCE", "CASCADE"]);
            return Ok(Definition::DropDatabase { name, if_exists });
        }
        if self.eat("CREATE TABLE") {
            return self.create_table();
        }
        if self.eat("DROP TABLE") {
            let if_exists = self.eat("IF EXISTS");
            let table = self.qualified("a table name")?;
            self.eat("FORCE");
            self.refuse_words("DROP TABLE …", &["CASCADE", "RESTRICT"])?;
            return Ok(Definition::DropTable { table, if_exists });
        }
        if self.eat("TRUNCATE") {
            self.eat("TABLE");
            let table = self.qualified("a table name")?;
            return Ok(Definition::TruncateTable {
                table,
                partitions: self.partition_names()?,
            });
        }
        if self.eat("ALTER TABLE") {
            return self.alter_table();
        }
        if self.eat("ALTER SYSTEM") {
            return self.alter_system();
        }
        Err(self.unexpected("a statement that Starkeep knows"))
    }

    fn alter_table(&mut self) -> Result<Definition, Error> {
        let table = self.qualified("a table name")?;
        if self.eat("ADD") {
            let others = [
                "COLUMN",
                "INDEX",
                "ROLLUP",
                "TEMPORARY",
                "CONSTRAINT",
                "PRIMARY",
            ];
            self.refuse_words("ALTER TABLE … ADD", &others)?;
            self.eat("PARTITIONS");
            let grouped = self.eat_symbol('(');
            self.eat("PARTITION");
            let if_not_exists = self.eat("IF NOT EXISTS");
            let partitions = vec![self.partition_text()?];
            if grouped {
                self.expect_symbol(')')?;
            }
            return Ok(Definition::AddPartition {
                table,
                partitions,
                if_not_exists,
            });
        }
        if self.eat("DROP PARTITION") {
            let if_exists = self.eat("IF EXISTS");
            let partition = self.partition_name()?;
            self.eat("FORCE");
            return Ok(Definition::DropPartition {
                table,
                partition,
                if_exists,
            });
        }
        let others = [
            "DROP COLUMN",
            "DROP INDEX",
            "DROP ROLLUP",
            "DROP TEMPORARY",
            "DROP CONSTRAINT",
            "ALTER COLUMN",
            "MODIFY",
            "RENAME",
            "SWAP",
            "REPLACE",
            "ORDER",
            "SET",
            "COMMENT",
            "DISTRIBUTED",
            "PARTITION",
            "COMPACT",
            "BASE",
            "CUMULATIVE",
            "OWNER",
        ];
        self.refuse_words("ALTER TABLE …", &others)?;
        Err(self.unexpected("ADD PARTITION or DROP PARTITION"))
    }

    /// Refuses by name what StarRocks or PostgreSQL read here.
    fn refuse_words(&mut self, after: &str, words: &[&str]) -> Result<(), Error> {
        let at = self.offset();
        match words.iter().find(|words| self.eat(words)) {
            Some(words) => Err(Error::unsupported(format_args!("{after} {words}")).at(at)),
            None => Ok(()),
        }
    }

    fn alter_system(&mut self) -> Result<Definition, Error> {
        if self.eat("ADD BROKER") {
            return Ok(Definition::AddBroker {
                name: self.broker_name()?,
                hosts: self.broker_hosts()?,
            });
        }
        if self.eat("DROP ALL BROKER") {
            return Ok(Definition::DropBroker {
                name: self.broker_name()?,
                hosts: Vec::new(),
            });
        }
        if self.eat("DROP BROKER") {
            return Ok(Definition::DropBroker {
                name: self.broker_name()?,
                hosts: self.broker_hosts()?,
            });
        }
        Err(self.unexpected("ADD BROKER or DROP BROKER"))
    }

    /// A broker's name may also stand in single quotes.
    fn broker_name(&mut self) -> Result<BrokerName, Error> {
        let at = self.offset();
        match self.peek() {
            Some(Token::Str(..)) => {
                BrokerName::new(self.string("a broker name")?).map_err(|e| e.at(at))
            }
            _ => self.named("a broker name"),
        }
    }

    fn broker_hosts(&mut self) -> Result<Vec<String>, Error> {
        let mut hosts = Vec::new();
        loop {
            let at = self.offset();
            let host = self.string("\"host:port\"")?;
            match host.rsplit_once(':') {
                Some((name, port))
                    if !name.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) =>
                {
                    hosts.push(host)
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidParameter,
                        format!("Invalid broker address '{host}'"),
                    )
                    .hint("Write \"host:port\".")
                    .at(at));
                }
            }
            if !self.eat_symbol(',') {
                return Ok(hosts);
            }
        }
    }

    fn create_table(&mut self) -> Result<Definition, Error> {
        let if_not_exists = self.eat("IF NOT EXISTS");
        let table = self.qualified::<crate::names::TableName>("a table name")?;
        self.refuse_words("CREATE TABLE …", &["LIKE", "AS"])?;
        let columns = self.list(Self::column)?;
        if self.eat("ENGINE") {
            self.expect_symbol('=')?;
            let at = self.offset();
            let (engine, _) = self.name("OLAP")?;
            if !engine.eq_ignore_ascii_case("olap") {
                return Err(Error::unsupported(format_args!("ENGINE={engine}")).at(at));
            }
        }
        let (key, key_columns) = self.key_model()?;
        let comment = if self.eat("COMMENT") {
            Some(self.string("the comment in quotes")?)
        } else {
            None
        };
        let (partitioning, partitions) = self.partition_by()?;
        let distribution = self.distributed_by()?;
        if self.is_word("ORDER") || self.is_word("ROLLUP") {
            return Err(Error::unsupported("ORDER BY and ROLLUP of CREATE TABLE").at(self.offset()));
        }
        let at = self.offset();
        let properties = self.properties()?.0;
        if let Some(key) = properties
            .keys()
            .find(|key| key.starts_with("dynamic_partition."))
        {
            return Err(Error::unsupported(format_args!("the property \"{key}\""))
                .hint("Make partitions with ALTER TABLE … ADD PARTITION.")
                .at(at));
        }
        self.refuse_words("CREATE TABLE …", &["AS"])?;
        let schema = TableSchema {
            columns,
            key,
            key_columns,
            partitioning,
            distribution,
            properties,
            comment,
        }
        .validate()
        .and_then(|schema| schema.compression().map(|_| schema));
        let schema = Box::new(schema.map_err(|e| if e.position.is_some() { e } else { e.at(at) })?);
        let partitions = match schema.partitioning {
            Partitioning::Unpartitioned => {
                vec![PartitionDef {
                    name: crate::names::PartitionName::new(table.name.as_str())?,
                    bounds: Bounds::Whole,
                }]
            }
            _ => PartitionText::resolve(&partitions, &schema, &[])?,
        };
        Ok(Definition::CreateTable {
            table,
            schema,
            partitions,
            if_not_exists,
        })
    }

    /// A column's name: bare names are folded to lower case, as PostgreSQL clients will write them.
    fn column_name(&mut self) -> Result<String, Error> {
        let (name, quote) = self.name("a column name")?;
        Ok(if quote == Quote::None {
            name.to_lowercase()
        } else {
            name
        })
    }

    fn column(&mut self) -> Result<Column, Error> {
        if self.is_word("INDEX") {
            return Err(Error::unsupported("INDEX of CREATE TABLE").at(self.offset()));
        }
        let others = ["PRIMARY KEY", "FOREIGN KEY", "CONSTRAINT", "UNIQUE KEY"];
        self.refuse_words("CREATE TABLE with a list that has", &others)
            .map_err(|e| {
                e.hint("Keys stand after the list of columns: CREATE TABLE t (…) PRIMARY KEY (a).")
            })?;
        let name = self.column_name()?;
        let column_type = self.column_type()?;
        self.eat("KEY");
        let aggregate = [
            ("SUM", Aggregate::Sum),
            ("MIN", Aggregate::Min),
            ("MAX", Aggregate::Max),
            ("REPLACE", Aggregate::Replace),
        ]
        .into_iter()
        .find_map(|(word, aggregate)| self.eat(word).then_some(aggregate));
        for other in [
            "REPLACE_IF_NOT_NULL",
            "HLL_UNION",
            "BITMAP_UNION",
            "PERCENTILE_UNION",
            "AUTO_INCREMENT",
        ] {
            if self.is_word(other) {
                return Err(Error::unsupported(other).at(self.offset()));
            }
        }
        let mut column = Column {
            name,
            column_type,
            nullable: true,
            default: None,
            aggregate,
            comment: None,
        };
        loop {
            if self.eat("NOT NULL") {
                column.nullable = false;
            } else if self.eat("NULL") {
                column.nullable = true;
            } else if self.eat("DEFAULT") {
                column.default = Some(self.default_value()?);
            } else if self.eat("COMMENT") {
                column.comment = Some(self.string("the comment in quotes")?);
            } else {
                let others = [
                    "AUTO_INCREMENT",
                    "AS",
                    "GENERATED",
                    "PRIMARY KEY",
                    "UNIQUE",
                    "REFERENCES",
                    "CHECK",
                    "CONSTRAINT",
                    "COLLATE",
                ];
                self.refuse_words("a column with", &others)?;
                return Ok(column);
            }
        }
    }

    fn default_value(&mut self) -> Result<DefaultValue, Error> {
        if self.eat("NULL") {
            return Ok(DefaultValue::Null);
        }
        if self.eat("CURRENT_TIMESTAMP") {
            if self.eat_symbol('(') {
                self.expect_symbol(')')?;
            }
            return Ok(DefaultValue::CurrentTimestamp);
        }
        for word in ["TRUE", "FALSE"] {
            if self.eat(word) {
                return Ok(DefaultValue::Literal(word.to_ascii_lowercase()));
            }
        }
        self.literal().map(DefaultValue::Literal)
    }

    /// A string or a number, as its text.
    fn literal(&mut self) -> Result<String, Error> {
        let fault = self.unexpected("a value");
        let sign = if self.eat_symbol('-') { "-" } else { "" };
        match self.any() {
            Some(Token::Str(text, _)) if sign.is_empty() => Ok(text),
            Some(Token::Number(text)) => Ok(format!("{sign}{text}")),
            _ => Err(fault),
        }
    }

    /// `(n)`, if it comes next.
    fn length(&mut self) -> Result<Option<u32>, Error> {
        if !self.eat_symbol('(') {
            return Ok(None);
        }
        let at = self.offset();
        let n = self.number("a length")?;
        self.expect_symbol(')')?;
        u32::try_from(n)
            .ok()
            .filter(|n| (1..=VARCHAR_MAX).contains(n))
            .map(Some)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidDefinition,
                    format!("length {n} is out of range"),
                )
                .at(at)
            })
    }

    fn column_type(&mut self) -> Result<ColumnType, Error> {
        let fault = self.unexpected("a column type");
        let at = self.offset();
        let (word, _) = self.name("a column type").map_err(|_| fault)?;
        let simple = match word.to_ascii_uppercase().as_str() {
            "BOOLEAN" | "BOOL" => ColumnType::Boolean,
            "TINYINT" => ColumnType::TinyInt,
            "SMALLINT" | "INT2" => ColumnType::SmallInt,
            "INT" | "INTEGER" | "INT4" => ColumnType::Int,
            "BIGINT" | "INT8" => ColumnType::BigInt,
            "LARGEINT" => ColumnType::LargeInt,
            // PostgreSQL's tools say how many bits they want.
            "FLOAT" => match self.length()? {
                Some(bits) if bits > 24 => return Ok(ColumnType::Double),
                _ => return Ok(ColumnType::Float),
            },
            "REAL" | "FLOAT4" => ColumnType::Float,
            "FLOAT8" => ColumnType::Double,
            "TIMESTAMP" => {
                self.length()?;
                if self.eat("WITH TIME ZONE") {
                    return Err(Error::unsupported("a column of timestamps with time zone")
                        .at(at)
                        .hint("DATETIME has none."));
                }
                self.eat("WITHOUT TIME ZONE");
                ColumnType::DateTime
            }
            "DOUBLE" => {
                self.eat("PRECISION");
                ColumnType::Double
            }
            "DATE" => ColumnType::Date,
            "DATETIME" => ColumnType::DateTime,
            "JSON" | "JSONB" => ColumnType::Json,
            "STRING" | "TEXT" => ColumnType::String,
            "CHAR" => return Ok(ColumnType::Char(self.length()?.unwrap_or(1).min(255))),
            "CHARACTER" if !self.eat("VARYING") => {
                return Ok(ColumnType::Char(self.length()?.unwrap_or(1).min(255)));
            }
            "VARCHAR" | "CHARACTER" => {
                return Ok(ColumnType::VarChar(
                    self.length()?.unwrap_or(VARCHAR_DEFAULT),
                ));
            }
            "DECIMAL" | "DECIMALV2" | "DECIMAL32" | "DECIMAL64" | "DECIMAL128" | "NUMERIC" => {
                return self.decimal();
            }
            "ARRAY" => {
                self.expect_symbol('<')?;
                let item = self.nested(Self::column_type)?;
                self.expect_symbol('>')?;
                return Ok(ColumnType::Array(Box::new(item)));
            }
            "TIMESTAMPTZ" => {
                return Err(Error::unsupported("a column of timestamps with time zone")
                    .at(at)
                    .hint("DATETIME has none."));
            }
            "HLL" | "BITMAP" | "PERCENTILE" | "MAP" | "STRUCT" | "VARBINARY" | "BINARY"
            | "BYTEA" | "UUID" | "INTERVAL" | "TIME" | "TIMETZ" | "SERIAL" | "BIGSERIAL"
            | "OID" | "MONEY" | "VARIANT" => {
                return Err(Error::unsupported(format_args!(
                    "the column type {}",
                    word.to_ascii_uppercase()
                ))
                .at(at));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Syntax,
                    format!("syntax error at or near \"{word}\", expected a column type"),
                )
                .at(at));
            }
        };
        // A display width, as in INT(11), means nothing.
        self.length()?;
        Ok(simple)
    }

    fn decimal(&mut self) -> Result<ColumnType, Error> {
        if !self.eat_symbol('(') {
            return Ok(ColumnType::Decimal {
                precision: 10,
                scale: 0,
            });
        }
        let precision = self.number("the precision")?;
        let scale = if self.eat_symbol(',') {
            self.number("the scale")?
        } else {
            0
        };
        self.expect_symbol(')')?;
        // Out-of-range values become ones that the schema's own check refuses.
        Ok(ColumnType::Decimal {
            precision: u8::try_from(precision).unwrap_or(u8::MAX),
            scale: i8::try_from(scale).unwrap_or(i8::MAX),
        })
    }

    fn key_model(&mut self) -> Result<(KeyModel, Vec<String>), Error> {
        for key in [
            KeyModel::Duplicate,
            KeyModel::Unique,
            KeyModel::Aggregate,
            KeyModel::Primary,
        ] {
            if self.eat(key.keywords()) {
                return Ok((key, self.list(Self::column_name)?));
            }
        }
        Ok((KeyModel::Duplicate, Vec::new()))
    }

    fn distributed_by(&mut self) -> Result<Distribution, Error> {
        let mut distribution = Distribution {
            columns: Vec::new(),
            buckets: None,
        };
        if self.eat("DISTRIBUTED BY") {
            if self.eat("HASH") {
                distribution.columns = self.list(Self::column_name)?;
            } else if !self.eat("RANDOM") {
                return Err(self.unexpected("HASH or RANDOM"));
            }
            if self.eat("BUCKETS") {
                let n = self.number("the number of buckets")?;
                distribution.buckets = Some(u32::try_from(n).unwrap_or(u32::MAX));
            }
        }
        Ok(distribution)
    }
}

fn range_type(schema: &TableSchema) -> Result<&ColumnType, Error> {
    schema
        .partition_type()
        .ok_or_else(|| Error::internal("a range table has a partition column"))
}
