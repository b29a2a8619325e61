//! What a catalog query has at hand while it runs, and what it leaves to be done.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryReservation;
use regex::Regex;
use tokio_util::sync::CancellationToken;

use super::snapshot::CatalogSnapshot;
use super::value::{Row, Value};
use starkeep_error::{Error, ErrorKind, from_datafusion};

/// What functions ask for beyond an answer. It is done once the query has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum SideEffect {
    /// `set_config(name, value, is_local)`
    Set {
        /// The setting.
        name: String,
        /// Its new value.
        value: String,
        /// Whether the end of the block undoes it.
        local: bool,
    },
    /// `pg_cancel_backend(pid)`
    Cancel(i32),
    /// `pg_terminate_backend(pid)`
    Terminate(i32),
    /// `pg_sleep(seconds)`, in microseconds.
    Sleep(u64),
}

/// One column of some rows, as an index: which rows have a value.
pub(super) type Index = Rc<HashMap<Value, Vec<usize>>>;

/// What a query of the catalogs may take: it ends when it should stop, when a value or when all of
/// its rows are too large.
#[derive(Debug)]
pub struct Allowance {
    /// Cancelled when nobody waits for the answer any more.
    pub stop: CancellationToken,
    /// The longest value, bytes.
    pub value_bytes_max: usize,
    /// Part of the memory of all queries; grows with the rows that the query holds.
    pub memory: MemoryReservation,
}

pub(super) struct Context {
    pub snapshot: Arc<CatalogSnapshot>,
    pub parameters: Vec<Value>,
    pub effects: RefCell<Vec<SideEffect>>,
    /// The rows of each WITH query, while it is in scope.
    pub slots: RefCell<Vec<Rc<Vec<Row>>>>,
    /// By where the rows are and the column.
    pub indexes: RefCell<HashMap<(usize, usize), Index>>,
    patterns: RefCell<HashMap<String, Rc<Regex>>>,
    allowance: Allowance,
    steps: Cell<u64>,
    bytes: Cell<usize>,
    /// Bytes of values that were made since it was last asked whether anybody waits.
    worked: Cell<usize>,
}

/// Bytes of values that may be made before it is asked again.
const WORK_BYTES: usize = 4 << 20;
/// Rows that a query may look at: a bound on work that nothing waits for.
const STEPS_MAX: u64 = 200_000_000;
/// Rows that may be held at once.
pub(super) const ROWS_MAX: usize = 1_000_000;
/// How much more of the memory of all queries is asked for at a time.
const MEMORY_STEP: usize = 1 << 20;
/// Compiled patterns that are kept: patterns may come from rows, another one each.
const PATTERNS_MAX: usize = 64;
/// What a regular expression takes when it is compiled, bytes; a match looks at all of it for each
/// letter.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Letters times what the pattern takes, for one match: a match cannot be given up half-way.
const MATCH_WORK_MAX: usize = 1 << 34;

impl Context {
    pub fn new(
        snapshot: Arc<CatalogSnapshot>,
        parameters: Vec<Value>,
        allowance: Allowance,
    ) -> Self {
        Self {
            snapshot,
            parameters,
            effects: RefCell::default(),
            slots: RefCell::default(),
            indexes: RefCell::default(),
            patterns: RefCell::default(),
            allowance,
            steps: Cell::new(0),
            bytes: Cell::new(0),
            worked: Cell::new(0),
        }
    }

    /// Counts bytes that the query holds from now on; an error if it takes more than the server can
    /// spare.
    pub fn hold(&self, bytes: usize) -> Result<(), Error> {
        let held = self.bytes.get().saturating_add(bytes);
        self.bytes.set(held);
        let reserved = self.allowance.memory.size();
        if held > reserved {
            let more = (held - reserved).next_multiple_of(MEMORY_STEP);
            if reserved == 0 && more == MEMORY_STEP {
                // So little is never refused: somebody has to be able to ask who takes all the
                // memory.
                self.allowance.memory.grow(more);
            } else {
                self.allowance
                    .memory
                    .try_grow(more)
                    .map_err(from_datafusion)?;
            }
        }
        Ok(())
    }

    /// Does work whose rows are gone when it is over: they count only meanwhile.
    pub fn passing<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.bytes.get();
        let done = work();
        self.bytes.set(before);
        done
    }

    /// How many bytes are held now; [`Context::let_go`] goes back to that.
    pub fn held(&self) -> usize {
        self.bytes.get()
    }

    /// Counts what has been taken since as gone.
    pub fn let_go(&self, held: usize) {
        self.bytes.set(held);
    }

    /// A value that an expression has made, unless it is too long.
    pub fn made(&self, value: Value) -> Result<Value, Error> {
        let bytes = value.size();
        self.check_length(bytes)?;
        // A row of long values is as much work as many rows.
        let worked = self.worked.get().saturating_add(bytes);
        self.worked
            .set(if worked < WORK_BYTES { worked } else { 0 });
        if worked >= WORK_BYTES {
            self.go_on()?;
        }
        Ok(value)
    }

    /// An error once nobody waits for the answer any more.
    fn go_on(&self) -> Result<(), Error> {
        if self.allowance.stop.is_cancelled() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "canceling statement due to user request",
            ));
        }
        Ok(())
    }

    /// Refuses what would be so many bytes long, before it is made.
    pub fn check_length(&self, bytes: usize) -> Result<(), Error> {
        let most = self.allowance.value_bytes_max;
        if bytes <= most {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("requested length too large: {bytes} bytes, {most} at most"),
        )
        .hint("The limit is the setting value_bytes_max."))
    }

    /// Counts a row; an error if the query should end.
    pub fn step(&self) -> Result<(), Error> {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        if steps.is_multiple_of(256) {
            self.go_on()?;
        }
        if steps > STEPS_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "a query of the catalogs looks at too many rows",
            )
            .hint("Join with conditions, or ask for less at a time."));
        }
        Ok(())
    }

    /// A regular expression; each is compiled once a query.
    pub fn pattern(&self, pattern: &str) -> Result<Rc<Regex>, Error> {
        if let Some(known) = self.patterns.borrow().get(pattern) {
            return Ok(known.clone());
        }
        let compiled = regex::RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|e| {
                Error::new(
                    ErrorKind::InvalidRegex,
                    format!("invalid regular expression: {e}"),
                )
            })?;
        let compiled = Rc::new(compiled);
        let mut patterns = self.patterns.borrow_mut();
        if patterns.len() >= PATTERNS_MAX {
            patterns.clear();
        }
        patterns.insert(pattern.to_owned(), compiled.clone());
        Ok(compiled)
    }

    /// A regular expression for a text, which must not be so long that the match takes minutes.
    pub fn pattern_for(&self, pattern: &str, text: &str) -> Result<Rc<Regex>, Error> {
        if text.len().saturating_mul(pattern.len()) > MATCH_WORK_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "the text is too long for this pattern",
            ));
        }
        self.pattern(pattern)
    }

    /// Whether a text is LIKE a pattern.
    pub fn like(
        &self,
        text: &str,
        pattern: &str,
        escape: Option<char>,
        ignore_case: bool,
    ) -> Result<bool, Error> {
        let mut regex = String::from(if ignore_case { "(?is)^" } else { "(?s)^" });
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let literal = match c {
                c if Some(c) == escape => chars.next().unwrap_or(c),
                '%' => {
                    regex.push_str(".*");
                    continue;
                }
                '_' => {
                    regex.push('.');
                    continue;
                }
                c => c,
            };
            regex.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
        }
        regex.push('$');
        Ok(self.pattern_for(&regex, text)?.is_match(text))
    }
}
