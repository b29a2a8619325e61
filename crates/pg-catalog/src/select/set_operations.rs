//! VALUES, UNION, INTERSECT and EXCEPT.

use std::collections::{HashMap, HashSet};

use datafusion::sql::sqlparser::ast as sql;
use starkeep_error::{Error, ErrorKind};

use crate::compile::Compiler;
use crate::expr::{Expr, unsupported};
use crate::expr::{Plan, Run};
use crate::refused;
use crate::scope::Scope;
use crate::value::Row;

impl Compiler<'_> {
    pub(super) fn values(
        &self,
        values: &sql::Values,
        outer: Option<&Scope<'_>>,
    ) -> Result<Plan, Error> {
        let sql::Values {
            explicit_row,
            value_keyword,
            rows,
        } = values;
        refused::unless(!explicit_row && !value_keyword, "VALUES ROW and VALUE")?;
        let scope = Scope::new(outer);
        let width = rows.first().map_or(0, |r| r.content.len());
        let mut columns: Vec<Vec<Expr>> = (0..width).map(|_| Vec::new()).collect();
        for row in rows {
            if row.content.len() != width {
                return Err(Error::new(
                    ErrorKind::Syntax,
                    "VALUES lists must all be the same length",
                ));
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
        let height = rows.len();
        let columns = types
            .into_iter()
            .enumerate()
            .map(|(i, ty)| (format!("column{}", i + 1), ty))
            .collect();
        let run: Run = Box::new(move |env| {
            let env = env.within();
            (0..height)
                .map(|i| evals.iter().map(|column| column[i](&env)).collect())
                .collect()
        });
        Ok(Plan { columns, run })
    }

    pub(super) fn set_operation(
        &self,
        left: &sql::SetExpr,
        op: sql::SetOperator,
        quantifier: sql::SetQuantifier,
        right: &sql::SetExpr,
        outer: Option<&Scope<'_>>,
    ) -> Result<Plan, Error> {
        let all = is_all(quantifier)?;
        refused::unless(op != sql::SetOperator::Minus, "MINUS")?;
        let (left, right) = (self.body(left, outer)?, self.body(right, outer)?);
        if left.columns.len() != right.columns.len() {
            return Err(uneven());
        }
        let mut columns = Vec::new();
        let mut casts = Vec::new();
        for ((name, a), (_, b)) in left.columns.iter().zip(&right.columns) {
            let ty = crate::casts::common(a, b).ok_or_else(|| {
                let message = format!(
                    "UNION types {} and {} cannot be matched",
                    a.pg.name(),
                    b.pg.name()
                );
                Error::new(ErrorKind::DatatypeMismatch, message)
            })?;
            casts.push([(a.clone(), ty.clone()), (b.clone(), ty.clone())]);
            columns.push((name.clone(), ty));
        }
        let run: Run = Box::new(move |env| {
            let settle = |rows: Vec<Row>, side: usize| -> Result<Vec<Row>, Error> {
                let cast = |row: Row| {
                    let values = row.into_iter().zip(&casts).map(|(value, cast)| {
                        let (from, to) = &cast[side];
                        if from == to {
                            Ok(value)
                        } else {
                            crate::casts::convert(value, from, to, env.context)
                        }
                    });
                    values.collect()
                };
                rows.into_iter().map(cast).collect()
            };
            let (mut left, right) = (settle((left.run)(env)?, 0)?, settle((right.run)(env)?, 1)?);
            if op == sql::SetOperator::Union {
                left.extend(right);
            } else {
                // How often each row is on the other side: with ALL, one there stands for one here.
                let mut there: HashMap<Row, usize> = HashMap::new();
                for row in right {
                    *there.entry(row).or_default() += 1;
                }
                let is_intersection = op == sql::SetOperator::Intersect;
                left.retain(|row| {
                    let count = there.get_mut(row).filter(|n| **n > 0);
                    let found = count.is_some();
                    if let (true, Some(count)) = (all, count) {
                        *count -= 1;
                    }
                    found == is_intersection
                });
            }
            if !all {
                let mut seen = HashSet::new();
                left.retain(|row| seen.insert(row.clone()));
            }
            Ok(left)
        });
        Ok(Plan { columns, run })
    }
}

/// Whether a set operation keeps what is there twice.
pub(super) fn is_all(quantifier: sql::SetQuantifier) -> Result<bool, Error> {
    match quantifier {
        sql::SetQuantifier::All => Ok(true),
        sql::SetQuantifier::Distinct | sql::SetQuantifier::None => Ok(false),
        by_name => Err(unsupported(by_name)),
    }
}

pub(super) fn uneven() -> Error {
    Error::new(
        ErrorKind::Syntax,
        "each UNION query must have the same number of columns",
    )
}
