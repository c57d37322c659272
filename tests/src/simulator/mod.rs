//! A deterministic simulator that attacks consign.

mod agent;
mod around;
mod bug;
mod catalog;
mod check;
mod coordinator;
mod deployment;
mod disk;
mod engine;
mod host;
mod operator;
mod queue;
mod random;
mod report;
mod store;
mod verbs;
mod world;

pub use bug::Bug;
pub use check::Violation;
pub use report::{Counts, Report};
pub use world::{Trace, run};
