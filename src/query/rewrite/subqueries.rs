//! IN and EXISTS with a subquery, wherever they stand. DataFusion answers them as conditions of
//! WHERE alone, and takes what is unknown for false; elsewhere they are said by counts.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::super::any_array::{ANY_ARRAY, ANY_UNKNOWN};
use super::super::meaning::SINGLE_VALUE;
use super::{Copies, folded};
use crate::error::Error;

/// What stands for a subquery and for the value in the templates below.
const SUBQUERY: &str = "the_subquery";
const VALUE: &str = "the_value";

/// Whether the value is among the rows: true, false, or unknown because of a NULL.
const IS_IN: &str = "CASE
    WHEN (SELECT count(*) FROM (the_subquery) AS \"\u{1}in\"(\"\u{1}item\") WHERE \"\u{1}item\" = the_value) > 0 THEN TRUE
    WHEN the_value IS NULL THEN CASE WHEN (SELECT count(*) FROM (the_subquery) AS \"\u{1}in\") > 0 THEN CAST(NULL AS BOOLEAN) ELSE FALSE END
    WHEN (SELECT count(*) FROM (the_subquery) AS \"\u{1}in\"(\"\u{1}item\") WHERE \"\u{1}item\" IS NULL) > 0 THEN CAST(NULL AS BOOLEAN)
    ELSE FALSE END";
const EXISTS: &str = "((SELECT count(*) FROM (the_subquery) AS \"\u{1}exists\") > 0)";

/// An expression out of a template.
fn template(
    text: &str,
    subquery: &sql::Query,
    value: Option<&sql::Expr>,
) -> Result<sql::Expr, Error> {
    let text = text.replace(SUBQUERY, &format!("SELECT {SUBQUERY}"));
    let parsed = Parser::new(&PostgreSqlDialect {})
        .try_with_sql(&text)
        .and_then(|mut parser| parser.parse_expr());
    let mut expr =
        parsed.map_err(|e| Error::internal(format!("a template does not parse: {e}")))?;
    struct Fill<'f> {
        subquery: &'f sql::Query,
        value: Option<&'f sql::Expr>,
    }
    impl sql::VisitorMut for Fill<'_> {
        type Break = ();
        fn post_visit_query(&mut self, query: &mut sql::Query) -> ControlFlow<()> {
            let is_gap = matches!(&*query.body, sql::SetExpr::Select(select)
                if select.from.is_empty() && select.projection.len() == 1
                    && select.projection[0].to_string() == SUBQUERY);
            if is_gap {
                *query = self.subquery.clone();
            }
            ControlFlow::Continue(())
        }
        fn post_visit_expr(&mut self, expr: &mut sql::Expr) -> ControlFlow<()> {
            let is_gap = matches!(expr, sql::Expr::Identifier(name) if name.value == VALUE);
            if let (true, Some(value)) = (is_gap, self.value) {
                *expr = sql::Expr::Nested(Box::new(value.clone()));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql::VisitMut::visit(&mut expr, &mut Fill { subquery, value });
    Ok(expr)
}

/// Whether the rows of a subquery are those of its FROM and WHERE, each by itself.
pub(super) fn is_plain(subquery: &sql::Query) -> bool {
    let sql::SetExpr::Select(select) = &*subquery.body else {
        return false;
    };
    // Calls may be aggregates, of which there is a row always.
    let has_call = |item: &sql::SelectItem| {
        sql::visit_expressions(item, |expr| match expr {
            sql::Expr::Function(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    };
    select.distinct.is_none()
        && select.having.is_none()
        && matches!(&select.group_by, sql::GroupByExpr::Expressions(by, _) if by.is_empty())
        && !select.projection.iter().any(has_call)
        && subquery.with.is_none()
        && subquery.limit_clause.is_none()
        && subquery.fetch.is_none()
}

fn count_of_all() -> sql::SelectItem {
    let star = sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Wildcard);
    let sql::Expr::Function(mut count) = super::call("count", Vec::new()) else {
        unreachable!("a call is a function")
    };
    if let sql::FunctionArguments::List(list) = &mut count.args {
        list.args = vec![star];
    }
    sql::SelectItem::UnnamedExpr(sql::Expr::Function(count))
}

/// How many rows a plain subquery has for which a condition holds.
fn count(subquery: &sql::Query, also: Option<sql::Expr>) -> sql::Expr {
    let mut subquery = subquery.clone();
    subquery.order_by = None;
    if let sql::SetExpr::Select(select) = &mut *subquery.body {
        select.projection = vec![count_of_all()];
        if let Some(also) = also {
            let nested = |expr| Box::new(sql::Expr::Nested(Box::new(expr)));
            select.selection = Some(match select.selection.take() {
                Some(before) => sql::Expr::BinaryOp {
                    left: nested(before),
                    op: sql::BinaryOperator::And,
                    right: nested(also),
                },
                None => also,
            });
        }
    }
    sql::Expr::Subquery(Box::new(subquery))
}

fn is_positive(count: sql::Expr) -> sql::Expr {
    let zero = sql::Expr::value(sql::Value::Number("0".into(), false));
    sql::Expr::Nested(Box::new(sql::Expr::BinaryOp {
        left: Box::new(count),
        op: sql::BinaryOperator::Gt,
        right: Box::new(zero),
    }))
}

/// EXISTS: whether there are rows. How many of them a LIMIT leaves makes no difference, unless it
/// is none.
fn exists(subquery: &sql::Query) -> Result<sql::Expr, Error> {
    let mut subquery = subquery.clone();
    if leaves_rows(subquery.limit_clause.as_ref()) {
        (subquery.limit_clause, subquery.order_by) = (None, None);
    }
    if is_plain(&subquery) {
        return Ok(is_positive(count(&subquery, None)));
    }
    template(EXISTS, &subquery, None)
}

/// Whether a LIMIT is a number of rows that is written out and not 0.
fn leaves_rows(limit: Option<&sql::LimitClause>) -> bool {
    match limit {
        Some(sql::LimitClause::LimitOffset {
            limit: Some(sql::Expr::Value(rows)),
            offset: None,
            limit_by,
        }) if limit_by.is_empty() => matches!(&rows.value, sql::Value::Number(digits, _)
            if digits.parse::<i64>().is_ok_and(|rows| rows > 0)),
        _ => false,
    }
}

/// Whether a value names nothing that could be taken for a column of the subquery.
fn is_clear(value: &sql::Expr) -> bool {
    sql::visit_expressions(value, |expr| match expr {
        sql::Expr::Identifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_continue()
}

fn when(condition: sql::Expr, result: sql::Expr) -> sql::CaseWhen {
    sql::CaseWhen { condition, result }
}

/// IN, three-valued.
fn is_in(value: &sql::Expr, subquery: &sql::Query) -> Result<sql::Expr, Error> {
    let item = match &*subquery.body {
        sql::SetExpr::Select(select) => match &select.projection[..] {
            [
                sql::SelectItem::UnnamedExpr(item)
                | sql::SelectItem::ExprWithAlias { expr: item, .. },
            ] => Some(item.clone()),
            _ => None,
        },
        _ => None,
    };
    let Some(item) = item.filter(|_| is_plain(subquery) && is_clear(value)) else {
        return template(IS_IN, subquery, Some(value));
    };
    let boxed = |expr: &sql::Expr| Box::new(sql::Expr::Nested(Box::new(expr.clone())));
    let equal = sql::Expr::BinaryOp {
        left: boxed(&item),
        op: sql::BinaryOperator::Eq,
        right: boxed(value),
    };
    let said = |is: bool| sql::Expr::value(sql::Value::Boolean(is));
    let unknown = sql::Expr::Cast {
        kind: sql::CastKind::Cast,
        expr: Box::new(sql::Expr::value(sql::Value::Null)),
        data_type: sql::DataType::Boolean,
        array: false,
        format: None,
    };
    let is_null = |expr: &sql::Expr| sql::Expr::IsNull(boxed(expr));
    let has_rows = is_positive(count(subquery, None));
    let both = sql::Expr::BinaryOp {
        left: Box::new(is_null(value)),
        op: sql::BinaryOperator::And,
        right: Box::new(has_rows),
    };
    Ok(sql::Expr::Case {
        case_token: sql::helpers::attached_token::AttachedToken::empty(),
        end_token: sql::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![
            when(is_positive(count(subquery, Some(equal))), said(true)),
            when(both, unknown.clone()),
            when(is_positive(count(subquery, Some(is_null(&item)))), unknown),
        ],
        else_result: Some(Box::new(said(false))),
    })
}

fn not(expr: sql::Expr) -> sql::Expr {
    sql::Expr::UnaryOp {
        op: sql::UnaryOperator::Not,
        expr: Box::new(sql::Expr::Nested(Box::new(expr))),
    }
}

/// A subquery that stands for a value, as one that groups all of its rows: DataFusion answers those
/// that name columns from outside in this form alone.
fn scalar(query: &mut sql::Query) {
    let one_row = match &query.limit_clause {
        None => false,
        Some(sql::LimitClause::LimitOffset {
            limit: Some(sql::Expr::Value(value)),
            offset: None,
            limit_by,
        }) if limit_by.is_empty()
            && matches!(&value.value, sql::Value::Number(n, _) if n == "1") =>
        {
            true
        }
        Some(_) => return,
    };
    let mut bare = query.clone();
    (bare.limit_clause, bare.order_by) = (None, None);
    if !is_plain(&bare) {
        return;
    }
    // Another place in ORDER BY than that of the one column is an error that the engine tells.
    let is_other_place = |key: &sql::OrderByExpr| {
        matches!(key.expr, sql::Expr::Value(_)) && !is_first_place(&key.expr)
    };
    let mut order = match &query.order_by {
        None => Vec::new(),
        Some(sql::OrderBy {
            kind: sql::OrderByKind::Expressions(items),
            ..
        }) if !items.iter().any(is_other_place) => items.clone(),
        Some(_) => return,
    };
    let sql::SetExpr::Select(select) = &mut *query.body else {
        return;
    };
    // What has no rows to choose from is itself.
    if select.from.is_empty() || !select.named_window.is_empty() {
        return;
    }
    let (item, alias) = match &mut select.projection[..] {
        [sql::SelectItem::UnnamedExpr(item)] => (item, None),
        [sql::SelectItem::ExprWithAlias { expr, alias }] => (expr, Some(folded(alias))),
        _ => return,
    };
    // An output name comes before a column of that name.
    for key in &mut order {
        let is_alias = matches!(&key.expr, sql::Expr::Identifier(name)
            if alias.as_ref() == Some(&folded(name)));
        if is_alias || is_first_place(&key.expr) {
            // Subqueries in one another would double at each level.
            if has_subquery(item) {
                return;
            }
            key.expr = item.clone();
        }
    }
    let name = if one_row { "first_value" } else { SINGLE_VALUE };
    let sql::Expr::Function(mut first) = super::call(name, vec![item.clone()]) else {
        return;
    };
    if let (true, false, sql::FunctionArguments::List(list)) =
        (one_row, order.is_empty(), &mut first.args)
    {
        list.clauses
            .push(sql::FunctionArgumentClause::OrderBy(order));
    }
    *item = sql::Expr::Function(first);
    (query.limit_clause, query.order_by) = (None, None);
}

fn has_subquery(expr: &sql::Expr) -> bool {
    sql::visit_expressions(expr, |part| match part {
        sql::Expr::Subquery(_) | sql::Expr::Exists { .. } | sql::Expr::InSubquery { .. } => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

fn is_first_place(key: &sql::Expr) -> bool {
    matches!(key, sql::Expr::Value(value)
        if matches!(&value.value, sql::Value::Number(place, _) if place == "1"))
}

/// Says by counts what an expression asks of subqueries, but not what these ask themselves.
fn by_counts(expr: &mut sql::Expr, copies: &Copies) -> Result<(), Error> {
    struct Counts<'c> {
        depth: usize,
        copies: &'c Copies,
    }
    impl sql::VisitorMut for Counts<'_> {
        type Break = Error;
        fn pre_visit_query(&mut self, _: &mut sql::Query) -> ControlFlow<Error> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &mut sql::Query) -> ControlFlow<Error> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn post_visit_expr(&mut self, expr: &mut sql::Expr) -> ControlFlow<Error> {
            if self.depth > 0 {
                return ControlFlow::Continue(());
            }
            let said = match expr {
                // What is compared with NULL is unknown.
                sql::Expr::AnyOp {
                    compare_op: sql::BinaryOperator::Eq,
                    right,
                    ..
                } if !matches!(**right, sql::Expr::Subquery(_)) => {
                    if let Err(error) = self.copies.take(&expr, 1) {
                        return ControlFlow::Break(error);
                    }
                    let sql::Expr::AnyOp { left, right, .. } = &*expr else {
                        return ControlFlow::Continue(());
                    };
                    let array = super::call(ANY_ARRAY, vec![(**right).clone(), (**left).clone()]);
                    let unknown = super::call(ANY_UNKNOWN, vec![array, (**left).clone()]);
                    let found = Box::new(sql::Expr::Nested(Box::new(expr.clone())));
                    *expr = sql::Expr::Nested(Box::new(sql::Expr::BinaryOp {
                        left: found,
                        op: sql::BinaryOperator::Or,
                        right: Box::new(unknown),
                    }));
                    return ControlFlow::Continue(());
                }
                sql::Expr::Subquery(query) => {
                    scalar(query);
                    return ControlFlow::Continue(());
                }
                sql::Expr::Exists { subquery, negated } => exists(subquery).map(|e| (e, *negated)),
                sql::Expr::InSubquery {
                    expr: value,
                    subquery,
                    negated,
                } if !matches!(**value, sql::Expr::Tuple(_)) => {
                    // Three counts of the subquery, and the value in two of them.
                    self.copies
                        .take(&subquery, 2)
                        .and_then(|()| self.copies.take(&value, 2))
                        .and_then(|()| is_in(value, subquery))
                        .map(|e| (e, *negated))
                }
                _ => return ControlFlow::Continue(()),
            };
            match said {
                Ok((said, negated)) => {
                    *expr = if negated { not(said) } else { said };
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error),
            }
        }
    }
    match sql::VisitMut::visit(expr, &mut Counts { depth: 0, copies }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The same of a condition of WHERE, where what is unknown is as good as false: what DataFusion
/// answers itself is left to it.
fn condition(expr: &mut sql::Expr, is_alone: bool, copies: &Copies) -> Result<(), Error> {
    use sql::BinaryOperator::{And, Or};
    match expr {
        sql::Expr::Nested(inner) => condition(inner, is_alone, copies),
        sql::Expr::BinaryOp {
            left,
            op: And,
            right,
        } => {
            condition(left, is_alone, copies)?;
            condition(right, is_alone, copies)
        }
        sql::Expr::BinaryOp {
            left,
            op: Or,
            right,
        } => {
            condition(left, false, copies)?;
            condition(right, false, copies)
        }
        sql::Expr::Exists { .. }
        | sql::Expr::InSubquery { negated: false, .. }
        | sql::Expr::AnyOp { .. } => Ok(()),
        sql::Expr::InSubquery { negated: true, .. } if is_alone => Ok(()),
        sql::Expr::UnaryOp {
            op: sql::UnaryOperator::Not,
            expr: inner,
        } if matches!(**inner, sql::Expr::Exists { .. }) => Ok(()),
        other => by_counts(other, copies),
    }
}

/// Qualifies the values of IN with the one relation that a SELECT reads, so that nothing takes them
/// for columns of the subquery.
fn qualify(expr: &mut sql::Expr, relation: &sql::Ident) {
    struct Values<'r> {
        relation: &'r sql::Ident,
        depth: usize,
    }
    impl sql::VisitorMut for Values<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, _: &mut sql::Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &mut sql::Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn post_visit_expr(&mut self, expr: &mut sql::Expr) -> ControlFlow<()> {
            if let (0, sql::Expr::InSubquery { expr: value, .. }) = (self.depth, expr)
                && let sql::Expr::Identifier(name) = &**value
            {
                let both = vec![self.relation.clone(), name.clone()];
                **value = sql::Expr::CompoundIdentifier(both);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql::VisitMut::visit(expr, &mut Values { relation, depth: 0 });
}

/// The one relation that a SELECT reads, by the name that its columns can be qualified with.
fn only_relation(select: &sql::Select) -> Option<sql::Ident> {
    let [table] = &select.from[..] else {
        return None;
    };
    if !table.joins.is_empty() {
        return None;
    }
    match &table.relation {
        sql::TableFactor::Table {
            alias: Some(alias),
            args: None,
            ..
        }
        | sql::TableFactor::Derived {
            alias: Some(alias), ..
        } => Some(alias.name.clone()),
        sql::TableFactor::Table {
            name, args: None, ..
        } => Some(name.0.last()?.as_ident()?.clone()),
        _ => None,
    }
}

fn output_name(item: &sql::SelectItem) -> Option<String> {
    match item {
        sql::SelectItem::UnnamedExpr(expr) => Some(crate::statement::column_name(expr)),
        sql::SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        _ => None,
    }
}

/// Mends the IN and EXISTS of one SELECT.
pub(super) fn mend(select: &mut sql::Select, copies: &Copies) -> Result<(), Error> {
    if let Some(relation) = only_relation(select) {
        for item in &mut select.projection {
            if let sql::SelectItem::UnnamedExpr(expr)
            | sql::SelectItem::ExprWithAlias { expr, .. } = item
            {
                qualify(expr, &relation);
            }
        }
        if let Some(selection) = &mut select.selection {
            qualify(selection, &relation);
        }
    }
    let names: Vec<Option<String>> = select.projection.iter().map(output_name).collect();
    for (i, item) in select.projection.iter_mut().enumerate() {
        match item {
            sql::SelectItem::UnnamedExpr(expr) | sql::SelectItem::ExprWithAlias { expr, .. } => {
                // What it is called does not change with how it is said.
                let before = expr.clone();
                by_counts(expr, copies)?;
                if let (true, sql::SelectItem::UnnamedExpr(expr)) = (*expr != before, &*item) {
                    let mut name = crate::statement::column_name(&before);
                    if names.iter().filter(|of| **of == names[i]).count() > 1 {
                        name = super::names::apart(&name, i);
                    }
                    *item = sql::SelectItem::ExprWithAlias {
                        expr: expr.clone(),
                        alias: sql::Ident::with_quote('"', name),
                    };
                }
            }
            _ => {}
        }
    }
    if let Some(selection) = &mut select.selection {
        condition(selection, true, copies)?;
    }
    if let Some(having) = &mut select.having {
        by_counts(having, copies)?;
    }
    if let sql::GroupByExpr::Expressions(by, _) = &mut select.group_by {
        for expr in by {
            by_counts(expr, copies)?;
        }
    }
    Ok(())
}

/// Mends the IN and EXISTS of an ORDER BY.
pub(super) fn mend_order(order_by: &mut sql::OrderBy, copies: &Copies) -> Result<(), Error> {
    if let sql::OrderByKind::Expressions(items) = &mut order_by.kind {
        for item in items {
            by_counts(&mut item.expr, copies)?;
        }
    }
    Ok(())
}
