use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use consign_agent::supervisor::{self, Session};

#[derive(Parser)]
#[command(name = "consign-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Execute the steps of one deployment, as its agent says.
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        dir: PathBuf,
        /// In a session of its own, without waiting for it.
        #[arg(long)]
        detach: bool,
    },
    /// Become an attempt; only a supervisor calls this.
    #[command(hide = true)]
    ExecAttempt,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Supervise { dir, detach } => {
            let session = if detach { Session::Detached } else { Session::Inherited };
            match supervisor::supervise(&dir, session) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("consign-agent supervise: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Command::ExecAttempt => supervisor::exec_attempt(),
    }
}
