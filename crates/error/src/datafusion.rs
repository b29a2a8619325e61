//! DataFusion's errors as ours: the SQLSTATE that PostgreSQL would give, without DataFusion's
//! prefixes.

use datafusion::arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};

use super::{Error, ErrorKind};

/// The kind of an Arrow error; its casts and parses say what they are only in words.
fn arrow_kind(error: &ArrowError) -> ErrorKind {
    match error {
        ArrowError::DivideByZero => ErrorKind::DivisionByZero,
        ArrowError::ArithmeticOverflow(_) => ErrorKind::OutOfRange,
        ArrowError::CastError(m)
        | ArrowError::ParseError(m)
        | ArrowError::InvalidArgumentError(m)
        | ArrowError::ComputeError(m) => {
            let m = m.to_ascii_lowercase();
            if m.contains("overflow")
                || m.contains("out of range")
                || m.contains("can't cast value")
                || m.contains("too large")
            {
                ErrorKind::OutOfRange
            } else if m.contains("date") || m.contains("timestamp") {
                ErrorKind::InvalidDatetime
            } else {
                ErrorKind::InvalidText
            }
        }
        ArrowError::NotYetImplemented(_) => ErrorKind::Unsupported,
        ArrowError::MemoryError(_) => ErrorKind::OutOfMemory,
        ArrowError::IoError(..) => ErrorKind::Storage,
        _ => ErrorKind::Data,
    }
}

fn schema_kind(error: &SchemaError) -> ErrorKind {
    match error {
        SchemaError::FieldNotFound { .. } => ErrorKind::UndefinedColumn,
        SchemaError::AmbiguousReference { .. } => ErrorKind::AmbiguousColumn,
        SchemaError::DuplicateQualifiedField { .. }
        | SchemaError::DuplicateUnqualifiedField { .. } => ErrorKind::DuplicateColumn,
    }
}

fn plan_error(message: &str) -> Error {
    let quoted = |text: &str| text.split('\'').nth(1).map(str::to_owned);
    if let Some(name) = message
        .strip_prefix("table ")
        .and_then(|m| m.split_once(" not found"))
        .and(quoted(message))
    {
        // DataFusion names tables with their catalog; people know them by schema and name.
        let name = name
            .split_once('.')
            .map_or(name.as_str(), |(_, rest)| rest)
            .to_owned();
        return Error::new(
            ErrorKind::UndefinedTable,
            format!("relation \"{name}\" does not exist"),
        );
    }
    if let Some(name) = message
        .strip_prefix("Invalid function ")
        .and(quoted(message))
    {
        let hint = message
            .split_once('\n')
            .map(|(_, hint)| hint.trim().to_owned());
        let error = Error::new(
            ErrorKind::UndefinedFunction,
            format!("function {name} does not exist"),
        );
        return match hint {
            Some(hint) if !hint.is_empty() => error.hint(hint),
            _ => error,
        };
    }
    let lower = message.to_ascii_lowercase();
    let kind = if lower.contains("no function matches")
        || lower.contains("cannot coerce")
        || lower.contains("not supported") && lower.contains("operator")
    {
        ErrorKind::UndefinedFunction
    } else if lower.contains("placeholder") {
        ErrorKind::IndeterminateType
    } else if lower.contains("column count")
        || lower.contains("inconsistent data length")
        || lower.contains("group by")
    {
        ErrorKind::Syntax
    } else {
        ErrorKind::DatatypeMismatch
    };
    Error::new(kind, lower_first(message))
}

/// What the engine has no plan for: it names structures of its own.
fn not_implemented(message: &str) -> Error {
    let asks_outside = [
        "ScalarSubquery",
        "OuterReferenceColumn",
        "Exists(",
        "InSubquery",
    ];
    if asks_outside.iter().any(|word| message.contains(word)) {
        return Error::unsupported("a subquery that names columns from outside in this way")
            .hint("Compare them with = alone, or join the tables.");
    }
    Error::new(ErrorKind::Unsupported, lower_first(message))
}

/// PostgreSQL's name of an Arrow type, as DataFusion's messages have it.
fn type_name(arrow: &str) -> String {
    let arrow = arrow.trim();
    let base = arrow.split('(').next().unwrap_or(arrow);
    match base {
        "Boolean" => "boolean",
        "Int8" | "Int16" | "UInt8" => "smallint",
        "Int32" | "UInt16" => "integer",
        "Int64" | "UInt32" | "UInt64" => "bigint",
        "Float16" | "Float32" => "real",
        "Float64" => "double precision",
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "numeric",
        "Utf8" | "LargeUtf8" | "Utf8View" => "text",
        "Binary" | "LargeBinary" | "BinaryView" => "bytea",
        "Date32" | "Date64" => "date",
        "Time32" | "Time64" => "time without time zone",
        "Timestamp" if arrow.contains(',') => "timestamp with time zone",
        "Timestamp" => "timestamp without time zone",
        "Interval" | "Duration" => "interval",
        "Null" => "unknown",
        "List" | "LargeList" | "FixedSizeList" => {
            let inner = arrow
                .split_once('(')
                .and_then(|(_, rest)| rest.strip_suffix(')'))
                .map(|rest| {
                    rest.trim_start_matches("nullable ")
                        .trim_start_matches("non-null ")
                });
            return inner.map_or_else(|| "anyarray".to_owned(), |inner| type_name(inner) + "[]");
        }
        _ => return arrow.to_owned(),
    }
    .to_owned()
}

