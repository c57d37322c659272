//! TOML that people write, read with the place of everything: plans, and what else points into its file when it is wrong.

mod fields;
mod problems;

pub use fields::{Fields, Located, did_you_mean, duration, integer, wrong_type};
pub use problems::{DocumentError, Problem, Problems};
