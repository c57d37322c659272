//! The plan: `consign.toml`, the ordered steps of a deployment (docs/formats.md, "plan").
//!
//! [`Plan::parse`] is the one way in. It reports every problem that it can find at once, each with its place in the
//! file, so that a plan that packs cannot fail later for a reason that was already written in it.

mod changes;
pub mod condition;
mod model;
mod parse;
mod rules;
mod step;

pub use changes::Changes;
pub use condition::{Condition, Evaluation, Facts, HostFacts};
pub use model::{
    Deliver, FailurePolicy, HttpCheck, Kind, Param, ParamType, Phase, Plan, Retry, Step, SystemdAction,
    SystemdVerb, TcpCheck,
};
pub use parse::SharedEntry;
pub use rules::InvalidParameter;
pub(crate) use rules::bounded as bounded_regex;

pub use crate::document::{DocumentError as PlanError, Problem};

#[cfg(test)]
mod tests;
