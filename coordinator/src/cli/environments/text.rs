//! Environments for people.

use consign_common::{terminal::escape_line, time::UnixMs};

use super::commands::Shown;
use crate::cli::{
    candidates,
    output::{Applied, Environment, Hold},
    rollout::happenings,
    text::{ago, short, table},
};

pub(super) fn applied(applied: &Applied) -> String {
    if applied.changes.is_empty() {
        return "nothing changes: all of it was so already\n".to_owned();
    }
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let rows: Vec<Vec<String>> = applied
        .changes
        .iter()
        .map(|change| {
            vec![
                change.environment.clone(),
                change.setting.clone(),
                or_none(&change.before),
                or_none(&change.after),
            ]
        })
        .collect();
    let table = table(&["ENVIRONMENT", "SETTING", "BEFORE", "AFTER"], &rows);
    let last = if applied.dry_run {
        "nothing was applied: --dry-run\n"
    } else {
        "applied; rollouts that were started before keep what they had\n"
    };
    format!("{table}{last}")
}

pub(super) fn list(all: &[Environment], now: UnixMs) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|it| {
            let holds: Vec<&str> = it.holds.iter().map(|hold| hold.app.as_str()).collect();
            let waves =
                if it.settings.waves.is_empty() { "-".to_owned() } else { it.settings.waves.join(", ") };
            let bake = it.settings.bake_ms.map_or("-".to_owned(), crate::environments::span);
            vec![
                it.name.clone(),
                format!("{} of {}", it.servers_online, it.servers),
                waves,
                bake,
                it.settings.on_stop.clone().unwrap_or_else(|| "pause".to_owned()),
                it.settings.deploy.clone().unwrap_or_else(|| "manual".to_owned()),
                if holds.is_empty() { "-".to_owned() } else { holds.join(", ") },
                if it.applied_ms == 0 { "never".to_owned() } else { ago(it.applied_ms, now) },
            ]
        })
        .collect();
    table(&["ENVIRONMENT", "ONLINE", "WAVES", "BAKE", "ON STOP", "DEPLOY", "ON HOLD", "APPLIED"], &rows)
}

pub(super) fn show(shown: &Shown, now: UnixMs) -> String {
    let it = &shown.environment;
    let applied = if it.applied_ms == 0 {
        "nothing was applied, so that all is as it is by itself".to_owned()
    } else {
        format!("applied {} by {}", ago(it.applied_ms, now), escape_line(&it.applied_by))
    };
    let mut text = format!("{}: {applied}\n", escape_line(&it.name));
    for hold in &it.holds {
        text.push_str(&format!("\n{}\n", held(hold)));
    }
    if let Some(until) = it.frozen_until_ms {
        text.push_str(&format!("\nfrozen until {}: nothing begins by itself\n", UnixMs(until)));
    }
    if !shown.settings.is_empty() {
        text.push('\n');
        for (name, value) in &shown.settings {
            text.push_str(&format!("  {name} = {}\n", escape_line(value)));
        }
    }
    if !shown.members.is_empty() {
        let rows: Vec<Vec<String>> = shown
            .members
            .iter()
            .map(|server| {
                let labels: Vec<String> =
                    server.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let runs: Vec<String> = server
                    .apps
                    .iter()
                    .filter(|app| !app.good.is_empty())
                    .map(|app| format!("{}@{}", app.app, app.good_version))
                    .collect();
                let state = match (server.enabled, server.online) {
                    (false, _) => "disabled",
                    (true, true) => "online",
                    (true, false) => "offline",
                };
                vec![server.name.clone(), state.to_owned(), labels.join(","), runs.join(", ")]
            })
            .collect();
        text.push_str(&format!("\n{}", table(&["SERVER", "STATE", "LABELS", "RUNS"], &rows)));
    }
    if !it.candidates.is_empty() {
        text.push_str(&format!("\n{}", candidates::table_of(&it.candidates, now)));
    }
    let running: Vec<String> = it
        .apps
        .iter()
        .flat_map(|app| app.rollouts.iter().map(move |id| (app, id)))
        .map(|(app, id)| format!("  {}: consign rollout show {}\n", escape_line(&app.app), short(id, 8)))
        .collect();
    if !running.is_empty() {
        text.push_str(&format!("\nrollouts that have not ended\n{}", running.concat()));
    }
    if !it.history.is_empty() {
        text.push_str(&format!("\n{}", happenings(&it.history)));
    }
    text
}

