//! Schema `system`: tables made from rows that a function gathers when they are scanned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMicrosecondBuilder,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::{Column, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::RwLock;

use super::tables;
use crate::cluster::{Cluster, Clusters};
use crate::env::Env;
use crate::error::Error;
use crate::names::Timestamp;
use crate::progress::Progress;
use crate::repository::OpenRepository;
use crate::store::Store;

/// Where the system tables get their rows.
#[derive(Debug)]
pub struct Sources {
    /// Jobs, repositories, users.
    pub store: Arc<dyn Store>,
    /// What running jobs say about themselves.
    pub progress: Arc<Progress>,
    /// Every cluster.
    pub clusters: Arc<Clusters>,
    /// Opens repositories, to list what is in them.
    pub open: Arc<dyn OpenRepository>,
    /// Time.
    pub env: Env,
    /// Name, value and meaning of each setting.
    pub settings: Vec<(String, String, String)>,
    /// Open sessions, by number.
    pub sessions: RwLock<BTreeMap<i32, SessionRow>>,
}

/// A row of `system.sessions`.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// The user.
    pub user: String,
    /// The cluster.
    pub cluster: String,
    /// Where the client is.
    pub client_addr: String,
    /// What the client calls itself.
    pub application_name: Option<String>,
    /// Since when.
    pub started_at: Timestamp,
    /// What it does: `idle` or `active`.
    pub active: bool,
    /// Whether it is inside a transaction block.
    pub in_block: bool,
    /// When the last statement began.
    pub query_started_at: Option<Timestamp>,
    /// The last statement, without secrets.
    pub statement: Option<String>,
}

/// The types of system columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Int,
    Text,
    Bool,
    Time,
    Double,
    Texts,
}

/// One value of a system table.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Bool(bool),
    Time(Timestamp),
    Double(f64),
    Texts(Vec<String>),
}

impl Cell {
    /// A value from its text; what does not read is NULL, as a foreign system may write anything.
    pub fn read(text: &str, ty: Type) -> Self {
        let text = text.trim();
        let time = || {
            let parsed = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()?;
            Some(Self::Time(Timestamp(parsed.and_utc().timestamp_millis())))
        };
        match ty {
            Type::Text => Some(Self::Text(text.to_owned())),
            Type::Int => text.parse().ok().map(Self::Int),
            Type::Double => text.parse().ok().map(Self::Double),
            Type::Bool => text.parse().ok().map(Self::Bool),
            Type::Time => time(),
            Type::Texts => Some(Self::Texts(vec![text.to_owned()])),
        }
        .unwrap_or(Self::Null)
    }
}

impl From<i64> for Cell {
    fn from(v: i64) -> Self {
        Self::Int(v)
    }
}

