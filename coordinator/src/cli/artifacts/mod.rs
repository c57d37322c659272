//! `consign artifact`: what can be deployed.

mod commands;
mod input;
mod publish;

pub(super) use commands::{ArtifactCommand, run};
