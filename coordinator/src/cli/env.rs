//! `consign env`: what holds for an app in an environment, whichever rollout is under way.

use clap::{Args, Subcommand};
use consign_common::{
    name::{App, Environment},
    terminal::escape_line,
};
use consign_proto::v1;

use super::{
    client::{Client, unary},
    failure::Result,
    output::{Behind, TakenOver},
    print::Printer,
};

#[derive(Debug, Subcommand)]
pub(crate) enum EnvCommand {
    /// Go on with a coordinator that was restored from a backup and is behind its agents
    #[command(after_help = "Example:
  consign env take-over shop --env production --reason 'restored after the disk failed; 1.4.0 runs'")]
    TakeOver(TakeOverArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TakeOverArgs {
    /// The app
    app: App,
    /// The environment
    #[arg(long = "env", value_name = "ENV")]
    environment: Environment,
    /// Why it is right to go on, for those who look later
    #[arg(long)]
    reason: String,
}

pub(super) async fn run(command: EnvCommand, client: &Client, printer: &Printer) -> Result<()> {
    match command {
        EnvCommand::TakeOver(args) => {
            let request = unary(v1::TakeOverRequest {
                app: args.app.into(),
                environment: args.environment.into(),
                reason: args.reason,
            });
            let answer =
                client.operators().take_over(request).await.map_err(|status| client.failure(status))?;
            printer.show(&TakenOver::from(answer.into_inner()), taken_over_text)
        }
    }
}

fn taken_over_text(taken: &TakenOver) -> String {
    let Behind { app, environment, server, term, .. } = &taken.behind;
    let text = format!(
        "{app} in {environment} goes on with term {}, above the {term} that {server} has seen",
        taken.new_term
    );
    escape_line(&text) + "\n"
}
