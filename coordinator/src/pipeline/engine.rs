//! One look at one app in one environment.

use std::fmt;

use consign_common::{
    name::{Environment, Id, Platform, Version},
    time::UnixMs,
    trust::OrderingNumber,
};

use crate::environments::{Deploy, Keep, Window, frozen_until};

/// What the environment asks of those that begin by themselves.
#[derive(Clone, Debug)]
pub struct Rules {
    pub deploy: Deploy,
    pub keep: Keep,
    pub windows: Vec<Window>,
    /// Zero: nobody is asked.
    pub veto_ms: u64,
}

/// All that is known of an app there.
#[derive(Clone, Debug)]
pub struct Situation {
    pub now: UnixMs,
    pub root_expires: UnixMs,
    /// Why agents are ahead of this coordinator.
    pub behind: Option<String>,
    /// Why nothing begins by itself.
    pub hold: Option<String>,
    /// The rollout that has the environment, or waits for it already.
    pub busy: Option<(Id, Version)>,
    /// What servers have taken, the highest there is.
    pub taken: OrderingNumber,
    /// Candidates that have begun.
    pub started: Vec<Started>,
    /// Those that wait.
    pub waiting: Vec<Candidate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub published: OrderingNumber,
    pub version: Version,
    pub platform: Option<Platform>,
}

/// One that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub number: i64,
    pub version: Version,
    pub platform: Option<Platform>,
    pub published: OrderingNumber,
    /// When it became one.
    pub since: UnixMs,
    pub origin: Origin,
    pub gate: GateState,
    pub ordered_by: OrderedBy,
    /// Why it was not let through when it was to begin.
    pub refused: Option<String>,
}

/// What made it a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Published,
    /// A rollout of it there succeeded.
    Green(Environment),
}

/// The gate's word, given by the function that agents decide with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateState {
    Met,
    /// What is missing, in one line.
    Missing(String),
}

/// What a deployment is ordered by in time, as the gate has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderedBy {
    Publication,
    /// It is signed when it goes there, so an artifact that was built earlier may go later.
    Approval,
}

/// What becomes of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Start,
    Waits(Wait),
    Superseded(Superseded),
}

