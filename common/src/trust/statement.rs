//! Statements: signed sentences, as in-toto Statements v1 (https://in-toto.io/Statement/v1) in DSSE envelopes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Refusal, refusal::shown};
use crate::{
    digest::Sha256,
    json,
    limits::ENVELOPE_BYTES,
    name::{App, Environment, Id, Platform, ServerName, StepName, Version},
    time::UnixMs,
};

/// What `_type` of every statement says.
const IN_TOTO: &str = "https://in-toto.io/Statement/v1";

/// The predicate types that are ours, as gates name them.
pub const PUBLISHED: &str = "consign:published/v1";
pub const APPROVAL: &str = "consign:approval/v1";
pub const CONFIG: &str = "consign:config/v1";
pub const ENROLLED: &str = "consign:enrolled/v1";
pub const DECISION: &str = "consign:decision/v1";

/// Exactly one subject; what it is depends on the predicate (design section 3).
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub subject: Subject,
    pub predicate: Predicate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// For people; no decision looks at it.
    pub name: String,
    pub sha256: Sha256,
}

impl Statement {
    /// The bytes to sign.
    pub fn to_payload(&self) -> Vec<u8> {
        match &self.predicate {
            Predicate::Published(predicate) => self.payload(PUBLISHED, predicate),
            Predicate::Approval(predicate) => self.payload(APPROVAL, predicate),
            Predicate::Config(predicate) => self.payload(CONFIG, predicate),
            Predicate::Enrolled(predicate) => self.payload(ENROLLED, predicate),
            Predicate::Decision(predicate) => self.payload(DECISION, predicate),
            Predicate::Foreign { predicate_type, value } => self.payload(predicate_type, value),
        }
    }

    fn payload(&self, predicate_type: &str, predicate: &impl Serialize) -> Vec<u8> {
        json::to_vec(&Outer {
            kind: IN_TOTO.to_owned(),
            subject: [OuterSubject {
                name: self.subject.name.clone(),
                digest: OuterDigest { sha256: self.subject.sha256 },
            }],
            predicate_type: predicate_type.to_owned(),
            predicate,
        })
    }

    /// Reads bytes whose signatures have been verified. Our own predicate types are read strictly, with the statement
    /// around them; an unknown type that claims to be ours is refused; all others are somebody else's.
    pub fn parse(payload: &[u8]) -> Result<Self, Refusal> {
        let probe: Foreign = foreign(payload)?;
        match probe.predicate_type.as_str() {
            PUBLISHED => own(payload, Predicate::Published),
            APPROVAL => own(payload, Predicate::Approval),
            CONFIG => own(payload, Predicate::Config),
            ENROLLED => own(payload, Predicate::Enrolled),
            DECISION => own(payload, Predicate::Decision),
            unknown if unknown.starts_with("consign:") => Err(malformed(format!(
                "this version of consign does not know the predicate type \"{}\"",
                shown(unknown)
            ))),
            _ => probe.into_statement(),
        }
    }
}

fn own<T: DeserializeOwned + Serialize>(
    payload: &[u8],
    predicate: fn(T) -> Predicate,
) -> Result<Statement, Refusal> {
    let outer: Outer<T> =
        json::from_slice_exact(payload, ENVELOPE_BYTES).map_err(|error| malformed(error.to_string()))?;
    is_in_toto(&outer.kind)?;
    let [subject] = outer.subject;
    Ok(Statement {
        subject: Subject { name: subject.name, sha256: subject.digest.sha256 },
        predicate: predicate(outer.predicate),
    })
}

fn foreign(payload: &[u8]) -> Result<Foreign, Refusal> {
    json::from_slice_foreign(payload, ENVELOPE_BYTES).map_err(|error| malformed(error.to_string()))
}

fn is_in_toto(kind: &str) -> Result<(), Refusal> {
    if kind == IN_TOTO {
        Ok(())
    } else {
        Err(malformed(format!("_type is \"{}\", not {IN_TOTO:?}", shown(kind))))
    }
}

fn malformed(why: String) -> Refusal {
    Refusal::Malformed { what: "statement", why }
}

