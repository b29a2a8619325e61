//! Rows of one system table by equalities: what dashboards ask most, answered without a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::kernels::cmp;
use datafusion::arrow::compute::{concat_batches, filter_record_batch};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast as sql;
use futures::TryStreamExt;

use super::SYSTEM_SCHEMA;
use super::system::{ScanContext, ScanRequest, Sources, SystemTable};
use super::tables;
use crate::cluster::Cluster;
use crate::error::{Error, from_datafusion};
use crate::statement::folded;

/// What a column is compared with.
#[derive(Clone, Debug)]
enum Operand {
    Value(ScalarValue),
    /// `$n`, from 0.
    Parameter(usize),
}

/// `SELECT columns FROM system.table WHERE column = … AND …`
#[derive(Clone, Debug)]
pub struct Lookup {
    table: &'static dyn SystemTable,
    /// All of the table's columns.
    full: SchemaRef,
    /// The places of the columns, and what they are called.
    columns: Vec<(usize, String)>,
    equal: Vec<(usize, Operand)>,
}

/// `column = constant AND …`; `None` for anything else.
fn equalities(expr: &sql::Expr, found: &mut Vec<(String, Operand)>) -> Option<()> {
    match expr {
        sql::Expr::Nested(inner) => equalities(inner, found),
        sql::Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::And,
            right,
        } => {
            equalities(left, found)?;
            equalities(right, found)
        }
        sql::Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::Eq,
            right,
        } => {
            let (sql::Expr::Identifier(column), sql::Expr::Value(value)) = (&**left, &**right)
            else {
                return None;
            };
            let operand = match &value.value {
                sql::Value::Number(digits, _) => {
                    Operand::Value(ScalarValue::Int64(Some(digits.parse().ok()?)))
                }
                sql::Value::SingleQuotedString(text) => {
                    Operand::Value(ScalarValue::Utf8(Some(text.clone())))
                }
                sql::Value::Placeholder(name) => {
                    let number: usize = name
                        .strip_prefix('$')?
                        .parse()
                        .ok()
                        .filter(|n| (1..=64).contains(n))?;
                    Operand::Parameter(number - 1)
                }
                _ => return None,
            };
            found.push((folded(column), operand));
            Some(())
        }
        _ => None,
    }
}

impl Lookup {
    /// A query as a lookup; `None` for what only a planner can answer.
    pub fn read(query: &sql::Query, in_system: bool) -> Option<Self> {
        let sql::Query {
            with: None,
            body,
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks,
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators,
        } = query
        else {
            return None;
        };
        let sql::SetExpr::Select(select) = &**body else {
            return None;
        };
        let sql::Select {
            select_token: _,
            optimizer_hints,
            distinct: None,
            select_modifiers: None,
            top: None,
            top_before_distinct: _,
            projection,
            exclude: None,
            into: None,
            from,
            lateral_views,
            prewhere: None,
            selection: Some(selection),
            connect_by,
            group_by: sql::GroupByExpr::Expressions(groups, modifiers),
            cluster_by,
            distribute_by,
            sort_by,
            having: None,
            named_window,
            qualify: None,
            window_before_qualify: _,
            value_table_mode: None,
            flavor: sql::SelectFlavor::Standard,
        } = &**select
        else {
            return None;
        };
        let is_plain = locks.is_empty()
            && pipe_operators.is_empty()
            && optimizer_hints.is_empty()
            && lateral_views.is_empty()
            && connect_by.is_empty()
            && groups.is_empty()
            && modifiers.is_empty()
            && cluster_by.is_empty()
            && distribute_by.is_empty()
            && sort_by.is_empty()
            && named_window.is_empty();
        let [sql::TableWithJoins { relation, joins }] = from.as_slice() else {
            return None;
        };
        let sql::TableFactor::Table {
            name,
            alias: None,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } = relation
        else {
            return None;
        };
        let is_bare = joins.is_empty()
            && with_hints.is_empty()
            && partitions.is_empty()
            && index_hints.is_empty();
        if !is_plain || !is_bare {
            return None;
        }
        let part = |part: &sql::ObjectNamePart| part.as_ident().map(folded);
        let parts: Vec<String> = name.0.iter().map(part).collect::<Option<_>>()?;
        let table_name = match parts.as_slice() {
            [table] if in_system => table,
            [schema, table] if schema == SYSTEM_SCHEMA => table,
            _ => return None,
        };
        let mut equal = Vec::new();
        equalities(selection, &mut equal)?;
        let columns = match projection.as_slice() {
            [sql::SelectItem::Wildcard(options)] if *options == Default::default() => None,
            items => {
                let item = |item: &sql::SelectItem| match item {
                    sql::SelectItem::UnnamedExpr(sql::Expr::Identifier(column)) => {
                        Some((folded(column), folded(column)))
                    }
                    sql::SelectItem::ExprWithAlias {
                        expr: sql::Expr::Identifier(column),
                        alias,
                    } => Some((folded(column), folded(alias))),
                    _ => None,
                };
                Some(items.iter().map(item).collect::<Option<Vec<_>>>()?)
            }
        };
        Self::new(table_name, columns.as_deref(), &equal)
    }

