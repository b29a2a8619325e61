//! Object stores that misbehave: what they do once is ridden out, what they cannot do is told.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use starkeep::env::{Clock, Env};
use starkeep::names::Timestamp;
use tokio_postgres::Client;

use crate::support::{
    BUCKET, Fault, Misbehaviour, S3, TestServer, fails, job_ends, rows, run, until, value,
};

const LATEST: &str = "PROPERTIES (\"backup_timestamp\" = \"latest\")";

fn create(s3: &S3, name: &str, more: &str) -> String {
    format!(
        "CREATE REPOSITORY {name} WITH BROKER ON LOCATION \"s3://{BUCKET}/p\" PROPERTIES ({}{more})",
        s3.properties()
    )
}

async fn with_table(client: &Client) {
    run(client, "CREATE DATABASE d; USE d").await;
    run(
        client,
        "CREATE TABLE t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 4",
    )
    .await;
    run(
        client,
        "INSERT INTO t SELECT value FROM generate_series(1, 1000)",
    )
    .await;
}

/// Does something to the first request of each path that a condition picks.
fn once(fault: Fault, picks: fn(&str, &str) -> bool) -> Misbehaviour {
    let met = Mutex::new(HashSet::new());
    Arc::new(move |method, path| {
        if picks(method, path) && met.lock().insert(path.to_owned()) {
            fault
        } else {
            Fault::None
        }
    })
}

fn reads_data(method: &str, path: &str) -> bool {
    method == "GET" && path.contains("/data/")
}

fn writes_data(method: &str, path: &str) -> bool {
    method == "PUT" && path.contains("/data/")
}

