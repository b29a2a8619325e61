//! Every failure at every step (docs/architecture.md, "Tests"): each command fails for a while or
//! for good, with its effect landed or lost; the process dies before and after each append; CANCEL
//! arrives during each command. Whatever happens, the fixture afterwards adds up:
//! [`Fixture::check`].

mod life;
mod saboteur;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use starkeep::env::Env;
use starkeep::job::*;
use starkeep::names::*;
use starkeep::store::*;

use self::life::Fixture;
use self::saboteur::{Counts, Fault, name};
use crate::faulty_store::Fault as Meddling;

fn target() -> Target {
    Target {
        database: name("d"),
        label: name("l"),
        repository: name("r"),
    }
}

fn backup_request() -> Work {
    let request = BackupRequest {
        objects: vec![BackupObject {
            table: name("t"),
            partitions: Vec::new(),
        }],
        views: vec![name("v")],
        ttl: None,
        base: None,
    };
    Work::Backup {
        target: target(),
        request,
    }
}

/// A fixture with table `t` of two tablets, and a repository.
fn fixture_with_table() -> Fixture {
    let fixture = Fixture::new();
    let life = fixture.live(Fault::None);
    life.runtime.block_on(async {
        let record = RepositoryRecord {
            cluster: name("embedded"),
            id: RepositoryId(0),
            name: name("r"),
            location: "/".into(),
            broker: None,
            read_only: false,
            created_at: Timestamp(0),
            properties: BTreeMap::new(),
        };
        fixture.store.add_repository(&record).await.expect("added");
        fixture
            .repository()
            .initialize(false, &Env::system())
            .await
            .expect("made");
    });
    life.define("CREATE DATABASE d");
    life.define("CREATE TABLE d.t (a INT, b STRING) UNIQUE KEY (a) DISTRIBUTED BY HASH (a) BUCKETS 2 PROPERTIES (\"replication_num\" = \"2\")");
    life.define("CREATE VIEW d.v AS SELECT a FROM t");
    life.insert(
        "t",
        "SELECT cast(value AS int), 'first' FROM generate_series(1, 20)",
    );
    life.insert(
        "t",
        "SELECT cast(value AS int), 'second' FROM generate_series(11, 30)",
    );
    life.end();
    fixture
}

/// The same, where one task of the runtime carries out many commands.
fn fixture_with_runs() -> Fixture {
    Fixture {
        tasks_at_a_time: 1,
        ..fixture_with_table()
    }
}

fn run_backup(fault: Fault) -> Counts {
    backup(&fixture_with_table(), fault)
}

fn run_backup_in_runs(fault: Fault) -> Counts {
    backup(&fixture_with_runs(), fault)
}

/// Runs a job under a fault, lives on if the process died, and checks the fixture.
fn backup(fixture: &Fixture, fault: Fault) -> Counts {
    let life = fixture.live(fault);
    let before = life.rows("t");
    let job = life.submit(backup_request(), "u1");
    let counts = life.counts();
    life.end();
    recover(fixture);
    let context = format!("backup, {fault:?}");
    let finished = fixture.check(&context, job);
    expect_outcome(&context, fault, finished);
    let life = fixture.live(Fault::None);
    assert_eq!(life.rows("t"), before, "{context}");
    life.end();
    counts
}

fn recover(fixture: &Fixture) {
    let life = fixture.live(Fault::None);
    life.runtime.block_on(async {
        let unfinished = fixture.store.unfinished().await.expect("listed");
        life.runner.recover().await.expect("recovered");
        for id in unfinished {
            life.runner.wait(id).await;
        }
    });
    life.end();
}

fn expect_outcome(context: &str, fault: Fault, finished: bool) {
    match fault {
        Fault::None
        | Fault::Crash { .. }
        | Fault::Request { .. }
        | Fault::Append { .. }
        | Fault::Command { fatal: false, .. } => {
            assert!(finished, "{context}: should finish")
        }
        // A fatal error before the commit cancels; at the commit and after it is only retried.
        // CANCEL likewise.
        Fault::Command { .. } | Fault::Cancel { .. } | Fault::CancelBeside { .. } => {}
    }
}

