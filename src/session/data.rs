//! Rows and definitions: INSERT, DELETE, DDL, and who may read what.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DmlStatement, Expr, LogicalPlan, WriteOp};

use super::{Outcome, Session};
use crate::cluster::Write;
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::names::{DatabaseName, TableName};
use crate::query::SYSTEM_SCHEMA;
use crate::statement::{Definition, Qualified, Show};

pub(super) fn no_database() -> Error {
    Error::new(ErrorKind::UndefinedSchema, "No database selected").hint("USE a database, or write database.table.")
}

/// The tables that a plan reads, subqueries included.
fn tables_of(plan: &LogicalPlan) -> Result<Vec<TableReference>, Error> {
    let mut tables = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            tables.push(scan.table_name.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    Ok(tables)
}

impl Session {
    /// The current database, or the one that is named, as the cluster spells it: every layer below compares names exactly.
    pub(super) fn database_or_current(&self, named: Option<&DatabaseName>) -> Result<DatabaseName, Error> {
        named.or(self.database.as_ref()).map(|name| self.spelled(name)).ok_or_else(no_database)
    }

    /// A database's name as the cluster spells it; one that does not exist as it was written.
    pub(super) fn spelled(&self, name: &DatabaseName) -> DatabaseName {
        let names = self.cluster.catalog().schema_names();
        if names.iter().any(|n| n == name.as_str()) {
            return name.clone();
        }
        let mut alike = names.iter().filter(|n| n.eq_ignore_ascii_case(name.as_str()));
        match (alike.next(), alike.next()) {
            (Some(only), None) => DatabaseName::new(only.as_str()).unwrap_or_else(|_| name.clone()),
            _ => name.clone(),
        }
    }

    fn table_of(&self, reference: &TableReference) -> Result<Qualified<TableName>, Error> {
        let named = reference.schema().map(DatabaseName::new).transpose()?;
        let database = Some(self.database_or_current(named.as_ref())?);
        Ok(Qualified { database, name: TableName::new(reference.table())? })
    }

    /// Users who are no administrators read the system tables and nothing else.
    pub(super) async fn check_readable(&self, plan: &LogicalPlan) -> Result<(), Error> {
        let tables = tables_of(plan)?;
        if tables.is_empty() || self.is_admin().await? {
            return Ok(());
        }
        let catalog = self.cluster.catalog();
        for table in tables {
            let is_system = match (table.schema(), &self.database) {
                (Some(schema), _) => [SYSTEM_SCHEMA, "information_schema"].contains(&schema),
                // A bare name is a table of the current database, or else a function's rows or a WITH query's own.
                (None, Some(current)) => !catalog.schema(current.as_str()).is_some_and(|s| s.table_exist(table.table())),
                (None, None) => true,
            };
            if !is_system {
                return Err(Error::new(ErrorKind::InsufficientPrivilege, format!("permission denied for table {}", table.table()))
                    .hint(format!("An administrator can GRANT ADMIN TO {}.", self.client.user)));
            }
        }
        Ok(())
    }

    pub(super) async fn write(&mut self, state: &SessionState, dml: DmlStatement, has_predicate: bool) -> Result<Outcome, Error> {
        let table = self.table_of(&dml.table_name)?;
        if table.database.as_ref().is_some_and(|d| d.as_str() == SYSTEM_SCHEMA) {
            return Err(Error::new(
                ErrorKind::InsufficientPrivilege,
                format!("system.{} is written by Starkeep alone", table.name),
            ));
        }
        match &dml.op {
            WriteOp::Insert(_) => {
                let rows = self.offload_write(table, Write::Insert((*dml.input).clone()), state).await?;
                Ok(Outcome::Done(format!("INSERT 0 {rows}")))
            }
            WriteOp::Delete => {
                let predicate = if has_predicate { Some(deletion_predicate(&dml.input)?) } else { None };
                let rows = self.offload_write(table, Write::Delete(predicate), state).await?;
                Ok(Outcome::Done(format!("DELETE {rows}")))
            }
            other => Err(Error::unsupported(other.name())),
        }
    }

    /// Runs a write where queries run, so that its work holds up no connection.
    pub(super) async fn offload_write(
        &self,
        table: Qualified<TableName>,
        write: Write,
        state: &SessionState,
    ) -> Result<u64, Error> {
        let (cluster, state) = (self.cluster.clone(), state.clone());
        self.gateway.engine.offload(async move { cluster.write(&table, write, &state).await }).await?
    }

    /// Fills in the current database and hands the definition to the cluster.
    pub(super) async fn define(&mut self, definition: &Definition) -> Result<Outcome, Error> {
        let mut definition = definition.clone();
        let tag = match &mut definition {
            Definition::CreateDatabase { .. } => "CREATE DATABASE",
            Definition::DropDatabase { .. } => "DROP DATABASE",
            Definition::CreateTable { table, .. } => self.complete(table, "CREATE TABLE")?,
            Definition::DropTable { table, .. } => self.complete(table, "DROP TABLE")?,
            Definition::TruncateTable { table, .. } => self.complete(table, "TRUNCATE TABLE")?,
            Definition::AddPartition { table, .. } | Definition::DropPartition { table, .. } => {
                self.complete(table, "ALTER TABLE")?
            }
            Definition::AddBroker { .. } | Definition::DropBroker { .. } => "ALTER SYSTEM",
        };
        for notice in self.cluster.define(&definition).await? {
            self.notice(notice);
        }
        if let Definition::DropDatabase { name, .. } = &definition
            && self.database.as_ref() == Some(name)
        {
            self.database = None;
        }
        Ok(Outcome::Done(tag.into()))
    }

    fn complete(&self, table: &mut Qualified<TableName>, tag: &'static str) -> Result<&'static str, Error> {
        table.database = Some(self.database_or_current(table.database.as_ref())?);
        Ok(tag)
    }

    /// A SHOW with its names as the cluster spells them: the queries behind it compare names exactly.
    pub(super) fn spelled_show(&self, show: &Show) -> Show {
        let database = |name: &Option<DatabaseName>| name.as_ref().map(|n| self.spelled(n));
        let table = |table: &Qualified<TableName>| {
            let home = database(&table.database).or_else(|| self.database.clone());
            let names = home.and_then(|d| self.cluster.catalog().schema(d.as_str())).map(|s| s.table_names()).unwrap_or_default();
            let exact = names.iter().any(|n| n == table.name.as_str());
            let mut alike = names.iter().filter(|n| n.eq_ignore_ascii_case(table.name.as_str()));
            let spelled = match (exact, alike.next(), alike.next()) {
                (false, Some(only), None) => TableName::new(only.as_str()).ok(),
                _ => None,
            };
            Qualified { database: database(&table.database), name: spelled.unwrap_or_else(|| table.name.clone()) }
        };
        match show {
            Show::Tables(name) => Show::Tables(database(name)),
            Show::Jobs { kind, all, database: name } => Show::Jobs { kind: *kind, all: *all, database: database(name) },
            Show::CreateTable(t) => Show::CreateTable(table(t)),
            Show::Columns(t) => Show::Columns(table(t)),
            Show::Partitions(t) => Show::Partitions(table(t)),
            Show::Tablets(t) => Show::Tablets(table(t)),
            other => other.clone(),
        }
    }

    /// What a SHOW names must exist: an empty answer would hide a typing error.
    pub(super) async fn check_show(&self, show: &Show) -> Result<(), Error> {
        let catalog = self.cluster.catalog();
        let database = |name: &DatabaseName| {
            let known = catalog.schema(name.as_str());
            known.ok_or_else(|| {
                Error::new(ErrorKind::UndefinedSchema, format!("Unknown database '{name}'")).hint("See SHOW DATABASES.")
            })
        };
        match show {
            Show::Tables(named) => database(&self.database_or_current(named.as_ref())?).map(drop),
            Show::Jobs { database: Some(name), .. } => database(name).map(drop),
            Show::CreateTable(table) | Show::Columns(table) | Show::Partitions(table) | Show::Tablets(table) => {
                let name = self.database_or_current(table.database.as_ref())?;
                if database(&name)?.table_exist(table.name.as_str()) {
                    return Ok(());
                }
                Err(Error::new(ErrorKind::UndefinedTable, format!("Unknown table '{name}.{}'", table.name))
                    .hint("See SHOW TABLES."))
            }
            Show::Snapshots { repository, .. } => self.gateway.store.repository(repository).await.map(drop),
            _ => Ok(()),
        }
    }
}

/// The predicate of a planned `DELETE FROM t WHERE …`, its columns named without the table, which may be spelled in several
/// ways. The caller has seen from the
/// statement that there is one, and that it is about one table.
fn deletion_predicate(input: &Arc<LogicalPlan>) -> Result<Expr, Error> {
    let LogicalPlan::Filter(filter) = &**input else {
        return Err(Error::internal("a planned DELETE lost its predicate"));
    };
    let renamed = filter.predicate.clone().transform(|expr| match expr {
        Expr::Column(column) if column.relation.is_some() => {
            Ok(Transformed::yes(Expr::Column(Column { relation: None, ..column })))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(renamed.map_err(from_datafusion)?.data)
}
