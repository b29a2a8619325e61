//! Accepting connections, counting them, cancelling their statements and ending them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use pgwire::api::DefaultClient;
use pgwire::error::PgWireError;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::PgWireMessageServerCodec;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::codec::{Decoder, Framed};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, error_response};
use crate::error::{Error, ErrorKind};
use crate::session::Gateway;

/// Limits of the wire.
#[derive(Clone, Copy, Debug)]
pub struct WireSettings {
    /// Connections at a time.
    pub connections_max: usize,
    /// The longest message of a client, bytes.
    pub message_bytes_max: usize,
    /// From connecting to the first ReadyForQuery.
    pub authentication_timeout: Duration,
    /// How long statements may go on once the server stops.
    pub drain_timeout: Duration,
}

/// Which connection a CancelRequest means.
#[derive(Debug, Default)]
pub struct Cancels {
    last_pid: AtomicI32,
    running: Mutex<HashMap<i32, (Vec<u8>, CancellationToken)>>,
}

impl Cancels {
    /// A number for a new connection.
    pub(super) fn next_pid(&self) -> i32 {
        self.last_pid.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1)
    }

    /// Makes a connection known; its token is replaced before every statement.
    pub(super) fn register(&self, pid: i32, secret: Vec<u8>) {
        self.running.lock().insert(pid, (secret, CancellationToken::new()));
    }

    /// A fresh token for the next statement: a late cancel hits nothing.
    pub(super) fn arm(&self, pid: i32) -> CancellationToken {
        let token = CancellationToken::new();
        if let Some((_, armed)) = self.running.lock().get_mut(&pid) {
            *armed = token.clone();
        }
        token
    }

    pub(super) fn forget(&self, pid: i32) {
        self.running.lock().remove(&pid);
    }

    /// Cancels the running statement of a connection, if the secret is right. Nothing is answered either way.
    pub(super) fn cancel(&self, pid: i32, secret: &[u8]) {
        if let Some((known, token)) = self.running.lock().get(&pid) {
            // The comparison takes the same time wherever the first difference is.
            let same = known.len() == secret.len() && known.iter().zip(secret).fold(0, |d, (a, b)| d | (a ^ b)) == 0;
            if same {
                token.cancel();
            }
        }
    }
}

/// pgwire's codec with a limit that is checked before a message is buffered.
pub(super) struct Codec {
    pub inner: PgWireMessageServerCodec<()>,
    bytes_max: usize,
}

impl Decoder for Codec {
    type Item = PgWireFrontendMessage;
    type Error = PgWireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Self::Item>, Self::Error> {
        use pgwire::api::{ClientInfo, PgWireConnectionState as State};
        let started = !matches!(self.inner.client_info.state(), State::AwaitingSslRequest | State::AwaitingStartup);
        // After the start-up packet a message is one byte of kind and four of length.
        if started && src.remaining() >= 5 {
            let length = i32::from_be_bytes([src[1], src[2], src[3], src[4]]);
            match usize::try_from(length) {
                Ok(length) if (4..=self.bytes_max).contains(&length) => {}
                Ok(length) if length > self.bytes_max => return Err(PgWireError::MessageTooLarge(self.bytes_max, length)),
                _ => return Err(PgWireError::InvalidMessageType(src[0])),
            }
        }
        // pgwire reads some malformed messages past their end and panics; that is the client's fault and ends its connection.
        let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.inner.decode(src)));
        decoded.unwrap_or(Err(PgWireError::InvalidStartupMessage))
    }
}

impl tokio_util::codec::Encoder<PgWireBackendMessage> for Codec {
    type Error = std::io::Error;

    fn encode(&mut self, item: PgWireBackendMessage, dst: &mut BytesMut) -> Result<(), Self::Error> {
        self.inner.encode(item, dst)
    }
}

/// The open port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    gateway: Arc<Gateway>,
    settings: WireSettings,
    cancels: Arc<Cancels>,
}

impl Listener {
    /// Opens a port; the error names the setting.
    pub async fn bind(addr: SocketAddr, gateway: Arc<Gateway>, settings: WireSettings) -> Result<Self, Error> {
        let socket = TcpListener::bind(addr)
            .await
            .map_err(|e| Error::new(ErrorKind::Configuration, format!("listen: could not listen on {addr}: {e}")).source(e))?;
        Ok(Self { socket, gateway, settings, cancels: Arc::default() })
    }

    /// Where it listens: the port is known even where 0 was asked for.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.socket.local_addr().map_err(|e| Error::new(ErrorKind::Configuration, format!("listen: {e}")))
    }

    /// Serves until told to stop; then waits for the connections to end. `kill` ends those that do not.
    pub async fn serve(self, stop: CancellationToken, kill: CancellationToken) {
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(self.settings.connections_max));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            let (socket, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, usually: the next accept would fail at once, so let some connections end.
                    tracing::warn!(error = %e, "could not accept a connection");
                    self.gateway.env.clock.sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                connections.spawn(refuse(socket));
                continue;
            };
            let (gateway, settings, cancels, stop) = (self.gateway.clone(), self.settings, self.cancels.clone(), stop.clone());
            let kill = kill.clone();
            connections.spawn(async move {
                let gauge = gateway.metrics.connection();
                let _ = socket.set_nodelay(true);
                let codec = Codec {
                    inner: PgWireMessageServerCodec::new(DefaultClient::new(addr, false)),
                    bytes_max: settings.message_bytes_max,
                };
                let connection = Connection::new(Framed::new(socket, codec), addr, gateway, cancels, settings, stop);
                tokio::select! {
                    () = connection.run() => {}
                    () = kill.cancelled() => {}
                }
                drop((gauge, place));
            });
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }
}

/// Tells a client that there is no place, where PostgreSQL would tell it.
async fn refuse(mut socket: TcpStream) {
    let error = Error::new(ErrorKind::TooManyConnections, "sorry, too many clients already").hint("Raise connections_max.");
    let mut buffer = BytesMut::new();
    if PgWireBackendMessage::ErrorResponse(error_response("FATAL", &error, "")).encode(&mut buffer).is_ok() {
        let _ = socket.write_all(&buffer).await;
        let _ = socket.shutdown().await;
    }
}
