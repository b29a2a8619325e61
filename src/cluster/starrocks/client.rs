//! Connections to the frontends of one cluster: few, to the one that leads, and never waited for
//! without an end.

mod leader;
mod refusal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::{Query, Queryable};
use mysql_async::{Conn, OptsBuilder, Row, SslOpts, Value};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) use self::leader::Leader;
use self::refusal::{Failed, is_forwarding, why};
pub(super) use self::refusal::{frontends_of, lacks_backends, refusal};
use super::options::{Address, Options, Tls};
use super::print_statement::FeVersion;
use crate::cluster::{Answer, SendError};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::names::{ClusterName, Timestamp};

/// Connections for looks and statements of ours: queries that take all of theirs must not keep jobs
/// from being watched.
const CONTROL_MAX: usize = 4;
/// Connections that are kept open while nobody uses them.
const IDLE_MAX: usize = 4;
/// Larger packets of a frontend are refused.
const PACKET_BYTES_MAX: usize = 256 << 20;

/// The frontends of one cluster.
#[derive(Debug)]
pub(super) struct Client {
    name: ClusterName,
    options: Options,
    env: Env,
    known: Mutex<Known>,
    queries: Arc<Semaphore>,
    control: Arc<Semaphore>,
}

/// What is known about the frontends now.
#[derive(Default)]
struct Known {
    idle: Vec<(Address, Conn)>,
    /// The frontend that is talked to: the one that leads, if that can be told and reached.
    target: Option<Address>,
    leader: Leader,
    version: Option<FeVersion>,
    /// Frontends that the cluster itself named.
    named: Vec<Address>,
    greeted_at: Option<Timestamp>,
}

// By hand: a connection knows its password.
impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("target", &self.target)
            .field("leader", &self.leader)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A connection in use.
pub(super) struct Connection {
    pub conn: Conn,
    pub address: Address,
    is_reused: bool,
    permit: OwnedSemaphorePermit,
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(
            String::from_utf8(bytes)
                .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
        ),
        other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

fn rows_of(rows: Vec<Row>) -> Vec<Vec<Option<String>>> {
    rows.into_iter()
        .map(|row| {
            row.unwrap_raw()
                .into_iter()
                .map(|v| v.and_then(text))
                .collect()
        })
        .collect()
}

/// Runs one statement and takes all of its answer.
async fn run(conn: &mut Conn, sql: &str) -> Result<Answer, Failed> {
    let mut result = conn.query_iter(sql).await?;
    let columns = result
        .columns_ref()
        .iter()
        .map(|c| c.name_str().into_owned())
        .collect();
    let affected = result.affected_rows();
    let rows: Vec<Row> = result.collect().await?;
    result.drop_result().await?;
    Ok(Answer {
        columns,
        rows: rows_of(rows),
        affected,
    })
}

impl Client {
    pub fn new(name: ClusterName, options: Options, env: Env) -> Self {
        let queries = Arc::new(Semaphore::new(options.connections_max));
        Self {
            name,
            options,
            env,
            known: Mutex::default(),
            queries,
            control: Arc::new(Semaphore::new(CONTROL_MAX)),
        }
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where the cluster is reached when nothing else is known.
    pub fn address(&self) -> String {
        let all: Vec<_> = self
            .options
            .frontends
            .iter()
            .map(ToString::to_string)
            .collect();
        all.join(", ")
    }

    pub fn leader(&self) -> Leader {
        self.known.lock().leader.clone()
    }

    pub fn last_version(&self) -> Option<FeVersion> {
        self.options.version.or_else(|| self.known.lock().version)
    }

    /// The version of the leader, asked for if it is not known.
    pub async fn version(&self) -> Result<FeVersion, Error> {
        if let Some(version) = self.last_version() {
            return Ok(version);
        }
        // Whoever greets asks for it.
        let permit = self.permit(&self.control).await?;
        let connection = self.fresh_greeted(permit).await?;
        self.give_back(connection);
        self.last_version().ok_or_else(|| {
            Error::new(
                ErrorKind::Connection,
                format!(
                    "the frontends of cluster \"{}\" do not tell their version",
                    self.name
                ),
            )
            .hint("Give it: ALTER CLUSTER … SET (\"version\" = \"3.5.0\").")
        })
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::Connection,
            format!("cluster \"{}\" cannot be reached: {why}", self.name),
        )
        .hint("SHOW CLUSTERS tells how it is; ALTER CLUSTER … SET changes how it is reached.")
    }

