//! Text to [`Statement`]: the token cursor that every grammar file shares, and the backup and restore statements.

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser as SqlParser, ParserError};

use super::ast::*;
use super::lexer::{Quote, Spanned, Token, tokens};
use super::properties::Properties;
use super::split::{Language, Piece, split};
use crate::error::{Error, ErrorKind};
use crate::names::{BrokerName, DatabaseName, PartitionName, RepositoryName, SnapshotLabel, TableName};

/// How deep expressions may nest before a statement is refused: each level costs stack.
const RECURSION_LIMIT: usize = 50;

/// Words that are never a bare name in any version of StarRocks (`docs/sql.md`, "Names").
const RESERVED: &[&str] = &[
    "FORCE",
    "TABLE",
    "DATABASES",
    "ALL",
    "ON",
    "TO",
    "FROM",
    "IN",
    "AS",
    "READ",
    "PARTITION",
    "WITH",
    "SHOW",
    "DROP",
    "CREATE",
    "FOR",
    "FULL",
    "KEY",
    "ALTER",
    "WHERE",
    "AND",
    "OR",
    "LIKE",
    "ORDER",
    "BY",
    "LIMIT",
    "GRANT",
    "REVOKE",
    "DEFAULT",
];

/// Parses a message: each statement with its text and byte offset, in order. A statement that does not parse ends the list
/// with its error, whose position counts from the start of the message, as PostgreSQL carries out what stands before it.
pub fn parse_all(message: &str) -> Vec<Result<(Statement, &str), Error>> {
    let mut out = Vec::new();
    for piece in split(message) {
        let parsed = parse_piece(piece).map_err(|e| e.shifted(piece.offset));
        let failed = parsed.is_err();
        out.push(parsed.map(|statement| (statement, piece.text)));
        if failed {
            break;
        }
    }
    out
}

/// Parses a message that must hold at most one statement, as the extended protocol demands.
pub fn parse_one(message: &str) -> Result<Statement, Error> {
    let mut all = parse_all(message);
    match all.len() {
        0 => Ok(Statement::Empty),
        1 => all.remove(0).map(|(statement, _)| statement),
        _ => Err(Error::new(ErrorKind::Syntax, "cannot insert multiple commands into a prepared statement")),
    }
}

fn parse_piece(piece: Piece<'_>) -> Result<Statement, Error> {
    match piece.language {
        Language::Postgres => parse_sql(piece.text),
        Language::StarRocks => Parser::new(piece.text)?.whole(Parser::starrocks_statement),
        Language::Session => Parser::new(piece.text)?.whole(Parser::session_statement),
    }
}

fn parse_sql(text: &str) -> Result<Statement, Error> {
    // COPY … FROM STDIN: sqlparser wants the semicolon, behind which the data would begin in a dump.
    let is_copy = text.get(..4).is_some_and(|w| w.eq_ignore_ascii_case("COPY"));
    let with_end = if is_copy { format!("{text};") } else { String::new() };
    let source = if is_copy { &with_end } else { text };
    let mut statements = SqlParser::new(&PostgreSqlDialect {})
        .with_recursion_limit(RECURSION_LIMIT)
        .try_with_sql(source)
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|e| sql_error(e, text))?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement @ sql::Statement::Copy { .. }), true) => super::session::copy_from(statement),
        (Some(statement), true) => Ok(Statement::Sql(Box::new(statement))),
        (None, _) => Ok(Statement::Empty),
        (Some(_), false) => Err(Error::new(ErrorKind::Syntax, "a semicolon is missing between two statements")),
    }
}

