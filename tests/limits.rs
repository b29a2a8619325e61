//! What one client may take of what all share: time, memory, places, locks, history.

use std::time::Duration;

use futures::{SinkExt, TryStreamExt};
use tokio_postgres::error::SqlState;

use crate::hostile::{nested, outcome};
use crate::support::{TestServer, connect, fails, rows, run, value};

/// A cursor that only goes forward keeps nothing of what it passes, and one that goes back does not
/// hold its rows one by one.
#[tokio::test(flavor = "multi_thread")]
async fn cursors_hold_no_more_than_they_say() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(
        &client,
        "BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT value FROM generate_series(1, 200000)",
    )
    .await;
    assert_eq!(
        value(&client, "FETCH ABSOLUTE 150000 FROM c").await,
        "150000"
    );
    assert_eq!(value(&client, "FETCH NEXT FROM c").await, "150001");
    assert_eq!(fails(&client, "FETCH PRIOR FROM c").await.0, "55000");
    run(
        &client,
        "ROLLBACK; BEGIN; DECLARE c SCROLL CURSOR FOR SELECT value FROM generate_series(1, 20000)",
    )
    .await;
    run(&client, "MOVE FORWARD ALL FROM c").await;
    let back = rows(&client, "FETCH BACKWARD ALL FROM c").await;
    assert_eq!(
        (
            back.len(),
            back[0][0].as_deref(),
            back[19_999][0].as_deref()
        ),
        (20_000, Some("20000"), Some("1"))
    );
    assert_eq!(rows(&client, "FETCH BACKWARD 3 FROM c").await.len(), 0);
    assert_eq!(
        value(&client, "FETCH RELATIVE 9223372036854775807 FROM c").await,
        ""
    );
    let back = rows(&client, "FETCH BACKWARD 2 FROM c").await;
    assert_eq!(
        (back[0][0].as_deref(), back[1][0].as_deref()),
        (Some("20000"), Some("19999"))
    );
    server.stop().await;

    let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), |s| {
        s.cursor_bytes_max = 1 << 20
    })
    .await;
    let client = server.client().await;
    run(
        &client,
        "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT value FROM generate_series(1, 2000000)",
    )
    .await;
    assert_eq!(fails(&client, "MOVE FORWARD ALL FROM c").await.0, "54000");
    server.stop().await;
}

/// On one thread the others only have their turn if the one with much to say pauses: that is what
/// this shows, without a clock.
#[tokio::test]
async fn long_messages_leave_others_their_turn() {
    let server = TestServer::start().await;
    let (talker, other) = (server.client().await, server.client().await);
    let many = "SELECT 1;".repeat(20_000);
    let long = talker.simple_query(&many);
    tokio::pin!(long);
    let mut answered = 0;
    loop {
        tokio::select! {
            biased;
            done = &mut long => {
                assert_eq!(done.expect("done").len(), 60_000);
                break;
            }
            one = value(&other, "SELECT 1") => {
                assert_eq!(one, "1");
                answered += 1;
            }
        }
    }
    assert!(
        answered > 10,
        "{answered} answers to the others while 20,000 statements ran"
    );
    server.stop().await;
}

/// Reading a long statement can be given up: by a CancelRequest, by its time, and by the end of the
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn reading_can_be_cancelled() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let list = vec!["(1, 2, 3, 4)"; 20_000].join(",");
    let statement = format!("SELECT count(*) FROM (VALUES {list}) v");
    let code = outcome(&client, &format!("SET statement_timeout = 1; {statement}")).await;
    assert_eq!(code, "57014");
    run(&client, "RESET statement_timeout").await;
    let cancel = client.cancel_token();
    let long = client.simple_query(&statement);
    tokio::pin!(long);
    loop {
        tokio::select! {
            done = &mut long => {
                // Over before the request came is no failure; then the next one is tried.
                assert!(done.is_ok() || done.as_ref().is_err_and(|e| e.code() == Some(&SqlState::QUERY_CANCELED)));
                break;
            }
            () = async { cancel.cancel_query(tokio_postgres::NoTls).await.expect("asked"); } => {}
        }
    }
    // A request that came late ends the next statement at most.
    while outcome(&client, "SELECT 1").await == "57014" {}
    assert_eq!(value(&client, "SELECT 1").await, "1");
    server.stop().await;
}

