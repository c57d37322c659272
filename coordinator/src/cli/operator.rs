//! `consign operator`: people and CI with identities of their own. The keys are made on the machine that uses them.

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use consign_common::{
    durable,
    name::{App, Owner, ServerName},
    time::UnixMs,
    tls::{self, Identity, Subject},
    trust::{JoinRole, JoinToken, TrustRoot},
};
use consign_proto::v1;

use super::{
    client::{Client, enrolment, unary},
    failure::{Doing, Failure, Result},
    output::Operator,
    print::Printer,
    profile::{Home, Profile},
    server::{make_token, removed, seconds, show_token},
    text::{parse_span, table},
    trust,
};

#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Make the string with which a person or CI joins
    #[command(after_help = "Examples:
  consign operator add grace --role deployer
  consign operator add ci-shop --role ci --app shop")]
    Add(AddArgs),
    /// Join with the string that an admin made: makes a key and a profile here
    Join(JoinArgs),
    /// List operators
    List,
    /// Remove an operator: the identity ends within a second
    Remove(RemoveArgs),
}

impl OperatorCommand {
    /// With the coordinator, as somebody whom it knows.
    pub(crate) fn talks(&self) -> bool {
        match self {
            Self::Join(_) => false,
            Self::Add(_) | Self::List | Self::Remove(_) => true,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Who joins: a person's or a CI's name
    name: ServerName,
    /// What they may do
    #[arg(long, value_enum)]
    role: OperatorRole,
    /// With --role ci: an app that it is for, as often as there are apps [default: every app]
    #[arg(long = "app", value_name = "APP")]
    apps: Vec<App>,
    /// How long the string can be used
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_span)]
    ttl: Duration,
    /// The name is in use, and its old identity ends when the string is used
    #[arg(long)]
    replace: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OperatorRole {
    /// Sees everything
    Viewer,
    /// And starts, aborts and rolls back rollouts, disables and enables servers
    Deployer,
    /// Publishes artifacts and starts rollouts
    Ci,
    /// And adds servers and operators, and hands over trust roots
    Admin,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The string that `consign operator add` printed
    token: String,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The operator's name
    name: ServerName,
}

impl OperatorRole {
    fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Ci => "ci",
            Self::Admin => "admin",
        }
    }
}

pub(super) async fn run(
    command: OperatorCommand,
    home: &Home,
    client: impl FnOnce() -> Result<Client>,
    printer: &Printer,
) -> Result<()> {
    match command {
        OperatorCommand::Join(args) => join(&args.token, home, printer).await,
        OperatorCommand::Add(args) => add(args, home, &client()?, printer).await,
        OperatorCommand::List => {
            let client = client()?;
            let request = unary(v1::ListOperatorsRequest {});
            let answer =
                client.operators().list_operators(request).await.map_err(|status| client.failure(status))?;
            let operators: Vec<Operator> =
                answer.into_inner().operators.into_iter().map(Into::into).collect();
            printer.show(&operators, |operators| list_text(operators))
        }
        OperatorCommand::Remove(args) => {
            let client = client()?;
            let request = unary(v1::RemoveOperatorRequest { name: args.name.to_string() });
            client.operators().remove_operator(request).await.map_err(|status| client.failure(status))?;
            removed(printer, args.name.as_str())
        }
    }
}

async fn add(args: AddArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let (envelope, root) = trust::newest(home, client).await?;
    let request = v1::CreateTokenRequest {
        name: args.name.to_string(),
        environment: String::new(),
        role: args.role.as_str().into(),
        ttl_seconds: seconds(args.ttl)?,
        replace: args.replace,
        apps: args.apps.iter().map(App::to_string).collect(),
    };
    let role = JoinRole::Operator { role: args.role.as_str().into() };
    let made = make_token(request, args.name, role, (&envelope, &root), home, client).await?;
    show_token(&made, "consign operator join TOKEN", printer)
}

