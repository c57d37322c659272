//! The commands and what they ask of the coordinator.

use clap::{Args, Subcommand};
use consign_common::{
    name::{App, Environment, ServerName, StepName},
    time::{Clock, SystemClock, UnixMs},
};
use consign_proto::v1;

use super::{
    check::{self, CheckArgs},
    history, logs,
    plan::{self, PlanArgs},
    resolve::resolve,
    show::{self, show_text},
    start::{self, StartArgs},
    timeline,
    verbs::{self, AbortArgs, DecideArgs, RetryArgs, SkipArgs, VerbArgs},
};
use crate::cli::{
    client::{Client, unary},
    failure::{Exit, Result},
    follow::{follow, result_table},
    output::{Rollout, ShownRollout},
    print::{Format, Printer},
    profile::Home,
    text::{ago, short, span, table},
};

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Bring an artifact to an environment's servers
    #[command(after_help = "Examples:
  consign rollout start shop@1.4.0 --env staging --follow
  consign rollout start shop@1.4.0 --env production --wave 1 --wave 25% --wave 100% --bake 5m
  consign rollout start shop@1.4.0 --env production --canary role=canary --at 04:00
  consign rollout start shop@1.4.0 --env production --plan 9f2c...

How it goes about it is what `consign env show ENV` says, but for what is given here.
With --follow the exit code is the rollout's: 0 done, 3 stopped over its budget, 4 every changed
server is back on its previous good artifact, 5 aborted, 6 refused, 7 unknown or partial.
Ctrl-C leaves the rollout running (130).")]
    Start(Box<StartArgs>),
    /// Ask every server what it would do, before anything is touched
    #[command(after_help = "Example:
  consign rollout plan shop@1.4.0 --env production

Servers that would do the same are shown once. `rollout start --plan DIGEST` holds them to it: a
server on which a condition comes out otherwise refuses (plan-drift). A plan is kept for a day.")]
    Plan(PlanArgs),
    /// Show beforehand whether every server would take it, and what is missing if not
    #[command(after_help = "Example:
  consign rollout check shop@1.4.0 --env production

The gate is checked here, with your own trust root; every server that is connected is asked, for
the others the coordinator answers. Exit code 0: it would be taken, 6: not.")]
    Check(CheckArgs),
    /// List rollouts, newest first
    List(ListArgs),
    /// Show a rollout: why it is where it is, every server, every skipped step
    Show(IdArgs),
    /// Follow a rollout live until it has ended; exits with its code
    Follow(IdArgs),
    /// Print what steps wrote
    #[command(after_help = "Examples:
  consign rollout logs 0a1b2c3d
  consign rollout logs 0a1b2c3d --server web-1 --step migrate --since 4096 --follow")]
    Logs(LogsArgs),
    /// Who did what to a rollout, and what it did by itself
    History(IdArgs),
    /// Draw servers and time: fetching, steps, waits, attempts
    Timeline(IdArgs),
    /// No new servers; what runs goes on
    Pause(VerbArgs),
    /// Go on after a pause
    Resume(VerbArgs),
    /// Stop a rollout: what runs is cancelled, what has not begun does not begin
    #[command(after_help = "Examples:
  consign rollout abort 0a1b2c3d --reason 'wrong version'
  consign rollout abort 0a1b2c3d --return --follow --reason 'checkout is slow'")]
    Abort(AbortArgs),
    /// Servers that did not take it, and those that were not reached, once more
    Retry(RetryArgs),
    /// Leave a server out that has not begun, or a step where it has not
    #[command(after_help = "Examples:
  consign rollout skip 0a1b2c3d --server web-7 --reason 'its disk is being replaced'
  consign rollout skip 0a1b2c3d --step warm --reason 'the cache is down'
  consign rollout skip 0a1b2c3d --step warm --server web-7 --reason 'no cache there'

Where approvals are asked for, so is the signature of who leaves a step out: --key.")]
    Skip(SkipArgs),
    /// Say how a step ended when nobody knows
    #[command(after_help = "Example:
  consign rollout decide 0a1b2c3d --server web-1 --step migrate done --reason 'the table is there'

Where approvals are asked for, so is the signature of who decides: --key.")]
    Decide(DecideArgs),
    /// Bring servers back to the artifact before
    #[command(after_help = "Examples:
  consign rollout rollback shop --env production --reason 'checkout is slow'
  consign rollout rollback --rollout 0a1b2c3d --reason 'checkout is slow'")]
    Rollback(RollbackArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this app's
    #[arg(long)]
    app: Option<App>,
    /// Only this environment's
    #[arg(long = "env", value_name = "ENV")]
    environment: Option<Environment>,
    /// How many at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// The rollout's id, or its first digits
    rollout: String,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The rollout's id, or its first digits
    pub(super) rollout: String,
    /// Only this server
    #[arg(long)]
    pub(super) server: Option<ServerName>,
    /// Only this step
    #[arg(long)]
    pub(super) step: Option<StepName>,
    /// From this offset of the step's log on; needs --server and --step
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub(super) since: u64,
    /// And what comes, until the rollout has ended
    #[arg(long, short)]
    pub(super) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The app, with --env; with @VERSION, that version is left, not what came last
    #[arg(value_name = "APP[@VERSION]", required_unless_present = "rollout", requires = "environment")]
    app: Option<String>,
    /// The environment, with APP
    #[arg(long = "env", value_name = "ENV", requires = "app")]
    environment: Option<Environment>,
    /// The servers that this rollout changed, instead of APP and --env
    #[arg(long, value_name = "ID", conflicts_with_all = ["app", "environment"])]
    rollout: Option<String>,
    /// Why, for those who find it rolled back
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    /// Only these servers
    #[arg(long, value_name = "SELECTOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    only: Option<String>,
    /// Servers reached when a wave is done, as 1 or 25%; may be repeated. Without it, as many at once as the rollout's
    /// min_healthy leaves
    #[arg(long = "wave", value_name = "N|P%")]
    waves: Vec<String>,
    /// Stay and show what happens
    #[arg(long, short)]
    follow: bool,
}

