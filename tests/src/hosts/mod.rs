//! Real hosts: Debian systems booted with systemd by systemd-nspawn, each with its own address on a bridge.
//!
//! Needs root. What it makes it takes away again, also when a test panics: hosts, mounts, cgroups, bridge.

mod fleet;
mod host;

pub use fleet::{Fleet, profile_directory, target_directory};
pub use host::{Host, Output};
