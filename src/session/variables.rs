//! Settings of a session (PostgreSQL's GUCs) and the commands about them, transactions included.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

use super::{Block, Outcome, Rows, Session, TransactionState};
use crate::error::{Error, ErrorKind};
use crate::names::DatabaseName;
use crate::query::SERVER_VERSION;
use crate::statement::SessionCommand;

/// Name, default, and whether clients are told of changes.
const KNOWN: &[(&str, &str, bool)] = &[
    ("application_name", "", true),
    ("bytea_output", "hex", false),
    ("client_encoding", "UTF8", true),
    ("client_min_messages", "notice", false),
    ("datestyle", "ISO, MDY", true),
    ("default_transaction_isolation", "repeatable read", false),
    ("default_transaction_read_only", "off", true),
    ("escape_string_warning", "on", false),
    ("extra_float_digits", "1", false),
    ("idle_in_transaction_session_timeout", "0", false),
    ("in_hot_standby", "off", true),
    ("integer_datetimes", "on", true),
    ("intervalstyle", "postgres", true),
    ("is_superuser", "off", true),
    ("jit", "off", false),
    ("lock_timeout", "0", false),
    ("max_identifier_length", "1024", false),
    ("max_index_keys", "32", false),
    ("row_security", "on", false),
    ("scram_iterations", "4096", true),
    ("search_path", "", false),
    ("server_encoding", "UTF8", true),
    ("server_version", SERVER_VERSION, true),
    ("server_version_num", "140013", false),
    ("standard_conforming_strings", "on", true),
    ("statement_timeout", "0", false),
    ("synchronous_commit", "on", false),
    ("timezone", "UTC", true),
    ("transaction_isolation", "repeatable read", false),
    ("transaction_read_only", "off", false),
    ("work_mem", "4MB", false),
];

/// Settings that say what the server is; a client may not change them.
const FIXED: &[&str] = &[
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "max_identifier_length",
    "max_index_keys",
    "server_encoding",
    "server_version",
    "server_version_num",
];

/// The spelling in which clients look for a setting.
fn reported_name(name: &str) -> &str {
    match name {
        "datestyle" => "DateStyle",
        "intervalstyle" => "IntervalStyle",
        "timezone" => "TimeZone",
        other => other,
    }
}

/// The settings of one session.
#[derive(Debug, Default)]
pub(super) struct Variables {
    set: BTreeMap<String, String>,
    /// What a block has changed, with the values before: put back on ROLLBACK, and after LOCAL on COMMIT too.
    undo: Vec<(String, Option<String>, bool)>,
    changed: Vec<String>,
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::UndefinedSetting, format!("unrecognized configuration parameter \"{name}\""))
}

/// `500`, `500ms`, `5s`, `1min`, `2h` as a duration; 0 is none.
fn duration(name: &str, text: &str) -> Result<Option<Duration>, Error> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
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
        Some(ms) if factor > 0 && ms <= i32::MAX as u64 => Ok((ms > 0).then(|| Duration::from_millis(ms))),
        _ => Err(Error::new(ErrorKind::InvalidParameter, format!("invalid value for parameter \"{name}\": \"{text}\""))
            .hint("Valid units for this parameter are \"ms\", \"s\", \"min\", \"h\", and \"d\".")),
    }
}

impl Variables {
    pub fn get(&self, name: &str) -> Option<String> {
        let default = || KNOWN.iter().find(|(known, ..)| *known == name).map(|(_, value, _)| (*value).to_owned());
        self.set.get(name).cloned().or_else(default)
    }

    pub fn time_zone(&self) -> &str {
        self.set.get("timezone").map_or("UTC", String::as_str)
    }

    pub fn statement_timeout(&self) -> Option<Duration> {
        duration("statement_timeout", self.set.get("statement_timeout")?).ok().flatten()
    }

    /// Every setting that clients are told of, in their spelling.
    pub fn reported(&self) -> Vec<(String, String)> {
        let told = KNOWN.iter().filter(|(.., told)| *told);
        told.map(|(name, ..)| (reported_name(name).to_owned(), self.get(name).unwrap_or_default())).collect()
    }

    pub fn take_reports(&mut self) -> Vec<(String, String)> {
        let mut names = std::mem::take(&mut self.changed);
        names.sort();
        names.dedup();
        let told = |name: &String| KNOWN.iter().any(|(known, _, told)| *told && known == name);
        names.into_iter().filter(told).map(|n| (reported_name(&n).to_owned(), self.get(&n).unwrap_or_default())).collect()
    }

