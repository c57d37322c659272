//! Which statements go with an order. Agents take a bounded number, and what they cannot count only costs them time.

use std::collections::BTreeSet;

use consign_common::{
    digest::Sha256,
    limits::{ENVELOPE_BYTES, EVIDENCE_BYTES, STATEMENTS},
    name::{Environment, Id},
    trust::{APPROVAL, DECISION, Gate, PUBLISHED, TrustRoot},
};

use super::statements::Kept;

/// Publications with one order: an agent takes the highest that it may use.
const PUBLICATIONS: usize = 8;

/// Bytes of all statements about an artifact that go with one order: a config goes beside them.
pub(super) const ARTIFACT_EVIDENCE_BYTES: usize = EVIDENCE_BYTES - ENVELOPE_BYTES;

/// What an order is for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    pub environment: &'a Environment,
    pub rollout: &'a Id,
}

/// Of what is kept about an artifact, newest first, what this environment's gate may ask for: the newest publications; of
/// every predicate that the gate names the newest by each set of signers; the decisions about this rollout. As much as
/// goes with one order, and the config beside it.
pub fn relevant<'a>(kept: &'a [Kept], root: &TrustRoot, purpose: Purpose<'_>) -> Vec<&'a Kept> {
    let Purpose { environment, rollout } = purpose;
    let mut chosen = needed(kept, root, environment, |decision| decision.is_about(rollout));
    let older = kept.iter().filter(|kept| kept.predicate == PUBLISHED).skip(1);
    let room = STATEMENTS.saturating_sub(chosen.len()).min(PUBLICATIONS.saturating_sub(1));
    chosen.extend(older.take(room));
    let mut bytes = 0;
    chosen.retain(|kept| {
        let fits = bytes + kept.envelope.len() <= ARTIFACT_EVIDENCE_BYTES;
        bytes += if fits { kept.envelope.len() } else { 0 };
        fits
    });
    chosen
}

/// Bytes of all that an order to this environment needs of them, whatever rollout it is of.
pub(super) fn bytes_with_an_order(kept: &[Kept], root: &TrustRoot, environment: &Environment) -> usize {
    needed(kept, root, environment, |_| true).iter().map(|kept| kept.envelope.len()).sum()
}

/// The newest publication, and what is asked for beside it.
fn needed<'a>(
    kept: &'a [Kept],
    root: &TrustRoot,
    environment: &Environment,
    counts: impl Fn(&Kept) -> bool,
) -> Vec<&'a Kept> {
    let (published, others): (Vec<_>, Vec<_>) = kept.iter().partition(|kept| kept.predicate == PUBLISHED);
    let mut chosen: Vec<&Kept> = published.first().copied().into_iter().collect();
    let asked = asked(root, environment);
    let mut heard: BTreeSet<(&str, &[Sha256])> = BTreeSet::new();
    for kept in &others {
        let here = match kept.predicate.as_str() {
            DECISION => false,
            APPROVAL => kept.environment.as_ref() == Some(environment),
            _ => true,
        };
        if here && asked.contains(&kept.predicate.as_str()) && heard.insert((&kept.predicate, &kept.signers))
        {
            chosen.push(kept);
        }
    }
    let decided = |kept: &&Kept| {
        kept.predicate == DECISION && kept.environment.as_ref() == Some(environment) && counts(kept)
    };
    chosen.extend(others.iter().copied().filter(decided));
    chosen.truncate(STATEMENTS);
    chosen
}

