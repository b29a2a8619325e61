//! Starkeep: a PostgreSQL-wire SQL gateway for StarRocks backup and restore.
//!
//! A statement is parsed once, into a value ([`statement`]). Statements that *ask* become
//! DataFusion queries over virtual system tables ([`query`]). Statements that *change* become one
//! metadata transaction, or a job admitted in one ([`store`]). A job is a pure state machine
//! ([`job`]): `commands()` says what to do next, `apply(event)` says what that led to. One
//! [`runner`] turns commands into effects through the [`cluster::Cluster`] trait and appends each
//! event to a journal before believing it. SHOW, metrics and logs only read those events. A backup
//! exists when, and only when, its manifest object exists ([`repository`]).
//!
//! `docs/architecture.md` has the invariants and the map. Two walks through the code:
//!
//! A `BACKUP SNAPSHOT d.s TO r ON (t)`
//!
//! 1. comes as a message to `Connection::simple` (`wire/query.rs`), is measured and parsed by
//!    `Session::read` (`session/reading.rs`, `statement/bounds.rs`, `statement/split.rs`; a long
//!    one on another thread), and is a [`statement::Statement::Backup`] from there on;
//! 2. is given its way by `Session::prepare` (`session/route.rs`), and goes by `Session::execute`
//!    to [`admission::Caller::change`] and `Caller::backup` (`admission/embedded.rs`), which checks
//!    what StarRocks checks, in its order, and makes a [`job::JobSpec`];
//! 3. is admitted by [`runner::Runner::submit`]: `Journal::admit` takes its locks and writes its
//!    row in one transaction, and the client has its answer;
//! 4. is driven by `runner/drive.rs`: what `Machine::commands` says may run is run by
//!    `StepContext::perform` (`runner/steps.rs`, `steps/backup.rs`), which calls the cluster
//!    (`cluster/embedded/backup.rs`) and turns what came of it into a [`job::BackupEvent`];
//! 5. is told by events: a [`job::Delta`] applies them to a copy of the job, `Journal::append`
//!    writes them, and only then they are believed;
//! 6. ends with [`repository::Repository::publish`]: the manifest is put, which is the commit. Then
//!    pins and links are let go.
//!
//! A `SELECT … FROM system.jobs`
//!
//! 1. is read as above; `Session::prepare` (`session/route.rs`) makes what PostgreSQL says into
//!    what DataFusion reads (`query/rewrite.rs`) and plans it (`query/plan.rs`) against one instant
//!    of everything it can name ([`query::AsOf`]);
//! 2. is run by [`query::QueryEngine::run`], on threads of its own, within a share of memory and
//!    until somebody gives it up;
//! 3. scans a `SystemTable` (`query/tables.rs`, its row in `query/system/row.rs`), whose rows are
//!    gathered by `query/tables/jobs.rs` from the store and [`progress::Progress`];
//! 4. is written row by row (`wire/encode.rs`); `Connection::take` (`wire/query.rs`) waits for a
//!    client that does not read.
//!
//! One that compares columns of a system table with constants needs no plan: `query/lookup.rs`
//! answers it.
//!
//! A SHOW is such a SELECT, in a file of `sql/show/`.

pub mod admission;
pub mod auth;
mod chains;
pub mod cluster;
pub mod demo;
pub mod env;
pub mod gateway;
pub mod http;
pub mod job;
pub mod metrics;
pub mod names;
pub mod privilege;
pub mod progress;
pub mod query;
pub mod repository;
pub mod runner;
mod scan_at_once;
pub mod schema;
pub mod server;
pub mod session;
pub mod settings;
pub mod sqlite;
pub mod statement;
pub mod store;
pub mod wire;

pub use starkeep_error as error;
pub use starkeep_pg_catalog as catalog;
