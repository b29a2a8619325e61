//! Intervals are equal, and come in an order, by how long they are: a month is thirty days,
//! whatever the fields say. DataFusion groups, joins and sorts by the fields.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{InSubquery, Sort as SortKey};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, LogicalPlan, Projection, WindowFrameBound,
    WindowFrameUnits,
};

use super::arithmetic::length;
use super::failure;
use crate::error::ErrorKind;

fn is_interval(of: &DataType) -> bool {
    matches!(of, DataType::Interval(_))
}

/// What a key is compared by; whether it is another than itself.
pub(super) fn measure(key: &mut Expr, schema: &DFSchema) -> bool {
    let measured = key.get_type(schema).is_ok_and(|of| is_interval(&of));
    if measured {
        *key = length(key.clone());
    }
    measured
}

fn measure_keys(keys: &mut [SortKey], schema: &DFSchema) -> bool {
    let mut measured = false;
    for key in keys {
        measured |= measure(&mut key.expr, schema);
    }
    measured
}

fn refused(what: &str) -> datafusion::common::DataFusionError {
    failure(
        ErrorKind::Unsupported,
        format!("{what} of intervals is not supported"),
    )
}

/// Groups, orders and subqueries inside of one expression.
pub(super) fn in_expr(mut expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let is_changed = match &mut expr {
        Expr::WindowFunction(call) => {
            let params = &mut call.params;
            let mut measured = false;
            for key in &mut params.partition_by {
                measured |= measure(key, schema);
            }
            let is_offset = |bound: &WindowFrameBound| match bound {
                WindowFrameBound::Preceding(by) | WindowFrameBound::Following(by) => !by.is_null(),
                WindowFrameBound::CurrentRow => false,
            };
            let frame = &params.window_frame;
            let has_offset = frame.units == WindowFrameUnits::Range
                && (is_offset(&frame.start_bound) || is_offset(&frame.end_bound));
            if !has_offset {
                measured |= measure_keys(&mut params.order_by, schema);
            }
            measured
        }
        Expr::AggregateFunction(call) => {
            let params = &mut call.params;
            let mut measured = measure_keys(&mut params.order_by, schema);
            if params.distinct {
                for value in &mut params.args {
                    measured |= measure(value, schema);
                }
                if measured && call.func.name() != "count" {
                    return Err(refused(&format!("{}(DISTINCT …)", call.func.name())));
                }
            }
            measured
        }
        Expr::InSubquery(of) => in_subquery(of, schema)?,
        Expr::SetComparison(of) if of.expr.get_type(schema).is_ok_and(|of| is_interval(&of)) => {
            return Err(refused("a comparison with ANY or ALL rows"));
        }
        _ => false,
    };
    Ok(Transformed::new_transformed(expr, is_changed))
}

fn in_subquery(of: &mut InSubquery, schema: &DFSchema) -> DfResult<bool> {
    if !measure(&mut of.expr, schema) {
        return Ok(false);
    }
    let rows = of.subquery.subquery.clone();
    let columns = rows.schema().columns().into_iter();
    let columns = columns.map(|column| length(Expr::Column(column)));
    let measured = Projection::try_new(columns.collect(), rows)?;
    of.subquery.subquery = Arc::new(LogicalPlan::Projection(measured));
    Ok(true)
}

/// The keys of a node that are not part of its answer.
pub(super) fn in_keys(plan: LogicalPlan) -> LogicalPlan {
    match plan {
        LogicalPlan::Sort(mut sort) => {
            measure_keys(&mut sort.expr, sort.input.schema());
            LogicalPlan::Sort(sort)
        }
        LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
            for key in &mut distinct.on_expr {
                measure(key, distinct.input.schema());
            }
            if let Some(keys) = &mut distinct.sort_expr {
                measure_keys(keys, distinct.input.schema());
            }
            LogicalPlan::Distinct(Distinct::On(distinct))
        }
        other => other,
    }
}

/// Groups that are told apart by the length of intervals, and show one interval of each.
pub(super) fn in_groups(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Distinct(Distinct::All(input)) if has_interval(input.schema()) => {
            let columns = input.schema().columns().into_iter().map(Expr::Column);
            let columns = columns.collect();
            grouped(Aggregate::try_new(input, columns, Vec::new())?)
        }
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate),
        other => Ok(other),
    }
}

fn has_interval(schema: &DFSchema) -> bool {
    schema.fields().iter().any(|f| is_interval(f.data_type()))
}

fn grouped(mut aggregate: Aggregate) -> DfResult<LogicalPlan> {
    let input = aggregate.input.schema().clone();
    let of = |key: &Expr| key.get_type(&input).is_ok_and(|of| is_interval(&of));
    let in_set = aggregate.group_expr.iter().any(|key| match key {
        Expr::GroupingSet(set) => set.distinct_expr().into_iter().any(of),
        _ => false,
    });
    if in_set {
        return Err(refused("GROUPING SETS, ROLLUP and CUBE"));
    }
    if !aggregate.group_expr.iter().any(of) {
        return Ok(LogicalPlan::Aggregate(aggregate));
    }
    let answer = aggregate.schema.clone();
    let mut shown = Vec::new();
    let mut columns = Vec::new();
    for (i, (qualifier, field)) in answer.iter().enumerate() {
        let itself = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let Some(key) = aggregate.group_expr.get_mut(i).filter(|key| of(key)) else {
            columns.push(itself);
            continue;
        };
        // No column has such a name.
        let (one, group) = (format!("\u{1}interval {i}"), format!("\u{1}length {i}"));
        let value = std::mem::replace(key, length(key.clone()).alias(group));
        shown.push(first_value_udaf().call(vec![value]).alias(&one));
        let column = Expr::Column(Column::new_unqualified(one));
        columns.push(column.alias_qualified(qualifier.cloned(), field.name()));
    }
    aggregate.aggr_expr.extend(shown);
    let groups = Aggregate::try_new(aggregate.input, aggregate.group_expr, aggregate.aggr_expr)?;
    let groups = Arc::new(LogicalPlan::Aggregate(groups));
    Projection::try_new(columns, groups).map(LogicalPlan::Projection)
}
