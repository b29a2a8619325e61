//! Tables of a StarRocks cluster as DataFusion reads them: a query to the frontend whose rows
//! stream back.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{self, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::client::{Client, Connection};
use super::options::Address;
use super::print_plan::print_expr;
use super::print_statement::identifier;
use super::remote_table::StarRocksTable;
use super::types;
use crate::error::{Error, ErrorKind};
use crate::scan_at_once::scan_at_once;

const BATCH_ROWS: usize = 8192;
/// Batches between the frontend and whoever takes the rows.
const CHANNEL_BATCHES: usize = 2;

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl StarRocksTable {
    fn planned(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let mut columns = Vec::new();
        for field in schema.fields() {
            columns.push(identifier(field.name()).map_err(external)?);
        }
        if columns.is_empty() {
            columns.push("1".into());
        }
        let (database, name) = (
            identifier(&self.database).map_err(external)?,
            identifier(&self.name).map_err(external)?,
        );
        let mut sql = format!("SELECT {} FROM {database}.{name}", columns.join(", "));
        let whole = DFSchema::try_from(self.schema.as_ref().clone())?;
        let printed: Option<Vec<String>> =
            filters.iter().map(|f| print_filter(f, &whole)).collect();
        match printed {
            Some(printed) if !printed.is_empty() => {
                sql += &format!(" WHERE {}", printed.join(" AND "))
            }
            Some(_) => {}
            None => {
                return Err(DataFusionError::Internal(
                    "a filter was handed over that was not taken".into(),
                ));
            }
        }
        if let Some(limit) = limit {
            sql += &format!(" LIMIT {limit}");
        }
        Ok(Arc::new(StarRocksExec::new(
            self.client.clone(),
            sql,
            schema,
        )))
    }
}

impl TableProvider for StarRocksTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        self.kind
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let schema = DFSchema::try_from(self.schema.as_ref().clone())?;
        let support = |filter: &&Expr| match print_filter(filter, &schema) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    scan_at_once!();
}

/// A filter as the frontend reads it, if it means the same there.
fn print_filter(filter: &Expr, schema: &DFSchema) -> Option<String> {
    let plain = filter.clone().transform(|e| match e {
        Expr::Column(column) if column.relation.is_some() => {
            Ok(Transformed::yes(Expr::Column(Column {
                relation: None,
                ..column
            })))
        }
        other => Ok(Transformed::no(other)),
    });
    let columns: Option<Vec<String>> = schema
        .fields()
        .iter()
        .map(|f| identifier(f.name()).ok())
        .collect();
    print_expr(&plain.ok()?.data, schema, &columns?)
}

/// Part of a plan that the cluster computes as a whole.
#[derive(Debug)]
pub(super) struct StarRocksQuery {
    pub client: Arc<Client>,
    pub sql: String,
    /// What its columns are called in it.
    pub columns: Vec<String>,
    /// Whether the order of its rows means something.
    pub is_ordered: bool,
    pub schema: SchemaRef,
}

impl StarRocksQuery {
    fn planned(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let whole = |sql: String, schema| {
            Arc::new(StarRocksExec::new(self.client.clone(), sql, schema)) as Arc<dyn ExecutionPlan>
        };
        match projection {
            Some(columns) if columns.len() < self.schema.fields().len() => {
                // A query around it would be free to lose its order.
                if self.is_ordered || columns.is_empty() {
                    return project(whole(self.sql.clone(), self.schema.clone()), columns);
                }
                let names: Vec<_> = columns
                    .iter()
                    .map(|i| format!("p.{}", self.columns[*i]))
                    .collect();
                let sql = format!("SELECT {} FROM ({}) AS p", names.join(", "), self.sql);
                Ok(whole(sql, Arc::new(self.schema.project(columns)?)))
            }
            _ => Ok(whole(self.sql.clone(), self.schema.clone())),
        }
    }
}

impl TableProvider for StarRocksQuery {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    scan_at_once!();
}

/// Some of a plan's columns.
fn project(input: Arc<dyn ExecutionPlan>, columns: &[usize]) -> DfResult<Arc<dyn ExecutionPlan>> {
    use datafusion::physical_plan::projection::ProjectionExec;
    let schema = input.schema();
    let exprs = columns.iter().map(|i| {
        let name = schema.field(*i).name();
        (
            Arc::new(physical_expr::expressions::Column::new(name, *i)) as Arc<dyn PhysicalExpr>,
            name.clone(),
        )
    });
    Ok(Arc::new(ProjectionExec::try_new(
        exprs.collect::<Vec<_>>(),
        input,
    )?))
}

