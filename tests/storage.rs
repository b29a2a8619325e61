//! What other writers, damage and storage that hangs do to jobs: an end that is true, and nothing
//! held for ever.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use ring::digest::{SHA256, digest};
use tokio_postgres::Client;

use crate::consistency::files;
use crate::process::{Gate, Picks, Prepared, Process, prepared};
use crate::support::{BUCKET, TestServer, fails, job_ends, rows, run, until, value};

const LATEST: &str = "PROPERTIES (\"backup_timestamp\" = \"latest\")";

/// A server whose repository `r` is reached through a gate.
async fn gated(
    prepared: &Prepared,
    prefix: &str,
    held: Picks,
    settings: &[(&str, &str)],
) -> (Process, Client, Gate) {
    let gate = Gate::before(prepared.s3.addr, held).await;
    let process = Process::start_with(&prepared.dir.path().join("data"), settings);
    let client = process.client().await;
    let through = prepared
        .s3
        .properties()
        .replace(&prepared.s3.addr.to_string(), &gate.addr.to_string());
    run(&client, "USE d; DROP REPOSITORY r").await;
    run(&client, &format!("CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/{prefix}\" PROPERTIES ({through})")).await;
    (process, client, gate)
}

fn manifest_puts(line: &str) -> bool {
    line.starts_with("PUT") && line.contains("__info_")
}

