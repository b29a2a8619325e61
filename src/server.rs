//! The composition root: builds every component, recovers, then serves; and stops in the opposite
//! order.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admission::open_cluster;
use crate::auth::{MockSalts, ROOT, password_verifier};
use crate::catalog::BuiltinRelations;
use crate::cluster::embedded::EmbeddedCluster;
use crate::cluster::{Cluster, Clusters};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::gateway::{AllowedHosts, Gateway, KeptObjects, Limits, LocksByName};
use crate::http::{self, HttpState};
use crate::metrics::Metrics;
use crate::names::{ClusterName, UserName};
use crate::privilege::{Grant, Securable};
use crate::progress::Progress;
use crate::query::{QueryEngine, QuerySettings, Sources, keep_stack_left};
use crate::repository::{ByteBudget, Locations, OpenRepository};
use crate::runner::{Runner, RunnerSettings};
use crate::settings::Settings;
use crate::store::{SecretKey, SqliteStore, Store, UserRecord, Users};
use crate::wire::{Listener, Tls, TlsFiles, WireSettings};

/// The name of the cluster in this process.
const EMBEDDED: &str = "embedded";

/// A running server.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    http_addr: SocketAddr,
    gateway: Arc<Gateway>,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
    kill: CancellationToken,
    wire: JoinHandle<()>,
    http: JoinHandle<()>,
    drain: Duration,
    _lock: File,
}

/// Keeps a second server off the data directory for as long as the file is open.
fn lock(data_dir: &Path) -> Result<File, Error> {
    let path = data_dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| {
            Error::new(
                ErrorKind::Configuration,
                format!("data_dir: could not open \"{}\": {e}", path.display()),
            )
        })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "data_dir: \"{}\" is in use by another Starkeep",
                data_dir.display()
            ),
        )),
        Err(TryLockError::Error(e)) => Err(Error::new(
            ErrorKind::Configuration,
            format!("data_dir: could not lock \"{}\": {e}", path.display()),
        )),
    }
}

/// Root exists, is an administrator, and has the password of the file if there is one.
async fn ensure_root(
    store: &SqliteStore,
    settings: &Settings,
    env: &Env,
) -> Result<UserRecord, Error> {
    let name = UserName::new(ROOT)?;
    let mut root = match store.user(&name).await? {
        Some(root) => root,
        None => {
            let root = UserRecord {
                name,
                verifier: None,
                admin: true,
                created_at: env.now(),
            };
            store.add_user(&root).await?;
            root
        }
    };
    if let Some(path) = &settings.root_password_file {
        let wrong = |why: String| {
            Error::new(
                ErrorKind::Configuration,
                format!("root_password_file: \"{}\" {why}", path.display()),
            )
        };
        let text =
            std::fs::read_to_string(path).map_err(|e| wrong(format!("could not be read: {e}")))?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(wrong("is empty".into()));
        }
        let verifier = password_verifier(password, env);
        store.set_password(&root.name, &verifier).await?;
        root.verifier = Some(verifier);
    }
    if root.verifier.is_none() && !settings.listen.ip().is_loopback() && !settings.insecure {
        return Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "listen: {} is beyond loopback, and root has no password",
                settings.listen
            ),
        )
        .hint("Set root_password_file, or pass --insecure."));
    }
    Ok(root)
}

/// Adds the clusters that statements made and those of the settings. None of them is connected to,
/// so one that is down keeps nobody from starting.
async fn other_clusters(
    settings: &Settings,
    store: &dyn Store,
    clusters: &Clusters,
    env: &Env,
) -> Result<Vec<ClusterName>, Error> {
    let wrong = |name: &str, e: Error| {
        Error::new(
            ErrorKind::Configuration,
            format!("cluster \"{name}\": {}", e.message),
        )
    };
    let mut names = Vec::new();
    let made = store
        .clusters()
        .await?
        .into_iter()
        .map(|c| (c.name.to_string(), c.properties));
    let set = settings.cluster.iter().map(|c| (c.name.clone(), c.texts()));
    for (name, properties) in made.chain(set) {
        let named = ClusterName::new(name.as_str()).map_err(|e| wrong(&name, e))?;
        if clusters.get(&named).is_some() {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("cluster \"{name}\" is there twice"),
            )
            .hint("Take it out of the settings, or give it another name there."));
        }
        clusters.put(open_cluster(&named, &properties, env).map_err(|e| wrong(&name, e))?);
        names.push(named);
    }
    Ok(names)
}

