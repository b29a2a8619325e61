//! Statements as a version of StarRocks takes them. Every name and every text on its way to a
//! frontend is quoted here.

use std::fmt;

use crate::cluster::{DatabaseChange, TableChange};
use crate::error::{Error, ErrorKind};
use crate::names::{ClusterName, DatabaseName, PartitionName};
use crate::statement::{
    BackupSnapshot, CancelScope, CreateRepository, DropSnapshot, ExternalCatalogs, ObjectKind,
    ObjectRef, Partitions, Properties, Qualified, Recover, RestoreSnapshot, Statement, TableRef,
};

/// A version of StarRocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeVersion(pub u32, pub u32, pub u32);

impl FeVersion {
    /// Reads `3.3.16-abcdef`, or `StarRocks version 2.3.0`; a build from a branch has no number.
    pub fn parse(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.')
            .find_map(|word| {
                let mut parts = word.split('.').map(|p| p.parse::<u32>().ok());
                let (major, minor) = (parts.next()??, parts.next()??);
                Some(Self(major, minor, parts.next().flatten().unwrap_or(0)))
            })
    }

    fn is_before(self, major: u32, minor: u32) -> bool {
        self < Self(major, minor, 0)
    }

    /// Whether SHOW BACKUP without FROM tells of all databases.
    pub fn shows_all_databases(self) -> bool {
        !self.is_before(3, 0)
    }

    /// Whether a backup of a whole database takes its views.
    pub fn backs_up_views(self) -> bool {
        !self.is_before(3, 4)
    }

    /// Whether SHOW SNAPSHOT takes a list of labels.
    pub fn lists_some_snapshots(self) -> bool {
        !self.is_before(3, 0)
    }

    /// Whether INSERT OVERWRITE takes partitions.
    pub fn overwrites_partitions(self) -> bool {
        !self.is_before(2, 5)
    }

    /// Whether times in SHOW are fixed to UTC+8, whatever the session says.
    pub fn shows_chinese_time(self) -> bool {
        !self.is_before(4, 1)
    }
}

impl fmt::Display for FeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A name in back-quotes. StarRocks leaves out every back-quote inside them, so a name that has one
/// cannot be said.
pub fn identifier(name: &str) -> Result<String, Error> {
    if name.contains('`') || name.contains('\0') {
        return Err(Error::new(
            ErrorKind::InvalidName,
            format!("StarRocks cannot take the name \"{name}\": it contains a back-quote"),
        ));
    }
    Ok(format!("`{name}`"))
}

/// A text in single quotes, by StarRocks' escapes.
pub fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("''"),
            '\0' => out.push_str("\\0"),
            '\u{1a}' => out.push_str("\\Z"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// A table by its database.
pub fn path(database: &DatabaseName, table: &str) -> Result<String, Error> {
    let database = identifier(database.as_str())?;
    Ok(format!("{database}.{}", identifier(table)?))
}

/// ` PARTITION (…)`; nothing for all of them.
pub fn partitions(names: &[PartitionName]) -> Result<String, Error> {
    if names.is_empty() {
        return Ok(String::new());
    }
    let names = names.iter().map(|name| identifier(name.as_str()));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    Ok(format!(" PARTITION ({})", names.join(", ")))
}

/// The statement of a change to a table; every version takes them.
pub fn table_change(database: &DatabaseName, change: TableChange<'_>) -> Result<String, Error> {
    Ok(match change {
        TableChange::Swap { table, with } => format!(
            "ALTER TABLE {} SWAP WITH {}",
            path(database, table)?,
            identifier(with)?
        ),
        TableChange::Rename { table, to } => format!(
            "ALTER TABLE {} RENAME {}",
            path(database, table)?,
            identifier(to)?
        ),
        TableChange::Drop { table } => {
            format!("DROP TABLE IF EXISTS {}", path(database, table)?)
        }
        TableChange::AddPartition { table, line } => {
            format!("ALTER TABLE {} ADD {line}", path(database, table)?)
        }
        TableChange::Dynamic { table, enable } => format!(
            "ALTER TABLE {} SET (\"dynamic_partition.enable\" = \"{enable}\")",
            path(database, table)?
        ),
        TableChange::Overwrite {
            table,
            partitions: names,
            from,
        } => format!(
            "INSERT OVERWRITE {}{} SELECT * FROM {}{1}",
            path(database, table)?,
            partitions(names)?,
            path(database, from)?,
        ),
    })
}

/// The statement that makes a database, or drops it; every version takes them.
pub fn database_change(database: &DatabaseName, change: DatabaseChange) -> Result<String, Error> {
    let database = identifier(database.as_str())?;
    Ok(match change {
        DatabaseChange::Create => format!("CREATE DATABASE IF NOT EXISTS {database}"),
        DatabaseChange::Drop => format!("DROP DATABASE IF EXISTS {database} FORCE"),
    })
}

/// Prints statements for one cluster.
pub struct Printer<'a> {
    /// The cluster, for messages.
    pub cluster: &'a ClusterName,
    pub version: FeVersion,
}

