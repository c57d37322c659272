//! The network: listeners, who calls, what they may call, and the services behind.
//!
//! A call's way: [`listener`] (handshake, limits) → [`Connection`] (peer) → [`AccessLayer`] (caller, role) → service.

mod access;
mod agent_logs;
mod agent_papers;
mod agent_place;
mod agent_session;
mod agents;
mod allow_list;
mod answer;
mod audit;
mod caller;
mod candidates;
mod config;
mod connection;
mod environments;
mod half_open;
pub mod listener;
mod operators;
mod own_apps;
pub mod roles;
mod rollout_view;
mod rollouts;
mod seam;
mod settings;
mod statements;
pub mod transfer;
mod view;
mod webhooks;

pub use access::{Access, AccessLayer};
pub use agents::{AgentParts, AgentService};
pub use allow_list::AllowList;
pub use caller::{Apps, Caller, Identity, InvalidRole, Role};
pub use config::ConfigService;
pub use connection::{Connection, Connections, Peer};
pub use environments::EnvironmentService;
pub use operators::OperatorService;
pub use rollouts::RolloutService;
pub use seam::{Answers, Rollouts};
pub(crate) use settings::from_wire as settings_from_wire;
pub use webhooks::WebhookService;