/// sqlparser says where only in words: "… at Line: 1, Column: 8".
fn sql_error(error: ParserError, text: &str) -> Error {
    let message = match error {
        ParserError::TokenizerError(m) | ParserError::ParserError(m) => m,
        ParserError::RecursionLimitExceeded => {
            return Error::new(ErrorKind::LimitExceeded, "the statement is nested too deeply")
                .hint(format!("Expressions may nest {RECURSION_LIMIT} levels deep."));
        }
    };
    let Some((what, place)) = message.rsplit_once(" at Line: ") else {
        return Error::new(ErrorKind::Syntax, format!("syntax error: {message}"));
    };
    let offset = place.split_once(", Column: ").and_then(|(line, column)| {
        let (line, column): (usize, usize) = (line.trim().parse().ok()?, column.trim().parse().ok()?);
        let start: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
        let within: usize = text.get(start..)?.chars().take(column.checked_sub(1)?).map(char::len_utf8).sum();
        Some(start + within)
    });
    let error = Error::new(ErrorKind::Syntax, format!("syntax error: {what}"));
    match offset {
        Some(offset) => error.at(offset.min(text.len())),
        None => error,
    }
}

/// A cursor over the tokens of one statement.
pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Spanned>,
    at: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, Error> {
        Ok(Self { text, tokens: tokens(text)?, at: 0 })
    }

    /// Runs a grammar and demands that nothing is left over.
    pub(super) fn whole<T>(mut self, grammar: fn(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let out = grammar(&mut self)?;
        if self.at < self.tokens.len() { Err(self.unexpected("end of statement")) } else { Ok(out) }
    }

    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.token)
    }

    /// The byte offset of the next token, or of the end.
    pub(super) fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.text.len(), |t| t.start)
    }

    fn next_text(&self) -> &'a str {
        self.tokens.get(self.at).map_or("", |t| &self.text[t.start..t.end])
    }

    /// "syntax error at or near …", at the next token.
    pub(super) fn unexpected(&self, wanted: &str) -> Error {
        let message = match self.next_text() {
            "" => format!("syntax error at end of input, expected {wanted}"),
            near => format!("syntax error at or near \"{near}\", expected {wanted}"),
        };
        Error::new(ErrorKind::Syntax, message).at(self.offset())
    }

    fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.tokens.get(self.at + ahead).map(|t| &t.token),
            Some(Token::Word(w, Quote::None)) if w.eq_ignore_ascii_case(word))
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    /// Takes the words if all of them come next.
    pub(super) fn eat(&mut self, words: &str) -> bool {
        let count = words.split(' ').count();
        let all = words.split(' ').enumerate().all(|(i, word)| self.is_word_at(i, word));
        if all {
            self.at += count;
        }
        all
    }

    /// Takes whichever of the words comes next.
    pub(super) fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(word))
    }

    pub(super) fn expect(&mut self, words: &str) -> Result<(), Error> {
        words.split(' ').try_for_each(|word| if self.eat(word) { Ok(()) } else { Err(self.unexpected(word)) })
    }

    pub(super) fn eat_symbol(&mut self, symbol: char) -> bool {
        let is = self.peek() == Some(&Token::Symbol(symbol));
        if is {
            self.at += 1;
        }
        is
    }

    pub(super) fn expect_symbol(&mut self, symbol: char) -> Result<(), Error> {
        if self.eat_symbol(symbol) { Ok(()) } else { Err(self.unexpected(&format!("'{symbol}'"))) }
    }

    /// A name: bare and not reserved, back-quoted, or (our extension) double-quoted.
    pub(super) fn name(&mut self, what: &str) -> Result<(String, Quote), Error> {
        let found = match self.peek() {
            Some(Token::Word(w, Quote::None)) if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(w)) => None,
            Some(Token::Word(w, quote)) => Some((w.clone(), *quote)),
            Some(Token::Str(w, Quote::Double)) => Some((w.clone(), Quote::Double)),
            _ => None,
        };
        let found = found.ok_or_else(|| self.unexpected(what))?;
        self.at += 1;
        Ok(found)
    }

    /// A name of one of the types of [`crate::names`]; a bad one is told at its place.
    pub(super) fn named<N>(&mut self, what: &str) -> Result<N, Error>
    where
        N: TryFrom<String, Error = Error>,
    {
        let at = self.offset();
        N::try_from(self.name(what)?.0).map_err(|e| e.at(at))
    }

    pub(super) fn qualified<N>(&mut self, what: &str) -> Result<Qualified<N>, Error>
    where
        N: TryFrom<String, Error = Error>,
    {
        let at = self.offset();
        let (first, _) = self.name(what)?;
        if !self.eat_symbol('.') {
            return Ok(Qualified { database: None, name: N::try_from(first).map_err(|e| e.at(at))? });
        }
        let database = Some(DatabaseName::new(first).map_err(|e| e.at(at))?);
        Ok(Qualified { database, name: self.named(what)? })
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String, Error> {
        match self.peek() {
            Some(Token::Str(s, _)) => {
                let s = s.clone();
                self.at += 1;
                Ok(s)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    pub(super) fn number(&mut self, what: &str) -> Result<u64, Error> {
        let number = match self.peek() {
            Some(Token::Number(n)) => n.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected(what))?;
        self.at += 1;
        Ok(number)
    }

    /// Takes one token, whatever it is.
    pub(super) fn any(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += usize::from(token.is_some());
        token
    }

    /// `( item {, item} )`
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, Error>) -> Result<Vec<T>, Error> {
        self.expect_symbol('(')?;
        let mut items = vec![item(self)?];
        while self.eat_symbol(',') {
            items.push(item(self)?);
        }
        self.expect_symbol(')')?;
        Ok(items)
    }

    /// `PROPERTIES ("k" = "v", …)`, if it comes next.
    pub(super) fn properties(&mut self) -> Result<Properties, Error> {
        if !self.eat("PROPERTIES") {
            return Ok(Properties::default());
        }
        let pairs = self.list(|p| {
            let key = p.string("a property key in quotes")?;
            p.expect_symbol('=')?;
            Ok((key, p.string("a property value in quotes")?))
        })?;
        Ok(Properties(pairs.into_iter().collect()))
    }

    fn starrocks_statement(&mut self) -> Result<Statement, Error> {
        if self.eat("BACKUP") {
            return self.backup().map(Statement::Backup);
        }
        if self.eat("RESTORE") {
            return self.restore().map(Statement::Restore);
        }
        if self.eat("CANCEL") {
            return self.cancel().map(Statement::Cancel);
        }
        if self.is_word("CREATE") && (self.is_word_at(1, "READ") || self.is_word_at(1, "REPOSITORY")) {
            return self.create_repository().map(Statement::CreateRepository);
        }
        if self.eat("DROP REPOSITORY") {
            return self.named::<RepositoryName>("a repository name").map(Statement::DropRepository);
        }
        if self.eat("USE") {
            return Ok(Statement::Session(SessionCommand::Use(self.named("a database name")?)));
        }
        if self.eat("SHOW") {
            return self.show().map(Statement::Show);
        }
        if self.eat_any(&["DESCRIBE", "DESC"]) {
            return Ok(Statement::Show(Show::Columns(self.qualified("a table name")?)));
        }
        match self.user_command()? {
            Some(command) => Ok(Statement::User(command)),
            None => self.definition().map(Statement::Define),
        }
    }

    fn backup(&mut self) -> Result<BackupSnapshot, Error> {
        self.refuse_objects_elsewhere("BACKUP")?;
        self.expect("SNAPSHOT")?;
        let label = self.qualified::<SnapshotLabel>("a snapshot label")?;
        self.expect("TO")?;
        let repository = self.named("a repository name")?;
        let tables = self.tables(JobKeyword::Backup)?;
        Ok(BackupSnapshot { label, repository, tables, properties: self.properties()? })
    }

    fn restore(&mut self) -> Result<RestoreSnapshot, Error> {
        self.expect("SNAPSHOT")?;
        let label = self.qualified::<SnapshotLabel>("a snapshot label")?;
        self.expect("FROM")?;
        let repository = self.named("a repository name")?;
        self.refuse_objects_elsewhere("RESTORE")?;
        let tables = self.tables(JobKeyword::Restore)?;
        Ok(RestoreSnapshot { label, repository, tables, properties: self.properties()? })
    }

    /// StarRocks 3.4's `DATABASE` and `EXTERNAL CATALOG` clauses.
    fn refuse_objects_elsewhere(&self, statement: &str) -> Result<(), Error> {
        for clause in ["DATABASE", "EXTERNAL", "ALL"] {
            if self.is_word(clause) {
                return Err(Error::unsupported(format_args!("the {clause} clause of {statement}")).at(self.offset()));
            }
        }
        Ok(())
    }

    fn tables(&mut self, kind: JobKeyword) -> Result<Option<Vec<TableRef>>, Error> {
        if !self.eat("ON") {
            return Ok(None);
        }
        let tables = self.list(|p| {
            p.eat_any(&["TABLES", "TABLE"]);
            for other in ["ALL", "MATERIALIZED", "VIEW", "VIEWS", "FUNCTION", "FUNCTIONS"] {
                // A bare VIEW may be a table's name; before another name it is the keyword.
                let is_name = matches!(p.tokens.get(p.at + 1).map(|t| &t.token), Some(Token::Symbol(_)) | None);
                if p.is_word(other) && !is_name {
                    return Err(Error::unsupported(format_args!("{other} in the ON clause of {kind}")).at(p.offset()));
                }
            }
            let table = p.qualified::<TableName>("a table name")?;
            if p.is_word("TEMPORARY") {
                return Err(Error::new(ErrorKind::Unsupported, "Do not support backing up temp partitions").at(p.offset()));
            }
            let partitions = p.partition_names()?;
            let alias_at = p.offset();
            let alias = if p.eat("AS") { Some(p.named::<TableName>("a table name")?) } else { None };
            if alias.is_some() && kind == JobKeyword::Backup {
                return Err(
                    Error::new(ErrorKind::Syntax, "Specifying alias for backup object is forbidden in BACKUP stmt").at(alias_at)
                );
            }
            Ok(TableRef { table, partitions, alias })
        })?;
        Ok(Some(tables))
    }

    /// `PARTITION[S] (p, …)` or `PARTITION p`, if it comes next.
    pub(super) fn partition_names(&mut self) -> Result<Vec<PartitionName>, Error> {
        if !self.eat_any(&["PARTITION", "PARTITIONS"]) {
            return Ok(Vec::new());
        }
        if self.peek() == Some(&Token::Symbol('(')) { self.list(Self::partition_name) } else { Ok(vec![self.partition_name()?]) }
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

    fn cancel(&mut self) -> Result<CancelJob, Error> {
        let kind = self.job_keyword()?;
        if self.is_word("FOR") {
            return Err(Error::unsupported(format_args!("CANCEL {kind} FOR EXTERNAL CATALOG")).at(self.offset()));
        }
        Ok(CancelJob { kind, database: self.optional_database()? })
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
        if self.eat_any(&["FROM", "IN"]) { self.named("a database name").map(Some) } else { Ok(None) }
    }

    fn create_repository(&mut self) -> Result<CreateRepository, Error> {
        self.expect("CREATE")?;
        let read_only = self.eat("READ ONLY");
        self.expect("REPOSITORY")?;
        let name = self.named("a repository name")?;
        self.expect("WITH BROKER")?;
        let at = self.offset();
        let broker = match self.peek() {
            Some(Token::Word(w, Quote::None)) if w.eq_ignore_ascii_case("ON") => None,
            Some(Token::Str(..)) => {
                let broker = self.string("a broker name")?;
                if broker.is_empty() {
                    return Err(Error::new(ErrorKind::InvalidName, "You must specify the broker of the repository").at(at));
                }
                Some(BrokerName::new(broker).map_err(|e| e.at(at))?)
            }
            _ => Some(self.named("a broker name")?),
        };
        self.expect("ON LOCATION")?;
        let at = self.offset();
        let location = self.string("the location in quotes")?;
        if location.is_empty() {
            return Err(Error::new(ErrorKind::InvalidParameter, "You must specify a location on the repository").at(at));
        }
        Ok(CreateRepository { name, read_only, broker, location, properties: self.properties()? })
    }
}
