//! EXPLAIN in a session: how DataFusion runs a query, as lines or as JSON.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast as sql;
use futures::TryStreamExt;

use super::{Outcome, Rows, Session, parameter_types, prefer_stale_error};
use crate::error::{Error, from_datafusion};
use crate::query::{Explain, with_position};
use crate::statement::Statement;

/// A query, and the values of its parameters.
type Explained = (Box<sql::Query>, Vec<ScalarValue>);

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
        let as_of = self.as_of_for(ast).await?;
        let state = self.caller.gateway.engine.state(&as_of, &self.facts())?;
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
        let (as_of, lines) = match self.describe_by_catalogs(&ast, "", &types).await? {
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
                        .as_of(&self.caller.cluster, self.client.user.as_str()),
                    vec![line],
                )
            }
            None => {
                let stale = self.refresh_for(&ast).await;
                let as_of = self.as_of_for(&ast).await?;
                let state = self.caller.gateway.engine.state(&as_of, &self.facts())?;
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
                let lines = explain.plan_lines(
                    &told
                        .try_collect::<Vec<_>>()
                        .await
                        .map_err(from_datafusion)?,
                );
                if lines.is_empty() {
                    return Err(self.why_it_does_not_run(&state, plan).await);
                }
                (as_of, lines)
            }
        };
        let batch =
            RecordBatch::try_new(explain.schema(), vec![Arc::new(StringArray::from(lines))]);
        let batch = batch.map_err(|e| from_datafusion(e.into()))?;
        Ok(Outcome::Rows(Rows::of(batch, "EXPLAIN", as_of)))
    }
}
