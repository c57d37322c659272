//! What is sealed to this server: kept sealed, and opened for every attempt that has it, as a variable or as a file.

use std::collections::BTreeMap;

use consign_common::{
    name::StepName,
    plan::{Deliver, Phase, Plan},
    sealing::{self, Secret, masks},
    trust::{Order, OrderKind, Refusal, authorize::Work},
};

use super::{Origin, Roots, Site};
use crate::{
    journal::{JournalError, Pointer},
    supervisor::AttemptSpec,
};

/// The secrets of an artifact's config, each held to what was signed.
pub fn open_secrets<F, P, R>(
    site: &Site<F, P, R>,
    work: &Work,
    sealed: Option<&[u8]>,
) -> Result<BTreeMap<StepName, Secret>, Refusal> {
    let commitments = work.config.commitments();
    let environment = &site.word.environment;
    sealing::open(sealed.unwrap_or_default(), &site.sealing_key, &work.plan, environment, &commitments)
}

/// What a deployment may have to open, by the artifact that it runs steps of.
#[derive(Debug, Default)]
pub(super) struct SealedValues {
    /// Came with the order.
    ordered: Option<Vec<u8>>,
    /// Of the artifact to go back to.
    returned: Option<Vec<u8>>,
}

impl SealedValues {
    pub(super) async fn read<F, P, R: Roots>(
        site: &Site<F, P, R>,
        order: &Order,
        origin: &Origin,
    ) -> Result<Self, JournalError> {
        let ordered = match origin {
            Origin::Order(accepted) => accepted.order.sealed.clone(),
            Origin::Journal(_) => {
                site.journal.order_of(&order.deployment).await?.and_then(|kept| kept.sealed)
            }
        };
        let pointer = match &order.order {
            OrderKind::Return { .. } => Pointer::Before,
            OrderKind::Deploy { .. }
            | OrderKind::Cancel { .. }
            | OrderKind::Confirm {}
            | OrderKind::Decide { .. }
            | OrderKind::Once { .. } => Pointer::Good,
        };
        let returned = site.journal.sealed(&order.app, &order.environment, pointer).await?;
        Ok(Self { ordered, returned })
    }

    pub(super) fn of(&self, phase: Phase) -> Option<&[u8]> {
        match phase {
            Phase::Deploy => self.ordered.as_deref(),
            Phase::Return => self.returned.as_deref(),
        }
    }
}

/// Gives an attempt its secrets, as the plan wants them delivered, and says what its output must not have. The plan's check
/// sees to it that a step's own `env` names none of their variables.
pub(super) fn deliver(spec: &mut AttemptSpec, plan: &Plan, secrets: &BTreeMap<StepName, Secret>) {
    for (name, secret) in secrets {
        let variable = name.as_str().to_ascii_uppercase();
        let value = secret.value().to_owned();
        match plan.params.get(name).map(|param| param.deliver) {
            Some(Deliver::File) => {
                spec.files.insert(format!("{variable}_FILE"), value);
            }
            Some(Deliver::Env) | None => {
                spec.env.insert(variable, value);
            }
        }
    }
    spec.secrets = masks(secrets.values().map(Secret::value));
}

#[cfg(test)]
mod tests {
    use consign_common::sealing::Salt;

    use super::*;

    #[test]
    fn each_secret_goes_its_own_way_and_all_are_masked() {
        let text = "app = \"shop\"\n[params.token]\ntype = \"string\"\nsecret = true\n[params.key]\ntype = \"string\"\n\
                    secret = true\ndeliver = \"file\"\n[[step]]\nname = \"a\"\n\
                    run = [\"true\"]\nenv = { MORE = \"of the step\" }\n[[step]]\nname = \"b\"\nactivate = true\n";
        let plan = Plan::parse(text, "consign.toml").unwrap();
        let secret = |value: &str| Secret::new(Salt::random().unwrap(), value.into());
        let secrets = BTreeMap::from([
            ("token".parse().unwrap(), secret("correct horse")),
            ("key".parse().unwrap(), secret("battery\nstaple")),
        ]);
        let mut spec = AttemptSpec {
            attempt: "deploy-0-1".parse().unwrap(),
            argv: vec!["true".into()],
            env: BTreeMap::from([("MORE".into(), "of the step".into())]),
            cwd: "/".into(),
            user: None,
            timeout_ms: 1,
            grace_ms: 1,
            tty: false,
            leaves: false,
            secrets: vec![],
            files: BTreeMap::new(),
            log_limit: 10_000,
        };
        deliver(&mut spec, &plan, &secrets);
        assert_eq!(spec.env["TOKEN"], "correct horse");
        assert_eq!(spec.files, BTreeMap::from([("KEY_FILE".to_owned(), "battery\nstaple".to_owned())]));
        assert_eq!(spec.env["MORE"], "of the step");
        assert!(!spec.env.contains_key("KEY"));
        for mask in ["correct horse", "battery\nstaple", "battery", "staple"] {
            assert!(spec.secrets.iter().any(|known| known == mask), "{mask:?}");
        }
        let told = format!("{spec:?}");
        assert!(!told.contains("horse") && !told.contains("staple"), "{told}");
    }
}
