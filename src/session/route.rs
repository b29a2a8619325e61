//! Which way a statement goes: decided once, when it is prepared, and again only when what it was
//! prepared in has changed.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast as sql;
use tracing::Instrument;

use super::about::{is_unknown_name, prefer_stale_error};
use super::{Outcome, Prepared, Rows, Session, TransactionState, variables};
use crate::error::{Error, ErrorKind};
use crate::job::Requester;
use crate::query::{
    AsOf, CachedPlan, Explain, Lookup, described, described_as, job_plan, job_plan_schema,
    parameter_types, plan_sql, refuse_unknown_sql, same_shape, with_position,
};
use crate::statement::{SessionCommand, Show, Statement, placed};

/// The plan of a longer INSERT or DELETE is made anew for its run, away from the connection.
const KEPT_DML_BYTES_MAX: usize = 64 << 10;

/// A statement's way, with what only that way needs.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// Nothing was said.
    Empty,
    /// About the session itself.
    Session,
    /// DECLARE: the cursor's query.
    Declare(Arc<Prepared>),
    /// The rows of one system table that have some values.
    Lookup(Arc<Lookup>),
    /// A query of PostgreSQL's catalogs alone.
    PgCatalog,
    /// Any other query, and its plan, if that is good for more than one run.
    Query(Option<Arc<CachedPlan>>),
    /// INSERT and DELETE, with their plan as above.
    Dml(Option<Arc<CachedPlan>>),
    Explain(Explain),
    /// EXPLAIN of a statement that starts a job.
    ExplainJob,
    /// With the names that it was planned for.
    Show(Option<Arc<(Show, CachedPlan)>>),
    /// `PREPARE name AS …`
    NamedPrepare,
    /// `EXECUTE name`
    NamedExecute,
    /// `COPY … TO STDOUT`: the query.
    CopyTo(Arc<Prepared>),
    /// `COPY t FROM …`
    CopyFrom,
    /// To the cluster as it was written.
    Passthrough,
    /// Everything that changes something and needs no connection.
    Change,
}

/// A statement's way, the types of its parameters and the columns of its answer.
struct Described {
    route: Route,
    parameters: Vec<DataType>,
    schema: Option<SchemaRef>,
}

impl Session {
    /// Works out which way a statement goes, what it needs and what it answers. `declared` are the
    /// parameter types that the client gave.
    pub async fn prepare(
        &mut self,
        statement: Statement,
        text: &str,
        declared: &[Option<DataType>],
    ) -> Result<Prepared, Error> {
        self.follow_cluster()?;
        self.check_block(&statement)?;
        let Described {
            route,
            parameters,
            schema,
        } = self.route(&statement, text, declared).await?;
        Ok(Prepared {
            statement: Arc::new(statement),
            text: text.into(),
            parameters,
            declared: Vec::new(),
            schema,
            route,
            planned_in: self.planning_context(),
            memory: None,
        })
    }

