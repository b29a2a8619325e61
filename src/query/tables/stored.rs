//! Repositories that StarRocks clusters write: what the clusters tell of them, and what is stored.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::super::system::{Int, ScanContext, ScanRequest, Sources};
use super::repository_rows::{READS, RepositoriesRow, SnapshotFilesRow, SnapshotsRow, in_time};
use super::verifications::{self, Latest};
use crate::cluster::{Cluster, ClusterRole, ExternalCluster, ExternalRepository};
use crate::error::{Error, ErrorKind};
use crate::names::RepositoryName;
use crate::repository::{FileStatus, Info, Location, StarRocksRepository, StoredInfo, StoredLabel};
use crate::store::RepositoryRecord;

/// What is in `system.snapshots` only after everything under a label has been listed.
const COUNTED: &[&str] = &["files", "bytes_total", "bytes_unique"];

/// A repository, as its cluster knows it, as it is recorded here, or both.
struct Known {
    name: String,
    there: Option<ExternalRepository>,
    record: Option<RepositoryRecord>,
}

impl Known {
    /// The storage, if it is known how it is reached. Without properties only a directory is.
    fn stored(&self, sources: &Sources) -> Option<Result<StarRocksRepository, Error>> {
        let url = self
            .there
            .as_ref()
            .map(|t| t.location.clone())
            .or_else(|| self.record.as_ref().map(|r| r.location.clone()))?;
        let properties = self
            .record
            .as_ref()
            .map(|r| r.properties.clone())
            .unwrap_or_default();
        let location = Location { url, properties };
        if location.properties.is_empty() && !location.is_local() {
            return None;
        }
        let open = |name| sources.open.open_starrocks(&name, &location);
        Some(RepositoryName::new(self.name.as_str()).and_then(open))
    }

    /// Why it cannot be read from here.
    async fn trouble(&self, sources: &Sources) -> Option<String> {
        match self.stored(sources) {
            Some(Ok(stored)) => in_time(sources, stored.ping()).await.err().map(|e| e.to_string()),
            Some(Err(e)) => Some(e.to_string()),
            None => Some("its storage properties are not known here; ALTER REPOSITORY … SET PROPERTIES (…) gives them".into()),
        }
    }
}

/// The repositories of a cluster that writes StarRocks' layout, by name; and why the cluster could
/// not be asked.
async fn known(
    sources: &Sources,
    cluster: &dyn Cluster,
) -> Result<(Vec<Known>, Option<Error>), Error> {
    let mut all: BTreeMap<String, Known> = BTreeMap::new();
    for record in sources
        .store
        .repositories()
        .await?
        .into_iter()
        .filter(|r| &r.cluster == cluster.name())
    {
        let name = record.name.to_string();
        all.insert(
            name.clone(),
            Known {
                name,
                there: None,
                record: Some(record),
            },
        );
    }
    let mut error = None;
    if let ClusterRole::External(external) = cluster.role() {
        match external.repositories().await {
            Ok(there) => {
                // What the cluster does not have any more is recorded here in vain.
                all.retain(|name, _| there.iter().any(|t| &t.name == name));
                for one in there {
                    let name = one.name.clone();
                    let known = all.entry(name.clone()).or_insert_with(|| Known {
                        name,
                        there: None,
                        record: None,
                    });
                    known.there = Some(one);
                }
            }
            Err(e) => error = Some(e),
        }
    }
    Ok((all.into_values().collect(), error))
}

/// Clusters whose repositories are in StarRocks' layout, as far as the query is about them.
fn clusters(sources: &Sources, wanted: &ScanRequest) -> Vec<std::sync::Arc<dyn Cluster>> {
    let only = wanted.text("cluster");
    let all = sources.clusters.all().into_iter();
    all.filter(|c| {
        c.managed().is_err() && only.as_ref().is_none_or(|name| name == c.name().as_str())
    })
    .collect()
}

