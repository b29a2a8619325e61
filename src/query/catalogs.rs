//! PostgreSQL's catalogs as DataFusion's tables, for statements that name them beside other tables.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult};

use crate::catalog::Catalogs;

/// `pg_catalog` or `information_schema`.
#[derive(Debug)]
pub(super) struct CatalogSchema {
    pub catalogs: Catalogs,
    pub name: String,
}

#[async_trait]
impl SchemaProvider for CatalogSchema {
    fn table_names(&self) -> Vec<String> {
        self.catalogs.0.relation_names(&self.name)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|n| n == name)
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let batch = self
            .catalogs
            .0
            .batch(&self.name, name)
            .map_err(|e| DataFusionError::External(Box::new(e)))?;
        let Some(batch) = batch else { return Ok(None) };
        Ok(Some(Arc::new(MemTable::try_new(
            batch.schema(),
            vec![vec![batch]],
        )?)))
    }
}

/// A schema, and after it `pg_catalog`, as on PostgreSQL's search path.
#[derive(Debug)]
pub(super) struct WithCatalogs {
    pub schema: Arc<dyn SchemaProvider>,
    pub catalogs: CatalogSchema,
}

#[async_trait]
impl SchemaProvider for WithCatalogs {
    fn table_names(&self) -> Vec<String> {
        self.schema.table_names()
    }

    fn table_exist(&self, name: &str) -> bool {
        self.schema.table_exist(name)
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        match self.schema.table(name).await? {
            Some(table) => Ok(Some(table)),
            None => self.catalogs.table(name).await,
        }
    }
}
