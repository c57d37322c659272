//! `consign trust`: the document that says whose key may do what, shown and changed. What the coordinator has is
//! believed only as far as it follows from the copy that is pinned here.
//!
//! | module | holds |
//! |---|---|
//! | [`args`], [`commands`] | the grammar, and what the commands do |
//! | [`change`], [`sign`], [`draft`] | one change, signed here or by several on their own machines |
//! | [`edit`], [`role`], [`rule`] | changes of a trust root, the names of roles, the rules of gates |
//! | [`difference`], [`show`] | what changes, and what is, in words |
//! | [`readers`] | which agents can read what |
//! | [`first`] | the gates that `consign init` makes |
//! | [`expiry`] | its end: said before, and after |

mod args;
mod change;
mod commands;
mod difference;
mod draft;
mod edit;
mod expiry;
mod first;
mod readers;
mod role;
mod rule;
mod show;
mod sign;

pub(super) use args::TrustCommand;
pub(super) use commands::{newest, run};
pub(super) use difference::owners;
pub(super) use expiry::{Validity, warn};
pub(super) use first::{Approver, with_approvers};
pub(super) use rule::gate_text;
