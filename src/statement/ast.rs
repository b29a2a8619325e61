//! The statements, as values.

mod session;
mod show;

use std::fmt;

use datafusion::sql::sqlparser::ast as sql;

pub use self::session::*;
pub use self::show::{Filter, OrderBy, Show, ShowStatement};
use super::properties::Properties;
use crate::job::{Pace, VerifyLevel};
use crate::names::{
    BrokerName, ClusterName, DatabaseName, JobId, PartitionName, RepositoryName, RoleName,
    SnapshotLabel, TableName, Ttl, UserName,
};
use crate::privilege::{Grant, Grantee};
use crate::schema::{PartitionDef, TableSchema, ViewDefinition};

/// One statement, parsed.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// Nothing but comments and blanks.
    Empty,
    Backup(BackupSnapshot),
    Restore(RestoreSnapshot),
    /// `CANCEL BACKUP | RESTORE`
    Cancel(CancelJob),
    CreateRepository(CreateRepository),
    DropRepository(RepositoryName),
    DropSnapshot(DropSnapshot),
    CancelJob {
        id: JobId,
        /// Gives it up even where nobody can know its end.
        force: bool,
    },
    AlterRepository(AlterRepository),
    /// `PAUSE JOB | RESUME JOB | ALTER JOB … SET (…)`
    ControlJob {
        id: JobId,
        control: JobControl,
    },
    /// `VERIFY SNAPSHOT | REPOSITORY`
    Verify(Verify),
    /// `PRUNE REPOSITORY`
    Prune(Prune),
    /// `IMPORT HISTORY FROM REPOSITORY`
    ImportHistory(RepositoryName),
    /// `WAIT FOR JOB`
    WaitForJob(WaitForJob),
    /// `EXPLAIN BACKUP | RESTORE | DROP SNAPSHOT | PRUNE | VERIFY`: one of those statements.
    ExplainJob(Box<Statement>),
    /// `CREATE | ALTER | DROP CLUSTER`
    Cluster(ClusterCommand),
    /// A text that is handed to a StarRocks cluster as it is: what nothing here reads, where the
    /// session allows that.
    Raw(String),
    /// `RECOVER DATABASE | TABLE | PARTITION`
    Recover(Recover),
    /// A change of the cluster's catalog.
    Define(Definition),
    /// A change of the gateway's users.
    User(UserCommand),
    /// A question answered by a file in `sql/show/`.
    Show(Box<ShowStatement>),
    /// A change of the session itself.
    Session(SessionCommand),
    /// `COPY … FROM`
    Copy(CopyFrom),
    /// `COPY … TO STDOUT`
    CopyTo(CopyTo),
    /// Everything else: DataFusion's.
    Sql(Box<sql::Statement>),
}

/// A name that may say its database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Qualified<N> {
    /// The database; `None` means the session's current one.
    pub database: Option<DatabaseName>,
    /// The name inside it.
    pub name: N,
}

/// Which of the two kinds of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKeyword {
    Backup,
    Restore,
}

impl fmt::Display for JobKeyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "BACKUP",
            Self::Restore => "RESTORE",
        })
    }
}

/// `PARTITION …` after a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Partitions {
    /// Nothing said: all of them.
    #[default]
    All,
    /// `[TEMPORARY] PARTITION (p, …)`, at least one.
    Named {
        temporary: bool,
        names: Vec<PartitionName>,
    },
    /// `PARTITION (column = value, …)`: StarRocks 3.0 and later read it, and no backup takes it.
    Keyed(Vec<(String, Box<sql::Expr>)>),
}

/// A table in an `ON (…)` clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRef {
    /// The table, perhaps with its database.
    pub table: Qualified<TableName>,
    pub partitions: Partitions,
    /// `AS alias` (RESTORE only).
    pub alias: Option<TableName>,
}

/// The kinds of object that a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    Table,
    View,
    MaterializedView,
    Function,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "TABLE",
            Self::View => "VIEW",
            Self::MaterializedView => "MATERIALIZED VIEW",
            Self::Function => "FUNCTION",
        })
    }
}

/// One entry of an `ON (…)` clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectRef {
    /// `t …`: a table or a view of that name.
    Untyped(TableRef),
    /// `TABLE t …`
    Table(TableRef),
    /// `VIEW v`, `MATERIALIZED VIEW mv`, `FUNCTION f`
    Named {
        /// Not a table.
        kind: ObjectKind,
        /// Its name, perhaps with its database.
        name: Qualified<TableName>,
        /// `AS alias` (RESTORE only).
        alias: Option<TableName>,
    },
    /// `ALL TABLES`, `ALL VIEWS` …
    All(ObjectKind),
}

/// `[ALL] EXTERNAL CATALOG[S] …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalCatalogs {
    /// `ALL EXTERNAL CATALOGS`
    All,
    /// `EXTERNAL CATALOGS (c [AS alias], …)`, at least one.
    Named(Vec<(String, Option<String>)>),
}

