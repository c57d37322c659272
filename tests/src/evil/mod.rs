//! Peers that do what no honest one does, against the real binaries: a coordinator with all its keys, and an agent with
//! one server's certificate.

pub mod agent;
pub mod coordinator;
mod table;

pub use table::table;
