//! The protocol: logins, both query protocols, formats, COPY, cancelling, limits, and hostile
//! clients.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::support::{TestServer, connect, describe, fails, rows, run, value};

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_checked_by_scram() {
    let server = TestServer::start().await;
    let addr = server.server.addr();
    let root = server.client().await;
    run(
        &root,
        "CREATE USER ana IDENTIFIED BY 'pä ss''w'; CREATE USER bob",
    )
    .await;
    assert!(connect(addr, "ana", "password='pä ss\\'w'").await.is_ok());
    for (user, more, code) in [
        ("ana", "password=wrong", "28P01"),
        ("nobody", "password=wrong", "28P01"),
        ("root", "dbname=nope", "3D000"),
    ] {
        let error = connect(addr, user, more)
            .await
            .err()
            .unwrap_or_else(|| panic!("{user} logged in"));
        assert_eq!(
            error.code().map(SqlState::code),
            Some(code),
            "{user}: {error}"
        );
    }
    // Without a password from loopback; with one, from nowhere without it.
    assert!(connect(addr, "bob", "").await.is_ok());
    run(&root, "ALTER USER root IDENTIFIED BY 'top'").await;
    assert!(connect(addr, "root", "").await.is_err());
    let root = connect(addr, "root", "password=top")
        .await
        .expect("logs in");
    run(&root, "CREATE DATABASE d; CREATE TABLE d.t (a INT)").await;

    let repository = server.repository().display().to_string();
    run(
        &root,
        &format!("CREATE REPOSITORY r WITH BROKER ON LOCATION \"{repository}\""),
    )
    .await;

    // Who is no administrator reads the system tables and does nothing.
    let bob = connect(addr, "bob", "").await.expect("logs in");
    assert_eq!(value(&bob, "SELECT count(*) FROM system.jobs").await, "0");
    assert_eq!(value(&bob, "SELECT 1 + 1").await, "2");
    for statement in [
        "SELECT * FROM d.t",
        "SELECT (SELECT count(*) FROM d.t)",
        "INSERT INTO d.t VALUES (1)",
        "DELETE FROM d.t",
        "CREATE DATABASE e",
        "DROP TABLE d.t",
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"/tmp/x\"",
        "BACKUP SNAPSHOT d.s TO r",
        "RESTORE SNAPSHOT d.s FROM r PROPERTIES (\"backup_timestamp\" = \"latest\")",
        "CANCEL BACKUP FROM d",
        "DROP REPOSITORY r",
        "SHOW BACKUP",
        "SHOW RESTORE FROM d",
        "SHOW SNAPSHOT ON r",
        "DROP SNAPSHOT s ON r FORCE",
        "CREATE VIEW d.v AS SELECT 1 AS a",
        "GRANT SELECT ON TABLE d.t TO bob",
        "CREATE ROLE x",
        "SHOW GRANTS FOR USER root",
        "CREATE USER eve",
        "GRANT ADMIN TO bob",
        "ALTER SYSTEM ADD BROKER b \"h:1\"",
        "COPY d.t FROM '/etc/passwd' (FORMAT csv)",
    ] {
        assert_eq!(fails(&bob, statement).await.0, "42501", "{statement}");
    }
    run(&root, "GRANT ADMIN TO bob").await;
    run(&bob, "INSERT INTO d.t VALUES (1)").await;
    drop((root, bob));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_have_typed_parameters_and_results() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(&client, "CREATE TABLE t (a INT, b STRING, c DECIMAL(10,2), d DATE, e DATETIME, f BOOLEAN, g DOUBLE, h ARRAY<INT>)").await;
    let insert = client
        .prepare("INSERT INTO t (a, b, f, g, e) VALUES ($1, $2, $3, $4, $5)")
        .await
        .expect("prepared");
    assert_eq!(
        insert.params(),
        [
            Type::INT4,
            Type::TEXT,
            Type::BOOL,
            Type::FLOAT8,
            Type::TIMESTAMP
        ]
    );
    let at = chrono::NaiveDate::from_ymd_opt(2026, 1, 2)
        .and_then(|d| d.and_hms_micro_opt(3, 4, 5, 678_900))
        .expect("a time");
    for i in 0..3i32 {
        let n = client
            .execute(
                &insert,
                &[
                    &i,
                    &format!("row {i}"),
                    &(i == 1),
                    &(f64::from(i) / 3.0),
                    &at,
                ],
            )
            .await
            .expect("inserted");
        assert_eq!(n, 1);
    }
    let select = client
        .prepare("SELECT a, b, f, g, e FROM t WHERE a > $1 ORDER BY a")
        .await
        .expect("prepared");
    assert_eq!(
        select
            .columns()
            .iter()
            .map(|c| c.type_().clone())
            .collect::<Vec<_>>(),
        [
            Type::INT4,
            Type::TEXT,
            Type::BOOL,
            Type::FLOAT8,
            Type::TIMESTAMP
        ]
    );
    let found = client.query(&select, &[&0i32]).await.expect("rows");
    assert_eq!(found.len(), 2);
    assert_eq!(
        (
            found[0].get::<_, i32>(0),
            found[0].get::<_, &str>(1),
            found[0].get::<_, bool>(2)
        ),
        (1, "row 1", true)
    );
    assert_eq!(found[1].get::<_, f64>(3), 2.0 / 3.0);
    assert_eq!(found[1].get::<_, chrono::NaiveDateTime>(4), at);
    // Run again with other values, and with NULL.
    assert_eq!(
        client.query(&select, &[&1i32]).await.expect("rows").len(),
        1
    );
    assert_eq!(
        client
            .query(&select, &[&None::<i32>])
            .await
            .expect("rows")
            .len(),
        0
    );
    let array = client
        .query_one("SELECT make_array(1, NULL, 3), make_array('a', 'b')", &[])
        .await
        .expect("a row");
    assert_eq!(
        array.get::<_, Vec<Option<i32>>>(0),
        [Some(1), None, Some(3)]
    );
    assert_eq!(array.get::<_, Vec<String>>(1), ["a", "b"]);
    let day = client
        .query_one("SELECT date '2026-02-03', now()", &[])
        .await
        .expect("a row");
    assert_eq!(day.get::<_, chrono::NaiveDate>(0).to_string(), "2026-02-03");
    assert!(day.get::<_, chrono::DateTime<chrono::Utc>>(1).timestamp() > 0);

    // StarRocks' statements through the extended protocol: the right row descriptions, or none.
    for (statement, columns) in [
        ("SHOW BACKUP", 14),
        ("SHOW RESTORE FROM d", 18),
        ("SHOW REPOSITORIES", 7),
        ("SHOW PARTITIONS FROM t", 22),
        ("SHOW TABLET FROM t", 24),
        ("SHOW TABLET 1", 10),
        ("SHOW BROKER", 7),
        ("CREATE DATABASE IF NOT EXISTS d", 0),
    ] {
        let prepared = client
            .prepare(statement)
            .await
            .unwrap_or_else(|e| panic!("{statement}: {}", describe(&e)));
        assert_eq!(prepared.columns().len(), columns, "{statement}");
        client
            .query(&prepared, &[])
            .await
            .unwrap_or_else(|e| panic!("{statement}: {}", describe(&e)));
    }
    let error = client
        .prepare("SELECT 1; SELECT 2")
        .await
        .expect_err("two statements");
    assert_eq!(error.code(), Some(&SqlState::SYNTAX_ERROR));
    assert_eq!(
        client
            .query("SELECT nope FROM t", &[])
            .await
            .expect_err("no column")
            .code(),
        Some(&SqlState::UNDEFINED_COLUMN)
    );
    // After an error the connection goes on.
    assert_eq!(
        client
            .query_one("SELECT 7::bigint", &[])
            .await
            .expect("a row")
            .get::<_, i64>(0),
        7
    );
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_gives_its_rows_in_portions() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let transaction = client.transaction().await.expect("begins");
    let portal = transaction
        .bind("SELECT value FROM generate_series(1, 25)", &[])
        .await
        .expect("bound");
    let mut seen = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 10).await.expect("rows");
        if rows.is_empty() {
            break;
        }
        assert!(rows.len() <= 10);
        seen.extend(rows.iter().map(|r| r.get::<_, i32>(0)));
    }
    assert_eq!(seen, (1..=25).collect::<Vec<_>>());
    transaction.commit().await.expect("commits");
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_takes_text_csv_and_binary_or_nothing() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d; CREATE TABLE t (a INT NOT NULL, b STRING, c DECIMAL(8,2) DEFAULT \"9\")").await;
    let copy = async |statement: &str, chunks: &[&str]| -> Result<u64, String> {
        let sink = client
            .copy_in::<_, bytes::Bytes>(statement)
            .await
            .map_err(|e| describe(&e))?;
        pin_mut!(sink);
        for chunk in chunks {
            sink.send(bytes::Bytes::copy_from_slice(chunk.as_bytes()))
                .await
                .map_err(|e| describe(&e))?;
        }
        sink.finish().await.map_err(|e| describe(&e))
    };
    // The borders of messages are anywhere, even within an escape.
    let text = ["1\tone\\", "tx\t1.5\n2\t\\N\t", "\\N\n3\ta\\\\b\t-1\n\\.\n"];
    assert_eq!(copy("COPY t FROM STDIN", &text).await, Ok(3));
    let csv = ["b,a\n\"multi\nline \"", "\"x\"\"\",4\n,5\n\"\",", "6\n"];
    assert_eq!(
        copy("COPY t (b, a) FROM STDIN WITH (FORMAT csv, HEADER)", &csv).await,
        Ok(3)
    );
    let found = rows(&client, "SELECT * FROM t ORDER BY a").await;
    let text = |s: &str| Some(s.to_owned());
    assert_eq!(
        found,
        [
            vec![text("1"), text("one\tx"), text("1.50")],
            vec![text("2"), None, None],
            vec![text("3"), text("a\\b"), text("-1.00")],
            vec![text("4"), text("multi\nline \"x\""), text("9.00")],
            vec![text("5"), None, text("9.00")],
            vec![text("6"), text(""), text("9.00")],
        ]
    );
    // All or nothing.
    for (statement, data, code) in [
        ("COPY t FROM STDIN", "7\tx\n", "22P04"),
        ("COPY t FROM STDIN", "7\tx\t1\tmore\n", "22P04"),
        ("COPY t FROM STDIN", "7\tx\t1\nnonsense\tx\t1\n", "22P02"),
        ("COPY t FROM STDIN", "\\N\tx\t1\n", "23502"),
        ("COPY t FROM STDIN (FORMAT csv)", "7,\"x", "22P04"),
        ("COPY nope FROM STDIN", "", "42P01"),
        ("COPY t (nope) FROM STDIN", "", "42703"),
        ("COPY t FROM STDIN (FORMAT nonsense)", "", "22023"),
    ] {
        let error = copy(statement, &[data]).await.expect_err(data);
        assert!(error.starts_with(code), "{statement} {data:?}: {error}");
    }
    assert_eq!(value(&client, "SELECT count(*) FROM t").await, "6");

    let sink = client
        .copy_in("COPY t (a, b) FROM STDIN (FORMAT binary)")
        .await
        .expect("begins");
    let writer = BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]);
    pin_mut!(writer);
    for i in 10..5010i32 {
        writer
            .as_mut()
            .write(&[&i, &format!("row {i}")])
            .await
            .expect("written");
    }
    assert_eq!(writer.finish().await.expect("finishes"), 5000);
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM t WHERE b = concat('row ', a)"
        )
        .await,
        "5000"
    );

    // A client that gives up half-way leaves nothing.
    let sink = client
        .copy_in::<_, bytes::Bytes>("COPY t FROM STDIN")
        .await
        .expect("begins");
    {
        pin_mut!(sink);
        sink.send(bytes::Bytes::from_static(b"9000\tx\t1\n"))
            .await
            .expect("sent");
    }
    assert_eq!(
        value(&client, "SELECT count(*) FROM t WHERE a = 9000").await,
        "0"
    );

    // From files, for administrators.
    let file = server.dir.path().join("rows.csv");
    std::fs::write(&file, "a,b\n20001,from a file\n20002,\n").expect("written");
    run(
        &client,
        &format!(
            "COPY t (a, b) FROM '{}' (FORMAT csv, HEADER)",
            file.display()
        ),
    )
    .await;
    assert_eq!(
        value(&client, "SELECT b FROM t WHERE a = 20001").await,
        "from a file"
    );
    let parquet = walk(&server.dir.path().join("data/be1/tablets"));
    run(&client, "CREATE TABLE u (a INT, b STRING, c DECIMAL(8,2))").await;
    run(
        &client,
        &format!("COPY u FROM '{}' (FORMAT parquet)", parquet.display()),
    )
    .await;
    assert_ne!(value(&client, "SELECT count(*) FROM u").await, "0");
    // Text stays text, whatever it looks like.
    std::fs::write(&file, "20003,007\n").expect("written");
    run(
        &client,
        &format!("COPY t (a, b) FROM '{}' (FORMAT csv)", file.display()),
    )
    .await;
    assert_eq!(
        value(&client, "SELECT b FROM t WHERE a = 20003").await,
        "007"
    );
    // The last row of a key wins, however many batches there are.
    run(&client, "CREATE TABLE k (a INT, n INT) UNIQUE KEY (a)").await;
    let many: String = (1..=60_000).map(|n| format!("1\t{n}\n")).collect();
    assert_eq!(copy("COPY k FROM STDIN", &[&many]).await, Ok(60_000));
    assert_eq!(value(&client, "SELECT n FROM k").await, "60000");
    let (code, _) = fails(&client, "COPY t FROM '/nope.csv'").await;
    assert!(
        ["58P01", "58030", "22000"].contains(&code.as_str()),
        "{code}"
    );
    drop(client);
    server.stop().await;
}

