//! Jobs by filters, spans and orders, in pages; jobs whose journal does not read.

use super::*;
use crate::job::{
    Finding, FindingKind, Findings, JobKind, JobStatus, SAMPLE_ALL, VerifyEvent, VerifyLevel,
    VerifyPlan, VerifyRequest,
};
use crate::names::{BackupTimestamp, JobUid};

/// Every job that a filter lets through, taken in pages.
async fn in_pages(store: &dyn Store, filter: &JobFilter, page: usize) -> Vec<JobId> {
    let mut filter = JobFilter {
        limit: Some(page),
        ..filter.clone()
    };
    let mut found = Vec::new();
    loop {
        let rows = store.jobs(&filter).await.expect("listed");
        assert!(rows.len() <= page);
        let Some(last) = rows.last() else {
            return found;
        };
        filter.after = Some((last.created_at, last.job_id));
        found.extend(rows.iter().map(|row| row.job_id));
    }
}

pub(super) async fn listing(store: Arc<dyn Store>) {
    store.add_repository(&repository("r")).await.expect("added");
    assert_eq!(store.last_job().await.expect("asked"), None);
    assert_eq!(store.newest_job().await.expect("asked"), None);
    let error = Error::new(ErrorKind::ObjectInUse, "busy");
    // Times that go up and down, and some that are the same.
    let mut all: Vec<(JobId, Timestamp)> = Vec::new();
    for n in 0..23 {
        let at = Timestamp(1000 + (n * 7) % 11);
        let label = ["l", "m"][n as usize % 2];
        let id = store
            .refuse(&spec(["d", "e", "f"][n as usize % 3], label), at, &error)
            .await
            .expect("recorded");
        all.push((id, at));
    }
    assert_eq!(
        store.last_job().await.expect("asked"),
        all.last().map(|(id, _)| *id)
    );
    let of_refused = [
        store.load(all[0].0).await.expect_err("no job"),
        store.spec(all[0].0).await.expect_err("no job"),
    ];
    assert!(of_refused.iter().all(|e| e.kind == ErrorKind::WrongState));
    let bounds = [None, Some(3), Some(17)];
    let times = [None, Some(1004), Some(1009)];
    for (from, to) in bounds
        .iter()
        .flat_map(|f| bounds.iter().map(move |t| (*f, *t)))
    {
        for (since, until) in times
            .iter()
            .flat_map(|f| times.iter().map(move |t| (*f, *t)))
        {
            for (order, descending) in [
                (JobOrder::Id, false),
                (JobOrder::Id, true),
                (JobOrder::CreatedAt, false),
                (JobOrder::CreatedAt, true),
            ] {
                let filter = JobFilter {
                    ids: Span {
                        from: from.map(JobId),
                        to: to.map(JobId),
                    },
                    created: Span {
                        from: since.map(Timestamp),
                        to: until.map(Timestamp),
                    },
                    order,
                    descending,
                    ..JobFilter::default()
                };
                let mut expected = all.clone();
                expected.retain(|(id, at)| {
                    from.is_none_or(|from| from <= id.0)
                        && to.is_none_or(|to| id.0 <= to)
                        && since.is_none_or(|since| since <= at.0)
                        && until.is_none_or(|until| at.0 <= until)
                });
                if order == JobOrder::CreatedAt {
                    expected.sort_by_key(|(id, at)| (*at, *id));
                }
                if descending {
                    expected.reverse();
                }
                let expected: Vec<JobId> = expected.into_iter().map(|(id, _)| id).collect();
                for page in [1, 4, 100] {
                    let found = in_pages(&*store, &filter, page).await;
                    assert_eq!(found, expected, "{filter:?} in pages of {page}");
                }
            }
        }
    }
    let ids = |filter: JobFilter| {
        let store = store.clone();
        async move { in_pages(&*store, &filter, 100).await }
    };
    let every = |n: usize, from: usize| -> Vec<JobId> {
        all.iter()
            .skip(from)
            .step_by(n)
            .map(|(id, _)| *id)
            .collect()
    };
    let of = JobFilter::default;
    let db_name = Some("e".to_owned());
    assert_eq!(ids(JobFilter { db_name, ..of() }).await, every(3, 1));
    let snapshot = Some("m".to_owned());
    assert_eq!(ids(JobFilter { snapshot, ..of() }).await, every(2, 1));
    let job_id = Some(all[4].0);
    assert_eq!(ids(JobFilter { job_id, ..of() }).await, [all[4].0]);
    for (filter, some) in [
        (
            JobFilter {
                repository: Some("r".into()),
                ..of()
            },
            true,
        ),
        (
            JobFilter {
                repository: Some("s".into()),
                ..of()
            },
            false,
        ),
        (
            JobFilter {
                kind: Some(JobKind::Backup),
                ..of()
            },
            true,
        ),
        (
            JobFilter {
                kind: Some(JobKind::Restore),
                ..of()
            },
            false,
        ),
        (
            JobFilter {
                status: Some(JobStatus::Refused),
                ..of()
            },
            true,
        ),
        (
            JobFilter {
                status: Some(JobStatus::Queued),
                ..of()
            },
            false,
        ),
        (
            JobFilter {
                cluster: Some("embedded".into()),
                ..of()
            },
            true,
        ),
        (
            JobFilter {
                cluster: Some("prod".into()),
                ..of()
            },
            false,
        ),
    ] {
        let found = ids(filter.clone()).await;
        assert_eq!(found.len(), if some { all.len() } else { 0 }, "{filter:?}");
    }
    // Refused ones were never the latest; what is under way is, and what was begun last after it.
    let latest = |db_name: Option<&str>| JobFilter {
        cluster: Some("embedded".into()),
        kind: Some(JobKind::Backup),
        db_name: db_name.map(Into::into),
        latest: true,
        ..of()
    };
    assert_eq!(store.jobs(&latest(None)).await.expect("listed"), []);
    let (one, two) = (
        store
            .admit(&spec("d", "a"), Timestamp(30))
            .await
            .expect("admitted"),
        store
            .admit(&spec("e", "b"), Timestamp(31))
            .await
            .expect("admitted"),
    );
    let found = |rows: Vec<JobRow>| rows.iter().map(|row| row.job_id).collect::<Vec<_>>();
    for (database, expected) in [
        (None, vec![one.id, two.id]),
        (Some("e"), vec![two.id]),
        (Some("f"), vec![]),
    ] {
        let rows = store.jobs(&latest(database)).await.expect("listed");
        assert_eq!(found(rows), expected, "{database:?}");
    }
}

