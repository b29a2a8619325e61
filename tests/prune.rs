//! PRUNE: what no backup needs goes, and nothing else, whatever happens meanwhile.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use starkeep::env::{Clock, Env};
use starkeep::names::Timestamp;
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::support::{BUCKET, Fault, S3, TestServer, fails, job_ends, rows, run, until, value};

const LATEST: &str = "PROPERTIES (\"backup_timestamp\" = \"latest\")";
/// How long a mark stands before anything is deleted.
const WAIT: Duration = Duration::from_secs(600);

/// A clock on which that time is over when the test says so.
#[derive(Debug)]
struct Held(Arc<dyn Clock>, watch::Receiver<bool>, watch::Sender<usize>);

impl Clock for Held {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn ticks(&self) -> Duration {
        self.0.ticks()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration != WAIT {
            return self.0.sleep(duration);
        }
        let mut over = self.1.clone();
        self.2.send_modify(|begun| *begun += 1);
        Box::pin(async move {
            let _ = over.wait_for(|over| *over).await;
        })
    }
}

/// Whether that time is over, and how often somebody began to wait for it.
struct Wait {
    over: watch::Sender<bool>,
    begun: watch::Receiver<usize>,
}

impl Wait {
    fn set_over(&self, over: bool) {
        self.over.send_replace(over);
    }
}

async fn server() -> (TestServer, Wait) {
    let (over, is_over) = watch::channel(true);
    let (begins, begun) = watch::channel(0);
    let mut env = Env::system();
    env.clock = Arc::new(Held(env.clock.clone(), is_over, begins));
    let dir = tempfile::tempdir().expect("a directory");
    // Nothing but its own end ends what a stop waits for.
    let server = TestServer::start_with(dir, env, |s| s.drain_timeout_seconds = 3600).await;
    (server, Wait { over, begun })
}

/// Two tables, each backed up; then the first backup is dropped, and its files are two days old.
async fn with_leftovers(server: &TestServer) -> (Client, PathBuf) {
    let client = server.client().await;
    let location = server.repository();
    run(&client, "CREATE DATABASE d; USE d").await;
    for table in ["t", "u"] {
        run(
            &client,
            &format!("CREATE TABLE {table} (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 3"),
        )
        .await;
        run(
            &client,
            &format!("INSERT INTO {table} SELECT value FROM generate_series(1, 300)"),
        )
        .await;
    }
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            location.display()
        ),
    )
    .await;
    for table in ["t", "u"] {
        run(
            &client,
            &format!("BACKUP SNAPSHOT of_{table} TO r ON ({table})"),
        )
        .await;
        assert_eq!(job_ends(&client, "d").await, "succeeded");
    }
    run(&client, "DROP SNAPSHOT of_t ON r").await;
    let data = location.join("__starrocks_repository_r/data");
    age(&data, Duration::from_secs(2 * 24 * 3600));
    (client, data)
}

fn ago(time: Duration) -> SystemTime {
    let now = u64::try_from(Env::system().now().0).expect("after 1970");
    SystemTime::UNIX_EPOCH + Duration::from_millis(now) - time
}

/// Makes files as old as that.
pub fn age(data: &Path, time: Duration) {
    for file in crate::consistency::files(data) {
        let file = std::fs::File::options()
            .write(true)
            .open(file)
            .expect("opens");
        file.set_modified(ago(time)).expect("old by now");
    }
}

fn count(data: &Path) -> usize {
    crate::consistency::files(data).len()
}

async fn prune(client: &Client, statement: &str) {
    run(client, statement).await;
    let id = value(
        client,
        "SELECT max(job_id) FROM system.jobs WHERE kind = 'prune'",
    )
    .await;
    run(client, &format!("WAIT FOR JOB {id}")).await;
}