/// Some Parquet file below a directory.
fn walk(dir: &std::path::Path) -> std::path::PathBuf {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "parquet") {
                return path;
            }
        }
    }
    panic!("no Parquet file");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_statements_are_cancelled() {
    let server = TestServer::start().await;
    let client = server.client().await;
    const FOREVER: &str = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value + b.value = -1";
    let token = client.cancel_token();
    let observer = server.client().await;
    let cancel = tokio::spawn(async move {
        while value(&observer, "SELECT count(*) FROM system.sessions WHERE state = 'active' AND statement LIKE '%generate_series%'")
            .await
            == "0"
        {}
        token.cancel_query(NoTls).await.expect("sent");
    });
    let (code, message) = fails(&client, FOREVER).await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("57014", "canceling statement due to user request")
    );
    cancel.await.expect("cancelled");
    run(&client, "SET statement_timeout = '50ms'").await;
    let (code, message) = fails(&client, FOREVER).await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("57014", "canceling statement due to statement timeout")
    );
    let error = client.query(FOREVER, &[]).await.expect_err("too long");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    run(&client, "SET statement_timeout = 0").await;
    assert_eq!(value(&client, "SELECT 1").await, "1");
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_name_the_job_and_errors_their_place() {
    let server = TestServer::start().await;
    let (client, mut notices) = server.client_with_notices().await;
    run(&client, "CREATE DATABASE d; USE d; CREATE TABLE t (a INT)").await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            server.repository().display()
        ),
    )
    .await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    let notice = notices.recv().await.expect("a notice");
    assert_eq!(
        notice,
        (
            "NOTICE".into(),
            "job 1 submitted; watch it with SHOW BACKUP FROM d".into()
        )
    );

    // The position counts characters of the whole message, from 1.
    let error = client
        .batch_execute("SELECT 'ü'; BACKUP SNAPSHOT x TO r ON (")
        .await
        .expect_err("incomplete");
    let error = error.as_db_error().expect("from the server");
    assert_eq!(error.code(), &SqlState::SYNTAX_ERROR);
    assert_eq!(
        error.position(),
        Some(&tokio_postgres::error::ErrorPosition::Original(40))
    );
    let error = client
        .batch_execute("SELECT 1 FROM")
        .await
        .expect_err("incomplete");
    assert_eq!(error.code(), Some(&SqlState::SYNTAX_ERROR));
    // What stands before an error in one message has been carried out.
    assert!(
        client
            .batch_execute("CREATE DATABASE before; nonsense")
            .await
            .is_err()
    );
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM system.databases WHERE db_name = 'before'"
        )
        .await,
        "1"
    );
    // Nothing said.
    run(&client, "").await;
    run(&client, " ; -- nothing\n /* at all */ ;").await;
    // 64 KiB of nesting is refused, not overflowed.
    let nested = format!("SELECT {}1{}", "(".repeat(32_000), ")".repeat(32_000));
    assert_eq!(fails(&client, &nested).await.0, "54000");
    assert_eq!(value(&client, "SELECT 1").await, "1");
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_binary_rows_agree() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let stream = client
        .query_raw(
            "SELECT value, value::double / 7, concat('x', value) FROM generate_series(1, 300000)",
            Vec::<String>::new(),
        )
        .await
        .expect("begins");
    let count = stream
        .try_fold(0i64, |n, row| async move {
            Ok(n + i64::from(row.get::<_, i32>(0) > 0))
        })
        .await
        .expect("streams");
    assert_eq!(count, 300_000);
    // A stream that is dropped half-way leaves a usable connection.
    {
        let stream = client
            .query_raw(
                "SELECT value FROM generate_series(1, 100000)",
                Vec::<String>::new(),
            )
            .await
            .expect("begins");
        pin_mut!(stream);
        assert!(stream.next().await.is_some());
    }
    assert_eq!(value(&client, "SELECT 1").await, "1");
    drop(client);
    server.stop().await;
}

