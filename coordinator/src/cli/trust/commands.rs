//! What the commands do.

use consign_common::{
    digest::Sha256,
    durable,
    limits::{ENVELOPE_BYTES, TRUST_ROOT_BYTES},
    name::{App, Owner, Version},
    time::{Clock, SystemClock, UnixMs},
    trust::{AppTrust, Envelope, Gate, Predicate, Statement, TrustRoot},
};
use consign_proto::v1;

use super::{
    args::{AddKeyArgs, Floor, InitArgs, RotateArgs, SetGateArgs, TrustCommand, UpdateArgs},
    change::Base,
    edit::Edit,
    role::{NamedKey, RoleName, find_key},
    rule, show, sign,
};
use crate::cli::{
    client::{Client, unary},
    failure::{Doing, Failure, Result},
    key::PublicKeyFile,
    print::Printer,
    profile::{Home, read},
    signer::PublicKeyName,
};

pub(crate) async fn run(
    command: TrustCommand,
    home: &Home,
    client: impl FnOnce() -> Result<Client>,
    printer: &Printer,
) -> Result<()> {
    match command {
        TrustCommand::Init(args) => init(&args, home, printer),
        TrustCommand::Show => shown(home, printer),
        TrustCommand::Update(args) => match &args.from {
            Some(draft) => sign::hand_over(draft, &args.change, home, &client()?, printer).await,
            None => update(&args, home, client, printer).await,
        },
        TrustCommand::AddKey(args) => {
            let base = Base::fetch(&args.change, home, client, printer).await?;
            base.change(added(&args)?, &args.change, printer).await
        }
        TrustCommand::SetGate(args) => {
            let rules = args.require.iter().chain(&args.rearm);
            rules.filter_map(|rule| rule::warning(&rule.0)).try_for_each(|line| printer.note(&line))?;
            let base = Base::fetch(&args.change, home, client, printer).await?;
            let edit = Edit::SetGate { environment: args.environment.clone(), gate: gate(&args) };
            base.change(vec![edit], &args.change, printer).await
        }
        TrustCommand::Rotate(args) => rotate(&args, home, client, printer).await,
        TrustCommand::Sign(args) => sign::sign(&args, home, client, printer).await,
    }
}

/// The newest trust root: what the coordinator has, as far as every step from our pinned copy to it is signed. Pins it.
pub(crate) async fn newest(home: &Home, client: &Client) -> Result<(Vec<u8>, TrustRoot)> {
    let (mut envelope, mut root) = home.trust_root()?;
    let request = unary(v1::GetTrustRootsRequest { after_version: root.version });
    let answer =
        client.operators().get_trust_roots(request).await.map_err(|status| client.failure(status))?;
    let pinned = root.version;
    for next in answer.into_inner().envelopes {
        root = root.open_next(&next).map_err(|refusal| {
            Failure::refused(format!("the coordinator's next trust root is not to be believed: {refusal}"))
                .next("do not go on before you know who made it; the pinned copy here is unchanged")
        })?;
        envelope = next.to_vec();
    }
    if root.version != pinned {
        home.pin_trust_root(&envelope)?;
    }
    Ok((envelope, root))
}

/// What hosts and other signers compare.
pub(super) fn pin(envelope: &[u8]) -> Result<Sha256> {
    TrustRoot::pin(envelope).doing(|| "the trust root".into())
}

fn init(args: &InitArgs, home: &Home, printer: &Printer) -> Result<()> {
    let path = home.trust_root_path();
    if path.exists() {
        return Err(Failure::new(format!("{} is pinned already", path.display()))
            .next("`consign trust show` shows it; --home DIR begins another one"));
    }
    let envelope = read(&args.file, TRUST_ROOT_BYTES as u64)?;
    TrustRoot::open_pinned(&envelope, args.pin).map_err(|refusal| {
        Failure::refused(format!("{} is not pinned: {refusal}", args.file.display()))
            .next("ask its owner for the file and the pin that `consign trust show` shows")
    })?;
    if !home.root().exists() {
        durable::create_dir(home.root(), 0o700).at("create", home.root())?;
    }
    home.pin_trust_root(&envelope)?;
    shown(home, printer)
}

fn shown(home: &Home, printer: &Printer) -> Result<()> {
    let (envelope, root) = home.trust_root()?;
    let pin = pin(&envelope)?;
    printer.show(&root, |root| show::text(root, pin, SystemClock.now()))
}

async fn update(
    args: &UpdateArgs,
    home: &Home,
    client: impl FnOnce() -> Result<Client>,
    printer: &Printer,
) -> Result<()> {
    let base = Base::fetch(&args.change, home, client, printer).await?;
    let edits = edits(args, &base).await?;
    base.change(edits, &args.change, printer).await
}

