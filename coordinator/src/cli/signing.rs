//! The one key that a command signs with.

use std::path::{Path, PathBuf};

use clap::Args;
use consign_common::{
    digest::Sha256,
    name::Owner,
    trust::{Envelope, KeyFile, STATEMENT_TYPE, SigningKey, Statement, TrustRoot},
};

use super::failure::{Doing, Failure, Result};

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Your key. Default: keys/owner.key of the home
    #[arg(long = "key", value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(crate) struct Signing {
    key: SigningKey,
}

impl KeyArgs {
    /// The key that was named, else this one.
    pub(crate) fn open(&self, default: &Path) -> Result<Signing> {
        let path = self.key.as_deref().unwrap_or(default);
        if !path.exists() {
            return Err(Failure::new(format!("there is no key at {}", path.display()))
                .next("say which one signs: --key FILE"));
        }
        let (_, key) = KeyFile::read(path).doing(|| "failed to read the key".into())?;
        Ok(Signing { key })
    }
}

impl Signing {
    pub(crate) fn id(&self) -> Sha256 {
        self.key.public().id()
    }

    /// Whose key it is, as the trust root says.
    pub(crate) fn owner<'a>(&self, root: &'a TrustRoot) -> Result<&'a Owner> {
        match root.keys.get(&self.id()) {
            Some(key) => Ok(&key.owner),
            None => Err(Failure::refused(format!(
                "the trust root does not name the key {}: what it signs counts for nobody",
                self.id().short()
            ))
            .next("`consign trust show` shows whose keys count; give another one with --key")),
        }
    }

    pub(crate) fn sign(&self, statement: &Statement) -> Result<Vec<u8>> {
        Ok(Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[&self.key]).to_vec())
    }
}
