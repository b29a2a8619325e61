//! What verifications and prunes have come to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::super::system::{Chunks, ScanContext, Sources, system_row};
use crate::error::Error;
use crate::job::{FindingKind, JobEvent, JobKind, JobRow, PruneEvent, SAMPLE_ALL, VerifyLevel};
use crate::store::{ALL_JOBS, JobFilter, VerificationRow};

system_row! {
    pub VerificationsRow in "verifications" {
        job_id: Int,
        repository: Text,
        snapshot: Text,
        backup_timestamp: Text,
        level: Text,
        started_at: Time,
        finished_at: Time,
        ok: Bool,
        files_checked: Int,
        bytes_checked: Int,
        findings: Int,
        sample: Double,
        cluster: Text,
        restore_seconds: Double,
    }
}

system_row! {
    pub RepositoryFindingsRow in "repository_findings" {
        job_id: Int,
        repository: Text,
        severity: Text,
        kind: Text,
        object: Text,
        snapshot: Text,
        backup_timestamp: Text,
        snapshots: Int,
        detail: Text,
        found_at: Time,
        cluster: Text,
    }
}

system_row! {
    pub PrunedObjectsRow in "pruned_objects" {
        job_id: Int,
        repository: Text,
        object: Text,
        bytes: Int,
        written_at: Time,
        outcome: Text,
        cluster: Text,
    }
}

/// The files that each prune was about, one job after the other: what its events say.
pub(super) fn pruned_objects(context: Arc<ScanContext>) -> Chunks<PrunedObjectsRow> {
    let jobs = async move {
        let filter = JobFilter {
            kind: Some(JobKind::Prune),
            ids: context.request.ids(),
            ..JobFilter::default()
        };
        let jobs = context.sources.store.jobs(&filter).await?;
        let rows = move |job| pruned_by(context.clone(), job);
        Ok::<_, Error>(stream::iter(jobs).then(rows))
    };
    stream::once(jobs).try_flatten().boxed()
}

async fn pruned_by(context: Arc<ScanContext>, job: JobRow) -> Result<Vec<PrunedObjectsRow>, Error> {
    let (mut candidates, mut outcome, mut spared) = (None, "planned", HashSet::new());
    for row in context
        .sources
        .store
        .events(job.job_id..=job.job_id)
        .await?
    {
        match serde_json::from_str(&row.event) {
            Ok(JobEvent::Prune(PruneEvent::Planned {
                candidates: all,
                dry_run,
            })) => {
                outcome = if dry_run { "would be deleted" } else { outcome };
                candidates = Some(all);
            }
            Ok(JobEvent::Prune(PruneEvent::Deleted { kept, .. })) => {
                outcome = "deleted";
                spared.extend(kept);
            }
            _ => {}
        }
    }
    let rows = candidates
        .iter()
        .flat_map(|all| all.iter())
        .map(|candidate| PrunedObjectsRow {
            job_id: job.job_id.0.into(),
            repository: job.repository.clone().into(),
            object: candidate.object.path().into(),
            bytes: candidate.bytes.into(),
            written_at: candidate.written_at.into(),
            outcome: (if spared.contains(candidate.object.name()) {
                "kept"
            } else {
                outcome
            })
            .into(),
            cluster: job.cluster.clone().into(),
        });
    Ok(rows.collect())
}

pub(super) async fn verifications(context: &ScanContext) -> Result<Vec<VerificationsRow>, Error> {
    let rows = context
        .sources
        .store
        .verifications(context.request.id_range())
        .await?;
    let row = |v: VerificationRow| VerificationsRow {
        job_id: v.job_id.0.into(),
        repository: v.repository.into(),
        snapshot: v.snapshot.into(),
        backup_timestamp: v.backup_timestamp.into(),
        level: v.level.into(),
        started_at: v.started_at.into(),
        finished_at: v.verified_at.into(),
        ok: (v.damage == 0).into(),
        files_checked: v.checked.files.into(),
        bytes_checked: v.checked.bytes.into(),
        findings: v.damage.into(),
        sample: (f64::from(v.sample) / f64::from(SAMPLE_ALL)).into(),
        cluster: v.cluster.into(),
        restore_seconds: v.restore_ms.map(|ms| ms as f64 / 1000.0).into(),
    };
    Ok(rows.into_iter().map(row).collect())
}

pub(super) async fn repository_findings(
    context: &ScanContext,
) -> Result<Vec<RepositoryFindingsRow>, Error> {
    let rows = context
        .sources
        .store
        .findings(context.request.id_range())
        .await?;
    let rows = rows.into_iter().map(|f| {
        let is_damage = FindingKind::parse(&f.kind).is_none_or(FindingKind::is_damage);
        let (snapshot, timestamp) = f
            .backup
            .map(|b| (b.label.to_string(), b.timestamp.to_string()))
            .unzip();
        RepositoryFindingsRow {
            job_id: f.job_id.0.into(),
            repository: f.repository.into(),
            severity: (if is_damage { "error" } else { "info" }).into(),
            kind: f.kind.into(),
            object: f.object.into(),
            snapshot: snapshot.into(),
            backup_timestamp: timestamp.into(),
            snapshots: f.backups.into(),
            detail: f.detail.into(),
            found_at: f.found_at.into(),
            cluster: f.cluster.into(),
        }
    });
    Ok(rows.collect())
}

/// Cluster, repository, snapshot and timestamp.
type Backup = (String, String, String, String);

/// What is known of each backup that was looked at.
pub(super) type Latest = HashMap<Backup, VerificationRow>;

pub(super) async fn latest(sources: &Sources) -> Result<Latest, Error> {
    let mut latest = HashMap::new();
    let mut rows = sources.store.verifications(ALL_JOBS).await?;
    // Those that were imported have larger numbers than what came after them.
    rows.sort_by_key(|row| (row.verified_at, row.job_id));
    for row in rows {
        let key = (
            row.cluster.clone(),
            row.repository.clone(),
            row.snapshot.clone(),
            row.backup_timestamp.clone(),
        );
        // What one has found is not taken back by one that looked less, nor by what a repository
        // says of itself.
        let clears = |before: &VerificationRow| {
            let is_believed = before.is_imported || !row.is_imported;
            before.damage == 0
                || row.damage > 0
                || (is_believed
                    && row.sample == SAMPLE_ALL
                    && row.level != VerifyLevel::Files.name())
        };
        if latest.get(&key).is_none_or(clears) {
            latest.insert(key, row);
        }
    }
    Ok(latest)
}
