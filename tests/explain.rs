//! EXPLAIN of BACKUP, RESTORE, DROP SNAPSHOT, PRUNE and VERIFY: what it says is what happens, and
//! it changes nothing.

use tokio_postgres::Client;

use crate::support::{TestServer, fails, job_ends, rows, run, value};

const LATEST: &str = "PROPERTIES (\"backup_timestamp\" = \"latest\")";

/// A row: step, object, action, severity.
type Told = (String, String, String, String);

struct Plan(Vec<Vec<Option<String>>>);

impl Plan {
    async fn of(client: &Client, statement: &str) -> Self {
        Self(rows(client, &format!("EXPLAIN {statement}")).await)
    }

    fn text(row: &[Option<String>], column: usize) -> String {
        row[column].clone().unwrap_or_default()
    }

    fn told(&self) -> Vec<Told> {
        let told = self.0.iter().map(|row| {
            let text = |column| Self::text(row, column);
            (text(0), text(1), text(2), text(9))
        });
        told.collect()
    }

    /// The messages of the checks that would refuse the statement, by their SQLSTATEs.
    fn refusals(&self) -> Vec<String> {
        let refused = self.0.iter().filter(|row| Self::text(row, 9) == "ERROR");
        refused
            .map(|row| Self::text(row, 10)[..5].to_owned())
            .collect()
    }

    fn number(&self, step: &str, column: usize) -> Option<i64> {
        let row = self.0.iter().find(|row| Self::text(row, 0) == step)?;
        row[column].as_ref()?.parse().ok()
    }
}

const BYTES: usize = 6;
const NEW_BYTES: usize = 7;
const SECONDS: usize = 8;

fn told(step: &str, object: &str, action: &str) -> Told {
    (step.into(), object.into(), action.into(), "INFO".into())
}

