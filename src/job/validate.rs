//! What a stored table must be before anything is made of it: a manifest may come from anywhere,
//! and its hash proves only that it is whole.

use std::collections::HashSet;

use super::data::{DataFile, PlannedPartition, PlannedTable};
use crate::error::{Error, ErrorKind};
use crate::schema::{Bound, Bounds, ColumnType, Partitioning, RangeKey};

/// Columns of a table, StarRocks' limit.
const COLUMNS_MAX: usize = 10_000;
/// Tablets of a partition, as BUCKETS has it.
const BUCKETS_MAX: usize = 1024;
/// Replicas of a tablet.
const REPLICAS_MAX: u16 = 64;
/// A version is counted up from 1 by each change of a partition.
const VERSION_MAX: i64 = i32::MAX as i64;

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Corrupted,
        format!("the manifest is damaged: {why}"),
    )
}

impl PlannedTable {
    /// XX001 unless the table could have been made by statements: a valid definition, partitions
    /// that are of its kind, of names of their own and apart from each other, a tablet for each
    /// bucket, and files whose sizes add up.
    pub fn validate(&self) -> Result<(), Error> {
        let of_table = |e: Error| damaged(format_args!("table {}: {}", self.name, e.message));
        if self.schema.columns.is_empty() || self.schema.columns.len() > COLUMNS_MAX {
            return Err(of_table(damaged(format_args!(
                "{} columns",
                self.schema.columns.len()
            ))));
        }
        let schema = self.schema.clone().validate().map_err(of_table)?;
        if !(1..=REPLICAS_MAX).contains(&self.replication_num) {
            return Err(of_table(damaged(format_args!(
                "{} replicas",
                self.replication_num
            ))));
        }
        let mut names = HashSet::new();
        let mut bytes = 0u64;
        for partition in &self.partitions {
            let of_partition = |e: Error| {
                of_table(damaged(format_args!(
                    "partition {}: {}",
                    partition.name, e.message
                )))
            };
            if !names.insert(partition.name.as_str()) {
                return Err(of_partition(damaged("it is there twice")));
            }
            let width = match &schema.partitioning {
                Partitioning::List { columns } => columns.len(),
                _ => 1,
            };
            check_bounds(
                partition,
                &schema.partitioning,
                schema.partition_type(),
                width,
            )
            .map_err(of_partition)?;
            check_content(partition, schema.distribution.buckets, &mut bytes)
                .map_err(of_partition)?;
        }
        if matches!(schema.partitioning, Partitioning::Unpartitioned) && self.partitions.len() > 1 {
            return Err(of_table(damaged("partitions of a table without any")));
        }
        check_apart(&self.partitions).map_err(of_table)
    }
}

/// Bounds are of the table's kind, and could have a row.
fn check_bounds(
    partition: &PlannedPartition,
    partitioning: &Partitioning,
    column: Option<&ColumnType>,
    width: usize,
) -> Result<(), Error> {
    let fits = |bound: &Bound| match (bound, column) {
        (Bound::Min | Bound::Max, _) => true,
        (Bound::At(RangeKey::Date(_)), Some(ColumnType::Date))
        | (Bound::At(RangeKey::DateTime(_)), Some(ColumnType::DateTime)) => true,
        (Bound::At(RangeKey::Int(_)), Some(column)) => {
            matches!(
                column,
                ColumnType::TinyInt | ColumnType::SmallInt | ColumnType::Int | ColumnType::BigInt
            )
        }
        _ => false,
    };
    let is_right = match (&partition.bounds, partitioning) {
        (Bounds::Whole, Partitioning::Unpartitioned) => true,
        (Bounds::Range { lower, upper }, Partitioning::Range { .. }) => fits(lower) && fits(upper),
        (Bounds::List(rows), Partitioning::List { .. }) => {
            rows.iter().all(|row| row.len() == width)
        }
        _ => false,
    };
    if !is_right || partition.bounds.is_empty() {
        return Err(damaged(format_args!("bounds {}", partition.bounds)));
    }
    Ok(())
}

fn check_content(
    partition: &PlannedPartition,
    buckets: Option<u32>,
    bytes: &mut u64,
) -> Result<(), Error> {
    if !(1..=VERSION_MAX).contains(&partition.version) {
        return Err(damaged(format_args!("version {}", partition.version)));
    }
    let count = partition.tablets.len();
    if !(1..=BUCKETS_MAX).contains(&count)
        || buckets.is_some_and(|buckets| buckets as usize != count)
    {
        return Err(damaged(format_args!("{count} tablets")));
    }
    for tablet in &partition.tablets {
        let mut files = HashSet::new();
        for DataFile {
            sha256,
            bytes: length,
            rows,
        } in &tablet.files
        {
            if !files.insert(sha256) {
                return Err(damaged(format_args!("file {sha256} is twice in a tablet")));
            }
            *bytes = bytes
                .checked_add(*length)
                .filter(|sum| i64::try_from(*sum).is_ok())
                .ok_or_else(|| damaged("its size"))?;
            i64::try_from(*rows).map_err(|_| damaged("its number of rows"))?;
        }
    }
    Ok(())
}

/// No row belongs to two partitions.
fn check_apart(partitions: &[PlannedPartition]) -> Result<(), Error> {
    let overlap = |name: &dyn std::fmt::Display| {
        damaged(format_args!("partition {name} takes rows of another one"))
    };
    let mut ranges: Vec<_> = partitions
        .iter()
        .filter_map(|p| match p.bounds {
            Bounds::Range { lower, upper } => Some((lower, upper, &p.name)),
            _ => None,
        })
        .collect();
    ranges.sort();
    if let Some(pair) = ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        return Err(overlap(pair[1].2));
    }
    let mut listed = HashSet::new();
    for partition in partitions {
        let Bounds::List(rows) = &partition.bounds else {
            continue;
        };
        if rows.iter().any(|row| !listed.insert(row)) {
            return Err(overlap(&partition.name));
        }
    }
    Ok(())
}
