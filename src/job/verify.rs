//! The machine that looks whether backups are whole: PENDING → VERIFYING [→ RESTORING] → FINISHED |
//! CANCELLED.
//!
//! Which backups are looked at, and in how many parts their files are, is fixed by an event. A part
//! is the files whose hashes begin alike, so each file is looked at once, however many backups have
//! it, and looking twice does no harm. What is found is a result, not a failure: the job has done
//! what it was for. At the deepest level each backup is restored by a job of its own into a
//! database that nobody else uses, read, and dropped; a verification that is cancelled meanwhile
//! releases that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::tasks::TasksLeft;
use super::{End, Failure, IllegalEvent, Machine, Phase, Volume};
use crate::names::{BackupTimestamp, JobId, RepositoryName, SnapshotLabel, TaskId};

/// What is to be verified, and how well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    pub repository: RepositoryName,
    /// One snapshot; everything in the repository if there is none.
    pub label: Option<SnapshotLabel>,
    pub level: VerifyLevel,
    /// How many of ten thousand files are read, at the levels that read files.
    pub sample: u32,
}

/// The most parts that files are looked at in: more would be smaller than one directory of `data`.
/// A journal that says more is none of ours.
pub const PARTS_MAX: u32 = 256;

/// Everything is read.
pub const SAMPLE_ALL: u32 = 10_000;

/// How deep a verification goes. The names are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyLevel {
    /// Manifests are read; files are there in their length.
    Files,
    /// Files are read, and their bytes are those of their names.
    Checksum,
    /// And then each backup is restored, and what was restored is read.
    Restore,
}

impl VerifyLevel {
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Checksum => "checksum",
            Self::Restore => "restore",
        }
    }
}

/// A backup by its place in a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackupName {
    pub label: SnapshotLabel,
    pub timestamp: BackupTimestamp,
}

/// What can be wrong with an object. The names are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A manifest that does not read, or is not of its place.
    ManifestDamaged,
    /// A manifest of a format that this version does not know.
    ManifestNewer,
    /// A file that a manifest names is not there.
    Missing,
    /// It has another length.
    WrongLength,
    /// It has other bytes.
    Damaged,
    /// It cannot be read, while the rest of the repository can.
    Unreadable,
    /// A restore of the backup did not end well, or brought something else.
    NotRestorable,
    /// A file that no manifest names: of a backup that is under way, or left by one that is gone.
    Unreferenced,
    /// Something that is none of the repository's.
    Foreign,
}

impl FindingKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::ManifestDamaged => "manifest_damaged",
            Self::ManifestNewer => "manifest_newer",
            Self::Missing => "missing",
            Self::WrongLength => "wrong_length",
            Self::Damaged => "damaged",
            Self::Unreadable => "unreadable",
            Self::NotRestorable => "not_restorable",
            Self::Unreferenced => "unreferenced",
            Self::Foreign => "foreign",
        }
    }

    const ALL: &[Self] = &[
        Self::ManifestDamaged,
        Self::ManifestNewer,
        Self::Missing,
        Self::WrongLength,
        Self::Damaged,
        Self::Unreadable,
        Self::NotRestorable,
        Self::Unreferenced,
        Self::Foreign,
    ];

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether a restore would fail by it.
    pub fn is_damage(self) -> bool {
        !matches!(self, Self::Unreferenced | Self::Foreign)
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// The object, from the repository's directory on.
    pub object: String,
    /// The backups that need it, by their places in the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<u32>,
    pub detail: String,
}

/// Findings of one job that are kept: so many that are damage, and so many others. The rest is
/// counted.
pub const FINDINGS_KEPT: usize = 10_000;

/// What was found, as much of it as is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    kept: Vec<Finding>,
    /// How many of those are damage.
    #[serde(default)]
    kept_damage: usize,
    #[serde(default)]
    omitted: u64,
    /// How much damage each backup has, kept or not, by its place in the plan.
    #[serde(default)]
    damage: BTreeMap<u32, u64>,
}

impl Findings {
    pub fn push(&mut self, finding: Finding) {
        let is_damage = finding.kind.is_damage();
        if is_damage {
            for backup in &finding.backups {
                *self.damage.entry(*backup).or_default() += 1;
            }
        }
        self.keep(finding);
    }

