-- Uploads in parts that were begun in an object store and have not been seen to end.
CREATE TABLE uploads (
    repository_id INTEGER NOT NULL,
    path TEXT NOT NULL,
    upload_id TEXT NOT NULL,
    job_id INTEGER NOT NULL,
    PRIMARY KEY (repository_id, path, upload_id)
) STRICT, WITHOUT ROWID;
