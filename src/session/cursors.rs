//! Cursors: queries whose rows are taken a few at a time, by FETCH.
//!
//! Rows are pulled as they are asked for. A SCROLL cursor also keeps those it has passed, up to a
//! bound, to go back to them.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tokio::sync::Mutex;

use super::{Outcome, Prepared, Rows, Session, TransactionState};
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::statement::{DeclareCursor, Direction, Statement};

/// Cursors that one session may hold.
const CURSORS_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Cursor {
    pub schema: SchemaRef,
    pub text: String,
    pub hold: bool,
    pub scroll: bool,
    binary: bool,
    /// How many savepoints stood when it was declared: ROLLBACK TO an earlier one closes it.
    savepoints: usize,
    rows: Arc<Mutex<CursorBuffer>>,
}

/// The rows of a cursor, those before it and those to come.
struct CursorBuffer {
    rows: Option<Rows>,
    /// Of SCROLL, all that has been pulled; else what was pulled and not yet taken.
    batches: Vec<RecordBatch>,
    bytes: usize,
    bytes_max: usize,
    keeps: bool,
    /// Rows pulled so far, and whether that is all of them.
    pulled: u64,
    ended: bool,
    /// Rows that went and are not kept.
    dropped: u64,
    /// Which row the cursor stands on, from 1; 0 is before the first, one more than there are is
    /// after the last.
    at: u64,
}

impl std::fmt::Debug for CursorBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CursorBuffer")
            .field("pulled", &self.pulled)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl CursorBuffer {
    /// Pulls until row `wanted` is here, or there are no more.
    async fn pull_to(&mut self, wanted: u64) -> Result<(), Error> {
        while self.pulled < wanted && !self.ended {
            let next = match &mut self.rows {
                Some(rows) => rows.stream.next().await,
                None => None,
            };
            match next {
                Some(batch) => {
                    let batch = batch.map_err(from_datafusion)?;
                    self.pulled += batch.num_rows() as u64;
                    self.bytes += batch.get_array_memory_size();
                    if self.keeps && self.bytes > self.bytes_max {
                        let message = format!(
                            "a SCROLL cursor holds more than {} bytes of rows",
                            self.bytes_max
                        );
                        return Err(Error::new(ErrorKind::LimitExceeded, message)
                            .hint("Declare it with NO SCROLL, or ask for fewer rows. The limit is the setting cursor_bytes_max."));
                    }
                    self.batches.push(batch);
                    // A cursor that only goes forward holds the batch it stands in, however far it
                    // goes at once.
                    while !self.keeps && self.pulled < wanted && self.batches.len() > 1 {
                        self.drop_first();
                    }
                }
                None => {
                    self.ended = true;
                    self.rows = None;
                }
            }
        }
        Ok(())
    }

    /// The part of what is here from row `from` on, at most `most` rows, out of one batch.
    fn slice(&self, from: u64, most: u64) -> Option<RecordBatch> {
        let mut first = self.dropped + 1;
        for batch in &self.batches {
            let count = batch.num_rows() as u64;
            if from < first + count {
                let offset = (from - first) as usize;
                let length = (count - offset as u64).min(most) as usize;
                return Some(batch.slice(offset, length));
            }
            first += count;
        }
        None
    }

    /// Whether a row has been let go of.
    fn slice_is_gone(&self, row: i64) -> bool {
        u64::try_from(row).is_ok_and(|row| row <= self.dropped)
    }

    /// Forgets what a cursor that only goes forward has passed.
    fn forget(&mut self) {
        while !self.keeps
            && self
                .batches
                .first()
                .is_some_and(|b| self.dropped + b.num_rows() as u64 <= self.at)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let passed = self.batches.remove(0);
        self.dropped += passed.num_rows() as u64;
        self.bytes = self.bytes.saturating_sub(passed.get_array_memory_size());
    }

    /// The next rows, up to `most`; nothing at the end.
    async fn next(&mut self, most: u64) -> Result<Option<RecordBatch>, Error> {
        self.pull_to(self.at + 1).await?;
        match self.slice(self.at + 1, most) {
            Some(batch) => {
                self.at += batch.num_rows() as u64;
                self.forget();
                Ok(Some(batch))
            }
            None => {
                self.at = self.pulled + 1;
                Ok(None)
            }
        }
    }

    /// The rows before the one that the cursor stands on, the nearest first, up to `most`, out of
    /// one batch; nothing at the beginning.
    fn previous(&mut self, most: u64) -> Result<Option<RecordBatch>, Error> {
        let end = self.at.saturating_sub(1);
        let mut first = self.dropped + 1;
        for batch in &self.batches {
            let after = first + batch.num_rows() as u64;
            if (first..after).contains(&end) {
                let start = first.max((end + 1).saturating_sub(most));
                let places = ((start - first) as u32..=(end - first) as u32).rev();
                let rows = take_record_batch(batch, &UInt32Array::from_iter_values(places));
                self.at = start;
                return rows.map(Some).map_err(|e| from_datafusion(e.into()));
            }
            first = after;
        }
        self.at = 0;
        Ok(None)
    }

    /// One row by its number; the cursor stands on it then, or before or after all.
    async fn row(&mut self, number: i64) -> Result<Option<RecordBatch>, Error> {
        let number = u64::try_from(number).unwrap_or(0);
        self.pull_to(number).await?;
        self.at = number.min(self.pulled + 1);
        let found = if number == 0 {
            None
        } else {
            self.slice(number, 1)
        };
        self.forget();
        Ok(found)
    }
}

