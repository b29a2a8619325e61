//! What the catalogs of PostgreSQL say of this cluster, as the session's user sees it, and queries
//! of them.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast as sql;
use tokio_util::sync::CancellationToken;

use super::{Outcome, Prepared, Rows, Session, TransactionState, plan_sql};
use crate::admission::Caller;
use crate::catalog::{
    Activity, Allowance, CatalogSnapshot, Catalogs, FactScope, Objects, ServerFacts, Setting,
    SideEffect, asks_the_catalogs, fact_scope_of, has_decimals, is_constant, is_without_relations,
    names_a_catalog,
};
use crate::error::{Error, ErrorKind};
use crate::query::server_version_text;
use crate::query::with_position;

/// The longest text of a statement that is compiled on the connection's own thread, bytes.
const SHORT_BYTES: usize = 8 << 10;

impl Session {
    /// The types of a query's parameters and its columns, if it is about PostgreSQL's catalogs
    /// alone.
    pub(super) async fn describe_by_catalogs(
        &mut self,
        ast: &sql::Statement,
        text: &str,
        declared: &[Option<DataType>],
    ) -> Result<Option<(Vec<DataType>, SchemaRef)>, Error> {
        let sql::Statement::Query(query) = ast else {
            return Ok(None);
        };
        if !asks_the_catalogs(&self.caller.gateway.builtin, query) {
            return Ok(None);
        }
        let catalogs = self.catalogs_for(query).await?;
        // Of what EXPLAIN explains it is not known how long it is.
        let described = if (1..=SHORT_BYTES).contains(&text.len()) {
            catalogs.describe(query, declared)
        } else {
            let (query, declared) = (query.clone(), declared.to_vec());
            self.caller
                .gateway
                .engine
                .offload(async move { catalogs.describe(&query, &declared) })
                .await?
        };
        let is_better_planned = is_without_relations(query)
            && match &described {
                Ok(_) => has_decimals(query),
                Err(e) => matches!(
                    e.kind,
                    ErrorKind::Unsupported | ErrorKind::UndefinedFunction
                ),
            };
        if is_better_planned {
            // Not the block's: nothing of it is read.
            let as_of = self
                .caller
                .gateway
                .engine
                .as_of(&self.caller.cluster, self.client.user.as_str());
            let state = self.caller.gateway.engine.state(&as_of, &self.facts())?;
            if plan_sql(&self.caller.gateway.engine, &state, ast)
                .await
                .is_ok()
            {
                return Ok(None);
            }
        }
        described.map(Some).map_err(|e| with_position(e, ast, text))
    }

    /// Whether it names one of them beside other tables.
    pub(super) fn names_a_catalog(&self, ast: &sql::Statement) -> bool {
        names_a_catalog(&self.caller.gateway.builtin, ast)
    }

    /// The catalogs at this instant, or at that of the block.
    pub(super) async fn catalogs(&mut self) -> Result<Catalogs, Error> {
        if let Some(known) = &self.block.catalogs {
            return Ok(known.clone());
        }
        // Those who browse must come in even while the cluster is down; what was known is shown.
        let _ = self.caller.cluster.refresh().await;
        let facts = self.facts();
        let Caller {
            gateway,
            cluster,
            user,
            ..
        } = &self.caller;
        let objects = gateway.objects(cluster, user, &facts).await?;
        let catalogs = Catalogs(Arc::new(CatalogSnapshot::new(
            self.server_facts(objects).await?,
            self.caller.gateway.builtin.clone(),
        )));
        if self.block.state == TransactionState::Active {
            self.block.catalogs = Some(catalogs.clone());
        }
        Ok(catalogs)
    }

    /// As much of the catalogs as a query needs.
    pub(super) async fn catalogs_for(&mut self, query: &sql::Query) -> Result<Catalogs, Error> {
        let facts = match fact_scope_of(query) {
            FactScope::Objects => return self.catalogs().await,
            FactScope::Nothing => ServerFacts::default(),
            FactScope::Session => self.session_facts(),
        };
        Ok(Catalogs(Arc::new(CatalogSnapshot::new(
            facts,
            self.caller.gateway.builtin.clone(),
        ))))
    }

