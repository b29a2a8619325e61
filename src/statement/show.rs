//! `SHOW …` of StarRocks.

use super::ast::{Filter, JobKeyword, Partitions, Show, ShowStatement, Statement};
use super::filter::snapshot_predicate;
use super::lexer::Token;
use super::parser::Parser;
use crate::error::Error;
use crate::names::TabletId;

/// What StarRocks shows and the gateway does not.
const OF_STARROCKS_ALONE: [&str; 29] = [
    "ALTER MATERIALIZED VIEW",
    "ALTER TABLE",
    "CATALOGS",
    "CHARSET",
    "COLLATION",
    "CREATE CATALOG",
    "CREATE MATERIALIZED VIEW",
    "DATA",
    "DYNAMIC PARTITION",
    "ENGINES",
    "EVENTS",
    "FULL COLUMNS",
    "FULL TABLES",
    "FULL FUNCTIONS",
    "FULL PROCESSLIST",
    "FUNCTIONS",
    "INDEX",
    "INDEXES",
    "KEYS",
    "LOAD",
    "MATERIALIZED VIEWS",
    "PROC",
    "PROCESSLIST",
    "ROUTINE LOAD",
    "STATUS",
    "TRIGGERS",
    "USERS",
    "VARIABLES",
    "WARNINGS",
];

impl Parser<'_> {
    pub(super) fn show(&mut self) -> Result<Statement, Error> {
        let (show, filter) = self.shown()?;
        Ok(Statement::Show(Box::new(ShowStatement { show, filter })))
    }

    fn shown(&mut self) -> Result<(Show, Filter), Error> {
        let plain = |show: Show| Ok((show, Filter::default()));
        if self.eat_any(&["DATABASES", "SCHEMAS"]) {
            return Ok((Show::Databases, self.like_or_filter("Database")?));
        }
        if self.eat("TABLES") {
            let database = self.optional_database()?;
            return Ok((Show::Tables(database), self.like_or_filter("Table")?));
        }
        if self.eat("CREATE TABLE") {
            return plain(Show::CreateTable(self.qualified("a table name")?));
        }
        if self.eat("CREATE VIEW") {
            return plain(Show::CreateView(self.qualified("a view name")?));
        }
        if self.eat("COLUMNS") {
            if !self.eat_any(&["FROM", "IN"]) {
                return Err(self.unexpected("FROM"));
            }
            return plain(Show::Columns(self.qualified("a table name")?));
        }
        let temporary = self.is_word("TEMPORARY");
        if self.eat("TEMPORARY PARTITIONS FROM") || self.eat("PARTITIONS FROM") {
            let table = self.qualified("a table name")?;
            return Ok((Show::Partitions { table, temporary }, self.filter()?));
        }
        if self.eat_any(&["TABLETS", "TABLET"]) {
            return self.show_tablet();
        }
        if self.eat("FRONTENDS") {
            return plain(Show::Frontends);
        }
        if self.eat("BACKENDS") {
            return plain(Show::Backends);
        }
        if self.eat("BROKER") {
            return plain(Show::Brokers);
        }
        if self.eat("REPOSITORIES") {
            return plain(Show::Repositories);
        }
        if self.eat("ROLES") {
            return plain(Show::Roles);
        }
        if self.eat("CLUSTERS") {
            return plain(Show::Clusters);
        }
        if self.eat("GRANTS") {
            let grantee = if self.eat("FOR") {
                Some(self.grantee()?)
            } else {
                None
            };
            return plain(Show::Grants(grantee));
        }
        if self.eat("SNAPSHOT") {
            return self.show_snapshot();
        }
        for words in OF_STARROCKS_ALONE {
            let at = self.offset();
            if self.eat(words) {
                return Err(Error::unsupported(format_args!("SHOW {words}")).at(at));
            }
        }
        let all = self.eat("ALL");
        let kind = match self.job_keyword() {
            Ok(kind) => kind,
            Err(_) => return Err(self.unexpected("something that SHOW shows")),
        };
        let database = self.optional_database()?;
        let filter = if kind == JobKeyword::Restore {
            self.like_or_filter("Label")?
        } else {
            self.filter()?
        };
        Ok((
            Show::Jobs {
                kind,
                all,
                database,
            },
            filter,
        ))
    }

    fn show_tablet(&mut self) -> Result<(Show, Filter), Error> {
        if matches!(self.peek(), Some(Token::Number(_))) {
            let fault = self.unexpected("a tablet id");
            let id = i64::try_from(self.number("a tablet id")?).map_err(|_| fault)?;
            return Ok((Show::Tablet(TabletId(id)), Filter::default()));
        }
        self.expect("FROM")?;
        let table = self.qualified("a table name")?;
        let at = self.offset();
        let partitions = self.partitions()?;
        if matches!(partitions, Partitions::Keyed(_)) {
            self.refuse(Error::unsupported("PARTITION (column = value)").at(at));
        }
        Ok((Show::Tablets { table, partitions }, self.filter()?))
    }

    fn show_snapshot(&mut self) -> Result<(Show, Filter), Error> {
        self.expect("ON")?;
        let repository = self.repository("Repository [] does not exist")?;
        let at = self.offset();
        let filter = self.like_or_filter("Snapshot")?;
        let details = match filter
            .predicate
            .as_ref()
            .map(snapshot_predicate)
            .transpose()
        {
            Ok(details) => details.flatten(),
            Err(refusal) => {
                self.refuse(refusal.at(at));
                None
            }
        };
        let show = match details {
            Some(exact) => Show::SnapshotDetails { repository, exact },
            None => Show::Snapshots(repository),
        };
        Ok((show, filter))
    }
}

impl Show {
    /// The name of the file in `sql/show/` that answers it.
    pub fn query_name(&self) -> &'static str {
        match self {
            Self::Databases => "databases",
            Self::Tables(_) => "tables",
            Self::CreateTable(_) => "create_table",
            Self::CreateView(_) => "create_view",
            Self::Columns(_) => "columns",
            Self::Partitions { .. } => "partitions",
            Self::Tablets { .. } => "tablets",
            Self::Tablet(_) => "tablet",
            Self::Frontends => "frontends",
            Self::Backends => "backends",
            Self::Brokers => "brokers",
            Self::Repositories => "repositories",
            Self::Roles => "roles",
            Self::Clusters => "clusters",
            Self::Grants(_) => "grants",
            Self::Jobs {
                kind: JobKeyword::Backup,
                all: false,
                ..
            } => "backup",
            Self::Jobs {
                kind: JobKeyword::Backup,
                all: true,
                ..
            } => "all_backup",
            Self::Jobs {
                kind: JobKeyword::Restore,
                all: false,
                ..
            } => "restore",
            Self::Jobs {
                kind: JobKeyword::Restore,
                all: true,
                ..
            } => "all_restore",
            Self::Snapshots(_) => "snapshots",
            Self::SnapshotDetails { .. } => "snapshot_details",
        }
    }
}
