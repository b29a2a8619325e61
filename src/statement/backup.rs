//! BACKUP, RESTORE, CANCEL, RECOVER, repositories and snapshots: the union of StarRocks' grammars
//! from 2.1 to 4.2.
//!
//! What some version's grammar reads is read here. What its next step refuses before any name is
//! looked up (an alias in BACKUP, a database said twice) is refused here too, under another
//! SQLSTATE than a syntax error.

use datafusion::sql::sqlparser::parser::Parser as SqlParser;
use datafusion::sql::sqlparser::tokenizer::Token as SqlToken;

use super::ast::*;
use super::dialect::mysql;
use super::lexer::{Quote, Token};
use super::parser::Parser;
use crate::error::{Error, ErrorKind};
use crate::names::{
    BrokerName, DatabaseName, PartitionName, RepositoryName, SnapshotLabel, TableName,
};

const DATABASE_TWICE: &str = "Specifying dbName before snapshot name is forbidden if the DbName is specified explicitly in BACKUP/RESTORE";
const CATALOG_AND_DATABASE: &str =
    "Can not sepcify database name for external catalog Backup/Restore";
const CATALOG_AND_OBJECTS: &str = "Can not sepcify `ON` clause for external catalog Backup/Restore";

fn illegal(message: &str, at: usize) -> Error {
    Error::new(ErrorKind::IllegalClause, message).at(at)
}

