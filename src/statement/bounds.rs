//! How long, how deep and how wide a statement may be: measured over its text before it is cut into
//! tokens, over the tokens that a parser will see (two lexers never agree on every text), and over
//! what was parsed, where only names tell how large the whole is.
//!
//! Parsers, planners and the code that drops their trees recurse or copy; each of them is safe
//! because nothing larger than these bounds ever reaches it.

mod weigh;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use self::weigh::check_parsed;
use super::split::{Language, after_opaque};
use crate::error::{Error, ErrorKind};

/// Limits of one statement; each is the setting `statement_<name>`, which gives its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its text, bytes.
    pub bytes_max: usize,
    /// Words, numbers, strings and signs.
    pub tokens_max: usize,
    /// Brackets, CASEs, types and queries inside one another.
    pub nesting_max: usize,
    /// Operators that one expression chains.
    pub operators_max: usize,
    /// Items of one list.
    pub items_max: usize,
    /// Tables, views and WITH queries that it reads, each as often as it is read.
    pub relations_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes_max: 16 << 20,
            tokens_max: 250_000,
            nesting_max: 50,
            operators_max: 500,
            items_max: 100_000,
            relations_max: 128,
        }
    }
}

/// How a text is to be read: its bounds, and a flag that another thread sets to have the reading
/// given up.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What is too much.
    pub bounds: Bounds,
    stop: Arc<AtomicBool>,
}

impl Reading {
    /// A reading within bounds.
    pub fn within(bounds: Bounds) -> Self {
        Self {
            bounds,
            stop: Arc::default(),
        }
    }

    /// Has the reading given up when it is dropped.
    pub fn stop_on_drop(&self) -> StopReading {
        StopReading(self.stop.clone())
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Stops a [`Reading`] when it is dropped.
#[derive(Debug)]
pub struct StopReading(Arc<AtomicBool>);

impl Drop for StopReading {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How large a statement is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Words, numbers, strings and signs.
    pub tokens: usize,
    /// Brackets, CASEs and types inside one another.
    pub nesting: usize,
    /// The longest chain of operators, an upper bound.
    pub operators: usize,
    /// The longest list.
    pub items: usize,
}

fn refuse<T>(what: String, setting: &str, hint: &str) -> Result<T, Error> {
    Err(Error::new(ErrorKind::LimitExceeded, what)
        .hint(format!("{hint} The limit is the setting {setting}.")))
}

/// Refuses a text that is too long to be cut into tokens: 54000 with the name of the setting.
/// Answers how many it will be.
pub(super) fn check_text(text: &str, language: Language, bounds: &Bounds) -> Result<usize, Error> {
    if text.len() > bounds.bytes_max {
        let what = format!(
            "the statement has {} bytes, {} at most are read",
            text.len(),
            bounds.bytes_max
        );
        return refuse(what, "statement_bytes_max", "Send rows with COPY.");
    }
    let tokens = count_tokens(text, language, bounds.tokens_max);
    if tokens > bounds.tokens_max {
        return too_many_tokens(bounds);
    }
    Ok(tokens)
}

fn too_many_tokens<T>(bounds: &Bounds) -> Result<T, Error> {
    let what = format!(
        "the statement has more than {} words and signs",
        bounds.tokens_max
    );
    refuse(
        what,
        "statement_tokens_max",
        "Send rows with COPY, or in several statements.",
    )
}

/// Refuses tokens that a parser would make too large a tree of; 54000 with the name of the setting.
pub(super) fn check_tokens<'t>(
    tokens: impl Iterator<Item = Kind<'t>>,
    bounds: &Bounds,
) -> Result<Measure, Error> {
    let measure = measure(tokens);
    if measure.tokens > bounds.tokens_max {
        return too_many_tokens(bounds);
    }
    if measure.nesting > bounds.nesting_max {
        let what = format!(
            "the statement is nested too deeply: {} levels, {} at most",
            measure.nesting, bounds.nesting_max
        );
        return refuse(what, "statement_nesting_max", "Use WITH for inner queries.");
    }
    if measure.operators > bounds.operators_max {
        let what = format!(
            "the statement chains too many operators: {}, {} at most",
            measure.operators, bounds.operators_max
        );
        return refuse(
            what,
            "statement_operators_max",
            "Use IN (…) or a table of values instead of long ORs.",
        );
    }
    if measure.items > bounds.items_max {
        let what = format!(
            "a list of the statement has {} items, {} at most",
            measure.items, bounds.items_max
        );
        return refuse(
            what,
            "statement_items_max",
            "Send rows with COPY, or join a table.",
        );
    }
    Ok(measure)
}

/// The error of a statement whose nesting only the parser can see.
pub(super) fn nested_too_deeply(bounds: &Bounds) -> Error {
    Error::new(
        ErrorKind::LimitExceeded,
        "the statement is nested too deeply",
    )
    .hint(format!(
        "Expressions may nest {} levels deep (the setting statement_nesting_max).",
        bounds.nesting_max
    ))
}

/// About how many tokens a text has, counting no further than one above `most`.
fn count_tokens(text: &str, language: Language, most: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut tokens, mut at) = (0, 0);
    while at < bytes.len() && tokens <= most {
        let next = after_opaque(text, at, language);
        let is_word =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$') || !b.is_ascii();
        if next > at {
            tokens += 1;
            at = next;
        } else if is_word(bytes[at]) {
            tokens += 1;
            at += bytes[at..]
                .iter()
                .position(|b| !is_word(*b))
                .unwrap_or(bytes.len() - at);
        } else {
            tokens += usize::from(!bytes[at].is_ascii_whitespace());
            at += 1;
        }
    }
    tokens
}

