//! `kill -9` of the built binary at random moments, again and again, while a client inserts, backs
//! up, restores, drops, verifies, prunes and changes repositories: what was acknowledged is there,
//! every job comes to an end, and nothing is left behind.
//!
//! `STARKEEP_KILLS` says how often, `STARKEEP_SEED` what is done in which order. When exactly the
//! kill comes is up to the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio_postgres::Client;

use crate::process::Process;
use crate::support::{rows, run, value};

/// Kills without `STARKEEP_KILLS`.
const KILLS: u32 = 15;
/// The longest life, milliseconds, from the first statement on, and that of every fourth one: long
/// enough for a PRUNE to come to what it deletes.
const LIFE_MS: u64 = 500;
const LONG_LIFE_MS: u64 = 3000;
const LATEST: &str = "PROPERTIES (\"backup_timestamp\" = \"latest\")";

/// Knuth's generator: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// What the client knows.
#[derive(Default)]
struct Known {
    /// Rows whose INSERT was acknowledged, and those of one that may have been carried out.
    rows: BTreeSet<i64>,
    perhaps: BTreeSet<i64>,
    next: i64,
    /// Acknowledged statements that started a job.
    jobs: u64,
    /// Snapshots, and the rows that were acknowledged when they were begun.
    snapshots: BTreeMap<String, BTreeSet<i64>>,
    /// Those whose DROP was said, perhaps in vain.
    dropped: BTreeSet<String>,
    /// Repositories beside `r`.
    repositories: BTreeSet<String>,
    /// The same after a statement that may have been carried out.
    repositories_perhaps: Option<BTreeSet<String>>,
}

/// One statement, chosen at random. An error of the connection is the kill; another one is a
/// refusal, as two jobs of a database at a time are.
async fn step(
    client: &Client,
    known: &mut Known,
    random: &mut Random,
    location: &Path,
) -> Result<(), ()> {
    let (choice, n) = (random.below(13), known.next);
    let label = format!("s{n}");
    let any = known
        .snapshots
        .keys()
        .nth(random.below(8) as usize)
        .cloned();
    let statement = match (choice, any) {
        (0..=2, _) => {
            known.next += 3;
            known.perhaps.extend(n..n + 3);
            format!(
                "INSERT INTO d.t SELECT value FROM generate_series({n}, {})",
                n + 2
            )
        }
        (3..=5, _) => {
            known.next += 1;
            known.snapshots.insert(label.clone(), known.rows.clone());
            format!("BACKUP SNAPSHOT d.{label} TO r")
        }
        (6, Some(any)) => format!("RESTORE SNAPSHOT e{n}.{any} FROM r {LATEST}"),
        (7, Some(any)) => {
            known.dropped.insert(any.clone());
            format!("DROP SNAPSHOT {any} ON r")
        }
        (8, Some(any)) => format!("VERIFY SNAPSHOT {any} ON r LEVEL RESTORE"),
        (10.., _) => {
            known.next += 1;
            let mut after = known.repositories.clone();
            let any = after.iter().nth(random.below(3) as usize).cloned();
            let statement = match (choice, any) {
                (10, Some(any)) => {
                    after.remove(&any);
                    format!("DROP REPOSITORY {any}")
                }
                (11, Some(any)) => format!(
                    "ALTER REPOSITORY {any} SET PROPERTIES (\"max_bytes_per_second\" = \"{n}\")"
                ),
                _ => {
                    after.insert(format!("q{n}"));
                    format!(
                        "CREATE REPOSITORY q{n} WITH BROKER ON LOCATION \"{}\"",
                        location.display()
                    )
                }
            };
            known.repositories_perhaps = Some(after);
            statement
        }
        (_, _) if n % 4 == 0 => "PRUNE REPOSITORY r DRY RUN".into(),
        _ => "PRUNE REPOSITORY r PROPERTIES (\"grace\" = \"10 SECOND\", \"wait\" = \"1 SECOND\")"
            .into(),
    };
    let said = client.batch_execute(&statement).await;
    let is_refused = said.as_ref().is_err_and(|e| e.as_db_error().is_some());
    if said.is_err() && !is_refused {
        return Err(());
    }
    if is_refused {
        known.perhaps.clear();
        known.repositories_perhaps = None;
        if (3..=5).contains(&choice) {
            known.snapshots.remove(&label);
        }
        return Ok(());
    }
    known.rows.extend(std::mem::take(&mut known.perhaps));
    if let Some(after) = known.repositories_perhaps.take() {
        known.repositories = after;
    }
    known.jobs += u64::from((3..10).contains(&choice));
    if let Some(dropped) = statement.strip_prefix("DROP SNAPSHOT ") {
        let label = dropped.split(' ').next().expect("a label");
        known.snapshots.remove(label);
    }
    Ok(())
}

