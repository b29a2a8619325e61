//! PostgreSQL's catalogs: `pg_catalog` and `information_schema`, and the queries that clients ask
//! of them.
//!
//! Clients ask in a language that DataFusion does not speak: subqueries that name the row around
//! them, arrays that begin at 0, functions that answer rows inside a SELECT list, `regclass`. The
//! catalogs are small, so such queries are answered here by a plain evaluator: compiled to
//! closures, joined by indexes, with PostgreSQL's types and rules. It reads nothing but a
//! [`CatalogSnapshot`], and is never given a statement that names any other table; those are
//! DataFusion's, which sees the same catalogs as tables ([`CatalogSnapshot::batch`]).
//!
//! What is the same in every PostgreSQL 15 (types, functions, operators) is in `builtin/`, as a
//! server has it.
//!
//! A part of a statement that the evaluator does not do is refused by its name (`refused.rs`),
//! never passed over.

mod aggregate;
mod answer;
mod array;
mod calls;
mod casts;
mod compile;
mod context;
mod directory;
mod expr;
mod facts;
mod from_clause;
mod function;
mod function_list;
mod functions;
mod grouping;
mod information_schema;
mod interval;
mod join;
mod names;
mod operators;
mod procedures;
mod refused;
mod relations;
mod roles;
mod scope;
mod select;
mod set_functions;
mod snapshot;
mod stages;
mod tables;
#[cfg(test)]
mod tests;
mod text_functions;
mod times;
mod types;
mod value;
mod value_text;

/// What stands before the lower bound of BETWEEN SYMMETRIC, as a prefix of it.
pub const SYMMETRIC: &str = "SYMMETRIC";

pub use self::answer::{
    Answer, Catalogs, FactScope, asks_the_catalogs, fact_scope_of, has_decimals, is_constant,
    is_without_relations, names_a_catalog,
};
pub use self::array::array_items;
pub use self::context::{Allowance, SideEffect};
pub use self::facts::{
    Activity, Column, Objects, Role, Schema, ServerFacts, Setting, Table, relation_oid,
};
pub use self::interval::{date_before_time, interval_text};
pub use self::names::{column_name, folded, type_name};
pub use self::relations::{BuiltinRelations, declared_type};
pub use self::snapshot::CatalogSnapshot;
pub use self::text_functions::{chrono_pattern, size_pretty};
pub use self::types::*;

/// The spelling in which clients look for a setting.
pub fn settings_name(name: &str) -> &str {
    match name {
        "datestyle" => "DateStyle",
        "intervalstyle" => "IntervalStyle",
        "timezone" => "TimeZone",
        other => other,
    }
}
