//! The one error type that crosses module borders, and the table of SQLSTATEs.
//!
//! Policy. Inside a module a small `thiserror` enum may say what that layer tried; at its border
//! the error becomes an [`Error`] of one [`ErrorKind`], and each kind is one SQLSTATE. Messages are
//! written as PostgreSQL writes them (lower case, no full stop, naming the object) unless StarRocks
//! has a message for the case: then StarRocks' text is the message. What to do about it goes into
//! the hint. An error is logged once, where it is handled, and never carries a secret.

mod datafusion;
mod redact;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::datafusion::from_datafusion;
use self::redact::without_signatures;

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $kind:ident => $sqlstate:literal,)*) => {
        /// What went wrong, in as many words as a client can act on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorKind { $($(#[$doc])* $kind,)* }

        impl ErrorKind {
            /// Every kind, for tests and documentation.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$kind,)*];

            /// The five-character SQLSTATE that clients branch on.
            pub fn sqlstate(self) -> &'static str {
                match self { $(ErrorKind::$kind => $sqlstate,)* }
            }
        }
    };
}

error_kinds! {
    /// The text is no statement we know; carries a position.
    Syntax => "42601",
    /// Grammatical, and refused before anything is looked up: clauses that exclude each other, an
    /// alias where none may stand.
    IllegalClause => "42000",
    /// A privilege that the object does not have.
    InvalidGrant => "0LP01",
    /// A name breaks its rules.
    InvalidName => "42602",
    /// No such table or view.
    UndefinedTable => "42P01",
    /// No such column.
    UndefinedColumn => "42703",
    /// No such function, or no such operator for these types.
    UndefinedFunction => "42883",
    /// A column name that means two things.
    AmbiguousColumn => "42702",
    /// The same column twice.
    DuplicateColumn => "42701",
    /// An object or a function of another kind than the statement needs: a table where a view
    /// should be, FILTER of no aggregate.
    WrongObjectType => "42809",
    /// The same table twice, or one that exists already.
    DuplicateTable => "42P07",
    /// No such cluster (a database, to PostgreSQL).
    UndefinedDatabase => "3D000",
    /// No such StarRocks database (a schema, to PostgreSQL).
    UndefinedSchema => "3F000",
    /// A StarRocks database that exists already.
    DuplicateSchema => "42P06",
    /// No such repository, snapshot, partition, user, broker or job.
    UndefinedObject => "42704",
    /// Such an object exists already.
    DuplicateObject => "42710",
    /// A definition that cannot be carried out.
    InvalidDefinition => "42P16",
    /// A value that does not fit its type.
    DatatypeMismatch => "42804",
    /// A property or parameter with an unusable value.
    InvalidParameter => "22023",
    /// Text that does not read as the type it should be.
    InvalidText => "22P02",
    /// A character that a text cannot have.
    UntranslatableCharacter => "22P05",
    /// A number outside the range of its type.
    OutOfRange => "22003",
    /// Text longer than its column.
    TooLong => "22001",
    /// A pattern that is no regular expression.
    InvalidRegex => "2201B",
    /// An escape character with nothing to escape.
    InvalidEscape => "22025",
    /// A logarithm of zero or less.
    InvalidLogarithm => "2201E",
    /// A power that is no real number.
    InvalidPower => "2201F",
    /// A cast between two types that have none.
    CannotCast => "42846",
    /// A substring of negative length.
    InvalidSubstring => "22011",
    /// A window frame of negative size.
    InvalidFrame => "22013",
    /// LIMIT or OFFSET below zero.
    InvalidRowCount => "2201W",
    /// Buckets that there cannot be.
    InvalidBuckets => "2201G",
    /// NULL where a function takes none.
    NullNotAllowed => "22004",
    /// More than one row where one is expected.
    Cardinality => "21000",
    /// An aggregate where none may stand.
    Grouping => "42803",
    /// A window function without a window.
    Windowing => "42P20",
    /// ORDER BY of a place that is not there.
    InvalidColumnReference => "42P10",
    DivisionByZero => "22012",
    /// A date or time that is none.
    InvalidDatetime => "22007",
    /// A time or an interval outside of its range.
    DateTimeOverflow => "22008",
    /// A malformed COPY stream.
    BadCopy => "22P04",
    /// Any other error in data.
    Data => "22000",
    /// NULL in a NOT NULL column.
    NotNull => "23502",
    /// A row that no partition takes.
    NoPartition => "23514",
    /// The user may not do this.
    InsufficientPrivilege => "42501",
    /// Wrong password, or no such user.
    InvalidPassword => "28P01",
    /// A login that cannot be.
    InvalidAuthorization => "28000",
    /// Real, but not here.
    Unsupported => "0A000",
    /// The database, table or repository is busy with another job.
    ObjectInUse => "55006",
    /// The object is in the wrong state for this.
    WrongState => "55000",
    /// A transaction block that has failed.
    InFailedTransaction => "25P02",
    /// COMMIT or ROLLBACK without a block.
    NoActiveTransaction => "25P01",
    /// Not possible inside a transaction block.
    ActiveTransaction => "25001",
    /// A change in a block that only reads.
    ReadOnlyTransaction => "25006",
    /// A cursor of that name exists.
    DuplicateCursor => "42P03",
    /// No such savepoint.
    InvalidSavepoint => "3B001",
    /// No such prepared statement.
    InvalidStatementName => "26000",
    /// A prepared statement of that name exists.
    DuplicateStatementName => "42P05",
    /// No such portal.
    InvalidCursorName => "34000",
    /// No such parameter `$n`.
    UndefinedParameter => "42P02",
    /// A parameter whose type cannot be told.
    IndeterminateType => "42P18",
    /// No such setting.
    UndefinedSetting => "42704",
    /// A setting that cannot be changed now.
    FixedSetting => "55P02",
    /// Storage answered with an error.
    Storage => "58030",
    /// A file or object that should be there is not.
    MissingFile => "58P01",
    /// Storage is full.
    DiskFull => "53100",
    /// A cluster node cannot be reached.
    Connection => "08006",
    /// A StarRocks cluster refused, in words that fit no other kind.
    Remote => "HV000",
    /// The client broke the protocol.
    Protocol => "08P01",
    /// Bytes that are not what they were.
    Corrupted => "XX001",
    /// Stopped by the user or by a timeout.
    Cancelled => "57014",
    /// The client said nothing inside a block for too long.
    IdleInTransaction => "25P03",
    /// The client said nothing for too long.
    IdleSession => "57P05",
    /// The server is going down.
    Shutdown => "57P01",
    /// The server is not up yet.
    StartingUp => "57P03",
    TooManyConnections => "53300",
    /// A named limit of the settings is reached.
    LimitExceeded => "54000",
    /// More columns than one list may have.
    TooManyColumns => "54011",
    /// More arguments than one call may have.
    TooManyArguments => "54023",
    /// Too many open files.
    OutOfFiles => "53000",
    /// Whether a transaction was committed is not known.
    InDoubt => "40003",
    /// A lock that was not to be had in time.
    LockNotAvailable => "55P03",
    /// Not enough memory for this query.
    OutOfMemory => "53200",
    /// A bad setting in the configuration file, environment or command line.
    Configuration => "F0000",
    /// A bug of ours.
    Internal => "XX000",
}

