//! From the journal to a receipt. What ran is folded from events alone; only the logs' digests are read from disk.

use std::{fs::File, io, path::Path};

use consign_common::{
    deployment::{Attempt, DeploymentOutcome, Event, StepOutcome, StepSummary},
    digest::{Hasher, Sha256},
    plan::Phase,
    time::UnixMs,
    trust::{RECEIPT_FORMAT, Receipt, ServersWord, StepReceipt},
};

use crate::journal::{Record, Unreceipted};

/// What is said of a deployment that has ended; `None`: its events do not say how.
pub(super) fn receipt(
    of: &Unreceipted,
    records: &[Record],
    word: &ServersWord,
    boot_id: &str,
    log: impl Fn(Attempt) -> (Sha256, u64),
) -> Option<Receipt> {
    let started = records.first()?.at;
    let (ended, result) = records.iter().rev().find_map(end)?;
    Some(Receipt {
        format: RECEIPT_FORMAT.to_owned(),
        server: word.server.clone(),
        environment: of.order.environment.clone(),
        order: of.order.id.clone(),
        rollout: of.order.rollout.clone(),
        deployment: of.deployment.clone(),
        app: of.order.app.clone(),
        manifest: of.manifest,
        result,
        steps: steps(records, log),
        started,
        ended,
        boot_id: boot_id.to_owned(),
    })
}

fn end(record: &Record) -> Option<(UnixMs, DeploymentOutcome)> {
    match &record.event {
        Event::Ended { result } => Some((record.at, result.clone())),
        Event::Accepted { .. }
        | Event::Staging { .. }
        | Event::Staged { .. }
        | Event::Skipped { .. }
        | Event::Started { .. }
        | Event::Spawned { .. }
        | Event::Finished { .. }
        | Event::Returning { .. }
        | Event::Awaiting { .. }
        | Event::Answered { .. }
        | Event::Undecided { .. }
        | Event::Decided { .. }
        | Event::Confirming { .. }
        | Event::Confirmed { .. }
        | Event::Unconfirmed { .. }
        | Event::Cancelling { .. } => None,
    }
}

/// In the order in which they began; of each, what its last attempt came to.
fn steps(records: &[Record], log: impl Fn(Attempt) -> (Sha256, u64)) -> Vec<StepReceipt> {
    let (mut forth, mut back): (&[StepSummary], &[StepSummary]) = (&[], &[]);
    let mut steps: Vec<((Phase, u32), StepReceipt)> = Vec::new();
    for record in records {
        let (phase, step, attempts, result, (log_sha256, log_length)) = match &record.event {
            Event::Accepted { steps, .. } => {
                forth = steps;
                continue;
            }
            Event::Returning { steps, .. } => {
                back = steps;
                continue;
            }
            Event::Skipped { phase, step, expression, inputs } => {
                let result = StepOutcome::Skipped { expression: expression.clone(), inputs: inputs.clone() };
                (*phase, *step, 0, result, (Sha256::of(b""), 0))
            }
            Event::Finished { attempt, result, .. } => {
                (attempt.phase, attempt.step, attempt.number, result.clone(), log(*attempt))
            }
            Event::Staging { .. }
            | Event::Staged { .. }
            | Event::Started { .. }
            | Event::Spawned { .. }
            | Event::Awaiting { .. }
            | Event::Answered { .. }
            | Event::Undecided { .. }
            | Event::Decided { .. }
            | Event::Confirming { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Cancelling { .. }
            | Event::Ended { .. } => continue,
        };
        let of_phase = match phase {
            Phase::Deploy => forth,
            // A deployment that is a return from its beginning names its steps once.
            Phase::Return if back.is_empty() => forth,
            Phase::Return => back,
        };
        let summary = usize::try_from(step).ok().and_then(|step| of_phase.get(step));
        let Some(summary) = summary else { continue };
        let name = summary.name.clone();
        let receipt = StepReceipt { name, phase, attempts, result, log_sha256, log_length };
        match steps.iter_mut().find(|(known, _)| *known == (phase, step)) {
            Some((_, known)) => *known = receipt,
            None => steps.push(((phase, step), receipt)),
        }
    }
    steps.into_iter().map(|(_, receipt)| receipt).collect()
}

/// Of an attempt's log as it lies there; one that is not there has no bytes.
pub(super) fn hash(path: &Path) -> (Sha256, u64) {
    let mut hashing = Hashing { hasher: Hasher::new(), length: 0 };
    match File::open(path).and_then(|mut file| io::copy(&mut file, &mut hashing)) {
        Ok(_) => (hashing.hasher.finish(), hashing.length),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "a log is not there for the receipt");
            (Sha256::of(b""), 0)
        }
    }
}

