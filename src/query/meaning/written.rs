//! A plan as it was written, with PostgreSQL's types: what has another type there is said before
//! anybody is told of the columns.

use std::any::Any;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, DataFusionError, Result as DfResult, ScalarValue,
};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::expr_rewriter::{NamePreserver, coerce_plan_expr_for_schema};
use datafusion::logical_expr::utils::{COUNT_STAR_EXPANSION, merge_schema};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, LogicalPlan, Projection, RecursiveQuery, TableScan,
    TableScanBuilder, Union, Values, cast,
};
use recursive::recursive;

use super::coerce::Meeting;
use super::type_name::type_name;
use super::{aggregates, by_length, coerce, correlation, sets, ties};
use crate::error::{Error, ErrorKind};

/// The plan of a statement's text with PostgreSQL's types. `zone` is the session's.
pub(crate) fn as_postgresql(plan: LogicalPlan, zone: &str) -> DfResult<LogicalPlan> {
    let is_written = true;
    Typing { zone, is_written }.plan(plan)
}

/// The same of such a plan whose parameters have got values since: their types are what the client
/// said.
pub(crate) fn with_parameters(plan: LogicalPlan, zone: &str) -> DfResult<LogicalPlan> {
    let is_written = false;
    Typing { zone, is_written }.plan(plan)
}

struct Typing<'z> {
    zone: &'z str,
    /// Whether whole numbers are those of the statement's text.
    is_written: bool,
}

impl Typing<'_> {
    /// What stands above a column of another type has another type, too: so inputs come before the
    /// subqueries that name their columns, and those before the node itself.
    #[recursive]
    fn plan(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let plan = self.inputs(plan)?;
        let outer = merge_schema(&plan.inputs());
        let plan = plan
            .map_subqueries(|subquery| Ok(Transformed::yes(self.plan(told(subquery, &outer)?)?)))?;
        self.node(plan.data)
    }

    fn inputs(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        match plan {
            // What is LATERAL names columns of the left side.
            LogicalPlan::Join(join) => {
                let mut join = sets::counted(join)?;
                join.left = Arc::new(self.plan(Arc::unwrap_or_clone(join.left))?);
                let right = told(Arc::unwrap_or_clone(join.right), join.left.schema())?;
                join.right = Arc::new(self.plan(right)?);
                Ok(LogicalPlan::Join(join))
            }
            LogicalPlan::RecursiveQuery(query) => self.recursive_query(query),
            other => {
                let done = other.map_children(|input| Ok(Transformed::yes(self.plan(input)?)))?;
                Ok(done.data)
            }
        }
    }

    /// The first part of WITH RECURSIVE says the types of all of it.
    fn recursive_query(&self, mut query: RecursiveQuery) -> DfResult<LogicalPlan> {
        let first = self.plan(Arc::unwrap_or_clone(query.static_term))?;
        let again = Arc::unwrap_or_clone(query.recursive_term);
        refuse_rounding(&again)?;
        let again = self.plan(reading(again, &query.name, first.schema())?)?;
        query.recursive_term = Arc::new(coerce_plan_expr_for_schema(again, first.schema())?);
        query.static_term = Arc::new(first);
        Ok(LogicalPlan::RecursiveQuery(query))
    }

    fn node(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let zone = self.zone;
        let plan = match plan {
            LogicalPlan::Union(union) => in_union(union, zone)?,
            LogicalPlan::Join(join) => LogicalPlan::Join(in_join(join, zone)?),
            other => other,
        };
        let schema = merge_schema(&plan.inputs());
        let plan = by_length::in_keys(plan);
        let names = NamePreserver::new(&plan);
        // How many rows there are to be is a bigint in PostgreSQL, too.
        let is_written = self.is_written && !matches!(plan, LogicalPlan::Limit(_));
        let meant = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            // Members of a grouping set are known by their names.
            let is_written = is_written && !matches!(expr, Expr::GroupingSet(_));
            let meant = expr.transform_up(|expr| {
                let typed = if is_written {
                    literal(expr)
                } else {
                    Transformed::no(expr)
                };
                let coerced = coerce::coerced(typed.data, &schema, zone)?;
                let widened = aggregates::widen_sum(coerced.data, &schema)?;
                let measured = by_length::in_expr(widened.data, &schema)?;
                let measured =
                    measured.transform_data(|e| correlation::not_in(e, &schema, zone))?;
                correlation::check(&measured.data)?;
                let is_changed = typed.transformed || coerced.transformed;
                let is_changed = is_changed || widened.transformed || measured.transformed;
                Ok(Transformed::new_transformed(measured.data, is_changed))
            })?;
            Ok(meant.update_data(|expr| name.restore(expr)))
        })?;
        match meant.data {
            LogicalPlan::Values(values) => retyped(values),
            LogicalPlan::Limit(limit) => ties::in_limit(limit),
            LogicalPlan::Join(join) => {
                let joined = LogicalPlan::Join(join).recompute_schema()?;
                let LogicalPlan::Join(join) = joined else {
                    return Ok(joined);
                };
                let joined = sets::without_counts(correlation::in_lateral(join)?)?;
                if let LogicalPlan::Join(join) = &joined {
                    correlation::check_lateral(&join.right)?;
                }
                Ok(joined)
            }
            other => by_length::in_groups(other.recompute_schema()?),
        }
    }
}

