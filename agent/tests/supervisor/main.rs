//! The supervisor with real processes: what an agent sees of an attempt, whatever the attempt does, and whoever dies.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod endings;
mod harness;
mod leftovers;
mod losses;
mod output;
mod programs;
mod secrets;
