//! What a server answers to a query: what it would do with an order. Nothing of it is kept.

use consign_common::{digest::Sha256, name::StepName};

/// What one server would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// Its steps, in their order.
    Steps(Vec<Foreseeing>),
    /// It runs this already.
    NoOp,
    /// The order would be refused by this name.
    Refused { code: String, message: String },
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

/// What is asked: an order as it would be sent, and the artifact that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub document: Vec<u8>,
    pub statements: Vec<Vec<u8>>,
    pub sealed: Vec<u8>,
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