/// `BACKUP [catalogs] [DATABASE db] SNAPSHOT [db.]label TO repository [ON (…)] [PROPERTIES (…)]`
#[derive(Clone, Debug, PartialEq)]
pub struct BackupSnapshot {
    /// Set instead of a database.
    pub catalogs: Option<ExternalCatalogs>,
    /// The new snapshot, and the database that goes into it: from the label or from `DATABASE db`.
    pub label: Qualified<SnapshotLabel>,
    /// Where it goes.
    pub repository: RepositoryName,
    /// What goes into it; `None` means everything in the database.
    pub objects: Option<Vec<ObjectRef>>,
    /// As given.
    pub properties: Properties,
}

/// `RESTORE SNAPSHOT [db.]label FROM repository [catalogs] [DATABASE db [AS alias]] [ON (…)]
/// PROPERTIES (…)`
#[derive(Clone, Debug, PartialEq)]
pub struct RestoreSnapshot {
    /// The snapshot, and the database to restore into.
    pub label: Qualified<SnapshotLabel>,
    pub repository: RepositoryName,
    /// `ON CLUSTER other`: into that one, of a repository that both know.
    pub cluster: Option<ClusterName>,
    /// Set instead of a database.
    pub catalogs: Option<ExternalCatalogs>,
    /// `DATABASE db [AS alias]`: the database in the snapshot, and the one to restore into.
    pub database: Option<(DatabaseName, Option<DatabaseName>)>,
    /// What is taken out of it; `None` means everything.
    pub objects: Option<Vec<ObjectRef>>,
    /// As given.
    pub properties: Properties,
}

/// Of which jobs a CANCEL speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelScope {
    /// Nothing said: the current database's.
    Current,
    /// `FROM db`
    Database(DatabaseName),
    ExternalCatalog,
}

/// `CANCEL BACKUP | RESTORE [FROM db | FOR EXTERNAL CATALOG]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelJob {
    pub kind: JobKeyword,
    pub scope: CancelScope,
}

/// `DROP SNAPSHOT label ON repository [FORCE]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSnapshot {
    pub label: SnapshotLabel,
    pub repository: RepositoryName,
    /// `FORCE`: whoever made it.
    pub force: bool,
}

/// `ALTER REPOSITORY name SET PROPERTIES (…)`
#[derive(Clone, Debug, PartialEq)]
pub struct AlterRepository {
    pub name: RepositoryName,
    /// Its storage properties from now on; they take the place of all that were there.
    pub properties: Properties,
}

/// A change of the gateway's clusters.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterCommand {
    /// `CREATE CLUSTER name PROPERTIES (…)`
    Create {
        /// Its name, and that of the PostgreSQL database.
        name: ClusterName,
        if_not_exists: bool,
        /// What it is and how it is reached.
        properties: Properties,
    },
    /// `ALTER CLUSTER name SET (…)`
    Alter {
        name: ClusterName,
        /// Put over what was there; an empty value takes one away.
        properties: Properties,
    },
    /// `DROP CLUSTER name [FORCE]`
    Drop {
        name: ClusterName,
        if_exists: bool,
        /// `FORCE`: its unfinished jobs are given up.
        force: bool,
    },
}

/// `RECOVER …`: StarRocks brings back what DROP took. Read, and refused by clusters that cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recover {
    /// `RECOVER DATABASE db`
    Database(DatabaseName),
    /// `RECOVER TABLE [db.]t`
    Table(Qualified<TableName>),
    /// `RECOVER PARTITION p FROM [db.]t`
    Partition(PartitionName, Qualified<TableName>),
}

/// `CREATE [READ ONLY] REPOSITORY name WITH BROKER [broker] ON LOCATION '…' [PROPERTIES (…)]`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateRepository {
    /// Its name, also in the object paths.
    pub name: RepositoryName,
    /// Whether BACKUP into it is forbidden.
    pub read_only: bool,
    /// The broker, kept for show.
    pub broker: Option<BrokerName>,
    /// A URL or an absolute path.
    pub location: String,
    /// Storage properties, secrets among them.
    pub properties: Properties,
}

/// A change of a cluster's catalog. The session fills in the database before a cluster sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum Definition {
    CreateDatabase {
        name: DatabaseName,
        if_not_exists: bool,
    },
    DropDatabase {
        name: DatabaseName,
        if_exists: bool,
    },
    CreateTable {
        table: Qualified<TableName>,
        /// Its definition, validated.
        schema: Box<TableSchema>,
        /// Its first partitions.
        partitions: Vec<PartitionDef>,
        if_not_exists: bool,
    },
    DropTable {
        table: Qualified<TableName>,
        if_exists: bool,
    },
    /// `CREATE [OR REPLACE] VIEW`
    CreateView {
        view: Qualified<TableName>,
        definition: Box<ViewDefinition>,
        or_replace: bool,
        if_not_exists: bool,
    },
    DropView {
        view: Qualified<TableName>,
        if_exists: bool,
    },
    /// `TRUNCATE TABLE t [PARTITION (…)]`
    TruncateTable {
        table: Qualified<TableName>,
        /// Only these; empty means all.
        partitions: Vec<PartitionName>,
    },
    /// `ALTER TABLE t ADD PARTITION …`; the bounds are text until the table's types are known.
    AddPartition {
        table: Qualified<TableName>,
        /// The new partitions.
        partitions: Vec<PartitionText>,
        if_not_exists: bool,
    },
    /// `ALTER TABLE t DROP PARTITION p`
    DropPartition {
        table: Qualified<TableName>,
        partition: PartitionName,
        if_exists: bool,
    },
    /// `ALTER SYSTEM ADD BROKER`
    AddBroker {
        name: BrokerName,
        /// `host:port` of its processes.
        hosts: Vec<String>,
    },
    /// `ALTER SYSTEM DROP [ALL] BROKER`
    DropBroker {
        name: BrokerName,
        /// Which of its processes; empty means ALL.
        hosts: Vec<String>,
    },
}

