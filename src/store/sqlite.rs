//! The store in one SQLite file: every change is one transaction, synced before it is acknowledged.
//!
//! Calls run on blocking threads, so a caller that is dropped half-way leaves a finished or an untouched transaction, never
//! half of one.

mod registry;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params, params_from_iter};

use super::*;
use crate::env::Env;
use crate::job::{JobCourse, JobEvent, JobStatus};
use crate::sqlite::{Readers, from_json, open_database, sql_error, to_json, transact};

const MIGRATIONS: &[&str] = &[
    include_str!("../../sql/meta/001_initial.sql"),
    include_str!("../../sql/meta/002_privileges.sql"),
    include_str!("../../sql/meta/003_clusters.sql"),
    include_str!("../../sql/meta/004_course.sql"),
    include_str!("../../sql/meta/005_causes.sql"),
];

/// The cluster in this process, whose secrets were sealed before there were others.
const EMBEDDED: &str = "embedded";

/// The durable store.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    readers: Arc<Readers>,
    /// Snapshots that are being dropped. Looked at inside the transactions that admit jobs, which come one after the other.
    dropping: Arc<Mutex<HashSet<(ClusterName, RepositoryName, SnapshotLabel)>>>,
    key: SecretKey,
    env: Env,
}

/// Which unique index refused a row, by the columns that SQLite names.
fn violates(error: &rusqlite::Error, column: &str) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(e, Some(message))
        if e.code == ErrorCode::ConstraintViolation && message.contains(column))
}

impl SqliteStore {
    /// Opens or creates the store in this file.
    pub fn open(path: &Path, key: SecretKey, env: Env) -> Result<Self, Error> {
        let connection = open_database(path, MIGRATIONS)?;
        check_key(&connection, &key)?;
        let (connection, readers) = (Arc::new(Mutex::new(connection)), Readers::new(path));
        Ok(Self { connection, readers, dropping: Arc::default(), key, env })
    }

    async fn call<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        transact(&self.connection, work).await
    }
}

/// What a repository's properties are sealed with.
fn seal_context(cluster: &str, name: &str) -> String {
    if cluster == EMBEDDED { name.to_owned() } else { format!("{cluster}/{name}") }
}

/// What a cluster's properties are sealed with.
fn cluster_context(name: &str) -> String {
    format!("cluster {name}")
}

/// A key that does not open what is stored would cancel jobs that wait for their repository: refused before anything starts.
fn check_key(connection: &Connection, key: &SecretKey) -> Result<(), Error> {
    let check = |query: &str, context: fn(&str, &str) -> String| {
        let mut select = connection.prepare(query).map_err(sql_error)?;
        let mut rows = select.query([]).map_err(sql_error)?;
        while let Some(row) = rows.next().map_err(sql_error)? {
            let (cluster, name): (String, String) = (row.get(0).map_err(sql_error)?, row.get(1).map_err(sql_error)?);
            let sealed: Vec<u8> = row.get(2).map_err(sql_error)?;
            key.open(&context(&cluster, &name), &sealed).map_err(|e| e.of_kind(ErrorKind::Configuration).prefixed("secret_key"))?;
        }
        Ok(())
    };
    check("SELECT cluster, name, properties FROM repositories", seal_context)?;
    check("SELECT '', name, properties FROM clusters", |_, name| cluster_context(name))
}

fn write_tasks(transaction: &Transaction<'_>, rows: &[TaskRow]) -> Result<(), Error> {
    let mut insert = transaction
        .prepare_cached("INSERT OR REPLACE INTO job_tasks (job_id, task_id, row) VALUES (?1, ?2, ?3)")
        .map_err(sql_error)?;
    for row in rows {
        insert.execute(params![row.job_id.0, row.task_id.0, to_json(row)?]).map_err(sql_error)?;
    }
    Ok(())
}

