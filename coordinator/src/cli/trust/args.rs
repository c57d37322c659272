//! `consign trust`: its grammar.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use consign_common::{
    digest::Sha256,
    name::{App, Environment, Owner, Version},
    time::UnixMs,
    trust::{CoordinatorPin, Separation},
};

use super::{role::RoleName, rule::RuleText};
use crate::cli::{
    signer::{KeyName, PassphraseArgs, PublicKeyName},
    text::parse_span,
};

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Pin a trust root on a machine that only signs
    #[command(
        after_help = "The digest is what `consign trust show` calls the pin; have it read to you, by its owner.

Example:
  consign trust init trust-root.json --pin 3f2a91bc07d4..."
    )]
    Init(InitArgs),
    /// Show the pinned trust root: who may publish, what each environment requires
    Show,
    /// Change the trust root: fetch the newest, edit, sign as version + 1, hand it to the coordinator and pin it
    #[command(after_help = "Examples:
  consign trust update --add-app blog --publisher blog-ci.pub
  consign trust update --floor shop@1.4.0 --key /media/stick/owner.key
  consign trust update --expires 365d --draft next.json     # for others to sign: consign trust sign
  consign trust update --from next.json                     # once they have")]
    Update(Box<UpdateArgs>),
    /// Give a role more keys: root, 'publisher of APP', 'config of APP', enrolment, or one that gates name
    #[command(after_help = "Examples:
  consign trust add-key root=bob.pub root=carol.pub --threshold 2
  consign trust add-key product-owners=ada=~/.ssh/id_ed25519.pub --threshold 1
  consign trust add-key 'publisher of shop=new-ci.pub'")]
    AddKey(Box<AddKeyArgs>),
    /// Say what an environment requires before anything may run there
    #[command(after_help = "Examples:
  consign trust set-gate production --require 'approval by product-owners'
  consign trust set-gate production --require 'test-result by qa where predicate.result == \"PASSED\"' \\
    --require 'approval by 2 of product-owners' --separation publisher
  consign trust set-gate production --require 'test-result by qa' --rearm 'approval by product-owners'
  consign trust set-gate staging --publisher-only")]
    SetGate(Box<SetGateArgs>),
    /// Put another key in the place of a lost or stolen one, in every role that it has
    #[command(after_help = "Examples:
  consign trust rotate bob --to bob-new.pub
  consign trust rotate 0a1b2c3d4e5f --remove")]
    Rotate(Box<RotateArgs>),
    /// Look at a draft of the next trust root, and sign it
    #[command(after_help = "Examples:
  consign trust sign next.json --key bob.key
  consign trust sign next.json --key ssh-agent:bob@laptop")]
    Sign(SignArgs),
}

impl TrustCommand {
    /// With the coordinator, about something else than until when the trust root is valid.
    pub(crate) fn talks(&self) -> bool {
        let change = match self {
            Self::Init(_) | Self::Show | Self::Sign(_) => return false,
            Self::Update(args) if args.from.is_some() => return false,
            Self::Update(args) => &args.change,
            Self::AddKey(args) => &args.change,
            Self::SetGate(args) => &args.change,
            Self::Rotate(args) => &args.change,
        };
        change.expires.is_none()
    }
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The envelope, as trust-root.json of another home
    pub(super) file: PathBuf,
    /// Its digest, from somebody who knows
    #[arg(long, value_name = "DIGEST")]
    pub(super) pin: Sha256,
}

