//! Two gateways on one repository in a store that misbehaves, by a seed: they back up, restore,
//! drop, verify and prune beside each other and die at any moment. In the end every backup that
//! succeeded is whole, no other one exists, a restore brought all rows or no table, and no job is
//! without an end.
//!
//! `STARKEEP_SEED=n` plays one seed, `STARKEEP_SIMULATIONS=n` so many from 1 on. What the store
//! does to a request depends on the seed and on how often that was asked of that object before, so
//! a seed does the same again as far as the machine's threads let it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use starkeep::cluster::embedded::EmbeddedCluster;
use starkeep::cluster::{Cluster, Clusters, Write};
use starkeep::env::{BoxFuture, Clock, Env};
use starkeep::error::Error;
use starkeep::job::*;
use starkeep::metrics::Metrics;
use starkeep::names::*;
use starkeep::repository::{ByteBudget, Location, OpenRepository, Repository};
use starkeep::runner::{Runner, RunnerSettings};
use starkeep::statement::{Qualified, Statement, parse_one};
use starkeep::store::*;
use tokio::runtime::Runtime;

use crate::faulty_store::{Fault, FaultyStore, Meddler};

/// Seeds that are played when nothing says otherwise.
const SIMULATIONS: u64 = 2;
/// Things that happen in one of them.
const STEPS: u64 = 40;
/// How much faster time goes: ten minutes of waiting take 60 milliseconds.
const SPEED: u32 = 10_000;

fn name<N: TryFrom<String, Error = Error>>(text: &str) -> N {
    N::try_from(text.to_owned()).expect("a valid name")
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = twox_hash::XxHash64::default();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The wall clock's time, and waits that are shorter by that factor.
#[derive(Debug)]
struct Hasty(Arc<dyn Clock>);

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn ticks(&self) -> Duration {
        self.0.ticks() * SPEED
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration / SPEED)
    }
}

