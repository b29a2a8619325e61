//! Session commands: SET, SHOW, BEGIN, DISCARD … and COPY. PostgreSQL's forms, read by our own
//! parser where sqlparser has gaps.

use datafusion::sql::sqlparser::ast as sql;

use super::ast::{CopyFormat, CopyFrom, CopyTo, ForceQuote, Qualified, SessionCommand, Statement};
use super::bounds::Reading;
use super::lexer::{Quote, Token};
use super::parser::Parser;
use super::sql_text::parse_query;
use crate::catalog::folded;
use crate::error::{Error, ErrorKind};
use crate::names::{DatabaseName, TableName};

impl Parser<'_> {
    pub(super) fn session_statement(&mut self) -> Result<Statement, Error> {
        self.session_command().map(Statement::Session)
    }

    fn session_command(&mut self) -> Result<SessionCommand, Error> {
        if self.eat("SET") {
            return self.set();
        }
        if self.eat("SHOW") {
            if self.eat("ALL") {
                return Ok(SessionCommand::ShowAllSettings);
            }
            return self.setting_name().map(SessionCommand::ShowSetting);
        }
        if self.eat("RESET") {
            return if self.eat("ALL") {
                Ok(SessionCommand::ResetAll)
            } else {
                self.setting_name().map(SessionCommand::Reset)
            };
        }
        for (words, tag) in [
            ("START TRANSACTION", "START TRANSACTION"),
            ("BEGIN", "BEGIN"),
        ] {
            if self.eat(words) {
                self.eat_any(&["WORK", "TRANSACTION"]);
                return Ok(SessionCommand::Begin {
                    modes: self.transaction_modes()?,
                    tag,
                });
            }
        }
        if self.eat_any(&["COMMIT", "END"]) {
            self.eat_any(&["WORK", "TRANSACTION"]);
            return Ok(SessionCommand::Commit {
                chain: self.chain()?,
            });
        }
        if self.eat_any(&["ROLLBACK", "ABORT"]) {
            self.eat_any(&["WORK", "TRANSACTION"]);
            if !self.eat("TO") {
                return Ok(SessionCommand::Rollback {
                    chain: self.chain()?,
                });
            }
            self.eat("SAVEPOINT");
            return Ok(SessionCommand::RollbackTo(self.folded("a savepoint name")?));
        }
        for (word, moves) in [("FETCH", false), ("MOVE", true)] {
            if self.eat(word) {
                return self.fetch(moves);
            }
        }
        if self.eat("LOCK") {
            self.skip_rest();
            return Ok(SessionCommand::Lock);
        }
        if self.eat("SAVEPOINT") {
            return Ok(SessionCommand::Savepoint(self.folded("a savepoint name")?));
        }
        if self.eat("RELEASE") {
            self.eat("SAVEPOINT");
            return Ok(SessionCommand::Release(self.folded("a savepoint name")?));
        }
        if self.eat("DISCARD") {
            return if self.eat("ALL") {
                Ok(SessionCommand::DiscardAll)
            } else if self.eat_any(&["PLANS", "SEQUENCES", "TEMP", "TEMPORARY"]) {
                Ok(SessionCommand::Accepted("DISCARD"))
            } else {
                Err(self.unexpected("ALL, PLANS, SEQUENCES or TEMP"))
            };
        }
        if self.eat("DEALLOCATE") {
            self.eat("PREPARE");
            return if self.eat("ALL") {
                Ok(SessionCommand::DeallocateAll)
            } else {
                Ok(SessionCommand::Deallocate(self.folded("a statement name")?))
            };
        }
        for (word, tag) in [
            ("LISTEN", "LISTEN"),
            ("UNLISTEN", "UNLISTEN"),
            ("NOTIFY", "NOTIFY"),
        ] {
            if self.eat(word) {
                self.skip_rest();
                return Ok(SessionCommand::Accepted(tag));
            }
        }
        if self.eat("CLOSE") {
            let name = if self.eat("ALL") {
                None
            } else {
                Some(self.folded("the name of a cursor")?)
            };
            return Ok(SessionCommand::CloseCursor(name));
        }
        Err(self.unexpected("a session command"))
    }

    fn set(&mut self) -> Result<SessionCommand, Error> {
        for (words, session) in [
            ("TRANSACTION", false),
            ("SESSION CHARACTERISTICS AS TRANSACTION", true),
        ] {
            if self.eat(words) {
                return Ok(SessionCommand::SetTransaction {
                    modes: self.transaction_modes()?,
                    session,
                });
            }
        }
        // Whoever logged in stays that; saying so again is what pools do.
        if self.eat("SESSION AUTHORIZATION DEFAULT")
            || self.eat("ROLE NONE")
            || self.eat("ROLE DEFAULT")
        {
            return Ok(SessionCommand::Accepted("SET"));
        }
        let local = self.eat("LOCAL");
        if !local {
            self.eat("SESSION");
        }
        let name = if self.eat("TIME ZONE") {
            "timezone".to_owned()
        } else if self.eat("NAMES") {
            "client_encoding".to_owned()
        } else {
            let name = self.setting_name()?;
            if !self.eat_symbol('=') && !self.eat("TO") {
                return Err(self.unexpected("TO or '='"));
            }
            name
        };
        if self.eat_any(&["DEFAULT"]) {
            return Ok(SessionCommand::Set {
                name,
                value: None,
                local,
            });
        }
        let mut values = vec![self.setting_value()?];
        while self.eat_symbol(',') {
            values.push(self.setting_value()?);
        }
        Ok(SessionCommand::Set {
            name,
            value: Some(values),
            local,
        })
    }

    /// A setting's name: words joined by dots, or one of SQL's two-word names.
    fn setting_name(&mut self) -> Result<String, Error> {
        if self.eat("TIME ZONE") {
            return Ok("timezone".into());
        }
        if self.eat("TRANSACTION ISOLATION LEVEL") {
            return Ok("transaction_isolation".into());
        }
        if self.eat("SESSION AUTHORIZATION") {
            return Ok("session_authorization".into());
        }
        if self.eat("ROLE") {
            return Ok("role".into());
        }
        let mut name = self.folded("the name of a setting")?;
        while self.eat_symbol('.') {
            name = format!("{name}.{}", self.folded("the name of a setting")?);
        }
        // StarRocks' name.
        if name == "time_zone" {
            return Ok("timezone".into());
        }
        Ok(name)
    }

    fn setting_value(&mut self) -> Result<String, Error> {
        let at_fault = self.unexpected("a value");
        let sign = if self.eat_symbol('-') { "-" } else { "" };
        match self.any() {
            Some(Token::Word(w, _) | Token::Str(w, _)) if sign.is_empty() => Ok(w),
            Some(Token::Number(n)) => Ok(format!("{sign}{n}")),
            _ => Err(at_fault),
        }
    }

    /// `[AND [NO] CHAIN]`
    fn chain(&mut self) -> Result<bool, Error> {
        if !self.eat("AND") {
            return Ok(false);
        }
        let no = self.eat("NO");
        self.expect("CHAIN")?;
        Ok(!no)
    }

    /// A name folded to lower case unless quoted, as PostgreSQL does.
    pub(super) fn folded(&mut self, what: &str) -> Result<String, Error> {
        match self.peek() {
            Some(Token::Word(w, Quote::None)) => {
                let name = w.to_lowercase();
                self.any();
                Ok(name)
            }
            _ => self.name(what).map(|(name, _)| name),
        }
    }

    fn skip_rest(&mut self) {
        while self.any().is_some() {}
    }
}

