//! Who drives: admits jobs, runs each on a task of its own, cancels them, and takes them up again
//! after a restart.
//!
//! Admitting happens on the runner's own tasks: a client that goes away in the middle of a
//! statement has either submitted a job or has not. One driver runs a job, so its events come one
//! after the other.

mod drive;
mod expire;
mod external;
mod lease;
mod mirror;
mod poll;
mod run;
mod steps;
mod uploads;
mod witness;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::external::{Cancelled, Submitted};
use crate::cluster::{Cluster, Clusters};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::job::{CancelCause, ControlEvent, Failure, Job, JobKind, JobSpec, Phase};
use crate::metrics::Metrics;
use crate::names::*;
use crate::progress::Progress;
use crate::repository::{Location, OpenRepository, Repository, SpeedLimit};
use crate::store::{JobFilter, RepositoryRecord, Store};

/// How long until a job is cancelled once more that could not be.
const CANCEL_AGAIN: Duration = Duration::from_secs(1);
/// How long until it is seen whether one that nobody drives is over.
const PART_AGAIN: Duration = Duration::from_millis(20);
/// Verifications at a time, of all repositories: each reads as fast as storage lets it.
const VERIFICATIONS_MAX: usize = 2;

/// How jobs are run.
#[derive(Clone, Debug)]
pub struct RunnerSettings {
    /// Jobs at a time; more wait.
    pub jobs_running_max: usize,
    /// Tasks of one job at a time.
    pub task_concurrency: usize,
    /// Bytes of data that all jobs together may move in a second; 0 is no limit.
    pub max_bytes_per_second: u64,
    /// The wait after a first failure; it doubles with each.
    pub retry_first: Duration,
    /// The longest wait between two tries.
    pub retry_longest: Duration,
    /// How long a statement waits until another cluster has taken its job or refused it.
    pub submit_patience: Duration,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self {
            jobs_running_max: 16,
            task_concurrency: 4,
            max_bytes_per_second: 0,
            retry_first: Duration::from_millis(200),
            retry_longest: Duration::from_secs(30),
            submit_patience: Duration::from_secs(90),
        }
    }
}

/// The runner; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Runner {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    clusters: Arc<Clusters>,
    open: Arc<dyn OpenRepository>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    env: Env,
    settings: RunnerSettings,
    running: Semaphore,
    verifying: Semaphore,
    /// Of all jobs together.
    limit: SpeedLimit,
    /// Of each repository that was used.
    repository_limits: Mutex<HashMap<(ClusterName, RepositoryName), SpeedLimit>>,
    drivers: Mutex<HashMap<JobId, Driver>>,
    pollers: Mutex<HashMap<ClusterName, Arc<poll::Poller>>>,
    /// Counts jobs that have come to their end.
    settled: watch::Sender<u64>,
    /// A job has nothing left to do.
    over: Notify,
    /// Counts what may have mended what jobs wait for.
    mended: watch::Sender<u64>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How to reach the task that drives a job.
#[derive(Clone, Debug)]
struct Driver {
    requests: mpsc::Sender<Request>,
    over: watch::Receiver<bool>,
    /// The job as it stands, once that is known.
    stands: watch::Receiver<Option<Arc<Job>>>,
}

/// Asks something of a driver; answered when that is in the journal, or with why it cannot be.
#[derive(Debug)]
struct Request {
    wish: Wish,
    reply: oneshot::Sender<Result<(), Error>>,
}

/// What a driver can be asked.
#[derive(Debug)]
enum Wish {
    Cancel,
    /// Cancels the job if it still can be; otherwise gives it up: its end will not be known.
    GiveUp {
        cause: CancelCause,
        failure: Failure,
    },
    /// Goes on in another way.
    Control(ControlEvent),
}

