//! One look at a cluster's jobs for everybody who waits for them, however many they are; and the
//! jobs of others, found by it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Inner, Runner};
use crate::cluster::{CATALOGS, Condition, ExternalCluster, Polling, SeenSlot};
use crate::error::Error;
use crate::job::*;
use crate::names::*;
use crate::store::JobFilter;

/// After something has happened the next looks come fast: more is likely to follow.
const FAST_POLLS_AFTER_CHANGE: u32 = 10;

#[derive(Clone, Debug, Default)]
pub(super) struct Poll {
    /// How many looks there have been; 0 is none.
    pub number: u64,
    pub slots: Arc<Vec<SeenSlot>>,
    /// Why nothing was seen.
    pub error: Option<Error>,
}

/// Looks at one cluster, now and then.
#[derive(Debug)]
pub(super) struct Poller {
    news: watch::Sender<Poll>,
    /// The number of the last look that has begun.
    begun: AtomicU64,
    asked_soon: Notify,
    watched: Mutex<BTreeMap<DatabaseName, usize>>,
    /// Ends the task that looks.
    looking: Mutex<CancellationToken>,
}

/// Keeps a database among those that are looked at.
#[derive(Debug)]
pub(super) struct Interest {
    poller: Arc<Poller>,
    database: DatabaseName,
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut watched = self.poller.watched.lock();
        if let Some(count) = watched.get_mut(&self.database) {
            *count -= 1;
            if *count == 0 {
                watched.remove(&self.database);
            }
        }
    }
}

impl Poller {
    fn new() -> Arc<Self> {
        let (news, asked_soon) = (watch::Sender::default(), Notify::new());
        Arc::new(Self {
            news,
            begun: AtomicU64::new(0),
            asked_soon,
            watched: Mutex::default(),
            looking: Mutex::default(),
        })
    }

    /// What the looks tell, from the last one on.
    pub fn polls(&self) -> watch::Receiver<Poll> {
        self.news.subscribe()
    }

    /// The last look that may have been before now: those with higher numbers begin later.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Looks again at once.
    pub fn poll_soon(&self) {
        self.asked_soon.notify_one();
    }

    /// Looks at this database's slot, too, while the answer is held.
    pub fn interest(self: &Arc<Self>, database: &DatabaseName) -> Interest {
        *self.watched.lock().entry(database.clone()).or_default() += 1;
        Interest {
            poller: self.clone(),
            database: database.clone(),
        }
    }

    fn watched(&self) -> Vec<DatabaseName> {
        self.watched.lock().keys().cloned().collect()
    }
}

/// How long to wait for the next look.
fn wait(
    polling: Polling,
    watched: &[DatabaseName],
    slots: &[SeenSlot],
    fast_polls_left: u32,
) -> Duration {
    let ours = |s: &&SeenSlot| watched.iter().any(|d| d.as_str() == s.database);
    let is_moving = |s: &SeenSlot| !s.seen.phase().is_over() && !s.seen.phase().is_transfer();
    if fast_polls_left > 0 || slots.iter().filter(ours).any(is_moving) {
        polling.fast
    } else if watched.is_empty() {
        polling.idle
    } else {
        polling.slow
    }
}

impl Inner {
    /// The poller of a cluster. One that is not watched never tells anything.
    pub(super) fn poller(&self, cluster: &ClusterName) -> Arc<Poller> {
        self.pollers
            .lock()
            .entry(cluster.clone())
            .or_insert_with(Poller::new)
            .clone()
    }
}

impl Runner {
    /// Looks at a cluster's jobs from now on, if it does them itself, until [`Runner::unwatch`].
    pub fn watch_cluster(&self, cluster: &ClusterName) {
        let (inner, name) = (self.inner.clone(), cluster.clone());
        let poller = inner.poller(cluster);
        let stop = inner.stop.child_token();
        // One task looks at a time.
        std::mem::replace(&mut *poller.looking.lock(), stop.clone()).cancel();
        self.inner.tasks.spawn(async move {
            let mut known = HashMap::new();
            let mut fast_polls_left = FAST_POLLS_AFTER_CHANGE;
            loop {
                // By name each time: ALTER CLUSTER puts another one in its place.
                let Some(cluster) = inner.clusters.get(&name) else {
                    return;
                };
                let Some(external) = cluster.external() else {
                    return;
                };
                let round = round(
                    &inner,
                    &name,
                    external,
                    &poller,
                    &mut known,
                    &mut fast_polls_left,
                );
                let wait = tokio::select! {
                    () = stop.cancelled() => return,
                    wait = round => wait,
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = inner.env.clock.sleep(wait) => {}
                    () = poller.asked_soon.notified() => fast_polls_left = FAST_POLLS_AFTER_CHANGE,
                }
            }
        });
    }

