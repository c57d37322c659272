//! What can happen, and the body that tells it (docs/cli.md, "Webhooks"): its schema is stable, new fields may come.

use std::str::FromStr;

use consign_common::{
    digest::Sha256,
    name::{App, Environment, Id, Version},
    time::UnixMs,
};
use serde::Serialize;

/// Characters of a reason.
const BECAUSE: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    RolloutStarted,
    RolloutPaused,
    RolloutEnded,
    /// A candidate waits for signatures.
    GateWaiting,
    /// A candidate begins by itself unless somebody says no in time.
    VetoWaiting,
    CandidateStarted,
    /// It was to begin, and was not let through.
    CandidateRefused,
    CandidateSuperseded,
    CandidateVetoed,
    HoldPlaced,
    HoldLifted,
    /// Somebody asked for it: `consign webhook test`.
    Test,
}

impl EventKind {
    pub const ALL: [Self; 12] = [
        Self::RolloutStarted,
        Self::RolloutPaused,
        Self::RolloutEnded,
        Self::GateWaiting,
        Self::VetoWaiting,
        Self::CandidateStarted,
        Self::CandidateRefused,
        Self::CandidateSuperseded,
        Self::CandidateVetoed,
        Self::HoldPlaced,
        Self::HoldLifted,
        Self::Test,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::RolloutStarted => "rollout.started",
            Self::RolloutPaused => "rollout.paused",
            Self::RolloutEnded => "rollout.ended",
            Self::GateWaiting => "gate.waiting",
            Self::VetoWaiting => "veto.waiting",
            Self::CandidateStarted => "candidate.started",
            Self::CandidateRefused => "candidate.refused",
            Self::CandidateSuperseded => "candidate.superseded",
            Self::CandidateVetoed => "candidate.vetoed",
            Self::HoldPlaced => "hold.placed",
            Self::HoldLifted => "hold.lifted",
            Self::Test => "test",
        }
    }
}

impl FromStr for EventKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.into_iter().map(Self::as_str).collect();
            format!("{text:?} is no event; there are {}", all.join(", "))
        })
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub at: UnixMs,
    pub about: Told,
}

/// What it is about; what is not known of it is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<App>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Digest of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Sha256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Id>,
    /// `deploy` or `return`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it came to: as `consign rollout show` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Who began it; absent: the coordinator by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Until when it waits, in Unix milliseconds, where it goes on by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    /// RFC 3339, UTC.
    timestamp: String,
    data: &'a Told,
}

impl Event {
    pub(super) fn body(&self) -> String {
        let timestamp = self.at.to_string();
        // A refusal may be long; who is told reads the beginning, and the command line has the rest.
        let because = self.about.because.as_ref().map(|because| because.chars().take(BECAUSE).collect());
        let data = Told { because, ..self.about.clone() };
        let body = Body { r#type: self.kind.as_str(), timestamp, data: &data };
        String::from_utf8(consign_common::json::to_vec(&body)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_a_stable_schema() {
        let event = Event {
            kind: EventKind::RolloutEnded,
            at: UnixMs(1_767_225_600_000),
            about: Told {
                app: Some("shop".parse().unwrap()),
                environment: Some("production".parse().unwrap()),
                version: Some("1.4.0".parse().unwrap()),
                artifact: Some(Sha256::of(b"m")),
                rollout: Some(Id::from_bytes([2; 16])),
                kind: Some("deploy".into()),
                state: Some("succeeded".into()),
                by: Some("ada".into()),
                because: Some("all servers run it".into()),
                until_ms: None,
            },
        };
        insta::assert_snapshot!(event.body(), @r#"{"type":"rollout.ended","timestamp":"2026-01-01T00:00:00Z","data":{"app":"shop","environment":"production","version":"1.4.0","artifact":"62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a","rollout":"02020202020202020202020202020202","kind":"deploy","state":"succeeded","by":"ada","because":"all servers run it"}}"#);
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("rollout.begun".parse::<EventKind>().unwrap_err().contains("rollout.started"));
    }
}
