//! What a backup takes: everything that its statement names, or what has changed of that since
//! another one.

use std::collections::BTreeSet;

use super::Chains;
use crate::cluster::{BackedUp, ExternalCluster};
use crate::error::{Error, ErrorKind};
use crate::job::{Base, Contents, Followed, Selection, TableContents};
use crate::names::{DatabaseName, PartitionName, TableName};
use crate::statement::{BackupSnapshot, ObjectKind, ObjectRef, Partitions, Qualified, TableRef};

/// Partitions that are noted of one backup: they stand in its journal.
const PARTITIONS_MAX: usize = 100_000;

/// The tables that a statement takes, each with the partitions that it names.
fn narrowed(
    now: Vec<TableContents>,
    taken: &[(TableName, Vec<PartitionName>)],
) -> Result<Vec<TableContents>, Error> {
    let mut tables = Vec::with_capacity(now.len());
    for mut table in now {
        let named = taken.iter().find(|(name, _)| *name == table.table);
        let named = named.map(|(_, names)| names.as_slice()).unwrap_or_default();
        for name in named {
            if !table.partitions.iter().any(|p| p.name == *name) {
                let message = format!("partition[{name}] does not exist  in table{}", table.table);
                return Err(Error::new(ErrorKind::UndefinedObject, message));
            }
        }
        if !named.is_empty() {
            table.partitions.retain(|p| named.contains(&p.name));
        }
        tables.push(table);
    }
    let partitions: usize = tables.iter().map(|t| t.partitions.len()).sum();
    if partitions > PARTITIONS_MAX {
        let message = format!("{partitions} partitions in one backup: more than {PARTITIONS_MAX}");
        return Err(Error::new(ErrorKind::LimitExceeded, message)
            .hint("Back up some of the tables at a time."));
    }
    Ok(tables)
}

fn views_of(others: &[ObjectRef]) -> Vec<TableName> {
    let name = |object: &ObjectRef| match object {
        ObjectRef::Untyped(t) | ObjectRef::Table(t) => Some(t.table.name.clone()),
        ObjectRef::Named {
            kind: ObjectKind::Function,
            ..
        } => None,
        ObjectRef::Named { name, .. } => Some(name.name.clone()),
        ObjectRef::All(_) => None,
    };
    others.iter().filter_map(name).collect()
}

/// What a statement names so that the cluster takes what the snapshot itself has.
fn objects_of(
    contents: &Contents,
    said: &[(TableName, Vec<PartitionName>)],
    others: &[ObjectRef],
) -> Vec<ObjectRef> {
    let is_limited = |table: &TableName| {
        let said = said.iter().find(|(name, _)| name == table);
        said.is_some_and(|(_, names)| !names.is_empty())
    };
    let parts = contents.parts().into_iter();
    let tables = parts.map(|part| {
        let partitions = match part.is_whole && !is_limited(part.table) {
            true => Partitions::All,
            false => Partitions::Named {
                temporary: false,
                names: part.partitions.iter().map(|p| p.name.clone()).collect(),
            },
        };
        ObjectRef::Untyped(TableRef {
            table: Qualified {
                database: None,
                name: part.table.clone(),
            },
            partitions,
            alias: None,
        })
    });
    let mut objects: Vec<ObjectRef> = tables.collect();
    let is_function = |object: &ObjectRef| matches!(object, ObjectRef::All(ObjectKind::Function));
    // Where nothing else has changed, functions alone are no reason for a job.
    if objects.is_empty() && others.iter().all(is_function) {
        return objects;
    }
    objects.extend(others.iter().cloned());
    objects
}

/// Everything that a statement names, as it is now.
pub async fn all_of(
    external: &dyn ExternalCluster,
    database: &DatabaseName,
    backup: &BackupSnapshot,
) -> Result<(BackedUp, Contents), Error> {
    let objects = backup.objects.as_deref();
    let taken = external.backed_up(database, objects).await?;
    let names: Vec<TableName> = taken.tables.iter().map(|(name, _)| name.clone()).collect();
    let now = external.contents(database, &names).await?;
    let contents = Contents {
        cluster_id: external.cluster_id().await?,
        tables: narrowed(now, &taken.tables)?,
        views: views_of(&taken.others),
        ..Contents::default()
    };
    Ok((taken, contents))
}

impl Chains<'_> {
    /// What a backup takes that follows another one; everything, where there is none to follow or
    /// too many snapshots would be needed.
    pub async fn select(
        &self,
        external: &dyn ExternalCluster,
        database: &DatabaseName,
        backup: &BackupSnapshot,
        base: &Base,
    ) -> Result<Selection, Error> {
        let base: Option<Followed> = match base {
            Base::Latest => self.newest(external, database).await?,
            Base::Label(label) => Some(self.named(external, database, label).await?),
        };
        let (taken, all) = all_of(external, database, backup).await?;
        let there: BTreeSet<&TableName> = all.tables.iter().map(|t| &t.table).collect();
        if let Some((missing, _)) = taken.tables.iter().find(|(name, _)| !there.contains(name)) {
            let message = format!("Incorrect table name '{missing}'");
            return Err(Error::new(ErrorKind::UndefinedTable, message));
        }
        let full = |contents| Selection {
            statement: None,
            contents,
        };
        let Some(base) = base else {
            return Ok(full(all));
        };
        let contents = Contents::following(all.clone(), &base);
        if contents.older.is_empty() || contents.older.len() > external.older_max() {
            return Ok(full(all));
        }
        let objects = objects_of(&contents, &taken.tables, &taken.others);
        let statement = match objects.is_empty() {
            true => String::new(),
            false => BackupSnapshot {
                objects: Some(objects),
                ..backup.clone()
            }
            .to_string(),
        };
        Ok(Selection {
            statement: Some(statement),
            contents,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::PartitionContents;
    use crate::statement::{Statement, parse_one};

    #[test]
    fn a_statement_names_what_has_changed() {
        let name = |text: &str| TableName::new(text).expect("valid");
        let partition = |text: &str, older| PartitionContents {
            name: PartitionName::new(text).expect("valid"),
            id: 1,
            version: 2,
            at: String::new(),
            older,
        };
        let table = |table: &str, partitions| TableContents {
            table: name(table),
            definition: "d".into(),
            apart: true,
            partitions,
        };
        let contents = Contents {
            tables: vec![
                table("t", vec![partition("p1", Some(0)), partition("p2", None)]),
                table("u", vec![partition("u", None)]),
                table("v", vec![partition("v", Some(0))]),
                table("w", vec![partition("p1", None)]),
                table("none", Vec::new()),
            ],
            ..Contents::default()
        };
        let said = [(name("w"), vec![PartitionName::new("p1").expect("valid")])];
        let functions = [ObjectRef::All(ObjectKind::Function)];
        let backup = BackupSnapshot {
            objects: Some(objects_of(&contents, &said, &functions)),
            ..match parse_one("BACKUP SNAPSHOT d.s TO r").expect("parses") {
                Statement::Backup(backup) => backup,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            backup.to_string(),
            "BACKUP SNAPSHOT `d`.`s` TO `r` ON (`t` PARTITION (p2), `u`, `w` PARTITION (p1), `none`, ALL FUNCTIONS)"
        );
        let unchanged = Contents {
            tables: vec![table("v", vec![partition("v", Some(0))])],
            ..Contents::default()
        };
        assert_eq!(objects_of(&unchanged, &[], &functions), []);
    }
}
