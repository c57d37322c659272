//! From arguments to what is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use consign_common::{
    name::{App, Environment, StepName, Version},
    sealing::Salt,
    trust::{Config, ConfigValue, TrustRoot},
};
use serde::Serialize;

use super::{
    change::{self, Before, Wanted},
    declared::{self, Declared},
    given::{self, Assignment, SecretSource},
    salts,
    send::{self, Sealable, Unaccepted},
    show,
};
use crate::cli::{
    client::Client,
    failure::{Failure, Result},
    print::{Format, Printer},
    profile::Home,
    signer::{KeyName, PassphraseArgs},
    trust,
};

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Set values and secrets: signed here, secrets sealed to every accepted server
    #[command(after_help = "Examples:
  consign config set shop --env production workers=8 mode=fast
  consign config set shop --env production --secret db_password
  consign config set shop --env production --secret tls_key=@/run/keys/tls.pem")]
    Set(Box<SetArgs>),
    /// Take values away: their defaults count again
    Unset(Box<UnsetArgs>),
    /// Seal secrets that were set before to servers that came later; the values are given again
    #[command(after_help = "Example:
  consign config reseal shop --env production --secret db_password")]
    Reseal(Box<ResealArgs>),
    /// Show the values of an app in an environment, and which servers have its secrets
    Show(ShowArgs),
    /// List what was set, newest first
    List(PlaceArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// The app
    app: App,
    /// The environment
    #[arg(long = "env", value_name = "ENV")]
    environment: Environment,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// Whose plan says which parameters there are; without it, the newest version's
    #[arg(long = "for", value_name = "VERSION")]
    version: Option<Version>,
    /// Go on without servers that nobody has accepted: they get no secrets
    #[arg(long)]
    leave_out: bool,
    /// A key of the app's config role, or of its publishers: a file (also OpenSSH's), or ssh-agent:FINGERPRINT; repeat it
    /// where the threshold is above one. Default: the key of the home that may
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<KeyName>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Values of parameters that are not secret
    #[arg(value_name = "NAME=VALUE")]
    values: Vec<Assignment>,
    /// More of them, as TOML: NAME = VALUE
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// A secret: asked for, or read from stdin; NAME=@FILE reads a file. A last newline is left out
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<SecretSource>,
    #[command(flatten)]
    sign: SignArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UnsetArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Parameters
    #[arg(value_name = "NAME", required = true)]
    names: Vec<StepName>,
    #[command(flatten)]
    sign: SignArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ResealArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// A secret's value, as it was set: asked for, or read from stdin; NAME=@FILE reads a file. Without any, all that
    /// are not sealed to every accepted server are asked for
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<SecretSource>,
    /// Go on without servers that nobody has accepted: they get no secrets
    #[arg(long)]
    leave_out: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Whose plan says which parameters there are; without it, the newest version's
    #[arg(long = "for", value_name = "VERSION")]
    version: Option<Version>,
    /// An older config, by its number in `consign config list`
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    sequence: u64,
}

/// The schema of set, unset and reseal.
#[derive(Debug, Serialize)]
struct Changed {
    app: String,
    environment: String,
    sequence: u64,
    /// A line for each value that changes; empty: it was so already.
    changes: Vec<String>,
    /// As set; a secret is only said to be there.
    values: BTreeMap<String, String>,
    /// Servers that got secrets.
    sealed_to: Vec<String>,
    /// What is to be done about the others.
    left_out: Vec<String>,
}

pub(crate) async fn run(
    command: ConfigCommand,
    home: &Home,
    client: &Client,
    printer: &Printer,
) -> Result<()> {
    match command {
        ConfigCommand::Set(args) => set(*args, home, client, printer).await,
        ConfigCommand::Unset(args) => {
            let scene = Scene::read(args.place, args.sign.version.as_ref(), home, client).await?;
            let unset: BTreeSet<StepName> = args.names.into_iter().collect();
            let wanted = Wanted { unset, ..Wanted::default() };
            scene.change(wanted, &args.sign, home, client, printer).await
        }
        ConfigCommand::Reseal(args) => reseal(*args, home, client, printer).await,
        ConfigCommand::Show(args) => {
            let (_, root) = trust::newest(home, client).await?;
            let PlaceArgs { app, environment } = args.place;
            let declared = declared::read(&app, args.version.as_ref(), &root, client).await?;
            let (before, _) = change::before(&app, &environment, args.sequence, &root, client).await?;
            let version = declared.version.to_string();
            let shown = show::shown_of(&app, &environment, &version, &declared.plan, &before);
            printer.show(&shown, show::show_text)
        }
        ConfigCommand::List(PlaceArgs { app, environment }) => {
            let (_, root) = trust::newest(home, client).await?;
            let (_, history) = change::before(&app, &environment, 0, &root, client).await?;
            let listed: Vec<show::Listed> = history
                .into_iter()
                .map(|one| show::Listed { sequence: one.sequence, at_ms: one.at_ms, by: one.by })
                .collect();
            printer.show(&listed, |listed| show::list_text(listed))
        }
    }
}

