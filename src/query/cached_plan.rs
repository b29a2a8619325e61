//! The plans of prepared statements, kept from one run to the next without the tables that they
//! were made against.
//!
//! A plan holds its tables as they were when it was made, and a table of the cluster keeps its
//! files from being removed for as long as somebody holds it. So a cached plan has placeholders in
//! their places: each run fills them with the tables of its own instant, and where one of them is
//! not what it was, the statement is planned anew.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::{TableType, provider_as_source, source_as_provider};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast as sql;

use super::to_datafusion_dialect;
use crate::cluster::Cluster;
use crate::error::{Error, from_datafusion};
use crate::names::DatabaseName;

/// What a plan depends on beside its text.
#[derive(Clone, Debug)]
pub struct PlanningContext {
    pub database: Option<DatabaseName>,
    pub time_zone: String,
    /// ALTER CLUSTER puts another one in its place.
    pub cluster: Arc<dyn Cluster>,
    /// Whether statements go to the cluster as they are.
    pub passes_through: bool,
}

impl PartialEq for PlanningContext {
    fn eq(&self, other: &Self) -> bool {
        self.database == other.database
            && self.time_zone == other.time_zone
            && self.passes_through == other.passes_through
            && Arc::ptr_eq(&self.cluster, &other.cluster)
    }
}

/// A plan with placeholders where its tables were.
#[derive(Clone, Debug)]
pub struct CachedPlan(LogicalPlan);

/// What stands in a table's place: all of it that a plan was made of.
#[derive(Clone, Debug, PartialEq)]
struct TablePlaceholder {
    schema: SchemaRef,
    /// What an INSERT that leaves a column out puts there.
    defaults: Vec<Option<Expr>>,
}

impl TablePlaceholder {
    fn of(source: &dyn TableSource) -> Self {
        let schema = source.schema();
        let default = |field: &Arc<Field>| source.get_column_default(field.name()).cloned();
        Self {
            defaults: schema.fields().iter().map(default).collect(),
            schema,
        }
    }
}

impl TableSource for TablePlaceholder {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// A table by its name, unless it is a plan itself, as views are and tables whose equal keys are
/// merged: its leaves have other names.
async fn table(
    state: &SessionState,
    name: &TableReference,
) -> Result<Option<Arc<dyn TableProvider>>, Error> {
    let Ok(schema) = state.schema_for_ref(name.clone()) else {
        return Ok(None);
    };
    let found = schema.table(name.table()).await.map_err(from_datafusion)?;
    Ok(found.filter(|t| t.table_type() != TableType::View && t.get_logical_plan().is_none()))
}

impl CachedPlan {
    /// A plan of this statement to keep; nothing if it reads or changes what is a plan itself, or
    /// reads itself.
    pub async fn of(
        plan: &LogicalPlan,
        ast: &sql::Statement,
        state: &SessionState,
        cluster: &dyn Cluster,
    ) -> Result<Option<Self>, Error> {
        // The working table of a recursive query is a scan by a name that a table may have, too.
        if is_recursive(ast) {
            return Ok(None);
        }
        let statement = Statement::Statement(Box::new(to_datafusion_dialect(ast)?));
        let names = state
            .resolve_table_references(&statement)
            .map_err(from_datafusion)?;
        let mut known = HashSet::new();
        for name in names {
            if table(state, &name).await?.is_none() {
                return Ok(None);
            }
            known.insert(name);
        }
        // What is not named as a table is made by a function after FROM, and stays.
        let blanked = replaced(plan, |name, source| {
            known
                .contains(name)
                .then(|| Arc::new(TablePlaceholder::of(&**source)) as Arc<dyn TableSource>)
        })?;
        // Whatever a name meant: no table of the cluster is kept.
        let mut holds_a_table = false;
        blanked
            .apply_with_subqueries(|node| {
                if let Some((_, source)) = table_in(node)
                    && placeholder(source).is_none()
                {
                    holds_a_table |= cluster.table_of(&*source_as_provider(source)?).is_some();
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .map_err(from_datafusion)?;
        Ok((!holds_a_table).then_some(Self(blanked)))
    }

    /// The plan against the tables of this state; nothing if one of them has changed its columns or
    /// their defaults, or is gone.
    pub async fn against(&self, state: &SessionState) -> Result<Option<LogicalPlan>, Error> {
        let mut placeholders = HashMap::new();
        self.0
            .apply_with_subqueries(|node| {
                if let Some((name, source)) = table_in(node)
                    && let Some(before) = placeholder(source)
                {
                    placeholders.insert(name.clone(), before.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .map_err(from_datafusion)?;
        let mut tables = HashMap::new();
        for (name, before) in placeholders {
            let Some(now) = table(state, &name).await?.map(provider_as_source) else {
                return Ok(None);
            };
            if TablePlaceholder::of(&*now) != before {
                return Ok(None);
            }
            tables.insert(name, now);
        }
        replaced(&self.0, |name, source| {
            placeholder(source).and_then(|_| tables.get(name)).cloned()
        })
        .map(Some)
    }
}

fn is_recursive(ast: &sql::Statement) -> bool {
    struct Recursive;
    impl sql::Visitor for Recursive {
        type Break = ();
        fn pre_visit_query(&mut self, query: &sql::Query) -> ControlFlow<()> {
            let is_recursive = query.with.as_ref().is_some_and(|with| with.recursive);
            if is_recursive {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    }
    sql::Visit::visit(ast, &mut Recursive).is_break()
}

/// The table that a node reads or changes, and its name.
fn table_in(node: &LogicalPlan) -> Option<(&TableReference, &Arc<dyn TableSource>)> {
    match node {
        LogicalPlan::TableScan(scan) => Some((&scan.table_name, &scan.source)),
        LogicalPlan::Dml(dml) => Some((&dml.table_name, &dml.target)),
        _ => None,
    }
}

fn placeholder(source: &Arc<dyn TableSource>) -> Option<&TablePlaceholder> {
    (&**source as &dyn Any).downcast_ref()
}

/// A plan with other tables in the places of those for which there are any.
fn replaced(
    plan: &LogicalPlan,
    other: impl Fn(&TableReference, &Arc<dyn TableSource>) -> Option<Arc<dyn TableSource>>,
) -> Result<LogicalPlan, Error> {
    let replaced = plan.clone().transform_up_with_subqueries(|mut node| {
        let Some(source) = table_in(&node).and_then(|(name, source)| other(name, source)) else {
            return Ok(Transformed::no(node));
        };
        match &mut node {
            LogicalPlan::TableScan(scan) => scan.source = source,
            LogicalPlan::Dml(dml) => dml.target = source,
            _ => {}
        }
        Ok(Transformed::yes(node))
    });
    Ok(replaced.map_err(from_datafusion)?.data)
}
