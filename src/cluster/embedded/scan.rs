//! Tables as DataFusion providers: Parquet files with partition pruning, and merge-on-read as a
//! plan over them.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::source::ParquetSource;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::provider_as_source;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::functions_aggregate::expr_fn::{last_value, max, min, sum};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, cast, lit,
};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::ident;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::be::Backends;
use super::metastore::{Partition, ReadGuard, Table};
use crate::error::{Error, ErrorKind};
use crate::scan_at_once::scan_at_once;
use crate::schema::{
    Aggregate, Bound, Bounds, ColumnType, DefaultValue, KeyModel, RangeKey, SEQUENCE_COLUMN,
    TableSchema,
};

/// The provider of a table, as queries see it.
pub(super) fn provider(
    table: &Arc<Table>,
    backends: &Arc<Backends>,
    guard: &Arc<ReadGuard>,
) -> DfResult<Arc<dyn TableProvider>> {
    let files = FilesTable {
        table: table.clone(),
        partitions: table.partitions.clone(),
        schema: table.schema.file_arrow(),
        backends: backends.clone(),
        _guard: guard.clone(),
    };
    let defaults = defaults(&table.schema);
    let merged = match table.schema.key {
        KeyModel::Duplicate => None,
        _ => Some(merged_plan(table, Arc::new(files.clone()), false)?),
    };
    // NOT NULL is checked when rows are written, by our own words; DataFusion would check the
    // columns of VALUES by theirs.
    let nullable = table
        .schema
        .arrow()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect::<Vec<_>>();
    Ok(Arc::new(UserTable {
        files,
        schema: Schema::new(nullable).into(),
        merged,
        defaults,
    }))
}

/// The table that a provider of this module reads.
pub(super) fn table_of(provider: &dyn TableProvider) -> Option<&Arc<Table>> {
    let provider = provider as &dyn Any;
    let files = provider
        .downcast_ref::<UserTable>()
        .map(|t| &t.files)
        .or_else(|| provider.downcast_ref::<FilesTable>());
    files.map(|files| &files.table)
}

/// The rows of some partitions in the form in which they are rewritten: merged, the hidden column
/// kept.
pub(super) fn rewrite_plan(
    table: &Arc<Table>,
    partition: &Arc<Partition>,
    backends: &Arc<Backends>,
    guard: &Arc<ReadGuard>,
) -> DfResult<LogicalPlan> {
    let files = FilesTable {
        table: table.clone(),
        partitions: vec![partition.clone()],
        schema: table.schema.file_arrow(),
        backends: backends.clone(),
        _guard: guard.clone(),
    };
    match table.schema.key {
        KeyModel::Duplicate => {
            LogicalPlanBuilder::scan(bare(table), provider_as_source(Arc::new(files)), None)?
                .build()
        }
        _ => {
            let plan = merged_plan(table, Arc::new(files), true)?;
            LogicalPlanBuilder::from(plan)
                .alias(datafusion::common::TableReference::bare(
                    table.name.as_str(),
                ))?
                .build()
        }
    }
}

/// The table's own name, taken as it is: a text would be folded and split at its dots.
fn bare(table: &Table) -> datafusion::common::TableReference {
    datafusion::common::TableReference::bare(table.name.as_str())
}