fn forward_only() -> Error {
    Error::new(ErrorKind::WrongState, "cursor can only scan forward")
        .hint("Declare it with SCROLL option to enable backward scan.")
}

fn unknown(name: &str) -> Error {
    Error::new(
        ErrorKind::InvalidCursorName,
        format!("cursor \"{name}\" does not exist"),
    )
}

impl Session {
    /// The columns that FETCH answers.
    pub(super) fn fetched_schema(&self, name: &str) -> Result<SchemaRef, Error> {
        self.cursors
            .get(name)
            .map(|c| c.schema.clone())
            .ok_or_else(|| unknown(name))
    }

    /// The columns of a cursor, and whether its values are in binary format.
    pub fn cursor_shape(&self, name: &str) -> Option<(SchemaRef, bool)> {
        self.cursors.get(name).map(|c| (c.schema.clone(), c.binary))
    }

    /// Name, text, WITH HOLD and SCROLL of each.
    pub(super) fn cursor_facts(&self) -> Vec<(String, String, bool, bool)> {
        self.cursors
            .iter()
            .map(|(name, c)| (name.clone(), c.text.clone(), c.hold, c.scroll))
            .collect()
    }

    /// Works out a cursor's query; its parameters are the statement's.
    pub(super) async fn prepare_declared(
        &mut self,
        declared: &DeclareCursor,
        types: &[Option<datafusion::arrow::datatypes::DataType>],
    ) -> Result<Prepared, Error> {
        let query = declared
            .query
            .clone()
            .ok_or_else(|| Error::internal("a cursor without a query"))?;
        if !matches!(*query, datafusion::sql::sqlparser::ast::Statement::Query(_)) {
            return Err(Error::new(
                ErrorKind::Syntax,
                "DECLARE CURSOR is for queries",
            ));
        }
        Box::pin(self.prepare(Statement::Sql(query), &declared.text, types)).await
    }

