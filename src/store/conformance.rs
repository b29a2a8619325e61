//! One suite for every store: what is true of the model in memory is true of SQLite.

mod clusters;
mod drops;
mod listing;

use std::sync::Arc;

use self::clusters::{clusters, roles_and_grants};
use self::drops::drops;
use self::listing::{burial, listing, mirrors, verifications_and_uploads};
use super::*;
use crate::env::Env;
use crate::job::{
    Assignment, BackupEvent, BackupObject, BackupPlan, BackupRequest, Failure, JobEvent, JobStatus,
    Phase, Requester, Target, TaskKind, TransferTask, Version, Volume, Work,
};
use crate::names::{BackendId, JobUid, TableName, TabletId, TaskId};

fn sqlite() -> (Arc<dyn Store>, Option<tempfile::TempDir>) {
    let dir = tempfile::tempdir().expect("a directory");
    let env = Env::system();
    let store = SqliteStore::open(&dir.path().join("meta.db"), SecretKey::random(&env), env)
        .expect("opens");
    (Arc::new(store), Some(dir))
}

fn memory() -> (Arc<dyn Store>, Option<tempfile::TempDir>) {
    (Arc::new(MemoryStore::default()), None)
}

fn embedded() -> ClusterName {
    ClusterName::new("embedded").expect("valid")
}

fn database(name: &str) -> DatabaseName {
    DatabaseName::new(name).expect("valid")
}

fn target(name: &str, label: &str) -> Target {
    let repository = RepositoryName::new("r").expect("valid");
    Target {
        database: database(name),
        label: SnapshotLabel::new(label).expect("valid"),
        repository,
    }
}

fn spec(database: &str, label: &str) -> JobSpec {
    JobSpec {
        uid: JobUid::new(format!("{database}-{label}")).expect("valid"),
        cluster: embedded(),
        requester: Requester::User {
            name: "root".into(),
            client_addr: None,
            application_name: None,
        },
        statement: "BACKUP".into(),
        timeout_seconds: 600,
        max_bytes_per_second: None,
        work: Work::Backup {
            target: target(database, label),
            request: BackupRequest {
                objects: vec![BackupObject {
                    table: TableName::new("t").expect("valid"),
                    partitions: Vec::new(),
                }],
                views: Vec::new(),
                ttl: None,
                base: None,
            },
        },
    }
}

fn repository(name: &str) -> RepositoryRecord {
    RepositoryRecord {
        cluster: embedded(),
        id: RepositoryId(0),
        name: RepositoryName::new(name).expect("valid"),
        location: "/x".into(),
        broker: None,
        read_only: false,
        created_at: Timestamp(5),
        properties: BTreeMap::from([("aws.s3.secret_key".into(), "hush".into())]),
    }
}

fn event(event: BackupEvent) -> JobEvent {
    JobEvent::Backup(event)
}

/// A plan of two empty tablets.
fn plan() -> BackupPlan {
    let tablets =
        [11, 12].map(|id| serde_json::json!({"tablet_id": id, "backend_id": 2, "files": []}));
    let schema = serde_json::json!({
        "columns": [], "key": "duplicate", "key_columns": [], "partitioning": "unpartitioned",
        "distribution": {"columns": ["k"], "buckets": 2}, "properties": {}, "comment": null,
    });
    let table = serde_json::json!({
        "name": "t", "table_id": 9, "schema": schema, "replication_num": 1,
        "partitions": [{"name": "t", "partition_id": 10, "bounds": "whole", "version": 1, "tablets": tablets}],
    });
    BackupPlan::new(
        vec![serde_json::from_value(table).expect("a table")],
        Vec::new(),
    )
}

async fn append(store: &dyn Store, job: &Job, event: JobEvent, at: Timestamp) -> Job {
    let delta = Arc::new(Delta::one(job, event, at).expect("legal"));
    store.append(&delta).await.expect("appended");
    delta.job.clone()
}

