//! PostgreSQL's functions about its catalogs, settings and connections.

mod privileges;

use postgres_types::Type;
use starkeep_error::{Error, ErrorKind};
use starkeep_pg_semantics::text::quote_ident;

use self::privileges::{has_role, role_of, table_privilege};
use super::context::{Context, SideEffect};
use super::facts::{Object, Schema, Table};
use super::function::{Function, fallible, int, lax, strict};
use super::function_list::{self, Family};
use super::snapshot::CatalogSnapshot;
use super::tables::{PG_CLASS, constraint_definition, index_definition};
use super::value::{Value, ValueType};

fn constant(returns: Type, value: Value) -> Option<Function> {
    lax(ValueType::of(returns), move |_, _| value.clone())
}

fn optional(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::text)
}

/// The number of a connection.
fn pid(value: &Value) -> Result<i32, Error> {
    i32::try_from(int(value)?)
        .map_err(|_| Error::new(ErrorKind::OutOfRange, "integer out of range"))
}

/// A relation's number, from a number or a name.
fn class(value: &Value, snapshot: &CatalogSnapshot) -> Result<u32, Error> {
    match value {
        Value::Text(name) => snapshot.directory.reg_oid(&Type::REGCLASS, name),
        other => Ok(other.as_oid()),
    }
}

/// A table by the number of itself.
fn table_of(snapshot: &CatalogSnapshot, oid: u32) -> Option<(&Schema, &Table)> {
    let Some(Object::Relation(schema, name)) = snapshot.directory.named(oid) else {
        return None;
    };
    find(snapshot, schema, name)
}

/// By the number of its key's index.
fn table_of_index(snapshot: &CatalogSnapshot, oid: u32) -> Option<(&Schema, &Table)> {
    let Some(Object::Key(schema, name)) = snapshot.directory.named(oid) else {
        return None;
    };
    find(snapshot, schema, name)
}

/// By the number of its key's constraint.
fn table_of_constraint(snapshot: &CatalogSnapshot, oid: u32) -> Option<(&Schema, &Table)> {
    let Some(Object::Constraint(schema, name)) = snapshot.directory.named(oid) else {
        return None;
    };
    find(snapshot, schema, name)
}

fn find<'s>(
    snapshot: &'s CatalogSnapshot,
    schema: &str,
    name: &str,
) -> Option<(&'s Schema, &'s Table)> {
    let schema = snapshot
        .directory
        .facts
        .objects
        .schemas
        .iter()
        .find(|s| s.name == schema)?;
    Some((schema, schema.tables.iter().find(|t| t.name == name)?))
}