/// How a change is signed and handed over.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// A root key: a file (also OpenSSH's), or ssh-agent:FINGERPRINT; repeat it where the root's threshold is above one.
    /// Default: keys/owner.key of the home
    #[arg(long = "key", value_name = "KEY")]
    pub(super) keys: Vec<KeyName>,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    /// Write it to this file, with the signatures so far, for others to sign; nothing is handed to the coordinator
    #[arg(long, value_name = "FILE")]
    pub(super) draft: Option<PathBuf>,
    /// How long the next version is valid, from now; without it, as long as the one before
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(super) expires: Option<Duration>,
    /// Go on although agents are too old to read it: their servers take nothing new until they are updated
    #[arg(long)]
    pub(super) leave_behind: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Hand a draft that all have signed to the coordinator
    #[arg(long, value_name = "DRAFT", conflicts_with_all = [
        "add_app", "add_env", "add_publisher", "remove_key", "config", "floor", "next_epoch", "revoke",
        "add_coordinator", "remove_coordinator", "keys", "draft", "expires",
    ])]
    pub(super) from: Option<PathBuf>,
    /// Name a new app
    #[arg(long, value_name = "APP")]
    pub(super) add_app: Option<App>,
    /// Who publishes the new app: a public key, also OpenSSH's; without it, who publishes all others
    #[arg(long, value_name = "[OWNER=]FILE", requires = "add_app")]
    pub(super) publisher: Option<PublicKeyName>,
    /// Name a new environment, publisher-only
    #[arg(long, value_name = "ENV")]
    pub(super) add_env: Option<Environment>,
    /// Let one more key publish an app
    #[arg(long, value_name = "APP=[OWNER=]FILE", value_parser = parse_add_publisher)]
    pub(super) add_publisher: Option<(App, PublicKeyName)>,
    /// Take a key out of one role: its owner's name, or its id
    #[arg(long, value_name = "ROLE=KEY", value_parser = parse_remove_key)]
    pub(super) remove_key: Vec<(RoleName, String)>,
    /// Who signs an app's config: a role that there is
    #[arg(long, value_name = "APP=ROLE", value_parser = parse_config)]
    pub(super) config: Option<(App, Owner)>,
    /// Refuse everything of an app that was published before: APP=now, APP=UNIX-MS or APP@VERSION
    #[arg(long, value_name = "FLOOR")]
    pub(super) floor: Option<Floor>,
    /// After a bad clock: nothing that was signed for the app so far counts any more
    #[arg(long, value_name = "APP")]
    pub(super) next_epoch: Option<App>,
    /// Never run this artifact again, nor return to it
    #[arg(long, value_name = "DIGEST")]
    pub(super) revoke: Option<Sha256>,
    /// One more coordinator that agents obey, by the digest of its CA's key
    #[arg(long, value_name = "ID=DIGEST", value_parser = parse_coordinator)]
    pub(super) add_coordinator: Option<CoordinatorPin>,
    /// A coordinator that agents obey no more
    #[arg(long, value_name = "ID")]
    pub(super) remove_coordinator: Option<String>,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AddKeyArgs {
    /// A role and a public key for it; several at once are one version
    #[arg(value_name = "ROLE=[OWNER=]FILE", required = true, value_parser = parse_add_key)]
    pub(super) added: Vec<(RoleName, PublicKeyName)>,
    /// Whose keys they are, where the files do not say
    #[arg(long)]
    pub(super) owner: Option<Owner>,
    /// How many of the role's owners must sign from now on; a new role needs it
    #[arg(long, alias = "role-threshold", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) threshold: Option<u32>,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("gate").required(true).multiple(true).args(["require", "publisher_only"]))]
pub(crate) struct SetGateArgs {
    /// The environment
    #[arg(value_name = "ENV")]
    pub(super) environment: Environment,
    /// Who must have said what: 'approval by 2 of product-owners', or approval:product-owners:2; repeat it for more
    #[arg(long, value_name = "RULE")]
    pub(super) require: Vec<RuleText>,
    /// Who must say it in addition where the last deployment of the app on a server failed, or was returned
    #[arg(long, value_name = "RULE", requires = "require")]
    pub(super) rearm: Vec<RuleText>,
    /// Whose word does not count: the publisher's for any rule; with `all`, nobody's for two rules either
    #[arg(long, value_enum, default_value_t, requires = "require")]
    pub(super) separation: SeparationArg,
    /// The publisher's signature is enough
    #[arg(long, conflicts_with_all = ["require", "rearm"])]
    pub(super) publisher_only: bool,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeparationArg {
    #[default]
    None,
    Publisher,
    All,
}

impl From<SeparationArg> for Separation {
    fn from(arg: SeparationArg) -> Self {
        match arg {
            SeparationArg::None => Self::None,
            SeparationArg::Publisher => Self::Publisher,
            SeparationArg::All => Self::All,
        }
    }
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["to", "remove"]))]
pub(crate) struct RotateArgs {
    /// The old key: its owner's name, or the beginning of its id
    #[arg(value_name = "KEY")]
    pub(super) old: String,
    /// The new one
    #[arg(long, value_name = "[OWNER=]FILE")]
    pub(super) to: Option<PublicKeyName>,
    /// No other in its place
    #[arg(long)]
    pub(super) remove: bool,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The draft: the signature is added to it
    #[arg(value_name = "DRAFT")]
    pub(super) draft: PathBuf,
    /// A root key: a file (also OpenSSH's), or ssh-agent:FINGERPRINT. Default: keys/owner.key of the home
    #[arg(long = "key", value_name = "KEY")]
    pub(super) keys: Vec<KeyName>,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Go on although agents are too old to read it: their servers take nothing new until they are updated
    #[arg(long)]
    pub(super) leave_behind: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
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

fn pair<'a>(text: &'a str, form: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once('=').ok_or_else(|| format!("give {form}"))
}

fn parse_add_publisher(text: &str) -> Result<(App, PublicKeyName), String> {
    let (app, key) = pair(text, "APP=FILE")?;
    Ok((app.parse::<App>().map_err(|error| error.to_string())?, key.parse()?))
}

fn parse_add_key(text: &str) -> Result<(RoleName, PublicKeyName), String> {
    let (role, key) = pair(text, "ROLE=FILE")?;
    Ok((role.parse()?, key.parse()?))
}

fn parse_remove_key(text: &str) -> Result<(RoleName, String), String> {
    let (role, key) = pair(text, "ROLE=OWNER or ROLE=ID")?;
    Ok((role.parse()?, key.to_owned()))
}

fn parse_config(text: &str) -> Result<(App, Owner), String> {
    let (app, role) = pair(text, "APP=ROLE")?;
    let app = app.parse::<App>().map_err(|error| error.to_string())?;
    Ok((app, role.parse::<Owner>().map_err(|error| error.to_string())?))
}

fn parse_coordinator(text: &str) -> Result<CoordinatorPin, String> {
    let (id, digest) = pair(text, "ID=DIGEST")?;
    let ca_sha256 = digest.parse::<Sha256>().map_err(|error| error.to_string())?;
    Ok(CoordinatorPin { id: id.to_owned(), ca_sha256 })
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

    #[test]
    fn a_role_and_a_key_stand_side_by_side() {
        let (role, key) = parse_add_key("publisher of shop=ada=dir/id.pub").unwrap();
        assert_eq!(
            (role.to_string().as_str(), key.to_string().as_str()),
            ("publisher of shop", "ada=dir/id.pub")
        );
        assert!(parse_add_key("root").is_err() && parse_add_key("Root=x").is_err());
    }
}
