//! What backups of StarRocks clusters consist of: each partition, and the snapshot that has it.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::super::system::{Chunks, ScanContext, system_row};
use crate::error::Error;
use crate::job::{JobKind, JobRow, JobStatus};
use crate::store::JobFilter;

system_row! {
    pub SnapshotPartitionsRow in "snapshot_partitions" {
        cluster: Text,
        repository: Text,
        snapshot: Text,
        backup_timestamp: Text,
        base_snapshot: Text,
        db_name: Text,
        table_name: Text,
        partition_name: Text,
        partition_id: Int,
        version: Int,
        stored_in: Text,
        moved: Bool,
        job_id: Int,
    }
}

/// The partitions of each backup that was noted, one job after the other.
pub(super) fn snapshot_partitions(context: Arc<ScanContext>) -> Chunks<SnapshotPartitionsRow> {
    let jobs = async move {
        let wanted = &context.request;
        let filter = JobFilter {
            kind: Some(JobKind::Backup),
            status: Some(JobStatus::Succeeded),
            snapshot: wanted.text("snapshot"),
            cluster: wanted.text("cluster"),
            db_name: wanted.text("db_name"),
            job_id: wanted.int("job_id").map(crate::names::JobId),
            ..JobFilter::default()
        };
        let mut jobs = context.sources.store.jobs(&filter).await?;
        jobs.retain(|row| row.noted);
        let rows = move |job| partitions_of(context.clone(), job);
        Ok::<_, Error>(stream::iter(jobs).then(rows))
    };
    stream::once(jobs).try_flatten().boxed()
}

async fn partitions_of(
    context: Arc<ScanContext>,
    row: JobRow,
) -> Result<Vec<SnapshotPartitionsRow>, Error> {
    let job = context.sources.store.load(row.job_id).await?;
    let Some(selection) = &job.record.selection else {
        return Ok(Vec::new());
    };
    let (contents, moved) = (&selection.contents, &job.record.moved_partitions);
    let mut rows = Vec::new();
    for table in &contents.tables {
        for partition in &table.partitions {
            let older = partition
                .older
                .and_then(|n| contents.older.get(usize::from(n)));
            let stored_in = older.map_or(row.snapshot.as_str(), |stored| stored.label.as_str());
            let name = (table.table.clone(), partition.name.clone());
            // Of what an older one has it is known; of the rest, once it was looked at.
            let has_moved = match older {
                Some(_) => Some(false),
                None => moved.as_ref().map(|moved| moved.contains(&name)),
            };
            rows.push(SnapshotPartitionsRow {
                cluster: row.cluster.clone().into(),
                repository: row.repository.clone().into(),
                snapshot: row.snapshot.clone().into(),
                backup_timestamp: row.backup_timestamp.clone().map(String::from).into(),
                base_snapshot: contents.base.as_ref().map(ToString::to_string).into(),
                db_name: row.db_name.clone().into(),
                table_name: table.table.to_string().into(),
                partition_name: partition.name.to_string().into(),
                partition_id: partition.id.into(),
                version: partition.version.into(),
                stored_in: stored_in.to_owned().into(),
                moved: has_moved.into(),
                job_id: row.job_id.0.into(),
            });
        }
    }
    Ok(rows)
}
