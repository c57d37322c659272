//! What servers would do.

use consign_proto::v1;
use serde::Serialize;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What `rollout start --plan` takes; empty: no server said what it would do.
    pub digest: String,
    pub app: String,
    pub version: String,
    pub environment: String,
    pub artifact: String,
    pub made_ms: u64,
    pub servers: Vec<PlannedServer>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlannedServer {
    pub server: String,
    /// `planned`, `no-op`, `refused`, `disabled`, `not-connected` or `silent`.
    pub state: String,
    /// Refused: the refusal's name. Planned: of why it would be refused now, which signatures may yet lift.
    pub code: String,
    pub because: String,
    pub steps: Vec<PlannedStep>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PlannedStep {
    pub name: String,
    pub kind: String,
    /// `run`, `skip` or `undetermined`.
    pub decision: String,
    pub because: String,
}

impl From<v1::Plan> for Plan {
    fn from(wire: v1::Plan) -> Self {
        let step = |wire: v1::PlannedStep| PlannedStep {
            name: wire.name,
            kind: wire.kind,
            decision: wire.decision,
            because: wire.because,
        };
        let server = |wire: v1::PlannedServer| PlannedServer {
            server: wire.server,
            state: wire.state,
            code: wire.code,
            because: wire.because,
            steps: wire.steps.into_iter().map(step).collect(),
        };
        Self {
            digest: wire.digest,
            app: wire.app,
            version: wire.version,
            environment: wire.environment,
            artifact: wire.artifact,
            made_ms: wire.made_ms,
            servers: wire.servers.into_iter().map(server).collect(),
        }
    }
}
