//! The decision: may this run here, now? One pure function, the same on agent, coordinator and at a desk.

use crate::{
    artifact::Manifest,
    digest::Sha256,
    name::Version,
    plan::Plan,
    time::UnixMs,
    trust::{Order, OrderingNumber, Privilege, Refusal, ServersWord, TrustRoot},
};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Intent<'a> {
    /// An order from the coordinator that TLS authenticated as this id: deploy or return.
    Order { order: &'a Order, connected: &'a str },
    /// The agent's own: a deployment failed after `activate`, go back to `good`.
    AutomaticReturn,
    /// The agent's own: after a restart, go on with a deployment that was authorized before. No rule of time applies,
    /// and `root` is the version recorded with it.
    Resume { order: &'a Order },
}

/// The documents that the decision is made from, as received.
#[derive(Clone, Copy, Debug)]
pub struct Documents<'a> {
    /// Of the artifact that would run: for returns, the one being restored.
    pub manifest: &'a [u8],
    pub statements: &'a [Vec<u8>],
}

/// The server as far as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    pub word: &'a ServersWord,
    pub privilege: &'a Privilege,
    /// As `linux-x86_64`.
    pub platform: &'a str,
}

/// What the agent remembers of the app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The highest ordering number seen in an accepted order.
    pub highest: Option<OrderingNumber>,
    /// The ordering number that succeeded last: an artifact succeeds once per ordering statement.
    pub succeeded: Option<OrderingNumber>,
    /// The highest term seen from the connected coordinator.
    pub term: u64,
    pub good: Option<Installed>,
    pub before: Option<Installed>,
}

/// An artifact that was good here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub manifest: Sha256,
    pub version: Version,
    /// The number of its publication, which the floor is compared with.
    pub published: OrderingNumber,
    /// The directory below `releases/`.
    pub release: String,
}

/// Authorized work. Nothing outside this module can make one, and the executor takes nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub fn get(&self) -> &T {
        &self.0
    }

    pub fn into_inner(self) -> T {
        self.0
    }
}

/// What may run.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    pub digest: Sha256,
    pub manifest: Manifest,
    pub plan: Plan,
    /// The publication's number.
    pub published: OrderingNumber,
    /// What the deployment is ordered by in time: the approval's number where the gate has one, else the publication's.
    pub number: OrderingNumber,
}

/// Decides on a deployment or a return. (Cancel, confirm and decide carry no artifact; the rules for them are the first
/// four of this function: server, environment, coordinator, term: [`authorize_control`].)
pub fn authorize(
    intent: Intent<'_>,
    documents: Documents<'_>,
    root: &TrustRoot,
    host: Host<'_>,
    memory: &Memory,
    now: UnixMs,
) -> Result<Verified<Work>, Refusal> {
    let _ = (intent, documents, root, host, memory, now);
    Err(Refusal::Malformed { what: "order", why: "not built yet".into() })
}

/// Decides on an order that carries no artifact: right server, environment, coordinator and term.
pub fn authorize_control(
    order: &Order,
    connected: &str,
    root: &TrustRoot,
    word: &ServersWord,
    memory: &Memory,
) -> Result<(), Refusal> {
    let _ = (order, connected, root, word, memory);
    Err(Refusal::Malformed { what: "order", why: "not built yet".into() })
}
