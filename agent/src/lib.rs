//! The agent: dials out to the coordinator, decides for itself whether an order may run, runs its steps through a
//! supervisor that outlives it, and streams every byte of output back.

pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
pub mod executor;
#[cfg(test)]
mod fixture;
pub mod identity;
pub mod journal;
pub mod ledger;
pub mod logs;
pub mod manager;
pub mod ports;
pub mod receipts;
pub mod session;
pub mod stage;
pub mod state;
pub mod status;
pub mod supervisor;
