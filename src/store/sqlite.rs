//! The store in one SQLite file: every change is one transaction, synced before it is acknowledged.
//!
//! Calls run on blocking threads, so a caller that is dropped half-way leaves a finished or an
//! untouched transaction, never half of one.

mod history;
mod mirror;
mod registry;
mod uploads;
mod verifications;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params, params_from_iter};

use self::history::read_jobs;
#[cfg(test)]
use self::history::{LATEST_OF_EACH, LATEST_OF_ONE, select_jobs};
use super::*;
use crate::env::Env;
use crate::job::{JobCourse, JobEvent, JobStatus, LockMode, Phase};
use crate::sqlite::{Readers, from_json, open_database, sql_error, to_json, transact};

const MIGRATIONS: &[&str] = &[
    include_str!("../../sql/meta/001_initial.sql"),
    include_str!("../../sql/meta/002_privileges.sql"),
    include_str!("../../sql/meta/003_clusters.sql"),
    include_str!("../../sql/meta/004_course.sql"),
    include_str!("../../sql/meta/005_causes.sql"),
    include_str!("../../sql/meta/006_work.sql"),
    include_str!("../../sql/meta/007_latest.sql"),
    include_str!("../../sql/meta/008_uploads.sql"),
    include_str!("../../sql/meta/009_verifications.sql"),
    include_str!("../../sql/meta/010_estimates.sql"),
    include_str!("../../sql/meta/011_test_restores.sql"),
    include_str!("../../sql/meta/012_creation.sql"),
    include_str!("../../sql/meta/013_mirror.sql"),
];

/// The cluster in this process, whose secrets were sealed before there were others.
const EMBEDDED: &str = "embedded";

/// The durable store.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    readers: Arc<Readers>,
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
        Ok(Self {
            connection,
            readers,
            key,
            env,
        })
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
    if cluster == EMBEDDED {
        name.to_owned()
    } else {
        format!("{cluster}/{name}")
    }
}

/// What a cluster's properties are sealed with.
fn cluster_context(name: &str) -> String {
    format!("cluster {name}")
}

/// A key that does not open what is stored would cancel jobs that wait for their repository:
/// refused before anything starts.
fn check_key(connection: &Connection, key: &SecretKey) -> Result<(), Error> {
    let check = |query: &str, context: fn(&str, &str) -> String| {
        let mut select = connection.prepare(query).map_err(sql_error)?;
        let mut rows = select.query([]).map_err(sql_error)?;
        while let Some(row) = rows.next().map_err(sql_error)? {
            let (cluster, name): (String, String) = (
                row.get(0).map_err(sql_error)?,
                row.get(1).map_err(sql_error)?,
            );
            let sealed: Vec<u8> = row.get(2).map_err(sql_error)?;
            key.open(&context(&cluster, &name), &sealed)
                .map_err(|e| e.of_kind(ErrorKind::Configuration).prefixed("secret_key"))?;
        }
        Ok(())
    };
    check(
        "SELECT cluster, name, properties FROM repositories",
        seal_context,
    )?;
    check("SELECT '', name, properties FROM clusters", |_, name| {
        cluster_context(name)
    })
}

fn write_tasks(transaction: &Transaction<'_>, rows: &[TaskRow]) -> Result<(), Error> {
    let mut insert = transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO job_tasks (job_id, task_id, row) VALUES (?1, ?2, ?3)",
        )
        .map_err(sql_error)?;
    for row in rows {
        insert
            .execute(params![row.job_id.0, row.task_id.0, to_json(row)?])
            .map_err(sql_error)?;
    }
    Ok(())
}

fn insert_job(
    transaction: &Transaction<'_>,
    spec: &JobSpec,
    at: Timestamp,
    status: JobStatus,
) -> Result<JobId, Error> {
    let settled = status == JobStatus::Refused;
    transaction
        .execute(
            "INSERT INTO jobs (kind, cluster, db_name, repository, snapshot, status, created_at, version, settled, open, spec, uid, row)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, ?11, '')",
            params![
                spec.kind().name(),
                spec.cluster.as_str(),
                spec.work.database().map_or("", DatabaseName::as_str),
                spec.work.repository().map_or("", RepositoryName::as_str),
                spec.label(),
                status.name(),
                at.0,
                settled,
                !settled,
                to_json(spec)?,
                spec.uid.as_str(),
            ],
        )
        .map_err(sql_error)?;
    Ok(JobId(transaction.last_insert_rowid()))
}

