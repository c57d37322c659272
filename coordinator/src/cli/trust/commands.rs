//! `consign trust show | update`.

use std::{str::FromStr, time::Duration};

use clap::{Args, Subcommand};
use consign_common::{
    digest::Sha256,
    limits::ENVELOPE_BYTES,
    name::{App, Environment, Version},
    time::{Clock, SystemClock, UnixMs},
    trust::{AppTrust, Envelope, Gate, Predicate, Statement, TrustRoot},
};
use consign_proto::v1;

use super::edit::{Edit, Publisher, difference, next, number, owners};
use crate::cli::{
    client::{Client, unary},
    failure::{Doing, Failure, Result},
    key::PublicKeyFile,
    print::{Format, Printer},
    profile::Home,
    signer::{self, KeyName, PassphraseArgs, PublicKeyName, Signer},
    text::parse_span,
};

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Show the pinned trust root: who may publish, what each environment requires
    Show,
    /// Change the trust root: fetch the newest, edit, sign as version + 1, hand it to the coordinator and pin it
    #[command(after_help = "Examples:
  consign trust update --add-app blog --publisher blog-ci.pub
  consign trust update --floor shop@1.4.0 --key /media/stick/owner.key")]
    Update(Box<UpdateArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Name a new app
    #[arg(long, value_name = "APP")]
    add_app: Option<App>,
    /// Who publishes the new app: a public key, also OpenSSH's; without it, who publishes all others
    #[arg(long, value_name = "[OWNER=]FILE", requires = "add_app")]
    publisher: Option<PublicKeyName>,
    /// Name a new environment, publisher-only
    #[arg(long, value_name = "ENV")]
    add_env: Option<Environment>,
    /// Let one more key publish an app
    #[arg(long, value_name = "APP=[OWNER=]FILE", value_parser = parse_add_publisher)]
    add_publisher: Option<(App, PublicKeyName)>,
    /// Refuse everything of an app that was published before: APP=now, APP=UNIX-MS or APP@VERSION
    #[arg(long, value_name = "FLOOR")]
    floor: Option<Floor>,
    /// Never run this artifact again, nor return to it
    #[arg(long, value_name = "DIGEST")]
    revoke: Option<Sha256>,
    /// How long the next version is valid, from now; without it, as long as the one before
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    expires: Option<Duration>,
    /// The owner's key: a file (also OpenSSH's), or ssh-agent:FINGERPRINT; repeat it where the root's threshold is
    /// above one. Default: keys/owner.key of the home
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<KeyName>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Floor {
    Now(App),
    At(App, UnixMs),
    Version(App, Version),
}

impl FromStr for Floor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "a floor is APP=now, APP=UNIX-MS or APP@VERSION";
        let app = |app: &str| app.parse::<App>().map_err(|error| error.to_string());
        if let Some((name, at)) = text.split_once('=') {
            return match at {
                "now" => Ok(Self::Now(app(name)?)),
                at => Ok(Self::At(app(name)?, UnixMs(at.parse().map_err(|_| RULE)?))),
            };
        }
        let (name, version) = text.split_once('@').ok_or(RULE)?;
        let version = version.parse::<Version>().map_err(|error| error.to_string())?;
        Ok(Self::Version(app(name)?, version))
    }
}

fn parse_add_publisher(text: &str) -> Result<(App, PublicKeyName), String> {
    let (app, key) = text.split_once('=').ok_or("give APP=FILE")?;
    Ok((app.parse::<App>().map_err(|error| error.to_string())?, key.parse()?))
}

