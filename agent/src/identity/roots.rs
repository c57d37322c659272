//! The chain of trust roots: begins with the one that `agent.toml` pins; every later one is signed by the one before.
//!
//! All versions are kept: a deployment that was interrupted goes on under the version that it was authorized with.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use consign_common::{
    digest::Sha256,
    durable,
    limits::TRUST_ROOT_BYTES,
    trust::{Refusal, TrustRoot, TrustRootPin},
};

use crate::executor::Roots;

#[derive(Debug)]
pub struct TrustRoots {
    directory: PathBuf,
    chain: Mutex<Chain>,
}

#[derive(Debug)]
struct Chain {
    versions: BTreeMap<u64, Link>,
    current: Arc<TrustRoot>,
}

#[derive(Debug)]
struct Link {
    root: Arc<TrustRoot>,
    /// Of the payload as it came.
    pin: Sha256,
}

#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {refusal}")]
    Refused { path: PathBuf, refusal: Refusal },
    #[error(transparent)]
    Offered(#[from] Refusal),
}

impl TrustRoots {
    /// Reads the chain from disk and checks it link by link, from the pin on.
    pub fn open(directory: &Path, pin: &TrustRootPin) -> Result<Self, RootsError> {
        let path = file(directory, pin.version);
        let envelope = read(&path)?.ok_or_else(|| RootsError::Io {
            path: path.clone(),
            source: io::Error::from(io::ErrorKind::NotFound),
        })?;
        let refused = |path: &Path, refusal| RootsError::Refused { path: path.into(), refusal };
        let mut chain = Chain::begin(&envelope, pin).map_err(|why| refused(&path, why))?;
        loop {
            let path = file(directory, chain.current.version.saturating_add(1));
            let Some(envelope) = read(&path)? else { break };
            let next = chain.next(&envelope).map_err(|why| refused(&path, why))?;
            chain.push(next);
        }
        Ok(Self { directory: directory.into(), chain: Mutex::new(chain) })
    }

    /// The newest: what new work is decided under.
    pub fn current(&self) -> Arc<TrustRoot> {
        self.lock().current.clone()
    }

    pub fn version(&self, version: u64) -> Option<Arc<TrustRoot>> {
        self.lock().versions.get(&version).map(|link| link.root.clone())
    }

