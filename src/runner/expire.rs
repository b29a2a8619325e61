//! The end of snapshots: DROP SNAPSHOT, and those whose time is over.
//!
//! Either is a job, whose lock on the snapshot keeps others from reading or writing it meanwhile;
//! what decides is read under that lock.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;

use super::witness::Witness;
use super::{Inner, Runner, location_of, uploads};
use crate::error::{Error, ErrorKind};
use crate::job::{DropRequest, DroppedBackups, JobSpec, Requester, Work};
use crate::names::*;
use crate::repository::ObjectNames;
use crate::store::RepositoryRecord;

/// After so many failures an expired snapshot is left alone until the next start.
const RETRIES_MAX: u32 = 3;

/// Expired snapshots that go in one round, of one repository: were a clock wrong after all,
/// somebody could still notice.
const EXPIRED_PER_ROUND_MAX: usize = 1000;
/// How long one repository may be looked at: storage that does not answer holds up no other.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1800);
/// Repositories that are looked at side by side.
const LOOKS: usize = 4;

/// What is remembered about a backup, by repository: manifests never change, so each is read once.
type Known = HashMap<(RepositoryId, SnapshotLabel, BackupTimestamp), Memory>;

/// What the last look at a backup told.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// When it may be deleted, if it is ours and that is ever: its time is counted from when it was
    /// made by the clock that was here then, and from when it was written by that of the store.
    over_at: Option<Timestamp>,
    failures: u32,
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

    /// Has what verifications have found to be damaged be put right by the next backup that needs
    /// it, as it would have been without a restart. What was put right since is written once more.
    pub async fn recall_damage(&self) {
        if let Err(error) = recall_damage(&self.inner).await {
            tracing::warn!(%error, "known damage cannot be looked for");
        }
    }

    /// Deletes expired snapshots, now and then, until the runner stops.
    pub fn expire_every(&self, interval: Duration) {
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            let runner = Runner {
                inner: inner.clone(),
            };
            let known = Mutex::new(Known::new());
            let newest = inner.store.newest_job().await.unwrap_or_default();
            let mut witness = Witness::new(&inner.env, newest);
            loop {
                let round = async {
                    let expires = witness.believes(&inner.env);
                    let expiry = async {
                        if expires {
                            expire(&runner, &known).await;
                        }
                    };
                    let left = within(&inner, uploads::give_up(&inner, None));
                    let (left, ()) = tokio::join!(left, expiry);
                    if left.is_none() {
                        tracing::warn!("storage does not answer: uploads that were left are given up in the next round");
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

async fn recall_damage(inner: &Inner) -> Result<(), Error> {
    let damaged = inner.store.damaged_objects().await?;
    if damaged.is_empty() {
        return Ok(());
    }
    for record in &inner.store.repositories().await? {
        let mut objects = damaged.iter().filter_map(|(cluster, repository, object)| {
            let is_here =
                *cluster == *record.cluster.as_str() && *repository == *record.name.as_str();
            ObjectNames::parse(object).filter(|_| is_here)
        });
        // In a directory every file is read once after a start anyhow; and one that cannot be
        // opened holds up no other.
        let Some(first) = objects.next() else {
            continue;
        };
        if !location_of(record).is_local()
            && let Ok(repository) = inner.repository(record)
        {
            for object in std::iter::once(first).chain(objects) {
                repository.note_damaged(&object);
            }
        }
    }
    Ok(())
}

/// Does something if it does not take too long.
async fn within<T>(inner: &Inner, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = inner.env.clock.sleep(LOOK_TIME_MAX) => None,
    }
}

/// One round over all repositories. What fails is logged and tried again in the next round.
async fn expire(runner: &Runner, known: &Mutex<Known>) {
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
    // What a StarRocks cluster writes, it expires itself.
    let records = repositories
        .iter()
        .filter(|r| !r.read_only && workers.iter().any(|c| c.name() == &r.cluster));
    let look = async |record: &RepositoryRecord| {
        let looked = within(inner, expire_in(runner, record, &ours, known)).await;
        let silent = || {
            let message = format!("it has not answered within {LOOK_TIME_MAX:?}");
            Err(Error::new(ErrorKind::Storage, message))
        };
        if let Err(e) = looked.unwrap_or_else(silent) {
            inner.metrics.snapshot_expired(false);
            tracing::warn!(repository = %record.name, error = %e, "expired snapshots cannot be looked for");
        }
    };
    futures::stream::iter(records)
        .for_each_concurrent(LOOKS, look)
        .await;
}

async fn expire_in(
    runner: &Runner,
    record: &RepositoryRecord,
    ours: &BTreeSet<String>,
    known: &Mutex<Known>,
) -> Result<(), Error> {
    let inner = &runner.inner;
    let repository = inner.repository(record)?;
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
    let (mut seen, mut expired) = (BTreeSet::new(), 0);
    for (label, backup) in &listed {
        let timestamp = &backup.timestamp;
        let key = (record.id, label.clone(), timestamp.clone());
        let remembered = known.lock().get(&key).copied();
        let mut memory = match remembered {
            Some(memory) => memory,
            // One that does not read now may read the next time.
            None => match repository.listed_manifest(label, backup).await {
                Ok(m) if m.cluster_id.as_deref().is_some_and(|id| ours.contains(id)) => Memory {
                    over_at: m
                        .expire_at
                        .max(m.ttl.and_then(|ttl| ttl.after(backup.stamp.written_at()))),
                    failures: 0,
                },
                Ok(_) => Memory::default(),
                Err(_) => continue,
            },
        };
        seen.insert(key.clone());
        let is_over = memory.over_at.filter(|at| *at <= inner.env.now());
        if let Some(over_at) = is_over.filter(|_| memory.failures < RETRIES_MAX) {
            if expired == EXPIRED_PER_ROUND_MAX {
                tracing::warn!(repository = %record.name, "{EXPIRED_PER_ROUND_MAX} snapshots have expired; more go in the next round");
                break;
            }
            if theirs.is_none() {
                theirs = Some(repository.clock(&inner.env).await?);
            }
            if theirs.is_some_and(|now| now < over_at) {
                tracing::warn!(repository = %record.name, snapshot = %label, "over by our clock and not by the repository's: it stays");
                known.lock().insert(key, memory);
                continue;
            }
            match runner.expire_one(record, label, timestamp).await {
                Ok(()) => {
                    tracing::info!(repository = %record.name, snapshot = %label, "snapshot expired");
                    inner.metrics.snapshot_expired(true);
                    expired += 1;
                    known.lock().remove(&key);
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
        known.lock().insert(key, memory);
    }
    // What is not listed any more is forgotten; a round that was broken off has not seen all.
    if expired < EXPIRED_PER_ROUND_MAX {
        known
            .lock()
            .retain(|key, _| key.0 != record.id || seen.contains(key));
    }
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
            uid: self.inner.env.job_uid(),
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