/// Refuses a job whose repository is gone, or one of whose locks is held.
fn check_admission(connection: &Connection, spec: &JobSpec) -> Result<(), Error> {
    // It may have been dropped since the statement was checked. Those of other clusters need not be
    // known here.
    if let Some(repository) = spec.work.repository().filter(|_| spec.external().is_none()) {
        let known = connection.query_row(
            "SELECT 1 FROM repositories WHERE cluster = ?1 AND name = ?2",
            [spec.cluster.as_str(), repository.as_str()],
            |_| Ok(()),
        );
        known
            .optional()
            .map_err(sql_error)?
            .ok_or_else(|| no_repository(repository))?;
    }
    let mut held = connection
        .prepare_cached(
            "SELECT j.kind FROM job_locks l JOIN jobs j USING (job_id) WHERE l.resource = ?1 AND (l.exclusive OR ?2) LIMIT 1",
        )
        .map_err(sql_error)?;
    for lock in spec.locks() {
        let resource = to_json(&lock.resource)?;
        let holder: Option<String> = held
            .query_row(params![resource, lock.mode == LockMode::Exclusive], |r| {
                r.get(0)
            })
            .optional()
            .map_err(sql_error)?;
        if let Some(holder) = holder {
            return Err(locked(
                spec,
                &lock.resource,
                from_json(&format!("\"{holder}\""))?,
            ));
        }
    }
    Ok(())
}

/// Takes the locks of a job that was found admissible; transactions come one after the other, so
/// nobody comes between the look and the rows.
fn take_locks(transaction: &Transaction<'_>, spec: &JobSpec, id: JobId) -> Result<(), Error> {
    let mut take = transaction
        .prepare_cached("INSERT INTO job_locks (resource, job_id, exclusive) VALUES (?1, ?2, ?3)")
        .map_err(sql_error)?;
    for lock in spec.locks() {
        let resource = to_json(&lock.resource)?;
        take.execute(params![resource, id.0, lock.mode == LockMode::Exclusive])
            .map_err(sql_error)?;
    }
    Ok(())
}

fn release_locks(transaction: &Transaction<'_>, id: JobId) -> Result<(), Error> {
    let release = transaction
        .prepare_cached("DELETE FROM job_locks WHERE job_id = ?1")
        .and_then(|mut d| d.execute([id.0]));
    release.map(drop).map_err(sql_error)
}

fn set_row(transaction: &Transaction<'_>, row: &JobRow) -> Result<(), Error> {
    transaction
        .execute(
            "UPDATE jobs SET row = ?2, course = NULL, status = ?3, phase = ?4 WHERE job_id = ?1",
            params![
                row.job_id.0,
                to_json(row)?,
                row.status.name(),
                row.state.map_or("", Phase::name)
            ],
        )
        .map_err(sql_error)?;
    Ok(())
}

/// A row as it was written when the job was admitted, brought to where the job stands. Version
/// 0.1.0 wrote all of it anew each time.
fn stored_row(row: &str, course: Option<&str>) -> Result<JobRow, Error> {
    let mut row: JobRow = from_json(row)?;
    if let Some(course) = course {
        row.take(from_json(course)?);
    }
    Ok(row)
}

