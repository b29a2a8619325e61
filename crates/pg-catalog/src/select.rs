//! Queries of the catalogs: WITH, SELECT, VALUES, UNION; grouped, sorted, limited.

mod set_operations;
mod with;

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast as sql;
use starkeep_error::{Error, ErrorKind};

use self::with::put_slot;
use super::aggregate::sort_by_keys;
use super::compile::Compiler;
use super::expr::{Eval, Plan, Run, unsupported};
use super::grouping::{normalized, placed};
use super::names::{folded, parts};
use super::refused;
use super::scope::Scope;
use super::stages::{Order, OrderKey, Stages};
use super::value::{Row, Value, ValueType};
use crate::column_name;

/// What PostgreSQL allows in a SELECT list, stars as what they stand for.
const COLUMNS_MAX: usize = 1664;

impl Compiler<'_> {
    /// Compiles a query that stands inside `outer`.
    pub(super) fn query(
        &self,
        query: &sql::Query,
        outer: Option<&Scope<'_>>,
    ) -> Result<Plan, Error> {
        let known = self.ctes.borrow().len();
        let compiled = self.query_with(query, outer);
        self.ctes.borrow_mut().truncate(known);
        compiled
    }

    fn query_with(&self, query: &sql::Query, outer: Option<&Scope<'_>>) -> Result<Plan, Error> {
        refused::query(query)?;
        let mut fills: Vec<(usize, Run)> = Vec::new();
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                fills.push(self.cte(cte, with.recursive, outer)?);
            }
        }
        let order = refused::order_by(query)?;
        let Plan { columns, run } = match &*query.body {
            sql::SetExpr::Select(select) => self.select(select, order, outer)?,
            body => {
                let plan = self.body(body, outer)?;
                self.ordered(plan, order)?
            }
        };
        let (limit, offset) = self.limits(query, outer)?;
        let slots: Vec<usize> = fills.iter().map(|(slot, _)| *slot).collect();
        let run: Run = Box::new(move |env| {
            let before: Vec<_> = slots
                .iter()
                .map(|s| {
                    env.context
                        .slots
                        .borrow()
                        .get(*s)
                        .cloned()
                        .unwrap_or_default()
                })
                .collect();
            for (slot, fill) in &fills {
                let rows = fill(env)?;
                put_slot(env, *slot, rows);
            }
            let mut rows = run(env)?;
            let count = |eval: &Option<Eval>| -> Result<Option<usize>, Error> {
                let Some(eval) = eval else { return Ok(None) };
                match eval(&env.within())?.as_int() {
                    Some(n) if n < 0 => Err(Error::new(
                        ErrorKind::InvalidRowCount,
                        "LIMIT and OFFSET must not be negative",
                    )),
                    n => Ok(n.and_then(|n| usize::try_from(n).ok())),
                }
            };
            if let Some(offset) = count(&offset)? {
                rows.drain(..offset.min(rows.len()));
            }
            if let Some(limit) = count(&limit)? {
                rows.truncate(limit);
            }
            // A query that runs inside itself, row by row, finds what it had.
            for (slot, rows) in slots.iter().zip(before) {
                env.context.slots.borrow_mut()[*slot] = rows;
            }
            Ok(rows)
        });
        Ok(Plan { columns, run })
    }

    fn limits(
        &self,
        query: &sql::Query,
        outer: Option<&Scope<'_>>,
    ) -> Result<(Option<Eval>, Option<Eval>), Error> {
        let scope = Scope::new(outer);
        let number = |expr: &sql::Expr| -> Result<Eval, Error> {
            Ok(self.cast(self.expr(expr, &scope)?, ValueType::INT8)?.eval)
        };
        let (mut limit, mut offset) = (None, None);
        if let Some(sql::LimitClause::LimitOffset {
            limit: most,
            offset: skipped,
            limit_by: _,
        }) = &query.limit_clause
        {
            limit = most.as_ref().map(number).transpose()?;
            offset = skipped.as_ref().map(|o| number(&o.value)).transpose()?;
        }
        if let Some(sql::Fetch {
            quantity,
            with_ties: false,
            percent: false,
        }) = &query.fetch
        {
            // FETCH FIRST ROW ONLY is one row.
            let one: Eval = Box::new(|_| Ok(Value::Int(1)));
            limit = Some(quantity.as_ref().map_or(Ok(one), number)?);
        }
        Ok((limit, offset))
    }

    fn body(&self, body: &sql::SetExpr, outer: Option<&Scope<'_>>) -> Result<Plan, Error> {
        match body {
            sql::SetExpr::Select(select) => self.select(select, &[], outer),
            sql::SetExpr::Query(query) => self.query(query, outer),
            sql::SetExpr::Values(values) => self.values(values, outer),
            sql::SetExpr::SetOperation {
                left,
                op,
                set_quantifier,
                right,
            } => self.set_operation(left, *op, *set_quantifier, right, outer),
            other => Err(unsupported(other)),
        }
    }

    /// Sorts the answer of something else than a SELECT, by its own columns.
    fn ordered(&self, plan: Plan, order: &[sql::OrderByExpr]) -> Result<Plan, Error> {
        if order.is_empty() {
            return Ok(plan);
        }
        let names: Vec<(&str, usize)> = plan
            .columns
            .iter()
            .enumerate()
            .map(|(i, (name, _))| (name.as_str(), i))
            .collect();
        let mut keys = Vec::new();
        for key in order {
            let at = output(&key.expr, &names, "ORDER BY")?
                .ok_or_else(|| unsupported("ORDER BY of an expression after UNION"))?;
            let descending = key.options.asc == Some(false);
            keys.push((
                at,
                (descending, key.options.nulls_first.unwrap_or(descending)),
            ));
        }
        let inner = plan.run;
        let run: Run = Box::new(move |env| {
            let rows = inner(env)?;
            let mut keyed: Vec<_> = rows
                .into_iter()
                .map(|row| {
                    (
                        keys.iter().map(|(at, _)| row[*at].clone()).collect::<Row>(),
                        row,
                    )
                })
                .collect();
            sort_by_keys(
                &mut keyed,
                &keys.iter().map(|(_, k)| *k).collect::<Vec<_>>(),
            );
            Ok(keyed.into_iter().map(|(_, row)| row).collect())
        });
        Ok(Plan {
            columns: plan.columns,
            run,
        })
    }

    fn select(
        &self,
        select: &sql::Select,
        order: &[sql::OrderByExpr],
        outer: Option<&Scope<'_>>,
    ) -> Result<Plan, Error> {
        refused::select(select)?;
        let mut scope = Scope::new(outer);
        let from = self.from(&select.from, select.selection.as_ref(), &mut scope)?;
        let items = items(&select.projection, &scope)?;
        if items.len() > COLUMNS_MAX {
            let message = format!("target lists can have at most {COLUMNS_MAX} entries");
            return Err(Error::new(ErrorKind::TooManyColumns, message));
        }
        let group_keys = self.group_keys(&select.group_by, &items, &scope)?;
        scope.ungrouped.take();
        scope.gathers.set(true);
        let mut columns: Vec<(String, ValueType)> = Vec::new();
        let mut outputs: Vec<Eval> = Vec::new();
        for item in &items {
            let compiled = match item.what {
                What::Expr(expr) => self.expr(expr, &scope)?,
                What::Column(at) => self.column(at, &scope),
            };
            columns.push((item.name.clone(), compiled.ty));
            outputs.push(compiled.eval);
        }
        let before = scope.gathered.borrow().sizes();
        let having = select
            .having
            .as_ref()
            .map(|h| self.expr(h, &scope).and_then(|h| self.boolean(h)))
            .transpose()?;
        let after = scope.gathered.borrow().sizes();
        if after.windows > before.windows {
            return Err(Error::new(
                ErrorKind::Windowing,
                "window functions are not allowed in HAVING",
            ));
        }
        if after.sets > before.sets {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "set-returning functions are not allowed in HAVING",
            ));
        }
        let mut keys = Vec::new();
        let mut sorted = Vec::new();
        for key in order {
            let (by, normal) = self.order(&key.expr, &items, &scope, "ORDER BY")?;
            if let (Order::Input(_), Some(sql::Distinct::Distinct)) = (&by, &select.distinct) {
                let message =
                    "for SELECT DISTINCT, ORDER BY expressions must appear in select list";
                return Err(Error::new(ErrorKind::InvalidColumnReference, message));
            }
            sorted.push(normal);
            let descending = key.options.asc == Some(false);
            keys.push(OrderKey {
                by,
                descending,
                nulls_first: key.options.nulls_first.unwrap_or(descending),
            });
        }
        let distinct = match &select.distinct {
            None | Some(sql::Distinct::All) => None,
            Some(sql::Distinct::Distinct) => Some(Vec::new()),
            Some(sql::Distinct::On(exprs)) => {
                let on = exprs
                    .iter()
                    .map(|e| self.order(e, &items, &scope, "DISTINCT ON"))
                    .collect::<Result<Vec<_>, _>>()?;
                let (on, normal): (Vec<_>, Vec<_>) = on.into_iter().unzip();
                check_distinct_on(&normal, &sorted)?;
                Some(on)
            }
        };
        scope.gathers.set(false);
        let width = scope.columns.len();
        let gathered = scope.gathered.take();
        let grouped = !group_keys.is_empty() || !gathered.aggregates.is_empty() || having.is_some();
        if grouped {
            self.check_grouped(&scope)?;
            // PostgreSQL makes such sets after the groups; here they are made before, which only
            // what is grouped by wants.
            refused::unless(
                gathered.sets.len() == scope.grouped_sets.get(),
                "a function that answers sets beside groups",
            )?;
        }
        let is_plain = gathered.sets.is_empty();
        let having = having.map(|h| h.eval);
        let stages = Stages {
            from,
            width,
            grouped,
            group_keys,
            having,
            gathered,
            outputs,
            keys,
            distinct,
            is_plain,
        };
        Ok(Plan {
            columns,
            run: Box::new(move |env| stages.run(env)),
        })
    }

    /// What ORDER BY or DISTINCT ON goes by: a column of the answer, by its place, its name, or
    /// because it says the same; or something of its own.
    fn order(
        &self,
        expr: &sql::Expr,
        items: &[Item<'_>],
        scope: &Scope<'_>,
        clause: &str,
    ) -> Result<(Order, sql::Expr), Error> {
        let names: Vec<(&str, &sql::Expr)> =
            items.iter().map(|i| (i.name.as_str(), &i.normal)).collect();
        let normal = normalized(expr, scope);
        let same = || items.iter().position(|i| i.normal == normal);
        if let Some(at) = output(expr, &names, clause)?.or_else(same) {
            return Ok((Order::Output(at), items[at].normal.clone()));
        }
        Ok((Order::Input(self.expr(expr, scope)?.eval), normal))
    }

    /// What GROUP BY goes by; the scope learns what may be named beside aggregates.
    fn group_keys(
        &self,
        group_by: &sql::GroupByExpr,
        items: &[Item<'_>],
        scope: &Scope<'_>,
    ) -> Result<Vec<Eval>, Error> {
        let sql::GroupByExpr::Expressions(groups, modifiers) = group_by else {
            return Err(unsupported("GROUP BY ALL"));
        };
        refused::unless(modifiers.is_empty(), "a modifier of GROUP BY")?;
        let names: Vec<(&str, &sql::Expr)> =
            items.iter().map(|i| (i.name.as_str(), &i.normal)).collect();
        let mut groups: Vec<&sql::Expr> = groups.iter().rev().collect();
        let mut keys = Vec::new();
        while let Some(group) = groups.pop() {
            if let sql::Expr::Tuple(parts) = group {
                refused::unless(!parts.is_empty(), "GROUP BY ()")?;
                groups.extend(parts.iter().rev());
                continue;
            }
            // A place or an alias means the item of the SELECT list, if no column has that name. A
            // column of this query comes before an alias, and an alias before what else a name may
            // mean.
            let is_alias = match group {
                sql::Expr::Value(_) => true,
                sql::Expr::Identifier(ident) => {
                    let name = folded(ident);
                    let is_column = scope.columns.iter().any(|c| c.name == name && !c.hidden);
                    !is_column && names.iter().any(|(alias, _)| *alias == name)
                }
                _ => false,
            };
            let own = if is_alias {
                None
            } else {
                Some(self.expr(group, scope))
            };
            let (compiled, normal) = match own {
                Some(compiled) => (compiled?, normalized(group, scope)),
                None => match output(group, &names, "GROUP BY")?.map(|at| &items[at]) {
                    Some(Item {
                        what: What::Column(at),
                        normal,
                        ..
                    }) => (self.column(*at, scope), normal.clone()),
                    // Grouping by what a set-returning item answers: the set comes first, then the
                    // groups.
                    Some(Item {
                        what: What::Expr(expr),
                        normal,
                        ..
                    }) => {
                        scope.gathers.set(true);
                        let compiled = self.expr(expr, scope);
                        scope.gathers.set(false);
                        let gathered = scope.gathered.borrow();
                        if !gathered.aggregates.is_empty() || !gathered.windows.is_empty() {
                            return Err(Error::new(
                                ErrorKind::Grouping,
                                "aggregate functions are not allowed in GROUP BY",
                            ));
                        }
                        (compiled?, normal.clone())
                    }
                    None => {
                        return Err(Error::new(
                            ErrorKind::Syntax,
                            "non-integer constant in GROUP BY",
                        ));
                    }
                },
            };
            scope.group_by(normal);
            keys.push(compiled.eval);
        }
        scope.grouped_sets.set(scope.gathered.borrow().sets.len());
        Ok(keys)
    }
}

/// One column of a SELECT list, stars as what they stand for.
struct Item<'q> {
    name: String,
    what: What<'q>,
    /// What it says, so that it can be compared with what other clauses say.
    normal: sql::Expr,
}

