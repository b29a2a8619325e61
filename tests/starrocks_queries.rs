//! What is asked of a StarRocks cluster: queries, system tables, statements that are passed on.

use std::time::Duration;

use crate::fake_fe::{FakeFe, Fault, Pace};
use crate::prune::age;
use crate::starrocks::{FAST, Fixture, fixture};
use crate::support::{connect, fails, rows, run};

/// Those statements that read tables of users.
fn selects(statements: &[String]) -> Vec<String> {
    let is_users = |s: &&String| {
        s.starts_with("SELECT") && s.contains("`.`") && !s.contains("information_schema")
    };
    statements.iter().filter(is_users).cloned().collect()
}

/// The last SELECT on a table of users that the cluster was asked.
fn last_select(fe: &FakeFe) -> String {
    fe.model(|m| selects(&m.statements).pop().unwrap_or_default())
}

/// What goes to the cluster as a whole gives what the embedded cluster gives over the same rows.
#[tokio::test(flavor = "multi_thread")]
async fn queries_give_the_same_here_and_there() {
    let w = fixture("3.3.16", Pace::Manual).await;
    let embedded = w.server.client().await;
    run(
        &embedded,
        "CREATE DATABASE shop; CREATE DATABASE old; USE shop",
    )
    .await;
    // A table of the same name in another database.
    w.fe.model(|m| m.copy_database("shop", "old"));
    run(
        &embedded,
        "CREATE TABLE orders (id BIGINT, customer INT, day DATE, amount DECIMAL(10,2), weight DOUBLE, note VARCHAR(100), paid BOOLEAN, at DATETIME);
         CREATE TABLE customers (id INT, name VARCHAR(20), tags STRING)",
    )
    .await;
    for table in ["orders", "customers"] {
        let quoted = |v: &Option<String>| {
            v.as_ref().map_or("NULL".to_owned(), |v| {
                format!("'{}'", v.replace('\'', "''"))
            })
        };
        for row in rows(&w.client, &format!("SELECT * FROM shop.{table}")).await {
            let values: Vec<_> = row.iter().map(quoted).collect();
            run(
                &embedded,
                &format!("INSERT INTO {table} VALUES ({})", values.join(", ")),
            )
            .await;
        }
    }
    run(
        &embedded,
        "CREATE TABLE old.customers (id INT, name VARCHAR(20), tags STRING)",
    )
    .await;
    run(
        &embedded,
        "INSERT INTO old.customers SELECT * FROM customers",
    )
    .await;
    run(&w.client, "USE shop").await;
    // Whether the cluster computes it as a whole; whether it only reads rows there, filtered if
    // that is known to mean the same.
    let (whole, parts) = (true, false);
    for (query, handed_over) in [
        ("SELECT id, note FROM shop.orders WHERE note = 'it''s \\ 4' OR note IS NULL ORDER BY id DESC LIMIT 3 OFFSET 1", whole),
        ("SELECT o.id AS n FROM prod.shop.orders o WHERE o.customer IN (0, 2) AND o.id BETWEEN 2 AND 12 ORDER BY n", whole),
        (
            "SELECT customer, count(*), sum(amount), min(note), max(day), avg(weight) FROM orders GROUP BY customer ORDER BY customer",
            whole,
        ),
        ("SELECT customer, sum(id) AS s FROM orders GROUP BY customer HAVING sum(id) > 40 ORDER BY s DESC NULLS LAST", whole),
        ("SELECT count(DISTINCT customer), count(customer), count(*) FROM orders", whole),
        (
            "SELECT c.name, o.id FROM orders o JOIN customers c ON o.customer = c.id WHERE o.day >= '2026-01-03' ORDER BY o.id",
            whole,
        ),
        ("SELECT o.id, c.name FROM orders o LEFT JOIN customers c ON o.customer = c.id ORDER BY o.id LIMIT 5", whole),
        ("SELECT DISTINCT paid FROM orders ORDER BY paid NULLS FIRST", whole),
        ("SELECT id FROM orders WHERE customer IN (SELECT id FROM customers WHERE name LIKE '%o%') ORDER BY id", whole),
        (
            "SELECT id, CASE WHEN customer = 1 THEN 'one' WHEN customer IS NULL THEN 'none' ELSE 'more' END AS k FROM orders ORDER BY id",
            whole,
        ),
        ("SELECT n FROM (SELECT customer AS n, count(*) AS c FROM orders GROUP BY customer) t WHERE c > 4 ORDER BY n", whole),
        ("SELECT id FROM orders WHERE at > '2026-01-01 10:00:00' AND paid ORDER BY id", whole),
        ("SELECT id + 1 AS next, id * 2 - 1 FROM orders WHERE NOT paid ORDER BY 1", whole),
        ("WITH big AS (SELECT id, amount FROM orders WHERE amount > 10.5) SELECT count(*), max(amount) FROM big", whole),
        ("SELECT id FROM orders UNION ALL SELECT id FROM orders WHERE id < 3 ORDER BY id LIMIT 4", whole),
        ("SELECT name, tags FROM customers ORDER BY id", whole),
        ("SELECT id FROM orders WHERE id < 3 UNION ALL (SELECT id FROM orders ORDER BY id LIMIT 2) ORDER BY 1", whole),
        (
            "SELECT n FROM (SELECT id AS n FROM orders WHERE id < 3 UNION ALL SELECT id FROM orders WHERE id < 2 UNION ALL
             (SELECT id FROM orders ORDER BY id DESC LIMIT 1)) u ORDER BY n DESC",
            whole,
        ),
        ("SELECT id, (customer IS NULL) = (note IS NULL) FROM orders ORDER BY id", whole),
        ("SELECT id, (NOT paid) IS NULL AS a, NOT (paid IS NULL) AS b FROM orders ORDER BY id", whole),
        ("SELECT id FROM orders WHERE (id = 1 OR id = 2) AND (paid OR NOT paid OR paid IS NULL) ORDER BY id", whole),
        ("SELECT id - (id - 5), -1 - id FROM orders WHERE customer IS NOT NULL ORDER BY id", whole),
        (
            "SELECT o.id, b.id, c.name FROM orders o LEFT JOIN (orders b CROSS JOIN customers c) ON o.id = b.id AND b.id < 3
             ORDER BY o.id, c.name",
            whole,
        ),
        // What is computed on the side that may be missing is NULL with the row, not with its own
        // columns.
        (
            "SELECT o.id, x.flag, x.n FROM orders o LEFT JOIN (SELECT id, 1 AS flag, coalesce(name, 'x') AS n FROM customers) x
             ON o.customer = x.id ORDER BY o.id",
            whole,
        ),
        (
            "SELECT o.id, c.name, d.name FROM orders o, customers c JOIN customers d ON d.id = c.id
             WHERE o.customer = c.id ORDER BY o.id",
            whole,
        ),
        (
            "SELECT c.name, count(o.id) FROM customers c FULL JOIN orders o ON o.customer = c.id GROUP BY c.name ORDER BY 2, 1",
            whole,
        ),
        ("SELECT id, customer FROM orders ORDER BY customer + id DESC, id", whole),
        ("SELECT next FROM (SELECT id + 1 AS next FROM orders) WHERE next > 5 ORDER BY next", whole),
        ("SELECT * FROM (SELECT id + 1 FROM orders) t ORDER BY 1", whole),
        ("SELECT k, count(*) FROM (SELECT 100 AS k, id FROM orders) t GROUP BY k ORDER BY k", whole),
        ("SELECT k FROM (SELECT 1 AS k, count(*) AS n FROM orders) t ORDER BY k", whole),
        ("SELECT k + 1 AS k FROM (SELECT 1 AS k, count(*) AS n FROM orders) t LIMIT 5", whole),
        ("SELECT 1 AS one FROM (SELECT count(*) FROM orders) t ORDER BY one", whole),
        ("SELECT max(id), customer, min(id), customer AS again FROM orders GROUP BY customer ORDER BY customer", whole),
        (
            "SELECT count(*) AS n, customer FROM orders GROUP BY customer HAVING count(*) > 1 ORDER BY customer NULLS LAST LIMIT 3",
            whole,
        ),
        ("SELECT id FROM orders WHERE '2026-01-03' BETWEEN day AND day OR day IN ('2026-01-05') ORDER BY id", whole),
        (
            "SELECT id, CASE day WHEN '2026-01-03' THEN 1 ELSE 0 END AS k FROM orders WHERE '2026-01-01 11:00:00' < at ORDER BY id",
            whole,
        ),
        ("SELECT id FROM customers WHERE id IN (SELECT customer FROM orders WHERE id = 3)", whole),
        ("SELECT count(*) FROM (SELECT customer, count(*) FROM orders GROUP BY customer) t", whole),
        ("SELECT count(*) FROM (SELECT id FROM orders ORDER BY id LIMIT 7) t", whole),
        ("SELECT customers.id, b.name FROM customers JOIN old.customers b ON customers.id = b.id ORDER BY 1", whole),
        ("SELECT shop.customers.id, old.customers.name FROM shop.customers, old.customers ORDER BY 1, 2", whole),
        // What means something else there is computed here: a difference of INTs is a BIGINT there.
        ("SELECT id - (customer - 5) FROM orders WHERE customer IS NOT NULL ORDER BY id", parts),
        ("SELECT * FROM orders WHERE id = 3", parts),
        ("SELECT id FROM orders ORDER BY customer = (SELECT max(id) FROM customers) NULLS LAST, id", parts),
        ("SELECT count(*) FROM orders WHERE amount < 10.125", parts),
        ("SELECT customer, count(*) / 2 AS half, min(id) FROM orders GROUP BY customer ORDER BY customer", parts),
        ("SELECT o.id FROM orders o JOIN customers c ON o.customer = c.id WHERE length(o.note) > 1 ORDER BY o.id", parts),
        ("SELECT id FROM (SELECT id FROM orders ORDER BY id DESC LIMIT 9) t WHERE id > 3 LIMIT 4", parts),
        ("SELECT id / 2, length(note), note || '!' FROM orders WHERE id < 4 ORDER BY id", parts),
        ("SELECT upper(name) FROM customers WHERE tags = '[]'", parts),
        ("SELECT id, row_number() OVER (ORDER BY id DESC) FROM orders ORDER BY id LIMIT 2", parts),
        ("SELECT id FROM orders o WHERE EXISTS (SELECT 1 FROM customers c WHERE c.id = o.customer) ORDER BY id", parts),
        ("SELECT date_trunc('month', at), count(*) FROM orders GROUP BY 1", parts),
        ("SELECT sum(amount) FILTER (WHERE paid) FROM orders", parts),
    ] {
        let before = w.fe.model(|m| m.statements.len());
        let there = rows(&w.client, query).await;
        let here = rows(&embedded, &query.replace("prod.shop.", "")).await;
        assert_eq!(there, here, "{query}");
        assert!(!there.is_empty(), "{query}");
        let asked = w.fe.model(|m| selects(&m.statements[before..]));
        let plan = rows(&w.client, &format!("EXPLAIN {query}")).await.concat().into_iter().flatten().collect::<String>();
        let computes = |words: &[&str]| words.iter().any(|word| plan.contains(word));
        if handed_over {
            assert_eq!(asked.len(), 1, "{query}: {asked:#?}");
            // ORDER BY in StarRocks finds the names of the SELECT list first, so no two columns
            // have one.
            let names: Vec<_> = asked[0].split(" AS o").skip(1).filter_map(|rest| rest.split([',', ' ']).next()).collect();
            assert!(names.iter().all(|name| names.iter().filter(|other| other == &name).count() == 1), "{query}: {asked:#?}");
            assert!(!computes(&["AggregateExec", "HashJoinExec", "SortExec", "FilterExec"]), "{query}:\n{plan}");
        } else {
            let foreign = ["/", "length", "||", "upper", "row_number", "EXISTS", "date_trunc", "FILTER", "100"];
            assert!(asked.iter().all(|s| foreign.iter().all(|word| !s.contains(word))), "{query}: {asked:#?}");
            assert!(!asked.is_empty(), "{query}");
        }
    }
    // Joined with the history, the aggregate is computed there and the join here.
    run(&w.client, "BACKUP SNAPSHOT s TO r ON (orders)").await;
    let joined = "SELECT j.snapshot, t.n FROM system.jobs j, (SELECT count(*) AS n FROM orders WHERE id <= 7) t";
    assert_eq!(
        rows(&w.client, joined).await,
        [[Some("s".to_owned()), Some("7".to_owned())]]
    );
    assert_eq!(
        last_select(&w.fe),
        "SELECT count((1)) AS o1_0 FROM `shop`.`orders` AS t1 WHERE (t1.`id` <= (7))"
    );
    // A filter and a limit go along even where only a scan does.
    rows(
        &w.client,
        "SELECT id, length(note) FROM orders WHERE id > 18 AND length(note) > 1",
    )
    .await;
    assert_eq!(
        last_select(&w.fe),
        "SELECT `id`, `note` FROM `shop`.`orders` WHERE (`id` > (18))"
    );
    // Parameters are put in before it goes.
    let row = w
        .client
        .query_one("SELECT name FROM customers WHERE id = $1", &[&2_i32])
        .await
        .expect("a row");
    assert_eq!(row.get::<_, String>(0), "cem");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_queries_end_on_the_cluster() {
    let w = fixture("3.3.16", Pace::Manual).await;
    w.fe.fail("SELECT t1.`id` AS o1_0", Fault::Hold);
    // Given up once it is there: what has not been sent needs no stopping.
    let cancel = w.client.cancel_token();
    let (failed, ()) = tokio::join!(
        fails(&w.client, "SELECT * FROM shop.orders ORDER BY id"),
        async {
            w.fe.holds("SELECT t1.`id` AS o1_0").await;
            cancel
                .cancel_query(tokio_postgres::NoTls)
                .await
                .expect("sent");
        }
    );
    assert_eq!(failed.0, "57014");
    let killed = tokio::time::timeout(Duration::from_secs(10), async {
        while w.fe.effects("KILL QUERY").is_empty() {
            tokio::task::yield_now().await;
        }
    });
    killed.await.expect("the query is stopped there, too");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn system_tables_show_the_cluster() {
    let w = fixture("3.3.16", Pace::Manual).await;
    for (query, answer) in [
        (
            "SELECT name, is_leader, alive, version FROM system.frontends",
            "fe0|t|t|3.3.16-abcdef",
        ),
        (
            "SELECT backend_id, path, alive, tablets, bytes FROM system.backends ORDER BY 1 LIMIT 1",
            "10100|10.0.0.1:9050|t|3|1536",
        ),
        (
            "SELECT name, host, port, alive FROM system.brokers",
            "hdfs_broker|10.0.0.9|8000|t",
        ),
        (
            "SELECT string_agg(db_name, ',' ORDER BY db_name) FROM system.databases",
            "empty,shop",
        ),
        (
            "SELECT table_name, rows, bytes FROM system.tables WHERE db_name = 'shop' AND table_name = 'orders'",
            "orders|20|1024",
        ),
        ("SELECT count(*) FROM system.tables", "2"),
        ("SELECT view_name FROM system.views", "people"),
        (
            "SELECT column_name, type, is_key FROM system.columns WHERE table_name = 'customers' AND position = 2",
            "name|varchar(20)|f",
        ),
        (
            "SELECT count(*), sum(rows), min(kind) FROM system.partitions WHERE table_name = 'orders'",
            "2|20|RANGE",
        ),
        (
            "SELECT partition_name, rows, bytes, files FROM system.tablets WHERE tablet_id = 10111",
            "p2|10|512|3",
        ),
        (
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'shop' AND table_name = 'orders'",
            "8",
        ),
        (
            "SELECT data_type FROM information_schema.columns WHERE table_name = 'orders' AND column_name = 'amount'",
            "numeric",
        ),
        (
            "SELECT table_type FROM information_schema.tables WHERE table_name = 'people'",
            "VIEW",
        ),
    ] {
        let row = rows(&w.client, query).await.remove(0);
        let row: Vec<_> = row.into_iter().map(|v| v.unwrap_or_default()).collect();
        assert_eq!(row.join("|"), answer, "{query}");
    }
    for (show, count) in [
        ("SHOW PARTITIONS FROM shop.orders", 2),
        (
            "SHOW PARTITIONS FROM shop.orders WHERE PartitionName = 'p2'",
            1,
        ),
        ("SHOW TABLET FROM shop.orders", 2),
        ("SHOW TABLET 10110", 1),
        ("SHOW FRONTENDS", 1),
        ("SHOW BACKENDS", 3),
        ("SHOW BROKER", 1),
        ("SHOW TABLES FROM shop", 3),
        ("SHOW DATABASES", 4),
        ("SHOW CREATE TABLE shop.orders", 1),
        ("DESC shop.orders", 8),
    ] {
        assert_eq!(rows(&w.client, show).await.len(), count, "{show}");
    }
    // Filters go along: only the table that is meant is asked about.
    let asked = |w: &Fixture| {
        w.fe.model(|m| {
            m.statements
                .iter()
                .filter(|s| s.starts_with("SHOW PARTITIONS"))
                .count()
        })
    };
    let before = asked(&w);
    rows(
        &w.client,
        "SELECT * FROM system.partitions WHERE db_name = 'shop' AND table_name = 'customers'",
    )
    .await;
    assert_eq!(asked(&w), before + 1);
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passthrough_is_for_administrators() {
    let w = fixture("3.3.16", Pace::Manual).await;
    run(&w.client, "USE shop; SET starkeep.passthrough = on").await;
    run(&w.client, "INSERT INTO customers VALUES (9, 'x', NULL)").await;
    run(&w.client, "CREATE DATABASE more").await;
    // What nothing here can read goes as it is, and what it answers comes back as text.
    let shown = rows(&w.client, "SHOW FULL PROCESSLIST").await;
    assert!(
        shown
            .iter()
            .any(|r| r[8].as_deref() == Some("SHOW FULL PROCESSLIST")),
        "{shown:?}"
    );
    assert_eq!(
        fails(&w.client, "ALTER TABLE customers SHAKE").await.0,
        "42601"
    );
    assert_eq!(
        w.fe.effects("INSERT"),
        ["INSERT INTO customers VALUES (9, 'x', NULL)"]
    );
    assert_eq!(
        w.value("SELECT string_agg(db_name, ',' ORDER BY db_name) FROM system.databases")
            .await,
        "empty,more,shop"
    );
    run(&w.client, "SET starkeep.passthrough = off").await;
    assert_eq!(fails(&w.client, "SHOW FULL PROCESSLIST").await.0, "0A000");
    run(&w.client, "CREATE USER ana").await;
    let ana = connect(w.server.server.addr(), "ana", "dbname=prod")
        .await
        .expect("connects");
    run(&ana, "SET starkeep.passthrough = on").await;
    assert_eq!(fails(&ana, "SHOW FULL PROCESSLIST").await.0, "42501");
    assert_eq!(fails(&ana, "DELETE FROM shop.customers").await.0, "42501");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn external_catalogs_and_other_objects_are_passed_on() {
    let w = fixture("4.2.0", FAST).await;
    run(&w.client, "BACKUP ALL EXTERNAL CATALOGS SNAPSHOT cats TO r").await;
    assert_eq!(w.ends().await, "succeeded");
    assert_eq!(
        w.fe.effects("BACKUP"),
        ["BACKUP ALL EXTERNAL CATALOGS SNAPSHOT `cats` TO `r`"]
    );
    assert_eq!(
        w.value("SELECT db_name FROM system.jobs").await,
        "_external_catalogs"
    );
    assert_eq!(
        rows(&w.client, "SHOW BACKUP").await[0][2].as_deref(),
        Some("")
    );
    run(&w.client, "BACKUP DATABASE shop SNAPSHOT objs TO r ON (TABLE orders, VIEW people) PROPERTIES (\"ttl\" = \"7 DAY\")").await;
    assert_eq!(w.ends().await, "succeeded");
    assert_eq!(
        w.fe.effects("BACKUP")[1],
        "BACKUP SNAPSHOT `shop`.`objs` TO `r` ON (TABLE `orders`, VIEW `people`) PROPERTIES ('ttl' = '7 DAY')"
    );
    // Without a database the snapshot's own is meant; one that is not there is made by the cluster.
    run(
        &w.client,
        "RESTORE SNAPSHOT objs FROM r PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"1\")",
    )
    .await;
    assert_eq!(w.ends().await, "succeeded");
    run(&w.client, "RESTORE SNAPSHOT objs FROM r DATABASE shop AS copy PROPERTIES (\"backup_timestamp\" = \"latest\")").await;
    assert_eq!(w.ends().await, "succeeded");
    assert_eq!(w.value("SELECT count(*) FROM copy.orders").await, "20");
    assert_eq!(
        w.value("SELECT string_agg(db_name, ',' ORDER BY job_id) FROM system.jobs WHERE kind = 'restore'").await,
        "shop,copy"
    );
    run(&w.client, "DROP SNAPSHOT objs ON r FORCE").await;
    assert_eq!(
        rows(&w.client, "SHOW SNAPSHOT ON r WHERE SNAPSHOT = 'objs'")
            .await
            .len(),
        0
    );
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_cost_the_cluster_nothing() {
    let w = fixture("3.3.16", Pace::Manual).await;
    run(&w.client, "BACKUP SNAPSHOT shop.s TO r ON (customers)").await;
    w.until("SELECT native_state FROM system.jobs", "PENDING")
        .await;
    run(
        &w.client,
        "ALTER CLUSTER prod SET (\"poll_fast_ms\" = \"3600000\", \"poll_slow_ms\" = \"3600000\", \"poll_idle_ms\" = \"3600000\")",
    )
    .await;
    let looks = |w: &Fixture| {
        w.fe.model(|m| {
            m.statements
                .iter()
                .filter(|s| s.starts_with("SHOW "))
                .count()
        })
    };
    // The change itself is followed by one last look.
    w.until(
        "SELECT count(*) FROM system.jobs WHERE status = 'running'",
        "1",
    )
    .await;
    let before = looks(&w);
    for _ in 0..4 {
        let other = connect(w.server.server.addr(), "root", "dbname=prod")
            .await
            .expect("connects");
        for _ in 0..5 {
            assert_eq!(
                rows(&other, "SHOW BACKUP").await[0][3].as_deref(),
                Some("PENDING")
            );
            rows(&other, "SELECT * FROM system.jobs").await;
        }
    }
    assert!(
        looks(&w) <= before + 2,
        "{} looks for 40 statements",
        looks(&w) - before
    );
    w.server.stop().await;
}

/// What the last verification found: kind, object, severity; and whether each backup is whole.
async fn found(w: &Fixture, statement: &str) -> (Vec<String>, Vec<String>) {
    run(&w.client, statement).await;
    let id = w.value("SELECT max(job_id) FROM system.jobs").await;
    run(&w.client, &format!("WAIT FOR JOB {id}")).await;
    let lines = async |query: String| {
        let lines = rows(&w.client, &query).await.into_iter().flatten();
        lines.map(Option::unwrap_or_default).collect::<Vec<_>>()
    };
    let findings = format!(
        "SELECT kind || ' ' || object FROM system.repository_findings WHERE job_id = {id} ORDER BY 1"
    );
    let backups = format!(
        "SELECT snapshot || ' ' || ok::text FROM system.verifications WHERE job_id = {id} ORDER BY 1"
    );
    (lines(findings).await, lines(backups).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn starrocks_repositories_are_verified_from_the_bucket() {
    for version in ["3.2.1", "3.5.0"] {
        let w = fixture(version, FAST).await;
        run(&w.client, "BACKUP SNAPSHOT shop.good TO r ON (orders)").await;
        assert_eq!(w.ends().await, "succeeded");
        run(&w.client, "BACKUP SNAPSHOT shop.bad TO r ON (orders)").await;
        assert_eq!(w.ends().await, "succeeded");
        let whole = (
            Vec::<String>::new(),
            vec!["bad true".to_owned(), "good true".to_owned()],
        );
        assert_eq!(found(&w, "VERIFY REPOSITORY r").await, whole, "{version}");

        let root = w.bucket().join("__starrocks_repository_r");
        let bad = root.join("__ss_bad");
        let files = crate::consistency::files(&bad);
        let named = |part: &str| {
            let mut found = files.iter().filter(|f| f.to_string_lossy().contains(part));
            found.next().expect("there").clone()
        };
        let (rows_1, rows_2) = (named("__10110/0200_0.dat"), named("__10111/0200_0.dat"));
        // Other bytes of the same length; another file of the same name; a header that is gone.
        std::fs::write(&rows_1, "rows of 10119").expect("written");
        let twin = rows_2.with_file_name("0200_0.dat.0cc175b9c0f1b6a831c399e269772661");
        std::fs::write(twin, "a").expect("written");
        std::fs::remove_file(named("__10111/meta")).expect("gone");
        // What was not finished, a tablet that nothing names, a snapshot without an end, a stranger.
        std::fs::write(rows_2.with_file_name("0200_0.dat.part"), "r").expect("written");
        // StarRocks would take it for a file of the tablet.
        std::fs::write(rows_1.with_file_name("notes.txt"), "n").expect("written");
        let orphan = rows_2.parent().expect("a directory").with_file_name("__9");
        crate::fake_fe::put(&orphan, "9.hdr", b"header");
        crate::fake_fe::put(
            &root.join("__ss_half/__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5"),
            "5.hdr",
            b"h",
        );
        std::fs::write(root.join("notes"), "n").expect("written");

        let (findings, backups) = found(&w, "VERIFY REPOSITORY r LEVEL FILES").await;
        let kinds: Vec<&str> = findings
            .iter()
            .filter_map(|f| f.split(' ').next())
            .collect();
        let expected = [
            "damaged",
            "foreign",
            "missing",
            "not_restorable",
            "unreferenced",
            "unreferenced",
            "unreferenced",
        ];
        assert_eq!(kinds, expected, "{version}: {findings:?}");
        assert!(findings[1].ends_with("notes"), "{findings:?}");
        assert!(findings[2].contains("__10111/"), "{findings:?}");
        assert!(findings[3].ends_with("__10110/notes.txt"), "{findings:?}");
        assert_eq!(backups, ["bad false", "good true"], "{version}");

        // Only the bytes tell what was changed in place.
        let (findings, _) = found(&w, "VERIFY SNAPSHOT bad ON r").await;
        let damaged = findings.iter().filter(|f| f.starts_with("damaged"));
        assert_eq!(damaged.count(), 2, "{version}: {findings:?}");
        let shown = rows(
            &w.client,
            "SELECT snapshot, last_verified_ok, last_verified_level FROM system.snapshots WHERE status = 'OK' ORDER BY 1",
        )
        .await;
        let shown: Vec<String> = shown
            .iter()
            .map(|r| r.iter().flatten().cloned().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(shown, ["bad f checksum", "good t files"], "{version}");

        // An `__info_` file that does not have the MD5 of its name.
        let info = named("__ss_bad/__info_");
        std::fs::write(&info, "{}").expect("written");
        let (findings, backups) = found(&w, "VERIFY SNAPSHOT bad ON r LEVEL FILES").await;
        assert!(
            findings.iter().any(|f| f.starts_with("manifest_damaged")),
            "{findings:?}"
        );
        assert_eq!(backups, ["bad false"]);
        for (statement, code) in [
            ("VERIFY SNAPSHOT nope ON r", "42704"),
            ("VERIFY REPOSITORY nope", "42704"),
        ] {
            let refused = fails(&w.client, statement);
            let refused = match statement.contains("nope ON") {
                true => {
                    run(&w.client, statement).await;
                    let id = w.value("SELECT max(job_id) FROM system.jobs").await;
                    fails(&w.client, &format!("WAIT FOR JOB {id}")).await
                }
                false => refused.await,
            };
            assert_eq!(refused.0, code, "{statement}: {refused:?}");
        }
        w.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_snapshot_needs_is_pruned_from_the_bucket() {
    for version in ["3.2.1", "4.2.0"] {
        let w = fixture(version, Pace::Manual).await;
        let root = w.bucket().join("__starrocks_repository_r");
        let last =
            "SELECT status FROM system.jobs WHERE kind = 'backup' ORDER BY job_id DESC LIMIT 1";
        run(&w.client, "BACKUP SNAPSHOT shop.good TO r ON (orders)").await;
        w.fe.until(|m| m.slots.contains_key("shop")).await;
        w.fe.model(|m| (0..8).for_each(|_| m.tick()));
        w.until(last, "succeeded").await;
        let files = crate::consistency::files(&root.join("__ss_good"));
        let data = files
            .iter()
            .find(|f| f.to_string_lossy().contains("__10111/0200_0.dat"));
        let data = data.expect("there");
        // A file that was not finished, a tablet that nothing names, a backup without an end, one
        // with something of another's in it.
        std::fs::write(data.with_file_name("0200_0.dat.part"), "r").expect("written");
        let orphan = data.parent().expect("a directory").with_file_name("__9");
        crate::fake_fe::put(&orphan, "9.hdr", b"header");
        let tablet = "__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5";
        for label in ["half", "mixed"] {
            let directory = root.join(format!("__ss_{label}")).join(tablet);
            crate::fake_fe::put(&directory, "5.hdr", b"h");
        }
        std::fs::write(root.join("__ss_mixed/notes.txt"), "n").expect("written");
        // And a backup under way, of which nobody knows how long it has not written.
        run(&w.client, "BACKUP SNAPSHOT shop.live TO r ON (orders)").await;
        w.fe.until(|m| m.slots["shop"].label == "live").await;
        w.fe.model(|m| (0..3).for_each(|_| m.tick()));
        let live = crate::consistency::files(&root.join("__ss_live"));
        assert!(!live.is_empty(), "{version}");

        let pruned = async |statement: &str| {
            run(&w.client, statement).await;
            let id = w.value("SELECT max(job_id) FROM system.jobs").await;
            run(&w.client, &format!("WAIT FOR JOB {id}")).await;
            let told = "SELECT outcome || ' ' || regexp_replace(object, '.*/', '') || ' ' || split_part(object, '/', 1) FROM system.pruned_objects WHERE job_id = ";
            let told = rows(&w.client, &format!("{told}{id} ORDER BY object")).await;
            let told = told.into_iter().flatten().flatten();
            // Without the MD5s.
            told.map(|line| match line.split_once(".hdr.") {
                Some((name, rest)) => format!("{name}.hdr{}", &rest[32..]),
                None => line,
            })
            .collect::<Vec<_>>()
        };
        let in_ten_minutes = "PRUNE REPOSITORY r PROPERTIES (\"grace\" = \"10 MINUTE\")";
        let dry = "PRUNE REPOSITORY r DRY RUN PROPERTIES (\"grace\" = \"10 MINUTE\")";
        assert_eq!(pruned(dry).await, [""; 0], "{version}: just written");
        age(&root, Duration::from_secs(3600));
        let all = |outcome: &str| {
            [
                ("9.hdr", "good"),
                ("0200_0.dat.part", "good"),
                ("5.hdr", "half"),
                ("5.hdr", "mixed"),
            ]
            .map(|(name, label)| format!("{outcome} {name} __ss_{label}"))
            .to_vec()
        };
        let mut told = pruned(dry).await;
        told.sort();
        let mut expected = all("would be deleted");
        expected.sort();
        assert_eq!(told, expected, "{version}");
        let explained = rows(&w.client, &format!("EXPLAIN {in_ten_minutes}")).await;
        let explained: Vec<_> = explained
            .iter()
            .map(|row| row[1].clone().unwrap_or_default())
            .collect();
        assert_eq!(explained, ["good", "half", "mixed"], "{version}");
        assert!(orphan.exists());

        let mut told = pruned(in_ten_minutes).await;
        told.sort();
        let mut expected = all("deleted");
        expected.sort();
        assert_eq!(told, expected, "{version}");
        assert!(
            !root.join("__ss_half").exists(),
            "its label can be used again"
        );
        assert_eq!(
            crate::consistency::files(&root.join("__ss_mixed")),
            [root.join("__ss_mixed/notes.txt")]
        );
        assert_eq!(crate::consistency::files(&root.join("__ss_live")), live);
        assert_eq!(crate::consistency::files(&root.join("__ss_good")), files);
        w.fe.model(|m| (0..8).for_each(|_| m.tick()));
        w.until(last, "succeeded").await;
        let (_, backups) = found(&w, "VERIFY REPOSITORY r").await;
        assert_eq!(backups, ["good true", "live true"], "{version}");

        for (statement, code) in [
            (
                "PRUNE REPOSITORY r PROPERTIES (\"grace\" = \"9 MINUTE\")",
                "22023",
            ),
            (
                "PRUNE REPOSITORY r PROPERTIES (\"wait\" = \"1 MINUTE\")",
                "0A000",
            ),
            ("PRUNE REPOSITORY nope", "42704"),
        ] {
            assert_eq!(fails(&w.client, statement).await.0, code, "{statement}");
        }
        w.server.stop().await;
    }
}

/// What a job of another cluster writes or reads is neither pruned nor dropped from this one.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_other_clusters_keep_their_files() {
    let w = fixture("3.3.16", Pace::Manual).await;
    let root = w.bucket().join("__starrocks_repository_r");
    let other = FakeFe::start("3.5.0", 1, Pace::Manual).await;
    run(&w.client, &other.create("other", "")).await;
    let there = connect(w.server.server.addr(), "root", "dbname=other")
        .await
        .expect("connects");
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER hdfs_broker ON LOCATION \"{}\"",
        w.bucket().display()
    );
    run(&there, &create).await;
    run(&there, "BACKUP SNAPSHOT shop.theirs TO r ON (orders)").await;
    other.until(|m| m.slots.contains_key("shop")).await;
    other.model(|m| (0..3).for_each(|_| m.tick()));
    let files = crate::consistency::files(&root.join("__ss_theirs"));
    assert!(!files.is_empty());
    age(&root, Duration::from_secs(3600));
    let prune = "PRUNE REPOSITORY r PROPERTIES (\"grace\" = \"10 MINUTE\")";
    run(&w.client, prune).await;
    let id = w.value("SELECT max(job_id) FROM system.jobs").await;
    run(&w.client, &format!("WAIT FOR JOB {id}")).await;
    let count = format!("SELECT count(*) FROM system.pruned_objects WHERE job_id = {id}");
    assert_eq!(w.value(&count).await, "0");
    let explained = rows(&w.client, &format!("EXPLAIN {prune}")).await;
    assert!(explained.is_empty(), "{explained:?}");
    let refused = fails(&w.client, "DROP SNAPSHOT theirs ON r FORCE").await;
    let message = "Can not drop snapshot theirs: a backup is writing it";
    assert_eq!(refused, ("55006".to_owned(), message.to_owned()));
    assert_eq!(crate::consistency::files(&root.join("__ss_theirs")), files);
    // One that does not answer may have jobs.
    other.set_up(0, false);
    run(&w.client, prune).await;
    let id = w.value("SELECT max(job_id) FROM system.jobs").await;
    let waits = format!(
        "SELECT block_reason LIKE '%of cluster \"other\"%' FROM system.jobs WHERE job_id = {id}"
    );
    w.until(&waits, "t").await;
    run(&w.client, &format!("CANCEL JOB {id}")).await;
    assert_eq!(
        fails(&w.client, "DROP SNAPSHOT theirs ON r FORCE").await.0,
        "08006"
    );
    assert_eq!(crate::consistency::files(&root.join("__ss_theirs")), files);
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_earlier_versions_are_dropped_from_the_bucket() {
    let w = fixture("3.2.1", Pace::Manual).await;
    let label = |name: &str| {
        w.bucket()
            .join(format!("__starrocks_repository_r/__ss_{name}"))
    };
    let last = "SELECT status FROM system.jobs WHERE kind = 'backup' ORDER BY job_id DESC LIMIT 1";
    run(&w.client, "BACKUP SNAPSHOT shop.s TO r ON (orders)").await;
    // Not while it is written, whoever asks.
    w.fe.until(|m| m.slots.contains_key("shop")).await;
    w.fe.model(|m| (0..3).for_each(|_| m.tick()));
    assert_eq!(w.fe.model(|m| m.slots["shop"].state), "UPLOADING");
    let refused = fails(&w.client, "DROP SNAPSHOT s ON r FORCE").await;
    let message = "Can not drop snapshot s: a backup is writing it";
    assert_eq!(refused, ("55006".to_owned(), message.to_owned()));
    w.fe.model(|m| (0..8).for_each(|_| m.tick()));
    w.until(last, "succeeded").await;

    let refused = fails(&w.client, "DROP SNAPSHOT s ON r").await;
    let message = "Snapshot s in repository r does not record which cluster created it. Use DROP SNAPSHOT ... FORCE to drop it anyway";
    assert_eq!(refused, ("55000".to_owned(), message.to_owned()));
    assert!(label("s").exists());
    run(&w.client, "DROP SNAPSHOT s ON r FORCE").await;
    assert!(!label("s").exists());
    assert_eq!(
        fails(&w.client, "DROP SNAPSHOT s ON r FORCE").await.0,
        "42704"
    );
    let dropped = "SELECT status, snapshot FROM system.jobs WHERE kind = 'drop_snapshot' ORDER BY job_id DESC LIMIT 2";
    assert_eq!(
        rows(&w.client, dropped)
            .await
            .into_iter()
            .flatten()
            .flatten()
            .collect::<Vec<_>>(),
        ["failed", "s", "succeeded", "s"]
    );

    // What a cancelled backup has left keeps its label until it is dropped.
    run(&w.client, "BACKUP SNAPSHOT shop.half TO r ON (orders)").await;
    w.fe.until(|m| m.slots["shop"].label == "half").await;
    w.fe.model(|m| (0..3).for_each(|_| m.tick()));
    run(&w.client, "CANCEL BACKUP FROM shop").await;
    w.until(last, "cancelled").await;
    assert!(label("half").exists());
    let again = "BACKUP SNAPSHOT shop.half TO r ON (orders)";
    assert_eq!(fails(&w.client, again).await.0, "42710");
    // Its backends may still write.
    let (code, _) = fails(&w.client, "DROP SNAPSHOT half ON r FORCE").await;
    assert_eq!(code, "55006");
    age(&label("half"), Duration::from_secs(3600));
    run(&w.client, "DROP SNAPSHOT half ON r FORCE").await;
    run(&w.client, again).await;
    w.fe.model(|m| (0..8).for_each(|_| m.tick()));
    w.until(last, "succeeded").await;
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_on_a_cluster_are_explained() {
    let w = fixture("3.5.0", FAST).await;
    let explained = async |statement: &str| {
        let query = format!("EXPLAIN {statement}");
        let told = rows(&w.client, &query).await.into_iter().map(|row| {
            let value = |at: usize| row[at].clone().unwrap_or_default();
            // Step, object, action, partitions, tablets, severity; and the SQLSTATE of a refusal.
            let code = value(10).get(..5).unwrap_or_default().to_owned();
            let code = if value(9) == "ERROR" {
                code
            } else {
                String::new()
            };
            [value(0), value(1), value(2), value(3), value(4), code].join("|")
        });
        told.collect::<Vec<_>>()
    };
    let backup = "BACKUP SNAPSHOT shop.s TO r ON (orders PARTITION (p1), customers)";
    assert_eq!(
        explained(backup).await,
        [
            "UPLOADING|shop.orders|upload|1|1|",
            "UPLOADING|shop.customers|upload|1|1|",
            "total|s|sum|2|2|",
        ]
    );
    assert!(w.fe.effects("BACKUP").is_empty(), "nothing was begun");
    run(
        &w.client,
        "BACKUP SNAPSHOT shop.s TO r ON (orders, customers)",
    )
    .await;
    assert_eq!(w.ends().await, "succeeded");
    // Every blocker, not only the first.
    let refused =
        explained("BACKUP SNAPSHOT shop.s TO r ON (orders PARTITION (p9), nothing)").await;
    let codes: Vec<&str> = refused
        .iter()
        .filter_map(|r| r.rsplit('|').next())
        .collect();
    assert_eq!(codes[..3], ["42710", "42704", "42P01"], "{refused:?}");
    assert_eq!(
        explained("BACKUP SNAPSHOT shop.t TO nowhere ON (orders)").await[0],
        "check|t|refuse|||42704"
    );

    let latest = "PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"1\")";
    let restore = format!("RESTORE SNAPSHOT shop.s FROM r ON (orders, customers AS copy) {latest}");
    assert_eq!(
        explained(&restore).await,
        [
            "DOWNLOADING|shop.orders|replace|2||",
            "DOWNLOADING|shop.copy|create|1||",
            "total|s|sum|3||",
        ]
    );
    // Which database it is of stands in the snapshot.
    let mut whole = explained(&format!("RESTORE SNAPSHOT s FROM r {latest}")).await;
    whole.sort();
    assert_eq!(
        whole,
        [
            "DOWNLOADING|shop.customers|replace|1||",
            "DOWNLOADING|shop.orders|replace|2||",
            "total|s|sum|3||",
        ]
    );
    let wrong = "RESTORE SNAPSHOT shop.s FROM r ON (orders, nothing) PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"5\")";
    let refused = explained(wrong).await;
    let codes: Vec<&str> = refused
        .iter()
        .filter_map(|r| r.rsplit('|').next())
        .collect();
    assert_eq!(codes[..2], ["55000", "42P01"], "{refused:?}");
    assert!(w.fe.effects("RESTORE").is_empty(), "nothing was begun");

    assert_eq!(
        explained("VERIFY SNAPSHOT s ON r").await,
        ["VERIFYING|s|checksum|||"]
    );
    let dropped = explained("DROP SNAPSHOT s ON r").await;
    assert_eq!(dropped, ["check|s|refuse|||55000", "DELETING|s|delete|||"]);
    assert_eq!(
        explained("DROP SNAPSHOT s ON r FORCE").await,
        ["DELETING|s|delete|||"]
    );
    w.server.stop().await;
}
