//! EXPLAIN of a statement that starts a job: what it would do, what that would cost, and every
//! check that it would not pass. Nothing is changed, and nothing is held while it is looked at.

mod external;
mod staged;
mod steps;
mod stored_prune;

use std::collections::{HashMap, HashSet};

use self::steps::{Pace, downloads, of_tables, total, uploads};
use super::Caller;
use super::checks::{BackupChecked, Checks, RestoreChecked};
use crate::error::{Error, ErrorKind};
use crate::job::{
    DataFile, DropRequest, DroppedBackups, JobKind, JobStatus, RestorePlan, RestoreRequest,
    VerifyLevel, Work,
};
use crate::names::*;
use crate::privilege::{Privilege, Securable};
use crate::query::{JobStep, Severity};
use crate::repository::Repository;
use crate::statement::{BackupSnapshot, DropSnapshot, Prune, RestoreSnapshot, Statement, Verify};
use crate::store::JobFilter;

/// Jobs of the history from which a duration is estimated: the newest of the same kind and
/// repository that moved something.
const JOBS_LOOKED_AT: usize = 50;

fn told(severity: Severity, object: &str, error: &Error) -> JobStep {
    let mut note = format!("{}: {}", error.kind.sqlstate(), error.message);
    for more in [&error.detail, &error.hint].into_iter().flatten() {
        note = format!("{note} ({more})");
    }
    JobStep {
        step: "check",
        object: object.to_owned(),
        action: match severity {
            Severity::Error => "refuse",
            Severity::Warning | Severity::Info => "warn",
        },
        severity,
        note,
        ..JobStep::default()
    }
}

/// What keeps a job waiting and does not end it.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Storage | ErrorKind::Connection)
}

/// The checks that failed, each once: several of them look at the same thing.
fn refusals(object: impl ToString, checks: Checks) -> Vec<JobStep> {
    let (object, mut seen) = (object.to_string(), HashSet::new());
    let failed = checks.failed();
    let new = failed.iter().filter(|e| seen.insert(e.message.clone()));
    new.map(|error| told(Severity::Error, &object, error))
        .collect()
}

impl Caller {
    /// The steps of a statement that starts a job; 0A000 where its cluster does the work itself.
    pub async fn explain(&mut self, statement: &Statement) -> Result<Vec<JobStep>, Error> {
        if let Statement::Restore(restore) = statement
            && let Some(other) = &restore.cluster
        {
            return self.explain_elsewhere(other, restore).await;
        }
        if self.cluster.managed().is_err() {
            return self.explain_external(statement).await;
        }
        match statement {
            Statement::Backup(backup) => self.explain_backup(backup).await,
            Statement::Restore(restore) => self.explain_restore(restore).await,
            Statement::DropSnapshot(drop) => self.explain_drop(drop).await,
            Statement::Prune(prune) => self.explain_prune(prune).await,
            Statement::Verify(verify) => self.explain_verify(verify).await,
            _ => Err(Error::internal("a statement that is no job was explained")),
        }
    }

    async fn pace(&self, kind: JobKind, repository: &RepositoryName) -> Result<Pace, Error> {
        let filter = JobFilter {
            cluster: Some(self.cluster.name().to_string()),
            repository: Some(repository.to_string()),
            kind: Some(kind),
            status: Some(JobStatus::Succeeded),
            descending: true,
            own: true,
            limit: Some(JOBS_LOOKED_AT),
            ..JobFilter::default()
        };
        let jobs = self.gateway.store.jobs(&filter).await?;
        let moved = jobs.iter().filter_map(|job| {
            let (began, ended) = (job.snapshot_finished_at?, job.transfer_finished_at?);
            // Of one that was paused it is not known how long it moved bytes.
            let is_steady = job.paused_ms == 0;
            let whole = job.finished_at?.0 - job.started_at?.0;
            let transfer = (ended.0 - began.0).max(1);
            (is_steady && job.bytes_new > 0).then_some((
                job.bytes_new,
                transfer,
                (whole - transfer).max(0),
            ))
        });
        let moved: Vec<_> = moved.collect();
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let bytes: u64 = moved.iter().map(|(bytes, ..)| bytes).sum();
        let transfer: i64 = moved.iter().map(|(_, transfer, _)| transfer).sum();
        let beside: i64 = moved.iter().map(|(.., beside)| beside).sum();
        Ok(Pace {
            jobs: moved.len(),
            overhead: seconds(beside) / moved.len().max(1) as f64,
            bytes_per_second: (bytes > 0).then(|| bytes as f64 / seconds(transfer)),
        })
    }

