//! Values in the forms in which PostgreSQL writes them.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use chrono::Datelike;
use datafusion::arrow::datatypes::IntervalMonthDayNano;

use crate::query::Zone;

pub fn display(out: &mut BytesMut, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("writing to memory does not fail");
}

/// PostgreSQL's shortest text of a float: digits up to `most` before the point, else an exponent of
/// at least two digits.
pub fn float(out: &mut BytesMut, scientific: &str, value: f64, most: i32) {
    if value.is_nan() {
        return out.put_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.put_slice(if value > 0.0 {
            b"Infinity"
        } else {
            b"-Infinity"
        });
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..most).contains(&exponent) {
        // The shortest digits, with the point where it belongs.
        let negative = mantissa.starts_with('-');
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        let mut text = String::new();
        if negative {
            text.push('-');
        }
        if exponent < 0 {
            text.push_str("0.");
            text.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
            text.push_str(&digits);
        } else {
            let whole = exponent as usize + 1;
            if digits.len() <= whole {
                text.push_str(&digits);
                text.extend(std::iter::repeat_n('0', whole - digits.len()));
            } else {
                text.push_str(&digits[..whole]);
                text.push('.');
                text.push_str(&digits[whole..]);
            }
        }
        out.put_slice(text.as_bytes());
    } else {
        display(
            out,
            format_args!(
                "{mantissa}e{}{:02}",
                if exponent < 0 { '-' } else { '+' },
                exponent.abs()
            ),
        );
    }
}

pub fn numeric_text(out: &mut BytesMut, value: i128, scale: usize) {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.put_u8(b'-');
    }
    if scale == 0 {
        return out.put_slice(digits.as_bytes());
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    display(out, format_args!("{whole}.{fraction}"));
}

/// PostgreSQL's NUMERIC: base-10000 digits around the decimal point.
pub fn numeric_binary(out: &mut BytesMut, value: i128, scale: usize) {
    let groups_after = scale.div_ceil(4);
    let padding = groups_after * 4 - scale;
    let mut digits = value.unsigned_abs().to_string();
    digits.extend(std::iter::repeat_n('0', padding));
    let lead = (4 - digits.len() % 4) % 4;
    let digits = "0".repeat(lead) + &digits;
    let mut groups: Vec<i16> = (0..digits.len() / 4)
        .map(|i| digits[i * 4..i * 4 + 4].parse().unwrap_or(0))
        .collect();
    let mut weight = groups.len() as i16 - groups_after as i16 - 1;
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    out.put_i16(groups.len() as i16);
    out.put_i16(if groups.is_empty() { 0 } else { weight });
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_u16(scale as u16);
    groups.into_iter().for_each(|g| out.put_i16(g));
}

/// A date of its era: the year before 1 is 1 BC.
fn era_date(out: &mut BytesMut, date: chrono::NaiveDate) -> &'static [u8] {
    let year = date.year();
    let (year, era): (_, &[u8]) = if year > 0 {
        (year, b"")
    } else {
        (1 - year, b" BC")
    };
    display(
        out,
        format_args!("{year:04}-{:02}-{:02}", date.month(), date.day()),
    );
    era
}

pub fn date(out: &mut BytesMut, days: i32) {
    match chrono::NaiveDate::from_ymd_opt(1970, 1, 1)
        .and_then(|d| d.checked_add_signed(chrono::Duration::days(days.into())))
    {
        Some(date) => {
            let era = era_date(out, date);
            out.put_slice(era);
        }
        None => out.put_slice(if days > 0 { b"infinity" } else { b"-infinity" }),
    }
}

fn fraction(out: &mut BytesMut, micros: u32) {
    if micros > 0 {
        let text = format!(".{micros:06}");
        out.put_slice(text.trim_end_matches('0').as_bytes());
    }
}

pub fn timestamp(out: &mut BytesMut, micros: i64, zone: Option<&Zone>) {
    let local = match zone {
        Some(zone) => zone.local(micros),
        None => chrono::DateTime::from_timestamp_micros(micros).map(|t| t.naive_utc()),
    };
    let Some(local) = local else {
        return out.put_slice(if micros > 0 {
            b"infinity"
        } else {
            b"-infinity"
        });
    };
    let era = era_date(out, local.date());
    display(out, local.format(" %H:%M:%S"));
    fraction(out, local.and_utc().timestamp_subsec_micros());
    if let Some(zone) = zone {
        let offset = zone.offset_seconds(micros);
        let (sign, seconds) = if offset < 0 {
            ('-', -offset)
        } else {
            ('+', offset)
        };
        display(out, format_args!("{sign}{:02}", seconds / 3600));
        if seconds % 3600 != 0 {
            display(out, format_args!(":{:02}", seconds % 3600 / 60));
        }
        if seconds % 60 != 0 {
            display(out, format_args!(":{:02}", seconds % 60));
        }
    }
    out.put_slice(era);
}

