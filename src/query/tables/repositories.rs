//! Repositories and what is in them, read from where they are.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

use super::super::system::{ScanContext, ScanRequest, Sources};
use super::repository_rows::{READS, RepositoriesRow, SnapshotFilesRow, SnapshotsRow, in_time};
use super::{stored, verifications};
use crate::error::Error;
use crate::names::{BackupTimestamp, SnapshotLabel};
use crate::repository::{ListedBackup, Location, Manifest, ObjectNames, Repository};
use crate::store::RepositoryRecord;

fn open(sources: &Sources, record: &RepositoryRecord) -> Result<Arc<Repository>, Error> {
    let location = Location {
        url: record.location.clone(),
        properties: record.properties.clone(),
    };
    sources.open.open(&record.name, &location)
}

async fn ping(sources: &Sources, record: &RepositoryRecord) -> Result<(), Error> {
    let repository = open(sources, record)?;
    in_time(sources, repository.ping()).await
}

/// The records of repositories in our own format, as far as the query is about their cluster.
async fn ours(sources: &Sources, wanted: &ScanRequest) -> Result<Vec<RepositoryRecord>, Error> {
    let only = wanted.text("cluster");
    let mut records = sources.store.repositories().await?;
    records.retain(|r| {
        sources
            .clusters
            .get(&r.cluster)
            .is_some_and(|c| c.managed().is_ok())
            && only.as_ref().is_none_or(|name| name == r.cluster.as_str())
    });
    Ok(records)
}

pub(super) async fn repositories(context: &ScanContext) -> Result<Vec<RepositoriesRow>, Error> {
    let ScanContext {
        sources,
        request: wanted,
        ..
    } = context;
    let records = ours(sources, wanted).await?;
    let pings: Vec<BoxFuture<'_, _>> = records
        .iter()
        .map(|record| ping(sources, record).boxed())
        .collect();
    let found: Vec<_> = futures::stream::iter(pings).buffered(READS).collect().await;
    let mut rows: Vec<RepositoriesRow> = records
        .iter()
        .zip(found)
        .map(|(r, state)| RepositoriesRow {
            repository_id: r.id.0.into(),
            repository: r.name.to_string().into(),
            location: r.location.clone().into(),
            broker: r.broker.clone().into(),
            read_only: r.read_only.into(),
            format: "starkeep".into(),
            created_at: r.created_at.into(),
            error: state.err().map(|e| e.to_string()).into(),
            checked_at: sources.env.now().into(),
            cluster: r.cluster.to_string().into(),
        })
        .collect();
    rows.extend(stored::repositories(context).await?);
    Ok(rows)
}

type Read = (SnapshotLabel, BackupTimestamp, Result<Arc<Manifest>, Error>);

#[derive(Default)]
struct Content {
    /// Every backup with its manifest, or why it does not read.
    backups: Vec<Read>,
    /// What stands where backups stand and is none: its label, and what is wrong.
    strays: Vec<(SnapshotLabel, String)>,
    /// How its objects are called, once it was read.
    objects: Option<ObjectNames>,
}

/// What stands under a label, or under all.
async fn content(repository: &Repository, label: Option<&SnapshotLabel>) -> Result<Content, Error> {
    let listings = match label {
        Some(label) => {
            let listing = repository.snapshot(label).await?;
            let is_there = !listing.backups.is_empty()
                || !listing.strays.is_empty()
                || repository.has_label(label).await?;
            Some(listing).filter(|_| is_there).into_iter().collect()
        }
        None => repository.snapshots().await?,
    };
    let mut strays = Vec::new();
    for listing in &listings {
        strays.extend(
            listing
                .strays
                .iter()
                .map(|name| (listing.label.clone(), format!("Invalid: {name}"))),
        );
        if listing.backups.is_empty() && listing.strays.is_empty() {
            strays.push((listing.label.clone(), "ERROR: no snapshot".to_owned()));
        }
    }
    let backups: Vec<_> = listings
        .into_iter()
        .flat_map(|l| l.backups.into_iter().map(move |b| (l.label.clone(), b)))
        .collect();
    let read = |label: SnapshotLabel, backup: ListedBackup| async move {
        let manifest = repository.listed_manifest(&label, &backup).await;
        (label, backup.timestamp, manifest)
    };
    let reads: Vec<BoxFuture<'_, Read>> = backups
        .into_iter()
        .map(|(label, backup)| read(label, backup).boxed())
        .collect();
    Ok(Content {
        backups: futures::stream::iter(reads).buffered(READS).collect().await,
        strays,
        objects: Some(repository.objects().await?),
    })
}

