//! EXPLAIN, with the options and the one column of PostgreSQL's: what is asked, and what DataFusion
//! tells of its plans.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::format::{ExplainFormat, ExplainStatementOptions};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{ExplainStatement, Statement as PlannerStatement};
use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;

use super::{QueryEngine, plan_statement, to_datafusion_dialect};
use crate::catalog::TYPE_KEY;
use crate::error::{Error, ErrorKind};

#[derive(Clone, Copy, Debug)]
pub struct Explain {
    pub analyze: bool,
    pub verbose: bool,
    pub json: bool,
}

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

    pub fn schema(&self) -> SchemaRef {
        let pg = if self.json { Type::JSON } else { Type::TEXT };
        let said = HashMap::from([(TYPE_KEY.to_owned(), pg.oid().to_string())]);
        Schema::new(vec![
            Field::new("QUERY PLAN", DataType::Utf8, false).with_metadata(said),
        ])
        .into()
    }

    pub async fn plan(
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
    pub fn plan_lines(&self, batches: &[RecordBatch]) -> Vec<String> {
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
