//! Which tasks of a phase are left: a few bytes for each, so that a job of many tablets is copied
//! as quickly as one of few.

use std::sync::Arc;

use fixedbitset::FixedBitSet;

use crate::names::TaskId;

/// The tasks of a phase, and which of them are not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TasksLeft {
    /// All of them, in order.
    ids: Arc<[TaskId]>,
    /// By their places in `ids`.
    left: FixedBitSet,
    count: usize,
}

impl TasksLeft {
    pub fn all(ids: impl IntoIterator<Item = TaskId>) -> Self {
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let mut left = FixedBitSet::with_capacity(ids.len());
        left.insert_range(..);
        Self {
            count: ids.len(),
            ids: ids.into(),
            left,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn contains(&self, task: TaskId) -> bool {
        self.ids
            .binary_search(&task)
            .is_ok_and(|place| self.left.contains(place))
    }

    /// What is left, in order.
    pub fn iter(&self) -> impl Iterator<Item = TaskId> {
        self.left.ones().map(|place| self.ids[place])
    }

    /// Takes away one that is done; `false` if it was not left.
    pub fn finish(&mut self, task: TaskId) -> bool {
        let Some(place) = self
            .ids
            .binary_search(&task)
            .ok()
            .filter(|place| self.left.contains(*place))
        else {
            return false;
        };
        self.left.remove(place);
        self.count -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_finished_once() {
        let mut left = TasksLeft::all([7, 3, 5].map(TaskId));
        assert!(left.finish(TaskId(5)) && !left.finish(TaskId(5)) && !left.finish(TaskId(4)));
        assert_eq!(left.iter().collect::<Vec<_>>(), [TaskId(3), TaskId(7)]);
        assert!(left.contains(TaskId(7)) && !left.contains(TaskId(5)) && !left.is_empty());
        assert!(left.finish(TaskId(3)) && left.finish(TaskId(7)) && left.is_empty());
    }
}
