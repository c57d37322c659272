//! `consign artifact verify`: what a server would find, at a desk. The same function decides.

use std::path::PathBuf;

use clap::Args;
use consign_common::{
    artifact::Manifest,
    digest::Sha256,
    limits::{ArtifactLimits, ENVELOPE_BYTES, TRUST_ROOT_BYTES},
    name::{Environment, Id},
    time::{Clock, SystemClock, UnixMs},
    trust::{
        Order, OrderKind, Privilege, ServersWord, TrustRoot,
        authorize::{Documents, Host, Intent, Memory, authorize},
    },
};
use serde::Serialize;

use super::pack::{Local, open, text};
use crate::{
    cli::{
        failure::{Doing, Failure, Result},
        print::Printer,
        profile::read,
    },
    rollouts::all_that_is_asked,
};

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A .consign file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also decide whether it may run, by this trust root: your own copy
    #[arg(long, value_name = "FILE", requires_all = ["statement", "environment"])]
    trust_root: Option<PathBuf>,
    /// A signed statement about it; may be given several times
    #[arg(long, value_name = "FILE", requires = "trust_root")]
    statement: Vec<PathBuf>,
    /// The environment that it would run in
    #[arg(long, value_name = "ENV", requires = "trust_root")]
    environment: Option<Environment>,
}

#[derive(Debug, Serialize)]
struct Verified {
    #[serde(flatten)]
    artifact: Local,
    /// The environment that its statements allow it in; absent where no trust root was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_in: Option<String>,
}

pub(crate) fn run(args: VerifyArgs, printer: &Printer) -> Result<()> {
    let limits = ArtifactLimits::default();
    let mut file = open(&args.file, &limits)?;
    file.verify(&limits).doing(|| "the artifact is damaged".into())?;
    let artifact = Local::of(&args.file, file.manifest());
    let allowed_in = match (&args.trust_root, &args.environment) {
        (Some(root), Some(environment)) => {
            let envelope = read(root, TRUST_ROOT_BYTES as u64)?;
            // It is the operator's own copy: what it is, is what is trusted.
            let root = TrustRoot::pin(&envelope)
                .and_then(|pin| TrustRoot::open_pinned(&envelope, pin))
                .at("read the trust root", root)?;
            let statements: Vec<Vec<u8>> =
                args.statement.iter().map(|path| read(path, ENVELOPE_BYTES as u64)).collect::<Result<_>>()?;
            decide(file.manifest(), &statements, &root, environment, SystemClock.now())?;
            Some(environment.to_string())
        }
        (None, _) | (_, None) => None,
    };
    printer.show(&Verified { artifact, allowed_in }, |verified| {
        let word = match &verified.allowed_in {
            Some(environment) => format!("allowed in {environment}: signed by who may publish it\n"),
            None => "whole: every file is what the manifest says; who signed it was not asked\n".to_owned(),
        };
        text("verified", &verified.artifact) + &word
    })
}

/// A server's decision, on a server that has never seen the app and whose root allows all that the plan asks for: what
/// is left are the documents.
fn decide(
    manifest: &Manifest,
    statements: &[Vec<u8>],
    root: &TrustRoot,
    environment: &Environment,
    now: UnixMs,
) -> Result<()> {
    let bytes = manifest.to_bytes();
    let server = "desk".parse().doing(|| "failed to name the server".into())?;
    let Some(coordinator) = root.coordinators.first().map(|pin| pin.id.clone()) else {
        return Err(Failure::refused("the trust root names no coordinator: no server would take any order"));
    };
    let word = ServersWord {
        server,
        environment: environment.clone(),
        labels: Default::default(),
        allowances: vec![all_that_is_asked(manifest).doing(|| "failed to read the plan".into())?],
    };
    let nobody = || Id::from_bytes([0; 16]);
    let order = Order {
        format: "consign-order-v1".into(),
        id: nobody(),
        coordinator: coordinator.clone(),
        server: word.server.clone(),
        environment: environment.clone(),
        app: manifest.app.clone(),
        rollout: nobody(),
        deployment: nobody(),
        term: 0,
        issued: now,
        order: OrderKind::deploy(Sha256::of(&bytes), false),
    };
    let platform = manifest.platform.as_ref().map(ToString::to_string).unwrap_or_default();
    let host = Host { word: &word, privilege: &Privilege::Root, platform: &platform };
    let documents = Documents { manifest: &bytes, statements, plan: None };
    let intent = Intent::Order { order: &order, connected: &coordinator };
    match authorize(intent, documents, root, host, &Memory::default(), now) {
        Ok(_) => Ok(()),
        Err(refusal) => {
            Err(Failure::refused(format!("a server would refuse it ({}): {refusal}", refusal.code())))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use consign_common::trust::{
        AppTrust, CoordinatorPin, Envelope, Gate, Key, OrderingNumber, Predicate, Published, RoleKeys,
        STATEMENT_TYPE, Scheme, SigningKey, Statement, Subject,
    };

    use super::*;
    use crate::cli::failure::Exit;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn root(publisher: &SigningKey) -> TrustRoot {
        let public = publisher.public();
        let role = RoleKeys { keys: vec![public.id()], threshold: 1 };
        let key = Key { scheme: Scheme::Ed25519, public: public.to_base64(), owner: "ci".parse().unwrap() };
        let app =
            AppTrust { publishers: role.clone(), epoch: 0, floor: OrderingNumber::default(), config: None };
        TrustRoot {
            version: 1,
            issued: UnixMs(1),
            expires: NOW.plus(Duration::from_secs(60)),
            keys: BTreeMap::from([(public.id(), key)]),
            root: role,
            roles: BTreeMap::new(),
            apps: BTreeMap::from([("shop".parse().unwrap(), app)]),
            environments: BTreeMap::from([("staging".parse().unwrap(), Gate::PublisherOnly {})]),
            coordinators: vec![CoordinatorPin { id: "main".into(), ca_sha256: Sha256::of(b"ca") }],
            revoked: vec![],
            enrolment: None,
        }
    }

    fn published(manifest: &Manifest, key: &SigningKey) -> Vec<u8> {
        let Manifest { app, version, platform, .. } = manifest.clone();
        let number = OrderingNumber { epoch: 0, ms: NOW };
        let statement = Statement {
            subject: Subject { name: "shop".into(), sha256: manifest.digest() },
            predicate: Predicate::Published(Published { app, version, platform, number }),
        };
        Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]).to_vec()
    }

    #[test]
    fn the_decision_at_a_desk_is_a_servers() {
        let plan = "app = \"shop\"\n[[step]]\nname = \"x\"\nrun = [\"true\"]\nuser = \"shop\"\n\
                    [[step]]\nname = \"activate\"\nactivate = true\n";
        let manifest = Manifest {
            format: "consign-manifest-v1".into(),
            app: "shop".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            platform: Some("linux-aarch64".parse().unwrap()),
            plan: plan.into(),
            entries: vec![],
        };
        let (publisher, stranger) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let root = root(&publisher);
        let check = |statement: Vec<u8>, environment: &str| {
            decide(&manifest, &[statement], &root, &environment.parse().unwrap(), NOW)
        };
        assert_eq!(check(published(&manifest, &publisher), "staging"), Ok(()));
        for (statement, environment) in [
            (published(&manifest, &stranger), "staging"),
            (published(&manifest, &publisher), "production"),
            (
                published(&Manifest { version: "1.0.1".parse().unwrap(), ..manifest.clone() }, &publisher),
                "staging",
            ),
        ] {
            assert_eq!(check(statement, environment).unwrap_err().exit, Exit::Refused);
        }
    }
}
