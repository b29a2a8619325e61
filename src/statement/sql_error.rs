//! sqlparser's errors in our words.

use datafusion::sql::sqlparser::parser::ParserError;

use super::bounds::{Bounds, nested_too_deeply};
use crate::error::{Error, ErrorKind};

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
