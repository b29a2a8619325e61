//! JSON as PostgreSQL reads it: `json`, which is the text that was written, and `jsonb`, which is
//! its value in one form. Both are texts here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;

use serde_json::value::RawValue;
use starkeep_error::{Error, ErrorKind};

/// Objects and arrays inside of one another.
const DEPTH_MAX: usize = 100;
/// Digits that a numeric has before its point, and after it.
const DIGITS_MAX: i64 = 131_072;
const SCALE_MAX: i64 = 16_383;

/// 22P02: what is no JSON.
fn invalid(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::InvalidText, "invalid input syntax for type json")
        .detail(error.to_string())
}

/// Whether a text is JSON.
pub fn check(text: &str) -> Result<(), Error> {
    serde_json::from_str::<&RawValue>(text)
        .map(drop)
        .map_err(|e| invalid(&e))
}

/// What a value is, as `json_typeof` calls it.
pub fn type_of(text: &str) -> Result<&'static str, Error> {
    check(text)?;
    Ok(match text.trim_start().as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    })
}

/// Refuses escapes that no text can have, anywhere in a document: what looks into it reads all of
/// them.
fn check_escapes(text: &str) -> Result<(), Error> {
    let bytes = text.as_bytes();
    let code = |at: usize| {
        let digits = bytes
            .get(at..at + 6)
            .filter(|escape| escape.starts_with(b"\\u"))?;
        u32::from_str_radix(std::str::from_utf8(&digits[2..]).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == b'\\') {
        at += next;
        at += match code(at) {
            None => 2,
            Some(0) => return Err(no_character()),
            Some(0xd800..=0xdbff) if matches!(code(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                let message = "invalid input syntax for type json";
                return Err(Error::new(ErrorKind::InvalidText, message)
                    .detail("A Unicode surrogate must be one of a pair."));
            }
            Some(_) => 6,
        };
    }
    Ok(())
}

fn object(text: &str) -> Result<HashMap<Cow<'_, str>, &RawValue>, Error> {
    serde_json::from_str(text).map_err(|e| invalid(&e))
}

fn array(text: &str) -> Result<Vec<&RawValue>, Error> {
    serde_json::from_str(text).map_err(|e| invalid(&e))
}

/// A field of an object, the last one of its name; nothing of what is no object.
pub fn field<'t>(text: &'t str, name: &str) -> Result<Option<&'t str>, Error> {
    let of = type_of(text)?;
    check_escapes(text)?;
    match of {
        "object" => Ok(object(text)?.get(name).map(|value| value.get())),
        _ => Ok(None),
    }
}

/// An element of an array, from its end if the number is below 0; nothing of what is no array.
pub fn element(text: &str, place: i64) -> Result<Option<&str>, Error> {
    let of = type_of(text)?;
    check_escapes(text)?;
    if of != "array" {
        return Ok(None);
    }
    let all = array(text)?;
    let place = if place < 0 {
        place + all.len() as i64
    } else {
        place
    };
    let found = usize::try_from(place).ok().and_then(|at| all.get(at));
    Ok(found.map(|value| value.get()))
}

