//! Prepared statements: those of the protocol and those of PREPARE are the same ones.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::sql::sqlparser::ast as sql;
use futures::StreamExt;

use super::{Outcome, Prepared, Route, Session};
use crate::catalog::declared_type;
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::statement::{Statement, folded};

/// Prepared statements that one session may hold.
const STATEMENTS_MAX: usize = 4096;

fn unknown(name: &str) -> Error {
    Error::new(
        ErrorKind::InvalidStatementName,
        format!("prepared statement \"{name}\" does not exist"),
    )
}

impl Session {
    pub fn statement(&self, name: &str) -> Result<Arc<Prepared>, Error> {
        self.prepared
            .get(name)
            .cloned()
            .ok_or_else(|| unknown(name))
    }

    /// Whether a named statement could be kept: 42P05 if there is one, 54000 if there are too many.
    pub fn check_statement_name(&self, name: &str) -> Result<(), Error> {
        if !name.is_empty() && self.prepared.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Error::new(ErrorKind::DuplicateStatementName, message));
        }
        if self.prepared.len() >= STATEMENTS_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("more than {STATEMENTS_MAX} prepared statements"),
            ));
        }
        Ok(())
    }

    /// Keeps a prepared statement; the one without a name takes the place of the last such.
    pub fn keep_statement(&mut self, name: String, prepared: Prepared) -> Arc<Prepared> {
        let prepared = Arc::new(prepared);
        self.prepared.insert(name, prepared.clone());
        prepared
    }

    /// Lets go of a prepared statement; one that is not there is no error.
    pub fn forget_statement(&mut self, name: &str) {
        self.prepared.remove(name);
    }

    pub(super) fn deallocate(&mut self, name: Option<&str>) -> Result<Outcome, Error> {
        match name {
            None => {
                self.prepared.clear();
                Ok(Outcome::Done("DEALLOCATE ALL".into()))
            }
            Some(name) => match self.prepared.remove(name) {
                Some(_) => Ok(Outcome::Done("DEALLOCATE".into())),
                None => Err(unknown(name)),
            },
        }
    }

    /// `PREPARE name [(types)] AS statement`
    pub(super) async fn prepare_by_name(
        &mut self,
        name: &sql::Ident,
        types: &[sql::DataType],
        statement: &sql::Statement,
    ) -> Result<Outcome, Error> {
        if !matches!(
            statement,
            sql::Statement::Query(_)
                | sql::Statement::Insert(_)
                | sql::Statement::Update(_)
                | sql::Statement::Delete(_)
        ) {
            return Err(Error::new(
                ErrorKind::Syntax,
                "PREPARE is for queries, INSERT, UPDATE and DELETE",
            ));
        }
        let name = folded(name);
        self.check_statement_name(&name)?;
        let mut declared = Vec::new();
        for ty in types {
            let known = declared_type(&self.caller.gateway.builtin, ty);
            declared.push(Some(known.ok_or_else(|| {
                Error::new(
                    ErrorKind::UndefinedObject,
                    format!("type \"{ty}\" does not exist"),
                )
            })?));
        }
        let text = statement.to_string();
        let mut prepared = Box::pin(self.prepare(
            Statement::Sql(Box::new(statement.clone())),
            &text,
            &declared,
        ))
        .await?;
        prepared.holds(self.memory_of_text(&text)?);
        self.keep_statement(name, prepared);
        Ok(Outcome::Done("PREPARE".into()))
    }

    /// `EXECUTE name [(values)]`
    pub(super) async fn execute_by_name(
        &mut self,
        name: &sql::ObjectName,
        values: &[sql::Expr],
    ) -> Result<Outcome, Error> {
        let (prepared, values) = self.bound(name, values).await?;
        // The protocol prepares any text: one EXECUTE after another might never come to an end.
        if matches!(prepared.route, Route::NamedExecute | Route::NamedPrepare) {
            return Err(Error::unsupported(format_args!(
                "EXECUTE of \"{name}\", which is an EXECUTE or PREPARE itself,"
            )));
        }
        Box::pin(self.carry_out(&prepared, values)).await
    }

    /// The statement that an EXECUTE means, and the values of its parameters.
    pub(super) async fn bound(
        &mut self,
        name: &sql::ObjectName,
        values: &[sql::Expr],
    ) -> Result<(Arc<Prepared>, Vec<ScalarValue>), Error> {
        let prepared = self.executed(name)?;
        let wanted = prepared.parameters.clone();
        if values.len() != wanted.len() {
            let message = format!("wrong number of parameters for prepared statement \"{name}\"");
            return Err(Error::new(ErrorKind::Syntax, message).detail(format!(
                "Expected {} parameters but got {}.",
                wanted.len(),
                values.len()
            )));
        }
        let values = self.constants(values, &wanted).await?;
        Ok((prepared, values))
    }

    /// The statement that an EXECUTE means.
    pub(super) fn executed(&self, name: &sql::ObjectName) -> Result<Arc<Prepared>, Error> {
        let name = name
            .0
            .first()
            .and_then(|p| p.as_ident())
            .map(folded)
            .unwrap_or_default();
        self.statement(&name)
    }

    /// The values of expressions that name nothing.
    async fn constants(
        &mut self,
        exprs: &[sql::Expr],
        types: &[DataType],
    ) -> Result<Vec<ScalarValue>, Error> {
        if exprs.is_empty() {
            return Ok(Vec::new());
        }
        let as_of = self.as_of();
        let state = self.caller.gateway.engine.state(&as_of, &self.facts())?;
        let schema = DFSchema::empty();
        let mut logical = Vec::new();
        for (i, expr) in exprs.iter().enumerate() {
            let expr = sql::ExprWithAlias {
                expr: expr.clone(),
                alias: None,
            };
            let expr = state
                .create_logical_expr_from_sql_expr(expr, &schema)
                .map_err(from_datafusion)?;
            logical.push(expr.alias(format!("p{i}")));
        }
        let plan = LogicalPlanBuilder::empty(true)
            .project(logical)
            .and_then(LogicalPlanBuilder::build)
            .map_err(from_datafusion)?;
        let mut rows = self.caller.gateway.engine.run(&state, &plan).await?;
        let batch = rows
            .next()
            .await
            .ok_or_else(|| Error::internal("constants are one row"))?
            .map_err(from_datafusion)?;
        let value = |(array, ty): (&datafusion::arrow::array::ArrayRef, &DataType)| {
            let value = ScalarValue::try_from_array(array, 0).map_err(from_datafusion)?;
            value.cast_to(ty).map_err(from_datafusion)
        };
        batch.columns().iter().zip(types).map(value).collect()
    }
}
