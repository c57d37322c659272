//! What an attack is: what is sent, and what must come of it.

use super::{
    cases,
    world::{Shot, World},
};

/// Attacks that belong together; each is a test of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Signatures,
    Gate,
    Documents,
    Orders,
    Decisions,
    Config,
    TrustRoots,
    ServersWord,
    Bounds,
    Remains,
}

impl Group {
    pub const ALL: [Self; 10] = [
        Self::Signatures,
        Self::Gate,
        Self::Documents,
        Self::Orders,
        Self::Decisions,
        Self::Config,
        Self::TrustRoots,
        Self::ServersWord,
        Self::Bounds,
        Self::Remains,
    ];

    /// As the table heads it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Signatures => "Envelopes and signatures",
            Self::Gate => "The gate",
            Self::Documents => "Artifacts and plans",
            Self::Orders => "Orders",
            Self::Decisions => "Decisions of operators",
            Self::Config => "Config",
            Self::TrustRoots => "Trust roots",
            Self::ServersWord => "The server's own word, and who talks",
            Self::Bounds => "Bounds",
            Self::Remains => "What remains",
        }
    }

    /// The test that plays it.
    pub fn test(self) -> &'static str {
        match self {
            Self::Signatures => "evil::signatures_that_do_not_count",
            Self::Gate => "evil::gates_that_are_not_met",
            Self::Documents => "evil::artifacts_and_plans_that_nobody_approved",
            Self::Orders => "evil::orders_that_are_old_known_or_not_for_this_server",
            Self::Decisions => "evil::decisions_that_nobody_signed",
            Self::Config => "evil::configs_that_are_old_or_swapped",
            Self::TrustRoots => "evil::trust_roots_that_do_not_follow",
            Self::ServersWord => "evil::what_root_on_the_server_does_not_allow",
            Self::Bounds => "evil::floods_and_giants",
            Self::Remains => "evil::what_remains_is_exactly_that",
        }
    }
}

/// What must come of it. In every case but [`Outcome::Remains`] nothing executes, `current`, releases and trust roots stay
/// as they are, and the next honest order works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Refused by this name, which is journalled and reported.
    Refused(&'static str),
    /// Refused by this name, reported and not kept: it takes no id, and may be asked again.
    Answered(&'static str),
    /// An order without a readable id: dropped, with a line in the agent's log.
    Dropped,
    /// Known already: nothing comes of it.
    Nothing,
    /// The agent ends the session, and comes back.
    SessionEnds,
    /// The agent does not begin a session.
    NoSession,
    /// The trust root is refused, and the agent says why.
    RootRefused(&'static str),
    /// Accepted, and it ends like this with nothing of it active.
    Ends(&'static str),
    /// What the design says a stolen coordinator can do, and where that ends.
    Remains(&'static str),
}

/// Whether it can be played in a world in which others were played before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Shared,
    Own,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Play {
    /// These are sent one after the other; the same must come of each.
    Shots(fn(&mut World) -> Vec<Shot>),
    /// These chains are offered.
    Roots(fn(&mut World) -> Vec<Vec<Vec<u8>>>),
    /// It sends and looks by itself.
    Free(fn(&mut World)),
    /// It makes its own world.
    Alone(fn()),
}

#[derive(Clone, Copy, Debug)]
pub struct Attack {
    pub name: &'static str,
    pub group: Group,
    /// What is sent, for the table.
    pub sends: &'static str,
    pub outcome: Outcome,
    pub(super) place: Place,
    pub(super) play: Play,
}

impl Attack {
    pub(super) const fn refused(
        name: &'static str,
        code: &'static str,
        sends: &'static str,
        play: fn(&mut World) -> Vec<Shot>,
    ) -> Self {
        Self::shots(name, Outcome::Refused(code), sends, play)
    }

    pub(super) const fn shots(
        name: &'static str,
        outcome: Outcome,
        sends: &'static str,
        play: fn(&mut World) -> Vec<Shot>,
    ) -> Self {
        // The group is where it is listed.
        let group = Group::Remains;
        Self { name, group, sends, outcome, place: Place::Shared, play: Play::Shots(play) }
    }

    pub(super) const fn root(
        name: &'static str,
        why: &'static str,
        sends: &'static str,
        play: fn(&mut World) -> Vec<Vec<Vec<u8>>>,
    ) -> Self {
        let (group, outcome) = (Group::Remains, Outcome::RootRefused(why));
        Self { name, group, sends, outcome, place: Place::Shared, play: Play::Roots(play) }
    }

    pub(super) const fn free(
        name: &'static str,
        outcome: Outcome,
        sends: &'static str,
        play: fn(&mut World),
    ) -> Self {
        let group = Group::Remains;
        Self { name, group, sends, outcome, place: Place::Shared, play: Play::Free(play) }
    }

    pub(super) const fn remains(
        name: &'static str,
        sends: &'static str,
        limit: &'static str,
        play: fn(&mut World),
    ) -> Self {
        Self::free(name, Outcome::Remains(limit), sends, play).own()
    }

    pub(super) const fn alone(name: &'static str, outcome: Outcome, sends: &'static str, play: fn()) -> Self {
        let group = Group::Remains;
        Self { name, group, sends, outcome, place: Place::Own, play: Play::Alone(play) }
    }

    /// It changes what the server remembers.
    pub(super) const fn own(self) -> Self {
        Self { place: Place::Own, ..self }
    }
}

/// Every attack, in the order of the table.
pub fn attacks() -> Vec<Attack> {
    let list = |group: Group| -> &'static [Attack] {
        match group {
            Group::Signatures => cases::signatures::ATTACKS,
            Group::Gate => cases::gate::ATTACKS,
            Group::Documents => cases::documents::ATTACKS,
            Group::Orders => cases::orders::ATTACKS,
            Group::Decisions => cases::decisions::ATTACKS,
            Group::Config => cases::config::ATTACKS,
            Group::TrustRoots => cases::roots::ATTACKS,
            Group::ServersWord => cases::word::ATTACKS,
            Group::Bounds => cases::bounds::ATTACKS,
            Group::Remains => cases::remains::ATTACKS,
        }
    };
    let of = |group: Group| list(group).iter().map(move |attack| Attack { group, ..*attack });
    Group::ALL.into_iter().flat_map(of).collect()
}
