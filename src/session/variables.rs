//! Settings of a session (PostgreSQL's GUCs) and the commands about them, transactions included.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Outcome, Rows, Session, TransactionState};
use crate::catalog::{Setting, settings_name};
use crate::error::{Error, ErrorKind};
use crate::names::DatabaseName;
use crate::query::SERVER_VERSION;
use crate::statement::SessionCommand;

/// Name, default, and whether clients are told of changes.
const KNOWN: &[(&str, &str, bool)] = &[
    ("application_name", "", true),
    ("array_nulls", "on", false),
    ("block_size", "8192", false),
    ("bytea_output", "hex", false),
    ("client_encoding", "UTF8", true),
    ("client_connection_check_interval", "0", false),
    ("client_min_messages", "notice", false),
    ("datestyle", "ISO, MDY", true),
    ("constraint_exclusion", "partition", false),
    ("default_table_access_method", "heap", false),
    ("default_tablespace", "", false),
    ("default_transaction_deferrable", "off", false),
    ("default_transaction_isolation", "read committed", false),
    ("default_transaction_read_only", "off", true),
    ("enable_hashjoin", "on", false),
    ("enable_indexscan", "on", false),
    ("enable_mergejoin", "on", false),
    ("enable_nestloop", "on", false),
    ("enable_seqscan", "on", false),
    ("escape_string_warning", "on", false),
    ("extra_float_digits", "1", false),
    ("geqo", "on", false),
    ("idle_in_transaction_session_timeout", "0", false),
    ("idle_session_timeout", "0", false),
    ("in_hot_standby", "off", true),
    ("integer_datetimes", "on", true),
    ("intervalstyle", "postgres", true),
    ("is_superuser", "off", true),
    ("jit", "off", false),
    ("lc_messages", "C", false),
    ("lc_monetary", "C", false),
    ("lc_numeric", "C", false),
    ("lc_time", "C", false),
    ("lock_timeout", "0", false),
    ("log_statement", "none", false),
    ("maintenance_work_mem", "64MB", false),
    ("max_identifier_length", "1024", false),
    ("max_index_keys", "32", false),
    ("password_encryption", "scram-sha-256", false),
    ("plan_cache_mode", "auto", false),
    ("quote_all_identifiers", "off", false),
    ("role", "none", false),
    ("row_security", "on", false),
    ("scram_iterations", "4096", true),
    ("search_path", "system", false),
    ("server_encoding", "UTF8", true),
    ("server_version", SERVER_VERSION, true),
    ("server_version_num", "140013", false),
    ("ssl", "off", false),
    ("standard_conforming_strings", "on", true),
    ("statement_timeout", "0", false),
    ("synchronous_commit", "on", false),
    ("tcp_keepalives_idle", "0", false),
    ("temp_buffers", "8MB", false),
    ("timezone", "UTC", true),
    ("transaction_deferrable", "off", false),
    ("transaction_isolation", "read committed", false),
    ("transaction_read_only", "off", false),
    ("transform_null_equals", "off", false),
    ("work_mem", "4MB", false),
    ("xmlbinary", "base64", false),
    ("xmloption", "content", false),
];

/// Settings that say what the server is; a client may not change them.
const FIXED: &[&str] = &[
    "block_size",
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "max_identifier_length",
    "max_index_keys",
    "server_encoding",
    "server_version",
    "server_version_num",
    "ssl",
];

/// The settings of one session.
#[derive(Debug, Default)]
pub(super) struct Variables {
    set: BTreeMap<String, String>,
    /// What a block has changed, with the values before: put back on ROLLBACK, and after LOCAL on
    /// COMMIT too.
    undo: Vec<(String, Option<String>, bool)>,
    changed: Vec<String>,
}

fn unknown(name: &str) -> Error {
    Error::new(
        ErrorKind::UndefinedSetting,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

/// `500`, `500ms`, `5s`, `1min`, `2h` as a duration; 0 is none.
fn duration(name: &str, text: &str) -> Result<Option<Duration>, Error> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let count: Option<u64> = text[..digits].parse().ok();
    match count.and_then(|n| n.checked_mul(factor)) {
        Some(ms) if factor > 0 && ms <= i32::MAX as u64 => {
            Ok((ms > 0).then(|| Duration::from_millis(ms)))
        }
        _ => Err(Error::new(
            ErrorKind::InvalidParameter,
            format!("invalid value for parameter \"{name}\": \"{text}\""),
        )
        .hint("Valid units for this parameter are \"ms\", \"s\", \"min\", \"h\", and \"d\".")),
    }
}

/// A duration as PostgreSQL shows it: in the largest unit that it is a whole number of.
fn shown_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1000, "s"),
    ];
    match units
        .iter()
        .find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0".into(),
        None => format!("{ms}ms"),
    }
}