enum What<'q> {
    Expr(&'q sql::Expr),
    /// The place of a column in the scope.
    Column(usize),
}

fn items<'q>(projection: &'q [sql::SelectItem], scope: &Scope<'_>) -> Result<Vec<Item<'q>>, Error> {
    let mut items = Vec::new();
    for item in projection {
        let (name, expr) = match item {
            sql::SelectItem::UnnamedExpr(expr) => (column_name(expr), expr),
            sql::SelectItem::ExprWithAlias { expr, alias } => (folded(alias), expr),
            sql::SelectItem::Wildcard(options) => {
                refused::star(options)?;
                star(None, scope, &mut items)?;
                continue;
            }
            sql::SelectItem::QualifiedWildcard(
                sql::SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ) => {
                refused::star(options)?;
                star(parts(name).pop(), scope, &mut items)?;
                continue;
            }
            other => return Err(unsupported(other)),
        };
        items.push(Item {
            name,
            what: What::Expr(expr),
            normal: normalized(expr, scope),
        });
    }
    Ok(items)
}

/// DISTINCT ON keeps the first row of each, so the order must begin with what it goes by.
fn check_distinct_on(on: &[sql::Expr], sorted: &[sql::Expr]) -> Result<(), Error> {
    let on: HashSet<&sql::Expr> = on.iter().collect();
    let first = sorted.iter().take_while(|key| on.contains(key)).count();
    let leading: HashSet<&sql::Expr> = sorted[..first].iter().collect();
    let is_whole = first == sorted.len() || leading.len() == on.len();
    if is_whole && !sorted[first..].iter().any(|key| on.contains(key)) {
        return Ok(());
    }
    let message = "SELECT DISTINCT ON expressions must match initial ORDER BY expressions";
    Err(Error::new(ErrorKind::InvalidColumnReference, message))
}

