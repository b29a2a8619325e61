//! How fast bytes of data go to and from repositories: the limits of the gateway, of a repository
//! and of a job, each shared by everything under it and changed at any time.

use std::fmt::{self, Debug, Formatter};
use std::ops::Sub;
use std::sync::Arc;
use std::time::Duration;

use async_speed_limit::Limiter;
use async_speed_limit::clock;
use futures::future::select_all;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Repository;
use crate::env::{BoxFuture, Clock, Env};
use crate::error::{Error, ErrorKind};

/// What is let through at a time is at most what the lowest limit allows in so long: a limit that
/// is changed holds from then on.
const STEPS_PER_SECOND: f64 = 10.0;
/// And at least so much.
const STEP_BYTES_MIN: f64 = 1024.0;

/// A limit of bytes a second; clones are handles to the same one.
#[derive(Clone)]
pub struct SpeedLimit(Arc<Shared>);

struct Shared {
    /// A new one after each change: what was owed by the old limit is not owed by the new one.
    limiter: Mutex<Limiter<LimiterClock>>,
    clock: LimiterClock,
    /// Tells those who wait of a change.
    changed: watch::Sender<()>,
}

impl Debug for SpeedLimit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpeedLimit").field(&self.get()).finish()
    }
}

fn limiter(bytes_per_second: Option<u64>, clock: &LimiterClock) -> Limiter<LimiterClock> {
    let mut builder = <Limiter<LimiterClock>>::builder(speed(bytes_per_second));
    builder.clock(clock.clone()).build()
}

impl SpeedLimit {
    pub fn new(bytes_per_second: Option<u64>, env: &Env) -> Self {
        let clock = LimiterClock(env.clock.clone());
        Self(Arc::new(Shared {
            limiter: Mutex::new(limiter(bytes_per_second, &clock)),
            clock,
            changed: watch::Sender::default(),
        }))
    }

    /// Changes it for everybody who is under it.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        *self.0.limiter.lock() = limiter(bytes_per_second, &self.0.clock);
        self.0.changed.send_replace(());
    }

    pub fn get(&self) -> Option<u64> {
        let speed = self.speed();
        speed.is_finite().then_some(speed as u64)
    }

    fn speed(&self) -> f64 {
        self.0.limiter.lock().speed_limit()
    }

    fn consume(&self, bytes: usize) -> Duration {
        self.0.limiter.lock().consume_duration(bytes)
    }
}

/// 0, like nothing, is no limit.
fn speed(bytes_per_second: Option<u64>) -> f64 {
    match bytes_per_second {
        None | Some(0) => f64::INFINITY,
        Some(bytes) => bytes as f64,
    }
}

/// What the transfers of one job go through.
#[derive(Clone, Debug)]
pub struct Throttle {
    pub limits: Vec<SpeedLimit>,
    pub paused: watch::Receiver<bool>,
    /// Tells that the job is over.
    pub abandon: CancellationToken,
    pub env: Env,
}

impl Throttle {
    /// Waits until so many bytes may go, and until the job is not paused. An error says that they
    /// are not wanted any more.
    pub async fn pass(&self, bytes: u64) -> Result<(), Error> {
        let mut left = bytes as f64;
        let mut paused = self.paused.clone();
        loop {
            tokio::select! {
                biased;
                () = self.abandon.cancelled() => return Err(abandoned()),
                // Whoever could pause it is gone, and the job with it.
                _ = paused.wait_for(|paused| !paused) => {}
            }
            let changes = self.limits.iter().map(|limit| {
                let mut changed = limit.0.changed.subscribe();
                Box::pin(async move { changed.changed().await.is_ok() })
            });
            let changes: Vec<_> = changes.collect();
            let limits = self.limits.iter().map(SpeedLimit::speed);
            let lowest = limits.fold(f64::INFINITY, f64::min);
            if left < 1.0 || lowest.is_infinite() {
                return Ok(());
            }
            let step = left.min((lowest / STEPS_PER_SECOND).max(STEP_BYTES_MIN));
            let waits = self.limits.iter().map(|limit| limit.consume(step as usize));
            let wait = waits.max().unwrap_or_default();
            left -= step;
            if wait.is_zero() {
                continue;
            }
            tokio::select! {
                biased;
                () = self.abandon.cancelled() => return Err(abandoned()),
                () = self.env.clock.sleep(wait) => {}
                // What is left goes by the new limit.
                _ = select_all(changes) => {}
            }
        }
    }
}

fn abandoned() -> Error {
    Error::new(ErrorKind::Cancelled, "the job was cancelled")
}