/// Believes only the token's pins: the CA before anything is sent, the trust root before anything is kept.
async fn join(text: &str, home: &Home, printer: &Printer) -> Result<()> {
    let token = JoinToken::parse(text).doing(|| "failed to read the token".into())?;
    let JoinRole::Operator { role } = &token.role else {
        return Err(Failure::usage("this token enrols a server, not an operator")
            .next("use it on that machine: consign-agent enroll TOKEN"));
    };
    if home.profile_path().exists() {
        return Err(Failure::new(format!("there is a profile in {} already", home.root().display()))
            .next("choose another --home"));
    }
    let name: Owner = token.name.as_str().parse().doing(|| "the token's name".into())?;
    let address = token.enrolment.first().ok_or_else(|| Failure::new("the token has no address"))?;
    printer.note(&format!("joining {address} as {name} ({role}); its CA must be {}", token.ca_sha256))?;

    // The token is good once: what cannot be kept is not asked for.
    std::fs::create_dir_all(home.root()).at("create", home.root())?;
    let probe = home.root().join(".join");
    durable::replace_file(&probe, &[], 0o600).at("write", &probe)?;
    std::fs::remove_file(&probe).at("remove", &probe)?;

    let (csr, key) = Identity::generate_csr().doing(|| "failed to make a key".into())?;
    let config = tls::client_config(None, token.ca_sha256).doing(|| "TLS".into())?;
    let answer = enroll(&token, csr, address, Arc::clone(&config)).await?;
    let root = open_trust_roots(&token, &answer.trust_roots)?;
    let named =
        root.1.coordinators.iter().any(|pin| pin.id == token.coordinator && pin.ca_sha256 == token.ca_sha256);
    if !named {
        return Err(Failure::refused("the trust root does not name this coordinator"));
    }
    let identity = Identity { certificate: answer.certificate.to_vec().into(), key_pkcs8: key };
    let uri = Subject::Operator { name: name.to_string() }.uri();
    if answer.identity != uri {
        return Err(Failure::refused(format!(
            "the coordinator certified {:?} instead of {uri}",
            answer.identity
        )));
    }
    durable::sync_dir(home.root()).at("keep", home.root())?;
    home.pin_trust_root(&root.0)?;
    identity.write(&home.operator_path()).at("write", &home.operator_path())?;
    // Last: a home with a profile is a whole one.
    home.write_profile(&Profile {
        address: token.addresses.first().cloned().unwrap_or_default(),
        enrolment: address.clone(),
        ca_sha256: token.ca_sha256,
        coordinator: token.coordinator.clone(),
        name,
    })?;
    printer.line(&format!("joined; `consign status` shows the coordinator ({})", home.root().display()))
}

async fn enroll(
    token: &JoinToken,
    csr: Vec<u8>,
    address: &str,
    config: Arc<rustls::ClientConfig>,
) -> Result<v1::EnrollResponse> {
    let (client, mut service) = enrolment(address.to_owned(), config);
    let request = v1::EnrollRequest {
        token_id: token.id.clone(),
        token_secret: token.secret_bytes().doing(|| "the token".into())?.into(),
        name: token.name.to_string(),
        environment: String::new(),
        csr: csr.into(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        labels: Default::default(),
        sealing_key: String::new(),
    };
    let answer = service.enroll(unary(request)).await.map_err(|status| client.failure(status))?;
    Ok(answer.into_inner())
}

/// From the pinned version on, each signed by the one before; what is older is passed over, since the coordinator does
/// not know which version the token pins. Gives the newest with its envelope.
fn open_trust_roots(token: &JoinToken, envelopes: &[impl AsRef<[u8]>]) -> Result<(Vec<u8>, TrustRoot)> {
    let refused =
        |refusal| Failure::refused(format!("the coordinator's trust root is not to be believed: {refusal}"));
    let pin = token.trust_root.sha256;
    let is_pinned = |envelope: &[u8]| TrustRoot::pin(envelope).is_ok_and(|found| found == pin);
    let mut chain = envelopes.iter().map(AsRef::as_ref).skip_while(|envelope| !is_pinned(envelope));
    let first = chain
        .next()
        .ok_or_else(|| Failure::refused("the coordinator did not send the trust root that the token pins"))?;
    let mut newest = first;
    let mut root = TrustRoot::open_pinned(first, pin).map_err(refused)?;
    for envelope in chain {
        root = root.open_next(envelope).map_err(refused)?;
        newest = envelope;
    }
    Ok((newest.to_vec(), root))
}

fn list_text(operators: &[Operator]) -> String {
    let rows: Vec<Vec<String>> = operators
        .iter()
        .map(|operator| {
            let until = UnixMs(operator.certificate_expires_ms).to_string();
            let apps = if operator.apps.is_empty() { "every".to_owned() } else { operator.apps.join(", ") };
            vec![operator.name.clone(), operator.role.clone(), apps, until, operator.added_by.clone()]
        })
        .collect();
    table(&["OPERATOR", "ROLE", "APPS", "CERTIFICATE UNTIL", "ADDED BY"], &rows)
}