pub(super) fn held(hold: &Hold) -> String {
    let (app, environment) = (escape_line(&hold.app), escape_line(&hold.environment));
    let who =
        if hold.who.is_empty() { "by itself".to_owned() } else { format!("by {}", escape_line(&hold.who)) };
    format!(
        "{app} is on hold since {} ({who}): {}\n  consign env lift-hold {app} --env {environment} --reason '...'",
        UnixMs(hold.at_ms),
        escape_line(&hold.because)
    )
}

pub(super) fn lifted(hold: &Hold) -> String {
    format!(
        "{} is not on hold in {} any more; it was since {}: {}\n",
        escape_line(&hold.app),
        escape_line(&hold.environment),
        UnixMs(hold.at_ms),
        escape_line(&hold.because)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{
        Candidate, EnvironmentApp, EnvironmentChange, Happening, RunningVersion, Settings,
    };

    const NOW: UnixMs = UnixMs(1_700_000_000_000);

    fn production() -> Environment {
        Environment {
            name: "production".into(),
            settings: Settings {
                waves: vec!["1".into(), "100%".into()],
                bake_ms: Some(300_000),
                on_stop: Some("rollback".into()),
                deploy: Some("after:staging".into()),
                ..Settings::default()
            },
            applied_ms: NOW.0 - 120_000,
            applied_by: "ada".into(),
            servers: 2,
            servers_online: 1,
            holds: vec![Hold {
                app: "shop".into(),
                environment: "production".into(),
                because: "rolled back from 1.4.0: checkout is slow".into(),
                who: "grace".into(),
                at_ms: NOW.0 - 60_000,
            }],
            apps: vec![EnvironmentApp {
                app: "shop".into(),
                versions: vec![RunningVersion { version: "1.3.0".into(), servers: vec!["web-1".into()] }],
                rollouts: vec!["0a1b2c3d".repeat(4)],
            }],
            history: vec![Happening {
                at_ms: NOW.0 - 120_000,
                who: "ada".into(),
                what: "apply".into(),
                because: "bake: \"5m\" instead of not set".into(),
            }],
            candidates: vec![Candidate {
                app: "shop".into(),
                version: "1.4.1".into(),
                environment: "production".into(),
                since_ms: NOW.0 - 30_000,
                state: "waiting".into(),
                waits_for: "hold".into(),
                because: "the end of the hold: rolled back from 1.4.0: checkout is slow".into(),
                ..Candidate::default()
            }],
            frozen_until_ms: Some(NOW.0 + 60_000),
        }
    }

    #[test]
    fn an_environment_in_one_look() {
        let shown = Shown {
            environment: production(),
            members: Vec::new(),
            settings: vec![("waves", "[\"1\", \"100%\"]".into()), ("bake", "\"5m\"".into())],
        };
        let never = Environment {
            name: "staging".into(),
            settings: Settings::default(),
            applied_ms: 0,
            applied_by: String::new(),
            servers: 0,
            servers_online: 0,
            holds: Vec::new(),
            apps: Vec::new(),
            history: Vec::new(),
            candidates: Vec::new(),
            frozen_until_ms: None,
        };
        let changes = vec![EnvironmentChange {
            environment: "production".into(),
            setting: "bake".into(),
            before: String::new(),
            after: "\"5m\"".into(),
        }];
        insta::assert_snapshot!(format!(
            "{}\n----\n{}\n----\n{}",
            show(&shown, NOW),
            list(&[production(), never], NOW),
            applied(&Applied { changes, dry_run: false })
        ));
    }
}
