//! The memory of all queries. DataFusion's pools count behind a lock, which a query's thread may
//! hold when it has to leave the processor to others: a statement of a few bytes would wait until
//! that thread, of a lower priority, comes again.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// Memory up to a limit, without a lock. Those who can spill share fairly what the others leave.
/// Two who ask at once may both be given the last of it: what is over is no more than one of them
/// asked for.
#[derive(Debug)]
pub(super) struct SharedMemory {
    limit: usize,
    spillable: AtomicUsize,
    others: AtomicUsize,
    spillers: AtomicUsize,
}

impl SharedMemory {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            spillable: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            spillers: AtomicUsize::new(0),
        }
    }

    fn taken_by(&self, consumer: &MemoryConsumer) -> &AtomicUsize {
        if consumer.can_spill() {
            &self.spillable
        } else {
            &self.others
        }
    }
}

impl fmt::Display for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all(used: {}, limit: {})", self.reserved(), self.limit)
    }
}

impl MemoryPool for SharedMemory {
    fn name(&self) -> &str {
        "all"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.spillers.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.spillers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.taken_by(reservation.consumer())
            .fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.taken_by(reservation.consumer())
            .fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let consumer = reservation.consumer();
        let left = self
            .limit
            .saturating_sub(self.others.load(Ordering::Relaxed));
        let (wanted, most) = if consumer.can_spill() {
            let share = left / self.spillers.load(Ordering::Relaxed).max(1);
            (reservation.size().saturating_add(additional), share)
        } else {
            let spillable = self.spillable.load(Ordering::Relaxed);
            (additional, left.saturating_sub(spillable))
        };
        if wanted > most {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{additional} bytes more for {}, which holds {}; {most} are there of the {} of query_memory_bytes_max",
                consumer.name(),
                reservation.size(),
                self.limit
            )));
        }
        self.grow(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.spillable.load(Ordering::Relaxed) + self.others.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn spilling_queries_share_free_memory() {
        let pool = Arc::new(SharedMemory::new(100));
        let all: Arc<dyn MemoryPool> = pool.clone();
        let plain = MemoryConsumer::new("plain").register(&all);
        let spiller = || {
            MemoryConsumer::new("sort")
                .with_can_spill(true)
                .register(&all)
        };
        plain.try_grow(20).expect("there is room");
        let one = spiller();
        one.try_grow(80).expect("all that is left");
        assert!(plain.try_grow(1).is_err());
        let other = spiller();
        assert!(one.try_grow(1).is_err(), "more than half of what is left");
        one.shrink(40);
        other.try_grow(40).expect("the other half");
        assert!(other.try_grow(1).is_err());
        // What is too little to be refused counts.
        plain.grow(5);
        assert_eq!(pool.reserved(), 105);
        drop((one, other, plain));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn many_threads_leave_nothing_behind() {
        let all: Arc<dyn MemoryPool> = Arc::new(SharedMemory::new(1000));
        std::thread::scope(|scope| {
            for i in 0..8 {
                let all = &all;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let consumer = MemoryConsumer::new("one").with_can_spill(i % 2 == 0);
                        let taken = consumer.register(all);
                        let _ = taken.try_grow(300);
                        let _ = taken.try_grow(300);
                    }
                });
            }
        });
        assert_eq!(all.reserved(), 0);
    }
}