pub(crate) async fn run(
    command: TrustCommand,
    home: &Home,
    client: impl FnOnce() -> Result<Client>,
    printer: &Printer,
) -> Result<()> {
    match command {
        TrustCommand::Show => {
            let (_, root) = home.trust_root()?;
            printer.show(&root, text)
        }
        TrustCommand::Update(args) => update(&args, home, &client()?, printer).await,
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

async fn update(args: &UpdateArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let (_, root) = newest(home, client).await?;
    let now = SystemClock.now();
    let edits = edits(args, &root, client, now).await?;
    if edits.is_empty() {
        return Err(Failure::usage("nothing to change")
            .next("`consign trust update --help` lists what can be changed"));
    }
    let keys = signing_keys(&args.keys, &args.passphrase, home, &root)?;
    let updated = next(&root, edits, now)?;
    if printer.format() == Format::Text {
        difference(&root, &updated).iter().try_for_each(|line| printer.line(line))?;
    }
    let envelope = signer::sign(updated.payload_type(), updated.to_payload(), &keys)?.to_vec();
    // What every agent will check, before anybody else sees it.
    root.open_next(&envelope).doing(|| "these keys are not enough".into())?;
    let request = unary(v1::PutTrustRootRequest { envelope: envelope.clone().into() });
    client.operators().put_trust_root(request).await.map_err(|status| client.failure(status))?;
    home.pin_trust_root(&envelope)?;
    match printer.format() {
        Format::Json => printer.show(&updated, text),
        Format::Text => printer
            .line(&format!("trust root {} is in force; agents take it when they connect", updated.version)),
    }
}

async fn edits(args: &UpdateArgs, root: &TrustRoot, client: &Client, now: UnixMs) -> Result<Vec<Edit>> {
    let mut edits = Vec::new();
    if let Some(app) = &args.add_app {
        let publisher = args.publisher.as_ref().map(read_publisher).transpose()?;
        edits.push(Edit::AddApp { app: app.clone(), publisher });
    }
    edits.extend(args.add_env.clone().map(Edit::AddEnvironment));
    if let Some((app, file)) = &args.add_publisher {
        edits.push(Edit::AddPublisher { app: app.clone(), publisher: read_publisher(file)? });
    }
    match &args.floor {
        None => {}
        Some(Floor::Now(app)) => edits.push(Edit::Floor { app: app.clone(), floor: now }),
        Some(Floor::At(app, at)) => edits.push(Edit::Floor { app: app.clone(), floor: *at }),
        Some(Floor::Version(app, version)) => {
            let floor = published_at(root, app, version, client).await?;
            edits.push(Edit::Floor { app: app.clone(), floor });
        }
    }
    edits.extend(args.revoke.map(Edit::Revoke));
    edits.extend(args.expires.map(|span| Edit::Expires(now.plus(span))));
    Ok(edits)
}

fn read_publisher(name: &PublicKeyName) -> Result<Publisher> {
    let file = PublicKeyFile::find(name, None)?;
    let key = file.key().doing(|| "public key".into())?;
    Ok(Publisher { owner: file.owner, scheme: file.scheme, key })
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

fn signing_keys(
    given: &[KeyName],
    passphrase: &PassphraseArgs,
    home: &Home,
    root: &TrustRoot,
) -> Result<Vec<Signer>> {
    let default = [KeyName::File(home.owner_key_path())];
    let keys = Signer::open_all(if given.is_empty() { &default } else { given }, passphrase)?;
    for key in &keys {
        if !root.root.keys.contains(&key.id()) {
            return Err(Failure::new(format!("{} is not a key of the root role", key.name()))
                .next(format!("the trust root is signed by {}", owners(root, &root.root))));
        }
        key.check_scheme(root)?;
    }
    Ok(keys)
}

fn text(root: &TrustRoot) -> String {
    let mut text = format!(
        "trust root {}, valid until {}\nroot          {}\n",
        root.version,
        root.expires,
        owners(root, &root.root)
    );
    for (app, trust) in &root.apps {
        text.push_str(&format!("app           {app}, published by {}", owners(root, &trust.publishers)));
        if trust.floor != Default::default() {
            text.push_str(&format!(", floor {}", number(trust.floor)));
        }
        text.push('\n');
    }
    for (environment, gate) in &root.environments {
        let gate = match gate {
            Gate::PublisherOnly {} => "publisher-only".to_owned(),
            Gate::Statements { require, .. } => require
                .iter()
                .map(|rule| format!("{} by {} of {}", rule.predicate, rule.threshold, rule.role))
                .collect::<Vec<_>>()
                .join(", "),
        };
        text.push_str(&format!("environment   {environment}: {gate}\n"));
    }
    for coordinator in &root.coordinators {
        text.push_str(&format!("coordinator   {} with CA {}\n", coordinator.id, coordinator.ca_sha256));
    }
    for digest in &root.revoked {
        text.push_str(&format!("revoked       {digest}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_has_three_forms() {
        let shop: App = "shop".parse().unwrap();
        assert_eq!("shop=now".parse(), Ok(Floor::Now(shop.clone())));
        assert_eq!("shop=17".parse(), Ok(Floor::At(shop.clone(), UnixMs(17))));
        assert_eq!("shop@1.0".parse(), Ok(Floor::Version(shop, "1.0".parse().unwrap())));
        for bad in ["shop", "shop=", "=now", "shop@", "Shop=now", "shop=-1"] {
            assert!(bad.parse::<Floor>().is_err(), "{bad}");
        }
    }
}