fn write_entries(transaction: &Transaction<'_>, delta: &Delta) -> Result<(), Error> {
    let mut insert = transaction
        .prepare_cached(
            "INSERT INTO job_events (job_id, seq, at, from_state, to_state, event)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .map_err(sql_error)?;
    for (seq, entry) in (delta.expected.0 as i64 + 1..).zip(&delta.entries) {
        let event = to_json(&entry.event)?;
        let (from, to) = (entry.from.name(), entry.to.name());
        insert
            .execute(params![delta.job.id.0, seq, entry.at.0, from, to, event])
            .map_err(sql_error)?;
    }
    Ok(())
}

/// What a job was asked to do, and when.
fn read_spec(connection: &Connection, id: JobId) -> Result<(JobSpec, Timestamp), Error> {
    let (spec, created_at, status): (String, i64, String) = connection
        .prepare_cached("SELECT spec, created_at, status FROM jobs WHERE job_id = ?1")
        .and_then(|mut select| {
            select
                .query_row([id.0], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
                .optional()
        })
        .map_err(sql_error)?
        .ok_or_else(|| no_job(id))?;
    if status == JobStatus::Refused.name() {
        return Err(was_refused(id));
    }
    Ok((from_json(&spec)?, Timestamp(created_at)))
}

#[async_trait]
impl Journal for SqliteStore {
    async fn admit(&self, spec: &JobSpec, at: Timestamp) -> Result<Job, Error> {
        let spec = spec.clone();
        self.call(move |t| {
            check_admission(t, &spec)?;
            let id = insert_job(t, &spec, at, JobStatus::Queued)?;
            take_locks(t, &spec, id)?;
            let job = Job::new(id, spec, at);
            set_row(t, &JobRow::of(&job))?;
            Ok(job)
        })
        .await
    }

    async fn check_admission(&self, spec: &JobSpec) -> Result<(), Error> {
        let spec = spec.clone();
        self.readers.read(move |t| check_admission(t, &spec)).await
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
                    "UPDATE jobs SET version = ?3, settled = ?4, open = ?5, status = ?6, course = ?7, phase = ?8
                     WHERE job_id = ?1 AND version = ?2",
                )
                .and_then(|mut update| {
                    // Not among the jobs of its database's slot: it never was in it.
                    let phase = course.state.filter(|_| job.is_shown()).map_or("", Phase::name);
                    let version = job.version.0 as i64;
                    let (settled, open) = (job.is_settled(), !job.is_over());
                    update.execute(params![job.id.0, expected, version, settled, open, course.status.name(), course_json, phase])
                })
                .map_err(sql_error)?;
            if updated == 0 {
                let known = t.query_row("SELECT 1 FROM jobs WHERE job_id = ?1", [job.id.0], |_| Ok(())).optional();
                return Err(if known.map_err(sql_error)?.is_some() { lost_race(job.id) } else { no_job(job.id) });
            }
            write_entries(t, &delta)?;
            if job.is_settled() {
                release_locks(t, job.id)?;
                verifications::write(t, job)?;
            }
            write_tasks(t, &delta.tasks)
        })
        .await
    }

    async fn load(&self, id: JobId) -> Result<Job, Error> {
        self.readers
            .read(move |t| {
                let (spec, created_at) = read_spec(t, id)?;
                let mut job = Job::new(id, spec, created_at);
                let mut events = t
                    .prepare_cached(
                        "SELECT at, event FROM job_events WHERE job_id = ?1 ORDER BY seq",
                    )
                    .map_err(sql_error)?;
                let mut rows = events.query([id.0]).map_err(sql_error)?;
                while let Some(row) = rows.next().map_err(sql_error)? {
                    let at = Timestamp(row.get(0).map_err(sql_error)?);
                    let event: JobEvent = from_json(&row.get::<_, String>(1).map_err(sql_error)?)?;
                    job.apply(&event, at).map_err(|e| does_not_add_up(id, &e))?;
                }
                Ok(job)
            })
            .await
    }

    async fn spec(&self, id: JobId) -> Result<JobSpec, Error> {
        self.readers.read(move |t| Ok(read_spec(t, id)?.0)).await
    }

    async fn bury(&self, id: JobId, why: &Error, at: Timestamp) -> Result<(), Error> {
        let why = why.message.clone();
        self.call(move |t| {
            let (row, course): (String, Option<String>) = t
                .query_row(
                    "SELECT row, course FROM jobs WHERE job_id = ?1",
                    [id.0],
                    |r| Ok((r.get(0)?, r.get(1)?)),
                )
                .map_err(sql_error)?;
            // The row may be damaged as well; then it stays as it is.
            if let Ok(row) = stored_row(&row, course.as_deref()) {
                set_row(t, &row.lost(why, at))?;
            }
            t.execute(
                "UPDATE jobs SET settled = 1, open = 0, mirrored = 1, status = ?2 WHERE job_id = ?1",
                params![id.0, JobStatus::Lost.name()],
            )
            .map_err(sql_error)?;
            release_locks(t, id)
        })
        .await
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, Error> {
        self.readers
            .read(|t| {
                let mut select = t
                    .prepare("SELECT job_id FROM jobs WHERE open = 1 ORDER BY job_id")
                    .map_err(sql_error)?;
                let ids = select
                    .query_map([], |r| r.get(0).map(JobId))
                    .map_err(sql_error)?;
                ids.collect::<Result<_, _>>().map_err(sql_error)
            })
            .await
    }

    async fn unsettled(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
    ) -> Result<Vec<JobId>, Error> {
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
}

#[async_trait]
impl History for SqliteStore {
    async fn verifications(
        &self,
        jobs: RangeInclusive<JobId>,
    ) -> Result<Vec<VerificationRow>, Error> {
        self.read_verifications(jobs).await
    }

    async fn findings(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<FindingRow>, Error> {
        self.read_findings(jobs).await
    }

    async fn damaged_objects(&self) -> Result<DamagedObjects, Error> {
        self.read_damaged_objects().await
    }

    async fn unmirrored(&self, after: JobId, limit: usize) -> Result<Vec<JobId>, Error> {
        self.read_unmirrored(after, limit).await
    }

    async fn set_mirrored(&self, id: JobId) -> Result<(), Error> {
        self.note_mirrored(id).await
    }

    async fn import(&self, from: &RepositoryName, jobs: Vec<JobJournal>) -> Result<u64, Error> {
        self.import_journals(from, jobs).await
    }

    async fn last_job(&self) -> Result<Option<JobId>, Error> {
        let last = |t: &Transaction<'_>| {
            t.query_row("SELECT max(job_id) FROM jobs", [], |r| {
                Ok(r.get::<_, Option<i64>>(0)?.map(JobId))
            })
            .map_err(sql_error)
        };
        self.readers.read(last).await
    }

    async fn newest_job(&self) -> Result<Option<Timestamp>, Error> {
        let newest = |t: &Transaction<'_>| {
            t.query_row(
                "SELECT created_at FROM jobs WHERE imported IS NULL ORDER BY job_id DESC LIMIT 1",
                [],
                |r| r.get(0).map(Timestamp),
            )
            .optional()
            .map_err(sql_error)
        };
        self.readers.read(newest).await
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>, Error> {
        match filter.job_id {
            Some(_) => self
                .readers
                .read_here(|connection| read_jobs(connection, filter.clone())),
            None => {
                let filter = filter.clone();
                self.readers.read(move |t| read_jobs(t, filter)).await
            }
        }
    }

    async fn tasks(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<TaskRow>, Error> {
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached("SELECT row FROM job_tasks WHERE job_id BETWEEN ?1 AND ?2 ORDER BY job_id, task_id")
                    .map_err(sql_error)?;
                let rows = select.query_map([jobs.start().0, jobs.end().0], |r| r.get::<_, String>(0)).map_err(sql_error)?;
                rows.map(|row| from_json(&row.map_err(sql_error)?)).collect()
            })
            .await
    }

    async fn events(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<EventRow>, Error> {
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT job_id, seq, at, from_state, to_state, event FROM job_events
                     WHERE job_id BETWEEN ?1 AND ?2 ORDER BY job_id, seq",
                    )
                    .map_err(sql_error)?;
                let rows = select
                    .query_map([jobs.start().0, jobs.end().0], |r| {
                        Ok(EventRow {
                            job_id: JobId(r.get(0)?),
                            seq: r.get::<_, i64>(1)? as u64,
                            at: Timestamp(r.get(2)?),
                            from_state: r.get(3)?,
                            to_state: r.get(4)?,
                            event: r.get(5)?,
                        })
                    })
                    .map_err(sql_error)?;
                rows.collect::<Result<_, _>>().map_err(sql_error)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SHOW asks for is found by an index: it costs the same with one job and with a hundred
    /// thousand.
    #[test]
    fn the_latest_jobs_are_found_without_a_scan() {
        let dir = tempfile::tempdir().expect("a directory");
        let connection = open_database(&dir.path().join("meta.db"), MIGRATIONS).expect("opens");
        for query in [LATEST_OF_ONE, LATEST_OF_EACH] {
            let mut plan = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
                .expect("planned");
            let values = ["c", "backup", "d"]
                .into_iter()
                .take(plan.parameter_count());
            let steps = plan
                .query_map(params_from_iter(values), |r| r.get::<_, String>(3))
                .expect("planned");
            let steps: Vec<String> = steps.map(|step| step.expect("a step")).collect();
            assert!(
                steps
                    .iter()
                    .any(|step| step.starts_with("SEARCH jobs USING")
                        && step.contains("jobs_latest")),
                "{steps:?}"
            );
            assert!(
                !steps.iter().any(|step| step.starts_with("SCAN jobs")),
                "{steps:?}"
            );
        }
    }

    /// So do the newest, and those of a span of time.
    #[test]
    fn pages_of_jobs_are_found_without_a_sort() {
        let dir = tempfile::tempdir().expect("a directory");
        let connection = open_database(&dir.path().join("meta.db"), MIGRATIONS).expect("opens");
        let created = Span {
            from: Some(Timestamp(5)),
            to: None,
        };
        for (order, created) in [
            (JobOrder::Id, Span::default()),
            (JobOrder::CreatedAt, Span::default()),
            (JobOrder::CreatedAt, created),
        ] {
            let (query, values) = select_jobs(JobFilter {
                order,
                created,
                descending: true,
                after: Some((Timestamp(9), JobId(9))),
                limit: Some(5),
                ..JobFilter::default()
            });
            let mut plan = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
                .expect("planned");
            let steps = plan
                .query_map(params_from_iter(values), |r| r.get::<_, String>(3))
                .expect("planned");
            let steps: Vec<String> = steps.map(|step| step.expect("a step")).collect();
            assert!(
                steps.len() == 1 && steps[0].starts_with("SEARCH jobs USING"),
                "{steps:?}"
            );
        }
    }

    /// What 0.1.0 wrote: an unfinished backup, a finished one that was cancelled, and one that
    /// another cluster does.
    #[tokio::test]
    async fn what_an_older_version_wrote_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("meta.db");
        let spec = |uid: &str, database: &str, repository: &str, user: &str, request: &str| {
            format!(
                "{{\"uid\":\"{uid}\",\"cluster\":\"embedded\",\"database\":\"{database}\",\"label\":\"l\",\"repository\":{repository},\
                 \"timeout_seconds\":600,\"request\":{request},\"requested_by\":\"{user}\",\"client_addr\":\"127.0.0.1\",\
                 \"application_name\":null,\"statement\":\"BACKUP …\"}}"
            )
        };
        let backup = "{\"backup\":{\"objects\":[{\"table\":\"t\",\"partitions\":[]}],\"views\":[],\"ttl\":null}}";
        let remote = "{\"remote\":{\"kind\":\"backup\",\"statement\":\"BACKUP\",\"objects\":[],\"queue\":false,\"catalogs\":false,\
                      \"timestamp\":null,\"external\":null}}";
        let row = |id: i64, status: &str, state: &str| {
            format!(
                "{{\"job_id\":{id},\"kind\":\"backup\",\"state\":\"{state}\",\"status\":\"{status}\",\"cluster\":\"embedded\",\
                 \"db_name\":\"d\",\"snapshot\":\"l\",\"backup_timestamp\":null,\"repository\":\"r\",\"objects\":[],\"native_objects\":\"\",\
                 \"requested_by\":\"root\",\"client_addr\":null,\"application_name\":null,\"statement\":\"BACKUP …\",\"created_at\":1,\
                 \"started_at\":null,\"meta_prepared_at\":null,\"snapshot_finished_at\":null,\"transfer_finished_at\":null,\
                 \"finished_at\":null,\"timeout_seconds\":600,\"tasks_total\":0,\"tasks_done\":0,\"planned\":{{\"files\":0,\"bytes\":0}},\
                 \"done\":{{\"files\":0,\"bytes\":0}},\"bytes_new\":0,\"error_code\":null,\"error_message\":null,\
                 \"native_status\":\"[OK]\",\"allow_load\":null,\"replication_num\":null}}"
            )
        };
        let cancelled = "{\"backup\":{\"cancelled\":{\"failure\":{\"code\":\"CommonError\",\"kind\":\"Cancelled\",\"message\":\"user cancelled\"}}}}";
        {
            let old = open_database(&path, &MIGRATIONS[..3]).expect("opens");
            let insert = "INSERT INTO jobs (job_id, kind, cluster, db_name, repository, snapshot, status, created_at, version, settled, open,
                                            spec, row, exclusive)
                          VALUES (?1, 'backup', 'embedded', ?2, ?3, 'l', ?4, 1, ?5, ?6, 1, ?7, ?8, ?9)";
            let jobs = [
                (
                    1,
                    "d",
                    "r",
                    "queued",
                    0,
                    0,
                    spec("u1", "d", "\"r\"", "root", backup),
                    row(1, "queued", "PENDING"),
                    1,
                ),
                (
                    2,
                    "e",
                    "r",
                    "cancelled",
                    1,
                    1,
                    spec("u2", "e", "\"r\"", "root", backup),
                    row(2, "cancelled", "CANCELLED"),
                    1,
                ),
                (
                    3,
                    "f",
                    "",
                    "running",
                    0,
                    0,
                    spec("u3", "f", "null", "", remote),
                    row(3, "running", "PENDING"),
                    0,
                ),
            ];
            for (id, database, repository, status, version, settled, spec, row, exclusive) in jobs {
                old.execute(
                    insert,
                    params![
                        id, database, repository, status, version, settled, spec, row, exclusive
                    ],
                )
                .expect("inserted");
            }
            let event = "INSERT INTO job_events VALUES (2, 1, 5, 'PENDING', 'CANCELLED', ?1)";
            old.execute(event, [cancelled]).expect("inserted");
            let repository =
                "INSERT INTO repositories VALUES (1, 'embedded', 'r', '/x', NULL, 0, 1, x'00')";
            old.execute(repository, []).expect("inserted");
            old.execute("DELETE FROM repositories", [])
                .expect("emptied: what is sealed has a key of its own");
        }
        let env = Env::system();
        let store = SqliteStore::open(&path, SecretKey::random(&env), env).expect("opens");
        let first = store.load(JobId(1)).await.expect("reads");
        let target = first.spec.target().expect("a backup");
        assert_eq!(
            (
                target.database.as_str(),
                target.label.as_str(),
                target.repository.as_str()
            ),
            ("d", "l", "r")
        );
        let name = "root".to_owned();
        let requester = crate::job::Requester::User {
            name,
            client_addr: Some("127.0.0.1".into()),
            application_name: None,
        };
        assert_eq!(
            (&first.spec.requester, first.spec.timeout_seconds),
            (&requester, 600)
        );
        let second = store.load(JobId(2)).await.expect("reads");
        let end = Some(crate::job::End::Cancelled(crate::job::CancelCause::User));
        assert_eq!(
            (second.end(), second.is_over()),
            (end, false),
            "told by its cause now"
        );
        let third = store.load(JobId(3)).await.expect("reads");
        assert_eq!(third.spec.requester, crate::job::Requester::Outside);
        assert_eq!(
            third.spec.work.database().map(DatabaseName::as_str),
            Some("f")
        );
        // The unfinished one of ours keeps its locks, and no other has any.
        let held: Vec<(String, i64)> = {
            let connection = store.connection.lock();
            let mut select = connection
                .prepare("SELECT resource, job_id FROM job_locks ORDER BY 1")
                .expect("prepared");
            let rows = select
                .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
                .expect("read");
            rows.map(|row| row.expect("a row")).collect()
        };
        let mut expected: Vec<(String, i64)> = first
            .spec
            .locks()
            .iter()
            .map(|lock| (to_json(&lock.resource).expect("text"), 1))
            .collect();
        expected.sort();
        assert_eq!(held, expected);
        let latest = JobFilter {
            cluster: Some("embedded".into()),
            kind: Some(JobKind::Backup),
            latest: true,
            ..JobFilter::default()
        };
        let found: Vec<i64> = store
            .jobs(&latest)
            .await
            .expect("listed")
            .iter()
            .map(|row| row.job_id.0)
            .collect();
        assert_eq!(found, [1, 2, 3]);
    }
}
