//! What a deployment would run and skip here, before anything is done: the conditions of its plan over what is known now.

use std::collections::BTreeMap;

use consign_common::{
    artifact::Manifest,
    deployment::StepOutcome,
    name::StepName,
    plan::{Phase, Step},
    trust::{Foreseen, authorize::Work},
};

use super::{
    Site,
    conditions::{brief, brief_inputs, facts},
};

/// Bytes of a reason: an answer has one for each of up to 200 steps.
const REASON: usize = 2048;

/// One step of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foresight {
    pub name: StepName,
    /// The kind's key in `consign.toml`.
    pub kind: &'static str,
    pub decision: Decision,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Run,
    /// With what makes it so.
    Skip {
        because: String,
    },
    /// What it waits for.
    Undetermined {
        because: String,
    },
}

impl Decision {
    /// The decision's name on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Skip { .. } => "skip",
            Self::Undetermined { .. } => "undetermined",
        }
    }

    /// Absent for what is not determined.
    pub fn foreseen(&self) -> Option<Foreseen> {
        match self {
            Self::Run => Some(Foreseen::Run),
            Self::Skip { .. } => Some(Foreseen::Skip),
            Self::Undetermined { .. } => None,
        }
    }

    pub fn because(&self) -> &str {
        match self {
            Self::Run => "",
            Self::Skip { because } | Self::Undetermined { because } => because,
        }
    }
}

/// The steps of a deployment of `work`, in their order; `previous` is the manifest of what is good now.
pub fn foresee<F, P, R>(
    site: &Site<F, P, R>,
    work: &Work,
    previous: Option<&Manifest>,
    skip: &[StepName],
) -> Vec<Foresight> {
    let facts = facts(site, work, previous);
    let decide = |step: &Step| {
        if !step.on.contains(&Phase::Deploy) {
            return skipped(StepOutcome::not_for(Phase::Deploy, &step.on));
        }
        if skip.contains(&step.name) {
            return skipped(StepOutcome::left_out("left out by the order"));
        }
        if let Some(condition) = &step.when {
            let unforeseeable = condition.unforeseeable();
            if !unforeseeable.is_empty() {
                return undetermined(format!("it depends on {}", unforeseeable.join(", ")));
            }
            match condition.evaluate(&facts) {
                Ok(evaluation) if !evaluation.value => {
                    let inputs = brief_inputs(evaluation.inputs);
                    return skipped((condition.text().to_owned(), inputs));
                }
                Ok(_) => {}
                Err(message) => return undetermined(format!("it cannot be evaluated: {message}")),
            }
        }
        if step.once {
            return undetermined("once: on the first server where it is true".to_owned());
        }
        Decision::Run
    };
    let foresight =
        |step: &Step| Foresight { name: step.name.clone(), kind: step.kind.as_str(), decision: decide(step) };
    work.plan.steps.iter().map(foresight).collect()
}

fn skipped((expression, inputs): (String, BTreeMap<String, String>)) -> Decision {
    let text = StepOutcome::Skipped { expression, inputs }.to_string();
    Decision::Skip { because: brief(text.strip_prefix("skipped: ").unwrap_or(&text), REASON) }
}

fn undetermined(because: String) -> Decision {
    Decision::Undetermined { because: brief(&because, REASON) }
}
