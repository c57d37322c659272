//! Windows in which nothing begins by itself. Pure: the time is a parameter, and the rules of time zones are jiff's.
//!
//! Local times that a clock change makes ambiguous freeze the longer time: a window's beginning that comes twice, or never,
//! is the earlier of the two moments that it can mean, its end the later one.

use std::{collections::BTreeSet, fmt};

use consign_common::time::UnixMs;
use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time},
    tz::{Disambiguation, TimeZone},
};
use serde::{Deserialize, Serialize};

/// Windows that follow each other without a gap are one freeze; looked at this often. Whoever froze more of them froze
/// for ever.
const FOLLOWED: usize = 1000;
const TEXT_BYTES: usize = 100;

/// As a person wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Of a window of every week, the days on which it begins; empty: it is one window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    pub from: String,
    pub to: String,
    /// As `Europe/Berlin`; of times that carry no offset themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

/// The same, read.
#[derive(Clone, Debug)]
pub enum Window {
    Once { from: Timestamp, to: Timestamp },
    Weekly { days: BTreeSet<i8>, from: Time, to: End, zone: TimeZone },
}

/// When a window of every week ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// On the day on which it began.
    SameDay(Time),
    /// `24:00` is midnight.
    NextDay(Time),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFreeze {
    #[error("{given:?} is no day of the week: mon, tue, wed, thu, fri, sat, sun")]
    Day { given: String },
    #[error("{given:?} is no time of day, as \"16:00\"; a window may end at \"24:00\"")]
    TimeOfDay { given: String },
    #[error(
        "{given:?} is no moment: 2026-12-24T00:00:00Z, or 2026-12-24T00:00 with `timezone = \"Europe/Berlin\"`"
    )]
    Moment { given: String },
    #[error("{given:?} is no time zone, as \"Europe/Berlin\" or \"UTC\"")]
    Zone { given: String },
    #[error("{given:?} needs a `timezone`, as \"Europe/Berlin\" or \"UTC\"")]
    NoZone { given: String },
    #[error("{given:?} says its offset itself, so that `timezone` has no meaning")]
    ZoneUnused { given: String },
    #[error("it ends at {to}, not after it begins at {from}")]
    Empty { from: String, to: String },
}

/// Which of a window's fields is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// With the index of the day.
    Days(usize),
    From,
    To,
    Timezone,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Misplaced {
    pub field: Field,
    pub why: InvalidFreeze,
}

/// In the order of [`jiff::civil::Weekday::to_monday_zero_offset`].
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Freeze {
    /// What it means.
    pub fn window(&self) -> Result<Window, Misplaced> {
        let zone = match &self.timezone {
            None => None,
            Some(name) => Some(zone(name).map_err(at(Field::Timezone))?),
        };
        if self.days.is_empty() { self.once(zone) } else { self.weekly(zone) }
    }

    fn once(&self, zone: Option<TimeZone>) -> Result<Window, Misplaced> {
        let zone = zone.as_ref();
        let from = moment(&self.from, zone, Disambiguation::Earlier).map_err(at(Field::From))?;
        let to = moment(&self.to, zone, Disambiguation::Later).map_err(at(Field::To))?;
        if to <= from {
            return Err(at(Field::To)(InvalidFreeze::Empty { from: from.to_string(), to: to.to_string() }));
        }
        Ok(Window::Once { from, to })
    }

    fn weekly(&self, zone: Option<TimeZone>) -> Result<Window, Misplaced> {
        let mut days = BTreeSet::new();
        for (index, day) in self.days.iter().enumerate() {
            let place = DAYS.iter().zip(0i8..).find(|(name, _)| *name == day);
            let unknown = || at(Field::Days(index))(InvalidFreeze::Day { given: cut(day) });
            days.insert(place.map(|(_, place)| place).ok_or_else(unknown)?);
        }
        let from = time_of_day(&self.from).map_err(at(Field::From))?;
        let to = match self.to.as_str() {
            "24:00" => End::NextDay(Time::midnight()),
            text => match time_of_day(text).map_err(at(Field::To))? {
                to if to > from => End::SameDay(to),
                to if to < from => End::NextDay(to),
                _ => {
                    let (from, to) = (self.from.clone(), self.to.clone());
                    return Err(at(Field::To)(InvalidFreeze::Empty { from, to }));
                }
            },
        };
        let none = || at(Field::From)(InvalidFreeze::NoZone { given: self.from.clone() });
        Ok(Window::Weekly { days, from, to, zone: zone.ok_or_else(none)? })
    }
}