/// The repositories that the query is about. One that it names and that cannot be listed is an
/// error; one of many is not.
async fn wanted_repositories(
    sources: &Sources,
    wanted: &ScanRequest,
) -> Result<Vec<(RepositoryRecord, Result<Content, Error>)>, Error> {
    let only = wanted.text("repository");
    // What only one backup uses is known when all of them are.
    let label = wanted
        .text("snapshot")
        .filter(|_| !wanted.needs("bytes_unique"));
    let label = label.and_then(|label| SnapshotLabel::new(label).ok());
    let mut out = Vec::new();
    for record in ours(sources, wanted).await? {
        if only
            .as_ref()
            .is_some_and(|name| name != record.name.as_str())
        {
            continue;
        }
        let read = match open(sources, &record) {
            Ok(repository) => content(&repository, label.as_ref()).await,
            Err(e) => Err(e),
        };
        if let (Err(e), true) = (&read, only.is_some()) {
            let message = format!(
                "Failed to list snapshot in repo: {}, err: {}",
                record.name, e.message
            );
            return Err(Error::new(e.kind, message).hint("See SHOW REPOSITORIES."));
        }
        out.push((record, read));
    }
    Ok(out)
}

pub(super) async fn snapshots(context: &ScanContext) -> Result<Vec<SnapshotsRow>, Error> {
    let ScanContext {
        sources,
        request: wanted,
        ..
    } = context;
    let mut out = Vec::new();
    let damaged = |record: &RepositoryRecord,
                   label: Option<String>,
                   timestamp: Option<String>,
                   status: String| SnapshotsRow {
        repository: record.name.to_string().into(),
        cluster: record.cluster.to_string().into(),
        snapshot: label.into(),
        backup_timestamp: timestamp.into(),
        status: status.into(),
        ..SnapshotsRow::default()
    };
    let verified = match wanted.needs("last_verified_at")
        || wanted.needs("last_verified_level")
        || wanted.needs("last_verified_ok")
    {
        true => verifications::latest(sources).await?,
        false => HashMap::new(),
    };
    for (record, read) in wanted_repositories(sources, wanted).await? {
        let repository = record.name.as_str();
        let Content {
            backups: read,
            strays,
            ..
        } = match read {
            Ok(content) => content,
            Err(e) => {
                out.push(damaged(
                    &record,
                    None,
                    None,
                    format!("ERROR: {}", e.message),
                ));
                continue;
            }
        };
        for (label, status) in strays {
            out.push(damaged(&record, Some(label.to_string()), None, status));
        }
        // How many backups use each file; what only one uses is what dropping it would free.
        let mut users: HashMap<&str, u32> = HashMap::new();
        for manifest in read
            .iter()
            .filter_map(|(.., m)| m.as_ref().ok())
            .filter(|_| wanted.needs("bytes_unique"))
        {
            let mut files: Vec<&str> = manifest.files().map(|f| &*f.sha256).collect();
            files.sort_unstable();
            files.dedup();
            for file in files {
                *users.entry(file).or_default() += 1;
            }
        }
        for (label, timestamp, manifest) in &read {
            let (label, timestamp) = (label.to_string(), timestamp.to_string());
            let verified = verified.get(&(
                record.cluster.to_string(),
                repository.to_owned(),
                label.clone(),
                timestamp.clone(),
            ));
            let manifest = match manifest {
                Ok(manifest) => manifest,
                Err(e) => {
                    out.push(damaged(
                        &record,
                        Some(label),
                        Some(timestamp),
                        format!("ERROR: Failed to get info: {e}"),
                    ));
                    continue;
                }
            };
            let volume = manifest.volume();
            let unique: u64 = manifest
                .files()
                .filter(|f| users.get(&*f.sha256) == Some(&1))
                .map(|f| f.bytes)
                .sum();
            out.push(SnapshotsRow {
                repository: repository.into(),
                snapshot: label.into(),
                backup_timestamp: timestamp.into(),
                db_name: manifest.database.to_string().into(),
                status: "OK".into(),
                kind: (if manifest.base.is_some() {
                    "incremental"
                } else {
                    "full"
                })
                .into(),
                base_snapshot: manifest.base.as_ref().map(ToString::to_string).into(),
                tables: (manifest.tables.len() as u64).into(),
                partitions: (manifest
                    .tables
                    .iter()
                    .map(|t| t.partitions.len() as u64)
                    .sum::<u64>())
                .into(),
                files: volume.files.into(),
                rows: manifest.files().map(|f| f.rows).sum::<u64>().into(),
                bytes_total: volume.bytes.into(),
                bytes_unique: unique.into(),
                created_at: manifest.created_at.into(),
                finished_at: manifest.saved_at.into(),
                ttl: manifest.ttl.map(|ttl| ttl.to_string()).into(),
                expire_at: manifest.expire_at.into(),
                last_verified_at: verified.map(|v| v.verified_at).into(),
                last_verified_level: verified.map(|v| v.level.clone()).into(),
                last_verified_ok: verified.map(|v| v.damage == 0).into(),
                details: manifest.details().into(),
                cluster_id: manifest.cluster_id.clone().into(),
                views: (manifest.views.len() as u64).into(),
                cluster: record.cluster.to_string().into(),
            });
        }
    }
    out.extend(stored::snapshots(context).await?);
    Ok(out)
}

