//! When does a date of a crontab come next? One set of numbers per unit; a time matches when each of its numbers is in
//! its set (flux-core: libutil/cronodate.c, behaviour). Pure: the caller says what the local time is.

use flux_formats::idset::IdSet;
use flux_process::LocalTime;
use serde_json::{Map, Value};

/// How far ahead a date is looked for: nobody waits for longer.
const HORIZON_SECS: i64 = 100 * 366 * DAY_SECS;
const DAY_SECS: i64 = 86_400;

/// A unit of time with its name in requests, its first and its last number.
struct Unit {
    name: &'static str,
    first: u32,
    last: u32,
}

const fn unit(name: &'static str, first: u32, last: u32) -> Unit {
    Unit { name, first, last }
}

/// Numbers are those of `struct tm`: months begin with 0, years with 1900, weeks with Sunday (0).
const UNITS: [Unit; 7] = [
    unit("second", 0, 60),
    unit("minute", 0, 59),
    unit("hour", 0, 23),
    unit("mday", 1, 31),
    unit("month", 0, 11),
    unit("year", 0, 1100),
    unit("weekday", 0, 6),
];

const WEEKDAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Why a date cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DateError {
    /// The value is neither a number nor a range.
    #[error("{unit}: '{text}' is no number, range, list or step")]
    Syntax {
        /// The unit.
        unit: &'static str,
        /// The part that cannot be read.
        text: String,
    },
    /// A number outside the unit.
    #[error("{unit}: '{text}' is not in {first}-{last}")]
    Range {
        /// The unit.
        unit: &'static str,
        /// The part with the number.
        text: String,
        /// Smallest number of the unit.
        first: u32,
        /// Largest number of the unit.
        last: u32,
    },
}

/// The sets, in the order of [`UNITS`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CronDate {
    sets: [IdSet; 7],
}

impl CronDate {
    /// Reads the `args` of a `datetime` entry; units that are absent match always.
    ///
    /// # Errors
    /// A value that is no number, list, range or step of its unit.
    pub(super) fn from_json(args: &Map<String, Value>) -> Result<Self, DateError> {
        let mut sets: [IdSet; 7] = std::array::from_fn(|_| IdSet::new());
        for (set, unit) in sets.iter_mut().zip(&UNITS) {
            *set = match args.get(unit.name) {
                None => IdSet::from_range(unit.first, unit.last),
                Some(Value::String(text)) => unit.parse(text)?,
                Some(value) => unit.parse(&value.to_string())?,
            };
        }
        Ok(CronDate { sets })
    }

    /// Returns the sets by unit, as `typedata` shows them.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let names = UNITS.iter().map(|unit| unit.name.to_owned());
        names
            .zip(self.sets.iter().map(|set| Value::from(set.to_string())))
            .collect()
    }

    fn has(&self, at: usize, number: u32) -> bool {
        self.sets.get(at).is_some_and(|set| set.contains(number))
    }

    /// Returns the first matching second after `now`, both since 1970; `None` when there is none within a century.
    pub(super) fn next(&self, now: i64, local: impl Fn(i64) -> LocalTime) -> Option<i64> {
        let mut at = now + 1;
        while at - now <= HORIZON_SECS {
            let time = local(at);
            let in_day = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second);
            let year = u32::try_from(time.year - 1900).unwrap_or(0);
            let day_matches = self.has(5, year)
                && self.has(4, time.month.saturating_sub(1))
                && self.has(3, time.day)
                && self.has(6, time.weekday);
            at = if !day_matches {
                if self.sets[5].last().is_none_or(|last| last < year) {
                    return None;
                }
                next_midnight(at, in_day, time.day, &local)
            } else if !self.has(2, time.hour) {
                at + 3600 - in_day % 3600
            } else if !self.has(1, time.minute) {
                at + 60 - in_day % 60
            } else if !self.has(0, time.second) {
                at + 1
            } else {
                return Some(at);
            };
        }
        None
    }
}

/// Returns the first second of the next day. Days have 23, 24 or 25 hours.
fn next_midnight(at: i64, in_day: i64, day: u32, local: &impl Fn(i64) -> LocalTime) -> i64 {
    let mut next = at + DAY_SECS - in_day;
    let mut time = local(next);
    if time.day == day {
        next += 3600;
        time = local(next);
    }
    next - i64::from(time.hour) * 3600 - i64::from(time.minute) * 60 - i64::from(time.second)
}

