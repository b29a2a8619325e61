//! Intervals as PostgreSQL reads them: months, days and microseconds apart.

use chrono::{Datelike, NaiveDateTime, Timelike};
use starkeep_error::{Error, ErrorKind};

use crate::bad_text;

/// An interval; its parts may have different signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

const MICROS_A_SECOND: f64 = 1e6;
const SECONDS_A_DAY: f64 = 86_400.0;

/// What a unit counts.
#[derive(Clone, Copy)]
enum Unit {
    Months(f64),
    Days(f64),
    Seconds(f64),
}

fn unit(word: &str) -> Option<Unit> {
    use Unit::{Days, Months, Seconds};
    Some(match word {
        "microsecond" | "microseconds" | "us" | "usec" | "usecs" | "usecond" | "useconds" => {
            Seconds(1e-6)
        }
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" | "mseconds" => Seconds(1e-3),
        "second" | "seconds" | "s" | "sec" | "secs" => Seconds(1.0),
        "minute" | "minutes" | "m" | "min" | "mins" => Seconds(60.0),
        "hour" | "hours" | "h" | "hr" | "hrs" => Seconds(3600.0),
        "day" | "days" | "d" => Days(1.0),
        "week" | "weeks" | "w" => Days(7.0),
        "month" | "months" | "mon" | "mons" => Months(1.0),
        "year" | "years" | "y" | "yr" | "yrs" => Months(12.0),
        "decade" | "decades" | "dec" | "decs" => Months(120.0),
        "century" | "centuries" | "c" | "cent" => Months(1200.0),
        "millennium" | "millennia" | "mil" | "mils" => Months(12_000.0),
        _ => return None,
    })
}

/// Sums as they are read.
#[derive(Default)]
struct Sum {
    months: f64,
    days: f64,
    seconds: f64,
}

impl Sum {
    /// What is left of a month is days, of a day seconds.
    fn add(&mut self, number: f64, unit: Unit) {
        match unit {
            Unit::Months(months) => {
                let all = number * months;
                // A fraction of a year is whole months.
                let whole = if months > 1.0 {
                    all.round()
                } else {
                    all.trunc()
                };
                self.months += whole;
                if months <= 1.0 {
                    self.add((all - whole) * 30.0, Unit::Days(1.0));
                }
            }
            Unit::Days(days) => {
                let all = number * days;
                self.days += all.trunc();
                self.seconds += all.fract() * SECONDS_A_DAY;
            }
            Unit::Seconds(seconds) => self.seconds += number * seconds,
        }
    }

    fn finish(self, sign: f64) -> Option<Interval> {
        let int = |n: f64| (n.abs() <= f64::from(i32::MAX)).then_some((n * sign) as i32);
        let micros = (self.seconds * sign * MICROS_A_SECOND).round();
        let is_in_range = micros.abs() < 9.2e18;
        Some(Interval {
            months: int(self.months)?,
            days: int(self.days)?,
            micros: is_in_range.then_some(micros as i64)?,
        })
    }
}

fn number(text: &str) -> Option<f64> {
    let has_digit = text.bytes().any(|b| b.is_ascii_digit());
    let is_number = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-'));
    (has_digit && is_number)
        .then(|| text.parse().ok())
        .flatten()
}

/// `10:11`, `-1:02:03.5`: seconds. Of two parts the first is hours.
fn clock(text: &str) -> Option<f64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.trim_start_matches('+')),
    };
    let parts: Vec<f64> = rest.split(':').map(number).collect::<Option<_>>()?;
    let is_below = |n: &f64| *n >= 0.0 && *n < 60.0;
    let seconds = match &parts[..] {
        [hours, minutes] if is_below(minutes) => hours * 3600.0 + minutes * 60.0,
        [hours, minutes, seconds] if is_below(minutes) && is_below(seconds) => {
            hours * 3600.0 + minutes * 60.0 + seconds
        }
        _ => return None,
    };
    Some(sign * seconds)
}

