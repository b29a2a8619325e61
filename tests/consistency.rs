//! Backups while life goes on: what is in a snapshot is exactly one version of each partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::support::{TestServer, job_ends, run, until, value};

/// One client inserts batches of 100 rows without pause, each batch in one statement, while another
/// backs up. The snapshot must hold whole batches only, those up to some version and none after it,
/// and at least those that were acknowledged before.
#[tokio::test(flavor = "multi_thread")]
async fn backup_is_consistent_while_inserting() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(&client, "CREATE TABLE t (batch BIGINT, n BIGINT) DUPLICATE KEY (batch) DISTRIBUTED BY HASH (n) BUCKETS 3").await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            server.repository().display()
        ),
    )
    .await;

    let stop = Arc::new(AtomicBool::new(false));
    let writer = server.client().await;
    let stopped = stop.clone();
    let (acknowledges, mut acknowledged) = watch::channel(0i64);
    let inserting = tokio::spawn(async move {
        let mut batch = 0i64;
        while !stopped.load(Ordering::SeqCst) {
            batch += 1;
            run(
                &writer,
                &format!("INSERT INTO d.t SELECT {batch}, value FROM generate_series(1, 100)"),
            )
            .await;
            acknowledges.send_replace(batch);
        }
        batch
    });
    let mut backups = Vec::new();
    let mut before = 0;
    for i in 0..4 {
        // Each snapshot has at least one batch more than the one before it, however slow the writer
        // is.
        before = *acknowledged
            .wait_for(|batch| *batch > before)
            .await
            .expect("the writer goes on");
        run(&client, &format!("BACKUP SNAPSHOT s{i} TO r ON (t)")).await;
        assert_eq!(job_ends(&client, "d").await, "succeeded");
        let later: i64 = value(&client, "SELECT max(batch) FROM d.t")
            .await
            .parse()
            .expect("a number");
        backups.push((i, before, later));
    }
    stop.store(true, Ordering::SeqCst);
    inserting.await.expect("inserted");

    for (i, acknowledged, later) in backups {
        run(&client, &format!("RESTORE SNAPSHOT s{i} FROM r ON (t AS t{i}) PROPERTIES (\"backup_timestamp\" = \"latest\")")).await;
        assert_eq!(job_ends(&client, "d").await, "succeeded");
        let max: i64 = value(
            &client,
            &format!("SELECT coalesce(max(batch), 0) FROM t{i}"),
        )
        .await
        .parse()
        .expect("a number");
        assert!(
            (acknowledged..=later).contains(&max),
            "batch {max} is the last of s{i}, not between {acknowledged} and {later}"
        );
        let rows: i64 = value(&client, &format!("SELECT count(*) FROM t{i}"))
            .await
            .parse()
            .expect("a number");
        let whole: i64 =
            value(&client, &format!("SELECT count(*) FROM (SELECT batch FROM t{i} GROUP BY batch HAVING count(DISTINCT n) = 100)"))
                .await
                .parse()
                .expect("a number");
        assert_eq!(
            (rows, whole),
            (max * 100, max),
            "every batch up to {max} is whole, and none is beyond"
        );
    }
    server.stop().await;
}

/// DROP, TRUNCATE and DELETE during a backup do not take its files away; and queries that run keep
/// reading theirs.
#[tokio::test(flavor = "multi_thread")]
async fn tables_dropped_during_backup_are_kept() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(
        &client,
        "CREATE TABLE t (a INT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 16",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT value, concat('row ', value) FROM generate_series(1, 20000)",
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
    let other = server.client().await;
    let (submitted, dropped) = tokio::join!(run(&client, "BACKUP SNAPSHOT s TO r ON (t)"), async {
        // As soon as the plan is in the journal, the table goes.
        while value(
            &other,
            "SELECT count(*) FROM system.job_events WHERE detail LIKE '%planned%'",
        )
        .await
            == "0"
        {}
        run(&other, "TRUNCATE TABLE d.t; DROP TABLE d.t").await;
    });
    let ((), ()) = (submitted, dropped);
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    run(
        &client,
        "RESTORE SNAPSHOT s FROM r PROPERTIES (\"backup_timestamp\" = \"latest\")",
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(
        value(&client, "SELECT count(DISTINCT b) FROM t").await,
        "20000"
    );
    server.stop().await;
}

/// A backend that is gone is shown as such, and reads, backup and restore go on from the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_backend_loses_nothing() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(&client, "CREATE TABLE t (a INT) DISTRIBUTED BY HASH (a) BUCKETS 6 PROPERTIES (\"replication_num\" = \"2\")").await;
    run(
        &client,
        "INSERT INTO t SELECT value FROM generate_series(1, 5000)",
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
    std::fs::remove_dir_all(server.dir.path().join("data/be2")).expect("removed");
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM system.backends WHERE NOT alive AND error IS NOT NULL"
        )
        .await,
        "1"
    );
    assert_eq!(value(&client, "SELECT sum(a) FROM t").await, "12502500");
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    run(
        &client,
        "RESTORE SNAPSHOT s FROM r ON (t AS t2) PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"2\")",
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(value(&client, "SELECT sum(a) FROM t2").await, "12502500");
    let (code, message) = crate::support::fails(
        &client,
        "CREATE TABLE u (a INT) PROPERTIES (\"replication_num\" = \"3\")",
    )
    .await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "22023",
            "failed to find 3 different hosts to create table: u"
        )
    );
    server.stop().await;
}

