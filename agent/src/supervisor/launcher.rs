//! How a supervisor comes to life outside the agent.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use consign_common::name::{Id, InvalidName};
use tokio::process::Command;

/// `program` is the `consign-agent` binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// A transient unit of its own: the agent's sandbox, limits, restarts and upgrades do not touch it.
    SystemdUnit { program: PathBuf },
    /// A session of its own, adopted by init: for a machine without systemd, and an agent that is not root.
    Session { program: PathBuf },
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("the directory {directory} is not named by a deployment")]
    Name { directory: PathBuf, source: InvalidName },
    #[error("failed to execute {program}")]
    Execute { program: PathBuf, source: io::Error },
    #[error("{program} ended with {status}: {message}")]
    Failed { program: PathBuf, status: ExitStatus, message: String },
}

impl Launcher {
    /// The one for this process: a unit where systemd started it as root, else a session.
    pub fn detect() -> io::Result<Self> {
        let program = this_program()?;
        let by_systemd =
            ["INVOCATION_ID", "NOTIFY_SOCKET"].iter().any(|name| std::env::var_os(name).is_some());
        let is_root = rustix::process::geteuid().is_root();
        if is_root && by_systemd && Path::new("/run/systemd/system").is_dir() {
            return Ok(Self::SystemdUnit { program });
        }
        Ok(Self::Session { program })
    }

    /// Returns when the supervisor was started, not yet when it listens.
    pub(super) async fn launch(&self, directory: &Path) -> Result<(), LaunchError> {
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let deployment = Id::try_from(name)
            .map_err(|source| LaunchError::Name { directory: directory.to_owned(), source })?;
        let (executed, arguments) = match self {
            Self::SystemdUnit { program } => {
                (PathBuf::from("systemd-run"), unit_arguments(&deployment, program, directory))
            }
            Self::Session { program } => (
                program.clone(),
                ["supervise".into(), "--detach".into(), "--dir".into(), directory.into()].into(),
            ),
        };
        let output = Command::new(&executed)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|source| LaunchError::Execute { program: executed.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let message = consign_common::terminal::escape_line(String::from_utf8_lossy(&output.stderr).trim());
        Err(LaunchError::Failed { program: executed, status: output.status, message })
    }
}

/// `KillMode=process`: what an attempt with `leaves` started stays when the supervisor exits; all else is ended by the
/// supervisor itself. `OOMPolicy=continue`: a step that is killed for its memory does not take the supervisor along.
fn unit_arguments(deployment: &Id, program: &Path, directory: &Path) -> Vec<OsString> {
    let unit = format!("--unit=consign-deployment-{deployment}.service");
    let description = format!("--description=Steps of deployment {deployment}");
    let properties = [
        "Type=exec",
        "Delegate=yes",
        "KillMode=process",
        "OOMPolicy=continue",
        "TasksMax=infinity",
        "LimitNOFILE=1024:524288",
        "UMask=0022",
        "Restart=no",
    ];
    let mut arguments: Vec<OsString> = vec![unit.into(), description.into()];
    arguments.extend(["--slice=consign.slice", "--collect", "--quiet"].map(OsString::from));
    arguments.extend(properties.iter().map(|property| format!("--property={property}").into()));
    arguments.push("--".into());
    arguments.push(program.into());
    arguments.extend([OsString::from("supervise"), "--dir".into(), directory.into()]);
    arguments
}

/// The path of this binary, also after an upgrade put another file there.
fn this_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(replaced) => Ok(replaced.into()),
        None => Ok(path),
    }
}
