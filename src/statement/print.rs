//! Statements back to canonical SQL, in StarRocks' spelling: parsing what is printed here gives the
//! same value.

use std::fmt::{self, Display, Formatter};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;

use super::ast::*;
use super::properties::{MAX_BYTES_PER_SECOND, Properties};
use crate::job::SAMPLE_ALL;
use crate::names::{DatabaseName, JobId, RepositoryName};
use crate::privilege::Grantee;

/// A name, quoted where it would not read back bare.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Any keyword in any place is safe in back-quotes, so only plain lower-case words with a
        // digit or underscore stay bare.
        let plain = self.0.starts_with(|c: char| c.is_ascii_lowercase())
            && self.0.contains(|c: char| c.is_ascii_digit() || c == '_')
            && self
                .0
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if plain {
            f.write_str(self.0)
        } else if self.0.contains('`') {
            // Back-quotes cannot hold a back-quote; our double-quoted names can.
            Text(self.0).fmt(f)
        } else {
            write!(f, "`{}`", self.0)
        }
    }
}

struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\"",
            self.0.replace('\\', "\\\\").replace('"', "\"\"")
        )
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
            write!(
                f,
                "{}{} = {}",
                if i > 0 { ", " } else { "" },
                Text(key),
                Text(value)
            )?;
        }
        f.write_str(")")
    }
}

/// An expression with its literals spelled by MySQL's rules. sqlparser's own spelling leaves
/// backslashes and some quotes as they are, and writes hexadecimal numbers as strings.
struct Sql<'a>(&'a sql::Expr);

impl Display for Sql<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        struct Spell;
        impl sql::VisitorMut for Spell {
            type Break = ();
            fn pre_visit_value(&mut self, value: &mut sql::ValueWithSpan) -> ControlFlow<()> {
                let quoted =
                    |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
                let spelled = match &value.value {
                    sql::Value::SingleQuotedString(text) => quoted(text),
                    sql::Value::NationalStringLiteral(text) => format!("N{}", quoted(text)),
                    sql::Value::HexStringLiteral(text) => {
                        let is_number =
                            !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
                        if is_number {
                            format!("0x{text}")
                        } else {
                            format!("X{}", quoted(text))
                        }
                    }
                    _ => return ControlFlow::Continue(()),
                };
                // A placeholder is printed as it is.
                value.value = sql::Value::Placeholder(spelled);
                ControlFlow::Continue(())
            }

            // Two signs in a row would be a comment.
            fn post_visit_expr(&mut self, expr: &mut sql::Expr) -> ControlFlow<()> {
                if let sql::Expr::UnaryOp {
                    op: sql::UnaryOperator::Minus,
                    expr: inner,
                } = expr
                {
                    let text = inner.to_string();
                    if text.starts_with('-') {
                        **inner = sql::Expr::value(sql::Value::Placeholder(format!(" {text}")));
                    }
                }
                ControlFlow::Continue(())
            }
        }
        let mut expr = self.0.clone();
        let _ = sql::VisitMut::visit(&mut expr, &mut Spell);
        expr.fmt(f)
    }
}

impl Display for Partitions {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => return Ok(()),
            Self::Named { temporary, names } => {
                write!(
                    f,
                    " {}PARTITION (",
                    if *temporary { "TEMPORARY " } else { "" }
                )?;
                commas(f, names.iter().map(|p| Name(p.as_str())))?;
            }
            Self::Keyed(pairs) => {
                f.write_str(" PARTITION (")?;
                for (i, (column, value)) in pairs.iter().enumerate() {
                    write!(
                        f,
                        "{}{} = {}",
                        if i > 0 { ", " } else { "" },
                        Name(column),
                        Sql(value)
                    )?;
                }
            }
        }
        f.write_str(")")
    }
}

fn alias<N: AsRef<str>>(f: &mut Formatter<'_>, alias: Option<N>) -> fmt::Result {
    alias.map_or(Ok(()), |alias| write!(f, " AS {}", Name(alias.as_ref())))
}

impl Display for TableRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.table, self.partitions)?;
        alias(f, self.alias.as_ref())
    }
}

