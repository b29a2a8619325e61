//! INSERT and DELETE: rows are computed, written into new files, and made visible by one
//! transaction of the metastore.
//!
//! One statement at a time changes a table. Those that add rows compute them before they wait for
//! their turn: a client that sends its rows slowly, or sends none, keeps nobody else from the
//! table.

use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use datafusion::physical_plan::spill::{SpillManager, get_record_batch_memory_size};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use super::*;

/// Rows that wait in memory for their turn; more wait in a file.
const WAITING_BYTES_MAX: usize = 4 << 20;

impl EmbeddedCluster {
    pub(super) async fn change_rows(
        &self,
        table: &Qualified<TableName>,
        write: Write,
        lock_timeout: Option<Duration>,
        state: &SessionState,
    ) -> Result<u64, Error> {
        let known = self.table(table)?;
        refuse_locked(&known)?;
        match write {
            Write::Insert(plan) if known.schema.has_sequence() => {
                self.replace(known, &plan, lock_timeout, state).await
            }
            Write::Insert(plan) => self.append(known, &plan, lock_timeout, state).await,
            Write::Delete(predicate) => {
                let _one = self.writer(&known, lock_timeout).await?;
                self.delete(self.same(&known)?, predicate, state).await
            }
        }
    }

    /// A table as it is now: the version must be the one that its only writer will move.
    fn same(&self, known: &Table) -> Result<Arc<Table>, Error> {
        let metastore = self.inner.frontend.metastore();
        let now = metastore
            .table(known.database.as_str(), known.name.as_str())
            .filter(|t| t.id == known.id)
            .cloned();
        let now = now.ok_or_else(|| fe::unknown_table(&known.database, &known.name))?;
        refuse_locked(&now)?;
        Ok(now)
    }

    /// A plan's rows as one stream.
    async fn rows(
        &self,
        state: &SessionState,
        plan: &LogicalPlan,
    ) -> Result<SendableRecordBatchStream, Error> {
        let physical = state
            .create_physical_plan(plan)
            .await
            .map_err(query_error)?;
        debug_assert!(physical.output_partitioning().partition_count() > 0);
        execute_stream(physical, task_context(state)).map_err(query_error)
    }

