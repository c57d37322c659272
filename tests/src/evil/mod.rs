//! Peers that do what no honest one does, against the real binaries: a coordinator with all its keys, and an agent with
//! one server's certificate.

#![expect(clippy::expect_used, reason = "test code: a panic is how an attack says that it went another way")]
#![expect(clippy::wildcard_enum_match_arm, reason = "of what a peer may say each attack waits for one thing")]
#![expect(clippy::needless_pass_by_ref_mut, reason = "whoever speaks for the coordinator is alone in it")]

pub mod agent;
pub mod coordinator;
mod table;

pub use table::table;
