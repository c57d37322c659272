//! `consign serve`: from a state directory to a coordinator that answers.

mod import;
mod options;
mod run;
mod start;

pub use options::{Addresses, Options};
pub use run::run;
pub use start::{Coordinator, ServeError};
