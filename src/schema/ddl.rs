//! A schema as StarRocks' `SHOW CREATE TABLE` prints it: text that, sent back, makes the same
//! table.

use std::fmt::Write;

use super::{Bounds, Column, DefaultValue, PartitionDef, Partitioning, TableSchema};

fn quoted(name: &str) -> String {
    format!("`{name}`")
}

fn list(names: &[String]) -> String {
    names
        .iter()
        .map(|n| quoted(n))
        .collect::<Vec<_>>()
        .join(", ")
}

fn text(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Column {
    fn ddl(&self) -> String {
        let mut out = format!("{} {}", quoted(&self.name), self.column_type);
        if let Some(aggregate) = self.aggregate {
            let _ = write!(out, " {aggregate}");
        }
        out.push_str(if self.nullable { " NULL" } else { " NOT NULL" });
        match &self.default {
            Some(DefaultValue::Literal(value)) => {
                let _ = write!(out, " DEFAULT {}", text(value));
            }
            Some(DefaultValue::CurrentTimestamp) => out.push_str(" DEFAULT CURRENT_TIMESTAMP"),
            Some(DefaultValue::Null) => out.push_str(" DEFAULT NULL"),
            None => {}
        }
        if let Some(comment) = &self.comment {
            let _ = write!(out, " COMMENT {}", text(comment));
        }
        out
    }
}

impl TableSchema {
    /// `CREATE TABLE …` for a table of this name with these partitions.
    pub fn ddl(&self, table: &str, partitions: &[PartitionDef]) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("  {}", c.ddl()))
            .collect();
        let mut out = format!(
            "CREATE TABLE {} (\n{}\n) ENGINE=OLAP",
            quoted(table),
            columns.join(",\n")
        );
        if !self.key_columns.is_empty() {
            let _ = write!(
                out,
                "\n{}({})",
                self.key.keywords(),
                list(&self.key_columns)
            );
        }
        if let Some(comment) = &self.comment {
            let _ = write!(out, "\nCOMMENT {}", text(comment));
        }
        let kind = match &self.partitioning {
            Partitioning::Unpartitioned => None,
            Partitioning::Range { .. } => Some("RANGE"),
            Partitioning::List { .. } => Some("LIST"),
        };
        if let Some(kind) = kind {
            let _ = write!(
                out,
                "\nPARTITION BY {kind}({})\n(",
                list(self.partition_columns())
            );
            for (i, partition) in partitions
                .iter()
                .filter(|p| p.bounds != Bounds::Whole)
                .enumerate()
            {
                let separator = if i > 0 { ",\n" } else { "" };
                let _ = write!(
                    out,
                    "{separator}PARTITION {} {}",
                    quoted(partition.name.as_str()),
                    partition.bounds
                );
            }
            out.push(')');
        }
        match self.distribution.columns.as_slice() {
            [] => out.push_str("\nDISTRIBUTED BY RANDOM"),
            columns => {
                let _ = write!(out, "\nDISTRIBUTED BY HASH({})", list(columns));
            }
        }
        if let Some(buckets) = self.distribution.buckets {
            let _ = write!(out, " BUCKETS {buckets}");
        }
        if !self.properties.is_empty() {
            let pairs: Vec<String> = self
                .properties
                .iter()
                .map(|(k, v)| format!("{} = {}", text(k), text(v)))
                .collect();
            let _ = write!(out, "\nPROPERTIES (\n{}\n)", pairs.join(",\n"));
        }
        out.push(';');
        out
    }
}