async fn round_trip(client: &Client) {
    run(client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(client, "d").await, "succeeded");
    run(
        client,
        &format!("RESTORE SNAPSHOT s FROM r ON (t AS back) {LATEST}"),
    )
    .await;
    let status = job_ends(client, "d").await;
    let why = value(
        client,
        "SELECT error_message FROM system.jobs ORDER BY job_id DESC LIMIT 1",
    );
    assert_eq!(status, "succeeded", "{}", why.await);
    assert_eq!(
        value(client, "SELECT count(DISTINCT a) FROM back").await,
        "1000"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_answer_ends_no_job() {
    for (fault, picks) in [
        (Fault::Truncate, reads_data as fn(&str, &str) -> bool),
        (Fault::Flip, reads_data),
        (Fault::Refuse(404, "NoSuchKey"), reads_data),
        (Fault::Refuse(404, "NoSuchBucket"), writes_data),
        (
            Fault::Refuse(409, "ConditionalRequestConflict"),
            writes_data,
        ),
        (Fault::Refuse(403, "AccessDenied"), writes_data),
        (Fault::Refuse(503, "SlowDown"), writes_data),
        (Fault::Refuse(429, "TooManyRequests"), writes_data),
        (Fault::Refuse(429, "TooManyRequests"), reads_data),
        (Fault::Refuse(500, "InternalError"), reads_data),
        (Fault::Cut, reads_data),
        (Fault::HangUp, reads_data),
        (Fault::HangUp, writes_data),
    ] {
        let s3 = S3::misbehaving(once(fault, picks)).await;
        let server = TestServer::start().await;
        let client = server.client().await;
        with_table(&client).await;
        run(&client, &create(&s3, "r", "")).await;
        round_trip(&client).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_must_put_on_condition_or_say_so() {
    for fault in [Fault::Overwrite, Fault::Refuse(501, "NotImplemented")] {
        let s3 = S3::misbehaving(Arc::new(move |method, path| {
            // 501 is told of the condition alone: a put without one carries no such header.
            let refuses =
                fault != Fault::Overwrite && path.contains("__probe_") && !path.contains('?');
            if method == "PUT" && (refuses || fault == Fault::Overwrite) {
                fault
            } else {
                Fault::None
            }
        }))
        .await;
        let server = TestServer::start().await;
        let client = server.client().await;
        let Err(error) = client.batch_execute(&create(&s3, "r", "")).await else {
            panic!("{fault:?}: accepted")
        };
        let hint = error
            .as_db_error()
            .and_then(|e| e.hint())
            .unwrap_or_default()
            .to_owned();
        assert!(
            hint.contains("\"conditional_put\" = \"false\""),
            "{fault:?}: {error:?}"
        );
        server.stop().await;
    }
    let s3 = S3::misbehaving(Arc::new(|method, _| {
        if method == "PUT" {
            Fault::Overwrite
        } else {
            Fault::None
        }
    }))
    .await;
    let server = TestServer::start().await;
    let client = server.client().await;
    with_table(&client).await;
    run(
        &client,
        &create(&s3, "r", ", \"conditional_put\" = \"false\""),
    )
    .await;
    round_trip(&client).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named() {
    for (method, part, right) in [
        ("PUT", "__probe_", "s3:PutObject"),
        ("GET", "__probe_", "s3:GetObject"),
        ("GET", "list-type", "s3:ListBucket"),
        ("POST", "uploads", "s3:PutObject"),
        ("POST", "delete", "s3:DeleteObject"),
    ] {
        let s3 = S3::misbehaving(Arc::new(move |asked, path| {
            if asked == method && path.contains(part) {
                Fault::Refuse(403, "AccessDenied")
            } else {
                Fault::None
            }
        }))
        .await;
        let server = TestServer::start().await;
        let client = server.client().await;
        let error = client
            .batch_execute(&create(&s3, "r", ""))
            .await
            .expect_err(right);
        let error = error.as_db_error().expect("told by the server");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains(right), "{right}: {} {hint}", error.message());
        assert_eq!(error.code().code(), "58030", "{right}");
        server.stop().await;
    }
}

/// A clock whose pauses never end.
#[derive(Debug)]
struct Sleepless(Arc<dyn Clock>);

impl Clock for Sleepless {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn ticks(&self) -> Duration {
        self.0.ticks()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_properties_wake_a_job_that_waits() {
    let refusing = Arc::new(AtomicBool::new(false));
    let refuses = refusing.clone();
    let s3 = S3::misbehaving(Arc::new(move |method, path| {
        if refuses.load(Ordering::Relaxed) && writes_data(method, path) {
            Fault::Refuse(403, "AccessDenied")
        } else {
            Fault::None
        }
    }))
    .await;
    // No pause ends by itself: only ALTER ends it.
    let mut env = Env::system();
    env.clock = Arc::new(Sleepless(env.clock.clone()));
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_with(dir, env, |_| {}).await;
    let client = server.client().await;
    with_table(&client).await;
    run(&client, &create(&s3, "r", "")).await;
    refusing.store(true, Ordering::Relaxed);
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    let told = "SELECT task_err_msg LIKE '%AccessDenied%' FROM system.backup_jobs";
    until(&client, told, "t").await;
    refusing.store(false, Ordering::Relaxed);
    // Properties that make no location change nothing.
    let wrong = "ALTER REPOSITORY r SET PROPERTIES (\"aws.s3.access_key\" = \"alone\")";
    assert_eq!(fails(&client, wrong).await.0, "22023");
    let kept = "SELECT error IS NULL FROM system.repositories";
    assert_eq!(value(&client, kept).await, "t");
    run(
        &client,
        &format!("ALTER REPOSITORY r SET PROPERTIES ({})", s3.properties()),
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_connection_failed_is_told() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let s3 = S3::start().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = closed.local_addr().expect("an address").to_string();
    drop(closed);
    for (endpoint, reason) in [
        (format!("http://{addr}"), "Connection refused"),
        (format!("https://{}", s3.addr), "it does not speak TLS"),
        ("http://no-such-host.invalid:9".to_owned(), "lookup"),
    ] {
        let elsewhere = create(&s3, "r", "").replace(&format!("http://{}", s3.addr), &endpoint);
        let (code, message) = fails(&client, &elsewhere).await;
        assert_eq!(code, "58030", "{endpoint}");
        assert!(message.contains(reason), "{endpoint}: {message}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own_is_trusted_when_named() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let (s3, pem) = S3::over_tls().await;
    let create = |more: &str| create(&s3, "r", more).replace("http://", "https://");
    let (code, message) = fails(&client, &create("")).await;
    assert_eq!(code, "58030");
    assert!(message.contains("certificate"), "{message}");
    let file = server.dir.path().join("ca.pem");
    std::fs::write(&file, &pem).expect("written");
    for authority in [pem, file.display().to_string()] {
        run(&client, &create(&format!(", \"ssl.ca\" = \"{authority}\""))).await;
        run(&client, "DROP REPOSITORY r").await;
    }
    for (wrong, why) in [("nonsense", "ssl.ca"), ("/nope.pem", "/nope.pem")] {
        let (_, message) = fails(&client, &create(&format!(", \"ssl.ca\" = \"{wrong}\""))).await;
        assert!(message.contains(why), "{wrong}: {message}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_nothing_reads_are_named() {
    let server = TestServer::start().await;
    let (client, mut notices) = server.client_with_notices().await;
    let s3 = S3::start().await;
    run(&client, &create(&s3, "r", ", \"aws.s3.acess_key\" = \"x\"")).await;
    let (severity, message) = notices.recv().await.expect("a notice");
    assert_eq!(severity, "WARNING");
    assert!(message.contains("\"aws.s3.acess_key\""), "{message}");
    for key in [
        "aws.s3.iam_role_arn",
        "gcp.gcs.impersonation_service_account",
    ] {
        let more = format!(", \"{key}\" = \"x\"");
        let (code, message) = fails(&client, &create(&s3, "q", &more)).await;
        assert_eq!(code, "0A000");
        assert!(message.contains(key), "{message}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_without_bulk_deletes_are_used() {
    // Not S3's own way, but that of what only looks like it.
    let s3 = S3::misbehaving(Arc::new(|method, path| {
        if method == "POST" && path.contains("?delete") {
            Fault::Refuse(501, "NotImplemented")
        } else {
            Fault::None
        }
    }))
    .await;
    let server = TestServer::start().await;
    let client = server.client().await;
    with_table(&client).await;
    run(&client, &create(&s3, "r", "")).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    run(&client, "DROP SNAPSHOT s ON r").await;
    let snapshots = "SELECT count(*) FROM system.snapshots WHERE repository = 'r'";
    assert_eq!(value(&client, snapshots).await, "0");
    let left = crate::consistency::files(&s3.root.join(BUCKET));
    let probes = left
        .iter()
        .filter(|file| file.to_string_lossy().contains("__probe_"));
    assert_eq!(probes.count(), 0, "{left:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_believed_only_where_something_stands() {
    let is_small = |method: &str, path: &str| {
        method == "PUT" && (path.contains("__probe_") || path.contains("__history"))
    };
    let s3 = S3::misbehaving(once(
        Fault::Refuse(409, "ConditionalRequestConflict"),
        is_small,
    ))
    .await;
    let server = TestServer::start().await;
    let client = server.client().await;
    with_table(&client).await;
    run(&client, &create(&s3, "r", "")).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let copies = || {
        let files = crate::consistency::files(&s3.root.join(BUCKET));
        let is_copy = |file: &&std::path::PathBuf| file.to_string_lossy().contains("__history");
        files.iter().filter(is_copy).count()
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while copies() == 0 {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("the journal is copied");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_refusals_give_advice() {
    for (status, code, hint) in [
        (400, "ExpiredToken", "session token has expired"),
        (400, "AuthorizationHeaderMalformed", "another region"),
        (403, "RequestTimeTooSkewed", "clock of this machine"),
    ] {
        let s3 = S3::misbehaving(Arc::new(move |_, _| Fault::Refuse(status, code))).await;
        let server = TestServer::start().await;
        let client = server.client().await;
        let error = client.batch_execute(&create(&s3, "r", "")).await;
        let error = error.expect_err("refused");
        let told = error.as_db_error().expect("told");
        let given = told.hint().unwrap_or_default();
        assert!(given.contains(hint), "{code}: {given} ({})", told.message());
        server.stop().await;
    }
}

/// Few files in many directories are looked for together.
#[tokio::test(flavor = "multi_thread")]
async fn many_directories_take_few_listings() {
    let listed = Arc::new(AtomicUsize::new(0));
    let listings = listed.clone();
    let s3 = S3::misbehaving(Arc::new(move |method, path| {
        if method == "GET" && path.contains("list-type=2") && path.contains("data") {
            listings.fetch_add(1, Ordering::Relaxed);
        }
        Fault::None
    }))
    .await;
    let server = TestServer::start().await;
    let client = server.client().await;
    run(
        &client,
        "CREATE DATABASE d; USE d;
         CREATE TABLE t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 40;
         INSERT INTO t SELECT value FROM generate_series(1, 1000)",
    )
    .await;
    run(&client, &create(&s3, "r", "")).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    // Before the manifest is fixed, before it is put, and after it.
    assert_eq!(listed.swap(0, Ordering::Relaxed), 3);
    run(&client, "VERIFY SNAPSHOT s ON r").await;
    run(&client, "WAIT FOR JOB 2").await;
    let checked = "SELECT files_checked, ok FROM system.verifications WHERE job_id = 2";
    assert_eq!(
        rows(&client, checked).await,
        [[Some("40".to_owned()), Some("t".to_owned())]]
    );
    assert_eq!(listed.load(Ordering::Relaxed), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_hangs_holds_up_no_statement() {
    let hanging = Arc::new(AtomicBool::new(false));
    let hangs = hanging.clone();
    let s3 = S3::misbehaving(Arc::new(move |_, _| {
        if hangs.load(Ordering::Relaxed) {
            Fault::Hang
        } else {
            Fault::None
        }
    }))
    .await;
    let server = TestServer::start().await;
    let client = server.client().await;
    with_table(&client).await;
    run(&client, &create(&s3, "r", "")).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    hanging.store(true, Ordering::Relaxed);
    run(&client, "SET statement_timeout = 300").await;
    let restore = format!("RESTORE SNAPSHOT s FROM r ON (t AS back) {LATEST}");
    for statement in [
        "SHOW SNAPSHOT ON r",
        "SELECT * FROM system.snapshots",
        "SELECT * FROM system.snapshot_files",
        &restore,
        &format!("EXPLAIN {restore}"),
        "EXPLAIN BACKUP SNAPSHOT other TO r",
        "BACKUP SNAPSHOT s TO r",
        "EXPLAIN PRUNE REPOSITORY r",
        "IMPORT HISTORY FROM REPOSITORY r",
        &create(&s3, "q", ""),
        &format!("ALTER REPOSITORY r SET PROPERTIES ({})", s3.properties()),
    ] {
        assert_eq!(fails(&client, statement).await.0, "57014", "{statement}");
    }
    // Who cancels is heard as well.
    let waiting = server.client().await;
    let cancel = waiting.cancel_token();
    let asked = fails(&waiting, "SHOW SNAPSHOT ON r");
    let cancelled = async {
        // It may come before the statement does.
        loop {
            let _ = cancel.cancel_query(tokio_postgres::NoTls).await;
            tokio::task::yield_now().await;
        }
    };
    let (code, _) = tokio::select! {
        told = asked => told,
        () = cancelled => unreachable!("it goes on for ever"),
    };
    assert_eq!(code, "57014");
    hanging.store(false, Ordering::Relaxed);
    // A request that is still on its way ends statements of the session it is for.
    let client = server.client().await;
    run(&client, "USE d").await;
    round_trip_again(&client).await;
    server.stop().await;
}

/// After what went wrong everything works.
async fn round_trip_again(client: &Client) {
    run(
        client,
        &format!("RESTORE SNAPSHOT s FROM r ON (t AS back) {LATEST}"),
    )
    .await;
    assert_eq!(job_ends(client, "d").await, "succeeded");
}
