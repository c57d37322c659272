//! The attacks, by what they attack.

pub(super) mod bounds;
pub(super) mod config;
pub(super) mod decisions;
pub(super) mod documents;
pub(super) mod gate;
pub(super) mod orders;
pub(super) mod remains;
pub(super) mod roots;
pub(super) mod signatures;
pub(super) mod word;