async fn outcomes(client: &Client) -> Vec<String> {
    let query = "SELECT outcome || ' ' || n FROM (
                     SELECT outcome, count(*) AS n FROM system.pruned_objects
                     WHERE job_id = (SELECT max(job_id) FROM system.jobs) GROUP BY outcome
                 ) AS o ORDER BY 1";
    rows(client, query)
        .await
        .into_iter()
        .filter_map(|mut row| row.remove(0))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_manifest_names_is_deleted() {
    let (server, _wait) = server().await;
    let (client, data) = with_leftovers(&server).await;
    assert_eq!(count(&data), 6);
    // Written just now: it may be of a backup that is under way.
    let young = data.join(format!("00/{}.parquet", "0".repeat(64)));
    std::fs::create_dir_all(data.join("00")).expect("made");
    std::fs::write(&young, "x").expect("written");
    // Left by servers that were killed while they tried the location, or wrote files.
    let left = |path: PathBuf, age: Duration| {
        std::fs::write(&path, "x").expect("written");
        let opened = std::fs::File::options().write(true).open(&path);
        opened
            .and_then(|f| f.set_modified(ago(age)))
            .expect("old by now");
        path
    };
    let hour = Duration::from_secs(3600);
    let probe = left(data.with_file_name("__probe_1"), hour);
    let of_data = left(data.join("00/.partial-1"), 48 * hour);
    let of_snapshot = left(
        data.with_file_name("__ss_of_u").join(".partial-2"),
        48 * hour,
    );
    let being_written = left(data.join("00/.partial-3"), hour);
    prune(&client, "PRUNE REPOSITORY r DRY RUN").await;
    assert_eq!(outcomes(&client).await, ["would be deleted 3"]);
    assert_eq!(count(&data), 9);
    assert!(probe.exists() && of_snapshot.exists());
    prune(&client, "PRUNE REPOSITORY r").await;
    assert!(!probe.exists() && !of_data.exists() && !of_snapshot.exists());
    assert!(being_written.exists());
    std::fs::remove_file(being_written).expect("removed");
    assert_eq!(outcomes(&client).await, ["deleted 3"]);
    assert_eq!(count(&data), 4);
    assert!(young.exists() && !data.with_file_name("__prune").exists());
    prune(&client, "PRUNE REPOSITORY r").await;
    assert_eq!(outcomes(&client).await, [""; 0]);
    run(
        &client,
        &format!("RESTORE SNAPSHOT of_u FROM r ON (u AS back) {LATEST}"),
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let jobs =
        "SELECT status, bytes_total > 0 FROM system.jobs WHERE kind = 'prune' ORDER BY job_id";
    assert_eq!(rows(&client, jobs).await.len(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_waits_for_readable_manifests() {
    let (server, _wait) = server().await;
    let (client, data) = with_leftovers(&server).await;
    let manifest = crate::consistency::files(&data.with_file_name("__ss_of_u")).remove(0);
    std::fs::write(&manifest, "{}").expect("written");
    run(&client, "PRUNE REPOSITORY r").await;
    let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    let (code, message) = fails(&client, &format!("WAIT FOR JOB {id}")).await;
    assert_eq!(code, "55000");
    assert!(
        message.contains("nothing is pruned while a manifest does not read"),
        "{message}"
    );
    assert_eq!(count(&data), 6);
    for (statement, code) in [
        ("PRUNE REPOSITORY nope", "42704"),
        (
            "PRUNE REPOSITORY r PROPERTIES (\"grace\" = \"soon\")",
            "22023",
        ),
        (
            "PRUNE REPOSITORY r PROPERTIES (\"grace\" = \"9 SECOND\")",
            "22023",
        ),
        (
            "PRUNE REPOSITORY r PROPERTIES (\"wait\" = \"soon\")",
            "22023",
        ),
        (
            "PRUNE REPOSITORY r PROPERTIES (\"wait\" = \"7 HOUR\")",
            "22023",
        ),
        (
            "PRUNE REPOSITORY r PROPERTIES (\"graze\" = \"1 DAY\")",
            "22023",
        ),
    ] {
        assert_eq!(fails(&client, statement).await.0, code, "{statement}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_brings_pruned_files_again() {
    let (server, wait) = server().await;
    let (client, data) = with_leftovers(&server).await;
    wait.set_over(false);
    run(&client, "PRUNE REPOSITORY r").await;
    until(
        &client,
        "SELECT state FROM system.jobs ORDER BY job_id DESC LIMIT 1",
        "WAITING",
    )
    .await;
    assert!(data.with_file_name("__prune").exists());
    assert_eq!(fails(&client, "PRUNE REPOSITORY r").await.0, "55006");
    // Its files are there, and are about to go: its manifest waits.
    run(&client, "BACKUP SNAPSHOT again TO r ON (t)").await;
    let waits = "SELECT block_reason LIKE '%about to be pruned%' FROM system.jobs
                 WHERE snapshot = 'again'";
    until(&client, waits, "t").await;
    assert_eq!(count(&data), 6);
    wait.set_over(true);
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let pruned = "SELECT status FROM system.jobs WHERE kind = 'prune' AND state IS NOT NULL";
    until(&client, pruned, "succeeded").await;
    assert_eq!(count(&data), 6);
    run(
        &client,
        &format!("RESTORE SNAPSHOT again FROM r ON (t AS back) {LATEST}"),
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_prune_takes_its_mark_away() {
    let (server, wait) = server().await;
    let (client, data) = with_leftovers(&server).await;
    wait.set_over(false);
    run(&client, "PRUNE REPOSITORY r").await;
    until(
        &client,
        "SELECT state FROM system.jobs ORDER BY job_id DESC LIMIT 1",
        "WAITING",
    )
    .await;
    let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    run(&client, &format!("CANCEL JOB {id}")).await;
    let unmarked = "SELECT count(*) FROM system.job_events WHERE event LIKE '%unmarked%'";
    until(&client, unmarked, "1").await;
    assert!(!data.with_file_name("__prune").exists());
    assert_eq!(count(&data), 6);
    server.stop().await;
}

/// A table backed up as `s` into a bucket, its files a minute old; where they are.
async fn backed_up_to(s3: &S3, server: &TestServer) -> (Client, PathBuf) {
    let client = server.client().await;
    run(
        &client,
        "CREATE DATABASE d; USE d; CREATE TABLE t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 2",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT value FROM generate_series(1, 100)",
    )
    .await;
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/p\" PROPERTIES ({})",
        s3.properties()
    );
    run(&client, &create).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let data = s3.root.join(BUCKET).join("p/__starrocks_repository_r/data");
    age(&data, Duration::from_secs(60));
    (client, data)
}

const SOON: &str = "PRUNE REPOSITORY r PROPERTIES (\"grace\" = \"10 SECOND\")";

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_pruned() {
    let s3 = S3::start().await;
    let (server, _wait) = server().await;
    let (client, data) = backed_up_to(&s3, &server).await;
    run(&client, "DROP SNAPSHOT s ON r").await;
    prune(&client, SOON).await;
    assert_eq!(outcomes(&client).await, ["deleted 2"]);
    assert_eq!(count(&data), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_missing_manifest_stops_prune() {
    let lost = Arc::new(AtomicBool::new(false));
    let is_lost = lost.clone();
    let s3 = S3::misbehaving(Arc::new(move |method, path| {
        let is_manifest = method == "GET" && path.contains("/__info_");
        if is_manifest && is_lost.load(Ordering::Relaxed) {
            Fault::Refuse(404, "NoSuchKey")
        } else {
            Fault::None
        }
    }))
    .await;
    let (server, _wait) = server().await;
    let (client, data) = backed_up_to(&s3, &server).await;
    lost.store(true, Ordering::Relaxed);
    run(&client, SOON).await;
    let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    assert_eq!(
        fails(&client, &format!("WAIT FOR JOB {id}")).await.0,
        "55000"
    );
    assert_eq!(count(&data), 2);
    run(&client, "VERIFY REPOSITORY r LEVEL FILES").await;
    let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    run(&client, &format!("WAIT FOR JOB {id}")).await;
    let found = "SELECT kind FROM system.repository_findings WHERE severity = 'error'";
    assert_eq!(value(&client, found).await, "missing");
    assert_eq!(
        value(&client, "SELECT ok FROM system.verifications").await,
        "f"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_marks() {
    let refusing = Arc::new(AtomicBool::new(false));
    let refuses = refusing.clone();
    let s3 = S3::misbehaving(Arc::new(move |method, path| {
        let is_deletion = method == "POST" && path.contains("delete");
        if is_deletion && refuses.load(Ordering::Relaxed) {
            Fault::Refuse(403, "AccessDenied")
        } else {
            Fault::None
        }
    }))
    .await;
    let (server, mut wait) = server().await;
    let (client, data) = backed_up_to(&s3, &server).await;
    run(&client, "DROP SNAPSHOT s ON r").await;
    wait.set_over(false);
    run(&client, SOON).await;
    wait.begun
        .wait_for(|begun| *begun == 1)
        .await
        .expect("the mark stands");
    refusing.store(true, Ordering::Relaxed);
    wait.set_over(true);
    until(
        &client,
        "SELECT state FROM system.jobs ORDER BY job_id DESC LIMIT 1",
        "DELETING",
    )
    .await;
    wait.set_over(false);
    let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    run(&client, &format!("CANCEL JOB {id}")).await;
    // A deletion may be on its way, so the mark stands for as long again.
    wait.begun
        .wait_for(|begun| *begun == 2)
        .await
        .expect("the mark still stands");
    assert!(data.with_file_name("__prune").exists());
    let stopped = tokio::time::timeout(Duration::from_secs(20), server.stop()).await;
    assert!(stopped.is_ok(), "the server waits for the mark");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_prune_can_be_forced() {
    let data = Arc::new(OnceLock::<PathBuf>::new());
    let deleted = data.clone();
    let s3 = S3::misbehaving(Arc::new(move |method, path| {
        let is_deletion = method == "POST" && path.contains("delete");
        if is_deletion && deleted.get().is_some_and(|data| count(data) == 0) {
            Fault::Refuse(403, "AccessDenied")
        } else {
            Fault::None
        }
    }))
    .await;
    let (server, _wait) = server().await;
    let (client, directory) = backed_up_to(&s3, &server).await;
    run(&client, "DROP SNAPSHOT s ON r").await;
    data.set(directory.clone()).expect("set once");
    run(&client, SOON).await;
    let state = "SELECT state FROM system.jobs WHERE kind = 'prune'";
    until(&client, state, "CLEANING").await;
    let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    assert_eq!(fails(&client, &format!("CANCEL JOB {id}")).await.0, "55000");
    assert_eq!(fails(&client, "DROP REPOSITORY r").await.0, "55006");
    run(&client, &format!("CANCEL JOB {id} FORCE")).await;
    until(&client, state, "FINISHED").await;
    assert_eq!(outcomes(&client).await, ["deleted 2"]);
    let event = "SELECT detail FROM system.job_events ORDER BY job_id DESC, seq DESC LIMIT 1";
    assert_eq!(
        value(&client, event).await,
        "left the announcement where it is; it is heeded for a day at most"
    );
    assert!(directory.with_file_name("__prune").exists());
    run(&client, "DROP REPOSITORY r").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_prune_marks_are_ignored() {
    let (server, _wait) = server().await;
    let (client, data) = with_leftovers(&server).await;
    let mark = data.with_file_name("__prune");
    let files = crate::consistency::files(&data);
    let files: Vec<_> = files
        .iter()
        .filter_map(|path| path.file_stem()?.to_str())
        .collect();
    let body = serde_json::json!(
        {"format": 1, "job_uid": "another", "created_at": 0, "files": files}
    );
    let put = |body: &str, age: Duration| {
        std::fs::write(&mark, body).expect("written");
        let opened = std::fs::File::options().write(true).open(&mark);
        opened
            .and_then(|f| f.set_modified(ago(age)))
            .expect("so old");
    };
    let day = Duration::from_secs(24 * 3600);
    // Somebody prunes: a backup of those files waits, and can be cancelled meanwhile.
    put(&body.to_string(), day / 24);
    run(&client, "BACKUP SNAPSHOT waits TO r ON (t)").await;
    let waits = "SELECT CASE WHEN block_reason LIKE '%about to be pruned%' THEN state END
                 FROM system.jobs WHERE snapshot = 'waits'";
    until(&client, waits, "SAVE_META").await;
    run(&client, "CANCEL BACKUP FROM d").await;
    assert_eq!(job_ends(&client, "d").await, "cancelled");
    // Whoever put it has died, or what was put does not read.
    for (n, body) in [body.to_string().as_str(), "{"].into_iter().enumerate() {
        put(body, day + day / 24);
        run(&client, &format!("BACKUP SNAPSHOT after{n} TO r ON (t)")).await;
        assert_eq!(job_ends(&client, "d").await, "succeeded", "{body}");
        let refusals = rows(&client, "EXPLAIN PRUNE REPOSITORY r").await;
        let refused = |row: &Vec<Option<String>>| row.iter().flatten().any(|v| v == "error");
        assert!(!refusals.iter().any(refused), "{refusals:?}");
        run(&client, &format!("DROP SNAPSHOT after{n} ON r")).await;
        age(&data, 2 * day);
        put(body, day + day / 24);
        prune(&client, "PRUNE REPOSITORY r").await;
        assert!(!mark.exists());
        assert_eq!(outcomes(&client).await, ["deleted 3"]);
    }
    server.stop().await;
}

/// The leases in a repository.
fn leases(data: &Path) -> Vec<PathBuf> {
    let directory = data.with_file_name("__leases");
    if directory.exists() {
        crate::consistency::files(&directory)
    } else {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_its_files_from_other_gateways() {
    let reader = TestServer::start().await;
    let client = reader.client().await;
    let location = reader.repository();
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
        location.display()
    );
    run(
        &client,
        "CREATE DATABASE d; USE d; CREATE TABLE t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 3",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT value FROM generate_series(1, 300)",
    )
    .await;
    run(&client, &create).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let data = location.join("__starrocks_repository_r/data");
    age(&data, Duration::from_secs(2 * 24 * 3600));
    let slow = "RESTORE SNAPSHOT s FROM r ON (t AS back) PROPERTIES (\"backup_timestamp\" = \"latest\", \"max_bytes_per_second\" = \"1\")";
    run(&client, slow).await;
    let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    let state = format!("SELECT state FROM system.jobs WHERE job_id = {id}");
    until(&client, &state, "DOWNLOADING").await;
    assert_eq!(leases(&data).len(), 1);

    let (pruner, _wait) = server().await;
    let other = pruner.client().await;
    run(&other, &create).await;
    run(&other, "DROP SNAPSHOT s ON r FORCE").await;
    prune(&other, "PRUNE REPOSITORY r").await;
    assert_eq!(outcomes(&other).await, [""; 0]);
    assert_eq!(count(&data), 3);

    // Whoever takes the job up again names its files again.
    let dir = reader.stop().await;
    std::fs::remove_file(&leases(&data)[0]).expect("removed");
    let reader = TestServer::start_in(dir, |_| {}).await;
    let client = reader.client().await;
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while leases(&data).is_empty() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("a lease");
    prune(&other, "PRUNE REPOSITORY r").await;
    assert_eq!(outcomes(&other).await, [""; 0]);

    let faster = format!("ALTER JOB {id} SET (\"max_bytes_per_second\" = \"0\")");
    run(&client, &faster).await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let sum = "SELECT count(*) || ' ' || sum(a) FROM d.back";
    assert_eq!(value(&client, sum).await, "300 45150");
    let released = format!(
        "SELECT count(*) FROM system.job_events WHERE job_id = {id} AND event LIKE '%released%'"
    );
    until(&client, &released, "1").await;
    assert!(leases(&data).is_empty());
    prune(&other, "PRUNE REPOSITORY r").await;
    assert_eq!(outcomes(&other).await, ["deleted 3"]);
    pruner.stop().await;
    reader.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_after_a_day_and_are_read_until_then() {
    let (server, _wait) = server().await;
    let (client, data) = with_leftovers(&server).await;
    let lease = data.with_file_name("__leases").join("another.json");
    std::fs::create_dir_all(data.with_file_name("__leases")).expect("made");
    let files: Vec<_> = crate::consistency::files(&data)
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    let whole = serde_json::json!({"format": 1, "job_uid": "another", "files": files}).to_string();
    let newer = serde_json::json!({"format": 2, "job_uid": "another", "files": files}).to_string();
    let put = |body: &str, age: Duration| {
        std::fs::write(&lease, body).expect("written");
        let opened = std::fs::File::options().write(true).open(&lease);
        opened
            .and_then(|f| f.set_modified(ago(age)))
            .expect("so old");
    };
    let hour = Duration::from_secs(3600);
    put(&whole, 23 * hour);
    prune(&client, "PRUNE REPOSITORY r").await;
    assert_eq!(outcomes(&client).await, [""; 0]);
    for unreadable in ["{", newer.as_str()] {
        put(unreadable, 23 * hour);
        run(&client, "PRUNE REPOSITORY r").await;
        let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
        let (code, message) = fails(&client, &format!("WAIT FOR JOB {id}")).await;
        assert_eq!(code, "55000");
        assert!(message.contains("while a lease does not read"), "{message}");
    }
    // A repository has such objects.
    run(&client, "VERIFY REPOSITORY r LEVEL FILES").await;
    let id = value(&client, "SELECT max(job_id) FROM system.jobs").await;
    run(&client, &format!("WAIT FOR JOB {id}")).await;
    let foreign = "SELECT count(*) FROM system.repository_findings WHERE kind = 'foreign'";
    assert_eq!(value(&client, foreign).await, "0");
    put("{", 25 * hour);
    prune(&client, "PRUNE REPOSITORY r").await;
    assert_eq!(outcomes(&client).await, ["deleted 3"]);
    assert!(!lease.exists());
    server.stop().await;
}
