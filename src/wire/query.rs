//! Statements in both protocols: prepared, bound, run, and their rows streamed.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use futures::StreamExt;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended, TARGET_TYPE_BYTE_PORTAL,
    TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, End, Failure};
use super::encode::{Format, RowEncoder};
use super::params::decode_parameter;
use crate::catalog::{ORIGIN_KEY, arrow_type, field_modifier, field_type, pg_type, type_size};
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::session::{Lasts, Outcome, Prepared, Read, Rows, Session};
use crate::statement::{Direction, SessionCommand, Statement, check_is_last};

/// Rows that are written before others on the thread have their turn.
const ROWS_PER_PAUSE: u64 = 1024;
/// Portals that one connection may hold: each may hold a query half-way through its rows.
const PORTALS_MAX: usize = 256;

/// A prepared statement with its parameters, perhaps half-way through its rows.
pub(super) struct Portal {
    pub prepared: Arc<Prepared>,
    values: Vec<ScalarValue>,
    formats: Vec<i16>,
    open: Option<OpenRows>,
    /// It has run; what came of it.
    finished: Option<String>,
}

/// Rows that are being taken.
struct OpenRows {
    rows: Rows,
    encoder: RowEncoder,
    batch: Option<RecordBatch>,
    next: usize,
}

/// Why taking rows stopped.
enum FetchResult {
    /// There are none left.
    All(u64),
    /// There may be more.
    Limit,
}

/// The command tag of rows.
fn tag_of(verb: &str, count: u64) -> String {
    if verb == "EXPLAIN" { verb.to_owned() } else { format!("{verb} {count}") }
}

/// When a statement that begins now must have ended.
fn deadline(session: &Session) -> Option<tokio::time::Instant> {
    session.statement_timeout().map(|t| tokio::time::Instant::now() + t)
}

fn cancelled(by_user: bool) -> Error {
    let why = if by_user { "user request" } else { "statement timeout" };
    Error::new(ErrorKind::Cancelled, format!("canceling statement due to {why}"))
}

/// What stops a statement from outside.
pub(super) struct Guard {
    token: CancellationToken,
    deadline: Option<tokio::time::Instant>,
}

impl Guard {
    /// Waits until the statement is cancelled or its time is over, and says which.
    pub async fn stopped(&self) -> Error {
        let time_over = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.token.cancelled() => cancelled(true),
            () = time_over => cancelled(false),
        }
    }

    /// Runs a future unless the statement is cancelled, its time is over, or the client is gone.
    pub async fn run<T>(&self, socket: &TcpStream, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            error = self.stopped() => Err(Stop::Cancelled(error)),
            out = work => Ok(out),
            () = gone(socket) => Err(Stop::Gone),
        }
    }
}

pub(super) enum Stop {
    Cancelled(Error),
    Gone,
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled(error) => Self::Statement(error),
            Stop::Gone => Self::Connection(End::Closed),
        }
    }
}

/// What is left of an answer once all but its rows has gone out.
enum Delivered {
    /// Nothing; the command tag, if there is one that a portal tells again.
    Done(Option<String>),
    Rows(Rows),
}

/// How often a client that has sent more is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Waits until the client hangs up.
async fn gone(socket: &TcpStream) {
    match socket.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        // It has sent more: the next statements, or its good-bye. Nothing wakes whoever waits for the end behind that.
        Ok(_) => {
            let mut looks = tokio::time::interval(LOOK_INTERVAL);
            while socket.ready(Interest::READABLE).await.is_ok_and(|ready| !ready.is_read_closed()) {
                looks.tick().await;
            }
        }
    }
}

impl Connection {
    fn guard(&self, session: &Session) -> Guard {
        Guard { token: self.gateway.connections.arm(self.pid), deadline: deadline(session) }
    }

