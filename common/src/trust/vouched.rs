//! Statements that are about no artifact: config, and servers' keys. Each is signed by a role of its own.

use super::{
    Config, ENROLLED, Enrolled, Envelope, Predicate, Refusal, RoleKeys, STATEMENT_TYPE, Statement, TrustRoot,
};
use crate::{
    digest::Sha256,
    json,
    limits::ENVELOPE_BYTES,
    name::{App, ServerName},
    sealing::Recipient,
};

impl TrustRoot {
    /// Who signs the config of an app; `None` for one that is not named.
    pub fn config_role(&self, app: &App) -> Option<&RoleKeys> {
        let trust = self.apps.get(app)?;
        match &trust.config {
            None => Some(&trust.publishers),
            // `check` refuses a trust root in which there is no such role.
            Some(role) => self.roles.get(role),
        }
    }

    /// Who vouches for servers' keys.
    pub fn enrolment_role(&self) -> &RoleKeys {
        self.enrolment.as_ref().unwrap_or(&self.root)
    }
}

/// A config that those have signed who may, for the app that it names. That it fits a plan is another question.
pub fn open_config(envelope: &[u8], root: &TrustRoot) -> Result<Config, Refusal> {
    let envelope = typed(envelope)?;
    // Only to find the role; nothing is decided by it before it is verified.
    let app = config(envelope.payload())?.app;
    let role = root.config_role(&app).ok_or(Refusal::AppUnknown { app })?;
    config(envelope.verified_by("the config", role, &root.keys)?)
}

fn config(payload: &[u8]) -> Result<Config, Refusal> {
    let statement = Statement::parse(payload)?;
    let Predicate::Config(config) = statement.predicate else {
        return Err(malformed("it is no config"));
    };
    if statement.subject.sha256 != values_digest(&config) {
        return Err(malformed("its subject is not the digest of its values"));
    }
    if config.sequence == 0 {
        return Err(malformed("sequences begin with 1"));
    }
    Ok(config)
}

/// The subject of a config: the SHA-256 of its values as they are written.
pub fn values_digest(config: &Config) -> Sha256 {
    Sha256::of(&json::to_vec(&config.values))
}

/// A server's keys that somebody who may has vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Of its public key (SPKI) when it was accepted. Renewal gives it another one, with the old one's word.
    pub spki: Sha256,
    /// What secrets are sealed to; it stays the same for the life of the enrolment.
    pub recipient: Recipient,
    pub enrolled: Enrolled,
}

/// Checks an `enrolled` statement.
pub fn open_enrolled(envelope: &[u8], root: &TrustRoot) -> Result<Vouched, Refusal> {
    let envelope = typed(envelope)?;
    let payload = envelope.verified_by("the server's acceptance", root.enrolment_role(), &root.keys)?;
    let statement = Statement::parse(payload)?;
    let Predicate::Enrolled(enrolled) = statement.predicate else {
        return Err(malformed(&format!("it is no {ENROLLED}")));
    };
    let recipient =
        enrolled.sealing_key.as_deref().ok_or_else(|| malformed("it vouches for no sealing key"))?;
    let recipient = recipient.parse().map_err(|error| malformed(&format!("its sealing key: {error}")))?;
    Ok(Vouched { spki: statement.subject.sha256, recipient, enrolled })
}

/// The server that an envelope claims to vouch for: to find the right one, and for nothing else.
pub fn claimed_server(envelope: &[u8]) -> Result<ServerName, Refusal> {
    match Statement::parse(typed(envelope)?.payload())?.predicate {
        Predicate::Enrolled(enrolled) => Ok(enrolled.server),
        Predicate::Published(_)
        | Predicate::Approval(_)
        | Predicate::Config(_)
        | Predicate::Decision(_)
        | Predicate::Foreign { .. } => Err(malformed("it is no acceptance of a server")),
    }
}

fn typed(envelope: &[u8]) -> Result<Envelope, Refusal> {
    let envelope = Envelope::parse(envelope, ENVELOPE_BYTES)?;
    if envelope.payload_type() != STATEMENT_TYPE {
        return Err(malformed("its payload is no statement"));
    }
    Ok(envelope)
}

