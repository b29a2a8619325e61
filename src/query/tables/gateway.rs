//! The gateway itself: clusters, sessions, settings, users.

use std::sync::Arc;

use super::super::system::Type::{Bool, Int, Text, Time};
use super::super::system::{Cell, Definition, Rows, Sources};
use crate::cluster::{Cluster, ClusterKind, ClusterRole, Health};
use crate::error::Error;
use crate::job::JobRow;
use crate::privilege::{Grant, Grantee, Securable};
use crate::store::JobFilter;

pub(super) const CLUSTERS: Definition = Definition {
    name: "clusters",
    columns: &[
        ("cluster", Text),
        ("kind", Text),
        ("version", Text),
        ("reachable", Bool),
        ("error", Text),
        ("jobs_running", Int),
        ("leader", Text),
        ("address", Text),
    ],
};

pub(super) const SESSIONS: Definition = Definition {
    name: "sessions",
    columns: &[
        ("pid", Int),
        ("user_name", Text),
        ("cluster", Text),
        ("client_addr", Text),
        ("application_name", Text),
        ("started_at", Time),
        ("state", Text),
        ("statement", Text),
    ],
};

pub(super) const SETTINGS: Definition =
    Definition { name: "settings", columns: &[("name", Text), ("value", Text), ("description", Text)] };

pub(super) const USERS: Definition =
    Definition { name: "users", columns: &[("user_name", Text), ("is_admin", Bool), ("has_password", Bool), ("created_at", Time)] };

pub(super) const ROLES: Definition = Definition { name: "roles", columns: &[("role_name", Text), ("created_at", Time)] };

pub(super) const GRANTS: Definition = Definition {
    name: "grants",
    columns: &[
        ("grantee", Text),
        ("grantee_kind", Text),
        ("privilege", Text),
        ("role_name", Text),
        ("cluster", Text),
        ("object_kind", Text),
        ("db_name", Text),
        ("object_name", Text),
        ("statement", Text),
    ],
};

pub(super) async fn roles(sources: &Sources) -> Result<Rows, Error> {
    let roles = sources.store.roles().await?.into_iter();
    Ok(roles.map(|r| vec![r.name.to_string().into(), r.created_at.into()]).collect())
}

/// Every grant, and ADMIN as one of its own.
pub(super) async fn grants(sources: &Sources) -> Result<Rows, Error> {
    let mut out = Rows::new();
    for user in sources.store.users().await?.into_iter().filter(|u| u.admin) {
        let statement = format!("GRANT ADMIN TO {}", Grantee::User(user.name.clone()));
        let mut row = vec![Cell::Null; GRANTS.columns.len()];
        row[0] = user.name.to_string().into();
        row[1] = "user".into();
        row[2] = "ADMIN".into();
        row[8] = statement.into();
        out.push(row);
    }
    for record in sources.store.grants().await? {
        let (grantee, kind) = match &record.grantee {
            Grantee::User(name) => (name.to_string(), "user"),
            Grantee::Role(name) => (name.to_string(), "role"),
        };
        let (privilege, role, object) = match &record.grant {
            Grant::Privilege(privilege, on) => (Some(privilege.words()), None, Some(on)),
            Grant::Role(role) => (None, Some(role.to_string()), None),
        };
        let (object_kind, database, name) = match object {
            None => (None, None, None),
            Some(Securable::System) => (Some("SYSTEM"), None, None),
            Some(Securable::Catalog) => (Some("CATALOG"), None, None),
            Some(Securable::Database(database)) => (Some("DATABASE"), database.clone(), None),
            Some(Securable::AllDatabases) => (Some("ALL DATABASES"), None, None),
            Some(Securable::Table(database, table)) => (Some("TABLE"), database.clone(), Some(table.to_string())),
            Some(Securable::AllTablesIn(database)) => (Some("ALL TABLES"), Some(database.clone()), None),
            Some(Securable::AllTables) => (Some("ALL TABLES"), None, None),
        };
        out.push(vec![
            grantee.into(),
            kind.into(),
            privilege.into(),
            role.into(),
            record.cluster.as_ref().map(ToString::to_string).into(),
            object_kind.into(),
            database.map(|d| d.to_string()).into(),
            name.into(),
            record.grant.statement(&record.grantee).into(),
        ]);
    }
    Ok(out)
}

async fn health(cluster: &Arc<dyn Cluster>) -> Health {
    match cluster.role() {
        ClusterRole::External(remote) => remote.health().await,
        ClusterRole::Managed(managed) => match managed.nodes().await {
            Ok(d) => Health { version: d.frontends.first().map(|f| f.version.clone()), ..Health::default() },
            Err(e) => Health { error: Some(e), ..Health::default() },
        },
        ClusterRole::RepositoryOnly => Health::default(),
    }
}

pub(super) async fn clusters(sources: &Sources) -> Result<Rows, Error> {
    let running = sources.store.jobs(&JobFilter { status: Some("running".into()), ..JobFilter::default() }).await?;
    let mut out = Rows::new();
    let clusters = sources.clusters.all();
    // At once: each of those that are down takes its time to say so.
    let all = futures::future::join_all(clusters.iter().map(health)).await;
    for (cluster, health) in clusters.iter().zip(all) {
        let is_here = |row: &&JobRow| row.cluster == cluster.name().as_str();
        // Of a cluster that nobody works on it cannot be said.
        let reachable = (cluster.kind() != ClusterKind::None).then_some(health.error.is_none());
        out.push(vec![
            cluster.name().to_string().into(),
            cluster.kind().name().into(),
            health.version.into(),
            reachable.into(),
            health.error.map(|e| e.to_string()).into(),
            (running.iter().filter(is_here).count() as u64).into(),
            health.leader.into(),
            cluster.remote().map(|r| r.address()).into(),
        ]);
    }
    Ok(out)
}

/// Every session. What others say and where they are is for administrators: statements carry literals.
pub(super) async fn sessions(sources: &Sources, viewer: &str) -> Result<Rows, Error> {
    let sees_all = sources.store.users().await?.iter().any(|u| u.admin && u.name.as_str() == viewer);
    let shown = |user: &str| sees_all || user == viewer;
    let sessions = sources.sessions.read();
    let rows = sessions
        .iter()
        .map(|(pid, s)| {
            vec![
                i64::from(*pid).into(),
                s.user.clone().into(),
                s.cluster.clone().into(),
                Some(s.client_addr.clone()).filter(|_| shown(&s.user)).into(),
                s.application_name.clone().into(),
                s.started_at.into(),
                if s.active { "active" } else { "idle" }.into(),
                s.statement.clone().filter(|_| shown(&s.user)).into(),
            ]
        })
        .collect();
    Ok(rows)
}

pub(super) fn settings(sources: &Sources) -> Rows {
    let row = |(name, value, description): &(String, String, String)| {
        vec![name.clone().into(), value.clone().into(), description.clone().into()]
    };
    sources.settings.iter().map(row).collect()
}

pub(super) async fn users(sources: &Sources) -> Result<Rows, Error> {
    let users = sources.store.users().await?.into_iter();
    Ok(users.map(|u| vec![u.name.to_string().into(), u.admin.into(), u.verifier.is_some().into(), u.created_at.into()]).collect())
}
