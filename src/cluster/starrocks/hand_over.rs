//! Which parts of a plan the cluster computes: the largest ones that it computes to the same result.
//!
//! The list of what is the same is short on purpose. StarRocks divides integers into fractions, counts bytes in `length` and reads
//! `||` as OR; what is not known to be equal is computed here, over rows that the cluster filters as far as that is equal.

use std::any::Any;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, NullEquality, Result as DfResult, ScalarValue, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, InList};
use datafusion::logical_expr::{
    Between, BinaryExpr, Cast, Distinct, Expr, ExprSchemable, Join, JoinType, Like, LogicalPlan, LogicalPlanBuilder, Operator,
    Subquery, TableScan,
};
use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::{DateFieldExtractStyle, Dialect, IntervalStyle};

use super::client::Client;
use super::dialect::literal;
use super::scan::{RemoteQuery, StarRocksTable, numbered};
use super::types::is_opaque;

/// How StarRocks reads what is printed. Close to MySQL's, with places for NULL in ORDER BY and its own types.
struct StarRocksDialect;

impl Dialect for StarRocksDialect {
    fn identifier_quote_style(&self, _: &str) -> Option<char> {
        Some('`')
    }

    fn interval_style(&self) -> IntervalStyle {
        IntervalStyle::MySQL
    }

    fn date_field_extract_style(&self) -> DateFieldExtractStyle {
        DateFieldExtractStyle::Extract
    }

    fn timestamp_cast_dtype(&self, _: &TimeUnit, _: &Option<Arc<str>>) -> sql::DataType {
        sql::DataType::Datetime(None)
    }

    fn requires_derived_table_alias(&self) -> bool {
        true
    }

    fn supports_column_alias_in_table_alias(&self) -> bool {
        false
    }

    fn supports_qualify(&self) -> bool {
        false
    }

    fn string_literal_to_sql(&self, text: &str) -> Option<sql::Expr> {
        // A placeholder is printed as it is.
        Some(sql::Expr::value(sql::Value::Placeholder(literal(text))))
    }
}

/// An expression in the frontend's words.
pub(super) fn print_expr(expr: &Expr) -> Option<String> {
    Some(Unparser::new(&StarRocksDialect).expr_to_sql(expr).ok()?.to_string())
}

/// The same expression with its columns named alone.
pub(super) fn without_relations(expr: Expr) -> Option<Expr> {
    let plain = expr.transform(|e| match e {
        Expr::Column(column) if column.relation.is_some() => {
            Ok(Transformed::yes(Expr::Column(Column { relation: None, ..column })))
        }
        other => Ok(Transformed::no(other)),
    });
    plain.ok().map(|t| t.data)
}

fn table_of(scan: &TableScan) -> Option<(String, String)> {
    let provider = source_as_provider(&scan.source).ok()?;
    let table = (&*provider as &dyn Any).downcast_ref::<StarRocksTable>()?;
    Some((table.database.clone(), table.name.clone()))
}

/// The plan with its largest exact parts as one table each.
pub(super) fn hand_over(client: &Arc<Client>, plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut count = 0;
    let changed = plan.transform_down(|node| {
        // A bare scan hands over by itself, with filters that the optimizer moves to it.
        if matches!(node, LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_)) || !exact_plan(&node) {
            return Ok(Transformed::no(node));
        }
        let Some(sql) = print_plan(&node) else { return Ok(Transformed::no(node)) };
        count += 1;
        let remote = as_table(client, &node, sql, count)?;
        Ok(Transformed::new(remote, true, TreeNodeRecursion::Jump))
    })?;
    Ok(changed.data)
}

fn print_plan(plan: &LogicalPlan) -> Option<String> {
    // The frontend knows no catalog of our name, and has no current database.
    let named = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => match table_of(&scan) {
            Some((database, table)) => {
                let table_name = TableReference::partial(database, table);
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { table_name, ..scan })))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        other => Ok(Transformed::no(other)),
    });
    Some(Unparser::new(&StarRocksDialect).plan_to_sql(&named.ok()?.data).ok()?.to_string())
}

