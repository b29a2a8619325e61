//! Which backup of a repository a statement means.

use crate::error::{Error, ErrorKind};
use crate::names::*;
use crate::repository::{Manifest, Repository};
use crate::statement::{BaseSnapshot, WhichBackup};

/// The backup that a RESTORE means, in StarRocks' words when there is none.
pub(in crate::admission) async fn find_backup(
    repository: &Repository,
    label: &SnapshotLabel,
    which: &WhichBackup,
) -> Result<(BackupTimestamp, Manifest), Error> {
    let wrong = |kind: ErrorKind, why: &str| {
        let message = format!(
            "Failed to get info of snapshot '{label}' because: {why}. Maybe specified wrong backup timestamp"
        );
        Error::new(kind, message).hint(format!(
            "SHOW SNAPSHOT ON {} lists the backups and their timestamps.",
            repository.name()
        ))
    };
    let timestamp = match which {
        WhichBackup::At(timestamp) => timestamp.clone(),
        WhichBackup::Latest => {
            let listed = repository.snapshot(label).await?.backups;
            listed
                .into_iter()
                .next_back()
                .map(|backup| backup.timestamp)
                .ok_or_else(|| wrong(ErrorKind::UndefinedObject, "there is no such snapshot"))?
        }
        WhichBackup::Unknown(text) => {
            return Err(wrong(
                ErrorKind::UndefinedObject,
                &format!("File does not exist: __info_{text}"),
            ));
        }
    };
    match repository.manifest(label, &timestamp).await {
        Ok((manifest, _)) => Ok((timestamp, manifest)),
        Err(e) if e.kind == ErrorKind::MissingFile => Err(wrong(
            ErrorKind::UndefinedObject,
            &format!("File does not exist: __info_{timestamp}"),
        )),
        Err(e) => Err(wrong(e.kind, &e.to_string())),
    }
}

/// The snapshot that an incremental backup follows; nothing if there is no earlier one.
pub(super) async fn base_of(
    repository: &Repository,
    base: &BaseSnapshot,
    database: &DatabaseName,
    cluster_id: &str,
) -> Result<Option<SnapshotLabel>, Error> {
    let listings = match base {
        BaseSnapshot::Latest => repository.snapshots().await?,
        BaseSnapshot::Label(label) => vec![repository.snapshot(label).await?],
    };
    let mut latest = None;
    for listing in listings {
        for backup in &listing.backups {
            // One that does not read is no base; VERIFY finds it.
            let Ok(manifest) = repository.listed_manifest(&listing.label, backup).await else {
                continue;
            };
            let is_ours = manifest.cluster_id.as_deref() == Some(cluster_id);
            if is_ours && manifest.database == *database {
                latest = latest.max(Some((manifest.created_at, listing.label.clone())));
            }
        }
    }
    match (base, latest) {
        (_, Some((_, label))) => Ok(Some(label)),
        (BaseSnapshot::Latest, None) => Ok(None),
        (BaseSnapshot::Label(label), None) => Err(Error::new(
            ErrorKind::UndefinedObject,
            format!(
                "Snapshot does not exist in repository {}: {label}, of database {database} and made here",
                repository.name()
            ),
        )
        .hint("\"base\" is \"latest\", or the label of an earlier backup of the same database.")),
    }
}
