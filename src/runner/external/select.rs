//! What a backup takes, noted before its statement is sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Step;
use crate::chains::{Chains, all_of};
use crate::error::Error;
use crate::job::{MovedPartition, Selection, SlotStatus, is_taken};
use crate::names::TableName;
use crate::statement::{Statement, parse_one};

/// How long a full backup waits for what it takes to be noted: nobody may ever follow it.
const NOTING_TIME: Duration = Duration::from_secs(30);

impl Step<'_> {
    /// What the backup takes; nothing, if that is not known of a full one.
    pub(super) async fn select(&self) -> Result<Option<Arc<Selection>>, Error> {
        let (external, database) = (self.external, &self.request.database);
        let Some(repository) = &self.request.repository else {
            return Ok(None);
        };
        // What was selected at an earlier look may have changed since.
        let Statement::Backup(backup) = parse_one(&self.request.statement)? else {
            return Ok(None);
        };
        if backup.catalogs.is_some() {
            return Ok(None);
        }
        if self.request.base.is_none() && external.older_max() == 0 {
            return Ok(None);
        }
        if let Some(base) = &self.request.base {
            let chains = Chains {
                store: &*self.inner.store,
                cluster: &self.job.spec.cluster,
                repository,
            };
            let selection = chains.select(external, database, &backup, base).await?;
            return Ok(Some(Arc::new(selection)));
        }
        let late = self.inner.env.clock.sleep(NOTING_TIME);
        let noted = tokio::select! {
            noted = all_of(external, database, &backup) => noted,
            () = late => return Ok(None),
        };
        match noted {
            Ok((_, contents)) => Ok(Some(Arc::new(Selection {
                statement: None,
                contents,
            }))),
            Err(error) => {
                tracing::info!(job_id = self.job.id.0, %error, "what the backup takes is not noted: no other can follow it");
                Ok(None)
            }
        }
    }

    /// What has moved since the backup was noted, once the cluster has fixed what it copies. It is
    /// looked at once: where that is not to be had, all counts as moved.
    pub(super) async fn moved(
        &self,
        seen: &SlotStatus,
        objects: &str,
    ) -> Option<Arc<BTreeSet<MovedPartition>>> {
        let (record, database) = (&self.job.record, &self.request.database);
        let is_fixed = seen.snapshot_finished_at.is_some() && !objects.is_empty();
        let selection = record
            .selection
            .as_ref()
            .filter(|_| is_fixed && record.moved_partitions.is_none())?;
        let contents = &selection.contents;
        let names: Vec<TableName> = contents.tables.iter().map(|t| t.table.clone()).collect();
        let taken = |table: &TableName| is_taken(&format!("{database}.{table}"), objects);
        let late = self.inner.env.clock.sleep(NOTING_TIME);
        let now = tokio::select! {
            now = self.external.contents(database, &names) => now,
            () = late => Ok(Vec::new()),
        };
        let moved = match now {
            Ok(now) => contents.moved(&now, taken),
            Err(error) => {
                tracing::info!(job_id = self.job.id.0, %error, "what has moved meanwhile is not known: all of it comes again");
                contents.all_moved()
            }
        };
        Some(Arc::new(moved))
    }
}
