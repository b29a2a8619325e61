//! VERIFY: what is wrong with a repository is found, named, and kept as rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Client;

use crate::support::{BUCKET, Fault, S3, TestServer, fails, job_ends, rows, run, value};

/// A database with a table of four files, backed up as `one` and `two`.
async fn with_backups(server: &TestServer, location: &str) -> Client {
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(
        &client,
        "CREATE TABLE t (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 4",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT value, 'row ' || value FROM generate_series(1, 4000)",
    )
    .await;
    run(&client, location).await;
    for label in ["one", "two"] {
        run(&client, &format!("BACKUP SNAPSHOT {label} TO r")).await;
        assert_eq!(job_ends(&client, "d").await, "succeeded");
    }
    client
}

fn local(server: &TestServer) -> String {
    let location = server.repository();
    format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
        location.display()
    )
}

fn data_files(repository: &Path) -> Vec<PathBuf> {
    let mut files = crate::consistency::files(&repository.join("__starrocks_repository_r/data"));
    files.sort();
    files
}

/// Verifies, and waits for the end.
async fn verify(client: &Client, statement: &str) {
    run(client, statement).await;
    let id = value(
        client,
        "SELECT max(job_id) FROM system.jobs WHERE kind = 'verify'",
    )
    .await;
    run(client, &format!("WAIT FOR JOB {id}")).await;
}

async fn findings(client: &Client) -> Vec<String> {
    let latest =
        "SELECT severity || ' ' || kind || ' ' || coalesce(snapshot, '-') || ' ' || snapshots
                  FROM system.repository_findings
                  WHERE job_id = (SELECT max(job_id) FROM system.jobs WHERE kind = 'verify') ORDER BY 1";
    let rows = rows(client, latest).await;
    rows.into_iter()
        .filter_map(|mut row| row.remove(0))
        .collect()
}