/// What it waits for. Where it waits for several things, the one that a person does most about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    RootExpired {
        at: UnixMs,
    },
    Behind {
        why: String,
    },
    /// Nothing begins by itself there any more.
    Manual,
    /// It was published when that was enough, and now it is not.
    Green {
        environment: Environment,
    },
    /// It was green somewhere, and now it is to be asked for elsewhere.
    Published,
    Hold {
        because: String,
    },
    Gate {
        missing: String,
    },
    Veto {
        until: UnixMs,
    },
    Freeze {
        until: UnixMs,
    },
    Rollout {
        id: Id,
        version: Version,
    },
    /// Another candidate begins first.
    Turn {
        version: Version,
    },
    Refused {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Superseded {
    /// A newer one is a candidate too, and only the newest waits.
    Newer { version: Version },
    /// Servers have taken something that was signed for later, and would refuse it.
    Overtaken,
}

/// Of every candidate that waits, oldest publication first: its number and what becomes of it. At most one begins.
pub fn judge(rules: &Rules, situation: &Situation) -> Vec<(i64, Verdict)> {
    let mut waiting: Vec<&Candidate> = situation.waiting.iter().collect();
    waiting.sort_by_key(|candidate| (candidate.published, candidate.number));
    let mut first: Option<&Version> = None;
    let mut verdicts = Vec::new();
    for candidate in waiting {
        let verdict = match superseded(rules, situation, candidate) {
            Some(by) => Verdict::Superseded(by),
            None => match waits_for(rules, situation, candidate) {
                Some(wait) => Verdict::Waits(wait),
                None => match first {
                    Some(version) => Verdict::Waits(Wait::Turn { version: version.clone() }),
                    None => {
                        first = Some(&candidate.version);
                        Verdict::Start
                    }
                },
            },
        };
        verdicts.push((candidate.number, verdict));
    }
    verdicts
}

/// Whether something newer has taken its place. A platform is superseded by its own only.
fn superseded(rules: &Rules, situation: &Situation, candidate: &Candidate) -> Option<Superseded> {
    let waiting = situation.waiting.iter().map(|other| (&other.platform, other.published, &other.version));
    let started = situation.started.iter().map(|other| (&other.platform, other.published, &other.version));
    let newer = |(platform, published, _): &(&Option<Platform>, OrderingNumber, &Version)| {
        **platform == candidate.platform && *published > candidate.published
    };
    match (rules.keep, candidate.ordered_by) {
        (Keep::Newest, _) => {
            let newest = waiting.chain(started).filter(newer).max_by_key(|(_, published, _)| *published);
            newest.map(|(_, _, version)| Superseded::Newer { version: version.clone() })
        }
        (Keep::All, OrderedBy::Publication) => {
            let overtaken =
                situation.taken > candidate.published || started.into_iter().any(|other| newer(&other));
            overtaken.then_some(Superseded::Overtaken)
        }
        (Keep::All, OrderedBy::Approval) => None,
    }
}

fn waits_for(rules: &Rules, situation: &Situation, candidate: &Candidate) -> Option<Wait> {
    let now = situation.now;
    if now >= situation.root_expires {
        return Some(Wait::RootExpired { at: situation.root_expires });
    }
    if let Some(why) = &situation.behind {
        return Some(Wait::Behind { why: why.clone() });
    }
    match (&rules.deploy, &candidate.origin) {
        (Deploy::Manual, _) => return Some(Wait::Manual),
        (Deploy::OnPublish, Origin::Published) => {}
        (Deploy::OnPublish, Origin::Green(_)) => return Some(Wait::Published),
        (Deploy::After(asked), Origin::Green(green)) if asked == green => {}
        (Deploy::After(asked), Origin::Green(_) | Origin::Published) => {
            return Some(Wait::Green { environment: asked.clone() });
        }
    }
    if let Some(because) = &situation.hold {
        return Some(Wait::Hold { because: because.clone() });
    }
    if let GateState::Missing(missing) = &candidate.gate {
        return Some(Wait::Gate { missing: missing.clone() });
    }
    let vetoed_until = UnixMs(candidate.since.0.saturating_add(rules.veto_ms));
    if now < vetoed_until {
        return Some(Wait::Veto { until: vetoed_until });
    }
    if let Some(until) = frozen_until(&rules.windows, now) {
        return Some(Wait::Freeze { until });
    }
    if let Some((id, version)) = &situation.busy {
        return Some(Wait::Rollout { id: id.clone(), version: version.clone() });
    }
    candidate.refused.as_ref().map(|why| Wait::Refused { why: why.clone() })
}

impl Wait {
    /// Its name for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RootExpired { .. } => "trust-root",
            Self::Behind { .. } => "behind",
            Self::Manual => "manual",
            Self::Green { .. } => "green",
            Self::Published => "published",
            Self::Hold { .. } => "hold",
            Self::Gate { .. } => "gate",
            Self::Veto { .. } => "veto",
            Self::Freeze { .. } => "freeze",
            Self::Rollout { .. } | Self::Turn { .. } => "rollout",
            Self::Refused { .. } => "refused",
        }
    }

    /// When it is over by itself.
    pub fn until(&self) -> Option<UnixMs> {
        match self {
            Self::Veto { until } | Self::Freeze { until } => Some(*until),
            Self::RootExpired { .. }
            | Self::Behind { .. }
            | Self::Manual
            | Self::Green { .. }
            | Self::Published
            | Self::Hold { .. }
            | Self::Gate { .. }
            | Self::Rollout { .. }
            | Self::Turn { .. }
            | Self::Refused { .. } => None,
        }
    }
}

/// In one line.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootExpired { at } => write!(f, "a new trust root: this one expired at {at}"),
            Self::Behind { why } => f.write_str(why),
            Self::Manual => f.write_str("somebody to start it: nothing begins by itself there"),
            Self::Green { environment } => write!(f, "a rollout of it in {environment} that succeeds"),
            Self::Published => f.write_str("being published again: it came from another environment"),
            Self::Hold { because } => write!(f, "the end of the hold: {because}"),
            Self::Gate { missing } => write!(f, "the gate: {missing}"),
            Self::Veto { until } => write!(f, "the end of the veto period, at {until}"),
            Self::Freeze { until } => write!(f, "the end of the freeze, at {until}"),
            Self::Rollout { id, version } => write!(f, "rollout {} of {version} to end", id.short()),
            Self::Turn { version } => write!(f, "{version}, which begins first"),
            Self::Refused { why } => write!(f, "what was refused when it was to begin: {why}"),
        }
    }
}

impl fmt::Display for Superseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer { version } => write!(f, "{version} is newer, and only the newest waits"),
            Self::Overtaken => f.write_str(
                "something has begun there that was signed for later, by publication or approval; publish it again to deploy it",
            ),
        }
    }
}