impl Parser<'_> {
    pub(super) fn backup(&mut self) -> Result<BackupSnapshot, Error> {
        let catalogs_at = self.offset();
        let catalogs = self.external_catalogs(JobKeyword::Backup)?;
        let database = if self.eat("DATABASE") {
            Some(self.named::<DatabaseName>("a database name")?)
        } else {
            None
        };
        self.expect("SNAPSHOT")?;
        let label_at = self.offset();
        let mut label = self.qualified::<SnapshotLabel>("a snapshot label")?;
        self.expect("TO")?;
        let repository = self.repository("Repository is empty")?;
        let objects_at = self.offset();
        let objects = self.objects(JobKeyword::Backup)?;
        let properties = self.properties()?;
        if label.database.is_some() && database.is_some() {
            self.refuse(illegal(DATABASE_TWICE, label_at));
        }
        label.database = label.database.or(database);
        if catalogs.is_some() {
            self.check_catalogs(
                catalogs_at,
                label.database.is_some(),
                objects.as_ref().map(|_| objects_at),
            );
        }
        Ok(BackupSnapshot {
            catalogs,
            label,
            repository,
            objects,
            properties,
        })
    }

    pub(super) fn restore(&mut self) -> Result<RestoreSnapshot, Error> {
        self.expect("SNAPSHOT")?;
        let label_at = self.offset();
        let label = self.qualified::<SnapshotLabel>("a snapshot label")?;
        self.expect("FROM")?;
        let repository = self.repository("Repository is empty")?;
        let cluster = match self.eat("ON CLUSTER") {
            true => Some(self.named("a cluster name")?),
            false => None,
        };
        let catalogs_at = self.offset();
        let catalogs = self.external_catalogs(JobKeyword::Restore)?;
        let database = if self.eat("DATABASE") {
            let database = self.named::<DatabaseName>("a database name")?;
            Some((
                database,
                if self.eat("AS") {
                    Some(self.named("a database name")?)
                } else {
                    None
                },
            ))
        } else {
            None
        };
        let objects_at = self.offset();
        let objects = self.objects(JobKeyword::Restore)?;
        let properties = self.properties()?;
        if label.database.is_some() && database.is_some() {
            self.refuse(illegal(DATABASE_TWICE, label_at));
        }
        if catalogs.is_some() {
            let has_database = label.database.is_some() || database.is_some();
            self.check_catalogs(
                catalogs_at,
                has_database,
                objects.as_ref().map(|_| objects_at),
            );
        }
        Ok(RestoreSnapshot {
            label,
            repository,
            cluster,
            catalogs,
            database,
            objects,
            properties,
        })
    }

    fn check_catalogs(&mut self, at: usize, has_database: bool, objects_at: Option<usize>) {
        if has_database {
            self.refuse(illegal(CATALOG_AND_DATABASE, at));
        }
        if let Some(at) = objects_at {
            self.refuse(illegal(CATALOG_AND_OBJECTS, at));
        }
    }

    /// `ALL EXTERNAL CATALOGS` or `EXTERNAL CATALOG[S] (c, …)`, if it comes next.
    fn external_catalogs(&mut self, kind: JobKeyword) -> Result<Option<ExternalCatalogs>, Error> {
        if self.eat("ALL") {
            self.expect("EXTERNAL CATALOGS")?;
            return Ok(Some(ExternalCatalogs::All));
        }
        if !self.eat("EXTERNAL") {
            return Ok(None);
        }
        if !self.eat_any(&["CATALOGS", "CATALOG"]) {
            return Err(self.unexpected("CATALOGS"));
        }
        let named = self.list(|p| {
            let (name, _) = p.name("a catalog name")?;
            let alias = if kind == JobKeyword::Restore && p.eat("AS") {
                Some(p.name("a catalog name")?.0)
            } else {
                None
            };
            Ok((name, alias))
        })?;
        Ok(Some(ExternalCatalogs::Named(named)))
    }

    fn objects(&mut self, kind: JobKeyword) -> Result<Option<Vec<ObjectRef>>, Error> {
        if self.eat("ON") {
            self.list(|p| p.object(kind)).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Takes `FUNCTION`, `VIEWS` …; after ALL no name need follow.
    fn object_kind(&mut self, all: bool) -> Option<ObjectKind> {
        const KINDS: &[(&str, ObjectKind)] = &[
            ("TABLES", ObjectKind::Table),
            ("TABLE", ObjectKind::Table),
            ("MATERIALIZED VIEWS", ObjectKind::MaterializedView),
            ("MATERIALIZED VIEW", ObjectKind::MaterializedView),
            ("VIEWS", ObjectKind::View),
            ("VIEW", ObjectKind::View),
            ("FUNCTIONS", ObjectKind::Function),
            ("FUNCTION", ObjectKind::Function),
        ];
        // All but TABLE may be a table's own name: before another name they are the keyword.
        let (words, kind) = KINDS.iter().find(|(words, _)| {
            let count = words.split(' ').count();
            words
                .split(' ')
                .enumerate()
                .all(|(i, word)| self.is_word_at(i, word))
                && (all || *words == "TABLE" || self.is_name_at(count))
        })?;
        self.eat(words);
        Some(*kind)
    }

    fn object(&mut self, kind: JobKeyword) -> Result<ObjectRef, Error> {
        if self.eat("ALL") {
            let all = self.object_kind(true);
            return all
                .map(ObjectRef::All)
                .ok_or_else(|| self.unexpected("TABLES, VIEWS, MATERIALIZED VIEWS or FUNCTIONS"));
        }
        match self.object_kind(false) {
            None => Ok(ObjectRef::Untyped(self.table_ref(kind)?)),
            Some(ObjectKind::Table) => Ok(ObjectRef::Table(self.table_ref(kind)?)),
            Some(object) => {
                let name = self.qualified::<TableName>("a name")?;
                let alias_at = self.offset();
                let alias = if self.eat("AS") {
                    Some(self.named::<TableName>("a name")?)
                } else {
                    None
                };
                self.check_alias(kind, alias.as_ref(), alias_at);
                Ok(ObjectRef::Named {
                    kind: object,
                    name,
                    alias,
                })
            }
        }
    }

    fn table_ref(&mut self, kind: JobKeyword) -> Result<TableRef, Error> {
        let table = self.qualified::<TableName>("a table name")?;
        let partitions = self.partitions()?;
        let alias_at = self.offset();
        // `t t2` and `t = t2` are those of 2.x.
        let alias = if self.eat("AS") || self.eat_symbol('=') || self.is_name_at(0) {
            Some(self.named::<TableName>("a table name")?)
        } else {
            None
        };
        self.check_alias(kind, alias.as_ref(), alias_at);
        Ok(TableRef {
            table,
            partitions,
            alias,
        })
    }

    fn check_alias(&mut self, kind: JobKeyword, alias: Option<&TableName>, at: usize) {
        if kind == JobKeyword::Backup && alias.is_some() {
            self.refuse(illegal(
                "Specifying alias for backup object is forbidden in BACKUP stmt",
                at,
            ));
        }
    }

    /// `[TEMPORARY] PARTITION[S] (p, …)`, `PARTITION p, …` or `PARTITION (column = value, …)`, if
    /// it comes next.
    pub(super) fn partitions(&mut self) -> Result<Partitions, Error> {
        let temporary = self.is_word("TEMPORARY")
            && (self.is_word_at(1, "PARTITION") || self.is_word_at(1, "PARTITIONS"));
        let keyword = usize::from(temporary);
        // PARTITIONS alone may be an alias.
        let names_follow = self.is_name_at(keyword + 1)
            || matches!(
                self.peek_at(keyword + 1),
                Some(Token::Symbol('(') | Token::Str(..))
            );
        let is_clause = self.is_word_at(keyword, "PARTITION")
            || (self.is_word_at(keyword, "PARTITIONS") && names_follow);
        if !is_clause {
            return Ok(Partitions::All);
        }
        self.eat("TEMPORARY");
        let is_singular = self.eat("PARTITION");
        if !is_singular {
            self.eat("PARTITIONS");
        }
        if self.peek() != Some(&Token::Symbol('(')) {
            let mut names = vec![self.partition_name()?];
            // 4.1 reads `PARTITION p1, p2` as two partitions. What is no partition's name by its
            // looks ends the list.
            while self.peek() == Some(&Token::Symbol(',')) && self.is_partition_item() {
                self.eat_symbol(',');
                names.push(self.partition_name()?);
            }
            return Ok(Partitions::Named { temporary, names });
        }
        if is_singular
            && !temporary
            && self.is_name_at(1)
            && self.peek_at(2) == Some(&Token::Symbol('='))
        {
            return self.list(Self::keyed_partition).map(Partitions::Keyed);
        }
        Ok(Partitions::Named {
            temporary,
            names: self.list(Self::partition_name)?,
        })
    }

    /// Whether the item after the comma is a name or string with nothing of its own after it.
    fn is_partition_item(&self) -> bool {
        let is_name = self.is_name_at(1) || matches!(self.peek_at(1), Some(Token::Str(..)));
        let ends = matches!(self.peek_at(2), None | Some(Token::Symbol(',' | ')')))
            || self.is_word_at(2, "AS");
        is_name && ends
    }

    fn keyed_partition(
        &mut self,
    ) -> Result<(String, Box<datafusion::sql::sqlparser::ast::Expr>), Error> {
        let (column, _) = self.name("a column name")?;
        self.expect_symbol('=')?;
        let at = self.offset();
        let fault = self.unexpected("a value");
        let text = self.until_delimiter();
        if text.is_empty() {
            return Err(fault);
        }
        let whole = |parser: &mut SqlParser<'_>| {
            let expr = parser.parse_expr()?;
            parser.expect_token(&SqlToken::EOF)?;
            Ok(expr)
        };
        let (expr, _) = mysql(self.reading())
            .read(text, whole)
            .map_err(|e| e.shifted(at))?;
        Ok((column, Box::new(super::filter::with_plain_strings(expr))))
    }

    /// The names of `PARTITION (…)` where nothing else is of use, as in TRUNCATE.
    pub(super) fn partition_names(&mut self) -> Result<Vec<PartitionName>, Error> {
        let at = self.offset();
        match self.partitions()? {
            Partitions::All => Ok(Vec::new()),
            Partitions::Named {
                temporary: false,
                names,
            } => Ok(names),
            Partitions::Named { .. } => Err(Error::unsupported("TEMPORARY PARTITION").at(at)),
            Partitions::Keyed(_) => Err(Error::unsupported("PARTITION (column = value)").at(at)),
        }
    }

    /// A partition's name may also stand in single quotes.
    pub(super) fn partition_name(&mut self) -> Result<PartitionName, Error> {
        let at = self.offset();
        if matches!(self.peek(), Some(Token::Str(..))) {
            let name = self.string("a partition name")?;
            return PartitionName::new(name).map_err(|e| e.at(at));
        }
        self.named("a partition name")
    }

    pub(super) fn cancel(&mut self) -> Result<CancelJob, Error> {
        let kind = self.job_keyword()?;
        let scope = if self.eat("FOR") {
            self.expect("EXTERNAL CATALOG")?;
            CancelScope::ExternalCatalog
        } else {
            self.optional_database()?
                .map_or(CancelScope::Current, CancelScope::Database)
        };
        Ok(CancelJob { kind, scope })
    }

    pub(super) fn recover(&mut self) -> Result<Recover, Error> {
        if self.eat_any(&["DATABASE", "SCHEMA"]) {
            return self.named("a database name").map(Recover::Database);
        }
        if self.eat("TABLE") {
            return self.qualified("a table name").map(Recover::Table);
        }
        self.expect("PARTITION")?;
        let partition = self.named("a partition name")?;
        self.expect("FROM")?;
        Ok(Recover::Partition(
            partition,
            self.qualified("a table name")?,
        ))
    }

    pub(super) fn job_keyword(&mut self) -> Result<JobKeyword, Error> {
        if self.eat("BACKUP") {
            Ok(JobKeyword::Backup)
        } else if self.eat("RESTORE") {
            Ok(JobKeyword::Restore)
        } else {
            Err(self.unexpected("BACKUP or RESTORE"))
        }
    }

    /// `FROM db` or `IN db`, if it comes next.
    pub(super) fn optional_database(&mut self) -> Result<Option<DatabaseName>, Error> {
        if self.eat_any(&["FROM", "IN"]) {
            self.named("a database name").map(Some)
        } else {
            Ok(None)
        }
    }

    /// A repository that should exist: no repository has a name that breaks the rules.
    pub(super) fn repository(&mut self, when_empty: &str) -> Result<RepositoryName, Error> {
        let at = self.offset();
        let (name, _) = self.name("a repository name")?;
        let unknown = if name.is_empty() {
            when_empty.to_owned()
        } else {
            format!("Repository [{name}] does not exist")
        };
        RepositoryName::new(name).map_err(|_| {
            Error::new(ErrorKind::UndefinedObject, unknown)
                .hint("See SHOW REPOSITORIES.")
                .at(at)
        })
    }

    pub(super) fn repository_to_drop(&mut self) -> Result<RepositoryName, Error> {
        let at = self.offset();
        let (name, _) = self.name("a repository name")?;
        RepositoryName::new(name).map_err(|_| {
            Error::new(ErrorKind::UndefinedObject, "Repository does not exist")
                .hint("See SHOW REPOSITORIES.")
                .at(at)
        })
    }

    pub(super) fn drop_snapshot(&mut self) -> Result<DropSnapshot, Error> {
        let label_at = self.offset();
        let (label, _) = self.name("a snapshot label")?;
        self.expect("ON")?;
        let at = self.offset();
        let (name, _) = self.name("a repository name")?;
        let force = self.eat("FORCE");
        let repository = RepositoryName::new(name.clone()).map_err(|_| {
            let message = format!("Repository does not exist: {name}");
            Error::new(ErrorKind::UndefinedObject, message)
                .hint("See SHOW REPOSITORIES.")
                .at(at)
        })?;
        // A label that could not have been written, one with a path separator above all, is never
        // deleted.
        let label = SnapshotLabel::new(label.clone()).map_err(|_| {
            let message = format!("Snapshot does not exist in repository {repository}: {label}");
            Error::new(ErrorKind::UndefinedObject, message).at(label_at)
        })?;
        Ok(DropSnapshot {
            label,
            repository,
            force,
        })
    }

    pub(super) fn create_repository(&mut self) -> Result<CreateRepository, Error> {
        self.expect("CREATE")?;
        let read_only = self.eat("READ ONLY");
        self.expect("REPOSITORY")?;
        let name_at = self.offset();
        let (name, _) = self.name("a repository name")?;
        self.expect("WITH BROKER")?;
        let broker_at = self.offset();
        let broker = match self.peek() {
            Some(Token::Word(w, Quote::None)) if w.eq_ignore_ascii_case("ON") => None,
            Some(Token::Str(..)) => Some(self.string("a broker name")?),
            _ => Some(self.name("a broker name")?.0),
        };
        self.expect("ON LOCATION")?;
        let location_at = self.offset();
        let location = self.string("the location in quotes")?;
        let properties = self.properties()?;
        // The text is whole; now its parts, in StarRocks' order.
        if name.is_empty() {
            return Err(
                Error::new(ErrorKind::InvalidName, "Repository does not empty").at(name_at),
            );
        }
        let name = RepositoryName::new(name).map_err(|e| e.at(name_at))?;
        if location.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidParameter,
                "You must specify a location on the repository",
            )
            .at(location_at));
        }
        let broker = match broker {
            Some(broker) if broker.is_empty() => {
                return Err(Error::new(
                    ErrorKind::InvalidName,
                    "You must specify the broker of the repository",
                )
                .at(broker_at));
            }
            Some(broker) => Some(BrokerName::new(broker).map_err(|e| e.at(broker_at))?),
            None => None,
        };
        Ok(CreateRepository {
            name,
            read_only,
            broker,
            location,
            properties,
        })
    }
}
