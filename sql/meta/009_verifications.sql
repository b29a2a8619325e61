-- What verifications have come to: a row for each backup that was looked at, and what was found.
CREATE TABLE verifications (
    job_id INTEGER NOT NULL,
    cluster TEXT NOT NULL,
    repository TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    backup_timestamp TEXT NOT NULL,
    level TEXT NOT NULL,
    -- How many of ten thousand files were read.
    sample INTEGER NOT NULL,
    -- Findings by which a restore would fail.
    damage INTEGER NOT NULL,
    -- What the whole job looked at.
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    verified_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, snapshot, backup_timestamp)
) STRICT, WITHOUT ROWID;
CREATE INDEX verifications_latest
    ON verifications (cluster, repository, snapshot, backup_timestamp, verified_at);

CREATE TABLE findings (
    job_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    cluster TEXT NOT NULL,
    repository TEXT NOT NULL,
    kind TEXT NOT NULL,
    object TEXT NOT NULL,
    -- Of the first backup that needs the object, and how many there are.
    snapshot TEXT,
    backup_timestamp TEXT,
    backups INTEGER NOT NULL,
    detail TEXT NOT NULL,
    found_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;
