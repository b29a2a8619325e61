//! What a BACKUP takes: tables with their definitions and partitions, as the frontend tells them.

use futures::{FutureExt, StreamExt, TryStreamExt};
use ring::digest::{Context, SHA256};

use super::StarRocksCluster;
use super::catalog::Object;
use super::print_statement::path;
use super::table::lines;
use crate::cluster::BackedUp;
use crate::error::{Error, ErrorKind};
use crate::job::{PartitionContents, TableContents, UNKNOWN_VERSION};
use crate::names::{DatabaseName, PartitionName, TableName};
use crate::statement::{ObjectKind, ObjectRef, Partitions, Qualified, TableRef};

/// How many tables are asked about at a time.
const QUESTIONS: usize = 4;

/// A definition without the partitions that are there, which come and go: each stands in a line of
/// its own.
fn without_partitions(ddl: &str) -> String {
    let names_one = |line: &&str| {
        let line = line.trim_start().trim_start_matches('(');
        line.starts_with("PARTITION ") && !line.starts_with("PARTITION BY")
    };
    let lines: Vec<&str> = ddl.lines().filter(|line| !names_one(line)).collect();
    lines.join("\n")
}

/// The line of a definition that makes one partition, as ALTER TABLE … ADD takes it.
fn partition_line<'d>(ddl: &'d str, name: &str) -> Option<&'d str> {
    let said = [format!("PARTITION {name} "), format!("PARTITION `{name}` ")];
    ddl.lines().find_map(|line| {
        let line = line.trim().trim_start_matches('(');
        let is_it = said.iter().any(|said| line.starts_with(said));
        // The last one has the end of the list behind it.
        let closed =
            |line: &str| line.matches(['(', '[']).count() == line.matches([')', ']']).count();
        let line = line.trim_end_matches(',');
        let line = match closed(line) {
            true => line,
            false => line.strip_suffix(')').unwrap_or(line),
        };
        is_it.then_some(line)
    })
}

/// Whether partitions of a table can be put together from several restored tables: each is made by
/// a line of the definition, and every column can be inserted as it is.
fn may_be_apart(ddl: &str, partitions: &[PartitionContents]) -> bool {
    let is_listed = |p: &PartitionContents| partition_line(ddl, p.name.as_str()).is_some();
    let columns = ddl.split(") ENGINE").next().unwrap_or(ddl);
    let is_plain = !columns.contains(" AUTO_INCREMENT") && !columns.contains(" AS ");
    is_plain && partitions.len() > 1 && partitions.iter().all(is_listed)
}

impl StarRocksCluster {
    /// What a BACKUP takes that says this.
    pub(super) async fn taken(
        &self,
        database: &DatabaseName,
        said: Option<&[ObjectRef]>,
    ) -> Result<BackedUp, Error> {
        use crate::cluster::Cluster;
        self.forget_names();
        self.refresh().await?;
        let has_kinds = self.client.version().await?.backs_up_views();
        let names = self.names.read().clone();
        let known = names.databases.get(database.as_str());
        let of_kind = |kind: Object| {
            let named = known.map_or_else(Default::default, |known| known.objects(&[kind]));
            named.into_iter().map(TableName::new)
        };
        let mut out = BackedUp::default();
        let whole = |name: Result<TableName, Error>| Ok((name?, Vec::new()));
        let table = |name: TableName| {
            ObjectRef::Untyped(TableRef {
                table: Qualified {
                    database: None,
                    name,
                },
                partitions: Partitions::All,
                alias: None,
            })
        };
        let view = |kind: ObjectKind, name: TableName| match has_kinds {
            true => ObjectRef::Named {
                kind,
                name: Qualified {
                    database: None,
                    name,
                },
                alias: None,
            },
            false => table(name),
        };
        let Some(said) = said else {
            let tables = of_kind(Object::Table).map(whole);
            out.tables = tables.collect::<Result<_, Error>>()?;
            for name in of_kind(Object::MaterializedView) {
                out.others.push(view(ObjectKind::MaterializedView, name?));
            }
            if has_kinds {
                for name in of_kind(Object::View) {
                    out.others.push(view(ObjectKind::View, name?));
                }
                out.others.push(ObjectRef::All(ObjectKind::Function));
            }
            return Ok(out);
        };
        for object in said {
            match object {
                ObjectRef::Untyped(t) | ObjectRef::Table(t) => {
                    let name = &t.table.name;
                    let is_table = known.is_none_or(|known| known.is_table(name.as_str()));
                    match &t.partitions {
                        _ if !is_table => out.others.push(object.clone()),
                        Partitions::Named { names, .. } => {
                            out.tables.push((name.clone(), names.clone()));
                        }
                        Partitions::All | Partitions::Keyed(_) => {
                            out.tables.push((name.clone(), Vec::new()));
                        }
                    }
                }
                ObjectRef::All(ObjectKind::Table) => {
                    let tables = of_kind(Object::Table).map(whole);
                    out.tables
                        .extend(tables.collect::<Result<Vec<_>, Error>>()?);
                }
                ObjectRef::Named { .. } | ObjectRef::All(_) => out.others.push(object.clone()),
            }
        }
        Ok(out)
    }

