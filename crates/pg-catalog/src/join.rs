//! Joins of catalog queries: relations one after the other, each by an index on what it is joined
//! by.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use super::context::{Index, ROWS_MAX};
use super::expr::Run;
use super::expr::{Env, Eval, Expr};
use super::value::{Relation, Row, Value};
use starkeep_error::{Error, ErrorKind};

/// Where rows come from.
pub(super) enum Source {
    Relation(Arc<Relation>),
    /// A WITH query.
    Slot(usize),
    /// A subquery, a function, or what brackets hold; looked at anew for each row on the left if
    /// `lateral`.
    Rows {
        run: Run,
        lateral: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Inner,
    Left,
    Right,
    Full,
}

/// `column = value of the rows before`: how matching rows are found without looking at all.
struct Probe {
    column: usize,
    value: Eval,
}

/// One relation as the statement has it.
pub(super) struct Item {
    pub source: Source,
    pub kind: Kind,
    pub start: usize,
    pub width: usize,
    /// What ON says.
    pub on: Vec<Condition>,
}

/// One relation, at its turn. Rows are as wide as everything after FROM; each step fills in its
/// part.
struct Step {
    source: Source,
    kind: Kind,
    start: usize,
    width: usize,
    probe: Option<Probe>,
    /// What must hold for a pair.
    conditions: Vec<Eval>,
    /// What must hold of the rows that come out.
    filters: Vec<Eval>,
}

/// Everything after FROM, with the conditions of WHERE put where they can first be told.
pub(super) struct From {
    steps: Vec<Step>,
    width: usize,
    /// Conditions that wait for the end.
    filters: Vec<Eval>,
}

/// A condition, taken apart.
pub(super) struct Condition {
    pub eval: Eval,
    pub used: BTreeSet<usize>,
    /// Both sides of an equality, and the columns that each names.
    pub sides: Option<[(Expr, BTreeSet<usize>); 2]>,
}

impl Item {
    fn is_lateral(&self) -> bool {
        matches!(self.source, Source::Rows { lateral: true, .. })
    }

    /// The side of an equality that is a column of this item, if the other one can be told from
    /// what is placed.
    fn probe_side(&self, condition: &Condition, placed: &BTreeSet<usize>) -> Option<usize> {
        if self.is_lateral() {
            return None;
        }
        let own = self.start..self.start + self.width;
        let sides = condition.sides.as_ref()?;
        (0..2).find(|i| {
            sides[*i].0.column.is_some_and(|at| own.contains(&at))
                && sides[1 - *i].1.iter().all(|at| placed.contains(at))
        })
    }

    /// How many values, in a sample of rows, the column has that an equality would look into.
    fn told_apart(&self, condition: &Condition, placed: &BTreeSet<usize>) -> usize {
        const SAMPLE: usize = 64;
        let Some(side) = self.probe_side(condition, placed) else {
            return 0;
        };
        let column = condition
            .sides
            .as_ref()
            .and_then(|sides| sides[side].0.column)
            .map(|at| at - self.start);
        let (Source::Relation(relation), Some(column)) = (&self.source, column) else {
            return 0;
        };
        let step = relation.rows.len().div_ceil(SAMPLE).max(1);
        relation
            .rows
            .iter()
            .step_by(step)
            .map(|row| &row[column])
            .collect::<HashSet<_>>()
            .len()
    }

