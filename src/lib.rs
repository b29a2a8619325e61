//! Starkeep: a PostgreSQL-wire SQL gateway for StarRocks backup and restore.
//!
//! A statement is parsed once, into a value ([`statement`]). Statements that *ask* become DataFusion queries over virtual
//! system tables ([`query`]). Statements that *change* become one metadata transaction, or a job admitted in one ([`store`]).
//! A job is a pure state machine ([`job`]): `commands()` says what to do next, `apply(event)` says what that led to. One
//! [`runner`] turns commands into effects through the [`cluster::Cluster`] trait and appends each event to a journal before
//! believing it. SHOW, metrics and logs only read those events. A backup exists when, and only when, its manifest object
//! exists ([`repository`]).
//!
//! The life of a statement: [`wire`] takes it off the socket, [`session`] prepares it (what does it need, what will it answer)
//! and executes it, and `wire` writes what came of it. `docs/architecture.md` has the invariants and the map.

pub mod catalog;
pub mod cluster;
pub mod demo;
pub mod env;
pub mod error;
pub mod http;
pub mod job;
pub mod metrics;
pub mod names;
pub mod privilege;
pub mod progress;
pub mod query;
pub mod repository;
pub mod runner;
pub mod schema;
pub mod server;
pub mod session;
pub mod settings;
pub mod sqlite;
pub mod statement;
pub mod store;
pub mod wire;
