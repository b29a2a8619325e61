//! What a BACKUP or RESTORE names, checked by itself and against what a backup holds.

use crate::error::{Error, ErrorKind};
use crate::job::{RestoreObject, RestoreView};
use crate::names::*;
use crate::repository::Manifest;
use crate::statement::{ExternalCatalogs, ObjectKind, ObjectRef, Partitions, Qualified, TableRef};

/// A database before a table in ON must be the label's: StarRocks 2.x refuses any, later versions
/// ignore it silently.
fn check_prefix<N: std::fmt::Display>(
    database: &DatabaseName,
    table: &Qualified<N>,
) -> Result<(), Error> {
    match &table.database {
        Some(named) if !named.as_str().eq_ignore_ascii_case(database.as_str()) => Err(Error::new(
            ErrorKind::IllegalClause,
            format!("Cannot specify database name on backup objects: {}. Sepcify database name before label", table.name),
        )
        .hint(format!("The job is about database {database}; as in BACKUP SNAPSHOT db.label."))),
        _ => Ok(()),
    }
}

pub(super) fn check_prefixes(
    database: &DatabaseName,
    objects: Option<&[ObjectRef]>,
) -> Result<(), Error> {
    objects
        .unwrap_or_default()
        .iter()
        .try_for_each(|object| match object {
            ObjectRef::Untyped(table) | ObjectRef::Table(table) => {
                check_prefix(database, &table.table)
            }
            ObjectRef::Named { name, .. } => check_prefix(database, name),
            ObjectRef::All(_) => Ok(()),
        })
}

pub(in crate::admission) fn refuse_catalogs(
    catalogs: Option<&ExternalCatalogs>,
) -> Result<(), Error> {
    match catalogs {
        None => Ok(()),
        Some(ExternalCatalogs::All) => Err(Error::unsupported(
            "ALL EXTERNAL CATALOGS: the embedded cluster has no catalogs, so this",
        )),
        Some(ExternalCatalogs::Named(names)) => {
            let names: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
            Err(Error::unsupported(format_args!(
                "external catalog {}: the embedded cluster has no catalogs, so this",
                names.join(", ")
            )))
        }
    }
}

/// Refuses what RESTORE names twice, before anything is looked up.
pub(super) fn refuse_twice(objects: &[ObjectRef]) -> Result<(), Error> {
    let mut before: Vec<(&TableName, &TableName)> = Vec::new();
    for object in objects {
        let (name, alias) = match object {
            ObjectRef::Untyped(table) | ObjectRef::Table(table) => {
                (&table.table.name, table.alias.as_ref())
            }
            ObjectRef::Named { name, alias, .. } => (&name.name, alias.as_ref()),
            ObjectRef::All(_) => continue,
        };
        let target = alias.unwrap_or(name);
        if before.iter().any(|(known, _)| *known == name) {
            return Err(Error::new(
                ErrorKind::DuplicateTable,
                format!("Duplicated table: {name}"),
            ));
        }
        if before.iter().any(|(_, known)| *known == target) {
            return Err(Error::new(
                ErrorKind::DuplicateTable,
                format!("Duplicated alias name: {target}"),
            ));
        }
        before.push((name, target));
    }
    Ok(())
}

fn restored_table(reference: &TableRef) -> Result<RestoreObject, Error> {
    let partitions = match &reference.partitions {
        Partitions::All => Vec::new(),
        Partitions::Named {
            temporary: true, ..
        } => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "Do not support restoring temporary partitions",
            ));
        }
        Partitions::Named { names, .. } => names.clone(),
        Partitions::Keyed(_) => {
            return Err(Error::unsupported("PARTITION (column = value) in RESTORE")
                .hint("Name partitions."));
        }
    };
    Ok(RestoreObject {
        table: reference.table.name.clone(),
        partitions,
        alias: reference.alias.clone(),
    })
}

/// What a RESTORE takes out of a snapshot; everything without ON.
pub(super) fn chosen(
    manifest: &Manifest,
    objects: Option<&[ObjectRef]>,
) -> Result<(Vec<RestoreObject>, Vec<RestoreView>), Error> {
    let all = [
        ObjectRef::All(ObjectKind::Table),
        ObjectRef::All(ObjectKind::View),
    ];
    let (mut tables, mut views): (Vec<RestoreObject>, Vec<RestoreView>) = Default::default();
    let objects = objects.unwrap_or(&all);
    for object in objects {
        match object {
            ObjectRef::Untyped(reference)
                if reference.partitions == Partitions::All
                    && manifest.view(&reference.table.name).is_ok() =>
            {
                views.push(RestoreView {
                    view: reference.table.name.clone(),
                    alias: reference.alias.clone(),
                });
            }
            ObjectRef::Untyped(reference) | ObjectRef::Table(reference) => {
                let object = restored_table(reference)?;
                manifest.choose(&object)?;
                tables.push(object);
            }
            ObjectRef::Named {
                kind: ObjectKind::View,
                name,
                alias,
            } => {
                manifest.view(&name.name)?;
                views.push(RestoreView {
                    view: name.name.clone(),
                    alias: alias.clone(),
                });
            }
            ObjectRef::Named { kind, name, .. } => {
                return Err(Error::unsupported(format_args!(
                    "{} {} in RESTORE",
                    kind.to_string().to_lowercase(),
                    name.name
                )));
            }
            ObjectRef::All(ObjectKind::Table | ObjectKind::View) => {}
            ObjectRef::All(kind) => {
                return Err(Error::unsupported(format_args!("ALL {kind}S in RESTORE")));
            }
        }
    }
    // What is named by itself may carry an alias; ALL takes the rest.
    if objects.contains(&ObjectRef::All(ObjectKind::Table)) {
        let rest: Vec<_> = manifest
            .tables
            .iter()
            .filter(|t| !tables.iter().any(|o| o.table == t.name))
            .collect();
        tables.extend(rest.into_iter().map(|t| RestoreObject {
            table: t.name.clone(),
            partitions: Vec::new(),
            alias: None,
        }));
    }
    if objects.contains(&ObjectRef::All(ObjectKind::View)) {
        let rest: Vec<_> = manifest
            .views
            .iter()
            .filter(|v| !views.iter().any(|o| o.view == v.name))
            .collect();
        views.extend(rest.into_iter().map(|v| RestoreView {
            view: v.name.clone(),
            alias: None,
        }));
    }
    // Only now is it known what ALL stands for: two objects may not become one.
    let targets: Vec<&TableName> = tables
        .iter()
        .map(RestoreObject::target)
        .chain(views.iter().map(RestoreView::target))
        .collect();
    if let Some((_, twice)) = targets
        .iter()
        .enumerate()
        .find(|(i, target)| targets[..*i].contains(target))
    {
        return Err(Error::new(
            ErrorKind::DuplicateTable,
            format!("Duplicated alias name: {twice}"),
        ));
    }
    Ok((tables, views))
}
