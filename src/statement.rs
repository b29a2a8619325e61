//! What was said: SQL text in, [`Statement`] values out. Pure: no I/O, no clock, no randomness.
//!
//! A message may hold several statements of two languages. [`parse_all`] first splits it (`split`), choosing for each piece
//! whose lexical rules hold: StarRocks' for its own statements, PostgreSQL's for everything else. StarRocks statements and
//! session commands are read by the parser in this module; the rest is DataFusion's and handed over as sqlparser's AST, never
//! printed and parsed again. `parse(print(s)) == s` holds for every statement that this module prints.

mod ast;
mod define;
mod lexer;
mod parser;
mod print;
mod properties;
mod session;
mod show;
mod split;

pub use self::ast::*;
pub use self::parser::{parse_all, parse_one};
pub use self::properties::{BackupKind, BackupOptions, Properties, RestoreOptions, WhichBackup};
