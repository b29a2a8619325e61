//! What a restore reads is kept from the PRUNE of another gateway: it is named in the repository,
//! and named anew for as long as the job is under way.
//!
//! A restore does not depend on it. Who may only read a repository, or whose repository has no room
//! left, restores all the same, and finds out if a file goes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Inner;
use crate::error::{Error, ErrorKind};
use crate::job::{Job, RestorePlan};
use crate::names::{ClusterName, JobId, JobUid, RepositoryName};
use crate::repository::Repository;

/// How often a lease is put anew.
const RENEWED_EVERY: Duration = Duration::from_secs(3600);
/// How soon what failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// Storage that does not answer in this time holds up no restore.
const PUT_TIME_MAX: Duration = Duration::from_secs(30);
/// The same for the end of a job.
const END_TIME_MAX: Duration = Duration::from_secs(3);

/// A lease that is renewed until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    ends: DropGuard,
    renewing: Option<JoinHandle<()>>,
}

/// Who reads, and from where.
#[derive(Clone, Debug)]
struct Reader {
    job: JobId,
    uid: JobUid,
    cluster: ClusterName,
    repository: RepositoryName,
}

impl Reader {
    fn of(job: &Job) -> Option<Self> {
        Some(Self {
            job: job.id,
            uid: job.spec.uid.clone(),
            cluster: job.spec.cluster.clone(),
            repository: job.spec.work.repository()?.clone(),
        })
    }

    /// Its repository, if leases can be put there.
    async fn repository(&self, inner: &Inner) -> Result<Option<Arc<Repository>>, Error> {
        let record = inner
            .store
            .repository(&self.cluster, &self.repository)
            .await?;
        if record.read_only {
            return Ok(None);
        }
        inner.repository(&record).map(Some)
    }

    /// Puts its lease.
    async fn put(self, inner: Arc<Inner>, plan: Arc<RestorePlan>) -> Result<(), Error> {
        let Some(repository) = self.repository(&inner).await? else {
            return Ok(());
        };
        let files = plan.tablets().flat_map(|tablet| &tablet.files);
        repository.put_lease(&self.uid, files).await
    }
}

/// Who puts a lease. One put at a time: storage that hangs may hold what it was given for ever.
struct Putter {
    inner: Arc<Inner>,
    reader: Reader,
    plan: Arc<RestorePlan>,
    under_way: Option<JoinHandle<Result<(), Error>>>,
}

impl Putter {
    /// Whether the lease stands now.
    async fn put(&mut self) -> bool {
        let putting = self.under_way.get_or_insert_with(|| {
            let (inner, plan) = (self.inner.clone(), self.plan.clone());
            tokio::spawn(self.reader.clone().put(inner, plan))
        });
        let ended = async {
            let ended = putting.await;
            ended.map_err(|e| Error::internal(format!("a lease died: {e}")))?
        };
        let put = tokio::select! {
            put = ended => {
                self.under_way = None;
                put
            }
            () = self.inner.env.clock.sleep(PUT_TIME_MAX) => Err(no_answer(PUT_TIME_MAX)),
        };
        if let Err(error) = &put {
            tracing::warn!(job_id = self.reader.job.0, %error, "what this restore reads cannot be kept from a PRUNE of another gateway");
        }
        put.is_ok()
    }

    /// Puts it again and again, until the end.
    async fn renew(mut self, mut wait: Duration, end: CancellationToken) {
        let stop = self.inner.stop.clone();
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = self.inner.env.clock.sleep(wait) => {}
            }
            // Its end waits for it, for a while; the server does not.
            let stands = tokio::select! {
                put = self.put() => put,
                () = stop.cancelled() => return,
            };
            wait = if stands { RENEWED_EVERY } else { RETRY_AFTER };
        }
    }
}

impl Lease {
    /// Puts the lease of a job that has just been planned, and renews it; whether it stands now.
    pub async fn begin(inner: &Arc<Inner>, job: &Job, plan: &Arc<RestorePlan>) -> (Self, bool) {
        let Some(mut putter) = putter(inner, job, plan) else {
            return (Self::none(inner), false);
        };
        let stands = putter.put().await;
        let wait = if stands { RENEWED_EVERY } else { RETRY_AFTER };
        (Self::renewed(putter, wait), stands)
    }

    /// Goes on with the lease of a job that is taken up again.
    pub fn resume(inner: &Arc<Inner>, job: &Job, plan: &Arc<RestorePlan>) -> Self {
        match putter(inner, job, plan) {
            Some(putter) => Self::renewed(putter, Duration::ZERO),
            None => Self::none(inner),
        }
    }

    fn none(inner: &Inner) -> Self {
        Self {
            ends: inner.stop.child_token().drop_guard(),
            renewing: None,
        }
    }

    fn renewed(putter: Putter, wait: Duration) -> Self {
        let inner = putter.inner.clone();
        let end = inner.stop.child_token();
        let ends = end.clone().drop_guard();
        let renewing = inner.tasks.spawn(putter.renew(wait, end));
        Self {
            ends,
            renewing: Some(renewing),
        }
    }
}

fn putter(inner: &Arc<Inner>, job: &Job, plan: &Arc<RestorePlan>) -> Option<Putter> {
    Some(Putter {
        inner: inner.clone(),
        reader: Reader::of(job)?,
        plan: plan.clone(),
        under_way: None,
    })
}

/// Takes the lease of a job that is over away. What cannot be taken away just now ends by itself.
pub(super) async fn end(inner: &Inner, job: &Job, lease: Option<Lease>) {
    let Some(reader) = Reader::of(job) else {
        return;
    };
    let ending = async {
        if let Some(Lease { ends, renewing }) = lease {
            drop(ends);
            if let Some(renewing) = renewing {
                let _ = renewing.await;
            }
        }
        match reader.repository(inner).await? {
            Some(repository) => repository.end_lease(&reader.uid).await,
            None => Ok(()),
        }
    };
    if let Err(error) = within(inner, END_TIME_MAX, ending).await {
        tracing::warn!(job_id = job.id.0, %error, "a lease stays in its repository for a day");
    }
}

async fn within(
    inner: &Inner,
    most: Duration,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    tokio::select! {
        done = work => done,
        () = inner.env.clock.sleep(most) => Err(no_answer(most)),
    }
}

fn no_answer(within: Duration) -> Error {
    Error::new(ErrorKind::Storage, format!("no answer within {within:?}"))
}
