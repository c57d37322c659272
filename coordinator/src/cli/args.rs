//! The command line: noun, then verb.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::{
    approve::{ApproveArgs, AttestArgs},
    artifacts::ArtifactCommand,
    candidates::CandidateCommand,
    client::Target,
    config::ConfigCommand,
    environments::EnvCommand,
    init::InitArgs,
    key::KeyCommand,
    operator::OperatorCommand,
    print::Format,
    rollout::RolloutCommand,
    server::ServerCommand,
    trust::TrustCommand,
};
use crate::serve;

#[derive(Debug, Parser)]
#[command(
    name = "consign",
    version,
    about = "Deploys signed artifacts to servers that check for themselves what they may run",
    after_help = "Exit codes: 0 done, 1 error, 2 usage, 3 stopped over its budget, 4 every changed server is
back on its previous good artifact, 5 aborted, 6 refused, 7 unknown or partial, 130 interrupted.

Begin with:
  consign init --app shop --env staging --advertise deploy.example.com
  consign serve --bundle ~/.config/consign/coordinator.bundle
  consign server token --name web-1 --env staging
  consign artifact publish ./shop
  consign rollout start shop@1.0.0 --env staging --follow",
    max_term_width = 110
)]
pub(super) struct Cli {
    /// Who you are and whom you trust: a directory made by init or join [default: ~/.config/consign]
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        env = "CONSIGN_HOME",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub(super) home: Option<PathBuf>,
    /// Reach the coordinator here instead of at the profile's address
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        env = "CONSIGN_ADDRESS",
        hide_env_values = true,
        value_name = "HOST:PORT"
    )]
    address: Option<String>,
    /// On the coordinator's own machine: its unix socket, instead of a profile's certificate
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How results are printed
    #[arg(
        long = "output",
        global = true,
        help_heading = "Everywhere",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(super) format: Format,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the keys, the trust root, the coordinator's identity and your own
    Init(InitArgs),
    /// Be the coordinator, until SIGTERM
    Serve(serve::Options),
    /// The coordinator in one look, and who you are to it
    Status,
    /// Artifacts: an app at a version, immutable and signed
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// Rollouts: one artifact to one environment
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Say that an artifact may go to an environment: see what is known of it, then sign
    #[command(after_help = "Examples:
  consign approve shop@1.4.0 --env production
  consign approve shop@1.4.0 --env production --with-plan --start-by 4h --reason 'release 12'
  consign approve shop@1.4.0 --env production --key pat.key --yes --output json

Every line says whose word it is: proven (signed by the people named, checked here with your own
trust root) or told (by the coordinator). What does not verify is not signed (6).")]
    Approve(Box<ApproveArgs>),
    /// Sign a statement about an artifact, as that its tests passed
    #[command(after_help = "Examples:
  consign attest shop@1.4.0 --result PASSED --key qa.key
  consign attest shop@1.4.0 --result FAILED --url https://ci.example.com/runs/812 --key qa.key
  consign attest shop@1.4.0 --type https://example.com/scan/v1 --predicate scan.json --key qa.key

Of what one key says of one type the newest counts: FAILED takes the place of PASSED.")]
    Attest(AttestArgs),
    /// Candidates: what begins by itself next, and what it waits for
    #[command(subcommand)]
    Candidate(CandidateCommand),
    /// Environments: how rollouts go about it there, and what keeps them from beginning
    #[command(subcommand)]
    Env(EnvCommand),
    /// Config: what differs between environments, signed and sealed
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Servers: enrolment, state, removal
    #[command(subcommand)]
    Server(ServerCommand),
    /// Operators: people and CI with identities of their own
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// The trust root: whose key may do what
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Keys that sign
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print the completion script of a shell
    #[command(after_help = "Example:
  consign completions bash > /etc/bash_completion.d/consign")]
    Completions { shell: Shell },
}

impl Cli {
    pub(super) fn target(&self) -> Target {
        Target { address: self.address.clone(), socket: self.socket.clone() }
    }
}
