//! A rollout as it is now: why it is there, what it waits for, and what it was told.

use consign_common::time::UnixMs;

use crate::cli::{
    audit::{self, Word},
    client::Client,
    failure::Result,
    follow::{result_line, result_servers},
    output::{OnceStep, Proof, Rollout, RolloutReceipt, Settings},
    profile::Home,
    text::{pairs, short, span, table},
    trust,
};

pub(super) fn show_text(rollout: &Rollout, now: UnixMs) -> String {
    let rows: Vec<Vec<String>> =
        facts(rollout, now).into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    format!("{}\n{}{}", result_line(rollout), pairs(&rows), result_servers(rollout))
}

/// What each server signed of its newest deployment in it. Without a trust root of one's own there is nothing to check
/// it by.
pub(super) async fn receipts(rollout: &Rollout, home: &Home, client: &Client) -> Result<Vec<RolloutReceipt>> {
    if home.trust_root().is_err() {
        return Ok(Vec::new());
    }
    let (_, root) = trust::newest(home, client).await?;
    let words = audit::words(client, &root, &rollout.id).await?;
    Ok(compared(rollout, words))
}

fn compared(rollout: &Rollout, words: Vec<Word>) -> Vec<RolloutReceipt> {
    let one = |word: Word| {
        let told = rollout.deployments.iter().find(|deployment| deployment.id == word.deployment);
        // Of an attempt that a retry replaced nothing is shown any more, and of a deployment that goes on nothing is signed.
        let told = match (told, word.proof.is_false()) {
            (Some(told), _) => told.state.as_str(),
            (None, true) => "",
            (None, false) => return None,
        };
        // What is under way as it is told may have ended by now.
        let ended =
            ["succeeded", "no-op", "failed", "returned", "stopped", "unknown", "cancelled", "refused"];
        let is_other = ended.contains(&told) && told != word.result;
        let proof = if is_other { Proof::disproven() } else { word.proof };
        Some(RolloutReceipt { server: word.server, deployment: word.deployment, result: word.result, proof })
    };
    words.into_iter().filter_map(one).collect()
}

pub(super) fn receipts_text(receipts: &[RolloutReceipt]) -> String {
    if receipts.is_empty() {
        return String::new();
    }
    let row = |receipt: &RolloutReceipt| {
        let word = match (receipt.proof.is_proven(), receipt.proof.is_false(), receipt.result.is_empty()) {
            (true, _, _) => format!("proven: {} vouched for its key", receipt.proof.by.join(", ")),
            (false, false, _) => "told: nobody has vouched for its key".to_owned(),
            (false, true, true) => "false: what is given for its receipt it has not signed".to_owned(),
            (false, true, false) => "false: its receipt says otherwise than the coordinator".to_owned(),
        };
        vec![receipt.server.clone(), receipt.result.clone(), word]
    };
    let rows: Vec<Vec<String>> = receipts.iter().map(row).collect();
    format!("\n{}", table(&["SERVER", "ITS RECEIPT", "WHOSE WORD"], &rows))
}

fn facts(rollout: &Rollout, now: UnixMs) -> Vec<(&'static str, String)> {
    let by = if rollout.started_by.is_empty() {
        "by itself".to_owned()
    } else {
        format!("by {}", rollout.started_by)
    };
    let why = if rollout.reason.is_empty() { String::new() } else { format!(": {}", rollout.reason) };
    let mut facts = vec![("started", format!("{} {by}{why}", UnixMs(rollout.started_ms)))];
    if let Some(at) = rollout.ended_ms {
        facts.push(("ended", UnixMs(at).to_string()));
    }
    if let Some(at) = rollout.deadline_ms.filter(|_| rollout.ended_ms.is_none()) {
        let what = match (rollout.state.as_str(), rollout.stage.as_str()) {
            ("queued", _) => "begins",
            (_, "baking") => "bake ends",
            _ => "waits until",
        };
        let left = span(UnixMs(at).since(now));
        facts.push((what, format!("{} (in {left})", UnixMs(at))));
    }
    if !rollout.paused.is_empty() {
        facts.push((
            "paused",
            format!("{}; `consign rollout resume {} --reason '...'`", rollout.paused, short(&rollout.id, 8)),
        ));
    }
    if let Some(hold) = &rollout.hold {
        let lift = format!("`consign env lift-hold {} --env {} --reason '...'`", hold.app, hold.environment);
        facts.push((
            "hold",
            format!("nothing begins by itself since {}: {}; {lift}", UnixMs(hold.at_ms), hold.because),
        ));
    }
    if !rollout.rolled_back_by.is_empty() {
        facts.push(("rolled back by", short(&rollout.rolled_back_by, 8)));
    }
    let strategy = strategy(&rollout.settings);
    if !strategy.is_empty() && rollout.kind != "return" {
        facts.push(("strategy", strategy));
    }
    if !rollout.plan.is_empty() {
        facts.push(("held to plan", short(&rollout.plan, 12)));
    }
    for skip in &rollout.skips {
        let place = if skip.server.is_empty() { "every server" } else { &skip.server };
        facts.push(("left out", format!("step {} on {place}", skip.step)));
    }
    facts.extend(rollout.once.iter().map(|once| ("once", once_text(once))));
    let first = rollout.deployments.iter().filter_map(|it| Some((it.confirm_until_ms?, &it.server))).min();
    if let Some((until, server)) = first {
        let left = span(UnixMs(until).since(now));
        facts.push(("confirm until", format!("{} (in {left}), first {server}", UnixMs(until))));
    }
    facts
}