/// What a token is to the measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'t> {
    /// A bare word.
    Word(&'t str),
    /// `(` or `{`
    Open,
    /// `[`
    OpenSubscript,
    Close,
    /// `,` or `;`
    Comma,
    Less,
    Greater,
    /// `>>`
    GreaterTwice,
    Operator,
    /// Anything else: numbers, strings, quoted names, points.
    Other,
}

/// Words that stand between two parts of an expression or of a query, and make its tree deeper.
const OPERATORS: &[&str] = &[
    "AND",
    "OR",
    "XOR",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "MINUS",
    "JOIN",
    "IS",
    "IN",
    "LIKE",
    "ILIKE",
    "RLIKE",
    "REGEXP",
    "BETWEEN",
    "SIMILAR",
    "COLLATE",
    "AT",
    "DIV",
    "MOD",
    "ISNULL",
    "NOTNULL",
    "OPERATOR",
    "OVERLAPS",
    "MEMBER",
    "PIVOT",
    "UNPIVOT",
];

/// Types that name another in angle brackets.
const TYPES_OF_TYPES: &[&str] = &["ARRAY", "MAP", "STRUCT", "NULLABLE", "LOWCARDINALITY"];

fn is_any(word: &str, of: &[&str]) -> bool {
    of.iter().any(|w| w.eq_ignore_ascii_case(word))
}

/// An open bracket or CASE.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Operators since its last comma, those of what is closed inside it included.
    operators: usize,
    /// The most between two of its commas.
    most: usize,
    items: usize,
    is_case: bool,
}

impl Level {
    fn next_item(&mut self) {
        self.most = self.most.max(self.operators);
        self.operators = 0;
        self.items += 1;
    }
}

/// The levels that are open, the statement itself first.
struct Levels {
    outer: Vec<Level>,
    here: Level,
    items: usize,
}

impl Levels {
    fn open(&mut self, level: Level) {
        self.outer.push(std::mem::replace(&mut self.here, level));
    }

    /// Closes the innermost; a bracket that closes nothing is the parser's to refuse.
    fn close(&mut self) {
        let Some(outer) = self.outer.pop() else {
            return;
        };
        let inner = std::mem::replace(&mut self.here, outer);
        self.items = self.items.max(inner.items);
        self.here.operators += inner.most.max(inner.operators);
    }
}

/// Upper bounds of what a parser would make of these tokens. sqlparser reads `a AND a AND …` and
/// `int[][]…` in loops and makes trees as deep as those are long; dropping or printing them takes
/// as much stack.
fn measure<'t>(tokens: impl Iterator<Item = Kind<'t>>) -> Measure {
    let mut levels = Levels {
        outer: Vec::new(),
        here: Level::default(),
        items: 0,
    };
    let mut measure = Measure::default();
    // Open angle brackets of types, and prefixes that sqlparser reads by calling itself.
    let (mut angles, mut intervals) = (0usize, 0usize);
    let mut names_type_of_types = false;
    for token in tokens {
        measure.tokens += 1;
        let after_type = std::mem::take(&mut names_type_of_types);
        let mut is_interval = false;
        match token {
            Kind::Open => levels.open(Level::default()),
            Kind::OpenSubscript => {
                // A subscript or a suffix of a type is a level of its own around what stands before
                // it.
                levels.here.operators += 1;
                levels.open(Level::default());
            }
            Kind::Close => levels.close(),
            Kind::Comma => levels.here.next_item(),
            Kind::Less if after_type => angles += 1,
            Kind::Greater if angles > 0 => angles -= 1,
            Kind::GreaterTwice if angles > 1 => angles -= 2,
            Kind::Less | Kind::Greater | Kind::GreaterTwice | Kind::Operator => {
                levels.here.operators += 1
            }
            Kind::Other => {}
            Kind::Word(word) => {
                is_interval = word.eq_ignore_ascii_case("INTERVAL");
                names_type_of_types = is_any(word, TYPES_OF_TYPES);
                // CASE is a bracket, too, whose parts stand side by side.
                if word.eq_ignore_ascii_case("CASE") {
                    levels.open(Level {
                        is_case: true,
                        ..Level::default()
                    });
                } else if levels.here.is_case && is_any(word, &["WHEN", "THEN", "ELSE"]) {
                    levels.here.next_item();
                } else if levels.here.is_case && word.eq_ignore_ascii_case("END") {
                    levels.close();
                    levels.here.operators += 1;
                } else if is_any(word, OPERATORS) {
                    levels.here.operators += 1;
                }
            }
        }
        intervals = if is_interval { intervals + 1 } else { 0 };
        measure.nesting = measure.nesting.max(levels.outer.len() + angles + intervals);
    }
    while !levels.outer.is_empty() {
        levels.close();
    }
    measure.items = levels.items.max(levels.here.items);
    measure.operators = levels.here.most.max(levels.here.operators);
    measure
}

