//! Expressions of catalog queries, compiled once: names are resolved and types settled before a row
//! is looked at.

mod forms;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;
use starkeep_error::{Error, ErrorKind};

use super::expr::{Env, Eval, Expr, Held, all_of, negate, row_of, unsupported};
use super::names::{folded, parts};
use super::scope::{Cte, Scope, ScopeColumn};
use super::snapshot::CatalogSnapshot;
use super::types::sql_type_name;
use super::value::{Value, ValueType};
use super::value_text::read;

pub(super) struct Compiler<'s> {
    pub snapshot: &'s Arc<CatalogSnapshot>,
    /// The types of `$1`, … as far as they are known.
    pub parameters: RefCell<Vec<Option<ValueType>>>,
    pub ctes: RefCell<Vec<Cte>>,
    pub slots: Cell<usize>,
}

impl<'s> Compiler<'s> {
    pub fn expr(&self, ast: &sql::Expr, scope: &Scope<'_>) -> Result<Expr, Error> {
        if scope.is_grouped_by(ast) {
            let before = scope.gathered.borrow().sets.len();
            let compiled = scope.as_grouped(|| self.expr_of(ast, scope));
            let gathered = scope.gathered.borrow().sets.len() - before;
            scope.grouped_sets.set(scope.grouped_sets.get() + gathered);
            return compiled;
        }
        self.expr_of(ast, scope)
    }

