//! A hostile coordinator: it has every key that a coordinator has, speaks the real protocol over real TLS to a real agent
//! process, and sends what no honest one sends. What it does not have is a key of those who publish, approve, test,
//! configure or sign trust roots; where a document of theirs is needed, it is one that they really signed, for something else.
//!
//! [`attacks`] lists every attack with what the agent must say to it; [`Runner`] plays them.

mod attack;
mod authority;
mod cases;
mod line;
mod runner;
mod tamper;
mod world;

pub use attack::{Attack, Group, Outcome, attacks};
pub use runner::Runner;
