//! Users, roles, GRANT and REVOKE.

use super::ast::UserCommand;
use super::lexer::{Quote, Token};
use super::parser::Parser;
use crate::error::{Error, ErrorKind};
use crate::names::{RoleName, UserName};
use crate::privilege::{Grant, Grantee, Privilege, Securable};

impl Parser<'_> {
    pub(super) fn user_command(&mut self) -> Result<Option<UserCommand>, Error> {
        if self.eat("CREATE USER") {
            let if_not_exists = self.eat("IF NOT EXISTS");
            let name = self.user_name()?;
            let password = if self.eat("IDENTIFIED BY") {
                Some(self.string("the password in quotes")?)
            } else {
                None
            };
            return Ok(Some(UserCommand::Create {
                name,
                password,
                if_not_exists,
            }));
        }
        if self.eat("ALTER USER") {
            let name = self.user_name()?;
            self.expect("IDENTIFIED BY")?;
            return Ok(Some(UserCommand::Alter {
                name,
                password: self.string("the password in quotes")?,
            }));
        }
        if self.eat("DROP USER") {
            let if_exists = self.eat("IF EXISTS");
            return Ok(Some(UserCommand::Drop {
                name: self.user_name()?,
                if_exists,
            }));
        }
        if self.eat("CREATE ROLE") {
            let if_not_exists = self.eat("IF NOT EXISTS");
            return Ok(Some(UserCommand::CreateRole {
                names: self.role_names()?,
                if_not_exists,
            }));
        }
        if self.eat("DROP ROLE") {
            let if_exists = self.eat("IF EXISTS");
            return Ok(Some(UserCommand::DropRole {
                names: self.role_names()?,
                if_exists,
            }));
        }
        if self.eat("GRANT ADMIN TO") {
            self.eat("USER");
            return Ok(Some(UserCommand::GrantAdmin(self.user_name()?)));
        }
        if self.eat("REVOKE ADMIN FROM") {
            self.eat("USER");
            return Ok(Some(UserCommand::RevokeAdmin(self.user_name()?)));
        }
        if self.eat("GRANT") {
            let grants = self.grants()?;
            self.expect("TO")?;
            let grantee = self.grantee()?;
            if self.is_word("WITH") {
                return Err(Error::unsupported("WITH GRANT OPTION")
                    .hint("Administrators grant.")
                    .at(self.offset()));
            }
            return Ok(Some(UserCommand::Grant(grants, grantee)));
        }
        if self.eat("REVOKE") {
            let grants = self.grants()?;
            self.expect("FROM")?;
            return Ok(Some(UserCommand::Revoke(grants, self.grantee()?)));
        }
        Ok(None)
    }

    /// A user: a name, or StarRocks' quoted `'name'[@'%']`; hosts other than `%` are refused.
    pub(super) fn user_name(&mut self) -> Result<UserName, Error> {
        let at = self.offset();
        let name = match self.peek() {
            Some(Token::Str(_, Quote::Single)) => {
                UserName::new(self.string("a user name")?).map_err(|e| e.at(at))?
            }
            _ => self.named("a user name")?,
        };
        if self.eat_symbol('@') {
            let at = self.offset();
            if self.string("a host")? != "%" {
                return Err(Error::unsupported("a user limited to a host").at(at));
            }
        }
        Ok(name)
    }

    fn role_name(&mut self) -> Result<RoleName, Error> {
        let at = self.offset();
        match self.peek() {
            Some(Token::Str(_, Quote::Single)) => {
                RoleName::new(self.string("a role name")?).map_err(|e| e.at(at))
            }
            _ => self.named("a role name"),
        }
    }

    fn role_names(&mut self) -> Result<Vec<RoleName>, Error> {
        let mut names = vec![self.role_name()?];
        while self.eat_symbol(',') {
            names.push(self.role_name()?);
        }
        Ok(names)
    }

    /// `ROLE r`, `USER u` or `u`.
    pub(super) fn grantee(&mut self) -> Result<Grantee, Error> {
        if self.is_word("ROLE")
            && (self.is_name_at(1) || matches!(self.peek_at(1), Some(Token::Str(..))))
        {
            self.eat("ROLE");
            return self.role_name().map(Grantee::Role);
        }
        if self.is_word("USER")
            && (self.is_name_at(1) || matches!(self.peek_at(1), Some(Token::Str(..))))
        {
            self.eat("USER");
        }
        self.user_name().map(Grantee::User)
    }

    /// Privileges with what they are about, or roles.
    fn grants(&mut self) -> Result<Vec<Grant>, Error> {
        let start = self.offset();
        let mut privileges = Vec::new();
        let mut all = false;
        loop {
            if self.eat("ALL PRIVILEGES") || self.eat("ALL") {
                all = true;
            } else {
                match Privilege::ALL.iter().find(|p| self.eat(p.words())) {
                    Some(privilege) => privileges.push(*privilege),
                    None if privileges.is_empty() && !all => {
                        // No privilege begins so: roles, if names stand here.
                        let roles = self.role_names()?;
                        if self.is_word("ON") {
                            return Err(Error::unsupported(format_args!(
                                "the privilege {}",
                                roles[0]
                            ))
                            .at(start));
                        }
                        return Ok(roles.into_iter().map(Grant::Role).collect());
                    }
                    None => return Err(self.unexpected("a privilege")),
                }
            }
            if !self.eat_symbol(',') {
                break;
            }
        }
        self.expect("ON")?;
        let on_at = self.offset();
        let mut grants = Vec::new();
        for securable in self.securables()? {
            let named = if all {
                securable.privileges()
            } else {
                &privileges[..]
            };
            for privilege in named {
                // A table's privilege on a database is that on all its tables.
                let on = match &securable {
                    Securable::Database(Some(name))
                        if !securable.privileges().contains(privilege) =>
                    {
                        Securable::AllTablesIn(name.clone())
                    }
                    Securable::AllDatabases if !securable.privileges().contains(privilege) => {
                        Securable::AllTables
                    }
                    other => other.clone(),
                };
                if !on.privileges().contains(privilege) {
                    let words: Vec<_> = securable.privileges().iter().map(|p| p.words()).collect();
                    return Err(Error::new(
                        ErrorKind::InvalidGrant,
                        format!("there is no privilege {privilege} on {securable}"),
                    )
                    .hint(format!("On {securable} there are: {}.", words.join(", ")))
                    .at(on_at));
                }
                grants.push(Grant::Privilege(*privilege, on));
            }
        }
        Ok(grants)
    }

    fn securables(&mut self) -> Result<Vec<Securable>, Error> {
        if self.eat("SYSTEM") {
            return Ok(vec![Securable::System]);
        }
        if self.eat("CATALOG") {
            let at = self.offset();
            let (name, _) = self.name("a catalog name")?;
            if !name.eq_ignore_ascii_case("default_catalog") {
                return Err(Error::unsupported(format_args!("the external catalog {name}")).at(at));
            }
            return Ok(vec![Securable::Catalog]);
        }
        if self.eat("ALL DATABASES") {
            return Ok(vec![Securable::AllDatabases]);
        }
        if self.eat("ALL TABLES IN") || self.eat("ALL VIEWS IN") {
            if self.eat("ALL DATABASES") {
                return Ok(vec![Securable::AllTables]);
            }
            self.expect("DATABASE")?;
            return Ok(vec![Securable::AllTablesIn(self.named("a database name")?)]);
        }
        let is_database = self.eat("DATABASE");
        if !is_database && !self.eat_any(&["TABLE", "VIEW"]) {
            return Err(self.unexpected("SYSTEM, CATALOG, DATABASE, TABLE, VIEW or ALL"));
        }
        let mut out = Vec::new();
        loop {
            out.push(if is_database {
                Securable::Database(Some(self.named("a database name")?))
            } else {
                let table = self.qualified("a table name")?;
                Securable::Table(table.database, table.name)
            });
            if !self.eat_symbol(',') {
                return Ok(out);
            }
        }
    }
}
