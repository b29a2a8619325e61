//! Rows and definitions: INSERT, DELETE, DDL, and who may read what.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DmlStatement, Expr, LogicalPlan, WriteOp};

use super::{Outcome, Session};
use crate::cluster::{Cluster, Write};
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::names::{DatabaseName, TableName};
use crate::privilege::{Privilege, Securable};
use crate::query::{SYSTEM_SCHEMA, SessionFacts};
use crate::schema::ViewDefinition;
use crate::statement::{Definition, Qualified, Statement, parse_one, qualify_tables};

pub(super) fn no_database() -> Error {
    Error::new(ErrorKind::UndefinedSchema, "No database selected").hint("USE a database, or write database.table.")
}

pub(super) fn unknown_table(database: &DatabaseName, name: &TableName) -> Error {
    Error::new(ErrorKind::UndefinedTable, format!("Unknown table '{database}.{name}'")).hint("See SHOW TABLES.")
}

/// The cluster's tables that a plan reads, views and subqueries included, by what is read and not by its name.
fn tables_of(cluster: &dyn Cluster, plan: &LogicalPlan) -> Result<BTreeSet<Qualified<TableName>>, Error> {
    let mut tables = own_tables_of(cluster, plan)?;
    for inner in subqueries_of(plan)? {
        tables.extend(tables_of(cluster, &inner)?);
    }
    Ok(tables)
}

/// The same without subqueries.
fn own_tables_of(cluster: &dyn Cluster, plan: &LogicalPlan) -> Result<BTreeSet<Qualified<TableName>>, Error> {
    let (mut tables, mut inlined) = (BTreeSet::new(), Vec::new());
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            tables.extend(cluster.table_of(&*provider));
            inlined.extend(provider.get_logical_plan().map(Cow::into_owned));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    for plan in inlined {
        tables.extend(tables_of(cluster, &plan)?);
    }
    Ok(tables)
}