fn once_text(once: &OnceStep) -> String {
    let OnceStep { step, state, server, because } = once;
    let because = if because.is_empty() { String::new() } else { format!(": {because}") };
    match state.as_str() {
        "open" => format!("{step}: nobody has run it"),
        "granted" => format!("{step}: {server} runs it"),
        "done" => format!("{step}: done on {server}"),
        "failed" => format!("{step}: failed on {server}{because}"),
        _ => format!("{step}: {state} on {server}{because}"),
    }
}

/// What is not as it is by itself.
fn strategy(settings: &Settings) -> String {
    let span = crate::environments::span;
    let mut parts = Vec::new();
    if !settings.waves.is_empty() {
        parts.push(format!("waves {}", settings.waves.join(", ")));
    }
    parts.extend(settings.bake_ms.filter(|ms| *ms > 0).map(|ms| format!("bake {}", span(ms))));
    parts.extend(settings.failures.filter(|n| *n > 0).map(|n| format!("failures tolerated: {n}")));
    parts.extend(settings.group.as_ref().map(|it| format!("with the same {}: {}", it.label, it.failures)));
    parts.extend(settings.min_healthy.as_ref().filter(|n| *n != "0").map(|n| format!("{n} stay up")));
    match (settings.offline.as_deref(), settings.wait_ms) {
        (Some("owe"), _) => parts.push("offline servers are owed".to_owned()),
        (Some("wait"), Some(ms)) => parts.push(format!("offline servers are waited for {}", span(ms))),
        _ => {}
    }
    parts.extend(settings.health.as_ref().map(|health| {
        let asked = if health.command.is_empty() { &health.url } else { &health.command };
        format!("health by {asked} within {}", span(health.within_ms))
    }));
    parts.extend(settings.confirm_ms.map(|ms| format!("confirm within {}", span(ms))));
    if settings.on_stop.as_deref() == Some("rollback") {
        parts.push("rolls back when it stops".to_owned());
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Deployment, Group, Health, Hold, SkippedStep};

    #[test]
    fn all_that_keeps_it_is_told() {
        let deployment = |server: &str, wave, state: &str| Deployment {
            server: server.into(),
            wave,
            state: state.into(),
            confirm_until_ms: (state == "confirming").then_some(1_700_000_200_000),
            ..Deployment::default()
        };
        let rollout = Rollout {
            id: "0a1b2c3d".repeat(4),
            kind: "deploy".into(),
            app: "shop".into(),
            version: "1.4.0".into(),
            environment: "production".into(),
            state: "paused".into(),
            because: "paused: paused by ada: lunch; waiting for wave 2 of 3: bake 2m10s left".into(),
            started_ms: 1_700_000_000_000,
            started_by: "ada".into(),
            reason: "spring sale".into(),
            stage: "baking".into(),
            wave: 1,
            last_wave: 3,
            deadline_ms: Some(1_700_000_130_000),
            paused: "paused by ada: lunch".into(),
            plan: "9f".repeat(32),
            hold: Some(Hold {
                app: "shop".into(),
                environment: "production".into(),
                because: "rolled back from 1.3.0".into(),
                who: "ada".into(),
                at_ms: 1_699_999_000_000,
            }),
            once: vec![OnceStep {
                step: "migrate".into(),
                state: "done".into(),
                server: "web-1".into(),
                because: String::new(),
            }],
            skips: vec![SkippedStep { step: "warm".into(), server: String::new() }],
            settings: Settings {
                waves: vec!["1".into(), "100%".into()],
                bake_ms: Some(180_000),
                failures: Some(1),
                group: Some(Group { label: "zone".into(), failures: 0 }),
                min_healthy: Some("2".into()),
                offline: Some("wait".into()),
                wait_ms: Some(600_000),
                health: Some(Health {
                    url: "http://shop/healthz".into(),
                    status: 200,
                    within_ms: 60_000,
                    ..Health::default()
                }),
                confirm_ms: Some(1_800_000),
                on_stop: Some("rollback".into()),
                ..Settings::default()
            },
            deployments: vec![deployment("web-1", 1, "confirming"), deployment("web-2", 2, "pending")],
            ..Rollout::default()
        };
        insta::assert_snapshot!(show_text(&rollout, UnixMs(1_700_000_000_000)));
    }
}
