//! Signing a config, sealing its secrets, handing both over.

use std::collections::BTreeMap;

use consign_common::{
    name::{App, Environment, StepName},
    sealing::{Given, Recipient, Secret},
    trust::{
        Config, Predicate, RoleKeys, STATEMENT_TYPE, Statement, Subject, TrustRoot, open_config,
        values_digest,
    },
};
use consign_proto::v1;

use crate::cli::{
    acceptance::{self, Acceptance},
    client::{Client, unary},
    failure::{Doing, Failure, Result},
    profile::Home,
    signer::{self, KeyName, PassphraseArgs, Signer},
    trust::owners,
};

/// Bytes of sealed secrets in one message; more follow in another one.
const MESSAGE: usize = 2 << 20;

/// What is done with servers that nobody vouched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unaccepted {
    Refuse,
    LeaveOut,
}

/// A server that secrets may be sealed to.
#[derive(Clone, Debug)]
pub(super) struct Sealable {
    pub(super) server: String,
    pub(super) recipient: Recipient,
}

/// The environment's servers that somebody vouched for, by our own trust root; and what is to be said of the others.
pub(super) async fn sealable(
    environment: &Environment,
    unaccepted: Unaccepted,
    root: &TrustRoot,
    client: &Client,
) -> Result<(Vec<Sealable>, Vec<String>)> {
    let (mut servers, mut problems) = (Vec::new(), Vec::new());
    for keys in acceptance::keys(client, environment.as_str()).await? {
        if keys.environment != environment.as_str() {
            continue;
        }
        let acceptance = Acceptance::of(&keys, root);
        problems.extend(acceptance.problem(&keys.server));
        if let Acceptance::Accepted(recipient) = acceptance {
            servers.push(Sealable { server: keys.server, recipient });
        }
    }
    if !problems.is_empty() && unaccepted == Unaccepted::Refuse {
        return Err(Failure::refused(format!(
            "secrets are sealed to accepted servers only, and not every server of {environment} is:\n  {}",
            problems.join("\n  ")
        ))
        .next("accept them, or go on without them: --leave-out"));
    }
    Ok((servers, problems))
}

/// Of each secret one age file for each server.
pub(super) fn seal(
    app: &App,
    environment: &Environment,
    secrets: &BTreeMap<StepName, Secret>,
    servers: &[Sealable],
) -> Result<Vec<v1::SealedSecret>> {
    let mut sealed = Vec::new();
    for Sealable { server, recipient } in servers {
        for (name, secret) in secrets {
            let file = Given { app, environment, name }
                .seal(secret, recipient)
                .doing(|| format!("failed to seal {name} for {server}"))?;
            sealed.push(v1::SealedSecret {
                server: server.clone(),
                name: name.to_string(),
                commitment: secret.commitment().commitment.to_string(),
                recipient: recipient.to_string(),
                file: file.into(),
            });
        }
    }
    Ok(sealed)
}

/// The signed config. What every server would refuse is said here.
pub(super) fn sign(config: Config, signers: &[Signer], root: &TrustRoot) -> Result<Vec<u8>> {
    let role = role(root, &config.app)?;
    signers.iter().try_for_each(|signer| signer.check_scheme(root))?;
    let subject = Subject {
        name: format!("{} in {}, config {}", config.app, config.environment, config.sequence),
        sha256: values_digest(&config),
    };
    let statement = Statement { subject, predicate: Predicate::Config(config) };
    let envelope = signer::sign(STATEMENT_TYPE, statement.to_payload(), signers)?.to_vec();
    open_config(&envelope, root).map_err(|refusal| {
        Failure::refused(refusal.to_string())
            .next(format!("this config is signed by {}: --key KEY", owners(root, role)))
    })?;
    Ok(envelope)
}

pub(super) fn role<'a>(root: &'a TrustRoot, app: &App) -> Result<&'a RoleKeys> {
    root.config_role(app).ok_or_else(|| {
        Failure::refused(format!("the trust root does not name {app}"))
            .next(format!("its owner adds it: consign trust update --add-app {app}"))
    })
}

/// The keys that were named; without any, the one of the home that may sign.
pub(super) fn signers(
    given: &[KeyName],
    passphrase: &PassphraseArgs,
    home: &Home,
    role: &RoleKeys,
) -> Result<Vec<Signer>> {
    if !given.is_empty() {
        return Signer::open_all(given, passphrase);
    }
    for path in [home.publisher_key_path(), home.owner_key_path()].into_iter().filter(|path| path.exists()) {
        let signer = Signer::open(&KeyName::File(path), passphrase)?;
        if role.keys.contains(&signer.id()) {
            return Ok(vec![signer]);
        }
    }
    Err(Failure::new("no key in this home may sign the config").next("name one that may: --key KEY"))
}

/// Hands it over, in as many messages as it takes: the same config again adds what is sealed.
pub(super) async fn put(envelope: &[u8], sealed: Vec<v1::SealedSecret>, client: &Client) -> Result<u64> {
    let mut messages: Vec<Vec<v1::SealedSecret>> = vec![Vec::new()];
    let mut bytes = 0;
    for secret in sealed {
        let length = secret.file.len() + 300;
        if bytes + length > MESSAGE {
            messages.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        if let Some(last) = messages.last_mut() {
            last.push(secret);
        }
    }
    let mut sequence = 0;
    for sealed in messages {
        let request = unary(v1::PutConfigRequest { envelope: envelope.to_vec().into(), sealed });
        let answer = client.operators().put_config(request).await.map_err(|status| client.failure(status))?;
        sequence = answer.into_inner().sequence;
    }
    Ok(sequence)
}
