//! A share of the memory of all queries for each statement, so that one cannot leave the others
//! nothing.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// The memory of one statement: taken from the pool of all, up to a limit of its own, which its
/// sorts and groupings share fairly.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<dyn MemoryPool>,
    own: FairSpillPool,
    limit: usize,
}

impl Share {
    pub fn new(all: Arc<dyn MemoryPool>, limit: usize) -> Self {
        Self {
            all,
            own: FairSpillPool::new(limit),
            limit,
        }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "share(used: {}, limit: {})",
            self.own.reserved(),
            self.limit
        )
    }
}

impl MemoryPool for Share {
    fn name(&self) -> &str {
        "share"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
        self.all.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
        self.all.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        // A sort or a grouping takes either error for the time to spill.
        self.own.try_grow(reservation, additional).map_err(|_| {
            let consumer = reservation.consumer().name();
            DataFusionError::ResourcesExhausted(format!(
                "{additional} bytes more for {consumer} are over statement_memory_bytes_max"
            ))
        })?;
        self.all
            .try_grow(reservation, additional)
            .inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
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
        let [one, other] =
            [60, 60].map(|limit| Arc::new(Share::new(all.clone(), limit)) as Arc<dyn MemoryPool>);
        let of_one = MemoryConsumer::new("one").register(&one);
        of_one.try_grow(60).expect("its share");
        let error = of_one
            .try_grow(1)
            .expect_err("more than its share")
            .to_string();
        assert!(error.contains("statement_memory_bytes_max"), "{error}");
        let of_other = MemoryConsumer::new("other").register(&other);
        of_other.try_grow(40).expect("what is left");
        let error = of_other
            .try_grow(1)
            .expect_err("nothing is left")
            .to_string();
        assert!(!error.contains("statement_memory_bytes_max"), "{error}");
        drop(of_one);
        of_other
            .try_grow(20)
            .expect("what was refused does not count");
        assert_eq!(
            (all.reserved(), one.reserved(), other.reserved()),
            (60, 0, 60)
        );
    }
}
