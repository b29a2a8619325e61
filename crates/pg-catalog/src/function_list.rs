//! Every function that a query of the catalogs may call, by its name: what can be told of it before
//! its arguments are known. What is not here does not exist.

/// What kind of function it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// A value from values.
    Plain,
    /// The same, from a text first: what is no text would be read as an empty one.
    OfText,
    /// Rows.
    Set,
    Aggregate,
    /// Of a window alone.
    Window,
}

/// Functions of which the same can be told.
pub(super) struct Group {
    pub family: Family,
    /// Only the catalogs know the answer: a statement without tables that calls one is theirs.
    pub asks_the_catalogs: bool,
    /// It needs the session and its settings, and no tables, users or roles.
    pub reads_session_alone: bool,
    names: &'static [&'static str],
}

const GROUPS: &[Group] = &[
    Group {
        family: Family::Plain,
        asks_the_catalogs: true,
        reads_session_alone: true,
        names: &[
            "current_catalog",
            "current_database",
            "current_role",
            "current_schema",
            "current_schemas",
            "current_setting",
            "current_user",
            "inet_client_addr",
            "inet_client_port",
            "inet_server_addr",
            "inet_server_port",
            "pg_advisory_unlock_all",
            "pg_backend_pid",
            "pg_is_in_recovery",
            "pg_postmaster_start_time",
            "pg_sleep",
            "session_user",
            "set_config",
            "txid_current",
            "user",
            "version",
        ],
    },
    Group {
        family: Family::Plain,
        asks_the_catalogs: true,
        reads_session_alone: false,
        names: &[
            "col_description",
            "format_type",
            "getdatabaseencoding",
            "has_any_column_privilege",
            "has_column_privilege",
            "has_database_privilege",
            "has_function_privilege",
            "has_language_privilege",
            "has_schema_privilege",
            "has_sequence_privilege",
            "has_server_privilege",
            "has_table_privilege",
            "has_tablespace_privilege",
            "has_type_privilege",
            "obj_description",
            "pg_advisory_lock",
            "pg_advisory_lock_shared",
            "pg_advisory_unlock",
            "pg_advisory_unlock_shared",
            "pg_advisory_xact_lock",
            "pg_advisory_xact_lock_shared",
            "pg_blocking_pids",
            "pg_cancel_backend",
            "pg_char_to_encoding",
            "pg_client_encoding",
            "pg_collation_is_visible",
            "pg_column_is_updatable",
            "pg_conf_load_time",
            "pg_conversion_is_visible",
            "pg_current_xact_id",
            "pg_database_size",
            "pg_encoding_to_char",
            "pg_function_is_visible",
            "pg_get_constraintdef",
            "pg_get_expr",
            "pg_get_function_arg_default",
            "pg_get_function_arguments",
            "pg_get_function_identity_arguments",
            "pg_get_function_result",
            "pg_get_function_sqlbody",
            "pg_get_functiondef",
            "pg_get_indexdef",
            "pg_get_partition_constraintdef",
            "pg_get_partkeydef",
            "pg_get_ruledef",
            "pg_get_serial_sequence",
            "pg_get_statisticsobjdef",
            "pg_get_statisticsobjdef_columns",
            "pg_get_triggerdef",
            "pg_get_userbyid",
            "pg_get_viewdef",
            "pg_has_role",
            "pg_indexes_size",
            "pg_is_other_temp_schema",
            "pg_is_wal_replay_paused",
            "pg_listening_channels",
            "pg_my_temp_schema",
            "pg_opclass_is_visible",
            "pg_operator_is_visible",
            "pg_opfamily_is_visible",
            "pg_relation_filenode",
            "pg_relation_is_publishable",
            "pg_relation_is_updatable",
            "pg_relation_size",
            "pg_safe_snapshot_blocking_pids",
            "pg_size_pretty",
            "pg_stat_get_backend_wait_event",
            "pg_statistics_obj_is_visible",
            "pg_table_is_visible",
            "pg_table_size",
            "pg_tablespace_location",
            "pg_tablespace_size",
            "pg_terminate_backend",
            "pg_total_relation_size",
            "pg_try_advisory_lock",
            "pg_try_advisory_lock_shared",
            "pg_try_advisory_xact_lock",
            "pg_ts_config_is_visible",
            "pg_ts_dict_is_visible",
            "pg_ts_parser_is_visible",
            "pg_ts_template_is_visible",
            "pg_type_is_visible",
            "pg_typeof",
            "quote_literal",
            "quote_nullable",
            "row_security_active",
            "shobj_description",
            "to_regclass",
            "to_regnamespace",
            "to_regproc",
            "to_regrole",
            "to_regtype",
        ],
    },
    Group {
        family: Family::OfText,
        asks_the_catalogs: true,
        reads_session_alone: false,
        names: &["parse_ident", "quote_ident"],
    },
    Group {
        family: Family::Plain,
        asks_the_catalogs: false,
        reads_session_alone: true,
        names: &["coalesce", "now"],
    },
    Group {
        family: Family::OfText,
        asks_the_catalogs: false,
        reads_session_alone: true,
        names: &["lower", "upper"],
    },
    Group {
        family: Family::OfText,
        asks_the_catalogs: false,
        reads_session_alone: false,
        names: &[
            "ascii",
            "btrim",
            "char_length",
            "character_length",
            "left",
            "length",
            "lpad",
            "ltrim",
            "octet_length",
            "position",
            "regexp_match",
            "regexp_replace",
            "repeat",
            "replace",
            "reverse",
            "right",
            "rpad",
            "rtrim",
            "split_part",
            "starts_with",
            "string_to_array",
            "strpos",
            "substr",
            "substring",
            "translate",
            "trim",
        ],
    },
    Group {
        family: Family::Plain,
        asks_the_catalogs: false,
        reads_session_alone: false,
        names: &[
            "abs",
            "age",
            "array_append",
            "array_cat",
            "array_fill",
            "array_length",
            "array_lower",
            "array_ndims",
            "array_position",
            "array_prepend",
            "array_remove",
            "array_to_string",
            "array_upper",
            "cardinality",
            "ceil",
            "ceiling",
            "clock_timestamp",
            "concat",
            "concat_ws",
            "current_timestamp",
            "floor",
            "format",
            "greatest",
            "json_build_object",
            "jsonb_build_object",
            "least",
            "localtimestamp",
            "mod",
            "nullif",
            "round",
            "row",
            "row_to_json",
            "statement_timestamp",
            "to_char",
            "to_json",
            "to_jsonb",
            "to_regprocedure",
            "transaction_timestamp",
            "trunc",
        ],
    },
    Group {
        family: Family::Set,
        asks_the_catalogs: true,
        reads_session_alone: false,
        names: &[
            "pg_get_keywords",
            "pg_options_to_table",
            "pg_partition_ancestors",
            "pg_partition_tree",
        ],
    },
    Group {
        family: Family::Set,
        asks_the_catalogs: false,
        reads_session_alone: false,
        names: &[
            "_pg_expandarray",
            "aclexplode",
            "generate_series",
            "generate_subscripts",
            "json_array_elements_text",
            "jsonb_array_elements_text",
            "regexp_split_to_table",
            "string_to_table",
            "unnest",
        ],
    },
    Group {
        family: Family::Aggregate,
        asks_the_catalogs: false,
        reads_session_alone: false,
        names: &[
            "array_agg",
            "avg",
            "bool_and",
            "bool_or",
            "count",
            "every",
            "json_agg",
            "json_object_agg",
            "jsonb_agg",
            "jsonb_object_agg",
            "max",
            "min",
            "string_agg",
            "sum",
        ],
    },
    Group {
        family: Family::Window,
        asks_the_catalogs: false,
        reads_session_alone: false,
        names: &["dense_rank", "rank", "row_number"],
    },
];

