//! Clauses of a query that DataFusion reads without what PostgreSQL means by them.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;

use super::super::meaning::WITH_TIES;
use super::super::series::BIG_SERIES;
use super::selects::selects;
use super::{Copies, call, folded, sets, subqueries, unnesting};
use crate::error::{Error, ErrorKind};

/// Mends one query, but not those in it.
pub(super) fn mend(query: &mut sql::Query, is_top: bool, copies: &Copies) -> Result<(), Error> {
    fetch(query)?;
    let sql::Query { body, order_by, .. } = query;
    let mut order_by = order_by.as_mut();
    if let sql::SetExpr::Select(select) = &mut **body
        && let Some(order_by) = order_by.as_deref_mut()
    {
        shadowed(select, order_by, is_top)?;
    }
    // The order of a UNION is that of its rows, and knows no windows.
    let mut own_order = order_by
        .as_deref_mut()
        .filter(|_| matches!(**body, sql::SetExpr::Select(_)));
    for select in selects(body) {
        in_select(select, own_order.as_deref_mut(), copies)?;
    }
    match order_by {
        Some(order_by) => subqueries::mend_order(order_by, copies),
        None => Ok(()),
    }
}

fn in_select(
    select: &mut sql::Select,
    mut order_by: Option<&mut sql::OrderBy>,
    copies: &Copies,
) -> Result<(), Error> {
    unnesting::mend(select, order_by.as_deref_mut())?;
    let says_value = says_value(select);
    for table in &mut select.from {
        sets::in_tables(table)?;
        relations(table)?;
        if !says_value {
            function_names(table);
        }
    }
    names(select)?;
    windows(select, order_by)?;
    ordered_aggregates(select)?;
    groups(select);
    subqueries::mend(select, copies)
}

/// `FETCH FIRST n ROWS ONLY` is LIMIT.
fn fetch(query: &mut sql::Query) -> Result<(), Error> {
    let Some(fetch) = &query.fetch else {
        return Ok(());
    };
    let with_ties = fetch.with_ties;
    if with_ties && query.order_by.is_none() {
        let message = "WITH TIES cannot be specified without ORDER BY clause";
        return Err(Error::new(ErrorKind::Syntax, message));
    }
    if fetch.percent {
        return Err(Error::new(
            ErrorKind::Syntax,
            "syntax error at or near \"PERCENT\"",
        ));
    }
    let one = || sql::Expr::value(sql::Value::Number("1".into(), false));
    let mut rows = fetch.quantity.clone().unwrap_or_else(one);
    if with_ties {
        rows = call(WITH_TIES, vec![rows]);
    }
    let (limit, offset) = match query.limit_clause.take() {
        None => (None, None),
        Some(sql::LimitClause::LimitOffset { limit, offset, .. }) => (limit, offset),
        Some(sql::LimitClause::OffsetCommaLimit { offset, limit }) => (
            Some(limit),
            Some(sql::Offset {
                value: offset,
                rows: sql::OffsetRows::None,
            }),
        ),
    };
    if limit.is_some() {
        return Err(Error::new(
            ErrorKind::Syntax,
            "multiple LIMIT clauses not allowed",
        ));
    }
    query.fetch = None;
    query.limit_clause = Some(sql::LimitClause::LimitOffset {
        limit: Some(rows),
        offset,
        limit_by: Vec::new(),
    });
    Ok(())
}

/// What would be read without a word about what it lacks.
fn relations(table: &sql::TableWithJoins) -> Result<(), Error> {
    use sql::JoinConstraint::{Natural, Using};
    use sql::JoinOperator::{FullOuter, Right, RightOuter};
    fn factor(factor: &sql::TableFactor) -> Result<(), Error> {
        match factor {
            sql::TableFactor::NestedJoin {
                table_with_joins, ..
            } => relations(table_with_joins),
            sql::TableFactor::Function {
                with_ordinality: true,
                ..
            } => Err(Error::unsupported("WITH ORDINALITY")
                .hint("Number the rows with row_number() OVER ().")),
            sql::TableFactor::Table {
                sample: Some(_), ..
            }
            | sql::TableFactor::Derived {
                sample: Some(_), ..
            } => Err(Error::unsupported("TABLESAMPLE").hint("Say WHERE random() < 0.1.")),
            sql::TableFactor::Table {
                version,
                partitions,
                with_hints,
                index_hints,
                json_path,
                ..
            } if version.is_some()
                || json_path.is_some()
                || !partitions.is_empty()
                || !with_hints.is_empty()
                || !index_hints.is_empty() =>
            {
                Err(Error::unsupported(
                    "a table with a version, partitions, a path or hints",
                ))
            }
            _ => Ok(()),
        }
    }
    factor(&table.relation)?;
    for join in &table.joins {
        factor(&join.relation)?;
        // The column of both sides would be that of the left one.
        let (side, constraint) = match &join.join_operator {
            Right(c) | RightOuter(c) => ("RIGHT", c),
            FullOuter(c) => ("FULL", c),
            _ => continue,
        };
        if matches!(constraint, Using(_) | Natural) {
            let how = if matches!(constraint, Natural) {
                "NATURAL"
            } else {
                "USING"
            };
            return Err(Error::unsupported(format_args!("{how} in a {side} JOIN"))
                .hint("Say ON a.x = b.x, and coalesce(a.x, b.x) for the column of both."));
        }
    }
    Ok(())
}

