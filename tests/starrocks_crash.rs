//! `kill -9` of the gateway at each step of a job that a StarRocks cluster does: one request is one
//! submission, and its end is known.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::Client;

use crate::fake_fe::{FakeFe, Fault, Pace};
use crate::process::Process;
use crate::support::{connect, run, until, value};

/// When the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// While it looks at the slot, before anything is sent.
    Look,
    /// While the statement is on its way: it never arrives.
    Lost,
    /// The same, but it arrives, and has its effect while nobody is there.
    Arrived,
    /// The same, but its effect comes only after the next process has begun to look.
    Late,
    /// After it has seen the job in this phase.
    Phase(usize),
}

const STEPS: [Step; 10] = [
    Step::Look,
    Step::Lost,
    Step::Arrived,
    Step::Late,
    Step::Phase(0),
    Step::Phase(1),
    Step::Phase(2),
    Step::Phase(3),
    Step::Phase(5),
    Step::Phase(6),
];

async fn client(process: &Process) -> Client {
    connect(process.addr, "root", "dbname=prod")
        .await
        .expect("connects")
}

async fn crash(kind: &str, statement: &str, step: Step, dir: &Path) {
    let done = tokio::time::timeout(
        Duration::from_secs(60),
        crash_at(kind, statement, step, dir),
    )
    .await;
    assert!(done.is_ok(), "{kind} {step:?} does not come to an end");
}

async fn crash_at(kind: &str, statement: &str, step: Step, dir: &Path) {
    let fe = FakeFe::start("3.3.16", 1, Pace::Manual).await;
    let data = dir.join("data");
    let process = Process::start(&data);
    let root = connect(process.addr, "root", "").await.expect("connects");
    run(&root, &fe.create("prod", "")).await;
    let session = client(&process).await;
    std::fs::create_dir(dir.join("bucket")).expect("a directory");
    run(
        &session,
        &format!(
            "CREATE REPOSITORY r WITH BROKER hdfs_broker ON LOCATION \"{}\"",
            dir.join("bucket").display()
        ),
    )
    .await;
    run(&session, "BACKUP SNAPSHOT shop.first TO r ON (customers)").await;
    (0..6).for_each(|_| fe.step());
    until(&session, "SELECT status FROM system.jobs", "succeeded").await;
    let before = fe.effects(kind).len();

    match step {
        Step::Look => fe.fail("SHOW BACKUP FROM", Fault::Hold),
        Step::Lost => fe.fail(kind, Fault::DropBefore),
        Step::Arrived | Step::Late => fe.fail(kind, Fault::Late),
        Step::Phase(_) => {}
    }
    let text = statement.to_owned();
    let said = tokio::spawn(async move { session.batch_execute(&text).await });
    match step {
        Step::Look => fe.holds("SHOW BACKUP FROM").await,
        Step::Lost => {
            while !fe.model(|m| {
                m.statements.iter().any(|s| {
                    s.starts_with(statement.split(' ').next().unwrap_or_default())
                        && s.contains("second")
                })
            }) {
                tokio::task::yield_now().await;
            }
        }
        Step::Arrived | Step::Late => fe.holds(kind).await,
        Step::Phase(phase) => {
            said.await.expect("joined").expect("submitted");
            (0..phase).for_each(|_| fe.step());
            let watcher = client(&process).await;
            let state = fe.model(|m| m.slots["shop"].state);
            until(
                &watcher,
                "SELECT native_state FROM system.jobs WHERE job_id = 2",
                state,
            )
            .await;
        }
    }
    process.kill();
    if matches!(step, Step::Look | Step::Arrived) {
        fe.go_on();
        while !fe.shared.in_flight.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    let process = Process::start(&data);
    let session = client(&process).await;
    if step == Step::Late {
        while !fe.model(|m| {
            m.statements
                .iter()
                .any(|s| s.starts_with("SHOW FULL PROCESSLIST"))
        }) {
            tokio::task::yield_now().await;
        }
        fe.go_on();
    }
    // The job is moved on only once the cluster has it: an end that nobody saw would be another
    // test.
    while fe.effects(kind).len() == before {
        tokio::task::yield_now().await;
    }
    (0..7).for_each(|_| fe.step());
    until(
        &session,
        "SELECT count(*) FROM system.jobs WHERE status IN ('queued', 'running')",
        "0",
    )
    .await;
    let context = format!("{kind} {step:?}");
    assert_eq!(
        value(
            &session,
            "SELECT string_agg(status, ',' ORDER BY job_id) FROM system.jobs"
        )
        .await,
        "succeeded,succeeded",
        "{context}"
    );
    assert_eq!(
        fe.effects(kind).len(),
        before + 1,
        "{context}: one submission"
    );
    assert_eq!(
        value(&session, "SELECT count(*) FROM system.jobs WHERE external").await,
        "0",
        "{context}"
    );
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_survives_kill_9_at_each_step() {
    for step in STEPS {
        let dir = tempfile::tempdir().expect("a directory");
        crash(
            "BACKUP",
            "BACKUP SNAPSHOT shop.second TO r ON (orders)",
            step,
            dir.path(),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_survives_kill_9_at_each_step() {
    let statement = "RESTORE SNAPSHOT shop.first FROM r ON (customers AS second) PROPERTIES (\"backup_timestamp\" = \"latest\")";
    for step in STEPS {
        let dir = tempfile::tempdir().expect("a directory");
        crash("RESTORE", statement, step, dir.path()).await;
    }
}
