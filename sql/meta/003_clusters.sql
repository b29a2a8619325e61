-- Other clusters than the embedded one, each with its repositories, and jobs that such a cluster does itself.

CREATE TABLE clusters (
    name       TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    -- JSON, encrypted with the gateway's key; passwords are among them.
    properties BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- A repository's name is unique in its cluster. What was there belongs to the embedded one.
CREATE TABLE repositories_new (
    repository_id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster       TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    location      TEXT    NOT NULL,
    broker        TEXT,
    read_only     INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    properties    BLOB    NOT NULL,
    UNIQUE (cluster, name)
) STRICT;
INSERT INTO repositories_new
SELECT repository_id, 'embedded', name, location, broker, read_only, created_at, properties FROM repositories;
-- Ids are never used again, those of dropped repositories neither.
DELETE FROM sqlite_sequence WHERE name = 'repositories_new';
INSERT INTO sqlite_sequence (name, seq) SELECT 'repositories_new', seq FROM sqlite_sequence WHERE name = 'repositories';
DROP TABLE repositories;
ALTER TABLE repositories_new RENAME TO repositories;

-- 0: another cluster does the job, and decides how many a database may have.
ALTER TABLE jobs ADD COLUMN exclusive INTEGER NOT NULL DEFAULT 1;
DROP INDEX jobs_one_per_database;
DROP INDEX jobs_one_per_label;
CREATE UNIQUE INDEX jobs_one_per_database ON jobs (cluster, db_name) WHERE settled = 0 AND exclusive = 1;
CREATE UNIQUE INDEX jobs_one_per_label ON jobs (cluster, repository, snapshot) WHERE settled = 0 AND kind = 'backup' AND exclusive = 1;
CREATE INDEX jobs_unsettled ON jobs (cluster, db_name, job_id) WHERE settled = 0;
