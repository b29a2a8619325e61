//! EXPLAIN PRUNE of a repository that a StarRocks cluster writes.

use std::collections::HashSet;

use super::refusals;
use crate::admission::Caller;
use crate::admission::checks::Checks;
use crate::error::Error;
use crate::job::Work;
use crate::names::Timestamp;
use crate::query::JobStep;
use crate::repository::StarRocksRepository;
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
        let external = self.explained_cluster()?;
        let slots = checks.take(external.slots(&[]).await)?.unwrap_or_default();
        let live = slots
            .into_iter()
            .filter(|slot| !slot.seen.phase().is_over());
        let used: HashSet<String> = live.map(|slot| slot.seen.label).collect();
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
}
