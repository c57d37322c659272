//! `consign env take-over`: going on with a coordinator that was restored from a backup.

use clap::Args;
use consign_common::{
    name::{App, Environment},
    terminal::escape_line,
};
use consign_proto::v1;

use crate::cli::{
    client::{Client, unary},
    failure::Result,
    output::{Behind, TakenOver},
    print::Printer,
};

#[derive(Debug, Args)]
pub(crate) struct TakeOverArgs {
    /// The app
    app: App,
    /// The environment
    #[arg(long = "env", value_name = "ENV")]
    environment: Environment,
    /// Why it is right to go on, for those who look later
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

pub(super) async fn take_over(args: TakeOverArgs, client: &Client, printer: &Printer) -> Result<()> {
    let request = unary(v1::TakeOverRequest {
        app: args.app.into(),
        environment: args.environment.into(),
        reason: args.reason,
    });
    let answer = client.operators().take_over(request).await.map_err(|status| client.failure(status))?;
    printer.show(&TakenOver::from(answer.into_inner()), taken_over_text)
}

fn taken_over_text(taken: &TakenOver) -> String {
    let Behind { app, environment, server, term, .. } = &taken.behind;
    let text = format!(
        "{app} in {environment} goes on with term {}, above the {term} that {server} has seen",
        taken.new_term
    );
    escape_line(&text) + "\n"
}
