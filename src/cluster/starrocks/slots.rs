//! SHOW BACKUP, SHOW RESTORE, SHOW SNAPSHOT and SHOW REPOSITORIES, sent and read.

use super::StarRocksCluster;
use super::print_statement::{identifier, literal};
use super::table::{Line, lines};
use crate::cluster::{
    Answer, CATALOGS, ExternalDetails, ExternalRepository, ExternalSnapshot, SeenSlot,
};
use crate::error::{Error, ErrorKind};
use crate::job::{JobKind, SlotStatus};
use crate::names::DatabaseName;

/// Hours east of UTC that the newest versions show times in, whatever the session says.
const CHINA: i64 = 8;

fn seen_slot(line: &Line<'_>, kind: JobKind, hours: i64) -> SeenSlot {
    let database = line.text("DbName");
    // Versions up to 2.5 may show the internal name.
    let database = database.rsplit(':').next().unwrap_or_default().to_owned();
    let (label, objects, transfer) = if kind == JobKind::Restore {
        ("Label", "RestoreObjs", "DownloadFinishedTime")
    } else {
        ("SnapshotName", "BackupObjs", "UploadFinishedTime")
    };
    let seen = SlotStatus {
        job_id: line.number(&["JobId"]).filter(|id| *id >= 0),
        label: line.text(label),
        state: line.text("State"),
        objects: line.text(objects),
        created_at: line.time(&["CreateTime"], hours),
        meta_prepared_at: line.time(&["MetaPreparedTime"], hours),
        snapshot_finished_at: line.time(&["SnapshotFinishedTime"], hours),
        transfer_finished_at: line.time(&[transfer], hours),
        finished_at: line.time(&["FinishedTime"], hours),
        tasks_left: line
            .text("UnfinishedTasks")
            .split(',')
            .filter(|task| !task.trim().is_empty())
            .count() as u64,
        unfinished_tasks: line.text("UnfinishedTasks"),
        progress: line.text("Progress"),
        task_errors: line.text("TaskErrMsg"),
        status: line.text("Status"),
        timeout_seconds: line.number(&["Timeout"]),
        timestamp: line
            .get(&["Timestamp"])
            .filter(|_| kind == JobKind::Restore),
        allow_load: line.flag(&["AllowLoad"]),
        replication_num: line.number(&["ReplicationNum"]),
        left_out: Vec::new(),
        tasks_most: 0,
    };
    SeenSlot {
        kind,
        database: if database.is_empty() {
            CATALOGS.into()
        } else {
            database
        },
        seen,
    }
}

fn verb(kind: JobKind) -> &'static str {
    if kind == JobKind::Restore {
        "RESTORE"
    } else {
        "BACKUP"
    }
}

impl StarRocksCluster {
    async fn hours(&self) -> Result<i64, Error> {
        Ok(if self.client.version().await?.shows_chinese_time() {
            CHINA
        } else {
            0
        })
    }

    /// The jobs of one kind; of one database, or of all where the version shows them.
    async fn jobs_of(&self, kind: JobKind, database: Option<&str>) -> Result<Vec<SeenSlot>, Error> {
        let from = match database {
            Some(database) => format!(" FROM {}", identifier(database)?),
            None => String::new(),
        };
        if kind == JobKind::Restore {
            self.client.settle_leader().await?;
        }
        let answer: Answer = self
            .client
            .query(&format!("SHOW {}{from}", verb(kind)))
            .await?;
        let hours = self.hours().await?;
        let found = lines(&answer).map(|line| seen_slot(&line, kind, hours));
        Ok(found.filter(|s| !s.seen.label.is_empty()).collect())
    }

    /// Every slot that can be seen in one look.
    pub(super) async fn all_slots(
        &self,
        databases: &[DatabaseName],
    ) -> Result<Vec<SeenSlot>, Error> {
        let mut found = Vec::new();
        if self.client.version().await?.shows_all_databases() {
            for kind in [JobKind::Backup, JobKind::Restore] {
                found.extend(self.jobs_of(kind, None).await?);
            }
            return Ok(found);
        }
        // One question a database and kind; those without a job of ours are asked about, too, for
        // the jobs of others.
        let mut names: Vec<String> = databases.iter().map(ToString::to_string).collect();
        names.extend(self.all_database_names().await?);
        names.sort();
        names.dedup();
        for name in names.iter().filter(|n| *n != CATALOGS) {
            found.extend(self.slot_of(name).await?);
        }
        Ok(found)
    }

