//! Lookups in system tables, in a session.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast as sql;

use super::{Outcome, Rows, Session};
use crate::catalog::{ORIGIN_KEY, relation_oid};
use crate::error::{Error, from_datafusion};
use crate::query::{Lookup, SYSTEM_SCHEMA};

impl Session {
    pub(super) fn lookup(&self, ast: &sql::Statement) -> Option<Arc<Lookup>> {
        let sql::Statement::Query(query) = ast else {
            return None;
        };
        let in_system = self
            .caller
            .database
            .as_ref()
            .is_none_or(|d| d.as_str() == SYSTEM_SCHEMA);
        Lookup::read(query, in_system).map(Arc::new)
    }

    /// Its columns, with the table that they come from.
    pub(super) fn looked_up_schema(&self, lookup: &Lookup) -> SchemaRef {
        let (table, places) = lookup.origins();
        let oid = relation_oid(self.caller.cluster.name().as_str(), SYSTEM_SCHEMA, table);
        let schema = lookup.schema();
        let fields = schema.fields().iter().zip(places).map(|(field, place)| {
            let origin = HashMap::from([(ORIGIN_KEY.to_owned(), format!("{oid}.{}", place + 1))]);
            Field::clone(field).with_metadata(origin)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    pub(super) async fn look_up(
        &self,
        lookup: &Lookup,
        schema: SchemaRef,
        values: &[ScalarValue],
    ) -> Result<Outcome, Error> {
        let sources = self.caller.gateway.engine.sources();
        let batch = lookup
            .rows(
                sources,
                &self.caller.cluster,
                self.client.user.as_str(),
                values,
            )
            .await?;
        let batch = RecordBatch::try_new(schema, batch.columns().to_vec())
            .map_err(|e| from_datafusion(e.into()))?;
        let as_of = self
            .caller
            .gateway
            .engine
            .as_of(&self.caller.cluster, self.client.user.as_str());
        Ok(Outcome::Rows(Rows::of(batch, "SELECT", as_of)))
    }
}