/// The part as a table of the cluster's, under the names that the plan above it knows.
fn as_table(client: &Arc<Client>, plan: &LogicalPlan, sql: String, number: usize) -> DfResult<LogicalPlan> {
    let schema = numbered(plan.schema().as_arrow());
    let name = format!("__starrocks_{number}");
    let provider = Arc::new(RemoteQuery { client: client.clone(), sql, schema: schema.clone() });
    let columns = plan.schema().iter().enumerate().map(|(i, (relation, field))| {
        let column = Column::new(Some(TableReference::bare(name.clone())), format!("c{i}"));
        Expr::Column(column).alias_qualified(relation.cloned(), field.name())
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::scan(name.clone(), provider_as_source(provider), None)?.project(columns)?.build()
}

/// Whether the cluster computes a plan to the same result.
fn exact_plan(plan: &LogicalPlan) -> bool {
    let inputs = plan.inputs();
    let input = || inputs.first().map(|p| p.schema().as_ref());
    let here = match plan {
        LogicalPlan::TableScan(scan) => scan.filters.is_empty() && scan.fetch.is_none() && table_of(scan).is_some(),
        LogicalPlan::SubqueryAlias(_) => true,
        LogicalPlan::Projection(p) => input().is_some_and(|schema| p.expr.iter().all(|e| exact_output(e, schema))),
        LogicalPlan::Filter(f) => input().is_some_and(|schema| exact_expr(&f.predicate, schema)),
        LogicalPlan::Aggregate(a) => input().is_some_and(|schema| {
            a.group_expr.iter().all(|e| exact_expr(e, schema)) && a.aggr_expr.iter().all(|e| exact_aggregate(e, schema))
        }),
        LogicalPlan::Sort(s) => {
            s.fetch.is_none() && input().is_some_and(|schema| s.expr.iter().all(|e| exact_expr(&e.expr, schema)))
        }
        LogicalPlan::Limit(l) => {
            let is_number = |e: &Option<Box<Expr>>| e.as_ref().is_none_or(|e| matches!(**e, Expr::Literal(..)));
            // StarRocks has no OFFSET without a LIMIT.
            l.fetch.is_some() && is_number(&l.skip) && is_number(&l.fetch)
        }
        LogicalPlan::Join(join) => exact_join(join),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            input.schema().fields().iter().all(|f| !is_opaque(f) && !matches!(f.data_type(), DataType::Binary))
        }
        LogicalPlan::Union(union) => {
            let types = |p: &LogicalPlan| p.schema().fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
            union.inputs.iter().all(|p| types(p) == types(&union.inputs[0]))
        }
        _ => false,
    };
    here && inputs.into_iter().all(exact_plan)
}

fn exact_join(join: &Join) -> bool {
    let (left, right) = (join.left.schema(), join.right.schema());
    let Ok(both) = left.join(right) else { return false };
    let alike = |(l, r): &(Expr, Expr)| exact_expr(l, left) && exact_expr(r, right) && comparable(l, r, &both);
    matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
        && join.null_equality == NullEquality::NullEqualsNothing
        && join.on.iter().all(alike)
        && join.filter.as_ref().is_none_or(|f| exact_expr(f, &both))
}

/// What a SELECT list may hold: also columns that are only shown.
fn exact_output(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => exact_output(&alias.expr, schema),
        other => exact_expr(other, schema),
    }
}

fn is_integer(t: &DataType) -> bool {
    matches!(t, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

/// Whether both sides mean the same when the cluster compares them.
fn comparable(left: &Expr, right: &Expr, schema: &DFSchema) -> bool {
    let (Ok(l), Ok(r)) = (left.get_type(schema), right.get_type(schema)) else { return false };
    let is_number = |t: &DataType| is_integer(t) || matches!(t, DataType::Decimal128(..));
    let is_time = |t: &DataType| matches!(t, DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, None));
    let reads_as_time = |e: &Expr, t: &DataType| match e {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
            super::table::parse_time(text, 0).is_some() && *t != DataType::Date32
                || chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
        }
        _ => false,
    };
    if matches!(l, DataType::Binary) || matches!(r, DataType::Binary) {
        return false;
    }
    l == r
        || (is_number(&l) && is_number(&r))
        || matches!(l, DataType::Null)
        || matches!(r, DataType::Null)
        || (is_time(&l) && reads_as_time(right, &l))
        || (is_time(&r) && reads_as_time(left, &r))
}

fn exact_literal(value: &ScalarValue) -> bool {
    matches!(
        value,
        ScalarValue::Null
            | ScalarValue::Utf8(_)
            | ScalarValue::Boolean(_)
            | ScalarValue::Int8(_)
            | ScalarValue::Int16(_)
            | ScalarValue::Int32(_)
            | ScalarValue::Int64(_)
            | ScalarValue::Decimal128(..)
            | ScalarValue::Date32(_)
            | ScalarValue::TimestampMicrosecond(_, None)
    )
}

