//! Expressions with a syntax of their own: LIKE, CASE, arrays, subscripts and fields.

use datafusion::sql::sqlparser::ast as sql;
use starkeep_error::{Error, ErrorKind};

use super::Compiler;
use crate::expr::{Eval, Expr, Held, all_of, negate, unsupported};
use crate::names::folded;
use crate::scope::Scope;
use crate::types::sql_type_name;
use crate::value::{Value, ValueType};

impl<'s> Compiler<'s> {
    pub(super) fn like(
        &self,
        expr: &sql::Expr,
        pattern: &sql::Expr,
        escape: Option<&sql::ValueWithSpan>,
        ignore_case: bool,
        negated: bool,
        scope: &Scope<'_>,
    ) -> Result<Expr, Error> {
        let text = self.text(self.expr(expr, scope)?)?.eval;
        let pattern = self.text(self.expr(pattern, scope)?)?.eval;
        let escape = match escape {
            Some(e) => e
                .value
                .clone()
                .into_string()
                .unwrap_or_default()
                .chars()
                .next(),
            None => Some('\\'),
        };
        let found = Expr::new(ValueType::BOOL, move |env| {
            Ok(match (text(env)?, pattern(env)?) {
                (Value::Text(t), Value::Text(p)) => {
                    Value::Bool(env.context.like(&t, &p, escape, ignore_case)?)
                }
                _ => Value::Null,
            })
        });
        Ok(negate(found.eval, negated))
    }

    pub(super) fn case(
        &self,
        operand: Option<&sql::Expr>,
        conditions: &[sql::CaseWhen],
        otherwise: Option<&sql::Expr>,
        scope: &Scope<'_>,
    ) -> Result<Expr, Error> {
        let mut tests = Vec::new();
        let mut results = Vec::new();
        let held = operand
            .map(|o| self.expr(o, scope))
            .transpose()?
            .map(Held::new);
        for when in conditions {
            let test = match &held {
                Some(held) => self.operation(
                    held.read(),
                    &sql::BinaryOperator::Eq,
                    self.expr(&when.condition, scope)?,
                )?,
                None => self.boolean(self.expr(&when.condition, scope)?)?,
            };
            tests.push(test.eval);
            results.push(self.expr(&when.result, scope)?);
        }
        // ELSE comes first where the type is chosen.
        let last = match otherwise {
            Some(otherwise) => self.expr(otherwise, scope)?,
            None => Expr::constant(ValueType::UNKNOWN, Value::Null),
        };
        results.insert(0, last);
        let (ty, mut results) = self.unify(results)?;
        let last = results.remove(0);
        let fill = held.map(Held::fill);
        Ok(Expr::new(ty, move |env| {
            if let Some(fill) = &fill {
                fill(env)?;
            }
            for (test, result) in tests.iter().zip(&results) {
                if test(env)?.is_true() {
                    return result(env);
                }
            }
            last(env)
        }))
    }

    pub fn array(&self, items: &[sql::Expr], scope: &Scope<'_>) -> Result<Expr, Error> {
        let items = items
            .iter()
            .map(|i| self.expr(i, scope))
            .collect::<Result<Vec<_>, _>>()?;
        let (ty, items) = self.unify(items)?;
        Ok(Expr::new(ty.array(), move |env| {
            env.context.made(Value::array(
                items
                    .iter()
                    .map(|i| i(env))
                    .collect::<Result<Vec<_>, _>>()?,
            ))
        }))
    }

    pub(super) fn access(
        &self,
        inner: Expr,
        access: &sql::AccessExpr,
        scope: &Scope<'_>,
    ) -> Result<Expr, Error> {
        match access {
            sql::AccessExpr::Dot(sql::Expr::Identifier(field)) => {
                let name = folded(field);
                let fields = inner.ty.fields.clone().unwrap_or_default();
                let Some(at) = fields.iter().position(|(n, _)| *n == name) else {
                    let message = format!(
                        "column \"{name}\" not found in data type {}",
                        sql_type_name(&inner.ty.pg)
                    );
                    return Err(Error::new(ErrorKind::UndefinedColumn, message));
                };
                let record = inner.eval;
                Ok(Expr::new(fields[at].1.clone(), move |env| {
                    Ok(record(env)?.items().get(at).cloned().unwrap_or(Value::Null))
                }))
            }
            sql::AccessExpr::Subscript(sql::Subscript::Index { index }) => {
                let index = self.expr(index, scope)?.eval;
                let item = inner.ty.item().ok_or_else(|| {
                    let message = format!(
                        "cannot subscript type {} because it does not support subscripting",
                        sql_type_name(&inner.ty.pg)
                    );
                    Error::new(ErrorKind::DatatypeMismatch, message)
                })?;
                let array = inner.eval;
                Ok(Expr::new(item, move |env| {
                    let (array, index) = (array(env)?, index(env)?);
                    let (Value::Array(lower, items), Some(index)) = (&array, index.as_int()) else {
                        return Ok(Value::Null);
                    };
                    let at = index
                        .checked_sub(*lower)
                        .and_then(|at| usize::try_from(at).ok());
                    Ok(at
                        .and_then(|at| items.get(at))
                        .cloned()
                        .unwrap_or(Value::Null))
                }))
            }
            other => Err(unsupported(format_args!("the access {other}"))),
        }
    }
}

impl Compiler<'_> {
    /// `x BETWEEN SYMMETRIC a AND b`: between the two, whichever is the lower.
    pub(super) fn between_either(
        &self,
        [value, first, second]: [&sql::Expr; 3],
        scope: &Scope<'_>,
    ) -> Result<Eval, Error> {
        let held = |expr: &sql::Expr| Ok(Held::new(self.expr(expr, scope)?));
        let (value, first, second) = (held(value)?, held(first)?, held(second)?);
        let part = |op, bound: &Held| Ok(self.operation(value.read(), &op, bound.read())?.eval);
        let within = |low, high| -> Result<Eval, Error> {
            let above = part(sql::BinaryOperator::GtEq, low)?;
            Ok(all_of(above, part(sql::BinaryOperator::LtEq, high)?))
        };
        let (up, down) = (within(&first, &second)?, within(&second, &first)?);
        // Either, over three values.
        let neither = all_of(negate(up, true).eval, negate(down, true).eval);
        let either = negate(neither, true).eval;
        let fills = [value.fill(), first.fill(), second.fill()];
        Ok(Box::new(move |env| {
            fills.iter().try_for_each(|fill| fill(env))?;
            either(env)
        }))
    }
}
