//! What a backup of another cluster takes, and which parts of it older snapshots have already.
//!
//! What is there is noted before the statement is sent, and looked at again once the cluster has
//! fixed what it copies. What has not moved in between is in the snapshot in the version that was
//! noted; what has moved counts as changed the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{StagedPart, StagedStep};
use crate::names::{BackupTimestamp, PartitionName, SnapshotLabel, TableName};

/// What an incremental backup follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// The newest of the same database that can be followed.
    Latest,
    Label(SnapshotLabel),
}

/// A backup in a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stored {
    pub label: SnapshotLabel,
    pub timestamp: BackupTimestamp,
}

/// A partition, as it was noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NotedPartition", into = "NotedPartition")]
pub struct PartitionContents {
    pub name: PartitionName,
    pub id: i64,
    /// The one that queries see; [`UNKNOWN_VERSION`] where one number does not tell.
    pub version: i64,
    /// When it came to be, as the cluster says it: a restore brings an old version back at another
    /// time.
    pub at: String,
    /// A place among [`Contents::older`]; `None`: in the snapshot itself.
    pub older: Option<u16>,
}

/// The same without names, of which a journal would have thousands.
type NotedPartition = (PartitionName, i64, i64, String, Option<u16>);

/// The version of a partition that has several of them: it is never the same.
pub const UNKNOWN_VERSION: i64 = -1;

impl From<NotedPartition> for PartitionContents {
    fn from((name, id, version, at, older): NotedPartition) -> Self {
        Self {
            name,
            id,
            version,
            at,
            older,
        }
    }
}

impl From<PartitionContents> for NotedPartition {
    fn from(partition: PartitionContents) -> Self {
        let PartitionContents {
            name,
            id,
            version,
            at,
            older,
        } = partition;
        (name, id, version, at, older)
    }
}

/// A table, as it was noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableContents {
    pub table: TableName,
    /// The SHA-256 of what defines it beside its partitions, hex.
    pub definition: String,
    /// Whether its partitions may be in several snapshots: they can be put together again.
    #[serde(default)]
    pub apart: bool,
    pub partitions: Vec<PartitionContents>,
}

/// What a snapshot consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The snapshot that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<SnapshotLabel>,
    /// The cluster, as it tells itself from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Older snapshots that have a part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older: Vec<Stored>,
    pub tables: Vec<TableContents>,
    /// Views and materialized views, which come whole each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<TableName>,
}

/// What a backup takes, fixed before its statement is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// What is sent, where that is not what was asked; empty if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    pub contents: Contents,
}

impl Selection {
    /// Whether there is nothing to take.
    pub fn is_unchanged(&self) -> bool {
        self.statement.as_ref().is_some_and(String::is_empty)
    }
}

/// A partition that has moved while it was backed up.
pub type MovedPartition = (TableName, PartitionName);

/// A snapshot that another one may follow.
#[derive(Clone, Debug)]
pub struct Followed {
    pub stored: Stored,
    pub contents: Arc<Contents>,
    pub moved: BTreeSet<MovedPartition>,
}

/// What one snapshot has of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePart<'c> {
    pub table: &'c TableName,
    pub partitions: Vec<&'c PartitionContents>,
    /// Whether that is all of the table.
    pub is_whole: bool,
}

impl Contents {
    /// What is there now, of which `base` has what has not changed since. A table that is defined in
    /// another way than then has changed as a whole, and so has one whose partitions cannot be put
    /// together when one of them has, or has come or gone.
    pub fn following(now: Self, base: &Followed) -> Self {
        let is_same_cluster = now.cluster_id == base.contents.cluster_id;
        let known: BTreeMap<&TableName, &TableContents> =
            base.contents.tables.iter().map(|t| (&t.table, t)).collect();
        let mut found = Vec::with_capacity(now.tables.len());
        for table in &now.tables {
            let before = known
                .get(&table.table)
                .filter(|before| is_same_cluster && before.definition == table.definition);
            let mut places = base.places_of(before.copied(), table);
            let is_one = |before: &&&TableContents| {
                let first = places.first();
                before.partitions.len() == table.partitions.len()
                    && first.is_some_and(|first| places.iter().all(|place| place == first))
            };
            if !table.apart && before.filter(|before| is_one(before)).is_none() {
                places.fill(None);
            }
            found.push(places);
        }
        let mut older: Vec<Stored> = found.iter().flatten().flatten().cloned().collect();
        older.sort_by(|a, b| (&a.timestamp, &a.label).cmp(&(&b.timestamp, &b.label)));
        older.dedup();
        let mut tables = now.tables;
        for (table, places) in tables.iter_mut().zip(found) {
            for (partition, place) in table.partitions.iter_mut().zip(places) {
                let place = place.and_then(|place| older.iter().position(|o| *o == place));
                partition.older = place.map(|place| place as u16);
            }
        }
        Self {
            base: Some(base.stored.label.clone()),
            older,
            tables,
            ..now
        }
    }

