//! Cuts a message into statements, choosing for each whose lexical rules hold.
//!
//! The choice is made from the first words of the piece, before its quotes are read: a back-quote
//! or a `\'` means different things in the two languages, and one wrong choice would hide every
//! statement after it.

use super::blanks::skip_blank;

/// Whose rules a piece follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    StarRocks,
    Postgres,
    /// SET, SHOW x, BEGIN …: PostgreSQL's rules, our parser.
    Session,
}

/// One statement's text and where it begins in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub language: Language,
    pub text: &'a str,
    pub offset: usize,
}

/// What comes next in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    Piece(Piece<'a>),
    /// Blanks and comments at most.
    End,
    /// More than so many bytes would have to be looked at.
    Long,
}

/// The next statement from `at` on, looking at `most` bytes at the most. Semicolons without a
/// statement are passed over.
pub(super) fn next(message: &str, mut at: usize, most: usize) -> Next<'_> {
    let begin = at;
    while at < message.len() {
        if at - begin > most {
            return Next::Long;
        }
        let skipped = skip_blank(message, at);
        if skipped > at {
            at = skipped;
        } else if message.as_bytes()[at] == b';' {
            at += 1;
        } else {
            let rest = &message[at..];
            let language = language(rest);
            let looked_at = &rest[..rest.floor_char_boundary(most)];
            // What is cut off may hide a quote that ends after it, but never moves a semicolon
            // before it.
            let length = end_of_statement(looked_at, language);
            if length == looked_at.len() && length < rest.len() {
                return Next::Long;
            }
            return Next::Piece(Piece {
                language,
                text: rest[..length].trim_end(),
                offset: at,
            });
        }
    }
    Next::End
}

/// Splits at top-level semicolons; pieces of blanks and comments alone are left out.
#[cfg(test)]
fn split(message: &str) -> Vec<Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(|| match next(message, at, usize::MAX) {
        Next::Piece(piece) => {
            at = piece.offset + piece.text.len();
            Some(piece)
        }
        _ => None,
    })
    .collect()
}

/// Up to four leading words, upper-cased, comments skipped.
fn leading_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut at = 0;
    while at < text.len() && words.len() < 4 {
        let skipped = skip_blank(text, at);
        if skipped > at {
            at = skipped;
            continue;
        }
        let end = text[at..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .map_or(text.len(), |n| at + n);
        if end == at {
            break;
        }
        words.push(text[at..end].to_ascii_uppercase());
        at = end;
    }
    words
}

fn language(text: &str) -> Language {
    let words = leading_words(text);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [
            "BACKUP" | "RESTORE" | "RECOVER" | "CANCEL" | "USE" | "DESC" | "DESCRIBE" | "TRUNCATE"
            | "GRANT" | "REVOKE" | "VERIFY" | "PRUNE",
            ..,
        ]
        | ["IMPORT", "HISTORY", ..]
        | ["WAIT", "FOR", ..]
        | ["PAUSE" | "RESUME", "JOB", ..]
        | ["EXPLAIN", "BACKUP" | "RESTORE" | "VERIFY" | "PRUNE", ..]
        | ["EXPLAIN", "DROP", "SNAPSHOT", ..]
        | [
            "ALTER",
            "SYSTEM" | "TABLE" | "USER" | "CLUSTER" | "REPOSITORY" | "JOB",
            ..,
        ]
        | [
            "CREATE",
            "READ" | "READONLY" | "REPOSITORY" | "DATABASE" | "SCHEMA" | "TABLE" | "USER" | "ROLE"
            | "CLUSTER",
            ..,
        ]
        | [
            "DROP",
            "CLUSTER" | "REPOSITORY" | "SNAPSHOT" | "DATABASE" | "SCHEMA" | "TABLE" | "USER"
            | "ROLE",
            ..,
        ]
        | ["SHOW", "ALL", "BACKUP" | "RESTORE", ..]
        | [
            "SHOW",
            "BACKUP" | "RESTORE" | "SNAPSHOT" | "REPOSITORIES" | "DATABASES" | "SCHEMAS" | "TABLES"
            | "CREATE" | "PARTITIONS" | "REPOSITORY" | "BROKERS" | "SNAPSHOTS" | "BACKUPS"
            | "RESTORES" | "PARTITION" | "TEMPORARY" | "TABLET" | "TABLETS" | "FRONTENDS"
            | "BACKENDS" | "BROKER" | "COLUMNS" | "GRANTS" | "ROLES" | "CLUSTERS" | "PROC" | "DATA"
            | "PROCESSLIST" | "FULL" | "VARIABLES" | "WARNINGS" | "INDEX" | "INDEXES" | "KEYS"
            | "LOAD" | "ROUTINE" | "FUNCTIONS" | "ALTER" | "DYNAMIC" | "MATERIALIZED" | "USERS"
            | "STATUS" | "CATALOGS" | "COLLATION" | "CHARSET" | "ENGINES" | "EVENTS" | "TRIGGERS",
            ..,
        ] => Language::StarRocks,
        [
            "SET" | "SHOW" | "RESET" | "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT"
            | "SAVEPOINT" | "RELEASE" | "DISCARD" | "DEALLOCATE" | "LISTEN" | "UNLISTEN" | "NOTIFY"
            | "CLOSE" | "FETCH" | "MOVE" | "LOCK",
            ..,
        ] => Language::Session,
        _ => Language::Postgres,
    }
}

