//! What any user who may log in can say: nothing of it ends the process, takes all memory or holds
//! up others.

use tokio_postgres::error::SqlState;

use crate::process::Process;
use crate::support::{TestServer, connect, describe, fails, rows, run, value};

/// The SQLSTATE that a statement ends in, or `00000`.
pub async fn outcome(client: &tokio_postgres::Client, statement: &str) -> String {
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
pub fn nested(open: &str, middle: &str, close: &str, times: usize) -> String {
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