impl Display for ObjectRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untyped(table) => table.fmt(f),
            Self::Table(table) => write!(f, "TABLE {table}"),
            Self::Named {
                kind,
                name,
                alias: named,
            } => {
                write!(f, "{kind} {name}")?;
                alias(f, named.as_ref())
            }
            Self::All(kind) => write!(f, "ALL {kind}S"),
        }
    }
}

impl Display for ExternalCatalogs {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self::Named(names) = self else {
            return f.write_str("ALL EXTERNAL CATALOGS");
        };
        f.write_str("EXTERNAL CATALOGS (")?;
        for (i, (name, named)) in names.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { ", " } else { "" }, Name(name))?;
            alias(f, named.as_ref())?;
        }
        f.write_str(")")
    }
}

fn on_clause(f: &mut Formatter<'_>, objects: Option<&Vec<ObjectRef>>) -> fmt::Result {
    let Some(objects) = objects else {
        return Ok(());
    };
    f.write_str(" ON (")?;
    commas(f, objects)?;
    f.write_str(")")
}

impl Display for BackupSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("BACKUP ")?;
        if let Some(catalogs) = &self.catalogs {
            write!(f, "{catalogs} ")?;
        }
        write!(
            f,
            "SNAPSHOT {} TO {}",
            self.label,
            Name(self.repository.as_str())
        )?;
        on_clause(f, self.objects.as_ref())?;
        self.properties.fmt(f)
    }
}

impl Display for RestoreSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RESTORE SNAPSHOT {} FROM {}",
            self.label,
            Name(self.repository.as_str())
        )?;
        if let Some(cluster) = &self.cluster {
            write!(f, " ON CLUSTER {}", Name(cluster.as_str()))?;
        }
        if let Some(catalogs) = &self.catalogs {
            write!(f, " {catalogs}")?;
        }
        if let Some((database, named)) = &self.database {
            write!(f, " DATABASE {}", Name(database.as_str()))?;
            alias(f, named.as_ref())?;
        }
        on_clause(f, self.objects.as_ref())?;
        self.properties.fmt(f)
    }
}

pub(super) fn cancel_job(id: JobId, force: bool) -> String {
    format!("CANCEL JOB {id}{}", if force { " FORCE" } else { "" })
}

pub(super) fn control_job(id: JobId, control: JobControl) -> String {
    match control {
        JobControl::Pause => format!("PAUSE JOB {id}"),
        JobControl::Resume => format!("RESUME JOB {id}"),
        JobControl::Pace(pace) => format!(
            "ALTER JOB {id} SET (\"max_bytes_per_second\" = \"{}\")",
            pace.bytes_per_second().unwrap_or_default()
        ),
    }
}

impl Display for CancelJob {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CANCEL {}", self.kind)?;
        match &self.scope {
            CancelScope::Current => Ok(()),
            CancelScope::Database(database) => write!(f, " FROM {}", Name(database.as_str())),
            CancelScope::ExternalCatalog => f.write_str(" FOR EXTERNAL CATALOG"),
        }
    }
}

pub(super) fn import_history(name: &RepositoryName) -> String {
    format!("IMPORT HISTORY FROM REPOSITORY {}", Name(name.as_str()))
}

pub(super) fn drop_repository(name: &RepositoryName) -> String {
    format!("DROP REPOSITORY {}", Name(name.as_str()))
}

impl Display for DropSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let force = if self.force { " FORCE" } else { "" };
        write!(
            f,
            "DROP SNAPSHOT {} ON {}{force}",
            Name(self.label.as_str()),
            Name(self.repository.as_str())
        )
    }
}

impl Display for Verify {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.label {
            Some(label) => write!(
                f,
                "VERIFY SNAPSHOT {} ON {}",
                Name(label.as_str()),
                Name(self.repository.as_str())
            )?,
            None => write!(f, "VERIFY REPOSITORY {}", Name(self.repository.as_str()))?,
        }
        write!(f, " LEVEL {}", self.level.name().to_uppercase())?;
        let mut properties = Properties::default();
        if self.sample != SAMPLE_ALL {
            let (whole, hundredths) = (self.sample / 100, self.sample % 100);
            let share = format!("{whole}.{hundredths:02}%");
            properties.0.insert("sample".into(), share);
        }
        if let Some(bytes) = self.max_bytes_per_second {
            properties
                .0
                .insert(MAX_BYTES_PER_SECOND.into(), bytes.to_string());
        }
        properties.fmt(f)
    }
}