/// The offset of the semicolon that ends the statement, or of the end of the text.
fn end_of_statement(text: &str, language: Language) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b';' {
            return at;
        }
        let next = after_opaque(text, at, language);
        at = if next > at { next } else { at + 1 };
    }
    text.len()
}

/// Where the comment or quoted text that begins at `at` ends; `at` if none does.
pub(super) fn after_opaque(text: &str, at: usize, language: Language) -> usize {
    let bytes = text.as_bytes();
    match bytes[at] {
        b'-' if text[at..].starts_with("--") => skip_blank(text, at),
        b'/' if text[at..].starts_with("/*") && language == Language::StarRocks => {
            skip_blank(text, at)
        }
        b'/' if text[at..].starts_with("/*") => after_nested_comment(text, at),
        b'`' => after_quote(bytes, at, b'`', false),
        q @ (b'\'' | b'"') if language == Language::StarRocks => after_quote(bytes, at, q, true),
        b'\'' => after_quote(bytes, at, b'\'', is_escape_string(bytes, at)),
        b'"' => after_quote(bytes, at, b'"', false),
        b'$' if language != Language::StarRocks => after_dollar_quote(text, at),
        _ => at,
    }
}

/// Whether the quote at `at` opens `E'…'`, in which a backslash escapes.
fn is_escape_string(bytes: &[u8], at: usize) -> bool {
    at > 0
        && matches!(bytes[at - 1], b'e' | b'E')
        && (at < 2 || !(bytes[at - 2].is_ascii_alphanumeric() || bytes[at - 2] == b'_'))
}

fn after_quote(bytes: &[u8], at: usize, quote: u8, backslash: bool) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        if backslash && bytes[i] == b'\\' {
            i += 2;
        } else if bytes[i] == quote {
            if bytes.get(i + 1) == Some(&quote) {
                i += 2;
            } else {
                return i + 1;
            }
        } else {
            i += 1;
        }
    }
    bytes.len()
}

fn after_nested_comment(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut i = at;
    while i < bytes.len() {
        match &bytes[i..bytes.len().min(i + 2)] {
            b"/*" => {
                depth += 1;
                i += 2;
            }
            b"*/" => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    bytes.len()
}

/// `$tag$ … $tag$`, or just the `$` of a parameter.
fn after_dollar_quote(text: &str, at: usize) -> usize {
    let rest = &text[at + 1..];
    let tag_end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    match tag_end {
        Some(n)
            if rest[n..].starts_with('$') && !rest.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            let tag = &text[at..at + 1 + n + 1];
            let body = at + tag.len();
            text[body..]
                .find(tag)
                .map_or(text.len(), |n| body + n + tag.len())
        }
        _ => at + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_is_cut_by_its_own_rules() {
        let message = "select ';', E'\\';' ; /* a;b */ BACKUP SNAPSHOT d.`a;b` TO r PROPERTIES(\"k\"=\"it\\\";\");\n\
                       select $x$;$x$, $1; -- end;\n;; set a = ';'";
        let pieces: Vec<_> = split(message)
            .iter()
            .map(|p| (p.language, p.text))
            .collect();
        assert_eq!(
            pieces,
            [
                (Language::Postgres, "select ';', E'\\';'"),
                (
                    Language::StarRocks,
                    "BACKUP SNAPSHOT d.`a;b` TO r PROPERTIES(\"k\"=\"it\\\";\")"
                ),
                (Language::Postgres, "select $x$;$x$, $1"),
                (Language::Session, "set a = ';'"),
            ]
        );
        for piece in split(message) {
            assert_eq!(
                &message[piece.offset..piece.offset + piece.text.len()],
                piece.text
            );
        }
    }

    #[test]
    fn unclosed_quotes_run_to_end() {
        for text in [
            "select 'a;b",
            "BACKUP `a;b",
            "select $x$ ; ",
            "select /* /* ; */ ;",
            "select \"a;",
        ] {
            assert_eq!(split(text).len(), 1, "{text}");
        }
        assert!(split(" ; -- x\n /* y */ ").is_empty());
    }
}
