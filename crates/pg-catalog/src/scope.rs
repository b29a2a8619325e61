//! What names mean inside one query, and what is gathered while its expressions are compiled.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};

use datafusion::sql::sqlparser::ast as sql;

use super::aggregate::{Aggregate, Window};
use super::expr::Eval;
use super::value::ValueType;

/// A column that a name may mean.
#[derive(Clone)]
pub(super) struct ScopeColumn {
    pub table: String,
    pub name: String,
    pub ty: ValueType,
    /// The other half of a USING column: found only by its table.
    pub hidden: bool,
    /// The number of the relation that it is a column of; 0 for what is none.
    pub relation: u32,
}

/// Functions that need more than a row, gathered while the expressions around them are compiled.
#[derive(Default)]
pub(super) struct Gathered {
    pub aggregates: Vec<Aggregate>,
    pub windows: Vec<Window>,
    pub sets: Vec<Eval>,
}

/// How many of them there are.
#[derive(Clone, Copy, Default)]
pub(super) struct GatheredSizes {
    pub windows: usize,
    pub sets: usize,
}

impl Gathered {
    pub fn sizes(&self) -> GatheredSizes {
        GatheredSizes {
            windows: self.windows.len(),
            sets: self.sets.len(),
        }
    }
}

/// What names mean inside one query.
pub(super) struct Scope<'a> {
    pub columns: Vec<ScopeColumn>,
    pub outer: Option<&'a Scope<'a>>,
    /// The columns that were named since this was last emptied.
    pub used: RefCell<BTreeSet<usize>>,
    pub gathered: RefCell<Gathered>,
    /// Whether aggregates and windows may stand here.
    pub gathers: Cell<bool>,
    /// What GROUP BY goes by, as [`normalized`](super::grouping::normalized) writes it, and how
    /// large these are.
    pub grouped_by: RefCell<HashSet<sql::Expr>>,
    pub grouped_sizes: RefCell<BTreeSet<usize>>,
    /// The columns that were named outside of aggregates and of what GROUP BY goes by, and whether
    /// a subquery named them.
    pub ungrouped: RefCell<Vec<(usize, bool)>>,
    /// How many sets belong to what GROUP BY goes by.
    pub grouped_sets: Cell<usize>,
}

impl<'a> Scope<'a> {
    pub fn new(outer: Option<&'a Scope<'a>>) -> Self {
        Self {
            columns: Vec::new(),
            outer,
            used: RefCell::default(),
            gathered: RefCell::default(),
            gathers: Cell::new(false),
            grouped_by: RefCell::default(),
            grouped_sizes: RefCell::default(),
            ungrouped: RefCell::default(),
            grouped_sets: Cell::new(0),
        }
    }

    /// What a compilation does, and the columns that it named.
    pub fn uses<T>(&self, work: impl FnOnce() -> T) -> (T, BTreeSet<usize>) {
        let before = self.used.take();
        let done = work();
        let used = self.used.replace(before);
        self.used.borrow_mut().extend(used.iter());
        (done, used)
    }
}

/// A WITH query in scope.
#[derive(Clone)]
pub(super) struct Cte {
    pub name: String,
    pub columns: Vec<(String, ValueType)>,
    pub slot: usize,
}