impl Display for Prune {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "PRUNE REPOSITORY {}", Name(self.repository.as_str()))?;
        if self.dry_run {
            f.write_str(" DRY RUN")?;
        }
        let mut properties = Properties::default();
        for (name, duration) in [("grace", self.grace), ("wait", self.wait)] {
            if let Some(duration) = duration {
                properties.0.insert(name.into(), duration.to_string());
            }
        }
        properties.fmt(f)
    }
}

impl Display for WaitForJob {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "WAIT FOR JOB {}", self.id)?;
        match self.timeout_seconds {
            Some(seconds) => write!(f, " TIMEOUT {seconds}"),
            None => Ok(()),
        }
    }
}

impl Display for Recover {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(name) => write!(f, "RECOVER DATABASE {}", Name(name.as_str())),
            Self::Table(table) => write!(f, "RECOVER TABLE {table}"),
            Self::Partition(partition, table) => write!(
                f,
                "RECOVER PARTITION {} FROM {table}",
                Name(partition.as_str())
            ),
        }
    }
}

impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(predicate) = &self.predicate {
            write!(f, " WHERE {}", Sql(predicate))?;
        }
        for (i, item) in self.order_by.iter().enumerate() {
            write!(
                f,
                "{}{}",
                if i > 0 { ", " } else { " ORDER BY " },
                Sql(&item.expr)
            )?;
            f.write_str(if item.descending { " DESC" } else { "" })?;
            f.write_str(item.nulls_first.map_or("", |first| {
                if first { " NULLS FIRST" } else { " NULLS LAST" }
            }))?;
        }
        if let Some(limit) = self.limit {
            write!(f, " LIMIT {limit}")?;
            if self.offset > 0 {
                write!(f, " OFFSET {}", self.offset)?;
            }
        }
        Ok(())
    }
}

impl Display for ShowStatement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SHOW {}{}", self.show, self.filter)
    }
}

impl Display for Show {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let from = |f: &mut Formatter<'_>, database: Option<&DatabaseName>| {
            database.map_or(Ok(()), |database| {
                write!(f, " FROM {}", Name(database.as_str()))
            })
        };
        match self {
            Self::Databases => f.write_str("DATABASES"),
            Self::Tables(database) => {
                f.write_str("TABLES")?;
                from(f, database.as_ref())
            }
            Self::CreateTable(table) => write!(f, "CREATE TABLE {table}"),
            Self::CreateView(view) => write!(f, "CREATE VIEW {view}"),
            Self::Columns(table) => write!(f, "COLUMNS FROM {table}"),
            Self::Partitions { table, temporary } => {
                write!(
                    f,
                    "{}PARTITIONS FROM {table}",
                    if *temporary { "TEMPORARY " } else { "" }
                )
            }
            Self::Tablets { table, partitions } => write!(f, "TABLET FROM {table}{partitions}"),
            Self::Tablet(id) => write!(f, "TABLET {id}"),
            Self::Frontends => f.write_str("FRONTENDS"),
            Self::Backends => f.write_str("BACKENDS"),
            Self::Brokers => f.write_str("BROKER"),
            Self::Repositories => f.write_str("REPOSITORIES"),
            Self::Roles => f.write_str("ROLES"),
            Self::Clusters => f.write_str("CLUSTERS"),
            Self::Grants(None) => f.write_str("GRANTS"),
            Self::Grants(Some(Grantee::User(name))) => {
                write!(f, "GRANTS FOR USER {}", Name(name.as_str()))
            }
            Self::Grants(Some(Grantee::Role(name))) => {
                write!(f, "GRANTS FOR ROLE {}", Name(name.as_str()))
            }
            Self::Jobs {
                kind,
                all,
                database,
            } => {
                write!(f, "{}{kind}", if *all { "ALL " } else { "" })?;
                from(f, database.as_ref())
            }
            Self::Snapshots(repository) | Self::SnapshotDetails { repository, .. } => {
                write!(f, "SNAPSHOT ON {}", Name(repository.as_str()))
            }
        }
    }
}

impl CreateRepository {
    /// The same statement with every secret replaced by `***`, for logs and job rows.
    pub fn redacted(&self) -> Self {
        Self {
            properties: self.properties.redacted(),
            ..self.clone()
        }
    }
}

