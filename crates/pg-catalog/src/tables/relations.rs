//! Rows of pg_class and pg_attribute, and what other catalogs say of the same storage.

use std::collections::HashMap;

use postgres_types::Kind;

use super::{place, text};
use crate::facts::{Column, OWNER};
use crate::relations::{BuiltinRelations, Definition};
use crate::value::{Row, Value};

/// What `pg_attribute` repeats of a type.
pub(super) struct Storage {
    len: Value,
    by_value: Value,
    align: Value,
    storage: Value,
    collation: Value,
}

pub(super) fn class(
    d: &Definition,
    oid: u32,
    name: &str,
    namespace: u32,
    kind: char,
    columns: usize,
    has_index: bool,
) -> Row {
    d.row([
        ("oid", Value::oid(oid)),
        ("relname", text(name)),
        ("relnamespace", Value::oid(namespace)),
        ("relowner", Value::oid(OWNER)),
        (
            "relam",
            Value::Int(match kind {
                'r' => 2,
                'i' => 403,
                _ => 0,
            }),
        ),
        ("relfilenode", Value::oid(if kind == 'v' { 0 } else { oid })),
        // Never more than 0 pages: DuckDB reads tables by ctid where there are some.
        (
            "reltuples",
            Value::Float(if kind == 'r' { -1.0 } else { 0.0 }),
        ),
        ("relhasindex", Value::Bool(has_index)),
        ("relpersistence", text("p")),
        ("relkind", text(kind.to_string())),
        ("relnatts", Value::Int(columns as i64)),
        ("relhasrules", Value::Bool(kind == 'v')),
        ("relispopulated", Value::Bool(true)),
        ("relreplident", text(if kind == 'r' { "d" } else { "n" })),
    ])
}

pub(super) fn attribute(
    d: &Definition,
    relation: u32,
    i: usize,
    column: &Column,
    storages: &HashMap<u32, Storage>,
) -> Row {
    let mut row = d.row([
        ("attrelid", Value::oid(relation)),
        ("attname", text(&column.name)),
        ("atttypid", Value::oid(column.pg.oid())),
        ("attstattarget", Value::Int(-1)),
        ("attnum", place(i)),
        (
            "attndims",
            Value::Int(matches!(column.pg.kind(), Kind::Array(_)).into()),
        ),
        ("attcacheoff", Value::Int(-1)),
        ("atttypmod", Value::Int(column.modifier.into())),
        ("attnotnull", Value::Bool(column.not_null)),
        ("atthasdef", Value::Bool(column.default.is_some())),
        ("attislocal", Value::Bool(true)),
    ]);
    if let Some(storage) = storages.get(&column.pg.oid()) {
        for (name, value) in [
            ("attlen", &storage.len),
            ("attbyval", &storage.by_value),
            ("attalign", &storage.align),
            ("attstorage", &storage.storage),
            ("attcollation", &storage.collation),
        ] {
            if let Some(at) = d.column(name) {
                row[at] = value.clone();
            }
        }
    }
    row
}

pub(super) fn storages(builtin: &BuiltinRelations) -> HashMap<u32, Storage> {
    let Some(definition) = builtin.definition("pg_catalog", "pg_type") else {
        return HashMap::new();
    };
    let at = |name: &str| definition.column(name).unwrap_or(0);
    let (oid, len, by_value, align, storage, collation) = (
        at("oid"),
        at("typlen"),
        at("typbyval"),
        at("typalign"),
        at("typstorage"),
        at("typcollation"),
    );
    let rows = builtin.rows(definition).iter().map(|row| {
        let of = |i: usize| row[i].clone();
        let storage = Storage {
            len: of(len),
            by_value: of(by_value),
            align: of(align),
            storage: of(storage),
            collation: of(collation),
        };
        (row[oid].as_oid(), storage)
    });
    rows.collect()
}

/// The default btree operator class of each type.
pub(super) fn operator_classes(builtin: &BuiltinRelations) -> HashMap<u32, u32> {
    let Some(definition) = builtin.definition("pg_catalog", "pg_opclass") else {
        return HashMap::new();
    };
    let at = |name: &str| definition.column(name).unwrap_or(0);
    let (oid, method, input, default) = (
        at("oid"),
        at("opcmethod"),
        at("opcintype"),
        at("opcdefault"),
    );
    let of_btree = builtin
        .rows(definition)
        .iter()
        .filter(|r| r[method].as_oid() == 403 && r[default].is_true());
    of_btree
        .map(|r| (r[input].as_oid(), r[oid].as_oid()))
        .collect()
}
