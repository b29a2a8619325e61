//! The names and ids that travel through the whole program, each a type of its own.
//!
//! A name is made only by parsing, so a value of one of these types is already valid and no later
//! layer checks it again. Rules and messages are StarRocks' (see docs/sql.md, "Names"); what would
//! break out of a repository path is refused here.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, TimeZone, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// The SHA-256 of some bytes: 64 lower-case hex digits, and so a safe part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(String);

impl Sha256 {
    /// Reads a digest; the error is XX001, because it only ever comes from what was stored.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(text));
        }
        Err(Error::new(
            ErrorKind::Corrupted,
            format!(
                "\"{}\" is no SHA-256",
                text.chars().take(80).collect::<String>()
            ),
        ))
    }

    /// The digest of some bytes.
    pub fn of_digest(digest: &[u8]) -> Result<Self, Error> {
        Self::new(hex::encode(digest))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> String {
        digest.0
    }
}

impl std::ops::Deref for Sha256 {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<String> for Sha256 {
    fn eq(&self, other: &String) -> bool {
        self.0 == *other
    }
}

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
    /// A snapshot label: unique in its repository, and a directory name there, so path separators
    /// are refused.
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
    /// A role: a bundle of privileges.
    RoleName, "role", is_object_name
);
name_type!(
    /// A cluster, shown to PostgreSQL clients as a database.
    ClusterName, "cluster", is_object_name
);

name_type!(
    /// What a job is called over all gateways: it names the job's local directories and its objects
    /// in repositories, so it has only letters, digits, `-` and `_`.
    JobUid, "job", is_uid
);

impl From<uuid::Uuid> for JobUid {
    fn from(uuid: uuid::Uuid) -> Self {
        Self(uuid.to_string())
    }
}

fn is_uid(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn is_word(name: &str, longest: usize) -> bool {
    let mut chars = name.chars();
    let starts_well = match chars.next() {
        Some('_') => chars
            .clone()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric()),
        Some(c) => c.is_ascii_alphabetic(),
        None => false,
    };
    starts_well
        && name.len() <= longest
        && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
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
        && !name
            .chars()
            .any(|c| c.is_control() || c == '/' || c == '\\')
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
        Self(
            self.0.saturating_add(
                i64::try_from(seconds)
                    .unwrap_or(i64::MAX)
                    .saturating_mul(1000),
            ),
        )
    }

    /// The moment as a UTC date and time; out-of-range values show as the epoch.
    pub fn to_utc(self) -> DateTime<Utc> {
        Utc.timestamp_millis_opt(self.0)
            .single()
            .unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As PostgreSQL prints it, without zeros at its end.
        let millis = self.0.rem_euclid(1000);
        let fraction = if millis == 0 {
            String::new()
        } else {
            format!(".{millis:03}").trim_end_matches('0').to_owned()
        };
        write!(
            f,
            "{}{fraction}+00",
            self.to_utc().format("%Y-%m-%d %H:%M:%S")
        )
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
            Err(Error::new(
                ErrorKind::InvalidParameter,
                format!("invalid backup timestamp \"{text}\""),
            )
            .hint(
                "Use the form yyyy-MM-dd-HH-mm-ss-SSS, as SHOW SNAPSHOT prints it, or \"latest\".",
            ))
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

/// How long a backup is kept: `7 DAY`, `12 HOUR`, `1 MONTH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ttl {
    count: u32,
    unit: TtlUnit,
}

