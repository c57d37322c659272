//! The one key that a command signs with.

use clap::Args;
use consign_common::{
    digest::Sha256,
    name::Owner,
    trust::{STATEMENT_TYPE, Statement, TrustRoot},
};

use super::{
    artifacts::publishers_key,
    failure::{Failure, Result},
    profile::Home,
    signer::{KeyName, PassphraseArgs, Signer, sign},
};

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The key that signs: a file (also OpenSSH's), or ssh-agent:FINGERPRINT. Default: keys/owner.key of the home; for
    /// attest what artifact publish takes
    #[arg(long, value_name = "KEY")]
    key: Option<KeyName>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) struct Signing(Signer);

impl KeyArgs {
    /// The key that was named, else the owner's.
    pub(crate) fn owners(&self, home: &Home) -> Result<Signing> {
        let default = KeyName::File(home.owner_key_path());
        Signer::open(self.key.as_ref().unwrap_or(&default), &self.passphrase).map(Signing)
    }

    /// The key that was named, else the publisher's.
    pub(crate) fn publishers(&self, home: &Home) -> Result<Signing> {
        match &self.key {
            Some(key) => Signer::open(key, &self.passphrase).map(Signing),
            None => publishers_key(&self.passphrase, home).map(Signing),
        }
    }
}

impl Signing {
    pub(crate) fn id(&self) -> Sha256 {
        self.0.id()
    }

    /// Whose key it is, as the trust root says.
    pub(crate) fn owner<'a>(&self, root: &'a TrustRoot) -> Result<&'a Owner> {
        self.0.check_scheme(root)?;
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
        Ok(sign(STATEMENT_TYPE, statement.to_payload(), [&self.0])?.to_vec())
    }
}
