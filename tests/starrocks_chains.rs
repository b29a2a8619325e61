//! StarRocks clusters: backups of what has changed, and restores that touch nothing before all is
//! restored.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Array, Int64Array, RecordBatch, new_null_array};

use crate::fake_fe::{FakeFe, Fault, Pace};
use crate::process::Process;
use crate::starrocks::{FAST, Fixture, fixture, fixture_of};
use crate::support::{connect, fails, rows, run, until, value};

/// Rows of table `orders` with these ids, and nothing else in them.
fn orders(fe: &FakeFe, ids: &[i64]) -> RecordBatch {
    let schema = fe.model(|m| m.databases["shop"].tables["orders"].rows.schema());
    let nulls = schema.fields()[1..]
        .iter()
        .map(|field| new_null_array(field.data_type(), ids.len()));
    let id: Arc<dyn Array> = Arc::new(Int64Array::from(ids.to_vec()));
    let columns = [id].into_iter().chain(nulls).collect();
    RecordBatch::try_new(schema, columns).expect("a batch")
}

fn load(fe: &FakeFe, partition: &str, ids: &[i64]) {
    let rows = orders(fe, ids);
    fe.model(|m| {
        let shop = m.databases.get_mut("shop").expect("the database");
        let orders = shop.tables.get_mut("orders").expect("the table");
        orders.load(partition, rows);
    });
}

async fn ids(w: &Fixture, table: &str) -> String {
    w.value(&format!(
        "SELECT string_agg(id::text, ',' ORDER BY id) FROM {table}"
    ))
    .await
}

/// The tables of a database of the cluster.
fn tables(fe: &FakeFe, database: &str) -> Vec<String> {
    fe.model(|m| m.databases[database].tables.keys().cloned().collect())
}

async fn last_job(w: &Fixture) -> String {
    let parents = "SELECT max(job_id) FROM system.jobs WHERE statement IS NOT NULL";
    w.value(parents).await
}

/// Waits for the end of the job that was submitted last; its status.
async fn finish(w: &Fixture) -> String {
    let job = last_job(w).await;
    let _ = w.client.batch_execute(&format!("WAIT FOR JOB {job}")).await;
    w.until(
        "SELECT count(*) FROM system.jobs WHERE status IN ('queued', 'running')",
        "0",
    )
    .await;
    w.value(&format!(
        "SELECT status FROM system.jobs WHERE job_id = {job}"
    ))
    .await
}

