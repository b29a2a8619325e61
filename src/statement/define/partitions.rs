//! PARTITION BY: the partitions of a CREATE TABLE, and what their texts mean.

use super::range_type;
use crate::error::{Error, ErrorKind};
use crate::schema::{
    Bound, Bounds, Interval, PartitionDef, Partitioning, RangeKey, RangeStep, TableSchema,
    TimeUnitOfRange,
};
use crate::statement::ast::{PartitionText, ValuesText};
use crate::statement::lexer::Token;
use crate::statement::parser::Parser;

impl Parser<'_> {
    pub(super) fn partition_by(&mut self) -> Result<(Partitioning, Vec<PartitionText>), Error> {
        if !self.eat("PARTITION BY") {
            return Ok((Partitioning::Unpartitioned, Vec::new()));
        }
        let at = self.offset();
        let is_range = self.eat("RANGE");
        if !is_range && !self.eat("LIST") {
            return Err(Error::unsupported("PARTITION BY other than RANGE and LIST").at(at));
        }
        let mut columns = self.list(Self::column_name)?;
        if is_range && columns.len() > 1 {
            return Err(Error::unsupported("PARTITION BY RANGE over several columns").at(at));
        }
        let mut partitions = Vec::new();
        self.expect_symbol('(')?;
        while !self.eat_symbol(')') {
            if !partitions.is_empty() {
                self.expect_symbol(',')?;
            }
            self.eat("PARTITION");
            partitions.push(self.partition_text()?);
        }
        let partitioning = if is_range {
            Partitioning::Range {
                column: columns.remove(0),
            }
        } else {
            Partitioning::List { columns }
        };
        Ok((partitioning, partitions))
    }

    /// One partition, the word PARTITION already taken; or `START … END … EVERY`.
    pub(super) fn partition_text(&mut self) -> Result<PartitionText, Error> {
        if self.eat("START") {
            let one = |p: &mut Self| {
                p.expect_symbol('(')?;
                let value = p.literal()?;
                p.expect_symbol(')')?;
                Ok::<_, Error>(value)
            };
            let start = one(self)?;
            self.expect("END")?;
            let end = one(self)?;
            self.expect("EVERY")?;
            self.expect_symbol('(')?;
            let step = self.range_step()?;
            self.expect_symbol(')')?;
            return Ok(PartitionText::Every { start, end, step });
        }
        let name = self.partition_name()?;
        self.expect("VALUES")?;
        let values = if self.eat("LESS THAN") {
            if self.eat("MAXVALUE") {
                ValuesText::LessThan(None)
            } else {
                self.expect_symbol('(')?;
                let upper = if self.eat("MAXVALUE") {
                    None
                } else {
                    Some(self.literal()?)
                };
                self.expect_symbol(')')?;
                ValuesText::LessThan(upper)
            }
        } else if self.eat("IN") {
            ValuesText::In(self.list(|p| {
                if p.peek() == Some(&Token::Symbol('(')) {
                    p.list(Self::list_value)
                } else {
                    Ok(vec![p.list_value()?])
                }
            })?)
        } else {
            self.expect_symbol('[')?;
            self.expect_symbol('(')?;
            let lower = if self.eat("MINVALUE") {
                None
            } else {
                Some(self.literal()?)
            };
            self.expect_symbol(')')?;
            self.expect_symbol(',')?;
            self.expect_symbol('(')?;
            let upper = if self.eat("MAXVALUE") {
                None
            } else {
                Some(self.literal()?)
            };
            self.expect_symbol(')')?;
            self.expect_symbol(')')?;
            ValuesText::Between(lower, upper)
        };
        Ok(PartitionText::One { name, values })
    }

    fn list_value(&mut self) -> Result<Option<String>, Error> {
        if self.eat("NULL") {
            Ok(None)
        } else {
            self.literal().map(Some)
        }
    }

    fn range_step(&mut self) -> Result<RangeStep, Error> {
        if !self.eat("INTERVAL") {
            let n = self.number("a step")?;
            return Ok(RangeStep::Number(i64::try_from(n).unwrap_or(i64::MAX)));
        }
        let count = u32::try_from(self.number("a count")?)
            .map_err(|_| self.unexpected("a smaller count"))?;
        let unit = [
            ("HOUR", TimeUnitOfRange::Hour),
            ("DAY", TimeUnitOfRange::Day),
            ("WEEK", TimeUnitOfRange::Week),
            ("MONTH", TimeUnitOfRange::Month),
            ("YEAR", TimeUnitOfRange::Year),
        ]
        .into_iter()
        .find_map(|(word, unit)| self.eat(word).then_some(unit))
        .ok_or_else(|| self.unexpected("HOUR, DAY, WEEK, MONTH or YEAR"))?;
        Ok(RangeStep::Interval(Interval { count, unit }))
    }
}

