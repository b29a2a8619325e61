//! The statements, as values.

use std::fmt;

use datafusion::sql::sqlparser::ast as sql;

use super::properties::Properties;
use crate::names::{BrokerName, DatabaseName, PartitionName, RepositoryName, SnapshotLabel, TableName, UserName};
use crate::schema::{PartitionDef, TableSchema};

/// One statement, parsed.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// Nothing but comments and blanks.
    Empty,
    /// `BACKUP SNAPSHOT`
    Backup(BackupSnapshot),
    /// `RESTORE SNAPSHOT`
    Restore(RestoreSnapshot),
    /// `CANCEL BACKUP | RESTORE`
    Cancel(CancelJob),
    /// `CREATE REPOSITORY`
    CreateRepository(CreateRepository),
    /// `DROP REPOSITORY`
    DropRepository(RepositoryName),
    /// A change of the cluster's catalog.
    Define(Definition),
    /// A change of the gateway's users.
    User(UserCommand),
    /// A question answered by a file in `sql/show/`.
    Show(Show),
    /// A change of the session itself.
    Session(SessionCommand),
    /// `COPY … FROM`
    Copy(CopyFrom),
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
    /// BACKUP
    Backup,
    /// RESTORE
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

/// A table in an `ON (…)` clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRef {
    /// The table, perhaps with its database.
    pub table: Qualified<TableName>,
    /// `PARTITION (…)`; empty means all.
    pub partitions: Vec<PartitionName>,
    /// `AS alias` (RESTORE only).
    pub alias: Option<TableName>,
}

/// `BACKUP SNAPSHOT [db.]label TO repository [ON (…)] [PROPERTIES (…)]`
#[derive(Clone, Debug, PartialEq)]
pub struct BackupSnapshot {
    /// The new snapshot.
    pub label: Qualified<SnapshotLabel>,
    /// Where it goes.
    pub repository: RepositoryName,
    /// What goes into it; `None` means every table of the database.
    pub tables: Option<Vec<TableRef>>,
    /// As given.
    pub properties: Properties,
}

/// `RESTORE SNAPSHOT [db.]label FROM repository [ON (…)] PROPERTIES (…)`
#[derive(Clone, Debug, PartialEq)]
pub struct RestoreSnapshot {
    /// The snapshot, and the database to restore into.
    pub label: Qualified<SnapshotLabel>,
    /// Where it is.
    pub repository: RepositoryName,
    /// What is taken out of it; `None` means everything.
    pub tables: Option<Vec<TableRef>>,
    /// As given.
    pub properties: Properties,
}

/// `CANCEL BACKUP | RESTORE [FROM db]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelJob {
    /// Which kind.
    pub kind: JobKeyword,
    /// Of which database; `None` means the current one.
    pub database: Option<DatabaseName>,
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
    /// `CREATE DATABASE`
    CreateDatabase {
        /// Its name.
        name: DatabaseName,
        /// `IF NOT EXISTS`
        if_not_exists: bool,
    },
    /// `DROP DATABASE`
    DropDatabase {
        /// Its name.
        name: DatabaseName,
        /// `IF EXISTS`
        if_exists: bool,
    },
    /// `CREATE TABLE`
    CreateTable {
        /// Its name.
        table: Qualified<TableName>,
        /// Its definition, validated.
        schema: Box<TableSchema>,
        /// Its first partitions.
        partitions: Vec<PartitionDef>,
        /// `IF NOT EXISTS`
        if_not_exists: bool,
    },
    /// `DROP TABLE`
    DropTable {
        /// Its name.
        table: Qualified<TableName>,
        /// `IF EXISTS`
        if_exists: bool,
    },
    /// `TRUNCATE TABLE t [PARTITION (…)]`
    TruncateTable {
        /// Its name.
        table: Qualified<TableName>,
        /// Only these; empty means all.
        partitions: Vec<PartitionName>,
    },
    /// `ALTER TABLE t ADD PARTITION …`; the bounds are text until the table's types are known.
    AddPartition {
        /// The table.
        table: Qualified<TableName>,
        /// The new partitions.
        partitions: Vec<PartitionText>,
        /// `IF NOT EXISTS`
        if_not_exists: bool,
    },
    /// `ALTER TABLE t DROP PARTITION p`
    DropPartition {
        /// The table.
        table: Qualified<TableName>,
        /// The partition.
        partition: PartitionName,
        /// `IF EXISTS`
        if_exists: bool,
    },
    /// `ALTER SYSTEM ADD BROKER`
    AddBroker {
        /// Its name.
        name: BrokerName,
        /// `host:port` of its processes.
        hosts: Vec<String>,
    },
    /// `ALTER SYSTEM DROP [ALL] BROKER`
    DropBroker {
        /// Its name.
        name: BrokerName,
        /// Which of its processes; empty means ALL.
        hosts: Vec<String>,
    },
}

