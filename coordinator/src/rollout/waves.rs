//! `["1", "25%", "100%"]` to the servers that each wave reaches: cumulative targets over the membership.

use std::str::FromStr;

/// How many servers the rollout has reached when a wave is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Count(u32),
    Percent(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWaves {
    #[error("wave {given:?} is neither a number of servers, as 2, nor a percentage, as 25%")]
    Unreadable { given: String },
    #[error("wave {given:?} reaches no server; the least is 1 or 1%")]
    Zero { given: String },
    #[error("wave {given:?} is more than all servers; the most is 100%")]
    TooMuch { given: String },
    #[error("waves are cumulative and must grow: {next} comes after {previous}")]
    Shrinks { previous: String, next: String },
    #[error(
        "the waves do not add up: the last one reaches {reached} of {members} servers; end with 100% or more servers"
    )]
    DoesNotAddUp { reached: u32, members: u32 },
    #[error("no server matches")]
    NoServer,
}

impl FromStr for Target {
    type Err = InvalidWaves;

    fn from_str(text: &str) -> Result<Self, InvalidWaves> {
        let given = || text.chars().take(40).collect::<String>();
        let (digits, percent) = match text.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidWaves::Unreadable { given: given() });
        }
        let number: u32 = digits.parse().map_err(|_| InvalidWaves::TooMuch { given: given() })?;
        match (number, percent) {
            (0, _) => Err(InvalidWaves::Zero { given: given() }),
            (101.., true) => Err(InvalidWaves::TooMuch { given: given() }),
            (_, true) => Ok(Self::Percent(number)),
            (_, false) => Ok(Self::Count(number)),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Target {
    /// Servers of `members`: a part of a server is a server, and there are never more than there are.
    pub fn of(self, members: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(members),
            Self::Percent(percent) => {
                let exact = u64::from(members) * u64::from(percent);
                u32::try_from(exact.div_ceil(100)).unwrap_or(members).max(1)
            }
        }
    }
}

/// The servers that are reached when each wave is done; strictly growing, the last is `members`.
///
/// No target means one wave of all. One target alone is the size of every wave: `25%` is four waves. A wave that adds
/// no server, because the fleet is smaller than its author thought, is left out.
pub fn cumulative(targets: &[Target], members: u32) -> Result<Vec<u32>, InvalidWaves> {
    if members == 0 {
        return Err(InvalidWaves::NoServer);
    }
    let reached: Vec<u32> = match targets {
        [] => vec![members],
        [Target::Percent(percent)] => {
            let waves = 100_u32.div_ceil(*percent);
            (1..=waves).map(|wave| Target::Percent((wave * percent).min(100)).of(members)).collect()
        }
        [Target::Count(count)] => {
            let waves = members.div_ceil(*count);
            (1..=waves).map(|wave| wave.saturating_mul(*count).min(members)).collect()
        }
        several => {
            for (previous, next) in several.iter().zip(several.iter().skip(1)) {
                refuse_shrinking(*previous, *next)?;
            }
            several.iter().map(|target| target.of(members)).collect()
        }
    };
    let mut growing: Vec<u32> = Vec::with_capacity(reached.len());
    for target in reached {
        if growing.last().is_none_or(|last| *last < target) {
            growing.push(target);
        }
    }
    match growing.last() {
        Some(last) if *last == members => Ok(growing),
        last => Err(InvalidWaves::DoesNotAddUp { reached: last.copied().unwrap_or(0), members }),
    }
}

/// Two counts or two percentages that do not grow are a mistake on any fleet; a count next to a percentage is not.
fn refuse_shrinking(previous: Target, next: Target) -> Result<(), InvalidWaves> {
    let grows = match (previous, next) {
        (Target::Count(a), Target::Count(b)) | (Target::Percent(a), Target::Percent(b)) => a < b,
        (Target::Count(_), Target::Percent(_)) | (Target::Percent(_), Target::Count(_)) => true,
    };
    if grows {
        return Ok(());
    }
    Err(InvalidWaves::Shrinks { previous: previous.to_string(), next: next.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(targets: &[&str], members: u32) -> Result<Vec<u32>, InvalidWaves> {
        let targets: Result<Vec<Target>, _> = targets.iter().map(|text| text.parse()).collect();
        cumulative(&targets?, members)
    }

    #[test]
    fn targets_are_cumulative_and_round_up() {
        assert_eq!(waves(&["1", "25%", "100%"], 10), Ok(vec![1, 3, 10]));
        assert_eq!(waves(&[], 7), Ok(vec![7]));
        assert_eq!(waves(&["1", "3", "100%"], 3), Ok(vec![1, 3]));
        assert_eq!(waves(&["1", "5"], 3), Ok(vec![1, 3]));
    }

    #[test]
    fn one_target_alone_is_the_size_of_every_wave() {
        assert_eq!(waves(&["25%"], 8), Ok(vec![2, 4, 6, 8]));
        assert_eq!(waves(&["25%"], 3), Ok(vec![1, 2, 3]));
        assert_eq!(waves(&["30%"], 10), Ok(vec![3, 6, 9, 10]));
        assert_eq!(waves(&["2"], 5), Ok(vec![2, 4, 5]));
        assert_eq!(waves(&["100%"], 5), Ok(vec![5]));
    }

    #[test]
    fn a_wave_that_adds_nothing_on_a_small_fleet_is_left_out() {
        assert_eq!(waves(&["1", "10%", "50%", "100%"], 2), Ok(vec![1, 2]));
        assert_eq!(waves(&["5", "10%", "100%"], 10), Ok(vec![5, 10]));
    }

    #[test]
    fn refusals_have_names() {
        use InvalidWaves::*;
        assert!(matches!(waves(&["1", "50%"], 10), Err(DoesNotAddUp { reached: 5, members: 10 })));
        assert!(matches!(waves(&["0%"], 10), Err(Zero { .. })));
        assert!(matches!(waves(&["0"], 10), Err(Zero { .. })));
        assert!(matches!(waves(&["101%"], 10), Err(TooMuch { .. })));
        assert!(matches!(waves(&["99999999999"], 10), Err(TooMuch { .. })));
        assert!(matches!(waves(&["50%", "25%", "100%"], 10), Err(Shrinks { .. })));
        assert!(matches!(waves(&["1"], 0), Err(NoServer)));
        for unreadable in ["", "%", "-1", "+1", "1.5", "25 %", "all", "\u{1b}[2J"] {
            assert!(matches!(waves(&[unreadable], 10), Err(Unreadable { .. })), "{unreadable:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn planned_waves_grow_strictly_and_reach_everyone(
            texts in proptest::collection::vec("[0-9]{1,3}%?", 0..6),
            members in 0_u32..300,
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            if let Ok(planned) = waves(&texts, members) {
                proptest::prop_assert!(planned.first().is_some_and(|first| *first >= 1));
                proptest::prop_assert!(planned.windows(2).all(|pair| pair[0] < pair[1]));
                proptest::prop_assert_eq!(planned.last(), Some(&members));
            }
        }
    }
}
