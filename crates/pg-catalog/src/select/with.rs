//! Common table expressions, recursive ones too.

use std::collections::HashSet;
use std::rc::Rc;

use datafusion::sql::sqlparser::ast as sql;
use starkeep_error::{Error, ErrorKind};

use super::set_operations::{is_all, uneven};
use crate::compile::Compiler;
use crate::context::ROWS_MAX;
use crate::expr::Env;
use crate::expr::Run;
use crate::names::folded;
use crate::refused;
use crate::scope::{Cte, Scope};
use crate::types::sql_type_name;
use crate::value::{Row, ValueType};

impl Compiler<'_> {
    pub(super) fn cte(
        &self,
        cte: &sql::Cte,
        recursive: bool,
        outer: Option<&Scope<'_>>,
    ) -> Result<(usize, Run), Error> {
        let sql::Cte {
            alias,
            query,
            from,
            materialized: _,
            closing_paren_token: _,
        } = cte;
        refused::unless(from.is_none(), "FROM after a WITH query")?;
        let name = folded(&alias.name);
        let slot = self.slots.get();
        self.slots.set(slot + 1);
        let renamed = |mut columns: Vec<(String, ValueType)>| {
            crate::from_clause::check_aliases(&name, columns.len(), alias)?;
            for (column, alias) in columns.iter_mut().zip(&alias.columns) {
                column.0 = folded(&alias.name);
            }
            Ok::<_, Error>(columns)
        };
        // RECURSIVE allows to name oneself; it does not ask for it.
        if let (
            true,
            sql::SetExpr::SetOperation {
                op: sql::SetOperator::Union,
                set_quantifier,
                left,
                right,
            },
        ) = (recursive, &*query.body)
            && crate::answer::names(right, &name)
        {
            refused::in_recursion(query)?;
            let all = is_all(*set_quantifier)?;
            let base = self.body(left, outer)?;
            let columns = renamed(base.columns)?;
            self.ctes.borrow_mut().push(Cte {
                name: name.clone(),
                columns: columns.clone(),
                slot,
            });
            let step = self.body(right, outer)?;
            if step.columns.len() != columns.len() {
                return Err(uneven());
            }
            let mut casts = Vec::new();
            for (i, ((_, base), (_, next))) in columns.iter().zip(&step.columns).enumerate() {
                if crate::casts::common(base, next).as_ref() != Some(base) {
                    let (base, next) = (sql_type_name(&base.pg), sql_type_name(&next.pg));
                    let message = format!(
                        "recursive query \"{name}\" column {} has type {base} in non-recursive term but type {next} overall",
                        i + 1
                    );
                    return Err(Error::new(ErrorKind::DatatypeMismatch, message));
                }
                casts.push((next.clone(), base.clone()));
            }
            let run: Run = Box::new(move |env| {
                let mut seen = HashSet::new();
                let mut fresh: Vec<Row> = (base.run)(env)?;
                let mut rows = Vec::new();
                loop {
                    if !all {
                        fresh.retain(|row| seen.insert(row.clone()));
                    }
                    if fresh.is_empty() {
                        return Ok(rows);
                    }
                    if rows.len() + fresh.len() > ROWS_MAX {
                        return Err(Error::new(
                            ErrorKind::LimitExceeded,
                            "a recursive query of the catalogs does not end",
                        ));
                    }
                    env.context.step()?;
                    env.context
                        .hold(fresh.iter().map(|row| size_of_val(row.as_slice())).sum())?;
                    rows.extend(fresh.iter().cloned());
                    put_slot(env, slot, fresh);
                    fresh = (step.run)(env)?;
                    for (value, (from, to)) in
                        fresh.iter_mut().flat_map(|row| row.iter_mut().zip(&casts))
                    {
                        if from != to {
                            *value = crate::casts::convert(value.clone(), from, to, env.context)?;
                        }
                    }
                }
            });
            return Ok((slot, run));
        }
        let plan = self.query(query, outer)?;
        let columns = renamed(plan.columns)?;
        self.ctes.borrow_mut().push(Cte {
            name,
            columns,
            slot,
        });
        Ok((slot, plan.run))
    }
}

pub(super) fn put_slot(env: &Env<'_>, slot: usize, rows: Vec<Row>) {
    let mut slots = env.context.slots.borrow_mut();
    if slots.len() <= slot {
        slots.resize(slot + 1, Rc::default());
    }
    slots[slot] = Rc::new(rows);
}