/// The rows of a table, which has none twice.
async fn ids(client: &Client, table: &str) -> BTreeSet<i64> {
    let all = rows(client, &format!("SELECT a FROM {table}")).await;
    let ids: Vec<i64> = all
        .iter()
        .flatten()
        .map(|id| id.as_deref().expect("a number").parse().expect("a number"))
        .collect();
    let set: BTreeSet<i64> = ids.iter().copied().collect();
    assert_eq!(set.len(), ids.len(), "a row is there twice");
    set
}

/// After a start: what was acknowledged is there, and what was not is there as a whole or not at
/// all.
async fn check_rows(client: &Client, known: &mut Known) {
    let there = ids(client, "d.t").await;
    let perhaps = std::mem::take(&mut known.perhaps);
    let with: BTreeSet<i64> = known.rows.union(&perhaps).copied().collect();
    assert!(there == known.rows || there == with, "{there:?}");
    known.rows = there;
    let named = "SELECT repository FROM system.repositories WHERE repository <> 'r'";
    let repositories: BTreeSet<String> = rows(client, named)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    let perhaps = known.repositories_perhaps.take();
    assert!(
        repositories == known.repositories || Some(&repositories) == perhaps.as_ref(),
        "{repositories:?}, {:?} or {perhaps:?}",
        known.repositories
    );
    known.repositories = repositories;
    let jobs: u64 = value(
        client,
        "SELECT count(*) FROM system.jobs WHERE requested_by = 'root'",
    )
    .await
    .parse()
    .expect("a number");
    assert!(jobs >= known.jobs, "{jobs} of {} jobs", known.jobs);
}