/// Takes back what was granted on objects of the embedded cluster that are not there: a crash may
/// have come between the end of an object and that of its grants, and a new one of that name must
/// begin with nothing.
async fn forget_lost_objects(store: &dyn Store, cluster: &dyn Cluster) -> Result<(), Error> {
    let catalog = cluster.catalog();
    for record in store.grants().await? {
        let Grant::Privilege(_, on) = &record.grant else {
            continue;
        };
        let (database, table) = match on {
            Securable::Table(Some(database), table) => (database, Some(table)),
            Securable::Database(Some(database)) | Securable::AllTablesIn(database) => {
                (database, None)
            }
            _ => continue,
        };
        let schema = catalog.schema(database.as_str());
        let is_there = schema
            .is_some_and(|schema| table.is_none_or(|table| schema.table_exist(table.as_str())));
        if record.cluster.as_ref() == Some(cluster.name()) && !is_there {
            store.forget_object(cluster.name(), database, table).await?;
        }
    }
    Ok(())
}

impl Server {
    /// Starts a server. It answers connections when this returns.
    pub async fn start(settings: &Settings, env: Env) -> Result<Self, Error> {
        keep_stack_left();
        let data_dir = &settings.data_dir;
        std::fs::create_dir_all(data_dir).map_err(|e| {
            Error::new(
                ErrorKind::Configuration,
                format!("data_dir: could not create \"{}\": {e}", data_dir.display()),
            )
        })?;
        let data_dir = std::path::absolute(data_dir).map_err(|e| Error::io("find", data_dir, e))?;
        let lock = lock(&data_dir)?;
        let key = match &settings.secret_key {
            Some(secret) => SecretKey::parse(&secret.0)?,
            None => SecretKey::load_or_create(&data_dir.join("secret.key"), &env)?,
        };
        let mock_salts = MockSalts::new(&key.derive("salts of users that do not exist"));
        let sqlite = SqliteStore::open(&data_dir.join("meta.db"), key, env.clone())?;
        ensure_root(&sqlite, settings, &env).await?;
        let store: Arc<dyn Store> = Arc::new(sqlite);

        let mut backends = Vec::new();
        for path in settings.backends.directories(&data_dir)? {
            backends.push(std::path::absolute(&path).map_err(|e| Error::io("find", &path, e))?);
        }
        let name = ClusterName::new(EMBEDDED)?;
        let budget = ByteBudget::new(settings.bytes_in_flight_max);
        let embedded =
            EmbeddedCluster::open(name.clone(), &data_dir, &backends, budget, env.clone()).await?;
        forget_lost_objects(&*store, &embedded).await?;
        let clusters = Arc::new(Clusters::new([Arc::new(embedded) as Arc<dyn Cluster>]));
        let others = other_clusters(settings, &*store, &clusters, &env).await?;
        let default_cluster = ClusterName::new(settings.default_cluster.as_str())?;
        if clusters.get(&default_cluster).is_none() {
            let message = format!("default_cluster: there is no cluster \"{default_cluster}\"");
            return Err(Error::new(ErrorKind::Configuration, message));
        }

        let open: Arc<dyn OpenRepository> = Arc::new(Locations::default());
        let metrics = Arc::new(Metrics::default());
        let progress = Arc::new(Progress::default());
        let runner = Runner::new(
            store.clone(),
            clusters.clone(),
            open.clone(),
            metrics.clone(),
            progress.clone(),
            env.clone(),
            RunnerSettings {
                jobs_running_max: settings.jobs_running_max,
                task_concurrency: settings.upload_concurrency,
                max_bytes_per_second: settings.max_bytes_per_second,
                ..RunnerSettings::default()
            },
        );
        let sources = Arc::new(Sources {
            store: store.clone(),
            progress,
            clusters: clusters.clone(),
            open: open.clone(),
            env: env.clone(),
            settings: settings.rows(),
            sessions: RwLock::default(),
        });
        let parallelism = match settings.query_parallelism {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let query_settings = QuerySettings {
            memory_bytes_max: settings.query_memory_bytes_max,
            statement_bytes_max: settings.statement_memory(),
            value_bytes_max: settings.value_bytes_max,
            spill_dir: settings.spill_directory(),
            spill_bytes_max: settings.spill_bytes_max,
            parallelism,
        };
        let engine = QueryEngine::new(sources, query_settings)?;
        let started_at = env.now();
        let gateway = Arc::new(Gateway {
            engine,
            runner: runner.clone(),
            store,
            clusters,
            default_cluster,
            open,
            env,
            metrics: metrics.clone(),
            builtin: Arc::new(BuiltinRelations::load()?),
            connections: Arc::default(),
            started_at,
            job_timeout_seconds: settings.job_timeout_seconds,
            kept_objects: KeptObjects::default(),
            grants_change: tokio::sync::Mutex::default(),
            repository_changes: LocksByName::default(),
            mock_salts,
            repository_hosts: AllowedHosts::new(&settings.repository_hosts),
            bounds: settings.bounds(),
            limits: Limits {
                value_bytes_max: settings.value_bytes_max,
                row_bytes_max: settings.row_bytes_max,
                cursor_bytes_max: settings.cursor_bytes_max,
            },
        });

        let wire_settings = WireSettings {
            connections_max: settings.connections_max,
            connections_reserved: settings.connections_reserved,
            connections_per_address_max: settings.connections_per_address_max,
            logins_max: settings.logins_max,
            logins_per_address_max: settings.logins_per_address_max,
            tls_required: settings.tls_required,
            message_bytes_max: settings.message_bytes_max,
            authentication_timeout: Duration::from_secs(settings.authentication_timeout_seconds),
            drain_timeout: Duration::from_secs(settings.drain_timeout_seconds),
        };
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(cert), Some(key)) => {
                let files = TlsFiles {
                    cert: cert.clone(),
                    key: key.clone(),
                    client_ca: settings.tls_client_ca.clone(),
                };
                Some(Arc::new(Tls::open(files)?))
            }
            _ => None,
        };
        let stop = CancellationToken::new();
        let listener = Listener::bind(
            settings.listen,
            gateway.clone(),
            wire_settings,
            tls.clone(),
            stop.clone(),
        )
        .await?;
        let http_listener = http::bind(settings.http).await?;
        let addr = listener.local_addr()?;
        let http_addr = http_listener
            .local_addr()
            .map_err(|e| Error::new(ErrorKind::Configuration, format!("http: {e}")))?;

