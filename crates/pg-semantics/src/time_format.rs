//! The patterns of `to_char`, `to_timestamp` and `to_date` for times.

use chrono::{Datelike, NaiveDate, NaiveDateTime, Timelike};
use starkeep_error::{Error, ErrorKind};

use crate::out_of_range;

/// A time to be written: local, with what is known of its zone.
#[derive(Clone, Copy, Debug)]
pub struct Written<'z> {
    pub local: NaiveDateTime,
    /// Seconds east of UTC and an abbreviation, of a time with a zone.
    pub zone: Option<(i32, &'z str)>,
}

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Field {
        /// As it is written in the pattern, which says the case of names.
        word: String,
        field: &'static str,
        /// Without blanks and zeros that fill up.
        fill: bool,
        /// `st`, `nd`, `rd`, `th`, by their case.
        ordinal: Option<bool>,
    },
}

/// Longest first among those that begin alike.
const FIELDS: &[&str] = &[
    "A.D.", "A.M.", "AD", "AM", "B.C.", "BC", "CC", "DAY", "DDD", "DD", "DY", "D", "FF1", "FF2",
    "FF3", "FF4", "FF5", "FF6", "HH24", "HH12", "HH", "IDDD", "ID", "IW", "IYYY", "IYY", "IY", "I",
    "J", "MI", "MM", "MONTH", "MON", "MS", "OF", "P.M.", "PM", "Q", "RM", "SSSSS", "SSSS", "SS",
    "TZH", "TZM", "TZ", "US", "WW", "W", "Y,YYY", "YYYY", "YYY", "YY", "Y",
];

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    let mut literal = String::new();
    let mut rest = pattern;
    let mut fill = true;
    while let Some(c) = rest.chars().next() {
        let begins = |word: &str| {
            rest.get(..word.len())
                .is_some_and(|r| r.eq_ignore_ascii_case(word))
        };
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            literal.push_str(&quoted[..end].replace('\\', ""));
            rest = quoted.get(end + 1..).unwrap_or("");
            continue;
        }
        if let Some(escaped) = rest.strip_prefix('\\') {
            if let Some(quote) = escaped.strip_prefix('"') {
                literal.push('"');
                rest = quote;
            } else {
                literal.push('\\');
                rest = escaped;
            }
            continue;
        }
        if begins("FM") {
            (fill, rest) = (false, &rest[2..]);
            continue;
        }
        if begins("FX") || begins("TM") {
            rest = &rest[2..];
            continue;
        }
        let Some(field) = FIELDS.iter().find(|field| begins(field)) else {
            literal.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        if !literal.is_empty() {
            out.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        let (word, after) = rest.split_at(field.len());
        let ordinal = after.get(..2).and_then(|suffix| match suffix {
            "TH" => Some(true),
            "th" => Some(false),
            _ => None,
        });
        rest = if ordinal.is_some() {
            &after[2..]
        } else {
            after
        };
        out.push(Piece::Field {
            word: word.to_owned(),
            field,
            fill,
            ordinal,
        });
        fill = true;
    }
    if !literal.is_empty() {
        out.push(Piece::Literal(literal));
    }
    out
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const ROMAN: [&str; 12] = [
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII",
];

/// A name in the case of the word that asks for it.
fn cased(name: &str, word: &str) -> String {
    let mut letters = word.chars().filter(|c| c.is_ascii_alphabetic());
    let (first, second) = (letters.next(), letters.next());
    let upper = |c: Option<char>| c.is_none_or(|c| c.is_ascii_uppercase());
    match (upper(first), upper(second)) {
        (true, true) => name.to_ascii_uppercase(),
        (true, false) => {
            let mut capital = name.to_ascii_lowercase();
            capital[..1].make_ascii_uppercase();
            capital
        }
        _ => name.to_ascii_lowercase(),
    }
}

fn suffix(number: i64) -> &'static str {
    match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    }
}

/// A year without a sign: the year before 1 is 1 BC.
fn year_of_era(year: i32) -> i32 {
    if year > 0 { year } else { 1 - year }
}

