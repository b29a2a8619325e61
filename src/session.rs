//! One connection's point of view: user, settings, current database, transaction; and the one way
//! in for every statement.
//!
//! A statement is prepared ([`Session::prepare`]: what does it need, what will it answer) and
//! executed ([`Session::execute`]). Both protocols, and everything else that ever runs a statement,
//! come through here, so privileges are checked in one place.

mod about;
mod catalogs;
mod copy;
mod cursors;
mod data;
mod explain;
mod lookup;
mod passthrough;
mod prepared;
mod reading;
mod route;
mod rows;
mod show;
mod transaction;
mod variables;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::memory_pool::MemoryReservation;

use self::about::prefer_stale_error;
pub use self::copy::{CopyIn, CopyOut};
use self::cursors::Cursor;
pub use self::reading::{Lasts, Read};
use self::route::Route;
pub use self::rows::Rows;
use self::variables::Variables;
use crate::admission::Caller;
pub use crate::admission::Notice;
use crate::catalog::Catalogs;
use crate::error::{Error, ErrorKind};
use crate::gateway::Gateway;
use crate::job::Requester;
use crate::names::*;
pub use crate::query::Zone;
pub(crate) use crate::query::text;
use crate::query::{AsOf, PlanningContext, SessionFacts, SessionRow, parameter_types, plan_sql};
use crate::statement::{Statement, TransactionModes};

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
    pub user: UserName,
    /// `dbname` of the start-up packet.
    pub database: Option<String>,
    pub addr: String,
    pub pid: i32,
}

/// A statement that is ready to run.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub statement: Arc<Statement>,
    /// Its text, as the client sent it.
    pub text: Arc<str>,
    /// The types of `$1`, `$2`, …
    pub parameters: Vec<DataType>,
    /// The numbers of the types that the client declared for them; 0 where it did not.
    pub declared: Vec<u32>,
    /// The columns it answers; `None` if it answers none.
    pub schema: Option<SchemaRef>,
    /// Which way it goes.
    route: Route,
    /// What the route and all of the above hold for.
    planned_in: PlanningContext,
    /// What the memory of all queries has for it.
    memory: Option<Arc<MemoryReservation>>,
}

/// What came of a statement.
pub enum Outcome {
    /// Nothing was said.
    Empty,
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
    as_of: Option<AsOf>,
    /// Statements that took effect at once and that ROLLBACK will not undo.
    applied: usize,
    /// Each with what the block had changed of the settings before.
    savepoints: Vec<(String, usize)>,
    modes: TransactionModes,
    /// PostgreSQL's catalogs at the block's instant.
    catalogs: Option<Catalogs>,
    /// The cursors that were there before the block.
    cursors_before: Vec<String>,
    /// The current database when the block began, put back by ROLLBACK, and by COMMIT if it was
    /// changed by SET LOCAL.
    database_before: Option<DatabaseName>,
    database_is_local: bool,
}

