//! The end of snapshots: DROP SNAPSHOT, and those whose time is over.
//!
//! Deleting a snapshot takes its manifest away and nothing else. It happens under a reservation in the store, so no job of this
//! gateway begins to read or write the snapshot meanwhile, and what decides is read again under it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::witness::Witness;
use super::{Inner, Runner};
use crate::error::{Error, ErrorKind};
use crate::names::*;
use crate::repository::{Location, Repository};
use crate::store::{RepositoryRecord, Store};

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

/// A snapshot that is reserved for its deletion; dropping this ends the reservation.
struct Reserved<'a> {
    store: &'a Arc<dyn Store>,
    cluster: &'a ClusterName,
    repository: &'a RepositoryName,
    label: &'a SnapshotLabel,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.store.dropped(self.cluster, self.repository, self.label);
    }
}

async fn reserve<'a>(
    inner: &'a Inner,
    cluster: &'a ClusterName,
    repository: &'a RepositoryName,
    label: &'a SnapshotLabel,
) -> Result<Reserved<'a>, Error> {
    inner.store.begin_drop(cluster, repository, label).await?;
    Ok(Reserved { store: &inner.store, cluster, repository, label })
}

fn open(inner: &Inner, record: &RepositoryRecord) -> Result<Arc<Repository>, Error> {
    inner.open.open(&record.name, &Location { url: record.location.clone(), properties: record.properties.clone() })
}

impl Runner {
    /// DROP SNAPSHOT, on behalf of a cluster with its id: one that another cluster made, or that does not say, needs `force`.
    pub async fn drop_snapshot(
        &self,
        cluster: &ClusterName,
        cluster_id: &str,
        repository: &RepositoryName,
        label: &SnapshotLabel,
        force: bool,
    ) -> Result<(), Error> {
        let (inner, cluster, cluster_id) = (self.inner.clone(), cluster.clone(), cluster_id.to_owned());
        let (repository, label) = (repository.clone(), label.clone());
        // On a task of the runner's own: a client that goes away leaves no reservation and no half of a deletion behind.
        let task = self.inner.tasks.spawn(async move { drop_now(&inner, &cluster, &cluster_id, &repository, &label, force).await });
        task.await.map_err(|e| Error::internal(format!("dropping a snapshot died: {e}")))?
    }

    /// Deletes expired snapshots, now and then, until the runner stops.
    pub fn expire_every(&self, interval: Duration) {
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            let mut known = Known::new();
            let newest = inner.store.newest_job().await.unwrap_or_default();
            let mut witness = Witness::new(&inner.env, newest);
            loop {
                let round = async {
                    if witness.believes(&inner.env) {
                        expire(&inner, &mut known).await;
                    }
                    inner.env.clock.sleep(interval).await;
                };
                // Left wherever it is: a deletion has happened or has not, and storage that does not answer holds up no stop.
                tokio::select! {
                    () = inner.stop.cancelled() => return,
                    () = round => {}
                }
            }
        });
    }
}

