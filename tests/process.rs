//! The built binary as a process: its messages, its signals, and `kill -9` in each phase of a job.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::support::{BUCKET, S3, connect, job_ends, run, value};

pub struct Process {
    child: Child,
    pub addr: SocketAddr,
    http: SocketAddr,
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starkeep"));
    command.arg("--data-dir").arg(data_dir).args([
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("STARKEEP_LOG", "error");
    command
}

impl Drop for Process {
    /// One that a failed test has left.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    pub fn start(data_dir: &Path) -> Self {
        Self::spawn(command(data_dir))
    }

    /// With settings from the environment.
    pub fn start_with(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = command(data_dir);
        command.envs(settings.iter().copied());
        Self::spawn(command)
    }

    /// A server that may have so many KiB of addresses: what wants more memory than that ends it.
    pub fn start_within(data_dir: &Path, kib: u64) -> Self {
        Self::start_limited(data_dir, &format!("ulimit -v {kib}"))
    }

    /// A server under a limit that a shell sets.
    pub fn start_limited(data_dir: &Path, limit: &str) -> Self {
        let plain = command(data_dir);
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("{limit}; exec \"$0\" \"$@\""))
            .arg(plain.get_program())
            .args(plain.get_args());
        command.stdout(Stdio::piped()).env("STARKEEP_LOG", "error");
        Self::spawn(command)
    }

    /// A server that sees a file system of its own at a place, of so many MiB, as its user may make
    /// one; nothing where that may not be.
    pub fn start_on_small_disk(data_dir: &Path, place: &Path, mib: u32) -> Option<Self> {
        let may = Command::new("unshare")
            .args(["-rm", "sh", "-c", "mount -t tmpfs none /tmp"])
            .status();
        if !may.is_ok_and(|status| status.success()) {
            eprintln!("file systems of one's own cannot be made here: full disks are not tried");
            return None;
        }
        std::fs::create_dir_all(place).expect("made");
        let plain = command(data_dir);
        let mut command = Command::new("unshare");
        command
            .args(["-rm", "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs -o size={mib}m none '{}' && exec \"$0\" \"$@\"",
                place.display()
            ))
            .arg(plain.get_program())
            .args(plain.get_args());
        command
            .stdout(Stdio::piped())
            .env("STARKEEP_LOG", "error")
            .env("STARKEEP_BACKENDS", "1");
        Some(Self::spawn(command))
    }

    /// A path as the server sees it.
    pub fn seen(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.child.id());
        Path::new(&root).join(path.strip_prefix("/").expect("absolute"))
    }

    /// How many threads it has now.
    pub fn threads(&self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        tasks.expect("Linux").count()
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("read");
        assert!(line.starts_with("starkeep is ready: "), "{line}");
        let after = |mark: &str| {
            line.split(mark)
                .nth(1)
                .and_then(|l| l.split('/').next())
                .and_then(|a| a.parse().ok())
        };
        Self {
            addr: after("root@").expect("an address"),
            http: after("http://").expect("an address"),
            child,
        }
    }

    pub async fn client(&self) -> Client {
        connect(self.addr, "root", "").await.expect("connects")
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let status = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .expect("sent");
        assert!(status.success());
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("waited for")
    }

    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
    }
}

/// What a server that must not start says, in one line.
fn refused(command: &mut Command) -> String {
    let output = command.output().expect("ran");
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}

#[test]
fn wrong_settings_are_named_at_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let first = Process::start(&data);
    assert!(
        refused(&mut command(&data)).contains("data_dir: ")
            && refused(&mut command(&data)).contains("is in use by another Starkeep")
    );
    first.kill();

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").to_string();
    let other = || command(&dir.path().join("other"));
    assert!(refused(other().args(["--listen", &port])).contains("listen: could not listen on"));
    assert!(refused(other().args(["--http", &port])).contains("http: could not listen on"));
    assert!(refused(other().args(["--listen", "nonsense"])).contains("listen: "));
    assert!(refused(other().args(["--backends", "0"])).contains("backends: "));
    assert!(
        refused(other().args(["--config", "/nope.toml"]))
            .contains("config: could not read \"/nope.toml\"")
    );
    assert!(refused(other().args(["--listen", "0.0.0.0:0"])).contains("root has no password"));
    assert!(
        refused(other().args(["--root-password-file", "/nope"])).contains("root_password_file: ")
    );
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("written");
    assert!(refused(&mut command(&file)).contains("data_dir: could not create"));
    assert!(refused(&mut command(Path::new("/proc/nope"))).contains("data_dir: "));
    // A backend that is left out would take its data with it.
    assert!(refused(command(&data).args(["--backends", "1"])).contains("backends leaves out"));
}

