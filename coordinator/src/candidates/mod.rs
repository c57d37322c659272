//! Artifacts that may begin by themselves in an environment, durable: made together with what made them one (a
//! publication, a rollout that succeeded), and settled together with what settled them. So a crash loses none and starts
//! none twice. What each waits for is not kept: [`crate::pipeline`] says it anew whenever it is asked.

mod row;
mod store;
pub mod tell;

pub use row::{CandidateRow, Settled, Standing};
pub use store::{
    Query, Which, claim, list, newest, published, refused, retain, settle_by_hand, started, succeeded,
    supersede, veto, waiting, waiting_count,
};

/// Who starts what begins by itself. No operator's name has a space.
pub const PIPELINE: &str = "the pipeline";