    fn no_answer(&self, address: &Address, why: &str) -> Error {
        Error::new(
            ErrorKind::Connection,
            format!(
                "no answer from cluster \"{}\" ({address}): {why}",
                self.name
            ),
        )
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        tokio::select! {
            done = work => done,
            () = self.env.clock.sleep(limit) => Err(Failed::Late(format!("nothing within {} ms", limit.as_millis()))),
        }
    }

    async fn open(&self, address: &Address) -> Result<Conn, Failed> {
        let ssl = match &self.options.tls {
            Tls::Disabled => None,
            Tls::Required => Some(
                SslOpts::default()
                    .with_danger_accept_invalid_certs(true)
                    .with_danger_skip_domain_validation(true),
            ),
            Tls::Verify(None) => Some(SslOpts::default()),
            Tls::Verify(Some(file)) => Some(
                SslOpts::default()
                    .with_root_certs(vec![file.clone().into()])
                    .with_disable_built_in_roots(true),
            ),
        };
        let opts = OptsBuilder::default()
            .ip_or_hostname(address.host.clone())
            .tcp_port(address.port)
            .user(Some(self.options.user.clone()))
            .pass(self.options.password.clone())
            .ssl_opts(ssl)
            .prefer_socket(false)
            .stmt_cache_size(0)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            // Given, so that the driver does not ask for variables that StarRocks may not have.
            .max_allowed_packet(Some(PACKET_BYTES_MAX))
            .wait_timeout(Some(28_800));
        self.within(self.options.connect_timeout, async {
            let mut conn = Conn::new(opts).await?;
            // Times in SHOW are the session's.
            "SET time_zone = '+00:00'".ignore(&mut conn).await?;
            Ok(conn)
        })
        .await
    }

    async fn permit(&self, of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
        tokio::select! {
            permit = of.clone().acquire_owned() => permit.map_err(|_| self.unreachable("it is being left")),
            () = self.env.clock.sleep(self.options.statement_timeout) => {
                Err(Error::new(ErrorKind::TooManyConnections, format!("all connections to cluster \"{}\" are in use", self.name))
                    .hint("Raise its property \"connections\"."))
            }
        }
    }

    /// A connection that may have been used before, for a look.
    async fn connection(&self) -> Result<Connection, Error> {
        self.connection_of(&self.control).await
    }

    /// A connection that may have been used before, for a user's query.
    pub async fn connection_for_query(&self) -> Result<Connection, Error> {
        self.connection_of(&self.queries).await
    }

    async fn connection_of(&self, permits: &Arc<Semaphore>) -> Result<Connection, Error> {
        let permit = self.permit(permits).await?;
        let idle = self.known.lock().idle.pop();
        if let Some((address, conn)) = idle {
            return Ok(Connection {
                conn,
                address,
                is_reused: true,
                permit,
            });
        }
        self.fresh(permit).await
    }

    /// A connection that nobody has used.
    async fn fresh_connection(&self, permits: &Arc<Semaphore>) -> Result<Connection, Error> {
        let permit = self.permit(permits).await?;
        self.fresh(permit).await
    }

    /// The same, having asked anew who leads and which version that is.
    async fn fresh_greeted(&self, permit: OwnedSemaphorePermit) -> Result<Connection, Error> {
        self.known.lock().greeted_at = None;
        self.fresh(permit).await
    }

    async fn fresh(&self, permit: OwnedSemaphorePermit) -> Result<Connection, Error> {
        let (address, conn) = self.connect().await?;
        Ok(Connection {
            conn,
            address,
            is_reused: false,
            permit,
        })
    }

