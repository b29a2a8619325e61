//! The bounds of partitions: what a partition takes, how bounds compare, and `START … END … EVERY`.
//!
//! Invariant: the ranges of one table never intersect, so at most one partition takes a row.

use std::fmt;

use chrono::{Datelike, Days, Duration, Months, NaiveDate, NaiveDateTime};
use serde::{Deserialize, Serialize};

use super::ColumnType;
use crate::error::{Error, ErrorKind};
use crate::names::PartitionName;

/// A partition as `CREATE TABLE` and `ALTER TABLE` name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionDef {
    pub name: PartitionName,
    /// The rows it takes.
    pub bounds: Bounds,
}

/// The rows that a partition takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bounds {
    /// All: the one partition of an unpartitioned table.
    Whole,
    /// Those from `lower` up to but not with `upper`.
    Range {
        /// The least that belongs.
        lower: Bound,
        /// The least above that does not.
        upper: Bound,
    },
    /// Those with one of these tuples of values, as text; `None` is NULL.
    List(Vec<Vec<Option<String>>>),
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Below every value; NULL sorts here too.
    Min,
    /// At this value.
    At(RangeKey),
    /// Above every value.
    Max,
}

/// A value of a range column. Dates are days, times are microseconds since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeKey {
    Int(i64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01.
    DateTime(i64),
}

const EPOCH: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date");

fn parse_date(text: &str) -> Option<NaiveDate> {
    ["%Y-%m-%d", "%Y%m%d"]
        .iter()
        .find_map(|f| NaiveDate::parse_from_str(text, f).ok())
}

fn parse_datetime(text: &str) -> Option<NaiveDateTime> {
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|f| NaiveDateTime::parse_from_str(text, f).ok())
        .or_else(|| parse_date(text).and_then(|d| d.and_hms_opt(0, 0, 0)))
}

impl RangeKey {
    /// Reads a literal of `PARTITION BY RANGE` as a value of the column; the error is 22P02.
    pub fn parse(text: &str, column_type: &ColumnType) -> Result<Self, Error> {
        let text = text.trim();
        let parsed = match column_type {
            ColumnType::Date => parse_datetime(text)
                .and_then(|d| i32::try_from((d.date() - EPOCH).num_days()).ok())
                .map(Self::Date),
            ColumnType::DateTime => {
                parse_datetime(text).map(|d| Self::DateTime(d.and_utc().timestamp_micros()))
            }
            _ => text.parse().ok().map(Self::Int),
        };
        parsed.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidText,
                format!("Invalid partition value '{text}' for a column of type {column_type}"),
            )
        })
    }

    fn date(self) -> Option<NaiveDateTime> {
        match self {
            Self::Date(days) => EPOCH
                .checked_add_signed(Duration::days(days.into()))?
                .and_hms_opt(0, 0, 0),
            Self::DateTime(micros) => {
                chrono::DateTime::from_timestamp_micros(micros).map(|d| d.naive_utc())
            }
            Self::Int(_) => None,
        }
    }

    fn step(self, step: &RangeStep) -> Option<Self> {
        match (self, step) {
            (Self::Int(n), RangeStep::Number(by)) => n.checked_add(*by).map(Self::Int),
            (Self::Date(_) | Self::DateTime(_), RangeStep::Interval(interval)) => {
                let next = interval.after(self.date()?)?;
                Some(match self {
                    Self::Date(_) => {
                        Self::Date(i32::try_from((next.date() - EPOCH).num_days()).ok()?)
                    }
                    _ => Self::DateTime(next.and_utc().timestamp_micros()),
                })
            }
            _ => None,
        }
    }
}

impl fmt::Display for RangeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.date()) {
            (Self::Date(_), Some(d)) => write!(f, "{}", d.format("%Y-%m-%d")),
            (Self::DateTime(_), Some(d)) => write!(f, "{}", d.format("%Y-%m-%d %H:%M:%S%.f")),
            (Self::Int(n), _) => write!(f, "{n}"),
            (Self::Date(n), None) => write!(f, "{n}"),
            (Self::DateTime(n), None) => write!(f, "{n}"),
        }
    }
}

/// What `EVERY (…)` steps by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangeStep {
    /// Whole numbers.
    Number(i64),
    /// `INTERVAL n unit`.
    Interval(Interval),
}

/// `INTERVAL count unit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    pub count: u32,
    pub unit: TimeUnitOfRange,
}

/// The units of `INTERVAL` in `EVERY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeUnitOfRange {
    /// 60 minutes.
    Hour,
    Day,
    /// Seven days.
    Week,
    Month,
    Year,
}

impl Interval {
    fn after(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        match self.unit {
            TimeUnitOfRange::Hour => from.checked_add_signed(Duration::hours(self.count.into())),
            TimeUnitOfRange::Day => from.checked_add_days(Days::new(self.count.into())),
            TimeUnitOfRange::Week => from.checked_add_days(Days::new(u64::from(self.count) * 7)),
            TimeUnitOfRange::Month => from.checked_add_months(Months::new(self.count)),
            TimeUnitOfRange::Year => {
                from.checked_add_months(Months::new(self.count.checked_mul(12)?))
            }
        }
    }

