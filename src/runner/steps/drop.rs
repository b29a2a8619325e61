//! The steps that delete a snapshot. Of our own format its manifests are taken away, and nothing
//! else; of StarRocks' everything under its label, as nothing is shared there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Attempt, misplaced};
use crate::chains::Chains;
use crate::cluster::{ExternalCluster, SeenSlot, StepError};
use crate::error::{Error, ErrorKind};
use crate::job::{
    DropCommand, DropEvent, DropRequest, DropState, DroppedBackups, Failure, JobKind, JobStatus,
};
use crate::names::{BackupTimestamp, JobId, RepositoryName, SnapshotLabel};
use crate::repository::{Repository, STORED_QUIET_SECONDS, StarRocksRepository, is_same_place};
use crate::runner::location_of;
use crate::store::JobFilter;

const QUIET_MS: i64 = STORED_QUIET_SECONDS as i64 * 1000;

/// The jobs that a cluster has under way, whoever began them. Backups and restores are asked for one
/// after the other: a slot that changes in between is in one of two looks.
async fn live_slots(external: &dyn ExternalCluster) -> Result<Vec<SeenSlot>, Error> {
    let mut slots = external.slots(&[]).await?;
    slots.extend(external.slots(&[]).await?);
    slots.retain(|slot| !slot.seen.phase().is_over());
    Ok(slots)
}

/// Who uses something of a repository.
pub(super) struct Use {
    pub kind: JobKind,
    /// Empty for the repository as a whole.
    pub label: String,
    /// Its number, of a job of ours.
    pub job: Option<JobId>,
    /// Other labels that it reads, or relies on.
    pub needs: Vec<String>,
}

