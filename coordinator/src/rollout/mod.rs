//! The rollout engine: one artifact to one environment, or back, in waves of servers.
//!
//! Pure: [`apply`] takes a rollout and what happened, and gives the rollout that follows and what is to be done about
//! it. No clock, no I/O, no randomness; the controller (`crate::rollouts`) persists both before it acts, and the
//! simulator drives this very code.
//!
//! | module | holds |
//! |---|---|
//! | `waves` | counts and percentages to cumulative targets |
//! | `state` | a rollout, its servers, and how each can end |
//! | `engine` | planning and [`apply`] |
//! | `verdict` | the final state, its exit code and its one-line reason |

mod engine;
mod state;
#[cfg(test)]
mod tests;
mod verdict;
mod waves;

pub use engine::{Candidate, Command, Event, News, Presence, apply, plan};
pub use state::{End, Kind, Member, Phase, Rollout, ServerState};
pub use verdict::{Final, Verdict};
pub use waves::{InvalidWaves, Target, cumulative};