async fn drop_now(
    inner: &Inner,
    cluster: &ClusterName,
    cluster_id: &str,
    name: &RepositoryName,
    label: &SnapshotLabel,
    force: bool,
) -> Result<(), Error> {
    let known = inner.store.find_repository(cluster, name).await?;
    let record = known.ok_or_else(|| {
        Error::new(ErrorKind::UndefinedObject, format!("Repository does not exist: {name}")).hint("See SHOW REPOSITORIES.")
    })?;
    if record.read_only {
        return Err(Error::new(ErrorKind::WrongState, format!("Repository {name} is read only")));
    }
    let failed = |e: Error| {
        let message = format!("Failed to list snapshots in repository {name}: {}", e.message);
        Error::new(e.kind, message)
    };
    let repository = open(inner, &record).map_err(failed)?;
    let missing = || {
        Error::new(ErrorKind::UndefinedObject, format!("Snapshot does not exist in repository {name}: {label}"))
            .hint(format!("See SHOW SNAPSHOT ON {name}."))
    };
    if repository.snapshot(label).await.map_err(failed)?.timestamps.is_empty() {
        // A backup that has not published yet is told apart from nothing at all.
        drop(reserve(inner, cluster, name, label).await?);
        return Err(missing());
    }
    let _reserved = reserve(inner, cluster, name, label).await?;
    let timestamps = repository.snapshot(label).await.map_err(failed)?.timestamps;
    if timestamps.is_empty() {
        return Err(missing());
    }
    if !force {
        for timestamp in &timestamps {
            let maker = match repository.manifest(label, timestamp).await {
                Ok((manifest, _)) => manifest.cluster_id,
                // What is damaged for good says nothing; what does not answer just now may say whose it is.
                Err(e) if e.kind == ErrorKind::Corrupted => None,
                Err(e) => {
                    let message = format!("Failed to delete snapshot {label} in repository {name}: {}", e.message);
                    return Err(Error::new(e.kind, message).hint("Whose it is cannot be read now; try again."));
                }
            };
            let why = match maker {
                Some(maker) if maker == cluster_id => continue,
                Some(maker) => format!("was created by cluster {maker}, and this cluster is {cluster_id}"),
                None => "does not record which cluster created it".to_owned(),
            };
            let message = format!("Snapshot {label} in repository {name} {why}. Use DROP SNAPSHOT ... FORCE to drop it anyway");
            return Err(Error::new(ErrorKind::WrongState, message));
        }
    }
    for timestamp in &timestamps {
        repository.remove_manifest(label, timestamp).await.map_err(|e| {
            Error::new(e.kind, format!("Failed to delete snapshot {label} in repository {name}: {}", e.message))
                .hint("What is deleted stays deleted; say it again.")
        })?;
    }
    tracing::info!(repository = %name, snapshot = %label, "snapshot dropped");
    Ok(())
}

/// One round over all repositories. What fails is logged and tried again in the next round.
async fn expire(inner: &Inner, known: &mut Known) {
    let repositories = match inner.store.repositories().await {
        Ok(repositories) => repositories,
        Err(e) => return tracing::warn!(error = %e, "expired snapshots cannot be looked for"),
    };
    let workers: Vec<_> = inner.clusters.all().into_iter().filter(|c| c.worker().is_ok()).collect();
    let ours: BTreeSet<String> = workers.iter().filter_map(|c| Some(c.worker().ok()?.id().to_owned())).collect();
    for record in &repositories {
        // What a StarRocks cluster writes, it expires itself.
        if record.read_only || !workers.iter().any(|c| c.name() == &record.cluster) {
            continue;
        }
        if inner.stop.is_cancelled() {
            return;
        }
        if let Err(e) = expire_in(inner, record, &ours, known).await {
            tracing::warn!(repository = %record.name, error = %e, "expired snapshots cannot be looked for");
        }
    }
}

async fn expire_in(inner: &Inner, record: &RepositoryRecord, ours: &BTreeSet<String>, known: &mut Known) -> Result<(), Error> {
    let repository = open(inner, record)?;
    let listings = repository.snapshots().await?;
    // The repository's own clock is asked when the first of its snapshots seems to be over.
    let mut theirs = None;
    let mut listed = Vec::new();
    for listing in listings {
        listed.extend(listing.timestamps.into_iter().map(|timestamp| (listing.label.clone(), timestamp)));
    }
    let mut seen = Known::new();
    for (label, timestamp) in &listed {
        let key = (record.id, label.clone(), timestamp.clone());
        let mut memory = match known.get(&key) {
            Some(memory) => *memory,
            // One that does not read now may read the next time.
            None => match repository.manifest(label, timestamp).await {
                Ok((m, _)) if m.cluster_id.as_deref().is_some_and(|id| ours.contains(id)) => {
                    Memory { expire_at: m.expire_at, failures: 0 }
                }
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
            match expire_one(inner, record, &repository, label, timestamp, ours).await {
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

async fn expire_one(
    inner: &Inner,
    record: &RepositoryRecord,
    repository: &Repository,
    label: &SnapshotLabel,
    timestamp: &BackupTimestamp,
    ours: &BTreeSet<String>,
) -> Result<(), Error> {
    let _reserved = reserve(inner, &record.cluster, &record.name, label).await?;
    let (manifest, _) = repository.manifest(label, timestamp).await?;
    let is_ours = manifest.cluster_id.as_deref().is_some_and(|id| ours.contains(id));
    if !is_ours || manifest.expire_at.is_none_or(|at| at > inner.env.now()) {
        return Err(Error::internal(format!("the manifest of {label} has changed")));
    }
    repository.remove_manifest(label, timestamp).await
}
