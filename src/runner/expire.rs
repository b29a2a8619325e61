//! The end of snapshots: DROP SNAPSHOT, and those whose time is over.
//!
//! Either is a job, whose lock on the snapshot keeps others from reading or writing it meanwhile;
//! what decides is read under that lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::witness::Witness;
use super::{Inner, Runner, uploads};
use crate::error::{Error, ErrorKind};
use crate::job::{DropRequest, DroppedBackups, JobSpec, Requester, Work};
use crate::names::*;
use crate::repository::{Location, Repository};
use crate::store::RepositoryRecord;

/// After so many failures an expired snapshot is left alone until the next start.
const RETRIES_MAX: u32 = 3;

/// What is remembered about a backup, by repository: manifests never change, so each is read once.
type Known = HashMap<(RepositoryId, SnapshotLabel, BackupTimestamp), Memory>;

/// What the last look at a backup told.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// When it may be deleted, if it is ours and that is ever.
    expire_at: Option<Timestamp>,
    failures: u32,
}

pub(super) fn open(inner: &Inner, record: &RepositoryRecord) -> Result<Arc<Repository>, Error> {
    inner.open.open(
        &record.name,
        &Location {
            url: record.location.clone(),
            properties: record.properties.clone(),
        },
    )
}

impl Runner {
    /// DROP SNAPSHOT, as a job: returns when it has ended.
    pub async fn drop_snapshot(&self, spec: JobSpec) -> Result<(), Error> {
        let name = spec
            .work
            .repository()
            .ok_or_else(|| Error::internal("a snapshot was to be dropped nowhere"))?;
        let known = self
            .inner
            .store
            .find_repository(&spec.cluster, name)
            .await?;
        let record = known.ok_or_else(|| {
            Error::new(
                ErrorKind::UndefinedObject,
                format!("Repository does not exist: {name}"),
            )
            .hint("See SHOW REPOSITORIES.")
        })?;
        if record.read_only {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("Repository {name} is read only"),
            ));
        }
        let id = self.admit(spec, false).await?;
        self.ended(id).await
    }

    /// Deletes expired snapshots, now and then, until the runner stops.
    pub fn expire_every(&self, interval: Duration) {
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            let runner = Runner {
                inner: inner.clone(),
            };
            let mut known = Known::new();
            let newest = inner.store.newest_job().await.unwrap_or_default();
            let mut witness = Witness::new(&inner.env, newest);
            loop {
                let round = async {
                    uploads::give_up(&inner, None).await;
                    if witness.believes(&inner.env) {
                        expire(&runner, &mut known).await;
                    }
                    inner.env.clock.sleep(interval).await;
                };
                // Left wherever it is: a deletion has happened or has not, and storage that does
                // not answer holds up no stop.
                tokio::select! {
                    () = inner.stop.cancelled() => return,
                    () = round => {}
                }
            }
        });
    }
}

/// One round over all repositories. What fails is logged and tried again in the next round.
async fn expire(runner: &Runner, known: &mut Known) {
    let inner = &runner.inner;
    let repositories = match inner.store.repositories().await {
        Ok(repositories) => repositories,
        Err(e) => return tracing::warn!(error = %e, "expired snapshots cannot be looked for"),
    };
    let workers: Vec<_> = inner
        .clusters
        .all()
        .into_iter()
        .filter(|c| c.managed().is_ok())
        .collect();
    let ours: BTreeSet<String> = workers
        .iter()
        .filter_map(|c| Some(c.managed().ok()?.id().to_owned()))
        .collect();
    for record in &repositories {
        // What a StarRocks cluster writes, it expires itself.
        if record.read_only || !workers.iter().any(|c| c.name() == &record.cluster) {
            continue;
        }
        if inner.stop.is_cancelled() {
            return;
        }
        if let Err(e) = expire_in(runner, record, &ours, known).await {
            tracing::warn!(repository = %record.name, error = %e, "expired snapshots cannot be looked for");
        }
    }
}

async fn expire_in(
    runner: &Runner,
    record: &RepositoryRecord,
    ours: &BTreeSet<String>,
    known: &mut Known,
) -> Result<(), Error> {
    let inner = &runner.inner;
    let repository = open(inner, record)?;
    let listings = repository.snapshots().await?;
    // The repository's own clock is asked when the first of its snapshots seems to be over.
    let mut theirs = None;
    let mut listed = Vec::new();
    for listing in listings {
        listed.extend(
            listing
                .backups
                .into_iter()
                .map(|backup| (listing.label.clone(), backup)),
        );
    }
    let mut seen = Known::new();
    for (label, backup) in &listed {
        let timestamp = &backup.timestamp;
        let key = (record.id, label.clone(), timestamp.clone());
        let mut memory = match known.get(&key) {
            Some(memory) => *memory,
            // One that does not read now may read the next time.
            None => match repository.listed_manifest(label, backup).await {
                Ok(m) if m.cluster_id.as_deref().is_some_and(|id| ours.contains(id)) => Memory {
                    expire_at: m.expire_at,
                    failures: 0,
                },
                Ok(_) => Memory::default(),
                Err(_) => continue,
            },
        };
        let is_over = memory.expire_at.filter(|at| *at <= inner.env.now());
        if let Some(expire_at) = is_over.filter(|_| memory.failures < RETRIES_MAX) {
            if theirs.is_none() {
                theirs = Some(repository.clock(&inner.env).await?);
            }
            if theirs.is_some_and(|now| now < expire_at) {
                tracing::warn!(repository = %record.name, snapshot = %label, "over by our clock and not by the repository's: it stays");
                seen.insert(key, memory);
                continue;
            }
            match runner.expire_one(record, label, timestamp).await {
                Ok(()) => {
                    tracing::info!(repository = %record.name, snapshot = %label, "snapshot expired");
                    inner.metrics.snapshot_expired(true);
                    continue;
                }
                // In use now, so later.
                Err(e) if e.kind == ErrorKind::ObjectInUse => {}
                Err(e) => {
                    memory.failures += 1;
                    inner.metrics.snapshot_expired(false);
                    tracing::warn!(repository = %record.name, snapshot = %label, error = %e, "an expired snapshot cannot be deleted");
                }
            }
        }
        seen.insert(key, memory);
    }
    known.retain(|(id, ..), _| *id != record.id);
    known.extend(seen);
    Ok(())
}

/// How long the deletion of an expired snapshot may take before the next round tries it again,
/// seconds.
const EXPIRY_TIMEOUT_SECONDS: u64 = 3600;

impl Runner {
    async fn expire_one(
        &self,
        record: &RepositoryRecord,
        label: &SnapshotLabel,
        timestamp: &BackupTimestamp,
    ) -> Result<(), Error> {
        let backups = DroppedBackups::Expired {
            timestamp: timestamp.clone(),
        };
        let spec = JobSpec {
            uid: self.inner.env.uuid(),
            cluster: record.cluster.clone(),
            requester: Requester::Expiry,
            statement: String::new(),
            timeout_seconds: EXPIRY_TIMEOUT_SECONDS,
            max_bytes_per_second: None,
            work: Work::DropSnapshot(DropRequest {
                repository: record.name.clone(),
                label: label.clone(),
                backups,
            }),
        };
        self.ended(self.admit(spec, false).await?).await
    }
}