/// A partition whose literals are not read yet: `CREATE TABLE` reads them at once, `ALTER TABLE`
/// when the table is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionText {
    /// `PARTITION name VALUES …`
    One {
        name: PartitionName,
        /// Its bounds.
        values: ValuesText,
    },
    /// `START ("…") END ("…") EVERY (…)`
    Every {
        /// Where the first begins.
        start: String,
        /// Where the last ends.
        end: String,
        /// The width of each.
        step: crate::schema::RangeStep,
    },
}

/// The `VALUES …` of a partition, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValuesText {
    /// `LESS THAN (…)`; `None` is MAXVALUE.
    LessThan(Option<String>),
    /// `[(…), (…))`; `None` is MINVALUE below and MAXVALUE above.
    Between(Option<String>, Option<String>),
    /// `IN (…)`
    In(Vec<Vec<Option<String>>>),
}

/// A change of the gateway's users.
#[derive(Clone, PartialEq, Eq)]
pub enum UserCommand {
    /// `CREATE USER u [IDENTIFIED BY '…']`
    Create {
        name: UserName,
        /// The password; without one the user logs in from loopback only.
        password: Option<String>,
        if_not_exists: bool,
    },
    /// `ALTER USER u IDENTIFIED BY '…'`
    Alter {
        name: UserName,
        /// The new password.
        password: String,
    },
    /// `DROP USER u`
    Drop { name: UserName, if_exists: bool },
    /// `GRANT ADMIN TO u`
    GrantAdmin(UserName),
    /// `REVOKE ADMIN FROM u`
    RevokeAdmin(UserName),
    /// `CREATE ROLE r, …`
    CreateRole {
        names: Vec<RoleName>,
        if_not_exists: bool,
    },
    /// `DROP ROLE r, …`
    DropRole {
        names: Vec<RoleName>,
        if_exists: bool,
    },
    /// `GRANT … TO …`. A database that is not named is the session's current one.
    Grant(Vec<Grant>, Grantee),
    /// `REVOKE … FROM …`
    Revoke(Vec<Grant>, Grantee),
}

// By hand: a password must not reach a log.
impl fmt::Debug for UserCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { name, .. } => f.debug_tuple("Create").field(name).finish(),
            Self::Alter { name, .. } => f.debug_tuple("Alter").field(name).finish(),
            Self::Drop { name, .. } => f.debug_tuple("Drop").field(name).finish(),
            Self::GrantAdmin(name) => f.debug_tuple("GrantAdmin").field(name).finish(),
            Self::RevokeAdmin(name) => f.debug_tuple("RevokeAdmin").field(name).finish(),
            Self::CreateRole { names, .. } => f.debug_tuple("CreateRole").field(names).finish(),
            Self::DropRole { names, .. } => f.debug_tuple("DropRole").field(names).finish(),
            Self::Grant(grants, grantee) => {
                f.debug_tuple("Grant").field(grants).field(grantee).finish()
            }
            Self::Revoke(grants, grantee) => f
                .debug_tuple("Revoke")
                .field(grants)
                .field(grantee)
                .finish(),
        }
    }
}

/// `VERIFY SNAPSHOT label ON repository | REPOSITORY repository [LEVEL FILES | CHECKSUM | RESTORE]
/// [PROPERTIES ("sample" = "10%")]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    pub repository: RepositoryName,
    /// One snapshot; nothing means the whole repository.
    pub label: Option<SnapshotLabel>,
    pub level: VerifyLevel,
    /// How many of ten thousand files are read.
    pub sample: u32,
    /// The bytes that it may read in a second.
    pub max_bytes_per_second: Option<u64>,
}

/// What is said to a job that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobControl {
    Pause,
    Resume,
    /// `ALTER JOB number SET ("max_bytes_per_second" = "…")`
    Pace(Pace),
}

/// `WAIT FOR JOB number [TIMEOUT seconds]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForJob {
    pub id: JobId,
    pub timeout_seconds: Option<u64>,
}

/// `PRUNE REPOSITORY repository [DRY RUN] [PROPERTIES ("grace" = "1 DAY", "wait" = "10 MINUTE")]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prune {
    pub repository: RepositoryName,
    pub dry_run: bool,
    /// What was written later than so long ago stays.
    pub grace: Option<Ttl>,
    /// How long other gateways are given to see what is to go.
    pub wait: Option<Ttl>,
}
