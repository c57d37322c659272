//! The plan: `consign.toml`, the ordered steps of a deployment.

mod model;

pub use model::{
    FailurePolicy, HttpCheck, Kind, Param, ParamType, Phase, Plan, Retry, Step, SystemdAction, SystemdVerb,
    TcpCheck,
};