/// An error with everything a client is told about it.
#[derive(Clone, Debug)]
pub struct Error {
    /// Decides the SQLSTATE.
    pub kind: ErrorKind,
    /// One line, naming the object.
    pub message: String,
    /// More facts, for the DETAIL field.
    pub detail: Option<String>,
    /// What to do, for the HINT field.
    pub hint: Option<String>,
    /// Byte offset into the statement's text, from 0; the wire turns it into PostgreSQL's character
    /// position from 1.
    pub position: Option<usize>,
    /// The statement as a StarRocks cluster got it, of which its message speaks.
    pub printed: Option<Arc<Printed>>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    of_cluster: bool,
}

/// A statement's text, which may have secrets and is not shown.
pub struct Printed(pub String);

impl fmt::Debug for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Error {
    /// An error of a kind with its message, in which URLs have no signatures.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: without_signatures(message.into()),
            detail: None,
            hint: None,
            position: None,
            printed: None,
            source: None,
            of_cluster: false,
        }
    }

    /// A bug of ours: what should have held did not.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
            .hint("This is a bug in Starkeep; please report it with the server's log.")
    }

    /// Something real that is not offered here.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{what} is not supported"))
    }

    /// Marks the message as the words of a StarRocks cluster.
    pub fn of_cluster(mut self) -> Self {
        self.of_cluster = true;
        self
    }

    /// Says which text a cluster's message is about, where it is not the user's own.
    pub fn printed_as(mut self, printed: &str) -> Self {
        self.printed = Some(Arc::new(Printed(printed.to_owned())));
        self
    }

    /// Whether the message is in the words of a StarRocks cluster.
    pub fn is_of_cluster(&self) -> bool {
        self.of_cluster || self.kind == ErrorKind::Remote
    }

    /// The same error under another kind.
    pub fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same error, its message after what was being done.
    pub fn prefixed(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Adds facts.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(without_signatures(detail.into()));
        self
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds where in the statement, as a byte offset from 0.
    pub fn at(mut self, offset: usize) -> Self {
        self.position = Some(offset);
        self
    }

    /// Moves the position by the offset of the statement inside a longer text.
    pub fn shifted(mut self, by: usize) -> Self {
        self.position = self.position.map(|p| p + by);
        self
    }

    /// Keeps the position inside a text of this length.
    pub fn at_most(mut self, length: usize) -> Self {
        self.position = self.position.map(|p| p.min(length));
        self
    }

    /// Adds the cause.
    pub fn source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// A local file operation that failed: says what was tried and on which path, and tells a full
    /// disk apart.
    pub fn io(
        what: impl fmt::Display,
        path: impl AsRef<std::path::Path>,
        error: std::io::Error,
    ) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ErrorKind::DiskFull
            }
            std::io::ErrorKind::NotFound => ErrorKind::MissingFile,
            // EMFILE and ENFILE: nothing is wrong with what was to be opened.
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => ErrorKind::OutOfFiles,
            _ => ErrorKind::Storage,
        };
        Self::new(
            kind,
            format!("could not {what} \"{}\": {error}", path.as_ref().display()),
        )
        .source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|e| e as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_well_formed_sqlstate() {
        for kind in ErrorKind::ALL {
            let code = kind.sqlstate();
            assert_eq!(code.len(), 5, "{kind:?}");
            assert!(
                code.bytes()
                    .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()),
                "{kind:?}"
            );
            // Class 00 is success and 01 and 02 are warnings: none is an error.
            assert!(!["00", "01", "02"].contains(&&code[..2]), "{kind:?}");
        }
    }
}
