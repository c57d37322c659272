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
    let (verb, unit) = (verb(action.verb), action.unit.as_str());
    log.say(format_args!("systemctl {verb} {unit}"));
    crash::point("systemctl-before");
    let mut child = Command::new("systemctl")
        .args(["--no-ask-password", "--no-pager", verb, "--", unit])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("systemctl cannot be executed: {error}"))?;
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

fn verb(verb: SystemdVerb) -> &'static str {
    match verb {
        SystemdVerb::Start => "start",
        SystemdVerb::Stop => "stop",
        SystemdVerb::Restart => "restart",
        SystemdVerb::Reload => "reload",
        SystemdVerb::ReloadOrRestart => "reload-or-restart",
    }
}