    /// The tables of these names, as they are now. One that is gone is left out.
    pub(super) async fn contents_of(
        &self,
        database: &DatabaseName,
        tables: &[TableName],
    ) -> Result<Vec<TableContents>, Error> {
        let question = |table| self.table_contents(database, table).boxed();
        let questions: Vec<_> = tables.iter().map(question).collect();
        let asked = futures::stream::iter(questions).buffered(QUESTIONS);
        let found: Vec<Option<TableContents>> = asked.try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn table_contents(
        &self,
        database: &DatabaseName,
        table: &TableName,
    ) -> Result<Option<TableContents>, Error> {
        let path = path(database, table.as_str())?;
        let gone = |e: Error| async move {
            let there = self.is_there(database, table.as_str()).await?;
            if there { Err(e) } else { Ok(None) }
        };
        let ddl = match self
            .client
            .query(&format!("SHOW CREATE TABLE {path}"))
            .await
        {
            Ok(answer) => answer
                .rows
                .first()
                .and_then(|row| row.get(1).cloned().flatten()),
            Err(e) => return gone(e).await,
        };
        let Some(ddl) = ddl else {
            let message = format!("SHOW CREATE TABLE {path} has no definition");
            return Err(Error::new(ErrorKind::Remote, message));
        };
        // A rollup is a part of the table, and its definition tells of none.
        let described = match self.client.query(&format!("DESC {path} ALL")).await {
            Ok(answer) => answer,
            Err(e) => return gone(e).await,
        };
        let mut hash = Context::new(&SHA256);
        hash.update(without_partitions(&ddl).as_bytes());
        for value in described.rows.iter().flatten() {
            hash.update(&[0]);
            hash.update(value.as_deref().unwrap_or_default().as_bytes());
        }
        let answer = match self
            .client
            .query(&format!("SHOW PARTITIONS FROM {path}"))
            .await
        {
            Ok(answer) => answer,
            Err(e) => return gone(e).await,
        };
        let number = |text: &str| {
            text.parse().map_err(|_| {
                let message = format!("SHOW PARTITIONS FROM {path} has \"{text}\" for a number");
                Error::new(ErrorKind::Remote, message)
            })
        };
        let partition = |line: super::table::Line<'_>| {
            Ok(PartitionContents {
                name: PartitionName::new(line.text("PartitionName"))?,
                id: number(&line.text("PartitionId"))?,
                version: number(&line.text("VisibleVersion"))?,
                at: line.text("VisibleVersionTime"),
                older: None,
            })
        };
        let listed = lines(&answer).map(partition);
        let mut partitions: Vec<PartitionContents> = Vec::new();
        for partition in listed.collect::<Result<Vec<_>, Error>>()? {
            // A partition of several parts has a line for each of them.
            match partitions.iter_mut().find(|p| p.name == partition.name) {
                Some(known) => known.version = UNKNOWN_VERSION,
                None => partitions.push(partition),
            }
        }
        Ok(Some(TableContents {
            table: table.clone(),
            definition: hex::encode(hash.finish()),
            apart: may_be_apart(&ddl, &partitions),
            partitions,
        }))
    }

    /// What makes partitions of one table in another of its kind, as ALTER TABLE … ADD takes it.
    pub(super) async fn partition_lines(
        &self,
        database: &DatabaseName,
        table: &str,
        names: &[PartitionName],
    ) -> Result<Vec<String>, Error> {
        let path = path(database, table)?;
        let answer = self
            .client
            .query(&format!("SHOW CREATE TABLE {path}"))
            .await?;
        let ddl = answer
            .rows
            .first()
            .and_then(|row| row.get(1).cloned().flatten());
        let ddl = ddl.unwrap_or_default();
        let line = |name: &PartitionName| {
            let line = partition_line(&ddl, name.as_str()).map(str::to_owned);
            line.ok_or_else(|| {
                let message = format!("the definition of {path} does not tell partition {name}");
                Error::new(ErrorKind::Remote, message)
            })
        };
        names.iter().map(line).collect()
    }