    /// Takes what the coordinator offers, in ascending order: each is checked against the one before, made durable, and
    /// only then used. Versions that are here already are passed over. Blocks on the disk.
    pub fn take(&self, envelopes: &[impl AsRef<[u8]>]) -> Result<(), RootsError> {
        let mut chain = self.lock();
        for envelope in envelopes.iter().map(AsRef::as_ref) {
            let pin = TrustRoot::pin(envelope)?;
            if chain.versions.values().any(|link| link.pin == pin) {
                continue;
            }
            let next = chain.next(envelope)?;
            let path = file(&self.directory, next.root.version);
            durable::replace_file(&path, envelope, 0o600)
                .map_err(|source| RootsError::Io { path, source })?;
            chain.push(next);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Chain> {
        // The chain is changed by whole values only, so a panic elsewhere leaves it whole.
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Roots for Arc<TrustRoots> {
    fn current(&self) -> Arc<TrustRoot> {
        TrustRoots::current(self)
    }

    fn version(&self, version: u64) -> Option<Arc<TrustRoot>> {
        TrustRoots::version(self, version)
    }
}

impl Chain {
    fn begin(envelope: &[u8], pin: &TrustRootPin) -> Result<Self, Refusal> {
        let root = TrustRoot::open_pinned(envelope, pin.sha256)?;
        if root.version != pin.version {
            let why =
                format!("the pin is of version {}, the document is version {}", pin.version, root.version);
            return Err(Refusal::TrustRootInvalid { why });
        }
        let current = Arc::new(root);
        let link = Link { root: current.clone(), pin: pin.sha256 };
        Ok(Self { versions: BTreeMap::from([(pin.version, link)]), current })
    }

    fn next(&self, envelope: &[u8]) -> Result<Link, Refusal> {
        let root = Arc::new(self.current.open_next(envelope)?);
        Ok(Link { root, pin: TrustRoot::pin(envelope)? })
    }

    fn push(&mut self, link: Link) {
        self.current = link.root.clone();
        self.versions.insert(link.root.version, link);
    }
}

/// A chain that came over the wire, checked from its pin to its end.
#[derive(Debug)]
pub struct CheckedChain {
    pub envelopes: BTreeMap<u64, Vec<u8>>,
    pub newest: Arc<TrustRoot>,
}

/// Checks what enrolment received. The coordinator does not know which version the token pins: what is older is passed
/// over.
pub fn check_chain(envelopes: &[impl AsRef<[u8]>], pin: &TrustRootPin) -> Result<CheckedChain, Refusal> {
    let is_pinned = |envelope: &[u8]| TrustRoot::pin(envelope).is_ok_and(|found| found == pin.sha256);
    let from = envelopes.iter().position(|envelope| is_pinned(envelope.as_ref())).unwrap_or(0);
    let (first, rest) = envelopes
        .get(from..)
        .and_then(|envelopes| envelopes.split_first())
        .ok_or_else(|| Refusal::TrustRootInvalid { why: "the coordinator sent none".into() })?;
    let mut chain = Chain::begin(first.as_ref(), pin)?;
    let mut checked = BTreeMap::from([(pin.version, first.as_ref().to_vec())]);
    for envelope in rest.iter().map(AsRef::as_ref) {
        let next = chain.next(envelope)?;
        checked.insert(next.root.version, envelope.to_vec());
        chain.push(next);
    }
    Ok(CheckedChain { envelopes: checked, newest: chain.current })
}

pub fn file(directory: &Path, version: u64) -> PathBuf {
    directory.join(format!("{version}.json"))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, RootsError> {
    let io = |source| RootsError::Io { path: path.into(), source };
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > TRUST_ROOT_BYTES as u64 => {
            Err(io(io::Error::new(io::ErrorKind::FileTooLarge, "larger than a trust root may be")))
        }
        Ok(_) => fs::read(path).map(Some).map_err(io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Authority;

    #[test]
    fn follows_the_chain_and_keeps_it_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        fs::write(file(dir.path(), 1), authority.root(1)).unwrap();
        let roots = TrustRoots::open(dir.path(), &authority.pin()).unwrap();
        roots.take(&[authority.root(1), authority.root(2), authority.root(3)]).unwrap();
        assert_eq!(roots.current().version, 3);
        let roots = TrustRoots::open(dir.path(), &authority.pin()).unwrap();
        assert_eq!(roots.current().version, 3);
        assert_eq!(roots.version(2).unwrap().version, 2);
    }

    #[test]
    fn a_token_that_pins_a_later_version_passes_over_the_earlier_ones() {
        let authority = Authority::new();
        let roots = [authority.root(1), authority.root(2), authority.root(3)];
        let pin = TrustRootPin { version: 2, sha256: TrustRoot::pin(&roots[1]).unwrap() };
        let chain = check_chain(&roots, &pin).unwrap();
        assert_eq!(chain.envelopes.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert!(check_chain(&roots[2..], &pin).is_err(), "the pinned one is not there");
    }

    #[test]
    fn keeps_what_it_has_when_the_next_is_not_signed_for() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        fs::write(file(dir.path(), 1), authority.root(1)).unwrap();
        let roots = TrustRoots::open(dir.path(), &authority.pin()).unwrap();
        assert!(roots.take(&[Authority::new().root(2)]).is_err(), "another owner's");
        assert!(roots.take(&[authority.root(3)]).is_err(), "one is missing in between");
        assert_eq!(roots.current().version, 1);
        assert!(!file(dir.path(), 2).exists() && !file(dir.path(), 3).exists());
    }

    #[test]
    fn neither_an_equal_nor_a_lower_nor_an_oversized_one_replaces_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        fs::write(file(dir.path(), 1), authority.root(1)).unwrap();
        let roots = TrustRoots::open(dir.path(), &authority.pin()).unwrap();
        roots.take(&[authority.root(2), authority.root(3)]).unwrap();
        let kept = fs::read(file(dir.path(), 2)).unwrap();
        let stranger = Authority::new();
        for version in [0, 1, 2, 3, 5, u64::MAX] {
            assert!(roots.take(&[stranger.root(version)]).is_err(), "{version}");
        }
        // An old one, which this server has taken once, changes nothing; a gap is not bridged by what follows it.
        roots.take(&[authority.root(1)]).unwrap();
        assert!(roots.take(&[authority.root(5), authority.root(4)]).is_err());
        let mut padded = authority.root(4);
        padded.resize(TRUST_ROOT_BYTES + 1, b' ');
        assert!(roots.take(&[padded]).is_err());
        assert_eq!(roots.current().version, 3);
        assert_eq!(fs::read(file(dir.path(), 2)).unwrap(), kept);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn another_file_in_its_place_is_found_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file(dir.path(), 1), Authority::new().root(1)).unwrap();
        let opened = TrustRoots::open(dir.path(), &Authority::new().pin());
        assert!(matches!(opened, Err(RootsError::Refused { .. })));
    }
}
