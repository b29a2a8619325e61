//! Statements back to canonical SQL, in StarRocks' spelling: parsing what is printed here gives the same value.

use std::fmt::{self, Display, Formatter};

use super::ast::*;
use super::properties::Properties;

/// A name, quoted where it would not read back bare.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Any keyword in any place is safe in back-quotes, so only plain lower-case words with a digit or underscore stay bare.
        let plain = self.0.starts_with(|c: char| c.is_ascii_lowercase())
            && self.0.contains(|c: char| c.is_ascii_digit() || c == '_')
            && self.0.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if plain { f.write_str(self.0) } else { write!(f, "`{}`", self.0.replace('`', "``")) }
    }
}

struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\"\""))
    }
}

fn commas<T: Display>(f: &mut Formatter<'_>, items: impl IntoIterator<Item = T>) -> fmt::Result {
    for (i, item) in items.into_iter().enumerate() {
        write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
    }
    Ok(())
}

impl<N: AsRef<str>> Display for Qualified<N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(database) = &self.database {
            write!(f, "{}.", Name(database.as_str()))?;
        }
        Name(self.name.as_ref()).fmt(f)
    }
}

impl Display for Properties {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str(" PROPERTIES (")?;
        for (i, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{} = {}", if i > 0 { ", " } else { "" }, Text(key), Text(value))?;
        }
        f.write_str(")")
    }
}

impl Display for TableRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table)?;
        if !self.partitions.is_empty() {
            f.write_str(" PARTITION (")?;
            commas(f, self.partitions.iter().map(|p| Name(p.as_str())))?;
            f.write_str(")")?;
        }
        match &self.alias {
            Some(alias) => write!(f, " AS {}", Name(alias.as_str())),
            None => Ok(()),
        }
    }
}

fn on_clause(f: &mut Formatter<'_>, tables: Option<&Vec<TableRef>>) -> fmt::Result {
    let Some(tables) = tables else { return Ok(()) };
    f.write_str(" ON (")?;
    commas(f, tables)?;
    f.write_str(")")
}

impl Display for BackupSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "BACKUP SNAPSHOT {} TO {}", self.label, Name(self.repository.as_str()))?;
        on_clause(f, self.tables.as_ref())?;
        self.properties.fmt(f)
    }
}

impl Display for RestoreSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "RESTORE SNAPSHOT {} FROM {}", self.label, Name(self.repository.as_str()))?;
        on_clause(f, self.tables.as_ref())?;
        self.properties.fmt(f)
    }
}

impl Display for CancelJob {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CANCEL {}", self.kind)?;
        match &self.database {
            Some(database) => write!(f, " FROM {}", Name(database.as_str())),
            None => Ok(()),
        }
    }
}

impl CreateRepository {
    /// The same statement with every secret replaced by `***`, for logs and job rows.
    pub fn redacted(&self) -> Self {
        Self { properties: self.properties.redacted(), ..self.clone() }
    }
}

impl Display for CreateRepository {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let read_only = if self.read_only { "READ ONLY " } else { "" };
        write!(f, "CREATE {read_only}REPOSITORY {} WITH BROKER", Name(self.name.as_str()))?;
        if let Some(broker) = &self.broker {
            write!(f, " {}", Name(broker.as_str()))?;
        }
        write!(f, " ON LOCATION {}{}", Text(&self.location), self.properties)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::*;
    use crate::statement::parse_one;

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z][a-z0-9_]{0,8}",
            "[A-Za-z0-9 `'\"\\\\;.é\u{3000}-]{1,8}",
            Just("snapshot".to_owned()),
            Just("on".to_owned())
        ]
    }

    fn word() -> impl Strategy<Value = String> {
        "[a-zA-Z][a-zA-Z0-9_]{0,8}"
    }

    fn qualified<N: TryFrom<String> + std::fmt::Debug>() -> impl Strategy<Value = Qualified<N>> {
        (proptest::option::of(word()), name()).prop_filter_map("a valid name", |(database, name)| {
            Some(Qualified { database: database.map(|d| DatabaseName::new(d).expect("a word")), name: N::try_from(name).ok()? })
        })
    }

    fn tables(aliases: bool) -> impl Strategy<Value = Option<Vec<TableRef>>> {
        let table = (
            qualified::<TableName>(),
            proptest::collection::vec(name().prop_map(|n| PartitionName::new(n).expect("a name")), 0..3),
            proptest::option::of(name().prop_map(|n| TableName::new(n).expect("a name"))),
        )
            .prop_map(move |(table, partitions, alias)| TableRef { table, partitions, alias: alias.filter(|_| aliases) });
        proptest::option::of(proptest::collection::vec(table, 1..4))
    }

    fn properties() -> impl Strategy<Value = Properties> {
        proptest::collection::btree_map(any::<String>(), any::<String>(), 0..3).prop_map(Properties)
    }

    fn statement() -> impl Strategy<Value = Statement> {
        let repository = || word().prop_map(|n| RepositoryName::new(n).expect("a word"));
        prop_oneof![
            (qualified(), repository(), tables(false), properties()).prop_map(|(label, repository, tables, properties)| {
                Statement::Backup(BackupSnapshot { label, repository, tables, properties })
            }),
            (qualified(), repository(), tables(true), properties()).prop_map(|(label, repository, tables, properties)| {
                Statement::Restore(RestoreSnapshot { label, repository, tables, properties })
            }),
            (any::<bool>(), proptest::option::of(word())).prop_map(|(backup, database)| {
                Statement::Cancel(CancelJob {
                    kind: if backup { JobKeyword::Backup } else { JobKeyword::Restore },
                    database: database.map(|d| DatabaseName::new(d).expect("a word")),
                })
            }),
            (repository(), any::<bool>(), proptest::option::of(name()), any::<String>(), properties()).prop_filter_map(
                "a location",
                |(name, read_only, broker, location, properties)| {
                    let broker = broker.map(|b| BrokerName::new(b).expect("a name"));
                    let create = CreateRepository { name, read_only, broker, location, properties };
                    (!create.location.is_empty()).then_some(Statement::CreateRepository(create))
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(statement in statement()) {
            let printed = match &statement {
                Statement::Backup(s) => s.to_string(),
                Statement::Restore(s) => s.to_string(),
                Statement::Cancel(s) => s.to_string(),
                Statement::CreateRepository(s) => s.to_string(),
                other => panic!("not generated: {other:?}"),
            };
            prop_assert_eq!(parse_one(&printed).map_err(|e| TestCaseError::fail(format!("{printed}: {e}")))?, statement);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(BACKUP|RESTORE|SHOW|CREATE TABLE|select|COPY)?[ a-zA-Z0-9`'\"\\\\$;.,()=<>é\u{3000}/*-]{0,60}") {
            for parsed in crate::statement::parse_all(&text) {
                if let Err(error) = parsed && let Some(position) = error.position {
                    prop_assert!(position <= text.len());
                }
            }
        }
    }
}
