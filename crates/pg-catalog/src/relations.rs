//! The relations of `pg_catalog` and `information_schema`: their columns, and the rows that are the
//! same in every PostgreSQL.

use std::collections::HashMap;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;
use starkeep_error::Error;

use super::facts::Column;
use super::names::type_name;
use super::types::arrow_type;
use super::value::{Row, Value};

/// A relation's name and columns.
#[derive(Debug)]
pub(super) struct Definition {
    pub oid: u32,
    /// `r` or `v`, as in `pg_class.relkind`.
    pub kind: char,
    pub schema: &'static str,
    pub name: &'static str,
    pub columns: Vec<(&'static str, Type)>,
}

impl Definition {
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(known, _)| *known == name)
    }

    /// Its columns, as those of a table are described.
    pub fn described(&self) -> impl Iterator<Item = Column> {
        self.columns.iter().map(|(name, pg)| Column {
            name: (*name).to_owned(),
            pg: pg.clone(),
            modifier: -1,
            not_null: *name == "oid",
            default: None,
            comment: None,
        })
    }

    /// A row of these values. What is not given is what PostgreSQL has where there is nothing to
    /// say.
    pub fn row<const N: usize>(&self, values: [(&str, Value); N]) -> Row {
        let is_view = self.kind == 'v';
        let empty = |ty: &Type| match *ty {
            _ if is_view => Value::Null,
            Type::BOOL => Value::Bool(false),
            Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::REGPROC | Type::XID => {
                Value::Int(0)
            }
            Type::FLOAT4 | Type::FLOAT8 => Value::Float(0.0),
            Type::CHAR => Value::text(""),
            _ => Value::Null,
        };
        let mut row: Row = self.columns.iter().map(|(_, ty)| empty(ty)).collect();
        for (name, value) in values {
            match self.column(name) {
                Some(i) => row[i] = value,
                None => debug_assert!(false, "{} has no column {name}", self.name),
            }
        }
        row
    }
}

/// What does not depend on the cluster: every relation's columns, and PostgreSQL's own types,
/// functions and operators.
pub struct BuiltinRelations {
    pub(super) definitions: Vec<Definition>,
    rows: HashMap<&'static str, Vec<Row>>,
    keywords: Vec<Row>,
    /// The number of each function, by name; the first of several with one name.
    functions: HashMap<String, u32>,
    /// Names of functions that several have.
    pub(super) function_names: HashMap<u32, String>,
    types: HashMap<String, u32>,
    pub(super) type_names: HashMap<u32, String>,
}

impl std::fmt::Debug for BuiltinRelations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BuiltinRelations")
    }
}

fn definitions() -> Vec<Definition> {
    let mut definitions: Vec<Definition> = Vec::new();
    for line in include_str!("relations.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        if let Some(columns) = line.strip_prefix("  ") {
            let parsed = columns
                .split_whitespace()
                .filter_map(|c| c.split_once(':'))
                .map(|(name, ty)| (name, named(ty)));
            definitions
                .last_mut()
                .into_iter()
                .for_each(|d| d.columns.extend(parsed.clone()));
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(oid), Some(kind), Some((schema, name))) = (
            words.next(),
            words.next(),
            words.next().and_then(|n| n.split_once('.')),
        ) else {
            continue;
        };
        let oid = oid.parse().unwrap_or(0);
        definitions.push(Definition {
            oid,
            kind: kind.chars().next().unwrap_or('r'),
            schema,
            name,
            columns: Vec::new(),
        });
    }
    definitions
}

/// The types that columns of catalogs have.
fn named(name: &str) -> Type {
    match name {
        "bool" => Type::BOOL,
        "bytea" => Type::BYTEA,
        "char" => Type::CHAR,
        "float4" => Type::FLOAT4,
        "float8" => Type::FLOAT8,
        "inet" => Type::INET,
        "int2" => Type::INT2,
        "int4" => Type::INT4,
        "int8" => Type::INT8,
        "interval" => Type::INTERVAL,
        "pg_lsn" => Type::PG_LSN,
        "pg_ndistinct" => Type::PG_NDISTINCT,
        "pg_dependencies" => Type::PG_DEPENDENCIES,
        "pg_mcv_list" => Type::PG_MCV_LIST,
        "name" => Type::NAME,
        "numeric" => Type::NUMERIC,
        "oid" => Type::OID,
        "xid" => Type::XID,
        "regproc" => Type::REGPROC,
        "regtype" => Type::REGTYPE,
        "timestamptz" => Type::TIMESTAMPTZ,
        "varchar" => Type::VARCHAR,
        "int2vector" => Type::INT2_VECTOR,
        "oidvector" => Type::OID_VECTOR,
        "pg_node_tree" => Type::PG_NODE_TREE,
        "_aclitem" => Type::ACLITEM_ARRAY,
        "_bool" => Type::BOOL_ARRAY,
        "_char" => Type::CHAR_ARRAY,
        "_float4" => Type::FLOAT4_ARRAY,
        "_float8" => Type::FLOAT8_ARRAY,
        "_int2" => Type::INT2_ARRAY,
        "_name" => Type::NAME_ARRAY,
        "_oid" => Type::OID_ARRAY,
        "_regtype" => Type::REGTYPE_ARRAY,
        "_text" => Type::TEXT_ARRAY,
        "anyarray" => Type::ANYARRAY,
        _ => Type::TEXT,
    }
}

