//! Accepting connections, counting them, cancelling their statements and ending them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::addresses::Addresses;
use super::connection::Connection;
use super::context::{ListenerContext, SHUTDOWN_NOTICE_TIMEOUT, WireSettings, too_many};
use super::tls::Tls;
use crate::error::{Error, ErrorKind};
use crate::gateway::Gateway;

/// The open port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    listener: ListenerContext,
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
