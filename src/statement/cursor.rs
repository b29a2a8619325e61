//! Cursors (DECLARE, FETCH, MOVE, CLOSE) and the modes of transactions.

use super::ast::{DeclareCursor, Direction, SessionCommand, Statement, TransactionModes};
use super::blanks::skip_blank;
use super::bounds::Reading;
use super::lexer::Token;
use super::parser::Parser;
use super::sql_text::parse_query;
use crate::error::{Error, ErrorKind};

/// `DECLARE name [BINARY] [INSENSITIVE | ASENSITIVE] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR
/// query`. What stands before the query is read here: the query follows PostgreSQL's lexical rules,
/// which are not those of our own tokens.
pub(super) fn declare(text: &str, reading: &Reading) -> Result<Statement, Error> {
    let mut at = 0;
    let mut words: Vec<(usize, String, bool)> = Vec::new();
    loop {
        let (start, word, quoted) = word(text, &mut at).ok_or_else(|| {
            Error::new(
                ErrorKind::Syntax,
                "syntax error in DECLARE, expected CURSOR … FOR and a query",
            )
            .at(at)
        })?;
        if !quoted && word == "for" {
            break;
        }
        words.push((start, word, quoted));
    }
    let mut declared = DeclareCursor::default();
    let mut rest = words.into_iter().skip(1).peekable();
    let (_, name, _) = rest
        .next()
        .ok_or_else(|| Error::new(ErrorKind::Syntax, "DECLARE names no cursor").at(at))?;
    declared.name = name;
    let mut is_cursor = false;
    while let Some((start, word, quoted)) = rest.next() {
        let unexpected = || {
            Error::new(
                ErrorKind::Syntax,
                format!("syntax error at or near \"{word}\""),
            )
            .at(start)
        };
        let mut next_is = |wanted: &str| rest.next_if(|(_, w, _)| w == wanted).is_some();
        match word.as_str() {
            _ if quoted => return Err(unexpected()),
            "binary" => declared.binary = true,
            "insensitive" | "asensitive" => {}
            "no" if next_is("scroll") => declared.scroll = Some(false),
            "scroll" => declared.scroll = Some(true),
            "cursor" => is_cursor = true,
            "with" if is_cursor && next_is("hold") => declared.hold = true,
            "without" if is_cursor && next_is("hold") => {}
            _ => return Err(unexpected()),
        }
    }
    if !is_cursor {
        return Err(Error::new(
            ErrorKind::Syntax,
            "syntax error in DECLARE, expected CURSOR",
        )
        .at(at));
    }
    let query = parse_query(&text[at..], reading).map_err(|e| e.shifted(at))?;
    if query.is_none() {
        return Err(Error::new(ErrorKind::Syntax, "DECLARE CURSOR is for queries").at(at));
    }
    declared.query = query;
    declared.text = text.to_owned();
    Ok(Statement::Session(SessionCommand::Declare(Box::new(
        declared,
    ))))
}

/// The next word, where it begins, and whether it was quoted; bare ones folded.
fn word(text: &str, at: &mut usize) -> Option<(usize, String, bool)> {
    loop {
        let skipped = skip_blank(text, *at);
        if skipped == *at {
            break;
        }
        *at = skipped;
    }
    let start = *at;
    if let Some(quoted) = text[start..].strip_prefix('"') {
        let end = quoted.find('"')?;
        *at = start + end + 2;
        return Some((start, quoted[..end].to_owned(), true));
    }
    let end = text[start..]
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .map_or(text.len(), |n| start + n);
    *at = end;
    (end > start).then(|| (start, text[start..end].to_lowercase(), false))
}

