//! The steps of a backup: plan at one instant and pin, link, upload.

use std::path::PathBuf;

use rusqlite::params;

use super::catalog::{Catalog, Table};
use super::{EmbeddedCluster, Progress, define, fe};
use crate::cluster::StepError;
use crate::error::{Error, ErrorKind};
use crate::job::*;
use crate::names::*;
use crate::repository::Repository;
use crate::repository::transfer::blocking;
use crate::sqlite::sql_error;

/// Checks the objects of a BACKUP against the catalog, in StarRocks' order and words.
pub(super) fn check(
    catalog: &Catalog,
    database: &DatabaseName,
    objects: Vec<BackupObject>,
    all: bool,
) -> Result<Vec<BackupObject>, Error> {
    let home = catalog.database(database.as_str()).ok_or_else(|| fe::unknown_database(database))?;
    if all {
        if home.tables.is_empty() {
            return Err(
                Error::new(ErrorKind::WrongState, format!("Database: {database} is empty")).hint("There is nothing to back up.")
            );
        }
        return Ok(home.tables.values().map(|t| BackupObject { table: t.name.clone(), partitions: Vec::new() }).collect());
    }
    let mut checked: Vec<BackupObject> = Vec::new();
    for object in objects {
        let table =
            catalog.table(database.as_str(), object.table.as_str()).ok_or_else(|| fe::unknown_table(database, &object.table))?;
        if checked.iter().any(|known| known.table == table.name) {
            return Err(Error::new(ErrorKind::DuplicateTable, format!("Duplicated table: {}", table.name)));
        }
        for partition in &object.partitions {
            if !table.partitions.iter().any(|p| &p.name == partition) {
                return Err(define::unknown_partition(partition, table));
            }
        }
        checked.push(BackupObject { table: table.name.clone(), partitions: object.partitions });
    }
    Ok(checked)
}

fn planned_table(table: &Table, chosen: &[PartitionName]) -> Result<PlannedTable, Error> {
    if let Some(missing) = chosen.iter().find(|name| !table.partitions.iter().any(|p| &p.name == *name)) {
        return Err(define::unknown_partition(missing, table));
    }
    let partitions = table.partitions.iter().filter(|p| chosen.is_empty() || chosen.contains(&p.name));
    Ok(PlannedTable {
        name: table.name.clone(),
        table_id: table.id,
        schema: (*table.schema).clone(),
        replication_num: table.replication_num,
        partitions: partitions
            .map(|p| PlannedPartition {
                name: p.name.clone(),
                partition_id: p.id,
                bounds: p.bounds.clone(),
                version: p.version,
                tablets: p
                    .tablets
                    .iter()
                    .map(|t| PlannedTablet {
                        tablet_id: t.id,
                        backend_id: t.replicas.first().copied().unwrap_or(BackendId(0)),
                        files: t.files.clone(),
                    })
                    .collect(),
            })
            .collect(),
    })
}

impl EmbeddedCluster {
    /// Pins first, then reads the catalog, in one transaction: nothing that the plan names can be collected.
    pub(super) async fn backup_plan(&self, job: &Job) -> Result<BackupPlan, Error> {
        let spec = job.spec.clone();
        let Request::Backup(request) = spec.request else {
            return Err(Error::internal("a backup was planned for another kind of job"));
        };
        let (uid, database) = (spec.uid, spec.database);
        self.inner
            .frontend
            .change(move |t, catalog| {
                t.execute("INSERT OR IGNORE INTO pins (uid, garbage_after) VALUES (?1, ?2)", params![uid, catalog.garbage_seen])
                    .map_err(sql_error)?;
                catalog.database(database.as_str()).ok_or_else(|| fe::unknown_database(&database))?;
                let tables = request
                    .objects
                    .iter()
                    .map(|object| {
                        let table = catalog.table(database.as_str(), object.table.as_str());
                        planned_table(table.ok_or_else(|| fe::unknown_table(&database, &object.table))?, &object.partitions)
                    })
                    .collect::<Result<Vec<_>, Error>>()?;
                Ok((BackupPlan { tables }, Vec::new()))
            })
            .await
    }

    pub(super) async fn link(&self, job: &Job, plan: &BackupPlan, task: TaskId) -> Result<BackendId, Error> {
        let tablet = plan.snapshot_tasks().find(|(id, _)| *id == task).map(|(_, tablet)| tablet.clone());
        let tablet = tablet.ok_or_else(|| Error::internal(format!("job {} has no task {task}", job.id)))?;
        let (uid, backends) = (job.spec.uid.clone(), self.inner.backends.clone());
        blocking(move || {
            // The planned replica first, then the others.
            let mut order = vec![tablet.backend_id];
            order.extend(backends.iter().map(|(id, _)| id).filter(|id| *id != tablet.backend_id));
            backends.link_snapshot(&uid, tablet.tablet_id, &order, &tablet.files)
        })
        .await
    }

    /// Every place where a planned file may be read: the linked one first, then any replica, which the pin keeps.
    fn sources(&self, uid: &str, tablet: &PlannedTablet, file: &DataFile) -> Vec<PathBuf> {
        let backends = &self.inner.backends;
        let linked = backends.iter().filter_map(|(id, _)| backends.snapshot_file(id, uid, tablet.tablet_id, file));
        let replicas = backends.iter().filter_map(|(id, _)| backends.file(id, tablet.tablet_id, file));
        linked.chain(replicas).filter(|path| path.is_file()).collect()
    }

    pub(super) async fn upload_tablet(
        &self,
        job: &Job,
        plan: &BackupPlan,
        task: &TransferTask,
        repository: &Repository,
        progress: Progress,
    ) -> Result<Transfer, StepError> {
        let tablet = plan.tablets().find(|t| t.tablet_id == task.assignment.tablet_id);
        let tablet = tablet
            .ok_or_else(|| Error::internal(format!("the plan of job {} has no tablet {}", job.id, task.assignment.tablet_id)))?;
        let mut transfer = Transfer::default();
        for file in &tablet.files {
            let mut damage = None;
            let mut moved = None;
            for source in self.sources(&job.spec.uid, tablet, file) {
                match repository.upload(file, &source, &self.inner.budget).await {
                    Ok(new) => {
                        moved = Some(new);
                        break;
                    }
                    // A damaged or vanished replica is no reason to fail while another is whole.
                    Err(e) if matches!(e.kind, ErrorKind::Corrupted | ErrorKind::MissingFile) => damage = Some(e),
                    Err(e) => return Err(e.into()),
                }
            }
            let Some(new) = moved else {
                let nowhere = || {
                    Error::new(
                        ErrorKind::MissingFile,
                        format!("no replica of tablet {} has file {}", tablet.tablet_id, file.sha256),
                    )
                };
                return Err(StepError::Fatal(damage.unwrap_or_else(nowhere)));
            };
            let volume = Volume { files: 1, bytes: file.bytes };
            transfer.total.files += volume.files;
            transfer.total.bytes += volume.bytes;
            if new {
                transfer.new.files += volume.files;
                transfer.new.bytes += volume.bytes;
            }
            progress(transfer.total)?;
        }
        Ok(transfer)
    }
}