impl From<u64> for Cell {
    fn from(v: u64) -> Self {
        Self::Int(i64::try_from(v).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Cell {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

impl From<Timestamp> for Cell {
    fn from(v: Timestamp) -> Self {
        Self::Time(v)
    }
}

impl From<f64> for Cell {
    fn from(v: f64) -> Self {
        Self::Double(v)
    }
}

impl From<String> for Cell {
    fn from(v: String) -> Self {
        Self::Text(v)
    }
}

impl From<&str> for Cell {
    fn from(v: &str) -> Self {
        Self::Text(v.to_owned())
    }
}

impl From<Vec<String>> for Cell {
    fn from(v: Vec<String>) -> Self {
        Self::Texts(v)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

/// Rows of a system table, in the order of its columns.
pub(super) type Rows = Vec<Vec<Cell>>;

/// A system table's name and columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Type)],
}

impl Definition {
    pub fn schema(&self) -> SchemaRef {
        let field = |(name, ty): &(&str, Type)| {
            let data_type = match ty {
                Type::Int => DataType::Int64,
                Type::Text => DataType::Utf8,
                Type::Bool => DataType::Boolean,
                Type::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                Type::Double => DataType::Float64,
                Type::Texts => DataType::List(Field::new_list_field(DataType::Utf8, true).into()),
            };
            Field::new(*name, data_type, true)
        };
        Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()).into()
    }

    /// One column of some rows.
    pub fn array(&self, rows: &Rows, column_at: usize) -> ArrayRef {
        column(rows, column_at, self.columns[column_at].1)
    }

    fn batch(&self, rows: &Rows) -> DfResult<RecordBatch> {
        let columns: Vec<ArrayRef> = self.columns.iter().enumerate().map(|(i, (_, ty))| column(rows, i, *ty)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(self.schema(), columns, &options)?)
    }
}

fn column(rows: &Rows, i: usize, ty: Type) -> ArrayRef {
    macro_rules! build {
        ($builder:expr, $variant:ident, $value:ident => $append:expr) => {{
            let mut builder = $builder;
            for row in rows {
                match &row[i] {
                    Cell::$variant($value) => builder.append_value($append),
                    Cell::Null => builder.append_null(),
                    other => unreachable!("{other:?} in a column of type {ty:?}"),
                }
            }
            Arc::new(builder.finish())
        }};
    }
    match ty {
        Type::Int => build!(Int64Builder::new(), Int, v => *v),
        Type::Text => build!(StringBuilder::new(), Text, v => v),
        Type::Bool => build!(BooleanBuilder::new(), Bool, v => *v),
        Type::Double => build!(Float64Builder::new(), Double, v => *v),
        Type::Time => build!(TimestampMicrosecondBuilder::new().with_timezone("UTC"), Time, v => v.micros()),
        Type::Texts => build!(ListBuilder::new(StringBuilder::new()), Texts, v => v.iter().map(Some)),
    }
}

/// Equalities of the query with constants, and the columns that it reads: a table may gather less. DataFusion filters again.
#[derive(Clone, Debug, Default)]
pub(super) struct ScanRequest {
    equal: BTreeMap<String, ScalarValue>,
    columns: BTreeSet<String>,
}

impl ScanRequest {
    fn of(filters: &[Expr], columns: BTreeSet<String>) -> Self {
        let mut wanted = Self { columns, ..Self::default() };
        for filter in filters {
            // `WHERE flag` is what becomes of `WHERE flag = true`.
            if let Expr::Column(Column { name, .. }) = filter {
                wanted.equal.insert(name.clone(), ScalarValue::Boolean(Some(true)));
            }
            if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter {
                match (&**left, &**right) {
                    (Expr::Column(Column { name, .. }), Expr::Literal(value, _))
                    | (Expr::Literal(value, _), Expr::Column(Column { name, .. })) => {
                        wanted.equal.insert(name.clone(), value.clone());
                    }
                    _ => {}
                }
            }
        }
        wanted
    }

    /// These equalities and columns.
    pub fn exactly(equal: BTreeMap<String, ScalarValue>, columns: BTreeSet<String>) -> Self {
        Self { equal, columns }
    }

    /// Whether the query reads this column.
    pub fn needs(&self, column: &str) -> bool {
        self.columns.contains(column)
    }

    pub fn text(&self, column: &str) -> Option<String> {
        self.equal.get(column)?.try_as_str().flatten().map(str::to_owned)
    }

    pub fn is_true(&self, column: &str) -> bool {
        matches!(self.equal.get(column), Some(ScalarValue::Boolean(Some(true))))
    }

    pub fn int(&self, column: &str) -> Option<i64> {
        match self.equal.get(column)? {
            ScalarValue::Int64(v) => *v,
            _ => None,
        }
    }
}

/// The schema of one cluster's point of view, for one user.
#[derive(Debug)]
pub(super) struct SystemSchema {
    sources: Arc<Sources>,
    cluster: Arc<dyn Cluster>,
    viewer: String,
}

impl SystemSchema {
    pub fn new(sources: Arc<Sources>, cluster: Arc<dyn Cluster>, viewer: &str) -> Self {
        Self { sources, cluster, viewer: viewer.to_owned() }
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        tables::DEFINITIONS.iter().map(|d| d.name.to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let found = tables::DEFINITIONS.iter().find(|d| d.name == name);
        Ok(found.map(|definition| {
            Arc::new(SystemTable {
                definition: *definition,
                schema: definition.schema(),
                sources: self.sources.clone(),
                cluster: self.cluster.clone(),
                viewer: self.viewer.clone(),
            }) as Arc<dyn TableProvider>
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        tables::DEFINITIONS.iter().any(|d| d.name == name)
    }
}

#[derive(Debug)]
struct SystemTable {
    definition: Definition,
    schema: SchemaRef,
    sources: Arc<Sources>,
    cluster: Arc<dyn Cluster>,
    viewer: String,
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let names = self.schema.fields().iter().map(|f| f.name().clone());
        let columns = match projection {
            Some(projection) => projection.iter().map(|i| self.schema.field(*i).name().clone()).collect(),
            None => names.collect(),
        };
        let mut wanted = ScanRequest::of(filters, columns);
        wanted.columns.extend(filters.iter().flat_map(|f| f.column_refs()).map(|c| c.name.clone()));
        let rows = tables::rows(self.definition.name, &self.sources, &self.cluster, &self.viewer, &wanted)
            .await
            .map_err(|e: Error| DataFusionError::External(Box::new(e)))?;
        let batch = self.definition.batch(&rows)?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema.clone(), projection.cloned())?)
    }
}
