//! What frontends say when they refuse, and what their answers mean for a connection.

use mysql_async::{DriverError, ServerError};

use crate::cluster::Answer;
use crate::cluster::starrocks::options::Address;
use crate::error::{Error, ErrorKind};

/// What went wrong with a statement.
pub(super) enum Failed {
    /// The frontend said no.
    Server(ServerError),
    /// The connection is of no more use.
    Broken(String),
    /// There was no answer in time.
    Late(String),
}

impl From<mysql_async::Error> for Failed {
    fn from(error: mysql_async::Error) -> Self {
        match error {
            mysql_async::Error::Server(error) => Self::Server(error),
            mysql_async::Error::Driver(DriverError::ConnectionClosed) => {
                Self::Broken("the connection was closed".into())
            }
            other => Self::Broken(
                other
                    .to_string()
                    .trim_start_matches("Input/output error: ")
                    .to_owned(),
            ),
        }
    }
}

pub(super) fn why(failed: &Failed) -> String {
    match failed {
        Failed::Server(e) => e.message.clone(),
        Failed::Broken(why) | Failed::Late(why) => why.clone(),
    }
}

/// A follower that could not pass a statement on does not know what became of it. Such messages
/// begin in these ways; a name that somebody gave a table does not stand there.
pub(super) fn is_forwarding(message: &str) -> bool {
    let message = message
        .trim_start_matches("Unexpected exception: ")
        .to_ascii_lowercase();
    let begins = [
        "failed to forward",
        "fail to forward",
        "forward to",
        "forward statement",
        "forwarding",
        "not master",
        "leader is not ready",
        "node is not leader",
        "java.net.",
        "org.apache.thrift",
    ];
    begins.iter().any(|words| message.starts_with(words))
}

/// The frontends in SHOW FRONTENDS with whether they lead.
pub fn frontends_of(answer: &Answer) -> Vec<(Address, bool)> {
    let column = |name: &str| {
        answer
            .columns
            .iter()
            .position(|c| c.eq_ignore_ascii_case(name))
    };
    let value = |row: &[Option<String>], name: &str| {
        column(name).and_then(|i| row.get(i).cloned().flatten())
    };
    let read = |row: &Vec<Option<String>>| {
        let host = value(row, "IP").or_else(|| value(row, "Host"))?;
        let port = value(row, "QueryPort")?.parse().ok()?;
        let leads = value(row, "Role").is_some_and(|r| r.eq_ignore_ascii_case("LEADER"))
            || value(row, "IsMaster").is_some_and(|m| m == "true");
        Some((Address { host, port }, leads))
    };
    answer.rows.iter().filter_map(read).collect()
}

/// What a frontend refused, in its words; the code goes into the detail.
pub fn refusal(error: &ServerError, address: &Address) -> Error {
    Error::new(kind_of(error), error.message.clone())
        .of_cluster()
        .detail(format!(
            "StarRocks error {} ({}) from {address}",
            error.code, error.state
        ))
}

/// The kind of a refusal: by StarRocks' words first, which say more than its codes.
fn kind_of(error: &ServerError) -> ErrorKind {
    use ErrorKind as K;
    let says = |words: &str| error.message.contains(words);
    if says("Table ") && says(" does not exist in snapshot") && !says("Partition ") {
        return K::UndefinedTable;
    }
    for (words, kind) in [
        ("Can only run one backup or restore job", K::ObjectInUse),
        (
            "Backup or restore job is running on this repository",
            K::ObjectInUse,
        ),
        ("a backup is writing it", K::ObjectInUse),
        ("a restore is reading it", K::ObjectInUse),
        (
            "Another backup or restore job is being submitted",
            K::ObjectInUse,
        ),
        ("Access denied", K::InsufficientPrivilege),
        ("Getting syntax error", K::Syntax),
        ("You have an error in your SQL syntax", K::Syntax),
        ("Syntax error in line", K::Syntax),
        ("already exist in repository", K::DuplicateObject),
        (
            "repository with same name already exist",
            K::DuplicateObject,
        ),
        ("Unknown database", K::UndefinedSchema),
        ("Unknown table", K::UndefinedTable),
        ("Incorrect table name", K::UndefinedTable),
        ("Unknown partition", K::UndefinedObject),
        ("does not exist", K::UndefinedObject),
        ("No backup job is currently running", K::UndefinedObject),
        ("No restore is currently running", K::UndefinedObject),
        ("Incorrect ", K::InvalidName),
        ("Duplicated ", K::DuplicateTable),
        ("is read only", K::WrongState),
        ("can not be cancelled", K::WrongState),
        ("is empty", K::WrongState),
        ("Missing backup_timestamp", K::InvalidParameter),
        ("Unknown backup job properties", K::InvalidParameter),
        ("Unknown restore job properties", K::InvalidParameter),
        ("timeout must be at least", K::InvalidParameter),
        ("Invalid ", K::InvalidParameter),
        ("No database selected", K::UndefinedSchema),
        ("support", K::Unsupported),
    ] {
        if says(words) && (words != "support" || says("not support") || says("unsupport")) {
            return kind;
        }
    }
    match error.code {
        1044 | 1045 | 1142 | 1227 | 1252 | 5203 => K::InsufficientPrivilege,
        1046 | 1049 | 5501 => K::UndefinedSchema,
        1050 | 1051 | 1146 | 5502 => K::UndefinedTable,
        1054 => K::UndefinedColumn,
        1317 | 5024 => K::Cancelled,
        _ => K::Remote,
    }
}
