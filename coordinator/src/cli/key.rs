//! `consign key`: keys that sign. Private ones are made here and never leave by our doing.

use std::path::PathBuf;

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
    signer::{KeyName, PassphraseArgs, PublicKeyName, SealedKeyFile, Signer, public_line},
};

const FORMAT: &str = "consign-public-key-v1";
const BYTES: usize = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key pair: FILE (0600) and FILE with the ending .pub
    #[command(after_help = "Examples:
  consign key generate ada.key --owner ada --passphrase
  consign key generate blog-ci.key --owner blog-ci")]
    Generate(GenerateArgs),
    /// Show the id, the owner and the public half of a key
    #[command(after_help = "Examples:
  consign key show ada.pub
  consign key show ada=~/.ssh/id_ed25519.pub
  consign key show ssh-agent:ada@laptop")]
    Show(ShowArgs),
    /// Protect a key file with a passphrase
    #[command(after_help = "Example:
  consign key encrypt keys/owner.key")]
    Encrypt(RewriteArgs),
    /// Take a key file's passphrase away
    Decrypt(RewriteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Where to write the private key, as publisher.key
    file: PathBuf,
    /// Whose key it is: thresholds count distinct owners
    #[arg(long)]
    owner: Owner,
    /// Protect it with a passphrase
    #[arg(long)]
    passphrase: bool,
    #[command(flatten)]
    from: PassphraseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A .key or .pub file, also OpenSSH's, or ssh-agent:FINGERPRINT
    #[arg(value_name = "[OWNER=]KEY")]
    key: PublicKeyName,
    /// Whose it is, where the file does not say
    #[arg(long)]
    owner: Option<Owner>,
}

#[derive(Debug, Args)]
pub(crate) struct RewriteArgs {
    /// A key file of consign's: it is written anew. (OpenSSH's: ssh-keygen -p -f FILE)
    file: PathBuf,
    #[command(flatten)]
    from: PassphraseArgs,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
    scheme: Scheme,
    public: String,
}

/// What any form of a key says of its public half.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PublicHalf {
    key: PublicKey,
    scheme: Scheme,
    owner: Option<Owner>,
}

impl PublicKeyFile {
    pub(crate) fn new(owner: Owner, scheme: Scheme, key: &PublicKey) -> Self {
        Self { format: FORMAT.into(), scheme, owner, public: key.to_base64() }
    }

    /// A public key in any form that there is, with its owner. `owner` is for all that do not say it themselves.
    pub(crate) fn find(name: &PublicKeyName, owner: Option<&Owner>) -> Result<Self> {
        let half = PublicHalf::find(&name.key)?;
        let given = name.owner.as_ref().or(owner);
        let owner = match (half.owner, given) {
            (Some(said), Some(given)) if said != *given => {
                return Err(Failure::new(format!("{} says that it is {said}'s, not {given}'s", name.key)));
            }
            (Some(owner), _) => owner,
            (None, Some(owner)) => owner.clone(),
            (None, None) => {
                return Err(Failure::usage(format!("{} does not say whose key it is", name.key))
                    .next(format!("thresholds count distinct owners: give OWNER={}", name.key)));
            }
        };
        Ok(Self::new(owner, half.scheme, &half.key))
    }

    pub(crate) fn key(&self) -> Result<PublicKey, consign_common::trust::InvalidKey> {
        PublicKey::from_base64(&self.public)
    }
}

impl PublicHalf {
    fn find(name: &KeyName) -> Result<Self> {
        let KeyName::File(path) = name else {
            return Ok(Self::of_signer(&Signer::open(name, &PassphraseArgs::default())?));
        };
        let bytes = read(path, BYTES as u64)?;
        if bytes.trim_ascii_start().starts_with(b"ssh-") {
            let key = public_line(&bytes, &path.display().to_string())?;
            return Ok(Self { key, scheme: Scheme::Sshsig, owner: None });
        }
        if let Ok(file) = json::from_slice::<PublicKeyFile>(&bytes, BYTES) {
            if file.format != FORMAT {
                return Err(Failure::new(format!("{} is no {FORMAT}", path.display())));
            }
            let key = file.key().at("read", path)?;
            return Ok(Self { key, scheme: file.scheme, owner: Some(file.owner) });
        }
        // A private key file's public half needs no passphrase.
        Ok(Self::of_signer(&Signer::parse(&bytes, &path.display().to_string(), &PassphraseArgs::default())?))
    }