/// Finds a function about the catalogs by name and argument types.
pub(super) fn lookup(name: &str, args: &[ValueType]) -> Option<Function> {
    let count = args.len();
    let Some(group) = function_list::find(name) else {
        // Counters that stay at nothing here.
        return if count == 1 && name.starts_with("pg_stat_get_") {
            lax(ValueType::INT8, |_, _| Value::Int(0))
        } else {
            None
        };
    };
    if group.family == Family::OfText && args.first().is_some_and(|first| !first.is_text()) {
        return None;
    }
    match (name, count) {
        ("version", 0) => lax(ValueType::TEXT, |_, c| {
            Value::text(&c.snapshot.directory.facts.version)
        }),
        ("current_database" | "current_catalog", 0) => lax(ValueType::of(Type::NAME), |_, c| {
            Value::text(&c.snapshot.directory.facts.database)
        }),
        ("current_schema", 0) => lax(ValueType::of(Type::NAME), |_, c| {
            optional(c.snapshot.directory.search_path(false).into_iter().next())
        }),
        ("current_schemas", 1) => strict(Type::NAME_ARRAY, |a, c| {
            Value::array(
                c.snapshot
                    .directory
                    .search_path(a[0].is_true())
                    .into_iter()
                    .map(Value::text),
            )
        }),
        ("current_user" | "session_user" | "user" | "current_role", 0) => {
            lax(ValueType::of(Type::NAME), |_, c| {
                Value::text(&c.snapshot.directory.facts.user)
            })
        }
        ("pg_backend_pid", 0) => lax(ValueType::INT4, |_, c| {
            Value::Int(c.snapshot.directory.facts.pid.into())
        }),
        ("pg_get_userbyid", 1) => strict(Type::NAME, |a, c| {
            let oid = a[0].as_oid();
            Value::text(
                c.snapshot
                    .directory
                    .role_name(oid)
                    .unwrap_or_else(|| format!("unknown (OID={oid})")),
            )
        }),
        ("pg_encoding_to_char", 1) => fallible(Type::NAME, |a, _| {
            Ok(Value::text(if int(&a[0])? == 6 { "UTF8" } else { "" }))
        }),
        ("pg_char_to_encoding", 1) => strict(Type::INT4, |a, _| {
            Value::Int(if a[0].as_text().eq_ignore_ascii_case("utf8") {
                6
            } else {
                -1
            })
        }),
        ("getdatabaseencoding" | "pg_client_encoding", 0) => {
            constant(Type::NAME, Value::text("UTF8"))
        }
        ("pg_table_is_visible", 1) => strict(Type::BOOL, |a, c| {
            match c.snapshot.directory.relation_name(a[0].as_oid()) {
                Some((schema, _)) => {
                    Value::Bool(c.snapshot.directory.search_path(true).contains(&schema))
                }
                None => Value::Null,
            }
        }),
        (
            "pg_type_is_visible"
            | "pg_function_is_visible"
            | "pg_operator_is_visible"
            | "pg_opclass_is_visible"
            | "pg_opfamily_is_visible"
            | "pg_collation_is_visible"
            | "pg_conversion_is_visible"
            | "pg_ts_config_is_visible"
            | "pg_ts_dict_is_visible"
            | "pg_ts_parser_is_visible"
            | "pg_ts_template_is_visible"
            | "pg_statistics_obj_is_visible",
            1,
        ) => strict(Type::BOOL, |_, _| Value::Bool(true)),
        ("format_type", 2) => Some(Function {
            returns: ValueType::TEXT,
            strict: false,
            call: Box::new(|a, c| {
                if a[0].is_null() {
                    return Ok(Value::Null);
                }
                let modifier = (!a[1].is_null()).then(|| int(&a[1])).transpose()?;
                let oid = int(&a[0])? as u32;
                Ok(Value::text(c.snapshot.directory.format_type(oid, modifier)))
            }),
        }),
        // What these take is the text already.
        ("pg_get_expr", 2 | 3) => strict(Type::TEXT, |a, _| a[0].clone()),
        ("pg_get_constraintdef", 1 | 2) => strict(Type::TEXT, |a, c| {
            optional(
                table_of_constraint(&c.snapshot, a[0].as_oid())
                    .map(|(_, t)| constraint_definition(t)),
            )
        }),
        ("pg_get_indexdef", 1) => strict(Type::TEXT, |a, c| {
            optional(
                table_of_index(&c.snapshot, a[0].as_oid())
                    .map(|(schema, table)| index_definition(schema, table)),
            )
        }),
        ("pg_get_indexdef", 3) => fallible(Type::TEXT, |a, c| {
            let Some((schema, table)) = table_of_index(&c.snapshot, a[0].as_oid()) else {
                return Ok(Value::Null);
            };
            let name = |place: i64| {
                let at = *table.key.get(usize::try_from(place - 1).ok()?)?;
                table.columns.get(at).map(|c| quote_ident(&c.name))
            };
            Ok(match int(&a[1])? {
                0 => Value::text(index_definition(schema, table)),
                place => optional(name(place)),
            })
        }),
        ("pg_get_viewdef", 1 | 2) => fallible(Type::TEXT, |a, c| {
            let oid = class(&a[0], &c.snapshot)?;
            let definition = table_of(&c.snapshot, oid).and_then(|(_, t)| t.definition.clone());
            Ok(Value::text(
                definition.map_or("Not a view".to_owned(), |d| {
                    format!(" {};", d.trim_end_matches(';'))
                }),
            ))
        }),
        (
            "pg_get_ruledef"
            | "pg_get_triggerdef"
            | "pg_get_functiondef"
            | "pg_get_function_sqlbody"
            | "pg_get_partkeydef"
            | "pg_get_partition_constraintdef"
            | "pg_get_statisticsobjdef"
            | "pg_get_statisticsobjdef_columns"
            | "pg_get_serial_sequence"
            | "pg_tablespace_location"
            | "pg_get_function_arg_default"
            | "pg_stat_get_backend_wait_event",
            1..=3,
        ) => lax(ValueType::TEXT, |_, _| Value::Null),
        ("pg_get_function_result", 1) => strict(Type::TEXT, |a, c| {
            super::procedures::result(&c.snapshot, a[0].as_oid())
        }),
        ("pg_get_function_arguments" | "pg_get_function_identity_arguments", 1) => {
            strict(Type::TEXT, |a, c| {
                super::procedures::arguments(&c.snapshot, a[0].as_oid())
            })
        }
        ("obj_description", 1 | 2) => strict(Type::TEXT, |a, c| {
            let catalog = a.get(1).map_or("pg_class", Value::as_text).to_owned();
            description(c, a[0].as_oid(), 0, &catalog)
        }),
        ("col_description", 2) => fallible(Type::TEXT, |a, c| {
            let number = int(&a[1])?;
            Ok(description(c, a[0].as_oid(), number, "pg_class"))
        }),
        ("shobj_description", 2) => lax(ValueType::TEXT, |_, _| Value::Null),
        ("pg_has_role", 2 | 3) => strict(Type::BOOL, |a, c| {
            let (user, role) = if a.len() == 3 {
                (role_of(&a[0], c), role_of(&a[1], c))
            } else {
                (None, role_of(&a[0], c))
            };
            let user = user.unwrap_or_else(|| c.snapshot.directory.facts.user.clone());
            Value::Bool(has_role(
                &c.snapshot,
                &user,
                role.as_deref().unwrap_or_default(),
            ))
        }),
        ("has_table_privilege" | "has_any_column_privilege" | "has_column_privilege", 2..=4) => {
            let is_column = name == "has_column_privilege";
            fallible(Type::BOOL, move |a, c| table_privilege(a, c, is_column))
        }
        (
            "has_schema_privilege"
            | "has_database_privilege"
            | "has_function_privilege"
            | "has_type_privilege"
            | "has_language_privilege"
            | "has_tablespace_privilege"
            | "has_server_privilege"
            | "has_sequence_privilege",
            2 | 3,
        ) => strict(Type::BOOL, |a, c| {
            let word = a[a.len() - 1].as_text().to_ascii_lowercase();
            let is_admin = c
                .snapshot
                .directory
                .facts
                .objects
                .roles
                .iter()
                .any(|r| r.name == c.snapshot.directory.facts.user && r.is_admin);
            // Everybody may look; what is made needs a grant that only the statement itself can
            // check.
            Value::Bool(
                is_admin || matches!(word.as_str(), "usage" | "connect" | "execute" | "select"),
            )
        }),
        ("row_security_active", 1) => constant(Type::BOOL, Value::Bool(false)),
        (
            "pg_relation_size"
            | "pg_total_relation_size"
            | "pg_table_size"
            | "pg_indexes_size"
            | "pg_database_size"
            | "pg_tablespace_size",
            1 | 2,
        ) => strict(Type::INT8, |_, _| Value::Int(0)),
        ("pg_relation_is_publishable", 1) => strict(Type::BOOL, |_, _| Value::Bool(false)),
        ("pg_relation_filenode", 1) => strict(Type::OID, |a, _| a[0].clone()),
        ("pg_my_temp_schema", 0) => constant(Type::OID, Value::Int(0)),
        ("pg_is_other_temp_schema", 1) => strict(Type::BOOL, |_, _| Value::Bool(false)),
        ("pg_is_in_recovery" | "pg_is_wal_replay_paused", 0) => {
            constant(Type::BOOL, Value::Bool(false))
        }
        ("pg_postmaster_start_time" | "pg_conf_load_time", 0) => {
            lax(ValueType::of(Type::TIMESTAMPTZ), |_, c| {
                Value::Time(c.snapshot.directory.facts.started_at)
            })
        }
        (
            "now"
            | "clock_timestamp"
            | "transaction_timestamp"
            | "statement_timestamp"
            | "current_timestamp"
            | "localtimestamp",
            0,
        ) => {
            let returns = if name == "localtimestamp" {
                Type::TIMESTAMP
            } else {
                Type::TIMESTAMPTZ
            };
            lax(ValueType::of(returns), |_, c| {
                Value::Time(c.snapshot.directory.facts.now)
            })
        }
        ("txid_current" | "pg_current_xact_id", 0) => constant(Type::INT8, Value::Int(1)),
        ("age", 1) if args[0].pg == Type::XID => strict(Type::INT4, |_, _| Value::Int(0)),
        ("inet_client_addr" | "inet_server_addr", 0) => constant(Type::INET, Value::Null),
        ("inet_client_port" | "inet_server_port", 0) => constant(Type::INT4, Value::Null),
        ("pg_cancel_backend", 1) => fallible(Type::BOOL, |a, c| {
            Ok(signal(c, SideEffect::Cancel(pid(&a[0])?)))
        }),
        ("pg_terminate_backend", 1 | 2) => fallible(Type::BOOL, |a, c| {
            Ok(signal(c, SideEffect::Terminate(pid(&a[0])?)))
        }),
        ("pg_sleep", 1) => fallible(Type::VOID, |a, c| {
            let seconds: f64 = match &a[0] {
                Value::Text(text) => text.trim().parse().map_err(|_| {
                    Error::new(
                        ErrorKind::InvalidText,
                        format!("invalid input syntax for type double precision: \"{text}\""),
                    )
                })?,
                Value::Float(f) => *f,
                other => other.as_int().unwrap_or(0) as f64,
            };
            c.effects
                .borrow_mut()
                .push(SideEffect::Sleep((seconds.clamp(0.0, 1e9) * 1e6) as u64));
            Ok(Value::text(""))
        }),
        ("pg_advisory_unlock_all", 0)
        | (
            "pg_advisory_lock"
            | "pg_advisory_xact_lock"
            | "pg_advisory_lock_shared"
            | "pg_advisory_xact_lock_shared",
            1 | 2,
        ) => constant(Type::VOID, Value::text("")),
        (
            "pg_try_advisory_lock"
            | "pg_try_advisory_xact_lock"
            | "pg_advisory_unlock"
            | "pg_try_advisory_lock_shared"
            | "pg_advisory_unlock_shared",
            1 | 2,
        ) => strict(Type::BOOL, |_, _| Value::Bool(true)),
        ("current_setting", 1 | 2) => fallible(Type::TEXT, |a, c| {
            let name = a[0].as_text();
            match c.snapshot.directory.setting(name) {
                Some(setting) => Ok(Value::text(&setting.value)),
                None if a.get(1).is_some_and(Value::is_true) => Ok(Value::Null),
                None => {
                    let message = format!("unrecognized configuration parameter \"{name}\"");
                    Err(Error::new(ErrorKind::UndefinedSetting, message))
                }
            }
        }),
        ("set_config", 3) => lax(ValueType::TEXT, |a, c| {
            let (name, value) = (a[0].as_text().to_owned(), a[1].as_text().to_owned());
            c.effects.borrow_mut().push(SideEffect::Set {
                name,
                value: value.clone(),
                local: a[2].is_true(),
            });
            Value::text(value)
        }),
        ("pg_column_is_updatable" | "pg_relation_is_updatable", 2 | 3) => strict(
            if name == "pg_column_is_updatable" {
                Type::BOOL
            } else {
                Type::INT4
            },
            move |_, _| Value::Null,
        ),
        ("pg_typeof", 1) => {
            let oid = if args[0].pg == Type::UNKNOWN {
                Type::UNKNOWN.oid()
            } else {
                args[0].pg.oid()
            };
            lax(ValueType::of(Type::REGTYPE), move |_, _| Value::oid(oid))
        }
        ("to_regclass", 1) => reg(Type::REGCLASS),
        ("to_regtype", 1) => reg(Type::REGTYPE),
        ("to_regproc" | "to_regprocedure", 1) => reg(Type::REGPROC),
        ("to_regnamespace", 1) => reg(Type::REGNAMESPACE),
        ("to_regrole", 1) => reg(Type::REGROLE),
        ("pg_listening_channels" | "pg_blocking_pids" | "pg_safe_snapshot_blocking_pids", _) => {
            lax(ValueType::of(Type::INT4_ARRAY), |_, _| Value::array([]))
        }
        _ => super::text_functions::lookup(name, args),
    }
}

