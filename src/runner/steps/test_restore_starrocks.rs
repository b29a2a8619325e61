//! A backup of a StarRocks cluster restored to see whether it can be: by a job of the cluster's, into
//! a database that nobody else uses, which is read and dropped.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::test_restore::{cancelled, scratch_of, scratch_prefix};
use super::{Attempt, misplaced};
use crate::cluster::{Cluster, DatabaseChange, ExternalCluster, SendError, StepError};
use crate::error::{Error, ErrorKind};
use crate::job::{
    BackupName, CancelCause, End, ExternalRequest, Finding, FindingKind, Job, JobKind, JobSpec,
    Requester, TestRestore, VerifyReport, VerifyRequest, Work,
};
use crate::names::{DatabaseName, JobUid, TableName, TaskId};
use crate::repository::{Info, StarRocksRepository};
use crate::runner::Runner;
use crate::statement::{ObjectRef, Partitions, Properties, Qualified, RestoreSnapshot, TableRef};
use crate::store::JobFilter;

/// The shortest timeout of a job that StarRocks takes, seconds.
const TIMEOUT_MIN: u64 = 600;

/// Whether a restore has failed because the cluster has no room for it.
fn is_of_cluster(why: &str) -> bool {
    let words = [
        "different hosts to create table",
        "capacity",
        "Failed to create replicas",
    ];
    words.into_iter().any(|words| why.contains(words))
}

/// What is said to the cluster: every table of the backup, each partition once.
fn statement_of(
    request: &VerifyRequest,
    backup: &BackupName,
    scratch: &DatabaseName,
    tables: &[TableName],
    timeout_seconds: u64,
) -> RestoreSnapshot {
    let table = |name: &TableName| {
        ObjectRef::Untyped(TableRef {
            table: Qualified {
                database: None,
                name: name.clone(),
            },
            partitions: Partitions::All,
            alias: None,
        })
    };
    let properties = [
        ("backup_timestamp", backup.timestamp.to_string()),
        // One copy proves as much as three.
        ("replication_num", "1".to_owned()),
        ("timeout", timeout_seconds.max(TIMEOUT_MIN).to_string()),
    ];
    let properties = properties.map(|(key, value)| (key.to_owned(), value));
    RestoreSnapshot {
        label: Qualified {
            database: Some(scratch.clone()),
            name: backup.label.clone(),
        },
        repository: request.repository.clone(),
        cluster: None,
        catalogs: None,
        database: None,
        objects: Some(tables.iter().map(table).collect()),
        properties: Properties(properties.into()),
    }
}

