//! The steps of a restore: check and reserve, make room, download beside the old data, verify; and
//! letting go, of either kind.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};

use super::define::{self, place, too_few_backends};
use super::fe::{next_ids, unknown_database};
use super::files::each_file;
use super::metastore::{Metastore, Table};
use super::{EmbeddedCluster, ReportProgress};
use crate::cluster::StepError;
use crate::error::{Error, ErrorKind};
use crate::job::*;
use crate::names::*;
use crate::repository::transfer::blocking;
use crate::repository::{Manifest, Repository};
use crate::schema::{Bounds, Partitioning};
use crate::sqlite::sql_error;

/// Objects of one transaction that is taken back.
const PREVIEWED_AT_A_TIME: usize = 100;

fn mismatch(table: &TableName, reason: &str) -> Error {
    Error::new(
        ErrorKind::WrongState,
        format!("Table {table} already exist but with different schema, errMsg: {reason}"),
    )
    .hint("Restore under another name with AS, or into another database.")
}

/// The checks on a table that is restored over (in StarRocks' order).
fn check_overwrite(
    existing: &Table,
    source: &PlannedTable,
    object: &RestoreObject,
) -> Result<(), Error> {
    let (here, there) = (&*existing.schema, &source.schema);
    let name = &existing.name;
    let same_kind =
        std::mem::discriminant(&here.partitioning) == std::mem::discriminant(&there.partitioning);
    if !same_kind {
        return Err(Error::new(
            ErrorKind::WrongState,
            "Table's partition type is different",
        ));
    }
    if object.target() != &source.name {
        return Err(mismatch(name, "Table name is inconsistent")
            .detail("AS cannot name a table that exists"));
    }
    if here.partitioning != there.partitioning {
        return Err(mismatch(name, "partition columns is inconsistent"));
    }
    if here.distribution.columns != there.distribution.columns {
        return Err(mismatch(
            name,
            "partition distribution col hash is inconsistent",
        ));
    }
    if here.distribution.buckets != there.distribution.buckets {
        return Err(mismatch(name, "bucket num is inconsistent"));
    }
    if here.columns.len() != there.columns.len() {
        return Err(mismatch(name, "").detail(format!(
            "{} columns here, {} in the snapshot",
            here.columns.len(),
            there.columns.len()
        )));
    }
    if here.key != there.key || here.key_columns != there.key_columns {
        return Err(Error::new(
            ErrorKind::WrongState,
            format!("Table {name} already exist but with different key type"),
        )
        .hint("Restore under another name with AS, or into another database."));
    }
    for (a, b) in here.columns.iter().zip(&there.columns) {
        let same = a.name == b.name
            && a.column_type == b.column_type
            && a.nullable == b.nullable
            && a.aggregate == b.aggregate;
        if !same {
            let shown = |c: &crate::schema::Column| {
                format!(
                    "`{}` {} {}",
                    c.name,
                    c.column_type,
                    if c.nullable { "NULL" } else { "NOT NULL" }
                )
            };
            return Err(Error::new(
                ErrorKind::WrongState,
                format!(
                    "Table {name} already exist but with different schema, column: {} in existed table is different from the column in backup snapshot, column: {}",
                    shown(a),
                    shown(b)
                ),
            )
            .hint("Restore under another name with AS, or into another database."));
        }
    }
    Ok(())
}

/// The existing partition that this one takes the place of, if it may; none if it is added.
fn replaced(
    existing: &Table,
    partition: &PlannedPartition,
    wanted: Option<u16>,
) -> Result<Option<PartitionId>, Error> {
    let name = &existing.name;
    let conflict = |message: String| Error::new(ErrorKind::WrongState, message);
    match existing
        .partitions
        .iter()
        .find(|p| p.name == partition.name)
    {
        Some(found) => {
            if found.bounds != partition.bounds {
                return Err(conflict(format!(
                    "Partition {} in table {name} has different range with partition in repository",
                    partition.name
                )));
            }
            if let Some(wanted) = wanted
                && wanted != existing.replication_num
            {
                return Err(conflict(format!(
                    "Partition {} in table {name} has different replication num '{}' with partition in repository, which is {wanted}",
                    partition.name, existing.replication_num
                ))
                .hint(format!("Use \"replication_num\" = \"{}\", or leave it out.", existing.replication_num)));
            }
            Ok(Some(found.id))
        }
        None if existing.schema.partitioning == Partitioning::Unpartitioned => Err(conflict(
            format!("No partition exist in single partitioned table {name}"),
        )),
        None => match existing
            .partitions
            .iter()
            .find(|p| p.bounds.intersects(&partition.bounds))
        {
            Some(other) => Err(conflict(format!(
                "Partition {} in table {name} has conflict range with existing ranges",
                partition.name
            ))
            .detail(format!("it intersects partition {}", other.name))),
            None => Ok(None),
        },
    }
}

