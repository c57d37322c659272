//! `consign audit receipts`: what servers say they ran, and whose word it is that the key is theirs.

use consign_common::{
    deployment::{DeploymentOutcome, StepOutcome},
    digest::Sha256,
    limits::ENVELOPE_BYTES,
    time::UnixMs,
    trust::{Endorsed, Envelope, Predicate, Receipt, ReceiptKey, STATEMENT_TYPE, Statement, TrustRoot},
};
use consign_proto::v1;
use tonic::Streaming;

use super::commands::WhoArgs;
use crate::cli::{
    approve,
    client::Client,
    failure::{Failure, Result},
    output::{Proof, ReceiptLine, ReceiptStep},
    print::Printer,
    profile::Home,
    text::{precise, table},
    trust,
};

pub(super) struct Receipts<'a> {
    client: &'a Client,
    stream: Streaming<v1::StoredReceipt>,
}

pub(super) async fn read(client: &Client, request: v1::ListReceiptsRequest) -> Result<Receipts<'_>> {
    let stream = client
        .operators()
        .list_receipts(request)
        .await
        .map_err(|status| client.failure(status))?
        .into_inner();
    Ok(Receipts { client, stream })
}

impl Receipts<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<v1::StoredReceipt>> {
        self.stream.message().await.map_err(|status| self.client.failure(status))
    }
}

/// A receipt that its server signed, by what the coordinator tells of the server's keys.
pub(super) struct Checked {
    pub(super) receipt: Receipt,
    /// The certified keys that endorse the one that signed it.
    endorsed_by: Vec<Endorsed>,
}

impl Checked {
    pub(super) fn of(stored: &v1::StoredReceipt) -> std::result::Result<Self, String> {
        let endorsed: Vec<Endorsed> =
            stored.keys.iter().filter_map(|envelope| ReceiptKey::open(envelope).ok()).collect();
        let signed = endorsed.iter().find_map(|endorsed| {
            Receipt::open(&stored.envelope, &endorsed.key).ok().map(|receipt| (receipt, endorsed.key))
        });
        let Some((receipt, key)) = signed else {
            return Err("no key that the server has endorsed signed it".to_owned());
        };
        let of_server = |one: &Endorsed| one.server == receipt.server && one.key == key;
        let endorsed_by: Vec<Endorsed> = endorsed.into_iter().filter(of_server).collect();
        if endorsed_by.is_empty() || receipt.server.as_str() != stored.server {
            return Err(format!("it is of {}", receipt.server));
        }
        Ok(Self { receipt, endorsed_by })
    }

    /// Whether somebody who may has said that one of those keys is this server's.
    pub(super) fn proof(&self, accepted: &[impl AsRef<[u8]>], root: &TrustRoot) -> Proof {
        let owners = accepted.iter().find_map(|envelope| self.vouched(envelope.as_ref(), root));
        owners.map_or_else(Proof::told, Proof::proven)
    }

    fn vouched(&self, envelope: &[u8], root: &TrustRoot) -> Option<Vec<String>> {
        let envelope = Envelope::parse(envelope, ENVELOPE_BYTES).ok()?;
        if envelope.payload_type() != STATEMENT_TYPE {
            return None;
        }
        let role = root.enrolment.as_ref().unwrap_or(&root.root);
        let payload = envelope.verified_by("the acceptance", role, &root.keys).ok()?;
        let statement = Statement::parse(payload).ok()?;
        let Predicate::Enrolled(enrolled) = &statement.predicate else { return None };
        let keyed = self.endorsed_by.iter().any(|endorsed| endorsed.spki == statement.subject.sha256);
        if !keyed
            || enrolled.server != self.receipt.server
            || enrolled.environment != self.receipt.environment
        {
            return None;
        }
        let signers = envelope.signers(role, &root.keys);
        Some(signers.into_values().map(|key| key.owner.to_string()).collect())
    }
}

pub(super) async fn run(args: WhoArgs, home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let (_, root) = trust::newest(home, client).await?;
    let (app, version) = (&args.artifact.0, &args.artifact.1);
    let papers = approve::fetch(client, &root, (app, version), args.platform.as_ref()).await?;
    let request = v1::ListReceiptsRequest {
        digest: papers.digest.to_string(),
        environment: args.environment.map(String::from).unwrap_or_default(),
        rollout: String::new(),
    };
    let mut all = read(client, request).await?;
    let mut lines = Vec::new();
    while let Some(stored) = all.next().await? {
        lines.push(match Checked::of(&stored) {
            Ok(checked) if checked.receipt.manifest == papers.digest => {
                line(&checked.receipt, checked.proof(&stored.accepted, &root))
            }
            Ok(_) => forged(&stored.server, "it is about another artifact".to_owned()),
            Err(why) => forged(&stored.server, why),
        });
    }
    printer.show(&lines, |lines| text(lines))?;
    match lines.iter().filter(|line| line.key.is_false()).count() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} receipts are not their servers' words")).next(
            "the coordinator altered or made them, or its database was changed: `consign audit verify`",
        )),
    }
}

