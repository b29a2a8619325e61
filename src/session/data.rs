//! INSERT and DELETE: who may, and where the rows go.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DmlStatement, Expr, LogicalPlan, WriteOp};

use super::{Outcome, Session};
use crate::cluster::Write;
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::names::{DatabaseName, TableName};
use crate::privilege::Privilege;
use crate::query::{SYSTEM_SCHEMA, subqueries_of};
use crate::statement::Qualified;

impl Session {
    fn table_of(&self, reference: &TableReference) -> Result<Qualified<TableName>, Error> {
        let named = reference.schema().map(DatabaseName::new).transpose()?;
        let database = Some(self.caller.database_or_current(named.as_ref())?);
        Ok(Qualified {
            database,
            name: TableName::new(reference.table())?,
        })
    }

    /// Whether the user may change the table as this statement does, and read what it reads for
    /// that.
    pub(super) async fn check_writable(&self, dml: &DmlStatement) -> Result<(), Error> {
        let privilege = match dml.op {
            WriteOp::Insert(_) => Privilege::Insert,
            _ => Privilege::Delete,
        };
        let table = self.table_of(&dml.table_name)?;
        if table
            .database
            .as_ref()
            .is_none_or(|d| d.as_str() != SYSTEM_SCHEMA)
        {
            self.caller.require_on(privilege, &table).await?;
        }
        match dml.op {
            // The rows that a DELETE looks at are the table's own; what its subqueries read is not.
            WriteOp::Delete => {
                for subquery in subqueries_of(&dml.input)? {
                    self.caller.check_readable(&subquery).await?;
                }
                Ok(())
            }
            _ => self.caller.check_readable(&dml.input).await,
        }
    }

    pub(super) async fn write(
        &mut self,
        state: &SessionState,
        dml: DmlStatement,
        has_predicate: bool,
    ) -> Result<Outcome, Error> {
        let table = self.table_of(&dml.table_name)?;
        if table
            .database
            .as_ref()
            .is_some_and(|d| d.as_str() == SYSTEM_SCHEMA)
        {
            return Err(Error::new(
                ErrorKind::InsufficientPrivilege,
                format!("system.{} is written by Starkeep alone", table.name),
            ));
        }
        match &dml.op {
            WriteOp::Insert(_) => {
                let rows = self
                    .offload_write(table, Write::Insert((*dml.input).clone()), state)
                    .await?;
                Ok(Outcome::Done(format!("INSERT 0 {rows}")))
            }
            WriteOp::Delete => {
                let predicate = if has_predicate {
                    Some(deletion_predicate(&dml.input)?)
                } else {
                    None
                };
                let rows = self
                    .offload_write(table, Write::Delete(predicate), state)
                    .await?;
                Ok(Outcome::Done(format!("DELETE {rows}")))
            }
            other => Err(Error::unsupported(other.name())),
        }
    }

    /// How long a statement waits for a table that another one writes.
    pub(super) fn lock_timeout(&self) -> Option<Duration> {
        self.variables.timeout("lock_timeout")
    }

    /// Runs a write where queries run, so that its work holds up no connection.
    pub(super) async fn offload_write(
        &self,
        table: Qualified<TableName>,
        write: Write,
        state: &SessionState,
    ) -> Result<u64, Error> {
        let (cluster, state, lock_timeout) = (
            self.caller.cluster.clone(),
            state.clone(),
            self.lock_timeout(),
        );
        self.caller
            .gateway
            .engine
            .offload(async move {
                cluster
                    .managed()?
                    .write(&table, write, lock_timeout, &state)
                    .await
            })
            .await?
    }
}

/// The predicate of a planned `DELETE FROM t WHERE …`, its columns named without the table, which
/// may be spelled in several ways. The caller has seen from the statement that there is one, and
/// that it is about one table.
fn deletion_predicate(input: &Arc<LogicalPlan>) -> Result<Expr, Error> {
    let LogicalPlan::Filter(filter) = &**input else {
        return Err(Error::internal("a planned DELETE lost its predicate"));
    };
    let renamed = filter.predicate.clone().transform(|expr| match expr {
        Expr::Column(column) if column.relation.is_some() => {
            Ok(Transformed::yes(Expr::Column(Column {
                relation: None,
                ..column
            })))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(renamed.map_err(from_datafusion)?.data)
}
