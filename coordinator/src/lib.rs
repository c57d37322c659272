//! The coordinator: which artifact goes to which servers, in which order; and the operator's command line.
//!
//! | module | holds |
//! |---|---|
//! | [`bundle`] | what `consign init` hands to the coordinator |
//! | [`cli`] | the operator's command line |
//! | [`store`] | the state directory and its database |
//! | [`fleet`] | servers: who they are, what they said, how they are chosen |
//! | [`rollout`] | the pure engine: waves, stops, verdicts |
//! | [`rollouts`] | rollouts as they happen: the engine between store, agents and operators |
//! | [`logs`] | the output of steps |
//! | [`grpc`] | listeners, callers, roles, services |

pub mod bundle;
pub mod cli;
pub mod fleet;
pub mod grpc;
pub mod logs;
pub mod rollout;
pub mod rollouts;
pub mod store;
