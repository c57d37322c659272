//! From arguments to exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::{
    approve,
    args::{Cli, Command},
    artifacts, candidates,
    client::Client,
    config, environments,
    failure::{Doing, Exit, Result},
    init, key, operator,
    print::Printer,
    profile::Home,
    rollout, server, status, trust,
};
use crate::serve;

/// The whole of `consign`.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // To stdout with 0 where help was asked for. Nobody can be told that it cannot be printed.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let printer = Printer::new(cli.format);
    let exit = run(cli, &printer).unwrap_or_else(|failure| {
        printer.failure(&failure);
        failure.exit
    });
    ExitCode::from(exit.code())
}

fn run(cli: Cli, printer: &Printer) -> Result<Exit> {
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "consign", &mut script);
        printer.raw(&String::from_utf8_lossy(&script))?;
        return Ok(Exit::Done);
    }
    if let Command::Serve(options) = &cli.command {
        serve::run(options).doing(|| "cannot serve".into())?;
        return Ok(Exit::Done);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .doing(|| "failed to start the runtime".into())?;
    let exit = runtime.block_on(dispatch(cli, printer));
    // What still runs (a name being resolved) must not hold up the end.
    runtime.shutdown_background();
    exit
}

async fn dispatch(cli: Cli, printer: &Printer) -> Result<Exit> {
    let home = Home::locate(cli.home.as_deref())?;
    let target = cli.target();
    let client = || Client::new(&home, &target);
    if talks(&cli.command)
        && let Ok(client) = client()
    {
        trust::warn(&home, &client, printer).await;
    }
    match cli.command {
        Command::Rollout(command) => return rollout::run(command, &home, &client()?, printer).await,
        Command::Init(args) => init::run(&args, &home, printer)?,
        Command::Status => status::run(&client()?, printer).await?,
        Command::Artifact(command) => return artifacts::run(command, &home, client, printer).await,
        Command::Candidate(command) => return candidates::run(command, &client()?, printer).await,
        Command::Approve(args) => approve::run(*args, &home, &client()?, printer).await?,
        Command::Attest(args) => approve::attest(args, &home, &client()?, printer).await?,
        Command::Env(command) => environments::run(command, &client()?, printer).await?,
        Command::Config(command) => config::run(command, &home, &client()?, printer).await?,
        Command::Server(command) => server::run(command, &home, &client()?, printer).await?,
        Command::Operator(command) => operator::run(command, &home, client, printer).await?,
        Command::Trust(command) => trust::run(command, &home, client, printer).await?,
        Command::Key(command) => key::run(command, printer)?,
        Command::Serve(_) | Command::Completions { .. } => {}
    }
    Ok(Exit::Done)
}

/// Whether it is about what the coordinator has, and does not itself begin with the trust root's validity.
fn talks(command: &Command) -> bool {
    match command {
        Command::Rollout(_)
        | Command::Candidate(_)
        | Command::Approve(_)
        | Command::Attest(_)
        | Command::Env(_)
        | Command::Config(_)
        | Command::Server(_) => true,
        Command::Artifact(command) => command.talks(),
        Command::Operator(command) => command.talks(),
        Command::Trust(command) => command.talks(),
        // It says it itself.
        Command::Status => false,
        Command::Init(_) | Command::Key(_) | Command::Serve(_) | Command::Completions { .. } => false,
    }
}
