//! What a snapshot should have under its label, held against what is there.

use std::collections::{BTreeMap, BTreeSet};

use super::Looked;
use crate::job::FindingKind;
use crate::repository::starrocks_layout::{
    CONTENT, FileStatus, INFO_PREFIX, Info, InfoIndex, PART, StoredFile, StoredLabel, split_md5,
};

const META: &str = "__meta";

/// A tablet that an `__info_` file names.
pub(super) struct NamedTablet<'i> {
    /// Its directory below its label's.
    pub directory: String,
    pub id: &'i str,
    /// The files that it must have, where they are named.
    pub files: &'i [String],
}

pub(super) fn tablets(info: &Info) -> Vec<NamedTablet<'_>> {
    let mut found = Vec::new();
    let database = info.id.unwrap_or_default();
    for table in info.backup_objects.values() {
        for partition in table.partitions.values() {
            let physical = partition.physical.values();
            let physical = physical.map(|physical| (physical.id, &physical.indexes));
            let logical = [(partition.id, &partition.indexes)];
            for (part, indexes) in logical.into_iter().chain(physical) {
                for index in indexes.values() {
                    for (id, files) in &index.tablets {
                        let directory = format!(
                            "{CONTENT}/__db_{database}/__tbl_{}/__part_{part}/__idx_{}/__{id}",
                            table.id, index.id
                        );
                        found.push(NamedTablet {
                            directory,
                            id,
                            files,
                        });
                    }
                }
            }
        }
    }
    found
}

/// Whether an `__info_` file says of every index which tablets it has, in a form that is known.
pub(super) fn names_every_tablet(info: &Info) -> bool {
    let full = |indexes: &BTreeMap<String, InfoIndex>| {
        indexes.values().all(|index| !index.tablets.is_empty())
    };
    let partitions = info
        .backup_objects
        .values()
        .flat_map(|table| table.partitions.values());
    info.id.is_some()
        && partitions.into_iter().all(|partition| {
            let has_some = !partition.indexes.is_empty() || !partition.physical.is_empty();
            let physical = partition.physical.values();
            has_some
                && full(&partition.indexes)
                && physical
                    .into_iter()
                    .all(|part| !part.indexes.is_empty() && full(&part.indexes))
        })
}

/// StarRocks looks for `__meta*` and `__info_<time>*`, and wants one file of each.
pub(super) fn check_names(looked: &mut Looked, directory: &str, stored: &StoredLabel) {
    let all: Vec<u32> = (0..looked.backups.len() as u32).collect();
    if all.is_empty() {
        return;
    }
    let strays = |prefix: &str| {
        let strays = stored.strays.iter();
        let alike = strays.filter(|stray| stray.starts_with(prefix));
        alike.cloned().collect::<Vec<_>>()
    };
    let metas = strays(META);
    match stored.metas + metas.len() {
        0 => {
            let object = format!("{directory}/{META}");
            let detail = "the definitions of its tables";
            looked.find(FindingKind::Missing, object, &all, detail);
        }
        1 if metas.is_empty() => {}
        _ => {
            let detail = format!(
                "{} files begin so, and StarRocks wants one",
                stored.metas + metas.len()
            );
            let object = format!("{directory}/{META}*");
            looked.find(FindingKind::NotRestorable, object, &all, &detail);
        }
    }
    for place in all {
        let time = looked.backups[place as usize].timestamp.to_string();
        let prefix = format!("{INFO_PREFIX}{time}");
        let whole = stored
            .infos
            .iter()
            .filter(|info| info.timestamp.starts_with(&time));
        let count = whole.count() + strays(&prefix).len();
        if count > 1 {
            let detail = format!("{count} files begin so, and StarRocks wants one");
            let object = format!("{directory}/{prefix}*");
            looked.find(FindingKind::NotRestorable, object, &[place], &detail);
        }
    }
}

/// Holds a tablet that an `__info_` file names against the files that are there.
pub(super) fn check_tablet(
    looked: &mut Looked,
    label: &str,
    place: u32,
    tablet: &NamedTablet<'_>,
    there: &BTreeMap<&str, Vec<&StoredFile>>,
) {
    let object = format!("{label}/{}", tablet.directory);
    let Some(files) = there.get(tablet.directory.as_str()) else {
        let detail = "none of this tablet's files is there";
        looked.find(FindingKind::Missing, object, &[place], detail);
        return;
    };
    let name_of = |file: &StoredFile| file.path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut whole: BTreeMap<String, u32> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for file in files.iter().filter(|file| file.status == FileStatus::Whole) {
        looked.need(file, place);
        let name = name_of(file);
        let stem = split_md5(&name).map_or(name.as_str(), |(stem, _)| stem);
        *whole.entry(stem.to_owned()).or_default() += 1;
        names.insert(name);
    }
    for (stem, count) in whole.iter().filter(|(_, count)| **count > 1) {
        let detail = format!("{count} files of different MD5s are called so");
        let object = format!("{object}/{stem}");
        looked.find(FindingKind::Damaged, object, &[place], &detail);
    }
    for file in files.iter().filter(|file| file.status != FileStatus::Whole) {
        let name = name_of(file);
        // StarRocks takes what follows the last dot for an MD5, and of files alike the first.
        let stem = name.rsplit_once('.').map(|(stem, _)| stem);
        let (kind, backups, detail) = match stem {
            Some(stem) if !whole.contains_key(stem) => {
                let detail = "StarRocks reads it as a file of the tablet, and it has no MD5";
                (FindingKind::NotRestorable, &[place][..], detail)
            }
            _ if name.ends_with(PART) => (
                FindingKind::Unreferenced,
                &[][..],
                "a file that was not finished",
            ),
            _ => (
                FindingKind::Foreign,
                &[][..],
                "nothing that a tablet has is called so",
            ),
        };
        looked.find(kind, file.path.clone(), backups, detail);
    }
    for name in tablet.files.iter().filter(|name| !names.contains(*name)) {
        let object = format!("{object}/{name}");
        looked.find(
            FindingKind::Missing,
            object,
            &[place],
            "named by the __info_ file",
        );
    }
    // A tablet of a primary key table has another header.
    let header = format!("{}.hdr", tablet.id);
    let headers = [header.as_str(), "meta"];
    let named = |of: &str| {
        tablet
            .files
            .iter()
            .any(|name| split_md5(name).is_some_and(|(stem, _)| stem == of))
    };
    match headers.iter().filter(|of| whole.contains_key(**of)).count() {
        0 if !headers.iter().any(|of| named(of)) => {
            let object = format!("{object}/{header}");
            let detail = "neither the header of the tablet nor its \"meta\" is there";
            looked.find(FindingKind::Missing, object, &[place], detail);
        }
        2 => {
            let detail = "a header and a \"meta\": StarRocks takes one of them alone";
            looked.find(FindingKind::NotRestorable, object, &[place], detail);
        }
        _ => {}
    }
}
