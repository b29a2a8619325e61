//! Values as PostgreSQL shows them, and as its input functions read them.

use chrono::DateTime;
use datafusion::arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use postgres_types::Type;
use starkeep_error::{Error, ErrorKind};
use starkeep_pg_semantics::datetime::{self, Clock, Zone};

use super::array::array_items;
use super::directory::Directory;
use super::interval::interval_text;
use super::types::sql_type_name;
use super::value::{Value, ValueType};

/// A value as PostgreSQL shows it; names of objects come from the directory.
pub(super) fn show(value: &Value, ty: &ValueType, directory: &Directory) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(b) => if *b { "t" } else { "f" }.into(),
        Value::Int(n) if ty.is_reg() => directory.reg_name(&ty.pg, u32::try_from(*n).unwrap_or(0)),
        Value::Int(n) => n.to_string(),
        Value::Float(f) => f.to_string(),
        Value::Text(t) => t.to_string(),
        Value::Time(micros) => DateTime::from_timestamp_micros(*micros)
            .map(|t| {
                let fraction = t.timestamp_subsec_micros();
                let fraction = if fraction == 0 {
                    String::new()
                } else {
                    format!(".{fraction:06}")
                };
                let zone = if ty.pg == Type::TIMESTAMP { "" } else { "+00" };
                format!(
                    "{}{}{zone}",
                    t.format("%Y-%m-%d %H:%M:%S"),
                    fraction.trim_end_matches('0')
                )
            })
            .unwrap_or_default(),
        Value::Span(micros) => {
            let (sign, micros) = (if *micros < 0 { "-" } else { "" }, micros.unsigned_abs());
            let seconds = micros / 1_000_000;
            let fraction = micros % 1_000_000;
            let fraction = if fraction == 0 {
                String::new()
            } else {
                format!(".{fraction:06}").trim_end_matches('0').to_owned()
            };
            let days = seconds / 86_400;
            let days = match days {
                0 => String::new(),
                1 => format!("{sign}1 day "),
                n => format!("{sign}{n} days "),
            };
            format!(
                "{days}{sign}{:02}:{:02}:{:02}{fraction}",
                seconds / 3600 % 24,
                seconds / 60 % 60,
                seconds % 60
            )
        }
        Value::Array(_, items) if matches!(ty.pg, Type::INT2_VECTOR | Type::OID_VECTOR) => items
            .iter()
            .map(|i| show(i, &ValueType::INT8, directory))
            .collect::<Vec<_>>()
            .join(" "),
        Value::Array(_, items) => {
            let item = ty.item().unwrap_or(ValueType::TEXT);
            let shown = items.iter().map(|i| match i {
                Value::Null => "NULL".to_owned(),
                Value::Array(..) => show(i, ty, directory),
                i => quoted_item(&show(i, &item, directory), false),
            });
            format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
        }
        Value::Record(values) => {
            let fields = ty.fields.clone().unwrap_or_default();
            let shown = values.iter().enumerate().map(|(i, v)| match v {
                Value::Null => String::new(),
                v => quoted_item(
                    &show(
                        v,
                        fields.get(i).map_or(&ValueType::TEXT, |(_, ty)| ty),
                        directory,
                    ),
                    true,
                ),
            });
            format!("({})", shown.collect::<Vec<_>>().join(","))
        }
    }
}

/// A part of an array or record, quoted where PostgreSQL quotes.
fn quoted_item(text: &str, in_record: bool) -> String {
    let special = |c: char| match c {
        '"' | '\\' | ',' => true,
        '{' | '}' => !in_record,
        '(' | ')' => in_record,
        c => c.is_ascii_whitespace(),
    };
    let is_null_word = !in_record && text.eq_ignore_ascii_case("null");
    if !text.is_empty() && !is_null_word && !text.contains(special) {
        return text.to_owned();
    }
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', if in_record { "\"\"" } else { "\\\"" })
    )
}