impl Written<'_> {
    /// A number and how many digits it is filled up to.
    fn number(&self, field: &str) -> Option<(i64, usize)> {
        let t = self.local;
        let hour12 = i64::from((t.hour() + 11) % 12 + 1);
        let micros = i64::from(t.and_utc().timestamp_subsec_micros());
        let year = i64::from(year_of_era(t.year()));
        let iso_year = i64::from(year_of_era(t.iso_week().year()));
        Some(match field {
            "HH24" => (t.hour().into(), 2),
            "HH" | "HH12" => (hour12, 2),
            "MI" => (t.minute().into(), 2),
            "SS" => (t.second().into(), 2),
            "MS" => (micros / 1000, 3),
            "US" | "FF6" => (micros, 6),
            "FF1" => (micros / 100_000, 1),
            "FF2" => (micros / 10_000, 2),
            "FF3" => (micros / 1000, 3),
            "FF4" => (micros / 100, 4),
            "FF5" => (micros / 10, 5),
            "SSSS" | "SSSSS" => (t.num_seconds_from_midnight().into(), 1),
            "YYYY" => (year, 4),
            "YYY" => (year % 1000, 3),
            "YY" => (year % 100, 2),
            "Y" => (year % 10, 1),
            "IYYY" => (iso_year, 4),
            "IYY" => (iso_year % 1000, 3),
            "IY" => (iso_year % 100, 2),
            "I" => (iso_year % 10, 1),
            "MM" => (t.month().into(), 2),
            "DDD" => (t.ordinal().into(), 3),
            "DD" => (t.day().into(), 2),
            "D" => (i64::from(t.weekday().num_days_from_sunday()) + 1, 1),
            "ID" => (t.weekday().number_from_monday().into(), 1),
            "IDDD" => {
                let week = i64::from(t.iso_week().week());
                (
                    (week - 1) * 7 + i64::from(t.weekday().number_from_monday()),
                    3,
                )
            }
            "W" => (i64::from(t.day0() / 7) + 1, 1),
            "WW" => (i64::from(t.ordinal0() / 7) + 1, 2),
            "IW" => (t.iso_week().week().into(), 2),
            "CC" => {
                let century = match t.year() {
                    year if year > 0 => (year + 99) / 100,
                    year => -(1 - year + 99) / 100,
                };
                (century.into(), 2)
            }
            "J" => (i64::from(t.num_days_from_ce()) + 1_721_425, 1),
            "Q" => (i64::from(t.month0() / 3) + 1, 1),
            _ => return None,
        })
    }

    fn text(&self, field: &str, word: &str, fill: bool) -> String {
        let t = self.local;
        let padded = |name: &str| {
            let name = cased(name, word);
            if fill { format!("{name:<9}") } else { name }
        };
        let half = if t.hour() < 12 { "am" } else { "pm" };
        let era = if t.year() > 0 { "ad" } else { "bc" };
        let dotted = |half: &str| format!("{}.{}.", &half[..1], &half[1..]);
        let same_case = |text: String| {
            if word.starts_with(|c: char| c.is_ascii_uppercase()) {
                text.to_ascii_uppercase()
            } else {
                text
            }
        };
        let day = DAYS[t.weekday().num_days_from_sunday() as usize];
        let month = MONTHS[t.month0() as usize];
        let (offset, name) = self.zone.unwrap_or((0, ""));
        let (sign, ahead) = if offset < 0 {
            ('-', -offset)
        } else {
            ('+', offset)
        };
        match field {
            "AM" | "PM" => same_case(half.to_owned()),
            "A.M." | "P.M." => same_case(dotted(half)),
            "AD" | "BC" => same_case(era.to_owned()),
            "A.D." | "B.C." => same_case(dotted(era)),
            "DAY" => padded(day),
            "DY" => cased(&day[..3], word),
            "MONTH" => padded(month),
            "MON" => cased(&month[..3], word),
            "RM" => {
                let roman = same_case(ROMAN[t.month0() as usize].to_ascii_lowercase());
                if fill { format!("{roman:<4}") } else { roman }
            }
            "Y,YYY" => {
                let year = year_of_era(t.year());
                format!("{},{:03}", year / 1000, year % 1000)
            }
            "TZ" => same_case(name.to_ascii_lowercase()),
            "TZH" => format!("{sign}{:02}", ahead / 3600),
            "TZM" => format!("{:02}", ahead % 3600 / 60),
            "OF" if ahead % 3600 == 0 => format!("{sign}{:02}", ahead / 3600),
            "OF" => format!("{sign}{:02}:{:02}", ahead / 3600, ahead % 3600 / 60),
            _ => String::new(),
        }
    }

    /// Writes the time by a pattern of `to_char`.
    pub fn to_char(&self, pattern: &str) -> String {
        let mut out = String::new();
        for piece in pieces(pattern) {
            let (word, field, fill, ordinal) = match piece {
                Piece::Literal(text) => {
                    out.push_str(&text);
                    continue;
                }
                Piece::Field {
                    word,
                    field,
                    fill,
                    ordinal,
                } => (word, field, fill, ordinal),
            };
            let Some((number, width)) = self.number(field) else {
                out.push_str(&self.text(field, &word, fill));
                continue;
            };
            if fill {
                out.push_str(&format!("{number:0width$}"));
            } else {
                out.push_str(&number.to_string());
            }
            match ordinal {
                Some(true) => out.push_str(&suffix(number).to_ascii_uppercase()),
                Some(false) => out.push_str(suffix(number)),
                None => {}
            }
        }
        out
    }
}

