//! Functions on texts, arrays and numbers that catalog queries use.

mod to_char;

use std::collections::{HashMap, HashSet};

use postgres_types::Type;
use starkeep_error::{Error, ErrorKind};
use starkeep_pg_semantics::text::{format, identifiers, quote_ident, quote_literal};

pub use self::to_char::chrono_pattern;
use self::to_char::to_char;
use super::context::Context;
use super::function::{Function, fallible, fallible_lax, int, lax, strict};
use super::operators::in_range;
use super::value::{Value, ValueType};
use super::value_text::{json, show};

/// From the first to the last character, counted from 1; what lies outside is left out.
fn substring(text: &str, from: i64, count: Option<i64>) -> Result<Value, Error> {
    let end = match count {
        Some(n) if n < 0 => {
            return Err(Error::new(
                ErrorKind::InvalidSubstring,
                "negative substring length not allowed",
            ));
        }
        Some(n) => from.saturating_add(n),
        None => i64::MAX,
    };
    let skip = usize::try_from(from.saturating_sub(1)).unwrap_or(0);
    let take = usize::try_from(end.saturating_sub(from.max(1))).unwrap_or(0);
    Ok(Value::text(
        text.chars().skip(skip).take(take).collect::<String>(),
    ))
}

/// A text in quotes, of which each may become two.
fn quoted(text: &str, quote: fn(&str) -> String, context: &Context) -> Result<Value, Error> {
    context.check_length(text.len().saturating_mul(2))?;
    Ok(Value::text(quote(text)))
}

fn trim(args: &[Value], left: bool, right: bool) -> Value {
    let set: HashSet<char> = args.get(1).map_or(" ", Value::as_text).chars().collect();
    let mut text = args[0].as_text();
    if left {
        text = text.trim_start_matches(|c| set.contains(&c));
    }
    if right {
        text = text.trim_end_matches(|c| set.contains(&c));
    }
    Value::text(text)
}

fn number(returns: Type, of: fn(&Value) -> Option<i64>) -> Option<Function> {
    strict(returns, move |a, _| {
        of(&a[0]).map_or(Value::Null, Value::Int)
    })
}

/// A function of an array's first dimension; there are no others.
fn of_dimension(of: fn(&Value) -> Option<i64>) -> Option<Function> {
    fallible(Type::INT4, move |a, _| {
        let is_first = int(&a[1])? == 1;
        let bound = Some(&a[0]).filter(|_| is_first).and_then(of);
        Ok(bound.map_or(Value::Null, Value::Int))
    })
}

/// Upper bound of an array's one dimension; NULL for an empty one.
fn upper(value: &Value) -> Option<i64> {
    match value {
        Value::Array(lower, items) if !items.is_empty() => {
            Some(lower.saturating_add(items.len() as i64 - 1))
        }
        _ => None,
    }
}

/// PostgreSQL's flags of regular expressions, for ours.
fn with_flags(pattern: &str, flags: &str, is_global: bool) -> Result<String, Error> {
    let mut ignores_case = false;
    for flag in flags.chars() {
        match flag {
            'i' => ignores_case = true,
            'c' => ignores_case = false,
            'g' if is_global => {}
            'g' => {
                return Err(Error::new(
                    ErrorKind::InvalidParameter,
                    "regexp_match() does not support the \"global\" option",
                )
                .hint("Use the regexp_matches function instead."));
            }
            'b' | 'e' | 'm' | 'n' | 'p' | 'q' | 's' | 't' | 'w' | 'x' => {
                return Err(Error::unsupported(format!(
                    "the option \"{flag}\" of regular expressions"
                )));
            }
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidParameter,
                    format!("invalid regular expression option: \"{other}\""),
                ));
            }
        }
    }
    Ok(if ignores_case {
        format!("(?i){pattern}")
    } else {
        pattern.to_owned()
    })
}

/// The parts of a text between delimiters: of NULL none; by NULL each character, by an empty one
/// the whole.
pub(super) fn pieces<'t>(
    text: &'t Value,
    delimiter: &Value,
    context: &Context,
) -> Result<Vec<&'t str>, Error> {
    let whole = text.as_text();
    if whole.is_empty() {
        return Ok(Vec::new());
    }
    let checked = |count: usize| context.check_length(count.saturating_mul(size_of::<Value>()));
    Ok(match delimiter {
        Value::Null => {
            checked(whole.len())?;
            whole
                .char_indices()
                .map(|(at, c)| &whole[at..at + c.len_utf8()])
                .collect()
        }
        by if by.as_text().is_empty() => vec![whole],
        by => {
            checked(whole.matches(by.as_text()).count())?;
            whole.split(by.as_text()).collect()
        }
    })
}