/// A whole number of the statement's text: an integer if it is one, where DataFusion has a bigint.
fn literal(mut expr: Expr) -> Transformed<Expr> {
    match &mut expr {
        Expr::Literal(value @ ScalarValue::Int64(Some(_)), _) => {
            let ScalarValue::Int64(Some(number)) = *value else {
                return Transformed::no(expr);
            };
            match i32::try_from(number) {
                Ok(number) => {
                    *value = ScalarValue::Int32(Some(number));
                    Transformed::yes(expr)
                }
                Err(_) => Transformed::no(expr),
            }
        }
        // count(*), which is known by it.
        Expr::AggregateFunction(call) if call.func.name() == "count" => {
            let is_changed = restore_star(&mut call.params.args);
            Transformed::new_transformed(expr, is_changed)
        }
        Expr::WindowFunction(call) if call.fun.name() == "count" => {
            let is_changed = restore_star(&mut call.params.args);
            Transformed::new_transformed(expr, is_changed)
        }
        _ => Transformed::no(expr),
    }
}

fn restore_star(args: &mut [Expr]) -> bool {
    match args {
        [Expr::Literal(value @ ScalarValue::Int32(Some(1)), _)] => {
            *value = COUNT_STAR_EXPANSION;
            true
        }
        _ => false,
    }
}

/// A plan whose columns from outside have the types that they have in `outer`.
fn told(plan: LogicalPlan, outer: &DFSchema) -> DfResult<LogicalPlan> {
    let column = |expr: Expr| match expr {
        Expr::OuterReferenceColumn(field, column) => {
            let found = outer.qualified_field_from_column(&column).ok();
            let of = found.map(|(_, field)| field.data_type());
            Ok(match of {
                Some(of) if of != field.data_type() => {
                    let field = field.as_ref().clone().with_data_type(of.clone());
                    Transformed::yes(Expr::OuterReferenceColumn(Arc::new(field), column))
                }
                _ => Transformed::no(Expr::OuterReferenceColumn(field, column)),
            })
        }
        other => Ok(Transformed::no(other)),
    };
    let told = plan.transform_down_with_subqueries(|node| {
        let node = match node {
            LogicalPlan::Subquery(mut subquery) => {
                for outer in &mut subquery.outer_ref_columns {
                    *outer = column(outer.clone())?.data;
                }
                LogicalPlan::Subquery(subquery)
            }
            other => other,
        };
        node.map_expressions(|expr| expr.transform_up(column))
    })?;
    Ok(told.data)
}

/// DataFusion casts the rows of the second part of WITH RECURSIVE to the types of the first, and
/// would round numbers that have more digits after the point.
fn refuse_rounding(plan: &LogicalPlan) -> DfResult<()> {
    let LogicalPlan::Projection(shown) = plan else {
        return Ok(());
    };
    let scale = |of: &DataType| match of {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Some(*scale),
        of if of.is_integer() => Some(0),
        _ => None,
    };
    for column in &shown.expr {
        let column = column.clone().unalias();
        let Expr::Cast(cast) = &column else {
            continue;
        };
        let from = cast.expr.get_type(shown.input.schema())?;
        let scales = scale(&from).zip(scale(cast.field.data_type()));
        if scales.is_some_and(|(from, to)| from > to) {
            let error = Error::new(
                ErrorKind::Unsupported,
                "WITH RECURSIVE whose second part has more digits after the point than the first is not supported",
            )
            .hint("Cast the column of the first part to as many, as in 1::numeric(38, 10).");
            return Err(DataFusionError::External(Box::new(error)));
        }
    }
    Ok(())
}

