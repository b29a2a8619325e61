//! Functions that answer rows.

use postgres_types::Type;
use starkeep_error::{Error, ErrorKind};

use super::context::Context;
use super::expr::unsupported;
use super::text_functions::pieces;
use super::value::{Row, Value, ValueType};

/// The rows for some arguments.
type RowsOf = fn(&[Value], &Context) -> Result<Vec<Row>, Error>;

/// A function that answers rows: what each row has, and the rows for some arguments.
pub(super) struct SetFunction {
    pub columns: Vec<(String, ValueType)>,
    pub rows: RowsOf,
}

/// The most rows that one call answers.
const SET_MAX: i64 = 1_000_000;

/// Finds a function that answers sets.
pub(super) fn set_function(name: &str, args: &[ValueType]) -> Option<SetFunction> {
    let one = |ty: ValueType| vec![(name.to_owned(), ty)];
    let item = || {
        args.first()
            .and_then(ValueType::item)
            .unwrap_or(ValueType::TEXT)
    };
    let each = |values: &[Value], _: &Context| {
        Ok(values[0].items().iter().map(|i| vec![i.clone()]).collect())
    };
    let not_done = |columns, rows| SetFunction { columns, rows };
    let is_whole = |ty: &ValueType| ty.is_integer() || ty.pg == Type::UNKNOWN;
    Some(match (name, args.len()) {
        ("generate_series", 2 | 3) if !args.iter().all(is_whole) => {
            not_done(one(args[0].clone()), |_, _| {
                Err(unsupported("generate_series of other than whole numbers"))
            })
        }
        ("regexp_split_to_table", 2 | 3) => not_done(one(ValueType::TEXT), |_, _| {
            Err(unsupported("regexp_split_to_table"))
        }),
        ("generate_series", 2 | 3) => SetFunction {
            columns: one(if args.iter().any(|a| a.pg == Type::INT8) {
                ValueType::INT8
            } else {
                ValueType::INT4
            }),
            rows: |values, _| {
                let step = values.get(2).map_or(Some(1), Value::as_int);
                let (Some(from), Some(to), Some(step)) =
                    (values[0].as_int(), values[1].as_int(), step)
                else {
                    return Ok(Vec::new());
                };
                if step == 0 {
                    return Err(Error::new(
                        ErrorKind::InvalidParameter,
                        "step size cannot equal zero",
                    ));
                }
                if (i128::from(to) - i128::from(from)) / i128::from(step) > i128::from(SET_MAX) {
                    return Err(Error::new(
                        ErrorKind::LimitExceeded,
                        format!("generate_series of more than {SET_MAX} rows"),
                    ));
                }
                let mut rows = Vec::new();
                let mut at = from;
                while if step > 0 { at <= to } else { at >= to } {
                    rows.push(vec![Value::Int(at)]);
                    let Some(next) = at.checked_add(step) else {
                        break;
                    };
                    at = next;
                }
                Ok(rows)
            },
        },
        ("unnest", 1) => SetFunction {
            columns: one(item()),
            rows: each,
        },
        ("string_to_table", 2) => SetFunction {
            columns: one(ValueType::TEXT),
            rows: |values, context| {
                let parts = pieces(&values[0], &values[1], context)?;
                if parts.len() > SET_MAX as usize {
                    return Err(Error::new(
                        ErrorKind::LimitExceeded,
                        format!("a text of more than {SET_MAX} parts"),
                    ));
                }
                Ok(parts.into_iter().map(|t| vec![Value::text(t)]).collect())
            },
        },
        ("generate_subscripts", 2) => SetFunction {
            columns: one(ValueType::INT4),
            rows: |values, _| match &values[0] {
                Value::Array(lower, items) => Ok((0..items.len())
                    .map(|i| vec![Value::Int(lower.saturating_add(i as i64))])
                    .collect()),
                _ => Ok(Vec::new()),
            },
        },
        // The standard's keys have places; this tells them.
        ("_pg_expandarray", 1) => SetFunction {
            columns: vec![("x".into(), item()), ("n".into(), ValueType::INT4)],
            rows: |values, _| {
                let numbered = values[0].items().iter().enumerate();
                Ok(numbered
                    .map(|(i, x)| vec![x.clone(), Value::Int(i as i64 + 1)])
                    .collect())
            },
        },
        // Nothing is partitioned or inherited, for PostgreSQL's idea of it.
        ("pg_partition_ancestors", 1) => SetFunction {
            columns: vec![("relid".into(), ValueType::of(Type::REGCLASS))],
            rows: |_, _| Ok(Vec::new()),
        },
        ("pg_partition_tree", 1) => SetFunction {
            columns: vec![
                ("relid".into(), ValueType::of(Type::REGCLASS)),
                ("parentrelid".into(), ValueType::of(Type::REGCLASS)),
                ("isleaf".into(), ValueType::BOOL),
                ("level".into(), ValueType::INT4),
            ],
            rows: |_, _| Ok(Vec::new()),
        },
        ("pg_options_to_table", 1) => SetFunction {
            columns: vec![
                ("option_name".into(), ValueType::TEXT),
                ("option_value".into(), ValueType::TEXT),
            ],
            rows: |_, _| Ok(Vec::new()),
        },
        ("aclexplode", 1) => SetFunction {
            columns: vec![
                ("grantor".into(), ValueType::OID),
                ("grantee".into(), ValueType::OID),
                ("privilege_type".into(), ValueType::TEXT),
                ("is_grantable".into(), ValueType::BOOL),
            ],
            rows: |values, context| {
                Ok(values[0]
                    .items()
                    .iter()
                    .flat_map(|acl| explode(acl.as_text(), context))
                    .collect())
            },
        },
        ("pg_get_keywords", 0) => SetFunction {
            columns: ["word", "catcode", "barelabel", "catdesc", "baredesc"]
                .map(|n| {
                    (
                        n.to_owned(),
                        match n {
                            "catcode" => ValueType::of(Type::CHAR),
                            "barelabel" => ValueType::BOOL,
                            _ => ValueType::TEXT,
                        },
                    )
                })
                .into(),
            rows: |_, context| Ok(context.snapshot.directory.builtin.keywords().to_vec()),
        },
        ("json_array_elements_text" | "jsonb_array_elements_text", 1) => SetFunction {
            columns: vec![("value".into(), ValueType::TEXT)],
            rows: |values, _| {
                let parsed: serde_json::Value =
                    serde_json::from_str(values[0].as_text()).unwrap_or_default();
                let shown =
                    |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                Ok(parsed
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|v| vec![Value::text(shown(v))])
                    .collect())
            },
        },
        _ => return None,
    })
}

/// `grantee=UC/grantor` as rows.
fn explode(acl: &str, context: &Context) -> Vec<Vec<Value>> {
    let Some((grantee, rest)) = acl.split_once('=') else {
        return Vec::new();
    };
    let (letters, grantor) = rest.split_once('/').unwrap_or((rest, ""));
    let oid = |name: &str| {
        Value::oid(if name.is_empty() {
            0
        } else {
            context
                .snapshot
                .directory
                .reg_oid(&Type::REGROLE, name)
                .unwrap_or(0)
        })
    };
    let word = |letter: char| match letter {
        'r' => "SELECT",
        'a' => "INSERT",
        'd' => "DELETE",
        'U' => "USAGE",
        'C' => "CREATE",
        'X' => "EXECUTE",
        _ => "CONNECT",
    };
    letters
        .chars()
        .filter(char::is_ascii_alphabetic)
        // No more privileges than there are letters.
        .take(52)
        .map(|l| {
            vec![
                oid(grantor),
                oid(grantee),
                Value::text(word(l)),
                Value::Bool(false),
            ]
        })
        .collect()
}
