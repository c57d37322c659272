//! The process outside the agent: `consign-agent supervise --dir <state>/deployments/<id>` executes one `run` or
//! `shell` attempt at a time, as it is told, and decides nothing. It outlives the agent: crash, restart and upgrade of
//! the agent do not touch a step that runs.
//!
//! ```text
//! agent ──unix socket──▶ supervise ──spawns──▶ exec-attempt ──exec──▶ the step
//!        run, release,      │  reads both pipes (or a terminal), masks, frames
//!        wait, cancel       ▼
//!                    <attempt>.log   <attempt>.exit
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`spec`], [`protocol`], [`exit_record`] | what is said and what is kept |
//! | [`client`], [`launcher`], [`lost`] | the agent's side (tokio) |
//! | [`serve`], [`attempt`], [`exec`] | the supervisor's side (threads, no runtime) |
//! | [`containment`], [`cgroup`], [`processes`] | what belongs to an attempt, and how all of it ends |
//! | [`output`], [`masking`] | from pipe to log file |
//! | [`private`] | secrets as files, while an attempt has them |
//!
//! **Nothing executes before the agent knows what to kill.** `run` creates the process, which waits; the agent makes
//! its [`AttemptIdentity`] durable and calls `release`. A supervisor that dies in between takes the process with it,
//! because it waits on a socket whose other end is then closed.

mod attempt;
mod cgroup;
mod client;
mod containment;
mod exec;
mod exit_record;
mod launcher;
mod lost;
mod masking;
mod output;
mod private;
mod processes;
mod protocol;
mod serve;
mod spec;

pub use client::{Run, Supervisor, SupervisorError};
pub use exec::exec_attempt;
pub use exit_record::{EXIT_RECORD_BYTES, ExitRecord, InvalidExitRecord};
pub use launcher::Launcher;
pub use lost::reap_lost;
pub use processes::boot_id;
pub use serve::{Session, SuperviseError, supervise};
pub use spec::{AttemptIdentity, AttemptSpec, DEFAULT_GRACE_MS, DEFAULT_LOG_LIMIT, Process};
