//! Acceptance cases: what users of other deployers complained of most, each by its name there. T3, T4 and T5 are on real
//! hosts (`tests/hosts/cases.rs`).

mod budget;
mod leftovers;
mod operators;
mod output;
mod retention;
mod stop_step;
mod support;