/// A statement with a predicate of ours: nothing may stand in it that this version does not understand.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer<T> {
    #[serde(rename = "_type")]
    kind: String,
    subject: [OuterSubject; 1],
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: T,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OuterSubject {
    name: String,
    digest: OuterDigest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OuterDigest {
    sha256: Sha256,
}

/// Somebody else's statement: what we do not know is passed over, as in-toto asks.
#[derive(Deserialize)]
struct Foreign {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<ForeignSubject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
}

#[derive(Deserialize)]
struct ForeignSubject {
    #[serde(default)]
    name: String,
    digest: BTreeMap<String, Value>,
}

impl Foreign {
    fn into_statement(self) -> Result<Statement, Refusal> {
        is_in_toto(&self.kind)?;
        let [subject] = <[ForeignSubject; 1]>::try_from(self.subject)
            .map_err(|subjects| malformed(format!("{} subjects, exactly one is allowed", subjects.len())))?;
        let sha256 = subject.digest.get("sha256").and_then(Value::as_str).and_then(|hex| hex.parse().ok());
        let sha256 = sha256.ok_or_else(|| malformed("the subject has no sha256 digest".to_owned()))?;
        Ok(Statement {
            subject: Subject { name: subject.name, sha256 },
            predicate: Predicate::Foreign { predicate_type: self.predicate_type, value: self.predicate },
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    Published(Published),
    Approval(Approval),
    Config(Config),
    Enrolled(Enrolled),
    Decision(Decision),
    /// Somebody else's predicate, read leniently as in-toto asks: its type and its JSON.
    Foreign {
        predicate_type: String,
        value: Value,
    },
}

impl Predicate {
    /// As the statement and a gate's rule name it.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Published(_) => PUBLISHED,
            Self::Approval(_) => APPROVAL,
            Self::Config(_) => CONFIG,
            Self::Enrolled(_) => ENROLLED,
            Self::Decision(_) => DECISION,
            Self::Foreign { predicate_type, .. } => predicate_type,
        }
    }

    /// As JSON, for a gate's `where`.
    pub fn to_value(&self) -> Value {
        let value = match self {
            Self::Published(predicate) => serde_json::to_value(predicate),
            Self::Approval(predicate) => serde_json::to_value(predicate),
            Self::Config(predicate) => serde_json::to_value(predicate),
            Self::Enrolled(predicate) => serde_json::to_value(predicate),
            Self::Decision(predicate) => serde_json::to_value(predicate),
            Self::Foreign { value, .. } => return value.clone(),
        };
        // Structs of names and numbers: there is none that JSON cannot say.
        value.unwrap_or_default()
    }
}

/// What a deployment is ordered by in time, compared lexicographically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderingNumber {
    /// Must equal the app's epoch in the trust root; raised only to recover from a bad clock.
    pub epoch: u64,
    /// Unix milliseconds at signing.
    pub ms: UnixMs,
}

impl std::fmt::Display for OrderingNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.epoch {
            0 => write!(f, "{}", self.ms),
            epoch => write!(f, "{} in epoch {epoch}", self.ms),
        }
    }
}

/// `consign:published/v1`. Subject: the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    pub app: App,
    pub version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    pub number: OrderingNumber,
}

/// `consign:approval/v1`. Subject: the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    pub app: App,
    pub environment: Environment,
    pub number: OrderingNumber,
    /// The deployment must begin before this.
    pub start_by: UnixMs,
    /// Servers that come later may converge to what the others run until this.
    pub converge_until: UnixMs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_sha256: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_sha256: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `consign:config/v1`. Subject: the canonical values document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub app: App,
    pub environment: Environment,
    /// 1, 2, 3, ... for the app in the environment; agents never take a lower one than they have seen.
    pub sequence: u64,
    pub values: BTreeMap<StepName, ConfigValue>,
}

/// A parameter's value in a signed document: of the parameter's own type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConfigValue {
    Bool(bool),
    Int(i64),
    String(String),
    /// Of a secret: what is signed says which value it is, and not what it is.
    Commitment(Commitment),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// The SHA-256 of a salt of 32 bytes and then the value's bytes.
    pub commitment: Sha256,
}

