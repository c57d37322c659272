//! A timer outside of the agent: at the deadline of a confirmation the server returns also where no agent lives to see it.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use consign_common::{name::Id, terminal};
use tokio::{process::Command, time::timeout};

/// Of one call of systemd's tools.
const PATIENCE: Duration = Duration::from_secs(20);

/// What keeps the deadline while no agent runs. The agent has a timer of its own in every case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfirmTimer {
    /// Nothing: without systemd or root the next agent sees that the deadline has passed.
    None,
    /// A transient timer unit per deployment, which starts `consign-agent confirm-expired`.
    Systemd { program: PathBuf, arguments: Vec<OsString> },
}

impl ConfirmTimer {
    /// The timer of an agent that has these files.
    pub fn systemd(program: PathBuf, config: &Path, state: &Path, apps: &Path) -> Self {
        let mut arguments = Vec::new();
        for (option, path) in [("--config", config), ("--state", state), ("--apps", apps)] {
            // The unit has another working directory.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            arguments.extend([OsString::from(option), path.into()]);
        }
        arguments.push("confirm-expired".into());
        Self::Systemd { program, arguments }
    }

    /// Sets it, once; also where one before this agent has set it. What fails is told: the agent's own timer stays.
    pub(super) async fn arm(&self, deployment: &Id, left: Duration) {
        let Self::Systemd { program, arguments } = self else { return };
        if left.is_zero() {
            return;
        }
        let unit = unit(deployment);
        let timer = format!("{unit}.timer");
        if call("systemctl", ["is-active", "--quiet", &timer]).await.is_ok() {
            return;
        }
        if let Err(message) = call("systemd-run", run_arguments(&unit, left, program, arguments)).await {
            tracing::warn!(
                %deployment, message,
                "no timer outside of the agent: without an agent the deadline to confirm passes unseen"
            );
        }
    }

    pub(super) async fn disarm(&self, deployment: &Id) {
        if *self == Self::None {
            return;
        }
        let timer = format!("{}.timer", unit(deployment));
        // It may have expired, and is gone then.
        if call("systemctl", ["is-active", "--quiet", &timer]).await.is_err() {
            return;
        }
        if let Err(message) = call("systemctl", ["stop", "--quiet", &timer]).await {
            // It finds nothing to do when it expires.
            tracing::warn!(%deployment, message, "the timer outside of the agent could not be removed");
        }
    }
}

fn unit(deployment: &Id) -> String {
    format!("consign-confirm-{deployment}")
}

/// A second late rather than early: what finds the deadline not yet passed does nothing.
fn run_arguments(unit: &str, left: Duration, program: &Path, arguments: &[OsString]) -> Vec<OsString> {
    let after = format!("--on-active={}s", left.as_secs().saturating_add(1));
    let options = ["--timer-property=AccuracySec=1s", "--property=Type=oneshot", "--collect", "--quiet"];
    let mut all: Vec<OsString> = vec![format!("--unit={unit}").into(), after.into()];
    all.push("--description=Returns a deployment of consign that nobody confirmed".into());
    all.extend(options.map(OsString::from));
    all.push("--".into());
    all.push(program.into());
    all.extend(arguments.iter().cloned());
    all
}

async fn call<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stderr, .. } = match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{program} cannot be executed: {error}")),
        Err(_) => return Err(format!("{program} did not answer within {} s", PATIENCE.as_secs())),
    };
    if status.success() {
        return Ok(());
    }
    Err(format!("{program}: {status}: {}", terminal::escape_line(String::from_utf8_lossy(&stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_named_after_its_deployment_and_comes_after_the_deadline() {
        let timer =
            ConfirmTimer::systemd("/usr/bin/agent".into(), Path::new("/c"), Path::new("/s"), Path::new("/a"));
        let ConfirmTimer::Systemd { program, arguments } = timer else { panic!() };
        let unit = unit(&Id::from_bytes([7; 16]));
        let all = run_arguments(&unit, Duration::from_millis(299_500), &program, &arguments);
        let all: Vec<_> = all.iter().map(|argument| argument.to_str().unwrap()).collect();
        assert_eq!(
            all,
            [
                "--unit=consign-confirm-07070707070707070707070707070707",
                "--on-active=300s",
                "--description=Returns a deployment of consign that nobody confirmed",
                "--timer-property=AccuracySec=1s",
                "--property=Type=oneshot",
                "--collect",
                "--quiet",
                "--",
                "/usr/bin/agent",
                "--config",
                "/c",
                "--state",
                "/s",
                "--apps",
                "/a",
                "confirm-expired"
            ]
        );
    }
}
