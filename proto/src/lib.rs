//! The wire, generated from `consign/v1/*.proto` when the crate is built. Generated types go no further than
//! `common::wire` and the service modules of agent and coordinator.

#[allow(clippy::all, clippy::pedantic, missing_debug_implementations)]
pub mod v1 {
    tonic::include_proto!("consign.v1");
}

/// The serialized `FileDescriptorSet` of the whole API.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/consign.bin"));
