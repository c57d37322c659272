//! The ssh-agent protocol (draft-ietf-sshm-ssh-agent), as far as signing needs it: which keys are there, and one
//! signature. The agent may be hardware, or ask a person first, so that the answer may take a while.

use std::{
    ffi::OsString,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use consign_common::{
    digest::Sha256,
    terminal::escape_line,
    trust::{
        PublicKey,
        sshsig::{self, Reader},
    },
};

use crate::cli::failure::{Doing, Failure, Result};

const SOCKET: &str = "SSH_AUTH_SOCK";
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// As OpenSSH's own agent has it.
const MESSAGE_BYTES: usize = 256 << 10;
const KEYS: u32 = 2048;
/// A person may have to find a token and touch it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key that the agent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AgentKey {
    socket: PathBuf,
    pub(super) public: PublicKey,
    /// For messages; the agent's word, escaped.
    pub(super) comment: String,
}

/// The one ed25519 key with this fingerprint (`SHA256:...`) or comment.
pub(super) fn find(wanted: &str) -> Result<AgentKey> {
    find_at(socket(std::env::var_os(SOCKET))?, wanted)
}

/// The private half of a public key.
pub(super) fn find_public(public: &PublicKey) -> Result<AgentKey> {
    find_at(socket(std::env::var_os(SOCKET))?, &fingerprint(public))
}

pub(super) fn find_at(socket: PathBuf, wanted: &str) -> Result<AgentKey> {
    let (keys, others) = list(&socket)?;
    let mut fitting: Vec<&AgentKey> = keys
        .iter()
        .filter(|key| fingerprint(&key.public) == wanted || key.comment == escape_line(wanted))
        .collect();
    // The same key under two comments is one key.
    fitting.dedup_by_key(|key| key.public);
    match fitting.as_slice() {
        [key] => Ok((*key).clone()),
        [] => {
            let what = format!("the ssh-agent has no ed25519 key {}", escape_line(wanted));
            Err(Failure::new(what).next(if keys.is_empty() {
                match others {
                    0 => "it has no key at all: ssh-add ~/.ssh/id_ed25519".to_owned(),
                    _ => "it has keys of other types only: ssh-keygen -t ed25519, then ssh-add".to_owned(),
                }
            } else {
                format!("it has {}", told(&keys))
            }))
        }
        _ => Err(Failure::new(format!("the ssh-agent has several keys {}", escape_line(wanted)))
            .next(format!("name it by its fingerprint: {}", told(&keys)))),
    }
}

/// `SHA256:` and what `ssh-keygen -l` shows behind it.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::of(&sshsig::public_blob(key)).as_bytes()))
}

fn told(keys: &[AgentKey]) -> String {
    let names = keys.iter().map(|key| format!("{} ({})", fingerprint(&key.public), key.comment));
    names.collect::<Vec<_>>().join(", ")
}

/// `value` is that of `$SSH_AUTH_SOCK`.
pub(super) fn socket(value: Option<OsString>) -> Result<PathBuf> {
    match value {
        Some(path) if !path.is_empty() => Ok(path.into()),
        Some(_) | None => Err(Failure::new(format!("there is no ssh-agent: ${SOCKET} is not set"))
            .next("start one: eval $(ssh-agent), then ssh-add ~/.ssh/id_ed25519")),
    }
}

/// The ed25519 keys, and how many others there are.
fn list(socket: &Path) -> Result<(Vec<AgentKey>, usize)> {
    let answer = ask(socket, &[REQUEST_IDENTITIES])?;
    read_list(socket, &answer).ok_or_else(|| Failure::new("the ssh-agent's answer cannot be read"))
}

fn read_list(socket: &Path, answer: &[u8]) -> Option<(Vec<AgentKey>, usize)> {
    let mut rest = Reader::new(answer);
    if rest.take(1)? != [IDENTITIES_ANSWER] {
        return None;
    }
    let count = rest.number().filter(|count| *count <= KEYS)?;
    let (mut keys, mut others) = (Vec::new(), 0);
    for _ in 0..count {
        let (blob, comment) = (rest.string()?, rest.string()?);
        match sshsig::raw_key(blob).and_then(|raw| PublicKey::from_raw(raw).ok()) {
            Some(public) => {
                let comment = escape_line(&String::from_utf8_lossy(comment));
                keys.push(AgentKey { socket: socket.to_owned(), public, comment });
            }
            None => others += 1,
        }
    }
    rest.is_empty().then_some((keys, others))
}

impl AgentKey {
    /// The raw signature of these bytes, checked: what an agent answers is not believed.
    pub(super) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut request = vec![SIGN_REQUEST];
        sshsig::put(&mut request, &sshsig::public_blob(&self.public));
        sshsig::put(&mut request, bytes);
        request.extend(0_u32.to_be_bytes());
        let answer = ask(&self.socket, &request)?;
        let refused = || {
            Failure::new(format!("the ssh-agent did not sign with {}", self.comment))
                .next("it may be locked (ssh-add -X), or have asked, and been told no")
        };
        let signature = read_signature(&answer).ok_or_else(refused)?;
        if !self.public.verify(bytes, signature) {
            return Err(Failure::new("the ssh-agent's signature is not one of that key"));
        }
        Ok(signature.to_vec())
    }
}

fn read_signature(answer: &[u8]) -> Option<&[u8]> {
    let mut rest = Reader::new(answer);
    if rest.take(1)? != [SIGN_RESPONSE] {
        return None;
    }
    let signature = rest.string()?;
    rest.is_empty().then_some(())?;
    sshsig::raw_signature(signature)
}

/// One question on a connection of its own.
fn ask(socket: &Path, request: &[u8]) -> Result<Vec<u8>> {
    let doing = || format!("the ssh-agent at {}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        Failure::new(format!("cannot reach the ssh-agent at {}: {error}", socket.display()))
            .next("is it running? eval $(ssh-agent), then ssh-add ~/.ssh/id_ed25519")
    })?;
    stream.set_read_timeout(Some(PATIENCE)).doing(doing)?;
    stream.set_write_timeout(Some(PATIENCE)).doing(doing)?;
    let mut message = Vec::new();
    sshsig::put(&mut message, request);
    stream.write_all(&message).doing(doing)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).doing(doing)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES {
        return Err(Failure::new(format!("the ssh-agent's answer has {length} bytes, which is too many")));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).doing(doing)?;
    Ok(answer)
}
