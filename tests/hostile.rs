//! What any user who may log in can say: nothing of it ends the process, takes all memory or holds
//! up others.

use std::time::Duration;

use futures::{SinkExt, TryStreamExt};
use tokio_postgres::error::SqlState;

use crate::process::Process;
use crate::support::{TestServer, connect, describe, fails, rows, run, value};

/// The SQLSTATE that a statement ends in, or `00000`.
async fn outcome(client: &tokio_postgres::Client, statement: &str) -> String {
    match client.simple_query(statement).await {
        Ok(_) => "00000".to_owned(),
        Err(e) => e
            .code()
            .map_or_else(|| format!("no answer: {e}"), |code| code.code().to_owned()),
    }
}

/// What a server under attack may have: ten GB of addresses.
const ADDRESSES_KIB: u64 = 10_000_000;

/// A text of `times` openings around a middle, closed or not.
fn nested(open: &str, middle: &str, close: &str, times: usize) -> String {
    format!("{}{middle}{}", open.repeat(times), close.repeat(times))
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_nest_or_grow_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Process::start_within(&dir.path().join("data"), ADDRESSES_KIB);
    let root = server.client().await;
    run(&root, "CREATE USER eve").await;
    let eve = connect(server.addr, "eve", "").await.expect("logs in");
    let doubled = |n: usize| {
        let steps: Vec<String> = (1..n)
            .map(|i| format!("c{i} AS (SELECT a.x FROM c{} a, c{} b)", i - 1, i - 1))
            .collect();
        format!(
            "WITH c0 AS (SELECT 1 AS x), {} SELECT count(*) FROM c{}",
            steps.join(", "),
            n - 1
        )
    };
    let ctes: Vec<String> = (0..3000)
        .map(|i| format!("c{i} AS (SELECT {i} AS x)"))
        .collect();
    for (statement, codes) in [
        // Depth without brackets that a parser counts.
        (
            format!("CREATE TABLE t (a {})", nested("ARRAY<", "INT", ">", 5000)),
            "54000",
        ),
        (
            format!("SELECT CAST(1 AS {})", nested("ARRAY<", "INT", ">", 5000)),
            "54000",
        ),
        (format!("SELECT NULL::int{}", "[]".repeat(5000)), "54000"),
        (format!("SELECT '{{}}'::int{}", "[3]".repeat(5000)), "54000"),
        (
            format!("SELECT 1 |-- 2::int{}\n", "[]".repeat(5000)),
            "54000",
        ),
        (format!("SELECT {}1", "INTERVAL ".repeat(5000)), "54000"),
        (format!("SELECT {}'1'", "interval ".repeat(60)), "54000"),
        (format!("SELECT {}1", "- ".repeat(5000)), "54000"),
        // What is written out more than once.
        (
            format!("SELECT {}", nested("1 IN (SELECT (", "1", ")::int)", 14)),
            "54000",
        ),
        (
            format!("SELECT {}", nested("((", "true", ")::int, 1) < (2, 3)", 24)),
            "54000",
        ),
        (
            format!(
                "SELECT {}",
                nested("(", "1 = ANY (ARRAY[1])", ") = ANY (ARRAY[true])", 24)
            ),
            "54000",
        ),
        (
            format!(
                "SELECT {}",
                nested(
                    "(",
                    "'x'",
                    "::text LIKE ANY (ARRAY['a', 'b', 'c']))::text",
                    14
                )
            ),
            "54000",
        ),
        (
            format!(
                "SELECT {} FROM generate_series(1, 3) AS g",
                nested("quote_literal(", "g", ")", 40)
            ),
            "54000",
        ),
        (
            format!(
                "SELECT {} FROM pg_class",
                nested("quote_literal(", "relname", ")", 40)
            ),
            "54000",
        ),
        (format!("SELECT {}true", "NOT ".repeat(5000)), "54000 42601"),
        (
            format!("SELECT 1 {}", "COLLATE \"C\" ".repeat(5000)),
            "54000 42601",
        ),
        (format!("SELECT 1 {}", "IS NULL ".repeat(5000)), "54000"),
        (
            format!("SELECT now() {}", "AT TIME ZONE 'UTC' ".repeat(5000)),
            "54000",
        ),
        (
            format!("SELECT a{} FROM pg_class", ".b".repeat(5000)),
            "54000 42703 42601",
        ),
        (format!("SELECT x{}", "[1]".repeat(5000)), "54000"),
        (format!("SELECT {}", nested("(", "1", ")", 5000)), "54000"),
        (
            format!("SELECT {}", nested("ARRAY[", "1", "]", 5000)),
            "54000",
        ),
        (
            format!(
                "SELECT {}",
                nested("CASE WHEN true THEN ", "1", " END", 5000)
            ),
            "54000",
        ),
        (
            format!(
                "SELECT * FROM {}",
                nested("(SELECT * FROM ", "pg_class", ")", 200)
            ),
            "54000 42601",
        ),
        (
            format!("SELECT * FROM {}", nested("(", "pg_class", ")", 5000)),
            "54000",
        ),
        (
            format!(
                "WITH {} SELECT 1",
                nested("a AS (WITH ", "b AS (SELECT 1)", " SELECT 1)", 200)
            ),
            "54000",
        ),
        (
            format!("{}SELECT 1", "EXPLAIN ".repeat(5000)),
            "54000 42601",
        ),
        (
            format!("{}SELECT 1", "DECLARE c CURSOR FOR ".repeat(5000)),
            "42601 0A000",
        ),
        (
            format!("{}SELECT 1", "PREPARE p AS ".repeat(5000)),
            "54000 42601",
        ),
        (
            format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(5000)),
            "54000",
        ),
        (
            format!(
                "SELECT 1 FROM pg_class {}",
                "JOIN pg_class USING (oid) ".repeat(5000)
            ),
            "54000",
        ),
        (
            format!("SHOW BACKUP WHERE {}", nested("(", "1 = 1", ")", 5000)),
            "54000",
        ),
        // Work that doubles with each level.
        (format!("SELECT {}", nested("abs(", "1", ")", 40)), "00000"),
        (format!("SELECT {}", "ARRAY[".repeat(40)), "42601 54000"),
        (format!("SELECT {}", "CAST(".repeat(40)), "42601 54000"),
        (format!("SELECT {}", "NOT(".repeat(40)), "42601 54000"),
        (format!("SELECT {}", "position(".repeat(20)), "42601 54000"),
        (
            format!("SELECT {}", nested("position(", "'a','b'", ",'c')", 12)),
            "42601 54000 42883",
        ),
        (
            format!("SELECT * FROM {}", "((SELECT * FROM ".repeat(16)),
            "42601 54000",
        ),
        (
            format!("SELECT FROM {}", "(((SELECT FROM ".repeat(12)),
            "42601 54000",
        ),
        (
            format!(
                "SELECT 1 WHERE 1 IN {}",
                "(((SELECT 1 WHERE 1 IN ".repeat(12)
            ),
            "42601 54000",
        ),
        (
            format!("SELECT {}", "INTERVAL -(".repeat(20)),
            "42601 54000",
        ),
        (
            format!("SELECT a.not {}", "-(a.not ".repeat(20)),
            "42601 54000",
        ),
        (
            format!("SELECT {}", nested("(", "1", " BETWEEN 0 AND 1)::int", 24)),
            "54000",
        ),
        (
            format!(
                "SELECT {} FROM pg_database",
                nested("(", "1", " IN (1, 2, 3))::int", 24)
            ),
            "54000",
        ),
        (
            format!(
                "SELECT {} FROM pg_database",
                nested("(", "1", " IN (1, 2, 3, 4, 5))::int", 24)
            ),
            "00000",
        ),
        (
            format!(
                "SELECT {} FROM system.jobs",
                nested("coalesce(", "job_id", ", 1)", 24)
            ),
            "54000",
        ),
        (
            format!(
                "SELECT x FROM {} WHERE x > 5",
                nested("(SELECT x + x AS x FROM ", "(SELECT 1 AS x)", ") t", 22)
            ),
            "54000",
        ),
        (
            format!(
                "SELECT 1 FROM system.jobs GROUP BY CUBE({})",
                (1..20)
                    .map(|i| format!("job_id + {i}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            "54000",
        ),
        (
            format!(
                "SELECT {} FROM pg_database",
                nested("CASE ", "1", " WHEN 1 THEN 1 WHEN 2 THEN 2 END", 24)
            ),
            "00000",
        ),
        (
            format!(
                "SELECT {}",
                nested("(SELECT count(*) FROM pg_class WHERE oid = ", "1", ")", 15)
            ),
            "00000 42883",
        ),
        (doubled(40), "54000"),
        // Width.
        (format!("WITH {} SELECT 1", ctes.join(", ")), "54000"),
        (
            format!("SELECT {}", vec!["1"; 1_000_000].join(",")),
            "54000",
        ),
        (format!("SELECT {}", vec!["1"; 2000].join(",")), "54011"),
        (
            format!("SELECT concat({})", vec!["'a'"; 200].join(",")),
            "54023",
        ),
        (
            format!("SELECT 1 FROM {}", vec!["system.jobs"; 1000].join(",")),
            "54000",
        ),
        (
            format!("SELECT 1 IN ({})", vec!["1"; 120_000].join(",")),
            "54000",
        ),
        (
            format!("INSERT INTO t VALUES {}", vec!["(1)"; 1_250_000].join(",")),
            "54000",
        ),
        (format!("SELECT '{}'", "x".repeat(17 << 20)), "54000"),
        (
            format!(
                "SELECT {}",
                nested("* FROM (SELECT *, ", "* FROM pg_class", ") t", 12)
            ),
            "54011 54000",
        ),
    ] {
        let shown: String = statement.chars().take(60).collect();
        let code = outcome(&eve, &statement).await;
        assert!(
            codes.contains(&code),
            "{shown}…: {code} where {codes} should be"
        );
        assert_eq!(value(&eve, "SELECT 1").await, "1", "{shown}");
        // As a prepared statement, too.
        if let Err(e) = eve.prepare(&statement).await {
            let code = e.code().map_or("no answer", SqlState::code);
            assert!(
                codes.contains(code) || code == "42P18",
                "{shown}…, prepared: {}",
                describe(&e)
            );
        }
    }
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn values_have_a_limit_whoever_makes_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Process::start_within(&dir.path().join("data"), ADDRESSES_KIB);
    let root = server.client().await;
    run(&root, "CREATE DATABASE d; CREATE USER eve").await;
    let eve = connect(server.addr, "eve", "").await.expect("logs in");
    let big = "repeat('x', 10000000)";
    for from in ["", " FROM pg_database"] {
        for value in [
            "repeat('a', 2000000000)".to_owned(),
            "length(repeat('a', 2000000000))".to_owned(),
            format!("replace({big}, 'x', 'yyyyyyyyyy')"),
            format!("length(replace({big}, 'x', {big}))"),
            format!("length(regexp_replace({big}, 'x', {big}, 'g'))"),
            "lpad('a', 2000000000)".to_owned(),
            "length(rpad('a', 2000000000, 'xyz'))".to_owned(),
            format!("length(concat({big}, {big}, {big}, {big}))"),
            format!("length(concat_ws({big}, 'a', 'b', 'c', 'd', 'e'))"),
            format!("length({big} || {big} || {big})"),
            format!("length(array_to_string(string_to_array(repeat('a,', 100000), ','), {big}))"),
            format!(
                "length({})",
                nested("replace(", "repeat('a', 100)", ", 'a', 'aaaaaaaaaa')", 12)
            ),
        ] {
            let statement = format!("SELECT {value}{from}");
            let code = outcome(&eve, &statement).await;
            assert!(
                ["54000", "53200"].contains(&code.as_str()),
                "{statement}: {code}"
            );
        }
    }
    // What fits, because it spills, may still take for ever.
    run(&eve, "SET statement_timeout = '20s'").await;
    for statement in [
        "SELECT length(format(repeat('%1$s', 1000000), repeat('x', 1000000)))".to_owned(),
        format!("SELECT array_fill({big}, ARRAY[1000])"),
        "SELECT length(string_agg(repeat('x', 1000000), ',')) FROM pg_proc".to_owned(),
        format!("SELECT {}", vec![big; 1600].join(", ")),
        format!("SELECT {} FROM pg_database", vec![big; 1600].join(", ")),
        "SELECT count(*) FROM pg_attribute a, pg_attribute b, pg_attribute c".to_owned(),
        "SELECT array_repeat(1, 2000000000)".to_owned(),
        "SELECT range(0, 9000000000000000000)".to_owned(),
        "SELECT generate_series(DATE '2024-01-01', DATE '2023-01-01', INTERVAL '1 month -31 days')".to_owned(),
        "SELECT value FROM generate_series(1, length(repeat('x', 2000000000)))".to_owned(),
        format!("SELECT '{}' || value FROM generate_series(1, 10000000) WHERE value < 0", "x".repeat(3_000_000)).replace("< 0", "> 0"),
        "SELECT count(*) FROM (SELECT repeat('x', 1000000) AS t FROM generate_series(1, 10000)) a, generate_series(1, 10000) b WHERE a.t < b.value::text".to_owned(),
        "SELECT count(b) FROM (SELECT repeat('x', 10000000) AS b, unnest(range(0, 1000000)) AS u)".to_owned(),
        format!("SELECT {} FROM generate_series(1, 8192)", vec!["upper(repeat('x', 100000))"; 300].join(", ")),
        "SELECT sum(value) OVER (ORDER BY value) FROM generate_series(1, 1000000000)".to_owned(),
        "SELECT array_agg(value) OVER () FROM generate_series(1, 100000)".to_owned(),
        "SELECT approx_percentile_cont(value, 0.5, 1000000000) FROM generate_series(1, 10)".to_owned(),
        "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))".to_owned(),
        "SELECT translate(repeat('a', 10000000), repeat('b', 10000000), '')::int FROM pg_database".to_owned(),
    ] {
        let code = outcome(&eve, &statement).await;
        let shown: String = statement.chars().take(100).collect();
        assert!(code != "00000" && !code.starts_with("XX") && !code.starts_with("no"), "{shown}: {code}");
    }
    // What was given up lets go of its memory when it next looks.
    while outcome(&eve, &format!("SELECT length({big})")).await == "53200" {}
    assert_eq!(
        value(&eve, &format!("SELECT length({big})")).await,
        "10000000",
        "below the limit everything is as before"
    );
    // Long values that are made a few at a time.
    let doubled = nested(
        "(SELECT t || t AS t FROM ",
        "(SELECT 'xxxxxxxx'::text AS t FROM generate_series(1, 8192))",
        ") t",
        14,
    );
    assert_eq!(
        value(&eve, &format!("SELECT min(length(t)) FROM {doubled}")).await,
        "131072"
    );
    assert_eq!(
        value(
            &eve,
            "SELECT length(lpad('a', -1)), length(repeat('a', 3) || 'b')"
        )
        .await,
        "0"
    );
    server.kill();
}

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

/// What was granted on an object goes with it, by whatever way it goes, and a new one of that name
/// begins with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn grants_end_with_their_objects() {
    let server = TestServer::start().await;
    let addr = server.server.addr();
    let root = server.client().await;
    run(&root, "CREATE USER eve; CREATE DATABASE d; CREATE TABLE d.t (a INT); CREATE VIEW d.v AS SELECT 1 AS a").await;
    run(
        &root,
        "GRANT SELECT ON TABLE d.t TO eve; GRANT SELECT ON TABLE d.v TO eve",
    )
    .await;
    let eve = connect(addr, "eve", "").await.expect("logs in");
    run(&eve, "SELECT * FROM d.t").await;
    run(
        &root,
        "CREATE OR REPLACE VIEW d.v AS SELECT 2 AS a; TRUNCATE TABLE d.t",
    )
    .await;
    run(&eve, "SELECT * FROM d.t").await;
    assert_eq!(rows(&root, "SHOW GRANTS FOR eve").await.len(), 2);
    run(
        &root,
        "DROP TABLE d.t; CREATE TABLE d.t (a INT); DROP VIEW d.v; CREATE VIEW d.v AS SELECT 3 AS a",
    )
    .await;
    assert_eq!(fails(&eve, "SELECT * FROM d.t").await.0, "42501");
    assert_eq!(rows(&root, "SHOW GRANTS FOR eve").await.len(), 0);
    run(
        &root,
        "GRANT SELECT ON ALL TABLES IN DATABASE d TO eve; GRANT SELECT ON TABLE d.t TO eve",
    )
    .await;
    run(&eve, "SELECT * FROM d.t").await;
    run(
        &root,
        "DROP DATABASE d FORCE; CREATE DATABASE d; CREATE TABLE d.t (a INT)",
    )
    .await;
    assert_eq!(fails(&eve, "SELECT * FROM d.t").await.0, "42501");
    assert_eq!(rows(&root, "SHOW GRANTS FOR eve").await.len(), 0);
    // A user of the same name is another one: the old one's connections end.
    run(
        &root,
        "DROP USER eve; CREATE USER eve; GRANT SELECT ON TABLE d.t TO eve",
    )
    .await;
    assert!(eve.simple_query("SELECT * FROM d.t").await.is_err());
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

/// The first answer of SCRAM for a user, with the salt in it.
async fn salt_of(addr: std::net::SocketAddr, user: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let message = |tag: Option<u8>, body: Vec<u8>| {
        let length = i32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [tag.into_iter().collect(), length.to_vec(), body].concat()
    };
    let mut socket = tokio::net::TcpStream::connect(addr)
        .await
        .expect("connects");
    let startup = [&[0, 3, 0, 0][..], b"user\0", user.as_bytes(), b"\0\0"].concat();
    socket
        .write_all(&message(None, startup))
        .await
        .expect("sent");
    let first = b"n,,n=,r=abcdefghijklmnopqrstuvwx";
    let body = [
        &b"SCRAM-SHA-256\0"[..],
        &i32::try_from(first.len()).expect("short").to_be_bytes(),
        first,
    ]
    .concat();
    socket
        .write_all(&message(Some(b'p'), body))
        .await
        .expect("sent");
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(",i=") {
        let mut part = [0; 1024];
        let n = socket.read(&mut part).await.expect("read");
        assert!(n > 0, "{}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&part[..n]);
    }
    let text = String::from_utf8_lossy(&said).into_owned();
    text.split(",s=")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .expect("a salt")
        .to_owned()
}

/// Users who are not there look as those who are: a salt that stays the same, and is another for
/// each.
#[tokio::test(flavor = "multi_thread")]
async fn the_salt_does_not_tell_who_exists() {
    let server = TestServer::start().await;
    let addr = server.server.addr();
    run(
        &server.client().await,
        "CREATE USER ana IDENTIFIED BY 'secret'",
    )
    .await;
    let known = salt_of(addr, "ana").await;
    let unknown = salt_of(addr, "nobody").await;
    assert_eq!(known, salt_of(addr, "ana").await);
    assert_eq!(unknown, salt_of(addr, "nobody").await);
    assert_eq!(known.len(), unknown.len());
    assert_ne!(unknown, salt_of(addr, "nobody2").await);
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

/// An EXECUTE that would never end is refused, whoever prepared it.
#[tokio::test(flavor = "multi_thread")]
async fn executes_do_not_run_in_circles() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "PREPARE a AS SELECT 1").await;
    assert_eq!(fails(&client, "PREPARE b AS EXECUTE a").await.0, "42601");
    // The protocol prepares any text.
    let circle = client.prepare("EXECUTE a").await.expect("prepared");
    assert_eq!(value(&client, "EXECUTE a").await, "1");
    let rows = client.query(&circle, &[]).await.expect("it runs another");
    assert_eq!(rows.len(), 1);
    let named = value(
        &client,
        "SELECT name FROM pg_prepared_statements WHERE statement = 'EXECUTE a'",
    )
    .await;
    assert_eq!(
        fails(&client, &format!("EXECUTE \"{named}\"")).await.0,
        "0A000"
    );
    drop(client);
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

/// Whose identity a repository is reached with, and where it is, is for administrators to say,
/// unless keys are brought along.
#[tokio::test(flavor = "multi_thread")]
async fn repositories_of_others_bring_keys_and_keep_to_hosts() {
    let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), |s| {
        s.repository_hosts = vec!["*.example.com".into(), "127.0.0.1:1".into()];
    })
    .await;
    let root = server.client().await;
    run(&root, "CREATE USER eve; GRANT REPOSITORY ON SYSTEM TO eve").await;
    let eve = connect(server.server.addr(), "eve", "")
        .await
        .expect("logs in");
    let keys =
        "\"aws.s3.access_key\" = \"a\", \"aws.s3.secret_key\" = \"b\", \"aws.s3.region\" = \"r\"";
    for (properties, code) in [
        ("\"aws.s3.region\" = \"r\"".to_owned(), "42501"),
        ("\"aws.s3.access_key\" = \"a\"".to_owned(), "42501 22023"),
        (
            format!("{keys}, \"aws.s3.endpoint\" = \"http://169.254.169.254\""),
            "42501",
        ),
        (
            format!("{keys}, \"aws.s3.endpoint\" = \"http://example.com.evil.org\""),
            "42501",
        ),
        (
            format!("{keys}, \"aws.s3.endpoint\" = \"http://user@127.0.0.1:2\""),
            "42501 22023",
        ),
        // A client of HTTP takes this for a path on the first host.
        (
            format!("{keys}, \"aws.s3.endpoint\" = \"http://127.0.0.1:2\\\\@a.example.com\""),
            "42501 22023",
        ),
        // It would become a part of the host's name.
        (keys.replace("\"r\"", "\"x@10.0.0.5:8443/\""), "22023"),
        // Allowed, and nobody is there.
        (
            format!("{keys}, \"aws.s3.endpoint\" = \"http://127.0.0.1:1\""),
            "58030",
        ),
    ] {
        let create = format!(
            "CREATE REPOSITORY q WITH BROKER ON LOCATION \"s3://b/p\" PROPERTIES ({properties})"
        );
        let told = outcome(&eve, &create).await;
        assert!(code.contains(&told), "{properties}: {told}");
    }
    for endpoint in [
        "169.254.169.254",
        "::1",
        "",
        "x y",
        "http://",
        "a/b?c#d",
        "[",
        "\u{e9}",
        "127.0.0.1:99999",
    ] {
        let create = format!(
            "CREATE REPOSITORY q WITH BROKER ON LOCATION \"oss://b/p\" PROPERTIES (\"fs.oss.endpoint\" = \"{endpoint}\", \
             \"fs.oss.accessKeyId\" = \"a\", \"fs.oss.accessKeySecret\" = \"b\")"
        );
        let told = outcome(&eve, &create).await;
        assert!(
            ["22023", "42501", "58030"].contains(&told.as_str()),
            "{endpoint}: {told}"
        );
    }
    server.stop().await;
}

fn data_files(dir: &std::path::Path) -> usize {
    crate::consistency::files(dir)
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "parquet"))
        .count()
}

/// What is cancelled leaves no files, and what is counted is what is gone.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_and_volatile_changes_add_up() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(
        &client,
        "CREATE DATABASE d; CREATE TABLE d.t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 8",
    )
    .await;
    run(
        &client,
        "INSERT INTO d.t SELECT value FROM generate_series(1, 1000)",
    )
    .await;
    let before = data_files(server.dir.path());
    let endless = "INSERT INTO d.t SELECT a.value FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b";
    assert_eq!(
        outcome(&client, &format!("SET statement_timeout = '2s'; {endless}")).await,
        "57014"
    );
    run(&client, "SET statement_timeout = 0").await;
    // The writer ends when it next looks.
    while data_files(server.dir.path()) != before {
        tokio::task::yield_now().await;
    }
    let deleted = client
        .execute("DELETE FROM d.t WHERE random() < 0.5", &[])
        .await
        .expect("deleted");
    assert_eq!(
        value(&client, "SELECT count(*) FROM d.t").await,
        (1000 - deleted).to_string()
    );
    assert!((300..700).contains(&deleted), "{deleted}");
    server.stop().await;
}
