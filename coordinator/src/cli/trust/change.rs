//! One change of the trust root, from the newest version to the coordinator, or into a draft for others to sign.

use consign_common::{
    time::{Clock, SystemClock, UnixMs},
    trust::TrustRoot,
};
use consign_proto::v1;
use serde::Serialize;

use super::{
    args::ChangeArgs,
    commands::{newest, pin},
    difference::{difference, owners},
    draft::{Draft, Signatures, needs},
    edit::{Edit, next},
    readers, show,
};
use crate::cli::{
    client::{Client, unary},
    failure::{Exit, Failure, Result},
    print::{Format, Printer},
    profile::Home,
    signer::{self, KeyName, PassphraseArgs, Signer},
};

/// What a change begins with.
pub(super) struct Base<'a> {
    pub(super) root: TrustRoot,
    envelope: Vec<u8>,
    home: &'a Home,
    /// `None`: a draft is made without it.
    pub(super) client: Option<Client>,
    pub(super) now: UnixMs,
}

/// What became of a draft.
#[derive(Debug, Serialize)]
pub(super) struct Drafted {
    pub(super) draft: std::path::PathBuf,
    pub(super) version: u64,
    #[serde(flatten)]
    pub(super) signatures: Signatures,
    pub(super) in_force: bool,
}

