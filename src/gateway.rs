//! What all sessions share.

mod connections;
mod objects;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

pub use self::connections::Connections;
pub use self::objects::KeptObjects;
use crate::auth::MockSalts;
use crate::catalog::BuiltinRelations;
use crate::cluster::Clusters;
use crate::env::Env;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::names::*;
use crate::privilege::Rights;
use crate::query::QueryEngine;
use crate::repository::OpenRepository;
use crate::runner::Runner;
use crate::statement::Bounds;
use crate::store::{Holdings, Store};

#[derive(Debug)]
pub struct Gateway {
    pub engine: QueryEngine,
    pub runner: Runner,
    pub store: Arc<dyn Store>,
    pub clusters: Arc<Clusters>,
    /// The cluster of a connection that names none.
    pub default_cluster: ClusterName,
    pub open: Arc<dyn OpenRepository>,
    pub env: Env,
    pub metrics: Arc<Metrics>,
    /// What every PostgreSQL's catalogs hold.
    pub builtin: Arc<BuiltinRelations>,
    pub connections: Arc<Connections>,
    pub started_at: Timestamp,
    /// What a job gets when its statement says no timeout, seconds.
    pub job_timeout_seconds: u64,
    /// What the catalogs tell of, for who asks next.
    pub kept_objects: KeptObjects,
    /// Held while objects with names come and go, and while something is granted on them.
    pub grants_change: tokio::sync::Mutex<()>,
    /// Held while what is known of a repository changes.
    pub repository_changes: LocksByName,
    /// Salts for users that do not exist.
    pub mock_salts: MockSalts,
    /// Where those may have repositories who are no administrators.
    pub repository_hosts: AllowedHosts,
    /// How large a statement may be.
    pub bounds: Bounds,
    /// How large what it makes may be.
    pub limits: Limits,
}

/// Locks for things with names; two names may share one.
#[derive(Debug, Default)]
pub struct LocksByName([tokio::sync::Mutex<()>; 16]);

impl LocksByName {
    /// Waits for the lock of a name.
    pub async fn lock(&self, name: impl Hash) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        self.0[hasher.finish() as usize % self.0.len()].lock().await
    }
}

/// Hosts by name, by `*.domain`, or with a port; none stands for any.
#[derive(Clone, Debug, Default)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// As the settings have them.
    pub fn new(hosts: &[String]) -> Self {
        Self(
            hosts
                .iter()
                .map(|h| h.trim().to_lowercase())
                .filter(|h| !h.is_empty())
                .collect(),
        )
    }

    /// Whether a host, perhaps with its port, is among them.
    pub fn allow(&self, host: &str) -> bool {
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) => bare,
            _ => host,
        };
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|allowed| match allowed.strip_prefix('*') {
                    Some(domain) => bare.ends_with(domain),
                    None => allowed == host || allowed == bare,
                })
    }
}

/// Limits of what statements make, in bytes; each is a setting, which gives its reason.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest value that an expression makes.
    pub value_bytes_max: usize,
    /// The longest row of an answer.
    pub row_bytes_max: usize,
    /// Rows that one SCROLL cursor keeps.
    pub cursor_bytes_max: usize,
}

impl Gateway {
    /// What a user may do in a cluster, now.
    pub async fn rights(&self, user: &UserName, cluster: &ClusterName) -> Result<Rights, Error> {
        let Holdings { admin, grants } = self.store.holdings(user).await?;
        let here = grants
            .into_iter()
            .filter(|g| g.cluster.as_ref().is_none_or(|c| c == cluster));
        let held: Vec<_> = here.map(|g| (g.grantee, g.grant)).collect();
        Ok(Rights::gather(user, admin, &held))
    }

    pub fn end_sessions_of(&self, user: &UserName) {
        let sessions = self.engine.sources().sessions.read();
        let theirs: Vec<i32> = sessions
            .iter()
            .filter(|(_, s)| s.user == user.as_str())
            .map(|(pid, _)| *pid)
            .collect();
        drop(sessions);
        self.connections.terminate_those(theirs);
    }
}