async fn jobs_and_journal(store: Arc<dyn Store>) {
    assert_eq!(
        store
            .admit(&spec("d", "l"), Timestamp(1))
            .await
            .expect_err("no repository")
            .kind,
        ErrorKind::UndefinedObject
    );
    store.add_repository(&repository("r")).await.expect("added");

    let job = store
        .admit(&spec("d", "l"), Timestamp(10))
        .await
        .expect("admitted");
    assert_eq!(
        store
            .unsettled(&embedded(), &database("d"))
            .await
            .expect("asked"),
        [job.id]
    );
    assert_eq!(
        store
            .unsettled(&prod(), &database("d"))
            .await
            .expect("asked"),
        []
    );
    // One job a database, one backup a label; another database with another label is free.
    assert_eq!(
        store
            .admit(&spec("d", "m"), Timestamp(11))
            .await
            .expect_err("busy")
            .kind,
        ErrorKind::ObjectInUse
    );
    assert_eq!(
        store
            .admit(&spec("e", "l"), Timestamp(11))
            .await
            .expect_err("label")
            .kind,
        ErrorKind::DuplicateObject
    );
    let other = store
        .admit(&spec("e", "m"), Timestamp(12))
        .await
        .expect("admitted");
    assert_eq!(
        store.unfinished().await.expect("listed"),
        [job.id, other.id]
    );
    assert_eq!(
        store
            .remove_repository(&embedded(), &repository("r").name)
            .await
            .expect_err("in use")
            .kind,
        ErrorKind::ObjectInUse
    );

    // Append goes by the version; a second writer loses and changes nothing.
    let planned = event(BackupEvent::Planned {
        plan: Arc::new(plan()),
    });
    let mut delta = Delta::one(&job, planned, Timestamp(20)).expect("legal");
    let tasks = Arc::new(vec![TransferTask {
        task_id: TaskId(1),
        assignment: Assignment {
            tablet_id: TabletId(11),
            backend_id: BackendId(2),
        },
        planned: Volume { files: 1, bytes: 7 },
    }]);
    // What came together is appended together, and each event keeps its place.
    for (n, task) in [12, 11].into_iter().enumerate() {
        let done = event(BackupEvent::Snapshoted {
            task: TaskId(task),
            backend_id: BackendId(2),
        });
        delta.push(done, Timestamp(21 + n as i64)).expect("legal");
    }
    assert!(
        delta
            .push(event(BackupEvent::Published), Timestamp(23))
            .is_err(),
        "not in this state"
    );
    delta
        .push(event(BackupEvent::UploadPlanned { tasks }), Timestamp(23))
        .expect("legal");
    let delta = Arc::new(delta);
    store.append(&delta).await.expect("appended");
    assert_eq!(
        store.append(&delta).await.expect_err("late").kind,
        ErrorKind::WrongState
    );
    let next = delta.job.clone();
    assert_eq!((next.phase(), next.version), (Phase::Uploading, Version(4)));
    assert_eq!(store.load(job.id).await.expect("loaded"), next);
    assert_eq!(store.spec(job.id).await.expect("loaded"), *job.spec);
    let shown = |rows: Vec<TaskRow>| {
        rows.iter()
            .map(|t| (t.task_id.0, t.kind, t.finished, t.planned.bytes))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown(store.tasks(job.id..=job.id).await.expect("listed")),
        [
            (1, TaskKind::Upload, false, 7),
            (11, TaskKind::Snapshot, true, 0),
            (12, TaskKind::Snapshot, true, 0)
        ]
    );
    let row = store
        .jobs(&JobFilter {
            job_id: Some(job.id),
            ..JobFilter::default()
        })
        .await
        .expect("listed");
    assert_eq!(
        row,
        [JobRow::of(&next)],
        "the row is that of the job as it stands"
    );

    let cancelled = event(BackupEvent::Cancelled {
        failure: Failure::user_cancelled(None),
    });
    let over = append(&*store, &next, cancelled, Timestamp(30)).await;
    // Settled, so the database, the label and the repository are free again; but clean-up is left,
    // so the job is unfinished.
    assert_eq!(
        store
            .unsettled(&embedded(), &database("d"))
            .await
            .expect("asked"),
        []
    );
    assert!(store.unfinished().await.expect("listed").contains(&job.id));
    let again = store
        .admit(&spec("d", "l"), Timestamp(31))
        .await
        .expect("the label is free, too");
    let released = event(BackupEvent::Released);
    append(&*store, &over, released, Timestamp(32)).await;
    assert_eq!(
        store.unfinished().await.expect("listed"),
        [other.id, again.id]
    );

    let events = store.events(job.id..=job.id).await.expect("listed");
    let shown: Vec<_> = events
        .iter()
        .map(|e| (e.seq, e.at.0, e.from_state.as_str(), e.to_state.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (1, 20, "PENDING", "SNAPSHOTING"),
            (2, 21, "SNAPSHOTING", "SNAPSHOTING"),
            (3, 22, "SNAPSHOTING", "UPLOAD_SNAPSHOT"),
            (4, 23, "UPLOAD_SNAPSHOT", "UPLOADING"),
            (5, 30, "UPLOADING", "CANCELLED"),
            (6, 32, "CANCELLED", "CANCELLED")
        ]
    );

    let id = store
        .refuse(
            &spec("d", "x"),
            Timestamp(40),
            &Error::new(ErrorKind::Syntax, "no"),
        )
        .await
        .expect("recorded");
    let refused = store
        .jobs(&JobFilter {
            job_id: Some(id),
            ..JobFilter::default()
        })
        .await
        .expect("listed");
    assert_eq!(
        (refused[0].status, refused[0].error_code.as_deref()),
        (JobStatus::Refused, Some("42601"))
    );
    assert_eq!(
        store
            .jobs(&JobFilter {
                db_name: Some("e".into()),
                ..JobFilter::default()
            })
            .await
            .expect("listed")
            .len(),
        1
    );
    assert_eq!(
        store
            .jobs(&JobFilter {
                status: Some(JobStatus::Cancelled),
                ..JobFilter::default()
            })
            .await
            .expect("listed")
            .len(),
        1
    );
    assert_eq!(
        store.load(JobId(999)).await.expect_err("none").kind,
        ErrorKind::UndefinedObject
    );
}