/// What the coordinator gives for a receipt, and is none.
fn forged(server: &str, why: String) -> ReceiptLine {
    ReceiptLine { server: server.to_owned(), because: why, key: Proof::disproven(), ..ReceiptLine::default() }
}

/// What a server signed about its part of a rollout, as far as it counts here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) server: String,
    pub(crate) environment: String,
    pub(crate) deployment: String,
    pub(crate) manifest: Option<Sha256>,
    /// As [`ReceiptLine::result`].
    pub(crate) result: String,
    pub(crate) ended_ms: u64,
    /// Whose word it is that the key is the server's.
    pub(crate) proof: Proof,
}

impl Word {
    pub(crate) fn has_it(&self) -> bool {
        matches!(self.result.as_str(), "succeeded" | "no-op")
    }

    /// Because it was told to, or by itself.
    pub(crate) fn went_back(&self) -> bool {
        matches!(self.result.as_str(), "succeeded" | "returned")
    }
}

/// The receipts of a rollout. One that is not its server's is among them, as false.
pub(crate) async fn words(client: &Client, root: &TrustRoot, rollout: &str) -> Result<Vec<Word>> {
    let request = v1::ListReceiptsRequest { rollout: rollout.to_owned(), ..Default::default() };
    let mut all = read(client, request).await?;
    let mut words = Vec::new();
    while let Some(stored) = all.next().await? {
        words.push(word(&stored, rollout, root));
    }
    Ok(words)
}

pub(super) fn word(stored: &v1::StoredReceipt, rollout: &str, root: &TrustRoot) -> Word {
    match Checked::of(stored) {
        Ok(checked) if checked.receipt.rollout.as_str() == rollout => Word {
            server: checked.receipt.server.to_string(),
            environment: checked.receipt.environment.to_string(),
            deployment: checked.receipt.deployment.to_string(),
            manifest: Some(checked.receipt.manifest),
            result: result(&checked.receipt.result).0.to_owned(),
            ended_ms: checked.receipt.ended.0,
            proof: checked.proof(&stored.accepted, root),
        },
        Ok(_) | Err(_) => {
            Word { server: stored.server.clone(), proof: Proof::disproven(), ..Word::default() }
        }
    }
}

fn line(receipt: &Receipt, key: Proof) -> ReceiptLine {
    let (result, because) = result(&receipt.result);
    let step = |step: &consign_common::trust::StepReceipt| ReceiptStep {
        name: step.name.to_string(),
        phase: step.phase.as_str().to_owned(),
        attempts: step.attempts,
        result: step_result(&step.result).to_owned(),
        log_sha256: step.log_sha256.to_string(),
        log_length: step.log_length,
    };
    ReceiptLine {
        server: receipt.server.to_string(),
        environment: receipt.environment.to_string(),
        rollout: receipt.rollout.to_string(),
        deployment: receipt.deployment.to_string(),
        result: result.to_owned(),
        because,
        started_ms: receipt.started.0,
        ended_ms: receipt.ended.0,
        steps: receipt.steps.iter().map(step).collect(),
        key,
    }
}

fn result(outcome: &DeploymentOutcome) -> (&'static str, String) {
    match outcome {
        DeploymentOutcome::Succeeded { tolerated } if tolerated.is_empty() => ("succeeded", String::new()),
        DeploymentOutcome::Succeeded { tolerated } => {
            ("succeeded", format!("failed and tolerated: {}", tolerated.join(", ")))
        }
        DeploymentOutcome::NoOp => ("no-op", String::new()),
        DeploymentOutcome::Failed { because } => ("failed", because.clone()),
        DeploymentOutcome::Returned { because } => ("returned", because.clone()),
        DeploymentOutcome::Stopped { because } => ("stopped", because.clone()),
        DeploymentOutcome::Unknown { step, because } => ("unknown", format!("step {step}: {because}")),
        DeploymentOutcome::Cancelled { because } => ("cancelled", because.clone()),
        DeploymentOutcome::Refused { code, message } => ("refused", format!("{code}: {message}")),
    }
}

fn step_result(outcome: &StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Succeeded => "succeeded",
        StepOutcome::Skipped { .. } => "skipped",
        StepOutcome::Failed { .. } => "failed",
        StepOutcome::Unknown { .. } => "unknown",
        StepOutcome::Cancelled => "cancelled",
    }
}

fn text(lines: &[ReceiptLine]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let word = match (line.key.is_proven(), line.key.is_false()) {
                (true, _) => format!("proven: {} vouched for it", line.key.by.join(", ")),
                (false, true) => "false: this is not the server's word".to_owned(),
                (false, false) => "told: `consign server accept` has vouched for no key of it".to_owned(),
            };
            let ended = precise(UnixMs(line.ended_ms));
            vec![
                line.server.clone(),
                line.environment.clone(),
                line.result.clone(),
                ended,
                word,
                line.because.clone(),
            ]
        })
        .collect();
    table(&["SERVER", "ENVIRONMENT", "RESULT", "ENDED", "THE SERVER'S KEY", "BECAUSE"], &rows)
}
