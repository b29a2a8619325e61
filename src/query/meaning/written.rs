//! A plan as it was written, with PostgreSQL's types: what has another type there is said before
//! anybody is told of the columns.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{
    Column, DFSchema, DataFusionError, JoinType, NullEquality, Result as DfResult,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, LogicalPlan, Projection, Sort, Union, Values,
};

use super::arithmetic::length;
use super::coerce::Meeting;
use super::{aggregates, coerce};
use crate::error::{Error, ErrorKind};

/// The plan with PostgreSQL's types. `zone` is the session's.
pub(crate) fn as_postgresql(plan: LogicalPlan, zone: &str) -> DfResult<LogicalPlan> {
    let meant = plan.transform_up_with_subqueries(|plan| {
        let plan = match plan {
            LogicalPlan::Union(union) => in_union(union, zone)?,
            LogicalPlan::Join(join) => LogicalPlan::Join(in_join(join, zone)?),
            other => other,
        };
        let schema = merge_schema(&plan.inputs());
        let plan = match plan {
            LogicalPlan::Sort(sort) => LogicalPlan::Sort(by_length(sort, &schema)),
            other => other,
        };
        let names = NamePreserver::new(&plan);
        let meant = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let meant = expr.transform_up(|expr| {
                let coerced = coerce::coerced(expr, &schema, zone)?;
                let widened = aggregates::widen_sum(coerced.data, &schema)?;
                Ok(Transformed {
                    transformed: coerced.transformed || widened.transformed,
                    ..widened
                })
            })?;
            Ok(meant.update_data(|expr| name.restore(expr)))
        })?;
        // What stands above a column of another type has another type, too.
        meant.map_data(|plan| match plan {
            LogicalPlan::Values(values) => retyped(values),
            other => other.recompute_schema(),
        })
    });
    meant.map(|done| done.data)
}

/// Intervals are sorted by how long they are.
fn by_length(mut sort: Sort, schema: &DFSchema) -> Sort {
    for key in &mut sort.expr {
        if matches!(key.expr.get_type(schema), Ok(DataType::Interval(_))) {
            key.expr = length(key.expr.clone());
        }
    }
    sort
}

/// Brings what a join compares to one type. INTERSECT and EXCEPT are joins, too, whose rows are
/// those of the left part as they are: parts of several types are refused.
fn in_join(mut join: Join, zone: &str) -> DfResult<Join> {
    let is_set = join.null_equality == NullEquality::NullEqualsNull
        && matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti);
    for (left, right) in &mut join.on {
        let types = (
            left.get_type(join.left.schema())?,
            right.get_type(join.right.schema())?,
        );
        let Some(one) = coerce::common(&[&types.0, &types.1], Meeting::Operator, zone) else {
            continue;
        };
        if is_set {
            let error = Error::new(
                ErrorKind::Unsupported,
                format!(
                    "INTERSECT or EXCEPT of {} and {} is not supported",
                    coerce::type_name(&types.0),
                    coerce::type_name(&types.1)
                ),
            )
            .hint("Cast the column to one type in each part.");
            return Err(DataFusionError::External(Box::new(error)));
        }
        *left = coerce::brought(left.clone(), &types.0, &one, zone)?;
        *right = coerce::brought(right.clone(), &types.1, &one, zone)?;
    }
    Ok(join)
}

/// VALUES whose columns have the types of what stands in them.
fn retyped(values: Values) -> DfResult<LogicalPlan> {
    let nothing = DFSchema::empty();
    let mut fields = Vec::new();
    for (i, (qualifier, field)) in values.schema.iter().enumerate() {
        let mut types = Vec::new();
        for row in &values.values {
            match row[i].get_type(&nothing) {
                Ok(DataType::Null) | Err(_) => {}
                Ok(of) => types.push(of),
            }
        }
        let is_one = types.windows(2).all(|pair| pair[0] == pair[1]);
        let field = match types.first() {
            Some(of) if is_one && of != field.data_type() => {
                Arc::new(field.as_ref().clone().with_data_type(of.clone()))
            }
            _ => field.clone(),
        };
        fields.push((qualifier.cloned(), field));
    }
    let metadata = values.schema.metadata().clone();
    Ok(LogicalPlan::Values(Values {
        schema: Arc::new(DFSchema::new_with_metadata(fields, metadata)?),
        values: values.values,
    }))
}

/// Brings the parts of a UNION to one type, or refuses it where DataFusion would cut values.
fn in_union(union: Union, zone: &str) -> DfResult<LogicalPlan> {
    let types = coerce::of_union(&union, zone);
    for (i, column) in union.schema.fields().iter().enumerate() {
        if types[i].is_some() {
            continue;
        }
        let parts = union.inputs.iter();
        let mut found = parts.filter_map(|part| Some(part.schema().fields().get(i)?.data_type()));
        let has_fractions = |of: &DataType| of.is_numeric() && !of.is_integer();
        if column.data_type().is_integer() && found.any(has_fractions) {
            let error = Error::new(
                ErrorKind::Unsupported,
                format!(
                    "UNION of whole numbers and others in column {} is not supported",
                    i + 1
                ),
            )
            .hint("Cast the column to one type in each part.");
            return Err(DataFusionError::External(Box::new(error)));
        }
    }
    if types.iter().all(Option::is_none) {
        return Ok(LogicalPlan::Union(union));
    }
    let inputs = union.inputs.iter().map(|part| {
        let columns = part.schema().iter().zip(&types);
        let exprs = columns.map(|((qualifier, field), to)| -> DfResult<Expr> {
            let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
            Ok(match to {
                Some(to) => coerce::brought(column, field.data_type(), to, zone)?
                    .alias_qualified(qualifier.cloned(), field.name()),
                None => column,
            })
        });
        let exprs = exprs.collect::<DfResult<Vec<_>>>()?;
        let projection = Projection::try_new(exprs, part.clone())?;
        Ok(Arc::new(LogicalPlan::Projection(projection)))
    });
    let inputs = inputs.collect::<DfResult<Vec<_>>>()?;
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))
}
