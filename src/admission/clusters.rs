//! CREATE, ALTER and DROP CLUSTER, and repositories that outlive the cluster that wrote them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Caller, location_of};
use crate::cluster::starrocks::{Options, StarRocksCluster, kind_of};
use crate::cluster::{Cluster, ClusterKind, ClusterRole, DetachedCluster};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::names::*;
use crate::privilege::{Privilege, Securable};
use crate::repository::{
    CONDITIONAL_PUT_KEY, ENCRYPTION, ENCRYPTION_KEY, Location, MAX_BYTES_PER_SECOND_KEY,
};
use crate::statement::{AlterRepository, ClusterCommand, CreateRepository};
use crate::store::{ClusterRecord, RepositoryRecord};

/// The cluster that these properties describe. Nothing is connected to.
pub fn open_cluster(
    name: &ClusterName,
    properties: &BTreeMap<String, String>,
    env: &Env,
) -> Result<Arc<dyn Cluster>, Error> {
    match kind_of(properties)? {
        ClusterKind::None => Ok(Arc::new(DetachedCluster::new(name.clone()))),
        _ => Ok(Arc::new(StarRocksCluster::new(
            name.clone(),
            Options::read(properties)?,
            env.clone(),
        ))),
    }
}

impl Caller {
    pub(super) async fn cluster_command(
        &mut self,
        command: &ClusterCommand,
    ) -> Result<String, Error> {
        self.require_admin().await?;
        let tag = match command {
            ClusterCommand::Create {
                name,
                if_not_exists,
                properties,
            } => {
                if self.gateway.clusters.get(name).is_some() {
                    if *if_not_exists {
                        self.notice(format!("cluster \"{name}\" already exists, skipping"));
                        return Ok("CREATE CLUSTER".into());
                    }
                    return Err(Error::new(
                        ErrorKind::DuplicateObject,
                        format!("cluster \"{name}\" already exists"),
                    ));
                }
                let cluster = open_cluster(name, &properties.0, &self.gateway.env)?;
                let record = ClusterRecord {
                    name: name.clone(),
                    created_at: self.gateway.env.now(),
                    properties: properties.0.clone(),
                };
                self.gateway.store.add_cluster(&record).await?;
                self.join(cluster).await;
                "CREATE CLUSTER"
            }
            ClusterCommand::Alter { name, properties } => {
                let before = self.known_cluster(name).await?;
                let mut record = before.clone();
                for (key, value) in &properties.0 {
                    if value.is_empty() {
                        record.properties.remove(key);
                    } else {
                        record.properties.insert(key.clone(), value.clone());
                    }
                }
                let cluster = open_cluster(name, &record.properties, &self.gateway.env)?;
                let kind = self.gateway.clusters.get(name).map(|c| c.kind());
                if kind.is_some_and(|kind| kind != cluster.kind()) {
                    return Err(Error::unsupported("changing the type of a cluster")
                        .hint("DROP it and CREATE it anew."));
                }
                self.gateway.store.change_cluster(&before, &record).await?;
                self.join(cluster).await;
                "ALTER CLUSTER"
            }
            ClusterCommand::Drop {
                name,
                if_exists,
                force,
            } => {
                if *if_exists && self.gateway.clusters.get(name).is_none() {
                    self.notice(format!("cluster \"{name}\" does not exist, skipping"));
                    return Ok("DROP CLUSTER".into());
                }
                self.known_cluster(name).await?;
                if name == self.cluster.name() {
                    return Err(Error::new(
                        ErrorKind::ObjectInUse,
                        "cannot drop the currently open cluster",
                    )
                    .hint("Connect to another one first."));
                }
                // First of all nobody looks any more, or a job could be found while its cluster
                // goes.
                self.gateway.runner.unwatch(name);
                let gone = async {
                    if *force {
                        self.gateway.runner.give_up(name).await?;
                    }
                    self.gateway.store.remove_cluster(name).await
                };
                if let Err(error) = gone.await {
                    self.gateway.runner.watch_cluster(name);
                    return Err(error);
                }
                self.gateway.clusters.remove(name);
                self.gateway.runner.forget(name);
                "DROP CLUSTER"
            }
        };
        Ok(tag.into())
    }