/// What PostgreSQL allows in one SELECT list, GROUP BY or ORDER BY.
const COLUMNS_MAX: usize = 1664;
/// What PostgreSQL allows in one call.
const ARGUMENTS_MAX: usize = 100;

/// How often the expressions of a query may be copied by the optimizer, all in all.
const COPIES_MAX: usize = 100_000;
/// Levels of expressions inside one another of which each may be copied twice.
const DUPLICATING_MAX: u32 = 10;
/// Columns of a CUBE: its sets are two to the power of them.
const CUBE_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(text: &str) -> (usize, usize, usize, usize) {
        let tokens = crate::statement::dialect::sql_tokens(text);
        let m = measure(tokens.iter().filter_map(crate::statement::dialect::kind_of));
        (m.tokens, m.nesting, m.operators, m.items)
    }

    #[test]
    fn a_statement_is_measured_by_its_tokens() {
        for (text, expected) in [
            ("SELECT 1", (2, 0, 0, 0)),
            ("SELECT 'a + (b)', \"c[\", 1.5e3 -- + +\n", (6, 0, 0, 2)),
            ("SELECT ((1 + 2) * 3)", (10, 2, 2, 0)),
            ("SELECT NULL::int[][]", (8, 1, 3, 0)),
            ("SELECT CAST(1 AS ARRAY<ARRAY<INT>>)", (12, 3, 0, 0)),
            ("SELECT a < b, c > d", (8, 0, 1, 1)),
            (
                "SELECT CASE WHEN a THEN 1 ELSE CASE b WHEN 2 THEN 3 END END",
                (15, 2, 2, 3),
            ),
            ("SELECT $x$ (((( $x$, $1", (4, 0, 0, 1)),
            ("SELECT INTERVAL INTERVAL INTERVAL '1'", (5, 3, 0, 0)),
            ("SELECT 1 |-- 2::int[][]\n", (10, 1, 4, 0)),
        ] {
            assert_eq!(measured(text), expected, "{text}");
        }
    }

    /// As pgjdbc asks for types: long CASEs over one column, in one another's subqueries, are no
    /// chain of copies.
    #[test]
    fn subqueries_in_expressions_do_not_multiply() {
        let cases = "WHEN typname = 'x' THEN 1 ".repeat(400);
        let scalar = format!(
            "CASE WHEN typtype = 'd' THEN (SELECT CASE {cases} END FROM pg_type b WHERE b.oid = t.typbasetype) END"
        );
        let text = format!("SELECT CASE {cases} END, {scalar} FROM pg_type t");
        assert!(crate::statement::parse_one(&text).is_ok());
        let chain = format!(
            "SELECT CASE {cases} END AS x FROM (SELECT CASE {cases} END AS typname FROM pg_type) t"
        );
        assert!(crate::statement::parse_one(&chain).is_err());
    }

    #[test]
    fn counting_survives_any_prefix() {
        let text = "SELECT E'a\\', $x$ü$x$, `b`, ARRAY[1]::int[] || CASE WHEN a<b THEN {x} END /* /* */ */ 日 \u{3000}";
        for end in (0..=text.len()).filter(|i| text.is_char_boundary(*i)) {
            for language in [Language::Postgres, Language::StarRocks, Language::Session] {
                assert!(count_tokens(&text[..end], language, usize::MAX) <= end);
            }
        }
        assert_eq!(count_tokens(&"1,".repeat(100), Language::Postgres, 50), 51);
    }
}
