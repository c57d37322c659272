//! `consign approve` and `consign attest`: what somebody signs about an artifact, after seeing what is known of it.
//!
//! | module | holds |
//! |---|---|
//! | [`papers`] | an artifact's bytes and statements, checked here |
//! | [`changes`], [`evidence`] | what is different, and all that is known, with whose word it is |
//! | [`text`] | the same on a terminal |
//! | [`approval`] | what is signed, and whether it will count |
//! | [`commands`], [`attest`] | the commands |

mod approval;
mod attest;
mod changes;
mod commands;
mod evidence;
mod papers;
mod text;

#[cfg(test)]
mod tests;

pub(crate) use attest::{AttestArgs, run as attest};
pub(crate) use commands::{ApproveArgs, run};
pub(crate) use evidence::{REARM, REQUIRE, gate_lines, in_force};
pub(crate) use papers::fetch;
pub(crate) use text::rule;

/// What the predicate types of the in-toto attestation project begin with.
const ATTESTATION: &str = "https://in-toto.io/attestation/";
