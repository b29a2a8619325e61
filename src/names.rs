//! The names and ids that travel through the whole program, each a type of its own.
//!
//! A name is made only by parsing, so a value of one of these types is already valid and no later layer checks it again.
//! Rules and messages are StarRocks' (see docs/sql.md, "Names"); what would break out of a repository path is refused here.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses a name; the error is 42602 and carries the offending text.
            pub fn new(name: impl Into<String>) -> Result<Self, Error> {
                let name = name.into();
                if $valid(&name) {
                    Ok(Self(name))
                } else {
                    Err(Error::new(ErrorKind::InvalidName, format!(concat!("Incorrect ", $what, " name '{}'"), name)))
                }
            }

            /// The name as written, without quotes.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(name: String) -> Result<Self, Error> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(name: &str) -> Result<Self, Error> {
                Self::new(name)
            }
        }
    };
}

name_type!(
    /// A StarRocks database, shown to PostgreSQL clients as a schema.
    DatabaseName, "database", is_database_name
);
name_type!(
    /// A table inside one database. Case is kept and significant, as in StarRocks.
    TableName, "table", is_object_name
);
name_type!(
    /// A partition inside one table.
    PartitionName, "partition", is_object_name
);
name_type!(
    /// A snapshot label: unique in its repository, and a directory name there, so path separators are refused.
    SnapshotLabel, "label", is_label
);
name_type!(
    /// A backup repository.
    RepositoryName, "repository", is_repository_name
);
name_type!(
    /// A broker: kept for StarRocks' syntax, never used to move bytes.
    BrokerName, "broker", is_object_name
);
name_type!(
    /// A gateway user.
    UserName, "user", is_object_name
);
name_type!(
    /// A cluster, shown to PostgreSQL clients as a database.
    ClusterName, "cluster", is_object_name
);

fn is_word(name: &str, longest: usize) -> bool {
    let mut chars = name.chars();
    let starts_well = match chars.next() {
        Some('_') => chars.clone().next().is_some_and(|c| c.is_ascii_alphanumeric()),
        Some(c) => c.is_ascii_alphabetic(),
        None => false,
    };
    starts_well && name.len() <= longest && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

fn is_database_name(name: &str) -> bool {
    is_word(name, 256)
}

fn is_repository_name(name: &str) -> bool {
    is_word(name, 64)
}

fn is_object_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 1024 && !name.chars().any(char::is_control)
}

fn is_label(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\')
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id_type!(
    /// A backup or restore job, unique in one metadata store.
    JobId
);
id_type!(
    /// One unit of work inside a job, unique in that job.
    TaskId
);
id_type!(
    /// A repository, unique in one metadata store.
    RepositoryId
);
id_type!(
    /// A storage node of the embedded cluster.
    BackendId
);
id_type!(
    /// A table, unique in one cluster and never used again.
    TableId
);
id_type!(
    /// A partition, unique in one cluster and never used again.
    PartitionId
);
id_type!(
    /// One bucket of one partition, unique in one cluster and never used again.
    TabletId
);

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Microseconds since 1970-01-01 UTC, the unit of the system tables.
    pub fn micros(self) -> i64 {
        self.0.saturating_mul(1000)
    }

    /// This moment plus a number of seconds.
    pub fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)))
    }

    /// The moment as a UTC date and time; out-of-range values show as the epoch.
    pub fn to_utc(self) -> DateTime<Utc> {
        Utc.timestamp_millis_opt(self.0).single().unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_utc().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// When a backup was created, as it stands in object names: `yyyy-MM-dd-HH-mm-ss-SSS`, UTC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupTimestamp(String);

impl BackupTimestamp {
    /// The timestamp of a backup created at this moment.
    pub fn of(at: Timestamp) -> Self {
        Self(at.to_utc().format("%Y-%m-%d-%H-%M-%S-%3f").to_string())
    }

    /// Parses `yyyy-MM-dd-HH-mm-ss-SSS`; anything else is 22023.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let well_formed = text.len() == 23
            && text.is_ascii()
            && NaiveDateTime::parse_from_str(&text[..19], "%Y-%m-%d-%H-%M-%S").is_ok()
            && text.as_bytes()[19] == b'-'
            && text[20..].bytes().all(|b| b.is_ascii_digit());
        if well_formed {
            Ok(Self(text))
        } else {
            Err(Error::new(ErrorKind::InvalidParameter, format!("invalid backup timestamp \"{text}\""))
                .hint("Use the form yyyy-MM-dd-HH-mm-ss-SSS, as SHOW SNAPSHOT prints it, or \"latest\"."))
        }
    }

    /// The timestamp as it stands in object names.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BackupTimestamp {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl From<BackupTimestamp> for String {
    fn from(timestamp: BackupTimestamp) -> String {
        timestamp.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_starrocks() {
        for good in ["a", "A1", "_a", "_1", &"x".repeat(64)] {
            assert!(RepositoryName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "_", "__", "1a", "a-b", "a b", &"x".repeat(65)] {
            let error = RepositoryName::new(bad).expect_err(bad);
            assert_eq!(error.message, format!("Incorrect repository name '{bad}'"));
        }
        assert!(SnapshotLabel::new("nightly-2026.11.23 é").is_ok());
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb"] {
            assert!(SnapshotLabel::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_backup_timestamp_has_milliseconds() {
        let at = Timestamp(1_525_453_861_123);
        assert_eq!(BackupTimestamp::of(at).as_str(), "2018-05-04-17-11-01-123");
        assert!(BackupTimestamp::new("2018-05-04-17-11-01-123").is_ok());
        for bad in ["2018-05-04-17-11-01", "2018-13-04-17-11-01-123", "latest", "2018-05-04-17-11-01-12x", "é018-05-04-17-11-01-12"]
        {
            assert!(BackupTimestamp::new(bad).is_err(), "{bad}");
        }
    }
}
