//! What was asked, by whom, and what must not run beside it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    BackupRequest, ExternalRequest, PruneRequest, RestoreRequest, StagedRequest, VerifyRequest,
};
use crate::error::Error;
use crate::names::{
    BackupTimestamp, ClusterName, DatabaseName, JobId, JobUid, RepositoryName, SnapshotLabel,
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Unique over all gateways: names the job's local directories and its reservations.
    pub uid: JobUid,
    /// The cluster that does the work.
    pub cluster: ClusterName,
    pub requester: Requester,
    /// The statement, without secrets; empty if nobody said one.
    pub statement: String,
    /// From creation to the end, seconds.
    pub timeout_seconds: u64,
    /// The bytes of data that it may move in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_second: Option<u64>,
    pub work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requester {
    /// Somebody by a statement.
    User {
        name: String,
        /// Where the user came from.
        client_addr: Option<String>,
        /// What the client calls itself.
        application_name: Option<String>,
    },
    /// A snapshot whose time was over.
    Expiry,
    /// Somebody who asked another cluster itself.
    Outside,
    Verification(JobId),
    /// A restore that is done in several.
    Staging(JobId),
}

/// What is to be done. The names are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// BACKUP SNAPSHOT
    Backup {
        target: Target,
        request: BackupRequest,
    },
    /// RESTORE SNAPSHOT
    Restore {
        target: Target,
        request: RestoreRequest,
    },
    /// Either, done by another cluster.
    #[serde(rename = "remote")]
    External(Box<ExternalRequest>),
    /// DROP SNAPSHOT, or the end of one whose time is over.
    DropSnapshot(DropRequest),
    /// VERIFY SNAPSHOT and VERIFY REPOSITORY
    Verify(VerifyRequest),
    /// PRUNE REPOSITORY
    Prune(PruneRequest),
    /// RESTORE SNAPSHOT by another cluster, in several jobs of its own.
    Staged(Box<StagedRequest>),
}

/// A database and a snapshot of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Backed up from, or restored into.
    pub database: DatabaseName,
    pub label: SnapshotLabel,
    pub repository: RepositoryName,
}

/// Which snapshot goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRequest {
    pub repository: RepositoryName,
    pub label: SnapshotLabel,
    pub backups: DroppedBackups,
}

/// Which backups of a snapshot go, and on what condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DroppedBackups {
    /// All, if the cluster with this id made them, or by force.
    All {
        /// The id of the cluster that asks.
        cluster_id: String,
        /// Whoever made them.
        force: bool,
    },
    /// One, if its time is still over when it comes to that.
    Expired { timestamp: BackupTimestamp },
}

/// The kinds of job. The names are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// BACKUP SNAPSHOT
    Backup,
    /// RESTORE SNAPSHOT
    Restore,
    DropSnapshot,
    /// VERIFY
    Verify,
    /// PRUNE
    Prune,
}

impl JobKind {
    pub const ALL: [Self; 5] = [
        Self::Backup,
        Self::Restore,
        Self::DropSnapshot,
        Self::Verify,
        Self::Prune,
    ];

    /// Its name in `system.jobs`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::DropSnapshot => "drop_snapshot",
            Self::Verify => "verify",
            Self::Prune => "prune",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that a job keeps others from, until it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    pub resource: Resource,
    pub mode: LockMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Beside others that share it.
    Shared,
    Exclusive,
}

/// What can be locked. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// A database: one job at a time writes or reads it as a whole.
    Database(ClusterName, DatabaseName),
    /// A snapshot, which is written or deleted by one, and read by many.
    Snapshot(ClusterName, RepositoryName, SnapshotLabel),
    /// A repository, which must not go while somebody uses it.
    Repository(ClusterName, RepositoryName),
    /// What no backup needs in a repository: one job at a time deletes it.
    Leftovers(ClusterName, RepositoryName),
}

impl Lock {
    /// Whether the two cannot be held at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        let both_share = self.mode == LockMode::Shared && other.mode == LockMode::Shared;
        !both_share && self.resource == other.resource
    }
}

