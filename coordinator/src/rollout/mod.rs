//! The rollout engine: one artifact to one environment, or back, in waves of servers.
//!
//! Pure: [`apply`] takes a rollout, what happened and when, and gives the rollout that follows and what is to be done
//! about it; [`press`] does the same for a person's word, or says why it is not legal now. No clock, no I/O, no
//! randomness; the controller (`crate::rollouts`) persists both before it acts, and the simulator drives this very code.
//!
//! | module | holds |
//! |---|---|
//! | `waves`, `strategy` | counts and percentages; what is tolerated, waited for and checked |
//! | `plan` | who is in which wave |
//! | `state` | a rollout, its servers, and how each can end |
//! | `engine` | events in, commands out |
//! | `advance` | what follows by itself: the next wave, a stop, the end |
//! | `once` | steps that one server runs for all |
//! | `verbs` | what a person may do, and when |
//! | `verdict`, `explain` | the final state, its exit code; why it is where it is |
//!
//! ```text
//! queued → running (wave: deploying → baking → judging → confirming → next wave) → ended
//!             │ budget used up, unhealthy          │ abort
//!             └──────────→ stopping ──→ ended      └→ aborting → ended
//! ended: owed and new servers converge; a decision goes on; a retry queues it again
//! ```

mod advance;
mod engine;
mod explain;
mod once;
mod plan;
mod state;
mod strategy;
#[cfg(test)]
mod tests;
mod verbs;
mod verdict;
mod waves;

pub use engine::{Command, Event, Health, News, StepEnd, apply};
pub use explain::{explain, span};
pub use once::{Once, OnceState, Progress};
pub use plan::{Candidate, Place, Presence, Request, plan};
pub use state::{End, Joined, Kind, Member, Pause, Phase, Rollout, ServerState, Skip, Stage, Stop, Told};
pub use strategy::{GroupBudget, HealthCheck, InvalidStrategy, Offline, OnStop, Probe, Strategy};
pub use verbs::{Illegal, Verb, press};
pub use verdict::{Cause, Final, Verdict, changed_and_not_back};
pub use waves::{InvalidWaves, Target, cumulative};
