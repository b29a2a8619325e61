//! Names of columns, where DataFusion has none or twice the same.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;

/// Gives items of the SELECT list that say the same a name of their own: DataFusion refuses two
/// columns of one name. Clients are told PostgreSQL's names.
pub(super) fn tell_apart(query: &mut sql::Query) {
    for select in super::selects::selects(&mut query.body) {
        in_select(select);
    }
}

fn in_select(select: &mut sql::Select) {
    let has_star = select.projection.iter().any(|i| {
        matches!(
            i,
            sql::SelectItem::Wildcard(_) | sql::SelectItem::QualifiedWildcard(..)
        )
    });
    let mut seen = HashSet::new();
    for (i, item) in select.projection.iter_mut().enumerate() {
        let sql::SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        let is_column = matches!(
            expr,
            sql::Expr::Identifier(_) | sql::Expr::CompoundIdentifier(_)
        );
        // Every subquery has the same name.
        let has_subquery = sql::visit_expressions(expr, |part| match part {
            sql::Expr::Subquery(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break();
        let said_before = !seen.insert(without_casts(expr).to_string().to_lowercase());
        if said_before || has_subquery || has_star && is_column {
            let name = apart(&crate::statement::column_name(expr), i);
            let alias = sql::Ident::with_quote('"', name);
            *item = sql::SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias,
            };
        }
    }
}

/// A name that no other column of the SELECT list has; clients are told what stands before the
/// sign.
pub(super) fn apart(name: &str, place: usize) -> String {
    format!("{name}\u{1}{}", place + 1)
}

/// DataFusion names an expression without the casts in it.
fn without_casts(expr: &sql::Expr) -> sql::Expr {
    let mut bare = expr.clone();
    let _ = sql::visit_expressions_mut(&mut bare, |part| {
        let inner = match part {
            sql::Expr::Cast { expr, .. } | sql::Expr::Nested(expr) => (**expr).clone(),
            sql::Expr::TypedString(typed) => sql::Expr::Value(typed.value.clone()),
            sql::Expr::Identifier(name) if name.quote_style.is_some() => {
                sql::Expr::Identifier(sql::Ident::new(name.value.clone()))
            }
            _ => return ControlFlow::<()>::Continue(()),
        };
        *part = inner;
        ControlFlow::Continue(())
    });
    bare
}

/// Gives the columns of a subquery PostgreSQL's names, where they are seen from outside.
pub(super) fn name_columns(select: &mut sql::Select) {
    let mut taken = HashSet::new();
    for item in &select.projection {
        match item {
            sql::SelectItem::ExprWithAlias { alias, .. } => {
                taken.insert(alias.value.to_lowercase());
            }
            sql::SelectItem::UnnamedExpr(expr) if is_column(expr) => {
                taken.insert(crate::statement::column_name(expr));
            }
            _ => {}
        }
    }
    for item in &mut select.projection {
        let sql::SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        if is_column(expr) {
            continue;
        }
        let name = crate::statement::column_name(expr);
        // Two of one name keep those that DataFusion gives them, which differ.
        if !taken.insert(name.clone()) {
            continue;
        }
        *item = sql::SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: sql::Ident::with_quote('"', name),
        };
    }
}

fn is_column(expr: &sql::Expr) -> bool {
    match expr {
        sql::Expr::Identifier(_) | sql::Expr::CompoundIdentifier(_) => true,
        sql::Expr::Nested(inner) => is_column(inner),
        _ => false,
    }
}
