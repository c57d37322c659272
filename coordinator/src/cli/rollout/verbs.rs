//! What operators do to a rollout. Whether it is legal now is the coordinator's to say.

use clap::{Args, ValueEnum};
use consign_common::{
    name::{ServerName, StepName},
    trust::DecisionAction,
};
use consign_proto::v1;
use tonic::{Response, Status};

use super::{
    commands::started,
    decision::{self, Verdict},
    resolve::resolve,
};
use crate::cli::{
    client::{Client, unary},
    failure::{Exit, Result},
    follow::{follow, result_table},
    output::Rollout,
    print::Printer,
    profile::Home,
    signing::KeyArgs,
};

#[derive(Debug, Args)]
pub(crate) struct VerbArgs {
    /// The rollout's id, or its first digits
    rollout: String,
    /// Why, for those who find it so
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    verb: VerbArgs,
    /// Stay and show what happens
    #[arg(long, short)]
    follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AbortArgs {
    #[command(flatten)]
    verb: VerbArgs,
    /// And bring the servers that took it back
    #[arg(long = "return")]
    back: bool,
    /// With --return: stay and show what happens
    #[arg(long, short, requires = "back")]
    follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SkipArgs {
    /// The rollout's id, or its first digits
    rollout: String,
    /// Leave this server out; with --step, only the step there
    #[arg(long, required_unless_present = "step")]
    server: Option<ServerName>,
    /// Leave this step out where it has not begun
    #[arg(long)]
    step: Option<StepName>,
    /// Why, for those who find it so
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DecideArgs {
    /// The rollout's id, or its first digits
    rollout: String,
    /// The server that waits
    #[arg(long)]
    server: ServerName,
    /// The step whose outcome nobody knows
    #[arg(long)]
    step: StepName,
    /// How it is to be taken
    #[arg(value_enum)]
    action: Action,
    /// Why, for those who find it so
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// It did its work: go on
    Done,
    /// It failed: what the plan says of its failure follows
    Failed,
    /// Run it once more
    Again,
    /// Go on without it
    Skip,
}

impl Action {
    fn decision(self) -> DecisionAction {
        match self {
            Self::Done => DecisionAction::Done,
            Self::Failed => DecisionAction::Failed,
            Self::Again => DecisionAction::Again,
            Self::Skip => DecisionAction::Skip,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Again => "again",
            Self::Skip => "skip",
        }
    }
}

pub(super) async fn pause(args: VerbArgs, client: &Client, printer: &Printer) -> Result<Exit> {
    let rollout = resolve(client, &args.rollout).await?;
    let request = unary(v1::PauseRolloutRequest { rollout, reason: args.reason });
    answered(client.operators().pause_rollout(request).await, client, printer)
}

pub(super) async fn resume(args: VerbArgs, client: &Client, printer: &Printer) -> Result<Exit> {
    let rollout = resolve(client, &args.rollout).await?;
    let request = unary(v1::ResumeRolloutRequest { rollout, reason: args.reason });
    answered(client.operators().resume_rollout(request).await, client, printer)
}

pub(super) async fn retry(args: RetryArgs, client: &Client, printer: &Printer) -> Result<Exit> {
    let rollout = resolve(client, &args.verb.rollout).await?;
    let request = unary(v1::RetryRolloutRequest { rollout: rollout.clone(), reason: args.verb.reason });
    let answer = client.operators().retry_rollout(request).await;
    if args.follow {
        answer.map_err(|status| client.failure(status))?;
        return follow(client, &rollout, printer).await;
    }
    answered(answer, client, printer)
}

/// With `--return` it is a rollback of this rollout, which aborts it where it runs.
pub(super) async fn abort(args: AbortArgs, client: &Client, printer: &Printer) -> Result<Exit> {
    let rollout = resolve(client, &args.verb.rollout).await?;
    let reason = args.verb.reason;
    if args.back {
        let request = unary(v1::RollbackRequest { rollout, reason, ..v1::RollbackRequest::default() });
        let answer = client.operators().rollback(request).await.map_err(|status| {
            client
                .failure(status)
                .next("without --return it is only aborted; what servers have stays as it is")
        })?;
        return started(answer.into_inner().into(), args.follow, client, printer).await;
    }
    let request = unary(v1::AbortRolloutRequest { rollout, reason });
    answered(client.operators().abort_rollout(request).await, client, printer)
}

pub(super) async fn skip(args: SkipArgs, home: &Home, client: &Client, printer: &Printer) -> Result<Exit> {
    let rollout = resolve(client, &args.rollout).await?;
    let statements = match &args.step {
        Some(step) => {
            let verdict = Verdict {
                server: args.server.clone(),
                step: step.clone(),
                action: DecisionAction::Skip,
                reason: args.reason.clone(),
            };
            decision::signed(client, home, &args.key, &rollout, verdict).await?
        }
        // That a server gets nothing changes nothing that runs.
        None => Vec::new(),
    };
    let request = unary(v1::SkipInRolloutRequest {
        rollout,
        reason: args.reason,
        server: args.server.map(String::from).unwrap_or_default(),
        step: args.step.map(String::from).unwrap_or_default(),
        statements: statements.into_iter().map(Into::into).collect(),
    });
    answered(client.operators().skip_in_rollout(request).await, client, printer)
}

pub(super) async fn decide(
    args: DecideArgs,
    home: &Home,
    client: &Client,
    printer: &Printer,
) -> Result<Exit> {
    let rollout = resolve(client, &args.rollout).await?;
    let verdict = Verdict {
        server: Some(args.server.clone()),
        step: args.step.clone(),
        action: args.action.decision(),
        reason: args.reason.clone(),
    };
    let statements = decision::signed(client, home, &args.key, &rollout, verdict).await?;
    let request = unary(v1::DecideStepRequest {
        rollout,
        reason: args.reason,
        server: args.server.into(),
        step: args.step.into(),
        action: args.action.as_str().to_owned(),
        statements: statements.into_iter().map(Into::into).collect(),
    });
    answered(client.operators().decide_step(request).await, client, printer)
}

fn answered(
    answer: Result<Response<v1::Rollout>, Status>,
    client: &Client,
    printer: &Printer,
) -> Result<Exit> {
    let rollout = answer.map_err(|status| client.failure(status))?.into_inner();
    printer.show(&Rollout::from(rollout), result_table)?;
    Ok(Exit::Done)
}
