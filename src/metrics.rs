//! Counters for Prometheus: one registry, passed in. [`Metrics::observe`] is the only place that
//! counts job work.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::job::{BackupEvent, Delta, Job, JobCourse, JobEvent, RestoreEvent};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabels {
    kind: String,
    status: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatementLabels {
    sqlstate: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClusterLabels {
    cluster: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConditionLabels {
    cluster: String,
    condition: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    status: String,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    jobs_finished: Family<JobLabels, Counter>,
    jobs_running: Family<KindLabels, Gauge>,
    retries: Family<KindLabels, Counter>,
    bytes: Family<KindLabels, Counter<u64, AtomicU64>>,
    bytes_new: Family<KindLabels, Counter<u64, AtomicU64>>,
    statements: Family<StatementLabels, Counter>,
    connections: Gauge,
    catalogs_gathered: Counter,
    panics: Counter,
    snapshots_expired: Family<StatusLabels, Counter>,
    clusters_reachable: Family<ClusterLabels, Gauge>,
    clusters_condition: Family<ConditionLabels, Gauge>,
}

fn condition_labels(cluster: &str, condition: &str) -> ConditionLabels {
    ConditionLabels {
        cluster: cluster.to_owned(),
        condition: condition.to_owned(),
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("starkeep");
        let (jobs_finished, jobs_running, retries) =
            (Family::default(), Family::default(), Family::default());
        let (bytes, bytes_new, statements, connections) = (
            Family::default(),
            Family::default(),
            Family::default(),
            Gauge::default(),
        );
        registry.register(
            "jobs_finished",
            "Jobs that ended, by kind and how",
            Clone::clone(&jobs_finished),
        );
        registry.register(
            "jobs_running",
            "Jobs that have begun and not ended",
            Clone::clone(&jobs_running),
        );
        registry.register(
            "task_retries",
            "Steps of jobs that failed and are tried again",
            Clone::clone(&retries),
        );
        registry.register_with_unit(
            "job_data",
            "Data that jobs were about",
            Unit::Bytes,
            Clone::clone(&bytes),
        );
        registry.register_with_unit(
            "job_data_moved",
            "Data that jobs had to move",
            Unit::Bytes,
            Clone::clone(&bytes_new),
        );
        registry.register(
            "statements",
            "Statements, by SQLSTATE (00000: success)",
            Clone::clone(&statements),
        );
        registry.register(
            "connections",
            "Open client connections",
            Clone::clone(&connections),
        );
        let panics = Counter::default();
        registry.register(
            "panics",
            "Faults of the program that were survived; each is in the log",
            Clone::clone(&panics),
        );
        let catalogs_gathered = Counter::default();
        registry.register(
            "catalogs_gathered",
            "Times that the objects of a cluster were gathered for PostgreSQL's catalogs",
            Clone::clone(&catalogs_gathered),
        );
        let snapshots_expired = Family::default();
        registry.register(
            "snapshots_expired",
            "Expired snapshots, by whether they could be deleted",
            Clone::clone(&snapshots_expired),
        );
        let clusters_reachable = Family::default();
        registry.register(
            "cluster_reachable",
            "Whether a cluster answered when it was last looked at",
            Clone::clone(&clusters_reachable),
        );
        let clusters_condition = Family::default();
        registry.register(
            "cluster_condition",
            "1 for the condition that a cluster was in when it was last looked at, 0 for the others",
            Clone::clone(&clusters_condition),
        );
        Self {
            clusters_condition,
            clusters_reachable,
            snapshots_expired,
            registry,
            jobs_finished,
            jobs_running,
            retries,
            bytes,
            bytes_new,
            statements,
            connections,
            panics,
            catalogs_gathered,
        }
    }
}

impl Metrics {
    /// Counts a look at all objects of a cluster.
    pub fn catalogs_gathered(&self) {
        self.catalogs_gathered.inc();
    }

    /// Counts a fault of the program, wherever it was caught.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts events that were appended; `before` and `after` are the job around them.
    pub fn observe(&self, before: &Job, delta: &Delta, after: &Job) {
        let kind = KindLabels {
            kind: after.spec.kind().to_string(),
        };
        if before.record.started_at.is_none() {
            self.jobs_running.get_or_create(&kind).inc();
        }
        for entry in &delta.entries {
            if let JobEvent::Backup(BackupEvent::Uploaded { transfer, .. })
            | JobEvent::Restore(RestoreEvent::Downloaded { transfer, .. }) = &entry.event
            {
                self.bytes.get_or_create(&kind).inc_by(transfer.total.bytes);
                self.bytes_new
                    .get_or_create(&kind)
                    .inc_by(transfer.new.bytes);
            }
        }
        if after.is_settled() && !before.is_settled() {
            self.jobs_running.get_or_create(&kind).dec();
            let status = JobCourse::of(after).status.name().to_owned();
            self.jobs_finished
                .get_or_create(&JobLabels {
                    kind: kind.kind,
                    status,
                })
                .inc();
        }
    }

    /// Takes over a job that had begun before this process did.
    pub fn resumed(&self, job: &Job) {
        if job.record.started_at.is_some() && !job.is_settled() {
            self.jobs_running
                .get_or_create(&KindLabels {
                    kind: job.spec.kind().to_string(),
                })
                .inc();
        }
    }

    /// Counts a step that will be tried again.
    pub fn retried(&self, job: &Job) {
        self.retries
            .get_or_create(&KindLabels {
                kind: job.spec.kind().to_string(),
            })
            .inc();
    }

    /// Counts a statement by its outcome.
    pub fn statement(&self, sqlstate: &str) {
        self.statements
            .get_or_create(&StatementLabels {
                sqlstate: sqlstate.to_owned(),
            })
            .inc();
    }

    /// Counts an expired snapshot that was deleted, or could not be.
    pub fn snapshot_expired(&self, deleted: bool) {
        let status = if deleted { "deleted" } else { "failed" }.to_owned();
        self.snapshots_expired
            .get_or_create(&StatusLabels { status })
            .inc();
    }

    /// Notes whether a cluster answered.
    /// `conditions`: their names, and whether the cluster is in that one.
    pub fn cluster(
        &self,
        cluster: &str,
        answered: bool,
        conditions: impl Iterator<Item = (&'static str, bool)>,
    ) {
        self.clusters_reachable
            .get_or_create(&ClusterLabels {
                cluster: cluster.to_owned(),
            })
            .set(i64::from(answered));
        for (condition, is_so) in conditions {
            self.clusters_condition
                .get_or_create(&condition_labels(cluster, condition))
                .set(i64::from(is_so));
        }
    }

    /// Forgets a cluster that is gone.
    pub fn cluster_gone(&self, cluster: &str, conditions: impl Iterator<Item = &'static str>) {
        self.clusters_reachable.remove(&ClusterLabels {
            cluster: cluster.to_owned(),
        });
        for condition in conditions {
            self.clusters_condition
                .remove(&condition_labels(cluster, condition));
        }
    }

    /// Counts a connection while the answer is held.
    pub fn connection(&self) -> ConnectionGauge {
        self.connections.inc();
        ConnectionGauge(self.connections.clone())
    }

    /// The text that Prometheus reads.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        encode(&mut out, &self.registry).expect("writing to a string does not fail");
        out
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionGauge(Gauge);

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