impl Work {
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Backup { .. } => JobKind::Backup,
            Self::Restore { .. } => JobKind::Restore,
            Self::External(request) => request.kind,
            Self::DropSnapshot(_) => JobKind::DropSnapshot,
            Self::Verify(_) => JobKind::Verify,
            Self::Prune(_) => JobKind::Prune,
            Self::Staged(_) => JobKind::Restore,
        }
    }

    /// The database it is about, if it is about one.
    pub fn database(&self) -> Option<&DatabaseName> {
        match self {
            Self::Backup { target, .. } | Self::Restore { target, .. } => Some(&target.database),
            Self::External(request) => Some(&request.database),
            Self::Staged(request) => Some(&request.target.database),
            Self::DropSnapshot(_) | Self::Verify(_) | Self::Prune(_) => None,
        }
    }

    /// The snapshot it is about, if it is about one.
    pub fn label(&self) -> Option<&SnapshotLabel> {
        match self {
            Self::Backup { target, .. } | Self::Restore { target, .. } => Some(&target.label),
            Self::External(request) => Some(&request.label),
            Self::Staged(request) => Some(&request.target.label),
            Self::DropSnapshot(request) => Some(&request.label),
            Self::Verify(request) => request.label.as_ref(),
            Self::Prune(_) => None,
        }
    }

    /// Its repository; `None` for a job of somebody else's, of which that is not shown.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Backup { target, .. } | Self::Restore { target, .. } => Some(&target.repository),
            Self::External(request) => request.repository.as_ref(),
            Self::Staged(request) => Some(&request.target.repository),
            Self::DropSnapshot(request) => Some(&request.repository),
            Self::Verify(request) => Some(&request.repository),
            Self::Prune(request) => Some(&request.repository),
        }
    }

    /// Names its repository as it is called here.
    pub fn set_repository(&mut self, name: RepositoryName) {
        match self {
            Self::Backup { target, .. } | Self::Restore { target, .. } => target.repository = name,
            Self::External(request) => request.repository = Some(name),
            Self::Staged(request) => request.target.repository = name,
            Self::DropSnapshot(request) => request.repository = name,
            Self::Verify(request) => request.repository = name,
            Self::Prune(request) => request.repository = name,
        }
    }

    /// What it keeps others from. For its own jobs another cluster decides how many a database may
    /// have.
    pub fn locks(&self, cluster: &ClusterName) -> Vec<Lock> {
        let is_elsewhere = matches!(self, Self::External(_) | Self::Staged(_));
        let database = self.database().filter(|_| !is_elsewhere);
        let database = database.map(|d| Lock {
            resource: Resource::Database(cluster.clone(), d.clone()),
            mode: LockMode::Exclusive,
        });
        let mut labels: Vec<&SnapshotLabel> = match self {
            Self::External(_) => Vec::new(),
            Self::Staged(request) => request.labels().chain([&request.target.label]).collect(),
            _ => self.label().into_iter().collect(),
        };
        labels.sort();
        labels.dedup();
        let snapshots = self.repository().into_iter().flat_map(|r| {
            labels.iter().map(|label| Lock {
                resource: Resource::Snapshot(cluster.clone(), r.clone(), (*label).clone()),
                mode: match self {
                    Self::Restore { .. } | Self::Verify(_) | Self::Staged(_) => LockMode::Shared,
                    _ => LockMode::Exclusive,
                },
            })
        });
        let repository = self.repository();
        let repository = repository.map(|r| Lock {
            resource: Resource::Repository(cluster.clone(), r.clone()),
            mode: LockMode::Shared,
        });
        let leftovers = match self {
            Self::Prune(request) => Some(Lock {
                resource: Resource::Leftovers(cluster.clone(), request.repository.clone()),
                mode: LockMode::Exclusive,
            }),
            _ => None,
        };
        database
            .into_iter()
            .chain(snapshots)
            .chain(repository)
            .chain(leftovers)
            .collect()
    }
}

/// What is kept of the text of a statement, characters: it stands in the specification, in the row,
/// and in each of its copies.
const STATEMENT_KEPT: usize = 8192;
/// What is kept of the objects that a refused attempt names.
const OBJECTS_KEPT: usize = 1000;

impl JobSpec {
    pub fn kind(&self) -> JobKind {
        self.work.kind()
    }

    /// The snapshot it is about; empty if it is about no one in particular.
    pub fn label(&self) -> &str {
        self.work.label().map_or("", SnapshotLabel::as_str)
    }

    pub fn locks(&self) -> Vec<Lock> {
        self.work.locks(&self.cluster)
    }

