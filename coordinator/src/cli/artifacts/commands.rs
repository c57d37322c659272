//! The commands, and what the repository answers.

use clap::{Args, Subcommand};
use consign_common::{
    name::{App, Platform, Version},
    time::{Clock, SystemClock, UnixMs},
};
use consign_proto::v1;

use super::{
    pack::{self, ExportArgs, PackArgs},
    publish::{self, PublishArgs},
    verify::{self, VerifyArgs},
};
use crate::cli::{
    client::{Client, unary},
    failure::{Exit, Result},
    output::Artifact,
    print::Printer,
    profile::Home,
    text::{ago, artifact_name, pairs, short, size, table},
};

#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactCommand {
    /// Make an artifact file from a directory or an archive
    #[command(after_help = "Examples:
  consign artifact pack ./shop --version 1.4.0 -o shop-1.4.0.consign
  consign artifact pack shop-1.4.0.tgz --version 1.4.0 --strip-components 1 --plan deploy/consign.toml")]
    Pack(PackArgs),
    /// Check an artifact file here: every file, and with a trust root whether it may run
    #[command(after_help = "Example:
  consign artifact verify shop-1.4.0.consign --trust-root ~/.config/consign/trust-root.json \\
    --statement published.json --environment production")]
    Verify(VerifyArgs),
    /// Write an artifact file's content as a .tar.gz
    Export(ExportArgs),
    /// Sign an artifact with the publisher's key and hand it to the coordinator
    #[command(after_help = "Examples:
  consign artifact publish ./shop --version 1.4.0
  npm pack && consign artifact publish shop-1.4.0.tgz --version 1.4.0 --strip-components 1
  CONSIGN_PUBLISHER_KEY=\"$KEY\" consign artifact publish shop-1.4.0.consign
  consign artifact publish ./shop --version 1.4.0 --wait-for staging --timeout 20m

With --wait-for the exit code is that of the rollout that follows; 5 superseded by a newer version
before it began, 6 vetoed, on hold or refused, 7 not over in time.")]
    Publish(Box<PublishArgs>),
    /// List artifacts, newest first
    List(ListArgs),
    /// Show one artifact
    Show(ShowArgs),
}

impl ArtifactCommand {
    /// With the coordinator.
    pub(crate) fn talks(&self) -> bool {
        match self {
            Self::Pack(_) | Self::Verify(_) | Self::Export(_) => false,
            Self::Publish(_) | Self::List(_) | Self::Show(_) => true,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this app's
    app: Option<App>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// As shop@1.4.0
    #[arg(value_name = "APP@VERSION", value_parser = artifact_name)]
    artifact: (App, Version),
    /// Where a version has one artifact per platform: linux-x86_64
    #[arg(long)]
    platform: Option<Platform>,
}

pub(crate) async fn run(
    command: ArtifactCommand,
    home: &Home,
    client: impl FnOnce() -> Result<Client>,
    printer: &Printer,
) -> Result<Exit> {
    match command {
        ArtifactCommand::Pack(args) => pack::pack(args, printer)?,
        ArtifactCommand::Verify(args) => verify::run(args, printer)?,
        ArtifactCommand::Export(args) => pack::export(args, printer)?,
        ArtifactCommand::Publish(args) => return publish::run(*args, home, &client()?, printer).await,
        ArtifactCommand::List(args) => list(args, &client()?, printer).await?,
        ArtifactCommand::Show(args) => show(args, &client()?, printer).await?,
    }
    Ok(Exit::Done)
}

async fn list(args: ListArgs, client: &Client, printer: &Printer) -> Result<()> {
    let request = v1::ListArtifactsRequest { app: args.app.map(String::from).unwrap_or_default() };
    let answer =
        client.operators().list_artifacts(unary(request)).await.map_err(|status| client.failure(status))?;
    let artifacts: Vec<Artifact> = answer.into_inner().artifacts.into_iter().map(Into::into).collect();
    printer.show(&artifacts, |artifacts| list_text(artifacts, SystemClock.now()))
}

async fn show(args: ShowArgs, client: &Client, printer: &Printer) -> Result<()> {
    let (app, version) = args.artifact;
    let request = v1::ShowArtifactRequest {
        app: app.into(),
        version: version.into(),
        digest: String::new(),
        platform: args.platform.map(String::from).unwrap_or_default(),
    };
    let answer =
        client.operators().show_artifact(unary(request)).await.map_err(|status| client.failure(status))?;
    printer.show(&Artifact::from(answer.into_inner()), show_text)
}

fn list_text(artifacts: &[Artifact], now: UnixMs) -> String {
    if artifacts.is_empty() {
        return "no artifacts; publish one with `consign artifact publish DIR`\n".into();
    }
    let rows: Vec<Vec<String>> = artifacts
        .iter()
        .map(|artifact| {
            vec![
                format!("{}@{}", artifact.app, artifact.version),
                if artifact.platform.is_empty() { "any".into() } else { artifact.platform.clone() },
                short(&artifact.digest, 12),
                size(artifact.bytes),
                ago(artifact.published_ms, now),
                artifact.running_on.len().to_string(),
            ]
        })
        .collect();
    table(&["ARTIFACT", "PLATFORM", "DIGEST", "SIZE", "PUBLISHED", "SERVERS"], &rows)
}

pub(super) fn show_text(artifact: &Artifact) -> String {
    let mut rows = vec![
        vec!["artifact".into(), format!("{}@{}", artifact.app, artifact.version)],
        vec!["digest".into(), artifact.digest.clone()],
    ];
    if !artifact.platform.is_empty() {
        rows.push(vec!["platform".into(), artifact.platform.clone()]);
    }
    let content = format!(
        "{} entries, {}, packed {}",
        artifact.entries,
        size(artifact.bytes),
        size(artifact.pack_bytes)
    );
    rows.push(vec!["content".into(), content]);
    rows.push(vec!["published".into(), UnixMs(artifact.published_ms).to_string()]);
    if !artifact.running_on.is_empty() {
        rows.push(vec!["runs on".into(), artifact.running_on.join(", ")]);
    }
    pairs(&rows)
}