impl Parser<'_> {
    /// `[direction] [FROM | IN] name`
    pub(super) fn fetch(&mut self, moves: bool) -> Result<SessionCommand, Error> {
        let direction = self.direction()?;
        self.eat_any(&["FROM", "IN"]);
        let name = self.folded("the name of a cursor")?;
        Ok(SessionCommand::Fetch {
            name,
            direction,
            moves,
        })
    }

    fn direction(&mut self) -> Result<Direction, Error> {
        if self.eat("NEXT") {
            return Ok(Direction::Forward(1));
        }
        if self.eat("PRIOR") {
            return Ok(Direction::Backward(1));
        }
        if self.eat("FIRST") {
            return Ok(Direction::Absolute(1));
        }
        if self.eat("LAST") {
            return Ok(Direction::Absolute(-1));
        }
        if self.eat("ABSOLUTE") {
            return Ok(Direction::Absolute(self.count()?));
        }
        if self.eat("RELATIVE") {
            return Ok(Direction::Relative(self.count()?));
        }
        let forward = self.eat("FORWARD");
        let backward = !forward && self.eat("BACKWARD");
        if self.eat("ALL") {
            return Ok(if backward {
                Direction::BackwardAll
            } else {
                Direction::ForwardAll
            });
        }
        let is_count = matches!(
            self.peek(),
            Some(Token::Number(_) | Token::Symbol('-' | '+'))
        );
        let count = if is_count { self.count()? } else { 1 };
        Ok(match (backward, count) {
            (false, n) if n >= 0 => Direction::Forward(n),
            (true, n) if n < 0 => Direction::Forward(-n),
            (_, n) => Direction::Backward(n.abs()),
        })
    }

    fn count(&mut self) -> Result<i64, Error> {
        let at_fault = self.unexpected("a count");
        let negative = self.eat_symbol('-');
        if !negative {
            self.eat_symbol('+');
        }
        match self.any() {
            Some(Token::Number(n)) => n
                .parse::<i64>()
                .map(|n| if negative { -n } else { n })
                .map_err(|_| at_fault),
            _ => Err(at_fault),
        }
    }

    /// `ISOLATION LEVEL …`, `READ ONLY`, `READ WRITE`, `DEFERRABLE`, in any order.
    pub(super) fn transaction_modes(&mut self) -> Result<TransactionModes, Error> {
        let mut modes = TransactionModes::default();
        loop {
            if self.eat("ISOLATION LEVEL") {
                let level = [
                    "SERIALIZABLE",
                    "REPEATABLE READ",
                    "READ COMMITTED",
                    "READ UNCOMMITTED",
                ];
                let level = level
                    .into_iter()
                    .find(|level| self.eat(level))
                    .ok_or_else(|| self.unexpected("an isolation level"))?;
                modes.isolation = Some(level.to_lowercase());
            } else if self.eat("READ ONLY") {
                modes.read_only = Some(true);
            } else if self.eat("READ WRITE") {
                modes.read_only = Some(false);
            } else if !self.eat("NOT DEFERRABLE")
                && !self.eat("DEFERRABLE")
                && !self.eat_symbol(',')
            {
                return Ok(modes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::parse_one;

    fn command(text: &str) -> SessionCommand {
        match parse_one(text) {
            Ok(Statement::Session(command)) => command,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn cursors_are_read() {
        let SessionCommand::Declare(cursor) = command(
            "declare \"My c\" binary no scroll cursor with hold for select ';', E'\\'' from t -- x",
        ) else {
            panic!("no cursor")
        };
        assert_eq!(
            (
                cursor.name.as_str(),
                cursor.scroll,
                cursor.hold,
                cursor.binary
            ),
            ("My c", Some(false), true, true)
        );
        let fetch = |text: &str| match command(text) {
            SessionCommand::Fetch {
                name,
                direction,
                moves,
            } => (name, direction, moves),
            other => panic!("{other:?}"),
        };
        for (text, direction) in [
            ("FETCH c", Direction::Forward(1)),
            ("FETCH 10 FROM c", Direction::Forward(10)),
            ("FETCH FORWARD 3 IN c", Direction::Forward(3)),
            ("FETCH -2 FROM c", Direction::Backward(2)),
            ("FETCH BACKWARD ALL IN c", Direction::BackwardAll),
            ("FETCH ALL IN c", Direction::ForwardAll),
            ("FETCH ABSOLUTE -1 FROM c", Direction::Absolute(-1)),
            ("FETCH RELATIVE 0 c", Direction::Relative(0)),
            ("FETCH PRIOR FROM c", Direction::Backward(1)),
        ] {
            assert_eq!(fetch(text), ("c".into(), direction, false), "{text}");
        }
        assert_eq!(
            fetch("MOVE LAST IN \"C\""),
            ("C".into(), Direction::Absolute(-1), true)
        );
        for bad in [
            "DECLARE c CURSOR FOR",
            "DECLARE c FOR SELECT 1",
            "DECLARE c CURSOR FOR SHOW x",
            "DECLARE",
            "FETCH FROM",
            "DECLARE c CURSOR FOR SELEC",
        ] {
            assert!(parse_one(bad).is_err(), "{bad}");
        }
        let error = parse_one("DECLARE c CURSOR FOR SELECT (1, )").expect_err("an error");
        assert!(error.position.is_some_and(|p| p > 20), "{error:?}");
    }
}
