//! The token cursor that every grammar file shares, and the backup and restore statements.

use super::ast::*;
use super::bounds::{Reading, check_tokens, nested_too_deeply};
use super::lexer::{Quote, Spanned, Token, tokens};
use super::properties::Properties;
use crate::error::{Error, ErrorKind};
use crate::names::DatabaseName;

/// Words that are never a bare name in any version of StarRocks (`docs/sql.md`, "Names").
const RESERVED: &[&str] = &[
    "ALL",
    "ALTER",
    "AND",
    "AS",
    "BETWEEN",
    "BY",
    "CASE",
    "CREATE",
    "CROSS",
    "DATABASES",
    "DEFAULT",
    "DELETE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "EXISTS",
    "FALSE",
    "FOR",
    "FORCE",
    "FROM",
    "FULL",
    "GRANT",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INSERT",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "PARTITION",
    "READ",
    "REVOKE",
    "RIGHT",
    "SELECT",
    "SET",
    "SHOW",
    "TABLE",
    "THEN",
    "TO",
    "TRUE",
    "UNION",
    "UPDATE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// A cursor over the tokens of one statement.
pub(super) struct Parser<'a> {
    text: &'a str,
    reading: &'a Reading,
    tokens: Vec<Spanned>,
    at: usize,
    /// Levels of what is being read inside something of its own kind.
    depth: usize,
    /// What the grammar reads and the next step refuses: told when the whole text has proved to be
    /// grammatical.
    refusal: Option<Error>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, reading: &'a Reading) -> Result<Self, Error> {
        let tokens = tokens(text)?;
        check_tokens(tokens.iter().map(|t| t.token.kind()), &reading.bounds)?;
        Ok(Self {
            text,
            reading,
            tokens,
            at: 0,
            depth: 0,
            refusal: None,
        })
    }

    /// Reads something inside another of its kind. Every rule that calls itself does it through
    /// here.
    pub(super) fn nested<T>(
        &mut self,
        rule: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.depth >= self.reading.bounds.nesting_max {
            return Err(nested_too_deeply(&self.reading.bounds).at(self.offset()));
        }
        self.depth += 1;
        let read = rule(self);
        self.depth -= 1;
        read
    }

    /// How the text is read.
    pub(super) fn reading(&self) -> &'a Reading {
        self.reading
    }

    /// Runs a grammar and demands that nothing is left over.
    pub(super) fn whole<T>(
        mut self,
        grammar: fn(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let out = grammar(&mut self)?;
        if self.at < self.tokens.len() {
            return Err(self.unexpected("end of statement"));
        }
        self.refusal.map_or(Ok(out), Err)
    }

    /// Refuses the statement once it is read; the first refusal counts.
    pub(super) fn refuse(&mut self, error: Error) {
        self.refusal.get_or_insert(error);
    }

    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.token)
    }

    /// The byte offset of the next token, or of the end.
    pub(super) fn offset(&self) -> usize {
        self.tokens
            .get(self.at)
            .map_or(self.text.len(), |t| t.start)
    }

    fn next_text(&self) -> &'a str {
        self.tokens
            .get(self.at)
            .map_or("", |t| &self.text[t.start..t.end])
    }

    /// "syntax error at or near …", at the next token.
    pub(super) fn unexpected(&self, wanted: &str) -> Error {
        let message = match self.next_text() {
            "" => format!("syntax error at end of input, expected {wanted}"),
            near => format!("syntax error at or near \"{near}\", expected {wanted}"),
        };
        Error::new(ErrorKind::Syntax, message).at(self.offset())
    }

    pub(super) fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.tokens.get(self.at + ahead).map(|t| &t.token),
            Some(Token::Word(w, Quote::None)) if w.eq_ignore_ascii_case(word))
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    /// Takes the words if all of them come next.
    pub(super) fn eat(&mut self, words: &str) -> bool {
        let count = words.split(' ').count();
        let all = words
            .split(' ')
            .enumerate()
            .all(|(i, word)| self.is_word_at(i, word));
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
        words.split(' ').try_for_each(|word| {
            if self.eat(word) {
                Ok(())
            } else {
                Err(self.unexpected(word))
            }
        })
    }

    pub(super) fn eat_symbol(&mut self, symbol: char) -> bool {
        let is = self.peek() == Some(&Token::Symbol(symbol));
        if is {
            self.at += 1;
        }
        is
    }

    pub(super) fn expect_symbol(&mut self, symbol: char) -> Result<(), Error> {
        if self.eat_symbol(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("'{symbol}'")))
        }
    }

    /// A name: bare and not reserved, back-quoted, or (our extension) double-quoted.
    pub(super) fn name(&mut self, what: &str) -> Result<(String, Quote), Error> {
        let found = match self.peek() {
            Some(Token::Word(w, Quote::None))
                if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(w)) =>
            {
                None
            }
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
            return Ok(Qualified {
                database: None,
                name: N::try_from(first).map_err(|e| e.at(at))?,
            });
        }
        let (second_at, second) = (self.offset(), self.name(what)?.0);
        if self.peek() == Some(&Token::Symbol('.')) {
            let mut all = format!("{first}.{second}");
            while self.eat_symbol('.') {
                all = format!("{all}.{}", self.name(what)?.0);
            }
            return Err(Error::new(
                ErrorKind::InvalidName,
                format!("Invalid table name format '{all}'"),
            )
            .at(at));
        }
        let database = Some(DatabaseName::new(first).map_err(|e| e.at(at))?);
        Ok(Qualified {
            database,
            name: N::try_from(second).map_err(|e| e.at(second_at))?,
        })
    }

    /// Whether a name stands so many tokens ahead.
    pub(super) fn is_name_at(&self, ahead: usize) -> bool {
        match self.tokens.get(self.at + ahead).map(|t| &t.token) {
            Some(Token::Word(w, Quote::None)) => {
                !RESERVED.iter().any(|r| r.eq_ignore_ascii_case(w))
            }
            Some(Token::Word(..) | Token::Str(_, Quote::Double)) => true,
            _ => false,
        }
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|t| &t.token)
    }

    /// The text from the next token to the end of the statement, and the tokens in it; they count
    /// as read.
    pub(super) fn rest(&mut self) -> (&'a str, &[Spanned]) {
        let (text, from) = (&self.text[self.offset()..], self.at);
        self.at = self.tokens.len();
        (text, &self.tokens[from..])
    }

    /// Takes tokens up to a comma or parenthesis that closes nothing opened here, and answers their
    /// text.
    pub(super) fn until_delimiter(&mut self) -> &'a str {
        let (start, mut depth) = (self.offset(), 0usize);
        while let Some(token) = self.peek() {
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')' | ',') if depth == 0 => break,
                Token::Symbol(')') => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        self.text[start..self.offset()].trim_end()
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
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
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
        self.property_list()
    }

    /// `("k" = "v", …)`
    pub(super) fn property_list(&mut self) -> Result<Properties, Error> {
        let pairs = self.list(|p| {
            let key = p.string("a property key in quotes")?;
            p.expect_symbol('=')?;
            Ok((key, p.string("a property value in quotes")?))
        })?;
        Ok(Properties(pairs.into_iter().collect()))
    }

    pub(super) fn starrocks_statement(&mut self) -> Result<Statement, Error> {
        if let Some(statement) = self.cluster_statement()? {
            return Ok(statement);
        }
        if self.eat("EXPLAIN") {
            let explained = self.nested(Self::starrocks_statement)?;
            return Ok(Statement::ExplainJob(Box::new(explained)));
        }
        if let Some(statement) = self.job_statement()? {
            return Ok(statement);
        }
        if self.eat("BACKUP") {
            return self.backup().map(Statement::Backup);
        }
        if self.eat("RESTORE") {
            return self.restore().map(Statement::Restore);
        }
        if self.eat("CANCEL") {
            return self.cancel().map(Statement::Cancel);
        }
        if self.eat("RECOVER") {
            return self.recover().map(Statement::Recover);
        }
        if self.is_word("CREATE")
            && (self.is_word_at(1, "READ") || self.is_word_at(1, "REPOSITORY"))
        {
            return self.create_repository().map(Statement::CreateRepository);
        }
        if self.eat("DROP REPOSITORY") {
            return self.repository_to_drop().map(Statement::DropRepository);
        }
        if self.eat("DROP SNAPSHOT") {
            return self.drop_snapshot().map(Statement::DropSnapshot);
        }
        if self.eat("USE") {
            return Ok(Statement::Session(SessionCommand::Use(
                self.named("a database name")?,
            )));
        }
        if self.eat("SHOW") {
            return self.show();
        }
        if self.eat_any(&["DESCRIBE", "DESC"]) {
            let show = Show::Columns(self.qualified("a table name")?);
            return Ok(Statement::Show(Box::new(ShowStatement {
                show,
                filter: Filter::default(),
            })));
        }
        match self.user_command()? {
            Some(command) => Ok(Statement::User(command)),
            None => self.definition().map(Statement::Define),
        }
    }
}