impl PartitionText {
    /// Reads the literals as values of the table's partition columns and checks the new partitions
    /// against each other and the existing ones. `LESS THAN` begins where the highest range below
    /// it ends.
    pub fn resolve(
        texts: &[Self],
        schema: &TableSchema,
        existing: &[PartitionDef],
    ) -> Result<Vec<PartitionDef>, Error> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidDefinition, message);
        let mut made: Vec<PartitionDef> = Vec::new();
        for text in texts {
            let new = match (text, &schema.partitioning) {
                (_, Partitioning::Unpartitioned) => {
                    return Err(invalid(
                        "Only support adding partition to range or list partitioned table".into(),
                    ));
                }
                (Self::Every { start, end, step }, Partitioning::Range { .. }) => {
                    let column = range_type(schema)?;
                    PartitionDef::every(
                        RangeKey::parse(start, column)?,
                        RangeKey::parse(end, column)?,
                        step,
                    )?
                }
                (
                    Self::One {
                        name,
                        values: ValuesText::In(rows),
                    },
                    Partitioning::List { columns },
                ) => {
                    if let Some(row) = rows.iter().find(|row| row.len() != columns.len()) {
                        return Err(invalid(format!(
                            "partition {name} lists {} values where the table has {} partition columns",
                            row.len(),
                            columns.len()
                        )));
                    }
                    let rows = rows.iter().map(|row| {
                        row.iter()
                            .zip(columns)
                            .map(|(v, c)| list_value(schema, c, v.as_deref()))
                            .collect()
                    });
                    vec![PartitionDef {
                        name: name.clone(),
                        bounds: Bounds::List(rows.collect::<Result<_, Error>>()?),
                    }]
                }
                (Self::One { name, values }, Partitioning::Range { .. }) => {
                    let column = range_type(schema)?;
                    let at = |text: &Option<String>, otherwise: Bound| match text {
                        Some(text) => RangeKey::parse(text, column).map(Bound::At),
                        None => Ok(otherwise),
                    };
                    let (lower, upper) = match values {
                        ValuesText::LessThan(upper) => {
                            let upper = at(upper, Bound::Max)?;
                            let below =
                                existing.iter().chain(&made).filter_map(|p| match p.bounds {
                                    Bounds::Range { upper: end, .. } if end <= upper => Some(end),
                                    _ => None,
                                });
                            (below.max().unwrap_or(Bound::Min), upper)
                        }
                        ValuesText::Between(lower, upper) => {
                            (at(lower, Bound::Min)?, at(upper, Bound::Max)?)
                        }
                        ValuesText::In(_) => {
                            return Err(invalid(format!(
                                "partition {name} of a range table needs a range"
                            )));
                        }
                    };
                    vec![PartitionDef {
                        name: name.clone(),
                        bounds: Bounds::Range { lower, upper },
                    }]
                }
                (_, Partitioning::List { .. }) => {
                    return Err(invalid("partitions of a list table need VALUES IN".into()));
                }
            };
            for partition in new {
                if partition.bounds.is_empty() {
                    return Err(invalid(format!(
                        "partition {} is empty: {}",
                        partition.name, partition.bounds
                    )));
                }
                for other in existing.iter().chain(&made) {
                    if other.name == partition.name {
                        return Err(Error::new(
                            ErrorKind::DuplicateObject,
                            format!("Duplicate partition name {}", partition.name),
                        ));
                    }
                    if other.bounds.intersects(&partition.bounds) {
                        return Err(invalid(format!(
                            "Range {} is intersected with range {}",
                            partition.bounds, other.bounds
                        ))
                        .detail(format!("partitions {} and {}", partition.name, other.name)));
                    }
                }
                made.push(partition);
            }
        }
        Ok(made)
    }
}

/// A value of a list partition, as its column spells it.
fn list_value(
    schema: &TableSchema,
    column: &str,
    value: Option<&str>,
) -> Result<Option<String>, Error> {
    let (Some(value), Some((_, column))) = (value, schema.column(column)) else {
        return Ok(None);
    };
    let canonical = column.column_type.canonical(value).ok_or_else(|| {
        let message = format!(
            "Invalid partition value '{value}' for a column of type {}",
            column.column_type
        );
        Error::new(ErrorKind::InvalidText, message)
    })?;
    Ok(Some(canonical))
}
