//! Times by a pattern, as to_char writes them.

use starkeep_error::{Error, ErrorKind};

use crate::value::Value;

/// Patterns of `to_char` and `to_timestamp`, longest first, and what they are in chrono's.
const PATTERNS: &[(&str, &str)] = &[
    ("YYYY", "%Y"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("MONTH", "%B"),
    ("MON", "%b"),
    ("DDD", "%j"),
    ("DAY", "%A"),
    ("DY", "%a"),
    ("MM", "%m"),
    ("DD", "%d"),
    ("MI", "%M"),
    ("SS", "%S"),
    ("MS", "%3f"),
    ("US", "%6f"),
    ("HH", "%I"),
    ("IW", "%V"),
    ("YY", "%y"),
    ("AM", "%p"),
    ("PM", "%p"),
];

/// A pattern of PostgreSQL's in chrono's words; `zone` is what stands for `TZ`. Nothing if it is in
/// those already, or has words that are not known here.
pub fn chrono_pattern(pattern: &str, zone: Option<&str>) -> Option<String> {
    if pattern.contains('%') {
        return None;
    }
    let words = || PATTERNS.iter().copied().chain(zone.map(|z| ("TZ", z)));
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"')?;
            out.push_str(&quoted[..end]);
            rest = &quoted[end + 1..];
            continue;
        }
        match words().find(|(name, _)| {
            rest.get(..name.len())
                .is_some_and(|r| r.eq_ignore_ascii_case(name))
        }) {
            Some((name, chrono)) => {
                out.push_str(chrono);
                rest = &rest[name.len()..];
            }
            None if c.is_ascii_alphabetic() => return None,
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Some(out)
}

/// A time of UTC in a pattern of PostgreSQL's.
pub(super) fn to_char(micros: i64, pattern: &str) -> Result<Value, Error> {
    let Some(chrono) = chrono_pattern(pattern, Some("UTC")) else {
        let message =
            format!("to_char in queries of the catalogs does not read the pattern {pattern:?}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    };
    let time = chrono::DateTime::from_timestamp_micros(micros);
    Ok(time.map_or(Value::Null, |t| Value::text(t.format(&chrono).to_string())))
}
