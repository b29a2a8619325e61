//! How both catalogs here use SQLite: write-ahead log, full sync, migrations by number, one transaction at a time.
//!
//! Transactions run on blocking threads, so a caller that is dropped half-way leaves a finished or an untouched transaction.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::error::{Error, ErrorKind};

/// A SQLite error as ours.
pub fn sql_error(error: rusqlite::Error) -> Error {
    let kind = match &error {
        rusqlite::Error::SqliteFailure(e, _) if e.code == ErrorCode::DiskFull => ErrorKind::DiskFull,
        rusqlite::Error::SqliteFailure(e, _) if matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            ErrorKind::Corrupted
        }
        _ => ErrorKind::Storage,
    };
    Error::new(kind, format!("metadata store: {error}")).source(error)
}

fn json_error(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupted, format!("metadata store: a stored value does not read: {error}")).source(error)
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
    let version: usize = connection.query_row("PRAGMA user_version", [], |r| r.get::<_, u32>(0)).map_err(sql_error)? as usize;
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
        transaction.pragma_update(None, "user_version", (i + 1) as u32).map_err(sql_error)?;
        transaction.commit().map_err(sql_error)?;
    }
    Ok(connection)
}

/// Runs one transaction on a blocking thread; an error rolls it back. `after` runs while the connection is still held, so
/// what it publishes appears in the order of the commits.
pub async fn transact_then<T, U, F, G>(connection: &Arc<Mutex<Connection>>, work: F, after: G) -> Result<U, Error>
where
    U: Send + 'static,
    F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    G: FnOnce(T) -> U + Send + 'static,
{
    let connection = connection.clone();
    let task = tokio::task::spawn_blocking(move || {
        let mut connection = connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql_error)?;
        let out = work(&transaction)?;
        transaction.commit().map_err(sql_error)?;
        Ok(after(out))
    });
    match task.await {
        Ok(result) => result,
        Err(e) => Err(Error::internal(format!("a metadata transaction died: {e}"))),
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
