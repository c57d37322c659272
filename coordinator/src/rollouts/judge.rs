//! How a wave is: asked over HTTP, or of a program that root installed on this machine. Nothing here decides; the answer
//! goes to the engine.

use std::{io::ErrorKind, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use consign_common::name::Id;
use tokio::{
    process::Command,
    time::{self, Instant, timeout},
};

use super::{
    controller::{Controller, ControllerError, cut},
    rows::RolloutRow,
    store,
};
use crate::rollout::{Event, Health, Probe};

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(1);
/// For one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Characters of what a check said.
const SAID: usize = 500;

impl Controller {
    /// Asks, beside everything else. Whoever asks twice gets two answers, and the second finds nobody who waits for it.
    pub(super) fn judge(self: &Arc<Self>, rollout: Id, wave: u32) {
        let controller = Arc::downgrade(self);
        tokio::spawn(async move {
            let Some(controller) = controller.upgrade() else { return };
            if let Err(error) = controller.ask(&rollout, wave).await {
                tracing::error!(%rollout, wave, %error, "a wave's health cannot be recorded");
            }
        });
    }

    async fn ask(self: &Arc<Self>, rollout: &Id, wave: u32) -> Result<(), ControllerError> {
        let Some(row) = store::rollout(self.store.read(), rollout).await? else { return Ok(()) };
        let Some(check) = row.state.strategy.health.clone() else { return Ok(()) };
        let within = Duration::from_millis(check.within_ms);
        let (health, because) = match &check.probe {
            Probe::Http { url, status } => http(url, *status, within).await,
            Probe::Command { name } => self.program(name, &row, wave, within).await,
        };
        tracing::info!(%rollout, wave, ?health, because, "health");
        let event = Event::Health { wave, health, because };
        let after = self.happened(vec![(rollout.clone(), event)]).await?;
        Box::pin(self.perform(after)).await
    }

    /// The program has the rollout in its environment, and nothing of ours.
    async fn program(&self, name: &str, row: &RolloutRow, wave: u32, within: Duration) -> (Health, String) {
        let path: PathBuf = self.health_programs.join(name);
        let servers: Vec<&str> = row
            .state
            .members
            .iter()
            .filter(|member| member.wave == wave)
            .map(|member| member.server.as_str())
            .collect();
        let child = Command::new(&path)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CONSIGN_ROLLOUT", row.id.as_str())
            .env("CONSIGN_APP", row.app.as_str())
            .env("CONSIGN_VERSION", row.version.as_str())
            .env("CONSIGN_ENVIRONMENT", row.environment.as_str())
            .env("CONSIGN_WAVE", wave.to_string())
            .env("CONSIGN_SERVERS", servers.join(","))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let path = path.display();
        match timeout(within, child).await {
            Err(_) => (Health::Inconclusive, format!("{path} did not answer within {} s", within.as_secs())),
            Ok(Err(error)) => (Health::Inconclusive, format!("{path} cannot be executed: {error}")),
            Ok(Ok(output)) => {
                let text = String::from_utf8_lossy(&output.stdout);
                let said = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                let said = cut(said.trim(), SAID);
                let said =
                    if said.is_empty() { format!("{path} ended with {}", output.status) } else { said };
                match output.status.code() {
                    Some(0) => (Health::Pass, said),
                    Some(1) => (Health::Fail, said),
                    Some(_) | None => (Health::Inconclusive, said),
                }
            }
        }
    }
}

/// Asked again until it passes or the time is over; then the last answer stands. That nobody listens there is an answer
/// too; that the way there is broken (a name that is not found, a line that is silent) says nothing about the wave.
async fn http(url: &str, status: u16, within: Duration) -> (Health, String) {
    let over = Instant::now() + within;
    loop {
        let (asked, most) = (url.to_owned(), REQUEST.min(over.saturating_duration_since(Instant::now())));
        let answer = tokio::task::spawn_blocking(move || get(&asked, most)).await;
        let last = match answer {
            Ok(Ok(got)) if got == status => return (Health::Pass, format!("{url} answered {got}")),
            Ok(Ok(got)) => (Health::Fail, format!("{url} answered {got}, not {status}")),
            Ok(Err(error)) => {
                let refused =
                    matches!(&error, ureq::Error::Io(io) if io.kind() == ErrorKind::ConnectionRefused);
                let health = if refused { Health::Fail } else { Health::Inconclusive };
                (health, format!("{url}: {error}"))
            }
            Err(_) => return (Health::Inconclusive, format!("{url} could not be asked")),
        };
        if Instant::now() + AGAIN >= over {
            return (last.0, cut(&last.1, SAID));
        }
        time::sleep(AGAIN).await;
    }
}

fn get(url: &str, most: Duration) -> Result<u16, ureq::Error> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(most.max(Duration::from_millis(100))))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .build();
    let response = ureq::Agent::new_with_config(config).get(url).call()?;
    Ok(response.status().as_u16())
}