    /// A cluster that a statement created; those of the settings are changed there.
    async fn known_cluster(&self, name: &ClusterName) -> Result<ClusterRecord, Error> {
        if let Some(record) = self
            .gateway
            .store
            .clusters()
            .await?
            .into_iter()
            .find(|c| &c.name == name)
        {
            return Ok(record);
        }
        if self.gateway.clusters.get(name).is_some() {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("cluster \"{name}\" was not created by a statement"),
            )
            .hint("Change it in the settings, and start the server again."));
        }
        Err(Error::new(
            ErrorKind::UndefinedObject,
            format!("cluster \"{name}\" does not exist"),
        )
        .hint("See SHOW CLUSTERS."))
    }

    /// Lets a cluster take part, in the place of the one with its name.
    async fn join(&mut self, cluster: Arc<dyn Cluster>) {
        let name = cluster.name().clone();
        let is_new = self.gateway.clusters.get(&name).is_none();
        self.gateway.clusters.put(cluster.clone());
        if let Some(external) = cluster.external() {
            if is_new {
                self.gateway.runner.watch_cluster(&name);
            } else {
                self.gateway.runner.poll_soon(&name);
            }
            // What cannot be reached now may be there later, so it is told and not refused.
            if let Some(error) = external.health().await.error {
                self.warning("01000", error.message);
            }
        }
        if &name == self.cluster.name() {
            self.cluster = cluster;
        }
    }

    /// How a repository's storage is reached from now on.
    pub(super) async fn alter_repository(
        &mut self,
        alter: &AlterRepository,
    ) -> Result<String, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        let gateway = self.gateway.clone();
        let changed = (self.cluster.name(), &alter.name);
        let held = gateway.repository_changes.lock(changed).await;
        let (store, cluster) = (&gateway.store, self.cluster.name());
        let known = store.find_repository(cluster, &alter.name).await?;
        let unknown = || {
            Error::new(
                ErrorKind::UndefinedObject,
                format!("Repository [{}] does not exist", alter.name),
            )
            .hint("See SHOW REPOSITORIES.")
        };
        let mut record = match self.cluster.role() {
            ClusterRole::External(external) => {
                let there = external
                    .repositories()
                    .await?
                    .into_iter()
                    .find(|r| r.name == alter.name.as_str())
                    .ok_or_else(unknown)?;
                RepositoryRecord {
                    cluster: cluster.clone(),
                    id: RepositoryId(0),
                    name: alter.name.clone(),
                    location: there.location,
                    broker: there.broker,
                    read_only: there.read_only,
                    created_at: there.created_at.unwrap_or_else(|| self.gateway.env.now()),
                    properties: BTreeMap::new(),
                }
            }
            ClusterRole::Managed(_) | ClusterRole::RepositoryOnly => known.ok_or_else(unknown)?,
        };
        let before = Location {
            url: record.location.clone(),
            properties: record.properties.clone(),
        };
        // Whoever changes only these need not have the keys of the store.
        let is_partial = alter
            .properties
            .0
            .keys()
            .all(|key| [MAX_BYTES_PER_SECOND_KEY, ENCRYPTION_KEY].contains(&key.as_str()));
        let mut properties = alter.properties.0.clone();
        // What a repository is does not change by keys that are rotated.
        for (key, value) in &record.properties {
            let stays = [CONDITIONAL_PUT_KEY, ENCRYPTION, ENCRYPTION_KEY].contains(&key.as_str());
            if is_partial || stays {
                properties
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
            }
        }
        let dropped: Vec<_> = record
            .properties
            .keys()
            .filter(|key| !properties.contains_key(*key))
            .map(|key| format!("\"{key}\""))
            .collect();
        if !dropped.is_empty() {
            let message = format!(
                "ALTER REPOSITORY replaces the properties: {} no longer set",
                match &dropped[..] {
                    [one] => format!("{one} is"),
                    more => format!("{} are", more.join(", ")),
                }
            );
            self.warning("01000", message);
        }
        record.properties = properties;
        let location = Location {
            url: record.location.clone(),
            properties: record.properties.clone(),
        };
        // Who may not create it so may not have it so.
        let changes_key = alter.properties.0.contains_key(ENCRYPTION_KEY);
        if !is_partial || changes_key {
            self.require_location(&location).await?;
        }
        if self.cluster.managed().is_err() {
            self.check_starrocks_properties(&alter.properties.0)?;
        }
        self.change_encryption(&record, &before, &location).await?;
        // Properties that make no location are refused before anything is kept.
        let pace = location.max_bytes_per_second()?;
        let open = &gateway.open;
        let (ours, theirs) = match self.cluster.role() {
            ClusterRole::Managed(_) => (Some(open.open(&alter.name, &location)?), None),
            ClusterRole::External(_) | ClusterRole::RepositoryOnly => {
                (None, Some(open.open_starrocks(&alter.name, &location)?))
            }
        };
        self.remember(record).await?;
        // A look at storage that does not answer holds up no other change.
        drop(held);
        let reached = match (ours, theirs) {
            (Some(ours), _) => ours.ping().await,
            (None, Some(theirs)) => theirs.ping().await.map(drop),
            (None, None) => Ok(()),
        };
        let (cluster, name) = (self.cluster.name(), &alter.name);
        self.gateway.runner.pace_repository(cluster, name, pace);
        self.gateway.runner.try_again_now();
        if self.cluster.external().is_none() {
            self.warn_of_unread(&location);
        }
        // A bucket that cannot be reached from here hinders nobody: the cluster reaches it itself.
        if let Err(e) = reached {
            self.warning(
                "01000",
                format!("the repository cannot be reached from here: {e}"),
            );
        }
        Ok("ALTER REPOSITORY".into())
    }

    /// Has an encrypted repository opened by another key, if another is given.
    async fn change_encryption(
        &mut self,
        record: &RepositoryRecord,
        before: &Location,
        now: &Location,
    ) -> Result<(), Error> {
        match (before.encryption_key()?, now.encryption_key()?) {
            (old, new) if old == new => Ok(()),
            // Nothing is written here to one that is only read; that the key opens it is seen
            // below.
            (Some(_), Some(_)) if record.read_only => {
                let repository = self.gateway.open.open(&record.name, now)?;
                repository.ping().await
            }
            (Some(_), Some(new)) => {
                // Reached as it will be, and opened as it was.
                let mut location = now.clone();
                let key = before.properties.get(ENCRYPTION_KEY).cloned();
                location
                    .properties
                    .extend(key.map(|key| (ENCRYPTION_KEY.to_owned(), key)));
                let repository = self.gateway.open.open(&record.name, &location)?;
                if let Some(e) = repository.change_key(&new).await? {
                    let message = format!(
                        "__repo_info_copy is still of the key before; keep that until a backup has succeeded: {e}"
                    );
                    self.warning("01000", message);
                }
                Ok(())
            }
            _ => {
                let message = "whether a repository is encrypted is decided when it is made";
                Err(Error::new(ErrorKind::InvalidParameter, message)
                    .hint("Create one under another name, and back up into that."))
            }
        }
    }

    /// CREATE REPOSITORY where there is no cluster: what is stored there already is taken in, and
    /// only read.
    pub(super) async fn hold_repository(
        &mut self,
        create: &CreateRepository,
    ) -> Result<String, Error> {
        if self
            .gateway
            .store
            .find_repository(self.cluster.name(), &create.name)
            .await?
            .is_some()
        {
            let message = format!(
                "Failed to create repository: repository with same name already exist: {}",
                create.name
            );
            return Err(Error::new(ErrorKind::DuplicateObject, message));
        }
        let location = location_of(create);
        self.check_starrocks_properties(&location.properties)?;
        let failed = |e: Error| e.prefixed("Failed to create repository");
        self.gateway
            .open
            .open_starrocks(&create.name, &location)
            .map_err(failed)?
            .ping()
            .await
            .map_err(failed)?;
        // Nothing here writes StarRocks' layout.
        let record = RepositoryRecord {
            read_only: true,
            ..self.repository_record(create, self.gateway.env.now())
        };
        self.gateway.store.add_repository(&record).await?;
        Ok("CREATE REPOSITORY".into())
    }
}