/// At the end: no job goes on, every one says how it ended, snapshots are whole, and nothing lies
/// about.
async fn check_end(client: &Client, known: &Known, data: &Path) {
    let unfinished = "SELECT job_id FROM system.jobs WHERE finished_at IS NULL";
    for id in rows(client, unfinished)
        .await
        .into_iter()
        .flatten()
        .flatten()
    {
        // How it ends does not matter here.
        let _ = client.batch_execute(&format!("WAIT FOR JOB {id}")).await;
    }
    let unfinished = "SELECT count(*) FROM system.jobs WHERE finished_at IS NULL";
    assert_eq!(value(client, unfinished).await, "0");
    let unexplained = "SELECT count(*) FROM system.jobs
                       WHERE status NOT IN ('succeeded', 'refused') AND error_message IS NULL";
    assert_eq!(value(client, unexplained).await, "0");
    let backed_up = "SELECT DISTINCT snapshot FROM system.jobs
                     WHERE kind = 'backup' AND status = 'succeeded' ORDER BY 1";
    for label in rows(client, backed_up)
        .await
        .into_iter()
        .flatten()
        .flatten()
    {
        if known.dropped.contains(&label) {
            continue;
        }
        let restore = format!("RESTORE SNAPSHOT final.{label} FROM r ON (t AS t_{label}) {LATEST}");
        run(client, "CREATE DATABASE IF NOT EXISTS final").await;
        run(client, &restore).await;
        assert_eq!(
            crate::support::job_ends(client, "final").await,
            "succeeded",
            "{label}"
        );
        let there = ids(client, &format!("final.t_{label}")).await;
        let acknowledged = &known.snapshots[&label];
        assert!(acknowledged.is_subset(&there), "{label}: {there:?}");
        assert!(there.is_subset(&known.rows), "{label}: {there:?}");
    }
    let scratch = "SELECT count(*) FROM system.databases WHERE db_name LIKE 'verify%'";
    assert_eq!(value(client, scratch).await, "0");
    run(client, "VERIFY REPOSITORY r").await;
    let id = value(client, "SELECT max(job_id) FROM system.jobs").await;
    run(client, &format!("WAIT FOR JOB {id}")).await;
    let damage = "SELECT count(*) FROM system.repository_findings
                  WHERE severity = 'error' AND job_id = (SELECT max(job_id) FROM system.jobs)";
    assert_eq!(value(client, damage).await, "0");
    // No temporary file, no link of a job, and no tablet that no table has.
    let tablets = "SELECT count(DISTINCT tablet_id) FROM system.tablets";
    let tablets: usize = value(client, tablets).await.parse().expect("a number");
    for backend in ["be1", "be2", "be3"] {
        let directory = data.join(backend);
        let of_jobs = std::fs::read_dir(directory.join("snapshot")).map_or(0, Iterator::count);
        assert_eq!(of_jobs, 0, "links of jobs in {}", directory.display());
        let there = std::fs::read_dir(directory.join("tablets")).map_or(0, Iterator::count);
        assert!(there <= tablets, "{there} tablets of {tablets}");
    }
    let partial = |path: &Path| {
        let all = crate::consistency::files(path);
        all.into_iter()
            .filter(|file| file.to_string_lossy().contains(".partial-"))
            .count()
    };
    assert_eq!(partial(data), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_by_kills_at_random_moments() {
    let kills = number("STARKEEP_KILLS", KILLS.into());
    let seed = number("STARKEEP_SEED", 1);
    println!("{kills} kills, STARKEEP_SEED={seed}");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let process = Process::start_with(&data, &[("STARKEEP_BACKENDS", "3")]);
    let client = process.client().await;
    run(&client, "CREATE DATABASE d; USE d").await;
    run(
        &client,
        "CREATE TABLE t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 3",
    )
    .await;
    let location = dir.path().join("repository");
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
        location.display()
    );
    run(&client, &create).await;
    process.kill();
    let mut known = Known::default();
    for n in 0..kills {
        let process = Process::start_with(&data, &[("STARKEEP_BACKENDS", "3")]);
        let client = process.client().await;
        check_rows(&client, &mut known).await;
        // Files of its own in each life, which nothing needs once its snapshots are dropped. A job
        // that goes on may be in the way.
        for statement in [
            "DROP TABLE IF EXISTS d.u FORCE".to_owned(),
            "CREATE TABLE IF NOT EXISTS d.u (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 1"
                .to_owned(),
            format!("INSERT INTO d.u VALUES ({n})"),
        ] {
            let _ = client.batch_execute(&statement).await;
        }
        let longest = if n % 4 == 3 { LONG_LIFE_MS } else { LIFE_MS };
        let life = Duration::from_millis(random.below(longest));
        let living = async {
            while step(&client, &mut known, &mut random, &location)
                .await
                .is_ok()
            {}
        };
        // The moment itself is what is tried: no event says when it comes.
        let _ = tokio::time::timeout(life, living).await;
        process.kill();
    }
    let process = Process::start_with(&data, &[("STARKEEP_BACKENDS", "3")]);
    let client = process.client().await;
    check_rows(&client, &mut known).await;
    check_end(&client, &known, &data).await;
    let pruned = "SELECT count(*) FROM system.pruned_objects WHERE outcome = 'deleted'";
    println!("{} files pruned", value(&client, pruned).await);
    process.kill();
}
