//! Copies of finished jobs' journals in their repositories, so that the history outlives the
//! gateway. What cannot be copied now is copied later; no job waits for it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Inner, Runner};
use crate::error::{Error, ErrorKind};
use crate::job::{JobEvent, JobJournal, JobSpec};
use crate::names::{ClusterName, JobId, RepositoryName};
use crate::repository::Location;
use crate::store::JobFilter;

/// Jobs that are looked up at a time.
const PAGE_JOBS: usize = 100;
/// How long until what failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// A repository that does not take one copy in this time is left for the next round.
const COPY_TIME_MAX: Duration = Duration::from_secs(60);

/// What became of a copy.
enum Copied {
    Done,
    /// It has no place, and never will have one.
    Never,
}

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
            let spec = match inner.store.spec(id).await {
                // What does not read here reads nowhere.
                Err(e) if e.kind == ErrorKind::Corrupted => {
                    inner.store.set_mirrored(id).await?;
                    continue;
                }
                spec => spec?,
            };
            let key = spec
                .work
                .repository()
                .map(|name| (spec.cluster.clone(), name.clone()));
            if key.as_ref().is_some_and(|key| failed.contains(key)) {
                continue;
            }
            let copied = tokio::select! {
                copied = copy(inner, id, spec) => copied,
                () = inner.env.clock.sleep(COPY_TIME_MAX) => {
                    Err(Error::new(
                        ErrorKind::Storage,
                        format!("no answer within {COPY_TIME_MAX:?}"),
                    ))
                }
                () = inner.stop.cancelled() => return Ok(false),
            };
            match copied {
                Ok(Copied::Done | Copied::Never) => inner.store.set_mirrored(id).await?,
                Err(e) if matches!(e.kind, ErrorKind::Corrupted | ErrorKind::LimitExceeded) => {
                    tracing::warn!(job_id = id.0, error = %e, "the journal of a job gets no copy in its repository");
                    inner.store.set_mirrored(id).await?;
                }
                Err(e) => {
                    tracing::warn!(job_id = id.0, error = %e, "the journal of a job cannot be copied into its repository");
                    failed.extend(key);
                }
            }
        }
    }
}

async fn copy(inner: &Inner, id: JobId, spec: JobSpec) -> Result<Copied, Error> {
    let is_managed = inner
        .cluster(&spec.cluster)
        .is_ok_and(|cluster| cluster.managed().is_ok());
    let Some(name) = spec.work.repository().filter(|_| is_managed) else {
        return Ok(Copied::Never);
    };
    let record = inner.store.find_repository(&spec.cluster, name).await?;
    let Some(record) = record.filter(|record| !record.read_only) else {
        return Ok(Copied::Never);
    };
    let filter = JobFilter {
        job_id: Some(id),
        ..JobFilter::default()
    };
    let rows = inner.store.jobs(&filter).await?;
    let Some(created_at) = rows.first().map(|row| row.created_at) else {
        return Ok(Copied::Never);
    };
    let mut events = Vec::new();
    for row in inner.store.events(id..=id).await? {
        let Ok(event) = serde_json::from_str::<JobEvent>(&row.event) else {
            return Ok(Copied::Never);
        };
        events.push((row.at, event));
    }
    let location = Location {
        url: record.location,
        properties: record.properties,
    };
    let repository = inner.open.open(name, &location)?;
    let journal = JobJournal {
        spec,
        created_at,
        events,
    };
    let body = journal.encode()?;
    repository.put_history(&journal.spec.uid, body).await?;
    Ok(Copied::Done)
}
