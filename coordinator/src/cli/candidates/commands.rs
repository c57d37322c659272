//! The commands and what they ask of the coordinator.

use clap::{Args, Subcommand};
use consign_common::{
    name::{App, Environment, Version},
    time::{Clock as _, SystemClock},
};
use consign_proto::v1;

use super::text;
use crate::cli::{
    client::{Client, unary},
    failure::{Exit, Failure, Result},
    output::Candidate,
    print::Printer,
    rollout,
    text::artifact_name,
};

#[derive(Debug, Subcommand)]
pub(crate) enum CandidateCommand {
    /// List what waits to begin by itself, and what for
    #[command(after_help = "Examples:
  consign candidate list
  consign candidate list --app shop --env production --all")]
    List(ListArgs),
    /// Show what became of an artifact in every environment where it is a candidate
    Show(ShowArgs),
    /// Say no to one that waits: it does not begin by itself
    #[command(after_help = "Example:
  consign candidate veto shop@1.4.0 --env production --reason 'checkout is slow on staging'

Published again it is a candidate again; `rollout start` starts it all the same.")]
    Veto(VetoArgs),
    /// Start one now, whatever it waits for: the same as `rollout start`
    #[command(after_help = "Example:
  consign candidate start shop@1.4.0 --env production --follow

The gate is the servers' own, and decides all the same.")]
    Start(StartArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this app's
    #[arg(long)]
    app: Option<App>,
    /// Only this environment's
    #[arg(long = "env", value_name = "ENV")]
    environment: Option<Environment>,
    /// Also those that do not wait any more
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name)]
    artifact: (App, Version),
    /// Only this environment's
    #[arg(long = "env", value_name = "ENV")]
    environment: Option<Environment>,
}

#[derive(Debug, Args)]
pub(crate) struct VetoArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name)]
    artifact: (App, Version),
    /// Where it waits
    #[arg(long = "env", value_name = "ENV")]
    environment: Environment,
    /// Why, for those who ask later
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name)]
    artifact: (App, Version),
    /// The environment whose servers get it
    #[arg(long = "env", value_name = "ENV")]
    environment: Environment,
    /// Why, for those who find it
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Stay and show what happens
    #[arg(long, short)]
    follow: bool,
}

pub(crate) async fn run(command: CandidateCommand, client: &Client, printer: &Printer) -> Result<Exit> {
    match command {
        CandidateCommand::List(args) => {
            let request = v1::ListCandidatesRequest {
                app: args.app.map(String::from).unwrap_or_default(),
                environment: args.environment.map(String::from).unwrap_or_default(),
                digest: String::new(),
                settled: args.all,
            };
            let all = list(client, request).await?;
            printer.show(&all, |all| text::list(all, SystemClock.now()))?;
        }
        CandidateCommand::Show(args) => show(args, client, printer).await?,
        CandidateCommand::Veto(args) => {
            let (app, version) = args.artifact;
            let request = unary(v1::VetoCandidateRequest {
                app: app.into(),
                version: version.into(),
                environment: args.environment.into(),
                reason: args.reason,
            });
            let answer =
                client.operators().veto_candidate(request).await.map_err(|status| client.failure(status))?;
            printer.show(&Candidate::from(answer.into_inner()), text::vetoed)?;
        }
        CandidateCommand::Start(args) => return start(args, client, printer).await,
    }
    Ok(Exit::Done)
}

/// Newest publication first.
async fn list(client: &Client, request: v1::ListCandidatesRequest) -> Result<Vec<Candidate>> {
    let answer =
        client.operators().list_candidates(unary(request)).await.map_err(|status| client.failure(status))?;
    Ok(answer.into_inner().candidates.into_iter().map(Into::into).collect())
}

async fn show(args: ShowArgs, client: &Client, printer: &Printer) -> Result<()> {
    let (app, version) = args.artifact;
    let request = v1::ListCandidatesRequest {
        app: app.to_string(),
        environment: args.environment.map(String::from).unwrap_or_default(),
        digest: String::new(),
        settled: true,
    };
    let mut found = list(client, request).await?;
    found.retain(|candidate| candidate.version == version.as_str());
    if found.is_empty() {
        return Err(Failure::new(format!("{app}@{version} is no candidate anywhere, and was none"))
            .next("`consign env show ENV` shows what makes one there: `deploy`"));
    }
    printer.show(&found, |found| text::show(found))
}

async fn start(args: StartArgs, client: &Client, printer: &Printer) -> Result<Exit> {
    let (app, version) = args.artifact;
    let request = v1::StartRolloutRequest {
        app: app.into(),
        version: version.into(),
        environment: args.environment.into(),
        reason: args.reason.unwrap_or_default(),
        ..v1::StartRolloutRequest::default()
    };
    let answer =
        client.operators().start_rollout(unary(request)).await.map_err(|status| client.failure(status))?;
    rollout::started(answer.into_inner().into(), args.follow, client, printer).await
}
