//! The rows of `pg_catalog`'s relations: PostgreSQL's own, and those about the cluster.

mod relations;

use postgres_types::Type;
use starkeep_error::Error;
use starkeep_pg_semantics::text::quote_ident;

use self::relations::{attribute, class, operator_classes, storages};
use super::directory::Directory;
use super::facts::{Column, INFORMATION_SCHEMA, OWNER, Object, PG_CATALOG, Schema, Table};
use super::relations::Definition;
use super::value::{Row, Value, ValueType};

/// The catalogs that a number belongs to.
pub(super) const PG_CLASS: u32 = 1259;
const PG_NAMESPACE: u32 = 2615;
const PG_CONSTRAINT: u32 = 2606;
const PG_ATTRDEF: u32 = 2604;

fn text(text: impl AsRef<str>) -> Value {
    Value::text(text)
}

fn texts<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
    Value::array(items.into_iter().map(Value::text))
}

fn optional(value: Option<&str>) -> Value {
    value.map_or(Value::Null, Value::text)
}

/// The rows of one relation.
pub(super) fn rows(directory: &Directory, definition: &Definition) -> Result<Vec<Row>, Error> {
    let facts = &directory.facts;
    let mut rows = directory.builtin.rows(definition).to_vec();
    let d = definition;
    let keyed = || directory.tables().filter(|(_, t)| !t.key.is_empty());
    match definition.name {
        "pg_class" => {
            rows.extend(directory.builtin.definitions.iter().map(|own| {
                let natts = own.columns.len();
                class(
                    d,
                    own.oid,
                    own.name,
                    namespace_of(own),
                    own.kind,
                    natts,
                    false,
                )
            }));
            for (schema, table) in directory.tables() {
                let kind = if table.definition.is_some() { 'v' } else { 'r' };
                let namespace = directory.oid(&Object::Schema(schema.name.clone()));
                let oid = directory.relation_oid(&schema.name, &table.name);
                rows.push(class(
                    d,
                    oid,
                    &table.name,
                    namespace,
                    kind,
                    table.columns.len(),
                    !table.key.is_empty(),
                ));
                if !table.key.is_empty() {
                    rows.push(class(
                        d,
                        key_oid(directory, schema, table),
                        &key_name(table),
                        namespace,
                        'i',
                        table.key.len(),
                        false,
                    ));
                }
            }
        }
        "pg_attribute" => {
            let storages = storages(&directory.builtin);
            for own in &directory.builtin.definitions {
                rows.extend(
                    own.described()
                        .enumerate()
                        .map(|(i, c)| attribute(d, own.oid, i, &c, &storages)),
                );
            }
            for (schema, table) in directory.tables() {
                let oid = directory.relation_oid(&schema.name, &table.name);
                rows.extend(
                    table
                        .columns
                        .iter()
                        .enumerate()
                        .map(|(i, c)| attribute(d, oid, i, c, &storages)),
                );
                if !table.key.is_empty() {
                    let key = key_oid(directory, schema, table);
                    let columns = table.key.iter().filter_map(|i| table.columns.get(*i));
                    let bare = columns.map(|c| Column {
                        not_null: false,
                        default: None,
                        ..c.clone()
                    });
                    rows.extend(
                        bare.enumerate()
                            .map(|(i, c)| attribute(d, key, i, &c, &storages)),
                    );
                }
            }
        }
        "pg_attrdef" => {
            for (schema, table) in directory.tables() {
                for (i, column) in table.columns.iter().enumerate() {
                    let Some(default) = &column.default else {
                        continue;
                    };
                    let object = Object::Default(
                        schema.name.clone(),
                        table.name.clone(),
                        column.name.clone(),
                    );
                    rows.push(d.row([
                        ("oid", Value::oid(directory.oid(&object))),
                        (
                            "adrelid",
                            Value::oid(directory.relation_oid(&schema.name, &table.name)),
                        ),
                        ("adnum", place(i)),
                        ("adbin", text(default)),
                    ]));
                }
            }
        }
        "pg_constraint" => rows.extend(keyed().map(|(schema, table)| {
            d.row([
                (
                    "oid",
                    Value::oid(
                        directory.oid(&Object::Constraint(schema.name.clone(), table.name.clone())),
                    ),
                ),
                ("conname", text(key_name(table))),
                (
                    "connamespace",
                    Value::oid(directory.oid(&Object::Schema(schema.name.clone()))),
                ),
                ("contype", text("p")),
                ("convalidated", Value::Bool(true)),
                (
                    "conrelid",
                    Value::oid(directory.relation_oid(&schema.name, &table.name)),
                ),
                ("conindid", Value::oid(key_oid(directory, schema, table))),
                ("confupdtype", text(" ")),
                ("confdeltype", text(" ")),
                ("confmatchtype", text(" ")),
                ("conislocal", Value::Bool(true)),
                ("connoinherit", Value::Bool(true)),
                ("conkey", Value::array(table.key.iter().map(|i| place(*i)))),
            ])
        })),
        "pg_index" => {
            let classes = operator_classes(&directory.builtin);
            rows.extend(keyed().map(|(schema, table)| {
                let vector = |of: &dyn Fn(&usize) -> Value| {
                    Value::Array(0, table.key.iter().map(of).collect())
                };
                let class = |i: &usize| {
                    let pg = table.columns.get(*i).map_or(Type::TEXT, |c| c.pg.clone());
                    Value::oid(
                        classes
                            .get(&if pg == Type::VARCHAR {
                                Type::TEXT.oid()
                            } else {
                                pg.oid()
                            })
                            .copied()
                            .unwrap_or(0),
                    )
                };
                let collation = |i: &usize| {
                    table
                        .columns
                        .get(*i)
                        .map_or(Value::Int(0), |c| collation(&c.pg))
                };
                d.row([
                    ("indexrelid", Value::oid(key_oid(directory, schema, table))),
                    (
                        "indrelid",
                        Value::oid(directory.relation_oid(&schema.name, &table.name)),
                    ),
                    ("indnatts", Value::Int(table.key.len() as i64)),
                    ("indnkeyatts", Value::Int(table.key.len() as i64)),
                    ("indisunique", Value::Bool(true)),
                    ("indisprimary", Value::Bool(true)),
                    ("indimmediate", Value::Bool(true)),
                    ("indisvalid", Value::Bool(true)),
                    ("indisready", Value::Bool(true)),
                    ("indislive", Value::Bool(true)),
                    ("indkey", vector(&|i| place(*i))),
                    ("indcollation", vector(&collation)),
                    ("indclass", vector(&class)),
                    ("indoption", vector(&|_| Value::Int(0))),
                ])
            }));
        }
        "pg_description" => {
            for (schema, table) in directory.tables() {
                let oid = Value::oid(directory.relation_oid(&schema.name, &table.name));
                let whole = table.comment.iter().map(|c| (0, c));
                let columns = table
                    .columns
                    .iter()
                    .enumerate()
                    .filter_map(|(i, c)| Some((i as i64 + 1, c.comment.as_ref()?)));
                rows.extend(whole.chain(columns).map(|(number, comment)| {
                    d.row([
                        ("objoid", oid.clone()),
                        ("classoid", Value::oid(PG_CLASS)),
                        ("objsubid", Value::Int(number)),
                        ("description", text(comment)),
                    ])
                }));
            }
        }
        "pg_depend" => {
            for (schema, table) in directory.tables() {
                let oid = directory.relation_oid(&schema.name, &table.name);
                let mut depends =
                    |class: u32, of: u32, on_class: u32, on: u32, column: i64, kind: &str| {
                        rows.push(d.row([
                            ("classid", Value::oid(class)),
                            ("objid", Value::oid(of)),
                            ("refclassid", Value::oid(on_class)),
                            ("refobjid", Value::oid(on)),
                            ("refobjsubid", Value::Int(column)),
                            ("deptype", text(kind)),
                        ]));
                    };
                depends(
                    PG_CLASS,
                    oid,
                    PG_NAMESPACE,
                    directory.oid(&Object::Schema(schema.name.clone())),
                    0,
                    "n",
                );
                if !table.key.is_empty() {
                    let constraint =
                        directory.oid(&Object::Constraint(schema.name.clone(), table.name.clone()));
                    depends(
                        PG_CLASS,
                        key_oid(directory, schema, table),
                        PG_CONSTRAINT,
                        constraint,
                        0,
                        "i",
                    );
                    for i in &table.key {
                        depends(PG_CONSTRAINT, constraint, PG_CLASS, oid, *i as i64 + 1, "a");
                    }
                }
                for (i, column) in table
                    .columns
                    .iter()
                    .enumerate()
                    .filter(|(_, c)| c.default.is_some())
                {
                    let default = Object::Default(
                        schema.name.clone(),
                        table.name.clone(),
                        column.name.clone(),
                    );
                    depends(
                        PG_ATTRDEF,
                        directory.oid(&default),
                        PG_CLASS,
                        oid,
                        i as i64 + 1,
                        "a",
                    );
                }
            }
        }
        "pg_namespace" => {
            let own = [
                ("pg_catalog", PG_CATALOG),
                ("information_schema", INFORMATION_SCHEMA),
            ];
            let of_cluster = facts.objects.schemas.iter().map(|s| {
                (
                    s.name.as_str(),
                    directory.oid(&Object::Schema(s.name.clone())),
                )
            });
            rows.extend(own.into_iter().chain(of_cluster).map(|(name, oid)| {
                let open = matches!(name, "pg_catalog" | "information_schema");
                let acl = if open {
                    texts(["root=UC/root", "=U/root"])
                } else {
                    Value::Null
                };
                d.row([
                    ("oid", Value::oid(oid)),
                    ("nspname", text(name)),
                    ("nspowner", Value::oid(OWNER)),
                    ("nspacl", acl),
                ])
            }));
        }
        "pg_database" => rows.extend(facts.objects.databases.iter().map(|name| {
            d.row([
                (
                    "oid",
                    Value::oid(directory.oid(&Object::Database(name.clone()))),
                ),
                ("datname", text(name)),
                ("datdba", Value::oid(OWNER)),
                ("encoding", Value::Int(6)),
                ("datlocprovider", text("c")),
                ("datallowconn", Value::Bool(true)),
                ("datconnlimit", Value::Int(-1)),
                ("dattablespace", Value::Int(1663)),
                ("datcollate", text("C")),
                ("datctype", text("C")),
            ])
        })),
        "pg_authid" | "pg_roles" | "pg_user" | "pg_shadow" | "pg_group" => {
            super::roles::roles(directory, d, &mut rows)
        }
        "pg_auth_members" => super::roles::members(directory, d, &mut rows),
        "pg_settings" => super::roles::settings(directory, d, &mut rows),
        "pg_stat_activity" | "pg_stat_ssl" | "pg_stat_gssapi" => {
            super::roles::activity(directory, d, &mut rows)
        }
        "pg_cursors" => rows.extend(facts.cursors.iter().map(
            |(name, statement, holds, scrolls)| {
                d.row([
                    ("name", text(name)),
                    ("statement", text(statement)),
                    ("is_holdable", Value::Bool(*holds)),
                    ("is_binary", Value::Bool(false)),
                    ("is_scrollable", Value::Bool(*scrolls)),
                    ("creation_time", Value::Time(facts.now)),
                ])
            },
        )),
        "pg_prepared_statements" => rows.extend(facts.prepared.iter().map(|(name, statement)| {
            d.row([
                ("name", text(name)),
                ("statement", text(statement)),
                ("prepare_time", Value::Time(facts.now)),
            ])
        })),
        "pg_tables" => rows.extend(
            directory
                .tables()
                .filter(|(_, t)| t.definition.is_none())
                .map(|(schema, table)| {
                    d.row([
                        ("schemaname", text(&schema.name)),
                        ("tablename", text(&table.name)),
                        ("tableowner", text("root")),
                        ("hasindexes", Value::Bool(!table.key.is_empty())),
                        ("hasrules", Value::Bool(false)),
                        ("hastriggers", Value::Bool(false)),
                        ("rowsecurity", Value::Bool(false)),
                    ])
                }),
        ),
        "pg_views" => rows.extend(
            directory
                .tables()
                .filter(|(_, t)| t.definition.is_some())
                .map(|(schema, table)| {
                    d.row([
                        ("schemaname", text(&schema.name)),
                        ("viewname", text(&table.name)),
                        ("viewowner", text("root")),
                        ("definition", optional(table.definition.as_deref())),
                    ])
                }),
        ),
        "pg_indexes" => rows.extend(keyed().map(|(schema, table)| {
            d.row([
                ("schemaname", text(&schema.name)),
                ("tablename", text(&table.name)),
                ("indexname", text(key_name(table))),
                ("indexdef", text(index_definition(schema, table))),
            ])
        })),
        "pg_stat_user_tables"
        | "pg_stat_all_tables"
        | "pg_statio_user_tables"
        | "pg_statio_all_tables" => {
            let tables = directory.tables().filter(|(_, t)| t.definition.is_none());
            rows.extend(tables.map(|(schema, table)| {
                let mut row = d.row([
                    (
                        "relid",
                        Value::oid(directory.relation_oid(&schema.name, &table.name)),
                    ),
                    ("schemaname", text(&schema.name)),
                    ("relname", text(&table.name)),
                ]);
                // Nothing is counted per table.
                for (value, (_, ty)) in row.iter_mut().zip(&d.columns) {
                    if value.is_null() && *ty == Type::INT8 {
                        *value = Value::Int(0);
                    }
                }
                row
            }));
        }
        "pg_stat_database" => rows.extend(facts.objects.databases.iter().map(|name| {
            let here = facts
                .activity
                .iter()
                .filter(|a| a.database == *name)
                .count();
            d.row([
                (
                    "datid",
                    Value::oid(directory.oid(&Object::Database(name.clone()))),
                ),
                ("datname", text(name)),
                ("numbackends", Value::Int(here as i64)),
            ])
        })),
        "pg_timezone_names" => rows.extend(
            chrono_tz::TZ_VARIANTS
                .iter()
                .map(|zone| d.row([("name", text(zone.name()))])),
        ),
        _ => {}
    }
    Ok(rows)
}

