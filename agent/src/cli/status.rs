//! `consign-agent status`: what the running agent says, and what is on disk whether it runs or not.

use std::process::ExitCode;

use consign_common::{
    terminal,
    time::{Clock as _, SystemClock, UnixMs},
    tls::Identity,
};
use serde::Serialize;

use super::{Done, Global, Output, report::say, runtime};
use crate::{
    config::Config,
    identity::TrustRoots,
    journal::Journal,
    ledger::DiskLedger,
    ports::{Ledger as _, NO_COORDINATOR},
    state::{StatePaths, read_version},
    status::{self, AppView, Link, Live},
};

/// The schema of `--output json`.
#[derive(Debug, Serialize)]
struct Status {
    server: String,
    environment: String,
    running: bool,
    /// Absent while no agent runs.
    pid: Option<u32>,
    coordinator: Option<Link>,
    identity: String,
    certificate_expires: UnixMs,
    certificate_expired: bool,
    trust_root_version: u64,
    trust_root_expires: UnixMs,
    apps: Vec<AppView>,
    deployments: Vec<String>,
}

pub(super) fn run(global: &Global) -> Done {
    let config = global.read_config()?;
    let status = runtime()?.block_on(gather(&config))?;
    match global.output {
        Output::Json => say(serde_json::to_string(&status)?),
        Output::Text => print(&status),
    }
    Ok(ExitCode::SUCCESS)
}

async fn gather(config: &Config) -> Result<Status, Box<dyn std::error::Error>> {
    read_version(&config.agent.state)?;
    let paths = StatePaths::new(&config.agent.state);
    let live = status::ask(&paths.status_socket())?;
    let peer = Identity::read(&paths.identity())?.peer()?;
    let root = TrustRoots::open(&paths.trust_roots(), &config.agent.trust_root)?.current();
    let (pid, coordinator, apps, deployments) = match live {
        Some(Live { pid, coordinator, apps, running, .. }) => (Some(pid), Some(coordinator), apps, running),
        None => {
            let (apps, open) = from_disk(config, &paths).await?;
            (None, None, apps, open)
        }
    };
    Ok(Status {
        server: config.word.server.to_string(),
        environment: config.word.environment.to_string(),
        running: pid.is_some(),
        pid,
        coordinator,
        identity: peer.subject.uri(),
        certificate_expires: peer.not_after,
        certificate_expired: peer.is_expired(SystemClock.now()),
        trust_root_version: root.version,
        trust_root_expires: root.expires,
        apps,
        deployments,
    })
}

async fn from_disk(
    config: &Config,
    paths: &StatePaths,
) -> Result<(Vec<AppView>, Vec<String>), Box<dyn std::error::Error>> {
    if !paths.journal().exists() {
        return Ok((Vec::new(), Vec::new()));
    }
    let journal = Journal::open(paths.root()).await?;
    let ledger = DiskLedger::new(journal.clone(), &config.agent.apps);
    let apps = ledger.apps(NO_COORDINATOR).await.into_iter().map(AppView::from).collect();
    let open = ledger.open_deployments().await.into_iter().map(String::from).collect();
    journal.close().await;
    Ok((apps, open))
}

fn print(status: &Status) {
    say(format!("Server        {} in {}", status.server, status.environment));
    match (&status.pid, &status.coordinator) {
        (Some(pid), Some(link)) => {
            say(format!("Agent         running (process {pid})"));
            say(format!("Coordinator   {}", describe(link)));
        }
        (Some(_) | None, _) => {
            say("Agent         not running; start it with `systemctl start consign-agent`")
        }
    }
    let expired =
        if status.certificate_expired { " (expired: it is renewed at the next connection)" } else { "" };
    say(format!("Certificate   {} until {}{expired}", status.identity, status.certificate_expires));
    say(format!("Trust root    version {}, until {}", status.trust_root_version, status.trust_root_expires));
    for app in &status.apps {
        let short = |digest: &Option<consign_common::digest::Sha256>| {
            digest.as_ref().map_or_else(|| "-".to_owned(), consign_common::digest::Sha256::short)
        };
        say(format!(
            "App           {} {}: good {}, before {}, current {}",
            app.app,
            if app.version.is_empty() { "-" } else { &app.version },
            short(&app.good),
            short(&app.before),
            short(&app.current)
        ));
    }
    for deployment in &status.deployments {
        say(format!("Deployment    {deployment} is not finished"));
    }
}

fn describe(link: &Link) -> String {
    match link {
        Link::Connecting {} => "connecting".into(),
        Link::Connected { coordinator, since, clock_offset_ms } => {
            let clock = if clock_offset_ms.abs() >= 1000 {
                format!(", clocks {:.1} s apart", *clock_offset_ms as f64 / 1000.0)
            } else {
                String::new()
            };
            terminal::escape_line(&format!("connected to {coordinator} since {since}{clock}"))
        }
        Link::Disconnected { because, since } => {
            terminal::escape_line(&format!("not connected since {since}: {because}"))
        }
    }
}
