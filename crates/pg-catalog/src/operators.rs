//! Operators of catalog queries.

use std::cmp::Ordering;
use std::collections::HashSet;

use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;

use super::compile::Compiler;
use super::context::Context;
use super::expr::Plan;
use super::expr::{Env, Eval, Expr, all_of, unsupported};
use super::scope::Scope;
use super::types::sql_type_name;
use super::value::{Value, ValueType};
use super::value_text::show;
use starkeep_error::{Error, ErrorKind};

fn missing(op: &str, left: &ValueType, right: &ValueType) -> Error {
    let message = format!(
        "operator does not exist: {} {op} {}",
        sql_type_name(&left.pg),
        sql_type_name(&right.pg)
    );
    Error::new(ErrorKind::UndefinedFunction, message)
        .hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
}

/// The operator of `OPERATOR(pg_catalog.=)`, and of the names of LIKE.
fn plain(op: &sql::BinaryOperator) -> sql::BinaryOperator {
    use sql::BinaryOperator as B;
    let B::PGCustomBinaryOperator(name) = op else {
        return op.clone();
    };
    match name.last().map(String::as_str) {
        Some("=") => B::Eq,
        Some("<>" | "!=") => B::NotEq,
        Some("<") => B::Lt,
        Some("<=") => B::LtEq,
        Some(">") => B::Gt,
        Some(">=") => B::GtEq,
        Some("~") => B::PGRegexMatch,
        Some("~*") => B::PGRegexIMatch,
        Some("!~") => B::PGRegexNotMatch,
        Some("!~*") => B::PGRegexNotIMatch,
        Some("~~") => B::PGLikeMatch,
        Some("~~*") => B::PGILikeMatch,
        Some("!~~") => B::PGNotLikeMatch,
        Some("||") => B::StringConcat,
        Some("+") => B::Plus,
        Some("-") => B::Minus,
        Some("@>") => B::AtArrow,
        Some("&&") => B::PGOverlap,
        _ => op.clone(),
    }
}

/// Whether an order satisfies a comparison; `None` for other operators.
fn comparison(op: &sql::BinaryOperator) -> Option<fn(Ordering) -> bool> {
    use sql::BinaryOperator as B;
    Some(match op {
        B::Eq => Ordering::is_eq,
        B::NotEq => Ordering::is_ne,
        B::Lt => Ordering::is_lt,
        B::LtEq => Ordering::is_le,
        B::Gt => Ordering::is_gt,
        B::GtEq => Ordering::is_ge,
        _ => return None,
    })
}

/// A test of two values; NULL for any NULL.
type Test = Box<dyn Fn(&Value, &Value, &Context) -> Result<bool, Error>>;

/// How values that are not NULL are compared by an operator.
fn test(op: &sql::BinaryOperator) -> Option<Test> {
    use sql::BinaryOperator as B;
    if let Some(satisfies) = comparison(op) {
        return Some(Box::new(move |a, b, _| Ok(satisfies(a.compare(b)))));
    }
    let regex = |ignore_case: bool, wanted: bool| -> Option<Test> {
        Some(Box::new(move |a, b, c| {
            let pattern = if ignore_case {
                format!("(?i){}", b.as_text())
            } else {
                b.as_text().to_owned()
            };
            Ok(c.pattern_for(&pattern, a.as_text())?.is_match(a.as_text()) == wanted)
        }))
    };
    let like = |ignore_case: bool, wanted: bool| -> Option<Test> {
        Some(Box::new(move |a, b, c| {
            Ok(c.like(a.as_text(), b.as_text(), Some('\\'), ignore_case)? == wanted)
        }))
    };
    match op {
        B::PGRegexMatch => regex(false, true),
        B::PGRegexIMatch => regex(true, true),
        B::PGRegexNotMatch => regex(false, false),
        B::PGRegexNotIMatch => regex(true, false),
        B::PGLikeMatch => like(false, true),
        B::PGILikeMatch => like(true, true),
        B::PGNotLikeMatch => like(false, false),
        B::PGNotILikeMatch => like(true, false),
        B::PGOverlap => Some(Box::new(|a, b, _| {
            let those: HashSet<&Value> = b.items().iter().collect();
            Ok(a.items().iter().any(|i| those.contains(i)))
        })),
        B::AtArrow => Some(Box::new(|a, b, _| Ok(contains(a, b)))),
        B::ArrowAt => Some(Box::new(|a, b, _| Ok(contains(b, a)))),
        _ => None,
    }
}

/// Whether one array has every item of another.
fn contains(all: &Value, some: &Value) -> bool {
    let all: HashSet<&Value> = all.items().iter().collect();
    some.items().iter().all(|i| all.contains(i))
}