pub(super) async fn repositories(context: &ScanContext) -> Result<Vec<RepositoriesRow>, Error> {
    let ScanContext {
        sources,
        request: wanted,
        ..
    } = context;
    let mut out = Vec::new();
    for cluster in clusters(sources, wanted) {
        let (known, unreachable) = known(sources, &*cluster).await?;
        let pings: Vec<BoxFuture<'_, _>> = known
            .iter()
            .map(|one| one.trouble(sources).boxed())
            .collect();
        let found: Vec<_> = futures::stream::iter(pings).buffered(READS).collect().await;
        for (one, stored) in known.iter().zip(found) {
            let told = one.there.as_ref().and_then(|t| t.error.clone());
            let error = told
                .or_else(|| unreachable.as_ref().map(ToString::to_string))
                .or(stored);
            let record = one.record.as_ref();
            let there = one.there.as_ref();
            out.push(RepositoriesRow {
                repository_id: there
                    .and_then(|t| t.id)
                    .or_else(|| record.map(|r| r.id.0))
                    .into(),
                repository: one.name.clone().into(),
                location: there
                    .map(|t| t.location.clone())
                    .or_else(|| record.map(|r| r.location.clone()))
                    .into(),
                broker: there
                    .and_then(|t| t.broker.clone())
                    .or_else(|| record.and_then(|r| r.broker.clone()))
                    .into(),
                read_only: there
                    .map(|t| t.read_only)
                    .or_else(|| record.map(|r| r.read_only))
                    .into(),
                format: "starrocks".into(),
                created_at: there
                    .and_then(|t| t.created_at)
                    .or_else(|| record.map(|r| r.created_at))
                    .into(),
                error: error.into(),
                checked_at: sources.env.now().into(),
                cluster: cluster.name().to_string().into(),
            });
        }
    }
    Ok(out)
}

/// What a query asks of each repository.
struct Ask<'a> {
    cluster: &'a dyn Cluster,
    repository: &'a str,
    label: Option<String>,
    /// When each backup was looked at last, if that is asked for.
    verified: Option<&'a Latest>,
}

impl Ask<'_> {
    fn snapshot(&self, label: &str, status: String) -> SnapshotsRow {
        SnapshotsRow {
            repository: self.repository.into(),
            snapshot: label.into(),
            status: status.into(),
            cluster: self.cluster.name().to_string().into(),
            ..SnapshotsRow::default()
        }
    }

    fn file(&self, label: &str, status: String) -> SnapshotFilesRow {
        SnapshotFilesRow {
            repository: self.repository.into(),
            snapshot: label.into(),
            status: status.into(),
            cluster: self.cluster.name().to_string().into(),
            ..SnapshotFilesRow::default()
        }
    }

    async fn labels(&self, stored: &StarRocksRepository) -> Result<Vec<String>, Error> {
        let all = stored.labels().await?;
        Ok(all
            .into_iter()
            .filter(|l| self.label.as_ref().is_none_or(|only| only == l))
            .collect())
    }

    /// From the storage: with everything that StarRocks itself does not tell.
    async fn stored(
        &self,
        sources: &Sources,
        stored: &StarRocksRepository,
        counted: bool,
    ) -> Result<Vec<SnapshotsRow>, Error> {
        in_time(sources, stored.ping()).await?;
        let labels = in_time(sources, self.labels(stored)).await?;
        let read = |label: String| async move {
            let read = self.stored_label(stored, &label, counted).await;
            read.unwrap_or_else(|e| vec![self.snapshot(&label, format!("ERROR: {}", e.message))])
        };
        let reads: Vec<BoxFuture<'_, Vec<SnapshotsRow>>> = labels
            .into_iter()
            .map(|label| read(label).boxed())
            .collect();
        Ok(futures::stream::iter(reads).buffered(READS).concat().await)
    }

    async fn stored_label(
        &self,
        stored: &StarRocksRepository,
        label: &str,
        counted: bool,
    ) -> Result<Vec<SnapshotsRow>, Error> {
        let found = stored.label(label).await?;
        let (mut files, mut bytes) = (Int::default(), Int::default());
        if counted {
            let (count, sum) = volume(stored, label).await?;
            (files, bytes) = (count.into(), sum.into());
        }
        // Nothing is shared between labels.
        let sized = |row: SnapshotsRow| SnapshotsRow {
            files: files.clone(),
            bytes_total: bytes.clone(),
            bytes_unique: bytes.clone(),
            ..row
        };
        let mut out = Vec::new();
        if found.infos.is_empty() {
            out.push(sized(self.snapshot(label, found.status())));
        }
        for stray in found
            .strays
            .iter()
            .filter(|s| s.starts_with("__info_") && !s.ends_with(".part"))
        {
            out.push(self.snapshot(label, format!("Invalid: {stray}")));
        }
        for info in &found.infos {
            let read = stored.info(info).await;
            out.push(sized(self.of_info(label, &found, info, read)));
        }
        Ok(out)
    }

    fn of_info(
        &self,
        label: &str,
        found: &StoredLabel,
        stored: &StoredInfo,
        read: Result<Info, Error>,
    ) -> SnapshotsRow {
        let info = match read {
            Ok(info) => info,
            Err(e) => {
                return SnapshotsRow {
                    backup_timestamp: stored.timestamp.clone().into(),
                    ..self.snapshot(label, format!("ERROR: Failed to get info: {}", e.message))
                };
            }
        };
        let status = if found.has_meta {
            found.status()
        } else {
            "ERROR: Failed to get info: there is no __meta".into()
        };
        let (tables, partitions, views) = info.counts();
        let verified = self.verified.and_then(|latest| {
            latest.get(&(
                self.cluster.name().to_string(),
                self.repository.to_owned(),
                label.to_owned(),
                stored.timestamp.clone(),
            ))
        });
        SnapshotsRow {
            last_verified_at: verified.map(|v| v.verified_at).into(),
            last_verified_level: verified.map(|v| v.level.clone()).into(),
            last_verified_ok: verified.map(|v| v.damage == 0).into(),
            backup_timestamp: stored.timestamp.clone().into(),
            db_name: info.database.clone().into(),
            kind: "full".into(),
            tables: tables.into(),
            partitions: partitions.into(),
            views: views.into(),
            created_at: info.created_at().into(),
            finished_at: info.finish_time.map(crate::names::Timestamp).into(),
            ttl: info.ttl.clone().into(),
            expire_at: info.expire_time.map(crate::names::Timestamp).into(),
            details: info.details().into(),
            cluster_id: info
                .cluster_id
                .as_ref()
                .map(|id| id.to_string().trim_matches('"').to_owned())
                .into(),
            ..self.snapshot(label, status)
        }
    }

    /// From the cluster, when the storage cannot be read from here.
    async fn told(&self, external: &dyn ExternalCluster) -> Result<Vec<SnapshotsRow>, Error> {
        let mut out = Vec::new();
        for found in external
            .snapshots(self.repository, self.label.as_deref())
            .await?
        {
            let more = |timestamp: Option<&String>| {
                let status = match timestamp {
                    Some(t) if t.starts_with("Invalid: ") => t.clone(),
                    _ => found.status.clone(),
                };
                SnapshotsRow {
                    backup_timestamp: timestamp
                        .filter(|t| !t.starts_with("Invalid: "))
                        .cloned()
                        .into(),
                    finished_at: found.finished_at.into(),
                    ttl: found.ttl.clone().into(),
                    expire_at: found.expire_at.into(),
                    cluster_id: found.cluster_id.clone().into(),
                    ..self.snapshot(&found.label, status)
                }
            };
            if found.timestamps.is_empty() {
                out.push(more(None));
            }
            out.extend(found.timestamps.iter().map(|t| more(Some(t))));
        }
        Ok(out)
    }
}

