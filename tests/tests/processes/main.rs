//! The suite of real processes on one machine, without root: a coordinator, agents, and an operator at the command line.

#![expect(clippy::unwrap_used, reason = "test code: a panic is how a test says that it failed")]

mod bad_input;
mod kill;
mod latency;
mod rollouts;
mod scene;