impl Attempt<'_> {
    /// Restores one backup of a StarRocks cluster, reads it and drops it; one after the other, as
    /// each takes as much room as its tables.
    pub(super) async fn test_restore_starrocks(
        &self,
        request: &VerifyRequest,
        report: &Arc<VerifyReport>,
        task: TaskId,
        cluster: &Arc<dyn Cluster>,
    ) -> Result<TestRestore, StepError> {
        let external = cluster.external().ok_or_else(misplaced)?;
        let _alone = self.context.restoring.lock().await;
        self.context.go_on().await?;
        let TaskId(place) = task;
        let backup = &report.backups[place as usize];
        let BackupName { label, timestamp } = backup;
        let (repository, _) = self.starrocks_repository().await?;
        let not_restorable = |detail: String| Finding {
            kind: FindingKind::NotRestorable,
            object: format!("{label}/{timestamp}"),
            backups: vec![place as u32],
            detail,
        };
        let mut restored = TestRestore::default();
        let Some(info) = self.stored_info(&repository, backup).await? else {
            return Ok(restored);
        };
        let info = match info {
            Ok(info) => info,
            Err(error) => {
                restored.findings.push(not_restorable(error.message));
                return Ok(restored);
            }
        };
        let tables = info.backup_objects.iter();
        let tables = tables.filter(|(_, table)| !table.partitions.is_empty());
        let tables = tables.map(|(name, _)| TableName::new(name.as_str()));
        let tables = tables.collect::<Result<Vec<_>, Error>>()?;
        if tables.is_empty() {
            return Ok(restored);
        }
        let scratch = scratch_of(self.job, task)?;
        let statement = statement_of(
            request,
            backup,
            &scratch,
            &tables,
            self.job.spec.timeout_seconds,
        );
        let child = self
            .starrocks_child(request, backup, &scratch, statement, external)
            .await?;
        restored.job_id = Some(child.id);
        cluster.forget_names();
        if child.end() == Some(End::Finished) {
            let (began, ended) = (child.created_at, child.record.finished_at);
            let took = ended.map_or(0, |ended| ended.0 - began.0);
            restored.took_ms = Some(u64::try_from(took).unwrap_or(0));
            let (rows, differences) = self
                .compared(external, &scratch, &info, &tables)
                .await
                .map_err(StepError::Retry)?;
            restored.rows = rows;
            let findings = differences.into_iter().map(not_restorable);
            findings.for_each(|finding| restored.findings.push(finding));
        } else {
            let failure = child.record.failure.as_ref();
            let why = failure.map(|f| f.message.clone()).unwrap_or_default();
            match failure.and_then(|f| f.cause) {
                Some(CancelCause::User | CancelCause::Dropped) => {
                    let message =
                        format!("job {}, which restores a backup, was cancelled", child.id);
                    return Err(StepError::Fatal(Error::new(ErrorKind::Cancelled, message)));
                }
                // Time is no damage, and what nobody can tell is none either.
                Some(CancelCause::Timeout) => {
                    return Err(StepError::Fatal(Error::new(ErrorKind::Cancelled, why)));
                }
                // The cluster would not, or could not: that says nothing of the backup.
                None if child.end() != Some(End::Failed) || is_of_cluster(&why) => {
                    return Err(StepError::Fatal(Error::new(ErrorKind::Remote, why)));
                }
                None if self.stored_info(&repository, backup).await?.is_some() => {
                    restored.findings.push(not_restorable(why));
                }
                // It was dropped meanwhile.
                None => {}
            }
        }
        self.drop_starrocks_database(external, &scratch).await?;
        Ok(restored)
    }

    /// What the `__info_` file of a backup says, or what is wrong with it; nothing if it was dropped
    /// since the verification began.
    async fn stored_info(
        &self,
        repository: &StarRocksRepository,
        backup: &BackupName,
    ) -> Result<Option<Result<Info, Error>>, StepError> {
        repository.ping().await.map_err(StepError::Retry)?;
        let stored = repository.label(backup.label.as_str()).await?;
        let mut infos = stored.infos.iter();
        let Some(info) = infos.find(|info| info.timestamp == backup.timestamp.as_str()) else {
            return Ok(None);
        };
        match repository.info(info).await {
            Ok(info) => Ok(Some(Ok(info))),
            Err(e) if e.kind == ErrorKind::Corrupted => Ok(Some(Err(e))),
            Err(e) => Err(StepError::Retry(e)),
        }
    }

    /// The job that has restored a backup, which is over: one that was begun before a restart, or a
    /// new one.
    async fn starrocks_child(
        &self,
        request: &VerifyRequest,
        backup: &BackupName,
        scratch: &DatabaseName,
        statement: RestoreSnapshot,
        external: &dyn ExternalCluster,
    ) -> Result<Job, StepError> {
        let inner = &self.context.inner;
        let runner = Runner {
            inner: inner.clone(),
        };
        let uid = JobUid::new(format!("{}-{scratch}", self.job.spec.uid))?;
        let known = JobFilter {
            cluster: Some(self.job.spec.cluster.to_string()),
            db_name: Some(scratch.to_string()),
            kind: Some(JobKind::Restore),
            ..JobFilter::default()
        };
        let mut begun = None;
        for row in inner.store.jobs(&known).await? {
            if inner.store.spec(row.job_id).await?.uid == uid {
                begun = Some(row.job_id);
            }
        }
        let id = match begun {
            Some(id) => id,
            None => {
                self.context.go_on().await?;
                let create = external.database_change(scratch, DatabaseChange::Create)?;
                self.send_change(external, &create).await?;
                let objects = statement.objects.iter().flatten();
                let named = objects.filter_map(|object| match object {
                    ObjectRef::Untyped(t) => Some(format!("{scratch}.{}", t.table.name)),
                    _ => None,
                });
                let spec = JobSpec {
                    uid,
                    cluster: self.job.spec.cluster.clone(),
                    requester: Requester::Verification(self.job.id),
                    statement: String::new(),
                    timeout_seconds: self.job.spec.timeout_seconds,
                    max_bytes_per_second: None,
                    work: Work::External(Box::new(ExternalRequest {
                        kind: JobKind::Restore,
                        database: scratch.clone(),
                        label: backup.label.clone(),
                        repository: Some(request.repository.clone()),
                        objects: named.collect(),
                        statement: statement.to_string(),
                        queue: true,
                        catalogs: false,
                        timestamp: Some(backup.timestamp.to_string()),
                        external: None,
                        expected: Vec::new(),
                        base: None,
                    })),
                };
                runner.admit(spec, false).await.map_err(StepError::Retry)?
            }
        };
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

    /// Rows that were read, and in what the restored tables are not what the backup has.
    async fn compared(
        &self,
        external: &dyn ExternalCluster,
        scratch: &DatabaseName,
        info: &Info,
        tables: &[TableName],
    ) -> Result<(u64, Vec<String>), Error> {
        let there = external.contents(scratch, tables).await?;
        let (mut rows, mut differences) = (0, Vec::new());
        for table in tables {
            let Some(found) = there.iter().find(|found| found.table == *table) else {
                differences.push(format!("table {table} was not restored"));
                continue;
            };
            let wanted = info.backup_objects.get(table.as_str());
            let wanted: BTreeSet<&str> = wanted
                .iter()
                .flat_map(|table| table.partitions.keys().map(String::as_str))
                .collect();
            let names: BTreeSet<&str> = found.partitions.iter().map(|p| p.name.as_str()).collect();
            // What the cluster adds by itself is none of the backup's.
            let missing: Vec<&str> = wanted.difference(&names).copied().collect();
            let is_unpartitioned = wanted.len() == 1 && names.len() == 1;
            if !missing.is_empty() && !is_unpartitioned {
                differences.push(format!(
                    "table {table} lacks partitions: {}",
                    missing.join(", ")
                ));
            }
            match external.count_rows(scratch, table.as_str(), &[]).await {
                Ok(count) => rows += count,
                Err(e) if e.kind == ErrorKind::Connection => return Err(e),
                Err(e) => differences.push(format!("table {table} does not read: {}", e.message)),
            }
        }
        Ok((rows, differences))
    }

    /// Sends a statement that may be said twice.
    async fn send_change(
        &self,
        external: &dyn ExternalCluster,
        sql: &str,
    ) -> Result<(), StepError> {
        let sent = external.send(sql).await.map_err(SendError::into_error);
        sent.map_err(|e| StepError::Retry(e.printed_as(sql)))
    }

    async fn drop_starrocks_database(
        &self,
        external: &dyn ExternalCluster,
        scratch: &DatabaseName,
    ) -> Result<(), StepError> {
        let drop = external.database_change(scratch, DatabaseChange::Drop)?;
        self.send_change(external, &drop).await
    }

    /// After a cancellation: ends the jobs that restore, and drops what they have made.
    pub(super) async fn drop_starrocks_scratch(&self) -> Result<(), StepError> {
        let inner = &self.context.inner;
        let runner = Runner {
            inner: inner.clone(),
        };
        for id in inner.store.unfinished().await? {
            if inner.store.spec(id).await?.requester != Requester::Verification(self.job.id) {
                continue;
            }
            runner.end_part(id).await.map_err(StepError::Retry)?;
        }
        let cluster = inner.cluster(&self.job.spec.cluster)?;
        let external = cluster.external().ok_or_else(misplaced)?;
        let prefix = scratch_prefix(self.job);
        cluster.forget_names();
        cluster.refresh().await.map_err(StepError::Retry)?;
        let names = cluster.catalog().schema_names().into_iter();
        for name in names.filter(|name| name.starts_with(&prefix)) {
            self.drop_starrocks_database(external, &DatabaseName::new(name)?)
                .await?;
        }
        cluster.forget_names();
        Ok(())
    }
}
