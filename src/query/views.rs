//! Views: a cluster's catalog gives their text, and here it becomes a plan, in the database that
//! the view is in.
//!
//! A view is planned where it is used, with the rights of the user who uses it. One whose query
//! does not plan any more (its table is gone) still stands in the catalog, and is an error when it
//! is read.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::{TableType, ViewTable};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::ident;

use super::{AsOf, SessionFacts, session_state, to_datafusion_dialect};
use crate::cluster::ViewSource;
use crate::error::{Error, ErrorKind};
use crate::scan_at_once::scan_at_once;
use crate::statement::{Statement, parse_one};

/// How deep views may stand on views. One that is replaced by a query over itself would have no
/// end.
const DEPTH_MAX: usize = 16;

/// How many views one view may read, counted with repetition. Depth alone bounds nothing: views
/// that read two others each are twice as many on every level.
const NESTED_MAX: usize = 256;

/// What is needed to plan a view: the state and session of the statement that uses it, and where it
/// stands.
#[derive(Debug)]
pub(super) struct ViewPlanner {
    pub base: SessionState,
    pub facts: SessionFacts,
    pub nesting: Nesting,
}

/// The views around a text that is planned.
#[derive(Clone, Debug, Default)]
pub(super) struct Nesting {
    depth: usize,
    /// Views planned so far for the outermost view around the text; none around a statement.
    planned: Option<Arc<AtomicUsize>>,
}

impl Nesting {
    /// Inside one more view; `None` when there are too many.
    fn deeper(&self) -> Option<Self> {
        let planned = self.planned.clone().unwrap_or_default();
        let fits = self.depth < DEPTH_MAX && planned.fetch_add(1, Ordering::Relaxed) < NESTED_MAX;
        fits.then_some(Self {
            depth: self.depth + 1,
            planned: Some(planned),
        })
    }
}

/// A database whose views are planned.
#[derive(Debug)]
pub(super) struct PlannedSchema {
    pub inner: Arc<dyn SchemaProvider>,
    pub as_of: AsOf,
    pub planner: Arc<ViewPlanner>,
}

#[async_trait]
impl SchemaProvider for PlannedSchema {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    fn table_exist(&self, name: &str) -> bool {
        self.inner.table_exist(name)
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        self.inner.table_type(name).await
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let Some(table) = self.inner.table(name).await? else {
            return Ok(None);
        };
        let Some(source) = (&*table as &dyn Any).downcast_ref::<ViewSource>() else {
            return Ok(Some(table));
        };
        let planned: Arc<dyn TableProvider> = match self.plan(name, source).await {
            Ok(plan) => Arc::new(ViewTable::new(
                plan,
                Some(source.definition().query.clone()),
            )),
            // Inside another view the reason is that one's, too.
            Err(error) if self.planner.nesting.depth > 0 => return Err(error),
            Err(error) => Arc::new(BrokenView {
                name: name.to_owned(),
                error: error.to_string(),
            }),
        };
        Ok(Some(planned))
    }
}

impl PlannedSchema {
    async fn plan(&self, name: &str, source: &ViewSource) -> DfResult<LogicalPlan> {
        let outer = &self.planner;
        let Some(nesting) = outer.nesting.deeper() else {
            let message = format!(
                "view \"{name}\" stands on itself, on {DEPTH_MAX} views one upon another, or on {NESTED_MAX} in all"
            );
            return Err(DataFusionError::External(Box::new(Error::new(
                ErrorKind::LimitExceeded,
                message,
            ))));
        };
        let facts = SessionFacts {
            current_schema: Some(source.database().to_string()),
            ..outer.facts.clone()
        };
        let state = session_state(&outer.base, &self.as_of, &facts, nesting)?;
        let ast = match parse_one(&source.definition().query) {
            Ok(Statement::Sql(ast)) => ast,
            Ok(_) => {
                return Err(DataFusionError::Internal(format!(
                    "view \"{name}\" is no query"
                )));
            }
            Err(e) => return Err(DataFusionError::External(Box::new(e))),
        };
        let ast =
            to_datafusion_dialect(&ast).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let plan = state
            .statement_to_plan(datafusion::sql::parser::Statement::Statement(Box::new(ast)))
            .await?;
        let zone = state.config_options().execution.time_zone.clone();
        let plan = super::meaning::as_postgresql(plan, zone.as_deref().unwrap_or("UTC"))?;
        let columns = &source.definition().columns;
        if columns.is_empty() {
            return Ok(plan);
        }
        let fields = plan.schema().columns();
        if fields.len() != columns.len() {
            return Err(DataFusionError::Plan(format!(
                "view \"{name}\" names {} columns where its query gives {}",
                columns.len(),
                fields.len()
            )));
        }
        let renamed = fields
            .into_iter()
            .zip(columns)
            .map(|(field, column)| Expr::Column(field).alias(&column.name));
        let renamed: Vec<Expr> = renamed.collect();
        LogicalPlanBuilder::from(plan)
            .project(renamed)?
            .project(columns.iter().map(|c| ident(&c.name)))?
            .build()
    }
}

/// A view whose query does not plan.
#[derive(Debug)]
struct BrokenView {
    name: String,
    error: String,
}

impl BrokenView {
    fn planned(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let error = Error::new(
            ErrorKind::WrongState,
            format!("view \"{}\" does not read: {}", self.name, self.error),
        )
        .hint("Bring back what it reads, or replace it with CREATE OR REPLACE VIEW.");
        Err(DataFusionError::External(Box::new(error)))
    }
}

impl TableProvider for BrokenView {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    scan_at_once!();
}
