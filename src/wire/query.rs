//! Statements in both protocols: prepared, bound, run, and their rows streamed.

mod extended;

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use futures::StreamExt;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{FieldDescription, RowDescription};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};

use super::aside::{aside, has_long_rows};
use super::connection::Connection;
use super::encode::Format;
use super::failure::{End, Failure};
use super::guard::{Guard, Stop, deadline};
use super::portal::{OpenRows, result_formats};
use crate::catalog::{ORIGIN_KEY, field_modifier, field_type, type_size};
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::session::{Lasts, Outcome, Read, Rows, Session};
use crate::statement::{SessionCommand, Statement};

/// Rows that are written before others on the thread have their turn.
pub(super) const ROWS_PER_PAUSE: u64 = 1024;
/// Portals that one connection may hold: each may hold a query half-way through its rows.
const PORTALS_MAX: usize = 256;

/// Why taking rows stopped.
enum FetchResult {
    /// There are none left.
    All(u64),
    /// There may be more.
    Limit,
}

/// The command tag of rows.
fn tag_of(verb: &str, count: u64) -> String {
    if verb == "EXPLAIN" {
        verb.to_owned()
    } else {
        format!("{verb} {count}")
    }
}

/// What is left of an answer once all but its rows has gone out.
enum Delivered {
    /// Nothing; the command tag, if there is one that a portal tells again.
    Done(Option<String>),
    Rows(Rows),
}

impl Connection {
    fn guard(&self, session: &Session) -> Guard {
        Guard {
            token: self.gateway.connections.arm(self.pid),
            deadline: deadline(session),
        }
    }

    /// A simple query: its statements one after the other, up to the first error.
    pub async fn simple(&mut self, session: &mut Session, text: &str) -> Result<(), End> {
        let message: Arc<str> = text.into();
        let mut guard = self.guard(session);
        let mut at = 0;
        loop {
            if at > 0 {
                // A message of a hundred thousand statements must not hold up those who share the
                // thread.
                tokio::task::yield_now().await;
                guard.deadline = deadline(session);
            }
            let read = match guard
                .run(
                    self.framed.get_ref().socket(),
                    session.read(&message, at, Lasts::OneRun),
                )
                .await
            {
                Ok(read) => read,
                Err(Stop::Cancelled(error)) => Err(error),
                Err(Stop::Gone) => return Err(End::Closed),
            };
            let done = match read {
                Ok(None) if at == 0 => {
                    return self.put(PgWireBackendMessage::EmptyQueryResponse(
                        EmptyQueryResponse::new(),
                    ));
                }
                Ok(None) => return Ok(()),
                Ok(Some(Read {
                    statement,
                    place,
                    memory: _held,
                })) => {
                    at = place.end;
                    let ran = self
                        .simple_one(session, &guard, statement, &message[place.clone()])
                        .await;
                    match ran {
                        Ok(()) => Ok(()),
                        Err(Failure::Statement(e)) => Err(e.shifted(place.start)),
                        Err(Failure::Connection(end)) => return Err(end),
                    }
                }
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                return self.report(session, &error, text);
            }
            self.gateway.metrics.statement("00000");
            self.flush_if_full().await?;
        }
    }

    async fn simple_one(
        &mut self,
        session: &mut Session,
        guard: &Guard,
        statement: Statement,
        text: &str,
    ) -> Result<(), Failure> {
        session.note_activity(Some((&statement, text)));
        if let Statement::Session(SessionCommand::Fetch {
            name,
            direction,
            moves: true,
        }) = &statement
            && self.portals.contains_key(name)
        {
            let name = name.clone();
            return self.move_portal(session, guard, &name, *direction).await;
        }
        let work = async {
            let prepared = session.prepare(statement, text, &[]).await?;
            if !prepared.parameters.is_empty() {
                return Err(
                    Error::new(ErrorKind::UndefinedParameter, "there is no parameter $1")
                        .hint("Parameters belong to prepared statements."),
                );
            }
            let outcome = session.execute(&prepared, Vec::new()).await?;
            Ok((prepared, outcome))
        };
        let (prepared, outcome) = guard.run(self.framed.get_ref().socket(), work).await??;
        let Delivered::Rows(rows) = self
            .deliver(session, guard, &prepared.statement, outcome)
            .await?
        else {
            return Ok(());
        };
        let formats: &[i16] = if rows.binary { &[1] } else { &[] };
        self.put(PgWireBackendMessage::RowDescription(row_description(
            &rows.schema,
            formats,
        )))?;
        let verb = rows.verb;
        let mut open = OpenRows::new(rows, formats, session)?;
        match self.take(&mut open, guard, None).await? {
            FetchResult::All(count) => Ok(self.complete(session, tag_of(verb, count))?),
            FetchResult::Limit => Err(Error::internal("rows without a limit hit one").into()),
        }
    }