async fn volume(stored: &StarRocksRepository, label: &str) -> Result<(u64, u64), Error> {
    let files = stored.files(Some(label)).await?;
    files
        .try_fold((0, 0), |(files, bytes), file| async move {
            Ok((files + 1, bytes + file.bytes))
        })
        .await
}

/// The repositories that the query is about, each with how to ask.
async fn asked(
    sources: &Sources,
    cluster: &dyn Cluster,
    wanted: &ScanRequest,
) -> Result<(Vec<Known>, Option<Error>), Error> {
    let only = wanted.text("repository");
    let (mut known, error) = known(sources, cluster).await?;
    known.retain(|k| only.as_ref().is_none_or(|name| *name == k.name));
    Ok((known, error))
}

pub(super) async fn snapshots(context: &ScanContext) -> Result<Vec<SnapshotsRow>, Error> {
    let ScanContext {
        sources,
        request: wanted,
        ..
    } = context;
    let mut out = Vec::new();
    let is_asked = wanted.needs("last_verified_at")
        || wanted.needs("last_verified_level")
        || wanted.needs("last_verified_ok");
    let verified = match is_asked {
        true => Some(verifications::latest(sources).await?),
        false => None,
    };
    let counted = COUNTED.iter().any(|column| wanted.needs(column));
    for cluster in clusters(sources, wanted) {
        let (known, unreachable) = asked(sources, &*cluster, wanted).await?;
        // One cluster and one repository are meant: then it is an error if they cannot be seen.
        let is_meant = wanted.text("repository").is_some() && wanted.text("cluster").is_some();
        if known.is_empty() && is_meant {
            let name = wanted.text("repository").unwrap_or_default();
            let message = format!("Repository [{name}] does not exist");
            return Err(unreachable.unwrap_or_else(|| {
                Error::new(ErrorKind::UndefinedObject, message).hint("See SHOW REPOSITORIES.")
            }));
        }
        for one in known {
            let ask = Ask {
                cluster: &*cluster,
                repository: &one.name,
                label: wanted.text("snapshot"),
                verified: verified.as_ref(),
            };
            let stored = match one.stored(sources) {
                Some(Ok(stored)) => ask.stored(sources, &stored, counted).await,
                Some(Err(e)) => Err(e),
                None => Err(Error::new(
                    ErrorKind::Storage,
                    "its storage properties are not known here",
                )),
            };
            let read = match (stored, cluster.role()) {
                (Err(_), ClusterRole::External(external)) => ask.told(external).await,
                (stored, _) => stored,
            };
            match read {
                Ok(rows) => out.extend(rows),
                Err(e) if is_meant => return Err(e),
                Err(e) => out.push(SnapshotsRow {
                    repository: one.name.clone().into(),
                    status: format!("ERROR: {}", e.message).into(),
                    cluster: cluster.name().to_string().into(),
                    ..SnapshotsRow::default()
                }),
            }
        }
    }
    Ok(out)
}

