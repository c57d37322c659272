//! Planning: who is deployed to, in which wave. Frozen from then on.

use std::collections::{BTreeMap, BTreeSet};

use consign_common::{
    name::{ServerName, StepName},
    time::UnixMs,
};

use super::{
    once::Once,
    state::{End, Joined, Kind, Member, Phase, Rollout, ServerState},
    strategy::{InvalidStrategy, Strategy},
    waves::{InvalidWaves, Target, cumulative},
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub kind: Kind,
    pub targets: Vec<Target>,
    /// Text of the selector that chose the canaries, for messages. Absent: there is no wave of their own.
    pub canaries: Option<String>,
    pub strategy: Strategy,
    pub candidates: Vec<Candidate>,
    /// The plan's `once` steps.
    pub once: BTreeSet<StepName>,
    pub not_before: UnixMs,
}

impl Request {
    /// To bring these servers back; never more at once than `min_healthy` leaves, while that is possible at all.
    pub fn back(targets: Vec<Target>, min_healthy: u32, candidates: Vec<Candidate>) -> Self {
        let most = u32::try_from(candidates.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let strategy = Strategy { min_healthy: min_healthy.min(most), ..Strategy::default() };
        Self {
            kind: Kind::Return,
            targets,
            canaries: None,
            strategy,
            candidates,
            once: BTreeSet::new(),
            not_before: UnixMs(0),
        }
    }
}

/// A server that the selector chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub server: ServerName,
    pub presence: Presence,
    pub place: Place,
    /// The value of the label that failures are counted by; empty if it has none.
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Enabled,
    Disabled { because: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the first wave, before all others.
    Canary,
    Fleet,
}

/// Canaries first, then the others in the order of their names. Waves are counted over those that are enabled, so that a
/// first wave of one is a server that really tries; with canaries, over the others.
pub fn plan(request: Request) -> Result<Rollout, InvalidStrategy> {
    let Request { kind, targets, canaries, strategy, mut candidates, once, not_before } = request;
    candidates.sort_by(|a, b| (a.place, &a.server).cmp(&(b.place, &b.server)));
    candidates.dedup_by(|a, b| a.server == b.server);
    if candidates.is_empty() {
        return Err(InvalidWaves::NoServer.into());
    }
    let count = |place: Option<Place>| {
        let wanted =
            |it: &&Candidate| it.presence == Presence::Enabled && place.is_none_or(|place| it.place == place);
        u32::try_from(candidates.iter().filter(wanted).count()).unwrap_or(u32::MAX)
    };
    let (enabled, first) = (count(None), count(Some(Place::Canary)));
    if let Some(selector) = canaries.filter(|_| first == 0 && enabled > 0) {
        return Err(InvalidStrategy::NoCanary { selector });
    }
    if enabled > 0 {
        strategy.check(enabled)?;
    }
    if let Some(group) = &strategy.group
        && candidates.iter().all(|candidate| candidate.group.is_empty())
    {
        return Err(InvalidStrategy::GroupUnknown { label: group.label.clone() });
    }
    let reached = reached(&targets, first, enabled)?;
    let mut members: Vec<Member> = Vec::with_capacity(candidates.len());
    let mut place = 0_u32;
    for Candidate { server, presence, group, .. } in candidates {
        let (wave, state) = match presence {
            Presence::Enabled => {
                let before = reached.iter().take_while(|reached| **reached <= place).count();
                place += 1;
                (u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1), ServerState::Pending)
            }
            Presence::Disabled { because } => {
                (0, ServerState::ended(End::Skipped { because: format!("disabled: {because}") }))
            }
        };
        members.push(Member { server, wave, group, joined: Joined::Planned, state });
    }
    members.sort_by(|a, b| (a.wave, &a.server).cmp(&(b.wave, &b.server)));
    let once: BTreeMap<StepName, Once> = once.into_iter().map(|step| (step, Once::default())).collect();
    let phase = Phase::Queued { not_before };
    Ok(Rollout { kind, strategy, phase, paused: None, members, once, skips: Vec::new() })
}

/// The servers that are reached when each wave is done.
fn reached(targets: &[Target], first: u32, enabled: u32) -> Result<Vec<u32>, InvalidWaves> {
    let others = enabled.saturating_sub(first);
    let mut reached: Vec<u32> = (first > 0).then_some(first).into_iter().collect();
    if others > 0 {
        reached.extend(cumulative(targets, others)?.into_iter().map(|others| first + others));
    }
    Ok(reached)
}
