//! The rows of EXPLAIN: sums, estimates, and a step for each table.

use std::collections::HashSet;

use crate::job::{BackupPlan, JobKind, PlannedTable, RestorePlan, Volume};
use crate::names::{DatabaseName, Sha256};
use crate::query::JobStep;

/// The sums of some steps, as a step of its own.
pub(super) fn total(steps: &[JobStep], object: String, note: String) -> JobStep {
    let sum = |value: fn(&JobStep) -> Option<u64>| {
        steps.iter().filter_map(value).reduce(u64::saturating_add)
    };
    JobStep {
        step: "total",
        object,
        action: "sum",
        partitions: sum(|s| s.partitions),
        tablets: sum(|s| s.tablets),
        files: sum(|s| s.files),
        bytes: sum(|s| s.bytes),
        new_bytes: sum(|s| s.new_bytes),
        note,
        ..JobStep::default()
    }
}

/// How fast jobs of a kind have moved bytes to or from a repository.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub jobs: usize,
    /// Seconds that a job takes beside its transfer, on the average.
    pub overhead: f64,
    pub bytes_per_second: Option<f64>,
}

impl Pace {
    /// How long so many bytes take.
    pub fn transfer(&self, bytes: u64) -> Option<f64> {
        let rate = self.bytes_per_second?;
        Some((bytes as f64 / rate * 1000.0).round() / 1000.0)
    }

    /// How long a job that moves so many takes.
    pub fn whole(&self, bytes: u64) -> Option<f64> {
        Some(((self.transfer(bytes)? + self.overhead) * 1000.0).round() / 1000.0)
    }

    pub fn note(&self, kind: JobKind) -> String {
        match (self.jobs, self.bytes_per_second) {
            (0, _) | (_, None) => {
                format!("no {kind} of this repository has moved anything yet to estimate from")
            }
            (1, Some(rate)) => format!("estimated from one {kind} at {rate:.0} bytes a second"),
            (n, Some(rate)) => format!("estimated from {n} {kind}s at {rate:.0} bytes a second"),
        }
    }
}

/// The counts of some tables; a file that stands in several counts once.
pub(super) fn of_tables<'t>(tables: impl Iterator<Item = &'t PlannedTable>) -> JobStep {
    let (mut partitions, mut tablets, mut volume) = (0, 0, Volume::default());
    let mut seen = HashSet::new();
    for partition in tables.flat_map(|t| &t.partitions) {
        partitions += 1;
        tablets += partition.tablets.len() as u64;
        let files = partition.tablets.iter().flat_map(|t| &t.files);
        volume.add(Volume::of(files.filter(|f| seen.insert(&f.sha256))));
    }
    JobStep {
        partitions: Some(partitions),
        tablets: Some(tablets),
        files: Some(volume.files),
        bytes: Some(volume.bytes),
        ..JobStep::default()
    }
}

/// One step a table and a view. `lacking`: the files that have to be brought, if that is known;
/// each counts for the first table that has it.
pub(super) fn uploads(
    database: &DatabaseName,
    plan: &BackupPlan,
    mut lacking: Option<HashSet<Sha256>>,
    pace: &Pace,
) -> Vec<JobStep> {
    let mut steps = Vec::new();
    for table in &plan.tables {
        let counted = of_tables(std::iter::once(table));
        let files = table
            .partitions
            .iter()
            .flat_map(|p| &p.tablets)
            .flat_map(|t| &t.files);
        let new = lacking
            .as_mut()
            .map(|lacking| Volume::of(files.filter(|file| lacking.remove(&file.sha256))));
        let held = new.map(|new| counted.files.unwrap_or_default() - new.files);
        steps.push(JobStep {
            step: "UPLOADING",
            object: format!("{database}.{}", table.name),
            action: "upload",
            new_bytes: new.map(|new| new.bytes),
            estimated_seconds: new.and_then(|new| pace.transfer(new.bytes)),
            note: match held {
                Some(0) => String::new(),
                Some(1) => "one file is in the repository already".into(),
                Some(held) => format!("{held} files are in the repository already"),
                None => "what the repository has is not known now".into(),
            },
            ..counted
        });
    }
    steps.extend(plan.views.iter().map(|view| JobStep {
        step: "SAVE_META",
        object: format!("{database}.{}", view.name),
        action: "keep definition",
        ..JobStep::default()
    }));
    steps
}

/// One step a table and a view of a restore; bytes are those of every replica.
pub(super) fn downloads(database: &DatabaseName, plan: &RestorePlan, pace: &Pace) -> Vec<JobStep> {
    let mut steps = Vec::new();
    for table in &plan.tables {
        let tablets = || table.partitions.iter().flat_map(|p| &p.tablets);
        let volume = Volume::of(tablets().flat_map(|t| &t.files));
        let replaced = table
            .partitions
            .iter()
            .filter(|p| p.replaces.is_some())
            .count();
        let note = match (table.exists, replaced, table.partitions.len() - replaced) {
            (false, ..) => format!("{} replicas of each tablet", table.replication_num),
            (true, replaced, 0) => format!("replaces {replaced} partitions"),
            (true, 0, added) => format!("adds {added} partitions"),
            (true, replaced, added) => {
                format!("replaces {replaced} partitions and adds {added}")
            }
        };
        steps.push(JobStep {
            step: "DOWNLOADING",
            object: format!("{database}.{}", table.name),
            action: match (table.exists, replaced) {
                (false, _) => "create table",
                (true, 0) => "add partitions",
                (true, _) => "replace partitions",
            },
            partitions: Some(table.partitions.len() as u64),
            tablets: Some(tablets().count() as u64),
            files: Some(volume.files),
            bytes: Some(volume.bytes),
            new_bytes: Some(volume.bytes),
            estimated_seconds: pace.transfer(volume.bytes),
            note,
            ..JobStep::default()
        });
    }
    steps.extend(plan.views.iter().map(|view| JobStep {
        step: "COMMITTING",
        object: format!("{database}.{}", view.name),
        action: "create or replace view",
        ..JobStep::default()
    }));
    steps
}
