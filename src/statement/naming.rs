//! What statements are called, and how they are shown without their secrets.

use super::{ClusterCommand, JobControl, Statement};

impl Statement {
    /// A statement as logs and tables may show it.
    pub fn redacted(&self) -> String {
        match self {
            Statement::Empty => String::new(),
            Statement::Backup(s) => s.to_string(),
            Statement::Restore(s) => s.to_string(),
            Statement::Cancel(s) => s.to_string(),
            Statement::CreateRepository(s) => s.redacted().to_string(),
            Statement::DropRepository(name) => format!("DROP REPOSITORY {name}"),
            Statement::DropSnapshot(s) => s.to_string(),
            Statement::CancelJob { id, force } => {
                format!("CANCEL JOB {id}{}", if *force { " FORCE" } else { "" })
            }
            Statement::ControlJob { id, control } => super::print::control_job(*id, *control),
            Statement::Verify(s) => s.to_string(),
            Statement::Prune(s) => s.to_string(),
            Statement::ImportHistory(name) => super::print::import_history(name),
            Statement::WaitForJob(s) => s.to_string(),
            Statement::ExplainJob(s) => format!("EXPLAIN {}", s.redacted()),
            Statement::AlterRepository(s) => {
                format!("ALTER REPOSITORY {} SET PROPERTIES (…)", s.name)
            }
            Statement::Cluster(ClusterCommand::Create { name, .. }) => {
                format!("CREATE CLUSTER {name} PROPERTIES (…)")
            }
            Statement::Cluster(ClusterCommand::Alter { name, .. }) => {
                format!("ALTER CLUSTER {name} SET (…)")
            }
            Statement::Cluster(ClusterCommand::Drop { name, .. }) => format!("DROP CLUSTER {name}"),
            Statement::Raw(_) => "PASSED THROUGH".into(),
            Statement::Recover(s) => s.to_string(),
            Statement::Define(_) => "DDL".into(),
            Statement::User(_) => "USER COMMAND".into(),
            Statement::Show(show) => show.to_string(),
            Statement::Session(_) => "SESSION COMMAND".into(),
            Statement::Copy(copy) => format!("COPY {} FROM …", copy.table.name),
            Statement::CopyTo(copy) => format!("COPY ({}) TO STDOUT", copy.query),
            Statement::Sql(ast) => ast.to_string(),
        }
    }

    /// What a statement that changes something is called.
    pub fn verb(&self) -> &'static str {
        match self {
            Statement::Backup(_) => "BACKUP",
            Statement::Restore(_) => "RESTORE",
            Statement::Cancel(_) | Statement::CancelJob { .. } => "CANCEL",
            Statement::CreateRepository(_)
            | Statement::DropRepository(_)
            | Statement::AlterRepository(_) => "REPOSITORY DDL",
            Statement::DropSnapshot(_) => "DROP SNAPSHOT",
            Statement::ControlJob { control, .. } => match control {
                JobControl::Pause => "PAUSE JOB",
                JobControl::Resume => "RESUME JOB",
                JobControl::Pace(_) => "ALTER JOB",
            },
            Statement::Verify(_) => "VERIFY",
            Statement::Prune(_) => "PRUNE",
            Statement::ImportHistory(_) => "IMPORT HISTORY",
            Statement::WaitForJob(_) => "WAIT",
            Statement::Copy(_) => "COPY FROM",
            Statement::User(_) => "GRANT",
            _ => "DDL",
        }
    }
}