/// What a store does to a request, by a seed, as long as it misbehaves.
fn by_seed(seed: u64, misbehaves: Arc<AtomicBool>) -> Meddler {
    // How often something was asked of an object.
    let asked: Mutex<HashMap<(&'static str, Path), u64>> = Mutex::default();
    Arc::new(move |what, path, kinds| {
        if !misbehaves.load(Ordering::SeqCst) {
            return Fault::None;
        }
        let mut asked = asked.lock();
        let nth = asked.entry((what, path.clone())).or_default();
        *nth += 1;
        // Names of files are random; what stands for them is the beginning of their path.
        let place = path
            .parts()
            .take(2)
            .map(|p| p.as_ref().to_owned())
            .collect::<Vec<_>>();
        let drawn = hash((seed, what, place, *nth));
        if drawn % 100 < 20 {
            kinds[(drawn / 100) as usize % kinds.len()]
        } else {
            Fault::None
        }
    })
}

#[derive(Clone, Debug)]
struct Objects(Arc<FaultyStore>);

impl OpenRepository for Objects {
    fn open(&self, name: &RepositoryName, _: &Location) -> Result<Arc<Repository>, Error> {
        let (store, root) = (self.0.clone(), Path::default());
        Ok(Arc::new(Repository::new(name.clone(), store, &root, None)))
    }
}

/// What survives the death of a gateway.
struct Gateway {
    dir: tempfile::TempDir,
    store: MemoryStore,
    objects: Objects,
    /// How many rows were inserted.
    rows: i64,
    /// Restores that were begun: the job, its table, and the rows of the backup.
    restores: Vec<(JobId, String, u64)>,
    life: Option<Life>,
}

/// A gateway that lives.
struct Life {
    runtime: Runtime,
    cluster: EmbeddedCluster,
    runner: Runner,
}

impl Gateway {
    fn new(objects: &Objects) -> Self {
        let mut gateway = Self {
            dir: tempfile::tempdir().expect("a directory"),
            store: MemoryStore::default(),
            objects: objects.clone(),
            rows: 0,
            restores: Vec::new(),
            life: None,
        };
        gateway.start();
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
        let life = gateway.life();
        life.runtime.block_on(async {
            gateway.store.add_repository(&record).await.expect("added");
            for statement in [
                "CREATE DATABASE d",
                "CREATE TABLE d.t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 2 PROPERTIES (\"replication_num\" = \"1\")",
            ] {
                let Statement::Define(definition) = parse_one(statement).expect("parses") else {
                    panic!("{statement} defines nothing")
                };
                let cluster: &dyn Cluster = &life.cluster;
                let managed = cluster.managed().expect("ours");
                let on = managed.backends_for(&definition).await.expect("alive");
                managed.define(&definition, on).await.expect(statement);
            }
        });
        gateway.insert();
        gateway
    }

    fn life(&self) -> &Life {
        self.life.as_ref().expect("it lives")
    }

    fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut env = Env::system();
        env.clock = Arc::new(Hasty(env.clock.clone()));
        let backends = [self.dir.path().join("be1")];
        let opened = EmbeddedCluster::open(
            name("embedded"),
            self.dir.path(),
            &backends,
            ByteBudget::new(64 << 20),
            env.clone(),
        );
        let cluster = runtime.block_on(opened).expect("the cluster opens");
        let shared: Arc<dyn Cluster> = Arc::new(cluster.clone());
        let runner = {
            let _entered = runtime.enter();
            Runner::new(
                Arc::new(self.store.clone()),
                Arc::new(Clusters::new([shared])),
                Arc::new(self.objects.clone()),
                Arc::new(Metrics::default()),
                Arc::default(),
                env,
                RunnerSettings::default(),
            )
        };
        runtime.block_on(runner.recover()).expect("recovered");
        self.life = Some(Life {
            runtime,
            cluster,
            runner,
        });
    }

    /// Dies, wherever its tasks are, and starts again.
    fn die(&mut self) {
        let Life {
            runtime,
            cluster,
            runner,
        } = self.life.take().expect("it lived");
        drop((cluster, runner));
        runtime.shutdown_timeout(Duration::from_secs(30));
        self.start();
    }

    fn insert(&mut self) {
        let from = self.rows;
        self.rows += 10;
        let life = self.life();
        life.runtime.block_on(async {
            let state = SessionStateBuilder::new().with_default_features().build();
            let context = SessionContext::new_with_state(state);
            let query = format!("SELECT value FROM generate_series({from}, {})", from + 9);
            let plan = context.sql(&query).await.expect("planned");
            let table = Qualified {
                database: Some(name("d")),
                name: name("t"),
            };
            let write = Write::Insert(plan.into_unoptimized_plan());
            let cluster: &dyn Cluster = &life.cluster;
            let managed = cluster.managed().expect("ours");
            managed
                .write(&table, write, None, &context.state())
                .await
                .expect("inserted");
        });
    }

    /// Submits a job; one that another keeps out is none.
    fn submit(&self, work: Work) -> Option<JobId> {
        let spec = JobSpec {
            uid: Env::system().job_uid(),
            cluster: name("embedded"),
            requester: Requester::User {
                name: "root".into(),
                client_addr: None,
                application_name: None,
            },
            statement: String::new(),
            timeout_seconds: 365 * 24 * 3600,
            max_bytes_per_second: None,
            work,
        };
        let life = self.life();
        life.runtime.block_on(life.runner.submit(spec)).ok()
    }

    fn wait(&self) {
        let life = self.life();
        life.runtime.block_on(async {
            for id in self.store.unfinished().await.expect("listed") {
                life.runner.wait(id).await;
            }
        });
    }

    /// Begins to restore one of the backups, if there are any, into a table of its own.
    fn restore(&mut self, drawn: u64, table: String) {
        // Its database has one job at a time.
        self.wait();
        let found = a_backup(&self.objects, drawn);
        let Some((label, timestamp, rows)) = self.life().runtime.block_on(found) else {
            return;
        };
        if let Some(id) = self.submit(restore(&label, &timestamp, &table)) {
            self.restores.push((id, table, rows));
        }
    }

    /// How many rows a table has; nothing if there is no such table.
    fn count(&self, table: &str) -> Option<u64> {
        let life = self.life();
        let state = SessionStateBuilder::new().with_default_features().build();
        let context = SessionContext::new_with_state(state);
        context.register_catalog("embedded", life.cluster.catalog());
        life.runtime.block_on(async {
            let query = format!("SELECT * FROM embedded.d.{table}");
            let frame = context.sql(&query).await.ok()?;
            Some(frame.count().await.expect("counted") as u64)
        })
    }

    fn jobs(&self) -> Vec<JobRow> {
        let all = async { self.store.jobs(&JobFilter::default()).await };
        self.life().runtime.block_on(all).expect("listed")
    }
}

fn backup(label: &str) -> Work {
    let target = Target {
        database: name("d"),
        label: name(label),
        repository: name("r"),
    };
    let request = BackupRequest {
        objects: vec![BackupObject {
            table: name("t"),
            partitions: Vec::new(),
        }],
        views: Vec::new(),
        ttl: None,
        base: None,
    };
    Work::Backup { target, request }
}