    fn of_signer(signer: &Signer) -> Self {
        Self { key: *signer.public(), scheme: signer.scheme(), owner: signer.owner_hint().cloned() }
    }

    fn shown(self) -> Shown {
        let (id, public) = (self.key.id(), self.key.to_base64());
        Shown { id, owner: self.owner, scheme: self.scheme, public }
    }
}

pub(super) fn run(command: KeyCommand, printer: &Printer) -> Result<()> {
    let half = match command {
        KeyCommand::Generate(args) => generate(args, printer)?,
        KeyCommand::Show(args) => {
            let half = PublicHalf::find(&args.key.key)?;
            PublicHalf { owner: half.owner.or(args.key.owner).or(args.owner), ..half }
        }
        KeyCommand::Encrypt(args) => encrypt(&args, printer)?,
        KeyCommand::Decrypt(args) => decrypt(&args, printer)?,
    };
    printer.show(&half.shown(), |shown| {
        let scheme = match shown.scheme {
            Scheme::Ed25519 => "ed25519",
            Scheme::Sshsig => "sshsig",
        };
        let owner = shown.owner.as_ref().map_or("not said by the key", Owner::as_str);
        format!("id      {}\nowner   {owner}\nscheme  {scheme}\npublic  {}\n", shown.id, shown.public)
    })
}

fn generate(args: GenerateArgs, printer: &Printer) -> Result<PublicHalf> {
    let public_path = args.file.with_extension("pub");
    for path in [&args.file, &public_path] {
        if path.exists() {
            return Err(
                Failure::new(format!("{} exists already", path.display())).next("choose another name")
            );
        }
    }
    let key = SigningKey::generate().doing(|| "failed to make a key".into())?;
    let public = PublicKeyFile::new(args.owner.clone(), Scheme::Ed25519, &key.public());
    if args.passphrase {
        let passphrase = args.from.new_for(&args.file.display().to_string())?;
        SealedKeyFile::seal(args.owner.clone(), &key, passphrase)?.write(&args.file)?;
    } else {
        KeyFile::new(args.owner.clone(), &key).write(&args.file).doing(|| "failed to keep the key".into())?;
    }
    durable::replace_file(&public_path, &json::to_vec(&public), 0o644).at("write", &public_path)?;
    printer.note(&format!("wrote {} (keep it secret) and {}", args.file.display(), public_path.display()))?;
    Ok(PublicHalf { key: key.public(), scheme: Scheme::Ed25519, owner: Some(args.owner) })
}

fn encrypt(args: &RewriteArgs, printer: &Printer) -> Result<PublicHalf> {
    let name = args.file.display().to_string();
    let file = KeyFile::read(&args.file);
    let Ok((file, key)) = file else {
        let signer = Signer::open(&args.file.clone().into(), &args.from)?;
        return Err(Failure::new(match signer.scheme() {
            Scheme::Ed25519 => format!("{name} has a passphrase already"),
            Scheme::Sshsig => format!("{name} is OpenSSH's"),
        })
        .next(match signer.scheme() {
            Scheme::Ed25519 => "to change it: consign key decrypt, then encrypt again",
            Scheme::Sshsig => "ssh-keygen -p -f FILE gives it a passphrase",
        }));
    };
    SealedKeyFile::seal(file.owner.clone(), &key, args.from.new_for(&name)?)?.write(&args.file)?;
    printer.note(&format!("{name} needs its passphrase now; the file without it is gone from here"))?;
    Ok(PublicHalf { key: key.public(), scheme: file.scheme, owner: Some(file.owner) })
}

