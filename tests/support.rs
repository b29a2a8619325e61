//! What tests share: a server in this process, clients for it, and an S3 server that speaks real
//! HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use starkeep::env::{BoxFuture, Clock, Env};
use starkeep::names::Timestamp;
use starkeep::server::Server;
use starkeep::settings::{Backends, Settings};
use tempfile::TempDir;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_util::sync::CancellationToken;

/// The system's clock, put forward by a test: milliseconds.
#[derive(Clone, Debug)]
pub struct ShiftedClock(Arc<dyn Clock>, Arc<AtomicI64>);

impl ShiftedClock {
    pub fn env(ahead: &Arc<AtomicI64>) -> Env {
        let Env { clock, ids } = Env::system();
        let clock = Arc::new(Self(clock, ahead.clone()));
        Env { clock, ids }
    }

    fn ahead(&self) -> i64 {
        self.1.load(Ordering::SeqCst)
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.now().0 + self.ahead())
    }

    fn ticks(&self) -> Duration {
        self.0.ticks() + Duration::from_millis(self.ahead() as u64)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }
}

/// A server with its directory.
pub struct TestServer {
    pub server: Server,
    pub dir: TempDir,
}

pub fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.join("data"),
        listen: ([127, 0, 0, 1], 0).into(),
        http: ([127, 0, 0, 1], 0).into(),
        backends: Backends::Count(3),
        ..Settings::default()
    }
}

impl TestServer {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::start_in(dir, |_| {}).await
    }

    pub async fn start_in(dir: TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_with(dir, Env::system(), change).await
    }

    pub async fn start_with(dir: TempDir, env: Env, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(dir.path());
        change(&mut settings);
        // A program that another test starts has a copy of every open file, locks too, until it runs.
        let freed = async {
            loop {
                match Server::start(&settings, env.clone()).await {
                    Err(e) if e.message.ends_with("is in use by another Starkeep") => {
                        tokio::task::yield_now().await;
                    }
                    started => return started.expect("the server starts"),
                }
            }
        };
        let server = tokio::time::timeout(Duration::from_secs(20), freed).await;
        Self {
            server: server.expect("the directory is free"),
            dir,
        }
    }

    pub fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    pub async fn client(&self) -> Client {
        connect(self.server.addr(), "root", "")
            .await
            .expect("connects")
    }

    /// A client, and the severity and message of each notice that it is sent.
    pub async fn client_with_notices(
        &self,
    ) -> (
        Client,
        tokio::sync::mpsc::UnboundedReceiver<(String, String)>,
    ) {
        self.client_with_notices_of("embedded").await
    }

    /// The same, connected to a cluster.
    pub async fn client_with_notices_of(
        &self,
        cluster: &str,
    ) -> (
        Client,
        tokio::sync::mpsc::UnboundedReceiver<(String, String)>,
    ) {
        let config = format!(
            "host=127.0.0.1 port={} user=root dbname={cluster}",
            self.server.addr().port()
        );
        let (client, mut connection) = tokio_postgres::connect(&config, NoTls)
            .await
            .expect("connects");
        let (sender, notices) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notice(notice) = message {
                    let told = (notice.severity().to_owned(), notice.message().to_owned());
                    let _ = sender.send(told);
                }
            }
        });
        (client, notices)
    }

    pub async fn stop(self) -> TempDir {
        self.server.stop().await;
        self.dir
    }
}

pub async fn connect(
    addr: SocketAddr,
    user: &str,
    more: &str,
) -> Result<Client, tokio_postgres::Error> {
    let config = format!("host=127.0.0.1 port={} user={user} {more}", addr.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The rows of a simple query as text.
pub async fn rows(client: &Client, query: &str) -> Vec<Vec<Option<String>>> {
    let messages = client
        .simple_query(query)
        .await
        .unwrap_or_else(|e| panic!("{query}: {}", describe(&e)));
    let row = |m: SimpleQueryMessage| match m {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|i| row.get(i).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// Waits until a query answers this.
pub async fn until(client: &Client, query: &str, answer: &str) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while value(client, query).await != answer {
            tokio::task::yield_now().await;
        }
    });
    if waited.await.is_err() {
        panic!(
            "{query}: {} where {answer} should be",
            value(client, query).await
        );
    }
}

/// The only value of a query.
pub async fn value(client: &Client, query: &str) -> String {
    let rows = rows(client, query).await;
    rows.first()
        .and_then(|r| r.first().cloned())
        .flatten()
        .unwrap_or_default()
}

pub async fn run(client: &Client, statements: &str) {
    client
        .batch_execute(statements)
        .await
        .unwrap_or_else(|e| panic!("{statements}: {}", describe(&e)));
}

pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(e) => format!("{}: {}", e.code().code(), e.message()),
        None => error.to_string(),
    }
}

