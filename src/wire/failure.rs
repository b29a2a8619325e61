//! Why statements and connections end before their time.

use crate::error::Error;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client is gone, or said good-bye.
    Closed,
    /// The client is told why.
    Fatal(Error),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Closed
    }
}

/// Why a statement did not come to its end.
pub(super) enum Failure {
    /// The statement's own error: it is told, and the connection goes on.
    Statement(Error),
    Connection(End),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Statement(error)
    }
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        Self::Connection(end)
    }
}