        let ready = Arc::new(AtomicBool::new(false));
        let http_state = HttpState {
            metrics,
            ready: ready.clone(),
        };
        let http = tokio::spawn(http::serve(http_listener, http_state, stop.clone()));
        runner.recall_damage().await;
        let recovered = runner.recover().await?;
        if recovered > 0 {
            tracing::info!(jobs = recovered, "unfinished jobs taken up again");
        }
        for name in &others {
            runner.watch_cluster(name);
        }
        if settings.history_mirrored {
            runner.mirror_history();
        }
        runner.expire_every(Duration::from_secs(settings.snapshot_expiry_seconds));
        let kill = CancellationToken::new();
        let wire = tokio::spawn(listener.serve(kill.clone()));
        ready.store(true, Ordering::Release);
        Ok(Self {
            addr,
            http_addr,
            gateway,
            tls,
            stop,
            kill,
            wire,
            http,
            drain: wire_settings.drain_timeout,
            _lock: lock,
        })
    }

    /// Where the PostgreSQL protocol is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where metrics and health checks are.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Reads the certificates again; those in force stay so if they do not read.
    pub fn reload_certificates(&self) -> Result<(), Error> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.reload())
    }

    /// What sessions share, for tests that look inside.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Stops: no new connections, idle ones are ended, running statements get some time, jobs stay
    /// in the journal.
    pub async fn stop(self) {
        self.stop.cancel();
        let mut wire = self.wire;
        tokio::select! {
            _ = &mut wire => {}
            () = self.gateway.env.clock.sleep(self.drain) => {
                tracing::warn!("statements are still running; they are ended");
                self.kill.cancel();
                let _ = wire.await;
            }
        }
        self.gateway.runner.stop(self.drain).await;
        let _ = self.http.await;
    }
}
