//! Subqueries that name columns from outside, where DataFusion (55.2) turns them into joins without
//! looking at what stands between: a LIMIT or a window would then see the rows of every outer row.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{
    Column, DFSchema, DataFusionError, JoinType, Result as DfResult, ScalarValue,
};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{Exists, Sort as SortKey};
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, Filter, Join, Limit, LogicalPlan, LogicalPlanBuilder,
    Projection, Subquery, SubqueryAlias, cast, lit,
};

use super::ties::RowCount;
use crate::error::{Error, ErrorKind};

/// How many rows a subquery gives, and by what it is ordered: the keys are its last columns.
struct Limited {
    skip: Option<Expr>,
    fetch: Option<Expr>,
    /// Whether each key ascends, and whether NULLs come first.
    keys: Vec<(bool, bool)>,
}

/// The plan without its LIMIT, and with its sort keys after its columns; nothing if it has none.
fn unlimited(plan: &LogicalPlan) -> DfResult<Option<(LogicalPlan, Limited)>> {
    let done = match plan {
        LogicalPlan::SubqueryAlias(named) => match unlimited(&named.input)? {
            Some((input, limited)) => {
                let named = SubqueryAlias::try_new(Arc::new(input), named.alias.clone())?;
                Some((LogicalPlan::SubqueryAlias(named), limited))
            }
            None => None,
        },
        LogicalPlan::Subquery(subquery) => match unlimited(&subquery.subquery)? {
            Some((input, limited)) => {
                let subquery = Subquery {
                    subquery: Arc::new(input),
                    ..subquery.clone()
                };
                Some((LogicalPlan::Subquery(subquery), limited))
            }
            None => None,
        },
        LogicalPlan::Projection(shown) => match unlimited(&shown.input)? {
            Some((input, limited)) => Some((with_keys(shown, input, &limited)?, limited)),
            None => None,
        },
        LogicalPlan::Limit(limit) => {
            let (input, keys) = unsorted(&limit.input)?;
            let limited = Limited {
                skip: limit.skip.as_deref().cloned(),
                fetch: limit.fetch.as_deref().cloned(),
                keys,
            };
            Some((input, limited))
        }
        _ => None,
    };
    Ok(done)
}

fn key_name(i: usize) -> String {
    format!("\u{1}key {i}")
}

fn with_keys(shown: &Projection, input: LogicalPlan, limited: &Limited) -> DfResult<LogicalPlan> {
    let keys = (0..limited.keys.len()).map(|i| Expr::Column(Column::new_unqualified(key_name(i))));
    let columns = shown.expr.iter().cloned().chain(keys).collect();
    Projection::try_new(columns, Arc::new(input)).map(LogicalPlan::Projection)
}

/// The plan without its order, whose keys are columns after those it has.
fn unsorted(plan: &LogicalPlan) -> DfResult<(LogicalPlan, Vec<(bool, bool)>)> {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
            let columns = sort.input.schema().columns().into_iter().map(Expr::Column);
            let keys = sort.expr.iter().enumerate();
            let keys = keys.map(|(i, key)| key.expr.clone().alias(key_name(i)));
            let columns = columns.chain(keys).collect();
            let plan = Projection::try_new(columns, sort.input.clone())?;
            let orders = sort.expr.iter().map(|key| (key.asc, key.nulls_first));
            Ok((LogicalPlan::Projection(plan), orders.collect()))
        }
        LogicalPlan::Projection(shown) => {
            let (input, keys) = unsorted(&shown.input)?;
            let limited = Limited {
                skip: None,
                fetch: None,
                keys,
            };
            Ok((with_keys(shown, input, &limited)?, limited.keys))
        }
        other => Ok((other.clone(), Vec::new())),
    }
}

fn whole(of: &Expr) -> Option<i64> {
    match of {
        Expr::Literal(ScalarValue::Int64(number), _) => *number,
        Expr::Literal(ScalarValue::Int32(number), _) => number.map(i64::from),
        _ => None,
    }
}

