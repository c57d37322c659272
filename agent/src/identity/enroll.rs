//! Enrolment: from one string to an identity of this server's own.
//!
//! What will be believed from then on (the CA, the first trust root) is pinned by the token, which the operator's CLI
//! made from its own copies. The private key never leaves this machine. The identity is put in its place last: until
//! then, this server is not enrolled.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use consign_common::{
    digest::Sha256,
    durable,
    name::{App, Environment, ServerName},
    sealing::{Fingerprint, Recipient, SealingKey},
    time::{Clock as _, SystemClock},
    tls::{self, CertificateDer, Identity, Subject, TlsError},
    trust::{Allowance, InvalidToken, JoinRole, JoinToken, Refusal, ServersWord, TrustRoot},
};
use consign_proto::v1::{EnrollRequest, EnrollResponse};

use super::{roots, sealing};
use crate::{
    config::{AgentSection, Config, ConfigError, DEFAULT_LOG_LIMIT},
    session::{
        dial::{DialError, Dialer},
        proxy::Proxies,
        unary,
    },
    state::{LockedState, StateError},
};

/// What the person at the keyboard said.
#[derive(Clone, Debug)]
pub struct Request {
    pub token: String,
    pub apps: Vec<App>,
    pub users: Vec<String>,
    pub units: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Instead of the token's addresses for enrolment.
    pub address: Option<String>,
    pub existing: Existing,
    pub config: PathBuf,
    pub state: PathBuf,
    pub apps_directory: PathBuf,
}

/// What to do on a server that is enrolled already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Replace,
}

/// What is shown before anything is sent.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Preview {
    pub server: ServerName,
    pub environment: Environment,
    pub coordinator: Vec<String>,
    pub ca: Sha256,
    pub trust_root_version: u64,
    pub trust_root: Sha256,
}