/// The second part of WITH RECURSIVE, which reads rows of this schema by this name.
fn reading(plan: LogicalPlan, name: &str, schema: &DFSchemaRef) -> DfResult<LogicalPlan> {
    let rows = schema.inner();
    let is_own = |scan: &TableScan| {
        let is_work_table = source_as_provider(&scan.source)
            .is_ok_and(|table| (table.as_ref() as &dyn Any).is::<CteWorkTable>());
        is_work_table && scan.table_name.table() == name
    };
    let read = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) if is_own(&scan) => {
            let fields = scan.source.schema();
            let typed = fields.fields().iter().zip(rows.fields());
            let typed = typed.map(|(old, new)| {
                Arc::new(old.as_ref().clone().with_data_type(new.data_type().clone()))
            });
            let typed = Arc::new(Schema::new(typed.collect::<Vec<_>>()));
            let source = provider_as_source(Arc::new(CteWorkTable::new(name, typed)));
            let scan = TableScanBuilder::new(scan.table_name, source)
                .with_projection(scan.projection)
                .with_filters(scan.filters)
                .with_fetch(scan.fetch)
                .build()?;
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(read.data)
}

/// Brings what a join compares to one type. INTERSECT and EXCEPT are joins, too, whose rows are
/// those of the left part as they are: whole numbers are widened before, other types refused.
fn in_join(mut join: Join, zone: &str) -> DfResult<Join> {
    let is_set = sets::is_set(&join);
    if is_set {
        let types = join.on.iter().map(|(left, right)| {
            let left = left.get_type(join.left.schema())?;
            let right = right.get_type(join.right.schema())?;
            Ok(coerce::wider(&[&left, &right]))
        });
        let types = types.collect::<DfResult<Vec<_>>>()?;
        if types.len() == join.left.schema().fields().len() && types.iter().any(Option::is_some) {
            join.left = Arc::new(brought(&join.left, &types, zone)?);
        }
    }
    for (left, right) in &mut join.on {
        let types = (
            left.get_type(join.left.schema())?,
            right.get_type(join.right.schema())?,
        );
        let Some(one) = coerce::common(&[&types.0, &types.1], Meeting::Operator, zone) else {
            by_length::measure(left, join.left.schema());
            by_length::measure(right, join.right.schema());
            continue;
        };
        if is_set {
            let error = Error::new(
                ErrorKind::Unsupported,
                format!(
                    "INTERSECT or EXCEPT of {} and {} is not supported",
                    type_name(&types.0),
                    type_name(&types.1)
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
fn retyped(mut values: Values) -> DfResult<LogicalPlan> {
    let nothing = DFSchema::empty();
    let mut fields = Vec::new();
    for (i, (qualifier, field)) in values.schema.iter().enumerate() {
        let mut types = Vec::new();
        for row in &mut values.values {
            // A NULL has been given the type of the others.
            if matches!(&row[i], Expr::Literal(value, _) if value.is_null()) {
                row[i] = Expr::Literal(ScalarValue::Null, None);
            }
            match row[i].get_type(&nothing) {
                Ok(DataType::Null) | Err(_) => {}
                Ok(of) => types.push(of),
            }
        }
        let is_one = types.windows(2).all(|pair| pair[0] == pair[1]);
        let one = match coerce::wider(&types.iter().collect::<Vec<_>>()) {
            Some(wider) => Some(wider),
            None if is_one => types.first().cloned(),
            None => None,
        };
        let one = one.unwrap_or_else(|| field.data_type().clone());
        for row in &mut values.values {
            if row[i].get_type(&nothing).is_ok_and(|of| of != one) {
                row[i] = cast(row[i].clone(), one.clone());
            }
        }
        let field = match one {
            one if one != *field.data_type() => {
                Arc::new(field.as_ref().clone().with_data_type(one))
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
    let parts = union.inputs.iter();
    let parts = if types.iter().all(Option::is_none) {
        parts.cloned().collect()
    } else {
        parts
            .map(|part| brought(part, &types, zone).map(Arc::new))
            .collect::<DfResult<Vec<_>>>()?
    };
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(parts)?))
}

/// A plan whose columns are brought to these types, where there is one.
fn brought(plan: &LogicalPlan, types: &[Option<DataType>], zone: &str) -> DfResult<LogicalPlan> {
    let columns = plan.schema().iter().zip(types);
    let exprs = columns.map(|((qualifier, field), to)| -> DfResult<Expr> {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        Ok(match to {
            Some(to) => coerce::brought(column, field.data_type(), to, zone)?
                .alias_qualified(qualifier.cloned(), field.name()),
            None => column,
        })
    });
    let exprs = exprs.collect::<DfResult<Vec<_>>>()?;
    Projection::try_new(exprs, Arc::new(plan.clone())).map(LogicalPlan::Projection)
}
