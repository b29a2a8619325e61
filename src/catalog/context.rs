//! What a catalog query has at hand while it runs, and what it leaves to be done.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use regex::Regex;
use tokio_util::sync::CancellationToken;

use super::relations::Row;
use super::snapshot::Snapshot;
use super::value::Value;
use crate::error::{Error, ErrorKind};

/// What functions ask for beyond an answer. It is done once the query has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
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

pub(super) struct Context {
    pub snapshot: Arc<Snapshot>,
    pub parameters: Vec<Value>,
    pub effects: RefCell<Vec<Effect>>,
    /// The rows of each WITH query, while it is in scope.
    pub slots: RefCell<Vec<Rc<Vec<Row>>>>,
    /// By where the rows are and the column.
    pub indexes: RefCell<HashMap<(usize, usize), Index>>,
    patterns: RefCell<HashMap<String, Rc<Regex>>>,
    stop: CancellationToken,
    steps: Cell<u64>,
    bytes: Cell<usize>,
}

/// Rows that a query may look at: a bound on work that nothing waits for.
const STEPS_MAX: u64 = 200_000_000;
/// Bytes that the rows of a query and of its subqueries may have, together.
const BYTES_MAX: usize = 512 << 20;
/// Rows that may be held at once.
pub(super) const ROWS_MAX: usize = 4_000_000;

impl Context {
    pub fn new(snapshot: Arc<Snapshot>, parameters: Vec<Value>, stop: CancellationToken) -> Self {
        Self {
            snapshot,
            parameters,
            effects: RefCell::default(),
            slots: RefCell::default(),
            indexes: RefCell::default(),
            patterns: RefCell::default(),
            stop,
            steps: Cell::new(0),
            bytes: Cell::new(0),
        }
    }

    /// Counts what a row of an answer holds; an error if a query makes more than the server can spare.
    pub fn hold(&self, row: &[Value]) -> Result<(), Error> {
        let held = self.bytes.get().saturating_add(row.iter().map(Value::size).sum());
        self.bytes.set(held);
        if held <= BYTES_MAX {
            return Ok(());
        }
        Err(Error::new(ErrorKind::OutOfMemory, format!("a query of the catalogs makes more than {BYTES_MAX} bytes")))
    }

    /// Does work whose rows are gone when it is over: they count only meanwhile.
    pub fn passing<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.bytes.get();
        let done = work();
        self.bytes.set(before);
        done
    }

    /// Counts a row; an error if the query should end.
    pub fn step(&self) -> Result<(), Error> {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        if steps.is_multiple_of(256) && self.stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "canceling statement due to user request"));
        }
        if steps > STEPS_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "a query of the catalogs looks at too many rows")
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
            .size_limit(1 << 20)
            .build()
            .map_err(|e| Error::new(ErrorKind::InvalidRegex, format!("invalid regular expression: {e}")))?;
        let compiled = Rc::new(compiled);
        self.patterns.borrow_mut().insert(pattern.to_owned(), compiled.clone());
        Ok(compiled)
    }

    /// Whether a text is LIKE a pattern.
    pub fn like(&self, text: &str, pattern: &str, escape: Option<char>, ignore_case: bool) -> Result<bool, Error> {
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
        Ok(self.pattern(&regex)?.is_match(text))
    }
}