/// What a change begins with.
struct Scene {
    app: App,
    environment: Environment,
    root: TrustRoot,
    declared: Declared,
    before: Before,
}

impl Scene {
    async fn read(place: PlaceArgs, version: Option<&Version>, home: &Home, client: &Client) -> Result<Self> {
        let PlaceArgs { app, environment } = place;
        let (_, root) = trust::newest(home, client).await?;
        if !root.environments.contains_key(&environment) {
            return Err(Failure::refused(format!(
                "the trust root does not name the environment {environment}"
            )));
        }
        let declared = declared::read(&app, version, &root, client).await?;
        let (before, _) = change::before(&app, &environment, 0, &root, client).await?;
        Ok(Self { app, environment, root, declared, before })
    }

    async fn change(
        self,
        wanted: Wanted,
        sign: &SignArgs,
        home: &Home,
        client: &Client,
        printer: &Printer,
    ) -> Result<()> {
        let Self { app, environment, root, declared, before } = self;
        let plan = &declared.plan;
        if let Some(why) = &before.unverified {
            printer.note(&format!("nothing is taken over from config {}: {why}", before.sequence))?;
        }
        let role = send::role(&root, &app)?;
        let values = change::after(before.config.as_ref(), &wanted, plan)?;
        let empty = BTreeMap::new();
        let old = before.config.as_ref().map_or(&empty, |config| &config.values);
        let changes = change::difference(old, &values, plan);
        let (mut changed, nothing) = (
            Changed {
                app: app.to_string(),
                environment: environment.to_string(),
                sequence: before.sequence,
                values: show::values_text(&values),
                changes,
                sealed_to: Vec::new(),
                left_out: Vec::new(),
            },
            before.config.as_ref().is_some_and(|config| config.values == values),
        );
        if nothing {
            return printer.show(&changed, |_| "it is so already; nothing was sent\n".to_owned());
        }
        let unaccepted = if sign.leave_out { Unaccepted::LeaveOut } else { Unaccepted::Refuse };
        let mut servers = Vec::new();
        if !wanted.secrets.is_empty() {
            (servers, changed.left_out) = send::sealable(&environment, unaccepted, &root, client).await?;
        }
        if printer.format() == Format::Text {
            changed.changes.iter().try_for_each(|line| printer.line(line))?;
        }
        let signers = send::signers(&sign.keys, &sign.passphrase, home, role)?;
        let sequence = before.sequence.saturating_add(1);
        let config =
            Config { app: app.clone(), environment: environment.clone(), sequence, values: values.clone() };
        let envelope = send::sign(config, &signers, &root)?;
        let sealed = send::seal(&app, &environment, &wanted.secrets, &servers)?;
        // Before it is in force: without its salt a value could never be sealed again.
        salts::remember(home, &app, &environment, &wanted.secrets)?;
        changed.sequence = send::put(&envelope, sealed, client).await?;
        changed.sealed_to = servers.into_iter().map(|server| server.server).collect();
        finish(&changed, printer)
    }
}

fn finish(changed: &Changed, printer: &Printer) -> Result<()> {
    for line in &changed.left_out {
        printer.note(line)?;
    }
    printer.show(changed, |changed| {
        let mut text = format!("config {} of {} in {}", changed.sequence, changed.app, changed.environment);
        if !changed.sealed_to.is_empty() {
            text.push_str(&format!(", secrets sealed to {}", changed.sealed_to.join(", ")));
        }
        text.push_str("; it takes effect with the next rollout\n");
        text
    })
}