impl Variables {
    pub fn get(&self, name: &str) -> Option<String> {
        let default = || {
            KNOWN
                .iter()
                .find(|(known, ..)| *known == name)
                .map(|(_, value, _)| (*value).to_owned())
        };
        self.set.get(name).cloned().or_else(default)
    }

    pub fn time_zone(&self) -> &str {
        self.set.get("timezone").map_or("UTC", String::as_str)
    }

    /// A setting that is a time; 0 is none.
    pub fn timeout(&self, name: &str) -> Option<Duration> {
        duration(name, self.set.get(name)?).ok().flatten()
    }

    /// Every setting that clients are told of, in their spelling.
    pub fn reported(&self) -> Vec<(String, String)> {
        let told = KNOWN.iter().filter(|(.., told)| *told);
        told.map(|(name, ..)| {
            (
                settings_name(name).to_owned(),
                self.get(name).unwrap_or_default(),
            )
        })
        .collect()
    }

    pub fn take_reports(&mut self) -> Vec<(String, String)> {
        let mut names = std::mem::take(&mut self.changed);
        names.sort();
        names.dedup();
        let told = |name: &String| KNOWN.iter().any(|(known, _, told)| *told && known == name);
        names
            .into_iter()
            .filter(told)
            .map(|n| {
                (
                    settings_name(&n).to_owned(),
                    self.get(&n).unwrap_or_default(),
                )
            })
            .collect()
    }

    /// A value in its normal form, or why it cannot be.
    fn check(name: &str, value: &str) -> Result<String, Error> {
        let invalid = || {
            Error::new(
                ErrorKind::InvalidParameter,
                format!("invalid value for parameter \"{name}\": \"{value}\""),
            )
        };
        if FIXED.contains(&name) {
            return Err(Error::new(
                ErrorKind::FixedSetting,
                format!("parameter \"{name}\" cannot be changed"),
            ));
        }
        match name {
            "timezone" => match crate::query::time_zone_name(value) {
                Some(zone) => Ok(zone),
                None => Err(invalid()),
            },
            // PostgreSQL looks at letters and digits alone; asyncpg sends quotes.
            "client_encoding" => match value
                .to_ascii_uppercase()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "")
                .as_str()
            {
                "UTF8" | "UNICODE" | "SQLASCII" => Ok("UTF8".into()),
                _ => Err(invalid().detail("only UTF8 is offered")),
            },
            "datestyle" => match value.to_ascii_uppercase().split([',', ' ']).next() {
                Some("ISO") => Ok("ISO, MDY".into()),
                _ => Err(invalid().detail("only ISO is offered")),
            },
            "standard_conforming_strings" => match value.to_ascii_lowercase().as_str() {
                "on" | "true" | "1" | "yes" => Ok("on".into()),
                _ => Err(invalid().detail("only on is offered")),
            },
            "statement_timeout"
            | "lock_timeout"
            | "idle_in_transaction_session_timeout"
            | "idle_session_timeout"
            | "client_connection_check_interval" => {
                duration(name, value).map(|d| shown_duration(d.unwrap_or_default()))
            }
            "default_transaction_read_only"
            | "transaction_read_only"
            | "default_transaction_deferrable" => match value.to_ascii_lowercase().as_str() {
                "on" | "true" | "1" | "yes" => Ok("on".into()),
                "off" | "false" | "0" | "no" => Ok("off".into()),
                _ => Err(invalid().hint("The values are on and off.")),
            },
            "default_transaction_isolation" | "transaction_isolation" => {
                let level = value.to_ascii_lowercase();
                let levels = [
                    "serializable",
                    "repeatable read",
                    "read committed",
                    "read uncommitted",
                ];
                if levels.contains(&level.as_str()) {
                    Ok(level)
                } else {
                    Err(invalid())
                }
            }
            _ if name.contains('.') || KNOWN.iter().any(|(known, ..)| *known == name) => {
                Ok(value.to_owned())
            }
            _ => Err(unknown(name)),
        }
    }

    /// Every setting with its value and its default.
    pub fn all(&self) -> Vec<Setting> {
        let own = self
            .set
            .keys()
            .filter(|name| !KNOWN.iter().any(|(known, ..)| known == name));
        let known = KNOWN.iter().map(|(name, default, _)| (*name, *default));
        known
            .chain(own.map(|name| (name.as_str(), "")))
            .map(|(name, default)| Setting {
                name: name.to_owned(),
                value: self.get(name).unwrap_or_default(),
                default: default.to_owned(),
                is_fixed: FIXED.contains(&name),
            })
            .collect()
    }

    /// How much a block has changed so far, to come back to.
    pub fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Undoes what was changed since a mark.
    pub fn undo_to(&mut self, mark: usize) {
        while self.undo.len() > mark {
            let Some((name, before, _)) = self.undo.pop() else {
                return;
            };
            match before {
                Some(value) => drop(self.set.insert(name.clone(), value)),
                None => drop(self.set.remove(&name)),
            }
            self.changed.push(name);
        }
    }

    pub fn put(&mut self, name: &str, value: Option<String>, in_block: bool, local: bool) {
        let before = match value {
            Some(value) => self.set.insert(name.to_owned(), value),
            None => self.set.remove(name),
        };
        if in_block {
            self.undo.push((name.to_owned(), before, local));
        }
        self.changed.push(name.to_owned());
    }

    /// The end of a block: LOCAL values go, and after ROLLBACK all of its changes.
    pub fn end_block(&mut self, committed: bool) {
        for (name, before, local) in std::mem::take(&mut self.undo).into_iter().rev() {
            if local || !committed {
                match before {
                    Some(value) => drop(self.set.insert(name.clone(), value)),
                    None => drop(self.set.remove(&name)),
                }
                self.changed.push(name);
            }
        }
    }
}

