//! One connection: its buffers, its loop, and how errors and notices are written.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::{FutureExt, SinkExt, StreamExt};
use pgwire::api::{ClientInfo, DefaultClient, PgWireConnectionState};
use pgwire::error::PgWireError;
use pgwire::messages::response::{ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::ParameterStatus;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::PgWireMessageServerCodec;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::codec::{Framed, FramedParts};
use tokio_util::sync::CancellationToken;

use super::addresses::AddressPermit;
use super::codec::Codec;
use super::context::{ListenerContext, SHUTDOWN_NOTICE_TIMEOUT, too_many};
use super::failure::{End, Failure};
use super::guard::Guard;
use super::portal::Portal;
use super::stream::{Stream, negotiate};
use super::tls::Loaded;
use crate::error::{Error, ErrorKind};
use crate::gateway::Gateway;
use crate::session::{Notice, Session, TransactionState};

/// How much is written before it is flushed without being asked.
pub(super) const FLUSH_BYTES: usize = 64 * 1024;

pub(super) struct Connection {
    pub framed: Framed<Stream, Codec>,
    pub addr: SocketAddr,
    pub gateway: Arc<Gateway>,
    pub listener: ListenerContext,
    /// The certificates in force when the client came.
    pub tls: Option<Arc<Loaded>>,
    pub pid: i32,
    /// Cancelled when an administrator ends the connection.
    pub terminated: CancellationToken,
    pub portals: HashMap<String, Portal>,
    /// After an error in the extended protocol everything is skipped up to Sync.
    pub skipping: bool,
}

/// The fields of an error, with the position counted as PostgreSQL counts it: in characters of the
/// text, from 1.
pub(super) fn error_response(severity: &str, error: &Error, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::default();
    let mut field = |code: u8, value: String| response.fields.push((code, value));
    field(b'S', severity.to_owned());
    field(b'V', severity.to_owned());
    field(b'C', error.kind.sqlstate().to_owned());
    field(b'M', limited(&error.message));
    if let Some(detail) = &error.detail {
        field(b'D', limited(detail));
    }
    if let Some(hint) = &error.hint {
        field(b'H', limited(hint));
    }
    if let Some(offset) = error.position {
        let before = text.get(..offset.min(text.len())).unwrap_or(text);
        field(b'P', (before.chars().count() + 1).to_string());
    }
    response
}

/// Messages may quote a whole statement; the protocol's short messages have a limit. NUL would end
/// a field early.
fn limited(text: &str) -> String {
    const MOST: usize = 8000;
    let cut = text.char_indices().map(|(i, _)| i).find(|i| *i > MOST);
    let text = cut.map_or(text.to_owned(), |i| format!("{}…", &text[..i]));
    text.replace('\0', "\u{fffd}")
}

fn idle_error(setting: &str) -> Error {
    match setting {
        "idle_session_timeout" => Error::new(
            ErrorKind::IdleSession,
            "terminating connection due to idle-session timeout",
        ),
        _ => Error::new(
            ErrorKind::IdleInTransaction,
            "terminating connection due to idle-in-transaction timeout",
        ),
    }
}

impl Connection {
    /// A connection whose client has said whether it encrypts; `head` is what has been read of its
    /// start-up packet.
    fn new(
        stream: Stream,
        head: Vec<u8>,
        addr: SocketAddr,
        listener: ListenerContext,
        tls: Option<Arc<Loaded>>,
    ) -> Self {
        let mut codec = Codec {
            inner: PgWireMessageServerCodec::new(DefaultClient::new(addr, stream.is_encrypted())),
            bytes_max: listener.settings.message_bytes_max,
        };
        codec
            .inner
            .client_info
            .set_state(PgWireConnectionState::AwaitingStartup);
        let mut parts = FramedParts::new::<PgWireBackendMessage>(stream, codec);
        parts.read_buf.extend_from_slice(&head);
        let gateway = listener.gateway.clone();
        let pid = gateway.connections.next_pid();
        Self {
            framed: Framed::from_parts(parts),
            addr,
            gateway,
            listener,
            tls,
            pid,
            terminated: CancellationToken::new(),
            portals: HashMap::new(),
            skipping: false,
        }
    }

    /// Writes a message into the buffer.
    pub fn put(&mut self, message: PgWireBackendMessage) -> Result<(), End> {
        message
            .encode(self.framed.write_buffer_mut())
            .map_err(|e| End::Fatal(Error::internal(e.to_string())))
    }

    pub async fn flush(&mut self) -> Result<(), End> {
        <Framed<_, _> as SinkExt<PgWireBackendMessage>>::flush(&mut self.framed).await?;
        Ok(())
    }

    /// Flushes a full buffer; a client that does not read must not keep the statement's time from
    /// running.
    pub async fn flush_under(&mut self, guard: &Guard) -> Result<(), Failure> {
        if self.framed.write_buffer().len() < FLUSH_BYTES {
            return Ok(());
        }
        tokio::select! {
            flushed = self.flush() => Ok(flushed?),
            error = guard.stopped() => Err(error.into()),
        }
    }

    pub async fn flush_if_full(&mut self) -> Result<(), End> {
        if self.framed.write_buffer().len() >= FLUSH_BYTES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// The next message, or how the connection ends.
    pub async fn next(&mut self) -> Result<PgWireFrontendMessage, End> {
        match self.framed.next().await {
            Some(Ok(PgWireFrontendMessage::Terminate(_))) | None => Err(End::Closed),
            Some(Ok(message)) => Ok(message),
            Some(Err(PgWireError::IoError(_))) => Err(End::Closed),
            Some(Err(PgWireError::MessageTooLarge(max, length))) => Err(End::Fatal(
                Error::new(
                    ErrorKind::LimitExceeded,
                    format!("a message of {length} bytes is longer than the limit of {max}"),
                )
                .hint("Raise message_bytes_max, or send less at a time."),
            )),
            Some(Err(e)) => Err(End::Fatal(Error::new(
                ErrorKind::Protocol,
                format!("invalid message: {e}"),
            ))),
        }
    }

    /// Serves a client from its first byte to its last.
    pub async fn run(
        socket: TcpStream,
        addr: SocketAddr,
        listener: ListenerContext,
        mut place: AddressPermit,
        login: OwnedSemaphorePermit,
    ) {
        let gateway = listener.gateway.clone();
        let (places, common_places) = (listener.places.clone(), listener.common_places.clone());
        let tls = listener.tls.as_ref().map(|tls| tls.current());
        // One time for everything up to the first prompt: whoever sends a byte a second does not
        // hold a place longer.
        let limit = gateway
            .env
            .clock
            .sleep(listener.settings.authentication_timeout);
        tokio::pin!(limit);
        let negotiated = tokio::select! {
            negotiated = negotiate(socket, tls.as_ref().map(|t| t.config.clone())) => negotiated,
            () = &mut limit => return,
        };
        let (stream, head) = match negotiated {
            Ok(Some(negotiated)) => negotiated,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(client = %addr, %error, "no TLS with a client");
                return;
            }
        };
        let mut connection = Self::new(stream, head, addr, listener, tls);
        let session = tokio::select! {
            session = connection.log_in() => session,
            () = limit => {
                Err(End::Fatal(Error::new(ErrorKind::InvalidAuthorization, "canceling authentication due to timeout")))
            }
        };
        let ended = match session {
            // Who has logged in takes a place of those who have; who has not could only take each
            // other's.
            Ok(mut session) => {
                let common = if session.is_administrator() {
                    Ok(None)
                } else {
                    common_places.try_acquire_owned().map(Some)
                };
                match common.and_then(|common| Ok((common, places.try_acquire_owned()?))) {
                    Ok(_connected) => {
                        place.logged_in();
                        drop(login);
                        // Nothing that one connection meets may reach another; what its session was
                        // about is not trusted any more.
                        let served = AssertUnwindSafe(connection.serve(&mut session))
                            .catch_unwind()
                            .await;
                        served.unwrap_or_else(|_| {
                            Err(End::Fatal(Error::internal(
                                "the connection met a fault of the server",
                            )))
                        })
                    }
                    Err(_) => Err(End::Fatal(too_many())),
                }
            }
            Err(end) => Err(end),
        };
        gateway.connections.forget(connection.pid);
        connection.close(ended).await;
    }

    /// Hears out a client for which there is no place, and tells it so.
    pub async fn turn_away(
        socket: TcpStream,
        addr: SocketAddr,
        listener: ListenerContext,
        error: Error,
    ) {
        let tls = listener.tls.as_ref().map(|tls| tls.current());
        let Ok(Some((stream, head))) =
            negotiate(socket, tls.as_ref().map(|t| t.config.clone())).await
        else {
            return;
        };
        let mut connection = Self::new(stream, head, addr, listener, tls);
        let ended = connection
            .startup_packet()
            .await
            .and(Err(End::Fatal(error)));
        connection.close(ended).await;
    }

    async fn close(mut self, ended: Result<(), End>) {
        if let Err(End::Fatal(error)) = ended {
            self.gateway.metrics.statement(error.kind.sqlstate());
            tracing::info!(client = %self.addr, error = %error, "connection ended");
            let _ = self.put(PgWireBackendMessage::ErrorResponse(error_response(
                "FATAL", &error, "",
            )));
        }
        // Closing writes what is left; a client that does not read keeps no connection open.
        let closing = <Framed<_, _> as SinkExt<PgWireBackendMessage>>::close(&mut self.framed);
        let _ = tokio::time::timeout(SHUTDOWN_NOTICE_TIMEOUT, closing).await;
    }

    async fn serve(&mut self, session: &mut Session) -> Result<(), End> {
        self.ready(session)?;
        self.flush().await?;
        loop {
            let (stop, terminated) = (self.listener.stop.clone(), self.terminated.clone());
            let clock = self.gateway.env.clock.clone();
            let idle = session.idle_timeout();
            let silent = async {
                match idle {
                    Some((time, name)) => {
                        clock.sleep(time).await;
                        name
                    }
                    None => std::future::pending().await,
                }
            };
            let ended = || {
                Error::new(
                    ErrorKind::Shutdown,
                    "terminating connection due to administrator command",
                )
            };
            let message = tokio::select! {
                biased;
                message = self.next() => message?,
                () = stop.cancelled() => return Err(End::Fatal(ended())),
                () = terminated.cancelled() => return Err(End::Fatal(ended())),
                name = silent => return Err(End::Fatal(idle_error(name))),
            };
            tokio::select! {
                handled = self.handle(session, message) => handled?,
                () = terminated.cancelled() => return Err(End::Fatal(ended())),
            }
            // Of a client that has sent more than it has waited for, nobody else should have to
            // wait for all of it.
            if !self.framed.read_buffer().is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn handle(
        &mut self,
        session: &mut Session,
        message: PgWireFrontendMessage,
    ) -> Result<(), End> {
        use PgWireFrontendMessage as M;
        if self.skipping && !matches!(message, M::Sync(_)) {
            return Ok(());
        }
        let (result, text) = match message {
            M::Query(query) => {
                self.simple(session, &query.query).await?;
                self.finish(session).await?;
                return Ok(());
            }
            M::Sync(_) => {
                self.skipping = false;
                if session.transaction() == TransactionState::Idle {
                    self.portals.clear();
                }
                return self.finish(session).await;
            }
            M::Flush(_) => return self.flush().await,
            M::Parse(parse) => {
                let text = parse.query.clone();
                (self.parse(session, parse).await, text)
            }
            M::Bind(bind) => (self.bind(session, bind), String::new()),
            M::Describe(describe) => (self.describe(session, describe), String::new()),
            M::Execute(execute) => {
                let name = execute.name.clone().unwrap_or_default();
                let text = self
                    .portals
                    .get(&name)
                    .map(|p| p.prepared.text.to_string())
                    .unwrap_or_default();
                let done = match self.execute(session, execute).await {
                    Ok(done) => Ok(done),
                    Err(Failure::Statement(error)) => Err(error),
                    Err(Failure::Connection(end)) => return Err(end),
                };
                (done, text)
            }
            M::Close(close) => (self.forget(session, close), String::new()),
            // Left over from a COPY that has failed.
            M::CopyData(_) | M::CopyDone(_) | M::CopyFail(_) => return Ok(()),
            other => {
                return Err(End::Fatal(Error::new(
                    ErrorKind::Protocol,
                    format!("unexpected message {other:?}"),
                )));
            }
        };
        if let Err(error) = result {
            self.report(session, &error, &text)?;
            self.skipping = true;
            self.flush().await?;
        }
        self.flush_if_full().await
    }

    /// ReadyForQuery, with what has changed before it.
    async fn finish(&mut self, session: &mut Session) -> Result<(), End> {
        self.reports(session)?;
        self.ready(session)?;
        session.note_activity(None);
        self.flush().await
    }

    fn ready(&mut self, session: &Session) -> Result<(), End> {
        let status = match session.transaction() {
            TransactionState::Idle => TransactionStatus::Idle,
            TransactionState::Active => TransactionStatus::Transaction,
            TransactionState::Failed => TransactionStatus::Error,
        };
        self.put(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(
            status,
        )))
    }

    /// Tells the client of an error, and the session that its block has failed.
    pub fn report(&mut self, session: &mut Session, error: &Error, text: &str) -> Result<(), End> {
        session.fail_transaction();
        self.notices(session)?;
        self.gateway.metrics.statement(error.kind.sqlstate());
        if error.kind == ErrorKind::Internal {
            tracing::error!(client = %self.addr, error = %error, "a statement met a bug");
        } else {
            tracing::debug!(client = %self.addr, sqlstate = error.kind.sqlstate(), error = %error, "a statement failed");
        }
        self.put(PgWireBackendMessage::ErrorResponse(error_response(
            "ERROR", error, text,
        )))
    }

    pub fn notices(&mut self, session: &mut Session) -> Result<(), End> {
        for Notice {
            severity,
            code,
            message,
        } in session.take_notices()
        {
            let mut notice = NoticeResponse::default();
            let field = |code: u8, value: &str| (code, value.to_owned());
            notice.fields = vec![
                field(b'S', severity),
                field(b'V', severity),
                field(b'C', code),
                field(b'M', &limited(&message)),
            ];
            self.put(PgWireBackendMessage::NoticeResponse(notice))?;
        }
        Ok(())
    }

    pub fn reports(&mut self, session: &mut Session) -> Result<(), End> {
        for (name, value) in session.take_reports() {
            self.put(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(
                name, value,
            )))?;
        }
        Ok(())
    }
}
