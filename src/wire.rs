//! PostgreSQL's protocol: the only module that knows pgwire, of which it takes the messages, their codec and SCRAM.
//!
//! The loop is our own. A start-up error always ends the connection, so nothing that was pipelined behind a failed login runs;
//! rows are streamed in both protocols and can be cancelled between any two batches; what is written is flushed when the
//! client waits for it, not after every message.

mod connection;
mod copy;
mod encode;
mod listen;
mod params;
mod query;
mod startup;
mod types;

pub use self::listen::{Cancels, Listener, WireSettings};