fn restore_request(fixture: &Fixture) -> Work {
    let backups = tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(async {
            fixture
                .repository()
                .snapshot(&name("l"))
                .await
                .expect("listed")
                .backups
        });
    let object = |alias: Option<&str>| RestoreObject {
        table: name("t"),
        partitions: Vec::new(),
        alias: alias.map(name),
    };
    let request = RestoreRequest {
        timestamp: backups[0].timestamp.clone(),
        objects: vec![object(None), object(Some("t2"))],
        views: vec![RestoreView {
            view: name("v"),
            alias: Some(name("v2")),
        }],
        replication_num: 2,
        replication_given: true,
        allow_load: false,
        makes_database: false,
    };
    Work::Restore {
        target: target(),
        request,
    }
}

/// Drops the snapshot of a backup.
fn run_drop(fault: Fault) -> Counts {
    drop_snapshot(fault, false)
}

/// The same of one whose time is over.
fn run_expiry(fault: Fault) -> Counts {
    drop_snapshot(fault, true)
}

fn drop_snapshot(fault: Fault, expires: bool) -> Counts {
    let context = format!("drop, expires: {expires}, {fault:?}");
    let fixture = fixture_with_table();
    let life = fixture.live(Fault::None);
    let mut backup = backup_request();
    if let Work::Backup { request, .. } = &mut backup {
        request.ttl = Ttl::parse("1 HOUR").expect("valid");
    }
    life.submit(backup, "u1");
    let cluster_id = life.cluster.managed().expect("ours").id().to_owned();
    let backups = life.runtime.block_on(async {
        let stored = fixture.repository().snapshot(&name("l")).await;
        stored.expect("listed").backups
    });
    life.end();
    fixture.ahead.store(2 * 3_600_000, Ordering::SeqCst);
    let life = fixture.live(fault);
    let backups = if expires {
        DroppedBackups::Expired {
            timestamp: backups[0].timestamp.clone(),
        }
    } else {
        DroppedBackups::All {
            cluster_id,
            force: false,
        }
    };
    let drop = Work::DropSnapshot(DropRequest {
        repository: name("r"),
        label: name("l"),
        backups,
    });
    let mut job = life.submit(drop.clone(), "u2");
    let counts = life.counts();
    life.end();
    recover(&fixture);
    let life = fixture.live(Fault::None);
    let is_refused = match life.end_of(&fixture, job) {
        Some(End::Failed) => matches!(fault, Fault::Request { .. }),
        Some(End::Cancelled(CancelCause::User)) => matches!(fault, Fault::CancelBeside { .. }),
        _ => false,
    };
    if is_refused {
        // Who waits for a deletion is told of an error, and says it again.
        job = life.submit(drop, "u2-again");
    }
    life.runtime.block_on(async {
        let dropped = fixture.store.load(job).await.expect("in the journal");
        assert_eq!(
            (dropped.end(), dropped.is_over()),
            (Some(End::Finished), true),
            "{context}"
        );
        assert!(
            fixture.store.unfinished().await.expect("listed").is_empty(),
            "{context}: something is unfinished"
        );
        let left = fixture
            .repository()
            .snapshot(&name("l"))
            .await
            .expect("listed")
            .backups;
        assert_eq!(left, [], "{context}: the manifest is gone");
    });
    // Its label is free again, and what is backed up under it is whole.
    let again = life.submit(backup_request(), "u3");
    life.runtime.block_on(async {
        assert_eq!(
            fixture
                .store
                .load(again)
                .await
                .expect("in the journal")
                .end(),
            Some(End::Finished),
            "{context}"
        );
    });
    life.end();
    counts
}

