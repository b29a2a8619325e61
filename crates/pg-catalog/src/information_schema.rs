//! The rows of `information_schema`, as the SQL standard and PostgreSQL have them.

use postgres_types::Type;

use super::directory::Directory;
use super::facts::Column;
use super::relations::Definition;
use super::tables::key_name;
use super::types::sql_type_name;
use super::value::{Row, Value, ValueType};
use starkeep_error::Error;

fn text(text: impl AsRef<str>) -> Value {
    Value::text(text)
}

fn yes_or_no(yes: bool) -> Value {
    text(if yes { "YES" } else { "NO" })
}

/// The rows of one relation.
pub(super) fn rows(directory: &Directory, d: &Definition) -> Result<Vec<Row>, Error> {
    let facts = &directory.facts;
    let catalog = || text(&facts.database);
    let keyed = || directory.tables().filter(|(_, t)| !t.key.is_empty());
    let keys = || {
        keyed().flat_map(|(s, t)| {
            t.key
                .iter()
                .enumerate()
                .filter_map(move |(n, i)| Some((s, t, n, t.columns.get(*i)?)))
        })
    };
    let mut rows = Vec::new();
    match d.name {
        "information_schema_catalog_name" => rows.push(d.row([("catalog_name", catalog())])),
        "schemata" => {
            let own = ["information_schema", "pg_catalog"];
            rows.extend(
                own.into_iter()
                    .chain(facts.objects.schemas.iter().map(|s| s.name.as_str()))
                    .map(|name| {
                        d.row([
                            ("catalog_name", catalog()),
                            ("schema_name", text(name)),
                            ("schema_owner", text("root")),
                        ])
                    }),
            );
        }
        "tables" => {
            for own in &directory.builtin.definitions {
                rows.push(table(
                    directory,
                    d,
                    own.schema,
                    own.name,
                    own.kind == 'v',
                    false,
                ));
            }
            for (schema, t) in directory.tables() {
                let is_view = t.definition.is_some();
                rows.push(table(
                    directory,
                    d,
                    &schema.name,
                    &t.name,
                    is_view,
                    !is_view && schema.name != "system",
                ));
            }
        }
        "views" => rows.extend(
            directory
                .tables()
                .filter(|(_, t)| t.definition.is_some())
                .map(|(schema, t)| {
                    d.row([
                        ("table_catalog", catalog()),
                        ("table_schema", text(&schema.name)),
                        ("table_name", text(&t.name)),
                        (
                            "view_definition",
                            t.definition.as_deref().map_or(Value::Null, Value::text),
                        ),
                        ("check_option", text("NONE")),
                        ("is_updatable", yes_or_no(false)),
                        ("is_insertable_into", yes_or_no(false)),
                        ("is_trigger_updatable", yes_or_no(false)),
                        ("is_trigger_deletable", yes_or_no(false)),
                        ("is_trigger_insertable_into", yes_or_no(false)),
                    ])
                }),
        ),
        "columns" => {
            for own in &directory.builtin.definitions {
                let columns = own.described().enumerate();
                rows.extend(
                    columns.map(|(i, c)| column(directory, d, own.schema, own.name, i, &c, false)),
                );
            }
            for (schema, t) in directory.tables() {
                let updatable = t.definition.is_none() && schema.name != "system";
                let columns = t.columns.iter().enumerate();
                rows.extend(
                    columns
                        .map(|(i, c)| column(directory, d, &schema.name, &t.name, i, c, updatable)),
                );
            }
        }
        "table_constraints" => rows.extend(keyed().map(|(schema, t)| {
            d.row([
                ("constraint_catalog", catalog()),
                ("constraint_schema", text(&schema.name)),
                ("constraint_name", text(key_name(t))),
                ("table_catalog", catalog()),
                ("table_schema", text(&schema.name)),
                ("table_name", text(&t.name)),
                ("constraint_type", text("PRIMARY KEY")),
                ("is_deferrable", yes_or_no(false)),
                ("initially_deferred", yes_or_no(false)),
                ("enforced", yes_or_no(true)),
            ])
        })),
        "key_column_usage" => rows.extend(keys().map(|(schema, t, n, c)| {
            d.row([
                ("constraint_catalog", catalog()),
                ("constraint_schema", text(&schema.name)),
                ("constraint_name", text(key_name(t))),
                ("table_catalog", catalog()),
                ("table_schema", text(&schema.name)),
                ("table_name", text(&t.name)),
                ("column_name", text(&c.name)),
                ("ordinal_position", Value::Int(n as i64 + 1)),
            ])
        })),
        "constraint_column_usage" => rows.extend(keys().map(|(schema, t, _, c)| {
            d.row([
                ("table_catalog", catalog()),
                ("table_schema", text(&schema.name)),
                ("table_name", text(&t.name)),
                ("column_name", text(&c.name)),
                ("constraint_catalog", catalog()),
                ("constraint_schema", text(&schema.name)),
                ("constraint_name", text(key_name(t))),
            ])
        })),
        "character_sets" => rows.push(d.row([
            ("character_set_name", text("UTF8")),
            ("character_repertoire", text("UCS")),
            ("form_of_use", text("UTF8")),
            ("default_collate_catalog", catalog()),
            ("default_collate_schema", text("pg_catalog")),
            ("default_collate_name", text("C")),
        ])),
        "enabled_roles" => rows.extend(
            facts
                .objects
                .roles
                .iter()
                .map(|r| d.row([("role_name", text(&r.name))])),
        ),
        "applicable_roles" => {
            rows.extend(facts.objects.memberships.iter().map(|(role, member)| {
                d.row([
                    ("grantee", text(member)),
                    ("role_name", text(role)),
                    ("is_grantable", yes_or_no(false)),
                ])
            }))
        }
        "table_privileges" | "role_table_grants" => {
            for (schema, t) in directory.tables() {
                rows.extend(t.granted.iter().map(|privilege| {
                    d.row([
                        ("grantor", text("root")),
                        ("grantee", text(&facts.user)),
                        ("table_catalog", catalog()),
                        ("table_schema", text(&schema.name)),
                        ("table_name", text(&t.name)),
                        ("privilege_type", text(privilege)),
                        ("is_grantable", yes_or_no(false)),
                        ("with_hierarchy", yes_or_no(*privilege == "SELECT")),
                    ])
                }));
            }
        }
        "column_privileges" | "role_column_grants" => {
            for (schema, t) in directory.tables() {
                for c in &t.columns {
                    rows.extend(
                        t.granted
                            .iter()
                            .filter(|p| **p != "DELETE")
                            .map(|privilege| {
                                d.row([
                                    ("grantor", text("root")),
                                    ("grantee", text(&facts.user)),
                                    ("table_catalog", catalog()),
                                    ("table_schema", text(&schema.name)),
                                    ("table_name", text(&t.name)),
                                    ("column_name", text(&c.name)),
                                    ("privilege_type", text(privilege)),
                                    ("is_grantable", yes_or_no(false)),
                                ])
                            }),
                    );
                }
            }
        }
        _ => {}
    }
    Ok(rows)
}

