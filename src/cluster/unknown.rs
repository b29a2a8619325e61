//! What is told of names that a cluster does not have.

use crate::error::{Error, ErrorKind};
use crate::names::{DatabaseName, TableName};

pub(crate) fn no_database() -> Error {
    Error::new(ErrorKind::UndefinedSchema, "No database selected")
        .hint("USE a database, or write database.table.")
}

pub(crate) fn unknown_table(database: &DatabaseName, name: &TableName) -> Error {
    Error::new(
        ErrorKind::UndefinedTable,
        format!("Unknown table '{database}.{name}'"),
    )
    .hint("See SHOW TABLES.")
}

pub(crate) fn unknown_database(name: &DatabaseName) -> Error {
    Error::new(
        ErrorKind::UndefinedSchema,
        format!("Unknown database '{name}'"),
    )
    .hint("See SHOW DATABASES.")
}
