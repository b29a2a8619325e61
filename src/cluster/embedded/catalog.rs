//! The metastore as DataFusion sees it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::DataFusionError;

use super::be::Backends;
use super::metastore::{Database, Metastore, ReadGuard};
use super::scan;
use crate::cluster::ViewSource;

/// The metastore at one instant, whose files stay readable as long.
#[derive(Debug)]
pub(super) struct MetastoreCatalog {
    pub metastore: Arc<Metastore>,
    pub backends: Arc<Backends>,
    pub guard: Arc<ReadGuard>,
}

impl CatalogProvider for MetastoreCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.metastore.databases.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let database = self.metastore.database(name)?.clone();
        Some(Arc::new(DatabaseView {
            database,
            backends: self.backends.clone(),
            guard: self.guard.clone(),
        }))
    }
}

#[derive(Debug)]
struct DatabaseView {
    database: Arc<Database>,
    backends: Arc<Backends>,
    guard: Arc<ReadGuard>,
}

#[async_trait]
impl SchemaProvider for DatabaseView {
    fn table_names(&self) -> Vec<String> {
        self.database
            .tables
            .keys()
            .chain(self.database.views.keys())
            .cloned()
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match self.database.table(name) {
            Some(table) => scan::provider(table, &self.backends, &self.guard).map(Some),
            None => Ok(self.database.view(name).map(|view| {
                let source = ViewSource::new(self.database.name.clone(), view.definition.clone());
                Arc::new(source) as Arc<dyn TableProvider>
            })),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.database.table(name).is_some() || self.database.view(name).is_some()
    }
}
