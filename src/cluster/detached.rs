//! A cluster that is none: a name under which repositories stand whose own cluster is gone.

use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, TableProvider};

use super::{Cluster, ClusterKind, ClusterRole};
use crate::names::{ClusterName, TableName};
use crate::statement::Qualified;

/// Holds repositories, and nothing else.
#[derive(Debug)]
pub struct DetachedCluster(ClusterName);

impl DetachedCluster {
    /// A holder of this name.
    pub fn new(name: ClusterName) -> Self {
        Self(name)
    }
}

impl Cluster for DetachedCluster {
    fn name(&self) -> &ClusterName {
        &self.0
    }

    fn kind(&self) -> ClusterKind {
        ClusterKind::None
    }

    fn role(&self) -> ClusterRole<'_> {
        ClusterRole::RepositoryOnly
    }

    fn catalog(&self) -> Arc<dyn CatalogProvider> {
        Arc::new(MemoryCatalogProvider::new())
    }

    fn table_of(&self, _: &dyn TableProvider) -> Option<Qualified<TableName>> {
        None
    }
}