pub(super) async fn snapshot_files(context: &ScanContext) -> Result<Vec<SnapshotFilesRow>, Error> {
    let ScanContext {
        sources,
        request: wanted,
        ..
    } = context;
    let mut out = Vec::new();
    for cluster in clusters(sources, wanted) {
        let (known, _) = asked(sources, &*cluster, wanted).await?;
        let is_meant = wanted.text("repository").is_some() && wanted.text("cluster").is_some();
        for one in known {
            let ask = Ask {
                cluster: &*cluster,
                repository: &one.name,
                label: wanted.text("snapshot"),
                verified: None,
            };
            let listed = match one.stored(sources) {
                Some(Ok(stored)) => ask.files(sources, &stored).await,
                Some(Err(e)) => Err(e),
                None => Err(Error::new(
                    ErrorKind::Storage,
                    "its storage properties are not known here",
                )),
            };
            match listed {
                Ok(rows) => out.extend(rows),
                Err(e) if is_meant => return Err(e),
                // A sum over files must not be less without a word.
                Err(e) => out.push(SnapshotFilesRow {
                    repository: one.name.clone().into(),
                    status: format!("ERROR: {}", e.message).into(),
                    cluster: cluster.name().to_string().into(),
                    ..SnapshotFilesRow::default()
                }),
            }
        }
    }
    Ok(out)
}

impl Ask<'_> {
    async fn files(
        &self,
        sources: &Sources,
        stored: &StarRocksRepository,
    ) -> Result<Vec<SnapshotFilesRow>, Error> {
        in_time(sources, stored.ping()).await?;
        let labels = in_time(sources, self.labels(stored)).await?;
        let read = |label: String| async move {
            let read = self.files_of(stored, &label).await;
            read.unwrap_or_else(|e| vec![self.file(&label, format!("ERROR: {}", e.message))])
        };
        let reads: Vec<BoxFuture<'_, Vec<SnapshotFilesRow>>> = labels
            .into_iter()
            .map(|label| read(label).boxed())
            .collect();
        Ok(futures::stream::iter(reads).buffered(READS).concat().await)
    }

    async fn files_of(
        &self,
        stored: &StarRocksRepository,
        label: &str,
    ) -> Result<Vec<SnapshotFilesRow>, Error> {
        let mut out = Vec::new();
        let found = stored.label(label).await?;
        let info = match found.infos.last() {
            Some(last) => stored.info(last).await.ok(),
            None => None,
        };
        let names = info.as_ref().map(Info::names).unwrap_or_default();
        let timestamp = found.infos.last().map(|i| i.timestamp.clone());
        let mut files = stored.files(Some(label)).await?;
        while let Some(file) = files.try_next().await? {
            let name_of = |id: Option<i64>, names: &std::collections::HashMap<i64, &str>| {
                id.and_then(|id| names.get(&id))
                    .map(|name| (*name).to_owned())
            };
            out.push(SnapshotFilesRow {
                backup_timestamp: timestamp.clone().into(),
                db_name: info.as_ref().map(|i| i.database.clone()).into(),
                table_name: name_of(file.table_id, &names.tables).into(),
                partition_name: name_of(file.partition_id, &names.partitions).into(),
                tablet_id: file.tablet_id.into(),
                path: file.path.into(),
                bytes: file.bytes.into(),
                checksum: file.md5.filter(|_| file.status == FileStatus::Whole).into(),
                table_id: file.table_id.into(),
                partition_id: file.partition_id.into(),
                ..self.file(label, file.status.name().to_owned())
            });
        }
        Ok(out)
    }
}