/// A query that runs on the cluster.
#[derive(Debug)]
struct StarRocksExec {
    client: Arc<Client>,
    sql: String,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl StarRocksExec {
    fn new(client: Arc<Client>, sql: String, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            client,
            sql,
            schema,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for StarRocksExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StarRocksExec: {}", self.sql)
    }
}

impl ExecutionPlan for StarRocksExec {
    fn name(&self) -> &str {
        "StarRocksExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let mut builder =
            RecordBatchReceiverStreamBuilder::new(self.schema.clone(), CHANNEL_BATCHES);
        let (client, sql, schema, rows) = (
            self.client.clone(),
            self.sql.clone(),
            self.schema.clone(),
            builder.tx(),
        );
        builder.spawn(async move {
            let connection = client.connection_for_query().await.map_err(external)?;
            let mut running = Running::new(client.clone(), connection);
            let address = running.address.clone();
            let asked = client.env().clock.sleep(client.options().statement_timeout);
            // Only the first answer has a limit: a long result may take as long as its reader
            // likes.
            let mut result = tokio::select! {
                result = running.conn()?.query_iter(&sql) => match result {
                    Ok(result) => result,
                    Err(e) => {
                        let error = failed(&client, &e, &address);
                        running.end_with(&e);
                        return Err(error);
                    }
                },
                () = asked => {
                    let seconds = client.options().statement_timeout.as_secs();
                    let error = Error::new(ErrorKind::Connection, format!("no answer from {address} within {seconds} s"));
                    return Err(external(error.hint("Raise the cluster's property \"statement_timeout_seconds\".")));
                }
            };
            let mut batch: Vec<Row> = Vec::with_capacity(BATCH_ROWS);
            loop {
                let row = match result.next().await {
                    Ok(row) => row,
                    Err(e) => {
                        let error = failed(&client, &e, &address);
                        drop(result);
                        running.end_with(&e);
                        return Err(error);
                    }
                };
                let is_end = row.is_none();
                batch.extend(row);
                if !batch.is_empty() && (is_end || batch.len() == BATCH_ROWS) {
                    let sent = rows.send(types::batch(&schema, &batch)).await;
                    batch.clear();
                    if sent.is_err() {
                        return Ok(());
                    }
                }
                if is_end {
                    break;
                }
            }
            drop(result);
            running.finish();
            Ok(())
        });
        Ok(builder.build())
    }
}

fn failed(client: &Client, error: &mysql_async::Error, address: &Address) -> DataFusionError {
    match error {
        mysql_async::Error::Server(error) => external(super::client::refusal(error, address)),
        other => {
            client.suspect(address);
            external(Error::new(
                ErrorKind::Connection,
                format!("the connection to {address} broke: {other}"),
            ))
        }
    }
}

/// A query on its way. Dropped before its end, it is stopped on the cluster, too.
struct Running {
    client: Arc<Client>,
    address: Address,
    connection: Option<Connection>,
    id: u32,
}

impl Running {
    fn new(client: Arc<Client>, connection: Connection) -> Self {
        Self {
            client,
            address: connection.address.clone(),
            id: connection.conn.id(),
            connection: Some(connection),
        }
    }

    fn conn(&mut self) -> DfResult<&mut Conn> {
        let gone = || DataFusionError::Internal("a query lost its connection".into());
        self.connection
            .as_mut()
            .map(|c| &mut c.conn)
            .ok_or_else(gone)
    }

    fn finish(mut self) {
        if let Some(connection) = self.connection.take() {
            self.client.give_back(connection);
        }
    }

    /// It has ended with an error: nothing is left to be stopped.
    fn end_with(mut self, error: &mysql_async::Error) {
        let connection = self.connection.take();
        if let (Some(connection), mysql_async::Error::Server(_)) = (connection, error) {
            self.client.give_back(connection);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.connection.take().is_none() {
            return;
        }
        let (client, address, id) = (self.client.clone(), self.address.clone(), self.id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { client.kill(&address, id).await });
        }
    }
}

/// The same schema with names that cannot meet each other.
pub(super) fn numbered(schema: &Schema) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, f)| f.as_ref().clone().with_name(format!("c{i}")));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
