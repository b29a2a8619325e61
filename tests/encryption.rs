//! Encrypted repositories: nothing in them tells what they hold, and everything works on them as on
//! any other.

use std::path::Path;

use tokio_postgres::Client;

use crate::support::{BUCKET, S3, TestServer, fails, job_ends, rows, run, value};

const LATEST: &str = "PROPERTIES (\"backup_timestamp\" = \"latest\")";

fn key(digit: char) -> String {
    let key: String = std::iter::repeat_n(digit, 64).collect();
    format!("\"encryption\" = \"aes256-gcm\", \"encryption.key\" = \"{key}\"")
}

async fn with_table(client: &Client) {
    run(client, "CREATE DATABASE secret_base; USE secret_base").await;
    // One of its files goes in parts.
    run(
        client,
        "CREATE TABLE secret_table (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 1",
    )
    .await;
    run(
        client,
        "INSERT INTO secret_table SELECT value, encode(sha512(concat('x', value)), 'hex') FROM generate_series(1, 300000)",
    )
    .await;
    let in_parts = "SELECT bytes > 17000000 FROM system.tables WHERE table_name = 'secret_table'";
    assert_eq!(value(client, in_parts).await, "t");
    run(client, "INSERT INTO secret_table VALUES (0, 'secret row')").await;
}

/// What must not be readable in a repository: names, texts, and the mark of Parquet.
fn assert_tells_nothing(root: &Path) {
    let files = crate::consistency::files(root);
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let name = file
            .strip_prefix(root)
            .expect("below")
            .to_string_lossy()
            .into_owned();
        let bytes = std::fs::read(&file).expect("a file");
        for word in ["secret", "nightly"] {
            let stands = bytes.windows(word.len()).any(|w| w == word.as_bytes());
            assert!(!stands && !name.contains(word), "{word} stands in {name}");
        }
        // In between the four letters come by chance, once in some thousand megabytes.
        let is_parquet = bytes.starts_with(b"PAR1") || bytes.ends_with(b"PAR1");
        assert!(!is_parquet, "{name} is told as Parquet");
    }
}

async fn backup(client: &Client, label: &str) {
    run(client, &format!("BACKUP SNAPSHOT secret_base.{label} TO r")).await;
    assert_eq!(job_ends(client, "secret_base").await, "succeeded");
}

async fn ends(client: &Client, statement: &str) {
    run(client, statement).await;
    let id = value(
        client,
        "SELECT max(job_id) FROM system.jobs WHERE kind <> 'restore'",
    )
    .await;
    run(client, &format!("WAIT FOR JOB {id}")).await;
}