/// The data objects of the repository, and whether a prune's mark stands.
fn leftovers(fixture: &Fixture) -> (usize, bool) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let objects: Vec<String> = runtime.block_on(async {
        let listed = fixture.objects.list(None).try_collect::<Vec<_>>();
        let listed = listed.await.expect("listed").into_iter();
        listed.map(|object| object.location.to_string()).collect()
    });
    let data = objects
        .iter()
        .filter(|path| path.contains("/data/"))
        .count();
    (data, objects.iter().any(|path| path.ends_with("/__prune")))
}

/// Prunes what a dropped snapshot has left, beside another one.
fn run_prune(fault: Fault) -> Counts {
    let context = format!("prune, {fault:?}");
    let fixture = fixture_with_table();
    let life = fixture.live(Fault::None);
    life.submit(backup_request(), "u1");
    let (before, _) = leftovers(&fixture);
    life.delete_all("t");
    life.insert(
        "t",
        "SELECT cast(value AS int), 'third' FROM generate_series(1, 40)",
    );
    let mut kept = backup_request();
    if let Work::Backup { target, .. } = &mut kept {
        target.label = name("kept");
    }
    life.submit(kept, "u2");
    let cluster_id = life.cluster.managed().expect("ours").id().to_owned();
    let backups = DroppedBackups::All {
        cluster_id,
        force: false,
    };
    let drop = DropRequest {
        repository: name("r"),
        label: name("l"),
        backups,
    };
    life.submit(Work::DropSnapshot(drop), "u3");
    life.end();
    let (all, _) = leftovers(&fixture);
    assert!(
        all > before,
        "{context}: the second backup has files of its own"
    );
    let life = fixture.live(fault);
    let request = PruneRequest {
        repository: name("r"),
        grace_seconds: 0,
        wait_seconds: 0,
        dry_run: false,
    };
    let mut job = life.submit(Work::Prune(request.clone()), "u4");
    let counts = life.counts();
    life.end();
    recover(&fixture);
    let life = fixture.live(Fault::None);
    if let Fault::CancelBeside { .. } = fault
        && let Some(End::Cancelled(CancelCause::User)) = life.end_of(&fixture, job)
    {
        assert!(
            !leftovers(&fixture).1,
            "{context}: its mark is gone with it"
        );
        job = life.submit(Work::Prune(request.clone()), "u4-again");
    }
    life.runtime.block_on(async {
        let pruned = fixture.store.load(job).await.expect("in the journal");
        assert_eq!(
            (pruned.end(), pruned.is_over()),
            (Some(End::Finished), true),
            "{context}"
        );
        let unfinished = fixture.store.unfinished().await.expect("listed");
        assert!(unfinished.is_empty(), "{context}: something is unfinished");
        let repository = fixture.repository();
        let kept = repository
            .snapshot(&name("kept"))
            .await
            .expect("listed")
            .backups;
        let (manifest, _) = repository
            .manifest(&name("kept"), &kept[0].timestamp)
            .await
            .expect("reads");
        let lacking = repository
            .lacking(manifest.files())
            .await
            .expect("looked at");
        assert!(
            lacking.is_empty(),
            "{context}: a file that is needed is gone"
        );
    });
    life.end();
    if let Fault::Request {
        fault: Meddling::Missing,
        ..
    } = fault
    {
        // What was said to be gone is left to the next one.
        let life = fixture.live(Fault::None);
        life.submit(Work::Prune(request), "u5");
        life.end();
    }
    assert_eq!(leftovers(&fixture), (all - before, false), "{context}");
    counts
}

/// Verifies a repository in which a file is missing.
fn run_verify(fault: Fault) -> Counts {
    let fixture = fixture_with_table();
    let life = fixture.live(Fault::None);
    life.submit(backup_request(), "u1");
    life.runtime.block_on(async {
        let listed = fixture
            .objects
            .list(None)
            .try_collect::<Vec<_>>()
            .await
            .expect("listed");
        let data = listed
            .into_iter()
            .find(|o| o.location.as_ref().contains("/data/"));
        fixture
            .objects
            .delete(&data.expect("a file").location)
            .await
            .expect("deleted");
    });
    life.end();
    verify(&fixture, VerifyLevel::Checksum, fault, &["missing"])
}

