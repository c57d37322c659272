//! The suite on real hosts: Debian systems booted with systemd, the agent installed by its install script, a published
//! Python package as payload, served by a systemd service of the app's own.

#![expect(clippy::unwrap_used, reason = "test code: a panic is how a test says that it failed")]

mod cases;
mod confirm;
mod faults;
mod install;
mod limit;
mod nothing;
mod once;
mod pipeline;
mod story;
mod team;