/// The predicate types that the environment's gate names.
fn asked<'a>(root: &'a TrustRoot, environment: &Environment) -> Vec<&'a str> {
    match root.environments.get(environment) {
        None | Some(Gate::PublisherOnly {}) => Vec::new(),
        Some(Gate::Statements { require, rearm, .. }) => {
            require.iter().chain(rearm).map(|rule| rule.predicate.as_str()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use consign_common::{
        time::UnixMs,
        trust::{GateRule, OrderingNumber, Separation},
    };

    use super::*;

    const TESTED: &str = "https://in-toto.io/attestation/test-result/v0.1";

    fn root(predicates: &[&str]) -> TrustRoot {
        let rule = |predicate: &&str| GateRule {
            predicate: (*predicate).to_owned(),
            role: "qa".parse().unwrap(),
            threshold: 1,
            condition: None,
        };
        let require = predicates.iter().map(rule).collect();
        let gate = Gate::Statements { require, rearm: Vec::new(), separation: Separation::None };
        TrustRoot {
            version: 1,
            issued: UnixMs(0),
            expires: UnixMs(1),
            keys: BTreeMap::new(),
            root: consign_common::trust::RoleKeys { keys: vec![], threshold: 1 },
            roles: BTreeMap::new(),
            apps: BTreeMap::new(),
            environments: [
                ("production".parse().unwrap(), gate),
                ("staging".parse().unwrap(), Gate::PublisherOnly {}),
            ]
            .into(),
            coordinators: vec![],
            revoked: vec![],
            enrolment: None,
        }
    }

    fn kept(predicate: &str, environment: &str, signer: &str, ms: u64) -> Kept {
        let text = format!("{predicate} {environment} {signer} {ms}");
        Kept {
            digest: Sha256::of(text.as_bytes()),
            artifact: Sha256::of(b"artifact"),
            predicate: predicate.to_owned(),
            environment: environment.parse().ok(),
            about: String::new(),
            signers: vec![Sha256::of(signer.as_bytes())],
            number: OrderingNumber { epoch: 0, ms: UnixMs(ms) },
            envelope: text.into_bytes(),
            added_by: String::new(),
            added: UnixMs(ms),
        }
    }

    fn decision(rollout: &Id, ms: u64) -> Kept {
        Kept { about: format!("{rollout}//warm"), ..kept(DECISION, "production", "pat", ms) }
    }

    fn texts(all: &[Kept], root: &TrustRoot, environment: &str) -> Vec<String> {
        let rollout = Id::from_bytes([1; 16]);
        let environment = environment.parse().unwrap();
        relevant(all, root, Purpose { environment: &environment, rollout: &rollout })
            .into_iter()
            .map(|kept| String::from_utf8(kept.envelope.clone()).unwrap())
            .collect()
    }

    #[test]
    fn only_what_the_gate_asks_for_goes_along() {
        let all = [
            kept(APPROVAL, "production", "pat", 9),
            kept(APPROVAL, "production", "sam", 8),
            kept(APPROVAL, "production", "pat", 7),
            kept(APPROVAL, "staging", "pat", 6),
            kept(TESTED, "", "qa", 5),
            kept("https://slsa.dev/provenance/v1", "", "ci", 4),
            kept(PUBLISHED, "", "ci", 3),
            decision(&Id::from_bytes([1; 16]), 2),
            decision(&Id::from_bytes([2; 16]), 1),
        ];
        let gated = texts(&all, &root(&[APPROVAL, TESTED]), "production");
        let expected = [
            format!("{PUBLISHED}  ci 3"),
            format!("{APPROVAL} production pat 9"),
            format!("{APPROVAL} production sam 8"),
            format!("{TESTED}  qa 5"),
            format!("{DECISION} production pat 2"),
        ];
        assert_eq!(gated, expected);
        assert_eq!(texts(&all, &root(&[APPROVAL]), "staging"), [format!("{PUBLISHED}  ci 3")]);
        assert_eq!(texts(&all, &root(&[APPROVAL]), "elsewhere"), [format!("{PUBLISHED}  ci 3")]);
    }

    #[test]
    fn never_more_bytes_than_an_order_may_carry() {
        let root = root(&[APPROVAL, TESTED]);
        let mut all: Vec<Kept> = (0..12).map(|n| kept(TESTED, "", &format!("key-{n}"), 100 - n)).collect();
        all.iter_mut().for_each(|kept| kept.envelope.resize(ENVELOPE_BYTES, b'x'));
        all.push(kept(APPROVAL, "production", "pat", 9));
        all.push(kept(PUBLISHED, "", "ci", 3));
        let (environment, rollout) = ("production".parse().unwrap(), Id::from_bytes([1; 16]));
        assert!(bytes_with_an_order(&all, &root, &environment) > ARTIFACT_EVIDENCE_BYTES);
        let chosen = relevant(&all, &root, Purpose { environment: &environment, rollout: &rollout });
        let bytes: usize = chosen.iter().map(|kept| kept.envelope.len()).sum();
        assert!(bytes <= ARTIFACT_EVIDENCE_BYTES && bytes > ARTIFACT_EVIDENCE_BYTES - ENVELOPE_BYTES);
        // What is small has its place all the same.
        assert!(chosen.iter().any(|kept| kept.predicate == APPROVAL));
        assert_eq!(chosen[0].predicate, PUBLISHED);
        assert_eq!(
            bytes_with_an_order(&all[12..], &root, &environment),
            all[12].envelope.len() + all[13].envelope.len()
        );
    }

    #[test]
    fn never_more_than_an_order_may_carry() {
        let mut all: Vec<Kept> =
            (0..40).map(|n| kept(APPROVAL, "production", &format!("key-{n}"), 100 + n)).collect();
        all.extend((0..40).map(|n| kept(PUBLISHED, "", "ci", 99 - n)));
        let chosen = texts(&all, &root(&[APPROVAL]), "production");
        assert_eq!(chosen.len(), STATEMENTS);
        assert_eq!(chosen[0], format!("{PUBLISHED}  ci 99"));
        // And with room, some publications: an agent may not be able to use the newest.
        let few = texts(&all[40..], &root(&[APPROVAL]), "production");
        assert_eq!(few.len(), PUBLICATIONS);
    }
}