    async fn route(
        &mut self,
        statement: &Statement,
        text: &str,
        declared: &[Option<DataType>],
    ) -> Result<Described, Error> {
        let parameters = declared
            .iter()
            .map(|t| t.clone().unwrap_or(DataType::Utf8))
            .collect();
        let plain = |route: Route| Described {
            route,
            parameters,
            schema: None,
        };
        Ok(match statement {
            Statement::Sql(ast) => return self.route_sql(ast, text, declared).await,
            Statement::Empty => plain(Route::Empty),
            Statement::Session(SessionCommand::Declare(declaration)) => {
                // Nothing is promised of its columns: the table may be another by the time it runs.
                let query = Prepared {
                    schema: None,
                    ..self.prepare_declared(declaration, declared).await?
                };
                Described {
                    parameters: query.parameters.clone(),
                    route: Route::Declare(Arc::new(query)),
                    schema: None,
                }
            }
            Statement::Session(command) => {
                let schema = match command {
                    SessionCommand::Fetch {
                        name, moves: false, ..
                    } => Some(self.fetched_schema(name)?),
                    command => variables::answer_schema(command),
                };
                Described {
                    schema,
                    ..plain(Route::Session)
                }
            }
            Statement::Show(show) => {
                self.check_show(&show.show).await?;
                let as_of = self.as_of();
                let state = self.caller.gateway.engine.state(&as_of, &self.facts())?;
                let (plan, ast) = self.plan_show(&state, show).await?;
                let schema = Some(plan.schema().inner().clone());
                let cached = match &show.show {
                    // Which of two queries it is goes by how the table is partitioned at the time.
                    Show::Partitions { .. } => None,
                    named => {
                        let spelled = self.spelled_show(named);
                        let cached =
                            CachedPlan::of(&plan, ast, &state, &*self.caller.cluster).await?;
                        cached.map(|plan| Arc::new((spelled, plan)))
                    }
                };
                Described {
                    schema,
                    ..plain(Route::Show(cached))
                }
            }
            Statement::CopyTo(copy) => {
                let query =
                    Box::pin(self.prepare(Statement::Sql(copy.query.clone()), text, declared))
                        .await?;
                let query = Prepared {
                    schema: None,
                    ..query
                };
                Described {
                    parameters: query.parameters.clone(),
                    route: Route::CopyTo(Arc::new(query)),
                    schema: None,
                }
            }
            Statement::ExplainJob(_) => Described {
                schema: Some(job_plan_schema()),
                ..plain(Route::ExplainJob)
            },
            Statement::Raw(_) => plain(Route::Passthrough),
            Statement::Define(_) | Statement::Copy(_)
                if self.caller.cluster.external().is_some() =>
            {
                plain(Route::Passthrough)
            }
            // PostgreSQL refuses these when the statement is parsed, and drivers count on it.
            Statement::Copy(copy) => {
                self.check_copy(copy).await?;
                plain(Route::CopyFrom)
            }
            Statement::Backup(_)
            | Statement::Restore(_)
            | Statement::Cancel(_)
            | Statement::CreateRepository(_)
            | Statement::DropRepository(_)
            | Statement::DropSnapshot(_)
            | Statement::CancelJob { .. }
            | Statement::AlterRepository(_)
            | Statement::ControlJob { .. }
            | Statement::Verify(_)
            | Statement::Prune(_)
            | Statement::ImportHistory(_)
            | Statement::WaitForJob(_)
            | Statement::Cluster(_)
            | Statement::Recover(_)
            | Statement::Define(_)
            | Statement::User(_) => plain(Route::Change),
        })
    }

    async fn route_sql(
        &mut self,
        ast: &sql::Statement,
        text: &str,
        declared: &[Option<DataType>],
    ) -> Result<Described, Error> {
        let mut parameters: Vec<DataType> = declared
            .iter()
            .map(|t| t.clone().unwrap_or(DataType::Utf8))
            .collect();
        if let Some(lookup) = self.lookup(ast) {
            let known = lookup.parameters();
            parameters.resize(known.len().max(parameters.len()), DataType::Utf8);
            for (i, ty) in known
                .into_iter()
                .enumerate()
                .filter(|(i, _)| declared.get(*i).is_none_or(Option::is_none))
            {
                parameters[i] = ty;
            }
            return Ok(Described {
                parameters,
                schema: Some(self.looked_up_schema(&lookup)),
                route: Route::Lookup(lookup),
            });
        }
        if let Some((parameters, columns)) = self.describe_by_catalogs(ast, text, declared).await? {
            return Ok(Described {
                parameters,
                schema: Some(columns),
                route: Route::PgCatalog,
            });
        }
        match ast {
            sql::Statement::Prepare { .. } => {
                return Ok(Described {
                    parameters,
                    schema: None,
                    route: Route::NamedPrepare,
                });
            }
            sql::Statement::Execute {
                name: Some(name), ..
            } => {
                let schema = self.executed(name)?.schema.clone();
                return Ok(Described {
                    parameters,
                    schema,
                    route: Route::NamedExecute,
                });
            }
            _ => {}
        }
        if let Some((explain, explained)) = Explain::read(ast)? {
            let parameters = self
                .explained_parameters(explain, explained, text, declared)
                .await?;
            return Ok(Described {
                parameters,
                schema: Some(explain.schema()),
                route: Route::Explain(explain),
            });
        }
        if self.is_passthrough(ast) {
            return Ok(Described {
                parameters,
                schema: None,
                route: Route::Passthrough,
            });
        }
        refuse_unknown_sql(ast)?;
        let mut stale = self.refresh_for(ast).await;
        let mut is_asked_again = false;
        let (state, plan) = loop {
            let as_of = self.as_of_for(ast).await?;
            let state = self.caller.gateway.engine.state(&as_of, &self.facts())?;
            match plan_sql(&self.caller.gateway.engine, &state, ast).await {
                Ok(plan) => break (state, plan),
                // It may have been made on the cluster a moment ago.
                Err(e) if is_unknown_name(&e) && !is_asked_again && stale.is_none() => {
                    is_asked_again = true;
                    if self.caller.cluster.external().is_none() {
                        return Err(with_position(e, ast, text));
                    }
                    self.caller.cluster.forget_names();
                    stale = self.refresh_for(ast).await;
                }
                Err(e) => return Err(with_position(prefer_stale_error(e, stale), ast, text)),
            }
        };
        let parameters = parameter_types(&plan, ast, declared)?;
        let is_query = matches!(ast, sql::Statement::Query(_));
        // PostgreSQL's catalogs are tables of one instant; what has many rows in its text takes long
        // to copy.
        let cached = if self.names_a_catalog(ast) || (!is_query && text.len() > KEPT_DML_BYTES_MAX)
        {
            None
        } else {
            CachedPlan::of(&plan, ast, &state, &*self.caller.cluster)
                .await?
                .map(Arc::new)
        };
        if !is_query {
            return Ok(Described {
                parameters,
                schema: None,
                route: Route::Dml(cached),
            });
        }
        let schema = described_as(
            &*self.caller.cluster,
            &described(&plan, &parameters, &self.facts().time_zone)?,
            ast,
            &plan,
        );
        Ok(Described {
            parameters,
            schema: Some(schema),
            route: Route::Query(cached),
        })
    }