async fn is_held(gate: &Gate) {
    gate.held
        .clone()
        .wait_for(|held| *held)
        .await
        .expect("held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_place_is_taken_is_cancelled() {
    let prepared = prepared().await;
    let (process, client, gate) = gated(&prepared, "taken", manifest_puts, &[]).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    is_held(&gate).await;
    assert_eq!(
        fails(&client, "CANCEL BACKUP").await.0,
        "55000",
        "it may have happened already"
    );
    let at = value(
        &client,
        "SELECT backup_timestamp FROM system.jobs WHERE snapshot = 's'",
    )
    .await;
    let dir = prepared
        .s3
        .root
        .join(BUCKET)
        .join("taken/__starrocks_repository_r/__ss_s");
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(
        dir.join(format!("__info_{at}")),
        "something of somebody else's",
    )
    .expect("written");
    gate.open.send_replace(true);
    assert_eq!(job_ends(&client, "d").await, "failed");
    let why = value(
        &client,
        "SELECT error_code || ' ' || error_message FROM system.jobs WHERE snapshot = 's'",
    )
    .await;
    assert!(
        why.starts_with("42710 Snapshot with name 's' already exist in repository"),
        "{why}"
    );
    assert_eq!(
        value(&client, "SELECT state FROM system.backup_jobs").await,
        "CANCELLED"
    );
    // The database takes the next one.
    run(&client, "BACKUP SNAPSHOT other TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn force_makes_unknown_outcomes_lost() {
    let prepared = prepared().await;
    let (process, client, gate) = gated(&prepared, "forced", manifest_puts, &[]).await;
    run(
        &client,
        "CREATE USER eve; GRANT REPOSITORY ON SYSTEM TO eve",
    )
    .await;
    run(
        &client,
        "GRANT EXPORT ON ALL TABLES IN ALL DATABASES TO eve",
    )
    .await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    is_held(&gate).await;
    let job = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    assert_eq!(
        fails(&client, &format!("CANCEL JOB {job}")).await.0,
        "55000"
    );
    let eve = crate::support::connect(process.addr, "eve", "")
        .await
        .expect("logs in");
    assert_eq!(
        fails(&eve, &format!("CANCEL JOB {job} FORCE")).await.0,
        "42501"
    );
    run(&client, &format!("CANCEL JOB {job} FORCE")).await;
    assert_eq!(job_ends(&client, "d").await, "lost");
    assert_eq!(
        fails(&client, &format!("CANCEL JOB {job} FORCE")).await.0,
        "55000"
    );
    gate.open.send_replace(true);
    run(&client, "BACKUP SNAPSHOT other TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    process.kill();
}

/// A server whose repository `r` has a snapshot `s`, and is held back where it deletes, from now
/// on.
async fn about_to_delete(prepared: &Prepared, prefix: &str) -> (Process, Client, Gate) {
    let gate = Gate::before(prepared.s3.addr, |line| line.contains("?delete")).await;
    gate.open.send_replace(true);
    let process = Process::start(&prepared.dir.path().join("data"));
    let client = process.client().await;
    let through = prepared
        .s3
        .properties()
        .replace(&prepared.s3.addr.to_string(), &gate.addr.to_string());
    run(&client, "USE d; DROP REPOSITORY r").await;
    run(&client, &format!("CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/{prefix}\" PROPERTIES ({through})")).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    gate.open.send_replace(false);
    (process, client, gate)
}

const DROPS: &str = "FROM system.jobs WHERE kind = 'drop_snapshot'";

#[tokio::test(flavor = "multi_thread")]
async fn force_ends_a_hung_deletion() {
    let prepared = prepared().await;
    let (process, client, gate) = about_to_delete(&prepared, "drop_hangs").await;
    let waits = process.client().await;
    let waiting = tokio::spawn(async move { fails(&waits, "DROP SNAPSHOT s ON r").await });
    is_held(&gate).await;
    assert_eq!(
        value(&client, &format!("SELECT state {DROPS}")).await,
        "DELETING"
    );
    let job = value(&client, &format!("SELECT job_id {DROPS}")).await;
    assert_eq!(
        fails(&client, &format!("CANCEL JOB {job}")).await.0,
        "55000"
    );
    let (code, message) = fails(&client, "DROP SNAPSHOT s ON r FORCE").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("55006", "snapshot s is being dropped")
    );
    assert_eq!(fails(&client, "DROP REPOSITORY r").await.0, "55006");
    run(&client, &format!("CANCEL JOB {job} FORCE")).await;
    let (code, message) = waiting.await.expect("told");
    assert_eq!(
        (
            code.as_str(),
            message.contains("given up by root in DELETING")
        ),
        ("55000", true),
        "{message}"
    );
    assert_eq!(
        value(
            &client,
            &format!("SELECT status {DROPS} AND job_id = {job}")
        )
        .await,
        "lost"
    );
    run(&client, "DROP REPOSITORY r").await;
    gate.open.send_replace(true);
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_goes_on_after_kill_9() {
    let prepared = prepared().await;
    let (process, client, gate) = about_to_delete(&prepared, "drop_killed").await;
    let waiting =
        tokio::spawn(async move { client.simple_query("DROP SNAPSHOT s ON r").await.map(drop) });
    is_held(&gate).await;
    process.kill();
    assert!(
        waiting.await.expect("ended").is_err(),
        "nobody was told that it is gone"
    );
    gate.open.send_replace(true);
    let process = Process::start(&prepared.dir.path().join("data"));
    let client = process.client().await;
    until(&client, &format!("SELECT status {DROPS}"), "succeeded").await;
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM system.snapshots WHERE repository = 'r'"
        )
        .await,
        "0"
    );
    run(&client, "USE d; BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_restores_free_tables() {
    let prepared = prepared().await;
    let parquet: Picks = |line| line.starts_with("GET") && line.contains(".parquet");
    let (mut process, client, gate) = gated(
        &prepared,
        "hung",
        parquet,
        &[("STARKEEP_DRAIN_TIMEOUT_SECONDS", "1")],
    )
    .await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    run(&client, &format!("RESTORE SNAPSHOT s FROM r {LATEST}")).await;
    is_held(&gate).await;
    assert_eq!(
        fails(&client, "INSERT INTO t VALUES (1, 'late')").await.0,
        "55006"
    );
    assert_eq!(fails(&client, "DROP DATABASE d").await.0, "55006");
    run(&client, "CANCEL RESTORE").await;
    assert_eq!(job_ends(&client, "d").await, "cancelled");
    run(&client, "INSERT INTO t VALUES (1, 'in time')").await;
    assert_eq!(value(&client, "SELECT count(*) FROM t").await, "8001");
    // The names are free, too; and the next one hangs as well, which does not keep the server from
    // ending.
    run(
        &client,
        &format!("RESTORE SNAPSHOT s FROM r ON (t AS t9) {LATEST}"),
    )
    .await;
    drop(client);
    process.terminate();
    let ended = tokio::task::spawn_blocking(move || process.ended());
    let ended = tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .expect("it ends")
        .expect("waited for");
    assert!(ended.success());
    gate.open.send_replace(true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_into_many_tablets_needs_few_open_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Process::start_limited(&dir.path().join("data"), "ulimit -n 200");
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(&client, "CREATE TABLE t (a INT) DISTRIBUTED BY HASH (a) BUCKETS 400 PROPERTIES (\"replication_num\" = \"1\")").await;
    run(
        &client,
        "INSERT INTO t SELECT value FROM generate_series(1, 20000)",
    )
    .await;
    assert_eq!(
        value(&client, "SELECT count(*) || ' ' || sum(a) FROM t").await,
        "20000 200010000"
    );
    server.kill();
}

/// The rows of each row group of every data file on the first backend.
async fn row_groups(client: &Client) -> Vec<i64> {
    let backend = value(client, "SELECT path FROM system.backends LIMIT 1").await;
    let mut groups = Vec::new();
    for path in files(Path::new(&backend))
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "parquet"))
    {
        let reader =
            SerializedFileReader::new(std::fs::File::open(path).expect("opens")).expect("reads");
        groups.extend(
            reader
                .metadata()
                .row_groups()
                .iter()
                .map(|group| group.num_rows()),
        );
    }
    groups
}

/// Rows with long values are packed into nothing where they are alike; whoever reads them unpacks a
/// row group at a time.
#[tokio::test(flavor = "multi_thread")]
async fn row_groups_of_long_values_are_short() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(&client, "CREATE TABLE t (a INT, s VARCHAR(1048576)) DUPLICATE KEY (a) DISTRIBUTED BY HASH (a) BUCKETS 1").await;
    run(
        &client,
        "INSERT INTO t SELECT value, repeat('x', 1000000) FROM generate_series(1, 100)",
    )
    .await;
    assert_eq!(
        value(&client, "SELECT count(*) || ' ' || sum(length(s)) FROM t").await,
        "100 100000000"
    );
    let groups = row_groups(&client).await;
    assert_eq!(groups.iter().sum::<i64>(), 100);
    assert!(groups.iter().all(|rows| *rows <= 33), "{groups:?}");
    server.stop().await;
}

