//! The coordinator and the operator's command line.

pub mod bundle;
