//! What the end-to-end suites stand on: real hosts, a coordinator and agents as processes, waiting on conditions.

#![expect(clippy::unwrap_used, reason = "test code: a panic is how a test says that it failed")]

pub mod authorization;
pub mod evil;
pub mod hosts;
pub mod scene;
pub mod simulator;
pub mod wait;
