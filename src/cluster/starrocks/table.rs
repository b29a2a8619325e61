//! An answer read by the names of its columns: versions add columns, and move them.

use chrono::{NaiveDateTime, TimeDelta};

use crate::cluster::Answer;
use crate::names::Timestamp;

/// One row with its columns' names.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    columns: &'a [String],
    values: &'a [Option<String>],
}

/// The rows of an answer.
pub(super) fn lines(answer: &Answer) -> impl Iterator<Item = Line<'_>> {
    answer.rows.iter().map(|values| Line {
        columns: &answer.columns,
        values,
    })
}

impl Line<'_> {
    /// The value of the first of these columns that is there and not NULL. `\N` is how StarRocks
    /// writes NULL in SHOW.
    pub fn get(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| {
            let at = self
                .columns
                .iter()
                .position(|c| c.eq_ignore_ascii_case(name))?;
            self.values.get(at)?.clone().filter(|v| v != "\\N")
        })
    }

    /// The same as text that may be empty.
    pub fn text(&self, name: &str) -> String {
        self.get(&[name]).unwrap_or_default()
    }

    /// The same as a number.
    pub fn number<N: std::str::FromStr>(&self, names: &[&str]) -> Option<N> {
        self.get(names)?.trim().parse().ok()
    }

    /// The same as a flag.
    pub fn flag(&self, names: &[&str]) -> Option<bool> {
        match self.get(names)?.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => None,
        }
    }

    /// The same as a time, shown so many hours east of UTC.
    pub fn time(&self, names: &[&str], hours_east: i64) -> Option<Timestamp> {
        parse_time(&self.get(names)?, hours_east)
    }
}

/// `yyyy-MM-dd HH:mm:ss`, perhaps with a fraction, shown so many hours east of UTC.
pub(super) fn parse_time(text: &str, hours_east: i64) -> Option<Timestamp> {
    let time = NaiveDateTime::parse_from_str(text.trim(), "%Y-%m-%d %H:%M:%S%.f").ok()?;
    let utc = time.checked_sub_signed(TimeDelta::try_hours(hours_east)?)?;
    Some(Timestamp(utc.and_utc().timestamp_millis()))
}

/// `1.234 MB` in bytes, as near as the text says.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "KB" => 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        "TB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "PB" => 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some((number * unit).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read() {
        assert_eq!(
            parse_time("2026-01-01 08:00:00", 8),
            parse_time("2026-01-01 00:00:00", 0)
        );
        assert_eq!(parse_time("1970-01-01 00:00:01", 0), Some(Timestamp(1000)));
        assert_eq!(parse_time("never", 0), None);
        for (text, bytes) in [
            ("1.5 KB", Some(1536)),
            ("0.000 ", Some(0)),
            ("3 B", Some(3)),
            ("2GB", Some(2 << 30)),
            ("x", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn columns_are_found_by_name() {
        let answer = Answer {
            columns: vec!["JobId".into(), "State".into(), "FinishedTime".into()],
            rows: vec![vec![Some("7".into()), None, Some("\\N".into())]],
            affected: 0,
        };
        let line = lines(&answer).next().expect("a row");
        assert_eq!(line.number::<i64>(&["jobid"]), Some(7));
        assert_eq!(
            (
                line.text("State"),
                line.get(&["FinishedTime"]),
                line.get(&["Gone"])
            ),
            (String::new(), None, None)
        );
    }
}
