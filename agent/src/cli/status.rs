//! `consign-agent status`: what the running agent says, and what is on disk whether it runs or not.

use std::{process::ExitCode, time::Duration};

use consign_common::{
    sealing::Fingerprint,
    terminal,
    time::{Clock as _, SystemClock, UnixMs},
    tls::Identity,
};
use serde::Serialize;

use super::{Done, Global, Output, report::say, runtime};
use crate::{
    config::Config,
    executor::boot_ms,
    identity::{TrustRoots, sealing},
    journal::{Journal, Waits},
    ledger::DiskLedger,
    ports::{Ledger as _, NO_COORDINATOR},
    state::{StatePaths, read_version},
    status::{self, AppView, DeploymentView, Link, Live},
    supervisor,
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
    /// Of its public key and its sealing key: what `consign server accept` shows, too. Absent until the agent has run.
    fingerprint: Option<String>,
    trust_root_version: u64,
    trust_root_expires: UnixMs,
    /// New deployments are refused; what runs, and returns, go on.
    trust_root_expired: bool,
    apps: Vec<AppView>,
    deployments: Vec<DeploymentView>,
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
    let sealing = sealing::read(&paths.sealing_key())?;
    let fingerprint = sealing.map(|key| Fingerprint::of(peer.spki_sha256, &key.recipient()).to_string());
    let root = TrustRoots::open(&paths.trust_roots(), &config.agent.trust_root)?.current();
    let (pid, coordinator, apps, deployments) = match live {
        Some(Live { pid, coordinator, apps, deployments, .. }) => {
            (Some(pid), Some(coordinator), apps, deployments)
        }
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
        fingerprint,
        trust_root_version: root.version,
        trust_root_expires: root.expires,
        trust_root_expired: SystemClock.now() >= root.expires,
        apps,
        deployments,
    })
}

async fn from_disk(
    config: &Config,
    paths: &StatePaths,
) -> Result<(Vec<AppView>, Vec<DeploymentView>), Box<dyn std::error::Error>> {
    if !paths.journal().exists() {
        return Ok((Vec::new(), Vec::new()));
    }
    let journal = Journal::open(paths.root()).await?;
    let ledger = DiskLedger::new(journal.clone(), &config.agent.apps);
    let apps = ledger.apps(NO_COORDINATOR).await.into_iter().map(AppView::from).collect();
    let open = ledger.deployments().await;
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
    if let Some(fingerprint) = &status.fingerprint {
        say(format!("Fingerprint   {fingerprint}"));
    }
    let expired = if status.trust_root_expired { " (EXPIRED: new deployments are refused)" } else { "" };
    say(format!(
        "Trust root    version {}, until {}{expired}",
        status.trust_root_version, status.trust_root_expires
    ));
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
    for DeploymentView { id, app, waits } in &status.deployments {
        let state = match waits {
            None => "runs, or goes on when the agent does".to_owned(),
            Some(waits) => describe_wait(waits),
        };
        say(terminal::escape_line(&format!("Deployment    {id} of {app} {state}")));
    }
}

fn describe_wait(waits: &Waits) -> String {
    match waits {
        Waits::Once { step } => {
            format!("waits before the once step {step}, to be told whether it runs here")
        }
        Waits::Decision { step, because } => {
            format!("waits for a decision: nobody knows how step {step} ended ({because})")
        }
        Waits::Confirmation { boot_id, deadline_boot_ms, deadline } => {
            let left = Duration::from_millis(deadline_boot_ms.saturating_sub(boot_ms()));
            if boot_id_is(boot_id) && !left.is_zero() {
                format!("waits to be confirmed until {deadline} ({} s left), else it returns", left.as_secs())
            } else {
                format!("was to be confirmed until {deadline}, and returns")
            }
        }
    }
}

fn boot_id_is(boot_id: &str) -> bool {
    supervisor::boot_id().is_ok_and(|own| own == boot_id)
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
