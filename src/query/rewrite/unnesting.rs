//! `FROM t, unnest(t.items) AS item` and `FROM t, LATERAL (VALUES (t.a), (t.b)) AS v(x)`: rows out
//! of each row of a table. DataFusion knows no columns of a table after FROM, but takes arrays
//! apart in a SELECT list.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;

use super::{call, folded};
use crate::error::Error;

/// The rows that are made of each row: names of their columns, each with its array.
struct Made {
    alias: Option<sql::Ident>,
    columns: Vec<(sql::Ident, sql::Expr)>,
}

/// Says the one relation of a SELECT and what is made of its rows as one.
pub(super) fn mend(
    select: &mut sql::Select,
    order_by: Option<&mut sql::OrderBy>,
) -> Result<(), Error> {
    let Some((base, made)) = parts(&select.from) else {
        return Ok(());
    };
    let Some(name) = name_of(base) else {
        return Ok(());
    };
    let mut rows = super::parsed("SELECT one_table.* FROM one_table")?;
    if let sql::SetExpr::Select(inner) = &mut *rows.body {
        let kind = sql::SelectItemQualifiedWildcardKind::ObjectName(sql::ObjectName::from(vec![
            name.clone(),
        ]));
        let all =
            sql::SelectItem::QualifiedWildcard(kind, sql::WildcardAdditionalOptions::default());
        let columns = made
            .columns
            .iter()
            .map(|(name, array)| sql::SelectItem::ExprWithAlias {
                expr: call("unnest", vec![array.clone()]),
                alias: name.clone(),
            });
        inner.projection = std::iter::once(all).chain(columns).collect();
        inner.from[0].relation = base.clone();
    }
    select.from = vec![sql::TableWithJoins {
        relation: sql::TableFactor::Derived {
            lateral: false,
            subquery: rows,
            alias: Some(sql::TableAlias {
                explicit: true,
                name: name.clone(),
                columns: Vec::new(),
                at: None,
            }),
            sample: None,
        },
        joins: Vec::new(),
    }];
    let Some(made_name) = made.alias else {
        return Ok(());
    };
    // Their columns are those of the table now.
    let mut requalify = |expr: &mut sql::Expr| {
        if let sql::Expr::CompoundIdentifier(path) = expr
            && let [qualifier, _] = &mut path[..]
            && folded(qualifier) == folded(&made_name)
        {
            *qualifier = name.clone();
        }
        ControlFlow::<()>::Continue(())
    };
    let _ = sql::visit_expressions_mut(select, &mut requalify);
    if let Some(order_by) = order_by {
        let _ = sql::visit_expressions_mut(order_by, &mut requalify);
    }
    Ok(())
}

/// A relation, and what is made of its rows; nothing if FROM is anything else.
fn parts(from: &[sql::TableWithJoins]) -> Option<(&sql::TableFactor, Made)> {
    let (base, rows) = match from {
        [base, rows] if base.joins.is_empty() && rows.joins.is_empty() => {
            (&base.relation, &rows.relation)
        }
        [base] => match &base.joins[..] {
            [
                sql::Join {
                    relation,
                    join_operator: sql::JoinOperator::CrossJoin(sql::JoinConstraint::None),
                    ..
                },
            ] => (&base.relation, relation),
            _ => return None,
        },
        _ => return None,
    };
    made(rows).map(|made| (base, made))
}

fn name_of(base: &sql::TableFactor) -> Option<sql::Ident> {
    match base {
        sql::TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } => match alias {
            Some(alias) => Some(alias.name.clone()),
            None => Some(name.0.last()?.as_ident()?.clone()),
        },
        sql::TableFactor::Derived {
            lateral: false,
            alias: Some(alias),
            ..
        } => Some(alias.name.clone()),
        _ => None,
    }
}

fn made(rows: &sql::TableFactor) -> Option<Made> {
    let (alias, arrays) = match rows {
        sql::TableFactor::UNNEST {
            alias,
            array_exprs,
            with_offset: false,
            with_ordinality: false,
            ..
        } => (alias.as_ref(), array_exprs.clone()),
        sql::TableFactor::Derived {
            lateral: true,
            subquery,
            alias: Some(alias),
            sample: None,
        } if is_bare(subquery) => (Some(alias), columns_of(subquery)?),
        _ => return None,
    };
    let has_columns = arrays.iter().any(|array| {
        sql::visit_expressions(array, |part| match part {
            sql::Expr::Identifier(_) | sql::Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    });
    if !has_columns {
        return None;
    }
    let is_unnest = matches!(rows, sql::TableFactor::UNNEST { .. });
    let count = arrays.len();
    let name = |i: usize| {
        let said = alias.and_then(|alias| alias.columns.get(i));
        match (said, alias) {
            (Some(column), _) => column.name.clone(),
            (None, Some(alias)) if is_unnest && count == 1 => alias.name.clone(),
            _ if is_unnest => sql::Ident::new("unnest"),
            _ => sql::Ident::new(format!("column{}", i + 1)),
        }
    };
    let columns = arrays.into_iter().enumerate();
    let columns = columns.map(|(i, array)| (name(i), array)).collect();
    let alias = alias.map(|alias| alias.name.clone());
    Some(Made { alias, columns })
}

fn is_bare(query: &sql::Query) -> bool {
    query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
}

/// The columns of VALUES, each as an array of its rows.
fn columns_of(query: &sql::Query) -> Option<Vec<sql::Expr>> {
    let sql::SetExpr::Values(values) = &*query.body else {
        return None;
    };
    let width = values.rows.first()?.content.len();
    if values.rows.iter().any(|row| row.content.len() != width) {
        return None;
    }
    let column = |i: usize| {
        let items = values.rows.iter().map(|row| row.content[i].clone());
        sql::Expr::Array(sql::Array {
            elem: items.collect(),
            named: true,
        })
    };
    Some((0..width).map(column).collect())
}
