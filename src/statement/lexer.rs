//! StarRocks' tokens, with where each stands.
//!
//! One difference from StarRocks is deliberate: a quote or character that StarRocks' lexer skips
//! silently is an error here.

use super::blanks::{continues_word, skip_blank, starts_word};
use super::bounds::Kind;
use crate::error::{Error, ErrorKind};

/// How a word or string was quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quote {
    None,
    Back,
    Double,
    Single,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A bare or back-quoted word.
    Word(String, Quote),
    /// A string, single- or double-quoted.
    Str(String, Quote),
    /// Digits, perhaps with a point.
    Number(String),
    /// Any other character.
    Symbol(char),
}

impl Token {
    /// What it is to the measure of a statement.
    pub fn kind(&self) -> Kind<'_> {
        match self {
            Self::Word(word, Quote::None) => Kind::Word(word),
            Self::Word(..) | Self::Str(..) | Self::Number(_) | Self::Symbol('.') => Kind::Other,
            Self::Symbol('(' | '{') => Kind::Open,
            Self::Symbol('[') => Kind::OpenSubscript,
            Self::Symbol(')' | '}' | ']') => Kind::Close,
            Self::Symbol(',') => Kind::Comma,
            Self::Symbol('<') => Kind::Less,
            Self::Symbol('>') => Kind::Greater,
            Self::Symbol(_) => Kind::Operator,
        }
    }
}

/// A token and the byte offsets of its first byte and of the byte after it.
#[derive(Clone, Debug)]
pub(super) struct Spanned {
    pub token: Token,
    pub start: usize,
    pub end: usize,
}

/// All tokens of one statement; errors are 42601 with the offset of what does not end.
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, Error> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let after_blank = skip_blank(text, at);
        if after_blank > at {
            if text[at..].starts_with("/*") && !text[at..after_blank].ends_with("*/") {
                return Err(Error::new(ErrorKind::Syntax, "unterminated /* comment").at(at));
            }
            at = after_blank;
            continue;
        }
        let (token, end) = token(text, at)?;
        out.push(Spanned {
            token,
            start: at,
            end,
        });
        at = end;
    }
    Ok(out)
}

fn token(text: &str, at: usize) -> Result<(Token, usize), Error> {
    let rest = &text[at..];
    let first = rest
        .chars()
        .next()
        .expect("the caller checked that text is left");
    if (rest.starts_with("x'") || rest.starts_with("X'"))
        && let Some(found) = hex_string(text, at)
    {
        return Ok(found);
    }
    match first {
        '\'' | '"' => {
            let (value, end) = string(text, at, first)?;
            let quote = if first == '"' {
                Quote::Double
            } else {
                Quote::Single
            };
            Ok((Token::Str(value, quote), end))
        }
        '`' => back_quoted(text, at),
        c if c.is_ascii_digit() => Ok(number_or_word(text, at)),
        c if starts_word(c) => {
            let end = rest
                .find(|c| !continues_word(c))
                .map_or(text.len(), |n| at + n);
            Ok((Token::Word(text[at..end].to_owned(), Quote::None), end))
        }
        c => Ok((Token::Symbol(c), at + c.len_utf8())),
    }
}

/// A word may begin with digits provided a letter or underscore follows: `1a`, `2026_11_23`.
fn number_or_word(text: &str, at: usize) -> (Token, usize) {
    let rest = &text[at..];
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let after = rest[digits..].chars().next();
    if after.is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c as u32 >= 0x80) {
        let end = rest
            .find(|c| !continues_word(c))
            .map_or(text.len(), |n| at + n);
        return (Token::Word(text[at..end].to_owned(), Quote::None), end);
    }
    let mut end = at + digits;
    if after == Some('.') {
        let fraction = &text[end + 1..];
        end += 1 + fraction
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(fraction.len());
    }
    (Token::Number(text[at..end].to_owned()), end)
}

/// Everything between back-quotes. A doubled back-quote does not end the name, and like every other
/// one is left out of it.
fn back_quoted(text: &str, at: usize) -> Result<(Token, usize), Error> {
    let mut end = at + 1;
    while let Some(n) = text[end..].find('`') {
        end += n + 1;
        if !text[end..].starts_with('`') {
            return Ok((
                Token::Word(text[at..end].replace('`', ""), Quote::Back),
                end,
            ));
        }
        end += 1;
    }
    Err(Error::new(ErrorKind::Syntax, "unterminated quoted identifier").at(at))
}

/// `x'6162'` of StarRocks 2.x: the string that these bytes are, if they are one.
fn hex_string(text: &str, at: usize) -> Option<(Token, usize)> {
    let (digits, end) = string(text, at + 1, '\'').ok()?;
    let value = String::from_utf8(hex::decode(digits).ok()?).ok()?;
    Some((Token::Str(value, Quote::Single), end))
}

/// A string with doubled quotes and backslash escapes; `\_` and `\%` keep their backslash, as in
/// StarRocks.
fn string(text: &str, at: usize, quote: char) -> Result<(String, usize), Error> {
    let mut value = String::new();
    let mut chars = text[at + 1..].char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        if c == '\\' {
            match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some('b') => value.push('\u{8}'),
                Some('0') => value.push('\0'),
                Some('Z') => value.push('\u{1a}'),
                Some(c @ ('_' | '%')) => value.extend(['\\', c]),
                Some(c) => value.push(c),
                None => break,
            }
        } else if c != quote {
            value.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            chars.next();
            value.push(quote);
        } else {
            return Ok((value, at + 1 + i + 1));
        }
    }
    Err(Error::new(ErrorKind::Syntax, "unterminated quoted string").at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Token> {
        tokens(text)
            .expect("tokens")
            .into_iter()
            .map(|t| t.token)
            .collect()
    }

    #[test]
    fn words_strings_and_comments() {
        assert_eq!(
            kinds("a1 `b``c` 2024_01 'it\\'s' \"x\"\"y\" -- c\n/* d */ 12.5;"),
            [
                Token::Word("a1".into(), Quote::None),
                Token::Word("bc".into(), Quote::Back),
                Token::Word("2024_01".into(), Quote::None),
                Token::Str("it's".into(), Quote::Single),
                Token::Str("x\"y".into(), Quote::Double),
                Token::Number("12.5".into()),
                Token::Symbol(';'),
            ]
        );
        // U+3000 goes to the longer token.
        assert_eq!(
            kinds("a\u{3000} b")[0],
            Token::Word("a\u{3000}".into(), Quote::None)
        );
        assert_eq!(
            kinds("(\u{3000}t)")[1],
            Token::Word("\u{3000}t".into(), Quote::None)
        );
        assert_eq!(kinds("a \u{3000}b"), kinds("a b"));
        assert_eq!(
            kinds("x'6162' X''"),
            [
                Token::Str("ab".into(), Quote::Single),
                Token::Str(String::new(), Quote::Single)
            ]
        );
        assert_eq!(kinds("``"), [Token::Word(String::new(), Quote::Back)]);
        assert_eq!(kinds("\u{1f600}"), [Token::Symbol('\u{1f600}')]);
        assert_eq!(
            kinds("'a\\_b\\n'"),
            [Token::Str("a\\_b\n".into(), Quote::Single)]
        );
    }

    #[test]
    fn unclosed_tokens_name_their_start() {
        for (text, at) in [
            ("ab 'x", 3),
            ("ab `x", 3),
            ("ab \"x\\\"", 3),
            ("ab /* x", 3),
            ("'\\", 0),
        ] {
            assert_eq!(tokens(text).expect_err(text).position, Some(at), "{text}");
        }
    }
}
