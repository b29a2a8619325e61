//! `PROPERTIES (…)`: the map as given, and what BACKUP and RESTORE read out of it.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::job::Pace;
use crate::names::{BackupTimestamp, SnapshotLabel, Ttl};

/// Keys and values as given; a repeated key keeps its last value. Debug shows no value of a key
/// that looks secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub BTreeMap<String, String>);

impl Properties {
    /// Whether the value of this key must never be shown.
    pub fn is_secret(key: &str) -> bool {
        let key = key.to_ascii_lowercase().replace(['.', '_', '-'], "");
        [
            "secret",
            "password",
            "accesskey",
            "token",
            "keytab",
            "credential",
            "sastoken",
            "privatekey",
            "accountkey",
            "encryptionkey",
        ]
        .iter()
        .any(|word| key.contains(word))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The same map with every secret value replaced by `***`.
    pub fn redacted(&self) -> Self {
        Self(
            self.0
                .iter()
                .map(|(k, v)| {
                    (
                        k.clone(),
                        if Self::is_secret(k) {
                            "***".to_owned()
                        } else {
                            v.clone()
                        },
                    )
                })
                .collect(),
        )
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.redacted().0.iter()).finish()
    }
}

/// `"base"`: which snapshot an incremental backup follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseSnapshot {
    /// `"latest"`, or nothing said: the newest of the same database.
    Latest,
    Label(SnapshotLabel),
}

/// What a BACKUP statement's properties say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupOptions {
    /// `"type" = "incremental"`, and `"base"`; a full backup has none.
    pub base: Option<BaseSnapshot>,
    /// `"timeout"`, seconds
    pub timeout_seconds: Option<u64>,
    /// `"ttl"`: how long it is kept
    pub ttl: Option<Ttl>,
    /// `"max_bytes_per_second"`
    pub max_bytes_per_second: Option<u64>,
}

/// `"backup_timestamp"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichBackup {
    /// `"latest"`: the newest with that label.
    Latest,
    At(BackupTimestamp),
    /// Text that no backup can have; looked up all the same, so that the message is the one of a
    /// missing backup.
    Unknown(String),
}

/// What a RESTORE statement's properties say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreOptions {
    /// `"backup_timestamp"`
    pub which: WhichBackup,
    /// `"timeout"`, seconds
    pub timeout_seconds: Option<u64>,
    /// `"replication_num"`
    pub replication_num: Option<u16>,
    /// `"allow_load"`: kept and shown, without effect, as in StarRocks
    pub allow_load: bool,
    /// `"max_bytes_per_second"`
    pub max_bytes_per_second: Option<u64>,
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidParameter, message)
}

fn take_timeout(left: &mut BTreeMap<String, String>) -> Result<Option<u64>, Error> {
    let Some(text) = left.remove("timeout") else {
        return Ok(None);
    };
    let seconds: i64 = text.trim().parse().map_err(|_| {
        invalid(format!("Invalid timeout format: {text}"))
            .hint("\"timeout\" is a whole number of seconds, at least 600.")
    })?;
    match u64::try_from(seconds) {
        Ok(seconds) if seconds >= 600 => Ok(Some(seconds)),
        _ => Err(invalid("timeout must be at least 10 min".into())
            .hint("Give \"timeout\" in seconds, at least 600.")),
    }
}

/// `"max_bytes_per_second"` of a job.
pub(super) const MAX_BYTES_PER_SECOND: &str = "max_bytes_per_second";

/// How fast a job may go, if that is said; 0 is no limit.
pub(super) fn take_pace(left: &mut BTreeMap<String, String>) -> Result<Option<Pace>, Error> {
    let Some(text) = left.remove(MAX_BYTES_PER_SECOND) else {
        return Ok(None);
    };
    match text.trim().parse() {
        Ok(0) => Ok(Some(Pace::Unlimited)),
        Ok(bytes) => Ok(Some(Pace::BytesPerSecond(bytes))),
        Err(_) => Err(invalid(format!("\"{MAX_BYTES_PER_SECOND}\" is \"{text}\""))
            .hint("It is a whole number of bytes; 0 is no limit.")),
    }
}

fn refuse_rest(left: BTreeMap<String, String>, what: &str) -> Result<(), Error> {
    if left.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = left.into_keys().collect();
    Err(invalid(format!(
        "Unknown {what} job properties: [{}]",
        keys.join(", ")
    )))
}