impl Display for CreateRepository {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let read_only = if self.read_only { "READ ONLY " } else { "" };
        write!(
            f,
            "CREATE {read_only}REPOSITORY {} WITH BROKER",
            Name(self.name.as_str())
        )?;
        if let Some(broker) = &self.broker {
            write!(f, " {}", Name(broker.as_str()))?;
        }
        write!(
            f,
            " ON LOCATION {}{}",
            Text(&self.location),
            self.properties
        )
    }
}

impl Display for AlterRepository {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ALTER REPOSITORY {} SET{}",
            Name(self.name.as_str()),
            self.properties
        )
    }
}

impl Display for ClusterCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create {
                name,
                if_not_exists,
                properties,
            } => {
                let condition = if *if_not_exists { "IF NOT EXISTS " } else { "" };
                write!(
                    f,
                    "CREATE CLUSTER {condition}{}{properties}",
                    Name(name.as_str())
                )
            }
            Self::Alter { name, properties } => {
                write!(f, "ALTER CLUSTER {} SET{properties}", Name(name.as_str()))
            }
            Self::Drop {
                name,
                if_exists,
                force,
            } => {
                let (condition, force) = (
                    if *if_exists { "IF EXISTS " } else { "" },
                    if *force { " FORCE" } else { "" },
                );
                write!(f, "DROP CLUSTER {condition}{}{force}", Name(name.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
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

    fn named<N: TryFrom<String> + std::fmt::Debug>(
        name: impl Strategy<Value = String>,
    ) -> impl Strategy<Value = N> {
        name.prop_filter_map("a valid name", |name| N::try_from(name).ok())
    }

    fn qualified<N: TryFrom<String> + std::fmt::Debug>() -> impl Strategy<Value = Qualified<N>> {
        (
            option::of(named::<DatabaseName>(word())),
            named::<N>(name()),
        )
            .prop_map(|(database, name)| Qualified { database, name })
    }

    /// Expressions in the shape that the parser gives them.
    fn expr() -> impl Strategy<Value = sql::Expr> {
        let value = prop_oneof![
            any::<String>()
                .prop_map(|s| format!("'{}'", s.replace('\\', "\\\\").replace('\'', "''"))),
            Just("12".into())
        ];
        let leaf = (
            word(),
            prop_oneof![Just("="), Just("!="), Just(">="), Just("LIKE")],
            value,
        )
            .prop_map(|(column, op, value)| format!("`{column}` {op} {value}"));
        let tree = leaf.prop_recursive(3, 8, 2, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} AND {b}")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
                inner.prop_map(|a| format!("NOT {a}")),
            ]
        });
        tree.prop_map(
            |text| match parse_one(&format!("SHOW BACKUP WHERE {text}")) {
                Ok(Statement::Show(show)) => show.filter.predicate.expect("a predicate"),
                other => panic!("{text}: {other:?}"),
            },
        )
    }

    fn partitions() -> impl Strategy<Value = Partitions> {
        prop_oneof![
            Just(Partitions::All),
            (any::<bool>(), vec(named(name()), 1..3))
                .prop_map(|(temporary, names)| Partitions::Named { temporary, names }),
            vec((word(), expr().prop_map(Box::new)), 1..3).prop_map(Partitions::Keyed),
        ]
    }

    fn objects(aliases: bool) -> impl Strategy<Value = Option<Vec<ObjectRef>>> {
        let alias = move || {
            option::of(named::<TableName>(name())).prop_map(move |alias| alias.filter(|_| aliases))
        };
        let table = move || {
            let parts = (qualified::<TableName>(), partitions(), alias());
            parts.prop_map(|(table, partitions, alias)| TableRef {
                table,
                partitions,
                alias,
            })
        };
        let kind = || {
            prop_oneof![
                Just(ObjectKind::View),
                Just(ObjectKind::MaterializedView),
                Just(ObjectKind::Function)
            ]
        };
        let object = prop_oneof![
            table().prop_map(ObjectRef::Untyped),
            table().prop_map(ObjectRef::Table),
            (kind(), qualified(), alias()).prop_map(|(kind, name, alias)| ObjectRef::Named {
                kind,
                name,
                alias
            }),
            prop_oneof![kind(), Just(ObjectKind::Table)].prop_map(ObjectRef::All),
        ];
        option::of(vec(object, 1..4))
    }

    fn catalogs(aliases: bool) -> impl Strategy<Value = ExternalCatalogs> {
        let one = (name(), option::of(name()));
        let one =
            one.prop_map(move |(name, alias)| (name.replace('`', "x"), alias.filter(|_| aliases)));
        prop_oneof![
            Just(ExternalCatalogs::All),
            vec(one, 1..3).prop_map(ExternalCatalogs::Named)
        ]
    }

    fn properties() -> impl Strategy<Value = Properties> {
        proptest::collection::btree_map(any::<String>(), any::<String>(), 0..3).prop_map(Properties)
    }

    fn some_properties() -> impl Strategy<Value = Properties> {
        proptest::collection::btree_map(any::<String>(), any::<String>(), 1..3).prop_map(Properties)
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let item = (expr(), any::<bool>(), option::of(any::<bool>()));
        let item = item.prop_map(|(expr, descending, nulls_first)| OrderBy {
            expr,
            descending,
            nulls_first,
        });
        (
            option::of(expr()),
            vec(item, 0..2),
            option::of((0..100u64, 0..9u64)),
        )
            .prop_map(|(predicate, order_by, limit)| Filter {
                predicate,
                order_by,
                limit: limit.map(|(limit, _)| limit),
                offset: limit.map_or(0, |(_, offset)| offset),
            })
    }

    fn show() -> impl Strategy<Value = Show> {
        prop_oneof![
            Just(Show::Databases),
            option::of(named(word())).prop_map(Show::Tables),
            qualified().prop_map(Show::CreateTable),
            qualified().prop_map(Show::CreateView),
            qualified().prop_map(Show::Columns),
            (0..i64::MAX).prop_map(|id| Show::Tablet(TabletId(id))),
            Just(Show::Frontends),
            Just(Show::Backends),
            Just(Show::Brokers),
            Just(Show::Repositories),
            Just(Show::Roles),
            Just(Show::Clusters),
            option::of(prop_oneof![
                named(name()).prop_map(Grantee::User),
                named(name()).prop_map(Grantee::Role)
            ])
            .prop_map(Show::Grants),
        ]
    }

    fn filtered_show() -> impl Strategy<Value = Show> {
        let job = prop_oneof![Just(JobKeyword::Backup), Just(JobKeyword::Restore)];
        prop_oneof![
            (qualified(), any::<bool>())
                .prop_map(|(table, temporary)| Show::Partitions { table, temporary }),
            (qualified(), partitions())
                .prop_filter("no keyed partitions", |(_, p)| !matches!(
                    p,
                    Partitions::Keyed(_)
                ))
                .prop_map(|(table, partitions)| Show::Tablets { table, partitions }),
            (job, any::<bool>(), option::of(named(word()))).prop_map(|(kind, all, database)| {
                Show::Jobs {
                    kind,
                    all,
                    database,
                }
            }),
        ]
    }

    fn statement() -> impl Strategy<Value = Statement> {
        let repository = || named::<RepositoryName>(word());
        let bare = || {
            named::<SnapshotLabel>(name()).prop_map(|name| Qualified {
                database: None,
                name,
            })
        };
        let unfiltered = |show| {
            Statement::Show(Box::new(ShowStatement {
                show,
                filter: Filter::default(),
            }))
        };
        prop_oneof![
            (qualified(), repository(), objects(false), properties()).prop_map(
                |(label, repository, objects, properties)| {
                    Statement::Backup(BackupSnapshot {
                        catalogs: None,
                        label,
                        repository,
                        objects,
                        properties,
                    })
                }
            ),
            (catalogs(false), bare(), repository()).prop_map(|(catalogs, label, repository)| {
                let properties = Properties::default();
                Statement::Backup(BackupSnapshot {
                    catalogs: Some(catalogs),
                    label,
                    repository,
                    objects: None,
                    properties,
                })
            }),
            (
                qualified(),
                repository(),
                option::of(named(word())),
                objects(true),
                properties()
            )
                .prop_map(|(label, repository, cluster, objects, properties)| {
                    Statement::Restore(RestoreSnapshot {
                        label,
                        repository,
                        cluster,
                        catalogs: None,
                        database: None,
                        objects,
                        properties,
                    })
                }),
            (
                bare(),
                repository(),
                named(word()),
                option::of(named(word())),
                objects(true)
            )
                .prop_map(|(label, repository, from, into, objects)| {
                    let (database, properties) = (Some((from, into)), Properties::default());
                    Statement::Restore(RestoreSnapshot {
                        label,
                        repository,
                        cluster: None,
                        catalogs: None,
                        database,
                        objects,
                        properties,
                    })
                }),
            (catalogs(true), bare(), repository(), properties()).prop_map(
                |(catalogs, label, repository, properties)| {
                    let catalogs = Some(catalogs);
                    Statement::Restore(RestoreSnapshot {
                        label,
                        repository,
                        cluster: None,
                        catalogs,
                        database: None,
                        objects: None,
                        properties,
                    })
                }
            ),
            (any::<bool>(), option::of(named(word())), any::<bool>()).prop_map(
                |(backup, database, catalogs)| {
                    Statement::Cancel(CancelJob {
                        kind: if backup {
                            JobKeyword::Backup
                        } else {
                            JobKeyword::Restore
                        },
                        scope: match database {
                            Some(database) => CancelScope::Database(database),
                            None if catalogs => CancelScope::ExternalCatalog,
                            None => CancelScope::Current,
                        },
                    })
                }
            ),
            (
                repository(),
                any::<bool>(),
                option::of(named(name())),
                any::<String>(),
                properties()
            )
                .prop_filter_map(
                    "a location",
                    |(name, read_only, broker, location, properties)| {
                        let create = CreateRepository {
                            name,
                            read_only,
                            broker,
                            location,
                            properties,
                        };
                        (!create.location.is_empty()).then_some(Statement::CreateRepository(create))
                    }
                ),
            repository().prop_map(Statement::DropRepository),
            (named(name()), repository(), any::<bool>()).prop_map(|(label, repository, force)| {
                Statement::DropSnapshot(DropSnapshot {
                    label,
                    repository,
                    force,
                })
            }),
            (0..i64::MAX, proptest::bool::ANY).prop_map(|(id, force)| Statement::CancelJob {
                id: JobId(id),
                force
            }),
            (repository(), some_properties()).prop_map(|(name, properties)| {
                Statement::AlterRepository(AlterRepository { name, properties })
            }),
            (named(name()), any::<bool>(), some_properties()).prop_map(
                |(name, if_not_exists, properties)| {
                    Statement::Cluster(ClusterCommand::Create {
                        name,
                        if_not_exists,
                        properties,
                    })
                }
            ),
            (named(name()), some_properties()).prop_map(|(name, properties)| Statement::Cluster(
                ClusterCommand::Alter { name, properties }
            )),
            (named(name()), any::<bool>(), any::<bool>()).prop_map(|(name, if_exists, force)| {
                Statement::Cluster(ClusterCommand::Drop {
                    name,
                    if_exists,
                    force,
                })
            }),
            named(word()).prop_map(|d| Statement::Recover(Recover::Database(d))),
            qualified().prop_map(|t| Statement::Recover(Recover::Table(t))),
            (named(name()), qualified())
                .prop_map(|(p, t)| Statement::Recover(Recover::Partition(p, t))),
            show().prop_map(unfiltered),
            (filtered_show(), filter()).prop_map(|(show, filter)| Statement::Show(Box::new(
                ShowStatement { show, filter }
            ))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(statement in statement()) {
            let printed = crate::statement::printed(&statement).expect("generated statements print");
            prop_assert_eq!(parse_one(&printed).map_err(|e| TestCaseError::fail(format!("{printed}: {e}")))?, statement);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(BACKUP|RESTORE|SHOW|SHOW BACKUP WHERE|DROP SNAPSHOT|GRANT|CREATE TABLE|CREATE VIEW|select|COPY)?[ a-zA-Z0-9`'\"\\\\$;.,()=<>é\u{3000}/*-]{0,60}") {
            for parsed in crate::statement::parse_all(&text) {
                if let Err(error) = parsed && let Some(position) = error.position {
                    prop_assert!(position <= text.len());
                }
            }
        }
    }
}
