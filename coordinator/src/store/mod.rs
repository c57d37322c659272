//! What the coordinator keeps: one directory that one process owns, and the SQLite database in it.

pub mod column;
mod database;
mod state;

pub use database::{Store, StoreError, Write};
pub use state::{StateDir, StateError};
