//! The steps of a backup: plan at one instant and pin, link, upload.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rusqlite::params;

use super::files::each_file;
use super::metastore::{Metastore, Table};
use super::{EmbeddedCluster, ReportProgress, define, fe};
use crate::cluster::StepError;
use crate::error::{Error, ErrorKind};
use crate::job::*;
use crate::names::*;
use crate::repository::transfer::{blocking, find_source};
use crate::repository::{Manifest, Placed, Repository};
use crate::sqlite::sql_error;
use crate::statement::{ObjectKind, ObjectRef, Partitions, TableRef};

/// Checks the objects of a BACKUP against the metastore, in StarRocks' order and words.
pub(super) fn check(
    metastore: &Metastore,
    database: &DatabaseName,
    objects: Option<&[ObjectRef]>,
) -> Result<BackupRequest, Error> {
    let home = metastore
        .database(database.as_str())
        .ok_or_else(|| fe::unknown_database(database))?;
    let mut checked = BackupRequest {
        objects: Vec::new(),
        views: Vec::new(),
        ttl: None,
        base: None,
    };
    let all = [
        ObjectRef::All(ObjectKind::Table),
        ObjectRef::All(ObjectKind::View),
    ];
    let (every_table, every_view) = objects.unwrap_or(&all).iter().fold(
        (false, false),
        |(tables, views), object| match object {
            ObjectRef::All(ObjectKind::Table) => (true, views),
            ObjectRef::All(ObjectKind::View) => (tables, true),
            _ => (tables, views),
        },
    );
    for object in objects.unwrap_or_default() {
        match object {
            ObjectRef::Table(table) => checked
                .objects
                .push(checked_table(metastore, database, table, &checked)?),
            ObjectRef::Untyped(reference) => {
                match checked_table(metastore, database, reference, &checked) {
                    Ok(table) => checked.objects.push(table),
                    Err(e) => {
                        let view = metastore.view(database.as_str(), reference.table.name.as_str());
                        let view = view
                            .filter(|_| e.kind == ErrorKind::UndefinedTable)
                            .ok_or(e)?;
                        if let Partitions::Named { names, .. } = &reference.partitions {
                            return Err(no_partition(&names[0], &view.name));
                        }
                        add_view(&mut checked, &view.name)?;
                    }
                }
            }
            ObjectRef::Named {
                kind: ObjectKind::View,
                name,
                ..
            } => {
                let view = metastore
                    .view(database.as_str(), name.name.as_str())
                    .ok_or_else(|| incorrect_table(&name.name))?;
                add_view(&mut checked, &view.name)?;
            }
            ObjectRef::Named { kind, name, .. } => {
                return Err(unsupported(*kind, Some(&name.name)));
            }
            ObjectRef::All(ObjectKind::Table | ObjectKind::View) => {}
            ObjectRef::All(kind) => return Err(unsupported(*kind, None)),
        }
    }
    if every_table {
        let named: Vec<_> = checked.objects.iter().map(|o| o.table.clone()).collect();
        let others = home.tables.values().filter(|t| !named.contains(&t.name));
        checked.objects.extend(others.map(|t| BackupObject {
            table: t.name.clone(),
            partitions: Vec::new(),
        }));
    }
    if every_view {
        let others: Vec<_> = home
            .views
            .values()
            .map(|v| v.name.clone())
            .filter(|v| !checked.views.contains(v))
            .collect();
        checked.views.extend(others);
    }
    Ok(checked)
}

/// What the embedded cluster does not have, by name.
pub(super) fn unsupported(kind: ObjectKind, name: Option<&TableName>) -> Error {
    let words = kind.to_string().to_lowercase();
    match name {
        Some(name) => Error::unsupported(format_args!(
            "{words} {name}: the embedded cluster has no {words}s, so backing one up"
        )),
        None => Error::unsupported(format_args!(
            "ALL {kind}S: the embedded cluster has no {words}s, so backing them up"
        )),
    }
}

fn incorrect_table(name: &TableName) -> Error {
    Error::new(
        ErrorKind::UndefinedTable,
        format!("Incorrect table name '{name}'"),
    )
    .hint("See SHOW TABLES.")
}

/// StarRocks' words, glued as they are: scripts match on them.
fn no_partition(partition: &PartitionName, table: &TableName) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("partition[{partition}] does not exist  in table{table}"),
    )
    .hint(format!("See SHOW PARTITIONS FROM {table}."))
}

