//! Copies of journals, in SQLite: which are to be made, and what was taken over from others.

use super::*;

fn imported(
    transaction: &Transaction<'_>,
    from: &RepositoryName,
    journal: &JobJournal,
) -> Result<bool, Error> {
    let spec = &journal.spec;
    // A refused attempt has the id of none.
    let known = transaction
        .prepare_cached("SELECT 1 FROM jobs WHERE uid = ?1 AND status <> 'refused'")
        .and_then(|mut select| select.exists([spec.uid.as_str()]))
        .map_err(sql_error)?;
    if known {
        return Ok(false);
    }
    let id = insert_job(transaction, spec, journal.created_at, JobStatus::Queued)?;
    let delta = journal.replay(id).map_err(|e| does_not_add_up(id, &e))?;
    write_entries(transaction, &delta)?;
    write_tasks(transaction, &delta.tasks)?;
    verifications::write(transaction, &delta.job)?;
    let row = JobRow {
        imported_from: Some(from.to_string()),
        ..JobRow::of(&delta.job)
    };
    // It was never in a database's slot here, so it has no phase to be found by.
    transaction
        .execute(
            "UPDATE jobs SET row = ?2, status = ?3, version = ?4, settled = 1, open = 0,
                 mirrored = 1, imported = ?5 WHERE job_id = ?1",
            params![
                id.0,
                to_json(&row)?,
                row.status.name(),
                delta.job.version.0 as i64,
                from.as_str()
            ],
        )
        .map_err(sql_error)?;
    Ok(true)
}

impl SqliteStore {
    pub(super) async fn import_journals(
        &self,
        from: &RepositoryName,
        journals: Vec<JobJournal>,
    ) -> Result<u64, Error> {
        let from = from.clone();
        self.call(move |t| {
            let mut count = 0;
            for journal in &journals {
                count += u64::from(imported(t, &from, journal)?);
            }
            Ok(count)
        })
        .await
    }

    pub(super) async fn read_unmirrored(
        &self,
        after: JobId,
        limit: usize,
    ) -> Result<Vec<JobId>, Error> {
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT job_id FROM jobs WHERE mirrored = 0 AND open = 0
                             AND repository <> '' AND status <> 'refused' AND job_id > ?1
                         ORDER BY job_id LIMIT ?2",
                    )
                    .map_err(sql_error)?;
                let ids = select.query_map([after.0, limit as i64], |r| r.get(0).map(JobId));
                ids.and_then(Iterator::collect).map_err(sql_error)
            })
            .await
    }

    pub(super) async fn note_mirrored(&self, id: JobId) -> Result<(), Error> {
        self.call(move |t| {
            t.execute("UPDATE jobs SET mirrored = 1 WHERE job_id = ?1", [id.0])
                .map(drop)
                .map_err(sql_error)
        })
        .await
    }
}