/// Cuts `A, B(c, d)` at the commas that are in no brackets.
fn listed(types: &str) -> Vec<String> {
    let (mut depth, mut one, mut all) = (0, String::new(), Vec::new());
    for c in types.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                all.push(std::mem::take(&mut one));
                continue;
            }
            _ => {}
        }
        one.push(c);
    }
    all.push(one);
    all.iter()
        .filter(|t| !t.trim().is_empty())
        .map(|t| type_name(t))
        .collect()
}

const CASTS: &str = "You might need to add explicit type casts.";

/// What DataFusion says of an operator or function that there is not for such types.
fn missing(message: &str) -> Option<Error> {
    const OPERATIONS: [&str; 6] = [
        " operation ",
        "arithmetic expression ",
        "bitwise operation ",
        "string concat operation ",
        "temporal operation ",
        "comparison operation ",
    ];
    let is_operator = [
        "Cannot infer common",
        "Cannot coerce arithmetic",
        "Cannot get result type",
    ]
    .iter()
    .any(|begin| message.contains(begin));
    if is_operator {
        let at = OPERATIONS
            .iter()
            .filter_map(|o| message.rfind(o).map(|at| at + o.len()))
            .max()?;
        let rest = message[at..].split(" to valid types").next()?;
        let rest = rest.split(": ").next()?;
        let words: Vec<&str> = rest.split(' ').collect();
        let is_sign = |word: &&str| {
            !word.is_empty() && !word.contains(|c: char| c.is_alphanumeric() || c == '(')
        };
        let sign = words.iter().position(is_sign)?;
        let (left, right) = (words[..sign].join(" "), words[sign + 1..].join(" "));
        let message = format!(
            "operator does not exist: {} {} {}",
            type_name(&left),
            words[sign],
            type_name(&right)
        );
        return Some(
            Error::new(ErrorKind::UndefinedFunction, message).hint(format!(
                "No operator matches the given name and argument types. {CASTS}"
            )),
        );
    }
    let (_, rest) =
        message.split_once("No function matches the given name and argument types '")?;
    let (call, _) = rest.split_once("'.")?;
    let (name, types) = call.strip_suffix(')')?.split_once('(')?;
    let types = listed(types).join(", ");
    let message = format!("function {name}({types}) does not exist");
    Some(
        Error::new(ErrorKind::UndefinedFunction, message).hint(format!(
            "No function matches the given name and argument types. {CASTS}"
        )),
    )
}

/// What Arrow says of a text that is no value of a type.
fn unreadable(message: &str) -> Option<Error> {
    let (_, rest) = message.split_once("Cannot cast string '")?;
    let (text, of) = rest.rsplit_once("' to value of ")?;
    let of = type_name(of.split(" type").next()?);
    let digits = text.trim().trim_start_matches(['-', '+']);
    let is_whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if is_whole && ["smallint", "integer", "bigint"].contains(&of.as_str()) {
        let message = format!("value \"{text}\" is out of range for type {of}");
        return Some(Error::new(ErrorKind::OutOfRange, message));
    }
    let message = format!("invalid input syntax for type {of}: \"{text}\"");
    Some(Error::new(ErrorKind::InvalidText, message))
}

/// PostgreSQL's messages begin in lower case; a name in quotes or capitals stays.
fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second))
            if first.is_ascii_uppercase() && second.is_ascii_lowercase() =>
        {
            first.to_ascii_lowercase().to_string() + chars.as_str()
        }
        _ => message.to_owned(),
    }
}

