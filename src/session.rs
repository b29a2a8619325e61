//! One connection's point of view: user, settings, current database, transaction; and the one way in for every statement.
//!
//! A statement is prepared ([`Session::prepare`]: what does it need, what will it answer) and executed
//! ([`Session::execute`]). Both protocols, and everything else that ever runs a statement, come through here, so privileges are
//! checked in one place.

mod about;
mod admin;
mod clusters;
mod connections;
mod copy;
mod cursors;
mod data;
mod describe;
mod explain;
mod gateway;
mod jobs;
mod kept;
mod lookup;
mod objects;
mod plan;
mod prepared;
mod privileges;
mod reading;
mod remote;
mod rows;
mod show;
mod transaction;
mod variables;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast as sql;
use tracing::Instrument;

use self::about::{prefer_stale_error, verb, with_position};
pub use self::admin::{MockSalts, ROOT, password_verifier};
pub use self::clusters::open_cluster;
pub use self::connections::Connections;
pub use self::copy::{CopyIn, CopyOut};
use self::cursors::Cursor;
use self::explain::Explain;
pub use self::gateway::{AllowedHosts, Gateway, Limits};
use self::kept::{CachedPlan, PlanningContext};
pub use self::objects::KeptObjects;
use self::plan::{described, parameter_types, plan_sql, refuse_unknown_sql, same_shape};
pub use self::reading::{Lasts, Read};
pub use self::rows::Rows;
use self::variables::Variables;
use crate::catalog::Catalogs;
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::names::*;
pub use crate::query::Zone;
use crate::query::{AsOf, Lookup, SessionFacts, SessionRow};
use crate::statement::{SessionCommand, Statement, TransactionModes};

/// Something the user should know beside the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// NOTICE or WARNING.
    pub severity: &'static str,
    /// Its SQLSTATE.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

/// Where a session stands between BEGIN and COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// Outside a block.
    Idle,
    /// Inside one.
    Active,
    /// Inside one that has failed.
    Failed,
}

/// Who connects.
#[derive(Clone, Debug)]
pub struct Client {
    /// The user.
    pub user: UserName,
    /// `dbname` of the start-up packet.
    pub database: Option<String>,
    /// Where from.
    pub addr: String,
    /// The connection's number.
    pub pid: i32,
}

/// A statement that is ready to run.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// It.
    pub statement: Arc<Statement>,
    /// Its text, as the client sent it.
    pub text: Arc<str>,
    /// The types of `$1`, `$2`, …
    pub parameters: Vec<DataType>,
    /// The numbers of the types that the client declared for them; 0 where it did not.
    pub declared: Vec<u32>,
    /// The columns it answers; `None` if it answers none.
    pub schema: Option<SchemaRef>,
    /// Whether it is about PostgreSQL's catalogs alone.
    asks_catalogs: bool,
    /// If it is no more than that.
    lookup: Option<Arc<Lookup>>,
    /// The plan, if it is good for later runs.
    plan: Option<Arc<CachedPlan>>,
    /// What these two were made for.
    planned_in: PlanningContext,
    /// What the memory of all queries has for it.
    memory: Option<Arc<MemoryReservation>>,
}

/// What came of a statement.
pub enum Outcome {
    /// Nothing was said.
    Empty,
    /// Rows.
    Rows(Rows),
    /// Done; holds the command tag.
    Done(String),
    /// Rows are expected.
    CopyIn(CopyIn),
    /// Rows go out as data of COPY.
    CopyOut(CopyOut),
}

#[derive(Debug)]
struct TransactionBlock {
    state: TransactionState,
    /// The instant that the block reads, taken by its first query and dropped by its writes.
    view: Option<AsOf>,
    /// Statements that took effect at once and that ROLLBACK will not undo.
    applied: usize,
    /// Each with what the block had changed of the settings before.
    savepoints: Vec<(String, usize)>,
    modes: TransactionModes,
    /// PostgreSQL's catalogs at the block's instant.
    catalogs: Option<Catalogs>,
    /// The cursors that were there before the block.
    cursors_before: Vec<String>,
    /// The current database when the block began, put back by ROLLBACK, and by COMMIT if it was changed by SET LOCAL.
    database_before: Option<DatabaseName>,
    database_is_local: bool,
}