#[test]
fn sigterm_drains_and_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut process = Process::start(&dir.path().join("data"));
    process.terminate();
    assert!(process.ended().success());
    let mut rest = String::new();
    process
        .child
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut rest)
        .expect("read");
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(addr)
        .await
        .expect("connects");
    socket
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await
        .expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("read");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let process = Process::start(&dir.path().join("data"));
    let client = process.client().await;
    run(
        &client,
        "CREATE DATABASE d; CREATE TABLE d.t (a INT); INSERT INTO d.t VALUES (1)",
    )
    .await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            dir.path().join("repo").display()
        ),
    )
    .await;
    run(&client, "BACKUP SNAPSHOT d.s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let _ = client.batch_execute("SELECT nope").await;
    assert!(get(process.http, "/healthz").await.ends_with("ok\n"));
    assert!(
        get(process.http, "/readyz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(get(process.http, "/nope").await.starts_with("HTTP/1.1 404"));
    let metrics = get(process.http, "/metrics").await;
    for line in [
        "starkeep_jobs_finished_total{kind=\"backup\",status=\"succeeded\"} 1",
        "starkeep_jobs_running{kind=\"backup\"} 0",
        "starkeep_statements_total{sqlstate=\"42703\"} 1",
        "starkeep_connections 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    process.kill();
}

/// Whether a request, by its first line, is held back.
pub type Picks = fn(&str) -> bool;

/// A proxy before the S3 server that holds back requests with a word in their first line until it
/// is told to let go.
pub struct Gate {
    pub addr: SocketAddr,
    pub held: watch::Receiver<bool>,
    pub open: watch::Sender<bool>,
}

impl Gate {
    pub async fn before(s3: SocketAddr, word: Picks) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (hold, held) = watch::channel(false);
        let (open, opened) = watch::channel(false);
        let hold = Arc::new(hold);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (hold, mut opened) = (hold.clone(), opened.clone());
                tokio::spawn(async move {
                    let server = tokio::net::TcpStream::connect(s3).await.expect("connects");
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::spawn(
                        async move { tokio::io::copy(&mut from_server, &mut to_client).await },
                    );
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(n) = from_client.read(&mut buffer).await {
                        if n == 0 {
                            break;
                        }
                        let first = String::from_utf8_lossy(&buffer[..n.min(512)])
                            .lines()
                            .next()
                            .unwrap_or_default()
                            .to_owned();
                        if first.contains(" HTTP/1.1") && word(&first) && !*opened.borrow() {
                            hold.send_replace(true);
                            if opened.wait_for(|open| *open).await.is_err() {
                                return;
                            }
                        }
                        if to_server.write_all(&buffer[..n]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { addr, held, open }
    }
}

pub struct Prepared {
    pub dir: tempfile::TempDir,
    pub s3: S3,
    sum: String,
}

pub async fn prepared() -> Prepared {
    let (dir, s3) = (tempfile::tempdir().expect("a directory"), S3::start().await);
    let process = Process::start(&dir.path().join("data"));
    let client = process.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(
        &client,
        "CREATE TABLE t (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 8",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT value, concat('row ', value) FROM generate_series(1, 8000)",
    )
    .await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/p\" PROPERTIES ({})",
            s3.properties()
        ),
    )
    .await;
    let sum = value(&client, "SELECT sum(xx_hash3_64(b)::decimal(38,0)) FROM t").await;
    // Acknowledged statements survive kill -9.
    process.kill();
    Prepared { dir, s3, sum }
}

/// The next life of the process; the gate is open by now.
async fn next_life(prepared: &Prepared) -> (Process, Client) {
    let process = Process::start(&prepared.dir.path().join("data"));
    let client = process.client().await;
    (process, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_survives_kill_9() {
    let prepared = prepared().await;
    let cases: [(&str, Picks); 2] = [
        ("UPLOADING", |line| {
            line.starts_with("PUT") && line.contains(".parquet")
        }),
        ("UPLOAD_INFO", |line| {
            line.starts_with("PUT") && line.contains("__info_")
        }),
    ];
    for (i, (phase, word)) in cases.into_iter().enumerate() {
        let statement = format!("BACKUP SNAPSHOT d.s{i} TO r");
        let gate = Gate::before(prepared.s3.addr, word).await;
        let process = Process::start(&prepared.dir.path().join("data"));
        let client = process.client().await;
        let through = prepared
            .s3
            .properties()
            .replace(&prepared.s3.addr.to_string(), &gate.addr.to_string());
        run(&client, "DROP REPOSITORY r").await;
        run(&client, &format!("CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/p{i}\" PROPERTIES ({through})")).await;
        run(&client, &statement).await;
        let mut held = gate.held.clone();
        held.wait_for(|held| *held).await.expect("held");
        assert_eq!(
            value(
                &client,
                "SELECT state FROM system.backup_jobs ORDER BY job_id DESC LIMIT 1"
            )
            .await,
            phase
        );
        process.kill();
        gate.open.send_replace(true);

        let (process, client) = next_life(&prepared).await;
        assert_eq!(job_ends(&client, "d").await, "succeeded", "{phase}");
        assert_eq!(
            value(
                &client,
                "SELECT count(*) FROM system.snapshots WHERE status = 'OK'"
            )
            .await,
            "1",
            "{phase}"
        );
        run(&client, &format!("USE d; RESTORE SNAPSHOT s{i} FROM r ON (t AS t{i}) PROPERTIES (\"backup_timestamp\" = \"latest\")"))
            .await;
        assert_eq!(job_ends(&client, "d").await, "succeeded", "{phase}");
        assert_eq!(
            value(
                &client,
                &format!("SELECT sum(xx_hash3_64(b)::decimal(38,0)) FROM t{i}")
            )
            .await,
            prepared.sum,
            "{phase}"
        );
        process.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_goes_on_after_kill_9_in_downloading() {
    let prepared = prepared().await;
    let gate = Gate::before(prepared.s3.addr, |line| {
        line.starts_with("GET") && line.contains(".parquet")
    })
    .await;
    let process = Process::start(&prepared.dir.path().join("data"));
    let client = process.client().await;
    let through = prepared
        .s3
        .properties()
        .replace(&prepared.s3.addr.to_string(), &gate.addr.to_string());
    run(&client, "USE d; DROP REPOSITORY r").await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/q\" PROPERTIES ({through})"
        ),
    )
    .await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    run(&client, "TRUNCATE TABLE t; INSERT INTO t VALUES (1, 'old')").await;
    run(
        &client,
        "RESTORE SNAPSHOT s FROM r PROPERTIES (\"backup_timestamp\" = \"latest\")",
    )
    .await;
    let mut held = gate.held.clone();
    held.wait_for(|held| *held).await.expect("held");
    assert_eq!(
        value(&client, "SELECT state FROM system.restore_jobs").await,
        "DOWNLOADING"
    );
    // Readers see all of the old meanwhile, and writers are kept away.
    assert_eq!(value(&client, "SELECT b FROM t").await, "old");
    let (code, message) = crate::support::fails(&client, "INSERT INTO t VALUES (2, 'late')").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("55006", "Table t's state is not NORMAL: RESTORE")
    );
    let (code, _) = crate::support::fails(&client, "DROP DATABASE d").await;
    assert_eq!(code, "55006");
    process.kill();
    gate.open.send_replace(true);

    let (process, client) = next_life(&prepared).await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(
        value(
            &client,
            "SELECT sum(xx_hash3_64(b)::decimal(38,0)) FROM d.t"
        )
        .await,
        prepared.sum
    );
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_job_is_cancelled_and_leaves_nothing() {
    let prepared = prepared().await;
    let gate = Gate::before(prepared.s3.addr, |line| {
        line.starts_with("PUT") && line.contains(".parquet")
    })
    .await;
    let process = Process::start(&prepared.dir.path().join("data"));
    let client = process.client().await;
    let through = prepared
        .s3
        .properties()
        .replace(&prepared.s3.addr.to_string(), &gate.addr.to_string());
    run(&client, "USE d; DROP REPOSITORY r").await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/c\" PROPERTIES ({through})"
        ),
    )
    .await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    let mut held = gate.held.clone();
    held.wait_for(|held| *held).await.expect("held");
    assert!(
        value(&client, "SELECT unfinished_tasks FROM system.backup_jobs")
            .await
            .contains('=')
    );
    // One job a database; another statement's refusal is history, too.
    let (code, message) = crate::support::fails(&client, "BACKUP SNAPSHOT s2 TO r").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "55006",
            "Can only run one backup or restore job of a database at same time"
        )
    );
    let (code, message) = crate::support::fails(&client, "DROP REPOSITORY r").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "55006",
            "Backup or restore job is running on this repository. Can not drop it"
        )
    );
    let (code, message) = crate::support::fails(&client, "CANCEL RESTORE").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("42704", "No restore is currently running")
    );
    run(&client, "CANCEL BACKUP").await;
    assert_eq!(
        value(&client, "SELECT status FROM system.backup_jobs").await,
        "[COMMON_ERROR, msg: user cancelled]"
    );
    assert_eq!(job_ends(&client, "d").await, "cancelled");
    gate.open.send_replace(true);
    process.kill();
    let (process, client) = next_life(&prepared).await;
    assert_eq!(
        value(&client, "SELECT count(*) FROM system.snapshots").await,
        "0"
    );
    // The label is free again.
    run(&client, "BACKUP SNAPSHOT d.s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    process.kill();
}