/// `consign:enrolled/v1`. Subject: the server's public key (SPKI, DER).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    pub server: ServerName,
    pub environment: Environment,
    pub at: UnixMs,
    /// The server's public key that secrets are sealed to; base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing_key: Option<String>,
}

/// `consign:decision/v1`. Subject: the manifest of the rollout's artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    pub environment: Environment,
    pub rollout: Id,
    /// Absent: on every server of the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    pub step: StepName,
    pub action: DecisionAction,
    pub at: UnixMs,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionAction {
    Skip,
    Done,
    Failed,
    Again,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn published() -> Statement {
        Statement {
            subject: Subject { name: "shop@1.2.0".into(), sha256: DIGEST.parse().unwrap() },
            predicate: Predicate::Published(Published {
                app: "shop".parse().unwrap(),
                version: "1.2.0".parse().unwrap(),
                platform: None,
                number: OrderingNumber { epoch: 1, ms: UnixMs(1_700_000_000_000) },
            }),
        }
    }

    fn text() -> String {
        String::from_utf8(published().to_payload()).unwrap()
    }

    fn why(text: &str) -> String {
        let refusal = Statement::parse(text.as_bytes()).expect_err(text);
        assert_eq!(refusal.code(), "malformed");
        refusal.to_string()
    }

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(Statement::parse(text().as_bytes()), Ok(published()));
    }

    #[test]
    fn our_own_statements_are_read_strictly() {
        assert!(why(&text().replace("{\"app\"", "{\"canary\":true,\"app\"")).contains("unknown field"));
        assert!(why(&text().replacen('{', "{\"extra\":1,", 1)).contains("unknown field"));
        assert!(why(&text().replace("\"sha256\"", "\"sha512\":\"\",\"sha256\"")).contains("unknown field"));
        assert!(why(&text().replace("1700000000000", "1.7e12")).contains("integer"));
        assert!(why(&text().replace("Statement/v1", "Statement/v2")).contains("_type"));
        assert!(why(&text().replace("published/v1", "published/v2")).contains("does not know"));
        assert!(why(&text().replace("\"shop\"", "\"../shop\"")).contains("app name"));
        assert!(why(&format!("{} {{}}", text())).contains("trailing"));
    }

    #[test]
    fn a_refusal_repeats_no_more_than_the_beginning() {
        let long = "x".repeat(5000);
        assert!(why(&text().replace("Statement/v1", &long)).len() < 400);
        assert!(why(&text().replace("published/v1", &long)).len() < 400);
    }

    #[test]
    fn a_statement_has_exactly_one_subject() {
        let subject = format!("{{\"name\":\"shop@1.2.0\",\"digest\":{{\"sha256\":\"{DIGEST}\"}}}}");
        assert!(text().contains(&subject));
        for subjects in [String::new(), format!("{subject},{subject}")] {
            let other = text().replace(&subject, &subjects);
            why(&other);
            assert!(why(&other.replace(PUBLISHED, "https://example.org/x")).contains("exactly one"));
        }
    }

    #[test]
    fn a_foreign_predicate_is_read_leniently() {
        let text = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","more":1,"subject":[{{"digest":{{"sha1":"ab","sha256":"{DIGEST}"}},
            "uri":"x"}}],"predicateType":"https://in-toto.io/attestation/test-result/v0.1","predicate":{{"result":"PASSED",
            "seconds":1.5}}}}"#
        );
        let statement = Statement::parse(text.as_bytes()).unwrap();
        assert_eq!(statement.subject.sha256.to_string(), DIGEST);
        let Predicate::Foreign { value, .. } = statement.predicate else { panic!("{statement:?}") };
        assert_eq!(value["result"], "PASSED");
        assert!(why(&text.replace("\"more\"", "\"subject\"")).contains("duplicate"));
        assert!(why(&text.replace("sha256", "sha512")).contains("no sha256"));
    }

    #[test]
    fn a_number_is_shown_as_its_time_and_with_an_epoch_that_was_raised() {
        let shown = |epoch| OrderingNumber { epoch, ms: UnixMs(1_700_000_000_000) }.to_string();
        let time = UnixMs(1_700_000_000_000).to_string();
        assert_eq!(shown(0), time);
        assert_eq!(shown(3), format!("{time} in epoch 3"));
    }
}