/// Which job restores, into which database, and when.
#[derive(Clone, Copy)]
struct Destination<'a> {
    uid: &'a str,
    database: &'a DatabaseName,
    at: Timestamp,
}

/// Reserves the names and ids of a restore. Said again, it lets go of what it reserved before and
/// starts over.
fn reserve(
    t: &Transaction<'_>,
    metastore: &Metastore,
    into: Destination<'_>,
    request: &RestoreRequest,
    manifest: &Manifest,
    digest: &ManifestDigest,
    alive: &[BackendId],
) -> Result<(RestorePlan, Vec<TabletId>), Error> {
    let Destination { uid, database, at } = into;
    let mut stale = Vec::new();
    {
        let mut select = t
            .prepare_cached("SELECT tablet_id FROM staged_tablets WHERE uid = ?1")
            .map_err(sql_error)?;
        let rows = select
            .query_map([uid], |r| r.get(0).map(TabletId))
            .map_err(sql_error)?;
        for row in rows {
            stale.push(row.map_err(sql_error)?);
        }
    }
    t.execute("DELETE FROM staged_tablets WHERE uid = ?1", [uid])
        .map_err(sql_error)?;
    t.execute("DELETE FROM restore_locks WHERE uid = ?1", [uid])
        .map_err(sql_error)?;
    if request.makes_database {
        define::create_database(t, metastore, database, true, at)?;
    } else {
        metastore
            .database(database.as_str())
            .ok_or_else(|| unknown_database(database))?;
    }
    let wanted = request.replication_given.then_some(request.replication_num);
    let mut tables = Vec::new();
    for object in &request.objects {
        let (source, partitions) = manifest.choose(object)?;
        let target = object.target();
        reserve_name(t, into, target)?;
        if metastore
            .databases
            .get(database.as_str())
            .is_some_and(|d| d.views.contains_key(target.as_str()))
        {
            let message = format!("Table: {target} can not support backup restore, type: VIEW");
            return Err(Error::new(ErrorKind::WrongObjectType, message)
                .hint("Drop the view, or restore under another name with AS."));
        }
        let existing = metastore
            .databases
            .get(database.as_str())
            .and_then(|d| d.tables.get(target.as_str()));
        if let Some(existing) = existing {
            check_overwrite(existing, source, object)?;
        }
        let replication_num = existing.map_or(request.replication_num, |e| e.replication_num);
        if usize::from(replication_num) > alive.len() {
            return Err(too_few_backends(target, replication_num, alive.len()));
        }
        let table_id = match existing {
            Some(existing) => existing.id,
            None => TableId(next_ids(t, 1)?),
        };
        let mut targets = Vec::new();
        for partition in partitions {
            let replaces = match existing {
                Some(existing) => replaced(existing, partition, wanted)?,
                None => None,
            };
            let first = next_ids(t, 1 + partition.tablets.len() as i64)?;
            let tablets = partition
                .tablets
                .iter()
                .enumerate()
                .map(|(bucket, tablet)| {
                    let tablet_id = TabletId(first + 1 + bucket as i64);
                    TargetTablet {
                        tablet_id,
                        backends: place(alive, tablet_id.0 as usize, replication_num),
                        files: tablet.files.clone(),
                    }
                });
            let tablets: Vec<TargetTablet> = tablets.collect();
            let mut stage = t
                .prepare_cached("INSERT INTO staged_tablets (tablet_id, uid) VALUES (?1, ?2)")
                .map_err(sql_error)?;
            for tablet in &tablets {
                stage
                    .execute(params![tablet.tablet_id.0, uid])
                    .map_err(sql_error)?;
            }
            // The only partition of an unpartitioned table is named like it.
            let is_whole = partition.bounds == Bounds::Whole;
            let name = if is_whole {
                PartitionName::new(target.as_str())?
            } else {
                partition.name.clone()
            };
            targets.push(TargetPartition {
                name,
                partition_id: PartitionId(first),
                replaces,
                bounds: partition.bounds.clone(),
                version: partition.version,
                tablets,
            });
        }
        let mut schema = source.schema.clone();
        schema
            .properties
            .insert("replication_num".into(), replication_num.to_string());
        tables.push(TargetTable {
            source: source.name.clone(),
            name: target.clone(),
            table_id,
            exists: existing.is_some(),
            schema,
            replication_num,
            partitions: targets,
        });
    }
    let mut views = Vec::new();
    for object in &request.views {
        let (source, target) = (manifest.view(&object.view)?, object.target());
        reserve_name(t, into, target)?;
        if metastore
            .databases
            .get(database.as_str())
            .is_some_and(|d| d.tables.contains_key(target.as_str()))
        {
            return Err(Error::new(
                ErrorKind::WrongObjectType,
                format!("Table: {target} has existed and it is not a View"),
            )
            .hint("Restore the view under another name with AS, or into another database."));
        }
        views.push(PlannedView {
            name: target.clone(),
            definition: source.definition.clone(),
        });
    }
    Ok((RestorePlan::new(digest.clone(), tables, views), stale))
}