/// The column of the answer that a clause names by its place or its name. Columns that share a name
/// mean the same one if they say the same.
fn output<T: PartialEq>(
    expr: &sql::Expr,
    columns: &[(&str, T)],
    clause: &str,
) -> Result<Option<usize>, Error> {
    match expr {
        sql::Expr::Identifier(ident) => {
            let name = folded(ident);
            let mut found = columns
                .iter()
                .enumerate()
                .filter(|(_, (known, _))| *known == name);
            let Some((at, (_, first))) = found.next() else {
                return Ok(None);
            };
            if found.any(|(_, (_, other))| other != first) {
                return Err(Error::new(
                    ErrorKind::AmbiguousColumn,
                    format!("{clause} \"{name}\" is ambiguous"),
                ));
            }
            Ok(Some(at))
        }
        sql::Expr::Value(value) => match &value.value {
            sql::Value::Placeholder(_) => Ok(None),
            sql::Value::Number(text, _) => {
                let place = text
                    .parse::<usize>()
                    .ok()
                    .and_then(|n| n.checked_sub(1))
                    .filter(|n| *n < columns.len());
                place.map(Some).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidColumnReference,
                        format!("{clause} position {text} is not in select list"),
                    )
                })
            }
            _ => Err(Error::new(
                ErrorKind::Syntax,
                format!("non-integer constant in {clause}"),
            )),
        },
        _ => Ok(None),
    }
}

fn star(table: Option<String>, scope: &Scope<'_>, items: &mut Vec<Item<'_>>) -> Result<(), Error> {
    let before = items.len();
    for (i, column) in scope.columns.iter().enumerate() {
        let wanted = match &table {
            Some(table) => column.table == *table,
            None => !column.hidden,
        };
        if wanted {
            items.push(Item {
                name: column.name.clone(),
                what: What::Column(i),
                normal: placed(i),
            });
        }
    }
    match table {
        Some(table) if items.len() == before => Err(Error::new(
            ErrorKind::UndefinedTable,
            format!("missing FROM-clause entry for table \"{table}\""),
        )),
        _ => Ok(()),
    }
}
