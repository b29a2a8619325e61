//! What a system table is: its rows, where they come from and what a query wants of them.

mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use futures::stream::BoxStream;
use parking_lot::RwLock;

pub(super) use self::row::{
    Bool, ColumnValue, Double, Int, Key, SystemRow, Text, Texts, Time, column_name, system_row,
};
use crate::cluster::{Cluster, Clusters};
use crate::env::Env;
use crate::error::Error;
use crate::names::{JobId, Timestamp};
use crate::progress::Progress;
use crate::repository::OpenRepository;
use crate::store::{ALL_JOBS, Span, Store};

/// Where the system tables get their rows.
#[derive(Debug)]
pub struct Sources {
    /// Jobs, repositories, users.
    pub store: Arc<dyn Store>,
    /// What running jobs say about themselves.
    pub progress: Arc<Progress>,
    pub clusters: Arc<Clusters>,
    /// Opens repositories, to list what is in them.
    pub open: Arc<dyn OpenRepository>,
    pub env: Env,
    /// Name, value and meaning of each setting.
    pub settings: Vec<(String, String, String)>,
    /// Open sessions, by number.
    pub sessions: RwLock<BTreeMap<i32, SessionRow>>,
}

/// A row of `system.sessions`.
#[derive(Clone, Debug)]
pub struct SessionRow {
    pub user: String,
    pub cluster: String,
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

/// Equalities of the query with constants, and the columns that it reads: a table may gather less.
/// DataFusion filters again.
#[derive(Clone, Debug, Default)]
pub(super) struct ScanRequest {
    equal: BTreeMap<String, ScalarValue>,
    spans: BTreeMap<String, Span<ScalarValue>>,
    columns: BTreeSet<String>,
    /// The order that the rows are to come in, if it matters.
    pub order: Option<RowOrder>,
}

/// An order that the rows of a table come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowOrder {
    pub key: Key,
    pub descending: bool,
}

impl ScanRequest {
    /// What these filters say, and these columns and those that the filters read.
    pub fn of(filters: &[Expr], mut columns: BTreeSet<String>) -> Self {
        let read = filters.iter().flat_map(Expr::column_refs);
        columns.extend(read.map(|column| column.name.clone()));
        let mut wanted = Self {
            columns,
            ..Self::default()
        };
        for filter in filters {
            // `WHERE flag` is what becomes of `WHERE flag = true`.
            if let Expr::Column(Column { name, .. }) = filter {
                wanted
                    .equal
                    .insert(name.clone(), ScalarValue::Boolean(Some(true)));
            }
            let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else {
                continue;
            };
            match (&**left, &**right) {
                (Expr::Column(column), Expr::Literal(value, _)) => {
                    wanted.compare(&column.name, *op, value);
                }
                (Expr::Literal(value, _), Expr::Column(column)) => {
                    if let Some(op) = op.swap() {
                        wanted.compare(&column.name, op, value);
                    }
                }
                _ => {}
            }
        }
        wanted
    }

    /// Bounds are taken as included ones.
    fn compare(&mut self, column: &str, op: Operator, value: &ScalarValue) {
        if op == Operator::Eq {
            self.equal.insert(column.to_owned(), value.clone());
        }
        let span = self.spans.entry(column.to_owned()).or_default();
        if matches!(op, Operator::Eq | Operator::Gt | Operator::GtEq) {
            span.raise(value.clone());
        }
        if matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq) {
            span.lower(value.clone());
        }
    }

    /// These equalities and columns.
    pub fn exactly(equal: BTreeMap<String, ScalarValue>, columns: BTreeSet<String>) -> Self {
        let mut wanted = Self {
            columns,
            ..Self::default()
        };
        for (column, value) in equal {
            wanted.compare(&column, Operator::Eq, &value);
        }
        wanted
    }

    /// Whether the query reads this column.
    pub fn needs(&self, column: &str) -> bool {
        self.columns.contains(column)
    }

    pub fn text(&self, column: &str) -> Option<String> {
        self.equal
            .get(column)?
            .try_as_str()
            .flatten()
            .map(str::to_owned)
    }

    pub fn is_true(&self, column: &str) -> bool {
        matches!(
            self.equal.get(column),
            Some(ScalarValue::Boolean(Some(true)))
        )
    }

    pub fn int(&self, column: &str) -> Option<i64> {
        match self.equal.get(column)? {
            ScalarValue::Int64(v) => *v,
            _ => None,
        }
    }

    /// The numbers that a job can have.
    pub fn ids(&self) -> Span<JobId> {
        self.span("job_id", |value| match value {
            ScalarValue::Int64(number) => number.map(JobId),
            _ => None,
        })
    }

    pub fn id_range(&self) -> RangeInclusive<JobId> {
        let ids = self.ids();
        ids.from.unwrap_or(*ALL_JOBS.start())..=ids.to.unwrap_or(*ALL_JOBS.end())
    }

    /// The times that a column can have, rounded down to what is stored.
    pub fn times(&self, column: &str) -> Span<Timestamp> {
        self.span(column, |value| match value {
            ScalarValue::TimestampMicrosecond(micros, Some(_)) => {
                micros.map(|micros| Timestamp(micros.div_euclid(1000)))
            }
            _ => None,
        })
    }

    fn span<T>(&self, column: &str, read: fn(&ScalarValue) -> Option<T>) -> Span<T> {
        let bounds = self.spans.get(column);
        Span {
            from: bounds.and_then(|span| read(span.from.as_ref()?)),
            to: bounds.and_then(|span| read(span.to.as_ref()?)),
        }
    }

    /// Whether the rows are to come from the largest to the smallest.
    pub fn descending(&self) -> bool {
        self.order.is_some_and(|order| order.descending)
    }
}

/// What a table is scanned for, and from which point of view.
#[derive(Clone, Debug)]
pub(super) struct ScanContext {
    pub sources: Arc<Sources>,
    /// The cluster that the session is connected to.
    pub cluster: Arc<dyn Cluster>,
    /// The user, who may not see everything.
    pub viewer: String,
    pub request: ScanRequest,
}

/// Rows as they come, some at a time.
pub(super) type Chunks<R> = BoxStream<'static, Result<Vec<R>, Error>>;

pub(super) trait SystemTable: Debug + Send + Sync {
    fn name(&self) -> &'static str;

    fn schema(&self) -> SchemaRef;

    /// The orders that its rows can come in, either way; each is unique.
    fn keys(&self) -> &'static [Key];

    /// Its rows, gathered while somebody takes them.
    fn scan(&self, context: Arc<ScanContext>) -> BoxStream<'static, Result<RecordBatch, Error>>;
}
