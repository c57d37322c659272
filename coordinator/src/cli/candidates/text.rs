//! Candidates for people.

use consign_common::{terminal::escape_line, time::UnixMs};

use crate::cli::{
    output::Candidate,
    text::{ago, pairs, short, table},
};

pub(super) fn list(all: &[Candidate], now: UnixMs) -> String {
    if all.is_empty() {
        return "no candidates; `consign env show ENV` shows what makes one there: `deploy`\n".to_owned();
    }
    table_of(all, now)
}

pub(crate) fn table_of(all: &[Candidate], now: UnixMs) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|it| {
            vec![name(it), it.environment.clone(), ago(it.since_ms, now), it.state.clone(), because(it)]
        })
        .collect();
    table(&["CANDIDATE", "ENVIRONMENT", "SINCE", "STATE", "BECAUSE"], &rows)
}

pub(super) fn show(all: &[Candidate]) -> String {
    all.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn one(it: &Candidate) -> String {
    let mut rows = vec![
        vec!["candidate".into(), format!("{} in {}", name(it), it.environment)],
        vec!["digest".into(), it.digest.clone()],
        vec!["published".into(), UnixMs(it.published_ms).to_string()],
        vec!["since".into(), format!("{}{}", UnixMs(it.since_ms), made_by(it))],
        vec!["state".into(), it.state.clone()],
    ];
    let word = if it.state == "waiting" { "next" } else { "because" };
    rows.push(vec![word.into(), because(it)]);
    if let Some(at) = it.settled_ms {
        let who = if it.settled_by.is_empty() { "by itself" } else { it.settled_by.as_str() };
        rows.push(vec!["settled".into(), format!("{} ({who})", UnixMs(at))]);
    }
    if !it.rollout.is_empty() {
        rows.push(vec!["rollout".into(), it.rollout.clone()]);
    }
    pairs(&rows)
}

fn made_by(it: &Candidate) -> String {
    if it.after.is_empty() {
        return ", when it was published".to_owned();
    }
    format!(", when rollout {} in {} had succeeded", short(&it.source, 8), it.after)
}

pub(super) fn vetoed(it: &Candidate) -> String {
    format!(
        "{} does not begin by itself in {}; `consign rollout start` starts it all the same\n",
        escape_line(&name(it)),
        escape_line(&it.environment)
    )
}

fn name(it: &Candidate) -> String {
    let platform = if it.platform.is_empty() { String::new() } else { format!(" ({})", it.platform) };
    format!("{}@{}{platform}", it.app, it.version)
}

/// What it waits for, or what became of it.
pub(crate) fn because(it: &Candidate) -> String {
    match it.state.as_str() {
        "waiting" if it.waits_for.is_empty() => it.because.clone(),
        "waiting" => format!("waits for {}", it.because),
        "started" => format!("rollout {} by {}: {}", short(&it.rollout, 8), it.settled_by, it.because),
        "vetoed" => format!("by {}: {}", it.settled_by, it.because),
        _ => it.because.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_772_798_400_000);

    #[test]
    fn candidates_in_one_look() {
        let waiting = Candidate {
            app: "shop".into(),
            version: "1.4.0".into(),
            digest: "ab".repeat(32),
            environment: "production".into(),
            published_ms: NOW.0 - 7_200_000,
            since_ms: NOW.0 - 3_600_000,
            after: "staging".into(),
            source: "0a1b2c3d".repeat(4),
            state: "waiting".into(),
            waits_for: "veto".into(),
            because: "the end of the veto period, at 2026-03-06T13:00:00Z".into(),
            until_ms: Some(NOW.0 + 3_600_000),
            ..Candidate::default()
        };
        let started = Candidate {
            version: "1.3.0".into(),
            platform: "linux-x86_64".into(),
            after: String::new(),
            state: "started".into(),
            waits_for: String::new(),
            because: "1.3.0 was published".into(),
            until_ms: None,
            rollout: "4d3c2b1a".repeat(4),
            settled_by: "the pipeline".into(),
            settled_ms: Some(NOW.0 - 60_000),
            ..waiting.clone()
        };
        let superseded = Candidate {
            state: "superseded".into(),
            because: "1.4.0 is newer, and only the newest waits".into(),
            settled_by: String::new(),
            rollout: String::new(),
            ..started.clone()
        };
        let vetoed = Candidate {
            state: "vetoed".into(),
            because: "checkout is slow".into(),
            settled_by: "grace".into(),
            ..superseded.clone()
        };
        let all = [waiting, started, superseded, vetoed];
        insta::assert_snapshot!(format!("{}----\n{}", list(&all, NOW), show(&all)));
    }
}
