//! `consign-agent verify`: are the releases still what was signed?

use std::{path::Path, process::ExitCode};

use consign_common::{
    artifact::Manifest,
    digest::Sha256,
    limits::ArtifactLimits,
    name::{App, InvalidName},
    plan::Plan,
    terminal,
};
use serde::Serialize;

use super::{Done, Global, Output, arguments::VerifyArguments, report::say, runtime};
use crate::{
    journal::Journal,
    ledger::DiskLedger,
    ports::{AppReport, Ledger as _, NO_COORDINATOR},
    stage::{self, AppDirectory, release_name},
    state::read_version,
};

/// One release, as `--output json` tells it.
#[derive(Debug, Serialize)]
struct Checked {
    app: String,
    release: String,
    digest: Sha256,
    /// One sentence each; empty if the release is as it was signed.
    drift: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error("{app} was never deployed here")]
    NotHere { app: App },
    #[error("the manifest of {digest} on this server is not the one that was signed")]
    Manifest { digest: Sha256 },
    #[error(transparent)]
    Name(#[from] InvalidName),
}

pub(super) fn run(global: &Global, arguments: &VerifyArguments) -> Done {
    let config = global.read_config()?;
    read_version(&config.agent.state)?;
    let reports = runtime()?.block_on(async {
        let journal = Journal::open(&config.agent.state).await?;
        let reports = DiskLedger::new(journal.clone(), &config.agent.apps).apps(NO_COORDINATOR).await;
        journal.close().await;
        Ok::<_, crate::journal::JournalError>(reports)
    })?;
    let mut checked = Vec::new();
    for report in reports {
        let Some(app) = &report.app else { continue };
        if arguments.app.as_ref().is_none_or(|wanted| wanted == app) {
            checked.extend(check(&config.agent.state, &config.agent.apps, app, &report)?);
        }
    }
    if let (true, Some(app)) = (checked.is_empty(), arguments.app.clone()) {
        return Err(VerifyError::NotHere { app }.into());
    }
    match global.output {
        Output::Json => say(serde_json::to_string(&checked)?),
        Output::Text => checked.iter().for_each(print),
    }
    let clean = checked.iter().all(|release| release.drift.is_empty());
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The good release and the one before: what runs, and what a return would run.
fn check(
    state: &Path,
    apps: &Path,
    app: &App,
    report: &AppReport,
) -> Result<Vec<Checked>, Box<dyn std::error::Error>> {
    let directory = AppDirectory::open(apps, app)?;
    let mut checked = Vec::new();
    for digest in report.good.iter().chain(&report.before) {
        let path = state.join("artifacts").join(digest.to_string()).join("manifest.json");
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if Sha256::of(&bytes) != *digest {
            return Err(VerifyError::Manifest { digest: *digest }.into());
        }
        let manifest = Manifest::parse(&bytes, &ArtifactLimits::default())?;
        let plan = Plan::parse(&manifest.plan, "consign.toml")?;
        let release = release_name(&manifest.version, *digest);
        let opened =
            directory.open_release(&release).map_err(|error| format!("release {release}: {error}"))?;
        let drift = stage::verify(&opened, &manifest, &plan)?;
        checked.push(Checked {
            app: app.to_string(),
            release,
            digest: *digest,
            drift: drift.iter().map(ToString::to_string).collect(),
        });
    }
    Ok(checked)
}

fn print(checked: &Checked) {
    match checked.drift.len() {
        0 => say(format!("{} {}: as it was signed", checked.app, checked.release)),
        count => say(format!("{} {}: {count} differences", checked.app, checked.release)),
    }
    for line in &checked.drift {
        say(format!("  {}", terminal::escape_line(line)));
    }
}