async fn edits(args: &UpdateArgs, base: &Base<'_>) -> Result<Vec<Edit>> {
    let mut edits = Vec::new();
    if let Some(app) = &args.add_app {
        let publisher = args.publisher.as_ref().map(|name| named(name, None)).transpose()?;
        edits.push(Edit::AddApp { app: app.clone(), publisher });
    }
    edits.extend(args.add_env.clone().map(Edit::AddEnvironment));
    if let Some((app, file)) = &args.add_publisher {
        edits.push(Edit::AddPublisher { app: app.clone(), publisher: named(file, None)? });
    }
    for (role, key) in &args.remove_key {
        edits.push(Edit::RemoveKey { role: role.clone(), key: find_key(&base.root, key)? });
    }
    if let Some((app, role)) = &args.config {
        edits.push(Edit::ConfigRole { app: app.clone(), role: role.clone() });
    }
    match &args.floor {
        None => {}
        Some(Floor::Now(app)) => edits.push(Edit::Floor { app: app.clone(), floor: base.now }),
        Some(Floor::At(app, at)) => edits.push(Edit::Floor { app: app.clone(), floor: *at }),
        Some(Floor::Version(app, version)) => {
            let client = base.client.as_ref().ok_or_else(|| {
                Failure::new("when a version was published is asked of the coordinator")
                    .next(format!("give the time instead: --floor {app}=UNIX-MS"))
            })?;
            let floor = published_at(&base.root, app, version, client).await?;
            edits.push(Edit::Floor { app: app.clone(), floor });
        }
    }
    edits.extend(args.next_epoch.clone().map(Edit::NextEpoch));
    edits.extend(args.revoke.map(Edit::Revoke));
    edits.extend(args.add_coordinator.clone().map(Edit::AddCoordinator));
    edits.extend(args.remove_coordinator.clone().map(Edit::RemoveCoordinator));
    Ok(edits)
}

/// One edit a role, in the order in which the roles were named.
fn added(args: &AddKeyArgs) -> Result<Vec<Edit>> {
    let mut by_role: Vec<(RoleName, Vec<NamedKey>)> = Vec::new();
    for (role, name) in &args.added {
        let key = named(name, args.owner.as_ref())?;
        match by_role.iter_mut().find(|(known, _)| known == role) {
            Some((_, keys)) => keys.push(key),
            None => by_role.push((role.clone(), vec![key])),
        }
    }
    let edit = |(role, keys)| Edit::AddKeys { role, keys, threshold: args.threshold };
    Ok(by_role.into_iter().map(edit).collect())
}

fn gate(args: &SetGateArgs) -> Gate {
    if args.publisher_only {
        return Gate::PublisherOnly {};
    }
    Gate::Statements {
        require: args.require.iter().map(|rule| rule.0.clone()).collect(),
        rearm: args.rearm.iter().map(|rule| rule.0.clone()).collect(),
        separation: args.separation.into(),
    }
}

async fn rotate(
    args: &RotateArgs,
    home: &Home,
    client: impl FnOnce() -> Result<Client>,
    printer: &Printer,
) -> Result<()> {
    let base = Base::fetch(&args.change, home, client, printer).await?;
    let from = find_key(&base.root, &args.old)?;
    // An OpenSSH file does not say whose it is: then it is whose the old one was.
    let owner = base.root.keys.get(&from).map(|key| &key.owner);
    let to = args.to.as_ref().map(|name| named(name, owner)).transpose()?;
    base.change(vec![Edit::Rotate { from, to }], &args.change, printer).await
}

fn named(name: &PublicKeyName, owner: Option<&Owner>) -> Result<NamedKey> {
    NamedKey::of(PublicKeyFile::find(name, owner)?)
}

/// The earliest publication of a version, as its publisher signed it: the coordinator's word for it is not enough.
async fn published_at(root: &TrustRoot, app: &App, version: &Version, client: &Client) -> Result<UnixMs> {
    let request =
        v1::ShowArtifactRequest { app: app.to_string(), version: version.to_string(), ..Default::default() };
    let answer =
        client.operators().show_artifact(unary(request)).await.map_err(|status| client.failure(status))?;
    let trust =
        root.apps.get(app).ok_or_else(|| Failure::new(format!("the trust root does not name {app}")))?;
    let artifact = answer.into_inner();
    artifact
        .statements
        .iter()
        .filter_map(|bytes| signed_number(root, trust, app, version, bytes))
        .min()
        .ok_or_else(|| {
            Failure::refused(format!(
                "nothing that {app}'s publishers signed says when {version} was published"
            ))
        })
}

fn signed_number(
    root: &TrustRoot,
    trust: &AppTrust,
    app: &App,
    version: &Version,
    bytes: &[u8],
) -> Option<UnixMs> {
    let envelope = Envelope::parse(bytes, ENVELOPE_BYTES).ok()?;
    let payload = envelope.verified_by("publication", &trust.publishers, &root.keys).ok()?;
    match Statement::parse(payload).ok()?.predicate {
        Predicate::Published(published) => {
            let ours = published.app == *app && published.version == *version;
            (ours && published.number.epoch == trust.epoch).then_some(published.number.ms)
        }
        Predicate::Approval(_)
        | Predicate::Config(_)
        | Predicate::Enrolled(_)
        | Predicate::Decision(_)
        | Predicate::Foreign { .. } => None,
    }
}