    fn name(&self, from: NaiveDateTime) -> String {
        match self.unit {
            TimeUnitOfRange::Hour => from.format("p%Y%m%d%H").to_string(),
            TimeUnitOfRange::Day => from.format("p%Y%m%d").to_string(),
            TimeUnitOfRange::Week => {
                format!("p{}_{:02}", from.iso_week().year(), from.iso_week().week())
            }
            TimeUnitOfRange::Month => from.format("p%Y%m").to_string(),
            TimeUnitOfRange::Year => from.format("p%Y").to_string(),
        }
    }
}

/// The most partitions that one `START … END … EVERY` makes.
const STEPS_MAX: usize = 4096;

impl PartitionDef {
    /// Carries out `START (a) END (b) EVERY (step)`: one partition a step, named as StarRocks names
    /// them.
    pub fn every(start: RangeKey, end: RangeKey, step: &RangeStep) -> Result<Vec<Self>, Error> {
        let invalid = |why: String| Error::new(ErrorKind::InvalidDefinition, why);
        if start >= end {
            return Err(invalid(format!(
                "Batch build partition start date should less than end date ({start} to {end})"
            )));
        }
        let mut partitions = Vec::new();
        let mut lower = start;
        while lower < end {
            let upper = lower
                .step(step)
                .filter(|upper| *upper > lower)
                .ok_or_else(|| invalid(format!("EVERY does not step forward from {lower}")))?
                .min(end);
            if partitions.len() == STEPS_MAX {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    format!("EVERY makes more than {STEPS_MAX} partitions"),
                ));
            }
            let name = match (step, lower.date()) {
                (RangeStep::Interval(interval), Some(from)) => interval.name(from),
                _ => format!("p{lower}").replace('-', "_"),
            };
            partitions.push(Self {
                name: PartitionName::new(name)?,
                bounds: Bounds::Range {
                    lower: Bound::At(lower),
                    upper: Bound::At(upper),
                },
            });
            lower = upper;
        }
        Ok(partitions)
    }
}

impl Bounds {
    /// Whether some row could belong to both.
    pub fn intersects(&self, other: &Bounds) -> bool {
        match (self, other) {
            (Self::Range { lower: a, upper: b }, Self::Range { lower: c, upper: d }) => {
                a < d && c < b
            }
            (Self::List(a), Self::List(b)) => a.iter().any(|v| b.contains(v)),
            _ => true,
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::Whole => false,
            Self::Range { lower, upper } => lower >= upper,
            Self::List(values) => values.is_empty(),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Min => f.write_str("MINVALUE"),
            Self::At(key) => write!(f, "\"{key}\""),
            Self::Max => f.write_str("MAXVALUE"),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Range {
                lower: Bound::Min,
                upper: upper @ Bound::At(_),
            } => write!(f, "VALUES LESS THAN ({upper})"),
            Self::Range {
                upper: Bound::Max,
                lower: Bound::Min,
            } => f.write_str("VALUES LESS THAN (MAXVALUE)"),
            Self::Range { lower, upper } => write!(f, "VALUES [({lower}), ({upper}))"),
            Self::List(rows) => {
                f.write_str("VALUES IN (")?;
                for (i, row) in rows.iter().enumerate() {
                    let values: Vec<String> = row
                        .iter()
                        .map(|v| {
                            v.as_ref().map_or("NULL".into(), |v| {
                                format!("'{}'", v.replace('\\', "\\\\").replace('\'', "''"))
                            })
                        })
                        .collect();
                    let separator = if i > 0 { ", " } else { "" };
                    match values.as_slice() {
                        [one] => write!(f, "{separator}{one}")?,
                        many => write!(f, "{separator}({})", many.join(", "))?,
                    }
                }
                f.write_str(")")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> RangeKey {
        RangeKey::parse(text, &ColumnType::Date).expect("a date")
    }

    #[test]
    fn every_month_makes_named_ranges_that_meet() {
        let step = RangeStep::Interval(Interval {
            count: 1,
            unit: TimeUnitOfRange::Month,
        });
        let made =
            PartitionDef::every(date("2026-01-01"), date("2026-03-15"), &step).expect("partitions");
        let names: Vec<_> = made.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["p202601", "p202602", "p202603"]);
        assert_eq!(
            made[2].bounds.to_string(),
            "VALUES [(\"2026-03-01\"), (\"2026-03-15\"))"
        );
        assert!(!made[0].bounds.intersects(&made[1].bounds));
        assert!(made[0].bounds.intersects(&Bounds::Range {
            lower: Bound::Min,
            upper: Bound::Max
        }));
    }

    #[test]
    fn a_step_that_stands_still_is_refused() {
        assert!(
            PartitionDef::every(RangeKey::Int(1), RangeKey::Int(9), &RangeStep::Number(0)).is_err()
        );
        assert!(
            PartitionDef::every(RangeKey::Int(9), RangeKey::Int(1), &RangeStep::Number(1)).is_err()
        );
        assert!(
            PartitionDef::every(
                RangeKey::Int(0),
                RangeKey::Int(1_000_000),
                &RangeStep::Number(1)
            )
            .is_err()
        );
    }

    #[test]
    fn bounds_compare_as_the_column_does() {
        assert!(date("20260101") < date("2026-01-02"));
        assert!(Bound::Min < Bound::At(RangeKey::Int(i64::MIN)));
        assert!(Bound::At(RangeKey::Int(i64::MAX)) < Bound::Max);
        assert!(RangeKey::parse("x", &ColumnType::Int).is_err());
    }
}