struct Hashing {
    hasher: Hasher,
    length: u64,
}

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use consign_common::{
        deployment::Failure,
        name::Id,
        trust::{ORDER_FORMAT, Order, OrderKind},
    };

    use super::*;

    #[test]
    fn says_what_ran_in_which_order_and_what_each_came_to() {
        let id = |byte| Id::from_bytes([byte; 16]);
        let manifest = Sha256::of(b"m");
        let of = Unreceipted {
            deployment: id(3),
            manifest,
            order: Order {
                format: ORDER_FORMAT.into(),
                id: id(1),
                coordinator: "c".into(),
                server: "web-1".parse().unwrap(),
                environment: "staging".parse().unwrap(),
                app: "shop".parse().unwrap(),
                rollout: id(2),
                deployment: id(3),
                term: 1,
                issued: UnixMs(0),
                order: OrderKind::Return { manifest, reason: String::new(), skip: Vec::new() },
            },
        };
        let summary = |name: &str| StepSummary { name: name.parse().unwrap(), kind: "run".into() };
        let attempt = |phase, step, number| Attempt { phase, step, number };
        let finished = |attempt, result| Event::Finished {
            attempt,
            result,
            log_length: 0,
            duration_ms: 1,
            leftovers: Vec::new(),
        };
        let events = [
            Event::Accepted {
                order: id(1),
                app: "shop".parse().unwrap(),
                version: "2".parse().unwrap(),
                digest: manifest,
                previous: None,
                steps: vec![summary("migrate"), summary("restart"), summary("never")],
            },
            Event::Skipped {
                phase: Phase::Deploy,
                step: 0,
                expression: "false".into(),
                inputs: BTreeMap::new(),
            },
            finished(attempt(Phase::Deploy, 1, 1), StepOutcome::Cancelled),
            finished(
                attempt(Phase::Deploy, 1, 2),
                StepOutcome::Failed { failure: Failure::Exit { code: 3 } },
            ),
            Event::Returning {
                because: "step restart".into(),
                digest: manifest,
                version: "1".parse().unwrap(),
                steps: vec![summary("restart_old")],
            },
            finished(attempt(Phase::Return, 0, 1), StepOutcome::Succeeded),
            Event::Ended { result: DeploymentOutcome::Returned { because: "step restart".into() } },
        ];
        let records: Vec<Record> = events
            .into_iter()
            .enumerate()
            .map(|(at, event)| Record {
                deployment: id(3),
                sequence: at as u64 + 1,
                at: UnixMs(at as u64 * 10),
                event,
            })
            .collect();
        let word = ServersWord {
            server: "web-1".parse().unwrap(),
            environment: "staging".parse().unwrap(),
            labels: BTreeMap::new(),
            allowances: Vec::new(),
        };
        let log = |attempt: Attempt| (Sha256::of(attempt.to_string().as_bytes()), 7);
        let receipt = receipt(&of, &records, &word, "boot", log).unwrap();
        assert_eq!((receipt.started, receipt.ended), (UnixMs(0), UnixMs(60)));
        let steps: Vec<_> =
            receipt.steps.iter().map(|step| (step.name.as_str(), step.phase, step.attempts)).collect();
        assert_eq!(
            steps,
            [("migrate", Phase::Deploy, 0), ("restart", Phase::Deploy, 2), ("restart_old", Phase::Return, 1)]
        );
        assert_eq!(receipt.steps[0].log_length, 0);
        assert_eq!(receipt.steps[1].log_sha256, Sha256::of(b"deploy-1-2"));
        assert!(matches!(receipt.steps[1].result, StepOutcome::Failed { .. }));
        let open = &records[..6];
        assert!(super::receipt(&of, open, &word, "boot", log).is_none(), "it has not ended");
    }

    #[test]
    fn a_log_is_hashed_as_it_lies_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deploy-0-1.log");
        assert_eq!(hash(&path), (Sha256::of(b""), 0));
        std::fs::write(&path, b"records").unwrap();
        assert_eq!(hash(&path), (Sha256::of(b"records"), 7));
    }
}
