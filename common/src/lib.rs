//! What coordinator and agent must agree on. Pure: no tokio, no clock, no randomness, no environment; they come in
//! as parameters. Only [`crash`] reads the environment, in debug builds.
//!
//! | module | holds |
//! |---|---|
//! | [`name`], [`digest`], [`time`] | the small types that every document is made of |
//! | [`limits`] | every maximum, with what it stops |
//! | [`json`] | strict JSON: one way to read our own documents |
//! | [`document`] | TOML that people write, and where it is wrong |
//! | [`artifact`] | manifest, archives, packs: bytes to artifact and back |
//! | [`plan`] | `consign.toml`: model, checks, conditions |
//! | [`config`] | the values that a plan's parameters have in an environment |
//! | [`sealing`] | secrets on their way to one server |
//! | [`trust`] | keys, envelopes, statements, the trust root, [`trust::authorize`](trust::authorize::authorize) |
//! | [`deployment`] | orders' effects: events, outcomes, log records |
//! | [`terminal`] | foreign bytes, made safe to show |
//! | [`tls`] | who may talk: certificates, pins, rustls configurations |
//! | [`durable`] | files that survive a crash |
//! | [`crash`] | the instants of a crash, by name, for debug builds |
//! | [`wire`] | what both ends of the wire hold to beside the messages |

pub mod artifact;
pub mod config;
pub mod crash;
pub mod deployment;
pub mod digest;
pub mod document;
pub mod durable;
pub mod error;
pub mod json;
pub mod limits;
pub mod name;
pub mod plan;
pub mod sealing;
pub mod terminal;
pub mod time;
pub mod tls;
pub mod trust;
pub mod wire;
