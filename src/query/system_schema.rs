//! Schema `system`: its tables as DataFusion's, their rows gathered while a plan runs.

mod scan;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

pub(super) use self::scan::ordering;
use self::scan::{SystemExec, SystemScan};
use super::system::{ScanContext, ScanRequest, Sources, SystemTable};
use super::tables;
use crate::cluster::Cluster;
use crate::scan_at_once::scan_at_once;

/// The schema of one cluster's point of view, for one user.
#[derive(Debug)]
pub(super) struct SystemSchema {
    sources: Arc<Sources>,
    cluster: Arc<dyn Cluster>,
    viewer: String,
}

impl SystemSchema {
    pub fn new(sources: Arc<Sources>, cluster: Arc<dyn Cluster>, viewer: &str) -> Self {
        Self {
            sources,
            cluster,
            viewer: viewer.to_owned(),
        }
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        tables::all().iter().map(|t| t.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(tables::find(name).map(|table| {
            Arc::new(Provider {
                table,
                schema: table.schema(),
                sources: self.sources.clone(),
                cluster: self.cluster.clone(),
                viewer: self.viewer.clone(),
            }) as Arc<dyn TableProvider>
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        tables::find(name).is_some()
    }
}

#[derive(Debug)]
struct Provider {
    table: &'static dyn SystemTable,
    schema: SchemaRef,
    sources: Arc<Sources>,
    cluster: Arc<dyn Cluster>,
    viewer: String,
}

impl Provider {
    fn planned(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let names = self.schema.fields().iter().map(|f| f.name().clone());
        let columns = match projection {
            Some(projection) => projection
                .iter()
                .map(|i| self.schema.field(*i).name().clone())
                .collect(),
            None => names.collect(),
        };
        let context = ScanContext {
            sources: self.sources.clone(),
            cluster: self.cluster.clone(),
            viewer: self.viewer.clone(),
            request: ScanRequest::of(filters, columns),
        };
        let scan = SystemScan {
            table: self.table,
            context: Arc::new(context),
            projection: projection.cloned(),
            limit,
        };
        Ok(Arc::new(SystemExec::try_new(scan, None)?))
    }
}

impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    scan_at_once!();
}