/// Whether a SELECT calls a column `value`, as the query engine calls that of `generate_series`.
fn says_value(select: &sql::Select) -> bool {
    sql::visit_expressions(select, |expr| {
        let name = match expr {
            sql::Expr::Identifier(name) => Some(name),
            sql::Expr::CompoundIdentifier(names) => names.last(),
            _ => None,
        };
        match name {
            Some(name) if folded(name) == "value" => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
    .is_break()
}

fn series_alias(columns: Vec<sql::TableAliasColumnDef>) -> sql::TableAlias {
    sql::TableAlias {
        explicit: true,
        name: sql::Ident::new("generate_series"),
        columns,
        at: None,
    }
}

/// The alias of a function in FROM names its column, too.
fn function_names(table: &mut sql::TableWithJoins) {
    fn name(alias: &mut Option<sql::TableAlias>) {
        if let Some(alias) = alias
            && alias.columns.is_empty()
        {
            alias.columns.push(sql::TableAliasColumnDef {
                name: alias.name.clone(),
                data_type: None,
            });
        }
    }
    let joined = table.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut table.relation).chain(joined) {
        match factor {
            sql::TableFactor::Table {
                name: function,
                args: Some(_),
                alias,
                ..
            } if function.to_string().eq_ignore_ascii_case("generate_series")
                || function.to_string() == BIG_SERIES =>
            {
                alias.get_or_insert_with(|| series_alias(Vec::new()));
                name(alias);
            }
            sql::TableFactor::UNNEST {
                array_exprs, alias, ..
            } if array_exprs.len() == 1 => name(alias),
            _ => {}
        }
    }
}

/// `v ISNULL` reads as a column of that name.
fn names(select: &sql::Select) -> Result<(), Error> {
    for item in &select.projection {
        if let sql::SelectItem::ExprWithAlias { alias, .. } = item
            && alias.quote_style.is_none()
            && ["isnull", "notnull"].contains(&alias.value.to_lowercase().as_str())
        {
            let postfix = alias.value.to_uppercase();
            return Err(Error::unsupported(postfix).hint("Say IS NULL or IS NOT NULL."));
        }
    }
    Ok(())
}

/// `GROUP BY (a, b)` is GROUP BY a, b.
fn groups(select: &mut sql::Select) {
    if let sql::GroupByExpr::Expressions(by, _) = &mut select.group_by {
        let flat = by.drain(..).flat_map(|expr| match expr {
            sql::Expr::Tuple(fields) => fields,
            other => vec![other],
        });
        *by = flat.collect();
    }
}

type Windows = HashMap<String, sql::WindowSpec>;

fn no_window(name: &sql::Ident) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("window \"{}\" does not exist", folded(name)),
    )
}

/// A window that builds on another one, with all that it has of it.
fn complete(spec: &sql::WindowSpec, known: &Windows) -> Result<sql::WindowSpec, Error> {
    let Some(name) = &spec.window_name else {
        return Ok(spec.clone());
    };
    let base = known.get(&folded(name)).ok_or_else(|| no_window(name))?;
    let wrong = |message: String| Err(Error::new(ErrorKind::Windowing, message));
    if !spec.partition_by.is_empty() {
        return wrong(format!(
            "cannot override PARTITION BY clause of window \"{name}\""
        ));
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return wrong(format!(
            "cannot override ORDER BY clause of window \"{name}\""
        ));
    }
    let is_bare = spec.order_by.is_empty() && spec.window_frame.is_none();
    if base.window_frame.is_some() {
        let message = format!("cannot copy window \"{name}\" because it has a frame clause");
        let error = Error::new(ErrorKind::Windowing, message);
        return Err(if is_bare {
            error.hint("Omit the parentheses in this OVER clause.")
        } else {
            error
        });
    }
    Ok(sql::WindowSpec {
        window_name: None,
        partition_by: base.partition_by.clone(),
        order_by: if spec.order_by.is_empty() {
            base.order_by.clone()
        } else {
            spec.order_by.clone()
        },
        window_frame: spec.window_frame.clone(),
    })
}