    /// The place of the one who may change a table; 55P03 if it is not to be had in time.
    async fn writer(
        &self,
        table: &Table,
        timeout: Option<Duration>,
    ) -> Result<tokio::sync::OwnedMutexGuard<()>, Error> {
        let lock = self
            .inner
            .writers
            .lock()
            .entry(table.id)
            .or_default()
            .clone();
        let late = async {
            match timeout {
                Some(timeout) => self.inner.env.clock.sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            place = lock.lock_owned() => Ok(place),
            () = late => Err(Error::new(ErrorKind::LockNotAvailable, "canceling statement due to lock timeout")
                .detail(format!("Another statement writes table \"{}\".", table.name))),
        }
    }

    /// Rows that stand beside those that are there can be written before the table is locked:
    /// whoever sends them slowly, or says nothing, keeps nobody else from it.
    async fn append(
        &self,
        table: Arc<Table>,
        plan: &LogicalPlan,
        lock_timeout: Option<Duration>,
        state: &SessionState,
    ) -> Result<u64, Error> {
        let stream = self.rows(state, plan).await?;
        let written = ingest::write_rows(
            &table,
            &self.inner.backends,
            &self.inner.env,
            Sequence::Assign,
            stream,
        )
        .await?;
        if written.rows == 0 {
            return Ok(0);
        }
        let _one = self.writer(&table, lock_timeout).await?;
        let rows = written.rows;
        self.commit(&table, written.partitions, written.files, Vec::new())
            .await?;
        Ok(rows)
    }

    /// Rows that take the place of others with equal keys: which are the last goes by the order in
    /// which the statements have their turn.
    async fn replace(
        &self,
        known: Arc<Table>,
        plan: &LogicalPlan,
        lock_timeout: Option<Duration>,
        state: &SessionState,
    ) -> Result<u64, Error> {
        // The order within the statement counts, too, so the plan must not be cut into parts that
        // race.
        let mut state = state.clone();
        state.config_mut().options_mut().execution.target_partitions = 1;
        let waiting = set_aside(self.rows(&state, plan).await?, &state)
            .await
            .map_err(query_error)?;
        let _one = self.writer(&known, lock_timeout).await?;
        let table = self.same(&known)?;
        let Written {
            rows,
            files,
            partitions,
        } = ingest::write_rows(
            &table,
            &self.inner.backends,
            &self.inner.env,
            Sequence::Assign,
            waiting,
        )
        .await?;
        if rows > 0 {
            self.commit(&table, partitions, files, Vec::new()).await?;
        }
        Ok(rows)
    }

    async fn delete(
        &self,
        table: Arc<Table>,
        predicate: Option<Expr>,
        state: &SessionState,
    ) -> Result<u64, Error> {
        let predicate = predicate.unwrap_or_else(|| lit(true));
        // The table is looked up under the guard, so its files cannot go before they are read.
        let (metastore, guard) = self.inner.frontend.read();
        let guard = Arc::new(guard);
        let now = metastore
            .table(table.database.as_str(), table.name.as_str())
            .filter(|t| t.id == table.id)
            .cloned();
        let table = now.ok_or_else(|| fe::unknown_table(&table.database, &table.name))?;
        let (mut deleted, mut partitions, mut removed) = (0, Vec::new(), Vec::new());
        let mut added = NewFiles::none(&self.inner.backends);
        // What is asked anew for each row cannot be counted by asking once more.
        let is_volatile = predicate.is_volatile();
        for partition in ingest::filled(&table) {
            let rows = scan::rewrite_plan(&table, partition, &self.inner.backends, &guard)
                .map_err(query_error)?;
            let counted = LogicalPlanBuilder::from(rows.clone());
            let counted = if is_volatile {
                Ok(counted)
            } else {
                counted.filter(predicate.clone())
            };
            let doomed = counted
                .and_then(|b| b.aggregate(Vec::<Expr>::new(), vec![count(lit(1))]))
                .and_then(LogicalPlanBuilder::build)
                .map_err(query_error)?;
            let counted: Vec<_> = self
                .rows(state, &doomed)
                .await?
                .try_collect()
                .await
                .map_err(query_error)?;
            let doomed: i64 = counted
                .iter()
                .map(|b| {
                    b.column(0)
                        .as_primitive::<Int64Type>()
                        .values()
                        .iter()
                        .sum::<i64>()
                })
                .sum();
            if doomed == 0 {
                continue;
            }
            let kept = LogicalPlanBuilder::from(rows)
                .filter(not(is_true(predicate.clone())))
                .and_then(LogicalPlanBuilder::build)
                .map_err(query_error)?;
            let stream = self.rows(state, &kept).await?;
            let written = ingest::write_rows(
                &table,
                &self.inner.backends,
                &self.inner.env,
                Sequence::Keep,
                stream,
            )
            .await?;
            let gone = if is_volatile {
                (doomed as u64).saturating_sub(written.rows)
            } else {
                doomed as u64
            };
            if gone == 0 {
                continue;
            }
            added.take_over(written.files);
            deleted += gone;
            partitions.push((partition.id, partition.version));
            for tablet in &partition.tablets {
                removed.extend(tablet.files.iter().map(|f| NewFile {
                    tablet: tablet.id,
                    file: f.clone(),
                }));
            }
        }
        if deleted > 0 {
            self.commit(&table, partitions, added, removed).await?;
            drop(guard);
            self.tidy_up().await;
        }
        Ok(deleted)
    }

    /// Makes a change visible, if the table is still the one it was made for.
    async fn commit(
        &self,
        table: &Arc<Table>,
        partitions: Vec<(PartitionId, i64)>,
        mut added: NewFiles,
        removed: Vec<NewFile>,
    ) -> Result<(), Error> {
        let (id, at) = (table.id, self.inner.env.now());
        let change = TableChange {
            partitions,
            added: added.list().to_vec(),
            removed,
        };
        let (database, name) = (table.database.clone(), table.name.clone());
        self.inner
            .frontend
            .change(move |t, metastore| {
                let now = metastore.table(database.as_str(), name.as_str()).filter(|t| t.id == id);
                let now = now.ok_or_else(|| fe::unknown_table(&database, &name))?;
                refuse_locked(now)?;
                // Rows that replace others were made for the version that was seen; plain new rows
                // fit any.
                let needs_version = now.schema.has_sequence() || !change.removed.is_empty();
                for (id, seen) in &change.partitions {
                    let known = now.partitions.iter().find(|p| p.id == *id);
                    if known.is_none_or(|p| needs_version && p.version != *seen) {
                        return Err(Error::new(
                            ErrorKind::WrongState,
                            format!("a partition of table \"{name}\" was changed by another statement while rows were written"),
                        )
                        .hint("Run the statement again. Nothing was written."));
                    }
                }
                fe::apply_change(t, &change, at)?;
                // From here on the metastore may have them: where COMMIT itself fails the next
                // start decides, and sweeps.
                added.keep();
                Ok(((), vec![id]))
            })
            .await
    }
}

/// Takes all rows of a stream, to be read again in their order.
async fn set_aside(
    mut rows: SendableRecordBatchStream,
    state: &SessionState,
) -> datafusion::error::Result<SendableRecordBatchStream> {
    let schema = rows.schema();
    let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
    let spill = SpillManager::new(state.runtime_env().clone(), metrics, schema.clone());
    let (mut waiting, mut bytes, mut file) = (Vec::new(), 0, None);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        bytes += get_record_batch_memory_size(&batch);
        waiting.push(batch);
        if bytes > WAITING_BYTES_MAX {
            let file = match &mut file {
                Some(file) => file,
                none => {
                    none.insert(spill.create_in_progress_file("rows that wait for their table")?)
                }
            };
            for batch in waiting.drain(..) {
                file.append_batch(&batch)?;
            }
            bytes = 0;
        }
    }
    let spilled = file.map(|mut file| file.finish()).transpose()?.flatten();
    let rest = futures::stream::iter(waiting.into_iter().map(Ok));
    Ok(match spilled {
        Some(file) => {
            let first = spill.read_spill_as_stream(file, None)?;
            Box::pin(RecordBatchStreamAdapter::new(schema, first.chain(rest)))
        }
        None => Box::pin(RecordBatchStreamAdapter::new(schema, rest)),
    })
}
