//! How the rows of a SELECT are made: joined, grouped, filtered by HAVING, numbered by windows,
//! answered, sorted.

use std::collections::{HashMap, HashSet};

use super::aggregate::sort_by_keys;
use super::context::ROWS_MAX;
use super::expr::{Env, Eval};
use super::scope::Gathered;
use super::value::{Row, Value};
use starkeep_error::{Error, ErrorKind};

/// What a row is sorted by: a column of the answer, or something else.
pub(super) enum Order {
    Output(usize),
    Input(Eval),
}

pub(super) struct OrderKey {
    pub by: Order,
    pub descending: bool,
    pub nulls_first: bool,
}

impl Order {
    /// Its value for a row, whose answer is there already.
    fn value(&self, answer: &[Value], env: &Env<'_>) -> Result<Value, Error> {
        match self {
            Self::Output(at) => Ok(answer[*at].clone()),
            Self::Input(eval) => eval(env),
        }
    }
}

/// A row that stands for its group, what was aggregated over that, and the current values of its
/// sets.
type Group = (Row, Vec<Value>, Vec<Value>);

/// A SELECT's stages, in the order in which SQL has them.
pub(super) struct Stages {
    pub from: super::join::From,
    pub width: usize,
    pub grouped: bool,
    pub group_keys: Vec<Eval>,
    pub having: Option<Eval>,
    pub gathered: Gathered,
    pub outputs: Vec<Eval>,
    pub keys: Vec<OrderKey>,
    /// DISTINCT over everything if there is nothing in it.
    pub distinct: Option<Vec<Order>>,
    pub is_plain: bool,
}

impl Stages {
    pub fn run(&self, outer: &Env<'_>) -> Result<Vec<Row>, Error> {
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
                if having(&Env {
                    aggregates: &aggregates,
                    sets: &sets,
                    ..base.row(&row)
                })?
                .is_true()
                {
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
            let env = Env {
                aggregates,
                windows: &of_row,
                sets,
                ..base.row(row)
            };
            if self.is_plain || self.grouped {
                self.emit(&env, &mut answer, &mut seen)?;
                continue;
            }
            let sets = self
                .gathered
                .sets
                .iter()
                .map(|s| s(&env))
                .collect::<Result<Vec<_>, _>>()?;
            let longest = sets.iter().map(|s| s.items().len()).max().unwrap_or(0);
            for n in 0..longest {
                let current: Vec<Value> = sets
                    .iter()
                    .map(|s| s.items().get(n).cloned().unwrap_or(Value::Null))
                    .collect();
                self.emit(
                    &Env {
                        sets: &current,
                        ..env
                    },
                    &mut answer,
                    &mut seen,
                )?;
            }
        }
        let order: Vec<_> = self
            .keys
            .iter()
            .map(|k| (k.descending, k.nulls_first))
            .collect();
        if !order.is_empty() {
            sort_by_keys(&mut answer, &order);
        }
        let mut rows: Vec<Row> = answer.into_iter().map(|(_, row)| row).collect();
        if let Some([_, ..]) = self.distinct.as_deref() {
            // DISTINCT ON keeps the first of each in the order; what it goes by stands after the
            // row.
            let width = self.outputs.len();
            let mut first = HashSet::new();
            rows.retain(|row| first.insert(row[width..].to_vec()));
            rows.iter_mut().for_each(|row| row.truncate(width));
        }
        // What the answer was made of is gone.
        outer
            .context
            .let_go(outer.context.held().saturating_sub(joined));
        Ok(rows)
    }

    fn emit(
        &self,
        env: &Env<'_>,
        answer: &mut Vec<(Vec<Value>, Row)>,
        seen: &mut HashSet<Row>,
    ) -> Result<(), Error> {
        env.context.step()?;
        let mut row = Row::with_capacity(self.outputs.len());
        for output in &self.outputs {
            let value = output(env)?;
            env.context.hold(value.size())?;
            row.push(value);
        }
        let keys = self
            .keys
            .iter()
            .map(|k| k.by.value(&row, env))
            .collect::<Result<Vec<_>, _>>()?;
        match self.distinct.as_deref() {
            Some([]) if !seen.insert(row.clone()) => return Ok(()),
            Some(on @ [_, ..]) => {
                let values = on
                    .iter()
                    .map(|by| by.value(&row, env))
                    .collect::<Result<Vec<_>, _>>()?;
                row.extend(values);
            }
            _ => {}
        }
        if answer.len() >= ROWS_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "a query of the catalogs holds too many rows",
            ));
        }
        answer.push((keys, row));
        Ok(())
    }

    fn group(&self, rows: &[Row], base: &Env<'_>) -> Result<Vec<Group>, Error> {
        let mut places: HashMap<Vec<Value>, usize> = HashMap::new();
        let mut groups: Vec<(Vec<&Row>, Vec<Value>)> = Vec::new();
        for row in rows {
            let env = base.row(row);
            let sets = self
                .gathered
                .sets
                .iter()
                .map(|s| s(&env))
                .collect::<Result<Vec<_>, _>>()?;
            // A row counts once for each row of its sets; without any, once.
            let times = if sets.is_empty() {
                1
            } else {
                sets.iter().map(|s| s.items().len()).max().unwrap_or(0)
            };
            for n in 0..times {
                let current: Vec<Value> = sets
                    .iter()
                    .map(|s| s.items().get(n).cloned().unwrap_or(Value::Null))
                    .collect();
                let env = Env {
                    sets: &current,
                    ..env
                };
                let key = self
                    .group_keys
                    .iter()
                    .map(|k| k(&env))
                    .collect::<Result<Vec<_>, _>>()?;
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
            let aggregates = self
                .gathered
                .aggregates
                .iter()
                .map(|a| a.of(&members, base))
                .collect::<Result<Vec<_>, _>>()?;
            let row = members
                .first()
                .map_or_else(|| vec![Value::Null; self.width], |r| (*r).clone());
            Ok((row, aggregates, sets))
        };
        groups.into_iter().map(group).collect()
    }
}
