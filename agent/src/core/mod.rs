//! One deployment as a pure state machine: [`Run::apply`] takes what happened and says what to do next. No clock, no
//! file, no process, no network: the shell (`executor`) carries the commands out, in their order, and tells the results.
//!
//! What the machine knows, it knows from the journal's events: every decision is first an event, folded into the state
//! by the same code that replays it after a crash. So a machine that was dropped at any point and rebuilt from what was
//! journalled goes on as if nothing had happened, but for the one attempt that was under way; about that one it asks.
//!
//! The rules (docs of the plan: `common::plan`):
//! - Steps run in order. A step out of phase, or whose condition is false, is skipped, and the journal says why.
//! - A failed step is tried again as its `retry` says; then its `if_fails` decides. After a failure only `always` steps
//!   of the same plan run; then, before `activate`, the staged release is removed (`failed`), and after it the server
//!   returns to `good` by that artifact's own plan (`returned`). Without a good artifact, or when the return's own steps
//!   fail, it stops where it is (`stopped`).
//! - An attempt of which nobody knows how it ended runs again if its kind is idempotent (all that run in the agent) or
//!   its `retry` allows it; any other waits for an operator's decision, and until then no step runs. Given up, by a
//!   cancel or because another order came, the deployment ends as `unknown`.
//! - Before a `once` step whose condition is true the run asks whether it is the one that runs it, and waits.
//! - A step that an operator leaves out is skipped. A condition that comes out otherwise than the operator pinned it fails
//!   its step, whatever `if_fails` and `retry` say.
//! - Where a success is to be confirmed, it is good only then. At the deadline, or in another boot, the server returns.
//! - A cancel ends the running attempt, then goes the way of a failure; it ends as `cancelled` when all is as before.
//!   Once the deployment cleans up or returns by itself a cancel changes nothing: that is where it would lead.

mod control;
mod fold;
mod model;
mod next;
mod run;
mod state;
#[cfg(test)]
mod tests;

pub use control::Misfit;
pub use model::{Begun, Command, Input, Pointers, Process, Setting, Verdict, Waiting, Way};
pub use run::{Inconsistent, Run};
