//! What a server answers to a query: what it would do with an order. Nothing of it is kept.

use consign_common::{digest::Sha256, name::StepName};

/// What one server would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// Its steps, in their order.
    Steps { steps: Vec<Foreseeing>, held: Option<Held> },
    /// It runs this already.
    NoOp { held: Option<Held> },
    /// The order would be refused by this name.
    Refused { code: String, message: String },
}

/// A refusal that signatures may yet lift: the order would come to that, and would not be let through as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub code: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseeing {
    pub step: StepName,
    pub kind: String,
    pub decision: Decision,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Run,
    Skip {
        because: String,
    },
    /// It depends on what happens until then.
    Undetermined {
        because: String,
    },
}

/// An order's document with what goes beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Papers {
    pub document: Vec<u8>,
    pub statements: Vec<Vec<u8>>,
    /// The plan document that approvals name; empty: none.
    pub plan: Vec<u8>,
    /// What is sealed to the server; empty: nothing.
    pub sealed: Vec<u8>,
}

/// What is asked: an order as it would be sent, and the artifact that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub papers: Papers,
    /// The server may fetch the manifest of it until it has answered.
    pub manifest: Sha256,
}

impl Decision {
    /// The decision's name on the wire, in a plan's digest and for `--output json`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Skip { .. } => "skip",
            Self::Undetermined { .. } => "undetermined",
        }
    }

    pub fn because(&self) -> &str {
        match self {
            Self::Run => "",
            Self::Skip { because } | Self::Undetermined { because } => because,
        }
    }
}