/// SQLSTATE and message of the error that a statement must end in.
pub async fn fails(client: &Client, statement: &str) -> (String, String) {
    match client.batch_execute(statement).await {
        Ok(()) => panic!("{statement}: succeeded"),
        Err(e) => {
            let e = e
                .as_db_error()
                .unwrap_or_else(|| panic!("{statement}: {e}"));
            (e.code().code().to_owned(), e.message().to_owned())
        }
    }
}

/// Waits until the last job of a database has ended, and answers its status.
pub async fn job_ends(client: &Client, database: &str) -> String {
    loop {
        let query = format!(
            "SELECT status FROM system.jobs WHERE db_name = '{database}' AND state IS NOT NULL ORDER BY job_id DESC LIMIT 1"
        );
        let status = value(client, &query).await;
        if !["queued", "running"].contains(&status.as_str()) {
            return status;
        }
        tokio::task::yield_now().await;
    }
}

/// An S3 server over a directory, with one bucket, on a free port.
pub struct S3 {
    pub addr: SocketAddr,
    stop: CancellationToken,
    _dir: TempDir,
    pub root: PathBuf,
}

pub const BUCKET: &str = "vault";
pub const ACCESS_KEY: &str = "AKIATEST";
pub const SECRET_KEY: &str = "a-very-secret-key";

/// What an object store does to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Answers with this status and one of S3's codes, and does nothing.
    Refuse(u16, &'static str),
    /// Loses the end of the answer, and says its length accordingly.
    Truncate,
    /// Turns one bit of the answer's body.
    Flip,
    /// Breaks the connection in the middle of the answer's body.
    Cut,
    /// Breaks the connection once the request has come, and does nothing.
    HangUp,
    /// Never answers.
    Hang,
    /// Writes whatever stands there.
    Overwrite,
}

/// Which fault a request meets, by its method and its path with query.
pub type Misbehaviour = Arc<dyn Fn(&str, &str) -> Fault + Send + Sync>;

/// Turns a request of another protocol into S3's; nothing if who asks may not.
pub type Translation = Arc<dyn Fn(&mut http::HeaderMap) -> Option<()> + Send + Sync>;

/// How a server answers.
#[derive(Clone)]
struct Manner {
    misbehave: Misbehaviour,
    /// Whoever is not asked by S3's own signatures.
    translate: Option<Translation>,
    root: PathBuf,
}