impl BackupOptions {
    /// Reads and checks the properties of BACKUP; errors are 22023 with StarRocks' texts.
    pub fn read(properties: &Properties) -> Result<Self, Error> {
        let mut left = properties.0.clone();
        let timeout_seconds = take_timeout(&mut left)?;
        let is_incremental = match left.remove("type") {
            None => false,
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "full" => false,
                "incremental" => true,
                _ => {
                    return Err(invalid(format!("Invalid backup job type: {text}"))
                        .hint("\"type\" is \"full\" or \"incremental\"."));
                }
            },
        };
        let base = match left.remove("base") {
            None => is_incremental.then_some(BaseSnapshot::Latest),
            Some(_) if !is_incremental => {
                return Err(invalid("\"base\" is for \"type\" = \"incremental\"".into()));
            }
            Some(text) if text.eq_ignore_ascii_case("latest") => Some(BaseSnapshot::Latest),
            Some(text) => Some(BaseSnapshot::Label(SnapshotLabel::new(text)?)),
        };
        let ttl = left
            .remove("ttl")
            .map_or(Ok(None), |text| Ttl::parse(&text))?;
        let pace = take_pace(&mut left)?;
        refuse_rest(left, "backup")?;
        Ok(Self {
            base,
            timeout_seconds,
            ttl,
            max_bytes_per_second: pace.and_then(Pace::bytes_per_second),
        })
    }
}

impl RestoreOptions {
    /// Reads and checks the properties of RESTORE; a missing timestamp is told before anything
    /// else, as in StarRocks.
    pub fn read(properties: &Properties) -> Result<Self, Error> {
        let mut left = properties.0.clone();
        let timestamp = left.remove("backup_timestamp").ok_or_else(|| {
            invalid("Missing backup_timestamp property".into())
                .hint("Add PROPERTIES (\"backup_timestamp\" = \"…\") with a value from SHOW SNAPSHOT, or \"latest\".")
        })?;
        let timeout_seconds = take_timeout(&mut left)?;
        let allow_load = match left.remove("allow_load") {
            None => false,
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(invalid(format!("Invalid allow load value: {text}"))),
            },
        };
        let replication_num = match left.remove("replication_num") {
            None => None,
            // What fits the cluster: the same as saying nothing.
            Some(text) if text.eq_ignore_ascii_case("auto") => None,
            Some(text) => match text.trim().parse::<u16>() {
                Ok(n) if n > 0 => Some(n),
                // The text is StarRocks' own, odd as it is.
                _ => {
                    return Err(invalid(format!("Invalid meta version format: {text}"))
                        .hint("\"replication_num\" is a whole number from 1."));
                }
            },
        };
        for key in ["meta_version", "starrocks_meta_version"] {
            if let Some(text) = left.remove(key)
                && text.trim().parse::<i64>().is_err()
            {
                return Err(invalid(format!("Invalid meta version format: {text}")));
            }
        }
        let pace = take_pace(&mut left)?;
        refuse_rest(left, "restore")?;
        let which = if timestamp.eq_ignore_ascii_case("latest") {
            WhichBackup::Latest
        } else {
            BackupTimestamp::new(timestamp.clone())
                .map_or(WhichBackup::Unknown(timestamp), WhichBackup::At)
        };
        Ok(Self {
            which,
            timeout_seconds,
            replication_num,
            allow_load,
            max_bytes_per_second: pace.and_then(Pace::bytes_per_second),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        Properties(
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn backup_properties_are_checked_in_starrocks_words() {
        for (pairs, message) in [
            (&[("timeout", "x")][..], "Invalid timeout format: x"),
            (&[("timeout", "599")], "timeout must be at least 10 min"),
            (&[("type", "partial")], "Invalid backup job type: partial"),
            (
                &[("ttl", "0 DAY")],
                "ttl must be a positive duration, but got: 0 DAY",
            ),
            (
                &[("a", "1"), ("b", "2")],
                "Unknown backup job properties: [a, b]",
            ),
        ] {
            assert_eq!(
                BackupOptions::read(&properties(pairs))
                    .expect_err(message)
                    .message,
                message
            );
        }
        let options = BackupOptions::read(&properties(&[("timeout", "600"), ("type", "FULL")]))
            .expect("good");
        assert_eq!(options.timeout_seconds, Some(600));
    }

    #[test]
    fn restore_properties_need_a_timestamp_first() {
        for (pairs, message) in [
            (
                &[("nonsense", "1")][..],
                "Missing backup_timestamp property",
            ),
            (
                &[("backup_timestamp", "latest"), ("nonsense", "1")],
                "Unknown restore job properties: [nonsense]",
            ),
            (
                &[("backup_timestamp", "latest"), ("replication_num", "a")],
                "Invalid meta version format: a",
            ),
            (
                &[("backup_timestamp", "latest"), ("allow_load", "yes")],
                "Invalid allow load value: yes",
            ),
        ] {
            assert_eq!(
                RestoreOptions::read(&properties(pairs))
                    .expect_err(message)
                    .message,
                message
            );
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!(
            "{:?}",
            properties(&[
                ("aws.s3.secret_key", "hush"),
                ("fs.oss.accessKeySecret", "hush"),
                ("timeout", "1")
            ])
        );
        assert!(
            !shown.contains("hush") && shown.contains("timeout"),
            "{shown}"
        );
    }
}