/// A LATERAL subquery with a LIMIT: its rows are joined first, numbered for each row of the left
/// side in the order that it says, and those beyond are left out.
pub(super) fn in_lateral(join: Join) -> DfResult<LogicalPlan> {
    if !is_lateral(&join.right) || !reads_outside(&join.right)? {
        return Ok(LogicalPlan::Join(join));
    }
    let Some((right, limited)) = unlimited(&join.right)? else {
        return Ok(LogicalPlan::Join(join));
    };
    check_lateral(&right)?;
    let has_condition = !join.on.is_empty()
        || join
            .filter
            .as_ref()
            .is_some_and(|condition| *condition != lit(true));
    // A row of the left side without another stays, and it is the first of its own.
    let (skip, fetch) = (limited.skip.as_ref(), limited.fetch.as_ref());
    let keeps_first = skip.is_none_or(|skip| whole(skip) == Some(0))
        && fetch.is_none_or(|fetch| whole(fetch).is_some_and(|rows| rows > 0));
    match join.join_type {
        JoinType::Inner => {}
        JoinType::Left if !has_condition && keeps_first => {}
        _ => {
            return Err(refused(
                "a LEFT JOIN LATERAL with a condition, with OFFSET or without any row",
                "Say ON true, and put the condition into the subquery.",
            ));
        }
    }
    let answer = join.schema.clone();
    let columns = join.right.schema().fields().len();
    // No column has such a name.
    let (row, place) = ("\u{1}row", "\u{1}place");
    let rows = vec![row_number().alias(row)];
    let left = LogicalPlanBuilder::from((*join.left).clone()).window(rows)?;
    let keys = right.schema().iter().skip(columns).zip(&limited.keys);
    let keys = keys.map(|((qualifier, field), (asc, nulls_first))| {
        let key = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        SortKey::new(key, *asc, *nulls_first)
    });
    let keys: Vec<SortKey> = keys.collect();
    let (filter, on) = match join.join_type {
        JoinType::Inner => (None, Vec::new()),
        _ => (join.filter.clone(), join.on.clone()),
    };
    let joined = Join {
        left: Arc::new(left.build()?),
        right: Arc::new(right),
        filter,
        on,
        ..join.clone()
    };
    let joined = LogicalPlan::Join(joined).recompute_schema()?;
    let mut number = row_number().partition_by(vec![Expr::Column(Column::new_unqualified(row))]);
    if !keys.is_empty() {
        number = number.order_by(keys);
    }
    let number = number.build()?.alias(place);
    let at = cast(
        Expr::Column(Column::new_unqualified(place)),
        DataType::Int64,
    );
    let mut numbered = LogicalPlanBuilder::from(joined).window(vec![number])?;
    let count = |rows: &Expr, kind: RowCount| kind.of(cast(rows.clone(), DataType::Int64));
    let mut after = at.clone();
    if let Some(skip) = skip {
        let before = count(skip, RowCount::Skipped);
        numbered = numbered.filter(at.clone().gt(before.clone()))?;
        after = at - before;
    }
    if let Some(fetch) = fetch {
        numbered = numbered.filter(after.lt_eq(count(fetch, RowCount::Fetched)))?;
    }
    if join.join_type == JoinType::Inner {
        let equal = join.on.into_iter().map(|(left, right)| left.eq(right));
        for condition in equal.chain(join.filter) {
            numbered = numbered.filter(condition)?;
        }
    }
    numbered
        .project(answer.columns().into_iter().map(Expr::Column))?
        .build()
}

fn is_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(named) => is_lateral(&named.input),
        LogicalPlan::Subquery(_) => true,
        _ => false,
    }
}

