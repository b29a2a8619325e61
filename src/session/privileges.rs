//! What the user may do: the grants that are the user's own or come through roles, and StarRocks' words for what is missing.

use super::Session;
use crate::error::{Error, ErrorKind};
use crate::names::{ClusterName, RoleName};
use crate::privilege::{Grant, Grantee, Privilege, Securable};
use crate::repository::Location;

/// Everything that a user holds. All roles are active.
#[derive(Debug)]
pub(super) struct Rights {
    admin: bool,
    roles: Vec<RoleName>,
    held: Vec<(Privilege, Securable)>,
    user: String,
}

impl Session {
    /// The rights of the session's user in the connected cluster, now.
    pub(super) async fn rights(&self) -> Result<Rights, Error> {
        let store = &self.gateway.store;
        let admin = store.user(&self.client.user).await?.is_some_and(|u| u.admin);
        let grants = if admin { Vec::new() } else { store.grants().await? };
        let here = |cluster: &Option<ClusterName>| cluster.as_ref().is_none_or(|c| c == self.cluster.name());
        let (mut roles, mut held) = (Vec::new(), Vec::new());
        let mut holders = vec![Grantee::User(self.client.user.clone())];
        while let Some(holder) = holders.pop() {
            for record in grants.iter().filter(|g| g.grantee == holder && here(&g.cluster)) {
                match &record.grant {
                    Grant::Privilege(privilege, on) => held.push((*privilege, on.clone())),
                    Grant::Role(role) if roles.contains(role) => {}
                    Grant::Role(role) => {
                        roles.push(role.clone());
                        holders.push(Grantee::Role(role.clone()));
                    }
                }
            }
        }
        Ok(Rights { admin, roles, held, user: self.client.user.to_string() })
    }

    /// Demands one privilege; 42501 in StarRocks' words.
    pub(super) async fn require(&self, privilege: Privilege, on: Securable) -> Result<(), Error> {
        self.rights().await?.require(privilege, &on)
    }

    /// REPOSITORY, to choose where a repository is; a directory is read and written with the server's own rights, so it takes an
    /// administrator.
    pub(super) async fn require_location(&self, location: &Location) -> Result<(), Error> {
        let rights = self.rights().await?;
        rights.require(Privilege::Repository, &Securable::System)?;
        if rights.admin {
            return Ok(());
        }
        if !location.is_local() && !location.names_a_file() {
            // What is no location at all is told first. This touches nothing.
            location.remote_store()?;
            // Without keys of its own it would be reached as the server's machine, which others may trust.
            if !location.brings_keys() {
                return Err(rights
                    .denied("ADMIN privilege(s)")
                    .detail("No keys are given, so the identity of the server's machine would be used.")
                    .hint("Give keys in PROPERTIES, or let an administrator create the repository."));
            }
            let allowed = &self.gateway.repository_hosts;
            if let Some(host) = location.hosts().into_iter().find(|host| !allowed.allow(host)) {
                return Err(rights
                    .denied("ADMIN privilege(s)")
                    .detail(format!("Repositories on \"{host}\" are for administrators to create."))
                    .hint("The setting repository_hosts lists the hosts that others may name."));
            }
            return Ok(());
        }
        Err(rights
            .denied("ADMIN privilege(s)")
            .detail("A directory or a file of the server's machine is named.")
            .hint("An administrator can create the repository. Object storage takes REPOSITORY alone."))
    }

    pub(super) async fn require_admin(&self) -> Result<(), Error> {
        let rights = self.rights().await?;
        if rights.admin {
            return Ok(());
        }
        Err(rights.denied("ADMIN privilege(s)").hint(format!("An administrator can GRANT ADMIN TO {}.", self.client.user)))
    }
}

impl Rights {
    /// Demands one privilege; the object's names are complete.
    pub(super) fn require(&self, privilege: Privilege, on: &Securable) -> Result<(), Error> {
        if self.admin || self.held.iter().any(|(held, granted)| *held == privilege && granted.covers(on)) {
            return Ok(());
        }
        let hint = format!("An administrator can GRANT {privilege} ON {on} TO {}.", self.user);
        Err(self.denied(&format!("{privilege} privilege(s) on {}", on.refused_name())).hint(hint))
    }

    fn denied(&self, what: &str) -> Error {
        let roles: Vec<_> = self.roles.iter().map(RoleName::as_str).collect();
        let current = if roles.is_empty() { "NONE".to_owned() } else { format!("[{}]", roles.join(", ")) };
        let message = format!(
            "Access denied; you need (at least one of) the {what} for this operation. Please ask the admin to grant permission(s) \
             or try activating existing roles using <set [default] role>. Current role(s): {current}. Inactivated role(s): NONE."
        );
        Error::new(ErrorKind::InsufficientPrivilege, message)
    }
}
