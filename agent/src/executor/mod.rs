//! The shell around the pure core: carries its commands out, in their order, and tells it what came of them.
//!
//! | module | holds |
//! |---|---|
//! | [`site`] | what is the same for every deployment on this server |
//! | [`deployment`] | the loop: input, apply, commands; nothing after a `journal` unless that is durable |
//! | [`staging`] | manifest and pack to a release on disk |
//! | [`attempts`], [`processes`] | `run` and `shell`, under the supervisor |
//! | [`steps`] | the kinds that run in the agent |
//! | [`control`] | words from outside to a deployment that runs |
//! | [`clocks`], [`confirm_timer`] | deadlines: in the agent, and outside of it |
//! | [`foresight`] | what a deployment would run, before anything is done |
//! | [`facts`], [`conditions`], [`environment`], [`secrets`] | what conditions ask and what steps are given |

mod attempts;
mod clocks;
mod conditions;
mod confirm_timer;
mod control;
mod deployment;
mod documents;
mod environment;
mod facts;
mod foresight;
mod log;
mod processes;
mod secrets;
mod setting;
mod site;
mod staging;
mod steps;

pub use clocks::boot_ms;
pub use confirm_timer::ConfirmTimer;
pub use control::{Inbox, Rejected, Reply, Standing};
pub use deployment::{Assignment, Deployment, Halt, Origin};
pub use documents::{Documents, DocumentsError};
pub use facts::host_facts;
pub use foresight::{Decision, Foresight, foresee};
pub use processes::{Created, Exit, Processes, Rejoined, Supervised};
pub use secrets::open_secrets;
pub use setting::runs_already;
pub use site::{Roots, Site};