async fn verdicts(client: &Client) -> Vec<String> {
    let latest = "SELECT snapshot || ' ' || level || ' ' || ok || ' ' || findings
                  FROM system.verifications
                  WHERE job_id = (SELECT max(job_id) FROM system.jobs WHERE kind = 'verify') ORDER BY 1";
    let rows = rows(client, latest).await;
    rows.into_iter()
        .filter_map(|mut row| row.remove(0))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_named() {
    let server = TestServer::start().await;
    let client = with_backups(&server, &local(&server)).await;
    verify(&client, "VERIFY REPOSITORY r").await;
    assert_eq!(findings(&client).await, [""; 0]);
    assert_eq!(
        verdicts(&client).await,
        ["one checksum true 0", "two checksum true 0"]
    );
    let files = value(
        &client,
        "SELECT files_checked FROM system.verifications LIMIT 1",
    );
    assert_eq!(files.await, "4");

    // A flipped byte, a file cut short, one that is gone, and things that are none of it.
    let repository = server.repository();
    let data = data_files(&repository);
    let mut bytes = std::fs::read(&data[0]).expect("a file");
    bytes[20] ^= 1;
    std::fs::write(&data[0], &bytes).expect("written");
    std::fs::write(&data[1], &bytes[..10]).expect("written");
    std::fs::remove_file(&data[2]).expect("removed");
    let root = repository.join("__starrocks_repository_r");
    std::fs::write(root.join("data/notes.txt"), "x").expect("written");
    let unneeded = "0".repeat(64);
    std::fs::create_dir_all(root.join("data/00")).expect("made");
    std::fs::write(root.join(format!("data/00/{unneeded}.parquet")), "x").expect("written");
    verify(&client, "VERIFY REPOSITORY r LEVEL FILES").await;
    let by_length = [
        "error missing one 2",
        "error wrong_length one 2",
        "info foreign - 0",
        "info unreferenced - 0",
    ];
    assert_eq!(findings(&client).await, by_length);
    verify(&client, "VERIFY REPOSITORY r LEVEL CHECKSUM").await;
    let by_bytes = ["error damaged one 2"].into_iter().chain(by_length);
    assert_eq!(findings(&client).await, by_bytes.collect::<Vec<_>>());
    assert_eq!(
        verdicts(&client).await,
        ["one checksum false 3", "two checksum false 3"]
    );

    // One snapshot alone knows nothing of the rest.
    let manifest = root.join("__ss_two");
    let manifest = std::fs::read_dir(&manifest)
        .expect("a label")
        .next()
        .expect("one");
    let manifest = manifest.expect("an entry").path();
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(
        &manifest,
        text.replace("row", "raw").replace("\"d\"", "\"e\""),
    )
    .expect("written");
    verify(&client, "VERIFY SNAPSHOT two ON r").await;
    assert_eq!(findings(&client).await, ["error manifest_damaged two 1"]);
    let snapshots = "SELECT snapshot, last_verified_level, last_verified_ok FROM system.snapshots
                     WHERE repository = 'r' AND snapshot = 'one'";
    let told: Vec<_> = rows(&client, snapshots)
        .await
        .remove(0)
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(told, ["one", "checksum", "f"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_read_a_part() {
    let server = TestServer::start().await;
    let client = with_backups(&server, &local(&server)).await;
    // Of four files a hundredth of a percent has none, but for one time in 2,500.
    verify(
        &client,
        "VERIFY SNAPSHOT one ON r PROPERTIES (\"sample\" = \"0.01%\")",
    )
    .await;
    assert_eq!(verdicts(&client).await, ["one checksum true 0"]);
    let read = value(
        &client,
        "SELECT files_checked < 4 FROM system.verifications",
    )
    .await;
    assert_eq!(read, "t");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_stores_are_verified() {
    let s3 = S3::start().await;
    let server = TestServer::start().await;
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/p\" PROPERTIES ({})",
        s3.properties()
    );
    let client = with_backups(&server, &create).await;
    let data = data_files(&s3.root.join(BUCKET).join("p"));
    std::fs::write(&data[0], "short").expect("written");
    verify(&client, "VERIFY REPOSITORY r").await;
    assert_eq!(findings(&client).await, ["error wrong_length one 2"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_put_right_after_a_restart() {
    let rotten = Arc::new(AtomicBool::new(false));
    let is_rotten = rotten.clone();
    // What the store tells of the object stays the same.
    let s3 = S3::misbehaving(Arc::new(move |method, path| {
        let reads_data = method == "GET" && path.contains("/data/");
        if reads_data && is_rotten.load(Ordering::Relaxed) {
            Fault::Flip
        } else {
            Fault::None
        }
    }))
    .await;
    let server = TestServer::start().await;
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/p\" PROPERTIES ({})",
        s3.properties()
    );
    let client = with_backups(&server, &create).await;
    let moved = "SELECT bytes_new > 0 FROM system.jobs ORDER BY job_id DESC LIMIT 1";
    assert_eq!(value(&client, moved).await, "f");
    rotten.store(true, Ordering::Relaxed);
    verify(&client, "VERIFY REPOSITORY r LEVEL CHECKSUM").await;
    rotten.store(false, Ordering::Relaxed);
    drop(client);
    let server = TestServer::start_in(server.stop().await, |_| {}).await;
    let client = server.client().await;
    run(&client, "USE d; BACKUP SNAPSHOT three TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(value(&client, moved).await, "t");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_verified_is_refused() {
    let server = TestServer::start().await;
    let client = with_backups(&server, &local(&server)).await;
    for (statement, code) in [
        ("VERIFY REPOSITORY nope", "42704"),
        ("VERIFY SNAPSHOT one ON r LEVEL DEEP", "42601"),
        (
            "VERIFY SNAPSHOT one ON r PROPERTIES (\"sample\" = \"0%\")",
            "22023",
        ),
        (
            "VERIFY SNAPSHOT one ON r PROPERTIES (\"simple\" = \"1%\")",
            "22023",
        ),
        (
            "VERIFY SNAPSHOT one ON r LEVEL FILES PROPERTIES (\"sample\" = \"1%\")",
            "22023",
        ),
        ("WAIT FOR JOB 999", "42704"),
    ] {
        assert_eq!(fails(&client, statement).await.0, code, "{statement}");
    }
    // What the job finds out only when it runs is told to whoever waits for it.
    run(&client, "VERIFY SNAPSHOT nope ON r").await;
    let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    let (code, message) = fails(&client, &format!("WAIT FOR JOB {id}")).await;
    assert_eq!(code, "42704");
    assert!(
        message.contains("Snapshot does not exist in repository r: nope"),
        "{message}"
    );
    run(&client, "CREATE USER eve").await;
    let eve = crate::support::connect(server.server.addr(), "eve", "")
        .await
        .expect("connects");
    assert_eq!(fails(&eve, "VERIFY REPOSITORY r").await.0, "42501");
    assert_eq!(fails(&eve, "WAIT FOR JOB 1").await.0, "42501");
    server.stop().await;
}

/// The databases of the cluster, and the tablets that its backends have.
async fn remains(client: &Client) -> (String, String) {
    let databases = "SELECT coalesce(string_agg(db_name, ','), '') FROM system.databases";
    let tablets = "SELECT cast(sum(tablets) AS STRING) FROM system.backends";
    (value(client, databases).await, value(client, tablets).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_read_and_dropped() {
    let server = TestServer::start().await;
    let client = with_backups(&server, &local(&server)).await;
    run(&client, "CREATE VIEW v AS SELECT count(*) AS n FROM t").await;
    run(&client, "BACKUP SNAPSHOT three TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let before = remains(&client).await;
    verify(&client, "VERIFY REPOSITORY r LEVEL RESTORE").await;
    let told =
        "SELECT snapshot, level, ok, restore_seconds >= 0 FROM system.verifications ORDER BY 1";
    let told: Vec<_> = rows(&client, told)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    assert_eq!(
        told.join(" "),
        "one restore t t three restore t t two restore t t"
    );
    let restores = "SELECT count(*) || ' ' || min(status) FROM system.jobs WHERE kind = 'restore'";
    assert_eq!(value(&client, restores).await, "3 succeeded");
    assert_eq!(remains(&client).await, before);
    let level = "SELECT DISTINCT last_verified_level FROM system.snapshots";
    assert_eq!(value(&client, level).await, "restore");

    // A file that is missing keeps its backups from being restored.
    let data = data_files(&server.repository());
    std::fs::remove_file(&data[0]).expect("removed");
    verify(&client, "VERIFY SNAPSHOT one ON r LEVEL RESTORE").await;
    assert_eq!(
        findings(&client).await,
        ["error missing one 1", "error not_restorable one 1"]
    );
    assert_eq!(remains(&client).await, before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_is_cancelled_leaves_nothing() {
    let server = TestServer::start().await;
    let client = with_backups(&server, &local(&server)).await;
    let before = remains(&client).await;
    // So slow that the restore is under way when it is cancelled, after a restart, too.
    let slow = "VERIFY SNAPSHOT one ON r LEVEL RESTORE PROPERTIES (\"max_bytes_per_second\" = \"1\", \"sample\" = \"0.01%\")";
    run(&client, slow).await;
    let state = "SELECT coalesce(min(state), '') FROM system.jobs WHERE kind = 'restore'";
    crate::support::until(&client, state, "DOWNLOADING").await;
    let server = TestServer::start_in(server.stop().await, |_| {}).await;
    let client = server.client().await;
    crate::support::until(&client, state, "DOWNLOADING").await;
    let id = value(
        &client,
        "SELECT job_id FROM system.jobs WHERE kind = 'verify'",
    )
    .await;
    run(&client, &format!("CANCEL JOB {id}")).await;
    let ends = "SELECT string_agg(kind || ' ' || status, ', ' ORDER BY kind) FROM system.jobs WHERE kind <> 'backup'";
    crate::support::until(&client, ends, "restore cancelled, verify cancelled").await;
    let databases = "SELECT string_agg(db_name, ',') FROM system.databases";
    crate::support::until(&client, databases, "d").await;
    crate::support::until(
        &client,
        "SELECT sum(tablets) FROM system.backends",
        &before.1,
    )
    .await;
    let restores = "SELECT count(*) FROM system.jobs WHERE kind = 'restore'";
    assert_eq!(value(&client, restores).await, "1");
    server.stop().await;
}
