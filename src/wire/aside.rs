//! Long work on a thread that others wait for.

use datafusion::arrow::array::RecordBatch;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Rows of this length take long enough to write that another thread had better do what this one is
/// there for, bytes.
const LONG_ROW_BYTES: usize = 64 << 10;

/// Whether the rows of a batch are long. What several batches share counts in each.
pub(super) fn has_long_rows(batch: &RecordBatch) -> bool {
    batch.get_array_memory_size() / batch.num_rows().max(1) > LONG_ROW_BYTES
}

/// Does it here; if it is long, another thread waits for messages meanwhile. Tokio hands that over
/// by itself only between tasks.
pub(super) fn aside<T>(is_long: bool, work: impl FnOnce() -> T) -> T {
    if is_long && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
