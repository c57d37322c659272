//! A candidate as the store keeps it.

use consign_common::{
    digest::Sha256,
    name::{App, Environment, Id, Platform, Version},
    time::UnixMs,
    trust::OrderingNumber,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateRow {
    pub number: i64,
    pub app: App,
    pub environment: Environment,
    pub version: Version,
    pub platform: Option<Platform>,
    /// Of the manifest: exactly these bytes begin.
    pub digest: Sha256,
    /// Of the publication that made it one.
    pub published: OrderingNumber,
    pub since: UnixMs,
    /// Where a rollout of it succeeded, and which. `None`: it was published.
    pub green: Option<(Environment, Id)>,
    pub standing: Standing,
    /// Of one that does not wait any more.
    pub settled: Option<Settled>,
    /// That it began with.
    pub rollout: Option<Id>,
    /// Why it was not let through when it was to begin, last.
    pub refused: Option<String>,
    /// What others were last told that it waits for. Empty: nothing.
    pub told: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Waiting,
    Started,
    Superseded,
    Vetoed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub at: UnixMs,
    /// Empty: nobody, it followed.
    pub by: String,
    pub because: String,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Started => "started",
            Self::Superseded => "superseded",
            Self::Vetoed => "vetoed",
        }
    }
}

impl std::str::FromStr for Standing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Waiting, Self::Started, Self::Superseded, Self::Vetoed]
            .into_iter()
            .find(|standing| standing.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no standing of a candidate"))
    }
}
