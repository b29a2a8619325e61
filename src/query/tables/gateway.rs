//! The gateway itself: clusters, sessions, settings, users.

use std::sync::Arc;

use super::super::system::{ScanContext, Sources, system_row};
use crate::cluster::{Cluster, ClusterKind, ClusterRole, Condition, Health};
use crate::error::Error;
use crate::job::{JobRow, JobStatus};
use crate::privilege::{Grant, Grantee, Securable};
use crate::store::JobFilter;

system_row! {
    pub ClustersRow in "clusters" {
        cluster: Text,
        kind: Text,
        version: Text,
        reachable: Bool,
        condition: Text,
        error: Text,
        jobs_running: Int,
        leader: Text,
        address: Text,
    }
}

system_row! {
    pub SessionsRow in "sessions" {
        pid: Int,
        user_name: Text,
        cluster: Text,
        client_addr: Text,
        application_name: Text,
        started_at: Time,
        state: Text,
        statement: Text,
    }
}

system_row! {
    pub SettingsRow in "settings" {
        name: Text,
        value: Text,
        description: Text,
    }
}

system_row! {
    pub UsersRow in "users" {
        user_name: Text,
        is_admin: Bool,
        has_password: Bool,
        created_at: Time,
    }
}

system_row! {
    pub RolesRow in "roles" {
        role_name: Text,
        created_at: Time,
    }
}

system_row! {
    pub GrantsRow in "grants" {
        grantee: Text,
        grantee_kind: Text,
        privilege: Text,
        role_name: Text,
        cluster: Text,
        object_kind: Text,
        db_name: Text,
        object_name: Text,
        statement: Text,
    }
}

pub(super) async fn roles(sources: &Sources) -> Result<Vec<RolesRow>, Error> {
    let roles = sources.store.roles().await?.into_iter();
    Ok(roles
        .map(|r| RolesRow {
            role_name: r.name.to_string().into(),
            created_at: r.created_at.into(),
        })
        .collect())
}

/// Every grant, and ADMIN as one of its own.
pub(super) async fn grants(sources: &Sources) -> Result<Vec<GrantsRow>, Error> {
    let mut out = Vec::new();
    for user in sources.store.users().await?.into_iter().filter(|u| u.admin) {
        let statement = format!("GRANT ADMIN TO {}", Grantee::User(user.name.clone()));
        out.push(GrantsRow {
            grantee: user.name.to_string().into(),
            grantee_kind: "user".into(),
            privilege: "ADMIN".into(),
            statement: statement.into(),
            ..GrantsRow::default()
        });
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
            Some(Securable::Table(database, table)) => {
                (Some("TABLE"), database.clone(), Some(table.to_string()))
            }
            Some(Securable::AllTablesIn(database)) => {
                (Some("ALL TABLES"), Some(database.clone()), None)
            }
            Some(Securable::AllTables) => (Some("ALL TABLES"), None, None),
        };
        out.push(GrantsRow {
            grantee: grantee.into(),
            grantee_kind: kind.into(),
            privilege: privilege.into(),
            role_name: role.into(),
            cluster: record.cluster.as_ref().map(ToString::to_string).into(),
            object_kind: object_kind.into(),
            db_name: database.map(|d| d.to_string()).into(),
            object_name: name.into(),
            statement: record.grant.statement(&record.grantee).into(),
        });
    }
    Ok(out)
}

async fn health(cluster: &Arc<dyn Cluster>) -> Health {
    match cluster.role() {
        ClusterRole::External(external) => external.health().await,
        ClusterRole::Managed(managed) => match managed.nodes().await {
            Ok(d) => Health {
                version: d.frontends.first().map(|f| f.version.clone()),
                ..Health::default()
            },
            Err(e) => Health {
                condition: Condition::Unreachable,
                error: Some(e),
                ..Health::default()
            },
        },
        ClusterRole::RepositoryOnly => Health::default(),
    }
}

pub(super) async fn clusters(sources: &Sources) -> Result<Vec<ClustersRow>, Error> {
    let running = sources
        .store
        .jobs(&JobFilter {
            status: Some(JobStatus::Running),
            ..JobFilter::default()
        })
        .await?;
    let mut out = Vec::new();
    let clusters = sources.clusters.all();
    // At once: each of those that are down takes its time to say so.
    let all = futures::future::join_all(clusters.iter().map(health)).await;
    for (cluster, health) in clusters.iter().zip(all) {
        let is_here = |row: &&JobRow| row.cluster == cluster.name().as_str();
        // Of a cluster that nobody works on it cannot be said.
        let known = (cluster.kind() != ClusterKind::None).then_some(health.condition);
        let reachable = known.map(|condition| condition != Condition::Unreachable);
        out.push(ClustersRow {
            cluster: cluster.name().to_string().into(),
            kind: cluster.kind().name().into(),
            version: health.version.into(),
            reachable: reachable.into(),
            condition: known.map(|condition| condition.name().to_owned()).into(),
            error: health.error.map(|e| e.to_string()).into(),
            jobs_running: (running.iter().filter(is_here).count() as u64).into(),
            leader: health.leader.into(),
            address: cluster.external().map(|r| r.address()).into(),
        });
    }
    Ok(out)
}

/// Every session. What others say and where they are is for administrators: statements carry
/// literals.
pub(super) async fn sessions(context: &ScanContext) -> Result<Vec<SessionsRow>, Error> {
    let ScanContext {
        sources, viewer, ..
    } = context;
    let sees_all = sources
        .store
        .users()
        .await?
        .iter()
        .any(|u| u.admin && u.name.as_str() == viewer.as_str());
    let shown = |user: &str| sees_all || user == viewer;
    let sessions = sources.sessions.read();
    let rows = sessions
        .iter()
        .map(|(pid, s)| SessionsRow {
            pid: i64::from(*pid).into(),
            user_name: s.user.clone().into(),
            cluster: s.cluster.clone().into(),
            client_addr: Some(s.client_addr.clone())
                .filter(|_| shown(&s.user))
                .into(),
            application_name: s.application_name.clone().into(),
            started_at: s.started_at.into(),
            state: if s.active { "active" } else { "idle" }.into(),
            statement: s.statement.clone().filter(|_| shown(&s.user)).into(),
        })
        .collect();
    Ok(rows)
}

pub(super) fn settings(sources: &Sources) -> Vec<SettingsRow> {
    let row = |(name, value, description): &(String, String, String)| SettingsRow {
        name: name.clone().into(),
        value: value.clone().into(),
        description: description.clone().into(),
    };
    sources.settings.iter().map(row).collect()
}

pub(super) async fn users(sources: &Sources) -> Result<Vec<UsersRow>, Error> {
    let users = sources.store.users().await?.into_iter();
    Ok(users
        .map(|u| UsersRow {
            user_name: u.name.to_string().into(),
            is_admin: u.admin.into(),
            has_password: u.verifier.is_some().into(),
            created_at: u.created_at.into(),
        })
        .collect())
}
