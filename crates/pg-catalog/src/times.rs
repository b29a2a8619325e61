//! Times: their parts, and what they are elsewhere.

use chrono::{DateTime, Duration, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast as sql;
use postgres_types::Type;

use super::expr::{Expr, unsupported};
use super::types::sql_type_name;
use super::value::{Value, ValueType};
use starkeep_error::{Error, ErrorKind};

/// `time AT TIME ZONE 'zone'`: an instant as that zone's clocks show it, or what its clocks show as
/// an instant.
pub(super) fn at_time_zone(time: Expr, zone: &Expr) -> Result<Expr, Error> {
    let Some(name) = zone.literal.as_deref() else {
        return Err(unsupported("AT TIME ZONE of something else than a literal"));
    };
    // As zones these have a summer time; as PostgreSQL's abbreviations they have none.
    if ["CET", "EET", "MET", "WET"]
        .iter()
        .any(|short| short.eq_ignore_ascii_case(name))
    {
        return Err(unsupported(format_args!("AT TIME ZONE '{name}'")));
    }
    let zone = Tz::from_str_insensitive(name).map_err(|_| {
        Error::new(
            ErrorKind::InvalidParameter,
            format!("time zone \"{name}\" not recognized"),
        )
    })?;
    let is_instant = match time.ty.pg {
        Type::TIMESTAMPTZ => true,
        Type::TIMESTAMP => false,
        ref other => {
            return Err(unsupported(format_args!(
                "AT TIME ZONE of {}",
                sql_type_name(other)
            )));
        }
    };
    let ty = ValueType::of(if is_instant {
        Type::TIMESTAMP
    } else {
        Type::TIMESTAMPTZ
    });
    let eval = time.eval;
    Ok(Expr::new(ty, move |env| {
        let Value::Time(micros) = eval(env)? else {
            return Ok(Value::Null);
        };
        let moved = DateTime::from_timestamp_micros(micros).and_then(|utc| {
            let clock = utc.naive_utc();
            let offset = if is_instant {
                seconds_ahead(zone.offset_from_utc_datetime(&clock))
            } else {
                -ahead_of_clock(zone, clock)?
            };
            micros.checked_add(offset * 1_000_000)
        });
        moved.map(Value::Time).ok_or_else(out_of_range)
    }))
}

fn seconds_ahead(offset: impl Offset) -> i64 {
    offset.fix().local_minus_utc().into()
}

/// How far a zone is ahead when its clocks show this: where they show it twice, the second time;
/// where they leap over it, as before the leap.
fn ahead_of_clock(zone: Tz, clock: NaiveDateTime) -> Option<i64> {
    let offset = zone
        .offset_from_local_datetime(&clock)
        .latest()
        .or_else(|| {
            let before = clock.checked_sub_signed(Duration::hours(3))?;
            zone.offset_from_local_datetime(&before).latest()
        });
    offset.map(seconds_ahead)
}

pub(super) fn out_of_range() -> Error {
    Error::new(ErrorKind::DateTimeOverflow, "timestamp out of range")
}

/// How a part of a time in microseconds is told.
pub(super) fn part_of_time(field: &sql::DateTimeField) -> Option<fn(i64) -> Option<f64>> {
    use chrono::{Datelike, Timelike};
    use sql::DateTimeField as F;
    Some(match field {
        F::Epoch => |t| Some(t as f64 / 1e6),
        F::Year | F::Years => |t| DateTime::from_timestamp_micros(t).map(|t| t.year().into()),
        F::Month | F::Months => |t| DateTime::from_timestamp_micros(t).map(|t| t.month().into()),
        F::Day | F::Days => |t| DateTime::from_timestamp_micros(t).map(|t| t.day().into()),
        F::Hour | F::Hours => |t| DateTime::from_timestamp_micros(t).map(|t| t.hour().into()),
        F::Minute | F::Minutes => |t| DateTime::from_timestamp_micros(t).map(|t| t.minute().into()),
        F::Second | F::Seconds => {
            |t| DateTime::from_timestamp_micros(t).map(|_| (t.rem_euclid(60_000_000)) as f64 / 1e6)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_local_times_match_postgresql() {
        let hours = |text: &str| {
            ahead_of_clock(Tz::Europe__Berlin, text.parse().expect("a time")).map(|s| s / 3600)
        };
        assert_eq!(hours("2024-03-31T01:59:59"), Some(1));
        assert_eq!(hours("2024-03-31T02:30:00"), Some(1));
        assert_eq!(hours("2024-03-31T03:00:00"), Some(2));
        assert_eq!(hours("2024-10-27T02:30:00"), Some(1));
    }
}