pub fn time(out: &mut BytesMut, micros: i64) {
    let seconds = micros / 1_000_000;
    display(
        out,
        format_args!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
    );
    fraction(out, (micros % 1_000_000).unsigned_abs() as u32);
}

/// How far two times are apart that are so many microseconds apart: days and the rest.
pub fn apart(micros: i64) -> IntervalMonthDayNano {
    const DAY: i64 = 86_400_000_000;
    let days = i32::try_from(micros / DAY).unwrap_or(if micros < 0 { i32::MIN } else { i32::MAX });
    IntervalMonthDayNano::new(0, days, micros % DAY * 1000)
}

/// `1 year 2 mons 3 days 04:05:06.7`
pub fn interval(out: &mut BytesMut, value: IntervalMonthDayNano) {
    let mut parts = Vec::new();
    // After a part below zero, one above it has a sign.
    let mut is_below = false;
    let mut unit = |n: i32, one: &str| {
        if n != 0 {
            let sign = if is_below && n > 0 { "+" } else { "" };
            parts.push(format!("{sign}{n} {one}{}", if n == 1 { "" } else { "s" }));
            is_below = n < 0;
        }
    };
    unit(value.months / 12, "year");
    unit(value.months % 12, "mon");
    unit(value.days, "day");
    let micros = value.nanoseconds / 1000;
    if micros != 0 || parts.is_empty() {
        let mut text = BytesMut::new();
        if micros < 0 {
            text.put_u8(b'-');
        } else if is_below {
            text.put_u8(b'+');
        }
        time(&mut text, micros.checked_abs().unwrap_or(i64::MAX));
        parts.push(String::from_utf8_lossy(&text).into_owned());
    }
    out.put_slice(parts.join(" ").as_bytes());
}

/// A record's field, quoted where PostgreSQL quotes.
pub fn record_item(out: &mut BytesMut, item: &[u8]) {
    let special =
        |b: &u8| matches!(b, b'(' | b')' | b',' | b'"' | b'\\') || b.is_ascii_whitespace();
    if !item.is_empty() && !item.iter().any(special) {
        return out.put_slice(item);
    }
    out.put_u8(b'"');
    for byte in item {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(*byte);
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

/// An array's text item, quoted where PostgreSQL quotes.
pub fn array_item(out: &mut BytesMut, item: &[u8]) {
    let plain = !item.is_empty()
        && !item.eq_ignore_ascii_case(b"null")
        && !item
            .iter()
            .any(|b| matches!(b, b'{' | b'}' | b',' | b'"' | b'\\') || b.is_ascii_whitespace());
    if plain {
        return out.put_slice(item);
    }
    out.put_u8(b'"');
    for byte in item {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(f: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        f(&mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn floats_are_written_as_postgresql_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (-0.0001, "-0.0001"),
            (0.00001, "1e-05"),
            (100_000.0, "100000"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1.234_567_890_123_456_8e17, "1.2345678901234568e+17"),
            (f64::INFINITY, "Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(
                written(|o| float(o, &format!("{value:e}"), value, 15)),
                text
            );
        }
    }

    #[test]
    fn numerics_times_and_intervals() {
        assert_eq!(written(|o| numeric_text(o, -5, 2)), "-0.05");
        assert_eq!(
            written(|o| numeric_text(o, i128::MAX, 0)),
            i128::MAX.to_string()
        );
        let paris = Zone::parse("Europe/Paris").expect("a zone");
        assert_eq!(
            written(|o| timestamp(o, 1_700_000_000_120_000, Some(&paris))),
            "2023-11-14 23:13:20.12+01"
        );
        let india = Zone::parse("+05:30").expect("a zone");
        assert_eq!(
            written(|o| timestamp(o, 0, Some(&india))),
            "1970-01-01 05:30:00+05:30"
        );
        let value = IntervalMonthDayNano {
            months: 14,
            days: 1,
            nanoseconds: -3_723_000_000_000,
        };
        assert_eq!(
            written(|o| interval(o, value)),
            "1 year 2 mons 1 day -01:02:03"
        );
    }

    #[test]
    fn binary_numerics_have_base_10000_digits() {
        let groups = |value: i128, scale: usize| {
            let mut out = BytesMut::new();
            numeric_binary(&mut out, value, scale);
            out.chunks(2)
                .map(|c| i16::from_be_bytes([c[0], c[1]]))
                .collect::<Vec<_>>()
        };
        assert_eq!(groups(0, 2), [0, 0, 0, 2]);
        assert_eq!(groups(12_345, 2), [2, 0, 0, 2, 123, 4500]);
        assert_eq!(groups(-1, 5), [1, -2, 0x4000, 5, 1000]);
        assert_eq!(groups(100_000_000, 0), [1, 2, 0, 0, 1]);
    }
}
