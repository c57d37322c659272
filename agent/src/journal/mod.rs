//! The agent's durable record: orders, events, acknowledgements, and what is remembered of every app. SQLite with
//! `synchronous = FULL`, one connection: what a method has returned from survives power loss. The schema stands in
//! `agent/migrations/` and docs/formats.md, "Journal schema".

mod apps;
mod column;
mod database;
mod events;
mod ledger;
mod orders;
#[cfg(test)]
mod tests;
mod waits;

pub use apps::Pointer;
pub use database::{Journal, JournalError};
pub use events::Record;
pub use orders::{Accepted, Kept, Known, Received};
pub use waits::Waits;
