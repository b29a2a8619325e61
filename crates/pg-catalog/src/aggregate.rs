//! Aggregates and window functions of catalog queries.

use std::collections::{HashMap, HashSet};

use postgres_types::Type;

use super::expr::{Env, Eval};
use super::value::{Row, Value, ValueType};
use super::value_text::{json, show};
use starkeep_error::{Error, ErrorKind};

/// One key of an order.
pub(super) struct SortKey {
    pub eval: Eval,
    pub descending: bool,
    pub nulls_first: bool,
}

/// An aggregate call.
pub(super) struct Aggregate {
    pub kind: Kind,
    pub args: Vec<Eval>,
    pub types: Vec<ValueType>,
    pub distinct: bool,
    pub order: Vec<SortKey>,
    pub filter: Option<Eval>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    CountRows,
    Count,
    Sum,
    Avg,
    Min,
    Max,
    ArrayAgg,
    StringAgg,
    JsonAgg,
    JsonObjectAgg,
    BoolAnd,
    BoolOr,
}

impl Kind {
    /// The aggregate of a name, and what it answers.
    pub fn of(name: &str, args: &[ValueType]) -> Option<(Self, ValueType)> {
        let first = args.first().cloned().unwrap_or(ValueType::UNKNOWN);
        Some(match name {
            "count" if args.is_empty() => (Self::CountRows, ValueType::INT8),
            "count" => (Self::Count, ValueType::INT8),
            "sum" if matches!(first.pg, Type::INT2 | Type::INT4) => (Self::Sum, ValueType::INT8),
            "sum" if first.pg == Type::INT8 => (Self::Sum, ValueType::of(Type::NUMERIC)),
            "sum" => (Self::Sum, first),
            "avg" => (
                Self::Avg,
                ValueType::of(if first.is_integer() {
                    Type::NUMERIC
                } else {
                    Type::FLOAT8
                }),
            ),
            // The least of names is a text, as in PostgreSQL.
            "min" | "max" => {
                let ty = if first.is_text() {
                    ValueType::TEXT
                } else {
                    first
                };
                (if name == "min" { Self::Min } else { Self::Max }, ty)
            }
            "array_agg" => (Self::ArrayAgg, first.array()),
            "string_agg" => (Self::StringAgg, ValueType::TEXT),
            "json_agg" | "jsonb_agg" => (Self::JsonAgg, ValueType::of(Type::JSON)),
            "json_object_agg" | "jsonb_object_agg" => {
                (Self::JsonObjectAgg, ValueType::of(Type::JSON))
            }
            "bool_and" | "every" => (Self::BoolAnd, ValueType::BOOL),
            "bool_or" => (Self::BoolOr, ValueType::BOOL),
            _ => return None,
        })
    }
}

