//! Who may do what: StarRocks' privileges (3.x and later) on its objects, granted to users and
//! roles.
//!
//! Nothing is allowed that was not granted. ADMIN stands above all of this and is kept with the
//! user.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::names::{DatabaseName, RoleName, TableName, UserName};

macro_rules! privileges {
    ($($(#[$doc:meta])* $name:ident => $words:literal,)*) => {
        /// Something that may be allowed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Privilege { $($(#[$doc])* $name,)* }

        impl Privilege {
            pub const ALL: &'static [Privilege] = &[$(Privilege::$name,)*];

            /// StarRocks' words for it.
            pub fn words(self) -> &'static str {
                match self { $(Privilege::$name => $words,)* }
            }
        }
    };
}

privileges! {
    /// Repositories, and with others BACKUP and RESTORE.
    Repository => "REPOSITORY",
    /// New databases.
    CreateDatabase => "CREATE DATABASE",
    /// New tables in a database.
    CreateTable => "CREATE TABLE",
    /// New views in a database.
    CreateView => "CREATE VIEW",
    /// Changes of a definition.
    Alter => "ALTER",
    /// Taking away.
    Drop => "DROP",
    /// Reading rows.
    Select => "SELECT",
    /// New rows.
    Insert => "INSERT",
    /// Taking rows away.
    Delete => "DELETE",
    /// Rows leaving the cluster: BACKUP.
    Export => "EXPORT",
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// What a privilege is about. A view is granted and checked like a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Securable {
    /// The whole gateway.
    System,
    /// The cluster's own catalog, `default_catalog` to StarRocks.
    Catalog,
    /// A database; `None` is the current one until the session fills it in.
    Database(Option<DatabaseName>),
    /// Every database, those to come too.
    AllDatabases,
    /// A table or view.
    Table(Option<DatabaseName>, TableName),
    /// Every table and view of a database, those to come too.
    AllTablesIn(DatabaseName),
    /// Every table and view.
    AllTables,
}

impl Securable {
    /// The privileges that there are on such an object.
    pub fn privileges(&self) -> &'static [Privilege] {
        use Privilege::*;
        match self {
            Self::System => &[Repository],
            Self::Catalog => &[CreateDatabase],
            Self::Database(_) | Self::AllDatabases => &[CreateTable, CreateView, Alter, Drop],
            Self::Table(..) | Self::AllTablesIn(_) | Self::AllTables => {
                &[Select, Insert, Delete, Alter, Drop, Export]
            }
        }
    }

    /// Whether what is granted on this holds for `wanted`, whose names are complete.
    pub fn covers(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::AllDatabases, Self::Database(_)) | (Self::AllTables, Self::Table(..)) => true,
            (Self::AllTablesIn(granted), Self::Table(Some(database), _)) => granted == database,
            (granted, wanted) => granted == wanted,
        }
    }

    /// How StarRocks' refusals name it: `SYSTEM`, `DATABASE d`, `TABLE t`.
    pub fn refused_name(&self) -> String {
        match self {
            Self::System => "SYSTEM".into(),
            Self::Catalog => "CATALOG default_catalog".into(),
            Self::Database(name) => {
                format!("DATABASE {}", name.as_ref().map_or("", |n| n.as_str()))
            }
            Self::Table(_, name) => format!("TABLE {name}"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Securable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |name: &str| format!("`{name}`");
        match self {
            Self::System => f.write_str("SYSTEM"),
            Self::Catalog => f.write_str("CATALOG default_catalog"),
            Self::Database(None) => f.write_str("DATABASE"),
            Self::Database(Some(name)) => write!(f, "DATABASE {}", quoted(name.as_str())),
            Self::AllDatabases => f.write_str("ALL DATABASES"),
            Self::Table(None, table) => write!(f, "TABLE {}", quoted(table.as_str())),
            Self::Table(Some(name), table) => write!(
                f,
                "TABLE {}.{}",
                quoted(name.as_str()),
                quoted(table.as_str())
            ),
            Self::AllTablesIn(name) => {
                write!(f, "ALL TABLES IN DATABASE {}", quoted(name.as_str()))
            }
            Self::AllTables => f.write_str("ALL TABLES IN ALL DATABASES"),
        }
    }
}

/// Who holds a grant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grantee {
    User(UserName),
    Role(RoleName),
}

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "USER '{name}'@'%'"),
            Self::Role(name) => write!(f, "ROLE '{name}'"),
        }
    }
}

