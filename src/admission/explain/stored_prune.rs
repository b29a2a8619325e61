//! EXPLAIN PRUNE of a repository that a StarRocks cluster writes.

use std::collections::HashSet;

use super::refusals;
use crate::admission::Caller;
use crate::admission::checks::Checks;
use crate::error::Error;
use crate::job::Work;
use crate::names::{RepositoryName, Timestamp};
use crate::query::JobStep;
use crate::repository::{StarRocksRepository, is_same_place};
use crate::statement::Prune;

impl Caller {
    /// One step for each label under which something would go.
    pub(super) async fn explain_stored_prune(&self, prune: &Prune) -> Result<Vec<JobStep>, Error> {
        let mut checks = Checks::every();
        let name = &prune.repository;
        let Some(request) = self.check_prune(prune, &mut checks).await? else {
            return Ok(refusals(name, checks));
        };
        self.check_locks(Work::Prune(request.clone()), &mut checks)
            .await?;
        let Some(stored) = checks.take(self.stored_repository(name).await)? else {
            return Ok(refusals(name, checks));
        };
        let used = checks.take(self.labels_under_way(name).await)?;
        let used = used.unwrap_or_default();
        // Asking the repository for its own time would write to it.
        let grace = request.grace_seconds.saturating_mul(1000);
        let before = Timestamp(self.gateway.env.now().0.saturating_sub_unsigned(grace));
        let unneeded = stored.unneeded(before, |label| used.contains(label)).await;
        let unneeded = checks.take(unneeded)?;
        let mut steps = refusals(name, checks);
        for (label, candidates) in StarRocksRepository::by_label(&unneeded.unwrap_or_default()) {
            steps.push(JobStep {
                step: "DELETING",
                object: label.to_owned(),
                action: if request.dry_run { "list" } else { "delete" },
                files: Some(candidates.len() as u64),
                bytes: Some(candidates.iter().map(|c| c.bytes).sum()),
                note: format!(
                    "no backup needs them, and nothing was written for {} seconds",
                    request.grace_seconds
                ),
                ..JobStep::default()
            });
        }
        Ok(steps)
    }

    /// The labels that jobs of clusters are about which have the repository in the same place.
    async fn labels_under_way(&self, name: &RepositoryName) -> Result<HashSet<String>, Error> {
        let gateway = &self.gateway;
        let ours = gateway.store.repository(self.cluster.name(), name).await?;
        let mut labels = HashSet::new();
        for record in gateway.store.repositories().await? {
            let is_same = record.name == *name && is_same_place(&record.location, &ours.location);
            let known = gateway.clusters.get(&record.cluster).filter(|_| is_same);
            if let Some(external) = known.as_ref().and_then(|known| known.external()) {
                let slots = external.slots(&[]).await?.into_iter();
                let live = slots.filter(|slot| !slot.seen.phase().is_over());
                labels.extend(live.map(|slot| slot.seen.label));
            }
        }
        Ok(labels)
    }
}