    /// What one database's slot holds. A database that is gone has no job.
    pub(super) async fn slot_of(&self, database: &str) -> Result<Option<SeenSlot>, Error> {
        let from = (database != CATALOGS).then_some(database);
        // The slot holds one job, so the answers are of two moments: a job that comes in between is
        // in neither.
        for kind in [JobKind::Backup, JobKind::Restore, JobKind::Backup] {
            match self.jobs_of(kind, from).await {
                Ok(found) => {
                    if let Some(found) = found.into_iter().find(|s| s.database == database) {
                        return Ok(Some(found));
                    }
                }
                Err(e) if e.kind == ErrorKind::UndefinedSchema => return Ok(None),
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// A question for which the frontend asks the store.
    async fn ask_the_store(&self, sql: &str) -> Result<Answer, Error> {
        let limit = self.client.options().submission_timeout;
        self.client.query_within(limit, sql).await
    }

    pub(super) async fn repositories_there(&self) -> Result<Vec<ExternalRepository>, Error> {
        let answer = self.client.query("SHOW REPOSITORIES").await?;
        let hours = self.hours().await?;
        let mut found: Vec<_> = lines(&answer)
            .map(|line| ExternalRepository {
                id: line.number(&["RepoId"]),
                name: line.text("RepoName"),
                created_at: line.time(&["CreateTime"], hours),
                read_only: line.flag(&["IsReadOnly"]).unwrap_or_default(),
                location: line.text("Location"),
                broker: line.get(&["Broker"]).filter(|b| !b.is_empty()),
                error: line.get(&["ErrMsg"]).filter(|e| !e.is_empty()),
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) async fn snapshots_there(
        &self,
        repository: &str,
        label: Option<&str>,
    ) -> Result<Vec<ExternalSnapshot>, Error> {
        // Asked with =, a frontend answers a row, with an error for a status, for a label that is
        // not there, too.
        let lists_some = self.client.version().await?.lists_some_snapshots();
        let only = label.filter(|_| lists_some).map_or(String::new(), |label| {
            format!(" WHERE SNAPSHOT IN ({})", literal(label))
        });
        let sql = format!("SHOW SNAPSHOT ON {}{only}", identifier(repository)?);
        let answer = self.ask_the_store(&sql).await?;
        let hours = self.hours().await?;
        let found = lines(&answer).map(|line| ExternalSnapshot {
            label: line.text("Snapshot"),
            timestamps: {
                let mut all: Vec<_> = line
                    .text("Timestamp")
                    .lines()
                    .map(str::to_owned)
                    .filter(|t| !t.is_empty())
                    .collect();
                all.sort();
                all
            },
            status: line.text("Status"),
            cluster_id: line.get(&["ClusterId"]),
            finished_at: line.time(&["FinishTime"], hours),
            ttl: line.get(&["TTL"]).filter(|t| !t.is_empty()),
            expire_at: line.time(&["ExpireTime"], hours),
        });
        // Without WHERE the FE of some versions lists everything.
        Ok(found
            .filter(|s| label.is_none_or(|label| s.label == label))
            .collect())
    }

    pub(super) async fn details_there(
        &self,
        repository: &str,
        label: &str,
        timestamp: &str,
    ) -> Result<ExternalDetails, Error> {
        let sql = format!(
            "SHOW SNAPSHOT ON {} WHERE SNAPSHOT = {} AND TIMESTAMP = {}",
            identifier(repository)?,
            literal(label),
            literal(timestamp)
        );
        let answer = self.ask_the_store(&sql).await?;
        let found = lines(&answer).next().map(|line| ExternalDetails {
            database: line.get(&["Database"]),
            details: line.get(&["Details"]),
            status: line.text("Status"),
        });
        Ok(found.unwrap_or_default())
    }
}
