//! A statement of SQL as a plan: which statements may be one at all, what parameters it takes and
//! what columns it answers.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast as sql;

use super::meaning::{as_postgresql, with_parameters};
use super::{QueryEngine, to_datafusion_dialect};
use crate::error::{Error, ErrorKind, from_datafusion};

/// What DataFusion may be given: queries and INSERT, DELETE. Everything else it knows would reach
/// files or catalogs past us.
pub fn refuse_unknown_sql(ast: &sql::Statement) -> Result<(), Error> {
    match ast {
        sql::Statement::Query(_) => Ok(()),
        sql::Statement::Insert(insert) => {
            let more = insert.overwrite
                || insert.partitioned.is_some()
                || insert.on.is_some()
                || insert.returning.is_some();
            // `INSERT INTO t PARTITION (p) …` reads as a table of that alias.
            if let Some(alias) = &insert.table_alias {
                let is_partition = alias.alias.quote_style.is_none()
                    && alias.alias.value.eq_ignore_ascii_case("partition");
                let what = if is_partition {
                    "INSERT … PARTITION (…)"
                } else {
                    "INSERT into a table with an alias"
                };
                return Err(Error::unsupported(what));
            }
            if more || insert.or.is_some() || insert.ignore || insert.replace_into {
                return Err(Error::unsupported(
                    "INSERT with OVERWRITE, PARTITION, ON CONFLICT, RETURNING and the like",
                ));
            }
            Ok(())
        }
        sql::Statement::Delete(delete) => {
            let more = delete.using.is_some()
                || delete.returning.is_some()
                || delete.limit.is_some()
                || !delete.tables.is_empty();
            if more || !delete.order_by.is_empty() {
                return Err(
                    Error::unsupported("DELETE with USING, RETURNING, ORDER BY or LIMIT")
                        .hint("Use DELETE FROM t WHERE …, perhaps with a subquery."),
                );
            }
            Ok(())
        }
        sql::Statement::Update(_) => Err(Error::unsupported("UPDATE").hint(
            "INSERT the new rows into a PRIMARY KEY or UNIQUE KEY table, or DELETE and INSERT.",
        )),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            Err(Error::unsupported(words.join(" ").to_ascii_uppercase()))
        }
    }
}

/// The plan of a statement, not yet optimized. A long one takes a while and never pauses: it is
/// made where queries run, so that nobody waits for it who has given up.
pub async fn plan_sql(
    engine: &QueryEngine,
    state: &Arc<SessionState>,
    ast: &sql::Statement,
) -> Result<LogicalPlan, Error> {
    let statement =
        datafusion::sql::parser::Statement::Statement(Box::new(to_datafusion_dialect(ast)?));
    plan_statement(engine, state, statement).await
}

/// The same of a statement as DataFusion has it.
pub async fn plan_statement(
    engine: &QueryEngine,
    state: &Arc<SessionState>,
    statement: datafusion::sql::parser::Statement,
) -> Result<LogicalPlan, Error> {
    let state = state.clone();
    engine
        .offload(async move {
            let plan = state.statement_to_plan(statement).await?;
            let zone = state.config_options().execution.time_zone.clone();
            as_postgresql(plan, zone.as_deref().unwrap_or("UTC"))
        })
        .await?
        .map_err(from_datafusion)
}

/// Whether rows of one schema are what the other promised: names and types, whatever their
/// nullability.
pub fn same_shape(a: &SchemaRef, b: &SchemaRef) -> bool {
    let alike =
        |(a, b): (&Arc<Field>, &Arc<Field>)| a.name() == b.name() && a.data_type() == b.data_type();
    a.fields().len() == b.fields().len() && a.fields().iter().zip(b.fields()).all(alike)
}

/// The types of `$1`, `$2`, … in order: what the client said, else what the plan needs, else text.
pub fn parameter_types(
    plan: &LogicalPlan,
    ast: &sql::Statement,
    declared: &[Option<DataType>],
) -> Result<Vec<DataType>, Error> {
    let mut inferred = plan.get_parameter_types().map_err(from_datafusion)?;
    for (name, data_type) in surrounded(plan)? {
        inferred.entry(name).or_default().get_or_insert(data_type);
    }
    for name in row_counts(ast) {
        inferred
            .entry(name)
            .or_default()
            .get_or_insert(DataType::Int64);
    }
    let mut types: Vec<DataType> = declared
        .iter()
        .map(|t| t.clone().unwrap_or(DataType::Utf8))
        .collect();
    for (name, data_type) in inferred {
        let number: usize = name
            .trim_start_matches('$')
            .parse()
            .ok()
            .filter(|n| (1..=65_535).contains(n))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::UndefinedParameter,
                    format!("there is no parameter {name}"),
                )
            })?;
        if types.len() < number {
            types.resize(number, DataType::Utf8);
        }
        // NUMERIC comes without precision and scale, so what the statement needs says more.
        let is_open = |t: &Option<DataType>| matches!(t, None | Some(DataType::Decimal128(..)));
        if declared.get(number - 1).is_none_or(is_open)
            && let Some(data_type) = data_type
        {
            types[number - 1] = data_type;
        }
    }
    Ok(types)
}

