//! PostgreSQL's protocol: the only module that knows pgwire, of which it takes the messages, their
//! codec and SCRAM.
//!
//! The loop is our own. A start-up error always ends the connection, so nothing that was pipelined
//! after a failed login runs; rows are streamed in both protocols and can be cancelled between any
//! two batches; what is written is flushed when the client waits for it, not after every message.

mod addresses;
mod aside;
mod codec;
mod connection;
mod context;
mod copy;
mod copy_out;
mod encode;
mod failure;
mod fuzz;
mod guard;
mod listen;
mod params;
mod portal;
mod query;
mod startup;
mod stream;
mod tls;

pub use self::context::WireSettings;
#[doc(hidden)]
pub use self::fuzz::check_bytes;
pub use self::listen::Listener;
pub use self::tls::{Tls, TlsFiles};