/// A job whose journal does not read is LOST: its locks are free, its events stay.
pub(super) async fn burial(store: Arc<dyn Store>) {
    store.add_repository(&repository("r")).await.expect("added");
    let job = store
        .admit(&spec("d", "l"), Timestamp(10))
        .await
        .expect("admitted");
    let busy = spec("d", "m");
    let refused = store.check_admission(&busy).await.expect_err("busy");
    assert_eq!(refused.kind, ErrorKind::ObjectInUse);
    let why = Error::new(ErrorKind::Corrupted, "it does not add up");
    store
        .bury(job.id, &why, Timestamp(40))
        .await
        .expect("buried");
    store.check_admission(&busy).await.expect("free");
    assert_eq!(store.unfinished().await.expect("asked"), []);
    let unsettled = store.unsettled(&embedded(), &database("d")).await;
    assert_eq!(unsettled.expect("asked"), []);
    let rows = store.jobs(&JobFilter::default()).await.expect("listed");
    assert_eq!(
        (rows[0].status, rows[0].finished_at),
        (JobStatus::Lost, Some(Timestamp(40)))
    );
    let error = rows[0].error_message.as_deref().unwrap_or_default();
    assert!(error.contains("it does not add up"), "{error}");
    let unknown = store.bury(JobId(99), &why, Timestamp(41)).await;
    assert!(unknown.is_err());
}