macro_rules! ttl_units {
    ($($name:ident => $word:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum TtlUnit { $($name,)* }

        impl TtlUnit {
            fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            fn parse(word: &str) -> Option<Self> {
                [$(Self::$name,)*].into_iter().find(|unit| unit.word().eq_ignore_ascii_case(word))
            }
        }
    };
}

ttl_units! {
    Second => "SECOND",
    Minute => "MINUTE",
    Hour => "HOUR",
    Day => "DAY",
    Week => "WEEK",
    Month => "MONTH",
    Quarter => "QUARTER",
    Year => "YEAR",
}

impl Ttl {
    /// Reads `<n> <UNIT>`; blank text means for ever. Errors are 22023 with StarRocks' texts.
    pub fn parse(text: &str) -> Result<Option<Self>, Error> {
        let invalid = || {
            let message = format!(
                "Invalid ttl: '{text}'. Expected a duration such as '7 DAY' or '12 HOUR', or an empty value to keep the snapshot forever"
            );
            Error::new(ErrorKind::InvalidParameter, message)
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (count, unit) = match words.as_slice() {
            [] => return Ok(None),
            [count, unit] => (count, unit),
            _ => return Err(invalid()),
        };
        let (count, unit): (i64, _) = (
            count.parse().map_err(|_| invalid())?,
            TtlUnit::parse(unit).ok_or_else(invalid)?,
        );
        if count <= 0 {
            return Err(Error::new(
                ErrorKind::InvalidParameter,
                format!("ttl must be a positive duration, but got: {text}"),
            ));
        }
        let ttl = Self {
            count: u32::try_from(count).map_err(|_| invalid())?,
            unit,
        };
        ttl.after(Timestamp(0))
            .map(|_| Some(ttl))
            .ok_or_else(invalid)
    }

    /// The moment so much later, by the calendar (31 January and 1 MONTH is the last of February),
    /// in UTC; `None` beyond the calendar's end.
    pub fn after(self, from: Timestamp) -> Option<Timestamp> {
        let from = Utc.timestamp_millis_opt(from.0).single()?;
        let months =
            |n: u32| from.checked_add_months(chrono::Months::new(self.count.checked_mul(n)?));
        let seconds = |n: i64| {
            from.checked_add_signed(chrono::TimeDelta::try_seconds(
                i64::from(self.count).checked_mul(n)?,
            )?)
        };
        let end = match self.unit {
            TtlUnit::Second => seconds(1),
            TtlUnit::Minute => seconds(60),
            TtlUnit::Hour => seconds(3600),
            TtlUnit::Day => seconds(86_400),
            TtlUnit::Week => seconds(604_800),
            TtlUnit::Month => months(1),
            TtlUnit::Quarter => months(3),
            TtlUnit::Year => months(12),
        };
        end.map(|end| Timestamp(end.timestamp_millis()))
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.unit.word())
    }
}

impl TryFrom<String> for Ttl {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)?
            .ok_or_else(|| Error::new(ErrorKind::InvalidParameter, "the ttl is empty"))
    }
}

impl From<Ttl> for String {
    fn from(ttl: Ttl) -> String {
        ttl.to_string()
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
    fn a_ttl_is_a_count_and_a_unit() {
        let at = |text: &str| {
            Timestamp(
                text.parse::<DateTime<Utc>>()
                    .expect("a time")
                    .timestamp_millis(),
            )
        };
        for (ttl, from, end) in [
            ("7 DAY", "2026-01-31T10:00:00Z", "2026-02-07T10:00:00Z"),
            (" 1  month ", "2026-01-31T10:00:00Z", "2026-02-28T10:00:00Z"),
            ("30 second", "2026-01-31T23:59:45Z", "2026-02-01T00:00:15Z"),
            ("1 YEAR", "2024-02-29T00:00:00Z", "2025-02-28T00:00:00Z"),
        ] {
            assert_eq!(
                Ttl::parse(ttl).expect(ttl).expect("a ttl").after(at(from)),
                Some(at(end)),
                "{ttl}"
            );
        }
        assert_eq!(Ttl::parse("  ").expect("blank"), None);
        for bad in [
            "7d",
            "forever",
            "7 PARSEC",
            "7",
            "7 DAY DAY",
            "999999999999 YEAR",
            "4000000000 YEAR",
            "1.5 DAY",
        ] {
            assert!(
                Ttl::parse(bad)
                    .expect_err(bad)
                    .message
                    .starts_with(&format!("Invalid ttl: '{bad}'.")),
                "{bad}"
            );
        }
        for bad in ["0 DAY", "-1 HOUR"] {
            assert_eq!(
                Ttl::parse(bad).expect_err(bad).message,
                format!("ttl must be a positive duration, but got: {bad}")
            );
        }
    }

    #[test]
    fn times_are_shown_as_postgresql_shows_them() {
        assert_eq!(
            Timestamp(1_767_323_045_000).to_string(),
            "2026-01-02 03:04:05+00"
        );
        assert_eq!(
            Timestamp(1_767_323_045_060).to_string(),
            "2026-01-02 03:04:05.06+00"
        );
    }

    #[test]
    fn a_backup_timestamp_has_milliseconds() {
        let at = Timestamp(1_525_453_861_123);
        assert_eq!(BackupTimestamp::of(at).as_str(), "2018-05-04-17-11-01-123");
        assert!(BackupTimestamp::new("2018-05-04-17-11-01-123").is_ok());
        for bad in [
            "2018-05-04-17-11-01",
            "2018-13-04-17-11-01-123",
            "latest",
            "2018-05-04-17-11-01-12x",
            "é018-05-04-17-11-01-12",
        ] {
            assert!(BackupTimestamp::new(bad).is_err(), "{bad}");
        }
    }
}
