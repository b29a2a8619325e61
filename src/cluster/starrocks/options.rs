//! How a StarRocks cluster is reached: the properties of CREATE CLUSTER, or of a `[[cluster]]` in
//! the settings.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::print_statement::FeVersion;
use crate::cluster::{ClusterKind, Polling};
use crate::error::{Error, ErrorKind};

/// A frontend's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an IP address.
    pub host: String,
    /// The port of the MySQL protocol.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Whether the way to the frontends is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// It is not.
    Disabled,
    /// It is, with whoever answers.
    Required,
    /// It is, and the certificate must name the host and come from a known authority: the file's,
    /// or the public ones.
    Verify(Option<PathBuf>),
}

/// Everything about reaching a cluster. Debug shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// Its frontends; any that answers tells which of them leads.
    pub frontends: Vec<Address>,
    pub user: String,
    /// The user's password.
    pub password: Option<String>,
    /// Encryption.
    pub tls: Tls,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a statement of ours may take, and the first row of a query.
    pub statement_timeout: Duration,
    /// How long BACKUP, RESTORE and other statements with an effect may take until they are
    /// answered: frontends wait for locks and ask the store before they answer.
    pub submission_timeout: Duration,
    /// The version, where the frontends do not tell it.
    pub version: Option<FeVersion>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Whether jobs wait for their turn when the statement does not say.
    pub queue: bool,
    /// How often it is looked at.
    pub polling: Polling,
    /// How old the names of databases, tables and columns may be.
    pub names_max_age: Duration,
    /// The most snapshots that an incremental backup may need beside its own; the one after is full.
    pub older_max: usize,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("frontends", &self.frontends)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The port of a frontend that is named without one.
const QUERY_PORT: u16 = 9030;

fn invalid(key: &str, why: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidParameter,
        format!("invalid value of cluster property \"{key}\": {why}"),
    )
}

fn address(text: &str) -> Option<Address> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok().filter(|p| *p > 0)?)
        }
        _ => (text, QUERY_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty() && !host.contains(char::is_whitespace)).then(|| Address {
        host: host.to_owned(),
        port,
    })
}

struct Reader<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Reader<'a> {
    fn take(&mut self, key: &str) -> Option<&'a str> {
        self.0.remove(key)
    }

    fn number(&mut self, key: &str, default: u64, least: u64, most: u64) -> Result<u64, Error> {
        let Some(text) = self.take(key) else {
            return Ok(default);
        };
        let number = text
            .trim()
            .parse()
            .ok()
            .filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| {
            invalid(
                key,
                format!("\"{text}\" is not a whole number from {least} to {most}"),
            )
        })
    }

    fn flag(&mut self, key: &str) -> Result<bool, Error> {
        match self
            .take(key)
            .map(|t| t.trim().to_ascii_lowercase())
            .as_deref()
        {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(invalid(key, format!("\"{other}\" is not true or false"))),
        }
    }
}

/// What the properties say the cluster is; StarRocks when they say nothing.
pub fn kind_of(properties: &BTreeMap<String, String>) -> Result<ClusterKind, Error> {
    match properties
        .get("type")
        .map(|t| t.to_ascii_lowercase())
        .as_deref()
    {
        None | Some("starrocks") => Ok(ClusterKind::StarRocks),
        Some("none") => match properties.keys().find(|k| *k != "type") {
            None => Ok(ClusterKind::None),
            Some(key) => Err(invalid(
                key,
                "a cluster of type \"none\" has no other properties",
            )),
        },
        Some(other) => Err(invalid(
            "type",
            format!("\"{other}\" is none of starrocks, none"),
        )),
    }
}

