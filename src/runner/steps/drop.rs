//! The steps that delete a snapshot: its manifests are taken away, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Attempt, misplaced};
use crate::cluster::StepError;
use crate::error::{Error, ErrorKind};
use crate::job::{DropCommand, DropEvent, DropRequest, DropState, DroppedBackups, Failure};
use crate::names::{BackupTimestamp, RepositoryName};
use crate::repository::Repository;

impl Attempt<'_> {
    pub(super) async fn drop_snapshot(
        &self,
        request: &DropRequest,
        state: &DropState,
        command: DropCommand,
    ) -> Result<DropEvent, StepError> {
        // Whoever waits for it is told at once; what was taken up again goes on when it can.
        let is_fresh = self.context.is_fresh;
        match (command, state) {
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
