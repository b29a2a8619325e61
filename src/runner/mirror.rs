//! Copies of finished jobs' journals in their repositories, so that the history outlives the
//! gateway. What cannot be copied now is copied later; no job waits for it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Inner, Runner};
use crate::error::{Error, ErrorKind};
use crate::job::{JobEvent, JobJournal};
use crate::names::{ClusterName, JobId, RepositoryName};
use crate::repository::HISTORY_BYTES_MAX;
use crate::store::JobFilter;

/// Jobs that are looked up at a time.
const PAGE_JOBS: usize = 100;
/// How long until what failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// A repository that does not take one copy in this time is left for the next round.
const COPY_TIME_MAX: Duration = Duration::from_secs(60);

impl Runner {
    /// Puts copies of the journals of jobs that are over into their repositories, from now on and
    /// of what is missing there.
    pub fn mirror_history(&self) {
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            loop {
                let is_complete = match round(&inner).await {
                    Ok(is_complete) => is_complete,
                    Err(e) => {
                        tracing::warn!(error = %e, "the history cannot be mirrored");
                        false
                    }
                };
                let retry = async {
                    if is_complete {
                        std::future::pending::<()>().await;
                    }
                    inner.env.clock.sleep(RETRY_INTERVAL).await;
                };
                tokio::select! {
                    () = inner.over.notified() => {}
                    () = retry => {}
                    () = inner.stop.cancelled() => return,
                }
            }
        });
    }
}

/// Copies what is missing; `false`: something is still to be done.
async fn round(inner: &Inner) -> Result<bool, Error> {
    let mut failed: BTreeSet<(ClusterName, RepositoryName)> = BTreeSet::new();
    let mut after = JobId(0);
    loop {
        let page = inner.store.unmirrored(after, PAGE_JOBS).await?;
        let Some(last) = page.last() else {
            return Ok(failed.is_empty());
        };
        after = *last;
        for id in page {
            let journal = match journal(inner, id).await {
                // What does not read here reads nowhere.
                Err(e) if e.kind == ErrorKind::Corrupted => {
                    tracing::warn!(job_id = id.0, error = %e, "the journal of a job gets no copy in its repository");
                    inner.store.set_mirrored(id).await?;
                    continue;
                }
                journal => journal?,
            };
            let spec = &journal.spec;
            let key = spec
                .work
                .repository()
                .map(|name| (spec.cluster.clone(), name.clone()));
            if key.as_ref().is_some_and(|key| failed.contains(key)) {
                continue;
            }
            let copied = tokio::select! {
                copied = copy(inner, &journal) => copied,
                () = inner.env.clock.sleep(COPY_TIME_MAX) => {
                    Err(Error::new(
                        ErrorKind::Storage,
                        format!("no answer within {COPY_TIME_MAX:?}"),
                    ))
                }
                () = inner.stop.cancelled() => return Ok(false),
            };
            match copied {
                Ok(()) => inner.store.set_mirrored(id).await?,
                Err(e) => {
                    tracing::warn!(job_id = id.0, error = %e, "the journal of a job cannot be copied into its repository");
                    failed.extend(key);
                }
            }
        }
    }
}

/// What is known of a job. XX001 if it does not read.
async fn journal(inner: &Inner, id: JobId) -> Result<JobJournal, Error> {
    let spec = inner.store.spec(id).await?;
    let filter = JobFilter {
        job_id: Some(id),
        ..JobFilter::default()
    };
    let rows = inner.store.jobs(&filter).await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::new(ErrorKind::Corrupted, format!("job {} has no row", id.0)))?;
    let mut events = Vec::new();
    for row in inner.store.events(id..=id).await? {
        let event = serde_json::from_str::<JobEvent>(&row.event).map_err(|e| {
            Error::new(
                ErrorKind::Corrupted,
                format!("an event of job {} is damaged: {e}", id.0),
            )
        })?;
        events.push((row.at, event));
    }
    Ok(JobJournal {
        spec,
        created_at: row.created_at,
        events,
    })
}

/// Puts a copy into the job's repository, where it has one that may be written to.
async fn copy(inner: &Inner, journal: &JobJournal) -> Result<(), Error> {
    let spec = &journal.spec;
    let is_managed = inner
        .cluster(&spec.cluster)
        .is_ok_and(|cluster| cluster.managed().is_ok());
    let Some(name) = spec.work.repository().filter(|_| is_managed) else {
        return Ok(());
    };
    let record = inner.store.find_repository(&spec.cluster, name).await?;
    let Some(record) = record.filter(|record| !record.read_only) else {
        return Ok(());
    };
    let body = journal.encode()?;
    if body.len() as u64 > HISTORY_BYTES_MAX {
        tracing::warn!(uid = %spec.uid, bytes = body.len(), "the journal of a job is too large for a copy in its repository");
        return Ok(());
    }
    let repository = inner.repository(&record)?;
    repository.put_history(&spec.uid, body).await
}