/// Under the same label, into a table of its own.
fn restore(label: &str, timestamp: &BackupTimestamp, table: &str) -> Work {
    let target = Target {
        database: name("d"),
        label: name(label),
        repository: name("r"),
    };
    let request = RestoreRequest {
        timestamp: timestamp.clone(),
        objects: vec![RestoreObject {
            table: name("t"),
            partitions: Vec::new(),
            alias: Some(name(table)),
        }],
        views: Vec::new(),
        replication_num: 1,
        replication_given: true,
        allow_load: false,
        makes_database: false,
    };
    Work::Restore { target, request }
}

fn drop_snapshot(label: &str) -> Work {
    Work::DropSnapshot(DropRequest {
        repository: name("r"),
        label: name(label),
        backups: DroppedBackups::All {
            cluster_id: String::new(),
            force: true,
        },
    })
}

fn prune() -> Work {
    Work::Prune(PruneRequest {
        repository: name("r"),
        // Young files are what running backups rely on: nothing but the mark protects them here.
        grace_seconds: 0,
        wait_seconds: 600,
        dry_run: false,
    })
}

fn verify() -> Work {
    Work::Verify(VerifyRequest {
        repository: name("r"),
        label: None,
        level: VerifyLevel::Checksum,
        sample: SAMPLE_ALL,
    })
}

/// One of the backups that there are just now, and how many rows it has.
async fn a_backup(objects: &Objects, drawn: u64) -> Option<(String, BackupTimestamp, u64)> {
    let kept = objects.0.kept.clone();
    let repository = Repository::new(name("r"), kept, &Path::default(), None);
    let listings = repository.snapshots().await.expect("listed");
    let listing = listings.get(drawn as usize % listings.len().max(1))?;
    let timestamp = listing.backups.first()?.timestamp.clone();
    // It may be dropped at this moment.
    let (manifest, _) = repository.manifest(&listing.label, &timestamp).await.ok()?;
    let rows = manifest.files().map(|file| file.rows).sum();
    Some((listing.label.to_string(), timestamp, rows))
}

/// Every backup of the repository is whole; the labels that it has.
async fn check_repository(objects: &Objects, seed: u64) -> BTreeSet<String> {
    let location = Location {
        url: "/".into(),
        properties: BTreeMap::new(),
    };
    let repository = objects.open(&name("r"), &location).expect("opens");
    let mut labels = BTreeSet::new();
    for listing in repository.snapshots().await.expect("listed") {
        assert_eq!(listing.backups.len(), 1, "seed {seed}: {}", listing.label);
        labels.insert(listing.label.to_string());
        let timestamp = &listing.backups[0].timestamp;
        let (manifest, _) = repository
            .manifest(&listing.label, timestamp)
            .await
            .expect("reads");
        for file in manifest.files() {
            let (first, sha256) = (&file.sha256[..2], &file.sha256);
            let path = format!("__starrocks_repository_r/data/{first}/{sha256}.parquet");
            let found = objects.0.kept.get(&path.as_str().into()).await;
            let found = found.unwrap_or_else(|e| panic!("seed {seed}: {}: {e}", listing.label));
            let bytes = found.bytes().await.expect("read");
            let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
            assert_eq!(
                hex::encode(digest),
                **sha256,
                "seed {seed}: {}",
                listing.label
            );
        }
    }
    labels
}

