//! `consign init`: from nothing to a team of one with the whole protection. Everything is made in a directory beside
//! the home and renamed into place, so that a failure leaves nothing half-done.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use consign_common::{
    digest::Sha256,
    durable,
    name::{App, Environment, Id, Owner},
    time::{Clock, SystemClock, UnixMs},
    tls::{Ca, Subject},
    trust::{
        AppTrust, CoordinatorPin, Gate, Key, KeyFile, OrderingNumber, RoleKeys, SigningKey, TrustRoot,
        is_address,
    },
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;

use super::{
    failure::{Doing, Failure, Result},
    key::PublicKeyFile,
    print::{Format, Printer},
    profile::{Home, Profile},
    signer::{self, KeyName, PassphraseArgs, SealedKeyFile, Signer},
    text::parse_span,
    trust::{Approver, gate_text, with_approvers},
};
use crate::bundle::{Bundle, FirstOperator};

/// Nothing renews an operator's certificate by itself.
const OPERATOR_VALID: Duration = Duration::from_secs(365 * 24 * 3600);
const PORT: u16 = 7443;
const ENROLMENT_PORT: u16 = 7444;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  consign init --app shop --env staging --env production --advertise deploy.example.com
  consign init --app shop --env staging --env production --approver production=pat=pat_ed25519.pub")]
pub(crate) struct InitArgs {
    /// An app that may be deployed; repeat it for more
    #[arg(long = "app", value_name = "APP", required = true)]
    apps: Vec<App>,
    /// An environment; repeat it for more
    #[arg(long = "env", value_name = "ENV", required = true)]
    environments: Vec<Environment>,
    /// Where servers and operators reach the coordinator: a name or an address, without port
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    advertise: String,
    /// Who owns the trust root and is the first admin
    #[arg(long, value_name = "NAME", default_value = "owner")]
    owner: Owner,
    /// Whose approval an environment asks for: a public key, also OpenSSH's; of several for one environment, one is enough
    #[arg(long = "approver", value_name = "ENV=[OWNER=]FILE")]
    approvers: Vec<Approver>,
    /// How long the trust root is valid
    #[arg(long, value_name = "SPAN", default_value = "365d", value_parser = parse_span)]
    expires: Duration,
    /// Own the trust root with a key that you have: an OpenSSH file, or ssh-agent:FINGERPRINT. Without it, one is made
    #[arg(long, value_name = "KEY")]
    owner_key: Option<KeyName>,
    /// Protect the owner's key that is made with a passphrase
    #[arg(long, conflicts_with = "owner_key")]
    passphrase: bool,
    #[command(flatten)]
    passphrase_from: PassphraseArgs,
}

/// What was made, and where it belongs.
#[derive(Debug, Serialize)]
struct Made {
    home: PathBuf,
    /// A path, or `ssh-agent:COMMENT`.
    owner_key: String,
    publisher_key: PathBuf,
    trust_root: PathBuf,
    profile: PathBuf,
    bundle: PathBuf,
    coordinator: String,
    ca_sha256: Sha256,
    trust_root_expires_ms: u64,
    gates: BTreeMap<Environment, Gate>,
}

pub(super) fn run(args: &InitArgs, home: &Home, printer: &Printer) -> Result<()> {
    if !is_address(&format!("{}:{PORT}", args.advertise)) {
        return Err(Failure::usage(format!(
            "--advertise {:?} is not a host name or address",
            args.advertise
        )));
    }
    refuse_to_overwrite(home.root())?;
    let parent =
        home.root().parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).at("create", parent)?;
    let name = home.root().file_name().ok_or_else(|| Failure::usage("--home has no name"))?.to_string_lossy();
    let temporary = Home::at(parent.join(format!(".{name}.init-{}", std::process::id())));
    durable::create_dir(temporary.root(), 0o700).at("create", temporary.root())?;
    let made = make(args, &temporary, home).and_then(|made| {
        std::fs::rename(temporary.root(), home.root()).at("move the new home to", home.root())?;
        durable::sync_dir(parent).at("keep", parent)?;
        Ok(made)
    });
    if made.is_err() {
        // The first error is the one to tell; the directory's name says what it was.
        drop(std::fs::remove_dir_all(temporary.root()));
    }
    printer.show(&made?, text)?;
    if args.advertise == "localhost" && printer.format() == Format::Text {
        printer.note(
            "only this machine reaches localhost: for servers elsewhere init anew with --advertise HOST",
        )?;
    }
    Ok(())
}