/// What a path leads to: names in objects, numbers in arrays.
pub fn at_path(
    text: &str,
    path: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Option<&str>, Error> {
    check(text)?;
    check_escapes(text)?;
    let mut at = text;
    for step in path {
        let step = step.as_ref();
        let next = match type_of(at)? {
            "object" => field(at, step)?,
            "array" => match step.trim_start().parse() {
                Ok(place) => element(at, place)?,
                Err(_) => None,
            },
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// A value as a text: a string without its quotes, and nothing for null.
pub fn as_text(text: &str) -> Result<Option<String>, Error> {
    match type_of(text)? {
        "null" => Ok(None),
        "string" => {
            let string: String = serde_json::from_str(text).map_err(|e| invalid(&e))?;
            check_characters(&string)?;
            Ok(Some(string))
        }
        _ => Ok(Some(text.to_owned())),
    }
}

pub fn array_length(text: &str) -> Result<i32, Error> {
    let refused = |what: &str| {
        let message = format!("cannot get array length of a {what}");
        Err(Error::new(ErrorKind::InvalidParameter, message))
    };
    match type_of(text)? {
        "array" => Ok(i32::try_from(array(text)?.len()).unwrap_or(i32::MAX)),
        "object" => refused("non-array"),
        _ => refused("scalar"),
    }
}

/// A value in the form of `jsonb`: fields in the order of their lengths and bytes, the last one of
/// each name, numbers as numerics. 54000 beyond so many bytes.
pub fn normal(text: &str, most: usize) -> Result<String, Error> {
    check(text)?;
    let mut out = String::with_capacity(text.len());
    write_normal(&mut out, text, 0, most)?;
    Ok(out)
}

/// The most bytes that a text has as `jsonb`.
pub fn normal_bytes_max(text: &str) -> usize {
    let numbers = text.split(['e', 'E']).skip(1).map(|after| {
        let digits = after.trim_start_matches(['-', '+']);
        let end = digits.find(|c: char| !c.is_ascii_digit());
        let exponent = digits[..end.unwrap_or(digits.len())].parse::<usize>();
        exponent.map_or(0, |exponent| exponent.min(DIGITS_MAX as usize))
    });
    // Blanks after colons and commas, and characters that were not escaped.
    text.len().saturating_mul(2).saturating_add(numbers.sum())
}

fn write_normal(out: &mut String, text: &str, depth: usize, most: usize) -> Result<(), Error> {
    if out.len() > most {
        let message = format!("a jsonb of more than {most} bytes");
        return Err(Error::new(ErrorKind::LimitExceeded, message)
            .hint("The limit is the setting value_bytes_max."));
    }
    if depth > DEPTH_MAX {
        let message = format!("JSON is nested more than {DEPTH_MAX} levels deep");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let text = text.trim();
    match text.as_bytes().first() {
        Some(b'{') => {
            let mut fields: Vec<_> = object(text)?.into_iter().collect();
            fields.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
            out.push('{');
            for (place, (name, value)) in fields.iter().enumerate() {
                if place > 0 {
                    out.push_str(", ");
                }
                write_string(out, name)?;
                out.push_str(": ");
                write_normal(out, value.get(), depth + 1, most)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            out.push('[');
            for (place, value) in array(text)?.iter().enumerate() {
                if place > 0 {
                    out.push_str(", ");
                }
                write_normal(out, value.get(), depth + 1, most)?;
            }
            out.push(']');
        }
        Some(b'"') => {
            let string: String = serde_json::from_str(text).map_err(|e| invalid(&e))?;
            write_string(out, &string)?;
        }
        Some(b'-' | b'0'..=b'9') => write_number(out, text)?,
        _ => out.push_str(text),
    }
    Ok(())
}

fn check_characters(string: &str) -> Result<(), Error> {
    if string.contains('\0') {
        return Err(no_character());
    }
    Ok(())
}

/// 22P05: a character that a text cannot have.
fn no_character() -> Error {
    let message = "unsupported Unicode escape sequence";
    Error::new(ErrorKind::UntranslatableCharacter, message)
        .detail("\\u0000 cannot be converted to text.")
}

fn write_string(out: &mut String, string: &str) -> Result<(), Error> {
    check_characters(string)?;
    let quoted = serde_json::to_string(string).map_err(|e| invalid(&e))?;
    out.push_str(&quoted);
    Ok(())
}

/// A number without its exponent.
fn write_number(out: &mut String, text: &str) -> Result<(), Error> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let overflow = || Error::new(ErrorKind::OutOfRange, "value overflows numeric format");
    let exponent: i64 = exponent.parse().map_err(|_| overflow())?;
    if exponent.unsigned_abs() > (DIGITS_MAX + SCALE_MAX).unsigned_abs() {
        return Err(overflow());
    }
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let point = whole.len() as i64 + exponent;
    let scale = (fraction.len() as i64 - exponent).max(0);
    if point > DIGITS_MAX || scale > SCALE_MAX {
        return Err(overflow());
    }
    let digits = format!("{whole}{fraction}");
    let digit = |place: i64| {
        let at = usize::try_from(place).ok();
        at.and_then(|at| digits.as_bytes().get(at))
            .map_or('0', |digit| char::from(*digit))
    };
    let before: String = (0.min(point)..point).map(digit).collect();
    let before = before.trim_start_matches('0');
    let after: String = (point..point + scale).map(digit).collect();
    let is_zero = before.is_empty() && after.bytes().all(|digit| digit == b'0');
    let sign = if is_zero { "" } else { sign };
    let before = if before.is_empty() { "0" } else { before };
    let written = match scale {
        0 => write!(out, "{sign}{before}"),
        _ => write!(out, "{sign}{before}.{after}"),
    };
    written.map_err(|_| overflow())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1 << 20;

    #[test]
    fn a_jsonb_has_a_limit() {
        let long = format!("[{}1]", "1e131071,".repeat(100));
        assert_eq!(
            normal(&long, MOST).expect_err("refused").kind,
            ErrorKind::LimitExceeded
        );
        assert!(normal_bytes_max(&long) > 100 * 131_071);
        for text in [
            "1e9223372036854775807",
            "1e-9223372036854775808",
            "1e99999999999999999999",
        ] {
            assert_eq!(
                normal(text, MOST).expect_err(text).kind,
                ErrorKind::OutOfRange
            );
        }
        for text in [r#"{"bb":1,"a":[1,2,{"x":null}]}"#, "[1.5e10,-1e-20,\"e5\"]"] {
            assert!(
                normal(text, MOST).expect("read").len() <= normal_bytes_max(text),
                "{text}"
            );
        }
        assert_eq!(
            as_text("\"x\\u0000y\"").expect_err("refused").kind,
            ErrorKind::UntranslatableCharacter
        );
    }

    /// As PostgreSQL 15 answers.
    #[test]
    fn jsonb_has_one_form() {
        for (text, expected) in [
            (
                r#" {"bb":1, "a" : [1,2 ,{"x":null}],"b":"\u00e9\/\n"} "#,
                "{\"a\": [1, 2, {\"x\": null}], \"b\": \"é/\\n\", \"bb\": 1}",
            ),
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
            ("1e2", "100"),
            ("1.50", "1.50"),
            ("1.50e1", "15.0"),
            ("-1.5E-3", "-0.0015"),
            ("0.00e5", "0"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("12345678901234567890123.5", "12345678901234567890123.5"),
            ("[]", "[]"),
            ("true", "true"),
        ] {
            assert_eq!(normal(text, MOST).expect(text), expected, "{text}");
        }
        for text in [
            "",
            "{",
            "{a:1}",
            "'a'",
            "01",
            "\"\\ud800\"",
            "\"\\u0000\"",
            "1e999999",
        ] {
            assert!(normal(text, MOST).is_err(), "{text}");
        }
        assert!(normal(&"[".repeat(2000), MOST).is_err());
        assert!(normal(&format!("{}{}", "[".repeat(2000), "]".repeat(2000)), MOST).is_err());
    }

    #[test]
    fn escapes_without_a_character_are_refused() {
        for (text, kind) in [
            (r#"{"a": "\u0000"}"#, ErrorKind::UntranslatableCharacter),
            (r#"{"b": 1, "a": "\ud800"}"#, ErrorKind::InvalidText),
            (r#"{"a": "\udc00\ud800"}"#, ErrorKind::InvalidText),
        ] {
            assert_eq!(field(text, "b").expect_err(text).kind, kind);
            assert_eq!(at_path(text, ["b"]).expect_err(text).kind, kind);
            assert_eq!(element(text, 0).expect_err(text).kind, kind);
        }
        for text in [r#"{"b": "\\u0000"}"#, r#"{"b": "\ud83d\ude00\"\\"}"#] {
            assert!(field(text, "b").expect(text).is_some());
        }
    }

    #[test]
    fn values_are_found_by_name_place_and_path() {
        let text = r#"{"a": {"b":  [10, "x", null]}, "a2": "q\"q", "n": null}"#;
        assert_eq!(field(text, "a2").expect("read"), Some("\"q\\\"q\""));
        assert_eq!(
            as_text("\"q\\\"q\"").expect("read").as_deref(),
            Some("q\"q")
        );
        assert_eq!(field(text, "z").expect("read"), None);
        assert_eq!(field("[1]", "z").expect("read"), None);
        assert_eq!(at_path(text, ["a", "b", "1"]).expect("read"), Some("\"x\""));
        assert_eq!(at_path(text, ["a", "b", "-3"]).expect("read"), Some("10"));
        assert_eq!(at_path(text, ["a", "b", "x"]).expect("read"), None);
        assert_eq!(at_path(text, ["a", "b", "0", "c"]).expect("read"), None);
        assert_eq!(
            field(text, "a").expect("read"),
            Some("{\"b\":  [10, \"x\", null]}")
        );
        assert_eq!(as_text("null").expect("read"), None);
        assert_eq!(element("[1, 2]", -1).expect("read"), Some("2"));
        assert_eq!(array_length("[1, 2]").expect("counted"), 2);
        assert_eq!(
            array_length("{}").expect_err("refused").message,
            "cannot get array length of a non-array"
        );
    }
}