/// One row per key: grouped by the key columns, every other column combined as its model says.
fn merged_plan(
    table: &Table,
    files: Arc<FilesTable>,
    keep_sequence: bool,
) -> DfResult<LogicalPlan> {
    let schema = &table.schema;
    let name =
        datafusion::common::TableReference::partial(table.database.as_str(), table.name.as_str());
    let scan = LogicalPlanBuilder::scan(name, provider_as_source(files), None)?;
    let keys: Vec<Expr> = schema.key_columns.iter().map(ident).collect();
    let newest_last = || vec![ident(SEQUENCE_COLUMN).sort(true, false)];
    let mut combined = Vec::new();
    for column in &schema.columns[schema.key_columns.len()..] {
        let value = ident(&column.name);
        let expr = match column.aggregate {
            Some(Aggregate::Sum) => sum(value),
            Some(Aggregate::Min) => min(value),
            Some(Aggregate::Max) => max(value),
            Some(Aggregate::Replace) | None => last_value(value, newest_last()),
        };
        combined.push(expr.alias(&column.name));
    }
    if keep_sequence && schema.has_sequence() {
        combined.push(max(ident(SEQUENCE_COLUMN)).alias(SEQUENCE_COLUMN));
    }
    let grouped = scan.aggregate(keys, combined)?;
    // SUM widens its type; the column's own comes back here, and a sum that does not fit is an
    // error.
    let mut projected: Vec<Expr> = Vec::new();
    for column in &schema.columns {
        let value = ident(&column.name);
        projected.push(match column.aggregate {
            Some(Aggregate::Sum) => cast(value, column.column_type.arrow()).alias(&column.name),
            _ => value,
        });
    }
    if keep_sequence && schema.has_sequence() {
        projected.push(ident(SEQUENCE_COLUMN));
    }
    grouped.project(projected)?.build()
}

fn defaults(schema: &TableSchema) -> HashMap<String, Expr> {
    let mut defaults = HashMap::new();
    for column in &schema.columns {
        let value = match &column.default {
            Some(DefaultValue::Literal(text)) => {
                cast(lit(text.clone()), column.column_type.arrow())
            }
            Some(DefaultValue::CurrentTimestamp) => cast(
                datafusion::functions::expr_fn::now(),
                column.column_type.arrow(),
            ),
            Some(DefaultValue::Null) | None => continue,
        };
        defaults.insert(column.name.clone(), value);
    }
    defaults
}

/// A table as users see it.
#[derive(Debug)]
struct UserTable {
    files: FilesTable,
    schema: SchemaRef,
    /// For the models whose rows are merged.
    merged: Option<LogicalPlan>,
    defaults: HashMap<String, Expr>,
}

#[async_trait]
impl TableProvider for UserTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        self.merged.as_ref().map(Cow::Borrowed)
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(column)
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        match &self.merged {
            None => self.files.scan(state, projection, filters, limit).await,
            // Planned here only where the analyzer has not put the plan in the table's place.
            Some(plan) => {
                let mut builder = LogicalPlanBuilder::from(plan.clone());
                if let Some(projection) = projection {
                    builder = builder.project(
                        projection
                            .iter()
                            .map(|i| ident(self.schema.field(*i).name())),
                    )?;
                }
                state.create_physical_plan(&builder.build()?).await
            }
        }
    }
}

/// The files of a table, hidden column included.
#[derive(Clone, Debug)]
struct FilesTable {
    table: Arc<Table>,
    partitions: Vec<Arc<Partition>>,
    schema: SchemaRef,
    backends: Arc<Backends>,
    _guard: Arc<ReadGuard>,
}

impl FilesTable {
    fn planned(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let df_schema = DFSchema::try_from(self.schema.clone())?;
        let predicate = match conjunction(filters.to_vec()) {
            Some(filter) => Some(state.create_physical_expr(filter, &df_schema)?),
            None => None,
        };
        let kept: Vec<bool> = match &predicate {
            // A predicate that cannot be used for pruning prunes nothing.
            Some(predicate) => PruningPredicateBuilder::new()
                .with_file_schema(self.schema.clone())
                .try_build(predicate.clone())
                .and_then(|p| p.prune(self))
                .unwrap_or_else(|_| vec![true; self.partitions.len()]),
            None => vec![true; self.partitions.len()],
        };
        let mut files = Vec::new();
        for (partition, _) in self.partitions.iter().zip(kept).filter(|(_, kept)| *kept) {
            for tablet in &partition.tablets {
                for file in &tablet.files {
                    let path = self.backends.readable(&tablet.replicas, tablet.id, file).ok_or_else(|| {
                        DataFusionError::External(Box::new(
                            Error::new(
                                ErrorKind::MissingFile,
                                format!("no replica of tablet {} of table {} can be read", tablet.id, self.table.name),
                            )
                            .detail(format!("file {} is on none of backends {:?}", file.sha256, tablet.replicas))
                            .hint("See SHOW BACKENDS; RESTORE the partition if the backends are lost."),
                        ))
                    })?;
                    let location = Path::from_absolute_path(&path)
                        .map_err(|e| DataFusionError::External(Box::new(e)))?;
                    files.push(PartitionedFile::new_from_meta(ObjectMeta {
                        location,
                        last_modified: Default::default(),
                        size: file.bytes,
                        e_tag: None,
                        version: None,
                    }));
                }
            }
        }
        let columns: SchemaRef = match projection {
            Some(projection) => self.schema.project(projection)?.into(),
            None => self.schema.clone(),
        };
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(columns)));
        }
        let mut source = ParquetSource::new(self.schema.clone());
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config =
            FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
                .with_file_groups(groups)
                .with_projection_indices(projection.cloned())?
                .with_limit(limit)
                .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    scan_at_once!();
}

