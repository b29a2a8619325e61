//! Backups that StarRocks clusters have made through here: what they consist of, and which need
//! others.

mod select;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use self::select::all_of;

use crate::cluster::ExternalCluster;
use crate::error::{Error, ErrorKind};
use crate::job::{Contents, Followed, JobKind, JobRow, JobStatus, MovedPartition, Stored};
use crate::names::{
    BackupTimestamp, ClusterName, DatabaseName, JobId, RepositoryName, SnapshotLabel,
};
use crate::store::{JobFilter, Span, Store};

/// How many backups of a database are looked at for one that can be followed.
const LOOKED_AT_MAX: usize = 50;

/// A backup whose content is known.
#[derive(Clone, Debug)]
pub struct Taken {
    pub job_id: JobId,
    pub cluster: ClusterName,
    pub database: DatabaseName,
    pub stored: Stored,
    /// Whether anything is stored of itself.
    pub has_own: bool,
    pub contents: Arc<Contents>,
    /// What moved while it was made, if that was looked at.
    pub moved: Option<Arc<BTreeSet<MovedPartition>>>,
}

impl Taken {
    /// The same for one that follows it; what was not looked at cannot be followed.
    pub fn followed(self) -> Option<Followed> {
        let moved = self.moved?;
        Some(Followed {
            stored: self.stored,
            contents: self.contents,
            moved: (*moved).clone(),
        })
    }
}

/// A repository of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Chains<'a> {
    pub store: &'a dyn Store,
    pub cluster: &'a ClusterName,
    pub repository: &'a RepositoryName,
}

/// What a repository has under a label, as the cluster tells it.
enum There {
    /// Nothing that could be restored.
    Nothing,
    /// Backups of these times.
    Backups(Vec<BackupTimestamp>),
    /// Something that the cluster cannot read now.
    Unread,
}

