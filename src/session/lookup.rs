//! Which queries are lookups in a system table, and their answers.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast as sql;

use super::{Outcome, Rows, Session};
use crate::catalog::{ORIGIN_KEY, relation_oid};
use crate::error::{Error, from_datafusion};
use crate::query::{Lookup, Operand, SYSTEM_SCHEMA};
use crate::statement::folded;

/// `column = constant AND …`; `None` for anything else.
fn equalities(expr: &sql::Expr, found: &mut Vec<(String, Operand)>) -> Option<()> {
    match expr {
        sql::Expr::Nested(inner) => equalities(inner, found),
        sql::Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::And,
            right,
        } => {
            equalities(left, found)?;
            equalities(right, found)
        }
        sql::Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::Eq,
            right,
        } => {
            let (sql::Expr::Identifier(column), sql::Expr::Value(value)) = (&**left, &**right)
            else {
                return None;
            };
            let operand = match &value.value {
                sql::Value::Number(digits, _) => {
                    Operand::Value(ScalarValue::Int64(Some(digits.parse().ok()?)))
                }
                sql::Value::SingleQuotedString(text) => {
                    Operand::Value(ScalarValue::Utf8(Some(text.clone())))
                }
                sql::Value::Placeholder(name) => {
                    let number: usize = name
                        .strip_prefix('$')?
                        .parse()
                        .ok()
                        .filter(|n| (1..=64).contains(n))?;
                    Operand::Parameter(number - 1)
                }
                _ => return None,
            };
            found.push((folded(column), operand));
            Some(())
        }
        _ => None,
    }
}

/// A query as a lookup; `None` for what only a planner can answer.
fn read(query: &sql::Query, in_system: bool) -> Option<Lookup> {
    let more = query.with.is_some()
        || query.order_by.is_some()
        || query.limit_clause.is_some()
        || query.fetch.is_some();
    if more || !query.locks.is_empty() || query.for_clause.is_some() {
        return None;
    }
    let sql::SetExpr::Select(select) = &*query.body else {
        return None;
    };
    let sql::GroupByExpr::Expressions(groups, modifiers) = &select.group_by else {
        return None;
    };
    let plain = select.distinct.is_none()
        && groups.is_empty()
        && modifiers.is_empty()
        && select.having.is_none()
        && select.qualify.is_none()
        && select.into.is_none()
        && select.top.is_none()
        && select.named_window.is_empty()
        && select.lateral_views.is_empty();
    let [table] = select.from.as_slice() else {
        return None;
    };
    let sql::TableFactor::Table {
        name,
        alias: None,
        args: None,
        sample: None,
        version: None,
        with_ordinality: false,
        ..
    } = &table.relation
    else {
        return None;
    };
    let parts: Vec<String> = name
        .0
        .iter()
        .filter_map(|p| p.as_ident())
        .map(folded)
        .collect();
    let table_name = match parts.as_slice() {
        [table] if in_system => table,
        [schema, table] if schema == SYSTEM_SCHEMA => table,
        _ => return None,
    };
    if !plain || !table.joins.is_empty() {
        return None;
    }
    let mut equal = Vec::new();
    equalities(select.selection.as_ref()?, &mut equal)?;
    let columns = match select.projection.as_slice() {
        [sql::SelectItem::Wildcard(_)] => None,
        items => {
            let item = |item: &sql::SelectItem| match item {
                sql::SelectItem::UnnamedExpr(sql::Expr::Identifier(column)) => {
                    Some((folded(column), folded(column)))
                }
                sql::SelectItem::ExprWithAlias {
                    expr: sql::Expr::Identifier(column),
                    alias,
                } => Some((folded(column), folded(alias))),
                _ => None,
            };
            Some(items.iter().map(item).collect::<Option<Vec<_>>>()?)
        }
    };
    Lookup::new(table_name, columns.as_deref(), &equal)
}

impl Session {
    pub(super) fn lookup(&self, ast: &sql::Statement) -> Option<Arc<Lookup>> {
        let sql::Statement::Query(query) = ast else {
            return None;
        };
        let in_system = self
            .caller
            .database
            .as_ref()
            .is_none_or(|d| d.as_str() == SYSTEM_SCHEMA);
        read(query, in_system).map(Arc::new)
    }

    /// Its columns, with the table that they come from.
    pub(super) fn looked_up_schema(&self, lookup: &Lookup) -> SchemaRef {
        let (table, places) = lookup.origins();
        let oid = relation_oid(self.caller.cluster.name().as_str(), SYSTEM_SCHEMA, table);
        let schema = lookup.schema();
        let fields = schema.fields().iter().zip(places).map(|(field, place)| {
            let origin = HashMap::from([(ORIGIN_KEY.to_owned(), format!("{oid}.{}", place + 1))]);
            Field::clone(field).with_metadata(origin)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    pub(super) async fn look_up(
        &self,
        lookup: &Lookup,
        schema: SchemaRef,
        values: &[ScalarValue],
    ) -> Result<Outcome, Error> {
        let sources = self.caller.gateway.engine.sources();
        let batch = lookup
            .rows(
                sources,
                &self.caller.cluster,
                self.client.user.as_str(),
                values,
            )
            .await?;
        let batch = RecordBatch::try_new(schema, batch.columns().to_vec())
            .map_err(|e| from_datafusion(e.into()))?;
        let view = self
            .caller
            .gateway
            .engine
            .view(&self.caller.cluster, self.client.user.as_str());
        Ok(Outcome::Rows(Rows::of(batch, "SELECT", view)))
    }
}
