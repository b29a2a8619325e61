//! `CREATE | ALTER | DROP CLUSTER`, `ALTER REPOSITORY` and `CANCEL JOB`: Starkeep's own statements
//! about clusters.

use super::ast::{AlterRepository, ClusterCommand, Statement};
use super::parser::Parser;
use super::properties::Properties;
use crate::error::Error;

impl Parser<'_> {
    /// A statement of this file, if one comes next.
    pub(super) fn cluster_statement(&mut self) -> Result<Option<Statement>, Error> {
        if self.eat("CREATE CLUSTER") {
            let if_not_exists = self.eat("IF NOT EXISTS");
            let name = self.named("a cluster name")?;
            let properties = self.required_properties()?;
            return Ok(Some(Statement::Cluster(ClusterCommand::Create {
                name,
                if_not_exists,
                properties,
            })));
        }
        if self.eat("ALTER CLUSTER") {
            let name = self.named("a cluster name")?;
            self.expect("SET")?;
            let properties = self.set_properties()?;
            return Ok(Some(Statement::Cluster(ClusterCommand::Alter {
                name,
                properties,
            })));
        }
        if self.eat("DROP CLUSTER") {
            let if_exists = self.eat("IF EXISTS");
            let name = self.named("a cluster name")?;
            let force = self.eat("FORCE");
            return Ok(Some(Statement::Cluster(ClusterCommand::Drop {
                name,
                if_exists,
                force,
            })));
        }
        if self.eat("ALTER REPOSITORY") {
            let name = self.repository("Repository is empty")?;
            self.expect("SET")?;
            let properties = self.required_properties()?;
            return Ok(Some(Statement::AlterRepository(AlterRepository {
                name,
                properties,
            })));
        }
        if self.eat("CANCEL JOB") {
            let id = self.job_number()?;
            let force = self.eat("FORCE");
            return Ok(Some(Statement::CancelJob { id, force }));
        }
        Ok(None)
    }

    fn required_properties(&mut self) -> Result<Properties, Error> {
        if !self.is_word("PROPERTIES") {
            return Err(self.unexpected("PROPERTIES"));
        }
        self.properties()
    }

    /// `[PROPERTIES] ("k" = "v", …)`
    fn set_properties(&mut self) -> Result<Properties, Error> {
        if self.is_word("PROPERTIES") {
            self.properties()
        } else {
            self.property_list()
        }
    }
}