/// `P1Y2M3DT4H5M6S`
fn iso(text: &str, sum: &mut Sum) -> Option<()> {
    let (mut in_time, mut digits) = (false, String::new());
    for c in text.chars() {
        match c {
            't' if digits.is_empty() => in_time = true,
            '0'..='9' | '.' | '-' | '+' => digits.push(c),
            _ => {
                let unit = match (c, in_time) {
                    ('y', false) => Unit::Months(12.0),
                    ('m', false) => Unit::Months(1.0),
                    ('w', false) => Unit::Days(7.0),
                    ('d', false) => Unit::Days(1.0),
                    ('h', true) => Unit::Seconds(3600.0),
                    ('m', true) => Unit::Seconds(60.0),
                    ('s', true) => Unit::Seconds(1.0),
                    _ => return None,
                };
                sum.add(number(&digits)?, unit);
                digits.clear();
            }
        }
    }
    digits.is_empty().then_some(())
}

/// Words with a blank between a number and its unit: `1day` is `1 day`.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let start = word.trim_start_matches(|c: char| c.is_ascii_digit() || ".+-:".contains(c));
        let (number, unit) = word.split_at(word.len() - start.len());
        words.extend(
            [number, unit]
                .iter()
                .filter(|w| !w.is_empty())
                .map(|w| (*w).to_owned()),
        );
    }
    words
}

fn read(text: &str) -> Option<Option<Interval>> {
    let lower = text.trim().to_ascii_lowercase();
    let mut sum = Sum::default();
    if let Some(rest) = lower.strip_prefix('p') {
        iso(rest, &mut sum)?;
        return Some(sum.finish(1.0));
    }
    let mut words = words(lower.trim_start_matches('@'));
    let sign = if words.last().is_some_and(|word| word == "ago") {
        words.pop();
        -1.0
    } else {
        1.0
    };
    if words.is_empty() {
        return None;
    }
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.next() {
        if word.contains(':') {
            sum.seconds += clock(word)?;
            continue;
        }
        // `1-2`: years and months.
        let inner = word.trim_start_matches(['-', '+']);
        if let Some((years, months)) = inner.split_once('-') {
            let sign = if word.starts_with('-') { -1.0 } else { 1.0 };
            let (years, months) = (number(years)?, number(months)?);
            sum.months += sign * (years * 12.0 + months);
            continue;
        }
        let number = number(word)?;
        match rest.peek().map(|next| (unit(next), next.contains(':'))) {
            Some((Some(unit), _)) => {
                rest.next();
                sum.add(number, unit);
            }
            // `3 04:05:06`: days before a time.
            Some((None, true)) => sum.add(number, Unit::Days(1.0)),
            Some((None, false)) => return None,
            None => sum.add(number, Unit::Seconds(1.0)),
        }
    }
    Some(sum.finish(sign))
}

/// An interval in any of PostgreSQL's styles.
pub fn interval(text: &str) -> Result<Interval, Error> {
    let read = read(text).ok_or_else(|| bad_text("interval", text))?;
    read.ok_or_else(|| {
        let message = format!("interval field value out of range: \"{text}\"");
        Error::new(ErrorKind::DateTimeOverflow, message)
    })
}

impl Interval {
    /// The same in words that every reader of intervals takes.
    pub fn words(self) -> String {
        let (seconds, rest) = (self.micros / 1_000_000, (self.micros % 1_000_000).abs());
        let sign = if self.micros < 0 && seconds == 0 {
            "-"
        } else {
            ""
        };
        let Self { months, days, .. } = self;
        format!("{months} months {days} days {sign}{seconds}.{rest:06} seconds")
    }

    /// Its product with a number: what is left of a month is days, of a day time.
    pub fn times(self, factor: f64) -> Option<Self> {
        self.scaled(|part| part * factor)
    }

    /// Its quotient by a number that is not zero.
    pub fn divided(self, divisor: f64) -> Option<Self> {
        self.scaled(|part| part / divisor)
    }

