//! `consign artifact publish`: signed here, with a key that the coordinator never sees; uploaded so that a broken
//! connection costs only what was on its way.

use std::{
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use consign_common::{
    artifact::{ArtifactFile, Manifest},
    digest::Sha256,
    limits::{ArtifactLimits, CHUNK_BYTES},
    name::{Platform, Version},
    time::{Clock, SystemClock, UnixMs},
    trust::{AppTrust, OrderingNumber, Predicate, Published, STATEMENT_TYPE, Statement, Subject, TrustRoot},
};
use consign_proto::v1;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    commands::show_text,
    input::{self, Called, Input},
    wait::WaitArgs,
};
use crate::cli::{
    client::{Client, is_transient, unary},
    failure::{Doing, Exit, Failure, Result},
    output::{Artifact, Line},
    print::{Format, Printer},
    profile::Home,
    server::names,
    signer::{self, KeyName, PassphraseArgs, Signer},
    text::size,
    trust,
};

const KEY_VARIABLE: &str = "CONSIGN_PUBLISHER_KEY";
/// Chunks read ahead of the network.
const AHEAD: usize = 4;
/// Broken connections in a row, without a byte of progress between them, before giving up.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);
/// Between two lines about the progress, where there is no terminal.
const LINES: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// A .consign file, a directory with a consign.toml, or a .tar.gz
    #[arg(value_name = "FILE|DIR|TGZ")]
    input: PathBuf,
    /// The version, where the input is not packed yet. The same version again is signed anew: so it may be
    /// deployed once more, also where a newer one is
    #[arg(long, value_name = "V")]
    version: Option<Version>,
    /// The platform it is for, as linux-x86_64; without it, any
    #[arg(long)]
    platform: Option<Platform>,
    /// Cut leading directories from every path: 1 for npm's package/
    #[arg(long, value_name = "N", default_value_t = 0)]
    strip_components: usize,
    /// The plan, where the input has no consign.toml
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// The publisher's key: a file (also OpenSSH's), or ssh-agent:FINGERPRINT; repeat it where the threshold is above
    /// one. Default: $CONSIGN_PUBLISHER_KEY (the file's content or its path), then keys/publisher.key of the home
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<KeyName>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: PublishArgs, home: &Home, client: &Client, printer: &Printer) -> Result<Exit> {
    let keys = keys(&args.keys, &args.passphrase, home)?;
    let called = Called {
        version: args.version,
        platform: args.platform,
        strip_components: args.strip_components,
        plan: args.plan,
    };
    let path = args.input;
    let input = tokio::task::spawn_blocking(move || input::open(&path, called))
        .await
        .doing(|| "failed to pack".into())??;
    let (_, root) = trust::newest(home, client).await?;
    let way = args.wait.way(client).await?;
    let now = SystemClock.now();
    let statement = sign(input.file.manifest(), input.file.digest(), &root, &keys, now)?;
    let artifact = upload(&input, statement, client, printer).await?;
    let Some(way) = way else {
        printer.show(&artifact, show_text)?;
        return Ok(Exit::Done);
    };
    match printer.format() {
        Format::Text => printer.raw(&show_text(&artifact))?,
        Format::Json => printer.json_line(&Line::Published { artifact })?,
    }
    way.wait(input.file.digest(), now, client, printer).await
}

fn keys(given: &[KeyName], passphrase: &PassphraseArgs, home: &Home) -> Result<Vec<Signer>> {
    if !given.is_empty() {
        return Signer::open_all(given, passphrase);
    }
    Ok(vec![publishers_key(passphrase, home)?])
}

/// The publisher's key, where none is named.
pub(crate) fn publishers_key(passphrase: &PassphraseArgs, home: &Home) -> Result<Signer> {
    let default = KeyName::File(home.publisher_key_path());
    match std::env::var(KEY_VARIABLE) {
        Ok(content) if content.trim_start().starts_with(['{', '-']) => {
            Signer::parse(content.as_bytes(), &format!("${KEY_VARIABLE}"), passphrase)
        }
        Ok(name) if !name.is_empty() => Signer::open(&name.parse().map_err(Failure::usage)?, passphrase),
        Ok(_) | Err(_) if !home.publisher_key_path().exists() => {
            Err(Failure::new(format!("there is no publisher's key at {default}"))
                .next(format!("give --key KEY, or ${KEY_VARIABLE}")))
        }
        Ok(_) | Err(_) => Signer::open(&default, passphrase),
    }
}