/// Lists are measured by their own items: slices of them keep the items of all.
#[tokio::test(flavor = "multi_thread")]
async fn row_groups_of_lists_are_long_enough() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(&client, "CREATE TABLE t (a INT, l ARRAY<BIGINT>) DUPLICATE KEY (a) DISTRIBUTED BY HASH (a) BUCKETS 1").await;
    run(
        &client,
        "INSERT INTO t SELECT value, array_repeat(value, 1000) FROM generate_series(1, 8000)",
    )
    .await;
    assert_eq!(
        value(
            &client,
            "SELECT count(*) || ' ' || sum(array_length(l)) FROM t"
        )
        .await,
        "8000 8000000"
    );
    let groups = row_groups(&client).await;
    assert_eq!(groups.iter().sum::<i64>(), 8000);
    assert!(
        (2..10).contains(&groups.len()),
        "64 MB in groups of 32: {groups:?}"
    );
    server.stop().await;
}

/// A mount that hangs holds up those who ask it something, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_hung_backend_blocks_only_its_users() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; CREATE TABLE d.t (a INT) DISTRIBUTED BY HASH (a) BUCKETS 1; INSERT INTO d.t VALUES (7)").await;
    let marker = PathBuf::from(value(&client, "SELECT path FROM system.backends LIMIT 1").await)
        .join("backend.json");
    let content = std::fs::read(&marker).expect("reads");
    // Whoever opens a pipe that nobody writes to waits.
    std::fs::remove_file(&marker).expect("removed");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&marker)
            .status()
            .expect("runs")
            .success()
    );
    let waits = server.client().await;
    let create = "CREATE TABLE d.u (a INT) DISTRIBUTED BY HASH (a) BUCKETS 1";
    let waiting = tokio::spawn(async move { waits.simple_query(create).await.map(drop) });
    until(
        &client,
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'DDL'",
        "1",
    )
    .await;
    let others = async {
        run(&client, "CREATE DATABASE e; CREATE VIEW e.v AS SELECT a FROM d.t; CREATE USER eve; GRANT SELECT ON TABLE d.t TO eve")
            .await;
        value(&client, "SELECT a FROM e.v").await
    };
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(60), others)
            .await
            .expect("not held up"),
        "7"
    );
    assert!(!waiting.is_finished(), "it waits for the backend");
    // The file takes the place of the pipe before the pipe answers whoever has opened it.
    let mut pipe = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&marker)
        .expect("opens");
    let put_back = marker.with_extension("new");
    std::fs::write(&put_back, &content).expect("written");
    std::fs::rename(&put_back, &marker).expect("renamed");
    pipe.write_all(&content).expect("written");
    drop(pipe);
    waiting.await.expect("ended").expect("created");
    assert_eq!(value(&client, "SELECT count(*) FROM d.u").await, "0");
    server.stop().await;
}

