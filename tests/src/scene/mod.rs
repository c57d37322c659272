//! The parts of a scene: an operator with a profile, a coordinator as a process, artifacts to deploy.

mod agent;
mod artifact;
mod coordinator;
mod health;
mod operator;
mod production;

pub use agent::Agent;
pub use artifact::{Notes, write_tree};
pub use coordinator::Coordinator;
pub use health::Health;
pub use operator::{Operator, Ran};
pub use production::{LONG, Production, SLOW, prepare_server, serves};

use std::path::PathBuf;

use crate::hosts::profile_directory;

/// A binary of the workspace, built beforehand (`make test` does).
pub fn binary(name: &str) -> PathBuf {
    let path = profile_directory().join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace --bins --examples`",
        path.display()
    );
    path
}