    /// Carries out a prepared statement, in a span of its own.
    pub async fn execute(
        &mut self,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        let span = tracing::info_span!("statement", pid = self.client.pid, user = %self.client.user, statement = %self.shown_as(&prepared.statement, &prepared.text));
        let carried_out = self.carry_out(prepared, values).instrument(span).await;
        carried_out.map_err(|e| placed(e, &prepared.text))
    }

    pub(super) async fn carry_out(
        &mut self,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        self.follow_cluster()?;
        self.check_block(&prepared.statement)?;
        let again;
        let prepared = if prepared.planned_in == self.planning_context() {
            prepared
        } else {
            again = self.prepare_again(prepared).await?;
            &again
        };
        let statement = &*prepared.statement;
        match (&prepared.route, statement) {
            (Route::Empty, _) => Ok(Outcome::Empty),
            (Route::Session, Statement::Session(command)) => {
                let chooses = matches!(command, SessionCommand::Use(_))
                    || matches!(command, SessionCommand::Set { name, .. } if name == "search_path");
                if chooses {
                    self.caller.cluster.refresh().await?;
                }
                self.session_command(command).await
            }
            (Route::Declare(query), Statement::Session(SessionCommand::Declare(declaration))) => {
                self.declare(declaration, query, values).await
            }
            (Route::Lookup(lookup), _) => {
                let schema = prepared
                    .schema
                    .clone()
                    .unwrap_or_else(|| lookup.schema().clone());
                self.look_up(lookup, schema, &values).await
            }
            (Route::PgCatalog, Statement::Sql(ast))
                if let sql::Statement::Query(query) = &**ast =>
            {
                self.ask_catalogs(query, prepared, values).await
            }
            (Route::Query(cached), Statement::Sql(ast)) => {
                self.query(ast, cached.as_deref(), prepared, values).await
            }
            (Route::Dml(cached), Statement::Sql(ast)) => {
                self.dml(ast, cached.as_deref(), prepared, values).await
            }
            (Route::Explain(explain), Statement::Sql(ast)) => {
                self.explain(*explain, ast, values).await
            }
            (Route::ExplainJob, Statement::ExplainJob(explained)) => {
                let steps = self.caller.explain(explained).await?;
                let as_of = self.as_of();
                Ok(Outcome::Rows(Rows::of(job_plan(&steps)?, "EXPLAIN", as_of)))
            }
            (Route::Show(cached), Statement::Show(show)) => {
                self.show(show, cached.as_deref()).await
            }
            (Route::NamedPrepare, Statement::Sql(ast))
                if let sql::Statement::Prepare {
                    name,
                    data_types,
                    statement,
                } = &**ast =>
            {
                self.prepare_by_name(name, data_types, statement).await
            }
            (Route::NamedExecute, Statement::Sql(ast))
                if let sql::Statement::Execute {
                    name: Some(name),
                    parameters,
                    ..
                } = &**ast =>
            {
                self.execute_by_name(name, parameters).await
            }
            (Route::CopyTo(query), Statement::CopyTo(copy)) => {
                self.copy_to(copy, query, values).await
            }
            (Route::CopyFrom, Statement::Copy(copy)) => {
                self.changes(statement)?;
                self.copy_from(copy).await
            }
            (Route::Passthrough, Statement::Sql(_)) => {
                self.check_may_write("a statement that is passed through")?;
                self.applied_at_once();
                self.pass_through(prepared).await
            }
            (Route::Passthrough, _) => {
                self.changes(statement)?;
                self.pass_through(prepared).await
            }
            (Route::Change, _) => {
                self.changes(statement)?;
                if let Requester::User {
                    application_name, ..
                } = &mut self.caller.requester
                {
                    *application_name = self
                        .variables
                        .get("application_name")
                        .filter(|n| !n.is_empty());
                }
                self.caller.change(statement).await.map(Outcome::Done)
            }
            _ => Err(Error::internal("a statement was sent another one's way")),
        }
    }