impl Chains<'_> {
    /// The backups into repositories of this name that have ended well, or of which nobody saw how
    /// they ended; the newest first. Which of them are in this very repository their timestamps tell.
    async fn backups(&self, filter: JobFilter) -> Result<Vec<JobRow>, Error> {
        let mut rows = Vec::new();
        for status in [JobStatus::Succeeded, JobStatus::Lost] {
            let filter = JobFilter {
                repository: Some(self.repository.to_string()),
                kind: Some(JobKind::Backup),
                status: Some(status),
                descending: true,
                ..filter.clone()
            };
            rows.extend(self.store.jobs(&filter).await?);
        }
        rows.retain(|row| row.noted);
        rows.sort_by_key(|row| std::cmp::Reverse(row.job_id));
        Ok(rows)
    }

    async fn there(
        &self,
        external: &dyn ExternalCluster,
        label: &SnapshotLabel,
    ) -> Result<There, Error> {
        let (name, label) = (self.repository.as_str(), label.as_str());
        let found = external.snapshots(name, Some(label)).await?;
        let Some(row) = found.into_iter().find(|row| row.label == label) else {
            return Ok(There::Nothing);
        };
        // What is half written is shown among the times.
        let times = row.timestamps.into_iter();
        let times = times.filter_map(|time| BackupTimestamp::new(time).ok());
        Ok(match row.status.as_str() {
            "OK" => There::Backups(times.collect()),
            "ERROR: no snapshot" => There::Nothing,
            _ => There::Unread,
        })
    }

    /// What a job has backed up. A timestamp that nobody has noted is that of the only backup which
    /// is there under the label.
    async fn taken(
        &self,
        external: &dyn ExternalCluster,
        row: &JobRow,
    ) -> Result<Option<Taken>, Error> {
        let job = self.store.load(row.job_id).await?;
        let Some(selection) = &job.record.selection else {
            return Ok(None);
        };
        let (Some(database), Some(label)) = (job.spec.work.database(), job.spec.work.label())
        else {
            return Ok(None);
        };
        let timestamp = match &job.record.backup_timestamp {
            Some(timestamp) => timestamp.clone(),
            None => match self.there(external, label).await? {
                There::Backups(times) if times.len() == 1 => {
                    if self.was_taken_again(row).await? {
                        return Ok(None);
                    }
                    times[0].clone()
                }
                There::Nothing => return Ok(None),
                There::Backups(_) | There::Unread => {
                    let message = format!(
                        "which backup under label {label} job {} has made is not known",
                        job.id
                    );
                    return Err(Error::new(ErrorKind::WrongState, message));
                }
            },
        };
        Ok(Some(Taken {
            job_id: job.id,
            cluster: job.spec.cluster.clone(),
            database: database.clone(),
            stored: Stored {
                label: label.clone(),
                timestamp,
            },
            has_own: !selection.is_unchanged(),
            contents: Arc::new(selection.contents.clone()),
            moved: job.record.moved_partitions.clone(),
        }))
    }

    /// Whether a later backup under the label of this one has been made, or begun.
    async fn was_taken_again(&self, row: &JobRow) -> Result<bool, Error> {
        let later = JobFilter {
            cluster: Some(row.cluster.clone()),
            snapshot: Some(row.snapshot.clone()),
            kind: Some(JobKind::Backup),
            ids: Span {
                from: Some(JobId(row.job_id.0 + 1)),
                to: None,
            },
            ..JobFilter::default()
        };
        let later = self.store.jobs(&later).await?;
        Ok(later.iter().any(|row| row.status != JobStatus::Refused))
    }

    /// The same; nothing where it cannot be told, of what needs no others.
    async fn told(
        &self,
        external: &dyn ExternalCluster,
        row: &JobRow,
    ) -> Result<Option<Taken>, Error> {
        match self.taken(external, row).await {
            Err(e) if e.kind == ErrorKind::WrongState && row.needs.is_empty() => Ok(None),
            taken => taken,
        }
    }

    /// The backup under a label that is there and whose content is known.
    pub async fn find(
        &self,
        external: &dyn ExternalCluster,
        label: &SnapshotLabel,
    ) -> Result<Option<Taken>, Error> {
        let of_label = JobFilter {
            snapshot: Some(label.to_string()),
            ..JobFilter::default()
        };
        for row in self.backups(of_label).await? {
            if let Some(taken) = self.told(external, &row).await?
                && self.is_there(external, &taken).await?
            {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// Whether a label is that of a backup which is there and has nothing of its own.
    pub async fn is_unchanged(
        &self,
        external: &dyn ExternalCluster,
        label: &SnapshotLabel,
    ) -> Result<bool, Error> {
        let found = self.find(external, label).await?;
        Ok(found.is_some_and(|taken| !taken.has_own))
    }

    /// Whether a backup is still there, as it was made; also what the cluster cannot read now.
    async fn is_there(&self, external: &dyn ExternalCluster, taken: &Taken) -> Result<bool, Error> {
        let Stored { label, timestamp } = &taken.stored;
        let there = self.there(external, label).await?;
        if taken.has_own {
            return Ok(match there {
                There::Nothing => false,
                There::Backups(times) => times.contains(timestamp),
                There::Unread => true,
            });
        }
        // Nothing is stored of it, and only here is it known whether it was dropped; a label that was
        // taken again is another backup's.
        if !matches!(there, There::Nothing) {
            return Ok(false);
        }
        if let Some(first) = taken.contents.older.first()
            && !self.is_stored(external, first).await?
        {
            return Ok(false);
        }
        let dropped = JobFilter {
            cluster: Some(taken.cluster.to_string()),
            snapshot: Some(label.to_string()),
            repository: Some(self.repository.to_string()),
            kind: Some(JobKind::DropSnapshot),
            status: Some(JobStatus::Succeeded),
            ids: Span {
                from: Some(taken.job_id),
                to: None,
            },
            ..JobFilter::default()
        };
        Ok(self.store.jobs(&dropped).await?.is_empty())
    }

    /// Whether the repository has a backup, whole as far as the cluster can tell.
    pub async fn is_stored(
        &self,
        external: &dyn ExternalCluster,
        stored: &Stored,
    ) -> Result<bool, Error> {
        Ok(match self.there(external, &stored.label).await? {
            There::Backups(times) => times.contains(&stored.timestamp),
            There::Nothing | There::Unread => false,
        })
    }

    /// Whether a backup is there with everything that it needs, and for as long as nobody drops it.
    async fn can_be_followed(
        &self,
        external: &dyn ExternalCluster,
        taken: &Taken,
    ) -> Result<bool, Error> {
        let own = taken.has_own.then_some(&taken.stored);
        for stored in own.into_iter().chain(&taken.contents.older) {
            let (name, label) = (self.repository.as_str(), stored.label.as_str());
            let found = external.snapshots(name, Some(label)).await?;
            let is_it = |time: &String| time == stored.timestamp.as_str();
            let stays = found.iter().any(|row| {
                let is_whole = row.label == label && row.status == "OK";
                let expires = row.expire_at.is_some() || row.ttl.is_some();
                is_whole && !expires && row.timestamps.iter().any(is_it)
            });
            if !stays {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The newest backup of a database that another one can follow; only of this very cluster, as
    /// another one counts its partitions in its own way.
    pub async fn newest(
        &self,
        external: &dyn ExternalCluster,
        database: &DatabaseName,
    ) -> Result<Option<Followed>, Error> {
        let of_database = JobFilter {
            cluster: Some(self.cluster.to_string()),
            db_name: Some(database.to_string()),
            limit: Some(LOOKED_AT_MAX),
            ..JobFilter::default()
        };
        for row in self.backups(of_database).await? {
            let Some(taken) = self.told(external, &row).await? else {
                continue;
            };
            if taken.moved.is_some() && self.can_be_followed(external, &taken).await? {
                return Ok(taken.followed());
            }
        }
        Ok(None)
    }

    /// The backup under a label, for one that follows it. 42704 if there is none, 55000 if it cannot
    /// be followed.
    pub async fn named(
        &self,
        external: &dyn ExternalCluster,
        database: &DatabaseName,
        label: &SnapshotLabel,
    ) -> Result<Followed, Error> {
        let cannot = |kind: ErrorKind, why: &str| {
            let message = format!("Snapshot '{label}' cannot be the base of a backup: {why}");
            Error::new(kind, message).hint("Take a full backup; the next one can follow it.")
        };
        let of_label = JobFilter {
            cluster: Some(self.cluster.to_string()),
            snapshot: Some(label.to_string()),
            db_name: Some(database.to_string()),
            limit: Some(1),
            ..JobFilter::default()
        };
        let rows = self.backups(of_label).await?;
        let taken = match rows.first() {
            Some(row) => self.taken(external, row).await?,
            None => None,
        };
        let Some(taken) = taken else {
            let why = format!(
                "no backup of database {database} into repository {} was made under this label through here, and noted",
                self.repository
            );
            return Err(cannot(ErrorKind::UndefinedObject, &why));
        };
        if taken.moved.is_none() {
            let why = "what has moved while it was made is not known";
            return Err(cannot(ErrorKind::WrongState, why));
        }
        if !self.can_be_followed(external, &taken).await? {
            let why =
                "it, or a snapshot that it needs, is not in the repository any more, or expires";
            return Err(cannot(ErrorKind::WrongState, why));
        }
        let followed = taken.followed();
        followed.ok_or_else(|| Error::internal("a snapshot whose content is known has none"))
    }

    /// The snapshots that are there and need this one.
    async fn needing(
        &self,
        external: &dyn ExternalCluster,
        label: &SnapshotLabel,
    ) -> Result<Vec<SnapshotLabel>, Error> {
        let mut needing = BTreeSet::new();
        for row in self.backups(JobFilter::default()).await? {
            if !row.needs.iter().any(|needed| needed == label.as_str()) {
                continue;
            }
            if let Some(taken) = self.taken(external, &row).await?
                && self.is_there(external, &taken).await?
            {
                needing.insert(taken.stored.label);
            }
        }
        Ok(needing.into_iter().collect())
    }

    /// Refuses to drop what another snapshot needs, or a job that is under way. 55006.
    pub async fn check_unneeded(
        &self,
        external: &dyn ExternalCluster,
        label: &SnapshotLabel,
    ) -> Result<(), Error> {
        let message = format!("Can not drop snapshot {label}: ");
        let may_follow = |row: &JobRow| match row.follows.as_deref() {
            Some("") => true,
            Some(base) => base == label.as_str(),
            None => false,
        };
        for status in [JobStatus::Queued, JobStatus::Running] {
            let under_way = JobFilter {
                repository: Some(self.repository.to_string()),
                status: Some(status),
                ..JobFilter::default()
            };
            for row in self.store.jobs(&under_way).await? {
                let is_needed = row.needs.iter().any(|needed| needed == label.as_str());
                let how = match row.kind {
                    JobKind::Restore if is_needed => "a restore is reading it",
                    JobKind::Backup if is_needed => "a backup follows it",
                    // Which one it will follow is not known yet.
                    JobKind::Backup if !row.noted && may_follow(&row) => "a backup may follow it",
                    _ => continue,
                };
                return Err(Error::new(ErrorKind::ObjectInUse, message + how)
                    .detail(format!("It is job {}.", row.job_id)));
            }
        }
        let needing = self.needing(external, label).await?;
        if needing.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = needing.iter().map(SnapshotLabel::as_str).collect();
        Err(
            Error::new(ErrorKind::ObjectInUse, message + "others need it")
                .detail(format!(
                    "They have unchanged partitions of it: {}.",
                    names.join(", ")
                ))
                .hint("Drop them first; a full backup ends the chain."),
        )
    }
}