/// What a verification came to is in rows once it has ended well; uploads are kept until they are
/// crossed out.
pub(super) async fn verifications_and_uploads(store: Arc<dyn Store>) {
    let id = store.add_repository(&repository("r")).await.expect("added");
    let verify = JobSpec {
        uid: JobUid::new("v").expect("valid"),
        work: Work::Verify(VerifyRequest {
            repository: repository("r").name,
            label: None,
            level: VerifyLevel::Checksum,
            sample: SAMPLE_ALL,
        }),
        ..spec("d", "l")
    };
    let backup = |label: &str, timestamp: &str| BackupName {
        label: SnapshotLabel::new(label).expect("valid"),
        timestamp: BackupTimestamp::new(timestamp).expect("valid"),
    };
    let backups = vec![
        backup("z", "2026-01-02-03-04-05-678"),
        backup("a", "2026-01-02-03-04-05-679"),
    ];
    let mut ids = Vec::new();
    for kind in [FindingKind::Damaged, FindingKind::Unreferenced] {
        let job = store.admit(&verify, Timestamp(10)).await.expect("admitted");
        assert_eq!(
            store.verifications(ALL_JOBS).await.expect("read").len(),
            2 * ids.len()
        );
        let mut findings = Findings::default();
        findings.push(Finding {
            kind,
            object: "data/x".into(),
            backups: vec![0],
            detail: "other bytes".into(),
        });
        let plan = VerifyPlan {
            repository_id: "id".into(),
            backups: backups.clone(),
            parts: 0,
            findings,
            files: Volume { files: 1, bytes: 2 },
            restores: false,
        };
        let planned = JobEvent::Verify(VerifyEvent::Planned {
            plan: Arc::new(plan),
        });
        append(&*store, &job, planned, Timestamp(20)).await;
        ids.push(job.id);
    }
    let rows = store.verifications(ALL_JOBS).await.expect("read");
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.job_id,
                row.snapshot.as_str(),
                row.damage,
                row.verified_at,
            )
        })
        .collect();
    let at = Timestamp(20);
    assert_eq!(
        told,
        [
            (ids[0], "a", 0, at),
            (ids[0], "z", 1, at),
            (ids[1], "a", 0, at),
            (ids[1], "z", 0, at)
        ]
    );
    let second = store.verifications(ids[1]..=ids[1]).await.expect("read");
    assert_eq!(second, rows[2..]);
    let findings = store.findings(ALL_JOBS).await.expect("read");
    let told: Vec<_> = findings
        .iter()
        .map(|row| {
            (
                row.job_id,
                row.number,
                row.kind.as_str(),
                row.backup.clone(),
            )
        })
        .collect();
    let first = Some(backups[0].clone());
    assert_eq!(
        told,
        [
            (ids[0], 1, "damaged", first.clone()),
            (ids[1], 1, "unreferenced", first)
        ]
    );
    let second = store.findings(ids[1]..=ids[1]).await.expect("read");
    assert_eq!(second, findings[1..]);
    let damaged = store.damaged_objects().await.expect("read");
    let object = ("embedded".to_owned(), "r".to_owned(), "data/x".to_owned());
    assert_eq!(damaged, DamagedObjects::from([object]));

    let upload = |path: &str, upload_id: &str| UploadRecord {
        job_id: ids[0],
        repository: id,
        path: path.into(),
        upload_id: upload_id.into(),
    };
    for noted in [upload("b", "2"), upload("a", "1"), upload("b", "1")] {
        store.note_upload(&noted).await.expect("noted");
        store.note_upload(&noted).await.expect("twice is once");
    }
    store
        .forget_upload(&upload("b", "1"))
        .await
        .expect("forgotten");
    store.forget_upload(&upload("b", "1")).await.expect("again");
    let left = store.uploads().await.expect("read");
    assert_eq!(left, [upload("a", "1"), upload("b", "2")]);
}