    /// The same statement, prepared for what the session is now. Its answer must be what was
    /// promised.
    async fn prepare_again(&mut self, prepared: &Prepared) -> Result<Prepared, Error> {
        let types: Vec<_> = prepared
            .parameters
            .iter()
            .map(|t| Some(t.clone()))
            .collect();
        let again = Box::pin(self.prepare(
            Statement::clone(&prepared.statement),
            &prepared.text,
            &types,
        ))
        .await;
        // Places in its text are none in that of whoever runs it.
        let again = again.map_err(|mut e| {
            e.position = None;
            e
        })?;
        match (&prepared.schema, &again.schema) {
            (None, _) => Ok(Prepared {
                schema: None,
                ..again
            }),
            (Some(before), Some(now)) if same_shape(before, now) => Ok(again),
            _ => Err(changed_result()),
        }
    }

    /// A block that only reads refuses this; one that may write cannot take it back.
    fn changes(&mut self, statement: &Statement) -> Result<(), Error> {
        self.check_may_write(statement.verb())?;
        if self.block.state == TransactionState::Active
            && matches!(statement, Statement::Backup(_) | Statement::Restore(_))
        {
            self.caller.notice(format!(
                "{} takes effect at once; ROLLBACK will not undo it",
                statement.verb()
            ));
        }
        self.applied_at_once();
        Ok(())
    }

    async fn query(
        &mut self,
        ast: &sql::Statement,
        cached: Option<&CachedPlan>,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        let (as_of, state, plan) = self.plan_of_now(ast, cached).await?;
        let plan = with_values(plan, prepared, values, &self.facts().time_zone)?;
        self.caller.check_readable(&plan).await?;
        let schema = described_as(&*self.caller.cluster, plan.schema().inner(), ast, &plan);
        if prepared
            .schema
            .as_ref()
            .is_some_and(|described| !same_shape(described, &schema))
        {
            return Err(changed_result());
        }
        let plan = self.caller.cluster.push_down(plan)?;
        let stream = self.caller.gateway.engine.run(&state, &plan).await?;
        Ok(Outcome::Rows(Rows {
            schema,
            stream,
            verb: "SELECT",
            binary: false,
            _as_of: as_of,
        }))
    }

    /// A statement's plan against the tables of this instant: the cached one while they have the
    /// columns that it was made for.
    async fn plan_of_now(
        &mut self,
        ast: &sql::Statement,
        cached: Option<&CachedPlan>,
    ) -> Result<(AsOf, Arc<SessionState>, LogicalPlan), Error> {
        let stale = self.refresh_for(ast).await;
        let as_of = self.as_of_for(ast).await?;
        let engine = &self.caller.gateway.engine;
        let state = engine.state(&as_of, &self.facts())?;
        let cached = match cached {
            Some(cached) => cached.against(&state).await?,
            None => None,
        };
        let plan = match cached {
            Some(plan) => plan,
            None => plan_sql(engine, &state, ast)
                .await
                .map_err(|e| prefer_stale_error(e, stale))?,
        };
        Ok((as_of, state, plan))
    }

    async fn dml(
        &mut self,
        ast: &sql::Statement,
        cached: Option<&CachedPlan>,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        let (as_of, state, plan) = self.plan_of_now(ast, cached).await?;
        let zone = self.facts().time_zone;
        let LogicalPlan::Dml(dml) = with_values(plan, prepared, values, &zone)? else {
            return Err(Error::internal(
                "a statement that changes rows was planned as another",
            ));
        };
        self.check_may_write(if matches!(ast, sql::Statement::Insert(_)) {
            "INSERT"
        } else {
            "DELETE"
        })?;
        self.check_writable(&dml).await?;
        self.applied_at_once();
        if self.caller.cluster.external().is_some() {
            return self.pass_through(prepared).await;
        }
        drop(as_of);
        let has_predicate =
            matches!(ast, sql::Statement::Delete(delete) if delete.selection.is_some());
        self.write(&state, dml, has_predicate).await
    }
}

fn with_values(
    plan: LogicalPlan,
    prepared: &Prepared,
    values: Vec<ScalarValue>,
    zone: &str,
) -> Result<LogicalPlan, Error> {
    if prepared.parameters.is_empty() && values.is_empty() {
        return Ok(plan);
    }
    crate::query::with_values(plan, values, zone)
}

fn changed_result() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "cached plan must not change result type",
    )
    .hint("A table has changed since the statement was prepared; prepare it again.")
}