fn insert_job(transaction: &Transaction<'_>, spec: &JobSpec, at: Timestamp, status: JobStatus) -> Result<JobId, Error> {
    let settled = status == JobStatus::Refused;
    let inserted = transaction.execute(
        "INSERT INTO jobs (kind, cluster, db_name, repository, snapshot, status, created_at, version, settled, open, spec, row,
                           exclusive)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, '', ?11)",
        params![
            spec.kind().to_string(),
            spec.cluster.as_str(),
            spec.database.as_str(),
            spec.repository.as_ref().map_or("", RepositoryName::as_str),
            spec.label.as_str(),
            status.name(),
            at.0,
            settled,
            !settled,
            to_json(spec)?,
            spec.is_exclusive(),
        ],
    );
    match inserted {
        Ok(_) => Ok(JobId(transaction.last_insert_rowid())),
        Err(e) if violates(&e, "jobs.db_name") => Err(database_busy()),
        Err(e) if violates(&e, "jobs.snapshot") => Err(label_busy(spec)),
        Err(e) => Err(sql_error(e)),
    }
}

fn set_row(transaction: &Transaction<'_>, row: &JobRow) -> Result<(), Error> {
    transaction
        .execute(
            "UPDATE jobs SET row = ?2, course = NULL, status = ?3 WHERE job_id = ?1",
            params![row.job_id.0, to_json(row)?, row.status.name()],
        )
        .map_err(sql_error)?;
    Ok(())
}

/// A row as it was written when the job was admitted, brought to where the job stands. Version 0.1.0 wrote all of it anew each time.
fn stored_row(row: &str, course: Option<&str>) -> Result<JobRow, Error> {
    let mut row: JobRow = from_json(row)?;
    if let Some(course) = course {
        row.take(from_json(course)?);
    }
    Ok(row)
}

fn read_jobs(connection: &Connection, filter: JobFilter) -> Result<Vec<JobRow>, Error> {
    // Only what is asked for stands in the text: "?1 IS NULL OR …" would keep SQLite from its indexes.
    let job = filter.job_id.map(|j| Value::from(j.0));
    let texts = [filter.db_name, filter.kind, filter.status, filter.cluster, filter.snapshot];
    let texts = texts.into_iter().map(|t| t.map(Value::from));
    let columns = ["job_id", "db_name", "kind", "status", "cluster", "snapshot"];
    let wanted = columns.into_iter().zip([job].into_iter().chain(texts)).filter_map(|(column, v)| Some((column, v?)));
    let (columns, values): (Vec<_>, Vec<_>) = wanted.unzip();
    let conditions: Vec<_> = columns.iter().map(|column| format!("{column} = ?")).collect();
    let conditions = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let mut select =
        connection.prepare_cached(&format!("SELECT row, course FROM jobs {conditions} ORDER BY job_id")).map_err(sql_error)?;
    let mut rows = select.query(params_from_iter(values)).map_err(sql_error)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(sql_error)? {
        let text = row.get_ref(0).and_then(|r| Ok(r.as_str()?)).map_err(sql_error)?;
        let course = row.get_ref(1).and_then(|r| Ok(r.as_str_or_null()?)).map_err(sql_error)?;
        out.push(stored_row(text, course)?);
    }
    Ok(out)
}

#[async_trait]
impl Journal for SqliteStore {
    async fn admit(&self, spec: &JobSpec, at: Timestamp) -> Result<Job, Error> {
        let (spec, dropping) = (spec.clone(), self.dropping.clone());
        self.call(move |t| {
            if let Some(repository) = spec.repository.as_ref().filter(|_| spec.is_exclusive()) {
                if dropping.lock().contains(&(spec.cluster.clone(), repository.clone(), spec.label.clone())) {
                    return Err(being_dropped(&spec.label));
                }
                // The repository may have been dropped since the statement was checked.
                let known: Option<i64> = t
                    .query_row(
                        "SELECT 1 FROM repositories WHERE cluster = ?1 AND name = ?2",
                        [spec.cluster.as_str(), repository.as_str()],
                        |r| r.get(0),
                    )
                    .optional()
                    .map_err(sql_error)?;
                if known.is_none() {
                    return Err(no_repository(repository));
                }
            }
            let id = insert_job(t, &spec, at, JobStatus::Queued)?;
            let job = Job::new(id, spec, at);
            set_row(t, &JobRow::of(&job))?;
            Ok(job)
        })
        .await
    }

