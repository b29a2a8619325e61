//! What was said: SQL text in, [`Statement`] values out. Pure: no I/O, no clock, no randomness.
//!
//! A message may hold several statements of two languages. [`next_statement`] cuts off the next one
//! (`split`), choosing for each piece whose lexical rules hold: StarRocks' for its own statements,
//! PostgreSQL's for everything else. StarRocks statements and session commands are read by the
//! parser in this module; the rest is DataFusion's and handed over as sqlparser's AST, never
//! printed and parsed again. `parse(print(s)) == s` holds for every statement that this module
//! prints.

mod ast;
mod backup;
mod blanks;
mod bounds;
mod cluster;
mod cursor;
mod define;
mod dialect;
mod filter;
mod grant;
mod lexer;
mod naming;
mod parser;
mod print;
mod properties;
mod read;
mod session;
mod show;
mod split;
mod sql_error;
mod sql_text;
mod told_position;
mod verify;
mod view;

pub use self::ast::*;
pub use self::bounds::{Bounds, Measure, Reading, StopReading};
pub use self::filter::{Operand, resolve_names};
pub use self::properties::{BackupOptions, BaseSnapshot, Properties, RestoreOptions, WhichBackup};
pub use self::read::{
    NextShort, Said, Unread, check_is_last, next_short_statement, next_statement, parse_all,
    parse_one,
};
pub use self::sql_error::offset_of;
pub use self::told_position::placed;
pub use self::view::qualify_tables;
pub use crate::catalog::{
    SYMMETRIC, array_items, column_name, date_before_time, folded, interval_text, type_name,
};

/// Reads a text and, of each statement that can be printed, demands that the print reads back as
/// the same; for the fuzzer and the replay of its corpus.
///
/// # Panics
/// When a statement does not survive.
#[doc(hidden)]
pub fn check_round_trip(text: &str) {
    for parsed in parse_all(text) {
        let Ok((statement, _)) = parsed else { continue };
        let Some(printed) = printed(&statement) else {
            continue;
        };
        match parse_one(&printed) {
            Ok(again) => assert_eq!(again, statement, "{text:?} was printed as {printed:?}"),
            Err(e) => panic!("{text:?} was printed as {printed:?}, which does not read: {e}"),
        }
    }
}

/// Canonical SQL of the statements that have one: those about backups, and SHOW.
fn printed(statement: &Statement) -> Option<String> {
    Some(match statement {
        Statement::Backup(s) => s.to_string(),
        Statement::Restore(s) => s.to_string(),
        Statement::Cancel(s) => s.to_string(),
        Statement::CreateRepository(s) => s.to_string(),
        Statement::DropRepository(name) => print::drop_repository(name),
        Statement::DropSnapshot(s) => s.to_string(),
        Statement::CancelJob { id, force } => print::cancel_job(*id, *force),
        Statement::AlterRepository(s) => s.to_string(),
        Statement::ControlJob { id, control } => print::control_job(*id, *control),
        Statement::Verify(s) => s.to_string(),
        Statement::Prune(s) => s.to_string(),
        Statement::ImportHistory(name) => print::import_history(name),
        Statement::WaitForJob(s) => s.to_string(),
        Statement::ExplainJob(s) => format!("EXPLAIN {}", printed(s)?),
        Statement::Cluster(s) => s.to_string(),
        Statement::Recover(s) => s.to_string(),
        Statement::Show(s) => s.to_string(),
        _ => return None,
    })
}