/// What came of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Enrolled {
    pub server: ServerName,
    pub environment: Environment,
    pub identity: String,
    /// SHA-256 of this server's public key (SPKI).
    pub key: Sha256,
    /// What secrets are sealed to, an age recipient.
    pub sealing_key: String,
    /// Of both keys: what `consign server accept` is to show too.
    pub fingerprint: String,
    pub certificate_expires: consign_common::time::UnixMs,
    pub trust_root_version: u64,
    pub config: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(transparent)]
    Token(#[from] InvalidToken),
    #[error("this token is for an operator; redeem it with `consign operator join`")]
    ForAnOperator,
    #[error(
        "this server is enrolled already ({path} exists); `--replace` gives its identity up for a new one"
    )]
    Already { path: PathBuf },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Rule(String),
    #[error("enrolment was not confirmed; nothing was sent")]
    NotConfirmed,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{address} answers as the coordinator {found}, the token is of {expected}")]
    OtherCoordinator { address: String, found: String, expected: String },
    #[error("the coordinator refused: {0}")]
    Refused(String),
    #[error("the coordinator's answer cannot be used: {0}")]
    Answer(String),
    #[error(
        "the new certificate is valid from {from} to {to} and this server's clock says {now}: set the clock, then enrol again with a new token"
    )]
    Clock {
        from: consign_common::time::UnixMs,
        to: consign_common::time::UnixMs,
        now: consign_common::time::UnixMs,
    },
    #[error("the coordinator's trust root is not the one that the token pins: {0}")]
    TrustRoot(#[from] Refusal),
    #[error("failed to make a key")]
    Key(#[source] TlsError),
    #[error(transparent)]
    Sealing(#[from] sealing::SealingFileError),
    #[error("failed to write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

/// Enrols this server. `confirm` sees what the token says before anything is sent.
pub async fn enroll(
    request: &Request,
    proxies: Proxies,
    confirm: impl FnOnce(&Preview) -> bool,
) -> Result<Enrolled, EnrollError> {
    let token = JoinToken::parse(&request.token)?;
    let environment = match &token.role {
        JoinRole::Agent { environment } => environment.clone(),
        JoinRole::Operator { .. } => return Err(EnrollError::ForAnOperator),
    };
    let config = config(request, &token, environment)?;
    refuse_if_enrolled(request)?;
    if !confirm(&preview(&config)) {
        return Err(EnrollError::NotConfirmed);
    }
    let state = LockedState::open(&request.state)?;
    // The token works once: whatever can fail on this side fails before it is sent.
    let sealing = SealingKey::generate();
    let prepared = Prepared::new(&config, request, &state)?;
    let (csr, key_pkcs8) = Identity::generate_csr().map_err(EnrollError::Key)?;
    let response = send(request, &token, &config.word, proxies, csr, &sealing.recipient()).await?;
    let identity = check_identity(&response, &token, key_pkcs8)?;
    let chain = roots::check_chain(&response.trust_roots, &token.trust_root)?;
    check_names(&chain.newest, &token, &config.word)?;
    let peer = identity.peer().map_err(|error| EnrollError::Answer(error.to_string()))?;
    prepared.publish(&chain.envelopes, &sealing, &identity)?;
    Ok(Enrolled {
        server: config.word.server,
        environment: config.word.environment,
        identity: peer.subject.uri(),
        key: peer.spki_sha256,
        sealing_key: sealing.recipient().to_string(),
        fingerprint: Fingerprint::of(peer.spki_sha256, &sealing.recipient()).to_string(),
        certificate_expires: peer.not_after,
        trust_root_version: chain.newest.version,
        config: request.config.clone(),
    })
}

fn config(request: &Request, token: &JoinToken, environment: Environment) -> Result<Config, EnrollError> {
    let allowance = |app: &App| Allowance {
        app: app.clone(),
        users: request.users.clone(),
        units: request.units.clone(),
    };
    let config = Config {
        agent: AgentSection {
            coordinator: token.addresses.clone(),
            ca: token.ca_sha256,
            trust_root: token.trust_root.clone(),
            state: absolute(&request.state)?,
            apps: absolute(&request.apps_directory)?,
            log_limit: DEFAULT_LOG_LIMIT,
        },
        word: ServersWord {
            server: token.name.clone(),
            environment,
            labels: request.labels.clone(),
            allowances: request.apps.iter().map(allowance).collect(),
        },
    };
    config.check().map_err(EnrollError::Rule)?;
    Ok(config)
}

fn absolute(path: &Path) -> Result<PathBuf, EnrollError> {
    std::path::absolute(path).map_err(|source| EnrollError::Write { path: path.into(), source })
}

fn refuse_if_enrolled(request: &Request) -> Result<(), EnrollError> {
    let identity = crate::state::StatePaths::new(&request.state).identity();
    let enrolled = [identity, request.config.clone()].into_iter().find(|path| path.exists());
    match (enrolled, request.existing) {
        (Some(path), Existing::Refuse) => Err(EnrollError::Already { path }),
        (Some(_), Existing::Replace) | (None, _) => Ok(()),
    }
}

fn preview(config: &Config) -> Preview {
    Preview {
        server: config.word.server.clone(),
        environment: config.word.environment.clone(),
        coordinator: config.agent.coordinator.clone(),
        ca: config.agent.ca,
        trust_root_version: config.agent.trust_root.version,
        trust_root: config.agent.trust_root.sha256,
    }
}

/// The handshake checks the pinned CA; the secret goes to nobody else.
async fn send(
    request: &Request,
    token: &JoinToken,
    word: &ServersWord,
    proxies: Proxies,
    csr: Vec<u8>,
    sealing: &Recipient,
) -> Result<EnrollResponse, EnrollError> {
    let addresses = request.address.clone().map_or_else(|| token.enrolment.clone(), |address| vec![address]);
    let dialer = Dialer { addresses, ca: token.ca_sha256, proxies };
    let connection = dialer.dial(None).await?;
    if connection.coordinator != token.coordinator {
        return Err(EnrollError::OtherCoordinator {
            address: connection.address,
            found: connection.coordinator,
            expected: token.coordinator.clone(),
        });
    }
    let message = EnrollRequest {
        token_id: token.id.clone(),
        token_secret: token.secret_bytes()?.into(),
        name: token.name.to_string(),
        environment: word.environment.to_string(),
        csr: csr.into(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        labels: word.labels.clone().into_iter().collect(),
        sealing_key: sealing.to_string(),
    };
    unary::enroll(connection.channel, message).await.map_err(EnrollError::Refused)
}

fn check_identity(
    response: &EnrollResponse,
    token: &JoinToken,
    key_pkcs8: Vec<u8>,
) -> Result<Identity, EnrollError> {
    let certificate = CertificateDer::from(response.certificate.to_vec());
    let identity = Identity { certificate, key_pkcs8 };
    let peer = checked_peer(&identity, token.ca_sha256)?;
    match &peer.subject {
        Subject::Agent { server, .. } if *server == token.name => Ok(identity),
        Subject::Agent { .. } | Subject::Coordinator { .. } | Subject::Operator { .. } => {
            Err(EnrollError::Answer(format!("its certificate is for {}", peer.subject.uri())))
        }
    }
}

/// What a certificate that the coordinator issued says, once it is sure that it belongs to our key and is valid now.
pub fn checked_peer(identity: &Identity, ca: Sha256) -> Result<tls::Peer, EnrollError> {
    let unusable = |error: TlsError| EnrollError::Answer(format!("its certificate: {error}"));
    let peer = identity.peer().map_err(unusable)?;
    // rustls refuses a certificate whose key is not ours.
    tls::client_config(Some(identity), ca).map_err(unusable)?;
    let now = SystemClock.now();
    if now < peer.not_before || peer.is_expired(now) {
        return Err(EnrollError::Clock { from: peer.not_before, to: peer.not_after, now });
    }
    Ok(peer)
}

/// The trust root must name the coordinator that issued the certificate, or no order would ever be accepted.
fn check_names(root: &TrustRoot, token: &JoinToken, word: &ServersWord) -> Result<(), EnrollError> {
    let named = |pin: &&consign_common::trust::CoordinatorPin| {
        pin.id == token.coordinator && pin.ca_sha256 == token.ca_sha256
    };
    if root.coordinators.iter().find(named).is_none() {
        return Err(EnrollError::Answer(format!(
            "its trust root does not name the coordinator {}",
            token.coordinator
        )));
    }
    if !root.environments.contains_key(&word.environment) {
        return Err(EnrollError::TrustRoot(Refusal::EnvironmentUnknown {
            environment: word.environment.clone(),
        }));
    }
    Ok(())
}

/// Everything that will be put in place, written beside its place; removed again unless it is published.
struct Prepared {
    config: PathBuf,
    config_staged: PathBuf,
    roots: PathBuf,
    roots_staged: PathBuf,
    sealing: PathBuf,
    identity: PathBuf,
}

impl Prepared {
    fn new(config: &Config, request: &Request, state: &LockedState) -> Result<Self, EnrollError> {
        let prepared = Self {
            config: request.config.clone(),
            config_staged: beside(&request.config),
            roots: state.paths.trust_roots(),
            roots_staged: beside(&state.paths.trust_roots()),
            sealing: state.paths.sealing_key(),
            identity: state.paths.identity(),
        };
        remove_directory(&prepared.roots_staged)?;
        if let Some(parent) = request.config.parent() {
            fs::create_dir_all(parent)
                .map_err(|source| EnrollError::Write { path: parent.into(), source })?;
        }
        write(&prepared.config_staged, config.to_toml()?.as_bytes(), 0o644)?;
        durable::create_dir(&prepared.roots_staged, 0o700)
            .map_err(|source| EnrollError::Write { path: prepared.roots_staged.clone(), source })?;
        Ok(prepared)
    }

    /// Roots and configuration first, the identity last.
    fn publish(
        &self,
        envelopes: &BTreeMap<u64, Vec<u8>>,
        key: &SealingKey,
        identity: &Identity,
    ) -> Result<(), EnrollError> {
        for (version, envelope) in envelopes {
            write(&roots::file(&self.roots_staged, *version), envelope, 0o600)?;
        }
        // With `--replace`: without an identity, what is half new does not pass for enrolled.
        remove_file(&self.identity)?;
        remove_directory(&self.roots)?;
        rename(&self.roots_staged, &self.roots)?;
        rename(&self.config_staged, &self.config)?;
        sealing::write(&self.sealing, key)?;
        write(&self.identity, identity.to_pem().as_bytes(), 0o600)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // After `publish` there is nothing left to remove.
        drop(fs::remove_file(&self.config_staged));
        drop(fs::remove_dir_all(&self.roots_staged));
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".enrolling");
    name.into()
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), EnrollError> {
    durable::replace_file(path, bytes, mode)
        .map_err(|source| EnrollError::Write { path: path.into(), source })
}

fn rename(from: &Path, to: &Path) -> Result<(), EnrollError> {
    fs::rename(from, to)
        .and_then(|()| durable::sync_dir(to.parent().unwrap_or(Path::new("."))))
        .map_err(|source| EnrollError::Write { path: to.into(), source })
}

fn remove_file(path: &Path) -> Result<(), EnrollError> {
    absent_is_fine(path, fs::remove_file(path))
}

fn remove_directory(path: &Path) -> Result<(), EnrollError> {
    absent_is_fine(path, fs::remove_dir_all(path))
}

fn absent_is_fine(path: &Path, result: io::Result<()>) -> Result<(), EnrollError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(EnrollError::Write { path: path.into(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
