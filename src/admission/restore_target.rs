//! Where a restore goes: the database of a StarRocks cluster, and with ON CLUSTER another cluster
//! that knows the repository.

use super::Caller;
use super::no_database;
use crate::error::{Error, ErrorKind};
use crate::names::{ClusterName, DatabaseName, RepositoryName};
use crate::privilege::{Privilege, Securable};
use crate::query::JobStep;
use crate::repository::is_same_place;
use crate::statement::{RestoreSnapshot, Statement};

/// The statement as the other cluster is asked it.
fn said_there(restore: &RestoreSnapshot) -> RestoreSnapshot {
    RestoreSnapshot {
        cluster: None,
        ..restore.clone()
    }
}

impl Caller {
    /// Restores into another cluster, after everything was looked at that can be seen before.
    pub(super) async fn restore_elsewhere(
        &mut self,
        cluster: &ClusterName,
        restore: &RestoreSnapshot,
    ) -> Result<String, Error> {
        let mut there = self.elsewhere(cluster, &restore.repository).await?;
        let restore = said_there(restore);
        let restored = match there.cluster.external() {
            Some(_) => there.external_restore(&restore, true).await,
            None => Box::pin(there.change(&Statement::Restore(restore))).await,
        };
        self.notices.append(&mut there.notices);
        restored
    }

    pub(super) async fn explain_elsewhere(
        &mut self,
        cluster: &ClusterName,
        restore: &RestoreSnapshot,
    ) -> Result<Vec<JobStep>, Error> {
        let mut there = self.elsewhere(cluster, &restore.repository).await?;
        Box::pin(there.explain(&Statement::Restore(said_there(restore)))).await
    }

    /// Who asks, on another cluster. Both must have the repository, under one name and in one place.
    async fn elsewhere(
        &self,
        name: &ClusterName,
        repository: &RepositoryName,
    ) -> Result<Caller, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        let cluster = self.gateway.clusters.get(name).ok_or_else(|| {
            let message = format!("cluster \"{name}\" does not exist");
            Error::new(ErrorKind::UndefinedObject, message).hint("See SHOW CLUSTERS.")
        })?;
        let (here, store) = (&self.cluster, &self.gateway.store);
        if cluster.managed().is_ok() != here.managed().is_ok() {
            let message = format!(
                "RESTORE of a repository of cluster \"{}\" (type {}) ON CLUSTER \"{name}\" (type {})",
                here.name(),
                here.kind().name(),
                cluster.kind().name(),
            );
            return Err(Error::unsupported(message).hint(
                "Their repositories have different formats; the data can go by SELECT and COPY.",
            ));
        }
        let known = store.repository(here.name(), repository).await?;
        self.check_place(repository, &known.location).await?;
        let there = match cluster.external() {
            Some(external) => {
                let all = external.repositories().await?;
                let same = all.into_iter().find(|r| r.name == repository.as_str());
                same.map(|r| r.location)
            }
            None => {
                let all = store.repositories().await?;
                let mut all = all.into_iter();
                let same = all.find(|r| r.cluster == *name && r.name == *repository);
                same.map(|r| r.location)
            }
        };
        if !there.is_some_and(|there| is_same_place(&there, &known.location)) {
            let message = format!(
                "cluster \"{name}\" has no repository {repository} at {}",
                known.location
            );
            return Err(Error::new(ErrorKind::UndefinedObject, message).hint(format!(
                "CREATE READ ONLY REPOSITORY {repository} there with the same location; a repository's name is part of where its snapshots are."
            )));
        }
        Ok(Caller {
            gateway: self.gateway.clone(),
            cluster,
            database: None,
            user: self.user.clone(),
            requester: self.requester.clone(),
            notices: Vec::new(),
        })
    }

    /// The database that a restore goes into: the one that it names, the current one, or that of
    /// the snapshot.
    pub(super) async fn target_database(
        &self,
        restore: &RestoreSnapshot,
    ) -> Result<DatabaseName, Error> {
        let clause = restore.database.as_ref();
        let clause = clause.map(|(source, target)| target.as_ref().unwrap_or(source));
        let named = restore.label.database.as_ref().or(clause);
        match named.or(self.database.as_ref()) {
            Some(name) => Ok(self.spelled(name)),
            None => {
                let timestamp = restore.properties.get("backup_timestamp");
                self.snapshot_database(restore, timestamp).await
            }
        }
    }

    /// The database that a snapshot is of.
    async fn snapshot_database(
        &self,
        restore: &RestoreSnapshot,
        timestamp: Option<&str>,
    ) -> Result<DatabaseName, Error> {
        let Some(timestamp) = timestamp.filter(|_| restore.objects.is_none()) else {
            return Err(no_database());
        };
        let details = self.details_of(restore, timestamp).await?;
        match details.database {
            Some(name) if !name.is_empty() => DatabaseName::new(name),
            _ => Err(no_database().detail(details.status)),
        }
    }
}
