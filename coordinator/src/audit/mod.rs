//! The audit log: every verb that changes something, every one that was refused, and what the coordinator decided by
//! itself; in the transaction of the effect itself, in a chain that others remember the end of.
//!
//! The access layer begins an [`Act`] for each call of a verb ([`verbs`]); whoever carries the verb out [`note`]s what it
//! is about; and the first transaction that is committed for it carries it into the log. So no verb can forget to.
//!
//! | module | holds |
//! |---|---|
//! | [`verbs`] | which methods change something, and what they are called |
//! | [`act`] | what is being done, while it is done |
//! | [`store`] | the log itself |
//! | [`heads`] | what agents remember of it |
//! | [`receipts`] | what agents say they ran |
//! | [`refusals`] | what was not let happen, within bounds |

mod act;
pub mod heads;
pub mod receipts;
mod refusals;
pub mod store;
pub mod verbs;

pub use act::{Act, acting, aside, note, note_signers};
pub use refusals::Refusals;
pub use store::{Filter, Rearm, carry, head, own, rearm, record};