/// Jobs that are over wait for their copies; a copy comes in once, under a number of its own, as
/// nobody's latest.
pub(super) async fn mirrors(store: Arc<dyn Store>) {
    store.add_repository(&repository("r")).await.expect("added");
    let job = store
        .admit(&spec("d", "l"), Timestamp(10))
        .await
        .expect("admitted");
    let busy = Error::new(ErrorKind::ObjectInUse, "busy");
    let refused = store.refuse(&spec("d", "m"), Timestamp(11), &busy).await;
    refused.expect("recorded");
    assert_eq!(store.unmirrored(JobId(0), 9).await.expect("asked"), []);
    let cancelled = event(BackupEvent::Cancelled {
        failure: Failure::user_cancelled(None),
    });
    let job = append(&*store, &job, cancelled.clone(), Timestamp(20)).await;
    assert_eq!(store.unmirrored(JobId(0), 9).await.expect("asked"), []);
    let job = append(&*store, &job, event(BackupEvent::Released), Timestamp(21)).await;
    assert_eq!(
        store.unmirrored(JobId(0), 9).await.expect("asked"),
        [job.id]
    );
    assert_eq!(store.unmirrored(job.id, 9).await.expect("asked"), []);
    store.set_mirrored(job.id).await.expect("noted");
    assert_eq!(store.unmirrored(JobId(0), 9).await.expect("asked"), []);

    let journal = |uid: &str, at: i64, events: Vec<JobEvent>| JobJournal {
        spec: JobSpec {
            uid: JobUid::new(uid).expect("valid"),
            ..spec("d", "old")
        },
        created_at: Timestamp(at),
        events: events
            .into_iter()
            .map(|event| (Timestamp(at + 1), event))
            .collect(),
    };
    let released = event(BackupEvent::Released);
    let old = journal("old", 5, vec![cancelled.clone(), released.clone()]);
    let known = journal("d-l", 6, vec![cancelled, released.clone()]);
    let wrong = journal("wrong", 7, vec![released]);
    let from = repository("r").name;
    let error = store.import(&from, vec![old.clone(), wrong]).await;
    assert_eq!(
        error.expect_err("it does not add up").kind,
        ErrorKind::Corrupted
    );
    let both = vec![old.clone(), known, old.clone()];
    assert_eq!(store.import(&from, both).await.expect("imported"), 1);
    assert_eq!(
        store.import(&from, vec![old.clone()]).await.expect("once"),
        0
    );
    let filter = JobFilter {
        snapshot: Some("old".into()),
        ..JobFilter::default()
    };
    let [row] = &store.jobs(&filter).await.expect("listed")[..] else {
        panic!("one job was imported")
    };
    assert_eq!(
        (row.status, row.created_at, row.imported_from.as_deref()),
        (JobStatus::Cancelled, Timestamp(5), Some("r"))
    );
    let loaded = store.load(row.job_id).await.expect("adds up");
    assert_eq!((loaded.id, loaded.is_over()), (row.job_id, true));
    let events = store.events(row.job_id..=row.job_id).await.expect("read");
    assert_eq!(events.len(), 2);
    assert_eq!(store.unmirrored(JobId(0), 9).await.expect("asked"), []);
    assert_eq!(store.unfinished().await.expect("asked"), []);
    let latest = JobFilter {
        cluster: Some("embedded".into()),
        kind: Some(JobKind::Backup),
        latest: true,
        ..JobFilter::default()
    };
    let latest = store.jobs(&latest).await.expect("listed");
    assert_eq!(
        latest.iter().map(|row| row.job_id).collect::<Vec<_>>(),
        [job.id]
    );
    assert_eq!(
        store.newest_job().await.expect("asked"),
        Some(Timestamp(11))
    );
}