/// Verifies a backup by restoring it.
fn run_test_restore(fault: Fault) -> Counts {
    let fixture = fixture_with_table();
    let life = fixture.live(Fault::None);
    life.submit(backup_request(), "u1");
    life.end();
    let counts = verify(&fixture, VerifyLevel::Restore, fault, &[]);
    let context = format!("test restore, {fault:?}");
    let life = fixture.live(Fault::None);
    let databases = life
        .runtime
        .block_on(life.cluster.managed().expect("ours").databases());
    let databases = databases.expect("described");
    assert_eq!(databases.len(), 1, "{context}: what was restored is gone");
    fixture.nothing_is_left_behind(&context, &life);
    life.end();
    counts
}

fn verify(fixture: &Fixture, level: VerifyLevel, fault: Fault, expected: &[&str]) -> Counts {
    let context = format!("verify, {level:?}, {fault:?}");
    let life = fixture.live(fault);
    let request = VerifyRequest {
        repository: name("r"),
        label: None,
        level,
        sample: SAMPLE_ALL,
    };
    let mut job = life.submit(Work::Verify(request.clone()), "u2");
    let counts = life.counts();
    life.end();
    recover(fixture);
    let life = fixture.live(Fault::None);
    if let Fault::CancelBeside { .. } | Fault::Cancel { .. } = fault
        && let Some(End::Cancelled(CancelCause::User)) = life.end_of(fixture, job)
    {
        let rows = life.runtime.block_on(fixture.store.verifications(ALL_JOBS));
        assert_eq!(
            rows.expect("read"),
            [],
            "{context}: a cancelled one proves nothing"
        );
        job = life.submit(Work::Verify(request), "u2-again");
    }
    life.runtime.block_on(async {
        let verified = fixture.store.load(job).await.expect("in the journal");
        assert_eq!(
            (verified.end(), verified.is_over()),
            (Some(End::Finished), true),
            "{context}"
        );
        let unfinished = fixture.store.unfinished().await.expect("listed");
        assert!(unfinished.is_empty(), "{context}: something is unfinished");
        let found = fixture.store.findings(ALL_JOBS).await.expect("read");
        let kinds: Vec<_> = found.iter().map(|f| f.kind.as_str()).collect();
        // A restore that fails for good is what such a verification is there to find.
        let is_found =
            matches!(fault, Fault::Command { fatal: true, .. }) && kinds == ["not_restorable"];
        assert!(kinds == expected || is_found, "{context}: {kinds:?}");
        let rows = fixture.store.verifications(ALL_JOBS).await.expect("read");
        assert_eq!(
            rows.iter().map(|row| row.damage).collect::<Vec<_>>(),
            [kinds.len() as u64],
            "{context}"
        );
    });
    life.end();
    counts
}

fn run_restore(fault: Fault) -> Counts {
    restore(&fixture_with_table(), fault)
}

fn run_restore_in_runs(fault: Fault) -> Counts {
    restore(&fixture_with_runs(), fault)
}

/// Restores over a damaged table and into a new one at once.
fn restore(fixture: &Fixture, fault: Fault) -> Counts {
    let life = fixture.live(Fault::None);
    let backed_up = life.rows("t");
    life.submit(backup_request(), "u1");
    life.delete_all("t");
    life.define("DROP VIEW d.v");
    life.insert("t", "SELECT cast(99 AS int), 'damaged'");
    let damaged = life.rows("t");
    life.end();
    let request = restore_request(fixture);
    let life = fixture.live(fault);
    let job = life.submit(request, "u2");
    let counts = life.counts();
    life.end();
    recover(fixture);
    let context = format!("restore, {fault:?}");
    let finished = fixture.check(&context, job);
    expect_outcome(&context, fault, finished);
    let life = fixture.live(Fault::None);
    let (t, t2) = (life.rows("t"), life.rows("t2"));
    assert_eq!(
        life.view("v2"),
        finished.then(|| "SELECT a FROM t".to_owned()),
        "{context}: the view comes with the tables"
    );
    if finished {
        assert_eq!(
            (t, t2),
            (backed_up.clone(), backed_up),
            "{context}: all of the new"
        );
        // The restored table takes rows again.
        life.insert("t", "SELECT cast(1 AS int), 'after'");
        assert!(
            life.rows("t").expect("there").contains("after"),
            "{context}: the newest row wins after a restore"
        );
    } else {
        assert_eq!((t, t2), (damaged, None), "{context}: all of the old");
    }
    life.end();
    counts
}

