//! `consign artifact`: what can be deployed.

mod commands;
mod input;
mod pack;
mod publish;
mod verify;
mod wait;

pub(super) use commands::{ArtifactCommand, run};
pub(super) use publish::publishers_key;
