//! Queries of the catalogs: WITH, SELECT, VALUES, UNION; grouped, sorted, limited.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use datafusion::sql::sqlparser::ast as sql;

use super::aggregate::sort_by_keys;
use super::compile::{Compiler, Cte, Env, Eval, Expr, Gathered, Scope, folded, parts, unsupported};
use super::context::ROWS_MAX;
use super::relations::Row;
use super::value::{Value, ValueType};
use crate::error::{Error, ErrorKind};
use crate::statement::column_name;

pub(super) type Run = Box<dyn Fn(&Env<'_>) -> Result<Vec<Row>, Error>>;

/// A compiled query: its columns, and its rows as seen from the query around it.
pub(super) struct Plan {
    pub columns: Vec<(String, ValueType)>,
    pub run: Run,
}

impl Plan {
    /// Its rows, for an expression that looks at them and lets them go.
    pub fn passing(&self, env: &Env<'_>) -> Result<Vec<Row>, Error> {
        env.context.passing(|| (self.run)(env))
    }
}

/// What PostgreSQL allows in a SELECT list, stars as what they stand for.
const COLUMNS_MAX: usize = 1664;

/// What a row is sorted by: a column of the answer, or something else.
enum Order {
    Output(usize),
    Input(Eval),
}

struct OrderKey {
    by: Order,
    descending: bool,
    nulls_first: bool,
}

impl Compiler<'_> {
    /// Compiles a query that stands inside `outer`.
    pub(super) fn query(&self, query: &sql::Query, outer: Option<&Scope<'_>>) -> Result<Plan, Error> {
        let known = self.ctes.borrow().len();
        let compiled = self.query_with(query, outer);
        self.ctes.borrow_mut().truncate(known);
        compiled
    }

    fn query_with(&self, query: &sql::Query, outer: Option<&Scope<'_>>) -> Result<Plan, Error> {
        let mut fills: Vec<(usize, Run)> = Vec::new();
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                fills.push(self.cte(cte, with.recursive, outer)?);
            }
        }
        let order: &[sql::OrderByExpr] = match &query.order_by {
            None => &[],
            Some(sql::OrderBy { kind: sql::OrderByKind::Expressions(keys), .. }) => keys,
            Some(other) => return Err(unsupported(other)),
        };
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
            let before: Vec<_> = slots.iter().map(|s| env.context.slots.borrow().get(*s).cloned().unwrap_or_default()).collect();
            for (slot, fill) in &fills {
                let rows = fill(env)?;
                put_slot(env, *slot, rows);
            }
            let mut rows = run(env)?;
            let count = |eval: &Option<Eval>| -> Result<Option<usize>, Error> {
                let Some(eval) = eval else { return Ok(None) };
                match eval(&env.within())?.as_int() {
                    Some(n) if n < 0 => Err(Error::new(ErrorKind::InvalidRowCount, "LIMIT and OFFSET must not be negative")),
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

    fn limits(&self, query: &sql::Query, outer: Option<&Scope<'_>>) -> Result<(Option<Eval>, Option<Eval>), Error> {
        let scope = Scope::new(outer);
        let number = |expr: &sql::Expr| -> Result<Eval, Error> { Ok(self.cast(self.expr(expr, &scope)?, ValueType::INT8)?.eval) };
        let (mut limit, offset) = match &query.limit_clause {
            None => (None, None),
            Some(sql::LimitClause::LimitOffset { limit, offset, .. }) => {
                (limit.as_ref().map(number).transpose()?, offset.as_ref().map(|o| number(&o.value)).transpose()?)
            }
            Some(sql::LimitClause::OffsetCommaLimit { offset, limit }) => (Some(number(limit)?), Some(number(offset)?)),
        };
        if let Some(sql::Fetch { quantity: Some(quantity), .. }) = &query.fetch {
            limit = Some(number(quantity)?);
        }
        Ok((limit, offset))
    }

    fn cte(&self, cte: &sql::Cte, recursive: bool, outer: Option<&Scope<'_>>) -> Result<(usize, Run), Error> {
        let name = folded(&cte.alias.name);
        let slot = self.slots.get();
        self.slots.set(slot + 1);
        let renamed = |mut columns: Vec<(String, ValueType)>| {
            for (column, alias) in columns.iter_mut().zip(&cte.alias.columns) {
                column.0 = folded(&alias.name);
            }
            columns
        };
        if let (true, sql::SetExpr::SetOperation { op: sql::SetOperator::Union, set_quantifier, left, right }) =
            (recursive, &*cte.query.body)
        {
            let base = self.body(left, outer)?;
            let columns = renamed(base.columns);
            self.ctes.borrow_mut().push(Cte { name: name.clone(), columns: columns.clone(), slot });
            let step = self.body(right, outer)?;
            // RECURSIVE allows to name oneself; it does not ask for it.
            let is_recursive = super::answer::names(right, &name);
            if step.columns.len() != columns.len() {
                return Err(uneven());
            }
            let all = *set_quantifier == sql::SetQuantifier::All;
            let run: Run = Box::new(move |env| {
                let mut seen = HashSet::new();
                let mut fresh: Vec<Row> = (base.run)(env)?;
                let mut rows = Vec::new();
                loop {
                    if !all {
                        fresh.retain(|row| seen.insert(row.clone()));
                    }
                    if !is_recursive {
                        let mut more = (step.run)(env)?;
                        if !all {
                            more.retain(|row| seen.insert(row.clone()));
                        }
                        fresh.extend(more);
                        return Ok(fresh);
                    }
                    if fresh.is_empty() {
                        return Ok(rows);
                    }
                    if rows.len() + fresh.len() > ROWS_MAX {
                        return Err(Error::new(ErrorKind::LimitExceeded, "a recursive query of the catalogs does not end"));
                    }
                    env.context.step()?;
                    env.context.hold(fresh.iter().map(|row| size_of_val(row.as_slice())).sum())?;
                    rows.extend(fresh.iter().cloned());
                    put_slot(env, slot, fresh);
                    fresh = (step.run)(env)?;
                }
            });
            return Ok((slot, run));
        }
        let plan = self.query(&cte.query, outer)?;
        self.ctes.borrow_mut().push(Cte { name, columns: renamed(plan.columns), slot });
        Ok((slot, plan.run))
    }

    fn body(&self, body: &sql::SetExpr, outer: Option<&Scope<'_>>) -> Result<Plan, Error> {
        match body {
            sql::SetExpr::Select(select) => self.select(select, &[], outer),
            sql::SetExpr::Query(query) => self.query(query, outer),
            sql::SetExpr::Values(values) => self.values(values, outer),
            sql::SetExpr::SetOperation { left, op, set_quantifier, right } => {
                self.set_operation(left, *op, *set_quantifier, right, outer)
            }
            other => Err(unsupported(other)),
        }
    }

    fn values(&self, values: &sql::Values, outer: Option<&Scope<'_>>) -> Result<Plan, Error> {
        let scope = Scope::new(outer);
        let width = values.rows.first().map_or(0, |r| r.content.len());
        let mut columns: Vec<Vec<Expr>> = (0..width).map(|_| Vec::new()).collect();
        for row in &values.rows {
            if row.content.len() != width {
                return Err(Error::new(ErrorKind::Syntax, "VALUES lists must all be the same length"));
            }
            for (column, expr) in columns.iter_mut().zip(&row.content) {
                column.push(self.expr(expr, &scope)?);
            }
        }
        let mut types = Vec::new();
        let mut evals = Vec::new();
        for column in columns {
            let (ty, column) = self.unify(column)?;
            types.push(ty);
            evals.push(column);
        }
        let height = values.rows.len();
        let columns = types.into_iter().enumerate().map(|(i, ty)| (format!("column{}", i + 1), ty)).collect();
        let run: Run = Box::new(move |env| {
            let env = env.within();
            (0..height).map(|i| evals.iter().map(|column| column[i](&env)).collect()).collect()
        });
        Ok(Plan { columns, run })
    }

    fn set_operation(
        &self,
        left: &sql::SetExpr,
        op: sql::SetOperator,
        quantifier: sql::SetQuantifier,
        right: &sql::SetExpr,
        outer: Option<&Scope<'_>>,
    ) -> Result<Plan, Error> {
        let (left, right) = (self.body(left, outer)?, self.body(right, outer)?);
        if left.columns.len() != right.columns.len() {
            return Err(uneven());
        }
        let mut columns = Vec::new();
        let mut casts = Vec::new();
        for ((name, a), (_, b)) in left.columns.iter().zip(&right.columns) {
            let ty = super::casts::common(a, b).ok_or_else(|| {
                let message = format!("UNION types {} and {} cannot be matched", a.pg.name(), b.pg.name());
                Error::new(ErrorKind::DatatypeMismatch, message)
            })?;
            casts.push([(a.clone(), ty.clone()), (b.clone(), ty.clone())]);
            columns.push((name.clone(), ty));
        }
        let all = quantifier == sql::SetQuantifier::All;
        let run: Run = Box::new(move |env| {
            let settle = |rows: Vec<Row>, side: usize| -> Result<Vec<Row>, Error> {
                let cast = |row: Row| {
                    let values = row.into_iter().zip(&casts).map(|(value, cast)| {
                        let (from, to) = &cast[side];
                        if from == to { Ok(value) } else { super::casts::convert(value, from, to, env.context) }
                    });
                    values.collect()
                };
                rows.into_iter().map(cast).collect()
            };
            let (mut left, right) = (settle((left.run)(env)?, 0)?, settle((right.run)(env)?, 1)?);
            match op {
                sql::SetOperator::Union => left.extend(right),
                sql::SetOperator::Intersect => {
                    let right: HashSet<Row> = right.into_iter().collect();
                    left.retain(|row| right.contains(row));
                }
                _ => {
                    let right: HashSet<Row> = right.into_iter().collect();
                    left.retain(|row| !right.contains(row));
                }
            }
            if !all {
                let mut seen = HashSet::new();
                left.retain(|row| seen.insert(row.clone()));
            }
            Ok(left)
        });
        Ok(Plan { columns, run })
    }

    /// Sorts the answer of something else than a SELECT, by its own columns.
    fn ordered(&self, plan: Plan, order: &[sql::OrderByExpr]) -> Result<Plan, Error> {
        if order.is_empty() {
            return Ok(plan);
        }
        let mut keys = Vec::new();
        for key in order {
            let at = output(&key.expr, &plan.columns)?.ok_or_else(|| unsupported("ORDER BY of an expression behind UNION"))?;
            let descending = key.options.asc == Some(false);
            keys.push((at, (descending, key.options.nulls_first.unwrap_or(descending))));
        }
        let inner = plan.run;
        let run: Run = Box::new(move |env| {
            let rows = inner(env)?;
            let mut keyed: Vec<_> =
                rows.into_iter().map(|row| (keys.iter().map(|(at, _)| row[*at].clone()).collect::<Row>(), row)).collect();
            sort_by_keys(&mut keyed, &keys.iter().map(|(_, k)| *k).collect::<Vec<_>>());
            Ok(keyed.into_iter().map(|(_, row)| row).collect())
        });
        Ok(Plan { columns: plan.columns, run })
    }

    fn select(&self, select: &sql::Select, order: &[sql::OrderByExpr], outer: Option<&Scope<'_>>) -> Result<Plan, Error> {
        let mut scope = Scope::new(outer);
        let from = self.from(&select.from, select.selection.as_ref(), &mut scope)?;
        scope.gathers.set(true);
        let mut columns: Vec<(String, ValueType)> = Vec::new();
        let mut outputs: Vec<Eval> = Vec::new();
        for item in &select.projection {
            match item {
                sql::SelectItem::UnnamedExpr(expr) | sql::SelectItem::ExprWithAlias { expr, .. } => {
                    let name = match item {
                        sql::SelectItem::ExprWithAlias { alias, .. } => folded(alias),
                        _ => column_name(expr),
                    };
                    let compiled = self.expr(expr, &scope)?;
                    columns.push((name, compiled.ty));
                    outputs.push(compiled.eval);
                }
                sql::SelectItem::Wildcard(_) => star(None, &scope, &mut columns, &mut outputs)?,
                sql::SelectItem::QualifiedWildcard(sql::SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    star(parts(name).pop(), &scope, &mut columns, &mut outputs)?;
                }
                other => return Err(unsupported(other)),
            }
        }
        if outputs.len() > COLUMNS_MAX {
            let message = format!("target lists can have at most {COLUMNS_MAX} entries");
            return Err(Error::new(ErrorKind::TooManyColumns, message));
        }
        let having = select.having.as_ref().map(|h| self.expr(h, &scope)).transpose()?.map(|h| h.eval);
        let mut keys = Vec::new();
        for key in order {
            let by = match output(&key.expr, &columns)? {
                Some(at) => Order::Output(at),
                None => Order::Input(self.expr(&key.expr, &scope)?.eval),
            };
            let descending = key.options.asc == Some(false);
            keys.push(OrderKey { by, descending, nulls_first: key.options.nulls_first.unwrap_or(descending) });
        }
        scope.gathers.set(false);
        let sql::GroupByExpr::Expressions(groups, _) = &select.group_by else { return Err(unsupported("GROUP BY ALL")) };
        let mut group_keys = Vec::new();
        for group in groups {
            // A place or an alias means the item of the SELECT list, if no column has that name.
            let item = output(group, &columns)?.and_then(|at| match select.projection.get(at) {
                Some(sql::SelectItem::UnnamedExpr(e) | sql::SelectItem::ExprWithAlias { expr: e, .. }) => Some(e),
                _ => None,
            });
            let compiled = match self.expr(group, &scope) {
                Ok(compiled) if !matches!(group, sql::Expr::Value(_)) => compiled,
                result => match item {
                    // Grouping by what a set-returning item answers: the set comes first, then the groups.
                    Some(item) => {
                        let before = scope.gathered.borrow().aggregates.len();
                        scope.gathers.set(true);
                        let compiled = self.expr(item, &scope);
                        scope.gathers.set(false);
                        if scope.gathered.borrow().aggregates.len() > before {
                            return Err(Error::new(ErrorKind::Grouping, "aggregate functions are not allowed in GROUP BY"));
                        }
                        compiled?
                    }
                    None => result?,
                },
            };
            group_keys.push(compiled.eval);
        }
        let distinct = match &select.distinct {
            None | Some(sql::Distinct::All) => None,
            Some(sql::Distinct::Distinct) => Some(Vec::new()),
            Some(sql::Distinct::On(exprs)) => {
                Some(exprs.iter().map(|e| self.expr(e, &scope).map(|e| e.eval)).collect::<Result<Vec<_>, _>>()?)
            }
        };
        let width = scope.columns.len();
        let gathered = scope.gathered.take();
        let grouped = !group_keys.is_empty() || !gathered.aggregates.is_empty();
        let is_plain = gathered.sets.is_empty();
        let stages = Stages { from, width, grouped, group_keys, having, gathered, outputs, keys, distinct, is_plain };
        Ok(Plan { columns, run: Box::new(move |env| stages.run(env)) })
    }
}

fn uneven() -> Error {
    Error::new(ErrorKind::Syntax, "each UNION query must have the same number of columns")
}

fn put_slot(env: &Env<'_>, slot: usize, rows: Vec<Row>) {
    let mut slots = env.context.slots.borrow_mut();
    if slots.len() <= slot {
        slots.resize(slot + 1, Rc::default());
    }
    slots[slot] = Rc::new(rows);
}

/// The column of the answer that ORDER BY or GROUP BY names by its place or its name.
fn output(expr: &sql::Expr, columns: &[(String, ValueType)]) -> Result<Option<usize>, Error> {
    match expr {
        sql::Expr::Identifier(ident) => {
            let name = folded(ident);
            Ok(columns.iter().position(|(n, _)| *n == name))
        }
        sql::Expr::Value(value) => {
            let sql::Value::Number(text, _) = &value.value else { return Ok(None) };
            let place = text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).filter(|n| *n < columns.len());
            place.map(Some).ok_or_else(|| {
                Error::new(ErrorKind::InvalidColumnReference, format!("ORDER BY position {text} is not in select list"))
            })
        }
        _ => Ok(None),
    }
}

