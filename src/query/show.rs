//! SHOW: which file answers which statement, and with which parameters. No other code per SHOW.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::ListArray;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast as sql;

use crate::error::{Error, from_datafusion};
use crate::names::{DatabaseName, TableName};
use crate::privilege::Grantee;
use crate::statement::{
    Filter, Operand, Partitions, Qualified, Show, Statement, parse_one, resolve_names,
};

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
    "clusters",
    "columns",
    "create_table",
    "create_view",
    "databases",
    "frontends",
    "grants",
    "list_partitions",
    "partitions",
    "repositories",
    "restore",
    "role_grants",
    "roles",
    "snapshot_details",
    "snapshots",
    "tables",
    "tablet",
    "tablets",
);

/// The same, read once.
static QUERIES: LazyLock<Vec<(&str, sql::Statement)>> = LazyLock::new(|| {
    let read = |(name, text): &(&'static str, &str)| match parse_one(text) {
        Ok(Statement::Sql(query)) => (*name, *query),
        _ => panic!("sql/show/{name}.sql is no query"),
    };
    FILES.iter().map(read).collect()
});

/// The query that answers a SHOW. `lists` says whether the table that it names is partitioned by
/// lists: the answer has other columns then.
pub fn show_query(show: &Show, lists: bool) -> &'static sql::Statement {
    let name = match show {
        Show::Partitions { .. } if lists => "list_partitions",
        Show::Grants(Some(Grantee::Role(_))) => "role_grants",
        other => other.query_name(),
    };
    QUERIES
        .iter()
        .find(|(file, _)| *file == name)
        .map(|(_, query)| query)
        .expect("every SHOW has its file")
}

/// The values of `$1`, `$2`, … in that query. `current` is the session's current database, `user`
/// its user.
pub fn show_parameters(
    show: &Show,
    current: Option<&DatabaseName>,
    user: &str,
) -> Vec<ScalarValue> {
    let text = |s: Option<&str>| ScalarValue::Utf8(s.map(str::to_owned));
    let named = |Qualified { database, name }: &Qualified<TableName>| {
        vec![
            text(database.as_ref().or(current).map(DatabaseName::as_str)),
            text(Some(name.as_str())),
        ]
    };
    match show {
        Show::Databases
        | Show::Frontends
        | Show::Backends
        | Show::Brokers
        | Show::Repositories
        | Show::Roles
        | Show::Clusters => Vec::new(),
        Show::Grants(None) => vec![text(Some(user))],
        Show::Grants(Some(Grantee::User(name))) => vec![text(Some(name.as_str()))],
        Show::Grants(Some(Grantee::Role(name))) => vec![text(Some(name.as_str()))],
        Show::Tablet(id) => vec![ScalarValue::Int64(Some(id.0))],
        Show::Tables(database) => vec![text(
            database.as_ref().or(current).map(DatabaseName::as_str),
        )],
        Show::Jobs { database, .. } => vec![text(database.as_ref().map(DatabaseName::as_str))],
        Show::CreateTable(table) | Show::CreateView(table) | Show::Columns(table) => named(table),
        Show::Partitions { table, temporary } => {
            let mut parameters = named(table);
            parameters.push(ScalarValue::Boolean(Some(*temporary)));
            parameters
        }
        Show::Tablets { table, partitions } => {
            let (temporary, names) = match partitions {
                Partitions::Named { temporary, names } => (*temporary, names.as_slice()),
                Partitions::All | Partitions::Keyed(_) => (false, &[][..]),
            };
            let values: Vec<ScalarValue> = names.iter().map(|n| text(Some(n.as_str()))).collect();
            let list: Arc<ListArray> = ScalarValue::new_list(&values, &DataType::Utf8, true);
            let mut parameters = named(table);
            parameters.extend([
                ScalarValue::List(list),
                ScalarValue::Boolean(Some(temporary)),
            ]);
            parameters
        }
        Show::Snapshots(repository) => vec![text(Some(repository.as_str()))],
        Show::SnapshotDetails { repository, exact } => {
            let (label, timestamp) = exact
                .as_ref()
                .map_or((None, None), |(l, t)| (Some(l.as_str()), Some(t.as_str())));
            vec![
                text(Some(repository.as_str())),
                text(label),
                text(timestamp),
            ]
        }
    }
}

/// `SELECT * FROM (plan) WHERE … ORDER BY … LIMIT …`, its names those of the plan's columns in any
/// case.
pub fn filtered(
    state: &SessionState,
    plan: LogicalPlan,
    show: &Show,
    filter: &Filter,
) -> Result<LogicalPlan, Error> {
    if *filter == Filter::default() {
        return Ok(plan);
    }
    let schema = plan.schema().clone();
    let meaning = |name: &str| {
        let column = schema
            .fields()
            .iter()
            .find(|f| f.name().eq_ignore_ascii_case(name));
        match (column, show) {
            (Some(column), _) => Some(Operand::Column(column.name().clone())),
            // The only index of a table has its name.
            (None, Show::Tablets { table, .. }) if name.eq_ignore_ascii_case("indexname") => {
                Some(Operand::Text(table.name.to_string()))
            }
            _ => None,
        }
    };
    let expr = |expr: &sql::Expr| {
        let known: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let expr = resolve_names(expr, meaning)
            .map_err(|e| e.hint(format!("The columns are {}.", known.join(", "))))?;
        state
            .create_logical_expr_from_sql_expr(sql::ExprWithAlias { expr, alias: None }, &schema)
            .map_err(from_datafusion)
    };
    let mut builder = LogicalPlanBuilder::from(plan);
    if let Some(predicate) = &filter.predicate {
        builder = builder.filter(expr(predicate)?).map_err(from_datafusion)?;
    }
    if !filter.order_by.is_empty() {
        let mut sorts = Vec::new();
        for item in &filter.order_by {
            let ascending = !item.descending;
            sorts.push(expr(&item.expr)?.sort(ascending, item.nulls_first.unwrap_or(ascending)));
        }
        builder = builder.sort(sorts).map_err(from_datafusion)?;
    }
    if let Some(limit) = filter.limit {
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        builder = builder
            .limit(count(filter.offset), Some(count(limit)))
            .map_err(from_datafusion)?;
    }
    builder.build().map_err(from_datafusion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_listed() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/show");
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .expect("the folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .trim_end_matches(".sql")
                    .to_owned()
            })
            .collect();
        found.sort();
        let listed: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(found, listed);
        assert_eq!(QUERIES.len(), FILES.len());
    }
}
