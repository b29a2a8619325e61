//! EXPLAIN, with the options and the one column of PostgreSQL's: how DataFusion runs a query, as
//! lines or as JSON.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::format::{ExplainFormat, ExplainStatementOptions};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{ExplainStatement, Statement as PlannerStatement};
use datafusion::sql::sqlparser::ast as sql;
use futures::TryStreamExt;
use postgres_types::Type;

use super::{Outcome, Rows, Session, parameter_types, prefer_stale_error, with_position};
use crate::catalog::TYPE_KEY;
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::query::{QueryEngine, plan_statement, to_datafusion_dialect};
use crate::statement::Statement;

/// What EXPLAIN is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Explain {
    analyze: bool,
    verbose: bool,
    json: bool,
}

/// A query, and the values of its parameters.
type Explained = (Box<sql::Query>, Vec<ScalarValue>);

fn option_error(message: String) -> Error {
    Error::new(ErrorKind::Syntax, message)
}

/// The value of an option that is on or off; none is on.
fn switch(name: &str, value: Option<&sql::Expr>) -> Result<bool, Error> {
    let Some(value) = value else { return Ok(true) };
    match value.to_string().trim_matches('\'').to_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(option_error(format!("{name} requires a Boolean value"))),
    }
}

impl Explain {
    /// The statement as an EXPLAIN, if it is one, and what it explains. Options that are about what
    /// only PostgreSQL counts change nothing.
    pub fn read(ast: &sql::Statement) -> Result<Option<(Self, &sql::Statement)>, Error> {
        let sql::Statement::Explain {
            describe_alias,
            analyze,
            verbose,
            statement,
            format,
            options,
            ..
        } = ast
        else {
            return Ok(None);
        };
        if *describe_alias != sql::DescribeAlias::Explain {
            return Err(
                Error::unsupported(describe_alias).hint("\\d in psql, or SHOW CREATE TABLE.")
            );
        }
        let mut explain = Self {
            analyze: *analyze,
            verbose: *verbose,
            json: false,
        };
        let mut format = format.as_ref().map(ToString::to_string);
        for option in options.iter().flatten() {
            let name = option.name.value.to_lowercase();
            match name.as_str() {
                "analyze" => explain.analyze = switch(&name, option.arg.as_ref())?,
                "verbose" => explain.verbose = switch(&name, option.arg.as_ref())?,
                "format" => format = option.arg.as_ref().map(ToString::to_string),
                "costs" | "settings" | "generic_plan" | "buffers" | "wal" | "timing"
                | "summary" | "memory" => {
                    switch(&name, option.arg.as_ref())?;
                }
                _ => {
                    return Err(option_error(format!(
                        "unrecognized EXPLAIN option \"{name}\""
                    )));
                }
            }
        }
        match format
            .map(|f| {
                f.trim_start_matches("FORMAT ")
                    .trim_matches('\'')
                    .to_lowercase()
            })
            .as_deref()
        {
            None | Some("text") => {}
            Some("json") => explain.json = true,
            Some("xml" | "yaml") => {
                return Err(
                    Error::unsupported("EXPLAIN in XML or YAML").hint("FORMAT JSON is there.")
                );
            }
            Some(other) => {
                return Err(option_error(format!(
                    "unrecognized value for EXPLAIN option \"format\": \"{other}\""
                )));
            }
        }
        if !matches!(
            statement.as_ref(),
            sql::Statement::Query(_) | sql::Statement::Execute { name: Some(_), .. }
        ) {
            return Err(Error::unsupported("EXPLAIN of anything but a query"));
        }
        Ok(Some((explain, statement)))
    }

    /// Its one column.
    pub fn schema(&self) -> SchemaRef {
        let pg = if self.json { Type::JSON } else { Type::TEXT };
        let said = HashMap::from([(TYPE_KEY.to_owned(), pg.oid().to_string())]);
        Schema::new(vec![
            Field::new("QUERY PLAN", DataType::Utf8, false).with_metadata(said),
        ])
        .into()
    }

    async fn plan(
        &self,
        engine: &QueryEngine,
        state: &Arc<SessionState>,
        query: Box<sql::Query>,
    ) -> Result<LogicalPlan, Error> {
        let statement = to_datafusion_dialect(&sql::Statement::Query(query))?;
        let format = if self.json {
            ExplainFormat::PostgresJSON
        } else {
            ExplainFormat::Indent
        };
        let options = ExplainStatementOptions {
            analyze: self.analyze,
            format: Some(format),
            ..Default::default()
        };
        let statement = Box::new(PlannerStatement::Statement(Box::new(statement)));
        let explain = PlannerStatement::Explain(ExplainStatement { options, statement });
        plan_statement(engine, state, explain).await
    }

    /// What is shown of the plans that DataFusion tells: the one that runs, with VERBOSE the one
    /// that it was made from, too. Nothing if it tells of none that runs.
    fn shown(&self, batches: &[RecordBatch]) -> Vec<String> {
        let column = |batch: &RecordBatch, i: usize| {
            batch
                .column(i)
                .as_string::<i32>()
                .iter()
                .map(own)
                .collect::<Vec<_>>()
        };
        let told: Vec<_> = batches
            .iter()
            .flat_map(|b| column(b, 0).into_iter().zip(column(b, 1)))
            .collect();
        if self.json {
            return told
                .into_iter()
                .map(|(_, plan)| plan)
                .filter(|plan| plan.starts_with('['))
                .take(1)
                .collect();
        }
        let mut lines = Vec::new();
        if !told
            .iter()
            .any(|(kind, _)| matches!(kind.as_str(), PHYSICAL | ANALYZED))
        {
            return lines;
        }
        for (kind, plan) in told {
            if !(self.verbose || matches!(kind.as_str(), PHYSICAL | ANALYZED)) {
                continue;
            }
            let indent = if self.verbose { "  " } else { "" };
            if self.verbose {
                lines.push(format!("{}:", kind.replace('_', " ")));
            }
            lines.extend(plan.lines().map(|line| format!("{indent}{line}")));
        }
        lines
    }
}