/// Places are kept for whoever must end what went wrong, and who is turned away is told in words.
#[tokio::test(flavor = "multi_thread")]
async fn administrators_find_a_place() {
    let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), |s| {
        (s.connections_max, s.connections_reserved) = (4, 1);
    })
    .await;
    let addr = server.server.addr();
    let root = server.client().await;
    run(&root, "CREATE USER eve").await;
    drop(root);
    let mut held = Vec::new();
    let refused = loop {
        match connect(addr, "eve", "").await {
            Ok(client) => held.push(client),
            Err(error) => break error,
        }
        assert!(held.len() <= 4, "more places than there are");
    };
    assert_eq!(
        refused.code(),
        Some(&SqlState::TOO_MANY_CONNECTIONS),
        "{refused}"
    );
    assert!(held.len() <= 3);
    let root = connect(addr, "root", "").await.expect("a place is kept");
    let ended = rows(
        &root,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'eve'",
    )
    .await;
    assert_eq!(ended.len(), held.len());
    server.stop().await;
}

/// Clients that ask for encryption first hear the refusal after that, not instead of it.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_come_after_the_first_packet() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), |s| {
        s.logins_per_address_max = 1
    })
    .await;
    let addr = server.server.addr();
    let silent = tokio::net::TcpStream::connect(addr)
        .await
        .expect("connects");
    let mut socket = tokio::net::TcpStream::connect(addr)
        .await
        .expect("connects");
    socket
        .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
        .await
        .expect("sent");
    let mut answer = [0];
    socket.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"N");
    socket
        .write_all(b"\0\0\0\x17\0\x03\0\0user\0somebody\0\0")
        .await
        .expect("sent");
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest))
        .await
        .expect("in time")
        .expect("read");
    assert!(
        rest.starts_with(b"E") && rest.windows(5).any(|w| w == b"53300"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    drop(silent);
    server.stop().await;
}

/// A COPY whose client says nothing keeps nobody from the table, and who waits for it waits no
/// longer than was said.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_copy_blocks_nobody() {
    let server = TestServer::start().await;
    let (silent, other) = (server.client().await, server.client().await);
    run(&silent, "CREATE DATABASE d; CREATE TABLE d.plain (a INT); CREATE TABLE d.keyed (a INT, b INT) PRIMARY KEY (a)").await;
    for (table, columns) in [("d.plain", "(a)"), ("d.keyed", "(a, b)")] {
        let sink = silent
            .copy_in::<_, bytes::Bytes>(&format!("COPY {table} {columns} FROM STDIN"))
            .await
            .expect("begins");
        let mut sink = std::pin::pin!(sink);
        let line = if table == "d.plain" { "1\n" } else { "1\t1\n" };
        sink.send(line.into()).await.expect("sent");
        sink.flush().await.expect("sent");
        run(&other, "SET lock_timeout = '10s'").await;
        let one = if table == "d.plain" { "(1)" } else { "(1, 2)" };
        run(&other, &format!("INSERT INTO {table} VALUES {one}")).await;
        assert_eq!(
            value(&other, &format!("SELECT count(*) FROM {table}")).await,
            "1",
            "{table}"
        );
        assert_eq!(sink.finish().await.expect("copied"), 1, "{table}");
    }
    assert_eq!(value(&other, "SELECT count(*) FROM d.plain").await, "2");
    assert_eq!(
        value(&other, "SELECT b FROM d.keyed").await,
        "1",
        "the COPY came last"
    );

    // A DELETE holds the table as long as it computes.
    let never = "DELETE FROM d.plain WHERE a IN (SELECT count(*) FROM generate_series(1, 1000000) x, generate_series(1, 1000000) y \
                 WHERE x.value + y.value < 0)";
    let cancel = silent.cancel_token();
    let deleting = tokio::spawn(async move { outcome(&silent, never).await });
    run(&other, "SET lock_timeout = '1ms'").await;
    let mut waits = 0;
    while outcome(&other, "INSERT INTO d.plain VALUES (3)").await != "55P03" {
        waits += 1;
        assert!(waits < 10_000, "nobody holds the table");
    }
    cancel
        .cancel_query(tokio_postgres::NoTls)
        .await
        .expect("asked");
    assert_eq!(deleting.await.expect("ended"), "57014");
    run(&other, "RESET lock_timeout; INSERT INTO d.plain VALUES (4)").await;
    server.stop().await;
}

