//! What others learn of candidates: the audit log, and webhooks; in the transaction of what it tells of.

use consign_common::{audit::About, time::UnixMs};

use super::{CandidateRow, PIPELINE, Settled, Standing};
use crate::{
    audit::{self, Act},
    pipeline::Wait,
    store::{StoreError, Write},
    webhooks::{self, Event, EventKind, Told},
};

/// It waits for something else than was told before. Once for each change: looking again tells nothing.
pub async fn waits(
    write: &mut Write,
    row: &CandidateRow,
    wait: &Wait,
    now: UnixMs,
) -> Result<(), StoreError> {
    let news = sqlx::query(
        "UPDATE candidates SET told = ?1 WHERE number = ?2 AND standing = 'waiting' AND told <> ?1",
    )
    .bind(subject(wait))
    .bind(row.number)
    .execute(&mut **write)
    .await?;
    if news.rows_affected() == 0 {
        return Ok(());
    }
    let mut act = act("candidate waits", row, now);
    act.because(&format!("for {wait}"));
    audit::record(write, act).await?;
    let kind = match wait {
        Wait::Gate { .. } => EventKind::GateWaiting,
        Wait::Veto { .. } => EventKind::VetoWaiting,
        Wait::Refused { .. } => EventKind::CandidateRefused,
        // Of a hold and of rollouts there are messages of their own; the rest goes on by itself.
        Wait::RootExpired { .. }
        | Wait::Behind { .. }
        | Wait::Manual
        | Wait::Green { .. }
        | Wait::Published
        | Wait::Hold { .. }
        | Wait::Freeze { .. }
        | Wait::Rollout { .. }
        | Wait::Turn { .. } => return Ok(()),
    };
    let because = Some(wait.to_string());
    let until_ms = wait.until().map(|until| until.0);
    let about = Told { because, until_ms, ..told(row) };
    webhooks::emit(write, Event { kind, at: now, about }).await
}

/// What is compared with what was told before: times that pass by themselves are no news, other signatures are.
pub fn subject(wait: &Wait) -> String {
    match wait {
        Wait::Gate { missing: what } | Wait::Refused { why: what } => format!("{}: {what}", wait.as_str()),
        Wait::RootExpired { .. }
        | Wait::Behind { .. }
        | Wait::Manual
        | Wait::Green { .. }
        | Wait::Published
        | Wait::Hold { .. }
        | Wait::Veto { .. }
        | Wait::Freeze { .. }
        | Wait::Rollout { .. }
        | Wait::Turn { .. } => wait.as_str().to_owned(),
    }
}

/// It does not wait any more. That it began, the rollout's own entry in the audit log says; a veto, the verb's.
pub(super) async fn settled(
    write: &mut Write,
    row: &CandidateRow,
    settled: &Settled,
) -> Result<(), StoreError> {
    let kind = match row.standing {
        Standing::Waiting => return Ok(()),
        Standing::Started => EventKind::CandidateStarted,
        Standing::Superseded => {
            let mut act = act("candidate supersede", row, settled.at);
            act.because(&settled.because);
            audit::record(write, act).await?;
            EventKind::CandidateSuperseded
        }
        Standing::Vetoed => {
            audit::note(|act| {
                act.about(About::Artifact, row.digest).by(row.digest);
            });
            EventKind::CandidateVetoed
        }
    };
    let by = Some(settled.by.clone()).filter(|by| !by.is_empty() && by != PIPELINE);
    let because = Some(settled.because.clone()).filter(|because| !because.is_empty());
    let about = Told { by, because, rollout: row.rollout.clone(), ..told(row) };
    webhooks::emit(write, Event { kind, at: settled.at, about }).await
}

fn act(what: &str, row: &CandidateRow, at: UnixMs) -> Act {
    let mut act = Act::by_itself(what, at);
    act.about(About::App, &row.app).about(About::Version, &row.version);
    act.about(About::Environment, &row.environment).about(About::Artifact, row.digest);
    act
}

fn told(row: &CandidateRow) -> Told {
    Told {
        app: Some(row.app.clone()),
        environment: Some(row.environment.clone()),
        version: Some(row.version.clone()),
        artifact: Some(row.digest),
        ..Told::default()
    }
}