    /// Keeps a connection for the next one who needs it.
    pub fn give_back(&self, connection: Connection) {
        let mut known = self.known.lock();
        if known.idle.len() < IDLE_MAX && known.target.as_ref() == Some(&connection.address) {
            known.idle.push((connection.address, connection.conn));
        }
        drop(connection.permit);
    }

    /// The frontend may be gone, or lead no more: the next connection finds out.
    pub fn suspect(&self, address: &Address) {
        let mut known = self.known.lock();
        if known.target.as_ref() == Some(address) {
            known.target = None;
        }
        known.idle.clear();
    }

    /// Carries out any text in a database, once.
    pub async fn ask(&self, database: Option<&str>, sql: &str) -> Result<Answer, Error> {
        let mut connection = self.fresh_connection(&self.queries).await?;
        let asked = self
            .within(self.options.statement_timeout, async {
                if let Some(database) = database {
                    use_database(&mut connection.conn, database).await?;
                }
                run(&mut connection.conn, sql).await
            })
            .await;
        // The connection stands in a database now, and is not given back.
        asked.map_err(|failed| match failed {
            Failed::Server(error) => refusal(&error, &connection.address),
            Failed::Broken(why) | Failed::Late(why) => {
                self.suspect(&connection.address);
                self.no_answer(&connection.address, &why)
                    .detail("whether the statement had an effect is not known")
            }
        })
    }

    /// Asks a question that may be asked twice.
    pub async fn query(&self, sql: &str) -> Result<Answer, Error> {
        self.query_within(self.options.statement_timeout, sql).await
    }

    /// The same, of one that may take longer.
    pub async fn query_within(&self, limit: Duration, sql: &str) -> Result<Answer, Error> {
        let mut is_first = true;
        loop {
            let mut connection = self.connection().await?;
            let asked = self.within(limit, run(&mut connection.conn, sql)).await;
            match asked {
                Ok(answer) => {
                    self.give_back(connection);
                    return Ok(answer);
                }
                // It does not lead any more, or knows of nobody who does: another may.
                Err(Failed::Server(error)) if is_forwarding(&error.message) => {
                    let address = connection.address.clone();
                    drop(connection);
                    self.suspect(&address);
                    if !std::mem::take(&mut is_first) {
                        return Err(refusal(&error, &address));
                    }
                }
                Err(Failed::Server(error)) => {
                    let address = connection.address.clone();
                    self.give_back(connection);
                    return Err(refusal(&error, &address));
                }
                Err(failed @ (Failed::Broken(_) | Failed::Late(_))) => {
                    let (address, is_reused, why) = (
                        connection.address.clone(),
                        connection.is_reused,
                        why(&failed),
                    );
                    drop(connection);
                    self.suspect(&address);
                    // It may have died while nobody looked. Who is slow is not asked twice.
                    if !is_reused || matches!(failed, Failed::Late(_)) {
                        return Err(self.no_answer(&address, &why));
                    }
                }
            }
        }
    }

    /// Sends a statement with an effect, once, over a connection that nobody has used.
    pub async fn send(&self, sql: &str) -> Result<Answer, SendError> {
        let connection = self.fresh_connection(&self.control).await;
        let connection = connection.map_err(SendError::NotSent)?;
        let limit = self.options.submission_timeout;
        let (sent, connection) = self.send_over(connection, limit, sql).await;
        if let Some(connection) = connection {
            self.give_back(connection);
        }
        sent
    }

    /// The same, of one that moves rows and may take so long; the frontend is told so first.
    pub async fn send_long(&self, limit: Duration, sql: &str) -> Result<Answer, SendError> {
        let connection = self.fresh_connection(&self.control).await;
        let mut connection = connection.map_err(SendError::NotSent)?;
        // Each version has some of them.
        for name in ["query_timeout", "insert_timeout"] {
            let set = format!("SET {name} = {}", limit.as_secs());
            let asked = run(&mut connection.conn, &set);
            match self.within(self.options.statement_timeout, asked).await {
                Ok(_) | Err(Failed::Server(_)) => {}
                Err(Failed::Broken(why) | Failed::Late(why)) => {
                    let error = self.no_answer(&connection.address, &why);
                    return Err(SendError::NotSent(error));
                }
            }
        }
        // Nobody else takes a connection whose limits are others.
        self.send_over(connection, limit, sql).await.0
    }