fn decrypt(args: &RewriteArgs, printer: &Printer) -> Result<PublicHalf> {
    let name = args.file.display().to_string();
    let file = SealedKeyFile::parse(&read(&args.file, BYTES as u64)?, &name)
        .map_err(|failure| failure.next("only key files that consign protected are opened here"))?;
    let key = file.open(args.from.of(&name)?, &name)?;
    file.plain(&key).write(&args.file).doing(|| "failed to keep the key".into())?;
    printer.note(&format!("{name} is not protected any more: whoever reads the file can sign"))?;
    Ok(PublicHalf { key: key.public(), scheme: file.scheme, owner: Some(file.owner) })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::print::Format, *};

    fn printer() -> Printer {
        Printer::new(Format::Text)
    }

    fn generated(file: &Path, passphrase: Option<&Path>) -> Result<PublicHalf> {
        let mut args = vec!["--owner", "ada"];
        let given = passphrase.map(|file| file.to_str().unwrap());
        if let Some(given) = given {
            args.extend(["--passphrase", "--passphrase-file", given]);
        }
        generate(parsed(file, &args), &printer())
    }

    /// Through clap, as users give them.
    fn parsed<T: Args>(file: &Path, rest: &[&str]) -> T {
        let line = ["key", file.to_str().unwrap()].into_iter().chain(rest.iter().copied());
        let matches = T::augment_args(clap::Command::new("key")).try_get_matches_from(line).unwrap();
        T::from_arg_matches(&matches).unwrap()
    }

    fn half(path: &Path) -> PublicHalf {
        PublicHalf::find(&path.to_owned().into()).unwrap()
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.key");
        let public = generated(&file, None).unwrap();
        assert!(generated(&file, None).is_err());
        assert_eq!(half(&file), public);
        assert_eq!(half(&dir.path().join("a.pub")), public);
        assert!(!std::fs::read_to_string(dir.path().join("a.pub")).unwrap().contains("private"));
    }

    #[test]
    fn a_passphrase_is_put_on_and_taken_off() {
        let dir = tempfile::tempdir().unwrap();
        let (file, passphrase) = (dir.path().join("a.key"), dir.path().join("passphrase"));
        std::fs::write(&passphrase, "correct horse\n").unwrap();
        let public = generated(&file, Some(&passphrase)).unwrap();
        assert!(KeyFile::read(&file).is_err());
        assert_eq!(half(&file), public);

        let args: RewriteArgs = parsed(&file, &["--passphrase-file", passphrase.to_str().unwrap()]);
        assert!(encrypt(&args, &printer()).unwrap_err().what.contains("already"));
        assert_eq!(decrypt(&args, &printer()).unwrap(), public);
        let (plain, key) = KeyFile::read(&file).unwrap();
        assert_eq!(key.public(), public.key);
        assert_eq!(encrypt(&args, &printer()).unwrap(), public);
        assert!(!std::fs::read_to_string(&file).unwrap().contains(&plain.private));

        std::fs::write(&passphrase, "wrong horse\n").unwrap();
        let before = std::fs::read(&file).unwrap();
        assert!(decrypt(&args, &printer()).unwrap_err().what.contains("does not open"));
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }

    #[test]
    fn a_key_that_does_not_say_whose_it_is_must_be_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id.pub");
        std::fs::write(
            &path,
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGoQ3OeDNwxc+ciejASQTNXw4WToYR6rrsHr0lQMcSrT x\n",
        )
        .unwrap();
        let name = |text: String| text.parse::<PublicKeyName>().unwrap();
        let find = |text: String| PublicKeyFile::find(&name(text), None);
        assert!(find(path.display().to_string()).unwrap_err().next.unwrap().contains("OWNER="));
        let file = find(format!("ada={}", path.display())).unwrap();
        assert_eq!((file.owner.as_str(), file.scheme), ("ada", Scheme::Sshsig));
        let bob = "bob".parse().unwrap();
        assert_eq!(PublicKeyFile::find(&name(path.display().to_string()), Some(&bob)).unwrap().owner, bob);

        let own = dir.path().join("a.key");
        generated(&own, None).unwrap();
        assert!(find(format!("bob={}", own.display())).unwrap_err().what.contains("says that it is ada's"));
    }
}