/// Puts what a window's name stands for in its place.
fn windows(select: &mut sql::Select, order_by: Option<&mut sql::OrderBy>) -> Result<(), Error> {
    let mut known = Windows::new();
    for sql::NamedWindowDefinition(name, window) in std::mem::take(&mut select.named_window) {
        let spec = match window {
            sql::NamedWindowExpr::NamedWindow(other) => known
                .get(&folded(&other))
                .cloned()
                .ok_or_else(|| no_window(&other))?,
            sql::NamedWindowExpr::WindowSpec(spec) => complete(&spec, &known)?,
        };
        if known.insert(folded(&name), spec).is_some() {
            let message = format!("window \"{name}\" is already defined");
            return Err(Error::new(ErrorKind::Windowing, message));
        }
    }
    struct Named<'k> {
        known: &'k Windows,
        depth: usize,
    }
    impl sql::VisitorMut for Named<'_> {
        type Break = Error;
        // A subquery has windows of its own.
        fn pre_visit_query(&mut self, _: &mut sql::Query) -> ControlFlow<Error> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &mut sql::Query) -> ControlFlow<Error> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &mut sql::Expr) -> ControlFlow<Error> {
            let sql::Expr::Function(function) = expr else {
                return ControlFlow::Continue(());
            };
            let meant = match &function.over {
                Some(window) if self.depth == 0 => match window {
                    sql::WindowType::NamedWindow(name) => {
                        let known = self.known.get(&folded(name)).cloned();
                        known.ok_or_else(|| no_window(name))
                    }
                    sql::WindowType::WindowSpec(spec) => complete(spec, self.known),
                },
                _ => return ControlFlow::Continue(()),
            };
            match meant {
                Ok(spec) => {
                    function.over = Some(sql::WindowType::WindowSpec(spec));
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error),
            }
        }
    }
    let mut named = Named {
        known: &known,
        depth: 0,
    };
    let mut visit = |expr: &mut sql::Expr| match sql::VisitMut::visit(expr, &mut named) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    };
    for item in &mut select.projection {
        if let sql::SelectItem::UnnamedExpr(expr) | sql::SelectItem::ExprWithAlias { expr, .. } =
            item
        {
            visit(expr)?;
        }
    }
    if let Some(sql::OrderBy {
        kind: sql::OrderByKind::Expressions(items),
        ..
    }) = order_by
    {
        for item in items {
            visit(&mut item.expr)?;
        }
    }
    Ok(())
}

/// What follows an output name that DataFusion must not take for another column. Clients are told
/// the name before it.
const APART: char = '\u{1}';

/// In an expression of ORDER BY a name is a column of what is read, never one of the answer; alone
/// it is one of the answer first. So an output of such a name gets another one, where nobody above
/// asks for it.
fn shadowed(
    select: &mut sql::Select,
    order_by: &mut sql::OrderBy,
    is_top: bool,
) -> Result<(), Error> {
    let sql::OrderByKind::Expressions(items) = &mut order_by.kind else {
        return Ok(());
    };
    let mut named = HashSet::new();
    for item in items.iter() {
        if matches!(item.expr, sql::Expr::Identifier(_)) {
            continue;
        }
        let _ = sql::visit_expressions(&item.expr, |expr| {
            if let sql::Expr::Identifier(name) = expr {
                named.insert(folded(name));
            }
            ControlFlow::<()>::Continue(())
        });
    }
    let mut renamed = HashMap::new();
    for (i, item) in select.projection.iter_mut().enumerate() {
        let sql::SelectItem::ExprWithAlias { expr, alias } = item else {
            continue;
        };
        let is_itself =
            matches!(expr, sql::Expr::Identifier(name) if folded(name) == folded(alias));
        let name = folded(alias);
        if is_itself || !named.contains(&name) {
            continue;
        }
        if !is_top {
            let what = format!("the output name {name} in an expression of ORDER BY in a subquery");
            return Err(Error::unsupported(what)
                .hint("Give the column of the answer a name that no column has."));
        }
        let apart = sql::Ident::with_quote('"', format!("{name}{APART}{}", i + 1));
        renamed.insert(name, apart.clone());
        *alias = apart;
    }
    for item in items {
        if let sql::Expr::Identifier(name) = &mut item.expr
            && let Some(apart) = renamed.get(&folded(name))
        {
            *name = apart.clone();
        }
    }
    Ok(())
}