fn namespace_of(own: &Definition) -> u32 {
    if own.schema == "pg_catalog" {
        PG_CATALOG
    } else {
        INFORMATION_SCHEMA
    }
}

fn place(i: usize) -> Value {
    Value::Int(i as i64 + 1)
}

fn key_oid(directory: &Directory, schema: &Schema, table: &Table) -> u32 {
    directory.oid(&Object::Key(schema.name.clone(), table.name.clone()))
}

/// The name of a table's key, of the constraint and of the index.
pub(super) fn key_name(table: &Table) -> String {
    format!("{}_pkey", table.name)
}

fn key_columns(table: &Table) -> String {
    let names = table
        .key
        .iter()
        .filter_map(|i| table.columns.get(*i))
        .map(|c| quote_ident(&c.name));
    names.collect::<Vec<_>>().join(", ")
}

/// `PRIMARY KEY (…)`
pub(super) fn constraint_definition(table: &Table) -> String {
    format!("PRIMARY KEY ({})", key_columns(table))
}

/// `CREATE UNIQUE INDEX …`
pub(super) fn index_definition(schema: &Schema, table: &Table) -> String {
    format!(
        "CREATE UNIQUE INDEX {} ON {}.{} USING btree ({})",
        quote_ident(&key_name(table)),
        quote_ident(&schema.name),
        quote_ident(&table.name),
        key_columns(table)
    )
}

fn collation(pg: &Type) -> Value {
    Value::Int(if ValueType::of(pg.clone()).is_text() {
        100
    } else {
        0
    })
}
