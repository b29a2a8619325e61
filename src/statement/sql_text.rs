//! Texts that sqlparser reads.

use datafusion::sql::sqlparser::ast as sql;

use super::bounds::{Reading, check_parsed};
use super::dialect::postgres;
use super::sql_error::offset_of;
use crate::error::{Error, ErrorKind};

/// Reads a text as one statement of PostgreSQL's, or none. `added` is put after it for sqlparser.
pub(super) fn parse_ast(
    text: &str,
    added: &str,
    reading: &Reading,
) -> Result<Option<sql::Statement>, Error> {
    let with_end;
    let source = if added.is_empty() {
        text
    } else {
        with_end = format!("{text}{added}");
        &with_end
    };
    let read = postgres(reading).read(source, |parser| parser.parse_statements());
    // What was added to the text has no place in the statement.
    let (statements, _) = read.map_err(|e| e.at_most(text.len()))?;
    for statement in &statements {
        check_parsed(statement, &reading.bounds)?;
    }
    let mut statements = statements.into_iter();
    match (statements.next(), statements.next()) {
        (first, None) => Ok(first.map(insert_with)),
        (_, Some(_)) => Err(Error::new(
            ErrorKind::Syntax,
            "a semicolon is missing between two statements",
        )),
    }
}

/// Reads a text as one query; `None` if it is another statement, or nothing.
pub(super) fn parse_query(
    text: &str,
    reading: &Reading,
) -> Result<Option<Box<sql::Statement>>, Error> {
    match parse_ast(text, "", reading)? {
        Some(query @ sql::Statement::Query(_)) => {
            refuse_reserved(&query, text)?;
            Ok(Some(Box::new(query)))
        }
        _ => Ok(None),
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
pub(super) fn refuse_reserved(statement: &sql::Statement, text: &str) -> Result<(), Error> {
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