fn objects(server: &TestServer) -> Vec<PathBuf> {
    files(&server.repository())
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "parquet"))
        .collect()
}

/// A backup of the same files puts right what has become of them in the repository, so that
/// FINISHED means that it can be restored.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_repairs_damaged_objects() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(
        &client,
        "CREATE TABLE t (a INT) DISTRIBUTED BY HASH (a) BUCKETS 2",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT value FROM generate_series(1, 1000)",
    )
    .await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            server.repository().display()
        ),
    )
    .await;
    run(&client, "BACKUP SNAPSHOT s0 TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    for name in ["flipped", "truncated", "removed"] {
        let objects = objects(&server);
        assert_eq!(objects.len(), 2, "{name}");
        for object in objects {
            let mut bytes = std::fs::read(&object).expect("read");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            match name {
                "flipped" => std::fs::write(object, bytes),
                "truncated" => std::fs::write(object, &bytes[..middle]),
                _ => std::fs::remove_file(object),
            }
            .expect("harmed");
        }
        run(&client, &format!("BACKUP SNAPSHOT {name} TO r")).await;
        assert_eq!(job_ends(&client, "d").await, "succeeded", "{name}");
        run(
            &client,
            &format!("RESTORE SNAPSHOT {name} FROM r ON (t AS t_{name}) {LATEST}"),
        )
        .await;
        assert_eq!(job_ends(&client, "d").await, "succeeded", "{name}");
        assert_eq!(
            value(&client, &format!("SELECT sum(a) FROM t_{name}")).await,
            "500500",
            "{name}"
        );
    }
    server.stop().await;
}

/// Says something else in a manifest, whose hash is right again.
fn craft(path: &Path, original: &str, from: &str, to: &str) {
    let begin = original.find("\"manifest\":").expect("a manifest") + "\"manifest\":".len();
    let body = original[begin..original.len() - 1].replace(from, to);
    assert_ne!(
        body,
        original[begin..original.len() - 1],
        "{from} is not there"
    );
    let hash = hex::encode(digest(&SHA256, body.as_bytes()));
    std::fs::write(
        path,
        format!("{{\"sha256\":\"{hash}\",\"manifest\":{body}}}"),
    )
    .expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn crafted_manifests_are_refused() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(
        &client,
        "CREATE TABLE t (a INT, b VARCHAR(10)) DISTRIBUTED BY HASH (a) BUCKETS 1",
    )
    .await;
    run(&client, "INSERT INTO t VALUES (1, 'x')").await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            server.repository().display()
        ),
    )
    .await;
    run(&client, "BACKUP SNAPSHOT s TO r ON (t)").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let path = files(&server.repository())
        .into_iter()
        .find(|f| f.to_string_lossy().contains("__info_"))
        .expect("a manifest");
    let original = std::fs::read_to_string(&path).expect("read");
    let object = objects(&server).remove(0);
    let hash = object
        .file_stem()
        .and_then(|s| s.to_str())
        .expect("a hash")
        .to_owned();
    let tablet = rows(&client, "SELECT tablet_id FROM system.tablets").await[0][0]
        .clone()
        .expect("a tablet");
    let upper = hash.to_uppercase();
    let elsewhere = format!("../{tablet}/{hash}");
    let cases = [
        (hash.as_str(), elsewhere.as_str()),
        (hash.as_str(), upper.as_str()),
        (hash.as_str(), ""),
        (hash.as_str(), "a"),
        (hash.as_str(), "é"),
        ("\"label\":\"s\"", "\"label\":\"other\""),
        ("\"name\":\"t\"", "\"name\":\"\""),
        ("\"name\":\"t\"", "\"name\":\"a\\u0000b\""),
        ("\"buckets\":1", "\"buckets\":0"),
        ("\"buckets\":1", "\"buckets\":4294967295"),
        ("\"buckets\":1", "\"buckets\":2"),
        ("\"rows\":1", "\"rows\":-1"),
        ("\"name\":\"a\"", "\"name\":\"b\""),
        ("\"columns\":[\"a\"]", "\"columns\":[\"zz\"]"),
    ];
    for (from, to) in cases {
        craft(&path, &original, from, to);
        let outcome = client
            .simple_query(&format!("RESTORE SNAPSHOT s FROM r ON (t AS u) {LATEST}"))
            .await;
        let code = match outcome {
            Err(e) => e.code().map(|c| c.code().to_owned()).unwrap_or_default(),
            Ok(_) => {
                assert_ne!(job_ends(&client, "d").await, "succeeded", "{from} as {to}");
                value(
                    &client,
                    "SELECT error_code FROM system.jobs ORDER BY job_id DESC LIMIT 1",
                )
                .await
            }
        };
        assert_eq!(code, "XX001", "{from} as {to}");
        assert_eq!(value(&client, "SELECT b FROM t").await, "x");
    }
    std::fs::write(&path, &original).expect("written");
    run(
        &client,
        &format!("RESTORE SNAPSHOT s FROM r ON (t AS u) {LATEST}"),
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(value(&client, "SELECT b FROM u").await, "x");
    server.stop().await;
}

