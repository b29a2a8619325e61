//! Users and their passwords.

use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};

use super::data::unknown_table;
use super::{Outcome, Session};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::names::UserName;
use crate::privilege::{Grant, Grantee, Securable};
use crate::statement::{Qualified, UserCommand};
use crate::store::{GrantRecord, PasswordVerifier, RoleRecord, UserRecord};

/// The user that always exists and always is an administrator.
pub const ROOT: &str = "root";

/// Rounds of PBKDF2, as PostgreSQL's default.
const SCRAM_ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// What a password will be checked against, as RFC 5802 makes it.
pub fn password_verifier(password: &str, env: &Env) -> PasswordVerifier {
    let mut salt = vec![0; SALT_BYTES];
    env.ids.fill(&mut salt);
    let iterations = NonZeroU32::new(SCRAM_ITERATIONS).expect("not zero");
    let normal = stringprep::saslprep(password).unwrap_or(password.into());
    let mut salted = [0; KEY_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, normal.as_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&key, b"Client Key");
    PasswordVerifier {
        salt,
        iterations: SCRAM_ITERATIONS,
        stored_key: digest::digest(&digest::SHA256, client_key.as_ref()).as_ref().to_vec(),
        server_key: hmac::sign(&key, b"Server Key").as_ref().to_vec(),
    }
}

/// What users that do not exist are asked by: the same salt for a name at each try, as a user who is there has it, and one that
/// nobody can tell from a real one without the server's secret.
#[derive(Debug)]
pub struct MockSalts(hmac::Key);

impl MockSalts {
    /// Salts that follow from a secret, so that they outlive a restart.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A verifier that no password satisfies.
    pub fn verifier(&self, name: &str, env: &Env) -> PasswordVerifier {
        let salt = hmac::sign(&self.0, name.as_bytes());
        let mut keys = [0; 2 * KEY_BYTES];
        env.ids.fill(&mut keys);
        let (stored_key, server_key) = keys.split_at(KEY_BYTES);
        PasswordVerifier {
            salt: salt.as_ref()[..SALT_BYTES].to_vec(),
            iterations: SCRAM_ITERATIONS,
            stored_key: stored_key.to_vec(),
            server_key: server_key.to_vec(),
        }
    }
}

fn refuse_empty(password: &str) -> Result<(), Error> {
    if password.is_empty() {
        return Err(Error::new(ErrorKind::InvalidParameter, "the password is empty"));
    }
    Ok(())
}

fn refuse_root(name: &UserName, what: &str) -> Result<(), Error> {
    if name.as_str() == ROOT {
        return Err(Error::new(ErrorKind::WrongState, format!("user \"{ROOT}\" cannot be {what}")));
    }
    Ok(())
}

impl Session {
    async fn known_user(&self, name: &UserName) -> Result<UserRecord, Error> {
        let found = self.gateway.store.user(name).await?;
        found.ok_or_else(|| Error::new(ErrorKind::UndefinedObject, format!("user \"{name}\" does not exist")))
    }

    pub(super) async fn user_command(&mut self, command: &UserCommand) -> Result<Outcome, Error> {
        self.require_admin().await?;
        let store = self.gateway.store.clone();
        let env = self.gateway.env.clone();
        let tag = match command {
            UserCommand::Create { name, password, if_not_exists } => {
                if *if_not_exists && store.user(name).await?.is_some() {
                    self.notice(format!("user \"{name}\" already exists, skipping"));
                    return Ok(Outcome::Done("CREATE USER".into()));
                }
                password.as_deref().map_or(Ok(()), refuse_empty)?;
                let verifier = password.as_deref().map(|p| password_verifier(p, &env));
                store.add_user(&UserRecord { name: name.clone(), verifier, admin: false, created_at: env.now() }).await?;
                "CREATE USER"
            }
            UserCommand::Alter { name, password } => {
                refuse_empty(password)?;
                store.set_password(name, &password_verifier(password, &env)).await?;
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
            UserCommand::CreateRole { names, if_not_exists } => {
                for name in names {
                    match store.add_role(&RoleRecord { name: name.clone(), created_at: env.now() }).await {
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
                // Names are spelled as the cluster does; one that does not answer keeps nobody from taking rights away.
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
        Ok(Outcome::Done(tag.into()))
    }

    /// Grants whose objects must be there, with complete names.
    fn granted_records(&self, grants: &[Grant], grantee: &Grantee) -> Result<Vec<GrantRecord>, Error> {
        let records = self.grant_records(grants, grantee)?;
        let catalog = self.cluster.catalog();
        for record in &records {
            let (database, table) = match &record.grant {
                Grant::Privilege(_, Securable::Database(Some(name)) | Securable::AllTablesIn(name)) => (name, None),
                Grant::Privilege(_, Securable::Table(Some(name), table)) => (name, Some(table)),
                _ => continue,
            };
            let Some(schema) = catalog.schema(database.as_str()) else {
                let message = format!("Unknown database '{database}'");
                return Err(Error::new(ErrorKind::UndefinedSchema, message).hint("See SHOW DATABASES."));
            };
            if let Some(table) = table.filter(|t| !schema.table_exist(t.as_str())) {
                return Err(unknown_table(database, table));
            }
        }
        Ok(records)
    }

    /// Grants with their names complete and as the cluster spells them.
    fn grant_records(&self, grants: &[Grant], grantee: &Grantee) -> Result<Vec<GrantRecord>, Error> {
        let complete = |grant: &Grant| {
            let grant = match grant {
                Grant::Privilege(privilege, Securable::Database(Some(name))) => {
                    Grant::Privilege(*privilege, Securable::Database(Some(self.spelled(name))))
                }
                Grant::Privilege(privilege, Securable::AllTablesIn(name)) => {
                    Grant::Privilege(*privilege, Securable::AllTablesIn(self.spelled(name)))
                }
                Grant::Privilege(privilege, Securable::Table(database, name)) => {
                    let table = self.spelled_table(&Qualified { database: database.clone(), name: name.clone() })?;
                    Grant::Privilege(*privilege, Securable::Table(table.database, table.name))
                }
                other => other.clone(),
            };
            let is_everywhere = matches!(grant, Grant::Role(_) | Grant::Privilege(_, Securable::System));
            let cluster = (!is_everywhere).then(|| self.cluster.name().clone());
            Ok(GrantRecord { grantee: grantee.clone(), grant, cluster })
        };
        grants.iter().map(complete).collect()
    }

    /// 42704 unless there is such a user or role.
    pub(super) async fn check_grantee(&self, grantee: &Grantee) -> Result<(), Error> {
        match grantee {
            Grantee::User(name) => self.known_user(name).await.map(drop),
            Grantee::Role(name) if self.gateway.store.roles().await?.iter().any(|r| &r.name == name) => Ok(()),
            Grantee::Role(name) => {
                Err(Error::new(ErrorKind::UndefinedObject, format!("role \"{name}\" does not exist")).hint("See SHOW ROLES."))
            }
        }
    }
}
