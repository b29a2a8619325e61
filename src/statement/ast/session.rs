//! Session commands, cursors and COPY, as values.

use datafusion::sql::sqlparser::ast as sql;

use super::Qualified;
use crate::names::{DatabaseName, TableName};

/// A change of the session.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionCommand {
    /// `USE db`
    Use(DatabaseName),
    /// `SET [SESSION | LOCAL] name = value`; no value means DEFAULT.
    Set {
        /// The setting, folded to lower case.
        name: String,
        /// Its values as text; lists have several.
        value: Option<Vec<String>>,
        /// `LOCAL`: until the end of the block.
        local: bool,
    },
    /// `SHOW name`
    ShowSetting(String),
    ShowAllSettings,
    /// `RESET name`
    Reset(String),
    ResetAll,
    /// `BEGIN`, `START TRANSACTION`
    Begin {
        /// What it says of the block.
        modes: TransactionModes,
        /// The command tag.
        tag: &'static str,
    },
    /// `SET TRANSACTION`, or `SET SESSION CHARACTERISTICS AS TRANSACTION`
    SetTransaction {
        /// What it says.
        modes: TransactionModes,
        /// Of the blocks to come, not of this one.
        session: bool,
    },
    /// `COMMIT`, `END`; `AND CHAIN` begins another block at once.
    Commit {
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`
    Rollback {
        chain: bool,
    },
    /// `DECLARE … CURSOR FOR`
    Declare(Box<DeclareCursor>),
    /// `FETCH`, `MOVE`
    Fetch {
        /// The cursor.
        name: String,
        /// Which rows.
        direction: Direction,
        /// `MOVE`: over the rows, without an answer.
        moves: bool,
    },
    /// `CLOSE name`; `None` is ALL.
    CloseCursor(Option<String>),
    /// `LOCK TABLE`: nothing to lock, and only inside a block.
    Lock,
    /// `SAVEPOINT name`
    Savepoint(String),
    /// `RELEASE [SAVEPOINT] name`
    Release(String),
    /// `ROLLBACK TO [SAVEPOINT] name`
    RollbackTo(String),
    DiscardAll,
    /// `DEALLOCATE name`
    Deallocate(String),
    DeallocateAll,
    /// Accepted because clients send it, without effect: LISTEN, NOTIFY, UNLISTEN, DISCARD PLANS.
    /// Holds the command tag.
    Accepted(&'static str),
}

/// What BEGIN and SET TRANSACTION say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// The isolation level, in lower case.
    pub isolation: Option<String>,
    /// `READ ONLY` or `READ WRITE`
    pub read_only: Option<bool>,
}

/// `DECLARE name [BINARY] [[NO] SCROLL] CURSOR [WITH HOLD] FOR query`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeclareCursor {
    pub name: String,
    /// `BINARY`: values come in binary format.
    pub binary: bool,
    /// `SCROLL` or `NO SCROLL`
    pub scroll: Option<bool>,
    /// `WITH HOLD`: it outlives its block.
    pub hold: bool,
    pub query: Option<Box<sql::Statement>>,
    /// The statement as it was written.
    pub text: String,
}

/// Which rows FETCH takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The next n.
    Forward(i64),
    /// All that follow.
    ForwardAll,
    /// The n before, last one first.
    Backward(i64),
    /// All before, last one first.
    BackwardAll,
    /// The nth from the start, or from the end.
    Absolute(i64),
    /// The nth from here.
    Relative(i64),
}

/// `COPY table [(columns)] | (query) TO STDOUT [options]`
#[derive(Clone, Debug, PartialEq)]
pub struct CopyTo {
    pub query: Box<sql::Statement>,
    /// How they are written.
    pub format: CopyFormat,
    /// Columns that CSV puts into quotes even where it need not.
    pub force_quote: ForceQuote,
}

/// `FORCE_QUOTE`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ForceQuote {
    /// Not said.
    #[default]
    None,
    /// `*`
    All,
    Columns(Vec<String>),
}

/// `COPY table [(columns)] FROM STDIN | 'url' [options]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFrom {
    pub table: Qualified<TableName>,
    /// The columns the data has; empty means all, in order.
    pub columns: Vec<String>,
    /// `None` is STDIN.
    pub location: Option<String>,
    /// How the data is written.
    pub format: CopyFormat,
}

/// How COPY data is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's text format.
    Text {
        /// Between columns.
        delimiter: u8,
        /// What stands for NULL.
        null: String,
    },
    Csv {
        /// Between columns.
        delimiter: u8,
        /// Around values.
        quote: u8,
        /// Before a quote inside a quoted value.
        escape: u8,
        /// What stands for NULL, unquoted.
        null: String,
        /// Whether the first line is names.
        header: bool,
    },
    /// PostgreSQL's binary format.
    Binary,
    /// Apache Parquet (from a URL only).
    Parquet,
}