fn simulate(seed: u64) {
    println!("STARKEEP_SEED={seed}");
    let misbehaves = Arc::new(AtomicBool::new(false));
    let objects = Objects(Arc::new(FaultyStore {
        kept: Arc::new(InMemory::new()),
        meddler: by_seed(seed, misbehaves.clone()),
    }));
    let checking = Runtime::new().expect("a runtime");
    let location = Location {
        url: "/".into(),
        properties: BTreeMap::new(),
    };
    let repository = objects.open(&name("r"), &location).expect("opens");
    checking
        .block_on(repository.initialize(false, &Env::system()))
        .expect("made");
    let mut gateways = [Gateway::new(&objects), Gateway::new(&objects)];
    misbehaves.store(true, Ordering::SeqCst);
    let mut dropped = BTreeSet::new();
    for step in 0..STEPS {
        let draw = |of: &str, below: u64| hash((seed, step, of)) % below;
        let which = draw("gateway", 2) as usize;
        let other = format!("s{}", draw("label", step.max(1)));
        let gateway = &mut gateways[which];
        match draw("what", 14) {
            0..=1 => gateway.insert(),
            2..=5 => {
                gateway.submit(backup(&format!("s{step}")));
            }
            6 => {
                if gateway.submit(drop_snapshot(&other)).is_some() {
                    dropped.insert(other);
                }
            }
            7 => {
                gateway.submit(verify());
            }
            8..=9 => {
                gateway.submit(prune());
            }
            10 => gateway.die(),
            11..=12 => gateway.restore(draw("backup", 1 << 20), format!("x{step}")),
            _ => gateway.wait(),
        }
    }
    misbehaves.store(false, Ordering::SeqCst);
    let mut succeeded = BTreeSet::new();
    for gateway in &gateways {
        gateway.wait();
        let jobs = gateway.jobs();
        for (id, table, rows) in &gateway.restores {
            let job = jobs.iter().find(|job| job.job_id == *id).expect("a job");
            let restored = (job.status == JobStatus::Succeeded).then_some(*rows);
            assert_eq!(gateway.count(table), restored, "seed {seed}: restore {id}");
        }
        for job in jobs {
            let (id, kind) = (job.job_id, job.kind);
            assert!(
                job.finished_at.is_some(),
                "seed {seed}: {kind} {id} has no end"
            );
            let is_explained = job.status == JobStatus::Succeeded || job.error_message.is_some();
            assert!(
                is_explained,
                "seed {seed}: {kind} {id} ended without a word"
            );
            assert_ne!(job.status, JobStatus::Lost, "seed {seed}: {kind} {id}");
            if kind == JobKind::Backup && job.status == JobStatus::Succeeded {
                succeeded.insert(job.snapshot.clone());
            }
        }
    }
    let restores = gateways.iter().flat_map(|gateway| {
        let counted = gateway.restores.iter();
        counted.map(|(_, table, _)| gateway.count(table).is_some())
    });
    let (done, given_up): (Vec<_>, Vec<_>) = restores.partition(|is_there| *is_there);
    println!("{} restores, {} given up", done.len(), given_up.len());
    let labels = checking.block_on(check_repository(&objects, seed));
    let kept: BTreeSet<String> = succeeded.difference(&dropped).cloned().collect();
    assert!(
        labels.is_subset(&succeeded),
        "seed {seed}: {labels:?} of {succeeded:?}"
    );
    assert!(
        kept.is_subset(&labels),
        "seed {seed}: {labels:?} lack some of {kept:?}"
    );
    // What no backup needs goes, and the rest is still there.
    gateways[0].submit(prune()).expect("admitted");
    gateways[0].wait();
    let after = checking.block_on(check_repository(&objects, seed));
    assert_eq!(after, labels, "seed {seed}");
    let left = checking.block_on(async {
        let all = objects.0.kept.list(None).try_collect::<Vec<_>>().await;
        let all = all
            .expect("listed")
            .into_iter()
            .map(|o| o.location.to_string());
        all.collect::<BTreeSet<_>>()
    });
    let needed = checking.block_on(async {
        let root = "__starrocks_repository_r";
        let mut needed = BTreeSet::from([format!("{root}/__repo_info")]);
        for listing in repository.snapshots().await.expect("listed") {
            let (label, timestamp) = (&listing.label, &listing.backups[0].timestamp);
            needed.insert(format!("{root}/__ss_{label}/__info_{timestamp}"));
            let (manifest, _) = repository.manifest(label, timestamp).await.expect("reads");
            let data =
                |f: &DataFile| format!("{root}/data/{}/{}.parquet", &f.sha256[..2], f.sha256);
            needed.extend(manifest.files().map(data));
        }
        needed
    });
    // What a death leaves of trying the location goes with a prune ten minutes later, and a lease
    // whose deletion failed after a day.
    let goes_later = |path: &&String| path.contains("/__probe_") || path.contains("/__leases/");
    let lies_about: Vec<_> = left
        .difference(&needed)
        .filter(|p| !goes_later(p))
        .collect();
    assert!(lies_about.is_empty(), "seed {seed}: {lies_about:?}");
    for gateway in gateways {
        let life = gateway.life.expect("it lives");
        life.runtime.shutdown_timeout(Duration::from_secs(30));
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn two_gateways_and_a_bad_store_lose_nothing() {
    match number("STARKEEP_SEED") {
        Some(seed) => simulate(seed),
        None => (1..=number("STARKEEP_SIMULATIONS").unwrap_or(SIMULATIONS)).for_each(simulate),
    }
}
