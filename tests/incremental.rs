//! A backup moves what the repository does not hold, whatever brought it there, and every manifest
//! is complete.

use tokio_postgres::Client;

use crate::support::{BUCKET, S3, TestServer, fails, job_ends, rows, run, value};

async fn backup(client: &Client, label: &str, properties: &str) {
    run(
        client,
        &format!("BACKUP SNAPSHOT {label} TO r PROPERTIES ({properties})"),
    )
    .await;
    assert_eq!(job_ends(client, "d").await, "succeeded");
}

async fn moved(client: &Client) -> (i64, i64) {
    let query = "SELECT bytes_total, bytes_new FROM system.jobs ORDER BY job_id DESC LIMIT 1";
    let row = rows(client, query).await.remove(0);
    let number = |i: usize| {
        row[i]
            .as_deref()
            .expect("a value")
            .parse()
            .expect("a number")
    };
    (number(0), number(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_moved() {
    let s3 = S3::start().await;
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(
        &client,
        "CREATE TABLE t (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 2",
    )
    .await;
    run(&client, "INSERT INTO t SELECT value, encode(sha512(concat('x', value)), 'hex') FROM generate_series(1, 20000)").await;
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/p\" PROPERTIES ({})",
        s3.properties()
    );
    run(&client, &create).await;
    backup(&client, "first", "\"type\" = \"incremental\"").await;
    let (total, new) = moved(&client).await;
    assert_eq!(total, new);
    run(
        &client,
        "INSERT INTO t SELECT -value, 'row' FROM generate_series(1, 200)",
    )
    .await;
    backup(&client, "second", "\"type\" = \"incremental\"").await;
    let (total, new) = moved(&client).await;
    assert!(new > 0 && new < total / 50, "{new} of {total}");
    backup(
        &client,
        "third",
        "\"type\" = \"incremental\", \"base\" = \"first\"",
    )
    .await;
    assert_eq!(moved(&client).await.1, 0);
    backup(&client, "whole", "\"type\" = \"full\"").await;
    assert_eq!(
        moved(&client).await.1,
        0,
        "what is there is not put again, whatever it is called"
    );
    let snapshots =
        "SELECT snapshot, kind, base_snapshot FROM system.snapshots ORDER BY created_at";
    let told = rows(&client, snapshots).await;
    let told: Vec<Vec<&str>> = told
        .iter()
        .map(|row| row.iter().map(|v| v.as_deref().unwrap_or("-")).collect())
        .collect();
    assert_eq!(
        told,
        [
            ["first", "full", "-"],
            ["second", "incremental", "first"],
            ["third", "incremental", "first"],
            ["whole", "full", "-"],
        ]
    );
    // Nothing hangs on the base.
    run(&client, "DROP SNAPSHOT first ON r").await;
    run(&client, "RESTORE SNAPSHOT third FROM r ON (t AS back) PROPERTIES (\"backup_timestamp\" = \"latest\")").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(value(&client, "SELECT count(*) FROM back").await, "20200");
    for (properties, code) in [
        ("\"base\" = \"second\"", "22023"),
        ("\"type\" = \"incremental\", \"base\" = \"first\"", "42704"),
    ] {
        let statement = format!("BACKUP SNAPSHOT x TO r PROPERTIES ({properties})");
        assert_eq!(fails(&client, &statement).await.0, code, "{properties}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_objects_are_noticed() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(
        &client,
        "CREATE DATABASE d; USE d; CREATE TABLE t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 1",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT value FROM generate_series(1, 1000)",
    )
    .await;
    let location = server.repository();
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            location.display()
        ),
    )
    .await;
    backup(&client, "one", "\"type\" = \"full\"").await;
    // Of the same length, and written after its bytes were known to be right.
    let data = location.join("__starrocks_repository_r/data");
    let file = crate::consistency::files(&data).pop().expect("one file");
    let mut bytes = std::fs::read(&file).expect("reads");
    bytes[30] ^= 4;
    std::fs::write(&file, &bytes).expect("written");
    backup(&client, "two", "\"type\" = \"full\"").await;
    run(
        &client,
        "RESTORE SNAPSHOT one FROM r ON (t AS back) PROPERTIES (\"backup_timestamp\" = \"latest\")",
    )
    .await;
    assert_eq!(
        job_ends(&client, "d").await,
        "succeeded",
        "the good bytes are back"
    );
    server.stop().await;
}