/// The n-th part of a text between delimiters, from the end if it is negative.
fn split_part(text: &str, delimiter: &str, n: i64) -> Result<Value, Error> {
    if n == 0 {
        return Err(Error::new(
            ErrorKind::InvalidParameter,
            "field position must not be zero",
        ));
    }
    let skip = usize::try_from(n.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let part = if delimiter.is_empty() {
        Some(text).filter(|_| skip == 0)
    } else if n > 0 {
        text.split(delimiter).nth(skip)
    } else {
        // From the front, as delimiters may overlap.
        let count = text.split(delimiter).count();
        let at = count.checked_sub(skip.saturating_add(1));
        at.and_then(|at| text.split(delimiter).nth(at))
    };
    Ok(Value::text(part.unwrap_or_default()))
}

/// `1465 kB`: bytes in the unit in which PostgreSQL shows them.
pub fn size_pretty(bytes: i64) -> String {
    // PostgreSQL's rule: the next unit from ten of it on, halves rounded up.
    let mut size = bytes;
    for (i, unit) in ["bytes", "kB", "MB", "GB", "TB", "PB"]
        .into_iter()
        .enumerate()
    {
        if size.unsigned_abs() < 10 * 1024 || unit == "PB" {
            return format!("{} {unit}", if i == 0 { bytes } else { size });
        }
        let rounded = size.saturating_add(512 * size.signum());
        size = if i == 0 {
            rounded >> 10
        } else {
            rounded / 1024
        };
    }
    bytes.to_string()
}

/// Finds a function by name and argument types.
pub(super) fn lookup(name: &str, args: &[ValueType]) -> Option<Function> {
    let types = args.to_vec();
    let first = args.first().cloned().unwrap_or(ValueType::UNKNOWN);
    match (name, args.len()) {
        ("quote_ident", 1) => fallible(Type::TEXT, |a, c| quoted(a[0].as_text(), quote_ident, c)),
        ("quote_literal", 1) => fallible(Type::TEXT, move |a, c| {
            quoted(
                &show(&a[0], &first, &c.snapshot.directory),
                quote_literal,
                c,
            )
        }),
        ("quote_nullable", 1) => fallible_lax(ValueType::TEXT, move |a, c| match &a[0] {
            Value::Null => Ok(Value::text("NULL")),
            value => quoted(
                &show(value, &first, &c.snapshot.directory),
                quote_literal,
                c,
            ),
        }),
        ("lower", 1) => strict(Type::TEXT, |a, _| {
            Value::text(a[0].as_text().to_lowercase())
        }),
        ("upper", 1) => strict(Type::TEXT, |a, _| {
            Value::text(a[0].as_text().to_uppercase())
        }),
        ("length" | "char_length" | "character_length", 1) => {
            number(Type::INT4, |v| Some(v.as_text().chars().count() as i64))
        }
        ("octet_length", 1) => number(Type::INT4, |v| Some(v.as_text().len() as i64)),
        ("ascii", 1) => number(Type::INT4, |v| {
            Some(v.as_text().chars().next().map_or(0, |c| c as i64))
        }),
        ("reverse", 1) => strict(Type::TEXT, |a, _| {
            Value::text(a[0].as_text().chars().rev().collect::<String>())
        }),
        ("substring" | "substr", 2 | 3) if args[1].is_text() && args[1].pg != Type::UNKNOWN => {
            fallible(Type::TEXT, |a, c| {
                let pattern = c.pattern_for(a[1].as_text(), a[0].as_text())?;
                let found = pattern.captures(a[0].as_text());
                let part = found.as_ref().and_then(|f| f.get(1).or(f.get(0)));
                Ok(part.map_or(Value::Null, |m| Value::text(m.as_str())))
            })
        }
        ("substring" | "substr", 2 | 3) => fallible(Type::TEXT, |a, _| {
            let count = a.get(2).map(int).transpose()?;
            substring(a[0].as_text(), int(&a[1])?, count)
        }),
        ("left", 2) => fallible(Type::TEXT, |a, _| {
            let (text, n) = (a[0].as_text(), int(&a[1])?);
            let length = text.chars().count() as i64;
            let keep = if n < 0 {
                length.saturating_add(n).max(0)
            } else {
                n
            };
            let kept = text.chars().take(keep as usize);
            Ok(Value::text(kept.collect::<String>()))
        }),
        ("right", 2) => fallible(Type::TEXT, |a, _| {
            let (text, n) = (a[0].as_text(), int(&a[1])?);
            let length = text.chars().count() as i64;
            let skip = if n < 0 {
                n.saturating_neg()
            } else {
                length.saturating_sub(n).max(0)
            };
            let kept = text.chars().skip(skip as usize);
            Ok(Value::text(kept.collect::<String>()))
        }),
        ("btrim" | "trim", 1 | 2) => strict(Type::TEXT, |a, _| trim(a, true, true)),
        ("ltrim", 1 | 2) => strict(Type::TEXT, |a, _| trim(a, true, false)),
        ("rtrim", 1 | 2) => strict(Type::TEXT, |a, _| trim(a, false, true)),
        ("replace", 3) => fallible(Type::TEXT, |a, c| {
            let (text, from, to) = (a[0].as_text(), a[1].as_text(), a[2].as_text());
            if from.is_empty() {
                return Ok(a[0].clone());
            }
            let found = text.matches(from).count();
            c.check_length(text.len() - found * from.len() + found.saturating_mul(to.len()))?;
            Ok(Value::text(text.replace(from, to)))
        }),
        ("repeat", 2) => fallible(Type::TEXT, |a, c| {
            let count = usize::try_from(int(&a[1])?).unwrap_or(0);
            c.check_length(a[0].as_text().len().saturating_mul(count))?;
            Ok(Value::text(a[0].as_text().repeat(count)))
        }),
        ("lpad" | "rpad", 2 | 3) => {
            let on_the_left = name == "lpad";
            fallible(Type::TEXT, move |a, c| {
                let width = usize::try_from(int(&a[1])?).unwrap_or(0);
                c.check_length(width)?;
                let (text, fill) = (a[0].as_text(), a.get(2).map_or(" ", Value::as_text));
                let length = text.chars().count();
                if length >= width || fill.is_empty() {
                    return Ok(Value::text(text.chars().take(width).collect::<String>()));
                }
                let fill: String = fill.chars().cycle().take(width - length).collect();
                Ok(Value::text(if on_the_left {
                    format!("{fill}{text}")
                } else {
                    format!("{text}{fill}")
                }))
            })
        }
        ("position" | "strpos", 2) => strict(Type::INT4, |a, _| {
            let (text, part) = (a[0].as_text(), a[1].as_text());
            Value::Int(
                text.find(part)
                    .map_or(0, |at| text[..at].chars().count() as i64 + 1),
            )
        }),
        ("starts_with", 2) => strict(Type::BOOL, |a, _| {
            Value::Bool(a[0].as_text().starts_with(a[1].as_text()))
        }),
        ("split_part", 3) => fallible(Type::TEXT, |a, _| {
            split_part(a[0].as_text(), a[1].as_text(), int(&a[2])?)
        }),
        ("translate", 3) => strict(Type::TEXT, |a, _| {
            let mut to = a[2].as_text().chars();
            let mut changes: HashMap<char, Option<char>> = HashMap::new();
            for from in a[1].as_text().chars() {
                // The first of equal letters counts; each takes its place.
                let new = to.next();
                changes.entry(from).or_insert(new);
            }
            let change = |c: char| changes.get(&c).map_or(Some(c), |to| *to);
            Value::text(
                a[0].as_text()
                    .chars()
                    .filter_map(change)
                    .collect::<String>(),
            )
        }),
        ("regexp_replace", 3 | 4) => fallible(Type::TEXT, |a, c| {
            let flags = a.get(3).map_or("", Value::as_text);
            let pattern = with_flags(a[1].as_text(), flags, true)?;
            let pattern = c.pattern_for(&pattern, a[0].as_text())?;
            // PostgreSQL names a group by a back-slash, our library by a dollar.
            let replacement = regex::Regex::new(r"\\(\d)").map(|r| {
                r.replace_all(&a[2].as_text().replace('$', "$$"), "$${$1}")
                    .into_owned()
            });
            let replacement = replacement.map_err(|e| Error::internal(e.to_string()))?;
            let limit = if flags.contains('g') { usize::MAX } else { 1 };
            let (text, mut out, mut end) = (a[0].as_text(), String::new(), 0);
            for found in pattern.captures_iter(text).take(limit) {
                let whole = found.get_match();
                out.push_str(&text[end..whole.start()]);
                found.expand(&replacement, &mut out);
                end = whole.end();
                c.check_length(out.len() + text.len() - end)?;
            }
            out.push_str(&text[end..]);
            Ok(Value::text(out))
        }),
        ("regexp_match", 2 | 3) => fallible(Type::TEXT_ARRAY, |a, c| {
            let flags = a.get(2).map_or("", Value::as_text);
            let pattern = with_flags(a[1].as_text(), flags, false)?;
            let pattern = c.pattern_for(&pattern, a[0].as_text())?;
            let Some(found) = pattern.captures(a[0].as_text()) else {
                return Ok(Value::Null);
            };
            let groups = found.iter().skip(usize::from(found.len() > 1));
            Ok(Value::array(groups.map(|g| {
                g.map_or(Value::Null, |m| Value::text(m.as_str()))
            })))
        }),
        ("concat", _) => lax(ValueType::TEXT, move |a, c| {
            let shown = a
                .iter()
                .zip(&types)
                .map(|(v, ty)| show(v, ty, &c.snapshot.directory));
            Value::text(shown.collect::<String>())
        }),
        ("concat_ws", 1..) => fallible_lax(ValueType::TEXT, move |a, c| {
            let given = a.iter().zip(&types).skip(1).filter(|(v, _)| !v.is_null());
            let shown: Vec<_> = given
                .map(|(v, ty)| show(v, ty, &c.snapshot.directory))
                .collect();
            if a[0].is_null() {
                Ok(Value::Null)
            } else {
                joined(&shown, a[0].as_text(), c)
            }
        }),
        ("format", 1..) => Some(Function {
            returns: ValueType::TEXT,
            strict: false,
            call: Box::new(move |a, c| {
                if a[0].is_null() {
                    return Ok(Value::Null);
                }
                let shown: Vec<_> = a
                    .iter()
                    .zip(&types)
                    .map(|(v, ty)| (!v.is_null()).then(|| show(v, ty, &c.snapshot.directory)))
                    .collect();
                format(a[0].as_text(), &shown[1..], |bytes| c.check_length(bytes)).map(Value::text)
            }),
        }),
        ("to_char", 2) if matches!(first.pg, Type::TIMESTAMPTZ | Type::TIMESTAMP) => {
            fallible(Type::TEXT, |a, _| match &a[0] {
                Value::Time(micros) => to_char(*micros, a[1].as_text()),
                _ => Ok(Value::Null),
            })
        }
        ("array_fill", 2) => fallible(ValueType::array(&first).pg, |a, c| match a[1].items() {
            [count] => {
                let count = usize::try_from(int(count)?).unwrap_or(0);
                c.check_length(count.saturating_mul(a[0].size()))?;
                Ok(Value::array(std::iter::repeat_n(a[0].clone(), count)))
            }
            _ => Err(Error::unsupported("array_fill in several dimensions")),
        }),
        ("pg_size_pretty", 1)
            if first.is_integer() || matches!(first.pg, Type::UNKNOWN | Type::NUMERIC) =>
        {
            fallible(Type::TEXT, |a, _| match &a[0] {
                Value::Float(f) if f.fract() != 0.0 || f.abs() >= 9e15 => Err(Error::unsupported(
                    "pg_size_pretty of a fraction in a query of the catalogs",
                )),
                Value::Float(f) => Ok(Value::text(size_pretty(*f as i64))),
                other => Ok(Value::text(size_pretty(int(other)?))),
            })
        }
        ("abs", 1) if first.is_number() => fallible(first.pg.clone(), move |a, _| {
            Ok(match &a[0] {
                Value::Float(f) => Value::Float(f.abs()),
                other => Value::Int(in_range(&first.pg, int(other)?.checked_abs())?),
            })
        }),
        ("mod", 2) if args.iter().all(ValueType::is_integer) => {
            let returns = if args.iter().any(|ty| ty.pg == Type::INT8) {
                Type::INT8
            } else {
                Type::INT4
            };
            fallible(returns, |a, _| match int(&a[1])? {
                0 => Err(Error::new(ErrorKind::DivisionByZero, "division by zero")),
                by => Ok(Value::Int(int(&a[0])?.wrapping_rem(by))),
            })
        }
        ("round", 2) if first.is_number() && !matches!(first.pg, Type::FLOAT4 | Type::FLOAT8) => {
            fallible(Type::NUMERIC, |a, _| {
                let number = match &a[0] {
                    Value::Float(f) => *f,
                    other => int(other)? as f64,
                };
                let factor = 10f64.powi(int(&a[1])? as i32);
                Ok(Value::Float((number * factor).round() / factor))
            })
        }
        ("round" | "floor" | "ceil" | "ceiling" | "trunc", 1) => {
            let of: fn(f64) -> f64 = match name {
                "round" if first.pg == Type::NUMERIC => f64::round,
                "round" => f64::round_ties_even,
                "floor" => f64::floor,
                "trunc" => f64::trunc,
                _ => f64::ceil,
            };
            strict(first.pg.clone(), move |a, _| match &a[0] {
                Value::Float(f) => Value::Float(of(*f)),
                other => other.clone(),
            })
        }
        ("array_upper", 2) => of_dimension(upper),
        ("array_lower", 2) => of_dimension(|v| match v {
            Value::Array(lower, items) if !items.is_empty() => Some(*lower),
            _ => None,
        }),
        ("array_length", 2) => {
            of_dimension(|v| (!v.items().is_empty()).then_some(v.items().len() as i64))
        }
        ("array_ndims", 1) => number(Type::INT4, |v| (!v.items().is_empty()).then_some(1)),
        ("cardinality", 1) => number(Type::INT4, |v| Some(v.items().len() as i64)),
        ("array_position", 2) => lax(ValueType::INT4, |a, _| {
            let lower = if let Value::Array(lower, _) = &a[0] {
                *lower
            } else {
                1
            };
            a[0].items()
                .iter()
                .position(|i| *i == a[1])
                .map_or(Value::Null, |n| Value::Int(n as i64 + lower))
        }),
        ("array_append", 2) => lax(first, |a, _| {
            Value::array(a[0].items().iter().cloned().chain([a[1].clone()]))
        }),
        ("array_prepend", 2) => {
            let returns = args[1].clone();
            lax(returns, |a, _| {
                Value::array(
                    [a[0].clone()]
                        .into_iter()
                        .chain(a[1].items().iter().cloned()),
                )
            })
        }
        ("array_cat", 2) => lax(first, |a, _| match (&a[0], &a[1]) {
            (Value::Null, other) | (other, Value::Null) => other.clone(),
            (a, b) => Value::array(a.items().iter().chain(b.items()).cloned()),
        }),
        ("array_remove", 2) => lax(first, |a, _| match &a[0] {
            Value::Null => Value::Null,
            all => Value::array(all.items().iter().filter(|i| **i != a[1]).cloned()),
        }),
        ("array_to_string", 2 | 3) => fallible(Type::TEXT, move |a, c| {
            let item = first.item().unwrap_or(ValueType::TEXT);
            let instead = a.get(2).map(|n| n.as_text().to_owned());
            let shown = a[0].items().iter().filter_map(|i| match i {
                Value::Null => instead.clone(),
                i => Some(show(i, &item, &c.snapshot.directory)),
            });
            joined(&shown.collect::<Vec<_>>(), a[1].as_text(), c)
        }),
        ("string_to_array", 2 | 3) => fallible_lax(ValueType::of(Type::TEXT_ARRAY), |a, c| {
            if a[0].is_null() {
                return Ok(Value::Null);
            }
            let null = a.get(2).filter(|null| !null.is_null());
            let null = null.map(Value::as_text);
            let item = |t: &str| {
                if null == Some(t) {
                    Value::Null
                } else {
                    Value::text(t)
                }
            };
            let parts = pieces(&a[0], &a[1], c)?;
            Ok(Value::array(
                parts.into_iter().map(item).collect::<Vec<_>>(),
            ))
        }),
        ("parse_ident", 1 | 2) => strict(Type::TEXT_ARRAY, |a, _| {
            Value::array(identifiers(a[0].as_text()).into_iter().map(Value::text))
        }),
        ("json_build_object" | "jsonb_build_object", _) if args.len().is_multiple_of(2) => {
            lax(ValueType::of(Type::JSON), move |a, c| {
                let pairs = a.chunks(2).zip(types.chunks(2)).map(|(v, ty)| {
                    let key = serde_json::Value::from(show(&v[0], &ty[0], &c.snapshot.directory));
                    format!("{key} : {}", json(&v[1], &ty[1], &c.snapshot.directory))
                });
                Value::text(format!("{{{}}}", pairs.collect::<Vec<_>>().join(", ")))
            })
        }
        ("to_json" | "to_jsonb" | "row_to_json", 1) => strict(Type::JSON, move |a, c| {
            Value::text(json(&a[0], &first, &c.snapshot.directory).to_string())
        }),
        _ => None,
    }
}

/// Texts with another between them.
fn joined(texts: &[String], between: &str, context: &Context) -> Result<Value, Error> {
    let betweens = between.len().saturating_mul(texts.len().saturating_sub(1));
    context.check_length(
        texts
            .iter()
            .fold(betweens, |sum, t| sum.saturating_add(t.len())),
    )?;
    Ok(Value::text(texts.join(between)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_made_as_postgresql_makes_them() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (1_500_000, "1465 kB"),
            (1 << 40, "1024 GB"),
        ] {
            assert_eq!(size_pretty(bytes), text);
        }
        assert_eq!(
            substring("abcdef", 0, Some(3)).expect("a text"),
            Value::text("ab")
        );
    }
}
