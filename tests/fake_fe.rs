//! A StarRocks cluster that is none: its frontends speak real MySQL, keep to the rules of
//! StarRocks' backup system in the words of their version, and write real files in StarRocks'
//! layout. What goes wrong, goes wrong when a test says so.

mod jobs;
mod model;
mod query;
mod show;
mod wire;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast};
use tokio_rustls::TlsAcceptor;

pub use self::model::{FeSession, Model, put};
pub use self::wire::{Column, Connection, Reply};

/// What goes wrong with the next statement that begins with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks, and nothing has happened.
    DropBefore,
    /// It has its effect, and the connection breaks.
    DropAfter,
    /// Nothing happens until the test says so ([`FakeFe::go_on`]); then it has its effect and is
    /// answered.
    Hold,
    /// The connection breaks at once, and the effect comes when the test says so.
    Late,
    /// The frontend refuses it, and the answer is lost; it lists the connection as idle.
    RefuseSilently,
}

/// How jobs move on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One phase each time.
    Every(Duration),
    /// When the test says so ([`FakeFe::step`]).
    Manual,
}

pub struct Shared {
    pub model: Mutex<Model>,
    faults: Mutex<Vec<(String, Fault)>>,
    go_on: Notify,
    /// Closes every connection.
    restart: broadcast::Sender<()>,
    connections: AtomicU32,
    pub in_flight: Mutex<BTreeMap<u32, String>>,
    /// What connections that are idle have said last, and how that ended.
    idle: Mutex<BTreeMap<u32, (String, &'static str)>>,
    ports: Mutex<Vec<u16>>,
    up: Mutex<Vec<bool>>,
}

/// The cluster; dropping it ends it.
pub struct FakeFe {
    pub shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

pub const PASSWORD: &str = "fe-hush";

impl FakeFe {
    /// A cluster of this version with so many frontends; the first leads.
    pub async fn start(version: &str, frontends: usize, pace: Pace) -> Self {
        Self::start_with(version, frontends, pace, None).await
    }

    pub async fn start_with(
        version: &str,
        frontends: usize,
        pace: Pace,
        tls: Option<Arc<TlsAcceptor>>,
    ) -> Self {
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(version)),
            faults: Mutex::default(),
            go_on: Notify::new(),
            restart: broadcast::Sender::new(4),
            connections: AtomicU32::new(1),
            in_flight: Mutex::default(),
            idle: Mutex::default(),
            ports: Mutex::default(),
            up: Mutex::new(vec![true; frontends]),
        });
        let mut tasks = Vec::new();
        for number in 0..frontends {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            shared
                .ports
                .lock()
                .push(listener.local_addr().expect("an address").port());
            let (shared, tls) = (shared.clone(), tls.clone());
            tasks.push(tokio::spawn(async move {
                loop {
                    let Ok((socket, _)) = listener.accept().await else {
                        return;
                    };
                    if !shared.up.lock()[number] {
                        continue;
                    }
                    tokio::spawn(serve(shared.clone(), number, socket, tls.clone()));
                }
            }));
        }
        if let Pace::Every(pace) = pace {
            let shared = shared.clone();
            tasks.push(tokio::spawn(async move {
                let mut ticks = tokio::time::interval(pace);
                loop {
                    ticks.tick().await;
                    shared.model.lock().tick();
                }
            }));
        }
        Self { shared, tasks }
    }

    /// `host:port` of every frontend, as "fe" wants them.
    pub fn addresses(&self) -> String {
        let ports = self.shared.ports.lock();
        ports
            .iter()
            .map(|p| format!("127.0.0.1:{p}"))
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The statement that makes it known to Starkeep; polls are fast.
    pub fn create(&self, name: &str, more: &str) -> String {
        format!(
            "CREATE CLUSTER {name} PROPERTIES (\"fe\" = \"{}\", \"user\" = \"keeper\", \"password\" = \"{PASSWORD}\",
             \"poll_fast_ms\" = \"10\", \"poll_slow_ms\" = \"20\", \"poll_idle_ms\" = \"20\", \"names_max_age_ms\" = \"0\",
             \"connect_timeout_seconds\" = \"2\"{more})",
            self.addresses()
        )
    }

    pub fn model<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        look(&mut self.shared.model.lock())
    }

    /// The statements with an effect that begin with this, in order.
    pub fn effects(&self, prefix: &str) -> Vec<String> {
        self.model(|m| {
            m.effects
                .iter()
                .filter(|s| s.starts_with(prefix))
                .cloned()
                .collect()
        })
    }

    /// Lets the next statement that begins with this go wrong.
    pub fn fail(&self, prefix: &str, fault: Fault) {
        self.shared.faults.lock().push((prefix.to_owned(), fault));
    }

    /// Waits until a statement that begins with this is held.
    pub async fn holds(&self, prefix: &str) {
        let held = async {
            while !self
                .shared
                .in_flight
                .lock()
                .values()
                .any(|s| s.starts_with(prefix))
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), held)
            .await
            .unwrap_or_else(|_| panic!("{prefix} does not come"));
    }

    /// Waits until the cluster is so.
    pub async fn until(&self, is_so: impl Fn(&Model) -> bool) {
        let comes = async {
            while !is_so(&self.shared.model.lock()) {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), comes).await;
        assert!(waited.is_ok(), "the cluster does not come to be so");
    }

    /// Ends what is held.
    pub fn go_on(&self) {
        self.shared.go_on.notify_one();
    }

    /// Moves every job by one phase.
    pub fn step(&self) {
        self.shared.model.lock().tick();
    }

    /// Takes a frontend down, or up again.
    pub fn set_up(&self, number: usize, up: bool) {
        self.shared.up.lock()[number] = up;
        if !up {
            let _ = self.shared.restart.send(());
        }
    }

    /// No frontend leads from now on; those that are up answer what they can.
    pub fn set_leaderless(&self, leaderless: bool) {
        self.shared.model.lock().leaderless = leaderless;
    }

    /// Another frontend leads from now on.
    pub fn lead(&self, number: usize) {
        self.shared.model.lock().leader = number;
        let _ = self.shared.restart.send(());
    }

    /// What somebody else says to it directly, to the leader.
    pub fn say(&self, database: Option<&str>, sql: &str) -> Reply {
        let mut session = model::FeSession {
            database: database.map(str::to_owned),
            offset_hours: 8,
        };
        let leader = self.shared.model.lock().leader;
        let (ports, up) = (
            self.shared.ports.lock().clone(),
            self.shared.up.lock().clone(),
        );
        self.shared
            .model
            .lock()
            .answer(&mut session, leader, &ports, &up, sql)
            .unwrap_or_else(|| panic!("{sql} is for the query engine"))
    }

    /// A location for repositories in this directory.
    pub fn location(dir: &std::path::Path) -> PathBuf {
        dir.join("bucket")
    }
}