    fn scaled(self, scale: impl Fn(f64) -> f64) -> Option<Self> {
        let (months, days) = (scale(self.months.into()), scale(self.days.into()));
        let left_of_months = round_micro(months.fract() * 30.0);
        let seconds_of_days = (days.fract() + left_of_months.fract()) * SECONDS_A_DAY;
        // A whole day that came together out of fractions is one.
        let carried = (seconds_of_days / SECONDS_A_DAY).trunc();
        let all_days = days.trunc() + left_of_months.trunc() + carried;
        let seconds = seconds_of_days - carried * SECONDS_A_DAY;
        let micros = scale(self.micros as f64) + round_micro(seconds) * MICROS_A_SECOND;
        let is_in_range = [months, all_days]
            .iter()
            .all(|n| n.abs() <= f64::from(i32::MAX))
            && micros.abs() < 9.2e18;
        is_in_range.then_some(Self {
            months: months as i32,
            days: all_days as i32,
            micros: micros.round() as i64,
        })
    }

    /// Its negative.
    pub fn negated(self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_neg()?,
            days: self.days.checked_neg()?,
            micros: self.micros.checked_neg()?,
        })
    }
}

const MICROS_A_DAY: i64 = 86_400_000_000;

impl Interval {
    /// Time from one moment to another in years, months, days and time of a day, as calendars
    /// count:
    /// `age`.
    pub fn between(from: NaiveDateTime, to: NaiveDateTime) -> Self {
        let is_negative = to < from;
        let (early, late) = if is_negative { (to, from) } else { (from, to) };
        let months_of = |at: NaiveDateTime| at.year() * 12 + at.month0() as i32;
        let micros_of = |at: NaiveDateTime| {
            let time = at.time();
            i64::from(time.num_seconds_from_midnight()) * 1_000_000
                + i64::from(time.nanosecond() / 1000)
        };
        let mut months = months_of(late) - months_of(early);
        let mut days = late.day() as i32 - early.day() as i32;
        let mut micros = micros_of(late) - micros_of(early);
        if micros < 0 {
            micros += MICROS_A_DAY;
            days -= 1;
        }
        // A month that is borrowed is as long as that of the earlier moment.
        while days < 0 {
            days += i32::from(early.num_days_in_month());
            months -= 1;
        }
        let sign = if is_negative { -1 } else { 1 };
        Self {
            months: months * sign,
            days: days * sign,
            micros: micros * i64::from(sign),
        }
    }

    /// Whole days of 24 hours are days: `justify_hours`.
    pub fn justified_hours(self) -> Option<Self> {
        let Self { months, .. } = self;
        let days = i64::from(self.days) + self.micros / MICROS_A_DAY;
        let (days, micros) = alike(days, self.micros % MICROS_A_DAY, MICROS_A_DAY);
        let days = i32::try_from(days).ok()?;
        Some(Self {
            months,
            days,
            micros,
        })
    }

    /// Whole months of thirty days are months: `justify_days`.
    pub fn justified_days(self) -> Option<Self> {
        let months = i64::from(self.months) + i64::from(self.days / 30);
        let (months, days) = alike(months, i64::from(self.days % 30), 30);
        Some(Self {
            months: i32::try_from(months).ok()?,
            days: i32::try_from(days).ok()?,
            micros: self.micros,
        })
    }

    /// Both, with one sign for all parts: `justify_interval`.
    pub fn justified(self) -> Option<Self> {
        let days = i64::from(self.days) + self.micros / MICROS_A_DAY;
        let mut micros = self.micros % MICROS_A_DAY;
        let mut months = i64::from(self.months) + days / 30;
        let mut days = days % 30;
        if months > 0 && (days < 0 || days == 0 && micros < 0) {
            (months, days) = (months - 1, days + 30);
        } else if months < 0 && (days > 0 || days == 0 && micros > 0) {
            (months, days) = (months + 1, days - 30);
        }
        (days, micros) = alike(days, micros, MICROS_A_DAY);
        Some(Self {
            months: i32::try_from(months).ok()?,
            days: i32::try_from(days).ok()?,
            micros,
        })
    }
}

/// A larger part and a smaller one with the same sign; the larger is so many of the smaller.
fn alike(large: i64, small: i64, size: i64) -> (i64, i64) {
    if large > 0 && small < 0 {
        (large - 1, small + size)
    } else if large < 0 && small > 0 {
        (large + 1, small - size)
    } else {
        (large, small)
    }
}