impl TransactionBlock {
    fn new(state: TransactionState, database: Option<DatabaseName>) -> Self {
        Self {
            state,
            as_of: None,
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
    /// Whose rights its statements have, and what they are asked of.
    caller: Caller,
    client: Client,
    variables: Variables,
    block: TransactionBlock,
    prepared: BTreeMap<String, Arc<Prepared>>,
    cursors: BTreeMap<String, Cursor>,
}

impl Session {
    /// Begins a session. A `dbname` is a cluster, or a database of the default cluster; the user's
    /// own name means neither.
    pub async fn begin(
        gateway: Arc<Gateway>,
        client: Client,
        startup: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let wanted = client
            .database
            .clone()
            .filter(|name| *name != client.user.as_str());
        let default = gateway.clusters.get(&gateway.default_cluster);
        let default =
            default.ok_or_else(|| Error::internal("the default cluster is configured"))?;
        let (cluster, database) = match wanted {
            None => (default, None),
            Some(name) => {
                let named = ClusterName::new(name.clone())
                    .ok()
                    .and_then(|n| gateway.clusters.get(&n));
                if named.is_none() {
                    default.refresh().await?;
                }
                match named {
                    Some(cluster) => (cluster, None),
                    None if default.catalog().schema(&name).is_some() => {
                        let names = default.catalog().schema_names();
                        let alike = || {
                            names
                                .iter()
                                .find(|n| n.eq_ignore_ascii_case(&name))
                                .cloned()
                        };
                        let spelled = if names.contains(&name) {
                            name
                        } else {
                            alike().unwrap_or(name)
                        };
                        (default, Some(DatabaseName::new(spelled)?))
                    }
                    None => {
                        let known: Vec<_> = gateway
                            .clusters
                            .all()
                            .iter()
                            .map(|c| c.name().to_string())
                            .collect();
                        return Err(Error::new(
                            ErrorKind::UndefinedDatabase,
                            format!("database \"{name}\" does not exist"),
                        )
                        .hint(format!(
                            "Connect to a cluster ({}) or to one of its databases.",
                            known.join(", ")
                        )));
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
        let requester = Requester::User {
            name: client.user.to_string(),
            client_addr: Some(client.addr.clone()),
            application_name: None,
        };
        let user = client.user.clone();
        let mut session = Self {
            caller: Caller {
                gateway,
                cluster,
                database,
                user,
                requester,
                notices: Vec::new(),
            },
            client,
            variables: Variables::default(),
            block: TransactionBlock::new(TransactionState::Idle, None),
            prepared: BTreeMap::new(),
            cursors: BTreeMap::new(),
        };
        if startup
            .keys()
            .any(|name| name.eq_ignore_ascii_case("search_path"))
        {
            // A client must come in even while its cluster is down: history is read here.
            let _ = session.caller.cluster.refresh().await;
        }
        for (name, value) in startup {
            if !["user", "database", "options", "replication"].contains(&name.as_str())
                && !name.starts_with("_pq_.")
            {
                session.set(name, std::slice::from_ref(value), false)?;
            }
        }
        if session
            .caller
            .gateway
            .store
            .user(&session.client.user)
            .await?
            .is_some_and(|u| u.admin)
        {
            session
                .variables
                .put("is_superuser", Some("on".to_owned()), false, false);
        }
        session.variables.take_reports();
        let sessions = &session.caller.gateway.engine.sources().sessions;
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
        self.block.as_of = None;
    }

    /// What the user should know; taken once.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.caller.notices)
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

    /// How long the client may say nothing, as the session stands now, and the setting that says
    /// so.
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
        self.caller.gateway.limits.row_bytes_max
    }

    /// What all sessions share.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.caller.gateway
    }

    /// Notes for `system.sessions` what the session does; `None` is nothing.
    pub fn note_activity(&self, statement: Option<(&Statement, &str)>) {
        let statement = statement.map(|(s, text)| self.shown_as(s, text));
        let mut sessions = self.caller.gateway.engine.sources().sessions.write();
        if let Some(row) = sessions.get_mut(&self.client.pid) {
            row.active = statement.is_some();
            row.in_block = self.block.state != TransactionState::Idle;
            if statement.is_some() {
                row.query_started_at = Some(self.caller.gateway.env.now());
            }
            row.application_name = self
                .variables
                .get("application_name")
                .filter(|n| !n.is_empty());
            row.statement = statement
                .map(std::borrow::Cow::into_owned)
                .or(row.statement.take());
        }
    }

    fn facts(&self) -> SessionFacts {
        SessionFacts {
            user: self.client.user.to_string(),
            database: self.caller.cluster.name().to_string(),
            current_schema: self.caller.database.as_ref().map(ToString::to_string),
            time_zone: self.variables.time_zone().to_owned(),
            backend_pid: self.client.pid,
        }
    }

    /// The instant that a statement reads: the block's, or now.
    fn as_of(&mut self) -> AsOf {
        if self.block.state != TransactionState::Active {
            return self
                .caller
                .gateway
                .engine
                .as_of(&self.caller.cluster, self.client.user.as_str());
        }
        let (engine, cluster, user) = (
            &self.caller.gateway.engine,
            &self.caller.cluster,
            self.client.user.as_str(),
        );
        self.block
            .as_of
            .get_or_insert_with(|| engine.as_of(cluster, user))
            .clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.caller
            .gateway
            .engine
            .sources()
            .sessions
            .write()
            .remove(&self.client.pid);
    }
}