    /// A simple query: its statements one after the other, up to the first error.
    pub async fn simple(&mut self, session: &mut Session, text: &str) -> Result<(), End> {
        let message: Arc<str> = text.into();
        let mut guard = self.guard(session);
        let mut at = 0;
        loop {
            if at > 0 {
                // A message of a hundred thousand statements must not hold up those who share the thread.
                tokio::task::yield_now().await;
                guard.deadline = deadline(session);
            }
            let read = match guard.run(self.framed.get_ref().socket(), session.read(&message, at, Lasts::OneRun)).await {
                Ok(read) => read,
                Err(Stop::Cancelled(error)) => Err(error),
                Err(Stop::Gone) => return Err(End::Closed),
            };
            let done = match read {
                Ok(None) if at == 0 => {
                    return self.put(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()));
                }
                Ok(None) => return Ok(()),
                Ok(Some(Read { statement, place, memory: _held })) => {
                    at = place.end;
                    let ran = self.simple_one(session, &guard, statement, &message[place.clone()]).await;
                    Failure::of_statement(ran)?.map_err(|e| e.shifted(place.start))
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

    async fn simple_one(&mut self, session: &mut Session, guard: &Guard, statement: Statement, text: &str) -> Result<(), Failure> {
        session.note_activity(Some((&statement, text)));
        if let Statement::Session(SessionCommand::Fetch { name, direction, moves: true }) = &statement
            && self.portals.contains_key(name)
        {
            let name = name.clone();
            return self.move_portal(session, guard, &name, *direction).await;
        }
        let work = async {
            let prepared = session.prepare(statement, text, &[]).await?;
            if !prepared.parameters.is_empty() {
                return Err(Error::new(ErrorKind::UndefinedParameter, "there is no parameter $1")
                    .hint("Parameters belong to prepared statements."));
            }
            let outcome = session.execute(&prepared, Vec::new()).await?;
            Ok((prepared, outcome))
        };
        let (prepared, outcome) = guard.run(self.framed.get_ref().socket(), work).await??;
        let Delivered::Rows(rows) = self.deliver(session, guard, &prepared.statement, outcome).await? else { return Ok(()) };
        let formats: &[i16] = if rows.binary { &[1] } else { &[] };
        self.put(PgWireBackendMessage::RowDescription(row_description(&rows.schema, formats)))?;
        let verb = rows.verb;
        let mut open = OpenRows::new(rows, formats, session)?;
        match self.take(&mut open, guard, None).await? {
            FetchResult::All(count) => Ok(self.complete(session, tag_of(verb, count))?),
            FetchResult::Limit => Err(Error::internal("rows without a limit hit one").into()),
        }
    }

    /// Sends what came of a statement, in either protocol: everything but rows, which each protocol describes in its own way.
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
                self.put(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()))?;
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
        self.put(PgWireBackendMessage::CommandComplete(CommandComplete::new(tag)))
    }

    /// Streams rows into the buffer, flushing as it fills; at most `limit` of them.
    async fn take(&mut self, open: &mut OpenRows, guard: &Guard, limit: Option<u64>) -> Result<FetchResult, Failure> {
        let mut count = 0;
        loop {
            let batch = match open.batch.take() {
                Some(batch) => batch,
                None => {
                    let pulled = guard.run(self.framed.get_ref().socket(), open.rows.stream.next()).await?;
                    let Some(batch) = pulled.transpose().map_err(from_datafusion)? else { return Ok(FetchResult::All(count)) };
                    open.next = 0;
                    batch
                }
            };
            let columns = open.encoder.columns(&batch)?;
            while open.next < batch.num_rows() {
                if limit.is_some_and(|limit| count >= limit) {
                    open.batch = Some(batch);
                    return Ok(FetchResult::Limit);
                }
                columns.row(open.next, self.framed.write_buffer_mut())?;
                open.next += 1;
                count += 1;
                if count.is_multiple_of(ROWS_PER_PAUSE) {
                    tokio::task::yield_now().await;
                }
                self.flush_under(guard).await?;
            }
        }
    }

    pub async fn parse(&mut self, session: &mut Session, parse: Parse) -> Result<(), Error> {
        let name = parse.name.unwrap_or_default();
        session.check_statement_name(&name)?;
        let declared: Vec<_> = parse.type_oids.iter().map(|oid| if *oid == 0 { None } else { arrow_type(*oid) }).collect();
        let guard = self.guard(session);
        let message: Arc<str> = parse.query.into();
        // The one without a name gives way to the next.
        let lasts = if name.is_empty() { Lasts::OneRun } else { Lasts::AsLongAsKept };
        let work = async {
            let Some(Read { statement, place, memory }) = session.read(&message, 0, lasts).await? else {
                return session.prepare(Statement::Empty, "", &declared).await;
            };
            check_is_last(&message, place.end)?;
            let text = &message[place.clone()];
            let mut prepared = session.prepare(statement, text, &declared).await.map_err(|e| e.shifted(place.start))?;
            prepared.holds(memory);
            Ok(prepared)
        };
        let mut prepared = match guard.run(self.framed.get_ref().socket(), work).await {
            Ok(prepared) => prepared?,
            Err(Stop::Cancelled(error)) => return Err(error),
            Err(Stop::Gone) => return Err(cancelled(true)),
        };
        prepared.declared = parse.type_oids;
        session.keep_statement(name, prepared);
        self.reply(PgWireBackendMessage::ParseComplete(ParseComplete::new()))
    }

    fn reply(&mut self, message: PgWireBackendMessage) -> Result<(), Error> {
        self.put(message).map_err(|_| Error::internal("a message could not be written"))
    }

    pub fn bind(&mut self, session: &mut Session, bind: Bind) -> Result<(), Error> {
        let name = bind.statement_name.unwrap_or_default();
        let prepared = session.statement(&name)?;
        if bind.parameters.len() != prepared.parameters.len() {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{name}\" requires {}",
                    bind.parameters.len(),
                    prepared.parameters.len()
                ),
            ));
        }
        let codes = &bind.parameter_format_codes;
        let format = |i: usize| codes.get(i).or(codes.first().filter(|_| codes.len() == 1)).copied().unwrap_or(0);
        let values = bind.parameters.iter().zip(&prepared.parameters).enumerate().map(|(i, (value, data_type))| match value {
            Some(bytes) => decode_parameter(bytes, format(i), data_type).map_err(|e| e.detail(format!("parameter ${}", i + 1))),
            None => ScalarValue::try_from(data_type).map_err(from_datafusion),
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let portal = bind.portal_name.unwrap_or_default();
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err(Error::new(ErrorKind::InvalidCursorName, format!("portal \"{portal}\" already exists")));
        }
        if self.portals.len() >= PORTALS_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, format!("more than {PORTALS_MAX} portals")).hint("Close some."));
        }
        let formats = bind.result_column_format_codes;
        self.portals.insert(portal, Portal { prepared, values, formats, open: None, finished: None });
        self.reply(PgWireBackendMessage::BindComplete(BindComplete::new()))
    }

    pub fn describe(&mut self, session: &mut Session, describe: Describe) -> Result<(), Error> {
        let name = describe.name.unwrap_or_default();
        let (schema, formats) = match describe.target_type {
            TARGET_TYPE_BYTE_STATEMENT => {
                let prepared = session.statement(&name)?;
                // What the client has declared stays what it is called.
                let said = |i: usize| prepared.declared.get(i).copied().filter(|oid| arrow_type(*oid).is_some());
                let types = prepared.parameters.iter().enumerate();
                let oids = types.map(|(i, t)| said(i).unwrap_or_else(|| pg_type(t).oid())).collect();
                self.reply(PgWireBackendMessage::ParameterDescription(ParameterDescription::new(oids)))?;
                (prepared.schema.clone(), Vec::new())
            }
            TARGET_TYPE_BYTE_PORTAL => {
                match (self.portals.get(&name), session.cursor_shape(&name)) {
                    (Some(portal), _) => (portal.prepared.schema.clone(), portal.formats.clone()),
                    // A cursor is a portal, too.
                    (None, Some((schema, binary))) => (Some(schema), vec![i16::from(binary)]),
                    (None, None) => return Err(unknown_portal(&name)),
                }
            }
            other => return Err(Error::new(ErrorKind::Protocol, format!("invalid DESCRIBE target {other}"))),
        };
        self.reply(match schema {
            Some(schema) => PgWireBackendMessage::RowDescription(row_description(&schema, &formats)),
            None => PgWireBackendMessage::NoData(NoData::new()),
        })
    }

    pub fn forget(&mut self, session: &mut Session, close: Close) -> Result<(), Error> {
        let name = close.name.unwrap_or_default();
        match close.target_type {
            TARGET_TYPE_BYTE_STATEMENT => session.forget_statement(&name),
            TARGET_TYPE_BYTE_PORTAL => drop(self.portals.remove(&name)),
            other => return Err(Error::new(ErrorKind::Protocol, format!("invalid CLOSE target {other}"))),
        }
        self.reply(PgWireBackendMessage::CloseComplete(CloseComplete::new()))
    }

    /// Runs a portal, or goes on with its rows.
    pub async fn execute(&mut self, session: &mut Session, execute: Execute) -> Result<(), Failure> {
        let name = execute.name.unwrap_or_default();
        let mut portal = self.portals.remove(&name).ok_or_else(|| unknown_portal(&name))?;
        let limit = u64::try_from(execute.max_rows).ok().filter(|n| *n > 0);
        let result = self.run_portal(session, &mut portal, limit).await;
        // DISCARD ALL and DEALLOCATE may have closed everything meanwhile; the unnamed portal stays until Sync.
        self.portals.insert(name, portal);
        if result.is_ok() {
            self.gateway.metrics.statement("00000");
        }
        result
    }

    async fn run_portal(&mut self, session: &mut Session, portal: &mut Portal, limit: Option<u64>) -> Result<(), Failure> {
        if let Some(tag) = &portal.finished {
            return Ok(self.complete(session, tag.clone())?);
        }
        let guard = self.guard(session);
        if portal.open.is_none() {
            session.note_activity(Some((&portal.prepared.statement, &portal.prepared.text)));
            let work = session.execute(&portal.prepared, portal.values.clone());
            let outcome = guard.run(self.framed.get_ref().socket(), work).await??;
            match self.deliver(session, &guard, &portal.prepared.statement, outcome).await? {
                Delivered::Done(tag) => {
                    portal.finished = tag;
                    return Ok(());
                }
                // A text that went to the cluster as it is: the client was told of no rows, so it must not get any.
                Delivered::Rows(_) if portal.prepared.schema.is_none() => {
                    let what = "a statement with rows that is handed over as it is, in the extended protocol";
                    return Err(Error::unsupported(what).hint("Send it as a simple query.").into());
                }
                Delivered::Rows(rows) => portal.open = Some(OpenRows::new(rows, &portal.formats, session)?),
            }
        }
        let open = portal.open.as_mut().ok_or_else(|| Error::internal("a portal without rows"))?;
        match self.take(open, &guard, limit).await {
            Ok(FetchResult::Limit) => Ok(self.put(PgWireBackendMessage::PortalSuspended(PortalSuspended::new()))?),
            Ok(FetchResult::All(count)) => {
                let verb = open.rows.verb;
                portal.open = None;
                portal.finished = Some(tag_of(verb, 0));
                Ok(self.complete(session, tag_of(verb, count))?)
            }
            Err(failure) => {
                portal.open = None;
                portal.finished = Some("SELECT 0".into());
                Err(failure)
            }
        }
    }

    /// `MOVE FORWARD n` of a portal of the extended protocol: a cursor like any other.
    async fn move_portal(&mut self, session: &mut Session, guard: &Guard, name: &str, direction: Direction) -> Result<(), Failure> {
        let most = match direction {
            Direction::Forward(n) if n >= 0 => n as u64,
            Direction::ForwardAll => u64::MAX,
            _ => return Err(Error::new(ErrorKind::WrongState, "cursor can only scan forward").into()),
        };
        let mut portal = self.portals.remove(name).ok_or_else(|| unknown_portal(name))?;
        let work = async {
            if portal.open.is_none() && portal.finished.is_none() {
                let Outcome::Rows(rows) = session.execute(&portal.prepared, portal.values.clone()).await? else {
                    return Err(Error::new(ErrorKind::WrongState, format!("portal \"{name}\" answers no rows")));
                };
                portal.open = Some(OpenRows::new(rows, &portal.formats, session)?);
            }
            let Some(open) = &mut portal.open else { return Ok(0) };
            let mut moved = 0;
            while moved < most {
                if open.batch.is_none() {
                    let Some(batch) = open.rows.stream.next().await.transpose().map_err(from_datafusion)? else { break };
                    (open.batch, open.next) = (Some(batch), 0);
                }
                let here = open.batch.as_ref().map_or(0, |b| b.num_rows() - open.next);
                let step = usize::try_from(most - moved).unwrap_or(usize::MAX).min(here);
                open.next += step;
                moved += step as u64;
                if step == here {
                    open.batch = None;
                }
            }
            Ok(moved)
        };
        let moved = guard.run(self.framed.get_ref().socket(), work).await;
        self.portals.insert(name.to_owned(), portal);
        let moved = moved??;
        Ok(self.complete(session, format!("MOVE {moved}"))?)
    }
}

