//! Bad input, as those meet it who sent it: a clear error, nothing lost, nothing half-done.

mod clocks;
mod disks;
mod interruptions;
mod output;
mod packs;
mod places;
mod steps;
pub(crate) mod support;
mod tokens;
mod trust;
