//! The history of jobs outlives the gateway: copies of journals in repositories, and their import.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Client;

use crate::support::{TestServer, connect, fails, job_ends, rows, run, until, value};

/// Waits for so many copies.
async fn copies(repository: &Path, count: usize) -> Vec<PathBuf> {
    let directory = repository.join("__starrocks_repository_r/__history");
    let found = || -> Vec<PathBuf> {
        fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect()
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while found().len() < count {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("the copies come");
    assert_eq!(found().len(), count);
    found()
}

async fn create(client: &Client, directory: &Path, properties: &str) {
    let location = directory.join("repository");
    run(
        client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\" {properties}",
            location.display()
        ),
    )
    .await;
}

async fn with_backup(client: &Client) {
    run(
        client,
        "CREATE DATABASE d; USE d; CREATE TABLE t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 2",
    )
    .await;
    run(client, "INSERT INTO t VALUES (1), (2)").await;
    run(client, "BACKUP SNAPSHOT wonder TO r").await;
    assert_eq!(job_ends(client, "d").await, "succeeded");
}

/// The columns of a job that have no number or name of this gateway's own.
const JOBS: &str = "SELECT kind, state, status, db_name, snapshot, requested_by, statement, created_at, finished_at, tasks_done, bytes_done, error_message
    FROM system.jobs WHERE status <> 'refused' ORDER BY created_at, kind";

#[tokio::test(flavor = "multi_thread")]
async fn history_is_imported_from_its_repository() {
    let server = TestServer::start().await;
    let client = server.client().await;
    create(&client, server.dir.path(), "").await;
    assert_eq!(fails(&client, "BACKUP SNAPSHOT s TO r").await.0, "3F000");
    with_backup(&client).await;
    run(&client, "VERIFY REPOSITORY r; WAIT FOR JOB 2").await;
    run(&client, "DROP SNAPSHOT wonder ON r").await;
    let found = copies(&server.repository(), 3).await;
    let before = rows(&client, JOBS).await;
    let events = value(&client, "SELECT count(*) FROM system.job_events").await;

    // A gateway that never saw the first one, and has jobs of its own by now.
    let other = TestServer::start().await;
    let second = other.client().await;
    create(&second, server.dir.path(), "").await;
    run(&second, "CREATE DATABASE d").await;
    fs::write(found[0].with_file_name("broken.json"), b"{\"format\":1}").expect("written");
    fs::write(found[0].with_file_name("later.json"), b"{\"format\":2}").expect("written");
    let (second, mut notices) = {
        drop(second);
        other.client_with_notices().await
    };
    run(&second, "IMPORT HISTORY FROM REPOSITORY r").await;
    let (severity, warning) = notices.recv().await.expect("a warning");
    assert_eq!(severity, "WARNING");
    assert!(
        warning.contains("2 of 5 copies were left out; the first is"),
        "{warning}"
    );
    let (_, notice) = notices.recv().await.expect("a notice");
    assert_eq!(notice, "3 jobs imported; 0 were known");
    assert_eq!(rows(&second, JOBS).await, before);
    assert_eq!(
        value(&second, "SELECT DISTINCT imported_from FROM system.jobs").await,
        "r"
    );
    assert_eq!(
        value(&second, "SELECT count(*) FROM system.job_events").await,
        events
    );
    assert_eq!(
        rows(&second, "SELECT snapshot, ok FROM system.verifications").await,
        [[Some("wonder".to_owned()), Some("t".to_owned())]]
    );
    // What another gateway has done is none of this one's last jobs.
    assert_eq!(rows(&second, "SHOW BACKUP FROM d").await.len(), 0);
    assert_eq!(
        value(&second, "SELECT count(*) FROM system.backup_jobs").await,
        "0"
    );
    // Once is enough, and what is new comes.
    run(&second, "IMPORT HISTORY FROM REPOSITORY r").await;
    assert_eq!(
        value(&second, "SELECT count(*) FROM system.jobs").await,
        "3"
    );
    run(&client, "BACKUP SNAPSHOT again TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    copies(&server.repository(), 6).await;
    run(&second, "IMPORT HISTORY FROM REPOSITORY r").await;
    assert_eq!(
        value(&second, "SELECT count(*) FROM system.jobs").await,
        "4"
    );
    // And the first one knows its own.
    run(&client, "IMPORT HISTORY FROM REPOSITORY r").await;
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM system.jobs WHERE imported_from IS NOT NULL"
        )
        .await,
        "0"
    );
    // A verification passes copies over.
    run(&client, "VERIFY REPOSITORY r LEVEL FILES").await;
    until(
        &client,
        "SELECT status FROM system.jobs ORDER BY job_id DESC LIMIT 1",
        "succeeded",
    )
    .await;
    let foreign = "SELECT count(*) FROM system.repository_findings WHERE kind = 'foreign'";
    assert_eq!(value(&client, foreign).await, "0");

    run(
        &second,
        "CREATE USER u IDENTIFIED BY 'p'; GRANT REPOSITORY ON SYSTEM TO USER u",
    )
    .await;
    let guest = connect(other.server.addr(), "u", "password=p")
        .await
        .expect("connects");
    let (code, _) = fails(&guest, "IMPORT HISTORY FROM REPOSITORY r").await;
    assert_eq!(code, "42501");
    let (code, _) = fails(&second, "IMPORT HISTORY FROM REPOSITORY nowhere").await;
    assert_eq!(code, "42704");
    other.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_encrypted_as_manifests_are() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let key = "7".repeat(64);
    let properties =
        format!("PROPERTIES (\"encryption\" = \"aes256-gcm\", \"encryption.key\" = \"{key}\")");
    create(&client, server.dir.path(), &properties).await;
    with_backup(&client).await;
    let [copy] = &copies(&server.repository(), 1).await[..] else {
        panic!("one job, one copy")
    };
    let bytes = fs::read(copy).expect("read");
    assert!(!bytes.windows(6).any(|w| w == b"wonder"));
    let other = TestServer::start().await;
    let second = other.client().await;
    create(&second, server.dir.path(), &properties).await;
    run(&second, "IMPORT HISTORY FROM REPOSITORY r").await;
    assert_eq!(
        value(&second, "SELECT snapshot FROM system.jobs").await,
        "wonder"
    );
    other.stop().await;
    server.stop().await;
}