const LATEST: &str = "PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"1\")";
const ATOMIC: &str = "PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"1\", \"atomic\" = \"true\")";
const INCREMENTAL: &str = "PROPERTIES (\"type\" = \"incremental\")";

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_its_place_at_the_end() {
    for version in ["2.5.22", "3.3.16", "4.2.0"] {
        let w = fixture_of(FakeFe::start(version, 1, Pace::Manual).await, "").await;
        load(&w.fe, "p1", &[1, 2]);
        load(&w.fe, "p2", &[3]);
        run(
            &w.client,
            "BACKUP SNAPSHOT shop.s TO r ON (orders, customers)",
        )
        .await;
        (0..6).for_each(|_| w.fe.step());
        assert_eq!(finish(&w).await, "succeeded", "{version}");
        load(&w.fe, "p1", &[8]);
        load(&w.fe, "p3", &[9]);
        let (client, mut notices) = w.server.client_with_notices_of("prod").await;
        run(
            &client,
            &format!("RESTORE SNAPSHOT shop.s FROM r ON (orders, customers AS again) {ATOMIC}"),
        )
        .await;
        let (_, warning) = notices.recv().await.expect("a notice of latest");
        assert!(warning.contains("backup_timestamp"), "{warning}");
        let (severity, warning) = notices.recv().await.expect("a warning");
        assert_eq!(severity, "WARNING");
        assert!(warning.contains("p3 of it"), "{warning}");
        // Until all is restored the old table is read and written, and SHOW tells of the restore.
        for phase in [
            "PENDING",
            "SNAPSHOTING",
            "DOWNLOAD",
            "DOWNLOADING",
            "COMMIT",
        ] {
            w.until(
                "SELECT native_state FROM system.jobs ORDER BY job_id DESC LIMIT 1",
                phase,
            )
            .await;
            assert_eq!(ids(&w, "shop.orders").await, "3,8,9", "{version} {phase}");
            let shown = rows(&w.client, "SHOW RESTORE FROM shop").await;
            assert_eq!(shown.len(), 1);
            assert_eq!(shown[0][4].as_deref(), Some("DOWNLOADING"), "{version}");
            w.fe.step();
        }
        w.fe.step();
        let job = last_job(&w).await;
        run(&w.client, &format!("WAIT FOR JOB {job}")).await;
        assert_eq!(ids(&w, "shop.orders").await, "1,2,3", "{version}");
        assert_eq!(w.value("SELECT count(*) FROM shop.again").await, "3");
        w.until(
            &format!(
                "SELECT count(*) FROM system.job_events WHERE job_id = {job} AND event LIKE '%\"released\"%'"
            ),
            "1",
        )
        .await;
        let left = tables(&w.fe, "shop");
        assert_eq!(
            left,
            ["again", "customers", "orders", "people"],
            "{version}"
        );
        let events = w
            .value(&format!(
                "SELECT string_agg(detail, '; ' ORDER BY seq) FROM system.job_events WHERE job_id = {job}"
            ))
            .await;
        let names = [
            "1 snapshot needed, all whole",
            "read what was restored: 2 tables, 6 rows",
        ];
        assert!(names.iter().all(|name| events.contains(name)), "{events}");
        let shown = rows(&w.client, "SHOW RESTORE FROM shop").await;
        assert_eq!(shown[0][4].as_deref(), Some("FINISHED"), "{version}");
        assert_eq!(w.fe.effects("ALTER TABLE").len(), 2);
        w.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_leaves_what_was_there() {
    let w = fixture_of(FakeFe::start("3.3.16", 1, Pace::Manual).await, "").await;
    load(&w.fe, "p1", &[1, 2]);
    run(
        &w.client,
        "BACKUP SNAPSHOT shop.s TO r ON (orders, customers)",
    )
    .await;
    (0..6).for_each(|_| w.fe.step());
    assert_eq!(finish(&w).await, "succeeded");
    load(&w.fe, "p1", &[8]);
    let before = tables(&w.fe, "shop");
    let restore = format!("RESTORE SNAPSHOT shop.s FROM r ON (orders) {ATOMIC}");
    let is_running = |m: &crate::fake_fe::Model| m.slots["shop"].state == "DOWNLOADING";
    let begin = || async {
        let begun = w.fe.effects("RESTORE").len();
        run(&w.client, &restore).await;
        while w.fe.effects("RESTORE").len() == begun {
            tokio::task::yield_now().await;
        }
        (0..3).for_each(|_| w.fe.step());
        w.fe.until(is_running).await;
    };
    // The cluster gives it up; the user does; either way what was restored goes.
    begin().await;
    w.fe.model(|m| m.break_job("shop", "[COMMON_ERROR, msg: no room]"));
    assert_eq!(finish(&w).await, "failed");
    let job = last_job(&w).await;
    let told = format!("SELECT error_message FROM system.jobs WHERE job_id = {job}");
    assert_eq!(w.value(&told).await, "no room");
    begin().await;
    let job = last_job(&w).await;
    run(&w.client, &format!("CANCEL JOB {job}")).await;
    assert_eq!(finish(&w).await, "cancelled");
    assert!(w.fe.model(|m| m.slots["shop"].state) == "CANCELLED");
    begin().await;
    run(&w.client, "CANCEL RESTORE FROM shop").await;
    assert_eq!(finish(&w).await, "cancelled");
    // It is restored, and its name is refused.
    begin().await;
    w.fe.model(|m| m.refuse_swaps = true);
    (0..3).for_each(|_| w.fe.step());
    assert_eq!(finish(&w).await, "failed");
    w.fe.model(|m| m.refuse_swaps = false);
    let released = "SELECT count(*) FROM system.job_events WHERE event LIKE '%\"released\"%'";
    w.until(released, "4").await;
    assert_eq!(tables(&w.fe, "shop"), before);
    assert_eq!(ids(&w, "shop.orders").await, "8");
    // A snapshot that is not whole is found before anything is restored.
    let damaged = w
        .bucket()
        .join("__starrocks_repository_r/__ss_s/__ss_content");
    std::fs::remove_dir_all(damaged).expect("removed");
    let begun = w.fe.effects("RESTORE").len();
    run(&w.client, &restore).await;
    assert_eq!(finish(&w).await, "failed");
    assert_eq!(w.fe.effects("RESTORE").len(), begun);
    let job = last_job(&w).await;
    let told = w
        .value(&format!(
            "SELECT error_message FROM system.jobs WHERE job_id = {job}"
        ))
        .await;
    assert!(told.contains("is not whole"), "{told}");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_take_a_place_is_refused() {
    let w = fixture("4.2.0", FAST).await;
    run(&w.client, "BACKUP SNAPSHOT shop.s TO r").await;
    assert_eq!(finish(&w).await, "succeeded");
    for (objects, more, code, words) in [
        (
            "(orders PARTITION (p1))",
            "",
            "0A000",
            "PARTITION in a restore in steps over table orders",
        ),
        ("(VIEW people)", "", "0A000", "VIEW people"),
        (
            "(nope)",
            "",
            "42P01",
            "Table nope does not exist in snapshot s",
        ),
        (
            "(orders PARTITION (p9) AS o)",
            "",
            "42704",
            "Partition p9 of table orders",
        ),
        (
            "(orders)",
            ", \"allow_load\" = \"true\"",
            "0A000",
            "\"allow_load\" of a restore",
        ),
        (
            "(orders AS o, customers AS o)",
            "",
            "22023",
            "Duplicated alias name: o",
        ),
    ] {
        let statement = format!(
            "RESTORE SNAPSHOT shop.s FROM r ON {objects} PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"1\", \"atomic\" = \"true\"{more})"
        );
        let (found, message) = fails(&w.client, &statement).await;
        assert_eq!(found, code, "{objects}: {message}");
        assert!(message.contains(words), "{objects}: {message}");
    }
    let (code, message) = fails(
        &w.client,
        "RESTORE SNAPSHOT shop.s FROM r PROPERTIES (\"backup_timestamp\" = \"latest\", \"atomic\" = \"yes\")",
    )
    .await;
    assert_eq!(
        (code.as_str(), message.contains("\"atomic\"")),
        ("22023", true)
    );
    assert_eq!(w.fe.effects("RESTORE"), Vec::<String>::new());
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_backed_up_again() {
    for version in ["3.3.16", "4.2.0"] {
        let w = fixture(version, FAST).await;
        load(&w.fe, "p1", &[1, 2]);
        load(&w.fe, "p2", &[3]);
        let dynamic = " PROPERTIES (\"dynamic_partition.enable\" = \"true\")";
        w.fe.model(|m| {
            let shop = m.databases.get_mut("shop").expect("the database");
            shop.tables.get_mut("orders").expect("there").definition = dynamic.into();
        });
        let tables_of = "ON (orders, customers)";
        // Nothing is there to follow: it is a full backup.
        run(
            &w.client,
            &format!("BACKUP SNAPSHOT shop.s1 TO r {tables_of} {INCREMENTAL}"),
        )
        .await;
        assert_eq!(finish(&w).await, "succeeded", "{version}");
        load(&w.fe, "p2", &[3, 4]);
        load(&w.fe, "p3", &[5]);
        let explain = format!("EXPLAIN BACKUP SNAPSHOT shop.s2 TO r {tables_of} {INCREMENTAL}");
        let steps = rows(&w.client, &explain).await;
        let told: Vec<_> = steps
            .iter()
            .map(|row| {
                [1, 2, 10]
                    .map(|i| row[i].clone().unwrap_or_default())
                    .join("|")
            })
            .collect();
        assert_eq!(
            told[..2],
            [
                "shop.orders|upload|2 of 3 partitions have changed since snapshot s1",
                "shop.customers|keep|0 of 1 partitions have changed since snapshot s1"
            ],
            "{version}"
        );
        let (client, mut notices) = w.server.client_with_notices_of("prod").await;
        run(
            &client,
            &format!("BACKUP SNAPSHOT shop.s2 TO r {tables_of} {INCREMENTAL}"),
        )
        .await;
        let (_, _) = notices.recv().await.expect("the number of the job");
        let (_, notice) = notices.recv().await.expect("what it takes");
        assert_eq!(
            notice,
            "2 of 4 partitions have changed since snapshot s1; the others are in s1"
        );
        assert_eq!(finish(&w).await, "succeeded");
        assert_eq!(
            w.fe.effects("BACKUP SNAPSHOT `shop`.`s2`"),
            ["BACKUP SNAPSHOT `shop`.`s2` TO `r` ON (`orders` PARTITION (`p2`, `p3`))"]
        );
        // A partition that was made anew, one that is gone, and another definition.
        w.fe.model(|m| {
            let shop = m.databases.get_mut("shop").expect("the database");
            shop.tables
                .get_mut("orders")
                .expect("there")
                .drop_partition("p3");
            shop.tables.get_mut("customers").expect("there").definition = " INDEX i".into();
        });
        run(
            &w.client,
            &format!("BACKUP SNAPSHOT shop.s3 TO r {tables_of} PROPERTIES (\"type\" = \"incremental\", \"base\" = \"s2\")"),
        )
        .await;
        assert_eq!(finish(&w).await, "succeeded");
        assert_eq!(
            w.fe.effects("BACKUP SNAPSHOT `shop`.`s3`"),
            ["BACKUP SNAPSHOT `shop`.`s3` TO `r` ON (`customers`)"]
        );
        // Nothing has changed: nothing is sent, and there is a snapshot all the same.
        run(
            &w.client,
            &format!("BACKUP SNAPSHOT shop.s4 TO r {tables_of} {INCREMENTAL}"),
        )
        .await;
        assert_eq!(finish(&w).await, "succeeded");
        assert_eq!(
            w.fe.effects("BACKUP SNAPSHOT `shop`.`s4`"),
            Vec::<String>::new()
        );
        let (code, message) = fails(
            &w.client,
            &format!("BACKUP SNAPSHOT shop.s4 TO r {tables_of} {INCREMENTAL}"),
        )
        .await;
        assert_eq!(code, "42710", "{message}");
        let chain = rows(
            &w.client,
            "SELECT snapshot, table_name, partition_name, version, stored_in, moved FROM system.snapshot_partitions
             WHERE snapshot IN ('s2', 's4') ORDER BY 1, 2, 3",
        )
        .await;
        let chain: Vec<String> = chain
            .iter()
            .map(|row| {
                row.iter()
                    .map(|v| v.clone().unwrap_or_default())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(
            chain,
            [
                "s2 customers customers 2 s1 f",
                "s2 orders p1 3 s1 f",
                "s2 orders p2 4 s2 f",
                "s2 orders p3 2 s2 f",
                "s4 customers customers 2 s3 f",
                "s4 orders p1 3 s1 f",
                "s4 orders p2 4 s2 f",
            ],
            "{version}"
        );
        // What another one needs is not dropped.
        for label in ["s1", "s2", "s3"] {
            let (code, message) =
                fails(&w.client, &format!("DROP SNAPSHOT {label} ON r FORCE")).await;
            assert_eq!(code, "55006", "{label}: {message}");
        }
        // The whole chain, over what is there and beside it.
        load(&w.fe, "p1", &[100]);
        run(
            &w.client,
            &format!("RESTORE SNAPSHOT shop.s4 FROM r {LATEST}"),
        )
        .await;
        assert_eq!(finish(&w).await, "succeeded", "{version}");
        assert_eq!(ids(&w, "shop.orders").await, "1,2,3,4", "{version}");
        let defined =
            w.fe.model(|m| m.databases["shop"].tables["orders"].definition.clone());
        assert_eq!(defined, dynamic, "{version}");
        run(
            &w.client,
            &format!("RESTORE SNAPSHOT shop.s2 FROM r ON (orders AS earlier) {LATEST}"),
        )
        .await;
        assert_eq!(finish(&w).await, "succeeded");
        assert_eq!(ids(&w, "shop.earlier").await, "1,2,3,4,5");
        let steps = rows(
            &w.client,
            &format!("EXPLAIN RESTORE SNAPSHOT shop.s2 FROM r ON (orders) {LATEST}"),
        )
        .await;
        let told: Vec<_> = steps
            .iter()
            .map(|row| {
                [0, 1, 2, 3]
                    .map(|i| row[i].clone().unwrap_or_default())
                    .join(" ")
            })
            .collect();
        assert_eq!(
            told,
            [
                "DOWNLOADING s1 restore 1",
                "DOWNLOADING s2 restore 2",
                "COMMIT shop.orders join 1",
                "COMMITTING shop.orders swap ",
                "total s2 sum 3"
            ]
        );
        // The chain goes from its end.
        for label in ["s4", "s3", "s2", "s1"] {
            run(&w.client, &format!("DROP SNAPSHOT {label} ON r FORCE")).await;
        }
        assert_eq!(rows(&w.client, "SHOW SNAPSHOT ON r").await.len(), 0);
        w.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_while_it_is_backed_up_comes_again() {
    let fe = FakeFe::start("3.3.16", 1, Pace::Manual).await;
    let w = fixture_of(fe, ", \"incremental_chain_max\" = \"1\"").await;
    load(&w.fe, "p1", &[1]);
    load(&w.fe, "p2", &[2]);
    let back_up = |label: &'static str, more: &'static str| {
        let (w, statement) = (
            &w,
            format!("BACKUP SNAPSHOT shop.{label} TO r ON (orders) PROPERTIES ({more})"),
        );
        async move {
            run(&w.client, &statement).await;
            w.fe.step();
            // The cluster has not fixed yet what it copies.
            if label == "s1" {
                load(&w.fe, "p2", &[2, 3]);
            }
            (0..5).for_each(|_| w.fe.step());
            assert_eq!(finish(w).await, "succeeded", "{label}");
        }
    };
    back_up("s1", "\"type\" = \"full\"").await;
    let moved =
        "SELECT string_agg(partition_name, ',') FROM system.snapshot_partitions WHERE moved";
    assert_eq!(w.value(moved).await, "p2");
    back_up("s2", "\"type\" = \"incremental\"").await;
    assert_eq!(
        w.fe.effects("BACKUP SNAPSHOT `shop`.`s2`"),
        ["BACKUP SNAPSHOT `shop`.`s2` TO `r` ON (`orders` PARTITION (`p2`))"]
    );
    // The next one would need two others: it is full.
    load(&w.fe, "p3", &[4]);
    back_up("s3", "\"type\" = \"incremental\"").await;
    assert_eq!(
        w.fe.effects("BACKUP SNAPSHOT `shop`.`s3`"),
        ["BACKUP SNAPSHOT `shop`.`s3` TO `r` ON (`orders`)"]
    );
    // Bases that cannot be followed.
    for (base, code, words) in [
        ("nope", "42704", "no backup of database shop"),
        ("s1", "55000", "is not in the repository any more"),
    ] {
        if base == "s1" {
            std::fs::remove_dir_all(w.bucket().join("__starrocks_repository_r/__ss_s1"))
                .expect("removed");
        }
        let statement = format!(
            "BACKUP SNAPSHOT shop.s4 TO r ON (orders) PROPERTIES (\"type\" = \"incremental\", \"base\" = \"{base}\")"
        );
        let (found, message) = fails(&w.client, &statement).await;
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{message}");
    }
    // A snapshot that is needed is gone: nothing is restored.
    let begun = w.fe.effects("RESTORE").len();
    run(
        &w.client,
        &format!("RESTORE SNAPSHOT shop.s2 FROM r ON (orders) {LATEST}"),
    )
    .await;
    assert_eq!(finish(&w).await, "failed");
    assert_eq!(w.fe.effects("RESTORE").len(), begun);
    assert_eq!(ids(&w, "shop.orders").await, "1,2,3,4");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_meanwhile_is_not_replaced() {
    let w = fixture_of(FakeFe::start("3.3.16", 1, Pace::Manual).await, "").await;
    load(&w.fe, "p1", &[1, 2]);
    load(&w.fe, "p2", &[3]);
    run(&w.client, "BACKUP SNAPSHOT shop.s TO r ON (orders)").await;
    (0..6).for_each(|_| w.fe.step());
    assert_eq!(finish(&w).await, "succeeded");
    let before = tables(&w.fe, "shop");
    let restore = |objects: &str| format!("RESTORE SNAPSHOT shop.s FROM r ON ({objects}) {ATOMIC}");
    let restored = |begun: usize| {
        let w = &w;
        async move {
            while w.fe.effects("RESTORE").len() == begun {
                tokio::task::yield_now().await;
            }
            (0..6).for_each(|_| w.fe.step());
        }
    };
    let told = || async {
        let job = last_job(&w).await;
        let query = format!("SELECT error_message FROM system.jobs WHERE job_id = {job}");
        w.value(&query).await
    };
    let dropped = |n: usize| {
        let w = &w;
        async move {
            let query = "SELECT count(*) FROM system.job_events WHERE event LIKE '%\"released\"%'";
            w.until(query, &n.to_string()).await;
        }
    };
    // Somebody makes a table of the name.
    run(&w.client, &restore("orders AS fresh")).await;
    w.fe.say(
        None,
        "CREATE TABLE `shop`.`fresh` (id BIGINT) PROPERTIES ('replication_num'='1')",
    );
    restored(0).await;
    assert_eq!(finish(&w).await, "failed");
    assert!(told().await.contains("was made while the restore went on"));
    dropped(1).await;
    w.fe.say(None, "DROP TABLE `shop`.`fresh`");
    assert_eq!(tables(&w.fe, "shop"), before);
    // The cluster drops a partition of what was restored.
    w.fe.fail("SELECT /*+", Fault::Hold);
    run(&w.client, &restore("orders")).await;
    restored(1).await;
    w.fe.holds("SELECT /*+").await;
    w.fe.model(|m| {
        let shop = m.databases.get_mut("shop").expect("the database");
        let mut restored = shop
            .tables
            .iter_mut()
            .filter(|(name, _)| name.starts_with("restore_"));
        restored.next().expect("restored").1.drop_partition("p1");
    });
    w.fe.go_on();
    assert_eq!(finish(&w).await, "failed");
    let why = told().await;
    assert!(
        why.contains("without partitions that were backed up"),
        "{why}"
    );
    dropped(2).await;
    assert_eq!(tables(&w.fe, "shop"), before);
    assert_eq!(ids(&w, "shop.orders").await, "1,2,3");
    // Who may restore over a table may not take it away.
    let root = w.server.client().await;
    run(
        &root,
        "CREATE USER ana; GRANT REPOSITORY ON SYSTEM TO USER ana",
    )
    .await;
    run(
        &w.client,
        "GRANT CREATE TABLE ON DATABASE shop TO USER ana; GRANT INSERT ON TABLE shop.orders TO USER ana",
    )
    .await;
    let ana = connect(w.server.server.addr(), "ana", "dbname=prod")
        .await
        .expect("connects");
    let (code, message) = fails(&ana, &restore("orders")).await;
    assert_eq!(code, "42501", "{message}");
    assert_eq!(w.fe.effects("RESTORE").len(), 2);
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_put_together_goes_whole() {
    let w = fixture("4.2.0", FAST).await;
    w.fe.model(|m| {
        let shop = m.databases.get_mut("shop").expect("the database");
        let orders = shop.tables.get_mut("orders").expect("there");
        orders.definition = " AUTO_INCREMENT".into();
    });
    let back_up =
        |label: &str| format!("BACKUP SNAPSHOT shop.{label} TO r ON (orders) {INCREMENTAL}");
    run(&w.client, &back_up("s1")).await;
    assert_eq!(finish(&w).await, "succeeded");
    load(&w.fe, "p1", &[7]);
    run(&w.client, &back_up("s2")).await;
    assert_eq!(finish(&w).await, "succeeded");
    let sent = w.fe.effects("BACKUP SNAPSHOT `shop`.`s2`");
    assert_eq!(sent, ["BACKUP SNAPSHOT `shop`.`s2` TO `r` ON (`orders`)"]);
    // Nothing has changed, and then it is gone with what it needs.
    run(&w.client, &back_up("s3")).await;
    assert_eq!(finish(&w).await, "succeeded");
    run(&w.client, "DROP SNAPSHOT s1 ON r FORCE").await;
    let (code, message) = fails(&w.client, "DROP SNAPSHOT s2 ON r FORCE").await;
    assert_eq!(code, "55006", "{message}");
    load(&w.fe, "p1", &[8]);
    run(
        &w.client,
        &format!("RESTORE SNAPSHOT shop.s3 FROM r {LATEST}"),
    )
    .await;
    assert_eq!(finish(&w).await, "succeeded");
    assert_eq!(ids(&w, "shop.orders").await, "7");
    // One that expires is not followed.
    run(
        &w.client,
        "BACKUP SNAPSHOT shop.s4 TO r ON (orders) PROPERTIES (\"ttl\" = \"7 DAY\")",
    )
    .await;
    assert_eq!(finish(&w).await, "succeeded");
    let (code, message) = fails(
        &w.client,
        "BACKUP SNAPSHOT shop.s5 TO r ON (orders) PROPERTIES (\"type\" = \"incremental\", \"base\" = \"s4\")",
    )
    .await;
    assert_eq!(
        (code.as_str(), message.contains("expires")),
        ("55000", true),
        "{message}"
    );
    w.server.stop().await;
}

/// When the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// While this statement is on its way and never arrives.
    Lost(&'static str),
    /// While it is on its way, and has its effect while nobody is there.
    Arrived(&'static str),
    /// The same, but the effect comes after the next process has begun to look.
    Late(&'static str),
    /// While the cluster restores, in this phase.
    Phase(&'static str),
}

const STEPS: [Step; 18] = [
    Step::Lost("RESTORE"),
    Step::Arrived("RESTORE"),
    Step::Late("RESTORE"),
    Step::Phase("SNAPSHOTING"),
    Step::Phase("DOWNLOADING"),
    Step::Phase("COMMITTING"),
    Step::Lost("ALTER TABLE `shop`.`restore_"),
    Step::Arrived("ALTER TABLE `shop`.`restore_"),
    Step::Late("ALTER TABLE `shop`.`restore_"),
    Step::Lost("INSERT OVERWRITE"),
    Step::Arrived("INSERT OVERWRITE"),
    Step::Late("INSERT OVERWRITE"),
    Step::Lost("ALTER TABLE `shop`.`orders`"),
    Step::Arrived("ALTER TABLE `shop`.`orders`"),
    Step::Late("ALTER TABLE `shop`.`orders`"),
    Step::Lost("DROP TABLE"),
    Step::Arrived("DROP TABLE"),
    Step::Late("DROP TABLE"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_in_steps_survives_kill_9_at_each_of_them() {
    for step in STEPS {
        let dir = tempfile::tempdir().expect("a directory");
        let crashed = crash(step, dir.path());
        let done = tokio::time::timeout(Duration::from_secs(60), crashed).await;
        assert!(done.is_ok(), "{step:?} does not come to an end");
    }
}

async fn crash(step: Step, dir: &Path) {
    let fe = FakeFe::start("3.3.16", 1, Pace::Manual).await;
    let data = dir.join("data");
    let process = Process::start(&data);
    let root = connect(process.addr, "root", "").await.expect("connects");
    run(&root, &fe.create("prod", "")).await;
    let session = connect(process.addr, "root", "dbname=prod")
        .await
        .expect("connects");
    std::fs::create_dir(dir.join("bucket")).expect("a directory");
    let location = dir.join("bucket");
    run(
        &session,
        &format!(
            "CREATE REPOSITORY r WITH BROKER hdfs_broker ON LOCATION \"{}\"",
            location.display()
        ),
    )
    .await;
    load(&fe, "p1", &[1]);
    load(&fe, "p2", &[2]);
    let succeeded = "SELECT count(*) FROM system.jobs WHERE status = 'succeeded'";
    for (label, properties, count) in [("s1", "", "1"), ("s2", INCREMENTAL, "2")] {
        run(
            &session,
            &format!("BACKUP SNAPSHOT shop.{label} TO r ON (orders) {properties}"),
        )
        .await;
        (0..6).for_each(|_| fe.step());
        until(&session, succeeded, count).await;
        load(&fe, "p2", &[2, 3]);
    }
    load(&fe, "p1", &[100]);
    let faulty = |step: Step| match step {
        Step::Lost(prefix) => Some((prefix, Fault::DropBefore)),
        Step::Arrived(prefix) | Step::Late(prefix) => Some((prefix, Fault::Late)),
        Step::Phase(_) => None,
    };
    if let Some((prefix, fault)) = faulty(step) {
        fe.fail(prefix, fault);
    }
    run(
        &session,
        &format!("RESTORE SNAPSHOT shop.s2 FROM r ON (orders) {LATEST}"),
    )
    .await;
    let has_come = |prefix: &str| fe.model(|m| m.statements.iter().any(|s| s.starts_with(prefix)));
    let held = |prefix: &str| {
        let in_flight = fe.shared.in_flight.lock();
        in_flight.values().any(|s| s.starts_with(prefix))
    };
    loop {
        let is_there = match step {
            Step::Lost(prefix) => has_come(prefix),
            Step::Arrived(prefix) | Step::Late(prefix) => held(prefix),
            Step::Phase(phase) => {
                fe.model(|m| m.slots.get("shop").is_some_and(|j| j.state == phase))
            }
        };
        if is_there {
            break;
        }
        // Only what is under way is moved on.
        fe.step();
        tokio::task::yield_now().await;
    }
    process.kill();
    let release = || async {
        fe.go_on();
        while !fe.shared.in_flight.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    if matches!(step, Step::Arrived(_)) {
        release().await;
    }
    let process = Process::start(&data);
    let session = connect(process.addr, "root", "dbname=prod")
        .await
        .expect("connects");
    if matches!(step, Step::Late(_)) {
        let looks = || {
            fe.model(|m| {
                let looks = m.statements.iter().rev();
                looks
                    .take_while(|s| !s.starts_with("SHOW FULL PROCESSLIST"))
                    .count()
                    < m.statements.len()
            })
        };
        while !looks() {
            tokio::task::yield_now().await;
        }
        release().await;
    }
    let over = "SELECT count(*) FROM system.job_events WHERE event LIKE '%\"released\"%'";
    while value(&session, over).await != "1" {
        fe.step();
        tokio::task::yield_now().await;
    }
    let failed = "SELECT count(*) FROM system.jobs WHERE status <> 'succeeded'";
    assert_eq!(value(&session, failed).await, "0", "{step:?}");
    assert_eq!(
        fe.effects("RESTORE").len(),
        2,
        "{step:?}: one submission of each"
    );
    assert_eq!(
        fe.effects("ALTER TABLE `shop`.`orders`").len(),
        1,
        "{step:?}: names are exchanged once"
    );
    let ids = "SELECT string_agg(id::text, ',' ORDER BY id) FROM shop.orders";
    assert_eq!(value(&session, ids).await, "1,2,3", "{step:?}");
    let left: Vec<String> = fe.model(|m| m.databases["shop"].tables.keys().cloned().collect());
    assert_eq!(left, ["customers", "orders", "people"], "{step:?}");
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_restored_to_see_whether_they_can_be() {
    let w = fixture_of(FakeFe::start("3.3.16", 1, Pace::Manual).await, "").await;
    load(&w.fe, "p1", &[1, 2]);
    load(&w.fe, "p2", &[3]);
    run(
        &w.client,
        "BACKUP SNAPSHOT shop.s TO r ON (orders, customers)",
    )
    .await;
    (0..6).for_each(|_| w.fe.step());
    assert_eq!(finish(&w).await, "succeeded");
    let databases = || {
        w.fe.model(|m| m.databases.keys().cloned().collect::<Vec<_>>())
    };
    let before = databases();
    let verify = "VERIFY SNAPSHOT s ON r LEVEL RESTORE";
    let restores = "SELECT count(*) FROM system.jobs WHERE db_name LIKE 'verify_%' AND native_state IS NOT NULL AND status = 'running'";
    let ended = "SELECT count(*) FROM system.jobs WHERE kind = 'verify' AND status IN ('queued', 'running')";
    let begin = || async {
        run(&w.client, verify).await;
        w.until(restores, "1").await;
    };
    begin().await;
    assert_eq!(databases().len(), before.len() + 1);
    (0..6).for_each(|_| w.fe.step());
    w.until(ended, "0").await;
    let told = "SELECT ok, findings, restore_seconds IS NOT NULL FROM system.verifications ORDER BY job_id DESC LIMIT 1";
    let one = |text: &str| Some(text.to_owned());
    assert_eq!(
        rows(&w.client, told).await,
        [[one("t"), one("0"), one("t")]]
    );
    assert_eq!(databases(), before);
    // What comes back is not what was backed up, and then nothing does.
    w.fe.model(|m| {
        let kept = m.kept.values_mut().next().expect("a snapshot");
        kept.get_mut("orders")
            .expect("a table")
            .drop_partition("p2");
    });
    begin().await;
    (0..6).for_each(|_| w.fe.step());
    w.until(ended, "0").await;
    assert_eq!(w.value(told).await, "f");
    let found = "SELECT detail FROM system.repository_findings ORDER BY job_id DESC LIMIT 1";
    assert_eq!(w.value(found).await, "table orders lacks partitions: p2");
    begin().await;
    let scratch = databases()
        .into_iter()
        .find(|name| name.starts_with("verify_"));
    let scratch = scratch.expect("a database of its own");
    w.fe.model(|m| m.break_job(&scratch, "[COMMON_ERROR, msg: no room]"));
    w.until(ended, "0").await;
    assert_eq!(w.value(found).await, "no room");
    assert_eq!(databases(), before);
    // One that is given up leaves nothing either.
    begin().await;
    let job = w
        .value("SELECT max(job_id) FROM system.jobs WHERE kind = 'verify'")
        .await;
    run(&w.client, &format!("CANCEL JOB {job}")).await;
    let released = format!(
        "SELECT count(*) FROM system.job_events WHERE job_id = {job} AND event LIKE '%released%'"
    );
    w.until(&released, "1").await;
    assert_eq!(databases(), before);
    w.server.stop().await;
}