/// What `builtin/export` wrote of PostgreSQL's own rows.
const BUILTIN: &[(&str, &str)] = &[
    ("pg_aggregate", include_str!("builtin/pg_aggregate.jsonl")),
    ("pg_am", include_str!("builtin/pg_am.jsonl")),
    ("pg_amop", include_str!("builtin/pg_amop.jsonl")),
    ("pg_amproc", include_str!("builtin/pg_amproc.jsonl")),
    ("pg_cast", include_str!("builtin/pg_cast.jsonl")),
    ("pg_collation", include_str!("builtin/pg_collation.jsonl")),
    ("pg_conversion", include_str!("builtin/pg_conversion.jsonl")),
    (
        "pg_description",
        include_str!("builtin/pg_description.jsonl"),
    ),
    ("pg_language", include_str!("builtin/pg_language.jsonl")),
    ("pg_opclass", include_str!("builtin/pg_opclass.jsonl")),
    ("pg_operator", include_str!("builtin/pg_operator.jsonl")),
    ("pg_opfamily", include_str!("builtin/pg_opfamily.jsonl")),
    ("pg_proc", include_str!("builtin/pg_proc.jsonl")),
    ("pg_range", include_str!("builtin/pg_range.jsonl")),
    ("pg_tablespace", include_str!("builtin/pg_tablespace.jsonl")),
    ("pg_ts_config", include_str!("builtin/pg_ts_config.jsonl")),
    ("pg_ts_dict", include_str!("builtin/pg_ts_dict.jsonl")),
    ("pg_ts_parser", include_str!("builtin/pg_ts_parser.jsonl")),
    (
        "pg_ts_template",
        include_str!("builtin/pg_ts_template.jsonl"),
    ),
    ("pg_type", include_str!("builtin/pg_type.jsonl")),
];
/// The rows of `pg_get_keywords()`.
const KEYWORDS: &str = include_str!("builtin/pg_get_keywords.jsonl");

/// The rows of an exported file, in the order of these columns; NULL where the file has no such
/// column.
fn exported(file: &str, columns: &[(&str, Type)]) -> Result<Vec<Row>, Error> {
    let broken = |e: serde_json::Error| {
        Error::internal(format!("PostgreSQL's own catalogs cannot be read: {e}"))
    };
    let mut lines = file.lines();
    let names: Vec<&str> = serde_json::from_str(lines.next().unwrap_or("[]")).map_err(broken)?;
    let places: Vec<_> = columns
        .iter()
        .map(|(name, ty)| (names.iter().position(|n| n == name), ty))
        .collect();
    let rows = lines.map(|line| {
        let row: Vec<serde_json::Value> = serde_json::from_str(line).map_err(broken)?;
        let value = |(place, ty): &(Option<usize>, &Type)| {
            place
                .and_then(|i| row.get(i))
                .map_or(Value::Null, |v| value(v, ty))
        };
        Ok(places.iter().map(value).collect())
    });
    rows.collect()
}

fn value(json: &serde_json::Value, ty: &Type) -> Value {
    let is_float = matches!(*ty, Type::FLOAT4 | Type::FLOAT8);
    // Vectors begin at 0, other arrays at 1.
    let first = i64::from(!matches!(*ty, Type::INT2_VECTOR | Type::OID_VECTOR));
    match json {
        serde_json::Value::Null | serde_json::Value::Object(_) => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) if is_float => n.as_f64().map_or(Value::Null, Value::Float),
        serde_json::Value::Number(n) => n.as_i64().map_or(Value::Null, Value::Int),
        serde_json::Value::String(text) => Value::text(text),
        serde_json::Value::Array(items) => {
            Value::Array(first, items.iter().map(|i| value(i, &Type::TEXT)).collect())
        }
    }
}