async fn set(args: SetArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    if args.values.is_empty() && args.from.is_none() && args.secrets.is_empty() {
        return Err(Failure::usage("nothing to set").next("give NAME=VALUE, --from FILE or --secret NAME"));
    }
    let scene = Scene::read(args.place, args.sign.version.as_ref(), home, client).await?;
    let plan = &scene.declared.plan;
    let plain = given::plain(&args.values, args.from.as_deref(), plan)?;
    let random =
        |_: &StepName| Salt::random().ok_or_else(|| Failure::new("the system gives no random bytes"));
    let secrets = given::secrets(&args.secrets, plan, random)?;
    let wanted = Wanted { plain, secrets, unset: BTreeSet::new() };
    scene.change(wanted, &args.sign, home, client, printer).await
}

/// The same values for more servers: nothing is signed anew, so that what was approved stays approved.
async fn reseal(args: ResealArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let scene = Scene::read(args.place, None, home, client).await?;
    let Scene { app, environment, root, declared, before } = scene;
    let Some(config) = &before.config else {
        let why = before.unverified.unwrap_or_else(|| "nothing was ever set".to_owned());
        return Err(Failure::new(format!("there is nothing to seal again: {why}")));
    };
    let unaccepted = if args.leave_out { Unaccepted::LeaveOut } else { Unaccepted::Refuse };
    let (servers, left_out) = send::sealable(&environment, unaccepted, &root, client).await?;
    let lacking = |name: &StepName, commitment: &str| -> Vec<Sealable> {
        let has = |server: &&Sealable| {
            before.sealed.iter().any(|sealed| {
                sealed.server == server.server
                    && sealed.name == name.as_str()
                    && sealed.commitment == commitment
                    && sealed.recipient == server.recipient.to_string()
            })
        };
        servers.iter().filter(|server| !has(server)).cloned().collect()
    };
    let mut wanting: BTreeMap<StepName, Vec<Sealable>> = BTreeMap::new();
    for (name, value) in &config.values {
        let ConfigValue::Commitment(commitment) = value else { continue };
        let servers = lacking(name, &commitment.commitment.to_string());
        if !servers.is_empty() {
            wanting.insert(name.clone(), servers);
        }
    }
    let mut changed = Changed {
        app: app.to_string(),
        environment: environment.to_string(),
        sequence: before.sequence,
        changes: Vec::new(),
        values: show::values_text(&config.values),
        sealed_to: Vec::new(),
        left_out,
    };
    let sources: Vec<SecretSource> = if args.secrets.is_empty() {
        wanting.keys().map(|name| SecretSource::asked(name.clone())).collect()
    } else {
        args.secrets
    };
    if wanting.is_empty() {
        for line in &changed.left_out {
            printer.note(line)?;
        }
        return printer
            .show(&changed, |_| "every accepted server has every secret; nothing was sent\n".to_owned());
    }
    // The salt that belongs to what was signed: with any other one the value would not fit its commitment.
    let salt = |name: &StepName| {
        match config.values.get(name) {
        Some(ConfigValue::Commitment(commitment)) => {
            salts::find(home, &app, &environment, commitment.commitment)?.ok_or_else(|| {
                Failure::new(format!("{name} was not set on this machine, so that its value cannot be told for the one that was signed")).next(
                    format!("reseal where it was set; or set it anew, for all servers: consign config set {app} --env {environment} --secret {name}"),
                )
            })
        }
        Some(ConfigValue::Bool(_) | ConfigValue::Int(_) | ConfigValue::String(_)) | None => {
            Err(Failure::usage(format!("no secret {name} is set")))
        }
    }
    };
    let secrets = given::secrets(&sources, &declared.plan, salt)?;
    let mut sealed = Vec::new();
    for (name, secret) in &secrets {
        if config.values.get(name) != Some(&ConfigValue::Commitment(secret.commitment())) {
            return Err(Failure::new(format!("what was given for {name} is not the value that was signed"))
                .next("nothing was sent; give the value that it has, or set another one for all servers with `consign config set`"));
        }
        let one = BTreeMap::from([(name.clone(), secret.clone())]);
        let servers = wanting.get(name).map(Vec::as_slice).unwrap_or_default();
        sealed.extend(send::seal(&app, &environment, &one, servers)?);
    }
    let to: BTreeSet<String> = sealed.iter().map(|sealed| sealed.server.clone()).collect();
    changed.sealed_to = to.into_iter().collect();
    changed.sequence = send::put(&before.envelope, sealed, client).await?;
    finish(&changed, printer)
}