/// A plan with the values of its parameters. `zone` is the session's.
pub fn with_values(
    plan: LogicalPlan,
    values: Vec<ScalarValue>,
    zone: &str,
) -> Result<LogicalPlan, Error> {
    // Moments are shown in the session's zone.
    let values = values.into_iter().map(|value| match value {
        ScalarValue::TimestampMicrosecond(micros, Some(_)) => {
            ScalarValue::TimestampMicrosecond(micros, Some(zone.into()))
        }
        other => other,
    });
    let values: Vec<ScalarValue> = values.collect();
    // What a parameter meets depends on its type.
    plan.with_param_values(ParamValues::from(values))
        .and_then(|plan| with_parameters(plan, zone))
        .map_err(from_datafusion)
}

/// The columns of a plan whose parameters are typed but not given.
pub fn described(
    plan: &LogicalPlan,
    parameters: &[DataType],
    zone: &str,
) -> Result<SchemaRef, Error> {
    if parameters.is_empty() {
        return Ok(plan.schema().inner().clone());
    }
    let nulls: Vec<ScalarValue> = parameters
        .iter()
        .map(|t| ScalarValue::try_from(t).map_err(from_datafusion))
        .collect::<Result<_, _>>()?;
    let typed = with_values(plan.clone(), nulls, zone)?;
    Ok(typed.schema().inner().clone())
}

/// The parameters whose types their surroundings say: those under a cast, and those of `value = ANY
/// ($n)`, each an array of what it is compared with.
fn surrounded(plan: &LogicalPlan) -> Result<Vec<(String, DataType)>, Error> {
    let mut found = Vec::new();
    let mut look = |node: &LogicalPlan| {
        let mut below = datafusion::common::DFSchema::empty();
        for input in node.inputs() {
            below.merge(input.schema());
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                // A cast says what its parameter is, where nothing else does.
                if let Expr::Cast(cast) = expr
                    && let Expr::Placeholder(parameter) = &*cast.expr
                {
                    found.push((parameter.id.clone(), cast.field.data_type().clone()));
                }
                if let Expr::ScalarFunction(call) = expr
                    && call.name() == super::ANY_ARRAY
                    && let [Expr::Placeholder(parameter), value] = call.args.as_slice()
                    && let Ok(value) = value.get_type(&below)
                {
                    found.push((
                        parameter.id.clone(),
                        DataType::List(Field::new_list_field(value, true).into()),
                    ));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    };
    plan.apply_with_subqueries(|node| {
        look(node)?;
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    Ok(found)
}

/// The parameters that stand after LIMIT, OFFSET and FETCH, whose type no expression says.
fn row_counts(ast: &sql::Statement) -> Vec<String> {
    struct Counts(Vec<String>);
    impl sql::Visitor for Counts {
        type Break = ();
        fn pre_visit_query(&mut self, query: &sql::Query) -> std::ops::ControlFlow<()> {
            let exprs: Vec<Option<&sql::Expr>> = match &query.limit_clause {
                Some(sql::LimitClause::LimitOffset { limit, offset, .. }) => {
                    vec![limit.as_ref(), offset.as_ref().map(|o| &o.value)]
                }
                Some(sql::LimitClause::OffsetCommaLimit { offset, limit }) => {
                    vec![Some(offset), Some(limit)]
                }
                None => Vec::new(),
            };
            let fetch = query.fetch.as_ref().and_then(|f| f.quantity.as_ref());
            for expr in exprs.into_iter().chain([fetch]).flatten() {
                if let sql::Expr::Value(value) = expr
                    && let sql::Value::Placeholder(name) = &value.value
                {
                    self.0.push(name.clone());
                }
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut counts = Counts(Vec::new());
    let _ = sql::Visit::visit(ast, &mut counts);
    counts.0
}
