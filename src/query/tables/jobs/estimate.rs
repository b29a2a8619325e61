//! How far a job has come, and when it may be over.

use crate::job::{JobRow, JobStatus, Phase, SlotStatus, Volume};
use crate::names::Timestamp;

/// How much of a job is done, from 0 to 1.
pub(super) fn fraction(row: &JobRow, done: Volume) -> f64 {
    match row.status {
        JobStatus::Succeeded => 1.0,
        _ if row.planned.bytes > 0 => (done.bytes as f64 / row.planned.bytes as f64).min(1.0),
        _ => row.seen.as_ref().map_or(0.0, fraction_there),
    }
}

/// The same of a job that a StarRocks cluster does, which tells its phase and how many tasks of
/// that are open: what a phase is of the whole is an estimate.
fn fraction_there(seen: &SlotStatus) -> f64 {
    let (from, to) = match seen.phase() {
        Phase::Snapshoting => (0.0, 0.1),
        Phase::UploadSnapshot | Phase::Download => (0.1, 0.1),
        Phase::Uploading | Phase::Downloading => (0.1, 0.95),
        Phase::SaveMeta | Phase::UploadInfo | Phase::Commit => (0.95, 0.95),
        Phase::Committing => (0.95, 0.99),
        _ => (0.0, 0.0),
    };
    let done = match seen.tasks_most {
        0 => 0.0,
        most => 1.0 - (seen.tasks_left as f64 / most as f64).min(1.0),
    };
    from + (to - from) * done
}

/// The end of the transfer if it goes on as it did so far.
pub(super) fn eta(row: &JobRow, fraction: f64, now: Timestamp) -> Option<Timestamp> {
    let since = row
        .snapshot_finished_at
        .filter(|_| row.status == JobStatus::Running && fraction > 0.0 && row.planned.bytes > 0)?;
    let elapsed = (now.0 - since.0).max(0) as f64;
    Some(Timestamp(
        now.0 + (elapsed * (1.0 - fraction) / fraction) as i64,
    ))
}