/// The `published` statement. What every server would refuse is said here, before a byte is uploaded.
fn sign(
    manifest: &Manifest,
    digest: Sha256,
    root: &TrustRoot,
    keys: &[Signer],
    now: UnixMs,
) -> Result<Vec<u8>> {
    let app = &manifest.app;
    let trust: &AppTrust = root.apps.get(app).ok_or_else(|| {
        Failure::refused(format!("the trust root does not name {app}")).next(format!(
            "it names {}; its owner adds another one: consign trust update --add-app {app}",
            names(root.apps.keys())
        ))
    })?;
    for key in keys {
        if !trust.publishers.keys.contains(&key.id()) {
            return Err(Failure::refused(format!("the key {} may not publish {app}", key.id().short()))
                .next(format!(
                    "the trust root's owner lets it: consign trust update --add-publisher {app}=FILE.pub"
                )));
        }
        key.check_scheme(root)?;
    }
    let published = Published {
        app: app.clone(),
        version: manifest.version.clone(),
        platform: manifest.platform.clone(),
        number: OrderingNumber { epoch: trust.epoch, ms: now },
    };
    let subject = Subject { name: format!("{app}@{}", manifest.version), sha256: digest };
    let statement = Statement { subject, predicate: Predicate::Published(published) };
    let envelope = signer::sign(STATEMENT_TYPE, statement.to_payload(), keys)?;
    envelope.verified_by("the publication", &trust.publishers, &root.keys).map_err(|refusal| {
        Failure::refused(refusal.to_string()).next("give every key that is needed: --key FILE --key FILE")
    })?;
    Ok(envelope.to_vec())
}

async fn upload(input: &Input, statement: Vec<u8>, client: &Client, printer: &Printer) -> Result<Artifact> {
    let begin = v1::BeginPublishRequest {
        manifest: input.file.manifest_bytes().to_vec().into(),
        statement: statement.into(),
        pack_length: input.file.pack_length(),
        pack_sha256: input.pack_sha256.as_bytes().to_vec().into(),
    };
    let mut progress = Progress::new(input.file.pack_length(), printer);
    let (mut failed, mut furthest) = (0, 0);
    loop {
        let status = match attempt(input, &begin, client, &mut progress).await {
            Ok(artifact) => {
                progress.finish();
                return Ok(artifact);
            }
            Err(status) => status,
        };
        failed = if progress.sent > furthest { 1 } else { failed + 1 };
        furthest = furthest.max(progress.sent);
        if !is_transient(&status) {
            progress.finish();
            return Err(client.failure(status));
        }
        if failed >= ATTEMPTS {
            progress.finish();
            let again = "run the same command again: it goes on where this one ended";
            return Err(client.failure(status).next(again));
        }
        tokio::time::sleep(PAUSE * failed).await;
    }
}

/// One connection's worth: asks how far the coordinator is, and sends the rest.
async fn attempt(
    input: &Input,
    begin: &v1::BeginPublishRequest,
    client: &Client,
    progress: &mut Progress<'_>,
) -> std::result::Result<Artifact, tonic::Status> {
    let begun = client.operators().begin_publish(unary(begin.clone())).await?.into_inner();
    if begun.complete {
        return stored(input, client).await;
    }
    progress.at(begun.offset);
    let (chunks, receiver) = mpsc::channel(AHEAD);
    let (counter, mut counted) = mpsc::channel(1);
    let (path, upload, offset) = (input.path.clone(), begun.upload, begun.offset);
    let reader = tokio::task::spawn_blocking(move || send_chunks(&path, &upload, offset, &chunks, &counter));
    let mut service = client.operators();
    let call = service.upload_pack(ReceiverStream::new(receiver));
    tokio::pin!(call);
    let answer = loop {
        tokio::select! {
            answer = &mut call => break answer?.into_inner(),
            Some(sent) = counted.recv() => progress.at(sent),
        }
    };
    drop(counted);
    reader
        .await
        .map_err(|error| tonic::Status::internal(error.to_string()))?
        .map_err(|failure| tonic::Status::internal(failure.to_string()))?;
    match answer.artifact {
        Some(artifact) if answer.complete => Ok(artifact.into()),
        _ if answer.complete => stored(input, client).await,
        _ => Err(tonic::Status::unavailable(format!("the coordinator has {} bytes only", answer.offset))),
    }
}

async fn stored(input: &Input, client: &Client) -> std::result::Result<Artifact, tonic::Status> {
    let request = v1::ShowArtifactRequest { digest: input.file.digest().to_string(), ..Default::default() };
    Ok(client.operators().show_artifact(unary(request)).await?.into_inner().into())
}

