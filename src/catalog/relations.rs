//! The relations of `pg_catalog` and `information_schema`: their columns, and the rows that are the same in every PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion_pg_catalog::pg_catalog::{ArrowTable, PgCatalogStaticTables};
use postgres_types::Type;

use super::value::{Value, ValueType};
use crate::error::{Error, from_datafusion};

/// A row, in the order of its relation's columns.
pub(super) type Row = Vec<Value>;

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

    /// A row of these values. What is not given is what PostgreSQL has where there is nothing to say.
    pub fn row<const N: usize>(&self, values: [(&str, Value); N]) -> Row {
        let is_view = self.kind == 'v';
        let empty = |ty: &Type| match *ty {
            _ if is_view => Value::Null,
            Type::BOOL => Value::Bool(false),
            Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::REGPROC | Type::XID => Value::Int(0),
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

/// Rows with their columns.
#[derive(Debug)]
pub(super) struct Relation {
    pub columns: Vec<(String, ValueType)>,
    pub rows: Vec<Row>,
}

/// What does not depend on the cluster: every relation's columns, and PostgreSQL's own types, functions and operators.
pub struct BuiltinRelations {
    pub(super) definitions: Vec<Definition>,
    tables: HashMap<&'static str, Arc<ArrowTable>>,
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
    for line in include_str!("relations.txt").lines().filter(|l| !l.starts_with('#')) {
        if let Some(columns) = line.strip_prefix("  ") {
            let parsed = columns.split_whitespace().filter_map(|c| c.split_once(':')).map(|(name, ty)| (name, named(ty)));
            definitions.last_mut().into_iter().for_each(|d| d.columns.extend(parsed.clone()));
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(oid), Some(kind), Some((schema, name))) =
            (words.next(), words.next(), words.next().and_then(|n| n.split_once('.')))
        else {
            continue;
        };
        let oid = oid.parse().unwrap_or(0);
        definitions.push(Definition { oid, kind: kind.chars().next().unwrap_or('r'), schema, name, columns: Vec::new() });
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

impl BuiltinRelations {
    /// Reads them.
    pub fn load() -> Result<Self, Error> {
        let all = PgCatalogStaticTables::try_new().map_err(from_datafusion)?;
        let tables = HashMap::from([
            ("pg_aggregate", all.pg_aggregate),
            ("pg_am", all.pg_am),
            ("pg_amop", all.pg_amop),
            ("pg_amproc", all.pg_amproc),
            ("pg_cast", all.pg_cast),
            ("pg_collation", all.pg_collation),
            ("pg_conversion", all.pg_conversion),
            ("pg_language", all.pg_language),
            ("pg_opclass", all.pg_opclass),
            ("pg_operator", all.pg_operator),
            ("pg_opfamily", all.pg_opfamily),
            ("pg_proc", all.pg_proc),
            ("pg_range", all.pg_range),
            ("pg_tablespace", all.pg_tablespace),
            ("pg_ts_config", all.pg_ts_config),
            ("pg_ts_dict", all.pg_ts_dict),
            ("pg_ts_parser", all.pg_ts_parser),
            ("pg_ts_template", all.pg_ts_template),
            ("pg_type", all.pg_type),
            ("pg_get_keywords", all.pg_get_keywords),
            ("pg_description", all.pg_description),
        ]);
        let mut statics = Self {
            definitions: definitions(),
            tables,
            functions: HashMap::new(),
            function_names: HashMap::new(),
            types: HashMap::new(),
            type_names: HashMap::new(),
        };
        let pairs = |table: &str, name: &str| -> Result<Vec<(u32, String)>, Error> {
            let oids = statics.texts(table, "oid")?;
            let names = statics.texts(table, name)?;
            Ok(oids.into_iter().zip(names).filter_map(|(o, n)| Some((o?.parse().ok()?, n?))).collect())
        };
        let functions = pairs("pg_proc", "proname")?;
        let types = pairs("pg_type", "typname")?;
        for (oid, name) in functions {
            statics.functions.entry(name.clone()).or_insert(oid);
            statics.function_names.insert(oid, name);
        }
        for (oid, name) in types {
            statics.types.insert(name.clone(), oid);
            statics.type_names.insert(oid, name);
        }
        Ok(statics)
    }

    pub(super) fn definition(&self, schema: &str, name: &str) -> Option<&Definition> {
        self.definitions.iter().find(|d| d.schema == schema && d.name == name)
    }

    pub(super) fn function(&self, name: &str) -> Option<u32> {
        self.functions.get(name).copied()
    }

    pub(super) fn type_oid(&self, name: &str) -> Option<u32> {
        self.types.get(name).copied()
    }

    /// A column as texts; NULLs stay.
    fn texts(&self, table: &str, column: &str) -> Result<Vec<Option<String>>, Error> {
        let mut texts = Vec::new();
        for batch in self.batches(table) {
            let Some(array) = batch.column_by_name(column) else { continue };
            let array = cast(array, &DataType::Utf8).map_err(|e| from_datafusion(e.into()))?;
            texts.extend(array.as_string::<i32>().iter().map(|t| t.map(str::to_owned)));
        }
        Ok(texts)
    }

    fn batches(&self, table: &str) -> &[RecordBatch] {
        self.tables.get(table).map_or(&[], |t| t.data())
    }

    /// The rows of `pg_get_keywords()`.
    pub(super) fn keywords(&self) -> Result<Vec<Row>, Error> {
        let mut columns = Vec::new();
        for (name, ty) in [
            ("word", Type::TEXT),
            ("catcode", Type::CHAR),
            ("barelabel", Type::BOOL),
            ("catdesc", Type::TEXT),
            ("baredesc", Type::TEXT),
        ] {
            let mut values = Vec::new();
            for batch in self.batches("pg_get_keywords") {
                values.extend(match batch.column_by_name(name) {
                    Some(array) => self.values(array, &ty)?,
                    None => vec![Value::Null; batch.num_rows()],
                });
            }
            columns.push(values);
        }
        let height = columns.first().map_or(0, Vec::len);
        Ok((0..height).map(|i| columns.iter().map(|c| c[i].clone()).collect()).collect())
    }

    /// The rows that PostgreSQL itself has in a relation.
    pub(super) fn rows(&self, definition: &Definition) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        for batch in self.batches(definition.name) {
            let columns = definition.columns.iter().map(|(name, ty)| match batch.column_by_name(name) {
                Some(array) => self.values(array, ty),
                None => Ok(vec![Value::Null; batch.num_rows()]),
            });
            let columns = columns.collect::<Result<Vec<_>, Error>>()?;
            rows.extend((0..batch.num_rows()).map(|i| columns.iter().map(|c| c[i].clone()).collect::<Row>()));
        }
        Ok(rows)
    }

    fn values(&self, array: &ArrayRef, ty: &Type) -> Result<Vec<Value>, Error> {
        let broken = |e: datafusion::arrow::error::ArrowError| from_datafusion(e.into());
        Ok(match array.data_type() {
            DataType::Boolean => array.as_boolean().iter().map(|b| b.map_or(Value::Null, Value::Bool)).collect(),
            DataType::Float32 | DataType::Float64 => {
                let array = cast(array, &DataType::Float64).map_err(broken)?;
                let floats = array.as_primitive::<datafusion::arrow::datatypes::Float64Type>();
                floats.iter().map(|f| f.map_or(Value::Null, Value::Float)).collect()
            }
            DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                let array = cast(array, &DataType::Int64).map_err(broken)?;
                array.as_primitive::<Int64Type>().iter().map(|n| n.map_or(Value::Null, Value::Int)).collect()
            }
            _ => {
                let array = cast(array, &DataType::Utf8).map_err(broken)?;
                array.as_string::<i32>().iter().map(|t| t.map_or(Value::Null, |t| self.value(t, ty))).collect()
            }
        })
    }

    /// A value from the text that the export has for it.
    fn value(&self, text: &str, ty: &Type) -> Value {
        let list = |text: &str| -> Vec<String> {
            let inner = text.trim_start_matches(['[', '{']).trim_end_matches([']', '}']);
            let items = inner.split(',').map(|i| i.trim().trim_matches(['\'', '"']).to_owned());
            items.filter(|_| !inner.is_empty()).collect()
        };
        match *ty {
            Type::REGPROC => Value::oid(self.function(text).unwrap_or(0)),
            Type::INT2_VECTOR | Type::OID_VECTOR => {
                Value::Array(0, text.split_whitespace().map(|n| Value::Int(n.parse().unwrap_or(0))).collect())
            }
            Type::OID_ARRAY | Type::INT2_ARRAY => Value::array(list(text).into_iter().map(|n| Value::Int(n.parse().unwrap_or(0)))),
            Type::TEXT_ARRAY | Type::NAME_ARRAY | Type::CHAR_ARRAY | Type::ACLITEM_ARRAY => {
                Value::array(list(text).into_iter().map(Value::text))
            }
            Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::XID => text.parse().map_or(Value::Null, Value::Int),
            _ => Value::text(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_relation_has_columns_and_postgresqls_rows_fit_them() {
        let statics = BuiltinRelations::load().expect("the catalogs");
        assert!(statics.definitions.iter().all(|d| d.oid > 0 && !d.columns.is_empty()));
        for (table, at_least) in [("pg_type", 500), ("pg_proc", 3000), ("pg_operator", 700), ("pg_cast", 200), ("pg_am", 2)] {
            let definition = statics.definition("pg_catalog", table).expect("defined");
            let rows = statics.rows(definition).expect("rows");
            assert!(rows.len() >= at_least && rows.iter().all(|r| r.len() == definition.columns.len()), "{table}");
        }
        let array_in = statics.function("array_in").expect("a function");
        assert_eq!(statics.function_names.get(&array_in).map(String::as_str), Some("array_in"));
        assert_eq!(statics.type_oid("int8"), Some(20));
    }
}