    fn expr_of(&self, ast: &sql::Expr, scope: &Scope<'_>) -> Result<Expr, Error> {
        use sql::Expr as E;
        match ast {
            E::Identifier(ident) => self.name(&[folded(ident)], scope),
            E::CompoundIdentifier(idents) => {
                self.name(&idents.iter().map(folded).collect::<Vec<_>>(), scope)
            }
            E::Nested(inner) => self.expr(inner, scope),
            E::Collate { expr, collation } => {
                // All of these compare bytes here.
                match parts(collation).pop() {
                    Some(name)
                        if matches!(name.as_str(), "default" | "C" | "POSIX" | "ucs_basic") =>
                    {
                        self.expr(expr, scope)
                    }
                    _ => {
                        let message =
                            format!("collation {collation} for encoding \"UTF8\" does not exist");
                        Err(Error::new(ErrorKind::UndefinedObject, message))
                    }
                }
            }
            E::Value(value) => self.value(&value.value),
            E::TypedString(typed) => {
                let ty = self.type_of(&typed.data_type)?;
                self.cast(self.expr(&E::Value(typed.value.clone()), scope)?, ty)
            }
            E::Cast {
                kind: sql::CastKind::Cast | sql::CastKind::DoubleColon,
                expr,
                data_type,
                array: false,
                format: None,
            } => {
                let (inner, ty) = (self.expr(expr, scope)?, self.type_of(data_type)?);
                self.cast(inner, ty)
            }
            E::Interval(sql::Interval {
                value,
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            }) => self.cast(self.expr(value, scope)?, ValueType::of(Type::INTERVAL)),
            E::UnaryOp { op, expr } => self.unary(*op, self.expr(expr, scope)?),
            E::BinaryOp { left, op, right } => self.binary(left, op, right, scope),
            E::IsNull(inner) => self.test(inner, scope, |v| v.is_null()),
            E::IsNotNull(inner) => self.test(inner, scope, |v| !v.is_null()),
            E::IsTrue(inner) => self.test(inner, scope, |v| matches!(v, Value::Bool(true))),
            E::IsNotTrue(inner) => self.test(inner, scope, |v| !matches!(v, Value::Bool(true))),
            E::IsFalse(inner) => self.test(inner, scope, |v| matches!(v, Value::Bool(false))),
            E::IsNotFalse(inner) => self.test(inner, scope, |v| !matches!(v, Value::Bool(false))),
            E::IsDistinctFrom(a, b) | E::IsNotDistinctFrom(a, b) => {
                let (a, b) = self.alike(self.expr(a, scope)?, self.expr(b, scope)?)?;
                let same = matches!(ast, E::IsNotDistinctFrom(..));
                Ok(Expr::new(ValueType::BOOL, move |env| {
                    Ok(Value::Bool(((a.eval)(env)? == (b.eval)(env)?) == same))
                }))
            }
            E::Between {
                expr,
                negated,
                low,
                high,
            } => {
                if let sql::Expr::Prefixed { prefix, value } = &**low
                    && prefix.value == super::SYMMETRIC
                {
                    let between = self.between_either([expr, value, high], scope)?;
                    return Ok(negate(between, *negated));
                }
                let held = Held::new(self.expr(expr, scope)?);
                let part = |op, bound: &sql::Expr| {
                    self.operation(held.read(), &op, self.expr(bound, scope)?)
                };
                let low = part(sql::BinaryOperator::GtEq, low)?;
                let high = part(sql::BinaryOperator::LtEq, high)?;
                let (fill, both) = (held.fill(), all_of(low.eval, high.eval));
                let between: Eval = Box::new(move |env| fill(env).and_then(|()| both(env)));
                Ok(negate(between, *negated))
            }
            E::InList {
                expr,
                list,
                negated,
            } => {
                let held = Held::new(self.expr(expr, scope)?);
                let mut items = Vec::new();
                for item in list {
                    let (left, right) = self.alike(held.read(), self.expr(item, scope)?)?;
                    items.push((left.eval, right.eval));
                }
                let fill = held.fill();
                let any = Expr::new(ValueType::BOOL, move |env| {
                    fill(env)?;
                    let mut unknown = false;
                    for (left, right) in &items {
                        match (left(env)?, right(env)?) {
                            (Value::Null, _) | (_, Value::Null) => unknown = true,
                            (a, b) if a.compare(&b).is_eq() => return Ok(Value::Bool(true)),
                            _ => {}
                        }
                    }
                    Ok(if unknown {
                        Value::Null
                    } else {
                        Value::Bool(false)
                    })
                });
                Ok(negate(any.eval, *negated))
            }
            E::InSubquery {
                expr,
                subquery,
                negated,
            } => {
                let plan = self.query(subquery, Some(scope))?;
                let found = self.any_of_rows(
                    self.expr(expr, scope)?,
                    &sql::BinaryOperator::Eq,
                    plan,
                    false,
                )?;
                Ok(negate(found.eval, *negated))
            }
            E::AnyOp {
                left,
                compare_op,
                right,
                is_some: _,
            } => self.quantified(left, compare_op, right, false, scope),
            E::AllOp {
                left,
                compare_op,
                right,
            } => self.quantified(left, compare_op, right, true, scope),
            E::Exists { subquery, negated } => {
                let (plan, negated) = (self.query(subquery, Some(scope))?, *negated);
                Ok(Expr::new(ValueType::BOOL, move |env| {
                    Ok(Value::Bool(plan.passing(env)?.is_empty() == negated))
                }))
            }
            E::Subquery(query) => self.scalar(query, scope),
            E::Like {
                negated,
                expr,
                pattern,
                escape_char,
                any: false,
            } => self.like(expr, pattern, escape_char.as_ref(), false, *negated, scope),
            E::ILike {
                negated,
                expr,
                pattern,
                escape_char,
                any: false,
            } => self.like(expr, pattern, escape_char.as_ref(), true, *negated, scope),
            E::Case {
                case_token: _,
                end_token: _,
                operand,
                conditions,
                else_result,
            } => self.case(
                operand.as_deref(),
                conditions,
                else_result.as_deref(),
                scope,
            ),
            E::Array(array) => self.array(&array.elem, scope),
            E::CompoundFieldAccess { root, access_chain } => access_chain
                .iter()
                .try_fold(self.expr(root, scope)?, |inner, access| {
                    self.access(inner, access, scope)
                }),
            E::Tuple(items) => Ok(row_of(
                items
                    .iter()
                    .map(|i| self.expr(i, scope))
                    .collect::<Result<Vec<_>, _>>()?,
            )),
            E::Function(function) => self.function(function, scope),
            E::Substring {
                expr,
                substring_from,
                substring_for,
                special: _,
                shorthand: _,
            } => {
                let mut args = vec![self.expr(expr, scope)?];
                match substring_from {
                    Some(from) => args.push(self.expr(from, scope)?),
                    None => args.push(Expr::constant(ValueType::INT4, Value::Int(1))),
                }
                args.extend(
                    substring_for
                        .as_ref()
                        .map(|f| self.expr(f, scope))
                        .transpose()?,
                );
                self.call("substring", args)
            }
            E::Trim {
                expr,
                trim_where,
                trim_what,
                trim_characters,
            } => {
                let name = match trim_where {
                    Some(sql::TrimWhereField::Leading) => "ltrim",
                    Some(sql::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                let mut args = vec![self.expr(expr, scope)?];
                let what = trim_what
                    .as_deref()
                    .or(trim_characters.as_ref().and_then(|c| c.first()));
                args.extend(what.map(|w| self.expr(w, scope)).transpose()?);
                self.call(name, args)
            }
            E::Position { expr, r#in } => self.call(
                "position",
                vec![self.expr(r#in, scope)?, self.expr(expr, scope)?],
            ),
            E::Ceil {
                expr,
                field: sql::CeilFloorKind::DateTimeField(sql::DateTimeField::NoDateTime),
            } => self.call("ceil", vec![self.expr(expr, scope)?]),
            E::Floor {
                expr,
                field: sql::CeilFloorKind::DateTimeField(sql::DateTimeField::NoDateTime),
            } => self.call("floor", vec![self.expr(expr, scope)?]),
            E::AtTimeZone {
                timestamp,
                time_zone,
            } => super::times::at_time_zone(
                self.expr(timestamp, scope)?,
                &self.expr(time_zone, scope)?,
            ),
            E::Extract {
                field,
                syntax: _,
                expr,
            } => {
                let part = super::times::part_of_time(field)
                    .ok_or_else(|| unsupported(format_args!("EXTRACT({field} …)")))?;
                let is_epoch = *field == sql::DateTimeField::Epoch;
                let inner = self.expr(expr, scope)?;
                if !matches!(
                    inner.ty.pg,
                    Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::INTERVAL
                ) {
                    let ty = sql_type_name(&inner.ty.pg);
                    return Err(unsupported(format_args!("EXTRACT of a part of {ty}")));
                }
                let inner = inner.eval;
                Ok(Expr::new(ValueType::of(Type::FLOAT8), move |env| {
                    Ok(match inner(env)? {
                        Value::Time(t) => part(t).map_or(Value::Null, Value::Float),
                        Value::Span(t) if is_epoch => part(t).map_or(Value::Null, Value::Float),
                        Value::Span(_) => {
                            return Err(unsupported("EXTRACT of a part of an interval"));
                        }
                        _ => Value::Null,
                    })
                }))
            }
            other => {
                let text = other.to_string();
                Err(unsupported(
                    text.split_whitespace().next().unwrap_or_default(),
                ))
            }
        }
    }

    fn value(&self, value: &sql::Value) -> Result<Expr, Error> {
        Ok(match value {
            sql::Value::Number(text, _) => match text.parse::<i64>() {
                Ok(n) if i32::try_from(n).is_ok() => Expr::constant(ValueType::INT4, Value::Int(n)),
                Ok(n) => Expr::constant(ValueType::INT8, Value::Int(n)),
                Err(_) => {
                    let ty = ValueType::of(Type::NUMERIC);
                    Expr::constant(ty.clone(), read(text, &ty, &self.snapshot.directory)?)
                }
            },
            sql::Value::Boolean(b) => Expr::constant(ValueType::BOOL, Value::Bool(*b)),
            sql::Value::Null => Expr::constant(ValueType::UNKNOWN, Value::Null),
            sql::Value::Placeholder(name) => {
                let number = name
                    .trim_start_matches('$')
                    .parse::<usize>()
                    .ok()
                    .filter(|n| (1..=65_535).contains(n));
                let at = number.ok_or_else(|| {
                    Error::new(
                        ErrorKind::UndefinedParameter,
                        format!("there is no parameter {name}"),
                    )
                })? - 1;
                let mut known = self.parameters.borrow_mut();
                if known.len() <= at {
                    known.resize(at + 1, None);
                }
                let ty = known[at].clone();
                Expr {
                    parameter: ty.is_none().then_some(at),
                    ..Expr::new(ty.unwrap_or(ValueType::UNKNOWN), move |env| {
                        Ok(env
                            .context
                            .parameters
                            .get(at)
                            .cloned()
                            .unwrap_or(Value::Null))
                    })
                }
            }
            other => {
                let text: Arc<str> = other
                    .clone()
                    .into_string()
                    .ok_or_else(|| unsupported(other))?
                    .into();
                Expr {
                    literal: Some(text.clone()),
                    ..Expr::constant(ValueType::UNKNOWN, Value::Text(text))
                }
            }
        })
    }

    /// A column, a field of one, or a whole row by its table's name.
    fn name(&self, parts: &[String], scope: &Scope<'_>) -> Result<Expr, Error> {
        let (table, name) = match parts {
            [name] => (None, name),
            [table, name] | [_, table, name] => (Some(table), name),
            _ => {
                return Err(Error::new(
                    ErrorKind::UndefinedColumn,
                    format!("column {} does not exist", parts.join(".")),
                ));
            }
        };
        let mut at = Some(scope);
        let mut depth = 0;
        while let Some(here) = at {
            let fits =
                |c: &&ScopeColumn| c.name == *name && table.map_or(!c.hidden, |t| c.table == *t);
            let mut found = here.columns.iter().enumerate().filter(|(_, c)| fits(c));
            if let Some((i, column)) = found.next() {
                if found.next().is_some() {
                    return Err(Error::new(
                        ErrorKind::AmbiguousColumn,
                        format!("column reference \"{name}\" is ambiguous"),
                    ));
                }
                here.used.borrow_mut().insert(i);
                here.ungrouped.borrow_mut().push((i, depth > 0));
                let ty = column.ty.clone();
                let column = (depth == 0).then_some(i);
                return Ok(Expr {
                    column,
                    ..Expr::new(ty, move |env| Ok(outward(env, depth).row[i].clone()))
                });
            }
            if name == "tableoid"
                && let Some(column) = here
                    .columns
                    .iter()
                    .find(|c| c.relation != 0 && table.is_none_or(|t| c.table == *t))
            {
                return Ok(Expr::constant(ValueType::OID, Value::oid(column.relation)));
            }
            if table.is_none() && here.columns.iter().any(|c| c.table == *name) {
                return Ok(whole_row(here, name, depth));
            }
            at = here.outer;
            depth += 1;
        }
        // SQL's functions without brackets.
        if let [word] = parts
            && matches!(
                word.as_str(),
                "current_user" | "session_user" | "user" | "current_role" | "current_catalog"
            )
        {
            return self.call(word, Vec::new());
        }
        let message = match table {
            Some(table) => format!("column {table}.{name} does not exist"),
            None => format!("column \"{name}\" does not exist"),
        };
        Err(Error::new(ErrorKind::UndefinedColumn, message))
    }

    fn test(
        &self,
        inner: &sql::Expr,
        scope: &Scope<'_>,
        of: fn(&Value) -> bool,
    ) -> Result<Expr, Error> {
        let inner = self.expr(inner, scope)?.eval;
        Ok(Expr::new(ValueType::BOOL, move |env| {
            Ok(Value::Bool(of(&inner(env)?)))
        }))
    }

    fn scalar(&self, query: &sql::Query, scope: &Scope<'_>) -> Result<Expr, Error> {
        let plan = self.query(query, Some(scope))?;
        let [(_, ty)] = plan.columns.as_slice() else {
            return Err(Error::new(
                ErrorKind::Syntax,
                "subquery must return only one column",
            ));
        };
        Ok(Expr::new(ty.clone(), move |env| {
            let mut rows = plan.passing(env)?.into_iter();
            let first = rows.next();
            if rows.next().is_some() {
                return Err(Error::new(
                    ErrorKind::Cardinality,
                    "more than one row returned by a subquery used as an expression",
                ));
            }
            Ok(first
                .and_then(|r| r.into_iter().next())
                .unwrap_or(Value::Null))
        }))
    }
}

fn outward<'e>(env: &'e Env<'e>, depth: usize) -> &'e Env<'e> {
    let mut env = env;
    for _ in 0..depth {
        env = env.outer.unwrap_or(env);
    }
    env
}

fn whole_row(scope: &Scope<'_>, table: &str, depth: usize) -> Expr {
    let columns: Vec<(usize, &ScopeColumn)> = scope
        .columns
        .iter()
        .enumerate()
        .filter(|(_, c)| c.table == table)
        .collect();
    let places: Vec<usize> = columns.iter().map(|(i, _)| *i).collect();
    scope.used.borrow_mut().extend(&places);
    scope
        .ungrouped
        .borrow_mut()
        .extend(places.iter().map(|i| (*i, depth > 0)));
    // A function's only column is its value, not a row around it.
    if let ([(place, column)], true) = (
        columns.as_slice(),
        columns.iter().all(|(_, c)| c.name == table),
    ) {
        let place = *place;
        return Expr::new(column.ty.clone(), move |env| {
            Ok(outward(env, depth).row[place].clone())
        });
    }
    let fields = columns
        .iter()
        .map(|(_, c)| (c.name.clone(), c.ty.clone()))
        .collect();
    Expr::new(ValueType::record(fields), move |env| {
        let row = outward(env, depth).row;
        Ok(Value::Record(
            places.iter().map(|i| row[*i].clone()).collect(),
        ))
    })
}