/// What the bounds of the partitions say about their partition column.
impl PruningStatistics for FilesTable {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound_values(column, |bounds, ty| match bounds {
            Bounds::Range {
                lower: Bound::At(key),
                ..
            } => scalar(*key, ty),
            Bounds::List(_) => list_values(bounds, ty)?
                .into_iter()
                .reduce(|a, b| if b < a { b } else { a }),
            _ => None,
        })
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound_values(column, |bounds, ty| match bounds {
            // The upper end does not belong; the value below it is the greatest that can.
            Bounds::Range {
                upper: Bound::At(key),
                ..
            } => scalar(
                match key {
                    RangeKey::Int(n) => RangeKey::Int(n.checked_sub(1)?),
                    RangeKey::Date(n) => RangeKey::Date(n.checked_sub(1)?),
                    RangeKey::DateTime(n) => RangeKey::DateTime(n.checked_sub(1)?),
                },
                ty,
            ),
            Bounds::List(_) => list_values(bounds, ty)?
                .into_iter()
                .reduce(|a, b| if b > a { b } else { a }),
            _ => None,
        })
    }

    fn num_containers(&self) -> usize {
        self.partitions.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(
        &self,
        _column: &Column,
        _values: &std::collections::HashSet<ScalarValue>,
    ) -> Option<datafusion::arrow::array::BooleanArray> {
        None
    }
}

impl FilesTable {
    fn bound_values(
        &self,
        column: &Column,
        value: impl Fn(&Bounds, &ColumnType) -> Option<ScalarValue>,
    ) -> Option<ArrayRef> {
        if self.table.schema.partition_columns() != [column.name.clone()] {
            return None;
        }
        let ty = self.table.schema.partition_type()?;
        let null = ScalarValue::try_from(ty.arrow()).ok()?;
        let values = self
            .partitions
            .iter()
            .map(|p| value(&p.bounds, ty).unwrap_or_else(|| null.clone()));
        ScalarValue::iter_to_array(values).ok()
    }
}

fn scalar(key: RangeKey, ty: &ColumnType) -> Option<ScalarValue> {
    let value = match key {
        RangeKey::Int(n) => ScalarValue::Int64(Some(n)),
        RangeKey::Date(n) => ScalarValue::Date32(Some(n)),
        RangeKey::DateTime(n) => ScalarValue::TimestampMicrosecond(Some(n), None),
    };
    value.cast_to(&ty.arrow()).ok()
}

/// The values of a list partition, or nothing if NULL is among them or one does not read.
fn list_values(bounds: &Bounds, ty: &ColumnType) -> Option<Vec<ScalarValue>> {
    let Bounds::List(rows) = bounds else {
        return None;
    };
    rows.iter()
        .map(|row| {
            ScalarValue::Utf8(row.first()?.clone())
                .cast_to(&ty.arrow())
                .ok()
                .filter(|v| !v.is_null())
        })
        .collect()
}