/// The subqueries in a plan's expressions, outermost ones only.
fn subqueries_of(plan: &LogicalPlan) -> Result<Vec<LogicalPlan>, Error> {
    let mut found = Vec::new();
    plan.apply(|node| {
        node.apply_subqueries(|inner| {
            found.push(inner.clone());
            Ok(TreeNodeRecursion::Jump)
        })?;
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    Ok(found)
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

    /// A table or view by its name as the cluster spells it, its database filled in.
    pub(super) fn spelled_table(&self, table: &Qualified<TableName>) -> Result<Qualified<TableName>, Error> {
        let database = self.database_or_current(table.database.as_ref())?;
        let names = self.cluster.catalog().schema(database.as_str()).map(|s| s.table_names()).unwrap_or_default();
        let exact = names.iter().any(|n| n == table.name.as_str());
        let mut alike = names.iter().filter(|n| n.eq_ignore_ascii_case(table.name.as_str()));
        let name = match (exact, alike.next(), alike.next()) {
            (false, Some(only), None) => TableName::new(only.as_str())?,
            _ => table.name.clone(),
        };
        Ok(Qualified { database: Some(database), name })
    }

    /// Demands a privilege on a table or view.
    pub(super) async fn require_on(&self, privilege: Privilege, table: &Qualified<TableName>) -> Result<(), Error> {
        let Qualified { database, name } = self.spelled_table(table)?;
        self.require(privilege, Securable::Table(database, name)).await
    }

    /// Whether the user may read what a plan reads. Everyone reads the system tables; a view is read with the rights to what it
    /// stands on.
    pub(super) async fn check_readable(&self, plan: &LogicalPlan) -> Result<(), Error> {
        let tables = tables_of(&*self.cluster, plan)?;
        if tables.is_empty() {
            return Ok(());
        }
        let rights = self.rights().await?;
        for table in tables {
            rights.require(Privilege::Select, &Securable::Table(table.database, table.name))?;
        }
        Ok(())
    }

    /// Whether the user may change the table as this statement does, and read what it reads for that.
    pub(super) async fn check_writable(&self, dml: &DmlStatement) -> Result<(), Error> {
        let privilege = match dml.op {
            WriteOp::Insert(_) => Privilege::Insert,
            _ => Privilege::Delete,
        };
        let table = self.table_of(&dml.table_name)?;
        if table.database.as_ref().is_none_or(|d| d.as_str() != SYSTEM_SCHEMA) {
            self.require_on(privilege, &table).await?;
        }
        match dml.op {
            // The rows that a DELETE looks at are the table's own; what its subqueries read is not.
            WriteOp::Delete => {
                for subquery in subqueries_of(&dml.input)? {
                    self.check_readable(&subquery).await?;
                }
                Ok(())
            }
            _ => self.check_readable(&dml.input).await,
        }
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
        let (cluster, state, lock_timeout) = (self.cluster.clone(), state.clone(), self.lock_timeout());
        self.gateway.engine.offload(async move { cluster.managed()?.write(&table, write, lock_timeout, &state).await }).await?
    }

    /// Checks privileges, fills in the current database and hands the definition to the cluster.
    pub(super) async fn define(&mut self, definition: &Definition) -> Result<Outcome, Error> {
        let mut definition = definition.clone();
        let tag = match &mut definition {
            Definition::CreateDatabase { .. } => {
                self.require(Privilege::CreateDatabase, Securable::Catalog).await?;
                "CREATE DATABASE"
            }
            Definition::DropDatabase { name, .. } => {
                self.require(Privilege::Drop, Securable::Database(Some(name.clone()))).await?;
                "DROP DATABASE"
            }
            Definition::CreateTable { table, .. } => {
                let tag = self.complete(table, "CREATE TABLE")?;
                self.require(Privilege::CreateTable, Securable::Database(table.database.clone())).await?;
                tag
            }
            Definition::CreateView { view, definition, .. } => {
                let tag = self.complete(view, "CREATE VIEW")?;
                self.require(Privilege::CreateView, Securable::Database(view.database.clone())).await?;
                self.check_view(view, definition).await?;
                tag
            }
            Definition::DropTable { table, .. } => {
                let tag = self.complete(table, "DROP TABLE")?;
                self.require_on(Privilege::Drop, table).await?;
                tag
            }
            Definition::DropView { view, .. } => {
                let tag = self.complete(view, "DROP VIEW")?;
                self.require_on(Privilege::Drop, view).await?;
                tag
            }
            Definition::TruncateTable { table, .. } => {
                let tag = self.complete(table, "TRUNCATE TABLE")?;
                self.require_on(Privilege::Delete, table).await?;
                tag
            }
            Definition::AddPartition { table, .. } | Definition::DropPartition { table, .. } => {
                let tag = self.complete(table, "ALTER TABLE")?;
                self.require_on(Privilege::Alter, table).await?;
                tag
            }
            Definition::AddBroker { .. } | Definition::DropBroker { .. } => {
                self.require_admin().await?;
                "ALTER SYSTEM"
            }
        };
        // What was granted on an object goes with it, and a new one of its name begins with nothing, whatever happened in between.
        let (gateway, cluster) = (self.gateway.clone(), self.cluster.clone());
        let managed = cluster.managed()?;
        let on = managed.backends_for(&definition).await?;
        let held = gateway.grants_change.lock().await;
        if let Some((database, table)) = made(&definition)
            && !self.exists(database, table)
        {
            gateway.store.forget_object(self.cluster.name(), database, table).await?;
        }
        let notices = managed.define(&definition, on).await?;
        if let Some((database, table)) = dropped(&definition)
            && !self.exists(database, table)
        {
            gateway.store.forget_object(self.cluster.name(), database, table).await?;
        }
        drop(held);
        managed.tidy_up().await;
        for notice in notices {
            self.notice(notice);
        }
        if let Definition::DropDatabase { name, .. } = &definition
            && self.database.as_ref() == Some(name)
        {
            self.database = None;
        }
        Ok(Outcome::Done(tag.into()))
    }

    /// Whether the cluster has a database, or a table or view in it.
    fn exists(&self, database: &DatabaseName, table: Option<&TableName>) -> bool {
        let schema = self.cluster.catalog().schema(database.as_str());
        schema.is_some_and(|schema| table.is_none_or(|table| schema.table_exist(table.as_str())))
    }

    /// Plans a new view's query, which must read as it will later: in the view's own database.
    async fn check_view(&mut self, view: &Qualified<TableName>, definition: &mut ViewDefinition) -> Result<(), Error> {
        if let Some(current) = &self.database
            && view.database.as_ref() != Some(current)
        {
            definition.query = qualify_tables(&definition.query, current)?;
        }
        let Statement::Sql(ast) = parse_one(&definition.query)? else {
            return Err(Error::internal("a view's query is no query"));
        };
        let facts = SessionFacts { current_schema: view.database.as_ref().map(ToString::to_string), ..self.facts() };
        let sql_view = self.view();
        let state = self.gateway.engine.state(&sql_view, &facts)?;
        let plan = super::plan_sql(&self.gateway.engine, &state, &ast).await?;
        let columns = &definition.columns;
        let given = plan.schema().fields().len();
        if !columns.is_empty() && columns.len() != given {
            let message = format!("view \"{}\" names {} columns where its query gives {given}", view.name, columns.len());
            return Err(Error::new(ErrorKind::InvalidDefinition, message));
        }
        if let Some((i, twice)) = columns.iter().enumerate().find(|(i, c)| columns[..*i].iter().any(|other| other.name == c.name)) {
            let message = format!("column \"{}\" of view \"{}\" is named twice (number {})", twice.name, view.name, i + 1);
            return Err(Error::new(ErrorKind::DuplicateColumn, message));
        }
        self.check_readable(&plan).await
    }

    fn complete(&self, table: &mut Qualified<TableName>, tag: &'static str) -> Result<&'static str, Error> {
        table.database = Some(self.database_or_current(table.database.as_ref())?);
        Ok(tag)
    }
}

/// The database, or the table or view in it, that a definition makes.
fn made(definition: &Definition) -> Option<(&DatabaseName, Option<&TableName>)> {
    match definition {
        Definition::CreateDatabase { name, .. } => Some((name, None)),
        Definition::CreateTable { table: name, .. } | Definition::CreateView { view: name, .. } => {
            Some((name.database.as_ref()?, Some(&name.name)))
        }
        _ => None,
    }
}

/// The same of what a definition drops.
fn dropped(definition: &Definition) -> Option<(&DatabaseName, Option<&TableName>)> {
    match definition {
        Definition::DropDatabase { name, .. } => Some((name, None)),
        Definition::DropTable { table: name, .. } | Definition::DropView { view: name, .. } => {
            Some((name.database.as_ref()?, Some(&name.name)))
        }
        _ => None,
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
