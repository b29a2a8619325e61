//! The system tables: names, columns and where their rows come from. The names are a public
//! interface: columns are added, never renamed.

mod cluster;
mod gateway;
mod jobs;
mod repositories;
mod repository_rows;
mod snapshot_partitions;
mod stored;
mod verifications;

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::system::{Chunks, Key, ScanContext, SystemRow, SystemTable};
use crate::error::Error;

const BATCH_ROWS: usize = 8192;

#[derive(Debug)]
struct Table<R: SystemRow> {
    chunks: fn(Arc<ScanContext>) -> Chunks<R>,
}

impl<R: SystemRow> SystemTable for Table<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn schema(&self) -> SchemaRef {
        R::schema()
    }

    fn keys(&self) -> &'static [Key] {
        R::KEYS
    }

    fn scan(&self, context: Arc<ScanContext>) -> BoxStream<'static, Result<RecordBatch, Error>> {
        let batches = |rows: Vec<R>| {
            let batches: Vec<_> = rows.chunks(BATCH_ROWS).map(R::batch).collect();
            stream::iter(batches)
        };
        (self.chunks)(context).map_ok(batches).try_flatten().boxed()
    }
}

/// The rows of a table that are gathered all at once.
fn once<R: SystemRow>(
    rows: impl Future<Output = Result<Vec<R>, Error>> + Send + 'static,
) -> Chunks<R> {
    stream::once(rows).boxed()
}

pub(super) fn all() -> &'static [&'static dyn SystemTable] {
    &[
        &Table { chunks: jobs::jobs },
        &Table {
            chunks: jobs::backup_jobs,
        },
        &Table {
            chunks: jobs::restore_jobs,
        },
        &Table {
            chunks: jobs::job_events,
        },
        &Table {
            chunks: jobs::job_tasks,
        },
        &Table {
            chunks: |c| once(async move { repositories::repositories(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { repositories::snapshots(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { repositories::snapshot_files(&c).await }),
        },
        &Table {
            chunks: snapshot_partitions::snapshot_partitions,
        },
        &Table {
            chunks: |c| once(async move { verifications::verifications(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { verifications::repository_findings(&c).await }),
        },
        &Table {
            chunks: verifications::pruned_objects,
        },
        &Table {
            chunks: |c| once(async move { cluster::frontends(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { cluster::backends(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { cluster::brokers(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { cluster::databases(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { cluster::tables(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { cluster::views(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { cluster::columns(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { cluster::partitions(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { cluster::tablets(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { gateway::clusters(&c.sources).await }),
        },
        &Table {
            chunks: |c| once(async move { gateway::sessions(&c).await }),
        },
        &Table {
            chunks: |c| once(async move { Ok(gateway::settings(&c.sources)) }),
        },
        &Table {
            chunks: |c| once(async move { gateway::users(&c.sources).await }),
        },
        &Table {
            chunks: |c| once(async move { gateway::roles(&c.sources).await }),
        },
        &Table {
            chunks: |c| once(async move { gateway::grants(&c.sources).await }),
        },
    ]
}

pub(super) fn find(name: &str) -> Option<&'static dyn SystemTable> {
    all().iter().copied().find(|t| t.name() == name)
}