/// What somebody has put there on purpose changes nothing but the WARNING.
#[tokio::test(flavor = "multi_thread")]
async fn crafted_copies_are_left_out() {
    let server = TestServer::start().await;
    let client = server.client().await;
    create(&client, server.dir.path(), "").await;
    with_backup(&client).await;
    run(&client, "VERIFY REPOSITORY r; WAIT FOR JOB 2").await;
    let found = copies(&server.repository(), 2).await;
    let texts: Vec<_> = found
        .iter()
        .map(|copy| fs::read_to_string(copy).expect("read"))
        .collect();
    let verify = texts
        .iter()
        .find(|t| t.contains("\"parts\":"))
        .expect("one");
    let backup = texts
        .iter()
        .find(|t| !t.contains("\"parts\":"))
        .expect("one");
    let directory = found[0].parent().expect("a directory").to_owned();
    let craft = |uid: &str, of: &str, changes: &[(&str, &str)]| {
        let start = of.find("\"uid\":\"").expect("a uid") + 7;
        let mut text = of.replace(&of[start..start + 36], uid);
        for (from, to) in changes {
            let at = text.find(from).expect("there");
            let end = at + text[at..].find([',', '}']).expect("a value");
            text.replace_range(at..end, &format!("{from}{to}"));
        }
        fs::write(directory.join(format!("{uid}.json")), text).expect("written");
    };
    craft("many-parts", verify, &[("\"parts\":", "4294967295")]);
    craft("later", backup, &[("\"created_at\":", "253402300800000")]);
    craft("earlier", backup, &[("\"created_at\":", "-1")]);
    craft("elsewhere", backup, &[]);
    fs::rename(
        directory.join("elsewhere.json"),
        directory.join("another.json"),
    )
    .expect("renamed");
    fs::create_dir(directory.join("below")).expect("made");
    fs::write(directory.join("below/many-parts.json"), b"{}").expect("written");
    let deep = "[".repeat(1 << 20);
    fs::write(directory.join("deep.json"), deep).expect("written");

    let other = TestServer::start().await;
    let (second, mut notices) = other.client_with_notices().await;
    create(&second, server.dir.path(), "").await;
    run(&second, "IMPORT HISTORY FROM REPOSITORY r").await;
    let (_, warning) = notices.recv().await.expect("a warning");
    assert!(warning.contains("5 of 7 copies were left out"), "{warning}");
    assert_eq!(
        value(&second, "SELECT count(*) FROM system.jobs").await,
        "2"
    );
    other.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_wait_for_storage_or_are_skipped() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_in(dir, |settings| settings.history_mirrored = false).await;
    let client = server.client().await;
    create(&client, server.dir.path(), "").await;
    with_backup(&client).await;
    drop(client);
    let dir = server.stop().await;
    let history = dir
        .path()
        .join("repository/__starrocks_repository_r/__history");
    assert!(!history.exists(), "the setting turns it off");
    // What is missing is made up for at a start.
    let server = TestServer::start_in(dir, |_| {}).await;
    copies(&server.repository(), 1).await;
    server.stop().await;
}
