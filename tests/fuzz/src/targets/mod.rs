//! What is fuzzed. Of every reader: it ends, it does not panic, it holds no more memory than its bound; what it accepts is
//! written and read again as the same; and what it says is safe to show. Beyond that each has properties of its own.

mod decision;
mod documents;
mod gated;
mod plans;
mod signed;
mod world;

use std::{cell::RefCell, fs, path::Path};

#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    pub about: &'static str,
    /// Golden files, by their names.
    golden: &'static [&'static str],
    /// Inputs that are made, or written down with the target.
    more: fn() -> Vec<Vec<u8>>,
    /// What its language is made of.
    pub words: &'static [&'static str],
    pub most_bytes: usize,
    /// How far an input can get, in the order in which it gets there: [`reached`].
    pub stages: &'static [&'static str],
    /// Inputs in `make test`.
    pub in_test: u64,
    pub check: fn(&[u8]) -> Result<Seen, String>,
}

/// What a reader made of an input. The error beside it is a property that does not hold.
#[derive(Debug)]
pub enum Seen {
    /// With its shape, roughly: inputs of one shape are alike.
    Accepted(String),
    Refused(String),
}

pub const ALL: &[&Target] = &[
    &signed::ENVELOPE,
    &documents::TRUST_ROOT,
    &documents::STATEMENT,
    &documents::MANIFEST,
    &documents::ORDER,
    &plans::PLAN,
    &plans::PLAN_DOCUMENT,
    &plans::CONDITION,
    &plans::WHERE,
    &plans::CONFIG,
    &signed::SSHSIG,
    &signed::KEY,
    &signed::TOKEN,
    &decision::DECISION,
    &gated::GATE,
];

impl Target {
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|target| target.name == name)
    }

    /// Golden files, the corpus directory of its name, and what is made.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds: Vec<Vec<u8>> = self.golden.iter().map(|name| golden(name)).collect();
        if let Ok(corpus) = fs::read_dir(Path::new(HERE).join("corpus").join(self.name)) {
            // Directories have no order of their own, and a run must have one.
            let mut paths: Vec<_> = corpus.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            seeds.extend(paths.into_iter().map(|path| fs::read(path).unwrap()));
        }
        seeds.extend((self.more)());
        seeds
    }
}

thread_local! {
    static REACHED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// The input that is being read got so far. A reader that is only ever asked about the beginnings of its language shows in
/// these counts.
fn reached(stage: &'static str) {
    REACHED.with_borrow_mut(|stages| {
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    });
}

/// How far the last input got; the next one begins anew.
pub(crate) fn take_reached() -> Vec<&'static str> {
    REACHED.take()
}

const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(HERE).join("../../common/tests/golden").join(name)).unwrap()
}

fn must(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// A refusal as it is told: one line that a terminal may show.
fn refused(error: &impl std::fmt::Display) -> Result<Seen, String> {
    let text = error.to_string();
    is_harmless(&text)?;
    must(text.len() <= 4096, || format!("a refusal of {} bytes", text.len()))?;
    Ok(Seen::Refused(text))
}

fn is_harmless(text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("a refusal with the control character U+{:04x}", u32::from(c))),
        None => Ok(()),
    }
}

/// Whatever it says.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// Sizes that are alike.
fn size(count: usize) -> u32 {
    count.checked_ilog2().map_or(0, |log| log + 1)
}

const JSON_WORDS: &[&str] = &[
    "app",
    "shop",
    "version",
    "1.2.0",
    "platform",
    "linux-x86_64",
    "number",
    "epoch",
    "ms",
    "environment",
    "production",
    "staging",
    "start_by",
    "converge_until",
    "config_sha256",
    "plan_sha256",
    "reason",
    "sequence",
    "values",
    "server",
    "web-1",
    "rollout",
    "step",
    "action",
    "skip",
    "done",
    "failed",
    "again",
    "at",
    "sealing_key",
    "subject",
    "name",
    "digest",
    "sha256",
    "predicateType",
    "predicate",
    "_type",
    "https://in-toto.io/Statement/v1",
    "consign:published/v1",
    "consign:approval/v1",
    "consign:config/v1",
    "consign:enrolled/v1",
    "consign:decision/v1",
    "consign:other/v1",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "commitment",
    "payload",
    "payloadType",
    "signatures",
    "keyid",
    "sig",
    "application/vnd.in-toto+json",
    "application/vnd.consign.trust-root.v1+json",
    "application/vnd.consign.trust-root.v2+json",
    "keys",
    "scheme",
    "ed25519",
    "sshsig",
    "public",
    "owner",
    "alice",
    "ci",
    "root",
    "roles",
    "apps",
    "publishers",
    "threshold",
    "floor",
    "config",
    "environments",
    "gate",
    "publisher-only",
    "statements",
    "require",
    "rearm",
    "separation",
    "none",
    "publisher",
    "all",
    "role",
    "where",
    "predicate.result == 'PASSED'",
    "coordinators",
    "id",
    "ca_sha256",
    "revoked",
    "enrolment",
    "issued",
    "expires",
    "format",
    "consign-manifest-v1",
    "plan",
    "entries",
    "path",
    "kind",
    "file",
    "dir",
    "link",
    "mode",
    "0644",
    "0755",
    "size",
    "target",
    "../x",
    "/etc",
    "a/b",
    ".",
    "..",
    "a//b",
    "consign-order-v1",
    "coordinator",
    "deployment",
    "term",
    "order",
    "deploy",
    "return",
    "cancel",
    "confirm",
    "decide",
    "once",
    "manifest",
    "force",
    "confirm_ms",
    "converge",
    "word",
    "run",
    "because",
    "consign-key-v1",
    "private",
    "\\u0000",
    "\\n",
    "\\u001b[31m",
];
