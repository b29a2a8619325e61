//! What is read of the history, and how it is asked for.

use super::*;
use crate::job::JobStatus;

/// What a verification came to for one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationRow {
    pub job_id: JobId,
    pub cluster: String,
    pub repository: String,
    pub snapshot: String,
    pub backup_timestamp: String,
    /// `files`, `checksum` or `restore`.
    pub level: String,
    /// How many of ten thousand files were read.
    pub sample: u32,
    /// Findings by which a restore would fail.
    pub damage: u64,
    /// What the whole job looked at; at `checksum`, what it read.
    pub checked: Volume,
    /// How long restoring the backup took, milliseconds, if it was restored.
    pub restore_ms: Option<u64>,
    pub started_at: Timestamp,
    pub verified_at: Timestamp,
    /// Whether another gateway has done it.
    pub is_imported: bool,
}

/// Something that a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingRow {
    pub job_id: JobId,
    /// From 1, damage first.
    pub number: u64,
    pub cluster: String,
    pub repository: String,
    pub kind: String,
    /// From the repository's directory on.
    pub object: String,
    /// The first backup that needs it, if any does.
    pub backup: Option<BackupName>,
    /// How many need it.
    pub backups: u64,
    pub detail: String,
    pub found_at: Timestamp,
}

/// The rows that follow from a verification that has ended well.
pub(super) fn verification_rows(job: &Job) -> Option<(Vec<VerificationRow>, Vec<FindingRow>)> {
    let (Work::Verify(request), JobState::Verify(state)) = (&job.spec.work, &job.state) else {
        return None;
    };
    let (report, at) = (state.report()?, job.record.finished_at?);
    let (cluster, repository) = (job.spec.cluster.to_string(), request.repository.to_string());
    let backups = report
        .backups
        .iter()
        .enumerate()
        .map(|(place, backup)| VerificationRow {
            job_id: job.id,
            cluster: cluster.clone(),
            repository: repository.clone(),
            snapshot: backup.label.to_string(),
            backup_timestamp: backup.timestamp.to_string(),
            level: request.level.name().to_owned(),
            sample: request.sample,
            damage: report.findings.damage_of(place),
            checked: report.checked,
            restore_ms: report.took_ms.get(&(place as u32)).copied(),
            started_at: job.record.started_at.unwrap_or(job.created_at),
            verified_at: at,
            is_imported: false,
        });
    let findings = report
        .findings
        .kept()
        .iter()
        .zip(1..)
        .map(|(finding, number)| FindingRow {
            job_id: job.id,
            number,
            cluster: cluster.clone(),
            repository: repository.clone(),
            kind: finding.kind.name().to_owned(),
            object: finding.object.clone(),
            backup: finding
                .backups
                .first()
                .and_then(|place| report.backups.get(*place as usize))
                .cloned(),
            backups: finding.backups.len() as u64,
            detail: finding.detail.clone(),
            found_at: at,
        });
    Some((backups.collect(), findings.collect()))
}

/// Which jobs are wanted; `None` means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    pub job_id: Option<JobId>,
    pub cluster: Option<String>,
    /// Of this database.
    pub db_name: Option<String>,
    /// Under this label.
    pub snapshot: Option<String>,
    pub kind: Option<JobKind>,
    pub status: Option<JobStatus>,
    /// Only the latest of each database, of those that have had their turn; with a cluster and a
    /// kind.
    pub latest: bool,
    pub repository: Option<String>,
    /// Only what this gateway has done.
    pub own: bool,
    /// With a number in this span.
    pub ids: Span<JobId>,
    pub created: Span<Timestamp>,
    pub order: JobOrder,
    /// The largest come first.
    pub descending: bool,
    /// Those that come after this one in the order; it need not be there.
    pub after: Option<(Timestamp, JobId)>,
    /// So many at most.
    pub limit: Option<usize>,
}

/// What jobs are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobOrder {
    #[default]
    Id,
    /// When they were made, and their numbers where that is the same.
    CreatedAt,
}

/// From one value to another, both included; without a bound it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<T> {
    pub from: Option<T>,
    pub to: Option<T>,
}

impl<T> Default for Span<T> {
    fn default() -> Self {
        Self {
            from: None,
            to: None,
        }
    }
}

impl<T: PartialOrd> Span<T> {
    pub fn contains(&self, value: &T) -> bool {
        self.from.as_ref().is_none_or(|from| from <= value)
            && self.to.as_ref().is_none_or(|to| value <= to)
    }

    /// Leaves only what is not smaller than this.
    pub fn raise(&mut self, from: T) {
        if self.from.as_ref().is_none_or(|f| *f < from) {
            self.from = Some(from);
        }
    }

    /// Leaves only what is not larger than this.
    pub fn lower(&mut self, to: T) {
        if self.to.as_ref().is_none_or(|t| to < *t) {
            self.to = Some(to);
        }
    }
}

/// One row of `system.job_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    pub job_id: JobId,
    /// From 1.
    pub seq: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// The phase before.
    pub from_state: String,
    /// The phase after.
    pub to_state: String,
    /// The event as JSON.
    pub event: String,
}