/// More rows than wait in memory, with equal keys, in their order.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_for_their_table_keep_their_order() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(
        &client,
        "CREATE DATABASE d; CREATE TABLE d.k (a INT, b BIGINT, c STRING) PRIMARY KEY (a)",
    )
    .await;
    let rows = "SELECT value % 1000, value, repeat('x', 100) FROM generate_series(1, 200000)";
    run(&client, &format!("INSERT INTO d.k {rows}")).await;
    assert_eq!(
        value(
            &client,
            "SELECT count(*) || ' ' || min(b) || ' ' || max(b) FROM d.k"
        )
        .await,
        "1000 199001 200000"
    );
    server.stop().await;
}

/// Rows as they are written, not as they are kept: quotes inside records and lists double at each
/// level.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_answer_have_a_limit() {
    let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), |s| {
        s.row_bytes_max = 1 << 20
    })
    .await;
    let client = server.client().await;
    let wide = vec!["repeat('x', 100000)"; 20].join(", ");
    for statement in [
        format!("SELECT {wide}"),
        format!("SELECT {wide} FROM generate_series(1, 3)"),
        format!(
            "SELECT {} FROM pg_database",
            nested("ROW(", "'\"'", ")", 22)
        ),
    ] {
        assert_eq!(
            outcome(&client, &statement).await,
            "54000",
            "{}",
            &statement[..40]
        );
    }
    for format in ["text", "csv", "binary"] {
        let copied = client
            .copy_out(&format!("COPY (SELECT {wide}) TO STDOUT (FORMAT {format})"))
            .await
            .expect("begins");
        let failed = copied
            .try_fold((), |(), _| async { Ok(()) })
            .await
            .expect_err("too long");
        assert_eq!(failed.code().map(SqlState::code), Some("54000"), "{format}");
    }
    assert_eq!(
        value(&client, "SELECT length(repeat('x', 1000000))").await,
        "1000000"
    );
    server.stop().await;
}

/// Who may not back anything up writes nothing into the history, and who may writes a short text.
#[tokio::test(flavor = "multi_thread")]
async fn refused_backups_do_not_fill_the_history() {
    let server = TestServer::start().await;
    let root = server.client().await;
    run(
        &root,
        "CREATE DATABASE d; CREATE TABLE d.t (a INT); CREATE USER eve",
    )
    .await;
    run(
        &root,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            server.repository().display()
        ),
    )
    .await;
    let eve = connect(server.server.addr(), "eve", "")
        .await
        .expect("logs in");
    let long = format!(
        "BACKUP SNAPSHOT d.s TO r /* {} */ ON (t)",
        "x".repeat(100_000)
    );
    assert_eq!(fails(&eve, &long).await.0, "42501");
    assert_eq!(value(&root, "SELECT count(*) FROM system.jobs").await, "0");
    run(&root, "GRANT REPOSITORY ON SYSTEM TO eve").await;
    assert_ne!(outcome(&eve, &long).await, "00000");
    assert_eq!(
        value(
            &root,
            "SELECT count(*) FROM system.jobs WHERE status = 'refused'"
        )
        .await,
        "1"
    );
    let kept = value(
        &root,
        "SELECT length(statement) + length(objects) FROM system.jobs",
    )
    .await;
    assert!(kept.parse::<u64>().expect("a length") < 20_000, "{kept}");
    server.stop().await;
}

/// Whoever takes all memory that queries have, others can still ask who it is.
#[tokio::test(flavor = "multi_thread")]
async fn short_statements_are_answered_without_memory_to_spare() {
    let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), |s| {
        s.query_memory_bytes_max = 64 << 20
    })
    .await;
    let (greedy, other) = (server.client().await, server.client().await);
    let long = format!("SELECT 1 IN ({})", vec!["1"; 2000].join(","));
    let mut kept = Vec::new();
    let code = loop {
        match greedy.prepare(&long).await {
            Ok(statement) => kept.push(statement),
            Err(e) => break e.code().map(|c| c.code().to_owned()),
        }
        assert!(kept.len() < 1000, "prepared statements take memory");
    };
    assert_eq!(code.as_deref(), Some("53200"));
    assert_eq!(value(&other, "SELECT 1").await, "1");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'root'";
    assert_eq!(value(&other, sessions).await, "2");
    drop(kept);
    assert_eq!(value(&greedy, "SELECT 1").await, "1");
    server.stop().await;
}