fn tested(test: Test, a: Eval, b: Eval) -> Expr {
    Expr::new(ValueType::BOOL, move |env| {
        Ok(match (a(env)?, b(env)?) {
            (Value::Null, _) | (_, Value::Null) => Value::Null,
            (a, b) => Value::Bool(test(&a, &b, env.context)?),
        })
    })
}

impl Compiler<'_> {
    pub(super) fn unary(&self, op: sql::UnaryOperator, inner: Expr) -> Result<Expr, Error> {
        match op {
            sql::UnaryOperator::Not => Ok(super::expr::negate(self.boolean(inner)?.eval, true)),
            sql::UnaryOperator::Plus => Ok(inner),
            sql::UnaryOperator::Minus => {
                let (ty, pg) = (inner.ty.clone(), inner.ty.pg.clone());
                if !ty.is_number() && !ty.is_integer() && pg != Type::INTERVAL {
                    return Err(Error::new(
                        ErrorKind::UndefinedFunction,
                        format!("operator does not exist: - {}", sql_type_name(&pg)),
                    ));
                }
                let eval = inner.eval;
                Ok(Expr::new(ty, move |env| {
                    Ok(match eval(env)? {
                        Value::Int(n) => Value::Int(in_range(&pg, n.checked_neg())?),
                        Value::Float(f) => Value::Float(-f),
                        Value::Span(s) => {
                            Value::Span(s.checked_neg().ok_or_else(interval_out_of_range)?)
                        }
                        _ => Value::Null,
                    })
                }))
            }
            other => Err(unsupported(other)),
        }
    }

    pub(super) fn binary(
        &self,
        left: &sql::Expr,
        op: &sql::BinaryOperator,
        right: &sql::Expr,
        scope: &Scope<'_>,
    ) -> Result<Expr, Error> {
        self.operation(self.expr(left, scope)?, op, self.expr(right, scope)?)
    }

    /// An operator between two expressions.
    pub(super) fn operation(
        &self,
        a: Expr,
        op: &sql::BinaryOperator,
        b: Expr,
    ) -> Result<Expr, Error> {
        use sql::BinaryOperator as B;
        let op = plain(op);
        match op {
            B::And => {
                return Ok(Expr::new(
                    ValueType::BOOL,
                    all_of(self.boolean(a)?.eval, self.boolean(b)?.eval),
                ));
            }
            B::Or => {
                let (a, b) = (self.boolean(a)?.eval, self.boolean(b)?.eval);
                return Ok(Expr::new(ValueType::BOOL, move |env| {
                    Ok(match a(env)? {
                        Value::Bool(true) => Value::Bool(true),
                        first => match (first, b(env)?) {
                            (_, Value::Bool(true)) => Value::Bool(true),
                            (Value::Bool(false), Value::Bool(false)) => Value::Bool(false),
                            _ => Value::Null,
                        },
                    })
                }));
            }
            B::StringConcat => return self.concatenate(a, b),
            B::Plus
            | B::Minus
            | B::Multiply
            | B::Divide
            | B::Modulo
            | B::BitwiseAnd
            | B::BitwiseOr => {
                return self.arithmetic(a, &op, b);
            }
            _ => {}
        }
        let test = test(&op).ok_or_else(|| missing(&op.to_string(), &a.ty, &b.ty))?;
        let (a, b) =
            if comparison(&op).is_some() || matches!(op, B::PGOverlap | B::AtArrow | B::ArrowAt) {
                self.alike(a, b)?
            } else {
                // Patterns match texts; PostgreSQL has no such operator for anything else.
                let is_text = |e: &Expr| e.ty.is_text();
                if !is_text(&a) || !is_text(&b) {
                    return Err(missing(&op.to_string(), &a.ty, &b.ty));
                }
                (
                    self.cast(a, ValueType::TEXT)?,
                    self.cast(b, ValueType::TEXT)?,
                )
            };
        Ok(tested(test, a.eval, b.eval))
    }

    fn concatenate(&self, a: Expr, b: Expr) -> Result<Expr, Error> {
        if let (Some(item), true) = (
            a.ty.item().or_else(|| b.ty.item()),
            a.ty.item().is_some() || b.ty.item().is_some(),
        ) {
            let (is_array_a, is_array_b) = (a.ty.item().is_some(), b.ty.item().is_some());
            let ty = item.array();
            let settle = |e: Expr, is_array: bool| {
                self.cast(e, if is_array { ty.clone() } else { item.clone() })
            };
            let (a, b) = (settle(a, is_array_a)?.eval, settle(b, is_array_b)?.eval);
            return Ok(Expr::new(ty, move |env| {
                let (a, b) = (a(env)?, b(env)?);
                let spread = |v: Value, is_array: bool| {
                    if is_array {
                        v.items().to_vec()
                    } else {
                        vec![v]
                    }
                };
                Ok(match (&a, &b) {
                    (Value::Null, other) | (other, Value::Null) if is_array_a && is_array_b => {
                        other.clone()
                    }
                    _ => env.context.made(Value::array(
                        spread(a, is_array_a)
                            .into_iter()
                            .chain(spread(b, is_array_b)),
                    ))?,
                })
            }));
        }
        let (from_a, from_b) = (a.ty.clone(), b.ty.clone());
        if !from_a.is_text() && !from_b.is_text() {
            return Err(missing("||", &from_a, &from_b));
        }
        let (a, b) = (a.eval, b.eval);
        Ok(Expr::new(ValueType::TEXT, move |env| {
            Ok(match (a(env)?, b(env)?) {
                (Value::Null, _) | (_, Value::Null) => Value::Null,
                (a, b) => {
                    let snapshot = &env.context.snapshot;
                    let shown = |v: &Value, ty: &ValueType| match v {
                        Value::Bool(b) => b.to_string(),
                        v => show(v, ty, &snapshot.directory),
                    };
                    env.context
                        .made(Value::text(shown(&a, &from_a) + &shown(&b, &from_b)))?
                }
            })
        }))
    }

    fn arithmetic(&self, a: Expr, op: &sql::BinaryOperator, b: Expr) -> Result<Expr, Error> {
        use sql::BinaryOperator as B;
        let is_time = |e: &Expr| matches!(e.ty.pg, Type::TIMESTAMPTZ | Type::TIMESTAMP);
        // PostgreSQL has no arithmetic on the numbers of objects.
        let is_object = |e: &Expr| e.ty.is_integer() && !e.ty.is_number();
        if is_object(&a) || is_object(&b) {
            return Err(missing(&op.to_string(), &a.ty, &b.ty));
        }
        let ty = match (is_time(&a), is_time(&b), op) {
            (true, true, B::Minus) => ValueType::of(Type::INTERVAL),
            (true, false, B::Plus | B::Minus) => a.ty.clone(),
            _ if a.ty.pg == Type::INTERVAL && b.ty.pg == Type::INTERVAL => a.ty.clone(),
            _ => match super::casts::common(&a.ty, &b.ty) {
                Some(ty) if ty.is_number() || ty.is_integer() => ty,
                Some(ty) if ty.pg == Type::UNKNOWN => ValueType::INT4,
                _ => return Err(missing(&op.to_string(), &a.ty, &b.ty)),
            },
        };
        let settle = |e: Expr| {
            if e.ty.pg == Type::UNKNOWN {
                self.cast(e, ty.clone())
            } else {
                Ok(e)
            }
        };
        let (a, b, op) = (settle(a)?.eval, settle(b)?.eval, op.clone());
        let by_zero = || Error::new(ErrorKind::DivisionByZero, "division by zero");
        let (pg, is_integer) = (ty.pg.clone(), ty.is_integer());
        let moved = move |a: i64, b: i64, is_minus: bool| {
            if is_minus {
                a.checked_sub(b)
            } else {
                a.checked_add(b)
            }
        };
        Ok(Expr::new(ty, move |env| {
            Ok(match (a(env)?, b(env)?) {
                (Value::Null, _) | (_, Value::Null) => Value::Null,
                (Value::Time(a), Value::Time(b)) => {
                    Value::Span(a.checked_sub(b).ok_or_else(interval_out_of_range)?)
                }
                (Value::Time(a), Value::Span(b)) => {
                    Value::Time(moved(a, b, op == B::Minus).ok_or_else(super::times::out_of_range)?)
                }
                (Value::Span(a), Value::Span(b)) => {
                    Value::Span(moved(a, b, op == B::Minus).ok_or_else(interval_out_of_range)?)
                }
                // NUMERIC is divided into fractions, whatever carries it.
                (Value::Int(a), Value::Int(b)) if is_integer || op != B::Divide => {
                    Value::Int(in_range(
                        &pg,
                        match op {
                            B::Plus => a.checked_add(b),
                            B::Minus => a.checked_sub(b),
                            B::Multiply => a.checked_mul(b),
                            B::Divide if b == 0 => return Err(by_zero()),
                            B::Modulo if b == 0 => return Err(by_zero()),
                            B::Divide => a.checked_div(b),
                            B::Modulo => a.checked_rem(b),
                            B::BitwiseAnd => Some(a & b),
                            _ => Some(a | b),
                        },
                    )?)
                }
                (a, b) => {
                    let float = |v: &Value| match v {
                        Value::Float(f) => Ok(*f),
                        Value::Int(n) => Ok(*n as f64),
                        _ => Err(unsupported(format_args!(
                            "arithmetic on {}",
                            sql_type_name(&pg)
                        ))),
                    };
                    let (a, b) = (float(&a)?, float(&b)?);
                    Value::Float(match op {
                        B::Plus => a + b,
                        B::Minus => a - b,
                        B::Multiply => a * b,
                        B::Divide | B::Modulo if b == 0.0 => return Err(by_zero()),
                        B::Divide => a / b,
                        _ => a % b,
                    })
                }
            })
        }))
    }

    /// `left op ANY (…)` and `left op ALL (…)`, over rows or an array.
    pub(super) fn quantified(
        &self,
        left: &sql::Expr,
        op: &sql::BinaryOperator,
        right: &sql::Expr,
        all: bool,
        scope: &Scope<'_>,
    ) -> Result<Expr, Error> {
        let op = plain(op);
        let left = self.expr(left, scope)?;
        let mut inner = right;
        while let sql::Expr::Nested(within) = inner {
            inner = within;
        }
        if let sql::Expr::Subquery(query) = inner {
            let plan = self.query(query, Some(scope))?;
            // One array is what is meant where rows of arrays are compared with what is none.
            let is_array = plan.columns.len() == 1
                && plan.columns[0].1.item().is_some()
                && left.ty.item().is_none();
            if !is_array {
                return self.any_of_rows(left, &op, plan, all);
            }
        }
        let right = self.expr(inner, scope)?;
        let right = if right.ty.pg == Type::UNKNOWN {
            self.cast(right, left.ty.array())?
        } else {
            right
        };
        let item = right.ty.item().ok_or_else(|| {
            Error::new(
                ErrorKind::DatatypeMismatch,
                "op ANY/ALL (array) requires array on right side",
            )
        })?;
        if left.ty.pg != Type::UNKNOWN && super::casts::common(&left.ty, &item).is_none() {
            return Err(missing(&op.to_string(), &left.ty, &item));
        }
        let left = if left.ty.pg == Type::UNKNOWN {
            self.cast(left, item)?
        } else {
            left
        };
        let test = test(&op).ok_or_else(|| unsupported(&op))?;
        let (left, right) = (left.eval, right.eval);
        Ok(Expr::new(ValueType::BOOL, move |env| {
            let (left, right) = (left(env)?, right(env)?);
            if right.is_null() {
                return Ok(Value::Null);
            }
            quantify(&left, right.items().iter(), &test, all, env)
        }))
    }

    pub(super) fn any_of_rows(
        &self,
        left: Expr,
        op: &sql::BinaryOperator,
        plan: Plan,
        all: bool,
    ) -> Result<Expr, Error> {
        let is_row = left.ty.pg == Type::RECORD;
        let item = match plan.columns.as_slice() {
            [(_, ty)] if !is_row => ty.clone(),
            _ if is_row => left.ty.clone(),
            _ => {
                return Err(Error::new(
                    ErrorKind::Syntax,
                    "subquery has too many columns",
                ));
            }
        };
        if !is_row && left.ty.pg != Type::UNKNOWN && super::casts::common(&left.ty, &item).is_none()
        {
            return Err(missing(&op.to_string(), &left.ty, &item));
        }
        let left = if left.ty.pg == Type::UNKNOWN {
            self.cast(left, item)?
        } else {
            left
        };
        let test = test(op).ok_or_else(|| unsupported(op))?;
        let left = left.eval;
        Ok(Expr::new(ValueType::BOOL, move |env| {
            let left = left(env)?;
            let rows = plan.passing(env)?;
            let values: Vec<Value> = rows
                .into_iter()
                .filter_map(|row| {
                    if is_row {
                        Some(Value::Record(row.into()))
                    } else {
                        row.into_iter().next()
                    }
                })
                .collect();
            quantify(&left, values.iter(), &test, all, env)
        }))
    }
}