impl Unit {
    /// Reads a list of numbers, names, ranges and steps: `1,5-9,*/10,mon-fri`.
    fn parse(&self, text: &str) -> Result<IdSet, DateError> {
        let mut set = IdSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (range, step) = match part.split_once('/') {
                None => (part, 1),
                Some((range, step)) => match step.parse() {
                    Ok(step @ 1..) => (range, step),
                    _ => return Err(self.syntax(part)),
                },
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.first, self.last),
                Some((first, last)) => (self.number(first, part)?, self.number(last, part)?),
                None => {
                    let number = self.number(range, part)?;
                    (number, number)
                }
            };
            if first > last {
                return Err(self.syntax(part));
            }
            set.extend((first..=last).step_by(step));
        }
        if set.is_empty() {
            return Err(self.syntax(text));
        }
        Ok(set)
    }

    fn number(&self, word: &str, part: &str) -> Result<u32, DateError> {
        let names: &[&str] = match self.name {
            "weekday" => &WEEKDAYS,
            "month" => &MONTHS,
            _ => &[],
        };
        let word = word.trim().to_ascii_lowercase();
        let named = || {
            names
                .iter()
                .position(|name| !word.is_empty() && name.starts_with(&word))
        };
        let number = match word.parse::<u32>() {
            Ok(number) => number,
            Err(_) => named()
                .and_then(|at| u32::try_from(at).ok())
                .ok_or_else(|| self.syntax(part))?,
        };
        if (self.first..=self.last).contains(&number) {
            return Ok(number);
        }
        Err(DateError::Range {
            unit: self.name,
            text: part.to_owned(),
            first: self.first,
            last: self.last,
        })
    }

    fn syntax(&self, text: &str) -> DateError {
        DateError::Syntax {
            unit: self.name,
            text: text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn date(args: Value) -> CronDate {
        CronDate::from_json(args.as_object().unwrap()).unwrap()
    }

    /// A zone that is two hours ahead in the second half of the year, like those with summer time.
    fn local(secs: i64) -> LocalTime {
        let (january, _, _) = civil(secs);
        let ahead = (secs - days_of(january, 1, 1) * DAY_SECS) / DAY_SECS >= 180;
        let shifted = secs + if ahead { 7200 } else { 3600 };
        let (year, month, day) = civil(shifted);
        let rest = shifted.rem_euclid(DAY_SECS);
        let number = |n: i64| u32::try_from(n).unwrap();
        LocalTime {
            year,
            month: number(month),
            day: number(day),
            hour: number(rest / 3600),
            minute: number(rest / 60 % 60),
            second: number(rest % 60),
            weekday: number((shifted.div_euclid(DAY_SECS) + 4).rem_euclid(7)),
            yearday: 0,
            offset_secs: 0,
        }
    }

    fn days_of(year: i64, month: i64, day: i64) -> i64 {
        let y = if month <= 2 { year - 1 } else { year };
        let era = y.div_euclid(400);
        let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let yoe = y - era * 400;
        era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
    }

    fn civil(secs: i64) -> (i64, i64, i64) {
        let z = secs.div_euclid(DAY_SECS) + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z - era * 146_097;
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        (
            yoe + era * 400 + i64::from(month <= 2),
            month,
            doy - (153 * mp + 2) / 5 + 1,
        )
    }

    #[test]
    fn every_day_at_three() {
        let date = date(json!({"second": 0, "minute": "0", "hour": "3"}));
        let start = days_of(2026, 1, 1) * DAY_SECS;
        let mut at = start;
        for day in 0..400 {
            at = date.next(at, local).unwrap();
            let time = local(at);
            assert_eq!((time.hour, time.minute, time.second), (3, 0, 0), "day {day}");
        }
        // none was left out or came twice, over the change of the clocks too
        assert!((at - start - 399 * DAY_SECS).abs() < 2 * DAY_SECS);
    }

    #[test]
    fn units_have_names_steps_and_limits() {
        let set = |name: &str, text: &str| {
            let unit = UNITS.iter().find(|unit| unit.name == name).unwrap();
            unit.parse(text)
                .map(|set| set.to_string())
                .map_err(|err| err.to_string())
        };
        assert_eq!(set("weekday", "mon-Friday").unwrap(), "1-5");
        assert_eq!(set("month", "jan,dec").unwrap(), "0,11");
        assert_eq!(set("minute", "*/20").unwrap(), "0,20,40");
        assert_eq!(set("minute", "1-9/4, 30").unwrap(), "1,5,9,30");
        assert_eq!(set("minute", "60").unwrap_err(), "minute: '60' is not in 0-59");
        assert_eq!(set("mday", "0").unwrap_err(), "mday: '0' is not in 1-31");
        for bad in ["", "x", "1-", "-3", "1/0", "*/x", "9-1", "mon"] {
            assert!(set("hour", bad).unwrap_err().starts_with("hour: "), "{bad}");
        }
    }

    #[test]
    fn a_date_that_never_comes() {
        assert_eq!(date(json!({"mday": 31, "month": 1})).next(0, local), None);
        assert_eq!(
            date(json!({"year": 99})).next(days_of(2026, 1, 1) * DAY_SECS, local),
            None
        );
    }

    #[test]
    fn shown_as_sets() {
        let shown = date(json!({"minute": "*/30", "hour": 4})).to_json();
        assert_eq!(shown["minute"], "0,30");
        assert_eq!(shown["hour"], "4");
        assert_eq!(shown["weekday"], "0-6");
    }

    proptest! {
        /// The next match is what trying every second finds.
        #[test]
        fn same_as_trying_every_second(start in 0i64..4_000_000_000, second in 0u32..60, minute in 0u32..60, hour in 0u32..4) {
            let date = date(json!({"second": second, "minute": format!("{minute}-59"), "hour": format!("{hour}-23")}));
            let slow = (start + 1..).find(|at| {
                let time = local(*at);
                time.second == second && time.minute >= minute && time.hour >= hour
            });
            prop_assert_eq!(date.next(start, local), slow);
        }
    }
}
