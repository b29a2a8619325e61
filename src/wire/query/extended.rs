//! The extended protocol: Parse, Bind, Describe, Execute and Close, and the portals they work on.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use futures::StreamExt;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete,
    PortalSuspended, TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
};

use super::{Delivered, FetchResult, PORTALS_MAX, row_description, tag_of};
use crate::catalog::{arrow_type, pg_type};
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::session::{Lasts, Outcome, Read, Session};
use crate::statement::{Direction, Statement, check_is_last};
use crate::wire::connection::Connection;
use crate::wire::failure::Failure;
use crate::wire::guard::{Guard, Stop, cancelled};
use crate::wire::params::decode_parameter;
use crate::wire::portal::{OpenRows, Portal};

impl Connection {
    pub async fn parse(&mut self, session: &mut Session, parse: Parse) -> Result<(), Error> {
        let name = parse.name.unwrap_or_default();
        session.check_statement_name(&name)?;
        let declared: Vec<_> = parse
            .type_oids
            .iter()
            .map(|oid| if *oid == 0 { None } else { arrow_type(*oid) })
            .collect();
        let guard = self.guard(session);
        let message: Arc<str> = parse.query.into();
        // The one without a name gives way to the next.
        let lasts = if name.is_empty() {
            Lasts::OneRun
        } else {
            Lasts::AsLongAsKept
        };
        let work = async {
            let Some(Read {
                statement,
                place,
                memory,
            }) = session.read(&message, 0, lasts).await?
            else {
                return session.prepare(Statement::Empty, "", &declared).await;
            };
            check_is_last(&message, place.end)?;
            let text = &message[place.clone()];
            let mut prepared = session
                .prepare(statement, text, &declared)
                .await
                .map_err(|e| e.shifted(place.start))?;
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
        self.put(message)
            .map_err(|_| Error::internal("a message could not be written"))
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
        let format = |i: usize| {
            codes
                .get(i)
                .or(codes.first().filter(|_| codes.len() == 1))
                .copied()
                .unwrap_or(0)
        };
        let values = bind
            .parameters
            .iter()
            .zip(&prepared.parameters)
            .enumerate()
            .map(|(i, (value, data_type))| match value {
                Some(bytes) => decode_parameter(bytes, format(i), data_type)
                    .map_err(|e| e.detail(format!("parameter ${}", i + 1))),
                None => ScalarValue::try_from(data_type).map_err(from_datafusion),
            });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let portal = bind.portal_name.unwrap_or_default();
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err(Error::new(
                ErrorKind::InvalidCursorName,
                format!("portal \"{portal}\" already exists"),
            ));
        }
        if self.portals.len() >= PORTALS_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("more than {PORTALS_MAX} portals"),
            )
            .hint("Close some."));
        }
        let formats = bind.result_column_format_codes;
        self.portals.insert(
            portal,
            Portal {
                prepared,
                values,
                formats,
                open: None,
                finished: None,
            },
        );
        self.reply(PgWireBackendMessage::BindComplete(BindComplete::new()))
    }

    pub fn describe(&mut self, session: &mut Session, describe: Describe) -> Result<(), Error> {
        let name = describe.name.unwrap_or_default();
        let (schema, formats) = match describe.target_type {
            TARGET_TYPE_BYTE_STATEMENT => {
                let prepared = session.statement(&name)?;
                // What the client has declared stays what it is called.
                let said = |i: usize| {
                    prepared
                        .declared
                        .get(i)
                        .copied()
                        .filter(|oid| arrow_type(*oid).is_some())
                };
                let types = prepared.parameters.iter().enumerate();
                let oids = types
                    .map(|(i, t)| said(i).unwrap_or_else(|| pg_type(t).oid()))
                    .collect();
                self.reply(PgWireBackendMessage::ParameterDescription(
                    ParameterDescription::new(oids),
                ))?;
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
            other => {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    format!("invalid DESCRIBE target {other}"),
                ));
            }
        };
        self.reply(match schema {
            Some(schema) => {
                PgWireBackendMessage::RowDescription(row_description(&schema, &formats))
            }
            None => PgWireBackendMessage::NoData(NoData::new()),
        })
    }

    pub fn forget(&mut self, session: &mut Session, close: Close) -> Result<(), Error> {
        let name = close.name.unwrap_or_default();
        match close.target_type {
            TARGET_TYPE_BYTE_STATEMENT => session.forget_statement(&name),
            TARGET_TYPE_BYTE_PORTAL => drop(self.portals.remove(&name)),
            other => {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    format!("invalid CLOSE target {other}"),
                ));
            }
        }
        self.reply(PgWireBackendMessage::CloseComplete(CloseComplete::new()))
    }

    /// Runs a portal, or goes on with its rows.
    pub async fn execute(
        &mut self,
        session: &mut Session,
        execute: Execute,
    ) -> Result<(), Failure> {
        let name = execute.name.unwrap_or_default();
        let mut portal = self
            .portals
            .remove(&name)
            .ok_or_else(|| unknown_portal(&name))?;
        let limit = u64::try_from(execute.max_rows).ok().filter(|n| *n > 0);
        let result = self.run_portal(session, &mut portal, limit).await;
        // DISCARD ALL and DEALLOCATE may have closed everything meanwhile; the unnamed portal stays
        // until Sync.
        self.portals.insert(name, portal);
        if result.is_ok() {
            self.gateway.metrics.statement("00000");
        }
        result
    }

    async fn run_portal(
        &mut self,
        session: &mut Session,
        portal: &mut Portal,
        limit: Option<u64>,
    ) -> Result<(), Failure> {
        if let Some(tag) = &portal.finished {
            return Ok(self.complete(session, tag.clone())?);
        }
        let guard = self.guard(session);
        if portal.open.is_none() {
            session.note_activity(Some((&portal.prepared.statement, &portal.prepared.text)));
            let work = session.execute(&portal.prepared, portal.values.clone());
            let outcome = guard.run(self.framed.get_ref().socket(), work).await??;
            match self
                .deliver(session, &guard, &portal.prepared.statement, outcome)
                .await?
            {
                Delivered::Done(tag) => {
                    portal.finished = tag;
                    return Ok(());
                }
                // A text that went to the cluster as it is: the client was told of no rows, so it
                // must not get any.
                Delivered::Rows(_) if portal.prepared.schema.is_none() => {
                    let what = "a statement with rows that is handed over as it is, in the extended protocol";
                    return Err(Error::unsupported(what)
                        .hint("Send it as a simple query.")
                        .into());
                }
                Delivered::Rows(rows) => {
                    portal.open = Some(OpenRows::new(rows, &portal.formats, session)?)
                }
            }
        }
        let open = portal
            .open
            .as_mut()
            .ok_or_else(|| Error::internal("a portal without rows"))?;
        match self.take(open, &guard, limit).await {
            Ok(FetchResult::Limit) => {
                Ok(self.put(PgWireBackendMessage::PortalSuspended(PortalSuspended::new()))?)
            }
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
    pub(super) async fn move_portal(
        &mut self,
        session: &mut Session,
        guard: &Guard,
        name: &str,
        direction: Direction,
    ) -> Result<(), Failure> {
        let most = match direction {
            Direction::Forward(n) if n >= 0 => n as u64,
            Direction::ForwardAll => u64::MAX,
            _ => {
                return Err(
                    Error::new(ErrorKind::WrongState, "cursor can only scan forward").into(),
                );
            }
        };
        let mut portal = self
            .portals
            .remove(name)
            .ok_or_else(|| unknown_portal(name))?;
        let work = async {
            if portal.open.is_none() && portal.finished.is_none() {
                let Outcome::Rows(rows) = session
                    .execute(&portal.prepared, portal.values.clone())
                    .await?
                else {
                    return Err(Error::new(
                        ErrorKind::WrongState,
                        format!("portal \"{name}\" answers no rows"),
                    ));
                };
                portal.open = Some(OpenRows::new(rows, &portal.formats, session)?);
            }
            let Some(open) = &mut portal.open else {
                return Ok(0);
            };
            let mut moved = 0;
            while moved < most {
                if open.batch.is_none() {
                    let Some(batch) = open
                        .rows
                        .stream
                        .next()
                        .await
                        .transpose()
                        .map_err(from_datafusion)?
                    else {
                        break;
                    };
                    (open.batch, open.next) = (Some(batch), 0);
                }
                let here = open.batch.as_ref().map_or(0, |b| b.num_rows() - open.next);
                let step = usize::try_from(most - moved)
                    .unwrap_or(usize::MAX)
                    .min(here);
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

fn unknown_portal(name: &str) -> Error {
    Error::new(
        ErrorKind::InvalidCursorName,
        format!("portal \"{name}\" does not exist"),
    )
}