/// Plays every fault that a job can meet.
fn every_fault(run: fn(Fault) -> Counts, at_least: Counts) {
    let counts = run(Fault::None);
    // What comes together is appended together, so there are no more appends for sure than the job
    // has phases.
    assert!(
        counts.commands >= at_least.commands
            && counts.appends >= at_least.appends
            && counts.requests >= at_least.requests,
        "the job has its phases: {counts:?}"
    );
    let mut faults = Vec::new();
    for nth in 0..counts.commands {
        for (fatal, landed) in [(false, false), (false, true), (true, false), (true, true)] {
            faults.push(Fault::Command { nth, fatal, landed });
        }
        faults.push(Fault::Cancel { command: nth });
    }
    for append in 0..counts.appends {
        for after in [false, true] {
            faults.push(Fault::Crash { append, after });
        }
    }
    for nth in 0..counts.appends {
        for landed in [false, true] {
            faults.push(Fault::Append { nth, landed });
        }
    }
    for nth in 0..counts.requests {
        faults.push(Fault::CancelBeside { request: nth });
        for fault in [
            Meddling::Before,
            Meddling::After,
            Meddling::Truncated,
            Meddling::Flipped,
            Meddling::Missing,
        ] {
            faults.push(Fault::Request { nth, fault });
        }
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                    run(*fault);
                }
            });
        }
    });
}

#[test]
fn a_backup_survives_every_fault() {
    let at_least = Counts {
        commands: 9,
        appends: 7,
        requests: 6,
    };
    every_fault(run_backup, at_least);
}

#[test]
fn a_restore_survives_every_fault() {
    let at_least = Counts {
        commands: 9,
        appends: 7,
        requests: 3,
    };
    every_fault(run_restore, at_least);
}

#[test]
fn a_backup_in_runs_survives_every_fault() {
    let at_least = Counts {
        commands: 9,
        appends: 7,
        requests: 6,
    };
    every_fault(run_backup_in_runs, at_least);
}

#[test]
fn a_restore_in_runs_survives_every_fault() {
    let at_least = Counts {
        commands: 9,
        appends: 7,
        requests: 3,
    };
    every_fault(run_restore_in_runs, at_least);
}

// These have no commands of the cluster: what they do, they ask of the repository.

#[test]
fn a_dropped_snapshot_stays_dropped_whatever_fails() {
    let at_least = Counts {
        commands: 0,
        appends: 2,
        requests: 3,
    };
    every_fault(run_drop, at_least);
}

#[test]
fn an_expired_snapshot_goes_whatever_fails() {
    let at_least = Counts {
        commands: 0,
        appends: 2,
        requests: 2,
    };
    every_fault(run_expiry, at_least);
}

#[test]
fn a_prune_survives_every_fault() {
    let at_least = Counts {
        commands: 0,
        appends: 2,
        requests: 6,
    };
    every_fault(run_prune, at_least);
}

#[test]
fn a_verification_survives_every_fault() {
    let at_least = Counts {
        commands: 0,
        appends: 2,
        requests: 3,
    };
    every_fault(run_verify, at_least);
}

#[test]
fn a_test_restore_survives_every_fault() {
    let at_least = Counts {
        commands: 9,
        appends: 9,
        requests: 6,
    };
    every_fault(run_test_restore, at_least);
}