fn duplicated(name: &TableName) -> Error {
    Error::new(
        ErrorKind::DuplicateTable,
        format!("Duplicated table: {name}"),
    )
}

fn add_view(checked: &mut BackupRequest, view: &TableName) -> Result<(), Error> {
    if checked.views.contains(view) {
        return Err(duplicated(view));
    }
    checked.views.push(view.clone());
    Ok(())
}

fn checked_table(
    metastore: &Metastore,
    database: &DatabaseName,
    reference: &TableRef,
    checked: &BackupRequest,
) -> Result<BackupObject, Error> {
    let table = metastore.table(database.as_str(), reference.table.name.as_str());
    let table = table.ok_or_else(|| incorrect_table(&reference.table.name))?;
    let partitions = match &reference.partitions {
        Partitions::All => Vec::new(),
        Partitions::Named {
            temporary: true, ..
        } => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "Do not support backing up temp partitions",
            ));
        }
        Partitions::Named { names, .. } => names.clone(),
        Partitions::Keyed(_) => {
            return Err(
                Error::unsupported("PARTITION (column = value) in BACKUP").hint("Name partitions.")
            );
        }
    };
    if let Some(missing) = partitions
        .iter()
        .find(|name| !table.partitions.iter().any(|p| &p.name == *name))
    {
        return Err(no_partition(missing, &table.name));
    }
    if checked
        .objects
        .iter()
        .any(|known| known.table == table.name)
    {
        return Err(duplicated(&table.name));
    }
    Ok(BackupObject {
        table: table.name.clone(),
        partitions,
    })
}