    /// Sends a statement; the connection comes back as long as it is of use.
    async fn send_over(
        &self,
        mut connection: Connection,
        limit: Duration,
        sql: &str,
    ) -> (Result<Answer, SendError>, Option<Connection>) {
        match self.within(limit, run(&mut connection.conn, sql)).await {
            Ok(answer) => (Ok(answer), Some(connection)),
            Err(Failed::Server(error)) => {
                let error_of = refusal(&error, &connection.address);
                if is_forwarding(&error.message) {
                    self.suspect(&connection.address);
                    return (Err(SendError::InDoubt(error_of)), None);
                }
                let busy = error_of.kind == ErrorKind::ObjectInUse
                    || error.message.contains("Please wait and try again");
                let refused = SendError::Refused {
                    error: error_of,
                    busy,
                };
                (Err(refused), Some(connection))
            }
            Err(Failed::Broken(why) | Failed::Late(why)) => {
                self.suspect(&connection.address);
                let error = self.no_answer(&connection.address, &why);
                (Err(SendError::InDoubt(error)), None)
            }
        }
    }

    /// Stops what another connection is doing.
    pub async fn kill(&self, address: &Address, id: u32) {
        let killed = match self.open(address).await {
            Ok(mut conn) => self
                .within(
                    self.options.connect_timeout,
                    run(&mut conn, &format!("KILL QUERY {id}")),
                )
                .await
                .map(drop),
            Err(e) => Err(e),
        };
        if let Err(e) = killed {
            tracing::debug!(cluster = %self.name, connection = id, error = why(&e), "a query could not be stopped");
        }
    }
}

/// Makes a database the current one of a connection.
async fn use_database(conn: &mut Conn, database: &str) -> Result<(), mysql_async::Error> {
    // What cannot be quoted is no database's name.
    let name = super::print_statement::identifier(database)
        .map_err(|e| mysql_async::Error::Other(Box::new(e)))?;
    conn.query_drop(format!("USE {name}")).await
}

#[cfg(test)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    #[test]
    fn a_name_is_no_failure_to_forward() {
        for (message, forwarding) in [
            ("Failed to forward statement to leader", true),
            (
                "Unexpected exception: java.net.SocketTimeoutException: Read timed out",
                true,
            ),
            ("Incorrect table name 'forward_orders'", false),
            (
                "Snapshot with name 'daily_forward' already exist in repository",
                false,
            ),
        ] {
            assert_eq!(is_forwarding(message), forwarding, "{message}");
        }
    }

    #[test]
    fn refusals_keep_their_words_and_get_a_fitting_code() {
        let address = Address {
            host: "fe".into(),
            port: 9030,
        };
        for (code, message, kind) in [
            (
                5064,
                "Can only run one backup or restore job of a database at same time",
                ErrorKind::ObjectInUse,
            ),
            (
                1064,
                "Unexpected exception: Snapshot with name 'x' already exist in repository",
                ErrorKind::DuplicateObject,
            ),
            (
                5501,
                "Getting analyzing error. Detail message: Unknown database 'd'.",
                ErrorKind::UndefinedSchema,
            ),
            (
                5203,
                "Access denied; you need (at least one of) the REPOSITORY privilege(s)",
                ErrorKind::InsufficientPrivilege,
            ),
            (
                1064,
                "Getting syntax error at line 1, column 3.",
                ErrorKind::Syntax,
            ),
            (
                1064,
                "Currently does not support incremental backup",
                ErrorKind::Unsupported,
            ),
            (1064, "something new", ErrorKind::Remote),
        ] {
            let error = refusal(
                &ServerError {
                    code,
                    message: message.into(),
                    state: "HY000".into(),
                },
                &address,
            );
            assert_eq!((error.kind, error.message.as_str()), (kind, message));
            assert_eq!(
                error.detail.as_deref(),
                Some(format!("StarRocks error {code} (HY000) from fe:9030").as_str())
            );
        }
    }
}
