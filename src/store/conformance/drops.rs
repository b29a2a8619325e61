//! Snapshots that are dropped, beside jobs that need them.

use std::sync::Arc;

use super::{append, embedded, event, repository, spec, target};
use crate::job::{
    BackupEvent, DropEvent, DropRequest, DroppedBackups, Failure, JobEvent, RestoreRequest, Target,
    Work,
};
use crate::names::BackupTimestamp;
use crate::store::*;

/// A job that drops a snapshot, or restores it.
fn on_snapshot(label: &str, work: impl FnOnce(Target) -> Work) -> JobSpec {
    JobSpec {
        work: work(target("z", label)),
        ..spec("z", label)
    }
}

fn dropping(target: Target) -> Work {
    let backups = DroppedBackups::All {
        cluster_id: "c".into(),
        force: false,
    };
    Work::DropSnapshot(DropRequest {
        repository: target.repository,
        label: target.label,
        backups,
    })
}

fn restoring(target: Target) -> Work {
    let request = RestoreRequest {
        timestamp: BackupTimestamp::new("2026-01-02-03-04-05-678").expect("valid"),
        objects: Vec::new(),
        views: Vec::new(),
        replication_num: 1,
        replication_given: false,
        allow_load: false,
        makes_database: false,
    };
    Work::Restore { target, request }
}

pub(super) async fn drops(store: Arc<dyn Store>) {
    store.add_repository(&repository("r")).await.expect("added");
    let job = store
        .admit(&spec("d", "l"), Timestamp(10))
        .await
        .expect("admitted");
    let refused = |result: Result<Job, Error>| {
        result
            .map(|job| job.id)
            .map_err(|e| (e.kind, e.message))
            .expect_err("refused")
    };
    let writing = "Can not drop snapshot l: a backup is writing it".to_owned();
    let drop_l = on_snapshot("l", dropping);
    assert_eq!(
        refused(store.admit(&drop_l, Timestamp(11)).await),
        (ErrorKind::ObjectInUse, writing)
    );
    let read_l = refused(
        store
            .admit(&on_snapshot("l", restoring), Timestamp(11))
            .await,
    );
    assert_eq!(
        read_l,
        (
            ErrorKind::ObjectInUse,
            "Can not read snapshot l: a backup is writing it".to_owned()
        )
    );
    // What is being dropped is neither written nor read nor dropped.
    let dropped = store
        .admit(&on_snapshot("m", dropping), Timestamp(12))
        .await
        .expect("free");
    assert_eq!(dropped.spec.work.database(), None);
    for other in [
        spec("e", "m"),
        on_snapshot("m", restoring),
        on_snapshot("m", dropping),
    ] {
        let being_dropped = "snapshot m is being dropped".to_owned();
        assert_eq!(
            refused(store.admit(&other, Timestamp(13)).await),
            (ErrorKind::ObjectInUse, being_dropped)
        );
    }
    assert_eq!(
        store
            .remove_repository(&embedded(), &repository("r").name)
            .await
            .expect_err("in use")
            .kind,
        ErrorKind::ObjectInUse
    );
    let row = &store
        .jobs(&JobFilter {
            job_id: Some(dropped.id),
            ..JobFilter::default()
        })
        .await
        .expect("listed")[0];
    assert_eq!(
        (row.kind, row.db_name.as_str(), row.snapshot.as_str()),
        (JobKind::DropSnapshot, "", "m")
    );
    // It takes two events, and after the last it holds nothing.
    let timestamp = BackupTimestamp::new("2026-01-02-03-04-05-678").expect("valid");
    let checked = JobEvent::DropSnapshot(DropEvent::Checked {
        timestamps: vec![timestamp],
    });
    let deleting = append(&*store, &dropped, checked, Timestamp(14)).await;
    let done = append(
        &*store,
        &deleting,
        JobEvent::DropSnapshot(DropEvent::Deleted),
        Timestamp(15),
    )
    .await;
    assert_eq!(store.load(dropped.id).await.expect("loaded"), done);
    store
        .admit(&spec("e", "m"), Timestamp(16))
        .await
        .expect("free again");
    // Many read one snapshot at once, and none of them lets it be dropped.
    let cancelled = event(BackupEvent::Cancelled {
        failure: Failure::user_cancelled(None),
    });
    append(&*store, &job, cancelled, Timestamp(17)).await;
    store
        .admit(&on_snapshot("l", restoring), Timestamp(18))
        .await
        .expect("free");
    let elsewhere = JobSpec {
        work: restoring(target("y", "l")),
        ..spec("y", "l")
    };
    store
        .admit(&elsewhere, Timestamp(18))
        .await
        .expect("read by two");
    let reading = "Can not drop snapshot l: a restore is reading it".to_owned();
    assert_eq!(
        refused(store.admit(&drop_l, Timestamp(19)).await),
        (ErrorKind::ObjectInUse, reading)
    );
}
