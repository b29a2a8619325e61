//! SHOW: checked, planned from its file, filtered by what the statement says.

use std::sync::Arc;

use datafusion::common::ParamValues;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast as sql;

use super::{Outcome, Rows, Session, plan_sql};
use crate::admission::unknown_table;
use crate::cluster::ClusterRole;
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::names::{DatabaseName, TableName};
use crate::privilege::{Grantee, Privilege, Securable};
use crate::query::{CachedPlan, filtered, show_parameters, show_query};
use crate::schema::Partitioning;
use crate::statement::{Qualified, Show, ShowStatement};

impl Session {
    pub(super) async fn show(
        &mut self,
        statement: &ShowStatement,
        cached: Option<&(Show, CachedPlan)>,
    ) -> Result<Outcome, Error> {
        self.check_show(&statement.show).await?;
        let as_of = self.as_of();
        let state = self.caller.gateway.engine.state(&as_of, &self.facts())?;
        let cached = match cached {
            // The cluster may spell a name in another way by now.
            Some((spelled, plan)) if *spelled == self.spelled_show(&statement.show) => {
                plan.against(&state).await?
            }
            _ => None,
        };
        let plan = match cached {
            Some(plan) => plan,
            None => self.plan_show(&state, statement).await?.0,
        };
        let schema = plan.schema().inner().clone();
        let stream = self.caller.gateway.engine.run(&state, &plan).await?;
        Ok(Outcome::Rows(Rows {
            schema,
            stream,
            verb: "SHOW",
            binary: false,
            _as_of: as_of,
        }))
    }

    /// The plan of a SHOW, and the query of its file.
    pub(super) async fn plan_show(
        &mut self,
        state: &Arc<SessionState>,
        statement: &ShowStatement,
    ) -> Result<(LogicalPlan, &'static sql::Statement), Error> {
        let show = &self.spelled_show(&statement.show);
        let ast = show_query(show, self.shows_lists(show).await?);
        let mut plan = plan_sql(&self.caller.gateway.engine, state, ast).await?;
        let values = show_parameters(
            show,
            self.caller.database.as_ref(),
            self.client.user.as_str(),
        );
        if !values.is_empty() {
            plan = plan
                .with_param_values(ParamValues::from(values))
                .map_err(from_datafusion)?;
        }
        Ok((filtered(state, plan, show, &statement.filter)?, ast))
    }

    /// Whether this is SHOW PARTITIONS of a table that is partitioned by lists.
    async fn shows_lists(&self, show: &Show) -> Result<bool, Error> {
        let Show::Partitions {
            table: Qualified { database, name },
            ..
        } = show
        else {
            return Ok(false);
        };
        let ClusterRole::Managed(managed) = self.caller.cluster.role() else {
            return Ok(false);
        };
        let databases = managed.databases().await?;
        let database = database.as_ref().or(self.caller.database.as_ref());
        let found = databases.iter().find(|d| Some(&d.name) == database);
        let table = found.and_then(|d| d.tables.iter().find(|t| &t.name == name));
        Ok(table.is_some_and(|t| matches!(t.schema.partitioning, Partitioning::List { .. })))
    }

    /// A SHOW with its names as the cluster spells them: the queries that answer it compare names
    /// exactly.
    pub(super) fn spelled_show(&self, show: &Show) -> Show {
        let database = |name: &Option<DatabaseName>| name.as_ref().map(|n| self.caller.spelled(n));
        let table = |table: &Qualified<TableName>| {
            self.caller
                .spelled_table(table)
                .unwrap_or_else(|_| table.clone())
        };
        match show {
            Show::Tables(name) => Show::Tables(database(name)),
            Show::Jobs {
                kind,
                all,
                database: name,
            } => Show::Jobs {
                kind: *kind,
                all: *all,
                database: database(name),
            },
            Show::CreateTable(t) => Show::CreateTable(table(t)),
            Show::CreateView(t) => Show::CreateView(table(t)),
            Show::Columns(t) => Show::Columns(table(t)),
            Show::Partitions {
                table: t,
                temporary,
            } => Show::Partitions {
                table: table(t),
                temporary: *temporary,
            },
            Show::Tablets {
                table: t,
                partitions,
            } => Show::Tablets {
                table: table(t),
                partitions: partitions.clone(),
            },
            other => other.clone(),
        }
    }

