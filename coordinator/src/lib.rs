//! The coordinator: which artifact goes to which servers, in which order; and the operator's command line.
//!
//! | module | holds |
//! |---|---|
//! | [`bundle`] | what `consign init` hands to the coordinator |
//! | [`cli`] | the operator's command line |
//! | [`config`] | signed values, sealed secrets, and the keys that they are sealed to |
//! | [`serve`] | `consign serve`: wiring, start, stop |
//! | [`store`] | the state directory and its database |
//! | [`trust_roots`] | the trust roots it keeps and hands on |
//! | [`repository`] | artifacts: publication, reading, retention |
//! | [`enrolment`] | tokens, certificates, renewal |
//! | [`environments`] | how rollouts go about it where |
//! | [`operators`] | people and pipelines with identities |
//! | [`fleet`] | servers: who they are, what they said, how they are chosen |
//! | [`pipeline`] | what begins by itself, decided; pure |
//! | [`candidates`] | what may begin by itself, durable |
//! | [`rollout`] | the pure engine: waves, stops, verdicts |
//! | [`rollouts`] | rollouts as they happen: the engine between store, agents and operators |
//! | [`logs`] | the output of steps |
//! | [`grpc`] | listeners, callers, roles, services |

pub mod bundle;
pub mod candidates;
pub mod cli;
pub mod config;
pub mod enrolment;
pub mod environments;
pub mod fleet;
pub mod grpc;
pub mod logs;
pub mod operators;
pub mod pipeline;
pub mod repository;
pub mod rollout;
pub mod rollouts;
pub mod serve;
pub mod store;
pub mod trust_roots;