/// Writes an interval, none of whose parts is negative, by a pattern of `to_char`. Its hours are
/// all of them; names of days and months it has none.
pub fn interval(months: i32, days: i32, micros: i64, pattern: &str) -> Result<String, Error> {
    let mut out = String::new();
    let seconds = micros / 1_000_000;
    let fraction = micros % 1_000_000;
    for piece in pieces(pattern) {
        let (field, fill, ordinal) = match piece {
            Piece::Literal(text) => {
                out.push_str(&text);
                continue;
            }
            Piece::Field {
                field,
                fill,
                ordinal,
                ..
            } => (field, fill, ordinal),
        };
        let (number, width) = match field {
            "HH24" => (seconds / 3600, 2),
            "HH" | "HH12" => ((seconds / 3600 + 11) % 12 + 1, 2),
            "MI" => (seconds / 60 % 60, 2),
            "SS" => (seconds % 60, 2),
            "MS" => (fraction / 1000, 3),
            "US" => (fraction, 6),
            "SSSS" | "SSSSS" => (seconds, 1),
            "DD" => (days.into(), 2),
            "MM" => ((months % 12).into(), 2),
            "YYYY" => ((months / 12).into(), 4),
            other => {
                let message = format!("the pattern {other} in to_char of an interval");
                return Err(Error::unsupported(message));
            }
        };
        match fill {
            true => out.push_str(&format!("{number:0width$}")),
            false => out.push_str(&number.to_string()),
        }
        match ordinal {
            Some(true) => out.push_str(&suffix(number).to_ascii_uppercase()),
            Some(false) => out.push_str(suffix(number)),
            None => {}
        }
    }
    Ok(out)
}

/// What a text says that was read by a pattern.
#[derive(Default)]
struct Found {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    hour: Option<i64>,
    minute: i64,
    second: i64,
    seconds_of_day: Option<i64>,
    micros: i64,
    afternoon: Option<bool>,
    before_christ: bool,
    offset: Option<i32>,
}

/// A local time that was read, and seconds east of UTC where the text has them.
pub type Read = (NaiveDateTime, Option<i32>);

fn invalid(value: &str, field: &str) -> Error {
    Error::new(
        ErrorKind::InvalidDatetime,
        format!("invalid value \"{value}\" for \"{field}\""),
    )
}

/// A number of at most so many digits, and the rest of the text.
fn take_number<'t>(
    text: &'t str,
    most: usize,
    field: &str,
) -> Result<(i64, usize, &'t str), Error> {
    let text = text.trim_start();
    let sign = usize::from(text.starts_with(['-', '+']) && field == "TZH");
    let length = text[sign..]
        .bytes()
        .take(most)
        .take_while(u8::is_ascii_digit)
        .count();
    let shown: String = text.chars().take(most.min(4)).collect();
    let number = text[..sign + length]
        .parse()
        .map_err(|_| invalid(&shown, field))?;
    Ok((number, length, &text[sign + length..]))
}