/// Keeps others from a name until the restore lets go of it.
fn reserve_name(
    t: &Transaction<'_>,
    into: Destination<'_>,
    target: &TableName,
) -> Result<(), Error> {
    let locked_by: Option<String> = t
        .query_row(
            "SELECT uid FROM restore_locks WHERE database_name = ?1 AND table_name = ?2",
            [into.database.as_str(), target.as_str()],
            |r| r.get(0),
        )
        .optional()
        .map_err(sql_error)?;
    if locked_by.is_some() {
        return Err(Error::new(
            ErrorKind::ObjectInUse,
            format!("Table {target}'s state is not NORMAL: RESTORE"),
        ));
    }
    t.execute(
        "INSERT INTO restore_locks (database_name, table_name, uid) VALUES (?1, ?2, ?3)",
        params![into.database.as_str(), target.as_str(), into.uid],
    )
    .map_err(sql_error)?;
    Ok(())
}

impl EmbeddedCluster {
    /// What a restore would make of each of its objects, by itself.
    pub(super) async fn preview_restore(
        &self,
        database: &DatabaseName,
        request: &RestoreRequest,
        manifest: &Manifest,
    ) -> Result<Vec<Result<RestorePlan, Error>>, Error> {
        let nothing = RestoreRequest {
            objects: Vec::new(),
            views: Vec::new(),
            ..request.clone()
        };
        let tables = request.objects.iter().map(|object| RestoreRequest {
            objects: vec![object.clone()],
            ..nothing.clone()
        });
        let views = request.views.iter().map(|view| RestoreRequest {
            views: vec![view.clone()],
            ..nothing.clone()
        });
        let (alive, at) = (Arc::new(self.alive().await?), self.inner.env.now());
        let (_, digest) = manifest.encode()?;
        let context = Arc::new((manifest.clone(), database.clone(), digest, alive));
        let previews = tables.chain(views).map(|request| {
            let context = context.clone();
            move |t: &Transaction<'_>, metastore: &Metastore| {
                let (manifest, database, digest, alive) = &*context;
                let into = Destination {
                    uid: "preview",
                    database,
                    at,
                };
                let reserved = reserve(t, metastore, into, &request, manifest, digest, alive);
                reserved.map(|(plan, _)| plan)
            }
        });
        let mut previews: Vec<_> = previews.collect();
        // Others write to the metastore in between.
        let mut came_to = Vec::with_capacity(previews.len());
        while !previews.is_empty() {
            let rest = previews.split_off(previews.len().min(PREVIEWED_AT_A_TIME));
            came_to.extend(self.inner.frontend.preview(previews).await?);
            previews = rest;
        }
        Ok(came_to)
    }

    pub(super) async fn restore_plan(
        &self,
        job: &Job,
        repository: &Repository,
    ) -> Result<RestorePlan, StepError> {
        let Work::Restore { target, request } = job.spec.work.clone() else {
            return Err(Error::internal("a restore was planned for another kind of job").into());
        };
        let (manifest, digest) = repository
            .manifest(&target.label, &request.timestamp)
            .await?;
        let (uid, alive, at) = (
            job.spec.uid.clone(),
            self.alive().await?,
            self.inner.env.now(),
        );
        let (plan, stale) = self
            .inner
            .frontend
            .change(move |t, metastore| {
                let into = Destination {
                    uid: uid.as_str(),
                    database: &target.database,
                    at,
                };
                let (plan, stale) =
                    reserve(t, metastore, into, &request, &manifest, &digest, &alive)?;
                let touched = plan
                    .tables
                    .iter()
                    .filter(|t| t.exists)
                    .map(|t| t.table_id)
                    .collect();
                Ok(((plan, stale), touched))
            })
            .await
            .map_err(|e| match e.kind {
                // Another restore that has just ended is still letting go of its tables.
                ErrorKind::ObjectInUse => StepError::Retry(e),
                _ => e.into(),
            })?;
        self.remove_tablets(stale).await?;
        Ok(plan)
    }

    async fn remove_tablets(&self, tablets: Vec<TabletId>) -> Result<(), Error> {
        let backends = self.inner.backends.clone();
        blocking(move || {
            tablets
                .into_iter()
                .try_for_each(|tablet| backends.remove(tablet, None))
        })
        .await
    }

    /// Makes sure that a tablet's backends can take it. Its directories come with its files, each
    /// synced with what it names.
    pub(super) async fn make_tablet(&self, tablet: &TargetTablet) -> Result<(), Error> {
        let (on, backends) = (tablet.backends.clone(), self.inner.backends.clone());
        blocking(move || {
            on.iter()
                .try_for_each(|backend| backends.check(*backend))
                .map_err(unavailable)
        })
        .await
    }

    pub(super) async fn download_tablet(
        &self,
        tablet: &TargetTablet,
        repository: &Repository,
        progress: ReportProgress,
    ) -> Result<Transfer, StepError> {
        let backends: &Arc<super::be::Backends> = &self.inner.backends;
        each_file(&tablet.files, progress, |file, moved| async move {
            let (checked, on) = (backends.clone(), tablet.backends.clone());
            let check = move || {
                on.iter()
                    .try_for_each(|backend| checked.check(*backend))
                    .map_err(unavailable)
            };
            let paths = tablet
                .backends
                .iter()
                .filter_map(|b| backends.file(*b, tablet.tablet_id, file))
                .collect();
            let repository = repository.telling(moved);
            let downloaded = repository.download(file, paths, &self.inner.budget, check);
            Ok(downloaded.await?)
        })
        .await
    }

    pub(super) async fn verify_tablets(&self, plan: &RestorePlan) -> Result<(), Error> {
        let (tablets, backends): (Vec<TargetTablet>, _) = (
            plan.tablets().cloned().collect(),
            self.inner.backends.clone(),
        );
        blocking(move || {
            for tablet in &tablets {
                for backend in &tablet.backends {
                    backends.check(*backend).map_err(unavailable)?;
                    for file in &tablet.files {
                        if backends.readable(&[*backend], tablet.tablet_id, file).is_none() {
                            return Err(Error::new(
                                ErrorKind::Corrupted,
                                format!(
                                    "move tablet failed: tablet {} on backend {backend} lacks file {}",
                                    tablet.tablet_id, file.sha256
                                ),
                            ));
                        }
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Lets go of pins, links, locks and of tablets that no table got. Whatever is gone already is
    /// fine.
    pub(super) async fn let_go(&self, job: &Job) -> Result<(), Error> {
        let (uid, backends) = (job.spec.uid.clone(), self.inner.backends.clone());
        {
            let uid = uid.clone();
            blocking(move || {
                backends.drop_snapshot(&uid);
                Ok(())
            })
            .await?;
        }
        let staged = {
            let uid = uid.clone();
            self.inner
                .frontend
                .query(move |t| {
                    let mut select = t
                        .prepare_cached("SELECT tablet_id FROM staged_tablets WHERE uid = ?1")
                        .map_err(sql_error)?;
                    let rows = select
                        .query_map([uid.as_str()], |r| r.get(0).map(TabletId))
                        .map_err(sql_error)?;
                    rows.collect::<Result<Vec<_>, _>>().map_err(sql_error)
                })
                .await?
        };
        // Files first: while their rows stand, a crash here is made good by the next try.
        self.remove_tablets(staged).await?;
        self.inner
            .frontend
            .change(move |t, _| {
                for table in ["pins", "staged_tablets", "restore_locks", "swaps"] {
                    t.execute(
                        &format!("DELETE FROM {table} WHERE uid = ?1"),
                        [uid.as_str()],
                    )
                    .map_err(sql_error)?;
                }
                Ok(((), Vec::new()))
            })
            .await
    }
}

/// A backend that is away may come back, so the step is worth another try.
fn unavailable(error: Error) -> Error {
    error.of_kind(ErrorKind::Storage)
}
