//! PostgreSQL's meaning of single values: how it reads and writes times and intervals, and what its
//! patterns say. Nothing here knows of tables, Arrow or a session; whoever has many values calls it
//! for each.

pub mod datetime;
pub mod interval;
pub mod json;
pub mod like;
pub mod number_format;
pub mod text;
pub mod time_format;

use starkeep_error::{Error, ErrorKind};

/// 22007: a text that is no value of a type of times.
fn bad_text(of: &str, text: &str) -> Error {
    Error::new(
        ErrorKind::InvalidDatetime,
        format!("invalid input syntax for type {of}: \"{text}\""),
    )
}

/// 22008: a text whose fields are no date or time that there is.
fn out_of_range(text: &str) -> Error {
    Error::new(
        ErrorKind::DateTimeOverflow,
        format!("date/time field value out of range: \"{text}\""),
    )
}