impl<'a> Base<'a> {
    pub(super) async fn fetch(
        how: &ChangeArgs,
        home: &'a Home,
        client: impl FnOnce() -> Result<Client>,
        printer: &Printer,
    ) -> Result<Self> {
        let now = SystemClock.now();
        let asked = match client() {
            Ok(client) => newest(home, &client).await.map(|newest| (newest, client)),
            Err(failure) => Err(failure),
        };
        match asked {
            Ok(((envelope, root), client)) => Ok(Self { root, envelope, home, client: Some(client), now }),
            // A draft needs no coordinator; one whose trust roots are not to be believed is another matter.
            Err(failure) if how.draft.is_some() && failure.exit != Exit::Refused => {
                let (envelope, root) = home.trust_root()?;
                printer
                    .note(&format!("drafted from the pinned version {}: {}", root.version, failure.what))?;
                Ok(Self { root, envelope, home, client: None, now })
            }
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn change(
        &self,
        mut edits: Vec<Edit>,
        how: &ChangeArgs,
        printer: &Printer,
    ) -> Result<()> {
        edits.extend(how.expires.map(|span| Edit::Expires(self.now.plus(span))));
        if edits.is_empty() {
            return Err(Failure::usage("nothing to change")
                .next("`consign trust update --help` lists what can be changed"));
        }
        let updated = next(&self.root, edits, self.now)?;
        if let Some(client) = self.client.as_ref().filter(|_| !how.leave_behind) {
            readers::check(client, &readers::of_next(&self.root, &updated)).await?;
        }
        let default = default_key(self.home);
        let keys = match (&how.draft, how.keys.is_empty()) {
            // A draft may be begun by who has no key for it.
            (Some(_), true) => Signer::open(&default, &how.passphrase)
                .ok()
                .filter(|key| check_key(key, &self.root, &updated).is_ok())
                .into_iter()
                .collect(),
            (_, given) => {
                let names = if given { std::slice::from_ref(&default) } else { how.keys.as_slice() };
                signing_keys(names, &how.passphrase, &self.root, &updated)?
            }
        };
        if printer.format() == Format::Text {
            difference(&self.root, &updated).iter().try_for_each(|line| printer.line(line))?;
        }
        let envelope = signer::sign(updated.payload_type(), updated.to_payload(), &keys)?.to_vec();
        let signatures = Signatures::of(&envelope, &self.root, &updated)?;
        if let Some(path) = &how.draft {
            let chain = self.chain().await?;
            Draft::new(&chain, &envelope).write(path)?;
            let (version, draft) = (updated.version, path.clone());
            return printer.show(&Drafted { draft, version, signatures, in_force: false }, drafted_text);
        }
        if !signatures.complete {
            return Err(Failure::new(format!(
                "these keys are not enough: {}",
                signatures.lines().join("; ")
            ))
            .next(format!(
                "it is signed by {}; --draft FILE writes it for the others to sign",
                needs(&self.root, &updated)
            )));
        }
        let client = self.client.as_ref().ok_or_else(|| Failure::new("there is no coordinator"))?;
        put(client, self.home, &envelope).await?;
        in_force(&updated, &envelope, printer)
    }

    /// All versions up to this one, as far as there is somebody to ask.
    async fn chain(&self) -> Result<Vec<Vec<u8>>> {
        let Some(client) = &self.client else { return Ok(vec![self.envelope.clone()]) };
        let mut chain: Vec<Vec<u8>> = Vec::new();
        loop {
            let after_version = u64::try_from(chain.len()).unwrap_or(u64::MAX);
            let request = unary(v1::GetTrustRootsRequest { after_version });
            let answer =
                client.operators().get_trust_roots(request).await.map_err(|status| client.failure(status))?;
            let envelopes = answer.into_inner().envelopes;
            let known = u64::try_from(chain.len()).unwrap_or(u64::MAX);
            if envelopes.is_empty() || known >= self.root.version {
                return Ok(chain);
            }
            chain.extend(envelopes.into_iter().map(Vec::from));
        }
    }
}

pub(super) fn default_key(home: &Home) -> KeyName {
    KeyName::File(home.owner_key_path())
}

/// Keys of the root role, now or then.
pub(super) fn signing_keys(
    names: &[KeyName],
    passphrase: &PassphraseArgs,
    root: &TrustRoot,
    next: &TrustRoot,
) -> Result<Vec<Signer>> {
    let keys = Signer::open_all(names, passphrase)?;
    keys.iter().try_for_each(|key| check_key(key, root, next))?;
    Ok(keys)
}

fn check_key(key: &Signer, root: &TrustRoot, next: &TrustRoot) -> Result<()> {
    if root.root.keys.contains(&key.id()) {
        return key.check_scheme(root);
    }
    if next.root.keys.contains(&key.id()) {
        return key.check_scheme(next);
    }
    Err(Failure::new(format!("{} is not a key of the root role", key.name()))
        .next(format!("the trust root is signed by {}", owners(root, &root.root))))
}

/// Hands a version that is signed to the coordinator, and pins it here.
pub(super) async fn put(client: &Client, home: &Home, envelope: &[u8]) -> Result<()> {
    let request = unary(v1::PutTrustRootRequest { envelope: envelope.to_vec().into() });
    client.operators().put_trust_root(request).await.map_err(|status| client.failure(status))?;
    home.pin_trust_root(envelope)
}

pub(super) fn in_force(root: &TrustRoot, envelope: &[u8], printer: &Printer) -> Result<()> {
    match printer.format() {
        Format::Json => {
            let pin = pin(envelope)?;
            printer.show(root, |root| show::text(root, pin, SystemClock.now()))
        }
        Format::Text => printer
            .line(&format!("trust root {} is in force; agents take it when they connect", root.version)),
    }
}

pub(super) fn drafted_text(drafted: &Drafted) -> String {
    let path = drafted.draft.display();
    let mut text = drafted.signatures.lines().iter().map(|line| format!("{line}\n")).collect::<String>();
    text.push_str(&match (drafted.in_force, drafted.signatures.complete) {
        (true, _) => {
            format!("trust root {} is in force; agents take it when they connect\n", drafted.version)
        }
        (false, true) => {
            format!("{path} is signed by all who must; next: consign trust update --from {path}\n")
        }
        (false, false) => {
            format!("wrote {path}; next, on each owner's machine: consign trust sign {path} --key KEY\n")
        }
    });
    text
}
