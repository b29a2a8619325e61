//! The files of one tablet, some of them side by side.

use std::sync::OnceLock;

use futures::{FutureExt, StreamExt, stream};

use crate::cluster::{ReportProgress, StepError};
use crate::job::{DataFile, Transfer};

/// Files of a tablet that are moved side by side.
const FILES_AT_A_TIME: usize = 4;

/// Moves each file; `true` from `move_file` says that its bytes were moved. After a failure no more
/// are begun, and those under way are waited for: nothing may write once the step is over.
pub(super) async fn each_file<'f, F>(
    files: &'f [DataFile],
    progress: ReportProgress,
    move_file: impl Fn(&'f DataFile) -> F + Sync,
) -> Result<Transfer, StepError>
where
    F: Future<Output = Result<bool, StepError>> + Send,
{
    let failure = OnceLock::new();
    let moving = files.iter().map(|file| {
        let (failure, move_file) = (&failure, &move_file);
        let moving = async move {
            if failure.get().is_some() {
                return None;
            }
            Some((file, move_file(file).await))
        };
        moving.boxed()
    });
    let mut moving = stream::iter(moving.collect::<Vec<_>>()).buffer_unordered(FILES_AT_A_TIME);
    let mut transfer = Transfer::default();
    while let Some(ended) = moving.next().await {
        let Some((file, done)) = ended else {
            continue;
        };
        let is_new = match done {
            Ok(is_new) => is_new,
            Err(e) => {
                let _ = failure.set(e);
                continue;
            }
        };
        transfer.total.files += 1;
        transfer.total.bytes += file.bytes;
        if is_new {
            transfer.new.files += 1;
            transfer.new.bytes += file.bytes;
        }
        if let Err(e) = progress(transfer.total) {
            let _ = failure.set(e.into());
        }
    }
    drop(moving);
    match failure.into_inner() {
        Some(failure) => Err(failure),
        None => Ok(transfer),
    }
}
