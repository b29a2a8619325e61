//! Lives of a process over what survives them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use starkeep::cluster::embedded::EmbeddedCluster;
use starkeep::cluster::{Cluster, Clusters, Write};
use starkeep::job::*;
use starkeep::metrics::Metrics;
use starkeep::names::*;
use starkeep::repository::{ByteBudget, Location, OpenRepository, Repository};
use starkeep::runner::{Runner, RunnerSettings};
use starkeep::statement::{Qualified, Statement, parse_one};
use starkeep::store::*;
use tokio::runtime::Runtime;

use super::saboteur::{Counts, Fault, Mortal, Objects, Sabotaged, Saboteur, name};
use crate::support::ShiftedClock;

/// What survives a crash: store, objects, and the cluster's directory.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub store: MemoryStore,
    pub objects: Arc<InMemory>,
    /// Of the runtime, that each job has.
    pub tasks_at_a_time: usize,
    /// How far its clock is ahead of the machine's, milliseconds.
    pub ahead: Arc<AtomicI64>,
}

/// One life of a process: a runtime with everything in it.
pub struct Life {
    pub runtime: Runtime,
    pub saboteur: Arc<Saboteur>,
    pub cluster: Arc<dyn Cluster>,
    pub runner: Runner,
}

impl Fixture {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            store: MemoryStore::default(),
            objects: Arc::default(),
            tasks_at_a_time: 4,
            ahead: Arc::default(),
        }
    }

    pub fn backends(&self) -> Vec<PathBuf> {
        vec![self.dir.path().join("be1"), self.dir.path().join("be2")]
    }

    pub fn live(&self, fault: Fault) -> Life {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let saboteur = Saboteur::new(fault);
        let env = ShiftedClock::env(&self.ahead);
        let embedded = runtime
            .block_on(EmbeddedCluster::open(
                name("embedded"),
                self.dir.path(),
                &self.backends(),
                ByteBudget::new(64 << 20),
                env.clone(),
            ))
            .expect("the cluster opens");
        let cluster: Arc<dyn Cluster> = Arc::new(Sabotaged(embedded, saboteur.clone()));
        let runner = Runner::new(
            Arc::new(Mortal(self.store.clone(), saboteur.clone())),
            Arc::new(Clusters::new([cluster.clone()])),
            Arc::new(Objects(self.objects.clone(), saboteur.clone())),
            Arc::new(Metrics::default()),
            Arc::default(),
            env,
            RunnerSettings {
                retry_first: Duration::from_millis(1),
                task_concurrency: self.tasks_at_a_time,
                ..RunnerSettings::default()
            },
        );
        saboteur.runner.set(runner.clone()).expect("set once");
        Life {
            runtime,
            saboteur,
            cluster,
            runner,
        }
    }

    pub fn repository(&self) -> Arc<Repository> {
        Objects(self.objects.clone(), Saboteur::new(Fault::None))
            .open(
                &name("r"),
                &Location {
                    url: "/".into(),
                    properties: BTreeMap::new(),
                },
            )
            .expect("opens")
    }

    /// Everything in the fixture adds up.
    pub fn check(&self, context: &str, job: JobId) -> bool {
        let life = self.live(Fault::None);
        let finished = life.runtime.block_on(async {
            let job = self.store.load(job).await.expect("in the journal");
            assert!(
                job.is_settled() && job.is_over(),
                "{context}: {} is not over",
                job.phase()
            );
            assert!(
                self.store.unfinished().await.expect("listed").is_empty(),
                "{context}: something is unfinished"
            );
            let finished = job.record.failure.is_none();
            let repository = self.repository();
            // A manifest exists if and only if its backup finished, and every file it lists is
            // there and is what its name says.
            for row in self
                .store
                .jobs(&JobFilter {
                    kind: Some(starkeep::job::JobKind::Backup),
                    ..JobFilter::default()
                })
                .await
                .expect("listed")
            {
                let label: SnapshotLabel = name(&row.snapshot);
                let backups = repository.snapshot(&label).await.expect("listed").backups;
                assert_eq!(
                    backups.len(),
                    usize::from(row.status == JobStatus::Succeeded),
                    "{context}: manifests of {label}"
                );
                for backup in backups {
                    let (manifest, _) = repository
                        .manifest(&label, &backup.timestamp)
                        .await
                        .expect("reads");
                    for file in manifest.files() {
                        let path = format!(
                            "__starrocks_repository_r/data/{}/{}.parquet",
                            &file.sha256[..2],
                            file.sha256
                        );
                        let bytes = self
                            .objects
                            .get(&path.as_str().into())
                            .await
                            .expect("there")
                            .bytes()
                            .await
                            .expect("read");
                        let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
                        assert_eq!(
                            hash.as_ref(),
                            hex::decode(&*file.sha256).expect("hex"),
                            "{context}: {path}"
                        );
                    }
                }
            }
            finished
        });
        self.nothing_is_left_behind(context, &life);
        life.end();
        finished
    }

    /// No pins, no locks, no links, no half-made tablets, no unfinished files.
    pub fn nothing_is_left_behind(&self, context: &str, life: &Life) {
        let fe = rusqlite::Connection::open(self.dir.path().join("fe.db")).expect("opens");
        for table in [
            "pins",
            "restore_locks",
            "staged_tablets",
            "swaps",
            "garbage",
        ] {
            let count: i64 = fe
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0))
                .expect("counted");
            assert_eq!(count, 0, "{context}: {table}");
        }
        let databases = life
            .runtime
            .block_on(life.cluster.managed().expect("ours").databases())
            .expect("described");
        let known: BTreeSet<String> = databases
            .iter()
            .flat_map(|d| &d.tables)
            .flat_map(|t| &t.partitions)
            .flat_map(|p| &p.tablets)
            .map(|t| t.id.to_string())
            .collect();
        for backend in self.backends() {
            assert_eq!(
                entries(&backend.join("snapshot")),
                BTreeSet::new(),
                "{context}: links"
            );
            for tablet in entries(&backend.join("tablets")) {
                assert!(
                    known.contains(&tablet),
                    "{context}: tablet {tablet} belongs to nobody"
                );
                let partial = entries(&backend.join("tablets").join(&tablet))
                    .into_iter()
                    .find(|f| f.starts_with('.'));
                assert_eq!(partial, None, "{context}: an unfinished file");
            }
        }
    }
}

