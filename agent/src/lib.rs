//! The agent: dials out to the coordinator, decides for itself whether an order may run, runs its steps through a
//! supervisor that outlives it, and streams every byte of output back.

pub mod core;
pub mod journal;
pub mod ports;