fn interval_out_of_range() -> Error {
    Error::new(ErrorKind::DateTimeOverflow, "interval out of range")
}

/// A result, if its type has room for it.
pub(super) fn in_range(ty: &Type, n: Option<i64>) -> Result<i64, Error> {
    let (fits, name): (fn(i64) -> bool, _) = match *ty {
        Type::INT2 => (|n| i16::try_from(n).is_ok(), "smallint"),
        Type::INT4 => (|n| i32::try_from(n).is_ok(), "integer"),
        Type::OID => (|n| u32::try_from(n).is_ok(), "OID"),
        _ => (|_| true, "bigint"),
    };
    n.filter(|n| fits(*n))
        .ok_or_else(|| Error::new(ErrorKind::OutOfRange, format!("{name} out of range")))
}

fn quantify<'v>(
    left: &Value,
    items: impl Iterator<Item = &'v Value>,
    test: &Test,
    all: bool,
    env: &Env<'_>,
) -> Result<Value, Error> {
    let mut unknown = false;
    for item in items {
        if left.is_null() || item.is_null() {
            unknown = true;
        } else if test(left, item, env.context)? != all {
            return Ok(Value::Bool(!all));
        }
    }
    Ok(if unknown {
        Value::Null
    } else {
        Value::Bool(all)
    })
}