    /// Looks at a cluster no more, until [`Self::watch_cluster`].
    pub fn unwatch(&self, cluster: &ClusterName) {
        self.inner.poller(cluster).looking.lock().cancel();
    }

    /// Forgets a cluster that is gone, and of which no job is left.
    pub fn forget(&self, cluster: &ClusterName) {
        self.inner.pollers.lock().remove(cluster);
        let conditions = Condition::ALL.map(Condition::name).into_iter();
        self.inner
            .metrics
            .cluster_gone(cluster.as_str(), conditions);
    }

    /// Looks at a cluster at once.
    pub fn poll_soon(&self, cluster: &ClusterName) {
        self.inner.poller(cluster).poll_soon();
    }
}

/// One look; answers how long to wait for the next.
async fn round(
    inner: &Arc<Inner>,
    name: &ClusterName,
    external: &dyn ExternalCluster,
    poller: &Poller,
    known: &mut HashMap<(String, JobKind), SlotIdentity>,
    fast_polls_left: &mut u32,
) -> Duration {
    let watched = poller.watched();
    let before = poller.news.borrow().clone();
    let number = before.number + 1;
    poller.begun.store(number, Ordering::SeqCst);
    *fast_polls_left = fast_polls_left.saturating_sub(1);
    let looked = external.slots(&watched).await;
    let condition = looked
        .as_ref()
        .map_or_else(|e| external.condition_of(e), |_| Condition::Well);
    let conditions = Condition::ALL.map(|c| (c.name(), c == condition));
    let answered = condition != Condition::Unreachable;
    inner
        .metrics
        .cluster(name.as_str(), answered, conditions.into_iter());
    match looked {
        Ok(slots) => {
            let states = |slots: &[SeenSlot]| {
                slots
                    .iter()
                    .map(|s| (s.database.clone(), s.seen.state.clone()))
                    .collect::<Vec<_>>()
            };
            if states(&slots) != states(&before.slots) {
                *fast_polls_left = FAST_POLLS_AFTER_CHANGE;
            }
            if before.error.is_some() {
                tracing::info!(cluster = %name, "the cluster answers again");
            }
            if let Err(e) = adopt(inner, name, external, &slots, known).await {
                tracing::warn!(cluster = %name, error = %e, "the jobs of others could not be recorded");
            }
            let wait = wait(external.polling(), &watched, &slots, *fast_polls_left);
            poller.news.send_replace(Poll {
                number,
                slots: Arc::new(slots),
                error: None,
            });
            wait
        }
        Err(e) => {
            if before.error.is_none() {
                tracing::warn!(cluster = %name, condition = condition.name(), error = %e, "the jobs of the cluster cannot be looked at");
            }
            poller.news.send_replace(Poll {
                number,
                slots: before.slots,
                error: Some(e),
            });
            // A cluster that is down is not helped by being asked often.
            if *fast_polls_left > 0 {
                external.polling().fast
            } else {
                external.polling().slow
            }
        }
    }
}

