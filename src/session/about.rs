//! What is to be known about a statement before it runs: how logs may show it, whose names it may
//! need, what it is called.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast as sql;

use super::{Session, TransactionState};
use crate::error::{Error, ErrorKind};
use crate::query::{AsOf, PlanningContext};
use crate::statement::{SessionCommand, Statement};

impl Session {
    /// In a block that has failed nothing but its end is possible.
    pub(super) fn check_block(&self, statement: &Statement) -> Result<(), Error> {
        let ends = matches!(
            statement,
            Statement::Session(
                SessionCommand::Rollback { .. }
                    | SessionCommand::Commit { .. }
                    | SessionCommand::RollbackTo(_)
            ) | Statement::Empty
        );
        if self.block.state != TransactionState::Failed || ends {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InFailedTransaction,
            "current transaction is aborted, commands ignored until end of transaction block",
        ))
    }

    pub(super) fn planning_context(&self) -> PlanningContext {
        PlanningContext {
            database: self.caller.database.clone(),
            time_zone: self.variables.time_zone().to_owned(),
            cluster: self.caller.cluster.clone(),
            passes_through: self.passes_through(),
        }
    }

    /// The instant that a statement reads, with PostgreSQL's catalogs if it names them.
    pub(super) async fn as_of_for(&mut self, ast: &sql::Statement) -> Result<AsOf, Error> {
        let as_of = self.as_of();
        Ok(if self.names_a_catalog(ast) {
            as_of.with_catalogs(self.catalogs().await?)
        } else {
            as_of
        })
    }

    /// ALTER CLUSTER puts another one in the place of the session's; DROP CLUSTER leaves nothing to
    /// stand on.
    pub(super) fn follow_cluster(&mut self) -> Result<(), Error> {
        let Some(now) = self.caller.gateway.clusters.get(self.caller.cluster.name()) else {
            let message = format!(
                "cluster \"{}\" has been dropped",
                self.caller.cluster.name()
            );
            return Err(
                Error::new(ErrorKind::UndefinedDatabase, message).hint("Connect to another one.")
            );
        };
        if !Arc::ptr_eq(&now, &self.caller.cluster) {
            self.caller.cluster = now;
            self.block.as_of = None;
        }
        Ok(())
    }

    /// A statement as logs and tables may show it. What goes to a cluster as it is may hold
    /// anything.
    pub(super) fn shown_as<'t>(
        &self,
        statement: &Statement,
        text: &'t str,
    ) -> std::borrow::Cow<'t, str> {
        match statement {
            Statement::Sql(ast) if self.is_passthrough(ast) => "PASSED THROUGH".into(),
            // As it was written: no statement of this kind has a secret.
            Statement::Sql(_) => text.into(),
            statement => statement.redacted().into(),
        }
    }

    /// Whether a statement goes to the cluster as it was written: what is no question, where the
    /// session asks for that.
    pub(super) fn is_passthrough(&self, ast: &sql::Statement) -> bool {
        self.passes_through()
            && !matches!(
                ast,
                sql::Statement::Query(_) | sql::Statement::Explain { .. }
            )
    }

    /// Brings the cluster's names up to date if the statement may name any; answers why they may be
    /// old.
    pub(super) async fn refresh_for(&self, ast: &sql::Statement) -> Option<Error> {
        let has_current = self
            .caller
            .database
            .as_ref()
            .is_some_and(|d| d.as_str() != crate::query::SYSTEM_SCHEMA);
        let may_be_the_clusters = sql::visit_relations(ast, |name| {
            let parts: Vec<_> = name
                .0
                .iter()
                .filter_map(|p| p.as_ident())
                .map(|i| i.value.to_ascii_lowercase())
                .collect();
            let is_ours = match parts.as_slice() {
                [_] => !has_current,
                [schema, _] | [_, schema, _] => schema == crate::query::SYSTEM_SCHEMA,
                _ => false,
            };
            if is_ours {
                std::ops::ControlFlow::Continue(())
            } else {
                std::ops::ControlFlow::Break(())
            }
        });
        if may_be_the_clusters.is_continue() {
            return None;
        }
        self.caller.cluster.refresh().await.err()
    }
}

/// Whether a name is not known.
pub(super) fn is_unknown_name(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::UndefinedTable | ErrorKind::UndefinedSchema | ErrorKind::UndefinedColumn
    )
}

/// A name that is not found on a cluster that did not answer is the cluster's fault.
pub(super) fn prefer_stale_error(error: Error, stale: Option<Error>) -> Error {
    match stale {
        Some(stale) if is_unknown_name(&error) => stale,
        _ => error,
    }
}