/// Turns a DataFusion error into ours. An error of ours that came through DataFusion comes back as
/// it was.
pub fn from_datafusion(error: DataFusionError) -> Error {
    if let Some(ours) = ours_within(&error) {
        return ours;
    }
    let root = error.find_root();
    let said = root.to_string();
    if let Some(error) = missing(&said).or_else(|| unreadable(&said)) {
        return error;
    }
    match root {
        DataFusionError::SchemaError(e, _) => match &**e {
            SchemaError::FieldNotFound {
                field,
                valid_fields,
            } => {
                let known: Vec<&str> = valid_fields
                    .iter()
                    .map(|f| f.name.as_str())
                    .take(50)
                    .collect();
                let error = Error::new(
                    ErrorKind::UndefinedColumn,
                    format!("column \"{}\" does not exist", field.flat_name()),
                );
                if known.is_empty() {
                    error
                } else {
                    error.detail(format!("there are {}", known.join(", ")))
                }
            }
            e => Error::new(schema_kind(e), lower_first(&e.to_string())),
        },
        DataFusionError::Plan(message) => plan_error(message),
        DataFusionError::NotImplemented(message) => not_implemented(message),
        DataFusionError::SQL(e, _) => Error::new(ErrorKind::Syntax, format!("syntax error: {e}")),
        DataFusionError::ArrowError(e, _) => {
            let message = e.to_string();
            let message = message
                .split_once(": ")
                .map_or(message.as_str(), |(_, rest)| rest);
            Error::new(
                arrow_kind(e),
                if matches!(**e, ArrowError::DivideByZero) {
                    "division by zero".into()
                } else {
                    lower_first(message)
                },
            )
        }
        DataFusionError::ResourcesExhausted(message) => {
            let setting = ["statement_memory_bytes_max", "query_memory_bytes_max"]
                .into_iter()
                .find(|setting| message.contains(setting));
            Error::new(ErrorKind::OutOfMemory, lower_first(message)).hint(format!(
                "Raise {}, or ask for less at a time.",
                setting.unwrap_or("query_memory_bytes_max")
            ))
        }
        DataFusionError::ObjectStore(e) => match **e {
            object_store::Error::NotFound { .. } => {
                Error::new(ErrorKind::MissingFile, e.to_string())
            }
            _ => Error::new(ErrorKind::Storage, e.to_string()),
        },
        // DataFusion's words for its own limit; they name a setting of its own.
        DataFusionError::IoError(e) if e.to_string().contains("exceeded the allowable limit") => {
            Error::new(
                ErrorKind::OutOfMemory,
                "the queries have spilled more than spill_bytes_max",
            )
            .hint("Raise spill_bytes_max, or ask for less at a time.")
        }
        DataFusionError::IoError(e) => Error::new(ErrorKind::Storage, e.to_string()),
        DataFusionError::ParquetError(e) => Error::new(
            ErrorKind::Corrupted,
            format!("a data file cannot be read: {e}"),
        ),
        DataFusionError::Execution(message) => Error::new(ErrorKind::Data, lower_first(message)),
        DataFusionError::Configuration(message) => {
            Error::new(ErrorKind::InvalidParameter, lower_first(message))
        }
        other => Error::internal(other.strip_backtrace()),
    }
}

/// An [`Error`] of ours somewhere in the chain of causes.
fn ours_within(error: &DataFusionError) -> Option<Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(ours) = e.downcast_ref::<Error>() {
            return Some(ours.clone());
        }
        if let Some(DataFusionError::External(inner)) = e.downcast_ref::<DataFusionError>()
            && let Some(ours) = inner.downcast_ref::<Error>()
        {
            return Some(ours.clone());
        }
        cause = e.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_and_functions_have_postgresql_names() {
        for (message, expected) in [
            (
                "Cannot infer common argument type for comparison operation Boolean = Int64",
                "operator does not exist: boolean = bigint",
            ),
            (
                "Cannot coerce arithmetic expression Timestamp(µs) + Utf8 to valid types",
                "operator does not exist: timestamp without time zone + text",
            ),
            (
                "Cannot get result type for temporal operation Int64 * Interval(MonthDayNano): Invalid",
                "operator does not exist: bigint * interval",
            ),
            (
                "Function 'x' failed: No function matches the given name and argument types 'round(Decimal128(10, 2), Utf8)'. You might",
                "function round(numeric, text) does not exist",
            ),
        ] {
            let error = from_datafusion(DataFusionError::Plan(message.to_owned()));
            assert_eq!(
                (error.kind.sqlstate(), error.message.as_str()),
                ("42883", expected)
            );
        }
        for (text, sqlstate) in [("99999999999", "22003"), ("abc", "22P02")] {
            let message = format!("Cannot cast string '{text}' to value of Int32 type");
            let error = ArrowError::CastError(message).into();
            assert_eq!(from_datafusion(error).kind.sqlstate(), sqlstate);
        }
    }

    #[test]
    fn our_own_errors_come_back_unchanged() {
        let ours = Error::new(ErrorKind::NoPartition, "no").hint("do");
        let wrapped = DataFusionError::Context(
            "c".into(),
            Box::new(DataFusionError::External(Box::new(ours))),
        );
        let back = from_datafusion(wrapped);
        assert_eq!(
            (back.kind, back.message.as_str(), back.hint.as_deref()),
            (ErrorKind::NoPartition, "no", Some("do"))
        );
    }

    #[test]
    fn plan_errors_get_the_sqlstates_that_clients_test() {
        for (message, kind, said) in [
            (
                "table 'embedded.d.t' not found",
                ErrorKind::UndefinedTable,
                "relation \"d.t\" does not exist",
            ),
            (
                "Invalid function 'nope'.\nDid you mean 'now'?",
                ErrorKind::UndefinedFunction,
                "function nope does not exist",
            ),
        ] {
            let error = from_datafusion(DataFusionError::Plan(message.into()));
            assert_eq!((error.kind, error.message.as_str()), (kind, said));
        }
        let divided = DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None);
        assert_eq!(from_datafusion(divided).kind.sqlstate(), "22012");
    }
}
