//! Statements that sqlparser reads, and its errors in our words.

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::parser::ParserError;

use super::begins;
use crate::error::{Error, ErrorKind};
use crate::statement::ast::*;
use crate::statement::bounds::{Bounds, Reading, check_parsed, nested_too_deeply};
use crate::statement::dialect::postgres;

/// Words that are never a bare name in any version of StarRocks (`docs/sql.md`, "Names").
pub(super) const RESERVED: &[&str] = &[
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

/// Reads a text as PostgreSQL's.
pub fn parse_sql(text: &str, reading: &Reading) -> Result<Statement, Error> {
    // COPY … FROM STDIN: sqlparser wants the semicolon, after which the data would begin in a
    // dump.
    let is_copy = begins(text, "COPY");
    let with_end = if is_copy {
        format!("{};", crate::statement::session::readable_copy(text))
    } else {
        String::new()
    };
    let source = if is_copy { &with_end } else { text };
    let read = postgres(reading).read(source, |parser| parser.parse_statements());
    // What was added to the text has no place in the statement.
    let (statements, _) = read.map_err(|e| e.at_most(text.len()))?;
    for statement in &statements {
        check_parsed(statement, &reading.bounds)?;
    }
    let mut statements: Vec<_> = statements.into_iter().map(insert_with).collect();
    match (statements.pop(), statements.is_empty()) {
        (Some(statement @ sql::Statement::Copy { .. }), true) => {
            crate::statement::session::copy(statement, reading)
        }
        (Some(sql::Statement::CreateView(create)), true) => {
            crate::statement::view::create_view(create, reading)
        }
        (
            Some(sql::Statement::Drop {
                object_type: sql::ObjectType::View,
                if_exists,
                names,
                ..
            }),
            true,
        ) => crate::statement::view::drop_view(if_exists, &names),
        (Some(statement), true) => {
            refuse_reserved(&statement, text)?;
            Ok(Statement::Sql(Box::new(statement)))
        }
        (None, _) => Ok(Statement::Empty),
        (Some(_), false) => Err(Error::new(
            ErrorKind::Syntax,
            "a semicolon is missing between two statements",
        )),
    }
}

/// Words that stand for themselves only in quotes, and that sqlparser takes for columns where
/// something is missing.
const NEVER_COLUMNS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "JOIN",
    "ON",
    "USING",
    "AND",
    "OR",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "AS",
    "IN",
    "INTO",
    "WITH",
    "CREATE",
    "TO",
    "FOR",
    "DISTINCT",
    "WINDOW",
];

/// `SELECT 1 WHERE WHERE` is a syntax error, not a column.
fn refuse_reserved(statement: &sql::Statement, text: &str) -> Result<(), Error> {
    let found = sql::visit_expressions(statement, |expr| match expr {
        sql::Expr::Identifier(ident)
            if ident.quote_style.is_none()
                && NEVER_COLUMNS
                    .iter()
                    .any(|w| w.eq_ignore_ascii_case(&ident.value)) =>
        {
            std::ops::ControlFlow::Break(ident.clone())
        }
        _ => std::ops::ControlFlow::Continue(()),
    });
    let std::ops::ControlFlow::Break(ident) = found else {
        return Ok(());
    };
    let error = Error::new(
        ErrorKind::Syntax,
        format!("syntax error at or near \"{}\"", ident.value),
    );
    Err(
        match offset_of(text, ident.span.start.line, ident.span.start.column) {
            Some(offset) => error.at(offset),
            None => error,
        },
    )
}

/// The byte offset of a line and column, both counted from 1, columns in characters.
pub fn offset_of(text: &str, line: u64, column: u64) -> Option<usize> {
    let (line, column) = (usize::try_from(line).ok()?, usize::try_from(column).ok()?);
    let start: usize = text
        .split_inclusive('\n')
        .take(line.checked_sub(1)?)
        .map(str::len)
        .sum();
    let within: usize = text
        .get(start..)?
        .chars()
        .take(column.checked_sub(1)?)
        .map(char::len_utf8)
        .sum();
    Some(start + within)
}

/// `WITH q AS (…) INSERT INTO t SELECT …` is `INSERT INTO t WITH q AS (…) SELECT …`.
fn insert_with(statement: sql::Statement) -> sql::Statement {
    if let sql::Statement::Query(query) = &statement
        && let sql::SetExpr::Insert(sql::Statement::Insert(insert)) = &*query.body
        && let (Some(with), Some(source)) = (&query.with, &insert.source)
        && source.with.is_none()
    {
        let mut insert = insert.clone();
        let mut source = source.clone();
        source.with = Some(with.clone());
        insert.source = Some(source);
        return sql::Statement::Insert(insert);
    }
    statement
}

/// Whether a statement is StarRocks' `INSERT INTO t WITH LABEL …`.
fn has_label(text: &str) -> bool {
    let mut words = text.split_whitespace();
    words
        .next()
        .is_some_and(|word| word.eq_ignore_ascii_case("INSERT"))
        && words.any(|word| word.eq_ignore_ascii_case("WITH"))
        && words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("LABEL"))
}

/// sqlparser says where only in words: "… at Line: 1, Column: 8".
pub fn sql_error(error: ParserError, text: &str, bounds: &Bounds) -> Error {
    let message = match error {
        ParserError::TokenizerError(m) | ParserError::ParserError(m) => m,
        ParserError::RecursionLimitExceeded => return nested_too_deeply(bounds),
    };
    let Some((what, place)) = message.rsplit_once(" at Line: ") else {
        let error = Error::new(ErrorKind::Syntax, format!("syntax error: {message}"));
        return if message.ends_with("found: EOF") {
            error.at(text.len())
        } else {
            error
        };
    };
    let offset = place.split_once(", Column: ").and_then(|(line, column)| {
        let (line, column): (usize, usize) =
            (line.trim().parse().ok()?, column.trim().parse().ok()?);
        offset_of(text, line as u64, column as u64)
    });
    // What PostgreSQL reads and sqlparser does not.
    let error = match what.trim() {
        "Expected: ), found: EXCLUDE" => Error::unsupported("EXCLUDE in the frame of a window"),
        what if what.starts_with("Expected: AS, found: ") && has_label(text) => {
            Error::unsupported("INSERT … WITH LABEL")
        }
        what => Error::new(ErrorKind::Syntax, format!("syntax error: {what}")),
    };
    match offset {
        Some(offset) => error.at(offset.min(text.len())),
        None => error,
    }
}
