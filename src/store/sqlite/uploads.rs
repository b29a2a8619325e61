//! Uploads under way, in SQLite.

use super::*;

#[async_trait]
impl Uploads for SqliteStore {
    async fn note_upload(&self, upload: &UploadRecord) -> Result<(), Error> {
        let u = upload.clone();
        self.call(move |t| {
            t.execute(
                "INSERT OR REPLACE INTO uploads (repository_id, path, upload_id, job_id)
                 VALUES (?1, ?2, ?3, ?4)",
                params![u.repository.0, u.path, u.upload_id, u.job_id.0],
            )
            .map(drop)
            .map_err(sql_error)
        })
        .await
    }

    async fn forget_upload(&self, upload: &UploadRecord) -> Result<(), Error> {
        let u = upload.clone();
        self.call(move |t| {
            t.execute(
                "DELETE FROM uploads WHERE repository_id = ?1 AND path = ?2 AND upload_id = ?3",
                params![u.repository.0, u.path, u.upload_id],
            )
            .map(drop)
            .map_err(sql_error)
        })
        .await
    }

    async fn uploads(&self) -> Result<Vec<UploadRecord>, Error> {
        self.readers
            .read(|t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT repository_id, path, upload_id, job_id FROM uploads
                         ORDER BY repository_id, path, upload_id",
                    )
                    .map_err(sql_error)?;
                let rows = select.query_map([], |r| {
                    Ok(UploadRecord {
                        repository: RepositoryId(r.get(0)?),
                        path: r.get(1)?,
                        upload_id: r.get(2)?,
                        job_id: JobId(r.get(3)?),
                    })
                });
                rows.and_then(Iterator::collect).map_err(sql_error)
            })
            .await
    }
}
