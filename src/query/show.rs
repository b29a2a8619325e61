//! SHOW: which file answers which statement, and with which parameters. No other code per SHOW.

use std::sync::Arc;

use datafusion::arrow::array::ListArray;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use crate::names::DatabaseName;
use crate::statement::{Qualified, Show};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Every file of `sql/show/`.
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../sql/show/", $name, ".sql"))),)*];
    };
}

files!(
    "all_backup",
    "all_restore",
    "backends",
    "backup",
    "brokers",
    "columns",
    "create_table",
    "databases",
    "frontends",
    "partitions",
    "repositories",
    "restore",
    "snapshot_details",
    "snapshots",
    "tables",
    "tablets",
);

/// The query that answers a SHOW.
pub fn show_query(show: &Show) -> &'static str {
    let name = show.query_name();
    FILES.iter().find(|(file, _)| *file == name).map(|(_, query)| *query).expect("every SHOW has its file")
}

/// The values of `$1`, `$2`, … in that query. `current` is the session's current database.
pub fn show_parameters(show: &Show, current: Option<&DatabaseName>) -> Vec<ScalarValue> {
    let text = |s: Option<&str>| ScalarValue::Utf8(s.map(str::to_owned));
    match show {
        Show::Databases | Show::Frontends | Show::Backends | Show::Brokers | Show::Repositories => Vec::new(),
        Show::Tables(database) => vec![text(database.as_ref().or(current).map(DatabaseName::as_str))],
        Show::Jobs { database, .. } => vec![text(database.as_ref().map(DatabaseName::as_str))],
        Show::CreateTable(table) | Show::Columns(table) | Show::Partitions(table) | Show::Tablets(table) => {
            let Qualified { database, name } = table;
            vec![text(database.as_ref().or(current).map(DatabaseName::as_str)), text(Some(name.as_str()))]
        }
        Show::Snapshots { repository, labels, timestamp } => {
            let values: Vec<ScalarValue> = labels.iter().map(|l| text(Some(l))).collect();
            let list: Arc<ListArray> = ScalarValue::new_list(&values, &DataType::Utf8, true);
            let mut parameters = vec![text(Some(repository.as_str())), ScalarValue::List(list)];
            parameters.extend(timestamp.as_ref().map(|t| text(Some(t))));
            parameters
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_listed() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/show");
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().trim_end_matches(".sql").to_owned())
            .collect();
        found.sort();
        let listed: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(found, listed);
    }
}