/// Reads the pack from `offset` on; ends early, and without an error, when nobody takes the chunks any more.
fn send_chunks(
    path: &Path,
    upload: &str,
    mut offset: u64,
    chunks: &mpsc::Sender<v1::UploadChunk>,
    counter: &mpsc::Sender<u64>,
) -> Result<()> {
    let mut file = ArtifactFile::open(path, &ArtifactLimits::default())
        .doing(|| "failed to read the artifact".into())?;
    let mut pack = file.pack().doing(|| "failed to read the artifact".into())?;
    std::io::copy(&mut pack.by_ref().take(offset), &mut std::io::sink()).at("read", path)?;
    let mut upload = upload.to_owned();
    loop {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        pack.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data).at("read", path)?;
        // The first chunk names the upload, also where nothing is left to send.
        if data.is_empty() && upload.is_empty() {
            return Ok(());
        }
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let chunk = v1::UploadChunk { upload: std::mem::take(&mut upload), offset, data: data.into() };
        if chunks.blocking_send(chunk).is_err() {
            return Ok(());
        }
        offset = offset.saturating_add(length);
        // Only a display: a number that finds no room is followed by a higher one.
        let _ = counter.try_send(offset);
    }
}

/// How far the upload is: a bar on a terminal, now and then a line elsewhere.
struct Progress<'a> {
    bar: Option<ProgressBar>,
    printer: &'a Printer,
    total: u64,
    sent: u64,
    told: Instant,
}

impl<'a> Progress<'a> {
    fn new(total: u64, printer: &'a Printer) -> Self {
        let is_live = printer.format() == Format::Text && std::io::stderr().is_terminal();
        let style =
            ProgressStyle::with_template("uploading {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        let bar = style.ok().filter(|_| is_live).map(|style| ProgressBar::new(total).with_style(style));
        Self { bar, printer, total, sent: 0, told: Instant::now() }
    }

    fn at(&mut self, sent: u64) {
        self.sent = sent;
        if let Some(bar) = &self.bar {
            return bar.set_position(sent);
        }
        if self.printer.format() == Format::Text && self.told.elapsed() >= LINES {
            self.told = Instant::now();
            drop(self.printer.note(&format!("uploaded {} of {}", size(sent), size(self.total))));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use consign_common::trust::{Envelope, Gate, Key, Refusal, RoleKeys, Scheme, SigningKey};

    use super::*;

    fn key() -> Signer {
        Signer::of_key(SigningKey::generate().unwrap(), "ci".parse().unwrap(), "ci.key")
    }

    fn root(publisher: &Signer) -> TrustRoot {
        let public = publisher.public();
        let key = Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: "ci".parse().unwrap() };
        let role = RoleKeys { keys: vec![public.id()], threshold: 1 };
        let floor = OrderingNumber::default();
        let app = AppTrust { publishers: role.clone(), epoch: 3, floor, config: None };
        TrustRoot {
            version: 1,
            issued: UnixMs(1),
            expires: UnixMs(2),
            keys: [(public.id(), key)].into(),
            root: role,
            roles: [].into(),
            apps: [("shop".parse().unwrap(), app)].into(),
            environments: [("staging".parse().unwrap(), Gate::PublisherOnly {})].into(),
            coordinators: vec![],
            revoked: vec![],
            enrolment: None,
        }
    }

    fn manifest(app: &str) -> Manifest {
        Manifest {
            format: "consign-manifest-v1".into(),
            app: app.parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            platform: None,
            plan: String::new(),
            entries: vec![],
        }
    }

    #[test]
    fn a_publication_is_signed_in_the_epoch_of_the_trust_root() -> std::result::Result<(), Refusal> {
        let key = key();
        let digest = Sha256::of(b"manifest");
        let envelope =
            sign(&manifest("shop"), digest, &root(&key), std::slice::from_ref(&key), UnixMs(1)).unwrap();
        let statement = Statement::parse(Envelope::parse(&envelope, 10_000)?.payload())?;
        assert_eq!(statement.subject.sha256, digest);
        let Predicate::Published(published) = statement.predicate else { panic!("not published") };
        assert_eq!(published.number.epoch, 3);
        Ok(())
    }

    #[test]
    fn whoever_may_not_publish_is_told_before_the_upload() {
        let (key, stranger) = (key(), key());
        let root = root(&key);
        let failure = sign(&manifest("shop"), Sha256::of(b""), &root, &[stranger], UnixMs(1)).unwrap_err();
        assert_eq!(failure.exit.code(), 6);
        assert!(failure.what.contains("may not publish shop"), "{failure}");
        let failure = sign(&manifest("blog"), Sha256::of(b""), &root, &[key], UnixMs(1)).unwrap_err();
        assert!(failure.next.unwrap().contains("--add-app blog"));
    }
}