    /// What a SHOW names must exist, or an empty answer would hide a typing error; and the user may
    /// see it.
    pub(super) async fn check_show(&self, show: &Show) -> Result<(), Error> {
        let names_a_thing = matches!(
            show,
            Show::Tables(_)
                | Show::Jobs {
                    database: Some(_),
                    ..
                }
                | Show::CreateTable(_)
                | Show::CreateView(_)
                | Show::Columns(_)
                | Show::Partitions { .. }
                | Show::Tablets { .. }
        );
        // The history needs no cluster, if only the name is known.
        let is_known = match show {
            Show::Jobs {
                database: Some(name),
                ..
            } => self
                .caller
                .cluster
                .catalog()
                .schema(name.as_str())
                .is_some(),
            _ => false,
        };
        if names_a_thing
            && !is_known
            && let Err(stale) = self.caller.cluster.refresh().await
        {
            return if matches!(show, Show::Jobs { .. }) {
                self.caller
                    .require(Privilege::Repository, Securable::System)
                    .await
            } else {
                Err(stale)
            };
        }
        let catalog = self.caller.cluster.catalog();
        let database = |name: &DatabaseName| {
            let known = catalog.schema(name.as_str());
            known.ok_or_else(|| {
                Error::new(
                    ErrorKind::UndefinedSchema,
                    format!("Unknown database '{name}'"),
                )
                .hint("See SHOW DATABASES.")
            })
        };
        match show {
            Show::Tables(named) => {
                database(&self.caller.database_or_current(named.as_ref())?).map(drop)
            }
            Show::Jobs {
                database: named, ..
            } => {
                named
                    .as_ref()
                    .map_or(Ok(()), |name| database(name).map(drop))?;
                self.caller
                    .require(Privilege::Repository, Securable::System)
                    .await
            }
            Show::CreateTable(table)
            | Show::CreateView(table)
            | Show::Columns(table)
            | Show::Partitions { table, .. }
            | Show::Tablets { table, .. } => {
                let name = self.caller.database_or_current(table.database.as_ref())?;
                let Some(found) = database(&name)?
                    .table(table.name.as_str())
                    .await
                    .map_err(from_datafusion)?
                else {
                    return Err(unknown_table(&name, &table.name));
                };
                let is_view = found.table_type() == datafusion::datasource::TableType::View;
                match show {
                    Show::CreateTable(_) => Ok(()),
                    Show::CreateView(_) if is_view => Ok(()),
                    Show::CreateView(_) => Err(Error::new(
                        ErrorKind::WrongObjectType,
                        format!("'{name}.{}' is not VIEW", table.name),
                    )),
                    Show::Columns(_) if is_view => Err(Error::unsupported(format_args!(
                        "DESC of the view {}",
                        table.name
                    ))
                    .hint("SELECT * FROM it LIMIT 0, or see information_schema.columns.")),
                    _ if is_view => Err(Error::new(
                        ErrorKind::WrongObjectType,
                        format!("Table '{}' is not a OLAP table", table.name),
                    )),
                    _ => Ok(()),
                }
            }
            Show::Snapshots(repository) | Show::SnapshotDetails { repository, .. } => {
                if self.caller.cluster.external().is_none() {
                    self.caller.known_repository(repository).await?;
                }
                self.caller
                    .require(Privilege::Repository, Securable::System)
                    .await
            }
            Show::Grants(Some(grantee)) => {
                if *grantee != Grantee::User(self.client.user.clone()) {
                    self.caller.require_admin().await?;
                }
                self.caller.check_grantee(grantee).await
            }
            _ => Ok(()),
        }
    }
}
