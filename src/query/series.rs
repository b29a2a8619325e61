//! `generate_series` between integers: its column is one of integers in PostgreSQL, and of bigints
//! in DataFusion, to which every other series is left.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::Int32Array;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::functions_table::generate_series::GenerateSeriesFunc;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::memory::{LazyBatchGenerator, LazyMemoryExec};
use parking_lot::RwLock;

use crate::scan_at_once::scan_at_once;

/// The series that is left to DataFusion.
pub(super) const BIG_SERIES: &str = "series_of_bigints";

/// Its column where it has no alias.
const COLUMN: &str = "value";

#[derive(Debug)]
pub(super) struct Series;

impl TableFunctionImpl for Series {
    fn call_with_args(&self, args: TableFunctionArgs) -> DfResult<Arc<dyn TableProvider>> {
        let bounds = args.exprs().iter().map(integer);
        let bounds: Option<Vec<i32>> = bounds.collect();
        let (from, to, step) = match bounds.as_deref() {
            Some([from, to]) => (*from, *to, 1),
            Some([from, to, step]) if *step != 0 => (*from, *to, *step),
            _ => return GenerateSeriesFunc {}.call_with_args(args),
        };
        Ok(Arc::new(Integers {
            next: Some(from),
            from,
            to,
            step,
            rows: 0,
            schema: Arc::new(Schema::new(vec![Field::new(
                COLUMN,
                DataType::Int32,
                false,
            )])),
        }))
    }
}

fn integer(bound: &Expr) -> Option<i32> {
    match bound {
        Expr::Literal(ScalarValue::Int32(number), _) => *number,
        Expr::Literal(ScalarValue::Int64(number), _) => i32::try_from((*number)?).ok(),
        _ => None,
    }
}

/// A series, and where a reader of it stands.
#[derive(Clone, Debug)]
struct Integers {
    next: Option<i32>,
    from: i32,
    to: i32,
    step: i32,
    /// Rows of a batch.
    rows: usize,
    schema: SchemaRef,
}

impl Integers {
    fn planned(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let reader = Self {
            rows: state.config_options().execution.batch_size.get(),
            ..self.clone()
        };
        let reader = Arc::new(RwLock::new(reader));
        let mut plan = LazyMemoryExec::try_new(self.schema(), vec![reader])?
            .with_projection(projection.cloned());
        if !plan.schema().fields().is_empty() {
            let order = SortOptions {
                descending: self.step < 0,
                nulls_first: false,
            };
            let key = PhysicalSortExpr::new(Arc::new(Column::new(COLUMN, 0)), order);
            plan.add_ordering([key]);
        }
        Ok(Arc::new(plan))
    }
}

impl TableProvider for Integers {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    scan_at_once!();
}

impl Iterator for Integers {
    type Item = i32;

    fn next(&mut self) -> Option<i32> {
        let at = self.next?;
        let is_over = if self.step > 0 {
            at > self.to
        } else {
            at < self.to
        };
        self.next = at.checked_add(self.step).filter(|_| !is_over);
        (!is_over).then_some(at)
    }
}

impl LazyBatchGenerator for Integers {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn generate_next_batch(&mut self) -> DfResult<Option<RecordBatch>> {
        let rows = self.rows;
        let column: Vec<i32> = self.by_ref().take(rows).collect();
        if column.is_empty() {
            return Ok(None);
        }
        let column = Arc::new(Int32Array::from(column));
        Ok(Some(RecordBatch::try_new(
            self.schema.clone(),
            vec![column],
        )?))
    }

    fn reset_state(&self) -> Arc<RwLock<dyn LazyBatchGenerator>> {
        Arc::new(RwLock::new(Self {
            next: Some(self.from),
            ..self.clone()
        }))
    }
}

impl fmt::Display for Integers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, step, .. } = self;
        write!(f, "generate_series: {from}, {to}, {step}")
    }
}
