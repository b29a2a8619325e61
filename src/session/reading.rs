//! The statements of a message, read one at a time: what is short at once, what is long where
//! queries run, so that nobody waits for it and whoever has sent it can give it up.

use std::ops::Range;
use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryReservation;

use super::{Prepared, Session};
use crate::error::Error;
use crate::statement::{NextShort, Reading, Said, Statement, next_short_statement, next_statement};

/// What a word or sign of a statement takes in memory while it is planned and run, bytes: measured
/// with long lists of values, which take the most.
const BYTES_PER_TOKEN: usize = 1024;

/// What one run of a statement always gets, bytes: `SELECT 1`, or the question who takes all the
/// memory, must have an answer.
const SMALL: usize = 256 << 10;

/// How long a statement's memory is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    OneRun,
    /// A client may keep any number of prepared statements.
    AsLongAsKept,
}

/// A statement of a message.
#[derive(Debug)]
pub struct Read {
    pub statement: Statement,
    /// Where it stands in the message, bytes.
    pub place: Range<usize>,
    /// The memory of all queries has this for it.
    pub memory: MemoryReservation,
}

impl Session {
    /// The next statement of a message from a byte on, or none. Positions of errors count from the
    /// start of the message.
    pub async fn read(
        &self,
        message: &Arc<str>,
        at: usize,
        lasts: Lasts,
    ) -> Result<Option<Read>, Error> {
        let (unread, reading) = (self.unread(), Reading::within(self.caller.gateway.bounds));
        let said = match next_short_statement(message, at, unread, &reading) {
            NextShort::Said(said) => Some(*said),
            NextShort::End => None,
            NextShort::Long => {
                let _given_up = reading.stop_on_drop();
                let message = message.clone();
                self.caller
                    .gateway
                    .engine
                    .offload(async move { next_statement(&message, at, unread, &reading) })
                    .await?
            }
        };
        let Some(Said {
            statement,
            place,
            measure,
        }) = said
        else {
            return Ok(None);
        };
        let statement = statement?;
        let memory = self
            .memory_of(measure.tokens, lasts)
            .map_err(|e| e.at(place.start))?;
        Ok(Some(Read {
            statement,
            place,
            memory,
        }))
    }

    /// What a text that has been read before takes once more.
    pub(super) fn memory_of_text(&self, text: &str) -> Result<MemoryReservation, Error> {
        self.memory_of(text.len().div_ceil(2), Lasts::AsLongAsKept)
    }

    fn memory_of(&self, tokens: usize, lasts: Lasts) -> Result<MemoryReservation, Error> {
        let bytes = tokens * BYTES_PER_TOKEN;
        match lasts {
            Lasts::OneRun if bytes <= SMALL => {
                Ok(self.caller.gateway.engine.take("a statement", bytes))
            }
            _ => self.caller.gateway.engine.reserve("a statement", bytes),
        }
    }
}

impl Prepared {
    /// Keeps what the memory of all queries has for the statement.
    pub fn holds(&mut self, memory: MemoryReservation) {
        self.memory = Some(Arc::new(memory));
    }
}