fn table(
    directory: &Directory,
    d: &Definition,
    schema: &str,
    name: &str,
    is_view: bool,
    insertable: bool,
) -> Row {
    d.row([
        ("table_catalog", text(&directory.facts.database)),
        ("table_schema", text(schema)),
        ("table_name", text(name)),
        (
            "table_type",
            text(if is_view { "VIEW" } else { "BASE TABLE" }),
        ),
        ("is_insertable_into", yes_or_no(insertable)),
        ("is_typed", yes_or_no(false)),
    ])
}

fn column(
    directory: &Directory,
    d: &Definition,
    schema: &str,
    table: &str,
    i: usize,
    c: &Column,
    updatable: bool,
) -> Row {
    let ty = ValueType::of(c.pg.clone());
    let number = |n: i32| Value::Int(n.into());
    let length = if c.pg == Type::VARCHAR && c.modifier > 4 {
        Some(c.modifier - 4)
    } else {
        None
    };
    let octets = match (&c.pg, length) {
        (_, Some(length)) => number(length.saturating_mul(4)),
        (&Type::TEXT | &Type::VARCHAR, None) => number(1 << 30),
        _ => Value::Null,
    };
    let packed = (c.pg == Type::NUMERIC && c.modifier > 4).then(|| c.modifier - 4);
    let (precision, radix, scale) = match c.pg {
        Type::INT2 => (number(16), number(2), number(0)),
        Type::INT4 => (number(32), number(2), number(0)),
        Type::INT8 => (number(64), number(2), number(0)),
        Type::FLOAT4 => (number(24), number(2), Value::Null),
        Type::FLOAT8 => (number(53), number(2), Value::Null),
        Type::NUMERIC => match packed {
            Some(packed) => (number(packed >> 16), number(10), number(packed & 0xffff)),
            None => (Value::Null, number(10), Value::Null),
        },
        _ => (Value::Null, Value::Null, Value::Null),
    };
    let moment = match c.pg {
        Type::DATE => number(0),
        Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME | Type::TIMETZ | Type::INTERVAL => {
            number(6)
        }
        _ => Value::Null,
    };
    let is_array = ty.item().is_some() && !matches!(c.pg, Type::INT2_VECTOR | Type::OID_VECTOR);
    d.row([
        ("table_catalog", text(&directory.facts.database)),
        ("table_schema", text(schema)),
        ("table_name", text(table)),
        ("column_name", text(&c.name)),
        ("ordinal_position", Value::Int(i as i64 + 1)),
        (
            "column_default",
            c.default.as_deref().map_or(Value::Null, Value::text),
        ),
        ("is_nullable", yes_or_no(!c.not_null)),
        (
            "data_type",
            text(if is_array {
                "ARRAY".to_owned()
            } else {
                sql_type_name(&c.pg)
            }),
        ),
        (
            "character_maximum_length",
            length.map_or(Value::Null, number),
        ),
        ("character_octet_length", octets),
        ("numeric_precision", precision),
        ("numeric_precision_radix", radix),
        ("numeric_scale", scale),
        ("datetime_precision", moment),
        ("udt_catalog", text(&directory.facts.database)),
        ("udt_schema", text("pg_catalog")),
        ("udt_name", text(c.pg.name())),
        ("dtd_identifier", text((i + 1).to_string())),
        ("is_self_referencing", yes_or_no(false)),
        ("is_identity", yes_or_no(false)),
        ("identity_cycle", yes_or_no(false)),
        ("is_generated", text("NEVER")),
        ("is_updatable", yes_or_no(updatable)),
    ])
}
