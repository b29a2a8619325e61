//! Disks without room: what is refused changes nothing, what can wait waits, and all goes on when
//! there is room again.

use std::fs;
use std::path::{Path, PathBuf};

use tokio_postgres::Client;

use crate::process::Process;
use crate::support::{fails, job_ends, run, until, value};

/// Fills a disk but for so many bytes.
fn fill(directory: &Path, left: u64) -> PathBuf {
    let filler = directory.join("filler");
    let free = rustix::fs::statvfs(directory).expect("a file system");
    let free = free.f_bavail * free.f_frsize;
    fs::write(
        &filler,
        vec![0; usize::try_from(free - left).expect("small")],
    )
    .expect("written");
    filler
}

/// Rows of some 64 incompressible bytes each.
fn rows_from(first: u32, last: u32) -> String {
    format!(
        "INSERT INTO d.t SELECT value, encode(sha512(concat('x', value)), 'hex') FROM generate_series({first}, {last})"
    )
}

async fn with_table(client: &Client) {
    run(client, "CREATE DATABASE d; USE d").await;
    run(
        client,
        "CREATE TABLE t (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 2",
    )
    .await;
    run(client, &rows_from(1, 1000)).await;
}

const COUNT: &str = "SELECT count(*) FROM d.t";

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_waits_for_room_in_its_repository() {
    let dir = tempfile::tempdir().expect("a directory");
    let location = dir.path().join("repository");
    let data = dir.path().join("data");
    let Some(server) = Process::start_on_small_disk(&data, &location, 64) else {
        return;
    };
    let client = server.client().await;
    with_table(&client).await;
    run(&client, &rows_from(1001, 60_000)).await;
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
        location.display()
    );
    run(&client, &create).await;
    let filler = fill(&server.seen(&location), 1 << 20);
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    let reason =
        "SELECT block_reason LIKE '%No space left%' FROM system.jobs WHERE kind = 'backup'";
    until(&client, reason, "t").await;
    assert_eq!(
        value(&client, "SELECT count(*) FROM system.snapshots").await,
        "0"
    );
    fs::remove_file(filler).expect("removed");
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let verify = "VERIFY REPOSITORY r; WAIT FOR JOB 2";
    run(&client, verify).await;
    let found = "SELECT count(*) FROM system.repository_findings WHERE severity = 'error'";
    assert_eq!(value(&client, found).await, "0");
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_backend_keeps_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let backend = data.join("be1");
    let Some(server) = Process::start_on_small_disk(&data, &backend, 64) else {
        return;
    };
    let client = server.client().await;
    with_table(&client).await;
    let filler = fill(&server.seen(&backend), 1 << 20);
    let (code, message) = fails(&client, &rows_from(1001, 100_000)).await;
    assert_eq!(code, "53100", "{message}");
    assert_eq!(value(&client, COUNT).await, "1000");
    fs::remove_file(filler).expect("removed");
    run(&client, &rows_from(1001, 2000)).await;
    assert_eq!(value(&client, COUNT).await, "2000");
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn full_metadata_refuses_changes_and_answers_queries() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let Some(server) = Process::start_on_small_disk(&data, &data, 64) else {
        return;
    };
    let client = server.client().await;
    with_table(&client).await;
    let location = dir.path().join("repository");
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
        location.display()
    );
    run(&client, &create).await;
    let filler = fill(&server.seen(&data), 0);
    for statement in [
        "CREATE DATABASE e",
        &rows_from(1001, 1100),
        "CREATE USER u IDENTIFIED BY 'p'",
        "BACKUP SNAPSHOT s TO r",
    ] {
        // Where room ends while a change is made final, nobody can say what a crash would leave.
        let (code, message) = fails(&client, statement).await;
        let is_told = ["53100", "40003"].contains(&code.as_str());
        assert!(is_told, "{statement}: {code}: {message}");
    }
    assert_eq!(value(&client, COUNT).await, "1000");
    assert_eq!(
        value(&client, "SELECT count(*) FROM system.jobs").await,
        "0"
    );
    fs::remove_file(filler).expect("removed");
    run(&client, &rows_from(1001, 1100)).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(value(&client, COUNT).await, "1100");
    server.kill();
}
