//! Where a cluster sees an error, in the statement as its user wrote it.

use std::sync::LazyLock;

use regex::Regex;

use super::lexer::{Spanned, Token, tokens};
use crate::error::Error;

/// As StarRocks' parser tells it: a line from 1, a column from 0, and perhaps an end.
static TOLD: LazyLock<Regex> = LazyLock::new(|| {
    let place = r"line (\d+), column (\d+)";
    Regex::new(&format!(
        r" (?:at|from) {place}(?: to line \d+, column \d+)?"
    ))
    .expect("a pattern")
});

fn folded(token: &Token) -> String {
    match token {
        Token::Word(text, _) | Token::Str(text, _) | Token::Number(text) => text.to_lowercase(),
        Token::Symbol(symbol) => symbol.to_string(),
    }
}

/// An error of a cluster about a statement that was printed for it: its position is put into the
/// text that the user wrote, and taken from the message, whose numbers are not of that text. What
/// stands at the same occurrence of the same word is taken for the same.
pub fn placed(mut error: Error, written: &str) -> Error {
    let Some(printed) = error.printed.take() else {
        return error;
    };
    let Some(told) = TOLD.captures(&error.message) else {
        return error;
    };
    let place = offset(&printed.0, &told[1], &told[2]);
    let whole = told.get(0).expect("the match").range();
    let at = place.and_then(|place| same_token(&printed.0, place, written));
    error.message.replace_range(whole, "");
    error.position = at.or(error.position);
    error
}

fn offset(text: &str, line: &str, column: &str) -> Option<usize> {
    let (line, column): (usize, usize) = (line.parse().ok()?, column.parse().ok()?);
    let line = text.split_inclusive('\n').nth(line.checked_sub(1)?)?;
    let start = line.as_ptr() as usize - text.as_ptr() as usize;
    let within = line.char_indices().map(|(at, _)| at).chain([line.len()]);
    Some(start + within.clone().nth(column)?)
}

fn same_token(printed: &str, place: usize, written: &str) -> Option<usize> {
    if printed == written {
        return Some(place);
    }
    let (printed, written) = (tokens(printed).ok()?, tokens(written).ok()?);
    let Some(at) = printed.iter().position(|token| token.end > place) else {
        // It ends too early.
        return written.last().map(|token| token.end);
    };
    let word = folded(&printed[at].token);
    let is_word = |token: &&Spanned| folded(&token.token) == word;
    let before = printed[..at].iter().filter(is_word).count();
    let there = written.iter().filter(is_word).nth(before)?;
    Some(there.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn positions_of_a_cluster_are_those_of_the_text_that_was_written() {
        let printed = "BACKUP SNAPSHOT `shop`.`x` TO `vault` ON (`orders` PARTITION (`nope`))";
        for (message, written, left, at) in [
            (
                "Getting analyzing error from line 1, column 42 to line 1, column 68. Detail message: no.",
                "backup snapshot  shop.x to vault\n on (orders partition(nope))",
                "Getting analyzing error. Detail message: no.",
                Some("orders partition"),
            ),
            (
                "Getting analyzing error at line 1, column 62. Detail message: no.",
                "BACKUP SNAPSHOT shop.x TO vault ON (orders PARTITION (nope))",
                "Getting analyzing error. Detail message: no.",
                Some("nope))"),
            ),
            (
                "Getting syntax error at line 1, column 70. Detail message: ends.",
                "BACKUP SNAPSHOT shop.x TO vault",
                "Getting syntax error. Detail message: ends.",
                Some(""),
            ),
            (
                "Getting syntax error at line 7, column 0. Detail message: no.",
                "BACKUP SNAPSHOT shop.x TO vault",
                "Getting syntax error. Detail message: no.",
                None,
            ),
            ("No position.", "BACKUP", "No position.", None),
        ] {
            let error = Error::new(ErrorKind::Remote, message).printed_as(printed);
            let placed = placed(error, written);
            assert_eq!(placed.message, left);
            assert_eq!(
                placed
                    .position
                    .map(|at| &written[at..])
                    .map(|t| t.starts_with(at.unwrap_or("-"))),
                at.map(|_| true),
                "{message}"
            );
        }
    }
}
