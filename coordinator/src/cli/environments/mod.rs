//! `consign env`: how rollouts go about it where, what runs there, and what keeps things from beginning.

mod commands;
mod take_over;
mod text;

pub(super) use commands::{EnvCommand, run};
