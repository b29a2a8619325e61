//! Transaction blocks: BEGIN to COMMIT, savepoints, and what a block may do.

use super::{Outcome, Session, TransactionBlock, TransactionState};
use crate::error::{Error, ErrorKind};
use crate::statement::{SessionCommand, TransactionModes};

fn done(tag: &str) -> Result<Outcome, Error> {
    Ok(Outcome::Done(tag.to_owned()))
}

impl Session {
    /// A statement whose effect no ROLLBACK will undo: the block goes on reading from a fresh
    /// instant.
    pub(super) fn applied_at_once(&mut self) {
        if self.block.state == TransactionState::Active {
            self.block.applied += 1;
            self.block.as_of = None;
            self.block.catalogs = None;
        }
    }

    /// The isolation level that a statement runs in. Every level reads one instant, as REPEATABLE
    /// READ does.
    pub(super) fn isolation(&self) -> String {
        let default = || {
            self.variables
                .get("default_transaction_isolation")
                .unwrap_or_default()
        };
        self.block.modes.isolation.clone().unwrap_or_else(default)
    }

    /// Whether the block, or every block, only reads.
    pub(super) fn reads_only(&self) -> bool {
        let default = || {
            self.variables
                .get("default_transaction_read_only")
                .is_some_and(|v| v == "on")
        };
        self.block.modes.read_only.unwrap_or_else(default)
    }

    /// Refuses what would change something in a block that only reads.
    pub(super) fn check_may_write(&self, what: &str) -> Result<(), Error> {
        if !self.reads_only() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ReadOnlyTransaction,
            format!("cannot execute {what} in a read-only transaction"),
        )
        .hint("SET default_transaction_read_only = off, or begin a block that is READ WRITE."))
    }

    fn begin_block(&mut self, modes: &TransactionModes) {
        self.block = TransactionBlock::new(TransactionState::Active, self.caller.database.clone());
        self.block.modes = modes.clone();
        self.block.cursors_before = self.cursors.keys().cloned().collect();
    }

    /// Commands about blocks; `None` for others.
    pub(super) fn transaction_command(
        &mut self,
        command: &SessionCommand,
    ) -> Option<Result<Outcome, Error>> {
        Some(match command {
            SessionCommand::Begin { modes, tag } => {
                match self.block.state {
                    TransactionState::Idle => self.begin_block(modes),
                    _ => self
                        .caller
                        .warning("25001", "there is already a transaction in progress"),
                }
                done(tag)
            }
            SessionCommand::SetTransaction {
                modes,
                session: true,
            } => {
                let in_block = self.block.state == TransactionState::Active;
                if let Some(level) = &modes.isolation {
                    self.variables.put(
                        "default_transaction_isolation",
                        Some(level.clone()),
                        in_block,
                        false,
                    );
                }
                if let Some(read_only) = modes.read_only {
                    let value = if read_only { "on" } else { "off" };
                    self.variables.put(
                        "default_transaction_read_only",
                        Some(value.to_owned()),
                        in_block,
                        false,
                    );
                }
                done("SET")
            }
            SessionCommand::SetTransaction {
                modes,
                session: false,
            } => {
                if self.block.state == TransactionState::Idle {
                    self.caller.warning(
                        "25P01",
                        "SET TRANSACTION can only be used in transaction blocks",
                    );
                    return Some(done("SET"));
                }
                if modes.isolation.is_some() {
                    self.block.modes.isolation = modes.isolation.clone();
                }
                if modes.read_only.is_some() {
                    self.block.modes.read_only = modes.read_only;
                }
                done("SET")
            }
            SessionCommand::Commit { chain } => {
                let (state, modes) = (self.block.state, self.block.modes.clone());
                if let Some(error) = self.chained_outside(*chain) {
                    return Some(Err(error));
                }
                self.end_block(state == TransactionState::Active);
                if *chain {
                    self.begin_block(&modes);
                }
                match state {
                    TransactionState::Idle => {
                        self.caller
                            .warning("25P01", "there is no transaction in progress");
                        done("COMMIT")
                    }
                    TransactionState::Active => done("COMMIT"),
                    TransactionState::Failed => done("ROLLBACK"),
                }
            }
            SessionCommand::Rollback { chain } => {
                let modes = self.block.modes.clone();
                if let Some(error) = self.chained_outside(*chain) {
                    return Some(Err(error));
                }
                match (self.block.state, self.block.applied) {
                    (TransactionState::Idle, _) => self
                        .caller
                        .warning("25P01", "there is no transaction in progress"),
                    (_, 0) => {}
                    (_, n) => {
                        self.caller.warning(
                            "01000",
                            format!("{n} statement(s) of this block took effect at once and are not rolled back"),
                        );
                    }
                }
                self.end_block(false);
                if *chain {
                    self.begin_block(&modes);
                }
                done("ROLLBACK")
            }
            SessionCommand::Savepoint(name) => {
                if self.block.state == TransactionState::Idle {
                    return Some(Err(outside("SAVEPOINT")));
                }
                self.block
                    .savepoints
                    .push((name.clone(), self.variables.mark()));
                done("SAVEPOINT")
            }
            SessionCommand::Release(name) => {
                self.savepoint(name, "RELEASE SAVEPOINT").and_then(|at| {
                    self.block.savepoints.truncate(at);
                    done("RELEASE")
                })
            }
            SessionCommand::RollbackTo(name) => self
                .savepoint(name, "ROLLBACK TO SAVEPOINT")
                .and_then(|at| {
                    self.block.savepoints.truncate(at + 1);
                    let mark = self.block.savepoints[at].1;
                    self.variables.undo_to(mark);
                    self.close_cursors_behind(at);
                    self.block.state = TransactionState::Active;
                    done("ROLLBACK")
                }),
            SessionCommand::Lock => match self.block.state {
                TransactionState::Idle => Err(outside("LOCK TABLE")),
                _ => done("LOCK TABLE"),
            },
            _ => return None,
        })
    }

    fn chained_outside(&self, chain: bool) -> Option<Error> {
        (chain && self.block.state == TransactionState::Idle).then(|| outside("COMMIT AND CHAIN"))
    }

    fn savepoint(&self, name: &str, what: &str) -> Result<usize, Error> {
        if self.block.state == TransactionState::Idle {
            return Err(outside(what));
        }
        let found = self.block.savepoints.iter().rposition(|(s, _)| s == name);
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidSavepoint,
                format!("savepoint \"{name}\" does not exist"),
            )
        })
    }

    fn end_block(&mut self, committed: bool) {
        self.variables.end_block(committed);
        if self.block.state != TransactionState::Idle {
            self.close_cursors_of_block(committed);
        }
        let was = std::mem::replace(
            &mut self.block,
            TransactionBlock::new(TransactionState::Idle, None),
        );
        if was.state != TransactionState::Idle && (!committed || was.database_is_local) {
            self.caller.database = was.database_before;
        }
    }
}

fn outside(what: &str) -> Error {
    Error::new(
        ErrorKind::NoActiveTransaction,
        format!("{what} can only be used in transaction blocks"),
    )
}