/// Whether the cluster computes an expression to the same value.
pub(super) fn exact_expr(expr: &Expr, schema: &DFSchema) -> bool {
    let exact = |e: &Expr| exact_expr(e, schema);
    let alike = |a: &Expr, b: &Expr| comparable(a, b, schema);
    match expr {
        Expr::Column(column) => schema.field_from_column(column).is_ok_and(|f| !is_opaque(f)),
        Expr::Literal(value, _) => exact_literal(value),
        Expr::Alias(alias) => exact(&alias.expr),
        Expr::Not(e) | Expr::IsNull(e) | Expr::IsNotNull(e) => exact(e),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let types = || Some((left.get_type(schema).ok()?, right.get_type(schema).ok()?));
            let allowed = match op {
                Operator::And | Operator::Or => true,
                Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                    alike(left, right)
                }
                Operator::Plus | Operator::Minus | Operator::Multiply => match types() {
                    Some((DataType::Float64, DataType::Float64)) => true,
                    Some((l, r)) => is_integer(&l) && is_integer(&r) && (l == DataType::Int64 || r == DataType::Int64),
                    None => false,
                },
                _ => false,
            };
            allowed && exact(left) && exact(right)
        }
        Expr::Between(Between { expr, low, high, .. }) => {
            exact(expr) && exact(low) && exact(high) && alike(expr, low) && alike(expr, high)
        }
        Expr::InList(InList { expr, list, .. }) => exact(expr) && list.iter().all(|item| exact(item) && alike(expr, item)),
        Expr::Like(Like { expr, pattern, escape_char: None, case_insensitive: false, .. }) => {
            let is_text = expr.get_type(schema).is_ok_and(|t| t == DataType::Utf8);
            let plain = matches!(&**pattern, Expr::Literal(ScalarValue::Utf8(Some(p)), _) if !p.contains('\\'));
            is_text && plain && exact(expr)
        }
        Expr::Case(case) => {
            let results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            let types: Vec<_> = results.clone().filter_map(|e| e.get_type(schema).ok()).collect();
            let whens = case.when_then_expr.iter().map(|(when, _)| when);
            let matched = |when: &Expr| case.expr.as_ref().is_none_or(|e| exact(e) && alike(e, when));
            types.windows(2).all(|w| w[0] == w[1])
                && results.into_iter().all(|e| exact(e))
                && whens.into_iter().all(|when| exact(when) && matched(when))
        }
        Expr::Cast(cast) => exact_cast(cast, schema),
        Expr::ScalarFunction(f) => {
            let types: Vec<_> = f.args.iter().filter_map(|e| e.get_type(schema).ok()).collect();
            let allowed = match f.name() {
                "coalesce" => types.windows(2).all(|w| w[0] == w[1]),
                "abs" => matches!(types.as_slice(), [DataType::Int64 | DataType::Float64]),
                _ => false,
            };
            allowed && f.args.iter().all(exact)
        }
        Expr::InSubquery(inner) => {
            let column = inner.subquery.subquery.schema().fields().first().map(|f| f.data_type().clone());
            exact(&inner.expr) && inner.expr.get_type(schema).ok() == column && exact_subquery(&inner.subquery)
        }
        Expr::ScalarSubquery(subquery) => {
            subquery.subquery.schema().fields().iter().all(|f| !is_opaque(f)) && exact_subquery(subquery)
        }
        _ => false,
    }
}

fn exact_cast(cast: &Cast, schema: &DFSchema) -> bool {
    let to = cast.field.data_type();
    match (&*cast.expr, to) {
        (Expr::Literal(ScalarValue::Utf8(Some(text)), _), DataType::Date32) => {
            chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
        }
        (inner, DataType::Int64) => inner.get_type(schema).is_ok_and(|t| is_integer(&t)) && exact_expr(inner, schema),
        _ => false,
    }
}

/// A subquery that stands alone.
fn exact_subquery(subquery: &Subquery) -> bool {
    subquery.outer_ref_columns.is_empty() && exact_plan(&subquery.subquery)
}

fn exact_aggregate(expr: &Expr, schema: &DFSchema) -> bool {
    let function = match expr {
        Expr::AggregateFunction(f) => f,
        Expr::Alias(alias) => return exact_aggregate(&alias.expr, schema),
        _ => return false,
    };
    let AggregateFunction { func, params } = function;
    let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
    if filter.is_some() || !order_by.is_empty() || null_treatment.is_some() || !args.iter().all(|e| exact_expr(e, schema)) {
        return false;
    }
    let types: Vec<_> = args.iter().filter_map(|e| e.get_type(schema).ok()).collect();
    match (func.name(), types.as_slice()) {
        ("count", [t]) => !matches!(t, DataType::Binary),
        ("sum", [t]) => !distinct && (is_integer(t) || matches!(t, DataType::Float64 | DataType::Decimal128(..))),
        ("avg", [t]) => !distinct && (is_integer(t) || matches!(t, DataType::Float64)),
        ("min" | "max", [t]) => !matches!(t, DataType::Boolean | DataType::Binary | DataType::Float32),
        _ => false,
    }
}
