//! The shell around the pure core: carries its commands out, in their order, and tells it what came of them.
//!
//! | module | holds |
//! |---|---|
//! | [`site`] | what is the same for every deployment on this server |
//! | [`deployment`] | the loop: input, apply, commands; nothing after a `journal` unless that is durable |
//! | [`staging`] | manifest and pack to a release on disk |
//! | [`attempts`], [`processes`] | `run` and `shell`, under the supervisor |
//! | [`steps`] | the kinds that run in the agent |
//! | [`clocks`] | the clock that is never set, and a timer by it |
//! | [`facts`], [`environment`] | what conditions ask and what steps are given |

mod attempts;
mod clocks;
mod deployment;
mod documents;
mod environment;
mod facts;
mod log;
mod processes;
mod site;
mod staging;
mod steps;

pub use deployment::{Assignment, Deployment, Halt, Origin};
pub use documents::{Documents, DocumentsError};
pub use facts::host_facts;
pub use processes::{Created, Exit, Processes, Rejoined, Supervised};
pub use site::{Roots, Site};