fn planned_table(table: &Table, chosen: &[PartitionName]) -> Result<PlannedTable, Error> {
    if let Some(missing) = chosen
        .iter()
        .find(|name| !table.partitions.iter().any(|p| &p.name == *name))
    {
        return Err(define::unknown_partition(missing, table));
    }
    let partitions = table
        .partitions
        .iter()
        .filter(|p| chosen.is_empty() || chosen.contains(&p.name));
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

/// What a backup takes at this instant of the metastore.
pub(super) fn planned(
    metastore: &Metastore,
    database: &DatabaseName,
    request: &BackupRequest,
) -> Result<BackupPlan, Error> {
    metastore
        .database(database.as_str())
        .ok_or_else(|| fe::unknown_database(database))?;
    let tables = request.objects.iter().map(|object| {
        let table = metastore.table(database.as_str(), object.table.as_str());
        let table = table.ok_or_else(|| fe::unknown_table(database, &object.table))?;
        planned_table(table, &object.partitions)
    });
    let tables = tables.collect::<Result<Vec<_>, Error>>()?;
    let views = request.views.iter().map(|name| {
        let view = metastore.view(database.as_str(), name.as_str());
        let view = view.ok_or_else(|| fe::unknown_table(database, name))?;
        Ok(PlannedView {
            name: view.name.clone(),
            definition: view.definition.clone(),
        })
    });
    Ok(BackupPlan::new(
        tables,
        views.collect::<Result<Vec<_>, Error>>()?,
    ))
}

impl EmbeddedCluster {
    /// Pins first, then reads the metastore, in one transaction: nothing that the plan names can be
    /// collected.
    pub(super) async fn backup_plan(&self, job: &Job) -> Result<BackupPlan, Error> {
        let Work::Backup { target, request } = job.spec.work.clone() else {
            return Err(Error::internal(
                "a backup was planned for another kind of job",
            ));
        };
        let (uid, database) = (job.spec.uid.clone(), target.database);
        self.inner
            .frontend
            .change(move |t, metastore| {
                t.execute(
                    "INSERT OR IGNORE INTO pins (uid, garbage_after) VALUES (?1, ?2)",
                    params![uid.as_str(), metastore.garbage_seen],
                )
                .map_err(sql_error)?;
                Ok((planned(metastore, &database, &request)?, Vec::new()))
            })
            .await
    }

    pub(super) async fn link(&self, job: &Job, tablet: &PlannedTablet) -> Result<BackendId, Error> {
        if tablet.files.is_empty() {
            return Ok(tablet.backend_id);
        }
        let tablet = tablet.clone();
        let (uid, backends) = (job.spec.uid.clone(), self.inner.backends.clone());
        blocking(move || {
            // The planned replica first, then the others.
            let mut order = vec![tablet.backend_id];
            order.extend(
                backends
                    .iter()
                    .map(|(id, _)| id)
                    .filter(|id| *id != tablet.backend_id),
            );
            backends.link_snapshot(&uid, tablet.tablet_id, &order, &tablet.files)
        })
        .await
    }

    /// Every place where a planned file may be read: the link on the planned replica first, which
    /// most have, then other links, then any replica, which the pin keeps.
    fn sources(
        &self,
        uid: &JobUid,
        tablet: &PlannedTablet,
        file: &DataFile,
    ) -> impl Iterator<Item = PathBuf> {
        let backends = &self.inner.backends;
        let others = backends.iter().map(|(id, _)| id);
        let others = others.filter(|id| *id != tablet.backend_id);
        let linked = std::iter::once(tablet.backend_id)
            .chain(others)
            .filter_map(|id| backends.snapshot_file(id, uid, tablet.tablet_id, file));
        let replicas = backends
            .iter()
            .filter_map(|(id, _)| backends.file(id, tablet.tablet_id, file));
        linked.chain(replicas)
    }

    /// Brings one file of a tablet into the repository from wherever it is whole. `true`: its bytes
    /// were moved.
    async fn bring(
        &self,
        job: &Job,
        tablet: &PlannedTablet,
        file: &DataFile,
        repository: &Repository,
    ) -> Result<bool, StepError> {
        let mut failure = None;
        for source in self.sources(&job.spec.uid, tablet, file) {
            match repository.upload(file, &source, &self.inner.budget).await {
                Ok(new) => return Ok(new),
                // A damaged or vanished replica is no reason to fail while another is whole.
                Err(e) if e.kind == ErrorKind::Corrupted => failure = Some(e),
                Err(e) if e.kind == ErrorKind::MissingFile => {
                    // Of a source that is there something else went wrong.
                    if find_source(&source).await.is_ok() {
                        failure = Some(e);
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        let nowhere = || {
            Error::new(
                ErrorKind::MissingFile,
                format!(
                    "no replica of tablet {} has file {}",
                    tablet.tablet_id, file.sha256
                ),
            )
        };
        Err(StepError::Fatal(failure.unwrap_or_else(nowhere)))
    }

    /// Waits while a file of the backup is about to be deleted.
    pub(super) async fn wait_for_prune(
        &self,
        plan: &BackupPlan,
        repository: &Repository,
    ) -> Result<(), StepError> {
        let files = plan.tablets().flat_map(|t| &t.files);
        let Some(file) = repository.marked_file(files, &self.inner.env).await? else {
            return Ok(());
        };
        let message = format!(
            "file {} is about to be pruned; the manifest waits until that is over",
            file.sha256
        );
        Err(StepError::Retry(Error::new(
            ErrorKind::ObjectInUse,
            message,
        )))
    }

    /// Puts the manifest over what is there. What went since it was fixed is brought again first: a
    /// manifest must never say what is not there.
    pub(super) async fn commit_backup(
        &self,
        job: &Job,
        plan: &BackupPlan,
        saved_at: Timestamp,
        repository: &Repository,
    ) -> Result<Placed, StepError> {
        self.fill_gaps(job, plan, repository).await?;
        let manifest = Manifest::of(job, plan, crate::cluster::Tables::id(self), saved_at)?;
        Ok(repository.publish(&manifest).await?)
    }

    /// Looks at every file of a backup in the repository, and brings those again that are not there
    /// as they were.
    pub(super) async fn fill_gaps(
        &self,
        job: &Job,
        plan: &BackupPlan,
        repository: &Repository,
    ) -> Result<(), StepError> {
        let lacking = repository
            .doubtful(plan.tablets().flat_map(|t| &t.files))
            .await?;
        if lacking.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            files = lacking.len(),
            "files of the backup have gone from the repository, or are others; they are looked at again"
        );
        let lacking: BTreeSet<&DataFile> = lacking.into_iter().collect();
        for tablet in plan.tablets() {
            for file in tablet.files.iter().filter(|f| lacking.contains(f)) {
                self.bring(job, tablet, file, repository).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn upload_tablet(
        &self,
        job: &Job,
        tablet: &PlannedTablet,
        repository: &Repository,
        progress: ReportProgress,
    ) -> Result<Transfer, StepError> {
        each_file(&tablet.files, progress, |file, moved| async move {
            let repository = repository.telling(moved);
            self.bring(job, tablet, file, &repository).await
        })
        .await
    }
}
