//! Backup and restore over real HTTP: an S3 server in this process, the demo included.

use starkeep::demo::Demo;
use starkeep::env::Env;

use crate::support::{ACCESS_KEY, BUCKET, S3, SECRET_KEY, TestServer, fails, job_ends, run, value};

#[tokio::test(flavor = "multi_thread")]
async fn another_starkeep_restores_what_one_backed_up() {
    let s3 = S3::start().await;
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/some/path\" PROPERTIES ({})",
        s3.properties()
    );
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(
        &client,
        "CREATE TABLE t (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 2",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT value, concat('row ', value) FROM generate_series(1, 10000)",
    )
    .await;
    // One file that goes in parts: random text does not compress.
    run(
        &client,
        "CREATE TABLE big (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 1",
    )
    .await;
    run(&client, "INSERT INTO big SELECT value, encode(sha512(concat('x', value)), 'hex') FROM generate_series(1, 300000)").await;
    let size: i64 = value(
        &client,
        "SELECT bytes FROM system.tables WHERE table_name = 'big'",
    )
    .await
    .parse()
    .expect("a number");
    assert!(size > 17 << 20, "{size} bytes go in one piece");
    run(&client, &create).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let sum = value(
        &client,
        "SELECT sum(xx_hash3_64(b)::decimal(38,0)) FROM big",
    )
    .await;
    assert!(
        s3.root
            .join(BUCKET)
            .join("some/path/__starrocks_repository_r/__repo_info")
            .exists()
    );

    // Secrets are nowhere to be seen.
    for query in [
        "SELECT statement FROM system.sessions",
        "SELECT * FROM system.repositories",
        "SELECT * FROM system.jobs",
        "SHOW REPOSITORIES",
    ] {
        let shown = format!("{:?}", crate::support::rows(&client, query).await);
        assert!(!shown.contains(SECRET_KEY), "{query}");
    }
    server.stop().await;

    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, &create).await;
    assert_eq!(
        value(
            &client,
            "SELECT snapshot FROM system.snapshots WHERE repository = 'r'"
        )
        .await,
        "s"
    );
    run(
        &client,
        "RESTORE SNAPSHOT s FROM r PROPERTIES (\"backup_timestamp\" = \"latest\")",
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(
        value(&client, "SELECT count(DISTINCT b) FROM d.t").await,
        "10000"
    );
    assert_eq!(
        value(
            &client,
            "SELECT sum(xx_hash3_64(b)::decimal(38,0)) FROM d.big"
        )
        .await,
        sum
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_told_when_the_repository_is_created() {
    let s3 = S3::start().await;
    let server = TestServer::start().await;
    let client = server.client().await;
    let wrong = s3.properties().replace(SECRET_KEY, "not-the-key");
    let (code, message) = fails(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"s3://{BUCKET}/p\" PROPERTIES ({wrong})"
        ),
    )
    .await;
    assert_eq!(code, "58030");
    assert!(
        message.starts_with("Failed to create repository: failed to write"),
        "{message}"
    );
    assert!(!message.contains("not-the-key"), "{message}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_holds_against_s3() {
    let s3 = S3::start().await;
    let properties = vec![
        ("aws.s3.endpoint".to_owned(), format!("http://{}", s3.addr)),
        ("aws.s3.access_key".to_owned(), ACCESS_KEY.to_owned()),
        ("aws.s3.secret_key".to_owned(), SECRET_KEY.to_owned()),
    ];
    let demo = Demo::start(
        Some(format!("s3://{BUCKET}/demo")),
        properties,
        Env::system(),
    )
    .await
    .expect("starts");
    demo.play().await.expect("every step holds");
    demo.stop().await;
}
