//! Casts and literals with a type that are said in another way.

use datafusion::sql::sqlparser::ast as sql;
use starkeep_pg_semantics::interval::interval as read_interval;

use super::super::meaning::{AS_JSON, AS_JSONB, AS_NUMERIC};
use super::{call, literal};
use crate::error::{Error, ErrorKind};

/// An INTERVAL in words that DataFusion reads as PostgreSQL does.
pub(super) fn interval_literal(interval: &sql::Interval) -> Result<Option<sql::Interval>, Error> {
    use sql::DateTimeField as F;
    let Some(text) = literal(&interval.value) else {
        return Ok(None);
    };
    let text = match (&interval.leading_field, &interval.last_field) {
        (None, _) => text.to_owned(),
        (Some(field), None) => {
            // `INTERVAL '1' DAY`; a text that says more than a number says its units itself.
            let is_number = text.trim().parse::<f64>().is_ok();
            if is_number {
                format!("{text} {field}")
            } else {
                text.to_owned()
            }
        }
        (Some(F::Minute), Some(F::Second)) => {
            return Err(Error::unsupported("INTERVAL … MINUTE TO SECOND"));
        }
        (Some(_), Some(_)) => text.to_owned(),
    };
    let words = read_interval(&text)?.words();
    let is_same = interval.leading_field.is_none() && words == text;
    Ok((!is_same).then(|| sql::Interval {
        value: Box::new(sql::Expr::value(sql::Value::SingleQuotedString(words))),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    }))
}

/// A cast that is said in another way.
pub(super) fn as_type(
    inner: &sql::Expr,
    data_type: &sql::DataType,
) -> Result<Option<sql::Expr>, Error> {
    use sql::DataType as T;
    let is_parameter =
        matches!(inner, sql::Expr::Value(v) if matches!(v.value, sql::Value::Placeholder(_)));
    if let Some(said) = literal(inner).and_then(|text| of_now(text, data_type)) {
        return Ok(Some(said));
    }
    Ok(match (literal(inner), data_type) {
        (Some(text), T::Interval { .. }) => {
            let words = read_interval(text)?.words();
            Some(sql::Expr::Interval(sql::Interval {
                value: Box::new(sql::Expr::value(sql::Value::SingleQuotedString(words))),
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            }))
        }
        // The first characters.
        (
            _,
            T::Varchar(Some(sql::CharacterLength::IntegerLength { length, .. }))
            | T::CharacterVarying(Some(sql::CharacterLength::IntegerLength { length, .. }))
            | T::CharVarying(Some(sql::CharacterLength::IntegerLength { length, .. })),
        ) => {
            let text = sql::Expr::Cast {
                kind: sql::CastKind::Cast,
                expr: Box::new(inner.clone()),
                data_type: T::Text,
                array: false,
                format: None,
            };
            let length = sql::Expr::value(sql::Value::Number(length.to_string(), false));
            Some(call("left", vec![text, length]))
        }
        (_, T::JSON) => Some(call(AS_JSON, vec![cast_to(inner.clone(), T::Text)])),
        (_, T::JSONB) => Some(call(AS_JSONB, vec![cast_to(inner.clone(), T::Text)])),
        (
            text,
            T::Numeric(sql::ExactNumberInfo::None)
            | T::Decimal(sql::ExactNumberInfo::None)
            | T::Dec(sql::ExactNumberInfo::None),
        ) if !is_parameter => match text.map(str::trim) {
            // A literal has the digits that it has.
            Some(text) if is_number(text) => {
                let number = sql::Expr::value(sql::Value::Number(
                    text.trim_start_matches('+').into(),
                    false,
                ));
                Some(numeric_literal(number))
            }
            Some(text) => {
                if text.eq_ignore_ascii_case("nan") || text.to_lowercase().ends_with("infinity") {
                    return Err(Error::unsupported(format_args!("a numeric that is {text}")));
                }
                let message = format!("invalid input syntax for type numeric: \"{text}\"");
                return Err(Error::new(ErrorKind::InvalidText, message));
            }
            None => Some(call(AS_NUMERIC, vec![inner.clone()])),
        },
        _ => None,
    })
}

pub(super) fn cast_to(expr: sql::Expr, data_type: sql::DataType) -> sql::Expr {
    sql::Expr::Cast {
        kind: sql::CastKind::Cast,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// `'now'`, `'today'`, `'tomorrow'` and `'yesterday'`.
fn of_now(text: &str, data_type: &sql::DataType) -> Option<sql::Expr> {
    use sql::DataType as T;
    if !matches!(data_type, T::Date | T::Timestamp(..)) {
        return None;
    }
    let now = call("now", Vec::new());
    let days = match text.trim().to_ascii_lowercase().as_str() {
        "now" => return Some(cast_to(now, data_type.clone())),
        "today" => 0,
        "tomorrow" => 1,
        "yesterday" => -1,
        _ => return None,
    };
    let today = cast_to(now, T::Date);
    let words = sql::Value::SingleQuotedString(format!("{days} days"));
    let apart = sql::Expr::Interval(sql::Interval {
        value: Box::new(sql::Expr::value(words)),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    });
    let day = sql::Expr::Nested(Box::new(sql::Expr::BinaryOp {
        left: Box::new(today),
        op: sql::BinaryOperator::Plus,
        right: Box::new(apart),
    }));
    Some(cast_to(day, data_type.clone()))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    !(whole.is_empty() && fraction.is_empty()) && all_digits(whole) && all_digits(fraction)
}

/// A number as a NUMERIC of its digits.
fn numeric_literal(number: sql::Expr) -> sql::Expr {
    let text = number.to_string();
    let digits = text.trim_start_matches('-');
    if digits.contains('.') {
        return number;
    }
    let precision = sql::ExactNumberInfo::Precision(digits.len() as u64);
    sql::Expr::Cast {
        kind: sql::CastKind::Cast,
        expr: Box::new(number),
        data_type: sql::DataType::Numeric(precision),
        array: false,
        format: None,
    }
}

/// A minus before an INTERVAL is one before each of its parts.
pub(super) fn negated_interval(interval: &sql::Interval) -> Result<Option<sql::Expr>, Error> {
    let Some(text) = literal(&interval.value) else {
        return Ok(None);
    };
    let read = read_interval(text)?;
    let negated = read
        .negated()
        .ok_or_else(|| Error::new(ErrorKind::DateTimeOverflow, "interval out of range"))?;
    let words = sql::Value::SingleQuotedString(negated.words());
    Ok(Some(sql::Expr::Interval(sql::Interval {
        value: Box::new(sql::Expr::value(words)),
        ..interval.clone()
    })))
}

/// `'\x00ff'::bytea` is X'00ff'; other texts are their own bytes.
pub(super) fn bytea(text: &str) -> Result<sql::Expr, Error> {
    let digits = match text.strip_prefix("\\x") {
        Some(digits) if hex::decode(digits).is_ok() => digits.to_owned(),
        Some(_) => {
            return Err(Error::new(
                ErrorKind::InvalidText,
                "invalid hexadecimal data for type bytea",
            ));
        }
        None => hex::encode(text),
    };
    Ok(sql::Expr::value(sql::Value::HexStringLiteral(digits)))
}