/// Writes raw bytes and reads until the server closes or is quiet.
async fn raw(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(addr).await.expect("connects");
    socket.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
    answer
}

pub fn startup(user: &str) -> Vec<u8> {
    let mut body = 196_608i32.to_be_bytes().to_vec();
    for part in ["user", user] {
        body.extend(part.as_bytes());
        body.push(0);
    }
    body.push(0);
    [&((body.len() + 4) as i32).to_be_bytes()[..], &body].concat()
}

pub fn query(text: &str) -> Vec<u8> {
    [
        &b"Q"[..],
        &((text.len() + 5) as i32).to_be_bytes(),
        text.as_bytes(),
        b"\0",
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_do_no_harm() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_in(dir, |s| {
        s.message_bytes_max = 1 << 20;
        s.authentication_timeout_seconds = 1;
        s.connections_max = 20;
    })
    .await;
    let addr = server.server.addr();
    let client = server.client().await;
    run(
        &client,
        "CREATE DATABASE victim; CREATE USER ana IDENTIFIED BY 'x'",
    )
    .await;
    let contains =
        |answer: &[u8], text: &str| answer.windows(text.len()).any(|w| w == text.as_bytes());

    // What is pipelined after a login that fails does not run.
    let answer = raw(
        addr,
        &[
            startup("ana"),
            b"p\0\0\0\x0awrong\0".to_vec(),
            query("DROP DATABASE victim"),
        ]
        .concat(),
    )
    .await;
    assert!(
        contains(&answer, "FATAL"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM system.databases WHERE db_name = 'victim'"
        )
        .await,
        "1"
    );
    // A message that is too long is refused before it is read.
    let answer = raw(
        addr,
        &[
            startup("root"),
            [&b"Q"[..], &(1i32 << 30).to_be_bytes()].concat(),
        ]
        .concat(),
    )
    .await;
    assert!(
        contains(&answer, "54000"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    // Nonsense, a negative length, half a start-up packet that is never finished.
    let _ = raw(addr, b"GET / HTTP/1.1\r\n\r\n").await;
    let _ = raw(
        addr,
        &[startup("root"), vec![b'Q', 255, 255, 255, 255]].concat(),
    )
    .await;
    let _ = raw(addr, &startup("root")[..7]).await;
    let _ = raw(addr, &[startup("root"), vec![b'z', 0, 0, 0, 4]].concat()).await;
    assert_eq!(value(&client, "SELECT 1").await, "1");

    // More connections than there are places are told so; the places come back.
    let mut crowd = Vec::new();
    let mut turned_away = 0;
    for _ in 0..30 {
        match connect(addr, "root", "").await {
            Ok(client) => crowd.push(client),
            Err(e) => {
                assert_eq!(e.code(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{e}");
                turned_away += 1;
            }
        }
    }
    assert!(turned_away > 0 && crowd.len() >= 10);
    drop(crowd);
    while connect(addr, "root", "").await.is_err() {}
    assert_eq!(value(&client, "SELECT 1").await, "1");
    drop(client);
    server.stop().await;
}