impl Drop for FakeFe {
    fn drop(&mut self) {
        let _ = self.shared.restart.send(());
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn fault_for(&self, sql: &str) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let at = faults
            .iter()
            .position(|(prefix, _)| sql.starts_with(prefix.as_str()))?;
        Some(faults.remove(at).1)
    }
}

async fn serve(
    shared: Arc<Shared>,
    number: usize,
    socket: tokio::net::TcpStream,
    tls: Option<Arc<TlsAcceptor>>,
) {
    let id = shared.connections.fetch_add(1, Ordering::SeqCst);
    let mut restarts = shared.restart.subscribe();
    let Some(mut connection) = Connection::accept(socket, id, PASSWORD, tls).await else {
        return;
    };
    let mut session = model::FeSession {
        database: None,
        offset_hours: 8,
    };
    loop {
        let sql = tokio::select! {
            sql = connection.statement() => match sql {
                Some(sql) => sql,
                None => return,
            },
            _ = restarts.recv() => return,
        };
        shared.model.lock().statements.push(sql.clone());
        let fault = shared.fault_for(&sql);
        if fault == Some(Fault::DropBefore) {
            return;
        }
        if fault == Some(Fault::RefuseSilently) {
            shared.idle.lock().insert(id, (sql, "ERR"));
            return;
        }
        shared.in_flight.lock().insert(id, sql.clone());
        match fault {
            Some(Fault::Hold) => shared.go_on.notified().await,
            Some(Fault::Late) => {
                // The client sees its connection break while the frontend still works.
                let shared = shared.clone();
                tokio::spawn(async move {
                    shared.go_on.notified().await;
                    run(&shared, number, &mut session, &sql).await;
                    shared.in_flight.lock().remove(&id);
                });
                return;
            }
            _ => {}
        }
        let reply = run(&shared, number, &mut session, &sql).await;
        shared.in_flight.lock().remove(&id);
        if fault == Some(Fault::DropAfter) || !connection.reply(&reply).await {
            return;
        }
    }
}

async fn run(
    shared: &Arc<Shared>,
    number: usize,
    session: &mut model::FeSession,
    sql: &str,
) -> Reply {
    if sql.starts_with("SHOW FULL PROCESSLIST") {
        let (busy, idle) = (shared.in_flight.lock(), shared.idle.lock());
        let busy = busy.iter().map(|(id, sql)| (*id, "Query", "OK", &**sql));
        let idle = idle.iter();
        let idle = idle.map(|(id, (sql, state))| (*id, "Sleep", *state, &**sql));
        return shared.model.lock().show_connections(busy.chain(idle));
    }
    let (ports, up) = (shared.ports.lock().clone(), shared.up.lock().clone());
    let answered = shared
        .model
        .lock()
        .answer(session, number, &ports, &up, sql);
    match answered {
        Some(reply) => reply,
        None => {
            let context = query::context(&shared.model.lock(), session);
            query::run(context, sql).await
        }
    }
}
