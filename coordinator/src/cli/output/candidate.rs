//! Candidates.

use consign_proto::v1;
use serde::Serialize;

/// An artifact that may begin by itself in an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Candidate {
    pub app: String,
    pub version: String,
    /// Empty: any.
    pub platform: String,
    pub digest: String,
    pub environment: String,
    /// Of the publication that made it one.
    pub published_ms: u64,
    pub since_ms: u64,
    /// The environment in which a rollout of it succeeded, and that rollout; empty: it was published.
    pub after: String,
    pub source: String,
    /// `waiting`, `started`, `superseded` or `vetoed`.
    pub state: String,
    /// Of one that waits: `trust-root`, `behind`, `manual`, `green`, `published`, `hold`, `gate`, `veto`, `freeze`,
    /// `rollout` or `refused`; empty: it is about to begin.
    pub waits_for: String,
    /// What it waits for, or why it does not any more.
    pub because: String,
    /// When that is over by itself. Absent: not by time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// That it began with.
    pub rollout: String,
    /// Empty: nobody, it followed.
    pub settled_by: String,
    /// Absent while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_ms: Option<u64>,
}

impl From<v1::Candidate> for Candidate {
    fn from(wire: v1::Candidate) -> Self {
        Self {
            app: wire.app,
            version: wire.version,
            platform: wire.platform,
            digest: wire.digest,
            environment: wire.environment,
            published_ms: wire.published_ms,
            since_ms: wire.since_ms,
            after: wire.after,
            source: wire.source,
            state: wire.state,
            waits_for: wire.waits_for,
            because: wire.because,
            until_ms: Some(wire.until_ms).filter(|ms| *ms > 0),
            rollout: wire.rollout,
            settled_by: wire.settled_by,
            settled_ms: Some(wire.settled_ms).filter(|ms| *ms > 0),
        }
    }
}
