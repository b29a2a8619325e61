//! What is done with restored tables: put together, read, put into their places, and dropped.
//!
//! A restored table is told from the one whose place it takes by the ids of its partitions, which go
//! with it when names are exchanged. So after a crash or a lost answer it is seen whether that has
//! happened, and it is not done twice.

use std::collections::BTreeSet;

use super::super::{Attempt, misplaced};
use super::{TRIES, scratch_of, undefined};
use crate::cluster::{ExternalCluster, SendError, StepError, TableChange};
use crate::error::{Error, ErrorKind};
use crate::job::{Failure, StagedContent, StagedEvent, StagedRequest, StagedTable};
use crate::names::{DatabaseName, PartitionName, TableName};

/// What is under the names that a restore has made.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// What was restored so far; nothing was ever put into its place.
    Unfinished,
    /// What was restored, and these are the tables.
    Restored(&'a [StagedContent]),
    /// What they have replaced.
    Replaced(&'a [StagedContent]),
}

/// Fails for good after some tries.
fn persistent(attempts: u32, error: Error) -> StepError {
    match error.kind {
        ErrorKind::Connection => StepError::Retry(error),
        _ if attempts < TRIES => StepError::Retry(error),
        _ => StepError::Fatal(error),
    }
}

impl Attempt<'_> {
    /// The table that is to take a place.
    fn main_scratch(&self, request: &StagedRequest, place: usize) -> Result<TableName, Error> {
        let table = request.tables.get(place);
        let main = table.map(|table| table.main as usize);
        scratch_of(self.job, place, main.unwrap_or_default())
    }

    /// Waits for a statement that was sent before and may still be on its way.
    async fn not_in_flight(
        &self,
        external: &dyn ExternalCluster,
        statements: &[&str],
    ) -> Result<(), StepError> {
        for sql in statements {
            if external.is_in_flight(sql).await.map_err(StepError::Retry)? {
                let message = "the cluster is still working on the statement";
                return Err(StepError::Retry(Error::new(ErrorKind::Connection, message)));
            }
        }
        Ok(())
    }

    /// Puts one snapshot's part of a table into the table that has the most of it. Doing it twice
    /// leaves the same.
    pub(super) async fn join(
        &self,
        request: &StagedRequest,
        place: usize,
        external: &dyn ExternalCluster,
    ) -> Result<StagedEvent, StepError> {
        let database = &request.target.database;
        let joins = request.joins();
        let join = joins.get(place).ok_or_else(misplaced)?;
        let (table, step) = (&request.tables[join.table], &request.steps[join.step]);
        let part = step.parts.iter().find(|part| part.table == table.name);
        let part = part.ok_or_else(misplaced)?;
        let names: Vec<PartitionName> = part.partitions.iter().map(|(n, _)| n.clone()).collect();
        let main = self.main_scratch(request, join.table)?;
        let source = scratch_of(self.job, join.table, join.step)?;
        let failed = |e: Error| persistent(self.attempts, e);
        let of_both = [main.clone(), source.clone()];
        let there = external
            .contents(database, &of_both)
            .await
            .map_err(failed)?;
        let [Some(main_there), Some(_)] =
            of_both.map(|name| there.iter().find(|t| t.table == name))
        else {
            return Err(undefined(format!(
                "a table into which {} was restored is gone",
                table.name
            )));
        };
        let has = |name: &PartitionName| main_there.partitions.iter().any(|p| p.name == *name);
        let missing: Vec<PartitionName> = names.iter().filter(|n| !has(n)).cloned().collect();
        let lines = external.partition_lines(database, source.as_str(), &missing);
        for line in lines.await.map_err(failed)? {
            let change = TableChange::AddPartition {
                table: main.as_str(),
                line: &line,
            };
            let sql = external.table_change(database, change)?;
            let sent = external.send(&sql).await.map_err(SendError::into_error);
            sent.map_err(|e| failed(e.printed_as(&sql)))?;
        }
        let change = TableChange::Overwrite {
            table: main.as_str(),
            partitions: &names,
            from: source.as_str(),
        };
        let sql = external.table_change(database, change)?;
        self.not_in_flight(external, &[&sql]).await?;
        let counted = external.count_rows(database, source.as_str(), &names);
        let rows = counted.await.map_err(failed)?;
        let in_main = || external.count_rows(database, main.as_str(), &names);
        // One whose answer was lost may have done it; only rows are counted, so it is done again
        // unless there are none to move.
        if rows > 0 || in_main().await.map_err(failed)? > 0 {
            let sent = external
                .send_long(&sql)
                .await
                .map_err(SendError::into_error);
            sent.map_err(|e| failed(e.printed_as(&sql)))?;
        }
        let moved = in_main().await.map_err(failed)?;
        if moved != rows {
            let message = format!(
                "{moved} rows of table {} are there where {rows} were restored from snapshot {}",
                table.name, step.label
            );
            return Err(failed(Error::new(ErrorKind::Corrupted, message)));
        }
        Ok(StagedEvent::Joined { rows })
    }

    /// Refuses a restored table that lacks partitions: the cluster may drop what is too old before
    /// dynamic partitioning is turned off in it, and by a time to live. More of them do no harm.
    async fn check_partitions(
        &self,
        request: &StagedRequest,
        (place, table): (usize, &StagedTable),
        external: &dyn ExternalCluster,
    ) -> Result<Vec<i64>, StepError> {
        let database = &request.target.database;
        let scratch = self.main_scratch(request, place)?;
        let there = external
            .contents(database, std::slice::from_ref(&scratch))
            .await;
        let there = there.map_err(|e| persistent(self.attempts, e))?;
        let Some(there) = there.first().filter(|there| !there.partitions.is_empty()) else {
            return Err(undefined(format!(
                "table {scratch}, into which {} was restored, is gone",
                table.name
            )));
        };
        let found: BTreeSet<&str> = there.partitions.iter().map(|p| p.name.as_str()).collect();
        let wanted: BTreeSet<&str> = table.partitions.iter().map(|p| p.as_str()).collect();
        // The only partition of an unpartitioned table is called as the table is.
        let is_unpartitioned = |names: &BTreeSet<&str>, table: &TableName| {
            names.len() == 1 && names.contains(table.as_str())
        };
        let is_one = is_unpartitioned(&wanted, &table.name) && found.len() == 1;
        let missing: Vec<&str> = wanted.difference(&found).copied().collect();
        if !missing.is_empty() && !is_one {
            let message = format!(
                "table {} was restored without partitions that were backed up",
                table.name
            );
            return Err(StepError::Fatal(
                Error::new(ErrorKind::WrongState, message)
                    .detail(format!("It lacks {}.", missing.join(", ")))
                    .hint("The cluster may have dropped them as too old, by dynamic partitioning or a time to live: turn that off in the table before it is backed up."),
            ));
        }
        let ids = external.partition_ids(database, scratch.as_str()).await;
        Ok(ids.map_err(StepError::Retry)?.unwrap_or_default())
    }

    /// Reads every restored table once: what does not read takes nobody's place.
    pub(super) async fn count(
        &self,
        request: &StagedRequest,
        external: &dyn ExternalCluster,
    ) -> Result<StagedEvent, StepError> {
        let database = &request.target.database;
        let mut tables = Vec::with_capacity(request.tables.len());
        for (place, table) in request.tables.iter().enumerate() {
            let partition_ids = self.check_partitions(request, (place, table), external);
            let partition_ids = partition_ids.await?;
            let scratch = self.main_scratch(request, place)?;
            let rows = external.count_rows(database, scratch.as_str(), &[]).await;
            let rows = rows.map_err(|e| {
                let what = format!("what was restored of table {} does not read", table.name);
                persistent(self.attempts, e.prefixed(&what))
            })?;
            let replaced_ids = match table.replaces {
                true => {
                    external
                        .partition_ids(database, table.target.as_str())
                        .await
                }
                false => Ok(None),
            };
            tables.push(StagedContent {
                rows,
                partition_ids,
                replaced_ids: replaced_ids.map_err(StepError::Retry)?.unwrap_or_default(),
            });
        }
        Ok(StagedEvent::Counted {
            tables: tables.into(),
        })
    }

    /// Whether what stands under a name is the table that was restored; `None`: nothing does.
    async fn is_restored(
        &self,
        external: &dyn ExternalCluster,
        (database, table): (&DatabaseName, &TableName),
        content: &StagedContent,
    ) -> Result<Option<bool>, StepError> {
        let found = external.partition_ids(database, table.as_str()).await;
        let ids: BTreeSet<&i64> = content.partition_ids.iter().collect();
        let is_it = |found: Vec<i64>| found.iter().any(|id| ids.contains(id));
        Ok(found.map_err(StepError::Retry)?.map(is_it))
    }

    /// Looks at every place before the first table is put into one: whether what is there is what was
    /// there when the restore was said.
    async fn check_places(
        &self,
        request: &StagedRequest,
        external: &dyn ExternalCluster,
    ) -> Result<Result<(), Error>, StepError> {
        let database = &request.target.database;
        for (place, table) in request.tables.iter().enumerate() {
            match self
                .check_partitions(request, (place, table), external)
                .await
            {
                Err(StepError::Fatal(error)) => return Ok(Err(error)),
                checked => checked?,
            };
            let there = match external
                .partition_ids(database, table.target.as_str())
                .await
            {
                Err(e) if e.kind == ErrorKind::Connection => return Err(StepError::Retry(e)),
                Err(e) => return Ok(Err(e)),
                Ok(there) => there.is_some(),
            };
            if there != table.replaces {
                let how = if there { "was made" } else { "was dropped" };
                let message = format!(
                    "table {database}.{} {how} while the restore went on",
                    table.target
                );
                return Ok(Err(Error::new(ErrorKind::WrongState, message)));
            }
        }
        Ok(Ok(()))
    }

    pub(super) async fn put_in_place(
        &self,
        request: &StagedRequest,
        tables: &[StagedContent],
        place: usize,
        external: &dyn ExternalCluster,
    ) -> Result<StagedEvent, StepError> {
        let database = &request.target.database;
        let table = request.tables.get(place).ok_or_else(misplaced)?;
        let content = tables.get(place).ok_or_else(misplaced)?;
        let (target, scratch) = (&table.target, self.main_scratch(request, place)?);
        // Before the first one nothing has changed, and the whole can still be given up.
        let refused = |error: Error| match place {
            0 => Ok(StagedEvent::SwapRefused {
                failure: Failure::of(&error),
            }),
            _ => Err(StepError::Retry(error)),
        };
        let change = match table.replaces {
            true => TableChange::Swap {
                table: target.as_str(),
                with: scratch.as_str(),
            },
            false => TableChange::Rename {
                table: scratch.as_str(),
                to: target.as_str(),
            },
        };
        let sql = match external.table_change(database, change) {
            Ok(sql) => sql,
            Err(e) => return refused(e),
        };
        // Names that are exchanged twice are the old ones.
        self.not_in_flight(external, &[&sql]).await?;
        let (beside, in_place) = ((database, &scratch), (database, target));
        if !self
            .is_restored(external, beside, content)
            .await?
            .unwrap_or_default()
        {
            // It is where it belongs, or somebody has moved it; what is there is told.
            let old = StagedContent {
                partition_ids: content.replaced_ids.clone(),
                ..StagedContent::default()
            };
            let is_done = self.is_restored(external, in_place, content).await? == Some(true)
                || self.is_restored(external, beside, &old).await? == Some(true);
            if !is_done {
                let message = format!("table {scratch}, which was restored, is gone");
                let error = Error::new(ErrorKind::UndefinedTable, message);
                return Err(StepError::Retry(error));
            }
            return self.is_placed(request, table, external).await;
        }
        if place == 0
            && let Err(error) = self.check_places(request, external).await?
        {
            return refused(error);
        }
        match external.send(&sql).await {
            Ok(()) => {}
            Err(SendError::Refused { error, .. }) => {
                // An earlier one, whose answer was lost, may have come first.
                if self.is_restored(external, in_place, content).await? != Some(true) {
                    return refused(error.printed_as(&sql));
                }
            }
            Err(SendError::NotSent(error) | SendError::InDoubt(error)) => {
                return Err(StepError::Retry(error));
            }
        }
        if self.is_restored(external, in_place, content).await? != Some(true) {
            let message = format!("table {target} is not what was restored yet");
            return Err(StepError::Retry(Error::new(ErrorKind::WrongState, message)));
        }
        self.is_placed(request, table, external).await
    }

    /// What follows once a table is in its place: what was turned off for it goes on.
    async fn is_placed(
        &self,
        request: &StagedRequest,
        table: &StagedTable,
        external: &dyn ExternalCluster,
    ) -> Result<StagedEvent, StepError> {
        if self.job.record.dynamic.contains(&table.name) {
            let change = TableChange::Dynamic {
                table: table.target.as_str(),
                enable: true,
            };
            let sql = external.table_change(&request.target.database, change)?;
            let sent = external.send(&sql).await.map_err(SendError::into_error);
            sent.map_err(|e| StepError::Retry(e.printed_as(&sql)))?;
        }
        Ok(StagedEvent::Swapped)
    }

    /// Drops the tables of the names that this job has made: the old ones once the restored ones are
    /// in their places, and the restored ones of a job that did not come so far. What is not what it
    /// should be is left.
    pub(super) async fn drop_scratch_tables(
        &self,
        request: &StagedRequest,
        left: Left<'_>,
        external: &dyn ExternalCluster,
    ) -> Result<StagedEvent, StepError> {
        let database = &request.target.database;
        let mut dropped = Vec::new();
        for (place, table) in request.tables.iter().enumerate() {
            let steps = request.steps.iter().enumerate();
            let of_table =
                steps.filter(|(_, step)| step.parts.iter().any(|p| p.table == table.name));
            for (step, _) in of_table {
                let scratch = scratch_of(self.job, place, step)?;
                let found = external.partition_ids(database, scratch.as_str()).await;
                let Some(found) = found.map_err(StepError::Retry)? else {
                    continue;
                };
                let is_main = step == table.main as usize;
                let is_restored = |tables: &[StagedContent]| {
                    let ids = tables.get(place).map(|content| &content.partition_ids);
                    ids.is_some_and(|ids| found.iter().any(|id| ids.contains(id)))
                };
                let goes = match left {
                    _ if !is_main => true,
                    Left::Unfinished => true,
                    Left::Restored(tables) => is_restored(tables),
                    Left::Replaced(tables) => !is_restored(tables),
                };
                if !goes {
                    tracing::warn!(table = %scratch, job_id = self.job.id.0, "a table is not what this restore has left there; it stays");
                    continue;
                }
                let change = TableChange::Drop {
                    table: scratch.as_str(),
                };
                let sql = external.table_change(database, change)?;
                let sent = external.send(&sql).await;
                sent.map_err(|e| StepError::Retry(e.into_error().printed_as(&sql)))?;
                dropped.push(format!("{database}.{scratch}"));
            }
        }
        Ok(StagedEvent::Released { dropped })
    }
}
