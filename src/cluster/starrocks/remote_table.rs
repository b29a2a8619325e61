//! Tables of a StarRocks cluster, as plans hold them; `scan.rs` reads them.

use std::any::Any;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{TableScan, TableType};

use super::client::Client;

/// A table or view of the cluster.
#[derive(Debug)]
pub(super) struct StarRocksTable {
    pub client: Arc<Client>,
    pub database: String,
    pub name: String,
    pub schema: SchemaRef,
    pub kind: TableType,
}

/// The database and name of the cluster's table that a scan reads, if it reads one and as a whole.
pub(super) fn table_of(scan: &TableScan) -> Option<(String, String)> {
    let provider = source_as_provider(&scan.source).ok()?;
    let table = (&*provider as &dyn Any).downcast_ref::<StarRocksTable>()?;
    let is_whole = scan.filters.is_empty() && scan.fetch.is_none() && scan.projection.is_none();
    is_whole.then(|| (table.database.clone(), table.name.clone()))
}