    /// What the snapshot itself has of each table; nothing of those that older ones have whole. A
    /// table without partitions is there each time.
    pub fn parts(&self) -> Vec<TablePart<'_>> {
        self.parts_in(None)
    }

    fn parts_in(&self, place: Option<u16>) -> Vec<TablePart<'_>> {
        fn part(table: &TableContents, place: Option<u16>) -> Option<TablePart<'_>> {
            let all = table.partitions.iter();
            let partitions: Vec<_> = all.filter(|p| p.older == place).collect();
            let is_empty = table.partitions.is_empty() && place.is_none();
            (!partitions.is_empty() || is_empty).then_some(TablePart {
                table: &table.table,
                is_whole: partitions.len() == table.partitions.len(),
                partitions,
            })
        }
        let parts = self.tables.iter().filter_map(|table| part(table, place));
        parts.collect()
    }

    /// Whether the snapshot itself has anything.
    pub fn has_own(&self) -> bool {
        !self.views.is_empty() || !self.parts().is_empty()
    }

    /// How each of the snapshots that are needed is restored, one after the other, `own` last: of
    /// these tables, each with some of its partitions or all.
    pub fn steps(
        &self,
        own: &Stored,
        wanted: &BTreeMap<&TableName, BTreeSet<&PartitionName>>,
    ) -> Vec<StagedStep> {
        let places = (0..self.older.len() as u16).map(Some).chain([None]);
        let step = |place: Option<u16>| {
            let stored = place.map_or(own, |place| &self.older[usize::from(place)]);
            let parts = self.parts_in(place).into_iter().filter_map(|part| {
                let table = self.tables.iter().find(|t| t.table == *part.table)?;
                let named = wanted.get(part.table)?;
                let is_wanted =
                    |p: &&&PartitionContents| named.is_empty() || named.contains(&p.name);
                let partitions = part.partitions.iter().filter(is_wanted);
                let partitions: Vec<_> = partitions
                    .map(|p| (p.name.clone(), place.map(|_| p.version)))
                    .collect();
                // A snapshot may have more of a table than is there by now; of one that must not be
                // apart it has what is there.
                let is_all = partitions.len() == table.partitions.len();
                let is_unpartitioned = matches!(&table.partitions[..], [only] if only.name.as_str() == table.table.as_str());
                (!partitions.is_empty()).then(|| StagedPart {
                    is_whole: is_all && (!table.apart || is_unpartitioned),
                    table: part.table.clone(),
                    partitions,
                })
            });
            let parts: Vec<_> = parts.collect();
            (!parts.is_empty()).then(|| StagedStep {
                label: stored.label.clone(),
                timestamp: stored.timestamp.clone(),
                parts,
            })
        };
        places.filter_map(step).collect()
    }

    /// What it takes, for people.
    pub fn summary(&self) -> String {
        let all: usize = self.tables.iter().map(|t| t.partitions.len()).sum();
        let own: usize = self.parts().iter().map(|part| part.partitions.len()).sum();
        let Some(base) = self.base.as_ref().filter(|_| own < all) else {
            return format!("a full backup: {all} partitions");
        };
        if !self.has_own() {
            return format!("nothing has changed since snapshot {base}: nothing is sent");
        }
        let older: Vec<&str> = self.older.iter().map(|s| s.label.as_str()).collect();
        format!(
            "{own} of {all} partitions have changed since snapshot {base}; the others are in {}",
            older.join(", ")
        )
    }

    /// What has moved since it was noted: of what the snapshot itself has what is not as it was, or
    /// was not `taken`; all of a table that is defined in another way by now.
    pub fn moved(
        &self,
        now: &[TableContents],
        taken: impl Fn(&TableName) -> bool,
    ) -> BTreeSet<MovedPartition> {
        let now: BTreeMap<&TableName, &TableContents> = now.iter().map(|t| (&t.table, t)).collect();
        let mut moved = BTreeSet::new();
        for part in self.parts() {
            let noted = self.tables.iter().find(|t| t.table == *part.table);
            let there = now.get(part.table).filter(|there| {
                taken(part.table) && noted.is_some_and(|t| t.definition == there.definition)
            });
            for partition in part.partitions {
                let mut same = there.iter().flat_map(|t| &t.partitions);
                if !same.any(|p| p.is_same(partition)) {
                    moved.insert((part.table.clone(), partition.name.clone()));
                }
            }
        }
        moved
    }

    /// The same where nothing is known of what has become of it.
    pub fn all_moved(&self) -> BTreeSet<MovedPartition> {
        self.moved(&[], |_| false)
    }
}

