//! The gateway itself: clusters, sessions, settings, users.

use super::super::system::Type::{Bool, Int, Text, Time};
use super::super::system::{Definition, Rows, Sources};
use crate::error::Error;
use crate::store::JobFilter;

pub(super) const CLUSTERS: Definition = Definition {
    name: "clusters",
    columns: &[("cluster", Text), ("kind", Text), ("version", Text), ("reachable", Bool), ("error", Text), ("jobs_running", Int)],
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

pub(super) async fn clusters(sources: &Sources) -> Result<Rows, Error> {
    let running = sources.store.jobs(&JobFilter { status: Some("running".into()), ..JobFilter::default() }).await?;
    let mut out = Rows::new();
    for (name, cluster) in &sources.clusters {
        let description = cluster.describe().await;
        let version = description.as_ref().ok().and_then(|d| d.frontends.first().map(|f| f.version.clone()));
        out.push(vec![
            name.to_string().into(),
            "embedded".into(),
            version.into(),
            description.is_ok().into(),
            description.err().map(|e| e.to_string()).into(),
            (running.iter().filter(|row| row.cluster == name.as_str()).count() as u64).into(),
        ]);
    }
    Ok(out)
}

pub(super) fn sessions(sources: &Sources) -> Rows {
    let sessions = sources.sessions.read();
    sessions
        .iter()
        .map(|(pid, s)| {
            vec![
                i64::from(*pid).into(),
                s.user.clone().into(),
                s.cluster.clone().into(),
                s.client_addr.clone().into(),
                s.application_name.clone().into(),
                s.started_at.into(),
                if s.active { "active" } else { "idle" }.into(),
                s.statement.clone().into(),
            ]
        })
        .collect()
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
