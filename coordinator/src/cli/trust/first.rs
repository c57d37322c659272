//! The gates that `consign init` makes. Pure but for the keys' files, which it reads.

use std::collections::BTreeMap;

use consign_common::{
    name::{Environment, Owner},
    trust::{APPROVAL, Gate, GateRule, Separation, TrustRoot},
};

use super::{
    edit::{Edit, apply},
    role::{NamedKey, RoleName},
};
use crate::cli::{
    failure::{Failure, Result},
    key::PublicKeyFile,
    signer::PublicKeyName,
};

/// As an option has it: `ENV=[OWNER=]FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Approver {
    environment: Environment,
    key: PublicKeyName,
}

impl std::str::FromStr for Approver {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (environment, key) = text.split_once('=').ok_or("it is written ENV=FILE or ENV=OWNER=FILE")?;
        let environment = environment.parse::<Environment>().map_err(|error| error.to_string())?;
        Ok(Self { environment, key: key.parse()? })
    }
}

/// Where somebody approves, an approval is required from then on, and the publisher's own is none.
pub(in crate::cli) fn with_approvers(mut root: TrustRoot, approvers: &[Approver]) -> Result<TrustRoot> {
    if let Some(Approver { environment, .. }) =
        approvers.iter().find(|approver| !root.environments.contains_key(&approver.environment))
    {
        return Err(Failure::usage(format!("--approver {environment}=...: there is no --env {environment}")));
    }
    let mut by_environment: BTreeMap<&Environment, Vec<NamedKey>> = BTreeMap::new();
    for Approver { environment, key } in approvers {
        let key = NamedKey::of(PublicKeyFile::find(key, None)?)?;
        by_environment.entry(environment).or_default().push(key);
    }
    for (environment, keys) in by_environment {
        let role: Owner = format!("{environment}-approvers").parse().map_err(|_| {
            Failure::usage(format!("{environment} is too long a name for a role of its own"))
                .next("init without --approver, then: consign trust add-key, consign trust set-gate")
        })?;
        let add = Edit::AddKeys { role: RoleName::Gate(role.clone()), keys, threshold: Some(1) };
        apply(&mut root, add)?;
        let rule = GateRule { predicate: APPROVAL.to_owned(), role, threshold: 1, condition: None };
        let gate =
            Gate::Statements { require: vec![rule], rearm: Vec::new(), separation: Separation::Publisher };
        apply(&mut root, Edit::SetGate { environment: environment.clone(), gate })?;
    }
    Ok(root)
}