impl PartitionContents {
    /// Whether nothing has been written between the two.
    fn is_same(&self, other: &Self) -> bool {
        let tells = |p: &Self| (p.id, p.version, p.at.clone());
        self.name == other.name && tells(self) == tells(other) && self.version != UNKNOWN_VERSION
    }
}

impl Followed {
    /// Which snapshot has each of a table's partitions as it is now.
    fn places_of(
        &self,
        before: Option<&TableContents>,
        now: &TableContents,
    ) -> Vec<Option<Stored>> {
        let before: BTreeMap<&PartitionName, &PartitionContents> = before
            .iter()
            .flat_map(|before| before.partitions.iter().map(|p| (&p.name, p)))
            .collect();
        let place = |partition: &PartitionContents| {
            let same = before
                .get(&partition.name)
                .filter(|p| p.is_same(partition))?;
            match same.older {
                Some(place) => self.contents.older.get(usize::from(place)).cloned(),
                None => {
                    let name = (now.table.clone(), partition.name.clone());
                    (!self.moved.contains(&name)).then(|| self.stored.clone())
                }
            }
        };
        now.partitions.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<N: TryFrom<String, Error = crate::error::Error>>(text: &str) -> N {
        N::try_from(text.to_owned()).expect("a valid name")
    }

    fn stored(label: &str) -> Stored {
        Stored {
            label: name(label),
            timestamp: BackupTimestamp::new("2026-01-02-03-04-05-678").expect("valid"),
        }
    }

    fn table(table: &str, definition: &str, partitions: &[(&str, i64, i64)]) -> TableContents {
        let partition = |(partition, id, version): &(&str, i64, i64)| PartitionContents {
            name: name(partition),
            id: *id,
            version: *version,
            at: "2026-01-01 00:00:00".into(),
            older: None,
        };
        TableContents {
            table: name(table),
            definition: definition.into(),
            apart: true,
            partitions: partitions.iter().map(partition).collect(),
        }
    }

    fn follow(
        now: Vec<TableContents>,
        base: &Contents,
        label: &str,
        moved: &[(&str, &str)],
    ) -> Contents {
        let moved = moved.iter().map(|(t, p)| (name(t), name(p)));
        let base = Followed {
            stored: stored(label),
            contents: Arc::new(base.clone()),
            moved: moved.collect(),
        };
        let now = Contents {
            tables: now,
            ..Contents::default()
        };
        Contents::following(now, &base)
    }

    /// Where each partition is: `table.partition@label`, and nothing after `@` in the snapshot.
    fn places(contents: &Contents) -> String {
        let place = |p: &PartitionContents| match p.older {
            Some(place) => contents.older[usize::from(place)].label.to_string(),
            None => String::new(),
        };
        let of_table = |t: &TableContents| {
            let all = t.partitions.iter();
            let all = all.map(|p| format!("{}.{}@{}", t.table, p.name, place(p)));
            all.collect::<Vec<_>>()
        };
        let all: Vec<String> = contents.tables.iter().flat_map(of_table).collect();
        all.join(" ")
    }

    #[test]
    fn what_has_not_changed_is_where_it_was() {
        let full = Contents {
            tables: vec![
                table("t", "a", &[("p1", 1, 5), ("p2", 2, 5), ("p3", 3, 5)]),
                table("u", "b", &[("u", 9, 2)]),
                table("v", "c", &[("v", 8, 2)]),
            ],
            ..Contents::default()
        };
        // Of another version, of another id, gone, new, of another definition, and moved meanwhile.
        let now = vec![
            table("t", "a", &[("p1", 1, 6), ("p2", 2, 5), ("p4", 4, 1)]),
            table("u", "b", &[("u", 9, 2)]),
            table("v", "other", &[("v", 8, 2)]),
        ];
        let first = follow(now.clone(), &full, "full", &[("u", "u")]);
        assert_eq!(places(&first), "t.p1@ t.p2@full t.p4@ u.u@ v.v@");
        let now = vec![
            table("t", "a", &[("p1", 1, 6), ("p2", 7, 5), ("p4", 4, 1)]),
            table("u", "b", &[("u", 9, 2)]),
            table("v", "other", &[("v", 8, 1)]),
        ];
        let second = follow(now, &first, "first", &[]);
        assert_eq!(
            places(&second),
            "t.p1@first t.p2@ t.p4@first u.u@first v.v@"
        );
        assert_eq!(second.older.len(), 1);
        let third = follow(second.tables.clone(), &second, "second", &[]);
        assert_eq!(
            places(&third),
            "t.p1@first t.p2@second t.p4@first u.u@first v.v@second"
        );
        assert!(!third.has_own() && second.has_own());
        let whole = |part: &TablePart<'_>| (part.table.to_string(), part.is_whole);
        let parts: Vec<_> = second.parts().iter().map(whole).collect();
        assert_eq!(parts, [("t".to_owned(), false), ("v".to_owned(), true)]);
    }

    #[test]
    fn a_version_alone_does_not_tell() {
        let full = Contents {
            cluster_id: Some("7".into()),
            tables: vec![table("t", "a", &[("p1", 1, 5), ("p2", 2, 5)])],
            ..Contents::default()
        };
        let base = Followed {
            stored: stored("full"),
            contents: Arc::new(full.clone()),
            moved: BTreeSet::new(),
        };
        let following = |change: fn(&mut Contents)| {
            let mut now = full.clone();
            change(&mut now);
            places(&Contents::following(now, &base))
        };
        assert_eq!(following(|_| ()), "t.p1@full t.p2@full");
        // A restore brings a version back, at another time; another cluster counts by itself; and
        // what has several versions has none that tells.
        let restored = |now: &mut Contents| now.tables[0].partitions[0].at = "later".into();
        assert_eq!(following(restored), "t.p1@ t.p2@full");
        assert_eq!(
            following(|now| now.cluster_id = Some("8".into())),
            "t.p1@ t.p2@"
        );
        let several = |now: &mut Contents| now.tables[0].partitions[0].version = UNKNOWN_VERSION;
        assert_eq!(following(several), "t.p1@ t.p2@full");
        // Of a table that cannot be put together nothing stays where one partition has changed, has
        // come or has gone.
        let apart = |now: &mut Contents| now.tables[0].apart = false;
        assert_eq!(following(apart), "t.p1@full t.p2@full");
        assert_eq!(
            following(|now| {
                now.tables[0].apart = false;
                now.tables[0].partitions[1].version = 6;
            }),
            "t.p1@ t.p2@"
        );
        assert_eq!(
            following(|now| {
                now.tables[0].apart = false;
                now.tables[0].partitions.pop();
            }),
            "t.p1@"
        );
    }

    #[test]
    fn a_chain_is_restored_oldest_first() {
        let full = Contents {
            tables: vec![
                table("t", "a", &[("p1", 1, 5), ("p2", 2, 5)]),
                table("u", "b", &[("u", 9, 2)]),
            ],
            ..Contents::default()
        };
        let now = vec![
            table("t", "a", &[("p1", 1, 6), ("p2", 2, 5)]),
            table("u", "b", &[("u", 9, 2)]),
        ];
        let first = follow(now, &full, "full", &[]);
        let (t, u, p2) = (name("t"), name("u"), name("p2"));
        let told = |wanted: BTreeMap<&TableName, BTreeSet<&PartitionName>>| {
            let steps = first.steps(&stored("first"), &wanted);
            let part = |p: &StagedPart| {
                let names = p.partitions.iter();
                let names = names.map(|(name, version)| format!("{name}/{version:?}"));
                format!(
                    "{} {} {}",
                    p.table,
                    names.collect::<Vec<_>>().join(","),
                    p.is_whole
                )
            };
            let step = |s: &StagedStep| {
                let parts: Vec<_> = s.parts.iter().map(part).collect();
                format!("{}: {}", s.label, parts.join("; "))
            };
            steps.iter().map(step).collect::<Vec<_>>()
        };
        assert_eq!(
            told([(&t, BTreeSet::new()), (&u, BTreeSet::new())].into()),
            [
                "full: t p2/Some(5) false; u u/Some(2) true",
                "first: t p1/None false"
            ]
        );
        assert_eq!(
            told([(&t, [&p2].into())].into()),
            ["full: t p2/Some(5) false"]
        );
    }

    #[test]
    fn what_moves_meanwhile_is_told() {
        let noted = Contents {
            tables: vec![table("t", "a", &[("p1", 1, 5), ("p2", 2, 5), ("p3", 3, 5)])],
            ..Contents::default()
        };
        let now = [table("t", "a", &[("p1", 1, 5), ("p2", 2, 6)])];
        let moved = [(name("t"), name("p2")), (name("t"), name("p3"))];
        assert_eq!(noted.moved(&now, |_| true), moved.into());
    }

    #[test]
    fn partitions_are_stored_without_names_of_fields() {
        let contents = Contents {
            tables: vec![table("t", "a", &[("p1", 1, 5)])],
            ..Contents::default()
        };
        let stored = serde_json::to_string(&contents).expect("serializes");
        let expected = r#"{"tables":[{"table":"t","definition":"a","apart":true,"partitions":[["p1",1,5,"2026-01-01 00:00:00",null]]}]}"#;
        assert_eq!(stored, expected);
        let again: Contents = serde_json::from_str(&stored).expect("reads");
        assert_eq!(again, contents);
    }
}