    /// Answers a query of the catalogs, and does what its functions ask for.
    pub(super) async fn ask_catalogs(
        &mut self,
        query: &sql::Query,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        let catalogs = self.catalogs_for(query).await?;
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let memory = self
            .caller
            .gateway
            .engine
            .statement_memory("a query of the catalogs");
        let allowance = Allowance {
            stop,
            value_bytes_max: self.caller.gateway.limits.value_bytes_max,
            memory,
        };
        let answer = if is_constant(query) && prepared.text.len() <= SHORT_BYTES {
            // Over before another thread would have taken it.
            catalogs.answer(query, &prepared.parameters, &values, allowance)?
        } else {
            let (query, types) = (query.clone(), prepared.parameters.clone());
            let work = async move { catalogs.answer(&query, &types, &values, allowance) };
            self.caller.gateway.engine.offload(work).await??
        };
        for effect in answer.effects {
            self.take_effect(effect).await?;
        }
        let as_of = self
            .caller
            .gateway
            .engine
            .as_of(&self.caller.cluster, self.client.user.as_str());
        Ok(Outcome::Rows(Rows::of(answer.batch, "SELECT", as_of)))
    }

    async fn take_effect(&mut self, effect: SideEffect) -> Result<(), Error> {
        match effect {
            SideEffect::Set { name, value, local } => self.set(&name, &[value], local),
            SideEffect::Sleep(micros) => {
                self.caller
                    .gateway
                    .env
                    .clock
                    .sleep(Duration::from_micros(micros))
                    .await;
                Ok(())
            }
            SideEffect::Cancel(pid) | SideEffect::Terminate(pid) => {
                let sessions = self
                    .caller
                    .gateway
                    .engine
                    .sources()
                    .sessions
                    .read()
                    .get(&pid)
                    .map(|s| s.user.clone());
                if sessions.is_some_and(|user| user != self.client.user.as_str())
                    && self.caller.require_admin().await.is_err()
                {
                    let message = "must be a member of the role whose query is being canceled or an administrator";
                    return Err(Error::new(ErrorKind::InsufficientPrivilege, message));
                }
                match effect {
                    SideEffect::Cancel(_) => self.caller.gateway.connections.cancel_statement(pid),
                    _ => self.caller.gateway.connections.terminate(pid),
                }
                Ok(())
            }
        }
    }

    /// Everything that a catalog query may ask about.
    async fn server_facts(&self, objects: Arc<Objects>) -> Result<ServerFacts, Error> {
        let sources = self.caller.gateway.engine.sources();
        let sees_all = objects
            .roles
            .iter()
            .any(|r| r.is_admin && r.name == self.client.user.as_str());
        let sessions = sources.sessions.read().clone();
        let activity = sessions.iter().map(|(pid, s)| {
            let state = match (s.active, s.in_block) {
                (true, _) => "active",
                (false, true) => "idle in transaction",
                (false, false) => "idle",
            };
            Activity {
                pid: *pid,
                user: s.user.clone(),
                database: s.cluster.clone(),
                application_name: s.application_name.clone().unwrap_or_default(),
                client_addr: if sees_all || s.user == self.client.user.as_str() {
                    s.client_addr.clone()
                } else {
                    String::new()
                },
                started_at: s.started_at.micros(),
                query_start: s.query_started_at.map(|t| t.micros()),
                state: state.to_owned(),
                query: s
                    .statement
                    .clone()
                    .filter(|_| sees_all || s.user == self.client.user.as_str()),
            }
        });
        Ok(ServerFacts {
            objects,
            activity: activity.collect(),
            prepared: self
                .prepared
                .iter()
                .filter(|(n, _)| !n.is_empty())
                .map(|(n, p)| (n.clone(), p.text.to_string()))
                .collect(),
            cursors: self.cursor_facts(),
            ..self.session_facts()
        })
    }

    /// What is known without a look at the cluster.
    fn session_facts(&self) -> ServerFacts {
        ServerFacts {
            now: self.caller.gateway.env.now().micros(),
            started_at: self.caller.gateway.started_at.micros(),
            user: self.client.user.to_string(),
            pid: self.client.pid,
            database: self.caller.cluster.name().to_string(),
            current_schema: self.caller.database.as_ref().map(ToString::to_string),
            settings: self.settings(),
            version: server_version_text(),
            ..ServerFacts::default()
        }
    }

    /// Every setting, with its value in this session.
    fn settings(&self) -> Vec<Setting> {
        let mut settings = self.variables.all();
        for setting in &mut settings {
            match setting.name.as_str() {
                "search_path" => {
                    setting.value = self
                        .caller
                        .database
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or(setting.value.clone())
                }
                "transaction_isolation" => setting.value = self.isolation().to_owned(),
                _ => {}
            }
        }
        settings
    }
}
