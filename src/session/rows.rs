//! Rows on their way to a client.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

use crate::query::AsOf;

/// Rows on their way. The instant that they are of is held until they are all taken.
pub struct Rows {
    /// Their columns.
    pub schema: SchemaRef,
    pub stream: SendableRecordBatchStream,
    /// The word of the command tag: `SELECT`, `SHOW`.
    pub verb: &'static str,
    /// They come from a BINARY cursor: in binary format where the client does not say otherwise.
    pub binary: bool,
    pub(super) _as_of: AsOf,
}

impl Rows {
    /// Rows that are all there.
    pub(super) fn of(batch: RecordBatch, verb: &'static str, as_of: AsOf) -> Self {
        let schema = batch.schema();
        let stream = Box::pin(RecordBatchStreamAdapter::new(
            schema.clone(),
            futures::stream::iter([Ok(batch)]),
        ));
        Self {
            schema,
            stream,
            verb,
            binary: false,
            _as_of: as_of,
        }
    }
}
