//! The operator's home: who I am to which coordinator, and my own pinned copy of the trust root.

use std::path::{Path, PathBuf};

use consign_common::{
    digest::Sha256,
    durable,
    limits::TRUST_ROOT_BYTES,
    name::Owner,
    trust::{TrustRoot, is_address},
};
use serde::{Deserialize, Serialize};

use super::failure::{Doing, Failure, Result};

const PROFILE_BYTES: u64 = 64 << 10;

/// `profile.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// `host:port` of the coordinator.
    pub(crate) address: String,
    /// `host:port` of its enrolment listener.
    pub(crate) enrolment: String,
    /// SHA-256 of its CA's SPKI: who answers at the address must be certified by it.
    pub(crate) ca_sha256: Sha256,
    /// Its id, as the trust root names it.
    pub(crate) coordinator: String,
    /// Who I am to it.
    pub(crate) name: Owner,
}

/// The files of a home. Nothing is read before it is needed.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    /// `--home`, else `$CONSIGN_HOME` (clap reads both), else `~/.config/consign`.
    pub(crate) fn locate(given: Option<&Path>) -> Result<Self> {
        if let Some(given) = given {
            return Ok(Self { root: given.to_owned() });
        }
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
        config
            .or_else(home)
            .map(|config| Self { root: config.join("consign") })
            .ok_or_else(|| Failure::usage("$HOME is not set").next("say where to look: --home DIR"))
    }

    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn profile_path(&self) -> PathBuf {
        self.root.join("profile.toml")
    }

    pub(crate) fn operator_path(&self) -> PathBuf {
        self.root.join("operator.pem")
    }

    pub(crate) fn trust_root_path(&self) -> PathBuf {
        self.root.join("trust-root.json")
    }

    pub(crate) fn bundle_path(&self) -> PathBuf {
        self.root.join("coordinator.bundle")
    }

    pub(crate) fn keys_path(&self) -> PathBuf {
        self.root.join("keys")
    }

    pub(crate) fn owner_key_path(&self) -> PathBuf {
        self.keys_path().join("owner.key")
    }

    pub(crate) fn publisher_key_path(&self) -> PathBuf {
        self.keys_path().join("publisher.key")
    }

    pub(crate) fn profile(&self) -> Result<Profile> {
        let path = self.profile_path();
        if !path.exists() {
            return Err(Failure::new(format!("there is no profile at {}", path.display())).next(
                "begin with `consign init`, join with `consign operator join TOKEN`, or point --home at the right directory",
            ));
        }
        let text = String::from_utf8(read(&path, PROFILE_BYTES)?)
            .map_err(|_| Failure::new(format!("{} is not UTF-8", path.display())))?;
        let profile: Profile = toml::from_str(&text).at("read", &path)?;
        for address in [&profile.address, &profile.enrolment] {
            check_address(address)
                .map_err(|failure| Failure::new(format!("{}: {failure}", path.display())))?;
        }
        Ok(profile)
    }

    pub(crate) fn write_profile(&self, profile: &Profile) -> Result<()> {
        let path = self.profile_path();
        let text = toml::to_string(profile).at("encode", &path)?;
        durable::replace_file(&path, text.as_bytes(), 0o600).at("write", &path)
    }

    /// The pinned copy and the trust root that it holds. It is ours: we pin what we have.
    pub(crate) fn trust_root(&self) -> Result<(Vec<u8>, TrustRoot)> {
        let path = self.trust_root_path();
        let envelope = read(&path, TRUST_ROOT_BYTES as u64)?;
        let root = TrustRoot::pin(&envelope)
            .and_then(|pin| TrustRoot::open_pinned(&envelope, pin))
            .at("read the pinned trust root", &path)?;
        Ok((envelope, root))
    }

    pub(crate) fn pin_trust_root(&self, envelope: &[u8]) -> Result<()> {
        let path = self.trust_root_path();
        durable::replace_file(&path, envelope, 0o644).at("write", &path)
    }
}

pub(crate) fn check_address(address: &str) -> Result<()> {
    if is_address(address) {
        return Ok(());
    }
    Err(Failure::usage(format!("{address:?} is not HOST:PORT")))
}

/// A whole file, if it is no longer than it may be.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path).at("read", path)?.len();
    if length > max_bytes {
        return Err(Failure::new(format!("{} is longer than {max_bytes} bytes", path.display())));
    }
    std::fs::read(path).at("read", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            address: "deploy.example:7443".into(),
            enrolment: "deploy.example:7444".into(),
            ca_sha256: Sha256::of(b"ca"),
            coordinator: "c1".into(),
            name: "ada".parse().unwrap(),
        }
    }

    #[test]
    fn a_profile_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_owned());
        home.write_profile(&profile()).unwrap();
        assert_eq!(home.profile().unwrap(), profile());
    }

    #[test]
    fn a_profile_with_a_typo_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_owned());
        let text = toml::to_string(&profile()).unwrap();
        for bad in [text.clone() + "adress = 1\n", text.replace(":7443", ""), text.replace("ca_sha256", "ca")]
        {
            std::fs::write(home.profile_path(), bad).unwrap();
            assert!(home.profile().unwrap_err().what.contains("profile.toml"));
        }
    }

    #[test]
    fn without_a_profile_the_way_on_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let failure = Home::at(dir.path().to_owned()).profile().unwrap_err();
        assert!(failure.next.unwrap().contains("consign init"));
    }
}
