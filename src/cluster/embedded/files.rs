//! The files of one tablet, some of them side by side.

use std::sync::{Arc, OnceLock};

use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;

use crate::cluster::{ReportProgress, StepError};
use crate::error::Error;
use crate::job::{DataFile, Transfer, Volume};
use crate::repository::Moved;

/// Files of a tablet that are moved side by side.
const FILES_AT_A_TIME: usize = 4;

/// What has been moved of a tablet, and who is told.
#[derive(Clone)]
struct Tally {
    done: Arc<Mutex<Volume>>,
    progress: ReportProgress,
}

impl Tally {
    /// What is told of the bytes of one file as they move, and how many of them were counted.
    fn of_file(&self, file: &DataFile) -> (Moved, Arc<Mutex<u64>>) {
        let (tally, total) = (self.clone(), file.bytes);
        let counted = Arc::new(Mutex::new(0));
        let moved = Moved::to({
            let counted = counted.clone();
            move |bytes| {
                let mut counted = counted.lock();
                // An object may be longer than its file, and what failed is moved again.
                let more = bytes.min(total - *counted);
                *counted += more;
                let mut done = tally.done.lock();
                done.bytes += more;
                // Whoever moves the bytes is told by others that they are not wanted.
                let _ = (tally.progress)(*done);
            }
        });
        (moved, counted)
    }

    /// What was moved of a file that failed is not there.
    fn failed(&self, counted: &Mutex<u64>) {
        let counted = std::mem::take(&mut *counted.lock());
        let mut done = self.done.lock();
        done.bytes -= counted;
        let _ = (self.progress)(*done);
    }

    fn finished(&self, file: &DataFile, counted: &Mutex<u64>) -> Result<(), Error> {
        let counted = *counted.lock();
        let mut done = self.done.lock();
        done.files += 1;
        done.bytes += file.bytes - counted;
        (self.progress)(*done)
    }
}

/// Moves each file; `true` from `move_file` says that its bytes were moved. After a failure no more
/// are begun, and those under way are waited for: nothing may write once the step is over.
pub(super) async fn each_file<'f, F>(
    files: &'f [DataFile],
    progress: ReportProgress,
    move_file: impl Fn(&'f DataFile, Moved) -> F + Sync,
) -> Result<Transfer, StepError>
where
    F: Future<Output = Result<bool, StepError>> + Send,
{
    let failure = OnceLock::new();
    let tally = Tally {
        done: Arc::default(),
        progress,
    };
    let moving = files.iter().map(|file| {
        let (failure, move_file, tally) = (&failure, &move_file, &tally);
        let moving = async move {
            if failure.get().is_some() {
                return None;
            }
            let (moved, counted) = tally.of_file(file);
            Some((file, move_file(file, moved).await, counted))
        };
        moving.boxed()
    });
    let mut moving = stream::iter(moving.collect::<Vec<_>>()).buffer_unordered(FILES_AT_A_TIME);
    let mut transfer = Transfer::default();
    while let Some(ended) = moving.next().await {
        let Some((file, done, counted)) = ended else {
            continue;
        };
        let is_new = match done {
            Ok(is_new) => is_new,
            Err(e) => {
                tally.failed(&counted);
                let _ = failure.set(e);
                continue;
            }
        };
        transfer.total.add(Volume::of([file]));
        if is_new {
            transfer.new.add(Volume::of([file]));
        }
        if let Err(e) = tally.finished(file, &counted) {
            let _ = failure.set(e.into());
        }
    }
    drop(moving);
    match failure.into_inner() {
        Some(failure) => Err(failure),
        None => Ok(transfer),
    }
}