impl Window {
    /// When the window that `now` lies in ends; `None` where it lies in none.
    fn end_at(&self, now: Timestamp) -> Option<Timestamp> {
        let within = |from: Timestamp, to: Timestamp| (from <= now && now < to).then_some(to);
        match self {
            Self::Once { from, to } => within(*from, *to),
            Self::Weekly { days, from, to, zone } => {
                let today = now.to_zoned_datetime(zone.clone()).date();
                // One that began the day before may last over midnight.
                [today.yesterday().ok(), Some(today)]
                    .into_iter()
                    .flatten()
                    .filter(|day| days.contains(&day.weekday().to_monday_zero_offset()))
                    .filter_map(|day| span_of(day, *from, *to, zone))
                    .filter_map(|(from, to)| within(from, to))
                    .max()
            }
        }
    }
}

/// When the freeze ends that `now` lies in, over all windows that follow each other; `None`: nothing is frozen.
pub fn frozen_until(windows: &[Window], now: UnixMs) -> Option<UnixMs> {
    let begin = Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()?;
    let mut end = begin;
    for _ in 0..FOLLOWED {
        match windows.iter().filter_map(|window| window.end_at(end)).max() {
            Some(later) => end = later,
            None => break,
        }
    }
    (end > begin).then(|| UnixMs(u64::try_from(end.as_millisecond()).unwrap_or(0)))
}

/// The one that begins on that day.
fn span_of(day: Date, from: Time, to: End, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let to = match to {
        End::SameDay(time) => day.to_datetime(time),
        End::NextDay(time) => day.tomorrow().ok()?.to_datetime(time),
    };
    let from = resolve(day.to_datetime(from), zone, Disambiguation::Earlier)?;
    Some((from, resolve(to, zone, Disambiguation::Later)?))
}

fn resolve(local: DateTime, zone: &TimeZone, which: Disambiguation) -> Option<Timestamp> {
    zone.to_ambiguous_zoned_datetime(local).disambiguate(which).ok().map(|zoned| zoned.timestamp())
}

fn moment(text: &str, zone: Option<&TimeZone>, which: Disambiguation) -> Result<Timestamp, InvalidFreeze> {
    let bad = || InvalidFreeze::Moment { given: cut(text) };
    if text.len() > TEXT_BYTES {
        return Err(bad());
    }
    match (text.parse::<Timestamp>(), zone) {
        (Ok(at), None) => Ok(at),
        (Ok(_), Some(_)) => Err(InvalidFreeze::ZoneUnused { given: cut(text) }),
        (Err(_), zone) => {
            let local: DateTime = text.parse().map_err(|_| bad())?;
            let zone = zone.ok_or_else(|| InvalidFreeze::NoZone { given: cut(text) })?;
            resolve(local, zone, which).ok_or_else(bad)
        }
    }
}

fn time_of_day(text: &str) -> Result<Time, InvalidFreeze> {
    let bad = || InvalidFreeze::TimeOfDay { given: cut(text) };
    let (hour, minute) = text.split_once(':').ok_or_else(bad)?;
    let digits = |text: &&str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| Some(text).filter(digits).and_then(|text| text.parse::<i8>().ok());
    match (number(hour), number(minute)) {
        (Some(hour), Some(minute)) => Time::new(hour, minute, 0, 0).map_err(|_| bad()),
        (Some(_) | None, _) => Err(bad()),
    }
}

fn zone(name: &str) -> Result<TimeZone, InvalidFreeze> {
    TimeZone::get(name).map_err(|_| InvalidFreeze::Zone { given: cut(name) })
}

fn at(field: Field) -> impl Fn(InvalidFreeze) -> Misplaced {
    move |why| Misplaced { field, why }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// As the file has it.
impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ ")?;
        if !self.days.is_empty() {
            write!(f, "days = {:?}, ", self.days)?;
        }
        write!(f, "from = {:?}, to = {:?}", self.from, self.to)?;
        if let Some(timezone) = &self.timezone {
            write!(f, ", timezone = {timezone:?}")?;
        }
        f.write_str(" }")
    }
}

#[cfg(test)]
#[path = "freeze_tests.rs"]
mod tests;