fn malformed(why: &str) -> Refusal {
    Refusal::Malformed { what: "statement", why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        sealing::SealingKey,
        time::UnixMs,
        trust::{AppTrust, ConfigValue, Gate, Key, Scheme, SigningKey, Subject},
    };

    struct Scene {
        root: TrustRoot,
        owner: SigningKey,
        publisher: SigningKey,
        operator: SigningKey,
    }

    fn scene() -> Scene {
        let (owner, publisher, operator) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let entry = |key: &SigningKey, name: &str| {
            let public = key.public();
            let key =
                Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: name.parse().unwrap() };
            (public.id(), key)
        };
        let role = |key: &SigningKey| RoleKeys { keys: vec![key.public().id()], threshold: 1 };
        let trust =
            AppTrust { publishers: role(&publisher), epoch: 0, floor: Default::default(), config: None };
        let root = TrustRoot {
            version: 1,
            issued: UnixMs(1),
            expires: UnixMs(2),
            keys: BTreeMap::from([
                entry(&owner, "alice"),
                entry(&publisher, "ci"),
                entry(&operator, "oscar"),
            ]),
            root: role(&owner),
            roles: BTreeMap::from([("config".parse().unwrap(), role(&operator))]),
            apps: BTreeMap::from([("shop".parse().unwrap(), trust)]),
            environments: BTreeMap::from([("production".parse().unwrap(), Gate::PublisherOnly {})]),
            coordinators: vec![],
            revoked: vec![],
            enrolment: None,
        };
        Scene { root, owner, publisher, operator }
    }

    fn config_statement(app: &str, sequence: u64) -> Statement {
        let config = Config {
            app: app.parse().unwrap(),
            environment: "production".parse().unwrap(),
            sequence,
            values: BTreeMap::from([("workers".parse().unwrap(), ConfigValue::Int(4))]),
        };
        let subject = Subject { name: "values".into(), sha256: values_digest(&config) };
        Statement { subject, predicate: Predicate::Config(config) }
    }

    fn sign(statement: &Statement, key: &SigningKey) -> Vec<u8> {
        Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]).to_vec()
    }

    #[test]
    fn config_is_signed_by_its_role_or_by_the_publishers() {
        let mut scene = scene();
        let statement = config_statement("shop", 3);
        let open = |scene: &Scene, key: &SigningKey| {
            open_config(&sign(&statement, key), &scene.root).map_err(|refusal| refusal.code())
        };
        assert_eq!(open(&scene, &scene.publisher).unwrap().sequence, 3);
        for key in [&scene.owner, &scene.operator, &SigningKey::generate().unwrap()] {
            assert_eq!(open(&scene, key), Err("signature-invalid"));
        }
        let shop: App = "shop".parse().unwrap();
        scene.root.apps.get_mut(&shop).unwrap().config = Some("config".parse().unwrap());
        assert!(open(&scene, &scene.operator).is_ok());
        assert_eq!(open(&scene, &scene.publisher), Err("signature-invalid"));
        let other = sign(&config_statement("blog", 3), &scene.operator);
        assert_eq!(open_config(&other, &scene.root).unwrap_err().code(), "app-unknown");
    }

    #[test]
    fn a_config_that_is_not_one_is_refused() {
        let scene = scene();
        let mut other_subject = config_statement("shop", 3);
        other_subject.subject.sha256 = Sha256::of(b"other");
        for bad in [other_subject, config_statement("shop", 0)] {
            let refused = open_config(&sign(&bad, &scene.publisher), &scene.root).unwrap_err();
            assert_eq!(refused.code(), "malformed");
        }
    }

    #[test]
    fn what_is_no_config_no_acceptance_or_no_statement_is_refused_as_that() {
        let scene = scene();
        let config = config_statement("shop", 3);
        let told = |refusal: Refusal| refusal.to_string();
        let acceptance = claimed_server(&sign(&config, &scene.owner)).map_err(told);
        assert!(acceptance.unwrap_err().contains("it is no acceptance of a server"));
        let Predicate::Config(values) = config.predicate.clone() else { panic!() };
        let predicate = Predicate::Foreign {
            predicate_type: "https://example.org/config".into(),
            value: serde_json::to_value(values).unwrap(),
        };
        let foreign = Statement { predicate, ..config.clone() };
        let opened = open_config(&sign(&foreign, &scene.publisher), &scene.root).map_err(told);
        assert!(opened.unwrap_err().contains("it is no config"));
        let other_type = Envelope::sign("text/plain", config.to_payload(), &[&scene.publisher]).to_vec();
        let opened = open_config(&other_type, &scene.root).map_err(told);
        assert!(opened.unwrap_err().contains("its payload is no statement"));
    }

    #[test]
    fn a_servers_keys_are_vouched_for_by_enrolment_or_by_the_root() {
        let mut scene = scene();
        let key = SealingKey::generate();
        let enrolled = |sealing_key: Option<String>| Statement {
            subject: Subject { name: "web-1".into(), sha256: Sha256::of(b"spki") },
            predicate: Predicate::Enrolled(Enrolled {
                server: "web-1".parse().unwrap(),
                environment: "production".parse().unwrap(),
                at: UnixMs(5),
                sealing_key,
            }),
        };
        let statement = enrolled(Some(key.recipient().to_string()));
        let vouched = open_enrolled(&sign(&statement, &scene.owner), &scene.root).unwrap();
        assert_eq!((vouched.spki, vouched.recipient), (Sha256::of(b"spki"), key.recipient()));
        assert_eq!(claimed_server(&sign(&statement, &scene.owner)).unwrap().as_str(), "web-1");
        let code = |statement: &Statement, key: &SigningKey, root: &TrustRoot| {
            open_enrolled(&sign(statement, key), root).unwrap_err().code()
        };
        assert_eq!(code(&statement, &scene.publisher, &scene.root), "signature-invalid");
        for bad in [None, Some("age1x".to_owned())] {
            assert_eq!(code(&enrolled(bad), &scene.owner, &scene.root), "malformed");
        }
        assert_eq!(code(&config_statement("shop", 1), &scene.owner, &scene.root), "malformed");
        let role = RoleKeys { keys: vec![scene.operator.public().id()], threshold: 1 };
        scene.root.enrolment = Some(role);
        assert!(open_enrolled(&sign(&statement, &scene.operator), &scene.root).is_ok());
        assert_eq!(code(&statement, &scene.owner, &scene.root), "signature-invalid");
    }
}
