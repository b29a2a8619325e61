//! A StarRocks cluster behind the gateway, against the fake frontends of `fake_fe`.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::ErrorPosition;

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
    pub fn bucket(&self) -> std::path::PathBuf {
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
            Some("[shop.customers], [shop.ordersPARTITIONS (p1)]"),
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
                "RESTORE SNAPSHOT `shop`.`s1` FROM `r` ON (`customers` AS `again`) PROPERTIES ('backup_timestamp' = '{}', 'replication_num' = '3')",
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
            (Some("s1"), Some("3")),
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
            "Getting analyzing error. Detail message: Repository [nowhere] does not exist.",
        ),
        (
            "BACKUP SNAPSHOT gone.x TO r",
            "3F000",
            "Getting analyzing error. Detail message: Unknown database 'gone'.",
        ),
        (
            "BACKUP SNAPSHOT x TO r ON (nothing)",
            "42P01",
            "Getting analyzing error. Detail message: Incorrect table name 'nothing'.",
        ),
        (
            "BACKUP SNAPSHOT x TO r ON (orders PARTITION (p9))",
            "42704",
            "Getting analyzing error. Detail message: partition[p9] does not exist  in tableorders.",
        ),
        (
            "BACKUP SNAPSHOT x TO r PROPERTIES (\"timeout\" = \"1\")",
            "22023",
            "Getting analyzing error. Detail message: timeout must be at least 10 min.",
        ),
        (
            "BACKUP SNAPSHOT x TO r PROPERTIES (\"nonsense\" = \"1\")",
            "22023",
            "Getting analyzing error. Detail message: Unknown backup job properties: [nonsense].",
        ),
        (
            "BACKUP SNAPSHOT empty.x TO r",
            "55000",
            "Getting analyzing error. Detail message: Database: empty is empty.",
        ),
        (
            "RESTORE SNAPSHOT x FROM r",
            "22023",
            "Getting analyzing error. Detail message: Missing backup_timestamp property.",
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
            "Getting analyzing error. Detail message: Repository does not exist.",
        ),
        // What the version cannot do never gets there.
        (
            "BACKUP SNAPSHOT x TO r ON (VIEW people)",
            "0A000",
            "VIEW people in BACKUP needs StarRocks 3.4; cluster \"prod\" is 3.3.16",
        ),
        (
            "DROP SNAPSHOT x ON r",
            "42704",
            "Snapshot does not exist in repository r: x",
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
    // Where the cluster sees it, in what the user wrote.
    let unknown = "backup snapshot x  to r on (customers,\n orders partition (p1, p9))";
    let placed = w.client.batch_execute(unknown).await.expect_err("refused");
    let placed = placed.as_db_error().expect("of the server");
    let at = unknown.find("partition").expect("there") as u32 + 1;
    assert_eq!(placed.position(), Some(&ErrorPosition::Original(at)));
    let detail = error
        .as_db_error()
        .and_then(|e| e.detail())
        .map(str::to_owned)
        .unwrap_or_default();
    assert!(
        detail.starts_with("StarRocks error 5064 (42000) from 127.0.0.1:"),
        "{detail}"
    );
    assert_eq!(
        w.value("SELECT count(*) FROM system.jobs WHERE status = 'refused' AND state IS NULL")
            .await,
        "12"
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
        // No cluster restores into a table of another name that is there.
        w.fe.say(None, "DROP TABLE `shop`.`again`");
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