    /// Sends what came of a statement, in either protocol: everything but rows, which each protocol
    /// describes in its own way.
    async fn deliver(
        &mut self,
        session: &mut Session,
        guard: &Guard,
        statement: &Statement,
        outcome: Outcome,
    ) -> Result<Delivered, Failure> {
        self.notices(session)?;
        if matches!(statement, Statement::Session(SessionCommand::DiscardAll)) {
            // It closes portals, too.
            self.portals.clear();
        }
        let copied = match outcome {
            Outcome::Rows(rows) => return Ok(Delivered::Rows(rows)),
            Outcome::Empty => {
                self.put(PgWireBackendMessage::EmptyQueryResponse(
                    EmptyQueryResponse::new(),
                ))?;
                return Ok(Delivered::Done(None));
            }
            Outcome::Done(tag) => {
                self.complete(session, tag.clone())?;
                return Ok(Delivered::Done(Some(tag)));
            }
            Outcome::CopyIn(copy) => self.copy_in(copy, guard).await?,
            Outcome::CopyOut(copy) => self.copy_out(session, copy, guard).await?,
        };
        self.complete(session, format!("COPY {copied}"))?;
        Ok(Delivered::Done(None))
    }

    fn complete(&mut self, session: &mut Session, tag: String) -> Result<(), End> {
        self.reports(session)?;
        self.put(PgWireBackendMessage::CommandComplete(CommandComplete::new(
            tag,
        )))
    }

    /// Streams rows into the buffer, flushing as it fills; at most `limit` of them.
    async fn take(
        &mut self,
        open: &mut OpenRows,
        guard: &Guard,
        limit: Option<u64>,
    ) -> Result<FetchResult, Failure> {
        let mut count = 0;
        loop {
            let batch = match open.batch.take() {
                Some(batch) => batch,
                None => {
                    let pulled = guard
                        .run(self.framed.get_ref().socket(), open.rows.stream.next())
                        .await?;
                    let Some(batch) = pulled.transpose().map_err(from_datafusion)? else {
                        return Ok(FetchResult::All(count));
                    };
                    open.next = 0;
                    batch
                }
            };
            let is_long = has_long_rows(&batch);
            let columns = aside(is_long, || open.encoder.columns(&batch))?;
            while open.next < batch.num_rows() {
                if limit.is_some_and(|limit| count >= limit) {
                    open.batch = Some(batch);
                    return Ok(FetchResult::Limit);
                }
                aside(is_long, || {
                    columns.row(open.next, self.framed.write_buffer_mut())
                })?;
                open.next += 1;
                count += 1;
                if count.is_multiple_of(ROWS_PER_PAUSE) {
                    tokio::task::yield_now().await;
                }
                self.flush_under(guard).await?;
            }
        }
    }
}

fn row_description(schema: &SchemaRef, formats: &[i16]) -> RowDescription {
    let formats = result_formats(formats, schema.fields().len())
        .unwrap_or_else(|_| vec![Format::Text; schema.fields().len()]);
    let fields = schema.fields().iter().zip(formats).map(|(field, format)| {
        let pg = field_type(field);
        let origin = field
            .metadata()
            .get(ORIGIN_KEY)
            .and_then(|o| o.split_once('.'));
        let (table, place) = origin
            .and_then(|(t, p)| Some((t.parse().ok()?, p.parse().ok()?)))
            .unwrap_or((0, 0));
        FieldDescription::new(
            field.name().clone(),
            table,
            place,
            pg.oid(),
            type_size(&pg),
            field_modifier(field),
            if format == Format::Binary { 1 } else { 0 },
        )
    });
    RowDescription::new(fields.collect())
}
