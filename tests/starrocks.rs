//! A StarRocks cluster behind the gateway, against the fake frontends of `fake_fe`.

use std::time::Duration;

use tokio_postgres::Client;

use crate::fake_fe::{FakeFe, Fault, Pace, Reply};
use crate::support::{TestServer, connect, fails, rows, run, until, value};

pub const FAST: Pace = Pace::Every(Duration::from_millis(5));

/// A gateway, a cluster behind it under the name prod, and a client of that; and a repository
/// there.
pub struct Fixture {
    pub server: TestServer,
    pub fe: FakeFe,
    pub client: Client,
}

pub async fn fixture(version: &str, pace: Pace) -> Fixture {
    fixture_of(FakeFe::start(version, 1, pace).await, "").await
}

pub async fn fixture_of(fe: FakeFe, more: &str) -> Fixture {
    let server = TestServer::start().await;
    run(&server.client().await, &fe.create("prod", more)).await;
    let client = connect(server.server.addr(), "root", "dbname=prod")
        .await
        .expect("connects");
    let fixture = Fixture { server, fe, client };
    std::fs::create_dir(fixture.bucket()).expect("a directory");
    run(
        &fixture.client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER hdfs_broker ON LOCATION \"{}\"",
            fixture.bucket().display()
        ),
    )
    .await;
    fixture
}

impl Fixture {
    fn bucket(&self) -> std::path::PathBuf {
        FakeFe::location(self.server.dir.path())
    }

    pub async fn value(&self, query: &str) -> String {
        value(&self.client, query).await
    }

    /// Waits until a query answers this.
    pub async fn until(&self, query: &str, answer: &str) {
        until(&self.client, query, answer).await;
    }

