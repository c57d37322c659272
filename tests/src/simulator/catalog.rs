//! Artifacts and keys: plans made up from the seed, as real documents that are really signed.

use std::{collections::BTreeMap, fmt::Write as _, sync::OnceLock};

use consign_common::{
    artifact::{MANIFEST_FORMAT, Manifest},
    digest::Sha256,
    json,
    name::{App, Environment, ServerName},
    plan::Plan,
    time::UnixMs,
    trust::{
        Allowance, AppTrust, CoordinatorPin, Envelope, Gate, Key, OrderingNumber, Predicate, Published,
        RoleKeys, STATEMENT_TYPE, Scheme, ServersWord, SigningKey, Statement, Subject, TrustRoot,
    },
};

use super::random::Random;

pub(super) const COORDINATOR: &str = "c0ffee";
pub(super) const PLATFORM: &str = "linux-x86_64";
/// When every run begins, by a clock that is right.
pub(super) const EPOCH_MS: u64 = 1_700_000_000_000;

/// Not of the seed, and nothing that is compared holds a byte of them.
struct Keys {
    publisher: SigningKey,
    stranger: SigningKey,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        publisher: SigningKey::generate().unwrap(),
        stranger: SigningKey::generate().unwrap(),
    })
}

pub(super) fn environment() -> Environment {
    "production".parse().unwrap()
}

/// Whom the servers trust.
pub(super) fn trust_root(apps: &[App]) -> TrustRoot {
    root_of(apps, &keys().publisher)
}

/// What a server would have to trust to take what the stranger signed.
pub(super) fn strangers_root(apps: &[App]) -> TrustRoot {
    root_of(apps, &keys().stranger)
}

fn root_of(apps: &[App], publisher: &SigningKey) -> TrustRoot {
    let public = publisher.public();
    let only = RoleKeys { keys: vec![public.id()], threshold: 1 };
    let key = Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: "ci".parse().unwrap() };
    let floor = OrderingNumber { epoch: 1, ms: UnixMs(1000) };
    let trust = AppTrust { publishers: only.clone(), epoch: 1, floor, config: None };
    TrustRoot {
        version: 1,
        issued: UnixMs(1),
        expires: UnixMs(EPOCH_MS * 2),
        keys: BTreeMap::from([(public.id(), key)]),
        root: only,
        roles: BTreeMap::new(),
        apps: apps.iter().map(|app| (app.clone(), trust.clone())).collect(),
        environments: BTreeMap::from([(environment(), Gate::PublisherOnly {})]),
        coordinators: vec![CoordinatorPin { id: COORDINATOR.into(), ca_sha256: Sha256::of(b"ca") }],
        revoked: vec![],
        enrolment: None,
    }
}

pub(super) fn word(server: &ServerName, labels: &BTreeMap<String, String>, apps: &[App]) -> ServersWord {
    let allowances =
        apps.iter().map(|app| Allowance { app: app.clone(), users: vec![], units: vec![] }).collect();
    ServersWord { server: server.clone(), environment: environment(), labels: labels.clone(), allowances }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signer {
    Publisher,
    /// A key that no trust root names: nothing of it may ever run.
    Stranger,
}

#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Sha256,
    pub(super) plan: Plan,
    pub(super) signer: Signer,
    pub(super) statements: Vec<Vec<u8>>,
}

/// What is published; on the coordinator's disk, and never lost.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) artifacts: Vec<Artifact>,
}

impl Catalog {
    pub(super) fn by_digest(&self, digest: &Sha256) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.digest == *digest)
    }

    /// A new version of the app; its place here.
    pub(super) fn publish(&mut self, random: &mut Random, app: &App, signer: Signer, now: UnixMs) -> usize {
        let version = format!("1.0.{}", self.artifacts.len());
        let plan = plan_text(random, app);
        let manifest = Manifest {
            format: MANIFEST_FORMAT.into(),
            app: app.clone(),
            version: version.parse().unwrap(),
            platform: None,
            plan,
            entries: vec![],
        };
        let bytes = json::to_vec(&manifest);
        let digest = Sha256::of(&bytes);
        let plan = Plan::parse(&manifest.plan, "consign.toml");
        let plan = plan.unwrap_or_else(|error| panic!("{error}\n{}", manifest.plan));
        self.artifacts.push(Artifact { manifest, bytes, digest, plan, signer, statements: Vec::new() });
        let place = self.artifacts.len() - 1;
        self.publish_again(place, now);
        place
    }

    /// The same bytes once more: what was used up may be deployed again.
    pub(super) fn publish_again(&mut self, place: usize, now: UnixMs) {
        let Some(artifact) = self.artifacts.get_mut(place) else { return };
        let Manifest { app, version, platform, .. } = artifact.manifest.clone();
        let number = OrderingNumber { epoch: 1, ms: now };
        let statement = Statement {
            subject: Subject { name: app.to_string(), sha256: artifact.digest },
            predicate: Predicate::Published(Published { app, version, platform, number }),
        };
        let key = match artifact.signer {
            Signer::Publisher => &keys().publisher,
            Signer::Stranger => &keys().stranger,
        };
        // Newest only: agents take the highest number, and every signature that they check costs time.
        artifact.statements = vec![Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]).to_vec()];
    }
}

/// A plan with an `activate` step somewhere, and anything that plans may have around it.
fn plan_text(random: &mut Random, app: &App) -> String {
    let mut text = format!("app = \"{app}\"\nkeep = 2\n");
    if random.chance(300) {
        let seconds = random.one_of(&[20, 90, 600]);
        writeln!(text, "confirm = \"{seconds}s\"").unwrap();
    }
    let (before, after) = (random.below(3), random.below(3));
    let mut onces = 0;
    for index in 0..=before + after {
        writeln!(text, "[[step]]\nname = \"s{index}\"").unwrap();
        if index == before {
            writeln!(text, "activate = true").unwrap();
        } else {
            step_text(random, &mut text, &mut onces);
        }
        match random.below(8) {
            0 => writeln!(text, "retry = {{ attempts = {} }}", random.between(2, 3)).unwrap(),
            1 => writeln!(text, "if_fails = \"continue\"").unwrap(),
            2 => writeln!(text, "if_fails = \"stop\"").unwrap(),
            _ => {}
        }
    }
    text
}

fn step_text(random: &mut Random, text: &mut String, onces: &mut u32) {
    if random.chance(250) {
        writeln!(text, "sleep = \"1s\"").unwrap();
        return;
    }
    writeln!(text, "run = [\"bin/step\"]").unwrap();
    if random.chance(200) {
        writeln!(text, "when = \"first_deploy\"").unwrap();
    }
    if *onces < 2 && random.chance(350) {
        *onces += 1;
        writeln!(text, "once = true").unwrap();
        return;
    }
    match random.below(6) {
        0 => writeln!(text, "on = [\"deploy\", \"return\"]").unwrap(),
        1 => writeln!(text, "always = true").unwrap(),
        2 => writeln!(text, "on = [\"return\"]").unwrap(),
        _ => {}
    }
}