/// A backend that goes while backups run and others read and write: what has another replica is
/// backed up from that, and a tablet that has none ends its job with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_lost_during_backups_is_done_without() {
    let server = TestServer::start().await;
    let client = server.client().await;
    for (database, replicas) in [("three", 3), ("one", 1)] {
        run(
            &client,
            &format!(
                "CREATE DATABASE {database}; USE {database};
                 CREATE TABLE t (a INT) DISTRIBUTED BY HASH (a) BUCKETS 6
                     PROPERTIES (\"replication_num\" = \"{replicas}\");
                 INSERT INTO t SELECT value FROM generate_series(1, 5000)"
            ),
        )
        .await;
    }
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            server.repository().display()
        ),
    )
    .await;
    for (job, database) in [(1, "three"), (2, "one")] {
        // So slow that nothing moves before the backend is gone.
        let slow = "PROPERTIES (\"max_bytes_per_second\" = \"1\")";
        run(
            &client,
            &format!("BACKUP SNAPSHOT {database}.of_{database} TO r {slow}"),
        )
        .await;
        let state = format!("SELECT state FROM system.jobs WHERE job_id = {job}");
        until(&client, &state, "UPLOADING").await;
    }
    let ended = AtomicBool::new(false);
    let others = async {
        let other = server.client().await;
        let mut written = 0;
        while !ended.load(Ordering::Relaxed) || written == 0 {
            written += 1;
            run(&other, &format!("INSERT INTO three.t VALUES (-{written})")).await;
            let sum = "SELECT sum(a), count(*) FROM three.t WHERE a > 0";
            assert_eq!(value(&other, sum).await, "12502500");
        }
        written
    };
    let jobs = async {
        std::fs::remove_dir_all(server.dir.path().join("data/be2")).expect("removed");
        for job in [1, 2] {
            let fast = format!("ALTER JOB {job} SET (\"max_bytes_per_second\" = \"0\")");
            // The second may have met a file that is not there by now, and have ended.
            let changed = client.batch_execute(&fast).await;
            assert!(job == 2 || changed.is_ok());
        }
        let outcomes = (
            job_ends(&client, "three").await,
            job_ends(&client, "one").await,
        );
        ended.store(true, Ordering::Relaxed);
        outcomes
    };
    let (written, outcomes) = tokio::join!(others, jobs);
    assert_eq!(outcomes, ("succeeded".to_owned(), "failed".to_owned()));
    let why = "SELECT error_message LIKE 'no replica of tablet % has file %' FROM system.jobs WHERE job_id = 2";
    assert_eq!(value(&client, why).await, "t");
    let there = "SELECT count(*) FROM three.t WHERE a < 0";
    assert_eq!(value(&client, there).await, written.to_string());
    run(
        &client,
        "RESTORE SNAPSHOT three.of_three FROM r ON (t AS back) PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"2\")",
    )
    .await;
    assert_eq!(job_ends(&client, "three").await, "succeeded");
    assert_eq!(
        value(&client, "SELECT sum(a) FROM three.back").await,
        "12502500"
    );
    server.stop().await;
}