fn refuse_to_overwrite(root: &Path) -> Result<()> {
    match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at("look into", root),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                Err(Failure::new(format!("{} is not empty, and nothing is overwritten", root.display()))
                    .next("choose another --home; keys that are lost cannot be made again"))
            }
        },
    }
}

fn make(args: &InitArgs, new: &Home, home: &Home) -> Result<Made> {
    let now = SystemClock.now();
    let publisher_name: Owner = "publisher".parse().doing(|| "owner".into())?;
    let owner = owner_key(args, new, home)?;
    let publisher = SigningKey::generate().doing(|| "failed to make the publisher's key".into())?;
    let publisher =
        Signer::of_key(publisher, publisher_name, &home.publisher_key_path().display().to_string());
    let coordinator = random_id()?;
    let ca =
        Ca::generate(coordinator.as_str(), now).doing(|| "failed to make the coordinator's CA".into())?;

    let root = first_trust_root(args, now, [&owner, &publisher], coordinator.as_str(), ca.pin());
    let root = with_approvers(root, &args.approvers)?;
    root.check().doing(|| "the trust root would not be valid".into())?;
    let envelope = signer::sign(root.payload_type(), root.to_payload(), [&owner])?.to_vec();

    let subject = Subject::Operator { name: args.owner.to_string() };
    let identity =
        ca.issue_identity(&subject, now, OPERATOR_VALID).doing(|| "failed to certify the operator".into())?;
    let peer = identity.peer().doing(|| "the operator's certificate".into())?;

    KeyFile::new(owner_of(args, &publisher), publisher.signing_key()?)
        .write(&new.publisher_key_path())
        .doing(|| "failed to keep the publisher's key".into())?;
    for (path, key) in [(new.owner_key_path(), &owner), (new.publisher_key_path(), &publisher)] {
        let public = PublicKeyFile::new(owner_of(args, key), key.scheme(), key.public());
        let path = path.with_extension("pub");
        durable::replace_file(&path, &consign_common::json::to_vec(&public), 0o644).at("write", &path)?;
    }
    new.pin_trust_root(&envelope)?;
    identity.write(&new.operator_path()).at("write", &new.operator_path())?;
    new.write_profile(&Profile {
        address: format!("{}:{PORT}", args.advertise),
        enrolment: format!("{}:{ENROLMENT_PORT}", args.advertise),
        ca_sha256: ca.pin(),
        coordinator: coordinator.to_string(),
        name: args.owner.clone(),
    })?;
    let first = FirstOperator {
        name: args.owner.clone(),
        spki_sha256: peer.spki_sha256,
        certificate_expires: peer.not_after,
    };
    let bundle =
        Bundle::new(coordinator.clone(), ca.to_pem(), &envelope, first, Some(args.advertise.clone()));
    let bytes = bundle.to_bytes().doing(|| "failed to encode the bundle".into())?;
    durable::replace_file(&new.bundle_path(), &bytes, 0o600).at("write", &new.bundle_path())?;

    Ok(Made {
        home: home.root().to_owned(),
        owner_key: owner.name().to_owned(),
        publisher_key: home.publisher_key_path(),
        trust_root: home.trust_root_path(),
        profile: home.profile_path(),
        bundle: home.bundle_path(),
        coordinator: coordinator.to_string(),
        ca_sha256: ca.pin(),
        trust_root_expires_ms: root.expires.0,
        gates: root.environments,
    })
}

