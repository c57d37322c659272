//! `systemd`: one action on one unit, by `systemctl`; what it says goes into the attempt's log.

use std::process::Stdio;

use consign_common::{
    crash,
    deployment::log::Stream,
    plan::{SystemdAction, SystemdVerb},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use super::AttemptLog;

pub(super) async fn run(action: &SystemdAction, log: &AttemptLog) -> Result<(), String> {
    let (starts, verb, unit) = (starts(action.verb), verb(action.verb), action.unit.as_str());
    log.say(format_args!("systemctl {verb} {unit}"));
    crash::point("systemctl-before");
    if starts == Starts::Yes {
        // A version that crashed again and again has used up systemd's start limit, and the way back must not be refused
        // for that. One that systemd has not loaded has nothing to clear, and says so.
        drop(systemctl("reset-failed", unit).output().await);
    }
    let mut child =
        systemctl(verb, unit).spawn().map_err(|error| format!("systemctl cannot be executed: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (_, last, status) =
        tokio::join!(copy(stdout, Stream::Stdout, log), copy(stderr, Stream::Stderr, log), child.wait());
    crash::point("systemctl-after");
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("systemctl {verb} {unit}: {status}: {}", last.trim())),
        Err(error) => Err(format!("systemctl {verb} {unit}: {error}")),
    }
}

fn systemctl(verb: &str, unit: &str) -> Command {
    let mut command = Command::new("systemctl");
    command
        .args(["--no-ask-password", "--no-pager", verb, "--", unit])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Into the log; returns the beginning, for the message.
async fn copy(pipe: Option<impl AsyncRead + Unpin>, stream: Stream, log: &AttemptLog) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut beginning = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        log.write(stream, bytes);
        if beginning.len() < 400 {
            beginning.extend_from_slice(bytes);
        }
    }
    String::from_utf8_lossy(&beginning).chars().filter(|c| !c.is_control()).take(400).collect()
}

/// Whether it starts the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starts {
    Yes,
    No,
}

fn starts(verb: SystemdVerb) -> Starts {
    match verb {
        SystemdVerb::Start | SystemdVerb::Restart | SystemdVerb::ReloadOrRestart => Starts::Yes,
        SystemdVerb::Stop | SystemdVerb::Reload => Starts::No,
    }
}

fn verb(verb: SystemdVerb) -> &'static str {
    match verb {
        SystemdVerb::Start => "start",
        SystemdVerb::Stop => "stop",
        SystemdVerb::Restart => "restart",
        SystemdVerb::Reload => "reload",
        SystemdVerb::ReloadOrRestart => "reload-or-restart",
    }
}
