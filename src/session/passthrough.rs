//! Statements that go to a StarRocks cluster as they are.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};

use super::{Outcome, Prepared, Rows, Session};
use crate::error::Error;
use crate::statement::Unread;

/// The setting that lets an administrator say anything to a StarRocks cluster.
const PASSTHROUGH: &str = "starkeep.passthrough";

impl Session {
    /// What to do with statements that nothing here reads.
    pub fn unread(&self) -> Unread {
        if self.passes_through() {
            Unread::Keep
        } else {
            Unread::Refuse
        }
    }

    /// Whether the session asks for statements to go to the cluster as they are.
    pub(super) fn passes_through(&self) -> bool {
        let on = self
            .variables
            .get(PASSTHROUGH)
            .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "on" | "true" | "1"));
        on && self.caller.cluster.external().is_some()
    }

    /// Hands a statement over as it was written, if that is allowed.
    pub(super) async fn pass_through(&mut self, prepared: &Prepared) -> Result<Outcome, Error> {
        let words: Vec<&str> = prepared.text.split_whitespace().take(2).collect();
        let what = words.join(" ").to_ascii_uppercase();
        if !self.passes_through() {
            return Err(Error::unsupported(format_args!("{what} on a StarRocks cluster"))
                .hint(format!("An administrator can SET {PASSTHROUGH} = on to hand statements to it as they are.")));
        }
        self.caller.require_admin().await?;
        if !prepared.parameters.is_empty() {
            return Err(Error::unsupported(
                "parameters in a statement that is handed over as it is",
            ));
        }
        let external = self
            .caller
            .cluster
            .external()
            .ok_or_else(|| Error::internal("the cluster does its work elsewhere"))?;
        let answer = external
            .ask(self.caller.database.as_ref(), &prepared.text)
            .await
            .map_err(|e| e.printed_as(&prepared.text))?;
        // It may have changed what there is.
        self.caller.cluster.forget_names();
        if answer.columns.is_empty() {
            let verb = words
                .first()
                .map_or(String::new(), |w| w.to_ascii_uppercase());
            return Ok(Outcome::Done(match verb.as_str() {
                "INSERT" => format!("INSERT 0 {}", answer.affected),
                "UPDATE" | "DELETE" => format!("{verb} {}", answer.affected),
                _ => what,
            }));
        }
        let fields = answer
            .columns
            .iter()
            .map(|name| Field::new(name, DataType::Utf8, true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let column = |i: usize| {
            let values = answer.rows.iter().map(|row| row.get(i).cloned().flatten());
            Arc::new(values.collect::<StringArray>()) as ArrayRef
        };
        let options = RecordBatchOptions::new().with_row_count(Some(answer.rows.len()));
        let batch = RecordBatch::try_new_with_options(
            schema,
            (0..answer.columns.len()).map(column).collect(),
            &options,
        )
        .map_err(|e| Error::internal(e.to_string()))?;
        let as_of = self.as_of();
        Ok(Outcome::Rows(Rows::of(batch, "SELECT", as_of)))
    }
}
