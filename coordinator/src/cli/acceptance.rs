//! Whether a server's keys are vouched for, as this machine's own trust root has it; and `consign server accept`, which
//! does it.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use consign_common::{
    digest::Sha256,
    name::ServerName,
    sealing::{Fingerprint, Recipient},
    time::{Clock, SystemClock},
    trust::{Enrolled, Predicate, STATEMENT_TYPE, Statement, Subject, TrustRoot, open_enrolled},
};
use consign_proto::v1;
use serde::Serialize;

use super::{
    client::{Client, unary},
    failure::{Doing, Failure, Result},
    print::Printer,
    profile::Home,
    signer::{self, KeyName, PassphraseArgs, Signer},
    text::pairs,
    trust,
};

/// What is to be thought of a server's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// What secrets are sealed to it with.
    Accepted(Recipient),
    Not,
    /// Its agent has another sealing key than the one that was vouched for.
    OtherKey,
    /// Somebody vouched for it who may not, or for another server.
    Unverified {
        why: String,
    },
    /// It is older than sealing keys, or was never started.
    NoKey,
}

impl Acceptance {
    /// Decided by our own trust root: what the coordinator says of it is only where to look.
    pub(crate) fn of(keys: &v1::ServerKeys, root: &TrustRoot) -> Self {
        if keys.sealing_key.is_empty() {
            return Self::NoKey;
        }
        if keys.enrolled.is_empty() {
            return Self::Not;
        }
        let vouched = match open_enrolled(&keys.enrolled, root) {
            Ok(vouched) => vouched,
            Err(refusal) => return Self::Unverified { why: refusal.to_string() },
        };
        let (server, environment) = (&vouched.enrolled.server, &vouched.enrolled.environment);
        if server.as_str() != keys.server || environment.as_str() != keys.environment {
            return Self::Unverified { why: format!("it was accepted as {server} in {environment}") };
        }
        if vouched.recipient.to_string() != keys.sealing_key {
            return Self::OtherKey;
        }
        Self::Accepted(vouched.recipient)
    }

    /// In `--output json`.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Not => "not-accepted",
            Self::OtherKey => "other-key",
            Self::Unverified { .. } => "unverified",
            Self::NoKey => "no-key",
        }
    }

    /// For a person; `None` where nothing is to be done.
    pub(crate) fn problem(&self, server: &str) -> Option<String> {
        let accept = format!("consign server accept {server}");
        match self {
            Self::Accepted(_) => None,
            Self::Not => Some(format!("{server} is not accepted: {accept}")),
            Self::OtherKey => Some(format!(
                "{server} has another key than the one that was accepted; if it was enrolled anew: {accept}"
            )),
            Self::Unverified { why } => Some(format!("{server}: its acceptance does not count: {why}")),
            Self::NoKey => Some(format!("{server} has no key to seal to: update its agent, and start it")),
        }
    }
}

/// `None` where the coordinator gave no keys that have one.
pub(crate) fn fingerprint(keys: &v1::ServerKeys) -> Option<Fingerprint> {
    let spki: Sha256 = keys.spki_sha256.parse().ok()?;
    let recipient: Recipient = keys.sealing_key.parse().ok()?;
    Some(Fingerprint::of(spki, &recipient))
}

/// Of all servers, or of one environment's.
pub(crate) async fn keys(client: &Client, environment: &str) -> Result<Vec<v1::ServerKeys>> {
    let request = unary(v1::ListSealingKeysRequest { environment: environment.to_owned() });
    let answer =
        client.operators().list_sealing_keys(request).await.map_err(|status| client.failure(status))?;
    Ok(answer.into_inner().servers)
}

#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    /// The server's name
    name: ServerName,
    /// What the server itself prints (`consign-agent enroll`, `consign-agent status`); without it, it is asked for
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<Fingerprint>,
    /// A key of the trust root's enrolment role, or of its root: a file (also OpenSSH's), or ssh-agent:FINGERPRINT;
    /// repeat it where the threshold is above one. Default: keys/owner.key of the home
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<KeyName>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Debug, Serialize)]
struct Accepted {
    server: String,
    environment: String,
    fingerprint: String,
    sealing_key: String,
}

