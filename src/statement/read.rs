//! A message to [`Statement`]s: what comes next in it, and which grammar reads that.

use std::ops::Range;

use datafusion::sql::sqlparser::ast as sql;

use super::ast::Statement;
use super::bounds::{Measure, Reading, check_text};
use super::parser::Parser;
use super::split::{Language, Next, Piece, next};
use super::sql_text::{parse_ast, refuse_reserved};
use super::{cursor, session, view};
use crate::error::{Error, ErrorKind};

/// What to do with a statement that nothing here reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    Refuse,
    /// Take it as it is: [`Statement::Raw`].
    Keep,
}

/// A statement of a message.
#[derive(Debug)]
pub struct Said {
    /// The statement, or why it is none; positions count from the start of the message.
    pub statement: Result<Statement, Error>,
    /// Where it stands in the message, bytes.
    pub place: Range<usize>,
    /// How large it is.
    pub measure: Measure,
}

/// What comes next in a message, if that is short.
#[derive(Debug)]
pub enum NextShort {
    Said(Box<Said>),
    /// Nothing.
    End,
    /// Something whose reading takes so long that others should not wait for it.
    Long,
}

/// Text that is read at once, bytes.
const SHORT_BYTES: usize = 8 << 10;

/// The next statement of a message from a byte on, unless it is long.
pub fn next_short_statement(
    message: &str,
    at: usize,
    unread: Unread,
    reading: &Reading,
) -> NextShort {
    match next(message, at, SHORT_BYTES) {
        Next::Piece(piece) => NextShort::Said(Box::new(said(piece, unread, reading))),
        Next::End => NextShort::End,
        Next::Long => NextShort::Long,
    }
}

/// The next statement of a message from a byte on.
pub fn next_statement(message: &str, at: usize, unread: Unread, reading: &Reading) -> Option<Said> {
    match next(message, at, usize::MAX) {
        Next::Piece(piece) => Some(said(piece, unread, reading)),
        Next::End | Next::Long => None,
    }
}

/// Refuses a message that goes on after its first statement, as the extended protocol demands.
pub fn check_is_last(message: &str, end: usize) -> Result<(), Error> {
    match next(message, end, usize::MAX) {
        Next::End => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Syntax,
            "cannot insert multiple commands into a prepared statement",
        )),
    }
}

fn said(piece: Piece<'_>, unread: Unread, reading: &Reading) -> Said {
    let mut measure = Measure::default();
    let statement = check_text(piece.text, piece.language, &reading.bounds).and_then(|tokens| {
        measure.tokens = tokens;
        match parse_piece(piece, reading) {
            Err(e)
                if unread == Unread::Keep
                    && matches!(e.kind, ErrorKind::Syntax | ErrorKind::Unsupported) =>
            {
                Ok(Statement::Raw(piece.text.to_owned()))
            }
            other => other,
        }
    });
    let place = piece.offset..piece.offset + piece.text.len();
    Said {
        statement: statement.map_err(|e| e.shifted(piece.offset)),
        place,
        measure,
    }
}

/// Parses a message within the default bounds: each statement with its text and byte offset, in
/// order. A statement that does not parse ends the list with its error, whose position counts from
/// the start of the message.
pub fn parse_all(message: &str) -> Vec<Result<(Statement, &str), Error>> {
    let reading = Reading::default();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(said) = next_statement(message, at, Unread::Refuse, &reading) {
        at = said.place.end;
        let failed = said.statement.is_err();
        out.push(
            said.statement
                .map(|statement| (statement, &message[said.place])),
        );
        if failed {
            break;
        }
    }
    out
}

/// Parses a message that must hold at most one statement, within the default bounds.
pub fn parse_one(message: &str) -> Result<Statement, Error> {
    match next_statement(message, 0, Unread::Refuse, &Reading::default()) {
        None => Ok(Statement::Empty),
        Some(said) => {
            let statement = said.statement?;
            check_is_last(message, said.place.end).map(|()| statement)
        }
    }
}

fn parse_piece(piece: Piece<'_>, reading: &Reading) -> Result<Statement, Error> {
    match piece.language {
        Language::Postgres if begins(piece.text, "DECLARE") => cursor::declare(piece.text, reading),
        Language::Postgres => parse_sql(piece.text, reading),
        Language::StarRocks => Parser::new(piece.text, reading)?.whole(Parser::starrocks_statement),
        Language::Session => Parser::new(piece.text, reading)?.whole(Parser::session_statement),
    }
}

fn begins(text: &str, word: &str) -> bool {
    text.get(..word.len())
        .is_some_and(|w| w.eq_ignore_ascii_case(word))
}

/// Reads a text as PostgreSQL's.
fn parse_sql(text: &str, reading: &Reading) -> Result<Statement, Error> {
    // COPY … FROM STDIN: sqlparser wants the semicolon, after which the data would begin in a
    // dump.
    let read = if begins(text, "COPY") {
        parse_ast(&session::readable_copy(text), ";", reading).map_err(|e| e.at_most(text.len()))
    } else {
        parse_ast(text, "", reading)
    };
    match read? {
        None => Ok(Statement::Empty),
        Some(statement @ sql::Statement::Copy { .. }) => session::copy(statement, reading),
        Some(sql::Statement::CreateView(create)) => view::create_view(create, reading),
        Some(sql::Statement::Drop {
            object_type: sql::ObjectType::View,
            if_exists,
            names,
            ..
        }) => view::drop_view(if_exists, &names),
        Some(statement) => {
            refuse_reserved(&statement, text)?;
            Ok(Statement::Sql(Box::new(statement)))
        }
    }
}
