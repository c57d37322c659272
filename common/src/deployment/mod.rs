//! What happens to one artifact on one server, as both sides tell it.

mod attempt;
mod event;
pub mod log;
mod outcome;

pub use attempt::{Attempt, InvalidAttempt};
pub use event::{Event, Leftover, StepSummary};
pub use outcome::{DeploymentOutcome, Failure, StepOutcome};
