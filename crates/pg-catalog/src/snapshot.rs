//! The relations of one moment, made when they are first asked for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use starkeep_error::Error;

use super::directory::Directory;
use super::facts::ServerFacts;
use super::relations::BuiltinRelations;
use super::value::{Relation, ValueType};
use super::{information_schema, tables};

/// Relations that say what happens in this moment or in this session.
const MOMENTARY: &[&str] = &[
    "pg_cursors",
    "pg_prepared_statements",
    "pg_settings",
    "pg_stat_activity",
    "pg_stat_ssl",
    "pg_stat_gssapi",
    "pg_stat_database",
];

/// The [`ServerFacts`] of one moment, and the relations that were made of them so far.
#[derive(Debug)]
pub struct CatalogSnapshot {
    pub(super) directory: Directory,
    relations: Mutex<HashMap<(String, String), Arc<Relation>>>,
}

impl CatalogSnapshot {
    /// Facts that can be asked about.
    pub fn new(facts: ServerFacts, builtin: Arc<BuiltinRelations>) -> Self {
        Self {
            directory: Directory { facts, builtin },
            relations: Mutex::default(),
        }
    }

    /// A relation, made when it is first asked for; `None` if there is no such one.
    pub(super) fn relation(
        &self,
        schema: &str,
        name: &str,
    ) -> Result<Option<Arc<Relation>>, Error> {
        let key = (schema.to_owned(), name.to_owned());
        let kept = if MOMENTARY.contains(&name) {
            &self.relations
        } else {
            &self.directory.facts.objects.relations
        };
        if let Some(known) = kept.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let Some(definition) = self.directory.builtin.definition(schema, name) else {
            return Ok(None);
        };
        let rows = if schema == "information_schema" {
            information_schema::rows(&self.directory, definition)?
        } else {
            tables::rows(&self.directory, definition)?
        };
        let columns = definition
            .columns
            .iter()
            .map(|(n, ty)| ((*n).to_owned(), ValueType::of(ty.clone())))
            .collect();
        let relation = Arc::new(Relation { columns, rows });
        kept.lock().insert(key, relation.clone());
        Ok(Some(relation))
    }
}
