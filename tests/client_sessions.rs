//! What clients do in a session: browse the catalogs, take rows by cursors, copy them out, encrypt,
//! and come in great numbers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::support::{TestServer, describe, fails, rows, run, value};

/// The rows of a query, columns joined by bars.
pub async fn lines(client: &tokio_postgres::Client, query: &str) -> Vec<String> {
    let rows = rows(client, query).await;
    rows.into_iter()
        .map(|r| {
            r.into_iter()
                .map(|v| v.unwrap_or_else(|| "NULL".into()))
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect()
}

pub async fn with_tables() -> (TestServer, tokio_postgres::Client) {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(
        &client,
        "CREATE DATABASE market;
         CREATE TABLE market.orders (id BIGINT NOT NULL, customer VARCHAR(20) NOT NULL COMMENT 'who', amount DECIMAL(18, 4) DEFAULT '0',
             paid BOOLEAN) PRIMARY KEY (id) COMMENT 'what was ordered';
         CREATE TABLE market.events (at DATETIME NOT NULL, n INT) DUPLICATE KEY (at);
         CREATE VIEW market.names AS SELECT customer FROM market.orders;
         INSERT INTO market.orders VALUES (1, 'ann', 10.5, true), (2, 'b,o\"b', NULL, false), (3, 'cy', 0.25, NULL)",
    )
    .await;
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogs_say_what_there_is() {
    let (server, client) = with_tables().await;
    for (query, answer) in [
        (
            "SELECT c.relname, c.relkind, pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname OPERATOR(pg_catalog.=) 'market' ORDER BY 1",
            &["events|r|root", "names|v|root", "orders|r|root", "orders_pkey|i|root"][..],
        ),
        // A subquery that names the row around it, a default, a comment, a modifier.
        (
            "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
               (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d
                WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef), col_description(a.attrelid, a.attnum)
             FROM pg_attribute a WHERE a.attrelid = 'market.orders'::regclass AND a.attnum > 0 ORDER BY a.attnum",
            &[
                "id|bigint|t|NULL|NULL",
                "customer|character varying(20)|t|NULL|who",
                "amount|numeric(18,4)|f|0|NULL",
                "paid|boolean|f|NULL|NULL",
            ],
        ),
        // Sets in a SELECT list, fields of records, arrays that begin at 0.
        (
            "SELECT (k.keys).n, (k.keys).x, a.attname FROM (SELECT i.indrelid, information_schema._pg_expandarray(i.indkey) AS keys
               FROM pg_index i WHERE i.indisprimary) k JOIN pg_attribute a ON a.attrelid = k.indrelid AND a.attnum = (k.keys).x",
            &["1|1|id"],
        ),
        ("SELECT indkey[0], indkey FROM pg_index", &["1|1"]),
        ("SELECT conname, conkey, pg_get_constraintdef(oid) FROM pg_constraint", &["orders_pkey|{1}|PRIMARY KEY (id)"]),
        (
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3)
             SELECT array_agg(i ORDER BY i DESC), version() LIKE 'PostgreSQL 14%' FROM n",
            &["{3,2,1}|t"],
        ),
        ("SELECT 'market.orders'::regclass::text, 'int4'::regtype, to_regclass('nothing')", &["market.orders|integer|NULL"]),
        (
            "SELECT table_type, is_insertable_into FROM information_schema.tables WHERE table_schema = 'market' ORDER BY table_name",
            &["BASE TABLE|YES", "VIEW|NO", "BASE TABLE|YES"],
        ),
        (
            "SELECT column_name, ordinal_position, data_type, character_maximum_length, numeric_precision, udt_name
             FROM information_schema.columns WHERE table_name = 'orders' ORDER BY ordinal_position LIMIT 3",
            &["id|1|bigint|NULL|64|int8", "customer|2|character varying|20|NULL|varchar", "amount|3|numeric|NULL|18|numeric"],
        ),
        // Beside a table that is not theirs the planner reads them.
        (
            "SELECT c.relname, s.table_name FROM pg_catalog.pg_class c JOIN system.tables s ON s.table_name = c.relname
             WHERE s.table_name = 'orders'",
            &["orders|orders"],
        ),
        ("SELECT count(*) FROM pg_catalog.pg_class WHERE relname = 'jobs' AND relpages = 0", &["1"]),
        ("SELECT state, usename FROM pg_stat_activity WHERE pid = pg_backend_pid()", &["active|root"]),
        ("SELECT has_table_privilege('market.orders', 'SELECT'), has_table_privilege('market.orders', 'UPDATE')", &["t|f"]),
    ] {
        assert_eq!(lines(&client, query).await, answer, "{query}");
    }
    // More than one row where one is expected is an error, never one of them.
    let error = fails(&client, "SELECT (SELECT relname FROM pg_class)").await;
    assert_eq!(error.0, "21000");
    assert_eq!(fails(&client, "SELECT nope FROM pg_class").await.0, "42703");
    assert_eq!(fails(&client, "SELECT 'nope'::regclass").await.0, "42P01");
    // The same numbers after a restart, and in the descriptions of results.
    let oid = value(&client, "SELECT 'market.orders'::regclass::oid").await;
    let dir = server.stop().await;
    let server = TestServer::start_in(dir, |_| {}).await;
    let client = server.client().await;
    assert_eq!(
        value(&client, "SELECT 'market.orders'::regclass::oid").await,
        oid
    );
    let prepared = client
        .prepare("SELECT customer, id AS x FROM market.orders")
        .await
        .expect("prepares");
    let columns: Vec<_> = prepared
        .columns()
        .iter()
        .map(|c| (c.name(), c.table_oid(), c.column_id(), c.type_modifier()))
        .collect();
    let table = oid.parse().ok();
    assert_eq!(
        columns,
        [("customer", table, Some(2), 24), ("x", table, Some(1), -1)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_columns_and_equal_columns_are_postgresqls() {
    let (server, client) = with_tables().await;
    for (query, names) in [
        (
            "SELECT 1, 'a', true, NULL, NULL",
            &["?column?", "?column?", "bool", "?column?", "?column?"][..],
        ),
        (
            "SELECT id, id, count(*), max(amount) + 1, id::text FROM market.orders GROUP BY id",
            &["id", "id", "count", "?column?", "id"],
        ),
        (
            "SELECT *, id FROM market.events, market.orders",
            &["at", "n", "id", "customer", "amount", "paid", "id"],
        ),
    ] {
        let prepared = client
            .prepare(query)
            .await
            .unwrap_or_else(|e| panic!("{query}: {}", describe(&e)));
        assert_eq!(
            prepared
                .columns()
                .iter()
                .map(|c| c.name().to_owned())
                .collect::<Vec<_>>(),
            names,
            "{query}"
        );
    }
    let (code, _) = fails(&client, "SELECT id FROM market.orders WHERE WHERE").await;
    assert_eq!(code, "42601");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_without_tables_fall_back() {
    let (server, client) = with_tables().await;
    for (query, answer) in [
        // One only the catalogs know beside decimals, one only the planner knows, decimals that
        // must be exact.
        (
            "SELECT pg_sleep(0.0) IS NULL, current_database()",
            "f|embedded",
        ),
        ("SELECT version() LIKE 'PostgreSQL%', sqrt(4)", "t|2"),
        ("SELECT current_user, 0.1 + 0.2 = 0.3, 1.10", "root|t|1.10"),
    ] {
        assert_eq!(lines(&client, query).await, [answer], "{query}");
    }
    assert_eq!(
        fails(&client, "SELECT pg_backend_pid(), no_such(1)")
            .await
            .0,
        "42883"
    );
    // Records are records: drivers take their fields apart.
    let columns =
        "SELECT array_agg(ROW(attnum, attname) ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'market.events'::regclass
                   AND attnum > 0";
    assert_eq!(lines(&client, columns).await, [r#"{"(1,at)","(2,n)"}"#]);
    let query = r#"SELECT (current_user, NULL, 'a "b"', ''), (1::smallint, ARRAY[1, 2])"#;
    assert_eq!(
        lines(&client, query).await,
        [r#"(root,,"a ""b""","")|(1,"{1,2}")"#]
    );
    for (query, rows) in [
        // Of unlike records there is only the text.
        (
            "SELECT CASE WHEN attnum = 1 THEN ROW(attnum) ELSE ROW(attname) END FROM pg_attribute
          WHERE attrelid = 'market.events'::regclass AND attnum > 0 ORDER BY attnum",
            &["(1)", "(n)"][..],
        ),
        ("SELECT version() IS NULL, ROW()", &["f|()"]),
        // Rows of subqueries that are gone do not count as held.
        (
            "SELECT count(*) > 600 FROM pg_attribute WHERE EXISTS (SELECT repeat('y', 1000000) || attname)",
            &["t"],
        ),
    ] {
        assert_eq!(lines(&client, query).await, rows, "{query}");
    }
    let prepared = client.prepare(columns).await.expect("prepares");
    assert_eq!(prepared.columns()[0].type_(), &Type::RECORD_ARRAY);
    // What a query of the catalogs makes has an end.
    let (code, message) = fails(
        &client,
        "SELECT t FROM (SELECT repeat('x', 1000000) AS t) AS a, pg_proc",
    )
    .await;
    assert_eq!(code, "53200", "{message}");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_scroll_where_declared() {
    let (server, client) = with_tables().await;
    let error = fails(&client, "DECLARE c CURSOR FOR SELECT 1").await;
    assert_eq!(error.0, "25P01");
    run(
        &client,
        "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT id FROM market.orders ORDER BY id",
    )
    .await;
    for (fetch, ids) in [
        ("FETCH c", &["1"][..]),
        ("FETCH 5 FROM c", &["2", "3"]),
        ("FETCH PRIOR FROM c", &["3"]),
        ("FETCH BACKWARD ALL IN c", &["2", "1"]),
        ("FETCH ABSOLUTE -1 FROM c", &["3"]),
        ("FETCH RELATIVE -2 FROM c", &["1"]),
        ("FETCH FIRST FROM c", &["1"]),
        ("FETCH RELATIVE 0 FROM c", &["1"]),
        ("FETCH ALL IN c", &["2", "3"]),
        ("FETCH NEXT c", &[]),
    ] {
        assert_eq!(lines(&client, fetch).await, ids, "{fetch}");
    }
    assert_eq!(
        lines(
            &client,
            "SELECT name, is_scrollable, is_holdable FROM pg_cursors"
        )
        .await,
        ["c|t|f"]
    );
    run(
        &client,
        "DECLARE f CURSOR FOR SELECT id FROM market.orders ORDER BY id; MOVE 1 IN f",
    )
    .await;
    assert_eq!(lines(&client, "FETCH f").await, ["2"]);
    let error = fails(&client, "FETCH BACKWARD 1 FROM f").await;
    assert_eq!(error.0, "55000");
    run(&client, "ROLLBACK").await;
    assert_eq!(fails(&client, "FETCH c").await.0, "34000");
    // WITH HOLD outlives its block, and one message may hold everything, as ODBC sends it.
    run(&client, "BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT id FROM market.orders ORDER BY id; FETCH 1 IN h; COMMIT").await;
    assert_eq!(lines(&client, "FETCH 2 IN h").await, ["2", "3"]);
    assert_eq!(
        fails(&client, "DECLARE h CURSOR WITH HOLD FOR SELECT 1")
            .await
            .0,
        "42P03"
    );
    run(&client, "CLOSE h").await;
    assert_eq!(fails(&client, "CLOSE h").await.0, "34000");
    // ROLLBACK TO closes what was declared after the savepoint; the description of FETCH is that
    // of the query.
    run(&client, "BEGIN; DECLARE a CURSOR FOR SELECT customer FROM market.orders; SAVEPOINT s; DECLARE b CURSOR FOR SELECT 1")
        .await;
    run(&client, "ROLLBACK TO s").await;
    let fetch = client.prepare("FETCH 1 FROM a").await.expect("prepares");
    assert_eq!(fetch.columns()[0].name(), "customer");
    assert_eq!(fails(&client, "FETCH b").await.0, "34000");
    run(&client, "ROLLBACK").await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_writes_text_csv_and_binary() {
    let (server, client) = with_tables().await;
    let data = async |statement: &str| -> Vec<u8> {
        let stream = client
            .copy_out(statement)
            .await
            .unwrap_or_else(|e| panic!("{statement}: {}", describe(&e)));
        stream
            .try_fold(Vec::new(), |mut all, piece| async move {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await
            .unwrap_or_else(|e| panic!("{statement}: {}", describe(&e)))
    };
    for (statement, text) in [
        (
            "COPY market.orders (id, amount) TO STDOUT",
            "1\t10.5000\n2\t\\N\n3\t0.2500\n",
        ),
        (
            "COPY (SELECT id, customer, paid FROM market.orders ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)",
            "id,customer,paid\n1,ann,t\n2,\"b,o\"\"b\",f\n3,cy,\n",
        ),
        (
            "COPY (SELECT id, customer FROM market.orders WHERE id = 1) TO STDOUT (FORMAT csv, FORCE_QUOTE *)",
            "\"1\",\"ann\"\n",
        ),
        (
            "COPY (SELECT E'a\\tb\\\\c\\n', '') TO STDOUT",
            "a\\tb\\\\c\\n\t\n",
        ),
        (
            "COPY (SELECT relname FROM pg_class WHERE relname = 'orders') TO STDOUT",
            "orders\n",
        ),
    ] {
        let mut written: Vec<_> = String::from_utf8(data(statement).await)
            .expect("text")
            .lines()
            .map(str::to_owned)
            .collect();
        if !statement.contains("ORDER BY") && !statement.contains("HEADER") {
            written.sort();
        }
        assert_eq!(written, text.lines().collect::<Vec<_>>(), "{statement}");
    }
    let binary = data("COPY (SELECT 7::int, NULL, 'x') TO STDOUT (FORMAT binary)").await;
    let (head, row) = binary.split_at(19);
    assert_eq!(head, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    assert_eq!(
        row,
        [
            &[0, 3, 0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255, 0, 0, 0, 1][..],
            b"x",
            &[255, 255]
        ]
        .concat()
    );
    for (statement, code) in [
        ("COPY market.orders TO '/tmp/nowhere'", "42501"),
        ("COPY market.orders TO PROGRAM 'cat'", "42501"),
        ("COPY market.nope TO STDOUT", "42P01"),
    ] {
        assert_eq!(fails(&client, statement).await.0, code, "{statement}");
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_keep_their_modes_and_prepared_statements_their_names() {
    let (server, client) = with_tables().await;
    run(&client, "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY").await;
    assert_eq!(
        value(&client, "SHOW TRANSACTION ISOLATION LEVEL").await,
        "serializable"
    );
    assert_eq!(
        fails(
            &client,
            "INSERT INTO market.events VALUES ('2024-01-01', 1)"
        )
        .await
        .0,
        "25006"
    );
    assert_eq!(fails(&client, "SELECT 1").await.0, "25P02");
    run(&client, "ROLLBACK").await;
    assert_eq!(
        value(&client, "SHOW transaction_isolation").await,
        "read committed"
    );
    // What a savepoint undoes are settings, too.
    run(
        &client,
        "BEGIN; SAVEPOINT a; SET LOCAL statement_timeout = 9000",
    )
    .await;
    assert_eq!(value(&client, "SHOW statement_timeout").await, "9s");
    run(&client, "ROLLBACK TO a").await;
    assert_eq!(value(&client, "SHOW statement_timeout").await, "0");
    assert_eq!(fails(&client, "ROLLBACK TO b").await.0, "3B001");
    run(&client, "COMMIT").await;

    run(
        &client,
        "PREPARE p (bigint) AS SELECT customer FROM market.orders WHERE id = $1",
    )
    .await;
    assert_eq!(value(&client, "EXECUTE p (1 + 2)").await, "cy");
    assert_eq!(
        value(&client, "SELECT statement FROM pg_prepared_statements").await,
        "SELECT customer FROM market.orders WHERE id = $1"
    );
    assert_eq!(fails(&client, "EXECUTE p").await.0, "42601");
    assert_eq!(fails(&client, "PREPARE p AS SELECT 1").await.0, "42P05");
    run(&client, "DEALLOCATE p").await;
    assert_eq!(fails(&client, "EXECUTE p (1)").await.0, "26000");
    run(
        &client,
        "LISTEN x; NOTIFY x; UNLISTEN *; BEGIN; LOCK TABLE market.orders; COMMIT; DISCARD ALL",
    )
    .await;

    // Types that only their surroundings say.
    let ids: Vec<i64> = vec![1, 3];
    let found = client
        .query(
            "SELECT id FROM market.orders WHERE id = ANY($1) ORDER BY id LIMIT $2",
            &[&ids, &5i64],
        )
        .await;
    assert_eq!(
        found
            .expect("finds")
            .iter()
            .map(|r| r.get::<_, i64>(0))
            .collect::<Vec<_>>(),
        ids
    );
    assert_eq!(
        value(
            &client,
            "SELECT count(*) FROM market.orders WHERE id = ANY('{1,2}') AND paid = '1'"
        )
        .await,
        "1"
    );
    assert_eq!(
        value(
            &client,
            "SELECT to_char(TIMESTAMP '2024-05-06 07:08:09', 'YYYY-MM-DD HH24:MI')"
        )
        .await,
        "2024-05-06 07:08"
    );
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_are_explained_as_clients_ask() {
    let (server, client) = with_tables().await;
    let plan = async |query: &str| lines(&client, query).await.join("\n");
    let shown = plan("EXPLAIN SELECT customer FROM market.orders WHERE id = 1").await;
    assert!(
        shown.contains("FilterExec: id@0 = 1") && !shown.contains("TableScan"),
        "{shown}"
    );
    let shown = plan("EXPLAIN (VERBOSE, COSTS off) SELECT customer FROM market.orders").await;
    assert!(
        shown.starts_with("logical plan:\n  ") && shown.contains("\nphysical plan:\n  "),
        "{shown}"
    );
    let shown = plan("EXPLAIN (ANALYZE, TIMING) SELECT * FROM market.orders").await;
    assert!(
        shown.contains("output_rows=3") && !shown.contains("logical"),
        "{shown}"
    );
    assert_eq!(
        plan("EXPLAIN SELECT * FROM pg_class").await,
        "Catalog Query"
    );
    // As sqlx asks: JSON, of a statement that was prepared before.
    run(
        &client,
        "PREPARE p AS SELECT id, customer FROM market.orders WHERE id = $1",
    )
    .await;
    for statement in [
        "EXECUTE p (NULL)",
        "EXECUTE p (2)",
        "SELECT * FROM pg_class",
        "SELECT relname FROM pg_class, market.orders",
    ] {
        let shown = plan(&format!("EXPLAIN (FORMAT JSON) {statement}")).await;
        let json: serde_json::Value =
            serde_json::from_str(&shown).unwrap_or_else(|e| panic!("{e}: {shown}"));
        assert!(json[0]["Plan"]["Output"].is_array(), "{statement}: {shown}");
    }
    let prepared = client
        .prepare("EXPLAIN (FORMAT JSON) SELECT * FROM market.orders WHERE id = $1")
        .await
        .expect("prepares");
    assert_eq!(
        (prepared.params(), prepared.columns()[0].type_()),
        (&[Type::INT8][..], &Type::JSON)
    );
    assert_eq!(prepared.columns()[0].name(), "QUERY PLAN");
    for (statement, code) in [
        ("EXPLAIN (SPEED) SELECT 1", "42601"),
        ("EXPLAIN (FORMAT papyrus) SELECT 1", "42601"),
        ("EXPLAIN (ANALYZE maybe) SELECT 1", "42601"),
        ("EXPLAIN (FORMAT yaml) SELECT 1", "0A000"),
        ("EXPLAIN DELETE FROM market.orders", "0A000"),
        ("EXPLAIN EXECUTE p", "42601"),
        ("EXPLAIN EXECUTE q", "26000"),
        ("EXPLAIN SELECT nope FROM market.orders", "42703"),
        (
            "EXPLAIN SELECT CAST('abc' AS INT) FROM market.orders",
            "22P02",
        ),
        (
            "EXPLAIN (FORMAT JSON) SELECT CAST('abc' AS INT) FROM market.orders",
            "22P02",
        ),
    ] {
        assert_eq!(fails(&client, statement).await.0, code, "{statement}");
    }
    drop(server);
}

/// How many data files there are below a directory.
fn data_files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|e| e.path()).collect::<Vec<_>>());
    let count = |path: PathBuf| {
        if path.is_dir() {
            data_files(&path)
        } else {
            usize::from(path.extension().is_some_and(|e| e == "parquet"))
        }
    };
    entries.unwrap_or_default().into_iter().map(count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_changes_follow_their_table() {
    let server = TestServer::start().await;
    let client = server.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    let make = |default: i32| format!("CREATE TABLE t (a INT, b INT DEFAULT \"{default}\")");
    run(&client, &make(1)).await;
    let prepare = async |text: &str| client.prepare(text).await.expect("prepares");
    let insert = prepare("INSERT INTO t (a) VALUES ($1)").await;
    let delete = prepare("DELETE FROM t WHERE a IN (SELECT a FROM t WHERE b = $1)").await;
    let change = async |statement, value: i32| client.execute(statement, &[&value]).await;
    assert_eq!(change(&insert, 10).await.expect("inserted"), 1);
    run(&client, &format!("DROP TABLE t; {}", make(2))).await;
    assert_eq!(change(&insert, 20).await.expect("inserted"), 1);
    let all = "SELECT string_agg(a || ' ' || b, ', ') FROM t";
    assert_eq!(value(&client, all).await, "20 2");
    assert_eq!(change(&delete, 1).await.expect("deleted"), 0);
    assert_eq!(change(&delete, 2).await.expect("deleted"), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_plans_hold_no_files() {
    let (server, client) = with_tables().await;
    let by_id = "SELECT o.customer, (SELECT count(*) FROM market.events) FROM market.orders AS o WHERE id = $1";
    let kept = client.prepare(by_id).await.expect("prepares");
    let view = client
        .prepare("SELECT count(*) FROM market.names")
        .await
        .expect("prepares");
    let ask = async || {
        client
            .query_opt(&kept, &[&4i64])
            .await
            .map(|r| r.map(|r| (r.get::<_, String>(0), r.get::<_, i64>(1))))
    };
    assert_eq!(ask().await.expect("answers"), None);
    let other = server.client().await;
    run(&other, "INSERT INTO market.orders VALUES (4, 'di', 1, true); INSERT INTO market.events VALUES ('2024-01-01', 1)").await;
    assert_eq!(ask().await.expect("answers"), Some(("di".into(), 1)));
    // By bare names, too: of a table whose equal keys are merged, and of one without.
    let near = server.client().await;
    run(&near, "USE market").await;
    for (table, row) in [
        ("orders", "(5, 'eve', 0, NULL)"),
        ("events", "('2024-01-02', 2)"),
        ("EVENTS", "('2024-01-03', 3)"),
    ] {
        let counted = near
            .prepare(&format!("SELECT count(*) FROM {table}"))
            .await
            .expect("prepares");
        let count = async || {
            near.query_one(&counted, &[])
                .await
                .expect("answers")
                .get::<_, i64>(0)
        };
        let before = count().await;
        run(
            &other,
            &format!("INSERT INTO market.{} VALUES {row}", table.to_lowercase()),
        )
        .await;
        assert_eq!(count().await, before + 1, "{table}");
    }
    run(
        &other,
        "DELETE FROM market.orders WHERE id = 5; DELETE FROM market.events WHERE n > 1",
    )
    .await;
    // The table that a recursive query works on is no table of that name.
    let recursive =
        "SELECT count(*) FROM (WITH RECURSIVE events(n) AS (SELECT 1::bigint UNION ALL SELECT n + 1 FROM events WHERE n < 3)
                     SELECT * FROM events) AS x, events";
    assert_eq!(value(&near, recursive).await, "3");
    // Inside a block it reads what the block reads.
    run(&client, "BEGIN").await;
    assert_eq!(ask().await.expect("answers"), Some(("di".into(), 1)));
    run(&other, "DELETE FROM market.orders WHERE id = 4").await;
    assert_eq!(ask().await.expect("answers"), Some(("di".into(), 1)));
    run(&client, "COMMIT").await;
    assert_eq!(ask().await.expect("answers"), None);
    assert_eq!(
        client
            .query_one(&view, &[])
            .await
            .expect("answers")
            .get::<_, i64>(0),
        3
    );
    // A table of the same name and columns is as good, one with others is not.
    let orders =
        "CREATE TABLE market.orders (id BIGINT NOT NULL, customer VARCHAR(20) NOT NULL, amount DECIMAL(18, 4), paid BOOLEAN)
                  PRIMARY KEY (id); INSERT INTO market.orders VALUES (4, 'eli', NULL, NULL)";
    let copy = client
        .prepare("COPY (SELECT * FROM market.orders) TO STDOUT")
        .await
        .expect("prepared");
    run(&other, &format!("DROP TABLE market.orders FORCE; {orders}")).await;
    assert_eq!(ask().await.expect("answers"), Some(("eli".into(), 1)));
    let before = data_files(server.dir.path());
    run(&other, "DROP TABLE market.orders FORCE").await;
    let removed = async {
        while data_files(server.dir.path()) >= before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), removed)
        .await
        .expect("nobody holds the files of the dropped table");
    assert_eq!(
        ask().await.expect_err("gone").code(),
        Some(&SqlState::UNDEFINED_TABLE)
    );
    run(
        &other,
        "CREATE TABLE market.orders (id BIGINT NOT NULL, customer BIGINT) PRIMARY KEY (id)",
    )
    .await;
    let changed = ask().await.expect_err("changed");
    assert_eq!(
        describe(&changed),
        "0A000: cached plan must not change result type"
    );
    // A COPY has promised no columns.
    let sent: Vec<_> = client
        .copy_out(&copy)
        .await
        .expect("it runs")
        .try_collect()
        .await
        .expect("sent");
    assert!(sent.is_empty());
    assert!(
        client
            .query_one(&view, &[])
            .await
            .is_ok_and(|r| r.get::<_, i64>(0) == 0)
    );
}
