//! The seams of the agent: what the session (network) and the manager (deployments) say to each other. Both sides of
//! every channel are bounded; the network never paces a step, because events and logs are on disk before they are here.

use std::{fmt, path::PathBuf};

use consign_common::{
    audit::Head,
    deployment::{Attempt, Event},
    digest::Sha256,
    name::{App, Environment, Id},
    time::UnixMs,
    trust::OrderingNumber,
};

/// From the session to the manager.
#[derive(Debug)]
pub enum Inbound {
    /// An order as it came, from the coordinator that TLS authenticated as `connected`.
    Order { papers: Papers, connected: String },
    /// What would this order come to? Judged as it would be, and nothing is kept.
    Query { query: String, papers: Papers, connected: String },
    /// Events of the deployment up to here are durable at the coordinator.
    EventAck { deployment: Id, sequence: u64 },
    /// A session began: send again every event that has not been acknowledged.
    Connected,
}

/// An order's document with what came beside it; nothing of it is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Papers {
    pub document: Vec<u8>,
    pub statements: Vec<Vec<u8>>,
    /// The plan document that approvals name.
    pub plan: Option<Vec<u8>>,
    /// What is sealed to this server.
    pub sealed: Option<Vec<u8>>,
}

/// From the manager to the session. Lost when no session is open: the journal is what is sent again.
#[derive(Debug)]
pub enum Outbound {
    /// The answer to [`Inbound::Connected`]: from here on comes every event that has not been acknowledged, in order. One
    /// that came before belongs to an earlier session.
    Again,
    Event {
        deployment: Id,
        sequence: u64,
        at: UnixMs,
        body: Event,
    },
    Refused {
        order: Id,
        code: String,
        message: String,
    },
    Answer {
        query: String,
        answer: Answer,
    },
}

/// What an order would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It would be refused, by this name.
    Refused { code: String, message: String },
    /// What it would come to; and why it would not be let through as it is, though this is what it would do.
    Foretold { foretold: Foretold, held: Option<Held> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foretold {
    /// It runs this already.
    NoOp,
    /// For a deployment with its steps, in their order.
    Work { steps: Vec<PlannedStep> },
}

/// A refusal that more signatures could lift.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub code: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    pub name: String,
    pub kind: &'static str,
    /// `run`, `skip` or `undetermined`.
    pub decision: &'static str,
    /// What makes it skip, or what it waits for.
    pub because: String,
}

/// What a coordinator that was restored from a backup no longer has of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    EventsAfter(u64),
    /// What its attempts wrote.
    Logs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewound {
    /// There is something to send again.
    Some,
    Nothing,
}

/// What `Hello` says of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppReport {
    pub app: Option<App>,
    pub environment: Option<Environment>,
    pub good: Option<Sha256>,
    pub good_version: String,
    pub before: Option<Sha256>,
    pub current: Option<Sha256>,
    pub highest: OrderingNumber,
    pub term: u64,
    /// Since when `rearm` holds.
    pub failed: Option<OrderingNumber>,
    /// The highest sequence of an accepted config; 0: none yet.
    pub config_sequence: u64,
}

/// Which journal this is, and how far it was ever written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalMark {
    /// Made with the journal; a copy of the disk has the same one.
    pub id: String,
    /// Events that were ever written; durable, and never lower than what was said before.
    pub position: u64,
}

/// An attempt's log file, as far as the coordinator does not have it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingLog {
    pub deployment: Id,
    pub attempt: Attempt,
    pub path: PathBuf,
    /// Durable at the coordinator up to here.
    pub acknowledged: u64,
    /// Length once the attempt is finished; `None` while it may grow.
    pub length: Option<u64>,
}

/// What is remembered of a coordinator's audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Of the newest entry that it told of.
    pub head: Head,
    /// When it told last of an end that does not go with that, and of which.
    pub disputed: Option<(UnixMs, Head)>,
}

/// What the coordinator's word about the end of its audit log came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    GoesOn,
    /// What was known is not there any more; `again`: it said so before.
    Rewritten {
        known: Head,
        again: bool,
    },
}

/// For who asks locally: terms are a coordinator's, and none is told.
pub const NO_COORDINATOR: &str = "";

/// What the session and the log shipper ask of the journal. All answers come from disk: what is acknowledged here is
/// never sent again.
pub trait Ledger: Send + Sync + fmt::Debug {
    /// What `Hello` says of every app; the term is the highest one that this coordinator gave.
    fn apps(&self, coordinator: &str) -> impl Future<Output = Vec<AppReport>> + Send;

    /// As of now.
    fn journal(&self) -> JournalMark;

    /// Deployments that have begun and not ended.
    fn open_deployments(&self) -> impl Future<Output = Vec<Id>> + Send;

    /// What the coordinator lost is unacknowledged again.
    fn rewind(&self, deployment: &Id, lost: Lost) -> impl Future<Output = Rewound> + Send;

    /// Every attempt's log that the coordinator does not have to its end, oldest first.
    fn pending_logs(&self) -> impl Future<Output = Vec<PendingLog>> + Send;

    /// The coordinator has everything before `offset`. Acknowledgements may come twice and out of order: the highest
    /// stands.
    fn log_acknowledged(
        &self,
        deployment: &Id,
        attempt: Attempt,
        offset: u64,
    ) -> impl Future<Output = ()> + Send;

    /// The newest entry of this coordinator's audit log that was heard of.
    fn audit_head(&self, coordinator: &str) -> impl Future<Output = Option<Head>> + Send;

    /// The coordinator says where its audit log ends.
    fn hear_audit_head(&self, coordinator: &str, told: Head) -> impl Future<Output = Heard> + Send;

    /// Receipts that the coordinator does not have yet, oldest first.
    fn pending_receipts(&self) -> impl Future<Output = Vec<Vec<u8>>> + Send;

    fn receipt_acknowledged(&self, deployment: &Id) -> impl Future<Output = ()> + Send;
}

/// Brings documents and packs from the coordinator, on a connection of its own.
pub trait Fetch: Send + Sync + fmt::Debug {
    /// The manifest's bytes; the caller checks the digest.
    fn manifest(&self, digest: Sha256) -> impl Future<Output = Result<Vec<u8>, FetchError>> + Send;

    /// Appends the pack's bytes from the file's present length on, so that a broken transfer goes on where it ended.
    /// Calls `progress(have, total)`. One that is longer than `limit` is refused before it is written.
    fn pack(
        &self,
        from: Option<Sha256>,
        to: Sha256,
        limit: u64,
        into: PathBuf,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> impl Future<Output = Result<(), FetchError>> + Send;
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the coordinator is not reachable: {0}")]
    Unreachable(String),
    #[error("the coordinator does not have it: {0}")]
    NotFound(String),
    #[error("the coordinator has no such offset: {0}")]
    OutOfRange(String),
    #[error("the coordinator sent what does not fit together: {0}")]
    Malformed(String),
    #[error("the transfer is longer than the {0} bytes that it may be")]
    TooLong(u64),
    #[error("failed to write to {path}")]
    Io { path: PathBuf, source: std::io::Error },
}
