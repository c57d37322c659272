//! What can be said on the command line, with its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use consign_common::name::App;

/// The agent of consign: deploys to this server what its coordinator orders and its trust root allows.
#[derive(Debug, Parser)]
#[command(name = "consign-agent", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 error (verify: also drift), 2 usage.
Without root, give --config, --state and --apps; every step then runs as you.";

#[derive(Debug, Args)]
pub(super) struct Global {
    /// The agent's configuration and the server's own word [default: /etc/consign/agent.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Identity, journal and logs [default: /var/lib/consign-agent]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// Where apps live, one directory each [default: /srv]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) apps: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Enrol this server with the token that an operator made for it
    Enroll(EnrollArguments),
    /// Run the agent in the foreground, as its systemd unit does
    Run,
    /// Show the connection, the certificate, the trust root and every app
    Status,
    /// Compare releases with the manifests that they were made from
    Verify(VerifyArguments),
    /// Return what was deployed and not confirmed in time; does nothing while an agent runs
    ConfirmExpired,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  consign-agent completions bash > /etc/bash_completion.d/consign-agent"
    )]
    Completions { shell: clap_complete::Shell },
    /// Execute the steps of one deployment, as its agent says
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        dir: PathBuf,
        /// In a session of its own, without waiting for it
        #[arg(long)]
        detach: bool,
    },
    /// Become an attempt; only a supervisor calls this
    #[command(hide = true)]
    ExecAttempt,
}

const ENROLL_HELP: &str = "\
Nothing that is not allowed here can be deployed to this server, whoever signed it. What is allowed
stands in the configuration file from then on, where each app can have users and units of its own.

Example, with the token that `consign server token --name web-1 --env staging` printed:
  consign-agent enroll consign1.eyJ... \\
    --allow-app shop --allow-user shop --allow-unit shop.service";

#[derive(Debug, Args)]
#[command(after_help = ENROLL_HELP)]
pub(super) struct EnrollArguments {
    /// The string that `consign server token` printed
    pub(super) token: String,
    /// An app that may be deployed here; may be given several times
    #[arg(long, value_name = "APP")]
    pub(super) allow_app: Vec<App>,
    /// A user that steps of these apps may run as; a step that names none runs as the agent's: root
    #[arg(long, value_name = "USER", requires = "allow_app")]
    pub(super) allow_user: Vec<String>,
    /// A systemd unit that steps of these apps may act on
    #[arg(long, value_name = "UNIT", requires = "allow_app")]
    pub(super) allow_unit: Vec<String>,
    /// A label that conditions and selectors see
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    pub(super) label: Vec<(String, String)>,
    /// Do not ask before the token is used
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Give up the identity that this server has
    #[arg(long)]
    pub(super) replace: bool,
    /// Where to enrol, instead of the token's addresses
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) address: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Only this app
    pub(super) app: Option<App>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a label is NAME=VALUE")?;
    consign_common::wire::check_label(name, value)?;
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn users_without_an_app_and_broken_labels_are_usage_errors() {
        for bad in [
            &["enroll", "t", "--allow-user", "shop"][..],
            &["enroll", "t", "--label", "role"],
            &["enroll", "t", "--allow-app", "../x"],
            &["enroll"],
        ] {
            let error = Arguments::try_parse_from(["consign-agent"].iter().chain(bad)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
    }
}
