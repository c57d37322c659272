//! The command line. Exit codes: 0 done, 1 error, 2 usage.

mod arguments;
mod enroll;
mod expired;
mod report;
mod status;
mod verify;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, ConfigError, DEFAULT_APPS, DEFAULT_CONFIG, DEFAULT_STATE},
    daemon,
    supervisor::{self, Session},
};

use arguments::{Arguments, Command, Global};
use report::report;

pub use arguments::Output;

/// Reads the arguments and does what they say.
pub fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    let done = match command {
        Command::Enroll(arguments) => enroll::run(&global, arguments),
        Command::Run => run(&global),
        Command::Status => status::run(&global),
        Command::Verify(arguments) => verify::run(&global, &arguments),
        Command::ConfirmExpired => expired::run(&global),
        Command::Completions { shell } => completions(shell),
        Command::Supervise { dir, detach } => supervise(&dir, detach),
        Command::ExecAttempt => return supervisor::exec_attempt(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            report(&*error, global.output);
            ExitCode::FAILURE
        }
    }
}

type Done = Result<ExitCode, Box<dyn std::error::Error>>;

fn run(global: &Global) -> Done {
    start_log();
    let config = global.read_config()?;
    runtime()?.block_on(daemon::run(&global.config_path(), config, daemon::manage))?;
    Ok(ExitCode::SUCCESS)
}

/// A process of its own, without a runtime: it outlives the agent.
fn supervise(directory: &Path, detach: bool) -> Done {
    let session = if detach { Session::Detached } else { Session::Inherited };
    supervisor::supervise(directory, session)?;
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: clap_complete::Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "consign-agent", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// One thread: the agent waits nearly all of its life, and a second one would only cost memory.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()
}

/// To standard error. `CONSIGN_LOG` filters (`info` if unset); under systemd the journal has the time already.
fn start_log() {
    let filter = EnvFilter::try_from_env("CONSIGN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}

impl Global {
    fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into())
    }

    fn read_config(&self) -> Result<Config, ConfigError> {
        let mut config = Config::read(&self.config_path())?;
        if let Some(state) = &self.state {
            config.agent.state.clone_from(state);
        }
        if let Some(apps) = &self.apps {
            config.agent.apps.clone_from(apps);
        }
        Ok(config)
    }

    fn state_path(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| DEFAULT_STATE.into())
    }

    fn apps_path(&self) -> PathBuf {
        self.apps.clone().unwrap_or_else(|| DEFAULT_APPS.into())
    }
}