fn star(
    table: Option<String>,
    scope: &Scope<'_>,
    columns: &mut Vec<(String, ValueType)>,
    outputs: &mut Vec<Eval>,
) -> Result<(), Error> {
    let before = columns.len();
    for (i, column) in scope.columns.iter().enumerate() {
        let wanted = match &table {
            Some(table) => column.table == *table,
            None => !column.hidden,
        };
        if wanted {
            scope.used.borrow_mut().insert(i);
            columns.push((column.name.clone(), column.ty.clone()));
            outputs.push(Box::new(move |env| Ok(env.row[i].clone())));
        }
    }
    match table {
        Some(table) if columns.len() == before => {
            Err(Error::new(ErrorKind::UndefinedTable, format!("missing FROM-clause entry for table \"{table}\"")))
        }
        _ => Ok(()),
    }
}

/// A row that stands for its group, what was aggregated over that, and the current values of its sets.
type Group = (Row, Vec<Value>, Vec<Value>);

/// A SELECT's stages, in the order in which SQL has them.
struct Stages {
    from: super::join::From,
    width: usize,
    grouped: bool,
    group_keys: Vec<Eval>,
    having: Option<Eval>,
    gathered: Gathered,
    outputs: Vec<Eval>,
    keys: Vec<OrderKey>,
    /// DISTINCT over everything if there is nothing in it.
    distinct: Option<Vec<Eval>>,
    is_plain: bool,
}