/// Takes jobs of others into the journal, from the first time that they are seen.
async fn adopt(
    inner: &Arc<Inner>,
    cluster: &ClusterName,
    external: &dyn ExternalCluster,
    slots: &[SeenSlot],
    known: &mut HashMap<(String, JobKind), SlotIdentity>,
) -> Result<(), Error> {
    for slot in slots {
        let (key, mark) = (
            (slot.database.clone(), slot.kind),
            slot.seen.mark(slot.kind),
        );
        if known
            .get(&key)
            .is_some_and(|k| k.is_of(slot.kind, &slot.seen))
        {
            known.insert(key, mark);
            continue;
        }
        match journalled(inner, cluster, slot).await? {
            Journalled::Seen => {}
            // It may turn out to be somebody else's, once ours is refused.
            Journalled::Arriving => continue,
            Journalled::Not => {
                let Some(spec) = external_spec(inner, cluster, slot) else {
                    tracing::warn!(%cluster, db = slot.database, snapshot = slot.seen.label, "a job's names cannot be recorded");
                    known.insert(key, mark);
                    continue;
                };
                // The look may be older than what the journal knows by now: it counts if it is
                // still what there is, and if that is not a job of ours that came meanwhile. The
                // journal has each of those before the slot does.
                let Some(database) = spec.work.database() else {
                    continue;
                };
                let still = external
                    .slot(database)
                    .await?
                    .filter(|s| s.seen.mark(s.kind) == mark);
                match still {
                    Some(_)
                        if matches!(journalled(inner, cluster, slot).await?, Journalled::Not) => {}
                    _ => continue,
                }
                // On a task of the runner's own: a poller that is stopped leaves no job without a
                // driver behind.
                let id = Runner {
                    inner: inner.clone(),
                }
                .submit(spec)
                .await?;
                tracing::info!(job_id = id.0, %cluster, db = slot.database, snapshot = slot.seen.label, "a job of somebody else's was found");
            }
        }
        known.insert(key, mark);
    }
    Ok(())
}

/// How the journal knows what was seen.
enum Journalled {
    /// As one of its jobs.
    Seen,
    /// As one that may just be arriving.
    Arriving,
    Not,
}

/// Jobs whose end nobody saw are recognised by their label alone, for so long.
const UNSEEN_MS_MAX: i64 = 600_000;

async fn journalled(
    inner: &Inner,
    cluster: &ClusterName,
    slot: &SeenSlot,
) -> Result<Journalled, Error> {
    let filter = JobFilter {
        cluster: Some(cluster.to_string()),
        db_name: Some(slot.database.clone()),
        kind: Some(slot.kind),
        snapshot: Some(slot.seen.label.clone()),
        ..JobFilter::default()
    };
    let now = inner.env.now();
    let mut rows = inner.store.jobs(&filter).await?;
    // What is restored in several jobs is in no slot itself.
    rows.retain(|row| row.kind != JobKind::Restore || row.needs.is_empty());
    let was_seen = |row: &JobRow| {
        row.seen
            .as_ref()
            .is_some_and(|s| s.mark(slot.kind).is_of(slot.kind, &slot.seen))
    };
    // Confirmed by its snapshot, or lost: it ended unseen, but under this label, and not long ago.
    let ended_unseen = |row: &JobRow| {
        let ended = row
            .finished_at
            .is_some_and(|at| now.0 - at.0 < UNSEEN_MS_MAX);
        ended && row.seen.is_none() && matches!(row.status, JobStatus::Succeeded | JobStatus::Lost)
    };
    if rows.iter().any(|row| was_seen(row) || ended_unseen(row)) {
        return Ok(Journalled::Seen);
    }
    let is_arriving = rows
        .iter()
        .any(|row| row.status == JobStatus::Running && row.seen.is_none());
    Ok(if is_arriving {
        Journalled::Arriving
    } else {
        Journalled::Not
    })
}

fn external_spec(inner: &Inner, cluster: &ClusterName, slot: &SeenSlot) -> Option<JobSpec> {
    let seen = &slot.seen;
    Some(JobSpec {
        uid: inner.env.job_uid(),
        cluster: cluster.clone(),
        requester: Requester::Outside,
        statement: String::new(),
        timeout_seconds: seen.timeout_seconds.unwrap_or_default(),
        max_bytes_per_second: None,
        work: Work::External(Box::new(ExternalRequest {
            kind: slot.kind,
            database: DatabaseName::new(slot.database.as_str()).ok()?,
            label: SnapshotLabel::new(seen.label.as_str()).ok()?,
            repository: None,
            statement: String::new(),
            objects: Vec::new(),
            queue: false,
            catalogs: slot.database == CATALOGS,
            timestamp: seen.timestamp.clone(),
            external: Some(seen.abridged()),
            expected: Vec::new(),
            base: None,
        })),
    })
}