impl Printer<'_> {
    /// Refuses what an older version does not have.
    fn needs(&self, major: u32, minor: u32, what: impl fmt::Display) -> Result<(), Error> {
        if !self.version.is_before(major, minor) {
            return Ok(());
        }
        let message = format!(
            "{what} needs StarRocks {major}.{minor}; cluster \"{}\" is {}",
            self.cluster, self.version
        );
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// The statement for the frontend; 0A000 for what its version cannot do, and for statements
    /// that it has no words for.
    pub fn print(&self, statement: &Statement) -> Result<String, Error> {
        match statement {
            Statement::Backup(backup) => self.backup(backup),
            Statement::Restore(restore) => self.restore(restore),
            Statement::Cancel(cancel) => {
                let scope = match &cancel.scope {
                    CancelScope::Current => {
                        return Err(Error::internal(
                            "a CANCEL was to be sent without its database",
                        ));
                    }
                    CancelScope::Database(name) => format!("FROM {}", identifier(name.as_str())?),
                    CancelScope::ExternalCatalog => {
                        self.needs(3, 4, "CANCEL … FOR EXTERNAL CATALOG")?;
                        "FOR EXTERNAL CATALOG".into()
                    }
                };
                Ok(format!("CANCEL {} {scope}", cancel.kind))
            }
            Statement::CreateRepository(create) => self.create_repository(create),
            Statement::DropRepository(name) => {
                Ok(format!("DROP REPOSITORY {}", identifier(name.as_str())?))
            }
            Statement::DropSnapshot(DropSnapshot {
                label,
                repository,
                force,
            }) => {
                self.needs(4, 2, "DROP SNAPSHOT")?;
                let force = if *force { " FORCE" } else { "" };
                Ok(format!(
                    "DROP SNAPSHOT {} ON {}{force}",
                    identifier(label.as_str())?,
                    identifier(repository.as_str())?
                ))
            }
            Statement::Recover(recover) => match recover {
                Recover::Database(name) => {
                    Ok(format!("RECOVER DATABASE {}", identifier(name.as_str())?))
                }
                Recover::Table(table) => Ok(format!("RECOVER TABLE {}", qualified(table)?)),
                Recover::Partition(partition, table) => Ok(format!(
                    "RECOVER PARTITION {} FROM {}",
                    identifier(partition.as_str())?,
                    qualified(table)?
                )),
            },
            _ => Err(Error::unsupported("this statement on a StarRocks cluster")),
        }
    }

    fn create_repository(&self, create: &CreateRepository) -> Result<String, Error> {
        let broker = match &create.broker {
            Some(broker) => format!(" {}", identifier(broker.as_str())?),
            None => {
                self.needs(2, 5, "WITH BROKER without a broker's name")?;
                String::new()
            }
        };
        Ok(format!(
            "CREATE {}REPOSITORY {} WITH BROKER{broker} ON LOCATION {}{}",
            if create.read_only { "READ ONLY " } else { "" },
            identifier(create.name.as_str())?,
            literal(&create.location),
            properties(&create.properties)
        ))
    }

    fn backup(&self, backup: &BackupSnapshot) -> Result<String, Error> {
        if backup.properties.get("ttl").is_some() {
            self.needs(4, 2, "the property \"ttl\" of BACKUP")?;
        }
        let catalogs = match &backup.catalogs {
            Some(catalogs) => format!("{} ", self.catalogs(catalogs, "BACKUP")?),
            None => String::new(),
        };
        if backup.catalogs.is_none() && backup.objects.is_none() {
            self.needs(2, 5, "BACKUP of a whole database (without ON)")?;
        }
        Ok(format!(
            "BACKUP {catalogs}SNAPSHOT {} TO {}{}{}",
            qualified(&backup.label)?,
            identifier(backup.repository.as_str())?,
            self.objects(backup.objects.as_deref(), "BACKUP")?,
            properties(&backup.properties)
        ))
    }

    fn restore(&self, restore: &RestoreSnapshot) -> Result<String, Error> {
        let catalogs = match &restore.catalogs {
            Some(catalogs) => format!(" {}", self.catalogs(catalogs, "RESTORE")?),
            None => String::new(),
        };
        let database = match &restore.database {
            Some((source, target)) => {
                self.needs(3, 4, "RESTORE … DATABASE")?;
                let target = target
                    .as_ref()
                    .map(|t| identifier(t.as_str()))
                    .transpose()?;
                let target = target.map_or(String::new(), |t| format!(" AS {t}"));
                format!(" DATABASE {}{target}", identifier(source.as_str())?)
            }
            None => String::new(),
        };
        if restore.catalogs.is_none() && restore.objects.is_none() {
            self.needs(2, 5, "RESTORE of a whole snapshot (without ON)")?;
        }
        Ok(format!(
            "RESTORE SNAPSHOT {} FROM {}{catalogs}{database}{}{}",
            qualified(&restore.label)?,
            identifier(restore.repository.as_str())?,
            self.objects(restore.objects.as_deref(), "RESTORE")?,
            properties(&restore.properties)
        ))
    }

    fn catalogs(&self, catalogs: &ExternalCatalogs, verb: &str) -> Result<String, Error> {
        self.needs(3, 4, format_args!("{verb} of external catalogs"))?;
        match catalogs {
            ExternalCatalogs::All => Ok("ALL EXTERNAL CATALOGS".into()),
            ExternalCatalogs::Named(names) => {
                let mut list = Vec::new();
                for (name, alias) in names {
                    let alias = alias.as_ref().map(|a| identifier(a)).transpose()?;
                    list.push(
                        identifier(name)? + &alias.map_or(String::new(), |a| format!(" AS {a}")),
                    );
                }
                Ok(format!("EXTERNAL CATALOGS ({})", list.join(", ")))
            }
        }
    }

    fn objects(&self, objects: Option<&[ObjectRef]>, verb: &str) -> Result<String, Error> {
        let Some(objects) = objects else {
            return Ok(String::new());
        };
        let mut list = Vec::new();
        for object in objects {
            list.push(match object {
                ObjectRef::Untyped(table) => table_ref(table)?,
                // Before there were other kinds, a name was a table's.
                ObjectRef::Table(table) if self.version.is_before(3, 4) => table_ref(table)?,
                ObjectRef::Table(table) => format!("TABLE {}", table_ref(table)?),
                ObjectRef::Named { kind, name, alias } => {
                    self.needs(3, 4, format_args!("{kind} {} in {verb}", name.name))?;
                    let alias = alias.as_ref().map(|a| identifier(a.as_str())).transpose()?;
                    format!(
                        "{kind} {}{}",
                        qualified(name)?,
                        alias.map_or(String::new(), |a| format!(" AS {a}"))
                    )
                }
                ObjectRef::All(kind) => {
                    self.needs(3, 4, format_args!("ALL {kind}S in {verb}"))?;
                    match kind {
                        ObjectKind::MaterializedView => "ALL MATERIALIZED VIEWS".into(),
                        kind => format!("ALL {kind}S"),
                    }
                }
            });
        }
        Ok(format!(" ON ({})", list.join(", ")))
    }
}