/// Sorts by keys that were computed for each item.
pub(super) fn sort_by_keys<T>(items: &mut [(Vec<Value>, T)], keys: &[(bool, bool)]) {
    items.sort_by(|(a, _), (b, _)| {
        let orders = a
            .iter()
            .zip(b)
            .zip(keys)
            .map(
                |((a, b), (descending, nulls_first))| match (a.is_null(), b.is_null()) {
                    (true, true) => std::cmp::Ordering::Equal,
                    (true, false) => {
                        if *nulls_first {
                            std::cmp::Ordering::Less
                        } else {
                            std::cmp::Ordering::Greater
                        }
                    }
                    (false, true) => {
                        if *nulls_first {
                            std::cmp::Ordering::Greater
                        } else {
                            std::cmp::Ordering::Less
                        }
                    }
                    (false, false) if *descending => b.compare(a),
                    (false, false) => a.compare(b),
                },
            );
        orders
            .into_iter()
            .find(|o| o.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
}

impl Aggregate {
    /// The aggregate of some rows.
    pub fn of(&self, rows: &[&Row], env: &Env<'_>) -> Result<Value, Error> {
        env.context.passing(|| self.of_passing(rows, env))
    }

    fn of_passing(&self, rows: &[&Row], env: &Env<'_>) -> Result<Value, Error> {
        let mut values: Vec<(Vec<Value>, Vec<Value>)> = Vec::new();
        let mut seen = HashSet::new();
        // A text of all is refused as soon as it is too long, not when all is there.
        let (gathers, mut gathered) = (matches!(self.kind, Kind::StringAgg), 0);
        for row in rows {
            env.context.step()?;
            let env = env.row(row);
            if let Some(filter) = &self.filter
                && !filter(&env)?.is_true()
            {
                continue;
            }
            let args = self
                .args
                .iter()
                .map(|a| a(&env))
                .collect::<Result<Vec<_>, _>>()?;
            if self.distinct && !seen.insert(args.clone()) {
                continue;
            }
            if let (true, Some(Value::Text(text))) = (gathers, args.first()) {
                gathered += text.len();
                env.context.check_length(gathered)?;
            }
            let keys = self
                .order
                .iter()
                .map(|k| (k.eval)(&env))
                .collect::<Result<Vec<_>, _>>()?;
            env.context
                .hold(args.iter().chain(&keys).map(Value::size).sum())?;
            values.push((keys, args));
        }
        let keys: Vec<_> = self
            .order
            .iter()
            .map(|k| (k.descending, k.nulls_first))
            .collect();
        if keys.is_empty() && self.distinct {
            values.sort_by(|(_, a), (_, b)| a[0].compare(&b[0]));
        } else {
            sort_by_keys(&mut values, &keys);
        }
        let first = || values.iter().map(|(_, args)| &args[0]);
        let given = || first().filter(|v| !v.is_null());
        Ok(match self.kind {
            Kind::CountRows => Value::Int(values.len() as i64),
            Kind::Count => Value::Int(given().count() as i64),
            Kind::Sum => {
                let mut sum = None;
                for value in given() {
                    sum = Some(match (sum.unwrap_or(Value::Int(0)), value) {
                        (Value::Int(a), Value::Int(b)) => {
                            Value::Int(a.checked_add(*b).ok_or_else(|| {
                                Error::new(ErrorKind::OutOfRange, "bigint out of range")
                            })?)
                        }
                        (Value::Span(a), Value::Span(b)) => {
                            Value::Span(a.checked_add(*b).ok_or_else(|| {
                                Error::new(ErrorKind::DateTimeOverflow, "interval out of range")
                            })?)
                        }
                        (a, b) => Value::Float(float(&a) + float(b)),
                    });
                }
                sum.unwrap_or(Value::Null)
            }
            Kind::Avg => match given().count() {
                0 => Value::Null,
                n => Value::Float(given().map(float).sum::<f64>() / n as f64),
            },
            Kind::Min => given()
                .min_by(|a, b| a.compare(b))
                .cloned()
                .unwrap_or(Value::Null),
            Kind::Max => given()
                .max_by(|a, b| a.compare(b))
                .cloned()
                .unwrap_or(Value::Null),
            Kind::ArrayAgg if values.is_empty() => Value::Null,
            Kind::ArrayAgg => env.context.made(Value::array(first().cloned()))?,
            Kind::StringAgg => {
                let ty = &self.types[0];
                let mut text: Option<String> = None;
                for (_, args) in values.iter().filter(|(_, args)| !args[0].is_null()) {
                    let shown = show(&args[0], ty, &env.context.snapshot.directory);
                    let between = args.get(1).map_or("", Value::as_text);
                    env.context.check_length(
                        text.as_ref().map_or(0, String::len) + between.len() + shown.len(),
                    )?;
                    text = Some(match text {
                        Some(text) => text + between + &shown,
                        None => shown,
                    });
                }
                text.map_or(Value::Null, Value::text)
            }
            Kind::JsonAgg if values.is_empty() => Value::Null,
            Kind::JsonAgg => {
                let mut bytes = 2;
                let mut items = Vec::new();
                for value in first() {
                    let item =
                        json(value, &self.types[0], &env.context.snapshot.directory).to_string();
                    bytes += item.len() + 2;
                    env.context.check_length(bytes)?;
                    items.push(item);
                }
                Value::text(format!("[{}]", items.join(", ")))
            }
            Kind::JsonObjectAgg => {
                let mut bytes = 4;
                let mut pairs = Vec::new();
                for (_, args) in &values {
                    let key = serde_json::Value::from(show(
                        &args[0],
                        &self.types[0],
                        &env.context.snapshot.directory,
                    ));
                    let pair = format!(
                        "{key} : {}",
                        json(&args[1], &self.types[1], &env.context.snapshot.directory)
                    );
                    bytes += pair.len() + 2;
                    env.context.check_length(bytes)?;
                    pairs.push(pair);
                }
                if pairs.is_empty() {
                    Value::Null
                } else {
                    Value::text(format!("{{ {} }}", pairs.join(", ")))
                }
            }
            Kind::BoolAnd if given().next().is_none() => Value::Null,
            Kind::BoolAnd => Value::Bool(given().all(Value::is_true)),
            Kind::BoolOr if given().next().is_none() => Value::Null,
            Kind::BoolOr => Value::Bool(given().any(Value::is_true)),
        })
    }
}

fn float(value: &Value) -> f64 {
    match value {
        Value::Float(f) => *f,
        other => other.as_int().unwrap_or(0) as f64,
    }
}

/// A call with OVER.
pub(super) struct Window {
    pub kind: WindowKind,
    pub partition: Vec<Eval>,
    pub order: Vec<SortKey>,
}

pub(super) enum WindowKind {
    RowNumber,
    Rank,
    DenseRank,
    /// Over the whole partition.
    Aggregate(Aggregate),
}

impl WindowKind {
    /// The function of a name that is of windows alone; a bigint.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "row_number" => Self::RowNumber,
            "rank" => Self::Rank,
            "dense_rank" => Self::DenseRank,
            _ => return None,
        })
    }
}