    async fn begin_drop(&self, cluster: &ClusterName, repository: &RepositoryName, label: &SnapshotLabel) -> Result<(), Error> {
        let reserved = (cluster.clone(), repository.clone(), label.clone());
        let dropping = self.dropping.clone();
        self.call(move |t| {
            let (cluster, repository, label) = &reserved;
            let user: Option<String> = t
                .query_row(
                    "SELECT kind FROM jobs WHERE cluster = ?1 AND repository = ?2 AND snapshot = ?3 AND settled = 0 LIMIT 1",
                    [cluster.as_str(), repository.as_str(), label.as_str()],
                    |r| r.get(0),
                )
                .optional()
                .map_err(sql_error)?;
            match user {
                Some(kind) if kind == JobKind::Restore.to_string() => Err(in_use(label, JobKind::Restore)),
                Some(_) => Err(in_use(label, JobKind::Backup)),
                None if dropping.lock().insert(reserved.clone()) => Ok(()),
                None => Err(being_dropped(label)),
            }
        })
        .await
    }

    fn dropped(&self, cluster: &ClusterName, repository: &RepositoryName, label: &SnapshotLabel) {
        self.dropping.lock().remove(&(cluster.clone(), repository.clone(), label.clone()));
    }

    async fn refuse(&self, spec: &JobSpec, at: Timestamp, error: &Error) -> Result<JobId, Error> {
        let (spec, error) = (spec.clone(), error.clone());
        self.call(move |t| {
            let id = insert_job(t, &spec, at, JobStatus::Refused)?;
            set_row(t, &JobRow::refused(&spec, id, at, &error))?;
            Ok(id)
        })
        .await
    }

    async fn append(&self, delta: &Arc<Delta>) -> Result<(), Error> {
        let delta = delta.clone();
        self.call(move |t| {
            let (job, expected) = (&delta.job, delta.expected.0 as i64);
            let course = JobCourse::of(job);
            let course_json = to_json(&course)?;
            let updated = t
                .prepare_cached(
                    "UPDATE jobs SET version = ?3, settled = ?4, open = ?5, status = ?6, course = ?7 WHERE job_id = ?1 AND version = ?2",
                )
                .and_then(|mut update| {
                    let version = job.version.0 as i64;
                    let (settled, open) = (job.is_settled(), !job.is_over());
                    update.execute(params![job.id.0, expected, version, settled, open, course.status.name(), course_json])
                })
                .map_err(sql_error)?;
            if updated == 0 {
                let known = t.query_row("SELECT 1 FROM jobs WHERE job_id = ?1", [job.id.0], |_| Ok(())).optional();
                return Err(if known.map_err(sql_error)?.is_some() { lost_race(job.id) } else { no_job(job.id) });
            }
            let mut insert = t
                .prepare_cached(
                    "INSERT INTO job_events (job_id, seq, at, from_state, to_state, event) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .map_err(sql_error)?;
            for (seq, entry) in (expected + 1..).zip(&delta.entries) {
                let event = to_json(&entry.event)?;
                insert.execute(params![job.id.0, seq, entry.at.0, entry.from.name(), entry.to.name(), event]).map_err(sql_error)?;
            }
            write_tasks(t, &delta.tasks)
        })
        .await
    }

    async fn load(&self, id: JobId) -> Result<Job, Error> {
        self.readers
            .read(move |t| {
                let (spec, created_at): (String, i64) = t
                    .query_row("SELECT spec, created_at FROM jobs WHERE job_id = ?1", [id.0], |r| Ok((r.get(0)?, r.get(1)?)))
                    .optional()
                    .map_err(sql_error)?
                    .ok_or_else(|| no_job(id))?;
                let mut job = Job::new(id, from_json(&spec)?, Timestamp(created_at));
                let mut events =
                    t.prepare_cached("SELECT at, event FROM job_events WHERE job_id = ?1 ORDER BY seq").map_err(sql_error)?;
                let mut rows = events.query([id.0]).map_err(sql_error)?;
                while let Some(row) = rows.next().map_err(sql_error)? {
                    let at = Timestamp(row.get(0).map_err(sql_error)?);
                    let event: JobEvent = from_json(&row.get::<_, String>(1).map_err(sql_error)?)?;
                    job.apply(&event, at).map_err(|e| {
                        Error::new(ErrorKind::Corrupted, format!("the journal of job {id} does not add up: {e}")).source(e)
                    })?;
                }
                Ok(job)
            })
            .await
    }

    async fn spec(&self, id: JobId) -> Result<JobSpec, Error> {
        let found = self.readers.read(move |t| {
            let spec = t.query_row("SELECT spec FROM jobs WHERE job_id = ?1", [id.0], |r| r.get::<_, String>(0));
            spec.optional().map_err(sql_error)
        });
        from_json(&found.await?.ok_or_else(|| no_job(id))?)
    }

    async fn newest_job(&self) -> Result<Option<Timestamp>, Error> {
        let newest = |t: &Transaction<'_>| {
            t.query_row("SELECT created_at FROM jobs ORDER BY job_id DESC LIMIT 1", [], |r| r.get(0).map(Timestamp))
                .optional()
                .map_err(sql_error)
        };
        self.readers.read(newest).await
    }

