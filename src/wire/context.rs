//! What every connection is let in by.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
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
    pub refusals: Arc<Semaphore>,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
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
