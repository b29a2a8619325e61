//! What real frontends do, which a cluster of friends would not: backends that are all down, no
//! leader, idle connections in the process list, objects that a backup leaves out.

use crate::fake_fe::{Fault, Pace};
use crate::starrocks::{FAST, Fixture, fixture, fixture_of};
use crate::support::{connect, fails, rows, run, value};

const BACKUP: &str = "BACKUP SNAPSHOT shop.s TO r ON (customers)";

async fn condition(w: &Fixture) -> String {
    let query = "SELECT concat_ws(' ', condition, reachable, version)
                 FROM system.clusters WHERE cluster = 'prod'";
    w.value(query).await
}

fn kill_backends(w: &Fixture) {
    w.fe.model(|m| m.backends.fill(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_what_frontends_tell_without_backends() {
    let w = fixture("4.0.1", Pace::Manual).await;
    assert_eq!(condition(&w).await, "well t 4.0.1");
    run(&w.client, BACKUP).await;
    (0..3).for_each(|_| w.fe.step());
    let native = "SELECT native_state FROM system.jobs";
    w.until(native, "UPLOADING").await;
    kill_backends(&w);
    assert_eq!(condition(&w).await, "no_backends t 4.0.1");
    // Over a connection of its own, which asks anew.
    let refused = fails(&w.client, "CANCEL BACKUP FROM empty").await;
    assert_eq!(refused.1, "No backup job is currently running");
    (0..3).for_each(|_| w.fe.step());
    assert_eq!(w.ends().await, "succeeded");
    assert_eq!(w.value("SELECT count(*) FROM system.jobs").await, "1");
    // One that is met in this state is known as well.
    let root = w.server.client().await;
    run(&root, &w.fe.create("other", "")).await;
    let version = "SELECT version FROM system.clusters WHERE cluster = 'other'";
    assert_eq!(value(&root, version).await, "4.0.1");
    let restore = "RESTORE SNAPSHOT shop.s FROM r ON (customers AS back)
                   PROPERTIES (\"backup_timestamp\" = \"latest\")";
    run(&w.client, restore).await;
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_a_leader_is_called_so() {
    let w = fixture("3.5.0", Pace::Manual).await;
    w.fe.set_leaderless(true);
    assert_eq!(condition(&w).await, "no_leader t 3.5.0");
    assert_eq!(fails(&w.client, BACKUP).await.0, "08006");
    let shown = rows(&w.server.client().await, "SHOW CLUSTERS").await;
    assert!(shown[1].contains(&Some("no_leader".into())), "{shown:?}");
    w.fe.set_leaderless(false);
    assert_eq!(condition(&w).await, "well t 3.5.0");
    run(&w.client, BACKUP).await;
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_privileges_are_told() {
    let w = fixture("3.5.0", Pace::Manual).await;
    w.fe.model(|m| m.denied = true);
    assert_eq!(condition(&w).await, "denied t 3.5.0");
    let error = "SELECT error FROM system.clusters WHERE cluster = 'prod'";
    assert!(w.value(error).await.contains("REPOSITORY privilege"));
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_labels_are_no_snapshots() {
    let w = fixture("3.2.1", Pace::Manual).await;
    let there = "SELECT count(*) FROM system.snapshots WHERE snapshot = 'nope'";
    assert_eq!(w.value(there).await, "0");
    // The look before the statement is over when it asks for the label.
    w.fe.fail("SHOW SNAPSHOT ON", Fault::Hold);
    let client = connect(w.server.server.addr(), "root", "dbname=prod");
    let client = client.await.expect("connects");
    let said = tokio::spawn(async move { client.batch_execute(BACKUP).await });
    w.fe.holds("SHOW SNAPSHOT ON").await;
    w.fe.fail("BACKUP", Fault::Late);
    w.fe.fail("SHOW BACKUP FROM", Fault::Hold);
    w.fe.go_on();
    w.fe.holds("SHOW BACKUP FROM").await;
    // It arrives and ends, and another takes its place, before anybody looks.
    w.fe.go_on();
    w.fe.until(|m| m.slots.contains_key("shop")).await;
    (0..6).for_each(|_| w.fe.step());
    w.fe.say(None, "BACKUP SNAPSHOT shop.other TO r ON (orders)");
    w.fe.go_on();
    said.await.expect("ends").expect("taken");
    let status = "SELECT status FROM system.jobs WHERE snapshot = 's'";
    w.until(status, "succeeded").await;
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_not_at_work() {
    let w = fixture("3.3.16", FAST).await;
    w.fe.fail("BACKUP", Fault::RefuseSilently);
    run(&w.client, BACKUP).await;
    assert_eq!(w.ends().await, "succeeded");
    assert_eq!(w.fe.effects("BACKUP").len(), 1);
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backup_leaves_out_is_told() {
    let w = fixture("3.5.0", FAST).await;
    w.fe.model(|m| {
        m.add_materialized_view("shop", "sums");
        m.backs_up_materialized_views = false;
    });
    run(&w.client, "BACKUP SNAPSHOT shop.whole TO r").await;
    assert_eq!(w.ends().await, "succeeded");
    let left_out = "SELECT left_out FROM system.jobs ORDER BY job_id DESC LIMIT 1";
    assert_eq!(w.value(left_out).await, "{shop.sums}");
    run(&w.client, "BACKUP SNAPSHOT shop.named TO r ON (sums)").await;
    assert_eq!(w.ends().await, "succeeded");
    assert_eq!(w.value(left_out).await, "{}");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn materialized_views_are_tables_and_views_are_not() {
    let w = fixture("3.5.0", FAST).await;
    w.fe.model(|m| m.add_materialized_view("shop", "sums"));
    let all = |table: &str, column: &str| {
        format!(
            "SELECT string_agg({column}, ' ' ORDER BY 1) FROM system.{table} WHERE db_name = 'shop'"
        )
    };
    let tables = all("tables", "table_name");
    assert_eq!(w.value(&tables).await, "customers orders sums");
    assert_eq!(w.value(&all("views", "view_name")).await, "people");
    let shown = rows(&w.client, "SHOW PARTITIONS FROM shop.sums").await;
    assert_eq!(shown.len(), 1);
    // A frontend lists them alone, too.
    kill_backends(&w);
    let (code, message) = fails(&w.client, "SELECT * FROM shop.sums").await;
    assert_eq!(code, "08006", "{message}");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_objects_are_known_at_once() {
    let fe = crate::fake_fe::FakeFe::start("3.5.0", 1, FAST).await;
    let w = fixture_of(fe, "").await;
    let alter = "ALTER CLUSTER prod SET (\"names_max_age_ms\" = \"3600000\")";
    run(&w.client, alter).await;
    run(&w.client, BACKUP).await;
    assert_eq!(w.ends().await, "succeeded");
    assert_eq!(w.value("SELECT count(*) FROM shop.customers").await, "3");
    let restore = "RESTORE SNAPSHOT shop.s FROM r ON (customers AS back)
                   PROPERTIES (\"backup_timestamp\" = \"latest\")";
    run(&w.client, restore).await;
    assert_eq!(w.ends().await, "succeeded");
    assert_eq!(w.value("SELECT count(*) FROM shop.back").await, "3");
    w.fe.model(|m| {
        let shop = m.databases.get_mut("shop").expect("a database");
        shop.tables
            .insert("new".into(), shop.tables["customers"].clone());
    });
    assert_eq!(w.value("SELECT count(*) FROM shop.new").await, "3");
    assert_eq!(fails(&w.client, "SELECT * FROM shop.nope").await.0, "42P01");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_auto_keeps_replicas() {
    let w = fixture("3.5.0", FAST).await;
    w.fe.model(|m| {
        m.backends = vec![true; 3];
        let shop = m.databases.get_mut("shop").expect("a database");
        shop.tables.get_mut("orders").expect("a table").replicas = 2;
    });
    run(
        &w.client,
        "BACKUP SNAPSHOT shop.s TO r ON (customers, orders)",
    )
    .await;
    assert_eq!(w.ends().await, "succeeded");
    let restore = |objects: &str| {
        format!(
            "RESTORE SNAPSHOT shop.s FROM r ON ({objects}) PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"auto\")"
        )
    };
    for (objects, replicas) in [("customers", 1), ("orders", 2), ("orders AS new", 3)] {
        run(&w.client, &restore(objects)).await;
        assert_eq!(w.ends().await, "succeeded");
        let sent = w.fe.effects("RESTORE").pop().expect("sent");
        let wanted = format!("'replication_num' = '{replicas}'");
        assert!(sent.contains(&wanted), "{objects}: {sent}");
    }
    let (code, message) = fails(&w.client, &restore("customers, orders")).await;
    assert_eq!(code, "22023", "{message}");
    assert!(message.contains("shop.orders has 2"), "{message}");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_what_runs_and_not_what_waits() {
    let w = fixture("3.5.0", Pace::Manual).await;
    // Nobody looks until somebody asks.
    let alter = "ALTER CLUSTER prod SET (\"poll_fast_ms\" = \"3600000\", \"poll_slow_ms\" = \"3600000\", \"poll_idle_ms\" = \"3600000\")";
    run(&w.client, alter).await;
    w.fe.say(None, "BACKUP SNAPSHOT shop.theirs TO r ON (orders)");
    let queued = "BACKUP SNAPSHOT shop.ours TO r ON (customers) PROPERTIES (\"queue\" = \"true\")";
    run(&w.client, queued).await;
    let shown = "SELECT snapshot_name FROM system.backup_jobs WHERE latest";
    w.until(shown, "theirs").await;
    run(&w.client, "CANCEL BACKUP FROM shop").await;
    w.fe.until(|m| m.slots["shop"].label == "ours").await;
    let waits = "SELECT status FROM system.jobs WHERE snapshot = 'theirs'";
    w.until(waits, "cancelled").await;
    // One that is cancelled while it waits hides nothing.
    let queued = "BACKUP SNAPSHOT shop.late TO r ON (customers) PROPERTIES (\"queue\" = \"true\")";
    run(&w.client, queued).await;
    let id = "SELECT job_id FROM system.jobs WHERE snapshot = 'late'";
    let id = w.value(id).await;
    run(&w.client, &format!("CANCEL JOB {id}")).await;
    w.until(shown, "ours").await;
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_query_is_not_stopped() {
    let w = fixture("3.3.16", FAST).await;
    run(&w.client, "USE shop").await;
    kill_backends(&w);
    let (code, message) = fails(&w.client, "SELECT count(*) FROM orders").await;
    assert_eq!(code, "08006", "{message}");
    assert!(message.contains("Backend node not found"), "{message}");
    assert!(w.fe.effects("KILL QUERY").is_empty());
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_while_the_cluster_works() {
    let w = fixture("3.3.16", Pace::Manual).await;
    run(&w.client, BACKUP).await;
    (0..3).for_each(|_| w.fe.step());
    let done = "SELECT concat_ws(' ', state, tasks_done, tasks_total, fraction_completed > 0.1)
                FROM system.jobs";
    w.fe.model(|m| m.set_open_tasks("shop", 4));
    w.until(done, "UPLOADING 0 4 f").await;
    w.fe.model(|m| m.set_open_tasks("shop", 1));
    w.until(done, "UPLOADING 3 4 t").await;
    w.server.stop().await;
}
