//! Receipts: once a deployment has ended, this server signs what it ran, with a key that nobody else has, and keeps that
//! until the coordinator has it.
//!
//! | module | holds |
//! |---|---|
//! | [`key`] | the key: made once, never renewed |
//! | [`build`] | from the journal to a receipt |
//! | [`make`] | makes one for every deployment that has ended |

mod build;
pub mod key;
mod make;

pub use make::Maker;
