//! COPY into a table: batches that arrive from the wire, or files that a URL names, become one
//! INSERT.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionContext, ident};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Outcome, Prepared, Rows, Session};
use crate::cluster::Write;
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::names::TableName;
use crate::privilege::Privilege;
use crate::repository::Location;
use crate::statement::{CopyFormat, CopyFrom, CopyTo, ForceQuote, Qualified};

/// Batches between the wire and the writer.
const CHANNEL_BATCHES: usize = 4;

/// A COPY that waits for rows.
pub struct CopyIn {
    /// The columns that are expected: text, or the column's own type for arrays and for the binary
    /// format.
    pub schema: SchemaRef,
    /// How the rows will be written.
    pub format: CopyFormat,
    sender: mpsc::Sender<Option<RecordBatch>>,
    writer: JoinHandle<Result<u64, Error>>,
}

impl CopyIn {
    /// Hands over rows. When the writer has failed, its error comes from [`Self::finish`].
    pub async fn send(&self, batch: RecordBatch) -> bool {
        self.sender.send(Some(batch)).await.is_ok()
    }

    /// The end of the rows: answers how many were written, all of them or none.
    pub async fn finish(self) -> Result<u64, Error> {
        let _ = self.sender.send(None).await;
        drop(self.sender);
        self.writer
            .await
            .map_err(|e| Error::internal(format!("COPY died: {e}")))?
    }

    /// The client gave up: nothing is written.
    pub async fn abandon(self) {
        // Without the end mark nothing is committed, so the writer may be ended wherever it waits,
        // a lock included.
        drop(self.sender);
        self.writer.abort();
        let _ = self.writer.await;
    }
}

/// Rows on their way out as data of COPY.
pub struct CopyOut {
    pub rows: Rows,
    /// How they are written.
    pub format: CopyFormat,
    /// The places of the columns that CSV puts into quotes.
    pub quoted: Vec<bool>,
}

/// The channel's end as a table that can be read once.
#[derive(Debug)]
struct Incoming {
    schema: SchemaRef,
    batches: Mutex<Option<mpsc::Receiver<Option<RecordBatch>>>>,
}