pub(crate) async fn accept(args: AcceptArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let (_, root) = trust::newest(home, client).await?;
    let name = args.name.as_str();
    let keys = keys(client, "").await?.into_iter().find(|keys| keys.server == name);
    let keys = keys.ok_or_else(|| {
        Failure::new(format!("there is no server {name}")).next("`consign server list` shows all")
    })?;
    let told = fingerprint(&keys).ok_or_else(|| {
        Failure::new(format!("{name} has no key to seal to yet"))
            .next("update its agent, and start it: it makes one and tells it with its first hello")
    })?;
    printer.note(&format!(
        "the coordinator says\n{}",
        pairs(&[
            vec!["server".into(), keys.server.clone()],
            vec!["environment".into(), keys.environment.clone()],
            vec!["fingerprint".into(), told.to_string()],
        ])
        .trim_end()
    ))?;
    let given = match args.fingerprint {
        Some(given) => given,
        None => ask()?,
    };
    if given != told {
        return Err(Failure::refused(format!(
            "{name} prints another fingerprint than the coordinator has: somebody may stand between, and nothing was signed"
        ))
        .next(format!(
            "read it again on {name} with `consign-agent status` (its certificate may have been renewed since); if it still \
             differs, do not accept it: find out who answers as the coordinator"
        )));
    }
    let statement = Statement {
        subject: Subject {
            name: keys.server.clone(),
            sha256: keys.spki_sha256.parse().doing(|| "the server's key".into())?,
        },
        predicate: Predicate::Enrolled(Enrolled {
            server: args.name.clone(),
            environment: keys.environment.parse().doing(|| "the server's environment".into())?,
            at: SystemClock.now(),
            sealing_key: Some(keys.sealing_key.clone()),
        }),
    };
    let default = [KeyName::File(home.owner_key_path())];
    let names = if args.keys.is_empty() { default.as_slice() } else { args.keys.as_slice() };
    let signers = Signer::open_all(names, &args.passphrase)?;
    signers.iter().try_for_each(|signer| signer.check_scheme(&root))?;
    let envelope = signer::sign(STATEMENT_TYPE, statement.to_payload(), &signers)?.to_vec();
    open_enrolled(&envelope, &root).map_err(|refusal| {
        Failure::refused(refusal.to_string()).next(format!(
            "servers are accepted by {}: --key KEY",
            trust::owners(&root, root.enrolment_role())
        ))
    })?;
    let request = unary(v1::AcceptServerRequest { envelope: envelope.into() });
    client.operators().accept_server(request).await.map_err(|status| client.failure(status))?;
    let accepted = Accepted {
        server: keys.server,
        environment: keys.environment,
        fingerprint: told.to_string(),
        sealing_key: keys.sealing_key,
    };
    printer.show(&accepted, |accepted| {
        format!(
            "{} is accepted; secrets that were set before are sealed to it with `consign config reseal`\n",
            accepted.server
        )
    })
}

fn ask() -> Result<Fingerprint> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask for the server's fingerprint")
            .next("give what the server prints: --fingerprint FINGERPRINT"));
    }
    drop(std::io::stderr().write_all(b"the fingerprint that the server itself prints: "));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).doing(|| "failed to read the answer".into())?;
    line.trim().parse().doing(|| "what was given".into())
}

#[cfg(test)]
mod tests {
    use consign_common::{
        sealing::SealingKey,
        time::UnixMs,
        trust::{Key, RoleKeys, Scheme, SigningKey},
    };

    use super::*;

    fn root(owner: &SigningKey) -> TrustRoot {
        let public = owner.public();
        let key = Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: "ada".parse().unwrap() };
        TrustRoot {
            version: 1,
            issued: UnixMs(1),
            expires: UnixMs(2),
            keys: [(public.id(), key)].into(),
            root: RoleKeys { keys: vec![public.id()], threshold: 1 },
            roles: [].into(),
            apps: [].into(),
            environments: [].into(),
            coordinators: vec![],
            revoked: vec![],
            enrolment: None,
        }
    }

    fn keys(owner: &SigningKey, server: &str, key: &SealingKey) -> v1::ServerKeys {
        let statement = Statement {
            subject: Subject { name: server.into(), sha256: Sha256::of(b"spki") },
            predicate: Predicate::Enrolled(Enrolled {
                server: server.parse().unwrap(),
                environment: "staging".parse().unwrap(),
                at: UnixMs(1),
                sealing_key: Some(key.recipient().to_string()),
            }),
        };
        let owner = Signer::of_key(
            SigningKey::from_pkcs8(owner.to_pkcs8()).unwrap(),
            "ada".parse().unwrap(),
            "owner.key",
        );
        let envelope = signer::sign(STATEMENT_TYPE, statement.to_payload(), [&owner]).unwrap();
        v1::ServerKeys {
            server: server.into(),
            environment: "staging".into(),
            sealing_key: key.recipient().to_string(),
            spki_sha256: Sha256::of(b"spki").to_string(),
            enrolled: envelope.to_vec().into(),
            enrolled_ms: 1,
        }
    }

    #[test]
    fn the_coordinators_word_makes_no_server_accepted() {
        let (owner, coordinator) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (key, other) = (SealingKey::generate(), SealingKey::generate());
        let root = root(&owner);
        let of = |keys: &v1::ServerKeys| Acceptance::of(keys, &root);
        let honest = keys(&owner, "web-1", &key);
        assert_eq!(of(&honest), Acceptance::Accepted(key.recipient()));
        // A key of its own in the server's place, with the server's acceptance, with one of its own, without any.
        let swapped = v1::ServerKeys { sealing_key: other.recipient().to_string(), ..honest.clone() };
        assert_eq!(of(&swapped), Acceptance::OtherKey);
        assert_eq!(of(&keys(&coordinator, "web-1", &other)).as_str(), "unverified");
        assert_eq!(of(&v1::ServerKeys { enrolled: Default::default(), ..honest.clone() }), Acceptance::Not);
        // Another server's acceptance.
        let moved = v1::ServerKeys { server: "web-2".into(), ..honest.clone() };
        assert_eq!(of(&moved).as_str(), "unverified");
        assert_eq!(of(&v1::ServerKeys { sealing_key: String::new(), ..honest.clone() }), Acceptance::NoKey);
        for keys in [&swapped, &moved] {
            assert!(of(keys).problem(&keys.server).unwrap().contains(&keys.server));
        }
        assert_eq!(of(&honest).problem("web-1"), None);
    }
}