impl Stages {
    fn run(&self, outer: &Env<'_>) -> Result<Vec<Row>, Error> {
        let base = outer.within();
        let held = outer.context.held();
        let rows = self.from.rows(&base)?;
        let joined = outer.context.held() - held;
        // Each row with what was aggregated over its group; a group is stood for by its first row.
        let mut groups: Vec<Group> = Vec::new();
        if self.grouped {
            groups = self.group(&rows, &base)?;
        } else {
            groups.extend(rows.into_iter().map(|row| (row, Vec::new(), Vec::new())));
        }
        if let Some(having) = &self.having {
            let mut kept = Vec::new();
            for (row, aggregates, sets) in groups {
                if having(&Env { aggregates: &aggregates, sets: &sets, ..base.row(&row) })?.is_true() {
                    kept.push((row, aggregates, sets));
                }
            }
            groups = kept;
        }
        let mut windows = Vec::new();
        if !self.gathered.windows.is_empty() {
            let rows: Vec<Row> = groups.iter().map(|(row, ..)| row.clone()).collect();
            for window in &self.gathered.windows {
                windows.push(window.of(&rows, &base)?);
            }
        }
        let mut answer: Vec<(Vec<Value>, Row)> = Vec::new();
        let mut seen = HashSet::new();
        for (i, (row, aggregates, sets)) in groups.iter().enumerate() {
            let of_row: Vec<Value> = windows.iter().map(|w| w[i].clone()).collect();
            let env = Env { aggregates, windows: &of_row, sets, ..base.row(row) };
            if self.is_plain || self.grouped {
                self.emit(&env, &mut answer, &mut seen)?;
                continue;
            }
            let sets = self.gathered.sets.iter().map(|s| s(&env)).collect::<Result<Vec<_>, _>>()?;
            let longest = sets.iter().map(|s| s.items().len()).max().unwrap_or(0);
            for n in 0..longest {
                let current: Vec<Value> = sets.iter().map(|s| s.items().get(n).cloned().unwrap_or(Value::Null)).collect();
                self.emit(&Env { sets: &current, ..env }, &mut answer, &mut seen)?;
            }
        }
        let order: Vec<_> = self.keys.iter().map(|k| (k.descending, k.nulls_first)).collect();
        if !order.is_empty() {
            sort_by_keys(&mut answer, &order);
        }
        let mut rows: Vec<Row> = answer.into_iter().map(|(_, row)| row).collect();
        if let Some([_, ..]) = self.distinct.as_deref() {
            // DISTINCT ON keeps the first of each in the order; what it goes by stands behind the row.
            let width = self.outputs.len();
            let mut first = HashSet::new();
            rows.retain(|row| first.insert(row[width..].to_vec()));
            rows.iter_mut().for_each(|row| row.truncate(width));
        }
        // What the answer was made of is gone.
        outer.context.let_go(outer.context.held().saturating_sub(joined));
        Ok(rows)
    }

