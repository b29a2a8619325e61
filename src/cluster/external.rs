//! A cluster that does its jobs itself: what it is told, and what it is asked.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Error;
use crate::job::{JobKind, SlotStatus, TableContents};
use crate::names::{DatabaseName, PartitionName, TableName, Timestamp};
use crate::statement::{ObjectRef, Statement};

/// The database that stands for all external catalogs: they have one slot for jobs of their own,
/// which has no name.
pub const CATALOGS: &str = "_external_catalogs";

/// How long to wait between two looks at the cluster's jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// While a job was just submitted, or moves from phase to phase.
    pub fast: Duration,
    /// While jobs move bytes and nothing else happens.
    pub slow: Duration,
    /// While there is no job of ours: jobs of others are found by it.
    pub idle: Duration,
}

/// A job that was seen in a database's slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSlot {
    pub kind: JobKind,
    /// Whose slot it is; [`CATALOGS`] for external catalogs.
    pub database: String,
    pub seen: SlotStatus,
}

/// A statement that the cluster did not simply carry out.
#[derive(Clone, Debug)]
pub enum SendError {
    /// It never left: the cluster could not be reached.
    NotSent(Error),
    /// It was refused, and had no effect.
    Refused {
        /// In the cluster's words.
        error: Error,
        /// Whether another job is in the way, which passes.
        busy: bool,
    },
    /// The answer was lost: it may have had its effect.
    InDoubt(Error),
}

impl SendError {
    pub fn into_error(self) -> Error {
        match self {
            Self::NotSent(error) | Self::InDoubt(error) | Self::Refused { error, .. } => error,
        }
    }
}

/// What a cluster can do just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    Well,
    /// No frontend leads: what is there can be looked at in part, and nothing changed.
    NoLeader,
    /// No backend is alive: no table can be read, and nothing backed up.
    NoBackends,
    /// Its user lacks privileges: jobs and repositories are not seen.
    Denied,
    /// No frontend answers.
    Unreachable,
}

impl Condition {
    pub const ALL: [Self; 5] = [
        Self::Well,
        Self::NoLeader,
        Self::NoBackends,
        Self::Denied,
        Self::Unreachable,
    ];

    /// Its name in SQL and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::NoLeader => "no_leader",
            Self::NoBackends => "no_backends",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
        }
    }
}

/// How a cluster is.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pub condition: Condition,
    /// Its version, if it has ever been reached.
    pub version: Option<String>,
    /// `host:port` of the frontend that leads.
    pub leader: Option<String>,
    /// What is wrong with it now.
    pub error: Option<Error>,
}

/// A repository as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalRepository {
    pub id: Option<i64>,
    pub name: String,
    pub created_at: Option<Timestamp>,
    /// Whether BACKUP into it is forbidden.
    pub read_only: bool,
    pub location: String,
    /// Through which broker; `None` without one.
    pub broker: Option<String>,
    /// What the cluster last complained about.
    pub error: Option<String>,
}

/// A row of SHOW SNAPSHOT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalSnapshot {
    pub label: String,
    /// The timestamps of its backups, oldest first; usually one.
    pub timestamps: Vec<String>,
    /// `OK`, or what is wrong.
    pub status: String,
    /// Which cluster made it (4.2).
    pub cluster_id: Option<String>,
    /// When it was finished (4.2).
    pub finished_at: Option<Timestamp>,
    /// How long it is kept (4.2).
    pub ttl: Option<String>,
    /// When it expires (4.2).
    pub expire_at: Option<Timestamp>,
}

/// A backup's brief content, as SHOW SNAPSHOT tells it when asked for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalDetails {
    /// The database that was backed up.
    pub database: Option<String>,
    /// JSON.
    pub details: Option<String>,
    /// `OK`, or what is wrong.
    pub status: String,
}

/// The system tables that are about a cluster's inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeTable {
    /// `system.frontends`
    Frontends,
    /// `system.backends`
    Backends,
    /// `system.brokers`
    Brokers,
    /// `system.databases`
    Databases,
    /// `system.tables`
    Tables,
    /// `system.views`
    Views,
    /// `system.columns`
    Columns,
    /// `system.partitions`
    Partitions,
    /// `system.tablets`
    Tablets,
}

/// Of what a question is; `None` is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub database: Option<String>,
    pub table: Option<String>,
    pub tablet: Option<i64>,
}

/// One row of a system table: values as text by the table's column names; what is missing is NULL.
pub type Record = BTreeMap<&'static str, String>;

/// Rows as the cluster wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The columns; none if the statement answers no rows.
    pub columns: Vec<String>,
    /// The values as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many rows a statement without rows changed.
    pub affected: u64,
}

/// What a BACKUP takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackedUp {
    /// Tables, each with the partitions that are named; none for all.
    pub tables: Vec<(TableName, Vec<PartitionName>)>,
    /// Everything else, as a statement names it.
    pub others: Vec<ObjectRef>,
}

/// What is done to a table that takes the place of another.
#[derive(Clone, Copy, Debug)]
pub enum TableChange<'t> {
    /// The two exchange their names, at once.
    Swap {
        table: &'t str,
        with: &'t str,
    },
    Rename {
        table: &'t str,
        to: &'t str,
    },
    /// It goes, as far as it is there; the cluster keeps it for a while (RECOVER TABLE).
    Drop {
        table: &'t str,
    },
    /// It gets a partition, as [`ExternalCluster::partition_lines`] has it.
    AddPartition {
        table: &'t str,
        line: &'t str,
    },
    /// Whether the cluster makes and drops its partitions by itself.
    Dynamic {
        table: &'t str,
        enable: bool,
    },
    /// These partitions of it become what another table has, whatever they were.
    Overwrite {
        table: &'t str,
        partitions: &'t [PartitionName],
        from: &'t str,
    },
}