/// How DataFusion calls the plan that runs, and the one that has run.
const PHYSICAL: &str = "physical_plan";
const ANALYZED: &str = "Plan with Metrics";

fn own(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

impl Session {
    /// The types of the parameters of an EXPLAIN.
    pub(super) async fn explained_parameters(
        &mut self,
        explain: Explain,
        ast: &sql::Statement,
        text: &str,
        declared: &[Option<DataType>],
    ) -> Result<Vec<DataType>, Error> {
        let sql::Statement::Query(query) = ast else {
            return Ok(Vec::new());
        };
        if let Some((types, _)) = self.describe_by_catalogs(ast, text, declared).await? {
            return Ok(types);
        }
        let stale = self.refresh_for(ast).await;
        let view = self.view_for(ast).await?;
        let state = self.caller.gateway.engine.state(&view, &self.facts())?;
        let plan = explain
            .plan(&self.caller.gateway.engine, &state, query.clone())
            .await
            .map_err(|e| with_position(prefer_stale_error(e, stale), ast, text))?;
        parameter_types(&plan, ast, declared)
    }

    /// The query that is explained, with the values of its parameters.
    async fn explained(
        &mut self,
        ast: &sql::Statement,
        values: Vec<ScalarValue>,
    ) -> Result<Explained, Error> {
        let Some((_, statement)) = Explain::read(ast)? else {
            return Err(Error::internal("an EXPLAIN is none"));
        };
        match statement {
            sql::Statement::Query(query) => Ok((query.clone(), values)),
            sql::Statement::Execute {
                name: Some(name),
                parameters,
                ..
            } => {
                let (prepared, values) = self.bound(name, parameters).await?;
                match &*prepared.statement {
                    Statement::Sql(ast) if let sql::Statement::Query(query) = &**ast => {
                        Ok((query.clone(), values))
                    }
                    _ => Err(Error::unsupported("EXPLAIN of anything but a query")),
                }
            }
            _ => Err(Error::internal(
                "an EXPLAIN of what is no query was let through",
            )),
        }
    }

    /// DataFusion explains what does not plan, too, as far as it came; that is an error here, the
    /// one that the query would end in.
    async fn why_it_does_not_run(&self, state: &Arc<SessionState>, plan: LogicalPlan) -> Error {
        let (LogicalPlan::Explain(datafusion::logical_expr::Explain { plan: inner, .. })
        | LogicalPlan::Analyze(datafusion::logical_expr::Analyze { input: inner, .. })) = plan
        else {
            return Error::internal("an EXPLAIN is none");
        };
        match self.caller.gateway.engine.run(state, &inner).await {
            Err(error) => error,
            Ok(_) => Error::internal("a query runs that could not be explained"),
        }
    }

    pub(super) async fn explain(
        &mut self,
        explain: Explain,
        ast: &sql::Statement,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        let (query, values) = self.explained(ast, values).await?;
        let ast = sql::Statement::Query(query.clone());
        let types: Vec<_> = values.iter().map(|v| Some(v.data_type())).collect();
        let (view, lines) = match self.describe_by_catalogs(&ast, "", &types).await? {
            // No plan of DataFusion's answers it.
            Some((_, columns)) => {
                let output: Vec<_> = columns.fields().iter().map(|f| f.name()).collect();
                let node = serde_json::json!([{ "Plan": { "Node Type": "Catalog Query", "Output": output } }]);
                let line = if explain.json {
                    format!("{node:#}")
                } else {
                    "Catalog Query".to_owned()
                };
                (
                    self.caller
                        .gateway
                        .engine
                        .view(&self.caller.cluster, self.client.user.as_str()),
                    vec![line],
                )
            }
            None => {
                let stale = self.refresh_for(&ast).await;
                let view = self.view_for(&ast).await?;
                let state = self.caller.gateway.engine.state(&view, &self.facts())?;
                let mut plan = explain
                    .plan(&self.caller.gateway.engine, &state, query)
                    .await
                    .map_err(|e| prefer_stale_error(e, stale))?;
                if !values.is_empty() {
                    plan = plan
                        .with_param_values(ParamValues::from(values))
                        .map_err(from_datafusion)?;
                }
                self.caller.check_readable(&plan).await?;
                let plan = self.caller.cluster.push_down(plan)?;
                let told = self.caller.gateway.engine.run(&state, &plan).await?;
                let lines = explain.shown(
                    &told
                        .try_collect::<Vec<_>>()
                        .await
                        .map_err(from_datafusion)?,
                );
                if lines.is_empty() {
                    return Err(self.why_it_does_not_run(&state, plan).await);
                }
                (view, lines)
            }
        };
        let batch =
            RecordBatch::try_new(explain.schema(), vec![Arc::new(StringArray::from(lines))]);
        let batch = batch.map_err(|e| from_datafusion(e.into()))?;
        Ok(Outcome::Rows(Rows::of(batch, "EXPLAIN", view)))
    }
}
