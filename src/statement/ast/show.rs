//! SHOW, as values.

use datafusion::sql::sqlparser::ast as sql;

use super::{JobKeyword, Partitions, Qualified};
use crate::names::{DatabaseName, RepositoryName, TableName, TabletId};
use crate::privilege::Grantee;

/// `WHERE … ORDER BY … LIMIT …` over the columns that a SHOW answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `WHERE`; names are matched without regard to case, and double-quoted texts are strings.
    pub predicate: Option<sql::Expr>,
    pub order_by: Vec<OrderBy>,
    pub limit: Option<u64>,
    pub offset: u64,
}

/// One item of ORDER BY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBy {
    /// What is compared.
    pub expr: sql::Expr,
    /// `DESC`
    pub descending: bool,
    /// `NULLS FIRST | LAST`; StarRocks puts NULL first, or last with DESC.
    pub nulls_first: Option<bool>,
}

/// A SHOW with its filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShowStatement {
    /// What is shown.
    pub show: Show,
    /// Which of it, and in which order.
    pub filter: Filter,
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
    /// `SHOW CREATE VIEW v`
    CreateView(Qualified<TableName>),
    /// `DESC t`
    Columns(Qualified<TableName>),
    /// `SHOW [TEMPORARY] PARTITIONS FROM t`
    Partitions {
        table: Qualified<TableName>,
        temporary: bool,
    },
    /// `SHOW TABLET FROM t [PARTITION (…)]`
    Tablets {
        table: Qualified<TableName>,
        partitions: Partitions,
    },
    /// `SHOW TABLET id`
    Tablet(TabletId),
    /// `SHOW FRONTENDS`
    Frontends,
    /// `SHOW BACKENDS`
    Backends,
    /// `SHOW BROKER`
    Brokers,
    /// `SHOW REPOSITORIES`
    Repositories,
    /// `SHOW ROLES`
    Roles,
    /// `SHOW CLUSTERS`
    Clusters,
    /// `SHOW GRANTS [FOR …]`; `None` is the session's user.
    Grants(Option<Grantee>),
    /// `SHOW [ALL] BACKUP | RESTORE [FROM db]`
    Jobs {
        kind: JobKeyword,
        /// `ALL`: every job ever, not the latest of each database.
        all: bool,
        /// Only of this database.
        database: Option<DatabaseName>,
    },
    /// `SHOW SNAPSHOT ON repository`: one row a label
    Snapshots(RepositoryName),
    /// `SHOW SNAPSHOT ON repository WHERE SNAPSHOT … AND TIMESTAMP …`: one row a backup, with its
    /// details
    SnapshotDetails {
        repository: RepositoryName,
        /// The label and timestamp that an equality names: if there is no such backup, a row says
        /// so.
        exact: Option<(String, String)>,
    },
}