/// The key that the trust root is owned by: one that there is, or a new one, in the home.
fn owner_key(args: &InitArgs, new: &Home, home: &Home) -> Result<Signer> {
    durable::create_dir(&new.keys_path(), 0o700).at("create", &new.keys_path())?;
    if let Some(name) = &args.owner_key {
        let signer = Signer::open(name, &args.passphrase_from)?;
        return match signer.owner_hint() {
            Some(owner) if *owner != args.owner => Err(Failure::usage(format!("{name} is {owner}'s key"))
                .next(format!("name its owner: --owner {owner}"))),
            Some(_) | None => Ok(signer),
        };
    }
    let name = home.owner_key_path().display().to_string();
    let key = SigningKey::generate().doing(|| "failed to make the owner's key".into())?;
    let path = new.owner_key_path();
    if args.passphrase {
        let passphrase = args.passphrase_from.new_for("the owner's key")?;
        SealedKeyFile::seal(args.owner.clone(), &key, passphrase)?.write(&path)?;
    } else {
        KeyFile::new(args.owner.clone(), &key).write(&path).at("write", &path)?;
    }
    Ok(Signer::of_key(key, args.owner.clone(), &name))
}

/// An OpenSSH key does not say whose it is: then it is who `--owner` says.
fn owner_of(args: &InitArgs, signer: &Signer) -> Owner {
    signer.owner_hint().unwrap_or(&args.owner).clone()
}

fn first_trust_root(
    args: &InitArgs,
    now: UnixMs,
    [owner, publisher]: [&Signer; 2],
    coordinator: &str,
    ca_sha256: Sha256,
) -> TrustRoot {
    let key = |key: &Signer| {
        let (owner, public) = (owner_of(args, key), key.public().to_base64());
        (key.id(), Key { scheme: key.scheme(), public, owner })
    };
    let role = |key: &Signer| RoleKeys { keys: vec![key.id()], threshold: 1 };
    let app =
        AppTrust { publishers: role(publisher), epoch: 0, floor: OrderingNumber::default(), config: None };
    TrustRoot {
        version: 1,
        issued: now,
        expires: now.plus(args.expires),
        keys: [key(owner), key(publisher)].into(),
        root: role(owner),
        roles: approvers(role(owner)),
        apps: args.apps.iter().map(|name| (name.clone(), app.clone())).collect(),
        environments: args.environments.iter().map(|name| (name.clone(), Gate::PublisherOnly {})).collect(),
        coordinators: vec![CoordinatorPin { id: coordinator.to_owned(), ca_sha256 }],
        revoked: Vec::new(),
        enrolment: None,
    }
}

/// The role that a gate will name once there is one.
fn approvers(role: RoleKeys) -> BTreeMap<Owner, RoleKeys> {
    "approvers".parse().map(|name| BTreeMap::from([(name, role)])).unwrap_or_default()
}

fn random_id() -> Result<Id> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| Failure::new("the system gives no random bytes"))?;
    Ok(Id::from_bytes(bits))
}

fn owner_key_is_ours(made: &Made) -> bool {
    Path::new(&made.owner_key).starts_with(&made.home)
}

fn text(made: &Made) -> String {
    let keep = if owner_key_is_ours(made) {
        "Take it off this machine: to a stick, into a safe."
    } else {
        "Yours already; guard it as before."
    };
    let Made { owner_key, publisher_key, trust_root, profile, bundle, gates, .. } = made;
    // Where somebody else approves, the owner's key does not.
    let approves =
        if gates.values().all(|gate| matches!(gate, Gate::PublisherOnly {})) { " and approves" } else { "" };
    let gates: String =
        gates.iter().map(|(environment, gate)| format!("  {environment}: {}\n", gate_text(gate))).collect();
    format!(
        "made {home}

  {owner_key}
      signs the trust root{approves}. {keep}
  {publisher}
      signs artifacts. Give it to CI as CONSIGN_PUBLISHER_KEY, then delete it here.
  {bundle}
      the coordinator's identity, with its CA's private key. Copy it to the coordinator's machine, start
      `consign serve --bundle coordinator.bundle` there (deploy/install-coordinator.sh does), then delete it on both.
  {trust_root}
      your own pinned copy of the trust root (valid until {expires}). Stays here.
  {profile}
      where the coordinator is and who you are to it. Stays here, with operator.pem.

what runs where is decided by these signatures (consign trust set-gate changes that):
{gates}
next: consign serve --bundle {bundle}
",
        home = made.home.display(),
        publisher = publisher_key.display(),
        bundle = bundle.display(),
        trust_root = trust_root.display(),
        profile = profile.display(),
        expires = UnixMs(made.trust_root_expires_ms),
    )
}
