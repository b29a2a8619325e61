//! Snapshots whose time is over go; those of others, of read-only repositories and in use stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio_postgres::Client;

use crate::support::{ShiftedClock, TestServer, fails, job_ends, rows, run, value};

const DAY_MS: i64 = 86_400_000;

/// A server that looks for expired snapshots this often, and what puts its clock forward.
async fn server(expiry_seconds: u64) -> (TestServer, Arc<AtomicI64>) {
    let shift = Arc::default();
    let env = ShiftedClock::env(&shift);
    let dir = tempfile::tempdir().expect("a directory");
    (
        TestServer::start_with(dir, env, |settings| {
            settings.snapshot_expiry_seconds = expiry_seconds
        })
        .await,
        shift,
    )
}

async fn table(client: &Client) {
    run(
        client,
        "CREATE DATABASE d; USE d; CREATE TABLE t (a INT); INSERT INTO t VALUES (1)",
    )
    .await;
}

async fn back_up(client: &Client, label: &str, repository: &str, ttl: &str) {
    run(
        client,
        &format!(
            "BACKUP SNAPSHOT d.{label} TO {repository} ON (t) PROPERTIES (\"ttl\" = \"{ttl}\")"
        ),
    )
    .await;
    assert_eq!(job_ends(client, "d").await, "succeeded");
}

/// Waits until a query answers this.
async fn until(client: &Client, query: &str, answer: &str) {
    while value(client, query).await != answer {
        tokio::task::yield_now().await;
    }
}

async fn labels(client: &Client) -> Vec<String> {
    let found = rows(
        client,
        "SELECT snapshot FROM system.snapshots ORDER BY repository, snapshot",
    )
    .await;
    found
        .into_iter()
        .map(|row| row[0].clone().expect("a label"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_snapshots_go_and_no_others() {
    let ((ours, clock), (theirs, _)) = (server(1).await, server(3600).await);
    let (client, other) = (ours.client().await, theirs.client().await);
    table(&client).await;
    table(&other).await;
    let create = |name: &str, read_only: &str| {
        format!(
            "CREATE {read_only} REPOSITORY {name} WITH BROKER ON LOCATION \"{}\"",
            ours.repository().display()
        )
    };
    for client in [&client, &other] {
        run(client, &create("r", "")).await;
    }
    run(&client, &create("r2", "")).await;
    back_up(&other, "by_another", "r", "1 DAY").await;
    back_up(&client, "kept", "r", "").await;
    back_up(&client, "later", "r", "1 YEAR").await;
    // Rounds go by name. When z is gone, a whole round has looked at all others after they had
    // expired.
    back_up(&client, "z", "r", "1 DAY").await;
    clock.fetch_add(2 * DAY_MS, Ordering::SeqCst);
    until(
        &client,
        "SELECT count(*) FROM system.snapshots WHERE snapshot = 'z'",
        "0",
    )
    .await;
    assert_eq!(labels(&client).await, ["by_another", "kept", "later"]);
    let metrics = ours.server.gateway().metrics.encode();
    assert!(
        metrics.contains("starkeep_snapshots_expired_total{status=\"deleted\"} 1"),
        "{metrics}"
    );

    // In a repository that is read-only now, nothing is deleted.
    back_up(&client, "y", "r", "1 DAY").await;
    run(
        &client,
        &format!("DROP REPOSITORY r; {}", create("r", "READ ONLY")),
    )
    .await;
    back_up(&client, "z", "r2", "1 DAY").await;
    clock.fetch_add(2 * DAY_MS, Ordering::SeqCst);
    until(
        &client,
        "SELECT count(*) FROM system.snapshots WHERE snapshot = 'z'",
        "0",
    )
    .await;
    assert_eq!(labels(&client).await, ["by_another", "kept", "later", "y"]);

    // Another cluster's snapshot is dropped by its own cluster, or by force.
    run(&client, &format!("DROP REPOSITORY r; {}", create("r", ""))).await;
    let (code, message) = fails(&client, "DROP SNAPSHOT by_another ON r").await;
    let maker = value(
        &other,
        "SELECT cluster_id FROM system.snapshots WHERE snapshot = 'by_another'",
    )
    .await;
    let this = value(
        &client,
        "SELECT cluster_id FROM system.snapshots WHERE snapshot = 'kept'",
    )
    .await;
    assert_ne!(maker, this);
    assert_eq!(code, "55000");
    assert_eq!(
        message,
        format!(
            "Snapshot by_another in repository r was created by cluster {maker}, and this cluster is {this}. Use DROP SNAPSHOT ... \
             FORCE to drop it anyway"
        )
    );
    run(
        &client,
        "DROP SNAPSHOT by_another ON r FORCE; DROP SNAPSHOT kept ON r",
    )
    .await;
    // What stays can be restored: deleting takes manifests, never data.
    run(&client, "RESTORE SNAPSHOT d.later FROM r ON (t AS t2) PROPERTIES (\"backup_timestamp\" = \"latest\")").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(value(&client, "SELECT a FROM d.t2").await, "1");
    ours.stop().await;
    theirs.stop().await;
}

/// A damaged manifest does not say who made it, so only force drops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_dropped_by_force_alone() {
    let server = TestServer::start().await;
    let client = server.client().await;
    table(&client).await;
    run(
        &client,
        &format!(
            "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
            server.repository().display()
        ),
    )
    .await;
    back_up(&client, "s", "r", "").await;
    let dir = server.repository().join("__starrocks_repository_r/__ss_s");
    for entry in std::fs::read_dir(&dir).expect("listed") {
        std::fs::write(entry.expect("an entry").path(), "{}").expect("written");
    }
    assert!(
        value(&client, "SELECT status FROM system.snapshots")
            .await
            .starts_with("ERROR: Failed to get info: ")
    );
    let (code, message) = fails(&client, "DROP SNAPSHOT s ON r").await;
    assert_eq!(code, "55000");
    assert!(
        message.starts_with("Snapshot s in repository r does not record which cluster created it."),
        "{message}"
    );
    run(&client, "DROP SNAPSHOT s ON r FORCE").await;
    assert_eq!(labels(&client).await, [""; 0]);
    // What looks like a snapshot and is none is shown as what it is.
    std::fs::create_dir(&dir).expect("made");
    assert_eq!(
        value(&client, "SELECT status FROM system.snapshots").await,
        "ERROR: no snapshot"
    );
    assert_eq!(
        rows(&client, "SHOW SNAPSHOT ON r").await,
        [[
            Some("s"),
            Some(""),
            Some("ERROR: no snapshot"),
            None,
            None,
            None,
            None
        ]
        .map(|v| v.map(str::to_owned))]
    );
    server.stop().await;
}
