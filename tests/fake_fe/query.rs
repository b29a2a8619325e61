//! SELECT on the fake cluster: DataFusion over tables in memory, read by MySQL's rules.

use std::sync::Arc;

use datafusion::arrow::array::{Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::{CatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::model::{FeSession, Model};
use super::wire::Reply;

fn texts(columns: &[&str], rows: &[Vec<Option<String>>]) -> Arc<MemTable> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|c| Field::new(*c, DataType::Utf8, true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let column = |i: usize| {
        Arc::new(rows.iter().map(|r| r[i].clone()).collect::<StringArray>()) as Arc<dyn Array>
    };
    let batch = RecordBatch::try_new(schema.clone(), (0..columns.len()).map(column).collect())
        .expect("a batch");
    Arc::new(MemTable::try_new(schema, vec![vec![batch]]).expect("a table"))
}

/// Everything that a query can name.
pub fn context(model: &Model, session: &FeSession) -> SessionContext {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema("fe", session.database.as_deref().unwrap_or("none"));
    config.options_mut().sql_parser.enable_ident_normalization = false;
    config.options_mut().sql_parser.dialect = datafusion::common::config::Dialect::MySQL;
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let context = SessionContext::new_with_config(config);
    let catalog = Arc::new(datafusion::catalog::MemoryCatalogProvider::new());
    let (mut tables, mut columns, mut views) = (Vec::new(), Vec::new(), Vec::new());
    for (database, content) in &model.databases {
        let schema = Arc::new(MemorySchemaProvider::new());
        for (name, table) in &content.tables {
            let text = |t: &str| Some(t.to_owned());
            let is_view = table.is_view || table.is_materialized;
            let kind = if is_view { "VIEW" } else { "BASE TABLE" };
            let engine = (!table.is_view).then(|| "StarRocks".to_owned());
            let rows = table.rows.num_rows();
            tables.push(vec![
                text(database),
                text(name),
                text(kind),
                engine,
                Some(rows.to_string()),
                text("1024"),
                text("2026-01-01 00:00:00"),
                text(""),
            ]);
            if table.is_view {
                views.push(vec![text(database), text(name), text("SELECT 1")]);
            }
            for (i, (column, column_type)) in table.columns.iter().enumerate() {
                let key = match (i, name.as_str()) {
                    (0, "orders") => "PRI",
                    (0, _) => "DUP",
                    _ => "",
                };
                columns.push(vec![
                    text(database),
                    text(name),
                    Some((i + 1).to_string()),
                    text(column),
                    text(column_type),
                    text("YES"),
                    text(key),
                    None,
                    text(""),
                    text(""),
                ]);
            }
            let memory = MemTable::try_new(table.rows.schema(), vec![vec![table.rows.clone()]])
                .expect("a table");
            schema
                .register_table(name.clone(), Arc::new(memory))
                .expect("registered");
        }
        catalog
            .register_schema(database, schema)
            .expect("registered");
    }
    let information = Arc::new(MemorySchemaProvider::new());
    let of_tables = [
        "TABLE_SCHEMA",
        "TABLE_NAME",
        "TABLE_TYPE",
        "ENGINE",
        "TABLE_ROWS",
        "DATA_LENGTH",
        "CREATE_TIME",
        "TABLE_COMMENT",
    ];
    let of_columns = [
        "TABLE_SCHEMA",
        "TABLE_NAME",
        "ORDINAL_POSITION",
        "COLUMN_NAME",
        "COLUMN_TYPE",
        "IS_NULLABLE",
        "COLUMN_KEY",
        "COLUMN_DEFAULT",
        "EXTRA",
        "COLUMN_COMMENT",
    ];
    for (name, table) in [
        ("tables", texts(&of_tables, &tables)),
        ("columns", texts(&of_columns, &columns)),
        (
            "views",
            texts(&["TABLE_SCHEMA", "TABLE_NAME", "VIEW_DEFINITION"], &views),
        ),
    ] {
        information
            .register_table(name.into(), table)
            .expect("registered");
    }
    catalog
        .register_schema("information_schema", information)
        .expect("registered");
    context.register_catalog("fe", catalog);
    context
}

/// Runs a query; values are printed as StarRocks prints them.
pub async fn run(context: SessionContext, sql: &str) -> Reply {
    // DataFusion knows these types under other names only.
    let sql = sql
        .replace(" AS DATETIME)", " AS TIMESTAMP)")
        .replace(" AS LARGEINT)", " AS DECIMAL(38, 0))");
    let batches = match context.sql(&sql).await {
        Ok(frame) => frame.collect().await,
        Err(e) => Err(e),
    };
    let batches = match batches {
        Ok(batches) => batches,
        Err(e) => {
            return Reply::error(
                1064,
                format!("Getting analyzing error. Detail message: {e}."),
            );
        }
    };
    let Some(first) = batches.first() else {
        return Reply::Rows {
            columns: vec!["c".into()],
            rows: Vec::new(),
        };
    };
    let columns = first
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().as_str().into())
        .collect();
    let options = FormatOptions::default().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S"));
    let mut rows = Vec::new();
    for batch in &batches {
        let formatters: Vec<_> = batch
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).expect("printable"))
            .collect();
        for i in 0..batch.num_rows() {
            let value = |(formatter, column): (&ArrayFormatter<'_>, &Arc<dyn Array>)| {
                if column.is_null(i) {
                    return None;
                }
                let text = formatter.value(i).to_string();
                Some(match column.data_type() {
                    DataType::Boolean => {
                        if text == "true" {
                            "1".into()
                        } else {
                            "0".into()
                        }
                    }
                    _ => text,
                })
            };
            rows.push(formatters.iter().zip(batch.columns()).map(value).collect());
        }
    }
    Reply::Rows { columns, rows }
}