/// What is done to a database that a verification restores into.
#[derive(Clone, Copy, Debug)]
pub enum DatabaseChange {
    /// It is made, unless it is there.
    Create,
    /// It goes with everything in it, as far as it is there.
    Drop,
}

/// A cluster that does its jobs itself. Errors are 08006 with the address when it cannot be
/// reached; what it refuses comes in its own words.
#[async_trait]
pub trait ExternalCluster: Debug + Send + Sync {
    /// How often it is looked at.
    fn polling(&self) -> Polling;

    /// Whether jobs wait for their turn when the statement does not say.
    fn queues(&self) -> bool;

    /// Where it is reached.
    fn address(&self) -> String;

    /// How it is, now.
    async fn health(&self) -> Health;

    /// How a cluster is of which a look came to this error.
    fn condition_of(&self, error: &Error) -> Condition;

    /// A statement as the cluster's version takes it. What the version cannot do is 0A000 and names
    /// it.
    async fn render(&self, statement: &Statement) -> Result<String, Error>;

    /// Sends a statement that answers no rows, over a connection of its own.
    async fn send(&self, sql: &str) -> Result<(), SendError>;

    /// Whether the cluster still works on exactly this statement for somebody.
    async fn is_in_flight(&self, sql: &str) -> Result<bool, Error>;

    /// Every slot that can be seen in one look; those of these databases at least.
    async fn slots(&self, databases: &[DatabaseName]) -> Result<Vec<SeenSlot>, Error>;

    /// What one database's slot holds.
    async fn slot(&self, database: &DatabaseName) -> Result<Option<SeenSlot>, Error>;

    /// Its repositories, by name.
    async fn repositories(&self) -> Result<Vec<ExternalRepository>, Error>;

    /// The snapshots in a repository; of one label, or all.
    async fn snapshots(
        &self,
        repository: &str,
        label: Option<&str>,
    ) -> Result<Vec<ExternalSnapshot>, Error>;

    /// What one backup holds.
    async fn details(
        &self,
        repository: &str,
        label: &str,
        timestamp: &str,
    ) -> Result<ExternalDetails, Error>;

    /// The objects, as `db.name`, that a BACKUP should take which says this; as far as is known.
    async fn expected_objects(
        &self,
        database: &DatabaseName,
        said: Option<&[ObjectRef]>,
    ) -> Result<Vec<String>, Error>;

    /// What a BACKUP takes that says this: every object by its name, where it says none.
    async fn backed_up(
        &self,
        database: &DatabaseName,
        said: Option<&[ObjectRef]>,
    ) -> Result<BackedUp, Error>;

    /// Tables as they are now, with their definitions and partitions. One that is gone is left out.
    async fn contents(
        &self,
        database: &DatabaseName,
        tables: &[TableName],
    ) -> Result<Vec<TableContents>, Error>;

    /// What tells the cluster from others; `None` where it may not be asked.
    async fn cluster_id(&self) -> Result<Option<String>, Error>;

    /// What ADD PARTITION says to make these partitions of a table in another of its kind.
    async fn partition_lines(
        &self,
        database: &DatabaseName,
        table: &str,
        names: &[PartitionName],
    ) -> Result<Vec<String>, Error>;

    /// Whether the cluster makes and drops partitions of a table by itself.
    async fn has_dynamic_partitions(
        &self,
        database: &DatabaseName,
        table: &str,
    ) -> Result<bool, Error>;

    /// Whether its version can put partitions of several tables together (INSERT OVERWRITE).
    async fn puts_together(&self) -> Result<bool, Error>;

    /// The most snapshots that one may need beside itself.
    fn older_max(&self) -> usize;

    /// How many backends are alive.
    async fn backends_alive(&self) -> Result<u16, Error>;

    /// Rows of a system table.
    async fn native(&self, table: NativeTable, scope: &Scope) -> Result<Vec<Record>, Error>;

    /// The statement that changes a table.
    fn table_change(
        &self,
        database: &DatabaseName,
        change: TableChange<'_>,
    ) -> Result<String, Error>;

    /// The statement that makes a database, or drops it.
    fn database_change(
        &self,
        database: &DatabaseName,
        change: DatabaseChange,
    ) -> Result<String, Error>;

    /// What tells a table from every other: the ids of its partitions. `None`: there is no table of
    /// this name.
    async fn partition_ids(
        &self,
        database: &DatabaseName,
        table: &str,
    ) -> Result<Option<Vec<i64>>, Error>;

    /// How many rows a table has, or some of its partitions, by reading it.
    async fn count_rows(
        &self,
        database: &DatabaseName,
        table: &str,
        partitions: &[PartitionName],
    ) -> Result<u64, Error>;

    /// The same as [`Self::send`] of a statement that moves rows, which may take long.
    async fn send_long(&self, sql: &str) -> Result<(), SendError>;

    /// Carries out any text, in a database.
    async fn ask(&self, database: Option<&DatabaseName>, sql: &str) -> Result<Answer, Error>;
}
