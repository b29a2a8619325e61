//! EXPLAIN of what a StarRocks cluster does in several steps: backups that follow others, and
//! restores beside what is there.

use std::collections::BTreeSet;

use super::refusals;
use super::steps::total;
use crate::admission::Caller;
use crate::admission::checks::Checks;
use crate::chains::Taken;
use crate::error::Error;
use crate::job::{Base, JobKind, Selection};
use crate::names::DatabaseName;
use crate::query::{JobStep, Severity};
use crate::statement::{BackupSnapshot, RestoreSnapshot};

/// What a backup takes itself, of one that follows another.
pub(super) struct Changed {
    partitions: BTreeSet<(String, String)>,
    base: Option<String>,
}

impl Changed {
    fn of(selection: &Selection) -> Self {
        let mut partitions = BTreeSet::new();
        for part in selection.contents.parts() {
            for partition in part.partitions {
                partitions.insert((part.table.to_string(), partition.name.to_string()));
            }
        }
        Self {
            partitions,
            base: selection.contents.base.as_ref().map(ToString::to_string),
        }
    }

    pub fn has(&self, table: &str, partition: &str) -> bool {
        let name = (table.to_owned(), partition.to_owned());
        self.partitions.contains(&name)
    }

    /// What is said of a table of which so many partitions have changed.
    pub fn note(&self, changed: usize, all: usize) -> String {
        match &self.base {
            Some(base) if changed < all => {
                format!("{changed} of {all} partitions have changed since snapshot {base}")
            }
            Some(base) => format!("all has changed since snapshot {base}"),
            None => "there is no snapshot to follow: a full backup".into(),
        }
    }
}

impl Caller {
    pub(super) async fn changed(
        &self,
        backup: &BackupSnapshot,
        database: &DatabaseName,
        base: &Base,
    ) -> Result<Changed, Error> {
        let chains = self.chains(&backup.repository);
        let external = self.explained_cluster()?;
        let selection = chains.select(external, database, backup, base).await?;
        Ok(Changed::of(&selection))
    }

    /// A restore that is done in steps: each snapshot that is read, and each table that takes its
    /// place.
    pub(super) async fn explain_staged(
        &mut self,
        restore: &RestoreSnapshot,
        database: &DatabaseName,
        chain: Option<&Taken>,
        mut checks: Checks,
    ) -> Result<Vec<JobStep>, Error> {
        let mut restore = restore.clone();
        if chain.is_none() {
            let resolved = self.resolve_latest(&mut restore).await;
            if checks.take(resolved)?.is_none() {
                return Ok(refusals(&restore.label.name, checks));
            }
        } else if let Some(taken) = chain {
            let timestamp = taken.stored.timestamp.to_string();
            let properties = &mut restore.properties.0;
            properties.insert("backup_timestamp".into(), timestamp);
        }
        let said = restore.properties.get("replication_num");
        if said.is_some_and(|n| n.eq_ignore_ascii_case("auto")) {
            // What it stands for is found out when the statement is carried out.
            restore.properties.0.remove("replication_num");
        }
        let planned = self.plan_staging(&restore, database, chain, true, &mut checks);
        let planned = planned.await?;
        let pace = self.pace(JobKind::Restore, &restore.repository).await?;
        let mut steps = refusals(&restore.label.name, checks);
        let Some(staging) = planned else {
            return Ok(steps);
        };
        steps.extend(staging.warnings.iter().map(|warning| JobStep {
            step: "check",
            object: restore.label.name.to_string(),
            action: "warn",
            severity: Severity::Warning,
            note: warning.clone(),
            ..JobStep::default()
        }));
        let rows = staging.request.steps.iter().zip(&staging.volumes);
        steps.extend(rows.map(|(step, volume)| {
            let names = step.parts.iter().map(|part| part.table.as_str());
            let partitions = step.parts.iter().map(|part| part.partitions.len() as u64);
            let bytes = volume.map(|(_, bytes)| bytes);
            JobStep {
                step: "DOWNLOADING",
                object: step.label.to_string(),
                action: "restore",
                partitions: Some(partitions.sum()),
                files: volume.map(|(files, _)| files),
                bytes,
                new_bytes: bytes,
                estimated_seconds: bytes.and_then(|bytes| pace.transfer(bytes)),
                note: format!(
                    "beside what is there: {}",
                    names.collect::<Vec<_>>().join(", ")
                ),
                ..JobStep::default()
            }
        }));
        let mut sum = total(
            &steps,
            restore.label.name.to_string(),
            pace.note(JobKind::Restore),
        );
        steps.extend(staging.request.joins().into_iter().map(|join| {
            let (table, step) = (
                &staging.request.tables[join.table],
                &staging.request.steps[join.step],
            );
            let part = step.parts.iter().find(|part| part.table == table.name);
            JobStep {
                step: "COMMIT",
                object: format!("{database}.{}", table.target),
                action: "join",
                partitions: part.map(|part| part.partitions.len() as u64),
                note: format!("what comes from {} is inserted into the rest", step.label),
                ..JobStep::default()
            }
        }));
        let tables = staging.request.tables.iter().zip(&staging.replaces);
        steps.extend(tables.map(|(table, replaces)| JobStep {
            step: "COMMITTING",
            object: format!("{database}.{}", table.target),
            action: if *replaces { "swap" } else { "rename" },
            note: match replaces {
                true => "takes the place of the table that is there, which is dropped".into(),
                false => "gets its name".into(),
            },
            ..JobStep::default()
        }));
        sum.estimated_seconds = sum.new_bytes.and_then(|bytes| pace.whole(bytes));
        steps.push(sum);
        Ok(steps)
    }
}