    /// What is asked of another cluster, if the job is one's.
    pub fn external(&self) -> Option<&ExternalRequest> {
        match &self.work {
            Work::External(request) => Some(request),
            Work::Backup { .. }
            | Work::Restore { .. }
            | Work::DropSnapshot(_)
            | Work::Verify(_)
            | Work::Prune(_)
            | Work::Staged(_) => None,
        }
    }

    /// Whether another cluster moves what is moved.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.work, Work::External(_) | Work::Staged(_))
    }

    /// From where to where, of a backup or restore of ours; XX000 of another job.
    pub fn target(&self) -> Result<&Target, Error> {
        match &self.work {
            Work::Backup { target, .. } | Work::Restore { target, .. } => Ok(target),
            Work::External(_)
            | Work::DropSnapshot(_)
            | Work::Verify(_)
            | Work::Prune(_)
            | Work::Staged(_) => Err(Error::internal(format!(
                "a {} has no tables of ours",
                self.kind()
            ))),
        }
    }

    /// A text as the history keeps it.
    pub fn kept_text(text: &str) -> String {
        match text.char_indices().nth(STATEMENT_KEPT) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        }
    }

    /// As much of an attempt that was refused as the history keeps.
    pub fn abridged(mut self) -> Self {
        self.statement = Self::kept_text(&self.statement);
        match &mut self.work {
            Work::Backup { request, .. } => request.objects.truncate(OBJECTS_KEPT),
            Work::Restore { request, .. } => request.objects.truncate(OBJECTS_KEPT),
            Work::External(request) => {
                request.objects.truncate(OBJECTS_KEPT);
                request.statement.clear();
            }
            Work::DropSnapshot(_) | Work::Verify(_) | Work::Prune(_) | Work::Staged(_) => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_names_do_not_change() {
        let cluster = ClusterName::new("c").expect("valid");
        let (repository, label) = (
            RepositoryName::new("r").expect("valid"),
            SnapshotLabel::new("l").expect("valid"),
        );
        let target = Target {
            database: DatabaseName::new("d").expect("valid"),
            label: label.clone(),
            repository: repository.clone(),
        };
        let request = BackupRequest {
            objects: Vec::new(),
            views: Vec::new(),
            ttl: None,
            base: None,
        };
        let backup = Work::Backup { target, request };
        let timestamp = BackupTimestamp::new("2026-01-02-03-04-05-678").expect("valid");
        let expired = Work::DropSnapshot(DropRequest {
            repository,
            label,
            backups: DroppedBackups::Expired { timestamp },
        });
        let json = |work: &Work| serde_json::to_string(work).expect("serializes");
        assert_eq!(
            json(&backup),
            "{\"backup\":{\"target\":{\"database\":\"d\",\"label\":\"l\",\"repository\":\"r\"},\
             \"request\":{\"objects\":[],\"views\":[],\"ttl\":null}}}"
        );
        assert_eq!(
            json(&expired),
            "{\"drop_snapshot\":{\"repository\":\"r\",\"label\":\"l\",\"backups\":{\"expired\":{\"timestamp\":\"2026-01-02-03-04-05-678\"}}}}"
        );
        let shown = |work: &Work| {
            let locks = work.locks(&cluster).into_iter();
            locks
                .map(|l| {
                    format!(
                        "{} {:?}",
                        serde_json::to_string(&l.resource).expect("serializes"),
                        l.mode
                    )
                })
                .collect::<Vec<_>>()
        };
        let snapshot = "{\"snapshot\":[\"c\",\"r\",\"l\"]} Exclusive";
        let repository = "{\"repository\":[\"c\",\"r\"]} Shared";
        assert_eq!(
            shown(&backup),
            [
                "{\"database\":[\"c\",\"d\"]} Exclusive",
                snapshot,
                repository
            ]
        );
        assert_eq!(shown(&expired), [snapshot, repository]);
        for kind in [
            JobKind::Backup,
            JobKind::Restore,
            JobKind::DropSnapshot,
            JobKind::Verify,
            JobKind::Prune,
        ] {
            assert_eq!(
                serde_json::to_string(&kind).expect("serializes"),
                format!("\"{kind}\"")
            );
        }
        assert_eq!(
            serde_json::to_string(&Requester::Outside).expect("serializes"),
            "\"outside\""
        );
    }
}