impl Window {
    pub fn of(&self, rows: &[Row], env: &Env<'_>) -> Result<Vec<Value>, Error> {
        let mut partitions: HashMap<Vec<Value>, Vec<(Vec<Value>, usize)>> = HashMap::new();
        for (i, row) in rows.iter().enumerate() {
            let env = env.row(row);
            let key = self
                .partition
                .iter()
                .map(|p| p(&env))
                .collect::<Result<Vec<_>, _>>()?;
            let order = self
                .order
                .iter()
                .map(|k| (k.eval)(&env))
                .collect::<Result<Vec<_>, _>>()?;
            partitions.entry(key).or_default().push((order, i));
        }
        let keys: Vec<_> = self
            .order
            .iter()
            .map(|k| (k.descending, k.nulls_first))
            .collect();
        let mut values = vec![Value::Null; rows.len()];
        for mut members in partitions.into_values() {
            sort_by_keys(&mut members, &keys);
            let whole = match &self.kind {
                WindowKind::Aggregate(aggregate) => {
                    let rows: Vec<&Row> = members.iter().map(|(_, i)| &rows[*i]).collect();
                    Some(aggregate.of(&rows, env)?)
                }
                _ => None,
            };
            let (mut rank, mut dense) = (0, 0);
            for n in 0..members.len() {
                if n == 0 || members[n].0 != members[n - 1].0 {
                    rank = n as i64 + 1;
                    dense += 1;
                }
                values[members[n].1] = match (&self.kind, &whole) {
                    (_, Some(value)) => value.clone(),
                    (WindowKind::Rank, _) => Value::Int(rank),
                    (WindowKind::DenseRank, _) => Value::Int(dense),
                    _ => Value::Int(n as i64 + 1),
                };
            }
        }
        Ok(values)
    }
}
