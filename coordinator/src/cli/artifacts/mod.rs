//! `consign artifact`: what can be deployed.

mod commands;

pub(super) use commands::{ArtifactCommand, run};
