//! Fuzzers of everything that is read before it is trusted ([docs/fuzzing.md](../../../docs/fuzzing.md)).
//!
//! They run on the stable toolchain and link nothing but `consign-common`. There is no coverage to steer by: what steers is
//! what the reader said. An input that is refused for a reason that was not seen yet, or accepted in a new shape, is kept
//! and mutated further. Everything comes from the seed, so that a run can be run again.
//!
//! | module | holds |
//! |---|---|
//! | [`targets`] | what is read, and what must hold of it whatever the input |
//! | [`mutate`] | changes that keep JSON, TOML, base64 and SSH's encoding nearly whole |
//! | [`run`] | the loop, what it measures, and how a failure is made small |
//! | [`memory`] | what one input makes the reader allocate |

#![expect(clippy::unwrap_used, reason = "test code: a panic is how a fuzzer says that it failed")]

pub mod memory;
pub mod mutate;
pub mod random;
pub mod run;
pub mod targets;