/// Flipped bits: a damaged replica is passed over, a damaged object fails the restore and leaves
/// the old data alone.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_noticed_and_never_spreads() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(&client, "CREATE TABLE t (a INT) DISTRIBUTED BY HASH (a) BUCKETS 1 PROPERTIES (\"replication_num\" = \"3\")").await;
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
    let flip = |path: &std::path::Path| {
        let mut bytes = std::fs::read(path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        std::fs::write(path, bytes).expect("written");
    };
    // Two of three replicas are damaged: the third is taken.
    for backend in ["be1", "be2"] {
        files(&server.dir.path().join("data").join(backend).join("tablets"))
            .iter()
            .for_each(|f| flip(f));
    }
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    run(&client, "TRUNCATE TABLE t; INSERT INTO t VALUES (42)").await;
    run(
        &client,
        "RESTORE SNAPSHOT s FROM r ON (t AS good) PROPERTIES (\"backup_timestamp\" = \"latest\")",
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(value(&client, "SELECT sum(a) FROM good").await, "500500");

    let objects: Vec<_> = files(&server.repository())
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "parquet"))
        .collect();
    assert!(!objects.is_empty());
    objects.iter().for_each(|f| flip(f));
    run(
        &client,
        "RESTORE SNAPSHOT s FROM r ON (t) PROPERTIES (\"backup_timestamp\" = \"latest\")",
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "failed");
    let code = value(
        &client,
        "SELECT error_code FROM system.jobs ORDER BY job_id DESC LIMIT 1",
    )
    .await;
    assert_eq!(code, "XX001");
    assert_eq!(value(&client, "SELECT sum(a) FROM t").await, "42");

    // All replicas damaged: the backup fails, and no manifest appears.
    run(
        &client,
        "CREATE TABLE lost (a INT) DISTRIBUTED BY HASH (a) BUCKETS 1; INSERT INTO lost VALUES (1)",
    )
    .await;
    let lost = value(
        &client,
        "SELECT DISTINCT tablet_id FROM system.tablets WHERE table_name = 'lost'",
    )
    .await;
    for backend in ["be1", "be2", "be3"] {
        files(
            &server
                .dir
                .path()
                .join("data")
                .join(backend)
                .join("tablets")
                .join(&lost),
        )
        .iter()
        .for_each(|f| flip(f));
    }
    run(&client, "BACKUP SNAPSHOT s2 TO r ON (lost)").await;
    assert_eq!(job_ends(&client, "d").await, "failed");
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM system.snapshots WHERE snapshot = 's2'"
        )
        .await,
        "0"
    );

    // A damaged manifest is a row with a status, and refuses to be restored.
    let manifest = files(&server.repository())
        .into_iter()
        .find(|f| f.to_string_lossy().contains("__info_"))
        .expect("a manifest");
    flip(&manifest);
    assert!(
        value(&client, "SELECT status FROM system.snapshots")
            .await
            .starts_with("ERROR: Failed to get info: the manifest is damaged")
    );
    let (code, _) = crate::support::fails(
        &client,
        "RESTORE SNAPSHOT s FROM r PROPERTIES (\"backup_timestamp\" = \"latest\")",
    )
    .await;
    assert_eq!(code, "XX001");
    server.stop().await;
}

/// Every file below a directory.
pub fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            out.extend(files(&path))
        } else {
            out.push(path)
        }
    }
    out
}

/// A job whose repository is away is retried, says why, and ends when its time is over; the table
/// is free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_when_its_time_is_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_in(dir, |s| s.job_timeout_seconds = 2).await;
    let client = server.client().await;
    run(
        &client,
        "CREATE DATABASE d; USE d; CREATE TABLE t (a INT); INSERT INTO t VALUES (1)",
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
    // Without its mark a directory is not taken for the repository: a mount that is gone looks like
    // this.
    let mark = server
        .repository()
        .join("__starrocks_repository_r/__repo_info");
    let content = std::fs::read(&mark).expect("read");
    std::fs::remove_file(&mark).expect("removed");
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    while value(&client, "SELECT block_reason FROM system.jobs")
        .await
        .is_empty()
    {}
    assert!(
        value(&client, "SELECT block_reason FROM system.jobs")
            .await
            .starts_with("the repository cannot be reached")
    );
    assert!(
        value(&client, "SELECT error FROM system.repositories")
            .await
            .contains("__repo_info")
    );
    assert_eq!(job_ends(&client, "d").await, "failed");
    assert!(
        value(&client, "SELECT status FROM system.backup_jobs")
            .await
            .starts_with("[TIMEOUT, msg: the repository cannot be reached")
    );
    std::fs::write(&mark, content).expect("written");
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    server.stop().await;
}
