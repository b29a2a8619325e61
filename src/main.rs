//! Arguments to settings, a server, and waiting for a signal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use starkeep::demo;
use starkeep::env::Env;
use starkeep::error::{Error, ErrorKind};
use starkeep::gateway::Gateway;
use starkeep::metrics::Metrics;
use starkeep::server::Server;
use starkeep::settings::{LogFormat, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is still under way on blocking threads gets this long at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Deep plans recurse; tokio's two MiB are not enough for them.
const STACK_BYTES: usize = 8 << 20;
/// Threads that answer, for each processor: one that encodes a long row or drops a large plan keeps
/// its processor for as long, and the others' short statements have a thread left.
const THREADS_PER_PROCESSOR: usize = 4;
/// How often memory that nobody uses any more goes back to the system. The allocator does so when
/// more is asked of it, which after the last of many clients may be never.
const MEMORY_RETURN_INTERVAL: Duration = Duration::from_secs(10);

/// A PostgreSQL-wire SQL gateway for StarRocks backup and restore.
#[derive(Parser)]
#[command(
    version,
    about,
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server (what no subcommand means, too).
    Serve(ServeArguments),
    /// Play a backup and restore from end to end, on a temporary server.
    Demo(DemoArguments),
}

#[derive(Args, Default)]
struct ServeArguments {
    /// Where everything is kept [default: ./starkeep-data]
    #[arg(long)]
    data_dir: Option<String>,
    /// Address of the PostgreSQL protocol [default: 127.0.0.1:9432]
    #[arg(long)]
    listen: Option<String>,
    /// Address of metrics and health checks [default: 127.0.0.1:9480]
    #[arg(long)]
    http: Option<String>,
    /// A TOML file with settings (docs/operations.md)
    #[arg(long, env = "STARKEEP_CONFIG")]
    config: Option<PathBuf>,
    /// How many backends, or their directories: 3, or /disk1/be,/disk2/be [default: 3]
    #[arg(long)]
    backends: Option<String>,
    /// A file with root's password
    #[arg(long)]
    root_password_file: Option<String>,
    /// The server's certificates, PEM: clients may encrypt
    #[arg(long)]
    tls_cert: Option<String>,
    /// Their key, PEM
    #[arg(long)]
    tls_key: Option<String>,
    /// Who signs the certificates of clients, PEM: every client must show one
    #[arg(long)]
    tls_client_ca: Option<String>,
    /// Turn away clients that do not encrypt
    #[arg(long)]
    tls_required: bool,
    /// Listen beyond loopback although root has no password
    #[arg(long)]
    insecure: bool,
    /// How the log is written
    #[arg(long)]
    log_format: Option<LogFormat>,
}

#[derive(Args)]
struct DemoArguments {
    /// Leave the server running afterwards
    #[arg(long)]
    keep: bool,
    /// Where the repository is: a directory, or a URL such as s3://bucket/path (AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL say how to reach
    /// it)
    #[arg(long)]
    repository: Option<String>,
}

impl ServeArguments {
    fn settings(&self) -> Result<Settings, Error> {
        let mut given = BTreeMap::new();
        for (name, value) in [
            ("data_dir", &self.data_dir),
            ("listen", &self.listen),
            ("http", &self.http),
            ("backends", &self.backends),
            ("root_password_file", &self.root_password_file),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
            ("tls_client_ca", &self.tls_client_ca),
        ] {
            if let Some(value) = value {
                given.insert(name.to_owned(), value.clone());
            }
        }
        for (name, on) in [
            ("insecure", self.insecure),
            ("tls_required", self.tls_required),
        ] {
            if on {
                given.insert(name.into(), "true".into());
            }
        }
        if let Some(format) = self.log_format {
            given.insert(
                "log_format".into(),
                if format == LogFormat::Json {
                    "json"
                } else {
                    "text"
                }
                .into(),
            );
        }
        let environment = std::env::vars()
            .filter(|(name, _)| name != "STARKEEP_CONFIG" && name != "STARKEEP_LOG");
        Settings::load(self.config.as_deref(), environment, given)
    }
}

