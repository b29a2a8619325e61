//! The system tables: names, columns and where their rows come from. The names are a public interface: columns are added,
//! never renamed.

mod cluster;
mod gateway;
mod jobs;
mod repositories;
mod stored;

use std::sync::Arc;

use super::system::{Definition, Rows, ScanRequest, Sources};
use crate::cluster::Cluster;
use crate::error::Error;

/// Every system table.
pub(super) const DEFINITIONS: &[Definition] = &[
    jobs::JOBS,
    jobs::BACKUP_JOBS,
    jobs::RESTORE_JOBS,
    jobs::JOB_EVENTS,
    jobs::JOB_TASKS,
    repositories::REPOSITORIES,
    repositories::SNAPSHOTS,
    repositories::SNAPSHOT_FILES,
    repositories::VERIFICATIONS,
    cluster::FRONTENDS,
    cluster::BACKENDS,
    cluster::BROKERS,
    cluster::DATABASES,
    cluster::TABLES,
    cluster::VIEWS,
    cluster::COLUMNS,
    cluster::PARTITIONS,
    cluster::TABLETS,
    gateway::CLUSTERS,
    gateway::SESSIONS,
    gateway::SETTINGS,
    gateway::USERS,
    gateway::ROLES,
    gateway::GRANTS,
];

/// The rows of a table, in the order of its columns.
pub(super) async fn rows(
    name: &str,
    sources: &Sources,
    cluster: &Arc<dyn Cluster>,
    viewer: &str,
    wanted: &ScanRequest,
) -> Result<Rows, Error> {
    match name {
        "jobs" => jobs::jobs(sources, wanted).await,
        "backup_jobs" => jobs::backup_jobs(sources, cluster, wanted).await,
        "restore_jobs" => jobs::restore_jobs(sources, cluster, wanted).await,
        "job_events" => jobs::job_events(sources, wanted).await,
        "job_tasks" => jobs::job_tasks(sources, wanted).await,
        "repositories" => repositories::repositories(sources, wanted).await,
        "snapshots" => repositories::snapshots(sources, wanted).await,
        "snapshot_files" => repositories::snapshot_files(sources, wanted).await,
        "verifications" => Ok(Rows::new()),
        "frontends" => cluster::frontends(cluster, wanted).await,
        "backends" => cluster::backends(cluster, wanted).await,
        "brokers" => cluster::brokers(cluster, wanted).await,
        "databases" => cluster::databases(cluster, wanted).await,
        "tables" => cluster::tables(cluster, wanted).await,
        "views" => cluster::views(cluster, wanted).await,
        "columns" => cluster::columns(cluster, wanted).await,
        "partitions" => cluster::partitions(cluster, wanted).await,
        "tablets" => cluster::tablets(cluster, wanted).await,
        "clusters" => gateway::clusters(sources).await,
        "sessions" => gateway::sessions(sources, viewer).await,
        "settings" => Ok(gateway::settings(sources)),
        "users" => gateway::users(sources).await,
        "roles" => gateway::roles(sources).await,
        "grants" => gateway::grants(sources).await,
        other => Err(Error::internal(format!("system table {other} has no source"))),
    }
}
