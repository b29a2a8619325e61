//! The only file that reads the clock, sleeps, and makes random numbers, each through a trait that
//! tests replace.
//!
//! `clippy.toml` forbids the direct calls everywhere else, so a run of the simulation depends on
//! its seed alone.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};

use crate::names::{JobUid, Timestamp};

/// A boxed future, as the trait objects here return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Time.
pub trait Clock: Debug + Send + Sync {
    /// Now, in milliseconds since the epoch.
    fn now(&self) -> Timestamp;
    /// What has passed since some moment in the past: it only ever grows, whatever the wall clock
    /// is set to.
    fn ticks(&self) -> Duration;
    /// Waits at least this long.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Randomness.
pub trait Ids: Debug + Send + Sync {
    /// Fills the buffer with bytes nobody can guess.
    fn fill(&self, buffer: &mut [u8]);
}

/// What a component needs that its arguments do not say.
#[derive(Clone, Debug)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub ids: Arc<dyn Ids>,
}

impl Env {
    /// The real clock and the operating system's random numbers.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock::start()),
            ids: Arc::new(SystemIds(SystemRandom::new())),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A version 4 UUID in its usual spelling.
    pub fn uuid(&self) -> String {
        self.random_uuid().to_string()
    }

    pub fn job_uid(&self) -> JobUid {
        self.random_uuid().into()
    }

    fn random_uuid(&self) -> uuid::Uuid {
        let mut bytes = [0; 16];
        self.ids.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

#[derive(Debug)]
struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn ticks(&self) -> Duration {
        self.origin.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[derive(Debug)]
struct SystemIds(SystemRandom);

impl Ids for SystemIds {
    fn fill(&self, buffer: &mut [u8]) {
        self.0
            .fill(buffer)
            .expect("the operating system provides random numbers");
    }
}