    /// What cannot be reached now: the job would wait for it.
    async fn unreachable(&self, repository: &Repository) -> Result<Vec<JobStep>, Error> {
        let mut steps = Vec::new();
        if let Err(error) = repository.ping().await {
            let name = repository.name().as_str();
            steps.push(told(Severity::Error, name, &error));
        }
        let silent = self.cluster.managed()?.silent_backends().await?;
        let warning = |(id, error): (BackendId, Error)| {
            told(Severity::Warning, &format!("backend {id}"), &error)
        };
        steps.extend(silent.into_iter().map(warning));
        Ok(steps)
    }

    /// Whether another job would keep this one from being admitted.
    async fn check_locks(&self, work: Work, checks: &mut Checks) -> Result<(), Error> {
        let spec = self.spec(None, work, "");
        let admitted = self.gateway.store.check_admission(&spec).await;
        checks.take(admitted).map(drop)
    }

    async fn explain_backup(&self, backup: &BackupSnapshot) -> Result<Vec<JobStep>, Error> {
        let mut checks = Checks::every();
        checks.take(super::embedded::refuse_catalogs(backup.catalogs.as_ref()))?;
        let database = self.database_or_current(backup.label.database.as_ref())?;
        let checked = self.check_backup(backup, &database, &mut checks).await?;
        let Some(BackupChecked {
            request,
            repository,
            ..
        }) = checked
        else {
            return Ok(refusals(&backup.label.name, checks));
        };
        let target = crate::job::Target {
            database: database.clone(),
            label: backup.label.name.clone(),
            repository: backup.repository.clone(),
        };
        let work = Work::Backup {
            target,
            request: request.clone(),
        };
        self.check_locks(work, &mut checks).await?;
        let mut steps = refusals(&backup.label.name, checks);
        steps.extend(self.unreachable(&repository).await?);
        let plan = self
            .cluster
            .managed()?
            .backup_preview(&database, &request)?;
        let files = plan.tablets().flat_map(|t| &t.files);
        let lacking = match repository.lacking(files).await {
            Ok(lacking) => Some(lacking.into_iter().map(|f| f.sha256.clone()).collect()),
            Err(error) if is_passing(&error) => None,
            Err(error) => return Err(error),
        };
        let pace = self.pace(JobKind::Backup, &backup.repository).await?;
        steps.extend(uploads(&database, &plan, lacking, &pace));
        let label = backup.label.name.to_string();
        let mut sum = total(&steps, label.clone(), pace.note(JobKind::Backup));
        sum.estimated_seconds = sum.new_bytes.and_then(|bytes| pace.whole(bytes));
        if let Some(base) = &request.base {
            sum.note = format!("follows snapshot {base}; {}", sum.note);
        }
        steps.push(JobStep {
            step: "UPLOAD_INFO",
            object: label,
            action: "put manifest",
            note: "with this the snapshot exists".into(),
            ..JobStep::default()
        });
        steps.push(sum);
        Ok(steps)
    }