async fn with_tables(server: &TestServer) -> Client {
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    for table in ["t", "u"] {
        let create = format!("CREATE TABLE {table} (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 2");
        run(&client, &create).await;
    }
    run(
        &client,
        "INSERT INTO t SELECT value FROM generate_series(1, 500)",
    )
    .await;
    run(&client, "INSERT INTO u VALUES (1)").await;
    run(&client, "CREATE VIEW v AS SELECT a FROM t").await;
    let location = server.repository();
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
        location.display()
    );
    run(&client, &create).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_moves_what_explain_said() {
    let server = TestServer::start().await;
    let client = with_tables(&server).await;
    let before = crate::consistency::files(&server.repository()).len();
    let plan = Plan::of(&client, "BACKUP SNAPSHOT one TO r").await;
    assert_eq!(
        plan.told(),
        [
            told("UPLOADING", "d.t", "upload"),
            told("UPLOADING", "d.u", "upload"),
            told("SAVE_META", "d.v", "keep definition"),
            told("UPLOAD_INFO", "one", "put manifest"),
            told("total", "one", "sum"),
        ]
    );
    assert_eq!(
        plan.number("total", SECONDS),
        None,
        "there is no history yet"
    );
    assert_eq!(
        value(&client, "SELECT count(*) FROM system.jobs").await,
        "0"
    );
    assert_eq!(
        crate::consistency::files(&server.repository()).len(),
        before
    );

    let moved = "SELECT bytes_new FROM system.jobs ORDER BY job_id DESC LIMIT 1";
    run(&client, "BACKUP SNAPSHOT one TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let new: i64 = value(&client, moved).await.parse().expect("a number");
    assert!(new > 0);
    assert_eq!(plan.number("total", NEW_BYTES), Some(new));
    assert_eq!(plan.number("total", BYTES), Some(new));

    run(&client, "INSERT INTO u VALUES (2)").await;
    let plan = Plan::of(&client, "BACKUP SNAPSHOT two TO r").await;
    run(&client, "BACKUP SNAPSHOT two TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let second: i64 = value(&client, moved).await.parse().expect("a number");
    assert!(0 < second && second < new);
    assert_eq!(plan.number("total", NEW_BYTES), Some(second));
    let estimate = plan.0.last().and_then(|row| row[SECONDS].clone());
    assert!(estimate.is_some_and(|s| s.parse::<f64>().expect("a number") > 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_that_fails_is_told() {
    let server = TestServer::start().await;
    let client = with_tables(&server).await;
    run(&client, "BACKUP SNAPSHOT one TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let refused = |statement: &'static str| {
        let client = &client;
        async move { Plan::of(client, statement).await.refusals() }
    };
    let taken_and_wrong = "BACKUP SNAPSHOT one TO r PROPERTIES (\"timeout\" = \"1\")";
    assert_eq!(refused(taken_and_wrong).await, ["22023", "42710"]);
    assert_eq!(
        refused("BACKUP SNAPSHOT nodb.x TO norepo PROPERTIES (\"nonsense\" = \"1\")").await,
        ["3F000", "42704", "22023"]
    );
    let twice = "RESTORE SNAPSHOT one FROM r ON (t, nope, t)";
    assert_eq!(refused(twice).await, ["42P07", "22023"]);
    // What cannot go into what is there: each table for itself.
    run(
        &client,
        "DROP TABLE t; CREATE TABLE t (b STRING); DROP TABLE u; CREATE TABLE u (b STRING)",
    )
    .await;
    let restore = "RESTORE SNAPSHOT one FROM r PROPERTIES (\"backup_timestamp\" = \"latest\")";
    assert_eq!(refused(restore).await, ["55000", "55000"]);
    assert_eq!(refused("DROP SNAPSHOT nope ON r").await, ["42704"]);
    let prune = "PRUNE REPOSITORY r PROPERTIES (\"grace\" = \"1 SECOND\")";
    assert_eq!(refused(prune).await, ["22023"]);
    assert_eq!(refused("VERIFY SNAPSHOT nope ON r").await, ["42704"]);
    // Nothing of it is an attempt.
    let jobs = value(&client, "SELECT count(*) FROM system.jobs").await;
    assert_eq!(jobs, "1");
    let (code, _) = fails(&client, "EXPLAIN BACKUP SNAPSHOT").await;
    assert_eq!(code, "42601");
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_are_hidden_from_others() {
    let server = TestServer::start().await;
    let client = with_tables(&server).await;
    run(&client, "BACKUP SNAPSHOT one TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    run(&client, "CREATE USER u1 IDENTIFIED BY 'x'").await;
    let other = crate::support::connect(server.server.addr(), "u1", "password=x")
        .await
        .expect("connects");
    for statement in [
        "BACKUP SNAPSHOT d.one TO r",
        &format!("RESTORE SNAPSHOT d.one FROM r {LATEST}"),
        "DROP SNAPSHOT one ON r",
        "PRUNE REPOSITORY r",
        "VERIFY SNAPSHOT one ON r",
    ] {
        let plan = Plan::of(&other, statement).await;
        let refusals = plan.refusals();
        assert_eq!(refusals.len(), plan.0.len(), "{statement}: {:?}", plan.0);
        assert!(refusals.iter().all(|code| code == "42501"), "{refusals:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_tells_what_it_replaces() {
    let server = TestServer::start().await;
    let client = with_tables(&server).await;
    run(&client, "BACKUP SNAPSHOT one TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    run(&client, "DROP TABLE u").await;
    let plan = Plan::of(&client, &format!("RESTORE SNAPSHOT one FROM r {LATEST}")).await;
    assert_eq!(
        plan.told(),
        [
            told("DOWNLOADING", "d.t", "replace partitions"),
            told("DOWNLOADING", "d.u", "create table"),
            told("COMMITTING", "d.v", "create or replace view"),
            told("total", "one", "sum"),
        ]
    );
    // A name that was made in the preview is free.
    run(&client, "CREATE TABLE u (a BIGINT)").await;
    let elsewhere = format!("RESTORE SNAPSHOT e.one FROM r {LATEST}");
    let plan = Plan::of(&client, &elsewhere).await;
    assert_eq!(plan.told()[0], told("PENDING", "e", "create database"));
    let databases = value(&client, "SELECT count(*) FROM system.databases").await;
    assert_eq!(databases, "1");

    let data = server.repository().join("__starrocks_repository_r/data");
    std::fs::remove_file(&crate::consistency::files(&data)[0]).expect("removed");
    let plan = Plan::of(&client, &elsewhere).await;
    assert_eq!(plan.refusals(), ["XX001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_tells_what_others_do_not_need() {
    let server = TestServer::start().await;
    let client = with_tables(&server).await;
    for (label, objects) in [("both", "t, u"), ("only_u", "u")] {
        let backup = format!("BACKUP SNAPSHOT {label} TO r ON ({objects})");
        run(&client, &backup).await;
        assert_eq!(job_ends(&client, "d").await, "succeeded");
    }
    let plan = Plan::of(&client, "DROP SNAPSHOT both ON r").await;
    let of_t = "SELECT bytes FROM system.tables WHERE table_name = 't'";
    let of_t: i64 = value(&client, of_t).await.parse().expect("a number");
    assert_eq!(plan.number("later", BYTES), Some(of_t));
    run(&client, "DROP SNAPSHOT both ON r").await;
    let plan = Plan::of(&client, "PRUNE REPOSITORY r").await;
    assert_eq!(plan.number("DELETING", BYTES), Some(0), "they are young");
    let plan = Plan::of(&client, "VERIFY REPOSITORY r").await;
    let kinds: Vec<_> = plan.told().into_iter().map(|row| row.2).collect();
    assert!(kinds.contains(&"unreferenced".into()) && kinds.contains(&"checksum".into()));
}