/// A sqlparser object name as one of ours; the gateway's names have at most two parts.
fn table_name(name: &sql::ObjectName) -> Result<Qualified<TableName>, Error> {
    let parts: Vec<&str> = name
        .0
        .iter()
        .filter_map(|p| p.as_ident())
        .map(|i| i.value.as_str())
        .collect();
    match parts.as_slice() {
        [table] => Ok(Qualified {
            database: None,
            name: TableName::new(*table)?,
        }),
        [database, table] => Ok(Qualified {
            database: Some(DatabaseName::new(*database)?),
            name: TableName::new(*table)?,
        }),
        _ => Err(Error::new(
            ErrorKind::Syntax,
            format!("Invalid table name format '{name}'"),
        )),
    }
}

/// One byte, where PostgreSQL wants "a single one-byte character".
fn byte(c: char, what: &str) -> Result<u8, Error> {
    u8::try_from(c).ok().filter(u8::is_ascii).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidParameter,
            format!("COPY {what} must be a single one-byte character"),
        )
    })
}

/// COPY from sqlparser's tree; COPY to files and programs, and options without meaning here, are
/// refused by name.
pub(super) fn copy(statement: sql::Statement, reading: &Reading) -> Result<Statement, Error> {
    let sql::Statement::Copy {
        source,
        to,
        target,
        options,
        legacy_options,
        ..
    } = statement
    else {
        return Err(Error::internal("copy was given another statement"));
    };
    let location = match (target, to) {
        (sql::CopyTarget::Stdin, false) | (sql::CopyTarget::Stdout, true) => None,
        // PostgreSQL takes either word for either way.
        (sql::CopyTarget::Stdin, true) | (sql::CopyTarget::Stdout, false) => None,
        (sql::CopyTarget::File { filename }, false) => Some(filename),
        (sql::CopyTarget::File { .. }, true) => {
            return Err(Error::new(ErrorKind::InsufficientPrivilege, "COPY to a file is not offered")
                .hint("COPY … TO STDOUT sends the rows to the client; psql's \\copy writes them to its files."));
        }
        (sql::CopyTarget::Program { .. }, _) => {
            return Err(Error::new(
                ErrorKind::InsufficientPrivilege,
                "COPY to or from an external program is not offered",
            ));
        }
    };
    let mut format = None;
    let (mut delimiter, mut quote, mut escape, mut null, mut header) =
        (None, None, None, None, false);
    let mut force_quote = ForceQuote::None;
    let columns_of = |names: Vec<sql::Ident>| -> Vec<String> { names.iter().map(folded).collect() };
    let forced = |names: Vec<sql::Ident>| match columns_of(names) {
        all if all == [ALL_COLUMNS] => ForceQuote::All,
        names => ForceQuote::Columns(names),
    };
    for option in options {
        match option {
            sql::CopyOption::Format(name) => format = Some(name.value.to_ascii_lowercase()),
            sql::CopyOption::Delimiter(c) => delimiter = Some(byte(c, "delimiter")?),
            sql::CopyOption::Quote(c) => quote = Some(byte(c, "quote")?),
            sql::CopyOption::Escape(c) => escape = Some(byte(c, "escape")?),
            sql::CopyOption::Null(text) => null = Some(text),
            sql::CopyOption::Header(on) => header = on,
            sql::CopyOption::Freeze(_) => {}
            sql::CopyOption::ForceQuote(names) => force_quote = forced(names),
            sql::CopyOption::Encoding(name)
                if name.to_ascii_lowercase().replace('-', "") == "utf8" => {}
            other => return Err(Error::unsupported(format_args!("COPY option {other}"))),
        }
    }
    for option in legacy_options {
        match option {
            sql::CopyLegacyOption::Binary => format = Some("binary".into()),
            sql::CopyLegacyOption::Delimiter(c) => delimiter = Some(byte(c, "delimiter")?),
            sql::CopyLegacyOption::Null(text) => null = Some(text),
            sql::CopyLegacyOption::Header => header = true,
            sql::CopyLegacyOption::Parquet => format = Some("parquet".into()),
            sql::CopyLegacyOption::Csv(options) => {
                format = Some("csv".into());
                for option in options {
                    match option {
                        sql::CopyLegacyCsvOption::Header => header = true,
                        sql::CopyLegacyCsvOption::Quote(c) => quote = Some(byte(c, "quote")?),
                        sql::CopyLegacyCsvOption::Escape(c) => escape = Some(byte(c, "escape")?),
                        sql::CopyLegacyCsvOption::ForceQuote(names) => force_quote = forced(names),
                        other => {
                            return Err(Error::unsupported(format_args!("COPY option {other}")));
                        }
                    }
                }
            }
            other => return Err(Error::unsupported(format_args!("COPY option {other}"))),
        }
    }
    // Without a FORMAT, a URL's ending says it.
    let guessed = location
        .as_deref()
        .and_then(|l| l.rsplit_once('.'))
        .map(|(_, ending)| ending.to_ascii_lowercase());
    let format = match format
        .or(guessed.filter(|g| g == "csv" || g == "parquet"))
        .as_deref()
        .unwrap_or("text")
    {
        "text" => CopyFormat::Text {
            delimiter: delimiter.unwrap_or(b'\t'),
            null: null.unwrap_or_else(|| "\\N".into()),
        },
        "csv" => {
            let quote = quote.unwrap_or(b'"');
            CopyFormat::Csv {
                delimiter: delimiter.unwrap_or(b','),
                quote,
                escape: escape.unwrap_or(quote),
                null: null.unwrap_or_default(),
                header,
            }
        }
        "binary" => CopyFormat::Binary,
        "parquet" => CopyFormat::Parquet,
        other => {
            return Err(Error::new(
                ErrorKind::InvalidParameter,
                format!("COPY format \"{other}\" not recognized"),
            )
            .hint("Use text, csv or binary, or parquet from a URL."));
        }
    };
    match (&location, &format) {
        (None, CopyFormat::Parquet) => {
            return Err(Error::unsupported("COPY of Parquet to or from the client"));
        }
        (Some(_), CopyFormat::Text { .. } | CopyFormat::Binary) => {
            return Err(
                Error::unsupported("COPY FROM a URL in text or binary format")
                    .hint("Use CSV or Parquet."),
            );
        }
        _ => {}
    }
    match (source, to) {
        (
            sql::CopySource::Table {
                table_name: name,
                columns,
            },
            false,
        ) => {
            let columns = columns_of(columns);
            Ok(Statement::Copy(CopyFrom {
                table: table_name(&name)?,
                columns,
                location,
                format,
            }))
        }
        (
            sql::CopySource::Table {
                table_name,
                columns,
            },
            true,
        ) => {
            let columns: Vec<_> = columns.iter().map(ToString::to_string).collect();
            let list = if columns.is_empty() {
                "*".to_owned()
            } else {
                columns.join(", ")
            };
            let query = parse_query(&format!("SELECT {list} FROM {table_name}"), reading)?
                .ok_or_else(|| Error::internal("a table was no query"))?;
            Ok(Statement::CopyTo(CopyTo {
                query,
                format,
                force_quote,
            }))
        }
        (sql::CopySource::Query(query), true) => {
            let query = Box::new(sql::Statement::Query(query));
            Ok(Statement::CopyTo(CopyTo {
                query,
                format,
                force_quote,
            }))
        }
        (sql::CopySource::Query(_), false) => Err(Error::new(
            ErrorKind::Syntax,
            "COPY (query) is only possible TO",
        )),
    }
}

/// What stands for `*` after FORCE_QUOTE, which sqlparser does not read.
const ALL_COLUMNS: &str = "\u{1}all columns";

/// The text with `FORCE_QUOTE *` as a list that sqlparser reads.
pub(super) fn readable_copy(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let found = ["force_quote", "force quote"]
        .iter()
        .find_map(|word| Some((lower.rfind(word)?, word.len())));
    let Some((at, length)) = found else {
        return text.to_owned();
    };
    let after = &text[at + length..];
    match after.trim_start().strip_prefix('*') {
        Some(rest) => format!("{}force_quote (\"{ALL_COLUMNS}\"){rest}", &text[..at]),
        None => text.to_owned(),
    }
}