impl Repository {
    /// The same, going no faster than that.
    pub fn throttled(self: &Arc<Self>, throttle: Throttle) -> Arc<Self> {
        Arc::new(Self {
            throttle: Some(throttle),
            ..(**self).clone()
        })
    }

    /// The same as [`Self::pass`], for a thread that may block.
    pub(super) fn passing(&self) -> impl Fn(u64) -> Result<(), Error> + Send + use<> {
        let (throttle, runtime) = (self.throttle.clone(), Handle::current());
        move |bytes| match &throttle {
            Some(throttle) => runtime.block_on(throttle.pass(bytes)),
            None => Ok(()),
        }
    }

    /// Waits until so many bytes of data may be moved.
    pub(super) async fn pass(&self, bytes: u64) -> Result<(), Error> {
        match &self.throttle {
            Some(throttle) => throttle.pass(bytes).await,
            None => Ok(()),
        }
    }
}

/// The limiter's view of our clock.
#[derive(Clone)]
struct LimiterClock(Arc<dyn Clock>);

/// Time as the clock's ticks; the limiter subtracts earlier ones.
#[derive(Clone, Copy)]
struct Ticks(Duration);

impl Sub for Ticks {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Default for LimiterClock {
    fn default() -> Self {
        Self(Env::system().clock)
    }
}

impl clock::Clock for LimiterClock {
    type Instant = Ticks;
    type Delay = BoxFuture<'static, ()>;

    fn now(&self) -> Ticks {
        Ticks(self.0.ticks())
    }

    fn sleep(&self, duration: Duration) -> Self::Delay {
        self.0.sleep(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Timestamp;

    /// A clock on which waiting takes no time.
    #[derive(Debug, Default)]
    struct Leaping(Mutex<Duration>);

    impl Clock for Leaping {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn ticks(&self) -> Duration {
            *self.0.lock()
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            *self.0.lock() += duration;
            Box::pin(std::future::ready(()))
        }
    }

    fn throttle(limits: &[Option<u64>]) -> (Throttle, watch::Sender<bool>, Arc<Leaping>) {
        let clock = Arc::new(Leaping::default());
        let mut env = Env::system();
        env.clock = clock.clone();
        let (pauses, paused) = watch::channel(false);
        let throttle = Throttle {
            limits: limits.iter().map(|l| SpeedLimit::new(*l, &env)).collect(),
            paused,
            abandon: CancellationToken::new(),
            env,
        };
        (throttle, pauses, clock)
    }

    #[tokio::test]
    async fn the_lowest_limit_holds_within_a_tenth() {
        for (limits, bytes, seconds) in [
            (&[Some(1_000_000), None][..], 10_000_000, 10.0),
            (&[Some(1_000_000), Some(250_000)], 10_000_000, 40.0),
            (&[Some(3_000)], 60_000, 20.0),
            (&[None, Some(0)], u64::MAX, 0.0),
        ] {
            let (throttle, _pauses, clock) = throttle(limits);
            throttle.pass(bytes).await.expect("passes");
            let took = clock.ticks().as_secs_f64();
            assert!(
                (took - seconds).abs() <= seconds / 10.0,
                "{limits:?}: {took}"
            );
        }
    }

    #[tokio::test]
    async fn jobs_share_a_limit_and_a_change_holds_from_then_on() {
        let (one, _pauses, clock) = throttle(&[Some(1_000_000)]);
        let other = one.clone();
        let both = async {
            tokio::try_join!(one.pass(5_000_000), other.pass(5_000_000)).expect("passes");
        };
        both.await;
        let took = clock.ticks().as_secs_f64();
        assert!((9.0..=11.0).contains(&took), "{took}");
        one.limits[0].set(Some(10_000_000));
        one.pass(10_000_000).await.expect("passes");
        let more = clock.ticks().as_secs_f64() - took;
        assert!((0.9..=1.1).contains(&more), "{more}");
    }

    #[tokio::test]
    async fn pause_holds_and_end_releases() {
        let (throttle, pauses, _clock) = throttle(&[]);
        pauses.send_replace(true);
        let waiting = tokio::spawn({
            let throttle = throttle.clone();
            async move { throttle.pass(1).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        pauses.send_replace(false);
        waiting.await.expect("runs").expect("passes");
        pauses.send_replace(true);
        throttle.abandon.cancel();
        let ended = throttle.pass(1).await.expect_err("ended");
        assert_eq!(ended.kind, ErrorKind::Cancelled);
    }
}
