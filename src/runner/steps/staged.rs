//! The steps of a restore on a StarRocks cluster that touches nothing which is there before all is
//! restored: the proof, and the jobs that restore. What is done with the tables is in `place`.

mod place;

use self::place::Left;
use super::{Attempt, misplaced};
use crate::cluster::{ExternalCluster, SendError, StepError, TableChange};
use crate::error::{Error, ErrorKind};
use crate::job::{
    ExternalRequest, Failure, Job, JobKind, JobSpec, JobStatus, Requester, StagedCommand,
    StagedEvent, StagedPart, StagedRequest, StagedState, StagedStep, VerifyLevel, VerifyRequest,
    Work,
};
use crate::names::{JobUid, TableName};
use crate::repository::StarRocksRepository;
use crate::runner::Runner;
use crate::statement::{ObjectRef, Partitions, Properties, Qualified, RestoreSnapshot, TableRef};
use crate::store::{JobFilter, Span};

/// What was tried so often will not go the next time either.
const TRIES: u32 = 3;
/// The shortest timeout of a job that StarRocks takes, seconds.
const TIMEOUT_MIN: u64 = 600;

fn undefined(message: String) -> StepError {
    StepError::Fatal(Error::new(ErrorKind::UndefinedObject, message))
}

/// The table that one snapshot's part of a table is restored into: its name tells whose it is, and
/// nobody can guess it.
fn scratch_of(job: &Job, table: usize, step: usize) -> Result<TableName, Error> {
    let random: String = job
        .spec
        .uid
        .as_str()
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect();
    TableName::new(format!("restore_{}_{random}_{table}_{step}", job.id))
}

/// What is said to the cluster for one part of the restore.
fn statement_of(
    request: &StagedRequest,
    step: &StagedStep,
    timeout_seconds: u64,
    scratch: impl Fn(&TableName) -> Result<TableName, Error>,
) -> Result<RestoreSnapshot, Error> {
    let objects = step.parts.iter().map(|part| {
        let StagedPart {
            table,
            partitions,
            is_whole,
        } = part;
        let partitions = match is_whole {
            true => Partitions::All,
            false => Partitions::Named {
                temporary: false,
                names: partitions.iter().map(|(name, _)| name.clone()).collect(),
            },
        };
        Ok(ObjectRef::Untyped(TableRef {
            table: Qualified {
                database: None,
                name: table.clone(),
            },
            partitions,
            alias: Some(scratch(table)?),
        }))
    });
    let properties = [
        ("backup_timestamp", step.timestamp.to_string()),
        ("replication_num", request.replication_num.to_string()),
        ("timeout", timeout_seconds.max(TIMEOUT_MIN).to_string()),
    ];
    let properties = properties.map(|(key, value)| (key.to_owned(), value));
    Ok(RestoreSnapshot {
        label: Qualified {
            database: Some(request.target.database.clone()),
            name: step.label.clone(),
        },
        repository: request.target.repository.clone(),
        catalogs: None,
        database: None,
        objects: Some(objects.collect::<Result<_, Error>>()?),
        properties: Properties(properties.into()),
        cluster: None,
    })
}

