//! `consign key`: keys that sign. Private ones are made here and never leave by our doing.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use consign_common::{
    digest::Sha256,
    durable, json,
    name::Owner,
    trust::{KeyFile, PublicKey, Scheme, SigningKey},
};
use serde::{Deserialize, Serialize};

use super::{
    failure::{Doing, Failure, Result},
    print::Printer,
    profile::read,
};

const FORMAT: &str = "consign-public-key-v1";
const BYTES: usize = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key pair: FILE (0600) and FILE with the ending .pub
    Generate(GenerateArgs),
    /// Show the id, the owner and the public half of a .key or .pub file
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Where to write the private key, as publisher.key
    file: PathBuf,
    /// Whose key it is: thresholds count distinct owners
    #[arg(long)]
    owner: Owner,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A .key or .pub file
    file: PathBuf,
}

/// A public key with its owner, as `consign trust update` reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublicKeyFile {
    /// `consign-public-key-v1`.
    format: String,
    pub(crate) scheme: Scheme,
    pub(crate) owner: Owner,
    /// The raw key, standard base64 with padding.
    pub(crate) public: String,
}

#[derive(Debug, Serialize)]
struct Shown {
    id: Sha256,
    owner: Owner,
    scheme: Scheme,
    public: String,
}

impl PublicKeyFile {
    pub(crate) fn new(owner: Owner, key: &PublicKey) -> Self {
        Self { format: FORMAT.into(), scheme: Scheme::Ed25519, owner, public: key.to_base64() }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file: Self = json::from_slice(&read(path, BYTES as u64)?, BYTES).at("read", path)?;
        if file.format != FORMAT {
            return Err(Failure::new(format!("{} is no {FORMAT}", path.display())));
        }
        file.key().at("read", path)?;
        Ok(file)
    }

    /// A public key file, or the public half of a private one.
    pub(crate) fn read_any(path: &Path) -> Result<Self> {
        match KeyFile::read(path) {
            Ok((file, key)) => Ok(Self::new(file.owner, &key.public())),
            Err(_) => Self::read(path),
        }
    }

    pub(crate) fn key(&self) -> Result<PublicKey, consign_common::trust::InvalidKey> {
        PublicKey::from_base64(&self.public)
    }

    fn shown(self) -> Result<Shown> {
        let id = self.key().doing(|| "public key".into())?.id();
        Ok(Shown { id, owner: self.owner, scheme: self.scheme, public: self.public })
    }
}

pub(super) fn run(command: KeyCommand, printer: &Printer) -> Result<()> {
    let file = match command {
        KeyCommand::Generate(args) => generate(args, printer)?,
        KeyCommand::Show(args) => PublicKeyFile::read_any(&args.file)?,
    };
    printer.show(&file.shown()?, |shown| {
        format!("id      {}\nowner   {}\npublic  {}\n", shown.id, shown.owner, shown.public)
    })
}

fn generate(args: GenerateArgs, printer: &Printer) -> Result<PublicKeyFile> {
    let public_path = args.file.with_extension("pub");
    for path in [&args.file, &public_path] {
        if path.exists() {
            return Err(
                Failure::new(format!("{} exists already", path.display())).next("choose another name")
            );
        }
    }
    let key = SigningKey::generate().doing(|| "failed to make a key".into())?;
    let public = PublicKeyFile::new(args.owner.clone(), &key.public());
    KeyFile::new(args.owner, &key).write(&args.file).doing(|| "failed to keep the key".into())?;
    durable::replace_file(&public_path, &json::to_vec(&public), 0o644).at("write", &public_path)?;
    printer.note(&format!("wrote {} (keep it secret) and {}", args.file.display(), public_path.display()))?;
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.key");
        let printer = Printer::new(super::super::print::Format::Text);
        let args = || GenerateArgs { file: file.clone(), owner: "ada".parse().unwrap() };
        let public = generate(args(), &printer).unwrap();
        assert!(generate(args(), &printer).is_err());
        assert_eq!(PublicKeyFile::read_any(&file).unwrap(), public);
        assert_eq!(PublicKeyFile::read_any(&dir.path().join("a.pub")).unwrap(), public);
        assert!(!std::fs::read_to_string(dir.path().join("a.pub")).unwrap().contains("private"));
    }
}