/// A value as JSON.
pub(super) fn json(value: &Value, ty: &ValueType, directory: &Directory) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Int(n) if !ty.is_reg() => (*n).into(),
        Value::Float(f) => (*f).into(),
        Value::Array(_, items) => {
            let item = ty.item().unwrap_or(ValueType::TEXT);
            items
                .iter()
                .map(|i| json(i, &item, directory))
                .collect::<Vec<_>>()
                .into()
        }
        Value::Record(values) => {
            let fields = ty.fields.clone().unwrap_or_default();
            let pairs = values
                .iter()
                .zip(fields.iter())
                .map(|(v, (name, ty))| (name.clone(), json(v, ty, directory)));
            serde_json::Value::Object(pairs.collect())
        }
        other => show(other, ty, directory).into(),
    }
}

pub(super) fn invalid(ty: &ValueType, text: &str) -> Error {
    Error::new(
        ErrorKind::InvalidText,
        format!(
            "invalid input syntax for type {}: \"{text}\"",
            sql_type_name(&ty.pg)
        ),
    )
}

const MICROS_OF_DAY: i64 = 86_400_000_000;

/// A text as a value of a type, as PostgreSQL's input functions read it.
pub(super) fn read(text: &str, ty: &ValueType, directory: &Directory) -> Result<Value, Error> {
    let bad = || invalid(ty, text);
    let trimmed = text.trim();
    if ty.is_reg() {
        return directory.reg_oid(&ty.pg, trimmed).map(Value::oid);
    }
    Ok(match ty.pg {
        Type::BOOL => match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Value::Bool(true),
            "f" | "false" | "n" | "no" | "off" | "0" => Value::Bool(false),
            _ => return Err(bad()),
        },
        Type::INT2 => Value::Int(trimmed.parse::<i16>().map_err(|_| bad())?.into()),
        Type::INT4 => Value::Int(trimmed.parse::<i32>().map_err(|_| bad())?.into()),
        Type::INT8 => Value::Int(trimmed.parse().map_err(|_| bad())?),
        Type::OID | Type::XID | Type::CID => {
            Value::Int(trimmed.parse::<u32>().map_err(|_| bad())?.into())
        }
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => {
            Value::Float(trimmed.parse().map_err(|_| bad())?)
        }
        // One byte of it.
        Type::CHAR => Value::text(text.chars().next().map(String::from).unwrap_or_default()),
        Type::NAME => Value::text(text.chars().take(63).collect::<String>()),
        Type::TIMESTAMPTZ | Type::TIMESTAMP => {
            // Moments are shown in UTC here, too.
            let clock = Clock {
                now: Some(directory.facts.now),
                zone: Zone::Offset(0),
            };
            Value::Time(if ty.pg == Type::TIMESTAMP {
                datetime::timestamp(text, clock)?
            } else {
                datetime::timestamptz(text, clock)?
            })
        }
        Type::INTERVAL => {
            let words = interval_text(trimmed);
            let parsed = parse_interval_month_day_nano(words.as_deref().unwrap_or(trimmed))
                .map_err(|_| bad())?;
            if parsed.months != 0 {
                return Err(Error::unsupported(
                    "an interval of months in a query of the catalogs",
                ));
            }
            let days = i64::from(parsed.days).checked_mul(MICROS_OF_DAY);
            let micros = days.and_then(|days| days.checked_add(parsed.nanoseconds / 1000));
            Value::Span(
                micros.ok_or_else(|| {
                    Error::new(ErrorKind::DateTimeOverflow, "interval out of range")
                })?,
            )
        }
        Type::INT2_VECTOR | Type::OID_VECTOR => {
            let items = trimmed
                .split_whitespace()
                .map(|n| n.parse().map(Value::Int).map_err(|_| bad()));
            Value::Array(0, items.collect::<Result<_, _>>()?)
        }
        _ => match ty.item() {
            Some(item) => {
                let parts = array_items(trimmed).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidText,
                        format!("malformed array literal: \"{text}\""),
                    )
                })?;
                let values = parts
                    .into_iter()
                    .map(|part| part.map_or(Ok(Value::Null), |part| read(&part, &item, directory)));
                Value::Array(1, values.collect::<Result<_, _>>()?)
            }
            None => Value::text(text),
        },
    })
}
