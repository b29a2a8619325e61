//! Users, roles and what they are granted.

use super::{Caller, unknown_table};
use crate::auth::{ROOT, password_verifier};
use crate::error::{Error, ErrorKind};
use crate::names::UserName;
use crate::privilege::{Grant, Grantee, Securable};
use crate::statement::{Qualified, UserCommand};
use crate::store::{GrantRecord, RoleRecord, UserRecord};

fn refuse_empty(password: &str) -> Result<(), Error> {
    if password.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidParameter,
            "the password is empty",
        ));
    }
    Ok(())
}

fn refuse_root(name: &UserName, what: &str) -> Result<(), Error> {
    if name.as_str() == ROOT {
        return Err(Error::new(
            ErrorKind::WrongState,
            format!("user \"{ROOT}\" cannot be {what}"),
        ));
    }
    Ok(())
}

impl Caller {
    async fn known_user(&self, name: &UserName) -> Result<UserRecord, Error> {
        let found = self.gateway.store.user(name).await?;
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::UndefinedObject,
                format!("user \"{name}\" does not exist"),
            )
        })
    }

    pub(super) async fn user_command(&mut self, command: &UserCommand) -> Result<String, Error> {
        self.require_admin().await?;
        let store = self.gateway.store.clone();
        let env = self.gateway.env.clone();
        let tag = match command {
            UserCommand::Create {
                name,
                password,
                if_not_exists,
            } => {
                if *if_not_exists && store.user(name).await?.is_some() {
                    self.notice(format!("user \"{name}\" already exists, skipping"));
                    return Ok("CREATE USER".into());
                }
                password.as_deref().map_or(Ok(()), refuse_empty)?;
                let verifier = password.as_deref().map(|p| password_verifier(p, &env));
                store
                    .add_user(&UserRecord {
                        name: name.clone(),
                        verifier,
                        admin: false,
                        created_at: env.now(),
                    })
                    .await?;
                "CREATE USER"
            }
            UserCommand::Alter { name, password } => {
                refuse_empty(password)?;
                store
                    .set_password(name, &password_verifier(password, &env))
                    .await?;
                "ALTER USER"
            }
            UserCommand::Drop { name, if_exists } => {
                refuse_root(name, "dropped")?;
                if *if_exists && store.user(name).await?.is_none() {
                    self.notice(format!("user \"{name}\" does not exist, skipping"));
                } else {
                    store.remove_user(name).await?;
                    // Or the next user of that name would act through the old one's connections.
                    self.gateway.end_sessions_of(name);
                }
                "DROP USER"
            }
            UserCommand::GrantAdmin(name) => {
                store.set_admin(name, true).await?;
                "GRANT"
            }
            UserCommand::CreateRole {
                names,
                if_not_exists,
            } => {
                for name in names {
                    match store
                        .add_role(&RoleRecord {
                            name: name.clone(),
                            created_at: env.now(),
                        })
                        .await
                    {
                        Err(e) if *if_not_exists && e.kind == ErrorKind::DuplicateObject => {
                            self.notice(format!("{}, skipping", e.message));
                        }
                        done => done?,
                    }
                }
                "CREATE ROLE"
            }
            UserCommand::DropRole { names, if_exists } => {
                for name in names {
                    match store.remove_role(name).await {
                        Err(e) if *if_exists && e.kind == ErrorKind::UndefinedObject => {
                            self.notice(format!("{}, skipping", e.message));
                        }
                        done => done?,
                    }
                }
                "DROP ROLE"
            }
            UserCommand::Grant(grants, grantee) => {
                self.cluster.refresh().await?;
                let _held = self.gateway.grants_change.lock().await;
                let records = self.granted_records(grants, grantee)?;
                store.add_grants(&records).await?;
                "GRANT"
            }
            UserCommand::Revoke(grants, grantee) => {
                // Names are spelled as the cluster does; one that does not answer keeps nobody from
                // taking rights away.
                if let Err(error) = self.cluster.refresh().await {
                    tracing::warn!(%error, "names may be old");
                }
                self.check_grantee(grantee).await?;
                let records = self.grant_records(grants, grantee)?;
                store.remove_grants(&records).await?;
                "REVOKE"
            }
            UserCommand::RevokeAdmin(name) => {
                refuse_root(name, "less than an administrator")?;
                store.set_admin(name, false).await?;
                "REVOKE"
            }
        };
        Ok(tag.into())
    }

    /// Grants whose objects must be there, with complete names.
    fn granted_records(
        &self,
        grants: &[Grant],
        grantee: &Grantee,
    ) -> Result<Vec<GrantRecord>, Error> {
        let records = self.grant_records(grants, grantee)?;
        let catalog = self.cluster.catalog();
        for record in &records {
            let (database, table) = match &record.grant {
                Grant::Privilege(
                    _,
                    Securable::Database(Some(name)) | Securable::AllTablesIn(name),
                ) => (name, None),
                Grant::Privilege(_, Securable::Table(Some(name), table)) => (name, Some(table)),
                _ => continue,
            };
            let Some(schema) = catalog.schema(database.as_str()) else {
                let message = format!("Unknown database '{database}'");
                return Err(
                    Error::new(ErrorKind::UndefinedSchema, message).hint("See SHOW DATABASES.")
                );
            };
            if let Some(table) = table.filter(|t| !schema.table_exist(t.as_str())) {
                return Err(unknown_table(database, table));
            }
        }
        Ok(records)
    }

    /// Grants with their names complete and as the cluster spells them.
    fn grant_records(
        &self,
        grants: &[Grant],
        grantee: &Grantee,
    ) -> Result<Vec<GrantRecord>, Error> {
        let complete = |grant: &Grant| {
            let grant = match grant {
                Grant::Privilege(privilege, Securable::Database(Some(name))) => {
                    Grant::Privilege(*privilege, Securable::Database(Some(self.spelled(name))))
                }
                Grant::Privilege(privilege, Securable::AllTablesIn(name)) => {
                    Grant::Privilege(*privilege, Securable::AllTablesIn(self.spelled(name)))
                }
                Grant::Privilege(privilege, Securable::Table(database, name)) => {
                    let table = self.spelled_table(&Qualified {
                        database: database.clone(),
                        name: name.clone(),
                    })?;
                    Grant::Privilege(*privilege, Securable::Table(table.database, table.name))
                }
                other => other.clone(),
            };
            let is_everywhere = matches!(
                grant,
                Grant::Role(_) | Grant::Privilege(_, Securable::System)
            );
            let cluster = (!is_everywhere).then(|| self.cluster.name().clone());
            Ok(GrantRecord {
                grantee: grantee.clone(),
                grant,
                cluster,
            })
        };
        grants.iter().map(complete).collect()
    }

    /// 42704 unless there is such a user or role.
    pub async fn check_grantee(&self, grantee: &Grantee) -> Result<(), Error> {
        match grantee {
            Grantee::User(name) => self.known_user(name).await.map(drop),
            Grantee::Role(name)
                if self
                    .gateway
                    .store
                    .roles()
                    .await?
                    .iter()
                    .any(|r| &r.name == name) =>
            {
                Ok(())
            }
            Grantee::Role(name) => Err(Error::new(
                ErrorKind::UndefinedObject,
                format!("role \"{name}\" does not exist"),
            )
            .hint("See SHOW ROLES.")),
        }
    }
}