    fn keep(&mut self, finding: Finding) {
        let is_damage = finding.kind.is_damage();
        let others = self.kept.len() - self.kept_damage;
        let alike = if is_damage { self.kept_damage } else { others };
        if alike < FINDINGS_KEPT {
            self.kept_damage += usize::from(is_damage);
            self.kept.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    fn add(&mut self, more: &Self) {
        more.kept
            .iter()
            .for_each(|finding| self.keep(finding.clone()));
        self.omitted += more.omitted;
        for (backup, count) in &more.damage {
            *self.damage.entry(*backup).or_default() += count;
        }
    }

    /// Those that are kept, damage first.
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.kept.len() as u64 + self.omitted
    }

    /// How many of them keep a backup from being restored.
    pub fn damage_of(&self, backup: usize) -> u64 {
        self.damage
            .get(&(backup as u32))
            .copied()
            .unwrap_or_default()
    }

    /// Takes what was found of backups that are not looked at any more out of it; a finding that
    /// concerned only those goes.
    pub fn without(self, gone: &BTreeSet<u32>) -> Self {
        let mut left = Self {
            omitted: self.omitted,
            ..Self::default()
        };
        for mut finding in self.kept {
            finding.backups.retain(|backup| !gone.contains(backup));
            if !finding.backups.is_empty() || !finding.kind.is_damage() {
                left.keep(finding);
            }
        }
        left.damage = self
            .damage
            .into_iter()
            .filter(|(backup, _)| !gone.contains(backup))
            .collect();
        left
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyPlan {
    /// The id of the repository: another one at the same name is not what is looked at.
    pub repository_id: String,
    pub backups: Vec<BackupName>,
    /// How many parts the files are in.
    pub parts: u32,
    /// What reading the manifests and listing the repository has found already.
    pub findings: Findings,
    /// The files of all backups, each once.
    pub files: Volume,
    /// Whether the backups are restored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restores: bool,
}

/// What restoring one backup came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestRestore {
    pub job_id: Option<JobId>,
    /// How long that took from its first step, milliseconds; nothing if it did not end well.
    pub took_ms: Option<u64>,
    /// What was read of the restored tables.
    pub volume: Volume,
    pub rows: u64,
    pub findings: Findings,
}

/// What looking at some files came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What was looked at; at the levels that read files, what was read.
    pub volume: Volume,
    pub findings: Findings,
}

/// What a verification came to so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    pub repository_id: String,
    pub backups: Vec<BackupName>,
    pub files: Volume,
    pub checked: Volume,
    pub findings: Findings,
    pub restores: bool,
    /// How long restoring each backup took, milliseconds, by its place in the plan.
    pub took_ms: BTreeMap<u32, u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum VerifyState {
    Pending,
    Verifying {
        report: Arc<VerifyReport>,
        left: TasksLeft,
    },
    /// The backups are being restored, one task each.
    Restoring {
        report: Arc<VerifyReport>,
        left: TasksLeft,
    },
    Finished {
        report: Arc<VerifyReport>,
    },
    /// `released`: nothing is left of a backup that was being restored.
    Cancelled {
        failure: Failure,
        released: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VerifyCommand {
    /// Read the manifests, and see what there is to look at.
    Plan,
    /// Look at one part of the files.
    Check(TaskId),
    /// Restore one backup, read it, and drop it.
    Restore(TaskId),
    /// End what restores a backup, and drop what it made.
    Release,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyEvent {
    /// What is looked at is fixed.
    Planned {
        plan: Arc<VerifyPlan>,
    },
    /// A part was looked at.
    Checked {
        task: TaskId,
        checked: Checked,
    },
    /// A backup was restored, read and dropped.
    Restored {
        task: TaskId,
        restored: TestRestore,
    },
    Cancelled {
        failure: Failure,
    },
    Released,
}

impl VerifyEvent {
    /// Its name, for `system.job_events`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "planned",
            Self::Checked { .. } => "checked",
            Self::Restored { .. } => "restored",
            Self::Cancelled { .. } => "cancelled",
            Self::Released => "released",
        }
    }
}

impl VerifyState {
    /// What comes when a task was the last of its phase.
    fn after(mut report: Arc<VerifyReport>, has_restored: bool) -> Self {
        if report.restores && !has_restored && !report.backups.is_empty() {
            let tasks = (0..report.backups.len() as i64).map(TaskId);
            let left = TasksLeft::all(tasks);
            return Self::Restoring { report, left };
        }
        Arc::make_mut(&mut report).findings.kept.sort();
        Self::Finished { report }
    }

    /// What it came to, once it has ended well.
    pub fn report(&self) -> Option<&Arc<VerifyReport>> {
        match self {
            Self::Finished { report } => Some(report),
            Self::Pending
            | Self::Verifying { .. }
            | Self::Restoring { .. }
            | Self::Cancelled { .. } => None,
        }
    }
}

impl Machine for VerifyState {
    type Command = VerifyCommand;
    type Event = VerifyEvent;

    fn commands(&self) -> Vec<VerifyCommand> {
        match self {
            Self::Pending => vec![VerifyCommand::Plan],
            Self::Verifying { left, .. } => left.iter().map(VerifyCommand::Check).collect(),
            Self::Restoring { left, .. } => left.iter().map(VerifyCommand::Restore).collect(),
            Self::Cancelled {
                released: false, ..
            } => vec![VerifyCommand::Release],
            Self::Finished { .. } | Self::Cancelled { released: true, .. } => Vec::new(),
        }
    }

    fn allows(&self, command: VerifyCommand) -> bool {
        match (self, command) {
            (Self::Pending, VerifyCommand::Plan) => true,
            (Self::Verifying { left, .. }, VerifyCommand::Check(task))
            | (Self::Restoring { left, .. }, VerifyCommand::Restore(task)) => left.contains(task),
            (Self::Cancelled { released, .. }, VerifyCommand::Release) => !released,
            _ => false,
        }
    }

    /// One match: the only way a state changes.
    fn apply(&mut self, event: &VerifyEvent) -> Result<(), IllegalEvent> {
        use VerifyEvent as E;
        let next = match (&mut *self, event) {
            (Self::Pending, E::Planned { plan }) if plan.parts <= PARTS_MAX => {
                let mut report = VerifyReport {
                    repository_id: plan.repository_id.clone(),
                    backups: plan.backups.clone(),
                    files: plan.files,
                    restores: plan.restores,
                    ..VerifyReport::default()
                };
                report.findings.add(&plan.findings);
                let left = TasksLeft::all((0..i64::from(plan.parts)).map(TaskId));
                if left.is_empty() {
                    Self::after(Arc::new(report), false)
                } else {
                    let report = Arc::new(report);
                    Self::Verifying { report, left }
                }
            }
            (Self::Verifying { report, left }, E::Checked { task, checked })
                if left.contains(*task) =>
            {
                left.finish(*task);
                let known = Arc::make_mut(report);
                known.checked.add(checked.volume);
                known.findings.add(&checked.findings);
                if !left.is_empty() {
                    return Ok(());
                }
                Self::after(report.clone(), false)
            }
            (Self::Restoring { report, left }, E::Restored { task, restored })
                if left.contains(*task) =>
            {
                left.finish(*task);
                let known = Arc::make_mut(report);
                known.findings.add(&restored.findings);
                if let Some(took) = restored.took_ms {
                    known.took_ms.insert(task.0 as u32, took);
                }
                if !left.is_empty() {
                    return Ok(());
                }
                Self::after(report.clone(), true)
            }
            (
                state @ (Self::Pending | Self::Verifying { .. } | Self::Restoring { .. }),
                E::Cancelled { failure },
            ) => Self::Cancelled {
                failure: failure.clone(),
                released: !matches!(state, Self::Restoring { .. }),
            },
            (
                Self::Cancelled {
                    failure,
                    released: false,
                },
                E::Released,
            ) => Self::Cancelled {
                failure: failure.clone(),
                released: true,
            },
            (state, event) => {
                return Err(IllegalEvent {
                    phase: state.phase(),
                    event: event.name(),
                });
            }
        };
        *self = next;
        Ok(())
    }

    fn phase(&self) -> Phase {
        match self {
            Self::Pending => Phase::Pending,
            Self::Verifying { .. } => Phase::Verifying,
            Self::Restoring { .. } => Phase::Restoring,
            Self::Finished { .. } => Phase::Finished,
            Self::Cancelled { .. } => Phase::Cancelled,
        }
    }

    fn end(&self) -> Option<End> {
        match self {
            Self::Pending | Self::Verifying { .. } | Self::Restoring { .. } => None,
            Self::Finished { .. } => Some(End::Finished),
            Self::Cancelled { failure, .. } => Some(failure.end()),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Cancelled { released, .. } => *released,
            _ => self.end().is_some(),
        }
    }

    fn can_cancel(&self) -> bool {
        self.end().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The full table: every state with every event, and what comes of it.
    #[test]
    fn every_state_takes_its_events_and_no_others() {
        let failure = || Failure::user_cancelled(None);
        let report = || Arc::new(VerifyReport::default());
        let left = |ids: &[i64]| TasksLeft::all(ids.iter().copied().map(TaskId));
        let planned = |parts| VerifyEvent::Planned {
            plan: Arc::new(VerifyPlan {
                parts,
                ..VerifyPlan::default()
            }),
        };
        let restored = |n| VerifyEvent::Restored {
            task: TaskId(n),
            restored: TestRestore::default(),
        };
        let restoring = |ids: &[i64]| VerifyState::Restoring {
            report: report(),
            left: left(ids),
        };
        let with_backup = Arc::new(VerifyReport {
            backups: vec![BackupName {
                label: SnapshotLabel::new("l").expect("valid"),
                timestamp: BackupTimestamp::new("2026-01-02-03-04-05-678").expect("valid"),
            }],
            restores: true,
            ..VerifyReport::default()
        });
        let cancelled = |released| VerifyState::Cancelled {
            failure: failure(),
            released,
        };
        let states = [
            VerifyState::Pending,
            VerifyState::Verifying {
                report: report(),
                left: left(&[0, 1]),
            },
            VerifyState::Verifying {
                report: report(),
                left: left(&[1]),
            },
            VerifyState::Verifying {
                report: with_backup,
                left: left(&[1]),
            },
            restoring(&[0, 1]),
            restoring(&[1]),
            VerifyState::Finished { report: report() },
            cancelled(false),
            cancelled(true),
        ];
        let events = [
            planned(2),
            planned(0),
            planned(PARTS_MAX + 1),
            VerifyEvent::Checked {
                task: TaskId(1),
                checked: Checked::default(),
            },
            restored(1),
            VerifyEvent::Cancelled { failure: failure() },
            VerifyEvent::Released,
        ];
        let no = "";
        let expected = [
            ["VERIFYING", "FINISHED", no, no, no, "CANCELLED", no],
            [no, no, no, "VERIFYING", no, "CANCELLED", no],
            [no, no, no, "FINISHED", no, "CANCELLED", no],
            [no, no, no, "RESTORING", no, "CANCELLED", no],
            [no, no, no, no, "RESTORING", "CANCELLED", no],
            [no, no, no, no, "FINISHED", "CANCELLED", no],
            [no; 7],
            [no, no, no, no, no, no, "CANCELLED"],
            [no; 7],
        ];
        crate::job::machine::tests::check_table(&states, &events, &expected);
        crate::job::machine::tests::check_names(&events, VerifyEvent::name);
    }

    #[test]
    fn damage_counts_beyond_what_is_kept() {
        let finding = |kind, n: usize, backup| Finding {
            kind,
            object: n.to_string(),
            backups: vec![backup],
            detail: String::new(),
        };
        let mut findings = Findings::default();
        for n in 0..=FINDINGS_KEPT {
            findings.push(finding(FindingKind::Unreferenced, n, 0));
            findings.push(finding(FindingKind::Missing, n, 0));
        }
        findings.push(finding(FindingKind::Damaged, 0, 1));
        let mut all = Findings::default();
        all.add(&findings);
        assert_eq!(all.kept().len(), 2 * FINDINGS_KEPT);
        assert_eq!(all.count(), 2 * FINDINGS_KEPT as u64 + 3);
        assert_eq!(
            [0, 1, 2].map(|backup| all.damage_of(backup)),
            [FINDINGS_KEPT as u64 + 1, 1, 0]
        );
    }

    #[test]
    fn stored_names_do_not_change() {
        for kind in FindingKind::ALL {
            let stored = serde_json::to_string(kind).expect("serializes");
            assert_eq!(stored, format!("\"{}\"", kind.name()));
        }
        for level in [
            VerifyLevel::Files,
            VerifyLevel::Checksum,
            VerifyLevel::Restore,
        ] {
            let stored = serde_json::to_string(&level).expect("serializes");
            assert_eq!(stored, format!("\"{}\"", level.name()));
        }
    }
}
