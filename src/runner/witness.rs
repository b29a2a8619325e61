//! Whether the clock may be believed where data is deleted by it.
//!
//! A clock that jumps ahead makes every time-to-live be over at once. So the wall clock is held
//! against one that only counts, against the last thing that is known to have happened, and, where
//! the repository is an object store, against its clock.

use std::time::Duration;

use crate::env::Env;
use crate::names::Timestamp;

/// How far the wall clock may be from what has passed since the first look.
const DRIFT_MS_MAX: u64 = 60_000;
/// How long nothing may have happened before a start whose clock is believed at once.
const GAP_MS_MAX: i64 = 7 * 86_400_000;
/// How long deletions wait after a clock that is not believed has settled.
const HOLD: Duration = Duration::from_secs(86_400);

/// What two clocks said when they were first looked at.
#[derive(Debug)]
pub(super) struct Witness {
    now: Timestamp,
    ticks: Duration,
    /// Deletions wait until this much has been counted.
    held_until: Duration,
}

impl Witness {
    /// A look at the clocks of a start; `last` is when the newest job was made.
    pub fn new(env: &Env, last: Option<Timestamp>) -> Self {
        let (now, ticks) = (env.now(), env.clock.ticks());
        let is_late = last.is_some_and(|last| now.0 - last.0 > GAP_MS_MAX);
        if is_late {
            tracing::warn!(
                "no job was made for a week, or the clock is wrong: nothing expires for a day"
            );
        }
        Self {
            now,
            ticks,
            held_until: if is_late { ticks + HOLD } else { ticks },
        }
    }

    /// Whether snapshots may expire by the wall clock now. A jump is noticed once, and the new time
    /// is held against from then on.
    pub fn believes(&mut self, env: &Env) -> bool {
        let (now, ticks) = (env.now(), env.clock.ticks());
        let counted =
            i64::try_from(ticks.saturating_sub(self.ticks).as_millis()).unwrap_or(i64::MAX);
        let drift = (now.0 - self.now.0).abs_diff(counted);
        if drift > DRIFT_MS_MAX {
            tracing::warn!(
                drift_ms = drift,
                "the clock has jumped: nothing expires for a day"
            );
            (self.now, self.ticks, self.held_until) = (now, ticks, ticks + HOLD);
        }
        ticks >= self.held_until
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::env::{BoxFuture, Clock};

    #[derive(Debug, Default)]
    struct Hands {
        wall: AtomicI64,
        ticks: AtomicI64,
    }

    #[derive(Debug)]
    struct Fake(Arc<Hands>);

    impl Clock for Fake {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.wall.load(Ordering::SeqCst))
        }
        fn ticks(&self) -> Duration {
            Duration::from_millis(self.0.ticks.load(Ordering::SeqCst) as u64)
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    const HOUR: i64 = 3_600_000;

    #[test]
    fn clock_jumps_delay_expiry() {
        let hands = Arc::new(Hands::default());
        let env = Env {
            clock: Arc::new(Fake(hands.clone())),
            ids: Env::system().ids,
        };
        let pass = |wall: i64, ticks: i64| {
            hands.wall.fetch_add(wall, Ordering::SeqCst);
            hands.ticks.fetch_add(ticks, Ordering::SeqCst);
        };
        let mut witness = Witness::new(&env, Some(Timestamp(-HOUR)));
        assert!(witness.believes(&env));
        pass(HOUR, HOUR);
        assert!(witness.believes(&env), "both have moved alike");
        pass(10_000 * HOUR, 1000);
        assert!(!witness.believes(&env), "the wall clock has jumped ahead");
        pass(23 * HOUR, 23 * HOUR);
        assert!(!witness.believes(&env), "a day is not over");
        pass(HOUR, HOUR);
        assert!(witness.believes(&env));
        pass(-10_000 * HOUR, HOUR);
        assert!(!witness.believes(&env), "it has jumped back");
        assert!(
            !Witness::new(&env, Some(Timestamp(env.now().0 - 1000 * HOUR))).believes(&env),
            "nothing for weeks"
        );
        assert!(Witness::new(&env, None).believes(&env), "nothing ever");
    }
}