    pub async fn ends(&self) -> String {
        self.until(
            "SELECT count(*) FROM system.jobs WHERE status IN ('queued', 'running')",
            "0",
        )
        .await;
        self.value("SELECT status FROM system.jobs ORDER BY job_id DESC LIMIT 1")
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_backs_up_and_restores() {
    for version in ["2.5.22", "3.3.16", "4.2.0"] {
        let w = fixture(version, FAST).await;
        assert_eq!(
            w.value("SELECT version FROM system.clusters WHERE cluster = 'prod'")
                .await,
            version
        );
        run(
            &w.client,
            "USE shop; BACKUP SNAPSHOT s1 TO r ON (orders PARTITION (p1), customers) PROPERTIES (\"timeout\" = \"3600\")",
        )
        .await;
        assert_eq!(w.ends().await, "succeeded", "{version}");
        let job = rows(
            &w.client,
            "SELECT state, objects, native_job_id > 10000, native_state, external, timeout_seconds, snapshot_finished_at >= created_at,
                    native_finished_at > native_created_at, backup_timestamp FROM system.jobs",
        )
        .await;
        let job: Vec<_> = job[0]
            .iter()
            .map(|v| v.clone().unwrap_or_default())
            .collect();
        assert_eq!(
            job[..8],
            [
                "FINISHED",
                "{\"shop.orders PARTITION (p1)\",shop.customers}",
                "t",
                "FINISHED",
                "f",
                "3600",
                "t",
                "t"
            ],
            "{version}"
        );
        assert_eq!(
            job[8].len(),
            23,
            "{version}: the timestamp is told by the repository"
        );
        // The cluster's clock begins in 2026, wherever its times are shown.
        assert_eq!(
            w.value("SELECT native_created_at::varchar LIKE '2026-01-01 00:00:%' FROM system.jobs")
                .await,
            "t",
            "{version}"
        );
        let shown = rows(&w.client, "SHOW BACKUP FROM shop").await;
        assert_eq!(
            shown[0][4].as_deref(),
            Some("[shop.ordersPARTITIONS (p1)], [shop.customers]"),
            "{version}"
        );
        assert_eq!(shown[0][12].as_deref(), Some("[OK]"));
        assert!(
            shown[0][5]
                .as_ref()
                .is_some_and(|t| t.starts_with("2026-01-01 00:00:")),
            "{version}: {shown:?}"
        );
        // Every phase was seen, or passed between two looks; the first and the last are there in
        // any case.
        assert_eq!(
            w.value(
                "SELECT to_state FROM system.job_events WHERE job_id = 1 ORDER BY seq DESC LIMIT 1"
            )
            .await,
            "FINISHED"
        );

        run(
            &w.client,
            "RESTORE SNAPSHOT s1 FROM r ON (customers AS again) PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"auto\")",
        )
        .await;
        assert_eq!(w.ends().await, "succeeded", "{version}");
        let sent = w.fe.effects("RESTORE");
        assert_eq!(
            sent,
            [format!(
                "RESTORE SNAPSHOT `shop`.`s1` FROM `r` ON (`customers` AS `again`) PROPERTIES ('backup_timestamp' = '{}', 'replication_num' = '1')",
                job[8]
            )],
            "{version}"
        );
        assert_eq!(
            w.value("SELECT name FROM shop.again WHERE id = 1").await,
            "bob",
            "{version}"
        );
        let shown = rows(&w.client, "SHOW RESTORE").await;
        assert_eq!(
            (shown[0][1].as_deref(), shown[0][6].as_deref()),
            (Some("s1"), Some("1")),
            "{version}"
        );
        // A later RESTORE hides no BACKUP.
        assert_eq!(rows(&w.client, "SHOW BACKUP").await.len(), 1);
        w.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_come_in_the_clusters_words() {
    let w = fixture("3.3.16", Pace::Manual).await;
    run(&w.client, "USE shop").await;
    for (statement, code, message) in [
        (
            "BACKUP SNAPSHOT shop.x TO nowhere",
            "42704",
            "Repository [nowhere] does not exist",
        ),
        (
            "BACKUP SNAPSHOT gone.x TO r",
            "3F000",
            "Unknown database 'gone'",
        ),
        (
            "BACKUP SNAPSHOT x TO r ON (nothing)",
            "42P01",
            "Incorrect table name 'nothing'",
        ),
        (
            "BACKUP SNAPSHOT x TO r ON (orders PARTITION (p9))",
            "42704",
            "partition[p9] does not exist  in tableorders",
        ),
        (
            "BACKUP SNAPSHOT x TO r PROPERTIES (\"timeout\" = \"1\")",
            "22023",
            "timeout must be at least 10 min",
        ),
        (
            "BACKUP SNAPSHOT x TO r PROPERTIES (\"nonsense\" = \"1\")",
            "22023",
            "Unknown backup job properties: [nonsense]",
        ),
        (
            "BACKUP SNAPSHOT empty.x TO r",
            "55000",
            "Database: empty is empty",
        ),
        (
            "RESTORE SNAPSHOT x FROM r",
            "22023",
            "Missing backup_timestamp property",
        ),
        (
            "CANCEL BACKUP",
            "42704",
            "No backup job is currently running",
        ),
        (
            "CANCEL RESTORE FROM shop",
            "42704",
            "No restore is currently running",
        ),
        (
            "DROP REPOSITORY nowhere",
            "42704",
            "Repository does not exist",
        ),
        // What the version cannot do never gets there.
        (
            "BACKUP SNAPSHOT x TO r ON (VIEW people)",
            "0A000",
            "VIEW people in BACKUP needs StarRocks 3.4; cluster \"prod\" is 3.3.16",
        ),
        (
            "DROP SNAPSHOT x ON r",
            "0A000",
            "DROP SNAPSHOT needs StarRocks 4.2; cluster \"prod\" is 3.3.16",
        ),
        (
            "BACKUP SNAPSHOT x TO r PROPERTIES (\"ttl\" = \"7 DAY\")",
            "0A000",
            "the property \"ttl\" of BACKUP needs StarRocks 4.2; cluster \"prod\" is 3.3.16",
        ),
        (
            "BACKUP SNAPSHOT x TO r PROPERTIES (\"queue\" = \"maybe\")",
            "22023",
            "invalid value of \"queue\": \"maybe\" is not true or false",
        ),
        (
            "INSERT INTO shop.customers VALUES (9, 'x', NULL)",
            "0A000",
            "INSERT INTO on a StarRocks cluster is not supported",
        ),
        (
            "CREATE DATABASE d",
            "0A000",
            "CREATE DATABASE on a StarRocks cluster is not supported",
        ),
        (
            "SHOW SNAPSHOT ON nowhere",
            "42704",
            "Repository [nowhere] does not exist",
        ),
    ] {
        assert_eq!(
            fails(&w.client, statement).await,
            (code.to_owned(), message.to_owned()),
            "{statement}"
        );
    }
    let error = w
        .client
        .batch_execute("BACKUP SNAPSHOT shop.x TO nowhere")
        .await
        .expect_err("refused");
    let detail = error
        .as_db_error()
        .and_then(|e| e.detail())
        .map(str::to_owned)
        .unwrap_or_default();
    assert!(
        detail.starts_with("StarRocks error 1064 (HY000) from 127.0.0.1:"),
        "{detail}"
    );
    assert_eq!(
        w.value("SELECT count(*) FROM system.jobs WHERE status = 'refused' AND state IS NULL")
            .await,
        "11"
    );

    // One job a database: the second is the cluster's to refuse.
    run(&w.client, "BACKUP SNAPSHOT one TO r ON (orders)").await;
    let busy = "Can only run one backup or restore job of a database at same time";
    assert_eq!(
        fails(&w.client, "BACKUP SNAPSHOT two TO r ON (orders)").await,
        ("55006".into(), busy.into())
    );
    assert_eq!(fails(&w.client, "DROP REPOSITORY r").await.0, "55006");
    run(&w.client, "CANCEL BACKUP").await;
    w.until(
        "SELECT status FROM system.jobs WHERE snapshot = 'one'",
        "cancelled",
    )
    .await;
    assert_eq!(
        w.value("SELECT error_message FROM system.jobs WHERE snapshot = 'one'")
            .await,
        "user cancelled"
    );
    assert_eq!(
        rows(&w.client, "SHOW BACKUP").await[0][12].as_deref(),
        Some("[COMMON_ERROR, msg: user cancelled]")
    );

    // A job that ends in an error of its own.
    run(&w.client, "BACKUP SNAPSHOT three TO r ON (orders)").await;
    w.fe.step();
    w.fe.model(|m| m.break_job("shop", "[NOT_FOUND, msg: table 10010 has been dropped]"));
    w.until(
        "SELECT status FROM system.jobs WHERE snapshot = 'three'",
        "failed",
    )
    .await;
    assert_eq!(
        w.value("SELECT error_message FROM system.jobs WHERE snapshot = 'three'")
            .await,
        "table 10010 has been dropped"
    );
    w.fe.model(|m| m.denied = true);
    assert_eq!(
        fails(&w.client, "BACKUP SNAPSHOT four TO r ON (orders)")
            .await
            .0,
        "42501"
    );
    w.server.stop().await;
}

/// The answer to a submission is lost, before or after its effect, or comes late: it is sent until
/// it has arrived, and never again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_submits_nothing_twice() {
    for (kind, statement) in [
        ("BACKUP", "BACKUP SNAPSHOT shop.two TO r ON (orders)"),
        (
            "RESTORE",
            "RESTORE SNAPSHOT shop.one FROM r ON (customers AS again) PROPERTIES (\"backup_timestamp\" = \"latest\")",
        ),
    ] {
        for fault in [Fault::DropBefore, Fault::DropAfter, Fault::Late] {
            let w = fixture("3.3.16", Pace::Every(Duration::from_millis(20))).await;
            run(&w.client, "BACKUP SNAPSHOT shop.one TO r ON (customers)").await;
            assert_eq!(w.ends().await, "succeeded");
            let before = w.fe.effects(kind).len();
            w.fe.fail(kind, fault);
            if fault == Fault::Late {
                let late = async {
                    // The gateway looks whether its statement is still being worked on before the
                    // frontend gets to it.
                    while !w.fe.model(|m| {
                        m.statements
                            .iter()
                            .any(|s| s.starts_with("SHOW FULL PROCESSLIST"))
                    }) {
                        tokio::task::yield_now().await;
                    }
                    w.fe.go_on();
                };
                tokio::join!(run(&w.client, statement), late);
            } else {
                run(&w.client, statement).await;
            }
            assert_eq!(w.ends().await, "succeeded", "{kind} {fault:?}");
            assert_eq!(w.fe.effects(kind).len(), before + 1, "{kind} {fault:?}");
            assert_eq!(
                w.value("SELECT count(*) FROM system.jobs").await,
                "2",
                "{kind} {fault:?}: nothing was taken for somebody else's"
            );
            w.server.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_others_are_in_the_history() {
    let w = fixture("3.5.2", Pace::Manual).await;
    let said =
        w.fe.say(Some("shop"), "BACKUP SNAPSHOT shop.theirs TO r ON (orders)");
    assert!(matches!(said, Reply::Ok { .. }), "{said:?}");
    w.until("SELECT status FROM system.jobs WHERE external", "running")
        .await;
    assert_eq!(
        rows(
            &w.client,
            "SELECT kind, db_name, snapshot, repository, statement FROM system.jobs"
        )
        .await[0],
        [Some("backup"), Some("shop"), Some("theirs"), None, None].map(|v| v.map(str::to_owned))
    );
    for _ in 0..6 {
        w.fe.step();
    }
    w.until("SELECT status FROM system.jobs WHERE external", "succeeded")
        .await;
    // What was there is not found again after a start, and a second one under the same label is
    // another job.
    let dir = w.server.stop().await;
    let server = TestServer::start_in(dir, |_| {}).await;
    let client = connect(server.server.addr(), "root", "dbname=prod")
        .await
        .expect("connects");
    run(&client, "BACKUP SNAPSHOT shop.ours TO r ON (orders)").await;
    for _ in 0..6 {
        w.fe.step();
    }
    let w = Fixture {
        server,
        fe: w.fe,
        client,
    };
    w.until(
        "SELECT status FROM system.jobs WHERE snapshot = 'ours'",
        "succeeded",
    )
    .await;
    assert_eq!(w.value("SELECT count(*) FROM system.jobs").await, "2");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_for_their_turn() {
    let w = fixture("3.3.16", Pace::Manual).await;
    run(&w.client, "USE shop; BACKUP SNAPSHOT one TO r ON (orders)").await;
    for label in ["two", "three", "four"] {
        run(
            &w.client,
            &format!("BACKUP SNAPSHOT {label} TO r ON (orders) PROPERTIES (\"queue\" = \"true\")"),
        )
        .await;
    }
    let positions =
        "SELECT snapshot, queue_position FROM system.jobs WHERE status = 'queued' ORDER BY job_id";
    let waiting = rows(&w.client, positions).await;
    let waiting: Vec<_> = waiting
        .iter()
        .map(|r| (r[0].as_deref().unwrap_or(""), r[1].as_deref().unwrap_or("")))
        .collect();
    assert_eq!(waiting, [("two", "1"), ("three", "2"), ("four", "3")]);
    w.until(
        "SELECT block_reason FROM system.jobs WHERE snapshot = 'two'",
        "waits for job 1, a backup of one, which is PENDING",
    )
    .await;
    // The one that runs is what SHOW BACKUP shows, not those that wait.
    assert_eq!(
        rows(&w.client, "SHOW BACKUP").await[0][1].as_deref(),
        Some("one")
    );
    // One that waits is given up by its number; without a running job CANCEL BACKUP means the first
    // that waits.
    run(&w.client, "CANCEL JOB 3").await;
    assert_eq!(
        w.value("SELECT status FROM system.jobs WHERE snapshot = 'three'")
            .await,
        "cancelled"
    );
    assert_eq!(fails(&w.client, "CANCEL JOB 3").await.0, "55000");
    assert_eq!(w.fe.effects("BACKUP").len(), 1);
    // A restart changes nothing about the queue.
    let Fixture { server, fe, .. } = w;
    let dir = server.stop().await;
    let server = TestServer::start_in(dir, |_| {}).await;
    let client = connect(server.server.addr(), "root", "dbname=prod")
        .await
        .expect("connects");
    let w = Fixture { server, fe, client };
    assert_eq!(
        w.value("SELECT string_agg(snapshot, ',' ORDER BY job_id) FROM system.jobs WHERE status = 'queued'").await,
        "two,four"
    );
    for label in ["one", "two", "four"] {
        w.until(
            &format!("SELECT status FROM system.jobs WHERE snapshot = '{label}'"),
            "running",
        )
        .await;
        w.until("SELECT count(*) FROM system.jobs WHERE status = 'running' AND native_state IS NOT NULL", "1").await;
        for _ in 0..6 {
            w.fe.step();
        }
        w.until(
            &format!("SELECT status FROM system.jobs WHERE snapshot = '{label}'"),
            "succeeded",
        )
        .await;
    }
    assert_eq!(w.fe.effects("BACKUP").len(), 3);
    // Somebody else's job is waited for, too.
    w.fe.say(Some("shop"), "BACKUP SNAPSHOT shop.theirs TO r ON (orders)");
    run(
        &w.client,
        "BACKUP SNAPSHOT shop.five TO r ON (orders) PROPERTIES (\"queue\" = \"true\")",
    )
    .await;
    w.until(
        "SELECT block_reason LIKE 'waits for % of theirs%, which is PENDING' FROM system.jobs WHERE snapshot = 'five'",
        "t",
    )
    .await;
    for _ in 0..6 {
        w.fe.step();
    }
    w.until(
        "SELECT status FROM system.jobs WHERE snapshot = 'five'",
        "running",
    )
    .await;
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_ends_are_found_in_repository() {
    let w = fixture("3.3.16", Pace::Manual).await;
    run(&w.client, "USE shop; BACKUP SNAPSHOT one TO r ON (orders)").await;
    w.until(
        "SELECT native_state FROM system.jobs WHERE snapshot = 'one'",
        "PENDING",
    )
    .await;
    // It ends and its slot is taken by another before anyone looks.
    w.fe.model(|m| {
        for _ in 0..6 {
            m.tick();
        }
        let mut other = m.slots["shop"].clone();
        other.label = "other".into();
        other.state = "PENDING";
        m.slots.insert("shop".into(), other);
    });
    w.until(
        "SELECT status FROM system.jobs WHERE snapshot = 'one'",
        "succeeded",
    )
    .await;
    assert_eq!(
        w.value("SELECT length(backup_timestamp) FROM system.jobs WHERE snapshot = 'one'")
            .await,
        "23"
    );
    // Without a snapshot nobody can tell.
    w.fe.model(|m| m.slots.clear());
    w.until(
        "SELECT count(*) FROM system.jobs WHERE status = 'running'",
        "0",
    )
    .await;
    assert_eq!(
        w.value("SELECT error_message FROM system.jobs WHERE snapshot = 'other'")
            .await,
        "the cluster has no job of this database any more; the job was last seen in PENDING; its repository is not known"
    );
    run(&w.client, "BACKUP SNAPSHOT two TO r ON (orders)").await;
    w.until(
        "SELECT native_state FROM system.jobs WHERE snapshot = 'two'",
        "PENDING",
    )
    .await;
    w.fe.model(|m| m.slots.clear());
    w.until(
        "SELECT status FROM system.jobs WHERE snapshot = 'two'",
        "lost",
    )
    .await;
    assert_eq!(
        w.value("SELECT error_message FROM system.jobs WHERE snapshot = 'two'")
            .await,
        "the cluster has no job of this database any more; the job was last seen in PENDING; there is no whole snapshot two in repository r"
    );
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_frontends_are_replaced() {
    let fe = FakeFe::start("3.3.16", 3, Pace::Manual).await;
    let w = fixture_of(fe, "").await;
    let ports = w.fe.addresses();
    let address = |n: usize| ports.split(',').nth(n).expect("a port").to_owned();
    assert_eq!(
        w.value("SELECT leader FROM system.clusters WHERE cluster = 'prod'")
            .await,
        address(0)
    );
    run(
        &w.client,
        "USE shop; BACKUP SNAPSHOT one TO r ON (customers)",
    )
    .await;
    w.fe.step();
    w.until(
        "SELECT native_state FROM system.jobs WHERE snapshot = 'one'",
        "SNAPSHOTING",
    )
    .await;
    let first = w.value("SELECT native_job_id FROM system.jobs").await;
    // The leader dies; another takes over and begins the phase anew, under another id. It is the
    // same job.
    w.fe.model(|m| m.fail_over());
    w.fe.lead(1);
    w.fe.set_up(0, false);
    w.until(
        "SELECT native_state FROM system.jobs WHERE snapshot = 'one'",
        "PENDING",
    )
    .await;
    w.until(
        "SELECT leader FROM system.clusters WHERE cluster = 'prod'",
        &address(1),
    )
    .await;
    for _ in 0..6 {
        w.fe.step();
    }
    assert_eq!(w.ends().await, "succeeded");
    assert_ne!(
        w.value("SELECT native_job_id FROM system.jobs").await,
        first
    );
    // SHOW RESTORE is asked of the leader: the followers of the fake cluster would tell old news.
    run(&w.client, "RESTORE SNAPSHOT one FROM r ON (customers AS again) PROPERTIES (\"backup_timestamp\" = \"latest\")").await;
    for _ in 0..6 {
        w.fe.step();
    }
    assert_eq!(w.ends().await, "succeeded");
    // All of them are down: an error with the addresses, history all the same, and nothing waits.
    for number in 0..3 {
        w.fe.set_up(number, false);
    }
    let (code, message) = fails(&w.client, "BACKUP SNAPSHOT two TO r ON (customers)").await;
    assert_eq!(code, "08006");
    assert!((0..3).all(|n| message.contains(&address(n))), "{message}");
    assert_eq!(rows(&w.client, "SHOW BACKUP").await.len(), 1);
    assert_eq!(rows(&w.client, "SHOW BACKUP FROM shop").await.len(), 1);
    assert_eq!(
        fails(&w.client, "SELECT * FROM shop.customers").await.0,
        "08006"
    );
    let clusters = rows(
        &w.client,
        "SELECT reachable, error IS NOT NULL FROM system.clusters WHERE cluster = 'prod'",
    )
    .await;
    assert_eq!(clusters, [[Some("f".to_owned()), Some("t".to_owned())]]);
    assert_eq!(
        w.value("SELECT status FROM system.jobs WHERE snapshot = 'two'")
            .await,
        "refused"
    );
    w.fe.set_up(2, true);
    w.until(
        "SELECT reachable FROM system.clusters WHERE cluster = 'prod'",
        "t",
    )
    .await;
    w.server.stop().await;
}

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
            "SELECT backend_id, path, alive, tablets, bytes FROM system.backends",
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
        ("SHOW BACKENDS", 1),
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
async fn stored_snapshots_are_read_without_cluster() {
    for version in ["3.3.16", "4.2.0"] {
        let w = fixture(version, FAST).await;
        run(
            &w.client,
            "BACKUP SNAPSHOT shop.whole TO r ON (orders, customers)",
        )
        .await;
        assert_eq!(w.ends().await, "succeeded");
        let root = w.bucket().join("__starrocks_repository_r");
        let label = root.join("__ss_whole");
        let info = std::fs::read_dir(&label)
            .expect("listed")
            .map(|e| e.expect("an entry").path());
        let info = info
            .into_iter()
            .find(|p| p.to_string_lossy().contains("__info_"))
            .expect("the info file");
        // Beside it: one that was never finished, one that is damaged, and what is nobody's.
        std::fs::create_dir_all(root.join("__ss_half/__ss_content")).expect("made");
        crate::fake_fe::put(
            &root.join("__ss_half/__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5"),
            "0_0.dat",
            b"rows",
        );
        std::fs::write(
            root.join("__ss_half/__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5/5.hdr.part"),
            "he",
        )
        .expect("written");
        std::fs::create_dir_all(root.join("__ss_damaged")).expect("made");
        let name = info.file_name().expect("a name");
        std::fs::write(root.join("__ss_damaged").join(name), "{}").expect("written");
        std::fs::write(label.join("notes.txt"), "hello").expect("written");

        let list = "SELECT snapshot, status, db_name, tables, partitions, files, bytes_total > 0, cluster FROM system.snapshots
                    WHERE repository = 'r' ORDER BY snapshot";
        let shown = rows(&w.client, list).await;
        let shown: Vec<String> = shown
            .into_iter()
            .map(|r| {
                r.into_iter()
                    .map(|v| v.unwrap_or_default())
                    .collect::<Vec<_>>()
                    .join("|")
            })
            .collect();
        let damaged = shown[0]
            .strip_prefix("damaged|ERROR: Failed to get info: md5sum does not equal. local: ");
        assert!(
            damaged.is_some_and(|rest| rest.contains("remote: ")),
            "{shown:?}"
        );
        assert_eq!(shown[1], "half|ERROR: no snapshot||||2|t|prod", "{version}");
        assert_eq!(shown[2], "whole|OK|shop|2|3|9|t|prod", "{version}");
        let sizes = "SELECT table_name, partition_name, count(*), sum(bytes), min(length(checksum)) FROM system.snapshot_files
                     WHERE snapshot = 'whole' AND table_name IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2";
        let shown = rows(&w.client, sizes).await;
        let shown: Vec<String> = shown
            .into_iter()
            .map(|r| {
                r.into_iter()
                    .map(|v| v.unwrap_or_default())
                    .collect::<Vec<_>>()
                    .join("|")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "customers|customers|2|19|32",
                "orders|p1|2|19|32",
                "orders|p2|2|19|32"
            ],
            "{version}"
        );
        let odd = "SELECT string_agg(status || ' ' || path, ', ' ORDER BY path) FROM system.snapshot_files WHERE status <> 'OK'";
        assert_eq!(
            w.value(odd).await,
            "PARTIAL __ss_half/__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5/5.hdr.part, FOREIGN __ss_whole/notes.txt"
        );
        let listed = rows(&w.client, "SHOW SNAPSHOT ON r WHERE SNAPSHOT = 'whole'").await;
        assert_eq!(
            (listed[0][0].as_deref(), listed[0][2].as_deref()),
            (Some("whole"), Some("OK"))
        );
        assert_eq!(
            listed[0][3].as_deref(),
            if version == "4.2.0" { Some("77") } else { None }
        );
        let timestamp = listed[0][1].clone().expect("a timestamp");
        let details = rows(
            &w.client,
            &format!("SHOW SNAPSHOT ON r WHERE SNAPSHOT = 'whole' AND TIMESTAMP = '{timestamp}'"),
        )
        .await;
        assert!(
            details[0][3]
                .as_ref()
                .is_some_and(|d| d.contains("\"orders\"") && d.contains("\"p1\"")),
            "{details:?}"
        );
        // A half-written info file stops StarRocks from reading the snapshot, and is told.
        std::fs::write(label.join(format!("__info_{timestamp}.part")), "{").expect("written");
        let told = w
            .value("SELECT status FROM system.snapshots WHERE snapshot = 'whole'")
            .await;
        assert_eq!(
            told,
            format!("ERROR: Failed to get info: __info_{timestamp}.part is in the way")
        );
        std::fs::remove_file(label.join(format!("__info_{timestamp}.part"))).expect("removed");

        // Storage that is not reached from here refuses nothing: the cluster tells.
        let elsewhere = w.server.dir.path().join("elsewhere");
        std::fs::rename(w.bucket(), &elsewhere).expect("moved");
        let why = w.value("SELECT error FROM system.repositories").await;
        assert!(why.contains("No such file or directory"), "{why}");
        assert_eq!(rows(&w.client, "SHOW SNAPSHOT ON r").await.len(), 0);
        let why = w.value("SELECT status FROM system.snapshot_files").await;
        assert!(
            why.starts_with("ERROR: ") && why.contains("No such file or directory"),
            "{why}"
        );
        std::fs::rename(&elsewhere, w.bucket()).expect("moved back");

        // The cluster is gone; what it wrote is there under another name.
        let root = w.server.client().await;
        run(
            &root,
            "CREATE CLUSTER attic PROPERTIES (\"type\" = \"none\")",
        )
        .await;
        let attic = connect(w.server.server.addr(), "root", "dbname=attic")
            .await
            .expect("connects");
        run(
            &attic,
            &format!(
                "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
                w.bucket().display()
            ),
        )
        .await;
        assert_eq!(
            value(
                &attic,
                "SELECT tables FROM system.snapshots WHERE cluster = 'attic' AND snapshot = 'whole'"
            )
            .await,
            "2"
        );
        assert_eq!(rows(&attic, "SHOW SNAPSHOT ON r").await.len(), 3);
        assert_eq!(
            rows(&attic, "SHOW REPOSITORIES").await[0][1].as_deref(),
            Some("r")
        );
        for refused in [
            "BACKUP SNAPSHOT d.x TO r",
            "CREATE DATABASE d",
            "SHOW BACKUP FROM d",
        ] {
            let (code, _) = fails(&attic, refused).await;
            assert!(
                ["0A000", "3F000"].contains(&code.as_str()),
                "{refused}: {code}"
            );
        }
        let nowhere = fails(
            &attic,
            "CREATE REPOSITORY s WITH BROKER ON LOCATION \"/nope\"",
        )
        .await;
        assert!(
            nowhere.1.starts_with("Failed to create repository: "),
            "{nowhere:?}"
        );
        run(&attic, "DROP REPOSITORY r").await;
        w.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_reached_with_properties_of_its_own() {
    use crate::support::{BUCKET, S3};
    let (w, s3) = (fixture("3.3.16", Pace::Manual).await, S3::start().await);
    // Created past the gateway: the cluster knows how it is reached, and the gateway does not.
    w.fe.say(
        None,
        &format!("CREATE REPOSITORY theirs WITH BROKER b ON LOCATION \"s3://{BUCKET}/x\""),
    );
    let why = "SELECT error FROM system.repositories WHERE repository = 'theirs'";
    // StarRocks would write it as it is.
    let key = format!("\"encryption.key\" = \"{}\"", "1".repeat(64));
    for statement in [
        format!(
            "CREATE REPOSITORY q WITH BROKER b ON LOCATION \"s3://{BUCKET}/y\" PROPERTIES (\"encryption\" = \"aes256-gcm\", {key})"
        ),
        format!("ALTER REPOSITORY theirs SET PROPERTIES ({key})"),
    ] {
        assert_eq!(fails(&w.client, &statement).await.0, "0A000", "{statement}");
    }
    assert_eq!(
        w.value(why).await,
        "its storage properties are not known here; ALTER REPOSITORY … SET PROPERTIES (…) gives them"
    );
    let root = s3.root.join(BUCKET).join("x/__starrocks_repository_theirs");
    std::fs::create_dir_all(&root).expect("made");
    std::fs::write(
        root.join("__repo_info"),
        "{\"name\":\"theirs\",\"create_time\":\"2026-01-01 08:00:00\"}",
    )
    .expect("written");
    let info =
        br#"{"name":"s","database":"d","id":1,"backup_time":1767225600000,"backup_objects":{}}"#;
    crate::fake_fe::put(&root.join("__ss_s"), "__info_2026-01-01-00-00-00-000", info);
    crate::fake_fe::put(&root.join("__ss_s"), "__meta", b"meta");
    run(
        &w.client,
        &format!(
            "ALTER REPOSITORY theirs SET PROPERTIES ({})",
            s3.properties()
        ),
    )
    .await;
    assert_eq!(w.value(why).await, "");
    let found = "SELECT snapshot || ' ' || db_name || ' ' || status FROM system.snapshots WHERE repository = 'theirs'";
    assert_eq!(w.value(found).await, "s d OK");
    assert_eq!(
        fails(
            &w.client,
            "ALTER REPOSITORY nowhere SET PROPERTIES (\"a\" = \"b\")"
        )
        .await
        .0,
        "42704"
    );
    assert_eq!(fails(&w.client, "ALTER REPOSITORY theirs").await.0, "42601");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_are_created_changed_and_dropped() {
    let fe = FakeFe::start("3.3.16", 1, Pace::Manual).await;
    let server = TestServer::start().await;
    let root = server.client().await;
    for (statement, code, message) in [
        (
            "CREATE CLUSTER c PROPERTIES (\"fe\" = \"x y\")",
            "22023",
            "invalid value of cluster property \"fe\": \"x y\" is not host:port",
        ),
        (
            "CREATE CLUSTER c PROPERTIES (\"fe\" = \"x\", \"colour\" = \"red\")",
            "22023",
            "unknown cluster property \"colour\"",
        ),
        (
            "CREATE CLUSTER c PROPERTIES (\"type\" = \"none\", \"fe\" = \"x\")",
            "22023",
            "invalid value of cluster property \"fe\": a cluster of type \"none\" has no other properties",
        ),
        (
            "CREATE CLUSTER embedded PROPERTIES (\"fe\" = \"x\")",
            "42710",
            "cluster \"embedded\" already exists",
        ),
        (
            "ALTER CLUSTER c SET (\"fe\" = \"x\")",
            "42704",
            "cluster \"c\" does not exist",
        ),
        (
            "ALTER CLUSTER embedded SET (\"fe\" = \"x\")",
            "55000",
            "cluster \"embedded\" was not created by a statement",
        ),
        ("DROP CLUSTER c", "42704", "cluster \"c\" does not exist"),
    ] {
        assert_eq!(
            fails(&root, statement).await,
            (code.to_owned(), message.to_owned()),
            "{statement}"
        );
    }
    for syntax in [
        "CREATE CLUSTER c",
        "CREATE CLUSTER c PROPERTIES ()",
        "ALTER CLUSTER c",
        "CANCEL JOB x",
    ] {
        assert_eq!(fails(&root, syntax).await.0, "42601", "{syntax}");
    }
    // A cluster that is down is created all the same, and tells.
    run(&root, "CREATE CLUSTER prod PROPERTIES (\"fe\" = \"127.0.0.1:1\", \"user\" = \"keeper\", \"password\" = \"wrong\")").await;
    assert_eq!(
        value(
            &root,
            "SELECT reachable FROM system.clusters WHERE cluster = 'prod'"
        )
        .await,
        "f"
    );
    let prod = connect(server.server.addr(), "root", "dbname=prod")
        .await
        .expect("connects");
    assert_eq!(fails(&prod, "USE shop").await.0, "08006");
    let alive = prod
        .prepare("SELECT count(*) FROM system.backends WHERE alive")
        .await
        .expect("prepares");
    assert!(
        prod.query_one(&alive, &[])
            .await
            .is_err_and(|e| e.code().is_some_and(|c| c.code() == "08006"))
    );
    run(
        &root,
        &format!("ALTER CLUSTER prod SET (\"fe\" = \"{}\")", fe.addresses()),
    )
    .await;
    let told = value(
        &root,
        "SELECT error FROM system.clusters WHERE cluster = 'prod'",
    )
    .await;
    assert!(
        told.contains("Access denied") && !told.contains("wrong"),
        "{told}"
    );
    run(
        &root,
        &format!(
            "ALTER CLUSTER prod SET PROPERTIES (\"password\" = \"{}\", \"poll_idle_ms\" = \"20\")",
            crate::fake_fe::PASSWORD
        ),
    )
    .await;
    // What was prepared before asks the cluster as it is now.
    assert!(
        prod.query_one(&alive, &[])
            .await
            .expect("answers")
            .get::<_, i64>(0)
            > 0
    );
    let shown = rows(&root, "SHOW CLUSTERS").await;
    let shown: Vec<_> = shown[1]
        .iter()
        .map(|v| v.clone().unwrap_or_default())
        .collect();
    assert_eq!(
        shown,
        [
            "prod",
            "starrocks",
            &fe.addresses(),
            "3.3.16",
            &fe.addresses(),
            "true",
            "well",
            "0",
            ""
        ]
    );
    // Its password is nowhere to be seen.
    for query in [
        "SELECT * FROM system.settings",
        "SELECT statement FROM system.sessions",
        "SELECT * FROM system.jobs",
        "SELECT * FROM system.clusters",
    ] {
        assert!(
            !format!("{:?}", rows(&root, query).await).contains(crate::fake_fe::PASSWORD),
            "{query}"
        );
    }
    let prod = connect(server.server.addr(), "root", "dbname=prod")
        .await
        .expect("connects");
    assert_eq!(value(&prod, "SELECT current_database()").await, "prod");
    assert_eq!(fails(&prod, "DROP CLUSTER prod").await.0, "55006");
    // A running job holds it; the history stays when it goes.
    run(
        &prod,
        &format!(
            "CREATE REPOSITORY r WITH BROKER b ON LOCATION \"{}\"",
            server.dir.path().join("b").display()
        ),
    )
    .await;
    run(&prod, "BACKUP SNAPSHOT shop.s TO r ON (customers)").await;
    assert_eq!(fails(&root, "DROP CLUSTER prod").await.0, "55006");
    run(&prod, "CANCEL BACKUP FROM shop").await;
    until(&root, "SELECT status FROM system.jobs", "cancelled").await;
    // Only an administrator does any of this.
    run(&root, "CREATE USER ana; GRANT REPOSITORY ON SYSTEM TO ana").await;
    let ana = connect(server.server.addr(), "ana", "dbname=prod")
        .await
        .expect("connects");
    assert_eq!(
        fails(&ana, "ALTER CLUSTER prod SET (\"user\" = \"ana\")")
            .await
            .0,
        "42501"
    );
    // What she may on the cluster is asked here: it knows one user only.
    assert_eq!(
        fails(&ana, "BACKUP SNAPSHOT shop.t TO r ON (customers)")
            .await
            .0,
        "42501"
    );
    assert_eq!(fails(&ana, "SELECT * FROM shop.customers").await.0, "42501");
    run(&prod, "GRANT EXPORT, SELECT ON TABLE shop.customers TO ana").await;
    run(&ana, "BACKUP SNAPSHOT shop.t TO r ON (customers)").await;
    assert_eq!(fails(&ana, "BACKUP SNAPSHOT shop.u TO r").await.0, "42501");
    assert_eq!(
        value(&ana, "SELECT count(*) FROM shop.customers").await,
        "3"
    );
    run(&ana, "CANCEL BACKUP FROM shop").await;
    until(
        &root,
        "SELECT count(*) FROM system.jobs WHERE status = 'cancelled'",
        "2",
    )
    .await;
    run(&root, "DROP CLUSTER prod").await;
    assert_eq!(
        value(
            &root,
            "SELECT count(*) FROM system.jobs WHERE cluster = 'prod' AND status = 'cancelled'"
        )
        .await,
        "2"
    );
    assert!(
        connect(server.server.addr(), "root", "dbname=prod")
            .await
            .is_err()
    );
    server.stop().await;
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
            .any(|r| r[4].as_deref() == Some("SHOW FULL PROCESSLIST")),
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
        "RESTORE SNAPSHOT objs FROM r PROPERTIES (\"backup_timestamp\" = \"latest\")",
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

/// A cluster of the settings file, over TLS.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_the_frontends_is_encrypted() {
    use starkeep::settings::{ClusterSettings, Scalar};
    let key =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let der = key.cert.der().clone();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![der],
            key.signing_key.serialize_der().try_into().expect("a key"),
        )
        .expect("fits");
    let tls = std::sync::Arc::new(tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config)));
    let (fe, plain) = (
        FakeFe::start_with("3.3.16", 1, Pace::Manual, Some(tls)).await,
        FakeFe::start("3.3.16", 1, Pace::Manual).await,
    );
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, key.cert.pem()).expect("written");
    let port = |fe: &FakeFe| {
        fe.addresses()
            .rsplit(':')
            .next()
            .expect("a port")
            .to_owned()
    };
    let cluster = |name: &str, fe: String, more: &[(&str, &str)]| {
        let mut properties = vec![
            ("fe", fe.as_str()),
            ("password", crate::fake_fe::PASSWORD),
            ("connect_timeout_seconds", "3"),
        ];
        properties.extend(more);
        let properties = properties
            .iter()
            .map(|(k, v)| ((*k).to_owned(), Scalar::Text((*v).to_owned())))
            .collect();
        ClusterSettings {
            name: name.into(),
            properties,
        }
    };
    let ca = ca.display().to_string();
    let server = TestServer::start_in(dir, |settings| {
        settings.cluster = vec![
            cluster(
                "verified",
                format!("localhost:{}", port(&fe)),
                &[("tls", "verify"), ("tls_ca", &ca)],
            ),
            cluster(
                "unknown",
                format!("localhost:{}", port(&fe)),
                &[("tls", "verify")],
            ),
            cluster(
                "other_name",
                format!("127.0.0.1:{}", port(&fe)),
                &[("tls", "verify"), ("tls_ca", &ca)],
            ),
            cluster(
                "any",
                format!("127.0.0.1:{}", port(&fe)),
                &[("tls", "required")],
            ),
            cluster("downgraded", plain.addresses(), &[("tls", "required")]),
        ];
        settings.default_cluster = "any".into();
    })
    .await;
    let client = connect(server.server.addr(), "root", "")
        .await
        .expect("connects");
    assert_eq!(value(&client, "SELECT current_database()").await, "any");
    let reachable = rows(
        &client,
        "SELECT cluster, reachable FROM system.clusters ORDER BY cluster",
    )
    .await;
    let reachable: Vec<_> = reachable
        .iter()
        .map(|r| (r[0].as_deref().unwrap_or(""), r[1].as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        reachable,
        [
            ("any", "t"),
            ("downgraded", "f"),
            ("embedded", "t"),
            ("other_name", "f"),
            ("unknown", "f"),
            ("verified", "t")
        ]
    );
    assert_eq!(fails(&client, "DROP CLUSTER verified").await.0, "55000");
    server.stop().await;
}

/// Whoever does not answer is given up, at every stage of a connection.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_silent_frontend() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let fe = FakeFe::start("3.3.16", 1, Pace::Manual).await;
    let server = TestServer::start().await;
    let root = server.client().await;
    let create = |name: &str, fe: &str| {
        format!(
            "CREATE CLUSTER {name} PROPERTIES (\"fe\" = \"{fe}\", \"password\" = \"{}\", \"connect_timeout_seconds\" = \"1\",
             \"statement_timeout_seconds\" = \"1\", \"names_max_age_ms\" = \"0\")",
            crate::fake_fe::PASSWORD
        )
    };
    run(
        &root,
        &create(
            "silent",
            &silent.local_addr().expect("an address").to_string(),
        ),
    )
    .await;
    let client = connect(server.server.addr(), "root", "dbname=silent")
        .await
        .expect("connects");
    let (code, message) = fails(&client, "SHOW FRONTENDS").await;
    assert!(
        code == "08006" && message.contains("nothing within 1000 ms"),
        "{message}"
    );
    // One that stops answering in the middle.
    run(&root, &create("slow", &fe.addresses())).await;
    let client = connect(server.server.addr(), "root", "dbname=slow")
        .await
        .expect("connects");
    fe.fail("SHOW BACKENDS", Fault::Hold);
    let (code, message) = fails(&client, "SELECT * FROM system.backends").await;
    assert!(
        code == "08006" && message.starts_with("no answer from cluster \"slow\""),
        "{message}"
    );
    fe.go_on();
    fe.fail("SELECT t1.`id` AS o1_0", Fault::Hold);
    let (code, message) = fails(&client, "SELECT id FROM shop.customers ORDER BY id").await;
    assert!(
        code == "08006" && message.starts_with("no answer from 127.0.0.1:"),
        "{message}"
    );
    fe.go_on();
    assert_eq!(
        rows(&client, "SELECT id FROM shop.customers ORDER BY id")
            .await
            .len(),
        3
    );
    server.stop().await;
}

/// Somebody else takes the slot between a lost statement and its second try: that one is refused,
/// and told so.
#[tokio::test(flavor = "multi_thread")]
async fn late_second_tries_are_refused() {
    let w = fixture("3.3.16", Pace::Manual).await;
    w.fe.fail("BACKUP", Fault::DropBefore);
    w.fe.fail("SHOW FULL PROCESSLIST", Fault::Hold);
    let theirs = async {
        w.fe.holds("SHOW FULL PROCESSLIST").await;
        w.fe.say(Some("shop"), "BACKUP SNAPSHOT shop.theirs TO r ON (orders)");
        w.fe.go_on();
    };
    let (ours, ()) = tokio::join!(
        fails(&w.client, "BACKUP SNAPSHOT shop.ours TO r ON (orders)"),
        theirs
    );
    assert_eq!(ours.0, "55006", "{ours:?}");
    w.until(
        "SELECT status FROM system.jobs WHERE snapshot = 'ours'",
        "refused",
    )
    .await;
    w.until("SELECT status FROM system.jobs WHERE external", "running")
        .await;
    assert_eq!(w.fe.effects("BACKUP").len(), 1);
    w.server.stop().await;
}

/// Two jobs under one label within one second of the cluster's clock, which counts no less, are
/// two.
#[tokio::test(flavor = "multi_thread")]
async fn one_label_twice_in_one_second_is_two_jobs() {
    let w = fixture("3.3.16", Pace::Manual).await;
    run(&w.client, "BACKUP SNAPSHOT shop.s TO r ON (customers)").await;
    (0..6).for_each(|_| w.fe.step());
    assert_eq!(w.ends().await, "succeeded");
    w.fe.model(|m| m.stop_clock());
    for job in 2..=3 {
        run(&w.client, "RESTORE SNAPSHOT shop.s FROM r ON (customers AS again) PROPERTIES (\"backup_timestamp\" = \"latest\")")
            .await;
        w.until(
            &format!("SELECT native_state FROM system.jobs WHERE job_id = {job}"),
            "PENDING",
        )
        .await;
        (0..6).for_each(|_| w.fe.step());
        w.until(
            &format!("SELECT status FROM system.jobs WHERE job_id = {job}"),
            "succeeded",
        )
        .await;
    }
    assert_eq!(
        w.value("SELECT count(DISTINCT native_created_at) FROM system.jobs WHERE kind = 'restore'")
            .await,
        "1"
    );
    assert_eq!(w.value("SELECT count(*) FROM system.jobs").await, "3");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_jobs_follow_their_cluster() {
    let w = fixture("3.3.16", Pace::Manual).await;
    run(&w.client, "BACKUP SNAPSHOT shop.one TO r ON (orders)").await;
    for label in ["two", "three"] {
        run(
            &w.client,
            &format!(
                "BACKUP SNAPSHOT shop.{label} TO r ON (orders) PROPERTIES (\"queue\" = \"true\")"
            ),
        )
        .await;
    }
    run(
        &w.client,
        "ALTER CLUSTER prod SET (\"connect_timeout_seconds\" = \"4\")",
    )
    .await;
    (0..6).for_each(|_| w.fe.step());
    w.until(
        "SELECT native_state FROM system.jobs WHERE snapshot = 'two'",
        "PENDING",
    )
    .await;
    // The cluster is gone for good.
    w.fe.set_up(0, false);
    let root = w.server.client().await;
    assert_eq!(fails(&root, "DROP CLUSTER prod").await.0, "55006");
    run(&root, "DROP CLUSTER prod FORCE").await;
    assert_eq!(
        value(
            &root,
            "SELECT string_agg(snapshot || ' ' || status, ', ' ORDER BY job_id) FROM system.jobs"
        )
        .await,
        "one succeeded, two lost, three cancelled"
    );
    assert_eq!(
        value(
            &root,
            "SELECT error_message FROM system.jobs WHERE snapshot = 'three'"
        )
        .await,
        "cluster \"prod\" was dropped while the job was in QUEUED"
    );
    assert_eq!(
        value(
            &root,
            "SELECT count(*) FROM system.clusters WHERE cluster = 'prod'"
        )
        .await,
        "0"
    );
    assert_eq!(
        fails(&w.client, "SHOW BACKUP").await,
        ("3D000".into(), "cluster \"prod\" has been dropped".into())
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
