//! A job that a cluster has: what its slot tells, until it is over.

use super::{MISSES, MISSING_LOOKS, Step, abandoned};
use crate::cluster::{SeenSlot, StepError};
use crate::job::*;
use crate::names::*;

/// How long the timestamp of a backup that is over is asked for, where it matters later.
const UNTIMED_MS_MAX: i64 = 300_000;

impl Step<'_> {
    pub(super) async fn watch(&self) -> Result<ExternalEvent, StepError> {
        let database = &self.request.database;
        let poller = self.inner.poller(&self.job.spec.cluster);
        let _interest = poller.interest(database);
        let mut polls = poller.polls();
        let (mut misses, mut missing_since) = (0, None);
        let mut over_since = None;
        // A look from before the submission tells of the job before this one, which may be called
        // the same, of the same second.
        let stale = poller.begun();
        poller.poll_soon();
        loop {
            self.check_cluster()?;
            let poll = polls.borrow_and_update().clone();
            let mut found = None;
            match &poll.error {
                Some(error) => self.note(Some(error.to_string()), None),
                None if poll.number <= stale => {}
                None => {
                    found = self
                        .ours(poll.slots.iter().find(|s| s.database == database.as_str()))
                        .await?;
                    if found.is_none() {
                        // One look over everything may leave out what this user must not see, or be
                        // older than the job.
                        match self.external.slot(database).await {
                            Ok(slot) => {
                                found = self.ours(slot.as_ref()).await?;
                                if found.is_none() {
                                    misses += 1;
                                    let since =
                                        *missing_since.get_or_insert_with(|| self.inner.env.now());
                                    let long = self
                                        .external
                                        .polling()
                                        .fast
                                        .saturating_mul(MISSING_LOOKS)
                                        .as_millis();
                                    let missed = u128::try_from(self.inner.env.now().0 - since.0)
                                        .unwrap_or(0);
                                    let is_gone = misses >= MISSES && missed >= long;
                                    if let Some(event) = self.missed(slot, is_gone).await? {
                                        return Ok(event);
                                    }
                                }
                            }
                            Err(e) => self.note(Some(e.to_string()), None),
                        }
                    }
                }
            }
            if let Some(seen) = found {
                (misses, missing_since) = (0, None);
                if seen.phase().is_over() {
                    over_since.get_or_insert_with(|| self.inner.env.now());
                }
                let over_ms = over_since.map_or(0, |since| self.inner.env.now().0 - since.0);
                if let Some(event) = self.news(seen, over_ms < UNTIMED_MS_MAX).await {
                    return Ok(event);
                }
            }
            polls.changed().await.map_err(|_| abandoned())?;
        }
    }

    /// What follows from a slot that does not hold the job.
    async fn missed(
        &self,
        slot: Option<SeenSlot>,
        is_gone: bool,
    ) -> Result<Option<ExternalEvent>, StepError> {
        let before = match self.job.external_state() {
            Some(ExternalState::Watching { before, .. }) => before.as_ref(),
            _ => None,
        };
        match slot {
            // A slot takes another job only when the one before it is over. The one that was there
            // before ours is old news.
            Some(other) if is_gone || !before.is_some_and(|b| b.is_of(other.kind, &other.seen)) => {
                let why = format!(
                    "the slot of {} holds a {} of {} now",
                    self.request.database, other.kind, other.seen.label
                );
                self.forgotten(&why).await.map(Some)
            }
            None if is_gone => self
                .forgotten("the cluster has no job of this database any more")
                .await
                .map(Some),
            _ => Ok(None),
        }
    }

    /// Whether the repository has anything under the backup's label.
    async fn is_stored(&self) -> Result<bool, StepError> {
        let Some(repository) = &self.request.repository else {
            return Ok(false);
        };
        let label = self.request.label.as_str();
        let found = self.external.snapshots(repository.as_str(), Some(label));
        Ok(!found.await.map_err(StepError::Retry)?.is_empty())
    }

    /// What follows from a sight of the job beside what it says itself.
    pub(super) fn completed(&self, mut seen: SlotStatus) -> SlotStatus {
        seen.left_out = self.request.left_out(&seen.objects);
        let (noted, _) = self.inner.progress.last_words(self.job.id);
        let told = self.job.external_state().and_then(ExternalState::seen);
        let before = noted.iter().chain(told);
        let of_this_phase = before.filter(|before| before.state == seen.state);
        let most = of_this_phase.map(|before| before.tasks_most).max();
        seen.tasks_most = seen.tasks_left.max(most.unwrap_or_default());
        seen
    }

    /// The event for what was seen, if it is worth one; the rest is noted.
    /// `waits`: for the timestamp of what relies on other snapshots.
    async fn news(&self, seen: SlotStatus, waits: bool) -> Option<ExternalEvent> {
        let seen = self.completed(seen);
        let state = self.job.external_state()?;
        self.note(None, Some(seen.clone()));
        let moved = self.moved(&seen, &seen.objects).await;
        let is_news = moved.is_some() || seen.is_news_after(state.seen());
        if !seen.phase().is_over() && !is_news {
            return None;
        }
        if seen.phase().is_over() {
            // Whoever reads that it is over finds what it has made.
            self.cluster.forget_names();
        }
        // The label is all that SHOW BACKUP tells; the timestamp that RESTORE wants is in the
        // repository.
        let timestamp = match (&self.request.repository, self.job.spec.kind(), seen.phase()) {
            (Some(repository), JobKind::Backup, Phase::Finished) => self
                .listed(repository)
                .await
                .ok()
                .flatten()
                .and_then(|t| BackupTimestamp::new(t).ok()),
            _ => None,
        };
        let needs_others = self.job.record.selection.as_ref();
        let needs_others = needs_others.is_some_and(|s| !s.contents.older.is_empty());
        if waits && needs_others && seen.phase() == Phase::Finished && timestamp.is_none() {
            // Without it nobody would know later that others have a part of what was backed up.
            match self.is_stored().await {
                Ok(false) => {}
                Ok(true) | Err(_) => return None,
            }
        }
        Some(ExternalEvent::Observed {
            seen: seen.abridged(),
            timestamp,
            moved,
        })
    }
}