    fn emit(&self, env: &Env<'_>, answer: &mut Vec<(Vec<Value>, Row)>, seen: &mut HashSet<Row>) -> Result<(), Error> {
        env.context.step()?;
        let mut row = Row::with_capacity(self.outputs.len());
        for output in &self.outputs {
            let value = output(env)?;
            env.context.hold(value.size())?;
            row.push(value);
        }
        let key = |k: &OrderKey| match &k.by {
            Order::Output(at) => Ok(row[*at].clone()),
            Order::Input(eval) => eval(env),
        };
        let keys = self.keys.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        match self.distinct.as_deref() {
            Some([]) if !seen.insert(row.clone()) => return Ok(()),
            Some(on @ [_, ..]) => {
                let values = on.iter().map(|e| e(env)).collect::<Result<Vec<_>, _>>()?;
                row.extend(values);
            }
            _ => {}
        }
        if answer.len() >= ROWS_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "a query of the catalogs holds too many rows"));
        }
        answer.push((keys, row));
        Ok(())
    }

    fn group(&self, rows: &[Row], base: &Env<'_>) -> Result<Vec<Group>, Error> {
        let mut places: HashMap<Vec<Value>, usize> = HashMap::new();
        let mut groups: Vec<(Vec<&Row>, Vec<Value>)> = Vec::new();
        for row in rows {
            let env = base.row(row);
            let sets = self.gathered.sets.iter().map(|s| s(&env)).collect::<Result<Vec<_>, _>>()?;
            // A row counts once for each row of its sets; without any, once.
            let times = if sets.is_empty() { 1 } else { sets.iter().map(|s| s.items().len()).max().unwrap_or(0) };
            for n in 0..times {
                let current: Vec<Value> = sets.iter().map(|s| s.items().get(n).cloned().unwrap_or(Value::Null)).collect();
                let env = Env { sets: &current, ..env };
                let key = self.group_keys.iter().map(|k| k(&env)).collect::<Result<Vec<_>, _>>()?;
                let at = *places.entry(key).or_insert_with(|| {
                    groups.push((Vec::new(), current.clone()));
                    groups.len() - 1
                });
                groups[at].0.push(row);
            }
        }
        // Without GROUP BY there is one group, even of no rows.
        if self.group_keys.is_empty() && groups.is_empty() {
            groups.push((Vec::new(), Vec::new()));
        }
        let group = |(members, sets): (Vec<&Row>, Vec<Value>)| {
            let aggregates = self.gathered.aggregates.iter().map(|a| a.of(&members, base)).collect::<Result<Vec<_>, _>>()?;
            let row = members.first().map_or_else(|| vec![Value::Null; self.width], |r| (*r).clone());
            Ok((row, aggregates, sets))
        };
        groups.into_iter().map(group).collect()
    }
}