/// The objects of a cluster are gathered once for each version of their names, whoever asks how
/// often.
#[tokio::test(flavor = "multi_thread")]
async fn catalogs_are_gathered_once_for_each_version() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let gathered = || {
        let metrics = server.server.gateway().metrics.encode();
        let line = metrics
            .lines()
            .find(|l| l.starts_with("starkeep_catalogs_gathered_total "))
            .expect("a counter")
            .to_owned();
        line.rsplit(' ')
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .expect("a number")
    };
    let tables = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'd'";
    run(
        &client,
        "CREATE DATABASE d; CREATE TABLE d.t (a INT) DISTRIBUTED BY HASH (a) BUCKETS 1",
    )
    .await;
    assert_eq!(value(&client, tables).await, "1");
    let before = gathered();
    for _ in 0..5 {
        assert_eq!(value(&client, tables).await, "1");
        run(&client, "INSERT INTO d.t VALUES (1)").await;
    }
    let again = server.client().await;
    assert_eq!(value(&again, tables).await, "1");
    assert_eq!(gathered(), before, "rows change no names");
    run(&client, "CREATE VIEW d.v AS SELECT a FROM d.t").await;
    for client in [&client, &again] {
        assert_eq!(value(client, tables).await, "2");
    }
    assert_eq!(gathered(), before + 1);
    drop(again);
    server.stop().await;
}

/// What one session's block has read is not kept for another.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_keeps_its_catalogs() {
    let server = TestServer::start().await;
    let (one, other) = (server.client().await, server.client().await);
    let tables = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'd'";
    run(
        &one,
        "CREATE DATABASE d; CREATE TABLE d.t (a INT) DISTRIBUTED BY HASH (a) BUCKETS 1",
    )
    .await;
    run(&one, "BEGIN").await;
    assert_eq!(value(&one, "SELECT count(*) FROM d.t").await, "0");
    run(
        &other,
        "CREATE TABLE d.new (a INT) DISTRIBUTED BY HASH (a) BUCKETS 1",
    )
    .await;
    value(&one, tables).await;
    assert_eq!(value(&other, tables).await, "2");
    drop((one, other));
    server.stop().await;
}

/// What one statement may not take is left to others, and the setting is named.
#[tokio::test(flavor = "multi_thread")]
async fn statements_have_a_memory_share() {
    let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), |s| {
        s.statement_memory_bytes_max = 16 << 20
    })
    .await;
    let client = server.client().await;
    let series = "generate_series(1, 2000000)";
    let join =
        format!("SELECT count(*) FROM {series} AS a (x) JOIN {series} AS b (x) ON a.x = b.x");
    let error = client.simple_query(&join).await.expect_err("refused");
    let told = error.as_db_error().expect("the server's");
    assert_eq!(told.code(), &SqlState::OUT_OF_MEMORY, "{told}");
    assert_eq!(
        told.hint(),
        Some("Raise statement_memory_bytes_max, or ask for less at a time.")
    );
    server.stop().await;
}

/// What the catalogs' own evaluator gathers is refused as soon as it is too long, and what it makes
/// ends with the wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn long_values_of_the_catalogs_end_early() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let gathers = "SELECT string_agg(repeat('x', 1000000), ',') FROM pg_proc";
    let (code, message) = fails(&client, gathers).await;
    assert_eq!(
        (
            code.as_str(),
            message.contains("requested length too large")
        ),
        ("54000", true),
        "{message}"
    );
    // Some three thousand values of ten megabytes: given up, none is made any more.
    run(&client, "SET statement_timeout = '300ms'").await;
    let counts = "SELECT count(repeat('x', 10000000)) FROM pg_proc a, pg_proc b WHERE length(repeat('x', 10000000)) = 1";
    assert_eq!(fails(&client, counts).await.0, "57014");
    let engine = &server.server.gateway().engine;
    let ended = async {
        while engine.running() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended)
        .await
        .expect("nothing goes on computing");
    server.stop().await;
}
