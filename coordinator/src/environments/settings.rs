//! What can be set for an environment, and for one rollout.

use consign_common::name::Environment;
use serde::{Deserialize, Serialize};

use super::{Automation, Freeze, span};
use crate::{
    rollout::{GroupBudget, HealthCheck, Offline, OnStop, Probe},
    rollouts::Queueing,
};

/// What is `None` was not said. Texts are as a person wrote them, and were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Each a count or a percentage.
    pub waves: Option<Vec<String>>,
    /// A selector; empty: no wave of their own.
    pub canary: Option<String>,
    pub bake_ms: Option<u64>,
    pub failures: Option<u32>,
    pub group: Option<GroupBudget>,
    /// A count or a percentage; `0`: none.
    pub min_healthy: Option<String>,
    pub offline: Option<Offline>,
    pub health: Option<Health>,
    pub confirm_ms: Option<u64>,
    pub on_stop: Option<OnStop>,
    pub queue: Option<Queueing>,
    /// Of environments; one rollout has none.
    pub automation: Automation,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nobody is asked.
    Unasked,
    Check(HealthCheck),
}

/// One setting that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub environment: Environment,
    /// As in the file.
    pub setting: &'static str,
    /// As in the file; empty: it was not set.
    pub before: String,
    /// As in the file; empty: it is not set any more.
    pub after: String,
}

impl Settings {
    /// These, and where they say nothing, `below`.
    pub fn over(self, below: Self) -> Self {
        Self {
            waves: self.waves.or(below.waves),
            canary: self.canary.or(below.canary),
            bake_ms: self.bake_ms.or(below.bake_ms),
            failures: self.failures.or(below.failures),
            group: self.group.or(below.group),
            min_healthy: self.min_healthy.or(below.min_healthy),
            offline: self.offline.or(below.offline),
            health: self.health.or(below.health),
            confirm_ms: self.confirm_ms.or(below.confirm_ms),
            on_stop: self.on_stop.or(below.on_stop),
            queue: self.queue.or(below.queue),
            automation: below.automation,
        }
    }

    /// Every setting by its name in the file, with its value as it stands there; empty where it is not set.
    pub fn texts(&self) -> [(&'static str, String); 15] {
        let text = |value: Option<String>| value.unwrap_or_default();
        let quoted = |value: &str| format!("{value:?}");
        let in_quotes = |ms: &u64| quoted(&span(*ms));
        let Automation { deploy, candidates, veto_ms, freeze } = &self.automation;
        [
            ("waves", text(self.waves.as_ref().map(|waves| format!("{waves:?}")))),
            ("canary", text(self.canary.as_deref().map(quoted))),
            ("bake", text(self.bake_ms.as_ref().map(in_quotes))),
            ("failures", text(self.failures.map(|failures| failures.to_string()))),
            ("group", text(self.group.as_ref().map(group))),
            ("min_healthy", text(self.min_healthy.as_deref().map(count_or_quoted))),
            ("offline", text(self.offline.as_ref().map(offline))),
            ("health", text(self.health.as_ref().map(health))),
            ("confirm", text(self.confirm_ms.as_ref().map(in_quotes))),
            ("on_stop", text(self.on_stop.map(|on_stop| quoted(on_stop.as_str())))),
            ("queue", text(self.queue.map(|queue| quoted(queue.as_str())))),
            ("deploy", text(deploy.as_ref().map(|deploy| quoted(&deploy.to_string())))),
            ("candidates", text(candidates.map(|keep| quoted(keep.as_str())))),
            ("veto", text(veto_ms.as_ref().map(in_quotes))),
            ("freeze", windows(freeze)),
        ]
    }
}

/// What differs between two, in the order of [`Settings::texts`].
pub fn changes(environment: &Environment, before: &Settings, after: &Settings) -> Vec<Change> {
    let pairs = before.texts().into_iter().zip(after.texts());
    pairs
        .filter(|((_, before), (_, after))| before != after)
        .map(|((setting, before), (_, after))| Change {
            environment: environment.clone(),
            setting,
            before,
            after,
        })
        .collect()
}

fn group(group: &GroupBudget) -> String {
    format!("{{ label = {:?}, failures = {} }}", group.label, group.failures)
}

fn offline(offline: &Offline) -> String {
    match offline {
        Offline::Fail => "\"fail\"".to_owned(),
        Offline::Owe => "\"owe\"".to_owned(),
        Offline::Wait { ms } => format!("{{ wait = \"{}\" }}", span(*ms)),
    }
}

fn health(health: &Health) -> String {
    let Health::Check(HealthCheck { probe, within_ms }) = health else { return "{}".to_owned() };
    let within = span(*within_ms);
    match probe {
        Probe::Http { url, status } => {
            format!("{{ http = {url:?}, status = {status}, within = \"{within}\" }}")
        }
        Probe::Command { name } => format!("{{ command = {name:?}, within = \"{within}\" }}"),
    }
}

fn windows(freezes: &[Freeze]) -> String {
    if freezes.is_empty() {
        return String::new();
    }
    let windows: Vec<String> = freezes.iter().map(ToString::to_string).collect();
    format!("[{}]", windows.join(", "))
}

fn count_or_quoted(text: &str) -> String {
    if text.ends_with('%') { format!("{text:?}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_rollout_goes_before_what_holds_everywhere() {
        let below = Settings { bake_ms: Some(300_000), failures: Some(2), ..Settings::default() };
        let above = Settings { bake_ms: Some(0), on_stop: Some(OnStop::Rollback), ..Settings::default() };
        let both = above.over(below);
        assert_eq!((both.bake_ms, both.failures, both.on_stop), (Some(0), Some(2), Some(OnStop::Rollback)));
    }

    #[test]
    fn changes_are_told_as_the_file_has_them() {
        let name: Environment = "production".parse().unwrap();
        let before = Settings { bake_ms: Some(300_000), failures: Some(1), ..Settings::default() };
        let after = Settings {
            bake_ms: Some(90_000),
            offline: Some(Offline::Wait { ms: 600_000 }),
            ..Settings::default()
        };
        let told: Vec<_> = changes(&name, &before, &after)
            .into_iter()
            .map(|change| (change.setting, change.before, change.after))
            .collect();
        let expected =
            [("bake", "\"5m\"", "\"90s\""), ("failures", "1", ""), ("offline", "", "{ wait = \"10m\" }")];
        assert_eq!(told, expected.map(|(name, before, after)| (name, before.to_owned(), after.to_owned())));
    }
}