/// Everything that can be done with a repository, in one that is in this place.
async fn play(location: &str, properties: &str, root: &Path) {
    let server = TestServer::start().await;
    let client = server.client().await;
    with_table(&client).await;
    let create = |key: &str| {
        let more = if properties.is_empty() {
            String::new()
        } else {
            format!("{properties}, ")
        };
        format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{location}\" PROPERTIES ({more}{key})"
        )
    };
    run(&client, &create(&key('1'))).await;
    backup(&client, "nightly_1").await;
    assert_tells_nothing(root);
    // What has not changed is not moved again.
    run(&client, "INSERT INTO secret_table VALUES (-1, 'more')").await;
    let plan = rows(
        &client,
        "EXPLAIN BACKUP SNAPSHOT secret_base.nightly_2 TO r",
    )
    .await;
    let foretold = plan.last().expect("a total")[7].clone().expect("bytes");
    backup(&client, "nightly_2").await;
    let moved = "SELECT bytes_new, bytes_new * 20 < bytes_total FROM system.jobs ORDER BY job_id DESC LIMIT 1";
    let moved: Vec<_> = rows(&client, moved)
        .await
        .remove(0)
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(moved, [foretold.as_str(), "t"]);
    ends(&client, "VERIFY REPOSITORY r LEVEL RESTORE").await;
    let verdicts = "SELECT string_agg(snapshot || ' ' || ok, ', ' ORDER BY snapshot) FROM system.verifications";
    assert_eq!(
        value(&client, verdicts).await,
        "nightly_1 true, nightly_2 true"
    );

    // The place and the key are enough.
    let other = TestServer::start().await;
    let reader = other.client().await;
    let stranger = fails(&reader, &create("\"broker.unused\" = \"1\"")).await;
    assert_eq!(stranger.0, "28000", "{}", stranger.1);
    assert_eq!(fails(&reader, &create(&key('2'))).await.0, "28000");
    run(&reader, &create(&key('1'))).await;
    let snapshots = "SELECT string_agg(snapshot, ' ' ORDER BY snapshot) FROM system.snapshots";
    assert_eq!(value(&reader, snapshots).await, "nightly_1 nightly_2");
    run(
        &reader,
        &format!("RESTORE SNAPSHOT nightly_2 FROM r {LATEST}"),
    )
    .await;
    assert_eq!(job_ends(&reader, "secret_base").await, "succeeded");
    let sum = "SELECT count(*) || ' ' || sum(a) || ' ' || count(DISTINCT b) FROM secret_base.secret_table";
    assert_eq!(value(&reader, sum).await, value(&client, sum).await);

    // Another key: who has the old one is told so, until the new one is given.
    let rotate = format!(
        "ALTER REPOSITORY r SET PROPERTIES (\"encryption.key\" = \"{}\")",
        "3".repeat(64)
    );
    run(&client, &rotate).await;
    backup(&client, "nightly_3").await;
    let (code, message) = fails(
        &reader,
        &format!("RESTORE SNAPSHOT nightly_3 FROM r {LATEST}"),
    )
    .await;
    assert!(
        code == "28000" && !message.contains('1'),
        "{code} {message}"
    );
    run(&reader, &rotate).await;
    assert_eq!(
        value(&reader, snapshots).await,
        "nightly_1 nightly_2 nightly_3"
    );

    // Damage is found, and put right by the next backup.
    let damaged = crate::consistency::files(&root.join("__starrocks_repository_r/data"));
    for file in damaged {
        let mut bytes = std::fs::read(&file).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).expect("written");
    }
    ends(&client, "VERIFY SNAPSHOT nightly_3 ON r").await;
    let found = "SELECT DISTINCT kind FROM system.repository_findings WHERE job_id = (SELECT max(job_id) FROM system.jobs)";
    assert_eq!(value(&client, found).await, "damaged");
    backup(&client, "nightly_4").await;
    ends(&client, "VERIFY REPOSITORY r").await;
    let sound = "SELECT min(cast(ok AS STRING)) FROM system.verifications WHERE job_id = (SELECT max(job_id) FROM system.jobs)";
    assert_eq!(value(&client, sound).await, "true");

    // What no manifest names goes, and nothing else would.
    for label in ["nightly_1", "nightly_2", "nightly_3"] {
        run(&client, &format!("DROP SNAPSHOT {label} ON r")).await;
    }
    ends(&client, "PRUNE REPOSITORY r DRY RUN").await;
    assert_eq!(
        value(&client, "SELECT count(*) FROM system.pruned_objects").await,
        "0"
    );
    // No statement of it says a key.
    let logged =
        "SELECT count(*) FROM system.jobs WHERE statement LIKE '%1111%' OR statement LIKE '%3333%'";
    assert_eq!(value(&client, logged).await, "0");
    other.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_tells_nothing_and_works() {
    let dir = tempfile::tempdir().expect("a directory");
    let location = dir.path().join("place");
    play(&location.display().to_string(), "", &location).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_tells_nothing_and_works() {
    let s3 = S3::start().await;
    let root = s3.root.join(BUCKET).join("p");
    play(&format!("s3://{BUCKET}/p"), &s3.properties(), &root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_is_decided_when_a_repository_is_made() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let location = server.repository();
    let create = |name: &str, properties: &str| {
        format!(
            "CREATE REPOSITORY {name} WITH BROKER ON LOCATION \"{}\" {properties}",
            location.display()
        )
    };
    for (properties, message) in [
        ("\"encryption\" = \"hush\"", "\"encryption\" is not known"),
        (
            "\"encryption\" = \"aes256-gcm\"",
            "\"encryption\" needs \"encryption.key\"",
        ),
        (
            "\"encryption.key\" = \"00\"",
            "\"encryption.key\" needs \"encryption\"",
        ),
        (
            "\"encryption\" = \"aes256-gcm\", \"encryption.key\" = \"hush\"",
            "\"encryption.key\" is no key",
        ),
    ] {
        let (code, said) =
            fails(&client, &create("r", &format!("PROPERTIES ({properties})"))).await;
        assert_eq!(code, "22023");
        assert!(said.contains(message) && !said.contains("hush"), "{said}");
    }
    run(&client, &create("plain", "")).await;
    run(&client, "DROP REPOSITORY plain").await;
    let again = create("plain", &format!("PROPERTIES ({})", key('1')));
    let (code, message) = fails(&client, &again).await;
    assert_eq!(code, "22023");
    assert!(message.contains("is not encrypted"), "{message}");
    run(&client, &create("plain", "")).await;
    let alter = format!("ALTER REPOSITORY plain SET PROPERTIES ({})", key('1'));
    assert_eq!(fails(&client, &alter).await.0, "22023");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_repair_known_damage() {
    let s3 = S3::start().await;
    for (location, properties, root) in [
        (None, String::new(), None),
        (
            Some(format!("s3://{BUCKET}/p")),
            format!("{}, ", s3.properties()),
            Some(s3.root.join(BUCKET).join("p")),
        ),
    ] {
        let server = TestServer::start().await;
        let client = server.client().await;
        let root = root.unwrap_or_else(|| server.repository());
        let location = location.unwrap_or_else(|| root.display().to_string());
        run(&client, "CREATE DATABASE secret_base; USE secret_base; CREATE TABLE t (a INT); INSERT INTO t VALUES (1)").await;
        let create = format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{location}\" PROPERTIES ({properties}{})",
            key('1')
        );
        run(&client, &create).await;
        backup(&client, "one").await;
        let data = root.join("__starrocks_repository_r/data");
        let file = crate::consistency::files(&data).remove(0);
        let mut bytes = std::fs::read(&file).expect("a file");
        bytes[60] ^= 1;
        std::fs::write(&file, bytes).expect("written");
        // Another life knows nothing of what was there.
        let server = TestServer::start_in(server.stop().await, |_| {}).await;
        let client = server.client().await;
        backup(&client, "two").await;
        ends(&client, "VERIFY REPOSITORY r").await;
        let sound = "SELECT min(cast(ok AS STRING)) FROM system.verifications";
        assert_eq!(value(&client, sound).await, "true", "{location}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_is_not_replaced_by_another() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE secret_base; USE secret_base; CREATE TABLE t (a INT); INSERT INTO t VALUES (1)").await;
    let location = server.repository();
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\" PROPERTIES ({})",
        location.display(),
        key('1')
    );
    run(&client, &create).await;
    backup(&client, "one").await;
    let info = location.join("__starrocks_repository_r/__repo_info");
    let copy = std::fs::read(&info).expect("read");
    std::fs::remove_file(&info).expect("removed");
    std::fs::remove_file(info.with_file_name("__repo_info_copy")).expect("removed");
    // As when a mount is away: the key stays what it was.
    let rotate = format!(
        "ALTER REPOSITORY r SET PROPERTIES (\"encryption.key\" = \"{}\")",
        "2".repeat(64)
    );
    assert_eq!(fails(&client, &rotate).await.0, "58P01");
    run(&client, "DROP REPOSITORY r").await;
    let plain = create.split(" PROPERTIES").next().expect("a statement");
    for again in [create.as_str(), plain] {
        let (code, message) = fails(&client, again).await;
        assert_eq!(code, "55000", "{message}");
    }
    std::fs::write(&info, copy).expect("written");
    run(&client, &create).await;
    run(&client, &format!("RESTORE SNAPSHOT e.one FROM r {LATEST}")).await;
    assert_eq!(job_ends(&client, "e").await, "succeeded");
    // A reader does not change the key of whoever writes.
    run(&client, "DROP REPOSITORY r").await;
    run(&client, &create.replace("CREATE", "CREATE READ ONLY")).await;
    assert_eq!(fails(&client, &rotate).await.0, "28000");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_survives_the_loss_of_either_copy() {
    let s3 = S3::start().await;
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE secret_base; USE secret_base; CREATE TABLE t (a INT); INSERT INTO t VALUES (1)").await;
    for (n, (location, properties, root)) in [
        (
            server.repository().display().to_string(),
            String::new(),
            server.repository(),
        ),
        (
            format!("s3://{BUCKET}/p"),
            format!("{}, ", s3.properties()),
            s3.root.join(BUCKET).join("p"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let create = format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{location}\" PROPERTIES ({properties}{})",
            key('1')
        );
        run(&client, &create).await;
        backup(&client, &format!("one{n}")).await;
        let info = root.join("__starrocks_repository_r/__repo_info");
        let copy = info.with_file_name("__repo_info_copy");
        let both = || [&info, &copy].map(|path| std::fs::read(path).expect("there"));
        let [first, second] = both();
        assert_eq!(first, second);
        let mut flipped = first.clone();
        let last = flipped.len() - 5;
        flipped[last] = if flipped[last] == b'0' { b'1' } else { b'0' };
        for (m, (path, damage, kind)) in [
            (&info, None, "missing"),
            (&info, Some(&b"{"[..]), "damaged"),
            (&info, Some(&flipped[..]), "damaged"),
            (&copy, None, "missing"),
            (&copy, Some(&b""[..]), "damaged"),
        ]
        .into_iter()
        .enumerate()
        {
            match damage {
                None => std::fs::remove_file(path).expect("removed"),
                Some(bytes) => std::fs::write(path, bytes).expect("written"),
            }
            ends(&client, "VERIFY REPOSITORY r LEVEL FILES").await;
            let found =
                "SELECT kind || ' ' || object || ' ' || severity FROM system.repository_findings
                         WHERE job_id = (SELECT max(job_id) FROM system.jobs)";
            let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
            assert_eq!(value(&client, found).await, format!("{kind} {name} error"));
            backup(&client, &format!("two{n}{m}")).await;
            assert_eq!(both(), [first.clone(), first.clone()]);
        }
        // Of another repository of this name: nobody can tell which key is needed.
        let stranger = TestServer::start().await;
        let other = stranger.client().await;
        let elsewhere = stranger.repository();
        run(
            &other,
            &format!(
                "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\" PROPERTIES ({})",
                elsewhere.display(),
                key('1')
            ),
        )
        .await;
        let theirs = elsewhere.join("__starrocks_repository_r/__repo_info");
        std::fs::copy(&theirs, &info).expect("copied");
        run(
            &client,
            &format!("BACKUP SNAPSHOT secret_base.mixed{n} TO r"),
        )
        .await;
        assert_ne!(job_ends(&client, "secret_base").await, "succeeded");
        assert_eq!(std::fs::read(&copy).expect("there"), first);
        std::fs::write(&info, &first).expect("written");
        stranger.stop().await;

        let rotate = format!(
            "ALTER REPOSITORY r SET PROPERTIES (\"encryption.key\" = \"{}\")",
            "3".repeat(64)
        );
        run(&client, &rotate).await;
        let [new, copied] = both();
        assert!(new == copied && new != first);
        // A copy of the key before follows.
        std::fs::write(&copy, &first).expect("written");
        backup(&client, &format!("three{n}")).await;
        assert_eq!(both(), [new.clone(), new.clone()]);
        // Put back from before the change: the copy opens, and neither is written over.
        std::fs::write(&info, &first).expect("written");
        run(&client, "SHOW SNAPSHOT ON r").await;
        assert_eq!(both(), [first, new.clone()]);
        std::fs::write(&info, &new).expect("written");
        std::fs::remove_file(&info).expect("removed");
        run(
            &client,
            &format!("RESTORE SNAPSHOT one{n} FROM r ON (t AS t{n}) {LATEST}"),
        )
        .await;
        assert_eq!(job_ends(&client, "secret_base").await, "succeeded");
        run(&client, "DROP REPOSITORY r").await;
    }
    server.stop().await;
}
