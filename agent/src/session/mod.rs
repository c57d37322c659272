//! The agent's side of the wire: one connection to the coordinator, made again whenever it ends. The only place where
//! tonic is.
//!
//! | module | holds |
//! |---|---|
//! | [`dial`] | the way there: address, proxy, TLS with the pinned CA, whether the trust root names who answers |
//! | [`run`] | the life of the session: connect, serve, wait, again |
//! | [`stream`] | one session: orders down, events up, heartbeats both ways |
//! | [`convert`] | our types to the wire's |
//! | [`unary`] | enrol and renew |
//! | [`fetch`] | manifests and packs, on connections of their own |

mod backoff;
mod convert;
pub mod dial;
pub mod fetch;
pub mod proxy;
pub mod run;
mod stream;
pub mod unary;

pub use backoff::fraction;
pub use convert::Host;

#[cfg(test)]
mod tests;
