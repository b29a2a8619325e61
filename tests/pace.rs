//! How fast jobs go: limits, changes of them, and pauses.

use tokio_postgres::Client;

use crate::support::{TestServer, fails, job_ends, rows, run, until, value};

/// So slow that nothing moves before the test is over.
const SLOW: &str = "\"max_bytes_per_second\" = \"1\"";

async fn with_tables(server: &TestServer) -> Client {
    let client = server.client().await;
    for database in ["d", "e"] {
        run(
            &client,
            &format!("CREATE DATABASE {database}; USE {database}"),
        )
        .await;
        run(
            &client,
            "CREATE TABLE t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 2",
        )
        .await;
        run(
            &client,
            "INSERT INTO t SELECT value FROM generate_series(1, 500)",
        )
        .await;
    }
    let location = server.repository();
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
        location.display()
    );
    run(&client, &create).await;
    client
}

async fn uploads(client: &Client) {
    until(
        client,
        "SELECT state FROM system.jobs WHERE job_id = 1",
        "UPLOADING",
    )
    .await;
}

/// A table of one file shows how far it is.
#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_within_a_file() {
    let server = TestServer::start().await;
    let client = with_tables(&server).await;
    run(
        &client,
        "CREATE TABLE d.one (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 1;
         INSERT INTO d.one SELECT value, encode(sha512(concat('x', value)), 'hex') FROM generate_series(1, 60000)",
    )
    .await;
    let pace = "\"max_bytes_per_second\" = \"400000\"";
    for (job, statement) in [
        (
            1,
            format!("BACKUP SNAPSHOT d.s TO r ON (one) PROPERTIES ({pace})"),
        ),
        (
            2,
            format!(
                "RESTORE SNAPSHOT d.s FROM r ON (one AS back) PROPERTIES (\"backup_timestamp\" = \"latest\", {pace})"
            ),
        ),
    ] {
        run(&client, &statement).await;
        let within = format!(
            "SELECT files_done = 0 AND bytes_done > 0 AND bytes_done < bytes_total FROM system.jobs WHERE job_id = {job}"
        );
        until(&client, &within, "t").await;
        run(
            &client,
            &format!("ALTER JOB {job} SET (\"max_bytes_per_second\" = \"0\"); WAIT FOR JOB {job}"),
        )
        .await;
        let whole = format!(
            "SELECT files_done = 1 AND bytes_done = bytes_total FROM system.jobs WHERE job_id = {job}"
        );
        assert_eq!(value(&client, &whole).await, "t");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let one_at_a_time = |s: &mut starkeep::settings::Settings| s.jobs_running_max = 1;
    let server = TestServer::start_in(dir, one_at_a_time).await;
    let client = with_tables(&server).await;
    run(
        &client,
        &format!("BACKUP SNAPSHOT d.one TO r PROPERTIES ({SLOW})"),
    )
    .await;
    uploads(&client).await;
    run(&client, "PAUSE JOB 1").await;
    let (code, message) = fails(&client, "PAUSE JOB 1").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("55000", "job 1 is paused already")
    );

    let server = TestServer::start_in(server.stop().await, one_at_a_time).await;
    let client = server.client().await;
    let stands = "SELECT state, status, paused_at IS NOT NULL, max_bytes_per_second, tasks_done,
                      (SELECT count(*) FROM system.job_tasks WHERE job_id = 1 AND kind = 'snapshot')
                  FROM system.jobs WHERE job_id = 1";
    let row = rows(&client, stands).await.remove(0);
    let row: Vec<_> = row.into_iter().flatten().collect();
    assert_eq!(row, ["UPLOADING", "running", "t", "1", "2", "2"]);
    // Its turn is free.
    run(&client, "BACKUP SNAPSHOT e.two TO r").await;
    assert_eq!(job_ends(&client, "e").await, "succeeded");

    run(
        &client,
        "ALTER JOB 1 SET (\"max_bytes_per_second\" = \"0\")",
    )
    .await;
    run(&client, "RESUME JOB 1").await;
    run(&client, "WAIT FOR JOB 1").await;
    let said = "SELECT actor || ': ' || detail FROM system.job_events
                WHERE job_id = 1 AND actor = 'user' ORDER BY seq";
    let said: Vec<_> = rows(&client, said)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    assert_eq!(
        said,
        [
            "user: paused by root",
            "user: root took its limit away",
            "user: resumed by root",
        ]
    );
    let (code, message) = fails(&client, "RESUME JOB 1").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("55000", "job 1 has ended: FINISHED")
    );
    let paused = value(&client, "SELECT count(paused_at) FROM system.jobs").await;
    assert_eq!(paused, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_queued_jobs_block_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_in(dir, |s| s.jobs_running_max = 1).await;
    let client = with_tables(&server).await;
    run(&client, "CREATE DATABASE f; CREATE TABLE f.t (a INT)").await;
    run(
        &client,
        &format!("BACKUP SNAPSHOT d.one TO r PROPERTIES ({SLOW})"),
    )
    .await;
    uploads(&client).await;
    run(&client, "BACKUP SNAPSHOT e.two TO r").await;
    run(&client, "PAUSE JOB 2").await;
    run(&client, "BACKUP SNAPSHOT f.three TO r").await;
    run(&client, "CANCEL JOB 1").await;
    run(&client, "WAIT FOR JOB 3").await;
    run(&client, "RESUME JOB 2; WAIT FOR JOB 2").await;
    // What keeps others waiting is not paused.
    run(&client, "DROP SNAPSHOT two ON r").await;
    let data = server.repository().join("__starrocks_repository_r/data");
    for file in crate::consistency::files(&data) {
        let old = std::fs::File::options()
            .write(true)
            .open(file)
            .expect("opens");
        let day = std::time::Duration::from_secs(3 * 24 * 3600);
        let times = old.metadata().and_then(|m| m.modified()).expect("a time");
        old.set_modified(times - day).expect("old by now");
    }
    run(&client, "PRUNE REPOSITORY r").await;
    let prune = "SELECT job_id FROM system.jobs WHERE kind = 'prune'";
    let id = value(&client, prune).await;
    let state = format!("SELECT state FROM system.jobs WHERE job_id = {id}");
    until(&client, &state, "WAITING").await;
    let (code, message) = fails(&client, &format!("PAUSE JOB {id}")).await;
    assert_eq!(code, "55000", "{message}");
    run(&client, &format!("CANCEL JOB {id}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_any_limit_reaches_jobs_that_run() {
    let server = TestServer::start().await;
    let client = with_tables(&server).await;
    run(
        &client,
        &format!("ALTER REPOSITORY r SET PROPERTIES ({SLOW})"),
    )
    .await;
    run(&client, "BACKUP SNAPSHOT d.one TO r").await;
    uploads(&client).await;
    run(
        &client,
        "ALTER REPOSITORY r SET PROPERTIES (\"max_bytes_per_second\" = \"0\")",
    )
    .await;
    run(&client, "WAIT FOR JOB 1").await;
    let properties = format!("\"backup_timestamp\" = \"latest\", {SLOW}");
    run(
        &client,
        &format!("RESTORE SNAPSHOT f.one FROM r PROPERTIES ({properties})"),
    )
    .await;
    until(
        &client,
        "SELECT state FROM system.jobs WHERE job_id = 2",
        "DOWNLOADING",
    )
    .await;
    run(
        &client,
        "ALTER JOB 2 SET (\"max_bytes_per_second\" = \"1000000000\")",
    )
    .await;
    run(&client, "WAIT FOR JOB 2").await;
    assert_eq!(value(&client, "SELECT count(*) FROM f.t").await, "500");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_or_slow_job_can_be_cancelled() {
    let server = TestServer::start().await;
    let client = with_tables(&server).await;
    for (id, pauses) in [(1, false), (2, true)] {
        run(
            &client,
            &format!("BACKUP SNAPSHOT d.x{id} TO r PROPERTIES ({SLOW})"),
        )
        .await;
        let state = format!("SELECT state FROM system.jobs WHERE job_id = {id}");
        until(&client, &state, "UPLOADING").await;
        if pauses {
            run(&client, &format!("PAUSE JOB {id}")).await;
        }
        run(&client, &format!("CANCEL JOB {id}")).await;
        assert_eq!(job_ends(&client, "d").await, "cancelled");
    }
    for (statement, code) in [
        ("PAUSE JOB 99", "42704"),
        ("PAUSE JOB 1", "55000"),
        (
            "ALTER JOB 1 SET (\"max_bytes_per_second\" = \"fast\")",
            "22023",
        ),
        ("ALTER JOB 1 SET (\"speed\" = \"1\")", "22023"),
        ("ALTER JOB 1 SET ()", "42601"),
    ] {
        assert_eq!(fails(&client, statement).await.0, code, "{statement}");
    }
    run(&client, "CREATE USER u1 IDENTIFIED BY 'x'").await;
    let other = crate::support::connect(server.server.addr(), "u1", "password=x")
        .await
        .expect("connects");
    assert_eq!(fails(&other, "PAUSE JOB 1").await.0, "42501");
}