    /// About how many rows there are to look at.
    fn size(&self) -> usize {
        match &self.source {
            Source::Relation(relation) => relation.rows.len(),
            _ => 100,
        }
    }
}

/// Puts the items into an order, and the conditions where they can first be told. Inner joins may
/// come in any order: the next is the one that an equality finds rows of, else the smallest. From
/// the first outer join on the order is the statement's.
pub(super) fn arrange(items: Vec<Item>, wheres: Vec<Condition>, width: usize) -> From {
    let keeps_order = items
        .iter()
        .any(|i| matches!(i.kind, Kind::Right | Kind::Full));
    let inner = if keeps_order {
        0
    } else {
        items.iter().take_while(|i| i.kind == Kind::Inner).count()
    };
    let mut waiting: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    // Conditions of inner joins are like those of WHERE, but WHERE must wait while rows may still
    // be lost or made up.
    let mut free: Vec<Condition> = Vec::new();
    for item in waiting.iter_mut().take(inner).flatten() {
        free.append(&mut item.on);
    }
    let mut late = Vec::new();
    if keeps_order {
        late = wheres
    } else {
        free.extend(wheres)
    }
    let mut placed = BTreeSet::new();
    let mut steps = Vec::new();
    while let Some(next) = next_item(&waiting, inner, &free, &placed) {
        let Some(mut item) = waiting[next].take() else {
            break;
        };
        let own: BTreeSet<usize> = (item.start..item.start + item.width).collect();
        let after: BTreeSet<usize> = placed.union(&own).copied().collect();
        let (mut of_pairs, mut of_rows) = (std::mem::take(&mut item.on), Vec::new());
        let (ready, rest): (Vec<_>, Vec<_>) = free
            .into_iter()
            .partition(|c| c.used.iter().all(|at| after.contains(at)));
        free = rest;
        if item.kind == Kind::Inner {
            of_pairs.extend(ready)
        } else {
            of_rows = ready
        }
        // What tells most rows apart finds the fewest; where that is equal, a constant does rather
        // than another table's column.
        of_pairs
            .sort_by_cached_key(|c| (std::cmp::Reverse(item.told_apart(c, &placed)), c.used.len()));
        let mut probe = None;
        let mut conditions = Vec::new();
        for condition in of_pairs {
            let side = if probe.is_none() {
                item.probe_side(&condition, &placed)
            } else {
                None
            };
            if let (Some(side), Some([left, right])) = (side, condition.sides) {
                let (column, value) = if side == 0 {
                    (left, right)
                } else {
                    (right, left)
                };
                let at = column.0.column.unwrap_or(item.start);
                probe = Some(Probe {
                    column: at - item.start,
                    value: value.0.eval,
                });
            }
            conditions.push(condition.eval);
        }
        let filters = of_rows.into_iter().map(|c| c.eval).collect();
        steps.push(Step {
            source: item.source,
            kind: item.kind,
            start: item.start,
            width: item.width,
            probe,
            conditions,
            filters,
        });
        placed = after;
    }
    late.extend(free);
    From {
        steps,
        width,
        filters: late.into_iter().map(|c| c.eval).collect(),
    }
}

/// Which item comes next.
fn next_item(
    waiting: &[Option<Item>],
    inner: usize,
    free: &[Condition],
    placed: &BTreeSet<usize>,
) -> Option<usize> {
    let first = waiting.iter().position(Option::is_some)?;
    if first >= inner {
        return Some(first);
    }
    let candidates = waiting
        .iter()
        .enumerate()
        .take(inner)
        .filter_map(|(i, item)| Some((i, item.as_ref()?)));
    // What may name the items before it waits for all of them.
    let candidates = candidates.filter(|(i, item)| {
        *i == first || !item.is_lateral() && waiting[..*i].iter().flatten().all(|b| !b.is_lateral())
    });
    let cost = |item: &Item| {
        let found = free.iter().any(|c| item.probe_side(c, placed).is_some());
        let narrowed = free.iter().any(|c| {
            !c.used.is_empty()
                && c.used.iter().all(|at| {
                    (item.start..item.start + item.width).contains(at) || placed.contains(at)
                })
        });
        (!found, !narrowed, item.size())
    };
    candidates
        .min_by_key(|(i, item)| (cost(item), *i))
        .map(|(i, _)| i)
}

fn index(rows: &[Row], column: usize) -> Index {
    let mut index: HashMap<Value, Vec<usize>> = HashMap::new();
    for (i, row) in rows
        .iter()
        .enumerate()
        .filter(|(_, r)| !r[column].is_null())
    {
        index.entry(row[column].clone()).or_default().push(i);
    }
    Rc::new(index)
}

fn hold(filters: &[Eval], env: &Env<'_>) -> Result<bool, Error> {
    for filter in filters {
        if !filter(env)?.is_true() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Rows that are looked at: those of a relation are not copied.
enum Looked {
    Shared(Arc<Relation>),
    Slot(Rc<Vec<Row>>),
    Own(Vec<Row>),
}

impl Looked {
    fn rows(&self) -> &[Row] {
        match self {
            Self::Shared(relation) => &relation.rows,
            Self::Slot(rows) => rows,
            Self::Own(rows) => rows,
        }
    }
}

impl From {
    /// The rows for which everything holds.
    pub fn rows(&self, env: &Env<'_>) -> Result<Vec<Row>, Error> {
        let mut rows = vec![vec![Value::Null; self.width]];
        for step in &self.steps {
            rows = step.run(rows, env)?;
        }
        if self.filters.is_empty() {
            return Ok(rows);
        }
        let mut kept = Vec::new();
        for row in rows {
            if hold(&self.filters, &inside(&row, env))? {
                kept.push(row);
            }
        }
        Ok(kept)
    }
}

/// The environment of a row: what is around it belongs to the query outside.
fn inside<'a>(row: &'a [Value], env: &Env<'a>) -> Env<'a> {
    Env {
        row,
        aggregates: &[],
        windows: &[],
        sets: &[],
        outer: env.outer,
        context: env.context,
    }
}

impl Step {
    fn looked<'e>(&self, env: &Env<'e>) -> Result<Looked, Error> {
        Ok(match &self.source {
            Source::Relation(relation) => Looked::Shared(relation.clone()),
            Source::Slot(slot) => Looked::Slot(
                env.context
                    .slots
                    .borrow()
                    .get(*slot)
                    .cloned()
                    .unwrap_or_default(),
            ),
            Source::Rows {
                run,
                lateral: false,
            } => match env.outer {
                Some(outer) => Looked::Own(run(outer)?),
                None => Looked::Own(run(env)?),
            },
            Source::Rows { .. } => Looked::Own(Vec::new()),
        })
    }

    fn run(&self, left: Vec<Row>, env: &Env<'_>) -> Result<Vec<Row>, Error> {
        let looked = self.looked(env)?;
        let found = self.probe.as_ref().map(|probe| match &looked {
            Looked::Shared(relation) => {
                let key = (Arc::as_ptr(relation) as usize, probe.column);
                let known = env.context.indexes.borrow().get(&key).cloned();
                known.unwrap_or_else(|| {
                    let made = index(&relation.rows, probe.column);
                    env.context.indexes.borrow_mut().insert(key, made.clone());
                    made
                })
            }
            other => index(other.rows(), probe.column),
        });
        let whole_width = left.first().map_or(self.start + self.width, Vec::len);
        let mut out = Vec::new();
        let matched = RefCell::new(vec![false; looked.rows().len()]);
        let keeps_right = matches!(self.kind, Kind::Right | Kind::Full);
        let push = |row: Row, out: &mut Vec<Row>| -> Result<(), Error> {
            if hold(&self.filters, &inside(&row, env))? {
                if out.len() >= ROWS_MAX {
                    return Err(Error::new(
                        ErrorKind::LimitExceeded,
                        "a query of the catalogs holds too many rows",
                    ));
                }
                env.context.hold(size_of_val(row.as_slice()))?;
                out.push(row);
            }
            Ok(())
        };
        for row in left {
            let mut any = false;
            let mut pair =
                |right: &Row, at: Option<usize>, out: &mut Vec<Row>| -> Result<(), Error> {
                    env.context.step()?;
                    let mut whole = row.clone();
                    whole[self.start..self.start + self.width].clone_from_slice(right);
                    if hold(&self.conditions, &inside(&whole, env))? {
                        any = true;
                        if let (true, Some(at)) = (keeps_right, at) {
                            matched.borrow_mut()[at] = true;
                        }
                        push(whole, out)?;
                    }
                    Ok(())
                };
            match (&self.source, &self.probe, &found) {
                (Source::Rows { run, lateral: true }, ..) => {
                    for right in run(&inside(&row, env))? {
                        pair(&right, None, &mut out)?;
                    }
                }
                (_, Some(probe), Some(index)) => {
                    let value = (probe.value)(&inside(&row, env))?;
                    for at in index.get(&value).map_or(&[][..], Vec::as_slice) {
                        pair(&looked.rows()[*at], Some(*at), &mut out)?;
                    }
                }
                _ => {
                    for (at, right) in looked.rows().iter().enumerate() {
                        pair(right, Some(at), &mut out)?;
                    }
                }
            }
            if !any && matches!(self.kind, Kind::Left | Kind::Full) {
                push(row.clone(), &mut out)?;
            }
        }
        if keeps_right {
            for (at, right) in looked.rows().iter().enumerate() {
                if !matched.borrow()[at] {
                    let mut whole = vec![Value::Null; whole_width];
                    whole[self.start..self.start + self.width].clone_from_slice(right);
                    push(whole, &mut out)?;
                }
            }
        }
        Ok(out)
    }
}
