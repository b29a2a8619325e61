//! A cluster that is none: a name under which repositories stand whose own cluster is gone.

use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, TableProvider};

use super::{Cluster, ClusterKind, Labour};
use crate::names::{ClusterName, TableName};
use crate::statement::Qualified;

/// Holds repositories, and nothing else.
#[derive(Debug)]
pub struct RepositoryHolder(ClusterName);

impl RepositoryHolder {
    /// A holder of this name.
    pub fn new(name: ClusterName) -> Self {
        Self(name)
    }
}

impl Cluster for RepositoryHolder {
    fn name(&self) -> &ClusterName {
        &self.0
    }

    fn kind(&self) -> ClusterKind {
        ClusterKind::None
    }

    fn labour(&self) -> Labour<'_> {
        Labour::Nobody
    }

    fn catalog(&self) -> Arc<dyn CatalogProvider> {
        Arc::new(MemoryCatalogProvider::new())
    }

    fn table_of(&self, _: &dyn TableProvider) -> Option<Qualified<TableName>> {
        None
    }
}