/// The columns of session commands that answer rows.
pub(super) fn answer_schema(command: &SessionCommand) -> Option<SchemaRef> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    match command {
        SessionCommand::ShowSetting(name) => {
            Some(Schema::new(vec![text(settings_name(name))]).into())
        }
        SessionCommand::ShowAllSettings => {
            Some(Schema::new(vec![text("name"), text("setting"), text("description")]).into())
        }
        _ => None,
    }
}

impl Session {
    pub(super) fn set(&mut self, name: &str, values: &[String], local: bool) -> Result<(), Error> {
        let name = name.to_lowercase();
        let in_block = self.block.state == TransactionState::Active;
        if name == "search_path" {
            return self.set_search_path(values, in_block, local);
        }
        let value = Variables::check(&name, &values.join(", "))?;
        if local && !in_block {
            self.caller
                .warning("25P01", "SET LOCAL can only be used in transaction blocks");
            return Ok(());
        }
        self.variables.put(&name, Some(value), in_block, local);
        Ok(())
    }

    /// The first existing database of the path becomes the current one.
    fn set_search_path(
        &mut self,
        values: &[String],
        in_block: bool,
        local: bool,
    ) -> Result<(), Error> {
        if local && !in_block {
            self.caller
                .warning("25P01", "SET LOCAL can only be used in transaction blocks");
            return Ok(());
        }
        self.block.database_is_local |= local;
        let catalog = self.caller.cluster.catalog();
        let names = values
            .iter()
            .flat_map(|v| v.split(','))
            .map(|v| v.trim().trim_matches('"').to_owned());
        let names: Vec<String> = names.filter(|n| !n.is_empty()).collect();
        let known = names
            .iter()
            .filter(|n| catalog.schema(n).is_some())
            .find_map(|n| DatabaseName::new(n.as_str()).ok());
        self.caller.database = known.map(|name| self.caller.spelled(&name));
        self.variables
            .put("search_path", Some(names.join(", ")), in_block, local);
        Ok(())
    }

    fn rows(
        &mut self,
        command: &SessionCommand,
        columns: Vec<Vec<String>>,
    ) -> Result<Outcome, Error> {
        let schema =
            answer_schema(command).ok_or_else(|| Error::internal("the command answers no rows"))?;
        let arrays: Vec<ArrayRef> = columns
            .into_iter()
            .map(|c| Arc::new(StringArray::from(c)) as ArrayRef)
            .collect();
        let batch =
            RecordBatch::try_new(schema, arrays).map_err(|e| Error::internal(e.to_string()))?;
        let as_of = self
            .caller
            .gateway
            .engine
            .as_of(&self.caller.cluster, self.client.user.as_str());
        Ok(Outcome::Rows(Rows::of(batch, "SHOW", as_of)))
    }

