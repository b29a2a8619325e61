//! The columns of an answer as PostgreSQL describes them: their names, and which column of which
//! table each one is.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};
use datafusion::sql::sqlparser::ast as sql;

use super::SYSTEM_SCHEMA;
use crate::catalog::{MODIFIER_KEY, ORIGIN_KEY, TYPE_KEY, relation_oid};
use crate::cluster::Cluster;
use crate::schema::SEQUENCE_COLUMN;
use crate::statement::column_name;

/// A column of a table that a column of the answer is.
struct Origin {
    table: Arc<dyn TableProvider>,
    named: datafusion::common::TableReference,
    column: String,
}

/// Follows a column of a plan down to the table that it comes from as it is.
fn origin(plan: &LogicalPlan, at: usize) -> Option<Origin> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let mut expr = projection.expr.get(at)?;
            while let Expr::Alias(alias) = expr {
                expr = &alias.expr;
            }
            let Expr::Column(column) = expr else {
                return None;
            };
            origin(
                &projection.input,
                projection.input.schema().maybe_index_of_column(column)?,
            )
        }
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, at),
        LogicalPlan::Filter(filter) => origin(&filter.input, at),
        LogicalPlan::Sort(sort) => origin(&sort.input, at),
        LogicalPlan::Limit(limit) => origin(&limit.input, at),
        LogicalPlan::Window(window) if at < window.input.schema().fields().len() => {
            origin(&window.input, at)
        }
        LogicalPlan::Aggregate(aggregate) => {
            if let Some(expr) = aggregate.group_expr.get(at) {
                let Expr::Column(column) = expr else {
                    return None;
                };
                return origin(
                    &aggregate.input,
                    aggregate.input.schema().maybe_index_of_column(column)?,
                );
            }
            // A table whose newest rows win is read as an aggregate over its files: still the
            // table's column. No statement can name the hidden column, so no other aggregate stands
            // right on such a scan.
            let LogicalPlan::TableScan(scan) = &*aggregate.input else {
                return None;
            };
            let is_merge = scan.source.schema().index_of(SEQUENCE_COLUMN).is_ok();
            let Expr::Alias(alias) = aggregate
                .aggr_expr
                .get(at - aggregate.group_expr.len())
                .filter(|_| is_merge)?
            else {
                return None;
            };
            origin(
                &aggregate.input,
                scan.projected_schema
                    .fields()
                    .iter()
                    .position(|f| *f.name() == alias.name)?,
            )
        }
        LogicalPlan::Distinct(datafusion::logical_expr::Distinct::All(input)) => origin(input, at),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            match join.join_type {
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full
                    if at < left =>
                {
                    origin(&join.left, at)
                }
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                    origin(&join.right, at - left)
                }
                JoinType::LeftSemi | JoinType::LeftAnti => origin(&join.left, at),
                _ => None,
            }
        }
        LogicalPlan::TableScan(scan) => {
            let field = scan.projected_schema.fields().get(at)?;
            let table = source_as_provider(&scan.source).ok()?;
            Some(Origin {
                table,
                named: scan.table_name.clone(),
                column: field.name().clone(),
            })
        }
        _ => None,
    }
}

/// The names that PostgreSQL gives to the items of a SELECT list; nothing where the item says its
/// own.
fn item_names(ast: &sql::Statement, width: usize) -> Vec<Option<String>> {
    let mut names = vec![None; width];
    let sql::Statement::Query(query) = ast else {
        return names;
    };
    let mut body = &*query.body;
    loop {
        match body {
            sql::SetExpr::SetOperation { left, .. } => body = left,
            sql::SetExpr::Query(inner) => body = &inner.body,
            _ => break,
        }
    }
    let sql::SetExpr::Select(select) = body else {
        return names;
    };
    let is_star = |item: &sql::SelectItem| {
        matches!(
            item,
            sql::SelectItem::Wildcard(_) | sql::SelectItem::QualifiedWildcard(..)
        )
    };
    let stars = select.projection.iter().filter(|i| is_star(i)).count();
    // One star takes what the others leave; of two nobody can tell who takes what.
    if stars > 1 {
        return names;
    }
    let taken = (width + stars).saturating_sub(select.projection.len());
    let mut at = 0;
    for item in &select.projection {
        if is_star(item) {
            at += taken;
            continue;
        }
        if let (sql::SelectItem::UnnamedExpr(expr), Some(name)) = (item, names.get_mut(at)) {
            *name = match expr {
                // The plan's name has the column's own spelling.
                sql::Expr::Identifier(_) | sql::Expr::CompoundIdentifier(_) => None,
                expr => Some(column_name(expr)),
            };
        }
        at += 1;
    }
    names
}

/// The schema of an answer with PostgreSQL's names, and with what clients look up in the catalogs.
pub fn described_as(
    cluster: &dyn Cluster,
    schema: &SchemaRef,
    ast: &sql::Statement,
    plan: &LogicalPlan,
) -> SchemaRef {
    let names = item_names(ast, schema.fields().len());
    let fields = schema
        .fields()
        .iter()
        .zip(names)
        .enumerate()
        .map(|(i, (field, name))| {
            // What was told apart for the planner has its own name again.
            let name = name.unwrap_or_else(|| {
                field
                    .name()
                    .split('\u{1}')
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            });
            let mut metadata = HashMap::new();
            if let Some(said) = field.metadata().get(TYPE_KEY) {
                metadata.insert(TYPE_KEY.to_owned(), said.clone());
            }
            if let Some(origin) = origin(plan, i) {
                tell_origin(cluster, &origin, &mut metadata);
            }
            Field::new(name, field.data_type().clone(), field.is_nullable()).with_metadata(metadata)
        });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The schema of a view whose columns say what they are in the tables below.
pub fn view_schema(cluster: &dyn Cluster, provider: &dyn TableProvider) -> SchemaRef {
    let schema = provider.schema();
    let Some(plan) = provider.get_logical_plan() else {
        return schema;
    };
    let fields = schema.fields().iter().enumerate().map(|(i, field)| {
        let mut metadata = HashMap::new();
        if let Some(origin) = origin(&plan, i) {
            tell_origin(cluster, &origin, &mut metadata);
        }
        field.as_ref().clone().with_metadata(metadata)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn tell_origin(cluster: &dyn Cluster, origin: &Origin, metadata: &mut HashMap<String, String>) {
    let named = match cluster.table_of(&*origin.table) {
        Some(table) => table
            .database
            .map(|d| (d.to_string(), table.name.to_string())),
        None => {
            let schema = origin.named.schema().unwrap_or(SYSTEM_SCHEMA);
            (schema == SYSTEM_SCHEMA).then(|| (schema.to_owned(), origin.named.table().to_owned()))
        }
    };
    let Some((schema, table)) = named else { return };
    let columns = origin.table.schema();
    let Ok(place) = columns.index_of(&origin.column) else {
        return;
    };
    let oid = relation_oid(cluster.name().as_str(), &schema, &table);
    metadata.insert(ORIGIN_KEY.to_owned(), format!("{oid}.{}", place + 1));
    if let Some(length) = cluster.column_length(&*origin.table, &origin.column) {
        metadata.insert(
            TYPE_KEY.to_owned(),
            postgres_types::Type::VARCHAR.oid().to_string(),
        );
        metadata.insert(MODIFIER_KEY.to_owned(), (i64::from(length) + 4).to_string());
    }
}