impl PartitionStream for Incoming {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.batches.lock().take();
        let stream = futures::stream::try_unfold(batches, |batches| async move {
            let Some(mut batches) = batches else {
                return Ok(None);
            };
            match batches.recv().await {
                Some(Some(batch)) => Ok(Some((batch, Some(batches)))),
                Some(None) => Ok(None),
                // No end mark: the client gave up or went away, so nothing may be written.
                None => Err(DataFusionError::External(Box::new(Error::new(
                    ErrorKind::Cancelled,
                    "COPY was given up",
                )))),
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

impl Session {
    /// Whether the user may COPY, and the table and its columns are there.
    pub(super) async fn check_copy(&self, copy: &CopyFrom) -> Result<(), Error> {
        if copy.location.is_some() {
            // Whoever names a file reads with the server's own rights.
            self.caller.require_admin().await?;
        }
        self.caller
            .require_on(Privilege::Insert, &copy.table)
            .await?;
        let database = self
            .caller
            .database_or_current(copy.table.database.as_ref())?;
        let table = Qualified {
            database: Some(database),
            name: copy.table.name.clone(),
        };
        chosen_columns(&self.target(&table).await?, &copy.columns, &table.name).map(drop)
    }

    pub(super) async fn copy_from(&mut self, copy: &CopyFrom) -> Result<Outcome, Error> {
        // Again: what was granted may have been revoked since the statement was prepared.
        self.check_copy(copy).await?;
        let database = self
            .caller
            .database_or_current(copy.table.database.as_ref())?;
        let table = Qualified {
            database: Some(database),
            name: copy.table.name.clone(),
        };
        let as_of = self.as_of();
        let state = self.caller.gateway.engine.state(&as_of, &self.facts())?;
        let target = self.target(&table).await?;
        let columns = chosen_columns(&target, &copy.columns, &table.name)?;
        match &copy.location {
            None => self.copy_from_stdin(copy, table, state, &target, columns),
            Some(url) => {
                let source = self.read_url(&state, url, &copy.format).await?;
                check_width(&source, &columns)?;
                let plan = fill(source, &target, &columns, &|column| {
                    self.default_of(&table, column)
                })?;
                let rows = self
                    .offload_write(table, Write::Insert(plan), &state)
                    .await?;
                Ok(Outcome::Done(format!("COPY {rows}")))
            }
        }
    }

    /// `COPY … TO STDOUT`: the rows of a query, written as data.
    pub(super) async fn copy_to(
        &mut self,
        copy: &CopyTo,
        query: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        let Outcome::Rows(rows) = Box::pin(self.carry_out(query, values)).await? else {
            return Err(Error::new(ErrorKind::Syntax, "COPY is for queries"));
        };
        let quoted = rows
            .schema
            .fields()
            .iter()
            .map(|field| match &copy.force_quote {
                ForceQuote::None => false,
                ForceQuote::All => true,
                ForceQuote::Columns(names) => names.contains(field.name()),
            });
        let quoted = quoted.collect();
        Ok(Outcome::CopyOut(CopyOut {
            rows,
            format: copy.format.clone(),
            quoted,
        }))
    }

    async fn target(&self, table: &Qualified<TableName>) -> Result<SchemaRef, Error> {
        let database = table
            .database
            .as_ref()
            .ok_or_else(crate::admission::no_database)?;
        let unknown = || {
            Error::new(
                ErrorKind::UndefinedTable,
                format!("relation \"{database}.{}\" does not exist", table.name),
            )
            .hint("See SHOW TABLES.")
        };
        let schema = self
            .caller
            .cluster
            .catalog()
            .schema(database.as_str())
            .ok_or_else(unknown)?;
        let provider = schema
            .table(table.name.as_str())
            .await
            .map_err(from_datafusion)?
            .ok_or_else(unknown)?;
        Ok(provider.schema())
    }

    /// The default of a column, as the table's provider has it.
    fn default_of(&self, table: &Qualified<TableName>, column: &str) -> Option<Expr> {
        let database = table.database.as_ref()?;
        let schema = self.caller.cluster.catalog().schema(database.as_str())?;
        let provider =
            futures::FutureExt::now_or_never(schema.table(table.name.as_str()))?.ok()??;
        provider.get_column_default(column).cloned()
    }

    fn copy_from_stdin(
        &mut self,
        copy: &CopyFrom,
        table: Qualified<TableName>,
        state: Arc<SessionState>,
        target: &SchemaRef,
        columns: Vec<usize>,
    ) -> Result<Outcome, Error> {
        let is_binary = copy.format == CopyFormat::Binary;
        let fields: Vec<Field> = columns
            .iter()
            .map(|i| {
                let field = target.field(*i);
                let keeps_type = is_binary || matches!(field.data_type(), DataType::List(_));
                Field::new(
                    field.name(),
                    if keeps_type {
                        field.data_type().clone()
                    } else {
                        DataType::Utf8
                    },
                    true,
                )
            })
            .collect();
        let schema: SchemaRef = Schema::new(fields).into();
        let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES);
        let incoming = Incoming {
            schema: schema.clone(),
            batches: Mutex::new(Some(receiver)),
        };
        let source = StreamingTable::try_new(schema.clone(), vec![Arc::new(incoming)])
            .map_err(from_datafusion)?;
        let scan = LogicalPlanBuilder::scan("incoming", provider_as_source(Arc::new(source)), None)
            .and_then(LogicalPlanBuilder::build)
            .map_err(from_datafusion)?;
        let plan = fill(scan, target, &columns, &|column| {
            self.default_of(&table, column)
        })?;
        let cluster = self.caller.cluster.clone();
        let lock_timeout = self.lock_timeout();
        let writer = self.caller.gateway.engine.spawn(async move {
            cluster
                .managed()?
                .write(&table, Write::Insert(plan), lock_timeout, &state)
                .await
        });
        Ok(Outcome::CopyIn(CopyIn {
            schema,
            format: copy.format.clone(),
            sender,
            writer,
        }))
    }

    /// Files that a URL or path names, as a plan. Only administrators come this far.
    async fn read_url(
        &self,
        state: &SessionState,
        url: &str,
        format: &CopyFormat,
    ) -> Result<LogicalPlan, Error> {
        let location = Location {
            url: url.to_owned(),
            properties: Default::default(),
        };
        if let Some((base, store)) = location.remote_store()? {
            state.runtime_env().register_object_store(&base, store);
        } else {
            let path = url.strip_prefix("file://").unwrap_or(url);
            std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
        }
        let context = SessionContext::new_with_state(state.clone());
        let frame = match format {
            CopyFormat::Parquet => {
                context
                    .read_parquet(url, ParquetReadOptions::default().file_extension(""))
                    .await
            }
            CopyFormat::Csv {
                delimiter,
                quote,
                escape,
                header,
                ..
            } => {
                let escape = (escape != quote).then_some(*escape);
                let mut options = CsvReadOptions::new()
                    .has_header(*header)
                    .delimiter(*delimiter)
                    .quote(*quote)
                    .file_extension("")
                    .schema_infer_max_records(0);
                options.escape = escape;
                context.read_csv(url, options).await
            }
            CopyFormat::Text { .. } | CopyFormat::Binary => {
                return Err(Error::unsupported("COPY FROM a URL in this format"));
            }
        };
        let frame = frame.map_err(|e| from_datafusion(e).detail(format!("reading {url}")))?;
        Ok(frame.into_unoptimized_plan())
    }
}

/// The places of the columns that COPY names, or of all.
fn chosen_columns(
    target: &SchemaRef,
    names: &[String],
    table: &TableName,
) -> Result<Vec<usize>, Error> {
    if names.is_empty() {
        return Ok((0..target.fields().len()).collect());
    }
    let mut chosen = Vec::new();
    for name in names {
        let i = target.index_of(name).map_err(|_| {
            Error::new(
                ErrorKind::UndefinedColumn,
                format!("column \"{name}\" of relation \"{table}\" does not exist"),
            )
        })?;
        if chosen.contains(&i) {
            return Err(Error::new(
                ErrorKind::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        chosen.push(i);
    }
    Ok(chosen)
}

/// A file must have at least as many columns as are expected.
fn check_width(source: &LogicalPlan, columns: &[usize]) -> Result<(), Error> {
    let width = source.schema().fields().len();
    if width < columns.len() {
        return Err(Error::new(
            ErrorKind::BadCopy,
            format!(
                "the file has {width} columns where {} are expected",
                columns.len()
            ),
        ));
    }
    Ok(())
}

/// The table's columns in order: given ones cast to their type, the others by their default or
/// NULL. Given columns are taken by name where every name is there, else by position.
fn fill(
    plan: LogicalPlan,
    target: &SchemaRef,
    columns: &[usize],
    default: &dyn Fn(&str) -> Option<Expr>,
) -> Result<LogicalPlan, Error> {
    let given: Vec<String> = plan
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    let named = columns
        .iter()
        .all(|i| given.contains(target.field(*i).name()));
    let expressions = target.fields().iter().enumerate().map(|(i, field)| {
        let value = match columns.iter().position(|c| *c == i) {
            Some(_) if named => ident(field.name()),
            Some(place) => ident(&given[place]),
            None => {
                default(field.name()).unwrap_or_else(|| lit(datafusion::common::ScalarValue::Null))
            }
        };
        cast(value, field.data_type().clone()).alias(field.name())
    });
    let expressions: Vec<Expr> = expressions.collect();
    LogicalPlanBuilder::from(plan)
        .project(expressions)
        .and_then(LogicalPlanBuilder::build)
        .map_err(from_datafusion)
}