    pub(super) async fn session_command(
        &mut self,
        command: &SessionCommand,
    ) -> Result<Outcome, Error> {
        let done = |tag: &str| Ok(Outcome::Done(tag.to_owned()));
        if let Some(ended) = self.transaction_command(command) {
            return ended;
        }
        match command {
            SessionCommand::Use(name) => {
                if self
                    .caller
                    .cluster
                    .catalog()
                    .schema(name.as_str())
                    .is_none()
                    && name.as_str() != crate::query::SYSTEM_SCHEMA
                {
                    return Err(Error::new(
                        ErrorKind::UndefinedSchema,
                        format!("Unknown database '{name}'"),
                    )
                    .hint("See SHOW DATABASES."));
                }
                let name = self.caller.spelled(name);
                self.caller.database = Some(name.clone());
                let in_block = self.block.state == TransactionState::Active;
                self.variables
                    .put("search_path", Some(name.to_string()), in_block, false);
                done("USE")
            }
            SessionCommand::Set {
                name,
                value: Some(values),
                local,
            } => {
                self.set(name, values, *local)?;
                done("SET")
            }
            SessionCommand::Set {
                name, value: None, ..
            }
            | SessionCommand::Reset(name) => {
                if self.variables.get(name).is_none() {
                    return Err(unknown(name));
                }
                if name == "search_path" {
                    self.caller.database = None;
                }
                let in_block = self.block.state == TransactionState::Active;
                self.variables.put(name, None, in_block, false);
                done(if matches!(command, SessionCommand::Reset(_)) {
                    "RESET"
                } else {
                    "SET"
                })
            }
            SessionCommand::ResetAll => {
                self.reset_all();
                done("RESET")
            }
            SessionCommand::ShowSetting(name) => {
                let value = match name.as_str() {
                    "session_authorization" => Some(self.client.user.to_string()),
                    "search_path" if self.caller.database.is_some() => {
                        self.caller.database.as_ref().map(ToString::to_string)
                    }
                    "transaction_isolation" => Some(self.isolation()),
                    "transaction_read_only" => {
                        Some(if self.reads_only() { "on" } else { "off" }.to_owned())
                    }
                    name => self.variables.get(name),
                };
                let value = value.ok_or_else(|| unknown(name))?;
                self.rows(command, vec![vec![value]])
            }
            SessionCommand::ShowAllSettings => {
                let names: Vec<String> =
                    KNOWN.iter().map(|(name, ..)| (*name).to_owned()).collect();
                let values = names
                    .iter()
                    .map(|n| self.variables.get(n).unwrap_or_default())
                    .collect();
                let descriptions = vec![String::new(); names.len()];
                self.rows(command, vec![names, values, descriptions])
            }
            SessionCommand::DiscardAll => {
                if self.block.state != TransactionState::Idle {
                    return Err(Error::new(
                        ErrorKind::ActiveTransaction,
                        "DISCARD ALL cannot run inside a transaction block",
                    ));
                }
                self.reset_all();
                self.prepared.clear();
                self.cursors.clear();
                done("DISCARD ALL")
            }
            SessionCommand::Deallocate(name) => self.deallocate(Some(name)),
            SessionCommand::DeallocateAll => self.deallocate(None),
            SessionCommand::Fetch {
                name,
                direction,
                moves,
            } => self.fetch(name, *direction, *moves).await,
            SessionCommand::CloseCursor(name) => self.close_cursor(name.as_deref()),
            SessionCommand::Accepted(tag) => done(tag),
            _ => Err(Error::internal("a session command was left over")),
        }
    }

    fn reset_all(&mut self) {
        let names: Vec<String> = self
            .variables
            .set
            .keys()
            .filter(|n| !FIXED.contains(&n.as_str()))
            .cloned()
            .collect();
        let in_block = self.block.state == TransactionState::Active;
        for name in names {
            self.variables.put(&name, None, in_block, false);
        }
        self.caller.database = None;
    }
}