    pub(super) async fn has_dynamic_partitions(
        &self,
        database: &DatabaseName,
        table: &str,
    ) -> Result<bool, Error> {
        let path = path(database, table)?;
        let answer = self
            .client
            .query(&format!("SHOW CREATE TABLE {path}"))
            .await?;
        let mut texts = answer.rows.iter().flatten().flatten();
        Ok(texts.any(|text| text.contains("\"dynamic_partition.enable\" = \"true\"")))
    }

    /// What tells the cluster from others, as far as it may be asked.
    pub(super) async fn cluster_id(&self) -> Result<Option<String>, Error> {
        match self.client.query("SHOW FRONTENDS").await {
            Ok(answer) => {
                let mut ids = lines(&answer).filter_map(|line| line.get(&["ClusterId"]));
                Ok(ids.next().filter(|id| !id.is_empty()))
            }
            Err(e) if e.kind == ErrorKind::Connection => Err(e),
            Err(_) => Ok(None),
        }
    }

    /// Whether a database has something of this name, now.
    pub(super) async fn is_there(
        &self,
        database: &DatabaseName,
        name: &str,
    ) -> Result<bool, Error> {
        use crate::cluster::Cluster;
        self.forget_names();
        self.refresh().await?;
        let names = self.names.read();
        let known = names.databases.get(database.as_str());
        Ok(known.is_some_and(|known| known.has(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_does_not_change_with_its_partitions() {
        let ddl = |partitions: &str| {
            format!(
                "CREATE TABLE `t` (\n  `PARTITION p` date NULL COMMENT \"\"\n) ENGINE=OLAP \nPARTITION BY RANGE(`d`)\n{partitions}DISTRIBUTED BY HASH(`id`)"
            )
        };
        let one = ddl("(PARTITION p1 VALUES [(\"0000-01-01\"), (\"2026-01-01\")))\n");
        let two = ddl(
            "(PARTITION p1 VALUES [(\"0000-01-01\"), (\"2026-01-01\")),\nPARTITION p2 VALUES [(\"2026-01-01\"), (\"2026-02-01\")))\n",
        );
        assert_ne!(one, two);
        assert_eq!(without_partitions(&one), without_partitions(&two));
        let other = one.replace("date", "datetime");
        assert_ne!(without_partitions(&one), without_partitions(&other));
        assert!(without_partitions(&one).contains("PARTITION BY RANGE(`d`)"));
    }

    #[test]
    fn a_partition_is_made_by_its_line() {
        let ddl = "CREATE TABLE `t` (\n  `d` date NULL COMMENT \"\"\n) ENGINE=OLAP \nPARTITION BY RANGE(`d`)\n\
                   (PARTITION p1 VALUES [(\"0000-01-01\"), (\"2026-01-01\")),\n\
                   PARTITION p2 VALUES [(\"2026-01-01\"), (\"2026-02-01\")))\nDISTRIBUTED BY HASH(`id`)";
        let p2 = "PARTITION p2 VALUES [(\"2026-01-01\"), (\"2026-02-01\"))";
        let p1 = "PARTITION p1 VALUES [(\"0000-01-01\"), (\"2026-01-01\"))";
        assert_eq!(partition_line(ddl, "p2"), Some(p2));
        assert_eq!(partition_line(ddl, "p1"), Some(p1));
        assert_eq!(partition_line(ddl, "p"), None);
        let lists = "PARTITION BY LIST(`c`)(\n  PARTITION pa VALUES IN ('a', 'b'),\n  PARTITION pb VALUES IN ('c')\n)\n";
        assert_eq!(
            partition_line(lists, "pa"),
            Some("PARTITION pa VALUES IN ('a', 'b')")
        );
        assert_eq!(
            partition_line(lists, "pb"),
            Some("PARTITION pb VALUES IN ('c')")
        );
        let partition = |name: &str| PartitionContents {
            name: PartitionName::new(name).expect("valid"),
            id: 1,
            version: 2,
            at: String::new(),
            older: None,
        };
        let (p1, p2, p3) = (partition("p1"), partition("p2"), partition("p3"));
        assert!(may_be_apart(ddl, &[p1.clone(), p2.clone()]));
        assert!(!may_be_apart(ddl, &[p1.clone(), p3]));
        assert!(!may_be_apart(ddl, std::slice::from_ref(&p1)));
        let counted = ddl.replace("date NULL", "bigint NOT NULL AUTO_INCREMENT");
        assert!(!may_be_apart(&counted, &[p1, p2]));
    }
}
