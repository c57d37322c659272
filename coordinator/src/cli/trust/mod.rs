//! `consign trust`: the document that says whose key may do what, shown and changed. What the coordinator has is
//! believed only as far as it follows from the copy that is pinned here.

mod commands;
mod edit;

pub(super) use commands::{TrustCommand, newest, run};
pub(super) use edit::owners;