async fn answer(
    service: s3s::service::S3Service,
    manner: Manner,
    mut request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<s3s::Body>, s3s::HttpError> {
    use http_body_util::BodyExt;
    let Manner {
        misbehave,
        translate,
        root,
    } = manner;
    if translate.is_some_and(|translate| translate(request.headers_mut()).is_none()) {
        let mut response = http::Response::new(s3s::Body::empty());
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        return Ok(response);
    }
    let path = request.uri().path_and_query().map_or("", |p| p.as_str());
    let fault = misbehave(request.method().as_str(), path);
    match fault {
        Fault::Refuse(status, code) => {
            // Whoever is refused before all is sent would see a connection that breaks.
            let _ = BodyExt::collect(request.body_mut()).await;
            let body = format!("<Error><Code>{code}</Code><Message>refused</Message></Error>");
            let mut response = http::Response::new(s3s::Body::from(body));
            *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            return Ok(response);
        }
        // What is not there any more is in nobody's way.
        Fault::Overwrite => drop(std::fs::remove_file(root.join(&path[1..]))),
        Fault::HangUp => {
            let _ = BodyExt::collect(request.body_mut()).await;
            let error = std::io::Error::other("hung up");
            return Err(s3s::HttpError::new(Box::new(error)));
        }
        Fault::Hang => std::future::pending().await,
        Fault::None | Fault::Truncate | Fault::Flip | Fault::Cut => {}
    }
    let response = service.call(request.map(s3s::Body::from)).await?;
    if !matches!(fault, Fault::Truncate | Fault::Flip | Fault::Cut) {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let mut body = BodyExt::collect(body)
        .await
        .expect("a body")
        .to_bytes()
        .to_vec();
    let whole = body.len();
    match fault {
        Fault::Flip => body[0] ^= 1,
        _ => body.truncate(whole / 2),
    }
    // A server that has less than it has announced breaks the connection.
    let announced = if fault == Fault::Cut {
        whole
    } else {
        body.len()
    };
    parts
        .headers
        .insert(http::header::CONTENT_LENGTH, announced.into());
    Ok(http::Response::from_parts(parts, s3s::Body::from(body)))
}

impl S3 {
    pub async fn start() -> Self {
        Self::misbehaving(Arc::new(|_, _| Fault::None)).await
    }

    /// One over TLS, and the certificate of its authority, PEM.
    pub async fn over_tls() -> (Self, String) {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
            .expect("signs itself");
        let names = vec!["127.0.0.1".to_owned()];
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(names)
            .and_then(|params| params.signed_by(&key, &issuer))
            .expect("signs");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .expect("a certificate and its key");
        let tls = TlsAcceptor::from(Arc::new(config));
        let s3 = Self::serving(Arc::new(|_, _| Fault::None), None, Some(tls)).await;
        (s3, issuer.pem())
    }

    /// One that does to requests what it is told.
    pub async fn misbehaving(misbehave: Misbehaviour) -> Self {
        Self::serving(misbehave, None, None).await
    }

    /// One that speaks another protocol.
    pub async fn speaking(translate: Translation) -> Self {
        Self::serving(Arc::new(|_, _| Fault::None), Some(translate), None).await
    }

    async fn serving(
        misbehave: Misbehaviour,
        translate: Option<Translation>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        use hyper_util::rt::{TokioExecutor, TokioIo};
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().to_owned();
        std::fs::create_dir(root.join(BUCKET)).expect("a bucket");
        let files = s3s_fs::FileSystem::new(&root).expect("a file system");
        let mut builder = s3s::service::S3ServiceBuilder::new(files);
        if translate.is_none() {
            builder.set_auth(s3s::auth::SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let service = builder.build();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let manner = Manner {
            misbehave,
            translate,
            root: root.clone(),
        };
        tokio::spawn(async move {
            let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            loop {
                let socket = tokio::select! {
                    accepted = listener.accept() => accepted.expect("accepts").0,
                    () = stopped.cancelled() => return,
                };
                let (service, manner) = (service.clone(), manner.clone());
                let answering = hyper::service::service_fn(move |request| {
                    answer(service.clone(), manner.clone(), request)
                });
                let (http, tls, stopped) = (http.clone(), tls.clone(), stopped.clone());
                tokio::spawn(async move {
                    let serve = async {
                        match tls {
                            None => http.serve_connection(TokioIo::new(socket), answering).await,
                            // Who does not speak TLS is let go.
                            Some(tls) => match tls.accept(socket).await {
                                Ok(socket) => {
                                    http.serve_connection(TokioIo::new(socket), answering).await
                                }
                                Err(_) => Ok(()),
                            },
                        }
                    };
                    tokio::select! {
                        _ = serve => {}
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        Self {
            addr,
            stop,
            _dir: dir,
            root,
        }
    }

    /// The properties that reach it, as StarRocks spells them.
    pub fn properties(&self) -> String {
        format!(
            "\"aws.s3.endpoint\" = \"http://{}\", \"aws.s3.access_key\" = \"{ACCESS_KEY}\", \"aws.s3.secret_key\" = \"{SECRET_KEY}\", \"aws.s3.region\" = \"us-east-1\"",
            self.addr
        )
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
