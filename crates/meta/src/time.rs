//! The forms in which the API prints times and durations, and Go's words for what is not one.

use std::fmt::Write as _;

use jiff::Timestamp;

/// A time as `metav1.Time` prints it: RFC 3339, UTC, whole seconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time as `metav1.MicroTime` prints it: RFC 3339, UTC, six decimals.
pub fn rfc3339_micro(time: Timestamp) -> String {
    let micros = time.subsec_microsecond();
    format!("{}.{micros:06}Z", time.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// Reads RFC 3339 with any offset and any number of decimals.
///
/// # Errors
/// Go's text.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    parse_go(text, "2006-01-02T15:04:05Z07:00")
}

/// The printed form of any RFC 3339 time.
///
/// # Errors
/// Go's text.
pub fn normalize(text: &str) -> Result<String, String> {
    // The usual form needs no calendar.
    parse(text).map(rfc3339)
}

/// The printed form of any RFC 3339 time, in microseconds.
///
/// # Errors
/// Go's text.
pub fn normalize_micro(text: &str) -> Result<String, String> {
    parse_go(text, "2006-01-02T15:04:05.000000Z07:00").map(rfc3339_micro)
}

/// The printed form of a Go duration such as `90m`.
///
/// # Errors
/// Go's text.
pub fn normalize_duration(text: &str) -> Result<String, String> {
    parse_duration(text).map(print_duration)
}

/// Walks Go's layout over the text, so that errors name the element Go would name.
fn parse_go(text: &str, layout: &'static str) -> Result<Timestamp, String> {
    let mut rest = text;
    let fail = |rest: &str, element: &str| {
        Err(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"))
    };
    let range = |what: &str| Err(format!("parsing time {text:?}: {what} out of range"));
    let mut numbers = [0_i64; 6];
    let elements = [
        ("2006", 4, "-"),
        ("01", 2, "-"),
        ("02", 2, "T"),
        ("15", 2, ":"),
        ("04", 2, ":"),
        ("05", 2, ""),
    ];
    for (slot, (element, digits, separator)) in numbers.iter_mut().zip(elements) {
        let Some(number) = rest.get(..digits).filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        else {
            return fail(rest, element);
        };
        *slot = number.parse().unwrap_or(0);
        rest = &rest[digits..];
        if element == "01" && !(1..=12).contains(slot) {
            return range("month");
        }
        if (element == "15" && *slot > 23) || (matches!(element, "04" | "05") && *slot > 59) {
            return range(match element {
                "15" => "hour",
                "04" => "minute",
                _ => "second",
            });
        }
        match rest.strip_prefix(separator) {
            Some(after) => rest = after,
            None => return fail(rest, separator),
        }
    }
    let mut nanos = 0_i64;
    let wants_micros = layout.contains('.');
    if wants_micros && !has_micros(rest) {
        return fail(rest, ".000000");
    }
    if let Some(after) = rest.strip_prefix(['.', ',']) {
        let len = after.bytes().take_while(u8::is_ascii_digit).count();
        let len = if wants_micros { MICROS } else { len };
        if len > 0 {
            let kept = &after[..len.min(9)];
            let scale = 10_i64.pow(u32::try_from(9 - kept.len()).unwrap_or(0));
            nanos = kept.parse::<i64>().unwrap_or(0) * scale;
            rest = &after[len..];
        }
    }
    let offset = if let Some(after) = rest.strip_prefix('Z') {
        rest = after;
        0
    } else {
        let parsed = parse_offset(rest);
        let Some(offset) = parsed else { return fail(rest, "Z07:00") };
        rest = &rest[6..];
        offset
    };
    if !rest.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {rest:?}"));
    }
    to_timestamp(numbers, nanos, offset).map_or_else(|| range("day"), Ok)
}

/// Digits of a fraction in microseconds.
const MICROS: usize = 6;

/// Whether a text starts with a fraction in microseconds.
fn has_micros(text: &str) -> bool {
    text.strip_prefix(['.', ','])
        .and_then(|after| after.get(..MICROS))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn parse_offset(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let sign = match bytes.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    if bytes.get(3) != Some(&b':') {
        return None;
    }
    let number = |at: std::ops::Range<usize>| {
        text.get(at).filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok()
    };
    let (hours, minutes) = (number(1..3)?, number(4..6)?);
    (hours <= 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn to_timestamp(numbers: [i64; 6], nanos: i64, offset: i64) -> Option<Timestamp> {
    let [year, month, day, hour, minute, second] = numbers;
    let small = |number: i64| i8::try_from(number).ok();
    let datetime = jiff::civil::DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        small(second)?,
        i32::try_from(nanos).ok()?,
    )
    .ok()?;
    let offset = jiff::tz::Offset::from_seconds(i32::try_from(offset).ok()?).ok()?;
    offset.to_timestamp(datetime).ok()
}

/// Reads a Go duration: nanoseconds.
///
/// # Errors
/// Go's text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let whole = rest.bytes().take_while(u8::is_ascii_digit).count();
        let fraction = rest[whole..]
            .strip_prefix('.')
            .map_or(0, |after| 1 + after.bytes().take_while(u8::is_ascii_digit).count());
        if whole == 0 && fraction <= 1 {
            return Err(invalid());
        }
        let number = &rest[..whole + fraction];
        rest = &rest[whole + fraction..];
        let unit = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(unit);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: i128 =
            if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total += whole.checked_mul(scale).ok_or_else(invalid)?;
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let digits = u32::try_from(fraction.len()).unwrap_or(0);
            total += fraction.parse::<i128>().map_err(|_| invalid())? * scale / 10_i128.pow(digits);
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// Prints nanoseconds as Go prints a duration: `1h0m0s`, `1.5s`, `100ms`.
pub fn print_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    let decimal = |value: u64, unit: u64| {
        let (whole, part) = (value / unit, value % unit);
        if part == 0 {
            return whole.to_string();
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{part:0width$}");
        format!("{whole}.{}", digits.trim_end_matches('0'))
    };
    if total < 1_000 {
        return format!("{sign}{total}ns");
    }
    if total < 1_000_000 {
        return format!("{sign}{}µs", decimal(total, 1_000));
    }
    if total < 1_000_000_000 {
        return format!("{sign}{}ms", decimal(total, 1_000_000));
    }
    let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000 % 60);
    let mut out = sign.to_owned();
    if hours > 0 {
        let _ = write!(out, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(out, "{minutes}m");
    }
    out + &decimal(total % 60_000_000_000, 1_000_000_000) + "s"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_normalised_to_utc() {
        for (text, expected) in [
            ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
            ("2024-01-02T03:04:05.999Z", "2024-01-02T03:04:05Z"),
            ("2024-01-02T03:04:05+02:00", "2024-01-02T01:04:05Z"),
        ] {
            assert_eq!(normalize(text).unwrap(), expected);
        }
        assert_eq!(
            normalize_micro("2024-01-02T05:04:05.123456+02:00").unwrap(),
            "2024-01-02T03:04:05.123456Z"
        );
    }

    #[test]
    fn what_is_no_time_is_named_in_go_words() {
        assert_eq!(
            normalize("x").unwrap_err(),
            r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#
        );
        assert_eq!(
            normalize("2024-01-02").unwrap_err(),
            r#"parsing time "2024-01-02" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#
        );
        assert_eq!(
            normalize("2024-13-02T00:00:00Z").unwrap_err(),
            r#"parsing time "2024-13-02T00:00:00Z": month out of range"#
        );
        for (text, found, element) in [
            ("2024-01-02T03:04:05.5Z", ".5Z", ".000000"),
            ("2024-01-02T03:04:05Z", "Z", ".000000"),
            ("2024-01-02T03:04:05.123456789Z", "789Z", "Z07:00"),
        ] {
            let expected = format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \
                 {found:?} as {element:?}"
            );
            assert_eq!(normalize_micro(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn durations_are_read_and_printed_as_go_does() {
        for (text, expected) in [
            ("60m", "1h0m0s"),
            ("1.5s", "1.5s"),
            ("100ms", "100ms"),
            ("0", "0s"),
            ("-90s", "-1m30s"),
        ] {
            assert_eq!(normalize_duration(text).unwrap(), expected);
        }
        assert!(normalize_duration("5").unwrap_err().contains("missing unit"));
    }
}
