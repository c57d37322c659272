//! A draft of the next trust root: looked at and signed, and handed over once all have signed.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
};

use consign_common::{
    limits::TRUST_ROOT_BYTES,
    time::{Clock, SystemClock},
    trust::{Envelope, TrustRoot},
};

use super::{
    args::{ChangeArgs, SignArgs},
    change::{Drafted, default_key, drafted_text, in_force, put, signing_keys},
    commands::{newest, pin},
    difference::difference,
    draft::{Draft, Signatures},
    expiry::Validity,
    readers,
};
use crate::cli::{
    client::Client,
    failure::{Doing, Failure, Result},
    print::{Format, Printer},
    profile::Home,
    signer::Signer,
};

pub(super) async fn sign(
    args: &SignArgs,
    home: &Home,
    client: impl FnOnce() -> Result<Client>,
    printer: &Printer,
) -> Result<()> {
    let mut draft = Draft::read(&args.draft)?;
    let pinned = pinned(home)?;
    let before = pinned.1.version;
    let (envelope, root) = draft.follow(pinned)?;
    if root.version != before {
        home.pin_trust_root(&envelope)?;
    }
    let next = draft.read_next(&root)?;
    let default = [default_key(home)];
    let names = if args.keys.is_empty() { &default } else { args.keys.as_slice() };
    let keys = signing_keys(names, &args.passphrase, &root, &next)?;
    let so_far = Signatures::of(&draft.next()?, &root, &next)?;
    // It stands on the terminal whatever the result's form is: nobody is asked about what they have not seen.
    match printer.format() {
        Format::Text => tell(&root, &next, &so_far, |line| printer.line(line))?,
        Format::Json => tell(&root, &next, &so_far, |line| printer.note(line))?,
    }
    if !args.yes {
        confirm(&keys, next.version)?;
    }
    let mut envelope =
        Envelope::parse(&draft.next()?, TRUST_ROOT_BYTES).doing(|| "failed to read the draft".into())?;
    for key in &keys {
        let signature = key.sign(envelope.payload_type(), envelope.payload())?;
        envelope.add(signature);
    }
    draft.set_next(&envelope);
    draft.write(&args.draft)?;
    let envelope = envelope.to_vec();
    let signatures = Signatures::of(&envelope, &root, &next)?;
    let mut in_force = false;
    // Who has signed last, and is an operator, need not be told to hand it over.
    if signatures.complete && home.profile_path().exists() {
        let client = client()?;
        if !args.leave_behind {
            readers::check(&client, &readers::of_next(&root, &next)).await?;
        }
        put(&client, home, &envelope).await.map_err(|failure| {
            let again = format!(
                "the draft is signed; hand it over later: consign trust update --from {}",
                args.draft.display()
            );
            failure.next(again)
        })?;
        in_force = true;
    }
    let drafted = Drafted { draft: args.draft.clone(), version: next.version, signatures, in_force };
    printer.show(&drafted, drafted_text)
}

/// `consign trust update --from DRAFT`
pub(super) async fn hand_over(
    path: &Path,
    how: &ChangeArgs,
    home: &Home,
    client: &Client,
    printer: &Printer,
) -> Result<()> {
    let draft = Draft::read(path)?;
    let (newest, root) = newest(home, client).await?;
    let envelope = draft.next()?;
    if pin(&envelope)? == pin(&newest)? {
        return in_force(&root, &newest, printer);
    }
    let next = draft.read_next(&root)?;
    let signatures = Signatures::of(&envelope, &root, &next)?;
    if !signatures.complete {
        return Err(Failure::new(format!("not all have signed: {}", signatures.lines().join("; ")))
            .next(format!("on each owner's machine: consign trust sign {} --key KEY", path.display())));
    }
    if printer.format() == Format::Text {
        difference(&root, &next).iter().try_for_each(|line| printer.line(line))?;
    }
    if !how.leave_behind {
        readers::check(client, &readers::of_next(&root, &next)).await?;
    }
    put(client, home, &envelope).await?;
    in_force(&next, &envelope, printer)
}

fn pinned(home: &Home) -> Result<(Vec<u8>, TrustRoot)> {
    if !home.trust_root_path().exists() {
        return Err(Failure::new("there is no pinned trust root here to compare the draft with").next(
            "pin the one in force, with the digest that its owner tells you: consign trust init FILE --pin DIGEST",
        ));
    }
    home.trust_root()
}

fn tell(
    root: &TrustRoot,
    next: &TrustRoot,
    so_far: &Signatures,
    say: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    say(&format!(
        "trust root {}, issued {}, valid until {}: what it changes of version {}",
        next.version, next.issued, next.expires, root.version
    ))?;
    difference(root, next).iter().skip(1).try_for_each(|line| say(&format!("  {line}")))?;
    let validity = Validity::of(next.expires, SystemClock.now()).words();
    if !validity.is_empty() {
        say(&format!("  {validity}"))?;
    }
    so_far.lines().iter().try_for_each(|line| say(line))
}

fn confirm(keys: &[Signer], version: u64) -> Result<()> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is there to be asked").next("--yes signs without asking"));
    }
    let names: Vec<&str> = keys.iter().map(Signer::name).collect();
    let mut stderr = io::stderr().lock();
    drop(write!(stderr, "sign trust root {version} with {}? [y/N] ", names.join(", ")));
    drop(stderr.flush());
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).doing(|| "failed to read the answer".into())?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new("not signed")),
    }
}
