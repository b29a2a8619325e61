//! Jobs of another cluster, from the runner's side: submitted, cancelled, given up.

use std::sync::Arc;

use super::is_ours;
use crate::cluster::{Cluster, SendError};
use crate::error::{Error, ErrorKind};
use crate::job::*;
use crate::names::*;
use crate::runner::{Inner, Runner, Wish, location_of};
use crate::statement::{CancelJob, CancelScope, JobKeyword, Statement};

impl Inner {
    /// The timestamp of a whole snapshot, read from where it is stored; `None` if there is no such
    /// snapshot. An error if the storage properties are not known or do not reach it.
    pub(super) async fn stored_snapshot(
        &self,
        cluster: &ClusterName,
        repository: &RepositoryName,
        label: &str,
    ) -> Result<Option<String>, Error> {
        let record = self.store.repository(cluster, repository).await?;
        let stored = self
            .open
            .open_starrocks(&record.name, &location_of(&record))?;
        stored.ping().await?;
        let found = stored.label(label).await?;
        Ok(found
            .infos
            .last()
            .filter(|_| found.status() == "OK")
            .map(|info| info.timestamp.clone()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    Accepted(JobId),
    /// It waits for its turn.
    Queued(JobId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    Known(JobId),
    /// One that is not in the journal, by its label if that was seen.
    Unknown(Option<String>),
}

impl Runner {
    /// Admits a job of another cluster and waits for that cluster's verdict: its refusal is the
    /// error. A client that goes away meanwhile changes nothing.
    pub async fn submit_external(&self, spec: JobSpec) -> Result<Submitted, Error> {
        let id = self.submit(spec).await?;
        let Some(mut states) = self.inner.drivers.lock().get(&id).map(|d| d.stands.clone()) else {
            return self
                .verdict(&self.inner.store.load(id).await?.state, id)
                .unwrap_or(Ok(Submitted::Accepted(id)));
        };
        let patience = self
            .inner
            .env
            .clock
            .sleep(self.inner.settings.submit_patience);
        tokio::pin!(patience);
        loop {
            let stands = states.borrow_and_update().clone();
            if let Some(verdict) = stands.and_then(|job| self.verdict(&job.state, id)) {
                return verdict;
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() {
                    let last = self.inner.store.load(id).await?.state;
                    let stopping = || Error::new(ErrorKind::Shutdown, format!("the server is stopping; job {id} goes on when it is back"));
                    return self.verdict(&last, id).unwrap_or_else(|| Err(stopping()));
                },
                () = &mut patience => {
                    let last = self.inner.progress.job_error(id).unwrap_or_default();
                    return Err(Error::new(ErrorKind::Connection, format!("whether the cluster has taken job {id} is not known yet"))
                        .detail(last)
                        .hint(format!("The job is not sent twice. Once the cluster answers, SELECT * FROM system.jobs WHERE job_id = {id} tells.")));
                }
            }
        }
    }

    fn verdict(&self, state: &JobState, id: JobId) -> Option<Result<Submitted, Error>> {
        let JobState::External(state) = state else {
            return Some(Ok(Submitted::Accepted(id)));
        };
        match &**state {
            ExternalState::Queued => Some(Ok(Submitted::Queued(id))),
            ExternalState::Pending | ExternalState::Submitting { .. } => None,
            ExternalState::Watching { .. } | ExternalState::Finished { .. } => {
                Some(Ok(Submitted::Accepted(id)))
            }
            ExternalState::Cancelled {
                failure,
                seen: None,
            }
            | ExternalState::Refused { failure }
            | ExternalState::Lost { failure, .. } => Some(Err(failure.error())),
            ExternalState::Cancelled { .. } => Some(Ok(Submitted::Accepted(id))),
        }
    }

    /// CANCEL of the job in a database's slot, whoever submitted it, or of the first of that kind
    /// that waits for it. The cluster's refusal is the error.
    pub async fn cancel_external(
        &self,
        cluster: &Arc<dyn Cluster>,
        database: &DatabaseName,
        kind: JobKind,
        scope: CancelScope,
    ) -> Result<Cancelled, Error> {
        let external = cluster
            .external()
            .ok_or_else(|| Error::internal("the cluster does its jobs elsewhere"))?;
        let (mut running, mut waiting) = (None, None);
        for id in self.inner.store.unsettled(cluster.name(), database).await? {
            let job = self.inner.store.load(id).await?;
            // One that puts tables into their places has no job there any more.
            let is_past = matches!(job.spec.work, Work::Staged(_)) && !job.can_cancel();
            if job.spec.kind() != kind || is_past {
                continue;
            }
            let slot = if job.can_cancel() {
                &mut waiting
            } else {
                &mut running
            };
            slot.get_or_insert(id);
        }
        // What somebody else runs may not stand in the journal yet.
        let mut theirs = None;
        if running.is_none() {
            // What waits here is cancelled whether or not the cluster answers.
            let slot = match external.slot(database).await {
                Err(_) if waiting.is_some() => None,
                slot => slot?,
            };
            theirs = slot.filter(|s| s.kind == kind && !s.seen.phase().is_over());
        }
        if let (None, None, Some(id)) = (running, &theirs, waiting) {
            self.cancel_driven(id).await?;
            return Ok(Cancelled::Known(id));
        }
        let keyword = match kind {
            JobKind::Backup => JobKeyword::Backup,
            JobKind::Restore => JobKeyword::Restore,
            JobKind::DropSnapshot | JobKind::Verify | JobKind::Prune => {
                return Err(Error::internal(format!(
                    "a {kind} is no job of the cluster's"
                )));
            }
        };
        let sql = external
            .render(&Statement::Cancel(CancelJob {
                kind: keyword,
                scope,
            }))
            .await?;
        let sent = external.send(&sql).await.map_err(SendError::into_error);
        self.inner.poller(cluster.name()).poll_soon();
        sent.map(|()| match running {
            Some(id) => Cancelled::Known(id),
            None => Cancelled::Unknown(theirs.map(|s| s.seen.label)),
        })
    }

    /// Gives up every unfinished job of a cluster: those that were not sent are cancelled, the end
    /// of the others will not be known.
    pub async fn give_up(&self, cluster: &ClusterName) -> Result<(), Error> {
        for id in self.inner.store.unfinished().await? {
            let Ok(job) = self.inner.store.load(id).await else {
                continue;
            };
            if &job.spec.cluster == cluster && !job.is_settled() {
                let message = format!(
                    "cluster \"{cluster}\" was dropped while the job was in {}",
                    job.phase()
                );
                let failure = Failure::new(StatusCode::CommonError, ErrorKind::Remote, message);
                let cause = CancelCause::Dropped;
                self.ask(id, Wish::GiveUp { cause, failure }).await?;
            }
        }
        Ok(())
    }

    /// CANCEL JOB … FORCE: a job that can be cancelled is; one that is past that is LOST, because
    /// nobody can know what became of it.
    pub async fn force(&self, id: JobId, user: &str) -> Result<(), Error> {
        let job = self.inner.store.load(id).await?;
        if job.is_settled() {
            return Err(crate::runner::cannot_cancel(job.spec.label(), job.phase()));
        }
        let message = format!(
            "given up by {user} in {}: what became of it is not known",
            job.phase()
        );
        let failure = Failure::new(StatusCode::CommonError, ErrorKind::WrongState, message);
        let cause = CancelCause::User;
        self.ask(id, Wish::GiveUp { cause, failure }).await
    }

    /// CANCEL of one job by its number, whoever does it.
    pub async fn cancel_job(&self, id: JobId) -> Result<(), Error> {
        let job = self.inner.store.load(id).await?;
        if job.is_settled() {
            return Err(crate::runner::cannot_cancel(job.spec.label(), job.phase()));
        }
        let Some(request) = job.spec.external().filter(|_| !job.can_cancel()) else {
            return self.cancel_driven(id).await;
        };
        let cluster = self.inner.cluster(&job.spec.cluster)?;
        let external = cluster
            .external()
            .ok_or_else(|| Error::internal("the cluster does its jobs elsewhere"))?;
        match external.slot(&request.database).await? {
            Some(sighted) if is_ours(&job, &sighted) => {}
            _ => {
                return Err(Error::new(
                    ErrorKind::WrongState,
                    format!("job {id} is not the one that the cluster works on"),
                )
                .hint("Look again in a moment: its end is being found out."));
            }
        }
        let scope = if request.catalogs {
            CancelScope::ExternalCatalog
        } else {
            CancelScope::Database(request.database.clone())
        };
        self.cancel_external(&cluster, &request.database, request.kind, scope)
            .await
            .map(drop)
    }
}
