//! What jobs say about themselves while they run: shown, never trusted, and gone with the process.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::job::{SlotStatus, Volume};
use crate::names::{JobId, TaskId};

/// What a task last said about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    pub attempts: u32,
    /// What is done beyond what the journal knows.
    pub done: Volume,
    /// The last error, without secrets; of a job that waits, what for.
    pub error: Option<String>,
    /// What was last seen of a job that another cluster does.
    pub seen: Option<SlotStatus>,
}

/// The notes of a job: of its tasks, and of the job itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    pub tasks: BTreeMap<TaskId, Note>,
    /// Of commands that are no tasks.
    pub job: Option<Note>,
}

/// The notes of all jobs that run.
#[derive(Debug, Default)]
pub struct Progress(Mutex<HashMap<JobId, Notes>>);

impl Progress {
    pub fn note(&self, job: JobId, task: Option<TaskId>, change: impl FnOnce(&mut Note)) {
        let mut all = self.0.lock();
        let notes = all.entry(job).or_default();
        change(match task {
            Some(task) => notes.tasks.entry(task).or_default(),
            None => notes.job.get_or_insert_default(),
        });
    }

    /// What tasks of a job have done that the journal does not know yet.
    pub fn under_way(&self, job: JobId) -> Volume {
        let mut sum = Volume::default();
        if let Some(notes) = self.0.lock().get(&job) {
            notes.tasks.values().for_each(|note| sum.add(note.done));
        }
        sum
    }

    /// The journal knows what a task has done.
    pub fn finished(&self, job: JobId, task: TaskId) {
        if let Some(note) = self
            .0
            .lock()
            .get_mut(&job)
            .and_then(|notes| notes.tasks.get_mut(&task))
        {
            (note.done, note.error) = (Volume::default(), None);
        }
    }

    /// What a running job says of itself: the last sight of one that another cluster does, and what
    /// it waits for.
    pub fn last_words(&self, job: JobId) -> (Option<SlotStatus>, Option<String>) {
        let all = self.0.lock();
        let Some(notes) = all.get(&job) else {
            return (None, None);
        };
        let error = notes
            .tasks
            .values()
            .chain(&notes.job)
            .find_map(|note| note.error.clone());
        (notes.job.as_ref().and_then(|note| note.seen.clone()), error)
    }

    pub fn notes(&self, job: JobId) -> Notes {
        self.0.lock().get(&job).cloned().unwrap_or_default()
    }

    /// The last error of a job that is no task's.
    pub fn job_error(&self, job: JobId) -> Option<String> {
        self.0.lock().get(&job)?.job.as_ref()?.error.clone()
    }

    /// Forgets a job that is over.
    pub fn forget(&self, job: JobId) {
        self.0.lock().remove(&job);
    }
}
