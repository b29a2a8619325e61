-- The metadata of the gateway: jobs with their journal, repositories, users.
-- Times are milliseconds since 1970-01-01 UTC.

CREATE TABLE jobs (
    job_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT    NOT NULL,
    cluster    TEXT    NOT NULL,
    db_name    TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    snapshot   TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    -- How many events are in the journal: compare-and-append goes by it.
    version    INTEGER NOT NULL,
    -- FINISHED, CANCELLED or refused.
    settled    INTEGER NOT NULL,
    -- Something is left to do; a settled job may still have to clean up.
    open       INTEGER NOT NULL,
    -- What was asked, and the row of system.jobs, as JSON.
    spec       TEXT    NOT NULL,
    row        TEXT    NOT NULL
) STRICT;

-- One unfinished job per database.
CREATE UNIQUE INDEX jobs_one_per_database ON jobs (cluster, db_name) WHERE settled = 0;
-- One unfinished backup per label and repository.
CREATE UNIQUE INDEX jobs_one_per_label ON jobs (repository, snapshot) WHERE settled = 0 AND kind = 'backup';
CREATE INDEX jobs_open ON jobs (job_id) WHERE open = 1;
CREATE INDEX jobs_by_database ON jobs (db_name, job_id);

CREATE TABLE job_events (
    job_id     INTEGER NOT NULL REFERENCES jobs (job_id),
    seq        INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    from_state TEXT    NOT NULL,
    to_state   TEXT    NOT NULL,
    event      TEXT    NOT NULL,
    PRIMARY KEY (job_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_tasks (
    job_id  INTEGER NOT NULL REFERENCES jobs (job_id),
    task_id INTEGER NOT NULL,
    row     TEXT    NOT NULL,
    PRIMARY KEY (job_id, task_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE repositories (
    repository_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE,
    location      TEXT    NOT NULL,
    broker        TEXT,
    read_only     INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    -- JSON, encrypted with the gateway's key.
    properties    BLOB    NOT NULL
) STRICT;

CREATE TABLE users (
    name       TEXT PRIMARY KEY,
    admin      INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- A SCRAM-SHA-256 verifier, all NULL for a user without a password.
    salt       BLOB,
    iterations INTEGER,
    stored_key BLOB,
    server_key BLOB
) STRICT, WITHOUT ROWID;