    pub(super) async fn declare(
        &mut self,
        declared: &DeclareCursor,
        query: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        if self.block.state == TransactionState::Idle && !declared.hold {
            return Err(Error::new(
                ErrorKind::NoActiveTransaction,
                "DECLARE CURSOR can only be used in transaction blocks",
            )
            .hint("BEGIN one, or declare the cursor WITH HOLD."));
        }
        if self.cursors.contains_key(&declared.name) {
            return Err(Error::new(
                ErrorKind::DuplicateCursor,
                format!("cursor \"{}\" already exists", declared.name),
            ));
        }
        if self.cursors.len() >= CURSORS_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("more than {CURSORS_MAX} cursors"),
            )
            .hint("CLOSE some."));
        }
        let Outcome::Rows(rows) = Box::pin(self.carry_out(query, values)).await? else {
            return Err(Error::internal("a query answered no rows"));
        };
        let schema = rows.schema.clone();
        let scroll = declared.scroll == Some(true);
        let taken = CursorBuffer {
            rows: Some(rows),
            batches: Vec::new(),
            bytes: 0,
            bytes_max: self.caller.gateway.limits.cursor_bytes_max,
            keeps: scroll,
            pulled: 0,
            ended: false,
            dropped: 0,
            at: 0,
        };
        let cursor = Cursor {
            schema,
            text: declared.text.clone(),
            hold: declared.hold,
            scroll,
            binary: declared.binary,
            savepoints: self.block.savepoints.len(),
            rows: Arc::new(Mutex::new(taken)),
        };
        self.cursors.insert(declared.name.clone(), cursor);
        Ok(Outcome::Done("DECLARE CURSOR".into()))
    }

    pub(super) async fn fetch(
        &mut self,
        name: &str,
        direction: Direction,
        moves: bool,
    ) -> Result<Outcome, Error> {
        let cursor = self.cursors.get(name).ok_or_else(|| unknown(name))?;
        let (schema, binary, scroll) = (cursor.schema.clone(), cursor.binary, cursor.scroll);
        let rows = cursor.rows.clone();
        let most = match direction {
            Direction::Forward(n) if n > 0 => Some(n as u64),
            Direction::ForwardAll => Some(u64::MAX),
            _ => None,
        };
        if let Some(mut most) = most {
            if moves {
                let mut taken = rows.lock().await;
                let mut moved = 0;
                while most > 0
                    && let Some(batch) = taken.next(most).await?
                {
                    most -= batch.num_rows() as u64;
                    moved += batch.num_rows();
                }
                return Ok(Outcome::Done(format!("MOVE {moved}")));
            }
            // Pulled as the client takes them: FETCH ALL holds no more than a batch.
            let stream = futures::stream::try_unfold((rows, most), |(rows, most)| async move {
                if most == 0 {
                    return Ok(None);
                }
                let next = rows
                    .lock()
                    .await
                    .next(most)
                    .await
                    .map_err(|e| DataFusionError::External(Box::new(e)))?;
                Ok(next.map(|batch| {
                    let left = most - batch.num_rows() as u64;
                    (batch, (rows, left))
                }))
            });
            return Ok(Outcome::Rows(self.fetched(
                schema.clone(),
                Box::pin(RecordBatchStreamAdapter::new(schema, stream)),
                binary,
            )));
        }
        let back = match direction {
            Direction::Backward(n) if n > 0 => Some(n as u64),
            Direction::BackwardAll => Some(u64::MAX),
            _ => None,
        };
        if let Some(most) = back {
            return self
                .fetch_back(rows, schema, binary, scroll, most, moves)
                .await;
        }
        let mut taken = rows.lock().await;
        let at = taken.at as i64;
        // What is asked for, as row numbers in their order.
        let wanted: Vec<i64> = match direction {
            Direction::Forward(_) => vec![at],
            Direction::Relative(n) => vec![at.saturating_add(n)],
            Direction::Absolute(n) if n >= 0 => vec![n],
            Direction::Absolute(n) => {
                taken.pull_to(u64::MAX).await?;
                vec![(taken.pulled as i64 + 1 + n).max(0)]
            }
            Direction::ForwardAll | Direction::Backward(_) | Direction::BackwardAll => Vec::new(),
        };
        let lowest = wanted.iter().copied().min().unwrap_or(at);
        // What has been passed is gone, unless the cursor was declared to keep it; where it stands,
        // too.
        if !scroll && (lowest < at || lowest > 0 && taken.slice_is_gone(lowest)) {
            return Err(forward_only());
        }
        let mut found = Vec::new();
        for number in wanted {
            found.extend(taken.row(number).await?);
        }
        drop(taken);
        if moves {
            return Ok(Outcome::Done(format!("MOVE {}", found.len())));
        }
        let batch = concat_batches(&schema, &found).map_err(|e| from_datafusion(e.into()))?;
        let stream =
            RecordBatchStreamAdapter::new(schema.clone(), futures::stream::iter([Ok(batch)]));
        Ok(Outcome::Rows(self.fetched(
            schema,
            Box::pin(stream),
            binary,
        )))
    }

    /// `FETCH BACKWARD`, and `MOVE BACKWARD`.
    async fn fetch_back(
        &self,
        rows: Arc<Mutex<CursorBuffer>>,
        schema: SchemaRef,
        binary: bool,
        scroll: bool,
        most: u64,
        moves: bool,
    ) -> Result<Outcome, Error> {
        let mut taken = rows.lock().await;
        if !scroll && taken.at > 0 {
            return Err(forward_only());
        }
        if moves {
            let (mut left, mut moved) = (most, 0);
            while left > 0
                && let Some(batch) = taken.previous(left)?
            {
                left -= batch.num_rows() as u64;
                moved += batch.num_rows();
            }
            return Ok(Outcome::Done(format!("MOVE {moved}")));
        }
        drop(taken);
        let stream = futures::stream::try_unfold((rows, most), |(rows, most)| async move {
            if most == 0 {
                return Ok(None);
            }
            let previous = rows
                .lock()
                .await
                .previous(most)
                .map_err(|e| DataFusionError::External(Box::new(e)))?;
            Ok(previous.map(|batch| {
                let left = most - batch.num_rows() as u64;
                (batch, (rows, left))
            }))
        });
        let stream = Box::pin(RecordBatchStreamAdapter::new(schema.clone(), stream));
        Ok(Outcome::Rows(self.fetched(schema, stream, binary)))
    }

    fn fetched(
        &self,
        schema: SchemaRef,
        stream: datafusion::execution::SendableRecordBatchStream,
        binary: bool,
    ) -> Rows {
        let as_of = self
            .caller
            .gateway
            .engine
            .as_of(&self.caller.cluster, self.client.user.as_str());
        Rows {
            schema,
            stream,
            verb: "FETCH",
            binary,
            _as_of: as_of,
        }
    }

    pub(super) fn close_cursor(&mut self, name: Option<&str>) -> Result<Outcome, Error> {
        match name {
            None => {
                self.cursors.clear();
                Ok(Outcome::Done("CLOSE CURSOR ALL".into()))
            }
            Some(name) => match self.cursors.remove(name) {
                Some(_) => Ok(Outcome::Done("CLOSE CURSOR".into())),
                None => Err(unknown(name)),
            },
        }
    }

    /// The end of a block: cursors without HOLD go, and after ROLLBACK those that it declared.
    pub(super) fn close_cursors_of_block(&mut self, committed: bool) {
        let before = std::mem::take(&mut self.block.cursors_before);
        self.cursors
            .retain(|name, cursor| cursor.hold && (committed || before.contains(name)));
    }

    /// ROLLBACK TO a savepoint closes what was declared after it.
    pub(super) fn close_cursors_behind(&mut self, savepoint: usize) {
        let before = &self.block.cursors_before;
        self.cursors
            .retain(|name, cursor| before.contains(name) || cursor.savepoints <= savepoint);
    }
}