fn reg(ty: Type) -> Option<Function> {
    let of = ty.clone();
    strict(ty, move |a, c| {
        c.snapshot
            .directory
            .reg_oid(&of, a[0].as_text())
            .map_or(Value::Null, Value::oid)
    })
}

/// Cancelling what is not there is no error: it may just have ended.
fn signal(context: &Context, effect: SideEffect) -> Value {
    let (SideEffect::Cancel(pid) | SideEffect::Terminate(pid)) = effect else {
        return Value::Bool(false);
    };
    let is_there = context
        .snapshot
        .directory
        .facts
        .activity
        .iter()
        .any(|a| a.pid == pid);
    if is_there {
        context.effects.borrow_mut().push(effect);
    }
    Value::Bool(is_there)
}

fn description(context: &Context, oid: u32, number: i64, catalog: &str) -> Value {
    let class = context
        .snapshot
        .directory
        .builtin
        .definition("pg_catalog", catalog)
        .map_or(0, |d| d.oid);
    let Ok(Some(all)) = context.snapshot.relation("pg_catalog", "pg_description") else {
        return Value::Null;
    };
    let row = all
        .rows
        .iter()
        .find(|r| r[0].as_oid() == oid && r[1].as_oid() == class && r[2].as_int() == Some(number));
    debug_assert!(catalog != "pg_class" || class == PG_CLASS);
    row.map_or(Value::Null, |r| r[3].clone())
}
