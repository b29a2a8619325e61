//! How statements and connections end before their time: cancelled, drained, left by their client.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;

use crate::support::{TestServer, connect, fails, run, until, value};
use crate::wire;

#[tokio::test(flavor = "multi_thread")]
async fn another_connection_can_be_cancelled_and_ended() {
    let server = TestServer::start().await;
    let root = server.client().await;
    run(&root, "CREATE USER eve").await;
    let other = server.client().await;
    let pid: i32 = value(&other, "SELECT pg_backend_pid()")
        .await
        .parse()
        .expect("a number");
    let sleeps =
        tokio::spawn(async move { (other.simple_query("SELECT pg_sleep(600)").await, other) });
    until(
        &root,
        &format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}"),
        "active",
    )
    .await;
    let eve = connect(server.server.addr(), "eve", "")
        .await
        .expect("logs in");
    assert_eq!(
        fails(&eve, &format!("SELECT pg_cancel_backend({pid})"))
            .await
            .0,
        "42501"
    );
    assert_eq!(
        value(
            &root,
            &format!("SELECT pg_cancel_backend({pid}), pg_cancel_backend(-7)")
        )
        .await,
        "t"
    );
    let (answer, other) = sleeps.await.expect("ends");
    assert_eq!(
        answer.expect_err("cancelled").code(),
        Some(&SqlState::QUERY_CANCELED)
    );
    run(&root, &format!("SELECT pg_terminate_backend({pid})")).await;
    until(
        &root,
        &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"),
        "0",
    )
    .await;
    assert!(other.simple_query("SELECT 1").await.is_err());
    // A client that says nothing inside a block is sent away after the time it chose.
    let idle = server.client().await;
    run(
        &idle,
        "SET idle_in_transaction_session_timeout = '50ms'; BEGIN",
    )
    .await;
    until(
        &root,
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'",
        "0",
    )
    .await;
    assert!(idle.simple_query("SELECT 1").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_computes_no_more() {
    let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), |s| {
        (s.statement_relations_max, s.statement_operators_max) = (400, 1000);
    })
    .await;
    let client = server.client().await;
    let series = "generate_series(1, 1000000)";
    let joins: String = (1..300)
        .map(|i| {
            format!(
                " JOIN generate_series(1, 2) AS g{i}(n) ON g{i}.n = g{}.n",
                i - 1
            )
        })
        .collect();
    run(&client, "SET statement_timeout = '100ms'").await;
    for query in [
        // Joins that find nothing, or whose rows are only counted: they ask for no row and give
        // none for minutes.
        format!("SELECT count(*) FROM {series} AS a(x), {series} AS b(y) WHERE x * y = 7"),
        format!("SELECT count(*) FROM {series} AS a(x) JOIN {series} AS b(y) ON x % 2 = y % 2 AND x + y < 0"),
        format!("SELECT count(*) FROM {series} AS a(x), {series} AS b(y)"),
        format!("SELECT count(*) FROM generate_series(1, 2) AS g0(n){joins}"),
        "SELECT md5(n::text) FROM generate_series(1, 100000000) AS g(n) ORDER BY 1".to_owned(),
        "SELECT count(*) FROM pg_attribute AS a, pg_attribute AS b, pg_attribute AS c WHERE a.attnum + b.attnum = -c.attnum"
            .to_owned(),
    ] {
        assert_eq!(fails(&client, &query).await.0, "57014", "{query}");
        let over = async {
            while server.server.gateway().engine.running() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let over = tokio::time::timeout(Duration::from_secs(20), over).await;
        assert!(over.is_ok(), "{query}: {} pieces of work go on", server.server.gateway().engine.running());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_gone_needs_no_answer() {
    let server = TestServer::start().await;
    let root = server.client().await;
    let busy = wire::query(
        "SELECT count(*) FROM generate_series(1, 1000000) AS a(x), generate_series(1, 1000000) AS b(y) WHERE x * y = 7",
    );
    // Hanging up is enough; so is hanging up after a good-bye, or after another statement.
    for more in [Vec::new(), b"X\0\0\0\x04".to_vec(), wire::query("SELECT 1")] {
        let mut client = TcpStream::connect(server.server.addr())
            .await
            .expect("connects");
        client
            .write_all(&wire::startup("root"))
            .await
            .expect("sent");
        let mut greeting = Vec::new();
        // With anything left unread it would hang up with a bang, which the server hears.
        while !greeting.ends_with(b"Z\0\0\0\x05I") {
            client.read_buf(&mut greeting).await.expect("read");
        }
        client
            .write_all(&[busy.clone(), more].concat())
            .await
            .expect("sent");
        until(
            &root,
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'",
            "2",
        )
        .await;
        drop(client);
        until(
            &root,
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'",
            "1",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_statements_are_told_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_in(dir, |s| s.drain_timeout_seconds = 0).await;
    let root = server.client().await;
    let sleeper = server.client().await;
    let sleeps = tokio::spawn(async move { sleeper.simple_query("SELECT pg_sleep(600)").await });
    // One that takes none of its rows keeps nobody from stopping either.
    let mut deaf = TcpStream::connect(server.server.addr())
        .await
        .expect("connects");
    let rows = wire::query("SELECT * FROM generate_series(1, 100000000)");
    deaf.write_all(&[wire::startup("root"), rows].concat())
        .await
        .expect("sent");
    until(
        &root,
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'",
        "3",
    )
    .await;
    server.stop().await;
    assert_eq!(
        sleeps.await.expect("ends").expect_err("ended").code(),
        Some(&SqlState::ADMIN_SHUTDOWN)
    );
    drop(deaf);
}
