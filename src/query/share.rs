//! A share of the memory of all queries for each statement, so that one cannot leave the others nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// The memory of one statement: taken from the pool of all, up to a limit of its own.
#[derive(Debug)]
pub(super) struct Share {
    pool: Arc<dyn MemoryPool>,
    used: AtomicUsize,
    limit: usize,
}

impl Share {
    pub fn new(pool: Arc<dyn MemoryPool>, limit: usize) -> Self {
        Self { pool, used: AtomicUsize::new(0), limit }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "share(used: {}, limit: {})", self.used.load(Ordering::Relaxed), self.limit)
    }
}

impl MemoryPool for Share {
    fn name(&self) -> &str {
        "share"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.pool.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.pool.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
        self.pool.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let within = |used: usize| used.checked_add(additional).filter(|sum| *sum <= self.limit);
        if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            // A sort or a grouping takes this for the time to spill.
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{additional} bytes more for {} are over statement_memory_bytes_max",
                reservation.consumer().name()
            )));
        }
        self.pool.try_grow(reservation, additional).inspect_err(|_| {
            self.used.fetch_sub(additional, Ordering::Relaxed);
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    #[test]
    fn one_statement_leaves_memory_to_others() {
        let all: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let [one, other] = [60, 60].map(|limit| Arc::new(Share::new(all.clone(), limit)) as Arc<dyn MemoryPool>);
        let of_one = MemoryConsumer::new("one").register(&one);
        of_one.try_grow(60).expect("its share");
        let error = of_one.try_grow(1).expect_err("more than its share").to_string();
        assert!(error.contains("statement_memory_bytes_max"), "{error}");
        let of_other = MemoryConsumer::new("other").register(&other);
        of_other.try_grow(40).expect("what is left");
        let error = of_other.try_grow(1).expect_err("nothing is left").to_string();
        assert!(!error.contains("statement_memory_bytes_max"), "{error}");
        drop(of_one);
        of_other.try_grow(20).expect("what was refused does not count");
        assert_eq!((all.reserved(), one.reserved(), other.reserved()), (60, 0, 60));
    }
}