impl TransactionBlock {
    fn new(state: TransactionState, database: Option<DatabaseName>) -> Self {
        Self {
            state,
            view: None,
            applied: 0,
            savepoints: Vec::new(),
            modes: TransactionModes::default(),
            catalogs: None,
            cursors_before: Vec::new(),
            database_before: database,
            database_is_local: false,
        }
    }
}

/// One connection's state.
#[derive(Debug)]
pub struct Session {
    gateway: Arc<Gateway>,
    cluster: Arc<dyn Cluster>,
    client: Client,
    database: Option<DatabaseName>,
    variables: Variables,
    block: TransactionBlock,
    prepared: BTreeMap<String, Arc<Prepared>>,
    cursors: BTreeMap<String, Cursor>,
    notices: Vec<Notice>,
}

impl Session {
    /// Begins a session. A `dbname` is a cluster, or a database of the default cluster; the user's own name means neither.
    pub async fn begin(gateway: Arc<Gateway>, client: Client, startup: &BTreeMap<String, String>) -> Result<Self, Error> {
        let wanted = client.database.clone().filter(|name| *name != client.user.as_str());
        let default = gateway.clusters.get(&gateway.default_cluster);
        let default = default.ok_or_else(|| Error::internal("the default cluster is configured"))?;
        let (cluster, database) = match wanted {
            None => (default, None),
            Some(name) => {
                let named = ClusterName::new(name.clone()).ok().and_then(|n| gateway.clusters.get(&n));
                if named.is_none() {
                    default.refresh().await?;
                }
                match named {
                    Some(cluster) => (cluster, None),
                    None if default.catalog().schema(&name).is_some() => {
                        let names = default.catalog().schema_names();
                        let alike = || names.iter().find(|n| n.eq_ignore_ascii_case(&name)).cloned();
                        let spelled = if names.contains(&name) { name } else { alike().unwrap_or(name) };
                        (default, Some(DatabaseName::new(spelled)?))
                    }
                    None => {
                        let known: Vec<_> = gateway.clusters.all().iter().map(|c| c.name().to_string()).collect();
                        return Err(Error::new(ErrorKind::UndefinedDatabase, format!("database \"{name}\" does not exist"))
                            .hint(format!("Connect to a cluster ({}) or to one of its databases.", known.join(", "))));
                    }
                }
            }
        };
        let row = SessionRow {
            user: client.user.to_string(),
            cluster: cluster.name().to_string(),
            client_addr: client.addr.clone(),
            application_name: startup.get("application_name").cloned(),
            started_at: gateway.env.now(),
            active: false,
            in_block: false,
            query_started_at: None,
            statement: None,
        };
        let mut session = Self {
            gateway,
            cluster,
            client,
            database,
            variables: Variables::default(),
            block: TransactionBlock::new(TransactionState::Idle, None),
            prepared: BTreeMap::new(),
            cursors: BTreeMap::new(),
            notices: Vec::new(),
        };
        if startup.keys().any(|name| name.eq_ignore_ascii_case("search_path")) {
            // A client must come in even while its cluster is down: history is read here.
            let _ = session.cluster.refresh().await;
        }
        for (name, value) in startup {
            if !["user", "database", "options", "replication"].contains(&name.as_str()) && !name.starts_with("_pq_.") {
                session.set(name, std::slice::from_ref(value), false)?;
            }
        }
        if session.gateway.store.user(&session.client.user).await?.is_some_and(|u| u.admin) {
            session.variables.put("is_superuser", Some("on".to_owned()), false, false);
        }
        session.variables.take_reports();
        let sessions = &session.gateway.engine.sources().sessions;
        sessions.write().insert(session.client.pid, row);
        Ok(session)
    }

    /// Whether its user was an administrator when it began.
    pub fn is_administrator(&self) -> bool {
        self.variables.get("is_superuser").as_deref() == Some("on")
    }

    /// Where the session stands between BEGIN and COMMIT.
    pub fn transaction(&self) -> TransactionState {
        self.block.state
    }

    /// Marks a block as failed; outside a block nothing happens.
    pub fn fail_transaction(&mut self) {
        if self.block.state == TransactionState::Active {
            self.block.state = TransactionState::Failed;
        }
        self.block.view = None;
    }

    /// What the user should know; taken once.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Settings that clients are told of and that have changed; taken once.
    pub fn take_reports(&mut self) -> Vec<(String, String)> {
        self.variables.take_reports()
    }

