//! What verifications have come to, in SQLite.

use super::*;
use crate::job::{BackupName, FindingKind};
use crate::names::BackupTimestamp;

/// Writes the rows of a verification that has ended well. Saying it twice is the same as once.
pub(super) fn write(transaction: &Transaction<'_>, job: &Job) -> Result<(), Error> {
    let Some((backups, findings)) = verification_rows(job) else {
        return Ok(());
    };
    let mut insert = transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO verifications (job_id, cluster, repository, snapshot,
                 backup_timestamp, level, sample, damage, files, bytes, started_at, verified_at,
                 restore_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )
        .map_err(sql_error)?;
    for row in backups {
        insert
            .execute(params![
                row.job_id.0,
                row.cluster,
                row.repository,
                row.snapshot,
                row.backup_timestamp,
                row.level,
                row.sample,
                row.damage as i64,
                row.checked.files as i64,
                row.checked.bytes as i64,
                row.started_at.0,
                row.verified_at.0,
                row.restore_ms.map(|ms| ms as i64)
            ])
            .map_err(sql_error)?;
    }
    let mut insert = transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO findings (job_id, number, cluster, repository, kind, object,
                 snapshot, backup_timestamp, backups, detail, found_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .map_err(sql_error)?;
    for row in findings {
        let backup = row.backup.as_ref();
        insert
            .execute(params![
                row.job_id.0,
                row.number as i64,
                row.cluster,
                row.repository,
                row.kind,
                row.object,
                backup.map(|b| b.label.as_str()),
                backup.map(|b| b.timestamp.as_str()),
                row.backups as i64,
                row.detail,
                row.found_at.0
            ])
            .map_err(sql_error)?;
    }
    Ok(())
}

fn backup_of(
    label: Option<String>,
    timestamp: Option<String>,
) -> Result<Option<BackupName>, Error> {
    let Some((label, timestamp)) = label.zip(timestamp) else {
        return Ok(None);
    };
    Ok(Some(BackupName {
        label: SnapshotLabel::new(label)?,
        timestamp: BackupTimestamp::new(&timestamp)?,
    }))
}

impl SqliteStore {
    pub(super) async fn read_verifications(
        &self,
        jobs: RangeInclusive<JobId>,
    ) -> Result<Vec<VerificationRow>, Error> {
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT job_id, cluster, repository, snapshot, backup_timestamp, level,
                             sample, damage, files, bytes, started_at, verified_at, restore_ms,
                             (SELECT imported FROM jobs j WHERE j.job_id = v.job_id) IS NOT NULL
                         FROM verifications v WHERE job_id BETWEEN ?1 AND ?2
                         ORDER BY job_id, snapshot, backup_timestamp",
                    )
                    .map_err(sql_error)?;
                let rows = select.query_map([jobs.start().0, jobs.end().0], |r| {
                    Ok(VerificationRow {
                        job_id: JobId(r.get(0)?),
                        cluster: r.get(1)?,
                        repository: r.get(2)?,
                        snapshot: r.get(3)?,
                        backup_timestamp: r.get(4)?,
                        level: r.get(5)?,
                        sample: r.get(6)?,
                        damage: r.get::<_, i64>(7)? as u64,
                        checked: Volume {
                            files: r.get::<_, i64>(8)? as u64,
                            bytes: r.get::<_, i64>(9)? as u64,
                        },
                        started_at: Timestamp(r.get(10)?),
                        verified_at: Timestamp(r.get(11)?),
                        restore_ms: r.get::<_, Option<i64>>(12)?.map(|ms| ms as u64),
                        is_imported: r.get(13)?,
                    })
                });
                rows.and_then(Iterator::collect).map_err(sql_error)
            })
            .await
    }

    pub(super) async fn read_damaged_objects(&self) -> Result<DamagedObjects, Error> {
        self.readers
            .read(|t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT DISTINCT cluster, repository, object FROM findings WHERE kind = ?1",
                    )
                    .map_err(sql_error)?;
                let damaged = FindingKind::Damaged.name();
                let rows = select.query_map([damaged], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)));
                rows.and_then(Iterator::collect).map_err(sql_error)
            })
            .await
    }

    pub(super) async fn read_findings(
        &self,
        jobs: RangeInclusive<JobId>,
    ) -> Result<Vec<FindingRow>, Error> {
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT job_id, number, cluster, repository, kind, object, snapshot,
                             backup_timestamp, backups, detail, found_at
                         FROM findings WHERE job_id BETWEEN ?1 AND ?2 ORDER BY job_id, number",
                    )
                    .map_err(sql_error)?;
                let bounds = [jobs.start().0, jobs.end().0];
                let mut rows = select.query(bounds).map_err(sql_error)?;
                let mut out = Vec::new();
                while let Some(r) = rows.next().map_err(sql_error)? {
                    let text = |i| r.get::<_, String>(i).map_err(sql_error);
                    let number = |i| r.get::<_, i64>(i).map_err(sql_error);
                    let optional = |i| r.get::<_, Option<String>>(i).map_err(sql_error);
                    out.push(FindingRow {
                        job_id: JobId(number(0)?),
                        number: number(1)? as u64,
                        cluster: text(2)?,
                        repository: text(3)?,
                        kind: text(4)?,
                        object: text(5)?,
                        backup: backup_of(optional(6)?, optional(7)?)?,
                        backups: number(8)? as u64,
                        detail: text(9)?,
                        found_at: Timestamp(number(10)?),
                    });
                }
                Ok(out)
            })
            .await
    }
}