impl Attempt<'_> {
    pub(super) async fn drop_snapshot(
        &self,
        request: &DropRequest,
        state: &DropState,
        command: DropCommand,
    ) -> Result<DropEvent, StepError> {
        // Whoever waits for it is told at once; what was taken up again goes on when it can.
        let is_fresh = self.context.is_fresh;
        let cluster = self.context.inner.cluster(&self.job.spec.cluster)?;
        let external = cluster.external();
        match (command, state) {
            (DropCommand::Check, DropState::Pending) if let Some(external) = external => {
                let checked = self.check_starrocks(request, external).await;
                let checked = checked.map(|timestamps| DropEvent::Checked { timestamps });
                checked.map_err(|e| {
                    if is_fresh {
                        StepError::Fatal(e)
                    } else {
                        StepError::Retry(e)
                    }
                })
            }
            (DropCommand::Delete, DropState::Deleting { timestamps })
                if let Some(external) = external =>
            {
                match self.delete_starrocks(request, timestamps, external).await {
                    Err(error) if is_fresh => Ok(DropEvent::Cancelled {
                        failure: Failure::verbatim(&error),
                    }),
                    Ok(()) => Ok(DropEvent::Deleted),
                    Err(error) => Err(StepError::Retry(error)),
                }
            }
            (DropCommand::Check, DropState::Pending) => {
                let checked = async {
                    if !is_fresh {
                        self.reached_repository().await?;
                    }
                    Ok(DropEvent::Checked {
                        timestamps: self.backups_to_drop(request).await?,
                    })
                };
                checked.await.map_err(|e: StepError| match e {
                    StepError::Retry(e) | StepError::Fatal(e) if is_fresh => StepError::Fatal(e),
                    e => e,
                })
            }
            (DropCommand::Delete, DropState::Deleting { timestamps }) => {
                match self.delete(request, timestamps).await {
                    Err(error) if is_fresh => Ok(DropEvent::Cancelled {
                        failure: Failure::verbatim(&error),
                    }),
                    done => done.map_err(StepError::Retry),
                }
            }
            _ => Err(misplaced()),
        }
    }

    /// What goes of a repository that a StarRocks cluster writes.
    async fn check_starrocks(
        &self,
        request: &DropRequest,
        external: &dyn ExternalCluster,
    ) -> Result<Vec<BackupTimestamp>, Error> {
        let DropRequest {
            repository: name,
            label,
            backups,
        } = request;
        let failed = |e: Error| {
            let message = format!(
                "Failed to list snapshots in repository {name}: {}",
                e.message
            );
            Error::new(e.kind, message)
        };
        let chains = Chains {
            store: &*self.context.inner.store,
            cluster: &self.job.spec.cluster,
            repository: name,
        };
        chains.check_unneeded(external, label).await?;
        // Of one that has nothing of its own nothing is stored.
        if chains.is_unchanged(external, label).await? {
            return Ok(Vec::new());
        }
        let repository = self.opened_starrocks(name, external).await?;
        let stored = repository.label(label.as_str()).await.map_err(failed)?;
        if repository.is_free(&stored).await.map_err(failed)? {
            return Err(Error::new(
                ErrorKind::UndefinedObject,
                format!("Snapshot does not exist in repository {name}: {label}"),
            )
            .hint(format!("See SHOW SNAPSHOT ON {name}.")));
        }
        if !matches!(backups, DroppedBackups::All { force: true, .. }) {
            repository.check_maker(&stored).await?;
        }
        self.check_unused(request).await?;
        if stored.infos.is_empty() {
            self.check_quiet(&repository, label).await?;
        }
        let timestamps = stored.infos.iter();
        let timestamps = timestamps.filter_map(|info| BackupTimestamp::new(&info.timestamp).ok());
        Ok(timestamps.collect())
    }

    async fn delete_starrocks(
        &self,
        request: &DropRequest,
        timestamps: &[BackupTimestamp],
        external: &dyn ExternalCluster,
    ) -> Result<(), Error> {
        let DropRequest {
            repository: name,
            label,
            ..
        } = request;
        let failed = |e: Error| {
            let message = format!(
                "Failed to delete snapshot {label} in repository {name}: {}",
                e.message
            );
            Error::new(e.kind, message).hint("What is deleted stays deleted; say it again.")
        };
        let chains = Chains {
            store: &*self.context.inner.store,
            cluster: &self.job.spec.cluster,
            repository: name,
        };
        if timestamps.is_empty() && chains.is_unchanged(external, label).await? {
            return Ok(());
        }
        let repository = self.opened_starrocks(name, external).await?;
        let stored = repository.label(label.as_str()).await.map_err(failed)?;
        let is_ours = |time: &String| timestamps.iter().any(|ours| ours.as_str() == time);
        if !stored.infos.iter().all(|info| is_ours(&info.timestamp)) {
            // What was to go is gone, and its label is another backup's by now.
            return Ok(());
        }
        // Of what was looked at before a restart, much may have begun since.
        self.check_unused(request).await?;
        chains.check_unneeded(external, label).await?;
        repository.delete_infos(&stored).await.map_err(failed)?;
        // No restore can begin from here on; one that has begun in between keeps its files.
        self.check_unused(request).await?;
        let go_on = || match self.context.abandon.is_cancelled() {
            true => Err(Error::new(ErrorKind::Cancelled, "the job was given up")),
            false => Ok(()),
        };
        let deleted = repository.delete_label(label.as_str(), go_on).await;
        deleted.map_err(failed)?;
        tracing::info!(repository = %name, snapshot = %label, "snapshot dropped");
        Ok(())
    }

    /// The repository as the cluster has it now: there, where it was, and for writing.
    pub(super) async fn opened_starrocks(
        &self,
        name: &RepositoryName,
        external: &dyn ExternalCluster,
    ) -> Result<StarRocksRepository, Error> {
        let inner = &self.context.inner;
        let record = inner.store.repository(&self.job.spec.cluster, name).await?;
        let known = external.repositories().await?;
        let Some(there) = known.iter().find(|r| r.name == name.as_str()) else {
            let message = format!("Repository does not exist: {name}");
            return Err(Error::new(ErrorKind::UndefinedObject, message));
        };
        if there.read_only || record.read_only {
            let message = format!("Repository {name} is read only");
            return Err(Error::new(ErrorKind::WrongState, message));
        }
        if !is_same_place(&there.location, &record.location) {
            let message = format!("Repository {name} is at {} by now", there.location);
            return Err(Error::new(ErrorKind::WrongState, message)
                .hint("DROP REPOSITORY, and create it again from here."));
        }
        let repository = inner
            .open
            .open_starrocks(&record.name, &location_of(&record))?;
        repository.ping().await?;
        Ok(repository)
    }

    /// What has no `__info_` file may be of a backup that nothing shows: one whose user sees more
    /// than ours, or one that was cancelled while its backends still upload.
    async fn check_quiet(
        &self,
        repository: &StarRocksRepository,
        label: &SnapshotLabel,
    ) -> Result<(), Error> {
        let Some(last) = repository.last_put(label.as_str()).await? else {
            return Ok(());
        };
        let age = self.context.inner.env.now().0 - last.0;
        if age < QUIET_MS {
            let message = format!("Can not drop snapshot {label}: a backup is writing it");
            let seconds = age.max(0) / 1000;
            return Err(Error::new(ErrorKind::ObjectInUse, message)
                .detail(format!(
                    "It has no __info_ file, and a file in it was written {seconds} seconds ago."
                ))
                .hint(format!(
                    "Say it again when nothing was written for {} minutes.",
                    QUIET_MS / 60_000
                )));
        }
        Ok(())
    }

    /// Whether no job, here or on a cluster, is about a label or prunes. 55006 otherwise; an error,
    /// too, if a cluster cannot be asked.
    async fn check_unused(&self, request: &DropRequest) -> Result<(), Error> {
        let label = &request.label;
        for used in self.uses_of(&request.repository).await? {
            let how = match used.kind {
                JobKind::Backup if used.label == label.as_str() => "a backup is writing it",
                JobKind::Restore if used.label == label.as_str() => "a restore is reading it",
                JobKind::Prune => "its repository is being pruned",
                JobKind::Backup if used.needs.contains(&label.to_string()) => "a backup follows it",
                JobKind::Restore if used.needs.contains(&label.to_string()) => {
                    "a restore is reading it"
                }
                _ => continue,
            };
            let message = format!("Can not drop snapshot {label}: {how}");
            let error = Error::new(ErrorKind::ObjectInUse, message);
            return Err(match used.job {
                Some(id) => error.detail(format!("It is job {id}.")),
                None => error,
            });
        }
        Ok(())
    }

    /// The jobs that are about a repository or something in it, here and on every cluster that has it
    /// in the same place, whoever began them.
    pub(super) async fn uses_of(&self, name: &RepositoryName) -> Result<Vec<Use>, Error> {
        let (inner, ours) = (&self.context.inner, &self.job.spec.cluster);
        let place = inner.store.repository(ours, name).await?.location;
        let all = inner.store.repositories().await?.into_iter();
        let same = all.filter(|r| r.name == *name && is_same_place(&r.location, &place));
        let mut uses = Vec::new();
        for cluster in same.map(|record| record.cluster) {
            // One that is gone from the settings begins nothing from here.
            let known = inner.clusters.get(&cluster);
            if let Some(external) = known.as_ref().and_then(|known| known.external()) {
                let slots = live_slots(external).await.map_err(|e| {
                    e.prefixed(&format!(
                        "who uses the repository is not known of cluster \"{cluster}\""
                    ))
                })?;
                uses.extend(slots.into_iter().map(|slot| Use {
                    kind: slot.kind,
                    label: slot.seen.label,
                    job: None,
                    needs: Vec::new(),
                }));
            }
            for status in [JobStatus::Queued, JobStatus::Running] {
                let filter = JobFilter {
                    cluster: Some(cluster.to_string()),
                    repository: Some(name.to_string()),
                    status: Some(status),
                    ..JobFilter::default()
                };
                let jobs = inner.store.jobs(&filter).await?.into_iter();
                let others = jobs.filter(|job| job.job_id != self.job.id);
                uses.extend(others.map(|job| Use {
                    kind: job.kind,
                    label: job.snapshot,
                    job: Some(job.job_id),
                    needs: job.needs,
                }));
            }
        }
        Ok(uses)
    }

    async fn opened(&self, name: &RepositoryName) -> Result<Arc<Repository>, Error> {
        let inner = &self.context.inner;
        let record = inner.store.repository(&self.job.spec.cluster, name).await?;
        if record.read_only {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("Repository {name} is read only"),
            ));
        }
        inner.repository(&record)
    }

    async fn backups_to_drop(&self, request: &DropRequest) -> Result<Vec<BackupTimestamp>, Error> {
        let DropRequest {
            repository: name,
            label,
            backups,
        } = request;
        let (cluster_id, force) = match backups {
            DroppedBackups::All { cluster_id, force } => (cluster_id, *force),
            DroppedBackups::Expired { timestamp } => {
                let (manifest, _) = self.opened(name).await?.manifest(label, timestamp).await?;
                let clusters = self.context.inner.clusters.all();
                let ours: BTreeSet<&str> = clusters
                    .iter()
                    .filter_map(|c| Some(c.managed().ok()?.id()))
                    .collect();
                let is_ours = manifest
                    .cluster_id
                    .as_deref()
                    .is_some_and(|id| ours.contains(id));
                if !is_ours
                    || manifest
                        .expire_at
                        .is_none_or(|at| at > self.context.inner.env.now())
                {
                    return Err(Error::internal(format!(
                        "the manifest of {label} has changed"
                    )));
                }
                return Ok(vec![timestamp.clone()]);
            }
        };
        let failed = |e: Error| {
            let message = format!(
                "Failed to list snapshots in repository {name}: {}",
                e.message
            );
            Error::new(e.kind, message)
        };
        let repository = self.opened(name).await.map_err(|e| {
            if e.kind == ErrorKind::WrongState {
                e
            } else {
                failed(e)
            }
        })?;
        let backups = repository.snapshot(label).await.map_err(failed)?.backups;
        let timestamps: Vec<_> = backups.into_iter().map(|backup| backup.timestamp).collect();
        if timestamps.is_empty() {
            return Err(Error::new(
                ErrorKind::UndefinedObject,
                format!("Snapshot does not exist in repository {name}: {label}"),
            )
            .hint(format!("See SHOW SNAPSHOT ON {name}.")));
        }
        for timestamp in timestamps.iter().filter(|_| !force) {
            repository.check_maker(label, timestamp, cluster_id).await?;
        }
        Ok(timestamps)
    }

    async fn delete(
        &self,
        request: &DropRequest,
        timestamps: &[BackupTimestamp],
    ) -> Result<DropEvent, Error> {
        let DropRequest {
            repository: name,
            label,
            ..
        } = request;
        let repository = self.opened(name).await?;
        // What a mount that is gone does not have is not gone.
        repository.ping().await.map_err(|e| {
            let message = format!(
                "Failed to delete snapshot {label} in repository {name}: {}",
                e.message
            );
            Error::new(e.kind, message)
        })?;
        for timestamp in timestamps {
            if self.context.abandon.is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "the job was given up"));
            }
            repository
                .remove_manifest(label, timestamp)
                .await
                .map_err(|e| {
                    Error::new(
                        e.kind,
                        format!(
                            "Failed to delete snapshot {label} in repository {name}: {}",
                            e.message
                        ),
                    )
                    .hint("What is deleted stays deleted; say it again.")
                })?;
        }
        tracing::info!(repository = %name, snapshot = %label, "snapshot dropped");
        Ok(DropEvent::Deleted)
    }
}
