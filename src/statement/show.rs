//! `SHOW …` of StarRocks.

use super::ast::{JobKeyword, Show};
use super::lexer::{Quote, Token};
use super::parser::Parser;
use crate::error::{Error, ErrorKind};

const SNAPSHOT_WHERE: &str =
    "Where clause should looks like: SNAPSHOT = 'your_snapshot_name' [AND TIMESTAMP = '2018-04-18-19-19-10']";

impl Parser<'_> {
    pub(super) fn show(&mut self) -> Result<Show, Error> {
        if self.eat_any(&["DATABASES", "SCHEMAS"]) {
            return Ok(Show::Databases);
        }
        if self.eat("TABLES") {
            return Ok(Show::Tables(self.optional_database()?));
        }
        if self.eat("CREATE TABLE") {
            return Ok(Show::CreateTable(self.qualified("a table name")?));
        }
        if self.eat("COLUMNS") {
            self.expect_from()?;
            return Ok(Show::Columns(self.qualified("a table name")?));
        }
        if self.eat("PARTITIONS") {
            self.expect_from()?;
            return Ok(Show::Partitions(self.qualified("a table name")?));
        }
        if self.eat_any(&["TABLETS", "TABLET"]) {
            self.expect_from()?;
            return Ok(Show::Tablets(self.qualified("a table name")?));
        }
        if self.eat("FRONTENDS") {
            return Ok(Show::Frontends);
        }
        if self.eat("BACKENDS") {
            return Ok(Show::Backends);
        }
        if self.eat("BROKER") {
            return Ok(Show::Brokers);
        }
        if self.eat("REPOSITORIES") {
            return Ok(Show::Repositories);
        }
        if self.eat("SNAPSHOT") {
            return self.show_snapshot();
        }
        let all = self.eat("ALL");
        let kind = match self.job_keyword() {
            Ok(kind) => kind,
            Err(_) => return Err(self.unexpected("something that SHOW shows")),
        };
        Ok(Show::Jobs { kind, all, database: self.optional_database()? })
    }

    fn expect_from(&mut self) -> Result<(), Error> {
        if self.eat_any(&["FROM", "IN"]) { Ok(()) } else { Err(self.unexpected("FROM")) }
    }

    fn show_snapshot(&mut self) -> Result<Show, Error> {
        self.expect("ON")?;
        let repository = self.named("a repository name")?;
        let (mut labels, mut timestamp) = (Vec::new(), None);
        if self.eat("WHERE") {
            let start = self.offset();
            loop {
                let bad = Error::new(ErrorKind::Unsupported, SNAPSHOT_WHERE).at(self.offset());
                let is_label = match self.any() {
                    Some(Token::Word(w, Quote::None)) if w.eq_ignore_ascii_case("SNAPSHOT") => true,
                    Some(Token::Word(w, Quote::None)) if w.eq_ignore_ascii_case("TIMESTAMP") => false,
                    _ => return Err(bad),
                };
                let value = |p: &mut Self| match p.peek() {
                    Some(Token::Str(s, _)) if !s.is_empty() => p.string("a string"),
                    _ => Err(bad.clone().at(p.offset())),
                };
                if is_label && labels.is_empty() && self.eat("IN") {
                    labels = self.list(value)?;
                } else if !self.eat_symbol('=') {
                    return Err(bad.at(self.offset()));
                } else if is_label && labels.is_empty() {
                    labels.push(value(self)?);
                } else if !is_label && timestamp.is_none() {
                    timestamp = Some(value(self)?);
                } else {
                    return Err(bad);
                }
                if !self.eat("AND") {
                    break;
                }
            }
            if labels.is_empty() || (timestamp.is_some() && labels.len() > 1) {
                return Err(Error::new(ErrorKind::Unsupported, SNAPSHOT_WHERE).at(start));
            }
        }
        Ok(Show::Snapshots { repository, labels, timestamp })
    }
}

impl Show {
    /// The name of the file in `sql/show/` that answers it.
    pub fn query_name(&self) -> &'static str {
        match self {
            Self::Databases => "databases",
            Self::Tables(_) => "tables",
            Self::CreateTable(_) => "create_table",
            Self::Columns(_) => "columns",
            Self::Partitions(_) => "partitions",
            Self::Tablets(_) => "tablets",
            Self::Frontends => "frontends",
            Self::Backends => "backends",
            Self::Brokers => "brokers",
            Self::Repositories => "repositories",
            Self::Jobs { kind: JobKeyword::Backup, all: false, .. } => "backup",
            Self::Jobs { kind: JobKeyword::Backup, all: true, .. } => "all_backup",
            Self::Jobs { kind: JobKeyword::Restore, all: false, .. } => "restore",
            Self::Jobs { kind: JobKeyword::Restore, all: true, .. } => "all_restore",
            Self::Snapshots { timestamp: None, .. } => "snapshots",
            Self::Snapshots { timestamp: Some(_), .. } => "snapshot_details",
        }
    }
}
