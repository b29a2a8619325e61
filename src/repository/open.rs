//! Repositories by their locations.

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::location::{Connected, Location};
use super::{ManifestIndex, Repository, StarRocksRepository};
use crate::error::Error;
use crate::names::RepositoryName;

/// Locations whose clients are kept, with their connections and tokens.
const STORES_KEPT: NonZeroUsize = NonZeroUsize::new(64).expect("not 0");

/// Opens repositories; tests open theirs over stores that fail on purpose.
pub trait OpenRepository: Debug + Send + Sync {
    /// Opens without touching the location.
    fn open(&self, name: &RepositoryName, location: &Location) -> Result<Arc<Repository>, Error>;

    /// The same of one that a StarRocks cluster writes.
    fn open_starrocks(
        &self,
        name: &RepositoryName,
        location: &Location,
    ) -> Result<StarRocksRepository, Error> {
        StarRocksRepository::new(name.clone(), location)
    }
}

/// Opens real locations. A store is built once for each: its connections and tokens serve whoever
/// comes next.
#[derive(Debug)]
pub struct Locations {
    manifests: Arc<ManifestIndex>,
    stores: Mutex<LruCache<Location, Connected>>,
}

impl Default for Locations {
    fn default() -> Self {
        Self {
            manifests: Arc::default(),
            stores: Mutex::new(LruCache::new(STORES_KEPT)),
        }
    }
}

impl Locations {
    fn connect(&self, location: &Location) -> Result<Connected, Error> {
        // A directory costs nothing, and a file of keys may have new ones.
        if location.is_local() || location.names_a_file() {
            return location.connect();
        }
        if let Some(known) = self.stores.lock().get(location) {
            return Ok(known.clone());
        }
        let connected = location.connect()?;
        self.stores.lock().put(location.clone(), connected.clone());
        Ok(connected)
    }
}

impl OpenRepository for Locations {
    fn open(&self, name: &RepositoryName, location: &Location) -> Result<Arc<Repository>, Error> {
        let (store, prefix, local) = self.connect(location)?;
        let mut repository = Repository::new(name.clone(), store, &prefix, local);
        repository.puts_on_condition = location.puts_on_condition();
        repository.key = location.encryption_key()?;
        Ok(Arc::new(
            repository.indexed(location, self.manifests.clone()),
        ))
    }
}