    /// A value in its normal form, or why it cannot be.
    fn check(name: &str, value: &str) -> Result<String, Error> {
        let invalid = || Error::new(ErrorKind::InvalidParameter, format!("invalid value for parameter \"{name}\": \"{value}\""));
        if FIXED.contains(&name) {
            return Err(Error::new(ErrorKind::FixedSetting, format!("parameter \"{name}\" cannot be changed")));
        }
        match name {
            "timezone" => match crate::query::time_zone_name(value) {
                Some(zone) => Ok(zone),
                None => Err(invalid()),
            },
            // PostgreSQL looks at letters and digits alone; asyncpg sends quotes.
            "client_encoding" => match value.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "").as_str() {
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
            "statement_timeout" | "lock_timeout" | "idle_in_transaction_session_timeout" => {
                duration(name, value).map(|_| value.trim().to_owned())
            }
            _ if name.contains('.') || KNOWN.iter().any(|(known, ..)| *known == name) => Ok(value.to_owned()),
            _ => Err(unknown(name)),
        }
    }

    fn put(&mut self, name: &str, value: Option<String>, in_block: bool, local: bool) {
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
    fn end_block(&mut self, committed: bool) {
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
        SessionCommand::ShowSetting(name) => Some(Schema::new(vec![text(reported_name(name))]).into()),
        SessionCommand::ShowAllSettings => Some(Schema::new(vec![text("name"), text("setting"), text("description")]).into()),
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
            self.warning("25P01", "SET LOCAL can only be used in transaction blocks");
            return Ok(());
        }
        self.variables.put(&name, Some(value), in_block, local);
        Ok(())
    }

    /// The first existing database of the path becomes the current one.
    fn set_search_path(&mut self, values: &[String], in_block: bool, local: bool) -> Result<(), Error> {
        if local && !in_block {
            self.warning("25P01", "SET LOCAL can only be used in transaction blocks");
            return Ok(());
        }
        self.block.database_is_local |= local;
        let catalog = self.cluster.catalog();
        let names = values.iter().flat_map(|v| v.split(',')).map(|v| v.trim().trim_matches('"').to_owned());
        let names: Vec<String> = names.filter(|n| !n.is_empty()).collect();
        let known = names.iter().filter(|n| catalog.schema(n).is_some()).find_map(|n| DatabaseName::new(n.as_str()).ok());
        self.database = known.map(|name| self.spelled(&name));
        self.variables.put("search_path", Some(names.join(", ")), in_block, local);
        Ok(())
    }

    fn rows(&mut self, command: &SessionCommand, columns: Vec<Vec<String>>) -> Result<Outcome, Error> {
        let schema = answer_schema(command).ok_or_else(|| Error::internal("the command answers no rows"))?;
        let arrays: Vec<ArrayRef> = columns.into_iter().map(|c| Arc::new(StringArray::from(c)) as ArrayRef).collect();
        let batch = RecordBatch::try_new(schema.clone(), arrays).map_err(|e| Error::internal(e.to_string()))?;
        let stream = Box::pin(RecordBatchStreamAdapter::new(schema.clone(), futures::stream::iter([Ok(batch)])));
        let view = self.gateway.engine.view(&self.cluster, self.client.user.as_str());
        Ok(Outcome::Rows(Rows { schema, stream, verb: "SHOW", _view: view }))
    }

