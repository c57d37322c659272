//! `--at TIME`: an instant, a time of today, or a span from now.

use consign_common::{document::duration, time::UnixMs};
use jiff::{Timestamp, ToSpan as _, ZonedDateTime, civil::Time};

/// As it was written; what it means depends on when and where it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Instant(Timestamp),
    /// Today, by the clock on the wall.
    Today(Time),
    /// Milliseconds from now.
    In(i64),
}

pub(super) fn parse_at(text: &str) -> Result<At, String> {
    const RULE: &str = "a time is written 2026-03-01T04:00:00Z (or with an offset as +01:00), 14:30 or +30m";
    if let Some(span) = text.strip_prefix('+') {
        let span = duration(span)?;
        return i64::try_from(span.as_millis()).map(At::In).map_err(|_| RULE.to_owned());
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(At::Instant(instant));
    }
    let is_time =
        matches!(text.len(), 5 | 8) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    if is_time && let Ok(time) = text.parse::<Time>() {
        return Ok(At::Today(time));
    }
    Err(RULE.to_owned())
}

impl At {
    /// A time that has passed is an error, and not "at once": whoever wrote it meant something else.
    pub(super) fn resolve(self, now: &ZonedDateTime) -> Result<UnixMs, String> {
        const FAR: &str = "that time is too far away";
        let at = match self {
            Self::Instant(at) => at,
            Self::In(milliseconds) => {
                now.timestamp().checked_add(milliseconds.milliseconds()).map_err(|_| FAR)?
            }
            Self::Today(time) => {
                let today = now.date().to_datetime(time).to_zoned_datetime(now.time_zone().clone());
                today.map_err(|_| "there is no such time today")?.timestamp()
            }
        };
        if at < now.timestamp() {
            let tomorrow = matches!(self, Self::Today(_)).then_some("; for tomorrow, write the date too");
            return Err(format!("{at} has passed{}", tomorrow.unwrap_or_default()));
        }
        u64::try_from(at.as_millisecond()).map(UnixMs).map_err(|_| FAR.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<u64, String> {
        let now: ZonedDateTime = "2026-03-01T12:00:00+01:00[+01:00]".parse().unwrap();
        parse_at(text)?
            .resolve(&now)
            .map(|at| at.0 - u64::try_from(now.timestamp().as_millisecond()).unwrap())
    }

    #[test]
    fn a_time_is_an_instant_a_clock_on_the_wall_or_a_span() {
        assert_eq!(at("2026-03-01T11:30:00Z"), Ok(30 * 60_000));
        assert_eq!(at("2026-03-01T12:30:00+01:00"), Ok(30 * 60_000));
        assert_eq!(at("14:30"), Ok(150 * 60_000));
        assert_eq!(at("+30m"), Ok(30 * 60_000));
    }

    #[test]
    fn what_has_passed_or_cannot_be_read_is_refused() {
        assert!(at("2026-03-01T10:30:00Z").unwrap_err().contains("has passed"));
        assert!(at("11:30").unwrap_err().contains("tomorrow"));
        for bad in
            ["", "now", "25:00", "14", "+", "+5", "-5m", "+0s", "2026-03-01", "2026-03-01T04:00:00", "1430"]
        {
            assert!(parse_at(bad).is_err(), "{bad:?}");
        }
    }
}