    /// A lookup in a table, all of its columns for `None`; nothing if there is no such table or
    /// column, or if a column is of a type whose comparisons need a planner.
    fn new(
        table: &str,
        columns: Option<&[(String, String)]>,
        equal: &[(String, Operand)],
    ) -> Option<Self> {
        let table = tables::find(table)?;
        let full = table.schema();
        let place = |name: &str| full.fields().iter().position(|f| f.name() == name);
        let columns = match columns {
            Some(named) => named
                .iter()
                .map(|(column, name)| Some((place(column)?, name.clone())))
                .collect::<Option<_>>()?,
            None => full
                .fields()
                .iter()
                .enumerate()
                .map(|(i, f)| (i, f.name().clone()))
                .collect(),
        };
        let comparable = |(column, operand): &(String, Operand)| {
            let at = place(column)?;
            let wanted = full.field(at).data_type();
            let fits = match operand {
                Operand::Value(value) => value.data_type() == *wanted,
                Operand::Parameter(_) => true,
            };
            (fits && matches!(wanted, DataType::Int64 | DataType::Utf8))
                .then(|| (at, operand.clone()))
        };
        let equal = equal.iter().map(comparable).collect::<Option<_>>()?;
        Some(Self {
            table,
            full,
            columns,
            equal,
        })
    }

    pub fn schema(&self) -> SchemaRef {
        let fields = self
            .columns
            .iter()
            .map(|(i, name)| self.full.field(*i).clone().with_name(name));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The table, and the place in it of each column of the answer.
    pub fn origins(&self) -> (&'static str, impl Iterator<Item = usize>) {
        (self.table.name(), self.columns.iter().map(|(i, _)| *i))
    }

    /// The types of the parameters, by number.
    pub fn parameters(&self) -> Vec<DataType> {
        let full = &self.full;
        let mut types = Vec::new();
        for (column, operand) in &self.equal {
            if let Operand::Parameter(n) = operand {
                if types.len() <= *n {
                    types.resize(n + 1, DataType::Utf8);
                }
                types[*n] = full.field(*column).data_type().clone();
            }
        }
        types
    }

    /// The rows, as this user sees them.
    pub async fn rows(
        &self,
        sources: &Arc<Sources>,
        cluster: &Arc<dyn Cluster>,
        viewer: &str,
        values: &[ScalarValue],
    ) -> Result<RecordBatch, Error> {
        let full = &self.full;
        let mut equal = BTreeMap::new();
        let mut wanted = Vec::new();
        for (column, operand) in &self.equal {
            let value = match operand {
                Operand::Value(value) => Some(value.clone()),
                Operand::Parameter(n) => values.get(*n).cloned(),
            };
            let value = value.ok_or_else(|| Error::internal("a parameter is missing"))?;
            let value = value
                .cast_to(full.field(*column).data_type())
                .map_err(from_datafusion)?;
            if value.is_null() {
                // Nothing equals NULL.
                return Ok(RecordBatch::new_empty(self.schema()));
            }
            wanted.push((*column, value.to_scalar().map_err(from_datafusion)?));
            equal.insert(full.field(*column).name().clone(), value);
        }
        let named = self
            .columns
            .iter()
            .map(|(i, _)| *i)
            .chain(self.equal.iter().map(|(i, _)| *i));
        let columns: BTreeSet<String> = named.map(|i| full.field(i).name().clone()).collect();
        let context = ScanContext {
            sources: sources.clone(),
            cluster: cluster.clone(),
            viewer: viewer.to_owned(),
            request: ScanRequest::exactly(equal, columns),
        };
        let mut found = Vec::new();
        let mut batches = self.table.scan(Arc::new(context));
        while let Some(mut batch) = batches.try_next().await? {
            for (column, value) in &wanted {
                let same =
                    cmp::eq(batch.column(*column), value).map_err(|e| from_datafusion(e.into()))?;
                batch =
                    filter_record_batch(&batch, &same).map_err(|e| from_datafusion(e.into()))?;
            }
            found.push(batch);
        }
        let rows = concat_batches(full, &found).map_err(|e| from_datafusion(e.into()))?;
        let arrays = self
            .columns
            .iter()
            .map(|(i, _)| rows.column(*i).clone())
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.schema(), arrays, &options)
            .map_err(|e| from_datafusion(e.into()))
    }
}