    async fn bury(&self, id: JobId, why: &Error, at: Timestamp) -> Result<(), Error> {
        let why = why.message.clone();
        self.call(move |t| {
            let (row, course): (String, Option<String>) = t
                .query_row("SELECT row, course FROM jobs WHERE job_id = ?1", [id.0], |r| Ok((r.get(0)?, r.get(1)?)))
                .map_err(sql_error)?;
            // The row may be damaged as well; then it stays as it is.
            if let Ok(row) = stored_row(&row, course.as_deref()) {
                set_row(t, &row.lost(why, at))?;
            }
            t.execute(
                "UPDATE jobs SET settled = 1, open = 0, status = ?2 WHERE job_id = ?1",
                params![id.0, JobStatus::Lost.name()],
            )
            .map_err(sql_error)?;
            Ok(())
        })
        .await
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, Error> {
        self.readers
            .read(|t| {
                let mut select = t.prepare("SELECT job_id FROM jobs WHERE open = 1 ORDER BY job_id").map_err(sql_error)?;
                let ids = select.query_map([], |r| r.get(0).map(JobId)).map_err(sql_error)?;
                ids.collect::<Result<_, _>>().map_err(sql_error)
            })
            .await
    }

    async fn unsettled(&self, cluster: &ClusterName, database: &DatabaseName) -> Result<Vec<JobId>, Error> {
        let (cluster, database) = (cluster.to_string(), database.to_string());
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached("SELECT job_id FROM jobs WHERE cluster = ?1 AND db_name = ?2 AND settled = 0 ORDER BY job_id")
                    .map_err(sql_error)?;
                let ids = select.query_map([cluster, database], |r| r.get(0).map(JobId)).map_err(sql_error)?;
                ids.collect::<Result<_, _>>().map_err(sql_error)
            })
            .await
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>, Error> {
        match filter.job_id {
            Some(_) => self.readers.read_here(|connection| read_jobs(connection, filter.clone())),
            None => {
                let filter = filter.clone();
                self.readers.read(move |t| read_jobs(t, filter)).await
            }
        }
    }

    async fn tasks(&self, job: Option<JobId>) -> Result<Vec<TaskRow>, Error> {
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached("SELECT row FROM job_tasks WHERE ?1 IS NULL OR job_id = ?1 ORDER BY job_id, task_id")
                    .map_err(sql_error)?;
                let rows = select.query_map([job.map(|j| j.0)], |r| r.get::<_, String>(0)).map_err(sql_error)?;
                rows.map(|row| from_json(&row.map_err(sql_error)?)).collect()
            })
            .await
    }

    async fn events(&self, job: Option<JobId>) -> Result<Vec<EventRow>, Error> {
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT job_id, seq, at, from_state, to_state, event FROM job_events
                     WHERE ?1 IS NULL OR job_id = ?1 ORDER BY job_id, seq",
                    )
                    .map_err(sql_error)?;
                let rows = select
                    .query_map([job.map(|j| j.0)], |r| {
                        Ok(EventRow {
                            job_id: JobId(r.get(0)?),
                            seq: r.get::<_, i64>(1)? as u64,
                            at: Timestamp(r.get(2)?),
                            from_state: r.get(3)?,
                            to_state: r.get(4)?,
                            detail: r.get(5)?,
                        })
                    })
                    .map_err(sql_error)?;
                rows.collect::<Result<_, _>>().map_err(sql_error)
            })
            .await
    }
}
