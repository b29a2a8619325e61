//! Accepting connections, counting them, cancelling their statements and ending them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pgwire::error::PgWireError;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::PgWireMessageServerCodec;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::addresses::Addresses;
use super::connection::Connection;
use super::tls::Tls;
use crate::error::{Error, ErrorKind};
use crate::gateway::Gateway;

/// Limits of the wire.
#[derive(Clone, Copy, Debug)]
pub struct WireSettings {
    /// Connections at a time.
    pub connections_max: usize,
    /// Of these, for administrators alone.
    pub connections_reserved: usize,
    /// Connections of one address at a time.
    pub connections_per_address_max: usize,
    /// Clients that have not logged in yet.
    pub logins_max: usize,
    /// The same of one address.
    pub logins_per_address_max: usize,
    /// Whether clients that do not encrypt are turned away.
    pub tls_required: bool,
    /// The longest message of a client, bytes.
    pub message_bytes_max: usize,
    /// From connecting to the first ReadyForQuery.
    pub authentication_timeout: Duration,
    /// How long statements may go on once the server stops.
    pub drain_timeout: Duration,
}

/// pgwire's codec with a limit that is checked before a message is buffered.
pub(super) struct Codec {
    pub inner: PgWireMessageServerCodec<()>,
    pub bytes_max: usize,
}

impl Decoder for Codec {
    type Item = PgWireFrontendMessage;
    type Error = PgWireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Self::Item>, Self::Error> {
        use pgwire::api::{ClientInfo, PgWireConnectionState as State};
        let started = !matches!(
            self.inner.client_info.state(),
            State::AwaitingSslRequest | State::AwaitingStartup
        );
        // After the start-up packet a message is one byte of kind and four of length.
        if started && src.remaining() >= 5 {
            let length = i32::from_be_bytes([src[1], src[2], src[3], src[4]]);
            match usize::try_from(length) {
                Ok(length) if (4..=self.bytes_max).contains(&length) => {}
                Ok(length) if length > self.bytes_max => {
                    return Err(PgWireError::MessageTooLarge(self.bytes_max, length));
                }
                _ => return Err(PgWireError::InvalidMessageType(src[0])),
            }
        }
        // pgwire reads some malformed messages past their end and panics; that is the client's
        // fault and ends its connection.
        let decoded =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.inner.decode(src)));
        decoded.unwrap_or(Err(PgWireError::InvalidStartupMessage))
    }
}

impl tokio_util::codec::Encoder<PgWireBackendMessage> for Codec {
    type Error = std::io::Error;

    fn encode(
        &mut self,
        item: PgWireBackendMessage,
        dst: &mut BytesMut,
    ) -> Result<(), Self::Error> {
        self.inner.encode(item, dst)
    }
}

/// The open port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    listener: ListenerContext,
}

/// What every connection is let in by.
#[derive(Clone, Debug)]
pub(super) struct ListenerContext {
    pub gateway: Arc<Gateway>,
    pub settings: WireSettings,
    pub tls: Option<Arc<Tls>>,
    pub addresses: Arc<Addresses>,
    /// Places of connections that have logged in.
    pub places: Arc<Semaphore>,
    /// Those of them that not only administrators take.
    pub common_places: Arc<Semaphore>,
    /// Places of clients that are told that there is none.
    refusals: Arc<Semaphore>,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

impl Listener {
    /// Opens a port; the error names the setting. It stops when `stop` is cancelled.
    pub async fn bind(
        addr: SocketAddr,
        gateway: Arc<Gateway>,
        settings: WireSettings,
        tls: Option<Arc<Tls>>,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let socket = TcpListener::bind(addr).await.map_err(|e| {
            Error::new(
                ErrorKind::Configuration,
                format!("listen: could not listen on {addr}: {e}"),
            )
            .source(e)
        })?;
        let addresses = Arc::new(Addresses::new(
            settings.connections_per_address_max,
            settings.logins_per_address_max,
        ));
        let places = Arc::new(Semaphore::new(settings.connections_max));
        let common_places = Arc::new(Semaphore::new(
            settings.connections_max - settings.connections_reserved,
        ));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        Ok(Self {
            socket,
            listener: ListenerContext {
                gateway,
                settings,
                tls,
                addresses,
                places,
                common_places,
                refusals,
                stop,
            },
        })
    }

    /// Where it listens: the port is known even where 0 was asked for.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.socket
            .local_addr()
            .map_err(|e| Error::new(ErrorKind::Configuration, format!("listen: {e}")))
    }

    /// Serves until told to stop; then waits for the connections to end. `kill` ends those that do
    /// not, and tells their clients.
    pub async fn serve(self, kill: CancellationToken) {
        let connections = TaskTracker::new();
        let logins = Arc::new(Semaphore::new(self.listener.settings.logins_max));
        loop {
            let accepted = tokio::select! {
                () = self.listener.stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            let (socket, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, usually: the next accept would fail at once, so let
                    // some connections end.
                    tracing::warn!(error = %e, "could not accept a connection");
                    self.listener
                        .gateway
                        .env
                        .clock
                        .sleep(Duration::from_millis(50))
                        .await;
                    continue;
                }
            };
            let Ok(login) = logins.clone().try_acquire_owned() else {
                connections.spawn(refuse(socket, addr, self.listener.clone(), too_many()));
                continue;
            };
            let place = match self.listener.addresses.enter(addr.ip()) {
                Ok(place) => place,
                Err(error) => {
                    connections.spawn(refuse(socket, addr, self.listener.clone(), error));
                    continue;
                }
            };
            let (listener, kill) = (self.listener.clone(), kill.clone());
            connections.spawn(async move {
                let gauge = listener.gateway.metrics.connection();
                let _ = socket.set_nodelay(true);
                let served = Connection::run(socket, addr, listener, place, login);
                tokio::pin!(served);
                tokio::select! {
                    () = &mut served => {}
                    // Who is logged in is told why; who is not, or does not listen, is cut off.
                    () = kill.cancelled() => drop(tokio::time::timeout(SHUTDOWN_NOTICE_TIMEOUT * 2, served).await),
                }
                drop(gauge);
            });
        }
        drop(self.socket);
        connections.close();
        tokio::select! {
            () = connections.wait() => return,
            () = kill.cancelled() => self.listener.gateway.connections.terminate_all(),
        }
        connections.wait().await;
    }
}

pub(super) fn too_many() -> Error {
    Error::new(
        ErrorKind::TooManyConnections,
        "sorry, too many clients already",
    )
    .hint("Raise connections_max or logins_max.")
}

/// How long a client whose connection ends may take to read why.
pub(super) const SHUTDOWN_NOTICE_TIMEOUT: Duration = Duration::from_secs(1);

/// Clients at a time that are told that there is no place for them; more are cut off without a
/// word.
const REFUSALS_MAX: usize = 64;

/// Tells a client that there is no place, once it has said who it is: before that it does not
/// listen, and takes an error for a fault of the encryption. A CancelRequest needs no place.
async fn refuse(socket: TcpStream, addr: SocketAddr, listener: ListenerContext, error: Error) {
    let Ok(_refusing) = listener.refusals.clone().try_acquire_owned() else {
        return;
    };
    let _ = tokio::time::timeout(
        SHUTDOWN_NOTICE_TIMEOUT,
        Connection::turn_away(socket, addr, listener.clone(), error),
    )
    .await;
}
