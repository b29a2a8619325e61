//! Definitions: databases, tables, views, partitions, brokers.

use super::Caller;
use crate::error::{Error, ErrorKind};
use crate::job::JobKind;
use crate::names::{DatabaseName, TableName};
use crate::privilege::{Privilege, Securable};
use crate::query::{SessionFacts, plan_sql};
use crate::schema::ViewDefinition;
use crate::statement::{Definition, Qualified, Statement, parse_one, qualify_tables};

impl Caller {
    /// Checks privileges, fills in the current database and hands the definition to the cluster.
    pub(super) async fn define(&mut self, definition: &Definition) -> Result<String, Error> {
        let mut definition = definition.clone();
        let tag = match &mut definition {
            Definition::CreateDatabase { .. } => {
                self.require(Privilege::CreateDatabase, Securable::Catalog)
                    .await?;
                "CREATE DATABASE"
            }
            Definition::DropDatabase { name, .. } => {
                self.require(Privilege::Drop, Securable::Database(Some(name.clone())))
                    .await?;
                self.refuse_while_restored(name).await?;
                "DROP DATABASE"
            }
            Definition::CreateTable { table, .. } => {
                let tag = self.complete(table, "CREATE TABLE")?;
                self.require(
                    Privilege::CreateTable,
                    Securable::Database(table.database.clone()),
                )
                .await?;
                tag
            }
            Definition::CreateView {
                view, definition, ..
            } => {
                let tag = self.complete(view, "CREATE VIEW")?;
                self.require(
                    Privilege::CreateView,
                    Securable::Database(view.database.clone()),
                )
                .await?;
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
        // What was granted on an object goes with it, and a new one of its name begins with
        // nothing, whatever happened in between.
        let (gateway, cluster) = (self.gateway.clone(), self.cluster.clone());
        let managed = cluster.managed()?;
        let on = managed.backends_for(&definition).await?;
        let held = gateway.grants_change.lock().await;
        if let Some((database, table)) = made(&definition)
            && !self.exists(database, table)
        {
            gateway
                .store
                .forget_object(self.cluster.name(), database, table)
                .await?;
        }
        let notices = managed.define(&definition, on).await?;
        if let Some((database, table)) = dropped(&definition)
            && !self.exists(database, table)
        {
            gateway
                .store
                .forget_object(self.cluster.name(), database, table)
                .await?;
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
        Ok(tag.into())
    }

    /// A restore that has not come to its tables yet would find no database, or make it again.
    async fn refuse_while_restored(&self, name: &DatabaseName) -> Result<(), Error> {
        for id in self
            .gateway
            .store
            .unsettled(self.cluster.name(), &self.spelled(name))
            .await?
        {
            if self.gateway.store.spec(id).await?.kind() == JobKind::Restore {
                return Err(Error::new(
                    ErrorKind::ObjectInUse,
                    format!("database \"{name}\" is being restored into"),
                )
                .hint("Wait until SHOW RESTORE shows the job FINISHED, or CANCEL RESTORE."));
            }
        }
        Ok(())
    }

    /// Whether the cluster has a database, or a table or view in it.
    pub(super) fn exists(&self, database: &DatabaseName, table: Option<&TableName>) -> bool {
        let schema = self.cluster.catalog().schema(database.as_str());
        schema.is_some_and(|schema| table.is_none_or(|table| schema.table_exist(table.as_str())))
    }

    /// Plans a new view's query, which must read as it will later: in the view's own database.
    async fn check_view(
        &mut self,
        view: &Qualified<TableName>,
        definition: &mut ViewDefinition,
    ) -> Result<(), Error> {
        if let Some(current) = &self.database
            && view.database.as_ref() != Some(current)
        {
            definition.query = qualify_tables(&definition.query, current)?;
        }
        let Statement::Sql(ast) = parse_one(&definition.query)? else {
            return Err(Error::internal("a view's query is no query"));
        };
        let facts = SessionFacts {
            current_schema: view.database.as_ref().map(ToString::to_string),
            ..self.facts()
        };
        let now = self.gateway.engine.as_of(&self.cluster, self.user.as_str());
        let state = self.gateway.engine.state(&now, &facts)?;
        let plan = plan_sql(&self.gateway.engine, &state, &ast).await?;
        let columns = &definition.columns;
        let given = plan.schema().fields().len();
        if !columns.is_empty() && columns.len() != given {
            let message = format!(
                "view \"{}\" names {} columns where its query gives {given}",
                view.name,
                columns.len()
            );
            return Err(Error::new(ErrorKind::InvalidDefinition, message));
        }
        if let Some((i, twice)) = columns
            .iter()
            .enumerate()
            .find(|(i, c)| columns[..*i].iter().any(|other| other.name == c.name))
        {
            let message = format!(
                "column \"{}\" of view \"{}\" is named twice (number {})",
                twice.name,
                view.name,
                i + 1
            );
            return Err(Error::new(ErrorKind::DuplicateColumn, message));
        }
        self.check_readable(&plan).await
    }

    fn complete(
        &self,
        table: &mut Qualified<TableName>,
        tag: &'static str,
    ) -> Result<&'static str, Error> {
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
