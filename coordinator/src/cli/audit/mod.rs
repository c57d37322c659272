//! `consign audit`: who did what, and whether anybody changed that afterwards.
//!
//! | module | holds |
//! |---|---|
//! | [`commands`] | the commands |
//! | [`entries`] | the log as it comes |
//! | [`remember`] | the heads that this home has seen |
//! | [`verify`] | the whole chain, against all that is remembered |
//! | [`receipts`] | what servers say they ran, and whether it is their word |
//! | [`approvals`] | who said that an artifact may go somewhere |

mod approvals;
mod commands;
mod entries;
mod receipts;
mod remember;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use commands::{AuditCommand, run};
pub(crate) use entries::head;
pub(crate) use receipts::{Word, words};
pub(crate) use remember::check as check_head;
