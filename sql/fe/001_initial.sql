-- The catalog of the embedded cluster. Times are milliseconds since 1970-01-01 UTC.

-- One row: the next id of any kind. Ids are never used again.
CREATE TABLE next_id (id INTEGER NOT NULL) STRICT;
INSERT INTO next_id VALUES (10001);

-- One row: whose backends these are.
CREATE TABLE cluster (uid TEXT NOT NULL) STRICT;

CREATE TABLE backends (
    backend_id INTEGER PRIMARY KEY,
    path       TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE brokers (
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    PRIMARY KEY (name, host)
) STRICT, WITHOUT ROWID;

CREATE TABLE databases (
    database_id INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE tables (
    table_id        INTEGER PRIMARY KEY,
    database_id     INTEGER NOT NULL REFERENCES databases (database_id),
    name            TEXT    NOT NULL,
    -- schema::TableSchema as JSON
    schema          TEXT    NOT NULL,
    replication_num INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    UNIQUE (database_id, name)
) STRICT;

CREATE TABLE partitions (
    partition_id INTEGER PRIMARY KEY,
    table_id     INTEGER NOT NULL REFERENCES tables (table_id) ON DELETE CASCADE,
    name         TEXT    NOT NULL,
    -- schema::Bounds as JSON
    bounds       TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    version_at   INTEGER NOT NULL,
    UNIQUE (table_id, name)
) STRICT;

CREATE TABLE tablets (
    tablet_id    INTEGER PRIMARY KEY,
    partition_id INTEGER NOT NULL REFERENCES partitions (partition_id) ON DELETE CASCADE,
    bucket       INTEGER NOT NULL
) STRICT;
CREATE INDEX tablets_by_partition ON tablets (partition_id, bucket);

CREATE TABLE replicas (
    tablet_id  INTEGER NOT NULL REFERENCES tablets (tablet_id) ON DELETE CASCADE,
    backend_id INTEGER NOT NULL REFERENCES backends (backend_id),
    PRIMARY KEY (tablet_id, backend_id)
) STRICT, WITHOUT ROWID;

-- The files of the visible version, in the order they were written.
CREATE TABLE files (
    file_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    tablet_id INTEGER NOT NULL REFERENCES tablets (tablet_id) ON DELETE CASCADE,
    sha256    TEXT    NOT NULL,
    bytes     INTEGER NOT NULL,
    rows      INTEGER NOT NULL
) STRICT;
CREATE INDEX files_by_tablet ON files (tablet_id);

-- What is no longer in the catalog but may still be read: one file, or a whole tablet.
CREATE TABLE garbage (
    garbage_id INTEGER PRIMARY KEY AUTOINCREMENT,
    tablet_id  INTEGER NOT NULL,
    sha256     TEXT
) STRICT;

-- A backup keeps what became garbage after this id.
CREATE TABLE pins (
    uid           TEXT PRIMARY KEY,
    garbage_after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A restore keeps others from the tables it makes or replaces.
CREATE TABLE restore_locks (
    database_name TEXT NOT NULL,
    table_name    TEXT NOT NULL,
    uid           TEXT NOT NULL,
    PRIMARY KEY (database_name, table_name)
) STRICT, WITHOUT ROWID;

-- Tablets that a restore is filling and no table has yet.
CREATE TABLE staged_tablets (
    tablet_id INTEGER PRIMARY KEY,
    uid       TEXT NOT NULL
) STRICT;

-- Restores whose swap has happened and whose release has not.
CREATE TABLE swaps (
    uid TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