    /// Every setting that clients are told of at start-up.
    pub fn reports(&self) -> Vec<(String, String)> {
        let mut reports = self.variables.reported();
        reports.push(("session_authorization".into(), self.client.user.to_string()));
        reports
    }

    /// How long a statement may take.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.variables.timeout("statement_timeout")
    }

    /// How long the client may say nothing, as the session stands now, and the setting that says so.
    pub fn idle_timeout(&self) -> Option<(Duration, &'static str)> {
        let name = match self.block.state {
            TransactionState::Idle => "idle_session_timeout",
            _ => "idle_in_transaction_session_timeout",
        };
        self.variables.timeout(name).map(|t| (t, name))
    }

    /// The zone that times are shown in.
    pub fn time_zone(&self) -> &str {
        self.variables.time_zone()
    }

    /// The longest row of an answer, bytes.
    pub fn row_bytes_max(&self) -> usize {
        self.gateway.limits.row_bytes_max
    }

    /// What all sessions share.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Notes for `system.sessions` what the session does; `None` is nothing.
    pub fn note_activity(&self, statement: Option<(&Statement, &str)>) {
        let statement = statement.map(|(s, text)| self.shown_as(s, text));
        let mut sessions = self.gateway.engine.sources().sessions.write();
        if let Some(row) = sessions.get_mut(&self.client.pid) {
            row.active = statement.is_some();
            row.in_block = self.block.state != TransactionState::Idle;
            if statement.is_some() {
                row.query_started_at = Some(self.gateway.env.now());
            }
            row.application_name = self.variables.get("application_name").filter(|n| !n.is_empty());
            row.statement = statement.map(std::borrow::Cow::into_owned).or(row.statement.take());
        }
    }

    fn notice(&mut self, message: impl Into<String>) {
        self.notices.push(Notice { severity: "NOTICE", code: "00000", message: message.into() });
    }

    fn warning(&mut self, code: &'static str, message: impl Into<String>) {
        self.notices.push(Notice { severity: "WARNING", code, message: message.into() });
    }

    fn facts(&self) -> SessionFacts {
        SessionFacts {
            user: self.client.user.to_string(),
            database: self.cluster.name().to_string(),
            current_schema: self.database.as_ref().map(ToString::to_string),
            time_zone: self.variables.time_zone().to_owned(),
            backend_pid: self.client.pid,
        }
    }

    /// The view that a statement reads: the block's, or now.
    fn view(&mut self) -> AsOf {
        if self.block.state != TransactionState::Active {
            return self.gateway.engine.view(&self.cluster, self.client.user.as_str());
        }
        let (engine, cluster, user) = (&self.gateway.engine, &self.cluster, self.client.user.as_str());
        self.block.view.get_or_insert_with(|| engine.view(cluster, user)).clone()
    }

    /// Works out what a statement needs and answers. `declared` are the parameter types that the client gave.
    pub async fn prepare(&mut self, statement: Statement, text: &str, declared: &[Option<DataType>]) -> Result<Prepared, Error> {
        self.follow_cluster()?;
        self.check_block(&statement)?;
        let (mut parameters, mut schema): (Vec<DataType>, _) =
            (declared.iter().map(|t| t.clone().unwrap_or(DataType::Utf8)).collect(), None);
        let mut asks_catalogs = false;
        let (mut lookup, mut kept) = (None, None);
        match &statement {
            Statement::Sql(ast) if let Some(found) = self.lookup(ast) => {
                schema = Some(self.looked_up_schema(&found));
                let known = found.parameters();
                parameters.resize(known.len().max(parameters.len()), DataType::Utf8);
                for (i, ty) in known.into_iter().enumerate() {
                    if declared.get(i).is_none_or(Option::is_none) {
                        parameters[i] = ty;
                    }
                }
                lookup = Some(found);
            }
            Statement::Sql(ast) if let Some((types, columns)) = self.describe_by_catalogs(ast, text, declared).await? => {
                (parameters, schema, asks_catalogs) = (types, Some(columns), true);
            }
            Statement::Sql(ast) if let sql::Statement::Execute { name: Some(name), .. } = &**ast => {
                schema = self.executed(name)?.schema.clone();
            }
            Statement::Sql(ast) if matches!(&**ast, sql::Statement::Prepare { .. }) => {}
            Statement::Sql(ast) if let Some(explain) = Explain::read(ast)? => {
                parameters = self.explained_parameters(&explain, text, declared).await?;
                schema = Some(explain.schema());
            }
            Statement::Sql(ast) if !self.is_passthrough(ast) => {
                refuse_unknown_sql(ast)?;
                let stale = self.refresh_for(ast).await;
                let view = self.view_for(ast).await?;
                let state = self.gateway.engine.state(&view, &self.facts())?;
                let plan = plan_sql(&self.gateway.engine, &state, ast)
                    .await
                    .map_err(|e| with_position(prefer_stale_error(e, stale), ast, text))?;
                parameters = parameter_types(&plan, ast, declared)?;
                if !matches!(plan, LogicalPlan::Dml(_)) {
                    schema = Some(self.described_as(&described(&plan, &parameters)?, ast, &plan));
                }
                // PostgreSQL's catalogs are tables of one instant.
                if matches!(**ast, sql::Statement::Query(_)) && !self.names_a_catalog(ast) {
                    kept = CachedPlan::of(&plan, ast, &state, &*self.cluster).await?.map(Arc::new);
                }
            }
            Statement::Show(show) => {
                self.check_show(&show.show).await?;
                let view = self.view();
                let state = self.gateway.engine.state(&view, &self.facts())?;
                schema = Some(self.plan_show(&state, show).await?.schema().inner().clone());
            }
            Statement::Session(SessionCommand::Fetch { name, moves: false, .. }) => schema = Some(self.fetched_schema(name)?),
            Statement::Session(SessionCommand::Declare(declared_cursor)) => {
                parameters = self.prepare_declared(declared_cursor, declared).await?.parameters;
            }
            Statement::Session(command) => schema = variables::answer_schema(command),
            Statement::CopyTo(copy) => {
                parameters = Box::pin(self.prepare(Statement::Sql(copy.query.clone()), text, declared)).await?.parameters;
            }
            // PostgreSQL refuses these when the statement is parsed, and drivers count on it.
            Statement::Copy(copy) if self.cluster.remote().is_none() => {
                self.check_copy(copy).await?;
            }
            _ => {}
        }
        Ok(Prepared {
            statement: Arc::new(statement),
            text: text.into(),
            parameters,
            declared: Vec::new(),
            schema,
            asks_catalogs,
            lookup,
            plan: kept,
            planned_in: self.surroundings(),
            memory: None,
        })
    }

    /// Carries out a prepared statement, in a span of its own.
    pub async fn execute(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Outcome, Error> {
        let span = tracing::info_span!("statement", pid = self.client.pid, user = %self.client.user, statement = %self.shown_as(&prepared.statement, &prepared.text));
        self.carry_out(prepared, values).instrument(span).await
    }

    async fn carry_out(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Outcome, Error> {
        self.follow_cluster()?;
        self.check_block(&prepared.statement)?;
        match &*prepared.statement {
            Statement::Empty => Ok(Outcome::Empty),
            Statement::Session(SessionCommand::Declare(declared)) => self.declare(declared, prepared, values).await,
            Statement::CopyTo(copy) => self.copy_to(copy, prepared, values).await,
            Statement::Session(command) => {
                let chooses = matches!(command, SessionCommand::Use(_))
                    || matches!(command, SessionCommand::Set { name, .. } if name == "search_path");
                if chooses && let Err(stale) = self.cluster.refresh().await {
                    return Err(stale);
                }
                self.session_command(command).await
            }
            Statement::Show(show) => self.show(show).await,
            Statement::Sql(ast) => self.sql(ast, prepared, values).await,
            statement => {
                self.check_may_write(verb(statement))?;
                if self.block.state == TransactionState::Active && matches!(statement, Statement::Backup(_) | Statement::Restore(_))
                {
                    self.notice(format!("{} takes effect at once; ROLLBACK will not undo it", verb(statement)));
                }
                self.applied_at_once();
                if let Statement::CreateRepository(create) = statement {
                    self.require_location(&jobs::location_of(create)).await?;
                }
                if self.cluster.remote().is_some()
                    && let Some(outcome) = self.remote_statement(prepared).await?
                {
                    return Ok(outcome);
                }
                match statement {
                    Statement::Backup(backup) => self.backup(backup).await,
                    Statement::Restore(restore) => self.restore(restore).await,
                    Statement::Cancel(cancel) => self.cancel(cancel).await,
                    Statement::CreateRepository(create) => self.create_repository(create).await,
                    Statement::DropRepository(name) => self.drop_repository(name).await,
                    Statement::DropSnapshot(drop) => self.drop_snapshot(drop).await,
                    Statement::CancelJob { id, force } => self.cancel_job(*id, *force).await,
                    Statement::AlterRepository(alter) => self.alter_repository(alter).await,
                    Statement::Cluster(command) => self.cluster_command(command).await,
                    Statement::Raw(_) => Err(Error::internal("a text was kept that nobody takes")),
                    Statement::Recover(recover) => self.recover(recover).await,
                    Statement::Define(definition) => self.define(definition).await,
                    Statement::User(command) => self.user_command(command).await,
                    Statement::Copy(copy) => self.copy_from(copy).await,
                    Statement::Empty | Statement::Session(_) | Statement::Show(_) | Statement::Sql(_) | Statement::CopyTo(_) => {
                        Err(Error::internal("a statement was dispatched twice"))
                    }
                }
            }
        }
    }

    async fn sql(&mut self, ast: &sql::Statement, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Outcome, Error> {
        // What a bare name or a time means may have changed since the statement was prepared.
        let is_fresh = prepared.planned_in == self.surroundings();
        if let (Some(lookup), Some(schema), true) = (&prepared.lookup, &prepared.schema, is_fresh) {
            return self.look_up(lookup, schema.clone(), &values).await;
        }
        if let (true, sql::Statement::Query(query)) = (prepared.asks_catalogs, ast) {
            return self.ask_catalogs(query, prepared, values).await;
        }
        match ast {
            sql::Statement::Prepare { name, data_types, statement } => {
                return self.prepare_by_name(name, data_types, statement).await;
            }
            sql::Statement::Execute { name: Some(name), parameters, .. } => return self.execute_by_name(name, parameters).await,
            _ => {}
        }
        if let Some(explain) = Explain::read(ast)? {
            return self.explain(&explain, values).await;
        }
        if self.is_passthrough(ast) {
            self.check_may_write("a statement that is passed through")?;
            self.applied_at_once();
            return self.pass_through(prepared).await;
        }
        refuse_unknown_sql(ast)?;
        let stale = self.refresh_for(ast).await;
        let view = self.view_for(ast).await?;
        let state = self.gateway.engine.state(&view, &self.facts())?;
        let kept = match prepared.plan.as_ref().filter(|_| is_fresh) {
            Some(kept) => kept.against(&state).await?,
            None => None,
        };
        let mut plan = match kept {
            Some(plan) => plan,
            None => plan_sql(&self.gateway.engine, &state, ast).await.map_err(|e| prefer_stale_error(e, stale))?,
        };
        if !prepared.parameters.is_empty() || !values.is_empty() {
            plan = plan.with_param_values(ParamValues::from(values)).map_err(from_datafusion)?;
        }
        if let LogicalPlan::Dml(dml) = plan {
            self.check_may_write(if matches!(ast, sql::Statement::Insert(_)) { "INSERT" } else { "DELETE" })?;
            self.check_writable(&dml).await?;
            self.applied_at_once();
            if self.cluster.remote().is_some() {
                return self.pass_through(prepared).await;
            }
            drop(view);
            let has_predicate = matches!(ast, sql::Statement::Delete(delete) if delete.selection.is_some());
            return self.write(&state, dml, has_predicate).await;
        }
        self.check_readable(&plan).await?;
        let schema = self.described_as(plan.schema().inner(), ast, &plan);
        if prepared.schema.as_ref().is_some_and(|described| !same_shape(described, &schema)) {
            return Err(Error::new(ErrorKind::Unsupported, "cached plan must not change result type")
                .hint("A table has changed since the statement was prepared; prepare it again."));
        }
        let plan = self.cluster.push_down(plan)?;
        let stream = self.gateway.engine.run(&state, &plan).await?;
        Ok(Outcome::Rows(Rows { schema, stream, verb: "SELECT", binary: false, _view: view }))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.gateway.engine.sources().sessions.write().remove(&self.client.pid);
    }
}
