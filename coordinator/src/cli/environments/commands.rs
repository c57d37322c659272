//! The commands and what they ask of the coordinator.

use std::{fs, io::IsTerminal as _, path::PathBuf};

use clap::{Args, Subcommand};
use consign_common::{
    name::{App, Environment as Name},
    time::{Clock as _, SystemClock},
};
use consign_proto::v1;
use serde::Serialize;

use super::{
    take_over::{TakeOverArgs, take_over},
    text,
};
use crate::{
    cli::{
        client::{Client, unary},
        failure::{Doing as _, Failure, Result},
        output::{Applied, Environment, Hold, Server},
        print::Printer,
    },
    environments::parse,
};

#[derive(Debug, Subcommand)]
pub(crate) enum EnvCommand {
    /// Set how rollouts go about it, from a file
    #[command(after_help = "Example:
  consign env apply environments.toml

The file, with every setting (deploy/examples/environments.toml explains them):
  [environment.production]
  waves = [\"1\", \"10%\", \"100%\"]
  bake = \"5m\"
  failures = 1
  on_stop = \"rollback\"

All of the file is applied or nothing. What a table leaves out is as if it had never been set;
environments that the file does not name stay as they are.")]
    Apply(ApplyArgs),
    /// List environments
    List,
    /// Show an environment: its settings, its servers, what runs there
    Show(ShowArgs),
    /// Let things begin by themselves again, after a rollback or a hold
    #[command(after_help = "Example:
  consign env lift-hold shop --env production --reason '1.4.1 has the fix'")]
    LiftHold(LiftHoldArgs),
    /// Let nothing begin by itself, until lift-hold; what people start begins all the same
    #[command(after_help = "Example:
  consign env hold shop --env production --reason 'the warehouse moves this week'")]
    Hold(HoldArgs),
    /// Go on with a coordinator that was restored from a backup and is behind its agents
    #[command(after_help = "Example:
  consign env take-over shop --env production --reason 'restored after the disk failed; 1.4.0 runs'")]
    TakeOver(TakeOverArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// TOML with [environment.NAME] tables
    file: PathBuf,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The environment
    name: Name,
}

#[derive(Debug, Args)]
pub(crate) struct LiftHoldArgs {
    /// The app
    app: App,
    /// The environment
    #[arg(long = "env", value_name = "ENV")]
    environment: Name,
    /// Why, for those who ask later
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// The app
    app: App,
    /// The environment
    #[arg(long = "env", value_name = "ENV")]
    environment: Name,
    /// Why, for those who find it
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

/// An environment with its servers.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) environment: Environment,
    /// All that is known of its servers, beside their number.
    pub(super) members: Vec<Server>,
    #[serde(skip)]
    pub(super) settings: Vec<(&'static str, String)>,
}

pub(crate) async fn run(command: EnvCommand, client: &Client, printer: &Printer) -> Result<()> {
    match command {
        EnvCommand::Apply(args) => apply(args, client, printer).await,
        EnvCommand::List => {
            let request = unary(v1::ListEnvironmentsRequest {});
            let answer = client
                .operators()
                .list_environments(request)
                .await
                .map_err(|status| client.failure(status))?;
            let all: Vec<Environment> =
                answer.into_inner().environments.into_iter().map(Into::into).collect();
            printer.show(&all, |all| text::list(all, SystemClock.now()))
        }
        EnvCommand::Show(args) => show(args, client, printer).await,
        EnvCommand::TakeOver(args) => take_over(args, client, printer).await,
        EnvCommand::Hold(args) => {
            let request = unary(v1::HoldEnvironmentRequest {
                app: args.app.into(),
                environment: args.environment.into(),
                reason: args.reason,
            });
            let answer = client
                .operators()
                .hold_environment(request)
                .await
                .map_err(|status| client.failure(status))?;
            printer.show(&Hold::from(answer.into_inner()), |hold| text::held(hold) + "\n")
        }
        EnvCommand::LiftHold(args) => {
            let request = unary(v1::LiftHoldRequest {
                app: args.app.into(),
                environment: args.environment.into(),
                reason: args.reason,
            });
            let answer =
                client.operators().lift_hold(request).await.map_err(|status| client.failure(status))?;
            printer.show(&Hold::from(answer.into_inner()), text::lifted)
        }
    }
}

/// Read here first, so that a mistake is shown with the lines around it; the coordinator reads it again.
async fn apply(args: ApplyArgs, client: &Client, printer: &Printer) -> Result<()> {
    let text = fs::read_to_string(&args.file).at("read", &args.file)?;
    let file_name = args.file.display().to_string();
    if let Err(error) = parse(&text, &file_name) {
        let why = if std::io::stderr().is_terminal() { error.render() } else { error.to_string() };
        return Err(Failure::new(format!("{file_name} cannot be applied\n{why}")));
    }
    let request = unary(v1::ApplyEnvironmentsRequest { file_name, text, dry_run: args.dry_run });
    let answer =
        client.operators().apply_environments(request).await.map_err(|status| client.failure(status))?;
    let changes = answer.into_inner().changes.into_iter().map(Into::into).collect();
    printer.show(&Applied { changes, dry_run: args.dry_run }, text::applied)
}

async fn show(args: ShowArgs, client: &Client, printer: &Printer) -> Result<()> {
    let name = String::from(args.name);
    let request = unary(v1::ShowEnvironmentRequest { name: name.clone() });
    let answer =
        client.operators().show_environment(request).await.map_err(|status| client.failure(status))?;
    let environment = answer.into_inner();
    let servers = unary(v1::ListServersRequest { environment: name, ..v1::ListServersRequest::default() });
    let servers = client.operators().list_servers(servers).await.map_err(|status| client.failure(status))?;
    let settings = crate::grpc::settings_from_wire(environment.settings.clone().unwrap_or_default());
    let settings = settings.map_err(|status| client.failure(status))?;
    let shown = Shown {
        environment: environment.into(),
        members: servers.into_inner().servers.into_iter().map(Into::into).collect(),
        settings: settings.texts().into_iter().filter(|(_, value)| !value.is_empty()).collect(),
    };
    printer.show(&shown, |shown| text::show(shown, SystemClock.now()))
}