/// Waits until the last job has seen so many events, looking into the metadata as the server writes
/// it; answers its phase.
fn events_reach(data_dir: &Path, count: i64) -> String {
    let meta = rusqlite::Connection::open(data_dir.join("meta.db")).expect("opens");
    loop {
        let (seen, state): (i64, Option<String>) = meta
            .query_row(
                "SELECT count(*), (SELECT to_state FROM job_events WHERE job_id = j.id ORDER BY seq DESC LIMIT 1)
                 FROM (SELECT max(job_id) AS id FROM jobs) j LEFT JOIN job_events e ON e.job_id = j.id WHERE e.seq IS NOT NULL",
                [],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )
            .expect("read");
        let state = state.unwrap_or_default();
        if seen >= count || ["FINISHED", "CANCELLED"].contains(&state.as_str()) {
            return state;
        }
    }
}

/// `kill -9` right after the first event, the second, and so on to the last: every phase of a
/// backup and of a restore.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_on_after_kill_9_at_every_event() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let mut process = Process::start(&data);
    let mut client = process.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(
        &client,
        "CREATE TABLE t (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 3",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT value, concat('row ', value) FROM generate_series(1, 3000)",
    )
    .await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            dir.path().join("repo").display()
        ),
    )
    .await;
    const SUM: &str = "SELECT sum(xx_hash3_64(b)::decimal(38,0)) FROM d.t";
    let sum = value(&client, SUM).await;
    let mut phases = std::collections::BTreeSet::new();
    // A backup of three tablets has 11 events, a restore 11 too.
    for kind in ["backup", "restore"] {
        for n in 1..=11 {
            let statement = match kind {
                "backup" => format!("BACKUP SNAPSHOT d.s{n} TO r"),
                _ => {
                    run(&client, "INSERT INTO d.t VALUES (0, 'noise')").await;
                    "RESTORE SNAPSHOT d.s1 FROM r PROPERTIES (\"backup_timestamp\" = \"latest\")"
                        .into()
                }
            };
            run(&client, &statement).await;
            phases.insert((kind, events_reach(&data, n)));
            process.kill();
            process = Process::start(&data);
            client = process.client().await;
            assert_eq!(
                job_ends(&client, "d").await,
                "succeeded",
                "{kind}, killed after event {n}"
            );
            assert_eq!(
                value(&client, SUM).await,
                sum,
                "{kind}, killed after event {n}"
            );
        }
    }
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM system.snapshots WHERE status = 'OK'"
        )
        .await,
        "11"
    );
    assert!(
        phases.len() >= 6,
        "the kills came in several phases: {phases:?}"
    );
    process.kill();
}
