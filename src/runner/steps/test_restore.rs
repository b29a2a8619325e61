//! A backup restored to see whether it can be: by a job of its own, into a database whose name says
//! whose it is, which is read and dropped.

use std::sync::Arc;

use super::{Attempt, reach};
use crate::cluster::{GoOn, Proof, StepError};
use crate::error::{Error, ErrorKind};
use crate::job::{
    CancelCause, ControlEvent, End, Finding, FindingKind, Job, JobKind, JobSpec, JobStatus, Pace,
    Requester, RestoreObject, RestoreRequest, RestoreView, Speaker, Target, TestRestore,
    VerifyReport, VerifyRequest, Work,
};
use crate::names::{BackupTimestamp, DatabaseName, JobId, JobUid, SnapshotLabel, TaskId};
use crate::repository::{Manifest, Repository};
use crate::runner::Runner;
use crate::statement::Definition;
use crate::store::JobFilter;

/// How the databases of a verification begin: with a part that nobody can guess, so that no one
/// else's is taken for one of them.
pub(super) fn scratch_prefix(job: &Job) -> String {
    let random: String = job
        .spec
        .uid
        .as_str()
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect();
    format!("verify_{}_{random}_", job.id)
}

/// The database that a verification restores one of its backups into.
pub(super) fn scratch_of(job: &Job, TaskId(place): TaskId) -> Result<DatabaseName, Error> {
    DatabaseName::new(format!("{}{place}", scratch_prefix(job)))
}

pub(super) fn cancelled() -> StepError {
    StepError::Retry(Error::new(ErrorKind::Cancelled, "the job was cancelled"))
}

/// Everything that a backup has.
fn whole(manifest: &Manifest) -> RestoreRequest {
    let object = |table: &crate::job::PlannedTable| RestoreObject {
        table: table.name.clone(),
        partitions: Vec::new(),
        alias: None,
    };
    let view = |view: &crate::job::PlannedView| RestoreView {
        view: view.name.clone(),
        alias: None,
    };
    RestoreRequest {
        timestamp: manifest.timestamp.clone(),
        objects: manifest.tables.iter().map(object).collect(),
        views: manifest.views.iter().map(view).collect(),
        // One copy proves as much as three.
        replication_num: 1,
        replication_given: true,
        allow_load: false,
        makes_database: true,
    }
}