pub(super) async fn snapshot_files(context: &ScanContext) -> Result<Vec<SnapshotFilesRow>, Error> {
    let ScanContext {
        sources,
        request: wanted,
        ..
    } = context;
    let mut out = Vec::new();
    for (record, read) in wanted_repositories(sources, wanted).await? {
        // A sum over files must not be less without a word.
        let unread =
            |label: Option<String>, timestamp: Option<String>, error: &Error| SnapshotFilesRow {
                repository: record.name.to_string().into(),
                snapshot: label.into(),
                backup_timestamp: timestamp.into(),
                status: format!("ERROR: {}", error.message).into(),
                cluster: record.cluster.to_string().into(),
                ..SnapshotFilesRow::default()
            };
        let (backups, objects) = match read {
            Ok(content) => (content.backups, content.objects),
            Err(e) => {
                out.push(unread(None, None, &e));
                continue;
            }
        };
        for (label, timestamp, manifest) in backups {
            let manifest = match manifest {
                Ok(manifest) => manifest,
                Err(e) => {
                    out.push(unread(
                        Some(label.to_string()),
                        Some(timestamp.to_string()),
                        &e,
                    ));
                    continue;
                }
            };
            for table in &manifest.tables {
                for partition in &table.partitions {
                    for tablet in &partition.tablets {
                        for file in &tablet.files {
                            out.push(SnapshotFilesRow {
                                repository: record.name.to_string().into(),
                                snapshot: label.to_string().into(),
                                backup_timestamp: timestamp.to_string().into(),
                                db_name: manifest.database.to_string().into(),
                                table_name: table.name.to_string().into(),
                                partition_name: partition.name.to_string().into(),
                                tablet_id: tablet.tablet_id.0.into(),
                                path: objects.as_ref().map(|names| names.of(&file.sha256)).into(),
                                bytes: file.bytes.into(),
                                rows: file.rows.into(),
                                checksum: file.sha256.to_string().into(),
                                status: "OK".into(),
                                table_id: table.table_id.0.into(),
                                partition_id: partition.partition_id.0.into(),
                                cluster: record.cluster.to_string().into(),
                            });
                        }
                    }
                }
            }
        }
    }
    out.extend(stored::snapshot_files(context).await?);
    Ok(out)
}