    async fn explain_restore(&self, restore: &RestoreSnapshot) -> Result<Vec<JobStep>, Error> {
        let mut checks = Checks::every();
        let checked = self.check_restore(restore, &mut checks).await?;
        let Some(RestoreChecked {
            target,
            request,
            manifest,
            ..
        }) = checked
        else {
            return Ok(refusals(&restore.label.name, checks));
        };
        let database = &target.database;
        let chosen = self
            .check_restored(restore, database, &manifest, &mut checks)
            .await?;
        let (objects, views) = chosen.unwrap_or_default();
        let request = RestoreRequest {
            objects,
            views,
            ..request
        };
        let work = Work::Restore {
            target: target.clone(),
            request: request.clone(),
        };
        self.check_locks(work, &mut checks).await?;
        let managed = self.cluster.managed()?;
        let mut plans = Vec::new();
        for preview in managed
            .restore_preview(database, &request, &manifest)
            .await?
        {
            plans.extend(checks.take(preview)?);
        }
        let mut steps = refusals(&restore.label.name, checks);
        let (_, repository) = self.open(&restore.repository).await?;
        steps.extend(self.unreachable(&repository).await?);
        let needed: Vec<&DataFile> = plans
            .iter()
            .flat_map(RestorePlan::tablets)
            .flat_map(|t| &t.files)
            .collect();
        match repository.lacking(needed.iter().copied()).await {
            Ok(lacking) => steps.extend(lacking.into_iter().map(|file| {
                let message = format!("file {} is missing or of another length", file.sha256);
                let lost = Error::new(ErrorKind::Corrupted, message);
                told(Severity::Error, restore.label.name.as_str(), &lost)
            })),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        if request.makes_database {
            steps.push(JobStep {
                step: "PENDING",
                object: database.to_string(),
                action: "create database",
                ..JobStep::default()
            });
        }
        let pace = self.pace(JobKind::Restore, &restore.repository).await?;
        steps.extend(
            plans
                .iter()
                .flat_map(|plan| downloads(database, plan, &pace)),
        );
        let label = target.label.to_string();
        let mut sum = total(&steps, label, pace.note(JobKind::Restore));
        sum.estimated_seconds = sum.new_bytes.and_then(|bytes| pace.whole(bytes));
        steps.push(sum);
        Ok(steps)
    }

    async fn explain_drop(&self, drop: &DropSnapshot) -> Result<Vec<JobStep>, Error> {
        let mut checks = Checks::every();
        let required = self.require(Privilege::Repository, Securable::System).await;
        if checks.take(required)?.is_none() {
            return Ok(refusals(&drop.label, checks));
        }
        let Some((record, repository)) = checks.take(self.open(&drop.repository).await)? else {
            return Ok(refusals(&drop.label, checks));
        };
        let (name, label) = (&record.name, &drop.label);
        if record.read_only {
            let message = format!("Repository {name} is read only");
            checks.fail(Error::new(ErrorKind::WrongState, message))?;
        }
        let cluster_id = self.cluster.managed()?.id().to_owned();
        let work = Work::DropSnapshot(DropRequest {
            repository: name.clone(),
            label: label.clone(),
            backups: DroppedBackups::All {
                cluster_id: cluster_id.clone(),
                force: drop.force,
            },
        });
        self.check_locks(work, &mut checks).await?;
        let listing = checks.take(repository.snapshot(label).await)?;
        let backups = listing.map(|listing| listing.backups).unwrap_or_default();
        if backups.is_empty() {
            let message = format!("Snapshot does not exist in repository {name}: {label}");
            checks.fail(Error::new(ErrorKind::UndefinedObject, message))?;
        }
        for backup in backups.iter().filter(|_| !drop.force) {
            let made = repository.check_maker(label, &backup.timestamp, &cluster_id);
            checks.take(made.await)?;
        }
        // What other snapshots need stays whatever is dropped.
        let (mut own, mut shared) = (HashMap::new(), HashSet::new());
        let mut dropped = Vec::new();
        for listing in repository.snapshots().await? {
            for backup in &listing.backups {
                let is_dropped = listing.label == *label;
                let manifest = match repository.listed_manifest(&listing.label, backup).await {
                    Ok(manifest) => manifest,
                    Err(error) => {
                        let object = format!("{}/{}", listing.label, backup.timestamp);
                        dropped.push(told(Severity::Warning, &object, &error));
                        continue;
                    }
                };
                if !is_dropped {
                    shared.extend(manifest.files().map(|f| f.sha256.clone()));
                    continue;
                }
                own.extend(manifest.files().map(|f| (f.sha256.clone(), f.bytes)));
                dropped.push(JobStep {
                    step: "DELETING",
                    object: format!("{label}/{}", backup.timestamp),
                    action: "delete manifest",
                    note: format!("of database {}", manifest.database),
                    ..of_tables(manifest.tables.iter())
                });
            }
        }
        own.retain(|sha256, _| !shared.contains(sha256));
        let mut steps = refusals(&drop.label, checks);
        steps.extend(dropped);
        steps.push(JobStep {
            step: "later",
            object: label.to_string(),
            action: "left for PRUNE",
            files: Some(own.len() as u64),
            bytes: Some(own.values().sum()),
            note: "no other snapshot needs these files; PRUNE REPOSITORY deletes them".into(),
            ..JobStep::default()
        });
        Ok(steps)
    }

    async fn explain_prune(&self, prune: &Prune) -> Result<Vec<JobStep>, Error> {
        let mut checks = Checks::every();
        let Some(request) = self.check_prune(prune, &mut checks).await? else {
            return Ok(refusals(&prune.repository, checks));
        };
        self.check_locks(Work::Prune(request.clone()), &mut checks)
            .await?;
        let Some((_, repository)) = checks.take(self.open(&prune.repository).await)? else {
            return Ok(refusals(&prune.repository, checks));
        };
        // Asking the repository for its own time would write to it.
        let now = self.gateway.env.now();
        let unneeded = repository.unneeded_at(now, request.grace_seconds);
        let unneeded = checks.take(unneeded.await)?;
        // What marks nothing hinders nobody.
        let marks = !request.dry_run && unneeded.as_ref().is_some_and(|c| !c.is_empty());
        let unmarked = if marks {
            repository.check_unmarked(&self.gateway.env).await
        } else {
            Ok(())
        };
        let pruned = checks.take(unmarked)?;
        let mut steps = refusals(&prune.repository, checks);
        if let (Some(candidates), Some(())) = (unneeded, pruned) {
            let bytes = candidates.iter().map(|c| c.bytes).sum();
            let name = prune.repository.to_string();
            if !request.dry_run {
                steps.push(JobStep {
                    step: "WAITING",
                    object: name.clone(),
                    action: "mark and wait",
                    estimated_seconds: Some(request.wait_seconds as f64),
                    note: "backups that rely on a marked file wait meanwhile".into(),
                    ..JobStep::default()
                });
            }
            steps.push(JobStep {
                step: "DELETING",
                object: name,
                action: if request.dry_run { "list" } else { "delete" },
                files: Some(candidates.len() as u64),
                bytes: Some(bytes),
                note: format!(
                    "no manifest names them, and they are older than {} seconds",
                    request.grace_seconds
                ),
                ..JobStep::default()
            });
        }
        Ok(steps)
    }

    async fn explain_verify(&self, verify: &Verify) -> Result<Vec<JobStep>, Error> {
        let mut checks = Checks::every();
        let Some(request) = self.check_verify(verify, &mut checks).await? else {
            return Ok(refusals(&verify.repository, checks));
        };
        self.check_locks(Work::Verify(request.clone()), &mut checks)
            .await?;
        let (planned, repository) = if self.cluster.managed().is_err() {
            let stored = self.stored_repository(&verify.repository).await;
            let Some(stored) = checks.take(stored)? else {
                return Ok(refusals(&verify.repository, checks));
            };
            let planned = stored.plan_verification(&request, true, None).await;
            (planned.map(|(plan, _)| plan), None)
        } else {
            let Some((_, repository)) = checks.take(self.open(&verify.repository).await)? else {
                return Ok(refusals(&verify.repository, checks));
            };
            let planned = repository.plan_verification(&request, true, None).await;
            (planned.map(|(plan, _)| plan), Some(repository))
        };
        let Some(plan) = checks.take(planned)? else {
            return Ok(refusals(&verify.repository, checks));
        };
        let mut steps = refusals(&verify.repository, checks);
        steps.extend(plan.findings.kept().iter().map(|finding| JobStep {
            step: "PENDING",
            object: finding.object.clone(),
            action: finding.kind.name(),
            severity: Severity::Warning,
            note: finding.detail.clone(),
            ..JobStep::default()
        }));
        let share = f64::from(request.sample) / f64::from(crate::job::SAMPLE_ALL);
        let read = match request.level {
            crate::job::VerifyLevel::Files => 0,
            _ => (plan.files.bytes as f64 * share) as u64,
        };
        steps.push(JobStep {
            step: "VERIFYING",
            object: verify
                .label
                .as_ref()
                .map_or_else(|| verify.repository.to_string(), ToString::to_string),
            action: request.level.name(),
            files: Some(plan.files.files),
            bytes: Some(plan.files.bytes),
            new_bytes: Some(read),
            note: format!("{} backups; new_bytes are read", plan.backups.len()),
            ..JobStep::default()
        });
        if request.level == VerifyLevel::Restore
            && let Some(repository) = repository
        {
            let pace = self.pace(JobKind::Restore, &verify.repository).await?;
            for backup in &plan.backups {
                let manifest = repository.manifest(&backup.label, &backup.timestamp).await;
                // What does not read is among the findings.
                let Ok((manifest, _)) = manifest else {
                    continue;
                };
                let bytes = manifest.volume().bytes;
                steps.push(JobStep {
                    step: "RESTORING",
                    object: format!("{}/{}", backup.label, backup.timestamp),
                    action: "restore, read and drop",
                    new_bytes: Some(bytes),
                    estimated_seconds: pace.whole(bytes),
                    ..of_tables(manifest.tables.iter())
                });
            }
        } else if request.level == VerifyLevel::Restore {
            steps.extend(plan.backups.iter().map(|backup| JobStep {
                step: "RESTORING",
                object: format!("{}/{}", backup.label, backup.timestamp),
                action: "restore, read and drop",
                note: "by the cluster, with one replica".into(),
                ..JobStep::default()
            }));
        }
        Ok(steps)
    }
}