/// Aggregates that keep the order of their rows.
const ORDERED: [&str; 4] = ["array_agg", "string_agg", "json_agg", "jsonb_agg"];

/// `array_agg(v) FROM (SELECT v … ORDER BY v) q`: the subquery's order is the aggregate's.
fn ordered_aggregates(select: &mut sql::Select) -> Result<(), Error> {
    let [table] = &select.from[..] else {
        return Ok(());
    };
    let sql::TableFactor::Derived { subquery, .. } = &table.relation else {
        return Ok(());
    };
    let Some(sql::OrderBy {
        kind: sql::OrderByKind::Expressions(items),
        ..
    }) = &subquery.order_by
    else {
        return Ok(());
    };
    let (items, is_alone) = (items.clone(), table.joins.is_empty());
    let keys = output_keys(subquery, &items);
    let visit = |expr: &mut sql::Expr| {
        let done = sql::visit_expressions_mut(expr, |expr| {
            let sql::Expr::Function(function) = expr else {
                return ControlFlow::Continue(());
            };
            let name = function.name.to_string().to_lowercase();
            let sql::FunctionArguments::List(list) = &mut function.args else {
                return ControlFlow::Continue(());
            };
            let has_order = list
                .clauses
                .iter()
                .any(|c| matches!(c, sql::FunctionArgumentClause::OrderBy(_)));
            let is_distinct = list.duplicate_treatment == Some(sql::DuplicateTreatment::Distinct);
            if !ORDERED.contains(&name.as_str())
                || has_order
                || is_distinct
                || function.over.is_some()
            {
                return ControlFlow::Continue(());
            }
            match keys.clone().filter(|_| is_alone) {
                Some(keys) => {
                    list.clauses
                        .push(sql::FunctionArgumentClause::OrderBy(keys));
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Break(name),
            }
        });
        match done {
            ControlFlow::Break(name) => Err(Error::unsupported(format_args!(
                "{name} in the order of a subquery"
            ))
            .hint(format!(
                "Put the order into the aggregate: {name}(… ORDER BY …)."
            ))),
            ControlFlow::Continue(()) => Ok(()),
        }
    };
    for item in &mut select.projection {
        if let sql::SelectItem::UnnamedExpr(expr) | sql::SelectItem::ExprWithAlias { expr, .. } =
            item
        {
            visit(expr)?;
        }
    }
    Ok(())
}

/// What a subquery is ordered by, in the names of its columns; nothing if it is ordered by what
/// does not come out.
fn output_keys(subquery: &sql::Query, items: &[sql::OrderByExpr]) -> Option<Vec<sql::OrderByExpr>> {
    let sql::SetExpr::Select(select) = &*subquery.body else {
        return None;
    };
    let outputs: Vec<Option<sql::Ident>> = select
        .projection
        .iter()
        .map(|item| match item {
            sql::SelectItem::ExprWithAlias { alias, .. } => Some(alias.clone()),
            sql::SelectItem::UnnamedExpr(sql::Expr::Identifier(name)) => Some(name.clone()),
            sql::SelectItem::UnnamedExpr(sql::Expr::CompoundIdentifier(names)) => {
                names.last().cloned()
            }
            _ => None,
        })
        .collect();
    let has_star = select
        .projection
        .iter()
        .any(|item| matches!(item, sql::SelectItem::Wildcard(_)));
    let key = |item: &sql::OrderByExpr| {
        let name = match &item.expr {
            sql::Expr::Identifier(name) => {
                let comes_out = outputs.iter().flatten().any(|o| folded(o) == folded(name));
                (comes_out || has_star).then(|| name.clone())?
            }
            sql::Expr::CompoundIdentifier(names) => {
                let name = names.last()?;
                let comes_out = outputs.iter().flatten().any(|o| folded(o) == folded(name));
                comes_out.then(|| name.clone())?
            }
            sql::Expr::Value(value) => match &value.value {
                sql::Value::Number(n, _) if !has_star => {
                    let at: usize = n.parse().ok()?;
                    outputs.get(at.checked_sub(1)?)?.clone()?
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(sql::OrderByExpr {
            expr: sql::Expr::Identifier(name),
            ..item.clone()
        })
    };
    let mut keys: Vec<sql::OrderByExpr> = items.iter().map(key).collect::<Option<_>>()?;
    // Once is enough, and twice breaks the aggregate.
    let mut seen = Vec::new();
    keys.retain(|key| {
        let name = key.expr.to_string();
        let is_new = !seen.contains(&name);
        seen.push(name);
        is_new
    });
    Some(keys)
}
