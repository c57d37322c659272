//! Releases on disk: `<apps>/<app>/{releases/<version>-<digest12>/, shared/, current}`.
//!
//! A release is written into a fresh directory on the same filesystem, every file hashed as it is written, made durable
//! as a whole and only then given its name: a directory under `releases/` whose name does not begin with a dot is
//! complete. All of it happens below directory handles, so that no link leads a write or a removal elsewhere.
//!
//! Ownership: a release belongs to the agent's user. As root, nobody else may write to it, but for the plan's
//! `writable` paths, which belong to the first `user` that a step of the plan names. Without root all of a release but
//! the writable paths is read-only by mode.

mod error;
mod layout;
mod release;
#[cfg(test)]
mod tests;
mod verify;

pub use error::StageError;
pub use layout::{AppDirectory, release_name};
pub use release::{Form, Staging};
pub use verify::{Drift, is_whole, verify};
