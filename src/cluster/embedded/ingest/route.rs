//! Which partition and which bucket each row belongs to.

use std::collections::HashMap;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::arrow::row::{RowConverter, SortField};
use twox_hash::XxHash64;

use super::arrow_error;
use crate::cluster::embedded::metastore::Table;
use crate::error::{Error, ErrorKind};
use crate::schema::{Bound, Bounds, ColumnType, RangeKey, TableSchema};

/// Decides the partition and the bucket of each row.
pub(super) struct Router {
    /// Ascending ranges with the partition's place, for range tables.
    ranges: Vec<(Bound, Bound, usize)>,
    /// By value, for list tables.
    lists: HashMap<Vec<Option<String>>, usize>,
    partition_columns: Vec<usize>,
    hash_columns: Vec<usize>,
    hasher: Option<RowConverter>,
    buckets: usize,
    random: usize,
}

impl Router {
    pub(super) fn new(table: &Table) -> Result<Self, Error> {
        let schema: &TableSchema = &table.schema;
        let position = |name: &String| {
            schema
                .column(name)
                .map(|(i, _)| i)
                .expect("the schema was validated")
        };
        let (mut ranges, mut lists) = (Vec::new(), HashMap::new());
        for (i, partition) in table.partitions.iter().enumerate() {
            match &partition.bounds {
                Bounds::Whole => {}
                Bounds::Range { lower, upper } => ranges.push((*lower, *upper, i)),
                Bounds::List(rows) => lists.extend(rows.iter().map(|row| (row.clone(), i))),
            }
        }
        ranges.sort_by_key(|(lower, ..)| *lower);
        let hash_columns: Vec<usize> = schema.distribution.columns.iter().map(position).collect();
        let fields = hash_columns
            .iter()
            .map(|i| SortField::new(schema.columns[*i].column_type.arrow()))
            .collect::<Vec<_>>();
        let hasher = if fields.is_empty() {
            None
        } else {
            Some(RowConverter::new(fields).map_err(arrow_error)?)
        };
        Ok(Self {
            ranges,
            lists,
            partition_columns: schema.partition_columns().iter().map(position).collect(),
            hash_columns,
            hasher,
            buckets: table.partitions.first().map_or(1, |p| p.tablets.len()),
            random: 0,
        })
    }

    /// Row numbers by partition and bucket, in order.
    pub(super) fn route(
        &mut self,
        batch: &RecordBatch,
        table: &Table,
    ) -> Result<Vec<(usize, usize, Vec<u32>)>, Error> {
        let partitions = self.partitions_of(batch, table)?;
        let buckets = self.buckets_of(batch, &partitions, table)?;
        let mut groups: HashMap<(usize, usize), Vec<u32>> = HashMap::new();
        for (row, place) in partitions.into_iter().zip(buckets).enumerate() {
            groups.entry(place).or_default().push(row as u32);
        }
        let mut groups: Vec<_> = groups
            .into_iter()
            .map(|((p, b), rows)| (p, b, rows))
            .collect();
        groups.sort_by_key(|(p, b, _)| (*p, *b));
        Ok(groups)
    }

    fn partitions_of(&self, batch: &RecordBatch, table: &Table) -> Result<Vec<usize>, Error> {
        let rows = batch.num_rows();
        match self.partition_columns.as_slice() {
            [] => Ok(vec![0; rows]),
            [column] if !self.ranges.is_empty() || self.lists.is_empty() => {
                let keys = range_keys(
                    batch.column(*column),
                    &table.schema.columns[*column].column_type,
                )?;
                keys.into_iter()
                    .enumerate()
                    .map(|(row, key)| {
                        self.range_of(key)
                            .ok_or_else(|| homeless(batch, &self.partition_columns, row, table))
                    })
                    .collect()
            }
            columns => {
                let texts = columns
                    .iter()
                    .map(|c| cast(batch.column(*c), &DataType::Utf8).map_err(arrow_error))
                    .collect::<Result<Vec<_>, _>>()?;
                (0..rows)
                    .map(|row| {
                        let value: Vec<Option<String>> = texts
                            .iter()
                            .map(|t| t.as_string::<i32>())
                            .map(|t| (!t.is_null(row)).then(|| t.value(row).to_owned()))
                            .collect();
                        self.lists
                            .get(&value)
                            .copied()
                            .ok_or_else(|| homeless(batch, columns, row, table))
                    })
                    .collect()
            }
        }
    }

    /// NULL belongs where MINVALUE does.
    fn range_of(&self, key: Option<RangeKey>) -> Option<usize> {
        let at = key.map_or(Bound::Min, Bound::At);
        let above = self.ranges.partition_point(|(lower, ..)| *lower <= at);
        let (_, upper, partition) = self.ranges.get(above.checked_sub(1)?)?;
        (at < *upper).then_some(*partition)
    }

    fn buckets_of(
        &mut self,
        batch: &RecordBatch,
        partitions: &[usize],
        table: &Table,
    ) -> Result<Vec<usize>, Error> {
        let width = |partition: usize| table.partitions[partition].tablets.len().max(1);
        match &self.hasher {
            Some(converter) => {
                let columns: Vec<ArrayRef> = self
                    .hash_columns
                    .iter()
                    .map(|c| batch.column(*c).clone())
                    .collect();
                let rows = converter.convert_columns(&columns).map_err(arrow_error)?;
                let hashes = rows
                    .iter()
                    .map(|row| XxHash64::oneshot(0, row.as_ref()) as usize);
                Ok(hashes
                    .zip(partitions)
                    .map(|(hash, p)| hash % width(*p))
                    .collect())
            }
            None => {
                // RANDOM: whole batches go round, so that small INSERTs make one file.
                self.random = (self.random + 1) % self.buckets.max(1);
                Ok(partitions.iter().map(|p| self.random % width(*p)).collect())
            }
        }
    }
}

fn range_keys(array: &ArrayRef, ty: &ColumnType) -> Result<Vec<Option<RangeKey>>, Error> {
    let (wide, key): (DataType, fn(i64) -> RangeKey) = match ty {
        ColumnType::Date => (DataType::Int32, |n| RangeKey::Date(n as i32)),
        ColumnType::DateTime => (
            DataType::Timestamp(TimeUnit::Microsecond, None),
            RangeKey::DateTime,
        ),
        _ => (DataType::Int64, RangeKey::Int),
    };
    let typed = cast(array, &wide)
        .and_then(|a| cast(&a, &DataType::Int64))
        .map_err(arrow_error)?;
    Ok(typed
        .as_primitive::<Int64Type>()
        .iter()
        .map(|value| value.map(key))
        .collect())
}

fn homeless(batch: &RecordBatch, columns: &[usize], row: usize, table: &Table) -> Error {
    let values: Vec<String> = columns
        .iter()
        .map(|c| {
            let shown =
                datafusion::arrow::util::display::array_value_to_string(batch.column(*c), row)
                    .unwrap_or_default();
            format!(
                "{} = {}",
                batch.schema().field(*c).name(),
                if shown.is_empty() {
                    "NULL".into()
                } else {
                    shown
                }
            )
        })
        .collect();
    Error::new(
        ErrorKind::NoPartition,
        format!(
            "no partition of table \"{}\" takes the row with {}",
            table.name,
            values.join(", ")
        ),
    )
    .hint("Add a partition with ALTER TABLE … ADD PARTITION. Nothing was written.")
}
