//! `consign rollout`: bring an artifact to an environment, see it happen, stop it, go back.

mod commands;
mod logs;
mod resolve;

pub(super) use commands::{RolloutCommand, run};