impl OpenRows {
    fn new(rows: Rows, formats: &[i16], session: &Session) -> Result<Self, Error> {
        let formats = result_formats(formats, rows.schema.fields().len())?;
        let encoder = RowEncoder::new(&rows.schema, &formats, session.time_zone(), session.row_bytes_max());
        Ok(Self { rows, encoder, batch: None, next: 0 })
    }
}

fn unknown_portal(name: &str) -> Error {
    Error::new(ErrorKind::InvalidCursorName, format!("portal \"{name}\" does not exist"))
}

/// None given: text. One given: for all. Else one a column.
fn result_formats(codes: &[i16], columns: usize) -> Result<Vec<Format>, Error> {
    let all: Vec<i16> = match codes {
        [] => vec![0; columns],
        [one] => vec![*one; columns],
        many if many.len() == columns => many.to_vec(),
        many => {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("bind message has {} result formats but query has {columns} columns", many.len()),
            ));
        }
    };
    Ok(all.into_iter().map(|code| if code == 1 { Format::Binary } else { Format::Text }).collect())
}

fn row_description(schema: &SchemaRef, formats: &[i16]) -> RowDescription {
    let formats = result_formats(formats, schema.fields().len()).unwrap_or_else(|_| vec![Format::Text; schema.fields().len()]);
    let fields = schema.fields().iter().zip(formats).map(|(field, format)| {
        let pg = field_type(field);
        let origin = field.metadata().get(ORIGIN_KEY).and_then(|o| o.split_once('.'));
        let (table, place) = origin.and_then(|(t, p)| Some((t.parse().ok()?, p.parse().ok()?))).unwrap_or((0, 0));
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