fn log_to_stderr(format: LogFormat, default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STARKEEP_LOG")
        .unwrap_or_else(|_| default.into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// SIGTERM, Ctrl-C and SIGHUP. Made before anyone is told that the server is up: until then a
/// signal would kill the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> Result<Self, Error> {
        let failed = |e| Error::internal(format!("signals cannot be waited for: {e}"));
        let caught = |kind| signal(kind).map_err(failed);
        Ok(Self {
            terminate: caught(SignalKind::terminate())?,
            interrupt: caught(SignalKind::interrupt())?,
            hang_up: caught(SignalKind::hangup())?,
        })
    }

    /// Waits for the end; SIGHUP until then reads the certificates again.
    async fn wait_reloading(&mut self, server: &Server) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => match server.reload_certificates() {
                    Ok(()) => tracing::info!("certificates read again"),
                    Err(error) => tracing::error!(%error, "certificates do not read; those in force stay so"),
                },
            }
        }
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Counts each fault of the program, wherever it is caught: `starkeep_panics_total` should stay 0.
fn count_panics(metrics: Arc<Metrics>) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        print(panic);
    }));
}

/// Gives memory back that is free, for as long as the process lives. While queries run it would
/// only be asked for again, and giving back much of it holds up whoever asks for some.
async fn return_memory(gateway: Arc<Gateway>) {
    let mut rounds = tokio::time::interval(MEMORY_RETURN_INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if gateway.engine.running() > 0 {
            continue;
        }
        // SAFETY: it takes no pointer and may be called on any thread at any time.
        let returned = tokio::task::spawn_blocking(|| unsafe { libmimalloc_sys::mi_collect(true) });
        if returned.await.is_err() {
            return;
        }
    }
}

async fn serve(arguments: ServeArguments) -> Result<(), Error> {
    let settings = arguments.settings()?;
    log_to_stderr(settings.log_format, "info");
    let mut signals = Signals::catch()?;
    let server = tokio::select! {
        started = Server::start(&settings, Env::system()) => started?,
        // Everything that a start does is safe to leave at any moment.
        () = signals.wait() => return Ok(()),
    };
    count_panics(server.gateway().metrics.clone());
    tokio::spawn(return_memory(server.gateway().clone()));
    println!(
        "starkeep is ready: postgresql://root@{}/ http://{}/metrics",
        server.addr(),
        server.http_addr()
    );
    signals.wait_reloading(&server).await;
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

async fn play(arguments: DemoArguments) -> Result<(), Error> {
    log_to_stderr(LogFormat::Text, "warn");
    let properties = [
        ("AWS_ACCESS_KEY_ID", "aws.s3.access_key"),
        ("AWS_SECRET_ACCESS_KEY", "aws.s3.secret_key"),
        ("AWS_SESSION_TOKEN", "aws.s3.session_token"),
        ("AWS_REGION", "aws.s3.region"),
        ("AWS_ENDPOINT_URL", "aws.s3.endpoint"),
    ];
    let is_s3 = arguments
        .repository
        .as_ref()
        .is_some_and(|r| r.starts_with("s3"));
    let given = properties
        .iter()
        .filter(|_| is_s3)
        .filter_map(|(variable, key)| Some(((*key).to_owned(), std::env::var(variable).ok()?)));
    let mut signals = Signals::catch()?;
    let demo =
        demo::Demo::start(arguments.repository.clone(), given.collect(), Env::system()).await?;
    let played = tokio::select! {
        played = demo.play() => played,
        () = signals.wait() => Err(Error::new(ErrorKind::Cancelled, "the demo was interrupted")),
    };
    if played.is_ok() && arguments.keep {
        println!(
            "\nThe server goes on until Ctrl-C. Connect with:\n  {}",
            demo.psql_line()
        );
        signals.wait().await;
    }
    demo.stop().await;
    played
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors * THREADS_PER_PROCESSOR)
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("starkeep: could not start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Some(Command::Demo(demo)) => play(demo).await,
            Some(Command::Serve(serve_arguments)) => serve(serve_arguments).await,
            None => serve(arguments.serve).await,
        }
    });
    // A thread that waits for storage which does not answer must not keep the process.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = error
                .hint
                .as_deref()
                .map_or(String::new(), |h| format!(" ({h})"));
            eprintln!("starkeep: {error}{hint}");
            ExitCode::FAILURE
        }
    }
}