/// Reads a time by a pattern of `to_timestamp` or `to_date`.
pub fn read(text: &str, pattern: &str) -> Result<Read, Error> {
    let mut found = Found::default();
    let mut rest = text.trim_start();
    let pieces = pieces(pattern);
    for (i, piece) in pieces.iter().enumerate() {
        if rest.trim().is_empty() {
            break;
        }
        let (field, fill) = match piece {
            // A separator stands for any other, and for none.
            Piece::Literal(separators) => {
                for separator in separators.chars() {
                    match rest.chars().next() {
                        Some(c) if !c.is_alphanumeric() || c == separator => {
                            let is_sign = matches!(c, '+' | '-') && separator == ' ';
                            if !is_sign {
                                rest = &rest[c.len_utf8()..];
                            }
                        }
                        _ => {}
                    }
                }
                continue;
            }
            Piece::Field { field, fill, .. } => (*field, *fill),
        };
        rest = rest.trim_start();
        // A number ends where the next field begins, if nothing stands between them.
        let is_glued = matches!(pieces.get(i + 1), Some(Piece::Field { .. }));
        let digits = |width: usize| if is_glued && fill { width } else { 9 };
        let names = |names: &[&str], length: Option<usize>| -> Option<(i64, usize)> {
            let at = names.iter().position(|name| {
                let name = &name[..length.unwrap_or(name.len())];
                rest.get(..name.len())
                    .is_some_and(|r| r.eq_ignore_ascii_case(name))
            })?;
            Some((at as i64, length.unwrap_or(names[at].len())))
        };
        let mut number = |most: usize| -> Result<(i64, usize), Error> {
            let (number, length, after) = take_number(rest, most, field)?;
            rest = after;
            Ok((number, length))
        };
        match field {
            "YYYY" | "IYYY" => {
                let (year, length) = number(digits(4))?;
                // Fewer digits are of a year near 2020.
                found.year = Some(near(year, length));
            }
            "YYY" | "YY" | "Y" => {
                let (year, length) = number(digits(field.len()))?;
                found.year = Some(near(year, length));
            }
            "MM" => found.month = Some(number(digits(2))?.0),
            "DD" => found.day = Some(number(digits(2))?.0),
            "DDD" => found.day_of_year = Some(number(digits(3))?.0),
            "J" => found.julian = Some(number(digits(7))?.0),
            "HH24" | "HH12" | "HH" => {
                let (hour, _) = number(digits(2))?;
                if field != "HH24" && !(1..=12).contains(&hour) {
                    let message = format!("hour \"{hour}\" is invalid for the 12-hour clock");
                    return Err(Error::new(ErrorKind::InvalidDatetime, message)
                        .hint("Use the 24-hour clock, or give an hour between 1 and 12."));
                }
                found.hour = Some(hour);
            }
            "MI" => found.minute = number(digits(2))?.0,
            "SS" => found.second = number(digits(2))?.0,
            "SSSS" | "SSSSS" => found.seconds_of_day = Some(number(digits(5))?.0),
            "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let most = match field {
                    "MS" => 3,
                    "US" => 6,
                    _ => usize::from(field.as_bytes()[2] - b'0'),
                };
                let (value, length) = number(if is_glued { most } else { 6 })?;
                found.micros = value * 10_i64.pow(6 - length.min(6) as u32);
            }
            "MONTH" | "MON" => {
                let length = (field == "MON").then_some(3);
                let shown: String = rest.chars().take(3).collect();
                let read = names(&MONTHS, length).ok_or_else(|| invalid(&shown, field))?;
                found.month = Some(read.0 + 1);
                rest = &rest[read.1..];
            }
            "DAY" | "DY" => {
                let length = (field == "DY").then_some(3);
                let shown: String = rest.chars().take(3).collect();
                let read = names(&DAYS, length).ok_or_else(|| invalid(&shown, field))?;
                rest = &rest[read.1..];
            }
            "AM" | "PM" | "A.M." | "P.M." => {
                let shown: String = rest.chars().take(field.len()).collect();
                let half = shown.replace('.', "").to_ascii_lowercase();
                if half != "am" && half != "pm" {
                    return Err(invalid(&shown, field));
                }
                found.afternoon = Some(half == "pm");
                rest = &rest[shown.len()..];
            }
            "AD" | "BC" | "A.D." | "B.C." => {
                let shown: String = rest.chars().take(field.len()).collect();
                found.before_christ = shown.to_ascii_lowercase().starts_with('b');
                rest = &rest[shown.len()..];
            }
            "TZH" => {
                let hours = i32::try_from(number(2)?.0).unwrap_or(0);
                found.offset = Some(hours * 3600);
            }
            "TZM" => {
                let minutes = i32::try_from(number(2)?.0).unwrap_or(0) * 60;
                let hours = found.offset.unwrap_or(0);
                found.offset = Some(hours + if hours < 0 { -minutes } else { minutes });
            }
            "Q" | "D" | "ID" | "W" | "WW" | "CC" => {
                number(digits(field.len()))?;
            }
            other => {
                let message = format!("the pattern {other} of to_timestamp and to_date");
                return Err(Error::unsupported(message));
            }
        }
    }
    Ok((found.time(text)?, found.offset))
}

