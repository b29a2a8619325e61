//! How both databases here use SQLite: write-ahead log, full sync, migrations by number, one
//! transaction at a time.
//!
//! Transactions run on blocking threads, so a caller that is dropped half-way leaves a finished or
//! an untouched transaction. Readers have connections of their own, and wait for no writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind};

pub fn sql_error(error: rusqlite::Error) -> Error {
    let kind = match &error {
        rusqlite::Error::SqliteFailure(e, _) if e.code == ErrorCode::DiskFull => {
            ErrorKind::DiskFull
        }
        rusqlite::Error::SqliteFailure(e, _)
            if matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
        {
            ErrorKind::Corrupted
        }
        // What this breaks would break at each further try.
        rusqlite::Error::SqliteFailure(e, _) if e.code == ErrorCode::ConstraintViolation => {
            ErrorKind::Internal
        }
        _ => ErrorKind::Storage,
    };
    Error::new(kind, format!("metadata store: {error}")).source(error)
}

/// COMMIT that fails may have been carried out all the same: what was written to disk in its name
/// must be kept.
fn in_doubt(error: rusqlite::Error) -> Error {
    sql_error(error)
        .of_kind(ErrorKind::InDoubt)
        .prefixed("whether the change was committed is not known")
        .hint("Look whether it is there before you make it again; after a restart it is decided.")
}

fn json_error(error: serde_json::Error) -> Error {
    Error::new(
        ErrorKind::Corrupted,
        format!("metadata store: a stored value does not read: {error}"),
    )
    .source(error)
}

/// A value as the JSON that is stored.
pub fn to_json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(json_error)
}

/// A stored value; XX001 if it does not read.
pub fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(json_error)
}

/// Opens a database file and brings its schema up to date.
pub fn open_database(path: &Path, migrations: &[&str]) -> Result<Connection, Error> {
    let in_file = |e: Error| e.detail(format!("in \"{}\"", path.display()));
    let mut connection = Connection::open(path).map_err(sql_error).map_err(in_file)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;",
        )
        .map_err(sql_error)
        .map_err(in_file)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: usize = connection
        .query_row("PRAGMA user_version", [], |r| r.get::<_, u32>(0))
        .map_err(sql_error)? as usize;
    if version > migrations.len() {
        return Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "\"{}\" was written by a newer Starkeep (schema {version}, this one knows {})",
                path.display(),
                migrations.len()
            ),
        )
        .hint("Run the newer version, or use another data_dir."));
    }
    for (i, migration) in migrations.iter().enumerate().skip(version) {
        let transaction = connection.transaction().map_err(sql_error)?;
        transaction.execute_batch(migration).map_err(sql_error)?;
        transaction
            .pragma_update(None, "user_version", (i + 1) as u32)
            .map_err(sql_error)?;
        transaction.commit().map_err(sql_error)?;
    }
    Ok(connection)
}

/// Runs one transaction on a blocking thread; an error rolls it back. `after` runs while the
/// connection is still held, so what it publishes appears in the order of the commits.
pub async fn transact_then<T, U, F, G>(
    connection: &Arc<Mutex<Connection>>,
    work: F,
    after: G,
) -> Result<U, Error>
where
    U: Send + 'static,
    F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    G: FnOnce(T) -> U + Send + 'static,
{
    let connection = connection.clone();
    let task = tokio::task::spawn_blocking(move || {
        let mut connection = connection.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(sql_error)?;
        let out = work(&transaction)?;
        transaction.commit().map_err(in_doubt)?;
        Ok(after(out))
    });
    match task.await {
        Ok(result) => result,
        Err(e) => Err(Error::new(
            ErrorKind::InDoubt,
            format!("a metadata transaction died: {e}"),
        )),
    }
}

/// [`transact_then`] with nothing to publish.
pub async fn transact<T, F>(connection: &Arc<Mutex<Connection>>, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
{
    transact_then(connection, work, |out| out).await
}

/// Connections that read on blocking threads at a time.
const READERS_MAX: usize = 16;
/// Reading connections that are kept for the next reader.
const READERS_IDLE_MAX: usize = 8;

/// Connections that read a database that another connection writes. Each reading sees everything
/// that was committed before it began, as the write-ahead log makes it.
#[derive(Debug)]
pub struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// Readings on blocking threads at a time: each has files open.
    places: Semaphore,
}

impl Readers {
    /// Readers of this file, which is there already.
    pub fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            idle: Mutex::default(),
            places: Semaphore::new(READERS_MAX),
        })
    }

    fn connect(&self) -> Result<Connection, Error> {
        // Each is used by one thread at a time, so SQLite needs no lock of its own.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(sql_error)?;
        connection
            .execute_batch("PRAGMA busy_timeout = 5000;")
            .map_err(sql_error)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }

    /// Reads on this thread: for what is found by its key, which takes less time than another
    /// thread would take to begin.
    pub fn read_here<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let idle = self.idle.lock().pop();
        let connection = idle.map_or_else(|| self.connect(), Ok)?;
        let out = work(&connection);
        let mut idle = self.idle.lock();
        if idle.len() < READERS_IDLE_MAX {
            idle.push(connection);
        }
        out
    }

    /// Reads on a blocking thread, at one instant.
    pub async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        let readers = self.clone();
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|_| Error::internal("the readers' places are gone"))?;
        let task = tokio::task::spawn_blocking(move || {
            readers.read_here(|connection| {
                work(&connection.unchecked_transaction().map_err(sql_error)?)
            })
        });
        task.await
            .map_err(|e| Error::internal(format!("a metadata reading died: {e}")))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A COMMIT that fails after everything before it went well: here because of a reference that
    /// is only looked at then.
    #[tokio::test]
    async fn a_commit_that_fails_leaves_its_outcome_in_doubt() {
        let connection = Connection::open_in_memory().expect("opens");
        connection
            .execute_batch(
                "PRAGMA foreign_keys = ON; CREATE TABLE a (id INTEGER PRIMARY KEY);
                 CREATE TABLE b (id INTEGER REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED);",
            )
            .expect("made");
        let connection = Arc::new(Mutex::new(connection));
        let insert =
            |t: &Transaction<'_>| t.execute("INSERT INTO b VALUES (1)", []).map_err(sql_error);
        let error = transact(&connection, insert).await.expect_err("refused");
        assert_eq!(
            (error.kind, error.kind.sqlstate()),
            (ErrorKind::InDoubt, "40003")
        );
        let wrong = |t: &Transaction<'_>| {
            t.execute("INSERT INTO nothing VALUES (1)", [])
                .map_err(sql_error)
        };
        assert_eq!(
            transact(&connection, wrong)
                .await
                .expect_err("refused")
                .kind,
            ErrorKind::Storage,
            "nothing was committed"
        );
    }
}