pub(crate) async fn run(
    command: RolloutCommand,
    home: &Home,
    client: &Client,
    printer: &Printer,
) -> Result<Exit> {
    match command {
        RolloutCommand::Start(args) => start::start(*args, home, client, printer).await,
        RolloutCommand::Plan(args) => plan::run(args, client, printer).await,
        RolloutCommand::Check(args) => check::run(args, home, client, printer).await,
        RolloutCommand::List(args) => list(args, client, printer).await,
        RolloutCommand::Show(args) => {
            let request = v1::ShowRolloutRequest { rollout: resolve(client, &args.rollout).await? };
            let answer = client
                .operators()
                .show_rollout(unary(request))
                .await
                .map_err(|status| client.failure(status))?;
            let rollout = Rollout::from(answer.into_inner());
            let receipts = show::receipts(&rollout, home, client).await?;
            let shown = ShownRollout { rollout, receipts };
            printer.show(&shown, |shown| {
                show_text(&shown.rollout, SystemClock.now()) + &show::receipts_text(&shown.receipts)
            })?;
            Ok(Exit::Done)
        }
        RolloutCommand::Follow(args) => {
            let rollout = resolve(client, &args.rollout).await?;
            follow(client, &rollout, printer).await
        }
        RolloutCommand::Logs(args) => logs::run(args, client, printer).await,
        RolloutCommand::History(args) => history::run(&args.rollout, client, printer).await,
        RolloutCommand::Timeline(args) => timeline::run(&args.rollout, client, printer).await,
        RolloutCommand::Pause(args) => verbs::pause(args, client, printer).await,
        RolloutCommand::Resume(args) => verbs::resume(args, client, printer).await,
        RolloutCommand::Abort(args) => verbs::abort(args, client, printer).await,
        RolloutCommand::Retry(args) => verbs::retry(args, client, printer).await,
        RolloutCommand::Skip(args) => verbs::skip(args, home, client, printer).await,
        RolloutCommand::Decide(args) => verbs::decide(args, home, client, printer).await,
        RolloutCommand::Rollback(args) => rollback(args, client, printer).await,
    }
}

async fn rollback(args: RollbackArgs, client: &Client, printer: &Printer) -> Result<Exit> {
    let rollout = match &args.rollout {
        Some(given) => resolve(client, given).await?,
        None => String::new(),
    };
    let named = args.app.unwrap_or_default();
    let (app, version) = named.split_once('@').unwrap_or((&named, ""));
    let request = v1::RollbackRequest {
        app: app.to_owned(),
        version: version.to_owned(),
        waves: args.waves,
        environment: args.environment.map(String::from).unwrap_or_default(),
        rollout,
        reason: args.reason,
        selector: args.only.unwrap_or_default(),
    };
    let answer =
        client.operators().rollback(unary(request)).await.map_err(|status| client.failure(status))?;
    started(answer.into_inner().into(), args.follow, client, printer).await
}

/// What was begun, or followed to its end.
pub(crate) async fn started(
    rollout: Rollout,
    stay: bool,
    client: &Client,
    printer: &Printer,
) -> Result<Exit> {
    if stay {
        return follow(client, &rollout.id, printer).await;
    }
    printer.show(&rollout, result_table)?;
    // One that ended at once (nothing to do, refused) says so by its code.
    let Some(code) = rollout.exit_code else {
        if printer.format() == Format::Text {
            printer.note(&format!("follow it: consign rollout follow {}", short(&rollout.id, 8)))?;
        }
        return Ok(Exit::Done);
    };
    Ok(Exit::of_rollout(Some(code)))
}

async fn list(args: ListArgs, client: &Client, printer: &Printer) -> Result<Exit> {
    let request = v1::ListRolloutsRequest {
        app: args.app.map(String::from).unwrap_or_default(),
        environment: args.environment.map(String::from).unwrap_or_default(),
        limit: args.limit,
    };
    let answer =
        client.operators().list_rollouts(unary(request)).await.map_err(|status| client.failure(status))?;
    let rollouts: Vec<Rollout> = answer.into_inner().rollouts.into_iter().map(Into::into).collect();
    printer.show(&rollouts, |rollouts| list_text(rollouts, SystemClock.now()))?;
    Ok(Exit::Done)
}

fn list_text(rollouts: &[Rollout], now: UnixMs) -> String {
    if rollouts.is_empty() {
        return "no rollouts; begin with `consign rollout start APP@VERSION --env ENV`\n".into();
    }
    let rows: Vec<Vec<String>> = rollouts
        .iter()
        .map(|rollout| {
            let took = UnixMs(rollout.ended_ms.unwrap_or(now.0)).since(UnixMs(rollout.started_ms));
            vec![
                short(&rollout.id, 8),
                rollout.kind.clone(),
                of_artifact(rollout),
                rollout.environment.clone(),
                rollout.state.clone(),
                ago(rollout.started_ms, now),
                span(took),
                rollout.started_by.clone(),
            ]
        })
        .collect();
    table(&["ROLLOUT", "KIND", "ARTIFACT", "ENVIRONMENT", "STATE", "STARTED", "TOOK", "BY"], &rows)
}

/// What a rollout brings, or takes away.
fn of_artifact(rollout: &Rollout) -> String {
    let from = if rollout.kind == "return" { "from " } else { "" };
    format!("{from}{}@{}", rollout.app, rollout.version)
}