impl Attempt<'_> {
    /// Restores one backup, reads it and drops it; one after the other, as each takes as much room
    /// as its tables.
    pub(super) async fn test_restore(
        &self,
        request: &VerifyRequest,
        report: &Arc<VerifyReport>,
        task: TaskId,
    ) -> Result<TestRestore, StepError> {
        let _alone = self.context.restoring.lock().await;
        self.context.go_on().await?;
        let TaskId(place) = task;
        let backup = &report.backups[place as usize];
        let (label, timestamp) = (&backup.label, &backup.timestamp);
        let repository = self.mounted_repository().await?;
        let mut restored = TestRestore::default();
        let not_restorable = |detail: String| Finding {
            kind: FindingKind::NotRestorable,
            object: format!("{label}/{timestamp}"),
            backups: vec![place as u32],
            detail,
        };
        let manifest = match repository.manifest(label, timestamp).await {
            Ok((manifest, _)) => manifest,
            Err(error) => {
                let lasts = matches!(
                    error.kind,
                    ErrorKind::MissingFile | ErrorKind::Corrupted | ErrorKind::Unsupported
                );
                if !lasts {
                    return Err(StepError::Retry(error));
                }
                if !self.is_gone(&repository, label, timestamp).await? {
                    restored.findings.push(not_restorable(error.message));
                }
                return Ok(restored);
            }
        };
        let scratch = scratch_of(self.job, task)?;
        let child = self
            .restored_by(request, &scratch, label, &manifest)
            .await?;
        restored.job_id = Some(child.id);
        if child.end() == Some(End::Finished) {
            let (began, ended) = (child.record.started_at, child.record.finished_at);
            let took = began
                .zip(ended)
                .map_or(0, |(began, ended)| ended.0 - began.0);
            restored.took_ms = Some(u64::try_from(took).unwrap_or(0));
            if !self.has_database(&scratch).await? {
                let message = format!("database {scratch} was dropped before it was read");
                return Err(StepError::Retry(Error::new(ErrorKind::WrongState, message)));
            }
            let cluster = self.context.inner.cluster(&self.job.spec.cluster)?;
            let abandon = self.context.abandon.clone();
            let go_on: GoOn = Arc::new(move || {
                if abandon.is_cancelled() {
                    return Err(Error::new(ErrorKind::Cancelled, "the job was cancelled"));
                }
                Ok(())
            });
            let proven = cluster.managed()?.prove(&scratch, &manifest, go_on).await;
            let Proof {
                volume,
                rows,
                differences,
            } = proven.map_err(StepError::Retry)?;
            (restored.volume, restored.rows) = (volume, rows);
            let findings = differences.into_iter().map(not_restorable);
            findings.for_each(|finding| restored.findings.push(finding));
        } else if !self.is_gone(&repository, label, timestamp).await? {
            let failure = child.record.failure.as_ref();
            let why = failure.map(|f| f.message.clone()).unwrap_or_default();
            if failure.is_some_and(|f| f.cause == Some(CancelCause::User)) {
                let message = format!("job {}, which restores a backup, was cancelled", child.id);
                return Err(StepError::Fatal(Error::new(ErrorKind::Cancelled, message)));
            }
            // Time is no damage: it is tried anew as long as the verification has some.
            if failure.is_some_and(|f| f.cause == Some(CancelCause::Timeout)) {
                return Err(StepError::Retry(Error::new(ErrorKind::Storage, why)));
            }
            restored.findings.push(not_restorable(why));
        }
        self.drop_database(&scratch).await?;
        Ok(restored)
    }

    /// Whether a backup was dropped since the verification began; what is gone with the whole
    /// repository was not.
    async fn is_gone(
        &self,
        repository: &Repository,
        label: &SnapshotLabel,
        timestamp: &BackupTimestamp,
    ) -> Result<bool, StepError> {
        reach(repository).await?;
        let listed = repository.snapshot(label).await?;
        Ok(!listed.backups.iter().any(|b| b.timestamp == *timestamp))
    }

    /// The job that has restored a backup: one that was begun before a restart, or a new one.
    async fn restored_by(
        &self,
        request: &VerifyRequest,
        scratch: &DatabaseName,
        label: &SnapshotLabel,
        manifest: &Manifest,
    ) -> Result<Job, StepError> {
        let inner = &self.context.inner;
        let runner = Runner {
            inner: inner.clone(),
        };
        let known = JobFilter {
            cluster: Some(self.job.spec.cluster.to_string()),
            db_name: Some(scratch.to_string()),
            ..JobFilter::default()
        };
        // An attempt that was not admitted is none, and others may use the database, too.
        let mut known = inner.store.jobs(&known).await?;
        known.retain(|row| row.status != JobStatus::Refused && row.kind == JobKind::Restore);
        let mut ours = Vec::new();
        for row in known {
            let spec = inner.store.spec(row.job_id).await?;
            if spec.requester == Requester::Verification(self.job.id) {
                ours.push(row);
            }
        }
        // What one that has ended well made is gone if it was read and dropped before.
        let is_there = self.has_database(scratch).await?;
        let goes_on = |status| matches!(status, JobStatus::Queued | JobStatus::Running);
        let begun = ours.last().filter(|row| is_there || goes_on(row.status));
        let id = match begun {
            Some(row) => row.job_id,
            None => {
                let target = Target {
                    database: scratch.clone(),
                    label: label.clone(),
                    repository: request.repository.clone(),
                };
                let spec = JobSpec {
                    uid: JobUid::new(format!("{}-{scratch}-{}", self.job.spec.uid, ours.len()))?,
                    cluster: self.job.spec.cluster.clone(),
                    requester: Requester::Verification(self.job.id),
                    statement: String::new(),
                    timeout_seconds: self.job.spec.timeout_seconds,
                    max_bytes_per_second: self.job.pace(),
                    work: Work::Restore {
                        target,
                        request: whole(manifest),
                    },
                };
                self.context.go_on().await?;
                runner.admit(spec, false).await.map_err(StepError::Retry)?
            }
        };
        self.lead(&runner, id).await?;
        runner.wait(id).await;
        let job = inner.store.load(id).await?;
        if job.is_over() {
            Ok(job)
        } else {
            Err(cancelled())
        }
    }

    /// Waits for the end of a job, which is paused, resumed and paced as this one is. How it ended
    /// is read from the job.
    async fn lead(&self, runner: &Runner, id: JobId) -> Result<(), StepError> {
        let context = &self.context;
        let (mut paused, mut pace) = (context.paused.subscribe(), context.pace.subscribe());
        let by = || Speaker::Job { job: self.job.id };
        let mut ended = std::pin::pin!(runner.ended(id));
        loop {
            let event = tokio::select! {
                _ = &mut ended => return Ok(()),
                () = context.abandon.cancelled() => return Err(cancelled()),
                Ok(()) = paused.changed() => {
                    let is_paused = *paused.borrow_and_update();
                    if is_paused {
                        ControlEvent::Paused { by: by() }
                    } else {
                        ControlEvent::Resumed { by: by() }
                    }
                }
                Ok(()) = pace.changed() => {
                    let limit = *pace.borrow_and_update();
                    let pace = limit.map_or(Pace::Unlimited, Pace::BytesPerSecond);
                    ControlEvent::Paced { pace, by: by() }
                }
            };
            // It may have been told the same by somebody else, or have come to its commit.
            if let Err(error) = runner.control(id, event).await {
                tracing::debug!(%error, job_id = id.0, "a restore of a verification goes on as it does");
            }
        }
    }

    async fn has_database(&self, name: &DatabaseName) -> Result<bool, StepError> {
        let cluster = self.context.inner.cluster(&self.job.spec.cluster)?;
        let databases = cluster.managed()?.databases().await?;
        Ok(databases.iter().any(|database| database.name == *name))
    }

    async fn drop_database(&self, name: &DatabaseName) -> Result<(), StepError> {
        let cluster = self.context.inner.cluster(&self.job.spec.cluster)?;
        let managed = cluster.managed()?;
        let drop = Definition::DropDatabase {
            name: name.clone(),
            if_exists: true,
        };
        managed
            .define(&drop, Vec::new())
            .await
            .map_err(StepError::Retry)?;
        managed.tidy_up().await;
        Ok(())
    }

    /// After a cancellation: ends the jobs that restore, and drops what they have made.
    pub(super) async fn drop_scratch(&self) -> Result<(), StepError> {
        let inner = &self.context.inner;
        let runner = Runner {
            inner: inner.clone(),
        };
        let prefix = scratch_prefix(self.job);
        for id in inner.store.unfinished().await? {
            let spec = inner.store.spec(id).await?;
            if spec.requester != Requester::Verification(self.job.id) {
                continue;
            }
            runner.end_part(id).await.map_err(StepError::Retry)?;
        }
        let cluster = inner.cluster(&self.job.spec.cluster)?;
        for database in cluster.managed()?.databases().await? {
            if database.name.as_str().starts_with(&prefix) {
                self.drop_database(&database.name).await?;
            }
        }
        Ok(())
    }
}