impl Runner {
    /// A runner; it does nothing until a job is submitted or [`Self::recover`] is called.
    pub fn new(
        store: Arc<dyn Store>,
        clusters: Arc<Clusters>,
        open: Arc<dyn OpenRepository>,
        metrics: Arc<Metrics>,
        progress: Arc<Progress>,
        env: Env,
        settings: RunnerSettings,
    ) -> Self {
        let running = Semaphore::new(settings.jobs_running_max);
        let limit = SpeedLimit::new(Some(settings.max_bytes_per_second), &env);
        let inner = Inner {
            store,
            clusters,
            open,
            metrics,
            progress,
            env,
            settings,
            running,
            verifying: Semaphore::new(VERIFICATIONS_MAX),
            limit,
            repository_limits: Mutex::default(),
            drivers: Mutex::default(),
            pollers: Mutex::default(),
            over: Notify::new(),
            settled: watch::Sender::default(),
            mended: watch::Sender::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Has jobs that wait to try a step again do so at once.
    pub fn try_again_now(&self) {
        self.inner.mended.send_modify(|count| *count += 1);
    }

    /// Admits a job and starts it. A job that is refused is recorded as such.
    pub async fn submit(&self, spec: JobSpec) -> Result<JobId, Error> {
        self.admit(spec, true).await
    }

    /// The same; a refusal is recorded if that is wanted.
    async fn admit(&self, spec: JobSpec, records: bool) -> Result<JobId, Error> {
        let runner = self.clone();
        let task = self.inner.tasks.spawn(async move {
            let at = runner.inner.env.now();
            let job = match runner.inner.store.admit(&spec, at).await {
                Ok(job) => job,
                Err(e) => {
                    if records {
                        runner.record_refusal(&spec, &e).await;
                    }
                    return Err(e);
                }
            };
            let (id, db) = (job.id, spec.work.database().map(DatabaseName::as_str));
            tracing::info!(job_id = id.0, kind = %spec.kind(), db, snapshot = %spec.label(), "job admitted");
            runner.start(job);
            Ok(id)
        });
        task.await
            .map_err(|e| Error::internal(format!("submitting a job died: {e}")))?
    }

    /// Records an attempt that was refused before it came this far.
    pub async fn record_refusal(&self, spec: &JobSpec, error: &Error) {
        if let Err(e) = self
            .inner
            .store
            .refuse(spec, self.inner.env.now(), error)
            .await
        {
            tracing::warn!(error = %e, "a refused job could not be recorded");
        }
    }

    /// Waits until a job has ended; its error, if it ended badly.
    pub async fn ended(&self, id: JobId) -> Result<(), Error> {
        let outcome = |job: &Job| {
            job.record
                .failure
                .as_ref()
                .map_or(Ok(()), |failure| Err(failure.error()))
        };
        let stands = self
            .inner
            .drivers
            .lock()
            .get(&id)
            .map(|driver| driver.stands.clone());
        if let Some(mut stands) = stands {
            let ended = stands
                .wait_for(|job| job.as_ref().is_some_and(|job| job.is_settled()))
                .await;
            let ended = ended.ok().and_then(|job| job.clone());
            if let Some(job) = ended {
                return outcome(&job);
            }
        }
        match self.inner.store.load(id).await? {
            job if job.is_settled() => outcome(&job),
            _ => Err(Error::new(
                ErrorKind::Shutdown,
                format!("the server is stopping; job {id} goes on when it is back"),
            )),
        }
    }

    /// Cancels the unfinished job of a kind in a database. Returns when that is in the journal;
    /// clean-up follows.
    pub async fn cancel(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
        kind: JobKind,
    ) -> Result<JobId, Error> {
        let none = || {
            let message = match kind {
                JobKind::Backup => "No backup job is currently running",
                JobKind::Restore => "No restore is currently running",
                JobKind::DropSnapshot => "No snapshot is currently being dropped",
                JobKind::Verify => "No verification is currently running",
                JobKind::Prune => "No repository is currently being pruned",
            };
            Error::new(ErrorKind::UndefinedObject, message)
        };
        let id = match self.inner.store.unsettled(cluster, database).await?.first() {
            Some(id) => *id,
            None => {
                // The two share their database's slot: of the later one it can be told how it
                // ended.
                let mut last = None;
                for kind in [JobKind::Backup, JobKind::Restore] {
                    let filter = JobFilter {
                        cluster: Some(cluster.to_string()),
                        db_name: Some(database.to_string()),
                        kind: Some(kind),
                        latest: true,
                        ..JobFilter::default()
                    };
                    let found = self.inner.store.jobs(&filter).await?.pop();
                    last = last.into_iter().chain(found).max_by_key(|row| row.job_id);
                }
                return Err(match last.and_then(|row| Some((row.state?, row))) {
                    Some((phase, row)) if row.kind == kind => cannot_cancel(&row.snapshot, phase),
                    _ => none(),
                });
            }
        };
        if self.inner.store.spec(id).await?.kind() != kind {
            return Err(none());
        }
        self.cancel_driven(id).await?;
        Ok(id)
    }

    /// Cancels a job that is a part of another one, and waits until it has nothing left to do.
    async fn end_part(&self, id: JobId) -> Result<(), Error> {
        loop {
            // One that is just being sent, or taken up after a restart, cannot be cancelled yet; one
            // that is being committed ends by itself.
            if let Err(error) = self.cancel_job(id).await {
                tracing::debug!(%error, job_id = id.0, "a part of a job is not cancelled yet");
            }
            let clock = &self.inner.env.clock;
            let again = async {
                self.wait(id).await;
                clock.sleep(PART_AGAIN).await;
            };
            tokio::select! {
                () = again => {}
                () = clock.sleep(CANCEL_AGAIN) => {}
                () = self.inner.stop.cancelled() => {
                    return Err(Error::new(ErrorKind::Shutdown, "the server is stopping"));
                }
            }
            if self.inner.store.load(id).await?.is_over() {
                return Ok(());
            }
        }
    }

    /// Cancels a job through the task that drives it.
    async fn cancel_driven(&self, id: JobId) -> Result<(), Error> {
        self.ask(id, Wish::Cancel).await
    }

    /// Pauses, resumes or paces a job that is driven here; 42704 if there is none, 55000 if it has
    /// ended or cannot be told that now.
    pub async fn control(&self, id: JobId, event: ControlEvent) -> Result<(), Error> {
        let job = self.inner.store.load(id).await?;
        if job.spec.is_elsewhere() {
            let message = format!("job {id}: what another cluster does cannot be paused or paced");
            return Err(Error::unsupported(message));
        }
        if job.is_settled() {
            let message = format!("job {id} has ended: {}", job.phase());
            return Err(Error::new(ErrorKind::WrongState, message));
        }
        self.ask(id, Wish::Control(event)).await
    }

    async fn ask(&self, id: JobId, wish: Wish) -> Result<(), Error> {
        let driver = self.inner.drivers.lock().get(&id).cloned();
        let gone = || {
            Error::new(ErrorKind::Shutdown, "the job runner is stopping")
                .hint("Try again when the server is up.")
        };
        let (reply, answer) = oneshot::channel();
        driver
            .ok_or_else(gone)?
            .requests
            .send(Request { wish, reply })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Changes how fast bytes go to and from a repository, those of jobs that run, too.
    pub fn pace_repository(
        &self,
        cluster: &ClusterName,
        name: &RepositoryName,
        bytes_per_second: Option<u64>,
    ) {
        let limit = self.inner.limit_of(cluster, name, bytes_per_second);
        if limit.get() != bytes_per_second {
            limit.set(bytes_per_second);
        }
    }

    /// Takes up every job with something left to do. What they may not do at the same time as new
    /// ones is in the store, so this returns before their journals are read.
    pub async fn recover(&self) -> Result<usize, Error> {
        let unfinished = self.inner.store.unfinished().await?;
        for id in unfinished.iter().copied() {
            let runner = self.clone();
            self.spawn_driver(
                id,
                tracing::info_span!("job", job_id = id.0),
                |mut requests, stands| async move {
                    let Some(job) = runner.inner.taken_up(id, &mut requests).await else {
                        return;
                    };
                    drive::drive(&runner.inner, job, requests, stands, false).await;
                },
            );
        }
        Ok(unfinished.len())
    }

    /// Waits until a job has nothing left to do. A job that this runner does not drive is over.
    pub async fn wait(&self, id: JobId) {
        let over = self.inner.drivers.lock().get(&id).map(|d| d.over.clone());
        if let Some(mut over) = over {
            // An error means that the driver is gone, which is as over as can be.
            let _ = over.wait_for(|over| *over).await;
        }
    }

    /// Stops driving; what is in flight finishes its current file, and unfinished jobs stay in the
    /// journal. What storage holds up for longer than this is left behind: the next start does it
    /// again.
    pub async fn stop(&self, patience: Duration) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        tokio::select! {
            () = self.inner.tasks.wait() => {}
            () = self.inner.env.clock.sleep(patience) => {
                tracing::warn!(steps = self.inner.tasks.len(), "storage does not answer; what waits for it is left behind");
            }
        }
    }

    /// Drives a job that this process admitted.
    fn start(&self, job: Job) {
        let runner = self.clone();
        let span = tracing::info_span!("job", job_id = job.id.0, kind = %job.spec.kind(), snapshot = %job.spec.label());
        self.spawn_driver(job.id, span, |requests, stands| async move {
            drive::drive(&runner.inner, job, requests, stands, true).await;
        });
    }

    /// Makes a job reachable, and drives it on a task of its own.
    fn spawn_driver<F>(
        &self,
        id: JobId,
        span: tracing::Span,
        drive: impl FnOnce(mpsc::Receiver<Request>, watch::Sender<Option<Arc<Job>>>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (asking, requests) = mpsc::channel(1);
        let (over_sender, over) = watch::channel(false);
        let (stands_sender, stands) = watch::channel(None);
        self.inner.drivers.lock().insert(
            id,
            Driver {
                requests: asking,
                over,
                stands,
            },
        );
        let runner = self.clone();
        let driven = drive(requests, stands_sender);
        let work = async move {
            driven.await;
            runner.inner.drivers.lock().remove(&id);
            let _ = over_sender.send(true);
        };
        self.inner
            .tasks
            .spawn(tracing::Instrument::instrument(work, span));
    }
}

/// Where a repository is, as it is registered.
fn location_of(record: &RepositoryRecord) -> Location {
    Location {
        url: record.location.clone(),
        properties: record.properties.clone(),
    }
}

impl Inner {
    /// The handle of a repository, as it is registered.
    fn repository(&self, record: &RepositoryRecord) -> Result<Arc<Repository>, Error> {
        self.open.open(&record.name, &location_of(record))
    }

    /// An unfinished job from its journal. One damaged journal must not keep all other jobs and
    /// tables away.
    async fn taken_up(&self, id: JobId, requests: &mut mpsc::Receiver<Request>) -> Option<Job> {
        let mut failures = 0;
        loop {
            let error = match self.store.load(id).await {
                Ok(job) => {
                    tracing::info!(phase = %job.phase(), "job taken up again");
                    self.metrics.resumed(&job);
                    return Some(job);
                }
                Err(e) if e.kind == ErrorKind::Corrupted => {
                    match self.store.bury(id, &e, self.env.now()).await {
                        Ok(()) => {
                            tracing::error!(error = %e, "the job is lost: its journal does not read");
                            return None;
                        }
                        Err(e) => e,
                    }
                }
                Err(e) => e,
            };
            tracing::error!(%error, "a job cannot be taken up again yet");
            failures += 1;
            tokio::select! {
                () = self.env.clock.sleep(run::backoff(self, failures)) => {}
                // Who wants it to end is told why it cannot.
                Some(request) = requests.recv() => drop(request.reply.send(Err(error))),
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// The limit of a repository; `bytes_per_second` is what its record says, should nobody have
    /// asked before.
    fn limit_of(
        &self,
        cluster: &ClusterName,
        name: &RepositoryName,
        bytes_per_second: Option<u64>,
    ) -> SpeedLimit {
        let mut limits = self.repository_limits.lock();
        let limit = limits
            .entry((cluster.clone(), name.clone()))
            .or_insert_with(|| SpeedLimit::new(bytes_per_second, &self.env));
        limit.clone()
    }

    fn cluster(&self, name: &ClusterName) -> Result<Arc<dyn Cluster>, Error> {
        let missing = || {
            Error::new(
                ErrorKind::Connection,
                format!("cluster \"{name}\" is not configured"),
            )
        };
        self.clusters.get(name).ok_or_else(missing)
    }
}

fn cannot_cancel(label: impl std::fmt::Display, phase: Phase) -> Error {
    Error::new(
        ErrorKind::WrongState,
        format!(
            "Failed to cancel job: Job with label {label} can not be cancelled. state: {phase}"
        ),
    )
}

/// The failure of a job whose time is over.
fn overdue(last_error: Option<&str>) -> Failure {
    Failure::timeout(last_error)
}