fn qualified<N: AsRef<str>>(name: &Qualified<N>) -> Result<String, Error> {
    let last = identifier(name.name.as_ref())?;
    match &name.database {
        Some(database) => Ok(format!("{}.{last}", identifier(database.as_str())?)),
        None => Ok(last),
    }
}

fn table_ref(table: &TableRef) -> Result<String, Error> {
    // The database is the label's; StarRocks reads one here and ignores it.
    let mut text = identifier(table.table.name.as_str())?;
    match &table.partitions {
        Partitions::All => {}
        Partitions::Named { temporary, names } => {
            let names = names
                .iter()
                .map(|n| identifier(n.as_str()))
                .collect::<Result<Vec<_>, _>>()?;
            text += &format!(
                " {}PARTITION ({})",
                if *temporary { "TEMPORARY " } else { "" },
                names.join(", ")
            );
        }
        Partitions::Keyed(_) => {
            return Err(
                Error::unsupported("PARTITION (column = value) in BACKUP and RESTORE")
                    .hint("Name partitions."),
            );
        }
    }
    if let Some(alias) = &table.alias {
        text += &format!(" AS {}", identifier(alias.as_str())?);
    }
    Ok(text)
}

fn properties(properties: &Properties) -> String {
    if properties.0.is_empty() {
        return String::new();
    }
    let pairs: Vec<_> = properties
        .0
        .iter()
        .map(|(k, v)| format!("{} = {}", literal(k), literal(v)))
        .collect();
    format!(" PROPERTIES ({})", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::parse_one;

    fn print(text: &str, version: FeVersion) -> Result<String, Error> {
        let cluster = ClusterName::new("prod").expect("valid");
        Printer {
            cluster: &cluster,
            version,
        }
        .print(&parse_one(text).expect(text))
    }

    #[test]
    fn each_version_gets_its_own_form() {
        let old = FeVersion(2, 5, 22);
        for (text, version, printed) in [
            (
                "BACKUP SNAPSHOT d.s TO r ON (t PARTITION (p1, p2), u)",
                old,
                Ok("BACKUP SNAPSHOT `d`.`s` TO `r` ON (`t` PARTITION (`p1`, `p2`), `u`)"),
            ),
            (
                "BACKUP SNAPSHOT d.s TO r ON (TABLE t)",
                old,
                Ok("BACKUP SNAPSHOT `d`.`s` TO `r` ON (`t`)"),
            ),
            (
                "BACKUP SNAPSHOT d.s TO r ON (TABLE t, ALL VIEWS)",
                FeVersion(3, 4, 0),
                Ok("BACKUP SNAPSHOT `d`.`s` TO `r` ON (TABLE `t`, ALL VIEWS)"),
            ),
            (
                "BACKUP SNAPSHOT d.s TO r ON (VIEW v)",
                FeVersion(3, 3, 16),
                Err("VIEW v in BACKUP needs StarRocks 3.4; cluster \"prod\" is 3.3.16"),
            ),
            (
                "BACKUP SNAPSHOT d.s TO r",
                FeVersion(2, 4, 0),
                Err(
                    "BACKUP of a whole database (without ON) needs StarRocks 2.5; cluster \"prod\" is 2.4.0",
                ),
            ),
            (
                "BACKUP ALL EXTERNAL CATALOGS SNAPSHOT s TO r",
                FeVersion(3, 4, 1),
                Ok("BACKUP ALL EXTERNAL CATALOGS SNAPSHOT `s` TO `r`"),
            ),
            (
                "RESTORE SNAPSHOT s FROM r DATABASE a AS b PROPERTIES (\"backup_timestamp\" = \"x\")",
                FeVersion(4, 1, 0),
                Ok(
                    "RESTORE SNAPSHOT `s` FROM `r` DATABASE `a` AS `b` PROPERTIES ('backup_timestamp' = 'x')",
                ),
            ),
            (
                "RESTORE SNAPSHOT d.s FROM r ON (t AS u) PROPERTIES (\"backup_timestamp\" = \"x\")",
                old,
                Ok(
                    "RESTORE SNAPSHOT `d`.`s` FROM `r` ON (`t` AS `u`) PROPERTIES ('backup_timestamp' = 'x')",
                ),
            ),
            (
                "BACKUP SNAPSHOT d.s TO r PROPERTIES (\"ttl\" = \"7 DAY\")",
                FeVersion(4, 1, 0),
                Err(
                    "the property \"ttl\" of BACKUP needs StarRocks 4.2; cluster \"prod\" is 4.1.0",
                ),
            ),
            (
                "DROP SNAPSHOT s ON r FORCE",
                FeVersion(4, 2, 0),
                Ok("DROP SNAPSHOT `s` ON `r` FORCE"),
            ),
            (
                "DROP SNAPSHOT s ON r",
                FeVersion(3, 5, 2),
                Err("DROP SNAPSHOT needs StarRocks 4.2; cluster \"prod\" is 3.5.2"),
            ),
            ("CANCEL BACKUP FROM d", old, Ok("CANCEL BACKUP FROM `d`")),
            (
                "CREATE REPOSITORY r WITH BROKER ON LOCATION 's3://b/p' PROPERTIES (\"a\" = \"it's \\\\ \")",
                old,
                Ok(
                    "CREATE REPOSITORY `r` WITH BROKER ON LOCATION 's3://b/p' PROPERTIES ('a' = 'it''s \\\\ ')",
                ),
            ),
            (
                "CREATE READ ONLY REPOSITORY r WITH BROKER b ON LOCATION 'x'",
                FeVersion(2, 1, 0),
                Ok("CREATE READ ONLY REPOSITORY `r` WITH BROKER `b` ON LOCATION 'x'"),
            ),
            (
                "CREATE REPOSITORY r WITH BROKER ON LOCATION 'x'",
                FeVersion(2, 3, 0),
                Err(
                    "WITH BROKER without a broker's name needs StarRocks 2.5; cluster \"prod\" is 2.3.0",
                ),
            ),
        ] {
            let found = print(text, version);
            assert_eq!(
                found.as_deref().map_err(|e| e.message.as_str()),
                printed,
                "{text}"
            );
        }
    }

    /// What is printed for a frontend means there what was said here.
    #[test]
    fn what_is_printed_reads_back() {
        for text in [
            "BACKUP SNAPSHOT d.`it's \"s\"` TO r ON (`t t` PARTITION (`p;`)) PROPERTIES (\"k\\\\'\" = \"v\n\")",
            "RESTORE SNAPSHOT d.s FROM r ON (TABLE `a` AS `b`, VIEW v) PROPERTIES (\"backup_timestamp\" = \"--\")",
        ] {
            let statement = parse_one(text).expect(text);
            let printed = print(text, FeVersion(4, 2, 0)).expect(text);
            assert_eq!(parse_one(&printed).expect(&printed), statement, "{printed}");
        }
        assert!(identifier("a`b").is_err());
    }

    #[test]
    fn versions_are_read() {
        for (text, version) in [
            ("3.3.16-abc", Some(FeVersion(3, 3, 16))),
            ("3.2.1 299165e", Some(FeVersion(3, 2, 1))),
            ("StarRocks version 2.3.0-RC1", Some(FeVersion(2, 3, 0))),
            ("2.5", Some(FeVersion(2, 5, 0))),
            ("main-9f1c", None),
            ("", None),
        ] {
            assert_eq!(FeVersion::parse(text), version, "{text}");
        }
    }
}