fn near(year: i64, length: usize) -> i64 {
    match length {
        1 | 2 if year < 70 => year + 2000,
        1 | 2 => year + 1900,
        3 if year < 520 => year + 2000,
        3 => year + 1000,
        _ => year,
    }
}

impl Found {
    fn time(&self, text: &str) -> Result<NaiveDateTime, Error> {
        let far = || out_of_range(text);
        let year = self
            .year
            .unwrap_or(if self.julian.is_some() { 1 } else { 0 });
        // Without a year it is 1 BC.
        let year = if self.before_christ { 1 - year } else { year };
        let year = i32::try_from(year).map_err(|_| far())?;
        let small = |n: Option<i64>| u32::try_from(n.unwrap_or(1)).ok();
        let date = match (self.julian, self.day_of_year) {
            (Some(julian), _) => i32::try_from(julian - 1_721_425)
                .ok()
                .and_then(NaiveDate::from_num_days_from_ce_opt),
            (None, Some(day)) if self.month.is_none() => u32::try_from(day)
                .ok()
                .and_then(|day| NaiveDate::from_yo_opt(year, day)),
            _ => small(self.month)
                .zip(small(self.day))
                .and_then(|(month, day)| NaiveDate::from_ymd_opt(year, month, day)),
        };
        let mut hour = self.hour.unwrap_or(0);
        if let Some(afternoon) = self.afternoon {
            hour = hour % 12 + if afternoon { 12 } else { 0 };
        }
        let is_time = hour < 24 && self.minute < 60 && self.second < 60;
        let seconds = match self.seconds_of_day {
            Some(seconds) if (0..86_400).contains(&seconds) => seconds,
            None if is_time => (hour * 60 + self.minute) * 60 + self.second,
            _ => return Err(far()),
        };
        let seconds = u32::try_from(seconds).map_err(|_| far())?;
        let nanos = u32::try_from(self.micros * 1000).map_err(|_| far())?;
        let time = chrono::NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos);
        Ok(date.ok_or_else(far)?.and_time(time.ok_or_else(far)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").expect("a time")
    }

    #[test]
    fn times_are_written_by_patterns() {
        let written = Written {
            local: at("2024-02-03 16:05:06.078"),
            zone: Some((5400, "XST")),
        };
        for (pattern, expected) in [
            ("YYYY-MM-DD HH24:MI:SS.MS", "2024-02-03 16:05:06.078"),
            ("HH12:MI am", "04:05 pm"),
            ("FMMonth FMDDth, YYYY", "February 3rd, 2024"),
            ("Month|MON|day|Dy", "February |FEB|saturday |Sat"),
            (
                "Q CC W WW IW IYYY DDD D ID J",
                "1 21 1 05 05 2024 034 7 6 2460344",
            ),
            ("SSSS US Y,YYY YY", "57906 078000 2,024 24"),
            ("\"Day\" RM TZ OF TZH:TZM", "Day II   XST +01:30 +01:30"),
            ("FMHH24:FMMI", "16:5"),
            ("A.D. P.M.", "A.D. P.M."),
        ] {
            assert_eq!(written.to_char(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn times_are_read_by_patterns() {
        for (text, pattern, expected) in [
            (
                "2024-02-03 16:05:06",
                "YYYY-MM-DD HH24:MI:SS",
                "2024-02-03 16:05:06",
            ),
            ("20240203", "YYYYMMDD", "2024-02-03 00:00:00"),
            ("3 Feb 2024", "DD Mon YYYY", "2024-02-03 00:00:00"),
            ("2024/2/3", "YYYY-MM-DD", "2024-02-03 00:00:00"),
            ("04:05 PM 2024", "HH12:MI AM YYYY", "2024-01-01 16:05:00"),
            ("2024-034", "YYYY-DDD", "2024-02-03 00:00:00"),
            ("2024-02", "YYYY-MM", "2024-02-01 00:00:00"),
            ("24-02-03", "YY-MM-DD", "2024-02-03 00:00:00"),
        ] {
            let (time, _) = read(text, pattern).expect(text);
            assert_eq!(time, at(expected), "{text} {pattern}");
        }
        let kind = |text: &str, pattern: &str| {
            read(text, pattern)
                .expect_err(text)
                .kind
                .sqlstate()
                .to_owned()
        };
        assert_eq!(kind("abc", "YYYY"), "22007");
        assert_eq!(kind("2024-13-01", "YYYY-MM-DD"), "22008");
    }
}