async fn repositories_and_users(store: Arc<dyn Store>) {
    let first = store.add_repository(&repository("a")).await.expect("added");
    assert_eq!(
        store
            .add_repository(&repository("a"))
            .await
            .expect_err("twice")
            .kind,
        ErrorKind::DuplicateObject
    );
    let read = store
        .repository(&embedded(), &repository("a").name)
        .await
        .expect("found");
    assert_eq!(
        read,
        RepositoryRecord {
            id: first,
            ..repository("a")
        }
    );
    store
        .remove_repository(&embedded(), &read.name)
        .await
        .expect("removed");
    assert_eq!(
        store
            .remove_repository(&embedded(), &read.name)
            .await
            .expect_err("gone")
            .kind,
        ErrorKind::UndefinedObject
    );
    assert!(
        store
            .add_repository(&repository("a"))
            .await
            .expect("added again")
            > first,
        "ids are never used again"
    );

    let verifier = PasswordVerifier {
        salt: vec![1],
        iterations: 4096,
        stored_key: vec![2],
        server_key: vec![3],
    };
    let name = UserName::new("u").expect("valid");
    let user = UserRecord {
        name: name.clone(),
        verifier: None,
        admin: false,
        created_at: Timestamp(1),
    };
    assert_eq!(
        store.set_admin(&name, true).await.expect_err("none").kind,
        ErrorKind::UndefinedObject
    );
    assert_eq!(
        store
            .set_password(&name, &verifier)
            .await
            .expect_err("none")
            .kind,
        ErrorKind::UndefinedObject
    );
    store.add_user(&user).await.expect("added");
    assert_eq!(
        store.add_user(&user).await.expect_err("twice").kind,
        ErrorKind::DuplicateObject
    );
    let changed = UserRecord {
        verifier: Some(verifier),
        admin: true,
        ..user
    };
    store.set_admin(&name, true).await.expect("changed");
    store
        .set_password(&name, changed.verifier.as_ref().expect("one"))
        .await
        .expect("changed");
    // A password that was worked out before a revocation does not undo it.
    store.set_admin(&name, false).await.expect("changed");
    store
        .set_password(&name, changed.verifier.as_ref().expect("one"))
        .await
        .expect("changed");
    let changed = UserRecord {
        admin: false,
        ..changed
    };
    assert_eq!(store.user(&name).await.expect("asked"), Some(changed));
    roles_and_grants(&store, &name).await;
    store.remove_user(&name).await.expect("removed");
    assert_eq!(store.user(&name).await.expect("asked"), None);
    assert_eq!(
        store.grants().await.expect("listed"),
        [],
        "what a user held goes with the user"
    );
}

fn prod() -> ClusterName {
    ClusterName::new("prod").expect("valid")
}

#[tokio::test]
async fn memory_keeps_clusters() {
    clusters(memory().0).await;
}