/// Rounded to six digits, so that the noise of floats does not make 29 days of 30.
fn round_micro(value: f64) -> f64 {
    (value * MICROS_A_SECOND).round() / MICROS_A_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(interval: Interval) -> (i32, i32, i64) {
        (interval.months, interval.days, interval.micros)
    }

    #[test]
    fn every_style_is_read() {
        for (text, expected) in [
            ("90", (0, 0, 90_000_000)),
            ("1 day", (0, 1, 0)),
            ("1day 2h", (0, 1, 7_200_000_000)),
            ("1 year 2 mons 3 days 04:05:06.7", (14, 3, 14_706_700_000)),
            ("-1 days +02:00", (0, -1, 7_200_000_000)),
            ("1-2", (14, 0, 0)),
            ("3 04:05:06", (0, 3, 14_706_000_000)),
            ("P1Y2M3DT4H5M6S", (14, 3, 14_706_000_000)),
            ("@ 1 hour ago", (0, 0, -3_600_000_000)),
            ("1.5 years", (18, 0, 0)),
            ("1.5 months", (1, 15, 0)),
            ("1.5 days", (0, 1, 43_200_000_000)),
            ("2 weeks", (0, 14, 0)),
            ("-00:00:01", (0, 0, -1_000_000)),
        ] {
            assert_eq!(interval(text).map(parts).expect(text), expected);
        }
        for text in ["", "day", "1 apple", "a", "1:99"] {
            let error = interval(text).expect_err(text);
            assert_eq!(error.kind.sqlstate(), "22007", "{text}");
        }
    }

    #[test]
    fn interval_products_carry_downwards() {
        let times = |text: &str, factor: f64| {
            let read = interval(text).expect("reads");
            read.times(factor).map(parts)
        };
        assert_eq!(times("1 day", 2.5), Some((0, 2, 43_200_000_000)));
        assert_eq!(times("1 month", 0.5), Some((0, 15, 0)));
        assert_eq!(times("1 year", 1.0 / 3.0), Some((4, 0, 0)));
        assert_eq!(times("10:00", 0.5), Some((0, 0, 18_000_000_000)));
        assert_eq!(times("1 month", f64::INFINITY), None);
    }

    #[test]
    fn calendars_count_between_moments() {
        let at = |text: &str| text.parse::<NaiveDateTime>().expect("a time");
        for (from, to, age) in [
            ("1957-06-13T00:00:00", "2001-04-10T00:00:00", (525, 27, 0)),
            ("2024-02-29T00:00:00", "2024-03-31T00:00:00", (1, 2, 0)),
            ("2024-03-31T00:00:00", "2024-02-29T00:00:00", (-1, -2, 0)),
            (
                "2024-01-31T12:00:00",
                "2024-03-01T06:00:00",
                (1, 0, 64_800_000_000),
            ),
            (
                "2024-01-01T00:00:00",
                "2024-01-01T00:00:00.5",
                (0, 0, 500_000),
            ),
        ] {
            assert_eq!(
                parts(Interval::between(at(from), at(to))),
                age,
                "{from} {to}"
            );
        }
    }

    #[test]
    fn justify_carries_parts_upwards() {
        let read = |text: &str| interval(text).expect("an interval");
        let hours = |text: &str| read(text).justified_hours().map(parts);
        let days = |text: &str| read(text).justified_days().map(parts);
        let both = |text: &str| read(text).justified().map(parts);
        assert_eq!(hours("27 hours"), Some((0, 1, 10_800_000_000)));
        assert_eq!(hours("1 day -1 hour"), Some((0, 0, 82_800_000_000)));
        assert_eq!(days("35 days"), Some((1, 5, 0)));
        assert_eq!(days("1 month -1 day"), Some((0, 29, 0)));
        assert_eq!(both("1 month -1 hour"), Some((0, 29, 82_800_000_000)));
        assert_eq!(both("-35 days 49 hours"), Some((-1, -2, -82_800_000_000)));
    }
}