    pub(super) async fn session_command(&mut self, command: &SessionCommand) -> Result<Outcome, Error> {
        let done = |tag: &str| Ok(Outcome::Done(tag.to_owned()));
        match command {
            SessionCommand::Use(name) => {
                if self.cluster.catalog().schema(name.as_str()).is_none() && name.as_str() != crate::query::SYSTEM_SCHEMA {
                    return Err(
                        Error::new(ErrorKind::UndefinedSchema, format!("Unknown database '{name}'")).hint("See SHOW DATABASES.")
                    );
                }
                let name = self.spelled(name);
                self.database = Some(name.clone());
                let in_block = self.block.state == TransactionState::Active;
                self.variables.put("search_path", Some(name.to_string()), in_block, false);
                done("USE")
            }
            SessionCommand::Set { name, value: Some(values), local } => {
                self.set(name, values, *local)?;
                done("SET")
            }
            SessionCommand::Set { name, value: None, .. } | SessionCommand::Reset(name) => {
                if self.variables.get(name).is_none() {
                    return Err(unknown(name));
                }
                if name == "search_path" {
                    self.database = None;
                }
                let in_block = self.block.state == TransactionState::Active;
                self.variables.put(name, None, in_block, false);
                done(if matches!(command, SessionCommand::Reset(_)) { "RESET" } else { "SET" })
            }
            SessionCommand::ResetAll => {
                self.reset_all();
                done("RESET")
            }
            SessionCommand::ShowSetting(name) => {
                let value = match name.as_str() {
                    "session_authorization" => Some(self.client.user.to_string()),
                    "search_path" if self.database.is_some() => self.database.as_ref().map(ToString::to_string),
                    name => self.variables.get(name),
                };
                let value = value.ok_or_else(|| unknown(name))?;
                self.rows(command, vec![vec![value]])
            }
            SessionCommand::ShowAllSettings => {
                let names: Vec<String> = KNOWN.iter().map(|(name, ..)| (*name).to_owned()).collect();
                let values = names.iter().map(|n| self.variables.get(n).unwrap_or_default()).collect();
                let descriptions = vec![String::new(); names.len()];
                self.rows(command, vec![names, values, descriptions])
            }
            SessionCommand::Begin => {
                match self.block.state {
                    TransactionState::Idle => self.block = Block::new(TransactionState::Active, self.database.clone()),
                    _ => self.warning("25001", "there is already a transaction in progress"),
                }
                done("BEGIN")
            }
            SessionCommand::Commit => {
                let state = self.block.state;
                self.end_block(state == TransactionState::Active);
                match state {
                    TransactionState::Idle => {
                        self.warning("25P01", "there is no transaction in progress");
                        done("COMMIT")
                    }
                    TransactionState::Active => done("COMMIT"),
                    TransactionState::Failed => done("ROLLBACK"),
                }
            }
            SessionCommand::Rollback => {
                match (self.block.state, self.block.applied) {
                    (TransactionState::Idle, _) => self.warning("25P01", "there is no transaction in progress"),
                    (_, 0) => {}
                    (_, n) => {
                        self.warning("01000", format!("{n} statement(s) of this block took effect at once and are not rolled back"))
                    }
                }
                self.end_block(false);
                done("ROLLBACK")
            }
            SessionCommand::Savepoint(name) => {
                if self.block.state == TransactionState::Idle {
                    return Err(Error::new(ErrorKind::NoActiveTransaction, "SAVEPOINT can only be used in transaction blocks"));
                }
                self.block.savepoints.push(name.clone());
                done("SAVEPOINT")
            }
            SessionCommand::Release(name) => {
                let at = self.savepoint(name)?;
                self.block.savepoints.truncate(at);
                done("RELEASE")
            }
            SessionCommand::RollbackTo(name) => {
                let at = self.savepoint(name)?;
                self.block.savepoints.truncate(at + 1);
                self.block.state = TransactionState::Active;
                done("ROLLBACK")
            }
            SessionCommand::DiscardAll => {
                if self.block.state != TransactionState::Idle {
                    return Err(Error::new(ErrorKind::ActiveTransaction, "DISCARD ALL cannot run inside a transaction block"));
                }
                self.reset_all();
                done("DISCARD ALL")
            }
            // The wire forgets the statements; here is nothing to do.
            SessionCommand::Deallocate(_) => done("DEALLOCATE"),
            SessionCommand::DeallocateAll => done("DEALLOCATE ALL"),
            SessionCommand::Accepted(tag) => done(tag),
        }
    }

    fn reset_all(&mut self) {
        let names: Vec<String> = self.variables.set.keys().cloned().collect();
        let in_block = self.block.state == TransactionState::Active;
        for name in names {
            self.variables.put(&name, None, in_block, false);
        }
        self.database = None;
    }

    fn savepoint(&self, name: &str) -> Result<usize, Error> {
        if self.block.state == TransactionState::Idle {
            return Err(Error::new(ErrorKind::NoActiveTransaction, "savepoints can only be used in transaction blocks"));
        }
        let found = self.block.savepoints.iter().rposition(|s| s == name);
        found.ok_or_else(|| Error::new(ErrorKind::InvalidSavepoint, format!("savepoint \"{name}\" does not exist")))
    }

    fn end_block(&mut self, committed: bool) {
        self.variables.end_block(committed);
        let was = std::mem::replace(&mut self.block, Block::new(TransactionState::Idle, None));
        if was.state != TransactionState::Idle && (!committed || was.database_is_local) {
            self.database = was.database_before;
        }
    }
}