#[tokio::test]
async fn sqlite_keeps_clusters() {
    let (store, _dir) = sqlite();
    clusters(store).await;
}

#[tokio::test]
async fn memory_keeps_dropped_snapshots_apart() {
    drops(memory().0).await;
}

#[tokio::test]
async fn sqlite_keeps_dropped_snapshots_apart() {
    let (store, _dir) = sqlite();
    drops(store).await;
}

#[tokio::test]
async fn memory_keeps_jobs() {
    jobs_and_journal(memory().0).await;
}

#[tokio::test]
async fn sqlite_keeps_jobs() {
    let (store, _dir) = sqlite();
    jobs_and_journal(store).await;
}

#[tokio::test]
async fn jobs_are_listed_by_filter_span_and_order() {
    listing(memory().0).await;
    let (store, _dir) = sqlite();
    listing(store).await;
}

#[tokio::test]
async fn a_job_that_does_not_read_is_lost() {
    burial(memory().0).await;
    let (store, _dir) = sqlite();
    burial(store).await;
}

#[tokio::test]
async fn imported_jobs_are_history_alone() {
    mirrors(memory().0).await;
    let (store, _dir) = sqlite();
    mirrors(store).await;
}

#[tokio::test]
async fn verifications_and_uploads_are_kept() {
    verifications_and_uploads(memory().0).await;
    let (store, _dir) = sqlite();
    verifications_and_uploads(store).await;
}

#[tokio::test]
async fn memory_keeps_repositories_and_users() {
    repositories_and_users(memory().0).await;
}

#[tokio::test]
async fn sqlite_keeps_repositories_and_users() {
    let (store, _dir) = sqlite();
    repositories_and_users(store).await;
}

#[tokio::test]
async fn sqlite_survives_being_reopened_and_hides_secrets() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, env) = (dir.path().join("meta.db"), Env::system());
    let key = SecretKey::random(&env);
    let store = SqliteStore::open(&path, key.clone(), env.clone()).expect("opens");
    store.add_repository(&repository("r")).await.expect("added");
    let job = store
        .admit(&spec("d", "l"), Timestamp(10))
        .await
        .expect("admitted");
    drop(store);
    for file in std::fs::read_dir(dir.path()).expect("listed") {
        let bytes = std::fs::read(file.expect("an entry").path()).expect("read");
        assert!(
            !bytes.windows(4).any(|w| w == b"hush"),
            "a secret lies in clear"
        );
    }
    let store = SqliteStore::open(&path, key, env.clone()).expect("opens again");
    assert_eq!(store.load(job.id).await.expect("loaded"), job);
    assert_eq!(
        store.repositories().await.expect("listed")[0].properties["aws.s3.secret_key"],
        "hush"
    );
    drop(store);
    let error = SqliteStore::open(&path, SecretKey::random(&env), env).expect_err("a wrong key");
    assert_eq!(error.kind, ErrorKind::Configuration);
}

/// A file from before there were other clusters: its repositories are the embedded one's, with
/// their ids and secrets.
#[tokio::test]
async fn sqlite_takes_over_a_file_without_clusters() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, env) = (dir.path().join("meta.db"), Env::system());
    let key = SecretKey::random(&env);
    let before = [
        include_str!("../../sql/meta/001_initial.sql"),
        include_str!("../../sql/meta/002_privileges.sql"),
    ];
    let connection = crate::sqlite::open_database(&path, &before).expect("opens");
    for (id, name) in [(3, "a"), (9, "gone")] {
        let sealed = key.seal(&env, name, "{\"aws.s3.secret_key\":\"hush\"}");
        let insert = "INSERT INTO repositories (repository_id, name, location, read_only, created_at, properties)
                      VALUES (?1, ?2, '/x', 0, 5, ?3)";
        connection
            .execute(insert, rusqlite::params![id, name, sealed])
            .expect("inserted");
    }
    connection
        .execute("DELETE FROM repositories WHERE name = 'gone'", [])
        .expect("deleted");
    drop(connection);
    let store = SqliteStore::open(&path, key, env).expect("opens");
    let read = store
        .repository(&embedded(), &repository("a").name)
        .await
        .expect("found");
    assert_eq!(
        read,
        RepositoryRecord {
            id: RepositoryId(3),
            ..repository("a")
        }
    );
    assert_eq!(
        store.add_repository(&repository("b")).await.expect("added"),
        RepositoryId(10),
        "ids are never used again"
    );
}