impl BuiltinRelations {
    /// Reads them.
    pub fn load() -> Result<Self, Error> {
        let definitions = definitions();
        let mut rows = HashMap::new();
        for (name, file) in BUILTIN {
            let definition = definitions
                .iter()
                .find(|d| d.schema == "pg_catalog" && d.name == *name);
            rows.insert(
                *name,
                exported(file, definition.map_or(&[], |d| &d.columns))?,
            );
        }
        let keyword_columns =
            ["word", "catcode", "barelabel", "catdesc", "baredesc"].map(|name| (name, Type::TEXT));
        let mut builtin = Self {
            definitions,
            rows,
            keywords: exported(KEYWORDS, &keyword_columns)?,
            functions: HashMap::new(),
            function_names: HashMap::new(),
            types: HashMap::new(),
            type_names: HashMap::new(),
        };
        for (oid, name) in builtin.numbers("pg_proc", "proname") {
            builtin.functions.entry(name.clone()).or_insert(oid);
            builtin.function_names.insert(oid, name);
        }
        for (oid, name) in builtin.numbers("pg_type", "typname") {
            builtin.types.insert(name.clone(), oid);
            builtin.type_names.insert(oid, name);
        }
        Ok(builtin)
    }

    /// The number and the name of each row.
    fn numbers(&self, relation: &str, name: &str) -> Vec<(u32, String)> {
        let Some(definition) = self.definition("pg_catalog", relation) else {
            return Vec::new();
        };
        let (Some(oid), Some(name)) = (definition.column("oid"), definition.column(name)) else {
            return Vec::new();
        };
        let pair = |row: &Row| match (&row[oid], &row[name]) {
            (Value::Int(oid), Value::Text(name)) => {
                Some((u32::try_from(*oid).ok()?, name.to_string()))
            }
            _ => None,
        };
        self.rows(definition).iter().filter_map(pair).collect()
    }

    pub(super) fn definition(&self, schema: &str, name: &str) -> Option<&Definition> {
        self.definitions
            .iter()
            .find(|d| d.schema == schema && d.name == name)
    }

    pub(super) fn function(&self, name: &str) -> Option<u32> {
        self.functions.get(name).copied()
    }

    pub(super) fn type_oid(&self, name: &str) -> Option<u32> {
        self.types.get(name).copied()
    }

    /// The rows of `pg_get_keywords()`.
    pub(super) fn keywords(&self) -> &[Row] {
        &self.keywords
    }

    /// The rows that PostgreSQL itself has in a relation.
    pub(super) fn rows(&self, definition: &Definition) -> &[Row] {
        let rows = self
            .rows
            .get(definition.name)
            .filter(|_| definition.schema == "pg_catalog");
        rows.map_or(&[], Vec::as_slice)
    }
}

/// The Arrow type of a type that a statement names.
pub fn declared_type(builtin: &BuiltinRelations, data_type: &sql::DataType) -> Option<DataType> {
    if let sql::DataType::Array(sql::ArrayElemTypeDef::SquareBracket(item, _)) = data_type {
        let item = declared_type(builtin, item)?;
        return Some(DataType::List(Field::new_list_field(item, true).into()));
    }
    arrow_type(builtin.type_oid(&type_name(data_type))?)
}

#[cfg(test)]
mod tests {
    use super::super::facts::INFORMATION_SCHEMA;
    use super::*;

    #[test]
    fn every_relation_has_columns_and_postgresqls_rows_fit_them() {
        let builtin = BuiltinRelations::load().expect("the catalogs");
        assert!(
            builtin
                .definitions
                .iter()
                .all(|d| d.oid > 0 && !d.columns.is_empty())
        );
        for (table, at_least) in [
            ("pg_type", 500),
            ("pg_proc", 3000),
            ("pg_operator", 700),
            ("pg_cast", 200),
            ("pg_am", 2),
        ] {
            let definition = builtin.definition("pg_catalog", table).expect("defined");
            let rows = builtin.rows(definition);
            assert!(
                rows.len() >= at_least && rows.iter().all(|r| r.len() == definition.columns.len()),
                "{table}"
            );
        }
        let array_in = builtin.function("array_in").expect("a function");
        assert_eq!(
            builtin.function_names.get(&array_in).map(String::as_str),
            Some("array_in")
        );
        assert_eq!(builtin.type_oid("int8"), Some(20));
        let definition = builtin
            .definition("pg_catalog", "pg_proc")
            .expect("defined");
        let cell = |function: &str, column: &str| {
            let name = definition.column("proname").expect("a column");
            let row = builtin
                .rows(definition)
                .iter()
                .find(|r| matches!(&r[name], Value::Text(n) if **n == *function));
            row.expect("a row")[definition.column(column).expect("a column")].clone()
        };
        assert!(
            matches!(cell("_pg_expandarray", "pronamespace"), Value::Int(n) if n == i64::from(INFORMATION_SCHEMA))
        );
        assert!(matches!(cell("abs", "procost"), Value::Float(cost) if cost == 1.0));
        assert!(matches!(cell("lpad", "proargtypes"), Value::Array(0, types) if types.len() == 3));
        assert!(
            matches!(cell("json_each", "proargmodes"), Value::Array(1, modes) if modes.len() == 3)
        );
    }
}