/// Uploads in parts that the S3 server knows of.
fn open_uploads(root: &Path) -> usize {
    let names = std::fs::read_dir(root)
        .expect("a directory")
        .filter_map(Result::ok);
    names
        .filter(|e| e.file_name().to_string_lossy().starts_with(".upload-"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_upload_leaves_no_parts() {
    let prepared = prepared().await;
    let second_part: Picks = |line| line.starts_with("PUT") && line.contains("partNumber=2");
    let (process, client, gate) = gated(&prepared, "killed", second_part, &[]).await;
    run(
        &client,
        "CREATE TABLE big (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 1",
    )
    .await;
    // Random text does not compress: more than one part.
    run(&client, "INSERT INTO big SELECT value, encode(sha512(concat('x', value)), 'hex') FROM generate_series(1, 300000)").await;
    run(&client, "BACKUP SNAPSHOT b TO r ON (big)").await;
    is_held(&gate).await;
    assert_eq!(open_uploads(&prepared.s3.root), 1);
    process.kill();
    gate.open.send_replace(true);
    let process = Process::start(&prepared.dir.path().join("data"));
    let client = process.client().await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    // What was left is given up when the job cleans up after itself.
    let released = "SELECT count(*) FROM system.job_events WHERE event LIKE '%released%'
                    AND job_id = (SELECT max(job_id) FROM system.jobs)";
    until(&client, released, "1").await;
    assert_eq!(open_uploads(&prepared.s3.root), 0);
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_hangs_holds_up_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Process::start(&dir.path().join("data"));
    let client = server.client().await;
    let location = dir.path().join("repository");
    std::fs::create_dir(&location).expect("made");
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
        location.display()
    );
    run(&client, &create).await;
    // Who opens a pipe for reading waits until somebody writes.
    let info = location.join("__starrocks_repository_r/__repo_info");
    std::fs::remove_file(&info).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&info).status();
    assert!(made.expect("mkfifo runs").success());
    let before = server.threads();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(server.client().await);
    }
    let answers = clients
        .iter()
        .map(|client| value(client, "SELECT error FROM system.repositories"));
    for told in futures::future::join_all(answers).await {
        assert_eq!(told, "no answer within 3 seconds");
    }
    // Threads without work end after a while, those that wait for the pipe never do.
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while server.threads() > before + 20 {
            tokio::task::yield_now().await;
        }
    });
    let more = || server.threads().saturating_sub(before);
    assert!(
        waited.await.is_ok(),
        "{} threads more for forty looks",
        more()
    );
    server.kill();
}
