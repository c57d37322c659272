//! How a step or a deployment ended. Every end has a reason.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{name::ServerName, plan::Phase};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StepOutcome {
    Succeeded,
    /// The condition was false; with the values of all that it names.
    Skipped {
        expression: String,
        inputs: BTreeMap<String, String>,
    },
    Failed {
        failure: Failure,
    },
    /// It was started, and nobody can say how it ended.
    Unknown {
        because: String,
    },
    Cancelled,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Failure {
    Exit {
        code: i32,
    },
    Signal {
        signal: i32,
        core_dumped: bool,
    },
    /// It ran longer than this many milliseconds.
    Timeout {
        after_ms: u64,
    },
    /// It could not be executed: missing, not executable, no such user.
    Exec {
        message: String,
    },
    OutOfMemory,
    /// The condition could not be evaluated.
    Condition {
        message: String,
    },
    /// The condition came out otherwise than in the plan that the operator pinned.
    PlanDrift {
        message: String,
    },
    /// A `once` step failed on the server that ran it.
    Elsewhere {
        message: String,
    },
    /// An operator called an unknown outcome failed.
    Decided {
        message: String,
    },
    /// A check (`http`, `tcp`, `systemd`, `activate`) did not come true; its last word.
    Check {
        message: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DeploymentOutcome {
    /// The artifact is good now. `tolerated`: steps that failed under `if_fails = "continue"`.
    Succeeded {
        tolerated: Vec<String>,
    },
    /// It was what runs already.
    NoOp,
    /// It failed and nothing of it is active: the release that ran before was not touched.
    Failed {
        because: String,
    },
    /// It failed after `activate` and the server is back on its previous good artifact.
    Returned {
        because: String,
    },
    /// It failed, and could not go back, or was told to stop where it is: a person must look.
    Stopped {
        because: String,
    },
    Unknown {
        step: String,
        because: String,
    },
    Cancelled {
        because: String,
    },
    /// The agent refused the order, by this name.
    Refused {
        code: String,
        message: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit { code } => write!(f, "exit code {code}"),
            Self::Signal { signal, core_dumped: false } => write!(f, "killed by signal {signal}"),
            Self::Signal { signal, core_dumped: true } => write!(f, "killed by signal {signal}, core dumped"),
            Self::Timeout { after_ms } => write!(f, "timed out after {:.1} s", *after_ms as f64 / 1000.0),
            Self::Exec { message } => write!(f, "could not be executed: {message}"),
            Self::OutOfMemory => f.write_str("killed: out of memory"),
            Self::Condition { message } => write!(f, "condition could not be evaluated: {message}"),
            Self::PlanDrift { message } => write!(f, "plan-drift: {message}"),
            Self::Check { message } | Self::Elsewhere { message } | Self::Decided { message } => {
                f.write_str(message)
            }
        }
    }
}

/// The record of a step that is not for this phase reads like a condition: this expression, with this input.
const PHASE: &str = "phase";
const PHASE_IN: &str = "phase in [";
/// Likewise of one that an operator leaves out, and of one that ran on another server.
const OPERATOR: &str = "operator";
const REASON: &str = "reason";
const ONCE: &str = "once";
const RAN_ON: &str = "ran on";

impl StepOutcome {
    /// A step that is only for the phases `on`.
    pub fn not_for(phase: Phase, on: &[Phase]) -> (String, BTreeMap<String, String>) {
        let on: Vec<_> = on.iter().map(|phase| format!("'{}'", phase.as_str())).collect();
        let inputs = BTreeMap::from([(PHASE.to_owned(), phase.as_str().to_owned())]);
        (format!("{PHASE_IN}{}]", on.join(", ")), inputs)
    }

    /// A step that an operator leaves out.
    pub fn left_out(reason: &str) -> (String, BTreeMap<String, String>) {
        (OPERATOR.to_owned(), BTreeMap::from([(REASON.to_owned(), reason.to_owned())]))
    }

    /// A `once` step that ran on this server of the rollout.
    pub fn ran_on(server: &ServerName) -> (String, BTreeMap<String, String>) {
        (ONCE.to_owned(), BTreeMap::from([(RAN_ON.to_owned(), server.to_string())]))
    }
}

impl fmt::Display for StepOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Skipped { expression, inputs } => {
                if let Some(phase) = inputs.get(PHASE).filter(|_| expression.starts_with(PHASE_IN)) {
                    let what = if phase == Phase::Deploy.as_str() { "deployment" } else { phase.as_str() };
                    return write!(f, "skipped: not for a {what}");
                }
                if let Some(reason) = inputs.get(REASON).filter(|_| expression == OPERATOR) {
                    return write!(f, "skipped: by an operator: {reason}");
                }
                if let Some(server) = inputs.get(RAN_ON).filter(|_| expression == ONCE) {
                    return write!(f, "skipped: ran once, on {server}");
                }
                write!(f, "skipped: {expression} is false")?;
                let mut separator = " with ";
                // An expression that is its own only input was said already.
                for (name, value) in inputs.iter().filter(|(name, _)| *name != expression) {
                    write!(f, "{separator}{name} = {value}")?;
                    separator = ", ";
                }
                Ok(())
            }
            Self::Failed { failure } => write!(f, "failed: {failure}"),
            Self::Unknown { because } => write!(f, "unknown: {because}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl DeploymentOutcome {
    /// The state's name for people and for `--output json`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::NoOp => "no-op",
            Self::Failed { .. } => "failed",
            Self::Returned { .. } => "returned",
            Self::Stopped { .. } => "stopped",
            Self::Unknown { .. } => "unknown",
            Self::Cancelled { .. } => "cancelled",
            Self::Refused { .. } => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_says_why_and_nothing_twice() {
        let skipped = |expression: &str, inputs: &[(&str, &str)]| {
            let inputs = inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            StepOutcome::Skipped { expression: expression.to_owned(), inputs: inputs.collect() }.to_string()
        };
        assert_eq!(
            skipped("changed('db/**')", &[("changed('db/**')", "false")]),
            "skipped: changed('db/**') is false"
        );
        assert_eq!(
            skipped("!first_deploy && changed('a')", &[("first_deploy", "false"), ("changed('a')", "false")]),
            "skipped: !first_deploy && changed('a') is false with changed('a') = false, first_deploy = false"
        );
        for (phase, on, text) in [
            (Phase::Return, Phase::Deploy, "skipped: not for a return"),
            (Phase::Deploy, Phase::Return, "skipped: not for a deployment"),
        ] {
            let (expression, inputs) = StepOutcome::not_for(phase, &[on]);
            assert_eq!(StepOutcome::Skipped { expression, inputs }.to_string(), text);
        }
        for ((expression, inputs), text) in [
            (StepOutcome::left_out("done by hand"), "skipped: by an operator: done by hand"),
            (StepOutcome::ran_on(&"web-2".parse().unwrap()), "skipped: ran once, on web-2"),
        ] {
            assert_eq!(StepOutcome::Skipped { expression, inputs }.to_string(), text);
        }
    }
}