/// What is known of a function.
pub(super) fn find(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.names.contains(&name))
}

/// Whether only the catalogs can answer a function, be it that they do not know it: what is named
/// like one of theirs is theirs to refuse.
pub(super) fn asks_the_catalogs(name: &str) -> bool {
    find(name).map_or_else(
        || name.starts_with("pg_") || name.starts_with("has_") && name.ends_with("_privilege"),
        |group| group.asks_the_catalogs,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use postgres_types::Type;

    use super::*;
    use crate::aggregate::{Kind, WindowKind};
    use crate::functions;
    use crate::set_functions::set_function;
    use crate::value::ValueType;

    /// Whether there is a function of this name for some arguments.
    fn exists(family: Family, name: &str) -> bool {
        let types = [
            ValueType::TEXT,
            ValueType::INT4,
            ValueType::of(Type::XID),
            ValueType::of(Type::NUMERIC),
            ValueType::of(Type::TIMESTAMPTZ),
            ValueType::of(Type::INT4_ARRAY),
        ];
        let lists = (0..=4).flat_map(|count| types.iter().map(move |ty| vec![ty.clone(); count]));
        let mut lists = lists.chain([vec![ValueType::of(Type::TIMESTAMPTZ), ValueType::TEXT]]);
        lists.any(|args| match family {
            Family::Plain | Family::OfText => functions::lookup(name, &args).is_some(),
            Family::Set => set_function(name, &args).is_some(),
            Family::Aggregate => Kind::of(name, &args).is_some(),
            Family::Window => WindowKind::of(name).is_some(),
        })
    }

    #[test]
    fn each_function_is_listed_once_and_exists() {
        // Compiled with their arguments, as they need not all be worth anything.
        const FORMS: &[&str] = &["coalesce", "greatest", "least", "nullif", "row"];
        let mut seen = HashSet::new();
        for group in GROUPS {
            for name in group.names {
                assert!(seen.insert(name), "{name} twice");
                assert!(
                    FORMS.contains(name) || exists(group.family, name),
                    "{name} is listed and does not exist"
                );
            }
        }
    }
}
