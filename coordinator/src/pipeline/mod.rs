//! What begins by itself, decided. Pure: no clock, no store, no agents; [`judge`] takes all that is known of one app in one
//! environment at one moment, and says of every candidate that waits what it waits for, or that it begins, or that it is
//! not wanted any more.
//!
//! These are guards against mistakes, and no protection against a stolen coordinator: that is the gate, which every server
//! checks. So a candidate begins here at the earliest when its gate is met, and the servers decide all the same.

mod engine;

#[cfg(test)]
mod tests;

pub use engine::{
    Candidate, GateState, OrderedBy, Origin, Rules, Situation, Started, Superseded, Verdict, Wait, judge,
};
