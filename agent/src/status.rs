//! How the agent is: kept by the running daemon, told over a unix socket, and read back by `consign-agent status`.

use std::{
    io::{self, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use consign_common::{digest::Sha256, time::UnixMs};
use serde::{Deserialize, Serialize};

use crate::{
    journal::Waits,
    ports::{AppReport, Remembered},
};

const STATUS_BYTES: u64 = 1 << 20;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// What the daemon tells of itself; `consign-agent status --output json` adds what is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    pub pid: u32,
    pub agent_version: String,
    pub since: UnixMs,
    pub coordinator: Link,
    pub apps: Vec<AppView>,
    pub deployments: Vec<DeploymentView>,
    pub audit: Vec<AuditView>,
}

/// What is remembered of a coordinator's audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditView {
    pub coordinator: String,
    /// The newest entry that it told of.
    pub sequence: u64,
    pub hash: Sha256,
    /// It told of an end of its log that does not go with that one.
    pub rewritten: Option<Rewritten>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewritten {
    pub at: UnixMs,
    pub sequence: u64,
    pub hash: Sha256,
}

/// A deployment that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentView {
    pub id: String,
    pub app: String,
    /// For somebody that is not on this server, or for a deadline; absent while it runs.
    pub waits: Option<Waits>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Link {
    Connecting {},
    /// `clock_offset_ms`: this server's clock minus the coordinator's.
    Connected {
        coordinator: String,
        since: UnixMs,
        clock_offset_ms: i64,
    },
    Disconnected {
        because: String,
        since: UnixMs,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppView {
    pub app: String,
    pub version: String,
    pub good: Option<Sha256>,
    pub before: Option<Sha256>,
    pub current: Option<Sha256>,
}

/// Shared between those who know and the socket.
#[derive(Clone, Debug)]
pub struct Board(Arc<Mutex<Link>>);

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Link::Connecting {})))
    }
}

impl Board {
    pub fn set(&self, link: Link) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    pub fn link(&self) -> Link {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<(String, Remembered)> for AuditView {
    fn from((coordinator, Remembered { head, disputed }): (String, Remembered)) -> Self {
        let rewritten = disputed.map(|(at, told)| Rewritten { at, sequence: told.sequence, hash: told.hash });
        Self { coordinator, sequence: head.sequence, hash: head.hash, rewritten }
    }
}

impl From<AppReport> for AppView {
    fn from(report: AppReport) -> Self {
        Self {
            app: report.app.map(String::from).unwrap_or_default(),
            version: report.good_version,
            good: report.good,
            before: report.before,
            current: report.current,
        }
    }
}

/// The socket, for root or the agent's user alone. What a killed agent left behind is replaced: the lock on the state
/// directory says that nobody listens there.
pub fn listen(path: &Path) -> io::Result<tokio::net::UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

/// Tells one caller.
pub async fn answer(mut stream: tokio::net::UnixStream, live: &Live) -> io::Result<()> {
    let bytes = serde_json::to_vec(live)?;
    let written = tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes);
    tokio::time::timeout(ANSWER_TIMEOUT, written)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Asks the running agent; `None` if none runs.
pub fn ask(path: &Path) -> io::Result<Option<Live>> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.flush()?;
    let mut bytes = Vec::new();
    stream.take(STATUS_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_is_told_and_an_absent_agent_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.sock");
        assert_eq!(ask(&path).unwrap(), None);
        let live = Live {
            pid: 7,
            agent_version: "0.1.0".into(),
            since: UnixMs(1),
            coordinator: Link::Disconnected { because: "the cable".into(), since: UnixMs(2) },
            apps: Vec::new(),
            deployments: vec![DeploymentView {
                id: "d".into(),
                app: "shop".into(),
                waits: Some(Waits::Once { step: "migrate".into() }),
            }],
            audit: vec![AuditView {
                coordinator: "c".into(),
                sequence: 3,
                hash: Sha256::of(b"three"),
                rewritten: Some(Rewritten { at: UnixMs(3), sequence: 2, hash: Sha256::of(b"two") }),
            }],
        };
        let listener = listen(&path).unwrap();
        let asking = tokio::task::spawn_blocking({
            let path = path.clone();
            move || ask(&path)
        });
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, &live).await.unwrap();
        assert_eq!(asking.await.unwrap().unwrap(), Some(live));
        drop(listener);
        assert_eq!(ask(&path).unwrap(), None, "what a killed agent left behind");
        drop(listen(&path).unwrap());
    }
}