impl Attempt<'_> {
    pub(super) async fn staged(
        &self,
        request: &StagedRequest,
        state: &StagedState,
        command: StagedCommand,
    ) -> Result<StagedEvent, StepError> {
        let cluster = self.context.inner.cluster(&self.job.spec.cluster)?;
        let gone = || Error::new(ErrorKind::Connection, "the cluster does no jobs of its own");
        let external = cluster.external().ok_or_else(gone)?;
        let done = match (command, state) {
            (StagedCommand::Prove, StagedState::Pending) => self.prove(request).await,
            (StagedCommand::Restore(n), StagedState::Staging { done, .. }) if n == *done => {
                self.restore_beside(request, n as usize, external).await
            }
            (StagedCommand::Join(n), StagedState::Joining { done, .. }) if n == *done => {
                self.join(request, n as usize, external).await
            }
            (StagedCommand::Count, StagedState::Staged) => self.count(request, external).await,
            (StagedCommand::Swap(n), StagedState::Swapping { tables, done }) if n == *done => {
                self.put_in_place(request, tables, n as usize, external)
                    .await
            }
            (StagedCommand::Release, StagedState::Finished { tables, .. }) => {
                let left = Left::Replaced(tables);
                self.drop_scratch_tables(request, left, external).await
            }
            (StagedCommand::Release, StagedState::Cancelled { restored, .. }) => {
                self.end_children(request, external).await?;
                let left = restored
                    .as_ref()
                    .map_or(Left::Unfinished, |r| Left::Restored(r));
                self.drop_scratch_tables(request, left, external).await
            }
            _ => Err(misplaced()),
        };
        cluster.forget_names();
        done
    }

    /// Whether every snapshot that is needed is whole, from what is stored alone.
    async fn prove(&self, request: &StagedRequest) -> Result<StagedEvent, StepError> {
        let (repository, _) = self.starrocks_repository().await?;
        for step in &request.steps {
            self.prove_step(request, step, &repository).await?;
        }
        Ok(StagedEvent::Proved {
            steps: request.steps.len() as u32,
            joins: request.joins().len() as u32,
        })
    }

    async fn prove_step(
        &self,
        request: &StagedRequest,
        step: &StagedStep,
        repository: &StarRocksRepository,
    ) -> Result<(), StepError> {
        let StagedStep {
            label, timestamp, ..
        } = step;
        let wanted = VerifyRequest {
            repository: request.target.repository.clone(),
            label: Some(label.clone()),
            level: VerifyLevel::Files,
            sample: crate::job::SAMPLE_ALL,
        };
        let tolerant = self.attempts >= TRIES;
        let planned = repository.plan_verification(&wanted, tolerant, None).await;
        let (plan, _) = planned.map_err(|e| match e.kind {
            ErrorKind::UndefinedObject | ErrorKind::LimitExceeded => StepError::Fatal(e),
            _ => StepError::Retry(e),
        })?;
        let place = plan.backups.iter().position(|b| b.timestamp == *timestamp);
        let Some(place) = place else {
            return Err(undefined(format!(
                "there is no backup {label} of {timestamp}"
            )));
        };
        let damage =
            plan.findings.kept().iter().find(|finding| {
                finding.kind.is_damage() && finding.backups.contains(&(place as u32))
            });
        if let Some(finding) = damage {
            let message = format!("snapshot {label} is not whole, and nothing was restored");
            let detail = format!("{}: {}", finding.object, finding.detail);
            return Err(StepError::Fatal(
                Error::new(ErrorKind::Corrupted, message).detail(detail),
            ));
        }
        let stored = repository.label(label.as_str()).await?;
        let mut infos = stored.infos.iter();
        let Some(info) = infos.find(|info| info.timestamp == timestamp.as_str()) else {
            return Err(undefined(format!(
                "there is no backup {label} of {timestamp}"
            )));
        };
        let info = repository.info(info).await.map_err(|e| match e.kind {
            ErrorKind::Corrupted if tolerant => StepError::Fatal(e),
            _ => StepError::Retry(e),
        })?;
        for part in &step.parts {
            let table = info.backup_objects.get(part.table.as_str());
            for (partition, version) in &part.partitions {
                let there = table.and_then(|t| t.partitions.get(partition.as_str()));
                let Some(there) = there else {
                    return Err(undefined(format!(
                        "snapshot {label} has no partition {partition} of table {}",
                        part.table
                    )));
                };
                if version.is_some_and(|version| version != there.version) {
                    let message = format!(
                        "snapshot {label} has another version of partition {partition} of table {}",
                        part.table
                    );
                    let detail = format!(
                        "Version {} instead of {}.",
                        there.version,
                        version.unwrap_or_default()
                    );
                    return Err(StepError::Fatal(
                        Error::new(ErrorKind::WrongState, message).detail(detail),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The table that a step restores its part of a table into.
    fn scratch(
        &self,
        request: &StagedRequest,
        table: &TableName,
        step: usize,
    ) -> Result<TableName, Error> {
        let place = request.tables.iter().position(|t| t.name == *table);
        let place = place.ok_or_else(|| Error::internal("a restore has a table of no place"))?;
        scratch_of(self.job, place, step)
    }

    /// Restores one snapshot beside what is there.
    async fn restore_beside(
        &self,
        request: &StagedRequest,
        place: usize,
        external: &dyn ExternalCluster,
    ) -> Result<StagedEvent, StepError> {
        let step = request.steps.get(place).ok_or_else(misplaced)?;
        let child = self.child_of(request, step, place).await?;
        if child.end() == Some(crate::job::End::Finished) {
            let dynamic = self.hold_partitions(request, place, external).await?;
            return Ok(StagedEvent::Restored {
                job_id: child.id,
                dynamic,
            });
        }
        let failure = child.record.failure.unwrap_or_else(|| {
            let message = format!("job {} has not restored snapshot {}", child.id, step.label);
            Failure::of(&Error::new(ErrorKind::Remote, message))
        });
        Ok(StagedEvent::Cancelled { failure })
    }

    /// Keeps the cluster from making and dropping partitions of what was just restored; the tables
    /// in which it would.
    async fn hold_partitions(
        &self,
        request: &StagedRequest,
        place: usize,
        external: &dyn ExternalCluster,
    ) -> Result<Vec<TableName>, StepError> {
        let database = &request.target.database;
        let mut dynamic = Vec::new();
        for part in &request.steps[place].parts {
            let scratch = self.scratch(request, &part.table, place)?;
            let has_dynamic = external.has_dynamic_partitions(database, scratch.as_str());
            if !has_dynamic.await.map_err(StepError::Retry)? {
                continue;
            }
            let change = TableChange::Dynamic {
                table: scratch.as_str(),
                enable: false,
            };
            let sql = external.table_change(database, change)?;
            let sent = external.send(&sql).await.map_err(SendError::into_error);
            sent.map_err(|e| StepError::Retry(e.printed_as(&sql)))?;
            dynamic.push(part.table.clone());
        }
        Ok(dynamic)
    }

    /// The job that restores one snapshot, which is over: one that was begun before a restart, or a
    /// new one.
    async fn child_of(
        &self,
        request: &StagedRequest,
        step: &StagedStep,
        place: usize,
    ) -> Result<Job, StepError> {
        let inner = &self.context.inner;
        let runner = Runner {
            inner: inner.clone(),
        };
        let uid = JobUid::new(format!("{}-{place}", self.job.spec.uid))?;
        let known = JobFilter {
            cluster: Some(self.job.spec.cluster.to_string()),
            db_name: Some(request.target.database.to_string()),
            snapshot: Some(step.label.to_string()),
            kind: Some(JobKind::Restore),
            ids: Span {
                from: Some(self.job.id),
                to: None,
            },
            ..JobFilter::default()
        };
        let mut begun = None;
        for row in inner.store.jobs(&known).await? {
            let is_other = row.job_id == self.job.id || row.status == JobStatus::Refused;
            if !is_other && inner.store.spec(row.job_id).await?.uid == uid {
                begun = Some(row.job_id);
            }
        }
        let id = match begun {
            Some(id) => id,
            None => {
                let spec = self.child_spec(request, step, place, uid)?;
                self.context.go_on().await?;
                runner.admit(spec, false).await.map_err(StepError::Retry)?
            }
        };
        let cancelled =
            || StepError::Retry(Error::new(ErrorKind::Cancelled, "the job was cancelled"));
        tokio::select! {
            () = runner.wait(id) => {}
            () = self.context.abandon.cancelled() => return Err(cancelled()),
        }
        let job = inner.store.load(id).await?;
        if job.is_over() {
            Ok(job)
        } else {
            Err(cancelled())
        }
    }

    fn child_spec(
        &self,
        request: &StagedRequest,
        step: &StagedStep,
        place: usize,
        uid: JobUid,
    ) -> Result<JobSpec, Error> {
        let database = &request.target.database;
        let timeout_seconds = self.job.spec.timeout_seconds;
        let scratch = |table: &TableName| self.scratch(request, table, place);
        let restore = statement_of(request, step, timeout_seconds, scratch)?;
        let shown = step.parts.iter().map(|part| {
            let names = part.partitions.iter().map(|(name, _)| name.as_str());
            let names = names.collect::<Vec<_>>().join(", ");
            let partitions = match part.is_whole {
                true => String::new(),
                false => format!(" PARTITION ({names})"),
            };
            let scratch = scratch(&part.table)?;
            Ok(format!(
                "{database}.{}{partitions} AS {scratch}",
                part.table
            ))
        });
        Ok(JobSpec {
            uid,
            cluster: self.job.spec.cluster.clone(),
            requester: Requester::Staging(self.job.id),
            statement: String::new(),
            timeout_seconds,
            max_bytes_per_second: None,
            work: Work::External(Box::new(ExternalRequest {
                kind: JobKind::Restore,
                database: database.clone(),
                label: step.label.clone(),
                repository: Some(request.target.repository.clone()),
                statement: restore.to_string(),
                objects: shown.collect::<Result<_, Error>>()?,
                queue: true,
                catalogs: false,
                timestamp: Some(step.timestamp.to_string()),
                external: None,
                expected: Vec::new(),
                base: None,
            })),
        })
    }

    /// Ends the jobs of a restore that was given up, and waits until the cluster has none of them.
    async fn end_children(
        &self,
        request: &StagedRequest,
        external: &dyn ExternalCluster,
    ) -> Result<(), StepError> {
        let inner = &self.context.inner;
        let runner = Runner {
            inner: inner.clone(),
        };
        for id in inner.store.unfinished().await? {
            if inner.store.spec(id).await?.requester != Requester::Staging(self.job.id) {
                continue;
            }
            runner.end_part(id).await.map_err(StepError::Retry)?;
        }
        // Of one that was lost nobody knows; what it restores would come after it was dropped.
        let slot = external.slot(&request.target.database).await;
        let Some(slot) = slot.map_err(StepError::Retry)? else {
            return Ok(());
        };
        let is_one = |step: &StagedStep| {
            let time = slot.seen.timestamp.as_deref();
            step.label.as_str() == slot.seen.label
                && time.is_none_or(|time| time == step.timestamp.as_str())
        };
        let is_ours = slot.kind == JobKind::Restore && request.steps.iter().any(is_one);
        if is_ours && !slot.seen.phase().is_over() {
            let message = "the cluster is still restoring";
            return Err(StepError::Retry(Error::new(ErrorKind::WrongState, message)));
        }
        Ok(())
    }
}