/// What is granted: a privilege, or a role with all that it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// A privilege on an object.
    Privilege(Privilege, Securable),
    /// Membership in a role.
    Role(RoleName),
}

impl Grant {
    /// The statement that grants this.
    pub fn statement(&self, grantee: &Grantee) -> String {
        match self {
            Self::Privilege(privilege, on) => format!("GRANT {privilege} ON {on} TO {grantee}"),
            Self::Role(role) => format!("GRANT '{role}' TO {grantee}"),
        }
    }
}

/// Everything that a user holds. All roles are active.
#[derive(Debug)]
pub struct Rights {
    admin: bool,
    roles: Vec<RoleName>,
    held: Vec<(Privilege, Securable)>,
    user: String,
}

impl Rights {
    /// What a user holds by these grants, his own and those of his roles; an administrator needs
    /// none.
    pub fn gather(user: &UserName, admin: bool, grants: &[(Grantee, Grant)]) -> Self {
        let (mut roles, mut held) = (Vec::new(), Vec::new());
        let mut holders = vec![Grantee::User(user.clone())];
        while let Some(holder) = holders.pop() {
            for (_, grant) in grants.iter().filter(|(grantee, _)| *grantee == holder) {
                match grant {
                    Grant::Privilege(privilege, on) => held.push((*privilege, on.clone())),
                    Grant::Role(role) if roles.contains(role) => {}
                    Grant::Role(role) => {
                        roles.push(role.clone());
                        holders.push(Grantee::Role(role.clone()));
                    }
                }
            }
        }
        Self {
            admin,
            roles,
            held,
            user: user.to_string(),
        }
    }

    /// Whether nothing is refused.
    pub fn is_admin(&self) -> bool {
        self.admin
    }

    /// Demands ADMIN.
    pub fn require_admin(&self) -> Result<(), Error> {
        if self.admin {
            return Ok(());
        }
        Err(self.denied("ADMIN privilege(s)").hint(format!(
            "An administrator can GRANT ADMIN TO {}.",
            self.user
        )))
    }

    /// Demands one privilege; the object's names are complete.
    pub fn require(&self, privilege: Privilege, on: &Securable) -> Result<(), Error> {
        if self.admin
            || self
                .held
                .iter()
                .any(|(held, granted)| *held == privilege && granted.covers(on))
        {
            return Ok(());
        }
        let hint = format!(
            "An administrator can GRANT {privilege} ON {on} TO {}.",
            self.user
        );
        Err(self
            .denied(&format!(
                "{privilege} privilege(s) on {}",
                on.refused_name()
            ))
            .hint(hint))
    }

    /// The refusal of somebody who lacks `what`, in StarRocks' words.
    pub fn denied(&self, what: &str) -> Error {
        let roles: Vec<_> = self.roles.iter().map(RoleName::as_str).collect();
        let current = if roles.is_empty() {
            "NONE".to_owned()
        } else {
            format!("[{}]", roles.join(", "))
        };
        let message = format!(
            "Access denied; you need (at least one of) the {what} for this operation. Please ask the admin to grant permission(s) \
             or try activating existing roles using <set [default] role>. Current role(s): {current}. Inactivated role(s): NONE."
        );
        Error::new(ErrorKind::InsufficientPrivilege, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_what_it_names_and_nothing_else() {
        let database = |name: &str| DatabaseName::new(name).expect("valid");
        let table = |db: &str, name: &str| {
            Securable::Table(Some(database(db)), TableName::new(name).expect("valid"))
        };
        assert!(table("d", "t").covers(&table("d", "t")));
        assert!(Securable::AllTables.covers(&table("d", "t")));
        assert!(Securable::AllTablesIn(database("d")).covers(&table("d", "t")));
        assert!(Securable::AllDatabases.covers(&Securable::Database(Some(database("d")))));
        for (granted, wanted) in [
            (table("d", "t"), table("d", "u")),
            (table("d", "t"), table("e", "t")),
            (Securable::AllTablesIn(database("d")), table("e", "t")),
            (Securable::AllDatabases, table("d", "t")),
            (Securable::System, Securable::Catalog),
            (
                Securable::Database(Some(database("d"))),
                Securable::Database(Some(database("e"))),
            ),
        ] {
            assert!(
                !granted.covers(&wanted),
                "{granted} does not cover {wanted}"
            );
        }
    }
}
