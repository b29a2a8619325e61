//! What a query reads, told from its syntax: whether the catalogs answer it, and how much of them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;

use crate::function_list;
use crate::names::parts;
use crate::relations::BuiltinRelations;

/// Whether a statement is about nothing but the catalogs: every relation that it names is one of
/// theirs, or it names none and calls a function that only they know.
pub fn asks_the_catalogs(builtin: &BuiltinRelations, query: &sql::Query) -> bool {
    let mut with = BTreeSet::new();
    let mut calls_ours = false;
    let _ = sql::visit_expressions(query, |expr| {
        if let sql::Expr::Function(function) = expr {
            calls_ours |= parts(&function.name)
                .pop()
                .is_some_and(|name| function_list::asks_the_catalogs(&name));
        }
        if let sql::Expr::Identifier(word) = expr {
            calls_ours |= word.quote_style.is_none()
                && matches!(
                    word.value.to_lowercase().as_str(),
                    "current_user" | "session_user" | "current_catalog" | "current_role"
                );
        }
        // Casts to types of the catalogs' own, such as regclass.
        if let sql::Expr::Cast { data_type, .. } = expr {
            let name = data_type.to_string().to_lowercase();
            calls_ours |=
                name.trim_start_matches("pg_catalog.").starts_with("reg") || name == "oid";
        }
        ControlFlow::<()>::Continue(())
    });
    collect_with(query, &mut with);
    let (named, functions) = relations(query);
    calls_ours |= functions
        .iter()
        .any(|name| function_list::asks_the_catalogs(name));
    let mut theirs = named
        .iter()
        .filter(|parts| !matches!(parts.as_slice(), [bare] if with.contains(bare)));
    let is_theirs = |parts: &Vec<String>| match parts.as_slice() {
        [bare] => builtin.definition("pg_catalog", bare).is_some(),
        // A schema of theirs without such a relation is theirs to refuse.
        [schema, _] | [_, schema, _] => {
            matches!(schema.as_str(), "pg_catalog" | "information_schema")
        }
        _ => false,
    };
    match theirs.next() {
        None => calls_ours || is_constant(query),
        Some(first) => is_theirs(first) && theirs.all(is_theirs),
    }
}

/// Whether a query has decimals, with which the planner reckons exactly; here they are floating.
pub fn has_decimals(query: &sql::Query) -> bool {
    let visited = sql::visit_expressions(query, |expr| match expr {
        sql::Expr::Value(value) if matches!(&value.value, sql::Value::Number(digits, _) if digits.parse::<i64>().is_err()) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    visited.is_break()
}

/// What a query of the catalogs needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactScope {
    /// Nothing: it has only constants.
    Nothing,
    /// Who asks, and the settings of the session.
    Session,
    Objects,
}

/// What a query that asks the catalogs needs.
pub fn fact_scope_of(query: &sql::Query) -> FactScope {
    if is_constant(query) {
        return FactScope::Nothing;
    }
    let (named, functions) = relations(query);
    let mut all = named.is_empty() && functions.is_empty();
    let _ = sql::visit_expressions(query, |expr| {
        match expr {
            sql::Expr::Function(function) => {
                all &= parts(&function.name).pop().is_some_and(|name| {
                    function_list::find(&name).is_some_and(|group| group.reads_session_alone)
                });
            }
            sql::Expr::Cast { data_type, .. } => {
                all &= !data_type
                    .to_string()
                    .to_lowercase()
                    .trim_start_matches("pg_catalog.")
                    .starts_with("reg");
            }
            _ => {}
        }
        if all {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    if all {
        FactScope::Session
    } else {
        FactScope::Objects
    }
}

/// `SELECT 1` and the like: nothing but literals that mean the same everywhere.
pub fn is_constant(query: &sql::Query) -> bool {
    let sql::SetExpr::Select(select) = &*query.body else {
        return false;
    };
    let plain = |expr: &sql::Expr| {
        let sql::Expr::Value(value) = expr else {
            return false;
        };
        match &value.value {
            sql::Value::Number(digits, _) => digits.parse::<i64>().is_ok(),
            sql::Value::SingleQuotedString(_) | sql::Value::Boolean(_) | sql::Value::Null => true,
            _ => false,
        }
    };
    let item = |item: &sql::SelectItem| match item {
        sql::SelectItem::UnnamedExpr(expr) | sql::SelectItem::ExprWithAlias { expr, .. } => {
            plain(expr)
        }
        _ => false,
    };
    let bare = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none();
    bare && select.from.is_empty()
        && select.selection.is_none()
        && select.having.is_none()
        && select.distinct.is_none()
        && !select.projection.is_empty()
        && select.projection.iter().all(item)
}

/// Whether a part of a query names a relation by this bare name.
pub fn names(body: &sql::SetExpr, name: &str) -> bool {
    relations(body)
        .0
        .iter()
        .any(|parts| matches!(parts.as_slice(), [bare] if bare == name))
}

/// The relations that a query names, and the functions after its FROMs.
pub(super) fn relations<V: sql::Visit>(of: &V) -> (Vec<Vec<String>>, Vec<String>) {
    struct Relations(Vec<Vec<String>>, Vec<String>);
    impl sql::Visitor for Relations {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &sql::TableFactor) -> ControlFlow<()> {
            match factor {
                sql::TableFactor::Table {
                    name, args: None, ..
                } => self.0.push(parts(name)),
                sql::TableFactor::Table {
                    name,
                    args: Some(_),
                    ..
                }
                | sql::TableFactor::Function { name, .. } => {
                    self.1.extend(parts(name).pop());
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Relations(Vec::new(), Vec::new());
    let _ = sql::Visit::visit(of, &mut found);
    (found.0, found.1)
}

/// Whether a statement names a relation of the catalogs, perhaps beside others.
pub fn names_a_catalog(builtin: &BuiltinRelations, statement: &sql::Statement) -> bool {
    relations(statement)
        .0
        .iter()
        .any(|parts| match parts.as_slice() {
            [bare] => builtin.definition("pg_catalog", bare).is_some(),
            [schema, _] | [_, schema, _] => {
                schema == "pg_catalog" || schema == "information_schema"
            }
            _ => false,
        })
}

/// The names of WITH queries, at any depth.
fn collect_with(query: &sql::Query, names: &mut BTreeSet<String>) {
    struct Names<'n>(&'n mut BTreeSet<String>);
    impl sql::Visitor for Names<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &sql::Query) -> ControlFlow<()> {
            if let Some(with) = &query.with {
                self.0.extend(
                    with.cte_tables
                        .iter()
                        .map(|c| crate::names::folded(&c.alias.name)),
                );
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql::Visit::visit(query, &mut Names(names));
}