/// A partition whose literals are not read yet: `CREATE TABLE` reads them at once, `ALTER TABLE` when the table is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionText {
    /// `PARTITION name VALUES …`
    One {
        /// Its name.
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
        /// The user.
        name: UserName,
        /// The password; without one the user logs in from loopback only.
        password: Option<String>,
        /// `IF NOT EXISTS`
        if_not_exists: bool,
    },
    /// `ALTER USER u IDENTIFIED BY '…'`
    Alter {
        /// The user.
        name: UserName,
        /// The new password.
        password: String,
    },
    /// `DROP USER u`
    Drop {
        /// The user.
        name: UserName,
        /// `IF EXISTS`
        if_exists: bool,
    },
    /// `GRANT ADMIN TO u`
    GrantAdmin(UserName),
    /// `REVOKE ADMIN FROM u`
    RevokeAdmin(UserName),
}

// By hand: a password must not reach a log.
impl fmt::Debug for UserCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name) = match self {
            Self::Create { name, .. } => ("Create", name),
            Self::Alter { name, .. } => ("Alter", name),
            Self::Drop { name, .. } => ("Drop", name),
            Self::GrantAdmin(name) => ("GrantAdmin", name),
            Self::RevokeAdmin(name) => ("RevokeAdmin", name),
        };
        f.debug_tuple(what).field(name).finish()
    }
}

/// A question answered by a query over `system.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// `SHOW DATABASES`
    Databases,
    /// `SHOW TABLES [FROM db]`
    Tables(Option<DatabaseName>),
    /// `SHOW CREATE TABLE t`
    CreateTable(Qualified<TableName>),
    /// `DESC t`
    Columns(Qualified<TableName>),
    /// `SHOW PARTITIONS FROM t`
    Partitions(Qualified<TableName>),
    /// `SHOW TABLET FROM t`
    Tablets(Qualified<TableName>),
    /// `SHOW FRONTENDS`
    Frontends,
    /// `SHOW BACKENDS`
    Backends,
    /// `SHOW BROKER`
    Brokers,
    /// `SHOW REPOSITORIES`
    Repositories,
    /// `SHOW [ALL] BACKUP | RESTORE [FROM db]`
    Jobs {
        /// Which kind.
        kind: JobKeyword,
        /// `ALL`: every job ever, not the latest of each database.
        all: bool,
        /// Only of this database.
        database: Option<DatabaseName>,
    },
    /// `SHOW SNAPSHOT ON repository [WHERE …]`
    Snapshots {
        /// The repository.
        repository: RepositoryName,
        /// `SNAPSHOT = '…'` or `SNAPSHOT IN (…)`; empty means all.
        labels: Vec<String>,
        /// `TIMESTAMP = '…'`: with a single label, the detailed form.
        timestamp: Option<String>,
    },
}

/// A change of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCommand {
    /// `USE db`
    Use(DatabaseName),
    /// `SET [SESSION | LOCAL] name = value`; no value means DEFAULT.
    Set {
        /// The setting, folded to lower case.
        name: String,
        /// Its values as text; lists have several.
        value: Option<Vec<String>>,
        /// `LOCAL`: until the end of the block.
        local: bool,
    },
    /// `SHOW name`
    ShowSetting(String),
    /// `SHOW ALL`
    ShowAllSettings,
    /// `RESET name`
    Reset(String),
    /// `RESET ALL`
    ResetAll,
    /// `BEGIN`, `START TRANSACTION`
    Begin,
    /// `COMMIT`, `END`
    Commit,
    /// `ROLLBACK`, `ABORT`
    Rollback,
    /// `SAVEPOINT name`
    Savepoint(String),
    /// `RELEASE [SAVEPOINT] name`
    Release(String),
    /// `ROLLBACK TO [SAVEPOINT] name`
    RollbackTo(String),
    /// `DISCARD ALL`
    DiscardAll,
    /// `DEALLOCATE name`
    Deallocate(String),
    /// `DEALLOCATE ALL`
    DeallocateAll,
    /// Accepted because clients send it, without effect: SET TRANSACTION, CLOSE ALL, UNLISTEN, DISCARD PLANS. Holds the command tag.
    Accepted(&'static str),
}

/// `COPY table [(columns)] FROM STDIN | 'url' [options]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFrom {
    /// The table.
    pub table: Qualified<TableName>,
    /// The columns the data has; empty means all, in order.
    pub columns: Vec<String>,
    /// `None` is STDIN.
    pub location: Option<String>,
    /// How the data is written.
    pub format: CopyFormat,
}

/// How COPY data is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's text format.
    Text {
        /// Between columns.
        delimiter: u8,
        /// What stands for NULL.
        null: String,
    },
    /// CSV.
    Csv {
        /// Between columns.
        delimiter: u8,
        /// Around values.
        quote: u8,
        /// Before a quote inside a quoted value.
        escape: u8,
        /// What stands for NULL, unquoted.
        null: String,
        /// Whether the first line is names.
        header: bool,
    },
    /// PostgreSQL's binary format.
    Binary,
    /// Apache Parquet (from a URL only).
    Parquet,
}