impl Options {
    /// Reads the properties; errors are 22023 and name the key.
    pub fn read(properties: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut left = Reader(
            properties
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect(),
        );
        left.take("type");
        let fe = left.take("fe").unwrap_or_default();
        let mut frontends = Vec::new();
        for text in fe.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            frontends.push(
                address(text)
                    .ok_or_else(|| invalid("fe", format!("\"{text}\" is not host:port")))?,
            );
        }
        if frontends.is_empty() {
            return Err(invalid(
                "fe",
                "give the frontends as \"host:9030, host:9030\"",
            ));
        }
        let ca = left.take("tls_ca").map(PathBuf::from);
        let tls = match (left.take("tls").map(str::to_ascii_lowercase).as_deref(), ca) {
            (Some("verify"), ca) => Tls::Verify(ca),
            (_, Some(_)) => return Err(invalid("tls_ca", "it goes with \"tls\" = \"verify\"")),
            (None | Some("disabled"), None) => Tls::Disabled,
            (Some("required"), None) => Tls::Required,
            (Some(other), None) => {
                return Err(invalid(
                    "tls",
                    format!("\"{other}\" is none of disabled, required, verify"),
                ));
            }
        };
        let seconds = Duration::from_secs;
        let options = Self {
            frontends,
            user: left
                .take("user")
                .filter(|u| !u.is_empty())
                .unwrap_or("root")
                .to_owned(),
            password: left
                .take("password")
                .filter(|p| !p.is_empty())
                .map(str::to_owned),
            tls,
            connect_timeout: seconds(left.number("connect_timeout_seconds", 5, 1, 3600)?),
            statement_timeout: seconds(left.number("statement_timeout_seconds", 60, 1, 86_400)?),
            submission_timeout: seconds(left.number(
                "submission_timeout_seconds",
                600,
                30,
                86_400,
            )?),
            version: match left.take("version") {
                None => None,
                Some(text) => Some(
                    FeVersion::parse(text)
                        .ok_or_else(|| invalid("version", format!("\"{text}\" is no number")))?,
                ),
            },
            connections_max: usize::try_from(left.number("connections", 8, 1, 1000)?).unwrap_or(1),
            queue: left.flag("queue")?,
            polling: Polling {
                fast: Duration::from_millis(left.number("poll_fast_ms", 1000, 1, 3_600_000)?),
                slow: Duration::from_millis(left.number("poll_slow_ms", 15_000, 1, 3_600_000)?),
                idle: Duration::from_millis(left.number("poll_idle_ms", 30_000, 1, 3_600_000)?),
            },
            names_max_age: Duration::from_millis(left.number(
                "names_max_age_ms",
                10_000,
                0,
                3_600_000,
            )?),
            older_max: usize::try_from(left.number("incremental_chain_max", 30, 0, 1000)?)
                .unwrap_or(usize::MAX),
        };
        match left.0.keys().next() {
            None => Ok(options),
            Some(key) => Err(Error::new(
                ErrorKind::InvalidParameter,
                format!("unknown cluster property \"{key}\""),
            )
            .hint("See docs/operations.md, \"A StarRocks cluster\".")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Options, Error> {
        Options::read(
            &pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn properties_are_read_and_wrong_ones_named() {
        let options = read(&[
            ("fe", "fe1, fe2:9031,[::1]:9032"),
            ("password", "hush"),
            ("queue", "TRUE"),
        ])
        .expect("good");
        let shown: Vec<_> = options.frontends.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["fe1:9030", "fe2:9031", "[::1]:9032"]);
        assert!(
            options.queue && options.user == "root" && !format!("{options:?}").contains("hush")
        );
        for (pairs, key) in [
            (&[][..], "fe"),
            (&[("fe", "a:b")], "fe"),
            (&[("fe", "a b")], "fe"),
            (&[("fe", "a"), ("tls", "maybe")], "tls"),
            (&[("fe", "a"), ("tls_ca", "/x")], "tls_ca"),
            (&[("fe", "a"), ("poll_fast_ms", "0")], "poll_fast_ms"),
            (&[("fe", "a"), ("version", "main")], "version"),
            (
                &[("fe", "a"), ("submission_timeout_seconds", "5")],
                "submission_timeout_seconds",
            ),
            (&[("fe", "a"), ("nonsense", "1")], "nonsense"),
        ] {
            let message = read(pairs).expect_err(key).message;
            assert!(message.contains(&format!("\"{key}\"")), "{message}");
        }
    }
}