pub fn entries(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeSet::new();
    };
    entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

impl Life {
    /// Ends the process: its tasks are dropped wherever they are.
    pub fn end(self) {
        let Self {
            runtime,
            saboteur,
            cluster,
            runner,
        } = self;
        drop((cluster, runner));
        runtime.shutdown_timeout(Duration::from_secs(30));
        drop(saboteur);
    }

    pub fn context(&self) -> SessionContext {
        let state = SessionStateBuilder::new().with_default_features().build();
        let context = SessionContext::new_with_state(state);
        context.register_catalog("embedded", self.cluster.catalog());
        context
    }

    /// The rows of a table as text, or nothing if there is no such table.
    pub fn rows(&self, table: &str) -> Option<String> {
        self.runtime.block_on(async {
            let frame = self
                .context()
                .sql(&format!("SELECT * FROM embedded.d.{table} ORDER BY a"))
                .await
                .ok()?;
            Some(
                pretty_format_batches(&frame.collect().await.expect("read"))
                    .expect("shown")
                    .to_string(),
            )
        })
    }

    /// The query of a view, or nothing if there is no such view.
    pub fn view(&self, view: &str) -> Option<String> {
        let databases = self
            .runtime
            .block_on(self.cluster.managed().expect("ours").databases())
            .expect("described");
        let views = databases.iter().flat_map(|d| &d.views);
        views
            .filter(|v| v.name.as_str() == view)
            .map(|v| v.definition.query.clone())
            .next()
    }

    pub fn define(&self, statement: &str) {
        let Statement::Define(definition) = parse_one(statement).expect("parses") else {
            panic!("{statement} defines nothing")
        };
        let managed = self.cluster.managed().expect("ours");
        self.runtime.block_on(async {
            let on = managed.backends_for(&definition).await.expect(statement);
            managed.define(&definition, on).await.expect(statement);
            managed.tidy_up().await;
        });
    }

    pub fn insert(&self, table: &str, query: &str) {
        self.runtime.block_on(async {
            let context = self.context();
            let plan = context
                .sql(query)
                .await
                .expect(query)
                .into_unoptimized_plan();
            let table = Qualified {
                database: Some(name("d")),
                name: name(table),
            };
            self.cluster
                .managed()
                .expect("ours")
                .write(&table, Write::Insert(plan), None, &context.state())
                .await
                .expect(query);
        });
    }

    pub fn delete_all(&self, table: &str) {
        self.runtime.block_on(async {
            let table = Qualified {
                database: Some(name("d")),
                name: name(table),
            };
            self.cluster
                .managed()
                .expect("ours")
                .write(&table, Write::Delete(None), None, &self.context().state())
                .await
                .expect("deleted");
        });
    }

    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        Counts {
            commands: read(&self.saboteur.commands),
            appends: read(&self.saboteur.appends),
            requests: read(&self.saboteur.requests),
        }
    }

    pub fn end_of(&self, fixture: &Fixture, job: JobId) -> Option<End> {
        let loaded = self.runtime.block_on(fixture.store.load(job));
        loaded.expect("in the journal").end()
    }

    /// Submits a job and waits until it is over, or the process dies.
    pub fn submit(&self, work: Work, uid: &str) -> JobId {
        let spec = JobSpec {
            uid: JobUid::new(uid).expect("valid"),
            cluster: name("embedded"),
            requester: Requester::User {
                name: "root".into(),
                client_addr: None,
                application_name: None,
            },
            statement: String::new(),
            timeout_seconds: 600,
            max_bytes_per_second: None,
            work,
        };
        self.runtime.block_on(async {
            let id = self.runner.submit(spec).await.expect("admitted");
            tokio::select! {
                () = self.runner.wait(id) => {}
                () = self.saboteur.crashed.notified() => {}
            }
            id
        })
    }
}