fn reads_outside(plan: &LogicalPlan) -> DfResult<bool> {
    let mut reads = false;
    plan.apply_with_subqueries(|node| {
        reads |= node.contains_outer_reference();
        Ok(if reads {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(reads)
}

fn refused(what: &str, hint: &str) -> DataFusionError {
    let message = format!("{what} is not supported");
    let error = Error::new(ErrorKind::Unsupported, message).hint(hint);
    DataFusionError::External(Box::new(error))
}

/// NOT IN of a subquery that names columns from outside: no row equals the value, is NULL, or is
/// there while the value is NULL. DataFusion takes NULLs for rows that differ.
pub(super) fn not_in(expr: Expr, schema: &DFSchema, zone: &str) -> DfResult<Transformed<Expr>> {
    let Expr::InSubquery(of) = expr else {
        return Ok(Transformed::no(expr));
    };
    let is_plain = !of.expr.contains_outer() && !has_subquery(&of.expr)?;
    let [column] = &of.subquery.subquery.schema().columns()[..] else {
        return Ok(Transformed::no(Expr::InSubquery(of)));
    };
    if !of.negated || !is_plain || of.subquery.outer_ref_columns.is_empty() {
        return Ok(Transformed::no(Expr::InSubquery(of)));
    }
    let mut outside = Vec::new();
    let value = (*of.expr).clone().transform_up(|part| match part {
        Expr::Column(column) => {
            let (_, field) = schema.qualified_field_from_column(&column)?;
            let outer = Expr::OuterReferenceColumn(field.clone(), column);
            outside.push(outer.clone());
            Ok(Transformed::yes(outer))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let (value, item) = (value.data, Expr::Column(column.clone()));
    let rows = of.subquery.subquery.clone();
    let equal = super::coerce::coerced(item.clone().eq(value.clone()), rows.schema(), zone)?;
    let hit = equal.data.or(item.is_null()).or(value.is_null());
    let mut outer_ref_columns = of.subquery.outer_ref_columns.clone();
    outer_ref_columns.extend(outside);
    let subquery = Subquery {
        subquery: Arc::new(LogicalPlan::Filter(Filter::try_new(hit, rows)?)),
        outer_ref_columns,
        ..of.subquery
    };
    let negated = true;
    Ok(Transformed::yes(Expr::Exists(Exists { subquery, negated })))
}

fn has_subquery(expr: &Expr) -> DfResult<bool> {
    expr.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)
        ))
    })
}

/// What a subquery is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Its rows, or its one value.
    Values,
    /// Whether it has a row, or one that equals a value.
    Membership,
}

/// What stands below a node.
#[derive(Clone, Copy, Default)]
struct Below {
    /// A condition on columns from outside.
    reads: bool,
    /// An aggregate of all rows that it lets through: one row, even where there are none, which is
    /// no row for DataFusion.
    is_total: bool,
}

/// Refuses a subquery between whose conditions on columns from outside and its rows something
/// stands that sees several rows at once.
pub(super) fn check(expr: &Expr) -> DfResult<()> {
    match expr {
        // How many rows a LIMIT leaves makes no difference here, unless it is none.
        Expr::Exists(of) => below(unbounded(&of.subquery.subquery), Asked::Membership)?,
        Expr::InSubquery(of) => below(&of.subquery.subquery, Asked::Membership)?,
        Expr::SetComparison(of) => below(&of.subquery.subquery, Asked::Membership)?,
        Expr::ScalarSubquery(subquery) => below(&subquery.subquery, Asked::Values)?,
        _ => return Ok(()),
    };
    Ok(())
}

/// A plan without the LIMIT at its top.
fn unbounded(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Limit(Limit {
            skip: None, input, ..
        }) => input,
        LogicalPlan::Projection(shown) => match &*shown.input {
            LogicalPlan::Limit(Limit {
                skip: None, input, ..
            }) => input,
            _ => plan,
        },
        _ => plan,
    }
}

/// The same of the right side of a join.
pub(super) fn check_lateral(plan: &LogicalPlan) -> DfResult<()> {
    match plan {
        LogicalPlan::SubqueryAlias(named) => check_lateral(&named.input),
        LogicalPlan::Subquery(subquery) => below(&subquery.subquery, Asked::Values).map(|_| ()),
        _ => Ok(()),
    }
}

fn below(plan: &LogicalPlan, asked: Asked) -> DfResult<Below> {
    let mut inputs = Vec::new();
    for input in plan.inputs() {
        // What is LATERAL inside is looked at by itself.
        inputs.push(match input {
            LogicalPlan::Subquery(_) => Below::default(),
            input => below(input, asked)?,
        });
    }
    let reads = inputs.iter().any(|input| input.reads);
    let mut is_total = inputs.iter().any(|input| input.is_total);
    let what = match plan {
        _ if !reads => None,
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => None,
        LogicalPlan::Aggregate(_) | LogicalPlan::Join(_) if is_total => {
            Some("a query over an aggregate")
        }
        LogicalPlan::Aggregate(aggregate) => {
            is_total = aggregate.group_expr.is_empty();
            (is_total && asked == Asked::Membership).then_some("an aggregate")
        }
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => None,
        LogicalPlan::Join(join) => {
            let (left, right) = (inputs[0].reads, inputs[1].reads);
            let is_above = match join.join_type {
                JoinType::Inner => true,
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => !right,
                JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => !left,
                _ => false,
            };
            (!is_above).then_some("an outer join")
        }
        LogicalPlan::Limit(_) => Some("LIMIT or OFFSET"),
        LogicalPlan::Window(_) => Some("a window function"),
        LogicalPlan::Union(_) => Some("UNION"),
        LogicalPlan::Distinct(Distinct::On(_)) => Some("DISTINCT ON"),
        LogicalPlan::Unnest(_) => Some("unnest"),
        _ => Some("this clause"),
    };
    if let Some(what) = what {
        return Err(refused(
            &format!("{what} over rows that a subquery chooses by columns from outside"),
            "Join the tables, and number the rows with row_number() OVER (PARTITION BY …).",
        ));
    }
    let own =
        matches!(plan, LogicalPlan::Filter(Filter { predicate, .. }) if predicate.contains_outer());
    Ok(Below {
        reads: reads || own,
        is_total,
    })
}
