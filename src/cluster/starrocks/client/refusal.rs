//! What frontends say when they refuse, and what their answers mean for a connection.

use mysql_async::{DriverError, ServerError};

use crate::cluster::Answer;
use crate::cluster::starrocks::options::Address;
use crate::cluster::starrocks::table::{Line, lines};
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

/// What a query ends with that needs a backend while none is alive.
const NO_BACKEND: [&str; 2] = ["Backend node not found", "No alive backend"];

/// Whether a frontend refuses because no backend is alive.
pub fn lacks_backends(message: &str) -> bool {
    NO_BACKEND.iter().any(|words| message.contains(words))
}

/// The version that the frontends in SHOW FRONTENDS have: that of the one that leads.
pub(super) fn version_of(answer: &Answer) -> Option<String> {
    let leads = frontends_of(answer);
    let at = leads.iter().position(|(_, leads)| *leads).unwrap_or(0);
    let line = lines(answer).filter(is_frontend).nth(at)?;
    line.get(&["Version"])
}

fn is_frontend(line: &Line<'_>) -> bool {
    line.get(&["IP", "Host"]).is_some() && line.number::<u16>(&["QueryPort"]).is_some()
}

/// The frontends in SHOW FRONTENDS with whether they lead.
pub fn frontends_of(answer: &Answer) -> Vec<(Address, bool)> {
    let read = |line: Line<'_>| {
        let (host, port) = (line.get(&["IP", "Host"])?, line.number(&["QueryPort"])?);
        let leads = line.text("Role").eq_ignore_ascii_case("LEADER")
            || line.flag(&["IsMaster"]) == Some(true);
        Some((Address { host, port }, leads))
    };
    lines(answer).filter_map(read).collect()
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
    kind_of_words(&error.message).unwrap_or(match error.code {
        1044 | 1045 | 1142 | 1227 | 1252 | 5203 => K::InsufficientPrivilege,
        1046 | 1049 | 5501 => K::UndefinedSchema,
        1050 | 1051 | 1146 | 5502 => K::UndefinedTable,
        1054 => K::UndefinedColumn,
        1317 | 5024 => K::Cancelled,
        _ => K::Remote,
    })
}

/// The kind of what StarRocks says, of a refusal or of a job that it has cancelled.
fn kind_of_words(message: &str) -> Option<ErrorKind> {
    use ErrorKind as K;
    let says = |words: &str| message.contains(words);
    if is_forwarding(message) || lacks_backends(message) {
        return Some(K::Connection);
    }
    // What the store has said may be in any words.
    let of_store = says("failed to list remote path") || says("Failed to list snapshot in repo");
    if of_store && !says("already exist") {
        return Some(K::Storage);
    }
    if says("Table ") && says(" does not exist in snapshot") && !says("Partition ") {
        return Some(K::UndefinedTable);
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
        ("Unknown broker name", K::UndefinedObject),
        ("failed to get address of broker", K::UndefinedObject),
        ("is not a OLAP table", K::WrongObjectType),
        ("can not support backup restore, type:", K::WrongObjectType),
        ("Only support restore OLAP table", K::WrongObjectType),
        ("Failed to get info of snapshot", K::UndefinedObject),
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
        ("No partition named", K::UndefinedObject),
        ("No external catalog can be backed up", K::UndefinedObject),
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
            return Some(kind);
        }
    }
    None
}
